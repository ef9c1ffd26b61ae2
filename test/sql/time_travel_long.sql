\i test/include/setup.sql
-- The state at a time in a long stream of which many snapshots are kept: the right one, and without looking at all that
-- came after.  Times of events do not rise here.
BEGIN;
SELECT plan(8);
SELECT cqrs_es.create_aggregate('long', '{"n": 0}', snapshot_every => 0, keep_snapshots => 100000) IS NULL AS x, cqrs_es.define_reducer('long', 'e', '[{"op": "increment", "path": "/n"}]') IS NULL AS y \gset
\i test/include/buffers.sql
SELECT setseed(0.2) IS NULL AS x \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at)
SELECT 'long', 'a', 'e', '{}', '2020-01-01'::timestamptz + (n + (random() * 300 * (random() < 0.01)::int)::int) * interval '1 minute' FROM generate_series(1, 12000) n;
SELECT cqrs_es.take_snapshot('long', 'a') AS x \gset
-- a snapshot of every third event, with a state that tells which; some of other reducers, some by clients
INSERT INTO cqrs_es.snapshots (aggregate_type, aggregate_id, tenant_id, last_sequence, current_snapshot, payload, fingerprint, last_event_at)
SELECT 'long', 'a', '', e.sequence, e.sequence, jsonb_build_object('n', e.sequence, 'since', e.sequence, 'long', repeat('x', 200)),
	CASE e.sequence % 10 WHEN 0 THEN 'other' WHEN 5 THEN NULL ELSE s.fingerprint END, e.until
FROM (SELECT sequence, max(created_at) OVER (ORDER BY sequence) AS until FROM cqrs_es.events WHERE aggregate_type = 'long' AND aggregate_id = 'a') e, cqrs_es.snapshots s
WHERE s.aggregate_type = 'long' AND e.sequence % 3 = 0 AND e.sequence < 12000;
ANALYZE cqrs_es.snapshots;
CREATE FUNCTION pg_temp.meant(t timestamptz) RETURNS bigint LANGUAGE sql AS $$
	SELECT coalesce(min(sequence) FILTER (WHERE created_at > t) - 1, max(sequence)) FROM cqrs_es.events WHERE aggregate_type = 'long' AND aggregate_id = 'a' $$;
CREATE TEMP TABLE times AS SELECT '2019-12-31 23:00'::timestamptz + n * interval '317 minutes' AS t FROM generate_series(0, 40) n;
SELECT is((SELECT count(*) FROM times WHERE pg_temp.meant(t) BETWEEN 1 AND 11999), 38::bigint, 'times at which there are some of the events');
SELECT is_empty($$SELECT t, version, pg_temp.meant(t) FROM times, cqrs_es.load_aggregate('long', 'a', at_time => t) WHERE version <> pg_temp.meant(t)$$, 'the version at each');
SELECT is_empty($$SELECT t, version, state FROM times, cqrs_es.load_aggregate('long', 'a', at_time => t) WHERE state -> 'n' <> to_jsonb(version)$$, 'the state at each');
SELECT is_empty($$SELECT t, version, state ->> 'since', (SELECT max(last_sequence) FROM cqrs_es.snapshots s WHERE aggregate_type = 'long' AND last_sequence <= version AND last_sequence % 5 <> 0) FROM times, cqrs_es.load_aggregate('long', 'a', at_time => t)
	WHERE version < 12000 AND state ->> 'since' IS DISTINCT FROM (SELECT max(last_sequence) FROM cqrs_es.snapshots s WHERE aggregate_type = 'long' AND last_sequence <= version AND last_sequence % 5 <> 0)::text$$, 'from the newest snapshot before');
SELECT is((cqrs_es.load_aggregate('long', 'a', at_time => 'infinity')).version, 12000::bigint, 'the end of times');
SELECT is((cqrs_es.load_aggregate('long', 'a', at_time => '-infinity')).version, 0::bigint, 'and their beginning');
SELECT pg_temp.buffers($$SELECT cqrs_es.load_aggregate('long', 'a', at_time => '2020-01-01 06:00')$$) AS x \gset
SELECT cmp_ok(pg_temp.buffers($$SELECT cqrs_es.load_aggregate('long', 'a', at_time => '2020-01-01 06:00')$$), '<', 100::bigint, 'long ago: what it costs');
SELECT cmp_ok(pg_temp.buffers($$SELECT cqrs_es.load_aggregate('long', 'a', at_time => '2020-01-09 06:00')$$), '<', 100::bigint, 'lately');
SELECT finish();
ROLLBACK;
