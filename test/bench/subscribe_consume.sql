CALL cqrs_es.wait_for_events(:subscription, timeout => '30 s');
SELECT coalesce((array_agg(batch))[1]::text, 'none') AS batch
	FROM cqrs_es.receive_events(:subscription, 'consumer ' || :client_id::text, :count, ack => nullif(:batch, 'none')::uuid) \gset
