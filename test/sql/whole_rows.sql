\i test/include/setup.sql
-- Events are handed out as they lie in the log: short, compressed within the row and out of line; lifted ones are not.

BEGIN;
SELECT plan(10);
CREATE FUNCTION pg_temp.differing(rows text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint;
BEGIN
	EXECUTE format('SELECT count(*) FROM (%s) AS r FULL JOIN cqrs_es.events AS e USING (global_position)
		WHERE (r.global_position IS NULL OR to_jsonb(r) IS DISTINCT FROM to_jsonb(e)) AND e.aggregate_type = ''whole''', rows) INTO n;
	RETURN n;
END $$;
SELECT cqrs_es.append_events('whole', 's', jsonb_build_array(
	'{"type": "Small", "payload": {"amount": 1}}'::jsonb,
	jsonb_build_object('type', 'Compressed', 'payload', jsonb_build_object('text', repeat('again and ', 1000))),
	jsonb_build_object('type', 'External', 'payload', (SELECT jsonb_agg(md5(n::text)) FROM generate_series(1, 3000) AS n)),
	'{"type": "Small", "version": "7", "payload": {}, "metadata": {"by": "me"}}'::jsonb)) IS NULL AS x \gset
SELECT cmp_ok(max(pg_column_size(payload)) FILTER (WHERE event_type = 'Compressed'), '<', 2000, 'one payload is compressed') FROM cqrs_es.events;
SELECT cmp_ok(max(pg_column_size(payload)) FILTER (WHERE event_type = 'External'), '>', 10000, 'one lies out of line') FROM cqrs_es.events;

SELECT is(pg_temp.differing($$SELECT * FROM cqrs_es.read_stream('whole', 's')$$), 0::bigint, 'a stream');
SELECT is(pg_temp.differing($$SELECT * FROM cqrs_es.read_stream('whole', 's', backward => true, raw => true)$$), 0::bigint, 'backward and raw');
SELECT is(pg_temp.differing($$SELECT (e).* FROM (SELECT cqrs_es.read_stream('whole', 's') AS e OFFSET 0) AS s$$), 0::bigint, 'in the select list');

-- what is kept of them depends on no table any more
CREATE TEMP TABLE kept AS SELECT e FROM cqrs_es.read_stream('whole', 's') AS e;
INSERT INTO kept SELECT cqrs_es.read_stream('whole', 's');
SELECT is((SELECT count(*) FROM kept), 8::bigint, 'rows are kept as values');
SELECT is(pg_temp.differing('SELECT DISTINCT (e).* FROM kept'), 0::bigint, 'which are whole');
SELECT is((SELECT count(*) FROM kept WHERE pg_column_size(e) < pg_column_size((e).payload)), 0::bigint, 'and have all within');

-- an upcaster changes one of them
CREATE FUNCTION public.lift_whole(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb_build_object('lifted', length(payload->>'text'))$$;
SELECT cqrs_es.define_upcaster('Compressed', '1', '2', 'public.lift_whole(jsonb)') IS NULL AS x \gset
SELECT is((SELECT array_agg(format('%s %s', sequence, event_version) ORDER BY sequence) FROM cqrs_es.read_stream('whole', 's')), '{1 1,2 2,3 1,4 7}', 'one of them is lifted');
SELECT is((SELECT payload FROM cqrs_es.read_stream('whole', 's') WHERE sequence = 2), '{"lifted": 10000}', 'to a new payload');
SELECT * FROM finish();
ROLLBACK;
