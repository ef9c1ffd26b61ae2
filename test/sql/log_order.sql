\i test/include/setup.sql
-- A subscription in the order of the log: nothing passes what failed.
\i test/include/consumer.sql
SELECT plan(41);
SELECT cqrs_es.create_subscription('in_order', aggregate_types => '{in_order}', ordering => 'log', retry_delay => '1 h', retry_delay_max => '1 h', max_attempts => 3) IS NULL AS x \gset
SELECT pg_temp.append('in_order', 'a b c a b c') IS NULL AS x \gset
SET test.crowd = on;
SELECT is(pg_temp.receive('in_order', 'c1', 5), 'a/1 b/1 c/1 a/2 b/2', 'events');
SELECT is(pg_temp.receive('in_order', 'c2', 5), '(nothing)', 'for one consumer at a time');
SELECT is(pg_temp.nack('c1', 'c/1'), 'halted', 'what fails ends the batch there');
SELECT is(pg_temp.nack('c1', 'a/2'), 'halted', 'what is behind it changes nothing');
SELECT is(pg_temp.nack('c1', 'b/1'), 'halted', 'one before it');
SELECT is((SELECT string_agg(aggregate_id || '/' || sequence, ' ') FROM cqrs_es.nacked_events WHERE sequence = 1 AND aggregate_id = 'b'), 'b/1', 'is what counts');
SELECT is(pg_temp.ack('c1'), 1::bigint, 'what is before it is done');
SELECT is((SELECT position = pg_temp.at('in_order', 'b/1') - 1 AND attempts = 1 AND failed_position = pg_temp.at('in_order', 'b/1') AND error = 'bad b/1' FROM cqrs_es.shares WHERE subscription = 'in_order'), true, 'the position stays before it');
SELECT is(pg_temp.parked('in_order'), '(none)', 'no stream is parked');
SELECT is(pg_temp.receive('in_order', 'c2'), '(nothing)', 'nothing passes it until it is due');
SELECT is((SELECT count(*) FROM cqrs_es.shares WHERE subscription = 'in_order'), 1::bigint, 'there is one share, for however many consumers');
SELECT pg_temp.due('in_order') IS NULL AS x \gset
SELECT is(pg_temp.receive('in_order', 'c2', 2), 'b/1~2 c/1', 'it comes again, with all behind it');
SELECT is(pg_temp.nack('c2', 'b/1'), 'halted', 'and fails again');
SELECT is(pg_temp.dies('c2', 'c1', 2), 'b/1~3', 'death before the ack: attempts that nobody acknowledged count, too');
SELECT is(pg_temp.nack('c1', 'b/1') || pg_temp.ack('c1'), 'halted0', 'for the third time');
SELECT is((SELECT paused || ' ' || stopped_error FROM cqrs_es.subscriptions WHERE name = 'in_order'), 'true bad b/1', 'the subscription stops');
SELECT is(pg_temp.receive('in_order', 'c1'), '(nothing)', 'nothing is handed out');
UPDATE cqrs_es.subscriptions SET paused = false, stopped_error = NULL WHERE name = 'in_order';
SELECT is(pg_temp.drain('in_order', 'c1', 2) LIKE 'b/1%c/1%a/2%b/2%c/2', true, 'until it is resumed: then all comes, in order');
SELECT is((SELECT attempts = 0 AND failed_position IS NULL AND error IS NULL FROM cqrs_es.shares WHERE subscription = 'in_order'), true, 'and what failed is forgotten');

-- an event that no upcaster can lift: nothing at it or behind it is handed out
CREATE FUNCTION public.in_order_lift(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN
	IF payload ? 'bad' THEN RAISE 'cannot lift it'; END IF;
	RETURN payload || '{"lifted": true}';
END $$;
SELECT cqrs_es.define_upcaster('old', '1', '2', 'public.in_order_lift(jsonb)') IS NULL AS x \gset
SELECT cqrs_es.append_event('in_order', 'a', 'old', '{}') IS NULL AS x \gset
SELECT cqrs_es.append_event('in_order', 'b', 'old', '{"bad": 1}') IS NULL AS x \gset
SELECT pg_temp.append('in_order', 'c a') IS NULL AS x \gset
SELECT is(pg_temp.receive('in_order', 'c1'), 'a/3', 'what comes before one that no upcaster can lift');
SELECT is(pg_temp.ack('c1'), 1::bigint, 'is done');
SELECT is((SELECT error || ' ' || attempts || ' ' || (failed_position = pg_temp.at('in_order', 'b/3')) FROM cqrs_es.shares WHERE subscription = 'in_order'), 'cannot lift it 1 true', 'that one has failed');
SELECT pg_temp.due('in_order') IS NULL AS x \gset
SELECT is(pg_temp.receive('in_order', 'c1'), '(nothing)', 'again');
SELECT pg_temp.due('in_order') IS NULL AS x \gset
SELECT is(pg_temp.receive('in_order', 'c1'), '(nothing)', 'and again');
SELECT is((SELECT paused || ' ' || stopped_error FROM cqrs_es.subscriptions WHERE name = 'in_order'), 'true cannot lift it', 'then the subscription stops');

-- the same by stream
SELECT cqrs_es.create_subscription('by_stream', aggregate_types => '{in_order}', start_after => pg_temp.at('in_order', 'c/2'), retry_delay => '1 h', retry_delay_max => '1 h', max_attempts => 2) IS NULL AS x \gset
SELECT cqrs_es.append_event('in_order', 'b', 'e', '{}') IS NULL AS x \gset
UPDATE hands SET subscription = 'in_order';
SELECT is(pg_temp.receive('by_stream', 'c1'), 'a/3 c/3 a/4', 'by stream the others go on, nothing of that stream');
SELECT is(pg_temp.ack('c1') || ' ' || pg_temp.parked('by_stream'), '3 b/3~1', 'which is parked');
SELECT pg_temp.due('by_stream') IS NULL AS x \gset
SELECT is(pg_temp.receive('by_stream', 'c1'), '(nothing)', 'it fails again without any consumer');
SELECT is(pg_temp.letters('by_stream'), 'b/3 blocked', 'for good');
SELECT is((SELECT error FROM cqrs_es.dead_letters WHERE subscription = 'by_stream'), 'cannot lift it', 'with what the upcaster said');
SELECT cqrs_es.append_event('in_order', 'd', 'old', '{"n": 1}') IS NULL AS x \gset
SELECT results_eq($$SELECT event_version, payload FROM cqrs_es.receive_events('by_stream', 'c1')$$, $$VALUES ('2', '{"n": 1, "lifted": true}'::jsonb)$$, 'what can be lifted is');
-- what is not the event's fault is raised
SELECT cqrs_es.append_event('in_order', 'e', 'old', '{"bad": 1}') IS NULL AS x \gset
CREATE OR REPLACE FUNCTION public.in_order_lift(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'no memory' USING ERRCODE = 'out_of_memory'; END $$;
SELECT is(pg_temp.expire('by_stream') IS NULL AND pg_temp.state_of($$SELECT FROM cqrs_es.receive_events('by_stream', 'c1')$$) = '53200', true, 'an error that is not of the event''s is raised');
SELECT is(pg_temp.parked('by_stream'), 'b/3~2 blocked', 'and nothing is noted');
-- nor is what a caller or a deployment lacks
CREATE FUNCTION pg_temp.lift_fails(state text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
	EXECUTE format('CREATE OR REPLACE FUNCTION public.in_order_lift(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS %L', format('BEGIN RAISE ''it lacks something'' USING ERRCODE = %L; END', state));
	RETURN pg_temp.state_of($f$SELECT FROM cqrs_es.receive_events('by_stream', 'c1')$f$);
END $$;
SELECT is(pg_temp.lift_fails(state), state, 'raised: ' || state) FROM unnest('{42501,42883,42P01,3F000}'::text[]) AS state;
SELECT is(pg_temp.parked('by_stream') || pg_temp.letters('by_stream'), 'b/3~2 blockedb/3 blocked', 'nothing is noted of that, either');
SELECT cqrs_es.drop_upcaster('old', '1') IS NULL AS x \gset
DROP FUNCTION public.in_order_lift(jsonb);
-- acknowledged with the next call, which gets nothing before it is due
SELECT cqrs_es.create_subscription('at_once', aggregate_types => '{at_once}', ordering => 'log', retry_delay => '1 h', retry_delay_max => '1 h') IS NULL AS x \gset
SELECT pg_temp.append('at_once', 'a b') IS NULL AS x \gset
SELECT is(pg_temp.receive('at_once', 'c1') || ' ' || pg_temp.nack('c1', 'b/1'), 'a/1 b/1 halted', 'the second fails');
SELECT is_empty($$SELECT FROM cqrs_es.receive_events('at_once', 'c1', ack => pg_temp.batch('c1'))$$, 'an ack that asks for more gets nothing');
SELECT is((SELECT format('%s %s %s', position = pg_temp.at('at_once', 'a/1'), batch IS NULL, attempts) FROM cqrs_es.shares WHERE subscription = 'at_once'), 't t 1', 'and the first is done');
DELETE FROM cqrs_es.shares WHERE subscription IN ('in_order', 'by_stream', 'at_once');
DELETE FROM cqrs_es.subscriptions WHERE name IN ('in_order', 'by_stream', 'at_once');
DELETE FROM cqrs_es.parked_streams;
DELETE FROM cqrs_es.nacked_events;
DELETE FROM cqrs_es.dead_letters;
DELETE FROM cqrs_es.consumers;
