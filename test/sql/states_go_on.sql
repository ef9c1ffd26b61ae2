\i test/include/setup.sql
-- What a replay of a state_of projection folds: a resume goes on from the rows that there are, a rebuild folds each
-- stream once.

BEGIN;
SELECT plan(16);
CREATE SCHEMA sg;
SET LOCAL search_path = sg, public;
CREATE SEQUENCE sg.calls;
CREATE FUNCTION sg.reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('n', (state->>'n')::integer + 1, 'calls', nextval('sg.calls'))$$;
CREATE FUNCTION sg.append(id text, n integer) RETURNS bigint LANGUAGE sql AS
	$$SELECT max(version) FROM generate_series(1, n) AS i, cqrs_es.append_event('sg', id, 'made', jsonb_build_object('i', i))$$;
-- since it was asked last
CREATE FUNCTION sg.calls() RETURNS bigint LANGUAGE sql AS $$SELECT nextval('sg.calls') - 1 - 0 * setval('sg.calls', 1, false)$$;
CREATE TABLE sg.states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
CREATE FUNCTION sg.states() RETURNS text LANGUAGE sql AS $$SELECT string_agg(concat(view_id, ' ', version, ' ', payload->>'n'), ', ' ORDER BY view_id) FROM sg.states$$;
SELECT cqrs_es.create_aggregate('sg', '{"n": 0}', snapshot_every => 0) IS NULL AS x,
	cqrs_es.define_reducer('sg', 'made', 'sg.reduce(jsonb, cqrs_es.event)') IS NULL AS y,
	cqrs_es.create_projection('sg', state_of => 'sg', read_models => '{states}') IS NULL AS z \gset
SELECT append('a', 100) AS x, append('b', 10) AS y, calls() AS z \gset
SELECT append('a', 1) AS x \gset
SELECT is(calls(), 1::bigint, 'an append folds one event');

SELECT cqrs_es.pause_projection('sg') IS NULL AS x \gset
SELECT append('a', 1) AS x \gset
SELECT is(cqrs_es.resume_projection('sg'), 1::bigint, 'one event was missed');
SELECT is(calls(), 1::bigint, 'a resume folds one event');
SELECT is(states(), 'a 102 102, b 10 10', 'the states are right');

SELECT cqrs_es.pause_projection('sg') IS NULL AS x \gset
SELECT append('a', 3) AS x, append('b', 2) AS y, append('c', 4) AS z, append('a', 2) AS x \gset
SELECT is(cqrs_es.resume_projection('sg'), 11::bigint, 'several streams: each is brought up to its end');
SELECT is(calls(), 11::bigint, 'by its missed events, each once');
SELECT is(states(), 'a 107 107, b 12 12, c 4 4', 'the states are right');

SELECT is(cqrs_es.rebuild_projection('sg'), 123::bigint, 'a rebuild');
SELECT is(calls(), 123::bigint, 'folds each event once');
SELECT is(states(), 'a 107 107, b 12 12, c 4 4', 'the states are right');

-- a row that is of another version than the event before
SELECT cqrs_es.pause_projection('sg') IS NULL AS x \gset
UPDATE sg.states SET version = 50, payload = '{"n": -1}' WHERE view_id = 'a';
DELETE FROM sg.states WHERE view_id = 'b';
SELECT append('a', 1) AS x, append('b', 1) AS y \gset
SELECT is(cqrs_es.resume_projection('sg'), 2::bigint, 'rows that are behind by more, or gone');
SELECT is(calls(), 121::bigint, 'have their streams folded anew');
SELECT is(states(), 'a 108 108, b 13 13, c 4 4', 'the states are right');

-- skipped; not by a planner that divides before it is asked
CREATE OR REPLACE FUNCTION sg.reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('n', (state->>'n')::integer + 1, 'calls', nextval('sg.calls'), 'bad', CASE WHEN event.sequence = 110 AND to_regclass('sg.mended') IS NULL THEN 1 / (event.sequence - 110 + (0 * random())::integer) END)$$;
SELECT cqrs_es.pause_projection('sg') IS NULL AS x \gset
SELECT append('a', 3) AS x, append('b', 1) AS y \gset
SELECT is(cqrs_es.resume_projection('sg', 'skip'), 1::bigint, 'a stream that cannot be folded is skipped');
CREATE TABLE sg.mended ();
SELECT handled AS x FROM cqrs_es.retry_skipped('sg') \gset
SELECT is(states(), 'a 111 111, b 14 14, c 4 4', 'and brought up to its end when it can');
SELECT is(cqrs_es.projection_errors('sg'), NULL, 'all is well');
SELECT * FROM finish();
ROLLBACK;
