-- 965_all_nodes: declarations of a log that is spread over the nodes of a Citus cluster: see
-- src/scale/all_nodes.c

CREATE TABLE cqrs_es.last_declaration (
    number      bigint PRIMARY KEY,
    admits      boolean NOT NULL,
    statement   text NOT NULL,
    search_path text NOT NULL,
    role_name   text COLLATE "C" NOT NULL
);
COMMENT ON TABLE cqrs_es.last_declaration IS
    'one row where the log is distributed, the same on all nodes: what on_all_nodes ran there last';
COMMENT ON COLUMN cqrs_es.last_declaration.number IS 'of declarations so far';
COMMENT ON COLUMN cqrs_es.last_declaration.admits IS 'it told nodes what had been declared on the others';
COMMENT ON COLUMN cqrs_es.last_declaration.search_path IS 'with which it was run';
COMMENT ON COLUMN cqrs_es.last_declaration.role_name IS 'who ran it';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.last_declaration', '');

CREATE FUNCTION cqrs_es.run_here() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_run_here';
COMMENT ON FUNCTION cqrs_es.run_here() IS 'internal: trigger function of last_declaration: runs it on this node';
REVOKE EXECUTE ON FUNCTION cqrs_es.run_here() FROM PUBLIC;

CREATE TRIGGER run_here AFTER UPDATE ON cqrs_es.last_declaration
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.run_here();

CREATE FUNCTION cqrs_es.on_all_nodes(statement text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_on_all_nodes';
COMMENT ON FUNCTION cqrs_es.on_all_nodes(text) IS
    'runs a statement, or several, that declare something for a distributed log, on all nodes or none, as the caller';
REVOKE EXECUTE ON FUNCTION cqrs_es.on_all_nodes(text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.declarations_here(with_times boolean) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    registry  text;
    condition text;
    rows      jsonb;
    result    jsonb := '{}';
BEGIN
    -- what a dump has: without oids, which are others on each node, and with the names of now
    FOR registry, condition IN
        SELECT r.name, e.extcondition[array_position(e.extconfig, format('cqrs_es.%I', r.name)::regclass::oid)]
        FROM pg_extension AS e, unnest(ARRAY['aggregates', 'reducers', 'upcasters', 'commands', 'projections', 'handlers']) AS r (name)
        WHERE e.extname = 'cqrs_es'
    LOOP
        EXECUTE format($query$
            SELECT coalesce(jsonb_agg(d.declaration ORDER BY d.declaration::text COLLATE "C"), '[]')
            FROM (SELECT to_jsonb(r) - CASE WHEN $1 THEN '' ELSE 'created_at' END AS declaration
                  FROM (SELECT * FROM cqrs_es.%I %s) AS r) AS d
            $query$, registry, condition) INTO rows USING with_times;
        result := result || jsonb_build_object(registry, rows);
    END LOOP;
    RETURN result;
END $$;
COMMENT ON FUNCTION cqrs_es.declarations_here(boolean) IS
    'internal: what is declared on this node, by names; the times are others on each node';
REVOKE EXECUTE ON FUNCTION cqrs_es.declarations_here(boolean) FROM PUBLIC;

CREATE FUNCTION cqrs_es.receive_declarations(declarations jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    here     jsonb := cqrs_es.declarations_here(true);
    registry text;
    rows     jsonb;
BEGIN
    FOR registry, rows IN SELECT * FROM jsonb_each(declarations) LOOP
        IF rows::text <> (here -> registry)::text THEN
            EXECUTE format('DELETE FROM cqrs_es.%I', registry);
            EXECUTE format('INSERT INTO cqrs_es.%1$I SELECT * FROM jsonb_populate_recordset(NULL::cqrs_es.%1$I, $1)', registry) USING rows;
        END IF;
    END LOOP;
    DELETE FROM cqrs_es.admitted_nodes;
    INSERT INTO cqrs_es.admitted_nodes SELECT groupid FROM pg_dist_local_group;
END $$;
COMMENT ON FUNCTION cqrs_es.receive_declarations(jsonb) IS
    'internal: makes what is declared on this node what is declared on the coordinator';
REVOKE EXECUTE ON FUNCTION cqrs_es.receive_declarations(jsonb) FROM PUBLIC;

-- Rights on the schema of an extension are not passed on by Citus.  To be called before anything is locked.
CREATE FUNCTION cqrs_es.grant_usage_on_workers() RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    users text := (SELECT string_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, ', ')
        FROM pg_namespace AS n, aclexplode(n.nspacl) AS a
        WHERE n.nspname = 'cqrs_es' AND a.privilege_type = 'USAGE' AND a.grantee <> n.nspowner);
BEGIN
    IF users IS NOT NULL THEN
        PERFORM run_command_on_workers('GRANT USAGE ON SCHEMA cqrs_es TO ' || users);
    END IF;
END $$;
COMMENT ON FUNCTION cqrs_es.grant_usage_on_workers() IS
    'internal: whoever has USAGE on the schema on the coordinator gets it on each worker';
REVOKE EXECUTE ON FUNCTION cqrs_es.grant_usage_on_workers() FROM PUBLIC;

CREATE FUNCTION cqrs_es.admit_nodes() RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    as_told text;
    teller  text := current_user;
BEGIN
    IF to_regclass('pg_catalog.pg_dist_local_group') IS NULL THEN
        RAISE EXCEPTION 'there is no Citus in this database'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF (SELECT groupid FROM pg_dist_local_group) <> 0 THEN
        RAISE EXCEPTION 'admit_nodes() is to be called on the coordinator'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM cqrs_es.grant_usage_on_workers();
    -- a node that is new has no copy of the row
    PERFORM replicate_reference_tables('block_writes');
    -- who is declaring something has done so, or waits
    PERFORM FROM cqrs_es.last_declaration FOR UPDATE;
    as_told := format('SELECT cqrs_es.receive_declarations(%L)', cqrs_es.declarations_here(true));
    UPDATE cqrs_es.last_declaration
        SET number = number + 1, admits = true, statement = as_told, search_path = 'pg_catalog, pg_temp', role_name = teller;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the log is not distributed'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT cqrs_es.distribute() distributes it.';
    END IF;
END $$;
COMMENT ON FUNCTION cqrs_es.admit_nodes() IS
    'tells nodes that were added to the Citus cluster what is declared, from when on they take events; others that do not have just that are told as well';
REVOKE EXECUTE ON FUNCTION cqrs_es.admit_nodes() FROM PUBLIC;
