\i test/include/setup.sql
-- Projections for the events that have certain tags.
SELECT plan(31);
CREATE FUNCTION pg_temp.make(called text, options text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE %I (at bigint PRIMARY KEY, n int)', called);
	EXECUTE format('SELECT cqrs_es.create_projection(%L, read_models => ARRAY[%L::regclass], %s)', called, quote_ident(called), options);
	PERFORM cqrs_es.define_handler(called, '*', format('INSERT INTO public.%I VALUES (event.global_position, (event.payload ->> ''n'')::int)', called));
END $$;
CREATE FUNCTION pg_temp.has(called text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	numbers text;
BEGIN
	EXECUTE format('SELECT string_agg(n::text, '' '' ORDER BY at) FROM %I', called) INTO numbers;
	RETURN numbers;
END $$;
CREATE FUNCTION pg_temp.put(n int, tags text[] DEFAULT NULL, type text DEFAULT 'pt: plain') RETURNS void LANGUAGE sql AS
	$$SELECT cqrs_es.append_event('pt', (n % 3)::text, type, jsonb_build_object('n', n), tags => put.tags)$$;

-- in the transactions that append: on all ways
SELECT pg_temp.make('pt_sync', $$aggregate_types => '{pt}', tags => '{pt:red}'$$) IS NULL AS x \gset
SELECT pg_temp.make('pt_both', $$aggregate_types => '{pt}', tags => '{pt:red,pt:n 4}'$$) IS NULL AS x \gset
SELECT cqrs_es.define_tags('pt: numbered', 'pt:n {/n}', 'pt:red') IS NULL AS x \gset
SELECT pg_temp.put(1, '{pt:red}'), pg_temp.put(2, '{pt:blue}'), pg_temp.put(3) \g /dev/null
SELECT pg_temp.put(4, type => 'pt: numbered') IS NULL AS x \gset
SELECT is(pg_temp.has('pt_sync'), '1 4', 'those that have it, given or defined');
SELECT is(pg_temp.has('pt_both'), '4', 'all of several');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'pt', '7', CASE WHEN n = 6 THEN 'pt: plain' ELSE 'pt: numbered' END, jsonb_build_object('n', n) FROM generate_series(5, 7) AS n;
SELECT is(pg_temp.has('pt_sync'), '1 4 5 7', 'rows of a plain INSERT');
SELECT cqrs_es.append_events('pt', '8', '[{"type": "pt: plain", "payload": {"n": 8}}, {"type": "pt: plain", "payload": {"n": 9}, "tags": ["pt:red"]}]') IS NULL AS x \gset
SELECT is(pg_temp.has('pt_sync'), '1 4 5 7 9', 'several at once');
SELECT FROM cqrs_es.append_to_streams('[{"type": "pt: plain", "aggregate_type": "pt", "aggregate_id": "x", "payload": {"n": 10}, "tags": ["pt:red"]}, {"type": "pt: plain", "aggregate_type": "pt", "aggregate_id": "y", "payload": {"n": 11}, "tags": ["pt:blue"]}]') \g /dev/null
SELECT is(pg_temp.has('pt_sync'), '1 4 5 7 9 10', 'of several streams');
SELECT is((SELECT tags::text FROM cqrs_es.projection_status WHERE name = 'pt_sync'), '{pt:red}', 'shown');
-- a handler that appends what the projection is for
CREATE FUNCTION pt_follow(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.append_event('pt', 'follow', 'pt: follows', jsonb_build_object('n', 100 + (event.payload ->> 'n')::int), tags => CASE WHEN event.payload ->> 'n' = '12' THEN '{pt:red}' ELSE '{pt:blue}' END::text[])
$$;
SELECT cqrs_es.define_handler('pt_sync', 'pt: plain', 'pt_follow') IS NULL AS x \gset
SELECT pg_temp.put(12, '{pt:red}'), pg_temp.put(13, '{pt:red}'), pg_temp.put(14) \g /dev/null
SELECT is(pg_temp.has('pt_sync'), '1 4 5 7 9 10 12 112 13', 'what handlers append has its tags when it is told of');
SELECT cqrs_es.drop_handler('pt_sync', 'pt: plain') IS NULL AS x \gset

-- again from the log
SET client_min_messages = error;
SELECT is(cqrs_es.rebuild_projection('pt_sync'), 9::bigint, 'a rebuild handles as many');
SELECT is(pg_temp.has('pt_sync'), '1 4 5 7 9 10 12 112 13', '... and the same');
SELECT cqrs_es.pause_projection('pt_sync') IS NULL AS x \gset
SELECT pg_temp.put(15, '{pt:red}'), pg_temp.put(16) \g /dev/null
SELECT is(cqrs_es.resume_projection('pt_sync'), 1::bigint, 'so does a resume');
SELECT is(pg_temp.has('pt_sync'), '1 4 5 7 9 10 12 112 13 15', '... what it has missed');
SELECT is(cqrs_es.rebuild_projection('pt_sync', on_error => 'skip'), 10::bigint, 'a rebuild that may skip');
SET client_min_messages = warning;
\set statements 'CALL cqrs_es.rebuild_in_portions(\'pt_sync\', 2);'
\i test/include/session.sql
SELECT is(:'answer'::text, '', 'in portions');
SELECT is(pg_temp.has('pt_sync'), '1 4 5 7 9 10 12 112 13 15', '... the same');

-- asynchronous ones
SELECT pg_temp.make('pt_async', $$tags => '{pt:red}', mode => 'async', backfill => true$$) IS NULL AS x \gset
SELECT pg_temp.make('pt_streams', $$tags => '{pt:red}', mode => 'async', per_stream => true, backfill => true$$) IS NULL AS x \gset
SET client_min_messages = error;
SELECT cqrs_es.resume_projection('pt_async') IS NULL, cqrs_es.resume_projection('pt_streams') IS NULL \g /dev/null
SET client_min_messages = warning;
SELECT is((SELECT string_agg(DISTINCT tags::text, ' ') FROM cqrs_es.subscriptions WHERE name LIKE 'projection:pt%'), '{pt:red}', 'their subscriptions have the tags');
CALL cqrs_es.run_projections() \g /dev/null
SELECT is(pg_temp.has('pt_async'), '1 4 5 7 9 10 12 112 13 15', 'from the beginning');
SELECT is(pg_temp.has('pt_streams'), '1 4 5 7 9 10 12 112 13 15', 'by streams');
SELECT pg_temp.put(17), pg_temp.put(18, '{pt:red}') \g /dev/null
CALL cqrs_es.run_projections() \g /dev/null
SELECT is(pg_temp.has('pt_async'), '1 4 5 7 9 10 12 112 13 15 18', 'what comes');
SET client_min_messages = error;
SELECT is(cqrs_es.rebuild_projection('pt_async'), 11::bigint, 'rebuilt');
SELECT cqrs_es.alter_projection('pt_async', mode => 'sync') IS NULL AS x \gset
SELECT cqrs_es.alter_projection('pt_sync', mode => 'async') IS NULL AS x \gset
SET client_min_messages = warning;
SELECT pg_temp.put(19), pg_temp.put(20, '{pt:red}') \g /dev/null
CALL cqrs_es.run_projections() \g /dev/null
SELECT is(pg_temp.has('pt_async'), '1 4 5 7 9 10 12 112 13 15 18 20', 'in the other mode');
SELECT is(pg_temp.has('pt_sync'), '1 4 5 7 9 10 12 112 13 15 18 20', '... both ways');

-- tags that are defined when there are such events
SELECT pg_temp.make('pt_old', $$tags => '{pt:old}'$$) IS NULL AS x \gset
SELECT pg_temp.put(30, type => 'pt: old') IS NULL AS x \gset
SET client_min_messages = error;
SELECT cqrs_es.define_tags('pt: old', 'pt:old') IS NULL AS x \gset
SELECT pg_temp.put(31, type => 'pt: old') IS NULL AS x \gset
SELECT is(pg_temp.has('pt_old'), '31', 'new events are handled all the time');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.rebuild_projection('pt_old')$$), '55000', 'who would pass those that lack their tags is refused');
SELECT is(pg_temp.has('pt_old'), '31', '... and nothing has been emptied');
CALL cqrs_es.retag('pt: old');
SELECT is(cqrs_es.rebuild_projection('pt_old'), 2::bigint, 'then a rebuild');
SELECT is(pg_temp.has('pt_old'), '30 31', '... has all of them');
SET client_min_messages = warning;

-- what cannot be
SELECT is(pg_temp.error_of($$SELECT cqrs_es.create_projection('pt_old', read_models => '{pt_old}', tags => '{pt:new}')$$, '{state,detail}'), '{42710,"Its tags is {pt:old}."}', 'another one of that name');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.create_projection('pt_old', read_models => '{pt_old}', tags => '{pt:old,pt:old}')$$), 'none', 'the same again');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.create_projection('pt_none', tags => '{}')$$, '{state,message}'), '{22023,"tags must not be empty"}', 'no tags');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.create_projection('pt_none', read_models => '{pt_old}', state_of => 'pt', tags => '{a}')$$, '{state,message}'), '{22023,"tags and state_of cannot be given both"}', 'states are of whole streams');

SELECT cqrs_es.drop_projection(name) FROM cqrs_es.projections WHERE name LIKE 'pt%' \g /dev/null
SELECT cqrs_es.drop_tags(event_type) FROM cqrs_es.tag_definitions WHERE event_type LIKE 'pt:%' \g /dev/null
DROP FUNCTION pt_follow;
DROP TABLE pt_sync, pt_both, pt_async, pt_streams, pt_old;
SELECT is((SELECT count(*) FROM cqrs_es.subscriptions WHERE name LIKE 'projection:pt%'), 0::bigint, 'nothing is left');
SELECT * FROM finish();
