\i test/include/setup.sql
-- Two tenants with equal ids never meet: not in functions, whoever calls them, and
-- for ordinary roles not in plain SQL. What binds a role to its tenant is in
-- test/t/006_tenants.pl, what roles may do in rights.sql.
BEGIN;
SELECT plan(136);

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

-- equal ids of streams, events and commands: every function, as superuser and as
-- an ordinary role

CREATE ROLE cqrs_es_writer;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_writer;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_writer;

-- The rows of a query as a text, in the name of a tenant and a role ('none': superuser).
CREATE FUNCTION pg_temp.rows(tenant text, role text, query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	PERFORM set_config('cqrs_es.tenant_id', tenant, true), set_config('role', role, true);
	EXECUTE format('SELECT string_agg(q::text, '' '') FROM (%s) AS q', query) INTO result;
	PERFORM set_config('role', 'none', true), set_config('cqrs_es.tenant_id', '', true);
	RETURN result;
END $$;
-- The same of a statement that fails: all that the error says.
CREATE FUNCTION pg_temp.error(tenant text, role text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	PERFORM set_config('cqrs_es.tenant_id', tenant, true), set_config('role', role, true);
	EXECUTE statement;
	PERFORM set_config('role', 'none', true), set_config('cqrs_es.tenant_id', '', true);
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws('; ', SQLSTATE, message, nullif(detail, ''), nullif(hint, ''));
END $$;

CREATE TABLE seen (tenant text, aggregate_id text, n bigint, PRIMARY KEY (tenant, aggregate_id));
SELECT lives_ok($$SELECT cqrs_es.create_aggregate('twin', snapshot_every => 2),
	cqrs_es.define_command('twin', 'Go', 'jsonb_build_object(''type'', ''Gone'', ''payload'', command)'),
	cqrs_es.create_projection('seen', '{twin}', '{seen}'),
	cqrs_es.define_handler('seen', 'Was', 'INSERT INTO seen VALUES (event.tenant_id, event.aggregate_id, 1)
		ON CONFLICT (tenant, aggregate_id) DO UPDATE SET n = seen.n + 1')$$, 'declarations are for all tenants');

SELECT matches(pg_temp.rows(tenant, role, format($$SELECT * FROM cqrs_es.append_event('twin', %L, 'Was', '{"of": "%s", "n": %s}',
		event_id => '00000000-0000-7000-8000-00000000000%s')$$, 'by ' || role, tenant, n, n)), format('^\(%s,\d+\)$', n),
	format('%s of %s appends event %s, with an id that the other tenant uses as well', role, tenant, n))
FROM (VALUES ('none'), ('cqrs_es_writer')) r (role),
	(VALUES (1, 'left', 1), (2, 'left', 2), (3, 'right', 1), (4, 'left', 3)) t (i, tenant, n)
ORDER BY role, i;

SELECT is(pg_temp.rows(tenant, role, format(call, 'by ' || role)), expected,
	format('%s of %s: %s', role, tenant, call))
FROM (VALUES ('none'), ('cqrs_es_writer')) r (role),
	(VALUES (1, 'left', $$SELECT tenant_id, sequence FROM cqrs_es.read_stream('twin', %L)$$, '(left,1) (left,2) (left,3)'),
		(2, 'right', $$SELECT tenant_id, sequence FROM cqrs_es.read_stream('twin', %L)$$, '(right,1)'),
		(3, '', $$SELECT tenant_id, sequence FROM cqrs_es.read_stream('twin', %L)$$, NULL),
		(4, 'right', $$SELECT tenant_id, sequence FROM cqrs_es.read_stream('twin', %L, backward => true)$$, '(right,1)'),
		(5, 'left', $$SELECT cqrs_es.stream_version('twin', %L)$$, '(3)'),
		(6, 'right', $$SELECT cqrs_es.stream_version('twin', %L)$$, '(1)'),
		(7, '', $$SELECT cqrs_es.stream_version('twin', %L)$$, '(0)'),
		(8, 'left', $$SELECT cqrs_es.aggregate_state('twin', %L)->>'n'$$, '(3)'),
		(9, 'right', $$SELECT cqrs_es.aggregate_state('twin', %L)->>'of'$$, '(right)'),
		(10, '', $$SELECT cqrs_es.aggregate_state('twin', %L) IS NULL$$, '(t)'),
		(11, 'right', $$SELECT cqrs_es.aggregate_state('twin', %L, at_sequence => 2)->>'of'$$, '(right)'),
		(12, 'right', $$SELECT cqrs_es.aggregate_state('twin', %L, at_time => 'infinity')->>'of'$$, '(right)'),
		(13, 'right', $$SELECT version FROM cqrs_es.load_aggregate('twin', %L)$$, '(1)'),
		(14, 'left', $$SELECT sequence, state->>'of' FROM cqrs_es.replay('twin', %L, from_sequence => 3)$$, '(3,left)'),
		(15, 'right', $$SELECT sequence FROM cqrs_es.replay('twin', %L, from_sequence => 2)$$, NULL),
		(16, 'right', $$SELECT cqrs_es.take_snapshot('twin', %L)$$, '(1)'),
		(17, '', $$SELECT cqrs_es.take_snapshot('twin', %L)$$, '(0)')) c (i, tenant, call, expected)
ORDER BY role, i;

-- a retry is recognized in the own stream alone
SELECT is(pg_temp.rows('right', role, format($$SELECT version FROM cqrs_es.append_event('twin', %L, 'Was', '{"of": "right", "n": 1}',
		event_id => '00000000-0000-7000-8000-000000000001')$$, 'by ' || role)), '(1)', format('%s: the own event is recognized', role))
FROM (VALUES ('none'), ('cqrs_es_writer')) r (role) ORDER BY role;
SELECT is(pg_temp.error('right', role, format($$SELECT version FROM cqrs_es.append_event('twin', %L, 'Was', '{"of": "left", "n": 2}',
		0, event_id => '00000000-0000-7000-8000-000000000002')$$, 'by ' || role)),
	format('QE001; version conflict in stream "twin/by %s"; Expected that the stream does not exist (version 0), but it is at version 1.; '
		'Read the stream again, decide again, and append with the version you read.', role),
	format('%s: another tenant''s event is not, and the error speaks of the own stream', role))
FROM (VALUES ('none'), ('cqrs_es_writer')) r (role) ORDER BY role;

-- commands
SELECT is(pg_temp.rows(tenant, role, format($$SELECT version, state->>'of', state->>'go' FROM cqrs_es.execute_command('twin', %L, 'Go', '{"go": "%s"}',
		command_id => '00000000-0000-7000-8000-00000000000c')$$, 'by ' || role, tenant)), expected,
	format('%s of %s: a command with an id that the other tenant uses as well', role, tenant))
FROM (VALUES ('none'), ('cqrs_es_writer')) r (role),
	(VALUES (1, 'left', '(4,left,left)'), (2, 'right', '(2,right,right)'), (3, 'left', '(4,left,left)')) t (i, tenant, expected)
ORDER BY role, i;

-- snapshots and read models carry the tenant
SELECT results_eq($$SELECT tenant_id COLLATE "default", aggregate_id COLLATE "default", last_sequence, payload->>'of' FROM cqrs_es.snapshots
	WHERE aggregate_type = 'twin' ORDER BY 1, 2$$,
	$$VALUES ('left', 'by cqrs_es_writer', 4::bigint, 'left'), ('left', 'by none', 4, 'left'),
		('right', 'by cqrs_es_writer', 2, 'right'), ('right', 'by none', 2, 'right')$$, 'snapshots are of one tenant each');
SELECT results_eq($$SELECT tenant, aggregate_id, n FROM seen ORDER BY 1, 2$$,
	$$VALUES ('left', 'by cqrs_es_writer', 3::bigint), ('left', 'by none', 3), ('right', 'by cqrs_es_writer', 1), ('right', 'by none', 1)$$,
	'and so are rows of a read model that has the tenant in its key');
SET LOCAL cqrs_es.tenant_id = 'left';
SELECT is(cqrs_es.rebuild_projection('seen'), 8::bigint, 'a rebuild is for all tenants, whoever asks for it');
SET LOCAL cqrs_es.tenant_id = '';
SELECT results_eq($$SELECT tenant, aggregate_id, n FROM seen ORDER BY 1, 2$$,
	$$VALUES ('left', 'by cqrs_es_writer', 3::bigint), ('left', 'by none', 3), ('right', 'by cqrs_es_writer', 1), ('right', 'by none', 1)$$,
	'and brings back the same');

-- Plain SQL. (What read_all hands out takes committed events: test/t/006_tenants.pl.)

SELECT is(pg_temp.rows('right', 'none', $$SELECT DISTINCT tenant_id FROM cqrs_es.events WHERE aggregate_type = 'twin' ORDER BY 1$$),
	'(left) (right)', 'a superuser sees all tenants in the table');
SELECT is(pg_temp.rows(tenant, 'cqrs_es_writer', $$SELECT DISTINCT tenant_id FROM cqrs_es.events WHERE aggregate_type = 'twin' ORDER BY 1$$),
	expected, format('a writer of tenant "%s" sees its own', tenant))
FROM (VALUES ('left', '(left)'), ('right', '(right)'), ('', NULL)) t (tenant, expected) ORDER BY tenant;

CREATE FUNCTION pg_temp.leak(of text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$
BEGIN
	RAISE EXCEPTION 'seen: %', of USING ERRCODE = 'P0042';
END $$;
SELECT is(pg_temp.error('', 'cqrs_es_writer', $$SELECT FROM cqrs_es.events WHERE pg_temp.leak(tenant_id) AND aggregate_type = 'twin'$$),
	'no error', 'a condition with side effects does not get to see rows of others');
SELECT is(pg_temp.error('right', 'cqrs_es_writer', $$SELECT FROM cqrs_es.events WHERE pg_temp.leak(tenant_id) AND aggregate_type = 'twin'$$),
	'P0042; seen: right', 'but its own');

-- the policy can be an index condition
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
CREATE FUNCTION pg_temp.plan_of(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL ROLE cqrs_es_writer;
	RETURN QUERY EXECUTE 'EXPLAIN (COSTS OFF) ' || query;
	SET LOCAL ROLE none;
END $$;
SELECT results_eq($$SELECT pg_temp.plan_of('SELECT payload FROM cqrs_es.events WHERE aggregate_type = ''twin'' AND aggregate_id = ''a'' AND sequence > 1 ORDER BY sequence')$$,
	$$VALUES ('Index Scan using events_pkey on events'),
	('  Index Cond: ((aggregate_type = ''twin''::text) AND (aggregate_id = ''a''::text) AND (tenant_id = cqrs_es.current_tenant()) AND (sequence > 1))')$$,
	'the policy is one with the conditions on the key');
SET LOCAL enable_seqscan = on;
SET LOCAL enable_bitmapscan = on;

-- Rows of others cannot be written, and no error tells whether their streams exist.

SELECT is(pg_temp.error('right', 'cqrs_es_writer', format($$INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, sequence, event_type, payload)
		VALUES ('left', 'twin', '%s', %s, 'Was', '{}') %s$$, id, sequence, clause)),
	'42501; permission denied to insert events of another tenant; Leave tenant_id out; it is that of the session.',
	format('INSERT of %s at sequence %s %s', id, sequence, clause))
FROM (VALUES ('by none'), ('nothing')) i (id), (VALUES (1, 'NULL'), (2, '1'), (3, '4'), (4, '5'), (5, '900')) s (n, sequence),
	(VALUES (''), ('ON CONFLICT DO NOTHING')) c (clause)
ORDER BY id, n, clause;
SELECT is(pg_temp.error('right', 'cqrs_es_writer', $$INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, sequence, event_type, payload)
	VALUES ('right', 'twin', 'by none', 900, 'Was', '{}')$$),
	'QE003; sequence 900 would leave a hole in stream "twin/by none"; The stream is at version 2.; Insert sequence 3, or leave the sequence out.',
	'errors of its own stream tell about that');
SELECT is(pg_temp.error('right', 'cqrs_es_writer', $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload)
	VALUES ('twin', 'by none', 1, 'Was', '{}')$$), '23505; duplicate key value violates unique constraint "events_pkey"',
	'the server shows no key where there is row security');

-- Snapshots, should somebody have been granted them, as the statements of postgres-es need it.

GRANT SELECT, INSERT, UPDATE, DELETE ON cqrs_es.snapshots TO cqrs_es_writer;
SELECT is(pg_temp.rows('right', 'cqrs_es_writer', $$SELECT DISTINCT tenant_id FROM cqrs_es.snapshots WHERE aggregate_type = 'twin'$$), '(right)',
	'a writer sees its tenant''s snapshots');
SELECT is(pg_temp.error('right', 'cqrs_es_writer', format($$INSERT INTO cqrs_es.snapshots (tenant_id, aggregate_type, aggregate_id, last_sequence, current_snapshot, payload)
		VALUES ('left', 'twin', '%s', 4, 1, '{"of": "forged"}') %s$$, id, clause)),
	'42501; new row violates row-level security policy for table "snapshots"', format('and cannot write others'': %s %s', id, clause))
FROM (VALUES ('by none'), ('nothing')) i (id), (VALUES (''), ('ON CONFLICT DO NOTHING'),
	('ON CONFLICT (aggregate_type, aggregate_id, tenant_id, last_sequence) DO UPDATE SET payload = excluded.payload')) c (clause)
ORDER BY id, clause;
SELECT is(pg_temp.error('right', 'cqrs_es_writer', $$UPDATE cqrs_es.snapshots SET payload = '{"of": "forged"}' WHERE tenant_id = 'left'$$), 'no error', 'nor change them');
SELECT is(pg_temp.error('right', 'cqrs_es_writer', $$UPDATE cqrs_es.snapshots SET tenant_id = 'left', last_sequence = 77 WHERE aggregate_type = 'twin'$$),
	'42501; new row violates row-level security policy for table "snapshots"', 'nor give them its own');
SELECT is(pg_temp.error('right', 'cqrs_es_writer', $$DELETE FROM cqrs_es.snapshots WHERE tenant_id = 'left'$$), 'no error', 'nor remove them');
SELECT is(pg_temp.error('right', 'cqrs_es_writer', $$UPDATE cqrs_es.snapshots SET payload = '{"of": "changed"}' WHERE aggregate_type = 'twin'$$),
	'no error', 'whoever was granted it may change its own');
SELECT results_eq($$SELECT tenant_id COLLATE "default", last_sequence, payload->>'of' FROM cqrs_es.snapshots
	WHERE aggregate_type = 'twin' AND aggregate_id = 'by none' ORDER BY 1$$,
	$$VALUES ('left', 4::bigint, 'left'), ('right', 2, 'changed')$$, 'only that came of it');
SELECT is(pg_temp.rows('left', 'none', $$SELECT cqrs_es.aggregate_state('twin', 'by none')->>'of'$$), '(left)', 'the other tenant replays its own');

-- Row security of the user's own: functions obey, and use no snapshots.

SAVEPOINT policy;
CREATE POLICY secret ON cqrs_es.events AS RESTRICTIVE FOR SELECT USING (payload->>'n' IS DISTINCT FROM '3');
SELECT is(pg_temp.rows('left', 'cqrs_es_writer', $$SELECT sequence FROM cqrs_es.read_stream('twin', 'by none')$$), '(1) (2) (4)',
	'a policy beside ours: an ordinary role sees what both allow');
SELECT is(pg_temp.error('left', 'cqrs_es_writer', $$SELECT cqrs_es.aggregate_state('twin', 'by none')$$),
	'42501; row security of table "events" hides event 3 of stream "twin/by none"; A state is that of all events.', 'and does not get from a snapshot what it must not see');
SELECT is(pg_temp.rows('left', 'none', $$SELECT sequence FROM cqrs_es.read_stream('twin', 'by none')$$), '(1) (2) (3) (4)', 'a superuser sees all');
ROLLBACK TO policy;
CREATE POLICY no_bad ON cqrs_es.events AS RESTRICTIVE FOR INSERT WITH CHECK (event_type <> 'Bad');
SELECT is(pg_temp.error('left', 'cqrs_es_writer', format($$SELECT cqrs_es.append_events('twin', 'new', '%s')$$, events)), expected, format('a policy for INSERT: append of %s', events))
FROM (VALUES (1, '[{"type": "Bad", "payload": 1}]', '42501; new row violates row-level security policy "no_bad" for table "events"'),
	(2, '[{"type": "Good", "payload": 1}, {"type": "Bad", "payload": 2}]', '42501; new row violates row-level security policy "no_bad" for table "events"'),
	(3, '[{"type": "Good", "payload": 1}]', 'no error')) e (n, events, expected)
ORDER BY n;
ROLLBACK TO policy;
ALTER POLICY tenant_isolation ON cqrs_es.events USING (tenant_id = cqrs_es.current_tenant() AND sequence < 3);
SELECT is(pg_temp.rows('left', 'cqrs_es_writer', $$SELECT sequence FROM cqrs_es.read_stream('twin', 'by none')$$), '(1) (2)', 'our policy altered: USING');
ROLLBACK TO policy;
ALTER POLICY tenant_isolation ON cqrs_es.events USING (aggregate_type = cqrs_es.current_tenant());
SELECT is(pg_temp.rows('left', 'cqrs_es_writer', $$SELECT sequence FROM cqrs_es.read_stream('twin', 'by none')$$), NULL, 'another column');
ROLLBACK TO policy;
ALTER POLICY tenant_isolation ON cqrs_es.events USING (tenant_id = current_user);
SELECT is(pg_temp.rows('left', 'cqrs_es_writer', $$SELECT sequence FROM cqrs_es.read_stream('twin', 'by none')$$), NULL, 'another function');
ROLLBACK TO policy;
ALTER POLICY tenant_isolation ON cqrs_es.events WITH CHECK (event_type = 'Good');
SELECT is(pg_temp.error('left', 'cqrs_es_writer', $$SELECT cqrs_es.append_event('twin', 'new', 'Bad', '{}')$$),
	'42501; new row violates row-level security policy for table "events"', 'WITH CHECK');
ROLLBACK TO policy;
ALTER POLICY tenant_isolation ON cqrs_es.events TO pg_monitor;
SELECT is(pg_temp.rows('left', 'cqrs_es_writer', $$SELECT sequence FROM cqrs_es.read_stream('twin', 'by none')$$), NULL, 'TO others');
SELECT is(pg_temp.error('left', 'cqrs_es_writer', $$SELECT cqrs_es.append_event('twin', 'new', 'Good', '{}')$$),
	'42501; new row violates row-level security policy for table "events"', 'an append neither');
ROLLBACK TO policy;
DROP POLICY tenant_isolation ON cqrs_es.events;
SELECT is(pg_temp.rows('left', 'cqrs_es_writer', $$SELECT sequence FROM cqrs_es.read_stream('twin', 'by none')$$), NULL, 'dropped: nothing is allowed');
ROLLBACK TO policy;
ALTER TABLE cqrs_es.events DISABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.rows('right', 'cqrs_es_writer', $$SELECT DISTINCT tenant_id FROM cqrs_es.events WHERE aggregate_type = 'twin' ORDER BY 1$$), '(left) (right)',
	'without row security plain SQL shows all');
SELECT is(pg_temp.rows('right', 'cqrs_es_writer', $$SELECT DISTINCT tenant_id FROM cqrs_es.read_stream('twin', 'by none')$$), '(right)', 'functions do not');
SELECT is(pg_temp.error('right', 'cqrs_es_writer', $$INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, event_type, payload)
	VALUES ('left', 'twin', 'by none', 'Was', '{}')$$),
	'42501; permission denied to insert events of another tenant; Leave tenant_id out; it is that of the session.', 'and nobody writes for others');
ROLLBACK TO policy;
ALTER TABLE cqrs_es.events FORCE ROW LEVEL SECURITY;
SET LOCAL client_min_messages = error;
ALTER TABLE cqrs_es.snapshots FORCE ROW LEVEL SECURITY;
SET LOCAL client_min_messages = warning;
SELECT is(pg_temp.rows('left', 'cqrs_es_writer', $$SELECT version, state->>'of' FROM cqrs_es.load_aggregate('twin', 'by none')$$), '(4,left)', 'forced on the owner, all goes on');
ROLLBACK TO policy;

-- Who is above row security writes for any tenant, and what follows is that tenant's.

SELECT is(pg_temp.error('right', 'none', $$INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, event_type, payload)
	SELECT 'left', 'twin', 'import', 'Was', jsonb_build_object('n', n) FROM generate_series(1, 2) n$$), 'no error', 'a superuser imports');
SELECT results_eq($$SELECT tenant_id COLLATE "default", last_sequence FROM cqrs_es.snapshots WHERE aggregate_id = 'import'$$, $$VALUES ('left', 2::bigint)$$,
	'the snapshot is of the event''s tenant, not of the session''s');
SELECT results_eq($$SELECT tenant, n FROM seen WHERE aggregate_id = 'import'$$, $$VALUES ('left', 2::bigint)$$, 'and so is the read model');
ALTER ROLE cqrs_es_writer BYPASSRLS;
SELECT is(pg_temp.error('right', 'cqrs_es_writer', $$INSERT INTO cqrs_es.events (tenant_id, aggregate_type, aggregate_id, event_type, payload)
	VALUES ('left', 'twin', 'import', 'Was', '{}')$$), 'no error', 'a role with BYPASSRLS does, too');
SELECT finish();
ROLLBACK;
