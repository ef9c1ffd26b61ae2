-- 160_registry_function: functions that registries name

CREATE FUNCTION cqrs_es.check_declared(event text) RETURNS void
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_check_declared';
COMMENT ON FUNCTION cqrs_es.check_declared(text) IS
    'internal: for the event trigger protect_declared: refuses to drop functions and read models that declarations name, and to rename or move such functions';
REVOKE EXECUTE ON FUNCTION cqrs_es.check_declared(text) FROM PUBLIC;

CREATE FUNCTION cqrs_es.function_body(function oid) RETURNS text
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_function_body';
COMMENT ON FUNCTION cqrs_es.function_body(oid) IS
    'internal: the body of a function in standard SQL, for fingerprints; NULL for others, and for one that is dropped';
REVOKE EXECUTE ON FUNCTION cqrs_es.function_body(oid) FROM PUBLIC;
