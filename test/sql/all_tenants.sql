\i test/include/setup.sql
-- The list of tenants, and readers of all of them: for who may.
SELECT plan(29);
SET cqrs_es.tenant_id = 'at b';
SELECT cqrs_es.append_event('at', '1', 'X', '{}') IS NULL AS x \gset
SELECT cqrs_es.append_event('at', '2', 'X', '{}') IS NULL AS x \gset
SET cqrs_es.tenant_id = 'at a';
SELECT cqrs_es.append_event('at', '1', 'X', '{}') IS NULL AS x \gset
RESET cqrs_es.tenant_id;
SELECT cqrs_es.append_event('at', '1', 'X', '{}') IS NULL AS x \gset
SELECT max(global_position) - 1 AS nearly FROM cqrs_es.events \gset
CREATE ROLE at_reader;
CREATE ROLE at_worker;
CREATE ROLE at_bypass BYPASSRLS;
GRANT USAGE ON SCHEMA cqrs_es TO at_reader, at_worker, at_bypass;
GRANT SELECT ON cqrs_es.events TO at_reader, at_worker, at_bypass;
GRANT EXECUTE ON FUNCTION cqrs_es.tenants() TO at_worker;

CREATE FUNCTION pg_temp.tenants_as(role text, query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM set_config('role', role, true);
	EXECUTE query INTO result;
	PERFORM set_config('role', 'none', true);
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SELECT $$SELECT string_agg(t, ',' ORDER BY n) FROM cqrs_es.tenants() WITH ORDINALITY AS x (t, n) WHERE t LIKE 'at %' OR t = ''$$ AS list,
	format(query, 'read_all', true) AS all, format(query, 'read_page', true) AS page, format(query, 'read_all', NULL) AS one
FROM (VALUES ($$SELECT string_agg(tenant_id || aggregate_id, ',' ORDER BY global_position) FROM cqrs_es.%s(0, NULL, '{at}', all_tenants => %L)$$)) q (query) \gset
SELECT is(pg_temp.tenants_as(role, :'list'), expected, 'list, ' || role)
FROM (VALUES (1, 'none', ',at a,at b'), (2, 'at_worker', ',at a,at b'), (3, 'at_reader', '42501'), (4, 'at_bypass', '42501')) r (n, role, expected) ORDER BY n;
SELECT is(pg_temp.tenants_as(role, :'all'), expected, 'read_all, ' || role)
FROM (VALUES (1, 'none', 'at b1,at b2,at a1,1'), (2, 'at_worker', 'at b1,at b2,at a1,1'), (3, 'at_reader', '42501'), (4, 'at_bypass', 'at b1,at b2,at a1,1')) r (n, role, expected) ORDER BY n;
SELECT is(pg_temp.tenants_as(role, :'page'), expected, 'read_page, ' || role)
FROM (VALUES (1, 'none', 'at b1,at b2,at a1,1'), (2, 'at_worker', 'at b1,at b2,at a1,1'), (3, 'at_reader', '42501'), (4, 'at_bypass', 'at b1,at b2,at a1,1')) r (n, role, expected) ORDER BY n;
SELECT is(pg_temp.tenants_as(role, :'one'), '1', 'without it, ' || role)
FROM (VALUES (1, 'none'), (2, 'at_worker'), (3, 'at_reader'), (4, 'at_bypass')) r (n, role) ORDER BY n;
SELECT is(pg_temp.error_of($$SET LOCAL ROLE at_reader; SELECT * FROM cqrs_es.read_all(all_tenants => true)$$, '{message,hint}'),
	'{"permission denied to read the events of all tenants","It takes GRANT EXECUTE ON FUNCTION cqrs_es.tenants()."}', 'what it says');
RESET ROLE;

-- the right to see all is none to see the table
REVOKE SELECT ON cqrs_es.events FROM at_worker;
SELECT is(pg_temp.tenants_as('at_worker', :'list'), '42501', 'the list takes SELECT on the log');
SELECT is(pg_temp.tenants_as('at_worker', :'all'), '42501', 'and so does reading');
GRANT SELECT ON cqrs_es.events TO at_worker;

-- in a database that requires a tenant, too
SET cqrs_es.require_tenant = on;
SELECT is(pg_temp.tenants_as('at_worker', :'list'), ',at a,at b', 'where a tenant is required, the list needs none');
SELECT is(pg_temp.tenants_as('at_worker', :'page'), 'at b1,at b2,at a1,1', 'nor do readers of all');
SELECT is(pg_temp.tenants_as('at_worker', :'one'), 'QE007', 'others do');
RESET cqrs_es.require_tenant;

-- a cursor of all tenants goes as far as it looked
SELECT is((SELECT read_to FROM cqrs_es.read_page(:nearly, 1, '{none}', all_tenants => true)) > :nearly, true, 'read_to of a page of all tenants');

-- an index that begins with the tenant
CREATE INDEX at_index ON cqrs_es.events (tenant_id, global_position);
SELECT is(pg_temp.tenants_as('at_worker', :'list'), ',at a,at b', 'with an index');
SELECT is((SELECT array_agg(t) FROM cqrs_es.tenants() t), (SELECT array_agg(DISTINCT tenant_id ORDER BY tenant_id) FROM cqrs_es.events)::text[], 'all there are, in order');
DROP INDEX cqrs_es.at_index;
CREATE INDEX at_index ON cqrs_es.events (tenant_id) WHERE tenant_id <> 'at b';
SELECT is(pg_temp.tenants_as('at_worker', :'list'), ',at a,at b', 'a partial index does not mislead');
DROP INDEX cqrs_es.at_index;

-- policies of users show the current tenant's alone
CREATE POLICY mine ON cqrs_es.events AS RESTRICTIVE USING (true);
SELECT is(pg_temp.tenants_as('at_worker', :'list'), '42501', 'beside a policy: the list is refused');
SELECT is(pg_temp.tenants_as('at_worker', :'all'), '42501', 'reading as well');
SELECT is(pg_temp.tenants_as('at_bypass', :'all'), 'at b1,at b2,at a1,1', 'not for who is above policies');
DROP POLICY mine ON cqrs_es.events;
DROP OWNED BY at_reader, at_worker, at_bypass;
DROP ROLE at_reader, at_worker, at_bypass;
\i test/include/own_log_end.sql
SELECT finish();
