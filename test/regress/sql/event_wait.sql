-- Waiting for events: what it answers, and where it is refused.
SELECT FROM cqrs_es.append_event('account', '1', 'opened', '{}');
SELECT max(global_position) AS opened FROM cqrs_es.events \gset

CALL cqrs_es.wait_for_events(after_position => 0);
CALL cqrs_es.wait_for_events(NULL, :opened, '10 ms');
CALL cqrs_es.wait_for_events(after_position => :opened, timeout => '-1 day');
CALL cqrs_es.wait_for_events(after_position => 0, timeout => '0');
-- no limit
CALL cqrs_es.wait_for_events(after_position => 0, timeout => NULL);
-- a cursor that is ahead of the log
CALL cqrs_es.wait_for_events(after_position => :opened + 100, timeout => '10 ms');
-- as the reader reads: filters
CALL cqrs_es.wait_for_events(after_position => 0, timeout => '10 ms', event_types => '{closed}');
CALL cqrs_es.wait_for_events(after_position => 0, timeout => '10 ms', event_types => '{closed,opened}');
CALL cqrs_es.wait_for_events(after_position => 0, timeout => '10 ms', aggregate_types => '{order}');
CALL cqrs_es.wait_for_events(after_position => 0, timeout => '10 ms', aggregate_types => '{}');
-- ... and tenants
SET cqrs_es.tenant_id = 'red';
CALL cqrs_es.wait_for_events(after_position => 0, timeout => '10 ms');
CALL cqrs_es.wait_for_events(after_position => 0, timeout => '10 ms', all_tenants => true);
RESET cqrs_es.tenant_id;

CALL cqrs_es.wait_until_settled(:opened);
CALL cqrs_es.wait_until_settled(:opened + 1, '10 ms');
CALL cqrs_es.wait_until_settled(0);

-- the arguments
CALL cqrs_es.wait_for_events();
CALL cqrs_es.wait_for_events('mails', 0);
CALL cqrs_es.wait_for_events(after_position => -1);
CALL cqrs_es.wait_for_events('mails', event_types => '{opened}');
CALL cqrs_es.wait_for_events(after_position => 0, event_types => ARRAY['opened', NULL]);
CALL cqrs_es.wait_for_events(after_position => 0, timeout => '1000000 years');
CALL cqrs_es.wait_until_settled(NULL);
CALL cqrs_es.wait_until_settled(-1);

-- in a block, a subtransaction, a function; as one of two statements of a message
BEGIN;
CALL cqrs_es.wait_for_events(after_position => 0);
ROLLBACK;
BEGIN;
CALL cqrs_es.wait_until_settled(0);
ROLLBACK;
DO $$
DECLARE
    ready boolean;
BEGIN
    CALL cqrs_es.wait_for_events(after_position => 0, ready => ready);
EXCEPTION WHEN division_by_zero THEN
END $$;
CREATE FUNCTION waits() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    ready boolean;
BEGIN
    CALL cqrs_es.wait_for_events(after_position => 0, ready => ready);
    RETURN ready;
END $$;
SELECT waits();
DROP FUNCTION waits();
SELECT 1 AS one \; CALL cqrs_es.wait_for_events(after_position => 0);

-- above READ COMMITTED, now or after the first commit
SET default_transaction_isolation = 'repeatable read';
CALL cqrs_es.wait_for_events(after_position => 0);
CALL cqrs_es.wait_until_settled(0);
DO $$
DECLARE
    ready boolean;
BEGIN
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    CALL cqrs_es.wait_for_events(after_position => 0, ready => ready);
END $$;
RESET default_transaction_isolation;

-- in a procedure and a DO block it works, and what they have done before is not committed unasked
CREATE PROCEDURE pg_temp.tail(after bigint) LANGUAGE plpgsql AS $$
DECLARE
    ready boolean;
    event record;
BEGIN
    CALL cqrs_es.wait_for_events(after_position => after, timeout => '10 ms', ready => ready);
    RAISE NOTICE 'ready: %', ready;
    FOR event IN SELECT event_type FROM cqrs_es.read_all(after) LOOP
        CALL cqrs_es.wait_for_events(after_position => 0, ready => ready);
        RAISE NOTICE '%, %', event.event_type, ready;
    END LOOP;
END $$;
CALL pg_temp.tail(:opened - 1);
CALL pg_temp.tail(:opened);
DO $$
DECLARE
    ready boolean;
BEGIN
    PERFORM FROM cqrs_es.append_event('account', '1', 'closed', '{}');
    CALL cqrs_es.wait_for_events(after_position => 0, ready => ready);
END $$;
SELECT event_type FROM cqrs_es.read_all(:opened - 1);
DO $$
DECLARE
    "position" bigint;
    settled boolean;
BEGIN
    SELECT a.global_position INTO "position" FROM cqrs_es.append_event('account', '1', 'closed', '{}') AS a;
    COMMIT;
    CALL cqrs_es.wait_until_settled("position", settled => settled);
    RAISE NOTICE 'settled: %', settled;
END $$;
SELECT event_type FROM cqrs_es.read_all(:opened - 1);

-- rights: those of a reader
CREATE ROLE event_wait_nobody;
GRANT USAGE ON SCHEMA cqrs_es TO event_wait_nobody;
SET ROLE event_wait_nobody;
CALL cqrs_es.wait_for_events(after_position => 0);
CALL cqrs_es.wait_until_settled(0);
RESET ROLE;
GRANT SELECT ON cqrs_es.events TO event_wait_nobody;
SET ROLE event_wait_nobody;
CALL cqrs_es.wait_for_events(after_position => 0);
CALL cqrs_es.wait_for_events(after_position => 0, all_tenants => true);
RESET ROLE;
-- and the policies
SET client_min_messages = warning;
CREATE POLICY opened ON cqrs_es.events AS RESTRICTIVE TO event_wait_nobody USING (event_type = 'opened');
RESET client_min_messages;
SET ROLE event_wait_nobody;
CALL cqrs_es.wait_for_events(after_position => 0, timeout => '10 ms');
CALL cqrs_es.wait_for_events(after_position => :opened, timeout => '10 ms');
RESET ROLE;
DROP POLICY opened ON cqrs_es.events;
DROP OWNED BY event_wait_nobody;
DROP ROLE event_wait_nobody;

-- nothing is left behind, neither in a transaction that goes on after an error
SET statement_timeout = '50 ms';
DO $$
BEGIN
    PERFORM cqrs_es.wait_for_position(1::bigint << 43, '100 s');
EXCEPTION WHEN query_canceled THEN
    RAISE NOTICE '%, % registered', SQLERRM, (SELECT count(*) FROM pg_locks WHERE classid = 'pg_extension'::regclass AND objid = 0);
END $$;
RESET statement_timeout;
SELECT locktype, mode FROM pg_locks WHERE classid = 'pg_extension'::regclass AND objid = 0;
