\i test/include/setup.sql
-- Hostile input: a clear error or a right answer, never a crash.
BEGIN;
SELECT plan(168);
-- like is(), but prints only the beginning of values of many megabytes
CREATE FUNCTION pg_temp.same(a jsonb, b jsonb, description text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN a IS NOT DISTINCT FROM b THEN pass(description) ELSE fail(description)
		|| E'\n' || diag(format('have %s characters: %s', length(a::text), left(a::text, 1000)))
		|| E'\n' || diag(format('want %s characters: %s', length(b::text), left(b::text, 1000))) END $$;
\i test/include/fold.sql

-- payloads of every size: stored plain, compressed, out of line

CREATE FUNCTION pg_temp.noise(n integer) RETURNS text LANGUAGE sql AS $$
	SELECT left(coalesce(string_agg(md5(i::text), '' ORDER BY i), ''), n) FROM generate_series(1, n / 32 + 1) i $$;
SELECT pg_temp.same(pg_temp.fold('{}', '[{"op": "set", "path": "/x", "from": "/x"}, {"op": "set", "path": "/m", "from": "metadata/x"}]',
		jsonb_build_object('x', pg_temp.noise(n)), jsonb_build_object('x', pg_temp.noise(n))),
	jsonb_build_object('x', pg_temp.noise(n), 'm', pg_temp.noise(n)), format('%s bytes of noise', n))
FROM unnest(ARRAY[0, 100, 110, 111, 112, 113, 114, 120, 200, 1000, 1990, 2000, 2100, 5000, 100000, 1000000]) n;
SELECT pg_temp.same(pg_temp.fold('{}', '[{"op": "set", "path": "/x", "from": "/x"}]', jsonb_build_object('x', repeat('y', n))),
	jsonb_build_object('x', repeat('y', n)), format('%s equal bytes', n))
FROM unnest(ARRAY[100, 120, 2000, 1000000, 10000000]) n;
SELECT count(cqrs_es.append_event('op', 'noise', 'merged', jsonb_build_object('n' || n, pg_temp.noise(n)))) AS x FROM unnest(ARRAY[10, 5000, 50, 50000, 200]) n \gset
SELECT is((SELECT jsonb_object_agg(key, length(value)) FROM jsonb_each_text(cqrs_es.aggregate_state('op', 'noise')) WHERE key LIKE 'n%'),
	'{"n10": 10, "n50": 50, "n200": 200, "n5000": 5000, "n50000": 50000}', 'one after the other');

-- documents 10,000 deep

CREATE FUNCTION pg_temp.deep(opening text, middle text, closing text, depth integer) RETURNS text LANGUAGE sql AS
	$$SELECT repeat(opening, depth) || middle || repeat(closing, depth)$$;
CREATE TEMP TABLE documents (name text, depth integer, document text);
INSERT INTO documents SELECT name, depth, pg_temp.deep(opening, middle, closing, depth)
FROM unnest(ARRAY[100, 1000, 10000, 100000]) depth, (VALUES ('arrays', '[', '1', ']'), ('objects', '{"a":', '1', '}'), ('both', '[{"a":', '[]', '}]')) f (name, opening, middle, closing);
-- what the server's own jsonb takes at this depth, we may refuse with the same error, but not otherwise
CREATE FUNCTION pg_temp.try(call text, depth integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text := pg_temp.state_of(call);
BEGIN
	IF result = 'none' OR result = '54001' AND depth >= 10000 THEN RETURN 'fine'; END IF;
	RETURN result;
END $$;
SELECT is(pg_temp.try(format('SELECT pg_temp.fold(''{}'', ''[{"op": "set", "path": "", "from": ""}]'', %L)', document), depth), 'fine', format('payload: %s %s deep', name, depth)) FROM documents ORDER BY name, depth;
SELECT is(pg_temp.try(format('SELECT pg_temp.fold(%L, ''[{"op": "merge", "path": "", "from": ""}]'', %L)', document, document), depth), 'fine', format('initial state: %s %s deep', name, depth)) FROM documents ORDER BY name, depth;
SELECT is(pg_temp.try(format('SELECT pg_temp.fold(''{}'', %L)', '[{"op": "set", "path": "/x", "value": ' || document || '}, {"op": "append", "path": "/list", "value": ' || document || '}, {"op": "remove", "path": "/x"}]'), depth), 'fine', format('operation: %s %s deep', name, depth)) FROM documents ORDER BY name, depth;
SELECT is(pg_temp.try(format('SELECT cqrs_es.define_reducer(''op'', ''deep'', %L)', document), depth), '22023', format('operations: %s %s deep', name, depth)) FROM documents WHERE depth <= 1000 ORDER BY name, depth;
CREATE FUNCTION pg_temp.merge(name text, document jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE state jsonb;
BEGIN
	PERFORM cqrs_es.append_event('op', name, 'merged', document);
	state := cqrs_es.aggregate_state('op', name);
	PERFORM cqrs_es.append_event('op', name, 'merged', document);
	IF (SELECT max(r.state::text) FROM cqrs_es.replay('op', name) r) <> state::text THEN RAISE EXCEPTION 'wrong'; END IF;
END $$;
SELECT is(pg_temp.try(format('SELECT pg_temp.merge(%L, %L)', name || depth, document), depth), 'fine', format('merged twice: %s %s deep', name, depth)) FROM documents ORDER BY name, depth;
SELECT is(pg_temp.fold('{}', '[{"op": "set", "path": "", "from": ""}]', document::jsonb), document::jsonb, format('%s %s deep come back', name, depth)) FROM documents WHERE depth <= 1000 ORDER BY name, depth;
-- depth that no document had
SELECT is(pg_temp.try(format('SELECT pg_temp.fold(''{}'', %L)', jsonb_build_array(jsonb_build_object('op', 'set', 'path', repeat('/a', depth), 'value', 1))), depth), 'fine', format('a path of %s segments', depth)) FROM unnest(ARRAY[1000, 10000, 100000]) depth;
SELECT is(pg_temp.try(format('SELECT pg_temp.fold(''{}'', %L)', jsonb_build_array(jsonb_build_object('op', 'set', 'path', repeat('/a', depth), 'value', 1), jsonb_build_object('op', 'increment', 'path', repeat('/a', depth)),
	'{"op": "replace", "path": "/a", "value": "gone"}'::jsonb)), depth), 'fine', format('a state %s deep in between', depth)) FROM unnest(ARRAY[1000, 10000, 100000]) depth;
SELECT is(pg_temp.fold('{}', jsonb_build_array(jsonb_build_object('op', 'set', 'path', repeat('/a', 1000), 'value', 1), jsonb_build_object('op', 'increment', 'path', repeat('/a', 1000)))),
	pg_temp.deep('{"a":', '2', '}', 1000)::jsonb, 'a path of 1000 segments leads somewhere');
SELECT is(pg_temp.fold('{}', jsonb_build_array(jsonb_build_object('op', 'set', 'path', '/x', 'from', repeat('/a', 1000)))
	, pg_temp.deep('{"a":', '"found"', '}', 1000)::jsonb), '{"x": "found"}', 'and so does a pointer');
SELECT is(pg_temp.state_of(format('SELECT pg_temp.fold(''{}'', %L)', jsonb_build_array(jsonb_build_object('op', 'set', 'path', '/x', 'from', repeat('/a', 100000))))), 'QE102', 'or not');
SELECT is((pg_temp.fold('{}', (SELECT jsonb_agg('{"op": "increment", "path": "/n", "value": 0.5}'::jsonb) FROM generate_series(1, 100000)))), '{"n": 50000.0}', '100,000 operations');

-- keys and texts with every character

CREATE TEMP TABLE characters AS SELECT c, replace(replace(c, '~', '~0'), '/', '~1') AS escaped, row_number() OVER () AS n
FROM (SELECT chr(i) AS c FROM generate_series(1, 300) i UNION ALL SELECT chr(i) FROM unnest(ARRAY[8232, 55295, 57344, 65533, 65535, 65536, 128512, 1114111]) i
	UNION ALL SELECT unnest(ARRAY['e' || chr(769), '~1', '~0', '~01', '/~', '//', '\u0041', E'\\"', '{}', '', '-', '0', ' ', repeat('k', 255), repeat('k', 256), repeat('k', 100000)])) c
WHERE c NOT LIKE '{%'; -- begins a segment taken from the event
SELECT pg_temp.same(pg_temp.fold('{}', (SELECT jsonb_agg(jsonb_build_object('op', 'set', 'path', '/o/' || escaped, 'from', '/' || escaped)) FROM characters), (SELECT jsonb_object_agg(c, c || n) FROM characters)),
	(SELECT jsonb_build_object('o', jsonb_object_agg(c, c || n)) FROM characters), 'in pointers');
SELECT cqrs_es.define_reducer('op', 'keyed', '[{"op": "set", "path": "/o/{/k}", "from": "/k"}]') IS NULL AS x \gset
SELECT cqrs_es.append_events('op', 'keyed', (SELECT jsonb_agg(jsonb_build_object('type', 'keyed', 'payload', jsonb_build_object('k', c)) ORDER BY n) FROM characters)) IS NULL AS x \gset
SELECT pg_temp.same(cqrs_es.aggregate_state('op', 'keyed') -> 'o', (SELECT jsonb_object_agg(c, c) FROM characters), 'as keys from the event');
SELECT pg_temp.same(pg_temp.fold('{}', '[{"op": "set", "path": "/o", "value": {}}, {"op": "merge", "path": "/o", "from": ""}]', (SELECT jsonb_object_agg(c, jsonb_build_object(c, c)) FROM characters)) -> 'o', (SELECT jsonb_object_agg(c, jsonb_build_object(c, c)) FROM characters), 'in a merge');
SELECT is(pg_temp.fold('{}', '[{"op": "set", "path": "/{/k}", "from": "/k"}]', '{"k": "{/x}"}'), '{"{/x}": "{/x}"}', 'a key that looks like a reference');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.define_reducer(''op'', ''e'', %L)', '[{"op": "set", "path": "/a\u0000", "value": 1}]')), '22P05', 'no zero byte in a path');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.append_event(''op'', ''zero'', ''merged'', %L)', '{"\u0000": 1}')), '22P05', 'nor in a payload');

-- numbers

SELECT is(pg_temp.fold('{}', '[{"op": "set", "path": "/n", "from": "/n"}, {"op": "increment", "path": "/n", "from": "/n"}, {"op": "decrement", "path": "/n", "from": "/n"}]', jsonb_build_object('n', number::numeric)) ->> 'n', number::numeric::text, left(number, 20))
FROM unnest(ARRAY[repeat('123456789', 1111), '-' || repeat('9', 10000) || '.' || repeat('9', 10000), '0.' || repeat('0', 9999) || '1', '1e131071', '-1e131071', '1e-16383', '1.' || repeat('0', 16383)]) WITH ORDINALITY u (number, n) ORDER BY n;
SELECT is(pg_temp.state_of(format('SELECT pg_temp.fold(''{}'', ''[{"op": "set", "path": "/n", "from": "/n"}, {"op": "increment", "path": "/n", "from": "/n"}]'', ''{"n": %s}'')', number)), '22003', number || ' twice')
FROM unnest(ARRAY['9e131071', '-9e131071', '1e131072', '1e1000000000']) WITH ORDINALITY u (number, n) ORDER BY n;
SELECT is(pg_temp.state_of(format('SELECT pg_temp.fold(''{"n": 1}'', ''[{"op": "increment", "path": "/n", "value": %s}]'')', value)), 'none', 'an increment of ' || left(value, 20))
FROM unnest(ARRAY['1e131071', '1e-16383', '-0', '0e0', '-0.0e-10', repeat('9', 100000)]) WITH ORDINALITY u (value, n) ORDER BY n;

-- indexes

SELECT is(pg_temp.state_of(format('SELECT pg_temp.fold(''[0, 1]'', %L)', jsonb_build_array(jsonb_build_object('op', op, 'path', '/' || index, 'value', 1)))), 'QE102', format('%s at "%s"', op, left(index, 20)))
FROM unnest(ARRAY['add', 'replace']) op, unnest(ARRAY['+1', ' 1', '1 ', '٣', '0x1', '1.0', '-0', '00', '--', '2147483647', '2147483648', '4294967297', '18446744073709551617', repeat('1', 100000), repeat('0', 100000)]) WITH ORDINALITY u (index, n)
ORDER BY op, n;
SELECT is(pg_temp.state_of(format('SELECT pg_temp.fold(''{}'', ''[{"op": "set", "path": "/x", "from": "/%s"}]'', ''["0", "1"]'')', index)), 'QE102', format('from "%s"', left(index, 20)))
FROM unnest(ARRAY['-', '-1', '2', '+1', ' 1', '1 ', '٣', '0x1', '1.0', '00', '01', '4294967295', '4294967296', '4294967297', '18446744073709551615', '18446744073709551616', repeat('1', 100000)]) WITH ORDINALITY u (index, n) ORDER BY n;

-- 100,000 members, 100,000 items

CREATE TEMP TABLE large AS SELECT jsonb_object_agg('key ' || n, n) AS object, jsonb_agg(n ORDER BY n) AS array, jsonb_object_agg('key ' || n, NULL) FILTER (WHERE n % 2 = 0) AS patch FROM generate_series(1, 100000) n;
SELECT pg_temp.same(pg_temp.fold('{"a": 1}', '[{"op": "merge", "path": "", "from": ""}, {"op": "remove", "path": "/a"}]', object), object, 'a merge of 100,000 members') FROM large;
SELECT pg_temp.same(pg_temp.fold(object, '[{"op": "merge", "path": "", "from": ""}, {"op": "increment", "path": "/key 99999"}]', patch), (SELECT jsonb_object_agg('key ' || n, CASE WHEN n = 99999 THEN 100000 ELSE n END) FROM generate_series(1, 100000, 2) n), 'a merge that takes half of 100,000 members') FROM large;
SELECT pg_temp.same(pg_temp.fold(object, '[{"op": "replace", "path": "", "value": {}}, {"op": "merge", "path": "", "from": ""}]', patch), '{}', 'all at once') FROM large;
SELECT pg_temp.same(pg_temp.fold("array", '[{"op": "remove", "path": "/0"}, {"op": "add", "path": "/50000", "value": "in"}, {"op": "increment", "path": "/99999", "value": 0.5}, {"op": "append", "path": "", "from": "/x"}]', jsonb_build_object('x', "array")),
	jsonb_insert("array" - 0, '{50000}', '"in"') - 99999 || '100000.5'::jsonb || jsonb_build_array("array"), '100,000 items') FROM large;
SELECT cqrs_es.create_aggregate('large', '{}', 0) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('large', 'member', '[{"op": "increment", "path": "/{/k}", "from": "/k"}]') IS NULL AS x, cqrs_es.define_reducer('large', 'gone', '[{"op": "remove", "path": "/{/k}"}]') IS NULL AS x,
	cqrs_es.define_reducer('large', 'item', '[{"op": "append", "path": "/list", "from": "/k"}]') IS NULL AS x, cqrs_es.define_reducer('large', 'first', '[{"op": "add", "path": "/list/0", "from": "/k"}]') IS NULL AS x \gset
SELECT cqrs_es.append_events('large', 'members', (SELECT jsonb_agg(jsonb_build_object('type', CASE WHEN n <= 20000 THEN 'member' ELSE 'gone' END, 'payload', jsonb_build_object('k', CASE WHEN n <= 20000 THEN n ELSE 2 * (n - 20000) END)) ORDER BY n) FROM generate_series(1, 29000) n)) IS NULL AS x \gset
SELECT pg_temp.same(cqrs_es.aggregate_state('large', 'members'), (SELECT jsonb_object_agg(n, n) FROM generate_series(1, 20000) n WHERE n % 2 = 1 OR n > 18000), '20,000 members, one after the other, and gone again');
SELECT cqrs_es.append_events('large', 'items', (SELECT jsonb_agg(jsonb_build_object('type', CASE WHEN n <= 15000 THEN 'item' ELSE 'first' END, 'payload', jsonb_build_object('k', n)) ORDER BY n) FROM generate_series(1, 20000) n)) IS NULL AS x \gset
SELECT pg_temp.same(cqrs_es.aggregate_state('large', 'items') -> 'list', (SELECT jsonb_agg(n ORDER BY CASE WHEN n <= 15000 THEN n ELSE -n END) FROM generate_series(1, 20000) n), '20,000 items, one after the other');
SELECT finish();
ROLLBACK;
