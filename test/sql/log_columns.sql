\i test/include/setup.sql
-- The columns of the log are found by their names, wherever they stand; what is not as it should be
-- is said.
BEGIN;
SELECT plan(16);
SELECT cqrs_es.create_aggregate('columns', '{}', 2) IS NULL AS x \gset
SELECT cqrs_es.append_event('columns', 'a', 'e', '{"n": 1}', metadata => '{"m": 1}') IS NULL AS x \gset
CREATE FUNCTION columns_reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state || event.payload || event.metadata';
SELECT cqrs_es.define_reducer('columns', 'f', 'columns_reduce(jsonb, cqrs_es.event)') IS NULL AS x, cqrs_es.create_aggregate('columns 2', '{}', 0) IS NULL AS x,
	cqrs_es.define_reducer('columns 2', 'f', 'columns_reduce(jsonb, cqrs_es.event)') IS NULL AS x, cqrs_es.append_event('columns 2', 'a', 'f', '{}') IS NULL AS x \gset

-- elsewhere
SAVEPOINT whole;
ALTER TABLE cqrs_es.events ADD COLUMN more text DEFAULT 'more';
ALTER TABLE cqrs_es.events DROP COLUMN metadata;
ALTER TABLE cqrs_es.events ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}';
SELECT is((cqrs_es.append_event('columns', 'a', 'f', '{"n": 2}', metadata => '{"m": 2}')).version, 2::bigint, 'an event is appended');
SELECT is((cqrs_es.append_events('columns', 'a', '[{"type": "e", "payload": {"n": 3}, "metadata": {"m": 3}}, {"type": "e", "payload": {"n": 4}}]')).version, 4::bigint, 'so is a batch');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, metadata) VALUES ('columns', 'a', 'f', '{"n": 5}', '{"m": 5}');
SELECT results_eq($$SELECT sequence, payload ->> 'n', metadata FROM cqrs_es.read_stream('columns', 'a')$$,
	$$VALUES (1::bigint, '1', '{}'::jsonb), (2, '2', '{"m": 2}'), (3, '3', '{"m": 3}'), (4, '4', '{}'), (5, '5', '{"m": 5}')$$, 'all of them are read, in the right columns');
SELECT is(cqrs_es.aggregate_state('columns', 'a'), '{"m": 5, "n": 5}', 'and folded');
SELECT is((SELECT max(last_sequence) FROM cqrs_es.snapshots WHERE aggregate_type = 'columns'), 4::bigint, 'with snapshots');
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'columns' AND more = 'more'), 5::bigint, 'what is added has its default');
ROLLBACK TO whole;

-- not as they should be
SELECT is(pg_temp.error_of(format('ALTER TABLE cqrs_es.events %s; SELECT cqrs_es.append_event(''columns'', ''a'', ''e'', ''{}'')', change), '{state,message}'), ARRAY[state, message], change) FROM (VALUES
	(1, 'ALTER COLUMN event_version DROP NOT NULL', '42P16', 'column "event_version" of relation "events" is not of type text NOT NULL'),
	(2, 'ALTER COLUMN event_version TYPE varchar', '42P16', 'column "event_version" of relation "events" is not of type text NOT NULL'),
	(3, 'DROP COLUMN event_version CASCADE', '42703', 'column "event_version" of relation "events" does not exist')) c (n, change, state, message) ORDER BY n;
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('columns', 'a')), 1::bigint, 'nothing of that stays');

-- nor the type
ALTER TYPE cqrs_es.event ADD ATTRIBUTE more text;
SELECT is(pg_temp.error_of(call, '{state,message}'), ARRAY['42804', message], call) FROM (VALUES
	(1, 'type cqrs_es.event has been altered', $$SELECT cqrs_es.read_stream('columns', 'a')$$),
	(2, 'type cqrs_es.event has been altered', $$SELECT * FROM cqrs_es.read_all()$$),
	(3, 'type cqrs_es.event has 12 attributes, expected 11', $$SELECT cqrs_es.aggregate_state('columns 2', 'a')$$)) c (n, message, call) ORDER BY n;
ROLLBACK TO whole;

-- the trigger of snapshots is for snapshots
CREATE TABLE other (fingerprint bytea, n int);
CREATE TABLE another (n int);
INSERT INTO other VALUES ('a', 1);
INSERT INTO another VALUES (1);
CREATE TRIGGER late AFTER UPDATE ON other FOR EACH ROW EXECUTE FUNCTION cqrs_es.snapshot_updated();
SELECT throws_ok('UPDATE other SET n = 2', '39P01', NULL, 'its function is for before an update');
DROP TRIGGER late ON other;
CREATE TRIGGER misplaced BEFORE UPDATE ON another FOR EACH ROW EXECUTE FUNCTION cqrs_es.snapshot_updated();
SELECT throws_ok('UPDATE another SET n = 2', '42703', NULL, 'of a table that has fingerprints');
CREATE TRIGGER fits BEFORE UPDATE ON other FOR EACH ROW EXECUTE FUNCTION cqrs_es.snapshot_updated();
UPDATE other SET n = 2;
SELECT is((SELECT fingerprint IS NULL FROM other), true, 'which it takes away');
SELECT * FROM finish();
ROLLBACK;
