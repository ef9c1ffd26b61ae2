-- 100_tenancy: who is calling.  Who may set it: src/base/tenancy.c
-- Tables of per-tenant data carry the policy tenant_isolation.  It is not forced
-- on their owner: pg_dump, restores and our own statements need all rows.  The
-- comparison is a plain one, so that it can be an index condition.

CREATE FUNCTION cqrs_es.current_tenant() RETURNS text
    LANGUAGE C STABLE PARALLEL SAFE
    AS 'MODULE_PATHNAME', 'cqrs_es_current_tenant';
COMMENT ON FUNCTION cqrs_es.current_tenant() IS
    'the tenant whose events are appended and read: the setting cqrs_es.tenant_id, empty when there is none';
