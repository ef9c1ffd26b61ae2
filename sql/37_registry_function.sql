-- 37_registry_function: functions that registries name.  The event trigger's
-- function is here; the trigger itself comes when its tables are there (55).

CREATE FUNCTION cqrs_es.protect_functions() RETURNS event_trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_protect_functions';
COMMENT ON FUNCTION cqrs_es.protect_functions() IS
    'event trigger: refuses to drop a function that a reducer or an upcaster uses';
REVOKE EXECUTE ON FUNCTION cqrs_es.protect_functions() FROM PUBLIC;

CREATE FUNCTION cqrs_es.function_body(function oid) RETURNS text
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_function_body';
COMMENT ON FUNCTION cqrs_es.function_body(oid) IS
    'the body of a function in standard SQL, for fingerprints; NULL for others, and for one that is dropped';
REVOKE EXECUTE ON FUNCTION cqrs_es.function_body(oid) FROM PUBLIC;
