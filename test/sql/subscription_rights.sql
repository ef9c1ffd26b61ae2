\i test/include/setup.sql
-- Who may do what with a subscription, and see what of it: its owner, its consumers and those of others, readers,
-- strangers, other tenants, roles above row security, roles with policies of their own. And when it cannot be used.

SELECT plan(99);
SET cqrs_es.tenant_id = 'sr blue';
SELECT cqrs_es.append_event('sr', 'b', 'made', '{}') IS NULL AS x \gset
SET cqrs_es.tenant_id = 'sr red';
SELECT cqrs_es.append_event('sr', 'r', 'made', '{}') IS NULL AS x \gset
RESET cqrs_es.tenant_id;
SELECT cqrs_es.append_event('sr', 'none', 'made', '{}') IS NULL AS x \gset

CREATE ROLE sr_owner;
CREATE ROLE sr_consumers;
CREATE ROLE sr_consumer IN ROLE sr_consumers;
CREATE ROLE sr_others;
CREATE ROLE sr_other IN ROLE sr_others;
CREATE ROLE sr_reader;
CREATE ROLE sr_outsider IN ROLE sr_consumers;
CREATE ROLE sr_monitor IN ROLE pg_monitor;
CREATE ROLE sr_bypass BYPASSRLS IN ROLE sr_consumers;
CREATE ROLE sr_all IN ROLE sr_consumers;
CREATE ROLE sr_bound IN ROLE sr_consumers;
GRANT USAGE ON SCHEMA cqrs_es TO sr_owner, sr_consumer, sr_other, sr_reader, sr_outsider, sr_monitor, sr_bypass, sr_all, sr_bound;
GRANT SELECT ON cqrs_es.events TO sr_owner, sr_consumer, sr_other, sr_reader, sr_bypass, sr_all, sr_bound;
GRANT EXECUTE ON FUNCTION cqrs_es.create_subscription, cqrs_es.alter_subscription, cqrs_es.drop_subscription, cqrs_es.pause_subscription,
	cqrs_es.resume_subscription, cqrs_es.reset_subscription, cqrs_es.redrive, cqrs_es.discard_dead_letter TO sr_owner, sr_consumer, sr_other, sr_outsider;
GRANT EXECUTE ON FUNCTION cqrs_es.tenants() TO sr_all, sr_other;

-- what a statement gives, or its error, of a role with a tenant
CREATE FUNCTION pg_temp.try(who text, tenant text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM set_config('cqrs_es.tenant_id', coalesce(tenant, ''), true), set_config('role', who, true);
	EXECUTE statement INTO result;
	PERFORM set_config('role', 'none', true), set_config('cqrs_es.tenant_id', '', true);
	RETURN result;
EXCEPTION WHEN OTHERS THEN
	RETURN concat(SQLSTATE, ': ', SQLERRM);
END $$;
CREATE FUNCTION pg_temp.take(who text, tenant text, called text) RETURNS text LANGUAGE sql AS
	$$SELECT pg_temp.try(who, tenant, format('SELECT string_agg(aggregate_id, '' '') FROM cqrs_es.receive_events(%L, %L) WHERE aggregate_type = ''sr''', called, who))$$;

SELECT is(pg_temp.try('sr_owner', 'sr blue', $$SELECT cqrs_es.create_subscription('sr', '{sr}', max_attempts => 1, lease => '1 hour', consumer_role => 'sr_consumers')$$), '', 'its owner creates it');
SELECT is(pg_temp.try('sr_other', 'sr red', $$SELECT cqrs_es.create_subscription('sr red', '{sr}', consumer_role => 'sr_others')$$), '', 'another one, of another tenant');
SELECT is(pg_temp.try('sr_all', NULL, $$SELECT cqrs_es.create_subscription('sr all', all_tenants => true)$$), '42501: permission denied for function create_subscription', 'whoever sees all tenants needs the right to create');
SELECT is(pg_temp.try('sr_owner', 'sr blue', $$SELECT cqrs_es.create_subscription('sr all', '{sr}', all_tenants => true, consumer_role => 'sr_consumers')$$), '42501: permission denied to read the events of all tenants', 'whoever creates needs the right to see all tenants');
SELECT is(pg_temp.try('none', NULL, $$SELECT cqrs_es.create_subscription('sr all', '{sr}', all_tenants => true, lease => '1 hour', consumer_role => 'sr_consumers')$$), '', 'the owner of all has both');
SELECT is(pg_temp.try('sr_outsider', 'sr blue', $$SELECT cqrs_es.create_subscription('sr x')$$), '42501: permission denied for table events', 'creating takes SELECT on the log');

-- a name that is taken
SELECT is(pg_temp.try('sr_other', 'sr red', $$SELECT cqrs_es.create_subscription('sr', '{sr}')$$), '42710: there is a subscription "sr" already', 'a name that is another''s tells nothing else of it');
SELECT is(pg_temp.try('sr_owner', 'sr red', $$SELECT cqrs_es.create_subscription('sr', '{sr}', max_attempts => 1, lease => '1 hour', consumer_role => 'sr_consumers')$$), '42710: there is a subscription "sr" already', 'nor to its owner with another tenant');

-- receive
SELECT is(pg_temp.take(who, tenant, called), said, format('receive %s: %s, %s', called, who, tenant)) FROM (VALUES
	(1, 'sr_reader', 'sr blue', 'sr', '42501: permission denied for subscription "sr"'),
	(2, 'sr_other', 'sr blue', 'sr', '42501: permission denied for subscription "sr"'),
	(3, 'sr_other', 'sr red', 'sr', '42501: permission denied for subscription "sr"'),
	(4, 'sr_monitor', 'sr blue', 'sr', '42501: permission denied for subscription "sr"'),
	(5, 'sr_outsider', 'sr blue', 'sr', '42501: permission denied for table events'),
	(6, 'sr_consumer', 'sr red', 'sr', '42501: the subscription is not one of the current tenant'),
	(7, 'sr_consumer', NULL, 'sr', '42501: the subscription is not one of the current tenant'),
	(8, 'sr_bypass', NULL, 'sr', '42501: the subscription is not one of the current tenant'),
	(9, 'none', NULL, 'sr', '42501: the subscription is not one of the current tenant'),
	(10, 'sr_all', NULL, 'sr', '42501: the subscription is not one of the current tenant'),
	(11, 'sr_consumer', 'sr blue', 'sr red', '42501: permission denied for subscription "sr red"'),
	(12, 'sr_consumer', 'sr blue', 'sr all', '42501: permission denied to read the events of all tenants'),
	(13, 'sr_other', 'sr blue', 'sr all', '42501: permission denied for subscription "sr all"'),
	(14, 'sr_consumer', 'sr blue', 'sr none', 'QE402: subscription "sr none" does not exist')
) r (n, who, tenant, called, said) ORDER BY n;
SELECT is(pg_temp.take('sr_consumer', 'sr blue', 'sr'), 'b', 'a consumer with the tenant gets the tenant''s events');
SELECT batch, leased_until FROM cqrs_es.shares WHERE subscription = 'sr' \gset
SELECT is(pg_temp.take('sr_other', 'sr red', 'sr red'), 'r', 'and so does another');
SELECT is(pg_temp.take('sr_all', 'sr blue', 'sr all'), 'b r none', 'whoever sees all gets all');
SELECT batch AS of_all FROM cqrs_es.shares WHERE subscription = 'sr all' \gset

-- the token alone is no right
SELECT is(pg_temp.try(who, tenant, format(call, :'batch')), said, format('%s: %s, %s', call, who, tenant)) FROM (VALUES
	($$SELECT cqrs_es.ack_events(%L)$$), ($$SELECT cqrs_es.nack_event(%L, 1, 'bad')$$), ($$SELECT cqrs_es.extend_lease(%L)$$), ($$SELECT cqrs_es.release_batch(%L)$$)) c (call), (VALUES
	('sr_reader', 'sr blue', '42501: permission denied for subscription "sr"'),
	('sr_other', 'sr red', '42501: permission denied for subscription "sr"'),
	('sr_consumer', 'sr red', '42501: the subscription is not one of the current tenant'),
	('sr_outsider', 'sr blue', '42501: permission denied for table events')) r (who, tenant, said);
SELECT is(pg_temp.try('sr_consumer', 'sr blue', format('SELECT cqrs_es.ack_events(%L)', :'of_all')), '42501: permission denied to read the events of all tenants', 'nor the role alone');
SELECT is(pg_temp.try('sr_all', 'sr blue', format('SELECT count(*) FROM cqrs_es.receive_events(%L, %L, ack => %L)', 'sr all', 'x', :'batch')) ~ '^QE401', true, 'nor is it one in the name of another subscription');

-- policies of the log that concern a role
CREATE POLICY sr_bound ON cqrs_es.events AS RESTRICTIVE TO sr_bound USING (aggregate_id <> 'b');
SELECT is(pg_temp.take('sr_bound', 'sr blue', 'sr'), '42501: a role to which policies of the log apply cannot use subscriptions', 'policies of one''s own');
SELECT is(pg_temp.take('sr_bypass', 'sr blue', 'sr') IS NULL, true, 'they do not concern who is above row security, for whom there is nothing now');
DROP POLICY sr_bound ON cqrs_es.events;

-- what belongs to the owner
SELECT is(pg_temp.try(who, tenant, call), said, format('%s: %s, %s', call, who, tenant)) FROM (VALUES
	($$SELECT cqrs_es.alter_subscription('sr')$$), ($$SELECT cqrs_es.pause_subscription('sr')$$), ($$SELECT cqrs_es.resume_subscription('sr')$$),
	($$SELECT cqrs_es.reset_subscription('sr', 0)$$), ($$SELECT cqrs_es.redrive('sr')$$), ($$SELECT cqrs_es.drop_subscription('sr')$$)) c (call), (VALUES
	('sr_consumer', 'sr blue', '42501: must be owner of subscription "sr"'),
	('sr_other', 'sr red', '42501: must be owner of subscription "sr"'),
	('sr_owner', 'sr red', '42501: the subscription is not one of the current tenant')) r (who, tenant, said);

-- dead letters
SELECT pg_temp.try('sr_consumer', 'sr blue', format('SELECT cqrs_es.nack_event(%L, (SELECT global_position FROM cqrs_es.read_all(0, 1, %L)), %L)', :'batch', '{sr}', 'secret')) AS nacked,
	pg_temp.try('sr_consumer', 'sr blue', format('SELECT cqrs_es.ack_events(%L)', :'batch')) AS acked \gset
SELECT is(:'nacked' || :'acked', 'blocked0', 'its consumer may nack and acknowledge');
SELECT max(id) AS letter FROM cqrs_es.dead_letters WHERE subscription = 'sr' \gset
SELECT is(pg_temp.try(who, tenant, format('SELECT cqrs_es.discard_dead_letter(%s, %L)', :letter, 'why not')), format('42704: dead letter %s does not exist', :letter), format('discard: %s, %s', who, tenant)) FROM (VALUES
	('sr_consumer', 'sr blue'), ('sr_other', 'sr red'), ('sr_owner', 'sr red')) r (who, tenant);

-- what the views show
SELECT is(pg_temp.try(who, tenant, $$SELECT string_agg(concat_ws(' ', name, shares, blocked, last_error, tenant_id), ', ' ORDER BY name) FROM cqrs_es.subscription_status WHERE name ~ '^sr'$$), said, format('status: %s, %s', who, tenant)) FROM (VALUES
	(1, 'sr_owner', 'sr blue', 'sr 1 1 secret sr blue'),
	(2, 'sr_consumer', 'sr blue', 'sr 1 1 secret sr blue'),
	(3, 'sr_owner', 'sr red', NULL),
	(4, 'sr_consumer', NULL, NULL),
	(5, 'sr_other', 'sr blue', NULL),
	(6, 'sr_other', 'sr red', 'sr red 1 0 sr red'),
	(7, 'sr_reader', 'sr blue', NULL),
	(8, 'sr_outsider', 'sr blue', NULL),
	(9, 'sr_monitor', NULL, 'sr 1 1, sr all 1 0, sr red 1 0'),
	(10, 'sr_all', 'sr red', 'sr all 1 0'),
	(11, 'sr_all', 'sr blue', 'sr 1 1 secret sr blue, sr all 1 0')
) r (n, who, tenant, said) ORDER BY n;
SELECT is(pg_temp.try(who, tenant, $$SELECT (SELECT count(*) FROM cqrs_es.subscription_dead_letters) || ' ' || (SELECT count(*) FROM cqrs_es.subscription_parked_streams) || ' ' || (SELECT count(*) FROM cqrs_es.subscription_consumers WHERE subscription ~ '^sr')$$), said, format('letters, parked streams, consumers: %s, %s', who, tenant)) FROM (VALUES
	('sr_owner', 'sr blue', '1 1 2'), ('sr_consumer', 'sr red', '0 0 0'), ('sr_other', 'sr red', '0 0 1'), ('sr_monitor', NULL, '0 0 4'), ('sr_reader', 'sr blue', '0 0 0')) r (who, tenant, said);
CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
	RAISE EXCEPTION 'saw %', $1;
END $$;
SELECT is(pg_temp.try('sr_reader', 'sr red', 'SELECT count(*) FROM cqrs_es.subscription_status WHERE pg_temp.leak(name)') || pg_temp.try('sr_reader', 'sr red', 'SELECT count(*) FROM cqrs_es.subscription_dead_letters WHERE pg_temp.leak(error)'), '00', 'no function sees more');

-- where a tenant is required
SET cqrs_es.require_tenant = on;
SELECT is(pg_temp.try('sr_consumer', NULL, 'SELECT count(*) FROM cqrs_es.subscription_status'), 'QE007: no tenant is set', 'who forgot it is told');
SELECT is(pg_temp.try('sr_monitor', NULL, $$SELECT count(*) FROM cqrs_es.subscription_status WHERE name ~ '^sr'$$), '3', 'who monitors needs none');
SELECT is(pg_temp.try('sr_all', NULL, $$SELECT count(*) FROM cqrs_es.receive_events('sr all', 'x')$$), '0', 'nor who receives the events of all');
RESET cqrs_es.require_tenant;

-- owner and consumers are others, or gone
SELECT is(pg_temp.try('none', NULL, $$SELECT cqrs_es.alter_subscription('sr', owner => 'sr_other', consumer_role => '-')$$), '', 'the owner of all gives it away');
SELECT is(pg_temp.take('sr_consumer', 'sr blue', 'sr'), '42501: permission denied for subscription "sr"', 'the consumers of before are none');
SELECT is(pg_temp.take('sr_other', 'sr blue', 'sr') IS NULL, true, 'its owner may receive');
SELECT is(pg_temp.try('sr_other', 'sr blue', $$SELECT cqrs_es.alter_subscription('sr', owner => 'sr_owner')$$) ~ '^42501: must be (member of|able to SET ROLE) ', true, 'and gives it to nobody that it cannot become');
SELECT is(pg_temp.try('none', NULL, $$SELECT cqrs_es.alter_subscription('sr', owner => 'sr_owner', consumer_role => 'sr_consumers')$$), '', 'back again');
REVOKE ALL ON FUNCTION cqrs_es.create_subscription, cqrs_es.alter_subscription, cqrs_es.drop_subscription, cqrs_es.pause_subscription,
	cqrs_es.resume_subscription, cqrs_es.reset_subscription, cqrs_es.redrive, cqrs_es.discard_dead_letter FROM sr_owner;
REVOKE ALL ON SCHEMA cqrs_es FROM sr_owner;
REVOKE ALL ON cqrs_es.events FROM sr_owner;
DROP ROLE sr_owner, sr_consumers;
SELECT is(pg_temp.take('sr_consumer', 'sr blue', 'sr'), '42501: permission denied for subscription "sr"', 'their roles are gone: nobody may');
SELECT is((SELECT string_agg(concat_ws(' ', registry, declaration, object_type, object_name), ', ' ORDER BY declaration, object_name) FROM cqrs_es.missing_objects WHERE declaration ~ '^sr'), 'subscriptions sr role sr_consumers, subscriptions sr role sr_owner, subscriptions sr all role sr_consumers', 'they are missing objects');
CREATE ROLE sr_owner;
CREATE ROLE sr_consumers;
SELECT is((SELECT count(*)::int FROM cqrs_es.missing_objects WHERE declaration ~ '^sr'), 3, 'roles of their names are not the same');
SELECT is(pg_temp.try('none', NULL, $$SELECT cqrs_es.alter_subscription('sr', owner => 'sr_other')$$), '', 'a superuser gives it to another');

-- isolation levels, read-only and prepared transactions
SELECT cqrs_es.create_subscription('sr plain', '{none}') IS NULL AS x \gset
\set statements 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM cqrs_es.receive_events(\'sr plain\', \'c\'); ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT cqrs_es.pause_subscription(\'sr plain\'); ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT cqrs_es.create_subscription(\'sr new\'); ROLLBACK;'
\i test/include/session.sql
SELECT is(array_to_string(ARRAY(SELECT m[1] FROM regexp_matches(:'answer', 'ERROR: +(\w{5})', 'g') m), ' '), '25001 25001 25001', 'above READ COMMITTED nothing of it can be had');
\set statements 'BEGIN READ ONLY; SELECT FROM cqrs_es.receive_events(\'sr plain\', \'c\'); ROLLBACK; BEGIN READ ONLY; SELECT cqrs_es.reset_subscription(\'sr plain\', 0); ROLLBACK; BEGIN READ ONLY; SELECT count(*) FROM cqrs_es.subscription_status WHERE name = \'sr plain\'; ROLLBACK;'
\i test/include/session.sql
SELECT is(regexp_replace(:'answer', '\s+', ' ', 'g'), 'ERROR: 25006 ERROR: 25006 1', 'read-only: the views alone');
\set statements 'BEGIN; SELECT FROM cqrs_es.receive_events(\'sr plain\', \'c\'); PREPARE TRANSACTION \'sr\'; BEGIN; SELECT cqrs_es.redrive(\'sr plain\'); PREPARE TRANSACTION \'sr\';'
\i test/include/session.sql
SELECT is(array_to_string(ARRAY(SELECT m[1] FROM regexp_matches(:'answer', 'ERROR: +(\w{5})', 'g') m), ' '), '0A000 0A000', 'a transaction that has used one cannot be prepared');

SELECT count(cqrs_es.drop_subscription(name)) AS x FROM cqrs_es.subscriptions WHERE name ~ '^sr' \gset
DROP OWNED BY sr_consumer, sr_other, sr_reader, sr_outsider, sr_monitor, sr_bypass, sr_all, sr_bound;
DROP ROLE sr_owner, sr_consumers, sr_consumer, sr_others, sr_other, sr_reader, sr_outsider, sr_monitor, sr_bypass, sr_all, sr_bound;
SELECT * FROM finish();
\i test/include/own_log_end.sql
