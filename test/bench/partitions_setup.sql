-- A log in partitions, of "hash" or of "ranges": a hundred streams of a hundred events, ten by ten, so that
-- by position each has ten events in each of ten partitions; and a thousand streams of now.

CREATE EXTENSION cqrs_es;
GRANT USAGE ON SCHEMA cqrs_es TO bench_writer;
GRANT SELECT, INSERT ON cqrs_es.events TO bench_writer;
SELECT CASE :'log' WHEN 'hash' THEN cqrs_es.partition_log('aggregate_id', partitions => 8)
	ELSE cqrs_es.partition_log('position', every => 1000) END;
SELECT cqrs_es.keep_partitions(20) WHERE :'log' = 'ranges';
SELECT FROM generate_series(1, 10) AS tens, generate_series(1, 100) AS stream, LATERAL cqrs_es.append_events('read', (stream + 0 * tens)::text,
	(SELECT jsonb_agg(jsonb_build_object('type', 'Deposited', 'payload', :'payload'::jsonb)) FROM generate_series(1, 10))) AS a;
SELECT FROM generate_series(1, 1000) AS stream, LATERAL cqrs_es.append_event('account', stream::text, 'Deposited', :'payload'::jsonb);
SELECT FROM generate_series(1, 500) AS stream, LATERAL cqrs_es.append_event('account', stream::text, 'Deposited', :'payload'::jsonb);
VACUUM ANALYZE cqrs_es.events;
