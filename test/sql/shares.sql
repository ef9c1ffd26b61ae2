\i test/include/setup.sql
-- A subscription has as many parts as consumers: parts split and merge, and each stream
-- keeps its order.
\i test/include/consumer.sql
SELECT plan(21);
SELECT cqrs_es.create_subscription('shares', aggregate_types => '{shares}', retry_delay => '1 h', retry_delay_max => '1 h') IS NULL AS x \gset
CREATE FUNCTION pg_temp.slots() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(bit_count(slots)::text, ' ' ORDER BY share) FROM cqrs_es.shares WHERE subscription = 'shares'
$$;
-- every slot is in one share
CREATE FUNCTION pg_temp.complete() RETURNS boolean LANGUAGE sql AS $$
	SELECT bool_and(n = 1) FROM (SELECT i, count(*) FILTER (WHERE get_bit(slots, i) = 1) AS n
		FROM generate_series(0, 255) i, cqrs_es.shares WHERE subscription = 'shares' GROUP BY i) x
$$;
SET test.crowd = on;
SELECT cqrs_es.append_event('shares', 's' || n % 50, 'e', '{}') IS NULL AS x FROM generate_series(1, 200) n OFFSET 199 \gset
SELECT is(pg_temp.slots(), '256', 'one share with all slots');
SELECT isnt(pg_temp.receive('shares', 'c1', 10), '(nothing)', 'the first consumer');
SELECT is(pg_temp.receive('shares', 'c2', 10) || ' ' || pg_temp.receive('shares', 'c3', 10), '(nothing) (nothing)', 'others find nothing, but are seen');
SELECT is(pg_temp.slots(), '256', 'what is in hand is not split');
SELECT is(pg_temp.ack('c1'), 10::bigint, 'when it is free');
SELECT isnt(pg_temp.receive('shares', 'c1', 10), '(nothing)', 'whoever comes next');
SELECT is(pg_temp.slots(), '128 128', 'has one half');
SELECT isnt(pg_temp.receive('shares', 'c2', 10), '(nothing)', 'another one the other');
SELECT is(pg_temp.slots(), '128 64 64', 'which is split for the third');
SELECT isnt(pg_temp.receive('shares', 'c3', 10), '(nothing)', 'who gets something, too');
SELECT is(pg_temp.complete(), true, 'each slot is in one share');
BEGIN;
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'shares' AND pg_temp.state_of(format('SELECT cqrs_es.nack_event(%L, %s, ''bad'')', pg_temp.batch('c2'), global_position)) = 'none'),
	(SELECT batch_count::bigint FROM cqrs_es.shares WHERE batch = pg_temp.batch('c2')), 'of events only those of the batch can fail');
ROLLBACK;
-- all the rest, by three in turn, with a failure now and then
CREATE TEMP TABLE got (nr serial, consumer text, aggregate_id text, sequence bigint);
CREATE FUNCTION pg_temp.work(consumer text, max_count int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE n int;
BEGIN
	INSERT INTO got (consumer, aggregate_id, sequence) SELECT $1, e.aggregate_id, e.sequence FROM cqrs_es.receive_events('shares', $1, $2) e ORDER BY e.global_position;
	GET DIAGNOSTICS n = ROW_COUNT;
	PERFORM cqrs_es.ack_events(batch) FROM cqrs_es.shares s WHERE s.subscription = 'shares' AND s.consumer = $1 AND batch IS NOT NULL;
	RETURN n;
END $$;
-- what is in hand is given back
SELECT cqrs_es.release_batch(batch) IS NULL AS x FROM cqrs_es.shares WHERE subscription = 'shares' AND batch IS NOT NULL OFFSET 2 \gset
INSERT INTO got (consumer, aggregate_id, sequence) SELECT 'first', e.aggregate_id, e.sequence FROM cqrs_es.events e WHERE e.aggregate_type = 'shares'
	AND e.global_position <= (SELECT min(position) FROM cqrs_es.shares WHERE subscription = 'shares');
DO $$ DECLARE n int; BEGIN
	FOR i IN 1 .. 200 LOOP
		n := pg_temp.work('c1', 3) + pg_temp.work('c2', 7) + pg_temp.work('c3', 11);
		EXIT WHEN n = 0;
	END LOOP;
END $$;
SELECT is((SELECT count(*) FROM got), 200::bigint, 'every event was handed out once');
SELECT is((SELECT count(*) FROM (SELECT sequence, row_number() OVER (PARTITION BY aggregate_id ORDER BY nr) AS n FROM got) x WHERE sequence <> n), 0::bigint, 'each stream in order');
SELECT is((SELECT count(DISTINCT consumer) FROM got WHERE consumer <> 'first'), 3::bigint, 'by all three');
-- one alone: the shares come together
DELETE FROM cqrs_es.consumers;
SELECT is(pg_temp.receive('shares', 'c1'), '(nothing)', 'one consumer alone');
SELECT is(pg_temp.slots(), '256', 'has one share again');
SELECT is(pg_temp.complete(), true, 'with all slots');
-- shares that are not at the same place
SELECT pg_temp.receive('shares', 'c2') IS NULL AS x \gset
SELECT cqrs_es.append_event('shares', 's' || n % 50, 'e', '{}') IS NULL AS x FROM generate_series(1, 200) n OFFSET 199 \gset
DO $$ BEGIN PERFORM pg_temp.work('c1', 5), pg_temp.work('c1', 5), pg_temp.work('c2', 50); END $$;
SELECT isnt((SELECT min(position) FROM cqrs_es.shares WHERE subscription = 'shares'), (SELECT max(position) FROM cqrs_es.shares WHERE subscription = 'shares'), 'two shares, one of them further');
DELETE FROM cqrs_es.consumers;
DO $$ BEGIN
	FOR i IN 1 .. 200 LOOP
		EXIT WHEN pg_temp.work('c1', 4) = 0;
	END LOOP;
END $$;
SELECT is(pg_temp.slots() || ' ' || (SELECT count(*) FROM got), '256 400', 'one meets the other, and they merge; nothing is lost or doubled');
SELECT is((SELECT count(*) FROM (SELECT sequence, row_number() OVER (PARTITION BY aggregate_id ORDER BY nr) AS n FROM got) x WHERE sequence <> n), 0::bigint, 'each stream in order');
DELETE FROM cqrs_es.shares WHERE subscription = 'shares';
DELETE FROM cqrs_es.subscriptions WHERE name = 'shares';
DELETE FROM cqrs_es.consumers;
