\i test/include/setup.sql
-- The to-do list: what must hold in its database.
\set example todo
\i test/include/example.sql
BEGIN;
SELECT plan(13);
\set milk '0a8f8a52-0f6c-4d0e-9a44-000000000001'
\set none '0a8f8a52-0f6c-4d0e-9a44-00000000dead'

SELECT is(pg_temp.refusal('todo', :'milk', 'CreateTodo', '{"title": "x"}'), 'QE301 ALREADY_CREATED Todo already created', 'created twice');
SELECT is(pg_temp.refusal('todo', :'milk', 'ChangeTitle', '{"title": "x"}'), 'QE301 COMPLETED Cannot change title of completed todo', 'changed when completed');
SELECT is(pg_temp.refusal('todo', :'milk', 'CompleteTodo'), 'QE301 ALREADY_COMPLETED Todo already completed', 'completed twice');
SELECT is(pg_temp.refusal('todo', :'none', 'ChangeTitle', '{"title": "x"}'), 'QE301 NOT_FOUND Todo not found', 'an unknown one changed');
SELECT is(pg_temp.refusal('todo', :'none', 'CompleteTodo'), 'QE301 NOT_FOUND Todo not found', 'an unknown one completed');
SELECT matches(pg_temp.refusal('todo', :'milk', 'ChangeTitle', '{"title": "x"}', 2), '^QE001 ', 'a stale version');
SELECT is(pg_temp.refusal('todo', :'none', 'CreateTodo', '{}'), 'QE301 NO_TITLE Title is missing', 'without a title');
SELECT is(cqrs_es.stream_version('todo', :'none'), 0::bigint, 'and there is no event either');
SELECT is((SELECT count(*) FROM cqrs_es.events), 253::bigint, 'what is refused leaves no trace');
SELECT results_eq('SELECT id::text, title, completed, updated_at FROM todo_read_views ORDER BY id',
	$$SELECT id, state->>'title', (state->>'completed')::boolean, at FROM pg_temp.states('todo') ORDER BY id$$, 'the read table is what the events say');
SELECT results_eq($$SELECT state FROM pg_temp.states('todo') ORDER BY id$$,
	$$SELECT cqrs_es.aggregate_state('todo', id) FROM pg_temp.states('todo') ORDER BY id$$, 'so is what starts at a snapshot');
SELECT results_eq('SELECT aggregate_id COLLATE "default", last_sequence FROM cqrs_es.snapshots', $$VALUES ('0a8f8a52-0f6c-4d0e-9a44-000000000002', 200::bigint)$$,
	'a snapshot every 100 events');
SELECT has_index('todo_read_views', 'todo_read_views_completed_idx', 'completed', 'completed is indexed');
SELECT finish();
ROLLBACK;
\i test/include/example_end.sql
