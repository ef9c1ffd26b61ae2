\i test/include/setup.sql
-- Forgetting: what is gone then, what follows, who may, and that it stays so.
BEGIN;
SELECT plan(42);
-- what other files have left is not this one's
SET LOCAL session_replication_role = replica;
DELETE FROM cqrs_es.events;
DELETE FROM cqrs_es.event_tags;
SET LOCAL session_replication_role = origin;
\i test/include/master_key.sql
CREATE FUNCTION pg_temp.names(type text, id text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(coalesce(payload->'name', '"none"')::text, ' ' ORDER BY sequence) FROM cqrs_es.read_stream(type, id) WHERE event_type = 'named' $$;
CREATE FUNCTION pg_temp.named(type text, id text, subject text, name text) RETURNS bigint LANGUAGE sql AS $$
	SELECT version FROM cqrs_es.append_event(type, id, 'named', jsonb_build_object('id', subject, 'name', name)) $$;
CREATE TABLE forget_states (view_id text PRIMARY KEY, version bigint, payload jsonb);
CREATE TABLE forget_told (id text, name text);
CREATE TABLE forget_untold (LIKE forget_told);
CREATE ROLE forget_officer;
GRANT USAGE ON SCHEMA cqrs_es TO forget_officer;
GRANT SELECT, INSERT ON cqrs_es.events TO forget_officer;
GRANT EXECUTE ON FUNCTION cqrs_es.forget_subject TO forget_officer;
SELECT FROM cqrs_es.create_aggregate('person', snapshot_every => 1);
SELECT FROM cqrs_es.create_projection('states', state_of => 'person', read_models => '{forget_states}');
SELECT FROM unnest('{told,untold}'::text[]) AS p, cqrs_es.create_projection(p, '{person,order}', ARRAY[('forget_' || p)::regclass]),
	cqrs_es.define_handler(p, 'named', format('INSERT INTO forget_%s VALUES (event.aggregate_id, event.payload->>''name'')', p));
SELECT FROM cqrs_es.define_handler('told', '$redacted', 'UPDATE forget_told SET name = NULL WHERE id = event.aggregate_id');
SELECT FROM cqrs_es.define_tags('named', 'person:{/id}');
SELECT FROM cqrs_es.create_boundary('latest', '[{"types": ["named"], "tags": ["person:{/id}"]}]', snapshot_every => 1);
SELECT FROM cqrs_es.define_reducer('latest', 'named', '[{"op": "set", "path": "/name", "from": "/name"}]'::jsonb);
SELECT FROM cqrs_es.define_command('latest', 'Look', $$'[]'::jsonb$$);
SELECT pg_temp.named('person', 'before', '1', 'Zoe') IS NULL AS a, pg_temp.named('person', 'mixed', '1', 'Zoe') IS NULL AS b \gset
SELECT FROM cqrs_es.define_personal_data('named', '/id', '{/name,/age}');
SELECT pg_temp.named('person', 'a', '1', 'Bob') IS NULL AS a, pg_temp.named('person', 'b', '2', 'Eve') IS NULL AS b,
	pg_temp.named('order', 'x', '1', 'Bob') IS NULL AS c, pg_temp.named('order', 'x', '2', 'Eve') IS NULL AS d, pg_temp.named('person', 'mixed', '1', 'Bob') IS NULL AS e \gset
SELECT FROM cqrs_es.close_stream('order', 'x', 'ended');
CREATE TEMP TABLE stored AS SELECT * FROM cqrs_es.events;
SELECT is((SELECT payload->>'name' FROM forget_states WHERE view_id = 'a') || (SELECT name FROM forget_told WHERE id = 'a'), 'BobBob', 'read tables have what is in clear');

-- what is gone

SELECT is(pg_temp.state_of(format('SELECT pg_temp.as_role(''forget_officer'', %L)', 'SELECT cqrs_es.forget_subject(''1'', ''ticket 7'')')), 'none', 'who was granted it forgets');
SELECT is(pg_temp.names('person', 'a') || pg_temp.names('person', 'b') || pg_temp.names('order', 'x'), 'null"Eve"null "Eve"', 'the subject is gone from all streams, and nobody else');
SELECT is(pg_temp.names('person', 'mixed'), 'null null', 'with what was stored in clear there');
SELECT is(pg_temp.names('person', 'before'), '"Zoe"', 'a stream in which nothing is encrypted is not known, so redact it');
SELECT is_empty($$SELECT global_position, payload FROM stored WHERE aggregate_id <> 'mixed' EXCEPT SELECT global_position, payload FROM cqrs_es.events$$, 'what is stored has not changed');
SELECT is((SELECT string_agg(DISTINCT payload::text, ' ') || string_agg(' ' || aggregate_id, '' ORDER BY aggregate_id) FROM cqrs_es.events WHERE event_type = '$redacted'),
	'{"reason": "ticket 7", "subject": "1", "pointers": ["/payload/age", "/payload/name"]} a mixed x', 'each of the streams says so');
SELECT is((SELECT string_agg(concat_ws(' ', aggregate_id, cardinality(positions), reason, redacted_by), ', ' ORDER BY aggregate_id) FROM cqrs_es.redactions),
	'a 1 ticket 7 forget_officer, mixed 2 ticket 7 forget_officer, x 1 ticket 7 forget_officer', 'and what was redacted');
SELECT is((SELECT array_agg(concat_ws(' ', subject, reason, forgotten_by)) FROM cqrs_es.forgotten_subjects), '{"1 ticket 7 forget_officer"}', 'the list has it');
SELECT is((SELECT count(*) FROM cqrs_es.personal_data_keys WHERE subject = '1' AND wrapped_key IS NOT NULL), 0::bigint, 'no key is left');
SELECT is((SELECT event_type FROM cqrs_es.read_stream('order', 'x', backward => true, max_count => 1)), '$closed', 'a closed stream stays closed');

-- what follows

SELECT is((SELECT payload FROM forget_states WHERE view_id = 'a'), '{"id": "1"}', 'states');
SELECT is((SELECT array_agg(name) FROM forget_told WHERE id IN ('a', 'mixed')), '{NULL,NULL,NULL}', 'handlers are told');
SELECT is((SELECT redaction_missed FROM cqrs_es.projection_status WHERE name = 'untold') > 0, true, 'who is not told shows it');
SELECT is(cqrs_es.rebuild_projection('untold') > 0, true, 'a rebuild');
SELECT is((SELECT array_agg(DISTINCT name) FROM forget_untold WHERE id IN ('a', 'mixed', 'b')), '{Eve,NULL}', 'sees what all see');
SELECT is((SELECT count(*) FROM cqrs_es.snapshots WHERE payload::text ~ 'Bob|Zoe' AND aggregate_id <> 'before'), 0::bigint, 'no snapshot has it');
SELECT is(cqrs_es.aggregate_state('person', 'a'), '{"id": "1"}', 'no state');
SELECT is(cqrs_es.boundary_state('latest', '{"id": "1"}')->'name', 'null', 'no boundary');

-- it stays so

SELECT is(cqrs_es.forget_subject('1', 'again'), 0::bigint, 'again there is nothing to do');
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE event_type = '$redacted'), 3::bigint, 'and nothing is written');
SELECT is(pg_temp.state_of($$SELECT pg_temp.named('person', 'a', '1', 'Bob')$$), 'QE702', 'nothing personal comes in any more');
SELECT is(pg_temp.state_of($$SELECT pg_temp.named('person', 'new', '1', 'Bob')$$), 'QE702', 'nor in another stream');
SELECT is(pg_temp.state_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('person', 'new', 'named', '{"id": 1, "name": "Bob"}')$$), 'QE702', 'nor as a row');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_event('person', 'a', 'named', '{"id": "1"}')$$), 'none', 'all else does');
SELECT is(cqrs_es.forget_subject('nobody', 'never seen'), 0::bigint, 'one that was never seen');
SELECT is(pg_temp.state_of($$SELECT pg_temp.named('person', 'new', 'nobody', 'Bob')$$), 'QE702', 'is on the list as well');

SELECT pg_temp.named('person', 'deleted', '4', 'Sam') IS NULL AS s, cqrs_es.delete_stream('person', 'deleted', 'r') IS NULL AS d \gset
SELECT is(cqrs_es.forget_subject('4', 'of a stream that is gone'), 0::bigint, 'nothing is left of a stream that was deleted');
SELECT is((SELECT count(*) FROM cqrs_es.personal_data_keys WHERE subject = '4' AND wrapped_key IS NOT NULL), 0::bigint, 'but its key, until then');

-- keys that a backup brings back

SELECT pg_temp.named('person', 'c', '3', 'Kim') IS NULL AS c \gset
CREATE TEMP TABLE backup AS SELECT * FROM cqrs_es.personal_data_keys WHERE subject = '3';
SELECT is(cqrs_es.forget_subject('3', 'ticket 8'), 1::bigint, 'forgotten');
UPDATE cqrs_es.personal_data_keys AS k SET wrapped_key = b.wrapped_key FROM backup AS b WHERE b.key_id = k.key_id;
SELECT is(pg_temp.names('person', 'c'), 'null', 'a key that is there again is not used');
DELETE FROM cqrs_es.forgotten_subjects WHERE subject = '3';
SELECT is(pg_temp.names('person', 'c'), '"Kim"', 'but where the list is older, too');
SELECT is(cqrs_es.forget_subject('3', 'restored'), 1::bigint, 'it is forgotten again');
SELECT is(pg_temp.names('person', 'c'), 'null', 'and gone');

-- tenants, and when it is not possible

SET LOCAL cqrs_es.tenant_id = 'one';
SELECT pg_temp.named('visitor', 't', '7', 'Ann') IS NULL AS t \gset
SET LOCAL cqrs_es.tenant_id = 'two';
SELECT pg_temp.named('visitor', 't', '7', 'Ann') IS NULL AS t \gset
SELECT is(cqrs_es.forget_subject('7', 'r'), 1::bigint, 'a subject of a tenant');
SELECT is(pg_temp.names('visitor', 't'), 'null', 'is forgotten there');
SET LOCAL cqrs_es.tenant_id = 'one';
SELECT is(pg_temp.names('visitor', 't'), '"Ann"', 'and nowhere else');
SET LOCAL cqrs_es.tenant_id = '';
SELECT set_config('cqrs_es.master_key_file', '/none', true) IS NULL AS missing \gset
ALTER ROLE forget_officer CONNECTION LIMIT 1;
SELECT is(cqrs_es.forget_subject('2', 'no key is needed for that'), 2::bigint, 'without a master key');
SELECT is(pg_temp.names('person', 'b'), 'null', 'what is gone is null');
SELECT set_config('cqrs_es.master_key_file', current_setting('data_directory') || '/cqrs_es_master_key', true) IS NULL AS there \gset
SAVEPOINT undone;
SELECT pg_temp.named('person', 'd', '5', 'Joe') IS NULL AS d, cqrs_es.forget_subject('5', 'r') = 1 AS forgotten \gset
ROLLBACK TO undone;
SELECT is(pg_temp.named('person', 'd', '5', 'Joe'), 1::bigint, 'one that is undone');
SELECT is(pg_temp.names('person', 'd'), '"Joe"', 'has not been');
SELECT is((SELECT string_agg(coalesce(problem, 'good'), ' ') FROM cqrs_es.verify_log() WHERE problem IS NOT NULL), NULL, 'the log is whole');
ROLLBACK;
