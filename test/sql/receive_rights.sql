\i test/include/setup.sql
-- Who may receive: members of the owner or the consumer role, of the subscription's
-- tenant, who would see just its events in the log.
\i test/include/consumer.sql
SELECT plan(27);
DROP ROLE IF EXISTS rr_owner, rr_consumer, rr_stranger, rr_all;
CREATE ROLE rr_owner;
CREATE ROLE rr_consumer;
CREATE ROLE rr_stranger;
CREATE ROLE rr_all BYPASSRLS;
GRANT USAGE ON SCHEMA cqrs_es TO rr_owner, rr_consumer, rr_stranger, rr_all;
GRANT SELECT ON cqrs_es.events TO rr_owner, rr_stranger, rr_all;
SET cqrs_es.tenant_id = 'red';
SELECT pg_temp.append('rr', 'r r r') IS NULL AS x \gset
SET cqrs_es.tenant_id = 'blue';
SELECT pg_temp.append('rr', 'b b') IS NULL AS x \gset
SELECT cqrs_es.create_subscription('rr', aggregate_types => '{rr}', consumer_role => 'rr_consumer') IS NULL AS x \gset
UPDATE cqrs_es.subscriptions SET owner = 'rr_owner', owner_name = 'rr_owner' WHERE name = 'rr';
SET cqrs_es.tenant_id = '';
SELECT cqrs_es.create_subscription('rr_all', aggregate_types => '{rr}', all_tenants => true, consumer_role => 'rr_all') IS NULL AS x \gset
CREATE FUNCTION pg_temp.try(role text, tenant text, subscription text DEFAULT 'rr') RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
	PERFORM set_config('cqrs_es.tenant_id', tenant, true);
	PERFORM set_config('role', role, true);
	BEGIN
		SELECT string_agg(tenant_id || ':' || aggregate_id || '/' || sequence, ' ') INTO result FROM cqrs_es.receive_events(subscription, 'c');
	EXCEPTION WHEN OTHERS THEN
		result := SQLSTATE || ' ' || SQLERRM;
	END;
	PERFORM set_config('role', 'none', true);
	PERFORM set_config('cqrs_es.tenant_id', '', true);
	RETURN coalesce(result, '(nothing)');
END $$;
SELECT is(pg_temp.try('rr_stranger', 'blue'), '42501 permission denied for subscription "rr"', 'a stranger may not');
SELECT is(pg_temp.try('rr_consumer', 'blue'), '42501 permission denied for table events', 'a consumer who may not read the log neither');
GRANT SELECT ON cqrs_es.events TO rr_consumer;
SELECT is(pg_temp.try('rr_consumer', 'red'), '42501 the subscription is not one of the current tenant', 'nor one of another tenant');
SELECT is(pg_temp.try('rr_consumer', ''), '42501 the subscription is not one of the current tenant', 'nor one of no tenant');
SELECT is(pg_temp.try('rr_consumer', 'blue'), 'blue:b/1 blue:b/2', 'a consumer with its tenant set gets the events of that');
SELECT batch FROM cqrs_es.shares WHERE subscription = 'rr' \gset
SELECT is((SELECT batch_end FROM cqrs_es.shares WHERE subscription = 'rr') >= pg_temp.at('rr', 'b/2'), true, 'the position goes as far as that');
CREATE FUNCTION pg_temp.try_batch(role text, tenant text, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
	PERFORM set_config('cqrs_es.tenant_id', tenant, true);
	PERFORM set_config('role', role, true);
	BEGIN
		EXECUTE 'SELECT cqrs_es.' || call INTO result;
	EXCEPTION WHEN OTHERS THEN
		result := SQLSTATE;
	END;
	PERFORM set_config('role', 'none', true);
	PERFORM set_config('cqrs_es.tenant_id', '', true);
	RETURN result;
END $$;
SELECT is(pg_temp.try_batch(role, tenant, format(call, :'batch')), '42501', concat_ws(' ', role, tenant, call))
FROM (VALUES ('ack_events(%L)'), ('nack_event(%L, 1, NULL)'), ('extend_lease(%L)'), ('release_batch(%L)')) c (call), (VALUES ('rr_stranger', 'blue'), ('rr_consumer', 'red')) r (role, tenant);
SELECT is(pg_temp.try_batch('rr_owner', 'blue', format('ack_events(%L)', :'batch')), '2', 'the owner may');
SELECT is(pg_temp.try('rr_owner', 'blue'), '(nothing)', 'as well as receive');

-- all tenants
SELECT is(left(pg_temp.try('rr_consumer', 'red', 'rr_all'), 5), '42501', 'all tenants: not for any consumer');
UPDATE cqrs_es.subscriptions SET consumer_role = 'rr_consumer', consumer_role_name = 'rr_consumer' WHERE name = 'rr_all';
SELECT is(pg_temp.try('rr_consumer', 'red', 'rr_all'), '42501 permission denied to read the events of all tenants', 'not even for one of its role who may not see them all');
SELECT is(pg_temp.try('rr_consumer', '', 'rr_all'), '42501 permission denied to read the events of all tenants', 'whatever the tenant');
UPDATE cqrs_es.subscriptions SET consumer_role = 'rr_all', consumer_role_name = 'rr_all' WHERE name = 'rr_all';
SELECT is(pg_temp.try('rr_all', 'blue', 'rr_all'), 'red:r/1 red:r/2 red:r/3 blue:b/1 blue:b/2', 'who may see all gets all');
SELECT is((SELECT cqrs_es.ack_events(batch) FROM cqrs_es.shares WHERE subscription = 'rr_all'), 5::bigint, 'and acknowledges all');

-- policies of users do not move a cursor
CREATE POLICY rr_policy ON cqrs_es.events AS RESTRICTIVE FOR SELECT TO rr_consumer USING (aggregate_id <> 'b');
SET cqrs_es.tenant_id = 'blue';
SELECT pg_temp.append('rr', 'b') IS NULL AS x \gset
SET cqrs_es.tenant_id = '';
SELECT is(pg_temp.try('rr_consumer', 'blue'), '42501 a role to which policies of the log apply cannot use subscriptions', 'a role to which they apply is refused');
SELECT is((SELECT position < pg_temp.at('rr', 'b/3') FROM cqrs_es.shares WHERE subscription = 'rr'), true, 'and the position stays');
SELECT is(pg_temp.try('none', 'blue'), 'blue:b/3', 'others get the event');
SET cqrs_es.tenant_id = 'blue';
SELECT is((SELECT cqrs_es.release_batch(batch) IS NULL FROM cqrs_es.shares WHERE subscription = 'rr'), false, 'and give it back');
SET cqrs_es.tenant_id = '';
DROP POLICY rr_policy ON cqrs_es.events;
SELECT is(pg_temp.try('rr_consumer', 'blue'), 'blue:b/3', 'without the policy the role gets it');
-- a token of another subscription
SELECT is(pg_temp.state_of(format('SELECT FROM cqrs_es.receive_events(''rr_all'', ''c'', ack => %L)', (SELECT batch FROM cqrs_es.shares WHERE subscription = 'rr'))), 'QE401', 'a batch is acknowledged with its own subscription only');
DELETE FROM cqrs_es.shares WHERE subscription IN ('rr', 'rr_all');
DELETE FROM cqrs_es.subscriptions WHERE name IN ('rr', 'rr_all');
DELETE FROM cqrs_es.consumers;
REVOKE ALL ON cqrs_es.events FROM rr_owner, rr_consumer, rr_stranger, rr_all;
REVOKE ALL ON SCHEMA cqrs_es FROM rr_owner, rr_consumer, rr_stranger, rr_all;
DROP ROLE rr_owner, rr_consumer, rr_stranger, rr_all;
\i test/include/own_log_end.sql
