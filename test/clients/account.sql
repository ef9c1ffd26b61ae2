-- What the programs beside this file talk to: accounts, and a role that may
-- append and read, and no more.

SELECT cqrs_es.create_aggregate('account', initial_state => '{"balance": 0}');
SELECT cqrs_es.define_reducer('account', 'Deposited', '[{"op": "increment", "path": "/balance", "from": "/amount"}]');
SELECT cqrs_es.define_reducer('account', 'Withdrawn', '[{"op": "decrement", "path": "/balance", "from": "/amount"}]');

SELECT cqrs_es.define_command('account', 'Open', $$
    CASE WHEN version > 0 THEN cqrs_es.reject('account is open already', code => 'OPEN')
         WHEN (command @@ 'strict $.owner > ""') IS NOT TRUE THEN cqrs_es.reject('the owner is missing', code => 'OWNER')
         ELSE jsonb_build_object('type', 'Opened', 'payload', jsonb_build_object('owner', command->'owner'))
    END
$$);
SELECT cqrs_es.define_command('account', 'Deposit', $$
    CASE WHEN (command @@ 'strict $.amount > 0') IS NOT TRUE
         THEN cqrs_es.reject('the amount must be a number above 0', code => 'AMOUNT')
         ELSE jsonb_build_object('type', 'Deposited', 'payload', jsonb_build_object('amount', command->'amount'))
    END
$$);
SELECT cqrs_es.define_command('account', 'Withdraw', $$
    CASE WHEN (command @@ 'strict $.amount > 0') IS NOT TRUE
         THEN cqrs_es.reject('the amount must be a number above 0', code => 'AMOUNT')
         WHEN (command->>'amount')::numeric > (state->>'balance')::numeric
         THEN cqrs_es.reject('funds not available', code => 'NSF')
         ELSE jsonb_build_object('type', 'Withdrawn', 'payload', jsonb_build_object('amount', command->'amount'))
    END
$$);

CREATE TABLE cursors (reader text PRIMARY KEY, position bigint NOT NULL);
INSERT INTO cursors VALUES ('mails', 0);

CREATE ROLE shop LOGIN;
GRANT USAGE ON SCHEMA cqrs_es TO shop;
GRANT SELECT, INSERT ON cqrs_es.events TO shop;
GRANT SELECT, UPDATE ON cursors TO shop;
