\i test/include/setup.sql
-- The orders: what must hold in their database.
\set example order
\i test/include/example.sql
BEGIN;
SELECT plan(30);
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
RESET cqrs_es.tenant_id;
SELECT results_eq('SELECT event_id, tenant_id, order_id, event_type FROM sent_mails ORDER BY 1',
	$$SELECT event_id, tenant_id COLLATE "default", aggregate_id COLLATE "default", event_type COLLATE "default" FROM cqrs_es.events WHERE aggregate_id = '20240101-001' ORDER BY 1$$,
	'the mails of the story were sent, each once');
SELECT results_eq('SELECT name, lag_events FROM cqrs_es.subscription_status ORDER BY 1',
	$$VALUES ('order_api' COLLATE "C", 3::bigint), ('order_mails', 3), ('order_read_model', 3)$$, 'all three have seen it, and not yet the three of this test');
SELECT results_eq('SELECT state, attempts FROM cqrs_es.subscription_dead_letters', $$VALUES ('delivered', 5)$$, 'what was a dead letter was delivered');
SELECT results_eq('SELECT tenant_id, sku, quantity FROM demand ORDER BY 1, 2',
	$$VALUES ('TENANT001', 'ink', 1::numeric), ('TENANT001', 'pen', 2), ('TENANT002', 'desk', 1)$$, 'the read model counted each event once');
-- An order may have a thing twice, or one without a name.
SELECT results_eq($$SELECT sku, quantity FROM count_demand('T', '{"items": [{"sku": "a", "quantity": 1.5}, {"quantity": 1}, {"sku": "a", "quantity": 2}]}')$$,
	$$VALUES ('a', 3.5)$$, 'a thing twice, and one without a name');
SELECT is((SELECT count(*) FROM count_demand('T', '{"reason": "r"}')), 0::bigint, 'an event without things');

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
