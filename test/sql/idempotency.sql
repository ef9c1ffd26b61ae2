\i test/include/setup.sql
-- Sending again: an append with ids of its own whose answer was lost, with the
-- version that it had itself led to; a command with its id.
BEGIN;
SELECT plan(81);

CREATE FUNCTION pg_temp.id(n integer) RETURNS uuid LANGUAGE sql AS $$
	SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.batch(VARIADIC n integer[]) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_agg(jsonb_build_object('type', 'e', 'payload', i, 'id', pg_temp.id(i)) ORDER BY o)
	FROM unnest(n) WITH ORDINALITY AS u (i, o) $$;
CREATE FUNCTION pg_temp.stream(id text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s:%s', sequence, payload), ' ' ORDER BY sequence) FROM cqrs_es.read_stream('idempotency', id)
$$;
CREATE FUNCTION pg_temp.fill(id text, n integer) RETURNS bigint LANGUAGE sql AS $$
	SELECT version FROM cqrs_es.append_event_arrays('idempotency', id, array_fill('other'::text, ARRAY[n]), array_fill('0'::jsonb, ARRAY[n]))
$$;

-- one event: load, append, no answer, load again, append again

SELECT is((cqrs_es.append_event('idempotency', 'one', 'e', '0')).version, 1::bigint, 'a stream');
CREATE TEMP TABLE first_result AS
SELECT * FROM cqrs_es.append_event('idempotency', 'one', 'e', '1', 1, '{"try": 1}', pg_temp.id(1));
SELECT results_eq(call, 'SELECT * FROM first_result', what) FROM (VALUES
	(1, 'again at the version it led to: the first result', $$SELECT * FROM cqrs_es.append_event('idempotency', 'one', 'e', '1', 2, '{"try": 2}', pg_temp.id(1))$$),
	(2, 'as a batch of one', $$SELECT * FROM cqrs_es.append_events('idempotency', 'one', pg_temp.batch(1), 2)$$),
	(3, 'as arrays', $$SELECT * FROM cqrs_es.append_event_arrays('idempotency', 'one', '{e}', '{1}', 2, event_ids => ARRAY[pg_temp.id(1)])$$),
	(4, 'at the version it was sent with', $$SELECT * FROM cqrs_es.append_event('idempotency', 'one', 'e', '1', 1, event_id => pg_temp.id(1))$$),
	(5, 'with "any"', $$SELECT * FROM cqrs_es.append_event('idempotency', 'one', 'e', '1', event_id => pg_temp.id(1))$$),
	(6, 'with "it exists"', $$SELECT * FROM cqrs_es.append_event('idempotency', 'one', 'e', '1', -1, event_id => pg_temp.id(1))$$),
	(7, 'a payload is the same when it is equal', $$SELECT * FROM cqrs_es.append_event('idempotency', 'one', 'e', '1.0', 2, event_id => pg_temp.id(1))$$)) AS t (n, what, call)
ORDER BY n;
SELECT is(pg_temp.stream('one'), '1:0 2:1', 'and nothing is written');
SELECT is(metadata, '{"try": 1}', 'the metadata is that of the first time') FROM cqrs_es.read_stream('idempotency', 'one', 2);
SELECT is((cqrs_es.append_event('idempotency', 'one', 'e', '1', 2, event_id => pg_temp.id(2))).version, 3::bigint, 'another id is another event');
SELECT is((cqrs_es.append_event('idempotency', 'one', 'e', '1', 3)).version, 4::bigint, 'no id is another event');
SELECT is(pg_temp.fill('one', 20), 24::bigint, 'others append');
SELECT results_eq($$SELECT * FROM cqrs_es.append_event('idempotency', 'one', 'e', '1', 24, event_id => pg_temp.id(1))$$,
	'SELECT * FROM first_result', 'and again, at the version of now');
SELECT is((cqrs_es.append_event('idempotency', 'two', 'e', '0', 0, event_id => pg_temp.id(1))).version, 1::bigint, 'an id counts within its stream');
SELECT is((cqrs_es.append_event('idempotency', 'two', 'e', '0', 1, event_id => pg_temp.id(1))).version, 1::bigint, 'the first event of a stream');
SELECT throws_ok(call, state, NULL, format('%s: %s', state, what)) FROM (VALUES
	(1, 'QE002', 'the id with another payload', $$SELECT cqrs_es.append_event('idempotency', 'one', 'e', '9', 24, event_id => pg_temp.id(1))$$),
	(2, 'QE002', 'with another type', $$SELECT cqrs_es.append_event('idempotency', 'one', 'f', '1', 24, event_id => pg_temp.id(1))$$),
	(3, 'QE002', 'with another version of the payload', $$SELECT cqrs_es.append_event('idempotency', 'one', 'e', '1', 24, event_id => pg_temp.id(1), event_version => '2')$$),
	(4, 'QE001', 'a new id at a stale version', $$SELECT cqrs_es.append_event('idempotency', 'one', 'e', '1', 23, event_id => pg_temp.id(9))$$)) AS t (n, state, what, call)
ORDER BY n;
SELECT is(cqrs_es.stream_version('idempotency', 'one'), 24::bigint, 'and nothing was written');

-- batches

DROP TABLE first_result;
SELECT is((cqrs_es.append_event('idempotency', 'batch', 'e', '0')).version, 1::bigint, 'a stream');
CREATE TEMP TABLE first_result AS SELECT * FROM cqrs_es.append_events('idempotency', 'batch', pg_temp.batch(1, 2, 3), 1);
SELECT results_eq($$SELECT * FROM cqrs_es.append_events('idempotency', 'batch', pg_temp.batch(1, 2, 3), 4)$$, 'SELECT * FROM first_result', 'a batch again');
SELECT results_eq($$SELECT * FROM cqrs_es.append_event_arrays('idempotency', 'batch', '{e,e,e}', '{1,2,3}', 4,
	event_ids => ARRAY[pg_temp.id(1), pg_temp.id(2), pg_temp.id(3)])$$, 'SELECT * FROM first_result', 'as arrays');
SELECT throws_ok(format('SELECT cqrs_es.append_events(''idempotency'', ''batch'', %s, 4)', batch), state, NULL, format('%s: %s', state, batch))
FROM (VALUES
	(1, 'pg_temp.batch(3, 4)', 'QE002'),
	(2, 'pg_temp.batch(4, 3)', 'QE002'),
	(3, 'pg_temp.batch(1, 2, 3, 4)', 'QE002'),
	(4, 'pg_temp.batch(2, 1, 3)', 'QE002'),
	(5, 'pg_temp.batch(1, 3)', 'QE002'),
	(6, 'pg_temp.batch(5, 6, 7, 8, 9, 1)', 'QE002'),
	(7, 'pg_temp.batch(5, 5)', '22023'),
	(8, 'pg_temp.batch(1, 1)', '22023'),
	(9, $$'[{"type": "e", "payload": 1, "id": "00000000-0000-7000-8000-000000000001"}, {"type": "e", "payload": 2}]'$$, 'QE002'),
	(10, $$'[{"type": "e", "payload": 2}, {"type": "e", "payload": 3, "id": "00000000-0000-7000-8000-000000000003"}]'$$, 'QE002')) AS t (n, batch, state)
ORDER BY n;
SELECT is((cqrs_es.append_events('idempotency', 'batch', pg_temp.batch(4, 5), 4)).version, 6::bigint, 'new ids are new events');
SELECT is(pg_temp.stream('batch'), '1:0 2:1 3:2 4:3 5:4 6:5', 'nothing else was written');

-- how far it looks

SELECT is(current_setting('cqrs_es.retry_window'), '100', 'a hundred events, unless one says otherwise');
SELECT is((cqrs_es.append_event('idempotency', 'far', 'e', '1', 0, event_id => pg_temp.id(1))).version, 1::bigint, 'an event');
SELECT is(pg_temp.fill('far', 99), 100::bigint, 'which is the hundredth from the end');
SELECT is((cqrs_es.append_event('idempotency', 'far', 'e', '1', 100, event_id => pg_temp.id(1))).version, 1::bigint, 'is found');
SELECT is((cqrs_es.append_event('idempotency', 'far', 'other', '0', 100)).version, 101::bigint, 'one more');
SELECT is((cqrs_es.append_event('idempotency', 'far', 'e', '1', -1, event_id => pg_temp.id(1))).version, 1::bigint, 'then it is found where all of the stream is searched');
SELECT is((cqrs_es.append_event('idempotency', 'far', 'e', '1', 0, event_id => pg_temp.id(1))).version, 1::bigint, 'or where it has to be');
SET LOCAL cqrs_es.retry_window = 101;
SELECT is((cqrs_es.append_event('idempotency', 'far', 'e', '1', 101, event_id => pg_temp.id(1))).version, 1::bigint, 'or when one says to look further');
SET LOCAL cqrs_es.retry_window = 2147483647;
SELECT is((cqrs_es.append_event('idempotency', 'far', 'e', '1', 101, event_id => pg_temp.id(1))).version, 1::bigint, 'as far as can be');
RESET cqrs_es.retry_window;
SELECT is((cqrs_es.append_event('idempotency', 'far', 'e', '1', 101, event_id => pg_temp.id(1))).version, 102::bigint, 'else it is a new event');
SET LOCAL cqrs_es.retry_window = 0;
SELECT is((cqrs_es.append_event('idempotency', 'far', 'e', '1', 102, event_id => pg_temp.id(1))).version, 103::bigint, '0: no look');
RESET cqrs_es.retry_window;
SELECT is((cqrs_es.append_event_arrays('idempotency', 'long', array_fill('e'::text, ARRAY[200]), (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 200) AS n), 0,
	event_ids => (SELECT array_agg(pg_temp.id(n)) FROM generate_series(1, 200) AS n))).version, 200::bigint, 'a batch longer than that');
SELECT is((cqrs_es.append_event_arrays('idempotency', 'long', array_fill('e'::text, ARRAY[200]), (SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 200) AS n), 200,
	event_ids => (SELECT array_agg(pg_temp.id(n)) FROM generate_series(1, 200) AS n))).version, 200::bigint, 'is recognized as well');

-- a plain INSERT looks at no ids

INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, event_id)
VALUES ('idempotency', 'plain', 'e', '1', pg_temp.id(1)), ('idempotency', 'plain', 'e', '1', pg_temp.id(1));
SELECT is(pg_temp.stream('plain'), '1:1 2:1', 'an INSERT is what it is');
SELECT throws_ok($$SELECT cqrs_es.append_event('idempotency', 'plain', 'e', '2', 2, event_id => pg_temp.id(1))$$, 'QE002', NULL, 'append_event looks at what it wrote');
SELECT is((cqrs_es.append_event('idempotency', 'plain', 'e', '1', 2, event_id => pg_temp.id(1))).version, 2::bigint, 'and takes it for its own');

-- events of commands may have ids

SELECT cqrs_es.create_aggregate('idempotency', '{"n": 0}') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('idempotency', 'Added', '[{"op": "increment", "path": "/n", "from": "/n"}]') IS NULL AS x \gset
SELECT cqrs_es.define_command('idempotency', 'Add', $$jsonb_build_object('type', 'Added', 'payload', command)$$) IS NULL AS x \gset
SELECT cqrs_es.define_command('idempotency', 'Sub', $$jsonb_build_object('type', 'Added', 'payload', command)$$) IS NULL AS x \gset
SELECT cqrs_es.define_command('idempotency', 'Named', $$jsonb_build_object('type', 'Added', 'payload', command - 'id', 'id', command->'id')$$) IS NULL AS x \gset
SELECT cqrs_es.define_command('idempotency', 'Version', $$jsonb_build_object('type', 'Added', 'payload', command, 'version', '2')$$) IS NULL AS x \gset
CREATE FUNCTION pg_temp.execute(id text, command_type text, payload jsonb, command integer DEFAULT NULL, expected bigint DEFAULT NULL)
RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', version, global_position IS NOT NULL, state)
	FROM cqrs_es.execute_command('idempotency', id, command_type, payload, expected, command_id => pg_temp.id(command))
$$;
SELECT is(pg_temp.execute('named', 'Named', '{"n": 1, "id": "00000000-0000-7000-8000-000000000001"}'), '1 t {"n": 1}', 'an event with an id');
SELECT is(pg_temp.execute('named', 'Add', '{"n": 5}'), '2 t {"n": 6}', 'another');
SELECT is(pg_temp.execute('named', 'Named', '{"n": 1, "id": "00000000-0000-7000-8000-000000000001"}'), '1 t {"n": 1}', 'the first again: version and state of then');
SELECT throws_ok($$SELECT pg_temp.execute('named', 'Named', '{"n": 2, "id": "00000000-0000-7000-8000-000000000001"}')$$, 'QE002', NULL, 'with another payload');
SELECT is(cqrs_es.stream_version('idempotency', 'named'), 2::bigint, 'nothing was written');

-- a command's id stands for its type and payload

SELECT is(pg_temp.execute('c', 'Add', '{"n": 1, "a": [1, {"b": "c"}, null, true]}', 1), '1 t {"n": 1}', 'a command');
SELECT is(pg_temp.execute('c', 'Add', '{"n": 2}', 2), '2 t {"n": 3}', 'another');
SELECT is(pg_temp.execute('c', 'Add', payload, 1, expected), '1 t {"n": 1}', format('again: %s, expecting %s', payload, expected))
FROM (VALUES (1, '{"n": 1, "a": [1, {"b": "c"}, null, true]}'::jsonb, NULL::bigint), (2, '{"a": [1.0, {"b": "c"}, null, true], "n": 1.00}', 0), (3, '{"a": [1, {"b": "c"}, null, true], "n": 1}', 2),
	(4, '{"a": [10e-1, {"b": "c"}, null, true], "n": 1}', -1)) AS t (n, payload, expected)
ORDER BY n;
SELECT throws_ok(format('SELECT pg_temp.execute(''c'', %L, %L, 1, %L)', command_type, payload, expected), 'QE002', NULL, format('QE002: %s %s expecting %s', command_type, payload, expected))
FROM (VALUES (1, 'Add', '{"n": 2}', NULL::bigint), (2, 'Sub', '{"n": 1, "a": [1, {"b": "c"}, null, true]}', NULL), (3, 'Add', '{"n": 1, "a": [1, {"b": "c"}, null, "true"]}', 2),
	(4, 'Add', '{"n": 1, "a": [1, ["b", "c"], null, true]}', 7), (5, 'Add', '[{"n": 1, "a": [1, {"b": "c"}, null, true]}]', NULL), (6, 'none', '{"n": 1}', NULL)) AS t (n, command_type, payload, expected)
ORDER BY n;
SELECT is(pg_temp.execute('other', 'Add', '{"n": 2}', 1), '1 t {"n": 2}', 'another stream may have the same id');
SELECT is(pg_temp.execute('scalar', 'Add', '5', 3), '1 t {"n": 0}', 'a payload that is no object') FROM cqrs_es.define_reducer('idempotency', 'Added', '[{"op": "increment", "path": "/n", "from": "/n", "optional": true}]');
SELECT throws_ok($$SELECT pg_temp.execute('scalar', 'Add', '[5]', 3)$$, 'QE002', NULL, 'nor a list of it');
SELECT is(count(DISTINCT metadata->>'command_digest'), 2::bigint, 'kept with the events')
FROM cqrs_es.read_stream('idempotency', 'c') WHERE metadata->>'command_digest' ~ '^[0-9a-f]{32}$';
SELECT is((SELECT metadata->>'command_digest' FROM cqrs_es.read_stream('idempotency', 'scalar')), '600169f6d5da1a880653761612d098ba', 'the same on every machine');
SELECT is(pg_temp.execute('none', 'Add', '{"n": 1}'), '1 t {"n": 1}', 'a command without an id');
SELECT is(metadata ? 'command_digest', false, 'has none') FROM cqrs_es.read_stream('idempotency', 'none');
SELECT is((cqrs_es.append_event('idempotency', 'old', 'Added', '{"n": 1}', metadata => jsonb_build_object('command_id', pg_temp.id(1)))).version, 1::bigint, 'an event that has only the id');
SELECT is(pg_temp.execute('old', 'Add', '{"n": 7}', 1), '1 t {"n": 1}', 'is taken at its word');
SELECT is(pg_temp.execute('v', 'Version', '{"n": 1}', 1), '1 t {"n": 1}', 'a decider may name the version of its event');
SELECT is(event_version, '2', 'which is stored') FROM cqrs_es.events WHERE aggregate_type = 'idempotency' AND aggregate_id = 'v';
SELECT throws_ok($$SELECT pg_temp.execute('c', 'Add', '{"n": 3}', 1)$$, 'QE002',
	'command id 00000000-0000-7000-8000-000000000001 is already used in stream "idempotency/c"', 'as a client sees it');
SELECT finish();
ROLLBACK;
