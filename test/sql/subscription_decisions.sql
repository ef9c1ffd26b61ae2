\i test/include/setup.sql
-- What a subscription has parked, in hand, split among consumers or given up, and what becomes of it when it is
-- paused, altered, reset, redriven or discarded. Not in a transaction: nobody gets events of their own that may roll back.

SELECT plan(97);
CREATE TEMP TABLE hands (consumer text PRIMARY KEY, batch uuid);
-- what a consumer gets: streams and sequences; "!" marks what is redriven
CREATE FUNCTION pg_temp.take(called text, consumer text, most int DEFAULT 100) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	taken text;
	token uuid;
BEGIN
	SELECT string_agg(concat(aggregate_id, sequence, CASE WHEN redriven THEN '!' END), ' ' ORDER BY global_position), min(r.batch::text)::uuid INTO taken, token
	FROM cqrs_es.receive_events(called, consumer, most) AS r;
	INSERT INTO hands VALUES (consumer, token) ON CONFLICT ON CONSTRAINT hands_pkey DO UPDATE SET batch = token;
	RETURN taken;
END $$;
CREATE FUNCTION pg_temp.token(who text) RETURNS uuid LANGUAGE sql AS $$SELECT batch FROM hands WHERE consumer = who$$;
CREATE FUNCTION pg_temp.ack(who text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN cqrs_es.ack_events(pg_temp.token(who));
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION pg_temp.fail(who text, id text, n bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN cqrs_es.nack_event(pg_temp.token(who), (SELECT global_position FROM cqrs_es.events WHERE aggregate_type = 'dec' AND aggregate_id = id AND sequence = n), 'bad ' || id || n);
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION pg_temp.letters(called text) RETURNS text LANGUAGE sql AS
	$$SELECT string_agg(concat_ws(' ', aggregate_id || sequence, state, reason, CASE WHEN retry_at IS NOT NULL THEN 'due' END), ', ' ORDER BY id) FROM cqrs_es.subscription_dead_letters WHERE subscription = called$$;
CREATE FUNCTION pg_temp.parked(called text) RETURNS text LANGUAGE sql AS
	$$SELECT string_agg(concat_ws(' ', aggregate_id || sequence, attempts, CASE WHEN is_blocked THEN 'blocked' END), ', ' ORDER BY aggregate_id) FROM cqrs_es.subscription_parked_streams WHERE subscription = called$$;
CREATE FUNCTION pg_temp.state(called text) RETURNS text LANGUAGE sql AS
	$$SELECT concat_ws(' ', state, shares, in_hand, parked, blocked, dead_letters, last_error) FROM cqrs_es.subscription_status WHERE name = called$$;
CREATE FUNCTION pg_temp.letter(called text, id text) RETURNS bigint LANGUAGE sql AS
	$$SELECT max(d.id) FROM cqrs_es.dead_letters d WHERE subscription = called AND aggregate_id || sequence = letter.id$$;
SELECT coalesce(max(global_position), 0) AS start FROM cqrs_es.events \gset
-- a1 b1 a2 b2 a3 b3 c1
SELECT count(cqrs_es.append_event('dec', s.id, e.type, '{}')) AS x FROM (VALUES (1, 'odd'), (2, 'even'), (3, 'odd')) e (n, type), (VALUES ('a'), ('b')) s (id) WHERE s.id = 'a' AND e.n = 1 \gset
SELECT count(cqrs_es.append_event('dec', s.id, e.type, '{}')) AS x FROM (VALUES (1, 'b', 'odd'), (2, 'a', 'even'), (3, 'b', 'even'), (4, 'a', 'odd'), (5, 'b', 'odd'), (6, 'c', 'odd')) e (n, id, type), LATERAL (SELECT e.id) s \gset
SELECT max(global_position) AS last FROM cqrs_es.events \gset

-- in hand: reset takes it back
SELECT cqrs_es.create_subscription('d', '{dec}', start_after => :start, max_attempts => 2, retry_delay => '0', retry_delay_max => '0', lease => '1 hour') IS NULL AS x \gset
SELECT is(pg_temp.take('d', 'one', 3), 'a1 b1 a2', 'in hand');
SELECT is(pg_temp.fail('one', 'b', 1), 'retry', 'one of them failed');
SELECT cqrs_es.reset_subscription('d', :start) IS NULL AS x \gset
SELECT is(pg_temp.ack('one'), 'QE401', 'reset: its token is no good');
SELECT is(pg_temp.fail('one', 'b', 1), 'QE401', 'for nothing');
SELECT is((SELECT count(*)::int FROM cqrs_es.nacked_events), 0, 'what was noted is forgotten');
SELECT is(pg_temp.take('d', 'one'), 'a1 b1 a2 b2 a3 b3 c1', 'all come again');

-- pause: what is in hand can be acknowledged, nothing more comes
SELECT cqrs_es.pause_subscription('d') IS NULL AS x \gset
SELECT is(pg_temp.take('d', 'two'), NULL, 'paused: nothing');
SELECT is(pg_temp.fail('one', 'b', 2), 'retry', 'what is in hand can fail');
SELECT is(pg_temp.ack('one'), '5', 'and be done');
SELECT is(pg_temp.parked('d'), 'b2 1', 'a stream is parked');
SELECT is(pg_temp.take('d', 'one'), NULL, 'paused: no retry either');
SELECT is(pg_temp.state('d'), 'paused 1 0 1 0 0 bad b2', 'status');
SELECT cqrs_es.resume_subscription('d') IS NULL AS x \gset
SELECT is(pg_temp.take('d', 'one'), 'b2 b3', 'resumed: the retry comes');
SELECT is(pg_temp.fail('one', 'b', 2), 'blocked', 'it fails for good');
SELECT is(pg_temp.ack('one'), '0', 'nothing of it is done');
SELECT is(pg_temp.letters('d') || '; ' || pg_temp.parked('d'), 'b2 blocked; b2 2 blocked', 'its stream is blocked');
SELECT cqrs_es.append_event('dec', 'b', 'odd', '{}') IS NULL AS x \gset
SELECT cqrs_es.append_event('dec', 'a', 'odd', '{}') IS NULL AS x \gset
SELECT is(pg_temp.take('d', 'one'), 'a4', 'others go on');
SELECT is(pg_temp.ack('one'), '1', 'and are done');

-- redrive
SELECT is(cqrs_es.redrive('d', aggregate_id => 'z'), 0::bigint, 'redrive of another stream');
SELECT is(cqrs_es.redrive('d', max_count => 0), 0::bigint, 'of none');
SELECT is(cqrs_es.redrive('d', pg_temp.letter('d', 'b2')), 1::bigint, 'of the letter');
SELECT is(pg_temp.letters('d') || '; ' || pg_temp.parked('d'), 'b2 redriven; b2 0', 'its stream starts anew');
SELECT is(cqrs_es.redrive('d'), 0::bigint, 'once');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.discard_dead_letter(%s, %L)', pg_temp.letter('d', 'b2'), 'late')), '55000', 'what is redriven is not discarded');
SELECT is(pg_temp.take('d', 'one'), 'b2 b3 b4', 'it comes, with what has come meanwhile');
SELECT is(pg_temp.fail('one', 'b', 2), 'retry', 'with all its attempts');
SELECT is(pg_temp.ack('one'), '0', 'nothing is done');
SELECT is(pg_temp.take('d', 'one') || ' ' || pg_temp.fail('one', 'b', 2), 'b2 b3 b4 blocked', 'it fails for good again');
SELECT is(pg_temp.ack('one'), '0', 'and again nothing');
SELECT is(pg_temp.letters('d'), 'b2 blocked', 'by the same letter');

-- discard, beside a batch in hand that was made without that stream
SELECT cqrs_es.append_event('dec', 'b', 'odd', '{}') IS NULL AS x \gset
SELECT cqrs_es.append_event('dec', 'a', 'odd', '{}') IS NULL AS x \gset
SELECT is(pg_temp.take('d', 'one'), 'a5', 'in hand, without the blocked stream');
SELECT cqrs_es.discard_dead_letter(pg_temp.letter('d', 'b2'), 'no such customer') IS NULL AS x \gset
SELECT is(pg_temp.letters('d') || '; ' || pg_temp.parked('d'), 'b2 discarded no such customer; b3 0', 'the stream goes on behind it, and stays parked');
SELECT is((SELECT decided_by || (decided_at IS NOT NULL) FROM cqrs_es.dead_letters WHERE state = 'discarded'), current_user || 'true', 'who decided, and when');
SELECT is(pg_temp.take('d', 'two'), NULL, 'its slot is in hand');
SELECT is(pg_temp.ack('one'), '1', 'the batch is done: the position is beyond b5');
SELECT is(pg_temp.take('d', 'one'), 'b3 b4 b5', 'none of the stream is lost');
SELECT is(pg_temp.ack('one'), '3', 'all done');
SELECT is(concat(pg_temp.take('d', 'one'), pg_temp.parked('d')), '', 'and nothing is left');

-- skipped ones: redriven out of order, discarded
DELETE FROM cqrs_es.consumers WHERE consumer = 'two';
SELECT cqrs_es.reset_subscription('d', :start) IS NULL AS x \gset
SELECT cqrs_es.alter_subscription('d', on_failure => 'skip', max_attempts => 1) IS NULL AS x \gset
SELECT is(pg_temp.take('d', 'one', 3) || ' ' || pg_temp.fail('one', 'a', 1) || ' ' || pg_temp.fail('one', 'b', 1), 'a1 b1 a2 skipped skipped', 'two are skipped');
SELECT is(pg_temp.ack('one'), '0', 'a2 comes again');
SELECT is(pg_temp.letters('d'), 'b2 discarded no such customer, a1 skipped, b1 skipped', 'letters of both');
SELECT is(cqrs_es.redrive('d', max_count => 1), 1::bigint, 'one is redriven, the first');
SELECT cqrs_es.discard_dead_letter(pg_temp.letter('d', 'b1'), 'never mind') IS NULL AS x \gset
SELECT is(pg_temp.letters('d'), 'b2 discarded no such customer, a1 redriven due, b1 discarded never mind', 'the other discarded');
SELECT is((SELECT string_agg(x, ' | ' ORDER BY n) FROM (SELECT n, concat(pg_temp.take('d', 'one'), ':', pg_temp.ack('one')) x FROM generate_series(1, 5) n) t) ~ 'a1!:1', true, 'it is handed out, marked');
SELECT is(pg_temp.take('d', 'one'), NULL, 'after a few batches all is done');
SELECT is((SELECT concat(position >= :last, lag_events, parked) FROM cqrs_es.subscription_status WHERE name = 'd'), 't00', 'and no lag');

-- reset: which letters stay what they are
SELECT cqrs_es.reset_subscription('d', :start) IS NULL AS x \gset
SELECT is(pg_temp.take('d', 'one') || ' ' || pg_temp.fail('one', 'a', 1) || ' ' || pg_temp.fail('one', 'c', 1), 'a1 b1 a2 b2 a3 b3 c1 b4 a4 b5 a5 skipped skipped', 'two are skipped');
SELECT is(pg_temp.ack('one'), '5', 'five of b');
SELECT global_position AS behind_a1 FROM cqrs_es.events WHERE aggregate_type = 'dec' AND aggregate_id = 'a' AND sequence = 1 \gset
SELECT cqrs_es.redrive('d', pg_temp.letter('d', 'c1')) IS NULL AS x \gset
SELECT cqrs_es.reset_subscription('d', :behind_a1) IS NULL AS x \gset
SELECT is((SELECT string_agg(concat_ws(' ', aggregate_id || sequence, state, reason, retry_at), ', ' ORDER BY id DESC) FROM (SELECT * FROM cqrs_es.dead_letters WHERE subscription = 'd' ORDER BY id DESC LIMIT 2) l), 'c1 discarded reset, a1 skipped', 'what comes again is no letter any more, what does not stays skipped');
SELECT is(pg_temp.parked('d'), NULL, 'nothing is parked');
SELECT is(pg_temp.take('d', 'one') || ' ' || pg_temp.fail('one', 'c', 1), 'b1 a2 b2 a3 b3 c1 b4 a4 b5 a5 skipped', 'all behind it come again');
SELECT is(pg_temp.ack('one'), '9', 'and the letter of before is in nobody''s way');
SELECT cqrs_es.drop_subscription('d') IS NULL AS x \gset
SELECT is((SELECT count(*)::int FROM cqrs_es.dead_letters) + (SELECT count(*)::int FROM cqrs_es.parked_streams) + (SELECT count(*)::int FROM cqrs_es.shares) + (SELECT count(*)::int FROM cqrs_es.consumers), 0, 'dropped with all it had');

-- another filter
SELECT cqrs_es.create_subscription('f', '{dec}', start_after => :start, max_attempts => 1, lease => '1 hour') IS NULL AS x \gset
SELECT is(pg_temp.take('f', 'one') || ' ' || pg_temp.fail('one', 'a', 1) || ' ' || pg_temp.fail('one', 'b', 2), 'a1 b1 a2 b2 a3 b3 c1 b4 a4 b5 a5 blocked blocked', 'a1 (odd) and b2 (even) failed');
SELECT is(pg_temp.ack('one'), '2', 'b1 and c1 are done');
SELECT cqrs_es.append_event('dec', 'c', 'even', '{}') IS NULL AS x \gset
SELECT is(pg_temp.take('f', 'one'), 'c2', 'in hand');
SELECT cqrs_es.alter_subscription('f', lease => '2 hours', event_types => NULL, aggregate_types => '{dec,dec}') IS NULL AS x \gset
SELECT is(pg_temp.fail('one', 'c', 2), 'blocked', 'the same filter: it is still in hand');
SELECT cqrs_es.alter_subscription('f', event_types => '{odd}') IS NULL AS x \gset
SELECT is(pg_temp.ack('one'), 'QE401', 'another filter takes it back');
SELECT is(pg_temp.letters('f') || '; ' || pg_temp.parked('f'), 'a1 blocked, b2 discarded filter changed; a1 0 blocked, b2 0', 'an event that is left out blocks nothing');
SELECT is(pg_temp.take('f', 'one'), 'b3 b4 b5', 'its stream goes on');
SELECT is(pg_temp.ack('one'), '3', 'done');
SELECT is(pg_temp.take('f', 'one'), NULL, 'c2 is left out');
SELECT cqrs_es.alter_subscription('f', event_types => '{}') IS NULL AS x \gset
SELECT is(cqrs_es.redrive('f'), 1::bigint, 'without a filter again, the other is redriven');
SELECT is(pg_temp.letters('f'), 'a1 redriven, b2 discarded filter changed', 'its letter says so while it waits');
SELECT is((SELECT string_agg(x, ' ' ORDER BY x) FROM (SELECT concat(pg_temp.take('f', 'one'), ':', pg_temp.ack('one')) x FROM generate_series(1, 2) n) t), 'a1 a2 a3 a4 a5:5 c2:1', 'and its stream comes whole, and what the filter left out and the position had not passed');
SELECT is(pg_temp.letters('f'), 'a1 delivered, b2 discarded filter changed', 'and that it has been delivered');

-- a blocked stream that is redriven fails further on; one that is redriven when all is reset
SELECT cqrs_es.reset_subscription('f', :start) IS NULL AS x \gset
SELECT cqrs_es.drop_subscription('f') IS NULL AS x \gset
SELECT cqrs_es.create_subscription('f', '{dec}', start_after => :start, max_attempts => 1, lease => '1 hour') IS NULL AS x \gset
SELECT pg_temp.take('f', 'one') AS x, pg_temp.fail('one', 'a', 1) AS y, pg_temp.ack('one') AS z, cqrs_es.redrive('f') AS r \gset
SELECT is(pg_temp.take('f', 'one') || ' ' || pg_temp.fail('one', 'a', 3) || ' ' || pg_temp.ack('one'), 'a1 a2 a3 a4 a5 blocked 2', 'a redriven stream is blocked further on');
SELECT is(pg_temp.letters('f'), 'a1 delivered, a3 blocked', 'the first event is delivered');
SELECT is(cqrs_es.redrive('f'), 1::bigint, 'redriven');
SELECT cqrs_es.reset_subscription('f', :last) IS NULL AS x \gset
SELECT is(pg_temp.letters('f'), 'a1 delivered, a3 discarded reset', 'and reset before it comes');
-- shares that are split: reset makes one of them
SELECT cqrs_es.create_subscription('s', '{dec}', start_after => :start, lease => '1 hour') IS NULL AS x \gset
SELECT pg_temp.take('s', 'one', 1) AS x, pg_temp.ack('one') AS y \gset
SELECT pg_temp.take('s', 'two', 1) AS x \gset
SELECT pg_temp.take('s', 'one', 1) AS x \gset
SELECT is((SELECT shares FROM cqrs_es.subscription_status WHERE name = 's'), 2::bigint, 'two consumers have two shares');
SELECT is((SELECT string_agg(concat(consumer, ' ', in_hand), ', ' ORDER BY consumer) FROM cqrs_es.subscription_consumers WHERE subscription = 's'), 'one 1, two 1', 'each with one event in hand');
SELECT cqrs_es.reset_subscription('s', :start) IS NULL AS x \gset
SELECT is(pg_temp.ack('one') || pg_temp.ack('two'), 'QE401QE401', 'reset takes both back');
SELECT is((SELECT concat(shares, ' ', in_hand) FROM cqrs_es.subscription_status WHERE name = 's'), '1 0', 'and there is one share');

-- what is retried is in hand: reset and another filter take it back, too; a decision comes too late
SELECT cqrs_es.create_subscription('r', '{dec}', start_after => :start, max_attempts => 3, retry_delay => '0', retry_delay_max => '0', lease => '1 hour') IS NULL AS x \gset
SELECT is(pg_temp.take('r', 'one', 2) || ' ' || pg_temp.fail('one', 'a', 1) || ' ' || pg_temp.fail('one', 'b', 1), 'a1 b1 retry retry', 'two fail');
SELECT is(pg_temp.ack('one') || ' ' || pg_temp.take('r', 'one'), '0 a1 b1', 'their retries are in hand');
SELECT cqrs_es.alter_subscription('r', event_types => '{even}') IS NULL AS x \gset
SELECT is(pg_temp.ack('one') || ' ' || pg_temp.fail('one', 'a', 1), 'QE401 QE401', 'another filter takes them back');
SELECT is((SELECT string_agg(x, ' | ' ORDER BY n) FROM (SELECT n, concat(pg_temp.take('r', 'one'), ':', pg_temp.ack('one')) x FROM generate_series(1, 2) n) t), 'a2 b2 c2:3 | :22004', 'what it lets pass comes, parked or not');
SELECT is(pg_temp.parked('r'), NULL, 'nothing is parked');
SELECT cqrs_es.alter_subscription('r', event_types => '{}', max_attempts => 1, on_failure => 'skip') IS NULL AS x \gset
SELECT cqrs_es.reset_subscription('r', :start) IS NULL AS x \gset
SELECT is(pg_temp.take('r', 'one', 2) || ' ' || pg_temp.fail('one', 'a', 1) || ' ' || pg_temp.ack('one'), 'a1 b1 skipped 1', 'one is skipped');
SELECT is((SELECT string_agg(x, ' ' ORDER BY n) FROM (SELECT n, concat(pg_temp.take('r', 'one'), ':', pg_temp.ack('one')) x FROM generate_series(1, 2) n) t) ~ 'a2 b2', true, 'the others are done');
SELECT is(cqrs_es.redrive('r', aggregate_type => 'dec', aggregate_id => 'a'), 1::bigint, 'it is redriven');
SELECT is(pg_temp.take('r', 'one'), 'a1!', 'and in hand');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.discard_dead_letter(%s, %L)', pg_temp.letter('r', 'a1'), 'late')), '55000', 'it cannot be discarded then');
SELECT cqrs_es.alter_subscription('r', event_types => '{even}') IS NULL AS x \gset
SELECT is(pg_temp.ack('one') || ' ' || pg_temp.letters('r'), 'QE401 a1 discarded filter changed', 'another filter discards it');
SELECT is(pg_temp.take('r', 'one'), NULL, 'it does not come again');
SELECT cqrs_es.alter_subscription('r', event_types => '{}') IS NULL AS x \gset
SELECT cqrs_es.reset_subscription('r', :start) IS NULL AS x \gset
SELECT is(pg_temp.take('r', 'one', 1) || ' ' || pg_temp.fail('one', 'a', 1) || ' ' || pg_temp.ack('one') || ' ' || cqrs_es.redrive('r'), 'a1 skipped 0 1', 'skipped and redriven once more');
SELECT is((SELECT pg_temp.take('r', 'one')) ~ 'a1!|a2', true, 'in hand');
SELECT cqrs_es.reset_subscription('r', :last) IS NULL AS x \gset
SELECT is(pg_temp.ack('one'), 'QE401', 'reset takes it back');
SELECT is((SELECT count(*)::int FROM cqrs_es.dead_letters WHERE subscription = 'r' AND (state <> 'discarded' OR retry_at IS NOT NULL)), 0, 'and no letter is open');

-- at the end: not behind a row that was rolled back, below our triggers, above all positions that are drawn
BEGIN;
SET LOCAL session_replication_role = replica;
INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload, event_id, tenant_id, created_at, event_version, metadata)
	SELECT max(global_position) + 500, 1, 'dec', 'z', 'odd', '{}', gen_random_uuid(), '', now(), '1', '{}' FROM cqrs_es.events;
ROLLBACK;
SELECT cqrs_es.create_subscription('e', '{dec}', start_at_end => true) IS NULL AS x \gset
SELECT cqrs_es.append_event('dec', 'e', 'odd', '{}') IS NULL AS x \gset
SELECT is(pg_temp.take('e', 'one'), 'e1', 'what comes after it was created is handed out');
SELECT cqrs_es.drop_subscription('e') IS NULL AS x \gset

-- in the order of the log: stopped, resumed with all attempts
SELECT cqrs_es.create_subscription('l', '{dec}', start_after => :start, ordering => 'log', max_attempts => 2, retry_delay => '0', retry_delay_max => '0') IS NULL AS x \gset
SELECT is(pg_temp.take('l', 'one') ~ '^a1 b1 ' AND pg_temp.fail('one', 'b', 1) IS NOT NULL AND pg_temp.ack('one') = '1', true, 'the second failed');
SELECT is(pg_temp.take('l', 'one') ~ '^b1 ' AND pg_temp.fail('one', 'b', 1) IS NOT NULL AND pg_temp.ack('one') = '0', true, 'twice');
SELECT is(pg_temp.state('l'), 'stopped 1 0 0 0 0 bad b1', 'it has stopped, and says why');
SELECT cqrs_es.resume_subscription('l') IS NULL AS x \gset
SELECT is(pg_temp.take('l', 'one') ~ '^b1 ' AND pg_temp.fail('one', 'b', 1) IS NOT NULL AND pg_temp.ack('one') = '0', true, 'resumed: it failed');
SELECT is((SELECT state FROM cqrs_es.subscription_status WHERE name = 'l'), 'active', 'with all its attempts');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is((SELECT concat(state, ' ', lag_events > 0, ' ', lag > '0') FROM cqrs_es.subscription_status WHERE name = 'l'), 'active t t', 'the views can be had above READ COMMITTED');
COMMIT;
SELECT count(cqrs_es.drop_subscription(name)) AS x FROM cqrs_es.subscriptions WHERE name IN ('f', 's', 'l', 'r') \gset
SELECT * FROM finish();
