-- 430_log_status: the log as a whole, for monitors

CREATE FUNCTION cqrs_es.log_size(
    OUT events            bigint,
    OUT events_estimated  boolean,
    OUT streams           bigint,
    OUT streams_estimated boolean,
    OUT bytes             bigint
) RETURNS record
    LANGUAGE C STABLE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_log_size';
COMMENT ON FUNCTION cqrs_es.log_size() IS
    'how much is in the log, of all tenants: counted up to 10,000 events and 1,000 streams, estimated from the statistics of the table above that';
REVOKE EXECUTE ON FUNCTION cqrs_es.log_size() FROM PUBLIC;

CREATE FUNCTION cqrs_es.known_settled_position() RETURNS bigint
    LANGUAGE C STABLE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_known_settled_position';
COMMENT ON FUNCTION cqrs_es.known_settled_position() IS
    'what settled_position() says, for monitors: waits 100 ms at most; NULL while this session has never seen the log settled, and where it would have to read more than 100,000 events';
REVOKE EXECUTE ON FUNCTION cqrs_es.known_settled_position() FROM PUBLIC;

-- Who waits holds a lock on an object that does not exist: see src/base/wakeup.c
CREATE VIEW cqrs_es.log_status AS
    SELECT cqrs_es.last_position() AS last_position,
           cqrs_es.known_settled_position() AS settled_position,
           s.events,
           s.events_estimated,
           s.streams,
           s.streams_estimated,
           s.bytes,
           pg_catalog.round(100.0 OPERATOR(pg_catalog.*) q.last_value OPERATOR(pg_catalog./) 17592186044415, 3) AS percent_used,
           u.unsettled,
           u.unsettled_since,
           w.waiting
    FROM cqrs_es.log_size() AS s
    CROSS JOIN cqrs_es.events_global_position_seq AS q
    CROSS JOIN (SELECT pg_catalog.count(*) AS unsettled, pg_catalog.min(t.since) AS unsettled_since
                FROM cqrs_es.unsettled_transactions AS t) AS u
    CROSS JOIN (SELECT pg_catalog.count(*) AS waiting FROM pg_catalog.pg_locks AS l
                WHERE l.locktype OPERATOR(pg_catalog.=) 'object' AND l.granted
                  AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d
                      WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
                  AND l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
                  AND l.objid OPERATOR(pg_catalog.=) 0::pg_catalog.oid) AS w;
COMMENT ON VIEW cqrs_es.log_status IS
    'one row: how far the log is, how far its readers get, how much is in it, and who holds readers back';
COMMENT ON COLUMN cqrs_es.log_status.settled_position IS
    'readers get at least all up to here; NULL: this session does not know, since a transaction has been open from before it looked first';
COMMENT ON COLUMN cqrs_es.log_status.events_estimated IS 'false: they were counted, which is done up to 10,000';
COMMENT ON COLUMN cqrs_es.log_status.streams_estimated IS 'false: they were counted, which is done up to 1,000';
COMMENT ON COLUMN cqrs_es.log_status.bytes IS 'on disk, with indexes';
COMMENT ON COLUMN cqrs_es.log_status.percent_used IS 'of the numbers that positions can have';
COMMENT ON COLUMN cqrs_es.log_status.unsettled IS 'transactions that have taken positions and are open; see unsettled_transactions';
COMMENT ON COLUMN cqrs_es.log_status.unsettled_since IS 'when the first of them began; of others for members of pg_read_all_stats';
COMMENT ON COLUMN cqrs_es.log_status.waiting IS 'sessions that wait for events, or at a gap';
