-- (A colon before a letter would be a variable of pgbench, so these tags have none.)
-- For the bench of tags: the log with the two tags of each enrolment, the same in bare
-- tables, boundaries of ten events in both, and the role that writes.

CREATE EXTENSION cqrs_es;
CREATE SCHEMA bench;

SELECT cqrs_es.define_tags('Enrolled', 'course-{/course}', 'student-{/student}') \g /dev/null

CREATE SEQUENCE bench.position CACHE 1;
CREATE TABLE bench.events (LIKE cqrs_es.events);
ALTER TABLE bench.events
	ALTER global_position SET DEFAULT nextval('bench.position'),
	ALTER tenant_id SET DEFAULT '',
	ALTER sequence SET DEFAULT 1,
	ALTER event_version SET DEFAULT '1',
	ALTER metadata SET DEFAULT '{}',
	ALTER event_id SET DEFAULT gen_random_uuid(),
	ALTER created_at SET DEFAULT clock_timestamp(),
	ADD PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence);
CREATE INDEX ON bench.events (global_position);
-- with the indexes of event_tags
CREATE TABLE bench.event_tags (LIKE cqrs_es.event_tags INCLUDING INDEXES);
ALTER TABLE bench.event_tags ALTER tenant_id SET DEFAULT '';

CREATE ROLE bench_writer LOGIN;
GRANT USAGE ON SCHEMA cqrs_es, bench TO bench_writer;
GRANT SELECT, INSERT ON cqrs_es.events TO bench_writer;
-- LOCK TABLE ... IN EXCLUSIVE MODE asks for more than INSERT
GRANT SELECT, INSERT, UPDATE ON bench.events, bench.event_tags TO bench_writer;
GRANT USAGE ON SEQUENCE bench.position TO bench_writer;

-- What an aggregate of its own costs nobody: each event is a stream. Courses c1 .. cN have ten
-- events, written course by course a thousand at a time.
CREATE TABLE bench.payload AS SELECT :'payload'::jsonb AS payload;
CREATE PROCEDURE bench.fill(courses int) LANGUAGE plpgsql AS $$
BEGIN
	FOR start IN 1 .. courses BY 100 LOOP
		INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
			SELECT 'enrolment', gen_random_uuid(), 'Enrolled', payload || jsonb_build_object('course', 'c' || c, 'student', 'old' || c || '-' || s)
			FROM bench.payload, generate_series(start, start + 99) AS c, generate_series(1, 10) AS s;
		COMMIT;
	END LOOP;
END $$;
CALL bench.fill(:courses);

INSERT INTO bench.events SELECT * FROM cqrs_es.events ORDER BY global_position;
INSERT INTO bench.event_tags SELECT * FROM cqrs_es.event_tags ORDER BY global_position;
SELECT setval('bench.position', max(global_position)) FROM bench.events \g /dev/null

-- Read the last number, append the next one under the condition that nobody has; again
-- until that is so.
CREATE FUNCTION bench.next_number(query jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	last record;
BEGIN
	LOOP
		SELECT global_position, (payload->>'number')::bigint AS number INTO last FROM cqrs_es.read_matching(query, max_count => 1, backward => true);
		BEGIN
			PERFORM FROM cqrs_es.append_to_streams(
				jsonb_build_array(jsonb_build_object('type', 'InvoiceIssued', 'payload', jsonb_build_object('number', coalesce(last.number, 0) + 1))),
				fail_if_events_match => query, after_position => coalesce(last.global_position, 0));
			RETURN;
		EXCEPTION WHEN SQLSTATE 'QE005' THEN
			NULL;
		END;
	END LOOP;
END $$;
SELECT cqrs_es.define_tags('InvoiceIssued', 'invoices') \g /dev/null

VACUUM ANALYZE cqrs_es.events;
VACUUM ANALYZE cqrs_es.event_tags;
VACUUM ANALYZE bench.events;
VACUUM ANALYZE bench.event_tags;
