\i test/include/setup.sql
-- Subscriptions to the events that have certain tags. Not in a transaction: nobody gets events of their own that may roll back.
SELECT plan(42);
CREATE TEMP TABLE hands (consumer text PRIMARY KEY, batch uuid);
CREATE FUNCTION pg_temp.take(called text, consumer text, most int DEFAULT 100) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	taken text;
	token uuid;
BEGIN
	SELECT string_agg(concat(aggregate_id, sequence), ' ' ORDER BY global_position), min(r.batch::text)::uuid INTO taken, token
	FROM cqrs_es.receive_events(called, consumer, most) AS r;
	INSERT INTO hands VALUES (consumer, token) ON CONFLICT ON CONSTRAINT hands_pkey DO UPDATE SET batch = token;
	RETURN taken;
END $$;
CREATE FUNCTION pg_temp.ack(who text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN cqrs_es.ack_events((SELECT batch FROM hands WHERE consumer = who));
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION pg_temp.fail(who text, id text, n bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN cqrs_es.nack_event((SELECT batch FROM hands WHERE consumer = who), (SELECT global_position FROM cqrs_es.events WHERE aggregate_type = 'st' AND aggregate_id = id AND sequence = n), 'bad');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION pg_temp.letters(called text) RETURNS text LANGUAGE sql AS
	$$SELECT string_agg(concat_ws(' ', aggregate_id || sequence, state, reason), ', ' ORDER BY id) FROM cqrs_es.subscription_dead_letters WHERE subscription = called$$;
CREATE FUNCTION pg_temp.said(call text) RETURNS text LANGUAGE sql AS
	$$SELECT array_to_string((pg_temp.error_of('SELECT cqrs_es.' || call))[1:2], ': ')$$;
CREATE FUNCTION pg_temp.put(id text, tags text[], type text DEFAULT 'st: plain') RETURNS void LANGUAGE sql AS
	$$SELECT cqrs_es.append_event('st', id, type, '{}', tags => put.tags)$$;
SELECT coalesce(max(global_position), 0) AS start FROM cqrs_es.events \gset
-- red: a1 a3 b2 c1; red and big: a3 c1; a2 b1 have others, or none
SELECT pg_temp.put(id, tags::text[]) IS NULL AS x FROM (VALUES (1, 'a', '{st:red}'), (2, 'a', '{st:blue}'), (3, 'b', '{}'), (4, 'a', '{st:big,st:red}'), (5, 'b', '{st:red,st:blue}'), (6, 'c', '{st:red,st:big}')) AS e (n, id, tags) ORDER BY n \g /dev/null

-- declared
SELECT is(pg_temp.said(format($$create_subscription('st', start_after => %s, lease => '1 hour', max_attempts => 1, tags => '{st:red}')$$, :start)), NULL, 'with a tag');
SELECT is(pg_temp.said($$create_subscription('st', lease => '1 hour', max_attempts => 1, tags => '{st:red,st:red}')$$), NULL, 'the same again');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.create_subscription('st', lease => '1 hour', max_attempts => 1, tags => '{st:red,st:big}')$$, '{state,detail}'), '{42710,"Its tags is {st:red}."}', 'others are another one');
SELECT is((SELECT tags::text FROM cqrs_es.subscription_status WHERE name = 'st'), '{st:red}', 'shown');
SELECT is(pg_temp.said(call), said, call) FROM (VALUES
	($$create_subscription('n', tags => '{}')$$, '22023: tags must not be empty'),
	($$create_subscription('n', tags => '{NULL}')$$, '22004: tag must not be null'),
	($$create_subscription('n', tags => '{""}')$$, '22023: tag must not be empty'),
	($$create_subscription('n', tags => '{{a},{b}}')$$, '2202E: tags must be a one-dimensional array'),
	($$create_subscription('n', tags => ARRAY[repeat('x', 256)])$$, '22001: tag is too long'),
	($$alter_subscription('st', tags => '{NULL}')$$, '22004: tag must not be null')) AS n (call, said);

-- handed out
SELECT is((SELECT lag_events FROM cqrs_es.subscription_status WHERE name = 'st'), 4::bigint, 'what is to be handed out');
SELECT is(pg_temp.take('st', 'one', 2), 'a1 a3', 'those that have it');
SELECT is(pg_temp.fail('one', 'a', 2), '22023', 'what has not is not in hand');
SELECT is(pg_temp.ack('one'), '2', 'done');
SELECT is(pg_temp.take('st', 'one'), 'b2 c1', 'the next');
SELECT is(pg_temp.ack('one'), '2', 'done');
SELECT pg_temp.put('b', '{st:blue}') IS NULL AS x \gset
SELECT is(pg_temp.take('st', 'one'), NULL, 'nothing more');
CALL cqrs_es.wait_for_events('st', timeout => '0') \g /dev/null
SELECT pg_temp.put('b', '{st:red}') IS NULL AS x \gset
CALL cqrs_es.wait_for_events('st', timeout => '10 s') \gset
SELECT is(:'ready'::text, 't', 'one that has it is waited for');
-- parked: what its stream brings meanwhile is of both kinds
SELECT is(pg_temp.take('st', 'one') || pg_temp.fail('one', 'b', 4) || pg_temp.ack('one'), 'b4blocked0', 'one fails for good');
SELECT pg_temp.put('b', tags::text[]) IS NULL AS x FROM (VALUES (1, '{st:blue}'), (2, '{st:red,st:big}')) AS e (n, tags) ORDER BY n \g /dev/null
SELECT pg_temp.put('a', '{st:red}') IS NULL AS x \gset
SELECT is(pg_temp.take('st', 'one') || pg_temp.ack('one'), 'a41', 'its stream is blocked');
SELECT is(cqrs_es.redrive('st'), 1::bigint, 'redriven');
SELECT is(pg_temp.take('st', 'one'), 'b4 b6', 'its stream, without those that lack the tag');
SELECT is(pg_temp.fail('one', 'b', 4) || pg_temp.ack('one'), 'blocked0', 'it fails again');

-- other tags
SELECT pg_temp.put('a', '{st:red}') IS NULL AS x \gset
SELECT is(pg_temp.take('st', 'one'), 'a5', 'in hand');
SELECT cqrs_es.alter_subscription('st', lease => '2 hours', tags => NULL) IS NULL AS x \gset
SELECT cqrs_es.alter_subscription('st', tags => '{st:red,st:red}') IS NULL AS x \gset
SELECT is(pg_temp.fail('one', 'a', 5), 'blocked', 'the same tags: still in hand');
SELECT cqrs_es.alter_subscription('st', tags => '{st:red,st:big}') IS NULL AS x \gset
SELECT is(pg_temp.ack('one') || ' ' || pg_temp.letters('st'), 'QE401 b4 discarded filter changed', 'others take it back, and what lacks them blocks nothing');
SELECT is(pg_temp.take('st', 'one') || pg_temp.ack('one'), 'b61', 'its stream goes on');
SELECT is(pg_temp.take('st', 'one'), NULL, 'a5 is left out');
SELECT cqrs_es.alter_subscription('st', tags => '{}') IS NULL AS x \gset
SELECT is((SELECT tags FROM cqrs_es.subscriptions WHERE name = 'st'), NULL, 'no tags any more');
SELECT cqrs_es.reset_subscription('st', :start) IS NULL AS x \gset
SELECT is(pg_temp.take('st', 'one') || pg_temp.ack('one'), 'a1 a2 b1 a3 b2 c1 b3 b4 b5 b6 a4 a512', 'then all');

-- in the order of the log, of all tenants, with types beside
SELECT set_config('cqrs_es.tenant_id', 'st blue', false) IS NULL AS x \gset
SELECT pg_temp.put('t', '{st:red}', 'st: other') IS NULL AS x \gset
SELECT set_config('cqrs_es.tenant_id', '', false) IS NULL AS x \gset
SELECT pg_temp.put('t', '{st:red}', 'st: other') IS NULL AS x \gset
SELECT cqrs_es.create_subscription('st all', start_after => :start, ordering => 'log', all_tenants => true, event_types => '{st: other}', tags => '{st:red}') IS NULL AS x \gset
SELECT is(pg_temp.take('st all', 'one') || pg_temp.ack('one'), 't1 t12', 'of all tenants');

-- waiting without a subscription
SELECT max(global_position) AS last FROM cqrs_es.events \gset
SELECT pg_temp.put('w', '{st:blue}') IS NULL AS x \gset
CALL cqrs_es.wait_for_events(after_position => :last, timeout => '0', tags => '{st:red}') \gset
SELECT is(:'ready'::text, 'f', 'one that lacks it is not waited for');
SELECT pg_temp.put('w', '{st:red}') IS NULL AS x \gset
CALL cqrs_es.wait_for_events(after_position => :last, timeout => '10 s', tags => '{st:red}') \gset
SELECT is(:'ready'::text, 't', 'one that has it is');
\set statements 'CALL cqrs_es.wait_for_events(\'st\', tags => \'{st:red}\');'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  22023', 'a subscription has tags of its own');

-- tags that are defined when there are such events
SELECT cqrs_es.create_subscription('st old', start_after => :start, tags => '{st:old}', lease => '1 hour') IS NULL AS x \gset
SELECT pg_temp.put('o', '{}', 'st: old') IS NULL AS x FROM generate_series(1, 3) \g /dev/null
SELECT cqrs_es.create_subscription('st new', start_at_end => true, tags => '{st:old}', lease => '1 hour') IS NULL AS x \gset
SET client_min_messages = error;
SELECT cqrs_es.define_tags('st: old', 'st:old') IS NULL AS x \gset
SET client_min_messages = warning;
SELECT is(pg_temp.said($$receive_events('st old', 'one')$$), '55000: older events of type "st: old" may lack tag "st:old"', 'who would pass them is refused');
SELECT is((SELECT position FROM cqrs_es.shares WHERE subscription = 'st old'), :start::bigint, '... and stays where it is');
\set statements 'CALL cqrs_es.wait_for_events(after_position => 0, timeout => \'0\', tags => \'{st:old}\');'
\i test/include/session.sql
SELECT is(:'answer'::text, 'ERROR:  55000', 'also who waits');
SELECT pg_temp.put('o', '{}', 'st: old') IS NULL AS x \gset
SELECT is(pg_temp.take('st new', 'one') || pg_temp.ack('one'), 'o41', 'who is behind them goes on');
CALL cqrs_es.retag('st: old', 1);
SELECT is(pg_temp.take('st old', 'one') || pg_temp.ack('one'), 'o1 o2 o3 o44', 'then all come');
-- what was passed before the tags were defined is passed
SELECT is(pg_temp.take('st new', 'one'), NULL, 'and who was behind them does not get them');
SELECT cqrs_es.drop_tags('st: old') IS NULL AS x \gset
SELECT pg_temp.put('o', '{}', 'st: old') IS NULL AS x \gset
SELECT is(concat(pg_temp.take('st new', 'one'), pg_temp.take('st old', 'one')), '', 'what gets no tags any more does not come');

SELECT cqrs_es.drop_subscription(name) FROM cqrs_es.subscriptions WHERE name LIKE 'st%' \g /dev/null
SELECT is((SELECT count(*) FROM cqrs_es.subscriptions WHERE name LIKE 'st%'), 0::bigint, 'nothing is left');
SELECT * FROM finish();
