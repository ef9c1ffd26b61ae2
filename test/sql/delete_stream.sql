\i test/include/setup.sql
-- A deleted stream: its events are gone, and all that held a copy follows; a tombstone stays, and takes nothing until the
-- stream begins anew.
BEGIN;
SELECT plan(71);
SET LOCAL client_min_messages = warning;
CREATE FUNCTION pg_temp.sqlstate_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION pg_temp.log_of(id text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(':', sequence, event_type), ' ' ORDER BY sequence) FROM cqrs_es.read_stream('account', id) $$;
SELECT FROM cqrs_es.create_aggregate('account', snapshot_every => 2);
SELECT FROM cqrs_es.define_tags('opened', 'name:{/name}');
SELECT FROM cqrs_es.define_command('account', 'Do', $$'{"type": "e", "payload": {"done": true}}'::jsonb$$);
SELECT FROM cqrs_es.define_command('account', 'Nothing', $$'[]'::jsonb$$);

-- projections: of states (live, paused, asynchronous), with a handler for it, without
CREATE TABLE states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
CREATE TABLE states_paused (LIKE states INCLUDING ALL);
CREATE TABLE states_async (LIKE states INCLUDING ALL);
CREATE TABLE told (id text PRIMARY KEY, name text);
CREATE TABLE told_async (LIKE told INCLUDING ALL);
CREATE TABLE untold (LIKE told INCLUDING ALL);
SELECT FROM cqrs_es.create_projection('states', state_of => 'account', read_models => '{states}');
SELECT FROM cqrs_es.create_projection('states paused', state_of => 'account', read_models => '{states_paused}');
SELECT FROM cqrs_es.create_projection('states async', state_of => 'account', read_models => '{states_async}', mode => 'async');
SELECT FROM unnest('{told,told_async,untold}'::text[]) AS name,
	cqrs_es.create_projection(name, '{account}', ARRAY[name::regclass], mode => CASE name WHEN 'told_async' THEN 'async' END),
	cqrs_es.define_handler(name, 'opened', format('INSERT INTO %s VALUES (event.aggregate_id, event.payload->>''name'')', name));
SELECT FROM unnest('{told,told_async}'::text[]) AS name, cqrs_es.define_handler(name, '$deleted', format('DELETE FROM %s WHERE id = event.aggregate_id', name));
CREATE FUNCTION pg_temp.missed() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(name, ', ' ORDER BY name) FROM cqrs_es.projection_status WHERE redaction_missed IS NOT NULL $$;

SELECT FROM cqrs_es.append_event('account', 'a', 'opened', '{"name": "Ada"}', event_id => '00000000-0000-4000-8000-000000000001', tags => '{vip:1}');
SELECT FROM cqrs_es.append_event('account', 'a', 'e', '{"n": 1}');
SELECT FROM cqrs_es.append_event('account', 'a', 'e', '{"n": 2}');
SELECT FROM cqrs_es.append_event('account', 'b', 'opened', '{"name": "Bob"}');
SELECT FROM cqrs_es.pause_projection('states paused');
INSERT INTO states_async VALUES ('a', 3, '{"n": 2, "name": "Ada"}');
SELECT FROM cqrs_es.append_event('account', 'a', 'e', '{"n": 3}');
SELECT FROM cqrs_es.take_snapshot('account', 'a');

SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.delete_stream('account', 'none', 'r')$$), '42704', 'a stream that is not there');
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.delete_stream('account', 'a', NULL)$$), '22004', 'a reason is needed');
SELECT is(cqrs_es.delete_stream('account', 'a', 'the end'), 4::bigint, 'four events go');
SELECT is(pg_temp.log_of('a'), '5:$deleted', 'and a tombstone stays');
SELECT is((SELECT payload FROM cqrs_es.read_stream('account', 'a')), '{"reason": "the end"}', 'which says why');
SELECT is(cqrs_es.stream_version('account', 'a'), 5::bigint, 'with the version');
SELECT is(cqrs_es.aggregate_state('account', 'a'), NULL, 'there is no state');
SELECT is(cqrs_es.aggregate_state('account', 'a', at_sequence => 3), NULL, 'nor was there one');
SELECT is(cqrs_es.aggregate_state('account', 'a', at_sequence => 5), NULL, 'at any time');
SELECT results_eq($$SELECT version, state FROM cqrs_es.load_aggregate('account', 'a')$$, $$VALUES (5::bigint, '{}'::jsonb)$$, 'loaded it is at its version, as in the beginning');
SELECT results_eq($$SELECT version, state FROM cqrs_es.load_aggregate('account', 'a', at_sequence => 4)$$, $$VALUES (0::bigint, '{}'::jsonb)$$, 'and before it was nothing');
SELECT results_eq($$SELECT sequence, state FROM cqrs_es.replay('account', 'a')$$, $$VALUES (5::bigint, '{}'::jsonb)$$, 'replayed');
SELECT is((SELECT count(*) FROM cqrs_es.snapshots WHERE aggregate_id = 'a'), 0::bigint, 'snapshots are gone');
SELECT FROM cqrs_es.take_snapshot('account', 'a');
SELECT is((SELECT count(*) FROM cqrs_es.snapshots WHERE aggregate_id = 'a'), 0::bigint, 'and none is taken');
SELECT is((SELECT string_agg(tag, ' ' ORDER BY tag) FROM cqrs_es.event_tags), 'name:Bob', 'tags are gone, given ones as well');
SELECT results_eq($$SELECT aggregate_id, array_length(positions, 1), pointers, reason FROM cqrs_es.redactions$$,
	$$VALUES ('a' COLLATE "C", 4, '{""}'::text[], 'the end')$$, 'what was done is kept: everything was taken of four events');
SELECT is((SELECT string_agg(view_id, ' ') FROM states), 'b', 'the row of a state is gone');
SELECT is((SELECT string_agg(id, ' ') FROM told), 'b', 'a handler for $deleted has been told');
SELECT is((SELECT string_agg(id, ' ' ORDER BY id) FROM untold), 'a b', 'without one the row is there');
SELECT is(pg_temp.missed(), 'states async, states paused, told_async, untold', 'and it shows, also of those that are not that far');
SELECT FROM cqrs_es.resume_projection('states paused');
SELECT is((SELECT string_agg(view_id, ' ') FROM states_paused), 'b', 'a paused one follows');
SELECT FROM cqrs_es.rebuild_projection('untold');
SELECT is((SELECT string_agg(id, ' ' ORDER BY id) FROM untold), 'b', 'a rebuild passes over it');
SELECT FROM cqrs_es.rebuild_projection('states');
SELECT is((SELECT string_agg(view_id, ' ') FROM states), 'b', 'also of states');
SELECT is(pg_temp.missed(), 'states async, told_async', 'then it does not show');

-- idempotent
SELECT is(cqrs_es.delete_stream('account', 'a', 'again'), 0::bigint, 'again is nothing');
SELECT is((SELECT count(*) FROM cqrs_es.redactions), 1::bigint, 'and writes nothing');
SELECT is(pg_temp.log_of('a'), '5:$deleted', 'nowhere');

-- nothing is appended, on any path
SELECT is(pg_temp.sqlstate_of(statement), 'QE008', statement) FROM (VALUES
	($$SELECT cqrs_es.append_event('account', 'a', 'e', '{}')$$),
	($$SELECT cqrs_es.append_event('account', 'a', 'e', '{}', 5)$$),
	($$SELECT cqrs_es.append_event('account', 'a', 'e', '{}', 4)$$),
	($$SELECT cqrs_es.append_event('account', 'a', 'e', '{}', 0)$$),
	($$SELECT cqrs_es.append_event('account', 'a', 'e', '{}', -1)$$),
	($$SELECT cqrs_es.append_event('account', 'a', 'opened', '{"name": "Ada"}', event_id => '00000000-0000-4000-8000-000000000001', tags => '{vip:1}')$$),
	($$SELECT cqrs_es.append_events('account', 'a', '[{"type": "e"}, {"type": "f"}]')$$),
	($$SELECT cqrs_es.append_event_arrays('account', 'a', '{e}', '{"{}"}')$$),
	($$SELECT * FROM cqrs_es.append_to_streams('[{"type": "e", "aggregate_type": "account", "aggregate_id": "b", "payload": {}}, {"type": "e", "aggregate_type": "account", "aggregate_id": "a", "payload": {}}]')$$),
	($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', 'a', 'e', '{}')$$),
	($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload) VALUES ('account', 'a', 6, 'e', '{}')$$),
	($$SELECT cqrs_es.execute_command('account', 'a', 'Do')$$),
	($$SELECT cqrs_es.close_stream('account', 'a', 'r')$$),
	($$SELECT cqrs_es.redact_event((SELECT max(global_position) FROM cqrs_es.events WHERE aggregate_id = 'a'), '{/payload/reason}', 'r')$$)) AS t (statement);
SELECT is((cqrs_es.execute_command('account', 'a', 'Nothing')).version, 5::bigint, 'a command that appends nothing is decided');
SELECT is(cqrs_es.redact_stream('account', 'a', '{/payload}', 'r'), 0::bigint, 'there is nothing to redact');
SELECT throws_ok($$SELECT cqrs_es.append_event('account', 'a', 'e', '{}')$$, 'QE008', 'stream "account/a" has been deleted', 'the message');
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.append_event('account', 'c', '$deleted', '{}')$$), '42939', 'nobody else writes a tombstone');
SELECT is(pg_temp.sqlstate_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', 'c', '$deleted', '{}')$$), '42939', 'nor by INSERT');

-- only by rule
SELECT is(pg_temp.sqlstate_of($$DELETE FROM cqrs_es.events WHERE aggregate_id = 'b'$$), 'QE004', 'a plain DELETE is refused as before');
CREATE FUNCTION pg_temp.more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM cqrs_es.events WHERE aggregate_id = 'other'; RETURN old; END $$;
CREATE FUNCTION pg_temp.less() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION pg_temp.change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE cqrs_es.events SET payload = '{}' WHERE aggregate_id = 'other'; RETURN old; END $$;
SELECT FROM cqrs_es.append_event('account', 'other', 'e', '{}');
SELECT FROM cqrs_es.append_event('account', 'mine', 'e', '{}');
CREATE TRIGGER more BEFORE DELETE ON cqrs_es.events FOR EACH ROW WHEN (old.aggregate_id = 'mine') EXECUTE FUNCTION pg_temp.more();
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.delete_stream('account', 'mine', 'r')$$), 'QE004', 'a trigger that would remove others is refused');
DROP TRIGGER more ON cqrs_es.events;
CREATE TRIGGER change BEFORE DELETE ON cqrs_es.events FOR EACH ROW WHEN (old.aggregate_id = 'mine') EXECUTE FUNCTION pg_temp.change();
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.delete_stream('account', 'mine', 'r')$$), 'QE004', 'or would change them');
DROP TRIGGER change ON cqrs_es.events;
CREATE TRIGGER less BEFORE DELETE ON cqrs_es.events FOR EACH ROW WHEN (old.aggregate_id = 'mine') EXECUTE FUNCTION pg_temp.less();
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.delete_stream('account', 'mine', 'r')$$), '09000', 'one that keeps an event is told of');
DROP TRIGGER less ON cqrs_es.events;
SELECT is(pg_temp.sqlstate_of($$DELETE FROM cqrs_es.events WHERE aggregate_id = 'mine'$$), 'QE004', 'no error leaves the permission behind');
SELECT is(pg_temp.log_of('mine'), '1:e', 'nor a tombstone');
SAVEPOINT s;
SELECT FROM cqrs_es.delete_stream('account', 'mine', 'r');
ROLLBACK TO s;
SELECT is(pg_temp.log_of('mine'), '1:e', 'rolled back, all is as it was');
SELECT FROM cqrs_es.define_handler('told', 'e', $$INSERT INTO told SELECT 'x', cqrs_es.delete_stream('account', 'b', 'r')::text$$);
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.append_event('account', 'mine', 'e', '{}')$$), 'QE201', 'not by a handler');
SELECT FROM cqrs_es.drop_handler('told', 'e');

-- the log is whole
SELECT is((SELECT string_agg(item, ', ') FROM cqrs_es.verify_log() WHERE problem IS NOT NULL), NULL, 'verify_log does not complain');

-- a closed one; events of this transaction, one that is too long for a page
SELECT FROM cqrs_es.append_event('account', 'closed', 'e', jsonb_build_object('long', repeat(md5('x'), 5000)));
SELECT FROM cqrs_es.close_stream('account', 'closed', 'r');
SELECT is(cqrs_es.delete_stream('account', 'closed', 'r'), 2::bigint, 'a closed one can be deleted');

-- again
SELECT is(cqrs_es.reopen_stream('account', 'a', 'a mistake'), 6::bigint, 'who asks for it can begin anew');
SELECT is((cqrs_es.append_event('account', 'a', 'opened', '{"name": "Ann"}', 6, event_id => '00000000-0000-4000-8000-000000000001')).version, 7::bigint, 'behind what was');
SELECT is(cqrs_es.aggregate_state('account', 'a'), '{"name": "Ann"}', 'with a state of its own');
SELECT is((SELECT payload FROM states WHERE view_id = 'a'), '{"name": "Ann"}', 'which has a row');
SELECT FROM cqrs_es.rebuild_projection('states');
SELECT is((SELECT version || payload::text FROM states WHERE view_id = 'a'), '7{"name": "Ann"}', 'also when it is rebuilt');
SELECT is((cqrs_es.execute_command('account', 'a', 'Do')).version, 8::bigint, 'and takes commands');
SELECT is(cqrs_es.aggregate_state('account', 'a', at_sequence => 6), '{}', 'a snapshot goes by what is there');
SELECT is((SELECT count(*) > 0 FROM cqrs_es.snapshots WHERE aggregate_id = 'a'), true, 'there are some again');
SELECT is(cqrs_es.redact_stream('account', 'a', '{/payload/name}', 'wanted', '"Anonymous"'), 1::bigint, 'it can be redacted');
SELECT is((SELECT count(*) FROM cqrs_es.replay('account', 'a')), 5::bigint, 'and replayed');
SELECT is(cqrs_es.delete_stream('account', 'a', 'for good'), 5::bigint, 'and deleted once more, with the old tombstone');
SELECT is(pg_temp.log_of('a'), '10:$deleted', 'of which one is left');
SELECT is((SELECT string_agg(item, ', ') FROM cqrs_es.verify_log() WHERE problem IS NOT NULL), NULL, 'the log is whole');

-- tenants
SELECT FROM cqrs_es.append_event('account', 'shared', 'e', '{}');
SET LOCAL cqrs_es.tenant_id = 'x';
SELECT FROM cqrs_es.append_event('other', 'shared', 'e', '{}');
SELECT is(pg_temp.sqlstate_of($$SELECT cqrs_es.delete_stream('account', 'shared', 'r')$$), '42704', 'another tenant does not see it');
RESET cqrs_es.tenant_id;
SELECT is(pg_temp.log_of('shared'), '1:e', 'and leaves it');
SELECT * FROM finish();
ROLLBACK;
