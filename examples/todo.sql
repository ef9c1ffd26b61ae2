-- A to-do list, from CREATE EXTENSION to its read table.
--
--	psql -d an_empty_database -f examples/todo.sql
--
-- Events TodoCreated{title}, TodoTitleChanged{title}, TodoCompleted{}; the state
-- {id, title, completed}; the read table todo_read_views, kept current in the
-- same transaction as the events.

\set QUIET on
\set ON_ERROR_STOP on
\pset null '(null)'

\echo
\echo '*** 1. Install the extension and declare what a todo is ***'
\echo
\set ECHO queries

CREATE EXTENSION cqrs_es;

-- How each event changes the state. An event without a reducer is merged into it.
CREATE FUNCTION todo_created(state jsonb, event cqrs_es.event) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('id', event.aggregate_id,
                              'title', event.payload->'title',
                              'completed', false)
$$;
CREATE FUNCTION todo_completed(state jsonb, event cqrs_es.event) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$ SELECT state || '{"completed": true}' $$;

SELECT cqrs_es.create_aggregate('todo', snapshot_every => 100);
SELECT cqrs_es.define_reducer('todo', 'TodoCreated', 'todo_created(jsonb, cqrs_es.event)');
SELECT cqrs_es.define_reducer('todo', 'TodoCompleted', 'todo_completed(jsonb, cqrs_es.event)');
-- (TodoTitleChanged {"title": ...} needs none: merging it does the right thing.)

\set ECHO none
\echo
\echo '*** 2. A read table, and a projection that keeps it current ***'
\echo
\set ECHO queries

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

\set ECHO none
\echo
\echo '*** 3. Append events: each call says which version it has decided on ***'
\echo
\set milk '0a8f8a52-0f6c-4d0e-9a44-1b1c6a6f0001'
\set tax  '0a8f8a52-0f6c-4d0e-9a44-1b1c6a6f0002'
\set ECHO queries

-- 0: this stream must not exist yet
SELECT * FROM cqrs_es.append_event('todo', :'milk', 'TodoCreated', '{"title": "Buy milk"}', expected_version => 0);
SELECT * FROM cqrs_es.append_event('todo', :'tax', 'TodoCreated', '{"title": "File the tax return"}', expected_version => 0);
SELECT * FROM cqrs_es.append_event('todo', :'milk', 'TodoTitleChanged', '{"title": "Buy oat milk"}', expected_version => 1);
SELECT * FROM cqrs_es.append_event('todo', :'milk', 'TodoCompleted', '{}', expected_version => 2);

\set ECHO none
\echo
\echo '*** 4. Somebody who still believes in version 1 is refused (SQLSTATE QE001) ***'
\echo
\set ON_ERROR_STOP off
\set ECHO queries

SELECT * FROM cqrs_es.append_event('todo', :'milk', 'TodoTitleChanged', '{"title": "Buy beer"}', expected_version => 1);

\set ECHO none
\set ON_ERROR_STOP on
\echo
\echo '*** 5. The read table is already up to date: it changed with the events ***'
\echo
\set ECHO queries

SELECT id, title, completed FROM todo_read_views ORDER BY updated_at DESC;

\set ECHO none
\echo
\echo '*** 6. The events are the truth: read them, or replay them into the state ***'
\echo
\set ECHO queries

SELECT sequence, event_type, payload FROM cqrs_es.read_stream('todo', :'milk');
SELECT cqrs_es.aggregate_state('todo', :'milk');
SELECT global_position, aggregate_id, event_type FROM cqrs_es.read_all(after_position => 0);

\set ECHO none
\echo
\echo '*** 7. A long history: every 100th event leaves a snapshot behind ***'
\echo
\set ECHO queries

-- 249 changes of mind, appended in one call
SELECT * FROM cqrs_es.append_events('todo', :'tax', (
    SELECT jsonb_agg(jsonb_build_object('type', 'TodoTitleChanged',
                                        'payload', jsonb_build_object('title', 'File the tax return, try ' || n)))
    FROM generate_series(1, 249) AS n), expected_version => 1);

SELECT aggregate_id, last_sequence, payload FROM cqrs_es.snapshots;

-- replay starts at the snapshot of event 200 and folds the 50 events behind it
SELECT * FROM cqrs_es.load_aggregate('todo', :'tax');

\set ECHO none
\echo
\echo '*** 8. Nobody rewrites history, not even the owner of the table ***'
\echo
\set ON_ERROR_STOP off
\set ECHO queries

DELETE FROM cqrs_es.events WHERE event_type = 'TodoCompleted';

\set ECHO none
\echo
\echo 'That was it. README.md goes on from here.'
