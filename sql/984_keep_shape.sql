-- 984_keep_shape: what people add to the log is in their dumps: see src/log/log_shape.c.
-- Like that of 980_protect, the event trigger must not fail where the library is missing.

CREATE FUNCTION cqrs_es.keep_shape() RETURNS event_trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET jit = off
    AS $$
DECLARE
    log     regclass := to_regclass('cqrs_es.events');
    members regclass[];
    changed regclass[];
    losses  text[];
BEGIN
    IF log IS NULL THEN
        RETURN;
    END IF;
    members := ARRAY(SELECT d.objid FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass
        AND d.deptype = 'e' AND e.extname = 'cqrs_es');

    IF TG_TAG = 'CREATE FUNCTION' THEN
        -- a log of its own is being restored
        IF log = ANY (members) AND EXISTS (SELECT FROM pg_event_trigger_ddl_commands() AS c
            WHERE c.object_identity = 'cqrs_es.log_is_own()' AND NOT c.in_extension)
        THEN
            LOCK TABLE cqrs_es.events IN ACCESS EXCLUSIVE MODE;
            IF EXISTS (SELECT FROM cqrs_es.events) THEN
                RAISE EXCEPTION 'a log cannot be restored where another one has events'
                    USING ERRCODE = 'object_not_in_prerequisite_state',
                        HINT = 'Restore it into an empty database, or with --clean.';
            END IF;
            PERFORM cqrs_es.own_log();
            DROP TABLE cqrs_es.events;
        END IF;
        RETURN;
    END IF;

    IF TG_TAG = 'ALTER EXTENSION' THEN
        -- somebody put the log out of the extension by hand, or into it again
        IF log <> ALL (members) THEN
            PERFORM cqrs_es.own_log();
        ELSIF to_regprocedure('cqrs_es.log_is_own()') IS NOT NULL THEN
            DROP FUNCTION cqrs_es.log_is_own();
        END IF;
        RETURN;
    END IF;

    -- an append inserts with ON CONFLICT, where such rules are not possible
    IF TG_TAG = 'CREATE RULE' AND EXISTS (
        SELECT FROM pg_event_trigger_ddl_commands() AS c JOIN pg_rewrite AS w ON w.oid = c.objid
        WHERE c.classid = 'pg_rewrite'::regclass AND w.ev_class = log AND w.ev_type IN ('2', '3'))
    THEN
        RAISE EXCEPTION 'cqrs_es.events cannot have rules for INSERT or UPDATE'
            USING ERRCODE = 'feature_not_supported',
                DETAIL = 'No event could be appended any more.',
                HINT = 'Use a trigger, or a projection.';
    END IF;

    IF TG_TAG = 'ALTER TABLE' AND (SELECT t.relpersistence FROM pg_class AS t WHERE t.oid = log) = 'u' THEN
        RAISE EXCEPTION 'cqrs_es.events cannot be unlogged'
            USING ERRCODE = 'feature_not_supported',
                DETAIL = 'The server empties such a table when it starts again after a crash.',
                HINT = 'For appends that need not be on disk at once there is synchronous_commit = off.';
    END IF;

    IF TG_TAG IN ('CREATE PUBLICATION', 'ALTER PUBLICATION') AND EXISTS (
        SELECT FROM pg_event_trigger_ddl_commands() AS c
        JOIN pg_publication_namespace AS s ON CASE c.classid WHEN 'pg_publication'::regclass THEN s.pnpubid
            WHEN 'pg_publication_namespace'::regclass THEN s.oid END = c.objid
        WHERE s.pnnspid = 'cqrs_es'::regnamespace)
    THEN
        RAISE WARNING 'a dump has no schema of an extension in a publication'
            USING HINT = 'Publish cqrs_es.events by its name.';
    END IF;

    BEGIN
        SELECT array_agg(t.relid), array_agg(t.lost) INTO changed, losses
        FROM (
            SELECT r.relid, min(cqrs_es.lost_by_dump(c.command)) AS lost
            FROM pg_event_trigger_ddl_commands() AS c
            CROSS JOIN LATERAL (
                SELECT CASE c.classid
                    WHEN 'pg_class'::regclass THEN coalesce((SELECT i.indrelid FROM pg_index AS i WHERE i.indexrelid = c.objid), c.objid)
                    WHEN 'pg_trigger'::regclass THEN (SELECT g.tgrelid FROM pg_trigger AS g WHERE g.oid = c.objid)
                    WHEN 'pg_policy'::regclass THEN (SELECT p.polrelid FROM pg_policy AS p WHERE p.oid = c.objid)
                    WHEN 'pg_rewrite'::regclass THEN (SELECT w.ev_class FROM pg_rewrite AS w WHERE w.oid = c.objid)
                    WHEN 'pg_constraint'::regclass THEN (SELECT k.conrelid FROM pg_constraint AS k WHERE k.oid = c.objid)
                    WHEN 'pg_statistic_ext'::regclass THEN (SELECT s.stxrelid FROM pg_statistic_ext AS s WHERE s.oid = c.objid)
                    WHEN 'pg_publication_rel'::regclass THEN (SELECT l.prrelid FROM pg_publication_rel AS l WHERE l.oid = c.objid)
                END
                UNION SELECT l.prrelid FROM pg_publication_rel AS l
                WHERE c.classid = 'pg_publication'::regclass AND l.prpubid = c.objid
            ) AS r (relid)
            WHERE r.relid = ANY (members) AND NOT c.in_extension
            GROUP BY r.relid
        ) AS t
        WHERE t.lost IS NOT NULL;
    EXCEPTION
        WHEN transaction_rollback OR insufficient_resources OR operator_intervention OR lock_not_available THEN
            RAISE;
        WHEN OTHERS THEN
            RAISE WARNING 'could not check whether dumps have what is added to a table of cqrs_es: %', SQLERRM
                USING HINT = 'Install the library of the extension again.';
            RETURN;
    END;
    FOR i IN 1 .. coalesce(cardinality(changed), 0) LOOP
        IF changed[i] = log THEN
            PERFORM cqrs_es.own_log();
            RAISE NOTICE 'table cqrs_es.events is no longer part of the extension'
                USING DETAIL = 'So dumps have what you add to it. DROP EXTENSION cqrs_es drops it only with CASCADE.';
        ELSIF losses[i] = 'columns' THEN
            RAISE EXCEPTION 'cannot change the columns of %, which is part of an extension', changed[i]
                USING ERRCODE = 'feature_not_supported',
                    DETAIL = 'A dump of this database could not be restored.',
                    HINT = 'Keep what you add in a table of your own.';
        ELSE
            RAISE WARNING 'a dump has no change of the definition of %, which is part of an extension', changed[i]
                USING HINT = 'Keep the statement, and run it again after a restore.';
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION cqrs_es.keep_shape() IS
    'internal: event trigger: sees that dumps have what is added to the log, and makes room for one that is restored; refuses or tells what they cannot have';
REVOKE EXECUTE ON FUNCTION cqrs_es.keep_shape() FROM PUBLIC;

CREATE EVENT TRIGGER cqrs_es_keep_shape ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'CREATE INDEX', 'ALTER INDEX', 'CREATE TRIGGER', 'ALTER TRIGGER', 'CREATE POLICY', 'ALTER POLICY',
        'CREATE RULE', 'ALTER RULE', 'CREATE STATISTICS', 'CREATE PUBLICATION', 'ALTER PUBLICATION', 'COMMENT',
        'ALTER EXTENSION', 'CREATE FUNCTION', 'ALTER SEQUENCE')
    EXECUTE FUNCTION cqrs_es.keep_shape();
COMMENT ON EVENT TRIGGER cqrs_es_keep_shape IS
    'sees that dumps have what is added to the log';

-- What is dropped is gone when a command is at its end, but for its name.
CREATE FUNCTION cqrs_es.keep_shape_of_drops() RETURNS event_trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET jit = off
    AS $$
DECLARE
    of_table regclass;
BEGIN
    FOR of_table IN
        SELECT t.oid
        FROM (SELECT DISTINCT CASE d.object_type WHEN 'index' THEN
                -- those of the other tables are constraints, or somebody's own
                CASE WHEN d.object_name = 'events_global_position_idx' THEN 'events'
                    WHEN d.object_name IN ('event_tags_tag_idx', 'event_tags_global_position_idx') THEN 'event_tags' END
            ELSE d.address_names[2] END::name AS name
            FROM pg_event_trigger_dropped_objects() AS d
            WHERE d.original AND d.object_type IN ('policy', 'trigger', 'rule', 'index')
            AND 'cqrs_es' IN (d.schema_name, d.address_names[1])) AS dropped
        JOIN pg_class AS t ON t.relname = dropped.name AND t.relnamespace = 'cqrs_es'::regnamespace
        JOIN pg_depend AS m ON m.classid = 'pg_class'::regclass AND m.objid = t.oid
            AND m.refclassid = 'pg_extension'::regclass AND m.deptype = 'e'
    LOOP
        IF of_table = to_regclass('cqrs_es.events') THEN
            PERFORM cqrs_es.own_log();
            RAISE NOTICE 'table cqrs_es.events is no longer part of the extension'
                USING DETAIL = 'So dumps have what you take from it. DROP EXTENSION cqrs_es drops it only with CASCADE.';
        ELSE
            RAISE WARNING 'a dump has no change of the definition of %, which is part of an extension', of_table
                USING HINT = 'Keep the statement, and run it again after a restore.';
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION cqrs_es.keep_shape_of_drops() IS
    'internal: event trigger: sees that dumps lack what is taken from the log, and tells what they have all the same';
REVOKE EXECUTE ON FUNCTION cqrs_es.keep_shape_of_drops() FROM PUBLIC;

CREATE EVENT TRIGGER cqrs_es_keep_shape_of_drops ON sql_drop
    WHEN TAG IN ('DROP POLICY', 'DROP TRIGGER', 'DROP RULE', 'DROP INDEX')
    EXECUTE FUNCTION cqrs_es.keep_shape_of_drops();
COMMENT ON EVENT TRIGGER cqrs_es_keep_shape_of_drops IS
    'sees that dumps lack what is taken from the log';

-- A partition that somebody makes by hand, or a tool, gets what each of them has.
CREATE FUNCTION cqrs_es.keep_partitions_whole() RETURNS event_trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET jit = off
    AS $$
DECLARE
    made regclass;
BEGIN
    -- what is restored has all of it; its indexes and triggers come later
    PERFORM FROM pg_inherits AS i JOIN pg_event_trigger_ddl_commands() AS c ON c.objid IN (i.inhrelid, i.inhparent)
        WHERE c.classid = 'pg_class'::regclass AND i.inhparent = to_regclass('cqrs_es.events');
    IF NOT FOUND OR NOT current_setting('check_function_bodies')::boolean THEN
        RETURN;
    END IF;
    FOR made IN SELECT i.inhrelid FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'cqrs_es.events'::regclass AND c.relkind = 'r' AND c.relispartition
        AND EXISTS (SELECT FROM pg_trigger AS g WHERE g.tgrelid = c.oid AND g.tgfoid = 'cqrs_es.admit_event()'::regprocedure)
    LOOP
        PERFORM cqrs_es.complete_partition(made);
    END LOOP;
END $$;
COMMENT ON FUNCTION cqrs_es.keep_partitions_whole() IS
    'internal: event trigger: gives new partitions of the log what they do not get from it';
REVOKE EXECUTE ON FUNCTION cqrs_es.keep_partitions_whole() FROM PUBLIC;

CREATE EVENT TRIGGER cqrs_es_keep_partitions_whole ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE')
    EXECUTE FUNCTION cqrs_es.keep_partitions_whole();
COMMENT ON EVENT TRIGGER cqrs_es_keep_partitions_whole IS
    'gives new partitions of the log what they do not get from it';
