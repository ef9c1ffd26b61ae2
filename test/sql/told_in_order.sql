\i test/include/setup.sql
-- Observers are told of events in the order of positions, however the streams of one append take turns, and whatever
-- handlers append or take back meanwhile.
BEGIN;
SELECT plan(9);
SELECT setseed(0.4711) IS NULL AS x \gset
CREATE TABLE public.told_positions (n serial, position bigint, of_type text);
CREATE FUNCTION public.told_handle(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.told_positions (position, of_type) VALUES (event.global_position, event.aggregate_type);
	IF event.aggregate_type = 'told' AND event.payload = '1' THEN
		PERFORM FROM cqrs_es.append_to_streams((SELECT jsonb_agg(jsonb_build_object('aggregate_type', 'told answer', 'aggregate_id', (i % 3)::text, 'type', 'e')) FROM generate_series(1, 5) AS i));
		BEGIN
			PERFORM FROM cqrs_es.append_to_streams((SELECT jsonb_agg(jsonb_build_object('aggregate_type', 'told answer', 'aggregate_id', (i % 4)::text, 'type', 'taken back')) FROM generate_series(1, 7) AS i));
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
		INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'told answer', (i % 2)::text, 'e', '2' FROM generate_series(1, 2) AS i;
	END IF;
END $$;
SELECT cqrs_es.create_projection('told', aggregate_types => '{told,told answer}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('told', '*', 'public.told_handle(cqrs_es.event)') IS NULL AS x \gset

-- The events of an append, in the streams that their numbers are given; told of all of them, in which order?
CREATE FUNCTION pg_temp.told(streams int[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	first bigint := (SELECT coalesce(max(n), 0) FROM public.told_positions);
	before bigint := (SELECT coalesce(max(global_position), 0) FROM cqrs_es.events);
BEGIN
	PERFORM FROM cqrs_es.append_to_streams((SELECT jsonb_agg(jsonb_build_object('aggregate_type', 'told', 'aggregate_id', stream::text, 'type', 'e', 'payload', 0) ORDER BY i)
		FROM unnest(streams) WITH ORDINALITY AS s (stream, i)));
	RETURN CASE WHEN ARRAY(SELECT position FROM public.told_positions WHERE n > first ORDER BY n) = ARRAY(SELECT global_position FROM cqrs_es.events WHERE global_position > before ORDER BY 1)
		THEN 'in order' ELSE 'not in order' END;
END $$;
SELECT is(pg_temp.told(streams), 'in order', what)
FROM (VALUES ('one after the other', '{2,2,2,3,3,3}'::int[]), ('two in turn', '{2,3,2,3,2,3,2,3}'), ('the later in front', '{3,2,3,2,2,3}'), ('one around the other', '{2,2,3,3,3,2,2,4,2}'),
	('many in turn', ARRAY(SELECT 2 + i % 50 FROM generate_series(1, 500) AS i)), ('many backward', ARRAY(SELECT 60 - i % 50 FROM generate_series(1, 500) AS i)),
	('any', ARRAY(SELECT 2 + (random() * 20)::int FROM generate_series(1, 400)))) AS s (what, streams);
-- those whose payload is 1 set the handler's appends off
CREATE FUNCTION pg_temp.told_with_answers() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	before bigint := (SELECT max(global_position) FROM cqrs_es.events);
	first bigint := (SELECT max(n) FROM public.told_positions);
BEGIN
	PERFORM FROM cqrs_es.append_to_streams((SELECT jsonb_agg(jsonb_build_object('aggregate_type', 'told', 'aggregate_id', (i * 7 % 5)::text, 'type', 'e', 'payload', i % 6) ORDER BY i) FROM generate_series(1, 60) AS i));
	RETURN (SELECT count(*) FROM public.told_positions WHERE n > first AND of_type = 'told answer') || ' ' ||
		(ARRAY(SELECT position FROM public.told_positions WHERE n > first ORDER BY n) = ARRAY(SELECT global_position FROM cqrs_es.events WHERE global_position > before ORDER BY 1));
END $$;
SELECT is(pg_temp.told_with_answers(), '70 true', 'what handlers append, beside what they took back');
SELECT is_empty($$SELECT FROM cqrs_es.events WHERE event_type = 'taken back'$$, 'of which nothing is there');
SELECT finish();
ROLLBACK;
