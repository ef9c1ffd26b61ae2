\i test/include/setup.sql
-- cqrs_es.require_tenant: whoever forgets the tenant hears of it, on every way in
-- and out. What concerns all tenants goes on without one.
BEGIN;
SELECT plan(49);

SELECT is(cqrs_es.current_tenant(), '', 'no tenant, which is no error');
SELECT cqrs_es.create_aggregate('tr', snapshot_every => 2) IS NULL AS x \gset
SELECT cqrs_es.define_command('tr', 'Do', $$'{"type": "Done", "payload": {}}'::jsonb$$) IS NULL AS x \gset
CREATE TABLE tr_model (tenant text, id text, n bigint, PRIMARY KEY (tenant, id));
SELECT cqrs_es.create_projection('tr', '{tr}', '{tr_model}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('tr', 'Done', 'INSERT INTO tr_model VALUES (event.tenant_id, event.aggregate_id, 1)
	ON CONFLICT (tenant, id) DO UPDATE SET n = tr_model.n + 1') IS NULL AS x \gset
SELECT cqrs_es.append_event('tr', 'of nobody', 'Done', '{}') IS NULL AS x \gset

CREATE ROLE tr_writer;
GRANT USAGE ON SCHEMA cqrs_es TO tr_writer;
GRANT SELECT, INSERT ON cqrs_es.events, cqrs_es.snapshots TO tr_writer;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cqrs_es TO tr_writer;

SET LOCAL cqrs_es.require_tenant = on;

SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_event('tr', 'a', 'Done', '{}')$$),
	'{QE007,no tenant is set,"Events must have a tenant here, since cqrs_es.require_tenant is on.","Say whose events are meant: SET LOCAL cqrs_es.tenant_id = ''...''."}',
	'what it says');

CREATE TEMP TABLE ways (n int, way text);
INSERT INTO ways VALUES (1, $$SELECT cqrs_es.append_event('tr', 'a', 'Done', '{}')$$),
	(2, $$SELECT cqrs_es.append_events('tr', 'a', '[{"type": "Done", "payload": {}}]')$$),
	(3, $$SELECT cqrs_es.append_event_arrays('tr', 'a', '{Done}', '{1}')$$),
	(4, $$SELECT cqrs_es.execute_command('tr', 'a', 'Do')$$),
	(5, $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('tr', 'a', 'Done', '{}')$$),
	(6, $$INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, event_type, payload) VALUES ('', 'tr', 'a', 'Done', '{}')$$),
	(7, $$SELECT * FROM cqrs_es.read_stream('tr', 'of nobody')$$),
	(8, $$SELECT * FROM cqrs_es.read_all()$$),
	(9, $$SELECT * FROM cqrs_es.read_page()$$),
	(10, $$SELECT cqrs_es.stream_version('tr', 'of nobody')$$),
	(11, $$SELECT cqrs_es.aggregate_state('tr', 'of nobody')$$),
	(12, $$SELECT * FROM cqrs_es.load_aggregate('tr', 'of nobody')$$),
	(13, $$SELECT * FROM cqrs_es.replay('tr', 'of nobody')$$),
	(14, $$SELECT cqrs_es.take_snapshot('tr', 'of nobody')$$),
	(15, $$SELECT cqrs_es.current_tenant()$$),
	(16, $$SELECT cqrs_es.receive_message('tr', 'a')$$),
	(17, $$SELECT cqrs_es.append_to_streams('[{"type": "Done"}]')$$),
	(18, $$SELECT * FROM cqrs_es.read_matching('[{"tags": ["of nobody"]}]')$$),
	(19, $$SELECT cqrs_es.try_append_event('tr', 'a', 'Done', '{}', 99)$$),
	(20, $$SELECT cqrs_es.try_execute_command('tr', 'a', 'Do')$$);
GRANT SELECT ON ways TO tr_writer;
SELECT is(pg_temp.state_of(way), 'QE007', 'superuser: ' || way) FROM ways ORDER BY n;
SET LOCAL ROLE tr_writer;
SELECT is(pg_temp.state_of(way), 'QE007', 'writer: ' || way) FROM ways ORDER BY n;
SELECT is(pg_temp.state_of('SELECT * FROM cqrs_es.events'), 'QE007', 'an ordinary role that reads the table');
RESET ROLE;
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'tr'), 1::bigint, 'nothing has got in');

-- what is for all tenants
SELECT is(cqrs_es.rebuild_projection('tr'), 1::bigint, 'a rebuild asks for no tenant');
SELECT is(pg_temp.state_of($$INSERT INTO cqrs_es.events (global_position, sequence, tenant_id, aggregate_type, aggregate_id, event_type, payload)
	VALUES (1000000, 1, '', 'tr', 'restored', 'Done', '{}')$$), 'none', 'an event of nobody is restored');
SELECT is(pg_temp.state_of($$INSERT INTO cqrs_es.events (global_position, sequence, tenant_id, aggregate_type, aggregate_id, event_type, payload)
	VALUES (1000001, 1, 'acme', 'tr', 'restored', 'Done', '{}')$$), 'none', 'and one of a tenant');
SELECT is(pg_temp.state_of($$INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, event_type, payload)
	VALUES ('acme', 'tr', 'b', 'Done', '{}')$$), 'none', 'an owner''s plain INSERT that names a tenant');

-- with one
SET LOCAL cqrs_es.tenant_id = 'acme';
SELECT is(pg_temp.state_of($$SELECT cqrs_es.execute_command('tr', 'a', 'Do')$$), 'none', 'with a tenant all is as ever');
DROP OWNED BY tr_writer;
DROP ROLE tr_writer;
SELECT finish();
ROLLBACK;
