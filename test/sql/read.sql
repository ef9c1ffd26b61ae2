\i test/include/setup.sql
-- Reading the log: a stream in its own order, all events by global position.
SELECT plan(56);

-- read_stream and stream_version

BEGIN;
SELECT cqrs_es.append_events('read', 's', (SELECT jsonb_agg(jsonb_build_object('type', 'e', 'payload', n) ORDER BY n) FROM generate_series(1, 300) n)) IS NULL AS x \gset
SELECT cqrs_es.append_event('read', 't', 'other', '{}') IS NULL AS x \gset
COMMIT;
SELECT is(cqrs_es.stream_version('read', 's'), 300::bigint, 'the version is the last sequence');
SELECT is(cqrs_es.stream_version('read', 't'), 1::bigint, 'of just that stream');
SELECT is(cqrs_es.stream_version('read', 'none'), 0::bigint, '0 when there is none');
CREATE FUNCTION pg_temp.sequences(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
	EXECUTE format('SELECT string_agg(CASE WHEN n IN (1, c) THEN sequence::text END, ''..'' ORDER BY n) || '' of '' || min(c)
		|| CASE WHEN bool_and(abs(sequence - before) = 1) THEN '' one by one'' ELSE '''' END
		FROM (SELECT *, row_number() OVER () n, count(*) OVER () c, lag(sequence) OVER () AS before FROM %s) x', call) INTO result;
	RETURN result;
END $$;
SELECT is(pg_temp.sequences(format('cqrs_es.read_stream(''read'', ''s''%s)', args)), expected, 'read_stream: ' || coalesce(nullif(args, ''), 'all'))
FROM (VALUES (1, '', '1..300 of 300 one by one'),
	(2, ', 1', '1..300 of 300 one by one'),
	(3, ', 0', '1..300 of 300 one by one'),
	(4, ', NULL', '1..300 of 300 one by one'),
	(5, ', 200', '200..300 of 101 one by one'),
	(6, ', 300', '300 of 1'),
	(7, ', 301', NULL),
	(8, ', 9223372036854775807', NULL),
	(9, ', 10, 5', '10..14 of 5 one by one'),
	(10, ', 299, 5', '299..300 of 2 one by one'),
	(11, ', max_count => 130', '1..130 of 130 one by one'),
	(12, ', max_count => 0', NULL),
	(13, ', max_count => 9223372036854775807', '1..300 of 300 one by one'),
	(14, ', backward => true', '300..1 of 300 one by one'),
	(15, ', backward => NULL', '1..300 of 300 one by one'),
	(16, ', NULL, 5, true', '300..296 of 5 one by one'),
	(17, ', 200, NULL, true', '200..1 of 200 one by one'),
	(18, ', 200, 150, true', '200..51 of 150 one by one'),
	(19, ', 1000, 3, true', '300..298 of 3 one by one'),
	(20, ', 1, 3, true', '1 of 1'),
	(21, ', backward => true, max_count => 0', NULL),
	-- a pager that goes on before sequence 1 is at the end
	(22, ', 0, 3, true', NULL)) t (n, args, expected)
ORDER BY n;
SELECT results_eq($$SELECT sequence, payload FROM cqrs_es.read_stream('read', 's', max_count => 2)$$,
	$$SELECT sequence, payload FROM cqrs_es.events WHERE aggregate_type = 'read' AND aggregate_id = 's' ORDER BY sequence LIMIT 2$$, 'the rows are those of the table');
SELECT is((SELECT e FROM cqrs_es.read_stream('read', 't') e), (SELECT ROW(global_position, sequence, created_at, event_id, tenant_id, aggregate_type,
	aggregate_id, event_type, event_version, payload, metadata)::cqrs_es.event FROM cqrs_es.events WHERE aggregate_type = 'read' AND aggregate_id = 't'),
	'column by column');
SELECT is(count(*), 599::bigint, 'two scans at a time')
FROM cqrs_es.read_stream('read', 's') a, cqrs_es.read_stream('read', 's', a.sequence, 2) b WHERE b.sequence - a.sequence IN (0, 1);
SELECT is((SELECT count(*) FROM (SELECT cqrs_es.read_stream('read', 's') LIMIT 10) x), 10::bigint, 'also in a select list');
BEGIN READ ONLY;
SELECT is(pg_temp.sequences('cqrs_es.read_stream(''read'', ''s'')'), '1..300 of 300 one by one', 'a read-only transaction may read');
COMMIT;

-- own events before the commit: read_stream sees them, as any statement would

BEGIN;
SELECT cqrs_es.append_event('read', 't', 'other', '{}') IS NULL AS x \gset
SELECT cqrs_es.stream_version('read', 't') AS own_version, (SELECT count(*) FROM cqrs_es.read_stream('read', 't')) AS own_count \gset
SAVEPOINT s;
SELECT cqrs_es.append_event('read', 't', 'other', '{}') IS NULL AS x \gset
ROLLBACK TO s;
SELECT cqrs_es.stream_version('read', 't') AS back_version \gset
ROLLBACK;
SELECT is(ARRAY[:own_version, :own_count, :back_version], ARRAY[2, 2, 2], 'own events are read before they are committed, but not when rolled back');
SELECT is(cqrs_es.stream_version('read', 't'), 1::bigint, 'after the rollback they are gone');

-- read_all; what other tests have left lies before :start

SELECT cqrs_es.settled_position() AS start \gset
BEGIN;
SELECT cqrs_es.append_event('read order', '1', 'placed', '1') IS NULL AS x \gset
SELECT cqrs_es.append_event('read order', '2', 'placed', '2') IS NULL AS x \gset
SELECT cqrs_es.append_event('read user', '1', 'joined', '3') IS NULL AS x \gset
SELECT cqrs_es.append_event('read order', '1', 'paid', '4') IS NULL AS x \gset
COMMIT;
BEGIN;
SELECT cqrs_es.append_event('read order', '1', 'placed', '"gap"') IS NULL AS x \gset
ROLLBACK;
BEGIN;
SELECT cqrs_es.append_event('read user', '2', 'joined', '5') IS NULL AS x \gset
SAVEPOINT s;
SELECT cqrs_es.append_events('read order', '3', '[{"type": "placed", "payload": "gap"}, {"type": "placed", "payload": "gap"}]') IS NULL AS x \gset
ROLLBACK TO s;
SELECT cqrs_es.append_event('read order', '2', 'paid', '6') IS NULL AS x \gset
COMMIT;
BEGIN;
SET LOCAL cqrs_es.tenant_id = 'read tenant';
SELECT cqrs_es.append_event('read order', '1', 'placed', '7') IS NULL AS x \gset
COMMIT;
SELECT set_config('read.start', :'start', false) IS NULL AS x \gset
CREATE FUNCTION pg_temp.all_events(args text DEFAULT '', after bigint DEFAULT current_setting('read.start')::bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
	EXECUTE format('SELECT string_agg(payload::text, '' '' ORDER BY n)
		FROM (SELECT payload, row_number() OVER () AS n FROM cqrs_es.read_all(%s%s)) x', after, args) INTO result;
	RETURN result;
END $$;
SELECT is(pg_temp.all_events(args), expected, 'read_all' || args)
FROM (VALUES (1, '', '1 2 3 4 5 6'),
	(2, ', 3', '1 2 3'),
	(3, ', 0', NULL),
	(4, ', NULL', '1 2 3 4 5 6'),
	(5, $$, aggregate_types => '{read user}'$$, '3 5'),
	(6, $$, aggregate_types => '{read user,read order}'$$, '1 2 3 4 5 6'),
	(7, $$, event_types => '{paid}'$$, '4 6'),
	(8, $$, event_types => '{paid,joined}'$$, '3 4 5 6'),
	(9, $$, 1, '{read order}', '{paid}'$$, '4'),
	(10, $$, 2, '{read user}'$$, '3 5'),
	(11, $$, aggregate_types => '{read user}', event_types => '{paid}'$$, NULL),
	(12, $$, aggregate_types => '{}'$$, NULL),
	(13, $$, event_types => '{}'$$, NULL),
	(14, $$, event_types => '{paid,paid,""}'$$, '4 6'),
	(15, $$, event_types => '{pai,paidd,PAID}'$$, NULL)) t (n, args, expected)
ORDER BY n;
SELECT is(pg_temp.all_events('', (SELECT global_position FROM cqrs_es.read_stream('read user', '1'))), '4 5 6', 'behind an event');
SELECT is(pg_temp.all_events('', cqrs_es.settled_position()), NULL, 'behind the last nothing is left');
SELECT is(pg_temp.all_events('', 9223372036854775807), NULL, 'nor behind the end of all numbers');
SELECT is((SELECT string_agg(payload::text, ' ') FROM (SELECT * FROM cqrs_es.read_all(NULL, NULL) WHERE aggregate_type LIKE 'read %') x), '1 2 3 4 5 6',
	'NULL is the beginning of the log');
SET cqrs_es.tenant_id = 'read tenant';
SELECT is(pg_temp.all_events(), '7', 'a tenant reads its own');
RESET cqrs_es.tenant_id;

-- a reader that goes on after the last event it saw
CREATE FUNCTION pg_temp.page(size bigint, after bigint DEFAULT current_setting('read.start')::bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE e cqrs_es.event; pages text := ''; n integer;
BEGIN
	LOOP
		n := 0;
		FOR e IN SELECT * FROM cqrs_es.read_all(after, size) LOOP
			pages := pages || e.payload || ' '; after := e.global_position; n := n + 1;
		END LOOP;
		IF n = 0 THEN RETURN rtrim(pages); END IF;
		pages := pages || '| ';
	END LOOP;
END $$;
SELECT is(pg_temp.page(4), '1 2 3 4 | 5 6 |', 'pages of 4');
SELECT is(pg_temp.page(1), '1 | 2 | 3 | 4 | 5 | 6 |', 'pages of 1');

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is(pg_temp.all_events(), '1 2 3 4 5 6', 'in REPEATABLE READ, too');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT is(pg_temp.all_events(), '1 2 3 4 5 6', 'and in a serializable read-only transaction');
COMMIT;
SELECT finish();
