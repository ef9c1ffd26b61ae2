\i test/include/setup.sql
-- New events of a type that has upcasters must name their version: every way in
-- takes it. (What define_upcaster says about that is compared in
-- test/regress/sql/upcast_notices.sql.)
BEGIN;
SELECT plan(10);
CREATE FUNCTION lift(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT jsonb_build_object('count', payload->'quantity') $$;

SELECT cqrs_es.define_upcaster('Packed', '1', '2', 'lift(jsonb)') IS NULL AS x \gset
SELECT cqrs_es.define_upcaster('Packed', '2', '3', 'lift(jsonb)') IS NULL AS x \gset
SELECT cqrs_es.drop_upcaster('Packed', '2') IS NULL AS x \gset
SELECT cqrs_es.define_upcaster('Sent', '2', '3', 'lift(jsonb)') IS NULL AS x \gset
SELECT cqrs_es.define_upcaster('Sent', '1', '2', 'lift(jsonb)') IS NULL AS x \gset
SELECT cqrs_es.define_upcaster('Made', 'V1', 'V2', 'lift(jsonb)') IS NULL AS x \gset

SELECT cqrs_es.create_aggregate('box') IS NULL AS x \gset
SELECT cqrs_es.define_command('box', 'Pack', $$jsonb_build_object('type', 'Packed', 'version', '2', 'payload', command)$$) IS NULL AS x \gset
SELECT cqrs_es.define_command('box', 'PackTwice', $$jsonb_build_array(jsonb_build_object('type', 'Packed', 'version', '2', 'payload', command),
	jsonb_build_object('type', 'Packed', 'payload', '{"quantity": 7}'::jsonb))$$) IS NULL AS x \gset
SELECT is((cqrs_es.append_event('box', 'old', 'Packed', '{"count": 2}')).version, 1::bigint, 'a new shape that names no version');
SELECT is(payload, '{"count": null}', 'is lifted as an old one') FROM cqrs_es.read_stream('box', 'old');
SELECT is((cqrs_es.append_event('box', 'a', 'Packed', '{"count": 2}', event_version => '2')).version, 1::bigint, 'append_event');
SELECT is((cqrs_es.append_events('box', 'a', '[{"type": "Packed", "payload": {"count": 2}, "version": "2"}]')).version, 2::bigint, 'append_events');
SELECT is((cqrs_es.append_event_arrays('box', 'a', '{Packed}', ARRAY['{"count": 2}']::jsonb[], event_versions => '{2}')).version, 3::bigint, 'append_event_arrays');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, event_version, payload) VALUES ('box', 'a', 'Packed', '2', '{"count": 2}');
SELECT is(version, 5::bigint, 'a decider') FROM cqrs_es.execute_command('box', 'a', 'Pack', '{"count": 2}');
SELECT is((SELECT array_agg(DISTINCT event_version || payload) FROM cqrs_es.read_stream('box', 'a')), ARRAY['2{"count": 2}'], 'all of them are read as they were written');
SELECT is(version, 7::bigint, 'a decider of several') FROM cqrs_es.execute_command('box', 'a', 'PackTwice', '{"count": 2}');
SELECT is((SELECT array_agg(payload ORDER BY sequence) FROM cqrs_es.read_stream('box', 'a', 6)), ARRAY['{"count": 2}', '{"count": 7}']::jsonb[], 'each event has its own');
SELECT is(state, '{"count": 7}', 'so has the state') FROM cqrs_es.load_aggregate('box', 'a');
SELECT finish();
ROLLBACK;
