-- 170_registry_name: roles and tables that registries name.  A registry has them
-- by oid, which follows renames, and by name.  Its rows are dumped by the name of
-- that time alone: see src/base/registry_name.c

CREATE FUNCTION cqrs_es.resolve_names() RETURNS trigger
    LANGUAGE C VOLATILE PARALLEL UNSAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_resolve_names';
COMMENT ON FUNCTION cqrs_es.resolve_names() IS
    'internal: row trigger of the registries: finds what a restored row names, and warns of what is missing';
REVOKE EXECUTE ON FUNCTION cqrs_es.resolve_names() FROM PUBLIC;
