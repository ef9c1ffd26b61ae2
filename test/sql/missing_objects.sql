\i test/include/setup.sql
-- missing_objects for whom it was granted to, who may look into no other schema.

BEGIN;
SELECT plan(9);
CREATE ROLE cqrs_es_stranger;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_stranger;
GRANT SELECT ON cqrs_es.missing_objects TO cqrs_es_stranger;
CREATE SCHEMA "cqrs_es, closed";
SET LOCAL search_path = "cqrs_es, closed", public;
CREATE FUNCTION "Re(duce"(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
CREATE FUNCTION up(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT payload';
CREATE FUNCTION up(payload json) RETURNS jsonb LANGUAGE sql AS 'SELECT payload::jsonb';
CREATE FUNCTION handle(event cqrs_es.event) RETURNS void LANGUAGE sql AS '';
SELECT cqrs_es.create_aggregate('missing'), cqrs_es.create_projection('missing') \gset
SELECT cqrs_es.define_reducer('missing', 'e', '"Re(duce"(jsonb, cqrs_es.event)'), cqrs_es.define_reducer('missing', 'o', '[]'::jsonb),
	cqrs_es.define_upcaster('e', '1', '2', 'up(jsonb)'), cqrs_es.define_handler('missing', 'e', 'handle(cqrs_es.event)') \gset
SELECT is_empty('SELECT * FROM cqrs_es.missing_objects', 'all is there');
SET LOCAL ROLE cqrs_es_stranger;
SET LOCAL quote_all_identifiers = on;
SELECT is_empty('SELECT * FROM cqrs_es.missing_objects', 'for a stranger, too');
RESET ROLE;
ALTER EVENT TRIGGER cqrs_es_protect_declared DISABLE;
DROP FUNCTION "cqrs_es, closed".up(jsonb);
SELECT set_eq('SELECT * FROM cqrs_es.missing_objects',
	$$VALUES ('upcasters', 'e, 1', 'function', '"cqrs_es, closed".up(pg_catalog.jsonb)')$$, 'one of another signature is another one');
DROP SCHEMA "cqrs_es, closed" CASCADE;
ALTER EVENT TRIGGER cqrs_es_protect_declared ENABLE;
SELECT set_eq('SELECT registry, declaration, object_name FROM cqrs_es.missing_objects',
	$$VALUES ('handlers', 'missing, e', '"cqrs_es, closed".handle(cqrs_es.event)'), ('reducers', 'missing, e', '"cqrs_es, closed"."Re(duce"(pg_catalog.jsonb,cqrs_es.event)'),
		('upcasters', 'e, 1', '"cqrs_es, closed".up(pg_catalog.jsonb)')$$, 'all are missed');
SET LOCAL ROLE cqrs_es_stranger;
SELECT is(count(*), 3::bigint, 'by a stranger, too') FROM cqrs_es.missing_objects;
RESET ROLE;

-- Tables of the extension may be what is missing: whoever changes or drops something else is not kept from it.

SAVEPOINT whole;
CREATE TABLE other (id text);
CREATE FUNCTION other() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER EXTENSION cqrs_es DROP TABLE cqrs_es.upcasters;
DROP TABLE cqrs_es.upcasters CASCADE;
SELECT lives_ok('ALTER FUNCTION other() RENAME TO another', 'without one of the registries: a function is renamed');
SELECT lives_ok('DROP FUNCTION another()', 'dropped');
SELECT lives_ok('DROP TABLE other', 'and a table');
ROLLBACK TO whole;
-- who compares must have noted before, in a session that has not yet
\set statements 'SET client_min_messages = warning; BEGIN; ALTER EVENT TRIGGER cqrs_es_note_function_names DISABLE; CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql RETURN 1; ALTER FUNCTION pg_temp.f() RENAME TO g; ROLLBACK;'
\i test/include/session.sql
SELECT is(:'answer'::text, 'WARNING:  01000', 'what was not noted cannot be compared, which is told');

SELECT * FROM finish();
ROLLBACK;
