\i test/include/setup.sql
-- The module: its settings, and that it comes and goes. (What must hold of everything
-- that it installs is in catalog.sql.)
BEGIN;
SELECT plan(16);

-- settings are known when the library is loaded: with the first call
SELECT cqrs_es.current_tenant() \gset

SELECT is_empty(
	$$SELECT name FROM pg_settings WHERE name LIKE 'cqrs_es.%' AND coalesce(short_desc, '') = ''$$,
	'every setting has a description');
SELECT results_eq(
	$$SELECT name, context FROM pg_settings WHERE name LIKE 'cqrs_es.%' AND context <> 'user' ORDER BY name$$,
	$$VALUES ('cqrs_es.master_key_file', 'superuser'), ('cqrs_es.node_id', 'superuser'), ('cqrs_es.projection_worker', 'superuser'),
		('cqrs_es.projection_worker_idle_time', 'superuser'), ('cqrs_es.require_tenant', 'superuser'), ('cqrs_es.tenant_id', 'superuser')$$,
	'every setting is the user''s own, but for the master key, the node''s number, the worker, the tenant, and whether there must be one');
SELECT throws_ok($$SET cqrs_es.nonsense = 1$$, '42602', NULL, 'the prefix of the settings is reserved');

-- The extension can go and come back in one session: no cache remembers the old one.

SELECT lives_ok($$SELECT cqrs_es.append_event('core', 'a', 'e', '{}')$$, 'an append fills the caches');
SELECT lives_ok($$SELECT cqrs_es.create_aggregate('core')$$, 'and so does a declaration');
SELECT is(cqrs_es.aggregate_state('core', 'a'), '{}', 'and a replay');
SAVEPOINT old_extension;
SELECT lives_ok($$DROP EXTENSION cqrs_es$$, 'DROP EXTENSION');
SELECT hasnt_schema('cqrs_es', 'leaves nothing behind');
SELECT lives_ok($$CREATE EXTENSION cqrs_es$$, 'CREATE EXTENSION again');
SELECT results_eq($$SELECT * FROM cqrs_es.append_event('core', 'a', 'e', '{"n": 1}')$$,
	$$VALUES (1::bigint, 1::bigint)$$, 'the new log begins at 1');
SELECT throws_ok($$SELECT cqrs_es.aggregate_state('core', 'a')$$, 'QE101', NULL,
	'the new registry is empty');
SELECT lives_ok($$SELECT cqrs_es.create_aggregate('core')$$, 'and can be filled');
SELECT is(cqrs_es.aggregate_state('core', 'a'), '{"n": 1}', 'and replay reads the new log');
SELECT results_eq($$SELECT sequence, payload FROM cqrs_es.read_stream('core', 'a')$$,
	$$VALUES (1::bigint, '{"n": 1}'::jsonb)$$, 'and so does read_stream');
ROLLBACK TO old_extension;
SELECT is(cqrs_es.aggregate_state('core', 'a'), '{}', 'after a rollback the old log and registry are there');
SELECT is((cqrs_es.append_event('core', 'a', 'e', '{"n": 2}')).version, 2::bigint, 'and go on');
SELECT finish();
ROLLBACK;
