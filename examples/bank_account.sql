-- A bank account: rules that look into tables, exact money, metadata, and what
-- is outside: a mailer, and a fraud check that answers with a command.
--
--	psql -d an_empty_database -f examples/bank_account.sql
--
-- Commands OpenAccount{account_id}, DepositMoney{amount}, WithdrawMoney{amount,
-- atm_id}, WriteCheck{check_number, amount}, FreezeAccount{because},
-- ReleaseAccount{}; events AccountOpened{account_id}, CustomerDepositedMoney{amount,
-- balance}, CustomerWithdrewCash{amount, balance}, CustomerWroteCheck{check_number,
-- amount, balance}, AccountFrozen{because}, AccountReleased{}. Numbers in JSON are
-- numeric: no amount is ever a floating-point number.
--
-- What 11 to 14 do by hand, bank_account.py does as a program.

-- What psql prints: commands, and of errors no context. Declarations return
-- nothing worth printing.
\set QUIET on
\set ECHO queries
\set SHOW_CONTEXT never
\set ON_ERROR_STOP on
\o /dev/null

\echo '\n*** 1. Install the extension; say how events change the state of an account ***\n'

CREATE EXTENSION cqrs_es;

-- (AccountOpened needs no reducer: its payload is merged into the state.)
SELECT cqrs_es.create_aggregate('account', initial_state => '{"balance": 0}');
SELECT cqrs_es.define_reducer('account', 'CustomerDepositedMoney', '[
    {"op": "set",    "path": "/balance", "from": "/balance"}]');
SELECT cqrs_es.define_reducer('account', 'CustomerWithdrewCash', '[
    {"op": "set",    "path": "/balance", "from": "/balance"}]');
SELECT cqrs_es.define_reducer('account', 'CustomerWroteCheck', '[
    {"op": "set",    "path": "/balance", "from": "/balance"},
    {"op": "append", "path": "/checks",  "from": "/check_number"}]');
SELECT cqrs_es.define_reducer('account', 'AccountFrozen', '[
    {"op": "set",    "path": "/frozen",  "value": true}]');
SELECT cqrs_es.define_reducer('account', 'AccountReleased', '[
    {"op": "set",    "path": "/frozen",  "value": false}]');

\echo '\n*** 2. What the commands have to know: our ATMs, and the checks we handed out ***\n'

CREATE TABLE atms (atm_id text PRIMARY KEY);
CREATE TABLE checks (account_id text, check_number text, PRIMARY KEY (account_id, check_number));
INSERT INTO atms VALUES ('ATM34f1ba3c');
INSERT INTO checks VALUES ('ACCT-1', '1170'), ('ACCT-1', '1171');

\echo '\n*** 3. Commands: an expression over the state decides which event follows, or refuses ***\n'

CREATE FUNCTION positive(amount jsonb) RETURNS numeric LANGUAGE sql AS $$
    SELECT CASE WHEN jsonb_typeof(amount) = 'number' AND amount::numeric > 0
                THEN amount::numeric
                ELSE cqrs_es.reject('amount must be positive', code => 'AMOUNT_NOT_POSITIVE')::numeric END
$$;

SELECT cqrs_es.define_command('account', 'OpenAccount', $$
    CASE
        WHEN version > 0 THEN
            cqrs_es.reject('account already open', code => 'ALREADY_OPEN')
        WHEN command->>'account_id' IS DISTINCT FROM aggregate_id THEN
            cqrs_es.reject('account id differs', code => 'ID_DIFFERS')
        ELSE
            jsonb_build_object('type', 'AccountOpened', 'version', '1.0',
                'payload', jsonb_build_object('account_id', command->>'account_id'))
    END
$$);
SELECT cqrs_es.define_command('account', 'DepositMoney', $$
    CASE
        WHEN version = 0 THEN
            cqrs_es.reject('account not found', code => 'NOT_FOUND')
        ELSE
            jsonb_build_object('type', 'CustomerDepositedMoney', 'version', '1.0',
                'payload', jsonb_build_object(
                    'amount', command->'amount',
                    'balance', (state->>'balance')::numeric + positive(command->'amount')))
    END
$$);
SELECT cqrs_es.define_command('account', 'WithdrawMoney', $$
    CASE
        WHEN version = 0 THEN
            cqrs_es.reject('account not found', code => 'NOT_FOUND')
        WHEN state @@ '$.frozen == true' THEN
            cqrs_es.reject('account is frozen', code => 'FROZEN')
        WHEN (state->>'balance')::numeric < positive(command->'amount') THEN
            cqrs_es.reject('funds not available', code => 'FUNDS_NOT_AVAILABLE')
        WHEN NOT EXISTS (SELECT FROM atms WHERE atm_id = command->>'atm_id') THEN
            cqrs_es.reject('atm rule violation', code => 'ATM_RULE_VIOLATION')
        ELSE
            jsonb_build_object('type', 'CustomerWithdrewCash', 'version', '1.0',
                'payload', jsonb_build_object(
                    'amount', command->'amount',
                    'balance', (state->>'balance')::numeric - positive(command->'amount')))
    END
$$);
-- What somebody finds suspicious is on record each time, also when the account is frozen already.
SELECT cqrs_es.define_command('account', 'FreezeAccount', $$
    CASE
        WHEN version = 0 THEN
            cqrs_es.reject('account not found', code => 'NOT_FOUND')
        ELSE
            jsonb_build_object('type', 'AccountFrozen', 'version', '1.0',
                'payload', jsonb_build_object('because', command->'because'))
    END
$$);
SELECT cqrs_es.define_command('account', 'ReleaseAccount', $$
    CASE
        WHEN (state @@ '$.frozen == true') IS NOT TRUE THEN
            cqrs_es.reject('account is not frozen', code => 'NOT_FROZEN')
        ELSE
            jsonb_build_object('type', 'AccountReleased', 'version', '1.0', 'payload', '{}'::jsonb)
    END
$$);
-- A check is valid if the account got it, and once.
SELECT cqrs_es.define_command('account', 'WriteCheck', $$
    CASE
        WHEN version = 0 THEN
            cqrs_es.reject('account not found', code => 'NOT_FOUND')
        WHEN state @@ '$.frozen == true' THEN
            cqrs_es.reject('account is frozen', code => 'FROZEN')
        WHEN (state->>'balance')::numeric < positive(command->'amount') THEN
            cqrs_es.reject('funds not available', code => 'FUNDS_NOT_AVAILABLE')
        WHEN state->'checks' ? (command->>'check_number')
          OR NOT EXISTS (SELECT FROM checks
                         WHERE account_id = aggregate_id AND check_number = command->>'check_number') THEN
            cqrs_es.reject('check invalid', code => 'CHECK_INVALID')
        ELSE
            jsonb_build_object('type', 'CustomerWroteCheck', 'version', '1.0',
                'payload', jsonb_build_object(
                    'check_number', command->>'check_number',
                    'amount', command->'amount',
                    'balance', (state->>'balance')::numeric - positive(command->'amount')))
    END
$$);

\echo '\n*** 4. A view of each account, written in the transaction of the event ***\n'

CREATE TABLE account_query (
    view_id text PRIMARY KEY,
    version bigint NOT NULL,
    payload jsonb NOT NULL
);

SELECT cqrs_es.create_projection('account_query', aggregate_types => '{account}', read_models => '{account_query}');
SELECT cqrs_es.define_handler('account_query', 'AccountOpened', $$
    INSERT INTO account_query (view_id, version, payload)
    VALUES (event.aggregate_id, event.sequence, jsonb_build_object(
        'account_id', event.payload->'account_id', 'balance', 0, 'written_checks', '[]'::jsonb, 'ledger', '[]'::jsonb))
$$);
SELECT cqrs_es.define_handler('account_query', 'CustomerDepositedMoney', $$
    UPDATE account_query SET version = event.sequence, payload = payload || jsonb_build_object(
        'balance', event.payload->'balance',
        'ledger', payload->'ledger' || jsonb_build_object('description', 'deposit', 'amount', event.payload->'amount'))
    WHERE view_id = event.aggregate_id
$$);
SELECT cqrs_es.define_handler('account_query', 'CustomerWithdrewCash', $$
    UPDATE account_query SET version = event.sequence, payload = payload || jsonb_build_object(
        'balance', event.payload->'balance',
        'ledger', payload->'ledger' || jsonb_build_object('description', 'atm withdrawal', 'amount', event.payload->'amount'))
    WHERE view_id = event.aggregate_id
$$);
SELECT cqrs_es.define_handler('account_query', 'CustomerWroteCheck', $$
    UPDATE account_query SET version = event.sequence, payload = payload || jsonb_build_object(
        'balance', event.payload->'balance',
        'written_checks', payload->'written_checks' || (event.payload->'check_number'),
        'ledger', payload->'ledger' || jsonb_build_object('description', event.payload->'check_number', 'amount', event.payload->'amount'))
    WHERE view_id = event.aggregate_id
$$);
SELECT cqrs_es.define_handler('account_query', event_type, $$
    UPDATE account_query SET version = event.sequence, payload = payload || jsonb_build_object(
        'frozen', event.event_type = 'AccountFrozen')
    WHERE view_id = event.aggregate_id
$$)
FROM unnest(ARRAY['AccountFrozen', 'AccountReleased']) AS event_type;

\echo '\n*** ... and what the outside has to know: a queue for each who listens, so that none waits for the other ***\n'

SELECT cqrs_es.create_subscription('mails', aggregate_types => '{account}', max_attempts => 5);
SELECT cqrs_es.create_subscription('fraud_check', event_types => '{CustomerWithdrewCash, CustomerWroteCheck}', max_attempts => 5);

-- From here on results are printed, and a refusal does not end the script.
\o
\set ON_ERROR_STOP off

\echo '\n*** 5. Open the account and pay in. What every event should know of the request is said once per transaction ***\n'

BEGIN;
SET LOCAL cqrs_es.context = '{"time": "2026-03-01T09:30:00Z", "uri": "/account/ACCT-1", "user_agent": "curl/8.5"}';
SELECT version, state FROM cqrs_es.execute_command('account', 'ACCT-1', 'OpenAccount', '{"account_id": "ACCT-1"}');
SELECT version, state FROM cqrs_es.execute_command('account', 'ACCT-1', 'DepositMoney', '{"amount": 1000.10}');
SELECT version, state FROM cqrs_es.execute_command('account', 'ACCT-1', 'DepositMoney', '{"amount": 0.20}');
COMMIT;

\echo '\n*** 6. Take money out. A command with an id may be sent twice: money is paid once ***\n'

BEGIN;
SET LOCAL cqrs_es.context = '{"time": "2026-03-02T18:04:11Z", "uri": "/atm/ATM34f1ba3c", "user_agent": "atm/2.1"}';
SELECT version, state FROM cqrs_es.execute_command('account', 'ACCT-1', 'WithdrawMoney', '{"amount": 200, "atm_id": "ATM34f1ba3c"}',
    command_id => '0b9ac4ee-5a4c-4a6b-9a53-000000000001');
COMMIT;
BEGIN;
SET LOCAL cqrs_es.context = '{"time": "2026-03-02T18:04:16Z", "uri": "/atm/ATM34f1ba3c", "user_agent": "atm/2.1"}';
SELECT version, state FROM cqrs_es.execute_command('account', 'ACCT-1', 'WithdrawMoney', '{"amount": 200, "atm_id": "ATM34f1ba3c"}',
    command_id => '0b9ac4ee-5a4c-4a6b-9a53-000000000001');
COMMIT;
BEGIN;
SET LOCAL cqrs_es.context = '{"time": "2026-03-03T07:55:00Z", "uri": "/account/ACCT-1", "user_agent": "curl/8.5"}';
SELECT version, state FROM cqrs_es.execute_command('account', 'ACCT-1', 'WriteCheck', '{"check_number": "1170", "amount": 99.95}');
COMMIT;

\echo '\n*** 7. Refusals: each has a SQLSTATE, a message and a code, and leaves no trace ***\n'

SELECT * FROM cqrs_es.execute_command('account', 'ACCT-1', 'WithdrawMoney', '{"amount": 700.36, "atm_id": "ATM34f1ba3c"}');
SELECT * FROM cqrs_es.execute_command('account', 'ACCT-1', 'WriteCheck', '{"check_number": "1171", "amount": 700.36}');
SELECT * FROM cqrs_es.execute_command('account', 'ACCT-1', 'WithdrawMoney', '{"amount": 10, "atm_id": "a stranger"}');
SELECT * FROM cqrs_es.execute_command('account', 'ACCT-1', 'WriteCheck', '{"check_number": "9999", "amount": 10}');
SELECT * FROM cqrs_es.execute_command('account', 'ACCT-1', 'WriteCheck', '{"check_number": "1170", "amount": 10}');
SELECT * FROM cqrs_es.execute_command('account', 'ACCT-1', 'DepositMoney', '{"amount": 0}');
SELECT * FROM cqrs_es.execute_command('account', 'ACCT-1', 'WithdrawMoney', '{"amount": -5, "atm_id": "ATM34f1ba3c"}');
SELECT * FROM cqrs_es.execute_command('account', 'ACCT-1', 'WriteCheck', '{"check_number": "1171", "amount": "NaN"}');
SELECT * FROM cqrs_es.execute_command('account', 'ACCT-1', 'OpenAccount', '{"account_id": "ACCT-1"}');
SELECT * FROM cqrs_es.execute_command('account', 'ACCT-2', 'DepositMoney', '{"amount": 10}');
\echo SQLSTATE :LAST_ERROR_SQLSTATE

\echo '\n*** 8. To the last cent, and not one further ***\n'

BEGIN;
SET LOCAL cqrs_es.context = '{"time": "2026-03-04T12:00:00Z", "uri": "/account/ACCT-1", "user_agent": "curl/8.5"}';
SELECT version, state FROM cqrs_es.execute_command('account', 'ACCT-1', 'WriteCheck', '{"check_number": "1171", "amount": 700.35}');
COMMIT;

\echo '\n*** 9. The view: it changed with the events ***\n'

SELECT view_id, version, jsonb_pretty(payload) AS payload FROM account_query WHERE view_id = 'ACCT-1';

\echo '\n*** 10. The events, and the request they came from; the account as it was after the second ***\n'

SELECT sequence, event_type, event_version, payload FROM cqrs_es.read_stream('account', 'ACCT-1');
SELECT sequence, metadata->>'time' AS time, metadata->>'uri' AS uri, metadata->>'user_agent' AS user_agent
FROM cqrs_es.read_stream('account', 'ACCT-1');
SELECT cqrs_es.aggregate_state('account', 'ACCT-1', at_sequence => 2);

\echo '\n*** 11. The fraud check takes from its queue what it can, and asks about it. The check of 700.35 is suspicious: it answers with a command ***\n'

CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('fraud_check', consumer => 'psql', max_count => 2);
SELECT aggregate_id, sequence, event_type, payload->'amount' AS amount FROM hand;
SELECT cqrs_es.ack_events(batch) FROM hand LIMIT 1;

DROP TABLE hand;
CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('fraud_check', consumer => 'psql', max_count => 2);
SELECT aggregate_id, sequence, event_type, payload->'amount' AS amount FROM hand;

-- The command has the id of the event that it answers, so that it can be sent again.
\set freeze 'SELECT version, state FROM cqrs_es.execute_command(''account'', ''ACCT-1'', ''FreezeAccount'', ''{"because": 6}'',\n    command_id => (SELECT event_id FROM hand WHERE sequence = 6));'
:freeze

\echo '\n*** 12. It dies, before it has said that it is done. The account is frozen, until somebody has talked with the customer ***\n'

SELECT * FROM cqrs_es.execute_command('account', 'ACCT-1', 'WithdrawMoney', '{"amount": 10, "atm_id": "ATM34f1ba3c"}');
SELECT version, state FROM cqrs_es.execute_command('account', 'ACCT-1', 'ReleaseAccount');

\echo '\n*** 13. It is started again, gets the event again, and answers again. That is the command of before: nothing is frozen twice ***\n'

DROP TABLE hand;
CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('fraud_check', consumer => 'psql', max_count => 2, resume => true);
SELECT aggregate_id, sequence, event_type, payload->'amount' AS amount FROM hand;
:freeze
SELECT cqrs_es.ack_events(batch) FROM hand LIMIT 1;
SELECT version, state FROM cqrs_es.load_aggregate('account', 'ACCT-1');

\echo '\n*** 14. The mailer has a queue of its own. Its server is busy at the third mail: that comes again, with all behind it, and nothing before it ***\n'

DROP TABLE hand;
CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('mails', consumer => 'psql', max_count => 5);
SELECT sequence, event_type, attempt FROM hand;
SELECT cqrs_es.nack_event(batch, global_position, error => 'smtp 451', retry_after => '0 s') FROM hand WHERE sequence = 3;
SELECT cqrs_es.ack_events(batch) FROM hand LIMIT 1;
DROP TABLE hand;
CREATE TEMP TABLE hand AS SELECT * FROM cqrs_es.receive_events('mails', consumer => 'psql', max_count => 5);
SELECT sequence, event_type, attempt FROM hand;
SELECT cqrs_es.ack_events(batch) FROM hand LIMIT 1;
