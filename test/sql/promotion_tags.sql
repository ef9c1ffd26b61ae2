\i test/include/setup.sql
-- Promotion, and changes of mode, of projections for the events that have certain tags: each event with the tag once
-- and no other, in one mode and the other, and back.
SELECT plan(33);
CREATE SCHEMA ptag;
SET search_path = ptag, public;
SET client_min_messages = error;
-- tags of this run alone; red is what the projections are for
CREATE TABLE ptag.run AS SELECT 'ptag' || (random() * 1e9)::bigint AS type;
CREATE TABLE one (position bigint);
CREATE TABLE two (note text, position bigint);
CREATE VIEW v AS SELECT position FROM one;
CREATE FUNCTION ptag.red() RETURNS text LANGUAGE sql AS $$SELECT 'red ' || type FROM ptag.run$$;
SELECT cqrs_es.create_projection('ptag1', read_models => '{one}', tags => ARRAY[red()]), cqrs_es.create_projection('ptag2', read_models => '{two}', mode => 'async', tags => ARRAY[red()]),
	cqrs_es.define_handler('ptag1', '*', 'INSERT INTO one VALUES (event.global_position)'),
	cqrs_es.define_handler('ptag2', '*', 'INSERT INTO two (position) VALUES (event.global_position)') \g /dev/null
-- so many red ones, each behind another one
CREATE FUNCTION ptag.append(n integer) RETURNS bigint LANGUAGE sql AS $$
	SELECT max(version) FROM ptag.run, generate_series(1, n) AS i, cqrs_es.append_events(type, (i % 3)::text,
		jsonb_build_array('{"type": "plain", "payload": {}, "tags": ["ptag blue"]}'::jsonb, jsonb_build_object('type', 'plain', 'payload', 1, 'tags', ARRAY[red(), 'ptag blue'])))$$;
CREATE FUNCTION ptag.reds() RETURNS SETOF bigint LANGUAGE sql AS $$SELECT global_position FROM cqrs_es.event_tags WHERE tag = red()$$;
-- which of them are how, and how many of the red events the view has, and of others or twice
CREATE FUNCTION ptag.are() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT string_agg(format('%s %s %s', right(name, 1), mode, state), ', ' ORDER BY name) FROM cqrs_es.projection_status WHERE name LIKE 'ptag_')
		|| format(', view %s of %s, %s too many', (SELECT count(DISTINCT position) FROM v WHERE position IN (SELECT reds())), (SELECT count(*) FROM reds()),
			(SELECT count(*) - count(DISTINCT position) FILTER (WHERE position IN (SELECT reds())) FROM v));
END $$;
CREATE FUNCTION ptag.feeds() RETURNS text LANGUAGE sql AS
	$$SELECT coalesce(string_agg(right(name, 1) || CASE WHEN tags = ARRAY[red()] THEN ' red' ELSE ' other' END, ', ' ORDER BY name), 'none') FROM cqrs_es.subscriptions WHERE name LIKE 'projection:ptag_'$$;

-- its mode, there and back
SELECT append(3) AS x \gset
SELECT is(are(), '1 sync live, 2 async live, view 3 of 3, 0 too many', 'a sync one');
SELECT is(feeds(), '2 red', '... the other one has a feed');
SELECT cqrs_es.alter_projection('ptag1', mode => 'async') IS NULL AS x, append(3) AS y \gset
SELECT is(are(), '1 async live, 2 async live, view 3 of 6, 0 too many', 'async, appends pass it by');
SELECT is(feeds(), '1 red, 2 red', '... it has a feed, too');
CALL cqrs_es.run_projections('{ptag1}') \gset
SELECT is(are(), '1 async live, 2 async live, view 6 of 6, 0 too many', '... until it is run');
SELECT append(2) AS x, cqrs_es.alter_projection('ptag1', mode => 'sync') IS NULL AS y \gset
SELECT is(are(), '1 sync live, 2 async live, view 8 of 8, 0 too many', 'sync again, with what it had not handled');
SELECT append(2) AS x \gset
SELECT is(are(), '1 sync live, 2 async live, view 10 of 10, 0 too many', '... and what comes');
SELECT is(feeds(), '2 red', '... the feed is gone');

-- an async one, which is behind, instead of a sync one
CALL cqrs_es.run_projections('{ptag2}') \gset
SELECT append(5) AS x \gset
SELECT is((SELECT count(*)::int FROM two), 10, 'the new one is behind');
SELECT is(cqrs_es.promote_projection('ptag2', replaces => 'ptag1', views => '{v}')::text, '', 'async instead of sync');
SELECT is(are(), '1 sync paused, 2 sync live, view 15 of 15, 0 too many', 'it is sync, and has everything');
SELECT is(feeds(), 'none', '... and no feed');
SELECT append(5) AS x \gset
SELECT is(are(), '1 sync paused, 2 sync live, view 20 of 20, 0 too many', 'and follows appends');
-- ... and back: a paused one, which is behind, instead of an async one
SELECT cqrs_es.alter_projection('ptag2', mode => 'async') IS NULL AS x, append(5) AS y \gset
SELECT is(cqrs_es.promote_projection('ptag1', replaces => 'ptag2', views => '{v}')::text, '', 'paused instead of async');
SELECT is(are(), '1 async live, 2 async paused, view 25 of 25, 0 too many', 'it is async, and has everything that was there');
SELECT is(feeds(), '1 red, 2 red', '... its feed is for the same events');
SELECT append(5) AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is(are(), '1 async live, 2 async paused, view 30 of 30, 0 too many', '... and goes on');
-- both async
SELECT cqrs_es.resume_projection('ptag2') AS x, append(3) AS y \gset
SELECT is(cqrs_es.promote_projection('ptag2', replaces => 'ptag1', views => '{v}')::text, '', 'async instead of async');
SELECT is(are(), '1 async paused, 2 async live, view 33 of 33, 0 too many', 'it has everything that was there');

-- tags that old events lack: those that are behind may not pass them
SELECT cqrs_es.alter_projection('ptag1', mode => 'sync'), append(2) \g /dev/null
SELECT cqrs_es.append_event(type, 'old', 'old ' || type, '{}') IS NULL AS x FROM run \gset
SELECT cqrs_es.define_tags('old ' || type, red()) IS NULL AS x FROM run \gset
SELECT is(pg_temp.state_of($$SELECT cqrs_es.promote_projection('ptag1', replaces => 'ptag2', views => '{v}')$$), '55000', 'not before retag has ended');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.resume_projection('ptag1')$$), '55000', '... nor resumed');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.alter_projection('ptag2', mode => 'sync')$$), '55000', '... nor in another mode');
SELECT is(are(), '1 sync paused, 2 async live, view 33 of 35, 0 too many', '... nothing has happened');
\set statements 'CALL cqrs_es.run_projections(\'{ptag2}\');'
\i test/include/session.sql
SELECT is(:'answer'::text, '0', 'nor does one that is run pass them');
CALL cqrs_es.retag();
SELECT is(cqrs_es.promote_projection('ptag1', replaces => 'ptag2', views => '{v}')::text, '', 'then it is promoted');
SELECT is(are(), '1 async live, 2 async paused, view 36 of 36, 0 too many', '... and has what was tagged');
SELECT cqrs_es.alter_projection('ptag2', mode => 'sync'), cqrs_es.resume_projection('ptag2') \g /dev/null
SELECT is((SELECT count(*)::int FROM two), 36, 'and so has the other one, in the other mode');

-- tags of its own: who takes the place brings them
SELECT cqrs_es.create_projection('ptag3', read_models => '{two}', tags => '{ptag blue}', backfill => true) \g /dev/null
SELECT is(pg_temp.state_of($$SELECT cqrs_es.drop_projection('ptag2'); TRUNCATE two; SELECT cqrs_es.define_handler('ptag3', '*', 'INSERT INTO two (position) VALUES (event.global_position)')$$), 'none', 'one for other tags');
SELECT is(cqrs_es.promote_projection('ptag3', replaces => 'ptag1', views => '{v}')::text, '', '... may be promoted as well');
SELECT is((SELECT count(*) FROM v), (SELECT count(*) FROM cqrs_es.event_tags WHERE tag = 'ptag blue'), '... and readers see what that is for');
SELECT is(feeds(), '1 red, 3 other', '... as it goes on');
SELECT is((SELECT count(*) FROM cqrs_es.projection_status WHERE name = 'ptag3' AND mode = 'async' AND state = 'live' AND tags = '{ptag blue}'), 1::bigint, '... in the mode of the old one');
SELECT append(1) AS x \gset
CALL cqrs_es.run_projections() \gset
SELECT is((SELECT count(*) FROM v), (SELECT count(*) FROM cqrs_es.event_tags WHERE tag = 'ptag blue'), '... and goes on');

SELECT cqrs_es.drop_projection(name) FROM cqrs_es.projections WHERE name LIKE 'ptag_' \g /dev/null
SELECT cqrs_es.drop_tags('old ' || type) FROM run \g /dev/null
DROP SCHEMA ptag CASCADE;
SELECT * FROM finish();
