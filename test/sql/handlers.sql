\i test/include/setup.sql
-- What a projection does for an event: functions, '*', handlers that append, and how deep.
BEGIN;
SELECT plan(124);
CREATE FUNCTION pg_temp.append(id text, event_type text, payload jsonb DEFAULT '{}', type text DEFAULT 'h') RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.append_event(type, id, event_type, payload) $$;
-- what every projection below notes: who saw which event
CREATE TABLE seen (n serial, projection text, event_type text, position bigint, note text);
CREATE FUNCTION note(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$
	INSERT INTO seen (projection, event_type, position) VALUES ('function', e.event_type, e.global_position) $$;

-- functions

SELECT cqrs_es.create_projection('function', '{h}', '{seen}') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.define_handler('function', 'noted', 'note(cqrs_es.event)')$$, 'a function is named by its signature');
SELECT is(function, 'public.note(cqrs_es.event)', 'and kept by the qualified one') FROM cqrs_es.handlers WHERE projection = 'function';
SELECT pg_temp.append('a', 'noted') IS NULL AS x \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('h', 'a', 'noted', '{}');
SELECT results_eq('SELECT projection, event_type FROM seen', $$VALUES ('function', 'noted'), ('function', 'noted')$$, 'it is called with the event');
CREATE SCHEMA "of, mine";
CREATE FUNCTION "of, mine"."no(te"(event cqrs_es.event, OUT x integer) LANGUAGE sql AS $$
	INSERT INTO public.seen (projection, event_type) VALUES ('quoted', (event).event_type) RETURNING 1 $$;
SELECT lives_ok($$SELECT cqrs_es.define_handler('function', 'quoted', '"of, mine"."no(te"(cqrs_es.event)')$$, 'a name that needs quotes');
SELECT pg_temp.append('a', 'quoted') IS NULL AS x \gset
SELECT is(count(*), 1::bigint, 'is called, too') FROM seen WHERE projection = 'quoted';
CREATE FUNCTION two(e cqrs_es.event, n integer DEFAULT 1) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION many(e cqrs_es.event) RETURNS SETOF integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION other(e jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE PROCEDURE procedure(e cqrs_es.event) LANGUAGE sql AS 'SELECT';
CREATE AGGREGATE aggregate(cqrs_es.event) (SFUNC = array_append, STYPE = cqrs_es.event[]);
SELECT is((pg_temp.error_of(format('SELECT cqrs_es.define_handler(%L, %L, %L)', 'function', 'bad', handler)))[1], state, format('%s: %s', state, handler))
FROM (VALUES (1, 'two(cqrs_es.event, integer)', '42P13'), (2, 'many(cqrs_es.event)', '42P13'), (3, 'other(jsonb)', '42P13'), (4, 'note(cqrs_es.events)', '42883'),
	(5, 'procedure(cqrs_es.event)', '42P13'), (6, 'aggregate(cqrs_es.event)', '42P13'), (7, 'nowhere(cqrs_es.event)', '42883'), (8, 'note(', '42602'), (9, 'note()', '42883'),
	(10, '()', '42601'), (11, '', '42601'), (12, ';', '42601'), (13, 'noted', '42883'), (14, 'SELECT note(event)', '0A000'), (15, 'CALL procedure(event)', '0A000'),
	(16, 'VALUES (1)', '0A000'), (17, 'DELETE FROM seen; DELETE FROM seen', '42601'), (18, 'DELETE FROM seen RETURNING n', '0A000'), (19, 'TRUNCATE seen', '0A000'),
	(20, 'INSERT INTO seen (note) VALUES (event.nothing)', '42703'), (21, 'INSERT INTO seen (note) VALUES ($1)', '42P02'), (22, 'DELETE FROM seen AS event WHERE event.n = 1', '42702')) t (n, handler, state)
ORDER BY n;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.define_handler('function', 'bad', 'two(cqrs_es.event, integer)')$$))[2:3],
	ARRAY['function two(cqrs_es.event,integer) does not fit', 'A handler is a function (event cqrs_es.event).'], 'in these words');
SELECT is(pg_temp.error_of(format('SELECT cqrs_es.define_handler(%L, %L, %L)', 'function', 'bad', handler), '{state,message,hint}'), ARRAY['42703', message, hint], 'it says how: ' || handler)
FROM (VALUES (1, 'INSERT INTO seen (note) VALUES (event.amount)', 'an event has no field "amount"', 'Fields of the payload are reached as event.payload->>''amount''.'),
	(2, 'INSERT INTO seen (note) VALUES (event.payload.amount)', 'an event has no field "payload.amount"', 'Fields of JSON are reached as event.payload->>''amount''.'),
	(3, 'INSERT INTO seen (note) SELECT x FROM (SELECT event.metadata."by") AS s (x)', 'an event has no field "metadata.by"', 'Fields of JSON are reached as event.metadata->>''by''.'),
	(4, 'INSERT INTO seen (note) VALUES (payload->>''amount'')', 'column "payload" does not exist', 'The field of the event is event.payload.'),
	(5, 'DELETE FROM seen WHERE seen.note = aggregate_id', 'column "aggregate_id" does not exist', 'The field of the event is event.aggregate_id.'),
	(6, 'DELETE FROM seen WHERE note = amount', 'column "amount" does not exist', '')) AS t (n, handler, message, hint) ORDER BY n;
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.define_handler(%L, %L, %L)', 'function', 'good', handler)), 'none', 'a column of its own is none of the event: ' || handler)
FROM (VALUES (1, 'DELETE FROM seen WHERE event_type = event.event_type'), (2, 'INSERT INTO seen (note) SELECT payload FROM (SELECT event.payload->>''x'' AS payload ORDER BY payload) AS s ORDER BY payload')) AS t (n, handler) ORDER BY n;
SELECT throws_ok($$SELECT cqrs_es.define_handler('function', 'bad', NULL)$$, '22004', NULL, 'null');
SELECT throws_ok($$SELECT cqrs_es.define_handler('function', '', 'DELETE FROM seen')$$, '22023', NULL, 'an empty event type');
SELECT throws_ok($$DROP FUNCTION note$$, '2BP01', NULL, 'a function in use is not dropped');
SELECT throws_ok($$DROP SCHEMA "of, mine" CASCADE$$, '2BP01', NULL, 'nor with its schema');
SAVEPOINT s;
ALTER EVENT TRIGGER cqrs_es_protect_function_names DISABLE;
ALTER FUNCTION note RENAME TO noted;
ALTER EVENT TRIGGER cqrs_es_protect_function_names ENABLE;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('a', 'noted')$$))[1:3],
	ARRAY['QE201', 'projection "function" failed on event 4 (noted) of stream "h/a"', 'function public.note(cqrs_es.event) does not exist (SQLSTATE 42883)'], 'a renamed function is missed');
SELECT is(cqrs_es.projection_errors('function'), ARRAY['function public.note(cqrs_es.event) does not exist (SQLSTATE 42883)'], 'and reported');
CREATE FUNCTION note(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$INSERT INTO seen (projection) VALUES ('renamed')$$;
SELECT pg_temp.append('a', 'noted') IS NULL AS x \gset
SELECT is(count(*), 1::bigint, 'until there is one of its name') FROM seen WHERE projection = 'renamed';
ROLLBACK TO s;
CREATE OR REPLACE FUNCTION note(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$
	INSERT INTO seen (projection, event_type, position) VALUES ('replaced', e.event_type, e.global_position) $$;
SELECT pg_temp.append('a', 'noted') IS NULL AS x \gset
SELECT is(count(*), 1::bigint, 'a replaced one counts from the next event on') FROM seen WHERE projection = 'replaced';
SELECT lives_ok($$SELECT cqrs_es.drop_handler('function', 'quoted')$$, 'drop_handler');
SELECT throws_ok($$SELECT cqrs_es.drop_handler('function', 'quoted')$$, '42704', NULL, 'a handler that is not there');
SELECT lives_ok($$DROP SCHEMA "of, mine" CASCADE$$, 'frees the function');
SELECT pg_temp.append('a', 'quoted') IS NULL AS x \gset
SELECT is(count(*), 1::bigint, 'and nothing happens any more') FROM seen WHERE projection = 'quoted';
CREATE FUNCTION guarded(e cqrs_es.event) RETURNS void LANGUAGE sql AS 'SELECT';
REVOKE EXECUTE ON FUNCTION guarded FROM PUBLIC;
CREATE ROLE cqrs_es_handler;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_handler;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.drop_handler TO cqrs_es_handler;
SET ROLE cqrs_es_handler;
SELECT cqrs_es.create_projection('theirs', '{theirs}') IS NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.define_handler('theirs', 'e', 'guarded(cqrs_es.event)')$$, '42501', NULL, 'a function that its definer may not call');
SELECT throws_ok($$SELECT cqrs_es.drop_handler('function', 'noted')$$, '42501', NULL, 'a handler of somebody else''s projection');
RESET ROLE;
SELECT cqrs_es.drop_projection('function') IS NULL AS x, cqrs_es.drop_projection('theirs') IS NULL AS y \gset
DELETE FROM seen;

-- for all event types, and in which order

SELECT cqrs_es.create_projection(p, '{h}') IS NULL AS x FROM unnest('{second,first}'::text[]) p
\g /dev/null
SELECT cqrs_es.define_handler(p, t, format('INSERT INTO seen (projection, event_type, position, note) VALUES (%L, event.event_type, event.global_position, %L)', p, t))
FROM unnest('{second,first}'::text[]) p, unnest('{!early,*,zeta}'::text[]) t
\g /dev/null
SELECT cqrs_es.append_events('h', 'all', '[{"type": "zeta", "payload": 1}, {"type": "anything", "payload": 2}, {"type": "!early", "payload": 3}]') IS NULL AS x \gset
SELECT is(string_agg(format('%s/%s/%s', event_type, projection, note), ' ' ORDER BY n),
	'zeta/first/* zeta/first/zeta zeta/second/* zeta/second/zeta anything/first/* anything/second/* !early/first/* !early/first/!early !early/second/* !early/second/!early',
	'by events, by the names of projections, * first') FROM seen;
SELECT cqrs_es.append_event('h', 'all', '*', '{}') IS NULL AS x \gset
SELECT is(count(*), 2::bigint, 'an event of the type * is handled once by each') FROM seen WHERE event_type = '*';
SELECT cqrs_es.drop_handler('first', '*') IS NULL AS x \gset
DELETE FROM seen;
SELECT pg_temp.append('all', 'anything') IS NULL AS x \gset
SELECT is(string_agg(projection, ' '), 'second', 'without *') FROM seen;
SELECT cqrs_es.drop_projection(p) IS NULL AS x FROM unnest('{second,first}'::text[]) p
\g /dev/null
DELETE FROM seen;

-- handlers that append, in every way, to every way of appending

SELECT cqrs_es.create_aggregate('h', '{"n": 0}', snapshot_every => 2) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('h', 'tick', '[{"op": "increment", "path": "/n"}]') IS NULL AS x \gset
SELECT cqrs_es.define_command('h', 'tick', $$jsonb_build_object('type', 'leaf', 'payload', command)$$) IS NULL AS x \gset
CREATE FUNCTION react(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CASE e.payload->>'how'
	WHEN 'append' THEN
		PERFORM cqrs_es.append_event('h', e.aggregate_id || '+', 'leaf', '{}');
	WHEN 'insert' THEN
		INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
		SELECT 'h', e.aggregate_id || '+', 'leaf', '{}' FROM generate_series(1, 3);
	WHEN 'batch' THEN
		PERFORM cqrs_es.append_events('h', e.aggregate_id || '+', '[{"type": "leaf", "payload": {"x": 1}}, {"type": "tick", "payload": {"how": "append"}}, {"type": "leaf", "payload": {"x": 3}}]');
	WHEN 'command' THEN
		PERFORM cqrs_es.execute_command('h', e.aggregate_id || '+', 'tick', '{"x": 1}');
	WHEN 'same' THEN
		PERFORM cqrs_es.append_event('h', e.aggregate_id, 'leaf', '{}');
	WHEN 'rolled back' THEN
		BEGIN
			PERFORM cqrs_es.append_event('h', e.aggregate_id || '+', 'leaf', '{"kept": false}');
			INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('h', e.aggregate_id || '+', 'leaf', '{"kept": false}');
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
			PERFORM cqrs_es.append_event('h', e.aggregate_id || '+', 'leaf', '{"kept": true}');
		END;
	WHEN 'kept' THEN
		PERFORM cqrs_es.append_event('h', e.aggregate_id || '+', 'leaf', '{"kept": 1}');
		BEGIN
			PERFORM cqrs_es.append_event('h', e.aggregate_id || '+', 'leaf', '{"kept": 2}');
		EXCEPTION WHEN OTHERS THEN
			RAISE;
		END;
		BEGIN
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
		END;
	WHEN 'fail' THEN
		PERFORM cqrs_es.append_event('h', e.aggregate_id || '+', 'leaf', '{}');
		RAISE division_by_zero;
	ELSE
		NULL;
	END CASE;
END $$;
CREATE TABLE states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
SELECT cqrs_es.create_projection('1', '{h}') IS NULL AS a, cqrs_es.create_projection('2 reactor', '{h}') IS NULL AS b, cqrs_es.create_projection('3', '{h}') IS NULL AS c,
	cqrs_es.create_projection('states', read_models => '{states}', state_of => 'h') IS NULL AS d \gset
SELECT cqrs_es.define_handler(p, '*', format('INSERT INTO seen (projection, event_type, position) VALUES (%L, event.event_type, event.global_position)', p)) FROM unnest('{1,3}'::text[]) p
\g /dev/null
SELECT cqrs_es.define_handler('2 reactor', 'tick', 'react(cqrs_es.event)') IS NULL AS x \gset
-- one row a projection that did not see just the events of the log since a position, in order; and states that are not those of the log
CREATE FUNCTION pg_temp.differences(after_position bigint) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT format('%s saw %s instead of %s', p, saw, positions)
	FROM (SELECT coalesce(string_agg(global_position::text, ' ' ORDER BY global_position), '') AS positions
		FROM cqrs_es.events WHERE aggregate_type = 'h' AND global_position > after_position) e,
	unnest('{1,3}'::text[]) p, LATERAL (SELECT coalesce(string_agg(position::text, ' ' ORDER BY n), '') AS saw FROM seen WHERE projection = p AND position > after_position) s
	WHERE saw <> positions
	UNION ALL
	SELECT format('%s: %s instead of %s', view_id, to_jsonb(states), to_jsonb(l))
	FROM (SELECT DISTINCT aggregate_id AS view_id FROM cqrs_es.events WHERE aggregate_type = 'h' AND global_position > after_position) e
	LEFT JOIN states USING (view_id), LATERAL cqrs_es.load_aggregate('h', view_id) l
	WHERE (states.version, states.payload) IS DISTINCT FROM (l.version, l.state)
$$;
CREATE FUNCTION pg_temp.start(how text, way integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE id text := how || way; payload jsonb := jsonb_build_object('how', how);
BEGIN
	IF way = 1 THEN
		PERFORM cqrs_es.append_event('h', id, 'tick', payload);
	ELSIF way = 2 THEN
		PERFORM cqrs_es.append_event_arrays('h', id, '{tick,leaf,tick}', array_fill(payload, ARRAY[3]));
	ELSE
		INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'h', id, t, payload FROM unnest('{tick,leaf,tick}'::text[]) t;
	END IF;
END $$;
CREATE FUNCTION pg_temp.last() RETURNS bigint LANGUAGE sql AS 'SELECT coalesce(max(global_position), 0) FROM cqrs_es.events';
CREATE FUNCTION pg_temp.tried(how text, way integer) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE after_position bigint := pg_temp.last(); n integer := CASE way WHEN 1 THEN 1 ELSE 2 END;
BEGIN
	PERFORM pg_temp.start(how, way);
	-- what the reactions are, by how often it reacted
	RETURN QUERY SELECT is((SELECT count(*) FROM cqrs_es.events WHERE global_position > after_position) - CASE way WHEN 1 THEN 1 ELSE 3 END,
		(n * CASE how WHEN 'insert' THEN 3 WHEN 'batch' THEN 4 WHEN 'kept' THEN 2 WHEN 'nothing' THEN 0 ELSE 1 END)::bigint, format('%s, way %s: reactions', how, way));
	RETURN QUERY SELECT is_empty(format('SELECT pg_temp.differences(%s)', after_position), 'all projections see all events, in the order of the log');
END $$;
SELECT tried FROM unnest('{append,insert,batch,command,same,rolled back,kept,nothing}'::text[]) WITH ORDINALITY w (how, n), generate_series(1, 3) way, LATERAL pg_temp.tried(how, way) tried
ORDER BY n, way;
SELECT pg_temp.last() AS before \gset
\copy cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) from stdin
h	copied	tick	{"how": "append"}
h	copied	leaf	{"x": 1}
h	copied	tick	{"how": "batch"}
h	other	tick	{"how": "same"}
\.
SELECT is(count(*), 10::bigint, 'COPY: reactions') FROM cqrs_es.events WHERE global_position > :before;
SELECT is_empty(format('SELECT pg_temp.differences(%s)', :before), 'all projections see all events, in the order of the log');
SELECT is_empty($$SELECT sequence FROM cqrs_es.events WHERE payload->>'kept' = 'false'$$, 'what a subtransaction of a handler appended and rolled back is not there');

-- errors that are caught, and going on

SELECT pg_temp.last() AS before \gset
CREATE FUNCTION pg_temp.caught() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE way integer;
BEGIN
	FOR way IN 1 .. 3 LOOP
		BEGIN
			PERFORM pg_temp.start('fail', way);
		EXCEPTION WHEN OTHERS THEN
			RETURN NEXT SQLSTATE;
		END;
		BEGIN
			PERFORM pg_temp.start('append', way);
			RAISE sqlstate 'P0ABC';
		EXCEPTION WHEN sqlstate 'P0ABC' THEN
			RETURN NEXT SQLSTATE;
		END;
		PERFORM pg_temp.start('append', way);
	END LOOP;
END $$;
SELECT results_eq('SELECT pg_temp.caught()', $$VALUES ('QE201'), ('P0ABC'), ('QE201'), ('P0ABC'), ('QE201'), ('P0ABC')$$, 'handlers that fail, and appends that are rolled back');
SELECT is_empty(format('SELECT pg_temp.differences(%s)', :before), 'leave nothing behind');
SELECT is(count(*), 12::bigint, 'what was appended in between is there') FROM cqrs_es.events WHERE global_position > :before;
SELECT pg_temp.last() AS before \gset
SAVEPOINT s;
SELECT pg_temp.start('insert', 3) IS NULL AS x \gset
ROLLBACK TO s;
SELECT pg_temp.start('batch', 2) IS NULL AS x \gset
SAVEPOINT s2;
SELECT pg_temp.start('insert', 3) IS NULL AS x \gset
SELECT pg_temp.error_of($$SELECT pg_temp.start('fail', 2)$$) IS NULL AS x \gset
SELECT pg_temp.start('insert', 2) IS NULL AS x \gset
RELEASE s2;
SELECT is_empty(format('SELECT pg_temp.differences(%s)', :before), 'savepoints');

-- how deep

CREATE FUNCTION chain(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF e.payload::int > 0 THEN
		PERFORM cqrs_es.append_event('chain', e.aggregate_id, 'link' || (e.payload #>> '{}'), to_jsonb(e.payload::int - 1));
	END IF;
END $$;
SELECT cqrs_es.create_projection('chain', '{chain}') IS NULL AS x, cqrs_es.define_handler('chain', '*', 'chain(cqrs_es.event)') IS NULL AS y \gset
SELECT lives_ok($$SELECT pg_temp.append('sixteen', 'first', '16', 'chain')$$, 'sixteen deep');
SELECT is(cqrs_es.stream_version('chain', 'sixteen'), 17::bigint, 'all are there');
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('seventeen', 'first', '17', 'chain')$$))[1:2], ARRAY['QE202', 'handlers that append events go deeper than 16'], 'one more is too deep');
SELECT is(cqrs_es.stream_version('chain', 'seventeen'), 0::bigint, 'none is there');
SET LOCAL cqrs_es.max_handler_depth = 2;
SELECT is(pg_temp.error_of($$SELECT pg_temp.append('a', 'first', '3', 'chain')$$),
	ARRAY['QE202', 'handlers that append events go deeper than 2', 'Projections, and the events they handle: chain (first) -> chain (link3) -> chain (link2).',
		'The limit is cqrs_es.max_handler_depth.'], 'a chain that is no cycle');
SELECT lives_ok($$SELECT pg_temp.append('b', 'first', '2', 'chain')$$, 'it may be long enough');
SET LOCAL cqrs_es.max_handler_depth = 0;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('a', 'first', '1', 'chain')$$))[1:3],
	ARRAY['QE202', 'handlers that append events go deeper than 0', 'Projections, and the events they handle: chain (first).'], 'with 0 no handler may append');
SELECT lives_ok($$SELECT pg_temp.append('a', 'first', '0', 'chain')$$, 'though it may handle');
SELECT throws_ok('SET cqrs_es.max_handler_depth = -1', '22023', NULL, 'no less than that');
SET LOCAL cqrs_es.max_handler_depth = 5;
CREATE FUNCTION ping(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$SELECT cqrs_es.append_event('ping', e.aggregate_id, 'ping', '{}')$$;
CREATE FUNCTION pong(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$
	INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('ping', e.aggregate_id, 'pong', '{}')$$;
SELECT cqrs_es.create_projection('pinger', '{ping}') IS NULL AS a, cqrs_es.define_handler('pinger', 'pong', 'ping(cqrs_es.event)') IS NULL AS b,
	cqrs_es.define_handler('pinger', 'start', 'ping(cqrs_es.event)') IS NULL AS c, cqrs_es.create_projection('ponger', '{ping}') IS NULL AS d,
	cqrs_es.define_handler('ponger', 'ping', 'pong(cqrs_es.event)') IS NULL AS e \gset
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('a', 'start', '{}', 'ping')$$))[1:3],
	ARRAY['QE202', 'handlers that append events go deeper than 5', 'They feed each other: ponger (ping) -> pinger (pong) -> ponger (ping).'], 'a cycle is shown from where it goes round');
SELECT is((pg_temp.error_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'ping', 'a', 'start', '{}' FROM generate_series(1, 3)$$))[1], 'QE202', 'in a plain INSERT, too');
SELECT is(cqrs_es.stream_version('ping', 'a'), 0::bigint, 'which leaves nothing');
SET LOCAL cqrs_es.max_handler_depth = 1000;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('a', 'start', '{}', 'ping')$$))[1:2], ARRAY['QE202', 'handlers that append events go deeper than 1000'], 'a thousand deep is no recursion');
RESET cqrs_es.max_handler_depth;
SELECT pg_temp.last() AS before \gset
SELECT pg_temp.start('batch', 2) IS NULL AS x \gset
SELECT is_empty(format('SELECT pg_temp.differences(%s)', :before), 'after all that events reach the projections as ever');

-- reducers that append

CREATE FUNCTION breeding(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.append_event('breed', event.aggregate_id || '+', 'bred', '{}');
	RETURN state;
END $$;
SELECT cqrs_es.create_aggregate('breed', snapshot_every => 1) IS NULL AS x, cqrs_es.define_reducer('breed', 'bred', 'breeding(jsonb, cqrs_es.event)') IS NULL AS y \gset
SET LOCAL client_min_messages = error;
SET LOCAL statement_timeout = '10s';
SELECT lives_ok($$SELECT pg_temp.append('b', 'bred', '{}', 'breed')$$, 'a reducer that appends what it folds does not go on for ever');
SELECT is(count(*), 17::bigint, 'but as long as handlers may') FROM cqrs_es.events WHERE aggregate_type = 'breed';
RESET statement_timeout;
RESET client_min_messages;
SELECT finish();
ROLLBACK;
