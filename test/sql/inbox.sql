\i test/include/setup.sql
-- Messages from outside: the first time, tenants, rights, arguments, where nothing can be
-- written, and how they are forgotten. What is forgotten is committed as it goes, so
-- that part stands in front of the transaction.

TRUNCATE cqrs_es.received_messages;
CREATE ROLE cqrs_es_in_writer;
CREATE ROLE cqrs_es_in_keeper;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_in_writer, cqrs_es_in_keeper;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_in_writer;
GRANT EXECUTE ON PROCEDURE cqrs_es.forget_messages TO cqrs_es_in_keeper;

-- on many pages, so that there are several portions; old ones and new ones side by side
INSERT INTO cqrs_es.received_messages
	SELECT 'tenant ' || n % 2, 'in', repeat('x', 900) || n, clock_timestamp() - CASE WHEN n % 3 = 0 THEN interval '6 days 23 hours' ELSE interval '7 days 1 hour' END
	FROM generate_series(1, 6000) AS n;
SELECT pg_relation_size('cqrs_es.received_messages') / 8192 > 2 * 256 AS several_portions \gset
CREATE TEMP TABLE counts (n serial, what text, messages bigint);
INSERT INTO counts (what, messages) SELECT 'at first', count(*) FROM cqrs_es.received_messages;
SET ROLE cqrs_es_in_keeper;
CALL cqrs_es.forget_messages('8 days');
RESET ROLE;
INSERT INTO counts (what, messages) SELECT 'none is older than 8 days', count(*) FROM cqrs_es.received_messages;
SET ROLE cqrs_es_in_keeper;
CALL cqrs_es.forget_messages();
RESET ROLE;
INSERT INTO counts (what, messages) SELECT 'those older than 7 days are forgotten, and no other', count(*) FROM cqrs_es.received_messages;
INSERT INTO counts (what, messages) SELECT 'of both tenants', count(*) FROM cqrs_es.received_messages WHERE tenant_id = 'tenant 1';
CALL cqrs_es.forget_messages('300 years');
INSERT INTO counts (what, messages) SELECT 'longer than there are clocks', count(*) FROM cqrs_es.received_messages;
CALL cqrs_es.forget_messages(older_than => '0');
INSERT INTO counts (what, messages) SELECT 'all', count(*) FROM cqrs_es.received_messages;
VACUUM cqrs_es.received_messages;
SELECT pg_relation_size('cqrs_es.received_messages') > 0 AS not_shortened \gset
CALL cqrs_es.forget_messages();
-- what it says: of an error none has an effect
\set statements 'CALL cqrs_es.forget_messages(NULL); CALL cqrs_es.forget_messages(''-1 s''); CALL cqrs_es.forget_messages(''300000 years''); BEGIN; CALL cqrs_es.forget_messages(); ROLLBACK; DO ''BEGIN CALL cqrs_es.forget_messages(); END''; DO ''BEGIN CALL cqrs_es.forget_messages(); EXCEPTION WHEN division_by_zero THEN NULL; END''; SET default_transaction_read_only = on; CALL cqrs_es.forget_messages(); SET default_transaction_read_only = off; SET default_transaction_isolation = serializable; CALL cqrs_es.forget_messages(); SET ROLE cqrs_es_in_writer; CALL cqrs_es.forget_messages();'
\i test/include/session.sql

BEGIN;
SELECT plan(55);
SELECT ok(:'several_portions', 'the table has several portions');
SELECT is(string_agg(what || ': ' || messages, ', ' ORDER BY n), 'at first: 6000, none is older than 8 days: 6000, those older than 7 days are forgotten, and no other: 2000,'
	' of both tenants: 1000, longer than there are clocks: 2000, all: 0', 'forgotten is what was received longer ago') FROM counts;
SELECT is(:'answer'::text, E'ERROR:  22004\nERROR:  22023\nERROR:  22008\nERROR:  25001\nERROR:  25001\nERROR:  25006\nERROR:  42501',
	'forget_messages: null, negative, out of range, in a transaction block, a block with EXCEPTION, read-only; not in a writer''s hands');
SELECT is(pg_temp.error_of('CALL cqrs_es.forget_messages()'),
	'{25001,forget_messages() cannot run in a transaction block,It commits after each portion.,CALL it by itself.}', 'what it says in a transaction block');

SELECT ok(:'not_shortened', 'vacuum does not shorten the table, for which it would shut out who receives');

-- the first time
SELECT is(cqrs_es.receive_message('in', 'a'), true, 'the first time');
SELECT is(cqrs_es.receive_message('in', 'a'), false, 'and the second, in the same transaction too');
SELECT is(cqrs_es.receive_message(message_id => 'a', source => 'in 2'), true, 'the same id of another source');
SELECT is(cqrs_es.receive_message('in', 'A'), true, 'ids are compared bytewise');
SELECT is(cqrs_es.receive_message('in', 'a '), true, 'also at their ends');
SELECT is(cqrs_es.receive_message('ina', 'b'), true, 'source and id');
SELECT is(cqrs_es.receive_message('in', 'ab'), true, 'do not run together');
SELECT is(cqrs_es.receive_message('in', E'\u00e9'), true, 'an accent');
SELECT is(cqrs_es.receive_message('in', E'e\u0301'), true, 'and the same written otherwise');
SELECT results_eq($$SELECT id, cqrs_es.receive_message('many', id) FROM unnest('{1,2,1,3,2}'::text[]) AS id$$,
	$$VALUES ('1', true), ('2', true), ('1', false), ('3', true), ('2', false)$$, 'many in one statement');
SELECT is(string_agg((tenant_id, source, message_id)::text, ' ' ORDER BY message_id), '("",many,1) ("",many,2) ("",many,3)', 'what is kept')
FROM cqrs_es.received_messages WHERE source = 'many';
SELECT cmp_ok(min(received_at), '>', now(), 'with the time of the call, not of the transaction') FROM cqrs_es.received_messages;

-- it is undone with what followed from it
SAVEPOINT s;
SELECT cqrs_es.receive_message('in', 'savepoint') AS in_savepoint \gset
ROLLBACK TO s;
SELECT ok(:'in_savepoint', 'in a savepoint');
SELECT is(cqrs_es.receive_message('in', 'savepoint'), true, 'that was rolled back: the first time still');
SAVEPOINT s;
SELECT is(cqrs_es.receive_message('in', 'savepoint'), false, 'in a savepoint after it');
RELEASE s;
SELECT is(pg_temp.state_of($$SELECT 1 / (CASE WHEN cqrs_es.receive_message('in', 'failed') THEN 0 END)$$), '22012', 'who acts on it fails');
SELECT is(cqrs_es.receive_message('in', 'failed'), true, 'and it was not received');
SELECT cqrs_es.create_aggregate('in') IS NULL AS x,
	cqrs_es.define_command('in', 'Take', $$CASE WHEN cqrs_es.receive_message('decider', command->>'id') THEN cqrs_es.reject('no') END$$) IS NULL AS y \gset
SELECT is(pg_temp.state_of($$SELECT cqrs_es.execute_command('in', '1', 'Take', '{"id": "1"}')$$), 'QE301', 'a command that is refused');
SELECT is(cqrs_es.receive_message('decider', '1'), true, 'has received nothing');

-- tenants
SET LOCAL cqrs_es.tenant_id = 'acme';
SELECT is(cqrs_es.receive_message('in', 'a'), true, 'a message of another tenant with the same id');
SELECT is(cqrs_es.receive_message('in', 'a'), false, 'is received once as well');
SET LOCAL cqrs_es.tenant_id = '';
SELECT is(cqrs_es.receive_message('in', 'a'), false, 'the first one''s is still there');
SET LOCAL cqrs_es.require_tenant = on;
SELECT is(pg_temp.state_of($$SELECT cqrs_es.receive_message('in', 'a')$$), 'QE007', 'where a tenant is required');
SET LOCAL cqrs_es.require_tenant = off;

-- rights
SELECT is(pg_temp.state_of(format('SELECT pg_temp.as_role(%L, $$SELECT cqrs_es.receive_message(%L, %L)$$)', 'cqrs_es_in_writer', 'in', 'writer')), 'none', 'who may append may receive');
SELECT is(pg_temp.state_of(format('SELECT pg_temp.as_role(%L, $$SELECT cqrs_es.receive_message(%L, %L)$$)', 'cqrs_es_in_keeper', 'in', 'keeper')), '42501', 'others may not');
SELECT is(pg_temp.state_of(format('SELECT pg_temp.as_role(%L, $$%s$$)', 'cqrs_es_in_writer', statement)), '42501', 'a writer: ' || statement)
FROM unnest(ARRAY['SELECT FROM cqrs_es.received_messages', 'DELETE FROM cqrs_es.received_messages', 'INSERT INTO cqrs_es.received_messages VALUES ('''', ''in'', ''planted'')',
	'TRUNCATE cqrs_es.received_messages']) AS statement;
GRANT INSERT ON cqrs_es.events TO cqrs_es_in_keeper;
SELECT is(pg_temp.state_of(format('SELECT pg_temp.as_role(%L, $$SELECT cqrs_es.receive_message(%L, %L)$$)', 'cqrs_es_in_keeper', 'in', 'keeper')), '42501', 'nor who may insert, but not read');
GRANT SELECT ON cqrs_es.received_messages TO cqrs_es_in_writer;
SELECT is(cqrs_es.receive_message('in', 'theirs'), true, 'a message of no tenant');
SET LOCAL cqrs_es.tenant_id = 'acme';
SET LOCAL ROLE cqrs_es_in_writer;
SELECT is(string_agg((source, message_id)::text, ' '), '(in,a)', 'who is shown the table sees the messages of the own tenant') FROM cqrs_es.received_messages;
SELECT is(current_user::text, 'cqrs_es_in_writer', 'the role is as it was');
SELECT is(cqrs_es.receive_message('in', 'role'), true, 'a message');
SELECT is(current_user::text, 'cqrs_es_in_writer', 'and still is');
RESET ROLE;
SET LOCAL cqrs_es.tenant_id = '';

-- nobody's names and settings have a say
CREATE TEMP TABLE received_messages (tenant_id text, source text, message_id text, received_at timestamptz);
CREATE FUNCTION pg_temp.clock_timestamp() RETURNS timestamptz LANGUAGE sql RETURN now();
SET LOCAL search_path = pg_temp, pg_catalog, public;
SELECT is(cqrs_es.receive_message('in', 'path'), true, 'beside a temporary table of the same name');
SELECT is((SELECT count(*) FROM received_messages), 0::bigint, 'which has nothing to do with it');
RESET search_path;
SET LOCAL row_security = off;
SET LOCAL default_toast_compression = 'pglz';
SELECT is(cqrs_es.receive_message('in', 'path'), false, 'without row security');
RESET row_security;

-- arguments
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.receive_message(%s)', arguments)), state, format('%s: receive_message(%s)', state, left(arguments, 40)))
FROM (VALUES ('22004', 'NULL, ''a'''), ('22004', '''in'', NULL'), ('22023', ''''', ''a'''), ('22023', '''in'', '''''),
	('22001', 'repeat(''s'', 256), ''a'''), ('22001', '''in'', repeat(''i'', 1025)'), ('22001', '''in'', repeat(''i'', 10000000)')) AS a (state, arguments);
SELECT is(pg_temp.error_of($$SELECT cqrs_es.receive_message('in', '')$$, '{message}'), '{message_id must not be empty}', 'it says which');
SET LOCAL cqrs_es.tenant_id = '';
SELECT set_config('cqrs_es.tenant_id', string_agg(md5(n::text), ''), true) IS NULL AS x FROM generate_series(1, 7) AS n \gset
SELECT string_agg(md5(n::text), '') AS random FROM generate_series(1, 100) AS n \gset
SELECT is(cqrs_es.receive_message(left(:'random', 255), left(:'random', 1024)), true, 'the longest, which cannot be compressed');
SELECT is(cqrs_es.receive_message(left(:'random', 255), left(:'random', 1024)), false, 'are recognized');
SELECT is(cqrs_es.receive_message(left(:'random', 255), left(:'random', 1023) || '-'), true, 'to the last byte');
SET LOCAL cqrs_es.tenant_id = '';

-- where nothing can be written
SAVEPOINT s;
SET TRANSACTION READ ONLY;
SELECT pg_temp.error_of($$SELECT cqrs_es.receive_message('in', 'a')$$, '{state,message}') AS read_only \gset
ROLLBACK TO s;
SELECT is(:'read_only'::text, '{25006,"cannot execute receive_message() in a read-only transaction"}', 'not even for a message that is known');

SELECT finish();
ROLLBACK;
TRUNCATE cqrs_es.received_messages;
DROP OWNED BY cqrs_es_in_writer, cqrs_es_in_keeper;
DROP ROLE cqrs_es_in_writer, cqrs_es_in_keeper;
