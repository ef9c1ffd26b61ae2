\i test/include/setup.sql
-- Whatever a client sends to a public function: an error with a SQLSTATE that
-- says what is wrong, never a crash, never XX000.
BEGIN;
SELECT plan(227);
SELECT cqrs_es.create_aggregate('bad') IS NULL AS x \gset
SELECT cqrs_es.create_projection('bad') IS NULL AS x \gset
CREATE TABLE bad_read_model (id text);
CREATE FUNCTION bad_reducer(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
SELECT cqrs_es.append_event('bad', 'a', 'e', '{}') IS NULL AS x \gset

-- every function in turn; {long} is a text that is one byte longer than allowed

CREATE TEMP TABLE calls (n serial, state text, call text);
INSERT INTO calls (state, call) VALUES
	('22004', $$append_event(NULL, 'b', 'e', '{}')$$),
	('22004', $$append_event('bad', NULL, 'e', '{}')$$),
	('22004', $$append_event('bad', 'b', NULL, '{}')$$),
	('22004', $$append_event('bad', 'b', 'e', NULL)$$),
	('22023', $$append_event('', 'b', 'e', '{}')$$),
	('22023', $$append_event('bad', '', 'e', '{}')$$),
	('22023', $$append_event('bad', 'b', '', '{}')$$),
	('22023', $$append_event('bad', 'b', 'e', '{}', event_version => '')$$),
	('22001', $$append_event('{long 256}', 'b', 'e', '{}')$$),
	('22001', $$append_event('bad', '{long 1025}', 'e', '{}')$$),
	('22001', $$append_event('bad', '{long 100000}', 'e', '{}')$$),
	('22001', $$append_event('bad', 'b', '{long 256}', '{}')$$),
	('22001', $$append_event('bad', 'b', 'e', '{}', event_version => '{long 256}')$$),
	('22023', $$append_event('bad', 'b', 'e', '{}', -2)$$),
	('22023', $$append_event('bad', 'b', 'e', '{}', -9223372036854775808)$$),
	('QE001', $$append_event('bad', 'b', 'e', '{}', 9223372036854775807)$$),
	('22003', $$append_event('bad', 'b', 'e', '{}', 9223372036854775808::numeric::bigint)$$),
	('22023', $$append_event('bad', 'b', 'e', '{}', metadata => '[]')$$),
	('22023', $$append_event('bad', 'b', 'e', '{}', metadata => 'null')$$),
	('22023', $$append_event('bad', 'b', 'e', '{}', metadata => '"text"')$$),
	('22P02', $$append_event('bad', 'b', 'e', '{')$$),
	('22P05', $$append_event('bad', 'b', 'e', '"\u0000"')$$),
	('54001', $$append_event('bad', 'b', 'e', (repeat('[', 100000) || repeat(']', 100000))::jsonb)$$),
	('22P02', $$append_event('bad', 'b', 'e', '{}', event_id => 'no uuid')$$),
	('42883', $$append_event('bad', 'b')$$),
	('42883', $$append_event('bad', 'b', 'e', 1)$$),

	('22004', $$append_events(NULL, 'b', '[{"type": "e", "payload": 1}]')$$),
	('22004', $$append_events('bad', NULL, '[{"type": "e", "payload": 1}]')$$),
	('22004', $$append_events('bad', 'b', NULL)$$),
	('22023', $$append_events('', 'b', '[{"type": "e", "payload": 1}]')$$),
	('22023', $$append_events('bad', '', '[{"type": "e", "payload": 1}]')$$),
	('22001', $$append_events('{long 256}', 'b', '[{"type": "e", "payload": 1}]')$$),
	('22001', $$append_events('bad', '{long 1025}', '[{"type": "e", "payload": 1}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": "e", "payload": 1}]', -2)$$),
	('22023', $$append_events('bad', 'b', '[]')$$),
	('22023', $$append_events('bad', 'b', '{}')$$),
	('22023', $$append_events('bad', 'b', '{"type": "e", "payload": 1}')$$),
	('22023', $$append_events('bad', 'b', 'null')$$),
	('22023', $$append_events('bad', 'b', '1')$$),
	('22023', $$append_events('bad', 'b', '"text"')$$),
	('22023', $$append_events('bad', 'b', '[1]')$$),
	('22023', $$append_events('bad', 'b', '[null]')$$),
	('22023', $$append_events('bad', 'b', '["type"]')$$),
	('22023', $$append_events('bad', 'b', '[[]]')$$),
	('22023', $$append_events('bad', 'b', '[[{"type": "e", "payload": 1}]]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": "e", "payload": 1}, 2]')$$),
	('22023', $$append_events('bad', 'b', '[{}]')$$),
	('22023', $$append_events('bad', 'b', '[{"payload": 1}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": null, "payload": 1}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": "", "payload": 1}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": 1, "payload": 1}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": {}, "payload": 1}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": ["e"], "payload": 1}]')$$),
	('22001', $$append_events('bad', 'b', '[{"type": "{long 256}", "payload": 1}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": "e", "payload": 1, "unknown": 1}]')$$),
	-- unknown, though null
	('22023', $$append_events('bad', 'b', '[{"type": "e", "payload": 1, "unknown": null}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": "e", "payload": 1, "Type": "e"}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": "e", "payload": 1, "": "e"}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": "e", "payload": 1, "metadata": 1}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": "e", "payload": 1, "metadata": []}]')$$),
	('22P02', $$append_events('bad', 'b', '[{"type": "e", "payload": 1, "id": "no uuid"}]')$$),
	('22P02', $$append_events('bad', 'b', '[{"type": "e", "payload": 1, "id": ""}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": "e", "payload": 1, "id": 1}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": "e", "payload": 1, "version": 1}]')$$),
	('22023', $$append_events('bad', 'b', '[{"type": "e", "payload": 1, "version": ""}]')$$),
	('22001', $$append_events('bad', 'b', '[{"type": "e", "payload": 1, "version": "{long 256}"}]')$$),
	('22P02', $$append_events('bad', 'b', '[')$$),

	('22004', $$append_event_arrays(NULL, 'b', '{e}', '{1}')$$),
	('22004', $$append_event_arrays('bad', NULL, '{e}', '{1}')$$),
	('22004', $$append_event_arrays('bad', 'b', NULL, '{1}')$$),
	('22004', $$append_event_arrays('bad', 'b', '{e}', NULL)$$),
	('22023', $$append_event_arrays('', 'b', '{e}', '{1}')$$),
	('22001', $$append_event_arrays('bad', '{long 1025}', '{e}', '{1}')$$),
	('22023', $$append_event_arrays('bad', 'b', '{e}', '{1}', -2)$$),
	('22023', $$append_event_arrays('bad', 'b', '{}', '{}')$$),
	('2202E', $$append_event_arrays('bad', 'b', '{}', '{1}')$$),
	('2202E', $$append_event_arrays('bad', 'b', '{e,e}', '{1}')$$),
	('2202E', $$append_event_arrays('bad', 'b', '{e}', '{1,2}')$$),
	('2202E', $$append_event_arrays('bad', 'b', '{{e,e}}', '{1,2}')$$),
	('2202E', $$append_event_arrays('bad', 'b', '{e,e}', '{{1,2}}')$$),
	('2202E', $$append_event_arrays('bad', 'b', '{e,e}', '{1,2}', metadata => '{"{}"}')$$),
	('2202E', $$append_event_arrays('bad', 'b', '{e}', '{1}', metadata => '{}')$$),
	('2202E', $$append_event_arrays('bad', 'b', '{e}', '{1}', event_ids => '{}')$$),
	('2202E', $$append_event_arrays('bad', 'b', '{e}', '{1}', event_versions => '{1,1}')$$),
	('22004', $$append_event_arrays('bad', 'b', '{e,NULL}', '{1,2}')$$),
	('22004', $$append_event_arrays('bad', 'b', '{e,e}', '{1,NULL}')$$),
	('22023', $$append_event_arrays('bad', 'b', '{e,""}', '{1,2}')$$),
	('22023', $$append_event_arrays('bad', 'b', '{e}', '{1}', metadata => '{1}')$$),
	('22023', $$append_event_arrays('bad', 'b', '{e}', '{1}', event_versions => '{""}')$$),
	('22P02', $$append_event_arrays('bad', 'b', '{e}', '{1}', event_ids => '{x}')$$),

	('22004', $$read_stream(NULL, 'a')$$),
	('22004', $$read_stream('bad', NULL)$$),
	('22023', $$read_stream('', 'a')$$),
	('22023', $$read_stream('bad', '')$$),
	('22001', $$read_stream('{long 256}', 'a')$$),
	('22001', $$read_stream('bad', '{long 1025}')$$),
	('22023', $$read_stream('bad', 'a', -1)$$),
	('2201W', $$read_stream('bad', 'a', max_count => -1)$$),
	('2201W', $$read_stream('bad', 'a', max_count => -9223372036854775808)$$),
	('22023', $$read_all(-1)$$),
	('2201W', $$read_all(0, -1)$$),
	('22004', $$stream_version(NULL, 'a')$$),
	('22004', $$stream_version('bad', NULL)$$),
	('22023', $$stream_version('', 'a')$$),
	('22023', $$stream_version('bad', '')$$),
	('22001', $$stream_version('{long 256}', 'a')$$),
	('22001', $$stream_version('bad', '{long 1025}')$$);
INSERT INTO calls (state, call)
SELECT state, format('%s(%s)', function, args) FROM unnest(ARRAY['aggregate_state', 'load_aggregate', 'take_snapshot']) function,
	(VALUES (1, '22004', $$NULL, 'a'$$), (2, '22004', $$'bad', NULL$$), (3, '22023', $$'', 'a'$$), (4, '22023', $$'bad', ''$$),
	(5, '22001', $$'{long 256}', 'a'$$), (6, '22001', $$'bad', '{long 1025}'$$), (7, 'QE101', $$'undeclared', 'a'$$)) AS a (n, state, args)
ORDER BY function, n;
INSERT INTO calls (state, call) VALUES
	('22004', $$create_aggregate(NULL)$$),
	('22023', $$create_aggregate('')$$),
	('22001', $$create_aggregate('{long 256}')$$),
	('22004', $$create_aggregate('bad 2', NULL)$$),
	('22004', $$create_aggregate('bad 2', '{}', NULL)$$),
	('22023', $$create_aggregate('bad 2', '{}', -1)$$),
	('22003', $$create_aggregate('bad 2', '{}', 2147483648::bigint::integer)$$),
	('22004', $$define_reducer(NULL, 'e', 'bad_reducer(jsonb, cqrs_es.event)')$$),
	('22004', $$define_reducer('bad', NULL, 'bad_reducer(jsonb, cqrs_es.event)')$$),
	('22004', $$define_reducer('bad', 'e', NULL)$$),
	('22023', $$define_reducer('', 'e', 'bad_reducer(jsonb, cqrs_es.event)')$$),
	('22023', $$define_reducer('bad', '', 'bad_reducer(jsonb, cqrs_es.event)')$$),
	('22001', $$define_reducer('{long 256}', 'e', 'bad_reducer(jsonb, cqrs_es.event)')$$),
	('22001', $$define_reducer('bad', '{long 256}', 'bad_reducer(jsonb, cqrs_es.event)')$$),
	('QE101', $$define_reducer('undeclared', 'e', 'bad_reducer(jsonb, cqrs_es.event)')$$),
	('42883', $$define_reducer('bad', 'e', 4294967295::oid)$$),
	('42883', $$define_reducer('bad', 'e', 0::oid)$$),
	('42883', $$define_reducer('bad', 'e', 'nothing(jsonb)')$$),
	('22004', $$create_projection(NULL)$$),
	('22023', $$create_projection('')$$),
	('22001', $$create_projection('{long 256}')$$),
	('42710', $$create_projection('bad', '{another}')$$),
	('42P01', $$create_projection('bad 2', read_models => '{nothing}')$$),
	('22004', $$create_projection('bad 2', aggregate_types => '{a,NULL}')$$),
	('22023', $$create_projection('bad 2', aggregate_types => '{}')$$),
	('22004', $$define_handler(NULL, 'e', 'DELETE FROM bad_read_model')$$),
	('22004', $$define_handler('bad', NULL, 'DELETE FROM bad_read_model')$$),
	('22004', $$define_handler('bad', 'e', NULL)$$),
	('22023', $$define_handler('', 'e', 'DELETE FROM bad_read_model')$$),
	('22023', $$define_handler('bad', '', 'DELETE FROM bad_read_model')$$),
	('22001', $$define_handler('{long 256}', 'e', 'DELETE FROM bad_read_model')$$),
	('22001', $$define_handler('bad', '{long 256}', 'DELETE FROM bad_read_model')$$),
	('42704', $$define_handler('nothing', 'e', 'DELETE FROM bad_read_model')$$),
	('42601', $$define_handler('bad', 'e', '')$$),
	('42601', $$define_handler('bad', 'e', ';')$$),
	('42601', $$define_handler('bad', 'e', '-- nothing')$$),
	('42601', $$define_handler('bad', 'e', 'DELETE FRM bad_read_model')$$),
	('42601', $$define_handler('bad', 'e', 'DELETE FROM bad_read_model; DELETE FROM bad_read_model')$$),
	('0A000', $$define_handler('bad', 'e', 'SELECT 1')$$),
	('0A000', $$define_handler('bad', 'e', 'VALUES (1)')$$),
	('0A000', $$define_handler('bad', 'e', 'DELETE FROM bad_read_model RETURNING id')$$),
	('0A000', $$define_handler('bad', 'e', 'WITH d AS (DELETE FROM bad_read_model RETURNING id) SELECT * FROM d')$$),
	('0A000', $$define_handler('bad', 'e', 'TRUNCATE bad_read_model')$$),
	('0A000', $$define_handler('bad', 'e', 'DROP TABLE bad_read_model')$$),
	('0A000', $$define_handler('bad', 'e', 'CREATE TABLE x (id text)')$$),
	('0A000', $$define_handler('bad', 'e', 'DO ''BEGIN END''')$$),
	('0A000', $$define_handler('bad', 'e', 'COPY bad_read_model FROM stdin')$$),
	('0A000', $$define_handler('bad', 'e', 'NOTIFY x')$$),
	('0A000', $$define_handler('bad', 'e', 'COMMIT')$$),
	('0A000', $$define_handler('bad', 'e', 'SET search_path = x')$$),
	('0A000', $$define_handler('bad', 'e', 'EXPLAIN DELETE FROM bad_read_model')$$),
	('42P01', $$define_handler('bad', 'e', 'DELETE FROM nothing')$$),
	('42703', $$define_handler('bad', 'e', 'DELETE FROM bad_read_model WHERE nothing = 1')$$),
	('42703', $$define_handler('bad', 'e', 'DELETE FROM bad_read_model WHERE id = event.amount')$$),
	('42703', $$define_handler('bad', 'e', 'DELETE FROM bad_read_model WHERE id = (event).amount')$$),
	('42P01', $$define_handler('bad', 'e', 'DELETE FROM bad_read_model WHERE id = new.aggregate_id')$$),
	('42P02', $$define_handler('bad', 'e', 'DELETE FROM bad_read_model WHERE id = $1')$$),
	('42P02', $$define_handler('bad', 'e', 'DELETE FROM bad_read_model WHERE id = $6')$$),
	('42702', $$define_handler('bad', 'e', 'DELETE FROM bad_read_model AS event WHERE event.id = ''x''')$$),
	('42883', $$define_handler('bad', 'e', 'DELETE FROM bad_read_model WHERE id = event.payload')$$),
	('22004', $$drop_projection(NULL)$$),
	('22004', $$define_reducer('bad', 'e', NULL::regprocedure)$$),
	('22004', $$define_upcaster('bad', '1', '2', NULL::regprocedure)$$),
	('42601', $$define_handler('bad', 'e', '"unfinished')$$),
	('22004', $$execute_command('bad', 'a', 'C', NULL)$$),
	('42702', $$define_command('bad', 'C', '(SELECT state FROM (VALUES (''[]''::jsonb)) AS v (state))')$$),
	('22004', $$discard_dead_letter(NULL, 'reason')$$),
	('22023', $$drop_projection('')$$),
	('42704', $$drop_projection('nothing')$$),
	('22004', $$create_projection('bad too', '{bad,NULL}')$$),
	('2202E', $$create_projection('bad too', '{{bad}}')$$),
	('22004', $$create_projection('bad too', read_models => '{bad_read_model,NULL}')$$),
	('2202E', $$create_projection('bad too', read_models => '{{bad_read_model}}')$$),
	('22004', $$alter_projection('bad', read_models => '{NULL}')$$),
	('2202E', $$alter_projection('bad', read_models => '{{bad_read_model,bad_read_model}}')$$),
	('22004', $$read_all(event_types => '{NULL}')$$),
	('22004', $$read_all(aggregate_types => '{bad,NULL}')$$),
	('22004', $$read_all(max_count => 0, event_types => '{NULL,e}')$$),
	('2202E', $$read_all(event_types => '{{e}}')$$),
	('22004', $$read_page(event_types => '{NULL}')$$),
	('22004', $$read_page(aggregate_types => '{bad,NULL}')$$),
	('2202E', $$read_page(aggregate_types => '{{bad},{bad}}')$$);

SELECT throws_ok('SELECT cqrs_es.' || regexp_replace(call, '\{long \d+\}', repeat('x', substring(call from '\{long (\d+)\}')::int)), state, NULL,
	format('%s: %s', state, call))
FROM (SELECT * FROM calls WHERE call LIKE '%{long %') c ORDER BY n;
SELECT throws_ok('SELECT cqrs_es.' || call, state, NULL, format('%s: %s', state, call))
FROM calls WHERE call NOT LIKE '%{long %' ORDER BY n;
SELECT throws_ok('CALL cqrs_es.' || call, state, NULL, format('%s: %s', state, call)) FROM (VALUES
	(1, '2202E', $$run_projections('{{a},{b}}')$$),
	(2, '22004', $$run_projections('{a,NULL}')$$),
	(3, '22023', $$run_projections('{}')$$),
	(4, '22004', $$wait_for_projection('bad', NULL)$$)) c (n, state, call) ORDER BY n;

-- A multi-byte text is measured in bytes.
SELECT throws_ok(format($$SELECT cqrs_es.append_event('bad', %L, 'e', '{}')$$, repeat('ü', 513)), '22001', NULL, '513 characters of 2 bytes are too long');
SELECT is((cqrs_es.append_event('bad', repeat('ü', 512), 'e', '{}')).version, 1::bigint, '512 are not');

-- What was refused has left nothing.
SELECT is(cqrs_es.stream_version('bad', 'b'), 0::bigint, 'no event');
SELECT is_empty($$SELECT aggregate_type FROM cqrs_es.aggregates WHERE aggregate_type LIKE 'bad _'$$, 'no aggregate');
SELECT is_empty($$SELECT event_type FROM cqrs_es.reducers WHERE aggregate_type LIKE 'bad%'$$, 'no reducer');
SELECT is_empty($$SELECT name FROM cqrs_es.projections WHERE name LIKE 'bad _'$$, 'no projection');
SELECT is_empty($$SELECT event_type FROM cqrs_es.handlers WHERE projection LIKE 'bad%'$$, 'no handler');

-- What looks bad, and is not.
SELECT is((cqrs_es.append_event('bad', 'odd', 'e', '{}', metadata => NULL, event_id => NULL, event_version => NULL)).version, 1::bigint, 'NULL for what has a default');
SELECT is((cqrs_es.append_event('bad', 'odd', 'e', 'null')).version, 2::bigint, 'a payload of null');
SELECT is((cqrs_es.append_events('bad', 'odd', '[{"type": "e", "payload": null, "id": null, "metadata": null, "version": null}]')).version, 3::bigint, 'in a batch, too');
SELECT is((cqrs_es.append_event('bad', 'odd', 'e', '{"type": "e", "type": "f"}')).version, 4::bigint, 'a payload with a member twice');
SELECT is((cqrs_es.append_event(E'\t\n', ' ', $$'; DROP TABLE cqrs_es.events; --$$, '{}')).version, 1::bigint, 'names of blanks and SQL');
SELECT is((cqrs_es.append_event('bad', 'zero', 'e', '{}', event_id => '00000000-0000-0000-0000-000000000000')).version, 1::bigint, 'the nil UUID');
SELECT finish();
ROLLBACK;
