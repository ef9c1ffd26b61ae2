\i test/include/setup.sql
-- What must hold of everything that the extension installs: the catalog says so.
-- A new function or table that forgets one of these rules fails here.
BEGIN;
SELECT plan(36);

CREATE TEMP VIEW functions AS
SELECT p.*, format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)) AS signature
FROM pg_proc p WHERE p.pronamespace = 'cqrs_es'::regnamespace;

CREATE TEMP VIEW relations AS
SELECT c.* FROM pg_class c
WHERE c.relnamespace = 'cqrs_es'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S');

SELECT cmp_ok(count(*), '>', 20::bigint, 'there are functions to look at') FROM functions;
SELECT cmp_ok(count(*), '>', 5::bigint, 'there are relations to look at') FROM relations;

-- functions

SELECT is_empty(
	$$SELECT signature FROM functions WHERE coalesce(obj_description(oid, 'pg_proc'), '') = ''$$,
	'every function has a comment');
SELECT is_empty(
	$$SELECT signature FROM functions JOIN pg_language l ON l.oid = prolang
	WHERE lanname <> 'c' AND NOT coalesce(proconfig::text LIKE '%search_path=%', false) AND prosqlbody IS NULL$$,
	'every function is C, or has its names resolved for good');
SELECT is_empty(
	$$SELECT signature, prosrc FROM functions JOIN pg_language l ON l.oid = prolang
	WHERE lanname = 'c' AND NOT starts_with(prosrc, 'cqrs_es_' || proname)$$,
	'every C symbol begins with the name of the schema and of the function');
SELECT is_empty(
	$$SELECT signature FROM functions WHERE prosecdef$$,
	'no function is SECURITY DEFINER');
SELECT is_empty(
	$$SELECT signature FROM functions WHERE provolatile <> 'v' AND proparallel = 'u'$$,
	'no function is parallel unsafe without being volatile');
SELECT set_eq(
	$$SELECT proname FROM functions WHERE proparallel = 's'$$,
	ARRAY['current_tenant', 'new_event_id']::name[],
	'what may run in a parallel worker neither takes positions nor looks at the log');
SELECT is_empty(
	$$SELECT signature FROM functions
	WHERE prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
	AND pronargs > 0 AND proargnames IS NULL$$,
	'every argument has a name');
SELECT is_empty(
	$$SELECT signature FROM functions f
	WHERE prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
	AND proname ~ '^(create|alter|drop|define|rebuild|pause|resume)_|^projection_errors$' = EXISTS (
		SELECT FROM aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a
		WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE')$$,
	'PUBLIC may call all but what changes a registry');

-- relations

SELECT is_empty(
	$$SELECT relname FROM relations WHERE coalesce(obj_description(oid, 'pg_class'), '') = ''$$,
	'every relation has a comment');
SELECT is_empty(
	$$SELECT relname FROM relations WHERE relkind IN ('r', 'p', 'S') AND oid <> ALL (
		SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'cqrs_es')$$,
	'every table and sequence is marked for pg_dump: without it data is silently lost');
SELECT is_empty(
	$$SELECT relname FROM relations CROSS JOIN LATERAL
		aclexplode(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner)))
	WHERE grantee <> relowner$$,
	'nobody but the owner has a right on a relation');
SELECT is_empty(
	$$SELECT relname, attname FROM relations JOIN pg_attribute ON attrelid = relations.oid
	WHERE relkind = 'r' AND attnum > 0 AND atttypid = 'text'::regtype
	AND attname IN (SELECT attname FROM pg_index JOIN pg_attribute k
		ON k.attrelid = indexrelid WHERE indrelid = relations.oid)
	AND attcollation <> '"C"'::regcollation$$,
	'keys of type text collate bytewise');
SELECT is_empty(
	$$SELECT c.relname FROM pg_index i JOIN relations c ON c.oid = i.indrelid
	WHERE i.indisunique AND EXISTS (SELECT FROM pg_attribute a
		WHERE a.attrelid = c.oid AND a.attname = 'aggregate_id')
	AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attname = 'aggregate_id')$$,
	'every unique index of a table with aggregate_id contains it');
SELECT set_eq(
	$$SELECT relname FROM relations WHERE relkind = 'r' AND EXISTS (
		SELECT FROM pg_trigger WHERE tgrelid = relations.oid AND tgname = 'registry_changed'
		AND tgtype & 1 = 0 AND tgtype & 2 = 0 AND tgtype & 60 = 60)$$,
	$$SELECT relname FROM relations WHERE relkind = 'r' AND relname NOT IN ('events', 'snapshots')$$,
	'every registry tells the sessions of INSERT, UPDATE, DELETE and TRUNCATE');
SELECT is_empty(
	$$SELECT s.relname FROM relations s JOIN pg_sequence ON seqrelid = s.oid WHERE seqcache <> 1$$,
	'sequences have CACHE 1');
SELECT is_empty(
	$$SELECT attname FROM pg_attribute WHERE attrelid = 'cqrs_es.events'::regclass AND attidentity <> ''$$,
	'no column of the log is an identity');
SELECT results_eq(
	$$SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
	WHERE attrelid = 'cqrs_es.events'::regclass AND attnum > 0 ORDER BY attnum$$,
	$$SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
	WHERE attrelid = 'cqrs_es.event'::regclass AND attnum > 0 ORDER BY attnum$$,
	'the composite type has the columns of the table');
SELECT is_empty(
	$$SELECT pg_describe_object(classid, objid, 0) FROM pg_depend
	WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'cqrs_es')
	AND (pg_identify_object(classid, objid, 0)).schema <> 'cqrs_es'$$,
	'nothing lies in another schema');

-- the module

SELECT is_empty(
	$$SELECT name FROM pg_settings WHERE name LIKE 'cqrs_es.%' AND coalesce(short_desc, '') = ''$$,
	'every setting has a description');
SELECT results_eq(
	$$SELECT name, context FROM pg_settings WHERE name LIKE 'cqrs_es.%' AND context <> 'user'$$,
	$$VALUES ('cqrs_es.node_id', 'superuser')$$,
	'every setting but the node''s number is the user''s own');
SELECT throws_ok($$SET cqrs_es.nonsense = 1$$, '42602', NULL, 'the prefix of the settings is reserved');

-- The extension can go and come back in one session: no cache remembers the old one.

SELECT lives_ok($$SELECT cqrs_es.append_event('core', 'a', 'e', '{}')$$, 'an append fills the caches');
SELECT lives_ok($$SELECT cqrs_es.create_aggregate('core')$$, 'and so does a declaration');
SELECT is(cqrs_es.aggregate_state('core', 'a'), '{}', 'and a replay');
DROP VIEW functions, relations;
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
