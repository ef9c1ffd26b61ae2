-- 460_tenants: all tenants of the log

CREATE FUNCTION cqrs_es.tenants() RETURNS SETOF text
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_tenants';
COMMENT ON FUNCTION cqrs_es.tenants() IS
    'the tenants that have events, the empty text for events without one; who may execute it may read the events of all: read_all(all_tenants => true)';
REVOKE EXECUTE ON FUNCTION cqrs_es.tenants() FROM PUBLIC;
