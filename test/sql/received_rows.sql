\i test/include/setup.sql
-- A row that is received is the batch, and the event as read_all gives it, whatever is in
-- it and however the log is read.
SELECT plan(10);
SELECT cqrs_es.create_subscription('rows', aggregate_types => '{rows}') IS NULL AS x \gset

-- short, with nothing in it, compressed, out of line, not ASCII, of many lengths
SELECT count(cqrs_es.append_event('rows', id, type, payload)) AS x FROM (VALUES
	('a', 'Short', '{"n": 1}'::jsonb),
	('b', 'Empty', '{}'),
	('c', 'Compressed', jsonb_build_object('text', repeat('again and ', 5000))),
	('d', 'Long', jsonb_build_object('text', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 3000) i))),
	('ä é', 'Ünknown', '{"Ü": [1, null, {"ß": "…"}]}')) AS e(id, type, payload) \gset
SELECT count(cqrs_es.append_event('rows', repeat('l', i), 'T' || repeat('t', i % 250), jsonb_build_object('n', repeat('x', i)), metadata => jsonb_build_object('m', repeat('y', i % 7))))
	AS x FROM generate_series(1, 300) AS i \gset

CREATE FUNCTION pg_temp.received() RETURNS TABLE (one text, attempts bigint, events text) LANGUAGE sql AS $$
	SELECT count(DISTINCT batch) || ' ' || bool_or(redriven) || ' ' || bool_and(leased_until BETWEEN clock_timestamp() AND clock_timestamp() + interval '30 s'),
		sum(attempt), md5(string_agg(ROW(global_position, sequence, created_at, event_id, tenant_id, aggregate_type, aggregate_id,
			event_type, event_version, payload, metadata)::text, ';' ORDER BY global_position))
	FROM cqrs_es.receive_events('rows', 'c', 1000) $$;
CREATE FUNCTION pg_temp.read() RETURNS text LANGUAGE sql AS $$
	SELECT md5(string_agg(e::text, ';' ORDER BY global_position)) FROM cqrs_es.read_all(0, 1000, '{rows}') AS e $$;
CREATE FUNCTION pg_temp.again() RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.release_batch(batch) FROM cqrs_es.shares WHERE subscription = 'rows' $$;

SELECT * FROM pg_temp.received() \gset
SELECT is(:'one'::text, '1 false true', 'one batch, and its lease');
SELECT is(:attempts, 305, 'the first time for each');
SELECT is(:'events'::text, pg_temp.read(), 'the events are those of read_all');
SELECT pg_temp.again() IS NULL AS x \gset

SET cqrs_es.force_generic_path = on;
SELECT * FROM pg_temp.received() \gset
SELECT is(:'one'::text, '1 false true', 'on the generic way: the batch');
SELECT is(:'events'::text, pg_temp.read(), 'the events');
RESET cqrs_es.force_generic_path;
SELECT is(:'events'::text, pg_temp.read(), 'which are the same');
SELECT pg_temp.again() IS NULL AS x \gset

-- rows so old that nobody asks when they were committed
VACUUM (FREEZE) cqrs_es.events;
SELECT * FROM pg_temp.received() \gset
SELECT is(:'one'::text, '1 false true', 'frozen rows: the batch');
SELECT is(:'events'::text, pg_temp.read(), 'the events');
SELECT pg_temp.again() IS NULL AS x \gset

-- rows that are not just the columns of an event
BEGIN;
ALTER TABLE cqrs_es.events ADD COLUMN more text;
SELECT * FROM pg_temp.received() \gset
SELECT is(:'one'::text, '1 false true', 'with another column in the log: the batch');
SELECT is(:'events'::text, pg_temp.read(), 'the events');
SELECT * FROM finish();

ROLLBACK;
SELECT cqrs_es.drop_subscription('rows') IS NULL AS x \gset
