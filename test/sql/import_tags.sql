\i test/include/setup.sql
-- Tags of an import: those of its column tags, and those that define_tags makes, of each event its own, held as those of an append.
BEGIN;
SELECT plan(28);
CREATE SCHEMA import_tags;
SET LOCAL search_path = import_tags, public;
SELECT cqrs_es.define_tags('import_tags defined', 'a:{/a}') IS NULL AS x \gset

CREATE FUNCTION tags_of(of_type text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT concat_ws(' ', e.aggregate_id, e.sequence, string_agg(t.tag, ' ' ORDER BY t.tag))
	FROM cqrs_es.events AS e LEFT JOIN cqrs_es.event_tags AS t ON t.global_position = e.global_position AND t.tenant_id = e.tenant_id AND t.event_type = e.event_type
	WHERE e.aggregate_type = of_type GROUP BY e.aggregate_id, e.sequence ORDER BY min(e.global_position)
$$;

-- in an order of its own, some without tags, some twice, some that are derived, too
CREATE TABLE old (stream text, place int, type text, a int, tags varchar(20)[]);
INSERT INTO old VALUES ('2', 5, 'import_tags defined', 5, '{x,x,a:5}'), ('1', 1, 'plain', 1, '{y,z}'), ('1', 2, 'plain', 2, NULL), ('2', 3, 'import_tags defined', 3, '{}'),
	('1', 4, 'plain', 4, '{y}'), ('3', 6, 'plain', 6, '{z}');
CREATE VIEW history AS SELECT 'import_tags' AS aggregate_type, stream AS aggregate_id, place AS "position", type AS event_type, jsonb_build_object('a', a) AS payload, tags FROM old;
CREATE FUNCTION expected() RETURNS SETOF text LANGUAGE sql AS
	$$VALUES ('1 1 y z'), ('1 2'), ('2 1 a:3'), ('1 3 y'), ('2 2 a:5 x'), ('3 1 z')$$;
SELECT results_eq($$SELECT streams, imported, already_there FROM cqrs_es.import_events('history')$$, $$VALUES (3::bigint, 6::bigint, 0::bigint)$$, 'a source with tags');
SELECT results_eq($$SELECT tags_of('import_tags')$$, 'SELECT expected()', 'each event has its own, and those of its type');
SELECT results_eq($$SELECT payload->>'a' FROM cqrs_es.read_matching('[{"tags": ["y"]}, {"tags": ["x", "a:5"]}]')$$, $$VALUES ('1'), ('4'), ('5')$$, 'by which they are found');
SELECT results_eq($$SELECT imported, already_there FROM cqrs_es.import_events('history')$$, $$VALUES (0::bigint, 6::bigint)$$, 'the second time nothing is left to do');
INSERT INTO old VALUES ('3', 7, 'plain', 7, '{w}'), ('4', 8, 'plain', 8, '{w}');
SELECT results_eq($$SELECT imported, already_there FROM cqrs_es.import_events('history')$$, $$VALUES (2::bigint, 6::bigint)$$, 'but what has come since');
SELECT results_eq($$SELECT payload->>'a' FROM cqrs_es.read_matching('[{"tags": ["w"]}]')$$, $$VALUES ('7'), ('8')$$, 'with its tags');
SELECT is(count(*), 9::bigint, 'no tag is written twice') FROM cqrs_es.event_tags AS t JOIN cqrs_es.events AS e USING (global_position, tenant_id, event_type) WHERE e.aggregate_type = 'import_tags';

-- the slots are held, before the positions are drawn
CREATE FUNCTION slots() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = ''advisory'' AND objsubid = 205';
CREATE VIEW one AS SELECT 'import_tags one' AS aggregate_type, '1' AS aggregate_id, 1 AS "position", 'plain' AS event_type, '{}'::jsonb AS payload, '{import_tags held}'::text[] AS tags;
SELECT slots() AS before, (SELECT last_value FROM cqrs_es.events_global_position_seq) AS last \gset
SELECT last_position AS position FROM cqrs_es.import_events('one') \gset
SELECT is(slots(), :before + 1::bigint, 'the slot of a tag is held');
SELECT cmp_ok(:position::bigint, '>', :last + 1::bigint, 'and the position was drawn under it: the default''s is a gap');

-- handlers see the tags of their event
CREATE TABLE seen (n int, tags text[]);
CREATE FUNCTION see(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$
	INSERT INTO import_tags.seen SELECT (event.payload->>'a')::int, array_agg(t.tag::text ORDER BY t.tag) FROM cqrs_es.event_tags AS t WHERE t.global_position = event.global_position
$$;
SELECT cqrs_es.create_projection('import_tags', aggregate_types => '{import_tags seen}', read_models => '{seen}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('import_tags', '*', 'import_tags.see(cqrs_es.event)') IS NULL AS x \gset
CREATE VIEW for_handlers AS SELECT 'import_tags seen' AS aggregate_type, stream AS aggregate_id, place AS "position", type AS event_type, jsonb_build_object('a', a) AS payload, tags FROM old WHERE place < 6;
SELECT is(imported, 5::bigint, 'an import that a handler follows') FROM cqrs_es.import_events('for_handlers');
SELECT results_eq('SELECT concat_ws('' '', n, array_to_string(tags, '' '')) FROM seen ORDER BY n', $$VALUES ('1 y z'), ('2'), ('3 a:3'), ('4 y'), ('5 a:5 x')$$, 'the handler sees the tags of its event');

-- handlers that append in between, and import
CREATE FUNCTION answer(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.append_event('import_tags answer', event.aggregate_id, 'plain', '{}', tags => ARRAY['answer ' || event.sequence]);
	IF event.sequence = 1 THEN
		EXECUTE format('CREATE VIEW import_tags.inner_%s AS SELECT ''import_tags inner'' AS aggregate_type, %1$L AS aggregate_id, 1 AS "position", ''plain'' AS event_type, ''{}''::jsonb AS payload, ARRAY[''inner %1$s''] AS tags', event.aggregate_id);
		PERFORM cqrs_es.import_events('import_tags.inner_' || event.aggregate_id);
	END IF;
END $$;
SELECT cqrs_es.create_projection('import_tags answers', aggregate_types => '{import_tags answered}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('import_tags answers', '*', 'import_tags.answer(cqrs_es.event)') IS NULL AS x \gset
CREATE VIEW answered AS SELECT 'import_tags answered' AS aggregate_type, stream AS aggregate_id, place AS "position", type AS event_type, jsonb_build_object('a', a) AS payload, tags FROM old WHERE place < 6;
SELECT is(imported, 5::bigint, 'an import whose handler appends and imports') FROM cqrs_es.import_events('answered');
SELECT results_eq($$SELECT tags_of('import_tags answered')$$, $$VALUES ('1 1 y z'), ('1 2'), ('2 1 a:3'), ('1 3 y'), ('2 2 a:5 x')$$, 'has its tags');
SELECT set_eq($$SELECT tags_of('import_tags answer')$$, $$VALUES ('1 1 answer 1'), ('1 2 answer 2'), ('1 3 answer 3'), ('2 1 answer 1'), ('2 2 answer 2')$$, 'and they theirs');
SELECT set_eq($$SELECT tags_of('import_tags inner')$$, $$VALUES ('1 1 inner 1'), ('2 1 inner 2')$$, 'likewise');

-- more than fits into memory
SET LOCAL work_mem = '64kB';
CREATE VIEW many AS SELECT 'import_tags many' AS aggregate_type, (n % 7)::text AS aggregate_id, n AS "position", 'plain' AS event_type, jsonb_build_object('n', n) AS payload,
	CASE WHEN n % 3 > 0 THEN ARRAY['many', 'n:' || n] END AS tags FROM generate_series(1, 5000) AS n;
SELECT is(imported, 5000::bigint, 'many') FROM cqrs_es.import_events('many');
SELECT is_empty($$SELECT payload FROM cqrs_es.events AS e WHERE aggregate_type = 'import_tags many' AND (SELECT array_agg(t.tag::text ORDER BY t.tag) FROM cqrs_es.event_tags AS t
	WHERE t.global_position = e.global_position) IS DISTINCT FROM CASE WHEN (payload->>'n')::int % 3 > 0 THEN ARRAY['many', 'n:' || (payload->>'n')] END$$, 'each has its own');

-- what is refused; nothing of it is there then
CREATE FUNCTION refused(tags text) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE OR REPLACE VIEW import_tags.bad AS SELECT ''import_tags bad'' AS aggregate_type, ''1'' AS aggregate_id, n AS "position", ''plain'' AS event_type, ''{}''::jsonb AS payload, CASE n WHEN 2 THEN %s END AS tags FROM generate_series(1, 2) AS n', tags);
	RETURN pg_temp.error_of($s$SELECT cqrs_es.import_events('import_tags.bad')$s$, '{state,message}');
END $$;
SELECT is(refused($$ARRAY['']$$), '{22023,"tag must not be empty"}', 'an empty tag');
SELECT is((refused($$ARRAY['a', NULL]$$))[1], '22004', 'a null in the tags');
SELECT is((refused($$ARRAY[repeat('x', 256)]$$))[1], '22001', '256 bytes');
SELECT is((refused($$ARRAY[ARRAY['a'], ARRAY['b']]$$))[1], '2202E', 'two dimensions');
SELECT is((refused($$(SELECT array_agg(i::text) FROM generate_series(1, 1001) AS i)$$))[1], '54000', 'too many');
CREATE VIEW no_array AS SELECT 'import_tags bad' AS aggregate_type, '1' AS aggregate_id, 1 AS "position", 'plain' AS event_type, '{}'::jsonb AS payload, 7 AS tags;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.import_events('no_array')$$))[1], '42804', 'no array');

-- an event that was there before gets no tags, and that is told
UPDATE old SET tags = '{new}' WHERE place = 2;
SELECT is(pg_temp.error_of($$SELECT cqrs_es.import_events('history')$$, '{state,message,detail}'),
	ARRAY['55000', 'the log is not what the source says', 'Event 2 of stream "import_tags/1" lacks tags.'], 'tags that came behind their event');

-- triggers of users
CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.sequence = 2 THEN new.aggregate_id := new.aggregate_id || 'x'; END IF; RETURN new; END $$;
CREATE TRIGGER zz_change BEFORE INSERT ON cqrs_es.events FOR EACH ROW WHEN (new.aggregate_type = 'import_tags bad') EXECUTE FUNCTION change();
SELECT is((refused($$ARRAY['a']$$))[1], '09000', 'a trigger that moves an event away from its tags is found out');
DROP TRIGGER zz_change ON cqrs_es.events;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM cqrs_es.append_event('import_tags note', new.aggregate_id, 'plain', '{}', tags => '{noted}'); RETURN new; END $$;
CREATE TRIGGER aa_note BEFORE INSERT ON cqrs_es.events FOR EACH ROW WHEN (new.aggregate_type = 'import_tags noted') EXECUTE FUNCTION note();
CREATE VIEW noted AS SELECT 'import_tags noted' AS aggregate_type, stream AS aggregate_id, place AS "position", type AS event_type, jsonb_build_object('a', a) AS payload, tags FROM old WHERE place IN (1, 4, 6);
SELECT is(imported, 3::bigint, 'one that appends before') FROM cqrs_es.import_events('noted');
SELECT results_eq($$SELECT tags_of('import_tags noted')$$, $$VALUES ('1 1 y z'), ('1 2 y'), ('3 1 z')$$, 'takes no tags away');
DROP TRIGGER aa_note ON cqrs_es.events;
SELECT is_empty($$SELECT FROM cqrs_es.events WHERE aggregate_type = 'import_tags bad'$$, 'nothing of what was refused is there');
SELECT finish();
ROLLBACK;
