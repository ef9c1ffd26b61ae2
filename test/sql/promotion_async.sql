\i test/include/setup.sql
-- promote_projection between projections of both modes: the new one goes on in the mode of the old one, and has each event once.

SELECT plan(36);
CREATE SCHEMA pa;
SET search_path = pa, public;
SET client_min_messages = error;
-- events of earlier runs are none of this one's
CREATE TABLE pa.type AS SELECT 'pa' || (random() * 1e9)::bigint AS name;
CREATE TABLE one (position bigint);
CREATE TABLE two (note text, position bigint);
CREATE VIEW v AS SELECT position FROM one;
SELECT cqrs_es.create_projection('pa1', (SELECT array_agg(name) FROM pa.type), '{one}') IS NULL AS x, cqrs_es.create_projection('pa2', (SELECT array_agg(name) FROM pa.type), '{two}', mode => 'async') IS NULL AS y,
	cqrs_es.define_handler('pa1', '*', 'INSERT INTO one VALUES (event.global_position)') IS NULL AS z,
	cqrs_es.define_handler('pa2', 'e', 'INSERT INTO two (position) VALUES (event.global_position)') IS NULL AS u \gset
CREATE FUNCTION pa.append(n integer, type text DEFAULT 'e') RETURNS bigint LANGUAGE sql AS
	$$SELECT max(version) FROM generate_series(1, n) AS i, pa.type AS t, cqrs_es.append_event(t.name, (i % 3)::text, type, '{}')$$;
-- which of them are how, and what of the log is in the view and in the table of the other
CREATE FUNCTION pa.are() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT string_agg(format('%s %s %s', name, mode, state), ', ' ORDER BY name) FROM cqrs_es.projection_status WHERE name LIKE 'pa_')
		|| format(', view %s of %s, %s there twice, feeds: %s', (SELECT count(DISTINCT position) FROM v), (SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = (SELECT name FROM pa.type)),
			(SELECT count(*) - count(DISTINCT position) FROM v), coalesce((SELECT string_agg(name, ' ' ORDER BY name) FROM cqrs_es.subscriptions WHERE name LIKE 'projection:pa_'), 'none'));
END $$;
SELECT append(10) AS x \gset

-- a sync one gives way to an async one, which has not handled everything
CALL cqrs_es.run_projections('{pa2}') \gset
SELECT append(5) AS x \gset
SELECT is((SELECT count(*)::int FROM two), 10, 'the new one is behind');
SELECT is(cqrs_es.promote_projection('pa2', replaces => 'pa1', views => '{v}')::text, '', 'async instead of sync');
SELECT is(are(), 'pa1 sync paused, pa2 sync live, view 15 of 15, 0 there twice, feeds: none', 'it is sync, and has everything');
SELECT append(5) AS x \gset
SELECT is(are(), 'pa1 sync paused, pa2 sync live, view 20 of 20, 0 there twice, feeds: none', 'and follows appends');

-- an async one gives way to a paused one
SELECT cqrs_es.alter_projection('pa2', mode => 'async') IS NULL AS x, append(5) AS y \gset
SELECT is(are(), 'pa1 sync paused, pa2 async live, view 20 of 25, 0 there twice, feeds: projection:pa2', 'the old one is async now');
SELECT is(cqrs_es.promote_projection('pa1', replaces => 'pa2', views => '{v}')::text, '', 'paused instead of async');
SELECT is(are(), 'pa1 async live, pa2 async paused, view 25 of 25, 0 there twice, feeds: projection:pa1 projection:pa2', 'it is async, and has everything that was there');
SELECT append(5) AS x \gset
SELECT is(are(), 'pa1 async live, pa2 async paused, view 25 of 30, 0 there twice, feeds: projection:pa1 projection:pa2', 'appends pass it by');
CALL cqrs_es.run_projections() \gset
SELECT is(are(), 'pa1 async live, pa2 async paused, view 30 of 30, 0 there twice, feeds: projection:pa1 projection:pa2', 'until it is run');

-- both async
SELECT cqrs_es.resume_projection('pa2') AS x, append(3) AS y \gset
CALL cqrs_es.run_projections('{pa2}') \gset
SELECT append(3) AS x \gset
SELECT is(cqrs_es.promote_projection('pa2', replaces => 'pa1', views => '{v}')::text, '', 'async instead of async, each as far as it is');
SELECT is(are(), 'pa1 async paused, pa2 async live, view 36 of 36, 0 there twice, feeds: projection:pa1 projection:pa2', 'it has everything that was there');
SELECT append(4) AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(are(), 'pa1 async paused, pa2 async live, view 40 of 40, 0 there twice, feeds: projection:pa1 projection:pa2', 'and goes on');
SELECT is(cqrs_es.promote_projection('pa1', replaces => 'pa2', views => '{v}')::text, '', 'and back');
SELECT append(2) AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(are(), 'pa1 async live, pa2 async paused, view 42 of 42, 0 there twice, feeds: projection:pa1 projection:pa2', 'the way back is the same');

-- a live sync one instead of an async one, stream by stream
SELECT cqrs_es.alter_projection('pa1', per_stream => true) IS NULL AS x, cqrs_es.alter_projection('pa2', mode => 'sync') IS NULL AS y, cqrs_es.resume_projection('pa2') AS z \gset
SELECT is(are(), 'pa1 async live, pa2 sync live, view 42 of 42, 0 there twice, feeds: projection:pa1', 'one sync, one async');
SELECT append(2) AS x \gset
SELECT is(cqrs_es.promote_projection('pa2', replaces => 'pa1', views => '{v}')::text, '', 'live instead of async');
SELECT is(are(), 'pa1 async paused, pa2 async live, view 44 of 44, 0 there twice, feeds: projection:pa1 projection:pa2', 'it is async');
SELECT is((SELECT per_stream FROM cqrs_es.projections WHERE name = 'pa2'), true, 'and stream by stream');
SELECT append(2) AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(are(), 'pa1 async paused, pa2 async live, view 46 of 46, 0 there twice, feeds: projection:pa1 projection:pa2', 'and goes on');

-- events that failed and wait would be passed over
SELECT cqrs_es.alter_projection('pa1', per_stream => true) IS NULL AS x, cqrs_es.resume_projection('pa1') AS y \gset
SELECT cqrs_es.define_handler('pa1', 'bad', 'DELETE FROM one WHERE 1 / (event.sequence - event.sequence) = 1') IS NULL AS x \gset
SELECT append(1, 'bad') AS x, append(3) AS y \gset
CALL cqrs_es.run_projections() \gset
SELECT is(are(), 'pa1 async live, pa2 async live, view 49 of 50, 0 there twice, feeds: projection:pa1 projection:pa2', 'an event that the one does not want, and the other cannot handle');
SELECT is((SELECT e[1] || ' ' || e[2] FROM pg_temp.error_of($$SELECT cqrs_es.promote_projection('pa1', 'pa2', '{v}')$$) AS e),
	'55000 projection "pa1" has events that failed and wait', 'one that has streams parked');
SELECT is(are(), 'pa1 async live, pa2 async live, view 49 of 50, 0 there twice, feeds: projection:pa1 projection:pa2', 'nothing has happened');

-- one that has stopped is replaced by one that can
SELECT cqrs_es.drop_handler('pa1', 'bad') IS NULL AS x, cqrs_es.rebuild_projection('pa1') > 0 AS y, cqrs_es.alter_projection('pa1', per_stream => false) IS NULL AS z,
	cqrs_es.alter_projection('pa2', per_stream => false) IS NULL AS u \gset
SELECT is(cqrs_es.promote_projection('pa1', 'pa2', '{v}')::text, '', 'when it has been rebuilt it can be promoted');
SELECT cqrs_es.define_handler('pa1', 'worse', 'DELETE FROM one WHERE 1 / (event.sequence - event.sequence) = 1') IS NULL AS x, append(1, 'worse') AS y, append(3) AS z \gset
SELECT cqrs_es.define_handler('pa2', 'worse', 'INSERT INTO two (position) VALUES (event.global_position)') IS NULL AS x, cqrs_es.define_handler('pa2', 'bad', 'INSERT INTO two (position) VALUES (event.global_position)') IS NULL AS y,
	cqrs_es.rebuild_projection('pa2') > 0 AS z \gset
UPDATE cqrs_es.subscriptions SET max_attempts = 1 WHERE name = 'projection:pa1';
CALL cqrs_es.run_projections('{pa1}') \gset
SELECT is((SELECT state FROM cqrs_es.projection_status WHERE name = 'pa1'), 'stopped', 'one stops');
SELECT is((SELECT left(e[1] || ' ' || e[2], 30) FROM pg_temp.error_of($$SELECT cqrs_es.promote_projection('pa1', 'pa2', '{v}')$$) AS e), '22023 view "v" reads no table ', 'it is that one which readers read');
SELECT is(cqrs_es.promote_projection('pa2', 'pa1', '{v}')::text, '', 'and is replaced by one that can handle the event');
SELECT is(are(), 'pa1 async paused, pa2 async live, view 54 of 54, 0 there twice, feeds: projection:pa1 projection:pa2', 'which has everything');
SELECT is((SELECT left(e[1] || ' ' || e[2], 31) FROM pg_temp.error_of($$SELECT cqrs_es.promote_projection('pa1', 'pa2', '{v}')$$) AS e), 'QE201 projection "pa1" failed o', 'the way back fails for the event');
SELECT is(are(), 'pa1 async paused, pa2 async live, view 54 of 54, 0 there twice, feeds: projection:pa1 projection:pa2', 'and nothing has happened');
SELECT append(2) AS x \gset
CALL cqrs_es.run_projections('{pa2}') \gset
SELECT is(are(), 'pa1 async paused, pa2 async live, view 56 of 56, 0 there twice, feeds: projection:pa1 projection:pa2', 'it goes on');

SELECT cqrs_es.drop_projection('pa1') IS NULL AS x, cqrs_es.drop_projection('pa2') IS NULL AS y \gset

-- what the handlers of the new one append while it catches up: both are told of it, once
DROP VIEW v;
CREATE TABLE pa.echo_type AS SELECT 'pa' || (random() * 1e9)::bigint AS name;
CREATE FUNCTION pa.echo(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$
	INSERT INTO pa.two (position) VALUES (e.global_position);
	SELECT cqrs_es.append_event(e.aggregate_type, e.aggregate_id || 'e', 'echo', '{}') WHERE e.event_type = 'e' $$;
CREATE FUNCTION pa.echoed() RETURNS text LANGUAGE sql AS $$
	SELECT format('%s events, one: %s and %s there twice, two: %s and %s there twice', (SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = (SELECT name FROM pa.echo_type)),
		(SELECT count(DISTINCT position) FROM pa.one), (SELECT count(*) - count(DISTINCT position) FROM pa.one),
		(SELECT count(DISTINCT position) FROM pa.two), (SELECT count(*) - count(DISTINCT position) FROM pa.two)) $$;
CREATE PROCEDURE pa.again(mode text) LANGUAGE plpgsql AS $$
BEGIN
	TRUNCATE one, two;
	UPDATE echo_type SET name = 'pa' || (random() * 1e9)::bigint;
	PERFORM cqrs_es.create_projection('pa1', (SELECT array_agg(name) FROM echo_type), '{one}', mode => again.mode);
	PERFORM cqrs_es.define_handler('pa1', '*', 'INSERT INTO one VALUES (event.global_position)');
	PERFORM cqrs_es.append_event(t.name, i::text, 'e', '{}') FROM echo_type AS t, generate_series(1, 3) AS i;
	PERFORM cqrs_es.create_projection('pa2', (SELECT array_agg(name) FROM echo_type), '{two}', backfill => true);
	PERFORM cqrs_es.define_handler('pa2', '*', 'pa.echo(cqrs_es.event)');
END $$;
CALL again('sync');
SELECT is(cqrs_es.promote_projection('pa2', 'pa1')::text, '', 'a handler that appends, instead of a sync one');
SELECT is(echoed(), '6 events, one: 6 and 0 there twice, two: 6 and 0 there twice', 'both have what it has appended');
SELECT cqrs_es.resume_projection('pa1') AS x \gset
SELECT is(echoed(), '6 events, one: 6 and 0 there twice, two: 6 and 0 there twice', 'also when the old one is resumed');
SELECT cqrs_es.drop_projection('pa1') IS NULL AS x, cqrs_es.drop_projection('pa2') IS NULL AS y \gset
CALL again('async');
SELECT is(cqrs_es.promote_projection('pa2', 'pa1')::text, '', 'the same instead of an async one');
CALL cqrs_es.run_projections('{pa2}') \gset
SELECT is(echoed(), '6 events, one: 0 and 0 there twice, two: 6 and 0 there twice', 'it has what it has appended when it has been run');
SELECT cqrs_es.resume_projection('pa1') AS x \gset
CALL cqrs_es.run_projections('{pa1}') \gset
SELECT is(echoed(), '6 events, one: 6 and 0 there twice, two: 6 and 0 there twice', 'and so has the old one');
SELECT cqrs_es.drop_projection('pa1') IS NULL AS x, cqrs_es.drop_projection('pa2') IS NULL AS y \gset
DROP SCHEMA pa CASCADE;
