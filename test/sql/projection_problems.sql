\i test/include/setup.sql
-- projection_errors says everything that is wrong once, whatever is missing, and for whoever asks.
BEGIN;
SELECT plan(8);
CREATE ROLE cqrs_es_owner;
CREATE ROLE cqrs_es_helper;
CREATE SCHEMA cqrs_es_problems;
GRANT USAGE, CREATE ON SCHEMA cqrs_es_problems TO cqrs_es_owner, cqrs_es_helper;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_owner, cqrs_es_helper;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_owner;
SET LOCAL search_path = cqrs_es_problems, public;
CREATE FUNCTION lift(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT payload';
CREATE TABLE rows (id text PRIMARY KEY);
ALTER TABLE rows OWNER TO cqrs_es_owner;
SELECT cqrs_es.create_projection('problems', '{problems}', '{rows}') IS NULL AS x, cqrs_es.alter_projection('problems', owner => 'cqrs_es_owner') IS NULL AS x,
	cqrs_es.define_handler('problems', 'a', 'INSERT INTO rows VALUES (event.aggregate_id) ON CONFLICT DO NOTHING') IS NULL AS x,
	cqrs_es.define_handler('problems', 'b', 'INSERT INTO rows VALUES (event.aggregate_id) ON CONFLICT DO NOTHING') IS NULL AS x \gset
SELECT is(cqrs_es.projection_errors('problems'), NULL, 'nothing is wrong');
SELECT is(cqrs_es.projection_errors('no such projection'), NULL, 'nor with one that is not there');

-- the same for several handlers
SELECT cqrs_es.define_upcaster('a', '1', '2', 'lift(jsonb)') IS NULL AS x, cqrs_es.define_upcaster('b', '1', '2', 'lift(jsonb)') IS NULL AS x \gset
REVOKE EXECUTE ON FUNCTION lift(jsonb) FROM PUBLIC;
SELECT is(cqrs_es.projection_errors('problems'), ARRAY['permission denied for function cqrs_es_problems.lift(pg_catalog.jsonb) (SQLSTATE 42501)'], 'what is wrong with two handlers alike is said once');
GRANT EXECUTE ON FUNCTION lift(jsonb) TO cqrs_es_owner;
SELECT is(cqrs_es.projection_errors('problems'), NULL, 'put right');

-- an owner who is gone, of whom a copy of the registries may know nothing
SAVEPOINT whole;
UPDATE cqrs_es.projections SET owner = 4294967290, owner_name = 'left long ago' WHERE name = 'problems';
SELECT is(cqrs_es.projection_errors('problems'), ARRAY['role "left long ago", which owns the projection, does not exist (SQLSTATE 42704)'], 'who is gone is one problem, not one for each handler');
ROLLBACK TO whole;

-- whoever rebuilds what others wrote lends them no rights, whoever owns it
GRANT cqrs_es_helper TO cqrs_es_owner;
SELECT cqrs_es.append_event('problems', 'x', 'a', '{}') IS NULL AS x \gset
ALTER TABLE rows ADD COLUMN who text;
GRANT INSERT, SELECT ON rows TO cqrs_es_helper;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE cqrs_es_problems.rows SET who = concat_ws(', ', who, current_user) WHERE id = new.id; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER note AFTER INSERT ON rows DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
GRANT UPDATE ON rows TO cqrs_es_helper;
UPDATE cqrs_es.handlers SET definer = 'cqrs_es_helper'::regrole, definer_name = 'cqrs_es_helper' WHERE projection = 'problems' AND event_type = 'a';
GRANT EXECUTE ON FUNCTION cqrs_es.rebuild_projection TO cqrs_es_owner;
GRANT EXECUTE ON FUNCTION lift(jsonb) TO cqrs_es_helper;
SET LOCAL ROLE cqrs_es_owner;
SELECT is(cqrs_es.rebuild_projection('problems'), 1::bigint, 'the owner rebuilds what another role wrote');
RESET ROLE;
SELECT is((SELECT id FROM rows), 'x', 'the rows are there');
SET CONSTRAINTS ALL IMMEDIATE;
SELECT is((SELECT who FROM rows), 'cqrs_es_helper', 'deferred triggers have run as who wrote the handler');
SELECT * FROM finish();
ROLLBACK;
