-- 450_upcast: old payload version -> current one, on every way out

CREATE TABLE cqrs_es.upcasters (
    event_type   text COLLATE "C" NOT NULL,
    from_version text COLLATE "C" NOT NULL,
    to_version   text COLLATE "C" NOT NULL,
    -- the full signature: survives dump and restore, which an oid would not
    function     text COLLATE "C" NOT NULL,
    search_path  text NOT NULL,
    PRIMARY KEY (event_type, from_version)
);
COMMENT ON TABLE cqrs_es.upcasters IS 'upcasters; kept by define_upcaster';
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.upcasters', '');

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.upcasters FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.upcasters ENABLE ALWAYS TRIGGER registry_changed;

CREATE TRIGGER resolve_names BEFORE INSERT OR UPDATE ON cqrs_es.upcasters
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.resolve_names();
ALTER TABLE cqrs_es.upcasters ENABLE ALWAYS TRIGGER resolve_names;

CREATE FUNCTION cqrs_es.define_upcaster(event_type text, from_version text, to_version text, function regprocedure) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_upcaster_function';
COMMENT ON FUNCTION cqrs_es.define_upcaster(text, text, text, regprocedure) IS
    'says how the payload of an event type is lifted to another version when it is read: a function (payload jsonb) returning jsonb';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_upcaster(text, text, text, regprocedure) FROM PUBLIC;

-- a literal without a cast is a text to overload resolution
CREATE FUNCTION cqrs_es.define_upcaster(event_type text, from_version text, to_version text, function text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_upcaster';
COMMENT ON FUNCTION cqrs_es.define_upcaster(text, text, text, text) IS
    'the same, with the name or signature of the function as a text';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_upcaster(text, text, text, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_upcaster(event_type text, from_version text, if_exists boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_upcaster';
COMMENT ON FUNCTION cqrs_es.drop_upcaster(text, text, boolean) IS
    'removes the upcaster of an event type from a version; if_exists: a notice when it is not there';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_upcaster(text, text, boolean) FROM PUBLIC;
