-- 680_counters: what has been counted, by name: see src/base/counter.c

CREATE TABLE cqrs_es.replay_counts ();
COMMENT ON TABLE cqrs_es.replay_counts IS
    'internal, without rows: its statistics count replays, those that began at a snapshot, and their events; see counters';

CREATE VIEW cqrs_es.counters AS
    SELECT (SELECT pg_catalog.sum(pg_catalog.pg_stat_get_tuples_inserted(l.relid))::bigint
            FROM (SELECT p.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass('cqrs_es.events')) AS p
                  UNION SELECT pg_catalog.to_regclass('cqrs_es.events')::pg_catalog.oid) AS l (relid)) AS inserted,
           pg_catalog.pg_stat_get_numscans('cqrs_es.conflict_counts'::pg_catalog.regclass::pg_catalog.oid) AS lost_races,
           pg_catalog.pg_stat_get_tuples_fetched('cqrs_es.conflict_counts'::pg_catalog.regclass::pg_catalog.oid) AS version_conflicts,
           r.replays,
           r.snapshot_hits,
           pg_catalog.pg_stat_get_tuples_returned(r.oid) AS replayed_events,
           pg_catalog.pg_stat_get_tuples_inserted('cqrs_es.snapshots'::pg_catalog.regclass::pg_catalog.oid)
               OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_tuples_updated('cqrs_es.snapshots'::pg_catalog.regclass::pg_catalog.oid) AS snapshots_taken,
           pg_catalog.pg_stat_get_numscans('cqrs_es.cache_counts'::pg_catalog.regclass::pg_catalog.oid) AS cache_invalidations,
           (SELECT pg_catalog.pg_stat_get_db_stat_reset_time(d.oid) FROM pg_catalog.pg_database AS d
            WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) AS reset_at
    FROM (SELECT c.oid, pg_catalog.pg_stat_get_numscans(c.oid) AS replays, pg_catalog.pg_stat_get_tuples_fetched(c.oid) AS snapshot_hits
          FROM (SELECT 'cqrs_es.replay_counts'::pg_catalog.regclass::pg_catalog.oid) AS c (oid)) AS r;
COMMENT ON VIEW cqrs_es.counters IS
    'one row of numbers that rise, from the statistics of the server: until they are reset, it crashes, or track_counts is off';
COMMENT ON COLUMN cqrs_es.counters.inserted IS 'rows that were inserted into the log, those too of transactions that were rolled back';
COMMENT ON COLUMN cqrs_es.counters.lost_races IS 'how often somebody else had appended to a stream since the version that a decision was made on';
COMMENT ON COLUMN cqrs_es.counters.version_conflicts IS 'how many of these the client was told of, QE001; a command is decided again otherwise';
COMMENT ON COLUMN cqrs_es.counters.replays IS 'how often a state was computed from events: for commands, snapshots, strict aggregate types, and whoever asked for it';
COMMENT ON COLUMN cqrs_es.counters.snapshot_hits IS 'how many of the replays began at a snapshot';
COMMENT ON COLUMN cqrs_es.counters.replayed_events IS 'how many events all these replays read';
COMMENT ON COLUMN cqrs_es.counters.snapshots_taken IS 'rows that were written into snapshots, those too of transactions that were rolled back';
COMMENT ON COLUMN cqrs_es.counters.cache_invalidations IS
    'how often a session threw away what it had read of declarations, since one of them, a function or a role had changed';
COMMENT ON COLUMN cqrs_es.counters.reset_at IS 'when all statistics of the database were reset by hand; NULL: never';
