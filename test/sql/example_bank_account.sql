\i test/include/setup.sql
-- The bank account: what must hold in its database.
\set example bank_account
\i test/include/example.sql
BEGIN;
SELECT plan(61);

SELECT is(pg_temp.refusal('account', 'ACCT-1', 'DepositMoney', '{"amount": 100}'), NULL, 'money is needed');
INSERT INTO checks VALUES ('ACCT-1', '1172');
SELECT is(pg_temp.refusal('account', id, command, payload::jsonb), refusal, id || ' ' || command || ' ' || payload)
FROM (VALUES (1, 'ACCT-1', 'WithdrawMoney', '{"amount": 100.01, "atm_id": "ATM34f1ba3c"}', 'QE301 FUNDS_NOT_AVAILABLE funds not available'),
	(2, 'ACCT-1', 'WriteCheck', '{"amount": 100.01, "check_number": "1172"}', 'QE301 FUNDS_NOT_AVAILABLE funds not available'),
	(3, 'ACCT-1', 'WithdrawMoney', '{"amount": 1, "atm_id": "a stranger"}', 'QE301 ATM_RULE_VIOLATION atm rule violation'),
	(4, 'ACCT-1', 'WithdrawMoney', '{"amount": 1}', 'QE301 ATM_RULE_VIOLATION atm rule violation'),
	(5, 'ACCT-1', 'WriteCheck', '{"amount": 1, "check_number": "1"}', 'QE301 CHECK_INVALID check invalid'),
	(6, 'ACCT-1', 'WriteCheck', '{"amount": 1, "check_number": "1170"}', 'QE301 CHECK_INVALID check invalid'),
	(7, 'ACCT-1', 'WriteCheck', '{"amount": 1, "check_number": 1170}', 'QE301 CHECK_INVALID check invalid'),
	(8, 'ACCT-1', 'WriteCheck', '{"amount": 1}', 'QE301 CHECK_INVALID check invalid'),
	(9, 'ACCT-1', 'OpenAccount', '{"account_id": "ACCT-1"}', 'QE301 ALREADY_OPEN account already open'),
	(10, 'ACCT-2', 'OpenAccount', '{"account_id": "ACCT-1"}', 'QE301 ID_DIFFERS account id differs'),
	(11, 'ACCT-2', 'DepositMoney', '{"amount": 1}', 'QE301 NOT_FOUND account not found'),
	(12, 'ACCT-2', 'WithdrawMoney', '{"amount": 1, "atm_id": "ATM34f1ba3c"}', 'QE301 NOT_FOUND account not found'),
	(13, 'ACCT-2', 'WriteCheck', '{"amount": 1, "check_number": "1172"}', 'QE301 NOT_FOUND account not found'),
	(14, 'ACCT-2', 'FreezeAccount', '{}', 'QE301 NOT_FOUND account not found'),
	(15, 'ACCT-2', 'ReleaseAccount', '{}', 'QE301 NOT_FROZEN account is not frozen'),
	(16, 'ACCT-1', 'ReleaseAccount', '{}', 'QE301 NOT_FROZEN account is not frozen')) AS t (n, id, command, payload, refusal)
ORDER BY n;
SELECT is(pg_temp.refusal('account', 'ACCT-1', command, '{"atm_id": "ATM34f1ba3c", "check_number": "1172"}'::jsonb || payload::jsonb),
	'QE301 AMOUNT_NOT_POSITIVE amount must be positive', command || ' ' || payload)
FROM unnest('{DepositMoney, WithdrawMoney, WriteCheck}'::text[]) AS command,
	unnest(ARRAY['{}', '{"amount": 0}', '{"amount": -1}', '{"amount": null}', '{"amount": "1"}', '{"amount": "NaN"}', '{"amount": [1]}']) AS payload
ORDER BY command, payload COLLATE "C";
SELECT is((SELECT count(*) FROM cqrs_es.events), 9::bigint, 'what is refused leaves no trace');

-- Frozen, money only comes in; each suspicion is on record.
SELECT is(pg_temp.refusal('account', 'ACCT-1', 'FreezeAccount', '{"because": 1}'), NULL, 'frozen');
SELECT is(pg_temp.refusal('account', 'ACCT-1', 'FreezeAccount', '{"because": 2}'), NULL, 'and again');
SELECT is(pg_temp.refusal('account', 'ACCT-1', 'WithdrawMoney', '{"amount": 1, "atm_id": "ATM34f1ba3c"}'), 'QE301 FROZEN account is frozen', 'no money');
SELECT is(pg_temp.refusal('account', 'ACCT-1', 'WriteCheck', '{"amount": 1, "check_number": "1172"}'), 'QE301 FROZEN account is frozen', 'no check');
SELECT is(pg_temp.refusal('account', 'ACCT-1', 'DepositMoney', '{"amount": 1}'), NULL, 'but money comes in');
SELECT is(payload->'frozen', 'true', 'the view shows it') FROM account_query WHERE view_id = 'ACCT-1';
SELECT is(pg_temp.refusal('account', 'ACCT-1', 'ReleaseAccount'), NULL, 'released');
SELECT is(payload->'frozen', 'false', 'the view shows it') FROM account_query WHERE view_id = 'ACCT-1';
SELECT is(pg_temp.refusal('account', 'ACCT-1', 'WithdrawMoney', '{"amount": 1, "atm_id": "ATM34f1ba3c"}'), NULL, 'money goes out again');

-- What floating-point numbers would lose.
SELECT is(pg_temp.refusal('account', 'exact', 'OpenAccount', '{"account_id": "exact"}'), NULL, 'another account');
SELECT is(pg_temp.refusal('account', 'exact', 'DepositMoney', '{"amount": 12345678901234567890.01}'), NULL, 'a fortune');
SELECT is((SELECT count(*) FROM generate_series(1, 10) AS n,
	cqrs_es.execute_command('account', 'exact', 'DepositMoney', jsonb_build_object('amount', 0.1 + n * 0))), 10::bigint, 'and ten times ten cents');
SELECT is(pg_temp.refusal('account', 'exact', 'WithdrawMoney', '{"amount": 12345678901234567890.00, "atm_id": "ATM34f1ba3c"}'), NULL, 'the fortune is gone');
SELECT is(payload->>'balance', '1.01', 'not a cent is lost') FROM account_query WHERE view_id = 'exact';

SELECT results_eq('SELECT view_id, version, payload->''account_id'', (payload->>''balance'')::numeric FROM account_query ORDER BY 1',
	$$SELECT id, version, state->'account_id', (state->>'balance')::numeric FROM pg_temp.states('account') ORDER BY 1$$,
	'the view has the balance that a replay has');
SELECT results_eq('SELECT view_id, (payload->>''balance'')::numeric FROM account_query ORDER BY 1',
	$$SELECT aggregate_id COLLATE "default", sum((payload->>'amount')::numeric * CASE event_type WHEN 'CustomerDepositedMoney' THEN 1 ELSE -1 END)
	FROM cqrs_es.events GROUP BY 1 ORDER BY 1$$, 'and that is the sum of the amounts');
SELECT results_eq($$SELECT view_id, entry->>'description', (entry->>'amount')::numeric
	FROM account_query, jsonb_array_elements(payload->'ledger') WITH ORDINALITY AS l (entry, n) ORDER BY view_id, n$$,
	$$SELECT aggregate_id COLLATE "default", CASE event_type WHEN 'CustomerDepositedMoney' THEN 'deposit' WHEN 'CustomerWithdrewCash' THEN 'atm withdrawal'
		ELSE payload->>'check_number' END, (payload->>'amount')::numeric
	FROM cqrs_es.events WHERE event_type NOT LIKE 'Account%' ORDER BY 1, sequence$$, 'the ledger has every movement in its order');
SELECT results_eq('SELECT view_id, payload->''written_checks'' FROM account_query ORDER BY 1',
	$$VALUES ('ACCT-1', '["1170", "1171"]'::jsonb), ('exact', '[]')$$, 'the checks that were written');
SELECT is((SELECT array_agg(DISTINCT event_version COLLATE "default") FROM cqrs_es.events), '{1.0}', 'event_version 1.0');
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE sequence <= 6 AND aggregate_id = 'ACCT-1' AND metadata ?& '{time, uri, user_agent}'), 6::bigint,
	'every event of the story has the metadata of its request');
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE metadata @> '{"time": "2026-03-01T09:30:00Z", "uri": "/account/ACCT-1", "user_agent": "curl/8.5"}'),
	3::bigint, 'one transaction''s events have the same, and no others');
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE metadata->>'command_id' = '0b9ac4ee-5a4c-4a6b-9a53-000000000001'),
	1::bigint, 'what was sent twice happened once');
SELECT finish();
ROLLBACK;
\i test/include/example_end.sql
