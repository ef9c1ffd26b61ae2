\i test/include/setup.sql
-- Snapshots: taken when due on every way in, used only under today's reducers,
-- and always equal to the replay from the first event.
BEGIN;
SELECT plan(53);
CREATE FUNCTION pg_temp.snapshot(id text) RETURNS text LANGUAGE sql AS $$
	SELECT format('%s %s %s', last_sequence, payload, current_snapshot) FROM cqrs_es.snapshots
	WHERE aggregate_type = 'snapshot' AND aggregate_id = id AND tenant_id = '' $$;
CREATE FUNCTION pg_temp.append(id text, n integer DEFAULT 1) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP PERFORM cqrs_es.append_event('snapshot', id, 'e', jsonb_build_object('n', i)); END LOOP;
END $$;
SELECT cqrs_es.create_aggregate('snapshot', '{"start": true}', 3) IS NULL AS x \gset

-- when

SELECT pg_temp.append('a', 2) IS NULL AS x \gset
SELECT is(pg_temp.snapshot('a'), NULL, 'none before it is due');
SELECT pg_temp.append('a') IS NULL AS x \gset
SELECT is(pg_temp.snapshot('a'), '3 {"n": 1, "start": true} 1', 'the third event brings one');
SELECT pg_temp.append('a', 2) IS NULL AS x \gset
SELECT is(pg_temp.snapshot('a'), '3 {"n": 1, "start": true} 1', 'the fifth does not');
SELECT pg_temp.append('a') IS NULL AS x \gset
SELECT is(pg_temp.snapshot('a'), '6 {"n": 1, "start": true} 2', 'the sixth does');
SELECT cqrs_es.append_events('snapshot', 'batch', (SELECT jsonb_agg(jsonb_build_object('type', 'e', 'payload', jsonb_build_object('n', n)) ORDER BY n) FROM generate_series(1, 10) n)) IS NULL AS x \gset
SELECT is(regexp_replace(pg_temp.snapshot('batch'), '\d+$', ''), '9 {"n": 9, "start": true} ', 'append_events: of the last third event, not of the last');
SELECT cqrs_es.append_event_arrays('snapshot', 'arrays', '{e,e,e,e}', ARRAY['{"n": 1}', '{"n": 2}', '{"n": 3}', '{"n": 4}']::jsonb[]) IS NULL AS x \gset
SELECT is(pg_temp.snapshot('arrays'), '3 {"n": 3, "start": true} 1', 'append_event_arrays');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'snapshot', 'insert', 'e', jsonb_build_object('n', n) FROM generate_series(1, 10) n;
SELECT is(pg_temp.snapshot('insert'), '9 {"n": 9, "start": true} 3', 'INSERT of many rows');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('snapshot', 'insert 1', 'e', '{"n": 1}');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('snapshot', 'insert 1', 'e', '{"n": 2}');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('snapshot', 'insert 1', 'e', '{"n": 3}');
SELECT is(pg_temp.snapshot('insert 1'), '3 {"n": 3, "start": true} 1', 'INSERT of one row');
\copy cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) from stdin
snapshot	copy	e	{"n": 1}
snapshot	copy	e	{"n": 2}
snapshot	copy	e	{"n": 3}
snapshot	copy	e	{"n": 4}
\.
SELECT is(pg_temp.snapshot('copy'), '3 {"n": 3, "start": true} 1', 'COPY');
SELECT pg_temp.append('mixed', 2) IS NULL AS x \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('snapshot', 'mixed', 'e', '{"n": 3}'), ('snapshot', 'mixed', 'e', '{"n": 4}');
SELECT pg_temp.append('mixed', 2) IS NULL AS x \gset
SELECT is(pg_temp.snapshot('mixed'), '6 {"n": 2, "start": true} 2', 'all mixed');
SELECT cqrs_es.create_aggregate('snapshot 0', '{}', 0) IS NULL AS x \gset
SELECT count(cqrs_es.append_event('snapshot 0', 'a', 'e', '{}')) AS x FROM generate_series(1, 200) \gset
SELECT is_empty($$SELECT last_sequence FROM cqrs_es.snapshots WHERE aggregate_type = 'snapshot 0'$$, 'snapshot_every 0: never');

SELECT is(cqrs_es.take_snapshot('snapshot', 'a'), 6::bigint, 'take_snapshot returns the version');
SELECT is(pg_temp.snapshot('a'), '6 {"n": 1, "start": true} 2', 'of a snapshot that is there already');
SELECT pg_temp.append('a') IS NULL AS x \gset
SELECT is(cqrs_es.take_snapshot('snapshot', 'a'), 7::bigint, 'or takes one');
SELECT is(pg_temp.snapshot('a'), '7 {"n": 1, "start": true} 3', 'now');
SELECT is(cqrs_es.take_snapshot('snapshot', 'none'), 0::bigint, '0 without events');
SELECT is(pg_temp.snapshot('none'), NULL, 'and no snapshot');
SELECT is(cqrs_es.take_snapshot('snapshot 0', 'a'), 200::bigint, 'also where none are taken by themselves');
SELECT is((cqrs_es.append_event('snapshot', 'a', 'e', '{}')).version, 8::bigint, 'appends go on');
SELECT pg_temp.append('a') IS NULL AS x \gset
SELECT is(pg_temp.snapshot('a'), '9 {"n": 1, "start": true} 4', 'and snapshots');

-- a snapshot is used, but only the right one

UPDATE cqrs_es.snapshots SET payload = '{"from": "snapshot"}' WHERE aggregate_id = 'a' AND aggregate_type = 'snapshot';
SELECT is(cqrs_es.aggregate_state('snapshot', 'a'), '{"from": "snapshot"}', 'replay begins at the snapshot');
SELECT pg_temp.append('a') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('snapshot', 'a'), '{"from": "snapshot", "n": 1}', 'and goes on behind it');
UPDATE cqrs_es.snapshots SET fingerprint = NULL WHERE aggregate_id = 'a' AND aggregate_type = 'snapshot';
SELECT is(cqrs_es.aggregate_state('snapshot', 'a'), '{"n": 1, "start": true}', 'one without fingerprint is not used');
SELECT pg_temp.append('a', 2) IS NULL AS x \gset
SELECT is(pg_temp.snapshot('a'), '12 {"n": 2, "start": true} 5', 'and replaced');
INSERT INTO cqrs_es.snapshots (aggregate_type, aggregate_id, last_sequence, current_snapshot, payload) VALUES ('snapshot', 'by hand', 2, 7, '{"by": "hand"}');
SELECT pg_temp.append('by hand', 2) IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('snapshot', 'by hand'), '{"n": 2, "start": true}', 'one that a client wrote by itself is not used');
SELECT pg_temp.append('by hand') IS NULL AS x \gset
SELECT is(pg_temp.snapshot('by hand'), '3 {"n": 1, "start": true} 8', 'and replaced');
UPDATE cqrs_es.snapshots SET last_sequence = 99, payload = '{}', fingerprint = NULL WHERE aggregate_id = 'by hand';
SELECT is(cqrs_es.take_snapshot('snapshot', 'by hand'), 3::bigint, 'even one');
SELECT is(pg_temp.snapshot('by hand'), '3 {"n": 1, "start": true} 9', 'that pretends to be newer');
DELETE FROM cqrs_es.snapshots WHERE aggregate_type = 'snapshot';
SELECT is(cqrs_es.aggregate_state('snapshot', 'a'), '{"n": 2, "start": true}', 'without any all is replayed');

-- changed reducers

CREATE FUNCTION version_of(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$SELECT state || '{"by": "v1"}'$$;
CREATE FUNCTION atomic(state jsonb, event cqrs_es.event) RETURNS jsonb RETURN state || '{"by": "v1"}';
SELECT cqrs_es.take_snapshot('snapshot', 'a') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('snapshot', 'e', 'version_of(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('snapshot', 'a'), '{"by": "v1", "start": true}', 'a reducer that is defined');
SELECT cqrs_es.take_snapshot('snapshot', 'a') IS NULL AS x \gset
SELECT is((regexp_match(pg_temp.snapshot('a'), '\{.*\}'))[1], '{"by": "v1", "start": true}', 'its snapshot replaces the one from before');
CREATE OR REPLACE FUNCTION version_of(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$SELECT state || '{"by": "v2"}'$$;
SELECT is(cqrs_es.aggregate_state('snapshot', 'a'), '{"by": "v2", "start": true}', 'a function that is replaced');
SELECT pg_temp.append('a', 3) IS NULL AS x \gset
SELECT is((regexp_match(pg_temp.snapshot('a'), '\{.*\}'))[1], '{"by": "v2", "start": true}', 'the next snapshot that is due is of the new one');
SAVEPOINT s;
CREATE OR REPLACE FUNCTION version_of(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$SELECT state || '{"by": "v3"}'$$;
SELECT is(cqrs_es.aggregate_state('snapshot', 'a'), '{"by": "v3", "start": true}', 'a replacement');
ROLLBACK TO s;
SELECT is(cqrs_es.aggregate_state('snapshot', 'a'), '{"by": "v2", "start": true}', 'that is rolled back');
SELECT cqrs_es.define_reducer('snapshot', 'e', 'atomic(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('snapshot', 'a'), '{"by": "v1", "start": true}', 'a function with its body in SQL syntax');
SELECT cqrs_es.take_snapshot('snapshot', 'a') IS NULL AS x \gset
CREATE OR REPLACE FUNCTION atomic(state jsonb, event cqrs_es.event) RETURNS jsonb RETURN state || '{"by": "v2"}';
-- a body in standard SQL is kept elsewhere than others
SELECT is(cqrs_es.aggregate_state('snapshot', 'a'), '{"by": "v2", "start": true}', 'that is replaced');
CREATE FUNCTION twin1(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$SELECT state || '{"by": "twin"}'$$;
CREATE FUNCTION twin2(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$SELECT state || '{"by": "twin"}'$$;
SELECT cqrs_es.define_reducer('snapshot', 'other', 'twin1(jsonb, cqrs_es.event)') IS NULL AS x \gset
DELETE FROM cqrs_es.snapshots WHERE aggregate_type = 'snapshot';
SELECT pg_temp.append('f', 3) IS NULL AS x \gset
SELECT fingerprint AS before FROM cqrs_es.snapshots WHERE aggregate_type = 'snapshot' AND aggregate_id = 'f' \gset
SELECT is(length(:'before'::bytea), 32, 'the fingerprint is a SHA-256');
DELETE FROM cqrs_es.snapshots WHERE aggregate_type = 'snapshot';
DELETE FROM cqrs_es.reducers WHERE aggregate_type = 'snapshot' AND event_type = 'other';
SELECT cqrs_es.define_reducer('snapshot', 'other', 'twin1(jsonb, cqrs_es.event)') IS NULL AS x \gset
SELECT cqrs_es.take_snapshot('snapshot', 'f') IS NULL AS x \gset
SELECT is(fingerprint, :'before', 'the same declarations make the same one') FROM cqrs_es.snapshots WHERE aggregate_type = 'snapshot' AND aggregate_id = 'f';
UPDATE cqrs_es.aggregates SET initial_state = '{"start": false}' WHERE aggregate_type = 'snapshot';
SELECT is(cqrs_es.aggregate_state('snapshot', 'f') -> 'start', 'false', 'another initial state makes another one');

-- a long replay that was paid for

SELECT cqrs_es.create_aggregate('paid', '{}', 5) IS NULL AS x \gset
SELECT cqrs_es.define_command('paid', 'Do', $$'{"type": "e", "payload": {}}'::jsonb$$) IS NULL AS x \gset
SELECT cqrs_es.define_command('paid', 'Do not', $$cqrs_es.reject('no')$$) IS NULL AS x \gset
CREATE FUNCTION pg_temp.paid() RETURNS text LANGUAGE sql AS
	$$SELECT format('%s %s', last_sequence, payload) FROM cqrs_es.snapshots WHERE aggregate_type = 'paid'$$;
SELECT cqrs_es.append_event('paid', 'a', 'e', jsonb_build_object('n', n)) AS x FROM generate_series(1, 12) AS n \g /dev/null
SELECT cqrs_es.define_reducer('paid', 'e', '[{"op": "increment", "path": "/e"}]'::jsonb) IS NULL AS x \gset
SELECT is(pg_temp.state_of($$SELECT cqrs_es.execute_command('paid', 'a', 'Do not')$$), 'QE301', 'a command that is refused');
SELECT is(pg_temp.paid(), '10 {"n": 10}', 'writes nothing');
SELECT cqrs_es.alter_aggregate('paid', initial_state => '{"e": 100}') IS NULL AS x \gset
SELECT is((cqrs_es.execute_command('paid', 'a', 'Do')).version, 13::bigint, 'one that appends');
SELECT is(pg_temp.paid(), '13 {"e": 113}', 'leaves what came of the state that it had to replay a long stream for');
SELECT is((cqrs_es.execute_command('paid', 'a', 'Do')).version || ', ' || pg_temp.paid(), '14, 13 {"e": 113}', 'the next one finds it');
SELECT cqrs_es.append_event('paid', 'b', 'e', '{}') AS x FROM generate_series(1, 7) \g /dev/null
DELETE FROM cqrs_es.snapshots WHERE aggregate_type = 'paid';
SELECT cqrs_es.define_command('paid', 'Merge', $$'{"type": "m", "payload": {"k": "sent"}}'::jsonb$$) IS NULL AS x \gset
CREATE FUNCTION pg_temp.written() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.payload := '{"k": "written"}'; RETURN NEW; END $$;
CREATE TRIGGER written BEFORE INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION pg_temp.written();
SELECT cqrs_es.execute_command('paid', 'b', 'Merge') IS NULL AS x \gset
SELECT is(pg_temp.paid(), '8 {"e": 107, "k": "written"}', 'where triggers change events, it is of what is in the log');
DROP TRIGGER written ON cqrs_es.events;

-- savepoints

SELECT pg_temp.append('s', 2) IS NULL AS x \gset
SAVEPOINT s;
SELECT pg_temp.append('s', 1) IS NULL AS x \gset
SELECT is((regexp_match(pg_temp.snapshot('s'), '^\d+'))[1], '3', 'a snapshot');
ROLLBACK TO s;
SELECT is(pg_temp.snapshot('s'), NULL, 'goes with the event');

-- the property: whatever is appended, on whatever way, with whatever is rolled
-- back, state and snapshot equal a plain fold of all events in PL/pgSQL.

CREATE FUNCTION pg_temp.merge_patch(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE k text; v jsonb;
BEGIN
	IF jsonb_typeof(patch) <> 'object' THEN RETURN patch; END IF;
	IF target IS NULL OR jsonb_typeof(target) <> 'object' THEN target := '{}'; END IF;
	FOR k, v IN SELECT * FROM jsonb_each(patch) LOOP
		IF v = 'null' THEN target := target - k;
		ELSE target := target || jsonb_build_object(k, pg_temp.merge_patch(target -> k, v));
		END IF;
	END LOOP;
	RETURN target;
END $$;
CREATE FUNCTION added(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT jsonb_set(CASE jsonb_typeof(state) WHEN 'object' THEN state ELSE '{}' END, '{sum}',
		to_jsonb(coalesce((CASE jsonb_typeof(state) WHEN 'object' THEN state END ->> 'sum')::int, 0) + ((event).payload ->> 'by')::int))$$;
CREATE FUNCTION listed(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	IF jsonb_typeof(state) <> 'object' THEN state := '{}'; END IF;
	RETURN jsonb_set(state, '{list}', coalesce(state -> 'list', '[]') || jsonb_build_array(event.sequence)) - 'gone';
END $$;
CREATE FUNCTION pg_temp.slow_fold(type text, id text, up_to bigint DEFAULT 9223372036854775807) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE state jsonb; e record;
BEGIN
	SELECT initial_state INTO state FROM cqrs_es.aggregates WHERE aggregate_type = type;
	FOR e IN SELECT ev, ev.event_type, ev.payload FROM cqrs_es.read_stream(type, id) ev WHERE ev.sequence <= up_to LOOP
		state := CASE e.event_type WHEN 'added' THEN added(state, e.ev) WHEN 'listed' THEN listed(state, e.ev)
			ELSE CASE jsonb_typeof(e.payload) WHEN 'object' THEN pg_temp.merge_patch(state, e.payload) ELSE state END END;
	END LOOP;
	RETURN state;
END $$;
CREATE FUNCTION pg_temp.random_event(i integer, OUT type text, OUT payload jsonb) LANGUAGE plpgsql AS $$
DECLARE k text := chr(97 + floor(random() * 4)::int);
BEGIN
	type := (ARRAY['added', 'listed', 'merged', 'patched'])[1 + floor(random() * 4)::int];
	payload := CASE WHEN type = 'added' THEN jsonb_build_object('by', floor(random() * 100)::int)
		WHEN random() < 0.02 THEN to_jsonb(k)
		WHEN random() < 0.3 THEN jsonb_build_object(k, NULL)
		WHEN random() < 0.5 THEN jsonb_build_object(k, jsonb_build_object(chr(97 + floor(random() * 4)::int), NULL, 'x', random()))
		WHEN random() < 0.1 THEN jsonb_build_object(k, repeat(md5(random()::text), 100))
		ELSE jsonb_build_object(k, floor(random() * 10)::int, 'gone', true) END;
END $$;
CREATE TABLE counts (steps integer DEFAULT 0, undone integer DEFAULT 0);
INSERT INTO counts DEFAULT VALUES;
CREATE FUNCTION pg_temp.random_step(t text, id text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE n integer := 1 + floor(random() * random() * 12)::int; events jsonb; undo boolean := random() < 0.2;
BEGIN
	SELECT jsonb_agg(jsonb_build_object('type', r.type, 'payload', r.payload)) INTO events
	FROM generate_series(1, n) i, pg_temp.random_event(i) r;
	CASE floor(random() * 5)::int
		WHEN 0 THEN PERFORM cqrs_es.append_event(t, id, e ->> 'type', e -> 'payload') FROM jsonb_array_elements(events) e;
		WHEN 1 THEN PERFORM cqrs_es.append_events(t, id, events);
		WHEN 2 THEN PERFORM cqrs_es.append_event_arrays(t, id, array_agg(e ->> 'type'), array_agg(e -> 'payload')) FROM jsonb_array_elements(events) e;
		WHEN 3 THEN INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT t, id, e ->> 'type', e -> 'payload' FROM jsonb_array_elements(events) e;
		ELSE INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload)
			SELECT cqrs_es.stream_version(t, id) + o, t, id, e ->> 'type', e -> 'payload' FROM jsonb_array_elements(events) WITH ORDINALITY j (e, o) ORDER BY o;
	END CASE;
	IF random() < 0.05 THEN PERFORM cqrs_es.take_snapshot(t, id); END IF;
	IF undo THEN RAISE EXCEPTION USING ERRCODE = 'ZZ002'; END IF;
EXCEPTION WHEN SQLSTATE 'ZZ002' THEN UPDATE counts SET undone = undone + 1;
END $$;
CREATE FUNCTION pg_temp.random_streams(t text, every integer, steps integer) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE id text; s record; v bigint;
BEGIN
	FOR i IN 1 .. steps LOOP
		id := chr(97 + floor(random() * 3)::int);
		PERFORM pg_temp.random_step(t, id);
		UPDATE counts c SET steps = c.steps + 1;
		SELECT version, state INTO s FROM cqrs_es.load_aggregate(t, id);
		v := cqrs_es.stream_version(t, id);
		IF s.version <> v OR s.state IS DISTINCT FROM pg_temp.slow_fold(t, id) THEN
			RETURN NEXT format('step %s: state of %s at %s is %s, not %s', i, id, v, s, pg_temp.slow_fold(t, id));
		END IF;
		SELECT last_sequence, payload INTO s FROM cqrs_es.snapshots sn WHERE sn.aggregate_type = t AND sn.aggregate_id = id;
		IF coalesce(s.last_sequence, 0) < v / every * every THEN
			RETURN NEXT format('step %s: last snapshot of %s at %s is at %s', i, id, v, s.last_sequence);
		END IF;
		IF s.payload IS DISTINCT FROM pg_temp.slow_fold(t, id, s.last_sequence) AND s.last_sequence IS NOT NULL THEN
			RETURN NEXT format('step %s: snapshot of %s at %s is %s, not %s', i, id, s.last_sequence, s.payload, pg_temp.slow_fold(t, id, s.last_sequence));
		END IF;
	END LOOP;
END $$;
SELECT setseed(0.42) IS NULL AS x \gset
SELECT count(cqrs_es.create_aggregate('random ' || every, '{"start": [1]}', every)) AS x FROM unnest('{1,3,10}'::int[]) every \gset
SELECT count(cqrs_es.define_reducer('random ' || every, 'added', 'added(jsonb, cqrs_es.event)')),
	count(cqrs_es.define_reducer('random ' || every, 'listed', 'listed(jsonb, cqrs_es.event)')) AS x FROM unnest('{1,3,10}'::int[]) every \gset
SELECT is_empty(format('SELECT * FROM pg_temp.random_streams(''random %s'', %1$s, 80)', every), format('random streams with a snapshot every %s events', every))
FROM unnest('{1,3,10}'::int[]) WITH ORDINALITY u (every, n) ORDER BY n;
SELECT is(steps, 240, 'there were steps') FROM counts;
SELECT cmp_ok(undone, '>', 20, 'some of them undone') FROM counts;
SELECT finish();
ROLLBACK;
