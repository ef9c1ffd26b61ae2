\i test/include/setup.sql
-- Streams that wait behind an event that failed: what is handed out again and when, and
-- what becomes of events that fail for good.
\i test/include/consumer.sql
SELECT plan(85);
SELECT cqrs_es.create_subscription('parked', aggregate_types => '{parked}', retry_delay => '1 h', retry_delay_max => '3 h', max_attempts => 3) IS NULL AS x \gset

-- back off, and again
SELECT pg_temp.append('parked', 'a a a b') IS NULL AS x \gset
SELECT is(pg_temp.receive('parked', 'c'), 'a/1 a/2 a/3 b/1', 'a batch');
SELECT is(pg_temp.nack('c', 'a/2'), 'retry', 'its second event fails');
SELECT is(pg_temp.ack('c'), 2::bigint, 'what comes before it and the other stream are done');
SELECT is(pg_temp.parked('parked'), 'a/2~1', 'the stream waits with it');
SELECT pg_temp.append('parked', 'a b') IS NULL AS x \gset
SELECT is(pg_temp.drain('parked', 'c', 1), 'b/2 a/2~2 a/3 a/4', 'the others go on; when it is due it comes with what is behind it, the new one, too');
SELECT is(pg_temp.parked('parked'), '(none)', 'and the stream is one as any other');
SELECT pg_temp.append('parked', 'a') IS NULL AS x \gset
SELECT is(pg_temp.receive('parked', 'c'), 'a/5', 'by the position');
SELECT is((pg_temp.error_of(format('SELECT pg_temp.nack(''c'', ''a/5'', retry_after => %L)', t)))[1:2], ARRAY['22023', 'retry_after ' || said], t || ' is refused at once')
FROM (VALUES ('300000 years', 'is too long'), ('2 years', 'is too long'), ('178000000 years', 'is too long'), ('-1 s', 'must not be negative'), ('1 mon -40 days', 'must not be negative')) v (t, said);
SELECT is((pg_temp.error_of(format('SELECT cqrs_es.extend_lease(%L, %L)', pg_temp.batch('c'), t)))[1:2], ARRAY['22023', 'lease ' || said], 'a lease of ' || t || ' as well')
FROM (VALUES ('300000 years', 'is too long'), ('2 years', 'is too long'), ('178000000 years', 'is too long'), ('-1 s', 'must be positive'), ('0', 'must be positive')) v (t, said);
SELECT is(pg_temp.nack('c', 'a/5', retry_after => '5 min'), 'retry', 'with a time of its own');
SELECT is(pg_temp.ack('c'), 0::bigint, 'nothing is done');
SELECT is((SELECT retry_at BETWEEN clock_timestamp() + interval '4 min' AND clock_timestamp() + interval '6 min' FROM cqrs_es.parked_streams), true, 'it is due then');
SELECT is(pg_temp.receive('parked', 'c'), '(nothing)', 'not before');
SELECT pg_temp.due('parked') IS NULL AS x \gset
SELECT is(pg_temp.receive('parked', 'c'), 'a/5~2', 'again');
SELECT is(pg_temp.nack('c', 'a/5'), 'retry', 'fails again');
SELECT is(pg_temp.ack('c'), 0::bigint, 'nothing is done');
SELECT is((SELECT retry_at BETWEEN clock_timestamp() + interval '119 min' AND clock_timestamp() + interval '121 min' FROM cqrs_es.parked_streams), true, 'the time doubles');
SELECT is((SELECT first_failed_at < failed_at FROM cqrs_es.parked_streams WHERE subscription = 'parked'), true, 'since when it fails is kept');
SELECT pg_temp.due('parked') IS NULL AS x \gset
SELECT is(pg_temp.receive('parked', 'c'), 'a/5~3', 'for the third time');
SELECT is(pg_temp.nack('c', 'a/5'), 'blocked', 'which is as often as it may');
SELECT is(pg_temp.letters('parked'), '(none)', 'no dead letter before the ack');
SELECT is(pg_temp.dies('c', 'c'), 'a/5~4', 'death before it: once more');
SELECT is(pg_temp.letters('parked') || pg_temp.parked('parked'), '(none)a/5~2', 'as if nothing had been said');
SELECT is(pg_temp.nack('c', 'a/5'), 'blocked', 'said again');
SELECT is(pg_temp.ack('c'), 0::bigint, 'and acknowledged');
SELECT is(pg_temp.letters('parked') || ', ' || pg_temp.parked('parked'), 'a/5 blocked, a/5~4 blocked', 'the stream is blocked, a dead letter says so');
SELECT is((SELECT error FROM cqrs_es.dead_letters WHERE subscription = 'parked'), 'bad a/5', 'and why');
SELECT pg_temp.append('parked', 'a b') IS NULL AS x \gset
SELECT is(pg_temp.drain('parked', 'c'), 'b/3', 'nothing of the stream comes any more, the others do');

-- what is kept of an error
SELECT cqrs_es.create_subscription('wordy', aggregate_types => '{wordy}', max_attempts => 1) IS NULL AS x \gset
SELECT pg_temp.append('wordy', 'a b') IS NULL AS x \gset
SELECT is(pg_temp.receive('wordy', 'c'), 'a/1 b/1', 'events of which much is said');
SELECT cqrs_es.nack_event(pg_temp.batch('c'), pg_temp.at('wordy', 'a/1'), repeat('x', 1000000)) = 'blocked' AND cqrs_es.nack_event(pg_temp.batch('c'), pg_temp.at('wordy', 'b/1'), repeat('y', 8192)) = 'blocked' AS x \gset
SELECT is(pg_temp.ack('c'), 0::bigint, 'when they fail');
SELECT results_eq($$SELECT octet_length(error), right(error, 4) FROM cqrs_es.dead_letters WHERE subscription = 'wordy' ORDER BY aggregate_id$$, $$VALUES (8192, 'x...'), (8192, 'yyyy')$$, 'the beginning of it is kept');
SELECT cqrs_es.reset_subscription('wordy', pg_temp.at('wordy', 'a/1') - 1) IS NULL AS x \gset
SELECT pg_temp.receive('wordy', 'c') IS NULL AS x \gset
SELECT cqrs_es.nack_event(pg_temp.batch('c'), pg_temp.at('wordy', 'a/1'), 'a' || repeat(U&'\20AC', 10000)) = 'blocked' AS x \gset
SELECT pg_temp.ack('c') AS x \gset
SELECT results_eq($$SELECT octet_length(error), right(error, 4) FROM cqrs_es.parked_streams WHERE subscription = 'wordy' AND aggregate_id = 'a'$$, $$VALUES (8191, U&'\20AC...')$$, 'in whole characters');
SELECT cqrs_es.drop_subscription('wordy') IS NULL AS x \gset

-- in parts
SELECT pg_temp.append('parked', 'd d d d d d') IS NULL AS x \gset
SELECT is(pg_temp.receive('parked', 'c'), 'd/1 d/2 d/3 d/4 d/5 d/6', 'a longer stream');
SELECT is(pg_temp.nack('c', 'd/1'), 'retry', 'fails with its first');
SELECT is(pg_temp.ack('c'), 0::bigint, 'so nothing is done');
SELECT pg_temp.append('parked', 'd d') IS NULL AS x \gset
SELECT pg_temp.due('parked') IS NULL AS x \gset
SELECT is(pg_temp.receive('parked', 'c', 2), 'd/1~2 d/2', 'handed out in parts');
SELECT is(pg_temp.ack('c'), 2::bigint, 'the first is done');
SELECT is(pg_temp.parked('parked'), 'a/5~4 blocked, d/3', 'the rest stays parked');
SELECT is(pg_temp.receive('parked', 'c', 3), 'd/3 d/4 d/5', 'and is due at once');
SELECT is(pg_temp.nack('c', 'd/4'), 'retry', 'in the middle of a part');
SELECT is(pg_temp.dies('c', 'c', 3), 'd/3~2', 'then death: nothing is lost, and it comes one by one');
SELECT is(pg_temp.ack('c'), 1::bigint, 'd/3');
SELECT is(pg_temp.receive('parked', 'c', 3), 'd/4~2', 'd/4 alone');
SELECT is(pg_temp.ack('c'), 1::bigint, 'works this time');
SELECT is(pg_temp.drain('parked', 'c', 3), 'd/5~2 d/6 d/7 d/8', 'up to what had been in hand one by one, then as before');
SELECT is(pg_temp.parked('parked'), 'a/5~4 blocked', 'all of it');

-- skip
SELECT cqrs_es.create_subscription('skipped', aggregate_types => '{skipped}', on_failure => 'skip', retry_delay => '1 min', max_attempts => 1) IS NULL AS x \gset
SELECT pg_temp.append('skipped', 'a a a b') IS NULL AS x \gset
SELECT is(pg_temp.receive('skipped', 'c'), 'a/1 a/2 a/3 b/1', 'with on_failure => skip');
SELECT is(pg_temp.nack('c', 'a/2'), 'skipped', 'an event is skipped');
SELECT is(pg_temp.dies('c', 'c'), 'a/1~2 a/2~2', 'not before the ack');
SELECT is(pg_temp.nack('c', 'a/2'), 'skipped', 'once more');
SELECT is(pg_temp.ack('c'), 1::bigint, 'one is done');
SELECT is(pg_temp.letters('skipped'), 'a/2 skipped', 'one dead letter');
SELECT is(pg_temp.drain('skipped', 'c'), 'a/3~2 b/1~2', 'the stream goes on behind it');
-- redriven by hand: redrive() does no more for a skipped one
UPDATE cqrs_es.dead_letters SET state = 'redriven', attempts = 0, retry_at = clock_timestamp() WHERE subscription = 'skipped';
SELECT is(pg_temp.receive('skipped', 'c'), 'a/2!', 'redriven: out of order, and marked so');
SELECT is(pg_temp.nack('c', 'a/2'), 'skipped', 'it fails again');
SELECT is(pg_temp.ack('c'), 0::bigint, 'nothing is done');
SELECT is(pg_temp.letters('skipped'), 'a/2 skipped', 'skipped again, by the same letter');
UPDATE cqrs_es.dead_letters SET state = 'redriven', attempts = 0, retry_at = clock_timestamp() WHERE subscription = 'skipped';
SELECT is(pg_temp.receive('skipped', 'c'), 'a/2!', 'redriven once more');
SELECT is(pg_temp.dies('c', 'c'), 'a/2~2!', 'death: once more');
SELECT is(pg_temp.ack('c'), 1::bigint, 'done');
SELECT is(pg_temp.letters('skipped') || ' ' || pg_temp.drain('skipped', 'c'), 'a/2 delivered (nothing)', 'for good');

-- stop
SELECT cqrs_es.create_subscription('stopped', aggregate_types => '{stopped}', on_failure => 'stop', retry_delay => '1 min', max_attempts => 5) IS NULL AS x \gset
SELECT pg_temp.append('stopped', 'a b b') IS NULL AS x \gset
SELECT is(pg_temp.receive('stopped', 'c'), 'a/1 b/1 b/2', 'with on_failure => stop');
SELECT is(pg_temp.nack('c', 'b/1', give_up => true), 'stopped', 'an event that is given up');
SELECT is((SELECT paused FROM cqrs_es.subscriptions WHERE name = 'stopped'), false, 'stops nothing before the ack');
SELECT is(pg_temp.ack('c'), 1::bigint, 'the other stream is done');
SELECT is((SELECT paused || ': ' || stopped_error FROM cqrs_es.subscriptions WHERE name = 'stopped'), 'true: bad b/1', 'the subscription stops and says why');
SELECT pg_temp.append('stopped', 'a') IS NULL AS x \gset
SELECT is(pg_temp.receive('stopped', 'c'), '(nothing)', 'nothing is handed out');
UPDATE cqrs_es.subscriptions SET paused = false, stopped_error = NULL WHERE name = 'stopped';
SELECT is(pg_temp.drain('stopped', 'c'), 'b/1 b/2 a/2', 'until it is resumed: then the event comes again, its attempts counted anew');

-- only what is in hand can fail
SELECT cqrs_es.create_subscription('passed', aggregate_types => '{passed}', on_failure => 'skip', retry_delay => '1 h', retry_delay_max => '1 h', max_attempts => 3) IS NULL AS x \gset
SELECT pg_temp.append('passed', 'a b a') IS NULL AS x \gset
SELECT is(pg_temp.receive('passed', 'c'), 'a/1 b/1 a/2', 'a batch');
SELECT is(pg_temp.nack('c', 'a/1') || ' ' || pg_temp.ack('c'), 'retry 1', 'its first event fails');
SELECT pg_temp.append('passed', 'b a b') IS NULL AS x \gset
SELECT is(pg_temp.receive('passed', 'c'), 'b/2 b/3', 'the next batch goes around its stream');
SELECT is(pg_temp.state_of($$SELECT pg_temp.nack('c', 'a/3')$$), '22023', 'of which nothing can fail now');
SELECT is(pg_temp.nack('c', 'b/2', give_up => true) || ' ' || pg_temp.ack('c'), 'skipped 0', 'another event is given up');
SELECT is(pg_temp.receive('passed', 'c') || ' ' || pg_temp.ack('c'), 'b/3 1', 'its stream goes on');
-- a letter without its event, as it stands in another log
UPDATE cqrs_es.dead_letters SET sequence = 99, state = 'redriven', attempts = 0, retry_at = clock_timestamp() WHERE subscription = 'passed';
SELECT is(pg_temp.letters('passed'), 'b/99 redriven', 'a letter whose event is not there');
SELECT is(pg_temp.receive('passed', 'c'), '(nothing)', 'is tried in vain');
SELECT is(pg_temp.letters('passed'), 'b/99 skipped', 'and not again');
DELETE FROM cqrs_es.shares WHERE subscription IN ('parked', 'skipped', 'stopped', 'passed');
DELETE FROM cqrs_es.subscriptions WHERE name IN ('parked', 'skipped', 'stopped', 'passed');
DELETE FROM cqrs_es.parked_streams;
DELETE FROM cqrs_es.dead_letters;
DELETE FROM cqrs_es.consumers;
