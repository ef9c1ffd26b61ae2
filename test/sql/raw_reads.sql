\i test/include/setup.sql
-- An upcaster that fails on one old event: what the error says, and how readers get past it. (Committed, since
-- read_all hands out nothing that is not.)

SELECT plan(11);
CREATE FUNCTION public.lift_raw(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb_build_object('amount', (payload->>'amount')::numeric)$$;
CREATE FUNCTION pg_temp.position_of(n bigint) RETURNS bigint LANGUAGE sql AS
	$$SELECT global_position FROM cqrs_es.events WHERE aggregate_type = 'raw' AND sequence = n$$;
SELECT version FROM cqrs_es.append_events('raw', 'up', '[{"type": "raw lifted", "payload": {"amount": "1"}}, {"type": "raw lifted", "payload": {"amount": "x"}}, {"type": "raw lifted", "payload": {"amount": "3"}}]') \gset
SET client_min_messages = warning;
SELECT cqrs_es.define_upcaster('raw lifted', '1', '2', 'lift_raw(jsonb)') IS NULL AS x, cqrs_es.create_aggregate('raw') IS NULL AS y \gset

SELECT is(pg_temp.error_of($$SELECT * FROM cqrs_es.read_all(aggregate_types => '{raw}')$$, '{state,schema,table,column,datatype}'),
	ARRAY['22P02', 'raw', 'up', '2', pg_temp.position_of(2)::text], 'the error has stream, sequence and position in its fields');
SELECT is((pg_temp.error_of(format('SELECT * FROM cqrs_es.%s', call), '{datatype}'))[1], pg_temp.position_of(2)::text, call) FROM (VALUES
	($$read_page(0, NULL, '{raw}')$$), ($$read_stream('raw', 'up')$$), ($$load_aggregate('raw', 'up')$$)) c (call);
SELECT is((SELECT array_agg(payload->>'amount') FROM cqrs_es.read_all(pg_temp.position_of(1), aggregate_types => '{raw}', raw => true)), '{x,3}', 'a raw read does not lift');
SELECT is((SELECT format('%s %s', event_version, payload) FROM cqrs_es.read_all(pg_temp.position_of(2) - 1, 1, raw => true)), '1 {"amount": "x"}', 'it gives what is stored');
SELECT is((SELECT format('%s %s', payload->>'amount', read_to) FROM cqrs_es.read_page(pg_temp.position_of(2) - 1, 1, raw => true)), 'x ' || pg_temp.position_of(2), 'a page says where to go on');
SELECT is((SELECT array_agg(payload->>'amount') FROM cqrs_es.read_stream('raw', 'up', raw => true)), '{1,x,3}', 'a stream');
SELECT is((SELECT array_agg(payload->>'amount') FROM cqrs_es.read_stream('raw', 'up', backward => true, raw => true)), '{3,x,1}', 'backward');
SELECT is((SELECT event_version FROM cqrs_es.read_all(pg_temp.position_of(2), 1, '{raw}')), '2', 'behind it a reader goes on');
SELECT throws_ok($$SELECT * FROM cqrs_es.read_all(0, aggregate_types => '{raw}', raw => NULL)$$, '22P02', NULL, 'null is not raw');

SELECT cqrs_es.drop_upcaster('raw lifted', '1') IS NULL AS x, cqrs_es.drop_aggregate('raw', force => true) IS NULL AS y \gset
DROP FUNCTION public.lift_raw;
SELECT * FROM finish();
