-- The sequence is counted by the client: unique, rising, and at no cost to the server.
\set stream random(1, 10000)
\set i :i + 1
\set sequence :base * 1000 + :i * 64 + :client_id
INSERT INTO bench.events (aggregate_type, aggregate_id, sequence, event_type, payload)
	VALUES ('account', :stream, :sequence, 'Deposited', :payload);
