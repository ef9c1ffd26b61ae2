\i test/include/setup.sql
-- Rebuild, pause and resume: what comes out is what an undisturbed projection has.
-- (No finish() here: it does not know of assertions that were rolled back; pg_prove counts.)

-- Pairs of projections, one of which is paused, resumed and rebuilt at random while events are appended. Their tables
-- remember in which order events came.

SELECT plan(133);
CREATE SCHEMA rebuild;
SET search_path = rebuild, public;
CREATE FUNCTION rebuild.create_twin(twin text) RETURNS void LANGUAGE plpgsql AS $body$
BEGIN
	EXECUTE format($f$
	CREATE TABLE rebuild.sums_%1$s (kind text PRIMARY KEY, events bigint NOT NULL, amount numeric NOT NULL, trail text NOT NULL);
	CREATE TABLE rebuild.notes_%1$s (n bigint PRIMARY KEY, position bigint, version text, payload jsonb);
	CREATE TABLE rebuild.kinds_%1$s (kind text PRIMARY KEY);
	CREATE TABLE rebuild.firsts_%1$s (kind text PRIMARY KEY REFERENCES rebuild.kinds_%1$s, position bigint);
	CREATE TABLE rebuild.states_%1$s (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
	CREATE FUNCTION rebuild.note_%1$s(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		-- a subtransaction that is rolled back
		BEGIN
			DELETE FROM notes_%1$s;
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN
		END;
		INSERT INTO notes_%1$s SELECT count(*) + 1, e.global_position, e.event_version, e.payload FROM notes_%1$s;
	END $$;
	SELECT cqrs_es.create_projection('sums %1$s', '{rebuild,rebuild 2}', '{sums_%1$s}');
	SELECT cqrs_es.define_handler('sums %1$s', '*', $$INSERT INTO sums_%1$s VALUES (event.aggregate_type, 1, 0, md5(event.global_position::text))
		ON CONFLICT (kind) DO UPDATE SET events = sums_%1$s.events + 1, trail = md5(sums_%1$s.trail || event.global_position)$$);
	SELECT cqrs_es.define_handler('sums %1$s', 'moved', 'UPDATE sums_%1$s SET amount = amount + (event.payload->>''amount'')::numeric WHERE kind = event.aggregate_type');
	SELECT cqrs_es.create_projection('notes %1$s', '{rebuild 2}', '{notes_%1$s}');
	SELECT cqrs_es.define_handler('notes %1$s', 'moved', 'note_%1$s(cqrs_es.event)');
	SELECT cqrs_es.define_handler('notes %1$s', 'reaction', 'note_%1$s(cqrs_es.event)');
	SELECT cqrs_es.create_projection('kinds %1$s', NULL, '{kinds_%1$s,firsts_%1$s}');
	SELECT cqrs_es.define_handler('kinds %1$s', '*', $$WITH k AS (INSERT INTO kinds_%1$s SELECT event.aggregate_type || event.event_type WHERE event.aggregate_type LIKE 'rebuild%%' ON CONFLICT DO NOTHING RETURNING kind)
		INSERT INTO firsts_%1$s SELECT kind, event.global_position FROM k$$);
	SELECT cqrs_es.create_projection('states %1$s', read_models => '{states_%1$s}', state_of => 'rebuild');
$f$, twin);
END $body$;
SELECT cqrs_es.create_aggregate('rebuild', '{"n": 0}', snapshot_every => 7) IS NULL AS x, cqrs_es.define_reducer('rebuild', 'moved', '[{"op": "increment", "path": "/n", "from": "/amount"}]') IS NULL AS y \gset
CREATE FUNCTION rebuild.moved_2(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$SELECT jsonb_build_object('amount', payload->'sum')$$;
SELECT cqrs_es.define_upcaster('moved', '1', '2', 'rebuild.moved_2(jsonb)') IS NULL AS x \gset
SELECT rebuild.create_twin('a') IS NULL AS x, rebuild.create_twin('b') IS NULL AS y \gset
-- one that reacts, so that what handlers append is among the events
CREATE FUNCTION rebuild.react(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.append_event('rebuild 2', e.aggregate_id, 'reaction', jsonb_build_object('to', e.sequence)) WHERE e.sequence % 3 = 0 $$;
SELECT cqrs_es.create_projection('a reactor', '{rebuild}') IS NULL AS x, cqrs_es.define_handler('a reactor', 'moved', 'react(cqrs_es.event)') IS NULL AS y \gset

CREATE FUNCTION rebuild.append_at_random() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	type text := CASE WHEN random() < 0.5 THEN 'rebuild' ELSE 'rebuild 2' END;
	way integer := floor(random() * 4);
	event_type text := (ARRAY['moved', 'moved', 'merged', 'other'])[1 + floor(random() * 4)];
	version text := CASE WHEN random() < 0.5 THEN '1' ELSE '2' END;
	payload jsonb := jsonb_build_object(CASE WHEN version = '1' AND event_type = 'moved' THEN 'sum' ELSE 'amount' END, floor(random() * 100));
BEGIN
	IF way = 0 THEN
		PERFORM cqrs_es.append_event(type, 's' || floor(random() * 4), event_type, payload, event_version => version);
	ELSIF way = 1 THEN
		PERFORM cqrs_es.append_events(type, 's' || floor(random() * 4), jsonb_agg(jsonb_build_object('type', event_type, 'version', version, 'payload', payload)))
		FROM generate_series(0, (random() * 4)::int);
	ELSE
		INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, event_version, payload)
		SELECT type, 's' || floor(random() * 4), event_type, version, payload FROM generate_series(0, (random() * 4)::int);
	END IF;
	IF random() < 0.2 THEN
		RAISE sqlstate 'P0ABC';
	END IF;
EXCEPTION WHEN sqlstate 'P0ABC' THEN
END $$;
CREATE FUNCTION rebuild.disturb_at_random() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	projection text := (ARRAY['sums b', 'notes b', 'kinds b', 'states b'])[1 + floor(random() * 4)];
BEGIN
	CASE floor(random() * 4)
		WHEN 0 THEN PERFORM cqrs_es.pause_projection(projection);
		WHEN 1 THEN PERFORM cqrs_es.resume_projection(projection);
		WHEN 2 THEN PERFORM cqrs_es.rebuild_projection(projection);
		ELSE
			-- in vain
			PERFORM cqrs_es.pause_projection(projection), cqrs_es.rebuild_projection(projection);
			PERFORM rebuild.append_at_random();
			PERFORM cqrs_es.resume_projection(projection);
			RAISE sqlstate 'P0ABC';
	END CASE;
EXCEPTION WHEN sqlstate 'P0ABC' THEN
END $$;
CREATE FUNCTION rebuild.differences() RETURNS TABLE (projection text, rows bigint, differences bigint) LANGUAGE plpgsql AS $$
DECLARE read_model text;
BEGIN
	FOREACH read_model IN ARRAY '{sums,notes,kinds,firsts,states}'::text[] LOOP
		RETURN QUERY EXECUTE format('SELECT %1$L::text, (SELECT count(*) FROM rebuild.%1$s_a), count(*) FROM rebuild.%1$s_a AS a FULL JOIN rebuild.%1$s_b AS b ON to_jsonb(a) = to_jsonb(b)
			WHERE a IS NULL OR b IS NULL', read_model);
	END LOOP;
	RETURN QUERY SELECT 'state by replay', count(*), count(*) FILTER (WHERE (s.version, s.payload) IS DISTINCT FROM (l.version, l.state))
		FROM (SELECT DISTINCT aggregate_id FROM cqrs_es.events WHERE aggregate_type = 'rebuild') AS e LEFT JOIN states_b AS s ON view_id = aggregate_id,
		LATERAL cqrs_es.load_aggregate('rebuild', aggregate_id) AS l;
END $$;
CREATE PROCEDURE rebuild.go(steps integer, with_commit boolean) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. steps LOOP
		PERFORM rebuild.append_at_random() FROM generate_series(0, (random() * 5)::int);
		IF with_commit AND random() < 0.7 THEN COMMIT; END IF;
		PERFORM rebuild.disturb_at_random();
		IF with_commit AND random() < 0.7 THEN
			COMMIT;
		ELSIF with_commit AND random() < 0.3 THEN
			ROLLBACK;
		END IF;
	END LOOP;
	PERFORM cqrs_es.resume_projection(name) FROM cqrs_es.projections WHERE paused;
END $$;
SELECT setseed(0.25) IS NULL AS x \gset
CALL rebuild.go(60, true);
SELECT is(format('has rows: %s, differences: %s', rows > 1, differences), 'has rows: t, differences: 0', projection || ', disturbed or not: with commits between') FROM rebuild.differences();
BEGIN;
CALL rebuild.go(60, false);
SELECT is(format('has rows: %s, differences: %s', rows > 1, differences), 'has rows: t, differences: 0', projection || ', disturbed or not: in one transaction') FROM rebuild.differences();
ROLLBACK;
SELECT is(format('has rows: %s, differences: %s', rows > 1, differences), 'has rows: t, differences: 0', projection || ', disturbed or not: which is rolled back') FROM rebuild.differences();
SELECT cmp_ok(cqrs_es.rebuild_projection(name), '>', 0::bigint, 'events are handled by a rebuild of ' || name) FROM cqrs_es.projections WHERE name LIKE '% b' ORDER BY name;
SELECT is(format('has rows: %s, differences: %s', rows > 1, differences), 'has rows: t, differences: 0', projection || ', disturbed or not: rebuilt once more') FROM rebuild.differences();
SELECT cqrs_es.drop_projection(name) IS NULL AS x FROM cqrs_es.projections WHERE name LIKE '% a' OR name LIKE '% b' OR name = 'a reactor'
\g /dev/null
SELECT cqrs_es.drop_upcaster('moved', '1') IS NULL AS x, cqrs_es.drop_aggregate('rebuild', force => true) IS NULL AS y \gset
RESET search_path;
SET client_min_messages = error;
DROP SCHEMA rebuild CASCADE;
RESET client_min_messages;
SET client_min_messages = warning;

-- One thing after the other, in one transaction.

BEGIN;
CREATE FUNCTION pg_temp.append(id text, event_type text, payload jsonb DEFAULT '{}', type text DEFAULT 'rb') RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.append_event(type, id, event_type, payload) $$;
CREATE TABLE rb_log (n serial, position bigint, event_type text);
SELECT cqrs_es.create_projection('rb', '{rb}', '{rb_log}') IS NULL AS x,
	cqrs_es.define_handler('rb', 'a', 'INSERT INTO rb_log (position, event_type) VALUES (event.global_position, event.event_type)') IS NULL AS y \gset
CREATE FUNCTION pg_temp.missed_or_doubled(VARIADIC types text[] DEFAULT '{a}') RETURNS SETOF bigint LANGUAGE sql AS $$
	SELECT coalesce(position, global_position)
	FROM (SELECT global_position FROM cqrs_es.events WHERE aggregate_type = 'rb' AND event_type = ANY (types)) AS e
	FULL JOIN (SELECT position, count(*) AS times, max(n) AS n FROM rb_log GROUP BY 1) AS l ON position = global_position WHERE times IS DISTINCT FROM 1 $$;
SELECT pg_temp.append('1', t) IS NULL AS x FROM unnest('{a,b,a,b,a}'::text[]) t
\g /dev/null

-- pause and resume

SELECT lives_ok($$SELECT cqrs_es.pause_projection('rb')$$, 'pause_projection');
SELECT results_eq($$SELECT state, paused, handled_position = (SELECT max(global_position) FROM cqrs_es.events), last_position = handled_position, handlers::text COLLATE "default"
	FROM cqrs_es.projection_status JOIN cqrs_es.projections USING (name) WHERE name = 'rb'$$, $$VALUES ('paused', true, true, true, '{a}')$$, 'is to be seen');
SELECT pg_temp.append('1', t) IS NULL AS x FROM unnest('{a,b,a}'::text[]) t
\g /dev/null
SELECT results_eq('SELECT count(*) FROM rb_log', 'VALUES (3::bigint)', 'a paused projection handles nothing');
SELECT lives_ok($$SELECT cqrs_es.pause_projection('rb')$$, 'to pause again is no error');
SELECT is(cqrs_es.resume_projection('rb'), 2::bigint, 'resume says how many events it has handled');
SELECT is_empty('SELECT pg_temp.missed_or_doubled()', 'none is missed, none handled twice');
SELECT is(cqrs_es.resume_projection('rb'), 0::bigint, 'to resume again is no error');
SELECT results_eq($$SELECT state, last_position = (SELECT max(global_position) FROM cqrs_es.events), handled_position FROM cqrs_es.projection_status JOIN cqrs_es.projections USING (name) WHERE name = 'rb'$$,
	$$VALUES ('live', true, NULL::bigint)$$, 'it is live');
SELECT pg_temp.append('1', 'a') IS NULL AS x \gset
SELECT is_empty('SELECT pg_temp.missed_or_doubled()', 'and follows');
SELECT cqrs_es.pause_projection('rb') IS NULL AS x \gset
SAVEPOINT s;
SELECT pg_temp.append('1', 'a') IS NULL AS x \gset
ROLLBACK TO s;
SELECT pg_temp.append('1', 'a') IS NULL AS x \gset
SAVEPOINT s;
SELECT cqrs_es.resume_projection('rb') IS NULL AS x \gset
ROLLBACK TO s;
SELECT pg_temp.append('1', 'a') IS NULL AS x \gset
SELECT is(cqrs_es.resume_projection('rb'), 2::bigint, 'gaps of what was rolled back, and a resume that was rolled back itself');
SELECT is_empty('SELECT pg_temp.missed_or_doubled()', 'harm nothing');

-- rebuild

DELETE FROM rb_log;
INSERT INTO rb_log (position) VALUES (-1);
SELECT is(cqrs_es.rebuild_projection('rb'), 8::bigint, 'rebuild says how many events it has handled');
SELECT is_empty('SELECT pg_temp.missed_or_doubled()', 'a read model that was spoilt is whole again');
SELECT results_eq('SELECT position FROM rb_log ORDER BY n', 'SELECT position FROM rb_log ORDER BY position', 'in the order of positions');
SELECT cqrs_es.define_handler('rb', 'b', 'INSERT INTO rb_log (position, event_type) VALUES (event.global_position, ''new'')') IS NULL AS x \gset
SELECT isnt_empty($$SELECT pg_temp.missed_or_doubled('a', 'b')$$, 'a handler that is defined late has missed events');
SELECT cqrs_es.rebuild_projection('rb') IS NULL AS x \gset
SELECT is_empty($$SELECT pg_temp.missed_or_doubled('a', 'b')$$, 'a rebuild brings them');
SELECT cqrs_es.define_handler('rb', 'b', 'INSERT INTO rb_log (position, event_type) VALUES (event.global_position, ''changed'')') IS NULL AS x \gset
SELECT cqrs_es.rebuild_projection('rb') IS NULL AS x \gset
SELECT results_eq($$SELECT DISTINCT event_type FROM rb_log ORDER BY 1$$, $$VALUES ('a'), ('changed')$$, 'a changed handler handles old events, too');
SELECT cqrs_es.drop_handler('rb', 'b') IS NULL AS x, cqrs_es.rebuild_projection('rb') IS NULL AS y \gset
SELECT is_empty('SELECT pg_temp.missed_or_doubled()', 'a dropped one does not');
SELECT cqrs_es.pause_projection('rb') IS NULL AS x, pg_temp.append('1', 'a') IS NULL AS y \gset
SELECT is(cqrs_es.rebuild_projection('rb'), 9::bigint, 'a paused projection is rebuilt up to now');
SELECT is_empty('SELECT pg_temp.missed_or_doubled()', 'whole');
SELECT is(paused, true, 'and stays paused') FROM cqrs_es.projections WHERE name = 'rb';
SELECT pg_temp.append('1', 'a') IS NULL AS x \gset
SELECT is(cqrs_es.resume_projection('rb'), 1::bigint, 'resume handles what came after');
SELECT is_empty('SELECT pg_temp.missed_or_doubled()', 'and no more');

-- filled from the log

CREATE TABLE rb_filled (position bigint PRIMARY KEY);
SELECT cqrs_es.create_projection('rb filled', '{rb}', '{rb_filled}', backfill => true) IS NULL AS x \gset
SELECT results_eq($$SELECT state, last_position FROM cqrs_es.projection_status WHERE name = 'rb filled'$$, $$VALUES ('paused', 0::bigint)$$, 'a projection that is to be filled has handled nothing');
SELECT cqrs_es.define_handler('rb filled', '*', 'INSERT INTO rb_filled VALUES (event.global_position)') IS NULL AS x, pg_temp.append('1', 'b') IS NULL AS y \gset
SELECT is_empty('SELECT * FROM rb_filled', 'until it is resumed');
SELECT cmp_ok(cqrs_es.resume_projection('rb filled'), '=', (SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'rb'), 'then all');
SELECT pg_temp.append('1', 'b') IS NULL AS x \gset
SELECT set_eq('SELECT * FROM rb_filled', $$SELECT global_position FROM cqrs_es.events WHERE aggregate_type = 'rb'$$, 'and goes on');
SELECT cqrs_es.drop_projection('rb filled') IS NULL AS x \gset

-- arguments, and who may

SELECT throws_ok(format('SELECT cqrs_es.%s(%s)', f, arg), state, NULL, format('%s(%s): %s', f, arg, state))
FROM (VALUES (1, 'NULL', '22004'), (2, $$''$$, '22023'), (3, $$'unknown'$$, '42704'), (4, $$repeat('x', 256)$$, '22001')) t (n, arg, state), unnest('{rebuild_projection,pause_projection,resume_projection}'::text[]) f ORDER BY f, n;
CREATE ROLE cqrs_es_rebuilder;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_rebuilder;
SET ROLE cqrs_es_rebuilder;
SELECT throws_ok(format('SELECT cqrs_es.%s(%L)', f, 'rb'), '42501', NULL, f || ' without EXECUTE') FROM unnest('{rebuild_projection,pause_projection,resume_projection,projection_errors}'::text[]) f;
RESET ROLE;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.rebuild_projection, cqrs_es.pause_projection, cqrs_es.resume_projection, cqrs_es.projection_errors TO cqrs_es_rebuilder;
SET ROLE cqrs_es_rebuilder;
SELECT throws_ok(format('SELECT cqrs_es.%s(%L)', f, 'rb'), '42501', 'must be owner of projection "rb"', f || ' of another''s projection') FROM unnest('{rebuild_projection,pause_projection,resume_projection}'::text[]) f;
RESET ROLE;
CREATE TABLE rb_theirs (position bigint, secret boolean DEFAULT false);
GRANT SELECT, INSERT, UPDATE, DELETE ON rb_theirs TO cqrs_es_rebuilder;
SET ROLE cqrs_es_rebuilder;
SELECT cqrs_es.create_projection('rb theirs', '{rb}', '{rb_theirs}') IS NULL AS x, cqrs_es.define_handler('rb theirs', 'a', 'INSERT INTO rb_theirs VALUES (event.global_position)') IS NULL AS y \gset
SELECT throws_ok(format('SELECT cqrs_es.%s(%L)', f, 'rb theirs'), '42501', NULL, f || ' without the right to read the log') FROM unnest('{rebuild_projection,pause_projection,resume_projection}'::text[]) f;
RESET ROLE;
GRANT SELECT ON cqrs_es.events TO cqrs_es_rebuilder;
SET ROLE cqrs_es_rebuilder;
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('rb theirs')$$, 'with it one may rebuild one''s own');
RESET ROLE;
SAVEPOINT s;
ALTER TABLE cqrs_es.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY part ON cqrs_es.events USING (event_type = 'b');
SET ROLE cqrs_es_rebuilder;
SELECT throws_ok(format('SELECT cqrs_es.%s(%L)', f, 'rb theirs'), '42501', f || '() needs to see all events', f || ' where row security hides events') FROM unnest('{rebuild_projection,pause_projection,resume_projection}'::text[]) f;
RESET ROLE;
ROLLBACK TO s;
SAVEPOINT s;
ALTER TABLE rb_theirs ENABLE ROW LEVEL SECURITY;
CREATE POLICY theirs ON rb_theirs USING (NOT secret);
INSERT INTO rb_theirs VALUES (0, true);
SET ROLE cqrs_es_rebuilder;
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('rb theirs')$$, '42501', NULL, 'rows of a read model that row security would leave behind');
RESET ROLE;
ROLLBACK TO s;
SELECT cqrs_es.drop_projection('rb theirs') IS NULL AS x \gset

-- read models: none, shared, gone, that refer to each other

SELECT cqrs_es.create_projection('rb none', '{rb}') IS NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('rb none')$$, '55000', NULL, 'without read models there is nothing to rebuild');
SELECT lives_ok($$SELECT cqrs_es.pause_projection('rb none'), cqrs_es.resume_projection('rb none')$$, 'though it can be paused');
SET client_min_messages = error; -- it warns
SELECT cqrs_es.drop_projection('rb none') IS NULL AS x, cqrs_es.create_projection('rb shared', '{rb}', '{rb_log}') IS NULL AS y \gset
SET client_min_messages = warning;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.rebuild_projection('rb')$$))[1:3], ARRAY['55000', 'projection "rb" cannot be rebuilt alone', 'Projection "rb shared" keeps table public.rb_log, too.'], 'a shared read model');
SELECT lives_ok($$SELECT cqrs_es.drop_projection('rb shared')$$, 'is no more');
CREATE TABLE rb_parent (id text PRIMARY KEY);
CREATE TABLE rb_child (n serial PRIMARY KEY, parent text REFERENCES rb_parent, twin integer REFERENCES rb_child);
CREATE FUNCTION rb_family(e cqrs_es.event) RETURNS void LANGUAGE sql AS $$
	INSERT INTO rb_parent VALUES (e.aggregate_id) ON CONFLICT DO NOTHING;
	INSERT INTO rb_child (parent, twin) VALUES (e.aggregate_id, (SELECT max(n) FROM rb_child)) $$;
SELECT cqrs_es.create_projection('rb family', '{rb}', '{rb_parent,rb_child}') IS NULL AS x, cqrs_es.define_handler('rb family', '*', 'rb_family(cqrs_es.event)') IS NULL AS y \gset
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('rb family')$$, 'read models with foreign keys are filled');
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('rb family')$$, 'and emptied');
CREATE TABLE rb_stranger (parent text REFERENCES rb_parent);
INSERT INTO rb_stranger SELECT id FROM rb_parent;
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('rb family')$$, '23503', NULL, 'not when others refer to them');
ALTER EVENT TRIGGER cqrs_es_protect_declared DISABLE;
DROP TABLE rb_stranger, rb_child;
ALTER EVENT TRIGGER cqrs_es_protect_declared ENABLE;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.rebuild_projection('rb family')$$))[1:2], ARRAY['42P01', 'read model public.rb_child of projection "rb family" does not exist'], 'nor when one is gone');
SELECT lives_ok($$SELECT cqrs_es.pause_projection('rb family')$$, 'pause it is still possible');
SELECT pg_temp.append('1', 'a') IS NULL AS x \gset
SELECT is((pg_temp.error_of($$SELECT cqrs_es.resume_projection('rb family')$$))[1], 'QE201', 'resume is not');
SELECT results_eq($$SELECT state, errors::text COLLATE "default" FROM cqrs_es.projection_status WHERE name = 'rb family'$$, $$VALUES ('paused', '{"read model public.rb_child does not exist (SQLSTATE 42P01)"}')$$, 'what is wrong inside of functions is not known before they run');
SELECT cqrs_es.define_handler('rb family', 'b', 'DELETE FROM rb_parent') IS NULL AS x \gset
ALTER EVENT TRIGGER cqrs_es_protect_declared DISABLE;
DROP TABLE rb_parent;
ALTER EVENT TRIGGER cqrs_es_protect_declared ENABLE;
SELECT results_eq($$SELECT errors COLLATE "default" FROM cqrs_es.projection_status WHERE name = 'rb family'$$, $$VALUES (ARRAY['read model public.rb_parent does not exist (SQLSTATE 42P01)', 'read model public.rb_child does not exist (SQLSTATE 42P01)', 'relation "rb_parent" does not exist (SQLSTATE 42P01)'])$$, 'of statements it is');
SELECT lives_ok($$SELECT cqrs_es.drop_projection('rb family')$$, 'a paused projection can be dropped');
SELECT is(cqrs_es.projection_errors('rb'), NULL, 'nothing is wrong with the other');
SELECT throws_ok($$SELECT cqrs_es.projection_errors(NULL)$$, '22004', NULL, 'projection_errors(NULL)');

CREATE TEMP TABLE rb_temporary (n integer);
SELECT throws_ok($$SELECT cqrs_es.create_projection('rb temporary', '{rb}', '{rb_temporary}')$$, '42809', NULL, 'a temporary table is no read model');
SELECT throws_ok(format($$SELECT cqrs_es.create_projection('rb server', '{rb}', '{%s}')$$, t), '42809', NULL, format('nor is %s', t)) FROM unnest('{pg_class,pg_depend,information_schema.sql_features}'::regclass[]) AS t;
SELECT throws_ok(format($$SELECT cqrs_es.create_projection('rb own', '{rb}', '{%s}')$$, own), '42809', NULL, format('nor is %s', own)) FROM unnest('{cqrs_es.events,cqrs_es.handlers}'::text[]) own;

-- handlers that must not

CREATE FUNCTION rb_call(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE e.payload->>'call';
END $$;
CREATE TABLE rb_called (n integer);
SELECT cqrs_es.create_projection('rb calls', '{rb}', '{rb_called}') IS NULL AS x, cqrs_es.define_handler('rb calls', 'call', 'rb_call(cqrs_es.event)') IS NULL AS y \gset
SELECT is((pg_temp.error_of(format($$SELECT pg_temp.append('2', 'call', '{"call": "SELECT cqrs_es.%s(''rb'')"}')$$, f)))[3], f || '() cannot be called by a handler (SQLSTATE 25001)', f || ' in a handler')
FROM unnest('{rebuild_projection,pause_projection,resume_projection}'::text[]) f;
SELECT cqrs_es.pause_projection('rb calls') IS NULL AS x,
	pg_temp.append('3', 'call', '{"call": "SELECT cqrs_es.rebuild_projection(''rb'')"}') IS NULL AS y \gset
SELECT is((pg_temp.error_of($$SELECT cqrs_es.resume_projection('rb calls')$$))[3], 'rebuild_projection() cannot be called by a handler (SQLSTATE 25001)', 'nor when old events are replayed');
SELECT cqrs_es.drop_projection('rb calls') IS NULL AS x, cqrs_es.create_projection('rb calls', '{rb}', '{rb_called}') IS NULL AS y,
	cqrs_es.define_handler('rb calls', 'append', 'rb_call(cqrs_es.event)') IS NULL AS z \gset
SELECT lives_ok($$SELECT pg_temp.append('4', 'append', '{"call": "SELECT cqrs_es.append_event(''rb'', ''4'', ''a'', ''{}'', event_id => ''00000000-0000-4000-8000-000000000004'')"}')$$, 'a handler may append');
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('rb calls')$$, 'in a rebuild it may repeat that, which does nothing');
SELECT is(cqrs_es.stream_version('rb', '4'), 2::bigint, 'nothing');
SELECT lives_ok($$SELECT pg_temp.append('5', 'append', '{"call": "SELECT cqrs_es.append_event(''rb'', ''5'', ''a'', ''{}'')"}')$$, 'one without an id of its own');
SELECT is((pg_temp.error_of($$SELECT cqrs_es.rebuild_projection('rb calls')$$))[2:3], ARRAY['projection "rb calls" failed on event 1 (append) of stream "rb/5"',
	E'events cannot be appended while old events are replayed (SQLSTATE 55000)\nWhat followed from them may be in the log already.'], 'cannot be repeated');
SELECT is(cqrs_es.stream_version('rb', '5'), 2::bigint, 'nothing happened');
SELECT lives_ok($$SELECT pg_temp.append('6', 'a')$$, 'after that one may append');
SELECT cqrs_es.pause_projection('rb calls') IS NULL AS x, pg_temp.append('6', 'append', '{"call": "SELECT cqrs_es.append_event(''rb'', ''6'', ''a'', ''{}'')"}') IS NULL AS y \gset
SELECT is(cqrs_es.resume_projection('rb calls'), 1::bigint, 'a resume handles it for the first time, so it may');
SELECT is(cqrs_es.stream_version('rb', '6'), 3::bigint, 'once');

-- what is appended by handlers that catch up
CREATE TABLE rb_steps (nr serial, position bigint, n integer);
CREATE TABLE rb_seen (nr serial, position bigint, n integer);
CREATE FUNCTION rb_step(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO rb_steps (position, n) VALUES (e.global_position, e.payload::integer);
	IF e.payload::integer > 0 THEN
		PERFORM cqrs_es.append_event('rb steps', 'next', 'step', to_jsonb(e.payload::integer - 1));
		BEGIN
			PERFORM cqrs_es.append_event('rb steps', 'never', 'step', '7');
			RAISE EXCEPTION 'no';
		EXCEPTION WHEN raise_exception THEN
		END;
	END IF;
END $$;
SELECT cqrs_es.create_projection('rb steps', '{rb steps}', '{rb_steps}') IS NULL AS x, cqrs_es.define_handler('rb steps', 'step', 'rb_step(cqrs_es.event)') IS NULL AS y,
	cqrs_es.create_projection('rb seen', '{rb steps}', '{rb_seen}') IS NULL AS z, cqrs_es.pause_projection('rb steps') IS NULL AS p \gset
SELECT cqrs_es.define_handler('rb seen', 'step', 'INSERT INTO rb_seen (position, n) VALUES (event.global_position, event.payload::integer)') IS NULL AS x \gset
SELECT pg_temp.append(id, 'step', n, 'rb steps') IS NULL AS x FROM (VALUES ('a', '2'::jsonb), ('b', '0'), ('c', '3')) t (id, n)
\g /dev/null
SELECT is(cqrs_es.resume_projection('rb steps'), 3::bigint, 'three events were missed');
SELECT is(string_agg(n::text, ' ' ORDER BY nr), '2 0 3 1 2 0 1 0', 'what follows from them is handled after them, to its end') FROM rb_steps;
SELECT results_eq('SELECT position FROM rb_steps ORDER BY nr', $$SELECT global_position FROM cqrs_es.read_stream('rb steps', 'a') UNION ALL SELECT global_position FROM cqrs_es.read_stream('rb steps', 'b')
	UNION ALL SELECT global_position FROM cqrs_es.read_stream('rb steps', 'c') UNION ALL SELECT global_position FROM cqrs_es.read_stream('rb steps', 'next')$$, 'in the order of positions');
SELECT results_eq('SELECT position, n FROM rb_seen ORDER BY nr', 'SELECT position, n FROM rb_steps ORDER BY nr', 'and so a live projection has seen it');
SELECT is(cqrs_es.stream_version('rb steps', 'never'), 0::bigint, 'what was rolled back never was');
SELECT cqrs_es.pause_projection('rb steps') IS NULL AS x, pg_temp.append('d', 'step', '40', 'rb steps') IS NULL AS y \gset
SELECT is((pg_temp.error_of($$SELECT cqrs_es.resume_projection('rb steps')$$))[1:3], ARRAY['QE202', 'handlers that append events go deeper than 16',
	'They feed each other: rb steps (step) -> rb steps (step).'], 'handlers that catch up do not go round for ever either');
SELECT results_eq($$SELECT state FROM cqrs_es.projection_status WHERE name = 'rb steps'$$, $$VALUES ('paused')$$, 'it is still paused');
SELECT cqrs_es.drop_projection('rb steps') IS NULL AS x, cqrs_es.drop_projection('rb seen') IS NULL AS y \gset
SELECT cqrs_es.drop_projection('rb calls') IS NULL AS x \gset

-- restored events, and those of another node

SELECT cqrs_es.pause_projection('rb') IS NULL AS x \gset
INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload)
SELECT max(global_position) + 5, 1, 'rb', 'restored', 'a', '{}' FROM cqrs_es.events;
INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload) VALUES ((1::bigint << 44) + 7, 1, 'rb', 'of another node', 'a', '{}');
SELECT pg_temp.append('7', 'a') IS NULL AS x \gset
SELECT is(cqrs_es.resume_projection('rb'), 3::bigint, 'resume handles events that were restored meanwhile, and those of another node');
SELECT is_empty('SELECT pg_temp.missed_or_doubled()', 'and ours');
SELECT pg_temp.append('7', 'a') IS NULL AS x, cqrs_es.pause_projection('rb') IS NULL AS y, pg_temp.append('7', 'a') IS NULL AS z \gset
SELECT cqrs_es.resume_projection('rb') IS NULL AS x \gset
SELECT is_empty('SELECT pg_temp.missed_or_doubled()', 'ours come below those of the other node, and are not taken for handled');
SELECT cqrs_es.rebuild_projection('rb') IS NULL AS x \gset
SELECT is_empty('SELECT pg_temp.missed_or_doubled()', 'rebuilt');
ROLLBACK;

-- Where it is refused.

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('x')$$, '25001', 'rebuild_projection() needs READ COMMITTED', 'a rebuild in REPEATABLE READ');
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT throws_ok($$SELECT cqrs_es.resume_projection('x')$$, '25001', 'resume_projection() needs READ COMMITTED', 'a resume in SERIALIZABLE');
ROLLBACK;
CREATE TABLE rb_ro (position bigint);
SELECT cqrs_es.create_projection('rb ro', '{rb}', '{rb_ro}') IS NULL AS x \gset
BEGIN READ ONLY;
SELECT throws_ok(format('SELECT cqrs_es.%s(''rb ro'')', function), '25006', format('cannot execute %s() in a read-only transaction', function), function || ' in a read-only transaction')
FROM unnest(ARRAY['rebuild_projection', 'pause_projection', 'resume_projection']) WITH ORDINALITY u (function, n) ORDER BY n;
SELECT results_eq($$SELECT state, errors FROM cqrs_es.projection_status WHERE name = 'rb ro'$$, $$VALUES ('live', NULL::text[])$$, 'its status may be read there');
ROLLBACK;
SELECT cqrs_es.drop_projection('rb ro') IS NULL AS x \gset
DROP TABLE rb_ro;
