-- 966_distribute: a log whose streams are spread over the nodes of a Citus cluster.  What that
-- is, and why a stream is only written to on its node: src/base/distribution.c

CREATE FUNCTION cqrs_es.distribution_obstacle() RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    member         regclass;
    has_rows       boolean;
    is_distributed boolean := 'cqrs_es.events'::regclass IN (SELECT logicalrelid FROM pg_dist_partition);
BEGIN
    IF coalesce(current_setting('cqrs_es.node_id', true), '0') <> '0' THEN
        RETURN 'cqrs_es.node_id is set there, where Citus numbers the nodes';
    END IF;
    FOR member IN
        SELECT c.oid FROM pg_extension AS e
        JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
            AND d.classid = 'pg_class'::regclass
        JOIN pg_class AS c ON c.oid = d.objid
        WHERE e.extname = 'cqrs_es' AND c.relkind = 'r' AND c.relname NOT IN ('events', 'admitted_nodes', 'last_declaration')
            -- what every node has of its own
            AND NOT (is_distributed AND c.relname IN ('aggregates', 'reducers', 'upcasters', 'commands', 'projections', 'handlers', 'snapshots'))
        ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', member) INTO has_rows;
        IF has_rows THEN
            RETURN format('%s has rows there', member);
        END IF;
    END LOOP;
    -- a shell's rows are in its shards
    IF NOT is_distributed THEN
        IF EXISTS (SELECT FROM cqrs_es.events) THEN
            RETURN 'cqrs_es.events has rows there';
        END IF;
    ELSIF NOT EXISTS (SELECT FROM cqrs_es.admitted_nodes WHERE node_id = (SELECT groupid FROM pg_dist_local_group)) THEN
        RETURN 'it has not been admitted: SELECT cqrs_es.admit_nodes()';
    END IF;
    -- by names, for Citus hides shards from who looks into pg_class
    RETURN (SELECT format('shard %s has no trigger %I as the log has', s.shardid, t.tgname)
        FROM pg_dist_shard AS s JOIN pg_dist_placement AS p ON p.shardid = s.shardid, pg_trigger AS t
        WHERE is_distributed AND s.logicalrelid = 'cqrs_es.events'::regclass AND p.groupid = (SELECT groupid FROM pg_dist_local_group)
            AND t.tgrelid = s.logicalrelid AND NOT t.tgisinternal
            AND NOT EXISTS (SELECT FROM pg_trigger AS c WHERE c.tgrelid = to_regclass(format('cqrs_es.events_%s', s.shardid))::oid
                AND c.tgname = format('%s_%s', t.tgname, s.shardid) AND c.tgfoid = t.tgfoid AND c.tgtype = t.tgtype AND c.tgenabled <> 'D')
        ORDER BY s.shardid, t.tgname LIMIT 1);
END $$;
COMMENT ON FUNCTION cqrs_es.distribution_obstacle() IS
    'internal: what of this node does not go with a distributed log, NULL: nothing';
REVOKE EXECUTE ON FUNCTION cqrs_es.distribution_obstacle() FROM PUBLIC;

CREATE FUNCTION cqrs_es.distribution_status(
    OUT node_id int,
    OUT host text,
    OUT port int,
    OUT problem text
) RETURNS SETOF record
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    declared text;
    users    text[];
BEGIN
    IF to_regclass('pg_catalog.pg_dist_local_group') IS NULL THEN
        RAISE EXCEPTION 'there is no Citus in this database'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF (SELECT groupid FROM pg_dist_local_group) <> 0 THEN
        RAISE EXCEPTION 'distribution_status() is to be called on the coordinator'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    declared := cqrs_es.declarations_here(false);
    users := ARRAY(SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
        WHERE n.nspname = 'cqrs_es' AND a.privilege_type = 'USAGE' AND a.grantee <> n.nspowner);
    RETURN QUERY
        SELECT n.groupid, n.nodename, n.nodeport, CASE
            WHEN n.groupid > 511 THEN 'positions have room for the numbers of nodes up to 511'
            -- not by a connection, which would wait for whatever this transaction has locked
            WHEN n.groupid = 0 THEN cqrs_es.distribution_obstacle()
            WHEN NOT r.success THEN r.result
            WHEN split_part(r.result, ' ', 1) <> e.extversion
                THEN format('version %s of the extension, %s on the coordinator', split_part(r.result, ' ', 1), e.extversion)
            WHEN NOT r.result LIKE '% {%'
                THEN substr(r.result, length(e.extversion) + 2)
            WHEN substr(r.result, length(e.extversion) + 2) <> declared
                THEN 'what is declared there is not what is declared on the coordinator: SELECT cqrs_es.admit_nodes()' END
        FROM pg_extension AS e, pg_dist_node AS n
        LEFT JOIN run_command_on_workers(format($command$
            SELECT e.extversion || ' ' || coalesce(cqrs_es.distribution_obstacle(),
                (SELECT pg_catalog.concat('who has USAGE on the schema on the coordinator has not: ', pg_catalog.string_agg(u.u, ', '))
                    FROM pg_catalog.unnest(%L::pg_catalog.text[]) AS u (u)
                    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_namespace AS n, pg_catalog.aclexplode(n.nspacl) AS a WHERE n.nspname = 'cqrs_es'
                        AND a.privilege_type = 'USAGE' AND u.u = CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
                    HAVING pg_catalog.count(*) > 0),
                cqrs_es.declarations_here(false)::text)
            FROM pg_catalog.pg_extension AS e WHERE e.extname = 'cqrs_es'
            $command$, users)) AS r ON r.nodename = n.nodename AND r.nodeport = n.nodeport
        WHERE e.extname = 'cqrs_es' AND n.noderole = 'primary'
        ORDER BY n.groupid;
END $$;
COMMENT ON FUNCTION cqrs_es.distribution_status() IS
    'the nodes of the Citus cluster, and what of each does not go with a distributed log, NULL: nothing';
REVOKE EXECUTE ON FUNCTION cqrs_es.distribution_status() FROM PUBLIC;

CREATE FUNCTION cqrs_es.distribute(shard_count int DEFAULT 32) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET citus.enable_unsafe_triggers = on
    AS $$
DECLARE
    citus   text := (SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'citus');
    member  regclass;
    problem record;
BEGIN
    IF citus IS NULL OR citus NOT LIKE '13.2-%' THEN
        RAISE EXCEPTION 'the log can be distributed by Citus 13.2'
            USING ERRCODE = 'feature_not_supported', DETAIL = coalesce('This is Citus ' || citus || '.', 'There is none in this database.');
    END IF;
    PERFORM cqrs_es.grant_usage_on_workers();
    LOCK TABLE cqrs_es.events IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = 'cqrs_es.events'::regclass) THEN
        RAISE EXCEPTION 'the log is distributed already'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    -- what somebody is just declaring counts
    FOR member IN
        SELECT c.oid FROM pg_extension AS e
        JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
            AND d.classid = 'pg_class'::regclass
        JOIN pg_class AS c ON c.oid = d.objid
        WHERE e.extname = 'cqrs_es' AND c.relkind = 'r'
        ORDER BY c.relname
    LOOP
        EXECUTE format('LOCK TABLE %s IN SHARE MODE', member);
    END LOOP;
    FOR problem IN SELECT s.* FROM cqrs_es.distribution_status() AS s WHERE s.problem IS NOT NULL LIMIT 1 LOOP
        RAISE EXCEPTION 'the log cannot be distributed'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                DETAIL = format('Node %s, %s:%s: %s.', problem.node_id, problem.host, problem.port, problem.problem),
                HINT = 'A log that is to be distributed must be empty, and nothing declared.';
    END LOOP;
    PERFORM cqrs_es.own_log();
    -- by the argument of its trigger a shard knows that it is one of these
    DROP TRIGGER admit_event ON cqrs_es.events;
    CREATE TRIGGER admit_event BEFORE INSERT ON cqrs_es.events
        FOR EACH ROW EXECUTE FUNCTION cqrs_es.admit_event('distributed');
    PERFORM create_distributed_table('cqrs_es.events', 'aggregate_id', shard_count => distribute.shard_count, colocate_with => 'none');
    -- there may be what was restored from a dump of another
    DELETE FROM cqrs_es.last_declaration;
    INSERT INTO cqrs_es.last_declaration VALUES (0, false, '', '', current_user);
    PERFORM create_reference_table('cqrs_es.last_declaration');
    PERFORM cqrs_es.admit_nodes();
END $$;
COMMENT ON FUNCTION cqrs_es.distribute(int) IS
    'spreads the streams of the log, which must be empty, over the nodes of the Citus cluster, by aggregate id';
REVOKE EXECUTE ON FUNCTION cqrs_es.distribute(int) FROM PUBLIC;

CREATE FUNCTION cqrs_es.home_of(
    aggregate_id text,
    OUT node_id int,
    OUT host text,
    OUT port int
) RETURNS SETOF record
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF to_regclass('pg_catalog.pg_dist_partition') IS NULL THEN
        RETURN;
    END IF;
    IF 'cqrs_es.events'::regclass NOT IN (SELECT logicalrelid FROM pg_dist_partition) THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT n.groupid, n.nodename, n.nodeport
        FROM pg_dist_placement AS p
        JOIN pg_dist_node AS n ON n.groupid = p.groupid AND n.noderole = 'primary'
        WHERE p.shardid = get_shard_id_for_distribution_column('cqrs_es.events', home_of.aggregate_id);
END $$;
COMMENT ON FUNCTION cqrs_es.home_of(text) IS
    'the node of the Citus cluster that stores, and takes, the events of an aggregate; no row where the log is not distributed';

CREATE FUNCTION cqrs_es.distribute_read_model(read_model regclass, id_column name) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    PERFORM FROM cqrs_es.home_of('');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the log is not distributed'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT cqrs_es.distribute() distributes it.';
    END IF;
    PERFORM create_distributed_table(read_model, id_column, colocate_with => 'cqrs_es.events');
END $$;
COMMENT ON FUNCTION cqrs_es.distribute_read_model(regclass, name) IS
    'spreads a table that a projection is to keep over the nodes of a distributed log: by the column that has the aggregate id, of type text COLLATE "C", so that a row is stored where its events are';
REVOKE EXECUTE ON FUNCTION cqrs_es.distribute_read_model(regclass, name) FROM PUBLIC;
