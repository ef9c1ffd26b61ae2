\i test/include/setup.sql
-- Readers that want the events with certain tags: the same that SQL finds, in pages as in one
-- go, of a tenant as of all, by the index of tags as without it.
SELECT plan(31);
-- tags by type and payload, and explicit ones; a tag that one tenant has and one that all have
SELECT cqrs_es.define_tags('by tags: numbered', 'bt:all', 'bt:mod {/mod}') IS NULL AS x \gset
DO $$
BEGIN
	FOR n IN 1..600 LOOP
		PERFORM set_config('cqrs_es.tenant_id', CASE WHEN n % 100 = 7 THEN 'small' WHEN n % 7 = 0 THEN 'other' ELSE '' END, true);
		PERFORM cqrs_es.append_event('by tags ' || n % 3, (n % 11)::text,
			CASE WHEN n % 2 = 0 THEN 'by tags: numbered' ELSE 'by tags: plain' END, jsonb_build_object('n', n, 'mod', n % 5),
			tags => CASE WHEN n % 50 = 0 THEN '{bt:rare,bt:fifty}' WHEN n % 9 = 0 THEN '{bt:nine}' WHEN n = 107 THEN '{bt:once}' END::text[]);
	END LOOP;
END $$;

CREATE TEMP TABLE filters AS
	SELECT row_number() OVER () AS filter, t::text[] AS tags, e::text[] AS event_types, a::text[] AS aggregate_types, tenant
	FROM (VALUES ('{bt:all}'), ('{bt:rare}'), ('{bt:rare,bt:all}'), ('{bt:all,bt:rare,bt:all}'), ('{bt:nine,bt:mod 3}'), ('{bt:none}'), ('{bt:all,bt:none}'), ('{bt:once}'), ('{}'::text)) AS t (t),
		(VALUES (NULL), ('{by tags: plain}'), ('{by tags: plain,none,by tags: numbered,none}'), ('{}')) AS e (e),
		(VALUES (NULL), ('{by tags 1,by tags 2}')) AS a (a),
		(VALUES (''), ('small'), ('none'), (NULL)) AS n (tenant)
	WHERE t <> '{}';
CREATE TEMP VIEW expected AS
	SELECT f.filter, array_agg(e.global_position ORDER BY e.global_position) FILTER (WHERE e.global_position IS NOT NULL) AS positions
	FROM filters AS f LEFT JOIN cqrs_es.events AS e ON (f.tenant IS NULL OR e.tenant_id = f.tenant)
		AND (f.event_types IS NULL OR e.event_type = ANY (f.event_types)) AND (f.aggregate_types IS NULL OR e.aggregate_type = ANY (f.aggregate_types))
		AND f.tags <@ ARRAY(SELECT t.tag FROM cqrs_es.event_tags AS t WHERE t.global_position = e.global_position AND t.tenant_id = e.tenant_id)::text[]
	GROUP BY f.filter;
CREATE TEMP TABLE seen (way text, filter bigint, size int, page int, positions bigint[], read_to bigint);
CREATE PROCEDURE pg_temp.walk(way text) LANGUAGE plpgsql AS $$
DECLARE
	f record; cursor_at bigint; positions bigint[]; to_ bigint; size int; page int;
BEGIN
	FOR f IN SELECT * FROM filters LOOP
		PERFORM set_config('cqrs_es.tenant_id', coalesce(f.tenant, ''), true);
		FOREACH size IN ARRAY '{7,1000}'::int[] LOOP
			cursor_at := 0; page := 0;
			LOOP
				SELECT array_agg(p.global_position), max(p.read_to) INTO positions, to_
				FROM cqrs_es.read_page(cursor_at, size, f.aggregate_types, f.event_types, all_tenants => f.tenant IS NULL, tags => f.tags) p;
				INSERT INTO seen VALUES (way, f.filter, size, page, positions, to_);
				EXIT WHEN to_ = cursor_at OR positions = '{NULL}';
				cursor_at := to_; page := page + 1;
			END LOOP;
		END LOOP;
	END LOOP;
	PERFORM set_config('cqrs_es.tenant_id', '', true);
END $$;
CREATE FUNCTION pg_temp.wrong(way text) RETURNS TABLE (filter bigint, size int) LANGUAGE sql AS $$
	SELECT s.filter, s.size FROM expected AS e
	JOIN (SELECT filter, size, array_agg(p ORDER BY page, p) FILTER (WHERE p IS NOT NULL) AS positions
		FROM seen LEFT JOIN LATERAL unnest(positions) AS p ON true WHERE seen.way = $1 GROUP BY 1, 2) AS s USING (filter)
	WHERE s.positions IS DISTINCT FROM e.positions
$$;
SELECT cmp_ok((SELECT count(*) FROM expected WHERE positions IS NOT NULL), '>=', 40::bigint, 'many filters find something');
CALL pg_temp.walk('index');
SELECT is((SELECT count(*) FROM seen WHERE size = 1000 AND page = 0), (SELECT count(*) FROM filters), 'all filters are tried');
SELECT is_empty($$SELECT * FROM pg_temp.wrong('index')$$, 'the events that have all tags, in their order, each once');
-- above READ COMMITTED nothing is settled beforehand: through the log
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL pg_temp.walk('walk');
SELECT is_empty($$SELECT * FROM pg_temp.wrong('walk')$$, 'likewise where the log is walked through');
COMMIT;

-- rare ones are found by the index of tags (through SQL, the planner chooses)
SET cqrs_es.force_generic_path = off;
CREATE FUNCTION pg_temp.entries(index regclass, statement text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before bigint;
BEGIN
	-- who comes first marks entries as dead that other tests have rolled back
	EXECUTE statement;
	before := pg_stat_get_xact_tuples_returned(index);
	EXECUTE statement;
	RETURN pg_stat_get_xact_tuples_returned(index) - before;
END $$;
SELECT cmp_ok(pg_temp.entries('cqrs_es.events_global_position_idx', $$SELECT count(*) FROM cqrs_es.read_all(0, 1000, tags => '{bt:rare}')$$), '<', 100::bigint, 'few rows of the log are looked at');
SELECT cmp_ok(pg_temp.entries('cqrs_es.events_global_position_idx', $$SELECT count(*) FROM cqrs_es.read_all(0, 1000, tags => '{bt:rare}', all_tenants => true)$$), '<', 100::bigint, '... for all tenants, too');
SELECT cmp_ok(pg_temp.entries('cqrs_es.event_tags_tag_idx', $$SELECT count(*) FROM cqrs_es.read_all(0, 1000, tags => '{bt:rare,bt:fifty}')$$), '<', 100::bigint, '... and of the tags few of what is there');
RESET cqrs_es.force_generic_path;
-- how far was looked is told as ever
SELECT is((SELECT read_to FROM cqrs_es.read_page(0, 1000, tags => '{bt:none}')), cqrs_es.settled_position(), 'nothing found: looked to the end');

-- more tenants than are put in order
DO $$
BEGIN
	FOR n IN 1..70 LOOP
		PERFORM set_config('cqrs_es.tenant_id', 'tenant ' || n, true);
		PERFORM cqrs_es.append_event('by tags', 'x', 'by tags: plain', '{}', tags => CASE WHEN n % 35 = 0 THEN '{bt:tenants,bt:two}' ELSE '{bt:tenants}' END::text[]);
	END LOOP;
END $$;
SELECT is((SELECT array_agg(tenant_id ORDER BY global_position) FROM cqrs_es.read_all(0, 1000, tags => '{bt:tenants}', all_tenants => true)),
	(SELECT array_agg('tenant ' || n ORDER BY n) FROM generate_series(1, 70) AS n), 'a tag of many tenants');
SELECT is((SELECT array_agg(tenant_id ORDER BY global_position) FROM cqrs_es.read_all(0, 1000, tags => '{bt:tenants,bt:two}', all_tenants => true)),
	'{tenant 35,tenant 70}'::text[], '... with one of few');
SELECT is((SELECT count(*) FROM cqrs_es.read_all(0, 1000, tags => '{bt:tenants}')), 0::bigint, 'and the own tenant has none of them');

-- own rows that are not committed are not handed out, as ever; those of others are, when they are
BEGIN;
SELECT cqrs_es.append_event('by tags', 'own', 'by tags: plain', '{}', tags => '{bt:own}') IS NULL AS x \gset
SELECT is((SELECT count(*) FROM cqrs_es.read_all(0, 1000, tags => '{bt:own}')), 0::bigint, 'own events not yet');
COMMIT;
SELECT is((SELECT count(*) FROM cqrs_es.read_all(0, 1000, tags => '{bt:own}')), 1::bigint, 'then they are');
-- plain INSERT and what was rolled back
BEGIN;
SAVEPOINT a;
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('by tags', 'gone', 'by tags: numbered', '{"mod": 77}');
ROLLBACK TO a;
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('by tags', 'there', 'by tags: numbered', '{"mod": 77}');
COMMIT;
SELECT results_eq($$SELECT aggregate_id COLLATE "default" FROM cqrs_es.read_all(0, 1000, tags => '{bt:mod 77}')$$, $$VALUES ('there')$$, 'plain rows, without those that were taken back');

-- tags that were defined when there were such events already
SELECT global_position AS before_history FROM cqrs_es.append_event('by tags', 'history', 'by tags: old', '{"n": 1}') \gset
SELECT cqrs_es.append_event('by tags', 'history', 'by tags: old', '{"n": 2}') IS NULL AS x \gset
SET client_min_messages = error;
SELECT cqrs_es.define_tags('by tags: old', 'bt:old {/n}', 'bt:all') IS NULL AS x \gset
SET client_min_messages = warning;
SELECT history_to FROM cqrs_es.tag_definitions WHERE event_type = 'by tags: old' \gset
SELECT is(pg_temp.error_of($$SELECT cqrs_es.read_all(tags => '{bt:old 2}')$$),
	'{55000,"older events of type \"by tags: old\" may lack tag \"bt:old 2\"","The tags of the type were defined when it had events already.","CALL cqrs_es.retag(''by tags: old'');"}', 'who would pass events that lack their tags is refused');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.read_page(tags => '{bt:rare,bt:all}')$$), '55000', 'also when it is one tag of several');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.read_page(tags => '{bt:rare,bt:all}', event_types => '{by tags: plain}')$$), 'none', 'not for other types');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.read_all(tags => '{bt:rare}')$$), 'none', 'nor for other tags');
SELECT is(pg_temp.state_of(format($$SELECT cqrs_es.read_all(%s, tags => '{bt:old 2}')$$, :history_to - 1)), '55000', 'just before the end of history');
SELECT cqrs_es.append_event('by tags', 'history', 'by tags: old', '{"n": 2}') IS NULL AS x \gset
SELECT is((SELECT count(*) FROM cqrs_es.read_all(:history_to, tags => '{bt:old 2}')), 1::bigint, 'behind it all have their tags');
CALL cqrs_es.retag('by tags: old', 1);
SELECT is((SELECT count(*) FROM cqrs_es.read_all(tags => '{bt:old 2}')), 2::bigint, 'then all are found');
SELECT cqrs_es.drop_tags('by tags: old') IS NULL AS x \gset
SELECT is((SELECT count(*) FROM cqrs_es.read_all(tags => '{bt:old 2}')), 2::bigint, 'tags that are defined no more are found');

-- what is none
SELECT is(pg_temp.error_of($$SELECT cqrs_es.read_all(tags => '{}')$$, '{state,message}'), '{22023,"tags must not be empty"}', 'no tags');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.read_all(tags => '{a,NULL}')$$), '22004', 'a null');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.read_all(tags => '{{a},{b}}')$$), '2202E', 'of two dimensions');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.read_all(tags => '{""}')$$), '22023', 'an empty one');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.read_page(tags => ARRAY[repeat('x', 256)])$$), '22001', 'one that is too long');
SELECT is((SELECT count(*) FROM cqrs_es.read_all(tags => ARRAY[repeat('x', 255)])), 0::bigint, 'as long as can be');
SELECT is((SELECT count(*) FROM cqrs_es.read_all(tags => array_fill('bt:rare'::text, '{1000}'))), (SELECT count(*) FROM cqrs_es.read_all(tags => '{bt:rare}')), 'a thousand times the same');
-- those who may not read the log cannot read it so
SELECT is(pg_temp.state_of($$SELECT pg_temp.as_role('pg_monitor', $q$SELECT cqrs_es.read_all(tags => '{bt:rare}')$q$)$$), '42501', 'rights as ever');
SELECT cqrs_es.drop_tags('by tags: numbered') IS NULL AS x \gset
SELECT is((SELECT count(*) FROM cqrs_es.tag_definitions WHERE event_type LIKE 'by tags%'), 0::bigint, 'nothing is left');
SELECT * FROM finish();
