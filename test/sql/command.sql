\i test/include/setup.sql
-- Commands: defining, deciding, rejecting, repeating, and who may do what.
BEGIN;
SELECT plan(69);

CREATE FUNCTION pg_temp.execute(id text, command_type text, payload jsonb DEFAULT '{}', expected bigint DEFAULT NULL, command_id uuid DEFAULT NULL)
RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', version, global_position IS NOT NULL, state)
	FROM cqrs_es.execute_command('command', id, command_type, payload, expected, command_id => command_id)
$$;
CREATE FUNCTION pg_temp.stream(id text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(event_type || ' ' || payload, ', ' ORDER BY sequence) FROM cqrs_es.read_stream('command', id)
$$;

-- defining

SELECT cqrs_es.create_aggregate('command', '{"balance": 0}', snapshot_every => 3) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('command', 'Deposited', '[{"op": "increment", "path": "/balance", "from": "/amount"}]') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('command', 'Withdrawn', '[{"op": "decrement", "path": "/balance", "from": "/amount"}]') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.define_command('command', 'Deposit', $d$
	jsonb_build_object('type', 'Deposited', 'payload', jsonb_build_object('amount', command->'amount'))$d$)$$, 'an expression that gives one event');
SELECT lives_ok($$SELECT cqrs_es.define_command('command', 'Withdraw', $d$
	CASE WHEN (command->>'amount')::numeric > (state->>'balance')::numeric THEN cqrs_es.reject('funds not available', 'NSF')
	ELSE jsonb_build_array(jsonb_build_object('type', 'Withdrawn', 'payload', command)) END$d$)$$, 'one that may reject');
SELECT lives_ok($$SELECT cqrs_es.define_command('command', 'Nothing', $d$'[]'::jsonb$d$)$$, 'one from which nothing follows');
SELECT lives_ok($$SELECT cqrs_es.define_command('command', 'Show', $d$
	jsonb_build_object('type', 'Shown', 'payload', jsonb_build_object('id', aggregate_id, 'version', version, 'who', metadata->'who'))$d$)$$,
	'aggregate_id, version and metadata');
SELECT lives_ok($$SELECT cqrs_es.define_command('command', 'Both', $d$
	'[{"type": "Deposited", "payload": {"amount": 2}}, {"type": "Withdrawn", "payload": {"amount": 1}, "metadata": {"why": "fee"}, "version": "2"}]'::jsonb$d$)$$,
	'several events');
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF command ? 'amount' THEN
		RETURN jsonb_build_object('type', 'Deposited', 'payload', command);
	END IF;
	RETURN cqrs_es.reject('no amount');
END $$;
SELECT lives_ok($$SELECT cqrs_es.define_command('command', 'Function', 'decide(jsonb, jsonb)'::regprocedure)$$, 'a function');
SELECT throws_ok(format('SELECT cqrs_es.define_command(%s)', args), state, NULL, format('%s: define_command(%s)', state, args))
FROM (VALUES (1, '42804', $$'command', 'x', ''$$),
	(2, '42601', $$'command', 'x', '1); DROP TABLE x; --'$$),
	(3, '42601', $$'command', 'x', 'CASE'$$),
	(4, '42703', $$'command', 'x', 'payload'$$),
	(5, '42804', $$'command', 'x', '1'$$),
	(6, '42804', $$'command', 'x', 'state, command'$$),
	(7, '42883', $$'command', 'x', 'no_such_function(state)'$$),
	(8, '42P13', $$'command', 'x', 'pg_catalog.now()'::regprocedure$$),
	(9, 'QE101', $$'undeclared', 'x', 'state'$$),
	(10, '22004', $$NULL, 'x', 'state'$$),
	(11, '22004', $$'command', NULL, 'state'$$),
	(12, '22004', $$'command', 'x', NULL::text$$),
	(13, '22023', $$'command', '', 'state'$$),
	(14, '22001', $$'command', repeat('x', 256), 'state'$$)) AS t (n, state, args)
ORDER BY n;
SELECT is(pg_temp.error_of($$SELECT cqrs_es.define_command('command', 'x', 'jsonb_build_object(''type'', ''e'', ''payload'', state.balance)')$$, '{state,message,hint}'),
	ARRAY['42703', '"state" is JSON, and has no column "balance"', 'Its fields are reached as state->>''balance''.'], 'a field of the state that is written as a column');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.define_command('command', 'x', '(SELECT jsonb_build_object(''type'', state.n) FROM (VALUES (1)) AS state (n))')$$), 'none', 'unless it is one');

-- deciding

SELECT is(pg_temp.execute('a', 'Deposit', '{"amount": 10}'), '1 t {"balance": 10}', 'version, position and state');
SELECT is(pg_temp.execute('a', 'Withdraw', '{"amount": 4.50}'), '2 t {"balance": 5.50}', 'a decision on the state');
SELECT is(pg_temp.execute('a', 'Both'), '4 t {"balance": 6.50}', 'several events at once');
SELECT is(pg_temp.execute('a', 'Nothing'), '4 f {"balance": 6.50}', 'nothing happens');
SELECT is(pg_temp.execute('new', 'Nothing'), '0 f {"balance": 0}', 'nor to one that is not there');
SELECT is(pg_temp.execute('a', 'Function', '{"amount": 1}'), '5 t {"balance": 7.50}', 'a function decides');
SELECT is(pg_temp.stream('a'), 'Deposited {"amount": 10}, Withdrawn {"amount": 4.50}, Deposited {"amount": 2}, Withdrawn {"amount": 1}, Deposited {"amount": 1}',
	'the events are in the log');
SELECT is(cqrs_es.aggregate_state('command', 'a'), '{"balance": 7.50}', 'the returned state is that of a replay');
SELECT is(last_sequence, 3::bigint, 'snapshots follow') FROM cqrs_es.snapshots WHERE aggregate_type = 'command' AND aggregate_id = 'a';
SELECT is(event_version || ' ' || (metadata->>'why'), '2 fee', 'an event''s own version and metadata')
FROM cqrs_es.read_stream('command', 'a', 4, 1);
SELECT is((SELECT payload FROM cqrs_es.execute_command('command', 'b', 'Show', metadata => '{"who": "ada"}') AS r, cqrs_es.read_stream('command', 'b')),
	'{"id": "b", "who": "ada", "version": 0}', 'what the decider sees');
SELECT throws_ok($$SELECT pg_temp.execute('a', 'Deposit', '{"amount": 1}', 3)$$, 'QE001', NULL, 'a stale expected version');
SELECT is(pg_temp.execute('a', 'Deposit', '{"amount": 1}', 5), '6 t {"balance": 8.50}', 'the right one');
SELECT throws_ok($$SELECT pg_temp.execute('a', 'Deposit', '{"amount": 1}', 0)$$, 'QE001', NULL, '0: it must not exist');
SELECT throws_ok($$SELECT pg_temp.execute('c', 'Deposit', '{"amount": 1}', -1)$$, 'QE001', NULL, '-1: it must exist');

-- rejecting

DO $$
DECLARE
	code text;
	hint text;
	context text;
BEGIN
	PERFORM pg_temp.execute('a', 'Withdraw', '{"amount": 100}');
EXCEPTION WHEN SQLSTATE 'QE301' THEN
	GET STACKED DIAGNOSTICS code = CONSTRAINT_NAME, hint = MESSAGE_TEXT, context = PG_EXCEPTION_CONTEXT;
	PERFORM set_config('test.rejected', concat_ws('/', code, hint, context LIKE 'command "Withdraw" for stream "command/a"%'), false);
END $$;
SELECT is(current_setting('test.rejected'), 'NSF/funds not available/t', 'message, code, and first of all which command');
SELECT throws_ok($$SELECT pg_temp.execute('a', 'Function')$$, 'QE301', 'no amount', 'from within a function');
SELECT throws_ok($$SELECT cqrs_es.reject(NULL)$$, 'QE301', 'command rejected', 'without a message');
SELECT is(cqrs_es.stream_version('command', 'a'), 6::bigint, 'nothing was written');

-- ids

SELECT is(pg_temp.execute('r', 'Deposit', '{"amount": 1}', command_id => '00000000-0000-0000-0000-00000000000a'), '1 t {"balance": 1}', 'a command with an id');
SELECT is(pg_temp.execute('r', 'Deposit', '{"amount": 5}'), '2 t {"balance": 6}', 'another one');
SELECT is(pg_temp.execute('r', 'Deposit', '{"amount": 1}', command_id => '00000000-0000-0000-0000-00000000000a'), '1 t {"balance": 1}', 'the first again: its first result');
SELECT is(pg_temp.execute('r', 'Deposit', '{"amount": 1}', 0, '00000000-0000-0000-0000-00000000000a'), '1 t {"balance": 1}', 'also with the version it was sent with');
SELECT is(cqrs_es.stream_version('command', 'r'), 2::bigint, 'and it did nothing');
SELECT is(metadata - 'command_digest', '{"command_id": "00000000-0000-0000-0000-00000000000a", "causation_id": "00000000-0000-0000-0000-00000000000a", "correlation_id": "00000000-0000-0000-0000-00000000000a"}',
	'its events carry the id') FROM cqrs_es.read_stream('command', 'r', 1, 1);
SELECT lives_ok($$SELECT cqrs_es.define_command('command', 'Signed', $d$'{"type": "Deposited", "payload": {"amount": 1}, "metadata": {"command_id": "mine", "correlation_id": "mine", "by": "me"}}'::jsonb$d$)$$,
	'an event that names a command itself');
SELECT is(pg_temp.execute('r2', 'Signed', command_id => '00000000-0000-0000-0000-00000000000c'), pg_temp.execute('r2', 'Signed', command_id => '00000000-0000-0000-0000-00000000000c'),
	'is recognized when the command is sent again');
SELECT is(metadata - 'command_digest', '{"by": "me", "command_id": "00000000-0000-0000-0000-00000000000c", "causation_id": "00000000-0000-0000-0000-00000000000c", "correlation_id": "mine"}',
	'since it carries the id of its command') FROM cqrs_es.read_stream('command', 'r2', 1, 1);
SELECT is((SELECT metadata - 'command_digest' FROM cqrs_es.execute_command('command', 'r3', 'Deposit', '{"amount": 1}', metadata => NULL, command_id => '00000000-0000-0000-0000-00000000000d') AS r, cqrs_es.read_stream('command', 'r3')),
	'{"command_id": "00000000-0000-0000-0000-00000000000d", "causation_id": "00000000-0000-0000-0000-00000000000d", "correlation_id": "00000000-0000-0000-0000-00000000000d"}', 'also one without metadata');
SET LOCAL cqrs_es.context = '{"correlation_id": "request 7", "user": "ada"}';
SELECT is(pg_temp.execute('r', 'Deposit', '{"amount": 1}', command_id => '00000000-0000-0000-0000-00000000000b'), '3 t {"balance": 7}', 'in a context');
SELECT is(metadata - 'command_id' - 'command_digest', '{"user": "ada", "causation_id": "00000000-0000-0000-0000-00000000000b", "correlation_id": "request 7"}',
	'the correlation id is that of the context') FROM cqrs_es.read_stream('command', 'r', 3, 1);
RESET cqrs_es.context;

-- changing one's mind, and bad results

SELECT lives_ok($$SELECT cqrs_es.define_command('command', 'Deposit', $d$'{"type": "Deposited", "payload": {"amount": 1000}}'::jsonb$d$)$$, 'defined anew');
SELECT is(pg_temp.execute('n', 'Deposit'), '1 t {"balance": 1000}', 'and used at once');
SELECT is(cqrs_es.drop_command('command', 'Nothing')::text, '', 'dropped');
SELECT throws_ok($$SELECT pg_temp.execute('a', 'Nothing')$$, 'QE302', NULL, 'it is not there any more');
SELECT throws_ok($$SELECT cqrs_es.execute_command('undeclared', 'a', 'x')$$, 'QE101', NULL, 'an undeclared aggregate');
SELECT lives_ok($$SELECT cqrs_es.define_command('command', 'Raw', 'command->''raw''')$$, 'whatever the command says');
SELECT throws_ok(format($$SELECT pg_temp.execute('a', 'Raw', '%s')$$, payload), state, NULL, format('%s: %s', state, payload))
FROM (VALUES (1, '22004', '{}'), (2, '22023', '{"raw": 1}'), (3, '22023', '{"raw": [1]}'), (4, '22023', '{"raw": {"payload": {}}}'),
	(5, '22023', '{"raw": {"type": "x", "payload": 1, "typo": 1}}'), (6, '22023', '{"raw": null}')) AS t (n, state, payload)
ORDER BY n;
SELECT lives_ok($$SELECT cqrs_es.define_command('command', 'Rows', 'jsonb_array_elements(command)')$$, 'an expression that gives rows');
SELECT throws_ok($$SELECT pg_temp.execute('a', 'Rows', '[]')$$, '22004', 'the decider returned null', 'no row is null, as in a subquery');
SELECT throws_ok($$SELECT pg_temp.execute('a', 'Rows', '[{"type": "x", "payload": 1}, {"type": "y", "payload": 1}]')$$,
	'21000', 'the decider returned more than one row', 'of two rows none is dropped silently');
SELECT is(cqrs_es.stream_version('command', 'a'), 6::bigint, 'none of it was written');
SELECT finish();
ROLLBACK;
