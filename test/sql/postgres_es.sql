\i test/include/setup.sql
-- The statements of the Rust crate postgres-es, with its parameter types and the
-- rights it needs, beside our own functions on the same streams.  The crate says
-- "events" and "snapshots"; its search_path finds ours.  It takes 23505 as the
-- conflict, and reports one when an UPDATE met no row.
SELECT cqrs_es.create_aggregate('crate account', '{"balance": 0}', snapshot_every => 0) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('crate account', 'Deposited', '[{"op": "increment", "path": "/balance", "from": "/amount"}]') IS NULL AS x \gset
SELECT cqrs_es.define_command('crate account', 'Deposit', $$jsonb_build_object('type', 'Deposited', 'payload', command)$$) IS NULL AS x \gset
SELECT cqrs_es.create_aggregate('crate both', '{"balance": 0}', snapshot_every => 2, keep_snapshots => 2) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('crate both', 'Deposited', '[{"op": "increment", "path": "/balance", "from": "/amount"}]') IS NULL AS x \gset
CREATE TABLE public.account_query (view_id text PRIMARY KEY, version int8 NOT NULL, payload json NOT NULL);
-- a sum that owes nothing to replay or snapshots
CREATE FUNCTION public.balance(type text, id text) RETURNS numeric LANGUAGE sql AS
	$$SELECT sum((payload->>'amount')::numeric) FROM cqrs_es.events WHERE aggregate_type = type AND aggregate_id = id$$;

CREATE ROLE cqrs_es_rust;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_rust;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_rust;
GRANT SELECT, INSERT, UPDATE ON cqrs_es.snapshots, public.account_query TO cqrs_es_rust;
SET SESSION AUTHORIZATION cqrs_es_rust;
SET search_path = cqrs_es, public;
SELECT plan(66);

PREPARE insert_event(text, text, int4, text, text, jsonb, jsonb) AS
	INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata)
	VALUES ($1, $2, $3, $4, $5, $6, $7);
PREPARE load_events(text, text) AS
	SELECT aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata
	FROM events WHERE aggregate_type = $1 AND aggregate_id = $2 ORDER BY sequence;
-- the number is part of the text, so there is one statement for each
PREPARE load_events_after_3(text, text) AS
	SELECT aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata
	FROM events WHERE aggregate_type = $1 AND aggregate_id = $2 AND sequence > 3 ORDER BY sequence;
-- the second value is bound and not used
PREPARE replay_all(text, text) AS
	SELECT aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata
	FROM events WHERE aggregate_type = $1 ORDER BY sequence;
PREPARE select_snapshot(text, text) AS
	SELECT aggregate_type, aggregate_id, last_sequence, current_snapshot, payload
	FROM snapshots WHERE aggregate_type = $1 AND aggregate_id = $2;
PREPARE insert_snapshot(text, text, int4, int4, jsonb) AS
	INSERT INTO snapshots (aggregate_type, aggregate_id, last_sequence, current_snapshot, payload)
	VALUES ($1, $2, $3, $4, $5);
PREPARE update_snapshot(text, text, int4, int4, int4, jsonb) AS
	UPDATE snapshots SET last_sequence = $3, payload = $6, current_snapshot = $4
	WHERE aggregate_type = $1 AND aggregate_id = $2 AND current_snapshot = $5;
-- here, too, one value too many is bound
PREPARE insert_view(jsonb, int8, text, int8) AS
	INSERT INTO account_query (payload, version, view_id) VALUES ($1, $2, $3);
PREPARE update_view(jsonb, int8, text, int8) AS
	UPDATE account_query SET payload = $1, version = $2 WHERE view_id = $3 AND version = $4;
PREPARE select_view(text) AS
	SELECT version, payload FROM account_query WHERE view_id = $1;

SELECT results_eq($$SELECT name, parameter_types::text FROM pg_prepared_statements ORDER BY name COLLATE "C"$$, $$VALUES
	('insert_event', '{text,text,integer,text,text,jsonb,jsonb}'),
	('insert_snapshot', '{text,text,integer,integer,jsonb}'),
	('insert_view', '{jsonb,bigint,text,bigint}'),
	('load_events', '{text,text}'),
	('load_events_after_3', '{text,text}'),
	('replay_all', '{text,text}'),
	('select_snapshot', '{text,text}'),
	('select_view', '{text}'),
	('update_snapshot', '{text,text,integer,integer,integer,jsonb}'),
	('update_view', '{jsonb,bigint,text,bigint}')$$,
	'all is prepared with the types that the crate binds');

-- a whole life: the crate writes events of a command in one transaction

BEGIN;
EXECUTE insert_event('crate account', 'a', 1, 'Opened', '1.0', '{"owner": "Ada"}', '{}');
SELECT is(:'SQLSTATE' || ' ' || :ROW_COUNT, '00000 1', 'the first event');
EXECUTE insert_event('crate account', 'a', 2, 'Deposited', '1.0', '{"amount": 100}', '{"atm": "A7"}');
SELECT is(:'SQLSTATE' || ' ' || :ROW_COUNT, '00000 1', 'the second of one transaction');
COMMIT;
SELECT results_eq($$EXECUTE load_events('crate account', 'a')$$, $$VALUES
	('crate account' COLLATE "C", 'a' COLLATE "C", 1::int8, 'Opened' COLLATE "C", '1.0' COLLATE "C", '{"owner": "Ada"}'::jsonb, '{}'::jsonb),
	('crate account', 'a', 2, 'Deposited', '1.0', '{"amount": 100}', '{"atm": "A7"}')$$, 'are loaded in order');

BEGIN;
EXECUTE insert_event('crate account', 'a', 3, 'Deposited', '1.0', '{"amount": 7}', '{}');
SELECT is(pg_temp.error_of($$EXECUTE insert_event('crate account', 'a', 2, 'Deposited', '1.0', '{"amount": 7}', '{}')$$),
	ARRAY['23505', 'duplicate key value violates unique constraint "events_pkey"', '', ''], 'a taken sequence is a 23505');
ROLLBACK;
SELECT is(stream_version('crate account', 'a'), 2::bigint, 'and the rollback took the event before it along');
SELECT is(pg_temp.error_of($$EXECUTE insert_event('crate account', 'a', 4, 'Deposited', '1.0', '{"amount": 7}', '{}')$$),
	ARRAY['QE003', 'sequence 4 would leave a hole in stream "crate account/a"', 'The stream is at version 2.', 'Insert sequence 3, or leave the sequence out.'],
	'a hole in the stream is refused, and is no conflict');
SELECT results_eq($$EXECUTE load_events('crate account', 'none')$$,
	$$SELECT aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata FROM events WHERE false$$,
	'no events of an aggregate that is not there');

-- our functions on the same stream: whoever is late is told in its own way

SELECT is((SELECT version FROM append_event('crate account', 'a', 'Deposited', '{"amount": 10}', 2)), 3::bigint, 'append_event goes on behind the crate');
SELECT is(pg_temp.error_of($$EXECUTE insert_event('crate account', 'a', 3, 'Deposited', '1.0', '{"amount": 8}', '{}')$$),
	ARRAY['23505', 'duplicate key value violates unique constraint "events_pkey"', '', ''], 'the crate decided on version 2 and is told of the conflict');
EXECUTE insert_event('crate account', 'a', 4, 'Deposited', '1.0', '{"amount": 8}', '{}');
SELECT is(:'SQLSTATE'::text, '00000', 'it loads again and writes the next');
SELECT throws_ok($$SELECT append_event('crate account', 'a', 'Deposited', '{"amount": 1}', 3)$$, 'QE001',
	'version conflict in stream "crate account/a"', 'append_event is told by QE001');
SELECT throws_ok($$SELECT execute_command('crate account', 'a', 'Deposit', '{"amount": 1}', 3)$$, 'QE001',
	'version conflict in stream "crate account/a"', 'and so is a command that gave a version');
SELECT results_eq($$SELECT version, state->'balance' FROM execute_command('crate account', 'a', 'Deposit', '{"amount": 2}')$$,
	$$VALUES (5::bigint, '120'::jsonb)$$, 'a command goes on behind both');
SELECT is((SELECT version FROM append_events('crate account', 'a',
	'[{"type": "Deposited", "payload": {"amount": 3}}, {"type": "Deposited", "payload": {"amount": 4}}]', 5)), 7::bigint, 'a batch');
BEGIN;
EXECUTE insert_event('crate account', 'a', 8, 'Deposited', '1.0', '{"amount": 1}', '{}');
SELECT version AS version FROM append_event('crate account', 'a', 'Deposited', '{"amount": 1}', 8) \gset
EXECUTE insert_event('crate account', 'a', 10, 'Deposited', '1.0', '{"amount": 1}', '{}');
COMMIT;
SELECT is(:version, 9, 'both in one transaction');
BEGIN;
SET LOCAL cqrs_es.context = '{"user": "ada"}';
EXECUTE insert_event('crate account', 'a', 11, 'Deposited', '1.0', '{"amount": 1}', '{"own": 1}');
COMMIT;
SELECT is(metadata, '{"own": 1, "user": "ada"}', 'the context reaches events of the crate') FROM events WHERE aggregate_type = 'crate account' AND sequence = 11;
SELECT is(aggregate_state('crate account', 'a'), '{"owner": "Ada", "balance": 131}', 'replay reads what both wrote');
SELECT is((aggregate_state('crate account', 'a')->>'balance')::numeric, balance('crate account', 'a'), 'and adds up');
SELECT is((SELECT string_agg(sequence::text || event_version, ' ' ORDER BY sequence) FROM read_stream('crate account', 'a', 3)),
	'31 41.0 51 61 71 81.0 91 101.0 111.0', 'read_stream reads them with their versions');

-- snapshots of the crate, of an aggregate type that takes none by itself

SELECT is_empty($$EXECUTE select_snapshot('crate account', 's')$$, 'no snapshot yet');
BEGIN;
EXECUTE insert_event('crate account', 's', 1, 'Deposited', '1.0', '{"amount": 1}', '{}');
EXECUTE insert_event('crate account', 's', 2, 'Deposited', '1.0', '{"amount": 2}', '{}');
EXECUTE insert_event('crate account', 's', 3, 'Deposited', '1.0', '{"amount": 3}', '{}');
EXECUTE insert_snapshot('crate account', 's', 3, 1, '{"of": "the crate"}');
SELECT is(:'SQLSTATE' || ' ' || :ROW_COUNT, '00000 1', 'a snapshot, in the transaction of its events');
COMMIT;
SELECT results_eq($$EXECUTE select_snapshot('crate account', 's')$$,
	$$VALUES ('crate account' COLLATE "C", 's' COLLATE "C", 3::int8, 1::int8, '{"of": "the crate"}'::jsonb)$$, 'is read');
SELECT is_empty($$EXECUTE load_events_after_3('crate account', 's')$$, 'no events after it');
EXECUTE insert_event('crate account', 's', 4, 'Deposited', '1.0', '{"amount": 4}', '{}');
SELECT is((SELECT version FROM append_event('crate account', 's', 'Deposited', '{"amount": 5}', 4)), 5::bigint, 'append_event');
SELECT results_eq($$EXECUTE load_events_after_3('crate account', 's')$$, $$VALUES
	('crate account' COLLATE "C", 's' COLLATE "C", 4::int8, 'Deposited' COLLATE "C", '1.0' COLLATE "C", '{"amount": 4}'::jsonb, '{}'::jsonb),
	('crate account', 's', 5, 'Deposited', '1', '{"amount": 5}', '{}')$$, 'events after a snapshot');
SELECT is(aggregate_state('crate account', 's'), '{"balance": 15}', 'replay does not use a snapshot of the crate');
BEGIN;
EXECUTE insert_event('crate account', 's', 6, 'Deposited', '1.0', '{"amount": 6}', '{}');
EXECUTE update_snapshot('crate account', 's', 6, 2, 1, '{"of": "the crate, again"}');
SELECT is(:'SQLSTATE' || ' ' || :ROW_COUNT, '00000 1', 'an update of the snapshot meets exactly one row');
COMMIT;
EXECUTE update_snapshot('crate account', 's', 6, 2, 1, '{"of": "a loser"}');
SELECT is(:'SQLSTATE' || ' ' || :ROW_COUNT, '00000 0', 'one that is late meets none');
SELECT is(pg_temp.error_of($$EXECUTE insert_snapshot('crate account', 's', 6, 1, '{"of": "a loser"}')$$),
	ARRAY['23505', 'duplicate key value violates unique constraint "snapshots_pkey"', '', ''], 'a second first one of the same event is a 23505');
BEGIN;
EXECUTE insert_event('crate account', 's', 7, 'Deposited', '1.0', '{"amount": 7}', '{}');
EXECUTE update_snapshot('crate account', 's', 7, 3, 2, '{"of": "nobody"}');
ROLLBACK;
SELECT results_eq($$EXECUTE select_snapshot('crate account', 's')$$,
	$$VALUES ('crate account' COLLATE "C", 's' COLLATE "C", 6::int8, 2::int8, '{"of": "the crate, again"}'::jsonb)$$, 'a rollback leaves snapshot');
SELECT is(stream_version('crate account', 's'), 6::bigint, 'and stream as they were');
SELECT is((SELECT state->'balance' FROM execute_command('crate account', 's', 'Deposit', '{"amount": 1}')), '22', 'nor does a command use it');
SELECT results_eq($$SELECT last_sequence, fingerprint FROM snapshots WHERE aggregate_type = 'crate account' AND aggregate_id = 's'$$,
	$$VALUES (6::bigint, NULL::bytea)$$, 'or remove it: the crate''s snapshots are its own');

-- both take snapshots, which is asking for trouble: the crate may meet ours, but
-- the state that is replayed here is never made of the crate's

BEGIN;
EXECUTE insert_event('crate both', 'b', 1, 'Deposited', '1.0', '{"amount": 1}', '{}');
EXECUTE insert_snapshot('crate both', 'b', 1, 1, '{"balance": -1}');
COMMIT;
SELECT is(aggregate_state('crate both', 'b'), '{"balance": 1}', 'the crate''s snapshot is not used');
EXECUTE insert_event('crate both', 'b', 2, 'Deposited', '1.0', '{"amount": 2}', '{}');
SELECT results_eq($$EXECUTE select_snapshot('crate both', 'b')$$,
	$$VALUES ('crate both' COLLATE "C", 'b' COLLATE "C", 2::int8, 2::int8, '{"balance": 3}'::jsonb)$$, 'ours replaces it, and its number goes on');
EXECUTE update_snapshot('crate both', 'b', 2, 2, 1, '{"balance": -1}');
SELECT is(:'SQLSTATE' || ' ' || :ROW_COUNT, '00000 0', 'the crate, which knows of the one before, is told that it is late');
BEGIN;
EXECUTE insert_event('crate both', 'b', 3, 'Deposited', '1.0', '{"amount": 3}', '{}');
EXECUTE update_snapshot('crate both', 'b', 3, 3, 2, '{"balance": -1}');
SELECT is(:'SQLSTATE' || ' ' || :ROW_COUNT, '00000 1', 'then it may update ours');
COMMIT;
SELECT is(aggregate_state('crate both', 'b'), '{"balance": 6}', 'which makes it one of the crate''s, that is not used');
SELECT is((SELECT version FROM append_event('crate both', 'b', 'Deposited', '{"amount": 4}', 3)), 4::bigint, 'the next that is due');
SELECT results_eq($$SELECT last_sequence, current_snapshot, payload FROM snapshots WHERE aggregate_type = 'crate both' ORDER BY 1$$,
	$$VALUES (4::int8, 4::int8, '{"balance": 10}'::jsonb)$$, 'replaces it again');
BEGIN;
EXECUTE insert_event('crate both', 'c', 1, 'Deposited', '1.0', '{"amount": 1}', '{}');
EXECUTE insert_event('crate both', 'c', 2, 'Deposited', '1.0', '{"amount": 2}', '{}');
SELECT is(pg_temp.error_of($$EXECUTE insert_snapshot('crate both', 'c', 2, 1, '{"balance": -1}')$$),
	ARRAY['23505', 'duplicate key value violates unique constraint "snapshots_pkey"', '', ''], 'a snapshot of just the event of which we took one is a conflict for the crate');
ROLLBACK;
SELECT is((SELECT version FROM append_events('crate both', 'b',
	(SELECT jsonb_agg(jsonb_build_object('type', 'Deposited', 'payload', jsonb_build_object('amount', n)) ORDER BY n) FROM generate_series(5, 9) AS n), 4)), 9::bigint, 'a batch');
EXECUTE insert_event('crate both', 'b', 10, 'Deposited', '1.0', '{"amount": 10}', '{}');
SELECT results_eq($$SELECT last_sequence, payload FROM snapshots WHERE aggregate_type = 'crate both' ORDER BY 1$$,
	$$VALUES (8::int8, '{"balance": 36}'::jsonb), (10, '{"balance": 55}')$$, 'keep_snapshots counts ours');
EXECUTE insert_snapshot('crate both', 'b', 9, 1, '{"balance": -1}');
SELECT is(aggregate_state('crate both', 'b'), '{"balance": 55}', 'one of the crate between them changes nothing');
SELECT is(aggregate_state('crate both', 'b', at_sequence => 9), '{"balance": 45}', 'in the past neither');
EXECUTE insert_event('crate both', 'b', 11, 'Deposited', '1.0', '{"amount": 11}', '{}');
EXECUTE insert_event('crate both', 'b', 12, 'Deposited', '1.0', '{"amount": 12}', '{}');
SELECT results_eq($$SELECT last_sequence, payload FROM snapshots WHERE aggregate_type = 'crate both' ORDER BY 1$$,
	$$VALUES (10::int8, '{"balance": 55}'::jsonb), (12, '{"balance": 78}')$$, 'and goes when the next of ours is taken');

-- replay of a whole type

SELECT is((SELECT count(*) FROM events WHERE aggregate_type = 'crate account'), 18::bigint, 'two aggregates');
CREATE TEMPORARY TABLE replayed AS EXECUTE replay_all('crate account', 'not used');
SELECT is((SELECT string_agg(sequence::text, ' ') FROM replayed), '1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 9 10 11', 'in order of sequence');

-- views

EXECUTE insert_view('{"balance": 1}', 1, 'a', 0);
SELECT is(:'SQLSTATE' || ' ' || :ROW_COUNT, '00000 1', 'a view');
SELECT is(pg_temp.error_of($$EXECUTE insert_view('{"balance": 1}', 1, 'a', 0)$$),
	ARRAY['23505', 'duplicate key value violates unique constraint "account_query_pkey"', 'Key (view_id)=(a) already exists.', ''], 'that is there already');
EXECUTE update_view('{"balance": 2}', 2, 'a', 1);
SELECT is(:'SQLSTATE' || ' ' || :ROW_COUNT, '00000 1', 'its update');
EXECUTE update_view('{"balance": 3}', 2, 'a', 1);
SELECT is(:'SQLSTATE' || ' ' || :ROW_COUNT, '00000 0', 'one that is late meets no row');
SELECT results_eq($$SELECT version, payload->>'balance' FROM account_query WHERE view_id = 'a'$$, $$VALUES (2::int8, '2')$$, 'is in the table');

-- what the crate's driver decodes: any other type is an error there

CREATE TEMPORARY TABLE snapshot_read AS EXECUTE select_snapshot('crate both', 'b');
CREATE TEMPORARY TABLE view_read AS EXECUTE select_view('a');
CREATE TEMPORARY TABLE loaded AS EXECUTE load_events('crate account', 'a');
CREATE TEMPORARY TABLE loaded_after AS EXECUTE load_events_after_3('crate account', 'a');
CREATE FUNCTION pg_temp.columns(relation regclass) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(attname || ' ' || atttypid::regtype, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = relation AND attnum > 0 $$;
SELECT is(pg_temp.columns(relation), 'aggregate_type text, aggregate_id text, sequence bigint, event_type text, event_version text, payload jsonb, metadata jsonb',
	'types of ' || relation) FROM unnest('{loaded,loaded_after,replayed}'::regclass[]) AS relation;
SELECT is(pg_temp.columns('snapshot_read'), 'aggregate_type text, aggregate_id text, last_sequence bigint, current_snapshot bigint, payload jsonb', 'of a snapshot');
SELECT is(pg_temp.columns('view_read'), 'version bigint, payload json', 'of a view');

-- no right beyond those above was needed, and none is there

EXECUTE insert_event('crate account', 'a', 12, 'Deposited', '1.0', '{"amount": 1}', '{}');
SELECT is(:'SQLSTATE'::text, '00000', 'to the end');
SELECT throws_ok('DELETE FROM snapshots', '42501', NULL, 'the role may not delete snapshots');
SELECT throws_ok($$UPDATE events SET payload = '{}'$$, '42501', NULL, 'nor change events');
RESET SESSION AUTHORIZATION;
RESET search_path;

-- what is kept equals the replay from the first event

SELECT is_empty($$SELECT s.aggregate_id FROM cqrs_es.snapshots AS s
	WHERE aggregate_type LIKE 'crate %' AND fingerprint IS NOT NULL
	AND (payload->>'balance')::numeric IS DISTINCT FROM (SELECT sum((payload->>'amount')::numeric) FROM cqrs_es.events AS e
		WHERE (e.aggregate_type, e.aggregate_id) = (s.aggregate_type, s.aggregate_id) AND sequence <= last_sequence)$$, 'snapshots');
DELETE FROM cqrs_es.snapshots WHERE aggregate_type LIKE 'crate %';
SELECT is((cqrs_es.aggregate_state(type, id)->>'balance')::numeric, public.balance(type, id), 'state of ' || type || '/' || id)
	FROM (VALUES ('crate account', 'a'), ('crate account', 's'), ('crate both', 'b')) AS s(type, id);
SELECT * FROM finish();

DROP OWNED BY cqrs_es_rust;
DROP ROLE cqrs_es_rust;
DROP TABLE public.account_query;
DROP FUNCTION public.balance;
