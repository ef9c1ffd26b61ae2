-- 580_aggregate: declared aggregate types

CREATE TABLE cqrs_es.aggregates (
    aggregate_type text COLLATE "C" PRIMARY KEY,
    initial_state  jsonb NOT NULL DEFAULT '{}',
    snapshot_every integer NOT NULL DEFAULT 100 CHECK (snapshot_every >= 0),
    keep_snapshots integer NOT NULL DEFAULT 1 CHECK (keep_snapshots > 0),
    strict         boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE cqrs_es.aggregates IS
    'declared aggregate types; kept by create_aggregate';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.aggregates', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.aggregates FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.aggregates ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.create_aggregate(
    aggregate_type text,
    initial_state  jsonb DEFAULT '{}',
    snapshot_every integer DEFAULT 100,
    keep_snapshots integer DEFAULT 1,
    strict         boolean DEFAULT false
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_create_aggregate';
COMMENT ON FUNCTION cqrs_es.create_aggregate(text, jsonb, integer, integer, boolean) IS
    'declares an aggregate type: the state before its first event, every how many events a snapshot is taken (0: never), how many of a stream are kept, and whether events that its reducers cannot take are refused (strict); one that is declared already is left when it is the same, and changed when not';
REVOKE EXECUTE ON FUNCTION cqrs_es.create_aggregate(text, jsonb, integer, integer, boolean) FROM PUBLIC;

CREATE FUNCTION cqrs_es.alter_aggregate(
    aggregate_type text,
    initial_state  jsonb DEFAULT NULL,
    snapshot_every integer DEFAULT NULL,
    keep_snapshots integer DEFAULT NULL,
    strict         boolean DEFAULT NULL
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_alter_aggregate';
COMMENT ON FUNCTION cqrs_es.alter_aggregate(text, jsonb, integer, integer, boolean) IS
    'changes a declared aggregate type; NULL leaves a property as it is';
REVOKE EXECUTE ON FUNCTION cqrs_es.alter_aggregate(text, jsonb, integer, integer, boolean) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_aggregate(aggregate_type text, force boolean DEFAULT false, if_exists boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_aggregate';
COMMENT ON FUNCTION cqrs_es.drop_aggregate(text, boolean, boolean) IS
    'drops the declaration of an aggregate type, its reducers, commands and snapshots; its events stay, and when there are some it takes force; if_exists: a notice when it is not there';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_aggregate(text, boolean, boolean) FROM PUBLIC;
