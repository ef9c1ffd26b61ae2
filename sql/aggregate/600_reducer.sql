-- 600_reducer: state + event -> state

CREATE TABLE cqrs_es.reducers (
    aggregate_type text COLLATE "C" NOT NULL,
    event_type     text COLLATE "C" NOT NULL,
    -- the full signature: survives dump and restore, which an oid would not
    function       text COLLATE "C",
    search_path    text NOT NULL,
    operations     jsonb,
    PRIMARY KEY (aggregate_type, event_type),
    CHECK ((function IS NULL) <> (operations IS NULL))
);
COMMENT ON TABLE cqrs_es.reducers IS 'reducers of declared aggregates; kept by define_reducer';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.reducers', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.reducers FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.reducers ENABLE ALWAYS TRIGGER registry_changed;

CREATE TRIGGER resolve_names BEFORE INSERT OR UPDATE ON cqrs_es.reducers
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.resolve_names();
ALTER TABLE cqrs_es.reducers ENABLE ALWAYS TRIGGER resolve_names;

CREATE FUNCTION cqrs_es.define_reducer(aggregate_type text, event_type text, function regprocedure) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_reducer_function';
COMMENT ON FUNCTION cqrs_es.define_reducer(text, text, regprocedure) IS
    'says how an event type changes the state: a function (state jsonb, event cqrs_es.event) returning jsonb; without a reducer a payload that is an object is merged (RFC 7396)';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_reducer(text, text, regprocedure) FROM PUBLIC;

CREATE FUNCTION cqrs_es.define_reducer(aggregate_type text, event_type text, operations jsonb) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_reducer_operations';
COMMENT ON FUNCTION cqrs_es.define_reducer(text, text, jsonb) IS
    'says how an event type changes the state: an array of operations {"op", "path", "value" or "from"}: add, replace, remove, set, increment, decrement, append, merge';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_reducer(text, text, jsonb) FROM PUBLIC;

-- a literal without a cast is a text to overload resolution
CREATE FUNCTION cqrs_es.define_reducer(aggregate_type text, event_type text, reducer text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_reducer';
COMMENT ON FUNCTION cqrs_es.define_reducer(text, text, text) IS
    'either of the two: text that begins with a bracket is operations, other text a function';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_reducer(text, text, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_reducer(aggregate_type text, event_type text, if_exists boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_reducer';
COMMENT ON FUNCTION cqrs_es.drop_reducer(text, text, boolean) IS
    'removes a reducer: the payload of the event type is merged again; if_exists: a notice when it is not there';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_reducer(text, text, boolean) FROM PUBLIC;
