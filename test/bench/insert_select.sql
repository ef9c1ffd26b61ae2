\if :ready = 0
SELECT payloads FROM bench.batch \gset
\set ready 1
\endif
\set stream random(1, 10000)
\set i :i + 1
\set sequence :base * 1000 + :i * 64000 + :client_id * 1000
INSERT INTO bench.events (aggregate_type, aggregate_id, sequence, event_type, payload)
	SELECT 'account', :stream, :sequence + n, 'Deposited', payload
	FROM unnest(:payloads::jsonb[]) WITH ORDINALITY AS batch (payload, n);
