-- For the bench of rebuilds: accounts whose events are interleaved in the log, one read
-- table of them, and what a backend has used.

CREATE EXTENSION cqrs_es;
CREATE SCHEMA bench;

-- A hundred events of each account, of all accounts in turns.
CREATE PROCEDURE bench.fill(events bigint) LANGUAGE plpgsql AS $$
DECLARE
	accounts bigint := greatest(events / 100, 1);
BEGIN
	FOR start IN 1 .. events BY 100000 LOOP
		INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload)
			SELECT 'account', i % accounts, (i - 1) / accounts + 1,
				CASE WHEN i <= accounts THEN 'Opened' WHEN i % 4 = 0 THEN 'Withdrawn' ELSE 'Deposited' END,
				CASE WHEN i <= accounts THEN '{"owner": "Edsger"}' ELSE jsonb_build_object('amount', 0.25 * (i % 97), 'reference', 'invoice 17') END
			FROM generate_series(start, least(start + 99999, events)) AS i;
		COMMIT;
	END LOOP;
END $$;

-- Once more: a new one.
CREATE PROCEDURE bench.create_projection(name text, "table" text, mode text DEFAULT 'sync') LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.drop_projection(name, if_exists => true);
	EXECUTE format('DROP TABLE IF EXISTS bench.%I', "table");
	EXECUTE format('CREATE TABLE bench.%I (account text PRIMARY KEY, owner text, balance numeric NOT NULL DEFAULT 0)', "table");
	PERFORM cqrs_es.create_projection(name, '{account}', ARRAY[format('bench.%I', "table")::regclass],
		backfill => mode = 'async', mode => mode);
	PERFORM cqrs_es.define_handler(name, 'Opened',
		format($q$INSERT INTO bench.%I (account, owner) VALUES (event.aggregate_id, event.payload->>'owner')$q$, "table"));
	PERFORM cqrs_es.define_handler(name, 'Deposited',
		format($q$UPDATE bench.%I SET balance = balance + (event.payload->>'amount')::numeric WHERE account = event.aggregate_id$q$, "table"));
	PERFORM cqrs_es.define_handler(name, 'Withdrawn',
		format($q$UPDATE bench.%I SET balance = balance - (event.payload->>'amount')::numeric WHERE account = event.aggregate_id$q$, "table"));
END $$;

-- The peak of the address space of this backend, in kB: the kernel keeps that, so no short one is missed.
CREATE FUNCTION bench.peak_memory() RETURNS bigint LANGUAGE sql AS $$
	SELECT substring(pg_read_file('/proc/self/status') FROM 'VmPeak:\s+(\d+)')::bigint
$$;

CREATE TABLE bench.runs (round int, contestant text, ms numeric, wal numeric, dead bigint, kb numeric, memory bigint, rows text);

CREATE TABLE bench.begun (started timestamptz, lsn pg_lsn, memory bigint);

CREATE FUNCTION bench.middle(numeric[]) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
	SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY n)::numeric FROM unnest($1) AS n
$$;
CREATE AGGREGATE bench.median(numeric) (SFUNC = array_append, STYPE = numeric[], INITCOND = '{}', FINALFUNC = bench.middle);
