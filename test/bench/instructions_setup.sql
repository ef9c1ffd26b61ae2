-- What is counted: projections and their triggers written by hand, commands and theirs.
-- setup.sql has made the two logs.

-- the same table three times: with nothing, one trigger, five
CREATE TABLE bench.events_1 (LIKE bench.events INCLUDING ALL);
CREATE TABLE bench.events_5 (LIKE bench.events INCLUDING ALL);

-- five read tables, filled by triggers, and five by handlers
DO $$
BEGIN
	FOR n IN 1 .. 5 LOOP
		EXECUTE format('CREATE TABLE bench.by_trigger_%s (account text PRIMARY KEY, balance numeric NOT NULL)', n);
		EXECUTE format('CREATE TABLE bench.by_handler_%s (account text PRIMARY KEY, balance numeric NOT NULL)', n);
		EXECUTE format('CREATE FUNCTION bench.on_event_%1$s() RETURNS trigger LANGUAGE plpgsql AS $body$
			BEGIN
				INSERT INTO bench.by_trigger_%1$s AS t VALUES (NEW.aggregate_id, (NEW.payload->>''amount'')::numeric)
					ON CONFLICT (account) DO UPDATE SET balance = t.balance + excluded.balance;
				RETURN NULL;
			END $body$', n);
		EXECUTE format('CREATE TRIGGER on_event_%1$s AFTER INSERT ON bench.events_5
			FOR EACH ROW EXECUTE FUNCTION bench.on_event_%1$s()', n);
		PERFORM cqrs_es.create_projection('five ' || n, aggregate_types => '{five}',
			read_models => ARRAY[('bench.by_handler_' || n)::regclass]);
		PERFORM cqrs_es.define_handler('five ' || n, 'Deposited', format(
			'INSERT INTO bench.by_handler_%s AS t VALUES (event.aggregate_id, (event.payload->>''amount'')::numeric)
				ON CONFLICT (account) DO UPDATE SET balance = t.balance + excluded.balance', n));
	END LOOP;
END
$$;

CREATE TABLE bench.by_trigger (LIKE bench.by_trigger_1 INCLUDING ALL);
CREATE TABLE bench.by_handler (LIKE bench.by_trigger_1 INCLUDING ALL);
CREATE FUNCTION bench.on_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO bench.by_trigger AS t VALUES (NEW.aggregate_id, (NEW.payload->>'amount')::numeric)
		ON CONFLICT (account) DO UPDATE SET balance = t.balance + excluded.balance;
	RETURN NULL;
END
$$;
CREATE TRIGGER on_event AFTER INSERT ON bench.events_1 FOR EACH ROW EXECUTE FUNCTION bench.on_event();
SELECT cqrs_es.create_projection('one', aggregate_types => '{one}', read_models => '{bench.by_handler}') \g /dev/null
SELECT cqrs_es.define_handler('one', 'Deposited',
	'INSERT INTO bench.by_handler AS t VALUES (event.aggregate_id, (event.payload->>''amount'')::numeric)
		ON CONFLICT (account) DO UPDATE SET balance = t.balance + excluded.balance') \g /dev/null

-- the state of each aggregate in a row
CREATE TABLE bench.states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
SELECT cqrs_es.create_aggregate('stated', '{"balance": 0}') \g /dev/null
SELECT cqrs_es.define_reducer('stated', 'Deposited', '[{"op": "increment", "path": "/balance", "from": "/amount"}]') \g /dev/null
SELECT cqrs_es.create_projection('states', state_of => 'stated', read_models => '{bench.states}') \g /dev/null

-- each stream of these has been met, and has its rows: to insert one is not what it is to change it
SELECT cqrs_es.append_event(aggregate_type, (1 + n * 7919 % 1000)::text, 'Deposited', :'payload')
FROM generate_series(1, 1000) AS n, unnest('{one,five,stated}'::text[]) AS aggregate_type \g /dev/null
INSERT INTO bench.events_1 (aggregate_type, aggregate_id, sequence, event_type, payload)
	SELECT 'one', 1 + n * 7919 % 1000, n, 'Deposited', :'payload' FROM generate_series(1, 1000) AS n;
INSERT INTO bench.events_5 (aggregate_type, aggregate_id, sequence, event_type, payload)
	SELECT 'five', 1 + n * 7919 % 1000, n, 'Deposited', :'payload' FROM generate_series(1, 1000) AS n;

-- accounts of 1,000 events with a snapshot each 100, and one that keeps its state in a row
SELECT cqrs_es.create_aggregate('commanded', '{"balance": 0}', snapshot_every => 100) \g /dev/null
SELECT cqrs_es.define_reducer('commanded', 'Deposited', '[{"op": "increment", "path": "/balance", "from": "/amount"}]') \g /dev/null
SELECT cqrs_es.define_command('commanded', 'Deposit', $$
	CASE WHEN (command->>'amount')::numeric + (state->>'balance')::numeric < 0 THEN cqrs_es.reject('funds not available')
		ELSE jsonb_build_object('type', 'Deposited', 'payload', command) END
$$) \g /dev/null
SELECT cqrs_es.append_events('commanded', id::text,
	(SELECT jsonb_agg('{"type": "Deposited", "payload": {"amount": 1.25}}'::jsonb) FROM generate_series(1, 1000)))
FROM generate_series(1, 100) AS id \g /dev/null
SELECT cqrs_es.take_snapshot('commanded', id::text) FROM generate_series(1, 100) AS id \g /dev/null

CREATE TABLE bench.accounts (id text PRIMARY KEY, version bigint NOT NULL, balance numeric NOT NULL);
INSERT INTO bench.accounts SELECT id, 1000, 1250 FROM generate_series(1, 100) AS id;
CREATE FUNCTION bench.deposit(account text, command jsonb, OUT version bigint, OUT balance numeric) LANGUAGE plpgsql AS $$
BEGIN
	UPDATE bench.accounts AS a SET version = a.version + 1, balance = a.balance + (command->>'amount')::numeric
		WHERE a.id = account RETURNING a.version, a.balance INTO version, balance;
	IF balance < 0 THEN
		RAISE 'funds not available';
	END IF;
	INSERT INTO bench.events (aggregate_type, aggregate_id, sequence, event_type, payload)
		VALUES ('commanded', account, version, 'Deposited', command);
END
$$;

-- appends to one stream and to fifty in turn
CREATE TABLE bench.batches AS SELECT streams, (SELECT jsonb_agg(jsonb_build_object('aggregate_type', 'batch', 'aggregate_id', 's' || n % streams, 'type', 'Deposited', 'payload', '{}') ORDER BY n)
	FROM generate_series(1, 1000) AS n) AS events FROM unnest('{1,50}'::int[]) AS streams;

-- a stream that is longer than the others
SELECT cqrs_es.append_events('account', 'long',
	(SELECT jsonb_agg('{"type": "Deposited", "payload": {"amount": 1.25}}'::jsonb) FROM generate_series(1, 20000))) \g /dev/null

-- a hundred streams of a hundred events each, to be read, in both logs
SELECT cqrs_es.append_events('read', stream::text, (SELECT jsonb_path_query_array(events::jsonb, '$[0 to 99]') FROM bench.batch WHERE n = 1000))
FROM generate_series(1, 100) AS stream \g /dev/null
INSERT INTO bench.events SELECT * FROM cqrs_es.events WHERE aggregate_type = 'read' ORDER BY global_position;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA bench TO bench_writer;
VACUUM ANALYZE;
