-- Widgets: several events per command, lost races, and an event that changes its shape.
--
--	psql -d an_empty_database -f examples/widget.sql
--
-- Commands CreateWidget{widget_name, widget_description},
-- ChangeWidgetName{widget_name}, ChangeWidgetDescription{widget_description}, and
-- ChangeWidget with both; events WidgetCreated, WidgetNameChanged and
-- WidgetDescriptionChanged with the same fields; the state {id, name,
-- description, version}. The ids are ULIDs: any text will do.

-- What psql prints: commands, and of errors no context. Declarations return
-- nothing worth printing.
\set QUIET on
\set ECHO queries
\set SHOW_CONTEXT never
\set ON_ERROR_STOP on
\o /dev/null

\echo '\n*** 1. How events change the state of a widget ***\n'

CREATE EXTENSION cqrs_es;

SELECT cqrs_es.create_aggregate('widget');
SELECT cqrs_es.define_reducer('widget', 'WidgetCreated', '[
    {"op": "set", "path": "/id",          "from": "aggregate_id"},
    {"op": "set", "path": "/name",        "from": "/widget_name"},
    {"op": "set", "path": "/description", "from": "/widget_description"},
    {"op": "set", "path": "/version",     "from": "sequence"}]');
SELECT cqrs_es.define_reducer('widget', 'WidgetNameChanged', '[
    {"op": "set", "path": "/name",        "from": "/widget_name"},
    {"op": "set", "path": "/version",     "from": "sequence"}]');
SELECT cqrs_es.define_reducer('widget', 'WidgetDescriptionChanged', '[
    {"op": "set", "path": "/description", "from": "/widget_description"},
    {"op": "set", "path": "/version",     "from": "sequence"}]');

\echo '\n*** 2. What several commands share is a function: a rule, an event ***\n'

CREATE FUNCTION valid_name(command jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN (command @@ 'strict $.widget_name > ""') IS NOT TRUE
                THEN cqrs_es.reject('Invalid name for the widget', code => 'INVALID_NAME')::text
                ELSE command->>'widget_name' END
$$;
CREATE FUNCTION valid_description(command jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN (command @@ 'strict $.widget_description > ""') IS NOT TRUE
                THEN cqrs_es.reject('Invalid description for the widget', code => 'INVALID_DESCRIPTION')::text
                ELSE command->>'widget_description' END
$$;
-- Every event says which version of its payload's schema it was written with.
CREATE FUNCTION name_changed(command jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('type', 'WidgetNameChanged', 'version', 'V1',
                              'payload', jsonb_build_object('widget_name', valid_name(command)))
$$;
CREATE FUNCTION description_changed(command jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('type', 'WidgetDescriptionChanged', 'version', 'V1',
                              'payload', jsonb_build_object('widget_description', valid_description(command)))
$$;

\echo '\n*** 3. Commands. ChangeWidget gives an array of two events: both are appended, or none ***\n'

SELECT cqrs_es.define_command('widget', 'CreateWidget', $$
    CASE
        WHEN version > 0 THEN
            cqrs_es.reject('Aggregation already created', code => 'ALREADY_CREATED')
        ELSE
            jsonb_build_object('type', 'WidgetCreated', 'version', 'V1',
                               'payload', jsonb_build_object('widget_name', valid_name(command),
                                                             'widget_description', valid_description(command)))
    END
$$);
SELECT cqrs_es.define_command('widget', 'ChangeWidgetName', $$
    CASE
        WHEN version = 0 THEN cqrs_es.reject('Aggregate not found', code => 'NOT_FOUND')
        ELSE name_changed(command)
    END
$$);
SELECT cqrs_es.define_command('widget', 'ChangeWidgetDescription', $$
    CASE
        WHEN version = 0 THEN cqrs_es.reject('Aggregate not found', code => 'NOT_FOUND')
        ELSE description_changed(command)
    END
$$);
SELECT cqrs_es.define_command('widget', 'ChangeWidget', $$
    CASE
        WHEN version = 0 THEN cqrs_es.reject('Aggregate not found', code => 'NOT_FOUND')
        ELSE jsonb_build_array(name_changed(command), description_changed(command))
    END
$$);

-- From here on results are printed, and a refusal does not end the script.
\o
\set ON_ERROR_STOP off
\set widget '01H42K4ABWQ5V2XQEP3A48VE0Z'

\echo '\n*** 4. A widget''s life ***\n'

SELECT version, state FROM cqrs_es.execute_command('widget', :'widget', 'CreateWidget',
    '{"widget_name": "Lamp", "widget_description": "Gives light"}');
SELECT version, state FROM cqrs_es.execute_command('widget', :'widget', 'ChangeWidgetName', '{"widget_name": "Desk lamp"}');
SELECT version, state FROM cqrs_es.execute_command('widget', :'widget', 'ChangeWidgetDescription', '{"widget_description": "Gives warm light"}');
SELECT version, state FROM cqrs_es.execute_command('widget', :'widget', 'ChangeWidget',
    '{"widget_name": "Floor lamp", "widget_description": "Gives a lot of light"}');

-- The newest events are in the log at commit, not at some later time.
SELECT sequence, event_type, event_version, payload FROM cqrs_es.events
WHERE aggregate_type = 'widget' AND aggregate_id = :'widget' ORDER BY sequence;

\echo '\n*** 5. Refusals ***\n'

SELECT * FROM cqrs_es.execute_command('widget', :'widget', 'CreateWidget', '{"widget_name": "Lamp", "widget_description": "Gives light"}');
SELECT * FROM cqrs_es.execute_command('widget', :'widget', 'ChangeWidgetName', '{"widget_name": ""}');
SELECT * FROM cqrs_es.execute_command('widget', :'widget', 'ChangeWidgetDescription', '{"widget_description": ""}');
SELECT * FROM cqrs_es.execute_command('widget', :'widget', 'ChangeWidget', '{"widget_name": "Torch", "widget_description": ""}');
SELECT * FROM cqrs_es.execute_command('widget', '01H42K4ABWQ5V2XQEP3A48VE10', 'CreateWidget', '{"widget_description": "Has no name"}');
SELECT * FROM cqrs_es.execute_command('widget', '01H42K4ABWQ5V2XQEP3A48VE10', 'CreateWidget', '{"widget_name": "Has no description"}');
SELECT * FROM cqrs_es.execute_command('widget', '01H42K4ABWQ5V2XQEP3A48VE10', 'ChangeWidgetName', '{"widget_name": "Nobody"}');

\echo '\n*** 6. Lost races: load and decide again, so many times; then the conflict surfaces ***\n'

SHOW cqrs_es.command_retries;

-- Whoever names a version wants no other: with an old one the conflict surfaces at once.
SELECT * FROM cqrs_es.execute_command('widget', :'widget', 'ChangeWidgetName', '{"widget_name": "Torch"}', expected_version => 1);
\echo SQLSTATE :LAST_ERROR_SQLSTATE

\echo '\n*** 7. Release 2: WidgetCreated gets a new shape, V2. The old event stays as it was written ***\n'

-- V1 {widget_name, widget_description} -> V2 {name, description}. From now on
-- reducers and projections see V2 alone. One transaction: nobody sees half of it.
\o /dev/null
BEGIN;
CREATE FUNCTION widget_created_v2(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('name', payload->'widget_name', 'description', payload->'widget_description')
$$;
SELECT cqrs_es.define_upcaster('WidgetCreated', from_version => 'V1', to_version => 'V2',
                               function => 'widget_created_v2(jsonb)');
SELECT cqrs_es.define_reducer('widget', 'WidgetCreated', '[
    {"op": "set", "path": "/id",          "from": "aggregate_id"},
    {"op": "set", "path": "/name",        "from": "/name"},
    {"op": "set", "path": "/description", "from": "/description"},
    {"op": "set", "path": "/version",     "from": "sequence"}]');
SELECT cqrs_es.define_command('widget', 'CreateWidget', $$
    CASE
        WHEN version > 0 THEN
            cqrs_es.reject('Aggregation already created', code => 'ALREADY_CREATED')
        ELSE
            jsonb_build_object('type', 'WidgetCreated', 'version', 'V2',
                               'payload', jsonb_build_object('name', valid_name(command),
                                                             'description', valid_description(command)))
    END
$$);
COMMIT;
\o

SELECT version, state FROM cqrs_es.execute_command('widget', '01H42K4ABWQ5V2XQEP3A48VE11', 'CreateWidget',
    '{"widget_name": "Chair", "widget_description": "Has four legs"}');

-- What is stored ...
SELECT aggregate_id, event_version, payload FROM cqrs_es.events WHERE event_type = 'WidgetCreated' ORDER BY global_position;
-- ... what is read ...
SELECT aggregate_id, event_version, payload FROM cqrs_es.read_all(after_position => 0, event_types => '{WidgetCreated}');
-- ... and the old widget's state, after each of its events.
SELECT sequence, event_type, event_version, state FROM cqrs_es.replay('widget', :'widget');
