-- For the growth of the log, after setup.sql.

-- Events of 100,000 streams in turns, until there are so many, in both tables.
CREATE PROCEDURE bench.grow(events bigint) LANGUAGE plpgsql AS $$
DECLARE
	payload jsonb := (SELECT b.events::jsonb #> '{0,payload}' FROM bench.batch AS b LIMIT 1);
	there bigint := (SELECT count(*) FROM cqrs_es.events);
BEGIN
	WHILE there < events LOOP
		INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
			SELECT 'account', 1 + (i * 7919) % 100000, 'Deposited', payload FROM generate_series(there, least(there + 100000, events) - 1) AS i;
		INSERT INTO bench.events (aggregate_type, aggregate_id, event_type, payload)
			SELECT 'account', 1 + (i * 7919) % 100000, 'Deposited', payload FROM generate_series(there, least(there + 100000, events) - 1) AS i;
		COMMIT;
		there := least(there + 100000, events);
	END LOOP;
END $$;

-- Of heap and indexes.
CREATE FUNCTION bench.bytes() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s %s + %s', log, pg_table_size(log) / n, pg_indexes_size(log) / n), ', ' ORDER BY log::text DESC)
	FROM (SELECT 'cqrs_es.events'::regclass, count(*) FROM cqrs_es.events UNION ALL SELECT 'bench.events'::regclass, count(*) FROM bench.events) AS logs (log, n)
$$;
