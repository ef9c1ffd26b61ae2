\i test/include/setup.sql
-- Subscriptions are declared: create, alter, drop, pause, resume, reset, and what each makes of arguments that are none.

BEGIN;
SELECT plan(99);
CREATE ROLE cqrs_es_consumer;
SELECT cqrs_es.append_event('sub', 's', 'made', '{}') IS NULL AS x \gset
SELECT max(global_position) AS last FROM cqrs_es.events \gset
CREATE FUNCTION pg_temp.said(call text) RETURNS text LANGUAGE sql AS
	$$SELECT array_to_string((pg_temp.error_of('SELECT cqrs_es.' || call))[1:2], ': ')$$;
CREATE FUNCTION pg_temp.sub(called text) RETURNS text LANGUAGE sql AS
	$$SELECT concat_ws(' ', coalesce(aggregate_types::text, '-'), coalesce(event_types::text, '-'), tenant_id IS NOT NULL, ordering, on_failure, max_attempts, retry_delay, retry_delay_max, lease, consumer_role, consumer_role_name, paused, stopped_error)
	FROM cqrs_es.subscriptions WHERE name = called$$;
CREATE FUNCTION pg_temp.share(called text) RETURNS text LANGUAGE sql AS
	$$SELECT string_agg(concat_ws(' ', bit_count(slots), position, batch IS NOT NULL, consumer), ', ' ORDER BY share) FROM cqrs_es.shares WHERE subscription = called$$;

-- create
SELECT is(pg_temp.said($$create_subscription('a')$$), NULL, 'a name is enough');
SELECT is(pg_temp.sub('a'), '- - t stream block 10 00:00:01 00:05:00 00:00:30 f', 'what it has then');
SELECT is(pg_temp.share('a'), '256 0 f', 'one share with all slots, at the beginning');
SELECT is(pg_temp.said($$create_subscription('a', start_after => 0, max_attempts => NULL, ordering => NULL)$$), NULL, 'the same again');
SELECT is(pg_temp.said(format($$create_subscription('a', start_after => %s)$$, :last)), NULL, 'where it began does not matter then');
SELECT is(pg_temp.share('a'), '256 0 f', 'and it stays where it is');
SELECT is(pg_temp.error_of($$SELECT cqrs_es.create_subscription('a', '{x}', '{y,z}', ordering => 'log', max_attempts => 3, retry_delay => '2 s', retry_delay_max => '2 s', lease => '1 min', consumer_role => 'cqrs_es_consumer', all_tenants => true)$$, '{state,message,detail}'),
	ARRAY['42710', 'subscription "a" already exists, and is another one', 'Its aggregate_types is NULL, event_types is NULL, ordering is stream, on_failure is block, max_attempts is 10, retry_delay is 00:00:01, retry_delay_max is 00:05:00, lease is 00:00:30, consumer_role is NULL, all_tenants is f.'], 'another one under its name');
SELECT is(pg_temp.said($$create_subscription('b', '{x,y}', '{z}', ordering => 'log', max_attempts => 3, retry_delay => '0', retry_delay_max => '0', lease => '1 us', consumer_role => 'cqrs_es_consumer', all_tenants => true)$$), NULL, 'everything given');
SELECT is(pg_temp.sub('b'), '{x,y} {z} f log stop 3 00:00:00 00:00:00 00:00:00.000001 cqrs_es_consumer cqrs_es_consumer f', 'it has it');
SELECT is(pg_temp.said($$create_subscription('b', '{y,x,y}', '{z}', ordering => 'log', max_attempts => 3, retry_delay => '0', retry_delay_max => '0', lease => '1 us', consumer_role => 'cqrs_es_consumer', all_tenants => true)$$), NULL, 'types in another order are the same');
SELECT is(pg_temp.said($$create_subscription('end', start_at_end => true)$$), NULL, 'at the end');
SELECT is(pg_temp.share('end'), '256 ' || :last || ' f', 'that is behind the last event');
SELECT is(pg_temp.said(format($$create_subscription('after', start_after => %s)$$, :last)), NULL, 'after a position');
SELECT is(pg_temp.share('after'), '256 ' || :last || ' f', 'is behind it');
SELECT is(pg_temp.said($$create_subscription('nulls', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)$$), NULL, 'nulls are what is not given');
SELECT is(pg_temp.sub('nulls'), pg_temp.sub('a'), 'as if they were');
SELECT is(pg_temp.said(format('create_subscription(%L)', repeat('ä', 127))), NULL, 'a name of 254 bytes');

SELECT is(pg_temp.said(call), said, call) FROM (VALUES
	($$create_subscription(NULL)$$, '22004: subscription name must not be null'),
	($$create_subscription('')$$, '22023: subscription name must not be empty'),
	($$create_subscription(repeat('x', 256))$$, '22001: subscription name is too long'),
	($$create_subscription('n', '{}')$$, '22023: aggregate_types must not be empty'),
	($$create_subscription('n', '{NULL}')$$, '22004: aggregate type must not be null'),
	($$create_subscription('n', '{""}')$$, '22023: aggregate type must not be empty'),
	($$create_subscription('n', '{{a},{b}}')$$, '2202E: aggregate_types must be a one-dimensional array'),
	($$create_subscription('n', ARRAY[repeat('x', 256)])$$, '22001: aggregate type is too long'),
	($$create_subscription('n', event_types => '{}')$$, '22023: event_types must not be empty'),
	($$create_subscription('n', event_types => ARRAY[repeat('x', 256)])$$, '22001: event type is too long'),
	($$create_subscription('n', start_after => -1)$$, '22023: start_after must not be negative'),
	($$create_subscription('n', start_after => (1::bigint << 44) + 1)$$, '22023: position 17592186044417 is not one of this node'),
	($$create_subscription('n', start_after => (1::bigint << 44) - 1)$$, 'QE404: position 17592186044415 lies ahead of the log'),
	($$create_subscription('n', start_after => 1, start_at_end => true)$$, '22023: start_after and start_at_end cannot be given both'),
	($$create_subscription('n', ordering => 'none')$$, '22023: ordering cannot be "none"'),
	($$create_subscription('n', ordering => '')$$, '22023: ordering cannot be ""'),
	($$create_subscription('n', on_failure => 'ignore')$$, '22023: on_failure cannot be "ignore"'),
	($$create_subscription('n', ordering => 'log', on_failure => 'skip')$$, '22023: in the order of the log on_failure can only be "stop"'),
	($$create_subscription('n', max_attempts => 0)$$, '22023: max_attempts must be positive'),
	($$create_subscription('n', max_attempts => -2147483648)$$, '22023: max_attempts must be positive'),
	($$create_subscription('n', retry_delay => '-1 s')$$, '22023: retry_delay must not be negative'),
	($$create_subscription('n', retry_delay => '367 days')$$, '22023: retry_delay is too long'),
	($$create_subscription('n', retry_delay => '178000000 years')$$, '22023: retry_delay is too long'),
	($$create_subscription('n', retry_delay => '-178000000 years')$$, '22023: retry_delay must not be negative'),
	($$create_subscription('n', retry_delay => '6 min')$$, '22023: retry_delay must not be longer than retry_delay_max'),
	($$create_subscription('n', retry_delay_max => '0.5 s')$$, '22023: retry_delay must not be longer than retry_delay_max'),
	($$create_subscription('n', lease => '0')$$, '22023: lease must be positive'),
	($$create_subscription('n', lease => '1 mon -30 days')$$, '22023: lease must be positive'),
	($$create_subscription('n', lease => '-1 day')$$, '22023: lease must be positive'),
	($$create_subscription('n', lease => '2 years')$$, '22023: lease is too long'),
	($$create_subscription('n', consumer_role => 'cqrs_es_nobody')$$, '42704: role "cqrs_es_nobody" does not exist'),
	($$create_subscription('n', consumer_role => 4294967290)$$, '42704: role with OID 4294967290, which is to receive events, does not exist'),
	($$create_subscription('n', consumer_role => '-')$$, NULL),
	($$drop_subscription('n')$$, NULL)
) c (call, said);

-- alter
SELECT is(pg_temp.said($$alter_subscription('a')$$), NULL, 'nothing to alter');
SELECT is(pg_temp.sub('a'), '- - t stream block 10 00:00:01 00:05:00 00:00:30 f', 'it is as it was');
SELECT is(pg_temp.said($$alter_subscription('a', '{x}', '{y}', 'skip', 2, '3 s', '4 s', '5 s', 'cqrs_es_consumer')$$), NULL, 'everything');
SELECT is(pg_temp.sub('a'), '{x} {y} t stream skip 2 00:00:03 00:00:04 00:00:05 cqrs_es_consumer cqrs_es_consumer f', 'is altered');
SELECT is(pg_temp.said($$alter_subscription('a', '{}', lease => '1 s')$$), NULL, 'an empty array');
SELECT is(pg_temp.sub('a'), '- {y} t stream skip 2 00:00:03 00:00:04 00:00:01 cqrs_es_consumer cqrs_es_consumer f', 'lifts a filter, the rest stays');
SELECT is(pg_temp.said($$alter_subscription('a', event_types => '{}', consumer_role => '-')$$), NULL, 'the role that is none');
SELECT is(pg_temp.sub('a'), '- - t stream skip 2 00:00:03 00:00:04 00:00:01 f', 'takes the consumers away');
SELECT is(pg_temp.said(call), said, call) FROM (VALUES
	($$alter_subscription(NULL)$$, '22004: subscription name must not be null'),
	($$alter_subscription('none')$$, 'QE402: subscription "none" does not exist'),
	($$alter_subscription('a', '{NULL}')$$, '22004: aggregate type must not be null'),
	($$alter_subscription('a', event_types => '{{a,b}}')$$, '2202E: event_types must be a one-dimensional array'),
	($$alter_subscription('a', on_failure => 'Block')$$, '22023: on_failure cannot be "Block"'),
	($$alter_subscription('b', on_failure => 'block')$$, '22023: in the order of the log on_failure can only be "stop"'),
	($$alter_subscription('a', max_attempts => 0)$$, '22023: max_attempts must be positive'),
	($$alter_subscription('a', retry_delay => '5 s')$$, '22023: retry_delay must not be longer than retry_delay_max'),
	($$alter_subscription('a', lease => '0')$$, '22023: lease must be positive'),
	($$alter_subscription('a', consumer_role => 4294967290)$$, '42704: role with OID 4294967290, which is to receive events, does not exist'),
	($$alter_subscription('a', owner => '-')$$, '22023: owner must be a role'),
	($$alter_subscription('a', owner => 'cqrs_es_consumer')$$, NULL),
	($$alter_subscription('a', owner => current_user::regrole)$$, NULL)
) c (call, said);

-- pause, resume
SELECT is(pg_temp.said(call), said, call) FROM (VALUES
	($$pause_subscription('a')$$, NULL),
	($$pause_subscription('a')$$, NULL),
	($$pause_subscription(NULL)$$, '22004: subscription name must not be null'),
	($$pause_subscription('none')$$, 'QE402: subscription "none" does not exist'),
	($$resume_subscription(NULL)$$, '22004: subscription name must not be null'),
	($$resume_subscription('none')$$, 'QE402: subscription "none" does not exist')
) c (call, said);
SELECT is((SELECT paused FROM cqrs_es.subscriptions WHERE name = 'a'), true, 'it is paused');
SELECT is(pg_temp.said($$create_subscription('a', on_failure => 'skip', max_attempts => 2, retry_delay => '3 s', retry_delay_max => '4 s', lease => '1 s')$$), NULL, 'a migration that runs twice');
SELECT is((SELECT paused FROM cqrs_es.subscriptions WHERE name = 'a'), true, 'leaves it paused');
UPDATE cqrs_es.subscriptions SET stopped_error = 'too bad' WHERE name = 'a';
SELECT is(pg_temp.said($$resume_subscription('a')$$), NULL, 'resume');
SELECT is((SELECT concat_ws(' ', paused, stopped_error) FROM cqrs_es.subscriptions WHERE name = 'a'), 'f', 'it is not, and nothing has stopped it');

-- reset
SELECT is(pg_temp.said(call), said, call) FROM (VALUES
	($$reset_subscription(NULL, 0)$$, '22004: subscription name must not be null'),
	($$reset_subscription('a', NULL)$$, '22004: start_after must not be null'),
	($$reset_subscription('none', 0)$$, 'QE402: subscription "none" does not exist'),
	($$reset_subscription('a', -1)$$, '22023: start_after must not be negative'),
	($$reset_subscription('a', 9223372036854775807)$$, 'QE404: position 9223372036854775807 lies ahead of the log'),
	($$reset_subscription('a', (1::bigint << 44) - 1)$$, 'QE404: position 17592186044415 lies ahead of the log')
) c (call, said);
SELECT is((pg_temp.error_of($$SELECT cqrs_es.reset_subscription('a', 1 << 30)$$))[4], 'Give a position that the log has come to, or 0 for the beginning.', 'the hint is for who has said a position');
SELECT is(pg_temp.said($$reset_subscription('a', (5::bigint << 44) + 1)$$), '22023: position 87960930222081 is not one of this node', 'nor one of another node');
SELECT is(pg_temp.said(format($$reset_subscription('a', %s)$$, :last)), NULL, 'to the end');
SELECT is(pg_temp.share('a'), '256 ' || :last || ' f', 'it is there');

-- drop
SELECT is(pg_temp.said(call), said, call) FROM (VALUES
	($$drop_subscription(NULL)$$, '22004: subscription name must not be null'),
	($$drop_subscription('none')$$, 'QE402: subscription "none" does not exist'),
	($$drop_subscription('none', NULL)$$, 'QE402: subscription "none" does not exist'),
	($$drop_subscription('a')$$, NULL)
) c (call, said);
SELECT is(pg_temp.share('a'), NULL, 'its share is gone');
SET LOCAL client_min_messages = error;
SELECT is(pg_temp.said($$drop_subscription('a', if_exists => true)$$), NULL, 'one that is not there, if it exists');

SELECT * FROM finish();
ROLLBACK;
