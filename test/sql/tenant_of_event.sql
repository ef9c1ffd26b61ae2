\i test/include/setup.sql
-- What runs for an event runs in the tenant of that event, whoever appends, imports, resumes or rebuilds.

BEGIN;
SELECT plan(16);
CREATE SCHEMA te;
SET LOCAL search_path = te, public;
CREATE FUNCTION pg_temp.append(tenant text, id text, type text DEFAULT 'New') RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('cqrs_es.tenant_id', tenant, true);
	RETURN (SELECT version FROM cqrs_es.append_event('te', id, type, '{}'));
END $$;
CREATE TABLE te.seen (tenant_id text, id text, current text DEFAULT cqrs_es.current_tenant(), inside text);
CREATE TABLE te.counts (tenant_id text, id text, n int, PRIMARY KEY (tenant_id, id));
CREATE FUNCTION te.echo(event cqrs_es.event) RETURNS void LANGUAGE sql AS
	$$SELECT cqrs_es.append_event('echo', event.aggregate_id, 'Echo', '{}')$$;
SELECT cqrs_es.create_projection('seen', '{te}', '{seen}') IS NULL AS x,
	cqrs_es.define_handler('seen', '*', 'INSERT INTO seen (tenant_id, id, inside) VALUES (event.tenant_id, event.aggregate_id, cqrs_es.current_tenant())') IS NULL AS y \gset

-- an append, a plain INSERT, an import
SELECT pg_temp.append('t1', 'a') AS x, pg_temp.append('t2', 'b') AS x, set_config('cqrs_es.tenant_id', 't3', true) AS y \gset
SELECT set_eq('SELECT DISTINCT tenant_id, id, current, inside FROM seen', $$VALUES ('t1', 'a', 't1', 't1'), ('t2', 'b', 't2', 't2')$$, 'an append');
INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, event_type, payload) VALUES ('t1', 'te', 'c', 'New', '{}'), ('t2', 'te', 'd', 'New', '{}');
SELECT set_eq('SELECT tenant_id, id, current, inside FROM seen WHERE id IN (''c'', ''d'') ORDER BY 1',
	$$VALUES ('t1', 'c', 't1', 't1'), ('t2', 'd', 't2', 't2')$$, 'rows of a plain INSERT that name other tenants');
CREATE TABLE te.history AS SELECT 'te' AS aggregate_type, 'e' AS aggregate_id, 1::bigint AS sequence, 'New' AS event_type, '{}'::jsonb AS payload, 't4' AS tenant_id;
SELECT count(*) AS x FROM cqrs_es.import_events('te.history') \gset
SELECT set_eq('SELECT tenant_id, id, current, inside FROM seen WHERE id = ''e''', $$VALUES ('t4', 'e', 't4', 't4')$$, 'an import');
SELECT is(cqrs_es.current_tenant(), 't3', 'the session stays in its own tenant');

-- a rebuild gives what was there before, in whichever tenant
CREATE TABLE te.before AS SELECT DISTINCT * FROM seen;
SELECT cqrs_es.rebuild_projection('seen') AS x, set_config('cqrs_es.tenant_id', '', true) AS y \gset
SELECT set_eq('SELECT DISTINCT * FROM seen', 'SELECT * FROM te.before', 'a rebuild of another tenant');
SELECT cqrs_es.rebuild_projection('seen') AS x \gset
SELECT set_eq('SELECT DISTINCT * FROM seen', 'SELECT * FROM te.before', 'a rebuild of none');
SELECT is(cqrs_es.current_tenant(), '', 'none is set afterwards either');
SELECT cqrs_es.drop_projection('seen') IS NULL AS x \gset

-- what a handler appends in a resume
SELECT cqrs_es.create_projection('echo', '{te}') IS NULL AS x,
	cqrs_es.define_handler('echo', 'Said', 'echo(cqrs_es.event)') IS NULL AS y,
	cqrs_es.pause_projection('echo') IS NULL AS z \gset
SELECT pg_temp.append('t1', 'f', 'Said') AS x, pg_temp.append('t2', 'f', 'Said') AS x, set_config('cqrs_es.tenant_id', 't3', true) AS y \gset
SELECT is(cqrs_es.resume_projection('echo'), 2::bigint, 'a resume of another tenant');
SELECT set_eq('SELECT tenant_id, aggregate_id FROM cqrs_es.events WHERE aggregate_type = ''echo'' ORDER BY 1', $$VALUES ('t1', 'f'), ('t2', 'f')$$,
	'what a handler appends goes to the tenant of its event');
SELECT cqrs_es.drop_projection('echo') IS NULL AS x \gset

-- a policy by the tenant
CREATE ROLE te_owner;
GRANT USAGE, CREATE ON SCHEMA te TO te_owner;
GRANT USAGE ON SCHEMA cqrs_es TO te_owner;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cqrs_es TO te_owner;
GRANT SELECT, INSERT ON cqrs_es.events TO te_owner;
ALTER TABLE te.counts OWNER TO te_owner;
ALTER TABLE te.counts ENABLE ROW LEVEL SECURITY;
ALTER TABLE te.counts FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON te.counts USING (tenant_id = cqrs_es.current_tenant());
SET LOCAL ROLE te_owner;
SELECT cqrs_es.create_projection('counts', '{te}', '{counts}') IS NULL AS x,
	cqrs_es.define_handler('counts', 'Born', 'INSERT INTO counts VALUES (event.tenant_id, event.aggregate_id, 1)') IS NULL AS y,
	cqrs_es.define_handler('counts', 'Counted', 'UPDATE counts SET n = n + 1 WHERE id = event.aggregate_id') IS NULL AS z \gset
RESET ROLE;
SELECT pg_temp.append('t1', 'g', 'Born') AS x, pg_temp.append('t2', 'g', 'Born') AS x, cqrs_es.pause_projection('counts') IS NULL AS y,
	pg_temp.append('t2', 'g', 'Counted') AS z, set_config('cqrs_es.tenant_id', 't1', true) AS u \gset
SELECT is(cqrs_es.resume_projection('counts'), 1::bigint, 'a resume in one tenant of an event of another one');
SELECT set_eq('SELECT tenant_id, n FROM te.counts ORDER BY 1', $$VALUES ('t1', 1), ('t2', 2)$$, 'changes the row of the other');

-- a reducer, in a snapshot that is due, and the rows of a projection of states
CREATE FUNCTION te.note(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql STABLE AS $$SELECT state || jsonb_build_object('tenant', cqrs_es.current_tenant())$$;
CREATE TABLE te.states (tenant_id text, view_id text, version bigint NOT NULL, payload jsonb NOT NULL, PRIMARY KEY (tenant_id, view_id));
SELECT cqrs_es.create_aggregate('tr', snapshot_every => 1) IS NULL AS x, cqrs_es.define_reducer('tr', 'New', 'te.note(jsonb, cqrs_es.event)') IS NULL AS y,
	cqrs_es.create_projection('states', read_models => '{states}', state_of => 'tr') IS NULL AS z \gset
INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, event_type, payload) VALUES ('t5', 'tr', 'h', 'New', '{}');
SELECT set_eq('SELECT tenant_id, payload FROM states', $$VALUES ('t5', '{"tenant": "t5"}'::jsonb)$$, 'a state that is kept');
SELECT set_eq('SELECT DISTINCT tenant_id, payload FROM cqrs_es.snapshots WHERE aggregate_type = ''tr''', $$VALUES ('t5', '{"tenant": "t5"}'::jsonb)$$, 'and a snapshot');
SELECT cqrs_es.rebuild_projection('states') AS x \gset
SELECT set_eq('SELECT tenant_id, payload FROM states', $$VALUES ('t5', '{"tenant": "t5"}'::jsonb)$$, 'a state that is rebuilt');

-- required tenants: a rebuild needs none of its own
SELECT set_config('cqrs_es.tenant_id', '', true) AS x, set_config('cqrs_es.require_tenant', 'on', true) AS y \gset
SELECT lives_ok($$SELECT cqrs_es.rebuild_projection('states')$$, 'where each event must have a tenant, a rebuild need not');
SELECT set_eq('SELECT tenant_id, payload FROM states', $$VALUES ('t5', '{"tenant": "t5"}'::jsonb)$$, 'and gives the same rows');
SELECT * FROM finish();
ROLLBACK;
