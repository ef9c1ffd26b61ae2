\i test/include/setup.sql
-- Whoever runs asynchronous projections lends them nothing, learns nothing of their events, and is told of what keeps
-- them from running.

SELECT plan(16);
CREATE ROLE cqrs_es_owner;
CREATE ROLE cqrs_es_operator;
CREATE SCHEMA ar;
GRANT USAGE, CREATE ON SCHEMA ar TO cqrs_es_owner;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_owner, cqrs_es_operator;
GRANT SELECT ON cqrs_es.events TO cqrs_es_owner, cqrs_es_operator;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler TO cqrs_es_owner;
GRANT EXECUTE ON PROCEDURE cqrs_es.run_projections TO cqrs_es_operator;
SET search_path = ar, public;
CREATE FUNCTION ar.lift(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT payload';
SET ROLE cqrs_es_owner;
CREATE TABLE ar.done (id text, sequence bigint);
CREATE TABLE ar.other (id text, sequence bigint);
SELECT cqrs_es.create_projection('ar', '{ar}', '{done}', mode => 'async') IS NULL AS x,
	cqrs_es.define_handler('ar', 'e', 'INSERT INTO done SELECT event.aggregate_id, event.sequence FROM pg_sleep((event.payload->>''sleep'')::float)') IS NULL AS y,
	cqrs_es.define_handler('ar', 'old', 'INSERT INTO done VALUES (event.aggregate_id, event.sequence)') IS NULL AS z,
	cqrs_es.create_projection('ar 2', '{ar}', '{other}', mode => 'async') IS NULL AS u,
	cqrs_es.define_handler('ar 2', '*', 'INSERT INTO other VALUES (event.aggregate_id, event.sequence)') IS NULL AS v \gset
RESET ROLE;
CREATE FUNCTION ar.due() RETURNS void LANGUAGE sql AS $$UPDATE cqrs_es.shares SET retry_at = NULL WHERE subscription LIKE 'projection:ar%'$$;
CREATE FUNCTION ar.state(projection text) RETURNS text LANGUAGE sql AS
	$$SELECT format('%s: %s, %s', projection, state, coalesce(last_error, 'no error')) FROM cqrs_es.projection_status WHERE name = projection$$;
SELECT cqrs_es.append_event('ar', 'a', 'e', '{}') IS NULL AS x \gset

-- by one who is none of their owners
\set statements 'SET ROLE cqrs_es_operator; CALL cqrs_es.run_projections()'
\i test/include/session.sql
SELECT is(:'answer'::text, '2', 'an operator runs them');
SELECT is((SELECT count(*) FROM done) + (SELECT count(*) FROM other), 2::bigint, 'all of them');
SELECT cqrs_es.append_event('ar', 'a', 'e', '{"sleep": 10, "secret": "S"}') IS NULL AS x \gset
\setenv STATEMENTS 'SET client_min_messages = warning; SET statement_timeout = \'500 ms\'; SET ROLE cqrs_es_operator; CALL cqrs_es.run_projections(\'{ar}\')'
\set answer `printf '%s' "$STATEMENTS" | psql -X -q -A -t -d "$DATABASE" 2>&1`
SELECT is(:'answer'::text, 'ERROR:  canceled while projection "ar" was run', 'who is cancelled in the middle of a handler is told nothing of the event');
SELECT is(ar.state('ar'), 'ar: live, no error', 'that is no failure of it');


-- an owner who may not call an upcaster: no fault of the events
SET ROLE cqrs_es_owner;
SELECT cqrs_es.define_handler('ar', 'e', 'INSERT INTO done VALUES (event.aggregate_id, event.sequence)') IS NULL AS x \gset
RESET ROLE;
REVOKE EXECUTE ON FUNCTION ar.lift FROM PUBLIC;
SELECT cqrs_es.define_upcaster('old', '1', '2', 'ar.lift(jsonb)') IS NULL AS x, cqrs_es.append_event('ar', 'b', 'old', '{}') IS NULL AS y \gset
\set statements 'SET client_min_messages = warning; CALL cqrs_es.run_projections(timeout => \'300 ms\')'
\i test/include/session.sql
SELECT is(:'answer'::text, E'WARNING:  42501\nWARNING:  42501\n0', 'who runs them is told what keeps each from it, once, however often it is tried');
SELECT is(ar.state(p), p || ': live, permission denied for function ar.lift(pg_catalog.jsonb) (SQLSTATE 42501)', p || ': so does its status') FROM unnest('{ar,ar 2}'::text[]) AS p;
SELECT is((SELECT string_agg(DISTINCT format('%s %s', attempts, deliveries), ' ') FROM cqrs_es.shares WHERE subscription LIKE 'projection:ar%'), '0 0', 'no attempt is counted');
GRANT EXECUTE ON FUNCTION ar.lift TO cqrs_es_owner;
SELECT ar.due() IS NULL AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::int, 4, 'it is handled when they may, with what waited before it');
SELECT is(ar.state(p), p || ': live, no error', p || ': and nothing is wrong any more') FROM unnest('{ar,ar 2}'::text[]) AS p;

-- a log that has lost its end
SELECT position AS "position" FROM cqrs_es.shares WHERE subscription = 'projection:ar' \gset
UPDATE cqrs_es.shares SET position = position + 1000000 WHERE subscription = 'projection:ar';
\set statements 'SET client_min_messages = warning; CALL cqrs_es.run_projections()'
\i test/include/session.sql
SELECT is(:'answer'::text, E'WARNING:  QE404\n0', 'a projection that is ahead of the log');
UPDATE cqrs_es.shares SET position = :position, retry_at = NULL WHERE subscription = 'projection:ar';

-- how it follows the log
SELECT cqrs_es.alter_projection('ar', per_stream => NOT per_stream) IS NULL AS x, NOT per_stream AS per_stream FROM cqrs_es.projections WHERE name = 'ar' \gset
SELECT is(per_stream, :'per_stream'::boolean, 'another order') FROM cqrs_es.projections WHERE name = 'ar';
SELECT is((SELECT ordering FROM cqrs_es.subscriptions WHERE name = 'projection:ar'), CASE WHEN :'per_stream'::boolean THEN 'stream' ELSE 'log' END, 'in which it gets its events');
SELECT cqrs_es.append_event('ar', 'a', 'e', '{}') IS NULL AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::int, 2, 'it goes on');

-- waited for, though it is none of these
SELECT cqrs_es.create_projection('ar 3', '{ar}') IS NULL AS x, cqrs_es.pause_projection('ar 3') IS NULL AS y \gset
\set statements 'CALL cqrs_es.wait_for_projection(\'ar 3\', 1)'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  55000', 'nobody waits for one that handles events with the append, and is paused');

SELECT count(cqrs_es.drop_projection(name)) AS x FROM cqrs_es.projections WHERE name LIKE 'ar%' \gset
SELECT cqrs_es.drop_upcaster('old', '1') IS NULL AS x \gset
DROP SCHEMA ar CASCADE;
DROP OWNED BY cqrs_es_owner, cqrs_es_operator;
DROP ROLE cqrs_es_owner, cqrs_es_operator;
SELECT * FROM finish();
