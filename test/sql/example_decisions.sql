\i test/include/setup.sql
-- Decisions across streams, the example: what must hold in its database.
\set example decisions
\i test/include/example.sql
BEGIN;
SELECT plan(17);

-- How a command of a boundary is refused: SQLSTATE, code, message; NULL when it is not.
CREATE FUNCTION pg_temp.refused(boundary text, command text, payload jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	code text;
BEGIN
	PERFORM cqrs_es.execute_boundary(boundary, command, payload);
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS code = CONSTRAINT_NAME;
	RETURN concat_ws(' ', SQLSTATE, nullif(code, ''), SQLERRM);
END $$;

SELECT matches(pg_temp.refused('username', 'Register', '{}'), '^QE502 ', 'no name: then it is not known whom it concerns');
SELECT is(pg_temp.refused('username', 'Register', '{"username": ""}'), 'QE301 user name is missing', 'an empty one');
SELECT is(pg_temp.refused('username', 'Register', '{"username": "countess"}'), 'QE301 TAKEN user name is taken', 'a name that somebody changed to');
SELECT is(pg_temp.refused('username', 'Register', '{"username": "ada"}'), NULL, 'one that was given up');
SELECT is(pg_temp.refused('username', 'Change', '{"old": "countess", "username": "ada"}'), 'QE301 TAKEN user name is taken', 'changed to one that is taken');
SELECT results_eq($$SELECT (payload->>'number')::int FROM cqrs_es.read_matching('[{"types": ["InvoiceIssued"]}]')$$, 'VALUES (1), (2)', 'numbers of invoices');
SELECT is((SELECT count(*) FROM cqrs_es.read_matching('[{"tags": ["order-token:f3a1"]}]')), 1::bigint, 'one order for one token');
SELECT is((SELECT string_agg(aggregate_id, ' ') FROM cqrs_es.events WHERE event_type = 'OrderPlaced'), 'o-1', 'the first');
SELECT is(pg_temp.refused('sign_up', 'Confirm', '{"email": "ada@example.com", "otp": "2222"}'), 'QE301 USED the token was used', 'a token that was used');
SELECT is(pg_temp.refused('sign_up', 'Confirm', '{"email": "ada@example.com", "otp": "1111"}'), 'QE301 EXPIRED the token has expired', 'one that is too old');
SELECT is(pg_temp.refused('sign_up', 'Confirm', '{"email": "eve@example.com", "otp": "1111"}'), 'QE301 UNKNOWN nobody with this address waits for this token', 'one of somebody else');
SELECT throws_ok($$SELECT order_products('{"tea": 4, "saucer": 1}')$$, 'QE301', NULL, 'a product without a price');
SELECT is(order_products('{"cup": 8}'), 1::bigint, 'one product');
SELECT is((SELECT tags FROM cqrs_es.read_matching('[{"types": ["ProductsOrdered"]}]') LIMIT 1), '{product:cup,product:tea}', 'an order has a tag for each product');
SELECT is(pg_temp.refused('room', 'Book', '{"room": "7", "booking": "b9", "from": "2030-05-01 10:30", "to": "2030-05-01 10:45"}'), 'QE301 TAKEN the room is taken', 'within another booking');
SELECT is(pg_temp.refused('room', 'Book', '{"room": "8", "booking": "b9", "from": "2030-05-01 10:30", "to": "2030-05-01 10:45"}'), NULL, 'another room');
SELECT is(pg_temp.refused('room', 'Book', '{"room": "8", "booking": "b8", "from": "2030-05-01 10:30", "to": "2030-05-01 10:30"}'), 'QE301 from when to when?', 'no time at all');
SELECT finish();
ROLLBACK;
\i test/include/example_end.sql
