\i test/include/setup.sql
-- A projection one of whose read models has gone, in the hands of an ordinary owner.

BEGIN;
SELECT plan(11);
CREATE ROLE cqrs_es_keeper;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_keeper;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cqrs_es TO cqrs_es_keeper;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_keeper;
CREATE SCHEMA kept AUTHORIZATION cqrs_es_keeper;
SET LOCAL ROLE cqrs_es_keeper;
CREATE TABLE kept.here (id text);
CREATE TABLE kept.gone (id text);
SELECT cqrs_es.create_projection('keeper', ARRAY['thing'], '{kept.here,kept.gone}') \gset
SELECT cqrs_es.define_handler('keeper', 'done', 'INSERT INTO kept.here VALUES (event.aggregate_id)') \gset
RESET ROLE;
ALTER EVENT TRIGGER cqrs_es_protect_declared DISABLE;
DROP TABLE kept.gone;
ALTER EVENT TRIGGER cqrs_es_protect_declared ENABLE;
SET LOCAL ROLE cqrs_es_keeper;

SELECT is(cqrs_es.projection_errors('keeper'), ARRAY['read model kept.gone does not exist (SQLSTATE 42P01)'], 'projection_errors names what is missing');
SELECT throws_ok($$SELECT cqrs_es.append_event('thing', '1', 'done', '{}')$$, 'QE201', NULL, 'an append that concerns it fails');
SELECT lives_ok($$SELECT cqrs_es.append_event('other', '1', 'done', '{}')$$, 'any other does not');
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('keeper')$$, '42P01', 'read model kept.gone of projection "keeper" does not exist', 'it cannot be rebuilt');
SELECT lives_ok($$SELECT cqrs_es.pause_projection('keeper')$$, 'its owner may pause it');
SELECT lives_ok($$SELECT cqrs_es.append_event('thing', '1', 'done', '{}')$$, 'and appends go on');
SELECT throws_ok($$SELECT cqrs_es.resume_projection('keeper')$$, 'QE201', NULL, 'it cannot be resumed');
CREATE TABLE kept.gone (id text);
SELECT is(cqrs_es.projection_errors('keeper'), NULL, 'until there is a table of that name');
SELECT is(cqrs_es.resume_projection('keeper'), 1::bigint, 'then what was missed is handled');
SELECT is(cqrs_es.rebuild_projection('keeper'), 1::bigint, 'and it can be rebuilt');
SELECT results_eq('SELECT id FROM kept.here', $$VALUES ('1')$$, 'with the same result');

SELECT * FROM finish();
ROLLBACK;
