-- The least: one statement, a row of the event and two of its tags.
\set course random(1, :courses)
\set i :i + 1
WITH e AS (
	INSERT INTO bench.events (aggregate_type, aggregate_id, event_type, payload)
	VALUES ('enrolment', :base::text || '-' || :client_id::text || '-' || :i::text, 'Enrolled',
		jsonb_set(:payload::jsonb, '{course}', to_jsonb('c' || :course::text)) || jsonb_build_object('student', 's' || :client_id::text || '-' || :i::text))
	RETURNING global_position)
INSERT INTO bench.event_tags (tag, global_position, event_type)
	SELECT tag, global_position, 'Enrolled' FROM e, (VALUES ('course-c' || :course::text), ('student-s' || :client_id::text || '-' || :i::text)) AS t (tag);
