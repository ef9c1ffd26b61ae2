-- Decisions across streams: the worked examples of dcb.events, in short. (The one with courses
-- and students is enrolment.sql.)
--
--	psql -d an_empty_database -f examples/decisions.sql
--
-- 1. a unique user name     2. invoice numbers without a hole   3. a request that comes twice
-- 4. an opt-in token        5. prices that change               6. no room booked twice
--
-- None of these rules is about one stream. Each asks for the events that concern it, by
-- their tags, and is decided as if nobody else did anything meanwhile.

-- What psql prints: commands, and of errors what was refused (that of a condition also has a
-- detail, with the position of the event that was in the way). Declarations return nothing
-- worth printing.
\set QUIET on
\set ECHO queries
\set VERBOSITY terse
\set ON_ERROR_STOP on
\o /dev/null

CREATE EXTENSION cqrs_es;

\echo '\n*** 1. A unique user name: given up, it is free again ***\n'

SELECT cqrs_es.define_tags('AccountRegistered', 'username:{/username}');
SELECT cqrs_es.define_tags('AccountSuspended',  'username:{/username}');
SELECT cqrs_es.define_tags('UsernameChanged',   'username:{/old}', 'username:{/username}');

SELECT cqrs_es.create_boundary('username', '[{"tags": ["username:{/username}"]}]', initial_state => '{"taken": {}}');
SELECT cqrs_es.define_reducer('username', 'AccountRegistered', '[{"op": "set", "path": "/taken/{/username}", "value": true}]');
SELECT cqrs_es.define_reducer('username', 'AccountSuspended',  '[{"op": "set", "path": "/taken/{/username}", "value": false}]');
SELECT cqrs_es.define_reducer('username', 'UsernameChanged',   '[{"op": "set", "path": "/taken/{/old}",      "value": false},
                                                                {"op": "set", "path": "/taken/{/username}", "value": true}]');

SELECT cqrs_es.define_command('username', 'Register', $$
    CASE WHEN (command @@ 'strict $.username > ""') IS NOT TRUE THEN cqrs_es.reject('user name is missing')
         WHEN (state->'taken'->>(command->>'username'))::boolean THEN cqrs_es.reject('user name is taken', code => 'TAKEN')
         ELSE jsonb_build_object('type', 'AccountRegistered', 'payload', jsonb_build_object('username', command->'username')) END
$$);
SELECT cqrs_es.define_command('username', 'Change', $$
    CASE WHEN (command @@ 'strict $.username > "" && $.old > ""') IS NOT TRUE THEN cqrs_es.reject('which name, and what was it?')
         WHEN (state->'taken'->>(command->>'username'))::boolean THEN cqrs_es.reject('user name is taken', code => 'TAKEN')
         ELSE jsonb_build_object('type', 'UsernameChanged', 'payload', jsonb_build_object('old', command->'old', 'username', command->'username')) END
$$);

-- From here on results are printed, and a refusal does not end the script.
\o
\set ON_ERROR_STOP off

SELECT state FROM cqrs_es.execute_boundary('username', 'Register', '{"username": "ada"}');
SELECT state FROM cqrs_es.execute_boundary('username', 'Register', '{"username": "ada"}');
SELECT state FROM cqrs_es.execute_boundary('username', 'Change', '{"old": "ada", "username": "countess"}');
SELECT state FROM cqrs_es.execute_boundary('username', 'Register', '{"username": "ada"}');
-- Whoever only tells what has happened needs no decision.
SELECT version FROM cqrs_es.append_event('account', 'a-2', 'AccountSuspended', '{"username": "ada"}');
SELECT cqrs_es.boundary_state('username', '{"username": "ada"}') AS ada, cqrs_es.boundary_state('username', '{"username": "countess"}') AS countess;

\echo '\n*** 2. Invoice numbers: consecutive, without a hole. All invoices have one tag, and the last one says which number it was ***\n'

\o /dev/null
SELECT cqrs_es.define_tags('InvoiceIssued', 'invoices');
\o

CREATE TEMP TABLE seen AS
    SELECT coalesce(max(global_position), 0) AS after, coalesce(max((payload->>'number')::int), 0) + 1 AS number
    FROM cqrs_es.read_matching('[{"tags": ["invoices"]}]', backward => true, max_count => 1);
SELECT version FROM seen, cqrs_es.append_to_streams(
    jsonb_build_array(jsonb_build_object('type', 'InvoiceIssued', 'payload', jsonb_build_object('number', number, 'amount', 100))),
    fail_if_events_match => '[{"tags": ["invoices"]}]', after_position => after);
-- Whoever comes with what was read before that is told to look again. (A boundary does so by itself.)
SELECT version FROM seen, cqrs_es.append_to_streams(
    jsonb_build_array(jsonb_build_object('type', 'InvoiceIssued', 'payload', jsonb_build_object('number', number, 'amount', 250))),
    fail_if_events_match => '[{"tags": ["invoices"]}]', after_position => after);
\echo SQLSTATE :LAST_ERROR_SQLSTATE

DROP TABLE seen;
CREATE TEMP TABLE seen AS
    SELECT coalesce(max(global_position), 0) AS after, coalesce(max((payload->>'number')::int), 0) + 1 AS number
    FROM cqrs_es.read_matching('[{"tags": ["invoices"]}]', backward => true, max_count => 1);
SELECT version FROM seen, cqrs_es.append_to_streams(
    jsonb_build_array(jsonb_build_object('type', 'InvoiceIssued', 'payload', jsonb_build_object('number', number, 'amount', 250))),
    fail_if_events_match => '[{"tags": ["invoices"]}]', after_position => after);
SELECT payload FROM cqrs_es.read_matching('[{"tags": ["invoices"]}]');

\echo '\n*** 3. A request that comes twice: the form has a token, and there must be no order with it. Nothing needs to be read ***\n'

\o /dev/null
SELECT cqrs_es.define_tags('OrderPlaced', 'order-token:{/token}');
\o

SELECT version FROM cqrs_es.append_to_streams('[{"type": "OrderPlaced", "aggregate_type": "order", "aggregate_id": "o-1", "payload": {"token": "f3a1", "item": "tea"}}]',
    fail_if_events_match => '[{"tags": ["order-token:f3a1"]}]');
SELECT version FROM cqrs_es.append_to_streams('[{"type": "OrderPlaced", "aggregate_type": "order", "aggregate_id": "o-2", "payload": {"token": "f3a1", "item": "tea"}}]',
    fail_if_events_match => '[{"tags": ["order-token:f3a1"]}]');
\echo SQLSTATE :LAST_ERROR_SQLSTATE

\echo '\n*** 4. An opt-in token: for this address, not used yet, not too old. Both tags of an item must be there ***\n'

\o /dev/null
\set ON_ERROR_STOP on
SELECT cqrs_es.define_tags('SignUpStarted',   'email:{/email}', 'otp:{/otp}');
SELECT cqrs_es.define_tags('SignUpConfirmed', 'email:{/email}', 'otp:{/otp}');
SELECT cqrs_es.create_boundary('sign_up', '[{"tags": ["email:{/email}", "otp:{/otp}"]}]');
SELECT cqrs_es.define_reducer('sign_up', 'SignUpStarted', '[
    {"op": "set", "path": "/name",    "from": "/name"},
    {"op": "set", "path": "/expires", "from": "/expires"}]');
SELECT cqrs_es.define_reducer('sign_up', 'SignUpConfirmed', '[{"op": "set", "path": "/used", "value": true}]');
SELECT cqrs_es.define_command('sign_up', 'Confirm', $$
    CASE WHEN NOT state ? 'name' THEN cqrs_es.reject('nobody with this address waits for this token', code => 'UNKNOWN')
         WHEN state ? 'used' THEN cqrs_es.reject('the token was used', code => 'USED')
         WHEN (state->>'expires')::timestamptz < now() THEN cqrs_es.reject('the token has expired', code => 'EXPIRED')
         ELSE jsonb_build_object('type', 'SignUpConfirmed',
                                 'payload', jsonb_build_object('email', command->'email', 'otp', command->'otp', 'name', state->'name')) END
$$);
\set ON_ERROR_STOP off
\o

SELECT version FROM cqrs_es.append_events('sign_up', 'ada@example.com', '[
    {"type": "SignUpStarted", "payload": {"email": "ada@example.com", "otp": "1111", "name": "Ada", "expires": "2020-01-01"}},
    {"type": "SignUpStarted", "payload": {"email": "ada@example.com", "otp": "2222", "name": "Ada", "expires": "2999-01-01"}}]');
SELECT state FROM cqrs_es.execute_boundary('sign_up', 'Confirm', '{"email": "eve@example.com", "otp": "2222"}');
SELECT state FROM cqrs_es.execute_boundary('sign_up', 'Confirm', '{"email": "ada@example.com", "otp": "1111"}');
SELECT state FROM cqrs_es.execute_boundary('sign_up', 'Confirm', '{"email": "ada@example.com", "otp": "2222"}');
SELECT state FROM cqrs_es.execute_boundary('sign_up', 'Confirm', '{"email": "ada@example.com", "otp": "2222"}');

\echo '\n*** 5. Prices that change: an order of several products, each at the price that was shown, and that is still the price ***\n'

\o /dev/null
\set ON_ERROR_STOP on
SELECT cqrs_es.define_tags('PriceSet',        'product:{/product}');
SELECT cqrs_es.define_tags('ProductsOrdered', 'product:{/products}');

-- The query depends on what is in the cart, so this is no boundary: it reads, decides and
-- appends by itself. Orders are no concern of one another: it asks for prices alone.
CREATE FUNCTION order_products(cart jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    query jsonb := (SELECT jsonb_agg(jsonb_build_object('types', '["PriceSet"]'::jsonb, 'tags', jsonb_build_array('product:' || product)))
                    FROM jsonb_object_keys(cart) AS product);
    after bigint;
    prices jsonb;
BEGIN
    SELECT coalesce(max(global_position), 0), coalesce(jsonb_object_agg(payload->>'product', payload->'price' ORDER BY global_position), '{}')
        INTO after, prices FROM cqrs_es.read_matching(query);
    IF cart <> prices THEN
        PERFORM cqrs_es.reject(format('the prices are %s', prices));
    END IF;
    PERFORM FROM cqrs_es.append_to_streams(
        jsonb_build_array(jsonb_build_object('type', 'ProductsOrdered',
            'payload', jsonb_build_object('products', (SELECT jsonb_agg(product) FROM jsonb_object_keys(cart) AS product), 'cart', cart))),
        fail_if_events_match => query, after_position => after);
    RETURN jsonb_array_length(query);
END $$;
\set ON_ERROR_STOP off
\o

SELECT version FROM cqrs_es.append_events('price list', 'summer', '[
    {"type": "PriceSet", "payload": {"product": "tea", "price": 3}},
    {"type": "PriceSet", "payload": {"product": "cup", "price": 8}},
    {"type": "PriceSet", "payload": {"product": "tea", "price": 4}}]');
SELECT order_products('{"tea": 3, "cup": 8}');
SELECT order_products('{"tea": 4, "cup": 8}') AS products;
SELECT event_type, payload->'cart' AS cart, tags FROM cqrs_es.read_matching('[{"types": ["ProductsOrdered"], "tags": ["product:tea"]}]');

\echo '\n*** 6. No room is booked twice: what overlaps is refused ***\n'

\o /dev/null
\set ON_ERROR_STOP on
SELECT cqrs_es.define_tags('RoomBooked',       'room:{/room}');
SELECT cqrs_es.define_tags('BookingCancelled', 'room:{/room}');
SELECT cqrs_es.create_boundary('room', '[{"types": ["RoomBooked", "BookingCancelled"], "tags": ["room:{/room}"]}]', initial_state => '{"bookings": {}}');
SELECT cqrs_es.define_reducer('room', 'RoomBooked', '[
    {"op": "set", "path": "/bookings/{/booking}/from", "from": "/from"},
    {"op": "set", "path": "/bookings/{/booking}/to",   "from": "/to"}]');
SELECT cqrs_es.define_reducer('room', 'BookingCancelled', '[{"op": "remove", "path": "/bookings/{/booking}"}]');
SELECT cqrs_es.define_command('room', 'Book', $$
    CASE WHEN (command @@ 'strict $.booking > "" && $.from > "" && $.to > $.from') IS NOT TRUE THEN cqrs_es.reject('from when to when?')
         WHEN EXISTS (SELECT FROM jsonb_each(state->'bookings') AS b (booking, times)
                      WHERE tsrange((times->>'from')::timestamp, (times->>'to')::timestamp) && tsrange((command->>'from')::timestamp, (command->>'to')::timestamp))
         THEN cqrs_es.reject('the room is taken', code => 'TAKEN')
         ELSE jsonb_build_object('type', 'RoomBooked', 'payload', command) END
$$);
SELECT cqrs_es.define_command('room', 'Cancel', $$
    CASE WHEN state->'bookings' ? (command->>'booking')
         THEN jsonb_build_object('type', 'BookingCancelled', 'payload', jsonb_build_object('room', command->'room', 'booking', command->'booking'))
         ELSE '[]' END
$$);
\set ON_ERROR_STOP off
\o

SELECT state FROM cqrs_es.execute_boundary('room', 'Book', '{"room": "7", "booking": "b1", "from": "2030-05-01 09:00", "to": "2030-05-01 10:00"}');
SELECT state FROM cqrs_es.execute_boundary('room', 'Book', '{"room": "7", "booking": "b2", "from": "2030-05-01 09:30", "to": "2030-05-01 11:00"}');
SELECT jsonb_object_keys(state->'bookings') AS booking FROM cqrs_es.execute_boundary('room', 'Book', '{"room": "7", "booking": "b3", "from": "2030-05-01 10:00", "to": "2030-05-01 11:00"}');
SELECT jsonb_object_keys(state->'bookings') AS booking FROM cqrs_es.execute_boundary('room', 'Cancel', '{"room": "7", "booking": "b1"}');
SELECT jsonb_object_keys(state->'bookings') AS booking FROM cqrs_es.execute_boundary('room', 'Book', '{"room": "7", "booking": "b4", "from": "2030-05-01 09:30", "to": "2030-05-01 10:00"}');
