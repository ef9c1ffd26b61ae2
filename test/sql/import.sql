\i test/include/setup.sql
-- History of other systems comes in with its times, ids and order; again and
-- again, and never half.
BEGIN;
SELECT plan(46);
CREATE SCHEMA import;
SET LOCAL search_path = import, public;

-- as Message DB and EventStoreDB have it: streams that begin at 0, one whose beginning was deleted
CREATE TABLE old (stream text, revision bigint, commit_position numeric, type text, data jsonb, meta jsonb, id uuid, created timestamptz);
INSERT INTO old SELECT 's' || n % 3, n / 3, 1000000000000000000 + n * 100, 'e' || n % 2, to_jsonb(n), jsonb_build_object('n', n),
	('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, '2020-01-01 00:00+00'::timestamptz + n * interval '1 hour' FROM generate_series(0, 29) AS n;
DELETE FROM old WHERE stream = 's1' AND revision < 4;
DELETE FROM old WHERE stream = 's2' AND revision = 5;
CREATE VIEW history AS SELECT 'import' AS aggregate_type, stream AS aggregate_id, revision AS sequence, commit_position AS "position", type AS event_type,
	data AS payload, meta AS metadata, id AS event_id, created AS created_at FROM old;

SELECT results_eq($$SELECT streams, imported, already_there, last_position > 0 FROM cqrs_es.import_events('history')$$,
	$$VALUES (3::bigint, 25::bigint, 0::bigint, true)$$, 'it says what it did');
SELECT results_eq($$SELECT ROW(aggregate_id, sequence, event_type, payload, event_id, created_at)::text FROM cqrs_es.events WHERE aggregate_type = 'import' ORDER BY global_position$$,
	$$SELECT ROW(stream, row_number() OVER (PARTITION BY stream ORDER BY revision), type, data, id, created)::text FROM old ORDER BY commit_position$$,
	'the events are those of the source, in the order of all, their sequences from 1 without holes');
SELECT results_eq($$SELECT ROW(aggregate_id, sequence, metadata)::text FROM cqrs_es.events WHERE aggregate_type = 'import' ORDER BY aggregate_id, sequence$$,
	$$SELECT ROW(stream, n, CASE WHEN n = revision THEN meta ELSE meta || jsonb_build_object('imported_sequence', revision) END)::text
	FROM (SELECT *, row_number() OVER (PARTITION BY stream ORDER BY revision) AS n FROM old) AS o ORDER BY stream, n$$, 'an old sequence that differs is kept');

-- again
SELECT results_eq($$SELECT streams, imported, already_there FROM cqrs_es.import_events('history')$$, $$VALUES (3::bigint, 0::bigint, 25::bigint)$$, 'the second time nothing is left to do');
INSERT INTO old VALUES ('s0', 10, 1000000000000009000, 'late', '"late"', '{}', gen_random_uuid(), now()), ('s4', 0, 1000000000000009001, 'new', '"new"', '{}', gen_random_uuid(), now());
SELECT results_eq($$SELECT streams, imported, already_there FROM cqrs_es.import_events('history')$$, $$VALUES (4::bigint, 2::bigint, 25::bigint)$$, 'but what has come since');
SELECT is((SELECT string_agg(payload #>> '{}', ' ') FROM cqrs_es.read_stream('import', 's0', 11)), 'late', 'behind what was there');

-- what has been appended meanwhile
SELECT cqrs_es.append_event('import', 's4', 'ours', '{}') IS NULL AS x \gset
SELECT results_eq($$SELECT imported, already_there FROM cqrs_es.import_events('history')$$, $$VALUES (0::bigint, 27::bigint)$$, 'an append behind an import is in nobody''s way');
INSERT INTO old VALUES ('s4', 1, 1000000000000009002, 'new', '"new"', '{}', gen_random_uuid(), now());
SELECT is(pg_temp.error_of($$SELECT cqrs_es.import_events('history')$$), ARRAY['23505', 'event 2 of stream "import/s4" is in the log already, with another id', '',
	'Import a stream before anybody appends to it; and when you import again, all of it from its beginning, with the same ids.'], 'until the old system goes on there');
DELETE FROM old WHERE stream = 's4' AND revision = 1;
DELETE FROM old WHERE stream = 's2' AND revision = 0;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.import_events('history')$$))[1], '23505', 'a stream that lost its beginning since is not mixed up');
DELETE FROM old WHERE stream = 's2';

-- a table by hand: no ids, no sequences, no times
CREATE TABLE by_hand (aggregate_type text, aggregate_id text, "position" int, event_type varchar(20), payload json);
INSERT INTO by_hand SELECT 'by hand', (n % 2)::text, n, 'e', to_json(n) FROM generate_series(1, 6) AS n;
SELECT results_eq($$SELECT streams, imported FROM cqrs_es.import_events('by_hand')$$, $$VALUES (2::bigint, 6::bigint)$$, 'a position alone is enough');
SELECT results_eq($$SELECT ROW(aggregate_id, sequence, event_version, payload, metadata, tenant_id)::text FROM cqrs_es.events WHERE aggregate_type = 'by hand' ORDER BY global_position$$,
	$$SELECT ROW((n % 2)::text, (n + 1) / 2, '1', to_jsonb(n), '{}'::jsonb, '')::text FROM generate_series(1, 6) AS n$$, 'in its order, the rest by default');
SELECT is((SELECT count(DISTINCT event_id) FROM cqrs_es.events WHERE aggregate_type = 'by hand'), 6::bigint, 'each with an id');
SELECT results_eq($$SELECT imported, already_there FROM cqrs_es.import_events('by_hand')$$, $$VALUES (0::bigint, 6::bigint)$$, 'which is the same the next time');
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'by hand' AND created_at BETWEEN now() AND clock_timestamp()), 6::bigint, 'their time is now');
-- the old system goes on meanwhile: what was read counts, the rest is for the next time
CREATE TABLE goes_on (aggregate_type text, aggregate_id text, sequence bigint, event_type text, payload jsonb);
INSERT INTO goes_on SELECT 'goes on', 'a', n, 'e', to_jsonb(n) FROM generate_series(1, 3) AS n;
SELECT cqrs_es.create_projection('goes on', '{goes on}') IS NULL AS x, cqrs_es.define_handler('goes on', 'e',
	$$INSERT INTO goes_on SELECT event.aggregate_type, aggregate_id, 10, 'e', '10' FROM (VALUES ('a'), ('b')) AS s (aggregate_id) WHERE event.sequence = 2$$) IS NULL AS y \gset
SELECT results_eq($$SELECT streams, imported, already_there FROM cqrs_es.import_events('goes_on')$$, $$VALUES (1::bigint, 3::bigint, 0::bigint)$$, 'rows that come while it is read');
SELECT results_eq($$SELECT streams, imported, already_there FROM cqrs_es.import_events('goes_on')$$, $$VALUES (2::bigint, 2::bigint, 3::bigint)$$, 'are imported the next time');
SELECT cqrs_es.define_handler('goes on', 'e', $$DELETE FROM goes_on$$) IS NULL AS x \gset
INSERT INTO goes_on VALUES ('goes on', 'c', 1, 'e', '1');
SELECT results_eq($$SELECT streams, imported, already_there FROM cqrs_es.import_events('goes_on')$$, $$VALUES (3::bigint, 1::bigint, 5::bigint)$$, 'rows that go');
-- sequences and times: falling times do not turn a stream around
CREATE TABLE timed (aggregate_type text, aggregate_id text, sequence bigint, event_type text, payload jsonb, created_at timestamptz);
INSERT INTO timed VALUES ('timed', 'a', 1, 'e', '1', '2020-01-03'), ('timed', 'a', 2, 'e', '2', '2020-01-01'), ('timed', 'b', 1, 'e', '3', '2020-01-02'), ('timed', 'b', 2, 'e', '4', '2020-01-05');
SELECT results_eq($$SELECT imported FROM cqrs_es.import_events('timed')$$, $$VALUES (4::bigint)$$, 'sequences and times are enough');
SELECT is((SELECT string_agg(aggregate_id || sequence, ' ' ORDER BY global_position) FROM cqrs_es.events WHERE aggregate_type = 'timed'), 'b1 a1 a2 b2', 'by time, streams as they are');
-- tenants
CREATE TABLE tenants (tenant_id text, aggregate_type text, aggregate_id text, sequence int, event_type text, payload jsonb);
INSERT INTO tenants VALUES ('x', 'tenants', '1', 0, 'e', '{}'), ('y', 'tenants', '1', 0, 'e', '{}'), (NULL, 'tenants', '1', 0, 'e', '{}');
SELECT results_eq($$SELECT streams, imported FROM cqrs_es.import_events('tenants')$$, $$VALUES (3::bigint, 3::bigint)$$, 'each tenant has its stream');
SELECT is((SELECT string_agg(tenant_id || sequence, ' ' ORDER BY tenant_id) FROM cqrs_es.events WHERE aggregate_type = 'tenants'), '1 x1 y1', 'one that is not said is the current one');
CREATE TABLE "no Events" (LIKE timed);
SELECT results_eq($$SELECT * FROM cqrs_es.import_events('"no Events"')$$, $$VALUES (0::bigint, 0::bigint, 0::bigint, NULL::bigint)$$, 'an empty source, with a name that needs quotes');
SELECT is(pg_temp.state_of('SELECT cqrs_es.import_events(NULL)'), '22004', 'none at all');

-- what is no history
CREATE FUNCTION pg_temp.import(rows text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	said text[];
BEGIN
	EXECUTE 'CREATE TABLE import.bad AS ' || rows;
	said := pg_temp.error_of($q$SELECT cqrs_es.import_events('import.bad')$q$, '{state,message}');
	DROP TABLE import.bad;
	RETURN said;
END $$;
SELECT is(pg_temp.import(rows), ARRAY[state, message], message) FROM (VALUES
	($$SELECT 'bad' AS aggregate_type, 'a' AS aggregate_id, 1 AS sequence, 'e' AS event_type, '{}'::jsonb AS payload, 1 AS eventid$$, '42703', 'column "eventid" of "bad" is none of an event'),
	($$SELECT 'bad' AS aggregate_type, 1 AS sequence, 'e' AS event_type, '{}'::jsonb AS payload$$, '42703', '"bad" has no column "aggregate_id"'),
	($$SELECT 'bad' AS aggregate_type, 'a' AS aggregate_id, 'e' AS event_type, '{}'::jsonb AS payload$$, '42703', '"bad" has neither a column "sequence" nor "position"'),
	($$SELECT 'bad' AS aggregate_type, 'a' AS aggregate_id, 7 AS sequence, 'e' AS event_type, '{}'::jsonb AS payload FROM generate_series(1, 2)$$, '22023', 'event 2 of stream "bad/a" has the same place as the one before it'),
	($$SELECT 'bad' AS aggregate_type, 'a' AS aggregate_id, 7 AS "position", 'e' AS event_type, '{}'::jsonb AS payload FROM generate_series(1, 2)$$, '22023', 'event 2 of stream "bad/a" has the same place as the one before it'),
	($$SELECT 'bad' AS aggregate_type, 'a' AS aggregate_id, n AS sequence, -n AS "position", 'e' AS event_type, '{}'::jsonb AS payload FROM generate_series(1, 2) AS n$$, '22023', 'event 2 of stream "bad/a" has no greater position than those before it'),
	($$SELECT 'bad' AS aggregate_type, 'a' AS aggregate_id, NULL::int AS sequence, 'e' AS event_type, '{}'::jsonb AS payload$$, '22004', 'event 1 of stream "bad/a" does not say where in the stream it stands'),
	($$SELECT 'bad' AS aggregate_type, 'a' AS aggregate_id, 1 AS sequence, 'e' AS event_type, '{}'::jsonb AS payload, '[]'::jsonb AS metadata$$, '22023', 'metadata must be a JSON object'),
	($$SELECT 'bad' AS aggregate_type, 'a' AS aggregate_id, 1 AS sequence, 'e' AS event_type, '{'::text AS payload$$, '22P02', 'invalid input syntax for type json'),
	($$SELECT 'bad' AS aggregate_type, '' AS aggregate_id, 1 AS sequence, 'e' AS event_type, '{}'::jsonb AS payload$$, '22023', 'aggregate_id must not be empty')
	) AS v (rows, state, message);
SELECT is((pg_temp.import($$SELECT 'bad' AS aggregate_type, 'a' AS aggregate_id, 1 AS sequence, 'e' AS event_type, NULL::jsonb AS payload$$))[1], '23502', 'no payload');
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'bad'), 0::bigint, 'nothing of that came in');
CREATE TABLE of_old (aggregate_type text, gone int, aggregate_id text, "position" int, event_type text, payload int);
ALTER TABLE of_old DROP COLUMN gone;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.import_events('of_old')$$))[1:2], ARRAY['42804', 'column "payload" of "of_old" is of type integer, which cannot be cast to jsonb'], 'a type that is none of an event');
ALTER TABLE of_old ALTER COLUMN payload TYPE jsonb USING to_jsonb(payload);
INSERT INTO of_old VALUES ('of_old', 'a', 1, 'e', '{}');
SELECT is((SELECT imported FROM cqrs_es.import_events('of_old')), 1::bigint, 'a column that was dropped is none');
CREATE SEQUENCE a_sequence;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.import_events('a_sequence')$$))[1:2], ARRAY['42809', '"a_sequence" is not a table or view'], 'a sequence is no source');

-- what is declared follows, once
CREATE TABLE counted (id text PRIMARY KEY, n int);
SELECT cqrs_es.create_projection('counted', aggregate_types => '{declared}', read_models => '{counted}') IS NULL AS x \gset
SELECT cqrs_es.define_handler('counted', 'e', $$INSERT INTO counted VALUES (event.aggregate_id, 1) ON CONFLICT (id) DO UPDATE SET n = counted.n + 1$$) IS NULL AS x \gset
SELECT cqrs_es.create_aggregate('declared', snapshot_every => 2) IS NULL AS x \gset
CREATE VIEW declared AS SELECT 'declared' AS aggregate_type, aggregate_id, "position", event_type, payload FROM by_hand;
SELECT is((SELECT imported FROM cqrs_es.import_events('declared')), 6::bigint, 'an import beside a projection');
SELECT is((SELECT imported FROM cqrs_es.import_events('declared')), 0::bigint, 'twice');
SELECT results_eq('SELECT * FROM counted ORDER BY id', $$VALUES ('0', 3), ('1', 3)$$, 'each event was handled once');
SELECT is((SELECT count(*) FROM cqrs_es.snapshots WHERE aggregate_type = 'declared'), 2::bigint, 'and snapshots taken');

-- who may
CREATE ROLE cqrs_es_import;
GRANT USAGE ON SCHEMA cqrs_es, import TO cqrs_es_import;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_import;
GRANT SELECT ON by_hand TO cqrs_es_import;
SELECT is((pg_temp.error_of($$SET LOCAL ROLE cqrs_es_import; SELECT cqrs_es.import_events('by_hand')$$))[1], '42501', 'a writer may not import');
GRANT EXECUTE ON FUNCTION cqrs_es.import_events TO cqrs_es_import;
SELECT is((pg_temp.error_of($$SET LOCAL ROLE cqrs_es_import; SELECT cqrs_es.import_events('by_hand')$$)), NULL, 'who was granted it may');
RESET ROLE;
SELECT is((pg_temp.error_of($$SET LOCAL ROLE cqrs_es_import; SELECT cqrs_es.import_events('timed')$$))[1], '42501', 'what the role may read');
RESET ROLE;

-- the log in the end is compared: a trigger that changes events is found out
CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.payload := '"changed"'; RETURN new; END $$;
CREATE TRIGGER change BEFORE INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION change();
CREATE VIEW changed AS SELECT 'changed' AS aggregate_type, aggregate_id, "position", event_type, payload FROM by_hand;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.import_events('changed')$$))[1:3], ARRAY['55000', 'the log is not what the source says',
	'Events of the source that are missing or differ: 6; that are out of order: 0; in stream "changed/0" for instance.'], 'what is not in the log as it should be undoes it all');
DROP TRIGGER change ON cqrs_es.events;
ROLLBACK;
