-- A projection: a read table that is written with the event, paused, rebuilt.
CREATE TABLE plain_totals (id text PRIMARY KEY, total numeric NOT NULL CHECK (total < 1000), events bigint NOT NULL);
SELECT cqrs_es.create_projection('plain totals', '{plain sale}', '{plain_totals}');
SELECT cqrs_es.define_handler('plain totals', 'Sold', $$INSERT INTO plain_totals VALUES (event.aggregate_id, (event.payload->>'price')::numeric, 1)
	ON CONFLICT (id) DO UPDATE SET total = plain_totals.total + excluded.total, events = plain_totals.events + 1$$);
SELECT version FROM cqrs_es.append_events('plain sale', 'shop', '[{"type": "Sold", "payload": {"price": 5}}, {"type": "Looked", "payload": {}}, {"type": "Sold", "payload": {"price": 7.5}}]');
SELECT * FROM plain_totals;

-- an event that the read table refuses is not appended
SELECT version FROM cqrs_es.append_event('plain sale', 'shop', 'Sold', '{"price": 990}');
SELECT cqrs_es.stream_version('plain sale', 'shop');
SELECT * FROM plain_totals;

SELECT cqrs_es.pause_projection('plain totals');
SELECT version FROM cqrs_es.append_event('plain sale', 'fair', 'Sold', '{"price": 1}');
SELECT * FROM plain_totals ORDER BY id;
SELECT cqrs_es.resume_projection('plain totals');
SELECT * FROM plain_totals ORDER BY id;
UPDATE plain_totals SET total = 0;
SELECT cqrs_es.rebuild_projection('plain totals');
SELECT * FROM plain_totals ORDER BY id;
SELECT name, state, errors FROM cqrs_es.projection_status WHERE name = 'plain totals';

-- the states of aggregates, kept in a table
SELECT cqrs_es.create_aggregate('plain sale', '{"sold": 0}');
SELECT cqrs_es.define_reducer('plain sale', 'Sold', '[{"op": "increment", "path": "/sold"}]');
CREATE TABLE plain_states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
SELECT cqrs_es.create_projection('plain states', read_models => '{plain_states}', state_of => 'plain sale');
SELECT version FROM cqrs_es.append_event('plain sale', 'shop', 'Sold', '{"price": 2}');
SELECT * FROM plain_states;

-- what is in use stays
\set SHOW_CONTEXT never
DROP TABLE plain_totals;
SELECT cqrs_es.drop_projection('plain states');
SELECT cqrs_es.drop_projection('plain totals');
DROP TABLE plain_totals, plain_states;
SELECT cqrs_es.drop_projection('plain totals');
