\i test/include/setup.sql
-- What comes of one grant too many, of roles and owners that change, and of a function that lends a role its rights.

BEGIN;
SELECT plan(38);
CREATE ROLE cqrs_es_careless;
CREATE ROLE cqrs_es_friend IN ROLE cqrs_es_careless;
CREATE ROLE cqrs_es_service;
CREATE ROLE cqrs_es_till;
CREATE ROLE cqrs_es_architect;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_careless, cqrs_es_service, cqrs_es_architect;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_service, cqrs_es_architect;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler TO cqrs_es_architect;
CREATE SCHEMA cqrs_es_grants AUTHORIZATION cqrs_es_architect;
GRANT USAGE ON SCHEMA cqrs_es_grants TO PUBLIC;
SELECT cqrs_es.create_aggregate('grants') IS NULL AS x,
	cqrs_es.define_command('grants', 'Add', $$jsonb_build_object('type', 'added', 'payload', command)$$) IS NULL AS y \gset
CREATE TABLE kept (id text, who text);
SELECT cqrs_es.create_projection('grants', '{grants}', '{kept}') IS NULL AS x,
	cqrs_es.define_handler('grants', 'e', 'INSERT INTO kept VALUES (event.aggregate_id, current_user)') IS NULL AS y,
	cqrs_es.create_subscription('grants', '{grants}') IS NULL AS z \gset

CREATE FUNCTION pg_temp.as(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.as_role(role, statement);
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;

-- Everything on the tables: declarations say with whose rights something runs, so nobody writes a role there but oneself.
GRANT ALL ON ALL TABLES IN SCHEMA cqrs_es TO cqrs_es_careless;
GRANT ALL ON ALL SEQUENCES IN SCHEMA cqrs_es TO cqrs_es_careless;
SAVEPOINT granted;
SELECT is(pg_temp.as('cqrs_es_careless', statement), outcome, 'all rights on tables: ' || statement) FROM (VALUES
	(1, $$INSERT INTO cqrs_es.handlers (projection, event_type, statement, definer, search_path) VALUES ('grants', 'mine', 'DELETE FROM public.kept', 10, 'public')$$, '42501'),
	(2, $$INSERT INTO cqrs_es.handlers (projection, event_type, statement, definer_name, search_path) SELECT 'grants', 'mine', 'DELETE FROM public.kept', rolname, 'public' FROM pg_roles WHERE oid = 10$$, '42501'),
	(3, $$UPDATE cqrs_es.handlers SET statement = 'DELETE FROM public.kept'$$, '42501'),
	(4, $$UPDATE cqrs_es.handlers SET definer = 'cqrs_es_careless'::regrole, statement = 'DELETE FROM public.kept'$$, '42501'),
	(5, $$INSERT INTO cqrs_es.commands (aggregate_type, command_type, decider, definer, search_path) VALUES ('grants', 'Mine', '''[]''::jsonb', 10, 'public')$$, '42501'),
	(6, $$UPDATE cqrs_es.commands SET decider = '''[]''::jsonb'$$, '42501'),
	(7, $$INSERT INTO cqrs_es.projections (name, owner) VALUES ('mine', 10)$$, '42501'),
	(8, $$UPDATE cqrs_es.projections SET owner = 'cqrs_es_careless'::regrole$$, '42501'),
	(9, $$UPDATE cqrs_es.projections SET read_models = '{cqrs_es.events}'$$, '42501'),
	(10, $$UPDATE cqrs_es.subscriptions SET consumer_role = 'cqrs_es_careless'::regrole$$, '42501'),
	(11, $$INSERT INTO cqrs_es.handlers (projection, event_type, statement, definer, search_path) VALUES ('grants', 'mine', 'DELETE FROM public.kept', 'cqrs_es_careless'::regrole, 'public')$$, 'done'),
	(12, $$UPDATE cqrs_es.events SET payload = '{}'$$, 'QE004'),
	(13, $$DELETE FROM cqrs_es.events$$, 'QE004'),
	(14, $$TRUNCATE cqrs_es.events$$, 'QE004'),
	(15, $$INSERT INTO cqrs_es.events (global_position, aggregate_type, aggregate_id, sequence, event_type, payload, created_at) VALUES (1, 'grants', 'old', 1, 'e', '{}', now())$$, '42501')) a (n, statement, outcome)
ORDER BY n;
SELECT is((SELECT payload FROM cqrs_es.execute_command('grants', 'still', 'Add', '{"n": 1}') AS c, LATERAL cqrs_es.read_stream('grants', 'still') AS s), '{"n": 1}', 'the command is what it was');
SELECT is(pg_temp.as('cqrs_es_friend', $$INSERT INTO cqrs_es.handlers (projection, event_type, statement, definer, search_path) VALUES ('grants', 'friend', 'DELETE FROM public.kept', 'cqrs_es_careless'::regrole, 'public')$$), 'done', 'a member writes for its role');
SELECT is(pg_temp.as('none', $$INSERT INTO cqrs_es.handlers (projection, event_type, statement, definer, search_path) VALUES ('grants', 'superuser', 'DELETE FROM public.kept', 'cqrs_es_service'::regrole, 'public')$$), 'done', 'a superuser for anybody');
ROLLBACK TO granted;
-- a row that is written runs with the rights of whoever it names, and no others
SELECT pg_temp.as('cqrs_es_careless', $$INSERT INTO cqrs_es.handlers (projection, event_type, statement, definer, search_path) VALUES ('grants', 'mine', 'DELETE FROM public.kept', 'cqrs_es_careless'::regrole, 'public')$$) AS x \gset
SELECT is(pg_temp.as('none', $$SELECT cqrs_es.append_event('grants', 'a', 'mine', '{}')$$), 'QE201', 'who may not delete there may not by a handler');
ROLLBACK TO granted;

-- The owner of the tables need not be a superuser, and declares for others as before.
SET LOCAL client_min_messages = error;
CREATE ROLE cqrs_es_keeper;
GRANT USAGE, CREATE ON SCHEMA cqrs_es TO cqrs_es_keeper;
DO $$
DECLARE
	t regclass;
BEGIN
	FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'cqrs_es'::regnamespace AND relkind = 'r' LOOP
		EXECUTE format('ALTER TABLE %s OWNER TO cqrs_es_keeper', t);
	END LOOP;
END $$;
GRANT cqrs_es_keeper TO cqrs_es_friend;
SELECT is(pg_temp.as('cqrs_es_architect', $$SELECT cqrs_es.create_projection('of architect', '{grants}')$$), 'done', 'somebody else declares');
SELECT is(pg_temp.as('cqrs_es_keeper', $$INSERT INTO cqrs_es.projections (name, owner) VALUES ('mine', 10)$$), 'done', 'the owner restores');
ROLLBACK TO granted;

-- Functions and tables that change their owner: what runs, runs as its definer.
SET LOCAL ROLE cqrs_es_architect;
CREATE TABLE cqrs_es_grants.own (id text, who text);
CREATE FUNCTION cqrs_es_grants.note(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$INSERT INTO cqrs_es_grants.own VALUES (event.aggregate_id, current_user)$$;
SELECT cqrs_es.create_projection('owned', '{owned}', '{cqrs_es_grants.own}') IS NULL AS x, cqrs_es.define_handler('owned', 'e', 'cqrs_es_grants.note(cqrs_es.event)') IS NULL AS y \gset
RESET ROLE;
CREATE FUNCTION pg_temp.ran_as() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	result text;
BEGIN
	PERFORM cqrs_es.append_event('owned', gen_random_uuid()::text, 'e', '{}');
	SELECT who INTO result FROM cqrs_es_grants.own ORDER BY ctid DESC LIMIT 1;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN coalesce(substring(detail FROM '\(SQLSTATE (.....)\)'), SQLSTATE);
END $$;
SELECT is(pg_temp.ran_as(), 'cqrs_es_architect', 'as it is declared');
SELECT throws_ok('DROP OWNED BY cqrs_es_architect', '2BP01', NULL, 'DROP OWNED does not take what is declared');
SAVEPOINT owned;
REASSIGN OWNED BY cqrs_es_architect TO cqrs_es_service;
SELECT is(pg_temp.ran_as(), '42501', 'REASSIGN OWNED: the definer has no rights on its table any more; nothing runs as the new owner');
SELECT is(pg_temp.as('cqrs_es_architect', $$CREATE OR REPLACE FUNCTION cqrs_es_grants.note(event cqrs_es.event) RETURNS void LANGUAGE sql AS ''$$), '42501', 'the old owner of the function says no more what it does');
GRANT ALL ON SCHEMA cqrs_es_grants TO cqrs_es_architect;
GRANT ALL ON cqrs_es_grants.own TO cqrs_es_architect;
SELECT is(pg_temp.ran_as(), 'cqrs_es_architect', 'with rights it runs as the definer again');
SELECT is(pg_temp.as('cqrs_es_service', $$CREATE OR REPLACE FUNCTION cqrs_es_grants.note(event cqrs_es.event) RETURNS void LANGUAGE sql AS 'INSERT INTO cqrs_es_grants.own VALUES (''replaced'', current_user)'$$), 'done', 'the new owner of the function replaces it');
SELECT is(pg_temp.ran_as(), 'cqrs_es_architect', 'and so says what runs as the definer: give functions in use to nobody else');
ROLLBACK TO owned;
REVOKE ALL ON cqrs_es_grants.own FROM cqrs_es_architect;
SELECT is(pg_temp.ran_as(), '42501', 'a right that is taken away counts at once');
ROLLBACK TO owned;
ALTER ROLE cqrs_es_architect RENAME TO cqrs_es_renamed;
SELECT is(pg_temp.ran_as(), 'cqrs_es_renamed', 'a definer that is renamed is the same');
CREATE ROLE cqrs_es_architect SUPERUSER;
SELECT is(pg_temp.ran_as(), 'cqrs_es_renamed', 'another one of the old name is not');
ROLLBACK TO owned;

-- Triggers that are disabled, and replicas: by the owner, and superusers.
SELECT is(pg_temp.as('cqrs_es_careless', statement), '42501', statement) FROM (VALUES
	('ALTER TABLE cqrs_es.events DISABLE TRIGGER refuse_change'), ('ALTER TABLE cqrs_es.handlers DISABLE TRIGGER ALL'), ('SET LOCAL session_replication_role = replica'), ('DROP TRIGGER admit_event ON cqrs_es.events')) s (statement) ORDER BY 1;
SELECT ok(bool_and(tgenabled = 'A' OR tgenabled = 'R' AND tgname = 'registry_row_received'), 'declarations are looked at on replicas, too') FROM pg_trigger WHERE tgfoid IN ('cqrs_es.resolve_names'::regproc, 'cqrs_es.registry_changed'::regproc);

-- A function that lends its rights: a role that may send one command, and nothing else, sets what everybody may set.
GRANT CREATE ON SCHEMA public TO cqrs_es_service;
SET LOCAL ROLE cqrs_es_service;
CREATE FUNCTION public.add_loosely(n int) RETURNS jsonb LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
	$$SELECT state FROM cqrs_es.execute_command('grants', 'till', 'Add', jsonb_build_object('n', n))$$;
CREATE FUNCTION public.add(n int) RETURNS jsonb LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET cqrs_es.context = '' AS
	$$SELECT state FROM cqrs_es.execute_command('grants', 'till', 'Add', jsonb_build_object('n', n))$$;
SET LOCAL ROLE cqrs_es_till;
SET LOCAL cqrs_es.context = '{"user": "the boss"}';
SELECT public.add_loosely(1) IS NULL AS x, public.add(2) IS NULL AS y \gset
RESET ROLE;
SET LOCAL cqrs_es.context = '';
SELECT is((SELECT string_agg(coalesce(metadata->>'user', 'nobody'), ', ' ORDER BY sequence) FROM cqrs_es.events WHERE aggregate_id = 'till'), 'the boss, nobody',
	'metadata of the session go into the events; a function that lends rights says its own');
SELECT is(pg_temp.as('cqrs_es_till', $$SELECT cqrs_es.append_event('grants', 'till', 'e', '{}')$$), '42501', 'and has no other rights');

SELECT * FROM finish();
ROLLBACK;
