-- 10_tenancy: who is calling

CREATE FUNCTION cqrs_es.current_tenant() RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_current_tenant';
COMMENT ON FUNCTION cqrs_es.current_tenant() IS
    'the tenant whose events are appended and read: the setting cqrs_es.tenant_id, empty when there is none';
