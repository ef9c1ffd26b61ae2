-- A process over three aggregates: an order is shipped when it has been paid.
--
--	psql -d an_empty_database -f examples/saga.sql
--
-- An order, its shipment and its payment are three streams with one id. Goods
-- are put aside, then the money is asked for; when it comes, they are sent. If it
-- is refused, or does not come in time, or the order is cancelled, what was done is
-- undone: the goods go back, and so does the money. Nobody waits for anybody in a
-- transaction: a consumer receives what has happened, and sends the commands that
-- follow, each of them once. What can go wrong, and why it does no harm:
-- docs/processes.md.

-- What psql prints: commands, and of errors no context. Declarations return
-- nothing worth printing.
\set QUIET on
\set ECHO queries
\set SHOW_CONTEXT never
\set ON_ERROR_STOP on
\o /dev/null

\echo '\n*** 1. Three aggregates. Each event has what it says, and makes a status of it ***\n'

CREATE EXTENSION cqrs_es;

SELECT cqrs_es.create_aggregate('order');
SELECT cqrs_es.create_aggregate('shipment');
SELECT cqrs_es.create_aggregate('payment');

SELECT cqrs_es.define_reducer(aggregate_type, event_type, jsonb_build_array(
    '{"op": "merge", "path": "", "from": ""}'::jsonb,
    jsonb_build_object('op', 'set', 'path', '/status', 'value', status)))
FROM (VALUES
    ('order',    'OrderPlaced',       'placed'),
    ('order',    'OrderConfirmed',    'confirmed'),
    ('order',    'OrderCancelled',    'cancelled'),
    ('shipment', 'ShipmentPrepared',  'prepared'),
    ('shipment', 'ShipmentRefused',   'refused'),
    ('shipment', 'ShipmentSent',      'sent'),
    ('shipment', 'ShipmentCancelled', 'cancelled'),
    ('payment',  'PaymentRequested',  'requested'),
    ('payment',  'PaymentReceived',   'received'),
    ('payment',  'PaymentRefused',    'refused'),
    ('payment',  'PaymentTimedOut',   'timed out'),
    ('payment',  'PaymentCancelled',  'cancelled'),
    ('payment',  'PaymentRefunded',   'refunded')) AS e (aggregate_type, event_type, status);
-- Money that nobody waits for goes back, and leaves the status as it is.
SELECT cqrs_es.define_reducer('payment', 'MoneyReturned', '[{"op": "increment", "path": "/returned", "from": "/amount"}]');

\echo '\n*** 2. Read tables: how far each order is, the stock, and the payments that are waited for ***\n'

-- A row for each of the three streams: if they shared one, they would wait for each other.
CREATE TABLE statuses (order_id text, part text, status text NOT NULL, PRIMARY KEY (order_id, part));
SELECT cqrs_es.create_projection('statuses', aggregate_types => '{order,shipment,payment}', read_models => '{statuses}');
SELECT cqrs_es.define_handler('statuses', '*', $$
    INSERT INTO statuses
    SELECT event.aggregate_id, event.aggregate_type, event.event_type WHERE event.event_type <> 'MoneyReturned'
    ON CONFLICT (order_id, part) DO UPDATE SET status = excluded.status
$$);
CREATE VIEW orders AS
SELECT order_id, max(status) FILTER (WHERE part = 'order') AS "order", max(status) FILTER (WHERE part = 'shipment') AS shipment,
       max(status) FILTER (WHERE part = 'payment') AS payment
FROM statuses GROUP BY order_id;

CREATE TABLE stock (sku text PRIMARY KEY, available numeric NOT NULL CHECK (available >= 0));
SELECT cqrs_es.create_projection('stock', aggregate_types => '{stock,shipment}', read_models => '{stock}');
SELECT cqrs_es.define_handler('stock', 'GoodsArrived', $$
    INSERT INTO stock VALUES (event.aggregate_id, (event.payload->>'quantity')::numeric)
    ON CONFLICT (sku) DO UPDATE SET available = stock.available + excluded.available
$$);
SELECT cqrs_es.define_handler('stock', 'ShipmentPrepared', $$
    UPDATE stock SET available = available - (event.payload->>'quantity')::numeric WHERE sku = event.payload->>'sku'
$$);
SELECT cqrs_es.define_handler('stock', 'ShipmentCancelled', $$
    UPDATE stock SET available = available + (event.payload->>'quantity')::numeric WHERE sku = event.payload->>'sku'
$$);

CREATE TABLE open_payments (order_id text PRIMARY KEY, until timestamptz NOT NULL, event_id uuid NOT NULL, correlation_id text);
CREATE INDEX ON open_payments (until, order_id);
SELECT cqrs_es.create_projection('open_payments', aggregate_types => '{payment}', read_models => '{open_payments}');
SELECT cqrs_es.define_handler('open_payments', 'PaymentRequested', $$
    INSERT INTO open_payments
    VALUES (event.aggregate_id, (event.payload->>'until')::timestamptz, event.event_id, event.metadata->>'correlation_id')
$$);
SELECT cqrs_es.define_handler('open_payments', event_type, 'DELETE FROM open_payments WHERE order_id = event.aggregate_id')
FROM unnest('{PaymentReceived,PaymentRefused,PaymentTimedOut,PaymentCancelled}'::text[]) AS event_type;

\echo '\n*** 3. Commands of the customer, which may be refused ***\n'

SELECT cqrs_es.define_command('order', 'Place', $$
    CASE
        WHEN version > 0 THEN
            cqrs_es.reject('there is such an order already', code => 'PLACED')
        WHEN (command @@ 'strict $.customer > "" && $.sku > "" && $.amount > 0') IS NOT TRUE
          OR (command @@ 'strict $.quantity >= 1 && $.quantity <= 1000 && $.quantity.floor() == $.quantity') IS NOT TRUE
          OR (command @@ 'strict $.minutes >= 0 && $.minutes <= 10000 && $.minutes.floor() == $.minutes') IS NOT TRUE THEN
            cqrs_es.reject('who wants how much of what, for which amount, to be paid within how many minutes?', code => 'INCOMPLETE')
        ELSE
            jsonb_build_object('type', 'OrderPlaced', 'payload', jsonb_build_object('customer', command->'customer',
                'sku', command->'sku', 'quantity', command->'quantity', 'amount', command->'amount', 'minutes', command->'minutes'))
    END
$$);
SELECT cqrs_es.define_command('order', 'Cancel', $$
    CASE state->>'status'
        WHEN 'placed' THEN jsonb_build_object('type', 'OrderCancelled', 'payload', jsonb_build_object('reason', command->'reason'))
        WHEN 'cancelled' THEN '[]'
        WHEN 'confirmed' THEN cqrs_es.reject('it is paid, and on its way', code => 'CONFIRMED')
        ELSE cqrs_es.reject('there is no such order', code => 'NOT_FOUND')
    END
$$);

\echo '\n*** 4. Commands of the process. One that comes too late or twice is no error: nothing happens ***\n'

SELECT cqrs_es.define_command('order', 'Confirm', $$
    CASE WHEN state->>'status' = 'placed' THEN '{"type": "OrderConfirmed", "payload": {}}'::jsonb ELSE '[]' END
$$);

-- The row is locked first, and looked at in a statement after that.
CREATE FUNCTION in_stock(wanted text, quantity numeric) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE stock SET available = available WHERE sku = wanted;
    RETURN EXISTS (SELECT FROM stock WHERE sku = wanted AND available >= quantity);
END
$$;
SELECT cqrs_es.define_command('shipment', 'Prepare', $$
    CASE
        WHEN version > 0 THEN '[]'
        WHEN (command @@ 'strict $.sku > "" && $.quantity > 0') IS NOT TRUE THEN
            cqrs_es.reject('how much of what?', code => 'INCOMPLETE')
        ELSE jsonb_build_object('payload', jsonb_build_object('sku', command->'sku', 'quantity', command->'quantity'),
            'type', CASE WHEN in_stock(command->>'sku', (command->>'quantity')::numeric) THEN 'ShipmentPrepared' ELSE 'ShipmentRefused' END)
    END
$$);
SELECT cqrs_es.define_command('shipment', 'Send', $$
    CASE WHEN state->>'status' = 'prepared' THEN '{"type": "ShipmentSent", "payload": {}}'::jsonb ELSE '[]' END
$$);
SELECT cqrs_es.define_command('shipment', 'Cancel', $$
    CASE WHEN state->>'status' = 'prepared'
         THEN jsonb_build_object('type', 'ShipmentCancelled', 'payload', jsonb_build_object('sku', state->'sku', 'quantity', state->'quantity'))
         ELSE '[]' END
$$);

SELECT cqrs_es.define_command('payment', 'Request', $$
    CASE
        WHEN version > 0 THEN '[]'
        WHEN (command @@ 'strict $.amount > 0 && $.minutes >= 0 && $.minutes <= 10000') IS NOT TRUE THEN
            cqrs_es.reject('how much, within how many minutes?', code => 'INCOMPLETE')
        ELSE jsonb_build_object('type', 'PaymentRequested', 'payload', jsonb_build_object('amount', command->'amount',
            'until', now() + (command->>'minutes')::numeric::integer * interval '1 minute'))
    END
$$);
-- Any other money than what is waited for goes back at once.
SELECT cqrs_es.define_command('payment', 'Receive', $$
    CASE
        WHEN version = 0 THEN cqrs_es.reject('there is no such payment', code => 'NOT_FOUND')
        WHEN (command @@ 'strict $.amount > 0') IS NOT TRUE THEN cqrs_es.reject('how much?', code => 'INCOMPLETE')
        ELSE jsonb_build_object('payload', jsonb_build_object('amount', command->'amount'), 'type',
            CASE WHEN state->>'status' = 'requested' AND state->'amount' = command->'amount' THEN 'PaymentReceived' ELSE 'MoneyReturned' END)
    END
$$);
SELECT cqrs_es.define_command('payment', 'Refuse', $$
    CASE WHEN state->>'status' = 'requested' THEN '{"type": "PaymentRefused", "payload": {}}'::jsonb ELSE '[]' END
$$);
SELECT cqrs_es.define_command('payment', 'TimeOut', $$
    CASE WHEN state->>'status' = 'requested' AND (state->>'until')::timestamptz <= now()
         THEN '{"type": "PaymentTimedOut", "payload": {}}'::jsonb ELSE '[]' END
$$);
-- It may be here before the request that it cancels: then the request comes too late.
SELECT cqrs_es.define_command('payment', 'Cancel', $$
    CASE
        WHEN version = 0 OR state->>'status' = 'requested' THEN '{"type": "PaymentCancelled", "payload": {}}'::jsonb
        WHEN state->>'status' = 'received' THEN
            jsonb_build_object('type', 'PaymentRefunded', 'payload', jsonb_build_object('amount', state->'amount'))
        ELSE '[]'
    END
$$);

\echo '\n*** 5. The process: which command follows from which event ***\n'

-- What was agreed stands in the first event of the order, and never changes.
CREATE FUNCTION steps_after(happened text, agreed jsonb) RETURNS TABLE (aggregate_type text, command_type text, command jsonb)
LANGUAGE sql IMMUTABLE AS $$
    SELECT step.aggregate_type, step.command_type, step.command
    FROM (VALUES
        ('OrderPlaced',      'shipment', 'Prepare', jsonb_build_object('sku', agreed->'sku', 'quantity', agreed->'quantity')),
        ('ShipmentPrepared', 'payment',  'Request', jsonb_build_object('amount', agreed->'amount', 'minutes', agreed->'minutes')),
        ('PaymentReceived',  'order',    'Confirm', '{}'),
        ('OrderConfirmed',   'shipment', 'Send',    '{}'),
        -- and when something goes wrong
        ('ShipmentRefused',  'order',    'Cancel',  '{"reason": "out of stock"}'),
        ('PaymentRefused',   'order',    'Cancel',  '{"reason": "payment refused"}'),
        ('PaymentTimedOut',  'order',    'Cancel',  '{"reason": "not paid in time"}'),
        ('OrderCancelled',   'shipment', 'Cancel',  '{}'),
        ('OrderCancelled',   'payment',  'Cancel',  '{}')) AS step (happened, aggregate_type, command_type, command)
    WHERE step.happened = steps_after.happened
$$;

-- The id of the event is that of the commands that follow from it, so each of them is done once, however often
-- the event is handed out; and it is the causation_id of what they bring about.
CREATE FUNCTION take_steps(part text, order_id text, number bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    event  cqrs_es.event;
    agreed jsonb := (SELECT payload FROM cqrs_es.read_stream('order', order_id, max_count => 1));
BEGIN
    SELECT * INTO STRICT event FROM cqrs_es.read_stream(part, order_id, from_sequence => number, max_count => 1);
    PERFORM cqrs_es.execute_command(step.aggregate_type, order_id, step.command_type, step.command, command_id => event.event_id,
        metadata => jsonb_build_object('correlation_id', coalesce(event.metadata->>'correlation_id', event.event_id::text)))
    FROM steps_after(event.event_type, agreed) AS step;
END
$$;

\echo '\n*** 6. Who does it: any number of consumers of a subscription ***\n'

SELECT cqrs_es.create_subscription('checkout', aggregate_types => '{order,shipment,payment}');

-- Until there is nothing left to do. Each name is that of one consumer. (A service takes the class Consumer of
-- test/clients/consumer.py or .js instead, and calls take_steps for each event.)
CREATE PROCEDURE run_checkout(consumer text) LANGUAGE plpgsql AS $$
DECLARE
    event  record;
    batch  uuid;
    failed text[];
BEGIN
    LOOP
        batch := NULL;
        failed := '{}';
        FOR event IN SELECT * FROM cqrs_es.receive_events('checkout', consumer, max_count => 20) LOOP
            COMMIT;     -- first of what was handed out, then of each event's steps: no lock is held for longer
            batch := event.batch;
            CONTINUE WHEN event.aggregate_type || '/' || event.aggregate_id = ANY (failed);
            BEGIN
                PERFORM take_steps(event.aggregate_type, event.aggregate_id, event.sequence);
            EXCEPTION WHEN OTHERS THEN      -- it comes again, and what is behind it in its stream waits
                PERFORM cqrs_es.nack_event(batch, event.global_position, SQLERRM, event_id => event.event_id);
                failed := failed || (event.aggregate_type || '/' || event.aggregate_id);
            END;
        END LOOP;
        EXIT WHEN batch IS NULL;
        PERFORM cqrs_es.ack_events(batch);
        COMMIT;
    END LOOP;
END
$$;

\echo '\n*** 7. Time-outs: to be called every few seconds, by pg_cron or whatever there is. Several may do so at once ***\n'

-- How many payments are too late. What is due is not locked, for who pays just now would wait for the lock, and
-- this for the stream: the command looks again, and the second of two finds nothing to do.
CREATE FUNCTION due_payments(max_count integer DEFAULT 100) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(sent.global_position)
    FROM (SELECT * FROM open_payments WHERE until <= now() ORDER BY until, order_id LIMIT max_count) AS due,
         cqrs_es.execute_command('payment', due.order_id, 'TimeOut', command_id => due.event_id,
             metadata => jsonb_build_object('correlation_id', due.correlation_id)) AS sent
$$;

\echo '\n*** 8. What the payment provider says, each message once, however often it is delivered ***\n'

-- Money for which there is no payment: somebody has to look.
CREATE TABLE unclaimed_money (message_id text PRIMARY KEY, order_id text, amount numeric NOT NULL);

CREATE FUNCTION provider_says(message_id text, order_id text, outcome text, amount numeric DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    asked jsonb := (SELECT metadata FROM cqrs_es.read_stream('payment', order_id, max_count => 1));
BEGIN
    IF NOT cqrs_es.receive_message('payment provider', message_id) THEN
        RETURN 'known already';
    ELSIF asked IS NULL AND outcome = 'paid' THEN
        INSERT INTO unclaimed_money VALUES (message_id, order_id, amount);
        RETURN 'unclaimed';
    END IF;
    PERFORM cqrs_es.execute_command('payment', order_id, CASE outcome WHEN 'paid' THEN 'Receive' WHEN 'refused' THEN 'Refuse' END,
        jsonb_strip_nulls(jsonb_build_object('amount', amount)), command_id => cqrs_es.id_from_text('payment provider ' || message_id),
        metadata => jsonb_build_object('correlation_id', asked->'correlation_id'));
    RETURN 'done';
END
$$;

-- What the provider has to be told is read by a consumer of another subscription, which sends the event's
-- id along: what is sent twice has the same one.
SELECT cqrs_es.create_subscription('payment provider', event_types => '{PaymentRequested,PaymentCancelled,PaymentRefunded,MoneyReturned}');

-- From here on results are printed, and a refusal does not end the script.
\o
\set ON_ERROR_STOP off

\echo '\n*** 9. Ten pens arrive. Two of them are ordered, and paid; the provider says so twice ***\n'

SELECT version FROM cqrs_es.append_event('stock', 'pen', 'GoodsArrived', '{"quantity": 10}');

SELECT version FROM cqrs_es.execute_command('order', 'o-1', 'Place', '{"customer": "ada", "sku": "pen", "quantity": 2, "amount": 3.00, "minutes": 15}',
    metadata => '{"correlation_id": "web-1"}', command_id => '7d3f2a40-0000-4000-8000-000000000001');
CALL run_checkout('psql');
SELECT * FROM orders;

SELECT provider_says('m-1', 'o-1', 'paid', 3.00);
SELECT provider_says('m-1', 'o-1', 'paid', 3.00);
CALL run_checkout('psql');
SELECT * FROM orders;
SELECT * FROM stock;

\echo '\n*** 10. The card is refused: the goods go back ***\n'

SELECT version FROM cqrs_es.execute_command('order', 'o-2', 'Place', '{"customer": "grace", "sku": "pen", "quantity": 5, "amount": 7.50, "minutes": 15}',
    metadata => '{"correlation_id": "web-2"}', command_id => '7d3f2a40-0000-4000-8000-000000000002');
CALL run_checkout('psql');
SELECT * FROM stock;
SELECT provider_says('m-2', 'o-2', 'refused');
CALL run_checkout('psql');
SELECT * FROM orders WHERE order_id = 'o-2';
SELECT * FROM stock;

\echo '\n*** 11. Nobody pays in time (there is none). Later somebody does: that money goes back ***\n'

SELECT version FROM cqrs_es.execute_command('order', 'o-3', 'Place', '{"customer": "alan", "sku": "pen", "quantity": 5, "amount": 7.50, "minutes": 0}',
    metadata => '{"correlation_id": "web-3"}', command_id => '7d3f2a40-0000-4000-8000-000000000003');
CALL run_checkout('psql');
SELECT due_payments();
SELECT due_payments();
CALL run_checkout('psql');
SELECT * FROM orders WHERE order_id = 'o-3';
SELECT provider_says('m-3', 'o-3', 'paid', 7.50);
SELECT state - 'until' AS state FROM cqrs_es.load_aggregate('payment', 'o-3');

\echo '\n*** 12. So much is not there: nothing is asked for ***\n'

SELECT version FROM cqrs_es.execute_command('order', 'o-4', 'Place', '{"customer": "ada", "sku": "pen", "quantity": 9, "amount": 13.50, "minutes": 15}',
    metadata => '{"correlation_id": "web-4"}', command_id => '7d3f2a40-0000-4000-8000-000000000004');
CALL run_checkout('psql');
SELECT * FROM orders WHERE order_id = 'o-4';

\echo '\n*** 13. Paid and cancelled at the same time: the money goes back. What is confirmed stays ***\n'

SELECT version FROM cqrs_es.execute_command('order', 'o-5', 'Place', '{"customer": "grace", "sku": "pen", "quantity": 1, "amount": 1.50, "minutes": 15}',
    metadata => '{"correlation_id": "web-5"}', command_id => '7d3f2a40-0000-4000-8000-000000000005');
CALL run_checkout('psql');
SELECT provider_says('m-5', 'o-5', 'paid', 1.50);
SELECT version FROM cqrs_es.execute_command('order', 'o-5', 'Cancel', '{"reason": "changed my mind"}', metadata => '{"correlation_id": "web-5"}');
CALL run_checkout('psql');
SELECT * FROM orders WHERE order_id = 'o-5';
SELECT version FROM cqrs_es.execute_command('order', 'o-1', 'Cancel', '{"reason": "changed my mind"}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE

\echo '\n*** 14. Every event is handed out once more, as after a restore: nothing is done twice ***\n'

SELECT count(*) AS events FROM cqrs_es.events;
SELECT FROM cqrs_es.reset_subscription('checkout', 0);
CALL run_checkout('psql');
SELECT count(*) AS events FROM cqrs_es.events;

\echo '\n*** 15. The whole story of an order, over three streams, and what came of what ***\n'

SELECT e.aggregate_type, e.event_type, cause.event_type AS because_of
FROM cqrs_es.events AS e LEFT JOIN cqrs_es.events AS cause ON cause.event_id::text = e.metadata->>'causation_id'
WHERE e.metadata->>'correlation_id' = 'web-2' ORDER BY e.global_position;

\echo '\n*** 16. What the provider is told, by a program with idempotency keys. (Here nobody sends anything.) ***\n'

CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('payment provider', consumer => 'psql');
SELECT aggregate_id, event_type, payload - 'until' AS payload, event_id IS NOT NULL AS has_key FROM hand ORDER BY aggregate_id, sequence;
SELECT cqrs_es.ack_events(batch) FROM (SELECT DISTINCT batch FROM hand) AS b;

\echo '\n*** 17. The books: what came in and did not go out again was paid for what was sent ***\n'

SELECT sum((payload->>'amount')::numeric) FILTER (WHERE event_type IN ('PaymentReceived', 'MoneyReturned')) AS came_in,
       sum((payload->>'amount')::numeric) FILTER (WHERE event_type IN ('PaymentRefunded', 'MoneyReturned')) AS went_out
FROM cqrs_es.events WHERE aggregate_type = 'payment';
SELECT sum((cqrs_es.aggregate_state('order', order_id)->>'amount')::numeric) AS sold FROM orders WHERE shipment = 'ShipmentSent';
