-- Tell whoever listens of each event.
SET client_min_messages = warning;
DROP FUNCTION IF EXISTS bench.wake;
CREATE FUNCTION bench.wake(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$ SELECT pg_notify('events', '') $$;
SELECT cqrs_es.create_projection('wake');
SELECT cqrs_es.define_handler('wake', '*', 'bench.wake(cqrs_es.event)');
