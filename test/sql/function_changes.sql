\i test/include/setup.sql
-- A session keeps what it has read of declarations while others create functions,
-- and hears of every change of one that a declaration hangs on.
BEGIN;
SELECT plan(26);
CREATE SCHEMA changes;
CREATE TABLE changes.seen (n text);
CREATE FUNCTION changes.reducer(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$ SELECT state || '{"by": "first"}' $$;
CREATE FUNCTION changes.upcaster(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT payload || '{"lifted": 1}' $$;
CREATE FUNCTION changes.handler(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO changes.seen VALUES ('first') $$;
CREATE FUNCTION changes.decider(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{"type": "e", "payload": {"decided": 1}}'::jsonb $$;
SELECT cqrs_es.create_aggregate('changes') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('changes', 'e', 'changes.reducer(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT cqrs_es.create_projection('changes', read_models => '{changes.seen}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('changes', 'e', 'changes.handler(cqrs_es.event)') IS NULL AS x \gset
SELECT cqrs_es.define_command('changes', 'c', 'changes.decider(jsonb, jsonb)'::regprocedure) IS NULL AS x \gset

-- How often a registry has been read in this transaction.
CREATE FUNCTION pg_temp.reads(registry regclass) RETURNS bigint LANGUAGE sql AS $$
	SELECT pg_stat_get_xact_numscans(registry) + coalesce((SELECT sum(pg_stat_get_xact_numscans(indexrelid)) FROM pg_index WHERE indrelid = registry), 0) $$;
CREATE FUNCTION pg_temp.all_reads() RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(pg_temp.reads(r)) FROM unnest('{cqrs_es.aggregates,cqrs_es.reducers,cqrs_es.upcasters,cqrs_es.projections,cqrs_es.handlers,cqrs_es.commands}'::regclass[]) AS r $$;
-- all that looks at declarations; how many reads of registries that took
CREATE FUNCTION pg_temp.work() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before bigint := pg_temp.all_reads();
BEGIN
	PERFORM cqrs_es.append_event('changes', 'a', 'e', '{}');
	PERFORM cqrs_es.aggregate_state('changes', 'a');
	PERFORM count(*) FROM cqrs_es.execute_command('changes', 'a', 'c', '{}');
	RETURN pg_temp.all_reads() - before;
END $$;

SELECT cmp_ok(pg_temp.work(), '>', 0::bigint, 'at first the registries are read');
SELECT is(pg_temp.work(), 0::bigint, 'and then no more');
CREATE FUNCTION pg_temp.unrelated() RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT is(pg_temp.work(), 0::bigint, 'nor when a temporary function is created');
CREATE FUNCTION changes.unrelated() RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT is(pg_temp.work(), 0::bigint, 'or any other');
CREATE OR REPLACE FUNCTION changes.unrelated() RETURNS int LANGUAGE sql AS 'SELECT 2';
ALTER FUNCTION changes.unrelated() RENAME TO unrelated_still;
DROP FUNCTION changes.unrelated_still();
SELECT is(pg_temp.work(), 0::bigint, 'is replaced, renamed, dropped');

-- what counts

CREATE OR REPLACE FUNCTION changes.reducer(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$ SELECT state || '{"by": "second"}' $$;
SELECT cmp_ok(pg_temp.work(), '>', 0::bigint, 'a reducer that is replaced makes them be read');
SELECT is(cqrs_es.aggregate_state('changes', 'a') ->> 'by', 'second', 'and counts at once');
SELECT is(pg_temp.work(), 0::bigint, 'once');
SAVEPOINT s;
CREATE OR REPLACE FUNCTION changes.reducer(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$ SELECT state || '{"by": "third"}' $$;
SELECT is(cqrs_es.aggregate_state('changes', 'a') ->> 'by', 'third', 'replaced in a subtransaction');
ROLLBACK TO s;
SELECT is(cqrs_es.aggregate_state('changes', 'a') ->> 'by', 'second', 'that is rolled back');
CREATE OR REPLACE FUNCTION changes.handler(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO changes.seen VALUES ('second') $$;
CREATE OR REPLACE FUNCTION changes.decider(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{"type": "f", "payload": {"decided": 2}}'::jsonb $$;
SELECT pg_temp.work() IS NULL AS x \gset
SELECT is((SELECT payload FROM cqrs_es.read_stream('changes', 'a', backward => true, max_count => 1)), '{"decided": 2}', 'a decider that is replaced counts');
SELECT is((SELECT n FROM changes.seen ORDER BY ctid DESC LIMIT 1), 'second', 'and a handler');

-- a function that is not there may be any that comes

SELECT cqrs_es.define_upcaster('e', '1', '2', 'changes.upcaster(jsonb)') IS NULL AS x \gset
SELECT pg_temp.work() IS NULL AS x \gset
SELECT is(pg_temp.work(), 0::bigint, 'an upcaster is read once');
SELECT is((SELECT payload FROM cqrs_es.read_stream('changes', 'a', max_count => 1)), '{"lifted": 1}', 'and works');
CREATE FUNCTION pg_temp.unrelated_again() RETURNS int LANGUAGE sql AS 'SELECT 1';
SELECT is(pg_temp.work(), 0::bigint, 'and a temporary function does not matter to it');
UPDATE cqrs_es.upcasters SET function = 'changes.upcaster_to_come(jsonb)';
SELECT is(pg_temp.state_of($$SELECT count(*) FROM cqrs_es.read_stream('changes', 'a')$$), '42883', 'one that is missing is an error');
CREATE FUNCTION changes.upcaster_to_come(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT payload || '{"lifted": 2}' $$;
SELECT is((SELECT payload FROM cqrs_es.read_stream('changes', 'a', max_count => 1)), '{"lifted": 2}', 'until it is created');

UPDATE cqrs_es.upcasters SET function = 'changes_moved.upcaster(jsonb)';
SELECT is(pg_temp.state_of($$SELECT count(*) FROM cqrs_es.read_stream('changes', 'a')$$), '42883', 'one whose schema is missing');
CREATE SCHEMA changes_elsewhere;
CREATE FUNCTION changes_elsewhere.upcaster(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT payload || '{"lifted": 3}' $$;
SELECT pg_temp.state_of($$SELECT count(*) FROM cqrs_es.read_stream('changes', 'a')$$) IS NULL AS x \gset
ALTER SCHEMA changes_elsewhere RENAME TO changes_moved;
SELECT is((SELECT payload FROM cqrs_es.read_stream('changes', 'a', max_count => 1)), '{"lifted": 3}', 'until that has the name');
UPDATE cqrs_es.upcasters SET function = 'changes.upcaster(jsonb)';

-- a body in standard SQL names functions, by which its fingerprint goes

CREATE FUNCTION changes.callee() RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT '{"called": 1}'::jsonb $$;
CREATE FUNCTION changes.standard(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql RETURN state || changes.callee();
SELECT cqrs_es.define_reducer('changes', 'e', 'changes.standard(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT cqrs_es.append_event('changes', 'b', 'e', '{}') IS NULL AS x \gset
SELECT cqrs_es.take_snapshot('changes', 'b') IS NULL AS x \gset
SELECT fingerprint AS before FROM cqrs_es.snapshots WHERE aggregate_id = 'b' \gset
ALTER FUNCTION changes.callee() RENAME TO callee_renamed;
SELECT cqrs_es.append_event('changes', 'b', 'e', '{}') IS NULL AS x \gset
SELECT cqrs_es.take_snapshot('changes', 'b') IS NULL AS x \gset
SELECT isnt((SELECT fingerprint FROM cqrs_es.snapshots WHERE aggregate_id = 'b' ORDER BY last_sequence DESC LIMIT 1)::text, :'before', 'a renamed function in a body counts');
SELECT is(cqrs_es.aggregate_state('changes', 'b'), '{"called": 1}', 'and the state is right');

-- roles

CREATE ROLE cqrs_es_changes;

-- what changes in the middle of a fold makes a mixture of it, which is not kept

CREATE FUNCTION changes.counts(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RETURN jsonb_build_object('n', coalesce(state->>'n', '0')::int + 1); END $$;
CREATE FUNCTION changes.changes(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('test.changes', true) = 'on' THEN
		EXECUTE format('CREATE OR REPLACE FUNCTION changes.counts(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS %L',
			format('BEGIN RETURN jsonb_build_object(''n'', coalesce(state->>''n'', ''0'')::int + %s); END', event.payload->>'by'));
	END IF;
	RETURN state;
END $$;
SELECT cqrs_es.create_aggregate('mixed', snapshot_every => 0) IS NULL AS x, cqrs_es.define_reducer('mixed', 'counted', 'changes.counts') IS NULL AS y,
	cqrs_es.define_reducer('mixed', 'changed', 'changes.changes') IS NULL AS z,
	cqrs_es.append_events('mixed', 'a', '[{"type": "counted", "payload": {}}, {"type": "changed", "payload": {"by": 10}}, {"type": "counted", "payload": {}}]') IS NULL AS u \gset
SET LOCAL test.changes = on;
SELECT cqrs_es.take_snapshot('mixed', 'a') IS NULL AS x \gset
SELECT is_empty($$SELECT FROM cqrs_es.snapshots WHERE aggregate_type = 'mixed'$$, 'a mixture is none, by hand');
SET LOCAL test.changes = off;
SELECT cqrs_es.alter_aggregate('mixed', snapshot_every => 2) IS NULL AS x, cqrs_es.append_event('mixed', 'a', 'counted', '{}') IS NULL AS y \gset
SELECT is((SELECT payload ->> 'n' FROM cqrs_es.snapshots WHERE aggregate_type = 'mixed'), '30', 'nothing changes in this one');
SET LOCAL test.changes = on;
SELECT cqrs_es.append_events('mixed', 'a', '[{"type": "changed", "payload": {"by": 100}}, {"type": "counted", "payload": {}}]') IS NULL AS y \gset
SELECT is((SELECT max(last_sequence) FROM cqrs_es.snapshots WHERE aggregate_type = 'mixed'), 4::bigint, 'nor when it falls due');
SET LOCAL test.changes = off;
SELECT is(cqrs_es.aggregate_state('mixed', 'a') ->> 'n', '400', 'the state is what the functions are now');

SELECT cmp_ok(pg_temp.work(), '>', 0::bigint, 'a change of roles counts');
ROLLBACK;
