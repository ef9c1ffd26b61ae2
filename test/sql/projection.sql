\i test/include/setup.sql
-- Read models kept current in the appending transaction.
BEGIN;
SELECT plan(66);
CREATE FUNCTION pg_temp.append(id text, event_type text, payload jsonb DEFAULT '{}', type text DEFAULT 'projection') RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.append_event(type, id, event_type, payload) $$;

-- a read model from start to finish

CREATE TABLE balances (id text PRIMARY KEY, balance numeric, version bigint, seen jsonb);
SELECT lives_ok($$SELECT cqrs_es.create_projection('balances', '{projection}', '{balances}')$$, 'create_projection');
SELECT results_eq($$SELECT name COLLATE "default", aggregate_types::text COLLATE "default", read_models::text, owner = current_user::regrole FROM cqrs_es.projections WHERE name = 'balances'$$,
	$$VALUES ('balances', '{projection}', '{balances}', true)$$, 'is in the registry');
SELECT lives_ok($$SELECT cqrs_es.define_handler('balances', 'opened', 'INSERT INTO balances (id, balance, version) VALUES (event.aggregate_id, 0, event.sequence)')$$, 'INSERT');
SELECT lives_ok($$SELECT cqrs_es.define_handler('balances', 'moved',
	'UPDATE balances SET balance = balance + (event.payload->>''amount'')::numeric, version = event.sequence WHERE id = event.aggregate_id')$$, 'UPDATE');
SELECT lives_ok($$SELECT cqrs_es.define_handler('balances', 'closed', 'DELETE FROM balances AS b WHERE b.id = event.aggregate_id;')$$, 'DELETE');
SELECT lives_ok($$SELECT cqrs_es.define_handler('balances', 'merged',
	'MERGE INTO balances USING (SELECT event.aggregate_id AS i) s ON id = i WHEN MATCHED THEN UPDATE SET seen = event.payload
	WHEN NOT MATCHED THEN INSERT (id, seen) VALUES (i, event.payload)')$$, 'MERGE');
SELECT lives_ok($$SELECT cqrs_es.define_handler('balances', 'upserted',
	'WITH old AS (DELETE FROM balances WHERE false RETURNING id) INSERT INTO balances (id, balance) SELECT event.aggregate_id, 1 WHERE NOT EXISTS (SELECT FROM old)
	ON CONFLICT (id) DO UPDATE SET balance = balances.balance + excluded.balance')$$, 'WITH and ON CONFLICT');
SELECT pg_temp.append('a', 'opened') IS NULL AS x \gset
SELECT pg_temp.append('a', 'moved', '{"amount": 12.5}') IS NULL AS x \gset
SELECT pg_temp.append('a', 'unknown') IS NULL AS x \gset
SELECT results_eq('SELECT id, balance, version FROM balances', $$VALUES ('a', 12.5, 2::bigint)$$, 'the read model is current in the appending transaction');
SELECT cqrs_es.append_events('projection', 'b', '[{"type": "opened", "payload": {}}, {"type": "moved", "payload": {"amount": 1}}, {"type": "moved", "payload": {"amount": 2}}]') IS NULL AS x \gset
SELECT cqrs_es.append_event_arrays('projection', 'b', '{moved,moved}', ARRAY['{"amount": 10}', '{"amount": 20}']::jsonb[]) IS NULL AS x \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('projection', 'b', 'moved', '{"amount": 100}'), ('projection', 'b', 'moved', '{"amount": 200}');
\copy cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) from stdin
projection	b	moved	{"amount": 1000}
projection	c	opened	{}
projection	b	moved	{"amount": 2000}
\.
SELECT results_eq('SELECT id, balance, version FROM balances ORDER BY id', $$VALUES ('a', 12.5, 2::bigint), ('b', 3333, 9), ('c', 0, 1)$$, 'on every way in');
SELECT pg_temp.append('a', 'merged', '{"x": 1}') IS NULL AS a, pg_temp.append('d', 'merged', '{"x": 2}') IS NULL AS b,
	pg_temp.append('a', 'upserted') IS NULL AS c, pg_temp.append('e', 'upserted') IS NULL AS d, pg_temp.append('b', 'closed') IS NULL AS e \gset
SELECT results_eq('SELECT id, balance, seen FROM balances ORDER BY id', $$VALUES ('a', 13.5, '{"x": 1}'::jsonb), ('c', 0, NULL), ('d', NULL, '{"x": 2}'), ('e', 1, NULL)$$,
	'with all statements');
SELECT pg_temp.append('x', 'opened', '{}', 'other type') IS NULL AS x \gset
SELECT is_empty($$SELECT id FROM balances WHERE id = 'x'$$, 'events of other aggregate types do not concern it');
SAVEPOINT s;
SELECT pg_temp.append('y', 'opened') IS NULL AS x \gset
ROLLBACK TO s;
SELECT is_empty($$SELECT id FROM balances WHERE id = 'y'$$, 'what is rolled back is rolled back here, too');
SELECT cqrs_es.append_event('projection', 'idem', 'opened', '{}', 0, event_id => '00000000-0000-7000-8000-000000000001') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.append_event('projection', 'idem', 'opened', '{}', 0, event_id => '00000000-0000-7000-8000-000000000001')$$,
	'a repeated append does not run the handler again');

-- all fields, and the event as a whole

CREATE TABLE whole (LIKE cqrs_es.event);
CREATE TABLE fields (LIKE cqrs_es.event);
CREATE FUNCTION describe(e cqrs_es.event) RETURNS text LANGUAGE sql AS $$SELECT format('%s/%s', e.event_type, e.sequence)$$;
CREATE TABLE described (description text, id text, whole cqrs_es.event, no_type text);
SELECT cqrs_es.create_projection('whole') IS NULL AS x \gset
SELECT lives_ok($$SELECT cqrs_es.define_handler('whole', 'fields', 'INSERT INTO fields VALUES (event.global_position, event.sequence, event.created_at, event.event_id,
	event.tenant_id, event.aggregate_type, event.aggregate_id, event.event_type, event.event_version, event.payload, event.metadata)')$$, 'every field');
SELECT lives_ok($$SELECT cqrs_es.define_handler('whole', 'whole', 'INSERT INTO whole SELECT (event).*')$$, '(event).*');
SELECT lives_ok($$SELECT cqrs_es.define_handler('whole', 'described', 'INSERT INTO described VALUES (describe(event), (event).aggregate_id, event, event.payload #>> ''{a,b}'')')$$,
	'the event as an argument');
SET LOCAL cqrs_es.tenant_id = 'tenant';
SELECT cqrs_es.append_event('projection', 'w', type, '{"a": {"b": "c"}}', metadata => '{"m": 1}', event_version => '7') IS NULL AS x FROM (VALUES ('fields')) t (type) \gset
SELECT cqrs_es.append_event('projection', 'w', 'whole', '{"a": {"b": "c"}}', metadata => '{"m": 1}', event_version => '7') IS NULL AS x \gset
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('projection', 'w', 'fields', '{}'), ('projection', 'w', 'whole', '{}'), ('projection', 'w', 'described', '{"a": {"b": "c"}}');
SELECT set_eq('SELECT * FROM fields', $$SELECT * FROM cqrs_es.read_stream('projection', 'w') WHERE event_type = 'fields'$$, 'each field is that of the event');
SELECT set_eq('SELECT * FROM whole', $$SELECT * FROM cqrs_es.read_stream('projection', 'w') WHERE event_type = 'whole'$$, 'the whole is the event');
SELECT set_eq('SELECT * FROM described', $$SELECT 'described/5', 'w' AS id, e, 'c' AS c FROM cqrs_es.read_stream('projection', 'w', 5) e$$, 'a function gets it');
RESET cqrs_es.tenant_id;

-- several projections, in the order of their names

CREATE TABLE order_of (n serial, projection text, seen bigint);
SELECT cqrs_es.create_projection(p, types) IS NULL AS x FROM (VALUES (1, 'z', NULL), (2, 'B', NULL), (3, 'a', '{projection}'::text[]), (4, 'never', '{other,third}')) t (n, p, types) ORDER BY n
\g /dev/null
SELECT cqrs_es.define_handler(p, 'ordered', format('INSERT INTO order_of (projection, seen) SELECT %L, count(*) FROM order_of', p)) FROM unnest('{z,never,B,a}'::text[]) p
\g /dev/null
SELECT cqrs_es.append_events('projection', 'o', '[{"type": "ordered", "payload": 1}, {"type": "ordered", "payload": 2}]') IS NULL AS x \gset
SELECT is(string_agg(projection, ' ' ORDER BY n), 'B a z B a z', 'projections run in the order of their names, event by event') FROM order_of;
SELECT is(string_agg(seen::text, ' ' ORDER BY n), '0 1 2 3 4 5', 'each sees what the one before did') FROM order_of;
DELETE FROM order_of;
SELECT pg_temp.append('o', 'ordered', '{}', 'third') IS NULL AS x \gset
SELECT is(string_agg(projection, ' ' ORDER BY n), 'B never z', 'each for its aggregate types') FROM order_of;

-- changes between appends, in one transaction

SELECT pg_temp.append('ddl', 'opened') IS NULL AS x \gset
ALTER TABLE balances ADD COLUMN note text DEFAULT 'new', ALTER COLUMN version TYPE integer;
SELECT pg_temp.append('ddl', 'moved', '{"amount": 1}') IS NULL AS x \gset
SELECT results_eq($$SELECT balance, version, note FROM balances WHERE id = 'ddl'$$, $$VALUES (1.0, 2, 'new')$$, 'the table is altered');
ALTER EVENT TRIGGER cqrs_es_protect_declared DISABLE;
DROP TABLE balances;
ALTER EVENT TRIGGER cqrs_es_protect_declared ENABLE;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('ddl', 'moved', '{"amount": 1}')$$))[1:3],
	ARRAY['QE201', 'projection "balances" failed on event 3 (moved) of stream "projection/ddl"', 'relation "balances" does not exist (SQLSTATE 42P01)'], 'it is dropped');
CREATE TABLE balances (version bigint, balance numeric, id text PRIMARY KEY);
INSERT INTO balances VALUES (2, 1, 'ddl');
SELECT pg_temp.append('ddl', 'moved', '{"amount": 1}') IS NULL AS x \gset
SELECT results_eq($$SELECT balance, version FROM balances WHERE id = 'ddl'$$, $$VALUES (2.0, 3::bigint)$$, 'and made anew');
SELECT cqrs_es.define_handler('balances', 'moved', 'UPDATE balances SET balance = -1 WHERE id = event.aggregate_id') IS NULL AS x \gset
SELECT pg_temp.append('ddl', 'moved', '{"amount": 1}') IS NULL AS x \gset
SELECT results_eq($$SELECT balance FROM balances WHERE id = 'ddl'$$, $$VALUES (-1.0)$$, 'a handler is defined anew');
SAVEPOINT s;
SELECT cqrs_es.define_handler('balances', 'moved', 'UPDATE balances SET balance = -2 WHERE id = event.aggregate_id') IS NULL AS x \gset
SELECT cqrs_es.define_handler('balances', 'added', 'UPDATE balances SET balance = -3 WHERE id = event.aggregate_id') IS NULL AS x \gset
SELECT pg_temp.append('ddl', 'moved') IS NULL AS x, pg_temp.append('ddl', 'added') IS NULL AS y \gset
SELECT results_eq($$SELECT balance FROM balances WHERE id = 'ddl'$$, $$VALUES (-3.0)$$, 'definitions');
ROLLBACK TO s;
SELECT pg_temp.append('ddl', 'added') IS NULL AS x \gset
UPDATE balances SET balance = 0;
SELECT pg_temp.append('ddl', 'moved') IS NULL AS x \gset
SELECT results_eq($$SELECT balance FROM balances WHERE id = 'ddl'$$, $$VALUES (-1.0)$$, 'that are rolled back are forgotten');
SAVEPOINT s;
SELECT lives_ok($$SELECT cqrs_es.drop_projection('balances')$$, 'a projection is dropped');
UPDATE balances SET balance = 0;
SELECT pg_temp.append('ddl', 'moved') IS NULL AS x \gset
SELECT results_eq($$SELECT balance FROM balances WHERE id = 'ddl'$$, $$VALUES (0.0)$$, 'and does nothing any more; the read model stays');
SELECT is_empty($$SELECT event_type FROM cqrs_es.handlers WHERE projection = 'balances'$$, 'its handlers are gone');
SELECT throws_ok($$SELECT cqrs_es.define_handler('balances', 'moved', 'DELETE FROM balances')$$, '42704', NULL, 'it gets no new ones');
ROLLBACK TO s;
SELECT pg_temp.append('ddl', 'moved') IS NULL AS x \gset
SELECT results_eq($$SELECT balance FROM balances WHERE id = 'ddl'$$, $$VALUES (-1.0)$$, 'until that is rolled back');

-- failing handlers

SELECT cqrs_es.create_projection('failing', '{failing}') IS NULL AS x \gset
CREATE FUNCTION raise_state(state text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'failed with %', state USING ERRCODE = state, DETAIL = 'Its detail.', HINT = 'Its hint.'; END $$;
CREATE TABLE never (id text PRIMARY KEY, n integer CHECK (n > 0));
SELECT cqrs_es.define_handler('failing', 'raise', 'INSERT INTO never VALUES (raise_state(event.payload->>''state''))') IS NULL AS x \gset
SELECT cqrs_es.define_handler('failing', 'duplicate', 'INSERT INTO never VALUES (''x'')') IS NULL AS x \gset
SELECT cqrs_es.define_handler('failing', 'check', 'INSERT INTO never VALUES (event.aggregate_id, (event.payload->>''n'')::int)') IS NULL AS x \gset
INSERT INTO never VALUES ('x', 1);
SELECT is(pg_temp.error_of($$SELECT cqrs_es.append_event('failing', 'f', 'duplicate', '{}')$$, '{state,message,detail,where}'), ARRAY['QE201',
	'projection "failing" failed on event 1 (duplicate) of stream "failing/f"',
	E'duplicate key value violates unique constraint "never_pkey" (SQLSTATE 23505)\nKey (id)=(x) already exists.',
	'projection "failing" handling event 1 of stream "failing/f"'], 'a failing handler fails the append, and says what failed');
SELECT is(cqrs_es.stream_version('failing', 'f'), 0::bigint, 'the event is not there');
SELECT is((pg_temp.error_of(format($$SELECT cqrs_es.append_event('failing', 'f', 'raise', '{"state": "%s"}')$$, original)))[1], raised,
	format('%s becomes %s', original, raised))
FROM (VALUES (1, 'P0001', 'QE201'), (2, '23505', 'QE201'), (3, '22012', 'QE201'), (4, '42501', 'QE201'), (5, 'QE001', 'QE001'),
	(6, '40001', '40001'), (7, '40P01', '40P01'), (8, '53200', '53200'), (9, '57014', '57014') , (10, '58030', '58030'), (11, 'XX001', 'XX001')) t (n, original, raised)
WHERE original <> '57014' ORDER BY n;
SELECT is((pg_temp.error_of($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('failing', 'f', 'check', '{"n": 1}'), ('failing', 'g', 'check', '{"n": 0}')$$))[1:2],
	ARRAY['QE201', 'projection "failing" failed on event 1 (check) of stream "failing/g"'], 'a plain INSERT fails with it, too');
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_events('failing', 'f', '[{"type": "check", "payload": {"n": 1}}, {"type": "check", "payload": {"n": 2}}]')$$))[1:2],
	ARRAY['QE201', 'projection "failing" failed on event 2 (check) of stream "failing/f"'], 'or a batch, on its second event');
SELECT is_empty($$SELECT id FROM never WHERE id <> 'x'$$, 'and nothing is left of it');
SELECT lives_ok($$SELECT cqrs_es.append_event('failing', 'f', 'check', '{"n": 1}')$$, 'after failures the handler works');

-- handlers that append

CREATE FUNCTION react(e cqrs_es.event) RETURNS bigint LANGUAGE sql AS $$
	SELECT version FROM cqrs_es.append_event('reaction', e.aggregate_id, 'reacted', jsonb_build_object('to', e.sequence)) $$;
CREATE TABLE reactions (version bigint);
SELECT cqrs_es.create_projection('reaction') IS NULL AS x \gset
SELECT cqrs_es.define_handler('reaction', 'react', 'INSERT INTO reactions VALUES (react(event))') IS NULL AS x \gset
SELECT cqrs_es.append_events('projection', 'r', '[{"type": "react", "payload": 1}, {"type": "react", "payload": 2}]') IS NULL AS x \gset
SELECT results_eq($$SELECT sequence, payload FROM cqrs_es.read_stream('reaction', 'r')$$, $$VALUES (1::bigint, '{"to": 1}'::jsonb), (2, '{"to": 2}')$$, 'a handler may append');
SELECT cqrs_es.define_handler('reaction', 'reacted', 'INSERT INTO reactions VALUES (react(event))') IS NULL AS x \gset
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('r', 'react')$$))[1:3], ARRAY['QE202', 'handlers that append events go deeper than 16',
	'They feed each other: reaction (reacted) -> reaction (reacted).'], 'one that feeds itself is stopped');
CREATE FUNCTION redefine(e cqrs_es.event) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.define_handler('reaction', 'suicidal', 'INSERT INTO reactions VALUES (-2)');
	PERFORM cqrs_es.append_event('projection', 'nested', 'suicidal', '{}');
	RETURN -1;
END $$;
SELECT cqrs_es.define_handler('reaction', 'suicidal', 'INSERT INTO reactions SELECT redefine(event) FROM generate_series(1, 2)') IS NULL AS x \gset
DELETE FROM reactions;
SELECT pg_temp.append('r', 'suicidal') IS NULL AS x, pg_temp.append('r', 'suicidal') IS NULL AS y \gset
SELECT results_eq('SELECT version FROM reactions ORDER BY version', 'VALUES (-2::bigint), (-2), (-2), (-1), (-1)', 'a handler may replace itself while it runs');

-- rights and search_path of who defined it

CREATE ROLE cqrs_es_modeller;
CREATE ROLE cqrs_es_appender;
CREATE SCHEMA model AUTHORIZATION cqrs_es_modeller;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_modeller, cqrs_es_appender;
GRANT INSERT, SELECT ON cqrs_es.events TO cqrs_es_appender;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.drop_projection TO cqrs_es_modeller;
GRANT INSERT ON never TO cqrs_es_modeller;
SET LOCAL search_path = model, public;
SELECT pg_temp.as_role('cqrs_es_modeller', $$
	CREATE TABLE private (id text, who text, path text);
	SELECT cqrs_es.create_projection('private', '{private}');
	SELECT cqrs_es.define_handler('private', 'e', 'INSERT INTO private VALUES (event.aggregate_id, current_user, current_setting(''search_path''))');
	SELECT cqrs_es.define_handler('private', 'temp', 'INSERT INTO public.never VALUES (event.aggregate_id)')$$) IS NULL AS x \gset
RESET search_path;
REVOKE INSERT ON never FROM cqrs_es_modeller;
SELECT lives_ok($$SELECT pg_temp.as_role('cqrs_es_appender', $q$SELECT cqrs_es.append_event('private', 'a', 'e', '{}')$q$)$$, 'someone without rights on the read model appends');
SELECT lives_ok($$SELECT pg_temp.as_role('cqrs_es_appender', $q$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('private', 'b', 'e', '{}')$q$)$$, 'or inserts');
SELECT results_eq('SELECT * FROM model.private ORDER BY id', $$VALUES ('a', 'cqrs_es_modeller', 'model, public, pg_temp'), ('b', 'cqrs_es_modeller', 'model, public, pg_temp')$$,
	'handlers run with the rights and the search_path of who defined them');
SELECT throws_ok($$SELECT pg_temp.as_role('cqrs_es_appender', 'SELECT * FROM model.private')$$, '42501', NULL, 'the appender cannot read it');
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_event('private', 'a', 'temp', '{}')$$))[1:3],
	ARRAY['QE201', 'projection "private" failed on event 2 (temp) of stream "private/a"', 'permission denied for table never (SQLSTATE 42501)'],
	'a handler cannot do more than its definer, even when a superuser appends');
SELECT is(current_setting('search_path') || current_user, (SELECT reset_val FROM pg_settings WHERE name = 'search_path') || session_user, 'role and search_path are back after that');
CREATE TEMP TABLE private (id text, who text, path text);
CREATE TEMP TABLE never (id text);
CREATE TEMP TABLE balances (version bigint, balance numeric, id text);
SELECT pg_temp.append('c', 'e', '{}', 'private') IS NULL AS x, cqrs_es.append_event('failing', 't', 'check', '{"n": 1}') IS NULL AS y, pg_temp.append('t', 'opened') IS NULL AS z \gset
SELECT is((SELECT count(*) FROM private) + (SELECT count(*) FROM pg_temp.never) + (SELECT count(*) FROM pg_temp.balances), 0::bigint, 'temporary tables of who appends do not stand in front');
SELECT is((SELECT count(*) FROM model.private) + (SELECT count(*) FROM public.never) + (SELECT count(*) FROM public.balances WHERE id = 't'), 7::bigint, 'of the read models');
DROP TABLE pg_temp.private, pg_temp.never, pg_temp.balances;

SELECT throws_ok(format('SELECT pg_temp.as_role(%L, %L)', 'cqrs_es_modeller', call), '42501', NULL, '42501 for one who is not the owner: ' || call)
FROM (VALUES (1, $$SELECT cqrs_es.define_handler('balances', 'moved', 'DELETE FROM model.private')$$), (2, $$SELECT cqrs_es.drop_projection('balances')$$)) t (n, call) ORDER BY n;
SELECT throws_ok(format('SELECT pg_temp.as_role(%L, %L)', 'cqrs_es_appender', $$SELECT cqrs_es.define_handler('private', 'e', 'DELETE FROM never')$$), '42501', NULL,
	'42501 for one without EXECUTE');
SELECT lives_ok($$SELECT pg_temp.as_role('cqrs_es_modeller', 'SELECT cqrs_es.drop_projection(''private'')')$$, 'the owner may drop its own');

-- a definer who is dropped

CREATE ROLE cqrs_es_leaver;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_leaver;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler TO cqrs_es_leaver;
CREATE TABLE last_words (id text);
GRANT ALL ON last_words TO cqrs_es_leaver;
SELECT pg_temp.as_role('cqrs_es_leaver', $$
	SELECT cqrs_es.create_projection('leaver', '{leaver}');
	SELECT cqrs_es.define_handler('leaver', 'e', 'INSERT INTO last_words VALUES (event.aggregate_id)')$$) IS NULL AS x \gset
DROP OWNED BY cqrs_es_leaver;
DROP ROLE cqrs_es_leaver;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_event('leaver', 'a', 'e', '{}')$$))[1], 'QE201', 'a handler of a role that is gone has no rights');
SELECT lives_ok($$SELECT cqrs_es.drop_projection('leaver')$$, 'and can be dropped');
SELECT finish();
ROLLBACK;
