\i test/include/setup.sql
\i test/include/own_log_end.sql
-- What a monitor sees of the log: positions, events and streams, counted and estimated, who holds readers back, what
-- is counted; and what it does not see. (What other sessions do: test/t/071_monitor.pl.)

SELECT plan(50);
SELECT cqrs_es.create_aggregate('mo', '{}', 10) IS NULL AS x \gset
CREATE ROLE mo_monitor IN ROLE pg_monitor;
CREATE ROLE mo_stats IN ROLE pg_read_all_stats;
CREATE ROLE mo_writer;
CREATE ROLE mo_nobody;
GRANT USAGE ON SCHEMA cqrs_es TO mo_writer, mo_nobody, mo_stats;
GRANT SELECT, INSERT ON cqrs_es.events TO mo_writer;
CREATE FUNCTION pg_temp.try(who text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM set_config('role', who, true);
	EXECUTE statement INTO result;
	PERFORM set_config('role', 'none', true);
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN concat(SQLSTATE, ': ', SQLERRM);
END $$;

-- the log
SELECT results_eq('SELECT last_position, settled_position, events, events_estimated, streams, streams_estimated, unsettled, unsettled_since, waiting FROM cqrs_es.log_status',
	$$VALUES (NULL::bigint, 0::bigint, 0::bigint, false, 0::bigint, false, 0::bigint, NULL::timestamptz, 0::bigint)$$, 'an empty log');
SELECT count(cqrs_es.append_event('mo', 's' || n % 3, 'made', '{"a": 1}')) AS x FROM generate_series(1, 7) n \gset
SET cqrs_es.tenant_id = 'mo blue';
SELECT count(cqrs_es.append_event('mo', 's' || n % 3, 'made', '{"a": 1}')) AS x FROM generate_series(1, 4) n \gset
RESET cqrs_es.tenant_id;
SELECT results_eq('SELECT last_position = cqrs_es.last_position(), settled_position = cqrs_es.settled_position(), events, events_estimated, streams, streams_estimated, unsettled FROM cqrs_es.log_status',
	$$VALUES (true, true, 11::bigint, false, 6::bigint, false, 0::bigint)$$, 'few events and streams are counted, those of all tenants');
SELECT is(bytes, pg_total_relation_size('cqrs_es.events'), 'its size') FROM cqrs_es.log_status;
SELECT is(percent_used, 0.000, 'next to no positions are used') FROM cqrs_es.log_status;

-- one's own transaction, which holds readers back
BEGIN;
SELECT cqrs_es.append_event('mo', 'own', 'made', '{}') IS NULL AS x \gset
SELECT results_eq('SELECT pid, prepared, since, usename, application_name, state FROM cqrs_es.unsettled_transactions',
	$$SELECT pg_backend_pid(), NULL::text, now(), current_user, current_setting('application_name'), 'active'$$, 'a transaction that has appended is shown');
SELECT results_eq('SELECT unsettled, unsettled_since, last_position - settled_position FROM cqrs_es.log_status', $$VALUES (1::bigint, now(), 1::bigint)$$, '... and its event is not settled');
SELECT is(pg_temp.try('mo_writer', 'SELECT pid FROM cqrs_es.unsettled_transactions'), '42501: permission denied for view unsettled_transactions', 'a writer does not see who holds readers back');
GRANT SELECT ON cqrs_es.unsettled_transactions TO mo_writer, mo_stats;
SELECT is(pg_temp.try('mo_writer', $$SELECT concat_ws(' ', pid = pg_backend_pid(), usename = session_user, since, query) FROM cqrs_es.unsettled_transactions$$), 't t <insufficient privilege>', '... unless it is granted, and then not since when, nor with which statement');
SELECT is(pg_temp.try('mo_stats', 'SELECT since = now() AND query IS NOT NULL FROM cqrs_es.unsettled_transactions'), 'true', '... which members of pg_read_all_stats see');
ROLLBACK;
SELECT is(count(*), 0::bigint, 'and no more when it has ended') FROM cqrs_es.unsettled_transactions;
BEGIN;
SELECT cqrs_es.next_position() IS NULL AS x \gset
SELECT is(count(*), 1::bigint, 'one that has taken a position and written nothing holds readers back as well') FROM cqrs_es.unsettled_transactions;
ROLLBACK;
BEGIN;
SELECT cqrs_es.append_event('mo', 'own', 'made', '{}') IS NULL AS x \gset
SET LOCAL client_min_messages = error;
ALTER SEQUENCE cqrs_es.events_global_position_seq MAXVALUE 17592186044415;
SELECT is(count(*), 1::bigint, 'with several locks it is one') FROM cqrs_es.unsettled_transactions;
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is(settled_position, last_position, 'above READ COMMITTED, too') FROM cqrs_es.log_status;
ROLLBACK;

-- many: estimated, of statistics that have seen every row, so without error; nobody else analyzes it meanwhile
BEGIN;
LOCK TABLE cqrs_es.events IN SHARE UPDATE EXCLUSIVE MODE;
SELECT count(cqrs_es.append_event_arrays('mo', 'm' || n, array_fill('made'::text, ARRAY[8]), array_fill('{}'::jsonb, ARRAY[8]))) AS x FROM generate_series(1, 1400) n \gset
ANALYZE cqrs_es.events;
SELECT results_eq('SELECT events, events_estimated, streams, streams_estimated FROM cqrs_es.log_status', $$VALUES (11211::bigint, true, 1406::bigint, true)$$, 'many are estimated');
SELECT count(cqrs_es.append_event_arrays('mo', 'l' || n, array_fill('made'::text, ARRAY[1000]), array_fill('{}'::jsonb, ARRAY[1000]))) AS x FROM generate_series(1, 4) n \gset
SELECT cmp_ok(events, '>', 13000::bigint, 'the estimate grows with the table, without ANALYZE') FROM cqrs_es.log_status;
SELECT cmp_ok(events, '<', 17500::bigint, '... as it does') FROM cqrs_es.log_status;

-- streams so long that the first event of one is a rare one
DELETE FROM pg_statistic WHERE starelid = 'cqrs_es.events'::regclass AND staattnum = (SELECT attnum FROM pg_attribute WHERE attrelid = 'cqrs_es.events'::regclass AND attname = 'sequence');
SELECT cmp_ok(streams, '>=', 1300::bigint, 'without frequencies the number of ids counts') FROM cqrs_es.log_status;
DELETE FROM pg_statistic WHERE starelid = 'cqrs_es.events'::regclass;
SELECT results_eq('SELECT streams, streams_estimated FROM cqrs_es.log_status', 'VALUES (1001::bigint, true)', 'without any statistics: more than were counted');
-- an old plan, or a table that looks small, is no reason to read all of it for every stream
SELECT set_config('enable_indexscan', 'off', true), set_config('enable_indexonlyscan', 'off', true) \gset
SELECT is(streams, 1001::bigint, 'counted whatever the settings of the session') FROM cqrs_es.log_status;
SELECT is(current_setting('enable_seqscan') || current_setting('enable_bitmapscan'), 'onon', '... which stay as they are');
ROLLBACK;

-- what is counted
BEGIN;
CREATE FUNCTION pg_temp.counted(OUT replays bigint, OUT hits bigint, OUT events bigint) LANGUAGE sql AS $$
	SELECT pg_stat_get_xact_numscans(t), pg_stat_get_xact_tuples_fetched(t), pg_stat_get_xact_tuples_returned(t) FROM (SELECT 'cqrs_es.replay_counts'::regclass::oid) AS t (t)
$$;
CREATE FUNCTION pg_temp.counts(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	before record := pg_temp.counted();
	later  record;
BEGIN
	EXECUTE statement;
	later := pg_temp.counted();
	RETURN concat_ws(' ', later.replays - before.replays, later.hits - before.hits, later.events - before.events);
END $$;
SELECT cqrs_es.append_event_arrays('mo', 'c', array_fill('made'::text, ARRAY[8]), array_fill('{}'::jsonb, ARRAY[8])) IS NULL AS x \gset
SELECT is(pg_temp.counts($$SELECT cqrs_es.aggregate_state('mo', 'c')$$), '1 0 8', 'a replay from the first event on, of eight events');
SELECT is(pg_temp.counts($$SELECT cqrs_es.append_event('mo', 'c', 'made', '{}')$$), '0 0 0', 'an append replays nothing');
SELECT is(pg_temp.counts($$SELECT cqrs_es.append_event('mo', 'c', 'made', '{}')$$), '1 0 10', '... unless a snapshot is due');
SELECT is(pg_temp.counts($$SELECT cqrs_es.append_event('mo', 'c', 'made', '{}')$$), '0 0 0', 'nor does the next one');
SELECT is(pg_temp.counts($$SELECT cqrs_es.load_aggregate('mo', 'c')$$), '1 1 1', 'a replay that begins at the snapshot');
SELECT is(pg_temp.counts($$SELECT cqrs_es.aggregate_state('mo', 'c', at_sequence => 3)$$), '1 0 3', 'before the snapshot there is none');
SELECT is(pg_temp.counts($$SELECT * FROM cqrs_es.replay('mo', 'c', 11)$$), '1 1 1', 'the debugger''s view');
SELECT cqrs_es.define_command('mo', 'make', $c$'{"type": "made", "payload": {}}'::jsonb$c$) IS NULL AS x \gset
SELECT is(pg_temp.counts($$SELECT cqrs_es.execute_command('mo', 'c', 'make', '{}')$$), '1 1 1', 'a command');
SELECT is(pg_temp.counts($$SELECT cqrs_es.aggregate_state('mo', 'none')$$), '1 0 0', 'no events at all');
CREATE FUNCTION pg_temp.fails(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		EXECUTE statement;
		RAISE EXCEPTION 'undo';
	EXCEPTION WHEN raise_exception THEN
		RETURN SQLERRM;
	END;
END $$;
SELECT is(pg_temp.counts($$SELECT pg_temp.fails('SELECT cqrs_es.aggregate_state(''mo'', ''c'')')$$), '1 1 2', 'what is rolled back was counted all the same');
SELECT set_config('track_counts', 'off', true) AS x \gset
SELECT is(pg_temp.counts($$SELECT cqrs_es.aggregate_state('mo', 'c')$$), '0 0 0', 'with track_counts = off nothing is counted');
SELECT set_config('track_counts', 'on', true) AS x \gset
-- lost races
CREATE FUNCTION pg_temp.conflicts(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	races bigint := pg_stat_get_xact_numscans('cqrs_es.conflict_counts'::regclass);
	told  bigint := pg_stat_get_xact_tuples_fetched('cqrs_es.conflict_counts'::regclass);
BEGIN
	BEGIN
		EXECUTE statement;
	EXCEPTION WHEN SQLSTATE 'QE001' THEN
	END;
	RETURN concat_ws(' ', pg_stat_get_xact_numscans('cqrs_es.conflict_counts'::regclass) - races, pg_stat_get_xact_tuples_fetched('cqrs_es.conflict_counts'::regclass) - told);
END $$;
SELECT is(pg_temp.conflicts($$SELECT cqrs_es.append_event('mo', 'c', 'made', '{}', expected_version => 1)$$), '1 1', 'a version conflict is a lost race of which the client was told');
SELECT is(pg_temp.conflicts($$SELECT cqrs_es.execute_command('mo', 'c', 'make', '{}', expected_version => 1)$$), '1 1', '... of a command, too');
SELECT is(pg_temp.conflicts($$SELECT cqrs_es.append_event('mo', 'c', 'made', '{}')$$), '0 0', 'an append that expects nothing is none');
-- caches
CREATE FUNCTION pg_temp.invalidations(statement text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	before bigint := pg_stat_get_xact_numscans('cqrs_es.cache_counts'::regclass);
BEGIN
	EXECUTE statement;
	PERFORM cqrs_es.aggregate_state('mo', 'c');
	PERFORM cqrs_es.aggregate_state('mo', 'c');
	RETURN pg_stat_get_xact_numscans('cqrs_es.cache_counts'::regclass) - before;
END $$;
SELECT cqrs_es.aggregate_state('mo', 'c') IS NULL AS x \gset
SELECT is(pg_temp.invalidations('SELECT'), 0::bigint, 'while nothing is declared no cache becomes old');
SELECT cmp_ok(pg_temp.invalidations($$SELECT cqrs_es.define_reducer('mo', 'other', '[{"op": "set", "path": "/a", "value": 1}]')$$), '>=', 1::bigint, 'a declaration makes them old');
ROLLBACK;
SELECT is((SELECT count(*) FROM cqrs_es.replay_counts) + (SELECT count(*) FROM cqrs_es.cache_counts) + (SELECT count(*) FROM cqrs_es.conflict_counts), 0::bigint, 'the tables of counts have no rows');

-- who may see what
SELECT is(pg_temp.try('mo_monitor', 'SELECT events > 0 FROM cqrs_es.log_status'), 'true', 'a monitor sees the log');
SELECT is(pg_temp.try('mo_monitor', 'SELECT count(*) FROM cqrs_es.counters, cqrs_es.projection_progress'), '0', '... the counters, and rebuilds');
SELECT is(pg_temp.try('mo_monitor', 'SELECT count(*) FROM cqrs_es.missing_objects'), '0', '... what is missing');
SELECT is(pg_temp.try('mo_monitor', 'SELECT count(*) FROM cqrs_es.unsettled_transactions'), '0', '... who holds readers back');
SELECT is(pg_temp.try('mo_monitor', 'SELECT count(*) FROM cqrs_es.tag_definitions WHERE NOT is_complete'), '0', '... how far retag is');
SELECT is(pg_temp.try('mo_monitor', 'SELECT count(*) FROM ' || relation), '42501: permission denied for ' || kind || split_part(relation, '.', 2), 'and not ' || relation)
FROM (VALUES ('table ', 'cqrs_es.events'), ('table ', 'cqrs_es.snapshots'), ('table ', 'cqrs_es.skipped_events'), ('table ', 'cqrs_es.handlers'), ('table ', 'cqrs_es.event_tags')) AS v (kind, relation);
SELECT is(pg_temp.try('mo_nobody', 'SELECT count(*) FROM cqrs_es.log_status'), '42501: permission denied for view log_status', 'nobody else does');
SELECT is(pg_temp.try('mo_nobody', 'SELECT cqrs_es.log_size()'), '42501: permission denied for function log_size', '... nor by the functions');

-- a log of one's own, whose streams are not in the order in which they are counted
ALTER TABLE cqrs_es.events DROP CONSTRAINT events_pkey;
CREATE UNIQUE INDEX ON cqrs_es.events (tenant_id, aggregate_type, aggregate_id, sequence);
SELECT results_eq('SELECT streams_estimated, streams >= 1, events, events_estimated FROM cqrs_es.log_status', 'VALUES (true, true, 11::bigint, false)', 'streams are not counted by reading the log for each');

REVOKE ALL ON cqrs_es.events FROM mo_writer;
REVOKE ALL ON cqrs_es.unsettled_transactions FROM mo_writer, mo_stats;
REVOKE ALL ON SCHEMA cqrs_es FROM mo_writer, mo_nobody, mo_stats;
DROP ROLE mo_monitor, mo_stats, mo_writer, mo_nobody;
SELECT finish();
\i test/include/own_log_end.sql
