\i test/include/setup.sql
-- Where nothing can be written, the error names the function that was called.
CREATE TEMP TABLE read_only_source (aggregate_type text, aggregate_id text, event_type text, payload jsonb);
CREATE TEMP TABLE read_only_drawn (position bigint);
CREATE FUNCTION read_only(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
CREATE FUNCTION read_only_lifted(jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $1';
SELECT cqrs_es.create_aggregate('read only') IS NULL AS x \gset
SELECT cqrs_es.define_command('read only', 'Nothing', '''[]''::jsonb') IS NULL AS x \gset
BEGIN;
SELECT plan(35);
SET LOCAL transaction_read_only = on;
SELECT is(pg_temp.error_of('SELECT cqrs_es.' || call, '{state,message}'), ARRAY['25006', format('cannot execute %s() in a read-only transaction', split_part(call, '(', 1))], call)
FROM unnest(ARRAY[
	$$append_event('read only', '1', 'e', '{}')$$,
	$$append_events('read only', '1', '[{"type": "e", "payload": {}}]')$$,
	$$append_event_arrays('read only', '1', '{e}', '{"{}"}')$$,
	$$append_to_streams('[{"type": "e"}]')$$,
	$$execute_command('read only', '1', 'Nothing')$$,
	$$import_events('read_only_source')$$,
	$$redact_stream('read only', '1', '{/payload/a}', 'r')$$,
	$$close_stream('read only', '1', 'r')$$,
	$$reopen_stream('read only', '1', 'r')$$,
	$$redact_event(1, '{/payload/a}', 'r')$$,
	$$delete_stream('read only', '1', 'r')$$,
	$$take_snapshot('read only', '1')$$,
	$$create_aggregate('read only')$$,
	$$create_aggregate('read only anew')$$,
	$$alter_aggregate('read only', strict => true)$$,
	$$drop_aggregate('read only')$$,
	$$define_reducer('read only', 'e', '[]')$$,
	$$define_reducer('read only', 'e', '[]'::jsonb)$$,
	$$define_reducer('read only', 'e', 'read_only(jsonb, cqrs_es.event)'::regprocedure)$$,
	$$drop_reducer('read only', 'e')$$,
	$$define_upcaster('read only', '1', '2', 'read_only_lifted')$$,
	$$define_upcaster('read only', '1', '2', 'read_only_lifted'::regproc::regprocedure)$$,
	$$drop_upcaster('read only', '1')$$,
	$$define_command('read only', 'Nothing', '''[]''::jsonb')$$,
	$$define_command('read only', 'Nothing', 'jsonb_concat'::regproc::regprocedure)$$,
	$$drop_command('read only', 'Nothing')$$,
	$$create_projection('read only')$$,
	$$alter_projection('read only', mode => 'async')$$,
	$$drop_projection('read only', if_exists => true)$$,
	$$define_handler('read only', 'e', 'DELETE FROM read_only')$$,
	$$drop_handler('read only', 'e')$$,
	$$promote_projection('read only', replaces => 'read only')$$,
	$$keep_shards('{0}', 2)$$]) WITH ORDINALITY AS c (call, n) ORDER BY n;
SELECT is(pg_temp.error_of('INSERT INTO read_only_drawn SELECT cqrs_es.next_position()', '{state,message}'), '{25006,"cannot execute next_position() in a read-only transaction"}', 'a position that is drawn for a temporary table');
SELECT is(pg_temp.error_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('read only', '1', 'e', '{}')$$, '{state,message}'),
	'{25006,"cannot execute INSERT in a read-only transaction"}', 'a plain INSERT');
SELECT finish();
ROLLBACK;
SELECT cqrs_es.drop_aggregate('read only') IS NULL AS x \gset
DROP FUNCTION read_only, read_only_lifted;
