-- A to-do list: commands, events, a read table and snapshots.
--
--	psql -d an_empty_database -f examples/todo.sql
--
-- Commands CreateTodo{title}, ChangeTitle{title}, CompleteTodo{}; events
-- TodoCreated{title}, TodoTitleChanged{title}, TodoCompleted{}; the state
-- {id, title, completed}.

-- What psql prints: commands, and of errors no context. Declarations return
-- nothing worth printing.
\set QUIET on
\set ECHO queries
\set SHOW_CONTEXT never
\set ON_ERROR_STOP on
\o /dev/null

\echo '\n*** 1. Install the extension; say how events change the state of a todo ***\n'

CREATE EXTENSION cqrs_es;

SELECT cqrs_es.create_aggregate('todo', snapshot_every => 100);
SELECT cqrs_es.define_reducer('todo', 'TodoCreated', '[
    {"op": "set", "path": "/id",        "from": "aggregate_id"},
    {"op": "set", "path": "/title",     "from": "/title"},
    {"op": "set", "path": "/completed", "value": false}]');
SELECT cqrs_es.define_reducer('todo', 'TodoTitleChanged', '[
    {"op": "set", "path": "/title",     "from": "/title"}]');
SELECT cqrs_es.define_reducer('todo', 'TodoCompleted', '[
    {"op": "set", "path": "/completed", "value": true}]');

\echo '\n*** 2. Commands: an expression over the state decides which events follow, or refuses ***\n'

-- The version is 0 as long as there are no events.
SELECT cqrs_es.define_command('todo', 'CreateTodo', $$
    CASE
        WHEN version > 0 THEN
            cqrs_es.reject('Todo already created', code => 'ALREADY_CREATED')
        -- which the read table needs
        WHEN aggregate_id !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
            cqrs_es.reject('The id of a todo is a UUID', code => 'NO_UUID')
        WHEN (command @@ 'strict $.title > ""') IS NOT TRUE THEN
            cqrs_es.reject('Title is missing', code => 'NO_TITLE')
        ELSE
            jsonb_build_object('type', 'TodoCreated',
                               'payload', jsonb_build_object('title', command->>'title'))
    END
$$);
SELECT cqrs_es.define_command('todo', 'ChangeTitle', $$
    CASE
        WHEN version = 0 THEN
            cqrs_es.reject('Todo not found', code => 'NOT_FOUND')
        WHEN (state->>'completed')::boolean THEN
            cqrs_es.reject('Cannot change title of completed todo', code => 'COMPLETED')
        WHEN (command @@ 'strict $.title > ""') IS NOT TRUE THEN
            cqrs_es.reject('Title is missing', code => 'NO_TITLE')
        ELSE
            jsonb_build_object('type', 'TodoTitleChanged',
                               'payload', jsonb_build_object('title', command->>'title'))
    END
$$);
SELECT cqrs_es.define_command('todo', 'CompleteTodo', $$
    CASE
        WHEN version = 0 THEN
            cqrs_es.reject('Todo not found', code => 'NOT_FOUND')
        WHEN (state->>'completed')::boolean THEN
            cqrs_es.reject('Todo already completed', code => 'ALREADY_COMPLETED')
        ELSE
            jsonb_build_object('type', 'TodoCompleted', 'payload', '{}'::jsonb)
    END
$$);

\echo '\n*** 3. A read table, and a projection that writes it in the transaction of the event ***\n'

CREATE TABLE todo_read_views (
    id         uuid PRIMARY KEY,
    title      text NOT NULL,
    completed  boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL
);
CREATE INDEX ON todo_read_views (completed);

SELECT cqrs_es.create_projection('todos', aggregate_types => '{todo}', read_models => '{todo_read_views}');
SELECT cqrs_es.define_handler('todos', 'TodoCreated', $$
    INSERT INTO todo_read_views (id, title, updated_at)
    VALUES (event.aggregate_id::uuid, event.payload->>'title', event.created_at)
$$);
SELECT cqrs_es.define_handler('todos', 'TodoTitleChanged', $$
    UPDATE todo_read_views SET title = event.payload->>'title', updated_at = event.created_at
    WHERE id = event.aggregate_id::uuid
$$);
SELECT cqrs_es.define_handler('todos', 'TodoCompleted', $$
    UPDATE todo_read_views SET completed = true, updated_at = event.created_at
    WHERE id = event.aggregate_id::uuid
$$);

-- From here on results are printed, and a refusal does not end the script.
\o
\set ON_ERROR_STOP off
\set milk '0a8f8a52-0f6c-4d0e-9a44-000000000001'
\set tax  '0a8f8a52-0f6c-4d0e-9a44-000000000002'

\echo '\n*** 4. Send commands: load, decide, and append behind just the version that was decided on ***\n'

SELECT version, state FROM cqrs_es.execute_command('todo', :'milk', 'CreateTodo', '{"title": "Buy milk"}');
SELECT version, state FROM cqrs_es.execute_command('todo', :'tax', 'CreateTodo', '{"title": "File the tax return"}');
SELECT version, state FROM cqrs_es.execute_command('todo', :'milk', 'ChangeTitle', '{"title": "Buy oat milk"}');
SELECT version, state FROM cqrs_es.execute_command('todo', :'milk', 'CompleteTodo');

\echo '\n*** 5. What is refused, is refused with SQLSTATE QE301, your message and your code ***\n'

SELECT * FROM cqrs_es.execute_command('todo', :'milk', 'CreateTodo', '{"title": "Buy milk"}');
SELECT * FROM cqrs_es.execute_command('todo', :'milk', 'ChangeTitle', '{"title": "Buy beer"}');
SELECT * FROM cqrs_es.execute_command('todo', :'milk', 'CompleteTodo');
SELECT * FROM cqrs_es.execute_command('todo', '0a8f8a52-0f6c-4d0e-9a44-00000000dead', 'CreateTodo', '{"title": ""}');
SELECT * FROM cqrs_es.execute_command('todo', '0a8f8a52-0f6c-4d0e-9a44-00000000dead', 'CompleteTodo');
SELECT * FROM cqrs_es.execute_command('todo', '0a8f8a52-0f6c-4d0e-9a44-00000000dead', 'ChangeTitle', '{"title": "?"}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE

\echo '\n*** 6. Whoever decided on what was seen says so: version 1 is not current any more ***\n'

SELECT * FROM cqrs_es.execute_command('todo', :'milk', 'ChangeTitle', '{"title": "Buy beer"}', expected_version => 1);
\echo SQLSTATE :LAST_ERROR_SQLSTATE

\echo '\n*** 7. Queries: one by id; all, newest first. The table changed with the events ***\n'

SELECT id, title, completed FROM todo_read_views WHERE id = :'milk';
SELECT id, title, completed FROM todo_read_views ORDER BY updated_at DESC;

\echo '\n*** 8. The events are the truth: read them, or look at the state after each ***\n'

SELECT global_position, aggregate_id, event_type, payload FROM cqrs_es.read_all(after_position => 0);
SELECT sequence, event_type, state FROM cqrs_es.replay('todo', :'milk');

\echo '\n*** 9. A long history: every 100th event leaves a snapshot, and loading starts there ***\n'

SELECT count(*) AS changes FROM generate_series(1, 249) AS n, cqrs_es.execute_command(
    'todo', :'tax', 'ChangeTitle', jsonb_build_object('title', 'File the tax return, try ' || n));

SELECT aggregate_id, last_sequence, payload FROM cqrs_es.snapshots;
SELECT * FROM cqrs_es.load_aggregate('todo', :'tax');

\echo '\n*** 10. Nobody rewrites history, not even the owner of the table ***\n'

DELETE FROM cqrs_es.events WHERE event_type = 'TodoCompleted';
