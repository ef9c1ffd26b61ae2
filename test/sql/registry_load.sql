\i test/include/setup.sql
-- A declaration that cannot be read (written by hand) fails each time, and nothing
-- of the attempt is left when it can be.
BEGIN;
SELECT plan(7);
SELECT cqrs_es.create_aggregate('load', '{"n": 0}') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('load', 'a', '[{"op": "increment", "path": "/n", "value": 1}]') IS NULL AS x \gset
SELECT version AS x FROM cqrs_es.append_event('load', '1', 'a', '{}') \gset
SELECT is(cqrs_es.aggregate_state('load', '1'), '{"n": 1}', 'a declaration');
INSERT INTO cqrs_es.reducers (aggregate_type, event_type, search_path, operations) VALUES ('load', 'b', 'pg_temp', '[{"op": "nonsense"}]');
SELECT throws_ok($$SELECT cqrs_es.aggregate_state('load', '1')$$, '22023', NULL, 'one reducer of it cannot be read');
SELECT throws_ok($$SELECT cqrs_es.aggregate_state('load', '1')$$, '22023', NULL, 'nor the second time');
SELECT throws_ok($$SELECT cqrs_es.take_snapshot('load', '1')$$, '22023', NULL, 'nor by anybody else');
SELECT is((SELECT version FROM cqrs_es.append_event('beside load', '1', 'a', '{}')), 1::bigint, 'which is nothing to other types');
DELETE FROM cqrs_es.reducers WHERE aggregate_type = 'load' AND event_type = 'b';
SELECT is(cqrs_es.aggregate_state('load', '1'), '{"n": 1}', 'it is as before without that');
SELECT is(cqrs_es.take_snapshot('load', '1'), 1::bigint, 'for all');
SELECT finish();
ROLLBACK;
