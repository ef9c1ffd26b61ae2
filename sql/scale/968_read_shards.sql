-- 968_read_shards: the logs of all nodes of a Citus cluster, by one position for each.  As the functions
-- of a front with PL/Proxy of the same names (974_proxy)

CREATE FUNCTION cqrs_es.merge_positions(positions bigint[], more bigint[]) RETURNS bigint[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT coalesce(pg_catalog.array_agg(m.p ORDER BY m.p), '{}')
        FROM (SELECT pg_catalog.max(p.p) AS p FROM pg_catalog.unnest(pg_catalog.array_cat(positions, more)) AS p (p)
            WHERE p.p IS NOT NULL GROUP BY p.p OPERATOR(pg_catalog.>>) 44) AS m);
COMMENT ON FUNCTION cqrs_es.merge_positions(bigint[], bigint[]) IS
    'of the positions of several nodes the last of each node: how far one is who had come to some, and has read to others';

CREATE FUNCTION cqrs_es.read_shards(
    positions       bigint[] DEFAULT '{}',
    max_count       bigint DEFAULT 1000,
    aggregate_types text[] DEFAULT NULL,
    event_types     text[] DEFAULT NULL,
    raw             boolean DEFAULT false,
    all_tenants     boolean DEFAULT false,
    tags            text[] DEFAULT NULL
) RETURNS TABLE (
    global_position bigint,
    sequence        bigint,
    created_at      timestamptz,
    event_id        uuid,
    tenant_id       text,
    aggregate_type  text,
    aggregate_id    text,
    event_type      text,
    event_version   text,
    payload         jsonb,
    metadata        jsonb,
    read_to         bigint
)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
#variable_conflict use_column
DECLARE
    hosts    text[];
    ports    int[];
    commands text[];
    pages    jsonb[];
    answer   record;
    here     bigint;
    is_distributed boolean := false;
BEGIN
    -- where Citus is not here, its tables are not either
    IF to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL THEN
        is_distributed := 'cqrs_es.events'::regclass IN (SELECT logicalrelid FROM pg_dist_partition);
    END IF;
    IF NOT is_distributed THEN
        RETURN QUERY SELECT e.* FROM cqrs_es.read_page(cqrs_es.position_here(positions), max_count, aggregate_types, event_types, raw, all_tenants, tags) AS e;
        RETURN;
    END IF;
    IF (SELECT groupid FROM pg_dist_local_group) <> 0 THEN
        RAISE EXCEPTION 'read_shards() is to be called on the coordinator'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'read_page() reads the log of this node.';
    END IF;
    -- each node hands out its own events: none but it knows which are settled
    SELECT array_agg(n.nodename), array_agg(n.nodeport), array_agg(format(
            'SELECT coalesce(pg_catalog.jsonb_agg(r), ''[]'') FROM cqrs_es.read_page(cqrs_es.routed_argument(%L::pg_catalog.int8, %L), %L, %L, %L, %L, %L, %L) AS r',
            coalesce((SELECT max(p) FROM unnest(positions) AS p WHERE p >> 44 = n.groupid), 0),
            cqrs_es.current_tenant(), max_count, aggregate_types, event_types, raw, all_tenants, tags))
        INTO hosts, ports, commands
        FROM pg_dist_node AS n WHERE n.noderole = 'primary' AND n.groupid <> 0;
    FOR answer IN SELECT a.* FROM master_run_on_worker(hosts, ports, commands, true) AS a LOOP
        IF NOT answer.success THEN
            RAISE EXCEPTION 'node %:% could not be read', answer.node_name, answer.node_port
                USING ERRCODE = 'connection_exception', DETAIL = answer.result;
        END IF;
        pages := pages || answer.result::jsonb;
    END LOOP;
    RETURN QUERY
        SELECT e.* FROM unnest(pages) AS a (page), jsonb_to_recordset(a.page) AS e (global_position bigint, sequence bigint,
            created_at timestamptz, event_id uuid, tenant_id text, aggregate_type text, aggregate_id text, event_type text,
            event_version text, payload jsonb, metadata jsonb, read_to bigint);
    -- of nodes that have left nothing comes any more
    FOR here IN
        SELECT coalesce((SELECT max(p) FROM unnest(positions) AS p WHERE p >> 44 = g), g << 44)
        FROM generate_series(0, (SELECT max(groupid) FROM (SELECT groupid FROM pg_dist_node UNION ALL SELECT p >> 44 FROM unnest(positions) AS p) AS n)) AS g
        WHERE g = 0 OR g NOT IN (SELECT groupid FROM pg_dist_node)
    LOOP
        RETURN QUERY SELECT e.* FROM cqrs_es.read_page(here, max_count, aggregate_types, event_types, raw, all_tenants, tags) AS e;
    END LOOP;
END $$;
COMMENT ON FUNCTION cqrs_es.read_shards(bigint[], bigint, text[], text[], boolean, boolean, text[]) IS
    'on the coordinator of a distributed log: the pages of all nodes at once, where it is not distributed that of this one, each behind its own of the positions; max_count events at most of each; merge_positions() adds what was read';
