\i test/include/setup.sql
-- Streams that have waited and come by the position again: nothing of them is passed over meanwhile.
\i test/include/consumer.sql
SELECT plan(9);
CREATE FUNCTION public.rejoined_lift(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN
	IF current_setting('test.heals', true) IS DISTINCT FROM 'on' THEN RAISE 'cannot lift it'; END IF;
	RETURN payload;
END $$;
SELECT cqrs_es.define_upcaster('rejoined old', '1', '2', 'public.rejoined_lift(jsonb)') IS NULL AS x \gset

-- the call in which a stream comes back ends early, since another one fails for good
SELECT cqrs_es.create_subscription('rejoined', aggregate_types => '{rejoined}', on_failure => 'stop', retry_delay => '1 h', retry_delay_max => '1 h', max_attempts => 2) IS NULL AS x \gset
SELECT pg_temp.append('rejoined', 'x') IS NULL AS x, cqrs_es.append_event('rejoined', 'y', 'rejoined old', '{}', event_version => '1') IS NULL AS y \gset
SELECT is(pg_temp.receive('rejoined', 'c'), 'x/1', 'one event, and one that cannot be lifted');
SELECT is(pg_temp.nack('c', 'x/1') || ' ' || pg_temp.ack('c') || ', ' || pg_temp.parked('rejoined'), 'retry 0, x/1~1, y/1~1', 'both streams wait');
UPDATE cqrs_es.parked_streams SET retry_at = clock_timestamp() WHERE subscription = 'rejoined' AND aggregate_id = 'x';
SELECT is(pg_temp.receive('rejoined', 'c') || ' ' || pg_temp.ack('c') || ', ' || pg_temp.parked('rejoined'), 'x/1~2 1, x/2, y/1~1', 'one of them is through');
SELECT pg_temp.append('rejoined', 'x') IS NULL AS x \gset
SELECT pg_temp.due('rejoined') IS NULL AS x \gset
UPDATE cqrs_es.shares SET position_at = clock_timestamp() - interval '1 min' WHERE subscription = 'rejoined';
SELECT is(pg_temp.receive('rejoined', 'c'), '(nothing)', 'it comes back, and the other one fails');
SELECT is((SELECT stopped_error FROM cqrs_es.subscriptions WHERE name = 'rejoined'), 'cannot lift it', 'so the subscription stops');
SELECT is(pg_temp.parked('rejoined'), 'y/1', 'which still waits');
SET test.heals = on;
SELECT cqrs_es.resume_subscription('rejoined') IS NULL AS x \gset
SELECT is(pg_temp.sorted(pg_temp.drain('rejoined', 'c')), 'x/2 y/1', 'both come when it goes on');
SELECT is(pg_temp.parked('rejoined'), '(none)', 'and wait no more');
SELECT is(pg_temp.receive('rejoined', 'c'), '(nothing)', 'that is all');

SELECT cqrs_es.drop_upcaster('rejoined old', '1') IS NULL AS x \gset
DROP FUNCTION public.rejoined_lift(jsonb);
SELECT cqrs_es.drop_subscription('rejoined') IS NULL AS x \gset
