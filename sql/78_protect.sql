-- 78_protect: what declarations name is not dropped.  An event trigger is called
-- for every DROP of everybody, so it must not fail when the library is missing
-- or an old one: its function is not in C, and lets through all but a refusal
-- and what the server itself is short of.

CREATE FUNCTION cqrs_es.protect_declared() RETURNS event_trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_event_trigger_dropped_objects() AS d
        WHERE d.object_type IN ('function', 'table') AND NOT d.is_temporary)
    THEN
        BEGIN
            PERFORM cqrs_es.protect_functions(), cqrs_es.protect_read_models();
        EXCEPTION
            WHEN dependent_objects_still_exist OR transaction_rollback OR insufficient_resources
                OR operator_intervention OR lock_not_available THEN
                RAISE;
            WHEN OTHERS THEN
                RAISE WARNING 'could not check whether cqrs_es uses what is dropped: %', SQLERRM
                    USING HINT = 'Install the library of the extension again. Do not drop the extension: its events go with it.';
        END;
    END IF;
END $$;
COMMENT ON FUNCTION cqrs_es.protect_declared() IS
    'event trigger: refuses to drop functions and read models that declarations name';
REVOKE EXECUTE ON FUNCTION cqrs_es.protect_declared() FROM PUBLIC;

CREATE EVENT TRIGGER cqrs_es_protect_declared ON sql_drop
    EXECUTE FUNCTION cqrs_es.protect_declared();
COMMENT ON EVENT TRIGGER cqrs_es_protect_declared IS
    'refuses to drop functions and read models that declarations name';
