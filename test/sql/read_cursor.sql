\i test/include/setup.sql
-- read_page: how far a page of the log has looked, and what a cursor that moves
-- by it gets. What other tests have left lies before :start.
SELECT plan(41);
SET cqrs_es.settle_timeout = 0;

SELECT (cqrs_es.append_event('cursor', 'start', 'start', '0')).global_position AS start \gset
SELECT set_config('cursor.start', :'start', false) IS NULL AS x \gset
SELECT is(pg_get_function_result('cqrs_es.read_page(bigint,bigint,text[],text[],boolean,boolean,text[])'::regprocedure),
	(SELECT 'TABLE(' || string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) || ', read_to bigint)'
		FROM pg_attribute WHERE attrelid = 'cqrs_es.event'::regclass AND attnum > 0),
	'a row has the columns of an event, and read_to');

-- places in the log are counted from :start, by the payloads that are appended
CREATE FUNCTION pg_temp.append(type text, event_type text, payload integer) RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.append_event(type, 'a', event_type, to_jsonb(payload))
$$;
-- the events, each with the place to go on after
CREATE FUNCTION pg_temp.rows(args text DEFAULT '', after bigint DEFAULT current_setting('cursor.start')::bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
	EXECUTE format('SELECT string_agg(coalesce(payload::text, ''none'') || '':'' || read_to - %s, '' '' ORDER BY n)
		FROM (SELECT payload, read_to, row_number() OVER () AS n FROM cqrs_es.read_page(%s%s)) x',
		current_setting('cursor.start'), coalesce(after::text, 'NULL'), args) INTO result;
	RETURN result;
END $$;

SELECT is(pg_temp.rows(), 'none:0', 'nothing behind the last event: read to where it began');
BEGIN;
SELECT pg_temp.append('cursor', 'a', 1), pg_temp.append('cursor', 'b', 2), pg_temp.append('cursor', 'a', 3),
	pg_temp.append('cursor other', 'b', 4), pg_temp.append('cursor', 'c', 5) \gset x
SELECT is(pg_temp.rows(), 'none:0', 'nor does one''s own transaction count');
COMMIT;
SELECT is(pg_temp.rows(args), expected, 'read_page' || args)
FROM (VALUES (1, '', '1:1 2:2 3:3 4:4 5:5'),
	(2, ', 2', '1:1 2:2'),
	(3, ', 0', 'none:0'),
	(4, ', NULL', '1:1 2:2 3:3 4:4 5:5'),
	(5, $$, event_types => '{a}'$$, '1:1 3:5'),
	(6, $$, 1, event_types => '{a}'$$, '1:1'),
	(7, $$, 2, event_types => '{a}'$$, '1:1 3:3'),
	(8, $$, 3, event_types => '{a}'$$, '1:1 3:5'),
	(9, $$, 1, event_types => '{b}'$$, '2:2'),
	(10, $$, event_types => '{none}'$$, 'none:5'),
	(11, $$, 1, event_types => '{none}'$$, 'none:5'),
	(12, $$, 0, event_types => '{none}'$$, 'none:0'),
	(13, $$, event_types => '{}'$$, 'none:5'),
	(14, $$, aggregate_types => '{cursor other}'$$, '4:5'),
	(15, $$, aggregate_types => '{cursor other}', event_types => '{a}'$$, 'none:5')) t (n, args, expected)
ORDER BY n;
SELECT is(pg_temp.rows('', :start + 5), 'none:5', 'at the end');
SELECT is(pg_temp.rows('', 9223372036854775807), 'none:' || 9223372036854775807 - :start, 'behind the end of all numbers');
SELECT is((SELECT string_agg(payload::text, ' ') FROM cqrs_es.read_page(NULL, NULL) WHERE starts_with(aggregate_type, 'cursor')), '0 1 2 3 4 5', 'NULL is the beginning of the log');
SELECT is((SELECT count(*) FROM cqrs_es.read_page(0, 0) WHERE event_id IS NULL AND read_to = 0), 1::bigint, 'nothing of it wanted');
SELECT is((SELECT count(*) FROM (SELECT * FROM cqrs_es.read_page(:start) LIMIT 2) x WHERE read_to > :start + 2), 0::bigint, 'LIMIT: whoever stops early goes on from there');
SELECT results_eq(format('SELECT global_position, sequence, created_at, event_id, tenant_id, aggregate_type, aggregate_id, event_type, event_version, payload, metadata
		FROM cqrs_es.read_page(%s)', :start), format('SELECT * FROM cqrs_es.read_all(%s)', :start), 'the events are those of read_all');

-- gaps
BEGIN;
SELECT pg_temp.append('cursor', 'a', 6) \gset x
ROLLBACK;
SELECT is(pg_temp.rows($$, event_types => '{none}'$$), 'none:5', 'a gap at the end is not read');
SELECT pg_temp.append('cursor', 'b', 7) \gset x
SELECT is(pg_temp.rows($$, event_types => '{a}'$$), '1:1 3:7', 'one that is dead is passed');
BEGIN;
SET LOCAL cqrs_es.tenant_id = 'cursor tenant';
SELECT pg_temp.append('cursor', 'a', 8) \gset x
COMMIT;
SELECT is(pg_temp.rows($$, event_types => '{b}'$$), '2:2 4:4 7:8', 'events of other tenants are looked at');
SET cqrs_es.tenant_id = 'cursor tenant';
SELECT is(pg_temp.rows(), '8:8', 'a tenant gets its own');
RESET cqrs_es.tenant_id;

-- isolation levels
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is(pg_temp.rows($$, event_types => '{a}'$$), '1:1 3:8', 'REPEATABLE READ');
SELECT pg_temp.append('cursor', 'a', 9) \gset x
SELECT is(pg_temp.rows($$, event_types => '{a}'$$), '1:1 3:8', 'own events end it');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT is(pg_temp.rows($$, event_types => '{a}'$$), '1:1 3:8', 'a serializable read-only transaction');
COMMIT;

-- the loop of docs/append-and-read.md, in pages of each size: every event once, wherever it stops
CREATE FUNCTION pg_temp.consume(size bigint, types text[], stop_after integer DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	cursor_position bigint := current_setting('cursor.start');
	e record; got text := ''; n integer;
BEGIN
	LOOP
		n := 0;
		FOR e IN SELECT * FROM cqrs_es.read_page(cursor_position, size, event_types => types) LOOP
			IF e.event_id IS NOT NULL THEN
				got := got || e.payload || ' '; n := n + 1;
			END IF;
			cursor_position := e.read_to;
			EXIT WHEN n = stop_after;
		END LOOP;
		IF n = 0 THEN RETURN got || '| ' || cursor_position - current_setting('cursor.start')::bigint; END IF;
	END LOOP;
END $$;
SELECT is(string_agg(DISTINCT pg_temp.consume(size, '{a,b}', stop_after), ', '), '1 2 3 4 7 | 8', 'a cursor gets every event once')
FROM unnest(ARRAY[1, 2, 3, 4, 5, 6, 1000]) AS size, unnest(ARRAY[1, 2, 3, NULL]) AS stop_after;
SELECT is(pg_temp.consume(1, '{none}'), '| 8', 'and moves when there was none');

-- an upcaster sees to the payload here, too
CREATE FUNCTION public.cursor_lift(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT to_jsonb(-payload::int) $$;
SELECT cqrs_es.define_upcaster('c', '1', '2', 'public.cursor_lift(jsonb)') \gset x
SELECT is(pg_temp.rows($$, event_types => '{c,none}'$$), '-5:8', 'payloads are lifted');
SELECT cqrs_es.drop_upcaster('c', '1') \gset x
DROP FUNCTION public.cursor_lift;
-- what is refused, and who may
SELECT throws_ok('SELECT cqrs_es.' || call, state, NULL, state || ': ' || call)
FROM (VALUES (1, 'read_page(-1)', '22023'), (2, 'read_page(0, -1)', '2201W'), (3, 'read_page(1::bigint << 44)', '22023'),
	(4, 'read_page(511::bigint << 44 | 7)', '22023'), (5, 'read_all(1::bigint << 44)', '22023')) t (n, call, state)
ORDER BY n;
CREATE ROLE cursor_reader;
GRANT USAGE ON SCHEMA cqrs_es TO cursor_reader;
SELECT throws_ok($$SELECT pg_temp.as_role('cursor_reader', 'SELECT cqrs_es.read_page()')$$, '42501', NULL, 'who may not read the log reads no page');
GRANT SELECT ON cqrs_es.events TO cursor_reader;
SELECT lives_ok($$SELECT pg_temp.as_role('cursor_reader', 'SELECT cqrs_es.read_page()')$$, 'who may read it does');
REVOKE SELECT ON cqrs_es.events FROM cursor_reader;
REVOKE USAGE ON SCHEMA cqrs_es FROM cursor_reader;
DROP ROLE cursor_reader;
SELECT finish();
