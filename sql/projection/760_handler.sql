-- 760_handler: what projections do for an event

CREATE TABLE cqrs_es.handlers (
    projection  text COLLATE "C" NOT NULL,
    event_type  text COLLATE "C" NOT NULL,
    statement   text,
    -- the full signature: survives dump and restore, which an oid would not
    function    text COLLATE "C",
    definer     regrole,
    definer_name text COLLATE "C" NOT NULL,
    search_path text NOT NULL,
    PRIMARY KEY (projection, event_type),
    CHECK ((statement IS NULL) <> (function IS NULL))
);
COMMENT ON TABLE cqrs_es.handlers IS 'what a projection does for an event type; kept by define_handler';
COMMENT ON COLUMN cqrs_es.handlers.event_type IS '*: all';
COMMENT ON COLUMN cqrs_es.handlers.definer IS 'statement or function runs with the rights of this role; NULL: it was missing when the row was restored';
COMMENT ON COLUMN cqrs_es.handlers.definer_name IS 'its name when the row was written';
-- all rows, with the names of now and without oids
SELECT pg_catalog.pg_extension_config_dump('cqrs_es.handlers', $$WHERE false UNION ALL
    SELECT (pg_catalog.jsonb_populate_record(h, pg_catalog.jsonb_build_object('definer', NULL, 'definer_name',
        coalesce((SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles AS r
            WHERE r.oid OPERATOR(pg_catalog.=) h.definer), h.definer_name)))).*
    FROM cqrs_es.handlers AS h$$);

CREATE TRIGGER registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON cqrs_es.handlers FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es.registry_changed();
ALTER TABLE cqrs_es.handlers ENABLE ALWAYS TRIGGER registry_changed;

CREATE TRIGGER resolve_names BEFORE INSERT OR UPDATE ON cqrs_es.handlers
    FOR EACH ROW EXECUTE FUNCTION cqrs_es.resolve_names();
ALTER TABLE cqrs_es.handlers ENABLE ALWAYS TRIGGER resolve_names;

CREATE FUNCTION cqrs_es.define_handler(projection text, event_type text, handler text) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_define_handler';
COMMENT ON FUNCTION cqrs_es.define_handler(text, text, text) IS
    'says what a projection does for an event type (*: all): one INSERT, UPDATE, DELETE or MERGE over event.payload, event.aggregate_id, ..., or the signature of a function (event cqrs_es.event); run in the appending transaction with the rights and search_path of the definer';
REVOKE EXECUTE ON FUNCTION cqrs_es.define_handler(text, text, text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.drop_handler(projection text, event_type text, if_exists boolean DEFAULT false) RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_drop_handler';
COMMENT ON FUNCTION cqrs_es.drop_handler(text, text, boolean) IS
    'removes a handler: the projection does nothing for the event type any more; if_exists: a notice when it is not there';
REVOKE EXECUTE ON FUNCTION cqrs_es.drop_handler(text, text, boolean) FROM PUBLIC;
