\i test/include/setup.sql
-- Tags on every path into the log.
BEGIN;
SELECT plan(32);
CREATE FUNCTION pg_temp.tags(id text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT concat_ws(' ', e.sequence, e.event_type, string_agg(t.tag, ' ' ORDER BY t.tag))
	FROM cqrs_es.events AS e LEFT JOIN cqrs_es.event_tags AS t ON t.global_position = e.global_position AND t.tenant_id = e.tenant_id AND t.event_type = e.event_type
	WHERE e.aggregate_type = 'event_tags' AND e.aggregate_id = id GROUP BY e.sequence, e.event_type ORDER BY e.sequence
$$;
SELECT cqrs_es.define_tags('tagged', 'a:{/a}', 'c') IS NULL AS x \gset
SELECT cqrs_es.define_tags('known') IS NULL AS x \gset

-- paths

SELECT cqrs_es.append_event('event_tags', 'event', 'tagged', '{"a": 1}') IS NULL AS x \gset
SELECT cqrs_es.append_event('event_tags', 'event', 'tagged', '{"a": 1}', tags => '{x,a:1,x,b}') IS NULL AS x \gset
SELECT cqrs_es.append_event('event_tags', 'event', 'plain', '{"a": 1}', tags => '{y}') IS NULL AS x \gset
SELECT cqrs_es.append_event('event_tags', 'event', 'plain', '{"a": 1}', tags => '{}') IS NULL AS x \gset
SELECT results_eq($$SELECT pg_temp.tags('event')$$, $$VALUES ('1 tagged a:1 c'), ('2 tagged a:1 b c x'), ('3 plain y'), ('4 plain')$$, 'append_event');
SELECT cqrs_es.append_events('event_tags', 'events', '[{"type": "tagged", "payload": {"a": 1}, "tags": ["x"]}, {"type": "plain", "tags": []}, {"type": "plain", "tags": null}, {"type": "plain", "tags": ["é"]}, {"type": "tagged", "payload": {"a": [2, 3]}}]') IS NULL AS x \gset
SELECT results_eq($$SELECT pg_temp.tags('events')$$, $$VALUES ('1 tagged a:1 c x'), ('2 plain'), ('3 plain'), ('4 plain é'), ('5 tagged a:2 a:3 c')$$, 'append_events');
SELECT cqrs_es.append_event_arrays('event_tags', 'arrays', '{tagged,plain,plain}', '{"{\"a\": 1}","{}","{}"}', tags => ARRAY['["x"]', NULL, '["y", "z"]']::jsonb[]) IS NULL AS x \gset
SELECT results_eq($$SELECT pg_temp.tags('arrays')$$, $$VALUES ('1 tagged a:1 c x'), ('2 plain'), ('3 plain y z')$$, 'append_event_arrays');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'event_tags', 'insert', CASE WHEN n = 2 THEN 'plain' ELSE 'tagged' END, jsonb_build_object('a', n) FROM generate_series(1, 3) n;
SELECT results_eq($$SELECT pg_temp.tags('insert')$$, $$VALUES ('1 tagged a:1 c'), ('2 plain'), ('3 tagged a:3 c')$$, 'INSERT');
\copy cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) FROM PROGRAM 'printf "event_tags\tcopy\ttagged\t{\"a\": 1}\nevent_tags\tcopy\ttagged\t{\"a\": 2}\n"'
SELECT results_eq($$SELECT pg_temp.tags('copy')$$, $$VALUES ('1 tagged a:1 c'), ('2 tagged a:2 c')$$, 'COPY');
CREATE TEMP TABLE history AS SELECT 'event_tags'::text AS aggregate_type, 'import'::text AS aggregate_id, n::bigint AS sequence, 'tagged'::text AS event_type, jsonb_build_object('a', n) AS payload FROM generate_series(1, 2) n;
SELECT lives_ok($$SELECT cqrs_es.import_events('history')$$, 'import_events');
SELECT results_eq($$SELECT pg_temp.tags('import')$$, $$VALUES ('1 tagged a:1 c'), ('2 tagged a:2 c')$$, '... gives tags');
SELECT cqrs_es.create_aggregate('event_tags', '{}') IS NULL AS x \gset
SELECT cqrs_es.define_command('event_tags', 'Tag', $$jsonb_build_array(jsonb_build_object('type', 'tagged', 'payload', command, 'tags', '["by decider"]'::jsonb))$$) IS NULL AS x \gset
SELECT cqrs_es.execute_command('event_tags', 'command', 'Tag', '{"a": 1}') IS NULL AS x \gset
SELECT results_eq($$SELECT pg_temp.tags('command')$$, $$VALUES ('1 tagged a:1 by decider c')$$, 'what a decider returns');
SELECT cqrs_es.create_projection('event_tags follow') IS NULL AS x \gset
CREATE FUNCTION public.event_tags_follow(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$SELECT cqrs_es.append_event('event_tags', 'handler', 'tagged', (event).payload, tags => '{h}')$$;
SELECT cqrs_es.define_handler('event_tags follow', 'followed', 'public.event_tags_follow(cqrs_es.event)') IS NULL AS x \gset
SELECT cqrs_es.append_event('event_tags', 'followed', 'followed', '{"a": 1}') IS NULL AS x \gset
SELECT results_eq($$SELECT pg_temp.tags('handler')$$, $$VALUES ('1 tagged a:1 c h')$$, 'what a handler appends');
SET LOCAL session_replication_role = replica;
SELECT cqrs_es.append_event('event_tags', 'replica', 'tagged', '{"a": 1}', tags => '{x}') IS NULL AS x \gset
SET LOCAL session_replication_role = origin;
SELECT results_eq($$SELECT pg_temp.tags('replica')$$, $$VALUES ('1 tagged a:1 c x')$$, 'an append where no trigger fires');
SELECT set_config('cqrs_es.tenant_id', 'event_tags tenant', true) IS NULL AS x \gset
SELECT (cqrs_es.append_event('event_tags', 'tenant', 'tagged', '{"a": 1}')).global_position AS of_tenant \gset
SELECT set_config('cqrs_es.tenant_id', '', true) IS NULL AS x \gset
SELECT results_eq(format('SELECT tenant_id COLLATE "default", tag COLLATE "default", event_type COLLATE "default" FROM cqrs_es.event_tags WHERE global_position = %s ORDER BY tag', :of_tenant),
	$$VALUES ('event_tags tenant', 'a:1', 'tagged'), ('event_tags tenant', 'c', 'tagged')$$, 'tags are those of the event''s tenant');

-- what comes again is not tagged again
SELECT cqrs_es.append_event('event_tags', 'retry', 'tagged', '{"a": 1}', event_id => '01890a5d-ac96-774b-bcce-b302099a8057') IS NULL AS x \gset
SELECT cqrs_es.append_event('event_tags', 'retry', 'tagged', '{"a": 1}', event_id => '01890a5d-ac96-774b-bcce-b302099a8057') IS NULL AS x \gset
SELECT results_eq($$SELECT pg_temp.tags('retry')$$, $$VALUES ('1 tagged a:1 c')$$, 'a retry gives no tags twice');
-- a restored row has its tags from the dump
INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload) SELECT last_value + 100, 1, 'event_tags', 'restored', 'tagged', '{}' FROM cqrs_es.events_global_position_seq;
SELECT results_eq($$SELECT pg_temp.tags('restored')$$, $$VALUES ('1 tagged')$$, 'a restored row gets no tags, nor need it have the values');

-- what is refused, on every path

SELECT is(pg_temp.state_of(statement), state, name)
FROM (VALUES
	('append_event without a value', 'QE502', $$SELECT cqrs_es.append_event('event_tags', 'bad', 'tagged', '{}')$$),
	('append_events', 'QE502', $$SELECT cqrs_es.append_events('event_tags', 'bad', '[{"type": "plain"}, {"type": "tagged"}]')$$),
	('append_event_arrays', 'QE502', $$SELECT cqrs_es.append_event_arrays('event_tags', 'bad', '{tagged}', '{"{}"}')$$),
	('INSERT', 'QE502', $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('event_tags', 'bad', 'tagged', '{}')$$),
	('an empty tag', '22023', $$SELECT cqrs_es.append_event('event_tags', 'bad', 'plain', '{}', tags => '{""}')$$),
	('a null', '22004', $$SELECT cqrs_es.append_event('event_tags', 'bad', 'plain', '{}', tags => '{NULL}')$$),
	('256 bytes', '22001', $$SELECT cqrs_es.append_event('event_tags', 'bad', 'plain', '{}', tags => ARRAY[repeat('x', 256)])$$),
	('10,000 tags', '54000', $$SELECT cqrs_es.append_event('event_tags', 'bad', 'plain', '{}', tags => ARRAY(SELECT n::text FROM generate_series(1, 10000) n))$$),
	('two dimensions', '2202E', $$SELECT cqrs_es.append_event('event_tags', 'bad', 'plain', '{}', tags => '{{a,b},{c,d}}')$$),
	('no array', '22023', $$SELECT cqrs_es.append_events('event_tags', 'bad', '[{"type": "plain", "tags": "a"}]')$$),
	('an object', '22023', $$SELECT cqrs_es.append_events('event_tags', 'bad', '[{"type": "plain", "tags": {"a": 1}}]')$$),
	('no strings', '22023', $$SELECT cqrs_es.append_events('event_tags', 'bad', '[{"type": "plain", "tags": [1]}]')$$),
	('no array in an array', '22023', $$SELECT cqrs_es.append_event_arrays('event_tags', 'bad', '{plain}', '{"{}"}', tags => ARRAY['"a"']::jsonb[])$$),
	('too few of them', '2202E', $$SELECT cqrs_es.append_event_arrays('event_tags', 'bad', '{plain,plain}', '{"{}","{}"}', tags => ARRAY['["a"]']::jsonb[])$$),
	('UPDATE of tags', 'QE004', $$UPDATE cqrs_es.event_tags SET tag = 'x'$$),
	('DELETE of tags', 'QE004', $$DELETE FROM cqrs_es.event_tags$$),
	('TRUNCATE of tags', 'QE004', $$TRUNCATE cqrs_es.event_tags$$)
) AS t (name, state, statement);
SELECT is_empty($$SELECT FROM cqrs_es.events WHERE aggregate_type = 'event_tags' AND aggregate_id = 'bad'$$, 'nothing of that is in the log');
-- what it takes in memory: the tags, and nothing that has led to them
CREATE TABLE public.event_tags_memory (type text, used bigint);
CREATE FUNCTION public.event_tags_measure(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF (event).sequence = 5000 THEN
		INSERT INTO public.event_tags_memory SELECT (event).event_type, sum(used_bytes) FROM pg_backend_memory_contexts;
	END IF;
END $$;
SELECT cqrs_es.define_tags('measured tagged', 'a:{/a}', 'b:{/a}', 'c:{/b}', 'd:{/b}:{/a}') IS NULL AS x \gset
SELECT cqrs_es.create_projection('event_tags memory') IS NULL AS x \gset
SELECT cqrs_es.define_handler('event_tags memory', type, 'public.event_tags_measure(cqrs_es.event)') FROM unnest('{measured tagged,measured plain}'::text[]) type \g /dev/null
SELECT cqrs_es.append_events('event_tags', 'measured plain', (SELECT jsonb_agg('{"type": "measured plain", "payload": {"a": 1, "b": [1]}}'::jsonb) FROM generate_series(1, 5000))) IS NULL AS x \gset
SELECT cqrs_es.append_events('event_tags', 'measured tagged', (SELECT jsonb_agg('{"type": "measured tagged", "payload": {"a": 1, "b": [1]}}'::jsonb) FROM generate_series(1, 5000))) IS NULL AS x \gset
SELECT cmp_ok((SELECT sum(CASE type WHEN 'measured tagged' THEN used ELSE -used END) / 5000 FROM public.event_tags_memory), '<', 1500::numeric, 'four tags of an event take little memory');
SELECT * FROM finish();
ROLLBACK;
