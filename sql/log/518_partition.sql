-- 518_partition: a log that is divided: by hash of the aggregate id, or by ranges of positions
-- (see src/log/log_range.c).  It is a table of its own shape then (510_log_shape).

-- What each partition has and no parent gives it: of a log by position the key of its streams, which
-- no index of the whole can be, and the guard against TRUNCATE, for which triggers of rows do not fire.
CREATE FUNCTION cqrs_es.complete_partition(partition regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    name text := (SELECT c.relname FROM pg_class AS c WHERE c.oid = partition);
BEGIN
    PERFORM FROM pg_index AS i WHERE i.indrelid = partition AND i.indisunique AND i.indisvalid AND i.indimmediate
        AND i.indpred IS NULL AND i.indnkeyatts = 4
        AND ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = partition AND a.attnum = ANY (i.indkey) ORDER BY a.attname)
            = '{aggregate_id,aggregate_type,sequence,tenant_id}';
    IF NOT FOUND THEN
        IF EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = partition AND i.indisprimary) THEN
            EXECUTE format('CREATE UNIQUE INDEX ON %s (aggregate_type, aggregate_id, tenant_id, sequence)', partition);
        ELSE
            EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence)',
                partition, left(name, 58) || '_pkey');
        END IF;
    END IF;
    PERFORM FROM pg_trigger AS g WHERE g.tgrelid = partition AND g.tgfoid = 'cqrs_es.refuse_change()'::regprocedure
        AND g.tgtype & 33 = 32;
    IF NOT FOUND THEN
        EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.refuse_change()', partition);
    END IF;
END $$;
COMMENT ON FUNCTION cqrs_es.complete_partition(regclass) IS
    'internal: gives a partition of the log what it does not get from the log: the key of its streams, the guard against TRUNCATE';
REVOKE EXECUTE ON FUNCTION cqrs_es.complete_partition(regclass) FROM PUBLIC;

CREATE VIEW cqrs_es.log_partitions AS
    SELECT i.inhrelid::pg_catalog.regclass AS partition,
           b.bounds[1]::bigint AS from_position,
           b.bounds[2]::bigint AS to_position,
           CASE WHEN b.bounds IS NULL THEN NULL
               WHEN b.bounds[1]::bigint OPERATOR(pg_catalog.>) d.last_drawn THEN 'ahead'
               WHEN b.bounds[2]::bigint OPERATOR(pg_catalog.<=) d.last_drawn THEN 'past' ELSE 'current' END AS state,
           CASE WHEN c.reltuples OPERATOR(pg_catalog.>=) 0 THEN c.reltuples::bigint END AS events_estimated,
           pg_catalog.pg_total_relation_size(c.oid) AS bytes,
           t.spcname AS tablespace
    FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
    LEFT JOIN pg_catalog.pg_tablespace AS t ON t.oid OPERATOR(pg_catalog.=) c.reltablespace
    CROSS JOIN (SELECT (coalesce(nullif(pg_catalog.current_setting('cqrs_es.node_id', true), '')::bigint, 0) OPERATOR(pg_catalog.<<) 44)
            OPERATOR(pg_catalog.|) (CASE WHEN q.is_called THEN q.last_value ELSE 0 END) AS last_drawn
        FROM cqrs_es.events_global_position_seq AS q) AS d
    LEFT JOIN LATERAL pg_catalog.regexp_match(pg_catalog.pg_get_expr(c.relpartbound, c.oid),
        '^FOR VALUES FROM \(''(-?[0-9]+)''\) TO \(''(-?[0-9]+)''\)$') AS b (bounds) ON true
    WHERE i.inhparent OPERATOR(pg_catalog.=) pg_catalog.to_regclass('cqrs_es.events')
    AND c.relispartition;
COMMENT ON VIEW cqrs_es.log_partitions IS
    'the partitions of the log, if it has any: of one by position, which have room for positions that come';
COMMENT ON COLUMN cqrs_es.log_partitions.from_position IS 'the first that it takes; NULL where the log is not partitioned by position';
COMMENT ON COLUMN cqrs_es.log_partitions.to_position IS 'the first that it does not take any more';
COMMENT ON COLUMN cqrs_es.log_partitions.state IS 'past: no event comes into it any more; current: they come now; ahead: later';
COMMENT ON COLUMN cqrs_es.log_partitions.events_estimated IS 'as the last VACUUM or ANALYZE has found; NULL: none has';
COMMENT ON COLUMN cqrs_es.log_partitions.bytes IS 'on disk, with indexes';
COMMENT ON COLUMN cqrs_es.log_partitions.tablespace IS 'NULL: that of the database';

-- The new table is attached when it has everything, so nobody who appends or reads waits.
CREATE FUNCTION cqrs_es.keep_partitions(ahead integer DEFAULT 2, every bigint DEFAULT NULL) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET check_function_bodies = on
    AS $$
DECLARE
    log    regclass := to_regclass('cqrs_es.events');
    node   bigint := coalesce(nullif(current_setting('cqrs_es.node_id', true), '')::bigint, 0) << 44;
    last   bigint;
    first  bigint;
    free   integer;
    name   text;
    made   integer := 0;
    options text;
    given  text;
BEGIN
    IF ahead IS NULL OR ahead NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'ahead must be between 1 and 1000' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- one at a time; nobody waits but who changes the log as well
    LOCK TABLE ONLY cqrs_es.events IN SHARE UPDATE EXCLUSIVE MODE;
    PERFORM FROM pg_partitioned_table AS p JOIN pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
        WHERE p.partrelid = log AND p.partstrat = 'r' AND p.partnatts = 1 AND a.attname = 'global_position';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the log is not partitioned by position'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'partition_log() does that.';
    END IF;
    every := coalesce(every, (SELECT p.to_position - p.from_position FROM cqrs_es.log_partitions AS p
        WHERE p.to_position IS NOT NULL ORDER BY p.to_position DESC LIMIT 1));
    IF every IS NULL OR every <= 0 THEN
        RAISE EXCEPTION 'every must be greater than zero' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'It is how many positions a partition is for.';
    END IF;
    last := (SELECT CASE WHEN q.is_called THEN q.last_value + 1 ELSE q.last_value END | node FROM cqrs_es.events_global_position_seq AS q);
    options := (SELECT format(' WITH (%s)', array_to_string(c.reloptions, ', ')) FROM cqrs_es.log_partitions AS p
        JOIN pg_class AS c ON c.oid = p.partition WHERE c.reloptions IS NOT NULL ORDER BY p.to_position DESC NULLS LAST LIMIT 1);

    first := last;
    free := ahead;
    LOOP
        -- behind those that are there
        WHILE EXISTS (SELECT FROM cqrs_es.log_partitions AS p WHERE first >= p.from_position AND first < p.to_position) LOOP
            first := (SELECT p.to_position FROM cqrs_es.log_partitions AS p WHERE first >= p.from_position AND first < p.to_position);
            free := free - 1;
        END LOOP;
        -- the one in use does not count
        EXIT WHEN free < 0;
        first := node + (first - node) / every * every;
        first := greatest(first, (SELECT max(p.to_position) FROM cqrs_es.log_partitions AS p WHERE p.to_position BETWEEN first AND first + every - 1));
        name := 'events_p' || first;
        EXECUTE format('CREATE TABLE cqrs_es.%I (LIKE cqrs_es.events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMPRESSION)%s',
            name, coalesce(options, ''));
        -- by default privileges: whoever reads a partition by its name, reads it without the policy of the log
        FOR given IN SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
            FROM pg_class AS c, aclexplode(c.relacl) AS a
            WHERE c.oid = format('cqrs_es.%I', name)::regclass AND a.grantee <> c.relowner
        LOOP
            EXECUTE format('REVOKE ALL ON cqrs_es.%I FROM %s', name, given);
        END LOOP;
        EXECUTE format('ALTER TABLE cqrs_es.%I OWNER TO %s', name,
            (SELECT c.relowner::regrole FROM pg_class AS c WHERE c.oid = log));
        PERFORM cqrs_es.complete_partition(format('cqrs_es.%I', name)::regclass);
        EXECUTE format('ALTER TABLE cqrs_es.events ATTACH PARTITION cqrs_es.%I FOR VALUES FROM (%s) TO (%s)',
            name, first, least(first - node + every, coalesce((SELECT min(p.from_position) FROM cqrs_es.log_partitions AS p
                WHERE p.from_position > first) - node, 9223372036854775807)) + node);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;
COMMENT ON FUNCTION cqrs_es.keep_partitions(integer, bigint) IS
    'sees to it that a log partitioned by position has so many partitions beyond the one in use; of the size of the last one, or for so many positions; returns how many it has made';
REVOKE EXECUTE ON FUNCTION cqrs_es.keep_partitions(integer, bigint) FROM PUBLIC;

-- What is told of a log that is not there for a moment is for nobody.
CREATE FUNCTION cqrs_es.partition_log(by text, every bigint DEFAULT NULL, partitions integer DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET check_function_bodies = on
    SET client_min_messages = error
    AS $$
DECLARE
    log     regclass := to_regclass('cqrs_es.events');
    old     regclass;
    node    bigint := coalesce(nullif(current_setting('cqrs_es.node_id', true), '')::bigint, 0) << 44;
    owner   regrole;
    options text;
    entry   record;
    first   bigint;
    last    bigint;
    copied  bigint;
BEGIN
    IF by IS NULL OR by NOT IN ('position', 'aggregate_id') THEN
        RAISE EXCEPTION 'by must be ''position'' or ''aggregate_id''' USING ERRCODE = 'invalid_parameter_value';
    ELSIF by = 'position' AND (every IS NULL OR every < 1 OR every > 17592186044416 OR partitions IS NOT NULL) THEN
        RAISE EXCEPTION 'a log that is partitioned by position needs the number of positions of a partition, every, and nothing else'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'partition_log(by => ''position'', every => 100000000)';
    ELSIF by = 'aggregate_id' AND (partitions IS NULL OR partitions NOT BETWEEN 1 AND 1000 OR every IS NOT NULL) THEN
        RAISE EXCEPTION 'a log that is partitioned by aggregate id needs the number of partitions, 1 to 1000, and nothing else'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'partition_log(by => ''aggregate_id'', partitions => 8)';
    END IF;

    LOCK TABLE cqrs_es.events IN ACCESS EXCLUSIVE MODE;
    -- another one may have done it meanwhile
    log := to_regclass('cqrs_es.events');
    owner := (SELECT c.relowner::regrole FROM pg_class AS c WHERE c.oid = log);
    options := (SELECT format(' WITH (%s)', array_to_string(c.reloptions, ', ')) FROM pg_class AS c WHERE c.oid = log AND c.reloptions IS NOT NULL);
    IF (SELECT c.relkind <> 'r' OR c.relispartition FROM pg_class AS c WHERE c.oid = log) THEN
        RAISE EXCEPTION 'the log is no ordinary table' USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = 'It is partitioned already, or was made something else.';
    ELSIF to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL THEN
        EXECUTE 'SELECT FROM pg_catalog.pg_dist_partition WHERE logicalrelid = $1' USING log;
        IF FOUND THEN
            RAISE EXCEPTION 'a distributed log cannot be partitioned' USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
    END IF;
    -- of what cannot be taken along somebody has to know
    FOR entry IN
        SELECT format('policy %I', p.polname) AS what FROM pg_policy AS p WHERE p.polrelid = log AND p.polname <> 'tenant_isolation'
        UNION ALL SELECT format('publication %I', u.pubname) FROM pg_publication_rel AS l JOIN pg_publication AS u ON u.oid = l.prpubid WHERE l.prrelid = log
        UNION ALL SELECT format('rule %I', r.rulename) FROM pg_rewrite AS r WHERE r.ev_class = log
        UNION ALL SELECT format('index %s', i.indexrelid::regclass) FROM pg_index AS i WHERE i.indrelid = log
            AND (i.indisunique OR i.indisexclusion)
            AND ARRAY(SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = log AND a.attnum = ANY (i.indkey) ORDER BY a.attname)
                <> '{aggregate_id,aggregate_type,sequence,tenant_id}'
        UNION ALL SELECT format('foreign key %I', k.conname) FROM pg_constraint AS k WHERE k.conrelid = log AND k.contype = 'f'
        LIMIT 1
    LOOP
        RAISE EXCEPTION 'the log has what a partitioned one would lose: %', entry.what USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Drop it, or take the log out of it, and make it anew behind partition_log(), where that is possible.';
    END LOOP;
    IF by = 'position' AND EXISTS (SELECT FROM cqrs_es.events AS e WHERE e.global_position < node OR e.global_position >= node + (1::bigint << 44)) THEN
        RAISE EXCEPTION 'a log with events of several nodes cannot be partitioned by position'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    ELSIF by = 'position' AND EXISTS (SELECT FROM (SELECT e.global_position <= lag(e.global_position) OVER (
            PARTITION BY e.aggregate_type, e.aggregate_id, e.tenant_id ORDER BY e.sequence) AS falls FROM cqrs_es.events AS e) AS s WHERE s.falls)
    THEN
        RAISE EXCEPTION 'positions fall within a stream: such a log cannot be partitioned by position'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'verify_log() says in which.';
    END IF;

    PERFORM cqrs_es.own_log();
    ALTER TABLE cqrs_es.events RENAME TO unpartitioned_events;
    FOR entry IN SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid WHERE i.indrelid = log LOOP
        EXECUTE format('ALTER INDEX cqrs_es.%I RENAME TO %I', entry.relname, left('unpartitioned_' || entry.relname, 63));
    END LOOP;
    old := log;

    EXECUTE format('CREATE TABLE cqrs_es.events (LIKE cqrs_es.unpartitioned_events
            INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMPRESSION INCLUDING STATISTICS INCLUDING COMMENTS) PARTITION BY %s',
        CASE by WHEN 'position' THEN 'RANGE (global_position)' ELSE 'HASH (aggregate_id)' END);
    EXECUTE format('COMMENT ON TABLE cqrs_es.events IS %L', obj_description(old, 'pg_class'));
    CREATE INDEX events_global_position_idx ON cqrs_es.events (global_position);
    IF by = 'position' THEN
        -- updates of a log without a key of its own can be replicated by its name; each partition has a key
        ALTER TABLE cqrs_es.events REPLICA IDENTITY FULL;
        first := coalesce((SELECT min(e.global_position) FROM cqrs_es.unpartitioned_events AS e), node);
        last := coalesce((SELECT max(e.global_position) FROM cqrs_es.unpartitioned_events AS e), node);
        FOR n IN 0 .. (last - node) / every LOOP
            CONTINUE WHEN node + (n + 1) * every <= first;
            -- what a jump of positions has left out needs none
            CONTINUE WHEN n < (last - node) / every AND NOT EXISTS (SELECT FROM cqrs_es.unpartitioned_events AS e
                WHERE e.global_position >= node + n * every AND e.global_position < node + (n + 1) * every);
            EXECUTE format('CREATE TABLE cqrs_es.events_p%1$s PARTITION OF cqrs_es.events FOR VALUES FROM (%1$s) TO (%2$s)%3$s',
                node + n * every, node + (n + 1) * every, coalesce(options, ''));
        END LOOP;
    ELSE
        ALTER TABLE cqrs_es.events ADD CONSTRAINT events_pkey PRIMARY KEY (aggregate_type, aggregate_id, tenant_id, sequence);
        FOR n IN 0 .. partitions - 1 LOOP
            EXECUTE format('CREATE TABLE cqrs_es.events_%1$s PARTITION OF cqrs_es.events FOR VALUES WITH (MODULUS %2$s, REMAINDER %1$s)%3$s',
                n, partitions, coalesce(options, ''));
        END LOOP;
    END IF;

    -- what default privileges have given: of a partition nobody but the owner has any, of the log who had before
    FOR entry IN SELECT DISTINCT c.oid::regclass AS made, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE (c.oid = 'cqrs_es.events'::regclass OR c.oid IN (SELECT p.partition FROM cqrs_es.log_partitions AS p)) AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s', entry.made, entry.grantee);
    END LOOP;

    -- a column that is generated fills itself
    EXECUTE format('INSERT INTO cqrs_es.events (%1$s) SELECT %1$s FROM cqrs_es.unpartitioned_events ORDER BY global_position',
        (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute AS a
            WHERE a.attrelid = old AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''));
    GET DIAGNOSTICS copied = ROW_COUNT;

    FOR entry IN SELECT p.partition FROM cqrs_es.log_partitions AS p LOOP
        PERFORM cqrs_es.complete_partition(entry.partition);
        EXECUTE format('ALTER TABLE %s OWNER TO %s', entry.partition, owner);
    END LOOP;
    -- of one's own, which guard nothing
    FOR entry IN SELECT pg_get_indexdef(i.indexrelid) AS definition, c.relname AS called FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
        WHERE i.indrelid = old AND NOT i.indisunique AND c.relname <> 'unpartitioned_events_global_position_idx'
    LOOP
        EXECUTE replace(replace(entry.definition, ' ON cqrs_es.unpartitioned_events ', ' ON cqrs_es.events '),
            format('INDEX %I ', entry.called), format('INDEX %I ', substr(entry.called, 15)));
    END LOOP;
    -- after the rows, which the triggers would take for new ones
    FOR entry IN SELECT replace(pg_get_triggerdef(g.oid), ' ON cqrs_es.unpartitioned_events ', ' ON cqrs_es.events ') AS definition,
            g.tgname, g.tgenabled
        FROM pg_trigger AS g WHERE g.tgrelid = old AND NOT g.tgisinternal
    LOOP
        EXECUTE entry.definition;
        IF entry.tgenabled <> 'O' THEN
            EXECUTE format('ALTER TABLE cqrs_es.events %s TRIGGER %I',
                CASE entry.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, entry.tgname);
        END IF;
    END LOOP;
    FOR entry IN SELECT format('GRANT %s%s ON cqrs_es.events TO %s%s', g.privilege_type, ' ' || g.columns,
            CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END, CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' END) AS definition
        FROM (SELECT a.*, NULL AS columns FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE c.oid = old AND a.grantee <> c.relowner
            UNION ALL SELECT a.*, format('(%I)', t.attname) FROM pg_attribute AS t, aclexplode(t.attacl) AS a WHERE t.attrelid = old AND t.attnum > 0) AS g
    LOOP
        EXECUTE entry.definition;
    END LOOP;
    IF (SELECT c.relrowsecurity FROM pg_class AS c WHERE c.oid = old) THEN
        ALTER TABLE cqrs_es.events ENABLE ROW LEVEL SECURITY;
    END IF;
    IF (SELECT c.relforcerowsecurity FROM pg_class AS c WHERE c.oid = old) THEN
        ALTER TABLE cqrs_es.events FORCE ROW LEVEL SECURITY;
    END IF;
    IF EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = old) THEN
        CREATE POLICY tenant_isolation ON cqrs_es.events USING (tenant_id OPERATOR(pg_catalog.=) cqrs_es.current_tenant());
    END IF;
    EXECUTE format('ALTER TABLE cqrs_es.events OWNER TO %s', owner);
    DROP TABLE cqrs_es.unpartitioned_events;
    IF by = 'position' THEN
        PERFORM cqrs_es.keep_partitions(2, every);
    END IF;
    RETURN copied;
END $$;
COMMENT ON FUNCTION cqrs_es.partition_log(text, bigint, integer) IS
    'divides the log: by ''position'' into ranges of so many positions, by ''aggregate_id'' into so many partitions by its hash; copies the events that are there; returns how many';
REVOKE EXECUTE ON FUNCTION cqrs_es.partition_log(text, bigint, integer) FROM PUBLIC;
