\i test/include/setup.sql
-- Appends and commands that tell of a conflict, or a refusal, in a row: nothing is written
-- then, the transaction goes on, and whatever is no conflict is an error as ever.

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT (cqrs_es.try_append_event('try', 'a', 'e', '{}', 0)).outcome AS rr1,
	(cqrs_es.try_append_event('try', 'a', 'e', '{}', 0)).outcome AS rr2 \gset
ROLLBACK;
BEGIN READ ONLY;
SELECT pg_temp.error_of($$SELECT cqrs_es.try_append_event('try', 'a', 'e', '{}', 7)$$, '{state,message}') AS ro1,
	pg_temp.state_of($$SELECT cqrs_es.try_append_events('try', 'a', '[{"type": "e"}]')$$) AS ro2,
	pg_temp.state_of($$SELECT cqrs_es.try_append_event_arrays('try', 'a', '{e}', '{1}')$$) AS ro3,
	pg_temp.state_of($$SELECT cqrs_es.try_execute_command('try', 'a', 'Add')$$) AS ro4 \gset
ROLLBACK;

BEGIN;
SELECT plan(94);

SELECT is(:'rr1' || ' ' || :'rr2', 'appended conflict', 'above READ COMMITTED a conflict within the snapshot is a row, too');
SELECT is(:'ro1'::text, '{25006,"cannot execute try_append_event() in a read-only transaction"}', 'in a read-only transaction it is an error');
SELECT is(:'ro2' || ' ' || :'ro3' || ' ' || :'ro4', '25006 25006 25006', 'of all of them');

-- one event

SELECT results_eq($$SELECT outcome, version, global_position IS NOT NULL FROM cqrs_es.try_append_event('try', 'a', 'opened', '1', 0)$$,
	$$VALUES ('appended', 1::bigint, true)$$, 'an append has its version and position');
SELECT global_position AS changed FROM cqrs_es.try_append_event('try', 'a', 'changed', '2', 1) \gset
SELECT is(global_position, :changed::bigint, 'which is that of the event') FROM cqrs_es.read_stream('try', 'a', 2);
SELECT results_eq($$SELECT * FROM cqrs_es.try_append_event('try', 'a', 'e', '{}', 1)$$,
	$$VALUES ('conflict', 2::bigint, NULL::bigint)$$, 'a conflict has the version at which the stream is, and no position');
SELECT is(cqrs_es.stream_version('try', 'a'), 2::bigint, 'and nothing was written');

-- expected versions, as they are for append_event

CREATE TEMP TABLE expectations (n serial, at bigint, expected bigint, fits boolean);
INSERT INTO expectations (at, expected, fits) VALUES
	(0, NULL, true), (0, 0, true), (0, 1, false), (0, -1, false), (0, 9223372036854775807, false),
	(1, NULL, true), (1, 0, false), (1, 1, true), (1, 2, false), (1, -1, true),
	(3, NULL, true), (3, 0, false), (3, 1, false), (3, 2, false), (3, 3, true), (3, 4, false), (3, -1, true);
CREATE FUNCTION pg_temp.try(id text, at bigint, expected bigint, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
	FOR i IN 1 .. at LOOP PERFORM cqrs_es.append_event('try', id, 'e', '{}', i - 1); END LOOP;
	EXECUTE format(call, id, expected) INTO result;
	RETURN result || ', at ' || cqrs_es.stream_version('try', id);
END $$;
SELECT is(pg_temp.try('expect ' || n || name, at, expected, call),
	CASE WHEN fits THEN format('appended %s, at %1$s', at + added) ELSE format('conflict %s, at %1$s', at) END,
	format('%s at %s expecting %s', name, at, coalesce(expected::text, 'any')))
FROM expectations, (VALUES
	('try_append_event', 1, $$SELECT concat_ws(' ', outcome, version) FROM cqrs_es.try_append_event('try', %1$L, 'e', '{}', %2$L)$$),
	('try_append_events', 2, $$SELECT concat_ws(' ', outcome, version) FROM cqrs_es.try_append_events('try', %1$L, '[{"type": "e", "payload": 1}, {"type": "e", "payload": 2}]', %2$L)$$),
	('try_append_event_arrays', 3, $$SELECT concat_ws(' ', outcome, version) FROM cqrs_es.try_append_event_arrays('try', %1$L, '{e,e,e}', '{1,2,3}', %2$L)$$))
	AS c (name, added, call)
ORDER BY name, n;

-- sent again

SELECT is((cqrs_es.try_append_event('try', 'again', 'e', '1', 0, event_id => '00000000-0000-7000-8000-000000000001')).outcome, 'appended', 'with an id, the first time');
SELECT results_eq($$SELECT * FROM cqrs_es.try_append_event('try', 'again', 'e', '1', 0, event_id => '00000000-0000-7000-8000-000000000001')$$,
	$$SELECT 'repeated', 1::bigint, global_position FROM cqrs_es.events WHERE aggregate_type = 'try' AND aggregate_id = 'again'$$, 'again: the first answer');
SELECT is((cqrs_es.try_append_event('try', 'again', 'e', '2', event_id => '00000000-0000-7000-8000-000000000002')).outcome, 'appended', 'another');
SELECT results_eq($$SELECT outcome, version FROM cqrs_es.try_append_event('try', 'again', 'e', '1', 0, event_id => '00000000-0000-7000-8000-000000000001')$$,
	$$VALUES ('repeated', 1::bigint)$$, 'also when the stream has gone on');
SELECT results_eq($$SELECT outcome, version FROM cqrs_es.try_append_event_arrays('try', 'again', '{e}', '{1}', 0, event_ids => '{00000000-0000-7000-8000-000000000009}')$$,
	$$VALUES ('conflict', 2::bigint)$$, 'another id: a conflict');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.try_append_event('try', 'again', 'e', '9', 0, event_id => '00000000-0000-7000-8000-000000000001')$$), 'QE002',
	'the same id for something else is an error');

-- what is no conflict

SELECT is(pg_temp.state_of($$SELECT cqrs_es.try_append_event('try', '', 'e', '{}', 0)$$), '22023', 'a wrong argument');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.try_append_event('try', 'a', 'e', NULL)$$), '22004', 'a null');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.try_append_event('try', 'a', 'e', '{}', -2)$$), '22023', 'a version that is none');
CREATE TABLE try_rows (n int CHECK (n > 0));
SELECT cqrs_es.create_projection('try', aggregate_types => '{try_projected}', read_models => '{try_rows}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('try', 'e', 'INSERT INTO try_rows VALUES ((event.payload #>> ''{}'')::int)') IS NULL AS x \gset
SELECT is(pg_temp.state_of($$SELECT cqrs_es.try_append_event('try_projected', 'a', 'e', '0', 0)$$), 'QE201', 'a handler that fails');
SELECT is((cqrs_es.try_append_event('try_projected', 'a', 'e', '1', 0)).outcome, 'appended', 'one that does not');
SELECT is((cqrs_es.try_append_event('try_projected', 'a', 'e', '2', 0)).outcome, 'conflict', 'one of an event that does not come');
SELECT is((SELECT array_agg(n) FROM try_rows), '{1}', 'is not called');
CREATE ROLE try_reader;
GRANT USAGE ON SCHEMA cqrs_es TO try_reader;
GRANT SELECT ON cqrs_es.events TO try_reader;
SELECT is(pg_temp.state_of($$SELECT pg_temp.as_role('try_reader', $s$SELECT cqrs_es.try_append_event('try', 'a', 'e', '{}', 0)$s$)$$), '42501', 'who may not append is not told of a conflict');

-- commands

SELECT cqrs_es.create_aggregate('tried', initial_state => '{"total": 0}') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('tried', 'Added', '[{"op": "increment", "path": "/total", "from": "/n"}]') IS NULL AS x \gset
CREATE TABLE try_decided (n int);
CREATE FUNCTION public.try_note(n int) RETURNS boolean LANGUAGE sql AS 'INSERT INTO public.try_decided VALUES (n) RETURNING true';
SELECT cqrs_es.define_command('tried', 'Add', $$
	CASE WHEN public.try_note((command->>'n')::int) AND (command->>'n')::int < 0 THEN cqrs_es.reject('less than nothing', code => 'NEGATIVE')
		WHEN (command->>'n')::int = 0 THEN '[]'::jsonb
		WHEN (command->>'n')::int = 13 THEN cqrs_es.reject('bad luck')
		WHEN (command->>'n')::int = 7 THEN jsonb_build_object('type', 'Added', 'payload', jsonb_build_object('n', 7 / ((command->>'n')::int - 7)))
		ELSE jsonb_build_object('type', 'Added', 'payload', command) END
$$) IS NULL AS x \gset
CREATE FUNCTION pg_temp.outcome_of(n int, expected bigint DEFAULT NULL, id uuid DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', outcome, version, (global_position IS NOT NULL), coalesce(state::text, 'no state'), message, code)
	FROM cqrs_es.try_execute_command('tried', '1', 'Add', jsonb_build_object('n', n), expected, command_id => id)
$$;
SELECT is(pg_temp.outcome_of(5), 'appended 1 t {"total": 5}', 'a command whose events are appended');
SELECT is(pg_temp.outcome_of(0), 'unchanged 1 f {"total": 5}', 'one from which nothing follows');
SELECT is(pg_temp.outcome_of(-1), 'rejected 1 f {"total": 5} less than nothing NEGATIVE', 'one that is rejected, with message and code');
SELECT is(pg_temp.outcome_of(13), 'rejected 1 f {"total": 5} bad luck', 'or without a code');
SELECT is(pg_temp.outcome_of(5, 0), 'conflict 1 f no state', 'one at another version');
SELECT is(pg_temp.outcome_of(-1, 0), 'conflict 1 f no state', 'which is not decided');
SELECT is(pg_temp.outcome_of(-1, 1), 'rejected 1 f {"total": 5} less than nothing NEGATIVE', 'at its version it is');
SELECT is((SELECT array_agg(n ORDER BY n) FROM try_decided), '{0,5}', 'what the decider of a refused command wrote is undone');
SELECT is(cqrs_es.stream_version('tried', '1'), 1::bigint, 'and no event has come of these');
SELECT is(pg_temp.outcome_of(2, id => '00000000-0000-4000-8000-000000000001'), 'appended 2 t {"total": 7}', 'one with an id');
SELECT is(pg_temp.outcome_of(2, id => '00000000-0000-4000-8000-000000000001'), 'repeated 2 t {"total": 7}', 'and sent again');
SELECT is(pg_temp.outcome_of(1), 'appended 3 t {"total": 8}', 'the stream goes on');
SELECT is(pg_temp.outcome_of(2, id => '00000000-0000-4000-8000-000000000001'), 'repeated 2 t {"total": 7}', 'the first answer is that of then');
SELECT is(pg_temp.state_of($$SELECT pg_temp.outcome_of(3, id => '00000000-0000-4000-8000-000000000001')$$), 'QE002', 'its id for something else is an error');
CREATE FUNCTION pg_temp.command_locks() RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objsubid > 2
$$;
SELECT pg_temp.command_locks() AS locks \gset
SELECT is(pg_temp.outcome_of(-3, id => '00000000-0000-4000-8000-000000000002'), 'rejected 3 f {"total": 8} less than nothing NEGATIVE', 'rejected with an id');
SELECT is(pg_temp.outcome_of(4, 1, id => '00000000-0000-4000-8000-000000000003'), 'conflict 3 f no state', 'a conflict with an id');
SELECT is(pg_temp.command_locks(), :locks::bigint, 'neither of them keeps a lock of its command');
SELECT is(pg_temp.error_of($$SELECT pg_temp.outcome_of(7)$$, '{state,message}'), '{22012,"division by zero"}', 'another error of the decider is an error');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.try_execute_command('tried', '1', 'Subtract')$$), 'QE302', 'so is a command that is not defined');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.try_execute_command('untried', '1', 'Add')$$), 'QE101', 'or an aggregate type that is not');

-- the errors are as they were
SELECT is(pg_temp.error_of($$SELECT cqrs_es.execute_command('tried', '1', 'Add', '{"n": -1}')$$, '{state,message}'), '{QE301,"less than nothing"}', 'execute_command raises a refusal');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.execute_command('tried', '1', 'Add', '{"n": 1}', 9)$$, '{state,detail,schema,table,column,datatype}'),
	'{QE001,"Expected version 9, but the stream is at version 3.",tried,1,9,3}', 'and a conflict');

SELECT * FROM finish();
ROLLBACK;
