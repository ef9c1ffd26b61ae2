\i test/include/setup.sql
-- cqrs_es.context: metadata that every event of a transaction carries.
BEGIN;
SELECT plan(17);

SELECT cqrs_es.append_event('context', 'a', 'e', '{}', metadata => '{"k": 1}') IS NULL AS x \gset
SELECT is(metadata, '{"k": 1}', 'without a context metadata is what was given') FROM cqrs_es.read_stream('context', 'a');

SET LOCAL cqrs_es.context = '{"user": "ada", "correlation_id": "c1", "deep": {"a": 1}}';
SELECT cqrs_es.append_event('context', 'b', 'e', '{}') IS NULL AS x \gset
SELECT cqrs_es.append_event('context', 'b', 'e', '{}', metadata => '{"user": "bob", "deep": {"b": 2}}') IS NULL AS x \gset
SELECT cqrs_es.append_event('context', 'b', 'e', '{}', metadata => NULL) IS NULL AS x \gset
SELECT cqrs_es.append_events('context', 'b', '[{"type": "e", "payload": {}, "metadata": {"n": 1}}, {"type": "e", "payload": {}}]') IS NULL AS x \gset
SELECT cqrs_es.append_event_arrays('context', 'b', '{e,e}', '{1,2}', metadata => ARRAY[NULL, '{"n": 2}']::jsonb[]) IS NULL AS x \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('context', 'b', 'e', '{}');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, metadata) VALUES ('context', 'b', 'e', '{}', '{"user": "eve"}');
\copy cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, metadata) from stdin
context	b	e	{}	{"from": "copy"}
\.
SELECT results_eq($$SELECT sequence::int, metadata FROM cqrs_es.read_stream('context', 'b')$$,
	$$VALUES (1, '{"user": "ada", "correlation_id": "c1", "deep": {"a": 1}}'::jsonb),
	(2, '{"user": "bob", "correlation_id": "c1", "deep": {"b": 2}}'),
	(3, '{"user": "ada", "correlation_id": "c1", "deep": {"a": 1}}'),
	(4, '{"user": "ada", "correlation_id": "c1", "deep": {"a": 1}, "n": 1}'),
	(5, '{"user": "ada", "correlation_id": "c1", "deep": {"a": 1}}'),
	(6, '{"user": "ada", "correlation_id": "c1", "deep": {"a": 1}}'),
	(7, '{"user": "ada", "correlation_id": "c1", "deep": {"a": 1}, "n": 2}'),
	(8, '{"user": "ada", "correlation_id": "c1", "deep": {"a": 1}}'),
	(9, '{"user": "eve", "correlation_id": "c1", "deep": {"a": 1}}'),
	(10, '{"user": "ada", "correlation_id": "c1", "deep": {"a": 1}, "from": "copy"}')$$,
	'the context is merged below the event''s own metadata, on every way in');

SET LOCAL cqrs_es.context = '{"user": "ada", "n": 1}';
SELECT cqrs_es.append_event('context', 'c', 'e', '{}') IS NULL AS x \gset
SAVEPOINT s;
SET LOCAL cqrs_es.context = '{"user": "ada", "n": 2}';
SELECT cqrs_es.append_event('context', 'c', 'e', '{}') IS NULL AS x \gset
RELEASE s;
SAVEPOINT s;
SET LOCAL cqrs_es.context = '{"user": "ada", "n": 3}';
ROLLBACK TO s;
SELECT cqrs_es.append_event('context', 'c', 'e', '{}') IS NULL AS x \gset
SET LOCAL cqrs_es.context = '{}';
SELECT cqrs_es.append_event('context', 'c', 'e', '{}') IS NULL AS x \gset
SET LOCAL cqrs_es.context = '';
SELECT cqrs_es.append_event('context', 'c', 'e', '{}') IS NULL AS x \gset
SELECT results_eq($$SELECT metadata->>'n' FROM cqrs_es.read_stream('context', 'c')$$,
	$$VALUES ('1'), ('2'), ('2'), (NULL), (NULL)$$, 'each event gets the context of its moment');

-- Restored events stay as they are.
SET LOCAL cqrs_es.context = '{"user": "ada"}';
INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload)
VALUES (1000000, 1, 'context', 'restored', 'e', '{}');
SELECT is(metadata, '{}', 'a restored event gets no context') FROM cqrs_es.read_stream('context', 'restored');

-- What is none is refused when it is set, and the one before stays.
SELECT is(pg_temp.error_of(format('SET LOCAL cqrs_es.context = %L', context)),
	ARRAY['22023', format('invalid value for parameter "cqrs_es.context": "%s"', context), detail,
		'Set it like this: SET LOCAL cqrs_es.context = ''{"correlation_id": "..."}''.'], 'refused: ' || context)
FROM (VALUES (1, '{"open', 'It is no JSON. Token ""open" is invalid.'), (2, 'hello', 'It is no JSON. Token "hello" is invalid.'),
	(3, '[1]', 'It must be a JSON object.'), (4, '"text"', 'It must be a JSON object.'), (5, 'null', 'It must be a JSON object.'),
	(6, ' ', 'It is no JSON. The input string ended unexpectedly.'), (7, '{"a": "\u0000"}', 'It is no JSON. \u0000 cannot be converted to text.'),
	(8, '{"a": 1} {}', 'It is no JSON. Expected end of input, but found "{".'),
	(9, '{"a": "\ud800"}', 'It is no JSON. Unicode low surrogate must follow a high surrogate.')) c (n, context, detail) ORDER BY n;
SELECT is(pg_temp.state_of(format('SET LOCAL cqrs_es.context = %L', repeat('{"a":', 20000))), '22023', 'one that is too deep');
SELECT is(pg_temp.state_of($$SELECT set_config('cqrs_es.context', '{"n": 1e999999}', true)$$), '22023', 'a number that is none');
SELECT is(pg_temp.state_of($$CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql SET cqrs_es.context = 'x' AS 'SELECT 1'$$), '22023', 'that of a function');
SELECT cqrs_es.append_event('context', 'd', 'e', '{}') IS NULL AS x \gset
SELECT is(metadata, '{"user": "ada"}', 'after bad ones the good one is still there') FROM cqrs_es.read_stream('context', 'd');
SELECT finish();
ROLLBACK;
