-- 982_keep_place: the tables of the extension, and its schema, keep their names, and nobody
-- inherits from them: see src/log/log_shape.c.  It is found by name, by sessions and by
-- the extension's own event triggers.
-- Like that of 980_protect, the event trigger must not fail where the library is missing, and
-- costs next to nothing where a table is created.

CREATE FUNCTION cqrs_es.keep_place() RETURNS event_trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET jit = off
    AS $$
DECLARE
    extension oid;
    table_of  record;
BEGIN
    -- almost always
    IF TG_TAG LIKE 'CREATE %' AND NOT EXISTS (SELECT FROM pg_event_trigger_ddl_commands() AS c
        WHERE c.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = c.objid))
    THEN
        RETURN;
    END IF;
    extension := (SELECT e.oid FROM pg_extension AS e WHERE e.extname = 'cqrs_es');

    IF TG_TAG = 'ALTER SCHEMA' THEN
        IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() AS c
            JOIN pg_namespace AS s ON s.oid = c.objid
            JOIN pg_depend AS d ON d.classid = c.classid AND d.objid = s.oid
            WHERE c.classid = 'pg_namespace'::regclass AND s.nspname <> 'cqrs_es'
            AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.deptype = 'e')
        THEN
            RAISE EXCEPTION 'schema cqrs_es cannot be renamed, since extension cqrs_es looks for its tables there'
                USING ERRCODE = 'feature_not_supported';
        END IF;
        RETURN;
    END IF;

    FOR table_of IN
        SELECT i.inhrelid::regclass AS child, i.inhparent::regclass AS parent
        FROM pg_event_trigger_ddl_commands() AS c
        JOIN pg_inherits AS i ON i.inhrelid = c.objid
        JOIN pg_class AS t ON t.oid = i.inhrelid
        WHERE c.classid = 'pg_class'::regclass AND NOT t.relispartition
        AND (i.inhparent = to_regclass('cqrs_es.events') OR EXISTS (SELECT FROM pg_depend AS d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = i.inhparent
            AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.deptype = 'e'))
    LOOP
        RAISE EXCEPTION 'table % cannot inherit from %', table_of.child, table_of.parent
            USING ERRCODE = 'feature_not_supported',
                DETAIL = 'No unique index could cover both, and cqrs_es would take the rows of the one for rows of the other.',
                HINT = 'Use CREATE TABLE ... (LIKE ...), or partition the log.';
    END LOOP;
    IF TG_TAG LIKE 'CREATE %' THEN
        RETURN;
    END IF;

    FOR table_of IN
        SELECT t.relowner::regrole AS owner
        FROM pg_event_trigger_ddl_commands() AS c
        JOIN pg_class AS t ON t.oid = c.objid
        WHERE c.classid = 'pg_class'::regclass AND t.oid = to_regclass('cqrs_es.events')
        AND NOT has_schema_privilege(t.relowner, 'cqrs_es', 'USAGE')
    LOOP
        RAISE WARNING 'the owner of cqrs_es.events lacks rights without which events may be refused'
            USING HINT = format('GRANT USAGE ON SCHEMA cqrs_es TO %s', table_of.owner);
    END LOOP;

    BEGIN
        SELECT c.objid::regclass AS now_called, EXISTS (SELECT FROM pg_trigger AS g
            WHERE g.tgrelid = c.objid AND g.tgfoid = to_regproc('cqrs_es.admit_event')) AS is_log,
            EXISTS (SELECT FROM pg_depend AS d
                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.objid
                AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension AND d.deptype = 'e') AS is_member
        INTO table_of
        FROM pg_event_trigger_ddl_commands() AS c
        JOIN pg_class AS t ON t.oid = c.objid
        WHERE c.classid = 'pg_class'::regclass AND t.relkind IN ('r', 'p', 'S') AND NOT t.relispartition
        AND NOT c.in_extension AND cqrs_es.lost_by_dump(c.command) = 'name'
        LIMIT 1;
    EXCEPTION
        WHEN transaction_rollback OR insufficient_resources OR operator_intervention OR lock_not_available THEN
            RAISE;
        WHEN OTHERS THEN
            RETURN; -- of which keep_shape tells
    END;
    IF table_of.is_member THEN
        RAISE EXCEPTION '% cannot have another name or schema, since extension cqrs_es finds it by them', table_of.now_called
            USING ERRCODE = 'feature_not_supported',
                HINT = 'Only the log can give way to another table, after cqrs_es.own_log().';
    ELSIF table_of.is_log AND to_regclass('cqrs_es.events') IS NULL THEN
        RAISE WARNING 'there is no table cqrs_es.events any more, and nothing can be appended'
            USING HINT = 'Create another log of that name in the same transaction, or rename this one back.';
    END IF;
END $$;
COMMENT ON FUNCTION cqrs_es.keep_place() IS
    'internal: event trigger: refuses to rename or move the tables of the extension and its schema, and to inherit from them';
REVOKE EXECUTE ON FUNCTION cqrs_es.keep_place() FROM PUBLIC;

CREATE EVENT TRIGGER cqrs_es_keep_place ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER FOREIGN TABLE', 'ALTER SEQUENCE',
        'CREATE TABLE', 'CREATE FOREIGN TABLE', 'CREATE SCHEMA', 'ALTER SCHEMA')
    EXECUTE FUNCTION cqrs_es.keep_place();
COMMENT ON EVENT TRIGGER cqrs_es_keep_place IS
    'refuses to rename or move the tables of the extension and its schema, and to inherit from them';
