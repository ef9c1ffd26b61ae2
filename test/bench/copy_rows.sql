-- The rows of one batch, all of one random stream, for COPY.
COPY (
	SELECT 'account', stream, 'Deposited', payload
	FROM (SELECT (1 + random() * 9999)::int AS stream) AS s,
		unnest((SELECT payloads::jsonb[] FROM bench.batch WHERE n = :n)) AS payload
) TO STDOUT;
