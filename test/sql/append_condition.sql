\i test/include/setup.sql
-- Append conditions in one session: what fails, with which fields, and what it does to everything else. Beside others: condition_race.

BEGIN READ ONLY;
SELECT pg_temp.state_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', '[{}]')$$) AS ro1 \gset
ROLLBACK;
-- everything: in a transaction of its own
BEGIN;
SELECT pg_temp.state_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', '[{}]', (SELECT coalesce(max(global_position), 0) FROM cqrs_es.events))$$) AS every1,
	pg_temp.state_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', '[{}]', (SELECT coalesce(max(global_position), 0) FROM cqrs_es.events))$$) AS every2 \gset
ROLLBACK;
BEGIN;
SELECT coalesce(max(global_position), 0) AS here FROM cqrs_es.events \gset
SELECT pg_temp.state_of($$SELECT cqrs_es.append_event('c', '1', 'e', '{}')$$) AS every3 \gset
SELECT array_to_string(pg_temp.error_of(format($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', '[{}]', %s)$$, :here), '{state,message}'), ' ') AS every4 \gset
ROLLBACK;

BEGIN;
SELECT plan(88);

CREATE FUNCTION pg_temp.here() RETURNS bigint LANGUAGE sql AS 'SELECT coalesce(max(global_position), 0) FROM cqrs_es.events';
CREATE FUNCTION pg_temp.try(query jsonb, after bigint DEFAULT 0, events jsonb DEFAULT '[{"type": "e"}]') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	position text;
BEGIN
	PERFORM FROM cqrs_es.append_to_streams(events, query, after);
	RETURN 'appended';
EXCEPTION WHEN SQLSTATE 'QE005' THEN
	GET STACKED DIAGNOSTICS position = PG_DATATYPE_NAME;
	RETURN 'failed at ' || (SELECT payload ->> 'n' FROM cqrs_es.events WHERE global_position = position::bigint);
END $$;

SELECT is(:'ro1'::text, '25006', 'none in a read-only transaction');
SELECT is(:'every1'::text, 'none', 'a condition on everything');
SELECT is(:'every2'::text, '55000', 'once in a transaction');
SELECT is(:'every3'::text, 'none', 'who has appended ...');
SELECT is(:'every4'::text, '55000 a condition on every event must come before anything is appended', '... must not ask about everything any more');

SELECT cqrs_es.define_tags('Known') IS NULL AS x \gset
SELECT cqrs_es.define_tags('Other') IS NULL AS x \gset
SELECT max(global_position) AS second, min(global_position) AS first FROM cqrs_es.append_to_streams('[
	{"aggregate_type": "c", "aggregate_id": "1", "type": "Known", "payload": {"n": 1}, "tags": ["x", "y"]},
	{"aggregate_type": "c", "aggregate_id": "2", "type": "Other", "payload": {"n": 2}, "tags": ["y", "z"]}]') \gset

-- what fails

SELECT is(pg_temp.try(query::jsonb, CASE after WHEN 1 THEN :first WHEN 2 THEN :second ELSE 0 END), outcome, query || ' after ' || after) FROM (VALUES
	('[{"tags": ["x"]}]', 0, 'failed at 1'), ('[{"tags": ["x"]}]', 1, 'appended'),
	('[{"tags": ["y"]}]', 0, 'failed at 1'), ('[{"tags": ["y"]}]', 1, 'failed at 2'), ('[{"tags": ["y"]}]', 2, 'appended'),
	('[{"tags": ["y", "z"]}]', 0, 'failed at 2'), ('[{"tags": ["y", "z"]}]', 2, 'appended'),
	('[{"tags": ["x", "z"]}]', 0, 'appended'),
	('[{"tags": ["y"], "types": ["Other"]}]', 0, 'failed at 2'), ('[{"tags": ["x"], "types": ["Other"]}]', 0, 'appended'),
	('[{"tags": ["z"]}, {"tags": ["x"]}]', 0, 'failed at 1'), ('[{"tags": ["z"]}, {"tags": ["x"]}]', 1, 'failed at 2'), ('[{"tags": ["z"]}, {"tags": ["x"]}]', 2, 'appended'),
	('[{"tags": ["nowhere"]}]', 0, 'appended'),
	('[{"types": ["Known"]}]', 1, 'appended'), ('[{"types": ["Other"]}]', 1, 'failed at 2'), ('[{"types": ["Known", "Other"]}]', 1, 'failed at 2'),
	('{"items": [{"tags": ["x"]}]}', 0, 'failed at 1')) AS q (query, after, outcome);
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', '[{"tags": ["z"]}]', 0)$$, '{state,message,hint,schema,table,column,datatype}'),
	ARRAY['QE005', 'append condition failed: an event that matches is in the log',
	'Read again, decide again, and append with the position of the last event read.', 'c', '2', 'Other', :second::text], 'stream, type and position of the first that matches are fields');
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', '[{"tags": ["z"]}]', 0)$$, '{detail}'))[1],
	format('Event "Other" of stream "c/2" is at position %s, after position 0.', :second), 'and stand in the detail');
SELECT pg_temp.here() AS here \gset
SELECT is(pg_temp.try('[{"tags": ["x"]}]', 0, '[{"aggregate_type": "c", "aggregate_id": "1", "type": "e"}, {"type": "e"}]'), 'failed at 1', 'several streams');
SELECT is(pg_temp.here(), :here::bigint, 'and nothing was written');
SELECT is(pg_temp.try('[{"tags": ["x"]}]', :second, '[{"aggregate_type": "c", "aggregate_id": "1", "type": "e", "expected_version": 1, "tags": ["x"], "payload": {"n": 3}}]'), 'appended',
	'a condition beside an expected version');
SELECT is(pg_temp.state_of(format($$SELECT cqrs_es.append_to_streams('[{"aggregate_type": "c", "aggregate_id": "1", "type": "e", "expected_version": 1}]', '[{"tags": ["z"]}]', %s)$$, :second)),
	'QE001', 'which fails as ever');

-- after one's own append

SELECT is(pg_temp.try('[{"tags": ["x"]}]', :second), 'failed at 3', 'after one''s own append the old position fails');
SELECT is(pg_temp.try('[{"tags": ["x"]}]', (SELECT global_position FROM cqrs_es.append_to_streams('[{"type": "e", "tags": ["x"]}]', '[{"tags": ["x"]}]',
	(SELECT max(global_position) FROM cqrs_es.read_matching('[{"tags": ["x"]}]'))))), 'appended', 'that which an append under the same condition returned does not');
SELECT is(pg_temp.try('[{"tags": ["x"]}]', (SELECT max(global_position) FROM cqrs_es.read_matching('[{"tags": ["x"]}]')), '[{"type": "e", "tags": ["x"], "payload": {"n": 4}}]'),
	'appended', 'nor that which was read since');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('c', 'plain', 'Known', '{"n": 5}');
SELECT is(pg_temp.try('[{"types": ["Known"]}]', :second), 'failed at 5', 'a plain INSERT counts');

-- sent again

CREATE FUNCTION pg_temp.again(after bigint, payload text DEFAULT '1') RETURNS bigint LANGUAGE sql AS $$
	SELECT max(global_position) FROM cqrs_es.append_to_streams(format('[{"type": "e", "id": "00000000-0000-7000-8000-00000000000a", "payload": %s, "tags": ["again"]},
		{"aggregate_type": "c", "aggregate_id": "1", "type": "e", "id": "00000000-0000-7000-8000-00000000000b"}]', payload)::jsonb, '[{"tags": ["again"]}]', after)
$$;
SELECT pg_temp.here() AS here \gset
SELECT pg_temp.again(:here) AS sent \gset
SELECT is(pg_temp.again(:here), :sent::bigint, 'an append that is sent again gets the first answer, and not that its condition failed');
SELECT is(count(*), 1::bigint, 'and writes nothing') FROM cqrs_es.read_matching('[{"tags": ["again"]}]');
SELECT is(pg_temp.state_of(format('SELECT pg_temp.again(%s, %L)', :here, '2')), 'QE002', 'with another content it is another append');
SELECT is(pg_temp.state_of(format($$SELECT cqrs_es.append_to_streams('[{"type": "e", "id": "00000000-0000-7000-8000-00000000000c"}]', '[{"tags": ["again"]}]', %s)$$, :here)), 'QE005', 'with another id it fails');
SELECT is(pg_temp.state_of(format($$SELECT cqrs_es.append_to_streams('[{"type": "e", "id": "00000000-0000-7000-8000-00000000000a", "payload": 1}, {"type": "e"}]', '[{"tags": ["again"]}]', %s)$$, :here)),
	'QE005', 'with an event that has no id, too');

-- sent again by who has read again, and knows its own events by now

CREATE FUNCTION pg_temp.anew(key text, expected text, after bigint, condition boolean) RETURNS bigint LANGUAGE sql AS $$
	SELECT max(global_position) FROM cqrs_es.append_to_streams(format('[{"aggregate_type": "anew", "aggregate_id": "%1$s", "type": "e", "expected_version": %2$s, "tags": ["anew"],
		"id": "%3$s"}, {"aggregate_type": "anew", "aggregate_id": "%1$s", "type": "e", "id": "%4$s"}%5$s]', key, expected, cqrs_es.id_from_text(key || 1), cqrs_es.id_from_text(key || 2),
		CASE WHEN key <> 'named' THEN format(', {"type": "e", "id": "%s"}', cqrs_es.id_from_text(key || 3)) END)::jsonb, CASE WHEN condition THEN '[{"tags": ["anew"]}]'::jsonb END, after)
$$;
SELECT pg_temp.here() AS here \gset
SELECT pg_temp.anew('any', 'null', :here, true) AS any_position \gset
SELECT pg_temp.anew('exact', '0', :any_position, true) AS exact_position \gset
SELECT pg_temp.anew('named', 'null', :exact_position, true) AS named_position \gset
SELECT count(cqrs_es.append_event('anew', key, 'Later', '{}')) AS x FROM unnest('{any,exact,named}'::text[]) AS key \gset
SELECT pg_temp.here() AS here \gset
SELECT is(pg_temp.anew(key, expected, CASE after WHEN 'own' THEN position WHEN 'later' THEN :here ELSE 0 END, condition), position::bigint,
	format('an append that is sent again gets the first answer: %s, expected %s, after %s', key, expected, after || CASE WHEN condition THEN ', with a condition' ELSE '' END))
FROM (VALUES ('any', :any_position), ('exact', :exact_position), ('named', :named_position)) AS k (key, position), (VALUES ('any', 'null'), ('any', '3'), ('any', '-1'), ('exact', '0'), ('exact', '3'), ('exact', 'null'), ('named', 'null'), ('named', '3')) AS e (of, expected),
	(VALUES ('nothing', true), ('own', true), ('later', true), ('later', false)) AS a (after, condition) WHERE of = key;
SELECT is(pg_temp.here(), :here::bigint, 'and nothing is written twice');
SELECT is(pg_temp.state_of(format($$SELECT cqrs_es.append_to_streams('[{"aggregate_type": "anew", "aggregate_id": "any", "type": "Else", "id": "%s"}]', '[{"tags": ["anew"]}]', %s)$$, cqrs_es.id_from_text('any1'), :here)),
	'QE002', 'with another content it is another append, wherever it was decided');

-- positions, and what else is bad

SELECT is(pg_temp.error_of(format('SELECT cqrs_es.append_to_streams(%L, %L, %s)', '[{"type": "e"}]', '[{"tags": ["x"]}]', position), '{state,message}'), ARRAY['22023', message], message)
FROM (VALUES (-1, 'position -1 is not one of this node'), (17592186044415, 'position 17592186044415 is ahead of the log'),
	(17592186044417, 'position 17592186044417 is not one of this node')) AS p (position, message);
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', '[{"tags": ["x"]}]', 17592186044415)$$, '{hint}'))[1],
	'Take the position of the last event that read_matching() returned, or that an append under the same condition returned.', 'what to take');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', '[{"tags": ["fresh"]}]', NULL)$$), 'none', 'NULL is 0');

-- rights, tenants

SET LOCAL cqrs_es.tenant_id = 'other';
SELECT is(pg_temp.try('[{"tags": ["x"]}, {"types": ["Known", "Other"]}]'), 'appended', 'another tenant''s events are nobody''s business');
RESET cqrs_es.tenant_id;
CREATE ROLE condition_writer;
CREATE ROLE condition_reader;
GRANT USAGE ON SCHEMA cqrs_es TO condition_writer, condition_reader;
GRANT INSERT, SELECT ON cqrs_es.events TO condition_writer;
GRANT SELECT ON cqrs_es.events TO condition_reader;
SELECT is(pg_temp.state_of(format('SELECT pg_temp.as_role(%L, %L)', role, $$SELECT * FROM cqrs_es.append_to_streams('[{"type": "e", "tags": ["x"]}]', '[{"tags": ["unseen"]}]')$$)), state, role)
FROM (VALUES ('condition_writer', 'none'), ('condition_reader', '42501')) AS r (role, state);
-- policies of users: nobody can append on condition that nothing came which he may not see. Nor can a reader of a part decide: what is shown is all he gets

CREATE POLICY no_others ON cqrs_es.events AS RESTRICTIVE TO condition_writer USING (event_type <> 'Other');
CREATE FUNCTION pg_temp.as_writer(call text) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL role = condition_writer;
	RETURN pg_temp.error_of(call, '{state,message,detail}');
END $$;
SELECT pg_temp.here() AS here \gset
SELECT is(pg_temp.as_writer(format($$SELECT * FROM cqrs_es.append_to_streams('[{"type": "e", "id": "00000000-0000-7000-8000-00000000000d"}]', %L)$$, query)),
	ARRAY['42501', 'row security of table "events" may hide events that match the condition', 'A condition is on all events that match.'], 'where policies of users may hide events, no condition: ' || query)
FROM (VALUES (1, '[{"tags": ["z"]}]'), (2, '[{"tags": ["y"]}]'), (3, '[{"types": ["Known"]}]'), (4, '[{"tags": ["unseen"]}]')) AS q (n, query) ORDER BY n;
RESET role;
SELECT is(pg_temp.here(), :here::bigint, 'and nothing was written');
SET LOCAL role = condition_writer;
SELECT count(*) AS seen FROM cqrs_es.read_matching('[{"tags": ["y"]}]') \gset
SELECT pg_temp.state_of($$SELECT * FROM cqrs_es.append_to_streams('[{"type": "e"}, {"type": "e", "tags": ["y"]}]')$$) AS plain \gset
RESET role;
SELECT is(:'seen'::int, 1, 'read_matching shows what the policies show');
SELECT is(:'plain'::text, 'none', 'without a condition it may append');
ALTER ROLE condition_writer BYPASSRLS;
SELECT is((pg_temp.as_writer($$SELECT * FROM cqrs_es.append_to_streams('[{"type": "e"}]', '[{"tags": ["z"]}]')$$))[1], 'QE005', 'who is above the policies may set conditions');
RESET role;

SELECT * FROM finish();
ROLLBACK;
