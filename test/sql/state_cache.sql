\i test/include/setup.sql
-- States that a session keeps for its next commands: what a command is decided on is what
-- a replay gives, whatever has been rolled back, declared or changed meanwhile.
SELECT plan(103);

-- each event says on which sum, and on which version, it was decided; each call of the reducer is counted
CREATE SEQUENCE folds;
CREATE FUNCTION added(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('sum', (state->>'sum')::int + (event.payload->>'by')::int) FROM nextval('public.folds')$$;
CREATE FUNCTION added_twice(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('sum', (state->>'sum')::int + 2 * (event.payload->>'by')::int)$$;
SELECT cqrs_es.create_aggregate('kept', '{"sum": 0}') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('kept', 'Added', 'added') IS NULL AS x \gset
SELECT cqrs_es.define_command('kept', 'Add', $$jsonb_build_object('type', 'Added', 'payload', command || jsonb_build_object('on', (state->>'sum')::int, 'at', version))$$) IS NULL AS x \gset
SELECT cqrs_es.define_command('kept', 'Ask', $$cqrs_es.reject(concat_ws(' ', state->>'sum', 'at', version))$$) IS NULL AS x \gset
SELECT cqrs_es.define_command('kept', 'Look', $$'[]'::jsonb$$) IS NULL AS x \gset

-- a command that adds: on which sum it was decided, and at which version
CREATE FUNCTION pg_temp.add(id text, by int DEFAULT 1) RETURNS text LANGUAGE plpgsql AS $$
DECLARE v bigint; s jsonb;
BEGIN
	SELECT version, state INTO v, s FROM cqrs_es.execute_command('kept', id, 'Add', jsonb_build_object('by', by));
	IF s IS DISTINCT FROM cqrs_es.aggregate_state('kept', id) THEN RETURN 'the result is no replay'; END IF;
	RETURN (SELECT concat_ws(' ', payload->>'on', 'at', payload->>'at') FROM cqrs_es.read_stream('kept', id, v));
END $$;
CREATE FUNCTION pg_temp.ask(id text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.execute_command('kept', id, 'Ask');
	RETURN 'not refused';
EXCEPTION WHEN SQLSTATE 'QE301' THEN RETURN SQLERRM;
END $$;
CREATE FUNCTION pg_temp.append(id text, by int DEFAULT 1, event_id uuid DEFAULT NULL) RETURNS bigint LANGUAGE sql AS
	$$SELECT version FROM cqrs_es.append_event('kept', id, 'Added', jsonb_build_object('by', by), event_id => event_id)$$;
-- how often a statement calls the reducer
CREATE FUNCTION pg_temp.folds(statement text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	PERFORM setval('folds', 1, false);
	EXECUTE statement;
	RETURN nextval('folds') - 1;
END $$;
CREATE FUNCTION pg_temp.kept_bytes() RETURNS bigint LANGUAGE sql AS
	$$SELECT coalesce(sum(total_bytes), 0)::bigint FROM pg_backend_memory_contexts WHERE 'cqrs_es kept states' IN (name, ident)$$;

-- what it spares

SELECT pg_temp.append('a', n) AS x FROM generate_series(1, 10) AS n \g /dev/null
SELECT is(pg_temp.folds($$SELECT cqrs_es.execute_command('kept', 'a', 'Add', '{"by": 1}')$$), 11::bigint, 'the first command of a session replays');
SELECT is(pg_temp.folds($$SELECT cqrs_es.execute_command('kept', 'a', 'Look')$$), CASE current_setting('cqrs_es.force_generic_path') WHEN 'on' THEN 1 ELSE 0 END::bigint,
	'the next one does not; where others may change what is written, it reads what is there');
SELECT is(pg_temp.folds($$SELECT cqrs_es.execute_command('kept', 'a', 'Look')$$), 0::bigint, 'after that it need not do even that');
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('a')$$), 0::bigint, 'a refusal neither');
SELECT is(pg_temp.ask('a'), '56 at 11', 'and it is decided on the state');
SELECT is(pg_temp.folds($$SELECT cqrs_es.execute_command('kept', 'a', 'Add', '{"by": 1}')$$), 1::bigint, 'what a command appends is folded');
SELECT is(pg_temp.append('a', 100), 13::bigint, 'events come');
SELECT is(pg_temp.append('a', 100), 14::bigint, 'from elsewhere');
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('a')$$), CASE current_setting('cqrs_es.force_generic_path') WHEN 'on' THEN 3 ELSE 2 END::bigint, 'they are folded, and only they');
SELECT is(pg_temp.ask('a'), '257 at 14', 'a state of all');
SELECT is(pg_temp.ask('none'), '0 at 0', 'the state of a stream that is not there');
SELECT is(pg_temp.append('none', 5), 1::bigint, 'is no more');
SELECT is(pg_temp.add('none'), '5 at 1', 'when it is there');
SET cqrs_es.state_cache_size = 0;
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('a')$$), 14::bigint, 'a size of 0 keeps none');
SELECT is(pg_temp.kept_bytes(), 0::bigint, 'and gives the memory back');
RESET cqrs_es.state_cache_size;
SELECT cqrs_es.alter_aggregate('kept', snapshot_every => 0) IS NULL AS x \gset
SELECT pg_temp.ask('a') AS x \gset
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('a')$$), 14::bigint, 'nor is one kept of a type that takes no snapshots');
SELECT cqrs_es.alter_aggregate('kept', snapshot_every => 100) IS NULL AS x \gset

-- rolled back

BEGIN;
SELECT is(pg_temp.add('b', 1), '0 at 0', 'a transaction');
SELECT is(pg_temp.add('b', 2), '1 at 1', 'goes on from what it did');
ROLLBACK;
SELECT is(pg_temp.ask('b'), '0 at 0', 'but nobody does when it is rolled back');
SELECT is(pg_temp.add('b', 10), '0 at 0', 'the sequence');
SELECT is(pg_temp.append('b', 20), 2::bigint, 'is another event');
SELECT is(pg_temp.add('b'), '30 at 2', 'and so is the state');
BEGIN;
SAVEPOINT s;
SELECT is(pg_temp.add('b', 1000), '31 at 3', 'a savepoint');
ROLLBACK TO s;
SELECT is(pg_temp.append('b', 1), 4::bigint, 'that is undone');
SELECT is(pg_temp.add('b'), '32 at 4', 'has left nothing');
COMMIT;
DO $$
BEGIN
	PERFORM pg_temp.add('b', 1000);
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
	PERFORM pg_temp.append('b', 1);
END $$;
SELECT is(pg_temp.add('b'), '34 at 6', 'nor has an error that is caught');
-- the same sequence, and the same id; then the same sequence and the same position
BEGIN;
SELECT pg_temp.append('c', 1, '00000000-0000-4000-8000-000000000001') AS x \gset
SELECT is(pg_temp.ask('c'), '1 at 1', 'a state of an event');
ROLLBACK;
SELECT pg_temp.append('c', 2, '00000000-0000-4000-8000-000000000001') AS x \gset
SELECT is(pg_temp.ask('c'), '2 at 1', 'is not that of one with its sequence and its id');
SELECT last_value AS position_before FROM cqrs_es.events_global_position_seq \gset
BEGIN;
SELECT is(pg_temp.add('d', 1), '0 at 0', 'nor');
SELECT global_position AS first FROM cqrs_es.read_stream('kept', 'd') \gset
ROLLBACK;
SELECT setval('cqrs_es.events_global_position_seq', :position_before) AS x \gset
SELECT pg_temp.append('d', 2) AS x \gset
SELECT is(global_position, :first::bigint, 'one with its position') FROM cqrs_es.read_stream('kept', 'd');
SELECT is(pg_temp.ask('d'), '2 at 1', 'and its sequence');

-- declared anew

SELECT is(pg_temp.ask('a'), '257 at 14', 'a state');
SELECT cqrs_es.define_reducer('kept', 'Added', 'added_twice') IS NULL AS x \gset
SELECT is(pg_temp.ask('a'), '514 at 14', 'is not that of another reducer');
BEGIN;
SELECT cqrs_es.define_reducer('kept', 'Added', 'added') IS NULL AS x \gset
SELECT is(pg_temp.ask('a'), '257 at 14', 'nor of one');
ROLLBACK;
SELECT is(pg_temp.ask('a'), '514 at 14', 'that is rolled back');
CREATE OR REPLACE FUNCTION added_twice(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('sum', (state->>'sum')::int + 3 * (event.payload->>'by')::int)$$;
SELECT is(pg_temp.ask('a'), '771 at 14', 'nor of a function that is replaced');
BEGIN;
CREATE OR REPLACE FUNCTION added_twice(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('sum', (state->>'sum')::int + 4 * (event.payload->>'by')::int)$$;
SELECT is(pg_temp.ask('a'), '1028 at 14', 'or was');
ROLLBACK;
SELECT is(pg_temp.ask('a'), '771 at 14', 'for a while');
SELECT cqrs_es.define_reducer('kept', 'Added', '[{"op": "increment", "path": "/sum", "from": "/by"}]'::jsonb) IS NULL AS x \gset
SELECT is(pg_temp.ask('a'), '257 at 14', 'of operations');
SELECT cqrs_es.alter_aggregate('kept', initial_state => '{"sum": 1000}') IS NULL AS x \gset
SELECT is(pg_temp.ask('a'), '1257 at 14', 'of another initial state');
SELECT is(pg_temp.ask('e'), '1000 at 0', 'also before the first event');
SELECT cqrs_es.alter_aggregate('kept', initial_state => '{"sum": 0}') IS NULL AS x \gset
CREATE FUNCTION tenfold(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN jsonb_build_object('by', 10 * (payload->>'by')::int);
SELECT cqrs_es.define_upcaster('Added', '1', '2', 'tenfold(jsonb)'::regprocedure) IS NULL AS x \gset
SELECT is(pg_temp.ask('a'), '2570 at 14', 'of an upcaster');
SELECT cqrs_es.drop_upcaster('Added', '1') IS NULL AS x \gset
SELECT is(pg_temp.ask('a'), '257 at 14', 'that comes and goes');
SELECT cqrs_es.define_reducer('kept', 'Added', 'added') IS NULL AS x \gset

-- changed below the triggers; the documents say: then delete the snapshots

SELECT is(pg_temp.ask('a'), '257 at 14', 'a state is kept');
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE cqrs_es.events SET payload = '{"by": 0}' WHERE aggregate_type = 'kept' AND aggregate_id = 'a' AND sequence <= 10;
DELETE FROM cqrs_es.snapshots WHERE aggregate_type = 'kept' AND aggregate_id = 'a';
COMMIT;
SELECT is(pg_temp.ask('a'), '202 at 14', 'but not when snapshots were deleted');
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('a')$$), 0::bigint, 'again');
-- what a restore leaves of the trigger
SET client_min_messages = error;
ALTER TABLE cqrs_es.snapshots DISABLE TRIGGER ALL, ENABLE TRIGGER ALL;
SELECT is(pg_temp.ask('c'), '2 at 1', 'a state');
BEGIN;
SET LOCAL session_replication_role = replica;
UPDATE cqrs_es.events SET payload = '{"by": 3}' WHERE aggregate_type = 'kept' AND aggregate_id = 'c';
SET LOCAL session_replication_role = origin;
DELETE FROM cqrs_es.snapshots WHERE aggregate_type = 'kept' AND aggregate_id = 'c';
COMMIT;
SELECT is(pg_temp.ask('c'), '3 at 1', 'is forgotten with triggers on, also where the trigger does not fire always');
ALTER TABLE cqrs_es.snapshots ENABLE ALWAYS TRIGGER snapshots_deleted;
SET client_min_messages = warning;
SELECT pg_temp.ask('a') AS x \gset
TRUNCATE cqrs_es.snapshots;
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('a')$$), 14::bigint, 'nor when the table was emptied');
BEGIN;
ALTER TABLE cqrs_es.events DISABLE TRIGGER ALL;
UPDATE cqrs_es.events SET payload = '{"by": 1}' WHERE aggregate_type = 'kept' AND aggregate_id = 'a' AND sequence <= 10;
ALTER TABLE cqrs_es.events ENABLE TRIGGER ALL;
SELECT is(pg_temp.ask('a'), '212 at 14', 'nor when triggers of the log were switched, whatever of its snapshots');
ROLLBACK;
SELECT is(pg_temp.ask('a'), '202 at 14', 'and back');
SELECT cqrs_es.alter_aggregate('kept', snapshot_every => 2) IS NULL AS x \gset
SELECT is(pg_temp.add('f') || ', ' || pg_temp.add('f') || ', ' || pg_temp.add('f') || ', ' || pg_temp.add('f'), '0 at 0, 1 at 1, 2 at 2, 3 at 3', 'snapshots that are replaced');
SELECT is(last_sequence, 4::bigint, 'by newer ones') FROM cqrs_es.snapshots WHERE aggregate_type = 'kept' AND aggregate_id = 'f';
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('a')$$), 0::bigint, 'are not deleted in this sense');
SELECT pg_temp.append('a', n) AS x FROM generate_series(1, 5) AS n \g /dev/null
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('a')$$), 1::bigint, 'a newer snapshot is quicker than many events');
SELECT cqrs_es.alter_aggregate('kept', snapshot_every => 100) IS NULL AS x \gset

-- tenants and roles

SELECT is(pg_temp.add('t', 1), '0 at 0', 'a stream');
SET cqrs_es.tenant_id = 'acme';
SELECT is(pg_temp.add('t', 5), '0 at 0', 'and another tenant''s of its name');
SELECT is(pg_temp.ask('t'), '5 at 1', 'have states');
RESET cqrs_es.tenant_id;
SELECT is(pg_temp.ask('t'), '1 at 1', 'of their own');
BEGIN;
CREATE ROLE state_cache_reader;
GRANT USAGE ON SCHEMA cqrs_es TO state_cache_reader;
GRANT SELECT, INSERT ON cqrs_es.events TO state_cache_reader;
GRANT ALL ON SEQUENCE folds TO state_cache_reader;
SELECT is(pg_temp.ask('a'), '217 at 19', 'a role that sees all');
CREATE POLICY half ON cqrs_es.events AS RESTRICTIVE FOR SELECT TO state_cache_reader USING (sequence <> 3);
SELECT is(pg_temp.ask('a'), '217 at 19', 'has a state, which is kept');
SET LOCAL ROLE state_cache_reader;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.execute_command('kept', 'a', 'Ask')$$), '42501', 'not for one from whom an event is hidden');
SELECT is(pg_temp.folds($$SELECT cqrs_es.execute_command('kept', 't', 'Add', '{"by": 1}')$$), 2::bigint, 'who may see all of a stream reads it');
RESET ROLE;
ROLLBACK;

-- what a reducer saw in a transaction that came to nothing; and the functions that it calls

CREATE FUNCTION helper(n int) RETURNS int LANGUAGE sql AS 'SELECT n';
CREATE FUNCTION added_with_help(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('sum', (state->>'sum')::int + public.helper((event.payload->>'by')::int))$$;
SELECT cqrs_es.define_reducer('kept', 'Added', 'added_with_help') IS NULL AS x \gset
SELECT pg_temp.append('h', 1) AS x \gset
BEGIN;
CREATE OR REPLACE FUNCTION helper(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 1000';
SELECT is(pg_temp.ask('h'), '1000 at 1', 'a function that a reducer calls');
ROLLBACK;
SELECT is(pg_temp.ask('h'), '1 at 1', 'leaves no state when its change is rolled back');
BEGIN;
SAVEPOINT s;
CREATE OR REPLACE FUNCTION helper(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 1000';
SELECT is(pg_temp.ask('h'), '1000 at 1', 'in a subtransaction');
ROLLBACK TO s;
SELECT is(pg_temp.ask('h'), '1 at 1', 'neither');
COMMIT;
CREATE OR REPLACE FUNCTION helper(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 10';
SELECT is(pg_temp.ask('h'), '10 at 1', 'when it is replaced, states are made anew');
CREATE OR REPLACE FUNCTION helper(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 20';
CREATE OR REPLACE FUNCTION added_with_help(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('sum', (state->>'sum')::int + public.helper((event.payload->>'by')::int))$$;
SELECT is(pg_temp.ask('h'), '20 at 1', 'also where the reducer is replaced by its own text');
CREATE FUNCTION pg_temp.change(id text, by int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL session_replication_role = replica;
	UPDATE cqrs_es.events SET payload = jsonb_build_object('by', by) WHERE aggregate_type = 'kept' AND aggregate_id = id;
	SET LOCAL session_replication_role = origin;
END $$;
BEGIN;
DELETE FROM cqrs_es.snapshots;
SAVEPOINT s;
SELECT pg_temp.change('h', 7) IS NULL AS x \gset
SELECT is(pg_temp.ask('h'), '140 at 1', 'events that are changed');
ROLLBACK TO s;
SELECT is(pg_temp.ask('h'), '20 at 1', 'and are as they were again');
DELETE FROM cqrs_es.snapshots;
SAVEPOINT s;
SELECT pg_temp.change('h', 7) IS NULL AS x \gset
SAVEPOINT t;
SELECT is(pg_temp.ask('h'), '140 at 1', 'or were seen by one subtransaction');
RELEASE t;
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('h')$$), 0::bigint, 'of another');
ROLLBACK TO s;
SELECT is(pg_temp.ask('h'), '20 at 1', 'that is undone');
COMMIT;
DELETE FROM cqrs_es.snapshots;
BEGIN;
SELECT pg_temp.change('h', 8) IS NULL AS x \gset
SELECT is(pg_temp.ask('h'), '160 at 1', 'and the whole transaction');
ROLLBACK;
SELECT is(pg_temp.ask('h'), '20 at 1', 'leaves nothing');
-- a restore that was rehearsed
CREATE TEMP TABLE dumped AS SELECT * FROM cqrs_es.events WHERE aggregate_type = 'kept' AND aggregate_id = 'h';
UPDATE dumped SET aggregate_id = 'restored', sequence = 1;
CREATE FUNCTION pg_temp.restore() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL session_replication_role = replica;
	UPDATE cqrs_es.events SET aggregate_id = 'put away' WHERE aggregate_type = 'kept' AND aggregate_id = 'h';
	INSERT INTO cqrs_es.events SELECT * FROM dumped;
	SET LOCAL session_replication_role = origin;
END $$;
BEGIN;
SELECT pg_temp.restore() IS NULL AS x \gset
SELECT is(pg_temp.ask('restored'), '20 at 1', 'a restore');
ROLLBACK;
UPDATE dumped SET payload = '{"by": 2}';
BEGIN;
SELECT pg_temp.restore() IS NULL AS x \gset
COMMIT;
SELECT is(pg_temp.ask('restored'), '40 at 1', 'that is rehearsed');
CREATE OR REPLACE FUNCTION added(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('sum', (state->>'sum')::int + (event.payload->>'by')::int) FROM nextval('public.folds')$$;
SELECT cqrs_es.define_reducer('kept', 'Added', 'added') IS NULL AS x \gset
SELECT is(pg_temp.ask('t'), '1 at 1', 'a state');
BEGIN;
SELECT pg_temp.ask('not there') AS x \gset
ROLLBACK;
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('t')$$), 0::bigint, 'stays, when a transaction that is rolled back has written nothing');

-- REPEATABLE READ: what is kept is used, but nothing is kept, since what its snapshot shows may have been changed

SELECT is(pg_temp.folds($$SELECT pg_temp.ask('a')$$), 19::bigint, 'a state of now');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('a')$$), 0::bigint, 'is good for a snapshot that shows its events');
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('b')$$), 7::bigint, 'one of that');
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('b')$$), 7::bigint, 'is not kept');
COMMIT;

-- deciders and handlers that come between

CREATE FUNCTION nested(id text, how text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF how = 'append' THEN PERFORM cqrs_es.append_event('kept', id, 'Added', '{"by": 7}');
	ELSIF how = 'command' THEN PERFORM cqrs_es.execute_command('kept', id, 'Add', '{"by": 7}');
	ELSIF how = 'redefine' THEN PERFORM cqrs_es.define_reducer('kept', 'Added', 'added_twice');
	ELSIF how = 'replace' THEN
		CREATE OR REPLACE FUNCTION added(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $body$SELECT '{"sum": 9000}'::jsonb$body$;
	ELSIF how = 'upcast' THEN PERFORM cqrs_es.define_upcaster('Added', '1', '2', 'public.tenfold(jsonb)'::regprocedure);
	ELSIF how = 'reindex' THEN REINDEX TABLE cqrs_es.events;
	ELSIF how = 'forget' THEN DELETE FROM cqrs_es.snapshots;
	END IF;
	RETURN '{"type": "Added", "payload": {"by": 1}}';
END $$;
SELECT cqrs_es.define_command('kept', 'Nest', $$nested(aggregate_id, command->>'how')$$) IS NULL AS x \gset
SELECT is(pg_temp.state_of($$SELECT cqrs_es.execute_command('kept', 'n', 'Nest', '{"how": "append"}')$$), 'QE001', 'a decider that appends to the stream is in its own way');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.execute_command('kept', 'n', 'Nest', '{"how": "command"}')$$), 'QE001', 'as is one that sends it a command');
SELECT is(pg_temp.ask('n'), '0 at 0', 'of which nothing stays');
BEGIN;
SELECT is(cqrs_es.execute_command('kept', 'n', 'Nest', '{"how": "redefine"}') IS NULL, false, 'one that changes the reducer');
SELECT is(pg_temp.ask('n'), cqrs_es.aggregate_state('kept', 'n') ->> 'sum' || ' at 1', 'leaves no mixture');
ROLLBACK;
BEGIN;
SELECT is((cqrs_es.execute_command('kept', 'n', 'Nest', '{"how": "forget"}')).version, 1::bigint, 'one that deletes snapshots');
-- within the transaction: at its end the session hears of it once more
SELECT is(pg_temp.folds($$SELECT pg_temp.ask('n')$$), 1::bigint, 'leaves no state');
COMMIT;

-- the index has become so short that the page is not there any more on which the stream ended
SELECT pg_temp.append('z' || n % 10 || n) AS x FROM generate_series(1, 1000) AS n \g /dev/null
SELECT pg_temp.append('zz') AS x \gset
SET session_replication_role = replica;
DELETE FROM cqrs_es.events WHERE aggregate_type = 'kept' AND aggregate_id ~ '^z[0-9]';
RESET session_replication_role;
SELECT is((cqrs_es.execute_command('kept', 'zz', 'Nest', '{"how": "reindex"}')).version, 2::bigint, 'the end of the stream is found in an index that a decider has made anew');

SELECT is((cqrs_es.execute_command('kept', 'n', 'Nest', '{"how": "replace"}')).version, 2::bigint, 'nor does one that replaces its function');
CREATE OR REPLACE FUNCTION added(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('sum', (state->>'sum')::int + (event.payload->>'by')::int) FROM nextval('public.folds')$$;
SELECT is(pg_temp.ask('n'), '2 at 2', 'when that is again what it was');
SELECT is((cqrs_es.execute_command('kept', 'n', 'Nest', '{"how": "upcast"}')).version, 3::bigint, 'nor one that has events lifted from then on');
SELECT cqrs_es.drop_upcaster('Added', '1') IS NULL AS x \gset
SELECT is(pg_temp.ask('n'), '3 at 3', 'when they are lifted no more');
BEGIN;
CREATE FUNCTION pg_temp.more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.payload := '{"by": 500}'; RETURN NEW; END $$;
CREATE TRIGGER more BEFORE INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION pg_temp.more();
SELECT cqrs_es.execute_command('kept', 'n', 'Add', '{"by": 1}') AS x \gset
SELECT is(pg_temp.ask('n'), '503 at 4', 'what a trigger of somebody makes of an event counts');
ROLLBACK;

-- the property: whatever is done and undone, a command is decided on the sum of the events there are

CREATE FUNCTION pg_temp.random_step(id text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE n int := floor(random() * 10); undo boolean := random() < 0.3;
BEGIN
	IF n < 4 THEN PERFORM cqrs_es.execute_command('kept', id, 'Add', jsonb_build_object('by', floor(random() * 100)));
	ELSIF n < 6 THEN PERFORM pg_temp.append(id, floor(random() * 100)::int);
	ELSIF n = 6 THEN PERFORM cqrs_es.append_events('kept', id, (SELECT jsonb_agg('{"type": "Added", "payload": {"by": 1}}'::jsonb) FROM generate_series(1, floor(random() * 9)::int + 1)));
	ELSIF n = 7 THEN PERFORM cqrs_es.define_reducer('kept', 'Added', (ARRAY['added', 'added_twice'])[floor(random() * 2) + 1]);
	ELSIF n = 8 THEN PERFORM cqrs_es.alter_aggregate('kept', initial_state => jsonb_build_object('sum', floor(random() * 3)), snapshot_every => floor(random() * 12)::int);
	ELSE DELETE FROM cqrs_es.snapshots WHERE random() < 0.5;
	END IF;
	IF random() < 0.5 THEN PERFORM pg_temp.ask(id); END IF;
	IF undo THEN RAISE EXCEPTION USING ERRCODE = 'ZZ002'; END IF;
EXCEPTION WHEN SQLSTATE 'ZZ002' THEN NULL;
END $$;
CREATE FUNCTION pg_temp.sum_of(id text) RETURNS text LANGUAGE sql AS $$
	SELECT (SELECT (initial_state->>'sum')::int FROM cqrs_es.aggregates WHERE aggregate_type = 'kept')
		+ coalesce(sum((e.payload->>'by')::int), 0) * (SELECT CASE WHEN function LIKE '%added_twice%' THEN 3 ELSE 1 END FROM cqrs_es.reducers WHERE aggregate_type = 'kept')
		|| ' at ' || count(*) FROM cqrs_es.events e WHERE aggregate_type = 'kept' AND aggregate_id = id $$;
CREATE FUNCTION pg_temp.random_steps(steps int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE id text;
BEGIN
	FOR i IN 1 .. steps LOOP
		id := 'random ' || floor(random() * 4);
		PERFORM pg_temp.random_step(id);
		IF pg_temp.ask(id) IS DISTINCT FROM pg_temp.sum_of(id) THEN RETURN NEXT format('%s: %s, decided on %s', i, pg_temp.sum_of(id), pg_temp.ask(id)); END IF;
	END LOOP;
END $$;
SELECT setseed(0.42) IS NULL AS x \gset
SELECT is_empty('SELECT pg_temp.random_steps(1000)', 'after random steps in one transaction');
DO $$
BEGIN
	FOR i IN 1 .. 300 LOOP
		PERFORM pg_temp.random_step('committed ' || i % 4);
		IF random() < 0.2 THEN ROLLBACK; ELSE COMMIT; END IF;
		IF pg_temp.ask('committed ' || i % 4) <> pg_temp.sum_of('committed ' || i % 4) THEN
			PERFORM set_config('test.wrong', i::text, false);
			EXIT;
		END IF;
	END LOOP;
END $$;
SELECT is(current_setting('test.wrong', true), NULL, 'and in many');

-- memory

SET cqrs_es.state_cache_size = '256kB';
SELECT cqrs_es.create_aggregate('large', '{}') IS NULL AS x \gset
SELECT cqrs_es.define_command('large', 'Grow', $$jsonb_build_object('type', 'Grown', 'payload', jsonb_build_object('text', repeat('x', (command->>'bytes')::int)))$$) IS NULL AS x \gset
SELECT count(cqrs_es.execute_command('large', n::text, 'Grow', jsonb_build_object('bytes', 1 << (n % 17)))) AS x FROM generate_series(1, 2000) AS n \gset
SELECT cmp_ok(pg_temp.kept_bytes(), '<=', 300 * 1024::bigint, 'states of all sizes take no more memory than they may');
SELECT cmp_ok(pg_temp.kept_bytes(), '>', 64 * 1024::bigint, 'and do take some');
SET cqrs_es.state_cache_size = '64kB';
SELECT pg_temp.ask('a') AS x \gset
SELECT cmp_ok(pg_temp.kept_bytes(), '<=', 64 * 1024::bigint, 'a smaller size is kept to at once');
RESET cqrs_es.state_cache_size;

-- what was rolled back at the end of a stream

\i test/include/buffers.sql
SELECT pg_temp.append('dead', 1) AS x \gset
SELECT cqrs_es.execute_command('kept', 'dead', 'Look') AS x \gset
SELECT pg_temp.buffers($$SELECT cqrs_es.execute_command('kept', 'dead', 'Look')$$) AS alive \gset
BEGIN;
SELECT count(cqrs_es.append_event('kept', 'dead', 'Added', '{"by": 1}')) AS x FROM generate_series(1, 60) \gset
ROLLBACK;
SELECT pg_temp.buffers($$SELECT cqrs_es.execute_command('kept', 'dead', 'Look')$$) AS x \gset
SELECT cmp_ok(pg_temp.buffers($$SELECT cqrs_es.execute_command('kept', 'dead', 'Look')$$), '<=', :alive + 20::bigint, 'is walked over once');

SELECT * FROM finish();
