\i test/include/setup.sql
-- Reading what concerns a decision, in one session: order, limits, upcasting, tenants, rights. What is one query and what none: tag_query.

BEGIN;
SELECT plan(42);

CREATE FUNCTION pg_temp.here() RETURNS bigint LANGUAGE sql AS 'SELECT coalesce(max(global_position), 0) FROM cqrs_es.events';
CREATE FUNCTION pg_temp.tag(VARIADIC tags text[]) RETURNS jsonb LANGUAGE sql RETURN jsonb_build_array(jsonb_build_object('tags', tags));
-- The numbers of the events that are read.
CREATE FUNCTION pg_temp.read(query jsonb, after bigint DEFAULT 0, count bigint DEFAULT NULL, backward boolean DEFAULT false) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(m.payload ->> 'n', ' ' ORDER BY m.ordinality), '') FROM cqrs_es.read_matching(query, after, count, backward) WITH ORDINALITY AS m
$$;

-- a hundred events; each has its number modulo 3 and 7 as tags
SELECT cqrs_es.define_tags('Odd', 'three:{/three}', 'seven:{/seven}') IS NULL AS x \gset
SELECT cqrs_es.define_tags('Even', 'three:{/three}', 'seven:{/seven}') IS NULL AS x \gset
SELECT pg_temp.here() AS here \gset
SELECT count(cqrs_es.append_event('n', (n % 10)::text, CASE n % 2 WHEN 1 THEN 'Odd' ELSE 'Even' END, jsonb_build_object('n', n, 'three', (n % 3)::text, 'seven', (n % 7)::text)))
FROM generate_series(1, 100) AS n \gset

SELECT is(pg_temp.read('[{"tags": ["seven:3"]}]'), '3 10 17 24 31 38 45 52 59 66 73 80 87 94', 'the events of a tag, by position');
SELECT is(pg_temp.read('[{"tags": ["three:1", "seven:3"]}]'), '10 31 52 73 94', 'of two tags');
SELECT is(pg_temp.read('[{"tags": ["three:1", "seven:3"], "types": ["Odd"]}]'), '31 73', 'and of a type');
SELECT is(pg_temp.read('[{"tags": ["three:1", "seven:3"]}, {"tags": ["three:0", "seven:5"], "types": ["Even"]}]'), '10 12 31 52 54 73 94 96', 'the items are merged');
SELECT is(pg_temp.read('[{"tags": ["seven:3"]}, {"tags": ["three:1", "seven:3"]}]'), pg_temp.read('[{"tags": ["seven:3"]}]'), 'an event comes once');
SELECT is(pg_temp.read('[{"tags": ["seven:3"]}]', count => 3), '3 10 17', 'the first');
SELECT is(pg_temp.read('[{"tags": ["seven:3"]}]', count => 0), '', 'none');
SELECT is(pg_temp.read('[{"tags": ["seven:3"]}]', backward => true), '94 87 80 73 66 59 52 45 38 31 24 17 10 3', 'backward');
SELECT is(pg_temp.read('[{"tags": ["seven:3"]}]', backward => true, count => 1), '94', 'only the last');
SELECT is(pg_temp.read('[{"tags": ["three:1", "seven:3"]}, {"tags": ["three:0", "seven:5"], "types": ["Even"]}]', backward => true, count => 4), '96 94 73 54', 'the last of several items');
SELECT global_position AS tenth FROM cqrs_es.events WHERE payload ->> 'n' = '10' AND aggregate_type = 'n' \gset
SELECT is(pg_temp.read('[{"tags": ["three:1", "seven:3"]}]', :tenth), '31 52 73 94', 'behind a position');
SELECT is(pg_temp.read('[{"tags": ["three:1", "seven:3"]}]', :tenth - 1), '10 31 52 73 94', 'just behind it');
SELECT is(pg_temp.read('[{"tags": ["three:1", "seven:3"]}]', :tenth, backward => true), '94 73 52 31', 'backward down to a position');
SELECT is(pg_temp.read('[{"tags": ["three:1", "seven:3"]}]', pg_temp.here()), '', 'behind the end');
SELECT is(pg_temp.read('[{"types": ["Odd"]}]', :tenth, 4), '11 13 15 17', 'by type alone');
SELECT is(pg_temp.read('[{"types": ["Odd"]}]', :tenth, 4, true), '99 97 95 93', 'backward');
SELECT is(pg_temp.read('[{"types": ["Odd"]}, {"tags": ["seven:0"]}]', :tenth, 5), '11 13 14 15 17', 'beside tags');
SELECT is(pg_temp.read('[{}]', :tenth, 3), '11 12 13', 'everything');
SELECT is(pg_temp.read('[{}]', 0, 2, true), '100 99', 'backward');
CREATE INDEX ON cqrs_es.events (tenant_id, event_type, global_position);
SELECT is(pg_temp.read('[{"types": ["Odd"]}, {"tags": ["seven:0"]}]', :tenth, 5), '11 13 14 15 17', 'by an index of the user''s');

-- what a row has

SELECT count(*) FROM cqrs_es.append_to_streams('[{"aggregate_type": "row", "aggregate_id": "1", "type": "Row", "payload": {"old": 1}, "metadata": {"m": 1}, "version": "1",
	"id": "00000000-0000-7000-8000-000000000001", "tags": ["z", "row", "a", "z"]}]') \gset
SELECT results_eq($$SELECT m.global_position, m.sequence, m.created_at, m.event_id, m.tenant_id::text, m.aggregate_type, m.aggregate_id, m.event_type, m.event_version, m.payload, m.metadata
	FROM cqrs_es.read_matching(pg_temp.tag('row')) AS m$$,
	$$SELECT s.* FROM cqrs_es.read_stream('row', '1') AS s$$, 'an event is that of read_stream');
SELECT is(tags, '{a,row,z}', 'with its tags, each once, in order') FROM cqrs_es.read_matching(pg_temp.tag('row'));
SELECT is(pg_temp.state_of('SELECT * FROM cqrs_es.read_matching(NULL)'), '22004', 'a query is needed');
CREATE FUNCTION public.lift_row(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN jsonb_build_object('new', payload -> 'old');
SELECT cqrs_es.define_upcaster('Row', '1', '2', 'public.lift_row(jsonb)'::regprocedure) IS NULL AS x \gset
SELECT is(payload, '{"new": 1}', 'payloads are lifted') FROM cqrs_es.read_matching(pg_temp.tag('row'));
SELECT is(event_version, '2', 'and their version') FROM cqrs_es.read_matching(pg_temp.tag('row'));

-- one's own

SELECT pg_temp.here() AS here \gset
SELECT count(*) FROM cqrs_es.append_to_streams('[{"type": "e", "payload": {"n": "own"}, "tags": ["own"]}]') \gset
SELECT is(pg_temp.read(pg_temp.tag('own')), 'own', 'the transaction''s own events count');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('n', 'plain', 'Odd', '{"n": "plain", "three": "own", "seven": "own"}');
SELECT is(pg_temp.read(pg_temp.tag('three:own')), 'plain', 'also those of a plain INSERT');
SAVEPOINT s;
SELECT count(*) FROM cqrs_es.append_to_streams('[{"type": "e", "payload": {"n": "gone"}, "tags": ["own"]}]') \gset
ROLLBACK TO s;
SELECT is(pg_temp.read(pg_temp.tag('own')), 'own', 'what was undone does not');

-- positions

SELECT is(pg_temp.error_of(format('SELECT * FROM cqrs_es.read_matching(%L, %s)', '[{}]', position), '{state,message}'), ARRAY['22023', message], message)
FROM (VALUES (-1, 'position -1 is not one of this node'), (17592186044415, 'position 17592186044415 is ahead of the log'),
	(17592186044417, 'position 17592186044417 is not one of this node')) AS p (position, message);
SELECT is(pg_temp.state_of($$SELECT * FROM cqrs_es.read_matching('[{}]', max_count => -1)$$), '2201W', 'a limit is not negative');

-- tenants

SET LOCAL cqrs_es.tenant_id = 'read_matching other';
SELECT is(pg_temp.read('[{"tags": ["seven:3"]}, {"types": ["Odd"]}]'), '', 'another tenant has none of it');
SELECT count(*) FROM cqrs_es.append_to_streams('[{"type": "e", "payload": {"n": "theirs"}, "tags": ["seven:3"]}]') \gset
SELECT is(pg_temp.read('[{"tags": ["seven:3"]}]'), 'theirs', 'but its own');
SELECT is(pg_temp.read('[{}]'), 'theirs', 'which is everything');
RESET cqrs_es.tenant_id;
SELECT is(pg_temp.read('[{"tags": ["seven:3"]}]', count => 1, backward => true), '94', 'and is nobody else''s');

-- rights

CREATE ROLE matching_reader;
CREATE ROLE matching_nobody;
GRANT USAGE ON SCHEMA cqrs_es TO matching_reader, matching_nobody;
GRANT SELECT ON cqrs_es.events TO matching_reader;
SELECT is(pg_temp.state_of(format('SELECT pg_temp.as_role(%L, %L)', role, $$SELECT * FROM cqrs_es.read_matching('[{"tags": ["seven:3"]}]')$$)), state, role)
FROM (VALUES ('matching_reader', 'none'), ('matching_nobody', '42501')) AS r (role, state);
-- a policy of the user's: this role sees no even numbers
CREATE POLICY odd_ones ON cqrs_es.events AS RESTRICTIVE TO matching_reader USING (event_type <> 'Even');
SET LOCAL role = matching_reader;
SELECT string_agg(payload ->> 'n', ' ' ORDER BY global_position) AS seen FROM cqrs_es.read_matching('[{"tags": ["three:1", "seven:3"]}]') \gset
SELECT string_agg(payload ->> 'n', ' ' ORDER BY global_position) AS seen_all FROM cqrs_es.read_matching('[{}]', :tenth, 3) \gset
RESET role;
SELECT is(:'seen'::text, '31 73', 'policies of users hold');
SELECT is(:'seen_all'::text, '11 13 15', 'for everything, too');

-- two events that were restored at one position, with the same tags
SELECT cqrs_es.next_position() AS tie \gset
SET LOCAL session_replication_role = replica;
INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload, created_at)
	SELECT :tie, 1, 'tie', n::text, 'Tie ' || n, jsonb_build_object('n', n), now() FROM generate_series(1, 2) n;
INSERT INTO cqrs_es.event_tags (global_position, tenant_id, tag, event_type)
	SELECT :tie, '', tag, 'Tie ' || n FROM generate_series(1, 2) n, unnest('{tie a,tie b}'::text[]) tag;
SET LOCAL session_replication_role = origin;
SELECT is(pg_temp.read('[{"tags": ["tie a"], "types": ["Tie 2"]}]') || pg_temp.read('[{"tags": ["tie a"], "types": ["Tie 1"]}]', backward => true), '21', 'of events at one position each is found by its type');
SELECT is(pg_temp.read('[{"tags": ["tie a", "tie b"], "types": ["Tie 2"]}]') || pg_temp.read('[{"tags": ["tie b", "tie a"], "types": ["Tie 1"]}]', backward => true), '21', '... by two tags, too');

SELECT * FROM finish();
ROLLBACK;
