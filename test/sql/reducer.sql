\i test/include/setup.sql
-- Declared aggregates and their reducers: how an event changes the state.
BEGIN;
SELECT plan(73);
CREATE FUNCTION pg_temp.append(type text, id text, event_type text, payload jsonb) RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.append_event(type, id, event_type, payload) $$;

-- declarations

SELECT throws_ok($$SELECT cqrs_es.aggregate_state('reducer', 'a')$$, 'QE101', 'aggregate type "reducer" is not declared', 'an undeclared type has no state');
SELECT is((cqrs_es.append_event('reducer', 'a', 'opened', '{"n": 1}')).version, 1::bigint, 'but events');
SELECT lives_ok($$SELECT cqrs_es.create_aggregate('reducer')$$, 'it is declared');
SELECT is(cqrs_es.aggregate_state('reducer', 'a'), '{"n": 1}', 'and has a state, of all its events');
SELECT results_eq($$SELECT aggregate_type COLLATE "default", initial_state, snapshot_every FROM cqrs_es.aggregates WHERE aggregate_type = 'reducer'$$,
	$$VALUES ('reducer', '{}'::jsonb, 100)$$, 'the defaults of a declaration');
SELECT lives_ok($$SELECT cqrs_es.create_aggregate('reducer')$$, 'it may be declared again');
SAVEPOINT s;
SELECT cqrs_es.create_aggregate('reducer 2', '{"rolled": "back"}') IS NULL AS x \gset
SELECT pg_temp.append('reducer 2', 'a', 'e', '{}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('reducer 2', 'a'), '{"rolled": "back"}', 'a declaration');
ROLLBACK TO s;
SELECT throws_ok($$SELECT cqrs_es.aggregate_state('reducer 2', 'a')$$, 'QE101', NULL, 'that is rolled back is forgotten');
SELECT cqrs_es.create_aggregate('reducer 2', '{"second": "try"}') IS NULL AS x \gset
SELECT pg_temp.append('reducer 2', 'a', 'e', '{}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('reducer 2', 'a'), '{"second": "try"}', 'another one counts');

-- without a reducer: RFC 7396, appendix A, from first to last

CREATE TEMP TABLE merges (n serial, target jsonb, patch jsonb, result jsonb);
INSERT INTO merges (target, patch, result) VALUES
	('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
	('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
	('{"a":"b"}', '{"a":null}', '{}'),
	('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
	('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
	('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
	('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
	('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
	('["a","b"]', '["c","d"]', '["c","d"]'),
	('{"a":"b"}', '["c"]', '["c"]'),
	('{"a":"foo"}', 'null', 'null'),
	('{"a":"foo"}', '"bar"', '"bar"'),
	('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
	('[1,2]', '{"a":"b","c":null}', '{"a":"b"}'),
	('{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
	-- and what the RFC leaves to its pseudo code
	('{"a":1}', '{}', '{"a":1}'),
	('"text"', '{}', '{}'),
	('{"a":"foo"}', '{"a":{"b":null,"c":1}}', '{"a":{"c":1}}'),
	('{"a":{"b":1}}', '{"a":{}}', '{"a":{"b":1}}'),
	('{"a":{"b":{"c":{"d":1,"e":2}}},"f":3}', '{"a":{"b":{"c":{"d":null,"g":[null]}}}}', '{"a":{"b":{"c":{"e":2,"g":[null]}}},"f":3}'),
	('{"long key of many letters":1,"b":2,"aa":3}', '{"aa":null,"b":{"x":1},"":0}', '{"long key of many letters":1,"b":{"x":1},"":0}'),
	('{"a":[1,2]}', '{"a":{"0":null,"1":5}}', '{"a":{"1":5}}'),
	('{"a":1.0}', '{"a":1e3}', '{"a":1000}');
SELECT count(cqrs_es.create_aggregate('merge ' || n, target)) AS x FROM merges \gset
SELECT count(pg_temp.append('merge ' || n, 'a', 'e', patch)) AS x FROM merges \gset
-- what is no object has no fields to merge: it leaves the state as it is (payload_no_object.sql)
SELECT is(cqrs_es.aggregate_state('merge ' || n, 'a'), CASE jsonb_typeof(patch) WHEN 'object' THEN result ELSE target END, format('%s merged with %s', target, patch)) FROM merges ORDER BY n;
SELECT is((cqrs_es.load_aggregate('merge ' || n, 'b')).state, target, format('merging left the initial state %s as it was', target)) FROM merges WHERE n IN (1, 9) ORDER BY n;

-- functions

CREATE FUNCTION opened(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
	$$SELECT state || jsonb_build_object('owner', (event).payload ->> 'owner', 'balance', 0, 'opened_by', (event).sequence)$$;
CREATE FUNCTION moved(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF NOT event.payload ? 'amount' THEN RAISE EXCEPTION 'no amount' USING ERRCODE = 'ZZ001'; END IF;
	IF event.payload -> 'amount' = 'null' THEN RETURN NULL; END IF;
	RETURN jsonb_set(state, '{balance}', to_jsonb((state ->> 'balance')::numeric + (event.payload ->> 'amount')::numeric));
END $$;
SELECT cqrs_es.create_aggregate('account', '{"currency": "EUR"}') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.define_reducer('account', 'opened', 'opened(jsonb, cqrs_es.event)')$$, 'a reducer in SQL');
SELECT lives_ok($$SELECT cqrs_es.define_reducer('account', 'moved', 'moved(jsonb, cqrs_es.event)')$$, 'a reducer in PL/pgSQL');
SELECT pg_temp.append('account', 'a', 'opened', '{"owner": "ada"}') IS NULL AS x \gset
SELECT pg_temp.append('account', 'a', 'moved', '{"amount": 10}') IS NULL AS x \gset
SELECT pg_temp.append('account', 'a', 'renamed', '{"owner": "eve", "currency": null}') IS NULL AS x \gset
SELECT pg_temp.append('account', 'a', 'moved', '{"amount": -2.50}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('account', 'a'), '{"owner": "eve", "balance": 7.50, "opened_by": 1}',
	'reducers and the merge, each for its event types');
SELECT lives_ok($$SELECT cqrs_es.define_reducer('account', 'renamed', 'opened(jsonb, cqrs_es.event)')$$, 'an event type gets a reducer later');
SELECT is(cqrs_es.aggregate_state('account', 'a'), '{"currency": "EUR", "owner": "eve", "balance": -2.50, "opened_by": 3}', 'which counts from the first event on');
SELECT lives_ok($$SELECT cqrs_es.define_reducer('account', 'renamed', 'moved(jsonb, cqrs_es.event)')$$, 'and then another one');
SELECT results_eq($$SELECT event_type COLLATE "default", function COLLATE "default" FROM cqrs_es.reducers WHERE aggregate_type = 'account' ORDER BY 1$$,
	$$VALUES ('moved', 'public.moved(pg_catalog.jsonb,cqrs_es.event)'), ('opened', 'public.opened(pg_catalog.jsonb,cqrs_es.event)'), ('renamed', 'public.moved(pg_catalog.jsonb,cqrs_es.event)')$$,
	'which replaces the first');

SELECT is(pg_temp.error_of($$SELECT cqrs_es.aggregate_state('account', 'a')$$, '{state,message,where}'),
	ARRAY['ZZ001', 'no amount', 'folding event 3 of stream "account/a"'], 'a reducer that raises: the error, and where');
SELECT pg_temp.append('account', 'null', 'moved', '{"amount": null}') IS NULL AS x \gset
SELECT is(pg_temp.error_of($$SELECT cqrs_es.aggregate_state('account', 'null')$$, '{state,message,where}'),
	ARRAY['22004', 'reducer public.moved(pg_catalog.jsonb,cqrs_es.event) returned null', 'folding event 1 of stream "account/null"'], 'a reducer that returns null');
SELECT lives_ok($$SELECT cqrs_es.aggregate_state('reducer', 'a')$$, 'after errors others go on');

CREATE FUNCTION not_null(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql STRICT AS $$SELECT state || (event).payload$$;
CREATE FUNCTION whole(s jsonb, e cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE r cqrs_es.event;
BEGIN
	SELECT * INTO r FROM cqrs_es.read_stream(e.aggregate_type, e.aggregate_id, e.sequence, 1);
	RETURN jsonb_build_object('same', r = e, 'n', coalesce((s ->> 'n')::int, 0) + 1);
END $$;
SELECT cqrs_es.create_aggregate('whole') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('whole', 'strict', 'not_null(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('whole', 'whole', 'whole(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT pg_temp.append('whole', 'a', 'strict', '{"a": 1}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('whole', 'a'), '{"a": 1}', 'a strict function');
SELECT cqrs_es.append_events('whole', 'b', (SELECT jsonb_agg(jsonb_build_object('type', 'whole', 'payload', repeat(n::text, 10000))) FROM generate_series(1, 300) n)) IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('whole', 'b'), '{"same": true, "n": 300}', 'a reducer gets the event with all its fields, and may read the log');

-- A reducer that asks for the state of another aggregate of its type.
CREATE FUNCTION inherit_sql(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$
	SELECT state || jsonb_build_object('name', (event).payload -> 'name', 'parent', cqrs_es.aggregate_state('tree', (event).payload ->> 'parent'))
$$;
CREATE FUNCTION inherit_plpgsql(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN RETURN state || jsonb_build_object('name', event.payload -> 'name', 'parent', cqrs_es.aggregate_state('tree', event.payload ->> 'parent')); END $$;
SELECT cqrs_es.create_aggregate('tree') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('tree', 'plpgsql', 'inherit_plpgsql(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('tree', 'sql', 'inherit_sql(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT count(pg_temp.append('tree', l || i, l, jsonb_build_object('name', i, 'parent', l || (i - 1)))) AS x
FROM generate_series(1, 3) i, unnest(ARRAY['plpgsql', 'sql']) l \gset
SELECT is(cqrs_es.aggregate_state('tree', 'plpgsql3'), '{"name": 3, "parent": {"name": 2, "parent": {"name": 1, "parent": null}}}', 'a PL/pgSQL reducer that replays its parents');
-- its function is entered again while it runs
SELECT lives_ok($x$DO $do$ BEGIN
	ASSERT cqrs_es.aggregate_state('tree', 'sql3') = '{"name": 3, "parent": {"name": 2, "parent": {"name": 1, "parent": null}}}';
END $do$$x$, 'an SQL reducer that replays its parents');

-- what cannot be a reducer

CREATE FUNCTION wrong1(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION wrong2(cqrs_es.event, jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $2';
CREATE FUNCTION wrong3(jsonb, cqrs_es.event) RETURNS json LANGUAGE sql AS 'SELECT $1::json';
CREATE FUNCTION wrong4(jsonb, cqrs_es.event) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION wrong5(jsonb, cqrs_es.events) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION wrong6(jsonb, cqrs_es.event, integer DEFAULT 0) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE PROCEDURE wrong7(jsonb, cqrs_es.event) LANGUAGE sql AS '';
CREATE FUNCTION wrong8(jsonb, jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION wrong9(text, cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT $1::jsonb';
CREATE AGGREGATE wrong10(cqrs_es.event) (SFUNC = opened, STYPE = jsonb);
SELECT throws_ok(format('SELECT cqrs_es.define_reducer(''account'', ''wrong'', %L)', f), '42P13', NULL, '42P13: ' || f)
FROM unnest(ARRAY['wrong1(jsonb)', 'wrong2(cqrs_es.event, jsonb)', 'wrong3(jsonb, cqrs_es.event)', 'wrong4(jsonb, cqrs_es.event)',
	'wrong5(jsonb, cqrs_es.events)', 'wrong6(jsonb, cqrs_es.event, integer)', 'wrong7(jsonb, cqrs_es.event)', 'wrong8(jsonb, jsonb)',
	'wrong9(text, cqrs_es.event)', 'wrong10(cqrs_es.event)', 'pg_catalog.now()']) WITH ORDINALITY u (f, n) ORDER BY n;

-- a function in use cannot be dropped

DROP AGGREGATE wrong10(cqrs_es.event);
SELECT throws_ok('DROP FUNCTION opened(jsonb, cqrs_es.event)', '2BP01', NULL,
	'a function that a reducer uses stays');
SELECT throws_ok('DROP FUNCTION opened CASCADE', '2BP01', NULL, 'also with CASCADE');
CREATE SCHEMA "My Schema";
CREATE FUNCTION "My Schema"."My, Reducer"(jsonb, cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
SELECT cqrs_es.define_reducer('account', 'odd', '"My Schema"."My, Reducer"(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT throws_ok('DROP SCHEMA "My Schema" CASCADE', '2BP01', NULL, 'also with its schema, whatever their names');
SELECT lives_ok('DROP FUNCTION wrong1(jsonb)', 'another one may go');
SELECT lives_ok($$SELECT cqrs_es.define_reducer('account', 'opened', 'whole(jsonb, cqrs_es.event)')$$, 'after another definition');
SELECT lives_ok('DROP FUNCTION opened(jsonb, cqrs_es.event)', 'it may go, too');
ALTER EVENT TRIGGER cqrs_es_protect_function_names DISABLE;
ALTER FUNCTION not_null(jsonb, cqrs_es.event) RENAME TO renamed;
ALTER EVENT TRIGGER cqrs_es_protect_function_names ENABLE;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.aggregate_state('whole', 'a')$$))[1:2],
	ARRAY['42883', 'function public.not_null(pg_catalog.jsonb,cqrs_es.event) does not exist'], 'a function that was renamed is missed');
ALTER FUNCTION renamed(jsonb, cqrs_es.event) RENAME TO not_null;
SELECT is(cqrs_es.aggregate_state('whole', 'a'), '{"a": 1}', 'until it is back');

-- rights: reducers run as whoever reads the state

CREATE ROLE cqrs_es_reader;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_reader;
GRANT SELECT ON cqrs_es.events TO cqrs_es_reader;
CREATE FUNCTION who(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT jsonb_build_object(''user'', current_user)';
SELECT cqrs_es.create_aggregate('who') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('who', 'e', 'who(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT pg_temp.append('who', 'a', 'e', '{}') IS NULL AS x \gset
CREATE FUNCTION pg_temp.state_as(role name) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE result jsonb;
BEGIN
	PERFORM set_config('role', role, true);
	result := cqrs_es.aggregate_state('who', 'a');
	PERFORM set_config('role', 'none', true);
	RETURN result;
END $$;
SELECT is(pg_temp.state_as('cqrs_es_reader'), '{"user": "cqrs_es_reader"}', 'a reducer runs as the reader');
REVOKE EXECUTE ON FUNCTION who(jsonb, cqrs_es.event) FROM PUBLIC;
SELECT throws_ok($$SELECT pg_temp.state_as('cqrs_es_reader')$$, '42501', NULL, 'who must have the right to');
SELECT is(pg_temp.state_as('none'), jsonb_build_object('user', current_user), 'the owner of it has');
GRANT EXECUTE ON FUNCTION who(jsonb, cqrs_es.event) TO cqrs_es_reader;
SELECT is(pg_temp.state_as('cqrs_es_reader'), '{"user": "cqrs_es_reader"}', 'and who is granted it');

-- "$user" in the search_path is the definer, not whoever appends
CREATE SCHEMA cqrs_es_reader AUTHORIZATION cqrs_es_reader;
CREATE FUNCTION public.cqrs_es_helper() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'right' $$;
CREATE FUNCTION cqrs_es_reader.cqrs_es_helper() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'wrong' $$;
CREATE FUNCTION public.helped(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN RETURN jsonb_build_object('helper', cqrs_es_helper()); END $$;
GRANT EXECUTE ON FUNCTION cqrs_es_reader.cqrs_es_helper() TO PUBLIC;
SELECT cqrs_es.create_aggregate('helped') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('helped', 'e', 'public.helped(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT cqrs_es.append_event('helped', 'a', 'e', '{}') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('helped', 'a'), '{"helper": "right"}', 'a reducer sees the schemas of whoever defined it');
SET LOCAL ROLE cqrs_es_reader;
SELECT cqrs_es.aggregate_state('helped', 'a') AS state \gset
RESET ROLE;
SELECT is(:'state'::jsonb, '{"helper": "right"}', 'not those of whoever it runs for');
SELECT finish();
ROLLBACK;
