-- Runs one of the examples in a new and empty database of its own, and connects
-- the test there, which goes on with assertions:
--
--	\i test/include/setup.sql
--	\set example todo
--	\i test/include/example.sql
--	...
--	\i test/include/example_end.sql
--
-- What the example prints is compared elsewhere: test/regress/printed.sql.
\set home :DBNAME
\set database pgtap_ :example
DROP DATABASE IF EXISTS :database;
CREATE DATABASE :database TEMPLATE template0;
\setenv EXAMPLE :example
\setenv DATABASE :database
\! psql -X -d "$DATABASE" < "examples/$EXAMPLE.sql" >/dev/null 2>&1
\connect :database
\i test/include/setup.sql

-- How a command is refused: SQLSTATE, code, message; NULL when it is not.
CREATE FUNCTION pg_temp.refusal(aggregate_type text, aggregate_id text, command_type text, payload jsonb DEFAULT '{}',
	expected_version bigint DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	code text;
BEGIN
	PERFORM cqrs_es.execute_command(aggregate_type, aggregate_id, command_type, payload, expected_version);
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = CONSTRAINT_NAME;
	RETURN concat_ws(' ', SQLSTATE, nullif(code, ''), SQLERRM);
END $$;

-- The current state of every aggregate of a type, folded from the first event
-- on: what snapshots and read models are compared with.
CREATE FUNCTION pg_temp.states(type text) RETURNS TABLE (id text, version bigint, state jsonb, at timestamptz) LANGUAGE sql AS $$
	SELECT DISTINCT ON (e.aggregate_id) e.aggregate_id, r.sequence, r.state, r.created_at
	FROM (SELECT DISTINCT aggregate_id FROM cqrs_es.events WHERE aggregate_type = type AND tenant_id = cqrs_es.current_tenant()) AS e,
		cqrs_es.replay(type, e.aggregate_id) AS r
	ORDER BY e.aggregate_id, r.sequence DESC
$$;
