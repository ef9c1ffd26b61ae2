\i test/include/setup.sql
-- The table is an API too: plain INSERT and COPY are held to the rules of append_event.
-- Positions of events that are restored below: drawn by nobody who is still there.
SELECT min(cqrs_es.next_position()) AS old FROM generate_series(1, 10) \gset
BEGIN;
SELECT plan(93);
CREATE FUNCTION pg_temp.stream(id text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s:%s', sequence, payload), ' ' ORDER BY sequence) FROM cqrs_es.read_stream('admission', id)
$$;
CREATE TEMP VIEW e AS SELECT sequence, aggregate_type, aggregate_id, event_type, payload FROM cqrs_es.events;
CREATE FUNCTION pg_temp.positions_rise() RETURNS text LANGUAGE sql AS $$
	SELECT is_empty($q$SELECT aggregate_id, sequence FROM (SELECT *, lag(global_position) OVER
		(PARTITION BY aggregate_id ORDER BY sequence) AS before FROM cqrs_es.events WHERE aggregate_type = 'admission') x
		WHERE before >= global_position$q$, 'positions rise with the sequence') $$;

-- INSERT

SELECT lives_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (1, 'admission', 'a', 'e', '1')$$,
	'the next sequence is taken');
SELECT lives_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (2, 'admission', 'a', 'e', '2')$$,
	'and the next');
SELECT lives_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('admission', 'a', 'e', '3')$$,
	'one left out is filled in');
SELECT lives_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (NULL, 'admission', 'a', 'e', '4')$$,
	'and so is a null');
SELECT is(pg_temp.stream('a'), '1:1 2:2 3:3 4:4', 'the stream is in order');
SELECT results_eq($$SELECT tenant_id, event_version, metadata, created_at BETWEEN now() AND clock_timestamp(), event_id IS NOT NULL
	FROM cqrs_es.read_stream('admission', 'a', 4)$$, $$VALUES ('', '1', '{}'::jsonb, true, true)$$, 'the rest has defaults');
SELECT throws_ok(format($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload)
	VALUES (%s, 'admission', %L, 'e', '{}')$$, sequence, id), state, NULL, format('%s: sequence %s of %s', state, sequence, id))
FROM (VALUES (1, 1, 'a', '23505'), (2, 4, 'a', '23505'), (3, 6, 'a', 'QE003'), (4, 9223372036854775807, 'a', 'QE003'),
	(5, 2, 'new', 'QE003'), (6, 0, 'a', '22023'), (7, -1, 'a', '22023')) t (n, sequence, id, state)
ORDER BY n;
SELECT throws_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (6, 'admission', 'a', 'e', '{}')$$,
	'QE003', 'sequence 6 would leave a hole in stream "admission/a"', 'the message of a hole');
SELECT is((cqrs_es.append_event('admission', 'a', 'e', '5', 4)).version, 5::bigint, 'append_event goes on');
SELECT lives_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (6, 'admission', 'a', 'e', '6')$$,
	'and INSERT behind it');

SELECT lives_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES
	(1, 'admission', 'rows', 'e', '1'), (2, 'admission', 'rows', 'e', '2'), (1, 'admission', 'rows 2', 'e', '1'), (3, 'admission', 'rows', 'e', '3')$$,
	'many rows in their order');
SELECT lives_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES
	('admission', 'rows', 'e', '4'), ('admission', 'rows 2', 'e', '2'), ('admission', 'rows', 'e', '5')$$, 'many rows without sequence');
SELECT is(pg_temp.stream('rows'), '1:1 2:2 3:3 4:4 5:5', 'each sees the one before');
SELECT is(pg_temp.stream('rows 2'), '1:1 2:2', 'in its stream');
SELECT throws_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES
	(6, 'admission', 'rows', 'e', '6'), (8, 'admission', 'rows', 'e', '8')$$, 'QE003', NULL, 'many rows with a hole');
SELECT throws_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES
	(6, 'admission', 'rows', 'e', '6'), (6, 'admission', 'rows', 'e', '6')$$, '23505', NULL, 'many rows with a sequence twice');
SELECT throws_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES
	(2, 'admission', 'backward', 'e', '2'), (1, 'admission', 'backward', 'e', '1')$$, 'QE003', NULL, 'many rows in the wrong order');
SELECT is(pg_temp.stream('rows'), '1:1 2:2 3:3 4:4 5:5', 'leave nothing');

SELECT lives_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
	SELECT 'admission', 'select ' || n % 3, 'e', to_jsonb(n) FROM generate_series(1, 300) n ORDER BY n$$, 'INSERT ... SELECT');
SELECT results_eq($$SELECT aggregate_id COLLATE "default", count(*), max(sequence), bool_and(payload::int = 3 * sequence - CASE WHEN aggregate_id = 'select 0' THEN 0 ELSE 3 - right(aggregate_id, 1)::int END)
	FROM e WHERE aggregate_type = 'admission' AND aggregate_id LIKE 'select%' GROUP BY aggregate_id ORDER BY 1$$,
	$$VALUES ('select 0', 100::bigint, 100::bigint, true), ('select 1', 100, 100, true), ('select 2', 100, 100, true)$$,
	'fills many streams');
SELECT lives_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
	SELECT 'admission', 'copy of 0', event_type, payload FROM cqrs_es.events WHERE aggregate_type = 'admission' AND aggregate_id = 'select 0' ORDER BY sequence$$,
	'a stream copied by INSERT ... SELECT');
SELECT is(pg_temp.stream('copy of 0'), pg_temp.stream('select 0'), 'is the same');

SELECT lives_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload)
	VALUES (3, 'admission', 'a', 'e', '"again"'), (7, 'admission', 'a', 'e', '7') ON CONFLICT DO NOTHING$$, 'ON CONFLICT DO NOTHING');
SELECT is(pg_temp.stream('a'), '1:1 2:2 3:3 4:4 5:5 6:6 7:7', 'leaves out what is there');
SELECT lives_ok($$MERGE INTO cqrs_es.events t USING (VALUES (8)) v (s)
	ON aggregate_type = 'admission' AND aggregate_id = 'a' AND sequence = s
	WHEN NOT MATCHED THEN INSERT (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (s, 'admission', 'a', 'e', '8')$$, 'MERGE');
SELECT is(cqrs_es.stream_version('admission', 'a'), 8::bigint, 'may insert');
CREATE TEMP TABLE r (sequence bigint, global_position bigint);
WITH i AS (INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('admission', 'a', 'e', '9') RETURNING sequence, global_position)
INSERT INTO r SELECT * FROM i;
SELECT results_eq('SELECT sequence, global_position FROM r', $$SELECT sequence, global_position FROM cqrs_es.read_stream('admission', 'a', 9)$$,
	'RETURNING tells what was filled in');
SELECT pg_temp.positions_rise();

-- the columns

SELECT throws_ok(format('INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, event_version, payload, metadata) VALUES (%s)', row), state, NULL,
	format('%s: (%s)', state, left(row, 60)))
FROM (VALUES (1, '23502', $$NULL, 'x', 'e', '1', '{}', '{}'$$), (2, '23502', $$'admission', NULL, 'e', '1', '{}', '{}'$$),
	(3, '23502', $$'admission', 'x', NULL, '1', '{}', '{}'$$), (4, '23502', $$'admission', 'x', 'e', NULL, '{}', '{}'$$),
	(5, '23502', $$'admission', 'x', 'e', '1', NULL, '{}'$$), (6, '23502', $$'admission', 'x', 'e', '1', '{}', NULL$$),
	(7, '22023', $$'', 'x', 'e', '1', '{}', '{}'$$), (8, '22023', $$'admission', '', 'e', '1', '{}', '{}'$$),
	(9, '22023', $$'admission', 'x', '', '1', '{}', '{}'$$), (10, '22023', $$'admission', 'x', 'e', '', '{}', '{}'$$),
	(11, '22023', $$'admission', 'x', 'e', '1', '{}', '[]'$$), (12, '22023', $$'admission', 'x', 'e', '1', '{}', 'null'$$),
	(13, '22001', format($$%L, 'x', 'e', '1', '{}', '{}'$$, repeat('x', 256))), (14, '22001', format($$'admission', %L, 'e', '1', '{}', '{}'$$, repeat('x', 1025))),
	(15, '22001', format($$'admission', 'x', %L, '1', '{}', '{}'$$, repeat('x', 256))), (16, '22001', format($$'admission', 'x', 'e', %L, '{}', '{}'$$, repeat('x', 256))))
	AS t (n, state, row)
ORDER BY n;
SELECT throws_ok(format($$INSERT INTO cqrs_es.events (%s, sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (NULL, 1, 'admission', 'x', 'e', '{}')$$, col),
	'23502', NULL, '23502: ' || col) FROM unnest(ARRAY['event_id', 'global_position', 'tenant_id']) col ORDER BY col;
SELECT is(pg_temp.error_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('admission', 'x', 'e', '{}'), ('admission', 'y', 'e', NULL)$$, '{state,detail,hint}'),
	ARRAY['23502', 'The event is one of stream "admission/y".', 'For an event without fields use ''{}''.'], 'of several rows it says which one has a null');
SELECT is((pg_temp.error_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('admission', NULL, 'e', '{}')$$, '{detail}'))[1], '', 'unless it has no stream');

-- COPY

\copy cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) from stdin
1	admission	copy	e	1
2	admission	copy	e	2
1	admission	copy 2	e	1
\N	admission	copy	e	3
\.
\copy cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) from stdin
admission	copy	e	4
admission	copy 2	e	2
admission	copy	e	5
\.
SELECT is(pg_temp.stream('copy'), '1:1 2:2 3:3 4:4 5:5', 'COPY with and without sequence');
SELECT is(pg_temp.stream('copy 2'), '1:1 2:2', 'into two streams');
SELECT pg_temp.positions_rise();

SELECT throws_ok(format($$COPY cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) FROM PROGRAM
	'printf "%%s\tadmission\tcopy\te\t1\n" 6 %s'$$, second), state, NULL, format('%s: COPY of the sequences 6 and %s', state, second))
FROM (VALUES (1, 8, 'QE003'), (2, 5, '23505')) t (n, second, state)
ORDER BY n;
SELECT is(pg_temp.stream('copy'), '1:1 2:2 3:3 4:4 5:5', 'they leave nothing');

-- an ordinary role

CREATE ROLE cqrs_es_inserter;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_inserter;
GRANT INSERT ON cqrs_es.events TO cqrs_es_inserter;
SELECT lives_ok($$SELECT pg_temp.as_role('cqrs_es_inserter',
	$q$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('admission', 'role', 'e', '1'), ('admission', 'role', 'e', '2')$q$)$$,
	'INSERT on the table is all it takes');
SELECT throws_ok(format($$SELECT pg_temp.as_role('cqrs_es_inserter', %L)$$, call), state, NULL, format('%s for an ordinary role: %s', state, call))
FROM (VALUES (1, '23505', $$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (2, 'admission', 'role', 'e', '2')$$),
	(2, 'QE003', $$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (4, 'admission', 'role', 'e', '4')$$),
	(3, '42501', $$INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (1, 3, 'admission', 'role', 'e', '3')$$),
	(4, '42501', $$INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (9000000000000000000, 3, 'admission', 'role', 'e', '3')$$),
	(5, '42501', $$INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (0, 3, 'admission', 'role', 'e', '3')$$),
	(6, '42501', $$INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (-1, 3, 'admission', 'role', 'e', '3')$$))
	AS t (n, state, call)
ORDER BY n;
SELECT is(pg_temp.stream('role'), '1:1 2:2', 'which cannot restore an event, only append');

-- restored events: the owner's business

SELECT cqrs_es.create_aggregate('admission', snapshot_every => 1) IS NULL AS x \gset
INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload, created_at, event_id, metadata)
VALUES (:old + 1, 2, 'admission', 'restored', 'e', '{"n": 2}', '2020-01-02 03:04:05Z', '00000000-0000-4000-8000-000000000002', '{"m": 2}'),
	(:old, 1, 'admission', 'restored', 'e', '{"n": 1}', '2020-01-01 03:04:05Z', '00000000-0000-4000-8000-000000000001', '{"m": 1}');
SELECT results_eq($$SELECT sequence, created_at, event_id, payload, metadata FROM cqrs_es.read_stream('admission', 'restored')$$,
	$$VALUES (1::bigint, '2020-01-01 03:04:05Z'::timestamptz, '00000000-0000-4000-8000-000000000001'::uuid, '{"n": 1}'::jsonb, '{"m": 1}'::jsonb),
	(2, '2020-01-02 03:04:05Z', '00000000-0000-4000-8000-000000000002', '{"n": 2}', '{"m": 2}')$$, 'the owner restores events as they were, in any order');
SELECT is(array_agg(global_position - :old ORDER BY sequence), '{0,1}', 'with their positions') FROM cqrs_es.read_stream('admission', 'restored');
SELECT is_empty($$SELECT last_sequence FROM cqrs_es.snapshots WHERE aggregate_id = 'restored'$$, 'nothing follows from it a second time');
SELECT is((cqrs_es.append_event('admission', 'restored', 'e', '{"n": 3}', 2)).version, 3::bigint, 'and appends go on after it');
SELECT results_eq($$SELECT last_sequence, payload FROM cqrs_es.snapshots WHERE aggregate_id = 'restored'$$,
	$$VALUES (3::bigint, '{"n": 3}'::jsonb)$$, 'with what follows from them');
SELECT pg_temp.positions_rise();
CREATE FUNCTION pg_temp.restore(sequence bigint, id text, payload jsonb, p bigint) RETURNS void LANGUAGE sql AS $$
	INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (p, sequence, 'admission', id, 'e', payload) $$;
SELECT throws_ok(format($$SELECT pg_temp.restore(NULL, 'restored', '{}', %s)$$, :old + 2), '22004', NULL, 'a restored event needs its sequence');
SELECT throws_ok(format($$SELECT pg_temp.restore(2, 'restored', '{}', %s)$$, :old + 2), '23505', NULL, 'which must be free');
SELECT pg_temp.restore(1, 'gap', '{}', :old + 3) IS NULL AS x, pg_temp.restore(3, 'gap', '{"n": 3}', :old + 5) IS NULL AS y \gset
SELECT throws_ok($$SELECT cqrs_es.aggregate_state('admission', 'gap')$$, 'XX001', NULL, 'a restore may be incomplete: then replay stops at the hole');
SELECT pg_temp.restore(2, 'gap', '{"n": 2, "filled": true}', :old + 4) IS NULL AS x \gset
SELECT is(cqrs_es.aggregate_state('admission', 'gap'), '{"n": 3, "filled": true}', 'until it is filled');

-- the triggers cannot be misused

SELECT throws_ok(format('SELECT cqrs_es.%s()', f), '39P01', NULL, f || '() is no function to call')
FROM unnest(ARRAY['admit_event', 'dispatch_event', 'refuse_change', 'registry_changed', 'resolve_names']) WITH ORDINALITY u (f, n) ORDER BY n;
CREATE TABLE wrong (LIKE cqrs_es.events);
SELECT throws_ok(format($$CREATE TRIGGER t %s EXECUTE FUNCTION cqrs_es.%s();
	INSERT INTO wrong (global_position, sequence, created_at, event_id, tenant_id, aggregate_type, aggregate_id, event_type, event_version, payload, metadata)
	VALUES (1, 1, now(), '00000000-0000-7000-8000-000000000001', '', 'x', 'x', 'x', '1', '{}', '{}')$$, firing, function),
	'39P01', NULL, format('%s() %s', function, firing))
FROM (VALUES (1, 'admit_event', 'AFTER INSERT ON wrong FOR EACH ROW'), (2, 'admit_event', 'BEFORE INSERT ON wrong'),
	(3, 'dispatch_event', 'BEFORE INSERT ON wrong FOR EACH ROW'), (4, 'dispatch_event', 'BEFORE INSERT ON wrong')) t (n, function, firing)
ORDER BY n;
CREATE TABLE wronger (id integer);
CREATE TRIGGER t BEFORE INSERT ON wronger FOR EACH ROW EXECUTE FUNCTION cqrs_es.admit_event();
SELECT throws_ok('INSERT INTO wronger VALUES (1)', '42703', NULL, 'on a table without our columns the trigger says so');

-- more nested inserts than positions are remembered for
CREATE FUNCTION nested() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.aggregate_id = 'outer' THEN
		FOR i IN 1 .. 40 LOOP
			INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('admission', 'inner', 'e', '1');
		END LOOP;
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER aaa BEFORE INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION nested();
SELECT lives_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('admission', 'outer', 'e', '1')$$,
	'many nested inserts before the outer row');
SELECT throws_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (77, 'admission', 'outer', 'e', '1')$$, 'QE003', NULL,
	'do not make it a restored one');
DROP TRIGGER aaa ON cqrs_es.events;

SELECT last_value + 5 AS above FROM cqrs_es.events_global_position_seq \gset
SELECT lives_ok(format($$INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload)
	VALUES (%s, 1, 'admission', 'above', 'e', '1')$$, :above), 'a restored row above the sequence');
SELECT cmp_ok((cqrs_es.append_event('admission', 'after', 'e', '1')).global_position, '>', :above::bigint, 'has a position that is never drawn again');
SELECT finish();
ROLLBACK;
