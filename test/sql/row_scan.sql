\i test/include/setup.sql
-- Reading below the executor shows what SQL shows, wherever the rows lie: side
-- by side or scattered, on pages that vacuum has found visible to everyone or
-- not, after rollbacks, and after the owner has laid hands on the log.
SELECT plan(34);
SELECT cqrs_es.create_aggregate('row_scan', '{"sum": 0}', snapshot_every => 0) IS NULL AS x \gset
SELECT cqrs_es.define_reducer('row_scan', 'e', '[{"op": "increment", "path": "/sum", "from": "/n"}]') IS NULL AS x \gset

CREATE FUNCTION pg_temp.add(id text, events int) RETURNS bigint LANGUAGE sql
	RETURN (cqrs_es.append_events('row_scan', id, (SELECT jsonb_agg(jsonb_build_object('type', 'e',
		'payload', jsonb_build_object('n', n, 'text', repeat('x', n % 300)))) FROM generate_series(1, events) AS n))).version;

-- The events of a stream from a sequence on, by SQL alone.
CREATE FUNCTION pg_temp.rows(id text, from_sequence bigint) RETURNS SETOF cqrs_es.event STABLE
SET enable_indexscan = off SET enable_bitmapscan = off SET enable_indexonlyscan = off LANGUAGE sql AS $$
	SELECT global_position, sequence, created_at, event_id, tenant_id, aggregate_type, aggregate_id, event_type,
		event_version, payload, metadata
	FROM cqrs_es.events WHERE aggregate_type = 'row_scan' AND aggregate_id = id AND sequence >= from_sequence;
$$;

CREATE FUNCTION pg_temp.same(title text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	ids text[] := '{long,a,b,c,missing}'::text[] || repeat('l', 1000);	-- compressed in the index
BEGIN
	RETURN NEXT is(
		(SELECT array_agg(ARRAY(SELECT e FROM cqrs_es.read_stream('row_scan', id, start) AS e)::text) FROM unnest(ids) AS id, unnest('{1,2,77}'::int[]) AS start),
		(SELECT array_agg(ARRAY(SELECT e FROM pg_temp.rows(id, start) AS e ORDER BY sequence)::text) FROM unnest(ids) AS id, unnest('{1,2,77}'::int[]) AS start),
		title || ', forward');
	RETURN NEXT is(
		(SELECT array_agg(ARRAY(SELECT e FROM cqrs_es.read_stream('row_scan', id, NULL, n, true) AS e)::text) FROM unnest(ids) AS id, unnest('{1,5,1000}'::int[]) AS n),
		(SELECT array_agg(ARRAY(SELECT e FROM pg_temp.rows(id, 1) AS e ORDER BY sequence DESC LIMIT n)::text) FROM unnest(ids) AS id, unnest('{1,5,1000}'::int[]) AS n),
		title || ', backward');
	RETURN NEXT is(
		(SELECT array_agg((cqrs_es.aggregate_state('row_scan', id)->'sum')::bigint) FROM unnest(ids) AS id),
		(SELECT array_agg((SELECT sum((payload->'n')::int) FROM pg_temp.rows(id, 1))) FROM unnest(ids) AS id),
		title || ', folded');
END $$;

SELECT pg_temp.add('long', 700) AS x \gset
SELECT pg_temp.add(repeat('l', 1000), 100) AS x \gset
SELECT cqrs_es.append_event('row_scan', repeat('l', 1000), 'e', jsonb_build_object('n', 1, 'text',
	(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300) AS n)), metadata => '{"m": 1}') IS NULL AS x \gset
SELECT count(pg_temp.add(id, 3)) AS x FROM generate_series(1, 40), unnest('{a,b,c}'::text[]) AS id \gset
SELECT pg_temp.same('fresh rows');

VACUUM cqrs_es.events;
SELECT cmp_ok(relallvisible, '>', 0, 'there are pages all visible') FROM pg_class WHERE oid = 'cqrs_es.events'::regclass;
SELECT pg_temp.same('vacuumed');

BEGIN;
SELECT pg_temp.add('long', 5), pg_temp.add('b', 5) \g /dev/null
SELECT pg_temp.same('with own uncommitted rows');
SAVEPOINT s;
SELECT pg_temp.add('long', 200), pg_temp.add('a', 5) \g /dev/null
ROLLBACK TO s;
SELECT pg_temp.same('without rows of a subtransaction');
ROLLBACK;
SELECT pg_temp.same('without rows of a transaction');
VACUUM cqrs_es.events;
SELECT pg_temp.add('long', 3), pg_temp.add('a', 4) \g /dev/null
SELECT pg_temp.same('where dead rows were');

BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT pg_temp.same('serializable');
COMMIT;

-- The owner takes what people have written out of their events.
ALTER TABLE cqrs_es.events DISABLE TRIGGER refuse_change, DISABLE TRIGGER refuse_change_of_row;
UPDATE cqrs_es.events SET payload = '{"n": 1}' WHERE aggregate_type = 'row_scan' AND sequence % 3 = 0;
SELECT pg_temp.same('versions of rows');
VACUUM cqrs_es.events;
SELECT pg_temp.same('versions of rows, vacuumed');
DELETE FROM cqrs_es.events WHERE aggregate_type = 'row_scan' AND (aggregate_id = 'c' OR sequence > 90);
ALTER TABLE cqrs_es.events ENABLE TRIGGER refuse_change, ENABLE TRIGGER refuse_change_of_row;
-- which made the log a table of its own
ALTER EXTENSION cqrs_es ADD TABLE cqrs_es.events;
SELECT pg_temp.same('ends of streams gone');
VACUUM cqrs_es.events;
SELECT pg_temp.add('long', 300), pg_temp.add('c', 4) \g /dev/null
SELECT pg_temp.same('and written anew');
SELECT * FROM finish();
