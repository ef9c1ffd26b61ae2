-- What every file of test/sql begins with, as its first line:
--
--	\i test/include/setup.sql
--
-- (\i and not \ir, and from the root of the checkout, as for all that is included.)
--
-- pg_prove judges the file: what it prints is TAP and nothing else, strictly. So
-- a row, a warning or an error outside of an assertion fails it, and an error
-- ends it. What is to be seen outside (an error at commit, say) is fetched from a
-- session of its own: test/include/session.sql.
--
-- After it, pgTAP (in schema public) and cqrs_es are there. A test may write as it
-- likes, within BEGIN ... ROLLBACK or not, but finds what earlier files have
-- committed.
\if :{?tap}
\else
\set tap strict
\echo TAP version 13
\echo pragma +strict
\endif
\set QUIET on
\set ON_ERROR_ROLLBACK off
\set ON_ERROR_STOP on
\set VERBOSITY default
\pset format unaligned
\pset tuples_only on
\pset pager off
SET client_min_messages = warning;
SET lc_messages = 'C';
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SET intervalstyle = 'postgres';
SET bytea_output = 'hex';
CREATE EXTENSION IF NOT EXISTS pgtap SCHEMA public;
CREATE EXTENSION IF NOT EXISTS cqrs_es;
-- Run a statement as another role; 'none' is oneself.
CREATE FUNCTION pg_temp.as_role(role text, statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', role, true);
	EXECUTE statement;
	PERFORM set_config('role', 'none', true);
END $$;
-- The SQLSTATE with which a statement fails; 'none' if it does not.
CREATE FUNCTION pg_temp.state_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
-- What is said of the error of a statement, in these fields; NULL if there is none.
-- "where" is the line of the context that is ours.
CREATE FUNCTION pg_temp.error_of(statement text, fields text[] DEFAULT '{state,message,detail,hint}') RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	said jsonb;
	message text; detail text; hint text; context text; of_schema text; of_table text; of_column text; of_datatype text;
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT,
		of_schema = SCHEMA_NAME, of_table = TABLE_NAME, of_column = COLUMN_NAME, of_datatype = PG_DATATYPE_NAME;
	said := jsonb_build_object('state', SQLSTATE, 'message', message, 'detail', detail, 'hint', hint,
		'where', substring(context from '(?n)^(?:folding event|projection).*$'),
		'schema', of_schema, 'table', of_table, 'column', of_column, 'datatype', of_datatype);
	RETURN ARRAY(SELECT said ->> field FROM unnest(fields) WITH ORDINALITY AS f (field, n) ORDER BY n);
END $$;
