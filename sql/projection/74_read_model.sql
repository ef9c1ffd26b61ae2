-- 74_read_model: tables that projections keep

CREATE FUNCTION cqrs_es.protect_read_models() RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_protect_read_models';
COMMENT ON FUNCTION cqrs_es.protect_read_models() IS
    'internal: for the event trigger: refuses to drop a table that a projection keeps';
REVOKE EXECUTE ON FUNCTION cqrs_es.protect_read_models() FROM PUBLIC;
