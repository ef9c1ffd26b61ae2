-- For the bench of subscriptions, after setup.sql: a row to update, a long log to read,
-- and a consumer inside of the server.

CREATE TABLE bench.hot (n bigint) WITH (fillfactor = 20);
INSERT INTO bench.hot VALUES (0);
GRANT SELECT, UPDATE ON bench.hot TO bench_writer;
GRANT USAGE ON SCHEMA bench TO bench_writer;

CREATE TABLE bench.rare (ms numeric, nothing_ms numeric, received bigint);

CREATE PROCEDURE bench.fill(events bigint) LANGUAGE plpgsql AS $$
DECLARE
	batch jsonb;
BEGIN
	SELECT jsonb_agg(jsonb_build_object('type', 'Deposited', 'payload', '{"amount": 1250, "note": "short"}'::jsonb))
		INTO batch FROM generate_series(1, 1000);
	FOR i IN 1 .. ceil(events / 1000.0) LOOP
		PERFORM cqrs_es.append_events('filling', 's' || i, batch);
		IF i % 20 = 0 THEN
			COMMIT;
		END IF;
	END LOOP;
END $$;

-- Receive all that there is, with commits; then once more.
CREATE PROCEDURE bench.receive_rare() LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz := clock_timestamp();
	last uuid;
	n bigint;
	received bigint := 0;
	ms numeric;
	still boolean := true;
BEGIN
	WHILE received < 100 LOOP
		SELECT count(*), (array_agg(e.batch))[1] INTO n, last
			FROM cqrs_es.receive_events('rare', 'bench', 100, ack => last) AS e;
		COMMIT;
		received := received + n;
	END LOOP;
	ms := 1000 * extract(epoch FROM clock_timestamp() - started);
	PERFORM cqrs_es.ack_events(last);
	COMMIT;
	-- it may have to walk to the end once
	PERFORM FROM cqrs_es.receive_events('rare', 'bench', 100);
	COMMIT;
	started := clock_timestamp();
	PERFORM FROM cqrs_es.receive_events('rare', 'bench', 100);
	TRUNCATE bench.rare;
	INSERT INTO bench.rare VALUES (ms, 1000 * extract(epoch FROM clock_timestamp() - started), received);
	COMMIT;
END $$;
