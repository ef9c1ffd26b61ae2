\i test/include/setup.sql
-- A file of declarations that is run again: nothing is written, and nobody throws away
-- what was read of them.  (Each kind by itself: declarations_again.)
BEGIN;
SELECT plan(9);
SET LOCAL client_min_messages = error;
CREATE FUNCTION mt_reduce(jsonb, cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION mt_lift(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION mt_handle(cqrs_es.event) RETURNS void LANGUAGE sql AS '';
CREATE TABLE mt_balances (id text PRIMARY KEY);
CREATE TABLE mt_states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);

CREATE FUNCTION pg_temp.migrate() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.create_aggregate('mt', initial_state => '{"n": 0}', snapshot_every => 10, keep_snapshots => 2);
	PERFORM cqrs_es.create_aggregate('mt strict', strict => true);
	PERFORM cqrs_es.alter_aggregate('mt', keep_snapshots => 2);
	PERFORM cqrs_es.define_reducer('mt', 'X', '[{"op": "increment", "path": "/n", "from": "/n"}]');
	PERFORM cqrs_es.define_reducer('mt', 'Y', 'mt_reduce');
	PERFORM cqrs_es.define_upcaster('Y', '1', '2', 'mt_lift');
	PERFORM cqrs_es.define_upcaster('Y', '2', '3', 'mt_lift(jsonb)'::regprocedure);
	PERFORM cqrs_es.define_command('mt', 'Do', $c$'{"type": "X", "payload": {"n": 1}}'::jsonb$c$);
	PERFORM cqrs_es.create_projection('mt', '{mt}', '{mt_balances}');
	PERFORM cqrs_es.define_handler('mt', 'X', 'INSERT INTO mt_balances VALUES (event.aggregate_id) ON CONFLICT DO NOTHING');
	PERFORM cqrs_es.define_handler('mt', '*', 'mt_handle');
	PERFORM cqrs_es.create_projection('mt states', state_of => 'mt', read_models => '{mt_states}', backfill => true);
	PERFORM cqrs_es.resume_projection('mt states');
	PERFORM cqrs_es.create_projection('mt later', mode => 'async', per_stream => true);
	PERFORM cqrs_es.define_handler('mt later', 'X', 'INSERT INTO mt_balances VALUES (event.aggregate_id) ON CONFLICT DO NOTHING');
	PERFORM cqrs_es.alter_projection('mt', owner => session_user::regrole);
	PERFORM cqrs_es.create_subscription('mt', event_types => '{X,Y}', lease => '1 min', on_failure => 'skip');
	PERFORM cqrs_es.alter_subscription('mt', max_attempts => 10);
	PERFORM cqrs_es.drop_aggregate('mt gone', if_exists => true), cqrs_es.drop_reducer('mt', 'Gone', true), cqrs_es.drop_upcaster('Gone', '1', true),
		cqrs_es.drop_command('mt', 'Gone', true), cqrs_es.drop_projection('mt gone', true), cqrs_es.drop_handler('mt', 'Gone', true), cqrs_es.drop_subscription('mt gone', true);
END $$;
-- every row of every table of declarations, where it stands and by whom it was written
CREATE FUNCTION pg_temp.declarations() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	registry regclass;
BEGIN
	FOR registry IN SELECT tgrelid FROM pg_trigger WHERE tgname IN ('registry_changed', 'resolve_names') UNION SELECT 'cqrs_es.shares'::regclass ORDER BY 1 LOOP
		RETURN QUERY EXECUTE format('SELECT concat_ws('' '', %L, ctid, xmin, r) FROM %s AS r ORDER BY 1', registry, registry);
	END LOOP;
END $$;
CREATE FUNCTION pg_temp.thrown_away() RETURNS bigint LANGUAGE sql AS $$SELECT pg_stat_get_xact_numscans('cqrs_es.cache_counts'::regclass)$$;
CREATE FUNCTION pg_temp.use() RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', (SELECT version FROM cqrs_es.execute_command('mt', '1', 'Do')), (SELECT version FROM cqrs_es.append_event('mt', '2', 'Y', '{}', event_version => '3')))
$$;

SELECT lives_ok('SELECT pg_temp.migrate()', 'a migration');
CREATE TEMP TABLE mt_before AS SELECT * FROM pg_temp.declarations() AS row;
SELECT is(pg_temp.use(), '1 1', 'what it has declared works');
SELECT pg_temp.thrown_away() AS before \gset
SELECT lives_ok('SELECT pg_temp.migrate()', 'the same again');
SELECT set_eq('SELECT pg_temp.declarations()', 'SELECT row FROM mt_before', 'has written nothing');
SELECT is(pg_temp.use(), '2 2', 'all works as before');
SELECT is(pg_temp.thrown_away(), :'before'::bigint, 'and nothing was read again');

SELECT lives_ok($$SELECT cqrs_es.define_reducer('mt', 'X', '[{"op": "increment", "path": "/n", "from": "/n", "optional": true}]')$$, 'something else');
SELECT is((SELECT count(*) FROM pg_temp.declarations() AS row WHERE row NOT IN (SELECT row FROM mt_before)), 1::bigint, 'is written');
SELECT pg_temp.use() IS NULL AS x \gset
SELECT cmp_ok(pg_temp.thrown_away(), '>', :'before'::bigint, 'and what was read before is thrown away');
SELECT finish();
ROLLBACK;
