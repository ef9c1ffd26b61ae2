\set course random(1, :courses)
\set i :i + 1
SELECT * FROM cqrs_es.append_event('enrolment', :base::text || '-' || :client_id::text || '-' || :i::text, 'Enrolled',
	jsonb_set(:payload::jsonb, '{course}', to_jsonb('c' || :course::text)) || jsonb_build_object('student', 's' || :client_id::text || '-' || :i::text));
