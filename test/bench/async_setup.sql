-- For the bench of asynchronous projections: a read table with a row for each stream, its
-- handler, and a long log.

CREATE EXTENSION cqrs_es;
CREATE SCHEMA bench;

CREATE TABLE bench.accounts (account text PRIMARY KEY, sequence bigint NOT NULL, handled bigint NOT NULL, balance numeric NOT NULL);

GRANT USAGE ON SCHEMA cqrs_es, bench TO bench_writer;
GRANT SELECT, INSERT ON cqrs_es.events TO bench_writer;
GRANT SELECT ON bench.accounts TO bench_writer;

CREATE FUNCTION bench.define_handler() RETURNS void LANGUAGE sql AS $define$
	SELECT cqrs_es.define_handler('accounts', 'Deposited', $$
		INSERT INTO bench.accounts
			VALUES (event.aggregate_id, event.sequence, 1, (event.payload->>'amount')::numeric)
			ON CONFLICT (account) DO UPDATE SET sequence = excluded.sequence, handled = accounts.handled + 1,
				balance = accounts.balance + excluded.balance
	$$)
$define$;

-- Streams of ten events, interleaved, 1,000 events in a transaction.
CREATE TABLE bench.payload AS SELECT :'payload'::jsonb AS payload;
CREATE PROCEDURE bench.fill(events bigint) LANGUAGE plpgsql AS $$
DECLARE
	streams bigint := greatest(events / 10, 1);
BEGIN
	FOR start IN 0 .. events - 1 BY 1000 LOOP
		INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload)
			SELECT 'account', i % streams, i / streams + 1, 'Deposited', payload
			FROM bench.payload, generate_series(start, least(start + 999, events - 1)) AS i;
		COMMIT;
	END LOOP;
END $$;
