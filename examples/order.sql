-- Orders of several tenants: history, audit, a summary, and three who listen.
--
--	psql -d an_empty_database -f examples/order.sql
--
-- Commands CreateOrder{customerId, items}, AddOrderItem{sku, quantity, price},
-- PayOrder{}, CancelOrder{reason}; events OrderCreated{orderId, customerId,
-- items, totalAmount}, OrderItemAdded{item, totalAmount}, OrderPaid{amount},
-- OrderCancelled{reason}. The tenant is a setting, and a part of every key.
--
-- What 11 to 14 do by hand, order.js does as a program.

-- What psql prints: commands, and of errors no context. Declarations return
-- nothing worth printing.
\set QUIET on
\set ECHO queries
\set SHOW_CONTEXT never
\set ON_ERROR_STOP on
\o /dev/null

\echo '\n*** 1. How events change the state of an order ***\n'

CREATE EXTENSION cqrs_es;

SELECT cqrs_es.create_aggregate('ORDER');
SELECT cqrs_es.define_reducer('ORDER', 'OrderCreated', '[
    {"op": "merge",  "path": "",             "from": ""},
    {"op": "set",    "path": "/status",      "value": "open"}]');
SELECT cqrs_es.define_reducer('ORDER', 'OrderItemAdded', '[
    {"op": "append", "path": "/items",       "from": "/item"},
    {"op": "set",    "path": "/totalAmount", "from": "/totalAmount"}]');
SELECT cqrs_es.define_reducer('ORDER', 'OrderPaid', '[
    {"op": "set",    "path": "/status",      "value": "paid"}]');
SELECT cqrs_es.define_reducer('ORDER', 'OrderCancelled', '[
    {"op": "set",    "path": "/status",      "value": "cancelled"}]');

\echo '\n*** 2. Commands ***\n'

-- (Null, when there are no items, or something that is no array.)
CREATE FUNCTION amount_of(items jsonb) RETURNS numeric LANGUAGE sql AS $$
    SELECT sum(CASE WHEN item @@ 'strict $.quantity > 0 && $.price >= 0'
                    THEN (item->>'quantity')::numeric * (item->>'price')::numeric
                    ELSE cqrs_es.reject('Invalid item', code => 'INVALID_ITEM')::numeric END)
    FROM jsonb_path_query(items, 'strict $[*]', silent => true) AS item
$$;
-- What may only be done to an open order begins with this: the event, or the reason why not.
CREATE FUNCTION if_open(state jsonb, event jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE state->>'status'
        WHEN 'open' THEN event
        WHEN 'paid' THEN cqrs_es.reject('Order already paid', code => 'ALREADY_PAID')
        WHEN 'cancelled' THEN cqrs_es.reject('Order already cancelled', code => 'ALREADY_CANCELLED')
        ELSE cqrs_es.reject('Order not found', code => 'NOT_FOUND')
    END
$$;

SELECT cqrs_es.define_command('ORDER', 'CreateOrder', $$
    CASE
        WHEN version > 0 THEN
            cqrs_es.reject('Order already created', code => 'ALREADY_CREATED')
        WHEN (command @@ 'strict $.customerId > ""') IS NOT TRUE THEN
            cqrs_es.reject('Order has no customer', code => 'NO_CUSTOMER')
        WHEN amount_of(command->'items') IS NULL THEN
            cqrs_es.reject('Order has no items', code => 'NO_ITEMS')
        ELSE
            jsonb_build_object('type', 'OrderCreated', 'payload', jsonb_build_object(
                'orderId', aggregate_id, 'customerId', command->'customerId',
                'items', command->'items', 'totalAmount', amount_of(command->'items')))
    END
$$);
SELECT cqrs_es.define_command('ORDER', 'AddOrderItem', $$
    if_open(state, jsonb_build_object('type', 'OrderItemAdded', 'payload', jsonb_build_object(
        'item', command, 'totalAmount', amount_of(state->'items') + amount_of(jsonb_build_array(command)))))
$$);
SELECT cqrs_es.define_command('ORDER', 'PayOrder', $$
    if_open(state, jsonb_build_object('type', 'OrderPaid', 'payload', jsonb_build_object('amount', state->'totalAmount')))
$$);
SELECT cqrs_es.define_command('ORDER', 'CancelOrder', $$
    if_open(state, jsonb_build_object('type', 'OrderCancelled', 'payload', jsonb_build_object('reason', command->'reason')))
$$);

\echo '\n*** 3. A summary of each order, written in the transaction of the event ***\n'

CREATE TABLE order_summary (
    tenant_id    text,
    order_id     text,
    customer_id  text NOT NULL,
    items        integer NOT NULL,
    total_amount numeric NOT NULL,
    status       text NOT NULL DEFAULT 'open',
    version      bigint NOT NULL,
    PRIMARY KEY (tenant_id, order_id)
);

SELECT cqrs_es.create_projection('order_summary', aggregate_types => '{ORDER}', read_models => '{order_summary}');
SELECT cqrs_es.define_handler('order_summary', 'OrderCreated', $$
    INSERT INTO order_summary (tenant_id, order_id, customer_id, items, total_amount, version)
    VALUES (event.tenant_id, event.aggregate_id, event.payload->>'customerId', jsonb_array_length(event.payload->'items'),
            (event.payload->>'totalAmount')::numeric, event.sequence)
$$);
SELECT cqrs_es.define_handler('order_summary', 'OrderItemAdded', $$
    UPDATE order_summary SET items = items + 1, total_amount = (event.payload->>'totalAmount')::numeric, version = event.sequence
    WHERE tenant_id = event.tenant_id AND order_id = event.aggregate_id
$$);
SELECT cqrs_es.define_handler('order_summary', 'OrderPaid', $$
    UPDATE order_summary SET status = 'paid', version = event.sequence
    WHERE tenant_id = event.tenant_id AND order_id = event.aggregate_id
$$);
SELECT cqrs_es.define_handler('order_summary', 'OrderCancelled', $$
    UPDATE order_summary SET status = 'cancelled', version = event.sequence
    WHERE tenant_id = event.tenant_id AND order_id = event.aggregate_id
$$);

-- Who did what when, and on whose behalf: it is all in the events.
CREATE VIEW order_audit AS
SELECT created_at, metadata->>'createdBy' AS who, event_type AS what, aggregate_id AS order_id, sequence AS version,
       metadata->>'correlation_id' AS correlation_id, metadata->>'causation_id' AS causation_id
FROM cqrs_es.events
WHERE aggregate_type = 'ORDER' AND tenant_id = cqrs_es.current_tenant();

\echo '\n*** ... and three who listen: a read model, an e-mail service, the API of a partner. None of them waits for another ***\n'

-- Each event may fail five times. Then its order waits until somebody decides; but a mail
-- stands for itself, and those behind it go out.
SELECT cqrs_es.create_subscription('order_read_model', aggregate_types => '{ORDER}', all_tenants => true, max_attempts => 5);
SELECT cqrs_es.create_subscription('order_mails',      aggregate_types => '{ORDER}', all_tenants => true, max_attempts => 5, on_failure => 'skip');
SELECT cqrs_es.create_subscription('order_api',        aggregate_types => '{ORDER}', all_tenants => true, max_attempts => 5);

-- How much was ordered. All orders meet in these rows, so it is no projection: they would
-- wait for each other.
CREATE TABLE demand (
    tenant_id text,
    sku       text,
    quantity  numeric NOT NULL,
    PRIMARY KEY (tenant_id, sku)
);
CREATE FUNCTION count_demand(tenant_id text, payload jsonb) RETURNS SETOF demand LANGUAGE sql AS $$
    INSERT INTO demand AS d (tenant_id, sku, quantity)
    SELECT count_demand.tenant_id, item->>'sku', sum((item->>'quantity')::numeric)
    FROM (SELECT jsonb_array_elements(payload->'items') UNION ALL SELECT payload->'item') AS i (item)
    WHERE item->>'sku' IS NOT NULL
    GROUP BY item->>'sku'
    ON CONFLICT (tenant_id, sku) DO UPDATE SET quantity = d.quantity + excluded.quantity
    RETURNING d.*
$$;

-- What was sent: who mails looks here first.
CREATE TABLE sent_mails (
    event_id       uuid PRIMARY KEY,
    tenant_id      text NOT NULL,
    order_id       text NOT NULL,
    event_type     text NOT NULL,
    correlation_id text
);

-- From here on results are printed, and a refusal does not end the script.
\o
\set ON_ERROR_STOP off

\echo '\n*** 4. An order of a tenant. Who asks, and in the course of what, is said once per transaction ***\n'

SET cqrs_es.tenant_id = 'TENANT001';

BEGIN;
SET LOCAL cqrs_es.context = '{"createdBy": "ada", "correlation_id": "checkout-7"}';
SELECT version, state FROM cqrs_es.execute_command('ORDER', '20240101-001', 'CreateOrder',
    '{"customerId": "C-1", "items": [{"sku": "pen", "quantity": 2, "price": 1.50}]}',
    command_id => '6f6b7a10-0000-4000-8000-000000000001');
COMMIT;

\echo '\n*** 5. Another tenant''s order of the same id: neither sees the other''s ***\n'

SET cqrs_es.tenant_id = 'TENANT002';

SELECT cqrs_es.stream_version('ORDER', '20240101-001');
SELECT version, state FROM cqrs_es.execute_command('ORDER', '20240101-001', 'CreateOrder',
    '{"customerId": "C-77", "items": [{"sku": "desk", "quantity": 1, "price": 480}]}', metadata => '{"createdBy": "bob"}');
SELECT version, state FROM cqrs_es.execute_command('ORDER', '20240101-001', 'CancelOrder',
    '{"reason": "too heavy"}', metadata => '{"createdBy": "bob"}');

SET cqrs_es.tenant_id = 'TENANT001';

SELECT version, state FROM cqrs_es.load_aggregate('ORDER', '20240101-001');

\echo '\n*** 6. Two clients have read version 1. The first writes version 2, the second gets the conflict ... ***\n'

BEGIN;
SET LOCAL cqrs_es.context = '{"createdBy": "ada", "correlation_id": "checkout-7"}';
SELECT version, state FROM cqrs_es.execute_command('ORDER', '20240101-001', 'AddOrderItem', '{"sku": "ink", "quantity": 1, "price": 7.25}',
    expected_version => 1, command_id => '6f6b7a10-0000-4000-8000-000000000002');
COMMIT;
SELECT * FROM cqrs_es.execute_command('ORDER', '20240101-001', 'PayOrder', expected_version => 1);
\echo SQLSTATE :LAST_ERROR_SQLSTATE

\echo '\n*** ... reads again, decides that it is still right, and writes version 3 ***\n'

SELECT version, state FROM cqrs_es.load_aggregate('ORDER', '20240101-001');
BEGIN;
SET LOCAL cqrs_es.context = '{"createdBy": "till-3", "correlation_id": "checkout-7"}';
SELECT version, state FROM cqrs_es.execute_command('ORDER', '20240101-001', 'PayOrder',
    expected_version => 2, command_id => '6f6b7a10-0000-4000-8000-000000000003');
COMMIT;

\echo '\n*** 7. Refusals ***\n'

SELECT * FROM cqrs_es.execute_command('ORDER', '20240101-001', 'CreateOrder', '{"customerId": "C-1", "items": []}');
SELECT * FROM cqrs_es.execute_command('ORDER', '20240101-001', 'AddOrderItem', '{"sku": "ink", "quantity": 1, "price": 7.25}');
SELECT * FROM cqrs_es.execute_command('ORDER', '20240101-002', 'CreateOrder', '{"customerId": "C-1", "items": []}');
SELECT * FROM cqrs_es.execute_command('ORDER', '20240101-002', 'CreateOrder', '{"customerId": "C-1", "items": [{"sku": "pen", "quantity": -2, "price": 1.50}]}');
SELECT * FROM cqrs_es.execute_command('ORDER', '20240101-002', 'PayOrder');
SET cqrs_es.tenant_id = 'TENANT002';
SELECT * FROM cqrs_es.execute_command('ORDER', '20240101-001', 'PayOrder');
SET cqrs_es.tenant_id = 'TENANT001';

\echo '\n*** 8. History: every version with its state; the state by version, and by time ***\n'

SELECT sequence, event_type, state FROM cqrs_es.replay('ORDER', '20240101-001');
SELECT cqrs_es.aggregate_state('ORDER', '20240101-001', at_sequence => 1);
SELECT cqrs_es.aggregate_state('ORDER', '20240101-001', at_time => (
    SELECT created_at FROM cqrs_es.read_stream('ORDER', '20240101-001', from_sequence => 2, max_count => 1)));

\echo '\n*** 9. Audit: who did what (and when: created_at), in the course of what, by which command ***\n'

SELECT who, what, version, correlation_id, causation_id FROM order_audit WHERE order_id = '20240101-001' ORDER BY version;

\echo '\n*** 10. The read tables ***\n'

SELECT * FROM order_summary WHERE tenant_id = cqrs_es.current_tenant();
SELECT * FROM order_summary ORDER BY tenant_id, order_id;

\echo '\n*** 11. The read model takes its events, counts, and dies: nothing is counted. The next one counts, and acknowledges in the same transaction ***\n'

RESET cqrs_es.tenant_id;
CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('order_read_model', consumer => 'psql', max_count => 10);
SELECT tenant_id, aggregate_id, sequence, event_type FROM hand;
BEGIN;
SELECT counted.* FROM hand, count_demand(hand.tenant_id, payload) AS counted;
ROLLBACK;

BEGIN;
SELECT cqrs_es.extend_lease(batch) > now() AS is_ours FROM hand LIMIT 1;
SELECT counted.* FROM hand, count_demand(hand.tenant_id, payload) AS counted;
SELECT cqrs_es.ack_events(batch) FROM hand LIMIT 1;
COMMIT;
SELECT * FROM demand ORDER BY tenant_id, sku;

\echo '\n*** 12. The mailer notes what it has sent. Told to end, it gives back what it has; the next one sends what is not there yet ***\n'

DROP TABLE hand;
CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('order_mails', consumer => 'psql', max_count => 10);
INSERT INTO sent_mails
SELECT event_id, tenant_id, aggregate_id, event_type, metadata->>'correlation_id' FROM hand ORDER BY global_position LIMIT 2
RETURNING tenant_id, order_id, event_type;
SELECT cqrs_es.release_batch(batch) FROM hand LIMIT 1;

DROP TABLE hand;
CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('order_mails', consumer => 'psql', max_count => 10);
SELECT tenant_id, aggregate_id, sequence, event_type FROM hand;
INSERT INTO sent_mails
SELECT event_id, tenant_id, aggregate_id, event_type, metadata->>'correlation_id' FROM hand ORDER BY global_position
ON CONFLICT DO NOTHING
RETURNING tenant_id, order_id, event_type;
SELECT cqrs_es.ack_events(batch) FROM hand LIMIT 1;

\echo '\n*** 13. The partner does not know the customer of the second tenant: five attempts, then it is a dead letter. The other order goes on ***\n'

DROP TABLE hand;
CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('order_api', consumer => 'psql', max_count => 10);
SELECT tenant_id, aggregate_id, sequence, event_type, attempt FROM hand;
SELECT cqrs_es.nack_event(batch, global_position, error => 'HTTP 422', retry_after => '0 s') FROM hand WHERE tenant_id = 'TENANT002' AND sequence = 1;
SELECT cqrs_es.ack_events(batch) FROM hand LIMIT 1;

-- Four more times. (What is received is committed, always, before anything is done with it.)
DO $$
DECLARE
    event record;
BEGIN
    LOOP
        SELECT * INTO event FROM cqrs_es.receive_events('order_api', consumer => 'psql', max_count => 1);
        COMMIT;
        EXIT WHEN event.batch IS NULL;
        RAISE NOTICE 'attempt %: %', event.attempt,
            cqrs_es.nack_event(event.batch, event.global_position, error => 'HTTP 422', retry_after => '0 s');
        PERFORM cqrs_es.ack_events(event.batch);
        COMMIT;
    END LOOP;
END
$$;
SELECT tenant_id, aggregate_id, sequence, event_type, state, attempts, error FROM cqrs_es.subscription_dead_letters;

\echo '\n*** 14. The partner knows the customer now. Redriven, the order comes with all that is behind it ***\n'

SELECT cqrs_es.redrive('order_api');
DROP TABLE hand;
CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('order_api', consumer => 'psql', max_count => 10);
SELECT tenant_id, aggregate_id, sequence, event_type, attempt FROM hand;
SELECT cqrs_es.ack_events(batch) FROM hand LIMIT 1;
SELECT name, lag_events, blocked, dead_letters FROM cqrs_es.subscription_status ORDER BY name;

\echo '\n*** 15. In the course of what was it sent? The same id is in the events, and goes with each call outside ***\n'

SELECT order_id, event_type, correlation_id FROM sent_mails WHERE correlation_id = 'checkout-7' ORDER BY event_type;
