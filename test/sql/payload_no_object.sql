\i test/include/setup.sql
-- An event without fields: whatever stands in place of an object leaves the state as it is.
BEGIN;
SELECT plan(60);
CREATE TABLE plain_states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
CREATE FUNCTION to_nothing(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$SELECT '"nothing"'::jsonb$$;
SELECT cqrs_es.create_aggregate('plain', '{"balance": 0}', snapshot_every => 3) IS NULL AS x,
	cqrs_es.define_reducer('plain', 'Deposited', '[{"op": "increment", "path": "/balance", "from": "/amount"}]') IS NULL AS y,
	cqrs_es.define_command('plain', 'Freeze', $$jsonb_build_object('type', 'Frozen', 'payload', command)$$) IS NULL AS z \gset
SELECT cqrs_es.create_projection('plain', read_models => '{plain_states}', state_of => 'plain') IS NULL AS x \gset
CREATE TEMP TABLE no_objects (n serial, payload jsonb);
INSERT INTO no_objects (payload) VALUES ('"Frozen"'), ('[]'), ('null'), ('""'), ('5'), ('0.0'), ('true'), ('false'), ('[{"balance": 1}]'), ('["balance"]'), ('"{\"balance\": 1}"'), ('[[]]');

CREATE FUNCTION pg_temp.deposit(id text) RETURNS void LANGUAGE sql AS $$SELECT cqrs_es.append_event('plain', id, 'Deposited', '{"amount": 10}')$$;
SELECT pg_temp.deposit('a' || n) IS NULL AS x FROM no_objects \g /dev/null
SELECT cqrs_es.append_event('plain', 'a' || n, 'Frozen', payload) IS NULL AS x FROM no_objects \g /dev/null
SELECT is(cqrs_es.aggregate_state('plain', 'a' || n), '{"balance": 10}', format('%s: the state is as it was', payload)) FROM no_objects ORDER BY n;
SELECT lives_ok(format('SELECT pg_temp.deposit(%L)', 'a' || n), format('%s: it goes on', payload)) FROM no_objects ORDER BY n;
SELECT is((SELECT payload FROM cqrs_es.snapshots WHERE aggregate_type = 'plain' AND aggregate_id = 'a' || n), '{"balance": 20}', format('%s: the snapshot', payload)) FROM no_objects ORDER BY n;
SELECT is((SELECT s.payload FROM plain_states s WHERE view_id = 'a' || n), '{"balance": 20}', format('%s: the table of states', payload)) FROM no_objects ORDER BY n;
SELECT cqrs_es.rebuild_projection('plain') IS NULL AS x \gset
SELECT is_empty($$SELECT * FROM plain_states WHERE payload <> '{"balance": 20}' OR version <> 3$$, 'rebuilt');
SELECT results_eq($$SELECT state FROM cqrs_es.replay('plain', 'a3')$$, $$VALUES ('{"balance": 10}'::jsonb), ('{"balance": 10}'), ('{"balance": 20}')$$, 'replay');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'plain', 'insert', 'Frozen', payload FROM no_objects;
SELECT is(cqrs_es.aggregate_state('plain', 'insert'), '{"balance": 0}', 'by plain INSERT: the initial state');
SELECT is((SELECT s.payload FROM plain_states s WHERE view_id = 'insert'), '{"balance": 0}', 'and in the table of states');
SELECT is((cqrs_es.execute_command('plain', 'command', 'Freeze', '[]')).state, '{"balance": 0}', 'a command shows the state, too');
SELECT cqrs_es.append_event('plain', 'object', 'Frozen', '{"frozen": true}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('plain', 'object'), '{"frozen": true, "balance": 0}', 'an object is merged');
SELECT cqrs_es.append_event('plain', 'object', 'Frozen', '{}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('plain', 'object'), '{"frozen": true, "balance": 0}', 'an empty one changes nothing');
SELECT cqrs_es.define_upcaster('Frozen', '1', '2', 'to_nothing(jsonb)') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('plain', 'object'), '{"balance": 0}', 'what an upcaster made of it counts');
SELECT cqrs_es.drop_upcaster('Frozen', '1') IS NULL AS x \gset
-- what was asked for in so many words is done
SELECT cqrs_es.define_reducer('plain', 'Replaced', '[{"op": "merge", "path": "", "from": ""}]') IS NULL AS x \gset
SELECT cqrs_es.append_event('plain', 'object', 'Replaced', '5') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('plain', 'object'), '5', 'the operation merge follows RFC 7396');
SELECT cqrs_es.append_event('plain', 'object', 'Frozen', '[]') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('plain', 'object'), '5', 'a state that is no object stays, too');
SELECT cqrs_es.append_event('plain', 'object', 'Frozen', '{"a": 1}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('plain', 'object'), '{"a": 1}', 'and an object is merged into nothing');
SELECT ok(cqrs_es.stream_version('plain', 'insert') = 12, 'the log has all of them');
SELECT finish();
ROLLBACK;
