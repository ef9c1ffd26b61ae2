\i test/include/setup.sql
-- What templates would give, without an event: the same as an append of it writes, and NULL where that is refused.
BEGIN;
SELECT plan(21);
CREATE FUNCTION pg_temp.appended(payload jsonb, VARIADIC templates text[]) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	at bigint;
BEGIN
	PERFORM cqrs_es.define_tags('derived_tags', VARIADIC templates);
	at := (cqrs_es.append_event('derived_tags', '1', 'derived_tags', payload)).global_position;
	RETURN ARRAY(SELECT tag FROM cqrs_es.event_tags WHERE global_position = at ORDER BY tag);
EXCEPTION WHEN SQLSTATE 'QE502' OR SQLSTATE '22001' OR SQLSTATE '54000' THEN
	RETURN NULL;
END $$;
SET LOCAL client_min_messages = error;
SELECT is(cqrs_es.derived_tags(payload, VARIADIC templates), pg_temp.appended(payload, VARIADIC templates), left(concat_ws(' ', payload, templates), 60))
FROM (VALUES ('{"a": 1}'::jsonb, '{}'::text[]), ('{"a": 1}', '{c}'), ('{"a": 1}', '{"a:{/a}"}'), ('{"a": [2, 1, 2], "b": ["x", "y"]}', '{"a:{/a}:{/b}","{/b}",c}'),
	('{}', '{"a:{/a}"}'), ('{}', '{c,"a:{/a?}"}'), ('{"a": null}', '{"a:{/a?}"}'), ('{"a": {}}', '{"a:{/a?}"}'), ('{"a": [1, null]}', '{"a:{/a?}"}'), ('{"a": []}', '{"a:{/a}"}'),
	('{"a": ""}', '{"{/a}"}'), (jsonb_build_object('a', repeat('x', 255)), '{"{/a}"}'), (jsonb_build_object('a', repeat('x', 256)), '{"{/a}"}'),
	(jsonb_build_object('a', (SELECT jsonb_agg(n) FROM generate_series(1, 1000) AS n)), '{"{/a}"}'), (jsonb_build_object('a', (SELECT jsonb_agg(n) FROM generate_series(1, 1001) AS n)), '{"{/a}"}'),
	(jsonb_build_object('a', (SELECT jsonb_agg(n) FROM generate_series(1, 1000) AS n)), '{"{/a}",one}'),
	(jsonb_build_object('a', (SELECT jsonb_agg(n) FROM generate_series(1, 40) AS n)), '{"{/a}:{/a}"}'), ('"text"', '{"{/a}"}')) AS t (payload, templates);
SELECT is(pg_temp.state_of($$SELECT cqrs_es.derived_tags('{}', '{a}')$$), '22023', 'what is no template');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.derived_tags('{}', VARIADIC ARRAY['a', NULL])$$), '22004', 'null');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.derived_tags('{}', VARIADIC '{{a,b},{c,d}}')$$), '2202E', 'two dimensions');
SELECT finish();
ROLLBACK;
