\i test/include/setup.sql
-- Of restored events positions may fall where sequences rise. They are handed out by their positions, and none is lost when
-- one of them fails: what the consumer passes over comes again, in the order of the stream.
\i test/include/consumer.sql
SELECT plan(9);
-- an event in a gap that was left for it, as a restore below the triggers brings it
CREATE FUNCTION pg_temp.restore(aggregate_type text, id text, sequence bigint, "position" bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL session_replication_role = replica;
	INSERT INTO cqrs_es.events (global_position, sequence, created_at, event_id, tenant_id, aggregate_type, aggregate_id, event_type, event_version, payload, metadata)
	VALUES ($4, $3, now(), gen_random_uuid(), '', $1, $2, 'e', '1', '{}', '{}');
	SET LOCAL session_replication_role = origin;
END $$;
SELECT cqrs_es.create_subscription('falling', aggregate_types => '{falling}', retry_delay => '1 h', retry_delay_max => '1 h', max_attempts => 3) IS NULL AS x \gset

SELECT nextval('cqrs_es.events_global_position_seq') AS gap \gset
SELECT pg_temp.append('falling', 'a b') IS NULL AS x, pg_temp.restore('falling', 'a', 2, :gap) IS NULL AS y \gset
SELECT is(pg_temp.receive('falling', 'c'), 'a/2 a/1 b/1', 'by their positions');
SELECT is(pg_temp.nack('c', 'a/2'), 'retry', 'the first that comes fails');
SELECT is(pg_temp.ack('c') || ', ' || pg_temp.parked('falling'), '1, a/1', 'the stream waits with the first of its own, which has not failed');
SELECT pg_temp.due('falling') IS NULL AS x \gset
SELECT is(pg_temp.drain('falling', 'c'), 'a/1 a/2', 'and goes on from there');

-- more than one fall
SELECT nextval('cqrs_es.events_global_position_seq') AS gap1, nextval('cqrs_es.events_global_position_seq') AS gap2 \gset
SELECT pg_temp.append('falling', 'f') IS NULL AS x, pg_temp.restore('falling', 'f', 2, :gap1) IS NULL AS y, pg_temp.restore('falling', 'f', 3, :gap2) IS NULL AS z \gset
SELECT is(pg_temp.receive('falling', 'c'), 'f/2 f/3 f/1', 'the second, the third, the first');
SELECT is(pg_temp.nack('c', 'f/3'), 'retry', 'the third fails');
SELECT is(pg_temp.ack('c') || ', ' || pg_temp.parked('falling'), '0, f/1', 'the first has been passed over');
SELECT pg_temp.due('falling') IS NULL AS x \gset
SELECT is(pg_temp.drain('falling', 'c'), 'f/1 f/2 f/3', 'and comes again, with all behind it');
SELECT is(pg_temp.parked('falling'), '(none)', 'nothing is left');
SELECT * FROM finish();
SELECT cqrs_es.drop_subscription('falling') IS NULL AS x \gset
