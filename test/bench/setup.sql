-- The two tables, alike in columns, indexes and content, the role that writes,
-- and the parameters of the statements that write a batch.

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

CREATE ROLE bench_writer LOGIN;
GRANT USAGE ON SCHEMA cqrs_es, bench TO bench_writer;
GRANT SELECT, INSERT ON cqrs_es.events, bench.events TO bench_writer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA bench TO bench_writer;
GRANT pg_read_server_files TO bench_writer;

-- A batch as append_events takes it, and the same as an array of payloads.
CREATE TABLE bench.batch AS
	SELECT jsonb_agg(jsonb_build_object('type', 'Deposited', 'payload', :'payload'::jsonb))::text AS events,
		array_agg(:'payload'::text)::text AS payloads
	FROM generate_series(1, :batch);
GRANT SELECT ON bench.batch TO bench_writer;

-- 10,000 streams of five events, written stream by stream, to both.
DO $$
BEGIN
	FOR stream IN 1 .. 10000 LOOP
		PERFORM cqrs_es.append_events('account', stream::text,
			(SELECT jsonb_path_query_array(events::jsonb, '$[0 to 4]') FROM bench.batch));
	END LOOP;
END
$$;
INSERT INTO bench.events SELECT * FROM cqrs_es.events ORDER BY global_position;
SELECT setval('bench.position', max(global_position)) FROM bench.events \g /dev/null

VACUUM ANALYZE cqrs_es.events;
VACUUM ANALYZE bench.events;
