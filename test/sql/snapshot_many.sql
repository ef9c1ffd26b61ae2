\i test/include/setup.sql
-- Many snapshots of a stream in one transaction: the more there are, the fewer are taken, so that their dead rows do not
-- make each one slower than the one before.
BEGIN;
SELECT plan(11);
SELECT cqrs_es.create_aggregate('often', '{"n": 0}', snapshot_every => 2) IS NULL AS x, cqrs_es.define_reducer('often', 'e', '[{"op": "increment", "path": "/n"}]') IS NULL AS y \gset
\i test/include/buffers.sql
CREATE FUNCTION pg_temp.rows(id text, n int) RETURNS text LANGUAGE sql AS $$
	SELECT format($q$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'often', %L, 'e', '{}' FROM generate_series(1, %s)$q$, id, n) $$;
CREATE FUNCTION pg_temp.calls(id text, n int) RETURNS text LANGUAGE sql AS $$
	SELECT format($q$SELECT cqrs_es.append_event('often', %L, 'e', '{}') FROM generate_series(1, %s)$q$, id, n) $$;
SELECT pg_temp.buffers(pg_temp.rows('warm', 10)), pg_temp.buffers(pg_temp.calls('warm', 10)) \g /dev/null
SELECT pg_temp.buffers(pg_temp.rows('rows 1', 1000)) AS once, pg_temp.buffers(pg_temp.rows('rows 4', 4000)) AS four_times \gset
SELECT cmp_ok(:four_times::bigint, '<', 5 * :once::bigint, 'rows of an INSERT: four times as many take four times as much');
SELECT pg_temp.buffers(pg_temp.calls('calls 1', 1000)) AS once, pg_temp.buffers(pg_temp.calls('calls 4', 4000)) AS four_times \gset
SELECT cmp_ok(:four_times::bigint, '<', 5 * :once::bigint, 'so do appends of one transaction');
SELECT is(cqrs_es.aggregate_state('often', id), jsonb_build_object('n', n), 'the state of ' || id) FROM (VALUES ('rows 1', 1000), ('rows 4', 4000), ('calls 1', 1000), ('calls 4', 4000)) v (id, n) ORDER BY id;
SELECT is(count(*), 4::bigint, 'each has a snapshot') FROM cqrs_es.snapshots WHERE aggregate_type = 'often' AND aggregate_id ~ '(rows|calls) .';
SELECT is_empty($$SELECT * FROM cqrs_es.snapshots s WHERE aggregate_type = 'often' AND aggregate_id ~ '(rows|calls) .' AND last_sequence < cqrs_es.stream_version('often', aggregate_id) - 40$$, 'that is not far behind');
SELECT pg_temp.buffers(pg_temp.calls('few', 120)) \g /dev/null
SELECT is(last_sequence, 120::bigint, 'a few are taken when they are due') FROM cqrs_es.snapshots WHERE aggregate_type = 'often' AND aggregate_id = 'few';
-- a batch takes its last one
SELECT is((cqrs_es.append_event_arrays('often', 'batch', array_fill('e'::text, ARRAY[4001]), array_fill('{}'::jsonb, ARRAY[4001]))).version, 4001::bigint, 'a batch');
SELECT is(last_sequence, 4000::bigint, 'takes its last one') FROM cqrs_es.snapshots WHERE aggregate_type = 'often' AND aggregate_id = 'batch';
SELECT finish();
ROLLBACK;
