\i test/include/setup.sql
-- More parked streams than are remembered at once: each is looked up when an event of it comes.
SELECT plan(7);
SELECT cqrs_es.create_subscription('many', aggregate_types => '{many}', retry_delay => '1 h', retry_delay_max => '1 h') IS NULL AS x \gset
SELECT count(cqrs_es.append_event('many', i::text, 'e', '{}')) AS x FROM generate_series(1, 1100) AS i \gset
CREATE TEMP TABLE hands AS SELECT batch, global_position, aggregate_id::int AS i FROM cqrs_es.receive_events('many', 'c', 2000);
SELECT is((SELECT count(*) FROM hands), 1100::bigint, 'a batch of many streams');
SELECT count(cqrs_es.nack_event(batch, global_position, 'bad')) AS x FROM hands WHERE i <= 1050 \gset
SELECT is(cqrs_es.ack_events(batch), 50::bigint, 'most of them fail') FROM hands LIMIT 1;
SELECT is((SELECT count(*) FROM cqrs_es.parked_streams WHERE subscription = 'many'), 1050::bigint, 'and are parked');

SELECT count(cqrs_es.append_event('many', i::text, 'e', '{}')) AS x FROM generate_series(1041, 1050) AS i \gset
CALL cqrs_es.wait_for_events('many', timeout => '0') \gset
SELECT is(:'ready'::boolean, false, 'what comes behind a failed event waits with it: there is nothing to wait for');
SELECT is_empty($$SELECT FROM cqrs_es.receive_events('many', 'c')$$, 'and nothing to receive');
SELECT count(cqrs_es.append_event('many', i::text, 'e', '{}')) AS x FROM generate_series(1046, 1055) AS i \gset
CALL cqrs_es.wait_for_events('many', timeout => '0') \gset
SELECT is(:'ready'::boolean, true, 'of other streams there is');
SELECT is((SELECT string_agg(aggregate_id, ' ' ORDER BY global_position) FROM cqrs_es.receive_events('many', 'c')), '1051 1052 1053 1054 1055', 'just these');
SELECT * FROM finish();
SELECT cqrs_es.drop_subscription('many') IS NULL AS x \gset
