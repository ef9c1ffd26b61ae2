\i test/include/setup.sql
-- A file of declarations can be run again: what is the same is left, and not even
-- written; what differs is changed, or refused with the difference. And nobody drops
-- an aggregate type by mistake that has events.
BEGIN;
SELECT plan(98);
SET LOCAL client_min_messages = error;
CREATE FUNCTION pg_temp.row_of(name text) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce((SELECT concat(ctid, xmin, a) FROM cqrs_es.aggregates a WHERE aggregate_type = name),
		(SELECT concat(ctid, xmin, p) FROM cqrs_es.projections p WHERE p.name = row_of.name))
$$;

-- aggregate types
SELECT cqrs_es.create_aggregate('da', '{"n": 0}', snapshot_every => 7) IS NULL AS x \gset
SELECT pg_temp.row_of('da') AS before \gset
SELECT lives_ok($$SELECT cqrs_es.create_aggregate('da', '{"n": 0}', 7, 1)$$, 'the same aggregate type again');
SELECT is(pg_temp.row_of('da'), :'before', 'is left as it is');
SELECT lives_ok($$SELECT cqrs_es.create_aggregate('da', '{"n": 1}', keep_snapshots => 2)$$, 'another one');
SELECT is((SELECT (initial_state, snapshot_every, keep_snapshots)::text FROM cqrs_es.aggregates WHERE aggregate_type = 'da'), '("{""n"": 1}",100,2)', 'is changed');
SELECT cqrs_es.append_event('da', '1', 'X', '{}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('da', '1'), '{"n": 1}', 'and replay knows it');
SELECT cqrs_es.create_aggregate('da', '{"n": 5}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('da', '1'), '{"n": 5}', 'at once');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.create_aggregate('da', NULL)$$), '22004', 'null is none');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.create_aggregate('da', snapshot_every => -1)$$), '22023', 'nor is a negative number');

-- projections
CREATE TABLE da_1 (id text PRIMARY KEY); CREATE TABLE da_2 (id text PRIMARY KEY);
CREATE TABLE da_states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
SELECT cqrs_es.create_projection('da none'), cqrs_es.create_projection('da', '{da,db}', '{da_1,da_2}'), cqrs_es.create_projection('da states', state_of => 'da', read_models => '{da_states}') \gset x_
SELECT cqrs_es.create_projection('da backfill', '{da}', backfill => true) \gset x_
CREATE TEMP TABLE again (n int, name text, args text);
INSERT INTO again VALUES (1, 'da none', ''), (2, 'da none', ', read_models => ''{}'''), (3, 'da', ', ''{da,db}'', ''{da_1,da_2}'''), (4, 'da', ', ''{db,da,da}'', ''{da_2,da_1}'''),
	(5, 'da states', ', state_of => ''da'', read_models => ''{da_states}'''), (6, 'da', ', ''{da,db}'', ''{da_1,da_2}'', backfill => true'), (7, 'da backfill', ', ''{da}'', backfill => true');
SELECT is((SELECT pg_temp.row_of(name) || pg_temp.state_of(format('SELECT cqrs_es.create_projection(%L%s)', name, args)) || pg_temp.row_of(name)), (SELECT pg_temp.row_of(name) || 'none' || pg_temp.row_of(name)),
	format('the same again: %s%s', name, args)) FROM again ORDER BY n;
SELECT is((SELECT paused FROM cqrs_es.projections WHERE name = 'da backfill'), true, 'what is to be filled is still paused');
SELECT is((SELECT paused FROM cqrs_es.projections WHERE name = 'da'), false, 'what is live stays so');
SELECT is(pg_temp.error_of(format('SELECT cqrs_es.create_projection(%L%s)', name, args)), ARRAY['42710', format('projection "%s" already exists, and is another one', name), detail,
	'Its tables have the rows of that. Drop it with drop_projection(), create it anew, define its handlers, and rebuild it.'], format('another one: %s%s', name, args))
FROM (VALUES (1, 'da none', ', ''{da}''', 'Its aggregate_types is NULL.'), (2, 'da none', ', read_models => ''{da_1}''', 'Its read_models is {}.'),
	(3, 'da', '', 'Its aggregate_types is {da,db}, read_models is {public.da_1,public.da_2}.'), (4, 'da', ', ''{da}'', ''{da_1,da_2}''', 'Its aggregate_types is {da,db}.'),
	(5, 'da', ', ''{da,db,dc}'', ''{da_1,da_2}''', 'Its aggregate_types is {da,db}.'), (6, 'da', ', ''{da,db}'', ''{da_1}''', 'Its read_models is {public.da_1,public.da_2}.'),
	(7, 'da states', ', ''{da}'', ''{da_states}''', 'Its state_of is da.'), (8, 'da', ', state_of => ''da'', read_models => ''{da_states}''', 'Its state_of is NULL, read_models is {public.da_1,public.da_2}.')) a (n, name, args, detail) ORDER BY n;
ALTER TABLE da_1 RENAME TO da_renamed;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.create_projection('da', '{da,db}', '{da_renamed,da_2}')$$), 'none', 'a table is the same when it is renamed');

SELECT cqrs_es.create_projection('da bounds', read_models => '[0:1]={da_renamed,da_2}') \gset x_
SELECT is((SELECT (read_models, errors)::text FROM cqrs_es.projection_status WHERE name = 'da bounds'), '("{da_renamed,da_2}",)', 'an array may begin anywhere');
SELECT cqrs_es.alter_projection('da bounds', read_models => '[2:3]={da_2,da_2}') \gset x_
SELECT is((SELECT (read_models, errors)::text FROM cqrs_es.projection_status WHERE name = 'da bounds'), '({da_2},)', 'and have a table twice');
SELECT cqrs_es.drop_projection('da bounds') \gset x_

-- not somebody else's
CREATE ROLE da_other;
GRANT USAGE ON SCHEMA cqrs_es TO da_other;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.drop_projection TO da_other;
SELECT is(pg_temp.state_of($$SET LOCAL ROLE da_other; SELECT cqrs_es.create_projection('da none')$$), '42501', 'the same of somebody else is refused');
RESET ROLE;

-- all the others, twice
CREATE FUNCTION da_d(jsonb, jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT '[]'::jsonb$$;
CREATE FUNCTION da_u(jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT $1$$;
SELECT is(pg_temp.state_of(statement || ';' || statement), 'none', statement)
FROM (VALUES (1, $$SELECT cqrs_es.define_reducer('da', 'X', '[]')$$), (2, $$SELECT cqrs_es.define_command('da', 'C', 'da_d(state, command)')$$),
	(3, $$SELECT cqrs_es.define_upcaster('X', '1', '2', 'da_u(jsonb)')$$), (4, $$SELECT cqrs_es.define_handler('da', 'X', 'INSERT INTO da_2 VALUES (event.aggregate_id)')$$),
	(5, $$SELECT cqrs_es.alter_aggregate('da', snapshot_every => 3)$$), (6, $$SELECT cqrs_es.resume_projection('da backfill')$$)) s (n, statement) ORDER BY n;

-- what is the same is not even looked at by other sessions: nothing is written
CREATE FUNCTION da_r(jsonb, cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$SELECT $1$$;
CREATE FUNCTION da_h(cqrs_es.event) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION da_number(jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT $1$$;
CREATE TEMP TABLE define (n int, statement text, other text);
INSERT INTO define VALUES (1, $$define_reducer('da', 'X', '[]')$$, $$define_reducer('da', 'X', 'da_r')$$),
	(2, $$define_reducer('da', 'Y', 'da_r')$$, $$define_reducer('da', 'Y', '[]')$$),
	(3, $$define_reducer('da', 'Z', '[{"op": "set", "path": "/n", "value": 1}]'::jsonb)$$, $$define_reducer('da', 'Z', '[{"op": "set", "path": "/n", "value": 1.0}]'::jsonb)$$),
	(4, $$define_command('da', 'C', 'da_d(state, command)')$$, $$define_command('da', 'C', $q$'[]'::jsonb$q$)$$),
	(5, $$define_command('da', 'D', 'da_d(jsonb, jsonb)'::regprocedure)$$, $$define_command('da', 'D', $q$'[]'::jsonb$q$)$$),
	(6, $$define_upcaster('X', '1', '2', 'da_u(jsonb)')$$, $$define_upcaster('X', '1', '3', 'da_u(jsonb)')$$),
	(7, $$define_upcaster('X', '3', '4', 'da_u')$$, $$define_upcaster('X', '3', '4', 'da_number')$$),
	(8, $$define_handler('da', 'X', 'INSERT INTO da_2 VALUES (event.aggregate_id)')$$, $$define_handler('da', 'X', 'INSERT INTO da_2 VALUES (event.event_id::text)')$$),
	(9, $$define_handler('da', '*', 'da_h')$$, $$define_handler('da', '*', 'DELETE FROM da_2')$$),
	(10, $$create_aggregate('da', '{"n": 1}')$$, $$create_aggregate('da', '{"n": 1.00}')$$),
	(11, $$alter_aggregate('da', snapshot_every => 3, strict => false)$$, $$alter_aggregate('da', keep_snapshots => 5)$$),
	(12, $$create_projection('da none')$$, NULL),
	(13, $$alter_projection('da', session_user::regrole, '{da_renamed,da_2}')$$, $$alter_projection('da', NULL, '{da_2,da_renamed}')$$);
CREATE FUNCTION da_written() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'written' USING ERRCODE = 'DA001'; END$$;
CREATE FUNCTION pg_temp.watch(boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY '{aggregates,reducers,commands,upcasters,projections,handlers}'::text[] LOOP
		IF $1 THEN
			EXECUTE format('CREATE TRIGGER da BEFORE INSERT OR UPDATE OR DELETE ON cqrs_es.%I EXECUTE FUNCTION da_written()', name);
		ELSE
			EXECUTE format('DROP TRIGGER da ON cqrs_es.%I', name);
		END IF;
	END LOOP;
END $$;
CREATE FUNCTION pg_temp.again(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE 'SELECT cqrs_es.' || statement;
	PERFORM pg_temp.watch(true);
	result := pg_temp.state_of('SELECT cqrs_es.' || statement);
	PERFORM pg_temp.watch(false);
	RETURN result;
END $$;
CREATE FUNCTION pg_temp.differs(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM pg_temp.watch(true);
	result := pg_temp.state_of('SELECT cqrs_es.' || statement);
	PERFORM pg_temp.watch(false);
	RETURN result;
END $$;
SELECT is(pg_temp.again(statement), 'none', 'nothing is written: ' || statement) FROM define ORDER BY n;
SELECT is(pg_temp.differs(other), 'DA001', 'it is: ' || other) FROM define WHERE other IS NOT NULL ORDER BY n;
SET LOCAL search_path = public, pg_catalog;
SELECT is(pg_temp.differs($$define_handler('da', 'X', 'INSERT INTO da_2 VALUES (event.aggregate_id)')$$), 'DA001', 'another search_path is another handler');
RESET search_path;

-- dropping what is not there
CREATE TEMP TABLE dropped (n int, statement text, state text, message text);
INSERT INTO dropped VALUES (1, $$drop_aggregate('da nothing'$$, 'QE101', 'aggregate type "da nothing" is not declared'),
	(2, $$drop_reducer('da', 'nothing'$$, '42704', 'reducer of aggregate type "da" for event type "nothing" does not exist'),
	(3, $$drop_reducer('da nothing', 'X'$$, 'QE101', 'aggregate type "da nothing" is not declared'),
	(4, $$drop_command('da', 'nothing'$$, '42704', 'command "nothing" of aggregate type "da" does not exist'),
	(5, $$drop_command('da nothing', 'C'$$, '42704', 'command "C" of aggregate type "da nothing" does not exist'),
	(6, $$drop_upcaster('X', 'nothing'$$, '42704', 'upcaster of event type "X" from version "nothing" does not exist'),
	(7, $$drop_projection('da nothing'$$, '42704', 'projection "da nothing" does not exist'),
	(8, $$drop_handler('da', 'nothing'$$, '42704', 'projection "da" has no handler for event type "nothing"'),
	(9, $$drop_handler('da nothing', 'X'$$, '42704', 'projection "da nothing" does not exist');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.%s)', statement)), state, statement) FROM dropped ORDER BY n;
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.%s, if_exists => NULL)', statement)), state, 'null is no yes: ' || statement) FROM dropped ORDER BY n;
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.%s, if_exists => true)', statement)), 'none', 'if it exists: ' || statement) FROM dropped ORDER BY n;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.drop_handler('da', '*', true); SELECT cqrs_es.drop_handler('da', '*')$$), '42704', 'what exists is dropped');
SELECT is(pg_temp.state_of($$SET LOCAL ROLE da_other; SELECT cqrs_es.drop_projection('da none', true)$$), '42501', 'and of somebody else it is not');
RESET ROLE;

-- dropping what has events
SELECT is(pg_temp.state_of($$SELECT cqrs_es.drop_projection('da states')$$), 'none', 'nothing keeps its states');
SET LOCAL cqrs_es.tenant_id = 'somebody';
SELECT is(pg_temp.error_of($$SELECT cqrs_es.drop_aggregate('da')$$), ARRAY['2BP01', 'cannot drop aggregate type "da" because there are events of it', 'There is stream "da/1", for instance.',
	'SELECT cqrs_es.drop_aggregate(''da'', force => true) drops the declaration, its reducers, commands and snapshots; the events stay.'], 'the events of any tenant count');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.drop_aggregate('da', NULL)$$), '2BP01', 'null is no force');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.drop_aggregate('da', force => true)$$), 'none', 'with force it is dropped');
SET LOCAL cqrs_es.tenant_id = '';
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('da', '1')), 1::bigint, 'and its events stay');
SELECT cqrs_es.create_aggregate('da empty') \gset x_
SELECT is(pg_temp.state_of($$SELECT cqrs_es.drop_aggregate('da empty')$$), 'none', 'what has no events is dropped without');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.drop_aggregate('da')$$, '{state,hint}'), '{QE101,"Those that are stand in the table cqrs_es.aggregates."}', 'a wrong name is not created by dropping it');

-- two projections of one table
SET LOCAL client_min_messages = warning;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.create_projection('da single', read_models => '{da_states}')$$), 'none', 'no warning for a table of its own');
DROP OWNED BY da_other;
DROP ROLE da_other;
SELECT finish();
ROLLBACK;
