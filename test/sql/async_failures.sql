\i test/include/setup.sql
-- What becomes of an asynchronous projection when an event fails, when it is not the event's fault, when its runner is
-- cancelled, and when it dies.

SELECT plan(64);
CREATE SCHEMA af;
SET search_path = af, public;
CREATE TABLE af.done (position bigint PRIMARY KEY, id text, sequence bigint);
CREATE TABLE af.bad (what text PRIMARY KEY);
CREATE TABLE af.parent (id text PRIMARY KEY);
CREATE TABLE af.child (id text REFERENCES af.parent DEFERRABLE INITIALLY DEFERRED);
-- does what `bad` says to events of that name
CREATE FUNCTION af.handle(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE how text := (SELECT what FROM bad WHERE what LIKE e.event_type || ':%');
BEGIN
	INSERT INTO done VALUES (e.global_position, e.aggregate_id, e.sequence);
	CASE split_part(how, ':', 2)
		WHEN 'fails' THEN RAISE EXCEPTION 'I do not like %', e.event_type;
		WHEN 'deadlock' THEN RAISE EXCEPTION 'not my fault' USING ERRCODE = '40P01';
		WHEN 'sleeps' THEN PERFORM pg_sleep(10);
		WHEN 'dies' THEN PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(10);
		WHEN 'drops' THEN PERFORM cqrs_es.drop_projection('af');
		WHEN 'orphan' THEN INSERT INTO child VALUES ('nobody');
		ELSE NULL;
	END CASE;
END $$;
CREATE FUNCTION af.append(id text, VARIADIC types text[]) RETURNS bigint LANGUAGE sql AS
	$$SELECT max(a.global_position) FROM unnest(types) WITH ORDINALITY AS t(type, i), LATERAL cqrs_es.append_event('af', append.id, t.type, '{}') AS a WHERE t.i > 0$$;
CREATE FUNCTION af.content() RETURNS text LANGUAGE sql AS
	$$SELECT string_agg(l.s, ' ' ORDER BY id) FROM (SELECT id, id || ':' || string_agg(sequence::text, ',' ORDER BY position) AS s FROM done GROUP BY id) AS l$$;
CREATE FUNCTION af.state() RETURNS text LANGUAGE sql AS
	$$SELECT format('%s, %s parked: %s', state, parked, coalesce(last_error, 'no error')) FROM cqrs_es.projection_status WHERE name = 'af'$$;
CREATE FUNCTION af.hurry() RETURNS void LANGUAGE sql AS $$UPDATE cqrs_es.subscriptions SET retry_delay = '0', retry_delay_max = '0' WHERE name = 'projection:af'$$;
CREATE FUNCTION af.due() RETURNS void LANGUAGE sql AS $$UPDATE cqrs_es.shares SET retry_at = clock_timestamp() WHERE subscription = 'projection:af' AND retry_at IS NOT NULL;
	UPDATE cqrs_es.parked_streams SET retry_at = clock_timestamp() WHERE subscription = 'projection:af' AND retry_at IS NOT NULL$$;
SET client_min_messages = error;

-- in the order of the log: nothing goes past it
SELECT cqrs_es.create_projection('af', '{af}', '{done,child,parent}', mode => 'async') IS NULL AS x,
	cqrs_es.define_handler('af', '*', 'af.handle') IS NULL AS y \gset
INSERT INTO bad VALUES ('b:fails');
SELECT af.append('1', 'a', 'a') AS x, af.append('2', 'b') AS failing, af.append('1', 'a') AS y, af.append('2', 'a') AS z \gset
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::bigint, 2::bigint, 'what comes before it is handled');
SELECT is(af.content(), '1:1,2', 'nothing behind it');
SELECT is(af.state(), 'live, 0 parked: I do not like b (SQLSTATE P0001)', 'the error is to be seen');
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::bigint, 0::bigint, 'it is not tried again at once');
CALL cqrs_es.wait_for_projection('af', :failing, '1 ms') \gset
SELECT is(:'reached'::text, 'f', 'who waits for it goes on waiting');
SELECT is((SELECT attempts FROM cqrs_es.shares WHERE subscription = 'projection:af'), 1, 'one attempt');
SELECT af.hurry() IS NULL AS x, af.due() IS NULL AS y \gset
CALL cqrs_es.run_projections(timeout => '100 ms') \gset
SELECT is(af.state(), 'stopped, 0 parked: I do not like b (SQLSTATE P0001)', 'after five attempts it stops');
SELECT is(af.content(), '1:1,2', 'and has done nothing more');
\set statements 'CALL cqrs_es.wait_for_projection(\'af\', ':failing'); CALL cqrs_es.run_projections()'
\i test/include/session.sql
SELECT is(:'answer'::text, E'ERROR:  55000\n0', 'nobody waits for a stopped one, which is not run');
CALL cqrs_es.wait_for_projection('af', :failing - 1) \gset
SELECT is(:'reached'::text, 't', 'what comes before it is there');
SELECT throws_ok($$SELECT cqrs_es.alter_projection('af', mode => 'sync')$$, 'QE201', NULL, 'it cannot become synchronous');
SELECT is((SELECT mode FROM cqrs_es.projection_status WHERE name = 'af'), 'async', 'and stays what it is');
SELECT cqrs_es.resume_projection('af') AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(af.state(), 'stopped, 0 parked: I do not like b (SQLSTATE P0001)', 'resumed it is tried again, and stops again');
DELETE FROM bad;
SELECT cqrs_es.resume_projection('af') AS x, af.due() IS NULL AS y \gset
CALL cqrs_es.run_projections() \gset
SELECT is(af.content(), '1:1,2,3 2:1,2', 'mended, it goes on');
SELECT is(af.state(), 'live, 0 parked: no error', 'and nothing is wrong any more');
-- skipping
INSERT INTO bad VALUES ('b:fails');
SELECT af.append('1', 'b') AS failing, af.append('1', 'a') AS x, af.hurry() IS NULL AS y \gset
CALL cqrs_es.run_projections(timeout => '100 ms') \gset
SELECT is((SELECT state FROM cqrs_es.projection_status WHERE name = 'af'), 'stopped', 'stopped again');
SELECT is(cqrs_es.resume_projection('af', on_error => 'skip'), 1::bigint, 'resumed over it, with what comes behind');
SELECT is(af.content(), '1:1,2,3,5 2:1,2', 'without it');
SELECT is((SELECT skipped FROM cqrs_es.projection_status WHERE name = 'af'), 1::bigint, 'which is recorded');
DELETE FROM bad;
SELECT is((SELECT r::text FROM cqrs_es.retry_skipped('af') AS r), '(1,0)', 'and can be handled later');
SELECT af.append('1', 'a') AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::bigint, 1::bigint, 'it goes on');

-- not the event's fault
INSERT INTO bad VALUES ('d:deadlock');
SELECT af.append('3', 'a', 'd', 'a') AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(af.state(), 'live, 0 parked: not my fault (SQLSTATE 40P01)', 'a deadlock is shown');
SELECT is((SELECT format('%s %s %s', attempts, deliveries, batch IS NULL) FROM cqrs_es.shares WHERE subscription = 'projection:af'), '0 0 t', 'and does not count');
SELECT ok(af.content() NOT LIKE '%3:%', 'nothing of the batch is left');
DELETE FROM bad;
SELECT af.due() IS NULL AS x \gset
CALL cqrs_es.run_projections(timeout => '300 ms') \gset
SELECT is(:handled::bigint, 3::bigint, 'it comes again');

-- cancelled: nobody died
INSERT INTO bad VALUES ('s:sleeps');
SELECT af.append('4', 'a', 's') AS x \gset
\set statements 'SET statement_timeout = \'200 ms\'; CALL cqrs_es.run_projections(); CALL cqrs_es.run_projections(); CALL cqrs_es.run_projections(); CALL cqrs_es.run_projections(); CALL cqrs_es.run_projections(); CALL cqrs_es.run_projections()'
\i test/include/session.sql
SELECT is(:'answer'::text, repeat(E'ERROR:  57014\n', 5) || 'ERROR:  57014', 'six times cancelled in the middle of a handler');
SELECT is((SELECT format('%s %s %s %s', attempts, deliveries, batch IS NULL, suspect_end IS NULL) FROM cqrs_es.shares WHERE subscription = 'projection:af'), '0 0 t t', 'the batch was given back each time');
SELECT is(af.state(), 'live, 0 parked: no error', 'it is no failure');
DELETE FROM bad;
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::bigint, 2::bigint, 'and it comes again');

-- what is deferred fails with the event
INSERT INTO bad VALUES ('o:orphan');
SELECT af.append('5', 'a', 'o', 'a') AS x, af.hurry() IS NULL AS y \gset
CALL cqrs_es.run_projections(timeout => '100 ms') \gset
SELECT matches(af.state(), '^stopped, 0 parked: insert or update on table "child" violates foreign key constraint .*SQLSTATE 23503', 'a deferred constraint is the event''s failure');
SELECT matches(af.content(), '5:1$', 'what comes before is handled');
DELETE FROM bad;
SELECT cqrs_es.resume_projection('af') AS x \gset
CALL cqrs_es.run_projections() \gset

-- what kills its runner is found, and stops it
INSERT INTO bad VALUES ('k:dies');
SELECT af.append('6', 'a', 'a', 'a') AS x, af.append('7', 'k') AS failing, af.append('6', 'a') AS y \gset
\set statements 'CALL cqrs_es.run_projections()'
\i test/include/session.sql
SELECT matches(:'answer'::text, '57P01', 'the runner dies');
SELECT is((SELECT format('%s %s', batch IS NOT NULL, batch_count) FROM cqrs_es.shares WHERE subscription = 'projection:af'), 't 5', 'with a batch in hand');
\i test/include/session.sql
\i test/include/session.sql
\i test/include/session.sql
\i test/include/session.sql
\i test/include/session.sql
SELECT matches(af.content(), '6:1,2,3$', 'what comes before it gets through');
\i test/include/session.sql
\i test/include/session.sql
\i test/include/session.sql
SELECT is(af.state(), 'stopped, 0 parked: handed out 5 times, and each time the session that handled it was lost', 'it is stopped');
DELETE FROM bad;
SELECT cqrs_es.resume_projection('af') AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT matches(af.content(), '6:1,2,3,4 7:1$', 'mended, it goes on');
SELECT is((SELECT count(*) FROM done), (SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'af'), 'nothing is lost or doubled');

-- per stream: the others go on
SELECT cqrs_es.alter_projection('af', per_stream => true) IS NULL AS x, af.hurry() IS NULL AS y \gset
DELETE FROM done;
INSERT INTO bad VALUES ('b:fails');
SELECT af.append('s1', 'a', 'b', 'a') - 1 AS failing_before, af.append('s2', 'a', 'a') AS y, af.append('s1', 'a') AS position \gset
UPDATE cqrs_es.subscriptions SET retry_delay = '1 min', retry_delay_max = '1 min' WHERE name = 'projection:af';
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::bigint, 3::bigint, 'what does not wait is handled');
SELECT is((SELECT count(*) FROM done WHERE id = 's1'), 1::bigint, 'the stream waits behind it');
SELECT is((SELECT parked FROM cqrs_es.projection_status WHERE name = 'af'), 1::bigint, 'it is parked');
CALL cqrs_es.wait_for_projection('af', :position, '1 ms') \gset
SELECT is(:'reached'::text, 'f', 'who waits for one behind it goes on waiting');
SELECT af.append('s2', 'a') AS other \gset
CALL cqrs_es.run_projections() \gset
CALL cqrs_es.wait_for_projection('af', :other, '1 ms') \gset
SELECT is(:'reached'::text, 't', 'for one of another stream nobody waits longer');
SELECT throws_ok($$SELECT cqrs_es.alter_projection('af', mode => 'sync')$$, '55000', NULL, 'no other mode while it waits');
SELECT throws_ok($$SELECT cqrs_es.alter_projection('af', per_stream => false)$$, '55000', NULL, 'nor another order');
SELECT af.hurry() IS NULL AS x, af.due() IS NULL AS y \gset
CALL cqrs_es.run_projections(timeout => '200 ms') \gset
SELECT is((SELECT blocked FROM cqrs_es.subscription_status WHERE name = 'projection:af'), 1::bigint, 'after five attempts it is blocked');
SELECT is((SELECT format('%s: %s', event_type, error) FROM cqrs_es.subscription_dead_letters WHERE subscription = 'projection:af' AND state = 'blocked'), 'b: I do not like b (SQLSTATE P0001)', 'with a dead letter');
\set statements 'CALL cqrs_es.wait_for_projection(\'af\', ':position')'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  55000', 'for what is behind it nobody waits any more');
SELECT af.append('s2', 'a') AS other \gset
CALL cqrs_es.wait_for_projection('af', :other, '1 ms') \gset
SELECT is(:'reached'::text, 'f', 'for one of another stream one waits');
CALL cqrs_es.run_projections() \gset
CALL cqrs_es.wait_for_projection('af', :other) \gset
SELECT is(:'reached'::text, 't', '... until it was handled');
CALL cqrs_es.wait_for_projection('af', :failing_before - 1) \gset
SELECT is(:'reached'::text, 't', '... as for what comes before it in its own stream');
SELECT cqrs_es.pause_projection('af') IS NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.resume_projection('af', on_error => 'skip')$$, '55000', NULL, 'what waits is not passed by a replay');
\set statements 'CALL cqrs_es.resume_in_portions(\'af\')'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  55000', '... nor by one in portions');
SELECT cqrs_es.resume_projection('af') AS y, af.append('s2', 'a') AS z \gset
CALL cqrs_es.run_projections() \gset
SELECT is((SELECT format('%s %s', count(*) FILTER (WHERE id = 's1'), count(*) FILTER (WHERE id = 's2')) FROM done), '1 5', 'paused and resumed, it goes on waiting, and others go on');
DELETE FROM bad;
SELECT is(cqrs_es.redrive('projection:af'), 1::bigint, 'redriven') ;
CALL cqrs_es.run_projections() \gset
SELECT is((SELECT string_agg(sequence::text, ',' ORDER BY position) FROM done WHERE id = 's1'), '1,2,3,4', 'the whole stream is handled, in order');
SELECT is((SELECT parked FROM cqrs_es.projection_status WHERE name = 'af'), 0::bigint, 'none is parked');
CALL cqrs_es.wait_for_projection('af', :position) \gset
SELECT is(:'reached'::text, 't', 'and what was waited for is there');
-- a letter that is discarded
INSERT INTO bad VALUES ('b:fails');
SELECT af.append('s3', 'b', 'a') AS x \gset
CALL cqrs_es.run_projections(timeout => '200 ms') \gset
SELECT cqrs_es.discard_dead_letter(id, 'not needed') IS NULL AS x FROM cqrs_es.subscription_dead_letters WHERE state = 'blocked' AND subscription = 'projection:af' \gset
CALL cqrs_es.run_projections() \gset
SELECT is((SELECT string_agg(sequence::text, ',') FROM done WHERE id = 's3'), '2', 'discarded: the stream goes on behind it');
-- what kills its runner is blocked alone
INSERT INTO bad VALUES ('k:dies');
SELECT af.append('s4', 'k', 'a') AS x, af.append('s5', 'a') AS y \gset
\set statements 'CALL cqrs_es.run_projections()'
\i test/include/session.sql
\i test/include/session.sql
\i test/include/session.sql
\i test/include/session.sql
\i test/include/session.sql
\i test/include/session.sql
\i test/include/session.sql
\i test/include/session.sql
\i test/include/session.sql
SELECT is((SELECT format('%s %s', event_type, error) FROM cqrs_es.subscription_dead_letters WHERE subscription = 'projection:af' AND state = 'blocked'),
	'k handed out 5 times, and each time the session that handled it was lost', 'a killer is found, and blocked');
SELECT is((SELECT count(*) FROM done WHERE id = 's5'), 1::bigint, 'and others go on');
-- a rebuild begins anew with all of it
DELETE FROM bad;
SELECT cqrs_es.rebuild_projection('af') AS x \gset
SELECT is((SELECT count(*) FROM done), (SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'af'), 'a rebuild handles all');
SELECT is((SELECT parked FROM cqrs_es.projection_status WHERE name = 'af'), 0::bigint, 'nothing waits any more');
CALL cqrs_es.run_projections() \gset
SELECT is((SELECT count(*) FROM done), (SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'af'), 'and nothing comes twice');
-- what a handler does with its own projection is its failure
INSERT INTO bad VALUES ('drop:drops');
SELECT af.append('d', 'drop') AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(af.state(), 'live, 1 parked: drop_projection() cannot be called by a handler (SQLSTATE 25001)', 'a handler cannot drop the projection that is run');

SELECT cqrs_es.drop_projection('af') IS NULL AS x \gset
DROP SCHEMA af CASCADE;
SELECT * FROM finish();
