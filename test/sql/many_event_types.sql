\i test/include/setup.sql
-- More event types than a cache of declarations holds: it starts anew, and so does what it points to.
BEGIN;
SELECT plan(2);
CREATE TABLE many_event_types (event_type text, n bigint);
SELECT cqrs_es.create_projection('many event types', ARRAY['many'], '{many_event_types}') \gset
SELECT cqrs_es.define_handler('many event types', '*', 'INSERT INTO many_event_types VALUES (event.event_type, event.sequence)') \gset
SELECT cqrs_es.define_handler('many event types', 'type 1', 'UPDATE many_event_types SET n = -n WHERE event_type = event.event_type') \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
	SELECT 'many', '1', 'type ' || i % 4200, '{}' FROM generate_series(1, 4400) AS i;
SELECT results_eq($$SELECT count(*), count(DISTINCT event_type) FROM many_event_types$$, $$VALUES (4400::bigint, 4200::bigint)$$,
	'all are handled');
SELECT results_eq($$SELECT n FROM many_event_types WHERE event_type = 'type 1' ORDER BY 1$$, $$VALUES (-4201::bigint), (1::bigint)$$,
	'by each of the handlers, before and after');
SELECT * FROM finish();
ROLLBACK;
