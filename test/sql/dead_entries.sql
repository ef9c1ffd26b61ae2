\i test/include/setup.sql
-- Index entries of events that were rolled back cost the next reader that comes by,
-- and nobody after it: they are marked, as the server's own scans do it.
SELECT plan(8);
SELECT cqrs_es.append_event('dead', 'a', 'e', '1') IS NULL AS x \gset
SELECT cqrs_es.append_event('dead', 'a', 'e', '2') IS NULL AS x \gset

-- How many entries of the index on positions a statement looks at.
CREATE FUNCTION pg_temp.entries(statement text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before bigint := pg_stat_get_xact_tuples_returned('cqrs_es.events_global_position_idx'::regclass);
BEGIN
	EXECUTE statement;
	RETURN pg_stat_get_xact_tuples_returned('cqrs_es.events_global_position_idx'::regclass) - before;
END $$;
SET cqrs_es.force_generic_path = off;

BEGIN;
SELECT cqrs_es.append_event_arrays('dead', 'b', array_fill('e'::text, '{3000}'), array_fill('{}'::jsonb, '{3000}')) IS NULL AS x \gset
ROLLBACK;
SELECT cqrs_es.settled_position() AS settled \gset
BEGIN;
SELECT cmp_ok(pg_temp.entries('SELECT cqrs_es.settled_position()'), '<', 100::bigint, 'from the end back, a second look passes few entries');
SELECT pg_temp.entries(format('SELECT count(*) FROM cqrs_es.read_page(%s)', :settled)) IS NULL AS x \gset
SELECT cmp_ok(pg_temp.entries(format('SELECT count(*) FROM cqrs_es.read_page(%s)', :settled)), '<', 100::bigint, 'from the cursor on, too');
ROLLBACK;

-- those between events that are there
SELECT cqrs_es.append_event('dead', 'a', 'e', '3') IS NULL AS x \gset
BEGIN;
SELECT cqrs_es.append_event_arrays('dead', 'c', array_fill('e'::text, '{3000}'), array_fill('{}'::jsonb, '{3000}')) IS NULL AS x \gset
ROLLBACK;
SELECT cqrs_es.append_event('dead', 'a', 'e', '4') IS NULL AS x \gset
SELECT count(*) AS n FROM cqrs_es.read_all(aggregate_types => '{dead}') \gset
SELECT is(:n, 4, 'what is there is read');
BEGIN;
SELECT cmp_ok(pg_temp.entries($$SELECT count(*) FROM cqrs_es.read_all(aggregate_types => '{dead}')$$),
	'<', (SELECT count(*) FROM cqrs_es.events) + 100, 'and the second time few other entries');
ROLLBACK;
SELECT is((SELECT string_agg(payload::text, ' ' ORDER BY global_position) FROM cqrs_es.read_all(aggregate_types => '{dead}')), '1 2 3 4', 'the same events as before');
SELECT is((SELECT string_agg(payload::text, ' ') FROM cqrs_es.read_stream('dead', 'a', backward => true)), '4 3 2 1', 'backward as well');

-- rows that only this transaction cannot see yet, or not see any more, are left alone
BEGIN;
SELECT cqrs_es.append_event_arrays('dead', 'd', array_fill('e'::text, '{200}'), array_fill('{}'::jsonb, '{200}')) IS NULL AS x \gset
SELECT count(*) AS n FROM cqrs_es.read_stream('dead', 'd') \gset
COMMIT;
SELECT is(:n, 200, 'own events are read before the commit');
SELECT is((SELECT count(*) FROM cqrs_es.read_all(0, NULL, '{dead}') WHERE aggregate_id = 'd'), 200::bigint, 'and after it by all');
