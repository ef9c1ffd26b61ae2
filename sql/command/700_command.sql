-- 700_command: state + command -> events

CREATE TABLE cqrs_es.commands (
    aggregate_type text COLLATE "C" NOT NULL,
    command_type   text COLLATE "C" NOT NULL,
    decider        text NOT NULL,
    definer        regrole,
    definer_name   text COLLATE "C" NOT NULL,
    search_path    text NOT NULL,
    PRIMARY KEY (aggregate_type, command_type)
);
COMMENT ON TABLE cqrs_es.commands IS 'commands of declared aggregates; kept by define_command';
COMMENT ON COLUMN cqrs_es.commands.decider IS 'an SQL expression over state, command, aggregate_id, metadata and version';
COMMENT ON COLUMN cqrs_es.commands.definer IS 'the decider runs with the rights of this role; NULL: it was missing when the row was restored';
COMMENT ON COLUMN cqrs_es.commands.definer_name IS 'its name when the row was written';
-- all rows, with the names of now and without oids
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.commands', $$WHERE false UNION ALL
    SELECT (pg_catalog.jsonb_populate_record(c, pg_catalog.jsonb_build_object('definer', NULL, 'definer_name',
        coalesce((SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS r
            WHERE r.oid OPERATOR(pg_catalog.=) c.definer), c.definer_name)))).*
    FROM cqrs_es.commands AS c$$);

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.commands FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.commands ENABLE ALWAYS TRIGGER registry_changed;

CREATE TRIGGER resolve_names BEFORE INSERT OR UPDATE ON cqrs_es.commands
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.resolve_names();
ALTER TABLE cqrs_es.commands ENABLE ALWAYS TRIGGER resolve_names;

CREATE FUNCTION cqrs_es.define_command(aggregate_type text, command_type text, decider text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_command';
COMMENT ON FUNCTION cqrs_es.define_command(text, text, text) IS
    'says how a command is decided: an SQL expression over state, command, aggregate_id, metadata and version that gives one event or an array of them; reject() refuses';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_command(text, text, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.define_command(aggregate_type text, command_type text, decider regprocedure) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_command_function';
COMMENT ON FUNCTION cqrs_es.define_command(text, text, regprocedure) IS
    'the same with a function (state jsonb, command jsonb) returning jsonb';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_command(text, text, regprocedure) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_command(aggregate_type text, command_type text, if_exists boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_command';
COMMENT ON FUNCTION cqrs_es.drop_command(text, text, boolean) IS 'removes a command; if_exists: a notice when it is not there';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_command(text, text, boolean) FROM PUBLIC;

CREATE FUNCTION cqrs_es.reject(message text, code text DEFAULT NULL) RETURNS jsonb
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_reject';
COMMENT ON FUNCTION cqrs_es.reject(text, text) IS
    'refuses the command that is being decided: raises QE301 with the message, and the code as the constraint name of the error';

CREATE FUNCTION cqrs_es.execute_command(
    aggregate_type   text,
    aggregate_id     text,
    command_type     text,
    payload          jsonb DEFAULT '{}',
    expected_version bigint DEFAULT NULL,
    metadata         jsonb DEFAULT '{}',
    command_id       uuid DEFAULT NULL,
    OUT version         bigint,
    OUT global_position bigint,
    OUT state           jsonb
) RETURNS record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_execute_command';
COMMENT ON FUNCTION cqrs_es.execute_command(text, text, text, jsonb, bigint, jsonb, uuid) IS
    'loads the aggregate, decides the command and appends its events in one call; a lost race is decided again; returns version, position of the last event (NULL when nothing happened) and state';

CREATE FUNCTION cqrs_es.try_execute_command(
    aggregate_type   text,
    aggregate_id     text,
    command_type     text,
    payload          jsonb DEFAULT '{}',
    expected_version bigint DEFAULT NULL,
    metadata         jsonb DEFAULT '{}',
    command_id       uuid DEFAULT NULL,
    OUT outcome         text,
    OUT version         bigint,
    OUT global_position bigint,
    OUT state           jsonb,
    OUT message         text,
    OUT code            text
) RETURNS record
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_try_execute_command';
COMMENT ON FUNCTION cqrs_es.try_execute_command(text, text, text, jsonb, bigint, jsonb, uuid) IS
    'execute_command that tells in its row what the other raises as QE301 and QE001: outcome appended, unchanged (no events), repeated (by command_id), rejected (with the message and code of reject()) or conflict; after these two nothing was written, and the transaction goes on';
