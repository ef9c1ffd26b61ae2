\i test/include/setup.sql
-- With an index on event_id ids are recognized for good, and found without reading the stream; on whichever columns of
-- its key stand before it.  The log is a table of its owner then.
SELECT plan(29);
CREATE FUNCTION pg_temp.id(n integer) RETURNS uuid LANGUAGE sql AS $$
	SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION pg_temp.again(id text, event integer, expected bigint DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
	SELECT version FROM cqrs_es.append_event('indexed', id, 'e', '1', expected, event_id => pg_temp.id(event)) $$;
\i test/include/buffers.sql
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, event_id, created_at)
SELECT 'indexed', id, 'e', '1', CASE n WHEN 1 THEN pg_temp.id(1) WHEN 2 THEN pg_temp.id(2) ELSE gen_random_uuid() END, '2020-01-01'
FROM unnest('{a,b}'::text[]) id, generate_series(1, 5000) n;
ANALYZE cqrs_es.events;
SET client_min_messages = error;
CREATE TEMP TABLE indexes (n int, columns text, is_unique boolean);
INSERT INTO indexes VALUES (1, 'event_id', false), (2, 'aggregate_type, aggregate_id, tenant_id, event_id', true), (3, 'tenant_id, event_id, sequence', false), (4, 'aggregate_id, event_id', false);
CREATE FUNCTION pg_temp.with_index(columns text, is_unique boolean) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	version bigint;
BEGIN
	EXECUTE format('CREATE %s INDEX ids ON cqrs_es.events (%s)', CASE WHEN is_unique THEN 'UNIQUE' END, columns);
	version := cqrs_es.stream_version('indexed', 'a');
	RETURN NEXT is(pg_temp.again('a', 1), 1::bigint, columns || ': an old event');
	RETURN NEXT is(pg_temp.again('a', 2, version), 2::bigint, columns || ': and with the version of now');
	RETURN NEXT throws_ok($q$SELECT cqrs_es.append_event('indexed', 'b', 'e', '2', event_id => pg_temp.id(1))$q$, 'QE002', NULL, columns || ': with another payload');
	RETURN NEXT throws_ok($q$SELECT cqrs_es.append_events('indexed', 'b', jsonb_build_array(jsonb_build_object('type', 'e', 'payload', 1, 'id', pg_temp.id(9)), jsonb_build_object('type', 'e', 'payload', 1, 'id', pg_temp.id(2))))$q$,
		'QE002', NULL, columns || ': a batch with one of them');
	PERFORM pg_temp.again('c ' || columns, 8);
	RETURN NEXT is(pg_temp.again('c ' || columns, 1), 2::bigint, columns || ': an id counts within its stream');
	PERFORM pg_temp.again('b', (1000 + length(columns))::int);
	RETURN NEXT is(pg_temp.again('b', (1000 + length(columns))::int), cqrs_es.stream_version('indexed', 'b'), columns || ': a new one, again');
	-- (through SQL, the planner chooses)
	SET LOCAL cqrs_es.force_generic_path = off;
	PERFORM pg_temp.buffers($q$SELECT cqrs_es.append_event('indexed', 'a', 'e', '1', event_id => gen_random_uuid())$q$);
	RETURN NEXT cmp_ok(pg_temp.buffers($q$SELECT cqrs_es.append_event('indexed', 'a', 'e', '1', event_id => gen_random_uuid())$q$), '<=', 60::bigint, columns || ': the cost');
	RESET cqrs_es.force_generic_path;
	DROP INDEX cqrs_es.ids;
END $$;
SELECT pg_temp.with_index(columns, is_unique) FROM indexes WHERE n = 1;
SELECT pg_temp.with_index(columns, is_unique) FROM indexes WHERE n = 2;
SELECT pg_temp.with_index(columns, is_unique) FROM indexes WHERE n = 3;
SELECT pg_temp.with_index(columns, is_unique) FROM indexes WHERE n = 4;
-- one that is not of all events finds nothing
CREATE INDEX ids ON cqrs_es.events (event_id) WHERE sequence > 4000;
SELECT cmp_ok(pg_temp.again('b', 1), '>', 5000::bigint, 'a partial index is none');
SELECT finish();
\i test/include/own_log_end.sql
