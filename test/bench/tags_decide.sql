-- Courses of its own for each client, so that no condition fails: twenty decisions each, which read
-- ten events on the average.
\set i :i + 1
\set n :i / 20
SELECT coalesce(max(global_position), 0) AS after FROM cqrs_es.read_matching(jsonb_build_array(jsonb_build_object('tags', jsonb_build_array('course-' || :base::text || '-' || :client_id::text || '-' || :n::text)))) \gset
SELECT * FROM cqrs_es.append_to_streams(
	jsonb_build_array(jsonb_build_object('type', 'Enrolled', 'payload', :payload::jsonb || jsonb_build_object('course', :base::text || '-' || :client_id::text || '-' || :n::text, 'student', 's' || :client_id::text || '-' || :i::text))),
	fail_if_events_match => jsonb_build_array(jsonb_build_object('tags', jsonb_build_array('course-' || :base::text || '-' || :client_id::text || '-' || :n::text))), after_position => :after);
