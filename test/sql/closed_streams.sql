\i test/include/setup.sql
-- A closed stream takes nothing more, on any path, until it is opened again.
CREATE TABLE IF NOT EXISTS closed_source AS SELECT 'closed' AS aggregate_type, 'imported' AS aggregate_id, 2 AS sequence, 'e' AS event_type, '{}'::jsonb AS payload, now() AS created_at;
BEGIN;
SELECT plan(38);
SET LOCAL client_min_messages = warning;
CREATE FUNCTION pg_temp.sqlstate_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SELECT FROM cqrs_es.create_aggregate('closed', snapshot_every => 2);
SELECT FROM cqrs_es.define_command('closed', 'Do', $$'{"type": "e", "payload": {"done": true}}'::jsonb$$);
SELECT FROM cqrs_es.define_command('closed', 'Nothing', $$'[]'::jsonb$$);
SELECT FROM cqrs_es.append_event('closed', 'a', 'e', '{"n": 1}', event_id => '00000000-0000-4000-8000-000000000001');
SELECT FROM cqrs_es.append_event('closed', 'open', 'e', '{}');
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.close_stream('closed', 'none', 'r')$$), '42704', 'a stream that is not there');
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.close_stream('closed', 'a', NULL)$$), '22004', 'a reason is needed');
SELECT is(cqrs_es.close_stream('closed', 'a', 'the end'), 2::bigint, 'closed');
SELECT is((SELECT concat_ws(' ', sequence, event_type, payload) FROM cqrs_es.read_stream('closed', 'a', 2)), '2 $closed {"reason": "the end"}', 'by an event');
SELECT is(cqrs_es.stream_version('closed', 'a'), 2::bigint, 'which counts');
SELECT is(cqrs_es.aggregate_state('closed', 'a'), '{"n": 1}', 'and changes no state');
SELECT is(cqrs_es.close_stream('closed', 'a', 'again'), 2::bigint, 'again is nothing');

SELECT is(pg_temp.sqlstate_of(statement), 'QE006', statement) FROM (VALUES
	($$SELECT cqrs_es.append_event('closed', 'a', 'e', '{}')$$),
	($$SELECT cqrs_es.append_event('closed', 'a', 'e', '{}', 2)$$),
	($$SELECT cqrs_es.append_event('closed', 'a', 'e', '{}', 1)$$),
	($$SELECT cqrs_es.append_event('closed', 'a', 'e', '{}', -1)$$),
	($$SELECT cqrs_es.append_events('closed', 'a', '[{"type": "e"}, {"type": "f"}]')$$),
	($$SELECT cqrs_es.append_event_arrays('closed', 'a', '{e}', '{"{}"}')$$),
	($$SELECT * FROM cqrs_es.append_to_streams('[{"type": "e", "aggregate_type": "closed", "aggregate_id": "open", "payload": {}}, {"type": "e", "aggregate_type": "closed", "aggregate_id": "a", "payload": {}}]')$$),
	($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('closed', 'a', 'e', '{}')$$),
	($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload) VALUES ('closed', 'a', 3, 'e', '{}')$$),
	($$SELECT cqrs_es.execute_command('closed', 'a', 'Do')$$)) AS t (statement);
SELECT is(pg_temp.sqlstate_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload) VALUES ('closed', 'a', 1, 'e', '{}')$$), '23505',
	'a sequence that is taken is taken');
SELECT is(cqrs_es.stream_version('closed', 'open'), 1::bigint, 'of several streams none gets anything');
SELECT is((cqrs_es.execute_command('closed', 'a', 'Nothing')).version, 2::bigint, 'a command that appends nothing is decided');
SELECT is((cqrs_es.append_event('closed', 'a', 'e', '{"n": 1}', event_id => '00000000-0000-4000-8000-000000000001')).version, 1::bigint, 'what is sent again was there before');
SELECT throws_ok($$SELECT cqrs_es.append_event('closed', 'a', 'e', '{}')$$, 'QE006', 'stream "closed/a" is closed', 'the message');
CREATE FUNCTION pg_temp.fields(OUT fields text) LANGUAGE plpgsql AS $$
DECLARE a text; b text; c text;
BEGIN
	PERFORM cqrs_es.append_event('closed', 'a', 'e', '{}');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS a = SCHEMA_NAME, b = TABLE_NAME, c = COLUMN_NAME;
	fields := concat_ws(' ', a, b, c);
END $$;
SELECT is(pg_temp.fields(), 'closed a 2', 'and its fields: the stream, its version');

-- import, COPY, handlers
SELECT FROM cqrs_es.append_event('closed', 'imported', 'e', '{}');
SELECT FROM cqrs_es.close_stream('closed', 'imported', 'r');
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.import_events('closed_source')$$), '23505', 'an import finds another event in its place');
CREATE TABLE followed (n int);
SELECT FROM cqrs_es.create_projection('followers', '{starter}', '{followed}');
SELECT FROM cqrs_es.define_handler('followers', 'Start', $$INSERT INTO followed SELECT (cqrs_es.append_event('closed', 'a', 'e', '{}')).version$$);
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.append_event('starter', '1', 'Start', '{}')$$), 'QE006', 'nor by a handler');
SELECT FROM cqrs_es.define_handler('followers', 'Start', $$INSERT INTO followed SELECT cqrs_es.close_stream('closed', 'open', 'started')$$);
SELECT FROM cqrs_es.append_event('starter', '1', 'Start', '{}');
SELECT is((SELECT n FROM followed), 2, 'a handler may close one');
SELECT FROM cqrs_es.define_handler('followers', '$closed', $$INSERT INTO followed SELECT (cqrs_es.append_event('closed', 'other', '$mine', '{}')).version$$);
SELECT FROM cqrs_es.alter_projection('followers');
SELECT FROM cqrs_es.append_event('starter', '2', 'e', '{}');
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.close_stream('starter', '2', 'r')$$), 'QE201', 'one that is told appends no event of ours');

-- redacted, and still closed
SELECT is(cqrs_es.redact_stream('closed', 'a', '{/payload/n}', 'wanted'), 1::bigint, 'a closed stream can be redacted');
SELECT is((SELECT string_agg(event_type, ' ' ORDER BY sequence) FROM cqrs_es.read_stream('closed', 'a')), 'e $closed $redacted $closed', 'and is closed behind that');
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.append_event('closed', 'a', 'e', '{}')$$), 'QE006', 'as before');
SELECT is((SELECT payload->>'reason' FROM cqrs_es.read_stream('closed', 'a', 4)), 'the end', 'for the same reason');
SELECT FROM cqrs_es.append_event('closed', 'was open', 'e', '{"n": 1}');
SELECT FROM cqrs_es.redact_stream('closed', 'was open', '{/payload/n}', 'wanted');
SELECT is((cqrs_es.append_event('closed', 'was open', 'e', '{}')).version, 3::bigint, 'one that was open stays open');

-- opened again
SELECT is(cqrs_es.reopen_stream('closed', 'was open', 'r'), 3::bigint, 'one that is not closed is left');
SELECT is(cqrs_es.reopen_stream('closed', 'a', 'a mistake'), 5::bigint, 'a closed one is opened');
SELECT is((cqrs_es.append_event('closed', 'a', 'e', '{"m": 1}', 5)).version, 6::bigint, 'and goes on');
SELECT is(cqrs_es.aggregate_state('closed', 'a'), '{"m": 1}', 'with its state');
SELECT is(cqrs_es.close_stream('closed', 'a', 'now'), 7::bigint, 'to be closed again');

-- tenants
SET LOCAL cqrs_es.tenant_id = 'x';
SELECT is((cqrs_es.append_event('closed', 'a', 'e', '{}')).version, 1::bigint, 'another tenant has a stream of that name');
SELECT * FROM finish();
ROLLBACK;
DROP TABLE closed_source;
