\i test/include/setup.sql
-- The orders: what must hold in their database.
\set example order
\i test/include/example.sql
BEGIN;
SELECT plan(25);
SET LOCAL cqrs_es.tenant_id = 'TENANT001';
\set order '20240101-001'
\set none '20240101-009'

SELECT is(pg_temp.refusal('ORDER', id, command, payload::jsonb), refusal, id || ' ' || command)
FROM (VALUES (1, :'order', 'CreateOrder', '{"customerId": "C", "items": [{"quantity": 1, "price": 1}]}', 'QE301 ALREADY_CREATED Order already created'),
	(2, :'none', 'CreateOrder', '{"customerId": "C"}', 'QE301 NO_ITEMS Order has no items'),
	(3, :'order', 'AddOrderItem', '{"quantity": 1, "price": 1}', 'QE301 ALREADY_PAID Order already paid'),
	(4, :'order', 'PayOrder', '{}', 'QE301 ALREADY_PAID Order already paid'),
	(5, :'order', 'CancelOrder', '{}', 'QE301 ALREADY_PAID Order already paid'),
	(6, :'none', 'AddOrderItem', '{"quantity": 1, "price": 1}', 'QE301 NOT_FOUND Order not found'),
	(7, :'none', 'PayOrder', '{}', 'QE301 NOT_FOUND Order not found'),
	(8, :'none', 'CancelOrder', '{}', 'QE301 NOT_FOUND Order not found')) AS t (n, id, command, payload, refusal)
ORDER BY n;
SELECT matches(pg_temp.refusal('ORDER', :'order', 'PayOrder', '{}', 1), '^QE001 ', 'a stale version');
SET LOCAL cqrs_es.tenant_id = 'TENANT002';
SELECT is(pg_temp.refusal('ORDER', :'order', 'AddOrderItem', '{"quantity": 1, "price": 1}'), 'QE301 ALREADY_CANCELLED Order already cancelled',
	'the other tenant''s order of the same id is cancelled');
SELECT is((SELECT count(*) FROM cqrs_es.events), 5::bigint, 'what is refused leaves no trace');

-- Both tenants go on under one id.
SELECT is(pg_temp.refusal('ORDER', :'none', 'CreateOrder', '{"customerId": "C-2", "items": [{"sku": "a", "quantity": 3, "price": 0.1}]}', 0), NULL, 'a second tenant''s order');
SET LOCAL cqrs_es.tenant_id = 'TENANT001';
SELECT is(pg_temp.refusal('ORDER', :'none', 'CreateOrder', '{"customerId": "C-1", "items": [{"sku": "b", "quantity": 1, "price": 5}]}', 0), NULL, 'of the first one''s id');
SELECT is(pg_temp.refusal('ORDER', :'none', 'AddOrderItem', '{"sku": "c", "quantity": 2, "price": 2.5}', 1), NULL, 'goes on by itself');
SELECT results_eq('SELECT order_id, customer_id, items, total_amount, status, version FROM order_summary WHERE tenant_id = cqrs_es.current_tenant() ORDER BY 1',
	$$SELECT id, state->>'customerId', jsonb_array_length(state->'items'), (state->>'totalAmount')::numeric, state->>'status', version FROM pg_temp.states('ORDER') ORDER BY 1$$,
	'TENANT001: the summary is what the events say');
SELECT is(count(*), 2::bigint, 'of two orders') FROM pg_temp.states('ORDER');
SELECT is((SELECT max(version) FROM order_audit WHERE order_id = :'none'), 2::bigint, 'the audit is the tenant''s');
SET LOCAL cqrs_es.tenant_id = 'TENANT002';
SELECT results_eq('SELECT order_id, customer_id, items, total_amount, status, version FROM order_summary WHERE tenant_id = cqrs_es.current_tenant() ORDER BY 1',
	$$SELECT id, state->>'customerId', jsonb_array_length(state->'items'), (state->>'totalAmount')::numeric, state->>'status', version FROM pg_temp.states('ORDER') ORDER BY 1$$,
	'TENANT002: the summary is what the events say');
SELECT is(total_amount, 0.3, 'exactly') FROM order_summary WHERE tenant_id = 'TENANT002' AND order_id = :'none';
SELECT is((SELECT max(version) FROM order_audit WHERE order_id = :'none'), 1::bigint, 'the audit is the other tenant''s');
SELECT results_eq('SELECT position, tenant_id, order_id, event_type, payload FROM notification_outbox ORDER BY 1',
	$$SELECT global_position, tenant_id COLLATE "default", aggregate_id COLLATE "default", event_type COLLATE "default", payload
	FROM cqrs_es.events ORDER BY 1 OFFSET 5$$, 'the outbox has a row of every event since the mailer came');

SET LOCAL cqrs_es.tenant_id = 'TENANT001';
SELECT results_eq(format($$SELECT sequence, r.state FROM cqrs_es.replay('ORDER', '%1$s') AS r$$, :'order'),
	format($$SELECT sequence, cqrs_es.aggregate_state('ORDER', '%1$s', at_sequence => sequence) FROM cqrs_es.replay('ORDER', '%1$s')$$, :'order'),
	'the state by version is that of the history');
SELECT results_eq(format($$SELECT sequence, r.state FROM cqrs_es.replay('ORDER', '%1$s') AS r$$, :'order'),
	format($$SELECT sequence, cqrs_es.aggregate_state('ORDER', '%1$s', at_time => created_at) FROM cqrs_es.replay('ORDER', '%1$s')$$, :'order'),
	'so is the state by time');
SELECT is(cqrs_es.aggregate_state('ORDER', :'order', at_time => (SELECT min(created_at) FROM order_audit) - interval '1 second'), NULL, 'before that, nothing');
SELECT is((SELECT array_agg(created_at ORDER BY version) FROM order_audit WHERE order_id = :'order'),
	(SELECT array_agg(created_at ORDER BY created_at) FROM cqrs_es.replay('ORDER', :'order')), 'the audit knows when');
SELECT finish();
ROLLBACK;
\i test/include/example_end.sql
