\i test/include/setup.sql
-- Global positions and event ids: what every event is numbered and named with.
BEGIN;
SELECT plan(19);

-- positions

CREATE TEMP TABLE p AS
SELECT n, (cqrs_es.append_event('position', 'a', 'e', '{}')).global_position FROM generate_series(1, 5) n;
SELECT results_eq('SELECT global_position FROM p ORDER BY n',
	'SELECT global_position FROM p ORDER BY global_position', 'positions rise from append to append');
SELECT results_eq('SELECT n::bigint, global_position FROM p ORDER BY n',
	$$SELECT sequence, global_position FROM cqrs_es.events WHERE aggregate_type = 'position' ORDER BY sequence$$,
	'the position that append_event returns is that of the event');
SELECT cqrs_es.append_events('position', 'b', '[{"type": "e", "payload": 1}, {"type": "e", "payload": 2}, {"type": "e", "payload": 3}]') AS b \gset
SELECT is(:'b'::text, format('(3,%s)', max(global_position)), 'append_events returns the last one of the batch')
FROM cqrs_es.read_stream('position', 'b');
SELECT is(count(DISTINCT global_position), 8::bigint, 'no position is given twice')
FROM cqrs_es.events WHERE aggregate_type = 'position';

SAVEPOINT s;
SELECT (cqrs_es.append_event('position', 'a', 'e', '{}')).global_position AS dead \gset
ROLLBACK TO s;
SELECT (cqrs_es.append_event('position', 'a', 'e', '{}')).global_position AS alive \gset
SELECT isnt((:'alive'::text), :'dead', 'a position that was rolled back is not given again');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
SELECT 'position', 'c', 'e', '{}' FROM generate_series(1, 100);
SELECT is_empty($$SELECT sequence FROM (SELECT sequence, global_position,
	lag(global_position) OVER (PARTITION BY aggregate_id ORDER BY sequence) AS before
	FROM cqrs_es.events WHERE aggregate_type = 'position') x WHERE before >= global_position$$,
	'within a stream positions rise with the sequence');

SAVEPOINT node;
SET LOCAL cqrs_es.node_id = 3;
SELECT is((cqrs_es.append_event('position', 'n', 'e', '{}')).global_position >> 44, 3::bigint,
	'the number of the node stands above bit 44');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('position', 'n', 'e', '{}');
SELECT results_eq($$SELECT sequence, global_position >> 44 FROM cqrs_es.read_stream('position', 'n')$$,
	'VALUES (1::bigint, 3::bigint), (2, 3)', 'also of a plain INSERT');
SET LOCAL cqrs_es.node_id = 511;
SELECT cmp_ok((cqrs_es.append_event('position', 'm', 'e', '{}')).global_position, '<', 1::bigint << 53,
	'every position is exact in JSON');
SELECT throws_ok('SET LOCAL cqrs_es.node_id = 512', '22023', NULL, 'there are 512 nodes');
-- behind an event of another node the stream goes on with positions of this one
SET LOCAL cqrs_es.node_id = 0;
SELECT is((cqrs_es.append_event('position', 'n', 'e', '{}')).global_position >> 44, 0::bigint, 'a stream that comes from another node goes on here');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('position', 'n', 'e', '{}');
SELECT results_eq($$SELECT sequence, global_position >> 44 FROM cqrs_es.read_stream('position', 'n')$$,
	'VALUES (1::bigint, 3::bigint), (2, 3), (3, 0), (4, 0)', 'by a plain INSERT, too');
ROLLBACK TO node;

-- setval is not undone by a rollback
SELECT last_value FROM cqrs_es.events_global_position_seq \gset
SELECT setval('cqrs_es.events_global_position_seq', 17592186044415) IS NOT NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.append_event('position', 'full', 'e', '{}')$$, '2200H', NULL,
	'used up is used up');
SELECT setval('cqrs_es.events_global_position_seq', :last_value) IS NOT NULL AS x \gset

-- event ids

SELECT is(count(DISTINCT id), 1000::bigint, 'ids differ')
FROM (SELECT cqrs_es.new_event_id() AS id FROM generate_series(1, 1000)) x;
SELECT is(count(*), 1000::bigint, 'they are UUIDs of version 7 and the RFC''s variant')
FROM (SELECT cqrs_es.new_event_id() AS id FROM generate_series(1, 1000)) x
WHERE id::text ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$';
SELECT is(count(*), 1000::bigint, 'they tell the time in milliseconds')
FROM (SELECT ('x0000' || left(replace(cqrs_es.new_event_id()::text, '-', ''), 12))::bit(64)::bigint AS ms,
	extract(epoch FROM clock_timestamp()) * 1000 AS now FROM generate_series(1, 1000)) x
WHERE ms BETWEEN now - 60000 AND now + 60000;
CREATE FUNCTION pg_temp.apart(n integer) RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(0.002); RETURN cqrs_es.new_event_id(); END $$;
CREATE TEMP TABLE ids AS SELECT n, pg_temp.apart(n) AS id FROM generate_series(1, 20) n;
SELECT results_eq('SELECT n FROM ids ORDER BY n', 'SELECT n FROM ids ORDER BY id', 'ids order by time');
SELECT results_eq(
	$$SELECT sequence FROM cqrs_es.events WHERE aggregate_type = 'position' AND aggregate_id = 'a' ORDER BY sequence$$,
	$$SELECT sequence FROM cqrs_es.events WHERE aggregate_type = 'position' AND aggregate_id = 'a' ORDER BY event_id$$,
	'without one of their own, events get such ids');
SELECT is(count(*), 100::bigint, 'also from a plain INSERT')
FROM cqrs_es.read_stream('position', 'c') WHERE event_id::text LIKE '________-____-7%';
SELECT finish();
ROLLBACK;
