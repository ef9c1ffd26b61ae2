-- 16_registry_function: functions that registries name

CREATE FUNCTION cqrs_es.protect_functions() RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_protect_functions';
COMMENT ON FUNCTION cqrs_es.protect_functions() IS
    'internal: for the event trigger: refuses to drop a function that a declaration names';
REVOKE EXECUTE ON FUNCTION cqrs_es.protect_functions() FROM PUBLIC;

CREATE FUNCTION cqrs_es.note_function_names() RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_note_function_names';
COMMENT ON FUNCTION cqrs_es.note_function_names() IS
    'internal: for the event trigger: remembers which of the functions in use are there';
REVOKE EXECUTE ON FUNCTION cqrs_es.note_function_names() FROM PUBLIC;

CREATE FUNCTION cqrs_es.protect_function_names() RETURNS void
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_protect_function_names';
COMMENT ON FUNCTION cqrs_es.protect_function_names() IS
    'internal: for the event trigger: refuses to rename or move a function that a declaration names';
REVOKE EXECUTE ON FUNCTION cqrs_es.protect_function_names() FROM PUBLIC;

CREATE FUNCTION cqrs_es.function_body(function oid) RETURNS text
    LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_function_body';
COMMENT ON FUNCTION cqrs_es.function_body(oid) IS
    'internal: the body of a function in standard SQL, for fingerprints; NULL for others, and for one that is dropped';
REVOKE EXECUTE ON FUNCTION cqrs_es.function_body(oid) FROM PUBLIC;
