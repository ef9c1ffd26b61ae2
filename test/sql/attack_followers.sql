\i test/include/setup.sql
-- What follows from an event that a handler appends is for the account of the handler's definer: upcasters and reducers of
-- that event run with the definer's rights, not with those of whoever appended the first event, who knows nothing of it.

SELECT plan(26);
CREATE ROLE cqrs_es_mallory;
CREATE ROLE cqrs_es_victim;
CREATE ROLE cqrs_es_writer;
CREATE SCHEMA cqrs_es_attack;
GRANT USAGE ON SCHEMA cqrs_es_attack TO PUBLIC;
GRANT CREATE ON SCHEMA cqrs_es_attack TO cqrs_es_mallory, cqrs_es_victim;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_mallory, cqrs_es_victim, cqrs_es_writer;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_mallory, cqrs_es_victim, cqrs_es_writer;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler TO cqrs_es_mallory, cqrs_es_victim;
SET search_path = cqrs_es_attack, public;

-- Who runs this? It grasps at more, and at the session's settings.
CREATE FUNCTION cqrs_es_attack.who() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_catalog.set_config('search_path', 'pg_catalog', false);
	BEGIN
		ALTER ROLE cqrs_es_mallory SUPERUSER;
	EXCEPTION WHEN insufficient_privilege THEN
		RETURN current_user;
	END;
	RETURN current_user || ', who made one';
END $$;
CREATE FUNCTION cqrs_es_attack.lift(payload jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT payload || pg_catalog.jsonb_build_object('lifted_by', cqrs_es_attack.who())$$;
CREATE FUNCTION cqrs_es_attack.reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT pg_catalog.jsonb_build_object('folded_by', cqrs_es_attack.who(), 'lifted_by', event.payload->'lifted_by')$$;
ALTER FUNCTION cqrs_es_attack.who() OWNER TO cqrs_es_mallory;
ALTER FUNCTION cqrs_es_attack.lift(jsonb) OWNER TO cqrs_es_mallory;
ALTER FUNCTION cqrs_es_attack.reduce(jsonb, cqrs_es.event) OWNER TO cqrs_es_mallory;

-- Nobody but mallory appends to "evil"; others have read tables of it.
CREATE TABLE cqrs_es_attack.seen (id text, lifted_by text, handled_by text);
CREATE TABLE cqrs_es_attack.states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
SELECT cqrs_es.create_aggregate('evil', snapshot_every => 1) IS NULL AS x,
	cqrs_es.define_reducer('evil', 'done', 'cqrs_es_attack.reduce(jsonb, cqrs_es.event)') IS NULL AS x,
	cqrs_es.define_upcaster('done', '1.0', '2.0', 'cqrs_es_attack.lift(jsonb)') IS NULL AS x,
	cqrs_es.create_projection('seen', '{evil}', '{seen}') IS NULL AS x,
	cqrs_es.define_handler('seen', 'done', $$INSERT INTO seen VALUES (event.aggregate_id, event.payload->>'lifted_by', current_user)$$) IS NULL AS x,
	cqrs_es.create_projection('states', state_of => 'evil', read_models => '{states}') IS NULL AS x,
	cqrs_es.create_aggregate('innocent') IS NULL AS x,
	cqrs_es.define_command('innocent', 'Do', $$'{"type": "done here"}'::jsonb$$) IS NULL AS x \gset
SET ROLE cqrs_es_mallory;
CREATE FUNCTION cqrs_es_attack.follow(event cqrs_es.event) RETURNS void LANGUAGE sql AS
	$$SELECT cqrs_es.append_event('evil', event.aggregate_id, 'done', '{}', event_version => '1.0')$$;
CREATE TABLE cqrs_es_attack.its_own (id text);
SELECT cqrs_es.create_projection('mallory', '{innocent}', '{its_own}') IS NULL AS x,
	cqrs_es.define_handler('mallory', '*', 'cqrs_es_attack.follow(cqrs_es.event)') IS NULL AS x \gset
RESET ROLE;
-- all who took part, but for who appended first
CREATE FUNCTION cqrs_es_attack.traces(id text) RETURNS text LANGUAGE sql SET search_path = cqrs_es_attack, public AS $$
	SELECT concat_ws('; ', (SELECT string_agg(format('row lifted by %s', s.lifted_by), ', ') FROM seen AS s WHERE s.id = traces.id),
		(SELECT format('state folded by %s, lifted by %s', payload->>'folded_by', payload->>'lifted_by') FROM states WHERE view_id = traces.id),
		(SELECT format('snapshot folded by %s, lifted by %s', payload->>'folded_by', payload->>'lifted_by') FROM cqrs_es.snapshots WHERE aggregate_type = 'evil' AND aggregate_id = traces.id))
$$;
CREATE FUNCTION cqrs_es_attack.superusers() RETURNS text LANGUAGE sql AS $$SELECT coalesce(string_agg(rolname, ', '), 'none') FROM pg_catalog.pg_roles WHERE rolsuper AND rolname LIKE 'cqrs\_es\_%'$$;
\set by_mallory 'row lifted by cqrs_es_mallory; state folded by cqrs_es_mallory, lifted by cqrs_es_mallory; snapshot folded by cqrs_es_mallory, lifted by cqrs_es_mallory'

SELECT cqrs_es.append_event('innocent', 'function', 'happened', '{}') IS NULL AS x \gset
SELECT is(traces('function'), :'by_mallory', 'a superuser calls append_event');
SELECT is(superusers(), 'none', 'and lends nobody any rights');
SELECT is(current_setting('search_path'), 'cqrs_es_attack, public', 'nor the search_path');
SELECT is(current_user::text, session_user::text, 'the caller is itself again');
SELECT cqrs_es.append_event_arrays('innocent', 'arrays', '{happened,happened}', '{"{}","{}"}') IS NULL AS x \gset
SELECT is((SELECT count(*) FROM seen WHERE id = 'arrays' AND lifted_by = 'cqrs_es_mallory'), 2::bigint, 'several events');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('innocent', 'insert', 'happened', '{}');
SELECT is(traces('insert'), :'by_mallory', 'a plain INSERT');
COPY cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) FROM STDIN;
innocent	copy	happened	{}
\.
SELECT is(traces('copy'), :'by_mallory', 'COPY');
SELECT version AS x FROM cqrs_es.execute_command('innocent', 'command', 'Do') \gset
SELECT is(traces('command'), :'by_mallory', 'a command');
SET ROLE cqrs_es_writer;
SELECT cqrs_es.append_event('innocent', 'writer', 'happened', '{}') IS NULL AS x \gset
RESET ROLE;
SELECT is(traces('writer'), :'by_mallory', 'an ordinary writer');
SELECT cqrs_es.append_event('evil', 'itself', 'done', '{}', event_version => '1.0') IS NULL AS x \gset
SELECT current_setting('search_path') AS left_behind \gset
SET search_path = cqrs_es_attack, public;
SELECT is(:'left_behind'::text, 'pg_catalog', 'what reducers set they leave, as any function that one calls; and not what we set for them');
SELECT is(superusers(), 'cqrs_es_mallory', 'who appends that event itself is another matter: do not do so as a superuser');
ALTER ROLE cqrs_es_mallory NOSUPERUSER;

-- the next link of the chain has rights of its own
SET ROLE cqrs_es_victim;
CREATE FUNCTION cqrs_es_attack.go_on(event cqrs_es.event) RETURNS void LANGUAGE sql AS
	$$SELECT cqrs_es.append_event('evil', event.aggregate_id || ' on', 'done', '{}', event_version => '1.0') WHERE event.aggregate_id NOT LIKE '% on'$$;
CREATE TABLE cqrs_es_attack.of_victim (id text PRIMARY KEY);
SELECT cqrs_es.create_projection('victim', '{evil}', '{of_victim}') IS NULL AS x,
	cqrs_es.define_handler('victim', 'done', 'cqrs_es_attack.go_on(cqrs_es.event)') IS NULL AS x \gset
RESET ROLE;
SELECT cqrs_es.append_event('innocent', 'chain', 'happened', '{}') IS NULL AS x \gset
SELECT is(traces('chain'), :'by_mallory', 'of a chain, the first link');
SELECT is(traces('chain on'), replace(:'by_mallory', 'cqrs_es_mallory', 'cqrs_es_victim'), 'and the second');

-- a handler of somebody else on that event runs as its definer
SELECT is((SELECT DISTINCT handled_by FROM seen), current_user::text, 'handlers are those of their definers, as ever');

-- where the definer has more rights than who appends, nobody gains those either
CREATE FUNCTION cqrs_es_attack.of_superuser(event cqrs_es.event) RETURNS void LANGUAGE sql AS
	$$SELECT cqrs_es.append_event('evil', event.aggregate_id || ' by superuser', 'done', '{}', event_version => '1.0')$$;
SELECT cqrs_es.create_projection('superuser', '{innocent}') IS NULL AS x,
	cqrs_es.define_handler('superuser', 'raised', 'cqrs_es_attack.of_superuser(cqrs_es.event)') IS NULL AS x \gset
SET ROLE cqrs_es_writer;
SELECT cqrs_es.append_event('innocent', 'more', 'raised', '{}') IS NULL AS x \gset
RESET ROLE;
SET search_path = cqrs_es_attack, public;
SELECT is(traces('more by superuser'), replace(:'by_mallory', 'cqrs_es_mallory', 'cqrs_es_writer'), 'what a superuser''s handler appends when a writer appends: as the writer');
SELECT is(superusers(), 'none', 'and lends nobody the rights of that definer');
SELECT cqrs_es.drop_projection('superuser') IS NULL AS x \gset

-- errors of these handlers are for who appended first, who has not the rights
INSERT INTO of_victim VALUES ('the secret');
SET ROLE cqrs_es_victim;
SELECT cqrs_es.define_handler('victim', 'done', 'INSERT INTO cqrs_es_attack.of_victim SELECT id FROM cqrs_es_attack.of_victim') IS NULL AS x \gset
RESET ROLE;
GRANT cqrs_es_victim TO cqrs_es_mallory;
CREATE FUNCTION pg_temp.error_by(role text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	context text;
BEGIN
	PERFORM set_config('role', role, true);
	PERFORM cqrs_es.append_event('innocent', 'error', 'happened', '{}');
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, context = PG_EXCEPTION_CONTEXT;
	RETURN concat_ws('; ', SQLSTATE, SQLERRM, nullif(replace(detail, E'\n', ' | '), ''), CASE WHEN context ~ 'INSERT INTO cqrs_es_attack' THEN 'the statement' END);
END $$;
SELECT is(pg_temp.error_by('cqrs_es_writer'), 'QE201; projection "victim" failed on event 1 (done) of stream "evil/error"; duplicate key value violates unique constraint "of_victim_pkey" (SQLSTATE 23505)',
	'an error shows the first writer no row, though mallory might see it');
SELECT is(pg_temp.error_by('none'), 'QE201; projection "victim" failed on event 1 (done) of stream "evil/error"; duplicate key value violates unique constraint "of_victim_pkey" (SQLSTATE 23505) | Key (id)=(the secret) already exists.; the statement',
	'a superuser sees all');
REVOKE cqrs_es_victim FROM cqrs_es_mallory;
SELECT cqrs_es.drop_projection('victim') IS NULL AS x \gset
CREATE OR REPLACE FUNCTION cqrs_es_attack.lift(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO cqrs_es_attack.its_own SELECT id FROM cqrs_es_attack.its_own;
	RETURN payload;
END $$;
INSERT INTO cqrs_es_attack.its_own VALUES ('the secret');
CREATE UNIQUE INDEX its_own_key ON cqrs_es_attack.its_own (id);
SELECT is(pg_temp.error_by('cqrs_es_writer'), '23505; duplicate key value violates unique constraint "its_own_key"', 'nor does that of an upcaster, with which it runs');
SELECT is(pg_temp.error_by('none'), '23505; duplicate key value violates unique constraint "its_own_key"; Key (id)=(the secret) already exists.; the statement', 'a superuser sees that');
DROP INDEX cqrs_es_attack.its_own_key;
CREATE OR REPLACE FUNCTION cqrs_es_attack.lift(payload jsonb) RETURNS jsonb LANGUAGE sql AS
	$$SELECT payload || pg_catalog.jsonb_build_object('lifted_by', cqrs_es_attack.who())$$;
SELECT is(current_user::text, session_user::text, 'an error leaves the caller itself');

-- a promotion, which catches up
CREATE TABLE cqrs_es_attack.newer (id text);
ALTER TABLE cqrs_es_attack.newer OWNER TO cqrs_es_mallory;
SELECT cqrs_es.drop_projection('mallory') IS NULL AS x \gset
SET ROLE cqrs_es_mallory;
SELECT cqrs_es.create_projection('older', '{innocent}', '{its_own}') IS NULL AS x,
	cqrs_es.create_projection('newer', '{innocent}', '{newer}', backfill => true) IS NULL AS x,
	cqrs_es.define_handler('newer', 'promoted', 'cqrs_es_attack.follow(cqrs_es.event)') IS NULL AS x \gset
RESET ROLE;
SELECT cqrs_es.append_event('innocent', 'promotion', 'promoted', '{}') IS NULL AS x \gset
SELECT cqrs_es.promote_projection('newer', 'older') IS NULL AS x \gset
SELECT is(traces('promotion'), :'by_mallory', 'a superuser promotes');

-- a resume of somebody else's projection
SELECT cqrs_es.pause_projection('newer') IS NULL AS x \gset
SELECT cqrs_es.append_event('innocent', 'resume', 'promoted', '{}') IS NULL AS x \gset
SELECT is(cqrs_es.resume_projection('newer'), 1::bigint, 'a superuser resumes');
SELECT is(traces('resume'), :'by_mallory', 'with the same outcome');
SELECT is(superusers(), 'none', 'nobody has become a superuser');
SELECT is((SELECT count(*) FROM seen WHERE lifted_by NOT IN ('cqrs_es_mallory', 'cqrs_es_victim') AND id NOT IN ('itself', 'more by superuser')), 0::bigint, 'and nothing ran as anybody else');

SELECT * FROM finish();
SELECT count(cqrs_es.drop_projection(p)) AS x FROM unnest('{older,newer,seen,states}'::text[]) AS p \gset
SELECT cqrs_es.drop_command('innocent', 'Do') IS NULL AS x, cqrs_es.drop_reducer('evil', 'done') IS NULL AS y, cqrs_es.drop_upcaster('done', '1.0') IS NULL AS z \gset
SELECT cqrs_es.drop_aggregate('evil', force => true) IS NULL AS x, cqrs_es.drop_aggregate('innocent', force => true) IS NULL AS y \gset
DROP SCHEMA cqrs_es_attack CASCADE;
DROP OWNED BY cqrs_es_mallory, cqrs_es_victim, cqrs_es_writer;
DROP ROLE cqrs_es_mallory, cqrs_es_victim, cqrs_es_writer;
