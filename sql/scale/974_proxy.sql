-- 974_proxy: the functions of a front that sends calls to several servers, with PL/Proxy

CREATE FUNCTION cqrs_es.proxy_functions(cluster text, schema text DEFAULT 'cqrs_es') RETURNS SETOF text
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
    WITH proxied (name, kind) AS (VALUES
        -- of one stream
        ('append_event', 'stream'), ('append_events', 'stream'), ('append_event_arrays', 'stream'),
        ('try_append_event', 'stream'), ('try_append_events', 'stream'), ('try_append_event_arrays', 'stream'),
        ('execute_command', 'stream'), ('try_execute_command', 'stream'),
        ('read_stream', 'stream'), ('stream_version', 'stream'), ('aggregate_state', 'stream'), ('load_aggregate', 'stream'),
        ('replay', 'stream'), ('take_snapshot', 'stream'),
        ('redact_stream', 'stream'), ('close_stream', 'stream'), ('reopen_stream', 'stream'), ('delete_stream', 'stream'),
        -- of the server that keeps a shard, and its log
        ('read_all', 'tenant'), ('read_page', 'tenant'), ('read_matching', 'tenant'),
        ('settled_position', 'shard'), ('wait_for_position', 'shard'), ('log_id', 'shard'),
        ('receive_events', 'shard'), ('ack_events', 'shard'), ('nack_event', 'shard'), ('extend_lease', 'shard'), ('release_batch', 'shard'),
        -- of all servers at once
        ('read_page', 'all')
    ), functions AS (
        SELECT p.oid, x.kind, CASE x.kind WHEN 'all' THEN 'read_shards' ELSE p.proname END AS name, p.proname, p.proretset,
            p.prorettype, CASE x.kind WHEN 'stream' THEN 0 WHEN 'all' THEN 0 ELSE 1 END AS before,
            p.proargnames, p.proargmodes, coalesce(p.proallargtypes, p.proargtypes::oid[]) AS types, p.pronargs
        FROM proxied AS x JOIN pg_proc AS p ON p.proname = x.name AND p.pronamespace = 'cqrs_es'::regnamespace
    ), arguments AS (
        SELECT f.oid, f.kind,
            string_agg(format('%I %s%s', a.name, format_type(a.type, NULL), ' DEFAULT ' || pg_get_function_arg_default(f.oid, a.n::int)), ', ' ORDER BY a.n)
                FILTER (WHERE NOT (f.kind = 'all' AND a.n = 1)) AS declared,
            string_agg(CASE
                    WHEN f.kind = 'stream' AND a.n = 1 THEN format('cqrs_es.routed_stream($1::pg_catalog.text, $2::pg_catalog.text, $%s::pg_catalog.text, $%s::pg_catalog.text)',
                        f.pronargs + 1, f.pronargs + 2)
                    WHEN f.kind = 'tenant' AND a.n = 1 THEN format('cqrs_es.routed_argument($2::pg_catalog.%I, $%s::pg_catalog.text)', t.typname, f.pronargs + 2)
                    WHEN f.kind = 'all' AND a.n = 1 THEN format('cqrs_es.routed_argument(cqrs_es.position_here($1::pg_catalog._int8), $%s::pg_catalog.text)', f.pronargs + 1)
                    ELSE format('$%s::pg_catalog.%I', a.n + f.before, t.typname) END, ', ' ORDER BY a.n) AS sent
        FROM functions AS f, unnest(f.proargnames, f.types, f.proargmodes) WITH ORDINALITY AS a (name, type, mode, n), pg_type AS t
        WHERE a.name IS NOT NULL AND coalesce(a.mode, 'i') = 'i' AND t.oid = a.type
        GROUP BY f.oid, f.kind
    ), columns AS (
        SELECT f.oid, f.kind, string_agg(format('%I %s', a.name, format_type(a.type, NULL)), ', ' ORDER BY a.n) AS declared,
            string_agg(format('OUT %I %s', a.name, format_type(a.type, NULL)), ', ' ORDER BY a.n) AS as_arguments,
            string_agg(format('r.%I', a.name), ', ' ORDER BY a.n) AS wanted
        FROM functions AS f, LATERAL (
            SELECT c.name, c.type, c.n FROM unnest(f.proargnames, f.types, f.proargmodes) WITH ORDINALITY AS c (name, type, mode, n) WHERE c.mode IN ('o', 't')
            UNION ALL
            SELECT c.attname, c.atttypid, c.attnum FROM pg_type AS t JOIN pg_attribute AS c ON c.attrelid = t.typrelid
            WHERE t.oid = f.prorettype AND t.typtype = 'c' AND c.attnum > 0 AND NOT c.attisdropped) AS a
        GROUP BY f.oid, f.kind
    ), words (tenant, context, hash) AS (VALUES
        ('tenant_id text DEFAULT (nullif(pg_catalog.current_setting(''cqrs_es.tenant_id'', true), ''''))',
         'context text DEFAULT (nullif(pg_catalog.current_setting(''cqrs_es.context'', true), ''''))',
         -- as src/scale/stream_hash.c; PL/Proxy wants a call here, of a name without quotes
         'pg_catalog.int4and((''x'' OPERATOR(pg_catalog.||) pg_catalog.substr(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to('
         '$1::pg_catalog.text OPERATOR(pg_catalog.||) ''/'' OPERATOR(pg_catalog.||) $2::pg_catalog.text, ''UTF8'')), ''hex''), 1, 8))::pg_catalog.bit(32)::pg_catalog.int4, 2147483647)')
    ), statements (n, name, statement) AS (
        SELECT 1, '', format('CREATE SCHEMA %I', schema)
        UNION ALL
        SELECT 3, '', format('CREATE FUNCTION %I.merge_positions(positions bigint[], more bigint[]) RETURNS bigint[] LANGUAGE sql STABLE PARALLEL SAFE AS %L', schema,
            'SELECT coalesce(pg_catalog.array_agg(m.p ORDER BY m.p), ''{}'') FROM (SELECT pg_catalog.max(p.p) AS p'
            ' FROM pg_catalog.unnest(pg_catalog.array_cat($1, $2)) AS p (p) WHERE p.p IS NOT NULL GROUP BY p.p OPERATOR(pg_catalog.>>) 44) AS m')
        UNION ALL
        SELECT 4, f.name || f.kind, format('CREATE FUNCTION %I.%I(%s)%s LANGUAGE plproxy VOLATILE AS %L', schema, f.name,
            concat_ws(', ',
                CASE f.kind WHEN 'stream' THEN NULL WHEN 'all' THEN 'positions bigint[] DEFAULT ''{}''' ELSE 'shard integer' END, a.declared,
                CASE WHEN f.kind <> 'shard' THEN s.tenant END, CASE f.kind WHEN 'stream' THEN s.context END,
                CASE WHEN NOT f.proretset THEN c.as_arguments END),
            CASE WHEN c.declared IS NULL THEN ' RETURNS ' || CASE WHEN f.proretset THEN 'SETOF ' ELSE '' END || format_type(f.prorettype, NULL)
                WHEN f.proretset THEN format(' RETURNS TABLE (%s)', c.declared) ELSE '' END,
            format('CLUSTER ''%s''; RUN ON %s; SELECT %s FROM cqrs_es.%I(%s) AS r%s;', replace(cluster, '''', ''''''),
                CASE f.kind WHEN 'stream' THEN s.hash WHEN 'all' THEN 'ALL' ELSE '$1' END,
                coalesce(c.wanted, 'r.r'), f.proname, coalesce(a.sent, ''), CASE WHEN c.wanted IS NULL THEN ' (r)' ELSE '' END))
        FROM words AS s, functions AS f LEFT JOIN arguments AS a USING (oid, kind) LEFT JOIN columns AS c USING (oid, kind)
    )
    SELECT s.statement || ';' FROM statements AS s ORDER BY s.n, s.name
    $$;
COMMENT ON FUNCTION cqrs_es.proxy_functions(text, text) IS
    'the statements, one a row, that create the functions of a front of this log in a new schema there: a call for a stream goes to the server of that PL/Proxy cluster which keeps it';
REVOKE EXECUTE ON FUNCTION cqrs_es.proxy_functions(text, text) FROM PUBLIC;
