\i test/include/setup.sql
-- Replay: the state of an aggregate from its events.

-- What transactions of other kinds see, to be looked at below.
BEGIN;
SELECT cqrs_es.create_aggregate('fold committed', '{"start": 1}', 2) IS NULL AS x \gset
SELECT cqrs_es.append_events('fold committed', 'a', '[{"type": "e", "payload": {"n": 1}}, {"type": "e", "payload": {"n": 2}}, {"type": "e", "payload": {"n": 3}}]') IS NULL AS x \gset
COMMIT;
BEGIN READ ONLY;
SELECT cqrs_es.aggregate_state('fold committed', 'a') AS ro1, cqrs_es.load_aggregate('fold committed', 'a') AS ro2,
	pg_temp.state_of($$SELECT cqrs_es.take_snapshot('fold committed', 'a')$$) AS ro3 \gset
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT cqrs_es.aggregate_state('fold committed', 'a') AS rr1 \gset
SELECT cqrs_es.append_event('fold committed', 'a', 'e', '{"own": true}', 3) IS NULL AS x \gset
SELECT cqrs_es.load_aggregate('fold committed', 'a') AS rr2 \gset
SELECT last_sequence AS rr3 FROM cqrs_es.snapshots WHERE aggregate_type = 'fold committed' \gset
SELECT cqrs_es.append_event('fold committed', 'a', 'e', '{"own": 2}', 4) IS NULL AS x \gset
SELECT cqrs_es.load_aggregate('fold committed', 'a') AS rr4 \gset
ROLLBACK;
BEGIN;
-- what was committed for this must not stay
DELETE FROM cqrs_es.aggregates WHERE aggregate_type = 'fold committed';
DELETE FROM cqrs_es.snapshots WHERE aggregate_type = 'fold committed';
COMMIT;

BEGIN;
SELECT plan(28);
SELECT is(:'ro1'::jsonb, '{"n": 3, "start": 1}', 'a read-only transaction may replay');
SELECT is(:'ro2'::text, '(3,"{""n"": 3, ""start"": 1}")', 'and load');
SELECT is(:'ro3'::text, '25006', 'but not save');
SELECT is(:'rr1'::jsonb, '{"n": 3, "start": 1}', 'REPEATABLE READ: the state');
SELECT is(:'rr2'::text, '(4,"{""n"": 3, ""own"": true, ""start"": 1}")', 'with own events');
SELECT is(:'rr3'::bigint, 4::bigint, 'and own snapshots');
SELECT is(:'rr4'::text, '(5,"{""n"": 3, ""own"": 2, ""start"": 1}")', 'on top of each other');

SELECT cqrs_es.create_aggregate('fold', '{"start": 1}', 4) IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('fold', 'none'), NULL, 'what has no events has no state');
SELECT results_eq($$SELECT * FROM cqrs_es.load_aggregate('fold', 'none')$$, $$VALUES (0::bigint, '{"start": 1}'::jsonb)$$,
	'but something to begin with: version 0 and the initial state');
SELECT cqrs_es.append_event('fold', 'a', 'e', '{"n": 1}') IS NULL AS x \gset
SELECT results_eq($$SELECT * FROM cqrs_es.load_aggregate('fold', 'a')$$, $$VALUES (1::bigint, '{"n": 1, "start": 1}'::jsonb)$$, 'version and state');
SELECT is((cqrs_es.append_event('fold', 'a', 'e', '{"n": 2}', (cqrs_es.load_aggregate('fold', 'a')).version)).version, 2::bigint,
	'the version is what the next append expects');
SELECT cqrs_es.append_event('fold', 'a', 'e', '{"start": null}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('fold', 'a'), '{"n": 2}', 'an event may take from the initial state');
SELECT is(cqrs_es.aggregate_state('fold', 'b'), NULL, 'other streams stay out of it');
SAVEPOINT s;
SELECT cqrs_es.append_event('fold', 'a', 'e', '{"n": 3}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('fold', 'a'), '{"n": 3}', 'an own event');
ROLLBACK TO s;
SELECT is(cqrs_es.aggregate_state('fold', 'a'), '{"n": 2}', 'that is rolled back');

-- a long stream

SELECT cqrs_es.create_aggregate('fold 0', '{}', 0) IS NULL AS x \gset
SELECT cqrs_es.append_events('fold 0', 'long', (SELECT jsonb_agg(jsonb_build_object('type', CASE WHEN n % 2 = 0 THEN 'e' ELSE 'f' END, 'payload',
	jsonb_build_object('n', n, 'k' || n % 10, n, 'text', repeat(md5(n::text), 50))) ORDER BY n) FROM generate_series(1, 5000) n)) IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('fold 0', 'long') - 'text', (SELECT jsonb_object_agg('k' || n % 10, n) FROM generate_series(4991, 5000) n) || '{"n": 5000}',
	'a long stream without snapshots');
SELECT is(cqrs_es.aggregate_state('fold 0', 'long') ->> 'text', repeat(md5('5000'), 50), 'with long values');
CREATE FUNCTION count_it(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN RETURN state || jsonb_build_object('count', coalesce((state -> 'count')::int, 0) + 1, 'last', event.sequence, 'text', event.payload -> 'text'); END $$;
SELECT cqrs_es.define_reducer('fold 0', 'e', 'count_it(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('fold 0', 'long') -> 'count', '2500', 'with a function for half of it');
SELECT is(cqrs_es.take_snapshot('fold 0', 'long'), 5000::bigint, 'with a snapshot');
SELECT cqrs_es.append_event('fold 0', 'long', 'e', '{}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('fold 0', 'long') - 'text', (SELECT jsonb_object_agg('k' || n % 10, n) FROM generate_series(4991, 4999, 2) n)
	|| '{"n": 4999, "count": 2501, "last": 5001}', 'and an event behind it');
SELECT is(count(cqrs_es.aggregate_state('fold', 'a')), 100::bigint, 'many folds in a statement') FROM generate_series(1, 100);

-- a payload that is stored out of line
SELECT cqrs_es.append_event('fold', 'toast', 'e', jsonb_build_object('text', string_agg(md5(n::text), ''))) IS NULL AS x
FROM generate_series(1, 2000) AS n \gset
SELECT cmp_ok(pg_column_size(payload), '>', 8000, 'an out-of-line payload can be folded')
FROM cqrs_es.events WHERE aggregate_type = 'fold' AND aggregate_id = 'toast';
SELECT is(cqrs_es.aggregate_state('fold', 'toast')->'text', payload->'text', 'and is folded whole')
FROM cqrs_es.read_stream('fold', 'toast');

-- a stream with a hole, as an incomplete restore leaves it, has no state at it or behind it
SELECT cqrs_es.create_aggregate('holed', '{}', 0) IS NULL AS x \gset
SELECT count(cqrs_es.append_event('holed', 'a', 'e', jsonb_build_object('n', n))) AS x FROM generate_series(1, 6) AS n \gset
SELECT cqrs_es.take_snapshot('holed', 'a') AS x \gset
SELECT cqrs_es.append_event('holed', 'a', 'e', '{"n": 7}') IS NULL AS x, cqrs_es.append_event('holed', 'a', 'e', '{"n": 8}') IS NULL AS y \gset
SET LOCAL session_replication_role = replica;
DELETE FROM cqrs_es.events WHERE aggregate_type = 'holed' AND sequence IN (3, 7);
SET LOCAL session_replication_role = origin;
SELECT is(pg_temp.error_of(call, '{state,message}'), ARRAY['XX001', message], call) FROM (VALUES
	(1, 'stream "holed/a" has a hole: sequence 7 is missing', $$SELECT cqrs_es.aggregate_state('holed', 'a')$$),
	(2, 'stream "holed/a" has a hole: sequence 3 is missing', $$SELECT cqrs_es.aggregate_state('holed', 'a', at_sequence => 4)$$),
	(3, 'stream "holed/a" has a hole: sequence 3 is missing', $$SELECT * FROM cqrs_es.replay('holed', 'a')$$)) c (n, message, call) ORDER BY n;
SELECT is(cqrs_es.aggregate_state('holed', 'a', at_sequence => 2) -> 'n', '2', 'before it there is one');
SELECT is(cqrs_es.aggregate_state('holed', 'a', at_sequence => 6) -> 'n', '6', 'and where a snapshot is');
SELECT finish();
ROLLBACK;
