\i test/include/setup.sql
-- A table of states holds all events of its streams, also when who appends may not see some of them, by a policy of
-- the user's own; and who asks for a state that they may not see the whole of is told so.

BEGIN;
SELECT plan(10);
CREATE ROLE cqrs_es_half;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_half;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_half;
SELECT cqrs_es.create_aggregate('sr', '{"n": 0}') IS NULL AS x, cqrs_es.define_reducer('sr', 'Open', '[{"op": "increment", "path": "/n", "from": "/n"}]') IS NULL AS y,
	cqrs_es.define_reducer('sr', 'Secret', '[{"op": "increment", "path": "/n", "from": "/n"}]') IS NULL AS z \gset
CREATE TABLE sr_states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
SELECT count(*) FROM (VALUES ('1', 'Secret'), ('1', 'Open'), ('2', 'Open'), ('2', 'Secret'), ('3', 'Open')) v (id, type), cqrs_es.append_event('sr', id, type, '{"n": 1}') \gset
SELECT cqrs_es.create_projection('sr', state_of => 'sr', read_models => '{sr_states}') IS NULL AS x \gset
CREATE POLICY no_secrets ON cqrs_es.events AS RESTRICTIVE FOR SELECT TO cqrs_es_half USING (event_type <> 'Secret');

SELECT is((pg_temp.error_of(format('SELECT pg_temp.as_role(''cqrs_es_half'', %L)', format($$SELECT cqrs_es.append_event('sr', '%s', 'Open', '{"n": 1}')$$, id))))[1:2], NULL, format('stream %s: an append by one who sees a part', id)) FROM generate_series(1, 3) AS id;
SELECT is((SELECT string_agg(format('%s: %s %s', view_id, version, payload), ', ' ORDER BY view_id) FROM sr_states),
	'1: 3 {"n": 3}, 2: 3 {"n": 3}, 3: 2 {"n": 2}', 'the states are those of all events');
SELECT is((pg_temp.error_of($$SELECT pg_temp.as_role('cqrs_es_half', 'SELECT cqrs_es.aggregate_state(''sr'', ''1'')')$$))[1:2],
	ARRAY['42501', 'row security of table "events" hides event 1 of stream "sr/1"'], 'a state of which the beginning is hidden');
SELECT is((pg_temp.error_of($$SELECT pg_temp.as_role('cqrs_es_half', 'SELECT * FROM cqrs_es.replay(''sr'', ''2'')')$$))[1:2],
	ARRAY['42501', 'row security of table "events" hides event 2 of stream "sr/2"'], 'or an event between');
SELECT is((pg_temp.error_of($$SELECT pg_temp.as_role('cqrs_es_half', 'SELECT cqrs_es.aggregate_state(''sr'', ''3'')')$$))[1:2], NULL, 'one that can be seen whole');
SELECT is(cqrs_es.rebuild_projection('sr'), 8::bigint, 'the states, rebuilt by one who sees all');
SELECT is((SELECT string_agg(format('%s: %s %s', view_id, version, payload), ', ' ORDER BY view_id) FROM sr_states),
	'1: 3 {"n": 3}, 2: 3 {"n": 3}, 3: 2 {"n": 2}', 'are the same');
GRANT EXECUTE ON FUNCTION cqrs_es.poisoned_streams TO cqrs_es_half;
SELECT lives_ok($$SELECT pg_temp.as_role('cqrs_es_half', 'DO ''BEGIN ASSERT (SELECT count(*) FROM cqrs_es.poisoned_streams(''''sr'''')) = 0; END''')$$, 'but is no poisoned stream');

SELECT * FROM finish();
ROLLBACK;
