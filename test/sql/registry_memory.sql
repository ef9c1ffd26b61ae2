\i test/include/setup.sql
-- Long transactions while declarations, or the functions they name, change with
-- every event: what was thrown away does not pile up until the end.
SELECT plan(7);

SELECT cqrs_es.create_aggregate('registry memory', snapshot_every => 5) IS NULL AS x \gset
CREATE TABLE registry_memory (n bigint);
CREATE FUNCTION registry_memory_note(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO registry_memory VALUES (event.sequence);
	EXECUTE 'CREATE OR REPLACE FUNCTION pg_temp.unrelated() RETURNS integer LANGUAGE sql AS ''SELECT 1''';
END $$;
CREATE FUNCTION registry_memory_same(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT payload';
SELECT cqrs_es.create_projection('registry memory', aggregate_types => '{registry memory}', read_models => '{registry_memory}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('registry memory', 'e', 'registry_memory_note(cqrs_es.event)') IS NULL AS x \gset
SELECT cqrs_es.define_handler('registry memory', '*', 'DELETE FROM registry_memory WHERE n < 0') IS NULL AS x \gset
SELECT cqrs_es.define_upcaster('e', '1', '2', 'registry_memory_same(jsonb)') IS NULL AS x \gset
SELECT cqrs_es.define_command('registry memory', 'c', '''{"type": "e", "payload": {}}''::jsonb') IS NULL AS x \gset

CREATE FUNCTION pg_temp.caches() RETURNS bigint LANGUAGE sql AS
	$$SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'cqrs_es registry cache'$$;

BEGIN;
DO $$
BEGIN
	FOR i IN 1 .. 50 LOOP
		PERFORM cqrs_es.append_event('registry memory', 'a', 'e', '{}');
		PERFORM cqrs_es.execute_command('registry memory', 'a', 'c');
		PERFORM cqrs_es.aggregate_state('registry memory', 'a');
		PERFORM * FROM cqrs_es.read_stream('registry memory', 'a', max_count => 1);
	END LOOP;
END $$;
SELECT cmp_ok(pg_temp.caches(), '<', 30::bigint, 'after many calls');
COMMIT;

BEGIN;
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'registry memory', 'b', 'e', '{}' FROM generate_series(1, 100);
SELECT cmp_ok(pg_temp.caches(), '<', 30::bigint, 'after many rows');
COMMIT;

BEGIN;
SET LOCAL client_min_messages = error;	-- the DELETE finds nothing
SELECT is(cqrs_es.rebuild_projection('registry memory'), 200::bigint, 'rebuilt');
SELECT cmp_ok(pg_temp.caches(), '<', 30::bigint, 'after a rebuild');
COMMIT;
SELECT is((SELECT count(*) FROM registry_memory), 200::bigint, 'of all events');
SELECT cmp_ok(pg_temp.caches(), '<', 8::bigint, 'and nothing is left after the transaction');

-- a new schema, anywhere in the database, makes all plans old
CREATE TABLE registry_memory_plans (n bigint);
CREATE FUNCTION registry_memory_schema(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CREATE SCHEMA registry_memory;
	DROP SCHEMA registry_memory;
END $$;
SELECT cqrs_es.create_projection('registry memory plans', aggregate_types => '{registry memory}', read_models => '{registry_memory_plans}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('registry memory plans', 'e', 'registry_memory_schema(cqrs_es.event)') IS NULL AS x \gset
SELECT cqrs_es.define_handler('registry memory plans', '*',
	$$INSERT INTO registry_memory_plans SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource'$$) IS NULL AS x \gset
SELECT cqrs_es.rebuild_projection('registry memory plans') IS NULL AS x \gset
SELECT cmp_ok((SELECT max(n) - min(n) FROM registry_memory_plans), '<', 20::bigint,
	'in a rebuild, plans that were replaced do not pile up');
SELECT cqrs_es.drop_projection('registry memory plans') IS NULL AS x \gset
DROP FUNCTION registry_memory_schema;
DROP TABLE registry_memory_plans;

SELECT cqrs_es.drop_projection('registry memory') IS NULL AS x \gset
SELECT cqrs_es.drop_upcaster('e', '1') IS NULL AS x \gset
SELECT cqrs_es.drop_aggregate('registry memory', force => true) IS NULL AS x \gset
DROP FUNCTION registry_memory_note, registry_memory_same;
DROP TABLE registry_memory;
SELECT * FROM finish();
