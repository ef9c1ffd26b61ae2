\i test/include/setup.sql
-- Events that a projection cannot handle: what the error says, and how rebuild and resume step over them.

BEGIN;
SELECT plan(52);
CREATE SCHEMA se;
SET LOCAL search_path = se, public;
CREATE FUNCTION pg_temp.append(id text, amount text, type text DEFAULT 'moved') RETURNS bigint LANGUAGE sql AS
	$$SELECT version FROM cqrs_es.append_event('se', id, type, jsonb_build_object('amount', amount))$$;
CREATE FUNCTION pg_temp.position_of(id text, n bigint DEFAULT 1) RETURNS bigint LANGUAGE sql AS
	$$SELECT global_position FROM cqrs_es.events WHERE aggregate_type = 'se' AND aggregate_id = id AND sequence = n$$;
-- the same rows in the same order, whatever their collations
CREATE FUNCTION pg_temp.rows_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	r record;
	rows text := '';
BEGIN
	FOR r IN EXECUTE query LOOP rows := rows || r::text || E'\n'; END LOOP;
	RETURN rows;
END $$;
CREATE FUNCTION pg_temp.same(have text, want text, description text) RETURNS text LANGUAGE sql AS
	$$SELECT is(pg_temp.rows_of(have), pg_temp.rows_of(want), description)$$;
CREATE TABLE se.sums (id text PRIMARY KEY, amount numeric NOT NULL CHECK (amount < 1000));
SELECT pg_temp.append('a', '1') AS x, pg_temp.append('b', 'much') AS x, pg_temp.append('a', '2') AS x, pg_temp.append('c', '5000') AS x, pg_temp.append('d', '4') AS x \gset
SELECT cqrs_es.create_projection('sums', '{se}', '{sums}', backfill => true) IS NULL AS x,
	cqrs_es.define_handler('sums', 'moved', $$INSERT INTO sums VALUES (event.aggregate_id, (event.payload->>'amount')::numeric)
		ON CONFLICT (id) DO UPDATE SET amount = sums.amount + excluded.amount$$) IS NULL AS y \gset

-- what the error says
SELECT is(pg_temp.error_of($$SELECT cqrs_es.resume_projection('sums')$$, '{state,schema,table,column,datatype}'),
	ARRAY['QE201', 'se', 'b', '1', pg_temp.position_of('b')::text], 'the error of a handler has stream, sequence and position in its fields');
SELECT matches((pg_temp.error_of($$SELECT cqrs_es.resume_projection('sums')$$, '{hint}'))[1], 'on_error => ''skip''', 'and says how to go on');
SELECT cqrs_es.pause_projection('sums') IS NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.resume_projection('sums', 'ignore')$$, '22023', 'on_error must be "stop" or "skip"', 'another word');
SELECT throws_ok($$SELECT cqrs_es.resume_projection('sums', NULL)$$, '22004', NULL, 'NULL');

-- resume
SELECT is(cqrs_es.resume_projection('sums', on_error => 'skip'), 3::bigint, 'a resume that skips says how many it has handled');
SELECT pg_temp.same('SELECT id, amount FROM sums ORDER BY id', $$VALUES ('a', 3::numeric), ('d', 4)$$, 'all others are handled');
SELECT pg_temp.same($$SELECT projection, aggregate_type, aggregate_id, sequence, event_type, sqlstate, message, activity FROM cqrs_es.skipped_events ORDER BY global_position$$,
	$$VALUES ('sums', 'se', 'b', 1::bigint, 'moved', '22P02', 'invalid input syntax for type numeric: "much"', 'resume'),
		('sums', 'se', 'c', 1, 'moved', '23514', 'new row for relation "sums" violates check constraint "sums_amount_check"', 'resume')$$, 'those that were skipped are recorded, with the reason');
SELECT pg_temp.same('SELECT global_position FROM cqrs_es.skipped_events ORDER BY 1', $$SELECT * FROM (VALUES (pg_temp.position_of('b')), (pg_temp.position_of('c'))) v$$, 'and where');
SELECT pg_temp.same($$SELECT state, skipped FROM cqrs_es.projection_status WHERE name = 'sums'$$, $$VALUES ('live', 2::bigint)$$, 'projection_status counts them');
SELECT throws_ok($$SELECT pg_temp.append('e', 'more')$$, 'QE201', NULL, 'an append never skips');

-- rebuild
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('sums')$$, 'QE201', NULL, 'a rebuild stops, unless it is told to skip');
SELECT is(cqrs_es.rebuild_projection('sums', on_error => 'skip'), 3::bigint, 'then it handles the others');
SELECT pg_temp.same('SELECT aggregate_id, activity FROM cqrs_es.skipped_events ORDER BY 1', $$VALUES ('b', 'rebuild'), ('c', 'rebuild')$$, 'what was skipped before is forgotten');
SELECT pg_temp.same('SELECT id, amount FROM sums ORDER BY id', $$VALUES ('a', 3::numeric), ('d', 4)$$, 'with the same rows');
SELECT cqrs_es.pause_projection('sums') IS NULL AS x, pg_temp.append('b', 'many') AS y \gset
SELECT is(cqrs_es.rebuild_projection('sums', on_error => 'skip'), 3::bigint, 'one that is paused, too');
SELECT is((SELECT skipped FROM cqrs_es.projection_status WHERE name = 'sums'), 3::bigint, 'they are counted there as well');
SELECT is(cqrs_es.resume_projection('sums'), 0::bigint, 'they count as handled');

-- later
SELECT pg_temp.same($$SELECT * FROM cqrs_es.retry_skipped('sums')$$, $$VALUES (0::bigint, 3::bigint)$$, 'nothing has changed, nothing is handled');
SELECT cqrs_es.define_handler('sums', 'moved', $$INSERT INTO sums VALUES (event.aggregate_id, CASE WHEN event.payload->>'amount' ~ '^\d+$' THEN (event.payload->>'amount')::numeric ELSE 7 END)
	ON CONFLICT (id) DO UPDATE SET amount = sums.amount + excluded.amount$$) IS NULL AS y \gset
SELECT pg_temp.same($$SELECT * FROM cqrs_es.retry_skipped('sums')$$, $$VALUES (2::bigint, 1::bigint)$$, 'with another handler those it can handle are');
SELECT pg_temp.same('SELECT id, amount FROM sums ORDER BY id', $$VALUES ('a', 3::numeric), ('b', 14), ('d', 4)$$, 'once each');
SELECT pg_temp.same('SELECT aggregate_id FROM cqrs_es.skipped_events', $$VALUES ('c')$$, 'what is left is still recorded');
ALTER TABLE se.sums DROP CONSTRAINT sums_amount_check;
SELECT pg_temp.same($$SELECT * FROM cqrs_es.retry_skipped('sums')$$, $$VALUES (1::bigint, 0::bigint)$$, 'a table that takes more');
SELECT is((SELECT skipped FROM cqrs_es.projection_status WHERE name = 'sums'), 0::bigint, 'nothing is left');
SELECT is(cqrs_es.rebuild_projection('sums'), 6::bigint, 'a rebuild gives the same');
SELECT pg_temp.same('SELECT id, amount FROM sums ORDER BY id', $$VALUES ('a', 3::numeric), ('b', 14), ('c', 5000), ('d', 4)$$, 'with all rows');

-- half of what a handler does
CREATE TABLE se.halves (id text);
CREATE FUNCTION se.halve(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO halves VALUES (e.aggregate_id || 1);
	PERFORM 1 / (e.sequence - 2);
	INSERT INTO halves VALUES (e.aggregate_id || 2);
END $$;
SELECT cqrs_es.create_projection('halves', '{se}', '{halves}', backfill => true) IS NULL AS x,
	cqrs_es.define_handler('halves', '*', 'halve(cqrs_es.event)') IS NULL AS y,
	cqrs_es.define_handler('halves', 'moved', 'INSERT INTO halves VALUES (event.aggregate_id || 3)') IS NULL AS z \gset
SELECT is(cqrs_es.resume_projection('halves', 'skip'), 4::bigint, 'a function that fails half-way');
SELECT pg_temp.same('SELECT id FROM halves ORDER BY 1', $$VALUES ('a1'), ('a2'), ('a3'), ('b1'), ('b2'), ('b3'), ('c1'), ('c2'), ('c3'), ('d1'), ('d2'), ('d3')$$, 'no part of what it did is left, nor of the handlers beside it');
SELECT pg_temp.same($$SELECT aggregate_id, sequence, sqlstate FROM cqrs_es.skipped_events WHERE projection = 'halves' ORDER BY global_position$$,
	$$VALUES ('a', 2::bigint, '22012'), ('b', 2, '22012')$$, 'it is recorded');
SELECT cqrs_es.drop_projection('halves') IS NULL AS x \gset
SELECT is((SELECT count(*) FROM cqrs_es.skipped_events), 0::bigint, 'and forgotten with the projection');

-- what is no fault of an event is not skipped
SELECT cqrs_es.create_projection('broken', '{se}', '{halves}', backfill => true) IS NULL AS x,
	cqrs_es.define_handler('broken', '*', 'INSERT INTO halves SELECT event.aggregate_id') IS NULL AS y \gset
ALTER TABLE se.halves RENAME id TO other;
ALTER TABLE se.halves RENAME TO gone;
SELECT throws_ok($$SELECT cqrs_es.resume_projection('broken', on_error => 'skip')$$, '55000', 'projection "broken" would skip every event', 'a handler that fails whatever the event is');
ALTER TABLE se.gone RENAME TO halves;
CREATE FUNCTION se.react(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$SELECT cqrs_es.append_event('se reaction', e.aggregate_id, 'reacted', '{}')$$;
SELECT cqrs_es.define_handler('broken', '*', 'react(cqrs_es.event)') IS NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('broken', on_error => 'skip')$$, '55000', NULL, 'one that appends cannot be rebuilt that way');
SELECT is((SELECT count(*) FROM cqrs_es.skipped_events), 0::bigint, 'nothing is recorded');
CREATE FUNCTION se.deadlock(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no' USING ERRCODE = '40P01'; END$$;
SELECT cqrs_es.define_handler('broken', '*', 'deadlock(cqrs_es.event)') IS NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.resume_projection('broken', on_error => 'skip')$$, '40P01', NULL, 'a deadlock');
CREATE FUNCTION se.full(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no' USING ERRCODE = '53100'; END$$;
SELECT cqrs_es.define_handler('broken', '*', 'full(cqrs_es.event)') IS NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.resume_projection('broken', on_error => 'skip')$$, '53100', NULL, 'a full disk');
CREATE FUNCTION se.locked(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE 'no' USING ERRCODE = '55P03'; END$$;
SELECT cqrs_es.define_handler('broken', '*', 'locked(cqrs_es.event)') IS NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.resume_projection('broken', on_error => 'skip')$$, '55P03', NULL, 'a lock that was not to be had in time');

-- handlers that append, in a resume: what they appended for an event that fails is gone with it
CREATE FUNCTION se.react_to_some(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF e.aggregate_type = 'se' THEN
		PERFORM cqrs_es.append_event('se reaction', e.aggregate_id, 'reacted', '{}');
		IF e.aggregate_id = 'b' AND e.sequence = 1 THEN
			RAISE 'no';
		END IF;
	END IF;
END $$;
SELECT cqrs_es.drop_handler('broken', '*') IS NULL AS x, cqrs_es.define_handler('broken', 'moved', 'react_to_some(cqrs_es.event)') IS NULL AS y \gset
SELECT is(cqrs_es.resume_projection('broken', on_error => 'skip'), 5::bigint, 'handlers that append may skip in a resume');
SELECT pg_temp.same($$SELECT aggregate_id, count(*) FROM cqrs_es.events WHERE aggregate_type = 'se reaction' GROUP BY 1 ORDER BY 1$$, $$VALUES ('a', 2::bigint), ('b', 1), ('c', 1), ('d', 1)$$, 'what one that failed had appended is gone');
SELECT pg_temp.same($$SELECT * FROM cqrs_es.retry_skipped('broken')$$, $$VALUES (0::bigint, 1::bigint)$$, 'and when it is tried again');
CREATE OR REPLACE FUNCTION se.react_to_some(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$SELECT cqrs_es.append_event('se reaction', e.aggregate_id, 'reacted', '{}')$$;
SELECT pg_temp.same($$SELECT * FROM cqrs_es.retry_skipped('broken')$$, $$VALUES (1::bigint, 0::bigint)$$, 'then it may append');
SELECT is(cqrs_es.stream_version('se reaction', 'b'), 2::bigint, 'what it was not told of at first');
SELECT cqrs_es.drop_projection('broken') IS NULL AS x \gset

-- states
SELECT cqrs_es.create_aggregate('se', '{"sum": 0}') IS NULL AS x,
	cqrs_es.define_reducer('se', 'moved', '[{"op": "increment", "path": "/sum", "from": "/number"}]') IS NULL AS y \gset
CREATE TABLE se.states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
SELECT version FROM cqrs_es.append_event('se', 'good', 'moved', '{"number": 1}') \gset
SELECT version FROM cqrs_es.append_events('se', 'bad', '[{"type": "moved", "payload": {"number": "x"}}, {"type": "moved", "payload": {"number": 2}}, {"type": "moved", "payload": {"number": 3}}]') \gset
SELECT cqrs_es.create_projection('states', state_of => 'se', read_models => '{states}', backfill => true) IS NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.resume_projection('states')$$, NULL, NULL, 'a state that cannot be folded');
SELECT is(cqrs_es.resume_projection('states', 'skip') > 0, true, 'the others can');
SELECT pg_temp.same($$SELECT view_id, payload->'sum' FROM states WHERE view_id IN ('good', 'bad')$$, $$VALUES ('good', '1'::jsonb)$$, 'its row is not there');
SELECT pg_temp.same($$SELECT aggregate_id, sequence FROM cqrs_es.skipped_events WHERE projection = 'states' AND aggregate_id IN ('good', 'bad')$$, $$VALUES ('bad', 1::bigint)$$, 'recorded is the first event of the stream, for all');
SELECT cqrs_es.drop_projection('states') IS NULL AS x \gset

-- the event that is named is the one that cannot be folded, whichever of the stream brought it up
CREATE FUNCTION se.check(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$SELECT state || jsonb_build_object('n', 1 / (event.payload->>'n')::int)$$;
SELECT cqrs_es.create_aggregate('se ' || type, '{"n": 0}') IS NULL AS x,
	cqrs_es.define_reducer('se ' || type, 'moved', CASE type WHEN 'operations' THEN '[{"op": "increment", "path": "/n", "from": "/n"}]' ELSE 'se.check(jsonb, cqrs_es.event)' END) IS NULL AS y,
	cqrs_es.append_events('se ' || type, 'bad', '[{"type": "moved", "payload": {"n": 1}}, {"type": "moved", "payload": {"n": 2}}]') IS NULL AS z,
	cqrs_es.append_event('se ' || type, 'bad', 'moved', CASE type WHEN 'operations' THEN '{"n": "x"}' ELSE '{"n": 0}' END::jsonb) IS NULL AS u,
	cqrs_es.append_event('se ' || type, 'bad', 'moved', '{"n": 4}') IS NULL AS v FROM (VALUES ('operations'), ('function')) v (type) \g /dev/null
CREATE FUNCTION pg_temp.blamed(type text, statement text) RETURNS text LANGUAGE sql AS $$
	SELECT replace(array_to_string(pg_temp.error_of(statement, '{state,schema,table,column,datatype,message}'), '; '),
		(SELECT '; ' || global_position FROM cqrs_es.events WHERE aggregate_type = type AND aggregate_id = 'bad' AND sequence = 3), '; its position') $$;
CREATE TABLE se.operations (LIKE states INCLUDING ALL);
CREATE TABLE se.function (LIKE states INCLUDING ALL);
SELECT cqrs_es.create_projection(type, state_of => 'se ' || type, read_models => ARRAY[('se.' || type)::regclass], backfill => true) IS NULL AS x FROM (VALUES ('operations'), ('function')) v (type) \g /dev/null
SELECT is(pg_temp.blamed('se operations', $$SELECT cqrs_es.resume_projection('operations')$$),
	'QE102; se operations; bad; 3; its position; operation 1 (increment "/n") of the reducer for "moved" cannot be applied', 'an operation');
SELECT is(pg_temp.blamed('se function', $$SELECT cqrs_es.resume_projection('function')$$),
	'QE201; se function; bad; 3; its position; projection "function" failed on event 3 (moved) of stream "se function/bad"', 'a function');
SELECT cqrs_es.resume_projection('function', 'skip') IS NULL AS x \gset
SELECT is(pg_temp.blamed('se function', $$SELECT cqrs_es.append_event('se function', 'bad', 'moved', '{"n": 5}')$$),
	'QE201; se function; bad; 3; its position; projection "function" failed on event 3 (moved) of stream "se function/bad"', 'also when another one is appended');
ALTER TABLE se.function ADD CHECK (version < 0);
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_event('se function', 'good', 'moved', '{"n": 5}')$$, '{message}'))[1],
	'projection "function" failed on event 1 (moved) of stream "se function/good"', 'and what the table refuses is no other event''s fault');
SELECT cqrs_es.drop_projection(name) IS NULL AS x FROM (VALUES ('operations'), ('function')) v (name) \g /dev/null

-- upcasters
CREATE FUNCTION se.lift(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb_build_object('amount', (payload->>'amount')::numeric)$$;
SELECT cqrs_es.define_upcaster('lifted', '1', '2', 'lift(jsonb)') IS NULL AS x, pg_temp.append('up', '1', 'lifted') AS y, pg_temp.append('up', 'x', 'lifted') AS z, pg_temp.append('up', '3', 'lifted') AS w \gset
SELECT cqrs_es.create_projection('lifted', '{se}', '{halves}', backfill => true) IS NULL AS x,
	cqrs_es.define_handler('lifted', 'lifted', 'INSERT INTO halves VALUES (event.payload->>''amount'')') IS NULL AS y, count(*) FROM halves \gset
SELECT is(cqrs_es.rebuild_projection('lifted', 'skip'), 2::bigint, 'a projection steps over it as well');
SELECT pg_temp.same($$SELECT aggregate_id, sequence, sqlstate FROM cqrs_es.skipped_events$$, $$VALUES ('up', 2::bigint, '22P02')$$, 'and records it');

-- without the handler
SELECT cqrs_es.drop_handler('lifted', 'lifted') IS NULL AS x \gset
SELECT pg_temp.same($$SELECT * FROM cqrs_es.retry_skipped('lifted')$$, $$VALUES (0::bigint, 0::bigint)$$, 'what nothing handles any more is not handled');
SELECT is((SELECT count(*) FROM cqrs_es.skipped_events), 0::bigint, 'nor recorded');

SELECT * FROM finish();
ROLLBACK;
