\i test/include/setup.sql
-- When everything fails it is not the events: the share is left alone for a while, and
-- attempts do not count.
\i test/include/consumer.sql
SELECT plan(19);
SELECT cqrs_es.create_subscription('circuit', aggregate_types => '{circuit}', retry_delay => '1 min', retry_delay_max => '1 h', max_attempts => 2) IS NULL AS x \gset
CREATE FUNCTION pg_temp.fail_all(max_count int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE n int := 0; token uuid; answer text := '';
BEGIN
	SELECT count(*), min(batch::text)::uuid INTO n, token FROM (
		SELECT e.batch, cqrs_es.nack_event(e.batch, e.global_position, 'down') FROM cqrs_es.receive_events('circuit', 'c', $1) e) x;
	IF token IS NOT NULL THEN PERFORM cqrs_es.ack_events(token); END IF;
	RETURN n;
END $$;
CREATE FUNCTION pg_temp.state() RETURNS text LANGUAGE sql AS $$
	SELECT failures_in_row || ' failures, ' || circuit || ' times' || CASE WHEN retry_at > clock_timestamp() THEN
		', for ' || round(extract(epoch FROM retry_at - clock_timestamp()) / 60) || ' min' ELSE '' END FROM cqrs_es.shares WHERE subscription = 'circuit'
$$;
SELECT cqrs_es.append_event('circuit', 's' || n, 'e', '{}') IS NULL AS x FROM generate_series(1, 40) n OFFSET 39 \gset
SELECT is(pg_temp.fail_all(12), '12', 'a batch that fails as a whole');
SELECT is(pg_temp.state(), '12 failures, 0 times', 'says nothing');
SELECT is((SELECT DISTINCT attempts FROM cqrs_es.parked_streams WHERE subscription = 'circuit'), 1, 'its attempts count');
SELECT is(pg_temp.fail_all(12), '12', 'one more');
SELECT is(pg_temp.state(), '24 failures, 1 times, for 1 min', 'does: the share is left alone');
SELECT is((SELECT string_agg(attempts || ': ' || n, ', ' ORDER BY attempts) FROM (SELECT attempts, count(*) AS n FROM cqrs_es.parked_streams WHERE subscription = 'circuit' GROUP BY 1) x),
	'0: 12, 1: 12', 'the attempts of that batch do not count');
SELECT is(pg_temp.fail_all(12), '0', 'nothing is handed out');
SELECT pg_temp.due('circuit') IS NULL AS x \gset
SELECT is(pg_temp.fail_all(12), '1', 'then one event to try');
SELECT is(pg_temp.state(), '24 failures, 2 times, for 2 min', 'which fails: left alone for longer; a stream that fails again is not another one');
SELECT is(pg_temp.letters('circuit'), '(none)', 'nothing is given up');
SELECT pg_temp.due('circuit') IS NULL AS x \gset
SELECT is(pg_temp.fail_all(12), '1', 'one more');
SELECT is(pg_temp.state(), '25 failures, 3 times, for 4 min', 'from the position this time');
SELECT pg_temp.due('circuit') IS NULL AS x \gset
SELECT is(cardinality(string_to_array(pg_temp.receive('circuit', 'c', 12), ' ')), 1, 'one to try');
SELECT is(pg_temp.ack('c'), 1::bigint, 'works');
SELECT is(pg_temp.state(), '0 failures, 0 times', 'all is well again');
SELECT is(cardinality(string_to_array(pg_temp.receive('circuit', 'c', 12), ' ')), 12, 'and batches are as large as before');
SELECT is(pg_temp.ack('c'), 12::bigint, 'all of it done');
-- a poison among few: the circuit does not hide it
UPDATE cqrs_es.subscriptions SET max_attempts = 25 WHERE name = 'circuit';
DELETE FROM cqrs_es.parked_streams WHERE subscription = 'circuit';
SELECT pg_temp.drain('circuit', 'c') IS NULL AS x \gset
SELECT pg_temp.append('circuit', 'poison') IS NULL AS x \gset
DO $$ BEGIN
	FOR i IN 1 .. 25 LOOP
		PERFORM pg_temp.due('circuit'), pg_temp.fail_all(12);
	END LOOP;
END $$;
SELECT is(pg_temp.state(), '1 failures, 0 times', 'one stream that fails and fails');
SELECT is(pg_temp.letters('circuit'), 'poison/1 blocked', 'is given up when it has failed often enough');
DELETE FROM cqrs_es.shares WHERE subscription = 'circuit';
DELETE FROM cqrs_es.subscriptions WHERE name = 'circuit';
DELETE FROM cqrs_es.parked_streams;
DELETE FROM cqrs_es.dead_letters;
DELETE FROM cqrs_es.consumers;
