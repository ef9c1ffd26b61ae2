-- What subscriptions tell their client beside results: notices and warnings. And how errors look.
\set VERBOSITY terse
SELECT cqrs_es.drop_subscription('none', if_exists => true);
SELECT cqrs_es.drop_subscription('none');
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT count(cqrs_es.append_event('sub', 's' || n, 'made', '{}')) FROM generate_series(1, 3) n;
SELECT cqrs_es.create_subscription('passed', start_at_end => true);
SELECT cqrs_es.create_subscription('also', start_at_end => true);
SELECT cqrs_es.create_subscription('not yet');
SELECT setval('cqrs_es.events_global_position_seq', last_value + 10) > 0 AS jumped FROM cqrs_es.events_global_position_seq;
SELECT cqrs_es.create_subscription('in front', start_at_end => true);
SELECT max(global_position) AS last FROM cqrs_es.events \gset
\set VERBOSITY terse
CREATE FUNCTION restore(id text, n bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload, created_at)
    VALUES (n, 1, 'sub', id, 'made', '{}', '2001-01-01') $$;
-- what a subscription has passed is told once, at the end of the transaction
BEGIN;
SELECT restore('r1', :last + 3);
SELECT restore('r2', :last + 2);
COMMIT;
-- above all positions: nothing to tell
SELECT restore('r3', :last + 20);
-- passed by the batch in hand, if it is acknowledged
SELECT count(*) FROM cqrs_es.receive_events('passed', 'c');
SELECT restore('r4', :last + 15);
-- rolled back
BEGIN;
SELECT restore('r5', :last + 4);
ROLLBACK;
-- a dump brings positions with their events
SET check_function_bodies = off;
SELECT restore('r6', :last + 5);
RESET check_function_bodies;
-- ordinary appends
SELECT version FROM cqrs_es.append_event('sub', 's1', 'made', '{}');
\set VERBOSITY default
SELECT cqrs_es.create_subscription('passed', '{sub}');
-- how far the log has come is another matter
\set VERBOSITY terse
SELECT cqrs_es.reset_subscription('passed', 1000000);
\set VERBOSITY default
DROP FUNCTION restore;

-- one that is not there
SELECT * FROM cqrs_es.receive_events('nothing', consumer => 'me');
SELECT cqrs_es.pause_subscription('nothing');
