\i test/include/setup.sql
-- Events of some types or of a small tenant, with an index that fits and without
-- one: the same events, the same cursors; with it, only they are looked at.
SELECT plan(25);
DO $$
BEGIN
	FOR n IN 1..500 LOOP
		PERFORM set_config('cqrs_es.tenant_id', CASE WHEN n IN (100, 101, 499) THEN 'small' ELSE '' END, true);
		PERFORM cqrs_es.append_event('filter ' || n % 3, (n % 7)::text, CASE WHEN n % 50 = 0 THEN 'rare' WHEN n % 2 = 0 THEN 'even' ELSE 'odd' END, to_jsonb(n));
	END LOOP;
END $$;

-- All filters, from all sorts of positions, in pages of several sizes.
CREATE TEMP TABLE filters AS
	SELECT row_number() OVER () AS filter, a::text[] AS aggregate_types, e::text[] AS event_types, tenant
	FROM (VALUES (NULL), ('{}'), ('{filter 1}'), ('{filter 1,filter 1,""}'), ('{filter 0,filter 2,none}')) AS a (a),
		(VALUES (NULL), ('{}'), ('{rare}'), ('{rare,odd,rare}'), ('{even,none,even}')) AS e (e),
		(VALUES (''), ('small'), ('none')) AS t (tenant);
CREATE TEMP TABLE seen (way text, filter bigint, size int, page int, positions bigint[], read_to bigint);
-- read everything in pages, going on from the cursor
CREATE PROCEDURE pg_temp.walk(way text) LANGUAGE plpgsql AS $$
DECLARE
	f record; cursor_at bigint; positions bigint[]; to_ bigint; size int; page int;
BEGIN
	FOR f IN SELECT * FROM filters LOOP
		PERFORM set_config('cqrs_es.tenant_id', f.tenant, true);
		FOREACH size IN ARRAY '{3,1000}'::int[] LOOP
			cursor_at := 0; page := 0;
			LOOP
				SELECT array_agg(p.global_position), max(p.read_to) INTO positions, to_
				FROM cqrs_es.read_page(cursor_at, size, f.aggregate_types, f.event_types) p;
				INSERT INTO seen VALUES (way, f.filter, size, page, positions, to_);
				EXIT WHEN to_ = cursor_at OR positions = '{NULL}';
				ASSERT to_ > cursor_at;
				cursor_at := to_; page := page + 1;
			END LOOP;
		END LOOP;
	END LOOP;
	PERFORM set_config('cqrs_es.tenant_id', '', true);
END $$;
SET cqrs_es.settle_timeout = 0;
CALL pg_temp.walk('without');
SELECT is((SELECT count(*) FROM seen WHERE way = 'without' AND size = 1000 AND page = 0), 75::bigint, 'all filters are tried');
-- what SQL says
SELECT is_empty($$
	SELECT s.filter, s.size FROM filters AS f
	JOIN (SELECT filter, size, array_agg(p ORDER BY page, p) FILTER (WHERE p IS NOT NULL) AS positions
		FROM seen LEFT JOIN LATERAL unnest(positions) AS p ON true WHERE way = 'without' GROUP BY 1, 2) AS s USING (filter)
	WHERE s.positions IS DISTINCT FROM (SELECT array_agg(global_position ORDER BY global_position) FROM cqrs_es.events AS e
		WHERE tenant_id = f.tenant AND (f.aggregate_types IS NULL OR aggregate_type = ANY (f.aggregate_types)) AND (f.event_types IS NULL OR event_type = ANY (f.event_types)))$$,
	'the events that fit, in their order, each once');

CREATE FUNCTION pg_temp.differences(a text, b text) RETURNS SETOF seen LANGUAGE sql AS $$
	(SELECT * FROM seen WHERE way = a EXCEPT SELECT a, filter, size, page, positions, read_to FROM seen WHERE way = b)
	UNION ALL (SELECT * FROM seen WHERE way = b EXCEPT SELECT b, filter, size, page, positions, read_to FROM seen WHERE way = a) $$;
-- rows that a function reads below the executor, of an index
CREATE FUNCTION pg_temp.entries(index regclass, statement text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before bigint := pg_stat_get_xact_tuples_returned(index);
BEGIN
	EXECUTE statement;
	RETURN pg_stat_get_xact_tuples_returned(index) - before;
END $$;

CREATE INDEX by_event_type ON cqrs_es.events (event_type, global_position);
CALL pg_temp.walk('event_type');
SELECT is_empty($$SELECT * FROM pg_temp.differences('without', 'event_type')$$, 'an index on event types: the same pages, the same cursors');
CREATE INDEX by_tenant ON cqrs_es.events (tenant_id, global_position);
CALL pg_temp.walk('tenant');
SELECT is_empty($$SELECT * FROM pg_temp.differences('without', 'tenant')$$, 'one on tenants as well');
CREATE INDEX by_all ON cqrs_es.events (aggregate_type, tenant_id, event_type, global_position) INCLUDE (event_id);
CALL pg_temp.walk('all');
SELECT is_empty($$SELECT * FROM pg_temp.differences('without', 'all')$$, 'and one on all of them');
SET cqrs_es.force_generic_path = on;
CALL pg_temp.walk('generic');
SELECT is_empty($$SELECT * FROM pg_temp.differences('without', 'generic')$$, 'through SQL, too');
SET cqrs_es.force_generic_path = off;

-- only what fits is looked at
BEGIN;
SELECT cmp_ok(pg_temp.entries('cqrs_es.events_global_position_idx', $$SELECT count(*) FROM cqrs_es.read_page(event_types => '{rare}')$$), '<', 10::bigint, 'the walk is over soon');
SELECT is(pg_temp.entries('cqrs_es.by_event_type', $$SELECT count(*) FROM cqrs_es.read_page(event_types => '{rare}')$$), 10::bigint, 'the events of the type are looked at');
SELECT is(pg_temp.entries('cqrs_es.by_all', $$SELECT count(*) FROM cqrs_es.read_page(aggregate_types => '{filter 1}', event_types => '{rare}')$$), 2::bigint, 'where more columns fit, that index is taken');
SET LOCAL cqrs_es.tenant_id = 'small';
SELECT is(pg_temp.entries('cqrs_es.by_tenant', 'SELECT count(*) FROM cqrs_es.read_page()'), 3::bigint, 'a small tenant has an own way');

-- Others do not fit: they lack rows, or have them in another order, or find by other rules.
SET LOCAL cqrs_es.tenant_id = '';
CREATE COLLATION pg_temp.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE FUNCTION pg_temp.with_index(definition text, filter text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text; looked_at bigint;
BEGIN
	DROP INDEX cqrs_es.by_event_type, cqrs_es.by_tenant, cqrs_es.by_all;
	EXECUTE 'CREATE INDEX unfit ON cqrs_es.events ' || definition;
	looked_at := pg_stat_get_xact_tuples_returned('cqrs_es.unfit'::regclass);
	EXECUTE format('SELECT count(global_position) || '' '' || md5(string_agg(global_position::text, '','')) FROM cqrs_es.read_page(%s)', filter) INTO found;
	looked_at := pg_stat_get_xact_tuples_returned('cqrs_es.unfit'::regclass) - looked_at;
	RAISE SQLSTATE 'T0001' USING MESSAGE = format('%s: %s', found, looked_at);
EXCEPTION WHEN SQLSTATE 'T0001' THEN
	RETURN SQLERRM;
END $$;
CREATE FUNCTION pg_temp.without_index(event_types text) RETURNS text LANGUAGE sql AS $$
	SELECT count(*) || ' ' || md5(string_agg(global_position::text, ',' ORDER BY global_position))
	FROM cqrs_es.events WHERE tenant_id = '' AND event_type = ANY (event_types::text[]) $$;
SELECT is(pg_temp.with_index(definition, $$event_types => '{rare}'$$), pg_temp.without_index('{rare}') || ': ' || entries, 'an index ' || definition)
FROM (VALUES (1, '(event_type, global_position)', 10),
	(2, '(event_type, global_position) WHERE sequence > 20', 0),
	(3, 'USING hash (event_type)', 0),
	(4, '(event_type, global_position DESC)', 0),
	(5, '(event_type, sequence, global_position)', 0),
	(6, '(event_type, tenant_id)', 0),
	(7, '(event_type, (global_position + 0))', 0),
	(8, '(event_type, aggregate_type, global_position)', 0),
	(9, '(event_type text_pattern_ops, global_position)', 0),
	(10, '(event_type COLLATE pg_temp.any_case, global_position)', 0),
	(11, '(event_type COLLATE "POSIX", global_position)', 10)) AS i (n, definition, entries)
ORDER BY n;
-- nor is it asked for ever so many values, or combinations of them
SELECT array_agg(i::text) || '{rare}' AS most FROM generate_series(1, 63) AS i \gset
SELECT is(pg_temp.with_index('(event_type, global_position)', format('event_types => %L', (:'most'::text[] || more)::text)),
	pg_temp.without_index('{rare}') || ': ' || entries, '64 types of events, and ' || cardinality(more))
FROM (VALUES (1, '{}'::text[], 10), (2, '{more}', 0)) AS m (n, more, entries) ORDER BY n;
SELECT is(pg_temp.with_index('(aggregate_type, event_type, global_position)', format('aggregate_types => %L, event_types => ''{rare,a,b,c,d,e,f,g}''', types)),
	pg_temp.without_index('{rare}') || ': ' || entries, cardinality(types) || ' types of aggregates, 8 of events')
FROM (VALUES (1, '{filter 0,filter 1,filter 2,3,4,5,6,7}'::text[], 10), (2, '{filter 0,filter 1,filter 2,3,4,5,6,7,8}', 0)) AS m (n, types, entries) ORDER BY n;
ROLLBACK;
\i test/include/own_log_end.sql
