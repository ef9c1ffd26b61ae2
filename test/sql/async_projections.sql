\i test/include/setup.sql
-- Asynchronous projections: appends pass them by, run_projections handles what there is, once and in order; every way
-- from one mode to the other; waiting for one's own write.

SELECT plan(66);
CREATE SCHEMA ap;
SET search_path = ap, public;
CREATE TABLE ap.rows (id text, sequence bigint, PRIMARY KEY (id, sequence));
CREATE TABLE ap.sums (id text PRIMARY KEY, n bigint, sequences text);
CREATE FUNCTION ap.handle(e cqrs_es.event) RETURNS void LANGUAGE sql BEGIN ATOMIC
	INSERT INTO rows VALUES (e.aggregate_id, e.sequence);
	INSERT INTO sums VALUES (e.aggregate_id, 1, e.sequence::text)
		ON CONFLICT (id) DO UPDATE SET n = sums.n + 1, sequences = sums.sequences || ',' || excluded.sequences;
END;
CREATE FUNCTION ap.append(n integer, type text DEFAULT 'ap') RETURNS bigint LANGUAGE sql AS
	$$SELECT max(global_position) FROM generate_series(1, n) AS i, cqrs_es.append_event(type, (i % 3)::text, 'made', '{}')$$;
CREATE FUNCTION ap.content() RETURNS text LANGUAGE sql AS $$SELECT string_agg(sequences, ' ' ORDER BY id) FROM sums$$;
-- what the log says it must be
CREATE FUNCTION ap.log() RETURNS text LANGUAGE sql AS
	$$SELECT string_agg(l.s, ' ' ORDER BY l.aggregate_id) FROM (SELECT aggregate_id, string_agg(sequence::text, ',' ORDER BY sequence) AS s
		FROM cqrs_es.events WHERE aggregate_type = 'ap' GROUP BY 1) AS l$$;
CREATE FUNCTION ap.state() RETURNS text LANGUAGE sql AS
	$$SELECT format('%s %s, per_stream %s, %s behind', mode, state, per_stream, lag_events) FROM cqrs_es.projection_status WHERE name = 'ap'$$;

-- created, it follows from the end of the log
SELECT ap.append(5) AS x, cqrs_es.create_projection('ap', '{ap}', '{rows,sums}', mode => 'async') IS NULL AS y,
	cqrs_es.define_handler('ap', 'made', 'ap.handle') IS NULL AS z \gset
SELECT is(ap.state(), 'async live, per_stream f, 0 behind', 'begins at the end of the log');
SELECT ap.append(6) AS x \gset
SELECT is(ap.content(), NULL, 'an append does nothing for it');
SELECT is(ap.state(), 'async live, per_stream f, 6 behind', 'it is behind');
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::bigint, 6::bigint, 'run_projections says how many events it handled');
SELECT is(ap.content(), '2,3 3,4 3,4', 'which are those since, in order');
SELECT is(ap.state(), 'async live, per_stream f, 0 behind', 'nothing is left');
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::bigint, 0::bigint, 'again: nothing');
SELECT ap.append(30, 'other') AS x, ap.append(3) AS y, ap.append(30, 'other') AS z \gset
CALL cqrs_es.run_projections('{ap}') \gset
SELECT is(:handled::bigint, 3::bigint, 'other aggregate types do not concern it');
SELECT results_eq($$SELECT count(*) FROM rows$$, $$VALUES (9::bigint)$$, 'each event once');
SELECT is((SELECT in_hand FROM cqrs_es.subscription_status WHERE name = 'projection:ap'), 0::bigint, 'nothing stays in hand');

-- rebuilt it has the whole log
SELECT is(cqrs_es.rebuild_projection('ap'), 14::bigint, 'a rebuild handles all that is there');
SELECT is(ap.content(), ap.log(), 'it is the log');
SELECT ap.append(7) AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(ap.content(), ap.log(), 'and goes on behind it');
SELECT ap.append(2) AS x \gset
CALL cqrs_es.rebuild_in_portions('ap', 4);
SELECT is(ap.content(), ap.log(), 'rebuilt in portions, with what nobody had run');
SELECT is(ap.state(), 'async live, per_stream f, 0 behind', 'and is at work again');
SELECT ap.append(2) AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(ap.content(), ap.log(), 'and goes on');

-- paused
SELECT ap.append(2) AS x, cqrs_es.pause_projection('ap') IS NULL AS y, ap.append(2) AS z, ap.content() AS before \gset
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::bigint, 0::bigint, 'a paused one is not run');
SELECT is(ap.content(), :'before', 'nothing happens');
SELECT is((SELECT state FROM cqrs_es.projection_status WHERE name = 'ap'), 'paused', 'it is paused');
SELECT cqrs_es.rebuild_projection('ap') AS x \gset
SELECT is(ap.content(), ap.log(), 'a rebuild of a paused one');
SELECT is((SELECT state FROM cqrs_es.projection_status WHERE name = 'ap'), 'paused', 'stays paused');
SELECT ap.append(2) AS x, cqrs_es.resume_projection('ap') AS resumed \gset
SELECT is(:resumed::bigint, 0::bigint, 'resumed, it handles nothing at once');
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::bigint, 2::bigint, 'but when it is run');
SELECT is(ap.content(), ap.log(), 'just what it has not had');
SELECT cqrs_es.pause_projection('ap') IS NULL AS x, ap.append(9) AS y \gset
CALL cqrs_es.resume_in_portions('ap', 2);
SELECT is(ap.content(), ap.log(), 'resumed in portions it catches up');
SELECT is(ap.state(), 'async live, per_stream f, 0 behind', '... and is at work');
SELECT ap.append(4) AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(ap.content(), ap.log(), '... and goes on');

-- from one mode to the other
SELECT ap.append(4) AS x, cqrs_es.alter_projection('ap', mode => 'sync') IS NULL AS y \gset
SELECT is(ap.content(), ap.log(), 'async to sync: catches up');
SELECT ok(NOT EXISTS (SELECT FROM cqrs_es.subscriptions WHERE name = 'projection:ap'), 'its subscription is gone');
SELECT ap.append(4) AS x \gset
SELECT is(ap.content(), ap.log(), 'and is told of each append');
SELECT cqrs_es.alter_projection('ap', mode => 'async', per_stream => true) IS NULL AS x, ap.append(5) AS y \gset
SELECT is((SELECT lag_events FROM cqrs_es.projection_status WHERE name = 'ap'), 5::bigint, 'sync to async: what comes then is for later');
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::bigint, 5::bigint, 'just that');
SELECT is(ap.content(), ap.log(), 'none lost, none doubled');
SELECT cqrs_es.pause_projection('ap') IS NULL AS x, ap.append(3) AS y, cqrs_es.alter_projection('ap', mode => 'sync') IS NULL AS z \gset
SELECT is(ap.state(), 'sync paused, per_stream f,  behind', 'a paused one becomes a paused one');
SELECT ap.append(3) AS x, cqrs_es.alter_projection('ap', mode => 'async') IS NULL AS y, ap.append(3) AS z, cqrs_es.resume_projection('ap') AS w \gset
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::bigint, 9::bigint, 'and back: nothing is lost');
SELECT is(ap.content(), ap.log(), 'or doubled');
SELECT cqrs_es.alter_projection('ap', per_stream => true) IS NULL AS x, ap.append(3) AS y \gset
CALL cqrs_es.run_projections() \gset
SELECT is(ap.state(), 'async live, per_stream t, 0 behind', 'another order');
SELECT cqrs_es.alter_projection('ap', per_stream => false) IS NULL AS x, ap.append(3) AS y \gset
CALL cqrs_es.run_projections() \gset
SELECT is(ap.content(), ap.log(), 'goes on where it was');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.alter_projection('ap', mode => 'async')$$), 'none', 'the same again');
SELECT cqrs_es.alter_projection('ap', mode => 'sync') IS NULL AS x \gset
CALL cqrs_es.run_projections('{ap}') \gset
SELECT is(:handled::bigint, 0::bigint, 'a synchronous one needs nobody to run it');

-- backfill
SELECT cqrs_es.drop_projection('ap') IS NULL AS x \gset
TRUNCATE rows, sums;
SELECT cqrs_es.create_projection('ap', '{ap}', '{rows,sums}', mode => 'async', per_stream => true, backfill => true) IS NULL AS x,
	cqrs_es.define_handler('ap', 'made', 'ap.handle') IS NULL AS y \gset
CALL cqrs_es.run_projections() \gset
SELECT is(:handled::bigint, 0::bigint, 'one that is to be filled is paused');
SELECT cqrs_es.resume_projection('ap') AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(ap.content(), ap.log(), 'and is filled by whoever runs it');

-- declared again
SELECT is(pg_temp.state_of($$SELECT cqrs_es.create_projection('ap', '{ap}', '{ap.rows,ap.sums}')$$), 'none', 'created again: the mode stays as it is');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.create_projection('ap', '{ap}', '{ap.rows,ap.sums}', mode => 'async', per_stream => true)$$), 'none', 'the same mode');
SELECT throws_ok($$SELECT cqrs_es.create_projection('ap', '{ap}', '{ap.rows,ap.sums}', mode => 'sync')$$, '42710', NULL, 'another mode');
SELECT throws_ok($$SELECT cqrs_es.create_projection('ap2', mode => 'later')$$, '22023', 'mode must be "sync" or "async"', 'no such mode');
SELECT throws_ok($$SELECT cqrs_es.create_projection('ap2', per_stream => true)$$, '22023', NULL, 'per_stream is for asynchronous ones');
SELECT throws_ok($$SELECT cqrs_es.alter_projection('ap', mode => 'sync', per_stream => true)$$, '22023', NULL, '... also when it is altered');

-- its subscription is its own
SELECT throws_ok($$SELECT cqrs_es.create_subscription('projection:x')$$, '22023', NULL, 'nobody else has such a name');
SELECT throws_ok(format('SELECT cqrs_es.%s', f), '55000', NULL, f)
	FROM unnest(ARRAY['pause_subscription(''projection:ap'')', 'resume_subscription(''projection:ap'')', 'drop_subscription(''projection:ap'')',
		'reset_subscription(''projection:ap'', 0)', 'alter_subscription(''projection:ap'', max_attempts => 3)', 'receive_events(''projection:ap'', ''c'')']) AS f;
SELECT is(cqrs_es.redrive('projection:ap'), 0::bigint, 'what failed is decided about as everywhere');
GRANT ALL ON rows, sums TO pg_monitor;
SELECT cqrs_es.alter_projection('ap', owner => 'pg_monitor') IS NULL AS x \gset
SELECT is((SELECT owner FROM cqrs_es.subscription_status WHERE name = 'projection:ap'), 'pg_monitor'::regrole, 'another owner has it, too');
SELECT cqrs_es.alter_projection('ap', owner => current_user::regrole) IS NULL AS x \gset

-- waiting
SELECT ap.append(3) AS position \gset
CALL cqrs_es.wait_for_projection('ap', :position, '10 ms') \gset
SELECT is(:'reached'::text, 'f', 'nobody runs it: not reached');
CALL cqrs_es.run_projections() \gset
CALL cqrs_es.wait_for_projection('ap', :position) \gset
SELECT is(:'reached'::text, 't', 'reached');
SELECT ap.append(3, 'other') AS position \gset
CALL cqrs_es.wait_for_projection('ap', :position) \gset
SELECT is(:'reached'::text, 't', 'of an event that does not concern it');
SELECT cqrs_es.pause_projection('ap') IS NULL AS x \gset
\set statements 'CALL cqrs_es.wait_for_projection(\'ap\', 1)'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  55000', 'for a paused one nobody waits');
\set statements 'CALL cqrs_es.wait_for_projection(\'nope\', 1); CALL cqrs_es.run_projections(\'{nope}\'); CALL cqrs_es.run_projections(\'{}\')'
\i test/include/session.sql
SELECT is(:'answer'::text, E'ERROR:  42704\nERROR:  42704\nERROR:  22023', 'names that there are not');
SELECT cqrs_es.resume_projection('ap') IS NULL AS x \gset
\set statements 'CALL cqrs_es.wait_for_projection(\'ap\', -1); CALL cqrs_es.wait_for_projection(\'ap\', 17592186044417); CALL cqrs_es.wait_for_projection(\'ap\', 9223372036854775807)'
\i test/include/session.sql
SELECT is(:'answer'::text, E'ERROR:  22023\nERROR:  22023\nERROR:  22023', 'a position that is not one of this node is never reached');
SELECT cqrs_es.alter_projection('ap', mode => 'sync') IS NULL AS x \gset
\i test/include/session.sql
SELECT is(:'answer'::text, E'ERROR:  22023\nERROR:  22023\nERROR:  22023', '... nor by a synchronous one');

-- each projection looks up its own subscription: not all of them, at a cost for which a server compiles the query
CREATE FUNCTION ap.lookups() RETURNS bigint LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
	line text;
	n bigint := 0;
BEGIN
	FOR line IN EXPLAIN SELECT * FROM cqrs_es.projection_status LOOP
		n := n + (line ~ 'Index Cond: \(name = \(concat')::integer;
	END LOOP;
	RETURN n;
END $$;
SELECT is(ap.lookups(), 2::bigint, 'projection_status looks up subscriptions and their status by name');

SELECT cqrs_es.drop_projection('ap') IS NULL AS x \gset
SELECT ok(NOT EXISTS (SELECT FROM cqrs_es.subscriptions WHERE name = 'projection:ap') AND NOT EXISTS (SELECT FROM cqrs_es.shares WHERE subscription = 'projection:ap'), 'dropped, nothing is left');
DROP SCHEMA ap CASCADE;
SELECT * FROM finish();
