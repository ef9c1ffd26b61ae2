\i test/include/setup.sql
-- The query of a decision: what is one, what is none, and what it matches.

BEGIN;
SELECT plan(64);

-- what is none

CREATE FUNCTION pg_temp.refused(query text) RETURNS text LANGUAGE sql AS $$
	SELECT array_to_string(pg_temp.error_of(format('SELECT cqrs_es.read_matching(%L)', query), '{state,message}'), ' ')
$$;
SELECT is(pg_temp.refused(query), refused, left(coalesce(query, 'NULL'), 60)) FROM (VALUES
	(NULL, '22004 query must not be null'),
	('', '22P02 invalid input syntax for type json'),
	('[', '22P02 invalid input syntax for type json'),
	('null', '22023 a query must be a JSON array of items'),
	('1', '22023 a query must be a JSON array of items'),
	('"course:c1"', '22023 a query must be a JSON array of items'),
	('{}', '22023 a query must be a JSON array of items'),
	('{"items": null}', '22023 a query must be a JSON array of items'),
	('{"items": {}}', '22023 a query must be a JSON array of items'),
	('{"items": "x"}', '22023 a query must be a JSON array of items'),
	('{"tags": ["x"]}', '22023 a query has no member "tags"'),
	('{"items": [{"tags": ["x"]}], "after": 7}', '22023 a query has no member "after"'),
	('{"items": [{"tags": ["x"]}], "upTo": 7}', '22023 a query has no member "upTo"'),
	('[]', '22023 a query must have at least one item'),
	('{"items": []}', '22023 a query must have at least one item'),
	('[null]', '22023 an item of a query must be a JSON object'),
	('[[]]', '22023 an item of a query must be a JSON object'),
	('[[{"tags": ["x"]}]]', '22023 an item of a query must be a JSON object'),
	('["x"]', '22023 an item of a query must be a JSON object'),
	('[{"tags": ["x"]}, null]', '22023 an item of a query must be a JSON object'),
	('[{"items": [{"tags": ["x"]}]}]', '22023 an item of a query has no member "items"'),
	('[{"tag": ["x"]}]', '22023 an item of a query has no member "tag"'),
	('[{"tags": ["x"], "max_position": 7}]', '22023 an item of a query has no member "max_position"'),
	('[{"tags": null}]', '22023 member "tags" of an item of a query must be an array of strings'),
	('[{"types": null}]', '22023 member "types" of an item of a query must be an array of strings'),
	('[{"tags": "x"}]', '22023 member "tags" of an item of a query must be an array of strings'),
	('[{"types": {"x": 1}}]', '22023 member "types" of an item of a query must be an array of strings'),
	('[{"tags": [1]}]', '22023 member "tags" of an item of a query must be an array of strings'),
	('[{"tags": ["x", null]}]', '22023 member "tags" of an item of a query must be an array of strings'),
	('[{"tags": [["x"]]}]', '22023 member "tags" of an item of a query must be an array of strings'),
	('[{"tags": [""]}]', '22023 a tag in a query must not be empty'),
	('[{"types": [""]}]', '22023 an event type in a query must not be empty'),
	('[{"tags": ["' || repeat('x', 256) || '"]}]', '22001 a tag in a query is too long'),
	('[{"types": ["' || repeat('ü', 128) || '"]}]', '22001 an event type in a query is too long'),
	((SELECT jsonb_build_array(jsonb_build_object('tags', jsonb_agg('t' || n)))::text FROM generate_series(1, 10000) AS n), '54000 a query can have at most 1000 types and tags'),
	((SELECT jsonb_build_array(jsonb_build_object('types', jsonb_agg('t' || n)))::text FROM generate_series(1, 10000) AS n), '54000 a query can have at most 1000 types and tags'),
	((SELECT jsonb_agg(jsonb_build_object('tags', jsonb_build_array('t' || n)))::text FROM generate_series(1, 1001) AS n), '54000 a query can have at most 1000 items'),
	((SELECT jsonb_agg(jsonb_build_object('tags', jsonb_build_array('t' || n, 'u' || n)))::text FROM generate_series(1, 501) AS n), '54000 a query can have at most 1000 types and tags'),
	('[{"types": ["Unknown"]}]', '22023 event type "Unknown" is not known to define_tags()'),
	('[{"types": ["Unknown"], "tags": []}]', '22023 event type "Unknown" is not known to define_tags()')) AS r (query, refused);
SELECT is(pg_temp.error_of($$SELECT cqrs_es.read_matching('[{"types": ["It''s new"]}]')$$, '{detail,hint}'),
	ARRAY['An item without tags asks for all events of its types, which whoever appends one has to know.',
	'SELECT cqrs_es.define_tags(''It''''s new'') makes it known, with tags or without; or give the item tags.'], 'an unknown type says what to do');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.append_to_streams(%L, %L)', '[{"type": "e"}]', query)), state, 'a condition is a query: ' || query) FROM (VALUES
	('[]', '22023'), ('[{"types": ["Unknown"]}]', '22023'), ('{"items": [{"tags": ["x"]}], "upTo": 7}', '22023')) AS q (query, state);
SELECT is(count(*), 0::bigint, 'and nothing was appended') FROM cqrs_es.events WHERE event_type = 'e' AND aggregate_type = '$event';

-- what it matches

SELECT count(cqrs_es.define_tags(type)) FROM unnest('{A,B,C}'::text[]) AS type \gset
SELECT count(*) FROM cqrs_es.append_to_streams('[{"type": "A", "payload": 1, "tags": ["x"]}, {"type": "B", "payload": 2, "tags": ["x", "y"]}, {"type": "C", "payload": 3, "tags": ["y", "z"]},
	{"type": "A", "payload": 4}, {"type": "A", "payload": 5, "tags": ["x", "y", "z"]}, {"type": "D", "payload": 6, "tags": ["z"]}]') \gset
CREATE FUNCTION pg_temp.matching(query jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(payload::text, ' ' ORDER BY n), '') FROM cqrs_es.read_matching(query) WITH ORDINALITY AS m (p, s, c, i, t, at, ai, et, v, payload, md, tags, n)
	WHERE at = '$event'
$$;
SELECT is(pg_temp.matching(query::jsonb), events, query) FROM (VALUES
	('[{"tags": ["x"]}]', '1 2 5'),
	('{"items": [{"tags": ["x"]}]}', '1 2 5'),
	('[{"tags": ["x", "y"]}]', '2 5'),
	('[{"tags": ["y", "x", "y", "x"]}]', '2 5'),
	('[{"tags": ["z", "y", "x"]}]', '5'),
	('[{"tags": ["x"], "types": ["A"]}]', '1 5'),
	('[{"tags": ["x"], "types": ["B", "A", "D"]}]', '1 2 5'),
	('[{"tags": ["x", "nowhere"]}]', ''),
	('[{"tags": ["x"], "types": ["Nowhere"]}]', ''),
	('[{"tags": ["x"]}, {"tags": ["z"], "types": ["C", "D"]}]', '1 2 3 5 6'),
	('[{"types": ["A"]}]', '1 4 5'),
	('[{"types": ["A"], "tags": []}]', '1 4 5'),
	('[{"types": ["A"]}, {"tags": ["y"]}, {"tags": ["z", "x"]}]', '1 2 3 4 5'),
	('[{"types": ["C", "B"]}, {"types": ["A"], "tags": ["z"]}]', '2 3 5'),
	('[{}]', '1 2 3 4 5 6'),
	('[{"types": [], "tags": []}]', '1 2 3 4 5 6'),
	('[{"tags": ["x"]}, {}]', '1 2 3 4 5 6'),
	('[{"types": [], "tags": ["z"]}]', '3 5 6')) AS q (query, events);
SELECT is(pg_temp.matching((SELECT jsonb_agg(jsonb_build_object('tags', jsonb_build_array(t))) FROM (SELECT 'n' || n FROM generate_series(1, 998) AS n UNION ALL VALUES ('x'), ('z')) AS s (t))),
	'1 2 3 5 6', 'a thousand items');

SELECT * FROM finish();
ROLLBACK;
