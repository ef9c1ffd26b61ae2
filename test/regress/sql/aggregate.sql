-- An aggregate: declared, folded, looked at in the past, kept in snapshots.
SELECT cqrs_es.create_aggregate('plain counter', '{"n": 0}', snapshot_every => 3);
SELECT cqrs_es.define_reducer('plain counter', 'Added', '[{"op": "increment", "path": "/n", "from": "/by"}]');
SELECT cqrs_es.define_reducer('plain counter', 'Reset', '[{"op": "set", "path": "/n", "value": 0}]');
SELECT version FROM cqrs_es.append_events('plain counter', 'a', '[
	{"type": "Added", "payload": {"by": 2}}, {"type": "Added", "payload": {"by": 40}}, {"type": "Reset", "payload": {}},
	{"type": "Named", "payload": {"name": "Ada"}}, {"type": "Added", "payload": {"by": 5}}]');
SELECT * FROM cqrs_es.load_aggregate('plain counter', 'a');
SELECT * FROM cqrs_es.load_aggregate('plain counter', 'none');
SELECT cqrs_es.aggregate_state('plain counter', 'a'), cqrs_es.aggregate_state('plain counter', 'a', at_sequence => 2) AS once;
SELECT sequence, event_type, state FROM cqrs_es.replay('plain counter', 'a');
SELECT last_sequence, payload FROM cqrs_es.snapshots WHERE aggregate_type = 'plain counter';

-- an event that the reducer cannot take is in the log, and says where it stands
SELECT version FROM cqrs_es.append_event('plain counter', 'b', 'Added', '{"by": "two"}');
SELECT cqrs_es.aggregate_state('plain counter', 'b');

-- who may not call a reducer appends, without a snapshot, and hears which grant is missing
CREATE FUNCTION plain_name(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
REVOKE EXECUTE ON FUNCTION plain_name FROM PUBLIC;
SELECT cqrs_es.define_reducer('plain counter', 'Called', 'plain_name');
CREATE ROLE regress_plain_writer;
GRANT USAGE ON SCHEMA cqrs_es TO regress_plain_writer;
GRANT SELECT, INSERT ON cqrs_es.events TO regress_plain_writer;
SET ROLE regress_plain_writer;
SELECT version FROM cqrs_es.append_events('plain counter', 'c', '[{"type": "Called"}, {"type": "Called"}, {"type": "Called"}]');
RESET ROLE;
DROP OWNED BY regress_plain_writer;
DROP ROLE regress_plain_writer;
SELECT cqrs_es.drop_reducer('plain counter', 'Called');
DROP FUNCTION plain_name;

-- what is no aggregate, no reducer
SELECT * FROM cqrs_es.load_aggregate('plain nothing', 'a');
SELECT cqrs_es.create_aggregate('plain counter');
SELECT cqrs_es.define_reducer('plain counter', 'Added', '[{"op": "multiply", "path": "/n", "from": "/by"}]');
SELECT cqrs_es.drop_aggregate('plain counter', force => true);
SELECT count(*) FROM cqrs_es.read_stream('plain counter', 'a');
