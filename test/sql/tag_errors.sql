\i test/include/setup.sql
-- What is wrong with the tags of an event: the error says of which event of a batch, and of which stream.
BEGIN;
SELECT plan(14);
SELECT cqrs_es.define_tags('tagged', 'a:{/a}', 'b:{/b?}') IS NULL AS x \gset
CREATE TABLE public.tag_errors_rows (aggregate_type text, aggregate_id text, event_type text, payload jsonb);

-- The SQLSTATE, and that line of the context which names an event.
CREATE FUNCTION pg_temp.where_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	context text;
BEGIN
	EXECUTE statement;
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
	RETURN concat_ws(': ', SQLSTATE, substring(context from '(?n)^event .*$'));
END $$;

SELECT is(pg_temp.where_of(statement), said, name)
FROM (VALUES
	('append_event', $$SELECT cqrs_es.append_event('tag_errors', '1', 'tagged', '{}')$$, 'QE502: event for stream "tag_errors/1"'),
	('append_events', $$SELECT cqrs_es.append_events('tag_errors', '1', '[{"type": "plain"}, {"type": "tagged", "payload": {"a": 1}}, {"type": "tagged"}]')$$,
		'QE502: event 3 of the batch, for stream "tag_errors/1"'),
	('append_event_arrays', $$SELECT cqrs_es.append_event_arrays('tag_errors', '1', '{plain,tagged}', '{"{}","{}"}')$$,
		'QE502: event 2 of the arrays, for stream "tag_errors/1"'),
	('append_to_streams counts as it was given', $$SELECT cqrs_es.append_to_streams('[{"type": "plain", "aggregate_type": "tag_errors", "aggregate_id": "2"},
		{"type": "plain", "aggregate_type": "tag_errors", "aggregate_id": "1"}, {"type": "tagged", "aggregate_type": "tag_errors", "aggregate_id": "2"},
		{"type": "plain", "aggregate_type": "tag_errors", "aggregate_id": "1"}]')$$,
		'QE502: event 3 of the call, for stream "tag_errors/2"'),
	('an event that is a stream of its own', $$SELECT cqrs_es.append_to_streams('[{"type": "plain"}, {"type": "tagged", "id": "00000000-0000-7000-8000-00000000000a"}]')$$,
		'QE502: event 2 of the call, for stream "$event/00000000-0000-7000-8000-00000000000a"'),
	('what is no value', $$SELECT cqrs_es.append_events('tag_errors', '1', '[{"type": "plain"}, {"type": "tagged", "payload": {"a": 1, "b": {}}}]')$$,
		'QE502: event 2 of the batch, for stream "tag_errors/1"'),
	('a derived tag that is too long', $$SELECT cqrs_es.append_events('tag_errors', '1', jsonb_build_array('{"type": "plain"}'::jsonb,
		jsonb_build_object('type', 'tagged', 'payload', jsonb_build_object('a', repeat('x', 300)))))$$,
		'22001: event 2 of the batch, for stream "tag_errors/1"'),
	('too many', $$SELECT cqrs_es.append_events('tag_errors', '1', jsonb_build_array('{"type": "plain"}'::jsonb,
		jsonb_build_object('type', 'plain', 'tags', (SELECT jsonb_agg(n::text) FROM generate_series(1, 1001) AS n))))$$,
		'54000: event 2 of the batch, for stream "tag_errors/1"'),
	('a given one that is too long', $$SELECT cqrs_es.append_events('tag_errors', '1', jsonb_build_array('{"type": "plain"}'::jsonb,
		jsonb_build_object('type', 'plain', 'tags', jsonb_build_array(repeat('x', 300)))))$$,
		'22001: event 2 of the batch'),
	('INSERT', $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
		VALUES ('tag_errors', '1', 'tagged', '{"a": 1}'), ('tag_errors', '2', 'tagged', '{}')$$,
		'QE502: event for stream "tag_errors/2"')
) AS t (name, statement, said);

-- deciders
SELECT cqrs_es.create_aggregate('tag_errors') IS NULL AS x \gset
SELECT cqrs_es.define_command('tag_errors', 'Decide', $$'[{"type": "plain"}, {"type": "tagged"}]'::jsonb$$) IS NULL AS x \gset
SELECT is(pg_temp.where_of($$SELECT cqrs_es.execute_command('tag_errors', '1', 'Decide')$$), 'QE502: event 2 of the decider, for stream "tag_errors/1"', 'execute_command');
SELECT cqrs_es.create_boundary('tag_errors boundary', '[{"tags": ["a:{/a}"]}]') IS NULL AS x \gset
SELECT cqrs_es.define_command('tag_errors boundary', 'Decide', $$'[{"type": "plain", "aggregate_type": "tag_errors", "aggregate_id": "2"}, {"type": "tagged", "aggregate_type": "tag_errors", "aggregate_id": "1"}]'::jsonb$$) IS NULL AS x \gset
SELECT is(pg_temp.where_of($$SELECT cqrs_es.execute_boundary('tag_errors boundary', 'Decide', '{"a": 1}')$$), 'QE502: event 2 of the decider, for stream "tag_errors/1"', 'execute_boundary');

-- through SQL the row says it once
SET LOCAL cqrs_es.force_generic_path = on;
SELECT is(pg_temp.where_of($$SELECT cqrs_es.append_events('tag_errors', '1', '[{"type": "plain"}, {"type": "tagged"}]')$$),
	'QE502: event 2 of the batch, for stream "tag_errors/1"', 'through SQL');
SELECT is(pg_temp.where_of($$SELECT cqrs_es.append_events('tag_errors', '1', '[{"type": "plain"}, {"type": "tagged", "payload": {"a": 1}}]')$$), 'none', 'what has all is appended');
SELECT finish();
ROLLBACK;
