\i test/include/setup.sql
-- Triggers of read tables that append: what followed from old events is in the log, so a rebuild refuses them, whenever
-- they run.

SELECT plan(30);
CREATE SCHEMA rt;
SET search_path = rt, public;

-- A read table, a projection over it, and an event.
CREATE FUNCTION rt.make(name text) RETURNS void LANGUAGE plpgsql AS $f$
BEGIN
	EXECUTE format('CREATE TABLE rt.%I (id text PRIMARY KEY)', name);
	PERFORM cqrs_es.create_projection(name, ARRAY[name], ARRAY[name::regclass]);
	PERFORM cqrs_es.define_handler(name, 'made', format('INSERT INTO %I VALUES (event.aggregate_id)', name));
	PERFORM cqrs_es.append_event(name, '1', 'made', '{}');
END $f$;
CREATE FUNCTION rt.append() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.append_event(TG_TABLE_NAME, '1', 'followed', '{}');
	RETURN NULL;
END $$;
CREATE FUNCTION rt.pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION rt.events(type text) RETURNS bigint LANGUAGE sql AS 'SELECT cqrs_es.stream_version(type, ''1'')';

-- at once
SELECT rt.make('inserted') IS NULL AS x \gset
CREATE TRIGGER follow AFTER INSERT ON rt.inserted FOR EACH ROW EXECUTE FUNCTION rt.append();
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('inserted')$$, 'QE201', NULL, 'a trigger on INSERT');
SELECT is(rt.events('inserted'), 1::bigint, 'nothing was appended');

-- when the table is emptied
SELECT rt.make('deleted') IS NULL AS x \gset
CREATE TRIGGER follow AFTER DELETE ON rt.deleted FOR EACH ROW EXECUTE FUNCTION rt.append();
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('deleted')$$, '55000', NULL, 'a trigger on DELETE');
SELECT cqrs_es.pause_projection('deleted') IS NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('deleted')$$, '55000', NULL, 'of a paused projection');
SELECT is(rt.events('deleted'), 1::bigint, 'nothing was appended');

-- through a foreign key
SELECT rt.make('parent') IS NULL AS x \gset
CREATE TABLE rt.child (id text REFERENCES rt.parent ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
CREATE TRIGGER follow AFTER DELETE ON rt.child FOR EACH ROW EXECUTE FUNCTION rt.append();
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('parent')$$, '55000', NULL, 'no row refers to the table');
INSERT INTO rt.child VALUES ('1');
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('parent')$$, '55000', NULL, 'a trigger on a table that refers to it');

-- deferred
SELECT rt.make('deferred') IS NULL AS x \gset
CREATE CONSTRAINT TRIGGER follow AFTER INSERT ON rt.deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rt.append();
SELECT lives_ok($$SELECT cqrs_es.append_event('deferred', '2', 'made', '{}')$$, 'a deferred trigger may append');
SELECT is(rt.events('deferred'), 2::bigint, 'and has appended');
\set statements 'SELECT cqrs_es.rebuild_projection(''deferred'');'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  55000', 'but not in a rebuild, at commit');
\set statements 'BEGIN; SELECT cqrs_es.rebuild_projection(''deferred'') > 0 AS x \\gset\nPREPARE TRANSACTION ''deferred''; ROLLBACK PREPARED ''deferred'';'
\i test/include/session.sql
SELECT is(:'answer'::text, E'ERROR:  55000\nERROR:  42704', 'nor when the transaction is prepared, which it is not then');
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('deferred'); SET CONSTRAINTS ALL IMMEDIATE$$, '55000',
	'events cannot be appended while deferred triggers of a rebuild wait or run', 'nor before commit');
SELECT throws_ok($$SET CONSTRAINTS ALL IMMEDIATE; SELECT cqrs_es.rebuild_projection('deferred')$$, 'QE201', NULL, 'nor at once then');
SELECT is(rt.events('deferred'), 2::bigint, 'nothing was appended');
SELECT cqrs_es.pause_projection('deferred') IS NULL AS x, version FROM cqrs_es.append_event('deferred', '3', 'made', '{}') \gset
SELECT lives_ok($$SELECT cqrs_es.resume_projection('deferred')$$, 'it may when the projection is resumed');
SELECT is(rt.events('deferred'), 3::bigint, 'and has appended');
ALTER TABLE rt.deferred DISABLE TRIGGER follow;
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('deferred')$$, 'one that is disabled is in nobody''s way');

-- and what a deferred trigger sets off
SELECT rt.make('first') IS NULL AS x \gset
CREATE TABLE rt.second (id text);
CREATE FUNCTION rt.next() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO rt.second VALUES (1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER follow AFTER INSERT ON rt.first DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rt.next();
CREATE CONSTRAINT TRIGGER follow AFTER INSERT ON rt.second DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rt.append();
\set statements 'SELECT cqrs_es.rebuild_projection(''first'');'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  55000', 'what a deferred trigger sets off is refused, too');
SELECT is(rt.events('second'), 0::bigint, 'a deferred trigger behind a deferred trigger');

-- those that append nothing
SELECT rt.make('checked') IS NULL AS x \gset
CREATE CONSTRAINT TRIGGER follow AFTER INSERT ON rt.checked DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rt.pass();
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('checked')$$, 'a deferred trigger that appends nothing');
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('checked'); SELECT cqrs_es.append_event('other', '1', 'made', '{}')$$, '55000', NULL, 'append before it has run');
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('checked'); SET CONSTRAINTS ALL IMMEDIATE; SELECT cqrs_es.append_event('other', '1', 'made', '{}')$$, 'after it has run');
BEGIN;
SAVEPOINT s;
SELECT cqrs_es.rebuild_projection('checked') > 0 AS x \gset
ROLLBACK TO s;
SELECT lives_ok($$SELECT cqrs_es.append_event('other', '1', 'made', '{}')$$, 'after a rebuild that was rolled back');
SAVEPOINT s;
SELECT cqrs_es.rebuild_projection('checked') > 0 AS x \gset
RELEASE s;
SELECT throws_ok($$SELECT cqrs_es.append_event('other', '1', 'made', '{}')$$, '55000', NULL, 'after one in a subtransaction');
SAVEPOINT s;
SET CONSTRAINTS ALL IMMEDIATE;
SELECT lives_ok($$SELECT cqrs_es.append_event('other', '1', 'made', '{}')$$, 'after it has run in a subtransaction');
ROLLBACK TO s;
SELECT throws_ok($$SELECT cqrs_es.append_event('other', '1', 'made', '{}')$$, '55000', NULL, 'and when that is rolled back');
COMMIT;
SELECT lives_ok($$SELECT cqrs_es.append_event('other', '1', 'made', '{}')$$, 'in the next transaction');

-- rows that come before those that they refer to
CREATE TABLE rt.nodes (id text PRIMARY KEY, parent text REFERENCES rt.nodes DEFERRABLE INITIALLY DEFERRED);
SELECT cqrs_es.create_projection('nodes', '{nodes}', '{nodes}') IS NULL AS x,
	cqrs_es.define_handler('nodes', 'made', $$INSERT INTO nodes VALUES (event.payload->>'id', event.payload->>'parent')$$) IS NULL AS y \gset
SELECT version FROM cqrs_es.append_events('nodes', '1', '[{"type": "made", "payload": {"id": 1, "parent": 2}}, {"type": "made", "payload": {"id": 2}}]') \gset
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('nodes'); SELECT cqrs_es.append_event('nodes', '1', 'made', '{"id": 3, "parent": 1}')$$,
	'a deferred foreign key, and an append behind the rebuild');
SELECT is(count(*), 3::bigint, 'all nodes are there') FROM rt.nodes;
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE event_type = 'followed'), 2::bigint, 'nothing followed twice');

SELECT * FROM finish();
SELECT bool_and(cqrs_es.drop_projection(name) IS NULL) AS x FROM cqrs_es.projections WHERE name IN ('inserted', 'deleted', 'parent', 'deferred', 'first', 'checked', 'nodes') \gset
DROP SCHEMA rt CASCADE;
