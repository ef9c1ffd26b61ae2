\i test/include/setup.sql
-- PL/pgSQL compiles a function at its first call in a session, and keeps it: the types of its variables are those that
-- their names stood for then. Whoever appends may call a definer's function first, with types of their own in front, whose
-- checks would run with the definer's rights later. Each attack is a session of the thief's.

SELECT plan(21);
CREATE ROLE cqrs_es_victim;
CREATE ROLE cqrs_es_thief;
CREATE SCHEMA cqrs_es_victim AUTHORIZATION cqrs_es_victim;
CREATE SCHEMA cqrs_es_thief AUTHORIZATION cqrs_es_thief;
GRANT USAGE ON SCHEMA cqrs_es_victim TO PUBLIC;
GRANT USAGE ON SCHEMA cqrs_es_thief TO PUBLIC;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_victim, cqrs_es_thief;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_victim, cqrs_es_thief;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.define_command(text, text, text), cqrs_es.rebuild_projection TO cqrs_es_victim;
SELECT cqrs_es.create_aggregate('compiled') IS NULL AS x \gset

SET SESSION AUTHORIZATION cqrs_es_victim;
SET search_path = cqrs_es_victim;
CREATE TABLE vault (secret text);
INSERT INTO vault VALUES ('the secret');
CREATE TABLE kept (id text, t text);
CREATE DOMAIN label AS text;
CREATE FUNCTION note(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t text := event.payload->>'t';
BEGIN
	INSERT INTO kept VALUES (event.aggregate_id, t);
END $$;
CREATE FUNCTION note_label(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	l label := event.payload->>'t';
BEGIN
	INSERT INTO kept VALUES (event.aggregate_id, l);
END $$;
CREATE FUNCTION note_row(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	r kept%ROWTYPE;
BEGIN
	r.id := event.aggregate_id;
	r.t := event.payload->>'t';
	INSERT INTO cqrs_es_victim.kept VALUES (r.id, r.t);
END $$;
CREATE FUNCTION note_safely(event cqrs_es.event) RETURNS void LANGUAGE plpgsql SET search_path = cqrs_es_victim, pg_temp AS $$
DECLARE
	t text := event.payload->>'t';
BEGIN
	INSERT INTO kept VALUES (event.aggregate_id, t);
END $$;
CREATE FUNCTION shout(given text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
	t text := upper(given);
BEGIN
	RETURN t;
END $$;
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	t text := command->>'t';
BEGIN
	RETURN jsonb_build_object('type', 'decided', 'payload', jsonb_build_object('t', t));
END $$;
SELECT cqrs_es.create_projection('compiled', '{compiled}', '{kept}') IS NULL AS x,
	cqrs_es.define_handler('compiled', 'noted', 'note') IS NULL AS x,
	cqrs_es.define_handler('compiled', 'labelled', 'note_label') IS NULL AS x,
	cqrs_es.define_handler('compiled', 'rowed', 'note_row') IS NULL AS x,
	cqrs_es.define_handler('compiled', 'safe', 'note_safely') IS NULL AS x,
	cqrs_es.define_handler('compiled', 'shouted', $$INSERT INTO kept VALUES (event.aggregate_id, shout(event.payload->>'t'))$$) IS NULL AS x,
	cqrs_es.define_command('compiled', 'Decide', 'decide') IS NULL AS x \gset
SET SESSION AUTHORIZATION cqrs_es_thief;
SET search_path = cqrs_es_thief;
CREATE TABLE loot (who text, secret text);
GRANT INSERT ON loot TO PUBLIC;
CREATE FUNCTION steal(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO cqrs_es_thief.loot SELECT current_user, v.secret FROM cqrs_es_victim.vault AS v;
	RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
	RETURN true;
END $$;
CREATE DOMAIN label AS pg_catalog.text CHECK (cqrs_es_thief.steal(VALUE));
CREATE TABLE kept (id label, t label);
RESET SESSION AUTHORIZATION;
RESET search_path;

\set as_thief 'SET SESSION AUTHORIZATION cqrs_es_thief; SET search_path = cqrs_es_thief; '
\set temporary 'CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (cqrs_es_thief.steal(VALUE)); '
\set event 'ROW(1, 1, pg_catalog.now(), \'00000000-0000-7000-8000-000000000001\', \'\', \'compiled\', \'x\', \'e\', \'1\', \'{"t": "called"}\', \'{}\')::cqrs_es.event'

-- a handler that is a function, with a domain in the temporary schema, which stands in front even of pg_catalog
\set statements :as_thief :temporary 'SELECT cqrs_es_victim.note(' :event '); SELECT version FROM cqrs_es.append_event(\'compiled\', \'temporary\', \'noted\', \'{"t": "appended"}\'); SELECT version FROM cqrs_es.append_event(\'compiled\', \'temporary 2\', \'noted\', \'{"t": "appended"}\');'
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 'ERROR: QE201 1', 'called directly; by an append, which is refused; by the next one, compiled anew');
SELECT is_empty('SELECT * FROM cqrs_es_thief.loot', 'the thief''s check did not run as the victim');
SELECT results_eq($$SELECT id, t FROM cqrs_es_victim.kept$$, $$VALUES ('temporary 2', 'appended')$$, 'the handler did');

-- a domain of the thief's own schema, of a name that the function uses
\set statements :as_thief 'SELECT cqrs_es_victim.note_label(' :event '); SELECT version FROM cqrs_es.append_event(\'compiled\', \'label\', \'labelled\', \'{"t": "appended"}\'); SELECT version FROM cqrs_es.append_event(\'compiled\', \'label 2\', \'labelled\', \'{"t": "appended"}\');'
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 'ERROR: QE201 1', 'a domain in another schema');
SELECT is_empty('SELECT * FROM cqrs_es_thief.loot', 'its check did not run as the victim');

-- the row of a table of the thief's
\set statements :as_thief 'SELECT cqrs_es_victim.note_row(' :event '); SELECT version FROM cqrs_es.append_event(\'compiled\', \'row\', \'rowed\', \'{"t": "appended"}\'); SELECT version FROM cqrs_es.append_event(\'compiled\', \'row 2\', \'rowed\', \'{"t": "appended"}\');'
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 'ERROR: 42501 ERROR: QE201 1', 'a row type');
SELECT is_empty('SELECT * FROM cqrs_es_thief.loot', 'the checks of its columns did not run as the victim');

-- a function that a statement calls
\set statements :as_thief :temporary 'SELECT cqrs_es_victim.shout(\'called\'); SELECT version FROM cqrs_es.append_event(\'compiled\', \'shout\', \'shouted\', \'{"t": "appended"}\'); SELECT version FROM cqrs_es.append_event(\'compiled\', \'shout 2\', \'shouted\', \'{"t": "appended"}\');'
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 'CALLED ERROR: QE201 1', 'a function that a handler calls');
SELECT is_empty('SELECT * FROM cqrs_es_thief.loot', 'the check did not run as the victim');

-- a decider
\set statements :as_thief :temporary 'SELECT cqrs_es_victim.decide(\'{}\', \'{"t": "called"}\')->>\'type\'; SELECT version FROM cqrs_es.execute_command(\'compiled\', \'decide\', \'Decide\', \'{"t": "sent"}\'); SELECT version FROM cqrs_es.execute_command(\'compiled\', \'decide\', \'Decide\', \'{"t": "sent"}\');'
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 'decided ERROR: 42P17 1', 'a decider');
SELECT is_empty('SELECT * FROM cqrs_es_thief.loot', 'the check did not run as the victim');

-- all in one transaction
\set statements :as_thief :temporary 'BEGIN; SELECT cqrs_es_victim.shout(\'called\'); SAVEPOINT s; SELECT version FROM cqrs_es.append_event(\'compiled\', \'block\', \'shouted\', \'{"t": "appended"}\'); ROLLBACK TO s; SELECT version FROM cqrs_es.append_event(\'compiled\', \'block\', \'shouted\', \'{"t": "appended"}\'); COMMIT;'
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 'CALLED ERROR: QE201 1', 'in one transaction');
SELECT is_empty('SELECT * FROM cqrs_es_thief.loot', 'the check did not run as the victim');

-- what needs no care: a function with a search_path of its own, one that was never called, and the thief's own
\set statements :as_thief :temporary 'SELECT cqrs_es_victim.note_safely(' :event '); SELECT version FROM cqrs_es.append_event(\'compiled\', \'safe\', \'safe\', \'{"t": "appended"}\'); SELECT version FROM cqrs_es.append_event(\'compiled\', \'never called\', \'noted\', \'{"t": "appended"}\');'
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 'ERROR: 42501 1 1', 'one with SET search_path is what it is');
SELECT is_empty('SELECT * FROM cqrs_es_thief.loot', 'the check did not run as the victim');
\set statements :as_thief 'SELECT cqrs_es_victim.shout(\'called\'); SELECT version FROM cqrs_es.append_event(\'compiled\', \'called\', \'shouted\', \'{"t": "appended"}\');'
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 'CALLED 1', 'to call a function is no attack');
SET SESSION AUTHORIZATION cqrs_es_thief;
CREATE FUNCTION cqrs_es_thief.own() RETURNS pg_catalog.text LANGUAGE plpgsql AS $$DECLARE l cqrs_es_thief.label := 'x'; BEGIN RETURN l; END$$;
SELECT is(cqrs_es_thief.own(), 'x', 'nor to use types of one''s own');
RESET SESSION AUTHORIZATION;

-- a definer does it to another one, in the session of a superuser
SET SESSION AUTHORIZATION cqrs_es_victim;
CREATE TABLE cqrs_es_victim.others (t text);
GRANT CREATE, USAGE ON SCHEMA cqrs_es_victim TO cqrs_es_thief;
RESET SESSION AUTHORIZATION;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler TO cqrs_es_thief;
SET SESSION AUTHORIZATION cqrs_es_thief;
SET search_path = cqrs_es_thief;
CREATE FUNCTION cqrs_es_thief.first(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM cqrs_es_victim.note_label(event); EXCEPTION WHEN OTHERS THEN NULL; END$$;
SELECT cqrs_es.create_projection('a thief', '{compiled}') IS NULL AS x, cqrs_es.define_handler('a thief', 'labelled', 'cqrs_es_thief.first') IS NULL AS y \gset
RESET SESSION AUTHORIZATION;
RESET search_path;
\set statements 'SELECT version FROM cqrs_es.append_event(\'compiled\', \'other definer\', \'labelled\', \'{"t": "appended"}\'); SELECT version FROM cqrs_es.append_event(\'compiled\', \'other definer\', \'labelled\', \'{"t": "appended"}\');'
\i test/include/session.sql
SELECT is(btrim(regexp_replace(:'answer', '\s+', ' ', 'g')), 'ERROR: QE201 ERROR: QE201', 'its handler comes first, each time');
SELECT is_empty($$SELECT * FROM cqrs_es_thief.loot WHERE who = 'cqrs_es_victim'$$, 'the check did not run as the victim');
SELECT cqrs_es.drop_projection('a thief') IS NULL AS x \gset

-- what it says
\set statements '\\set VERBOSITY default\n' :as_thief 'SELECT cqrs_es_victim.note_label(' :event '); SELECT version FROM cqrs_es.append_event(\'compiled\', \'said\', \'labelled\', \'{"t": "appended"}\');'
\i test/include/session.sql
SELECT is(substring(:'answer' FROM 'DETAIL:  .*HINT:  [^\n]*'), $$DETAIL:  function cqrs_es_victim.note_label(cqrs_es.event) was compiled with type cqrs_es_thief.label (SQLSTATE 42P17)
It was first called in this session with another search_path than that of who defined what calls it now.
HINT:  Try again. Give the function a search_path of its own, with ALTER FUNCTION ... SET search_path.$$, 'what the error says');
SELECT is((SELECT count(*) FROM cqrs_es_thief.loot WHERE who <> 'cqrs_es_thief'), 0::bigint, 'nothing was stolen');

SELECT * FROM finish();
SELECT cqrs_es.drop_projection('compiled') IS NULL AS x, cqrs_es.drop_aggregate('compiled', force => true) IS NULL AS y \gset
SET client_min_messages = error;
DROP OWNED BY cqrs_es_victim, cqrs_es_thief CASCADE;
DROP ROLE cqrs_es_victim, cqrs_es_thief;
