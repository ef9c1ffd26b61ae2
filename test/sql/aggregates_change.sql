\i test/include/setup.sql
-- Changing one's mind: alter and drop of aggregates and reducers.
BEGIN;
SELECT plan(65);
CREATE FUNCTION pg_temp.snapshots(type text) RETURNS bigint[] LANGUAGE sql AS $$SELECT array_agg(last_sequence ORDER BY aggregate_id, last_sequence) FROM cqrs_es.snapshots WHERE aggregate_type = type$$;
CREATE FUNCTION pg_temp.append(type text, id text, n integer) RETURNS bigint LANGUAGE sql AS $$
	SELECT (cqrs_es.append_events(type, id, (SELECT jsonb_agg('{"type": "e", "payload": {"n": 1}}'::jsonb) FROM generate_series(1, n)))).version $$;
CREATE FUNCTION pg_temp.declaration(type text) RETURNS text LANGUAGE sql AS $$SELECT ROW(initial_state, snapshot_every, keep_snapshots)::text FROM cqrs_es.aggregates WHERE aggregate_type = type$$;

-- alter_aggregate

SELECT cqrs_es.create_aggregate('change', '{"start": 1}', 5, 2) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('change', 'e', '[{"op": "increment", "path": "/n", "from": "/n"}]') IS NULL AS x \gset
SELECT pg_temp.append('change', 'a', 11) AS x \gset
SELECT is(pg_temp.declaration('change'), '("{""start"": 1}",5,2)', 'a declaration');
SELECT is(cqrs_es.aggregate_state('change', 'a'), '{"n": 11, "start": 1}', 'its state');
SELECT is(pg_temp.snapshots('change'), '{5,10}', 'its snapshots');
SELECT lives_ok($$SELECT cqrs_es.alter_aggregate('change')$$, 'nothing is altered');
SELECT lives_ok($$SELECT cqrs_es.alter_aggregate('change', NULL, NULL, NULL)$$, 'nor by NULLs');
SELECT is(pg_temp.declaration('change'), '("{""start"": 1}",5,2)', 'all is as it was');
UPDATE cqrs_es.snapshots SET payload = payload || '{"planted": true}' WHERE aggregate_type = 'change';
SELECT is(cqrs_es.aggregate_state('change', 'a') -> 'planted', 'true', 'its snapshots are used still');
SELECT lives_ok($$SELECT cqrs_es.alter_aggregate('change', snapshot_every => 3)$$, 'more snapshots');
SELECT is(pg_temp.declaration('change'), '("{""start"": 1}",3,2)', 'and the rest as it was');
SELECT is(cqrs_es.aggregate_state('change', 'a') -> 'planted', 'true', 'that does not change what a snapshot is worth');
SELECT pg_temp.append('change', 'a', 5) AS x \gset
SELECT is(pg_temp.snapshots('change'), '{12,15}', 'they are taken at new places');
SELECT lives_ok($$SELECT cqrs_es.alter_aggregate('change', keep_snapshots => 1)$$, 'fewer to keep');
SELECT is(pg_temp.declaration('change'), '("{""start"": 1}",3,1)', 'and the rest as it was');
SELECT is(cqrs_es.aggregate_state('change', 'a') -> 'planted', 'true', 'that changes no worth either');
SELECT lives_ok($$SELECT cqrs_es.alter_aggregate('change', '{"start": 2}')$$, 'another beginning');
SELECT is(pg_temp.declaration('change'), '("{""start"": 2}",3,1)', 'and the rest as it was');
SELECT is(cqrs_es.aggregate_state('change', 'a'), '{"n": 16, "start": 2}', 'the fold begins anew');
SELECT pg_temp.append('change', 'a', 2) AS x \gset
SELECT is(pg_temp.snapshots('change'), '{18}', 'and old snapshots go');
SELECT lives_ok($$SELECT cqrs_es.alter_aggregate('change', snapshot_every => 0)$$, 'no more snapshots');
SELECT pg_temp.append('change', 'a', 10) AS x \gset
SELECT is(pg_temp.snapshots('change'), '{18}', 'are taken');
SELECT is(cqrs_es.take_snapshot('change', 'a'), 28::bigint, 'but by hand');
SELECT lives_ok($$SELECT cqrs_es.alter_aggregate('change', '[]', 1, 3)$$, 'all at once');
SELECT is(pg_temp.declaration('change'), '([],1,3)', 'all are altered');
SELECT is((cqrs_es.load_aggregate('change', 'new')).state, '[]', 'at once');
SELECT throws_ok(format('SELECT cqrs_es.alter_aggregate(%s)', args), state, message, format('alter_aggregate(%s)', args))
FROM (VALUES (1, '''change'', snapshot_every => -1', '22023', 'snapshot_every must not be negative'), (2, '''change'', keep_snapshots => 0', '22023', 'keep_snapshots must be greater than zero'),
	(3, '''change'', keep_snapshots => -1', '22023', 'keep_snapshots must be greater than zero'), (4, '''undeclared'', ''{}''', 'QE101', 'aggregate type "undeclared" is not declared'),
	(5, 'NULL', '22004', NULL), (6, '''''', '22023', NULL)) v (n, args, state, message) ORDER BY n;
SELECT is(pg_temp.declaration('change'), '([],1,3)', 'what is refused changes nothing');

-- drop_reducer

SELECT cqrs_es.alter_aggregate('change', '{}', 2, 1) IS NULL AS x \gset
SELECT pg_temp.append('change', 'b', 4) AS x \gset
SELECT is(cqrs_es.aggregate_state('change', 'b'), '{"n": 4}', 'a reducer counts');
SELECT lives_ok($$SELECT cqrs_es.drop_reducer('change', 'e')$$, 'it is dropped');
SELECT is(cqrs_es.aggregate_state('change', 'b'), '{"n": 1}', 'payloads are merged again, from the first on');
SELECT throws_ok($$SELECT cqrs_es.drop_reducer('change', 'e')$$, '42704', 'reducer of aggregate type "change" for event type "e" does not exist', 'it can be dropped once');
SELECT throws_ok($$SELECT cqrs_es.drop_reducer('undeclared', 'e')$$, 'QE101', NULL, 'and of what is declared');
SELECT throws_ok($$SELECT cqrs_es.drop_reducer('change', NULL)$$, '22004', NULL, 'and has a name');
SAVEPOINT s;
SELECT cqrs_es.define_reducer('change', 'e', '[{"op": "set", "path": "/rolled", "value": "back"}]') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('change', 'b'), '{"rolled": "back"}', 'another reducer');
ROLLBACK TO s;
SELECT is(cqrs_es.aggregate_state('change', 'b'), '{"n": 1}', 'that is rolled back has never been');
SELECT cqrs_es.alter_aggregate('change', '{"rolled": "back"}') IS NULL AS x \gset
ROLLBACK TO s;
SELECT is(cqrs_es.aggregate_state('change', 'b'), '{"n": 1}', 'nor another beginning');
SELECT cqrs_es.define_reducer('change', 'e', '[{"op": "decrement", "path": "/n"}]') IS NULL AS x \gset
SAVEPOINT s;
SELECT cqrs_es.drop_reducer('change', 'e') IS NULL AS x, cqrs_es.aggregate_state('change', 'b') AS x \gset
ROLLBACK TO s;
SELECT is(cqrs_es.aggregate_state('change', 'b'), '{"n": -4}', 'nor a drop');

-- drop_aggregate

SELECT cqrs_es.create_aggregate('stays', '{}', 1) IS NULL AS x, cqrs_es.define_reducer('stays', 'e', '[]') IS NULL AS x \gset
SELECT pg_temp.append('stays', 'a', 1) AS x \gset
SELECT cqrs_es.take_snapshot('change', 'b') AS x \gset
INSERT INTO cqrs_es.snapshots (aggregate_type, aggregate_id, last_sequence, current_snapshot, payload) VALUES ('change', 'foreign', 3, 1, '{"by": "postgres-es"}');
SAVEPOINT s;
SELECT lives_ok($$SELECT cqrs_es.drop_aggregate('change', force => true)$$, 'it is dropped');
SELECT throws_ok($$SELECT cqrs_es.aggregate_state('change', 'b')$$, 'QE101', NULL, 'it has no state');
ROLLBACK TO s;
SELECT is(cqrs_es.aggregate_state('change', 'b'), '{"n": -4}', 'a drop that is rolled back has never been');
SELECT cmp_ok(pg_temp.snapshots('change'), '@>', '{4}'::bigint[], 'its snapshots are there');
SELECT cqrs_es.drop_aggregate('change', force => true) IS NULL AS x \gset
SELECT is((SELECT count(*) FROM cqrs_es.reducers WHERE aggregate_type = 'change'), 0::bigint, 'its reducers go');
SELECT is((SELECT array_agg(aggregate_id) FROM cqrs_es.snapshots WHERE aggregate_type = 'change'), '{foreign}', 'and its own snapshots');
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('change', 'b')), 4::bigint, 'its events stay');
SELECT is(pg_temp.append('change', 'b', 1), 5::bigint, 'and may become more');
SELECT is(pg_temp.snapshots('change'), '{3}', 'without snapshots');
SELECT is(pg_temp.declaration('stays') || (SELECT count(*) FROM cqrs_es.reducers WHERE aggregate_type = 'stays') || pg_temp.snapshots('stays')::text, '({},1,1)1{1}', 'others stay as they are');
SELECT throws_ok($$SELECT cqrs_es.drop_aggregate('change', force => true)$$, 'QE101', 'aggregate type "change" is not declared', 'it can be dropped once');
SELECT throws_ok($$SELECT cqrs_es.drop_aggregate(NULL)$$, '22004', NULL, 'and has a name');
SELECT throws_ok($$SELECT cqrs_es.define_reducer('change', 'e', '[]')$$, 'QE101', NULL, 'it gets no reducers');
SELECT throws_ok($$SELECT cqrs_es.take_snapshot('change', 'b')$$, 'QE101', NULL, 'and no snapshots');
SELECT lives_ok($$SELECT cqrs_es.create_aggregate('change', '{"again": true}')$$, 'it may be declared again');
SELECT is(cqrs_es.aggregate_state('change', 'b'), '{"n": 1, "again": true}', 'and has forgotten its reducers');

-- a function that a dropped aggregate used may go

CREATE FUNCTION used(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
SELECT cqrs_es.define_reducer('change', 'e', 'used(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT throws_ok('DROP FUNCTION used(jsonb, cqrs_es.event)', '2BP01', NULL, 'a function in use stays');
SELECT cqrs_es.drop_aggregate('change', force => true) IS NULL AS x \gset
SELECT lives_ok('DROP FUNCTION used(jsonb, cqrs_es.event)', 'until the aggregate is dropped');

-- rights

CREATE ROLE cqrs_es_nobody;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_nobody;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_nobody;
SET LOCAL ROLE cqrs_es_nobody;
SELECT throws_ok(format('SELECT cqrs_es.%s', call), '42501', NULL, 'not for everybody: ' || call)
FROM unnest(ARRAY['create_aggregate(''x'')', 'alter_aggregate(''stays'')', 'drop_aggregate(''stays'')', 'define_reducer(''stays'', ''e'', ''[]''::jsonb)', 'define_reducer(''stays'', ''e'', ''[]''::text)', 'drop_reducer(''stays'', ''e'')']) WITH ORDINALITY u (call, n) ORDER BY n;
RESET ROLE;
SELECT finish();
ROLLBACK;
