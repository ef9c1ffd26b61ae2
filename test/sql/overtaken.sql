\i test/include/setup.sql
-- A trigger on the log that appends to the stream of the event before it is there
-- takes its sequence.  That is an error, not a race which is lost again and again.
BEGIN;
SELECT plan(8);
SET LOCAL statement_timeout = '60s';

CREATE FUNCTION overtake() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.append_event(new.aggregate_type, new.aggregate_id, 'Overtook', '1');
	RETURN new;
END $$;
CREATE TRIGGER overtake BEFORE INSERT ON cqrs_es.events
	FOR EACH ROW WHEN (new.event_type = 'Slow') EXECUTE FUNCTION overtake();
SELECT cqrs_es.create_aggregate('o') IS NULL AS x \gset
SELECT cqrs_es.define_command('o', 'Go', $$'{"type": "Slow", "payload": 1}'::jsonb$$) IS NULL AS x \gset

PREPARE slow(text, bigint) AS SELECT cqrs_es.append_event('o', $1, 'Slow', '1', $2);

SELECT throws_ok($$EXECUTE slow('a', NULL)$$, '09000', 'the event for stream "o/a" was not inserted', 'append');
SELECT throws_ok($$EXECUTE slow('a', 0)$$, '09000', 'the event for stream "o/a" was not inserted', 'append, with a version');
SELECT throws_ok($$SELECT cqrs_es.append_events('o', 'a', '[{"type": "Slow", "payload": 1}, {"type": "Quick", "payload": 1}]')$$,
	'09000', NULL, 'a batch');
SELECT throws_ok($$SELECT cqrs_es.execute_command('o', 'a', 'Go')$$, '09000', NULL, 'a command');
SELECT is(cqrs_es.stream_version('o', 'a'), 0::bigint, 'nothing is left of them');

SELECT lives_ok($$SELECT cqrs_es.append_event('o', 'a', 'Quick', '1')$$, 'other events go in');
SELECT throws_ok($$EXECUTE slow('a', NULL)$$, '09000', NULL, 'append behind one of this transaction');
SELECT is(cqrs_es.stream_version('o', 'a'), 1::bigint, 'that stays');

SELECT * FROM finish();
ROLLBACK;
