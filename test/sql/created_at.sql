\i test/include/setup.sql
-- Times rise within a stream, whatever the clock does; and what the state at a time is where they do not.
BEGIN;
SELECT plan(32);
SELECT cqrs_es.create_aggregate('timed', '{"n": 0}', snapshot_every => 0) IS NULL AS x, cqrs_es.define_reducer('timed', 'e', '[{"op": "increment", "path": "/n"}]') IS NULL AS y,
	cqrs_es.define_command('timed', 'do', $$jsonb_build_array(jsonb_build_object('type', 'e', 'payload', command), jsonb_build_object('type', 'e', 'payload', command))$$) IS NULL AS z \gset
CREATE FUNCTION pg_temp.falls(id text) RETURNS SETOF bigint LANGUAGE sql AS $$
	SELECT sequence FROM (SELECT sequence, created_at < lag(created_at) OVER (ORDER BY sequence) AS falls FROM cqrs_es.events WHERE aggregate_type = 'timed' AND aggregate_id = id) e WHERE falls $$;
CREATE FUNCTION pg_temp.versions(id text, times text[]) RETURNS bigint[] LANGUAGE sql AS $$
	SELECT array_agg((cqrs_es.load_aggregate('timed', id, at_time => t::timestamptz)).version ORDER BY n) FROM unnest(times) WITH ORDINALITY AS u (t, n) $$;
-- what is meant: the longest beginning whose events all were created by then
CREATE FUNCTION pg_temp.meant(id text, t timestamptz) RETURNS bigint LANGUAGE sql AS $$
	SELECT coalesce(min(sequence) FILTER (WHERE created_at > t) - 1, coalesce(max(sequence), 0)) FROM cqrs_es.events WHERE aggregate_type = 'timed' AND aggregate_id = id $$;

-- a clock that was ahead when the event in front was appended

CREATE FUNCTION pg_temp.ahead(id text) RETURNS void LANGUAGE sql AS $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at) VALUES ('timed', id, 'e', '{}', '2200-01-01 00:00+00')$$;
SELECT pg_temp.ahead('ahead') IS NULL AS x \gset
SELECT lives_ok(statement, statement) FROM (VALUES (1, $$SELECT cqrs_es.append_event('timed', 'ahead', 'e', '{}')$$),
	(2, $$SELECT cqrs_es.append_events('timed', 'ahead', '[{"type": "e", "payload": {}}, {"type": "e", "payload": {}}]')$$),
	(3, $$SELECT cqrs_es.append_event_arrays('timed', 'ahead', '{e,e}', ARRAY['{}', '{}']::jsonb[])$$),
	(4, $$SELECT cqrs_es.execute_command('timed', 'ahead', 'do', '{}')$$),
	(5, $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('timed', 'ahead', 'e', '{}'), ('timed', 'ahead', 'e', '{}')$$),
	(6, $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, sequence, created_at) VALUES ('timed', 'ahead', 'e', '{}', 11, DEFAULT)$$),
	(7, $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at) VALUES ('timed', 'ahead', 'e', '{}', NULL)$$)) v (n, statement) ORDER BY n;
\copy cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) from stdin
timed	ahead	e	{}
timed	ahead	e	{}
\.
\copy cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at) from stdin
timed	ahead	e	{}	\N
\.
SELECT is(cqrs_es.stream_version('timed', 'ahead'), 15::bigint, 'appended in every way');
SELECT is_empty($$SELECT pg_temp.falls('ahead')$$, 'no event lies before the one in front of it');
SELECT is((SELECT max(created_at) FROM cqrs_es.events WHERE aggregate_type = 'timed' AND aggregate_id = 'ahead'), '2200-01-01 00:00+00'::timestamptz, 'nor later than it must');
SELECT is(pg_temp.versions('ahead', ARRAY[now()::text, '2199-12-31', '2200-01-01 00:00+00', 'infinity']), '{0,0,15,15}', 'the state at a time');
-- the events of one append have one time, and others the clock's
SELECT cqrs_es.append_events('timed', 'now', '[{"type": "e", "payload": {}}, {"type": "e", "payload": {}}]') IS NULL AS x \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('timed', 'now', 'e', '{}');
SELECT ok(bool_and(created_at BETWEEN now() AND clock_timestamp()), 'the clock, else') FROM cqrs_es.events WHERE aggregate_type = 'timed' AND aggregate_id = 'now';
SELECT is_empty($$SELECT pg_temp.falls('now')$$, 'in order');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'timed', 'many', 'e', '{}' FROM generate_series(1, 200);
SELECT is_empty($$SELECT pg_temp.falls('many')$$, 'of many rows, too');

-- times that were brought along

INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at) SELECT 'timed', 'given', 'e', '{}', t::timestamptz
FROM unnest(ARRAY['2020-01-05', '2020-01-03', '2020-01-04', '2020-01-10', '2020-01-01', '2020-01-09', '2020-01-12']) WITH ORDINALITY AS u (t, n) ORDER BY n;
SELECT is((SELECT array_agg(extract(day FROM created_at)::int ORDER BY sequence) FROM cqrs_es.read_stream('timed', 'given')), '{5,3,4,10,1,9,12}', 'are kept as they are');
SELECT is(pg_temp.versions('given', ARRAY['2020-01-01', '2020-01-04 23:00', '2020-01-05', '2020-01-09 23:59', '2020-01-10', '2020-01-11', '2020-01-12']), '{0,0,3,3,6,6,7}', 'at_time: all events before the first one that is later');
SELECT is((SELECT array_agg(pg_temp.meant('given', t) ORDER BY t) FROM generate_series('2019-12-31'::timestamptz, '2020-01-13', '6 hours') t), (SELECT array_agg((cqrs_es.load_aggregate('timed', 'given', at_time => t)).version ORDER BY t) FROM generate_series('2019-12-31'::timestamptz, '2020-01-13', '6 hours') t), 'every six hours');
SELECT is(cqrs_es.aggregate_state('timed', 'given', at_time => '2020-01-10'), '{"n": 6}', 'the state');
SELECT is(cqrs_es.aggregate_state('timed', 'given', at_time => '2020-01-04'), NULL, 'none, where a later event is the first');
SELECT is_empty($$SELECT t FROM generate_series('2019-12-31'::timestamptz, '2020-01-12', '1 hour') t WHERE (cqrs_es.load_aggregate('timed', 'given', at_time => t)).version > (cqrs_es.load_aggregate('timed', 'given', at_time => t + interval '1 hour')).version$$, 'what has been stays');
SELECT cqrs_es.append_event('timed', 'given', 'e', '{}') IS NULL AS x \gset
SELECT is(pg_temp.versions('given', ARRAY['2020-01-12', 'infinity']), '{7,8}', 'and it goes on');

-- the same from snapshots

SELECT cqrs_es.alter_aggregate('timed', snapshot_every => 3, keep_snapshots => 100) IS NULL AS x, setseed(0.3) IS NULL AS y \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at) SELECT 'timed', 'random ' || n % 4, 'e', '{}', '2020-01-01'::timestamptz + (n * 3 + random() * 100 * (random() < 0.3)::int) * interval '1 minute' FROM generate_series(1, 200) n;
SELECT cmp_ok((SELECT count(*) FROM cqrs_es.snapshots WHERE aggregate_type = 'timed'), '=', 64::bigint, 'with many snapshots');
SELECT is_empty(format($$SELECT id, t, version, state, pg_temp.meant(id, t) FROM unnest('{random 0,random 1,random 2,random 3}'::text[]) id, generate_series('2020-01-01'::timestamptz, '2020-01-01 14:00', '7 minutes') t, cqrs_es.load_aggregate('timed', id, at_time => t)
	WHERE version <> pg_temp.meant(id, t) OR state <> jsonb_build_object('n', version)$$), 'the state at many times');
UPDATE cqrs_es.snapshots SET payload = jsonb_build_object('n', last_sequence * 1000) WHERE aggregate_type = 'timed';
SELECT is(cqrs_es.aggregate_state('timed', 'random 1', at_time => 'infinity'), '{"n": 48002}', 'the newest is used that speaks of no later event');
SELECT is_empty($$SELECT last_sequence FROM cqrs_es.snapshots s WHERE aggregate_type = 'timed' AND last_event_at <> (SELECT max(created_at) FROM cqrs_es.events e WHERE (e.aggregate_type, e.aggregate_id, e.tenant_id) = (s.aggregate_type, s.aggregate_id, s.tenant_id) AND sequence <= last_sequence)$$, 'each says when the last of its events was created');
SELECT is((cqrs_es.load_aggregate('timed', 'random 1', at_time => (SELECT last_event_at FROM cqrs_es.snapshots WHERE (aggregate_type, aggregate_id, last_sequence) = ('timed', 'random 1', 12)))).state -> 'n' >= '12000', true, 'at that time it is used');
SELECT cmp_ok(((cqrs_es.load_aggregate('timed', 'random 1', at_time => (SELECT last_event_at - interval '1 us' FROM cqrs_es.snapshots WHERE (aggregate_type, aggregate_id, last_sequence) = ('timed', 'random 1', 12)))).state ->> 'n')::int, '<', 12000, 'a moment before it is not');
SELECT is(cqrs_es.take_snapshot('timed', 'given'), 8::bigint, 'one by hand');
SELECT is(pg_temp.versions('given', ARRAY['2020-01-01', '2020-01-05', '2020-01-10', '2020-01-12', 'infinity']), '{0,3,6,7,8}', 'changes nothing');

-- handlers, tables and replay see the same time

CREATE TABLE seen (n bigint, at timestamptz);
SELECT cqrs_es.create_projection('timed', read_models => '{seen}') IS NULL AS x, cqrs_es.define_handler('timed', 'seen', 'INSERT INTO seen VALUES (event.sequence, event.created_at)') IS NULL AS y \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at) VALUES ('timed', 'seen', 'seen', '{}', '2200-01-01 00:00+00');
SELECT cqrs_es.append_event('timed', 'seen', 'seen', '{}') IS NULL AS x \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('timed', 'seen', 'seen', '{}');
SELECT results_eq('SELECT n, at FROM seen ORDER BY n', $$SELECT sequence, created_at FROM cqrs_es.replay('timed', 'seen')$$, 'a handler is told what is stored');
SELECT is((SELECT count(*) FROM seen WHERE at IS NOT NULL), 3::bigint, 'of each');
SET LOCAL cqrs_es.tenant_id = 'other';
SELECT cqrs_es.append_event('timed', 'ahead', 'e', '{}') IS NULL AS x \gset
SELECT cmp_ok((SELECT created_at FROM cqrs_es.read_stream('timed', 'ahead')), '<', '2200-01-01'::timestamptz, 'a stream of another tenant has times of its own');
SELECT finish();
ROLLBACK;
