\i test/include/setup.sql
-- The checkout: what must hold in its database, whatever comes twice, late or in
-- the wrong order. (Many at once, and who is killed: 063_saga.)
\set example saga
\i test/include/example.sql
BEGIN;
SELECT plan(64);

-- Commands that are refused, and those of the process that come too late.
SELECT is(pg_temp.refusal('order', id, command, payload::jsonb), refusal, id || ' ' || command || ' ' || payload)
FROM (VALUES (1, 'o-1', 'Place', '{"customer": "c", "sku": "pen", "quantity": 1, "amount": 1, "minutes": 1}', 'QE301 PLACED there is such an order already'),
	(2, 'none', 'Place', '{"customer": "c", "sku": "pen", "quantity": 1.5, "amount": 1, "minutes": 1}',
		'QE301 INCOMPLETE who wants how much of what, for which amount, to be paid within how many minutes?'),
	(3, 'none', 'Place', '{"customer": "c", "sku": "pen", "quantity": 1, "minutes": 1}',
		'QE301 INCOMPLETE who wants how much of what, for which amount, to be paid within how many minutes?'),
	(4, 'none', 'Cancel', '{}', 'QE301 NOT_FOUND there is no such order'),
	(5, 'o-1', 'Cancel', '{}', 'QE301 CONFIRMED it is paid, and on its way'),
	(6, 'o-2', 'Cancel', '{}', NULL)) AS t (n, id, command, payload, refusal)
ORDER BY n;
SELECT is((SELECT global_position FROM cqrs_es.execute_command(part, id, command, '{"sku": "pen", "quantity": 1, "amount": 1, "minutes": 0}')), NULL,
	format('%s of %s: nothing happens', command, id))
FROM (VALUES ('order', 'Confirm'), ('shipment', 'Prepare'), ('shipment', 'Send'), ('shipment', 'Cancel'), ('payment', 'Request'), ('payment', 'Refuse'),
	('payment', 'TimeOut')) AS c (part, command), unnest('{o-1,o-2,o-3,o-4,o-5}'::text[]) AS id
WHERE NOT (id = 'o-4' AND part = 'payment' AND command IN ('Refuse', 'TimeOut'))
ORDER BY id, part, command;
SELECT is((SELECT count(*) FROM cqrs_es.events), 31::bigint, 'nothing has happened');
SELECT is((SELECT global_position FROM cqrs_es.execute_command('payment', 'o-1', 'TimeOut')), NULL, 'what is paid is not timed out');

-- Time-outs come when it is time.
SELECT is(pg_temp.refusal('payment', 'p', 'Request', '{"amount": 5, "minutes": 10}'), NULL, 'a payment with a time to come');
SELECT is(due_payments(), 0::bigint, 'is not due');
SELECT is((SELECT global_position FROM cqrs_es.execute_command('payment', 'p', 'TimeOut')), NULL, 'whoever says so');
SELECT is(pg_temp.refusal('payment', 'now-' || n, 'Request', '{"amount": 5, "minutes": 0}'), NULL, 'one with none') FROM generate_series(1, 3) AS n;
SELECT is(ARRAY[due_payments(2), due_payments(2), due_payments(2)], '{2,1,0}', 'all that are due, some at a time');

-- Money: what is waited for is taken, all other goes back; a message counts once.
SELECT is(provider_says('p-1', 'p', 'paid', 4), 'done', 'less than was asked for');
SELECT is(provider_says('p-2', 'p', 'paid', 5.0), 'done', 'just what was asked for');
SELECT is(provider_says('p-2', 'p', 'paid', 5.0), 'known already', 'said twice');
SELECT is(provider_says('p-3', 'p', 'paid', 5), 'done', 'paid twice');
SELECT is(provider_says('p-4', 'p', 'refused'), 'done', 'refused after that');
SELECT is((SELECT string_agg(event_type || coalesce(' ' || (payload->>'amount'), ''), ', ' ORDER BY sequence) FROM cqrs_es.read_stream('payment', 'p')),
	'PaymentRequested 5, MoneyReturned 4, PaymentReceived 5.0, MoneyReturned 5', 'what became of it');
SELECT is(provider_says('p-5', 'nobody', 'paid', 7), 'unclaimed', 'money for nothing we know');
SELECT is(provider_says('p-5', 'nobody', 'paid', 7), 'known already', 'once');
SELECT results_eq('SELECT message_id, order_id, amount FROM unclaimed_money', $$VALUES ('p-5', 'nobody', 7::numeric)$$, 'is kept for somebody to look');

-- The cancellation overtakes the request.
SELECT is(pg_temp.refusal('payment', 'early', 'Cancel'), NULL, 'cancelled before it was requested');
SELECT is((SELECT global_position FROM cqrs_es.execute_command('payment', 'early', 'Request', '{"amount": 5, "minutes": 10}')), NULL, 'it is not requested any more');

-- Correlation: one for all that belongs to an order, also of time-outs and messages.
SELECT is((SELECT string_agg(concat_ws(' ', id, ids), ', ' ORDER BY id) FROM (
		SELECT aggregate_id AS id, string_agg(DISTINCT metadata->>'correlation_id', ' ') AS ids FROM cqrs_es.events WHERE aggregate_id LIKE 'o-%' GROUP BY 1) AS e),
	'o-1 web-1, o-2 web-2, o-3 web-3, o-4 web-4, o-5 web-5', 'each order has one correlation id');
SELECT is((SELECT string_agg(DISTINCT e.event_type, ', ' ORDER BY e.event_type) FROM cqrs_es.events AS e WHERE e.aggregate_id LIKE 'o-%'
		AND NOT EXISTS (SELECT FROM cqrs_es.events AS cause WHERE cause.event_id::text = e.metadata->>'causation_id')),
	'MoneyReturned, OrderCancelled, OrderPlaced, PaymentReceived, PaymentRefused', 'what was not caused by an event came from outside');

-- What is handed out twice is done once, also the events of before.
SELECT count(*) AS events FROM cqrs_es.events \gset
SELECT is((SELECT count(take_steps(aggregate_type, aggregate_id, sequence)) FROM cqrs_es.events WHERE aggregate_id LIKE 'o-%'), 30::bigint, 'all steps once more');
SELECT is((SELECT count(*) FROM cqrs_es.events), :events::bigint, 'none is doubled');
SELECT results_eq('SELECT * FROM stock', $$VALUES ('pen', 8::numeric)$$, 'nor has the stock changed');

SELECT finish();
ROLLBACK;
\i test/include/example_end.sql
