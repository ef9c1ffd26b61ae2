\i test/include/setup.sql
-- Up to which position is the log settled? What one session can tell; the
-- isolation tests have the rest.
SELECT plan(37);
SET cqrs_es.settle_timeout = '200ms';

SELECT (cqrs_es.append_event('horizon', 'a', 'e', '1')).global_position AS first \gset
SELECT is(cqrs_es.settled_position(), :first::bigint, 'a committed event is settled');
SELECT is(cqrs_es.wait_for_position(:first), true, 'waiting for it is over at once');
SELECT is(cqrs_es.wait_for_position(:first, '0'), true, 'even without time');
SELECT is(cqrs_es.wait_for_position(:first, '-1 day'), true, 'even with less');
SELECT is(cqrs_es.wait_for_position(0), true, '0 is before the first event');
SELECT is(cqrs_es.wait_for_position(:first + 1, '20 ms'), false, 'a position that nobody has drawn does not come');
SELECT is(cqrs_es.wait_for_position(:first + 1, '0'), false, 'without time at once');
SELECT is(cqrs_es.wait_for_position((1::bigint << 44) - 1, '0'), false, 'not even the last of all');
SELECT is(cqrs_es.wait_for_position(NULL), NULL, 'NULL gives NULL');
SELECT is(cqrs_es.wait_for_position(1, NULL), NULL, 'also as time');
SELECT throws_ok(format('SELECT cqrs_es.wait_for_position(%s)', call), state, NULL, format('%s: wait_for_position(%s)', state, call))
FROM (VALUES (1, '-1', '22023'), (2, '1::bigint << 44', '22023'), (3, '9223372036854775807', '22023'), (4, '-9223372036854775808', '22023'),
	(5, $$0, '178000000 years'$$, '22008')) t (n, call, state)
ORDER BY n;

-- gaps that are dead

BEGIN;
SELECT (cqrs_es.append_event('horizon', 'a', 'e', '"gap"')).global_position AS dead \gset
ROLLBACK;
SELECT is(cqrs_es.settled_position(), :first::bigint, 'a rolled-back event leaves the settled position where it was');
SELECT is(cqrs_es.wait_for_position(:dead, '0'), true, 'and its position is settled, as a gap');
BEGIN;
SELECT cqrs_es.append_event('horizon', 'a', 'e', '2') IS NULL AS x \gset
SAVEPOINT s;
SELECT cqrs_es.append_event('horizon', 'a', 'e', '"gap"') IS NULL AS x \gset
ROLLBACK TO s;
SELECT (cqrs_es.append_event('horizon', 'a', 'e', '3')).global_position AS third \gset
COMMIT;
SELECT is(cqrs_es.settled_position(), :third::bigint, 'a gap does not hold anybody back');
SELECT is(string_agg(payload::text, ' ' ORDER BY global_position), '1 2 3', 'and read_all goes over it')
FROM cqrs_es.read_all(:first - 1);
SET cqrs_es.settle_timeout = 0;
SELECT is(cqrs_es.settled_position(), :third::bigint, 'without waiting, too');
SET cqrs_es.settle_timeout = '200ms';

-- own events

BEGIN;
SELECT (cqrs_es.append_event('horizon', 'a', 'e', '4')).global_position AS own \gset
SELECT is(cqrs_es.settled_position(), :third::bigint, 'an own event is not settled before the commit');
SELECT is(string_agg(payload::text, ' ' ORDER BY global_position), '1 2 3', 'nor handed out') FROM cqrs_es.read_all(:first - 1);
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.wait_for_position(%s)', :own)), '55000', 'nor can it be waited for');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.wait_for_position(%s)', :own + 1)), '55000', 'nor what comes after it');
SELECT is(cqrs_es.wait_for_position(:third), true, 'but what lies before');
COMMIT;
SELECT is(cqrs_es.settled_position(), :own::bigint, 'after the commit it is settled');
BEGIN;
SAVEPOINT s;
SELECT cqrs_es.append_event('horizon', 'a', 'e', '"gap"') IS NULL AS x \gset
ROLLBACK TO s;
SELECT is(cqrs_es.settled_position(), :own::bigint, 'an own event that was rolled back');
SELECT is(string_agg(payload::text, ' ' ORDER BY global_position), '1 2 3 4', 'hides nothing before it') FROM cqrs_es.read_all(:first - 1);
COMMIT;
SELECT (cqrs_es.append_event('horizon', 'a', 'e', '5')).global_position AS fifth \gset
SELECT is(string_agg(payload::text, ' ' ORDER BY global_position), '1 2 3 4 5', 'and nothing after it, in the end') FROM cqrs_es.read_all(:first - 1);

-- isolation levels

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT is(cqrs_es.settled_position(), :fifth::bigint, 'REPEATABLE READ: what was settled before');
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.wait_for_position(%s)', :fifth)), '25001', 'but there is no waiting');
SELECT cqrs_es.append_event('horizon', 'a', 'e', '6') IS NULL AS x \gset
SELECT is(cqrs_es.settled_position(), :fifth::bigint, 'an own event is not settled here either');
SELECT is(string_agg(payload::text, ' ' ORDER BY global_position), '1 2 3 4 5', 'nor handed out') FROM cqrs_es.read_all(:first - 1);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT is(pg_temp.state_of(format('SELECT cqrs_es.wait_for_position(%s)', :fifth)), '25001', 'SERIALIZABLE: likewise');
COMMIT;
BEGIN READ ONLY;
SELECT is(string_agg(payload::text, ' ' ORDER BY global_position), '1 2 3 4 5 6', 'READ ONLY: nothing is written') FROM cqrs_es.read_all(:first - 1);
SELECT is(cqrs_es.wait_for_position(:fifth), true, 'even when waiting');
COMMIT;

-- events of another node

BEGIN;
SET LOCAL cqrs_es.node_id = 7;
SELECT cqrs_es.append_event('horizon', 'a', 'e', '7') IS NULL AS x \gset
SAVEPOINT s;
SELECT cqrs_es.append_event('horizon', 'a', 'e', '"gap"') IS NULL AS x \gset
ROLLBACK TO s;
SELECT cqrs_es.append_event('horizon', 'a', 'e', '8') IS NULL AS x \gset
SET LOCAL cqrs_es.node_id = 0;
SELECT string_agg(payload::text, ' ' ORDER BY global_position) AS payloads
FROM cqrs_es.read_all(:first - 1) WHERE aggregate_type = 'horizon' \gset
ROLLBACK;
SELECT is(:'payloads'::text, '1 2 3 4 5 6', 'own events of another node are not settled before the commit, either');
SELECT finish();
