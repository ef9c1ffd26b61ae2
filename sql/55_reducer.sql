-- 55_reducer: state + event -> state

CREATE TABLE cqrs_es.reducers (
    aggregate_type text COLLATE "C" NOT NULL REFERENCES cqrs_es.aggregates ON DELETE CASCADE,
    event_type     text COLLATE "C" NOT NULL,
    -- the full signature: survives dump and restore, which an oid would not
    function       text COLLATE "C" NOT NULL,
    PRIMARY KEY (aggregate_type, event_type)
);
COMMENT ON TABLE cqrs_es.reducers IS 'reducers of declared aggregates; kept by define_reducer';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.reducers', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.reducers FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();

CREATE FUNCTION cqrs_es.define_reducer(aggregate_type text, event_type text, function regprocedure) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_reducer';
COMMENT ON FUNCTION cqrs_es.define_reducer(text, text, regprocedure) IS
    'says how an event type changes the state: a function (state jsonb, event cqrs_es.event) returning jsonb; without one the payload is merged (RFC 7396)';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_reducer(text, text, regprocedure) FROM PUBLIC;

CREATE FUNCTION cqrs_es.protect_reducer_functions() RETURNS event_trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_protect_reducer_functions';
COMMENT ON FUNCTION cqrs_es.protect_reducer_functions() IS
    'event trigger: refuses to drop a function that a reducer uses';
CREATE EVENT TRIGGER cqrs_es_protect_reducer_functions ON sql_drop
    EXECUTE FUNCTION cqrs_es.protect_reducer_functions();
COMMENT ON EVENT TRIGGER cqrs_es_protect_reducer_functions IS
    'refuses to drop a function that a reducer uses';
