\i test/include/setup.sql
BEGIN;
SELECT plan(49);
-- Queries and conditions as whoever comes from another store with tags knows them: what
-- matches, in which order, and which conditions hold. Students and courses; each event
-- has a number, by which it is named here.

SELECT count(cqrs_es.define_tags(type)) FROM unnest('{Defined,Enrolled,Left,Renamed}'::text[]) AS type \g /dev/null

-- Append an event with these tags, under a condition if there is one; what was said: its
-- number, or the SQLSTATE.
CREATE SEQUENCE pg_temp.number;
CREATE FUNCTION pg_temp.append(type text, tags text[] DEFAULT NULL, query jsonb DEFAULT NULL, after bigint DEFAULT 0) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	n bigint := nextval('pg_temp.number');
BEGIN
	PERFORM FROM cqrs_es.append_to_streams(jsonb_build_array(jsonb_build_object('type', type, 'payload', jsonb_build_object('n', n)) ||
		CASE WHEN tags IS NULL THEN '{}' ELSE jsonb_build_object('tags', to_jsonb(tags)) END), fail_if_events_match => query, after_position => after);
	RETURN n;
EXCEPTION WHEN OTHERS THEN
	PERFORM setval('pg_temp.number', n, false);
	RETURN SQLSTATE;
END $$;
CREATE FUNCTION pg_temp.read(query jsonb, after bigint DEFAULT 0, most int DEFAULT NULL, backward boolean DEFAULT false) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(payload->>'n', ' ' ORDER BY row), '')
	FROM (SELECT payload, row_number() OVER () AS row FROM cqrs_es.read_matching(query, after_position => after, max_count => most, backward => backward)) AS r $$;
-- The position of the event with a number.
CREATE FUNCTION pg_temp.at(n int) RETURNS bigint LANGUAGE sql AS $$
	SELECT global_position FROM cqrs_es.events WHERE (payload->>'n')::int = at.n AND event_type IN ('Defined', 'Enrolled', 'Left', 'Renamed') $$;

-- an empty log
SELECT is(pg_temp.read('[{"tags": ["course:1"]}]'), '', 'nothing matches where nothing is');
SELECT is(pg_temp.append('Defined', '{course:1}', '[{"tags": ["course:1"]}]'), '1', 'a condition holds where nothing is');
SELECT is(pg_temp.append('Defined', '{course:1}', '[{"tags": ["course:1"]}]'), 'QE005', 'and no more behind that');
SELECT is(pg_temp.append('Defined', '{course:2}', '[{"tags": ["course:2"]}]'), '2', 'another course is none of its business');
SELECT is(pg_temp.append('Enrolled', '{course:1,student:1}'), '3', 'no condition, no question');
SELECT is(pg_temp.append('Enrolled', '{course:2,student:1}'), '4', 'nor here');
SELECT is(pg_temp.append('Enrolled', '{course:1,student:2,late}'), '5', 'more tags than anybody asks for');
SELECT is(pg_temp.append('Left', '{student:1,course:1}'), '6', 'tags in another order');
SELECT is(pg_temp.append('Renamed'), '7', 'an event without tags');
SELECT is(pg_temp.append('Defined', '{course:10}'), '8', 'a tag that begins like another');

-- what matches
SELECT is(pg_temp.read('[{}]'), '1 2 3 4 5 6 7 8', 'everything');
SELECT is(pg_temp.read('[{"tags": ["course:1"]}]'), '1 3 5 6', 'a tag');
SELECT is(pg_temp.read('[{"tags": ["course:1", "student:1"]}]'), '3 6', 'two tags: both');
SELECT is(pg_temp.read('[{"tags": ["student:1", "course:1"]}]'), '3 6', 'in whatever order');
SELECT is(pg_temp.read('[{"tags": ["course:1", "course:1"]}]'), '1 3 5 6', 'the same twice');
SELECT is(pg_temp.read('[{"tags": ["course:1", "student:3"]}]'), '', 'one that nobody has');
SELECT is(pg_temp.read('[{"tags": ["Course:1"]}]'), '', 'upper and lower case differ');
SELECT is(pg_temp.read('[{"types": ["Enrolled"]}]'), '3 4 5', 'a type');
SELECT is(pg_temp.read('[{"types": ["Left", "Renamed"]}]'), '6 7', 'two types: either');
SELECT is(pg_temp.read('[{"types": ["Enrolled", "Defined"], "tags": ["course:2"]}]'), '2 4', 'types and a tag: both');
SELECT is(pg_temp.read('[{"types": ["Left"], "tags": ["course:2"]}]'), '', 'no event of both');
SELECT is(pg_temp.read('[{"types": ["Left"]}, {"tags": ["course:2"]}]'), '2 4 6', 'two items: either, in the order of the log');
SELECT is(pg_temp.read('[{"tags": ["course:2"]}, {"types": ["Left"]}]'), '2 4 6', 'in whatever order');
SELECT is(pg_temp.read('[{"tags": ["course:1"]}, {"tags": ["student:1"]}]'), '1 3 4 5 6', 'what matches two items is there once');
SELECT is(pg_temp.read('[{"tags": ["course:1"]}, {}]'), '1 2 3 4 5 6 7 8', 'one of the items is everything');
SELECT is(pg_temp.read('{"items": [{"tags": ["course:2"]}]}'), '2 4', 'the items as a member');

-- how much of it
SELECT is(pg_temp.read('[{"tags": ["course:1"]}]', after => pg_temp.at(3)), '5 6', 'behind a position');
SELECT is(pg_temp.read('[{"tags": ["course:1"]}]', after => pg_temp.at(2)), '3 5 6', 'that is of another event');
SELECT is(pg_temp.read('[{"tags": ["course:1"]}]', after => pg_temp.at(6)), '', 'behind the last');
SELECT is(pg_temp.read('[{"tags": ["course:1"]}]', most => 2), '1 3', 'the first two');
SELECT is(pg_temp.read('[{"tags": ["course:1"]}]', backward => true), '6 5 3 1', 'backward');
SELECT is(pg_temp.read('[{"tags": ["course:1"]}, {"types": ["Renamed"]}]', most => 2, backward => true), '7 6', 'the last two');
SELECT is((SELECT tags FROM cqrs_es.read_matching('[{"tags": ["late"]}]')), '{course:1,late,student:2}', 'all tags are told');

-- conditions
SELECT is(pg_temp.append('Enrolled', '{course:1,student:3}', '[{"tags": ["course:1"]}]', pg_temp.at(5)), 'QE005', 'something came in between');
SELECT is(pg_temp.append('Enrolled', '{course:1,student:3}', '[{"tags": ["course:1"]}]', pg_temp.at(6)), '9', 'nothing did');
SELECT is(pg_temp.append('Enrolled', '{course:2,student:3}', '[{"tags": ["course:2"]}]', pg_temp.at(4)), '10', 'what did was of another course');
SELECT is(pg_temp.append('Enrolled', '{course:2,student:4}', '[{"types": ["Left"], "tags": ["course:2"]}]', pg_temp.at(4)), '11', 'or of another type');
SELECT is(pg_temp.append('Enrolled', '{course:2,student:5}', '[{"types": ["Left"]}, {"tags": ["student:4"]}]', pg_temp.at(10)), 'QE005', 'one of the items is enough');
SELECT is(pg_temp.append('Enrolled', '{course:2,student:5}', '[{"types": ["Left"]}, {"tags": ["student:5"]}]', pg_temp.at(6)), '12', 'neither of them');
SELECT is(pg_temp.append('Enrolled', '{student:6}', '[{"tags": ["course:2"]}]', pg_temp.at(12)), '13', 'what is appended need not match');
SELECT is(pg_temp.append('Enrolled', '{student:6}', '[{"types": ["Enrolled"]}]', pg_temp.at(12)), 'QE005', 'by its type, without a tag');
SELECT is(pg_temp.read('[{"tags": ["student:3"]}]'), '9 10', 'what failed has left nothing');

-- all or nothing, and the events of a call do not stand in its own way
SELECT lives_ok($$SELECT cqrs_es.append_to_streams('[{"type": "Enrolled", "payload": {"n": 14}, "tags": ["course:3"]}, {"type": "Enrolled", "payload": {"n": 15}, "tags": ["course:3"]}]',
	fail_if_events_match => '[{"tags": ["course:3"]}]')$$, 'two events that match the condition of their own call');
SELECT is(pg_temp.read('[{"tags": ["course:3"]}]'), '14 15', 'are in the log, in their order');
SELECT throws_ok($$SELECT cqrs_es.append_to_streams('[{"type": "Enrolled", "payload": {"n": 16}, "tags": ["course:4"]}, {"type": "Enrolled", "payload": {"n": 17}, "tags": ["course:4"]}]',
	fail_if_events_match => '[{"tags": ["course:3"]}]')$$, 'QE005', NULL, 'two events under a condition that does not hold');
SELECT is(pg_temp.read('[{"tags": ["course:4"]}]'), '', 'neither of them is there');

-- sent again, with the id that it had
SELECT lives_ok($$SELECT cqrs_es.append_to_streams('[{"type": "Enrolled", "id": "00000000-0000-4000-8000-000000000001", "payload": {"n": 18}, "tags": ["course:5"]}]',
	fail_if_events_match => '[{"tags": ["course:5"]}]')$$, 'an event with an id');
SELECT lives_ok($$SELECT cqrs_es.append_to_streams('[{"type": "Enrolled", "id": "00000000-0000-4000-8000-000000000001", "payload": {"n": 18}, "tags": ["course:5"]}]',
	fail_if_events_match => '[{"tags": ["course:5"]}]')$$, 'the same again: the answer that it had');
-- whoever has read it meanwhile, and sends it with its own position, is told so, or not; it is there once
DO $$
BEGIN
	PERFORM cqrs_es.append_to_streams('[{"type": "Enrolled", "id": "00000000-0000-4000-8000-000000000001", "payload": {"n": 18}, "tags": ["course:5"]}]',
		fail_if_events_match => '[{"tags": ["course:5"]}]', after_position => pg_temp.at(18));
EXCEPTION WHEN SQLSTATE 'QE001' OR SQLSTATE 'QE002' THEN
	NULL;
END $$;
SELECT is(pg_temp.read('[{"tags": ["course:5"]}]'), '18', 'is there once, whatever position comes with it');
SELECT finish();
ROLLBACK;
