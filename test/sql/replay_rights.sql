\i test/include/setup.sql
-- A replay runs upcasters and reducers as the projection's owner: whoever rebuilds, resumes or retries, a superuser
-- most of all, lends nobody their rights.

SELECT plan(36);
CREATE ROLE cqrs_es_owner;
CREATE ROLE cqrs_es_operator;
CREATE SCHEMA rr;
GRANT USAGE, CREATE ON SCHEMA rr TO cqrs_es_owner, cqrs_es_operator;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_owner, cqrs_es_operator;
GRANT SELECT ON cqrs_es.events TO cqrs_es_owner, cqrs_es_operator;
GRANT INSERT ON cqrs_es.events TO cqrs_es_owner;
GRANT cqrs_es_owner TO cqrs_es_operator;
GRANT EXECUTE ON FUNCTION cqrs_es.resume_projection, cqrs_es.pause_projection, cqrs_es.rebuild_projection, cqrs_es.projection_errors TO cqrs_es_operator;
SET search_path = rr, public;

-- Who runs this, and what comes of grasping at more?
CREATE FUNCTION rr.who() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	ALTER ROLE cqrs_es_owner SUPERUSER;
	RETURN current_user || ', who made one';
EXCEPTION WHEN insufficient_privilege THEN
	RETURN current_user;
END $$;
CREATE SEQUENCE rr.failures;
CREATE FUNCTION rr.lift(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF payload ? 'fails' AND pg_catalog.to_regclass('rr.mended') IS NULL THEN RAISE 'not yet'; END IF;
	RETURN payload || jsonb_build_object('lifted_by', rr.who());
END $$;
CREATE FUNCTION rr.reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_build_object('folded_by', rr.who(), 'lifted_by', event.payload->'lifted_by')$$;
CREATE TABLE rr.rows (id text, lifted_by text);
CREATE TABLE rr.states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
CREATE TABLE rr.others (LIKE rr.states INCLUDING ALL);
ALTER TABLE rr.rows OWNER TO cqrs_es_owner;
ALTER TABLE rr.states OWNER TO cqrs_es_owner;
ALTER TABLE rr.others OWNER TO cqrs_es_owner;
SELECT cqrs_es.define_upcaster('made', '1.0', '2.0', 'rr.lift(jsonb)') IS NULL AS x,
	cqrs_es.create_aggregate('rr', '{}', snapshot_every => 0) IS NULL AS x,
	cqrs_es.define_reducer('rr', 'made', 'rr.reduce(jsonb, cqrs_es.event)') IS NULL AS x,
	cqrs_es.create_aggregate('rr more', '{}', snapshot_every => 1) IS NULL AS x,
	cqrs_es.define_reducer('rr more', 'made', 'rr.reduce(jsonb, cqrs_es.event)') IS NULL AS x \gset
-- as the owner: projections that follow nothing yet
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler TO cqrs_es_owner;
SET ROLE cqrs_es_owner;
SELECT cqrs_es.create_projection('rows', '{rr}', '{rows}', backfill => true) IS NULL AS x,
	cqrs_es.define_handler('rows', 'made', $$INSERT INTO rows VALUES (event.aggregate_id, event.payload->>'lifted_by')$$) IS NULL AS x,
	cqrs_es.create_projection('states', state_of => 'rr', read_models => '{states}', backfill => true) IS NULL AS x \gset
RESET ROLE;
SELECT version FROM cqrs_es.append_event('rr', 'a', 'made', '{}', event_version => '1.0') \gset
CREATE FUNCTION rr.seen() RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws('; ', (SELECT string_agg(DISTINCT 'row lifted by ' || lifted_by, ', ') FROM rr.rows),
		(SELECT string_agg(DISTINCT format('state folded by %s, lifted by %s', payload->>'folded_by', payload->>'lifted_by'), ', ') FROM rr.states))
$$;
CREATE FUNCTION rr.superusers() RETURNS bigint LANGUAGE sql AS $$SELECT count(*) FROM pg_roles WHERE rolname LIKE 'cqrs\_es\_o%' AND rolsuper$$;
\set as_owner 'row lifted by cqrs_es_owner; state folded by cqrs_es_owner, lifted by cqrs_es_owner'

SELECT is(cqrs_es.resume_projection('rows') + cqrs_es.resume_projection('states'), 2::bigint, 'a superuser resumes');
SELECT is(rr.seen(), :'as_owner', 'it runs as the owner');
SELECT is(cqrs_es.rebuild_projection('rows') + cqrs_es.rebuild_projection('states'), 2::bigint, 'a superuser rebuilds');
SELECT is(rr.seen(), :'as_owner', 'it runs as the owner');
SELECT is(cqrs_es.rebuild_projection('rows', on_error => 'skip') + cqrs_es.rebuild_projection('states', on_error => 'skip'), 2::bigint, 'and skips');
SELECT is(rr.seen(), :'as_owner', 'it runs as the owner');
CALL cqrs_es.rebuild_in_portions('rows', 1);
CALL cqrs_es.rebuild_in_portions('states', 1);
SELECT is(rr.seen(), :'as_owner', 'a rebuild in portions does');
SELECT bool_and(cqrs_es.pause_projection(p) IS NULL) AS x FROM unnest('{rows,states}'::text[]) AS p \gset
TRUNCATE rr.rows, rr.states;
SELECT version FROM cqrs_es.append_event('rr', 'b', 'made', '{}', event_version => '1.0') \gset
CALL cqrs_es.resume_in_portions('rows', 1);
CALL cqrs_es.resume_in_portions('states', 1);
SELECT is(rr.seen(), :'as_owner', 'a resume in portions does');
SELECT bool_and(cqrs_es.pause_projection(p) IS NULL) AS x FROM unnest('{rows,states}'::text[]) AS p \gset
TRUNCATE rr.rows, rr.states;
SELECT version FROM cqrs_es.append_event('rr', 'c', 'made', '{"fails": true}', event_version => '1.0') \gset
SELECT is(cqrs_es.resume_projection('rows', 'skip') + cqrs_es.resume_projection('states', 'skip'), 0::bigint, 'an event is skipped');
CREATE TABLE rr.mended ();
SELECT is((SELECT handled FROM cqrs_es.retry_skipped('rows')) + (SELECT handled FROM cqrs_es.retry_skipped('states')), 2::bigint, 'and handled later');
SELECT is(rr.seen(), :'as_owner', 'as the owner');
SELECT is(rr.superusers(), 0::bigint, 'nobody has become a superuser');

-- who is a member of the owner
SELECT bool_and(cqrs_es.pause_projection(p) IS NULL) AS x FROM unnest('{rows,states}'::text[]) AS p \gset
SET ROLE cqrs_es_operator;
SELECT cqrs_es.rebuild_projection('rows') + cqrs_es.rebuild_projection('states') AS x,
	cqrs_es.resume_projection('rows') + cqrs_es.resume_projection('states') AS y \gset
RESET ROLE;
SELECT is(rr.seen(), :'as_owner', 'a member of the owner does it as the owner, too');

-- an append is what it was: as whoever appends
DELETE FROM rr.rows;
ALTER FUNCTION rr.who() RENAME TO graspers;
CREATE FUNCTION rr.who() RETURNS text LANGUAGE sql AS 'SELECT current_user::text';
SELECT version FROM cqrs_es.append_event('rr', 'd', 'made', '{}', event_version => '1.0') \gset
SELECT is((SELECT lifted_by FROM rr.rows), current_user::text, 'an append lifts as whoever appends');
SELECT is((SELECT payload->>'folded_by' FROM rr.states WHERE view_id = 'd'), current_user::text, 'and folds so');
DROP FUNCTION rr.who();
SELECT cqrs_es.pause_projection('states') IS NULL AS x \gset
ALTER FUNCTION rr.graspers() RENAME TO who;

-- what handlers append in a resume
SET ROLE cqrs_es_owner;
SELECT cqrs_es.create_projection('others', state_of => 'rr more', read_models => '{others}') IS NULL AS x \gset
CREATE FUNCTION rr.follow(event cqrs_es.event) RETURNS void LANGUAGE sql AS
	$$SELECT cqrs_es.append_event('rr more', event.aggregate_id, 'made', '{}', event_version => '1.0')$$;
SELECT cqrs_es.define_handler('rows', 'made', 'rr.follow(cqrs_es.event)') IS NULL AS x \gset
RESET ROLE;
SELECT cqrs_es.pause_projection('rows') IS NULL AS x \gset
SELECT version FROM cqrs_es.append_event('rr', 'e', 'made', '{}', event_version => '1.0') \gset
SELECT is(cqrs_es.resume_projection('rows'), 1::bigint, 'a handler appends in a resume');
SELECT is((SELECT string_agg(format('%s, %s', payload->>'folded_by', payload->>'lifted_by'), '; ') FROM rr.others), 'cqrs_es_owner, cqrs_es_owner', 'other projections fold that as the owner of the resumed one');
SELECT is((SELECT string_agg(format('%s, %s', payload->>'folded_by', payload->>'lifted_by'), '; ') FROM cqrs_es.snapshots WHERE aggregate_type = 'rr more'),
	'cqrs_es_owner, cqrs_es_owner', 'so do snapshots');
SELECT cqrs_es.pause_projection('rows') IS NULL AS x \gset
SELECT version FROM cqrs_es.append_event('rr', 'f', 'made', '{}', event_version => '1.0') \gset
CALL cqrs_es.resume_in_portions('rows', 1);
SELECT is((SELECT string_agg(format('%s, %s', payload->>'folded_by', payload->>'lifted_by'), '; ') FROM rr.others WHERE view_id = 'f'), 'cqrs_es_owner, cqrs_es_owner', 'in portions, too');
DROP TABLE rr.mended;
SELECT cqrs_es.pause_projection('rows') IS NULL AS x \gset
SELECT version FROM cqrs_es.append_event('rr', 'g', 'made', '{"fails": 1}', event_version => '1.0') \gset
SELECT cqrs_es.resume_projection('rows', 'skip') AS x \gset
CREATE TABLE rr.mended ();
SELECT handled AS x FROM cqrs_es.retry_skipped('rows') \gset
SELECT is((SELECT string_agg(format('%s, %s', payload->>'folded_by', payload->>'lifted_by'), '; ') FROM rr.others WHERE view_id = 'g'), 'cqrs_es_owner, cqrs_es_owner', 'and when skipped ones are retried');
SELECT is(rr.superusers(), 0::bigint, 'nobody has become a superuser');

-- an owner who may not call them
SELECT cqrs_es.drop_projection('others') IS NULL AS x, cqrs_es.define_handler('rows', 'made', $$INSERT INTO rows VALUES (event.aggregate_id, event.payload->>'lifted_by')$$) IS NULL AS x \gset
REVOKE EXECUTE ON FUNCTION rr.lift(jsonb) FROM PUBLIC;
SELECT is(pg_temp.error_of($$SELECT cqrs_es.rebuild_projection('rows')$$), ARRAY['42501', 'permission denied for function rr.lift(pg_catalog.jsonb)', '', 'GRANT EXECUTE ON FUNCTION rr.lift(pg_catalog.jsonb) TO cqrs_es_owner.'], 'to lift events');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.rebuild_projection('states')$$), ARRAY['42501', 'permission denied for function rr.lift(pg_catalog.jsonb)', '', 'GRANT EXECUTE ON FUNCTION rr.lift(pg_catalog.jsonb) TO cqrs_es_owner.'], 'to lift and fold them');
SELECT is(cqrs_es.projection_errors('rows'), ARRAY['permission denied for function rr.lift(pg_catalog.jsonb) (SQLSTATE 42501)'], 'projection_errors says so before');
SELECT is(cqrs_es.projection_errors('states'), ARRAY['permission denied for function rr.lift(pg_catalog.jsonb) (SQLSTATE 42501)'], 'of one that keeps states, too');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.rebuild_projection('rows', 'skip')$$), '55000', 'no event is skipped for it');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.rebuild_projection('states', 'skip')$$), '55000', 'nor folded state');
GRANT EXECUTE ON FUNCTION rr.lift(jsonb) TO PUBLIC;
REVOKE EXECUTE ON FUNCTION rr.reduce(jsonb, cqrs_es.event) FROM PUBLIC;
SELECT is(pg_temp.error_of($$SELECT cqrs_es.rebuild_projection('states')$$, '{state,detail,hint}'), ARRAY['QE201', 'permission denied for function rr.reduce(pg_catalog.jsonb,cqrs_es.event) (SQLSTATE 42501)', 'GRANT EXECUTE ON FUNCTION rr.reduce(pg_catalog.jsonb,cqrs_es.event) TO cqrs_es_owner.'], 'to fold them');
SELECT is(cqrs_es.projection_errors('states'), ARRAY['permission denied for function rr.reduce(pg_catalog.jsonb,cqrs_es.event) (SQLSTATE 42501)'], 'projection_errors says so before');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.rebuild_projection('states', 'skip')$$), '55000', 'no state is skipped for it');
SELECT is(cqrs_es.projection_errors('rows'), NULL, 'a projection that folds nothing is well');
SELECT is(cqrs_es.rebuild_projection('rows'), 7::bigint, 'and rebuilt');
GRANT EXECUTE ON FUNCTION rr.reduce(jsonb, cqrs_es.event) TO PUBLIC;
SELECT is(cqrs_es.projection_errors('states'), NULL, 'with the right all is well');

-- the errors of handlers show a superuser all that there is to see, and a member what the owner may
SELECT cqrs_es.define_handler('rows', 'made', $$INSERT INTO rows VALUES (event.sequence/0, event.payload->>'lifted_by')$$) IS NULL AS x \gset
SELECT is((pg_temp.error_of($$SELECT cqrs_es.rebuild_projection('rows')$$, '{where}'))[1], 'projection "rows" handling event 1 of stream "rr/a"', 'a superuser sees where it failed');

-- settings, search_path and role of the caller are their own again
SELECT is(current_user::text, session_user::text, 'the caller is themselves');
SELECT is(current_setting('search_path'), 'rr, public', 'with their search_path');

SELECT * FROM finish();
SELECT cqrs_es.drop_projection('rows') IS NULL AS x, cqrs_es.drop_projection('states') IS NULL AS y \gset
SELECT cqrs_es.drop_reducer('rr', 'made') IS NULL AS x, cqrs_es.drop_reducer('rr more', 'made') IS NULL AS y, cqrs_es.drop_upcaster('made', '1.0') IS NULL AS z \gset
DROP SCHEMA rr CASCADE;
DROP OWNED BY cqrs_es_owner, cqrs_es_operator;
DROP ROLE cqrs_es_owner, cqrs_es_operator;
