\i test/include/setup.sql
-- What code of users does while we are in the middle of something: upcasters,
-- reducers and handlers that close cursors, change declarations, or fail.
BEGIN;
SELECT plan(17);

SELECT cqrs_es.create_aggregate('user code', snapshot_every => 0) IS NULL AS x \gset
SELECT version FROM cqrs_es.append_events('user code', 'a',
	(SELECT jsonb_agg('{"type": "counted", "payload": {}}'::jsonb) FROM generate_series(1, 150))) \gset

-- cursors: on the generic way we read through one
CREATE FUNCTION closing(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'CLOSE ALL';
	RETURN payload || '{"closed": true}';
EXCEPTION WHEN invalid_cursor_state THEN
	RETURN payload || '{"closed": false}';
END $$;
CREATE FUNCTION closing_each(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	cursor_name text;
BEGIN
	FOR cursor_name IN SELECT name FROM pg_cursors WHERE statement LIKE '%cqrs\_es.events%' LOOP
		EXECUTE format('CLOSE %I', cursor_name);
	END LOOP;
	RETURN payload;
END $$;
SELECT cqrs_es.define_upcaster('counted', '1', '2', 'closing(jsonb)') IS NULL AS x \gset
SET LOCAL cqrs_es.force_generic_path = on;
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('user code', 'a') WHERE payload = '{"closed": false}'), 150::bigint,
	'CLOSE ALL does not reach the cursor of read_stream');
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('user code', 'a', backward => true, max_count => 140)), 140::bigint, 'also backward');
SELECT is(cqrs_es.aggregate_state('user code', 'a'), '{"closed": false}', 'nor that of a replay');
SELECT cqrs_es.define_upcaster('counted', '1', '2', 'closing_each(jsonb)') IS NULL AS x \gset
SELECT throws_ok($$SELECT * FROM cqrs_es.read_stream('user code', 'a')$$, '24000', NULL, 'nor does CLOSE');
SELECT throws_ok($$SELECT cqrs_es.aggregate_state('user code', 'a')$$, '24000', NULL, 'nor does CLOSE in a replay');
SELECT is((SELECT count(*) FROM pg_cursors WHERE statement LIKE '%cqrs\_es.events%'), 0::bigint, 'no cursor is left behind');
SET LOCAL cqrs_es.force_generic_path = off;
SELECT cqrs_es.define_upcaster('counted', '1', '2', 'closing(jsonb)') IS NULL AS x \gset
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('user code', 'a') WHERE payload = '{"closed": true}'), 150::bigint,
	'on the straight way there is none');
SELECT cqrs_es.drop_upcaster('counted', '1') IS NULL AS x \gset

-- DISCARD throws plans away, ours among them
CREATE FUNCTION discarding(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	DISCARD PLANS;
	DISCARD SEQUENCES;
	DEALLOCATE ALL;
	RETURN payload || '{"discarded": true}';
END $$;
SELECT cqrs_es.define_upcaster('counted', '1', '2', 'discarding(jsonb)') IS NULL AS x \gset
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('user code', 'a') WHERE payload = '{"discarded": true}'), 150::bigint,
	'plans are discarded while we read');
SELECT cqrs_es.drop_upcaster('counted', '1') IS NULL AS x \gset

-- a reducer and an upcaster that change declarations, their own among them, all the time
CREATE FUNCTION redeclaring(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.drop_reducer('user code', 'counted'), cqrs_es.drop_upcaster('counted', '1');
	PERFORM cqrs_es.define_reducer('user code', 'counted', 'redeclaring(jsonb, cqrs_es.event)');
	PERFORM cqrs_es.define_upcaster('counted', '1', '2', 'lifting(jsonb)');
	RETURN jsonb_build_object('n', coalesce((state->>'n')::integer, 0) + 1, 'lifted', event.payload->'lifted');
END $$;
CREATE FUNCTION lifting(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.drop_upcaster('counted', '1');
	PERFORM cqrs_es.define_upcaster('counted', '1', '2', 'lifting(jsonb)');
	RETURN payload || '{"lifted": true}';
END $$;
SELECT version FROM cqrs_es.append_events('user code', 'b',
	(SELECT jsonb_agg('{"type": "counted", "payload": {}}'::jsonb) FROM generate_series(1, 30))) \gset
SELECT cqrs_es.define_upcaster('counted', '1', '2', 'lifting(jsonb)') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('user code', 'counted', 'redeclaring(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('user code', 'b'), '{"n": 30, "lifted": true}', 'declarations change with every event of a replay');
SELECT cqrs_es.alter_aggregate('user code', snapshot_every => 10) IS NULL AS x \gset
SELECT is((SELECT max(version) FROM generate_series(1, 10) AS i, cqrs_es.append_event('user code', 'b', 'counted', jsonb_build_object('i', i))), 40::bigint,
	'and with every append');
SELECT is((SELECT count(*) FROM cqrs_es.snapshots WHERE aggregate_type = 'user code'), 0::bigint,
	'what was folded meanwhile is not kept as a snapshot');
SELECT cqrs_es.drop_reducer('user code', 'counted') IS NULL AS x \gset
SELECT cqrs_es.drop_upcaster('counted', '1') IS NULL AS x \gset

-- functions, which have nothing to do with it, come and go: that is no reason not to keep one
CREATE FUNCTION making(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'CREATE OR REPLACE FUNCTION pg_temp.unrelated() RETURNS integer LANGUAGE sql AS ''SELECT 1''';
	RETURN jsonb_build_object('n', coalesce((state->>'n')::integer, 0) + 1);
END $$;
SELECT cqrs_es.define_reducer('user code', 'counted', 'making(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT is(cqrs_es.take_snapshot('user code', 'b'), 40::bigint, 'a snapshot while functions are created');
SELECT results_eq($$SELECT last_sequence, payload FROM cqrs_es.snapshots WHERE aggregate_type = 'user code'$$,
	$$VALUES (40::bigint, '{"n": 40}'::jsonb)$$, 'is there');

-- errors in the middle, caught around us: what was begun is begun again
CREATE FUNCTION failing(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.define_upcaster('counted', '2', '3', 'lifting(jsonb)');
	PERFORM cqrs_es.stream_version('user code', 'a');
	RAISE 'failed';
END $$;
CREATE FUNCTION attempt(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'succeeded';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLERRM;
END $$;
SELECT cqrs_es.define_upcaster('counted', '1', '2', 'failing(jsonb)') IS NULL AS x \gset
SELECT is(array_agg(DISTINCT attempt(format('SELECT * FROM cqrs_es.read_stream(%L, %L)', 'user code', 'a'))), '{failed}', 'an upcaster fails again and again')
FROM generate_series(1, 20);
SELECT is((SELECT count(*) FROM cqrs_es.upcasters WHERE event_type = 'counted'), 1::bigint, 'what it did is undone');
SELECT is(attempt($$SELECT cqrs_es.drop_upcaster('counted', '1'), 1 / (SELECT count(*) FROM cqrs_es.read_stream('user code', 'a') WHERE event_version = '2')$$),
	'division by zero', 'it is dropped, and is not');
SELECT is(attempt($$SELECT * FROM cqrs_es.read_stream('user code', 'a')$$), 'failed', 'still there');

SELECT * FROM finish();
ROLLBACK;
