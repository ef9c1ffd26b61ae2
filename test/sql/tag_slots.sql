\i test/include/setup.sql
-- The slots that are held for tags, and when a position is drawn anew because of them.
BEGIN;
SELECT plan(25);
SELECT cqrs_es.define_tags('tagged', 'a:{/a}') IS NULL AS x \gset
SELECT cqrs_es.define_tags('known') IS NULL AS x \gset
CREATE FUNCTION pg_temp.slots() RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND objsubid = 205 AND mode = 'RowExclusiveLock' AND granted
$$;
-- Insert an event; how many numbers were drawn for it?
CREATE FUNCTION pg_temp.drawn(type text, a text, own_position boolean DEFAULT false) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE before bigint; its_position bigint;
BEGIN
	SELECT last_value INTO before FROM cqrs_es.events_global_position_seq;
	INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('event_tags', 'drawn', type, jsonb_build_object('a', a)) RETURNING global_position INTO its_position;
	ASSERT its_position = (SELECT last_value FROM cqrs_es.events_global_position_seq);
	RETURN its_position - before;
END $$;
SELECT pg_temp.drawn('plain', '1') IS NULL AS x \gset
SELECT results_eq('SELECT pg_temp.slots()', 'VALUES (0::bigint)', 'an event without tags holds no slot');
SELECT is(pg_temp.drawn('tagged', '1'), 2::bigint, 'a position from the default is drawn anew when the slots are new');
SELECT is(pg_temp.slots(), 2::bigint, 'held are the slots of the tag and of the type');
SELECT is(pg_temp.drawn('tagged', '1'), 1::bigint, '... and not when they were held before');
SELECT is(pg_temp.drawn('plain', '1'), 1::bigint, '... nor without tags');
SELECT is(pg_temp.drawn('tagged', '2'), 2::bigint, 'another tag');
SELECT is(pg_temp.drawn('known', '2'), 2::bigint, 'a type that is known has a slot');
SAVEPOINT s;
SELECT is(pg_temp.drawn('tagged', '3'), 2::bigint, 'in a savepoint');
SELECT is(pg_temp.slots(), 5::bigint, '... it is held');
ROLLBACK TO s;
SELECT is(pg_temp.slots(), 4::bigint, '... which gives it back when it is rolled back');
SELECT is(pg_temp.drawn('tagged', '3'), 2::bigint, '... so then it is new again');
SAVEPOINT s;
SELECT pg_temp.drawn('tagged', '4') IS NULL AS x \gset
RELEASE s;
SELECT is(pg_temp.drawn('tagged', '4'), 1::bigint, 'and not when the savepoint was released');
-- held now, but not since before the draw: another column of the row takes the slot
CREATE FUNCTION pg_temp.appends(a text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.append_event('event_tags', 'beside', 'tagged', jsonb_build_object('a', a));
	RETURN jsonb_build_object('a', a);
END $$;
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('event_tags', 'evil', 'tagged', pg_temp.appends('5'));
SELECT ok((SELECT e.global_position > b.global_position FROM cqrs_es.events e, cqrs_es.events b WHERE (e.aggregate_id, b.aggregate_id, e.aggregate_type, b.aggregate_type) = ('evil', 'beside', 'event_tags', 'event_tags')),
	'a slot that was taken after the draw does not count');
-- a trigger that comes behind ours
CREATE FUNCTION pg_temp.retags() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.payload := NEW.payload || '{"a": "changed"}';
	RETURN NEW;
END $$;
CREATE TRIGGER zz_late BEFORE INSERT ON cqrs_es.events FOR EACH ROW WHEN (NEW.payload ? 'late') EXECUTE FUNCTION pg_temp.retags();
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_event('event_tags', 'late', 'tagged', '{"a": "is", "late": true}')$$, '{state,message}'),
	'{09000,"the tags of an event have changed after it was admitted"}', 'tags that change behind the admitting trigger are refused');
SELECT lives_ok($$SELECT cqrs_es.append_event('event_tags', 'late', 'tagged', '{"a": "changed", "late": true}')$$, '... and not when they stay as they are');
SELECT results_eq($$SELECT tag COLLATE "default" FROM cqrs_es.event_tags JOIN cqrs_es.events USING (global_position) WHERE aggregate_type = 'event_tags' AND aggregate_id = 'late'$$, $$VALUES ('a:changed')$$, '... which they have');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_event('event_tags', 'late', 'tagged', '{"a": "is", "late": true}')$$), '09000', '... and are also refused when their slots are held by now');
DROP TRIGGER zz_late ON cqrs_es.events;
-- tags that the statement itself defines
CREATE FUNCTION pg_temp.defines() RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.define_tags('tagged late', 'late');
	RETURN '{}';
END $$;
SELECT is(pg_temp.error_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('event_tags', 'first', 'tagged late', '{}'), ('event_tags', 'second', 'other', pg_temp.defines())$$, '{state,message}'),
	'{09000,"the tags of an event have changed after it was admitted"}', 'tags are not defined by the statement that inserts');
-- a trigger that comes before ours, and reads or decides when the position of the row is drawn: the row comes behind that
CREATE FUNCTION pg_temp.decides() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE NEW.payload ->> 'run';
	RETURN NEW;
END $$;
CREATE TRIGGER aa_early BEFORE INSERT ON cqrs_es.events FOR EACH ROW WHEN (NEW.payload ? 'run') EXECUTE FUNCTION pg_temp.decides();
CREATE FUNCTION pg_temp.is_behind(id text, type text, run text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE first bigint; second bigint; before bigint;
BEGIN
	SELECT last_value INTO before FROM cqrs_es.events_global_position_seq;
	INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
		VALUES ('event_tags', id, type, '{"a": "held"}'), ('event_tags', id, type, jsonb_build_object('a', 'held', 'run', run));
	SELECT max(global_position) INTO second FROM cqrs_es.events WHERE aggregate_type = 'event_tags' AND aggregate_id = id;
	RETURN second = (SELECT last_value FROM cqrs_es.events_global_position_seq) AND second = before + 3 + (SELECT count(*) FROM cqrs_es.events WHERE aggregate_id = id || ' decision');
END $$;
SELECT pg_temp.drawn('tagged', 'held') IS NULL AS x \gset
SELECT ok(pg_temp.is_behind('nothing', 'tagged', 'SELECT') IS FALSE, 'a position stays when nothing was read');
SELECT ok(pg_temp.is_behind('read', 'tagged', $$SELECT cqrs_es.read_matching('[{"tags": ["a:held"]}]')$$), 'it is drawn anew when its tag was read meanwhile');
SELECT ok(pg_temp.is_behind('read all', 'plain', $$SELECT cqrs_es.read_matching('[{}]')$$), '... or everything');
\set decision 'SELECT cqrs_es.append_to_streams(''[{"aggregate_type": "event_tags", "aggregate_id": "%s decision", "type": "tagged", "payload": {"a": "held"}}]'', ''[{"tags": ["a:held"]}]'', (SELECT max(global_position) FROM cqrs_es.event_tags WHERE tag = ''a:held''))'
SELECT pg_temp.state_of(format(:'decision', 'first')) IS NULL AS x \gset
SELECT is(pg_temp.state_of(format(:'decision', 'second')), 'none', 'the slots of a decision are held, to decide again');
SELECT ok(pg_temp.is_behind('decides', 'tagged', format(:'decision', 'decides')), 'a row whose trigger decides on its tag comes behind the decision');
SELECT cqrs_es.create_boundary('event_tags early', '[{"tags": ["a:held"]}]', snapshot_every => 1) IS NULL AS x \gset
SELECT ok(pg_temp.is_behind('state', 'tagged', $$SELECT cqrs_es.boundary_state('event_tags early', '{}')$$), '... or reads the state of a boundary');
DROP TRIGGER aa_early ON cqrs_es.events;
-- rows that are kept out
SELECT lives_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) SELECT 1, 'event_tags', 'drawn', 'tagged', '{"a": "x"}' ON CONFLICT DO NOTHING$$, 'a row that is kept out has no tags');
SELECT * FROM finish();
ROLLBACK;
