-- 519_archive: old partitions of a log by position (518_partition) go to another disk, where reads still find them

CREATE TABLE cqrs_es.archives (
    partition     text NOT NULL,
    from_position bigint NOT NULL,
    to_position   bigint NOT NULL,
    events        bigint NOT NULL,
    tablespace    text NOT NULL,
    archived_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    archived_by   text NOT NULL DEFAULT session_user,
    PRIMARY KEY (from_position, archived_at)
);
COMMENT ON TABLE cqrs_es.archives IS
    'what archive_events has done: which partitions of the log went where, when, by whom';
COMMENT ON COLUMN cqrs_es.archives.to_position IS 'the first that is not of the partition any more';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.archives', '');

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON cqrs_es.archives
    FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_change('archives');

-- Whoever has drawn a position of such a partition, and has not written its event yet, writes it behind us.
CREATE FUNCTION cqrs_es.archive_events(before bigint, tablespace name, max_partitions integer DEFAULT 1) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET check_function_bodies = on
    AS $$
DECLARE
    settled bigint;
    entry   record;
    index   regclass;
    n       bigint;
    moved   integer := 0;
BEGIN
    IF before IS NULL OR max_partitions IS NULL OR max_partitions < 1 THEN
        RAISE EXCEPTION 'before must be a position, and max_partitions greater than zero' USING ERRCODE = 'invalid_parameter_value';
    ELSIF tablespace IS NULL OR tablespace = 'pg_global' OR (SELECT count(*) FROM pg_tablespace AS t WHERE t.spcname = tablespace) = 0 THEN
        RAISE EXCEPTION 'tablespace "%" does not exist, or is not for tables', tablespace USING ERRCODE = 'undefined_object';
    ELSIF (SELECT count(p.from_position) FROM cqrs_es.log_partitions AS p) = 0 THEN
        RAISE EXCEPTION 'the log is not partitioned by position'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'partition_log() does that.';
    END IF;
    settled := cqrs_es.settled_position();
    FOR entry IN
        SELECT p.* FROM cqrs_es.log_partitions AS p JOIN pg_class AS c ON c.oid = p.partition
        WHERE p.state = 'past' AND p.to_position <= before AND p.to_position <= settled AND c.relkind = 'r'
        AND c.reltablespace IS DISTINCT FROM (SELECT CASE WHEN t.oid = d.dattablespace THEN 0 ELSE t.oid END
            FROM pg_tablespace AS t, pg_database AS d WHERE t.spcname = archive_events.tablespace AND d.datname = current_database())
        ORDER BY p.from_position LIMIT max_partitions
    LOOP
        EXECUTE format('ALTER TABLE %s SET TABLESPACE %I', entry.partition, tablespace);
        FOR index IN SELECT i.indexrelid FROM pg_index AS i WHERE i.indrelid = entry.partition LOOP
            EXECUTE format('ALTER INDEX %s SET TABLESPACE %I', index, tablespace);
        END LOOP;
        EXECUTE format('SELECT count(*) FROM %s', entry.partition) INTO n;
        INSERT INTO cqrs_es.archives AS a (partition, from_position, to_position, events, tablespace)
        VALUES (entry.partition::text, entry.from_position, entry.to_position, n, tablespace);
        moved := moved + 1;
    END LOOP;
    RETURN moved;
END $$;
COMMENT ON FUNCTION cqrs_es.archive_events(bigint, name, integer) IS
    'moves partitions of a log by position that are below a position, and full, to a tablespace, the oldest first, where all reads still find them; returns how many';
REVOKE EXECUTE ON FUNCTION cqrs_es.archive_events(bigint, name, integer) FROM PUBLIC;
