\i test/include/setup.sql
-- A log that is partitioned: by partition_log, which copies what is there, and by position in
-- particular, where a stream goes on over the partitions.  (Races: log_range_race; dumps, tools: 100_partitions.)
-- Partitions are of ten positions, so it begins at the same one of them whatever ran before.
BEGIN;
SELECT plan(52);
-- what other files have left is not this one's
SET LOCAL session_replication_role = replica;
DELETE FROM cqrs_es.events;
DELETE FROM cqrs_es.event_tags;
SET LOCAL session_replication_role = origin;
SELECT setval('cqrs_es.events_global_position_seq', (last_value + 999) / 1000 * 1000) FROM cqrs_es.events_global_position_seq \g /dev/null

SELECT throws_ok(format('SELECT cqrs_es.partition_log(%s)', args), '22023', NULL, 'partition_log refuses: ' || args)
FROM unnest(ARRAY[$$NULL$$, $$'time', every => 10$$, $$'position'$$, $$'position', every => 0$$, $$'position', every => 10, partitions => 2$$,
    $$'aggregate_id'$$, $$'aggregate_id', partitions => 0$$, $$'aggregate_id', every => 1, partitions => 2$$]) AS args;
SELECT throws_ok('SELECT cqrs_es.keep_partitions()', '55000', 'the log is not partitioned by position', 'keep_partitions wants one by position');
SELECT is_empty('SELECT FROM cqrs_es.log_partitions', 'no partitions');

-- of hash
SAVEPOINT plain;
SELECT FROM generate_series(1, 30) AS n, LATERAL cqrs_es.append_event('account', (n % 7)::text, 'Added', format('{"n": %s}', n)::jsonb) AS a \g /dev/null
CREATE TEMP TABLE before AS SELECT * FROM cqrs_es.events;
SELECT is(cqrs_es.partition_log('aggregate_id', partitions => 3), (SELECT count(*) FROM before), 'by hash: all events are copied');
SELECT results_eq('SELECT * FROM cqrs_es.events ORDER BY global_position', 'SELECT * FROM before ORDER BY global_position', 'and are what they were');
SELECT is((SELECT count(*) FROM cqrs_es.log_partitions WHERE from_position IS NULL AND state IS NULL), 3::bigint, 'in three partitions');
SELECT is_empty('SELECT FROM cqrs_es.verify_log() WHERE problem IS NOT NULL', 'and whole');
SELECT throws_ok($$SELECT cqrs_es.partition_log('position', every => 10)$$, '55000', 'the log is no ordinary table', 'once');
ROLLBACK TO plain;

-- by position, with what somebody has added
CREATE ROLE range_writer;
GRANT USAGE ON SCHEMA cqrs_es TO range_writer;
GRANT SELECT, INSERT ON cqrs_es.events TO range_writer;
CREATE ROLE range_stranger;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO range_stranger, PUBLIC;
SET LOCAL client_min_messages = warning;
ALTER TABLE cqrs_es.events ADD COLUMN note text;
CREATE INDEX events_of_time ON cqrs_es.events (created_at);
ALTER TABLE cqrs_es.events ALTER COLUMN payload SET COMPRESSION pglz;
CREATE STATISTICS cqrs_es.types_of_events (dependencies) ON aggregate_type, event_type FROM cqrs_es.events;
SELECT FROM generate_series(1, 25) AS n, LATERAL cqrs_es.append_event('account', (n % 5)::text, 'Added', format('{"n": %s}', n)::jsonb) AS a \g /dev/null
SELECT max(global_position) AS last, max(global_position) / 10 * 10 AS edge FROM cqrs_es.events \gset
CREATE TEMP TABLE before AS SELECT * FROM cqrs_es.events;
SELECT is(cqrs_es.partition_log('position', every => 10), (SELECT count(*) FROM before), 'by position: all events are copied');
SELECT results_eq('SELECT * FROM cqrs_es.events ORDER BY global_position', 'SELECT * FROM before ORDER BY global_position', 'and are what they were');
SELECT cmp_ok((SELECT count(*) FROM cqrs_es.log_partitions WHERE state = 'ahead'), '>=', 2::bigint, 'there is room');
SELECT is((SELECT count(*) FROM pg_indexes WHERE schemaname = 'cqrs_es' AND indexdef LIKE '%ON ONLY cqrs_es.events USING btree (created_at)'), 1::bigint, 'an index of my own is there');
SELECT is_empty('SELECT FROM cqrs_es.verify_log() WHERE problem IS NOT NULL', 'it is whole');
SELECT cqrs_es.keep_partitions(3) \g /dev/null
SELECT is_empty($$SELECT FROM pg_attribute AS a WHERE a.attname = 'payload' AND a.attcompression <> 'p'
    AND a.attrelid IN (SELECT 'cqrs_es.events'::regclass UNION ALL SELECT partition FROM cqrs_es.log_partitions)$$, 'payloads are compressed as they were');
SELECT is((SELECT count(*) FROM pg_statistic_ext WHERE stxrelid = 'cqrs_es.events'::regclass), 1::bigint, 'extended statistics are there');
SELECT is_empty($$SELECT c.relname, a.grantee::regrole FROM pg_class AS c, aclexplode(c.relacl) AS a
    WHERE (c.relname = 'events' AND a.grantee <> 'range_writer'::regrole OR c.oid IN (SELECT partition FROM cqrs_es.log_partitions)) AND a.grantee <> c.relowner$$,
    'default privileges let nobody read a partition behind the policy of the log');
SELECT is((SELECT count(*) FROM generate_series(1, 12) AS n, LATERAL cqrs_es.append_event('account', (n % 6)::text, 'Added', '{}')), 12::bigint, 'appends go over the edge');
SET LOCAL ROLE range_writer;
SELECT is((SELECT a.version FROM cqrs_es.append_event('account', '1', 'Added', '{}') AS a), 8::bigint, 'as an ordinary role');
RESET ROLE;
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'account', (n % 2)::text, 'Added', '{}' FROM generate_series(1, 12) AS n;
SELECT is_empty('SELECT FROM cqrs_es.verify_log() WHERE problem IS NOT NULL AND item <> ''partitions''', 'sequences have no holes, positions rise');
SELECT cmp_ok((SELECT count(DISTINCT tableoid) FROM cqrs_es.events WHERE aggregate_id = '1'), '>', 3::bigint, 'a stream in several partitions');
SELECT is((SELECT array_agg(sequence) FROM cqrs_es.read_stream('account', '1')), (SELECT array_agg(n) FROM generate_series(1, cqrs_es.stream_version('account', '1')) AS n), 'is read in its order');
SELECT throws_ok($$SELECT cqrs_es.append_event('account', '1', 'Added', '{}', 3)$$, 'QE001', NULL, 'an expected version that is long past, in a partition long past');
SELECT throws_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, sequence) VALUES ('account', '1', 'Added', '{}', 2)$$,
    '40001', NULL, 'a sequence that another partition has');

-- restored rows (among positions of this transaction, which it takes for its own: else it is a 23505)
SELECT min(global_position) AS low, max(global_position) AS position, max(sequence) FILTER (WHERE aggregate_id = '1') AS sequence FROM cqrs_es.events \gset
PREPARE restore (bigint, bigint) AS INSERT INTO cqrs_es.events (global_position, sequence, created_at, aggregate_type, aggregate_id, event_type, payload) VALUES ($1, $2, now(), 'account', '1', 'Added', '{}');
SELECT throws_ok(format('EXECUTE restore(%s, %s)', :low, :sequence), '40001', NULL, 'a restored row with a sequence that a later partition has');
SELECT throws_ok(format('EXECUTE restore(%s, %s)', :low, :sequence + 5), '40001', NULL, 'with one that belongs behind a later partition');
SELECT throws_ok(format('EXECUTE restore(%s, %s)', :position + 1, 1), '40001', NULL, 'with one that an earlier one has');
SELECT throws_ok(format('EXECUTE restore(%s, %s)', (7::bigint << 44) + 3, :sequence + 1), '23514', NULL, 'of another node: there is no place for it');
SELECT lives_ok(format('EXECUTE restore(%s, %s)', :position + 1, :sequence + 1), 'one that goes on is let in');

-- room
SELECT is((SELECT coalesce(problem LIKE 'there is no room%', false) FROM cqrs_es.verify_log() WHERE item = 'partitions'),
    NOT EXISTS (SELECT FROM cqrs_es.log_partitions WHERE state = 'ahead'), 'verify_log says when there is none left');
SELECT cmp_ok(cqrs_es.keep_partitions(3), '>', 0, 'keep_partitions makes some');
SELECT is(cqrs_es.keep_partitions(3), 0, 'enough is enough');
SELECT is((SELECT count(*) FROM cqrs_es.log_partitions WHERE state = 'ahead'), 3::bigint, 'three ahead');
SELECT throws_ok('SELECT cqrs_es.keep_partitions(0)', '22023', NULL, 'none is no number');
SELECT is_empty('SELECT FROM cqrs_es.verify_log() WHERE problem IS NOT NULL', 'and all is well');

-- one by hand gets what it needs
SELECT max(to_position) AS top FROM cqrs_es.log_partitions \gset
CREATE TABLE cqrs_es.by_hand PARTITION OF cqrs_es.events FOR VALUES FROM (:top) TO (:top + 10);
SELECT is_empty('SELECT FROM cqrs_es.verify_log() WHERE problem IS NOT NULL', 'a partition that is made by hand is whole');
SELECT throws_ok('TRUNCATE cqrs_es.by_hand', 'QE004', NULL, 'nobody empties it');
SELECT throws_ok(format('EXECUTE restore(%s, %s)', :top, 3), '23505', NULL, 'nor puts what is elsewhere into it');

-- what has no order
SAVEPOINT ordered;
CREATE TABLE cqrs_es.rest PARTITION OF cqrs_es.events DEFAULT;
SELECT throws_ok($$SELECT cqrs_es.append_event('account', '1', 'Added', '{}')$$, '55000', NULL, 'a default partition is refused');
ROLLBACK TO ordered;
CREATE TABLE cqrs_es.divided PARTITION OF cqrs_es.events FOR VALUES FROM (:top + 10) TO (:top + 20) PARTITION BY HASH (aggregate_id);
CREATE TABLE cqrs_es.divided_0 PARTITION OF cqrs_es.divided FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT throws_ok(format('EXECUTE restore(%s, %s)', :top + 11, :sequence + 2), '55000', NULL, 'and partitions of partitions');
ROLLBACK TO ordered;

-- a node that had a higher number before
SAVEPOINT ordered;
SELECT cqrs_es.keep_partitions(2) \g /dev/null
SET LOCAL cqrs_es.node_id = 3;
SELECT cqrs_es.keep_partitions(1) \g /dev/null
SELECT is((SELECT a.version FROM cqrs_es.append_event('account', 'moved', 'Added', '{}') AS a), 1::bigint, 'another node');
SET LOCAL cqrs_es.node_id = 0;
SELECT throws_ok($$SELECT cqrs_es.append_event('account', 'moved', 'Added', '{}')$$, '55000', NULL, 'a stream that has gone on with positions behind ours is not begun again');
SELECT throws_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', 'moved', 'Added', '{}')$$,
    '55000', NULL, 'not by an INSERT, either');
SELECT lives_ok($$SELECT cqrs_es.append_event('account', 'moves', 'Added', '{}')$$, 'others are appended to');
ROLLBACK TO ordered;

-- an INSERT draws its position before it has the locks of its tags, and another one behind that
SELECT cqrs_es.keep_partitions(2) \g /dev/null
SELECT cqrs_es.define_tags('Tagged', 'account:{/account}') \g /dev/null
SELECT to_position - 1 AS last_here FROM cqrs_es.log_partitions WHERE state = 'current' \gset
SELECT setval('cqrs_es.events_global_position_seq', :last_here - 1) \g /dev/null
SELECT throws_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', 'x', 'Tagged', '{"account": 1}')$$,
    '40001', NULL, 'which may be one of another partition');
SELECT lives_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', 'x', 'Tagged', '{"account": 1}')$$,
    'once');

SELECT * FROM finish();
ROLLBACK;
