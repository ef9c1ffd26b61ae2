\i test/include/setup.sql
-- Strict aggregates and tags: what is refused leaves no tag behind, on whatever way it came, and what is taken has
-- its tags; who reads, decides or projects by tags sees it so.
SELECT plan(38);
SET client_min_messages = error;
SELECT cqrs_es.create_aggregate('stag', '{"n": 0}', snapshot_every => 2, strict => true), cqrs_es.define_reducer('stag', 'st: added', '[{"op": "increment", "path": "/n", "from": "/n"}]') \g /dev/null
SELECT cqrs_es.define_command('stag', 'say', $$command -> 'events'$$) IS NULL AS x \gset
SELECT cqrs_es.define_tags('st: added', 'st:of {/of}', 'st:all'), cqrs_es.define_tags('st: unknown', 'st:of {/of}', 'st:all') \g /dev/null
CREATE TABLE st_rows (stream text, n text);
SELECT cqrs_es.create_projection('stag', read_models => '{st_rows}', tags => '{st:all}'),
	cqrs_es.define_handler('stag', '*', $$INSERT INTO public.st_rows VALUES (event.aggregate_id, event.payload ->> 'n')$$) \g /dev/null
SELECT cqrs_es.create_subscription('stag', start_at_end => true, tags => '{st:all}') IS NULL AS x \gset
SELECT cqrs_es.create_boundary('st: boundary', '[{"types": ["st: added"], "tags": ["st:of {/of}"]}]', '{"n": 0}'),
	cqrs_es.define_reducer('st: boundary', 'st: added', '[{"op": "increment", "path": "/n", "from": "/n"}]'),
	cqrs_es.define_command('st: boundary', 'Add', $$jsonb_build_object('aggregate_type', 'stag', 'aggregate_id', command ->> 'id', 'type', coalesce(command ->> 'type', 'st: added'), 'payload', command)$$) \g /dev/null

-- an event that its reducer takes, and one that it does not; each with a tag of its own and the defined ones
CREATE FUNCTION pg_temp.append(way text, id text, n jsonb, type text DEFAULT 'st: added') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	payload jsonb := jsonb_build_object('n', n, 'of', id, 'id', id);
	event jsonb := jsonb_build_object('type', type, 'payload', payload, 'tags', ARRAY['st:own ' || id]);
BEGIN
	CASE way
		WHEN 'append_event' THEN PERFORM cqrs_es.append_event('stag', id, type, payload, tags => ARRAY['st:own ' || id]);
		WHEN 'append_events' THEN PERFORM cqrs_es.append_events('stag', id, jsonb_build_array(event));
		WHEN 'append_to_streams' THEN PERFORM cqrs_es.append_to_streams(jsonb_build_array(
			'{"type": "st: other", "payload": {}, "tags": ["st:all"]}'::jsonb, event || jsonb_build_object('aggregate_type', 'stag', 'aggregate_id', id)),
			jsonb_build_array(jsonb_build_object('tags', ARRAY['st:of ' || id])));
		WHEN 'INSERT' THEN INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
			VALUES ('stag', id, 'st: added', payload || '{"n": 1}'), ('stag', id, type, payload);
		WHEN 'command' THEN PERFORM cqrs_es.execute_command('stag', id, 'say', jsonb_build_object('events', event));
		WHEN 'boundary' THEN PERFORM cqrs_es.execute_boundary('st: boundary', 'Add', payload || jsonb_build_object('type', type), command_id => ('00000000-0000-7000-8000-' || lpad(ascii(id)::text, 12, '0'))::uuid);
	END CASE;
END $$;
CREATE TEMP TABLE ways (id text, way text);
INSERT INTO ways VALUES ('a', 'append_event'), ('b', 'append_events'), ('c', 'append_to_streams'), ('d', 'INSERT'), ('e', 'command'), ('f', 'boundary');
CREATE FUNCTION pg_temp.tags(of text) RETURNS text LANGUAGE sql AS
	$$SELECT coalesce(string_agg(tag, ', ' ORDER BY tag), 'none') FROM cqrs_es.event_tags WHERE tag IN ('st:of ' || of, 'st:own ' || of)$$;

SELECT is(pg_temp.state_of(format('SELECT pg_temp.append(%L, %L, %L)', way, id, '"x"')), 'QE103', way || ': what the reducer cannot take') FROM ways ORDER BY id;
SELECT is(pg_temp.state_of(format('SELECT pg_temp.append(%L, %L, %L, %L)', way, id, '1', 'st: unknown')), 'QE103', way || ': what has no reducer') FROM ways ORDER BY id;
SELECT is((SELECT string_agg(pg_temp.tags(id), ' ') FROM ways), 'none none none none none none', 'no tag is left');
SELECT is((SELECT count(*) FROM cqrs_es.event_tags WHERE tag = 'st:all' OR tag LIKE 'command:00000000-0000-7000-8000-%'), 0::bigint, '... of any event of the same append, nor of a command');
SELECT is((SELECT count(*) FROM st_rows), 0::bigint, '... nobody was told');
SELECT lives_ok(format('SELECT pg_temp.append(%L, %L, %L)', way, id, '2'), way || ': what it takes') FROM ways ORDER BY id;
SELECT is(pg_temp.tags(id), CASE way WHEN 'INSERT' THEN format('st:of %1$s, st:of %1$s', id) WHEN 'boundary' THEN format('st:of %1$s', id) ELSE format('st:of %1$s, st:own %1$s', id) END, way || ': has its tags') FROM ways ORDER BY id;
SELECT is((SELECT string_agg(stream || n, ' ' ORDER BY stream, n) FROM st_rows WHERE n IS NOT NULL), 'a2 b2 c2 d1 d2 e2 f2', 'a projection by tags has had it');
SELECT is((SELECT string_agg(aggregate_id || (payload ->> 'n'), ' ' ORDER BY aggregate_id, sequence) FROM cqrs_es.receive_events('stag', 'c') WHERE aggregate_type = 'stag'), 'a2 b2 c2 d1 d2 e2 f2', 'a subscription gets it');

-- what is refused within a transaction gives back its tags, and what comes behind it has them
DO $$
BEGIN
	PERFORM pg_temp.append('append_event', 'g', '1');
	BEGIN
		PERFORM pg_temp.append('append_event', 'g', '5');
		PERFORM pg_temp.append('append_event', 'g', '"x"');
	EXCEPTION WHEN SQLSTATE 'QE103' THEN
	END;
	PERFORM pg_temp.append('append_event', 'g', '10');
END $$;
SELECT is((SELECT string_agg(payload ->> 'n' || tags::text, ' ' ORDER BY global_position) FROM cqrs_es.read_matching('[{"tags": ["st:of g"]}]')),
	'1{st:all,"st:of g","st:own g"} 10{st:all,"st:of g","st:own g"}', 'beside a refusal that was caught');
SELECT is((SELECT count(*) FROM cqrs_es.event_tags WHERE tag = 'st:own g'), 2::bigint, '... no more tags than events');
SELECT is(cqrs_es.aggregate_state('stag', 'g') ->> 'n', '11', '... the state is that of the same events');

-- a condition sees nothing of what was refused, and is asked before the reducers are
SELECT is(pg_temp.state_of($$SELECT pg_temp.append('append_to_streams', 'h', '"x"')$$), 'QE103', 'refused under a condition');
SELECT is(pg_temp.state_of($$SELECT pg_temp.append('append_to_streams', 'h', '1')$$), 'none', '... the condition holds afterwards');
SELECT is(pg_temp.state_of($$SELECT pg_temp.append('append_to_streams', 'h', '"x"')$$), 'QE005', 'a condition that fails comes first');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_event('stag', 'h', 'st: added', '{"n": "x"}')$$), 'QE502', 'so does a tag without a value');

-- streams that were poisoned since get tags all the same
SELECT cqrs_es.define_reducer('stag', 'st: old', '[]') IS NULL AS x \gset
SELECT cqrs_es.append_event('stag', 'p', 'st: old', '{"n": "x"}') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('stag', 'st: old', '[{"op": "increment", "path": "/n", "from": "/n"}]') IS NULL AS x \gset
SELECT is((SELECT count(*) FROM cqrs_es.poisoned_streams('stag')), 1::bigint, 'a stream is poisoned');
SELECT cqrs_es.define_tags('st: old', 'st:of {/n}') IS NULL AS x \gset
CALL cqrs_es.retag('st: old');
SELECT is((SELECT aggregate_id FROM cqrs_es.read_all(tags => '{st:of x}')), 'p', 'its events get tags, which need no state');

SELECT cqrs_es.drop_subscription('stag'), cqrs_es.drop_projection('stag'), cqrs_es.drop_boundary('st: boundary') \g /dev/null
SELECT cqrs_es.drop_tags(event_type) FROM cqrs_es.tag_definitions WHERE event_type LIKE 'st: %' \g /dev/null
SELECT cqrs_es.drop_aggregate('stag', force => true) \g /dev/null
DROP TABLE st_rows;
SELECT * FROM finish();
