-- 962_publication: a log is published, and handed over

CREATE FUNCTION cqrs_es.publish_log() RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_publish_log';
COMMENT ON FUNCTION cqrs_es.publish_log() IS
    'publishes the log, so that other databases can follow it: makes the publications cqrs_es_log and cqrs_es_declarations, or mends them';
REVOKE EXECUTE ON FUNCTION cqrs_es.publish_log() FROM PUBLIC;

CREATE FUNCTION cqrs_es.unpublish_log() RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_unpublish_log';
COMMENT ON FUNCTION cqrs_es.unpublish_log() IS
    'drops the publications of the log, and the replication slots of those who followed it, which must not do so any more';
REVOKE EXECUTE ON FUNCTION cqrs_es.unpublish_log() FROM PUBLIC;

CREATE FUNCTION cqrs_es.hand_over_log() RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_hand_over_log';
COMMENT ON FUNCTION cqrs_es.hand_over_log() IS
    'ends appending here, so that a database that follows can take over; waits for those who are at it; returns the last position that was drawn';
REVOKE EXECUTE ON FUNCTION cqrs_es.hand_over_log() FROM PUBLIC;

CREATE FUNCTION cqrs_es.take_back_log() RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_take_back_log';
COMMENT ON FUNCTION cqrs_es.take_back_log() IS
    'lets this database append again, after hand_over_log(); only when nobody has taken the log over';
REVOKE EXECUTE ON FUNCTION cqrs_es.take_back_log() FROM PUBLIC;

CREATE VIEW cqrs_es.log_followers AS
    SELECT s.slot_name::text AS slot,
           s.active,
           r.client_addr,
           r.state,
           pg_catalog.pg_wal_lsn_diff(w.now, s.confirmed_flush_lsn)::bigint AS lag_bytes,
           r.replay_lag AS lag_time,
           pg_catalog.pg_wal_lsn_diff(w.now, s.restart_lsn)::bigint AS kept_bytes,
           s.wal_status
    FROM pg_catalog.pg_replication_slots AS s
    LEFT JOIN pg_catalog.pg_stat_replication AS r ON r.pid OPERATOR(pg_catalog.=) s.active_pid
    CROSS JOIN (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
        ELSE pg_catalog.pg_current_wal_lsn() END AS now) AS w
    WHERE s.slot_type OPERATOR(pg_catalog.=) 'logical' AND s.plugin OPERATOR(pg_catalog.=) 'pgoutput'
      AND s.database OPERATOR(pg_catalog.=) pg_catalog.current_database()
      AND pg_catalog.starts_with(s.slot_name::text, 'cqrs_es_');
COMMENT ON VIEW cqrs_es.log_followers IS
    'who follows the log of this database, and how far each is behind; one that is not active keeps WAL from being removed';
COMMENT ON COLUMN cqrs_es.log_followers.lag_bytes IS 'of WAL that the follower has not confirmed, of all databases of the server';
COMMENT ON COLUMN cqrs_es.log_followers.lag_time IS 'as of late, how long it took from a commit here until it was applied there; NULL while nothing happens';
COMMENT ON COLUMN cqrs_es.log_followers.kept_bytes IS 'of WAL that the server keeps for it';
