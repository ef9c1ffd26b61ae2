\i test/include/setup.sql
-- A tenant's role tries to write as another tenant, or to see something of one, in ways that tenancy.sql has not: MERGE,
-- views, imports, what deciders, upcasters and handlers return or do, plans and cursors of somebody else, statistics.

BEGIN;
SELECT plan(43);
CREATE ROLE cqrs_es_red;
CREATE ROLE cqrs_es_definer;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_red, cqrs_es_definer;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_red, cqrs_es_definer;
GRANT EXECUTE ON FUNCTION cqrs_es.import_events TO cqrs_es_red;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.define_command(text, text, text) TO cqrs_es_definer;
CREATE SCHEMA cqrs_es_red AUTHORIZATION cqrs_es_red;
CREATE SCHEMA cqrs_es_definer AUTHORIZATION cqrs_es_definer;

SELECT cqrs_es.create_aggregate('tenant', snapshot_every => 1) IS NULL AS x \gset
SET LOCAL cqrs_es.tenant_id = 'blue';
SELECT cqrs_es.append_event('tenant', 'shared', 'made', '{"of": "blue", "secret": "the secret"}') IS NULL AS x \gset
SELECT count(cqrs_es.append_event('tenant', 'only blue', 'made', '{"of": "blue"}')) AS x FROM generate_series(1, 50) \gset
SELECT cqrs_es.receive_message('queue', '1') AS x \gset
SET LOCAL cqrs_es.tenant_id = 'red';
SELECT cqrs_es.append_event('tenant', 'shared', 'made', '{"of": "red"}') IS NULL AS x \gset
SET LOCAL cqrs_es.tenant_id = '';
ANALYZE cqrs_es.events;

-- What comes of a statement of the role in its tenant, as text: one value, SQLSTATE and message, or 'done'.
CREATE FUNCTION pg_temp.as_red(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM set_config('cqrs_es.tenant_id', 'red', true), set_config('role', 'cqrs_es_red', true);
	IF statement ~* '^(SELECT|WITH|EXECUTE|SHOW|FETCH)' THEN
		EXECUTE statement INTO result;
	ELSE
		EXECUTE statement;
		result := 'done';
	END IF;
	PERFORM set_config('role', 'none', true), set_config('cqrs_es.tenant_id', '', true);
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
-- whose events there are in a stream
CREATE FUNCTION pg_temp.tenants_of(id text) RETURNS text LANGUAGE sql AS
	$$SELECT string_agg(DISTINCT tenant_id, ',' ORDER BY tenant_id) FROM cqrs_es.events WHERE aggregate_id = id$$;

-- forged in plain SQL
SELECT is(pg_temp.as_red(statement), outcome, statement) FROM (VALUES
	(1, $$MERGE INTO cqrs_es.events AS e USING (VALUES (1)) AS v ON false WHEN NOT MATCHED THEN INSERT (tenant_id, aggregate_type, aggregate_id, event_type, payload, sequence, created_at) VALUES ('blue', 'tenant', 'merged', 'made', '{}', NULL, NULL)$$, '42501'),
	(2, $$MERGE INTO cqrs_es.events AS e USING (VALUES (1)) AS v ON e.tenant_id = 'blue' WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN DO NOTHING$$, '42501'),
	(3, $$WITH i AS (INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, event_type, payload) VALUES ('blue', 'tenant', 'with', 'made', '{}') RETURNING tenant_id) SELECT tenant_id FROM i$$, '42501'),
	(4, $$CREATE VIEW cqrs_es_red.log AS SELECT * FROM cqrs_es.events$$, 'done'),
	(5, $$INSERT INTO cqrs_es_red.log (tenant_id, aggregate_type, aggregate_id, event_type, payload) VALUES ('blue', 'tenant', 'view', 'made', '{}')$$, '42501'),
	(6, $$CREATE RULE r AS ON INSERT TO cqrs_es_red.log DO INSTEAD INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, event_type, payload) VALUES ('blue', 'tenant', 'rule', 'made', '{}')$$, 'done'),
	(7, $$INSERT INTO cqrs_es_red.log (aggregate_type) VALUES ('tenant')$$, '42501'),
	(8, $$INSERT INTO cqrs_es.events SELECT * FROM cqrs_es.events$$, '42501'),
	(9, $$INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, event_type, payload) OVERRIDING SYSTEM VALUE VALUES ('blue', 'tenant', 'overriding', 'made', '{}')$$, '42501'),
	(10, $$CREATE TABLE cqrs_es_red.source (tenant_id text, aggregate_type text, aggregate_id text, position int, event_type text, payload jsonb)$$, 'done'),
	(11, $$INSERT INTO cqrs_es_red.source VALUES ('blue', 'tenant', 'imported', 1, 'made', '{}')$$, 'done'),
	(12, $$SELECT cqrs_es.import_events('cqrs_es_red.source')$$, '42501'),
	(13, $$UPDATE cqrs_es_red.source SET tenant_id = 'red'$$, 'done'),
	(14, $$SELECT imported FROM cqrs_es.import_events('cqrs_es_red.source')$$, '1')) a (n, statement, outcome)
ORDER BY n;
SELECT is((SELECT count(*) FROM cqrs_es.events WHERE tenant_id = 'blue'), 51::bigint, 'the other tenant has no event more');
SELECT is(pg_temp.tenants_of('imported'), 'red', 'an importer imports for itself');

-- in what is given to functions
SELECT is(pg_temp.as_red(statement), outcome, statement) FROM (VALUES
	(1, $$SELECT version FROM cqrs_es.append_event('tenant', 'metadata', 'made', '{}', metadata => '{"tenant_id": "blue"}')$$, '1'),
	(2, $$SELECT version FROM cqrs_es.append_events('tenant', 'metadata', '[{"type": "made", "payload": {}, "tenant_id": "blue"}]')$$, '22023'),
	(3, $$SET LOCAL cqrs_es.context = '{"tenant_id": "blue"}'$$, 'done'),
	(4, $$SELECT version FROM cqrs_es.append_event('tenant', 'metadata', 'made', '{}')$$, '2'),
	(5, $$SELECT cqrs_es.receive_message('queue', '1')$$, 'true')) a (n, statement, outcome)
ORDER BY n;
SET LOCAL cqrs_es.context = '';
SELECT is(pg_temp.tenants_of('metadata'), 'red', 'all that is the own tenant''s');

-- by what a definer wrote, who is no friend of the other tenant either
SET LOCAL ROLE cqrs_es_definer;
CREATE TABLE cqrs_es_definer.seen (what text);
CREATE FUNCTION cqrs_es_definer.do(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE event.payload->>'sql'; INSERT INTO cqrs_es_definer.seen VALUES (cqrs_es.current_tenant()); END$$;
SELECT cqrs_es.create_projection('do', '{tenant}', '{cqrs_es_definer.seen}') IS NULL AS x, cqrs_es.define_handler('do', 'do', 'cqrs_es_definer.do(cqrs_es.event)') IS NULL AS y,
	cqrs_es.create_projection('then', '{tenant}') IS NULL AS z, cqrs_es.define_handler('then', 'do', 'INSERT INTO cqrs_es_definer.seen VALUES (''then '' || cqrs_es.current_tenant())') IS NULL AS u,
	cqrs_es.define_command('tenant', 'Forge', $d$'[{"type": "made", "payload": {}, "tenant_id": "blue"}]'::jsonb$d$) IS NULL AS v,
	cqrs_es.define_command('tenant', 'Tell', $d$jsonb_build_object('type', 'told', 'payload', jsonb_build_object('tenant', cqrs_es.current_tenant(), 'seen', (SELECT count(*) FROM cqrs_es.events WHERE tenant_id = 'blue')))$d$) IS NULL AS w \gset
RESET ROLE;
CREATE FUNCTION pg_temp.by_handler(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	result text;
BEGIN
	DELETE FROM cqrs_es_definer.seen;
	PERFORM set_config('cqrs_es.tenant_id', 'red', true), set_config('role', 'cqrs_es_red', true);
	PERFORM cqrs_es.append_event('tenant', 'handled', 'do', jsonb_build_object('sql', sql));
	PERFORM set_config('role', 'none', true), set_config('cqrs_es.tenant_id', '', true);
	SELECT string_agg(what, ', ') INTO result FROM cqrs_es_definer.seen;
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN coalesce(substring(detail FROM '\(SQLSTATE (.....)\)'), SQLSTATE);
END $$;
SELECT is(pg_temp.by_handler(sql), outcome, 'a handler: ' || sql) FROM (VALUES
	(1, $$SELECT 1$$, 'red, then red'),
	(2, $$SELECT pg_catalog.set_config('cqrs_es.tenant_id', 'blue', false)$$, '42501'),
	(3, $$INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, event_type, payload) VALUES ('blue', 'tenant', 'handler', 'made', '{}')$$, '42501'),
	(4, $$SELECT cqrs_es.append_event('tenant', 'handler', 'made', '{}')$$, 'red, then red'),
	(5, $$INSERT INTO cqrs_es_definer.seen SELECT payload->>'secret' FROM cqrs_es.events WHERE tenant_id = 'blue'$$, 'red, then red'),
	(6, $$INSERT INTO cqrs_es_definer.seen SELECT payload->>'secret' FROM cqrs_es.read_stream('tenant', 'shared')$$, 'red, then red')) a (n, sql, outcome)
ORDER BY n;
SELECT is(pg_temp.tenants_of('handler'), 'red', 'what handlers append is of the tenant of their event');
SELECT alike(pg_temp.by_handler('RESET ALL'), '%, then red', 'one that resets all settings takes them from itself alone');
SELECT is(pg_temp.as_red($$SELECT version FROM cqrs_es.execute_command('tenant', 'forged', 'Forge')$$), '22023', 'a decider cannot say a tenant');
SELECT is(pg_temp.as_red($$SELECT state->>'tenant' || (state->>'seen') FROM cqrs_es.execute_command('tenant', 'told', 'Tell')$$), 'red0', 'and sees what the log shows its definer in that tenant');

-- views
SELECT is(pg_temp.as_red($$SELECT string_agg(DISTINCT tenant_id, ',') FROM cqrs_es_red.log$$), 'red', 'a view of its own shows its own');
CREATE VIEW reports AS SELECT * FROM cqrs_es.events;
CREATE VIEW invoked WITH (security_invoker) AS SELECT * FROM cqrs_es.events;
GRANT SELECT ON reports, invoked TO cqrs_es_red;
SELECT is(pg_temp.as_red($$SELECT string_agg(DISTINCT tenant_id, ',' ORDER BY tenant_id) FROM reports WHERE aggregate_type = 'tenant'$$), 'blue,red', 'one of a superuser shows all, as in any database with row security');
SELECT is(pg_temp.as_red($$SELECT string_agg(DISTINCT tenant_id, ',') FROM invoked WHERE aggregate_type = 'tenant'$$), 'red', 'with security_invoker it does not');

-- plans and cursors of somebody who sees all
PREPARE planned AS SELECT string_agg(DISTINCT tenant_id, ',' ORDER BY tenant_id) AS tenants FROM cqrs_es.events WHERE aggregate_type = 'tenant';
CREATE TEMP TABLE answers (who text, tenants text);
GRANT ALL ON answers TO PUBLIC;
EXECUTE planned \gset superuser_
SET LOCAL cqrs_es.tenant_id = 'red';
SET LOCAL ROLE cqrs_es_red;
EXECUTE planned \gset red_
SELECT string_agg(DISTINCT aggregate_type || n, ' ') AS types FROM cqrs_es.event_types() AS t (aggregate_type, event_type, n, first, last) WHERE event_type = 'told' \gset
DECLARE opened CURSOR FOR SELECT tenant_id, of FROM (SELECT tenant_id, payload->>'of' AS of FROM cqrs_es.read_stream('tenant', 'shared')) AS s;
RESET ROLE;
SET LOCAL cqrs_es.tenant_id = 'blue';
SET LOCAL ROLE cqrs_es_red;
FETCH opened \gset cursor_
RESET ROLE;
SET LOCAL cqrs_es.tenant_id = '';
SELECT is(:'superuser_tenants'::text, 'blue,red', 'a plan, by a superuser');
SELECT is(:'red_tenants'::text, 'red', 'the same plan by a tenant''s role');
SELECT is(:'types'::text, 'tenant1', 'and a function whose plan others have used');
SELECT is(:'cursor_of'::text, 'blue', 'a cursor reads in the tenant of its first FETCH, which takes the right to set it');

-- what statistics tell
SELECT is(pg_temp.as_red($$SELECT count(*) FROM pg_stats WHERE schemaname = 'cqrs_es' AND tablename = 'events'$$), '0', 'no statistics of columns');
SELECT is(pg_temp.as_red($$SELECT count(*) FROM pg_stats_ext WHERE schemaname = 'cqrs_es'$$), '0', 'nor extended ones');
SELECT cmp_ok(pg_temp.as_red($$SELECT reltuples FROM pg_class WHERE oid = 'cqrs_es.events'::regclass$$)::float8, '>=', 52::float8, 'how large the whole log is everybody sees');
SELECT is(pg_temp.as_red($$SELECT count(*) FROM cqrs_es.events WHERE aggregate_id = 'only blue'$$), '0', 'no row of a stream of others');

SELECT * FROM finish();
ROLLBACK;
