\i test/include/setup.sql
-- The widgets: what must hold in their database.
\set example widget
\i test/include/example.sql
BEGIN;
SELECT plan(23);
\set widget '01H42K4ABWQ5V2XQEP3A48VE0Z'
\set none '01H42K4ABWQ5V2XQEP3A48VE99'

SELECT is(pg_temp.refusal('widget', :'widget', 'CreateWidget', '{"widget_name": "x", "widget_description": "x"}'),
	'QE301 ALREADY_CREATED Aggregation already created', 'created twice');
SELECT is(pg_temp.refusal('widget', id, command, payload::jsonb), 'QE301 INVALID_NAME Invalid name for the widget', command || ' ' || payload)
FROM (VALUES (1, :'none', 'CreateWidget', '{"widget_name": "", "widget_description": "x"}'),
	(2, :'none', 'CreateWidget', '{"widget_name": null, "widget_description": "x"}'),
	(3, :'none', 'CreateWidget', '{"widget_description": "x"}'),
	(4, :'widget', 'ChangeWidgetName', '{"widget_name": ""}'),
	(5, :'widget', 'ChangeWidgetName', '{}'),
	(6, :'widget', 'ChangeWidget', '{"widget_name": "", "widget_description": "x"}')) AS t (n, id, command, payload) ORDER BY n;
SELECT is(pg_temp.refusal('widget', id, command, payload::jsonb), 'QE301 INVALID_DESCRIPTION Invalid description for the widget', command || ' ' || payload)
FROM (VALUES (1, :'none', 'CreateWidget', '{"widget_name": "x", "widget_description": ""}'),
	(2, :'none', 'CreateWidget', '{"widget_name": "x"}'),
	(3, :'widget', 'ChangeWidgetDescription', '{"widget_description": ""}'),
	(4, :'widget', 'ChangeWidget', '{"widget_name": "x", "widget_description": ""}')) AS t (n, id, command, payload) ORDER BY n;
SELECT is(pg_temp.refusal('widget', :'none', command, '{"widget_name": "x", "widget_description": "x"}'),
	'QE301 NOT_FOUND Aggregate not found', command || ', unknown id')
FROM unnest('{ChangeWidget, ChangeWidgetDescription, ChangeWidgetName}'::text[]) AS command;
SELECT matches(pg_temp.refusal('widget', :'widget', 'ChangeWidgetName', '{"widget_name": "x"}', 4), '^QE001 ', 'a stale version');
SELECT is((SELECT count(*) FROM cqrs_es.events), 6::bigint, 'what is refused leaves no trace');
SELECT is((SELECT count(DISTINCT metadata->>'command_id') FROM cqrs_es.events WHERE sequence IN (4, 5)), 1::bigint, 'two events of one command');

-- A service that knows V1 only goes on for a while.
SELECT is((cqrs_es.append_event('widget', 'old', 'WidgetCreated', '{"widget_name": "Old", "widget_description": "From an old service"}',
	event_version => 'V1', expected_version => 0)).version, 1::bigint, 'an old service writes V1');
SELECT is(cqrs_es.aggregate_state('widget', 'old'), '{"id": "old", "name": "Old", "description": "From an old service", "version": 1}', 'what is read is V2');
SELECT is(pg_temp.refusal('widget', 'old', 'ChangeWidget', '{"widget_name": "New", "widget_description": "By a new one"}', 1), NULL, 'a new service goes on');
SELECT is(state, '{"id": "old", "name": "New", "description": "By a new one", "version": 3}', 'and both events are there')
FROM cqrs_es.load_aggregate('widget', 'old');
SELECT is(array_agg(event_version ORDER BY global_position), '{V1,V2,V1}', 'the log stays as it was written')
FROM cqrs_es.events WHERE event_type = 'WidgetCreated';
SELECT results_eq('SELECT id, (state->>''version'')::bigint FROM pg_temp.states(''widget'') ORDER BY id',
	'SELECT id, version FROM pg_temp.states(''widget'') ORDER BY id', 'the version in the state is the stream''s');
SELECT finish();
ROLLBACK;
\i test/include/example_end.sql
