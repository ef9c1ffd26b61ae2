-- 75_projection: read models kept current in the appending transaction

CREATE TABLE cqrs_es.projections (
    name            text COLLATE "C" PRIMARY KEY,
    aggregate_types text[] COLLATE "C",
    read_models     regclass[],
    owner           regrole NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE cqrs_es.projections IS 'projections; kept by create_projection';
COMMENT ON COLUMN cqrs_es.projections.aggregate_types IS 'NULL: all';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.projections', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.projections FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.projections ENABLE ALWAYS TRIGGER registry_changed;

CREATE TABLE cqrs_es.handlers (
    projection  text COLLATE "C" NOT NULL,
    event_type  text COLLATE "C" NOT NULL,
    statement   text NOT NULL,
    definer     regrole NOT NULL,
    search_path text NOT NULL,
    PRIMARY KEY (projection, event_type)
);
COMMENT ON TABLE cqrs_es.handlers IS 'what a projection does for an event type; kept by define_handler';
COMMENT ON COLUMN cqrs_es.handlers.definer IS 'the statement runs with the rights of this role';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.handlers', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.handlers FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.handlers ENABLE ALWAYS TRIGGER registry_changed;

CREATE FUNCTION cqrs_es.create_projection(
    name            text,
    aggregate_types text[] DEFAULT NULL,
    read_models     regclass[] DEFAULT NULL
) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_create_projection';
COMMENT ON FUNCTION cqrs_es.create_projection(text, text[], regclass[]) IS
    'creates a projection: for which aggregate types (NULL: all), and which tables it keeps';
REVOKE EXECUTE ON FUNCTION cqrs_es.create_projection(text, text[], regclass[]) FROM PUBLIC;

CREATE FUNCTION cqrs_es.define_handler(projection text, event_type text, statement text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_handler';
COMMENT ON FUNCTION cqrs_es.define_handler(text, text, text) IS
    'says what a projection does for an event type: one INSERT, UPDATE, DELETE or MERGE over event.payload, event.aggregate_id, ..., run in the appending transaction with the rights and search_path of the definer';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_handler(text, text, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_projection(name text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_projection';
COMMENT ON FUNCTION cqrs_es.drop_projection(text) IS
    'drops a projection with its handlers; its read models stay';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_projection(text) FROM PUBLIC;
