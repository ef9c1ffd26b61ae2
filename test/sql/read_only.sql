\i test/include/setup.sql
-- Where nothing can be written, the error names the function that was called.
CREATE TEMP TABLE read_only_source (aggregate_type text, aggregate_id text, event_type text, payload jsonb);
CREATE TEMP TABLE read_only_drawn (position bigint);
SELECT cqrs_es.create_aggregate('read only') IS NULL AS x \gset
SELECT cqrs_es.define_command('read only', 'Nothing', '''[]''::jsonb') IS NULL AS x \gset
BEGIN;
SELECT plan(8);
SET LOCAL transaction_read_only = on;
SELECT is(pg_temp.error_of('SELECT cqrs_es.' || call, '{state,message}'), ARRAY['25006', format('cannot execute %s() in a read-only transaction', split_part(call, '(', 1))], call)
FROM unnest(ARRAY[
	$$append_event('read only', '1', 'e', '{}')$$,
	$$append_events('read only', '1', '[{"type": "e", "payload": {}}]')$$,
	$$append_event_arrays('read only', '1', '{e}', '{"{}"}')$$,
	$$execute_command('read only', '1', 'Nothing')$$,
	$$import_events('read_only_source')$$,
	$$take_snapshot('read only', '1')$$]) WITH ORDINALITY AS c (call, n) ORDER BY n;
SELECT is(pg_temp.error_of('INSERT INTO read_only_drawn SELECT cqrs_es.next_position()', '{state,message}'), '{25006,"cannot execute next_position() in a read-only transaction"}', 'a position that is drawn for a temporary table');
SELECT is(pg_temp.error_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('read only', '1', 'e', '{}')$$, '{state,message}'),
	'{25006,"cannot execute INSERT in a read-only transaction"}', 'a plain INSERT');
SELECT finish();
ROLLBACK;
SELECT cqrs_es.drop_aggregate('read only') IS NULL AS x \gset
