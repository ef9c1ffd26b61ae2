\i test/include/setup.sql
-- Streams that have no state because of one of their events: found, and repaired; and event types that nobody knows.
BEGIN;
SELECT plan(21);
CREATE FUNCTION to_number_2(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$SELECT jsonb_build_object('amount', coalesce((payload ->> 'amount')::numeric, 0))$$;
SELECT cqrs_es.create_aggregate(type, '{"balance": 0}', snapshot_every => 0) IS NULL AS x, cqrs_es.define_reducer(type, 'Deposited', '[{"op": "increment", "path": "/balance", "from": "/amount"}]') IS NULL AS y FROM unnest('{poison,"poison 2"}'::text[]) type \g /dev/null
SELECT is_empty($$SELECT * FROM cqrs_es.poisoned_streams('poison')$$, 'none yet');
SELECT cqrs_es.append_events('poison', id, events) IS NULL AS x FROM (VALUES ('good', '[{"type": "Deposited", "payload": {"amount": 1}}]'::jsonb), ('text', '[{"type": "Deposited", "payload": {"amount": 1}}, {"type": "Deposited", "payload": {"amount": "12.50"}}, {"type": "Deposited", "payload": null}]'),
	('null', '[{"type": "Deposited", "payload": {"amount": null}}]'), ('typo', '[{"type": "Deposited", "payload": {"amount": 1}}, {"type": "Depositd", "payload": {"balance": 1000000}}]')) v (id, events) \g /dev/null
SELECT cqrs_es.append_event('poison 2', 'x', 'Deposited', '{}') IS NULL AS x, cqrs_es.append_event('poison undeclared', 'x', 'Deposited', '{}') IS NULL AS y \gset
SET LOCAL cqrs_es.tenant_id = 'tenant';
SELECT cqrs_es.append_event('poison', 'of a tenant', 'Deposited', '{}') IS NULL AS x \gset
SELECT results_eq($$SELECT aggregate_id FROM cqrs_es.poisoned_streams('poison')$$, $$VALUES ('of a tenant')$$, 'those of a tenant are its own');
SET LOCAL cqrs_es.tenant_id = '';
SELECT results_eq($$SELECT aggregate_type, aggregate_id, sequence, event_type, sqlstate, message FROM cqrs_es.poisoned_streams('poison') ORDER BY aggregate_id$$,
	$$VALUES ('poison', 'null', 1::bigint, 'Deposited', 'QE102', 'operation 1 (increment "/balance") of the reducer for "Deposited" cannot be applied'), ('poison', 'text', 2, 'Deposited', 'QE102', 'operation 1 (increment "/balance") of the reducer for "Deposited" cannot be applied')$$, 'which streams, by which event');
SELECT results_eq($$SELECT p.global_position FROM cqrs_es.poisoned_streams('poison') p WHERE aggregate_id = 'text'$$, $$SELECT global_position FROM cqrs_es.read_stream('poison', 'text') WHERE sequence = 2$$, 'where in the log');
SELECT ok(bool_and(detail <> ''), 'and why') FROM cqrs_es.poisoned_streams('poison');
SELECT is((SELECT array_agg(aggregate_type ORDER BY aggregate_type) FROM cqrs_es.poisoned_streams() WHERE aggregate_type LIKE 'poison%'), '{poison,poison,"poison 2"}', 'of all declared types');
SELECT throws_ok($$SELECT * FROM cqrs_es.poisoned_streams('poison undeclared')$$, 'QE101', NULL, 'of one that is not declared');

-- a stream that is poisoned takes no event of a strict type, and says why

SELECT cqrs_es.alter_aggregate('poison', strict => true) IS NULL AS x \gset
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_event('poison', 'text', 'Deposited', '{"amount": 1}')$$), ARRAY['QE103', 'event 4 (Deposited) cannot be appended to stream "poison/text"',
	'Event 2 (Deposited) of the stream cannot be applied: operation 1 (increment "/balance") of the reducer for "Deposited" cannot be applied (SQLSTATE QE102)' || E'\n"/amount" of the event is not a number.', 'Define a reducer or an upcaster that takes the old event. cqrs_es.poisoned_streams() finds all such streams.'], 'an append to it');
SELECT lives_ok($$SELECT cqrs_es.append_event('poison', 'good', 'Deposited', '{"amount": 1}')$$, 'others go on');

-- the view of types that nobody knows

CREATE TABLE known (n bigint);
SELECT cqrs_es.append_event('poison undeclared', 'x', 'Handled', '{}') IS NULL AS x, cqrs_es.append_event('poison undeclared', 'x', 'Never', '{}') IS NULL AS y \gset
SELECT results_eq($$SELECT aggregate_type COLLATE "default", event_type COLLATE "default", declared, events FROM cqrs_es.unknown_event_types WHERE aggregate_type LIKE 'poison%' ORDER BY 1, 2$$,
	$$VALUES ('poison', 'Depositd', true, 1::bigint), ('poison undeclared', 'Deposited', false, 1), ('poison undeclared', 'Handled', false, 1), ('poison undeclared', 'Never', false, 1)$$, 'types that no reducer knows');
SELECT cqrs_es.create_projection('poison known', read_models => '{known}', aggregate_types => '{poison undeclared,poison}') IS NULL AS x, cqrs_es.define_handler('poison known', 'Handled', 'INSERT INTO known VALUES (event.sequence)') IS NULL AS y,
	cqrs_es.define_handler('poison known', '*', 'INSERT INTO known VALUES (event.sequence)') IS NULL AS z \gset
SELECT results_eq($$SELECT aggregate_type COLLATE "default", event_type COLLATE "default" FROM cqrs_es.unknown_event_types WHERE aggregate_type LIKE 'poison%' ORDER BY 1, 2$$,
	$$VALUES ('poison', 'Depositd'), ('poison undeclared', 'Deposited'), ('poison undeclared', 'Never')$$, 'nor a handler of its own; that of all types knows none');
SELECT cqrs_es.create_projection('poison elsewhere', aggregate_types => '{poison elsewhere}') IS NULL AS x, cqrs_es.define_handler('poison elsewhere', 'Never', 'INSERT INTO known VALUES (event.sequence)') IS NULL AS y \gset
SELECT is((SELECT count(*) FROM cqrs_es.unknown_event_types WHERE aggregate_type LIKE 'poison%'), 3::bigint, 'a handler for other aggregate types does not count');
SELECT is((SELECT array_agg(DISTINCT event_type) FROM cqrs_es.unknown_event_types WHERE aggregate_type LIKE 'poison%' AND first_position = last_position AND last_position IN (SELECT global_position FROM cqrs_es.events e WHERE e.event_type = unknown_event_types.event_type)), '{Depositd,Deposited,Never}', 'where they begin and end');
SET LOCAL cqrs_es.tenant_id = 'tenant';
SELECT is_empty($$SELECT * FROM cqrs_es.unknown_event_types WHERE aggregate_type LIKE 'poison%'$$, 'of the current tenant');
SET LOCAL cqrs_es.tenant_id = '';

-- the ways out

SELECT cqrs_es.define_upcaster('Deposited', '1', '2', 'to_number_2(jsonb)') IS NULL AS x \gset
SELECT is_empty($$SELECT * FROM cqrs_es.poisoned_streams('poison')$$, 'a repairing upcaster');
SELECT is(cqrs_es.aggregate_state('poison', id), state, id) FROM (VALUES ('null', '{"balance": 0}'::jsonb), ('typo', '{"balance": 1000000}')) v (id, state) ORDER BY id;
SELECT lives_ok($$SELECT cqrs_es.append_event('poison', 'null', 'Deposited', '{"amount": 7}', event_version => '2')$$, 'it goes on, in the new version');
SELECT cqrs_es.define_reducer('poison', 'Depositd', '[]') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('poison', 'typo'), '{"balance": 1}', 'a reducer that passes a mistyped type by');
SELECT is_empty($$SELECT * FROM cqrs_es.unknown_event_types WHERE event_type = 'Depositd'$$, 'then it is known');
CREATE TABLE repaired (view_id text, tenant_id text, version bigint, payload jsonb, PRIMARY KEY (view_id, tenant_id));
SELECT cqrs_es.create_projection('repaired', read_models => '{repaired}', state_of => 'poison') IS NULL AS x, cqrs_es.rebuild_projection('repaired') IS NULL AS y \gset
SELECT results_eq($$SELECT view_id, payload -> 'balance' FROM repaired ORDER BY 1$$, $$VALUES ('good', '2'::jsonb), ('null', '7'), ('of a tenant', '0'), ('text', '13.50'), ('typo', '1')$$, 'and a table of states is rebuilt');
SELECT finish();
ROLLBACK;
