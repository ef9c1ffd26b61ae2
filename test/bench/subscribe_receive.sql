SELECT batch, count(*) OVER () AS n, max(global_position) OVER () AS after
	FROM cqrs_es.receive_events('deliver', 'bench', :count, ack => nullif(:batch, 'none')::uuid) LIMIT 1 \gset
