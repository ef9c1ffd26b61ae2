\i test/include/setup.sql
-- Events of a subscription are received in batches: a batch is atomic, and takes effect
-- when it is acknowledged.
\i test/include/consumer.sql
SELECT plan(62);
SELECT pg_temp.append('receive', 'a b a c a b') IS NULL AS x \gset
SELECT pg_temp.append('other', 'a b') IS NULL AS x \gset
SELECT cqrs_es.create_subscription('receive', aggregate_types => '{receive}', retry_delay => '1 h', retry_delay_max => '1 day', max_attempts => 3) IS NULL AS x \gset

-- the way it goes
SELECT is(pg_temp.receive('receive', 'c1', 4), 'a/1 b/1 a/2 c/1', 'events by position, up to max_count, of the filter');
SELECT is(pg_temp.receive('receive', 'c2'), '(nothing)', 'they are in hand: another consumer gets none');
SELECT is(pg_temp.receive('receive', 'c1'), '(nothing)', 'nor does the same one');
SELECT is((SELECT count(*) FROM cqrs_es.shares WHERE subscription = 'receive' AND position = 0 AND batch_kind = 'cursor' AND batch_count = 4), 1::bigint, 'nothing has happened before the ack');
SELECT is(pg_temp.ack('c1'), 4::bigint, 'the ack says how many are done');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.ack_events(%L)', pg_temp.batch('c1'))), 'QE401', 'a second ack: the batch is not in hand any more');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.nack_event(%L, %s, NULL)', pg_temp.batch('c1'), pg_temp.at('receive', 'a/1'))), 'QE401', 'nor is there anything to nack');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.extend_lease(%L)', pg_temp.batch('c1'))), 'QE401', 'or to extend');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.release_batch(%L)', pg_temp.batch('c1'))), 'QE401', 'or to release');
SELECT is(pg_temp.state_of('SELECT cqrs_es.ack_events(gen_random_uuid())'), 'QE401', 'a token that was never given');
SELECT is(pg_temp.receive('receive', 'c2'), 'a/3 b/2', 'the rest');
SELECT is(pg_temp.ack('c2'), 2::bigint, 'all of it');
SELECT is(pg_temp.receive('receive', 'c1'), '(nothing)', 'until there is more');
SELECT pg_temp.append('receive', 'a b') IS NULL AS x \gset
SELECT is(pg_temp.receive('receive', 'c1', 1), 'a/4', 'one');
SELECT is((SELECT string_agg(aggregate_id || '/' || sequence, ' ') FROM cqrs_es.receive_events('receive', 'c1', 10, pg_temp.batch('c1'))), 'b/3', 'acknowledged with the next call');
SELECT is((SELECT batch_count || ' ' || consumer FROM cqrs_es.shares WHERE subscription = 'receive'), '1 c1', 'which is in hand then');
SELECT is(pg_temp.dies('c1', 'c2'), 'b/3~2', 'a lease that is over: handed out again');
SELECT is(pg_temp.ack('c2'), 1::bigint, 'to another one');

-- the row of an event
SELECT pg_temp.append('receive', 'a') IS NULL AS x \gset
DELETE FROM cqrs_es.consumers WHERE subscription = 'receive';
SELECT * FROM cqrs_es.receive_events('receive', 'c1') \gset got_
SELECT is(:'got_batch'::uuid, (SELECT batch FROM cqrs_es.shares WHERE subscription = 'receive'), 'batch');
SELECT is((SELECT leased_until - :'got_leased_until' BETWEEN interval '0' AND '5 s' FROM cqrs_es.shares WHERE subscription = 'receive'), true, 'leased_until, on the safe side');
SELECT cmp_ok(:'got_leased_until'::timestamptz - clock_timestamp(), '>', interval '20 s', 'about as long as the lease is');
SELECT is(ROW(:'got_global_position', :'got_sequence', :'got_created_at', :'got_event_id', :'got_tenant_id', :'got_aggregate_type', :'got_aggregate_id', :'got_event_type', :'got_event_version', :'got_payload', :'got_metadata')::text,
	(SELECT e FROM cqrs_es.read_stream('receive', 'a', 5) e)::text, 'the columns of the event');
SELECT is(:'got_attempt' || :'got_redriven', '1f', 'the first time, not redriven');
SELECT is(pg_typeof(cqrs_es.extend_lease(:'got_batch', '1 h'))::text, 'timestamp with time zone', 'extend_lease');
SELECT cmp_ok((SELECT leased_until - clock_timestamp() FROM cqrs_es.shares WHERE subscription = 'receive'), '>', interval '50 min', 'by as much as is said');
SELECT is(cqrs_es.extend_lease(:'got_batch') < clock_timestamp() + interval '40 s', true, 'by default the lease of the subscription, from now on');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.extend_lease(%L, %L)', :'got_batch', i)), '22023', 'not by ' || i) FROM (VALUES ('0'), ('-1 s')) v (i);
SELECT is(cqrs_es.release_batch(:'got_batch')::text, '', 'release_batch');
SELECT is(pg_temp.receive('receive', 'c2'), 'a/5', 'nothing of it was done, and nobody died: the first attempt');
SELECT is(pg_temp.ack('c2'), 1::bigint, 'done');

-- what failed: nothing happens before the ack
SELECT pg_temp.append('receive', 'a a a b b c') IS NULL AS x \gset
SELECT is(pg_temp.receive('receive', 'c1'), 'a/6 a/7 a/8 b/4 b/5 c/2', 'six events of three streams');
SELECT is(pg_temp.nack('c1', 'a/7'), 'retry', 'the second of a stream fails');
SELECT is(pg_temp.parked('receive'), '(none)', 'which is noted and nothing more');
SELECT is(pg_temp.nack('c1', 'a/7'), 'retry', 'said twice');
SELECT is((SELECT attempts FROM cqrs_es.nacked_events), 1, 'it counts once');
SELECT is(pg_temp.nack('c1', 'a/8'), 'retry', 'one behind it in its stream');
SELECT is((SELECT string_agg(sequence::text, ' ') FROM cqrs_es.nacked_events), '7', 'changes nothing');
SELECT is(pg_temp.nack('c1', 'b/5'), 'retry', 'one of another stream');
SELECT is(pg_temp.nack('c1', 'b/4'), 'retry', 'one before that');
SELECT is((SELECT string_agg(aggregate_id || '/' || sequence, ' ' ORDER BY global_position) FROM cqrs_es.nacked_events), 'a/7 b/4', 'takes its place');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.nack_event(%L, %s, NULL)', pg_temp.batch('c1'), pg_temp.at('receive', 'a/5'))), '22023', 'an event before the batch is not in hand');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.nack_event(%L, %s, NULL)', pg_temp.batch('c1'), pg_temp.at('other', 'b/1'))), '22023', 'nor is one that the filter leaves out');
SELECT pg_temp.append('receive', 'a') IS NULL AS x \gset
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.nack_event(%L, %s, NULL)', pg_temp.batch('c1'), pg_temp.at('receive', 'a/9'))), '22023', 'nor one behind it');
SELECT is(pg_temp.dies('c1', 'c2'), 'a/6~2 a/7~2 a/8~2', 'the consumer dies before the ack: all comes again, half of it, the first of a stream before what failed');
SELECT is(pg_temp.ack('c2'), 3::bigint, 'the other one can do it: the nack has had no effect');
SELECT is(pg_temp.parked('receive'), '(none)', 'nothing is parked');
SELECT is(pg_temp.receive('receive', 'c1'), 'b/4~2 b/5~2 c/2~2', 'the other half');
SELECT is(pg_temp.nack('c1', 'b/4'), 'retry', 'fails again');
SELECT is(pg_temp.ack('c1'), 1::bigint, 'one is done');
SELECT is(pg_temp.parked('receive'), 'b/4~1', 'the stream is parked with the event that failed');
SELECT is(pg_temp.drain('receive', 'c1'), 'a/9 b/4~2 b/5', 'the others go on, and then what was parked');
SELECT is((SELECT suspect_end IS NULL AND batch_limit IS NULL AND deliveries = 0 AND lost_by IS NULL FROM cqrs_es.shares WHERE subscription = 'receive'), true, 'nothing is suspect any more');

-- refusals
SELECT is(pg_temp.state_of('SELECT * FROM cqrs_es.receive_events(''none'', ''c'')'), 'QE402', 'no such subscription');
SELECT is(pg_temp.state_of('SELECT * FROM cqrs_es.receive_events(' || args || ')'), state, args) FROM (VALUES ('NULL, ''c''', '22004'), ('''receive'', NULL', '22004'),
	('''receive'', ''''', '22023'), ('''receive'', ''c'', 0', '22023'), ('''receive'', ''c'', -1', '22023')) v (args, state);
SELECT is(pg_temp.state_of('SELECT cqrs_es.ack_events(NULL)'), '22004', 'no batch');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is(pg_temp.state_of('SELECT * FROM cqrs_es.receive_events(''receive'', ''c'')'), '25001', 'above READ COMMITTED it is refused');
ROLLBACK;
BEGIN READ ONLY;
SELECT is(pg_temp.state_of('SELECT * FROM cqrs_es.receive_events(''receive'', ''c'')'), '25006', 'in a read-only transaction, too');
ROLLBACK;
DELETE FROM cqrs_es.shares WHERE subscription = 'receive';
DELETE FROM cqrs_es.subscriptions WHERE name = 'receive';
DELETE FROM cqrs_es.parked_streams WHERE subscription = 'receive';
DELETE FROM cqrs_es.nacked_events;
DELETE FROM cqrs_es.consumers WHERE subscription = 'receive';
