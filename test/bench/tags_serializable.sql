-- The same with SERIALIZABLE, tried again on 40001 (pgbench --max-tries).
\set i :i + 1
\set n :i / 20
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT count(*), max(e.global_position) FROM bench.event_tags AS t JOIN bench.events AS e USING (global_position)
	WHERE t.tag = 'course-' || :base::text || '-' || :client_id::text || '-' || :n::text AND t.tenant_id = '' AND (e.payload->>'course') IS NOT NULL;
WITH e AS (
	INSERT INTO bench.events (aggregate_type, aggregate_id, event_type, payload)
	VALUES ('enrolment', :base::text || '-' || :client_id::text || '-' || :i::text, 'Enrolled',
		:payload::jsonb || jsonb_build_object('course', :base::text || '-' || :client_id::text || '-' || :n::text, 'student', 's' || :client_id::text || '-' || :i::text))
	RETURNING global_position)
INSERT INTO bench.event_tags (tag, global_position, event_type)
	SELECT tag, global_position, 'Enrolled' FROM e, (VALUES ('course-' || :base::text || '-' || :client_id::text || '-' || :n::text), ('student-s' || :client_id::text || '-' || :i::text)) AS t (tag);
COMMIT;
