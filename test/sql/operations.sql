\i test/include/setup.sql
-- Declared reducers: the vocabulary of operations, its errors, exact numbers.
BEGIN;
SELECT plan(303);

\i test/include/fold.sql
-- the error of it: state, message, detail, context
CREATE FUNCTION pg_temp.error(statement text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE state text; message text; detail text; context text;
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, context = PG_EXCEPTION_CONTEXT;
	RETURN ARRAY[state, message, detail, regexp_replace(substring(context from '(?n)^folding event.*$'), 's\d+', 's')];
END $$;
-- (a type of its own: a server with assertions does not bear that a row which a transaction has only locked is changed in a
-- savepoint, taken back, and changed then where its page is full)
SELECT cqrs_es.create_aggregate('failing', '{}', 0) IS NULL AS x \gset
CREATE FUNCTION pg_temp.fold_error(initial jsonb, operations jsonb, payload jsonb DEFAULT '{}') RETURNS text[] LANGUAGE sql AS $$
	SELECT pg_temp.error(format('SELECT pg_temp.fold(%L, %L, %L, type => ''failing'')', initial, operations, payload)) $$;

-- every kind of operation, on every kind of place

CREATE TEMP TABLE cases (n serial, initial jsonb, operations jsonb, payload jsonb, result jsonb);
INSERT INTO cases (initial, operations, payload, result) VALUES
	('{"a": 1}', '[]', '{"b": 2}', '{"a": 1}'),
	-- RFC 6902, appendix A: 1 to 5, 10, 14, 16
	('{"foo": "bar"}', '[{"op": "add", "path": "/baz", "value": "qux"}]', '{}', '{"baz": "qux", "foo": "bar"}'),
	('{"foo": ["bar", "baz"]}', '[{"op": "add", "path": "/foo/1", "value": "qux"}]', '{}', '{"foo": ["bar", "qux", "baz"]}'),
	('{"baz": "qux", "foo": "bar"}', '[{"op": "remove", "path": "/baz"}]', '{}', '{"foo": "bar"}'),
	('{"foo": ["bar", "qux", "baz"]}', '[{"op": "remove", "path": "/foo/1"}]', '{}', '{"foo": ["bar", "baz"]}'),
	('{"baz": "qux", "foo": "bar"}', '[{"op": "replace", "path": "/baz", "value": "boo"}]', '{}', '{"baz": "boo", "foo": "bar"}'),
	('{"foo": "bar"}', '[{"op": "add", "path": "/child", "value": {"grandchild": {}}}]', '{}', '{"foo": "bar", "child": {"grandchild": {}}}'),
	('{"/": 9, "~1": 10}', '[{"op": "replace", "path": "/~01", "value": 11}]', '{}', '{"/": 9, "~1": 11}'),
	('{"/": 9, "~1": 10}', '[{"op": "replace", "path": "/~1", "value": 11}]', '{}', '{"/": 11, "~1": 10}'),
	('{"foo": ["bar"]}', '[{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}]', '{}', '{"foo": ["bar", ["abc", "def"]]}'),
	-- and section 4
	('{"a": {"foo": 1}}', '[{"op": "add", "path": "/a/b", "value": null}]', '{}', '{"a": {"foo": 1, "b": null}}'),
	('{"a": {"b": 1}}', '[{"op": "add", "path": "/a/b", "value": [{}]}]', '{}', '{"a": {"b": [{}]}}'),
	('{"a": 1}', '[{"op": "add", "path": "", "value": [1]}]', '{}', '[1]'),
	('{"a": [1, 2]}', '[{"op": "add", "path": "/a/2", "value": 3}]', '{}', '{"a": [1, 2, 3]}'),
	('[]', '[{"op": "add", "path": "/0", "value": 1}, {"op": "add", "path": "/0", "value": 0}, {"op": "add", "path": "/-", "value": 2}]', '{}', '[0, 1, 2]'),
	('[[1], [2]]', '[{"op": "add", "path": "/1/0", "value": 0}]', '{}', '[[1], [0, 2]]'),
	('{"a": 1}', '[{"op": "replace", "path": "", "value": "b"}]', '{}', '"b"'),
	('"text"', '[{"op": "replace", "path": "", "value": {"a": 1}}, {"op": "add", "path": "/b", "value": 2}]', '{}', '{"a": 1, "b": 2}'),
	('[1, 2, 3]', '[{"op": "replace", "path": "/2", "value": {"a": 3}}]', '{}', '[1, 2, {"a": 3}]'),
	('[1, 2, 3]', '[{"op": "remove", "path": "/0"}, {"op": "remove", "path": "/1"}]', '{}', '[2]'),
	('{"a": {"b": {"c": 1, "d": 2}}}', '[{"op": "remove", "path": "/a/b/c"}]', '{}', '{"a": {"b": {"d": 2}}}'),
	('{"a": null}', '[{"op": "remove", "path": "/a"}]', '{}', '{}'),
	('{"a": 1}', '[{"op": "replace", "path": "/a", "value": null}]', '{}', '{"a": null}'),
	-- odd keys
	('{"": 0}', '[{"op": "replace", "path": "/", "value": 1}]', '{}', '{"": 1}'),
	('{"": {"": 0}}', '[{"op": "replace", "path": "//", "value": 1}]', '{}', '{"": {"": 1}}'),
	('{}', '[{"op": "set", "path": "///", "value": 1}]', '{}', '{"": {"": {"": 1}}}'),
	('{}', '[{"op": "add", "path": "/~0~1~00~11", "value": 1}]', '{}', '{"~/~0/1": 1}'),
	('{}', '[{"op": "add", "path": "/ä€😀\n\"\\", "value": 1}]', '{}', '{"ä€😀\n\"\\": 1}'),
	('{}', '[{"op": "add", "path": "/a{b", "value": 1}, {"op": "add", "path": "/}", "value": 2}, {"op": "add", "path": "/%41", "value": 3}]', '{}', '{"a{b": 1, "}": 2, "%41": 3}'),
	('{"1": {"-": 1}}', '[{"op": "replace", "path": "/1/-", "value": 2}, {"op": "add", "path": "/01", "value": 3}]', '{}', '{"1": {"-": 2}, "01": 3}'),
	-- set
	('{}', '[{"op": "set", "path": "/a/b/c", "value": 1}]', '{}', '{"a": {"b": {"c": 1}}}'),
	('{"a": {"x": 1}}', '[{"op": "set", "path": "/a/b/c", "value": 1}]', '{}', '{"a": {"x": 1, "b": {"c": 1}}}'),
	('{"a": {"b": 1}}', '[{"op": "set", "path": "/a/b", "value": {"c": 2}}]', '{}', '{"a": {"b": {"c": 2}}}'),
	('{"a": [1, 2]}', '[{"op": "set", "path": "/a/1", "value": 3}, {"op": "set", "path": "/a/2", "value": 4}, {"op": "set", "path": "/a/-", "value": 5}]', '{}', '{"a": [1, 3, 4, 5]}'),
	('{"a": [{}]}', '[{"op": "set", "path": "/a/0/b/c", "value": 3}]', '{}', '{"a": [{"b": {"c": 3}}]}'),
	('{"a": 1}', '[{"op": "set", "path": "", "value": []}]', '{}', '[]'),
	('{}', '[{"op": "set", "path": "/0/0", "value": 1}]', '{}', '{"0": {"0": 1}}'),
	-- increment, decrement
	('{}', '[{"op": "increment", "path": "/n"}]', '{}', '{"n": 1}'),
	('{}', '[{"op": "decrement", "path": "/n"}]', '{}', '{"n": -1}'),
	('{"n": 1}', '[{"op": "increment", "path": "/n"}, {"op": "increment", "path": "/n", "value": 40}]', '{}', '{"n": 42}'),
	('{"n": 1}', '[{"op": "decrement", "path": "/n", "value": -1.5}]', '{}', '{"n": 2.5}'),
	('{"n": 1}', '[{"op": "decrement", "path": "/n", "from": "/x"}]', '{"x": 5}', '{"n": -4}'),
	('{}', '[{"op": "increment", "path": "/a/b/c", "from": "/x"}, {"op": "decrement", "path": "/a/b/d", "from": "/x"}]', '{"x": 5}', '{"a": {"b": {"c": 5, "d": -5}}}'),
	('[1, [2]]', '[{"op": "increment", "path": "/0"}, {"op": "decrement", "path": "/1/0"}, {"op": "increment", "path": "/1/0", "value": 5}]', '{}', '[2, [6]]'),
	('7', '[{"op": "increment", "path": ""}, {"op": "decrement", "path": "", "value": 10}]', '{}', '-2'),
	-- append
	('{}', '[{"op": "append", "path": "/a", "value": 1}, {"op": "append", "path": "/a", "value": [2]}]', '{}', '{"a": [1, [2]]}'),
	('{}', '[{"op": "append", "path": "/a/b", "value": null}]', '{}', '{"a": {"b": [null]}}'),
	('[[], 1]', '[{"op": "append", "path": "/0", "value": {}}, {"op": "append", "path": "", "value": "end"}]', '{}', '[[{}], 1, "end"]'),
	('{"a": [0]}', '[{"op": "append", "path": "/a", "from": ""}]', '{"x": [5]}', '{"a": [0, {"x": [5]}]}'),
	-- merge
	('{}', '[{"op": "merge", "path": "/a", "value": {"b": 1, "c": null}}]', '{}', '{"a": {"b": 1}}'),
	('{}', '[{"op": "merge", "path": "/a/b", "value": {"c": {"d": null}}}]', '{}', '{"a": {"b": {"c": {}}}}'),
	('{"a": {"b": 1, "c": 2}}', '[{"op": "merge", "path": "/a", "from": ""}]', '{"b": null, "d": 3}', '{"a": {"c": 2, "d": 3}}'),
	('{"a": 1}', '[{"op": "merge", "path": "/a", "value": null}]', '{}', '{"a": null}'),
	('[{"a": 1}]', '[{"op": "merge", "path": "/0", "value": {"a": null, "b": 2}}]', '{}', '[{"b": 2}]'),
	('{"a": 1}', '[{"op": "merge", "path": "/", "value": {"b": 2}}]', '{}', '{"a": 1, "": {"b": 2}}'),
	-- operands from the event
	('{}', '[{"op": "set", "path": "", "from": ""}]', '{"a": 1}', '{"a": 1}'),
	('{}', '[{"op": "set", "path": "", "from": ""}]', '"scalar"', '"scalar"'),
	('{}', '[{"op": "set", "path": "", "from": ""}]', 'null', 'null'),
	('{}', '[{"op": "set", "path": "/x", "from": "/a/1/b"}]', '{"a": [0, {"b": [1]}]}', '{"x": [1]}'),
	('{}', '[{"op": "set", "path": "/x", "from": "/0"}]', '["first"]', '{"x": "first"}'),
	('{}', '[{"op": "set", "path": "/x", "from": "/0"}]', '{"0": "member"}', '{"x": "member"}'),
	('{}', '[{"op": "set", "path": "/x", "from": "payload"}, {"op": "set", "path": "/y", "from": "payload/a"}]', '{"a": 1}', '{"x": {"a": 1}, "y": 1}'),
	('{"a": 1}', '[{"op": "add", "path": "/x", "from": "/a", "optional": true}]', '{}', '{"a": 1}'),
	('{"a": 1}', '[{"op": "add", "path": "/no/where", "from": "/a", "optional": true}]', '{"a": null}', '{"a": 1}'),
	('{"a": 1}', '[{"op": "add", "path": "/x", "from": "/a", "optional": true}]', '{"a": false}', '{"a": 1, "x": false}'),
	('{"a": 1}', '[{"op": "add", "path": "/x", "from": "/a/b/0", "optional": true}]', '{"a": "scalar"}', '{"a": 1}'),
	('{"a": 1}', '[{"op": "add", "path": "/x", "from": "/0", "optional": true}, {"op": "add", "path": "/x", "from": "/00", "optional": true}, {"op": "add", "path": "/x", "from": "/-", "optional": true}]', '[]', '{"a": 1}'),
	('{"a": 1}', '[{"op": "add", "path": "/x", "from": "/00", "optional": true}, {"op": "add", "path": "/x", "from": "/-1", "optional": true}, {"op": "add", "path": "/x", "from": "/1x", "optional": true}, {"op": "add", "path": "/x", "from": "/99999999999999999999", "optional": true}, {"op": "add", "path": "/x", "from": "/4294967296", "optional": true}]', '["0"]', '{"a": 1}'),
	('{"a": 1}', '[{"op": "add", "path": "/x", "from": "/a", "optional": false}]', '{"a": null}', '{"a": 1, "x": null}'),
	('{"a": 1}', '[{"op": "increment", "path": "/a", "from": "/b", "optional": true}]', '{"b": null}', '{"a": 1}'),
	('{"a": 1}', '[{"op": "merge", "path": "", "from": "/b", "optional": true}]', '{"b": {"a": null}}', '{}'),
	-- keys from the event
	('{}', '[{"op": "increment", "path": "/lines/{/sku}/quantity", "from": "/n"}]', '{"sku": "a/b~c", "n": 3}', '{"lines": {"a/b~c": {"quantity": 3}}}'),
	('{}', '[{"op": "set", "path": "/{/a/b}", "value": 1}]', '{"a": {"b": "key"}}', '{"key": 1}'),
	('{}', '[{"op": "set", "path": "/{}", "value": 1}]', '"whole"', '{"whole": 1}'),
	('{}', '[{"op": "set", "path": "/{/a~1b}/{/c~0d}", "value": 1}]', '{"a/b": "x", "c~d": "y"}', '{"x": {"y": 1}}'),
	('{}', '[{"op": "set", "path": "/{/a}", "value": 1}]', '{"a": ""}', '{"": 1}'),
	('{}', '[{"op": "set", "path": "/{/a}", "value": 1}]', '{"a": 12.50}', '{"12.5": 1}'),
	('{}', '[{"op": "set", "path": "/{/a}", "value": 1}]', '{"a": -0.0}', '{"0": 1}'),
	('{"a": [1, 2, 3]}', '[{"op": "replace", "path": "/a/{/i}", "from": "/i"}]', '{"i": 1.0}', '{"a": [1, 1.0, 3]}'),
	('{"a": [1, 2, 3]}', '[{"op": "add", "path": "/a/{/i}", "from": "/i"}]', '{"i": "-"}', '{"a": [1, 2, 3, "-"]}'),
	('{"a": [1, 2, 3]}', '[{"op": "remove", "path": "/a/{/i}"}]', '{"i": "0"}', '{"a": [2, 3]}'),
	('{}', '[{"op": "set", "path": "/{aggregate_type}/{payload/a}/{event_type}/{sequence}/{event_version}", "value": 1}]', '{"a": "p"}', '{"op": {"p": {"done": {"1": {"1": 1}}}}}'),
	-- literals are literal
	('{}', '[{"op": "set", "path": "/a", "value": "/x"}, {"op": "set", "path": "/b", "value": "{/x}"}]', '{"x": 1}', '{"a": "/x", "b": "{/x}"}'),
	-- each operation sees what those before it did
	('{}', '[{"op": "set", "path": "/a", "from": "/x"}, {"op": "append", "path": "/a/1", "value": 1}, {"op": "increment", "path": "/a/1/0"}, {"op": "remove", "path": "/a/0"}]', '{"x": [{}, []]}', '{"a": [[2]]}');
SELECT is(pg_temp.fold(initial, operations, payload), result, format('%s, %s: %s', initial, payload, operations)) FROM cases ORDER BY n;

-- RFC 6901, section 5: read as "from", written as "path"

CREATE TEMP TABLE pointers (n serial, pointer text, value jsonb);
INSERT INTO pointers (pointer, value) VALUES
	('', '{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8}'),
	('/foo', '["bar", "baz"]'), ('/foo/0', '"bar"'), ('/', '0'), ('/a~1b', '1'), ('/c%d', '2'), ('/e^f', '3'),
	('/g|h', '4'), ('/i\j', '5'), ('/k"l', '6'), ('/ ', '7'), ('/m~0n', '8');
SELECT is(pg_temp.fold('{}', jsonb_build_array(jsonb_build_object('op', 'set', 'path', '/found', 'from', pointer)), document.value),
	jsonb_build_object('found', p.value), format('from "%s"', pointer))
FROM pointers p, (SELECT value FROM pointers WHERE pointer = '') document ORDER BY n;
SELECT is(pg_temp.fold(document.value, jsonb_build_array(jsonb_build_object('op', 'set', 'path', '/found', 'value', 'x'),
		jsonb_build_object('op', 'replace', 'path', pointer, 'value', p.value), jsonb_build_object('op', 'set', 'path', pointer, 'value', p.value))) - 'found',
	document.value, format('path "%s"', pointer))
FROM pointers p, (SELECT value FROM pointers WHERE pointer = '') document ORDER BY n;
SELECT is(pg_temp.fold(document.value, jsonb_build_array(jsonb_build_object('op', 'remove', 'path', pointer))),
	CASE pointer WHEN '/foo/0' THEN jsonb_set(document.value, '{foo}', '["baz"]') ELSE document.value - (string_to_array(replace(replace(pointer, '~1', '|'), '~0', '~'), '/'))[2] - CASE pointer WHEN '/a~1b' THEN 'a/b' ELSE 'none' END END, format('remove "%s"', pointer))
FROM pointers p, (SELECT value FROM pointers WHERE pointer = '') document WHERE pointer <> '' ORDER BY n;

-- RFC 7396, appendix A: as the default, and as an operation on the whole and on a part

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
	('{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}');
CREATE FUNCTION pg_temp.merged(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE id text := 's' || nextval('pg_temp.streams');
BEGIN
	PERFORM cqrs_es.alter_aggregate('op', target);
	PERFORM cqrs_es.append_event('op', id, 'no reducer', patch);
	RETURN cqrs_es.aggregate_state('op', id);
END $$;
SELECT is(ARRAY[pg_temp.merged(target, patch),
		pg_temp.fold(target, jsonb_build_array(jsonb_build_object('op', 'merge', 'path', '', 'value', patch))),
		pg_temp.fold(target, '[{"op": "merge", "path": "", "from": ""}]', patch),
		pg_temp.fold(jsonb_build_object('x', target), '[{"op": "merge", "path": "/x", "from": "/y"}]', jsonb_build_object('y', patch)) -> 'x',
		pg_temp.fold(jsonb_build_array(target), '[{"op": "merge", "path": "/0", "from": ""}]', patch) -> 0],
	-- without a reducer, what is no object leaves the state as it is
	CASE WHEN jsonb_typeof(patch) = 'object' THEN result ELSE target END || array_fill(result, ARRAY[4]), format('%s merged with %s', target, patch)) FROM merges ORDER BY n;

-- an event's own fields

SELECT cqrs_es.create_aggregate('fields', '{}', 0) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('fields', 'e', (SELECT jsonb_agg(jsonb_build_object('op', 'set', 'path', '/' || replace(replace(f, '~', '~0'), '/', '~1'), 'from', f)) FROM unnest(ARRAY[
	'global_position', 'sequence', 'created_at', 'event_id', 'tenant_id', 'aggregate_type', 'aggregate_id', 'event_type', 'event_version',
	'payload', 'metadata', 'metadata/who', 'metadata/deep/0/~1', '/n', 'payload/n']) f)) IS NULL AS x \gset
SET LOCAL cqrs_es.tenant_id = 'ten"ant';
SELECT cqrs_es.append_event('fields', 'f/1', 'e', '{}', NULL, '{"who": 1, "deep": [{"/": 1}]}') IS NULL AS x,
	cqrs_es.append_event('fields', 'f/1', 'e', '{}', NULL, '{"who": 1, "deep": [{"/": 1}]}') IS NULL AS x,
	cqrs_es.append_event('fields', 'ä "1"', 'e', '{"n": [1.50]}', NULL, '{"who": "me", "deep": [{"/": null}]}', '01890a5d-ac96-774b-bcce-b302099a8057', 'v 2') IS NULL AS x \gset
CREATE TEMP TABLE seen AS SELECT cqrs_es.aggregate_state('fields', 'ä "1"') AS state, e.* FROM cqrs_es.read_stream('fields', 'ä "1"') e;
SELECT is((SELECT state - 'global_position' - 'created_at' FROM seen),
	'{"sequence": 1, "event_id": "01890a5d-ac96-774b-bcce-b302099a8057", "tenant_id": "ten\"ant", "aggregate_type": "fields", "aggregate_id": "ä \"1\"", "event_type": "e", "event_version": "v 2",
		"payload": {"n": [1.50]}, "metadata": {"who": "me", "deep": [{"/": null}]}, "metadata/who": "me", "metadata/deep/0/~1": null, "/n": [1.50], "payload/n": [1.50]}', 'the fields of an event');
SELECT is((SELECT state -> 'global_position' FROM seen), (SELECT to_jsonb(global_position) FROM seen), 'its global position is a number');
SELECT is((SELECT (state ->> 'created_at')::timestamptz FROM seen), (SELECT created_at FROM seen), 'its time, to the microsecond');
SELECT is((SELECT state -> 'created_at' FROM seen), (SELECT to_jsonb(created_at) FROM seen), 'written as to_jsonb does in UTC');
CREATE TEMP TABLE zones (zone text, state jsonb);
DO $$
DECLARE z text;
BEGIN
	FOREACH z IN ARRAY ARRAY['UTC', 'Asia/Tokyo', 'America/St_Johns', 'Europe/Paris'] LOOP
		PERFORM set_config('timezone', z, true);
		INSERT INTO zones VALUES (z, cqrs_es.aggregate_state('fields', 'ä "1"') -> 'created_at');
	END LOOP;
	PERFORM set_config('timezone', 'UTC', true);
END $$;
SELECT is((SELECT count(DISTINCT state) FROM zones), 1::bigint, 'the same in every TimeZone of a session');
SET LOCAL datestyle = 'German, DMY';
SELECT is(cqrs_es.aggregate_state('fields', 'ä "1"') -> 'created_at', (SELECT state -> 'created_at' FROM seen), 'and in every DateStyle');
SET LOCAL datestyle = 'ISO, YMD';
SELECT is(pg_temp.error($$SELECT cqrs_es.aggregate_state('fields', 'f/1')$$),
	ARRAY['QE102', 'operation 14 (set "/~1n") of the reducer for "e" cannot be applied', 'The event has no "/n".', 'folding event 1 of stream "fields/f/1"'], 'what an event lacks');
RESET cqrs_es.tenant_id;

-- what is no operation: 22023, and its number

CREATE TEMP TABLE malformed (n serial, operation jsonb, detail text);
INSERT INTO malformed (operation, detail) VALUES
	('1', 'It is not a JSON object.'),
	('null', 'It is not a JSON object.'),
	('"remove"', 'It is not a JSON object.'),
	('[]', 'It is not a JSON object.'),
	('[{"op": "remove", "path": "/a"}]', 'It is not a JSON object.'),
	('{}', 'It has no member "op".'),
	('{"path": "/a", "value": 1}', 'It has no member "op".'),
	('{"op": "set", "value": 1}', 'It has no member "path".'),
	('{"op": 1, "path": "/a"}', 'Its member "op" must be a string.'),
	('{"op": null, "path": "/a"}', 'Its member "op" must be a string.'),
	('{"op": "set", "path": ["a"], "value": 1}', 'Its member "path" must be a string.'),
	('{"op": "set", "path": null, "value": 1}', 'Its member "path" must be a string.'),
	('{"op": "set", "path": "/a", "from": 1}', 'Its member "from" must be a string.'),
	('{"op": "set", "path": "/a", "from": null}', 'Its member "from" must be a string.'),
	('{"op": "SET", "path": "/a", "value": 1}', 'There is no operation "SET"; there are add, replace, remove, set, increment, decrement, append and merge.'),
	('{"op": "", "path": "/a", "value": 1}', 'There is no operation ""; there are add, replace, remove, set, increment, decrement, append and merge.'),
	('{"op": "%s%n", "path": "/a", "value": 1}', 'There is no operation "%s%n"; there are add, replace, remove, set, increment, decrement, append and merge.'),
	-- RFC 6902: move, copy and test are not in the vocabulary (A.6 to A.9, A.15), nor are members that mean nothing (A.11)
	('{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}', 'There is no operation "move"; there are add, replace, remove, set, increment, decrement, append and merge.'),
	('{"op": "copy", "from": "/foo/waldo", "path": "/qux/thud"}', 'There is no operation "copy"; there are add, replace, remove, set, increment, decrement, append and merge.'),
	('{"op": "test", "path": "/baz", "value": "qux"}', 'There is no operation "test"; there are add, replace, remove, set, increment, decrement, append and merge.'),
	('{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}', 'It has an unknown member "xyz".'),
	('{"op": "add", "path": "/baz", "value": "qux", "": 123}', 'It has an unknown member "".'),
	('{"op": "add", "path": "/baz", "Value": "qux"}', 'It has an unknown member "Value".'),
	('{"op": "add", "path": "/baz", "value": "qux", "op": "remove"}', '"remove" takes neither "value" nor "from".'),
	('{"op": "remove", "path": "/a", "from": "/b"}', '"remove" takes neither "value" nor "from".'),
	('{"op": "remove", "path": ""}', 'The whole state cannot be removed.'),
	('{"op": "set", "path": "/a", "value": 1, "from": "/a"}', 'It has both "value" and "from".'),
	('{"op": "set", "path": "/a", "value": null, "from": "/a"}', 'It has both "value" and "from".'),
	('{"op": "add", "path": "/a"}', '"add" needs "value" or "from".'),
	('{"op": "replace", "path": "/a"}', '"replace" needs "value" or "from".'),
	('{"op": "set", "path": "/a"}', '"set" needs "value" or "from".'),
	('{"op": "append", "path": "/a"}', '"append" needs "value" or "from".'),
	('{"op": "merge", "path": "/a"}', '"merge" needs "value" or "from".'),
	('{"op": "increment", "path": "/a", "value": "1"}', 'The value of "increment" must be a number.'),
	('{"op": "increment", "path": "/a", "value": null}', 'The value of "increment" must be a number.'),
	('{"op": "decrement", "path": "/a", "value": [1]}', 'The value of "decrement" must be a number.'),
	('{"op": "set", "path": "/a", "value": 1, "optional": true}', '"optional" needs "from".'),
	('{"op": "remove", "path": "/a", "optional": true}', '"optional" needs "from".'),
	('{"op": "set", "path": "/a", "from": "/b", "optional": 1}', 'Its member "optional" must be true or false.'),
	('{"op": "set", "path": "/a", "from": "/b", "optional": null}', 'Its member "optional" must be true or false.'),
	('{"op": "set", "path": "/a", "from": "/b", "optional": "true"}', 'Its member "optional" must be true or false.'),
	-- pointers
	('{"op": "set", "path": "a", "value": 1}', 'Its path "a" is not a JSON Pointer: it must be empty or begin with "/".'),
	('{"op": "set", "path": "a/b", "value": 1}', 'Its path "a/b" is not a JSON Pointer: it must be empty or begin with "/".'),
	('{"op": "set", "path": "#/a", "value": 1}', 'Its path "#/a" is not a JSON Pointer: it must be empty or begin with "/".'),
	('{"op": "set", "path": " /a", "value": 1}', 'Its path " /a" is not a JSON Pointer: it must be empty or begin with "/".'),
	('{"op": "set", "path": "{/a}", "value": 1}', 'Its path "{/a}" is not a JSON Pointer: it must be empty or begin with "/".'),
	('{"op": "set", "path": "/a~", "value": 1}', 'In "/a~" a "~" must be written "~0" (and "/" in a key "~1").'),
	('{"op": "set", "path": "/a~2b", "value": 1}', 'In "/a~2b" a "~" must be written "~0" (and "/" in a key "~1").'),
	('{"op": "set", "path": "/~/b", "value": 1}', 'In "/~/b" a "~" must be written "~0" (and "/" in a key "~1").'),
	('{"op": "set", "path": "/~~", "value": 1}', 'In "/~~" a "~" must be written "~0" (and "/" in a key "~1").'),
	('{"op": "set", "path": "/a", "from": "/b~"}', 'In "/b~" a "~" must be written "~0" (and "/" in a key "~1").'),
	('{"op": "set", "path": "/a", "from": "/~9/c"}', 'In "/~9/c" a "~" must be written "~0" (and "/" in a key "~1").'),
	('{"op": "set", "path": "/{/~}", "value": 1}', 'In "/~" a "~" must be written "~0" (and "/" in a key "~1").'),
	('{"op": "set", "path": "/{", "value": 1}', 'In its path "/{" a segment that begins with "{" must end with "}".'),
	('{"op": "set", "path": "/a/{/b", "value": 1}', 'In its path "/a/{/b" a segment that begins with "{" must end with "}".'),
	('{"op": "set", "path": "/{/a}b", "value": 1}', 'In its path "/{/a}b" a segment that begins with "{" must end with "}".'),
	('{"op": "set", "path": "/{/a}}", "value": 1}', 'In its path "/{/a}}" a segment that begins with "{" must end with "}".'),
	-- fields
	('{"op": "set", "path": "/a", "from": "amount"}', 'An event has no field "amount"; a pointer into its payload begins with "/".'),
	('{"op": "set", "path": "/a", "from": "Sequence"}', 'An event has no field "Sequence"; a pointer into its payload begins with "/".'),
	('{"op": "set", "path": "/a", "from": "sequence "}', 'An event has no field "sequence "; a pointer into its payload begins with "/".'),
	('{"op": "set", "path": "/a", "from": "sequence/"}', 'The field "sequence" of an event has nothing below it.'),
	('{"op": "set", "path": "/a", "from": "aggregate_id/x"}', 'The field "aggregate_id" of an event has nothing below it.'),
	('{"op": "set", "path": "/{amount}", "value": 1}', 'An event has no field "amount"; a pointer into its payload begins with "/".'),
	('{"op": "set", "path": "/{created_at/x}", "value": 1}', 'The field "created_at" of an event has nothing below it.');
SELECT is(pg_temp.error(format('SELECT cqrs_es.define_reducer(''op'', ''bad'', %L::jsonb)', jsonb_build_array(operation)))
		|| pg_temp.error(format('SELECT cqrs_es.define_reducer(''op'', ''bad'', %L)', '[{"op": "increment", "path": "/n"}, ' || operation::text || ', 7]')),
	ARRAY['22023', 'operation 1 is not valid', detail, NULL, '22023', 'operation 2 is not valid', detail, NULL], 'refused: ' || operation::text) FROM malformed ORDER BY n;
SELECT is((pg_temp.error(format('SELECT cqrs_es.define_reducer(''op'', ''bad'', %L::jsonb)', operations)))[1:2],
	ARRAY['22023', 'operations must be a JSON array'], 'refused: ' || operations) FROM unnest(ARRAY['{}', '{"op": "remove", "path": "/a"}', '1', 'null', '"[]"', 'true']) WITH ORDINALITY u (operations, n) ORDER BY n;
SELECT is((pg_temp.error($$SELECT cqrs_es.define_reducer('op', 'bad', '{"op": "remove", "path": "/a"}')$$))[1:2], ARRAY['22023', 'operations must be a JSON array'], 'refused: one operation alone');
SELECT is((pg_temp.error($$SELECT cqrs_es.define_reducer('op', 'bad', '[{')$$))[1], '22P02', 'refused: what is not JSON');
SELECT is((pg_temp.error($$SELECT cqrs_es.define_reducer('op', 'bad', NULL::jsonb)$$))[1:2], ARRAY['22004', 'operations must not be null'], 'refused: null');
SELECT is((pg_temp.error($$SELECT cqrs_es.define_reducer('op', 'bad', NULL::text)$$))[1:2], ARRAY['22004', 'reducer must not be null'], 'refused: null text');
SELECT is((pg_temp.error($$SELECT cqrs_es.define_reducer('undeclared', 'bad', '[]')$$))[1:2], ARRAY['QE101', 'aggregate type "undeclared" is not declared'], 'refused: of an undeclared aggregate');
SELECT is((SELECT count(*) FROM cqrs_es.reducers WHERE event_type = 'bad'), 0::bigint, 'nothing of it is there');
SELECT lives_ok($$SELECT cqrs_es.define_reducer('op', 'spaced', E' \n\t[ {"path" : "/a" , "op":"remove" } ]')$$, 'white space does not matter');

-- what cannot be applied: QE102

CREATE TEMP TABLE failing (n serial, initial jsonb, operation jsonb, payload jsonb, detail text);
INSERT INTO failing (initial, operation, payload, detail) VALUES
	-- RFC 6902, A.12
	('{"foo": "bar"}', '{"op": "add", "path": "/baz/bat", "value": "qux"}', '{}', 'There is no member "baz".'),
	('{"q": {"bar": 2}}', '{"op": "add", "path": "/a/b", "value": 1}', '{}', 'There is no member "a".'),
	('{"foo": [1]}', '{"op": "add", "path": "/foo/2", "value": "qux"}', '{}', 'Index 2 is out of range in an array of length 1.'),
	('{"foo": [1]}', '{"op": "add", "path": "/foo/bar", "value": "qux"}', '{}', '"bar" is not an index of an array.'),
	('{"foo": "bar"}', '{"op": "add", "path": "/foo/0", "value": "qux"}', '{}', 'There is a string where an object or an array is needed.'),
	('{}', '{"op": "replace", "path": "/a", "value": 1}', '{}', 'There is no member "a".'),
	('{}', '{"op": "replace", "path": "/a/b", "value": 1}', '{}', 'There is no member "a".'),
	('{"a": {}}', '{"op": "remove", "path": "/a/b"}', '{}', 'There is no member "b".'),
	('{}', '{"op": "remove", "path": "/"}', '{}', 'There is no member "".'),
	('[]', '{"op": "remove", "path": "/0"}', '{}', 'Index 0 is out of range in an array of length 0.'),
	('[1]', '{"op": "remove", "path": "/-"}', '{}', '"-" is not an index of an array.'),
	('[1]', '{"op": "replace", "path": "/-", "value": 2}', '{}', '"-" is not an index of an array.'),
	('[1]', '{"op": "replace", "path": "/1", "value": 2}', '{}', 'Index 1 is out of range in an array of length 1.'),
	('[1]', '{"op": "increment", "path": "/-"}', '{}', '"-" is not an index of an array.'),
	('[1]', '{"op": "increment", "path": "/1"}', '{}', 'Index 1 is out of range in an array of length 1.'),
	('[1]', '{"op": "append", "path": "/-", "value": 1}', '{}', '"-" is not an index of an array.'),
	('[1]', '{"op": "merge", "path": "/-", "value": 1}', '{}', '"-" is not an index of an array.'),
	('[[1]]', '{"op": "add", "path": "/-/0", "value": 1}', '{}', '"-" is not an index of an array.'),
	('[[1]]', '{"op": "set", "path": "/1/0", "value": 1}', '{}', 'Index 1 is out of range in an array of length 1.'),
	('[1]', '{"op": "set", "path": "/2", "value": 1}', '{}', 'Index 2 is out of range in an array of length 1.'),
	('[1]', '{"op": "add", "path": "/00", "value": 1}', '{}', '"00" is not an index of an array.'),
	('[1]', '{"op": "add", "path": "/-1", "value": 1}', '{}', '"-1" is not an index of an array.'),
	('[1]', '{"op": "add", "path": "/", "value": 1}', '{}', '"" is not an index of an array.'),
	('[1]', '{"op": "add", "path": "/1e0", "value": 1}', '{}', '"1e0" is not an index of an array.'),
	('[1]', '{"op": "add", "path": "/99999999999999999999999", "value": 1}', '{}', 'Index 99999999999999999999999 is out of range in an array of length 1.'),
	('[1]', '{"op": "add", "path": "/4294967296", "value": 1}', '{}', 'Index 4294967296 is out of range in an array of length 1.'),
	('5', '{"op": "set", "path": "/a", "value": 1}', '{}', 'There is a number where an object or an array is needed.'),
	('null', '{"op": "set", "path": "/a", "value": 1}', '{}', 'There is null where an object or an array is needed.'),
	('{"a": true}', '{"op": "set", "path": "/a/b", "value": 1}', '{}', 'There is a boolean where an object or an array is needed.'),
	('{"a": null}', '{"op": "set", "path": "/a/b/c", "value": 1}', '{}', 'There is null where an object or an array is needed.'),
	('{"a": "1"}', '{"op": "increment", "path": "/a"}', '{}', 'There is a string where a number is needed.'),
	('{"a": null}', '{"op": "increment", "path": "/a"}', '{}', 'There is null where a number is needed.'),
	('{"a": {}}', '{"op": "decrement", "path": "/a"}', '{}', 'There is an object where a number is needed.'),
	('{"a": []}', '{"op": "decrement", "path": "/a"}', '{}', 'There is an array where a number is needed.'),
	('{"a": false}', '{"op": "decrement", "path": "/a"}', '{}', 'There is a boolean where a number is needed.'),
	('{}', '{"op": "increment", "path": ""}', '{}', 'There is an object where a number is needed.'),
	('{}', '{"op": "increment", "path": "/a", "from": "/b"}', '{"b": "1"}', '"/b" of the event is not a number.'),
	('{}', '{"op": "increment", "path": "/a", "from": "/b"}', '{"b": null}', '"/b" of the event is not a number.'),
	('{}', '{"op": "decrement", "path": "/a", "from": "aggregate_type"}', '{}', '"aggregate_type" of the event is not a number.'),
	('{}', '{"op": "increment", "path": "/a", "from": "/b", "optional": true}', '{"b": "1"}', '"/b" of the event is not a number.'),
	('{"a": {}}', '{"op": "append", "path": "/a", "value": 1}', '{}', 'There is an object where an array is needed.'),
	('{}', '{"op": "append", "path": "", "value": 1}', '{}', 'There is an object where an array is needed.'),
	('{"a": null}', '{"op": "append", "path": "/a", "value": 1}', '{}', 'There is null where an array is needed.'),
	('{}', '{"op": "set", "path": "/a", "from": "/b"}', '{}', 'The event has no "/b".'),
	('{}', '{"op": "set", "path": "/a", "from": "/b/c"}', '{"b": null}', 'The event has no "/b/c".'),
	('{}', '{"op": "set", "path": "/a", "from": "/-"}', '[1]', 'The event has no "/-".'),
	('{}', '{"op": "set", "path": "/a", "from": "metadata/x"}', '{"x": 1}', 'The event has no "metadata/x".'),
	('{}', '{"op": "set", "path": "/a", "from": "/b"}', '"text"', 'The event has no "/b".'),
	('{}', '{"op": "set", "path": "/{/b}", "value": 1}', '{}', 'The event has no "/b".'),
	('{}', '{"op": "set", "path": "/{/b}/c", "from": "/c", "optional": true}', '{"c": 1}', 'The event has no "/b".'),
	('{}', '{"op": "set", "path": "/{/b}", "value": 1}', '{"b": null}', '"/b" of the event is neither a string nor a number.'),
	('{}', '{"op": "set", "path": "/{/b}", "value": 1}', '{"b": true}', '"/b" of the event is neither a string nor a number.'),
	('{}', '{"op": "set", "path": "/{/b}/c", "value": 1}', '{"b": {}}', '"/b" of the event is neither a string nor a number.'),
	('[0]', '{"op": "replace", "path": "/{/b}", "value": 1}', '{"b": 0.5}', '"0.5" is not an index of an array.'),
	('[0]', '{"op": "replace", "path": "/{/b}", "value": 1}', '{"b": -1}', '"-1" is not an index of an array.'),
	('[0]', '{"op": "replace", "path": "/{/b}", "value": 1}', '{"b": 1e100}', 'Index 1' || repeat('0', 100) || ' is out of range in an array of length 1.'),
	('{}', '{"op": "replace", "path": "/%s%n{", "value": 1}', '{}', 'There is no member "%s%n{".');
SELECT is(pg_temp.fold_error(initial, jsonb_build_array('{"op": "merge", "path": "", "value": {}}'::jsonb, operation), payload),
	ARRAY['QE102', format('operation 2 (%s "%s") of the reducer for "done" cannot be applied', operation ->> 'op', operation ->> 'path'), detail, 'folding event 1 of stream "failing/s"'],
	format('%s, %s: %s', initial, payload, operation)) FROM failing WHERE jsonb_typeof(initial) = 'object' ORDER BY n;
SELECT is(pg_temp.fold_error(initial, jsonb_build_array(operation), payload),
	ARRAY['QE102', format('operation 1 (%s "%s") of the reducer for "done" cannot be applied', operation ->> 'op', operation ->> 'path'), detail, 'folding event 1 of stream "failing/s"'],
	format('%s, %s: %s', initial, payload, operation)) FROM failing WHERE jsonb_typeof(initial) <> 'object' ORDER BY n;

SELECT cqrs_es.create_aggregate('stops', '{}', 0) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('stops', 'counted', '[{"op": "increment", "path": "/n", "from": "/by"}]') IS NULL AS x \gset
SELECT cqrs_es.append_events('stops', 'a', (SELECT jsonb_agg(jsonb_build_object('type', 'counted', 'payload', jsonb_build_object('by', CASE WHEN n = 7 THEN '"7"' ELSE to_jsonb(n) END)) ORDER BY n) FROM generate_series(1, 10) n)) IS NULL AS x \gset
SELECT is((pg_temp.error(format('SELECT * FROM %s', call)))[4], 'folding event 7 of stream "stops/a"', call || ' stops at the event')
FROM unnest(ARRAY['cqrs_es.aggregate_state(''stops'', ''a'')', 'cqrs_es.load_aggregate(''stops'', ''a'')', 'cqrs_es.replay(''stops'', ''a'')', 'cqrs_es.take_snapshot(''stops'', ''a'')']) WITH ORDINALITY u (call, n) ORDER BY n;
SELECT is(cqrs_es.aggregate_state('stops', 'a', 6), '{"n": 21}', 'before it all is well');
SELECT cqrs_es.alter_aggregate('stops', NULL, 8) IS NULL AS x \gset
SET LOCAL client_min_messages = error;
SELECT is((cqrs_es.append_events('stops', 'b', '[{"type": "counted", "payload": {"by": "x"}}, {"type": "e", "payload": {}}, {"type": "e", "payload": {}}, {"type": "e", "payload": {}}, {"type": "e", "payload": {}}, {"type": "e", "payload": {}}, {"type": "e", "payload": {}}, {"type": "e", "payload": {}}]')).version, 8::bigint, 'an append that is due a snapshot does not');
SET LOCAL client_min_messages = warning;
SELECT is((SELECT count(*) FROM cqrs_es.snapshots WHERE aggregate_type = 'stops'), 0::bigint, 'it goes without');

-- numbers are exact

SELECT is(pg_temp.fold('{"n": 0.1}', '[{"op": "increment", "path": "/n", "value": 0.2}]')::text, '{"n": 0.3}', '0.1 + 0.2');
CREATE TEMP TABLE pairs (n serial, a numeric, b numeric);
INSERT INTO pairs (a, b) VALUES
	(0, 0), (0, 0.0), (0.00, 0.0), (1, -1), (1.0, -1), (1, -1.00), (0.1, -0.1), (0.10, -0.100), (1.10, 2.9), (100, 100), (9999, 1), (10000, -1), (-9999, -1), (10000, 10000),
	(99999999, 1), (0.00000001, 0.00000001), (0.00000001, -0.00000002), (0.000000001, 1), (1, 0.000000001), (0.99999999, 0.00000001), (0.5, 0.5), (0.50000000, 5),
	(123456789012.3456, 0.0004), (9999999999999999, 1), (-9999999999999999, -1), (9999999999999999, 9999999999999999), (10000000000000000, 1), (99999999.99999999, 0.00000001),
	(-99999999.99999999, -99999999.99999999), (1e15, 1e-8), (1e16, 1e-8), (1e100, 1e-100), (1e-100, -1e-100), (1e3, 1e0), (1e20, -1e20), (12345678, 0.12345678), (1234567890123456, 0.1),
	(9223372036854775807, 1), (9223372036854775807, 0), (-9223372036854775808, -1), (-9223372036854775808, 0.00), (9223372036854775808, -1),
	-- the ends of what fits into 64 bits with a scale
	(92233720368, 0.54775807), (92233720368, 0.54775808), (-92233720368, -0.54775808), (-92233720368, -0.54775809), (92233720369, 0.00000001), (-92233720369, -0.00000001),
	(922337203685, 0.4775807), (922337203685, 0.4775808), (-922337203685, -0.4775808), (-922337203685, -0.4775809), (9223372036854775, 0.807), (9223372036854775, 0.808), (-9223372036854775, -0.808), (-9223372036854775, -0.809),
	(9999999999999999, 0.00), (9999999999999999, 0.000), (9999999999999999, 0.0000), (9999999999999999.0, 0.1), (0.0001, 0.00010000), (0.00005, 0.00005), (5e-8, 5e-8), (1e-8, 9e15),
	(repeat('9', 10000)::numeric, 1), (('0.' || repeat('3', 10000))::numeric, ('0.' || repeat('6', 10000))::numeric), (('1e131071')::numeric, -('1e131071')::numeric), (1e131071, ('0.' || repeat('1', 16383))::numeric);
-- random ones of all magnitudes and scales
CREATE FUNCTION pg_temp.random_number(digits integer, decimals integer) RETURNS numeric LANGUAGE plpgsql VOLATILE AS $$
DECLARE whole text := ''; fraction text := ''; i integer;
BEGIN
	FOR i IN 1 .. floor(random() * (digits + 1))::int LOOP whole := whole || CASE WHEN random() < 0.3 THEN '0' WHEN random() < 0.3 THEN '9' ELSE floor(random() * 10)::text END; END LOOP;
	FOR i IN 1 .. floor(random() * (decimals + 1))::int LOOP fraction := fraction || CASE WHEN random() < 0.3 THEN '0' WHEN random() < 0.3 THEN '9' ELSE floor(random() * 10)::text END; END LOOP;
	RETURN (CASE WHEN random() < 0.5 THEN '-' ELSE '' END || '0' || whole || CASE WHEN fraction = '' THEN '' ELSE '.' || fraction END)::numeric;
END $$;
SELECT setseed(0.3) IS NULL AS x \gset
INSERT INTO pairs (a, b) SELECT pg_temp.random_number(18, 9), pg_temp.random_number(18, 9) FROM generate_series(1, 3000);
INSERT INTO pairs (a, b) SELECT pg_temp.random_number(6, 3), pg_temp.random_number(6, 3) FROM generate_series(1, 1000);
INSERT INTO pairs (a, b) SELECT pg_temp.random_number(40, 40), pg_temp.random_number(20, 20) FROM generate_series(1, 1000);
INSERT INTO pairs (a, b) SELECT a, -a + pg_temp.random_number(2, 8) FROM pairs WHERE n % 10 = 0 AND abs(a) < 1e50;
SELECT cqrs_es.create_aggregate('numbers', '{}', 0) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('numbers', 'pair', '[{"op": "set", "path": "/sum", "from": "/a"}, {"op": "increment", "path": "/sum", "from": "/b"}, {"op": "set", "path": "/difference", "from": "/a"}, {"op": "decrement", "path": "/difference", "from": "/b"},
	{"op": "set", "path": "/there", "value": 0}, {"op": "increment", "path": "/there", "from": "/a"}, {"op": "increment", "path": "/there", "from": "/b"}, {"op": "decrement", "path": "/there", "from": "/b"}]') IS NULL AS x \gset
SELECT cqrs_es.append_events('numbers', 'pairs', (SELECT jsonb_agg(jsonb_build_object('type', 'pair', 'payload', jsonb_build_object('a', a, 'b', b)) ORDER BY n) FROM pairs)) IS NULL AS x \gset
CREATE TEMP TABLE sums AS SELECT p.*, r.state FROM cqrs_es.replay('numbers', 'pairs') r JOIN pairs p ON p.n = r.sequence;
SELECT is((SELECT count(*) FROM sums), (SELECT count(*) FROM pairs WHERE (SELECT count(*) FROM pairs) > 5000), 'thousands of pairs are summed');
SELECT is_empty($$SELECT n, left(a::text, 60), left(b::text, 60), left(state ->> 'sum', 60) FROM sums WHERE state ->> 'sum' <> (a + b)::text$$, 'as numeric does, to the last zero');
SELECT is_empty($$SELECT n, left(a::text, 60), left(b::text, 60), left(state ->> 'difference', 60) FROM sums WHERE state ->> 'difference' <> (a - b)::text$$, 'and subtracted');
SELECT is_empty($$SELECT n, left(a::text, 60), left(b::text, 60), left(state ->> 'there', 60) FROM sums WHERE state ->> 'there' <> (0 + a + b - b)::text$$, 'there and back');

-- thousands of events on the same numbers
SELECT cqrs_es.define_reducer('numbers', 'in', '[{"op": "increment", "path": "/balance", "from": "/x"}, {"op": "increment", "path": "/in"}]') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('numbers', 'out', '[{"op": "decrement", "path": "/balance", "from": "/x"}, {"op": "decrement", "path": "/out"}]') IS NULL AS x \gset
CREATE TEMP TABLE moves AS SELECT stream, n, CASE WHEN random() < 0.5 THEN 'in' ELSE 'out' END AS type,
	CASE stream WHEN 1 THEN pg_temp.random_number(5, 2) WHEN 2 THEN pg_temp.random_number(16, 8) WHEN 3 THEN pg_temp.random_number(10, 8)
		WHEN 4 THEN CASE WHEN n % 50 = 0 THEN pg_temp.random_number(30, 4) ELSE pg_temp.random_number(17, 2) END
		WHEN 5 THEN 9999999999999999 * (CASE WHEN n / 1000 % 2 = 0 THEN 1 ELSE -1 END) END AS x
FROM generate_series(1, 5) stream, generate_series(1, 3000) n;
UPDATE moves SET type = 'in' WHERE stream = 5;
SELECT count(cqrs_es.append_events('numbers', 'stream ' || stream, events)) AS x
FROM (SELECT stream, jsonb_agg(jsonb_build_object('type', type, 'payload', jsonb_build_object('x', x)) ORDER BY n) AS events FROM moves GROUP BY stream) s \gset
-- one addition after the other, which keeps the scale of each
CREATE TEMP TABLE balances (stream integer, n integer, balance numeric, ins integer, outs integer);
DO $$
DECLARE m record; balance numeric; ins integer; outs integer;
BEGIN
	FOR m IN SELECT * FROM moves ORDER BY stream, n LOOP
		IF m.n = 1 THEN balance := 0; ins := NULL; outs := NULL; END IF;
		IF m.type = 'in' THEN balance := balance + m.x; ins := coalesce(ins, 0) + 1; ELSE balance := balance - m.x; outs := coalesce(outs, 0) - 1; END IF;
		INSERT INTO balances VALUES (m.stream, m.n, balance, ins, outs);
	END LOOP;
END $$;
SELECT is_empty(format($$SELECT n, r.state, balance, ins, outs FROM cqrs_es.replay('numbers', 'stream %s') r JOIN balances ON n = r.sequence
	WHERE stream = %s AND r.state::text IS DISTINCT FROM jsonb_strip_nulls(jsonb_build_object('balance', balance, 'in', ins, 'out', outs))::text$$, stream, stream), format('thousands of events, stream %s', stream))
FROM generate_series(1, 5) stream;
SELECT is((SELECT array_agg(cqrs_es.aggregate_state('numbers', 'stream ' || stream)::text ORDER BY stream) FROM generate_series(1, 5) stream),
	(SELECT array_agg(jsonb_strip_nulls(jsonb_build_object('balance', balance, 'in', ins, 'out', outs))::text ORDER BY stream) FROM balances WHERE n = 3000), 'without a look between the events');
SELECT is(pg_temp.fold_error('{"n": 9e131071}', '[{"op": "increment", "path": "/n", "value": 9e131071}]'),
	ARRAY['22003', 'value overflows numeric format', '', 'folding event 1 of stream "failing/s"'], 'what numeric cannot hold');

-- reducers of every kind in one aggregate

CREATE FUNCTION doubled(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
	$$SELECT state || jsonb_build_object('n', (state -> 'n')::numeric * 2, 'doubled', (event).sequence)$$;
CREATE FUNCTION noted(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS
	$$BEGIN RETURN jsonb_set(state, '{notes}', coalesce(state -> 'notes', '[]') || event.payload); END$$;
CREATE FUNCTION unchanged(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN RETURN state; END$$;
CREATE FUNCTION payload(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN RETURN event.payload; END$$;
SELECT cqrs_es.create_aggregate('mixed', '{"n": 1}', 0) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('mixed', 'incremented', '[{"op": "increment", "path": "/n", "from": ""}]') IS NULL AS x,
	cqrs_es.define_reducer('mixed', 'doubled', 'doubled(jsonb, cqrs_es.event)') IS NULL AS x,
	cqrs_es.define_reducer('mixed', 'noted', 'noted(jsonb, cqrs_es.event)') IS NULL AS x,
	cqrs_es.define_reducer('mixed', 'unchanged', 'unchanged(jsonb, cqrs_es.event)') IS NULL AS x,
	cqrs_es.define_reducer('mixed', 'restarted', 'payload(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT cqrs_es.append_events('mixed', 'a', '[
	{"type": "incremented", "payload": 0.5}, {"type": "doubled", "payload": {}}, {"type": "incremented", "payload": 0.25}, {"type": "noted", "payload": "first"},
	{"type": "noted", "payload": {"second": true}}, {"type": "merged", "payload": {"notes": null, "m": {"x": 1}}}, {"type": "unchanged", "payload": {}}, {"type": "unchanged", "payload": {}}, {"type": "noted", "payload": 3},
	{"type": "incremented", "payload": -1}, {"type": "merged", "payload": {"m": {"x": null}}}, {"type": "doubled", "payload": {}}, {"type": "doubled", "payload": {}}, {"type": "merged", "payload": {}},
	{"type": "restarted", "payload": {"n": 7}}, {"type": "unchanged", "payload": {}}, {"type": "incremented", "payload": 1}, {"type": "doubled", "payload": {}}]') IS NULL AS x \gset
SELECT results_eq($$SELECT sequence, event_type COLLATE "default", state::text FROM cqrs_es.replay('mixed', 'a')$$, $$VALUES
	(1::bigint, 'incremented', '{"n": 1.5}'),
	(2, 'doubled', '{"n": 3.0, "doubled": 2}'),
	(3, 'incremented', '{"n": 3.25, "doubled": 2}'),
	(4, 'noted', '{"n": 3.25, "notes": ["first"], "doubled": 2}'),
	(5, 'noted', '{"n": 3.25, "notes": ["first", {"second": true}], "doubled": 2}'),
	(6, 'merged', '{"m": {"x": 1}, "n": 3.25, "doubled": 2}'),
	(7, 'unchanged', '{"m": {"x": 1}, "n": 3.25, "doubled": 2}'),
	(8, 'unchanged', '{"m": {"x": 1}, "n": 3.25, "doubled": 2}'),
	(9, 'noted', '{"m": {"x": 1}, "n": 3.25, "notes": [3], "doubled": 2}'),
	(10, 'incremented', '{"m": {"x": 1}, "n": 2.25, "notes": [3], "doubled": 2}'),
	(11, 'merged', '{"m": {}, "n": 2.25, "notes": [3], "doubled": 2}'),
	(12, 'doubled', '{"m": {}, "n": 4.50, "notes": [3], "doubled": 12}'),
	(13, 'doubled', '{"m": {}, "n": 9.00, "notes": [3], "doubled": 13}'),
	(14, 'merged', '{"m": {}, "n": 9.00, "notes": [3], "doubled": 13}'),
	(15, 'restarted', '{"n": 7}'),
	(16, 'unchanged', '{"n": 7}'),
	(17, 'incremented', '{"n": 8}'),
	(18, 'doubled', '{"n": 16, "doubled": 18}')$$, 'declared reducers, merges and functions');
SELECT is(cqrs_es.aggregate_state('mixed', 'a'), '{"n": 16, "doubled": 18}', 'without a look between the events');

-- objects with many members, arrays that grow

SELECT cqrs_es.create_aggregate('many', '{}', 0) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('many', 'set', '[{"op": "set", "path": "/{/k}", "from": "/v"}]') IS NULL AS x,
	cqrs_es.define_reducer('many', 'removed', '[{"op": "remove", "path": "/{/k}"}]') IS NULL AS x,
	cqrs_es.define_reducer('many', 'appended', '[{"op": "append", "path": "", "from": "/v"}]') IS NULL AS x,
	cqrs_es.define_reducer('many', 'inserted', '[{"op": "add", "path": "/{/k}", "from": "/v"}]') IS NULL AS x,
	cqrs_es.define_reducer('many', 'listed', '[{"op": "replace", "path": "", "value": []}]') IS NULL AS x \gset
CREATE TEMP TABLE expected (stream text, n bigint, state jsonb);
DO $$
DECLARE events jsonb[] := '{}'; state jsonb := '{}'; k text; n integer;
BEGIN
	-- fill, empty, fill again: dozens of members, whose keys have many lengths
	FOR n IN 1 .. 1500 LOOP
		k := repeat('k', floor(random() * 60)::int);
		IF n BETWEEN 700 AND 900 THEN
			SELECT key INTO k FROM jsonb_object_keys(state) key ORDER BY random() LIMIT 1;
			CONTINUE WHEN k IS NULL;
		END IF;
		IF state ? k AND (random() < 0.5 OR n BETWEEN 700 AND 900) THEN
			events := events || jsonb_build_object('type', 'removed', 'payload', jsonb_build_object('k', k));
			state := state - k;
		ELSE
			events := events || jsonb_build_object('type', 'set', 'payload', jsonb_build_object('k', k, 'v', n));
			state := state || jsonb_build_object(k, n);
		END IF;
		INSERT INTO expected VALUES ('object', cardinality(events), state);
	END LOOP;
	PERFORM cqrs_es.append_events('many', 'object', to_jsonb(events));

	events := ARRAY['{"type": "listed", "payload": {}}'::jsonb];
	state := '[]';
	INSERT INTO expected VALUES ('array', 1, state);
	FOR n IN 2 .. 600 LOOP
		IF jsonb_array_length(state) > 0 AND random() < (CASE WHEN n BETWEEN 200 AND 300 THEN 0.9 ELSE 0.2 END) THEN
			k := floor(random() * jsonb_array_length(state))::text;
			events := events || jsonb_build_object('type', 'removed', 'payload', jsonb_build_object('k', k));
			state := state - k::int;
		ELSIF random() < 0.5 THEN
			events := events || jsonb_build_object('type', 'appended', 'payload', jsonb_build_object('v', jsonb_build_array(n)));
			state := state || jsonb_build_array(jsonb_build_array(n));
		ELSE
			k := floor(random() * (jsonb_array_length(state) + 1))::text;
			events := events || jsonb_build_object('type', 'inserted', 'payload', jsonb_build_object('k', k, 'v', n));
			state := jsonb_insert(state, ARRAY[k], to_jsonb(n));
		END IF;
		INSERT INTO expected VALUES ('array', n, state);
	END LOOP;
	PERFORM cqrs_es.append_events('many', 'array', to_jsonb(events));
END $$;
SELECT is_empty(format($$SELECT n, r.state, e.state FROM cqrs_es.replay('many', %L) r FULL JOIN (SELECT * FROM expected WHERE stream = %L) e ON n = r.sequence WHERE r.state IS DISTINCT FROM e.state$$, stream, stream),
	format('many changes of an %s', stream)) FROM unnest(ARRAY['object', 'array']) stream;
SELECT is(cqrs_es.aggregate_state('many', stream), (SELECT state FROM expected e WHERE e.stream = s.stream ORDER BY n DESC LIMIT 1), format('without a look between the changes: %s', stream)) FROM unnest(ARRAY['object', 'array']) s (stream);
SELECT cmp_ok(max(n), '>', 40::bigint, 'an object that had many members') FROM (SELECT count(*) AS n FROM expected, jsonb_object_keys(state) WHERE stream = 'object' GROUP BY expected.n) c;
SELECT isnt_empty($$SELECT FROM expected WHERE stream = 'object' AND state = '{}'$$, 'and none');
SELECT is(pg_temp.fold((SELECT jsonb_object_agg('k' || n, n) FROM generate_series(1, 1000) n), '[{"op": "remove", "path": "/k500"}, {"op": "increment", "path": "/k501"}, {"op": "set", "path": "/k500", "value": "again"}, {"op": "merge", "path": "", "value": {"k1": null, "k1000": null}}]'),
	(SELECT jsonb_object_agg('k' || n, CASE n WHEN 500 THEN '"again"' WHEN 501 THEN '502' ELSE to_jsonb(n) END) FROM generate_series(2, 999) n), 'an object that had many members to begin with');

SELECT finish();
ROLLBACK;
