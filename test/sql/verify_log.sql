\i test/include/setup.sql
-- verify_log() counts, and finds what is wrong with a log; and what dumps do not have
-- of the other tables is refused or told.
BEGIN;
SELECT plan(48);

-- what other files have left, too
CREATE FUNCTION pg_temp.problems() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT item FROM cqrs_es.verify_log() WHERE problem IS NOT NULL AND item <> 'last position drawn' AND item <> 'missing objects'
$$;
CREATE FUNCTION pg_temp.found(item text) RETURNS bigint LANGUAGE sql AS $$
	SELECT v.found FROM cqrs_es.verify_log() AS v WHERE v.item = $1
$$;
SET LOCAL session_replication_role = replica;
DELETE FROM cqrs_es.events;
DELETE FROM cqrs_es.event_tags;
DELETE FROM cqrs_es.snapshots;
DELETE FROM cqrs_es.boundary_snapshots;
DELETE FROM cqrs_es.tag_definitions;
SET LOCAL session_replication_role = origin;

SELECT setval('cqrs_es.events_global_position_seq', 1000) > 0 AS set \gset
SELECT set_eq('SELECT * FROM pg_temp.problems()', ARRAY['events'], 'an empty log from which positions were drawn');
SELECT matches(problem, 'positions up to 1000 were drawn', 'is told') FROM cqrs_es.verify_log() WHERE item = 'events';
SELECT version AS v FROM cqrs_es.append_events('verified', 'a', '[{"type": "e", "payload": {}}, {"type": "e", "payload": {}}, {"type": "e", "payload": {}}]') \gset
SELECT version AS v FROM cqrs_es.append_events('verified', 'b', '[{"type": "e", "payload": {}}, {"type": "e", "payload": {}, "tags": ["t", "u"]}]') \gset
SELECT is_empty('SELECT * FROM pg_temp.problems()', 'nothing is wrong');
SELECT is(pg_temp.found('events'), 5::bigint, 'events');
SELECT is(pg_temp.found('streams'), 2::bigint, 'streams');
SELECT is(pg_temp.found('tags'), 2::bigint, 'tags');
SELECT is(pg_temp.found('last position'), max(global_position), 'last position') FROM cqrs_es.events;
SELECT is(pg_temp.found('last position drawn'), max(global_position), 'last position drawn') FROM cqrs_es.events;
SELECT cqrs_es.create_aggregate('verified') IS NULL AS x \gset
SELECT cqrs_es.take_snapshot('verified', 'a') AS x \gset
SELECT is_empty('SELECT * FROM pg_temp.problems()', 'nor with a snapshot');

-- a change below the triggers, what it is, and what of it is found
CREATE FUNCTION pg_temp.found_after(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
BEGIN
	SET LOCAL session_replication_role = replica;
	EXECUTE change;
	SET LOCAL session_replication_role = origin;
	SELECT string_agg(concat(item, ' ', v.found), ', ') INTO found FROM cqrs_es.verify_log() AS v WHERE problem IS NOT NULL AND item <> 'missing objects';
	RAISE EXCEPTION 'undo' USING ERRCODE = 'P0042';
EXCEPTION WHEN SQLSTATE 'P0042' THEN
	RETURN found;
END $$;
SELECT is(pg_temp.found_after($$DELETE FROM cqrs_es.events WHERE sequence = 2 AND aggregate_id = 'a'$$), 'holes in streams 1', 'an event in the middle');
SELECT is(pg_temp.found_after($$DELETE FROM cqrs_es.events WHERE sequence = 1$$), 'holes in streams 2', 'the first events');
SELECT is(pg_temp.found_after($$DELETE FROM cqrs_es.events WHERE sequence = 3$$), 'snapshots of events that are not there 1', 'the last event, of which a snapshot tells');
SELECT is(pg_temp.found_after($$DELETE FROM cqrs_es.events; DELETE FROM cqrs_es.event_tags$$), 'events 0, snapshots of events that are not there 1', 'all of them');
SELECT is(pg_temp.found_after($$DELETE FROM cqrs_es.events WHERE aggregate_id = 'b' AND sequence = 2$$), 'tags 2', 'an event that had tags');
SELECT is(pg_temp.found_after($$UPDATE cqrs_es.event_tags SET tenant_id = 'other' WHERE tag = 't'$$), 'tags 2', 'a tag of another tenant''s event');
SELECT is(pg_temp.found_after($$UPDATE cqrs_es.events SET global_position = 1 WHERE sequence = 2$$), 'positions that fall within a stream 2, events with a position of others 1, tags 2', 'positions');
SELECT is(pg_temp.found_after($$SET LOCAL session_replication_role = origin; SET LOCAL cqrs_es.node_id = 3; SELECT cqrs_es.append_event('verified', 'a', 'e', '{}');
	SET LOCAL cqrs_es.node_id = 0; SELECT cqrs_es.append_event('verified', 'a', 'e', '{}'), cqrs_es.append_event('verified', 'a', 'e', '{}')$$), NULL, 'a stream that went to another node and came back is none');
SELECT is(pg_temp.found_after($$UPDATE cqrs_es.events SET global_position = (3::bigint << 44) + 1 WHERE sequence = 2 AND aggregate_id = 'a';
	UPDATE cqrs_es.events SET global_position = 1 WHERE sequence = 3$$), 'positions that fall within a stream 1', 'positions that fall, with one of another node in between');
SELECT is(pg_temp.found_after($$ALTER TABLE cqrs_es.events DISABLE TRIGGER ALL$$), 'guards of the log 0', 'triggers');
SELECT is(pg_temp.found_after($$ALTER TABLE cqrs_es.events DISABLE TRIGGER dispatch_event$$), 'guards of the log 4', 'one trigger');
SELECT is(pg_temp.found_after($$DROP TRIGGER admit_event ON cqrs_es.events$$), 'guards of the log 4', 'one that is gone');
SELECT is(pg_temp.found_after($$ALTER TABLE cqrs_es.snapshots DISABLE TRIGGER ALL, ENABLE TRIGGER ALL$$), format('triggers that fire always %s', pg_temp.found('triggers that fire always') - 1), 'one that does not fire always any more');
SELECT cmp_ok(pg_temp.found('triggers that fire always'), '>', 10::bigint, 'of many');
SELECT is(pg_temp.found_after($$ALTER TABLE cqrs_es.events DROP CONSTRAINT events_pkey$$), 'unique indexes of streams 0', 'the primary key');
SELECT is(pg_temp.found_after($$ALTER TABLE cqrs_es.events DROP CONSTRAINT events_pkey, ADD UNIQUE (tenant_id, aggregate_id, aggregate_type, sequence)$$), NULL, 'another one does');
SELECT is(pg_temp.found_after($$DROP POLICY tenant_isolation ON cqrs_es.events$$), 'tables without the policy of tenants 1', 'the policy');
SELECT is(pg_temp.found_after($$ALTER TABLE cqrs_es.events DISABLE ROW LEVEL SECURITY; DROP POLICY tenant_isolation ON cqrs_es.snapshots$$), 'tables without the policy of tenants 2', 'or row security');
SELECT is(pg_temp.found_after($$DROP POLICY tenant_isolation ON cqrs_es.received_messages; ALTER TABLE cqrs_es.dead_letters DISABLE ROW LEVEL SECURITY$$), 'tables without the policy of tenants 2', 'of whatever table');
SELECT is(pg_temp.found_after($$ALTER POLICY tenant_isolation ON cqrs_es.events RENAME TO tenants$$), NULL, 'another name does no harm');
SELECT is(pg_temp.found_after($$ALTER TABLE cqrs_es.events ADD COLUMN unseen int, DROP COLUMN event_version$$), 'columns that no dump has 2', 'columns that came when no event trigger looked');
-- (which no rollback undoes)
SELECT is(pg_temp.found_after($$SELECT setval('cqrs_es.events_global_position_seq', 1)$$), 'last position drawn 1', 'a sequence that is behind');
SELECT setval('cqrs_es.events_global_position_seq', 2000) > 0 AS set \gset

-- tags that are defined, and states of boundaries
SELECT cqrs_es.define_tags('derived', 'a:{/a}', 'b:{/b?}') IS NULL AS x \gset
SELECT cqrs_es.append_event('derived', '1', 'derived', '{"a": [1, 2], "b": 3}', tags => '{more}') IS NULL AS x \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('derived', '1', 'derived', '{"a": 4}');
SELECT cqrs_es.create_boundary('verified boundary', '[{"tags": ["a:{/a}"]}]', snapshot_every => 1) IS NULL AS x \gset
SELECT cqrs_es.define_command('verified boundary', 'Do', $$jsonb_build_object('type', 'derived', 'payload', command)$$) IS NULL AS x \gset
SELECT state AS x FROM cqrs_es.execute_boundary('verified boundary', 'Do', '{"a": 5}') \gset
SELECT is_empty('SELECT * FROM pg_temp.problems()', 'nothing is wrong with them');
SELECT is(count(*), 1::bigint, 'there is a state') FROM cqrs_es.boundary_snapshots;
SELECT is(pg_temp.found_after($$DELETE FROM cqrs_es.event_tags WHERE tag = 'b:3'$$), 'events without tags that are defined 1', 'a tag that is lacking');
SELECT is(pg_temp.found_after($$DELETE FROM cqrs_es.event_tags WHERE tag LIKE 'a:%'$$), 'events without tags that are defined 3', 'of several events');
SELECT is(pg_temp.found_after($$DELETE FROM cqrs_es.event_tags WHERE tag = 'more'$$), NULL, 'one that was given is not known of');
SELECT is(pg_temp.found_after($$UPDATE cqrs_es.events SET payload = '{}' WHERE aggregate_type = 'derived' AND sequence = 1$$), 'events without tags that are defined 1', 'an event that cannot have them');
SELECT is(pg_temp.found_after($$UPDATE cqrs_es.tag_definitions SET is_complete = false; DELETE FROM cqrs_es.event_tags$$), NULL, 'what retag has not come to is no problem');
SELECT is(pg_temp.found_after($$DELETE FROM cqrs_es.events WHERE event_type = 'derived' AND payload->>'a' = '5'; DELETE FROM cqrs_es.event_tags WHERE tag = 'a:5'$$),
	'snapshots of boundaries beyond their events 1', 'the last event of a state');
SELECT is(pg_temp.found_after($$UPDATE cqrs_es.boundary_snapshots SET tenant_id = 'other'$$), 'snapshots of boundaries beyond their events 1', 'a state of another tenant''s events');
SELECT is(pg_temp.found_after($$UPDATE cqrs_es.boundary_snapshots SET last_position = 0$$), NULL, 'one of no events');

CREATE ROLE cqrs_es_verifier;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_verifier;
GRANT SELECT ON cqrs_es.events, cqrs_es.snapshots, cqrs_es.missing_objects TO cqrs_es_verifier;
GRANT SELECT ON SEQUENCE cqrs_es.events_global_position_seq TO cqrs_es_verifier;
SET LOCAL ROLE cqrs_es_verifier;
SELECT throws_ok('SELECT * FROM cqrs_es.verify_log()', '42501', 'permission denied for function verify_log', 'not for everybody');
RESET ROLE;
GRANT EXECUTE ON FUNCTION cqrs_es.verify_log() TO cqrs_es_verifier;
SET LOCAL ROLE cqrs_es_verifier;
SELECT throws_ok('SELECT * FROM cqrs_es.verify_log()', '42501', NULL, 'nor for who sees the events of one tenant');
RESET ROLE;

-- the other tables
SELECT throws_ok(format('ALTER TABLE cqrs_es.%s', change), '0A000', NULL, change)
FROM unnest(ARRAY['snapshots ADD COLUMN note text', 'projections DROP COLUMN created_at', 'aggregates ALTER snapshot_every TYPE bigint', 'handlers RENAME statement TO s']) AS change;
SET LOCAL client_min_messages = error;
SELECT lives_ok('ALTER TABLE cqrs_es.snapshots SET (fillfactor = 50)', 'what is lost without harm is told');
SELECT finish();
ROLLBACK;
