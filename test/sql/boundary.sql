\i test/include/setup.sql
-- Boundaries: declared, decided on, sent again, and who may do what.
BEGIN;
SELECT plan(121);

-- what other files have left is none of ours
SELECT coalesce(max(global_position), 0) AS start FROM cqrs_es.events \gset
CREATE TEMPORARY VIEW new_events AS SELECT * FROM cqrs_es.events WHERE global_position > :start;

CREATE FUNCTION pg_temp.execute(boundary text, command_type text, payload jsonb, command_id uuid DEFAULT NULL, metadata jsonb DEFAULT '{}')
RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', global_position IS NOT NULL, state)
	FROM cqrs_es.execute_boundary(boundary, command_type, payload, metadata, command_id => command_id)
$$;
-- What matches a query, in plain SQL: event types and payloads.
CREATE FUNCTION pg_temp.log() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(event_type || ' ' || payload, ', ' ORDER BY global_position) FROM pg_temp.new_events
$$;

-- declaring

SELECT cqrs_es.define_tags('Defined', 'course:{/course}') IS NULL AS x \gset
SELECT cqrs_es.define_tags('Enrolled', 'course:{/course}', 'student:{/student}') IS NULL AS x \gset
\set query '[{"types": ["Defined", "Enrolled"], "tags": ["course:{/course}"]}, {"types": ["Enrolled"], "tags": ["student:{/student}"]}]'
SELECT lives_ok(format('SELECT cqrs_es.create_boundary(%L, %L, %L)', 'enrol', :'query', '{"courses": {}}'), 'a boundary is declared');
SELECT results_eq('SELECT boundary, query, initial_state, snapshot_every FROM cqrs_es.boundaries',
	format('VALUES (%L COLLATE "C", %L::jsonb, %L::jsonb, 100)', 'enrol', :'query', '{"courses": {}}'), '... and stands in a table');
SELECT ctid AS before FROM cqrs_es.boundaries \gset
SELECT lives_ok(format('SELECT cqrs_es.create_boundary(%L, %L, %L)', 'enrol', :'query', '{"courses": {}}'), 'it may be declared again');
SELECT is((SELECT ctid FROM cqrs_es.boundaries), :'before'::tid, '... the same writes nothing');
SELECT lives_ok(format('SELECT cqrs_es.create_boundary(%L, %L, snapshot_every => 3)', 'enrol', :'query'), '... and another way changes it');
SELECT results_eq('SELECT initial_state, snapshot_every FROM cqrs_es.boundaries', $$VALUES ('{}'::jsonb, 3)$$, '... to what it says');
SELECT lives_ok($$SELECT cqrs_es.alter_boundary('enrol', initial_state => '{"full": false}')$$, 'it can be altered');
SELECT results_eq('SELECT query, initial_state, snapshot_every FROM cqrs_es.boundaries', format($$VALUES (%L::jsonb, '{"full": false}'::jsonb, 3)$$, :'query'),
	'... and what is not named stays');
SELECT throws_ok(format('SELECT cqrs_es.%s', call), state, NULL, format('%s: %s', state, call))
FROM (VALUES (1, '22004', $$create_boundary(NULL, '[{}]')$$),
	(2, '22023', $$create_boundary('', '[{}]')$$),
	(3, '22001', $$create_boundary(repeat('x', 256), '[{}]')$$),
	(4, '22004', $$create_boundary('x', NULL)$$),
	(5, '22004', $$create_boundary('x', '[{}]', NULL)$$),
	(6, '22004', $$create_boundary('x', '[{}]', '{}', NULL)$$),
	(7, '22023', $$create_boundary('x', '[{}]', '{}', -1)$$),
	(8, '22023', $$create_boundary('x', '[]')$$),
	(9, '22023', $$create_boundary('x', '{"types": ["a"]}')$$),
	(10, '22023', $$create_boundary('x', '[{"tag": ["a"]}]')$$),
	(11, '22023', $$create_boundary('x', '[{"tags": ["a:{/b"]}]')$$),
	(11, '22023', $$create_boundary('x', '[{"types": ["{/type}"]}]')$$),
	(12, 'QE501', $$alter_boundary('x', snapshot_every => 1)$$),
	(13, '22023', $$alter_boundary('enrol', '[null]')$$),
	(14, 'QE501', $$drop_boundary('x')$$),
	(15, 'QE501', $$boundary_query('x', '{}')$$),
	(16, 'QE501', $$boundary_state('x', '{}')$$),
	(17, 'QE501', $$execute_boundary('x', 'Enrol')$$),
	(18, '22004', $$boundary_query('enrol', NULL)$$),
	(19, '22004', $$boundary_state('enrol', NULL)$$),
	(20, '22004', $$execute_boundary('enrol', 'Enrol', NULL)$$),
	(21, '22004', $$execute_boundary('enrol', NULL)$$),
	(22, 'QE302', $$execute_boundary('enrol', 'Enrol', '{"course": "c", "student": "s"}')$$)) AS t (n, state, call)
ORDER BY n;
SELECT lives_ok($$SELECT cqrs_es.drop_boundary('x', if_exists => true)$$, 'what is not there can be dropped all the same');

SELECT is(pg_temp.error_of($$SELECT cqrs_es.create_boundary('x', '[{"types": ["Of{/type}"], "tags": ["a"]}]')$$), '{22023,"\"Of{/type}\" is no event type for a query","Only tags take values of the payload.","Write the types as they are, one for each that may come."}',
	'only tags have pointers');
SELECT is(pg_temp.error_of(format($$SELECT cqrs_es.define_%s('nosuch', 'x', %s)$$, kind, argument)), ARRAY['QE101', 'aggregate type "nosuch" is not declared', 'Nor is a boundary of that name.', 'Declare it with SELECT cqrs_es.create_aggregate(''nosuch''), or with create_boundary().'],
	'neither an aggregate type nor a boundary: define_' || kind)
FROM (VALUES (1, 'command', $$'''[]''::jsonb'$$), (2, 'reducer', $$'[]'::jsonb$$)) AS t (n, kind, argument) ORDER BY n;

-- one name

SELECT cqrs_es.create_aggregate('taken') IS NULL AS x \gset
SELECT is(pg_temp.error_of($$SELECT cqrs_es.create_boundary('taken', '[{}]')$$, '{state,message,detail}'), '{42710,"aggregate type \"taken\" exists already","Reducers and commands are defined for a name, so no other declaration can have it."}',
	'a boundary cannot be called as an aggregate type');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.create_aggregate('enrol')$$, '{state,message}'), '{42710,"boundary \"enrol\" exists already"}', '... nor an aggregate type as a boundary');
SELECT throws_ok(format('SELECT cqrs_es.%s', call), 'QE101', NULL, 'it has no streams: ' || call)
FROM (VALUES (1, $$aggregate_state('enrol', 'a')$$), (2, $$execute_command('enrol', 'a', 'Enrol')$$), (3, $$take_snapshot('enrol', 'a')$$),
	(4, $$drop_aggregate('enrol')$$), (5, $$alter_aggregate('enrol', strict => true)$$)) AS t (n, call)
ORDER BY n;

-- the query

SELECT is(cqrs_es.boundary_query('enrol', '{"course": "c1", "student": "s1", "more": 1}'),
	'[{"types": ["Defined", "Enrolled"], "tags": ["course:c1"]}, {"types": ["Enrolled"], "tags": ["student:s1"]}]', 'the query for some keys');
SELECT is(cqrs_es.boundary_query('enrol', '{"course": ["c1", "c2"], "student": 7}'),
	'[{"types": ["Defined", "Enrolled"], "tags": ["course:c1"]}, {"types": ["Defined", "Enrolled"], "tags": ["course:c2"]}, {"types": ["Enrolled"], "tags": ["student:7"]}]',
	'an array is an item for each element');
SELECT is(cqrs_es.boundary_query('enrol', '{"course": [], "student": "s"}'), '[{"types": ["Enrolled"], "tags": ["student:s"]}]', '... so an empty one is none');
SELECT throws_ok($$SELECT cqrs_es.boundary_query('enrol', '{"course": "c"}')$$, 'QE502', NULL, 'a key is missing');
SELECT throws_ok($$SELECT cqrs_es.boundary_query('enrol', '{"course": [], "student": []}')$$, '22023', 'boundary "enrol" asks for no events with these keys', 'nothing is asked for');
SELECT cqrs_es.create_boundary('optional', '{"items": [{"tags": ["a:{/a?}", "b:{/b?}"]}, {"types": ["Defined"], "tags": ["c"]}]}') IS NULL AS x \gset
SELECT is(cqrs_es.boundary_query('optional', '{"a": [1, 2], "b": ["x", "y"]}'),
	'[{"tags": ["a:1", "b:x"]}, {"tags": ["a:1", "b:y"]}, {"tags": ["a:2", "b:x"]}, {"tags": ["a:2", "b:y"]}, {"types": ["Defined"], "tags": ["c"]}]', 'two arrays are all pairs');
SELECT is(cqrs_es.boundary_query('optional', '{"a": 1}'), '[{"types": ["Defined"], "tags": ["c"]}]', 'without an optional key its item asks for nothing, and not for more');
SELECT is(pg_temp.error_of(format('SELECT cqrs_es.boundary_query(%L, %L)', 'optional', keys), '{state,message}'), '{QE502,"the payload for boundary \"optional\" has no value for tag \"a:{/a?}\""}',
	'an optional key that is there, and no value: ' || keys)
FROM (VALUES (1, '{"a": ["x", null], "b": 1}'), (2, '{"a": {"x": 1}, "b": 1}')) AS t (n, keys) ORDER BY n;
SELECT is(pg_temp.error_of(format('SELECT cqrs_es.boundary_query(%L, %L)', 'optional', jsonb_build_object('a', (SELECT jsonb_agg(i) FROM generate_series(1, 1001) AS i))), '{state,message}'),
	'{54000,"there cannot be more than 1000 tags"}', 'too many keys');

-- reducers and commands

SELECT cqrs_es.alter_boundary('enrol', initial_state => '{"courses": {}}') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.define_reducer('enrol', 'Defined', '[{"op": "set", "path": "/courses/{/course}/free", "from": "/places"}]')$$, 'a reducer, as for an aggregate type');
SELECT lives_ok($$SELECT cqrs_es.define_reducer('enrol', 'Enrolled', '[{"op": "decrement", "path": "/courses/{/course}/free"}, {"op": "increment", "path": "/students/{/student}"}]')$$, '... another');
SELECT lives_ok($$SELECT cqrs_es.define_command('enrol', 'Define', $d$
	jsonb_build_object('type', 'Defined', 'payload', command, 'aggregate_type', 'course', 'aggregate_id', command->>'course')$d$)$$, 'a command');
SELECT lives_ok($$SELECT cqrs_es.define_command('enrol', 'Enrol', $d$
	CASE WHEN (state #>> ARRAY['courses', command->>'course', 'free'])::int > 0 IS NOT TRUE THEN cqrs_es.reject('no place is free', 'FULL')
	WHEN (state #>> ARRAY['students', command->>'student'])::int >= 2 THEN cqrs_es.reject('two courses at most', 'LIMIT')
	ELSE jsonb_build_object('type', 'Enrolled', 'payload', command) END$d$)$$, 'one that may reject');
SELECT lives_ok($$SELECT cqrs_es.define_command('enrol', 'Nothing', $d$'[]'::jsonb$d$)$$, 'one from which nothing follows');
SELECT lives_ok($$SELECT cqrs_es.define_command('enrol', 'Two', $d$
	jsonb_build_array(jsonb_build_object('type', 'Enrolled', 'payload', command), jsonb_build_object('type', 'Noted', 'payload', '{}'::jsonb, 'tags', array['note'], 'metadata', metadata))$d$)$$, 'several events, and tags of their own');
CREATE FUNCTION decide_boundary(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb_build_object('type', 'Defined', 'payload', command)$$;
SELECT lives_ok($$SELECT cqrs_es.define_command('enrol', 'Function', 'decide_boundary')$$, 'a function');
SELECT is(pg_temp.error_of(format($$SELECT cqrs_es.define_command('enrol', 'x', 'to_jsonb(%s)')$$, name), '{state,message}'), ARRAY['42703', format('column "%s" does not exist', name)], 'there is no ' || name)
FROM unnest('{aggregate_id,version}'::text[]) AS name;
SELECT is(pg_temp.error_of($$SELECT cqrs_es.drop_command('enrol', 'x')$$, '{state,message}'), '{42704,"command \"x\" of boundary \"enrol\" does not exist"}', 'no such command');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.drop_reducer('enrol', 'x')$$, '{state,message}'), '{42704,"reducer of boundary \"enrol\" for event type \"x\" does not exist"}', 'no such reducer');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.execute_boundary('enrol', 'x', '{"course": 1, "student": 1}')$$, '{state,message}'),
	'{QE302,"command \"x\" of boundary \"enrol\" is not defined"}', 'an unknown command');

-- deciding

SELECT is(pg_temp.execute('enrol', 'Define', '{"course": "c1", "student": [], "places": 2}'), 't {"courses": {"c1": {"free": 2}}}', 'a command is decided, and gives the state after it');
SELECT is(pg_temp.execute('enrol', 'Define', '{"course": "c2", "student": [], "places": 5}'), 't {"courses": {"c2": {"free": 5}}}', '... of its keys alone');
SELECT is((SELECT concat_ws(' ', aggregate_type, aggregate_id, sequence) FROM new_events ORDER BY global_position LIMIT 1), 'course c1 1', 'an event may say its stream');
SELECT is(pg_temp.execute('enrol', 'Enrol', '{"course": "c1", "student": "s1"}'), 't {"courses": {"c1": {"free": 1}}, "students": {"s1": 1}}', 'decided on one stream and appended to another');
SELECT is((SELECT count(DISTINCT (aggregate_type, aggregate_id))::int FROM new_events), 3, '... which is the event''s own');
SELECT is(pg_temp.execute('enrol', 'Enrol', '{"course": "c2", "student": "s1"}'), 't {"courses": {"c1": {"free": -1}, "c2": {"free": 4}}, "students": {"s1": 2}}', 'what concerns the student is in the state, too');
SELECT throws_ok($$SELECT cqrs_es.execute_boundary('enrol', 'Enrol', '{"course": "c2", "student": "s1"}')$$, 'QE301', 'two courses at most', 'a rule over the courses of a student');
SELECT is(pg_temp.execute('enrol', 'Enrol', '{"course": "c1", "student": "s2"}'), 't {"courses": {"c1": {"free": 0}}, "students": {"s1": 1, "s2": 1}}', 'the last place');
SELECT throws_ok($$SELECT cqrs_es.execute_boundary('enrol', 'Enrol', '{"course": "c1", "student": "s3"}')$$, 'QE301', 'no place is free', 'a rule over the students of a course');
SELECT is(pg_temp.execute('enrol', 'Nothing', '{"course": "c1", "student": []}'), 'f {"courses": {"c1": {"free": 0}}, "students": {"s1": 1, "s2": 1}}', 'nothing happens: no position');
SELECT is(pg_temp.execute('enrol', 'Function', '{"course": "c3", "student": "s1", "places": 1}'), 't {"courses": {"c1": {"free": -1}, "c2": {"free": -1}, "c3": {"free": 1}}, "students": {"s1": 2}}', 'a function decides');
SELECT is((SELECT count(*)::int FROM new_events), 6, 'what is refused leaves no trace');
SELECT is(pg_temp.execute('enrol', 'Two', '{"course": "c2", "student": "s2"}', metadata => '{"who": "me"}'),
	't {"courses": {"c1": {"free": -1}, "c2": {"free": 3}}, "students": {"s1": 1, "s2": 2}}', 'an event that does not match is not in the state');
SELECT is((SELECT metadata->>'who' FROM cqrs_es.events WHERE event_type = 'Noted'), 'me', 'a decider sees the metadata');
SELECT cqrs_es.append_event('other', 'x', 'Enrolled', '{"course": "c2", "student": "s9"}') IS NULL AS x \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload) VALUES ('other', 'x', 2, 'Enrolled', '{"course": "c2", "student": "s8"}');
SELECT is(cqrs_es.boundary_state('enrol', '{"course": "c2", "student": []}'), '{"courses": {"c2": {"free": 1}}, "students": {"s1": 1, "s2": 1, "s8": 1, "s9": 1}}',
	'what others append takes part, on every path');

-- states

SELECT is(cqrs_es.boundary_state('enrol', '{"course": "none", "student": "none"}'), '{"courses": {}}', 'the initial state where nothing matches');
SELECT is((SELECT string_agg(coalesce(cqrs_es.boundary_state('enrol', '{"course": "c1", "student": []}', at_position => global_position) #>> '{courses,c1,free}', '-'), ' ' ORDER BY global_position)
	FROM new_events), '2 2 1 1 0 0 0 0 0 0', 'the state at each position');
SELECT is(cqrs_es.boundary_state('enrol', '{"course": "c1", "student": []}', 0), '{"courses": {}}', '... and before the first');
SELECT throws_ok($$SELECT cqrs_es.boundary_state('enrol', '{"course": "c1", "student": []}', -1)$$, '22023', NULL, '... but none before that');
SELECT throws_ok(format($$SELECT cqrs_es.boundary_state('enrol', '{"course": "c1", "student": []}', %s)$$, (SELECT max(global_position) + 100 FROM cqrs_es.events)), '22023', NULL, '... nor ahead of the log');

-- sent again

\set id '0192f0c1-2f7a-7cc0-8c3b-5d5f4e1a0001'
SELECT global_position AS first_position, state AS first_state FROM cqrs_es.execute_boundary('enrol', 'Two', '{"course": "c2", "student": "s5"}', command_id => :'id') \gset
SELECT cqrs_es.append_event('other', 'x', 'Enrolled', '{"course": "c2", "student": "s5"}') IS NULL AS x \gset
SELECT results_eq(format('SELECT * FROM cqrs_es.execute_boundary(%L, %L, %L, command_id => %L)', 'enrol', 'Two', '{"course": "c2", "student": "s5"}', :'id'),
	format('VALUES (%s::bigint, %L::jsonb)', :'first_position', :'first_state'), 'sent again, it gives the first result');
SELECT is((SELECT count(*)::int FROM new_events), 13, '... and does nothing');
SELECT is((SELECT string_agg(event_type, ' ' ORDER BY t.global_position) FROM cqrs_es.event_tags AS t WHERE tag = 'command:' || :'id'), 'Enrolled Noted', 'the first and the last event have its id as a tag');
SELECT throws_ok(format('SELECT cqrs_es.execute_boundary(%L, %L, %L, command_id => %L)', boundary, command, payload, :'id'), 'QE002', 'command id ' || :'id' || ' is already used', 'the id is that of another: ' || why)
FROM (VALUES (1, 'enrol', 'Two', '{"course": "c2", "student": "s6"}', 'payload'), (2, 'enrol', 'Enrol', '{"course": "c2", "student": "s5"}', 'command')) AS t (n, boundary, command, payload, why)
ORDER BY n;
SELECT cqrs_es.create_boundary('other', :'query') IS NULL AS x \gset
SELECT cqrs_es.define_command('other', 'Two', $$'{"type": "Never", "payload": {}}'::jsonb$$) IS NULL AS x \gset
SELECT throws_ok(format('SELECT cqrs_es.execute_boundary(%L, %L, %L, command_id => %L)', 'other', 'Two', '{"course": "c2", "student": "s5"}', :'id'), 'QE002', NULL, '... or boundary');
SELECT throws_ok(format('SELECT cqrs_es.execute_boundary(%L, %L, %L, command_id => %L)', 'enrol', 'Two', '{"course": "other", "student": "other"}', :'id'), 'QE002', NULL, 'it counts across all streams');

-- the tag alone is no trace of a command: events may have it by a template, or be given it

SELECT cqrs_es.define_tags('Caused', 'command:{/cause}') IS NULL AS x \gset
SELECT cqrs_es.append_event('other', 'y', 'Caused', format('{"cause": "%s"}', :'id')::jsonb) IS NULL AS x \gset
SELECT results_eq(format('SELECT * FROM cqrs_es.execute_boundary(%L, %L, %L, command_id => %L)', 'enrol', 'Two', '{"course": "c2", "student": "s5"}', :'id'),
	format('VALUES (%s::bigint, %L::jsonb)', :'first_position', :'first_state'), 'sent again when another event has its tag by now, it gives the first result');
SELECT throws_ok(format('SELECT cqrs_es.execute_boundary(%L, %L, %L, command_id => %L)', 'enrol', 'Two', '{"course": "c2", "student": "s6"}', :'id'), 'QE002', 'command id ' || :'id' || ' is already used', '... and another command with its id is refused');
\set strange '0192f0c1-2f7a-7cc0-8c3b-5d5f4e1a0002'
\set given '0192f0c1-2f7a-7cc0-8c3b-5d5f4e1a0003'
\set claimed '0192f0c1-2f7a-7cc0-8c3b-5d5f4e1a0004'
SELECT cqrs_es.append_event('other', 'y', 'Caused', format('{"cause": "%s"}', :'strange')::jsonb) AS strange_result,
	cqrs_es.append_event('other', 'y', 'Noted', '{}', tags => ARRAY['command:' || :'given']) AS given_result,
	cqrs_es.append_event('other', 'y', 'Noted', '{}', tags => ARRAY['command:' || :'claimed'], metadata => jsonb_build_object('command_id', :'claimed')) AS claimed_result \gset
CREATE TEMP TABLE before AS SELECT max(global_position) AS last FROM cqrs_es.events;
SELECT is(pg_temp.error_of(format('SELECT cqrs_es.execute_boundary(%L, %L, %L, command_id => %L)', 'enrol', 'Two', '{"course": "c2", "student": "s5"}', id), '{state,message,detail,hint}'),
	ARRAY['QE002', 'command id ' || id || ' is already used',
	(SELECT 'The event at position ' || global_position || ' has tag "' || tag || '", and did not follow from this command with the same boundary, type and payload.' FROM cqrs_es.event_tags WHERE tag = 'command:' || id),
	'A retry must repeat the same command; a new command needs a new id. Tags that begin with "command:" are for these ids.'], 'a command is not taken to be done because of an event with its tag: ' || why)
FROM (VALUES (1, :'strange', 'by a template'), (2, :'given', 'given'), (3, :'claimed', 'with the id of a command, too')) AS t (n, id, why) ORDER BY n;
SELECT is((SELECT max(global_position) FROM cqrs_es.events), last, '... nor done again') FROM before;
SELECT cqrs_es.drop_tags('Caused') IS NULL AS x \gset
SELECT is((SELECT count(*)::int FROM cqrs_es.event_tags WHERE tag = 'command:' || :'id'), 3, '... whatever has the tag');

-- rights

CREATE ROLE boundary_reader;
CREATE ROLE boundary_writer;
GRANT USAGE ON SCHEMA cqrs_es TO boundary_reader, boundary_writer;
GRANT SELECT ON cqrs_es.events TO boundary_reader, boundary_writer;
GRANT INSERT ON cqrs_es.events TO boundary_writer;
CREATE TABLE closed (course text);
CREATE FUNCTION closed_courses() RETURNS text[] LANGUAGE sql AS 'SELECT array_agg(course) FROM closed';
SELECT cqrs_es.define_command('enrol', 'Look', $$CASE WHEN command->>'course' = ANY (closed_courses()) THEN cqrs_es.reject('closed') ELSE '[]'::jsonb END$$) IS NULL AS x \gset
SELECT lives_ok($$SELECT pg_temp.as_role('boundary_writer', $c$SELECT cqrs_es.execute_boundary('enrol', 'Enrol', '{"course": "c3", "student": "s7"}')$c$)$$, 'who may append and read, may execute');
SELECT lives_ok($$SELECT pg_temp.as_role('boundary_writer', $c$SELECT cqrs_es.execute_boundary('enrol', 'Look', '{"course": "c2", "student": "s7"}')$c$)$$, 'a decider has the rights of who defined it');
SELECT lives_ok($$SELECT pg_temp.as_role('boundary_reader', $c$SELECT cqrs_es.boundary_state('enrol', '{"course": "c2", "student": "s7"}')$c$)$$, 'who may read, may see the state');
SELECT throws_ok(format('SELECT pg_temp.as_role(%L, %L)', role, 'SELECT cqrs_es.' || call), '42501', NULL, role || ' may not: ' || call)
FROM (VALUES (1, 'boundary_reader', $$execute_boundary('enrol', 'Nothing', '{"course": "c2", "student": "s7"}')$$),
	(2, 'boundary_writer', $$create_boundary('x', '[{}]')$$), (3, 'boundary_writer', $$drop_boundary('enrol')$$)) AS t (n, role, call)
ORDER BY n;

-- a decider that writes, a reducer that fails, older events, types alone, everything

CREATE TABLE looked (course text);
CREATE FUNCTION look(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO looked VALUES (command->>'course');
	IF command ? 'refuse' THEN
		PERFORM cqrs_es.reject('no');
	END IF;
	RETURN coalesce(command->'event', '[]');
END $$;
SELECT cqrs_es.define_command('enrol', 'Write', 'look') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.execute_boundary('enrol', 'Write', '{"course": "c2", "student": "s", "event": {"type": "Noted"}}')$$, 'a decider may write');
SELECT throws_ok($$SELECT cqrs_es.execute_boundary('enrol', 'Write', '{"course": "refused", "student": "s", "refuse": true}')$$, 'QE301', 'no', '... and refuse then');
SELECT is((SELECT string_agg(course, ' ') FROM looked), 'c2', '... which undoes what it wrote');
SELECT throws_ok($$SELECT cqrs_es.execute_boundary('enrol', 'Write', '{"course": "c2", "student": "s", "event": {"type": "Enrolled", "payload": {"course": "c2"}}}')$$, 'QE502', NULL, 'an event lacks what a tag of it needs');
SELECT throws_ok($$SELECT cqrs_es.execute_boundary('enrol', 'Write', '{"course": "c2", "student": "s", "event": {"payload": {}}}')$$, '22023', NULL, 'an event has no type');
SELECT throws_ok($$SELECT cqrs_es.execute_boundary('enrol', 'Write', '{"course": "c2", "student": "s", "event": 1}')$$, '22023', NULL, 'no event');
SELECT throws_ok($$SELECT cqrs_es.execute_boundary('enrol', 'Write', '{"course": "c2", "student": "s", "event": {"type": "Defined", "aggregate_type": "course", "aggregate_id": "c1", "expected_version": 0, "payload": {"course": "c1"}}}')$$,
	'QE001', NULL, 'a stream at another version');
SAVEPOINT failing;
SELECT cqrs_es.define_reducer('enrol', 'Enrolled', '[{"op": "replace", "path": "/none", "value": 1}]') IS NULL AS x \gset
SELECT matches((pg_temp.error_of($$SELECT cqrs_es.boundary_state('enrol', '{"course": "c1", "student": "s1"}')$$, '{state,where}'))[1], 'QE102', 'a reducer that fails');
ROLLBACK TO failing;
CREATE FUNCTION lift_enrolled(jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$SELECT $1 || '{"student": "lifted"}'$$;
SELECT cqrs_es.define_upcaster('Enrolled', '1', '2', 'lift_enrolled(jsonb)') IS NULL AS x \gset
SELECT is(cqrs_es.boundary_state('enrol', '{"course": "c1", "student": []}')->'students', '{"lifted": 2}', 'older events are lifted, but have the tags that they got');
ROLLBACK TO failing;
SELECT cqrs_es.create_boundary('typed', '[{"types": ["Enrolled"]}]', '{"n": 0}') IS NULL AS x \gset
SELECT cqrs_es.define_reducer('typed', 'Enrolled', '[{"op": "increment", "path": "/n"}]') IS NULL AS x \gset
SELECT is(cqrs_es.boundary_state('typed', '{}'), format('{"n": %s}', (SELECT count(*) FROM cqrs_es.events WHERE event_type = 'Enrolled'))::jsonb, 'a boundary by type alone');
SELECT cqrs_es.create_boundary('everything', '[{}]') IS NULL AS x \gset
SELECT cqrs_es.define_command('everything', 'Nothing', $$'[]'::jsonb$$) IS NULL AS x \gset
SELECT throws_ok($$SELECT cqrs_es.execute_boundary('everything', 'Nothing')$$, '55000', NULL, 'one of everything comes before what the transaction appends');
-- what is merged, since there are no reducers, is of all events
SELECT ok(cqrs_es.boundary_state('everything', '{}') ?& '{course,places,student}', '... its state can be seen');
CREATE POLICY others ON cqrs_es.events AS RESTRICTIVE USING (event_type <> 'Enrolled');
SELECT throws_ok($$SELECT pg_temp.as_role('boundary_reader', $c$SELECT cqrs_es.boundary_state('enrol', '{"course": "c2", "student": "s7"}')$c$)$$, '42501',
	'row security of table "events" may hide events of boundary "enrol"', 'policies of users may hide events');
DROP POLICY others ON cqrs_es.events;

-- dropping

SELECT lives_ok($$SELECT cqrs_es.drop_boundary('enrol')$$, 'it can be dropped, though its events are there');
SELECT is((SELECT count(*)::int FROM cqrs_es.reducers WHERE aggregate_type = 'enrol'), 0, 'its reducers go with it');
SELECT is((SELECT count(*)::int FROM cqrs_es.commands WHERE aggregate_type = 'enrol'), 0, '... its commands, too');
SELECT lives_ok($$SELECT cqrs_es.create_aggregate('enrol')$$, 'its name is free');
SELECT * FROM finish();
ROLLBACK;
