\i test/include/setup.sql
-- Objects that somebody plants where a definer's names lead: in a schema of the definer's search_path, in the place of
-- what was dropped, on a table that the definer writes. Where PostgreSQL lets the owner of something decide what runs, it
-- runs as the definer, and never as who appends; where we know better, it is refused.

SELECT plan(30);
BEGIN;
CREATE ROLE cqrs_es_victim;
CREATE ROLE cqrs_es_mallory;
CREATE ROLE cqrs_es_writer;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_victim, cqrs_es_mallory, cqrs_es_writer;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_victim, cqrs_es_mallory, cqrs_es_writer;
GRANT SELECT ON cqrs_es.events TO cqrs_es_victim;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.define_command(text, text, text), cqrs_es.rebuild_projection, cqrs_es.drop_projection TO cqrs_es_victim;
CREATE SCHEMA cqrs_es_victim AUTHORIZATION cqrs_es_victim;
CREATE SCHEMA cqrs_es_shared;
GRANT USAGE ON SCHEMA cqrs_es_victim, cqrs_es_shared TO PUBLIC;
SELECT cqrs_es.create_aggregate('planted') IS NULL AS x \gset

-- who the planted code runs as, and whether it could become more
CREATE TABLE ran (who text);
GRANT INSERT ON ran TO PUBLIC;
CREATE FUNCTION spring() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		ALTER ROLE cqrs_es_mallory SUPERUSER;
	EXCEPTION WHEN insufficient_privilege THEN
	END;
	INSERT INTO public.ran VALUES (current_user);
	RETURN 'sprung';
END $$;
CREATE FUNCTION spring_row() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM public.spring(); RETURN coalesce(NEW, OLD); END$$;
CREATE FUNCTION spring_as_if(id text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN public.spring(); END$$;
-- what comes of an append by a superuser
CREATE FUNCTION pg_temp.ran_as(event_type text, role text DEFAULT 'none') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
	detail text;
BEGIN
	TRUNCATE ran;
	PERFORM pg_temp.as_role(role, format($x$SELECT cqrs_es.append_event('planted', gen_random_uuid()::text, %L, '{"t": "x", "n": 1}')$x$, event_type));
	SELECT coalesce(string_agg(DISTINCT who, ', '), 'nothing') INTO result FROM ran;
	RETURN result || CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = 'cqrs_es_mallory' AND rolsuper) THEN ' and made a superuser' ELSE '' END;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN coalesce(substring(detail FROM '\(SQLSTATE (.....)\)'), SQLSTATE);
END $$;

SET LOCAL ROLE cqrs_es_victim;
SET LOCAL search_path = cqrs_es_victim, cqrs_es_shared;
CREATE TABLE kept (id text, t text DEFAULT 'x', n int);
CREATE TABLE noted (id text, t text, n int);
CREATE FUNCTION cqrs_es_victim.twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n';
SELECT cqrs_es.create_projection('planted', '{planted}', '{kept}') IS NULL AS x,
	cqrs_es.define_handler('planted', 'unqualified', $$INSERT INTO kept (id, t) VALUES (event.aggregate_id, event.payload->>'t')$$) IS NULL AS x,
	cqrs_es.define_handler('planted', 'qualified', $$INSERT INTO cqrs_es_victim.kept (id, t) VALUES (event.aggregate_id, event.payload OPERATOR(pg_catalog.->>) 't')$$) IS NULL AS x,
	cqrs_es.define_handler('planted', 'function', $$INSERT INTO kept (id, n) VALUES (event.aggregate_id, twice((event.payload->>'n')::int))$$) IS NULL AS x,
	cqrs_es.define_handler('planted', 'operator', $$INSERT INTO kept (id, t) VALUES (event.aggregate_id, event.aggregate_id || event.sequence)$$) IS NULL AS x,
	cqrs_es.define_handler('planted', 'noted', $$INSERT INTO noted (id) VALUES (event.aggregate_id)$$) IS NULL AS x,
	cqrs_es.define_handler('planted', 'deleted', $$DELETE FROM kept$$) IS NULL AS x \gset
RESET ROLE;
SET LOCAL search_path = public;
SELECT is(pg_temp.ran_as(type), 'nothing', 'before: ' || type) FROM unnest('{unqualified,qualified,function,noted,deleted}'::text[]) AS type;

-- An operator or function that fits as well as pg_catalog's is behind it; one that fits better is found.
SAVEPOINT planted;
GRANT CREATE ON SCHEMA cqrs_es_shared TO cqrs_es_mallory;
SET LOCAL ROLE cqrs_es_mallory;
CREATE FUNCTION cqrs_es_shared.arrow(jsonb, text) RETURNS text LANGUAGE sql AS 'SELECT public.spring()';
CREATE OPERATOR cqrs_es_shared.->> (FUNCTION = cqrs_es_shared.arrow, LEFTARG = jsonb, RIGHTARG = text);
CREATE FUNCTION cqrs_es_shared.join(text, bigint) RETURNS text LANGUAGE sql AS 'SELECT public.spring()';
CREATE OPERATOR cqrs_es_shared.|| (FUNCTION = cqrs_es_shared.join, LEFTARG = text, RIGHTARG = bigint);
CREATE FUNCTION cqrs_es_shared.twice(n int) RETURNS int LANGUAGE sql AS 'SELECT length(public.spring())';
RESET ROLE;
SELECT is(pg_temp.ran_as('unqualified'), 'nothing', 'an operator of the same types is behind that of pg_catalog');
SELECT is(pg_temp.ran_as('function'), 'nothing', 'a function of the same types behind that of a schema in front');
SELECT is(pg_temp.ran_as('operator'), 'cqrs_es_victim', 'an operator that fits better is found, wherever it is: it runs as the definer, and not as the superuser who appends');
ROLLBACK TO planted;

-- A table in a schema in front of the definer's: runs as the definer, not as who appends.
SET LOCAL search_path = cqrs_es_shared, cqrs_es_victim;
SELECT pg_temp.as_role('cqrs_es_victim', $$SELECT cqrs_es.define_handler('planted', 'in front', 'INSERT INTO noted (id) VALUES (event.aggregate_id)')$$) IS NULL AS x \gset
SET LOCAL search_path = public;
GRANT CREATE ON SCHEMA cqrs_es_shared TO cqrs_es_mallory;
SET LOCAL ROLE cqrs_es_mallory;
CREATE TABLE cqrs_es_shared.noted (id text);
CREATE TRIGGER spring BEFORE INSERT ON cqrs_es_shared.noted FOR EACH ROW EXECUTE FUNCTION public.spring_row();
RESET ROLE;
SELECT is(pg_temp.ran_as('in front'), '42501', 'a table ahead in the search_path: the definer has no right to write it');
GRANT INSERT ON cqrs_es_shared.noted TO PUBLIC;
SELECT is(pg_temp.ran_as('in front'), 'cqrs_es_victim', 'with the right it is found: its trigger runs as the definer, and not as the superuser who appends');
SELECT is(pg_temp.ran_as('noted'), 'nothing', 'a handler whose search_path has that schema behind is not concerned');
ROLLBACK TO planted;

-- The owner of the schema puts a view in the place of a table; not of a read model.
ALTER SCHEMA cqrs_es_victim OWNER TO cqrs_es_mallory;
GRANT USAGE ON SCHEMA cqrs_es_victim TO PUBLIC;
SELECT throws_ok($$SELECT pg_temp.as_role('cqrs_es_mallory', 'DROP TABLE cqrs_es_victim.kept')$$, '2BP01', NULL, 'a read model cannot be dropped, by the schema''s owner neither');
SELECT throws_ok($$SELECT pg_temp.as_role('cqrs_es_mallory', 'DROP SCHEMA cqrs_es_victim CASCADE')$$, '2BP01', NULL, 'nor with its schema');
SELECT throws_ok($$SELECT pg_temp.as_role('cqrs_es_mallory', 'ALTER TABLE cqrs_es_victim.kept RENAME TO gone')$$, '42501', NULL, 'nor renamed');
SET LOCAL ROLE cqrs_es_mallory;
DROP TABLE cqrs_es_victim.noted;
CREATE VIEW cqrs_es_victim.noted AS SELECT 'x'::text AS id;
CREATE TRIGGER spring INSTEAD OF INSERT ON cqrs_es_victim.noted FOR EACH ROW EXECUTE FUNCTION public.spring_row();
GRANT ALL ON cqrs_es_victim.noted TO PUBLIC;
RESET ROLE;
SELECT is(pg_temp.ran_as('noted'), 'cqrs_es_victim', 'another table can: what takes its place runs as the definer, who trusted that schema; read models are the better choice');
ROLLBACK TO planted;

-- Who owns a table, or may put a trigger on it, says what runs when it is written: as who writes, the definer.
GRANT TRIGGER ON cqrs_es_victim.kept TO cqrs_es_mallory;
SELECT pg_temp.as_role('cqrs_es_mallory', 'CREATE TRIGGER spring BEFORE INSERT OR DELETE ON cqrs_es_victim.kept FOR EACH ROW EXECUTE FUNCTION public.spring_row()') \gset
SELECT is(pg_temp.ran_as('qualified'), 'cqrs_es_victim', 'TRIGGER on a read table');
SELECT is(pg_temp.ran_as('qualified', 'cqrs_es_writer'), 'cqrs_es_victim', 'whoever appends');
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('planted')$$, '55000', NULL, 'a rebuild does not delete rows over such a trigger');
ROLLBACK TO planted;
-- of an owner of the table who is another one than the definer
ALTER TABLE cqrs_es_victim.kept OWNER TO cqrs_es_mallory;
GRANT CREATE ON SCHEMA cqrs_es_victim TO cqrs_es_mallory;
GRANT INSERT, UPDATE, DELETE, SELECT ON cqrs_es_victim.kept TO cqrs_es_victim;
CREATE FUNCTION pg_temp.as_owner(what text, statement text, event_type text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.as_role('cqrs_es_mallory', statement);
	RETURN NEXT is(pg_temp.ran_as(event_type), 'cqrs_es_victim', what);
END $$;
SAVEPOINT owned;
SELECT pg_temp.as_owner('a default', 'ALTER TABLE cqrs_es_victim.kept ALTER t SET DEFAULT public.spring()', 'function');
ROLLBACK TO owned;
SELECT pg_temp.as_owner('a check', $$ALTER TABLE cqrs_es_victim.kept ADD CHECK (public.spring() = 'sprung') NOT VALID$$, 'qualified');
ROLLBACK TO owned;
SELECT pg_temp.as_owner('a policy', $$ALTER TABLE cqrs_es_victim.kept ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON cqrs_es_victim.kept USING (public.spring() = 'sprung')$$, 'qualified');
ROLLBACK TO owned;
SELECT pg_temp.as_owner('a rule', $$CREATE RULE r AS ON INSERT TO cqrs_es_victim.kept DO ALSO SELECT public.spring()$$, 'qualified');
ROLLBACK TO owned;
SELECT pg_temp.as_owner('an index on an expression', $$CREATE INDEX ON cqrs_es_victim.kept ((public.spring_as_if(id)))$$, 'qualified');
ROLLBACK TO owned;
SELECT pg_temp.as_owner('the condition of an index', $$CREATE INDEX ON cqrs_es_victim.kept (id) WHERE public.spring_as_if(id) <> ''$$, 'qualified');
ROLLBACK TO owned;
SELECT pg_temp.as_owner('a generated column', $$ALTER TABLE cqrs_es_victim.kept ADD g text GENERATED ALWAYS AS (public.spring_as_if(id)) STORED$$, 'qualified');
ROLLBACK TO owned;
SELECT pg_temp.as_owner('a trigger for the statement', $$CREATE TRIGGER s AFTER INSERT ON cqrs_es_victim.kept FOR EACH STATEMENT EXECUTE FUNCTION public.spring_row()$$, 'qualified');
ROLLBACK TO planted;

-- REFERENCES on a read table, with a key that deletes: its owner's trigger runs as who deletes.
ALTER TABLE cqrs_es_victim.kept ADD PRIMARY KEY (id);
GRANT REFERENCES ON cqrs_es_victim.kept TO cqrs_es_mallory;
CREATE SCHEMA cqrs_es_mallory AUTHORIZATION cqrs_es_mallory;
SET LOCAL ROLE cqrs_es_mallory;
CREATE TABLE cqrs_es_mallory.child (id text REFERENCES cqrs_es_victim.kept ON DELETE CASCADE);
CREATE TRIGGER spring AFTER DELETE ON cqrs_es_mallory.child FOR EACH ROW EXECUTE FUNCTION public.spring_row();
RESET ROLE;
SELECT cqrs_es.append_event('planted', 'parent', 'qualified', '{"t": "x"}') IS NULL AS x \gset
INSERT INTO cqrs_es_mallory.child VALUES ((SELECT id FROM cqrs_es_victim.kept LIMIT 1));
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('planted')$$, '55000', NULL, 'a rebuild is refused');
-- a cascade acts as the owner of the table that it comes to, and from 18 on a trigger as who acted when it was set off
SELECT is(pg_temp.ran_as('deleted'), CASE WHEN current_setting('server_version_num')::int < 180000 THEN 'cqrs_es_victim' ELSE 'cqrs_es_mallory' END,
	'a handler that deletes runs it, as the definer, or as who owns it');
ROLLBACK TO planted;

-- In no case has who appends lent anything.
SELECT is_empty($$SELECT FROM pg_roles WHERE rolname LIKE 'cqrs\_es\_%' AND rolsuper$$, 'nobody has become a superuser');
ROLLBACK;

-- A schema that everybody may write to, as public was up to PostgreSQL 14: who defines is told.
CREATE SCHEMA cqrs_es_open;
CREATE SCHEMA "cqrs_es Closed";
GRANT CREATE ON SCHEMA cqrs_es_open TO PUBLIC;
\set statements '\\set VERBOSITY terse\nBEGIN; SET client_min_messages = warning; SET search_path = "cqrs_es Closed", cqrs_es_open; CREATE TABLE t (a text); SELECT FROM cqrs_es.create_projection(\'open\'); SELECT FROM cqrs_es.define_handler(\'open\', \'e\', \'DELETE FROM t\'); SET search_path = "cqrs_es Closed"; SELECT FROM cqrs_es.define_handler(\'open\', \'e\', \'DELETE FROM t\'); ROLLBACK;'
\i test/include/session.sql
SELECT is(:'answer'::text, 'WARNING:  everybody may create objects in schema "cqrs_es_open" of the search_path', 'a schema that is open to all');
DROP SCHEMA cqrs_es_open;
DROP SCHEMA "cqrs_es Closed";
SELECT * FROM finish();
