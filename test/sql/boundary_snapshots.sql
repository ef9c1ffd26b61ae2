\i test/include/setup.sql
-- Snapshots of boundaries: when one is taken, when it is used, and when not.
BEGIN;
SELECT plan(37);

-- A state that was changed behind our back shows whether the snapshot is used.
CREATE FUNCTION pg_temp.falsify() RETURNS void LANGUAGE sql AS $$UPDATE cqrs_es.boundary_snapshots SET payload = payload || '{"false": true}'$$;
CREATE FUNCTION pg_temp.snapshots() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', boundary, query #>> '{0,tags,0}', payload->'n'), ', ' ORDER BY query) FROM cqrs_es.boundary_snapshots
$$;
CREATE FUNCTION pg_temp.add(key text, times int DEFAULT 1, command text DEFAULT 'Add') RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(e.state::text, ' ' ORDER BY n) FROM generate_series(1, times) AS n,
		cqrs_es.execute_boundary('counted', command, jsonb_build_object('key', key, 'n', n)) AS e
$$;

SELECT cqrs_es.define_tags('Added', 'key:{/key}') IS NULL AS x \gset
SELECT cqrs_es.create_boundary('counted', '[{"tags": ["key:{/key}"]}]', '{"n": 0}', snapshot_every => 3) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('counted', 'Added', '[{"op": "increment", "path": "/n"}]') IS NULL AS x \gset
SELECT cqrs_es.define_command('counted', 'Add', $$jsonb_build_object('type', 'Added', 'payload', command)$$) IS NULL AS x \gset
SELECT cqrs_es.define_command('counted', 'Many', $$(SELECT jsonb_agg(jsonb_build_object('type', 'Added', 'payload', command)) FROM generate_series(1, (command->>'many')::int))$$) IS NULL AS x \gset
SELECT cqrs_es.define_command('counted', 'Nothing', $$'[]'::jsonb$$) IS NULL AS x \gset
SELECT cqrs_es.define_command('counted', 'Refused', $$cqrs_es.reject('no')$$) IS NULL AS x \gset

-- when it is taken

SELECT is(pg_temp.add('a', 2), '{"n": 1} {"n": 2}', 'two events');
SELECT is(pg_temp.snapshots(), NULL, '... are too few for a snapshot');
SELECT is(pg_temp.add('a'), '{"n": 3}', 'with the third');
SELECT is(pg_temp.snapshots(), 'counted key:a 3', '... one is taken');
SELECT is((SELECT last_position FROM cqrs_es.boundary_snapshots), (SELECT max(global_position) FROM cqrs_es.events), '... which holds all of them');
SELECT is(pg_temp.add('a', 2), '{"n": 4} {"n": 5}', 'two more');
SELECT is(pg_temp.snapshots(), 'counted key:a 3', '... are too few for another');
SELECT is(pg_temp.add('b', 3), '{"n": 1} {"n": 2} {"n": 3}', 'other keys');
SELECT is(pg_temp.add('a'), '{"n": 6}', 'the third again');
SELECT is(pg_temp.snapshots(), 'counted key:a 6, counted key:b 3', '... have one of their own, and a new one takes the place of the old one');
SELECT count(cqrs_es.append_event('x', 'x', 'Added', '{"key": "a"}')) AS x FROM generate_series(1, 5) \gset
SELECT is(pg_temp.snapshots(), 'counted key:a 6, counted key:b 3', 'an append by itself takes none');
SELECT is(cqrs_es.boundary_state('counted', '{"key": "a"}'), '{"n": 11}', 'nor does who asks for the state');
SELECT is(pg_temp.snapshots(), 'counted key:a 6, counted key:b 3', '... which stays so');
SELECT is(pg_temp.state_of($$SELECT pg_temp.add('a', command => 'Refused')$$), 'QE301', 'one that is refused');
SELECT is(pg_temp.snapshots(), 'counted key:a 6, counted key:b 3', '... takes none either');
SELECT is(pg_temp.add('a', command => 'Nothing'), '{"n": 11}', 'one from which nothing follows');
SELECT is(pg_temp.snapshots(), 'counted key:a 11, counted key:b 3', '... does');

-- a decider that changes how it is folded leaves a state that nothing stands for
CREATE FUNCTION redefine(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.define_reducer('counted', 'Later', '[{"op": "increment", "path": "/n"}]');
	RETURN '[]';
END $$;
SELECT cqrs_es.define_command('counted', 'Redefine', 'redefine') IS NULL AS x \gset
SAVEPOINT redefined;
SELECT count(cqrs_es.append_event('x', 'x', 'Added', '{"key": "a"}')) AS x FROM generate_series(1, 5) \gset
SELECT is(pg_temp.add('a', command => 'Redefine'), '{"n": 16}', 'one whose decider changes the declarations');
SELECT is(pg_temp.snapshots(), 'counted key:a 11, counted key:b 3', '... takes none');
ROLLBACK TO redefined;

-- when it is used

SELECT pg_temp.falsify() IS NULL AS x \gset
SELECT is(cqrs_es.boundary_state('counted', '{"key": "a"}'), '{"n": 11, "false": true}', 'a state begins at the snapshot');
SELECT is(pg_temp.add('a'), '{"n": 12, "false": true}', '... and so does a decision');
SELECT is(cqrs_es.boundary_state('counted', '{"key": "a"}', at_position => (SELECT last_position - 1 FROM cqrs_es.boundary_snapshots WHERE query @> '[{"tags": ["key:a"]}]')),
	'{"n": 10}', 'but not where it is beyond the position');
SELECT is(cqrs_es.boundary_state('counted', '{"key": ["a", "b"]}'), '{"n": 15}', 'nor for other keys, though they are among them');
SET LOCAL cqrs_es.tenant_id = 't2';
SELECT is(cqrs_es.boundary_state('counted', '{"key": "a"}'), '{"n": 0}', 'nor for another tenant');
RESET cqrs_es.tenant_id;
SET LOCAL cqrs_es.node_id = 1;
SELECT is(cqrs_es.boundary_state('counted', '{"key": "a"}'), '{"n": 0}', 'nor at another node');
RESET cqrs_es.node_id;

-- what makes it useless: each is undone again

CREATE FUNCTION pg_temp.used_after(statement text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	used boolean;
BEGIN
	EXECUTE statement;
	used := cqrs_es.boundary_state('counted', '{"key": "a"}') ? 'false';
	RAISE EXCEPTION '%', used USING ERRCODE = 'P0042';
EXCEPTION WHEN SQLSTATE 'P0042' THEN
	RETURN SQLERRM::boolean;
END $$;
CREATE FUNCTION fold_boundary(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
SELECT is(pg_temp.used_after(statement), used, CASE WHEN used THEN 'used after: ' ELSE 'not used after: ' END || statement)
FROM (VALUES (1, true, 'SELECT 1'),
	(2, false, $$SELECT cqrs_es.define_reducer('counted', 'Added', '[]')$$),
	(3, false, $$SELECT cqrs_es.define_reducer('counted', 'New', 'fold_boundary')$$),
	(4, false, $$SELECT cqrs_es.alter_boundary('counted', initial_state => '{"n": 1}')$$),
	(5, false, $$SELECT cqrs_es.alter_boundary('counted', query => '[{"types": ["Added"], "tags": ["key:{/key}"]}]')$$),
	(6, false, $$SELECT cqrs_es.alter_boundary('counted', snapshot_every => 0)$$),
	(7, true, $$SELECT cqrs_es.alter_boundary('counted', snapshot_every => 5)$$),
	(8, false, $$SELECT cqrs_es.define_tags('Other', 'key:{/key}')$$),
	(9, false, $$SELECT cqrs_es.drop_tags('Added')$$),
	(10, true, $$SELECT cqrs_es.define_command('counted', 'Refused', 'cqrs_es.reject(''yes'')')$$)) AS t (n, used, statement)
ORDER BY n;
SELECT is((SELECT string_agg(boundary, ' ') FROM cqrs_es.boundary_snapshots), 'counted counted', 'they are kept');
SELECT cqrs_es.drop_boundary('counted') IS NULL AS x \gset
SELECT is((SELECT count(*)::int FROM cqrs_es.boundary_snapshots), 0, 'until the boundary is dropped');
SELECT * FROM finish();
ROLLBACK;
