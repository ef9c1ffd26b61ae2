SELECT event_id AS batch, count(*) OVER () AS n, max(global_position) OVER () AS after
	FROM cqrs_es.read_all(:after, :count) LIMIT 1 \gset
