\i test/include/setup.sql
-- Upcasters: old payloads are lifted on every way out, the stored row never changes.
-- read_all hands out what is committed, to be looked at below.
BEGIN;
CREATE FUNCTION public.upcast_committed(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT payload || ''{"lifted": true}''';
SELECT coalesce(max(global_position), 0) AS position FROM cqrs_es.events \gset
SELECT cqrs_es.append_event('upcast committed', 'a', 'upcast committed', '{"n": 1}') IS NULL AS x \gset
SELECT cqrs_es.define_upcaster('upcast committed', '1', '2', 'public.upcast_committed(jsonb)') IS NULL AS x \gset
COMMIT;
SELECT event_version || ' ' || payload AS lifted FROM cqrs_es.read_all(:position, 1, ARRAY['upcast committed']) \gset
BEGIN;
SELECT cqrs_es.drop_upcaster('upcast committed', '1') IS NULL AS x \gset
DROP FUNCTION public.upcast_committed(jsonb);
COMMIT;
SELECT event_version || ' ' || payload AS raw FROM cqrs_es.read_all(:position, 1, ARRAY['upcast committed']) \gset

BEGIN;
SELECT plan(79);
SELECT is(:'lifted'::text, '2 {"n": 1, "lifted": true}', 'read_all');
SELECT is(:'raw'::text, '1 {"n": 1}', 'read_all without an upcaster');
CREATE FUNCTION pg_temp.error(statement text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE state text; message text; context text;
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, context = PG_EXCEPTION_CONTEXT;
	RETURN ARRAY[state, message, substring(context from '(?n)event \d+ of stream "[^"]*"')];
END $$;
CREATE FUNCTION v1(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$SELECT payload - 'name' || jsonb_build_object('names', string_to_array(payload ->> 'name', ' '))$$;
CREATE FUNCTION v2(payload jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$BEGIN
	RETURN jsonb_build_object('first', payload #> '{names,0}', 'last', payload #> '{names,-1}'); END$$;
CREATE FUNCTION v3(payload jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN payload || '{"v": 3}'; END$$;
CREATE FUNCTION as_null(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION raises(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'cannot lift %', payload USING ERRCODE = 'ZZ001'; END$$;

SELECT cqrs_es.create_aggregate('person', '{}', 2, 3) IS NULL AS x \gset
CREATE TABLE seen (sequence bigint, version text, payload jsonb);
SELECT cqrs_es.create_projection('seen') IS NULL AS x \gset
SELECT cqrs_es.define_handler('seen', 'named', 'INSERT INTO seen VALUES (event.sequence, event.event_version, event.payload)') IS NULL AS x \gset
SELECT cqrs_es.append_event('person', 'a', 'named', '{"name": "Ada King"}', NULL, '{}', '01890a5d-ac96-774b-bcce-b302099a8057') IS NULL AS x \gset
SELECT cqrs_es.append_event('person', 'a', 'named', '{"names": ["Ada", "Lovelace"]}', NULL, '{}', NULL, '2') IS NULL AS x \gset
SELECT cqrs_es.append_event('person', 'a', 'named', '{"name": "alpha"}', NULL, '{}', NULL, '0.9-beta') IS NULL AS x \gset
SELECT cqrs_es.append_event('person', 'a', 'other', '{"name": "Other Type"}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('person', 'a', 2), '{"name": "Ada King", "names": ["Ada", "Lovelace"]}', 'before there are any');

-- a chain

SELECT lives_ok($$SELECT cqrs_es.define_upcaster('named', '2', '3', 'v2(jsonb)')$$, 'the second step first');
SELECT lives_ok($$SELECT cqrs_es.define_upcaster('named', '1', '2', 'v1(jsonb)')$$, 'then the first');
CREATE TEMP TABLE lifted (sequence bigint, event_type text, version text, payload jsonb);
INSERT INTO lifted VALUES (1, 'named', '3', '{"first": "Ada", "last": "King"}'), (2, 'named', '3', '{"first": "Ada", "last": "Lovelace"}'),
	(3, 'named', '0.9-beta', '{"name": "alpha"}'), (4, 'other', '1', '{"name": "Other Type"}');
SELECT results_eq($$SELECT sequence, event_type, event_version, payload FROM cqrs_es.read_stream('person', 'a')$$, 'SELECT * FROM lifted ORDER BY 1', 'read_stream');
SELECT results_eq($$SELECT sequence, event_type, event_version, payload FROM cqrs_es.read_stream('person', 'a', NULL, NULL, true)$$, 'SELECT * FROM lifted ORDER BY 1 DESC', 'read_stream backward');
SELECT results_eq($$SELECT sequence, event_type COLLATE "default", event_version COLLATE "default", payload FROM cqrs_es.replay('person', 'a')$$, 'SELECT * FROM lifted ORDER BY 1', 'replay');
SELECT is((SELECT array_agg(state ORDER BY sequence) FROM cqrs_es.replay('person', 'a')), ARRAY['{"first": "Ada", "last": "King"}', '{"first": "Ada", "last": "Lovelace"}',
	'{"first": "Ada", "last": "Lovelace", "name": "alpha"}', '{"first": "Ada", "last": "Lovelace", "name": "Other Type"}']::jsonb[], 'its states');
SELECT is(cqrs_es.aggregate_state('person', 'a'), '{"first": "Ada", "last": "Lovelace", "name": "Other Type"}', 'aggregate_state');
SELECT is((cqrs_es.load_aggregate('person', 'a', 1)).state, '{"first": "Ada", "last": "King"}', 'load_aggregate');
SELECT results_eq($$SELECT sequence, event_version COLLATE "default", payload::text FROM cqrs_es.events WHERE aggregate_type = 'person' ORDER BY 1$$, $$VALUES
	(1::bigint, '1', '{"name": "Ada King"}'), (2, '2', '{"names": ["Ada", "Lovelace"]}'), (3, '0.9-beta', '{"name": "alpha"}'), (4, '1', '{"name": "Other Type"}')$$, 'what is stored stays');

-- the functions that fold, and projections

CREATE FUNCTION versions(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN
	RETURN state || jsonb_build_object(event.sequence::text, event.event_version || ' ' || event.payload); END$$;
SELECT cqrs_es.create_aggregate('fn', '{}', 0) IS NULL AS x, cqrs_es.define_reducer('fn', 'named', 'versions(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT cqrs_es.append_event('fn', 'a', 'named', '{"name": "Ada King"}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('fn', 'a') ->> '1', '3 {"last": "King", "first": "Ada"}', 'a reducer gets the lifted event with its version');
SELECT cqrs_es.define_reducer('fn', 'named', '[{"op": "set", "path": "/{event_version}", "from": "/last"}]') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('fn', 'a'), '{"3": "King"}', 'and so do operations');
SELECT is((SELECT array_agg(version || ' ' || payload ORDER BY sequence) FROM seen WHERE sequence > 1), ARRAY['2 {"names": ["Ada", "Lovelace"]}', '0.9-beta {"name": "alpha"}'], 'a projection before');
TRUNCATE seen;
SELECT cqrs_es.append_event('person', 'b', 'named', '{"name": "Eve Adams"}') IS NULL AS x \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, event_version, payload) VALUES ('person', 'b', 'named', '2', '{"names": ["Bo"]}');
SELECT cqrs_es.append_events('person', 'b', '[{"type": "named", "payload": {"name": "x"}, "version": "9"}]') IS NULL AS x \gset
SELECT is((SELECT array_agg(version || ' ' || payload ORDER BY sequence) FROM seen), ARRAY['3 {"last": "Adams", "first": "Eve"}', '3 {"last": "Bo", "first": "Bo"}', '9 {"name": "x"}'], 'handlers get lifted events, however they came');

-- the same append again

SELECT is((cqrs_es.append_event('person', 'a', 'named', '{"name": "Ada King"}', 0, '{}', '01890a5d-ac96-774b-bcce-b302099a8057')).version, 1::bigint, 'a retry is recognised by what was stored');
SELECT throws_ok($$SELECT cqrs_es.append_event('person', 'a', 'named', '{"first": "Ada", "last": "King"}', 0, '{}', '01890a5d-ac96-774b-bcce-b302099a8057', '3')$$, 'QE002', NULL, 'not by what it was lifted to');

-- longer chains, cycles

SELECT lives_ok($$SELECT cqrs_es.define_upcaster('named', '3', '4', 'v3(jsonb)')$$, 'a third step');
SELECT is((SELECT array_agg(event_version || ' ' || payload ORDER BY sequence) FROM cqrs_es.read_stream('person', 'a', 1, 2)), ARRAY['4 {"v": 3, "last": "King", "first": "Ada"}', '4 {"v": 3, "last": "Lovelace", "first": "Ada"}'], 'they go all the way');
SELECT is((pg_temp.error(format('SELECT cqrs_es.define_upcaster(''named'', %L, %L, ''v3(jsonb)'')', f, t)))[1:2],
	ARRAY['22023', format('upcasters of event type "named" would lead from version "%s" back to it', f)], format('no cycle: %s to %s', f, t))
FROM (VALUES ('1', '1'), ('4', '4'), ('4', '3'), ('4', '1'), ('3', '1'), ('2', '1'), ('3', '3')) v (f, t);
SELECT is((SELECT count(*) FROM cqrs_es.upcasters WHERE event_type = 'named'), 3::bigint, 'nothing of that is there');
SELECT lives_ok($$SELECT cqrs_es.define_upcaster('named', '0.9-beta', '1', 'v3(jsonb)')$$, 'two may lead to the same');
SELECT lives_ok($$SELECT cqrs_es.define_upcaster('named', '2', '4', 'v3(jsonb)')$$, 'a step may be redefined');
SELECT is((SELECT array_agg(event_version || ' ' || payload ORDER BY sequence) FROM cqrs_es.read_stream('person', 'a', 1, 2)), ARRAY['4 {"v": 3, "names": ["Ada", "King"]}', '4 {"v": 3, "names": ["Ada", "Lovelace"]}'], 'and then is another one');
SELECT lives_ok($$SELECT cqrs_es.define_upcaster('named', '3', '2', 'v3(jsonb)')$$, 'which makes room for others');
SELECT cqrs_es.drop_upcaster('named', '3') IS NULL AS x, cqrs_es.drop_upcaster('named', '0.9-beta') IS NULL AS x, cqrs_es.define_upcaster('named', '2', '3', 'v2(jsonb)') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.define_upcaster('long', n::text, (n + 1)::text, 'v3(jsonb)') FROM generate_series(1, 200) n$$, 'a chain of 200');
SELECT cqrs_es.append_event('person', 'long', 'long', '{}') IS NULL AS x \gset
SELECT is((SELECT event_version FROM cqrs_es.read_stream('person', 'long')), '201', 'to its end');
SELECT is((pg_temp.error($$SELECT cqrs_es.define_upcaster('long', '201', '1', 'v3(jsonb)')$$))[1], '22023', 'and not round');

-- snapshots: never from before a change

CREATE FUNCTION pg_temp.planted(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE snapshot jsonb; before jsonb; after jsonb;
BEGIN
	PERFORM cqrs_es.take_snapshot('person', 'a');
	UPDATE cqrs_es.snapshots SET payload = '{"planted": true}' WHERE aggregate_type = 'person' AND aggregate_id = 'a';
	IF cqrs_es.aggregate_state('person', 'a') <> '{"planted": true}' THEN RETURN 'snapshot was not used'; END IF;
	EXECUTE change;
	RETURN CASE WHEN cqrs_es.aggregate_state('person', 'a') ? 'planted' THEN 'snapshot is used' ELSE 'snapshot is not used' END;
END $$;
SELECT is(pg_temp.planted($$SELECT 1$$), 'snapshot is used', 'a snapshot is used');
SELECT is(pg_temp.planted($$SELECT cqrs_es.define_upcaster('named', '3', '4', 'v3(jsonb)')$$), 'snapshot is not used', 'until an upcaster is defined');
SELECT is(pg_temp.planted($$SELECT cqrs_es.define_upcaster('named', '3', '5', 'v3(jsonb)')$$), 'snapshot is not used', 'redefined');
SELECT is(pg_temp.planted($$SELECT cqrs_es.define_upcaster('named', '3', '5', 'v1(jsonb)')$$), 'snapshot is not used', 'becomes another function');
SELECT is(pg_temp.planted($$CREATE OR REPLACE FUNCTION v1(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT payload'$$), 'snapshot is not used', 'its function changes');
SELECT is(pg_temp.planted($$SELECT cqrs_es.drop_upcaster('named', '3')$$), 'snapshot is not used', 'or it is dropped');
CREATE OR REPLACE FUNCTION v1(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$SELECT payload - 'name' || jsonb_build_object('names', string_to_array(payload ->> 'name', ' '))$$;
-- v4 is the same text under another search_path, but not the same function
CREATE SCHEMA one; CREATE SCHEMA two;
CREATE FUNCTION one.tag() RETURNS text LANGUAGE sql AS $$SELECT 'one'$$;
CREATE FUNCTION two.tag() RETURNS text LANGUAGE sql AS $$SELECT 'two'$$;
CREATE FUNCTION v4(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN RETURN payload || jsonb_build_object('tag', tag()); END$$;
SET LOCAL search_path = public, one;
SELECT cqrs_es.define_upcaster('named', '3', '4', 'v4(jsonb)') IS NULL AS x \gset
SET LOCAL search_path = public;
SELECT is(cqrs_es.aggregate_state('person', 'a') -> 'tag', '"one"', 'an upcaster runs with the search_path of its definition');
SELECT is(pg_temp.planted($$SET LOCAL search_path = public, two; SELECT cqrs_es.define_upcaster('named', '3', '4', 'v4(jsonb)'); SET LOCAL search_path = public$$), 'snapshot is not used', 'which is a part of it');
SELECT is(cqrs_es.aggregate_state('person', 'a') -> 'tag', '"two"', 'redefined under another one it gives something else');
SELECT cqrs_es.drop_upcaster('named', '3') IS NULL AS x \gset
SAVEPOINT s;
SELECT cqrs_es.define_upcaster('named', '3', '4', 'v3(jsonb)') IS NULL AS x \gset
SELECT is((SELECT event_version FROM cqrs_es.read_stream('person', 'a', 1, 1)), '4', 'a definition');
ROLLBACK TO s;
SELECT is((SELECT event_version FROM cqrs_es.read_stream('person', 'a', 1, 1)), '3', 'that is rolled back is forgotten');

-- functions that fail

SELECT cqrs_es.define_upcaster('named', '3', '4', 'as_null(jsonb)') IS NULL AS x \gset
SELECT is(pg_temp.error($$SELECT cqrs_es.aggregate_state('person', 'a')$$), ARRAY['22004', 'upcaster public.as_null(pg_catalog.jsonb) returned null', 'event 1 of stream "person/a"'], 'a null, in a fold');
SELECT is(pg_temp.error($$SELECT * FROM cqrs_es.read_stream('person', 'a')$$), ARRAY['22004', 'upcaster public.as_null(pg_catalog.jsonb) returned null', 'event 1 of stream "person/a"'], 'in read_stream');
SELECT cqrs_es.define_upcaster('named', '3', '4', 'raises(jsonb)') IS NULL AS x \gset
SELECT is(pg_temp.error($$SELECT * FROM cqrs_es.replay('person', 'a')$$), ARRAY['ZZ001', 'cannot lift {"last": "King", "first": "Ada"}', 'event 1 of stream "person/a"'], 'an error, in replay');
SELECT is(pg_temp.error($$SELECT * FROM cqrs_es.read_stream('person', 'a', 2)$$), ARRAY['ZZ001', 'cannot lift {"last": "Lovelace", "first": "Ada"}', 'event 2 of stream "person/a"'], 'in read_stream');
SELECT is((SELECT array_agg(sequence) FROM cqrs_es.read_stream('person', 'a', 3)), '{3,4}', 'other events can be read');
SELECT cqrs_es.drop_upcaster('named', '3') IS NULL AS x \gset

-- what cannot be an upcaster

CREATE FUNCTION wrong1(json) RETURNS jsonb LANGUAGE sql AS 'SELECT $1::jsonb';
CREATE FUNCTION wrong2(jsonb) RETURNS json LANGUAGE sql AS 'SELECT $1::json';
CREATE FUNCTION wrong3(jsonb) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION wrong4(jsonb, jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE PROCEDURE wrong5(jsonb) LANGUAGE sql AS '';
SELECT throws_ok(format('SELECT cqrs_es.define_upcaster(''named'', ''7'', ''8'', %L)', f), '42P13', NULL, '42P13: ' || f) FROM unnest(ARRAY['wrong1(json)', 'wrong2(jsonb)', 'wrong3(jsonb)', 'wrong4(jsonb, jsonb)', 'wrong5(jsonb)', 'pg_catalog.jsonb_agg(anyelement)', 'pg_catalog.now()']) WITH ORDINALITY u (f, n) ORDER BY n;
SELECT throws_ok(format('SELECT cqrs_es.define_upcaster(%s)', args), '22004', NULL, 'null: ' || args) FROM unnest(ARRAY['NULL, ''1'', ''2'', ''v3(jsonb)''', '''e'', NULL, ''2'', ''v3(jsonb)''', '''e'', ''1'', NULL, ''v3(jsonb)''', '''e'', ''1'', ''2'', NULL']) WITH ORDINALITY u (args, n) ORDER BY n;
SELECT throws_ok(format('SELECT cqrs_es.define_upcaster(%s)', args), '22023', NULL, 'empty: ' || args) FROM unnest(ARRAY[''''', ''1'', ''2'', ''v3(jsonb)''', '''e'', '''', ''2'', ''v3(jsonb)''', '''e'', ''1'', '''', ''v3(jsonb)''']) WITH ORDINALITY u (args, n) ORDER BY n;
SELECT throws_ok($$SELECT cqrs_es.drop_upcaster('named', '3')$$, '42704', 'upcaster of event type "named" from version "3" does not exist', 'what is not there is not dropped');
SELECT throws_ok('DROP FUNCTION v2(jsonb)', '2BP01', NULL, 'a function in use stays');
SELECT throws_ok('DROP FUNCTION v2(jsonb) CASCADE', '2BP01', NULL, 'also with CASCADE');
SELECT lives_ok('DROP FUNCTION wrong1(json)', 'another one goes');

-- what else can go wrong in a chain

SELECT cqrs_es.append_event('person', 'c', 'chained', '{}') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.define_upcaster('chained', '1', '2', 'v3(jsonb)'::regprocedure)$$, 'a function by its oid');
CREATE FUNCTION says(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN RAISE 'said by one of us' USING ERRCODE = 'QE001'; END$$;
SELECT cqrs_es.define_upcaster('chained', '2', '3', 'says(jsonb)') IS NULL AS x \gset
SELECT is(pg_temp.error($$SELECT cqrs_es.read_stream('person', 'c')$$), ARRAY['QE001', 'said by one of us', 'event 1 of stream "person/c"'], 'an error of ours stays as it is');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.read_stream('person', 'c')$$, '{table}'), '{""}', 'its fields, too');
-- as no dump has it
UPDATE cqrs_es.upcasters SET to_version = '1', function = replace(function, 'says', 'v3') WHERE event_type = 'chained' AND from_version = '2';
SELECT is(pg_temp.error_of($$SELECT cqrs_es.read_stream('person', 'c')$$, '{state,message}'), ARRAY['22023', 'upcasters of event type "chained" would lead from version "1" back to it'], 'a circle that is there all the same');

-- rights

CREATE ROLE cqrs_es_lifter;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_lifter;
GRANT SELECT ON cqrs_es.events TO cqrs_es_lifter;
CREATE FUNCTION pg_temp.lifted_as(role name) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE result jsonb;
BEGIN
	PERFORM set_config('role', role, true);
	result := (SELECT payload FROM cqrs_es.read_stream('person', 'a', 1, 1));
	PERFORM set_config('role', 'none', true);
	RETURN result;
END $$;
SELECT is(pg_temp.lifted_as('cqrs_es_lifter') ->> 'last', 'King', 'anybody who may read and may execute it');
REVOKE EXECUTE ON FUNCTION v2(jsonb) FROM PUBLIC;
SELECT throws_ok($$SELECT pg_temp.lifted_as('cqrs_es_lifter')$$, '42501', NULL, 'but nobody else');
SET LOCAL ROLE cqrs_es_lifter;
SELECT throws_ok($$SELECT cqrs_es.define_upcaster('named', '7', '8', 'v3(jsonb)')$$, '42501', NULL, 'defining is not for everybody');
SELECT throws_ok($$SELECT cqrs_es.drop_upcaster('named', '1')$$, '42501', NULL, 'nor dropping');
RESET ROLE;
GRANT EXECUTE ON FUNCTION cqrs_es.define_upcaster(text, text, text, regprocedure), cqrs_es.define_upcaster(text, text, text, text) TO cqrs_es_lifter;
SET LOCAL ROLE cqrs_es_lifter;
SELECT throws_ok($$SELECT cqrs_es.define_upcaster('named', '7', '8', 'v2(jsonb)')$$, '42501', NULL, 'whoever may define must be allowed to execute');
SELECT lives_ok($$SELECT cqrs_es.define_upcaster('named', '7', '8', 'v3(jsonb)')$$, 'then the role may');
RESET ROLE;
SELECT finish();
ROLLBACK;
