\i test/include/setup.sql
-- Who may not call a reducer or an upcaster is told that, and of the grant: it is no
-- fault of the event, and the stream is not poisoned.
BEGIN;
SELECT plan(9);
SET LOCAL client_min_messages = error;
CREATE FUNCTION sr_reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF event.payload ? 'denied' THEN RAISE insufficient_privilege USING MESSAGE = 'not for you'; END IF;
	RETURN state;
END $$;
CREATE FUNCTION sr_lift(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
REVOKE EXECUTE ON FUNCTION sr_reduce, sr_lift FROM PUBLIC;
SELECT cqrs_es.create_aggregate('sr'), cqrs_es.define_reducer('sr', 'Reduced', 'sr_reduce'), cqrs_es.define_reducer('sr', 'Lifted', '[]') \gset x_
SELECT cqrs_es.append_event('sr', 'lifted', 'Lifted', '{}'), cqrs_es.append_event('sr', 'reduced', 'Reduced', '{}') \gset x_
SELECT cqrs_es.alter_aggregate('sr', strict => true), cqrs_es.define_upcaster('Lifted', '1', '2', 'sr_lift') \gset x_
CREATE ROLE cqrs_es_sr;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_sr;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_sr;

SET LOCAL ROLE cqrs_es_sr;
SELECT is(pg_temp.error_of(statement, '{state,message,hint}'),
	ARRAY['42501', format('permission denied for function public.%s', function), format('GRANT EXECUTE ON FUNCTION public.%s TO cqrs_es_sr.', function)], statement)
FROM (VALUES (1, $$SELECT cqrs_es.append_event('sr', 'new', 'Reduced', '{}')$$, 'sr_reduce(pg_catalog.jsonb,cqrs_es.event)'),
	(2, $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('sr', 'new', 'Reduced', '{}')$$, 'sr_reduce(pg_catalog.jsonb,cqrs_es.event)'),
	(3, $$SELECT cqrs_es.append_event('sr', 'reduced', 'Lifted', '{}', event_version => '2')$$, 'sr_reduce(pg_catalog.jsonb,cqrs_es.event)'),
	(4, $$SELECT cqrs_es.append_event('sr', 'lifted', 'Lifted', '{}', event_version => '2')$$, 'sr_lift(pg_catalog.jsonb)'),
	(5, $$SELECT * FROM cqrs_es.poisoned_streams('sr')$$, 'sr_lift(pg_catalog.jsonb)')) AS s (n, statement, function) ORDER BY n;
RESET ROLE;
GRANT EXECUTE ON FUNCTION sr_reduce, sr_lift TO cqrs_es_sr;
SET LOCAL ROLE cqrs_es_sr;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_event('sr', 'reduced', 'Reduced', '{}')$$), 'none', 'with the grant it is appended');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_event('sr', 'lifted', 'Lifted', '{}', event_version => '2')$$), 'none', 'and the other');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_event('sr', 'reduced', 'Reduced', '{"denied": true}')$$, '{state,detail}'),
	ARRAY['QE103', 'Its reducer cannot apply it: not for you (SQLSTATE 42501)'], 'what the reducer says by itself is about the event');
RESET ROLE;
SELECT is_empty($$SELECT * FROM cqrs_es.poisoned_streams('sr')$$, 'nothing is poisoned');
SELECT finish();
ROLLBACK;
