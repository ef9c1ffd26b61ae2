\i test/include/setup.sql
-- Consumers that die with a batch in hand: what they may have died of is found, and
-- given up; nothing else is.
\i test/include/consumer.sql
SELECT plan(36);
SELECT cqrs_es.create_subscription('lost', aggregate_types => '{lost}', retry_delay => '0', max_attempts => 3) IS NULL AS x \gset
-- Deaths until nothing is left: each consumer dies of the killers, the others are done.
CREATE FUNCTION pg_temp.crash_loop(subscription text, killers text[], max_count int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE batch text; result text := ''; n int;
BEGIN
	FOR i IN 1 .. 200 LOOP
		batch := pg_temp.receive($1, 'c' || i, $3);
		EXIT WHEN batch = '(nothing)';
		n := cardinality(string_to_array(batch, ' '));
		IF EXISTS (SELECT FROM unnest(string_to_array(batch, ' ')) b WHERE split_part(split_part(b, '~', 1), '!', 1) = ANY ($2)) THEN
			result := result || ' ' || n || '!';
			PERFORM pg_temp.expire($1);
		ELSE
			result := result || ' ' || n;
			PERFORM pg_temp.ack('c' || i);
		END IF;
	END LOOP;
	RETURN trim(result);
END $$;
SELECT cqrs_es.append_event('lost', 's' || n, 'e', '{}') IS NULL AS x FROM generate_series(1, 16) n OFFSET 15 \gset
SELECT is(pg_temp.crash_loop('lost', '{s6/1}', 16), '16! 8! 4 4! 2! 1 1! 1! 1! 1 1 1 1 1 1 1 1 1 1', 'a batch is halved with each death until the killer is alone, which may be so three times; to the end of what is suspect one by one');
SELECT is(pg_temp.letters('lost') || ', ' || pg_temp.parked('lost'), 's6/1 blocked, s6/1~1 blocked', 'it is a dead letter, and no other event is');
SELECT is((SELECT error FROM cqrs_es.dead_letters WHERE subscription = 'lost'),
	'handed out 3 times and never acknowledged: its consumer was lost, or takes longer than the lease of 30 s', 'which says why');
SELECT is((SELECT ROW(suspect_end, batch_limit, deliveries, lost_by)::text FROM cqrs_es.shares WHERE subscription = 'lost'), '(,,0,)', 'nothing is suspect when it has been passed');
SELECT pg_temp.append('lost', 's1 s2 s3') IS NULL AS x \gset
SELECT is(pg_temp.crash_loop('lost', '{s1/2,s3/2}', 1), '1! 1! 1! 1 1! 1! 1!', 'killers one behind the other, in batches of one');
SELECT is(pg_temp.letters('lost'), 's6/1 blocked, s1/2 blocked, s3/2 blocked', 'both are given up');

-- one that is slow is no killer for others: deaths count for one event alone
SELECT pg_temp.append('lost', 'p q') IS NULL AS x \gset
SELECT is(pg_temp.receive('lost', 'c'), 'p/1 q/1', 'two events');
SELECT is(pg_temp.dies('c', 'd'), 'p/1~2', 'a death: the first alone');
SELECT is(pg_temp.dies('d', 'e'), 'p/1~2', 'another one: that counts');
SELECT is((SELECT deliveries FROM cqrs_es.shares WHERE subscription = 'lost'), 1, 'once');
SELECT is(cqrs_es.release_batch(pg_temp.batch('e'))::text, '', 'a batch that is given back');
SELECT is((SELECT deliveries FROM cqrs_es.shares WHERE subscription = 'lost'), 1, 'does not');
SELECT is(pg_temp.receive('lost', 'c'), 'p/1~2', 'again');
SELECT pg_temp.expire('lost') IS NULL AS x \gset
SELECT is(pg_temp.ack('c'), 1::bigint, 'the lease is over, but nobody took the batch, so it is good');
SELECT is((SELECT deliveries FROM cqrs_es.shares WHERE subscription = 'lost'), 0, 'which ends all suspicion of it');
SELECT is(pg_temp.receive('lost', 'c'), 'q/1~2', 'the other one');
SELECT is(pg_temp.dies('c', 'd'), 'q/1~2', 'and its first loss alone');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.ack_events(%L)', pg_temp.batch('c'))), 'QE401', 'who comes too late is told so');
SELECT is(pg_temp.state_of(format('SELECT FROM cqrs_es.receive_events(''lost'', ''c'', ack => %L)', pg_temp.batch('c'))), 'QE401', 'also who acknowledges it with the next receive_events');
SELECT is(pg_temp.ack('d'), 1::bigint, 'who has it is not disturbed');

-- the same name, at once
SELECT pg_temp.append('lost', 'p q') IS NULL AS x \gset
SELECT is(pg_temp.receive('lost', 'c'), 'p/2 q/2', 'a consumer with a batch');
SELECT is(pg_temp.receive('lost', 'c'), '(nothing)', 'another process under its name gets nothing');
SELECT is(pg_temp.receive('lost', 'd', resume => true), '(nothing)', 'nor does another name with resume');
SELECT is(pg_temp.receive('lost', 'c', resume => true), 'p/2~2', 'one that says that it was started does');
SELECT is(pg_temp.drain('lost', 'd'), '(nothing)', 'it is in hand');
SELECT is(pg_temp.ack('c'), 1::bigint, 'its own now');
SELECT is(pg_temp.drain('lost', 'c'), 'q/2~2', 'the rest');

-- what is behind a killer in its stream stays behind it, in the same call, too
SELECT cqrs_es.create_subscription('behind', aggregate_types => '{behind}', max_attempts => 2) IS NULL AS x \gset
SELECT pg_temp.append('behind', 'k k k l') IS NULL AS x \gset
SELECT is(pg_temp.crash_loop('behind', '{k/1}', 1), '1! 1! 1', 'a killer, and more of its stream');
SELECT is(pg_temp.parked('behind') || ' ' || (SELECT position = pg_temp.at('behind', 'l/1') FROM cqrs_es.shares WHERE subscription = 'behind'), 'k/1~1 blocked true', 'of the stream nothing comes, of the other it does');

-- killers that are met at a retry
SELECT pg_temp.append('lost', 'x x x y') IS NULL AS x \gset
SELECT is(pg_temp.receive('lost', 'c'), 'x/1 x/2 x/3 y/1', 'two streams');
SELECT is(pg_temp.nack('c', 'x/1') || pg_temp.nack('c', 'y/1') || pg_temp.ack('c'), 'retryretry0', 'that both fail at first');
SELECT pg_temp.due('lost') IS NULL AS x \gset
SELECT is(pg_temp.crash_loop('lost', '{x/2}', 100), '4! 1 1 1! 1! 1!', 'and then one event of them kills: one by one, until it is given up; the other is not');
SELECT is(pg_temp.letters('lost'), 's6/1 blocked, s1/2 blocked, s3/2 blocked, x/2 blocked', 'that event alone');
SELECT is((SELECT string_agg(aggregate_id || '/' || sequence, ' ' ORDER BY aggregate_id) FROM cqrs_es.parked_streams WHERE subscription = 'lost'), 's1/2 s3/2 s6/1 x/2', 'nothing else is parked');
-- a killer that is redriven
UPDATE cqrs_es.subscriptions SET on_failure = 'skip' WHERE name = 'lost';
UPDATE cqrs_es.dead_letters SET state = 'redriven', retry_at = clock_timestamp(), attempts = 0 WHERE subscription = 'lost' AND aggregate_id IN ('s1', 's3');
SELECT is(pg_temp.crash_loop('lost', '{s3/2}', 100), '2! 1 1! 1! 1!', 'a redriven one that kills');
SELECT is(pg_temp.letters('lost'), 's6/1 blocked, s1/2 delivered, s3/2 skipped, x/2 blocked', 'is skipped again');
DELETE FROM cqrs_es.shares WHERE subscription IN ('lost', 'behind');
DELETE FROM cqrs_es.subscriptions WHERE name IN ('lost', 'behind');
DELETE FROM cqrs_es.parked_streams;
DELETE FROM cqrs_es.dead_letters;
DELETE FROM cqrs_es.consumers;
