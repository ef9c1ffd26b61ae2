\i test/include/setup.sql
-- How far back ids are recognized, and that looking for one costs the same in a stream of any length: counted in
-- buffers, which do not depend on who else is there.
BEGIN;
SELECT plan(55);
CREATE FUNCTION pg_temp.id(n integer) RETURNS uuid LANGUAGE sql AS $$
	SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
-- events of a stream, as old as that
CREATE FUNCTION pg_temp.fill(id text, n integer, age interval DEFAULT '0 s') RETURNS void LANGUAGE sql AS $$
	INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at)
	SELECT 'window', id, 'other', '{}', clock_timestamp() - age FROM generate_series(1, n) $$;
CREATE FUNCTION pg_temp.put(id text, event integer, age interval DEFAULT '0 s') RETURNS void LANGUAGE sql AS $$
	INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, event_id, created_at)
	VALUES ('window', id, 'e', '1', pg_temp.id(event), clock_timestamp() - age) $$;
-- the version that an append with this id comes to: of a repetition that of the first
CREATE FUNCTION pg_temp.again(id text, event integer, expected bigint DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
	SELECT version FROM cqrs_es.append_event('window', id, 'e', '1', expected, event_id => pg_temp.id(event)) $$;
CREATE FUNCTION pg_temp.version(id text) RETURNS bigint LANGUAGE sql AS $$ SELECT cqrs_es.stream_version('window', id) $$;
\i test/include/buffers.sql
SELECT cqrs_es.create_aggregate('window', '{"n": 0}', snapshot_every => 100) IS NULL AS x, cqrs_es.define_reducer('window', 'e', '[{"op": "increment", "path": "/n"}]') IS NULL AS y,
	cqrs_es.define_command('window', 'do', $$jsonb_build_object('type', 'e', 'payload', command)$$) IS NULL AS z \gset

-- what an id older than the window gives

SELECT is(current_setting('cqrs_es.idempotency_window'), '7d', 'a week, unless one says otherwise');
SELECT pg_temp.put('old', 1, '8 days') IS NULL AS a, pg_temp.fill('old', 99, '8 days') IS NULL AS b \gset
SELECT is(pg_temp.again('old', 1), 1::bigint, 'one of the last hundred events is recognized, whatever its age');
SELECT pg_temp.fill('old', 1, '8 days') IS NULL AS a \gset
SELECT is(pg_temp.again('old', 1, 0), 1::bigint, 'or one where the version says where it has to be');
SELECT is(pg_temp.again('old', 1), 102::bigint, 'an older one is a new event');
SELECT is(pg_temp.again('old', 1), 102::bigint, 'which is recognized then');
SELECT pg_temp.put('young', 1, '6 days') IS NULL AS a, pg_temp.fill('young', 500, '6 days') IS NULL AS b \gset
SELECT is(pg_temp.again('young', 1), 1::bigint, 'within the window all are recognized');
SELECT is(pg_temp.again('young', 1, -1), 1::bigint, 'also where the stream has to exist');
SET LOCAL cqrs_es.idempotency_window = '1h';
SELECT is(pg_temp.again('young', 1), 502::bigint, 'a window of one hour');
SET LOCAL cqrs_es.idempotency_window = '14d';
SELECT is(pg_temp.again('old', 2), 103::bigint, 'a new id');
SELECT is((cqrs_es.append_event('window', 'old', 'other', '{}', event_id => (SELECT event_id FROM cqrs_es.read_stream('window', 'old', 2, 1)))).version, 2::bigint, 'a window of two weeks');
SET LOCAL cqrs_es.idempotency_window = 0;
SELECT pg_temp.put('none', 1) IS NULL AS a, pg_temp.fill('none', 99) IS NULL AS b \gset
SELECT is(pg_temp.again('none', 1), 1::bigint, '0: the last hundred alone');
SELECT pg_temp.fill('none', 1) IS NULL AS a \gset
SELECT is(pg_temp.again('none', 1), 102::bigint, 'and no more');
SET LOCAL cqrs_es.idempotency_window = -1;
SELECT pg_temp.put('ever', 1, '10 years') IS NULL AS a, pg_temp.fill('ever', 500, '9 years') IS NULL AS b \gset
SELECT is(pg_temp.again('ever', 1), 1::bigint, '-1: all of the stream');
RESET cqrs_es.idempotency_window;

-- times that do not rise

SELECT pg_temp.put('dated back', 1) IS NULL AS a, pg_temp.fill('dated back', 100, '10 years') IS NULL AS b, pg_temp.fill('dated back', 200) IS NULL AS c,
	pg_temp.fill('dated back', 100, '10 years') IS NULL AS d \gset
SELECT is(pg_temp.again('dated back', 1), 1::bigint, 'a hundred events that are dated back hide nothing');
SELECT pg_temp.put('ahead', 1, '8 days') IS NULL AS a, pg_temp.fill('ahead', 300, '-1 year') IS NULL AS b \gset
SELECT is(pg_temp.again('ahead', 1), 1::bigint, 'nor do events from the future');

-- commands

CREATE FUNCTION pg_temp.command(id text, command integer) RETURNS text LANGUAGE sql AS $$
	SELECT version || ' ' || state FROM cqrs_es.execute_command('window', id, 'do', '{}', command_id => pg_temp.id(command)) $$;
SELECT is(pg_temp.command('command', 1), '1 {"n": 1}', 'a command');
SELECT pg_temp.fill('command', 500) IS NULL AS a \gset
SELECT is(pg_temp.command('command', 1), '1 {"n": 1}', 'again');
SELECT is(pg_temp.command('command', 1), '1 {"n": 1}', 'and again');
SELECT is(pg_temp.command('command', 2), '502 {"n": 2}', 'another');
SELECT is(pg_temp.command('command', 2), '502 {"n": 2}', 'again');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, metadata, created_at) VALUES ('window', 'old command', 'e', '{}', jsonb_build_object('command_id', pg_temp.id(1)), now() - interval '8 days');
SELECT pg_temp.fill('old command', 99, '8 days') IS NULL AS a \gset
SELECT is(pg_temp.command('old command', 1), '1 {"n": 1}', 'one of the last hundred events');
SELECT pg_temp.fill('old command', 1, '8 days') IS NULL AS a \gset
SELECT is(pg_temp.command('old command', 1), '102 {"n": 2}', 'one that is older than the window is executed');

-- What a session remembers of a long stream: it says no rightly.  Each stream here has been looked at before.

SELECT pg_temp.fill(id, 300) IS NULL AS a FROM unnest('{undone,undone 2,others,tenants,settings,holes}'::text[]) id \g /dev/null
SELECT is(pg_temp.again('undone', 1), 301::bigint, 'a new event');
SAVEPOINT s;
SELECT is(pg_temp.again('undone', 2), 302::bigint, 'another');
SELECT is(pg_temp.again('undone', 3), 303::bigint, 'and another');
ROLLBACK TO s;
SELECT pg_temp.put('undone', 4) IS NULL AS a, pg_temp.put('undone', 5) IS NULL AS b \gset
SELECT is(pg_temp.again('undone', 4), 302::bigint, 'what came in place of events that were rolled back is recognized');
SELECT is(pg_temp.again('undone', 2), 304::bigint, 'and what was rolled back is not there');
SELECT is(pg_temp.again('undone', 1), 301::bigint, 'what came before is');
SAVEPOINT s;
SELECT is(pg_temp.again('undone 2', 1), 301::bigint, 'a new event');
SELECT is(pg_temp.again('undone 2', 2), 302::bigint, 'another');
ROLLBACK TO s;
SELECT pg_temp.put('undone 2', 3) IS NULL AS a, pg_temp.put('undone 2', 2) IS NULL AS b \gset
SELECT is(pg_temp.again('undone 2', 3), 301::bigint, 'all that was remembered since is gone');
SELECT is(pg_temp.again('undone 2', 2), 302::bigint, 'an id that comes again');
SELECT is(pg_temp.again('others', 1), 301::bigint, 'a new event');
SELECT pg_temp.put('others', 2) IS NULL AS a, pg_temp.put('others', 3) IS NULL AS b, pg_temp.fill('others', 200) IS NULL AS c \gset
SELECT is(pg_temp.again('others', 3), 303::bigint, 'what others wrote is recognized');
SELECT is(pg_temp.again('others', 2), 302::bigint, 'all of it');
SELECT is(pg_temp.again('tenants', 1), 301::bigint, 'a stream');
SET LOCAL cqrs_es.tenant_id = 'other';
SELECT pg_temp.put('tenants', 2) IS NULL AS a, pg_temp.fill('tenants', 300) IS NULL AS b \gset
SELECT is(pg_temp.again('tenants', 2), 1::bigint, 'that of another tenant is another');
SELECT is(pg_temp.again('tenants', 1), 302::bigint, 'with ids of its own');
SET LOCAL cqrs_es.tenant_id = '';
SELECT is(pg_temp.again('tenants', 2), 302::bigint, 'and so has the first');
SET LOCAL cqrs_es.idempotency_window = '1h';
SELECT pg_temp.put('wider', 1, '2 hours') IS NULL AS a, pg_temp.fill('wider', 300, '2 hours') IS NULL AS b, pg_temp.fill('wider', 300) IS NULL AS c \gset
SELECT is(pg_temp.again('wider', 2), 602::bigint, 'looked at through a small window');
SET LOCAL cqrs_es.idempotency_window = '1d';
SELECT is(pg_temp.again('wider', 1), 1::bigint, 'a wider one looks again');
SELECT is((cqrs_es.append_events('window', 'holes', jsonb_build_array(jsonb_build_object('type', 'e', 'payload', 1, 'id', pg_temp.id(1)), jsonb_build_object('type', 'e', 'payload', 1, 'id', pg_temp.id(2))))).version, 302::bigint, 'a batch');
SELECT is((cqrs_es.append_events('window', 'holes', jsonb_build_array(jsonb_build_object('type', 'e', 'payload', 1, 'id', pg_temp.id(1)), jsonb_build_object('type', 'e', 'payload', 1, 'id', pg_temp.id(2))))).version, 302::bigint, 'again');
SELECT throws_ok($$SELECT pg_temp.again('holes', 2), cqrs_es.append_event('window', 'holes', 'e', '2', event_id => pg_temp.id(1))$$, 'QE002', NULL, 'another event with one of its ids');
RESET cqrs_es.idempotency_window;

-- the cost

SELECT pg_temp.fill('short', 400, '8 days') IS NULL AS a, pg_temp.fill('long', 20000, '8 days') IS NULL AS b,
	pg_temp.fill('short young', 400) IS NULL AS c, pg_temp.fill('long young', 20000) IS NULL AS d \gset
CREATE TEMP TABLE ways (n int, what text, statement text);
INSERT INTO ways VALUES
	(1, 'append_event', $$SELECT cqrs_es.append_event('window', %L, 'e', '1', event_id => gen_random_uuid())$$),
	(2, 'append_event, which expects that it exists', $$SELECT cqrs_es.append_event('window', %L, 'e', '1', -1, event_id => gen_random_uuid())$$),
	(3, 'append_events', $$SELECT cqrs_es.append_events('window', %L, jsonb_build_array(jsonb_build_object('type', 'e', 'payload', 1, 'id', gen_random_uuid())))$$),
	(4, 'append_to_streams', $$SELECT cqrs_es.append_to_streams(jsonb_build_array(jsonb_build_object('aggregate_type', 'window', 'aggregate_id', %L, 'type', 'e', 'payload', 1, 'id', gen_random_uuid())))$$),
	(5, 'execute_command', $$SELECT cqrs_es.execute_command('window', %L, 'do', '{}', command_id => gen_random_uuid())$$);
-- twice, so that what a session looks up once counts for neither
SELECT pg_temp.buffers(format(statement, id)) FROM ways, unnest('{short,short young,long young}'::text[]) id \g /dev/null
SELECT pg_temp.buffers(format(statement, 'long')) FROM ways \g /dev/null
SELECT cmp_ok(pg_temp.buffers(format(statement, 'long')), '<=', pg_temp.buffers(format(statement, 'short')) + 30, what || ': of events older than the window, no more than so many are looked at') FROM ways ORDER BY n;
SELECT cmp_ok(pg_temp.buffers(format(statement, 'long young')), '<=', pg_temp.buffers(format(statement, 'short young')) + 30, what || ': those within it are looked at once') FROM ways ORDER BY n;

-- where the session remembers nothing
SET LOCAL cqrs_es.idempotency_window = '2h';
SELECT cmp_ok(pg_temp.buffers(format(statement, 'long')), '<=', 100::bigint, what || ': the first look') FROM ways WHERE n = 1;
SELECT finish();
ROLLBACK;
