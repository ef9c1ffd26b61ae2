\i test/include/setup.sql
-- What an error of a handler or decider shows: all of it to those who have the
-- rights of its definer; to others its message, SQLSTATE and names, but no rows and
-- no statements. (What the server's log says: t/011_definers.pl.)

BEGIN;
SELECT plan(42);
CREATE ROLE cqrs_es_architect;
CREATE ROLE cqrs_es_apprentice IN ROLE cqrs_es_architect;
CREATE ROLE cqrs_es_writer;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_architect, cqrs_es_apprentice, cqrs_es_writer;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_architect, cqrs_es_apprentice, cqrs_es_writer;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.define_command(text, text, text) TO cqrs_es_architect;
CREATE SCHEMA cqrs_es_errors AUTHORIZATION cqrs_es_architect;
SET LOCAL search_path = cqrs_es_errors, public;
SET LOCAL ROLE cqrs_es_architect;
CREATE TABLE vault (id text PRIMARY KEY, secret text NOT NULL, n int CHECK (n < 100));
INSERT INTO vault VALUES ('known', 'the secret', 1);
CREATE TABLE doors (id text REFERENCES vault);
CREATE FUNCTION refuse(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'no %', t USING DETAIL = 'Ask the keeper.', HINT = 'Knock.'; END$$;
CREATE FUNCTION deadlock(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'no %', t USING ERRCODE = '40P01', DETAIL = 'Try again.'; END$$;
CREATE FUNCTION conflict(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE 'no %', t USING ERRCODE = 'QE001', SCHEMA = 's', TABLE = 't', COLUMN = '1', DATATYPE = '2'; END$$;
CREATE TABLE gone (id text);
RESET ROLE;
SELECT cqrs_es.create_aggregate('errors') \gset
SELECT pg_temp.as_role('cqrs_es_architect', $x$SELECT cqrs_es.create_projection('errors', '{errors}', '{vault,doors}'),
	cqrs_es.define_handler('errors', 'unique', 'INSERT INTO vault SELECT id, secret || event.event_id, 1 FROM vault'),
	cqrs_es.define_handler('errors', 'not null', 'INSERT INTO vault SELECT event.aggregate_id, NULL, n FROM vault'),
	cqrs_es.define_handler('errors', 'check', 'INSERT INTO vault SELECT event.aggregate_id, secret, 100 FROM vault'),
	cqrs_es.define_handler('errors', 'foreign', 'INSERT INTO doors SELECT secret FROM vault'),
	cqrs_es.define_handler('errors', 'json', 'INSERT INTO doors SELECT secret::json->>0 FROM vault'),
	cqrs_es.define_handler('errors', 'raise', 'INSERT INTO doors VALUES (refuse(event.aggregate_id))'),
	cqrs_es.define_handler('errors', 'deadlock', 'INSERT INTO doors VALUES (deadlock(event.aggregate_id))'),
	cqrs_es.define_handler('errors', 'renamed', 'INSERT INTO gone VALUES (event.aggregate_id)'),
	cqrs_es.define_handler('errors', 'conflict', 'INSERT INTO doors VALUES (conflict(event.aggregate_id))'),
	cqrs_es.define_command('errors', 'Json', '(SELECT secret::jsonb FROM vault)'),
	cqrs_es.define_command('errors', 'Raise', 'to_jsonb(refuse(aggregate_id))'),
	cqrs_es.define_command('errors', 'Reject', 'cqrs_es.reject(''no'', code => ''NO'')'),
	cqrs_es.define_command('errors', 'Conflict', 'to_jsonb(conflict(aggregate_id))')$x$) \gset

ALTER TABLE gone RENAME TO elsewhere;

-- what a role sees of an error: SQLSTATE, message, detail, hint, names, context
CREATE FUNCTION pg_temp.seen(role text, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	m text; d text; h text; s text; t text; c text; y text; n text; context text;
BEGIN
	PERFORM pg_temp.as_role(role, call);
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT, s = SCHEMA_NAME,
		t = TABLE_NAME, c = COLUMN_NAME, y = PG_DATATYPE_NAME, n = CONSTRAINT_NAME, context = PG_EXCEPTION_CONTEXT;
	-- the context up to the call
	context := rtrim(regexp_replace(context, 'SQL statement "(SELECT|INSERT INTO) cqrs_es.*', ''), E'\n');
	IF SQLSTATE = 'QE201' THEN
		y := 'position';
	END IF;
	RETURN SQLSTATE || ': ' || array_to_string(ARRAY(SELECT part FROM unnest(ARRAY[m, d, h, s, t, c, y, n, context]) AS part WHERE part <> ''), ' | ');
END $$;
CREATE FUNCTION pg_temp.append_as(role text, type text) RETURNS text LANGUAGE sql AS
	$$SELECT pg_temp.seen(role, format('SELECT cqrs_es.append_event(''errors'', ''a'', %L, ''{}'')', type))$$;
CREATE FUNCTION pg_temp.execute_as(role text, type text) RETURNS text LANGUAGE sql AS
	$$SELECT pg_temp.seen(role, format('SELECT cqrs_es.execute_command(''errors'', ''a'', %L)', type))$$;

CREATE FUNCTION pg_temp.failed(type text, rest text, of_constraint text DEFAULT NULL) RETURNS text LANGUAGE sql AS
	$$SELECT format('QE201: projection "errors" failed on event 1 (%s) of stream "errors/a" | %s | errors | a | 1 | position%s', type, rest, ' | ' || of_constraint)$$;

SELECT is(pg_temp.append_as('cqrs_es_writer', type), expected || ' | projection "errors" handling event 1 of stream "errors/a"', type || ', for a stranger') FROM (VALUES
	(1, 'unique', pg_temp.failed('unique', 'duplicate key value violates unique constraint "vault_pkey" (SQLSTATE 23505)', 'vault_pkey')),
	(2, 'not null', pg_temp.failed('not null', 'null value in column "secret" of relation "vault" violates not-null constraint (SQLSTATE 23502)')),
	(3, 'check', pg_temp.failed('check', 'new row for relation "vault" violates check constraint "vault_n_check" (SQLSTATE 23514)', 'vault_n_check')),
	(4, 'foreign', pg_temp.failed('foreign', 'insert or update on table "doors" violates foreign key constraint "doors_id_fkey" (SQLSTATE 23503)', 'doors_id_fkey')),
	(5, 'json', pg_temp.failed('json', 'invalid input syntax for type json (SQLSTATE 22P02)')),
	(6, 'raise', pg_temp.failed('raise', E'no a (SQLSTATE P0001)\nAsk the keeper. | Knock.')),
	(7, 'deadlock', '40P01: no a | Try again.'),
	(8, 'conflict', 'QE001: no a | s | t | 1 | 2'),
	(9, 'renamed', pg_temp.failed('renamed', 'relation "gone" does not exist (SQLSTATE 42P01)'))) t (n, type, expected)
ORDER BY n;
SELECT alike(pg_temp.append_as(role, type), expected || '%SQL statement "INSERT INTO%projection "errors" handling event 1 of stream "errors/a"', format('%s, for %s', type, role)) FROM (VALUES
	(1, 'unique', '% | duplicate key value violates%Key (id)=(known) already exists.%'),
	(2, 'not null', '%Failing row contains (a, null, 1).%'),
	(3, 'check', '%Failing row contains (a, the secret, 100).%'),
	(4, 'foreign', '%Key (id)=(the secret) is not present in table "vault".%'),
	(5, 'json', '%Token "the" is invalid.%'),
	(6, 'raise', '%Ask the keeper. | Knock. | errors | a | 1 | position | PL/pgSQL function refuse(text)%'),
	(7, 'deadlock', '40P01: no a | Try again. | PL/pgSQL function deadlock(text)%'),
	(8, 'conflict', 'QE001: no a | s | t | 1 | 2 | PL/pgSQL function%')) t (n, type, expected),
	(VALUES ('none'), ('cqrs_es_architect'), ('cqrs_es_apprentice')) r (role)
ORDER BY n, role;
SELECT is(pg_temp.seen('cqrs_es_writer', $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('errors', 'a', 'unique', '{}')$$),
	pg_temp.failed('unique', 'duplicate key value violates unique constraint "vault_pkey" (SQLSTATE 23505)', 'vault_pkey')
	|| ' | projection "errors" handling event 1 of stream "errors/a"', 'the same after a plain INSERT');

SELECT is(pg_temp.execute_as('cqrs_es_writer', type), expected, type || ', for a stranger') FROM (VALUES
	(1, 'Json', '22P02: invalid input syntax for type json | command "Json" for stream "errors/a"'),
	(2, 'Raise', 'P0001: no a | Ask the keeper. | Knock. | command "Raise" for stream "errors/a"'),
	(3, 'Reject', 'QE301: no | NO | command "Reject" for stream "errors/a"'),
	(4, 'Conflict', 'QE001: no a | s | t | 1 | 2 | command "Conflict" for stream "errors/a"')) t (n, type, expected)
ORDER BY n;
SELECT alike(pg_temp.execute_as('cqrs_es_apprentice', type), expected, type || ', for one of the definer''s role') FROM (VALUES
	(1, 'Json', '%Token "the" is invalid. | JSON data%SQL expression "%command "Json" for stream "errors/a"'),
	(2, 'Raise', '%PL/pgSQL function refuse(text)%SQL expression "to_jsonb(refuse(aggregate_id))"%'),
	(3, 'Reject', 'QE301: no | NO | command "Reject" for stream "errors/a"'),
	(4, 'Conflict', '%PL/pgSQL function conflict(text)%')) t (n, type, expected)
ORDER BY n;

SELECT * FROM finish();
ROLLBACK;
