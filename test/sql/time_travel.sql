\i test/include/setup.sql
-- The state at a sequence, at a time, after every event; from snapshots as from the first event.
BEGIN;
SELECT plan(85);
SELECT setseed(0.7) IS NULL AS x \gset
-- merges: the slow fold, of what read_stream returns
CREATE FUNCTION pg_temp.slow(type text, id text, up_to bigint) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_object_agg(key, value) FROM (SELECT DISTINCT ON (key) key, value FROM cqrs_es.read_stream(type, id), jsonb_each(payload) WHERE sequence <= up_to ORDER BY key, sequence DESC) newest WHERE value <> 'null' $$;

SELECT cqrs_es.create_aggregate('travel', '{}', 0) IS NULL AS x \gset
-- created an hour apart; the fourth and the fifth at the same time
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at)
SELECT 'travel', 'a', 'e', jsonb_build_object('n', n, 'k' || n % 3, n), '2020-01-01 00:00+00'::timestamptz + (n - (n >= 5)::int) * interval '1 hour' FROM generate_series(1, 10) n;
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at) VALUES ('travel', 'other', 'e', '{"other": 1}', '2020-01-01 02:30+00');

-- at a sequence

SELECT is(cqrs_es.aggregate_state('travel', 'a', n), pg_temp.slow('travel', 'a', n), format('at_sequence %s', n)) FROM unnest(ARRAY[1, 2, 5, 9, 10]) n ORDER BY n;
SELECT is(cqrs_es.aggregate_state('travel', 'a', n), cqrs_es.aggregate_state('travel', 'a'), format('at_sequence %s: beyond the end', n)) FROM unnest(ARRAY[11, 1000, 9223372036854775807, NULL]) n;
SELECT is(cqrs_es.aggregate_state('travel', 'a', 0), NULL, 'at_sequence 0: nothing yet');
SELECT is(cqrs_es.load_aggregate('travel', 'a', 0)::text, '(0,{})', 'to load: version 0 and the initial state');
SELECT is(cqrs_es.load_aggregate('travel', 'a', 4), ROW(4::bigint, pg_temp.slow('travel', 'a', 4)), 'load_aggregate in the middle');
SELECT is((cqrs_es.load_aggregate('travel', 'a', 4000)).version, 10::bigint, 'and beyond the end');
SELECT is(cqrs_es.aggregate_state('travel', 'none', 5), NULL, 'of a stream without events');
SELECT is(cqrs_es.load_aggregate('travel', 'none', 5)::text, '(0,{})', 'and to load it');
SELECT throws_ok(format('SELECT * FROM cqrs_es.%s(''travel'', ''a'', %s)', f, args), '22023', message, format('%s(%s)', f, args))
FROM unnest(ARRAY['aggregate_state', 'load_aggregate']) f, (VALUES (1, '-1', 'at_sequence must not be negative'), (2, '-9223372036854775808', 'at_sequence must not be negative'), (3, '1, ''2020-01-01''', 'at_sequence and at_time cannot be given both'),
	(4, '0, ''infinity''', 'at_sequence and at_time cannot be given both')) v (n, args, message) ORDER BY f, n;
SELECT throws_ok(format('SELECT * FROM cqrs_es.%s(''undeclared'', ''a'', 1)', f), 'QE101', NULL, f || ' of an undeclared type') FROM unnest(ARRAY['aggregate_state', 'load_aggregate', 'replay']) f;

-- at a time

SELECT is((cqrs_es.load_aggregate('travel', 'a', at_time => t::timestamptz)).version, version::bigint, 'at_time ' || t)
FROM (VALUES ('-infinity', 0), ('2020-01-01 00:00+00', 0), ('2020-01-01 00:59:59.999999+00', 0), ('2020-01-01 01:00+00', 1), ('2020-01-01 01:00:00.000001+00', 1), ('2020-01-01 01:59:59.999999+00', 1), ('2020-01-01 02:30+00', 2),
	('2020-01-01 05:30+02', 3), ('2020-01-01 04:00+00', 5), ('2020-01-01 03:59+00', 3), ('2020-01-01 09:00+00', 10), ('2021-01-01', 10), ('infinity', 10)) v (t, version);
SELECT is(cqrs_es.aggregate_state('travel', 'a', at_time => '2020-01-01 02:30+00'), pg_temp.slow('travel', 'a', 2), 'the state at a time');
SELECT is(cqrs_es.aggregate_state('travel', 'a', at_time => '2019-01-01'), NULL, 'before the first event');
SELECT is(cqrs_es.aggregate_state('travel', 'a', at_time => NULL), cqrs_es.aggregate_state('travel', 'a'), 'no time is now');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at) VALUES ('travel', 'a', 'e', '{"late": 1}', '2020-01-01 02:30+00');
SELECT is((cqrs_es.load_aggregate('travel', 'a', at_time => '2020-01-01 03:30+00')).version, 3::bigint, 'an event dated back is not seen without those in front of it');
SELECT is((cqrs_es.load_aggregate('travel', 'a', at_time => '2020-01-01 09:00+00')).version, 11::bigint, 'but with them');
SELECT is((cqrs_es.load_aggregate('travel', 'a', at_time => '2020-01-01 02:29+00')).version, 2::bigint, 'and before');

-- replay

SELECT is((SELECT array_agg(sequence ORDER BY sequence) FROM cqrs_es.replay('travel', 'a', f, m)), expected, format('replay from %s, %s', f, m))
FROM (VALUES (1::bigint, 3::bigint, ARRAY[1, 2, 3]::bigint[]), (4, 2, '{4,5}'), (10, 5, '{10,11}'), (11, 1, '{11}'), (12, 1, NULL), (9223372036854775807, 1, NULL), (1, 0, NULL), (NULL, 1, '{1}'), (10, NULL, '{10,11}'), (2, 1, '{2}')) v (f, m, expected);
SELECT throws_ok($$SELECT * FROM cqrs_es.replay('travel', 'a', 0)$$, '22023', 'from_sequence must be greater than zero', 'replay from 0');
SELECT throws_ok($$SELECT * FROM cqrs_es.replay('travel', 'a', -1)$$, '22023', NULL, 'replay from -1');
SELECT throws_ok($$SELECT * FROM cqrs_es.replay('travel', 'a', 1, -1)$$, '2201W', 'max_count must not be negative', 'replay of less than nothing');
SELECT is_empty($$SELECT * FROM cqrs_es.replay('travel', 'none')$$, 'replay of a stream without events');
SELECT is_empty($$SELECT sequence FROM cqrs_es.replay('travel', 'a') r JOIN cqrs_es.read_stream('travel', 'a') e USING (sequence)
	WHERE (r.created_at, r.event_type, r.event_version, r.payload, r.metadata) IS DISTINCT FROM (e.created_at, e.event_type, e.event_version, e.payload, e.metadata) OR r.state IS DISTINCT FROM pg_temp.slow('travel', 'a', sequence)$$, 'replay shows the events, and the states after them');

-- the newest snapshot at or before the point

CREATE FUNCTION pg_temp.snapshots(id text) RETURNS bigint[] LANGUAGE sql AS $$SELECT array_agg(last_sequence ORDER BY last_sequence) FROM cqrs_es.snapshots WHERE aggregate_type = 'snapped' AND aggregate_id = id$$;
SELECT cqrs_es.create_aggregate('snapped', '{}', 3, 3) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('snapped', 'e', '[{"op": "increment", "path": "/n"}]') IS NULL AS x \gset
SELECT cqrs_es.append_events('snapped', 'a', (SELECT jsonb_agg('{"type": "e", "payload": {}}'::jsonb) FROM generate_series(1, 14))) IS NULL AS x \gset
SELECT is(pg_temp.snapshots('a'), '{6,9,12}', 'three are kept');
UPDATE cqrs_es.snapshots SET payload = jsonb_build_object('n', last_sequence * 1000) WHERE aggregate_type = 'snapped';
SELECT is((SELECT array_agg((cqrs_es.aggregate_state('snapped', 'a', n) -> 'n')::int ORDER BY n) FROM generate_series(1, 15) n), '{1,2,3,4,5,6000,6001,6002,9000,9001,9002,12000,12001,12002,12002}', 'each point is reached from the one before it');
SELECT is((SELECT array_agg((state -> 'n')::int ORDER BY sequence) FROM cqrs_es.replay('snapped', 'a', 8)), '{6002,6003,6004,6005,6006,6007,6008}', 'replay from the one before its first event');
SELECT is((SELECT array_agg((state -> 'n')::int ORDER BY sequence) FROM cqrs_es.replay('snapped', 'a', f, 1)), ARRAY[n], format('replay of event %s', f)) FROM (VALUES (6, 6), (7, 6001), (9, 6003), (10, 9001), (13, 12001)) v (f, n);
SELECT is((SELECT array_agg((state -> 'n')::int ORDER BY sequence) FROM cqrs_es.replay('snapped', 'a', 1, 7)), '{1,2,3,4,5,6,7}', 'replay from the beginning uses none');
SELECT is((cqrs_es.load_aggregate('snapped', 'a', at_time => 'infinity')).state, '{"n": 12002}', 'at_time uses them, too');
SELECT is(cqrs_es.take_snapshot('snapped', 'a'), 14::bigint, 'one by hand');
SELECT is(pg_temp.snapshots('a'), '{9,12,14}', 'takes the place of the oldest');
SELECT is(cqrs_es.take_snapshot('snapped', 'a'), 14::bigint, 'once more');
SELECT is(pg_temp.snapshots('a'), '{9,12,14}', 'changes nothing');
SELECT cqrs_es.alter_aggregate('snapped', keep_snapshots => 1) IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('snapped', 'a', 13), '{"n": 12001}', 'fewer are to be kept: what is there is still good');
SELECT cqrs_es.append_event('snapped', 'a', 'e', '{}') IS NULL AS x \gset
SELECT is(pg_temp.snapshots('a'), '{15}', 'until the next is taken');
SELECT is(cqrs_es.aggregate_state('snapped', 'a', 13), '{"n": 13}', 'before the only one: from the first event');
UPDATE cqrs_es.snapshots SET fingerprint = '\x00' WHERE aggregate_type = 'snapped';
SELECT is(cqrs_es.aggregate_state('snapped', 'a'), '{"n": 15}', 'one of other reducers is not used');
SELECT cqrs_es.append_events('snapped', 'b', (SELECT jsonb_agg('{"type": "e", "payload": {}}'::jsonb) FROM generate_series(1, 10))) IS NULL AS x \gset
SELECT is(pg_temp.snapshots('b'), '{9}', 'one is kept');

-- random streams, reducers and settings: from snapshots as from event 1

CREATE FUNCTION listed(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
	$$SELECT state || jsonb_build_object('list', coalesce(state -> 'list', '[]') || event.payload, 'last', event.sequence)$$;
CREATE TEMP TABLE settings AS SELECT 'random ' || n AS type, (ARRAY[1, 2, 3, 5, 7, 10, 100])[1 + floor(random() * 7)::int] AS every, (ARRAY[1, 1, 2, 3, 10])[1 + floor(random() * 5)::int] AS keep FROM generate_series(1, 40) n;
SELECT count(cqrs_es.create_aggregate(type, jsonb_build_object('start', type), every, keep)) AS x FROM settings \gset
SELECT count(cqrs_es.define_reducer(type, e, (ARRAY['[{"op": "increment", "path": "/n", "from": "/x"}]', '[{"op": "append", "path": "/list", "from": "/x"}, {"op": "set", "path": "/at/{sequence}", "from": "/x"}]',
	'[{"op": "merge", "path": "/{/k}", "from": ""}]', 'listed(jsonb, cqrs_es.event)'])[1 + floor(random() * 4)::int])) AS x FROM settings, unnest(ARRAY['a', 'b', 'c']) e WHERE random() < 0.8 \gset
CREATE TEMP TABLE states (type text, id text, sequence bigint, state jsonb);
DO $$
DECLARE s record; i integer; id text;
BEGIN
	FOR s IN SELECT * FROM settings LOOP
		FOR i IN 1 .. 10 + floor(random() * 30)::int LOOP
			id := (ARRAY['x', 'y'])[1 + floor(random() * 2)::int];
			IF random() < 0.8 THEN
				PERFORM cqrs_es.append_event(s.type, id, (ARRAY['a', 'b', 'c', 'd'])[1 + floor(random() * 4)::int], jsonb_build_object('x', i, 'k', 'key' || i % 3));
			ELSE
				PERFORM cqrs_es.append_events(s.type, id, (SELECT jsonb_agg(jsonb_build_object('type', (ARRAY['a', 'b', 'c', 'd'])[1 + floor(random() * 4)::int], 'payload', jsonb_build_object('x', j / 10.0, 'k', 'key' || j % 3))) FROM generate_series(1, 1 + floor(random() * 8)::int) j));
			END IF;
			IF random() < 0.1 THEN PERFORM cqrs_es.take_snapshot(s.type, id); END IF;
			IF random() < 0.1 THEN PERFORM cqrs_es.alter_aggregate(s.type, keep_snapshots => 1 + floor(random() * 3)::int, snapshot_every => 1 + floor(random() * 10)::int); END IF;
			IF random() < 0.1 THEN DELETE FROM cqrs_es.snapshots WHERE aggregate_type = s.type AND random() < 0.5; END IF;
		END LOOP;
	END LOOP;
END $$;
CREATE FUNCTION pg_temp.all_states() RETURNS SETOF states LANGUAGE sql AS $$
	SELECT e.aggregate_type, e.aggregate_id, e.sequence, cqrs_es.aggregate_state(e.aggregate_type, e.aggregate_id, e.sequence) FROM cqrs_es.events e WHERE e.aggregate_type LIKE 'random %' $$;
SELECT cmp_ok((SELECT count(*) FROM cqrs_es.snapshots WHERE aggregate_type LIKE 'random %'), '>', 80::bigint, 'random streams with many snapshots');
INSERT INTO states SELECT * FROM pg_temp.all_states();
CREATE TEMP TABLE replayed AS SELECT s.type, s.id, r.sequence, r.state FROM (SELECT DISTINCT type, id FROM states) s, cqrs_es.replay(s.type, s.id, (cqrs_es.stream_version(s.type, s.id) + 1) / 2) r;
CREATE TEMP TABLE latest AS SELECT s.type, s.id, l.version AS sequence, l.state FROM (SELECT DISTINCT type, id FROM states) s, cqrs_es.load_aggregate(s.type, s.id) l;
DELETE FROM cqrs_es.snapshots WHERE aggregate_type LIKE 'random %';
CREATE TEMP TABLE from_one AS SELECT * FROM pg_temp.all_states();
SELECT cmp_ok((SELECT count(*) FROM from_one), '>', 1000::bigint, 'of more than a thousand events');
SELECT is_empty($$SELECT type, id, sequence, s.state AS from_snapshot, o.state AS from_one FROM states s FULL JOIN from_one o USING (type, id, sequence) WHERE s.state::text IS DISTINCT FROM o.state::text$$, 'the state at every sequence');
SELECT is_empty($$SELECT type, id, sequence, s.state, o.state FROM replayed s LEFT JOIN from_one o USING (type, id, sequence) WHERE s.state::text IS DISTINCT FROM o.state::text$$, 'replay from the middle');
SELECT is_empty($$SELECT type, id, sequence, s.state, o.state FROM latest s LEFT JOIN from_one o USING (type, id, sequence) WHERE s.state::text IS DISTINCT FROM o.state::text$$, 'the current state');
SELECT is_empty($$SELECT o.* FROM (SELECT DISTINCT type, id FROM states) s, cqrs_es.replay(s.type, s.id) r JOIN from_one o USING (sequence) WHERE (o.type, o.id) = (s.type, s.id) AND r.state::text IS DISTINCT FROM o.state::text$$, 'one replay of all');
SELECT finish();
ROLLBACK;
