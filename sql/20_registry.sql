-- 20_registry: declared aggregates, and the trigger that every registry carries

CREATE FUNCTION cqrs_es.registry_changed() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_registry_changed';
COMMENT ON FUNCTION cqrs_es.registry_changed() IS
    'statement trigger of the registries: tells all sessions that one of them changed';

CREATE TABLE cqrs_es.aggregates (
    aggregate_type text COLLATE "C" PRIMARY KEY,
    initial_state  jsonb NOT NULL DEFAULT '{}',
    snapshot_every integer NOT NULL DEFAULT 100 CHECK (snapshot_every >= 0),
    created_at     timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE cqrs_es.aggregates IS
    'declared aggregate types; kept by create_aggregate';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.aggregates', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.aggregates FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();

CREATE FUNCTION cqrs_es.create_aggregate(
    aggregate_type text,
    initial_state  jsonb DEFAULT '{}',
    snapshot_every integer DEFAULT 100
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_create_aggregate';
COMMENT ON FUNCTION cqrs_es.create_aggregate(text, jsonb, integer) IS
    'declares an aggregate type: the state before its first event, and every how many events a snapshot is taken (0: never)';
REVOKE EXECUTE ON FUNCTION cqrs_es.create_aggregate(text, jsonb, integer) FROM PUBLIC;
