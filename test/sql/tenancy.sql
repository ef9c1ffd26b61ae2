\i test/include/setup.sql
-- Who is calling: tenants, and what an ordinary role needs to append and to read.
BEGIN;
SELECT plan(68);

-- tenants

SELECT is(cqrs_es.current_tenant(), '', 'without tenants the tenant is empty');
SELECT lives_ok($$SELECT cqrs_es.create_aggregate('tn', snapshot_every => 2)$$, 'an aggregate type is for all tenants');

SET LOCAL cqrs_es.tenant_id = 'acme';
SELECT is(cqrs_es.current_tenant(), 'acme', 'the setting is the tenant');
SELECT is((cqrs_es.append_event('tn', 'a', 'e', '{"of": "acme"}', 0)).version, 1::bigint, 'acme begins a stream');
SELECT is((cqrs_es.append_event('tn', 'a', 'e', '{"more": 1}', 1)).version, 2::bigint, 'and goes on');
SET LOCAL cqrs_es.tenant_id = 'globex';
SELECT is(cqrs_es.stream_version('tn', 'a'), 0::bigint, 'globex has no such stream');
SELECT is((cqrs_es.append_event('tn', 'a', 'e', '{"of": "globex"}', 0)).version, 1::bigint, 'and begins its own under the same id');
SELECT lives_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
	VALUES ('tn', 'a', 'e', '{"less": 1}')$$, 'a plain INSERT is the tenant''s, too');
SELECT results_eq($$SELECT tenant_id, sequence FROM cqrs_es.read_stream('tn', 'a')$$,
	$$VALUES ('globex', 1::bigint), ('globex', 2)$$, 'read_stream reads the tenant''s events');
SELECT is(cqrs_es.aggregate_state('tn', 'a'), '{"of": "globex", "less": 1}', 'and so does replay');
SET LOCAL cqrs_es.tenant_id = 'acme';
SELECT is(cqrs_es.aggregate_state('tn', 'a'), '{"of": "acme", "more": 1}', 'of each tenant');
SELECT results_eq($$SELECT tenant_id COLLATE "default", last_sequence, payload FROM cqrs_es.snapshots
	WHERE aggregate_type = 'tn' ORDER BY tenant_id$$,
	$$VALUES ('acme', 2::bigint, '{"of": "acme", "more": 1}'::jsonb), ('globex', 2, '{"of": "globex", "less": 1}')$$,
	'snapshots are per tenant');
SELECT throws_ok(format($$SET LOCAL cqrs_es.tenant_id = '%s'$$, repeat('x', 256)), '22023', NULL,
	'a tenant id has at most 255 bytes');
SELECT lives_ok(format($$SET LOCAL cqrs_es.tenant_id = '%s'$$, repeat('x', 255)), '255 are possible');
SELECT is((cqrs_es.append_event(repeat('t', 255), repeat('i', 1024), 'e', '{}')).version, 1::bigint,
	'the longest key of all fits the index');
RESET cqrs_es.tenant_id;
SELECT throws_ok(format($$INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, event_type, payload)
	VALUES ('%s', 'tn', 'long', 'e', '{}')$$, repeat('x', 256)), '22001', NULL,
	'nor can a plain INSERT bring a longer one');

-- rights: SELECT on the log to read, and INSERT as well to append

CREATE ROLE cqrs_es_nobody;
CREATE ROLE cqrs_es_writer;
CREATE ROLE cqrs_es_reader;
CREATE ROLE cqrs_es_blind;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_nobody, cqrs_es_writer, cqrs_es_reader, cqrs_es_blind;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_writer;
GRANT INSERT ON cqrs_es.events TO cqrs_es_blind;
GRANT SELECT ON cqrs_es.events TO cqrs_es_reader;

CREATE FUNCTION pg_temp.as_role(role name, statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', role, true);
	EXECUTE statement;
	PERFORM set_config('role', 'none', true);
END $$;

SELECT throws_ok(format('SELECT pg_temp.as_role(%L, %L)', role, call), '42501', NULL,
	format('42501 for %s: %s', role, call))
FROM (VALUES ('cqrs_es_nobody'), ('cqrs_es_reader')) r (role),
	(VALUES (1, $$SELECT cqrs_es.append_event('tn', 'r', 'e', '{}')$$),
		(2, $$SELECT cqrs_es.append_events('tn', 'r', '[{"type": "e", "payload": {}}]')$$),
		(3, $$SELECT cqrs_es.append_event_arrays('tn', 'r', '{e}', '{"{}"}')$$),
		(4, $$SELECT cqrs_es.take_snapshot('tn', 'a')$$),
		(5, $$SELECT cqrs_es.next_position()$$),
		(6, $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('tn', 'r', 'e', '{}')$$)) c (n, call)
ORDER BY role, n;

SELECT throws_ok(format('SELECT pg_temp.as_role(%L, %L)', role, call), '42501', NULL,
	format('42501 for %s: %s', role, call))
FROM (VALUES ('cqrs_es_nobody'), ('cqrs_es_blind')) r (role),
	(VALUES (1, $$SELECT cqrs_es.read_stream('tn', 'a')$$),
		(2, $$SELECT cqrs_es.read_all()$$),
		(3, $$SELECT cqrs_es.stream_version('tn', 'a')$$),
		(4, $$SELECT cqrs_es.settled_position()$$),
		(5, $$SELECT cqrs_es.wait_for_position(0)$$),
		(6, $$SELECT cqrs_es.aggregate_state('tn', 'a')$$),
		(7, $$SELECT cqrs_es.load_aggregate('tn', 'a')$$),
		(8, $$SELECT cqrs_es.take_snapshot('tn', 'a')$$)) c (n, call)
ORDER BY role, n;

SELECT throws_ok(format('SELECT pg_temp.as_role(%L, %L)', 'cqrs_es_writer', call), '42501', NULL,
	format('42501 without EXECUTE: %s', call))
FROM (VALUES (1, $$SELECT cqrs_es.create_aggregate('tn2')$$),
	(2, $$SELECT cqrs_es.define_reducer('tn', 'e', 'pg_catalog.now()')$$),
	(3, $$SELECT cqrs_es.create_projection('p')$$),
	(4, $$SELECT cqrs_es.define_handler('p', 'e', 'DELETE FROM t')$$),
	(5, $$SELECT cqrs_es.drop_projection('p')$$)) c (n, call)
ORDER BY n;

SELECT lives_ok(format('SELECT pg_temp.as_role(%L, %L)', 'cqrs_es_writer', call),
	format('SELECT and INSERT on the log are enough: %s', call))
FROM (VALUES (1, $$SELECT cqrs_es.append_event('tn', 'w', 'e', '{"a": 1}')$$),
	(2, $$SELECT cqrs_es.append_event('tn', 'w', 'e', '{"a": 2}', 1)$$),
	(3, $$SELECT cqrs_es.append_events('tn', 'w', '[{"type": "e", "payload": {"b": 1}}, {"type": "e", "payload": {"b": 2}}]')$$),
	(4, $$SELECT cqrs_es.append_event_arrays('tn', 'w', '{e}', '{"{\"c\": 1}"}')$$),
	(5, $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('tn', 'w', 'e', '{"d": 1}')$$)) c (n, call)
ORDER BY n;
SELECT lives_ok(format('SELECT pg_temp.as_role(%L, %L)', 'cqrs_es_reader', call),
	format('SELECT on the log is enough: %s', call))
FROM (VALUES (1, $$SELECT cqrs_es.read_stream('tn', 'w')$$),
	(2, $$SELECT cqrs_es.read_all(max_count => 1)$$),
	(3, $$SELECT cqrs_es.stream_version('tn', 'w')$$),
	(4, $$SELECT cqrs_es.aggregate_state('tn', 'w')$$),
	(5, $$SELECT cqrs_es.load_aggregate('tn', 'w')$$)) c (n, call)
ORDER BY n;
SELECT is(cqrs_es.aggregate_state('tn', 'w'), '{"a": 2, "b": 2, "c": 1, "d": 1}', 'what the writer wrote is there');
SELECT results_eq($$SELECT last_sequence FROM cqrs_es.snapshots WHERE aggregate_type = 'tn' AND aggregate_id = 'w'$$,
	'VALUES (6::bigint)', 'with snapshots, though the writer has no right on them');
SELECT throws_ok($$SELECT pg_temp.as_role('cqrs_es_writer', 'SELECT * FROM cqrs_es.snapshots')$$, '42501', NULL,
	'he cannot read them');
SELECT throws_ok($$SELECT pg_temp.as_role('cqrs_es_writer', 'UPDATE cqrs_es.snapshots SET last_sequence = 1')$$, '42501', NULL,
	'nor write them');
SELECT throws_ok($$SELECT pg_temp.as_role('cqrs_es_writer', 'SELECT nextval(''cqrs_es.events_global_position_seq'')')$$, '42501', NULL,
	'nor draw numbers by hand');

-- Whoever may fire our triggers on a table of his own may fake events for
-- projections that run with other people's rights.
CREATE TABLE own (id integer);
ALTER TABLE own OWNER TO cqrs_es_writer;
SELECT throws_ok(format('SELECT pg_temp.as_role(%L, %L)', 'cqrs_es_writer',
	format('CREATE TRIGGER t %s EXECUTE FUNCTION cqrs_es.%s()', firing, function)),
	'42501', NULL, format('a stranger cannot put %s() on a table of his own', function))
FROM (VALUES (1, 'admit_event', 'BEFORE INSERT ON own FOR EACH ROW'),
	(2, 'dispatch_event', 'AFTER INSERT ON own FOR EACH ROW'),
	(3, 'refuse_change', 'BEFORE UPDATE ON own'),
	(4, 'registry_changed', 'AFTER UPDATE ON own')) t (n, function, firing)
ORDER BY n;
SELECT finish();
ROLLBACK;
