\i test/include/setup.sql
-- Whoever appends can set neither what is shown of a definer's statements nor
-- whether the definer's functions check what they say: settings of PL/pgSQL and debug_print_*.

BEGIN;
SELECT plan(10);
CREATE ROLE cqrs_es_architect;
CREATE ROLE cqrs_es_writer;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_architect, cqrs_es_writer;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_architect, cqrs_es_writer;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.define_command(text, text, text) TO cqrs_es_architect;
CREATE SCHEMA cqrs_es_shows AUTHORIZATION cqrs_es_architect;
GRANT USAGE ON SCHEMA cqrs_es_shows TO cqrs_es_writer;
SET LOCAL search_path = cqrs_es_shows, public;
SELECT cqrs_es.create_aggregate('shows') \gset
SET LOCAL ROLE cqrs_es_architect;
CREATE TABLE seen (what text);
CREATE FUNCTION settings() RETURNS text LANGUAGE plpgsql AS $$BEGIN
	RETURN (SELECT string_agg(current_setting(s), ' ') FROM unnest('{plpgsql.check_asserts,plpgsql.print_strict_params,plpgsql.extra_errors,plpgsql.extra_warnings,debug_print_parse,debug_print_rewritten,debug_print_plan}'::text[]) AS s);
END$$;
CREATE FUNCTION small(n int) RETURNS int LANGUAGE plpgsql AS $$BEGIN ASSERT n < 10, 'too large'; RETURN n; END$$;
CREATE FUNCTION one(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	secret text := 'the secret';
	x text;
BEGIN
	SELECT what INTO STRICT x FROM seen WHERE what = secret;
END$$;
SELECT cqrs_es.create_projection('shows', '{shows}', '{seen}'),
	cqrs_es.define_handler('shows', 'settings', 'INSERT INTO seen VALUES (settings())'),
	cqrs_es.define_handler('shows', 'small', 'INSERT INTO seen VALUES (small((event.payload->>''n'')::int))'),
	cqrs_es.define_handler('shows', 'one', 'one(cqrs_es.event)'),
	cqrs_es.define_command('shows', 'Settings', 'jsonb_build_object(''type'', ''other'', ''payload'', jsonb_build_object(''settings'', settings()))'),
	cqrs_es.define_command('shows', 'Small', 'jsonb_build_object(''type'', ''other'', ''payload'', jsonb_build_object(''n'', small((command->>''n'')::int)))') \gset
RESET ROLE;

SET LOCAL log_min_messages = error;
SET LOCAL ROLE cqrs_es_writer;
SELECT count(set_config(name, value, true)) FROM (VALUES ('plpgsql.check_asserts', 'off'), ('plpgsql.print_strict_params', 'on'), ('plpgsql.extra_errors', 'all'),
	('plpgsql.extra_warnings', 'all'), ('debug_print_parse', 'on'), ('debug_print_rewritten', 'on'), ('debug_print_plan', 'on')) s (name, value) \gset
CREATE FUNCTION pg_temp.detail(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	EXECUTE call;
	RETURN 'no error';
EXCEPTION WHEN assert_failure OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN SQLSTATE || ': ' || detail;
END$$;
SELECT is(pg_temp.detail($$SELECT cqrs_es.append_event('shows', 'a', 'small', '{"n": 10}')$$), 'QE201: too large (SQLSTATE P0004)', 'a handler asserts');
SELECT is(pg_temp.detail($$SELECT cqrs_es.execute_command('shows', 'a', 'Small', '{"n": 10}')$$), 'P0004: ', 'so does a decider');
SELECT is(pg_temp.detail($$SELECT cqrs_es.append_event('shows', 'a', 'one', '{}')$$), 'QE201: query returned no rows (SQLSTATE P0002)', 'no parameters are shown');
RESET ROLE;
CREATE OR REPLACE FUNCTION one(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
#print_strict_params on
DECLARE
	secret text := 'the secret';
	x text;
BEGIN
	SELECT what INTO STRICT x FROM seen WHERE what = secret;
END$$;
SET LOCAL ROLE cqrs_es_writer;
SELECT is(pg_temp.detail($$SELECT cqrs_es.append_event('shows', 'a', 'one', '{}')$$), 'QE201: query returned no rows (SQLSTATE P0002)', 'nor by a function that was compiled to show them');
SELECT is(pg_temp.detail($$SELECT cqrs_es.append_event('shows', 'a', 'settings', '{}')$$), 'no error', 'a handler runs');
SELECT is(pg_temp.detail($$SELECT cqrs_es.execute_command('shows', 'a', 'Settings')$$), 'no error', 'a decider runs');
SELECT is(current_setting('plpgsql.check_asserts') || current_setting('debug_print_plan'), 'offon', 'the session has its own settings back');
RESET ROLE;
SELECT is(what, 'on off none none off off off', 'settings in a handler') FROM seen WHERE what <> '10';
SELECT is(payload->>'settings', 'on off none none off off off', 'settings in a decider') FROM cqrs_es.events WHERE aggregate_type = 'shows' AND event_type = 'other' AND payload ? 'settings';
SELECT pg_temp.detail($$SELECT cqrs_es.append_event('shows', 'a', 'one', '{}')$$) AS detail \gset
SELECT is(:'detail'::text, E'QE201: query returned no rows (SQLSTATE P0002)\nparameters: secret = ''the secret''', 'its definer and superusers see them');

SELECT * FROM finish();
ROLLBACK;
