-- 420_unsettled_transaction: who holds readers of the log back: see src/log/horizon.c

-- A relation of another database may have the same oid.  Of a prepared transaction the
-- lock tells no pid, and it is found by its own xid.
CREATE VIEW cqrs_es.unsettled_transactions AS
    SELECT l.pid,
           p.gid AS prepared,
           coalesce(a.xact_start, p.prepared) AS since,
           coalesce(a.usename, p.owner) AS usename,
           a.application_name,
           a.client_addr,
           a.state,
           a.query
    FROM (SELECT DISTINCT h.pid, h.virtualtransaction
          FROM pg_catalog.pg_locks AS h
          WHERE h.locktype OPERATOR(pg_catalog.=) 'relation' AND h.granted
            AND h.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d
                WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
            AND h.relation OPERATOR(pg_catalog.=) 'cqrs_es.events_global_position_seq'::pg_catalog.regclass::pg_catalog.oid
            AND h.mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareLock')) AS l
    LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid
    LEFT JOIN pg_catalog.pg_locks AS x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype OPERATOR(pg_catalog.=) 'transactionid'
        AND x.virtualtransaction OPERATOR(pg_catalog.=) l.virtualtransaction
    LEFT JOIN pg_catalog.pg_prepared_xacts AS p ON p.transaction OPERATOR(pg_catalog.=) x.transactionid;
COMMENT ON VIEW cqrs_es.unsettled_transactions IS
    'transactions that have taken positions and are open: readers of the log stop at a gap that one of them may fill; none on a standby';
COMMENT ON COLUMN cqrs_es.unsettled_transactions.prepared IS 'the name of a prepared transaction, which has no pid';
COMMENT ON COLUMN cqrs_es.unsettled_transactions.since IS
    'when it began, or was prepared; as all behind application_name it is hidden from who may not see it of others: pg_read_all_stats may';
