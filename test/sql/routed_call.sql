\i test/include/setup.sql
-- What stands at the back end of a front: where a stream belongs, which shards are kept, and
-- calls that bring tenant and context with them.
BEGIN;
SELECT plan(45);

-- the hash is that of any SHA-256: computed elsewhere
SELECT is(cqrs_es.stream_hash('account', '1'), 42138211, 'the hash of a stream');
SELECT is(cqrs_es.stream_hash('ü', 'é'), 1406535551, 'in UTF-8');
SELECT is(cqrs_es.stream_hash('account', '0a8f8a52-0f6c-4d0e-9a44-000000000002'), 286265298, 'of a longer one');
SELECT is((SELECT min(n) > 1800 AND max(n) < 2200 FROM (SELECT count(*) AS n FROM generate_series(1, 8000) i GROUP BY cqrs_es.stream_hash('t', i::text) & 3) AS s),
	true, 'streams are dealt out evenly');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.stream_hash('', '1')$$) || pg_temp.state_of($$SELECT cqrs_es.stream_hash('t', NULL)$$), '2202322004', 'what is no stream has none');

-- tenant and context are those of the transaction
CREATE ROLE routed_writer;
CREATE ROLE routed_service;
GRANT USAGE ON SCHEMA cqrs_es TO routed_writer, routed_service;
GRANT SELECT, INSERT ON cqrs_es.events TO routed_writer, routed_service;
GRANT SET ON PARAMETER cqrs_es.tenant_id TO routed_service;
CREATE FUNCTION pg_temp.routed(id text, tenant text, context text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT a.version || ' ' || e.tenant_id || ' ' || e.metadata
	FROM cqrs_es.append_event(cqrs_es.routed_stream('routed', id, tenant, context), id, 'e', '{}') AS a,
		LATERAL (SELECT * FROM cqrs_es.read_stream('routed', id, a.version)) AS e
$$;
SET LOCAL ROLE routed_service;
SELECT is(pg_temp.routed('a', 'acme', '{"user": "ada"}'), '1 acme {"user": "ada"}', 'the event has tenant and context of the call');
SELECT is(current_setting('cqrs_es.tenant_id') || current_setting('cqrs_es.context'), 'acme{"user": "ada"}', 'which are set');
SELECT is(pg_temp.routed('a', NULL), '2 acme {"user": "ada"}', 'null leaves them');
SELECT is(pg_temp.routed('a', '', ''), '1  {}', 'empty ones are others');
SELECT is(cqrs_es.routed_argument(42::bigint, 'globex'), 42::bigint, 'an argument is what it was');
SELECT is(cqrs_es.current_tenant(), 'globex', 'and the tenant is set');
SELECT is(cqrs_es.routed_argument(NULL::jsonb, 'acme'), NULL, 'null, too');
SELECT is(cqrs_es.current_tenant(), 'acme', 'likewise');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.routed_stream('routed', 'a', repeat('x', 256), NULL)$$), '22023', 'what can be no tenant');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.routed_stream('routed', 'a', NULL, 'no JSON')$$), '22023', 'or no context');
RESET ROLE;
SET LOCAL cqrs_es.tenant_id = 'acme';
SET LOCAL ROLE routed_writer;
SELECT is(pg_temp.routed('b', 'acme'), '1 acme {}', 'who may not choose a tenant may name the own one');
SELECT is(pg_temp.state_of($$SELECT pg_temp.routed('b', 'globex')$$), '42501', 'and no other');
SELECT is(pg_temp.state_of($$SELECT pg_temp.routed('b', '')$$), '42501', 'nor none');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.routed_argument(0::bigint, 'globex')$$), '42501', 'whatever the call');
SELECT is(cqrs_es.current_tenant(), 'acme', 'it is still who it was');
SELECT is(pg_temp.routed('c', NULL, '{"user": "ada"}'), '1 acme {"user": "ada"}', 'everybody has a context');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.keep_shards('{0}', 2)$$) || pg_temp.state_of($$SELECT cqrs_es.proxy_functions('shop')$$)
	|| pg_temp.state_of($$SELECT * FROM cqrs_es.kept_shards$$), '425014250142501', 'what is for operators');
RESET ROLE;
RESET cqrs_es.tenant_id;
RESET cqrs_es.context;
SELECT is(cqrs_es.routed_stream(NULL, 'a', NULL, NULL), NULL, 'without a type');
SELECT is(cqrs_es.routed_stream('routed', NULL, NULL, NULL), NULL, 'or an id it is for the call to complain');

-- shards
SELECT is(cqrs_es.stream_hash('routed', 'a') & 7, 4, 'one stream is of shard 4 of 8');
SELECT is(cqrs_es.stream_hash('routed', 'b') & 7, 1, 'another of 1');
SELECT cqrs_es.keep_shards('{0,1}', 8) IS NULL AS x \gset
SELECT is(pg_temp.error_of($$SELECT cqrs_es.routed_stream('routed', 'a', NULL, NULL)$$),
	'{QE605,"stream \"routed/a\" belongs to another server","It is of shard 4 of 8, which is not kept here.","Look at the list of servers of whoever sent this call, and at cqrs_es.kept_shards on each of them."}',
	'a stream of a shard that is not kept is refused');
SELECT is(cqrs_es.routed_stream('routed', 'b', NULL, NULL), 'routed', 'one that is kept is not');
SELECT is((cqrs_es.append_event('routed', 'a', 'e', '{}')).version, 2::bigint, 'nor is a call that nobody has routed');
SAVEPOINT s;
SELECT cqrs_es.keep_shards('{4}', 8) IS NULL AS x \gset
SELECT is(cqrs_es.routed_stream('routed', 'a', NULL, NULL), 'routed', 'they can be others');
SELECT is(pg_temp.state_of($$SELECT cqrs_es.routed_stream('routed', 'b', NULL, NULL)$$), 'QE605', 'then those before are not kept');
ROLLBACK TO s;
SELECT is(cqrs_es.routed_stream('routed', 'b', NULL, NULL), 'routed', 'a rollback takes it back');
SELECT cqrs_es.keep_shards('{}', 8) IS NULL AS x \gset
SELECT is(pg_temp.state_of($$SELECT cqrs_es.routed_stream('routed', 'b', NULL, NULL)$$), 'QE605', 'who keeps none refuses all');
SELECT cqrs_es.keep_shards('{0}', 1) IS NULL AS x \gset
SELECT is(cqrs_es.routed_stream('routed', 'b', NULL, NULL), 'routed', 'one shard is all there is');
SELECT cqrs_es.keep_shards(NULL, NULL) IS NULL AS x \gset
SELECT is((SELECT count(*) FROM cqrs_es.kept_shards), 0::bigint, 'null forgets it');
SELECT is(cqrs_es.routed_stream('routed', 'a', NULL, NULL), 'routed', 'and nothing is refused');
SELECT is(string_agg(pg_temp.state_of(format('SELECT cqrs_es.keep_shards(%s)', args)), ' ' ORDER BY n), '22023 22023 22023 22023 22023 22023 22004', 'what can be no shards')
FROM (VALUES (1, $$'{0}', 3$$), (2, $$'{0}', 0$$), (3, $$'{0}', 131072$$), (4, $$'{8}', 8$$), (5, $$'{-1}', 8$$), (6, $$'{NULL}', 8$$), (7, $$'{0}', NULL$$)) AS v (n, args);

-- positions
SELECT is(cqrs_es.position_here(ARRAY[(5::bigint << 44) + 7, 12, (1::bigint << 44) + 3]), 12::bigint, 'of a vector the position of this node');
SELECT is(cqrs_es.position_here('{}'), 0::bigint, '0 where there is none');
SELECT is(cqrs_es.position_here(NULL), 0::bigint, 'nor a vector');

-- the front's functions
SELECT is((SELECT count(*) > 20 AND bool_and(s ~ '^CREATE (SCHEMA|FUNCTION) .*;$') FROM cqrs_es.proxy_functions('shop') AS s), true, 'they are statements, one a row');
SELECT is((SELECT count(*) FROM cqrs_es.proxy_functions('sh''op; \x', 'My "own" schema') AS s WHERE s !~ '^CREATE (SCHEMA|FUNCTION) "My ""own"" schema"'), 0::bigint, 'the schema is quoted');
SELECT is((SELECT count(*) FROM cqrs_es.proxy_functions('sh''op; \x', 'es') AS s WHERE s ~ 'plproxy' AND s !~ $$ AS E'CLUSTER ''sh''''op; \\\\x''; RUN ON $$), 0::bigint, 'and so is the cluster');
-- a function for a stream that is new must be in the list, or here
SELECT is((SELECT string_agg(p.proname, ' ' ORDER BY p.proname COLLATE "C") FROM pg_proc p
	WHERE p.pronamespace = 'cqrs_es'::regnamespace AND p.pronargs >= 2 AND p.proargnames[1:2] = '{aggregate_type,aggregate_id}'
	AND NOT EXISTS (SELECT FROM cqrs_es.proxy_functions('shop') AS s WHERE s LIKE format('CREATE FUNCTION cqrs_es.%s(%%', p.proname))), 'routed_stream stream_hash',
	'each function for a stream is among them');
SELECT is((SELECT count(DISTINCT substring(s from '^CREATE FUNCTION [^(]*')) - count(*) FROM cqrs_es.proxy_functions('shop') AS s WHERE s ~ '^CREATE FUNCTION'), 0::bigint, 'and none is overloaded');

SELECT * FROM finish();
ROLLBACK;
