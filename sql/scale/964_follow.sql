-- 964_follow: a database follows the log of another one, and takes it over

CREATE FUNCTION cqrs_es.follow_log(connection text, declarations boolean DEFAULT true) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_follow_log';
COMMENT ON FUNCTION cqrs_es.follow_log(text, boolean) IS
    'receives the log of another database, which published it, from its beginning; with its declarations of aggregates, boundaries, reducers, upcasters and tags, or without';
REVOKE EXECUTE ON FUNCTION cqrs_es.follow_log(text, boolean) FROM PUBLIC;

CREATE FUNCTION cqrs_es.take_over_log(timeout interval DEFAULT '30 seconds', force boolean DEFAULT false, node_id integer DEFAULT NULL) RETURNS bigint
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_take_over_log';
COMMENT ON FUNCTION cqrs_es.take_over_log(interval, boolean, integer) IS
    'ends following, so that this database appends: waits until it has all of a log that was handed over; force: does not wait, and what has not come is lost; returns the position above which it goes on';
REVOKE EXECUTE ON FUNCTION cqrs_es.take_over_log(interval, boolean, integer) FROM PUBLIC;

CREATE VIEW cqrs_es.followed_log_status AS
    SELECT f.node_id,
           f.subscription,
           f.publisher,
           f.declarations,
           coalesce(s.subenabled, false) AS enabled,
           w.pid IS NOT NULL AS active,
           coalesce(t.copied, false) AS copied,
           p.settled_position,
           pg_catalog.pg_wal_lsn_diff(w.received_lsn, w.latest_end_lsn)::bigint AS lag_bytes,
           w.last_msg_receipt_time AS heard_at,
           l.handed_over_at,
           c.apply_error_count AS apply_errors,
           c.sync_error_count AS copy_errors
    FROM cqrs_es.followed_logs AS f
    LEFT JOIN pg_catalog.pg_subscription AS s ON s.subname OPERATOR(pg_catalog.=) f.subscription
        AND s.subdbid OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d
            WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
    LEFT JOIN pg_catalog.pg_stat_subscription AS w ON w.subid OPERATOR(pg_catalog.=) s.oid AND w.relid IS NULL AND w.pid IS NOT NULL
    LEFT JOIN pg_catalog.pg_stat_subscription_stats AS c ON c.subid OPERATOR(pg_catalog.=) s.oid
    LEFT JOIN cqrs_es.published_logs AS l ON l.node_id OPERATOR(pg_catalog.=) f.node_id
    LEFT JOIN LATERAL (SELECT pg_catalog.bool_and(r.srsubstate OPERATOR(pg_catalog.=) 'r') AS copied
        FROM pg_catalog.pg_subscription_rel AS r WHERE r.srsubid OPERATOR(pg_catalog.=) s.oid) AS t ON true
    LEFT JOIN LATERAL (SELECT o."position" AS settled_position FROM cqrs_es.published_positions AS o
        WHERE o.node_id OPERATOR(pg_catalog.=) f.node_id) AS p ON true;
COMMENT ON VIEW cqrs_es.followed_log_status IS
    'the logs that this database follows, and how far each has come';
COMMENT ON COLUMN cqrs_es.followed_log_status.copied IS 'what was there at the beginning has been copied; before, readers get nothing';
COMMENT ON COLUMN cqrs_es.followed_log_status.settled_position IS 'up to here the publisher has said that nothing is missing';
COMMENT ON COLUMN cqrs_es.followed_log_status.lag_bytes IS 'of WAL that was received and is not applied';
COMMENT ON COLUMN cqrs_es.followed_log_status.heard_at IS 'when the publisher was heard of last; it says something at least every half minute';
COMMENT ON COLUMN cqrs_es.followed_log_status.apply_errors IS 'each is tried again, and the server''s log says what it was';
