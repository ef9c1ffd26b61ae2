\i test/include/setup.sql
-- Restored events may share a position: what a subscription hands out of them, and which of them failed.
\i test/include/consumer.sql
SELECT plan(27);
-- one more event at the position of another one, as a restore below the triggers brings it
CREATE FUNCTION pg_temp.tie(aggregate_type text, id text, sequence bigint, beside text, event_type text DEFAULT 'e', payload jsonb DEFAULT '{}') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL session_replication_role = replica;
	INSERT INTO cqrs_es.events (global_position, sequence, created_at, event_id, tenant_id, aggregate_type, aggregate_id, event_type, event_version, payload, metadata)
	SELECT e.global_position, $3, e.created_at, gen_random_uuid(), e.tenant_id, e.aggregate_type, $2, $5, '1', $6, '{}'
	FROM cqrs_es.events e WHERE e.aggregate_type = $1 AND e.aggregate_id = split_part($4, '/', 1) AND e.sequence = split_part($4, '/', 2)::bigint;
	SET LOCAL session_replication_role = origin;
END $$;
CREATE FUNCTION pg_temp.id_of(aggregate_type text, event text) RETURNS uuid LANGUAGE sql AS $$
	SELECT event_id FROM cqrs_es.events WHERE aggregate_type = $1 AND aggregate_id = split_part($2, '/', 1) AND sequence = split_part($2, '/', 2)::bigint
$$;
CREATE FUNCTION pg_temp.nack_one(consumer text, event text) RETURNS text LANGUAGE sql AS $$
	SELECT cqrs_es.nack_event(h.batch, pg_temp.at(h.subscription, $2), 'bad ' || $2, event_id => pg_temp.id_of(h.subscription, $2)) FROM hands h WHERE h.consumer = $1
$$;

SELECT cqrs_es.create_subscription('tied', aggregate_types => '{tied}', retry_delay => '1 h', retry_delay_max => '1 h', max_attempts => 3) IS NULL AS x \gset
SELECT pg_temp.append('tied', 'a b') IS NULL AS x \gset
SELECT pg_temp.tie('tied', 'c', 1, 'a/1') IS NULL AS x \gset
SELECT is((SELECT string_agg(CASE WHEN read_to = global_position THEN 'to them' WHEN read_to < global_position THEN 'before them' END, ', ' ORDER BY read_to)
	FROM cqrs_es.read_page(aggregate_types => '{tied}') WHERE global_position <= pg_temp.at('tied', 'a/1')), 'before them, to them', 'who reads a page and stops between the two goes on before both');
SELECT is((SELECT string_agg(aggregate_id, ' ' ORDER BY aggregate_id) FROM cqrs_es.read_page((SELECT min(read_to) FROM cqrs_es.read_page(aggregate_types => '{tied}')), aggregate_types => '{tied}')), 'a b c', 'and has all of them');
SELECT is(pg_temp.sorted(pg_temp.receive('tied', 'c', 1)), 'a/1 c/1', 'both of one position, though one is asked for');
SELECT is(pg_temp.error_of(format('SELECT cqrs_es.nack_event(%L, %s, %L)', pg_temp.batch('c'), pg_temp.at('tied', 'a/1'), 'bad')),
	ARRAY['22023', format('there are several events at position %s in the batch', pg_temp.at('tied', 'a/1')), '', 'Say which is meant by its event_id.'], 'which of them failed has to be said');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.nack_event(%L, %s, %L, event_id => %L)', pg_temp.batch('c'), pg_temp.at('tied', 'a/1'), 'bad', pg_temp.id_of('tied', 'b/1'))), '22023', 'the id of an event at another position is none');
SELECT is(pg_temp.nack_one('c', 'c/1'), 'retry', 'one of them');
SELECT is(pg_temp.ack('c') || ', ' || pg_temp.parked('tied'), '1, c/1~1', 'the other one is done');
SELECT is(pg_temp.receive('tied', 'c'), 'b/1', 'what lies behind them');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.nack_event(%L, %s, %L, event_id => %L)', pg_temp.batch('c'), pg_temp.at('tied', 'b/1'), 'bad', pg_temp.id_of('tied', 'c/1'))), '22023', 'an event at another position, again');
SELECT is(pg_temp.nack_one('c', 'b/1'), 'retry', 'the id of the only one may be said');
SELECT is(pg_temp.ack('c') || ', ' || pg_temp.parked('tied'), '0, b/1~1, c/1~1', 'it has failed');
SELECT pg_temp.due('tied') IS NULL AS x \gset
SELECT is(pg_temp.sorted(pg_temp.receive('tied', 'c')), 'b/1~2 c/1~2', 'parked streams: of the two only the one that failed');
SELECT is(pg_temp.nack('c', 'c/1'), 'retry', 'it is the only one of its position in this batch, so the position says it');
SELECT is(pg_temp.ack('c') || ', ' || pg_temp.parked('tied'), '1, b/2, c/1~2', 'and it fails again');
SELECT pg_temp.due('tied') IS NULL AS x \gset
SELECT is(pg_temp.drain('tied', 'c'), 'c/1~3', 'and is done in the end');

-- both in one stream
SELECT pg_temp.append('tied', 'd') IS NULL AS x \gset
SELECT pg_temp.tie('tied', 'd', 2, 'd/1') IS NULL AS x \gset
SELECT is(pg_temp.receive('tied', 'c', 1), 'd/1 d/2', 'both of one stream');
SELECT is(pg_temp.nack_one('c', 'd/2'), 'retry', 'the second fails');
SELECT is(pg_temp.ack('c') || ', ' || pg_temp.parked('tied'), '1, d/2~1', 'the first is done');
SELECT pg_temp.due('tied') IS NULL AS x \gset
SELECT is(pg_temp.drain('tied', 'c'), 'd/2~2', 'the second comes again');

-- in the order of the log, where one of them cannot be lifted
CREATE FUNCTION public.tied_lift(payload jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN
	IF payload ? 'bad' AND current_setting('test.heals', true) IS DISTINCT FROM 'on' THEN RAISE 'cannot lift it'; END IF;
	RETURN payload;
END $$;
SELECT cqrs_es.define_upcaster('tied old', '1', '2', 'public.tied_lift(jsonb)') IS NULL AS x \gset
SELECT cqrs_es.create_subscription('tied_log', aggregate_types => '{tied_log}', ordering => 'log', retry_delay => '1 h', retry_delay_max => '1 h', max_attempts => 3) IS NULL AS x \gset
SELECT pg_temp.append('tied_log', 'a b c d') IS NULL AS x \gset
SELECT pg_temp.tie('tied_log', 'x', 1, 'c/1', 'tied old', '{"bad": 1}') IS NULL AS x \gset
SELECT is(pg_temp.receive('tied_log', 'c'), 'a/1 b/1', 'what comes before the position of one that cannot be lifted');
SELECT is(pg_temp.ack('c'), 2::bigint, 'is done');
SELECT is((SELECT position = pg_temp.at('tied_log', 'c/1') - 1 AND error = 'cannot lift it' FROM cqrs_es.shares WHERE subscription = 'tied_log'), true, 'nothing passes it');
SELECT pg_temp.due('tied_log') IS NULL AS x \gset
SELECT is(pg_temp.receive('tied_log', 'c'), '(nothing)', 'nor what shares its position');
SELECT is((SELECT position = pg_temp.at('tied_log', 'c/1') - 1 AND attempts = 2 FROM cqrs_es.shares WHERE subscription = 'tied_log'), true, 'which it has not been passed by');
SET test.heals = on;
SELECT pg_temp.due('tied_log') IS NULL AS x \gset
SELECT is(pg_temp.receive('tied_log', 'c') LIKE 'c/1~_ x/1~_ d/1', true, 'when it can be lifted all of them come');
SELECT is(pg_temp.nack_one('c', 'x/1'), 'halted', 'one of them fails');
SELECT is(pg_temp.ack('c') || ' ' || (SELECT position = pg_temp.at('tied_log', 'c/1') - 1 FROM cqrs_es.shares WHERE subscription = 'tied_log'), '0 true', 'both come again');

SELECT cqrs_es.drop_upcaster('tied old', '1') IS NULL AS x \gset
DROP FUNCTION public.tied_lift(jsonb);
SELECT cqrs_es.drop_subscription(name) IS NULL AS x FROM unnest('{tied,tied_log}'::text[]) AS name \g /dev/null
