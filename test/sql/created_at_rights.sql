\i test/include/setup.sql
-- Who may say when an event happened: the log's owner, who restores, and who may
-- import. For all others the log says it.
BEGIN;
SELECT plan(22);
CREATE ROLE cqrs_es_clerk;
CREATE ROLE cqrs_es_importer;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_clerk, cqrs_es_importer;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_clerk, cqrs_es_importer;
GRANT EXECUTE ON FUNCTION cqrs_es.import_events TO cqrs_es_importer;
CREATE FUNCTION pg_temp.insert_at(id text, at text) RETURNS text LANGUAGE sql AS $$
	SELECT format('INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at) VALUES (%L, %L, %L, %L, %s)', 'created', id, 'e', '{}', at) $$;
-- the SQLSTATE of a statement as somebody
CREATE FUNCTION pg_temp.state_as(role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', role, true);
	EXECUTE statement;
	PERFORM set_config('role', 'none', true);
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;

SELECT is(pg_temp.state_as('cqrs_es_clerk', pg_temp.insert_at('clerk', at)), '42501', format('a writer cannot say %s', at))
FROM unnest('{"''1999-01-01''", "''infinity''", "''-infinity''", "now()", "clock_timestamp()", "clock_timestamp() + ''1 day''"}'::text[]) AS at;
SELECT is(pg_temp.state_as('cqrs_es_clerk', format('INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at)
	SELECT %L, %L, %L, %L, created_at FROM (VALUES (NULL::timestamptz), (%L)) AS v (created_at)', 'created', 'two', 'e', '{}', '1999-01-01')), '42501', 'not in a second row either');
SELECT is(pg_temp.error_of('SET ROLE cqrs_es_clerk; ' || pg_temp.insert_at('clerk', '''1999-01-01''')),
	ARRAY['42501', 'permission denied to set created_at',
		'Only the owner of table "events", and who may execute import_events(), may say when an event happened.',
		'Leave created_at out; the log says it.'], 'and is told why');
RESET ROLE;
SELECT is(pg_temp.state_as('cqrs_es_clerk', pg_temp.insert_at('left out', 'DEFAULT')), 'none', 'DEFAULT is the clock');
SELECT is(pg_temp.state_as('cqrs_es_clerk', pg_temp.insert_at('left out', 'NULL')), 'none', 'so is NULL');
SELECT is(pg_temp.state_as('cqrs_es_clerk', $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('created', 'left out', 'e', '{}')$$), 'none', 'and nothing');
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('created', 'left out') WHERE created_at BETWEEN now() AND clock_timestamp()), 3::bigint, 'all three times');
SELECT is(pg_temp.state_as('cqrs_es_clerk', $$SELECT cqrs_es.append_event('created', 'appended', 'e', '{}')$$), 'none', 'append_event is no INSERT of a time');
SELECT is(pg_temp.state_as('cqrs_es_clerk', $$SELECT cqrs_es.append_events('created', 'appended', '[{"type": "e", "payload": {}}, {"type": "e", "payload": {}}]')$$), 'none', 'nor a batch');
SELECT is((SELECT count(*) FROM cqrs_es.read_stream('created', 'appended') WHERE created_at BETWEEN now() AND clock_timestamp()), 3::bigint, 'their times');

SELECT is(pg_temp.state_as('cqrs_es_importer', pg_temp.insert_at('importer', '''1999-01-01 12:00+00''')), 'none', 'an importer may');
SELECT is((SELECT created_at FROM cqrs_es.read_stream('created', 'importer')), '1999-01-01 12:00+00', 'what was said');
SELECT is(pg_temp.state_of(pg_temp.insert_at('owner', '''1999-01-01 12:00+00''')), 'none', 'a superuser may');
SELECT is((SELECT created_at FROM cqrs_es.read_stream('created', 'owner')), '1999-01-01 12:00+00', 'as it was said');

-- a definer's function lends its right, as with any
CREATE FUNCTION pg_temp.lend() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$
	INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at) VALUES ('created', 'lent', 'e', '{}', '1999-01-01') $$;
SELECT is(pg_temp.state_as('cqrs_es_clerk', 'SELECT pg_temp.lend()'), 'none', 'in a SECURITY DEFINER function the definer''s right counts');

SELECT is((pg_temp.error_of(pg_temp.insert_at('infinite', at)))[1:3], ARRAY['22023', 'created_at must be finite', 'The event is one of stream "created/infinite".'], format('nobody says %s', at))
FROM unnest('{"''infinity''", "''-infinity''"}'::text[]) AS at;
ROLLBACK;
