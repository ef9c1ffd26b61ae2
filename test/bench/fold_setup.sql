-- Streams to replay, and their folds in PL/pgSQL.

CREATE EXTENSION cqrs_es;
CREATE SCHEMA bench;
CREATE TABLE bench.results (n int, expression text, ms numeric, ratio numeric);

SELECT cqrs_es.create_aggregate('account', '{"count": 0, "balance": 0}', snapshot_every => 0) \g /dev/null
SELECT cqrs_es.define_reducer('account', 'Deposited',
	'[{"op": "increment", "path": "/count"}, {"op": "increment", "path": "/balance", "from": "/amount"}]') \g /dev/null
SELECT cqrs_es.define_reducer('account', 'Withdrawn',
	'[{"op": "increment", "path": "/count"}, {"op": "decrement", "path": "/balance", "from": "/amount"}]') \g /dev/null
SELECT cqrs_es.create_aggregate('merge', snapshot_every => 0) \g /dev/null
SELECT cqrs_es.create_aggregate('function', '{"count": 0}', snapshot_every => 0) \g /dev/null
CREATE FUNCTION bench.counted(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	RETURN jsonb_build_object('count', (state->>'count')::int + 1, 'last', event.payload->'amount');
END $$;
SELECT cqrs_es.define_reducer('function', 'Deposited', 'bench.counted(jsonb, cqrs_es.event)') \g /dev/null
SELECT cqrs_es.create_aggregate('snapshot', '{"count": 0, "balance": 0}', snapshot_every => 0) \g /dev/null
SELECT cqrs_es.create_aggregate('replay', '{"count": 0, "balance": 0}', snapshot_every => 0) \g /dev/null
SELECT cqrs_es.define_reducer(type, 'Deposited',
	'[{"op": "increment", "path": "/count"}, {"op": "increment", "path": "/balance", "from": "/amount"}]')
FROM unnest('{snapshot,replay}'::text[]) AS type \g /dev/null

CREATE PROCEDURE bench.fill(type text, id text, events int, payload jsonb) LANGUAGE plpgsql AS $$
DECLARE
	batch jsonb;
BEGIN
	SELECT jsonb_agg(jsonb_build_object('type', CASE WHEN n % 4 = 0 AND type = 'account' THEN 'Withdrawn' ELSE 'Deposited' END,
		'payload', payload || jsonb_build_object('amount', 0.25 * (n % 97))))
		INTO batch FROM generate_series(1, 1000) AS n;
	FOR i IN 1 .. events / 1000 LOOP
		PERFORM cqrs_es.append_events(type, id, batch);
		COMMIT;
	END LOOP;
END $$;
CALL bench.fill('account', 'a', 100000, '{"reference": "invoice 17"}');
CALL bench.fill('merge', 'm', 100000, jsonb_build_object('name', repeat('n', 40), 'note', repeat('x', 60), 'tags', '["a", "b"]'::jsonb, 'city', 'Haarlem', 'active', true));
CALL bench.fill('function', 'f', 100000, '{"reference": "invoice 17"}');
CALL bench.fill('snapshot', 'short', 1000, '{"reference": "invoice 17"}');
CALL bench.fill('snapshot', 'long', 1000000, '{"reference": "invoice 17"}');
SELECT cqrs_es.take_snapshot('snapshot', id) FROM unnest('{short,long}'::text[]) AS id \g /dev/null
SELECT cqrs_es.append_events('snapshot', id, (SELECT jsonb_agg('{"type": "Deposited", "payload": {"amount": 1.25}}'::jsonb) FROM generate_series(1, 50)))
FROM unnest('{short,long}'::text[]) AS id \g /dev/null
CALL bench.fill('replay', 'short', 1000, '{"reference": "invoice 17"}');
CALL bench.fill('replay', 'long', 1000000, '{"reference": "invoice 17"}');
VACUUM ANALYZE cqrs_es.events;

CREATE FUNCTION bench.account_variables(id text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	event record;
	n bigint := 0;
	balance numeric := 0;
BEGIN
	FOR event IN SELECT event_type, payload FROM cqrs_es.events
		WHERE aggregate_type = 'account' AND aggregate_id = id AND tenant_id = '' ORDER BY sequence
	LOOP
		CASE event.event_type
			WHEN 'Deposited' THEN
				n := n + 1;
				balance := balance + (event.payload->>'amount')::numeric;
			WHEN 'Withdrawn' THEN
				n := n + 1;
				balance := balance - (event.payload->>'amount')::numeric;
		END CASE;
	END LOOP;
	RETURN jsonb_build_object('count', n, 'balance', balance);
END $$;

-- The same on a server that takes random reads for cheap: by the index and
-- without a sort, which the plan above may have.
DO $$ BEGIN
	EXECUTE replace(pg_get_functiondef('bench.account_variables'::regproc), 'account_variables', 'account_by_index');
END $$;
ALTER FUNCTION bench.account_by_index SET random_page_cost = 1.1;

CREATE FUNCTION bench.account_jsonb(id text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	event record;
	state jsonb := '{"count": 0, "balance": 0}';
BEGIN
	FOR event IN SELECT event_type, payload FROM cqrs_es.events
		WHERE aggregate_type = 'account' AND aggregate_id = id AND tenant_id = '' ORDER BY sequence
	LOOP
		CASE event.event_type
			WHEN 'Deposited' THEN
				state := jsonb_build_object('count', (state->>'count')::bigint + 1,
					'balance', (state->>'balance')::numeric + (event.payload->>'amount')::numeric);
			WHEN 'Withdrawn' THEN
				state := jsonb_build_object('count', (state->>'count')::bigint + 1,
					'balance', (state->>'balance')::numeric - (event.payload->>'amount')::numeric);
		END CASE;
	END LOOP;
	RETURN state;
END $$;

CREATE FUNCTION bench.merge_jsonb(id text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	event record;
	state jsonb := '{}';
BEGIN
	FOR event IN SELECT payload FROM cqrs_es.events
		WHERE aggregate_type = 'merge' AND aggregate_id = id AND tenant_id = '' ORDER BY sequence
	LOOP
		state := state || event.payload;
	END LOOP;
	RETURN state;
END $$;

CREATE FUNCTION bench.function_loop(id text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	event cqrs_es.event;
	state jsonb := '{"count": 0}';
BEGIN
	FOR event IN SELECT * FROM cqrs_es.events
		WHERE aggregate_type = 'function' AND aggregate_id = id AND tenant_id = '' ORDER BY sequence
	LOOP
		state := bench.counted(state, event);
	END LOOP;
	RETURN state;
END $$;

-- The same index condition as a fold; an index scan, since a fold needs the rows.
CREATE FUNCTION bench.bare_scan(type text, id text) RETURNS bigint LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_indexonlyscan = off
SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
BEGIN
	RETURN (SELECT count(*) FROM cqrs_es.events
		WHERE aggregate_type = type AND aggregate_id = id AND tenant_id = '' AND sequence >= 1);
END $$;

-- Run expressions in turns; results are medians of milliseconds and of the
-- ratio of each round to the first expression.
CREATE PROCEDURE bench.compare(expressions text[], rounds int) LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz;
	times numeric[];
BEGIN
	CREATE TEMP TABLE IF NOT EXISTS runs (round int, n int, ms numeric);
	TRUNCATE runs, bench.results;
	FOR round IN 0 .. rounds LOOP
		FOR n IN 1 .. array_length(expressions, 1) LOOP
			started := clock_timestamp();
			EXECUTE 'SELECT ' || expressions[n];
			IF round > 0 THEN	-- the first one warms up
				INSERT INTO runs VALUES (round, n, 1000 * extract(epoch FROM clock_timestamp() - started));
			END IF;
		END LOOP;
	END LOOP;
	INSERT INTO bench.results
		SELECT r.n, expressions[r.n], percentile_cont(0.5) WITHIN GROUP (ORDER BY r.ms),
			percentile_cont(0.5) WITHIN GROUP (ORDER BY r.ms / first.ms)
		FROM runs AS r JOIN runs AS first ON first.round = r.round AND first.n = 1
		GROUP BY r.n;
END $$;

-- The most memory this backend has ever had, after a replay, in kB. (Its address
-- space: the kernel keeps the peak of that, so no short one is missed. The
-- shared memory in it is the same for every backend.)
CREATE FUNCTION bench.peak_memory(id text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.aggregate_state('replay', id);
	RETURN substring(pg_read_file('/proc/self/status') FROM 'VmPeak:\s+(\d+)');
END $$;
