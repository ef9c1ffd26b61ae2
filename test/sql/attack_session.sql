\i test/include/setup.sql
-- What a definer tries to get from the session of somebody with more rights, who just appends or sends a command: to
-- become them, to leave something behind that they run later, to read what they read. One line per attack, with its outcome.
-- Others are in rights.sql (a trigger of a read table), attack_followers.sql (what follows from what a handler appends).

BEGIN;
SELECT plan(105);
CREATE ROLE cqrs_es_mallory;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_mallory;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_mallory;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.define_command(text, text, text) TO cqrs_es_mallory;
CREATE SCHEMA cqrs_es_attack AUTHORIZATION cqrs_es_mallory;
SELECT cqrs_es.create_aggregate('attack') IS NULL AS x \gset
SET LOCAL ROLE cqrs_es_mallory;
CREATE TABLE cqrs_es_attack.loot (what text);
CREATE FUNCTION cqrs_es_attack.run(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE event.payload->>'sql'; END$$;
CREATE FUNCTION cqrs_es_attack.decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN EXECUTE command->>'sql'; RETURN '[]'; END$$;
SELECT cqrs_es.create_projection('attack', '{attack}', '{cqrs_es_attack.loot}') IS NULL AS x,
	cqrs_es.define_handler('attack', 'run', 'cqrs_es_attack.run(cqrs_es.event)') IS NULL AS y,
	cqrs_es.define_command('attack', 'Run', 'cqrs_es_attack.decide(jsonb, jsonb)') IS NULL AS z \gset
RESET ROLE;

-- What comes of a statement in a handler of mallory's when a superuser appends: its SQLSTATE, or 'done'.
CREATE FUNCTION pg_temp.by_handler(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM cqrs_es.append_event('attack', md5(sql), 'run', jsonb_build_object('sql', sql));
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN coalesce(substring(detail FROM '\(SQLSTATE (.....)\)'), SQLSTATE);
END $$;
-- The same in a decider.
CREATE FUNCTION pg_temp.by_decider(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.execute_command('attack', md5(sql), 'Run', jsonb_build_object('sql', sql));
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;

CREATE TEMP TABLE attacks (n serial, sql text, outcome text);
INSERT INTO attacks (sql, outcome) VALUES
	-- to be somebody else
	($$SET ROLE none$$, '42501'),
	($$SET LOCAL ROLE none$$, '42501'),
	($$RESET ROLE$$, '42501'),
	($$SET SESSION AUTHORIZATION DEFAULT$$, '42501'),
	($$RESET SESSION AUTHORIZATION$$, '42501'),
	($$SELECT pg_catalog.set_config('role', 'none', true)$$, '42501'),
	($$ALTER ROLE cqrs_es_mallory SUPERUSER$$, '42501'),
	-- to let the session do what its owner did not say
	($$SET LOCAL session_replication_role = replica$$, '42501'),
	($$SET cqrs_es.tenant_id = 'x'$$, '42501'),
	($$SET cqrs_es.require_tenant = on$$, '42501'),
	($$DO 'BEGIN COMMIT; END'$$, '2D000'),
	($$SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())$$, '42501'),
	($$COPY cqrs_es_attack.loot FROM PROGRAM 'true'$$, '42501'),
	($$SELECT pg_catalog.pg_read_file('PG_VERSION')$$, '42501'),
	($$ALTER EVENT TRIGGER cqrs_es_keep_place DISABLE$$, '42501'),
	($$ALTER EXTENSION cqrs_es ADD TABLE cqrs_es_attack.loot$$, '42501'),
	($$UPDATE cqrs_es.handlers SET definer = 10$$, '42501'),
	-- temporary objects, which stand in front of all others in the session
	($$CREATE TEMP TABLE planted (a int)$$, '42501'),
	($$CREATE TEMP TABLE planted AS SELECT 1 AS a$$, '42501'),
	($$CREATE TABLE pg_temp.planted (a int)$$, '42501'),
	($$CREATE TEMP VIEW planted AS SELECT 1 AS a$$, '42501'),
	($$CREATE TEMP SEQUENCE planted$$, '42501'),
	($$CREATE TYPE pg_temp.planted AS (a int)$$, '42501'),
	($$CREATE TYPE pg_temp.planted AS ENUM ('a')$$, '42501'),
	($$CREATE TYPE pg_temp.planted AS RANGE (subtype = pg_catalog.int4)$$, '42501'),
	($$CREATE DOMAIN pg_temp.planted AS pg_catalog.text$$, '42501'),
	($$SET LOCAL search_path = pg_temp; CREATE DOMAIN planted AS pg_catalog.text$$, '42501'),
	($$CREATE FUNCTION pg_temp.planted() RETURNS int LANGUAGE sql AS 'SELECT 1'$$, '42501'),
	($$CREATE PROCEDURE pg_temp.planted() LANGUAGE sql AS ''$$, '42501'),
	($$CREATE AGGREGATE pg_temp.planted(pg_catalog.int4) (SFUNC = pg_catalog.int4pl, STYPE = pg_catalog.int4)$$, '42501'),
	($$CREATE OPERATOR pg_temp.=== (FUNCTION = pg_catalog.int4eq, LEFTARG = pg_catalog.int4, RIGHTARG = pg_catalog.int4)$$, '42501'),
	($$CREATE COLLATION pg_temp.planted (LOCALE = 'C')$$, '42501'),
	($$CREATE CONVERSION pg_temp.planted FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8$$, '42501'),
	($$CREATE TEXT SEARCH CONFIGURATION pg_temp.planted (COPY = pg_catalog.simple)$$, '42501'),
	($$CREATE TEXT SEARCH DICTIONARY pg_temp.planted (TEMPLATE = pg_catalog.simple)$$, '42501'),
	($$CREATE STATISTICS pg_temp.planted ON what, (what || 'a') FROM cqrs_es_attack.loot$$, '42501'),
	-- statements and cursors that are met later by their names
	($$PREPARE planted AS SELECT 1$$, '42501'),
	($$DEALLOCATE ALL$$, '42501'),
	($$DISCARD PLANS$$, '42501'),
	($$LISTEN planted$$, '42501'),
	($$UNLISTEN *$$, '42501'),
	($$DECLARE planted CURSOR WITH HOLD FOR SELECT 1$$, '42501');
SELECT is(pg_temp.by_handler(sql), outcome, 'handler: ' || sql) FROM attacks ORDER BY n;
SELECT is(pg_temp.by_decider(sql), outcome, 'decider: ' || sql) FROM attacks ORDER BY n;

-- What it may do with its own objects, in schemas that stay, it still may.
SELECT is(pg_temp.by_handler($$CREATE DOMAIN cqrs_es_attack.its_own AS pg_catalog.text$$), 'done', 'a domain in its own schema');
SELECT is(pg_temp.by_handler($$CREATE FUNCTION cqrs_es_attack.its_own() RETURNS int LANGUAGE sql AS 'SELECT 1'$$), 'done', 'a function');
SELECT is(pg_temp.by_handler($$CREATE TABLE cqrs_es_attack.more (a int)$$), 'done', 'a table');
-- who has the rights of who appends anyway may
CREATE ROLE cqrs_es_writer;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_writer;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_writer;
GRANT cqrs_es_writer TO cqrs_es_mallory;
SET LOCAL ROLE cqrs_es_writer;
SELECT cqrs_es.append_event('attack', 'its own', 'run', jsonb_build_object('sql', 'CREATE DOMAIN pg_temp.its_own AS pg_catalog.text')) IS NOT NULL AS appended \gset
RESET ROLE;
SELECT ok(:'appended', 'a temporary domain in the session of somebody whose rights it has');

-- Settings are those of before, whatever it sets.
SELECT is(pg_temp.by_handler($$SET row_security = off; SET search_path = cqrs_es_attack; SET client_min_messages = error; SET cqrs_es.context = '{"a": 1}'; SET standard_conforming_strings = off$$), 'done', 'it sets what anybody may');
SELECT is(concat_ws(' ', current_setting('row_security'), current_setting('search_path'), current_setting('client_min_messages'), current_setting('cqrs_es.context'), current_setting('standard_conforming_strings')),
	'on "$user", public warning  on', 'and nothing of it is left');
SELECT is(pg_temp.by_handler('RESET ALL'), 'done', 'it resets all');
SELECT is(current_setting('client_min_messages') || current_setting('timezone'), 'warningUTC', 'nothing of that is left either');

-- Cursors of the session, which were opened with more rights than it has.
CREATE TABLE vault (n int, secret text);
INSERT INTO vault VALUES (1, 'first'), (2, 'second'), (3, 'third');
CREATE FUNCTION pg_temp.next_of(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	c refcursor := name;
	secret text;
BEGIN
	FETCH c INTO secret;
	RETURN secret;
END $$;
DECLARE secrets CURSOR FOR SELECT secret FROM vault ORDER BY n;
SELECT is(pg_temp.by_handler($$DO $x$DECLARE c refcursor := 'secrets'; x text; BEGIN FETCH c INTO x; INSERT INTO cqrs_es_attack.loot VALUES (x); END$x$ $$), '55000', 'a handler fetches from a cursor of the session');
SELECT is(pg_temp.by_decider($$DO $x$DECLARE c refcursor := 'secrets'; x text; BEGIN FETCH c INTO x; INSERT INTO cqrs_es_attack.loot VALUES (x); END$x$ $$), '55000', 'a decider does');
SELECT is(pg_temp.by_handler($$DO $x$DECLARE x text; BEGIN EXECUTE 'FETCH secrets' INTO x; INSERT INTO cqrs_es_attack.loot VALUES (x); END$x$ $$), '55000', 'the same in SQL');
SELECT is(pg_temp.by_handler($$MOVE ALL FROM secrets$$), '55000', 'moves it');
SELECT is(pg_temp.by_handler($$CLOSE secrets$$), '42501', 'closes it');
SELECT is(pg_temp.by_handler($$DO $x$DECLARE c refcursor := 'secrets'; BEGIN CLOSE c; OPEN c FOR SELECT 'forged'; END$x$ $$), '24000', 'puts another in its place');
SELECT is(pg_temp.next_of('secrets'), 'first', 'the session has its cursor as it was');
SELECT is_empty('SELECT * FROM cqrs_es_attack.loot', 'and nothing was taken');
CREATE FUNCTION pg_temp.loop_over_secrets(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	row record;
	seen text[];
BEGIN
	FOR row IN SELECT secret FROM vault ORDER BY n LOOP
		seen := seen || row.secret || pg_temp.by_handler(sql);
	END LOOP;
	RETURN array_to_string(seen, ' ');
END $$;
SELECT is(pg_temp.loop_over_secrets($$DO $x$DECLARE c refcursor; x text; BEGIN
	FOR c IN SELECT name FROM pg_catalog.pg_cursors WHERE name LIKE '<%' LOOP FETCH c INTO x; INSERT INTO cqrs_es_attack.loot VALUES (x); END LOOP; END$x$ $$),
	'first 55000 second 55000 third 55000', 'from that of a loop');
SELECT is_empty('SELECT * FROM cqrs_es_attack.loot', 'nothing was taken');
SELECT is(pg_temp.loop_over_secrets($$DO $x$DECLARE c CURSOR FOR SELECT generate_series(1, 3); d refcursor; n int; m int := 0; BEGIN
	OPEN d FOR SELECT 5; FETCH d INTO n; FOR r IN c LOOP m := m + n; END LOOP; CLOSE d; INSERT INTO cqrs_es_attack.loot VALUES (m); END$x$ $$),
	'first done second done third done', 'its own cursors it may use');
SELECT results_eq('SELECT what FROM cqrs_es_attack.loot', $$VALUES ('15'), ('15'), ('15')$$, 'as ever');
SELECT is(pg_temp.next_of('secrets'), 'second', 'and the session its own');
CLOSE secrets;

SELECT * FROM finish();
ROLLBACK;
