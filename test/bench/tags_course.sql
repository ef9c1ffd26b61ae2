-- Eight students into one course: each asks for what is of the course and the student.
\set i :i + 1
SELECT coalesce(max(global_position), 0) AS after
	FROM cqrs_es.read_matching(jsonb_build_array(jsonb_build_object('tags', jsonb_build_array('course-' || :one::text, 'student-s' || :base::text || '-' || :client_id::text || '-' || :i::text)))) \gset
SELECT * FROM cqrs_es.append_to_streams(
	jsonb_build_array(jsonb_build_object('type', 'Enrolled', 'payload', :payload::jsonb || jsonb_build_object('course', :one::text, 'student', 's' || :base::text || '-' || :client_id::text || '-' || :i::text))),
	fail_if_events_match => jsonb_build_array(jsonb_build_object('tags', jsonb_build_array('course-' || :one::text, 'student-s' || :base::text || '-' || :client_id::text || '-' || :i::text))),
	after_position => :after);
