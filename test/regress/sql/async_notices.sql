-- What asynchronous projections tell their client beside results: warnings, hints, and once what is true for long.
\set SHOW_CONTEXT never
CREATE TABLE noticed (position bigint);
CREATE TABLE trouble (sqlstate text);
CREATE FUNCTION notice(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT FROM trouble) THEN RAISE EXCEPTION 'not my fault' USING ERRCODE = (SELECT sqlstate FROM trouble); END IF;
    INSERT INTO noticed VALUES (e.global_position); END $$;
SELECT cqrs_es.create_projection('noticed', '{noticed}', '{noticed}', mode => 'async');
SELECT cqrs_es.define_handler('noticed', '*', 'notice');

-- what is no fault of the event is tried again and again, and told once
INSERT INTO trouble VALUES ('40001');
SELECT count(cqrs_es.append_event('noticed', 'n' || n, 'made', '{}')) FROM generate_series(1, 3) n;
CALL cqrs_es.run_projections('{noticed}', timeout => '1 s');
-- to each who runs it
CALL cqrs_es.run_projections('{noticed}', timeout => '200 ms');
DELETE FROM trouble;
CALL cqrs_es.run_projections('{noticed}', timeout => '500 ms');
SELECT count(*) FROM noticed;

-- events that are restored behind its position: what to do is not what one does with a subscription
SELECT setval('cqrs_es.events_global_position_seq', last_value + 10) > 0 AS jumped FROM cqrs_es.events_global_position_seq;
SELECT cqrs_es.create_subscription('a subscription', start_at_end => true);
SELECT cqrs_es.create_projection('noticed too', '{noticed}', mode => 'async');
SELECT max(global_position) AS last FROM cqrs_es.events \gset
\set VERBOSITY terse
INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload, created_at)
    VALUES (:last + 3, 1, 'noticed', 'r1', 'made', '{}', '2001-01-01');
SELECT version FROM cqrs_es.append_event('noticed', 'n1', 'made', '{}');
CALL cqrs_es.run_projections();
SELECT cqrs_es.drop_subscription('a subscription');
SELECT cqrs_es.drop_projection('noticed too');
INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload, created_at)
    VALUES (:last + 4, 1, 'noticed', 'r2', 'made', '{}', '2001-01-01');
\set VERBOSITY default

-- hints
SELECT cqrs_es.redrive('projection:none');
SELECT cqrs_es.pause_subscription('projection:noticed');
SELECT cqrs_es.drop_projection('noticed');
DROP FUNCTION notice;
DROP TABLE noticed, trouble;

-- one that is not there
CALL cqrs_es.run_projections('{nothing}');
CALL cqrs_es.wait_for_projection('nothing', 1);
