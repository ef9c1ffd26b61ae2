-- 980_protect: what declarations name is not dropped, functions not renamed either,
-- and what is missing all the same is shown.  An event trigger is called
-- for every DROP of everybody, so it must not fail when the library is missing
-- or an old one: its function is not in C, and lets through all but a refusal
-- and what the server itself is short of.  Nor may it be slow: without statistics its
-- queries look dear enough to be compiled first, for a tenth of a second.
-- The refusals themselves: src/base/registry_function.c, src/projection/read_model.c

CREATE FUNCTION cqrs_es.protect_declared() RETURNS event_trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET jit = off
    AS $$
BEGIN
    IF TG_EVENT <> 'sql_drop' OR EXISTS (SELECT FROM pg_catalog.pg_event_trigger_dropped_objects() AS d
        WHERE d.object_type IN ('function', 'table') AND NOT d.is_temporary)
    THEN
        BEGIN
            PERFORM cqrs_es.check_declared(TG_EVENT);
        EXCEPTION
            WHEN dependent_objects_still_exist OR transaction_rollback OR insufficient_resources
                OR operator_intervention OR lock_not_available THEN
                RAISE;
            WHEN OTHERS THEN
                IF TG_EVENT <> 'ddl_command_start' THEN
                    RAISE WARNING 'could not check whether cqrs_es uses what is dropped or renamed: %', SQLERRM
                        USING HINT = 'Install the library of the extension again. Do not drop the extension: its events go with it.';
                END IF;
        END;
    END IF;
END $$;
COMMENT ON FUNCTION cqrs_es.protect_declared() IS
    'internal: event trigger: refuses to drop functions and read models that declarations name, and to rename such functions';
REVOKE EXECUTE ON FUNCTION cqrs_es.protect_declared() FROM PUBLIC;

CREATE EVENT TRIGGER cqrs_es_protect_declared ON sql_drop
    EXECUTE FUNCTION cqrs_es.protect_declared();
COMMENT ON EVENT TRIGGER cqrs_es_protect_declared IS
    'refuses to drop functions and read models that declarations name';

-- what a command changed is seen at its end alone, so what was there is noted at its start
CREATE EVENT TRIGGER cqrs_es_note_function_names ON ddl_command_start
    WHEN TAG IN ('ALTER FUNCTION', 'ALTER ROUTINE', 'ALTER SCHEMA', 'ALTER EXTENSION')
    EXECUTE FUNCTION cqrs_es.protect_declared();
COMMENT ON EVENT TRIGGER cqrs_es_note_function_names IS
    'notes what cqrs_es_protect_function_names compares with';
CREATE EVENT TRIGGER cqrs_es_protect_function_names ON ddl_command_end
    WHEN TAG IN ('ALTER FUNCTION', 'ALTER ROUTINE', 'ALTER SCHEMA', 'ALTER EXTENSION')
    EXECUTE FUNCTION cqrs_es.protect_declared();
COMMENT ON EVENT TRIGGER cqrs_es_protect_function_names IS
    'refuses to rename or move functions that declarations name';

CREATE VIEW cqrs_es.missing_objects AS
    SELECT r.registry, r.declaration, 'role' AS object_type, pg_catalog.quote_ident(r.role_name) AS object_name
    FROM (
        SELECT 'projections' AS registry, p.name AS declaration, p.owner AS role, p.owner_name AS role_name
        FROM cqrs_es.projections AS p
        UNION ALL SELECT 'handlers', pg_catalog.concat_ws(', ', h.projection, h.event_type), h.definer, h.definer_name
        FROM cqrs_es.handlers AS h
        UNION ALL SELECT 'commands', pg_catalog.concat_ws(', ', c.aggregate_type, c.command_type), c.definer, c.definer_name
        FROM cqrs_es.commands AS c
        UNION ALL SELECT 'subscriptions', s.name, s.owner, s.owner_name
        FROM cqrs_es.subscriptions AS s
        UNION ALL SELECT 'subscriptions', s.name, s.consumer_role, s.consumer_role_name
        FROM cqrs_es.subscriptions AS s WHERE s.consumer_role_name IS NOT NULL
    ) AS r
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS o WHERE CASE WHEN r.role IS NULL
        THEN o.rolname OPERATOR(pg_catalog.=) r.role_name ELSE o.oid OPERATOR(pg_catalog.=) r.role END)
    UNION ALL
    SELECT 'projections', s.name, 'table', pg_catalog.format('%I.%I', p.read_model_names[t.n][1], p.read_model_names[t.n][2])
    FROM cqrs_es.projection_status AS s
    JOIN cqrs_es.projections AS p ON p.name OPERATOR(pg_catalog.=) s.name
    CROSS JOIN LATERAL pg_catalog.unnest(s.read_models) WITH ORDINALITY AS t (read_model, n)
    WHERE t.read_model::pg_catalog.oid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
    UNION ALL
    SELECT f.registry, f.declaration, 'function', f.function
    FROM (
        SELECT 'handlers' AS registry, pg_catalog.concat_ws(', ', h.projection, h.event_type) AS declaration, h.function
        FROM cqrs_es.handlers AS h
        UNION ALL SELECT 'reducers', pg_catalog.concat_ws(', ', r.aggregate_type, r.event_type), r.function
        FROM cqrs_es.reducers AS r
        UNION ALL SELECT 'upcasters', pg_catalog.concat_ws(', ', u.event_type, u.from_version), u.function
        FROM cqrs_es.upcasters AS u
    ) AS f
    -- not to_regprocedure(), which fails for whoever may not look into one of the schemas
    WHERE f.function IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_proc AS p
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
        WHERE n.nspname OPERATOR(pg_catalog.=) (pg_catalog.parse_ident(f.function, false))[1]::pg_catalog.name
        AND p.proname OPERATOR(pg_catalog.=) (pg_catalog.parse_ident(f.function, false))[2]::pg_catalog.name
        AND pg_catalog.replace(pg_catalog.split_part(f.function, '(', -1), '"', '') OPERATOR(pg_catalog.=) pg_catalog.concat((
            SELECT pg_catalog.string_agg(pg_catalog.concat(s.nspname, '.', t.typname), ',' ORDER BY a.number)
            FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS a (type, number)
            JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) a.type
            JOIN pg_catalog.pg_namespace AS s ON s.oid OPERATOR(pg_catalog.=) t.typnamespace), ')'));
COMMENT ON VIEW cqrs_es.missing_objects IS
    'roles, tables and functions that declarations name and that are not there, after a restore for instance: what names them fails until they are';
