-- The two tables, alike in columns, indexes and content, the role that writes,
-- and the parameters of the statements that write a batch: of as many events as one of the
-- numbers in "batch". There are events of so many "streams".

CREATE EXTENSION cqrs_es;

CREATE SCHEMA bench;
CREATE SEQUENCE bench.position CACHE 1;
CREATE SEQUENCE bench.sequence CACHE 1 START 1000000;

-- LIKE takes the columns with their types and NOT NULL, and nothing else.
CREATE TABLE bench.events (LIKE cqrs_es.events);
ALTER TABLE bench.events
	ALTER global_position SET DEFAULT nextval('bench.position'),
	ALTER tenant_id SET DEFAULT '',
	ALTER sequence SET DEFAULT nextval('bench.sequence'),
	ALTER event_version SET DEFAULT '1',
	ALTER metadata SET DEFAULT '{}',
	ALTER event_id SET DEFAULT gen_random_uuid(),
	ALTER created_at SET DEFAULT clock_timestamp(),
	ADD PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence);
CREATE INDEX ON bench.events (global_position);

SELECT 'CREATE ROLE bench_writer LOGIN' WHERE to_regrole('bench_writer') IS NULL \gexec
GRANT USAGE ON SCHEMA cqrs_es, bench TO bench_writer;
GRANT SELECT, INSERT ON cqrs_es.events, bench.events TO bench_writer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA bench TO bench_writer;
SELECT 'GRANT pg_read_server_files TO bench_writer' WHERE NOT pg_has_role('bench_writer', 'pg_read_server_files', 'MEMBER') \gexec

-- A batch as append_events takes it, and the same as an array of payloads.
CREATE TABLE bench.batch AS
	SELECT n, jsonb_agg(jsonb_build_object('type', 'Deposited', 'payload', :'payload'::jsonb))::text AS events,
		array_agg(:'payload'::text)::text AS payloads
	FROM unnest(string_to_array(:'batch', ',')::int[]) AS n, generate_series(1, n) GROUP BY n;
GRANT SELECT ON bench.batch TO bench_writer;

-- Streams of five events, written stream by stream, to both.
SELECT cqrs_es.append_events('account', stream::text, five)
	FROM (SELECT jsonb_path_query_array(events::jsonb, '$[0 to 4]') AS five FROM bench.batch ORDER BY n DESC LIMIT 1) AS batch,
		generate_series(1, :streams) AS stream \g /dev/null
INSERT INTO bench.events SELECT * FROM cqrs_es.events ORDER BY global_position;
SELECT setval('bench.position', coalesce(max(global_position), 1)) FROM bench.events \g /dev/null

VACUUM ANALYZE cqrs_es.events;
VACUUM ANALYZE bench.events;
