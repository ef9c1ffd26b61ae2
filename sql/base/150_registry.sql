-- 150_registry: the trigger that every registry carries.
-- No foreign keys between registries: a parallel pg_restore fills the tables in
-- any order, and constraints of an extension's tables are there from the start.

CREATE FUNCTION cqrs_es.registry_changed() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_registry_changed';
COMMENT ON FUNCTION cqrs_es.registry_changed() IS
    'internal: statement trigger of the registries: tells all sessions that one of them changed';
REVOKE EXECUTE ON FUNCTION cqrs_es.registry_changed() FROM PUBLIC;
