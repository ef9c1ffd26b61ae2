\i test/include/setup.sql
-- The circles: what must hold in their database.
\set example circle
\i test/include/example.sql
BEGIN;
SELECT plan(21);

SELECT is(pg_temp.refusal('circle', id, command, payload::jsonb), refusal, command || ' ' || payload)
FROM (VALUES (1, 'new', 'CreateCircle', '{"circle_name": "x", "capacity": 2}', 'QE301 CAPACITY_TOO_SMALL Circle capacity must be 3 or more'),
	(2, 'new', 'CreateCircle', '{"circle_name": "x"}', 'QE301 CAPACITY_TOO_SMALL Circle capacity must be 3 or more'),
	(3, 'c-1', 'UpdateCircle', '{"capacity": 2}', 'QE301 CAPACITY_TOO_SMALL Circle capacity must be 3 or more'),
	(4, 'c-1', 'UpdateCircle', '{"circle_name": "x", "capacity": -3}', 'QE301 CAPACITY_TOO_SMALL Circle capacity must be 3 or more'),
	(5, 'new', 'CreateCircle', '{"circle_name": "Chess", "capacity": 3}', 'QE301 NAME_TAKEN Circle name already exists'),
	(6, 'c-2', 'UpdateCircle', '{"circle_name": "Chess"}', 'QE301 NAME_TAKEN Circle name already exists'),
	(7, 'c-2', 'CreateCircle', '{"circle_name": "x", "capacity": 3}', 'QE301 ALREADY_CREATED Circle already created'),
	(8, 'new', 'UpdateCircle', '{"circle_name": "x"}', 'QE301 NOT_FOUND Circle not found'),
	(9, 'new', 'CreateCircle', '{"circle_name": "x", "capacity": 40000}', 'QE301 CAPACITY_TOO_LARGE Circle capacity must be 10000 or less')) AS t (n, id, command, payload, refusal)
ORDER BY n;
SELECT is(pg_temp.refusal('circle', 'new', 'CreateCircle', '{"capacity": 3}'), 'QE301 NO_NAME Circle name is missing', 'no name');
SELECT matches(pg_temp.refusal('circle', 'c-1', 'UpdateCircle', '{"capacity": 9}', 4), '^QE001 ', 'a stale version');
SELECT is((SELECT count(*) FROM cqrs_es.events), 7::bigint, 'what is refused leaves no trace');

SELECT is(pg_temp.refusal('circle', 'edge', 'CreateCircle', '{"circle_name": "x", "capacity": 3}'), NULL, '3 are enough');
SELECT is((cqrs_es.append_events('circle', 'edge', '[{"type": "CircleUpdated", "payload": {"capacity": 4}}, {"type": "CircleUpdated", "payload": {"name": "y"}},
	{"type": "CircleUpdated", "payload": {}}, {"type": "CircleUpdated", "payload": {"name": null, "capacity": null}}]')).version, 5::bigint,
	'fields that are absent, and fields that are null');
SELECT is(cqrs_es.aggregate_state('circle', 'edge'), '{"id": "edge", "name": "y", "capacity": 4, "version": 5}', 'stay as they were');
SELECT results_eq('SELECT * FROM list_circles()',
	$$SELECT state->>'id', state->>'name', (state->>'capacity')::smallint, version FROM pg_temp.states('circle') ORDER BY 2$$,
	'the read table is what the events say');
SELECT results_eq('SELECT * FROM get_circle(''edge'')', $$VALUES ('edge', 'y', 4::smallint, 5::bigint)$$, 'get_circle');
SELECT is_empty('SELECT * FROM get_circle(''none'')', 'get_circle: none');
SELECT results_eq('SELECT aggregate_id COLLATE "default", last_sequence, payload FROM cqrs_es.snapshots ORDER BY 1',
	$$SELECT id, version, state FROM pg_temp.states('circle') WHERE version = 5 ORDER BY 1$$, 'a snapshot every 5 events, equal to the replay');
-- What the read side outside has is what was there before this test.
SELECT results_eq('SELECT id, name, capacity, version FROM outside ORDER BY 1',
	$$SELECT id, state->>'name', state->>'capacity', version FROM (VALUES ('c-1', 5::bigint), ('c-2', 1), ('c-3', 1)) AS c (id, version),
		cqrs_es.aggregate_state('circle', id, at_sequence => version) AS state$$, 'the read side outside');
SELECT results_eq($$SELECT put('c-1', 5, '{"name": "old"}'), put('c-1', 6, '{"capacity": 7}'), name, capacity, version FROM outside WHERE id = 'c-1'$$,
	$$VALUES ('was there', 'put', 'Chess and Go', '16', 5::bigint)$$, 'what comes again changes nothing');
SELECT finish();
ROLLBACK;
\i test/include/example_end.sql
