\i test/include/setup.sql
-- What somebody learns from errors, messages and views that they should not: events that policies hide, whether something
-- exists, what a definer's code tells the server's log. (Errors of handlers: definer_errors.sql; statistics: attack_tenants.sql.)

SELECT plan(24);
CREATE ROLE cqrs_es_architect;
CREATE ROLE cqrs_es_writer;
CREATE ROLE cqrs_es_outsider;
CREATE ROLE cqrs_es_clerk;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_architect, cqrs_es_writer, cqrs_es_outsider, cqrs_es_clerk;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_architect, cqrs_es_writer, cqrs_es_clerk;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.define_command(text, text, text) TO cqrs_es_architect;
CREATE SCHEMA cqrs_es_sight AUTHORIZATION cqrs_es_architect;
SELECT cqrs_es.create_aggregate('sight') IS NULL AS x \gset

-- What a definer's code says to the log of the server is not for whoever appends and has asked to see such messages.
SET ROLE cqrs_es_architect;
CREATE TABLE cqrs_es_sight.kept (id text);
CREATE FUNCTION cqrs_es_sight.talk(t text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RAISE LOG 'the secret: %', t;
	RAISE DEBUG 'the secret: %', t;
	RAISE NOTICE 'hello';
	RETURN t;
END $$;
SELECT cqrs_es.create_projection('sight', '{sight}', '{cqrs_es_sight.kept}') IS NULL AS x,
	cqrs_es.define_handler('sight', 'talked', 'INSERT INTO cqrs_es_sight.kept VALUES (cqrs_es_sight.talk(event.aggregate_id))') IS NULL AS x,
	cqrs_es.define_command('sight', 'Talk', $$jsonb_build_object('type', 'said', 'payload', jsonb_build_object('t', cqrs_es_sight.talk(aggregate_id)))$$) IS NULL AS x \gset
RESET ROLE;
\set append 'SELECT version FROM cqrs_es.append_event(\'sight\', \'a\', \'talked\', \'{}\');'
\set send 'SELECT version FROM cqrs_es.execute_command(\'sight\', \'b\', \'Talk\');'
\set statements '\\set VERBOSITY terse\nSET SESSION AUTHORIZATION cqrs_es_writer; SET client_min_messages = ' log '; ' :append :send
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 'NOTICE: hello 1 NOTICE: hello 1', 'a writer gets notices, and nothing that is for the log');
\set statements '\\set VERBOSITY terse\nSET SESSION AUTHORIZATION cqrs_es_writer; SET client_min_messages = ' debug1 '; ' :append :send
\i test/include/session.sql
SELECT unalike(:'answer'::text, '%the secret%', 'nor for finding mistakes');
\set statements '\\set VERBOSITY terse\nSET SESSION AUTHORIZATION cqrs_es_writer; SET client_min_messages = ' warning '; ' :append :send 'SHOW client_min_messages;'
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), '3 3 warning', 'who wants less gets less, and the setting is theirs again');
\set statements '\\set VERBOSITY terse\nSET SESSION AUTHORIZATION cqrs_es_architect; SET client_min_messages = ' log '; ' :append :send
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 'LOG: the secret: a NOTICE: hello 4 LOG: the secret: b NOTICE: hello 4', 'its definer gets all of it');

-- Whether there is a projection of a name is for who may read the log.
CREATE TABLE cqrs_es_sight.followed (id text);
SELECT cqrs_es.create_projection('followed', '{sight}', '{cqrs_es_sight.followed}', mode => 'async') IS NULL AS x \gset
\set statements 'SET ROLE cqrs_es_outsider; CALL cqrs_es.wait_for_projection(\'followed\', 0, \'0\'); CALL cqrs_es.wait_for_projection(\'sight\', 0, \'0\'); CALL cqrs_es.wait_for_projection(\'none\', 0, \'0\'); CALL cqrs_es.wait_for_projection(\'none\', -1, \'0\');'
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 'ERROR: 42501 ERROR: 42501 ERROR: 42501 ERROR: 42501', 'wait_for_projection: whatever is asked, without SELECT on the log');
\set statements 'SET ROLE cqrs_es_writer; CALL cqrs_es.wait_for_projection(\'sight\', 0, \'0\'); CALL cqrs_es.wait_for_projection(\'none\', 0, \'0\');'
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 't ERROR: 42704', 'with it one is told');
CREATE FUNCTION pg_temp.as(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM set_config('role', role, true);
	EXECUTE statement INTO result;
	PERFORM set_config('role', 'none', true);
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
-- with SELECT nothing more: each asks after something that is there, and something that is not
SELECT is(pg_temp.as('cqrs_es_outsider', format(call, there)) || pg_temp.as('cqrs_es_outsider', format(call, 'none')), '4250142501', call || ' without SELECT on the log: ' || there) FROM (VALUES
	(1, $$SELECT cqrs_es.aggregate_state(%L, 'a')$$, 'sight'),
	(2, $$SELECT cqrs_es.execute_command('sight', 'a', %L)$$, 'Talk'),
	(3, $$SELECT cqrs_es.take_snapshot(%L, 'a')$$, 'sight'),
	(4, $$SELECT cqrs_es.poisoned_streams(%L)$$, 'sight'),
	(5, $$SELECT cqrs_es.stream_version('sight', %L)$$, 'a'),
	(6, $$SELECT cqrs_es.append_event('sight', %L, 'talked', '{}', expected_version => 0)$$, 'a')) c (n, call, there)
ORDER BY n;

-- Events that policies hide from a role: no error of a fold tells of them.
BEGIN;
SET LOCAL client_min_messages = error;
SELECT cqrs_es.create_aggregate('hidden') IS NULL AS x, cqrs_es.create_aggregate('strict') IS NULL AS y \gset
CREATE FUNCTION cqrs_es_sight.reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF event.payload ? 'secret' THEN RAISE 'cannot take %', event.payload->>'secret' USING DETAIL = event.payload::text; END IF;
	RETURN state || event.payload;
END $$;
GRANT USAGE ON SCHEMA cqrs_es_sight TO PUBLIC;
SELECT count(cqrs_es.define_reducer(type, 'e', 'cqrs_es_sight.reduce(jsonb, cqrs_es.event)')) AS x FROM unnest('{hidden,strict}'::text[]) AS type \gset
SELECT count(cqrs_es.append_event(type, id, 'e', payload::jsonb)) AS x FROM unnest('{hidden,strict}'::text[]) AS type, (VALUES
	(1, 'all hidden', '{"secret": "the secret"}'), (2, 'in the middle', '{}'), (3, 'in the middle', '{"secret": "the secret"}'), (4, 'to be seen', '{}'), (5, 'to be seen', '{"secret": "no secret"}'), (6, 'well', '{}')) e (n, id, payload) \gset
SELECT cqrs_es.alter_aggregate('strict', strict => true) IS NULL AS x \gset
CREATE POLICY clerk ON cqrs_es.events AS RESTRICTIVE TO cqrs_es_clerk USING (payload->>'secret' IS DISTINCT FROM 'the secret');
SELECT is(pg_temp.as(role, $$SELECT string_agg(concat(aggregate_id, ' ', sequence, ' ', message), ', ' ORDER BY aggregate_id) FROM cqrs_es.poisoned_streams('hidden')$$), outcome, 'poisoned_streams: ' || role) FROM (VALUES
	(1, 'cqrs_es_writer', 'all hidden 1 cannot take the secret, in the middle 2 cannot take the secret, to be seen 2 cannot take no secret'),
	(2, 'cqrs_es_clerk', 'to be seen 2 cannot take no secret')) r (n, role, outcome) ORDER BY n;
CREATE FUNCTION pg_temp.says(role text, id text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM set_config('role', role, true);
	PERFORM cqrs_es.append_event('strict', id, 'e', '{}');
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN concat_ws('; ', SQLSTATE, SQLERRM, replace(detail, E'\n', ' | '));
END $$;
SELECT is(pg_temp.says('none', 'in the middle'), 'QE103; event 3 (e) cannot be appended to stream "strict/in the middle"; Event 2 (e) of the stream cannot be applied: cannot take the secret (SQLSTATE P0001) | {"secret": "the secret"}', 'a strict aggregate says why a stream takes no events');
SELECT is(pg_temp.says('cqrs_es_clerk', 'in the middle'), 'QE103; event 3 (e) cannot be appended to stream "strict/in the middle"; An event of the stream that row security of the log may hide cannot be applied.', 'not to a role that is subject to policies');
SELECT is(pg_temp.says('cqrs_es_clerk', 'well'), 'no error', 'who may append where all is well');
ROLLBACK;

-- A trigger's time, and nothing of handlers, in EXPLAIN of an append.
SELECT is(pg_temp.as('cqrs_es_writer', $$SELECT count(*) FROM cqrs_es.events$$) ~ '^\d+$', true, 'the role reads the log');
CREATE FUNCTION pg_temp.plan_of(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL ROLE cqrs_es_writer;
	RETURN QUERY EXECUTE 'EXPLAIN (ANALYZE, VERBOSE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || statement;
	SET LOCAL ROLE none;
END $$;
SET client_min_messages = error;
SELECT is_empty(format($$SELECT * FROM pg_temp.plan_of(%L) AS line WHERE line ~ 'cqrs_es_sight|kept|talk\('$$, statement), 'EXPLAIN ANALYZE: ' || statement) FROM (VALUES
	($$SELECT cqrs_es.append_event('sight', 'a', 'talked', '{}')$$), ($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('sight', 'a', 'talked', '{}')$$)) s (statement);

-- What a monitor or stranger sees of a projection that runs: nothing, without a grant.
SELECT is(pg_temp.as('cqrs_es_writer', format('SELECT count(*) FROM cqrs_es.%s', view)), '42501', view) FROM unnest('{projection_status,projection_progress,skipped_events,missing_objects}'::text[]) AS view ORDER BY 1;

SELECT * FROM finish();
SELECT cqrs_es.drop_projection('sight') IS NULL AS x, cqrs_es.drop_projection('followed') IS NULL AS y, cqrs_es.drop_aggregate('sight', force => true) IS NULL AS z \gset
DROP SCHEMA cqrs_es_sight CASCADE;
DROP OWNED BY cqrs_es_architect, cqrs_es_writer, cqrs_es_outsider, cqrs_es_clerk;
DROP ROLE cqrs_es_architect, cqrs_es_writer, cqrs_es_outsider, cqrs_es_clerk;
