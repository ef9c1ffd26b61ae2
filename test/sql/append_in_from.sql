\i test/include/setup.sql
-- An append is a function of a composite type: it may stand wherever one may, and gives the same
-- there, although the planner makes something else of its calls.
BEGIN;
SELECT plan(14);
CREATE FUNCTION pg_temp.explained(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE 'EXPLAIN (VERBOSE, COSTS OFF) ' || statement;
END $$;

SELECT results_eq($$SELECT version, global_position > 0 FROM cqrs_es.append_event('from', 'a', 'e', '{}')$$, $$VALUES (1::bigint, true)$$, 'in FROM');
SELECT results_eq($$SELECT r.version, (r).global_position > 0, pg_typeof(r)::text, ordinality FROM cqrs_es.append_event('from', 'a', 'e', '{}', 1) WITH ORDINALITY AS r(version, global_position, ordinality)$$,
	$$VALUES (2::bigint, true, 'record', 1::bigint)$$, 'with a number');
SELECT results_eq($$SELECT pg_typeof(r)::text, r.version FROM cqrs_es.append_event('from', 'a', 'e', '{}') AS r$$, $$VALUES ('cqrs_es.append_result', 3::bigint)$$, 'as a value of its type');
SELECT results_eq($$SELECT version, n FROM ROWS FROM (cqrs_es.append_events('from', 'a', '[{"type": "e"}, {"type": "e"}]'), generate_series(1, 2)) AS r(version, global_position, n)$$,
	$$VALUES (5::bigint, 1), (NULL, 2)$$, 'beside other functions');
SELECT results_eq($$SELECT n, version FROM generate_series(1, 5) AS n, cqrs_es.append_event('from', 'lateral', 'e', to_jsonb(n), n - 1)$$,
	$$SELECT n, n::bigint FROM generate_series(1, 5) AS n$$, 'once for each row beside it');
SELECT results_eq($$SELECT sequence, payload FROM cqrs_es.read_stream('from', 'lateral')$$, $$SELECT n::bigint, to_jsonb(n) FROM generate_series(1, 5) AS n$$, 'with the arguments of each');
SELECT results_eq($$SELECT version FROM cqrs_es.append_event_arrays('from', 'b', '{e,f}', '{1,2}', 0)$$, $$VALUES (2::bigint)$$, 'arrays');
CREATE VIEW pg_temp.appended AS SELECT * FROM cqrs_es.append_event('from', 'view', 'e', '{}');
SELECT results_eq('SELECT version FROM pg_temp.appended', $$VALUES (1::bigint)$$, 'in a view');
SELECT is((cqrs_es.append_event('from', 'view', 'e', '{}')).version, 2::bigint, 'in the list of a SELECT');
SELECT is(pg_temp.error_of($$DO 'DECLARE r cqrs_es.append_result; s cqrs_es.append_result; BEGIN
	r := cqrs_es.append_event(''from'', ''view'', ''e'', ''{}''); SELECT * INTO s FROM cqrs_es.append_event(''from'', ''view'', ''e'', ''{}'');
	RAISE ''% %'', r.version, s.version; END'$$, '{message}'), '{3 4}', 'in PL/pgSQL');
PREPARE prepared(text) AS SELECT version FROM cqrs_es.append_event('from', $1, 'e', '{}', expected_version => 0);
SET LOCAL plan_cache_mode = force_generic_plan;
SELECT results_eq($$EXECUTE prepared('p 1')$$, $$VALUES (1::bigint)$$, 'prepared, with a plan for all arguments');
SELECT results_eq($$EXECUTE prepared('p 2')$$, $$VALUES (1::bigint)$$, 'which is used again');

-- what is shown, and asked, is the call that was written
SELECT ok((SELECT bool_or(line ~ $$Function Call: cqrs_es.append_event\('from'::text, 'a'::text, 'e'::text, '\{\}'::jsonb, $$) FROM pg_temp.explained(
	$$SELECT * FROM cqrs_es.append_event('from', 'a', 'e', '{}')$$) AS line), 'EXPLAIN shows the call');
REVOKE EXECUTE ON FUNCTION cqrs_es.append_event FROM PUBLIC;
GRANT SELECT, INSERT ON cqrs_es.events TO pg_monitor;
SELECT is(pg_temp.error_of($$SELECT pg_temp.as_role('pg_monitor', 'SELECT * FROM cqrs_es.append_event(''from'', ''a'', ''e'', ''{}'')')$$, '{state,message}'),
	'{42501,permission denied for function append_event}', 'it takes EXECUTE');
ROLLBACK;
