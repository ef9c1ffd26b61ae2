\i test/include/setup.sql
\i test/include/master_key.sql
-- Who may do what: the table of grants in docs/tenants-and-rights.md, as each of its roles; what a
-- handler or a decider of somebody else lets one do; and that our own policy costs
-- an ordinary role nothing. Roles of this file outlive its transactions: they are
-- dropped at its end.

CREATE ROLE cqrs_es_outsider;
CREATE ROLE cqrs_es_nobody;
CREATE ROLE cqrs_es_reader;
CREATE ROLE cqrs_es_blind;
CREATE ROLE cqrs_es_column;
CREATE ROLE cqrs_es_writer;
CREATE ROLE cqrs_es_architect;
CREATE ROLE cqrs_es_consumers ROLE cqrs_es_outsider, cqrs_es_nobody, cqrs_es_reader, cqrs_es_blind, cqrs_es_column, cqrs_es_writer, cqrs_es_architect;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_nobody, cqrs_es_reader, cqrs_es_blind, cqrs_es_column, cqrs_es_writer, cqrs_es_architect;
GRANT SELECT ON cqrs_es.events TO cqrs_es_reader;
GRANT INSERT ON cqrs_es.events TO cqrs_es_blind;
GRANT SELECT (aggregate_type, aggregate_id, payload), INSERT (aggregate_type, aggregate_id, event_type, payload) ON cqrs_es.events TO cqrs_es_column;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_writer;
DO $$
BEGIN
	EXECUTE (SELECT format('GRANT EXECUTE ON ROUTINE %s TO cqrs_es_architect', string_agg(oid::regprocedure::text, ', '))
		FROM pg_proc WHERE pronamespace = 'cqrs_es'::regnamespace AND proname ~ '^(create|alter|define|drop|rebuild|pause|resume|promote|reset|discard)_|^redrive$|^projection_errors$|^last_position$|^known_settled_position$|^log_size$|^retry_skipped$');
END $$;

-- The straight path leaves no lock on the log behind a read, and does not call the
-- admitting trigger. Both take a transaction that did nothing else.

SELECT version AS first FROM cqrs_es.append_event('rights', 'straight', 'e', '{}', 0) \gset
SET track_functions = 'all';
SET cqrs_es.force_generic_path = off;
SET ROLE cqrs_es_writer;
BEGIN;
SELECT sequence AS read_sequence FROM cqrs_es.read_stream('rights', 'straight') \gset straight_
SELECT event_type AS read_type FROM cqrs_es.read_all(aggregate_types => '{rights}') \gset straight_
SELECT count(*) AS locks FROM pg_locks JOIN pg_class c ON c.oid = relation WHERE pid = pg_backend_pid() AND relname = 'events' \gset straight_
SELECT version FROM cqrs_es.append_event('rights', 'straight', 'e', '{}') \gset straight_
RESET ROLE;
SELECT coalesce(sum(calls), 0) AS calls FROM pg_stat_xact_user_functions WHERE schemaname = 'cqrs_es' AND funcname = 'admit_event' \gset straight_
ROLLBACK;
RESET ROLE;
SET cqrs_es.force_generic_path = on;
SET ROLE cqrs_es_writer;
BEGIN;
SELECT sequence AS read_sequence FROM cqrs_es.read_stream('rights', 'straight') \gset generic_
SELECT count(*) AS locks FROM pg_locks JOIN pg_class c ON c.oid = relation WHERE pid = pg_backend_pid() AND relname = 'events' \gset generic_
SELECT version FROM cqrs_es.append_event('rights', 'straight', 'e', '{}') \gset generic_
RESET ROLE;
SELECT coalesce(sum(calls), 0) AS calls FROM pg_stat_xact_user_functions WHERE schemaname = 'cqrs_es' AND funcname = 'admit_event' \gset generic_
ROLLBACK;
RESET ROLE;
RESET cqrs_es.force_generic_path;
RESET track_functions;

-- something in hand, for all roles
SELECT version FROM cqrs_es.append_event('consumed', '1', 'e', '{}', 0) \gset
SELECT cqrs_es.create_subscription('consumed', '{consumed}', lease => '1 hour', consumer_role => 'cqrs_es_consumers') IS NULL AS x \gset
SELECT batch, global_position AS consumed FROM cqrs_es.receive_events('consumed', 'c', 1) \gset

BEGIN;
SELECT plan(71);
SELECT is(:first, 1, 'the first event');
SELECT is(:straight_read_sequence, 1, 'read_stream reads it straight');
SELECT is(:'straight_read_type', 'e'::text, 'so does read_all');
SELECT is(:straight_locks, 0, 'which leaves no lock');
SELECT is(:straight_version, 2, 'an append, straight');
SELECT is(:straight_calls, 0, 'does not call the trigger');
SELECT is(:generic_read_sequence, 1, 'read_stream reads it through SQL');
SELECT cmp_ok(:generic_locks, '>', 0, 'which leaves locks');
SELECT is(:generic_version, 2, 'an append through SQL');
SELECT is(:generic_calls, 1, 'calls the trigger');
-- its SQLSTATE, 00000 when it succeeds, and nothing else: all that it does is undone
CREATE FUNCTION pg_temp.state_as(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
BEGIN
	PERFORM pg_temp.as_role(role, statement);
	RAISE EXCEPTION 'done' USING ERRCODE = 'P0042';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT;
	RETURN CASE SQLSTATE WHEN 'P0042' THEN 'allowed' WHEN '42501' THEN 'refused' ELSE SQLSTATE || ' ' || message END;
END $$;

SELECT cqrs_es.create_aggregate('rights'), cqrs_es.define_reducer('rights', 'old', '[]'),
	cqrs_es.define_command('rights', 'Go', '''{"type": "e", "payload": {}}''::jsonb'),
	cqrs_es.define_command('rights', 'Stay', '''[]''::jsonb') \gset
SELECT cqrs_es.create_boundary('bounded', '[{"tags": ["x"]}]'), cqrs_es.define_command('bounded', 'Go', '''{"type": "e", "payload": {}, "tags": ["x"]}''::jsonb'),
	cqrs_es.define_command('bounded', 'Stay', '''[]''::jsonb') \gset
CREATE FUNCTION up(jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state';
CREATE FUNCTION reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT state';
SELECT cqrs_es.define_upcaster('old', '1', '2', 'up(jsonb)') \gset
CREATE TABLE own (id text, n bigint);
ALTER TABLE own OWNER TO cqrs_es_architect;
CREATE TABLE others (id text, n bigint);
SELECT pg_temp.as_role('cqrs_es_architect', $$SELECT cqrs_es.create_projection('theirs', '{rights}', '{own}'), cqrs_es.create_projection('newer', '{rights}'),
	cqrs_es.define_handler('theirs', 'old', 'DELETE FROM own')$$) \gset
SELECT cqrs_es.create_subscription('subscribed') IS NULL AS x \gset
SELECT cqrs_es.alter_subscription('subscribed', owner => 'cqrs_es_architect') IS NULL AS x \gset
INSERT INTO cqrs_es.dead_letters (id, subscription, tenant_id, aggregate_type, aggregate_id, slot, sequence, global_position, event_id, event_type, state)
	VALUES (1, 'subscribed', '', 'rights', 'a', 0, 1, 1, gen_random_uuid(), 'e', 'skipped');

-- what each call needs beside USAGE on the schema
CREATE TEMP TABLE calls (n serial, needs text[], call text);
INSERT INTO calls (needs, call) VALUES
	('{}', $$SELECT cqrs_es.current_tenant()$$),
	('{}', $$SELECT cqrs_es.new_event_id()$$),
	('{}', $$SELECT cqrs_es.id_from_text('a')$$),
	('{}', $$SELECT cqrs_es.derived_tags('{}', 'a')$$),
	('{}', $$SELECT cqrs_es.stream_hash('rights', 'a')$$),
	('{}', $$SELECT cqrs_es.routed_stream('rights', 'a', NULL, NULL)$$),
	('{}', $$SELECT cqrs_es.routed_argument(0, NULL)$$),
	('{OWNER}', $$SELECT cqrs_es.routed_argument(0, 'another')$$),
	('{}', $$SELECT cqrs_es.position_here('{}')$$),
	('{OWNER}', $$SELECT cqrs_es.keep_shards('{0}', 1)$$),
	('{OWNER}', $$SELECT cqrs_es.proxy_functions('front')$$),
	('{SELECT}', $$SELECT cqrs_es.read_stream('rights', 'a')$$),
	('{SELECT}', $$SELECT cqrs_es.read_all()$$),
	('{SELECT}', $$SELECT cqrs_es.read_page()$$),
	('{SELECT}', $$SELECT cqrs_es.read_matching('[{"tags": ["x"]}]')$$),
	('{SELECT}', $$SELECT cqrs_es.boundary_query('bounded', '{}')$$),
	('{SELECT}', $$SELECT cqrs_es.boundary_state('bounded', '{}')$$),
	('{SELECT}', $$SELECT cqrs_es.stream_version('rights', 'a')$$),
	('{SELECT}', $$SELECT cqrs_es.settled_position()$$),
	('{SELECT}', $$SELECT cqrs_es.wait_for_position(0)$$),
	('{SELECT}', $$SELECT cqrs_es.log_id()$$),
	('{SELECT}', $$SELECT cqrs_es.aggregate_state('rights', 'a')$$),
	('{SELECT}', $$SELECT cqrs_es.event_types()$$),
	('{SELECT}', $$SELECT cqrs_es.poisoned_streams()$$),
	('{SELECT}', $$SELECT cqrs_es.load_aggregate('rights', 'a')$$),
	('{SELECT}', $$SELECT cqrs_es.replay('rights', 'a')$$),
	('{SELECT}', $$SELECT count(metadata) FROM cqrs_es.events$$),
	('{INSERT}', $$SELECT cqrs_es.next_position()$$),
	('{INSERT}', $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('rights', 'a', 'e', '{}')$$),
	('{INSERT,SELECT}', $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('rights', 'a', 'e', '{}') RETURNING sequence$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.append_event('rights', 'a', 'e', '{}')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.append_event('rights', 'a', 'e', '{}', tags => '{a}')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.append_events('rights', 'a', '[{"type": "e", "payload": {}}]')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.append_event_arrays('rights', 'a', '{e}', '{"{}"}')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.try_append_event('rights', 'a', 'e', '{}')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.try_append_event('rights', 'a', 'e', '{}', 99)$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.try_append_events('rights', 'a', '[{"type": "e", "payload": {}}]')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.try_append_event_arrays('rights', 'a', '{e}', '{"{}"}')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.append_to_streams('[{"type": "e"}]')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', '[{"tags": ["x"]}]')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.execute_command('rights', 'a', 'Go')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.execute_command('rights', 'a', 'Stay')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.execute_command('rights', 'a', 'Go', command_id => '00000000-0000-7000-8000-000000000001')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.try_execute_command('rights', 'a', 'Go')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.try_execute_command('rights', 'a', 'Go', expected_version => 99)$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.execute_boundary('bounded', 'Go')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.execute_boundary('bounded', 'Stay')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.execute_boundary('bounded', 'Go', command_id => '00000000-0000-7000-8000-000000000001')$$),
	('{INSERT,SELECT}', $$SELECT cqrs_es.take_snapshot('rights', 'a')$$),
	('{SELECT}', $$SELECT cqrs_es.receive_events('consumed', 'c')$$),
	('{SELECT}', format('SELECT cqrs_es.nack_event(%L, %s, %L)', :'batch', :consumed, 'bad')),
	('{SELECT}', format('SELECT cqrs_es.extend_lease(%L)', :'batch')),
	('{SELECT}', format('SELECT cqrs_es.release_batch(%L)', :'batch')),
	('{SELECT}', format('SELECT cqrs_es.ack_events(%L)', :'batch')),
	('{INSERT,SELECT}', $$SELECT cqrs_es.receive_message('rights', 'a')$$),
	('{EXECUTE}', $$SELECT cqrs_es.create_aggregate('more')$$),
	('{EXECUTE}', $$SELECT cqrs_es.alter_aggregate('rights', snapshot_every => 5)$$),
	('{EXECUTE}', $$SELECT cqrs_es.drop_aggregate('rights', force => true)$$),
	('{EXECUTE}', $$SELECT cqrs_es.create_boundary('more', '[{"tags": ["x"]}]')$$),
	('{EXECUTE}', $$SELECT cqrs_es.alter_boundary('bounded', snapshot_every => 5)$$),
	('{EXECUTE}', $$SELECT cqrs_es.drop_boundary('bounded')$$),
	('{EXECUTE}', $$SELECT cqrs_es.define_reducer('rights', 'e', '[]'::jsonb)$$),
	('{EXECUTE}', $$SELECT cqrs_es.define_reducer('rights', 'e', '[]'::text)$$),
	('{EXECUTE}', $$SELECT cqrs_es.define_reducer('rights', 'e', 'reduce(jsonb, cqrs_es.event)'::regprocedure)$$),
	('{EXECUTE}', $$SELECT cqrs_es.drop_reducer('rights', 'old')$$),
	('{EXECUTE}', $$SELECT cqrs_es.define_upcaster('e', '1', '2', 'up(jsonb)')$$),
	('{EXECUTE}', $$SELECT cqrs_es.drop_upcaster('old', '1')$$),
	('{EXECUTE}', $$SELECT cqrs_es.define_tags('e', 'a')$$),
	('{EXECUTE}', $$SELECT cqrs_es.drop_tags('old', true)$$),
	('{EXECUTE}', $$SELECT cqrs_es.define_command('rights', 'More', '''[]''::jsonb')$$),
	('{EXECUTE}', $$SELECT cqrs_es.define_command('rights', 'More', 'decide(jsonb, jsonb)'::regprocedure)$$),
	('{EXECUTE}', $$SELECT cqrs_es.drop_command('rights', 'Go')$$),
	('{EXECUTE}', $$SELECT cqrs_es.create_projection('more')$$),
	('{EXECUTE}', $$SELECT cqrs_es.define_handler('theirs', 'e', 'INSERT INTO own VALUES (event.aggregate_id, 1)')$$),
	('{EXECUTE}', $$SELECT cqrs_es.drop_handler('theirs', 'old')$$),
	('{EXECUTE}', $$SELECT cqrs_es.alter_projection('theirs')$$),
	('{EXECUTE,SELECT}', $$SELECT cqrs_es.rebuild_projection('theirs')$$),
	('{EXECUTE,SELECT}', $$SELECT cqrs_es.retry_skipped('theirs')$$),
	('{EXECUTE,SELECT}', $$SELECT cqrs_es.pause_projection('theirs')$$),
	('{EXECUTE,SELECT}', $$SELECT cqrs_es.resume_projection('theirs')$$),
	('{EXECUTE,SELECT}', $$SELECT cqrs_es.promote_projection('newer', 'theirs')$$),
	('{EXECUTE}', $$SELECT cqrs_es.projection_errors('theirs')$$),
	('{EXECUTE}', $$SELECT cqrs_es.last_position()$$),
	('{EXECUTE}', $$SELECT cqrs_es.known_settled_position()$$),
	('{EXECUTE}', $$SELECT cqrs_es.log_size()$$),
	('{EXECUTE}', $$SELECT cqrs_es.drop_projection('theirs')$$),
	('{EXECUTE,SELECT}', $$SELECT cqrs_es.create_subscription('more')$$),
	('{EXECUTE}', $$SELECT cqrs_es.alter_subscription('subscribed')$$),
	('{EXECUTE}', $$SELECT cqrs_es.pause_subscription('subscribed')$$),
	('{EXECUTE}', $$SELECT cqrs_es.resume_subscription('subscribed')$$),
	('{EXECUTE}', $$SELECT cqrs_es.reset_subscription('subscribed', 0)$$),
	('{EXECUTE}', $$SELECT cqrs_es.redrive('subscribed')$$),
	('{EXECUTE}', $$SELECT cqrs_es.discard_dead_letter(1, 'seen')$$),
	('{EXECUTE}', $$SELECT cqrs_es.drop_subscription('subscribed')$$),
	('{}', $$SELECT cqrs_es.sees_subscription('subscribed', true)$$),
	('{}', $$SELECT cqrs_es.subscription_lag_events('subscribed')$$),
	('{}', $$SELECT cqrs_es.subscription_lag('subscribed')$$),
	('{}', $$SELECT cqrs_es.subscription_obstacle('subscribed')$$),
	('{}', $$SELECT cqrs_es.subscription_seen('subscribed')$$),
	('{}', $$SELECT FROM cqrs_es.subscription_status$$),
	('{}', $$SELECT FROM cqrs_es.subscription_consumers$$),
	('{}', $$SELECT FROM cqrs_es.subscription_dead_letters$$),
	('{}', $$SELECT FROM cqrs_es.subscription_parked_streams$$),
	-- for the owner alone, and for importers
	('{OWNER}', $$SELECT cqrs_es.import_events('own')$$),
	('{OWNER}', $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at) VALUES ('rights', 'a', 'e', '{}', now())$$),
	-- for the owner alone
	('{OWNER}', $$SELECT cqrs_es.redact_stream('rights', 'a', '{/payload/none}', 'r')$$),
	('{EXECUTE}', $$SELECT cqrs_es.define_personal_data('none', '/id', '{/name}')$$),
	('{OWNER}', $$SELECT cqrs_es.rotate_master_key()$$),
	('{OWNER}', $$SELECT cqrs_es.forget_subject('nobody', 'r')$$),
	('{EXECUTE}', $$SELECT cqrs_es.drop_personal_data('none', if_exists => true)$$),
	('{OWNER}', $$SELECT cqrs_es.reveal_personal_data(ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::cqrs_es.event)$$),
	('{OWNER}', $$SELECT cqrs_es.close_stream('rights', 'a', 'r')$$),
	('{OWNER}', $$SELECT cqrs_es.reopen_stream('rights', 'a', 'r')$$),
	('{OWNER}', $$SELECT cqrs_es.redact_event(1, '{/payload/none}', 'r')$$),
	('{OWNER}', $$SELECT cqrs_es.delete_stream('rights', 'a', 'r')$$),
	('{OWNER}', $$SELECT cqrs_es.after_failover()$$),
	('{OWNER}', $$SELECT cqrs_es.publish_settled()$$),
	('{OWNER}', $$SELECT cqrs_es.publish_log()$$),
	('{OWNER}', $$SELECT cqrs_es.unpublish_log()$$),
	('{OWNER}', $$SELECT cqrs_es.hand_over_log()$$),
	('{OWNER}', $$SELECT cqrs_es.take_back_log()$$),
	('{OWNER}', $$SELECT cqrs_es.follow_log('host=/nowhere')$$),
	('{OWNER}', $$SELECT cqrs_es.take_over_log()$$),
	('{OWNER}', $$SELECT cqrs_es.verify_log()$$),
	('{OWNER}', $$SELECT cqrs_es.seal()$$),
	('{OWNER}', $$SELECT cqrs_es.verify_seals()$$),
	('{OWNER}', $$SELECT cqrs_es.note_change(NULL, NULL, NULL)$$),
	('{OWNER}', $$SELECT cqrs_es.own_log()$$),
	('{OWNER}', $$SELECT cqrs_es.partition_log(NULL)$$),
	('{OWNER}', $$SELECT cqrs_es.keep_partitions()$$),
	('{OWNER}', $$SELECT cqrs_es.archive_events(NULL, NULL)$$),
	('{OWNER}', $$SELECT cqrs_es.complete_partition(NULL)$$),
	('{OWNER}', $$SELECT cqrs_es.distribute()$$),
	('{OWNER}', $$SELECT cqrs_es.on_all_nodes('SELECT 1')$$),
	('{OWNER}', $$SELECT cqrs_es.admit_nodes()$$),
	('{OWNER}', $$SELECT cqrs_es.distribute_read_model(NULL, NULL)$$),
	('{OWNER}', $$SELECT cqrs_es.declarations_here(true)$$),
	('{OWNER}', $$SELECT cqrs_es.grant_usage_on_workers()$$),
	('{OWNER}', $$SELECT cqrs_es.receive_declarations('{}')$$),
	('{OWNER}', $$SELECT cqrs_es.distribution_status()$$),
	('{SELECT}', $$SELECT cqrs_es.read_shards()$$),
	('{}', $$SELECT cqrs_es.merge_positions('{}', '{1}')$$),
	('{OWNER}', $$SELECT cqrs_es.distribution_obstacle()$$),
	('{}', $$SELECT cqrs_es.home_of('a')$$),
	('{OWNER}', $$SELECT cqrs_es.tenants()$$),
	('{OWNER}', $$SELECT cqrs_es.read_all(all_tenants => true)$$),
	('{OWNER}', $$SELECT cqrs_es.read_page(all_tenants => true)$$),
	('{OWNER}', $$SET LOCAL cqrs_es.require_tenant = on$$),
	('{OWNER}', $$UPDATE cqrs_es.events SET payload = '{}' WHERE false$$),
	('{OWNER}', $$DELETE FROM cqrs_es.events WHERE false$$),
	('{OWNER}', $$TRUNCATE cqrs_es.events$$),
	('{OWNER}', $$SELECT nextval('cqrs_es.events_global_position_seq')$$),
	('{OWNER}', $$SELECT setval('cqrs_es.events_global_position_seq', 1)$$),
	('{OWNER}', $$SELECT last_value FROM cqrs_es.events_global_position_seq$$),
	('{OWNER}', $$CREATE TRIGGER t BEFORE INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()$$),
	('{OWNER}', $$CREATE POLICY p ON cqrs_es.events USING (true)$$),
	('{OWNER}', $$ALTER POLICY tenant_isolation ON cqrs_es.events USING (true)$$),
	('{OWNER}', $$ALTER TABLE cqrs_es.events DISABLE ROW LEVEL SECURITY$$),
	('{OWNER}', $$ALTER TABLE cqrs_es.events DISABLE TRIGGER ALL$$),
	('{OWNER}', $$CREATE RULE r AS ON DELETE TO cqrs_es.events DO INSTEAD NOTHING$$),
	('{OWNER}', $$CREATE TABLE cqrs_es.mine ()$$),
	('{OWNER}', $$CREATE FUNCTION cqrs_es.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'$$),
	('{OWNER}', $$SET LOCAL cqrs_es.tenant_id = 'x'$$),
	('{OWNER}', $$SET LOCAL cqrs_es.node_id = 1$$),
	('{OWNER}', $$SELECT cqrs_es.function_body(0)$$),
	('{OWNER}', $$SELECT cqrs_es.check_declared('ddl_command_start')$$),
	('{OWNER}', $$SET LOCAL session_replication_role = replica$$);
INSERT INTO calls (needs, call)
	SELECT '{OWNER}'::text[], format('SELECT FROM %s', oid::regclass) FROM pg_class
	WHERE relnamespace = 'cqrs_es'::regnamespace AND relkind IN ('r', 'v') AND relname <> 'events' AND NOT (relkind = 'v' AND relname ~ '^subscription_')
	UNION ALL SELECT '{OWNER}', format('INSERT INTO %s DEFAULT VALUES', oid::regclass) FROM pg_class
	WHERE relnamespace = 'cqrs_es'::regnamespace AND relkind = 'r' AND relname <> 'events'
	UNION ALL SELECT '{OWNER}', format('SELECT %s()', oid::regproc) FROM pg_proc
	WHERE pronamespace = 'cqrs_es'::regnamespace AND prorettype IN ('trigger'::regtype, 'event_trigger'::regtype);
GRANT SELECT ON calls TO PUBLIC;

SELECT is_empty($$SELECT proname FROM pg_proc WHERE pronamespace = 'cqrs_es'::regnamespace AND proname NOT IN ('reject', 'lost_by_dump', 'append_support') AND prokind <> 'p'
	AND NOT EXISTS (SELECT FROM calls WHERE call ~ format('^SELECT (cqrs_es\.)?%s\(', proname))$$,
	'every function is called below, but reject, which does nothing but raise, one for an event trigger and one for the planner');
SELECT is_empty($$SELECT proname FROM pg_proc WHERE pronamespace = 'cqrs_es'::regnamespace AND prokind = 'p'
	AND proname NOT IN ('wait_for_events', 'wait_until_settled', 'wait_for_projection') AND has_function_privilege('cqrs_es_writer', oid, 'EXECUTE')$$,
	'procedures, which cannot be called in a function, are closed, but those that only wait');

SELECT bag_eq(format($$SELECT call, pg_temp.state_as(%L, call) FROM calls$$, role),
	format($$SELECT call, CASE WHEN needs <@ %L::text[] THEN 'allowed'
		ELSE 'refused' END FROM calls$$, rights), format('what a role with %s may do', title))
FROM (VALUES (0, 'cqrs_es_outsider', NULL, 'no right at all'),
	(1, 'cqrs_es_nobody', '{}', 'USAGE on the schema'),
	(2, 'cqrs_es_column', '{}', 'rights on columns of the log'),
	(3, 'cqrs_es_reader', '{SELECT}', 'SELECT on the log'),
	(4, 'cqrs_es_blind', '{INSERT}', 'INSERT on the log'),
	(5, 'cqrs_es_writer', '{SELECT,INSERT}', 'SELECT and INSERT on the log'),
	(6, 'cqrs_es_architect', '{EXECUTE}', 'EXECUTE on what defines')) r (n, role, rights, title)
ORDER BY n;
GRANT SELECT ON cqrs_es.events TO cqrs_es_architect;
SELECT bag_eq($$SELECT call, pg_temp.state_as('cqrs_es_architect', call) FROM calls$$,
	$$SELECT call, CASE WHEN needs <@ '{EXECUTE,SELECT}' THEN 'allowed' ELSE 'refused' END FROM calls$$, 'and with SELECT on the log as well');
REVOKE SELECT ON cqrs_es.events FROM cqrs_es_architect;

-- A handler runs with its definer's rights, and lets nobody do more than it says.

CREATE SCHEMA cqrs_es_trap;
GRANT ALL ON SCHEMA cqrs_es_trap TO cqrs_es_writer;
CREATE TABLE vault (id text, n numeric, who text);
CREATE DOMAIN amount AS numeric CHECK (VALUE < 1000);
CREATE FUNCTION keep_setting() RETURNS text LANGUAGE sql AS
	'SELECT set_config(''cqrs_es.tenant_id'', ''taken'', false) || set_config(''cqrs_es.context'', ''{"a": 1}'', false) || set_config(''work_mem'', ''1MB'', false)';
CREATE FUNCTION become_superuser() RETURNS text LANGUAGE sql AS 'SELECT set_config(''role'', ''none'', false)';
CREATE FUNCTION who_is_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.who := current_user = session_user;
	RETURN NEW;
END $$;
CREATE TRIGGER who BEFORE INSERT ON vault FOR EACH ROW EXECUTE FUNCTION who_is_it();
SELECT cqrs_es.create_projection('vault', '{rights}', '{vault}'),
	cqrs_es.define_handler('vault', 'Kept', 'INSERT INTO vault (id, n) VALUES (event.aggregate_id, lower(event.payload->>''n'')::amount + 1)'),
	cqrs_es.define_handler('vault', 'Unpacked', 'INSERT INTO vault (id, n) SELECT event.aggregate_id, r.n FROM jsonb_to_record(event.payload) AS r (n amount)'),
	cqrs_es.define_handler('vault', 'Set', 'INSERT INTO vault (id) VALUES (keep_setting())'),
	cqrs_es.define_handler('vault', 'Become', 'INSERT INTO vault (id) VALUES (become_superuser())'),
	cqrs_es.define_handler('vault', 'Failed', 'INSERT INTO vault (n) VALUES (1 / (event.payload->>''n'')::int)'),
	cqrs_es.define_command('rights', 'Look', 'jsonb_build_object(''type'', ''Seen'', ''payload'', (SELECT count(*) FROM vault WHERE n < 5::amount))'),
	cqrs_es.define_command('rights', 'Set', 'jsonb_build_object(''type'', ''Seen'', ''payload'', keep_setting())') \gset

SELECT is(pg_temp.state_as('cqrs_es_writer', call), expected, call) FROM (VALUES
	(1, $$SELECT cqrs_es.append_event('rights', 'v', 'Kept', '{"n": "5"}')$$, 'allowed'),
	(2, $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('rights', 'v', 'Kept', '{"n": "5"}')$$, 'allowed'),
	(3, $$SELECT cqrs_es.execute_command('rights', 'v', 'Look')$$, 'allowed'),
	(4, $$SELECT FROM vault$$, 'refused'),
	(5, $$INSERT INTO vault VALUES ('x', 1)$$, 'refused'),
	(6, $$SELECT cqrs_es.append_event('rights', 'v', 'Become', '{}')$$, 'QE201 projection "vault" failed on event 1 (Become) of stream "rights/v"'),
	(7, $$SELECT cqrs_es.append_event('rights', 'v', 'Kept', '{"n": "5; DELETE FROM vault"}')$$, 'QE201 projection "vault" failed on event 1 (Kept) of stream "rights/v"')) c (n, call, expected)
ORDER BY n;

-- traps in the session: objects, operators and types that stand before those that were meant
SET LOCAL ROLE cqrs_es_writer;
CREATE FUNCTION cqrs_es_trap.spring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'the trap ran as %', current_user USING ERRCODE = 'P0666';
END $$;
CREATE FUNCTION cqrs_es_trap.spring(anyelement) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'the trap ran as %', current_user USING ERRCODE = 'P0666';
END $$;
CREATE FUNCTION cqrs_es_trap.spring(jsonb, text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'the trap ran as %', current_user USING ERRCODE = 'P0666';
END $$;
CREATE FUNCTION cqrs_es_trap.lower(text) RETURNS text LANGUAGE sql AS 'SELECT cqrs_es_trap.spring(''{}''::jsonb, $1)';
CREATE OPERATOR cqrs_es_trap.->> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = cqrs_es_trap.spring);
CREATE TABLE cqrs_es_trap.vault (id text, n numeric);
CREATE TRIGGER spring BEFORE INSERT ON cqrs_es_trap.vault FOR EACH ROW EXECUTE FUNCTION cqrs_es_trap.spring();
CREATE DOMAIN cqrs_es_trap.amount AS numeric CHECK (cqrs_es_trap.spring(VALUE));
CREATE TABLE cqrs_es_trap.events (LIKE cqrs_es.events);
CREATE TEMP TABLE vault (id text, n numeric);
CREATE TRIGGER spring BEFORE INSERT ON pg_temp.vault FOR EACH ROW EXECUTE FUNCTION cqrs_es_trap.spring();
CREATE TEMP TABLE events (LIKE cqrs_es.events);
CREATE TEMP TABLE snapshots (LIKE cqrs_es.events);
CREATE DOMAIN pg_temp.amount AS numeric CHECK (cqrs_es_trap.spring(VALUE));
SET LOCAL search_path = pg_temp, cqrs_es_trap, pg_catalog, public;
SELECT version FROM cqrs_es.append_event('rights', 'trap', 'Kept', '{"n": "5"}') \gset
SELECT version FROM cqrs_es.execute_command('rights', 'trap', 'Look') \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('rights', 'trap', 'Kept', '{"n": "6"}');
SELECT is(current_user || current_setting('search_path'), 'cqrs_es_writerpg_temp, cqrs_es_trap, pg_catalog, public', 'the caller is itself again');
SET LOCAL ROLE none;
SET LOCAL search_path = public;
SELECT results_eq($$SELECT id, n, who FROM public.vault WHERE id = 'trap'$$, $$VALUES ('trap', 6::numeric, 'true'), ('trap', 7, 'true')$$,
	'handlers wrote where they were meant to, as who defined them');

-- What they meant is gone, and the traps would be found: in a session that has planned them, and in one that has not.
CREATE FUNCTION pg_temp.failure(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM pg_temp.as_role('cqrs_es_writer', statement);
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws('; ', SQLSTATE, SQLERRM, split_part(detail, E'\n', 1));
END $$;
SELECT pg_temp.as_role('cqrs_es_writer', $$SELECT cqrs_es.append_event('rights', 'planned', 'Kept', '{"n": "5"}'), cqrs_es.execute_command('rights', 'planned', 'Look')$$) \gset
SAVEPOINT dropped;
ALTER EVENT TRIGGER cqrs_es_protect_declared DISABLE;
DROP TABLE public.vault;
ALTER EVENT TRIGGER cqrs_es_protect_declared ENABLE;
SELECT is(pg_temp.failure($$SELECT cqrs_es.append_event('rights', 'trap', 'Kept', '{"n": "5"}')$$),
	'QE201; projection "vault" failed on event 4 (Kept) of stream "rights/trap"; what runs with the rights of its definer cannot use temporary objects (SQLSTATE 42P17)',
	'a read model was dropped: a temporary table does not take its place');
SELECT is(pg_temp.failure($$SELECT cqrs_es.execute_command('rights', 'trap', 'Look')$$),
	'42P17; what runs with the rights of its definer cannot use temporary objects; A name in it now stands for a temporary object of this session.',
	'nor in a decider');
UPDATE cqrs_es.projections SET read_models = NULL, read_model_names = NULL;
SELECT is(pg_temp.failure($$SELECT cqrs_es.append_event('rights', 'trap', 'Kept', '{"n": "5"}')$$),
	'QE201; projection "vault" failed on event 4 (Kept) of stream "rights/trap"; what runs with the rights of its definer cannot use temporary objects (SQLSTATE 42P17)',
	'nor when it is planned for the first time');
ROLLBACK TO dropped;
DROP DOMAIN public.amount;
SELECT is(pg_temp.failure($$SELECT cqrs_es.append_event('rights', 'trap', 'Kept', '{"n": "5"}')$$),
	'QE201; projection "vault" failed on event 4 (Kept) of stream "rights/trap"; what runs with the rights of its definer cannot use temporary objects (SQLSTATE 42P17)',
	'a domain was dropped: a temporary one does not take its place');
SELECT is(pg_temp.failure($$SELECT cqrs_es.append_event('rights', 'trap', 'Unpacked', '{"n": 5}')$$),
	'QE201; projection "vault" failed on event 4 (Unpacked) of stream "rights/trap"; what runs with the rights of its definer cannot use temporary objects (SQLSTATE 42P17)',
	'nor in a column list');
SELECT is(pg_temp.failure($$SELECT cqrs_es.execute_command('rights', 'trap', 'Look')$$),
	'42P17; what runs with the rights of its definer cannot use temporary objects; A name in it now stands for a temporary object of this session.',
	'nor in a constant');
ROLLBACK TO dropped;
SELECT is(pg_temp.failure($$SELECT cqrs_es.append_event('rights', 'trap', 'Kept', '{"n": "5"}')$$), 'no error', 'with all that is meant it goes on');

-- what a handler or a decider sets is gone when it ends; so are its rights, also when it fails
SELECT pg_temp.as_role('cqrs_es_writer', $$SELECT cqrs_es.append_event('rights', 'set', 'Set', '{}')$$) \gset
SELECT pg_temp.as_role('cqrs_es_writer', $$SELECT cqrs_es.execute_command('rights', 'set', 'Set')$$) \gset
SELECT is(cqrs_es.current_tenant() || current_setting('cqrs_es.context') || (current_setting('work_mem') = '1MB'), 'false',
	'settings are those of the caller');
SET LOCAL ROLE cqrs_es_writer;
SELECT throws_ok($$SELECT cqrs_es.append_event('rights', 'set', 'Failed', '{"n": 0}')$$, 'QE201', NULL, 'a handler fails');
SELECT is(current_user, 'cqrs_es_writer', 'the caller is itself again');
SET LOCAL ROLE none;

-- A non-superuser defines projections over tables it owns, and not over those of others.

SET LOCAL client_min_messages = error; -- it warns of a table that two keep
SELECT is(pg_temp.state_as('cqrs_es_architect', call), expected, call) FROM (VALUES
	(1, $$SELECT cqrs_es.create_projection('p', NULL, '{own}')$$, 'allowed'),
	(2, $$SELECT cqrs_es.create_projection('p', NULL, '{own,others}')$$, 'refused'),
	(3, $$SELECT cqrs_es.create_projection('p', NULL, '{cqrs_es.events}')$$, 'refused'),
	(4, $$SELECT cqrs_es.define_handler('theirs', 'e', 'INSERT INTO own VALUES (event.aggregate_id, 1)')$$, 'allowed'),
	(5, $$SELECT cqrs_es.define_handler('theirs', 'e', 'INSERT INTO others VALUES (event.aggregate_id, 1)')$$, 'refused'),
	(6, $$SELECT cqrs_es.define_handler('theirs', 'e', 'INSERT INTO own SELECT id, n FROM others')$$, 'refused'),
	(7, $$SELECT cqrs_es.define_handler('theirs', 'e', 'UPDATE others SET n = 1')$$, 'refused'),
	(8, $$SELECT cqrs_es.define_handler('theirs', 'e', 'INSERT INTO own SELECT name, 1 FROM cqrs_es.projections')$$, 'refused'),
	(9, $$SELECT cqrs_es.define_handler('vault', 'e', 'INSERT INTO own VALUES (event.aggregate_id, 1)')$$, 'refused'),
	(10, $$SELECT cqrs_es.drop_projection('vault')$$, 'refused'),
	(10, $$SELECT cqrs_es.rebuild_projection('vault')$$, 'refused'),
	(10, $$SELECT cqrs_es.pause_projection('vault')$$, 'refused'),
	(10, $$SELECT cqrs_es.resume_projection('vault')$$, 'refused'),
	(10, $$SELECT cqrs_es.drop_handler('vault', 'Kept')$$, 'refused'),
	(11, $$SELECT cqrs_es.define_command('rights', 'x', '(SELECT to_jsonb(count(*)) FROM own)')$$, 'allowed'),
	(12, $$SELECT cqrs_es.define_command('rights', 'x', '(SELECT to_jsonb(count(*)) FROM others)')$$, 'refused')) c (n, call, expected)
ORDER BY n, call;
SET LOCAL client_min_messages = warning;
SELECT pg_temp.as_role('cqrs_es_architect', $$SELECT cqrs_es.define_handler('theirs', 'Owned', 'INSERT INTO own VALUES (event.aggregate_id, 1)')$$) \gset
SELECT is(pg_temp.state_as('cqrs_es_writer', $$SELECT cqrs_es.append_event('rights', 'o', 'Owned', '{}')$$), 'allowed', 'somebody without rights on the table appends');
SELECT is(pg_temp.state_as('cqrs_es_writer', $$INSERT INTO own VALUES ('x')$$), 'refused', 'and has none');

-- Nor does a definer gain the rights of whoever appends: what the definer wrote leaves nothing behind in the session.

CREATE TABLE tricky (id text);
ALTER TABLE tricky OWNER TO cqrs_es_architect;
CREATE FUNCTION trick() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	CASE NEW.id
		WHEN 'temporary' THEN CREATE TEMP TABLE others (id text);
		WHEN 'search_path' THEN PERFORM set_config('search_path', 'cqrs_es_trap', false);
		WHEN 'role' THEN PERFORM set_config('role', 'cqrs_es_architect', false);
		ELSE NULL;
	END CASE;
	RETURN NEW;
END $$;
CREATE TRIGGER trick BEFORE INSERT ON tricky FOR EACH ROW EXECUTE FUNCTION trick();
CREATE FUNCTION deferred() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON tricky DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
	WHEN (NEW.id = 'deferred') EXECUTE FUNCTION deferred();
SELECT pg_temp.as_role('cqrs_es_architect', $$SELECT cqrs_es.create_projection('tricky', '{trick}', '{tricky}'),
	cqrs_es.define_handler('tricky', 'e', 'INSERT INTO tricky VALUES (event.aggregate_id)')$$) \gset
CREATE FUNCTION pg_temp.trick_by(role text, id text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM pg_temp.as_role(role, format('SELECT cqrs_es.append_event(''trick'', %L, ''e'', ''{}'')', id));
	RETURN current_setting('search_path') || ' ' || (current_user = session_user);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN detail;
END $$;
SELECT is(pg_temp.trick_by(role, id), expected, format('%s appends, a lesser definer tries: %s', CASE role WHEN 'none' THEN 'a superuser' ELSE role END, id))
FROM (VALUES ('none'), ('cqrs_es_writer')) r (role), (VALUES
	(1, 'temporary', 'cannot create temporary table within security-restricted operation (SQLSTATE 42501)'),
	(2, 'deferred', 'cannot fire deferred trigger within security-restricted operation (SQLSTATE 42501)'),
	(3, 'role', 'cannot set parameter "role" within security-definer function (SQLSTATE 42501)'),
	(4, 'search_path', 'public true'),
	(5, 'nothing', 'public true')) t (n, id, expected)
ORDER BY role, n;
GRANT cqrs_es_writer TO cqrs_es_architect;
SELECT is(pg_temp.trick_by('cqrs_es_writer', 'deferred'), 'public true', 'a definer who has the appender''s rights anyway may');
CREATE SCHEMA cqrs_es_closed AUTHORIZATION cqrs_es_architect;
SELECT pg_temp.as_role('cqrs_es_architect', $$CREATE TABLE cqrs_es_closed.states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL)$$),
	pg_temp.as_role('cqrs_es_architect', $$SELECT cqrs_es.create_projection('states', read_models => '{cqrs_es_closed.states}', state_of => 'rights')$$) \gset
SELECT is(pg_temp.state_as('cqrs_es_writer', $$SELECT cqrs_es.append_event('rights', 's', 'Stated', '{}')$$), 'allowed', 'states are kept in a schema that the writer cannot look into');
GRANT SELECT ON cqrs_es.projection_status TO cqrs_es_architect, cqrs_es_reader;
SELECT is(pg_temp.state_as('cqrs_es_architect', 'SELECT errors FROM cqrs_es.projection_status'), 'allowed', 'a view of ours may be granted to who has EXECUTE on its function');
SELECT is(pg_temp.state_as('cqrs_es_reader', 'SELECT errors FROM cqrs_es.projection_status'), 'refused', 'and not to others');
SELECT finish();
ROLLBACK;

DROP OWNED BY cqrs_es_outsider, cqrs_es_nobody, cqrs_es_reader, cqrs_es_blind, cqrs_es_column, cqrs_es_writer, cqrs_es_architect;
SELECT cqrs_es.drop_subscription('consumed') IS NULL AS x \gset
DROP ROLE cqrs_es_consumers, cqrs_es_outsider, cqrs_es_nobody, cqrs_es_reader, cqrs_es_blind, cqrs_es_column, cqrs_es_writer, cqrs_es_architect;
