\i test/include/setup.sql
-- A function in use keeps its name and schema: else whoever may create functions
-- there would put another in its place, and it would run as whoever reads.

BEGIN;
SELECT plan(23);
CREATE ROLE cqrs_es_other;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_other;
CREATE SCHEMA cqrs_es_names;
CREATE SCHEMA cqrs_es_elsewhere;
GRANT CREATE, USAGE ON SCHEMA cqrs_es_names TO cqrs_es_other;
SET LOCAL search_path = cqrs_es_names, public;
SELECT cqrs_es.create_aggregate('names'), cqrs_es.create_projection('names') \gset
CREATE FUNCTION "Re,duce"(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state || ''{"by": "owner"}''';
CREATE FUNCTION "Re,duce"(state jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
CREATE FUNCTION up(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT payload';
CREATE FUNCTION handle(event cqrs_es.event) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION unused(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
SELECT cqrs_es.define_reducer('names', 'e', '"Re,duce"(jsonb, cqrs_es.event)'),
	cqrs_es.define_upcaster('old', '1', '2', 'up(jsonb)'),
	cqrs_es.define_handler('names', 'handled', 'handle(cqrs_es.event)'),
	cqrs_es.append_event('names', 'a', 'e', '{}') \gset

SELECT throws_ok(command, '2BP01', NULL, command) FROM (VALUES
	(1, $$ALTER FUNCTION "Re,duce"(jsonb, cqrs_es.event) RENAME TO other$$),
	(2, $$ALTER ROUTINE "Re,duce"(jsonb, cqrs_es.event) RENAME TO other$$),
	(3, $$ALTER FUNCTION "Re,duce"(jsonb, cqrs_es.event) SET SCHEMA cqrs_es_elsewhere$$),
	(4, $$ALTER FUNCTION up(jsonb) RENAME TO other$$),
	(5, $$ALTER FUNCTION up(jsonb) SET SCHEMA cqrs_es_elsewhere$$),
	(6, $$ALTER FUNCTION handle RENAME TO other$$),
	(7, $$ALTER ROUTINE handle SET SCHEMA cqrs_es_elsewhere$$),
	(8, $$ALTER SCHEMA cqrs_es_names RENAME TO cqrs_es_other_names$$),
	(9, $$DO 'BEGIN ALTER FUNCTION up(jsonb) RENAME TO other; END'$$),
	(10, $$DO 'BEGIN CREATE FUNCTION fresh(jsonb) RETURNS jsonb LANGUAGE sql AS ''SELECT $1''; PERFORM cqrs_es.define_upcaster(''new'', ''1'', ''2'', ''fresh(jsonb)''); ALTER FUNCTION fresh(jsonb) RENAME TO other; END'$$)) c (n, command)
ORDER BY n;
SELECT throws_ok($$ALTER FUNCTION up(jsonb) RENAME TO other$$, '2BP01',
	'cannot rename or move function cqrs_es_names.up(pg_catalog.jsonb) because it is in use', 'in these words');
SET LOCAL quote_all_identifiers = on;
SELECT throws_ok($$ALTER FUNCTION up(jsonb) RENAME TO other$$, '2BP01', NULL, 'whatever the session writes names like');
RESET quote_all_identifiers;
SELECT is(cqrs_es.aggregate_state('names', 'a')->>'by', 'owner', 'nothing has happened');

-- what else may be done to it, and what may be done to others

SELECT lives_ok(command, command) FROM (VALUES
	(1, $$ALTER FUNCTION "Re,duce"(jsonb) RENAME TO other$$),
	(2, $$ALTER FUNCTION unused SET SCHEMA cqrs_es_elsewhere$$),
	(3, $$ALTER SCHEMA cqrs_es_elsewhere RENAME TO cqrs_es_yonder$$),
	(4, $$ALTER FUNCTION up(jsonb) COST 7$$),
	(5, $$ALTER FUNCTION up(jsonb) OWNER TO cqrs_es_other$$),
	(6, $$ALTER SCHEMA cqrs_es_names OWNER TO cqrs_es_other$$)) c (n, command)
ORDER BY n;
SELECT throws_ok($$SELECT pg_temp.as_role('cqrs_es_other', 'ALTER FUNCTION cqrs_es_names.up(jsonb) RENAME TO others')$$, '2BP01', NULL, 'nor does an owner without rights on registries');
SELECT cqrs_es.define_upcaster('old', '1', '2', 'cqrs_es_names.other(jsonb)') \gset
SELECT lives_ok($$ALTER FUNCTION up(jsonb) RENAME TO up2$$, 'after another definition it may be renamed');

-- what is missing already, of a dump perhaps, holds nobody up, and may come back by a name

SET LOCAL client_min_messages = error;
INSERT INTO cqrs_es.upcasters (event_type, from_version, to_version, function, search_path)
SELECT 'restored', '1', '2', 'cqrs_es_names.missing(pg_catalog.jsonb)', search_path FROM cqrs_es.upcasters LIMIT 1;
RESET client_min_messages;
SELECT lives_ok($$ALTER FUNCTION up2(jsonb) RENAME TO up3$$, 'a function that is missing is another matter');
SELECT lives_ok($$ALTER FUNCTION up3(jsonb) RENAME TO missing$$, 'and may be found by a new name');

SELECT * FROM finish();
ROLLBACK;
