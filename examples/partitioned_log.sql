-- Partition the log, in place.
--
-- Run it once, as the owner of the extension, while nobody appends: it locks the log
-- and copies it. By hash of the aggregate id, so that all events of a stream lie in one
-- partition; LIST (tenant_id) or LIST (aggregate_type) would do as well. The number
-- of partitions: psql -v partitions=16 -f examples/partitioned_log.sql

\set ON_ERROR_STOP on
\if :{?partitions} \else \set partitions 8 \endif
BEGIN;
LOCK TABLE cqrs_es.events IN ACCESS EXCLUSIVE MODE;

-- From now on the log is a table of yours: pg_dump takes it along with its partitions.
SELECT cqrs_es.own_log();
SET LOCAL client_min_messages = error; -- of a log that is not there, which it is soon
ALTER TABLE cqrs_es.events RENAME TO unpartitioned_events;
RESET client_min_messages;
ALTER INDEX cqrs_es.events_pkey RENAME TO unpartitioned_events_pkey;
ALTER INDEX cqrs_es.events_global_position_idx RENAME TO unpartitioned_events_global_position_idx;

CREATE TABLE cqrs_es.events (
    LIKE cqrs_es.unpartitioned_events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS,
    CONSTRAINT events_pkey PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence)
) PARTITION BY HASH (aggregate_id);
CREATE INDEX events_global_position_idx ON cqrs_es.events (global_position);

SELECT format('CREATE TABLE cqrs_es.events_%1$s PARTITION OF cqrs_es.events FOR VALUES WITH (MODULUS %2$s, REMAINDER %1$s) WITH (%3$s)',
    n, :partitions, array_to_string(reloptions, ', '))
FROM generate_series(0, :partitions - 1) AS n, pg_class WHERE oid = 'cqrs_es.unpartitioned_events'::regclass
\gexec

INSERT INTO cqrs_es.events SELECT * FROM cqrs_es.unpartitioned_events ORDER BY global_position;

-- After the rows, which the triggers would take for new ones: triggers, grants, the policy.
SELECT replace(pg_get_triggerdef(oid), 'cqrs_es.unpartitioned_events', 'cqrs_es.events')
FROM pg_trigger WHERE tgrelid = 'cqrs_es.unpartitioned_events'::regclass AND NOT tgisinternal
\gexec

-- Triggers for rows are those of the partitions, too. TRUNCATE has none for rows:
-- a partition that you add later needs this one as well.
SELECT format('CREATE TRIGGER refuse_change BEFORE TRUNCATE ON cqrs_es.events_%s FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_change()', n)
FROM generate_series(0, :partitions - 1) AS n
\gexec

SELECT format('GRANT %s ON cqrs_es.events TO %s%s', privilege_type,
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
FROM pg_class, aclexplode(relacl) WHERE oid = 'cqrs_es.unpartitioned_events'::regclass AND grantee <> relowner
\gexec

ALTER TABLE cqrs_es.events ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON cqrs_es.events USING (tenant_id = cqrs_es.current_tenant());

DROP TABLE cqrs_es.unpartitioned_events;
COMMIT;
ANALYZE cqrs_es.events;
