\i test/include/setup.sql
BEGIN;
SELECT plan(8);
-- read_matching() beside the same query in plain SQL, over event_tags and the log:
-- queries, logs, positions and numbers of rows by lot. (Another seed: setseed below.)
SELECT setseed(0.15) IS NULL AS x \gset

SELECT count(cqrs_es.define_tags('t' || i, 'k:{/k?}')) FROM generate_series(1, 4) AS i \g /dev/null
SELECT cqrs_es.define_tags('plain') IS NULL AS x \gset

-- Some of n tags.
CREATE FUNCTION pg_temp.some(n int, most int) RETURNS text[] LANGUAGE sql VOLATILE AS $$
	SELECT coalesce(array_agg(DISTINCT 'k:' || (1 + floor(n * random() ^ 2))::int), '{}') FROM generate_series(1, floor(random() * (most + 1))::int) $$;
CREATE FUNCTION pg_temp.type() RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT CASE WHEN random() < 0.1 THEN 'plain' WHEN random() < 0.05 THEN 'unknown' ELSE 't' || 1 + floor(random() * 4)::int END $$;

-- Events with tags that the caller gives, that the payload gives, both, and none; of two
-- tenants; with gaps between them.
DO $$
DECLARE
	type text;
	keys jsonb;
BEGIN
	FOR i IN 1 .. 1000 LOOP
		type := pg_temp.type();
		keys := to_jsonb(ARRAY(SELECT substr(tag, 3) FROM unnest(pg_temp.some(15, 4)) AS tag));
		PERFORM set_config('cqrs_es.tenant_id', CASE WHEN random() < 0.1 THEN 'other' ELSE '' END, true);
		IF random() < 0.1 THEN
			PERFORM cqrs_es.next_position();
		END IF;
		IF random() < 0.4 THEN
			PERFORM cqrs_es.append_event('random', (i % 50)::text, type, jsonb_build_object('k', keys), tags => pg_temp.some(15, 3));
		ELSIF random() < 0.5 THEN
			INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('random', i % 50, type, jsonb_build_object('k', keys));
		ELSE
			PERFORM cqrs_es.append_event('random', (i % 50)::text, type, '{}', tags => CASE WHEN random() < 0.5 THEN pg_temp.some(15, 5) END);
		END IF;
	END LOOP;
	PERFORM set_config('cqrs_es.tenant_id', '', true);
END $$;

CREATE FUNCTION pg_temp.item() RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	types jsonb := to_jsonb(ARRAY(SELECT DISTINCT CASE WHEN random() < 0.2 THEN 'plain' ELSE 't' || 1 + floor(random() * 5)::int % 5 END
		FROM generate_series(1, 1 + floor(random() * 3)::int)));
	tags jsonb := to_jsonb(pg_temp.some(16, 1 + floor(random() * 3)::int));
BEGIN
	-- nobody has defined t5, nor has it events: it may stand beside tags
	IF tags = '[]' THEN
		types := to_jsonb(ARRAY(SELECT t FROM jsonb_array_elements_text(types) AS t WHERE t <> 't5' UNION ALL SELECT 't1' ORDER BY 1));
		RETURN CASE WHEN random() < 0.1 THEN '{}' ELSE jsonb_build_object('types', types) END;
	END IF;
	RETURN jsonb_build_object('tags', tags) || CASE WHEN random() < 0.5 THEN jsonb_build_object('types', types) ELSE '{}' END;
END $$;
CREATE FUNCTION pg_temp.query() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
	SELECT jsonb_agg(pg_temp.item()) FROM generate_series(1, 1 + floor(random() * 4)::int) $$;

-- The events with their tags, and which of them match.
CREATE TABLE pg_temp.tagged AS
	SELECT e.global_position, e.event_type, ARRAY(
		SELECT t.tag::text FROM cqrs_es.event_tags AS t WHERE t.tenant_id = e.tenant_id AND t.global_position = e.global_position ORDER BY 1) AS tags
	FROM cqrs_es.events AS e WHERE e.tenant_id = '';
CREATE INDEX ON tagged (global_position);
ANALYZE tagged;
CREATE FUNCTION pg_temp.matching(query jsonb, after_position bigint) RETURNS SETOF bigint LANGUAGE sql AS $$
	WITH wanted AS MATERIALIZED (
		SELECT ARRAY(SELECT jsonb_array_elements_text(item->'types')) AS types, ARRAY(SELECT jsonb_array_elements_text(item->'tags')) AS tags
		FROM jsonb_array_elements(query) AS item)
	SELECT DISTINCT e.global_position
	FROM wanted JOIN tagged AS e ON (wanted.types = '{}' OR e.event_type = ANY (wanted.types)) AND e.tags @> wanted.tags
	WHERE e.global_position > after_position
$$;

CREATE TABLE pg_temp.asked (query jsonb, after_position bigint, max_count int, backward boolean, wanted bigint[], got bigint[], tags_differ boolean);
DO $$
DECLARE
	ask asked;
BEGIN
	FOR i IN 1 .. 300 LOOP
		ask.query := pg_temp.query();
		ask.after_position := CASE WHEN random() < 0.5 THEN 0 ELSE (SELECT floor(random() * max(global_position))::bigint FROM cqrs_es.events) END;
		ask.max_count := CASE WHEN random() < 0.4 THEN (ARRAY[1, 1, 2, 5, 100, 10000])[1 + floor(random() * 6)] END;
		ask.backward := random() < 0.5;
		SELECT coalesce(array_agg(p), '{}') INTO ask.wanted FROM (
			SELECT p FROM pg_temp.matching(ask.query, ask.after_position) AS p
			ORDER BY CASE WHEN ask.backward THEN -p ELSE p END
			LIMIT ask.max_count) AS s;
		SELECT coalesce(array_agg(r.global_position ORDER BY n), '{}'),
			coalesce(bool_or(r.tags IS DISTINCT FROM (SELECT tags FROM tagged AS t WHERE t.global_position = r.global_position)), false)
		INTO ask.got, ask.tags_differ
		FROM (SELECT *, row_number() OVER () AS n FROM cqrs_es.read_matching(CASE WHEN i % 2 = 0 THEN ask.query ELSE jsonb_build_object('items', ask.query) END,
			after_position => ask.after_position, max_count => ask.max_count, backward => ask.backward)) AS r;
		INSERT INTO asked SELECT ask.*;
	END LOOP;
END $$;

SELECT results_eq('SELECT query, after_position, max_count, backward, got FROM asked WHERE got <> wanted', 'SELECT query, after_position, max_count, backward, wanted FROM asked WHERE got <> wanted',
	'read_matching gives what plain SQL gives');
SELECT is((SELECT count(*) FROM asked WHERE tags_differ), 0::bigint, 'with the tags of each event');
SELECT cmp_ok((SELECT count(*) FROM asked WHERE got <> '{}'), '>', 180::bigint, 'most queries found something');
SELECT cmp_ok((SELECT count(*) FROM asked WHERE got = '{}'), '>', 2::bigint, 'some nothing');
SELECT cmp_ok((SELECT count(*) FROM asked WHERE max_count = cardinality(got)), '>', 20::bigint, 'some ended at the number of rows that was asked for');

-- A condition is the same question: does anything match above a position?
CREATE TABLE pg_temp.conditions (query jsonb, after_position bigint, wanted bigint, got bigint, state text);
DO $$
DECLARE
	ask conditions;
	text text;
BEGIN
	FOR ask IN SELECT query, after_position FROM (SELECT * FROM asked WHERE query <> '[{}]' LIMIT 200) AS a LOOP
		CONTINUE WHEN ask.query @> '[{}]' AND EXISTS (SELECT FROM jsonb_array_elements(ask.query) AS i WHERE i = '{}');
		SELECT min(p) INTO ask.wanted FROM pg_temp.matching(ask.query, ask.after_position) AS p;
		ask.state := 'appended';
		BEGIN
			PERFORM cqrs_es.append_to_streams('[{"type": "unknown", "payload": {}}]', fail_if_events_match => ask.query, after_position => ask.after_position);
			RAISE EXCEPTION USING ERRCODE = 'ZZ001';
		EXCEPTION
			WHEN SQLSTATE 'ZZ001' THEN
				NULL;
			WHEN SQLSTATE 'QE005' THEN
				ask.state := SQLSTATE;
				GET STACKED DIAGNOSTICS text = PG_DATATYPE_NAME;
				ask.got := text;
		END;
		INSERT INTO conditions SELECT ask.*;
	END LOOP;
END $$;
SELECT is_empty($$SELECT * FROM conditions WHERE (state = 'QE005') <> (wanted IS NOT NULL)$$, 'a condition fails when something matches, and only then');
SELECT is_empty($$SELECT * FROM conditions WHERE wanted IS DISTINCT FROM got$$, 'and names the first of what does');
SELECT cmp_ok((SELECT count(*) FROM conditions), '>', 150::bigint, 'that was asked often enough');
SELECT finish();
ROLLBACK;
