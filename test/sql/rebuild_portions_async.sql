\i test/include/setup.sql
-- rebuild_in_portions of an asynchronous projection: the same rows, each event once, whoever runs it meanwhile and afterwards.

SELECT plan(18);
CREATE SCHEMA ra;
SET search_path = ra, public;
CREATE TABLE ra.type AS SELECT 'ra' || (random() * 1e9)::bigint AS name;
CREATE TABLE ra.sums (id text PRIMARY KEY, n bigint NOT NULL, trail text NOT NULL);
CREATE FUNCTION ra.sums() RETURNS text LANGUAGE sql AS $$SELECT string_agg(s::text, ' ' ORDER BY id) FROM sums AS s$$;
CREATE FUNCTION ra.append(n integer, type text DEFAULT 'made') RETURNS bigint LANGUAGE sql AS
	$$SELECT max(version) FROM generate_series(1, n) AS i, ra.type AS t, cqrs_es.append_event(t.name, (i % 3)::text, type, jsonb_build_object('i', i))$$;
-- what the rows should be, from the log
CREATE FUNCTION ra.expected() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	e record;
	trails jsonb := '{}';
	counts jsonb := '{}';
BEGIN
	FOR e IN SELECT aggregate_id AS id, payload->>'i' AS i FROM cqrs_es.events WHERE aggregate_type = (SELECT name FROM ra.type) AND event_type = 'made' ORDER BY global_position LOOP
		trails := trails || jsonb_build_object(e.id, md5(coalesce(trails->>e.id, '') || e.i));
		counts := counts || jsonb_build_object(e.id, coalesce((counts->>e.id)::int, 0) + 1);
	END LOOP;
	RETURN (SELECT string_agg(format('(%s,%s,%s)', key, counts->>key, value), ' ' ORDER BY key) FROM jsonb_each_text(trails));
END $$;
SELECT cqrs_es.create_projection('ra', (SELECT array_agg(name) FROM ra.type), '{sums}', mode => 'async') IS NULL AS x,
	cqrs_es.define_handler('ra', 'made', $$INSERT INTO sums VALUES (event.aggregate_id, 1, md5(event.payload->>'i'))
		ON CONFLICT (id) DO UPDATE SET n = sums.n + 1, trail = md5(sums.trail || (event.payload->>'i'))$$) IS NULL AS y \gset
CREATE FUNCTION ra.state() RETURNS text LANGUAGE sql AS $$SELECT mode || ' ' || state FROM cqrs_es.projection_status WHERE name = 'ra'$$;
SELECT append(50) AS x \gset
CALL cqrs_es.run_projections('{ra}') \gset
SELECT append(10) AS x \gset

CALL cqrs_es.rebuild_in_portions('ra', 7);
SELECT is(state(), 'async live', 'it is live again');
SELECT is(sums(), expected(), 'with the events that it had not handled yet');
CALL cqrs_es.run_projections('{ra}') \gset
SELECT is(sums(), expected(), 'none is handled twice');
SELECT append(10) AS x \gset
CALL cqrs_es.run_projections('{ra}') \gset
SELECT is(sums(), expected(), 'and it goes on');

-- interrupted
SELECT cqrs_es.define_handler('ra', 'bad', 'DELETE FROM sums WHERE 1 / n = 1 / (n - n)') IS NULL AS x, append(1, 'bad') AS y, append(10) AS z \gset
SELECT cqrs_es.drop_handler('ra', 'bad') IS NULL AS x \gset
CALL cqrs_es.run_projections('{ra}') \gset
SELECT is(sums(), expected(), 'before');
SELECT cqrs_es.define_handler('ra', 'bad', 'DELETE FROM sums WHERE 1 / n = 1 / (n - n)') IS NULL AS x \gset
\set statements 'CALL cqrs_es.rebuild_in_portions(''ra'', 7);'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  QE201', 'an event that fails');
SELECT is(state(), 'async partly rebuilt', 'it is rebuilt partly');
SELECT append(5) AS x, sums() AS before \gset
CALL cqrs_es.run_projections('{ra}') \gset
SELECT is(sums(), :'before', 'nobody runs it');
SELECT cqrs_es.drop_handler('ra', 'bad') IS NULL AS x \gset
CALL cqrs_es.resume_in_portions('ra', 7);
SELECT is(state(), 'async live', 'it goes on to the end');
SELECT is(sums(), expected(), 'from where it was');
SELECT append(5) AS x \gset
CALL cqrs_es.run_projections('{ra}') \gset
SELECT is(sums(), expected(), 'and is run again');

-- a paused one
SELECT cqrs_es.pause_projection('ra') IS NULL AS x, append(5) AS y \gset
CALL cqrs_es.rebuild_in_portions('ra', 7);
SELECT is(state() || ' ' || (sums() = expected()), 'async paused true', 'one that was paused stays so');
SELECT cqrs_es.resume_projection('ra') AS x, append(5) AS y \gset
CALL cqrs_es.run_projections('{ra}') \gset
SELECT is(sums(), expected(), 'and goes on when it is resumed');

-- interrupted, and left to who runs it: for them what is rebuilt is as old as for the rebuild, and nothing may follow from it
SELECT cqrs_es.define_handler('ra', 'bad', 'DELETE FROM sums WHERE 1 / n = 1 / (n - n)') IS NULL AS x \gset
\set statements 'CALL cqrs_es.rebuild_in_portions(''ra'', 7);'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  QE201', 'an event that fails');
CREATE FUNCTION ra.follow(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$SELECT cqrs_es.append_event('follows', e.aggregate_id, 'e', '{}')$$;
SELECT cqrs_es.define_handler('ra', 'bad', 'ra.follow') IS NULL AS x, append(5) AS y, cqrs_es.resume_projection('ra') AS z \gset
SELECT is(state(), 'async live', 'who resumes it leaves the rest to its runner');
SET client_min_messages = error;
CALL cqrs_es.run_projections('{ra}') \gset
SELECT matches(last_error, 'append', 'of old events none follow') FROM cqrs_es.projection_status WHERE name = 'ra';
SELECT is(state() || ' ' || cqrs_es.stream_version('follows', '1'), 'async stopped 0', 'which does not get better by trying');
SELECT cqrs_es.drop_handler('ra', 'bad') IS NULL AS x, cqrs_es.resume_projection('ra') AS y \gset
CALL cqrs_es.run_projections('{ra}') \gset
SET client_min_messages = warning;
SELECT is(sums(), expected(), 'the others are handled, each once');

SELECT cqrs_es.drop_projection('ra') IS NULL AS x \gset
DROP SCHEMA ra CASCADE;
