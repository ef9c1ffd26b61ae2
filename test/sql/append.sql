\i test/include/setup.sql
-- The way in: expected version, conflict, idempotent retry, batch.

-- What isolation levels and read-only transactions make of it, to be looked at below.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT (cqrs_es.append_event('append', 'a', 'e', '{}', 0)).version AS rr1,
	(cqrs_es.append_events('append', 'a', '[{"type": "e", "payload": 1}, {"type": "e", "payload": 2}]')).version AS rr2,
	(cqrs_es.append_event('append', 'a', 'e', '{}', 3)).version AS rr3 \gset
SELECT pg_temp.state_of($$SELECT cqrs_es.append_event('append', 'a', 'e', '{}', 3)$$) AS rr4 \gset
SELECT cqrs_es.stream_version('append', 'a') AS rr5 \gset
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT (cqrs_es.append_event('append', 'a', 'e', '{}', 0)).version AS s1 \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('append', 'a', 'e', '{}');
SELECT cqrs_es.stream_version('append', 'a') AS s2 \gset
ROLLBACK;
BEGIN READ ONLY;
SELECT pg_temp.state_of($$SELECT cqrs_es.append_event('append', 'a', 'e', '{}')$$) AS ro1,
	pg_temp.state_of($$SELECT cqrs_es.append_events('append', 'a', '[{"type": "e", "payload": 1}]')$$) AS ro2,
	pg_temp.state_of($$SELECT cqrs_es.append_event_arrays('append', 'a', '{e}', '{1}')$$) AS ro3,
	pg_temp.state_of($$SELECT cqrs_es.next_position()$$) AS ro4,
	pg_temp.state_of($$SELECT cqrs_es.append_event('append', 'a', 'e', '{}', 7)$$) AS ro5 \gset
ROLLBACK;

BEGIN;
SELECT plan(127);

-- What a client gets of an error, as one row of text.
CREATE FUNCTION pg_temp.stream(id text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s:%s', sequence, payload), ' ' ORDER BY sequence) FROM cqrs_es.read_stream('append', id)
$$;

-- one event

SELECT is((cqrs_es.append_event('append', 'a', 'opened', '1')).version, 1::bigint, 'the first event has version 1');
SELECT is((cqrs_es.append_event('append', 'a', 'changed', '{"x": [1, null]}', event_version => '2')).version, 2::bigint, 'the second 2');
SELECT results_eq($$SELECT sequence, tenant_id, aggregate_type, aggregate_id, event_type, event_version, payload, metadata
	FROM cqrs_es.read_stream('append', 'a')$$,
	$$VALUES (1::bigint, '', 'append', 'a', 'opened', '1', '1'::jsonb, '{}'::jsonb),
	(2, '', 'append', 'a', 'changed', '2', '{"x": [1, null]}', '{}')$$, 'the log holds what was appended');
SELECT is(count(*), 2::bigint, 'with the time of its appending')
FROM cqrs_es.read_stream('append', 'a') WHERE created_at BETWEEN now() AND clock_timestamp();
SELECT cqrs_es.append_event('append', 'a', 'named', '{}', event_id => '01234567-89ab-7def-8123-456789abcdef') IS NULL AS x \gset
SELECT is(event_id, '01234567-89ab-7def-8123-456789abcdef', 'and the id that was given')
FROM cqrs_es.read_stream('append', 'a', 3);
SELECT is((cqrs_es.append_event('append', 'Ünï/code " ''', 'e', '{}')).version, 1::bigint, 'an id may be any text');
SELECT is((cqrs_es.append_event('append', 'a ', 'e', '{}')).version, 1::bigint, 'streams are told apart by every byte');
SELECT is((cqrs_es.append_event('append', 'A', 'e', '{}')).version, 1::bigint, 'case included');
SELECT is((cqrs_es.append_event('appen', 'da', 'e', '{}')).version, 1::bigint, 'type and id are two things');
SELECT is((cqrs_es.append_event('append', 'big', 'e', to_jsonb(repeat('0123456789', 500000)))).version, 1::bigint, 'a payload of 5 MB');
SELECT is(length(payload #>> '{}'), 5000000, 'comes back') FROM cqrs_es.read_stream('append', 'big');

-- expected versions

CREATE TEMP TABLE expectations (n serial, at bigint, expected bigint, fits boolean);
INSERT INTO expectations (at, expected, fits) VALUES
	(0, NULL, true), (0, 0, true), (0, 1, false), (0, -1, false), (0, 9223372036854775807, false),
	(1, NULL, true), (1, 0, false), (1, 1, true), (1, 2, false), (1, -1, true),
	(3, NULL, true), (3, 0, false), (3, 1, false), (3, 2, false), (3, 3, true), (3, 4, false), (3, -1, true);
CREATE FUNCTION pg_temp.try(id text, at bigint, expected bigint, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE version bigint;
BEGIN
	FOR i IN 1 .. at LOOP PERFORM cqrs_es.append_event('append', id, 'e', '{}', i - 1); END LOOP;
	EXECUTE format(call, id, expected) INTO version;
	RETURN 'version ' || version;
EXCEPTION WHEN SQLSTATE 'QE001' THEN RETURN 'QE001';
END $$;
SELECT is(pg_temp.try('expect ' || n || name, at, expected, call),
	CASE WHEN fits THEN 'version ' || at + added ELSE 'QE001' END,
	format('%s at %s expecting %s', name, at, coalesce(expected::text, 'any')))
FROM expectations, (VALUES
	('append_event', 1, $$SELECT version FROM cqrs_es.append_event('append', %1$L, 'e', '{}', %2$L)$$),
	('append_events', 2, $$SELECT version FROM cqrs_es.append_events('append', %1$L, '[{"type": "e", "payload": 1}, {"type": "e", "payload": 2}]', %2$L)$$),
	('append_event_arrays', 3, $$SELECT version FROM cqrs_es.append_event_arrays('append', %1$L, '{e,e,e}', '{1,2,3}', %2$L)$$))
	AS c (name, added, call)
ORDER BY name, n;

-- the conflict as a client sees it

SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_event('append', 'a', 'e', '{}', 1)$$, '{state,message,detail,hint,schema,table,column,datatype}'),
	ARRAY['QE001', 'version conflict in stream "append/a"',
	'Expected version 1, but the stream is at version 3.',
	'Read the stream again, decide again, and append with the version you read.',
	'append', 'a', '1', '3'], 'a stale version');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_event('append', 'none', 'e', '{}', 7)$$, '{detail,hint,schema,table,column,datatype}'),
	ARRAY['Expected version 7, but the stream is at version 0.',
	'Read the stream again, decide again, and append with the version you read.', 'append', 'none', '7', '0'],
	'a version that never was');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_events('append', 'a', '[{"type": "e", "payload": 1}]', 0)$$, '{detail,hint,schema,table,column,datatype}'),
	ARRAY['Expected that the stream does not exist (version 0), but it is at version 3.',
	'Read the stream again, decide again, and append with the version you read.', 'append', 'a', '0', '3'],
	'a stream that must not exist');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_event_arrays('append', 'none', '{e}', '{1}', -1)$$, '{detail,hint,schema,table,column,datatype}'),
	ARRAY['Expected that the stream exists (version -1), but it is at version 0.',
	'Read the stream again, decide again, and append with the version you read.', 'append', 'none', '-1', '0'],
	'a stream that must exist');
SELECT is(cqrs_es.stream_version('append', 'a'), 3::bigint, 'a conflict writes nothing');

-- batches

SELECT is((cqrs_es.append_events('append', 'batch', '[
	{"type": "first", "payload": {"n": 1}, "metadata": {"m": 1}, "id": "00000000-0000-7000-8000-000000000001", "version": "v2"},
	{"type": "second", "payload": null},
	{"type": "third", "payload": "text", "metadata": null, "id": null, "version": null}]')).version, 3::bigint,
	'a batch returns the version after its last event');
SELECT results_eq($$SELECT sequence::int, event_type, event_version, payload, metadata, event_id = '00000000-0000-7000-8000-000000000001'
	FROM cqrs_es.read_stream('append', 'batch')$$,
	$$VALUES (1, 'first', 'v2', '{"n": 1}'::jsonb, '{"m": 1}'::jsonb, true), (2, 'second', '1', 'null', '{}', false),
	(3, 'third', '1', '"text"', '{}', false)$$, 'with all members, or their defaults');
SELECT is((cqrs_es.append_event_arrays('append', 'arrays', '{first,second}', ARRAY['{"n": 1}', 'null']::jsonb[], 0,
	ARRAY['{"m": 1}', NULL]::jsonb[], ARRAY['00000000-0000-7000-8000-000000000001', NULL]::uuid[], '{v2,NULL}')).version, 2::bigint,
	'arrays do the same');
SELECT results_eq($$SELECT event_type, event_version, payload, metadata, event_id = '00000000-0000-7000-8000-000000000001'
	FROM cqrs_es.read_stream('append', 'arrays')$$,
	$$SELECT event_type, event_version, payload, metadata, event_id = '00000000-0000-7000-8000-000000000001'
	FROM cqrs_es.read_stream('append', 'batch', max_count => 2)$$, 'event by event');
CREATE FUNCTION pg_temp.which(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE context text;
BEGIN
	EXECUTE statement;
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
	RETURN SQLSTATE || ' ' || split_part(context, E'\n', 1);
END $$;
SELECT is(pg_temp.which(format('SELECT cqrs_es.append_event_arrays(%L, %L, %s)', 'append', 'which', arguments)), answer, 'which event of the arrays is bad: ' || arguments)
FROM (VALUES (1, $$'{a,"",c}', '{1,2,3}'$$, '22023 event 2 of the arrays'), (2, $$'{a,b,c}', '{1,2,NULL}'$$, '22004 event 3 of the arrays'),
	(3, $$'{a,b,c}', '{1,2,3}', tags => ARRAY['["t"]', NULL, '[7]']::jsonb[]$$, '22023 event 3 of the arrays'), (4, $$'{a,b,c}', '{1,2,3}', metadata => '{7,"{}","{}"}'$$, '22023 event 1 of the arrays')) AS t (n, arguments, answer) ORDER BY n;
SELECT is((cqrs_es.append_event_arrays('append', 'arrays', '[5:6]={a,b}', '[0:1]={1,2}')).version, 4::bigint,
	'whatever bounds an array has');

SELECT throws_ok($$SELECT cqrs_es.append_events('append', 'all or nothing', '[{"type": "e", "payload": 1}, {"type": "", "payload": 2}]')$$,
	'22023', NULL, 'a batch whose last event is bad');
SELECT is(cqrs_es.stream_version('append', 'all or nothing'), 0::bigint, 'appends none');
SELECT is((cqrs_es.append_events('append', 'huge', (SELECT jsonb_agg(jsonb_build_object('type', 'e', 'payload', n) ORDER BY n)
	FROM generate_series(1, 100000) n))).version, 100000::bigint, 'a batch of 100,000 events');
SELECT results_eq($$SELECT count(*), min(payload::int), max(payload::int), bool_and(sequence = payload::int), count(DISTINCT event_id),
	count(DISTINCT global_position) FROM cqrs_es.read_stream('append', 'huge')$$,
	'VALUES (100000::bigint, 1, 100000, true, 100000::bigint, 100000::bigint)', 'in its order');

-- idempotent retry: one event

CREATE FUNCTION pg_temp.id(n integer) RETURNS uuid LANGUAGE sql AS $$
	SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.batch(VARIADIC n integer[]) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_agg(jsonb_build_object('type', 'e', 'payload', i, 'id', pg_temp.id(i)) ORDER BY o)
	FROM unnest(n) WITH ORDINALITY AS u (i, o) $$;

CREATE TEMP TABLE first_result AS
SELECT * FROM cqrs_es.append_event('append', 'retry', 'e', '1', 0, '{"try": 1}', pg_temp.id(1));
SELECT results_eq($$SELECT * FROM cqrs_es.append_event('append', 'retry', 'e', '1', 0, '{"try": 2}', pg_temp.id(1))$$,
	'SELECT * FROM first_result', 'the same append again, with an expected version, returns the first result');
SELECT cqrs_es.append_event('append', 'retry', 'e', '2', 1, event_id => pg_temp.id(2)) IS NULL AS x \gset
SELECT cqrs_es.append_event('append', 'retry', 'e', '3') IS NULL AS x \gset
SELECT results_eq($$SELECT * FROM cqrs_es.append_event('append', 'retry', 'e', '1', 0, '{}', pg_temp.id(1))$$,
	'SELECT * FROM first_result', 'also when the stream went on');
SELECT results_eq($$SELECT * FROM cqrs_es.append_event('append', 'retry', 'e', '1', event_id => pg_temp.id(1))$$,
	'SELECT * FROM first_result', 'also with "any"');
SELECT results_eq($$SELECT * FROM cqrs_es.append_event('append', 'retry', 'e', '1', -1, event_id => pg_temp.id(1))$$,
	'SELECT * FROM first_result', 'also with "it exists"');
SELECT results_eq($$SELECT * FROM cqrs_es.append_events('append', 'retry', pg_temp.batch(1), 0)$$,
	'SELECT * FROM first_result', 'also as a batch of one');
SELECT results_eq($$SELECT * FROM cqrs_es.append_event_arrays('append', 'retry', '{e}', '{1}', event_ids => ARRAY[pg_temp.id(1)])$$,
	'SELECT * FROM first_result', 'also as arrays');
SELECT is(pg_temp.stream('retry'), '1:1 2:2 3:3', 'and writes nothing');
SELECT is(metadata, '{"try": 1}', 'the metadata is that of the first time') FROM cqrs_es.read_stream('append', 'retry', 1, 1);

SELECT throws_ok(call, state, NULL, format('%s: %s', state, what)) FROM (VALUES
	(1, 'QE002', 'the same id with another payload', $$SELECT cqrs_es.append_event('append', 'retry', 'e', '9', 0, event_id => pg_temp.id(1))$$),
	(2, 'QE002', 'with another type', $$SELECT cqrs_es.append_event('append', 'retry', 'f', '1', 0, event_id => pg_temp.id(1))$$),
	(3, 'QE002', 'with another version of the payload', $$SELECT cqrs_es.append_event('append', 'retry', 'e', '1', 0, event_id => pg_temp.id(1), event_version => '2')$$),
	(4, 'QE002', 'with another payload and "any"', $$SELECT cqrs_es.append_event('append', 'retry', 'e', '9', event_id => pg_temp.id(1))$$),
	(5, 'QE002', 'with another payload and "it exists"', $$SELECT cqrs_es.append_event('append', 'retry', 'e', '9', -1, event_id => pg_temp.id(2))$$),
	(6, 'QE001', 'an unknown id at a stale version', $$SELECT cqrs_es.append_event('append', 'retry', 'e', '1', 0, event_id => pg_temp.id(9))$$),
	(7, 'QE001', 'a known id at another stale version', $$SELECT cqrs_es.append_event('append', 'retry', 'e', '1', 1, event_id => pg_temp.id(1))$$),
	(8, 'QE001', 'no id at a stale version', $$SELECT cqrs_es.append_event('append', 'retry', 'e', '1', 0)$$)) t (n, state, what, call)
ORDER BY n;
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_event('append', 'retry', 'e', '9', event_id => pg_temp.id(2))$$, '{state,message,detail,hint,schema,table,column,datatype}'),
	ARRAY['QE002', 'event id 00000000-0000-7000-8000-000000000002 is already used in stream "append/retry"',
	'Sequence 2 of the stream has this id, and the append is not a repetition of the one that wrote it.',
	'A retry must repeat the same events in the same order; a new event needs a new id.', '', '', '', ''],
	'a used id as a client sees it');
SELECT is((cqrs_es.append_event('append', 'retry 2', 'e', '9', event_id => pg_temp.id(1))).version, 1::bigint,
	'another stream may hold the same id');
SELECT is((cqrs_es.append_event('append', 'retry 2', 'e', '{"a": 1, "b": 2.0}', event_id => pg_temp.id(2))).version, 2::bigint, 'a payload');
SELECT is((cqrs_es.append_event('append', 'retry 2', 'e', '{"b": 2, "a": 1}', event_id => pg_temp.id(2))).version, 2::bigint,
	'is the same when it is equal as jsonb');

-- idempotent retry: batches

DROP TABLE first_result;
SELECT cqrs_es.append_event('append', 'batches', 'e', '0') IS NULL AS x \gset
CREATE TEMP TABLE first_result AS SELECT * FROM cqrs_es.append_events('append', 'batches', pg_temp.batch(1, 2, 3), 1);
SELECT cqrs_es.append_event('append', 'batches', 'e', '0') IS NULL AS x \gset
SELECT results_eq(call, 'SELECT * FROM first_result', 'the same batch again ' || what) FROM (VALUES
	(1, 'at its version', $$SELECT * FROM cqrs_es.append_events('append', 'batches', pg_temp.batch(1, 2, 3), 1)$$),
	(2, 'with "any"', $$SELECT * FROM cqrs_es.append_events('append', 'batches', pg_temp.batch(1, 2, 3))$$),
	(3, 'with "it exists"', $$SELECT * FROM cqrs_es.append_events('append', 'batches', pg_temp.batch(1, 2, 3), -1)$$),
	(4, 'as arrays', $$SELECT * FROM cqrs_es.append_event_arrays('append', 'batches', '{e,e,e}', '{1,2,3}',
		event_ids => ARRAY[pg_temp.id(1), pg_temp.id(2), pg_temp.id(3)])$$)) t (n, what, call)
ORDER BY n;
SELECT throws_ok(format('SELECT cqrs_es.append_events(''append'', ''batches'', %s%s)', batch, expected), state, NULL,
	format('%s: %s%s', state, batch, expected))
FROM (VALUES
	(1, 'pg_temp.batch(1, 2)', ', 0', 'QE001'),
	(2, 'pg_temp.batch(3, 4)', '', 'QE002'),
	(3, 'pg_temp.batch(9, 1)', '', 'QE002'),
	(4, 'pg_temp.batch(2, 1, 3)', '', 'QE002'),
	(5, 'pg_temp.batch(1, 2, 3, 4)', '', 'QE002'),
	(6, 'pg_temp.batch(1, 2, 3, 4)', ', 1', 'QE002'),
	(7, 'pg_temp.batch(1, 3)', '', 'QE002'),
	(8, 'pg_temp.batch(1, 3)', ', 1', 'QE002'),
	(9, 'pg_temp.batch(7, 8, 9, 10, 11, 1)', '', 'QE002'),
	(10, 'pg_temp.batch(4, 5, 4)', '', '22023'),
	(11, 'pg_temp.batch(4, 4)', ', 5', '22023')) t (n, batch, expected, state)
ORDER BY n;
-- a batch with ids that is part of an earlier one counts as done
SELECT results_eq($$SELECT version FROM cqrs_es.append_events('append', 'batches', pg_temp.batch(2, 3))$$, 'VALUES (4::bigint)',
	'a part of a batch, by itself, is in the stream already');
SELECT is(pg_temp.stream('batches'), '1:0 2:1 3:2 4:3 5:0', 'and nothing was written');
-- ids count within their stream
SELECT lives_ok($$SELECT cqrs_es.append_event('append', 'other', 'first', '1', 0, event_id => pg_temp.id(1))$$,
	'the first event of a stream repeats none');
SELECT throws_ok($$SELECT cqrs_es.append_events('append', 'batches',
	'[{"type": "e", "payload": 1, "id": "00000000-0000-7000-8000-000000000001"}, {"type": "e", "payload": 2}]')$$, 'QE002', NULL,
	'and in a batch where other events have none');

-- Retry in the transaction of the first try, after a savepoint that was rolled back: then it is new.
SAVEPOINT s;
SELECT cqrs_es.append_event('append', 'savepoint', 'e', '1', 0, event_id => pg_temp.id(1)) IS NULL AS x \gset
ROLLBACK TO s;
SELECT is((cqrs_es.append_event('append', 'savepoint', 'e', '1', 0, event_id => pg_temp.id(1))).version, 1::bigint,
	'an append that was rolled back is not remembered');
SELECT is(pg_temp.stream('savepoint'), '1:1', 'it is done now');

-- and when what was rolled back fills pages of the index behind the stream's end
SELECT cqrs_es.append_event_arrays('append', 'pages', array_fill('e'::text, ARRAY[200]), array_fill('1'::jsonb, ARRAY[200])) IS NULL AS x \gset
SAVEPOINT s;
SELECT cqrs_es.append_event_arrays('append', 'pages', array_fill('e'::text, ARRAY[1000]), array_fill('1'::jsonb, ARRAY[1000])) IS NULL AS x \gset
ROLLBACK TO s;
SELECT is((cqrs_es.append_event('append', 'pages', 'e', '1')).version, 201::bigint,
	'the end of a stream is found across pages of dead entries');

-- several appends in one statement

SELECT results_eq($$SELECT (cqrs_es.append_event('append', 'many', 'e', to_jsonb(n))).version FROM generate_series(1, 3) n$$,
	'VALUES (1::bigint), (2), (3)', 'appends of one statement see each other');
-- isolation levels

SELECT is(ARRAY[:rr1, :rr2, :rr3, :rr5], ARRAY[1, 3, 4, 4], 'REPEATABLE READ: nothing moved, so all goes on');
SELECT is(:'rr4'::text, 'QE001', 'and its own events count as much as anyone''s');
SELECT is(ARRAY[:s1, :s2], ARRAY[1, 2], 'SERIALIZABLE: likewise');
SELECT is(ARRAY[:'ro1', :'ro2', :'ro3', :'ro4', :'ro5'], array_fill('25006'::text, ARRAY[5]),
	'a read-only transaction is refused before anything is looked at');
SELECT finish();
ROLLBACK;
