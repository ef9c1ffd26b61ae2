\i test/include/setup.sql
-- Handlers find events by their tags: that which they are told of, and what they have appended or inserted themselves.
BEGIN;
SELECT plan(10);
SELECT cqrs_es.define_tags('told', 'told:{/n}') IS NULL AS x \gset
SELECT cqrs_es.define_tags('answer', 'answer:{/n}') IS NULL AS x \gset
CREATE TABLE public.tags_found (how text, told text, n int, found text);
CREATE FUNCTION public.tags_find(tag text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(concat_ws(' ', event_type, payload->>'n', array_to_string(tags, ',')), '; ' ORDER BY global_position), 'nothing')
	FROM cqrs_es.read_matching(jsonb_build_array(jsonb_build_object('tags', jsonb_build_array(tag))))
$$;
CREATE FUNCTION public.tags_handle(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	number text := event.payload->>'n';
BEGIN
	INSERT INTO public.tags_found VALUES ('told of', event.aggregate_id, number::int, public.tags_find('told:' || number));
	INSERT INTO public.tags_found VALUES ('given', event.aggregate_id, number::int, public.tags_find('given:' || number));
	PERFORM cqrs_es.append_event('tags_in_handlers answer', number, 'answer', jsonb_build_object('n', number), tags => ARRAY['with:' || number]);
	INSERT INTO public.tags_found VALUES ('appended', event.aggregate_id, number::int, public.tags_find('with:' || number));
	INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('tags_in_handlers answer', number, 'answer', jsonb_build_object('n', number));
	INSERT INTO public.tags_found VALUES ('inserted', event.aggregate_id, number::int, public.tags_find('answer:' || number));
END $$;
SELECT cqrs_es.create_projection('tags_in_handlers', aggregate_types => '{tags_in_handlers}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('tags_in_handlers', 'told', 'public.tags_handle(cqrs_es.event)') IS NULL AS x \gset
CREATE FUNCTION pg_temp.found(of_how text, of_told text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT found FROM public.tags_found WHERE how = of_how AND told = of_told ORDER BY n
$$;

SELECT cqrs_es.append_event('tags_in_handlers', 'event', 'told', '{"n": 1}', tags => '{given:1}') IS NULL AS x \gset
SELECT results_eq($$SELECT pg_temp.found('told of', 'event')$$, $$VALUES ('told 1 given:1,told:1')$$, 'the event of an append');
SELECT results_eq($$SELECT pg_temp.found('given', 'event')$$, $$VALUES ('told 1 given:1,told:1')$$, 'also by the tags that it was given');
SELECT results_eq($$SELECT pg_temp.found('appended', 'event')$$, $$VALUES ('answer 1 answer:1,with:1')$$, 'what the handler has appended');
SELECT results_eq($$SELECT pg_temp.found('inserted', 'event')$$, $$VALUES ('answer 1 answer:1,with:1; answer 1 answer:1')$$, 'and inserted');
SELECT cqrs_es.append_events('tags_in_handlers', 'events', '[{"type": "told", "payload": {"n": 2}}, {"type": "told", "payload": {"n": 3}}]') IS NULL AS x \gset
SELECT results_eq($$SELECT pg_temp.found('told of', 'events')$$, $$VALUES ('told 2 told:2'), ('told 3 told:3')$$, 'events of a batch');
SELECT results_eq($$SELECT pg_temp.found('appended', 'events')$$, $$VALUES ('answer 2 answer:2,with:2'), ('answer 3 answer:3,with:3')$$, 'and what follows from each');
SELECT count(*) AS x FROM cqrs_es.append_to_streams('[{"type": "told", "payload": {"n": 4}, "aggregate_type": "tags_in_handlers", "aggregate_id": "streams"}, {"type": "told", "payload": {"n": 5}, "tags": ["given:5"], "aggregate_type": "tags_in_handlers", "aggregate_id": "streams"}]') \gset
SELECT results_eq($$SELECT pg_temp.found('told of', 'streams')$$, $$VALUES ('told 4 told:4'), ('told 5 given:5,told:5')$$, 'of an append to streams');
SELECT results_eq($$SELECT pg_temp.found('given', 'streams')$$, $$VALUES ('nothing'), ('told 5 given:5,told:5')$$, 'with its tags');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'tags_in_handlers', 'rows', 'told', jsonb_build_object('n', n) FROM generate_series(6, 7) AS n;
SELECT results_eq($$SELECT pg_temp.found('told of', 'rows')$$, $$VALUES ('told 6 told:6'), ('told 7 told:7')$$, 'rows of an INSERT');
SELECT results_eq($$SELECT pg_temp.found('inserted', 'rows')$$, $$VALUES ('answer 6 answer:6,with:6; answer 6 answer:6'), ('answer 7 answer:7,with:7; answer 7 answer:7')$$, 'and what follows from these');
SELECT finish();
ROLLBACK;
