-- Streams of three lengths, what hangs on them, and a function that measures.
CREATE EXTENSION cqrs_es;
CREATE SCHEMA bench;

SELECT cqrs_es.create_aggregate('account', '{"balance": 0}', snapshot_every => 100, keep_snapshots => 100000) \g /dev/null
SELECT cqrs_es.define_reducer('account', 'Put', '[{"op": "increment", "path": "/balance", "from": "/amount"}]') \g /dev/null
SELECT cqrs_es.define_command('account', 'Put', $$jsonb_build_object('type', 'Put', 'payload', command)$$) \g /dev/null
-- young: all of its events within the window of ids; old: none of them
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, created_at)
SELECT 'account', age || ' ' || length, 'Put', '{"amount": 1}', now() - CASE age WHEN 'old' THEN interval '30 days' ELSE interval '0' END - (length - n) * interval '1 second'
FROM unnest('{young,old}'::text[]) AS age, unnest('{100,1000,100000}'::int[]) AS length, generate_series(1, length) AS n;

-- what one transaction does again and again
CREATE TABLE bench.echoes (id text);
SELECT cqrs_es.create_projection('echo', '{cry}', '{bench.echoes}') \g /dev/null
CREATE FUNCTION bench.echo(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN PERFORM cqrs_es.append_event('echo', event.aggregate_id, 'e', '{}'); END $$;
SELECT cqrs_es.define_handler('echo', '*', 'bench.echo(cqrs_es.event)') \g /dev/null
CREATE TABLE bench.states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
SELECT cqrs_es.create_aggregate('often', '{"n": 0}', snapshot_every => 2) \g /dev/null
SELECT cqrs_es.define_reducer('often', 'e', '[{"op": "increment", "path": "/n"}]') \g /dev/null
SELECT cqrs_es.create_projection('states', state_of => 'often', read_models => '{bench.states}') \g /dev/null
CREATE TABLE bench.totals (id text PRIMARY KEY, n bigint NOT NULL);
SELECT cqrs_es.create_projection('totals', '{total}', '{bench.totals}') \g /dev/null
SELECT cqrs_es.define_handler('totals', '*', $$
	INSERT INTO bench.totals AS t VALUES ('all', 1) ON CONFLICT (id) DO UPDATE SET n = t.n + 1 $$) \g /dev/null
SELECT cqrs_es.create_aggregate('redefined', '{"n": 0}') \g /dev/null

-- Runs a statement and tells the buffers that it touched, and its milliseconds.
CREATE FUNCTION bench.measure(statement text, OUT buffers bigint, OUT ms numeric) LANGUAGE plpgsql AS $$
DECLARE
	result json;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT JSON) ' || statement INTO result;
	buffers := (result->0->'Plan'->>'Shared Hit Blocks')::bigint + (result->0->'Plan'->>'Shared Read Blocks')::bigint;
	ms := (result->0->>'Execution Time')::numeric;
END $$;
VACUUM ANALYZE;
