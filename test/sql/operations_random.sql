\i test/include/setup.sql
-- Random programs of operations against a slow reference: states compared after every event.
BEGIN;
SELECT plan(6);

-- The reference. A value by its keys; NULL: not there.
CREATE FUNCTION pg_temp.found(document jsonb, keys text[]) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE key text;
BEGIN
	FOREACH key IN ARRAY keys LOOP
		IF jsonb_typeof(document) = 'object' THEN document := document -> key;
		ELSIF jsonb_typeof(document) = 'array' AND key ~ '^(0|[1-9]\d*)$' AND length(key) < 9 THEN document := document -> key::int;
		ELSE RETURN NULL;
		END IF;
	END LOOP;
	RETURN document;
END $$;
CREATE FUNCTION pg_temp.keys(pointer text) RETURNS text[] LANGUAGE sql AS $$
	SELECT CASE pointer WHEN '' THEN '{}' ELSE ARRAY(SELECT replace(replace(k, '~1', '/'), '~0', '~') FROM unnest((string_to_array(pointer, '/'))[2:]) WITH ORDINALITY u (k, n) ORDER BY n) END $$;
CREATE FUNCTION pg_temp.merged(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE k text; v jsonb;
BEGIN
	IF jsonb_typeof(patch) <> 'object' THEN RETURN patch; END IF;
	IF target IS NULL OR jsonb_typeof(target) <> 'object' THEN target := '{}'; END IF;
	FOR k, v IN SELECT * FROM jsonb_each(patch) LOOP
		IF v = 'null' THEN target := target - k; ELSE target := target || jsonb_build_object(k, pg_temp.merged(target -> k, v)); END IF;
	END LOOP;
	RETURN target;
END $$;
-- What becomes of a value that is there.
CREATE FUNCTION pg_temp.changed(op text, value jsonb, operand jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	CASE op
		WHEN 'increment', 'decrement' THEN
			IF jsonb_typeof(value) <> 'number' OR jsonb_typeof(operand) <> 'number' THEN RAISE EXCEPTION 'not a number' USING ERRCODE = 'QE102'; END IF;
			RETURN to_jsonb(CASE op WHEN 'increment' THEN value::numeric + operand::numeric ELSE value::numeric - operand::numeric END);
		WHEN 'append' THEN
			IF jsonb_typeof(value) <> 'array' THEN RAISE EXCEPTION 'not an array' USING ERRCODE = 'QE102'; END IF;
			RETURN value || jsonb_build_array(operand);
		WHEN 'merge' THEN RETURN pg_temp.merged(value, operand);
		ELSE RETURN operand;
	END CASE;
END $$;
CREATE FUNCTION pg_temp.applied(document jsonb, op text, keys text[], operand jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE key text := keys[1]; child jsonb; i integer; n integer;
BEGIN
	IF cardinality(keys) = 0 THEN RETURN pg_temp.changed(op, document, operand); END IF;
	IF jsonb_typeof(document) = 'object' THEN
		child := document -> key;
		IF cardinality(keys) > 1 THEN
			IF child IS NULL AND op IN ('add', 'replace', 'remove') THEN RAISE EXCEPTION 'no member' USING ERRCODE = 'QE102'; END IF;
			RETURN document || jsonb_build_object(key, pg_temp.applied(coalesce(child, '{}'), op, keys[2:], operand));
		END IF;
		IF child IS NULL AND op IN ('replace', 'remove') THEN RAISE EXCEPTION 'no member' USING ERRCODE = 'QE102'; END IF;
		IF op = 'remove' THEN RETURN document - key; END IF;
		RETURN document || jsonb_build_object(key, CASE
			WHEN child IS NOT NULL THEN pg_temp.changed(op, child, operand)
			WHEN op IN ('increment', 'decrement') THEN pg_temp.changed(op, '0', operand)
			WHEN op = 'append' THEN jsonb_build_array(operand)
			WHEN op = 'merge' THEN pg_temp.merged(NULL, operand)
			ELSE operand END);
	ELSIF jsonb_typeof(document) = 'array' THEN
		n := jsonb_array_length(document);
		IF key = '-' AND cardinality(keys) = 1 AND op IN ('add', 'set') THEN RETURN document || jsonb_build_array(operand); END IF;
		IF key !~ '^(0|[1-9]\d{0,8})$' THEN RAISE EXCEPTION 'no index' USING ERRCODE = 'QE102'; END IF;
		i := key::int;
		IF i > n OR i = n AND (cardinality(keys) > 1 OR op NOT IN ('add', 'set')) THEN RAISE EXCEPTION 'out of range' USING ERRCODE = 'QE102'; END IF;
		IF cardinality(keys) > 1 THEN RETURN jsonb_set(document, ARRAY[key], pg_temp.applied(document -> i, op, keys[2:], operand)); END IF;
		IF op = 'remove' THEN RETURN document - i; END IF;
		IF op = 'add' THEN RETURN jsonb_insert(document || '[null]', ARRAY[key], operand) - (n + 1); END IF;
		IF i = n THEN RETURN document || jsonb_build_array(operand); END IF;
		RETURN jsonb_set(document, ARRAY[key], pg_temp.changed(op, document -> i, operand));
	END IF;
	RAISE EXCEPTION 'no container' USING ERRCODE = 'QE102';
END $$;
-- A program on an event.
CREATE FUNCTION pg_temp.reference(state jsonb, operations jsonb, payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE o jsonb; operand jsonb; keys text[]; k text; v jsonb;
BEGIN
	FOR o IN SELECT value FROM jsonb_array_elements(operations) LOOP
		operand := o -> 'value';
		IF o ? 'from' THEN
			operand := pg_temp.found(payload, pg_temp.keys(o ->> 'from'));
			CONTINUE WHEN (operand IS NULL OR operand = 'null') AND o -> 'optional' = 'true';
			IF operand IS NULL THEN RAISE EXCEPTION 'no operand' USING ERRCODE = 'QE102'; END IF;
		ELSIF operand IS NULL AND o ->> 'op' IN ('increment', 'decrement') THEN
			operand := '1';
		END IF;
		keys := '{}';
		FOREACH k IN ARRAY (string_to_array(replace(o ->> 'path', '{/', '{'), '/'))[2:] LOOP
			IF k LIKE '{%}' THEN
				v := pg_temp.found(payload, ARRAY[btrim(k, '{}')]);
				IF v IS NULL OR jsonb_typeof(v) NOT IN ('string', 'number') THEN RAISE EXCEPTION 'no key' USING ERRCODE = 'QE102'; END IF;
				keys := keys || CASE jsonb_typeof(v) WHEN 'number' THEN trim_scale(v::numeric)::text ELSE v #>> '{}' END;
			ELSE
				keys := keys || replace(replace(k, '~1', '/'), '~0', '~');
			END IF;
		END LOOP;
		state := pg_temp.applied(state, o ->> 'op', keys, operand);
	END LOOP;
	RETURN state;
END $$;

-- Chance.
CREATE FUNCTION pg_temp.one_of(choices text[]) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT choices[1 + floor(random() * cardinality(choices))::int]';
CREATE FUNCTION pg_temp.random_value(depth integer) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE chance float := random(); result jsonb; i integer;
BEGIN
	IF chance < 0.35 OR depth = 0 THEN
		RETURN pg_temp.one_of(ARRAY['0', '1', '-1', '2.50', '0.001', '1e20', '-12345678.90', '"text"', '""', '"a"', '"0"', '1', 'null', 'true', 'false']);
	ELSIF chance < 0.65 THEN
		result := '[]';
		FOR i IN 1 .. floor(random() * 4)::int LOOP result := result || jsonb_build_array(pg_temp.random_value(depth - 1)); END LOOP;
	ELSE
		result := '{}';
		FOR i IN 1 .. floor(random() * 5)::int LOOP result := result || jsonb_build_object(pg_temp.one_of(ARRAY['a', 'b', 'c', '', '0', '1', '~', '/', 'ä']), pg_temp.random_value(depth - 1)); END LOOP;
	END IF;
	RETURN result;
END $$;
-- A pointer that often leads somewhere.
CREATE FUNCTION pg_temp.random_pointer(document jsonb, keyed boolean) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE pointer text := ''; key text;
BEGIN
	WHILE random() < 0.75 LOOP
		key := NULL;
		IF random() < 0.8 AND jsonb_typeof(document) = 'object' THEN
			SELECT k INTO key FROM jsonb_object_keys(document) k ORDER BY random() LIMIT 1;
		ELSIF random() < 0.9 AND jsonb_typeof(document) = 'array' THEN
			key := pg_temp.one_of(ARRAY['-', floor(random() * (jsonb_array_length(document) + 1))::text, floor(random() * (jsonb_array_length(document) + 1))::text]);
		END IF;
		key := coalesce(key, pg_temp.one_of(ARRAY['a', 'b', 'c', '', '0', '1', '-', '~', '/', 'ä', '01']));
		document := pg_temp.found(document, ARRAY[key]);
		key := replace(replace(key, '~', '~0'), '/', '~1');
		IF keyed AND random() < 0.15 THEN key := pg_temp.one_of(ARRAY['{/k}', '{/i}']); document := NULL; END IF;
		pointer := pointer || '/' || key;
	END LOOP;
	RETURN pointer;
END $$;
CREATE FUNCTION pg_temp.random_operation(state jsonb, payload jsonb) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE result jsonb; op text := pg_temp.one_of(ARRAY['add', 'replace', 'remove', 'set', 'set', 'increment', 'decrement', 'append', 'merge', 'merge']); path text := pg_temp.random_pointer(state, true);
BEGIN
	-- most operations fit what they find
	IF random() < 0.8 AND pg_temp.found(state, pg_temp.keys(path)) IS NOT NULL AND op IN ('increment', 'decrement', 'append') THEN
		op := CASE jsonb_typeof(pg_temp.found(state, pg_temp.keys(path))) WHEN 'number' THEN pg_temp.one_of(ARRAY['increment', 'decrement']) WHEN 'array' THEN 'append' ELSE 'set' END;
	END IF;
	IF op = 'remove' AND path = '' THEN op := 'merge'; END IF;
	result := jsonb_build_object('op', op, 'path', path);
	IF op = 'remove' OR op IN ('increment', 'decrement') AND random() < 0.2 THEN RETURN result; END IF;
	IF random() < 0.5 THEN
		RETURN result || jsonb_build_object('from', CASE WHEN op IN ('increment', 'decrement') AND random() < 0.7 THEN '/n' ELSE pg_temp.random_pointer(payload, false) END)
			|| CASE WHEN random() < 0.3 THEN '{"optional": true}' ELSE '{}' END::jsonb;
	END IF;
	RETURN result || jsonb_build_object('value', CASE WHEN op IN ('increment', 'decrement') THEN pg_temp.one_of(ARRAY['1', '-2', '0.25', '10.0', '1e15', '-0.00000001'])::jsonb ELSE pg_temp.random_value(2) END);
END $$;

-- A hundred streams of forty events, each event with a program of its own that works, and programs that do not.
SELECT setseed(0.42) IS NULL AS x \gset
CREATE TEMP TABLE expected (stream integer, n integer, operations jsonb, payload jsonb, state jsonb);
CREATE TEMP TABLE refused (stream integer, n integer, operations jsonb, payload jsonb);
DO $$
DECLARE state jsonb; payload jsonb; operations jsonb; next jsonb; n integer; i integer;
BEGIN
	FOR stream IN 1 .. 100 LOOP
		state := pg_temp.random_value(3);
		IF jsonb_typeof(state) NOT IN ('object', 'array') THEN state := '{}'; END IF;
		INSERT INTO expected VALUES (stream, 0, NULL, NULL, state);
		n := 0;
		WHILE n < 40 LOOP
			payload := pg_temp.random_value(3);
			IF jsonb_typeof(payload) = 'object' THEN payload := payload || jsonb_build_object('n', pg_temp.one_of(ARRAY['1', '-0.5', '1.10', '123456789.123', '99999999999999999'])::jsonb,
				'k', pg_temp.one_of(ARRAY['a', 'x/y', '~0', '-', '0']), 'i', pg_temp.one_of(ARRAY['0', '1', '1.0', '2'])::jsonb); END IF;
			operations := '[]';
			next := state;
			FOR i IN 0 .. floor(random() * 3)::int LOOP
				operations := operations || pg_temp.random_operation(state, payload);
			END LOOP;
			BEGIN
				next := pg_temp.reference(state, operations, payload);
				IF length(next::text) > 2000 THEN next := '{}'; operations := '[{"op": "replace", "path": "", "value": {}}]'; END IF;
				state := next;
				n := n + 1;
				INSERT INTO expected VALUES (stream, n, operations, payload, state);
			EXCEPTION WHEN SQLSTATE 'QE102' THEN
				INSERT INTO refused VALUES (stream, n, operations, payload);
			END;
		END LOOP;
	END LOOP;
END $$;

SELECT count(cqrs_es.create_aggregate('random ' || stream, state, 0)) AS x FROM expected WHERE n = 0 \gset
SELECT count(cqrs_es.define_reducer('random ' || stream, 'e' || n, operations)) AS x FROM expected WHERE n > 0 \gset
SELECT count(cqrs_es.append_events('random ' || stream, 'a', events)) AS x
FROM (SELECT stream, jsonb_agg(jsonb_build_object('type', 'e' || n, 'payload', payload) ORDER BY n) AS events FROM expected WHERE n > 0 GROUP BY stream) s \gset
SELECT is(count(*), 4000::bigint, 'thousands of events') FROM expected WHERE n > 0;
SELECT cmp_ok(count(DISTINCT state), '>', 1000::bigint, 'and of states') FROM expected WHERE n > 0;
SELECT cmp_ok(count(*), '>', 1000::bigint, 'and of programs that fail') FROM refused;
SELECT is_empty($$SELECT e.stream, e.n, before.state AS before, e.operations, e.payload, r.state AS have, e.state AS want
	FROM expected e JOIN expected before ON before.stream = e.stream AND before.n = e.n - 1, cqrs_es.replay('random ' || e.stream, 'a', e.n, 1) r
	WHERE e.n IN (1, 2, 20, 39) AND r.state::text <> e.state::text$$, 'single states of them');
SELECT is_empty($$SELECT e.stream, e.n, before.state AS before, e.operations, e.payload, r.state AS have, e.state AS want
	FROM (SELECT DISTINCT stream FROM expected) s CROSS JOIN LATERAL cqrs_es.replay('random ' || s.stream, 'a') r
	JOIN expected e ON e.stream = s.stream AND e.n = r.sequence JOIN expected before ON before.stream = e.stream AND before.n = e.n - 1
	WHERE r.state::text <> e.state::text$$, 'all states of them');

-- the refused ones, on the state that they were refused on
CREATE FUNCTION pg_temp.outcome(number bigint, state jsonb, operations jsonb, payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.alter_aggregate('refusing', state);
	PERFORM cqrs_es.define_reducer('refusing', 'e', operations);
	PERFORM cqrs_es.append_event('refusing', number::text, 'e', payload);
	RETURN cqrs_es.aggregate_state('refusing', number::text);
EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE;
END $$;
SELECT cqrs_es.create_aggregate('refusing', '{}', 0) IS NULL AS x \gset
SELECT is_empty($$SELECT * FROM (SELECT r.*, e.state, pg_temp.outcome(row_number() OVER (), e.state, r.operations, r.payload) AS outcome
	FROM (SELECT *, row_number() OVER () AS number FROM refused) r JOIN expected e USING (stream, n) WHERE number <= 1500) o WHERE outcome <> 'QE102'$$, 'what the reference refuses is refused');
SELECT finish();
ROLLBACK;
