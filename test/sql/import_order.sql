\i test/include/setup.sql
-- In which order an import appends where positions or times are missing, in all rows or in
-- some: a stream is never turned around, and nothing that is a history is refused.
BEGIN;
SELECT plan(14);
CREATE SCHEMA import_order;
SET LOCAL search_path = import_order, public;

-- the events in the order of the log; the rows are (stream, sequence, position, time)
CREATE FUNCTION pg_temp.order_of(rows text, columns text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found text;
	before bigint := (SELECT coalesce(max(global_position), 0) FROM cqrs_es.events);
BEGIN
	EXECUTE format('CREATE TABLE import_order.source AS SELECT %L AS aggregate_type, ''e'' AS event_type, ''{}''::jsonb AS payload, %s
		FROM (VALUES %s) AS v (aggregate_id, sequence, "position", created_at)', md5(rows || columns), columns, rows);
	PERFORM cqrs_es.import_events('import_order.source');
	DROP TABLE import_order.source;
	SELECT string_agg(aggregate_id || sequence, ' ' ORDER BY global_position) INTO found FROM cqrs_es.events WHERE global_position > before;
	RETURN found;
END $$;
\set all 'aggregate_id, sequence, "position"::bigint, created_at::timestamptz'

SELECT is(pg_temp.order_of($$('a', 1, NULL, '2020-01-03'), ('b', 1, NULL, '2020-01-01')$$, :'all'), 'b1 a1', 'no position in any row: by time');
SELECT is(pg_temp.order_of($$('a', 1, NULL, '2020-01-03'), ('a', 2, NULL, '2020-01-01'), ('b', 1, NULL, '2020-01-02'), ('b', 2, NULL, '2020-01-05')$$, :'all'),
	'b1 a1 a2 b2', 'and no stream is turned around');
SELECT is(pg_temp.order_of($$('a', 1, NULL, NULL), ('a', 2, NULL, '2019-01-01'), ('b', 1, NULL, '2018-01-01'), ('c', 1, NULL, '2020-01-01')$$, :'all'),
	'b1 a1 a2 c1', 'a stream whose first event has no time stands where its second does');
SELECT is(pg_temp.order_of($$('a', 1, NULL, NULL::text), ('a', 2, NULL, '2019-01-01')$$, 'aggregate_id, sequence, created_at::timestamptz'), 'a1 a2', 'also without the column position');
SELECT is(pg_temp.order_of($$('a', 1, NULL, '2019-01-01'), ('a', 2, NULL, NULL), ('a', 3, NULL, '2019-01-05'), ('b', 1, NULL, '2019-01-03')$$, :'all'),
	'a1 a2 b1 a3', 'one in the middle stands behind the one before');
SELECT is(pg_temp.order_of($$('a', 1, NULL, NULL), ('a', 2, NULL, NULL), ('b', 1, NULL, '2019-01-03')$$, :'all'), 'b1 a1 a2', 'a stream without times comes last');
SELECT is(pg_temp.order_of($$('a', 1, NULL::int, NULL::text), ('a', 2, NULL, NULL), ('b', 1, NULL, NULL)$$, :'all'), 'a1 a2 b1', 'neither positions nor times: one stream after the other');
SELECT is(pg_temp.order_of($$('a', 1, NULL, '2020-01-01'), ('a', 2, 20, '2018-01-01'), ('b', 1, 10, '2021-01-01'), ('c', 1, 30, '2017-01-01')$$, :'all'),
	'b1 a1 a2 c1', 'a stream whose first event has no position stands where its second does');
SELECT is(pg_temp.order_of($$('a', 1, 10, NULL::text), ('a', 2, NULL, NULL), ('a', 3, 30, NULL), ('b', 1, 20, NULL)$$, :'all'), 'a1 a2 b1 a3', 'one in the middle stands behind the one before');
SELECT is(pg_temp.order_of($$('a', 1, NULL, '2020-01-02'), ('b', 1, 10, '2022-01-01'), ('c', 1, NULL, '2020-01-01')$$, :'all'), 'b1 c1 a1', 'streams without positions come behind the others, by time');
SELECT is(pg_temp.order_of($$('a', 1, 10, NULL), ('a', 2, NULL, '2020-01-01'), ('a', 3, 10.5, '2019-01-01'), ('b', 1, 10.25, NULL)$$, 'aggregate_id, sequence, "position", created_at::timestamptz'),
	'a1 a2 b1 a3', 'whatever is mixed');
SELECT is((SELECT array_agg(e) FROM unnest(pg_temp.error_of($$SELECT pg_temp.order_of('(''a'', 1, 10, NULL::text), (''a'', 2, NULL, NULL), (''a'', 3, 5, NULL)', 'aggregate_id, sequence, position')$$, '{state,message}')) AS e)::text
	LIKE '%22023%event 3 of stream%has no greater position than those before it%', true, 'a position that falls is found behind one that is missing, too');
SELECT is(pg_temp.state_of($$SELECT pg_temp.order_of('(''a'', NULL::int, 10, NULL::text)', 'aggregate_id, sequence, position')$$), '22004', 'a sequence that is null is an error');
SELECT is(pg_temp.state_of($$SELECT pg_temp.order_of('(''a'', 1, NULL::int, NULL::text)', 'aggregate_id, position')$$), '22004', 'and so is a position where there are no sequences');
ROLLBACK;
