\i test/include/setup.sql
-- Deferred constraints of read models: a replay that skips blames the event that violates one; and who has more rights
-- than a definer can replay over them as well.

SELECT plan(36);
CREATE ROLE cqrs_es_owner;
CREATE SCHEMA dc;
GRANT USAGE, CREATE ON SCHEMA dc TO cqrs_es_owner;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_owner;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.rebuild_projection, cqrs_es.resume_projection TO cqrs_es_owner;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_owner;
SET search_path = dc, public;
CREATE FUNCTION dc.append(id text, parent text, type text DEFAULT 'made') RETURNS bigint LANGUAGE sql AS
	$$SELECT version FROM cqrs_es.append_event('dc', id, type, jsonb_build_object('parent', parent))$$;
CREATE FUNCTION dc.skipped() RETURNS text LANGUAGE sql AS
	$$SELECT coalesce(string_agg(concat(aggregate_id, ' ', sqlstate), ', ' ORDER BY global_position), 'none') FROM cqrs_es.skipped_events WHERE projection LIKE 'dc%'$$;

-- nodes that refer to other nodes
CREATE TABLE dc.nodes (id text PRIMARY KEY, parent text CONSTRAINT parent REFERENCES dc.nodes DEFERRABLE INITIALLY DEFERRED,
	CONSTRAINT once UNIQUE (parent) DEFERRABLE INITIALLY IMMEDIATE);
CREATE FUNCTION dc.nodes() RETURNS text LANGUAGE sql AS $$SELECT coalesce(string_agg(concat_ws('>', id, parent), ' ' ORDER BY id), 'none') FROM dc.nodes$$;
CREATE FUNCTION dc.insert_node(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$
	INSERT INTO dc.nodes VALUES (event.aggregate_id, event.payload->>'parent');
	INSERT INTO dc.nodes SELECT event.payload->>'parent', NULL WHERE event.event_type = 'both';
$$;
SELECT cqrs_es.create_projection('dc', '{dc}', '{nodes}', backfill => true) IS NULL AS x,
	cqrs_es.define_handler('dc', '*', 'dc.insert_node(cqrs_es.event)') IS NULL AS y \gset
SELECT append('a', NULL) AS x \gset
SELECT append('b', 'a') AS x \gset
SELECT append('c', 'nobody') AS x \gset
SELECT append('d', 'e', 'both') AS x \gset
SELECT append('f', 'd') AS x \gset

-- skipping
SELECT is(cqrs_es.resume_projection('dc', 'skip'), 4::bigint, 'a resume skips what violates a deferred foreign key');
SELECT is(dc.skipped(), 'c 23503', 'it is that event');
SELECT is(dc.nodes(), 'a b>a d>e e f>d', 'the others are there, also one that refers to what it makes later');
SELECT is(cqrs_es.rebuild_projection('dc', 'skip'), 4::bigint, 'a rebuild');
SELECT is(dc.skipped(), 'c 23503', 'blames it');
CALL cqrs_es.rebuild_in_portions('dc', 2, 'skip');
SELECT is(dc.skipped(), 'c 23503', 'a rebuild in portions');
SELECT is(dc.nodes(), 'a b>a d>e e f>d', 'has the same rows');
SELECT results_eq($$SELECT * FROM cqrs_es.retry_skipped('dc')$$, $$VALUES (0::bigint, 1::bigint)$$, 'to try it again fails again');
INSERT INTO dc.nodes VALUES ('nobody');
SELECT results_eq($$SELECT * FROM cqrs_es.retry_skipped('dc')$$, $$VALUES (1::bigint, 0::bigint)$$, 'until there is what it refers to');
SELECT is(cqrs_es.rebuild_projection('dc', 'skip'), 4::bigint, 'a rebuild that deletes that row');
SELECT is(dc.skipped(), 'c 23503', 'skips it once more');

-- not skipping: all is as it is declared
SELECT cqrs_es.pause_projection('dc') IS NULL AS x, cqrs_es.define_handler('dc', '*', $$INSERT INTO nodes SELECT event.aggregate_id, event.payload->>'parent' WHERE event.payload->>'parent' IS DISTINCT FROM 'nobody'$$) IS NULL AS y \gset
SELECT append('e', NULL) AS x \gset
SELECT is(cqrs_es.rebuild_projection('dc'), 6::bigint, 'without skipping, a row may come after what refers to it');
SELECT is(dc.nodes(), 'a b>a d>e e f>d', 'if it is there at the end');
SELECT is(cqrs_es.resume_projection('dc'), 0::bigint, 'it follows again');

-- what is deferred stays so behind a replay, and what is not, too
BEGIN;
SELECT cqrs_es.rebuild_projection('dc', 'skip') AS x \gset
SELECT lives_ok($$INSERT INTO dc.nodes VALUES ('x', 'later')$$, 'behind a rebuild the key is still deferred');
SELECT throws_ok($$INSERT INTO dc.nodes VALUES ('y', 'later')$$, '23505', NULL, 'and the other is still not');
DELETE FROM dc.nodes WHERE id = 'x';
COMMIT;

-- what does not hold from the beginning
CREATE TABLE dc.others (node text REFERENCES dc.nodes DEFERRABLE INITIALLY DEFERRED);
SELECT is(cqrs_es.rebuild_projection('dc', 'skip'), 4::bigint, 'one that refers to what another event makes later is blamed');
SELECT is(dc.skipped(), 'd 23503, f 23503', 'and what refers to that');
INSERT INTO dc.others VALUES ('a');
SELECT is(cqrs_es.rebuild_projection('dc', 'skip'), 6::bigint, 'not when a table refers to rows that were deleted');
SELECT is(dc.skipped(), 'none', 'then the commit tells');
TRUNCATE dc.others;

-- a name that stands for another one as well
SELECT cqrs_es.define_handler('dc', '*', 'dc.insert_node(cqrs_es.event)') IS NULL AS y \gset
CREATE TABLE dc.same (n integer CONSTRAINT parent CHECK (n > 0));
\set statements 'SELECT cqrs_es.rebuild_projection(''dc'', ''skip'');'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  23503', 'a constraint of the same name that is not deferred leaves it to the commit');
ALTER TABLE dc.same RENAME CONSTRAINT parent TO positive;
\i test/include/session.sql
SELECT is(:'answer'::text, '4', 'under a name of its own it does not');

-- unique constraints, exclusion constraints and triggers
CREATE TABLE dc.places (id text, place integer, CONSTRAINT one_place UNIQUE (place) DEFERRABLE INITIALLY DEFERRED,
	CONSTRAINT one_id EXCLUDE (id WITH =) DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION dc.check_place() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF NEW.place < 0 THEN RAISE SQLSTATE 'DC001'; END IF; RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER checked AFTER INSERT ON dc.places DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dc.check_place();
SELECT cqrs_es.create_projection('dc places', '{dc place}', '{places}', backfill => true) IS NULL AS x,
	cqrs_es.define_handler('dc places', '*', $$INSERT INTO places VALUES (event.payload->>'id', (event.payload->>'place')::integer)$$) IS NULL AS y,
	cqrs_es.drop_projection('dc') IS NULL AS z \gset
SELECT count(*) AS x FROM (VALUES ('1', 'a', 1), ('2', 'b', 1), ('3', 'a', 2), ('4', 'c', -1), ('5', 'd', 3)) AS v (stream, id, place),
	cqrs_es.append_event('dc place', stream, 'made', jsonb_build_object('id', id, 'place', place)) \gset
SELECT is(cqrs_es.resume_projection('dc places', 'skip'), 2::bigint, 'deferred constraints of other kinds');
SELECT is(dc.skipped(), '2 23505, 3 23P01, 4 DC001', 'blame their events');
SELECT cqrs_es.drop_projection('dc places') IS NULL AS x \gset

-- a definer without the rights of who replays
CREATE TABLE dc.parents (id text PRIMARY KEY);
CREATE TABLE dc.children (id text PRIMARY KEY, parent text REFERENCES dc.parents DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE dc.ran_as (who text);
CREATE FUNCTION dc.note_who() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		ALTER ROLE cqrs_es_owner SUPERUSER;
	EXCEPTION WHEN insufficient_privilege THEN
	END;
	INSERT INTO dc.ran_as VALUES (current_user);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER note AFTER INSERT ON dc.children DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION dc.note_who();
ALTER TABLE dc.parents OWNER TO cqrs_es_owner;
ALTER TABLE dc.children OWNER TO cqrs_es_owner;
ALTER TABLE dc.ran_as OWNER TO cqrs_es_owner;
CREATE FUNCTION dc.family() RETURNS text LANGUAGE sql AS $$SELECT format('%s parents, %s children', (SELECT count(*) FROM dc.parents), (SELECT count(*) FROM dc.children))$$;
SET ROLE cqrs_es_owner;
SELECT cqrs_es.create_projection('dc family', '{dc family}', '{children,parents}', backfill => true) IS NULL AS x,
	cqrs_es.define_handler('dc family', 'born', $$WITH child AS (INSERT INTO children VALUES (event.aggregate_id, event.payload->>'parent')) INSERT INTO parents VALUES (event.payload->>'parent') ON CONFLICT DO NOTHING$$) IS NULL AS x,
	cqrs_es.define_handler('dc family', 'orphaned', $$INSERT INTO children VALUES (event.aggregate_id, 'nobody')$$) IS NULL AS x \gset
RESET ROLE;
SELECT count(cqrs_es.append_event('dc family', id, 'born', '{"parent": "p"}')) AS x FROM unnest('{a,b}'::text[]) AS id \gset
SELECT is(cqrs_es.resume_projection('dc family'), 2::bigint, 'a superuser resumes what has deferred keys and triggers');
SELECT is(dc.family(), '1 parents, 2 children', 'with all rows');
SELECT is(cqrs_es.rebuild_projection('dc family'), 2::bigint, 'rebuilds it');
CALL cqrs_es.rebuild_in_portions('dc family', 1);
SELECT is(dc.family(), '1 parents, 2 children', 'in portions, too');
SELECT is((SELECT string_agg(DISTINCT who, ', ') FROM dc.ran_as), 'cqrs_es_owner', 'the triggers have run as the owner');
SELECT is((SELECT rolsuper FROM pg_roles WHERE rolname = 'cqrs_es_owner'), false, 'who is what they were');
SELECT cqrs_es.pause_projection('dc family') IS NULL AS x \gset
SELECT cqrs_es.append_event('dc family', 'c', 'orphaned', '{}') AS x \gset
SELECT is((pg_temp.error_of($$SELECT cqrs_es.resume_projection('dc family')$$, '{state,detail}')), ARRAY['QE201', E'insert or update on table "children" violates foreign key constraint "children_parent_fkey" (SQLSTATE 23503)\nKey (parent)=(nobody) is not present in table "parents".'], 'a violation is that of the event');
SELECT is(cqrs_es.resume_projection('dc family', 'skip'), 0::bigint, 'or is skipped');
SELECT is(dc.skipped(), 'c 23503', 'with its event');

-- what the caller has left waiting is the caller's
BEGIN;
INSERT INTO dc.nodes VALUES ('x', 'later');
SELECT is(cqrs_es.rebuild_projection('dc family', 'skip'), 2::bigint, 'what waits already does not matter to the replay');
INSERT INTO dc.nodes VALUES ('later', 'x');
SELECT lives_ok('SET CONSTRAINTS ALL IMMEDIATE', 'and is well at the end');
COMMIT;
BEGIN;
SELECT cqrs_es.rebuild_projection('dc family', 'skip') AS x \gset
SELECT lives_ok($$INSERT INTO dc.children VALUES ('x', 'later')$$, 'behind it the keys are deferred again');
DELETE FROM dc.children WHERE id = 'x';
COMMIT;

SELECT * FROM finish();
SELECT cqrs_es.drop_projection('dc family') IS NULL AS x \gset
DROP SCHEMA dc CASCADE;
DROP OWNED BY cqrs_es_owner;
DROP ROLE cqrs_es_owner;
