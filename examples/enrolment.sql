-- Courses with a limited number of places, and students who take ten at most: a decision
-- that concerns a course and a student at once.
--
--	psql -d an_empty_database -f examples/enrolment.sql
--
-- Commands DefineCourse{courseId, places}, Enrol{courseId, studentId}, Leave{courseId,
-- studentId}; events CourseDefined{courseId, places}, Enrolled and Left{courseId, studentId}.
-- Two streams could not decide it, a course and a student: each would have to wait for the
-- other. Here a boundary reads what concerns the two, of whatever streams.

-- What psql prints: commands, and of errors no context. Declarations return
-- nothing worth printing.
\set QUIET on
\set ECHO queries
\set SHOW_CONTEXT never
\set ON_ERROR_STOP on
\o /dev/null

\echo '\n*** 1. Which tags events have ***\n'

CREATE EXTENSION cqrs_es;

SELECT cqrs_es.define_tags('CourseDefined', 'course:{/courseId}');
SELECT cqrs_es.define_tags('Enrolled', 'course:{/courseId}', 'student:{/studentId}');
SELECT cqrs_es.define_tags('Left', 'course:{/courseId}', 'student:{/studentId}');

\echo '\n*** 2. What a decision is made on: the events of the course, and those of the student ***\n'

SELECT cqrs_es.create_boundary('enrolment', '[
    {"types": ["CourseDefined", "Enrolled", "Left"], "tags": ["course:{/courseId}"]},
    {"types": ["Enrolled", "Left"],                  "tags": ["student:{/studentId?}"]}]');

-- The state is about the course and the student of the command. Of other courses and
-- students it knows what they have to do with these.
SELECT cqrs_es.define_reducer('enrolment', 'CourseDefined', '[
    {"op": "set",       "path": "/courses/{/courseId}/places",              "from": "/places"}]');
SELECT cqrs_es.define_reducer('enrolment', 'Enrolled', '[
    {"op": "increment", "path": "/courses/{/courseId}/taken"},
    {"op": "set",       "path": "/students/{/studentId}/takes/{/courseId}", "value": true},
    {"op": "increment", "path": "/students/{/studentId}/courses"}]');
SELECT cqrs_es.define_reducer('enrolment', 'Left', '[
    {"op": "decrement", "path": "/courses/{/courseId}/taken"},
    {"op": "remove",    "path": "/students/{/studentId}/takes/{/courseId}"},
    {"op": "decrement", "path": "/students/{/studentId}/courses"}]');

\echo '\n*** 3. Commands ***\n'

CREATE FUNCTION define_course(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE
        WHEN (command @@ 'strict $.courseId > ""') IS NOT TRUE THEN
            cqrs_es.reject('Which course?', code => 'COURSE')
        WHEN (command @@ 'strict $.places > 0 && $.places.floor() == $.places') IS NOT TRUE THEN
            cqrs_es.reject('Places must be a whole number above 0', code => 'PLACES')
        WHEN state #> ARRAY['courses', command->>'courseId', 'places'] IS NOT NULL THEN
            cqrs_es.reject('There is such a course already', code => 'DEFINED')
        ELSE jsonb_build_object('type', 'CourseDefined', 'aggregate_type', 'course', 'aggregate_id', command->>'courseId',
            'payload', jsonb_build_object('courseId', command->'courseId', 'places', command->'places'))
    END
$$;
CREATE FUNCTION enrol(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE
        WHEN (command @@ 'strict $.courseId > "" && $.studentId > ""') IS NOT TRUE THEN
            cqrs_es.reject('Which course, which student?', code => 'WHO')
        WHEN course->'places' IS NULL THEN
            cqrs_es.reject('There is no such course', code => 'NOT_FOUND')
        WHEN student->'takes' ? (command->>'courseId') THEN
            cqrs_es.reject('The student takes this course already', code => 'ENROLLED')
        WHEN coalesce((course->>'taken')::numeric, 0) >= (course->>'places')::numeric THEN
            cqrs_es.reject('All places are taken', code => 'FULL')
        WHEN (student->>'courses')::numeric >= 10 THEN
            cqrs_es.reject('Ten courses are enough', code => 'TEN')
        ELSE jsonb_build_object('type', 'Enrolled',
            'payload', jsonb_build_object('courseId', command->'courseId', 'studentId', command->'studentId'))
    END
    FROM (SELECT state #> ARRAY['courses', command->>'courseId'], state #> ARRAY['students', command->>'studentId']) AS s (course, student)
$$;
CREATE FUNCTION leave(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE
        WHEN (command @@ 'strict $.courseId > "" && $.studentId > ""') IS NOT TRUE THEN
            cqrs_es.reject('Which course, which student?', code => 'WHO')
        WHEN (state #> ARRAY['students', command->>'studentId', 'takes'] ? (command->>'courseId')) IS NOT TRUE THEN
            cqrs_es.reject('The student does not take this course', code => 'NOT_ENROLLED')
        ELSE jsonb_build_object('type', 'Left',
            'payload', jsonb_build_object('courseId', command->'courseId', 'studentId', command->'studentId'))
    END
$$;
SELECT cqrs_es.define_command('enrolment', 'DefineCourse', 'define_course');
SELECT cqrs_es.define_command('enrolment', 'Enrol', 'enrol');
SELECT cqrs_es.define_command('enrolment', 'Leave', 'leave');

\echo '\n*** 4. A table to read ***\n'

CREATE TABLE participants (course text, student text, PRIMARY KEY (course, student));
SELECT cqrs_es.create_projection('participants', read_models => '{participants}');
SELECT cqrs_es.define_handler('participants', 'Enrolled', $$
    INSERT INTO participants VALUES (event.payload->>'courseId', event.payload->>'studentId')
$$);
SELECT cqrs_es.define_handler('participants', 'Left', $$
    DELETE FROM participants WHERE course = event.payload->>'courseId' AND student = event.payload->>'studentId'
$$);

\o
\echo '\n*** 5. Two places, three students ***\n'

SELECT state->'courses' AS courses FROM cqrs_es.execute_boundary('enrolment', 'DefineCourse', '{"courseId": "chess", "places": 2}');
SELECT state->'courses' AS courses FROM cqrs_es.execute_boundary('enrolment', 'Enrol', '{"courseId": "chess", "studentId": "ada"}');
SELECT state->'courses' AS courses FROM cqrs_es.execute_boundary('enrolment', 'Enrol', '{"courseId": "chess", "studentId": "grace"}');
\set ON_ERROR_STOP off
SELECT state->'courses' AS courses FROM cqrs_es.execute_boundary('enrolment', 'Enrol', '{"courseId": "chess", "studentId": "alan"}');
SELECT state->'courses' AS courses FROM cqrs_es.execute_boundary('enrolment', 'Enrol', '{"courseId": "go", "studentId": "alan"}');
\set ON_ERROR_STOP on

\echo '\n*** 6. One leaves, and who was refused gets the place; sent twice, it happens once ***\n'

SELECT state->'courses' AS courses FROM cqrs_es.execute_boundary('enrolment', 'Leave', '{"courseId": "chess", "studentId": "ada"}');
SELECT state->'courses' AS courses FROM cqrs_es.execute_boundary('enrolment', 'Enrol', '{"courseId": "chess", "studentId": "alan"}',
    command_id => '0192f0c1-2f7a-7cc0-8c3b-5d5f4e1a0001');
SELECT state->'courses' AS courses FROM cqrs_es.execute_boundary('enrolment', 'Enrol', '{"courseId": "chess", "studentId": "alan"}',
    command_id => '0192f0c1-2f7a-7cc0-8c3b-5d5f4e1a0001');
SELECT * FROM participants ORDER BY 1, 2;

\echo '\n*** 7. Ten courses are enough, whichever they are ***\n'

SELECT count(*) AS courses FROM generate_series(1, 10) AS n,
    cqrs_es.execute_boundary('enrolment', 'DefineCourse', jsonb_build_object('courseId', 'course ' || n, 'places', 30));
SELECT count(*) AS enrolled FROM generate_series(1, 9) AS n,
    cqrs_es.execute_boundary('enrolment', 'Enrol', jsonb_build_object('courseId', 'course ' || n, 'studentId', 'grace'));
\set ON_ERROR_STOP off
SELECT state->'courses' AS courses FROM cqrs_es.execute_boundary('enrolment', 'Enrol', '{"courseId": "course 10", "studentId": "grace"}');
\set ON_ERROR_STOP on

\echo '\n*** 8. What a decision was made on, then and now ***\n'

SELECT event_type, tags FROM cqrs_es.read_matching(cqrs_es.boundary_query('enrolment', '{"courseId": "chess", "studentId": "alan"}'));
SELECT cqrs_es.boundary_state('enrolment', '{"courseId": "chess"}', at_position => (
    SELECT min(global_position) FROM cqrs_es.events WHERE event_type = 'Left')) #> '{courses,chess}' AS chess_then,
    cqrs_es.boundary_state('enrolment', '{"courseId": "chess"}') #> '{courses,chess}' AS chess_now;
