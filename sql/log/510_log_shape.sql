-- 510_log_shape: what people add to the log is in their dumps: see src/log/log_shape.c
-- (The event trigger that sees to it is in sql/984_keep_shape.sql.)

CREATE FUNCTION cqrs_es.lost_by_dump(command pg_ddl_command) RETURNS text
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_lost_by_dump';
COMMENT ON FUNCTION cqrs_es.lost_by_dump(pg_ddl_command) IS
    'internal: for the event trigger: what a dump would not have of a command on a table of the extension: columns, definition, or NULL';
REVOKE EXECUTE ON FUNCTION cqrs_es.lost_by_dump(pg_ddl_command) FROM PUBLIC;

CREATE FUNCTION cqrs_es.own_log() RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = 'cqrs_es.events'::regclass
        AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'cqrs_es')
    THEN
        ALTER EXTENSION cqrs_es DROP TABLE cqrs_es.events;
    END IF;
    -- the event trigger may have made it, called for the statement above
    IF to_regprocedure('cqrs_es.log_is_own()') IS NULL THEN
        CREATE FUNCTION cqrs_es.log_is_own() RETURNS boolean
            LANGUAGE sql IMMUTABLE PARALLEL SAFE
            RETURN true;
        REVOKE EXECUTE ON FUNCTION cqrs_es.log_is_own() FROM PUBLIC;
        COMMENT ON FUNCTION cqrs_es.log_is_own() IS
            'stands in a dump before the log: where it is created, the empty log of the extension gives way';
    END IF;
END $$;
COMMENT ON FUNCTION cqrs_es.own_log() IS
    'makes the log a table that is no longer one of the extension, so that dumps have all that is added to it; happens by itself when something is';
REVOKE EXECUTE ON FUNCTION cqrs_es.own_log() FROM PUBLIC;
