\i test/include/setup.sql
-- Personal data: what is defined, stored, opened, hidden and refused; other master keys.
BEGIN;
SELECT plan(92);
-- what other files have left is not this one's
SET LOCAL session_replication_role = replica;
DELETE FROM cqrs_es.events;
DELETE FROM cqrs_es.event_tags;
SET LOCAL session_replication_role = origin;
\i test/include/master_key.sql
CREATE FUNCTION pg_temp.stored(id text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(regexp_replace(payload::text, '"\$personal:1:[A-Za-z0-9+/]+=*"', '*', 'g'), ' ' ORDER BY sequence) FROM cqrs_es.events WHERE aggregate_type = 'person' AND aggregate_id = id $$;
CREATE FUNCTION pg_temp.payloads(id text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(payload::text, ' ' ORDER BY sequence) FROM cqrs_es.read_stream('person', id) $$;
CREATE FUNCTION pg_temp.appended(id text, VARIADIC payloads jsonb[]) RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.append_event('person', id, 'named', p) FROM unnest(payloads) AS p $$;
CREATE ROLE personal_sees;
CREATE ROLE personal_does_not;
GRANT USAGE ON SCHEMA cqrs_es TO personal_sees, personal_does_not;
GRANT SELECT, INSERT ON cqrs_es.events TO personal_sees, personal_does_not;
GRANT EXECUTE ON FUNCTION cqrs_es.reveal_personal_data TO personal_sees;
SELECT FROM cqrs_es.create_aggregate('person', snapshot_every => 2);

-- definitions

SELECT is(pg_temp.state_of('SELECT cqrs_es.' || call), state, call) FROM (VALUES
	($$define_personal_data(NULL, '/id', '{/name}')$$, '22004'),
	($$define_personal_data('', '/id', '{/name}')$$, '22023'),
	($$define_personal_data(repeat('x', 256), '/id', '{/name}')$$, '22001'),
	($$define_personal_data('$redacted', '/id', '{/name}')$$, '42939'),
	($$define_personal_data('named', NULL, '{/name}')$$, '22004'),
	($$define_personal_data('named', '', '{/name}')$$, '22023'),
	($$define_personal_data('named', 'id', '{/name}')$$, '22023'),
	($$define_personal_data('named', '/id~2', '{/name}')$$, '22023'),
	($$define_personal_data('named', '/id', NULL)$$, '22004'),
	($$define_personal_data('named', '/id', '{}')$$, '22023'),
	($$define_personal_data('named', '/id', '{NULL}')$$, '22004'),
	($$define_personal_data('named', '/id', '{{/a,/b}}')$$, '2202E'),
	($$define_personal_data('named', '/id', '{name}')$$, '22023'),
	($$define_personal_data('named', '/id', ARRAY[''])$$, '22023'),
	($$define_personal_data('named', '/id', '{/name,/name}')$$, '22023'),
	($$define_personal_data('named', '/id', '{/name,/name/first}')$$, '22023'),
	($$define_personal_data('named', '/id', '{/id}')$$, '22023'),
	($$define_personal_data('named', '/of/id', '{/of}')$$, '22023'),
	($$define_personal_data('named', '/of', '{/of/id}')$$, '22023'),
	($$drop_personal_data('named')$$, '42704'),
	($$drop_personal_data(NULL)$$, '22004'),
	($$forget_subject(NULL, 'r')$$, '22004'),
	($$forget_subject('', 'r')$$, '22023'),
	($$forget_subject(repeat('x', 256), 'r')$$, '22001'),
	($$forget_subject('1', NULL)$$, '22004'),
	($$forget_subject('1', repeat('x', 1025))$$, '22001')) AS c (call, state);
SELECT is(pg_temp.state_of(format('SELECT pg_temp.as_role(''personal_sees'', %L)', 'SELECT cqrs_es.' || call)), '42501', 'not everybody: ' || call)
FROM (VALUES ($$define_personal_data('named', '/id', '{/name}')$$), ($$drop_personal_data('named', true)$$), ($$forget_subject('1', 'r')$$), ($$rotate_master_key()$$)) AS c (call);
SELECT cqrs_es.append_event('person', 'old', 'named', '{"id": 1, "name": "Bob"}') IS NULL AS old \gset
SELECT lives_ok($$SELECT cqrs_es.define_personal_data('named', '/id', '{/name,/of/a~1b/1}')$$, 'a definition');
SELECT lives_ok($$SELECT cqrs_es.define_personal_data('named', '/id', '{/name,/of/a~1b/1}')$$, 'the same again');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.define_tags('named', 'n:{/name}')$$, '{state,message}'),
	'{22023,"tags like \"n:{/name}\" would show personal data of events of type \"named\""}', 'no tag shows it');
SELECT cqrs_es.define_tags('tagged', 'n:{/name/first}') IS NULL AS tags \gset
SELECT is(pg_temp.state_of($$SELECT cqrs_es.define_personal_data('tagged', '/id', '{/name}')$$), '22023', 'nor becomes what a tag shows personal');

-- what is stored, and what is read

SELECT FROM pg_temp.appended('a', '{"id": 1, "name": "Bob", "age": 7}', '{"id": 1, "other": "Bob"}', '{"id": "1", "name": {"first": "Bob"}, "of": {"a/b": ["x", "Bob"]}}', '{"id": 1, "name": null}');
SELECT is(pg_temp.stored('a'), '{"id": 1, "age": 7, "name": *} {"id": 1, "other": "Bob"} {"id": "1", "of": {"a/b": ["x", *]}, "name": *} {"id": 1, "name": null}', 'stored is what nobody can read');
SELECT is(pg_temp.payloads('a'), '{"id": 1, "age": 7, "name": "Bob"} {"id": 1, "other": "Bob"} {"id": "1", "of": {"a/b": ["x", "Bob"]}, "name": {"first": "Bob"}} {"id": 1, "name": null}', 'read is what was appended');
SELECT is(pg_temp.payloads('old'), '{"id": 1, "name": "Bob"}', 'what was there before stays');
SELECT is((SELECT array_agg(subject || ' ' || aggregate_id) FROM cqrs_es.personal_data_keys WHERE aggregate_type = 'person'), '{"1 a"}', 'one key of a subject in a stream');
SELECT FROM pg_temp.appended('numbers', '{"id": 1, "name": "Bob"}', '{"id": 1.0, "name": "Bob"}', '{"id": 100e-2, "name": "Bob"}');
SELECT is((SELECT array_agg(subject) FROM cqrs_es.personal_data_keys WHERE aggregate_id = 'numbers'), '{1}', 'who is a number is the same in each spelling');
SELECT is((SELECT count(DISTINCT length(payload->>'name')) FROM cqrs_es.events WHERE aggregate_id = 'a' AND sequence IN (1, 3)), 1::bigint, 'lengths tell little');
SELECT is(cqrs_es.aggregate_state('person', 'a', 3)->'name', '{"first": "Bob"}', 'states are of what is in clear');
SELECT is((SELECT payload->'of' FROM cqrs_es.snapshots WHERE aggregate_id = 'a' AND last_sequence = 4), '{"a/b": ["x", "Bob"]}', 'so are snapshots');
SELECT is(ARRAY(SELECT (cqrs_es.reveal_personal_data(e)).payload FROM cqrs_es.read_stream('person', 'a', raw => true) AS e), ARRAY(SELECT payload FROM cqrs_es.read_stream('person', 'a')), 'a stored event is revealed');
SELECT is(cqrs_es.reveal_personal_data(NULL), NULL, 'none is none');
SELECT is(pg_temp.state_of('SELECT cqrs_es.reveal_personal_data(ROW(1, 1, now(), gen_random_uuid(), '''', ''a'', ''b'', ''named'', NULL, ''{}'', ''{}'')::cqrs_es.event)'), '22004', 'half of one is none');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('person', 'row', 'named', '{"id": 1, "name": "Bob"}');
SELECT is(pg_temp.stored('row') || pg_temp.payloads('row'), '{"id": 1, "name": *}{"id": 1, "name": "Bob"}', 'a row is no other way');
CREATE TEMP TABLE history AS SELECT 'person' AS aggregate_type, 'imported' AS aggregate_id, 1 AS sequence, 'named' AS event_type, '{"id": 1, "name": "Bob"}'::jsonb AS payload;
SELECT is((SELECT imported FROM cqrs_es.import_events('history')), 1::bigint, 'an import');
SELECT is((SELECT already_there FROM cqrs_es.import_events('history')), 1::bigint, 'and again');
SELECT is(pg_temp.stored('imported'), '{"id": 1, "name": *}', 'is none either');

-- the same append again

CREATE FUNCTION pg_temp.again(name text) RETURNS text LANGUAGE sql AS $$
	SELECT version::text FROM cqrs_es.append_event('person', 'again', 'named', jsonb_build_object('id', 1, 'name', name), event_id => 'b0b00000-0000-4000-8000-000000000000') $$;
SELECT is(pg_temp.again('Bob'), '1', 'an append with an id');
SELECT is(pg_temp.again('Bob'), '1', 'is known again');
SELECT is(pg_temp.state_of($$SELECT pg_temp.again('Eve')$$), 'QE002', 'and nothing else is');

-- what cannot be encrypted, or opened

SELECT is(pg_temp.state_of(format($$SELECT pg_temp.appended('bad', %L)$$, payload)), 'QE703', 'refused: ' || left(payload, 60)) FROM (VALUES
	('{"name": "Bob"}'), ('{"id": null, "name": "Bob"}'), ('{"id": {}, "name": "Bob"}'), ('{"id": "", "name": "Bob"}'), ('{"id": "' || repeat('x', 256) || '", "name": "Bob"}'),
	((SELECT payload::text FROM cqrs_es.events WHERE aggregate_id = 'a' AND sequence = 1))) AS p (payload);
SAVEPOINT moved;
SET LOCAL session_replication_role = replica;
UPDATE cqrs_es.events SET payload = (SELECT payload FROM cqrs_es.events WHERE aggregate_id = 'a' AND sequence = 1) WHERE aggregate_id = 'row';
SELECT is(pg_temp.state_of($$SELECT pg_temp.payloads('row')$$), 'QE703', 'what was moved to another event is not opened');
SELECT is(pg_temp.error_of($$SELECT pg_temp.payloads('row')$$, '{hint}'), ARRAY[format('redact_event(%s, ...) removes it.', (SELECT global_position FROM cqrs_es.events WHERE aggregate_id = 'row'))],
	'and how to get rid of it is said');
ROLLBACK TO moved;
INSERT INTO cqrs_es.events SELECT (e).* FROM (SELECT (jsonb_populate_record(e, jsonb_build_object('global_position', global_position + 1000000, 'aggregate_id', 'copied'))) AS e
	FROM cqrs_es.events AS e WHERE aggregate_id = 'row') AS c;
SELECT is(pg_temp.state_of($$SELECT pg_temp.payloads('copied')$$), 'QE703', 'nor what is in another stream, whose readers nobody would tell that it is gone');
ROLLBACK TO moved;
SET LOCAL session_replication_role = replica;
UPDATE cqrs_es.personal_data_keys SET subject = '2' WHERE aggregate_id = 'row';
SELECT is(pg_temp.state_of($$SELECT pg_temp.payloads('row')$$), 'QE703', 'nor is a key good for another subject');
ROLLBACK TO moved;
DELETE FROM cqrs_es.personal_data_keys WHERE aggregate_id = 'row';
SELECT is(pg_temp.state_of($$SELECT pg_temp.payloads('row')$$), 'QE701', 'and one that is lost is not taken for gone');
ROLLBACK TO moved;

-- who may see

CREATE TEMP TABLE seen (who text, what text);
GRANT INSERT ON seen TO personal_sees, personal_does_not;
SELECT FROM unnest('{personal_sees,personal_does_not}'::text[]) AS role, pg_temp.as_role(role, $$INSERT INTO seen SELECT current_user, concat_ws(' ',
	(SELECT payload->'name' FROM cqrs_es.read_stream('person', 'a', max_count => 1)), cqrs_es.aggregate_state('person', 'a', 1)->'name',
	(SELECT state->'name' FROM cqrs_es.load_aggregate('person', 'a', 1)), (SELECT state->'name' FROM cqrs_es.replay('person', 'a', 2, 1)),
	(SELECT payload->'name' FROM cqrs_es.replay('person', 'a', 1, 1)))$$);
SELECT is((SELECT what FROM seen WHERE who = 'personal_sees'), '"Bob" "Bob" "Bob" "Bob" "Bob"', 'who may execute reveal_personal_data sees');
SELECT is((SELECT what FROM seen WHERE who = 'personal_does_not'), 'null null', 'for others it is null, in states not even there');
SELECT lives_ok($$SELECT pg_temp.as_role('personal_does_not', 'SELECT cqrs_es.append_event(''person'', ''his'', ''named'', ''{"id": 9, "name": "Eve"}''), cqrs_es.append_event(''person'', ''his'', ''named'', ''{"id": 9, "age": 1}'')')$$, 'who may not see appends');
SELECT is((SELECT payload FROM cqrs_es.snapshots WHERE aggregate_id = 'his'), '{"id": 9, "age": 1, "name": "Eve"}', 'and what is kept for others is whole');
SELECT is(pg_temp.state_of(format('SELECT pg_temp.as_role(''personal_does_not'', %L)', 'SELECT wrapped_key FROM cqrs_es.personal_data_keys')), '42501', 'keys are for nobody');
SELECT is(pg_temp.state_of(format('SELECT pg_temp.as_role(''personal_sees'', %L)', 'SHOW cqrs_es.master_key_file')), '42501', 'nor is where the master key is');

SELECT FROM cqrs_es.define_command('person', 'Look', $$jsonb_build_array(jsonb_build_object('type', 'seen', 'payload', jsonb_build_object('was', state->'name'->>'first')))$$);
SELECT FROM cqrs_es.define_tags('titled', 'id:{/id}');
SELECT FROM cqrs_es.define_personal_data('titled', '/id', '{/name}');
SELECT FROM cqrs_es.create_boundary('last', '[{"types": ["titled"], "tags": ["id:{/id}"]}]', snapshot_every => 1);
SELECT FROM cqrs_es.define_reducer('last', 'titled', '[{"op": "set", "path": "/name", "from": "/name"}]'::jsonb);
SELECT FROM cqrs_es.define_command('last', 'Look', $$'[]'::jsonb$$);
SELECT FROM pg_temp.appended('c', '{"id": 5, "name": {"first": "Bob"}}'), cqrs_es.append_event('book', 'c', 'titled', '{"id": 5, "name": {"first": "Bob"}}');
SELECT FROM unnest('{personal_sees,personal_does_not}'::text[]) AS role, pg_temp.as_role(role, $$INSERT INTO seen SELECT current_user || ' commands', concat_ws(' ',
	(SELECT coalesce(state->'name', '0') FROM cqrs_es.execute_command('person', 'c', 'Look')), (SELECT coalesce(state->'name', '0') FROM cqrs_es.try_execute_command('person', 'c', 'Look')),
	(SELECT coalesce(state->'name', '0') FROM cqrs_es.execute_boundary('last', 'Look', '{"id": 5}')), coalesce(cqrs_es.boundary_state('last', '{"id": 5}')->'name', '0'))$$);
SELECT is((SELECT what FROM seen WHERE who = 'personal_sees commands'), '{"first": "Bob"} {"first": "Bob"} {"first": "Bob"} {"first": "Bob"}', 'states that commands return');
SELECT is((SELECT what FROM seen WHERE who = 'personal_does_not commands'), '0 0 null null', 'for others');
SELECT is((SELECT string_agg(payload->>'was', ' ') FROM cqrs_es.read_stream('person', 'c') WHERE event_type = 'seen'), 'Bob Bob Bob Bob', 'but deciders see them, whoever calls');

-- a copy of another tenant's event

SET LOCAL cqrs_es.tenant_id = 'other';
SELECT FROM cqrs_es.append_event('person', 'o', 'titled', '{"id": 6, "name": "Eve"}');
SELECT e::text AS row FROM cqrs_es.events AS e WHERE aggregate_id = 'o' \gset
CREATE FUNCTION pg_temp.revealed(role text, tenant text) RETURNS text LANGUAGE sql AS $$
	SELECT set_config('cqrs_es.tenant_id', tenant, true);
	SELECT pg_temp.state_of(format('SELECT pg_temp.as_role(%L, %L)', role, format('SELECT cqrs_es.reveal_personal_data(%L)', current_setting('test.row')))) $$;
SELECT set_config('test.row', :'row', true) IS NULL AS set \gset
SELECT is(pg_temp.revealed('personal_sees', ''), '42501', 'is not revealed');
SELECT is(pg_temp.revealed('personal_sees', 'other'), 'none', 'but by who acts for that');
SELECT is(pg_temp.revealed('none', ''), 'none', 'or sees all');
SET LOCAL cqrs_es.tenant_id = '';

-- changes of a definition

SELECT cqrs_es.define_personal_data('named', '/id', '{/age}') IS NULL AS other \gset
SELECT FROM pg_temp.appended('b', '{"id": 1, "name": "Bob", "age": 7}');
SELECT is(pg_temp.stored('b') || pg_temp.payloads('a'), '{"id": 1, "age": *, "name": "Bob"}{"id": 1, "age": 7, "name": "Bob"} {"id": 1, "other": "Bob"} {"id": "1", "of": {"a/b": ["x", "Bob"]}, "name": {"first": "Bob"}} {"id": 1, "name": null}', 'what once was personal is still opened');
SELECT cqrs_es.drop_personal_data('named') IS NULL AS dropped \gset
SELECT FROM pg_temp.appended('d', '{"id": 1, "name": "Bob", "age": 7}');
SELECT is(pg_temp.stored('d') || pg_temp.payloads('b'), '{"id": 1, "age": 7, "name": "Bob"}{"id": 1, "age": 7, "name": "Bob"}', 'also when nothing is any more');
SELECT is((SELECT row_to_json(p)::text FROM cqrs_es.personal_data AS p WHERE event_type = 'named'), '{"event_type":"named","subject":"/id","members":[],"past_members":["/age","/name","/of/a~1b/1"]}', 'which is remembered');

-- master keys

SELECT cqrs_es.define_personal_data('named', '/id', '{/name}') IS NULL AS again \gset
CREATE FUNCTION pg_temp.read_now() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT payload->>'name' FROM cqrs_es.read_stream('person', 'row'));
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
-- a statement reads the file once; a change of a role has every session look for keys anew
CREATE FUNCTION pg_temp.changed(file text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('COPY (SELECT %L) TO PROGRAM %L', file, 'umask 077; printf "%b" "$(cat)" > cqrs_es_master_key');
	ALTER ROLE personal_sees CONNECTION LIMIT 7;
END $$;
SELECT md5('master') || md5('key') AS old, upper(md5('another')) || md5('key') AS new \gset
SELECT FROM pg_temp.changed('');
SELECT is(pg_temp.read_now(), 'QE701', 'an empty file');
SELECT FROM pg_temp.changed('secret');
SELECT is(pg_temp.error_of($$SELECT pg_temp.payloads('row')$$)::text LIKE '%secret%', false, 'of what is in the file nothing is said');
SELECT FROM pg_temp.changed(:'old' || '0');
SELECT is(pg_temp.read_now(), 'QE701', 'a key that is too long');
SELECT FROM pg_temp.changed(repeat('g', 64));
SELECT is(pg_temp.read_now(), 'QE701', 'or no hexadecimal number');
SELECT FROM pg_temp.changed(:'new');
SELECT is(pg_temp.read_now(), 'QE701', 'another key');
SELECT FROM pg_temp.changed(:'new' || E'\n\n' || :'old' || E'\n');
SELECT is(pg_temp.read_now(), 'Bob', 'the old key behind the new one');
SELECT FROM pg_temp.appended('later', '{"id": 1, "name": "Eve"}');
SELECT is((SELECT count(DISTINCT master_key_id) FROM cqrs_es.personal_data_keys WHERE aggregate_id IN ('row', 'later')), 2::bigint, 'the new one is for new keys');
SELECT is(cqrs_es.rotate_master_key() > 3, true, 'the others are wrapped anew');
SELECT is(cqrs_es.rotate_master_key(), 0::bigint, 'once');
SELECT FROM pg_temp.changed(:'new');
SELECT is(pg_temp.read_now() || pg_temp.payloads('later'), 'Bob{"id": 1, "name": "Eve"}', 'then the old one is not needed any more');
SELECT set_config('cqrs_es.master_key_file', current_setting('data_directory') || '/none', true) IS NULL AS missing \gset
ALTER ROLE personal_sees CONNECTION LIMIT 8;
SELECT is(pg_temp.error_of($$SELECT pg_temp.payloads('row')$$), '{QE701,"the master key of personal data cannot be read","The file cannot be opened.","The setting cqrs_es.master_key_file names a file of the server that has a key of 64 hexadecimal digits, and that nobody else may read."}', 'no file');
SELECT is(pg_temp.state_of($$SELECT pg_temp.appended('never', '{"id": 1, "name": "Eve"}')$$), 'QE701', 'without a key nothing personal is appended');
SELECT lives_ok($$SELECT pg_temp.appended('never', '{"id": 1}')$$, 'all else is');
SELECT lives_ok($$SELECT pg_temp.as_role('personal_does_not', 'SELECT FROM cqrs_es.read_stream(''person'', ''row'')')$$, 'and who may not see needs none');
ROLLBACK;
