\i test/include/setup.sql
-- Events that share a position, as of logs that were brought together: their tags are told apart by their types. Those
-- of one type share them: more is found then, and never less.
BEGIN;
SELECT plan(16);
SELECT cqrs_es.next_position() AS tie \gset
SET LOCAL session_replication_role = replica;
INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload, created_at)
	VALUES (:tie, 1, 'tied', '1', 'A', '1', now()), (:tie, 1, 'tied', '2', 'B', '2', now()), (:tie, 1, 'tied', '3', 'C', '3', now()),
		(:tie, 1, 'tied', '4', 'D', '4', now()), (:tie, 1, 'tied', '5', 'D', '5', now());
INSERT INTO cqrs_es.event_tags (global_position, tenant_id, tag, event_type)
	VALUES (:tie, '', 'tied x', 'A'), (:tie, '', 'tied y', 'A'), (:tie, '', 'tied x', 'B'), (:tie, '', 'tied z', 'C'), (:tie, '', 'tied v', 'D'), (:tie, '', 'tied w', 'D');
SET LOCAL session_replication_role = origin;
CREATE FUNCTION pg_temp.found(query jsonb, backward boolean DEFAULT false) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(payload::text, ' ' ORDER BY payload) FROM cqrs_es.read_matching(query, backward => backward)
$$;

SELECT is(pg_temp.found(query), found, query::text) FROM (VALUES
	('[{"tags": ["tied x"]}]'::jsonb, '1 2'), ('[{"tags": ["tied y"]}]', '1'), ('[{"tags": ["tied z"]}]', '3'),
	('[{"tags": ["tied x", "tied y"]}]', '1'), ('[{"tags": ["tied y", "tied x"]}]', '1'), ('[{"tags": ["tied x", "tied z"]}]', NULL),
	('[{"tags": ["tied z"], "types": ["A", "B"]}]', NULL), ('[{"tags": ["tied x"], "types": ["B", "C"]}]', '2'),
	('[{"tags": ["tied z"]}, {"tags": ["tied y"]}]', '1 3'), ('[{"tags": ["tied v"]}]', '4 5'), ('[{"tags": ["tied v", "tied w"]}]', '4 5'), ('[{"tags": ["tied v", "tied x"]}]', NULL)) AS q (query, found);
SELECT is(pg_temp.found('[{"tags": ["tied x", "tied y"]}]', true), '1', 'backward');
SELECT results_eq($$SELECT payload::text, array_to_string(tags, ',') FROM cqrs_es.read_matching('[{"tags": ["tied x"]}, {"tags": ["tied z"]}, {"tags": ["tied v"]}]') ORDER BY payload$$,
	$$VALUES ('1', 'tied x,tied y'), ('2', 'tied x'), ('3', 'tied z'), ('4', 'tied v,tied w'), ('5', 'tied v,tied w')$$, 'each is shown with the tags of its type');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', '[{"tags": ["tied x", "tied z"]}]')$$), 'none', 'a condition on tags that no event has together holds');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.append_to_streams('[{"type": "e"}]', '[{"tags": ["tied x", "tied y"]}]')$$), 'QE005', 'one on those of one does not');
SELECT finish();
ROLLBACK;
