\i test/include/setup.sql
-- The table of the log: append-only for everyone, and free to be altered by its owner.
BEGIN;
SELECT plan(82);
-- before its row of the catalog is changed: a vacuum that has the table waits for whoever has changed that
LOCK TABLE cqrs_es.events;
SELECT cqrs_es.append_event('events', 'a', 'e', '{"n": 1}') IS NULL AS x \gset

-- append-only

CREATE ROLE cqrs_es_editor;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_editor;
GRANT ALL ON cqrs_es.events TO cqrs_es_editor;
SELECT throws_ok(format('SELECT pg_temp.as_role(%L, %L)', role, change), 'QE004', NULL,
	format('QE004 for %s: %s', CASE role WHEN 'none' THEN 'the owner' ELSE role END, change))
FROM (VALUES (1, $$UPDATE cqrs_es.events SET payload = '{}' WHERE aggregate_type = 'events'$$),
	(2, $$UPDATE cqrs_es.events SET payload = '{}' WHERE false$$),
	(3, $$DELETE FROM cqrs_es.events WHERE aggregate_type = 'events'$$),
	(4, $$DELETE FROM cqrs_es.events WHERE false$$),
	(5, $$TRUNCATE cqrs_es.events$$),
	(6, $$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (1, 'events', 'a', 'e', '{}') ON CONFLICT (aggregate_type, aggregate_id, tenant_id, sequence) DO UPDATE SET payload = '{}'$$),
	(7, $$MERGE INTO cqrs_es.events USING (VALUES (1)) v (x) ON aggregate_type = 'events' WHEN MATCHED THEN DELETE$$)) c (n, change),
	(VALUES ('none'), ('cqrs_es_editor')) r (role)
ORDER BY role DESC, n;
SELECT throws_ok($$DROP TABLE cqrs_es.events$$, '2BP01', NULL, 'the table goes only with the extension');
SELECT results_eq($$SELECT sequence, payload FROM cqrs_es.read_stream('events', 'a')$$, $$VALUES (1::bigint, '{"n": 1}'::jsonb)$$,
	'the event is as it was');

-- columns of the owner's own

CREATE FUNCTION pg_temp.append_three_ways(id text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE version bigint := cqrs_es.stream_version('events', id);
BEGIN
	PERFORM cqrs_es.append_event('events', id, 'e', '{"n": 1}', version);
	PERFORM cqrs_es.append_events('events', id, '[{"type": "e", "payload": {"n": 2}}, {"type": "e", "payload": {"n": 3}}]', version + 1);
	INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('events', id, 'e', '{"n": 4}');
	RETURN (SELECT string_agg(format('%s:%s', sequence, payload ->> 'n'), ' ' ORDER BY sequence)
		FROM cqrs_es.read_stream('events', id, version + 1));
END $$;

ALTER TABLE cqrs_es.events ADD COLUMN note text;
SELECT is(pg_temp.append_three_ways('note'), '1:1 2:2 3:3 4:4', 'a column without default');
SELECT is(count(*), 4::bigint, 'is null') FROM cqrs_es.events WHERE aggregate_id = 'note' AND note IS NULL;
ALTER TABLE cqrs_es.events ADD COLUMN weekday integer DEFAULT 7 NOT NULL, ADD COLUMN moment timestamptz DEFAULT clock_timestamp();
SELECT is(pg_temp.append_three_ways('default'), '1:1 2:2 3:3 4:4', 'columns with default');
SELECT is(count(*), 4::bigint, 'are filled in') FROM cqrs_es.events
WHERE aggregate_id = 'default' AND weekday = 7 AND moment IS NOT NULL;
ALTER TABLE cqrs_es.events ADD COLUMN kind text GENERATED ALWAYS AS (aggregate_type || '.' || event_type) STORED;
SELECT is(pg_temp.append_three_ways('generated'), '1:1 2:2 3:3 4:4', 'a generated column');
SELECT is(count(*), 4::bigint, 'is computed') FROM cqrs_es.events WHERE aggregate_id = 'generated' AND kind = 'events.e';
ALTER TABLE cqrs_es.events DROP COLUMN note, DROP COLUMN weekday, DROP COLUMN moment, DROP COLUMN kind;
SELECT is(pg_temp.append_three_ways('dropped'), '1:1 2:2 3:3 4:4', 'after all have been dropped again');
SELECT results_eq($$SELECT sequence, payload FROM cqrs_es.read_stream('events', 'a')$$, $$VALUES (1::bigint, '{"n": 1}'::jsonb)$$,
	'the event from before reads as ever');
SAVEPOINT not_null;
ALTER TABLE cqrs_es.events ADD COLUMN needed text;
ALTER TABLE cqrs_es.events ADD CONSTRAINT needed CHECK (needed IS NOT NULL) NOT VALID;
SELECT throws_ok($$SELECT pg_temp.append_three_ways('needed')$$, '23514', NULL, 'a needed column that nobody fills in is an error');
ROLLBACK TO not_null;
SAVEPOINT domain;
CREATE DOMAIN colour AS text DEFAULT 'blue';
ALTER TABLE cqrs_es.events ADD COLUMN colour colour;
SELECT is(pg_temp.append_three_ways('domain'), '1:1 2:2 3:3 4:4', 'a column whose type has a default');
-- the default of a domain, too
SELECT is(count(*), 4::bigint, 'gets that') FROM cqrs_es.events WHERE aggregate_id = 'domain' AND colour = 'blue';
ROLLBACK TO domain;
SAVEPOINT renamed;
ALTER TABLE cqrs_es.events RENAME COLUMN payload TO body;
SELECT throws_ok($$SELECT cqrs_es.append_event('events', 'a', 'e', '{}')$$, '42703', NULL, 'one of our columns must not be renamed');
ROLLBACK TO renamed;

-- keys of the owner's own

SAVEPOINT keys;
-- upper and lower case do not stand apart in every collation
SELECT coalesce((SELECT quote_ident(collname) FROM pg_collation WHERE collname = 'en-x-icu'), '"C"') AS collation \gset
ALTER TABLE cqrs_es.events ALTER aggregate_id TYPE text COLLATE :collation;
SELECT is(pg_temp.append_three_ways(id), '1:1 2:2 3:3 4:4', format('in another collation: %s', id)) FROM unnest('{b,C,c,B}'::text[]) id;
ROLLBACK TO keys;
ALTER TABLE cqrs_es.events DROP CONSTRAINT events_pkey, ADD PRIMARY KEY (aggregate_type, aggregate_id, sequence, tenant_id);
SELECT throws_ok($$SELECT cqrs_es.append_event('events', 'a', 'e', '{}')$$, '55000', 'events cannot be written to table "events"',
	'a primary key in another order does not do');
SELECT is(count(*), 1::bigint, 'but streams are read') FROM cqrs_es.read_stream('events', 'a');
ROLLBACK TO keys;

-- constraints

SAVEPOINT constraints;
ALTER TABLE cqrs_es.events ADD CONSTRAINT small CHECK (payload -> 'n' IS NULL OR (payload -> 'n')::int < 3) NOT VALID;
SELECT throws_ok(call, '23514', NULL, 'a CHECK constraint: ' || left(call, 40)) FROM (VALUES
	(1, $$SELECT cqrs_es.append_event('events', 'check', 'e', '{"n": 3}')$$),
	(2, $$SELECT cqrs_es.append_events('events', 'check', '[{"type": "e", "payload": {"n": 1}}, {"type": "e", "payload": {"n": 3}}]')$$),
	(3, $$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('events', 'check', 'e', '{"n": 3}')$$)) c (n, call)
ORDER BY n;
SELECT is((cqrs_es.append_events('events', 'check', '[{"type": "e", "payload": {"n": 1}}, {"type": "e", "payload": {"n": 2}}]')).version, 2::bigint,
	'what it allows goes in');
ROLLBACK TO constraints;

CREATE FUNCTION pg_temp.unique_each_way(what text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE call text;
BEGIN
	PERFORM cqrs_es.append_event('events', 'unique', 'e', '{"email": "ada@"}');
	FOREACH call IN ARRAY ARRAY[
		$c$SELECT cqrs_es.append_event('events', 'unique', 'e', '{"email": "ada@"}')$c$,
		$c$SELECT cqrs_es.append_event('events', 'unique 2', 'e', '{"email": "ada@"}', 0)$c$,
		$c$SELECT cqrs_es.append_events('events', 'unique', '[{"type": "e", "payload": {"email": "bob@"}}, {"type": "e", "payload": {"email": "ada@"}}]')$c$,
		$c$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('events', 'unique', 'e', '{"email": "ada@"}')$c$]
	LOOP
		RETURN NEXT throws_ok(call, CASE WHEN what LIKE '%excl%' THEN '23P01' ELSE '23505' END, NULL, what || ': ' || call);
	END LOOP;
	RETURN NEXT is((cqrs_es.append_event('events', 'unique', 'e', '{"email": "eve@"}')).version, 2::bigint, what || ': another value goes in');
END $$;
SAVEPOINT constraints;
CREATE UNIQUE INDEX emails ON cqrs_es.events ((payload ->> 'email')) WHERE payload ? 'email';
SELECT * FROM pg_temp.unique_each_way('a unique index of the owner''s');
ROLLBACK TO constraints;
ALTER TABLE cqrs_es.events ADD CONSTRAINT emails EXCLUDE ((payload ->> 'email') WITH =);
SELECT * FROM pg_temp.unique_each_way('an exclusion constraint');
ROLLBACK TO constraints;
ALTER TABLE cqrs_es.events ADD CONSTRAINT ids UNIQUE (event_id) DEFERRABLE INITIALLY DEFERRED;
SELECT cqrs_es.append_event('events', 'deferred', 'e', '{}', event_id => '00000000-0000-7000-8000-000000000001') IS NULL AS x \gset
SELECT cqrs_es.append_event('events', 'deferred 2', 'e', '{}', event_id => '00000000-0000-7000-8000-000000000001') IS NULL AS x \gset
SELECT throws_ok('SET CONSTRAINTS ALL IMMEDIATE', '23505', NULL, 'a deferred constraint is looked at in the end');
ROLLBACK TO constraints;
CREATE TABLE types (type text PRIMARY KEY);
INSERT INTO types VALUES ('known');
ALTER TABLE cqrs_es.events ADD CONSTRAINT known FOREIGN KEY (event_type) REFERENCES types NOT VALID;
SELECT is((cqrs_es.append_event('events', 'fk', 'known', '{}')).version, 1::bigint, 'a foreign key');
SELECT throws_ok($$SELECT cqrs_es.append_event('events', 'fk', 'unknown', '{}')$$, '23503', NULL, 'is held');
ROLLBACK TO constraints;

-- triggers of the owner's own

CREATE TABLE heard (n serial, what text);
CREATE FUNCTION heard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO heard (what) VALUES (format('%s %s %s', TG_WHEN, TG_LEVEL, CASE TG_LEVEL WHEN 'ROW' THEN coalesce(NEW.sequence::text, '') || ':' || (NEW.payload ->> 'n') END));
	RETURN NEW;
END $$;
SAVEPOINT triggers;
CREATE TRIGGER heard AFTER INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION heard();
SELECT is(pg_temp.append_three_ways('after row'), '1:1 2:2 3:3 4:4', 'an AFTER ROW trigger');
SELECT results_eq('SELECT what FROM heard ORDER BY n',
	$$VALUES ('AFTER ROW 1:1'), ('AFTER ROW 2:2'), ('AFTER ROW 3:3'), ('AFTER ROW 4:4')$$, 'hears of each event');
ALTER TABLE cqrs_es.events DISABLE TRIGGER heard;
DELETE FROM heard;
SELECT is(pg_temp.append_three_ways('after row'), '5:1 6:2 7:3 8:4', 'while it is disabled');
SELECT is_empty('SELECT what FROM heard', 'it hears nothing');
ROLLBACK TO triggers;
CREATE TRIGGER aaa BEFORE INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION heard();
CREATE TRIGGER zzz BEFORE INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION heard();
SELECT is(pg_temp.append_three_ways('before row'), '1:1 2:2 3:3 4:4', 'BEFORE ROW triggers that change nothing');
SELECT results_eq($$SELECT what FROM heard ORDER BY n$$,
	$$VALUES ('BEFORE ROW 1:1'), ('BEFORE ROW 1:1'), ('BEFORE ROW 2:2'), ('BEFORE ROW 2:2'),
	('BEFORE ROW 3:3'), ('BEFORE ROW 3:3'), ('BEFORE ROW :4'), ('BEFORE ROW 4:4')$$,
	'hear of each event, before and after its sequence is settled');
ROLLBACK TO triggers;
CREATE TRIGGER heard AFTER INSERT ON cqrs_es.events FOR EACH STATEMENT EXECUTE FUNCTION heard();
SELECT is(pg_temp.append_three_ways('statement'), '1:1 2:2 3:3 4:4', 'a statement trigger');
SELECT cmp_ok(count(*), '>=', 3::bigint, 'hears of every append') FROM heard;
ROLLBACK TO triggers;

CREATE FUNCTION enrich() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.metadata := NEW.metadata || '{"enriched": true}'; RETURN NEW; END $$;
CREATE TRIGGER enrich BEFORE INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION enrich();
SELECT is(pg_temp.append_three_ways('enriched'), '1:1 2:2 3:3 4:4', 'a BEFORE ROW trigger that changes the row');
SELECT is(count(*), 4::bigint, 'has its way') FROM cqrs_es.read_stream('events', 'enriched') WHERE metadata = '{"enriched": true}';
ROLLBACK TO triggers;

CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.sequence > 10 THEN RAISE EXCEPTION 'endless'; END IF;
	RETURN CASE WHEN NEW.payload = '"bad"' THEN NULL ELSE NEW END;
END $$;
CREATE TRIGGER swallow BEFORE INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION swallow();
SELECT throws_ok($$SELECT cqrs_es.append_event('events', 'swallowed', 'e', '"bad"')$$, '09000',
	'the event for stream "events/swallowed" was not inserted', 'a BEFORE ROW trigger that swallows the event');
SELECT throws_ok($$SELECT cqrs_es.append_events('events', 'swallowed', '[{"type": "e", "payload": "bad"}, {"type": "e", "payload": "good"}]', 0)$$, '09000',
	'the event for stream "events/swallowed" was not inserted', 'the first of a batch');
-- not an endless loop, nor half a batch
SELECT throws_ok($$SELECT cqrs_es.append_events('events', 'swallowed', '[{"type": "e", "payload": "good"}, {"type": "e", "payload": "bad"}]')$$, '09000',
	'the event for stream "events/swallowed" was not inserted', 'the last of a batch');
SELECT throws_ok($$SELECT cqrs_es.append_events('events', 'swallowed', '[{"type": "e", "payload": "good"}, {"type": "e", "payload": "bad"}]', 0)$$, '09000',
	'the event for stream "events/swallowed" was not inserted', 'the last of a batch with an expected version');
SELECT is(cqrs_es.stream_version('events', 'swallowed'), 0::bigint, 'nothing is left of it');
SELECT lives_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('events', 'swallowed', 'e', '"bad"')$$,
	'a plain INSERT is swallowed as in any table');
SELECT is(cqrs_es.stream_version('events', 'swallowed'), 0::bigint, 'and leaves nothing');
ROLLBACK TO triggers;

-- An event that a trigger appends while another is on its way.
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.aggregate_type <> 'audit' THEN PERFORM cqrs_es.append_event('audit', NEW.aggregate_id, 'e', '{}'); END IF;
	RETURN NEW;
END $$;
SAVEPOINT audit;
CREATE TRIGGER zzz AFTER INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION audit();
SELECT is(pg_temp.append_three_ways('audited'), '1:1 2:2 3:3 4:4', 'an AFTER ROW trigger that appends to another stream');
SELECT is(cqrs_es.stream_version('audit', 'audited'), 4::bigint, 'does so for each event');
ROLLBACK TO audit;
-- the outer row's position is then not the last one drawn
CREATE TRIGGER aaa BEFORE INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION audit();
SELECT is((cqrs_es.append_event('events', 'audited', 'e', '{"n": 1}')).version, 1::bigint, 'a BEFORE ROW trigger that appends to another stream');
SELECT lives_ok($$INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('events', 'audited', 'e', '{"n": 2}')$$,
	'also before a plain INSERT');
SELECT throws_ok($$INSERT INTO cqrs_es.events (sequence, aggregate_type, aggregate_id, event_type, payload) VALUES (99, 'events', 'audited', 'e', '{"n": 2}')$$,
	'QE003', NULL, 'which is checked as ever');
ROLLBACK TO triggers;

-- session_replication_role: a replica decides itself about read models

SELECT cqrs_es.create_aggregate('events', snapshot_every => 1) IS NULL AS x \gset
SET LOCAL session_replication_role = replica;
SELECT is((cqrs_es.append_event('events', 'replica', 'e', '{"n": 1}', 0)).version, 1::bigint, 'as a replica append_event works');
SELECT lives_ok($$INSERT INTO cqrs_es.events (sequence, created_at, aggregate_type, aggregate_id, event_type, payload) VALUES (2, now(), 'events', 'replica', 'e', '{"n": 2}')$$,
	'and INSERT');
SET LOCAL session_replication_role = origin;
SELECT is_empty($$SELECT last_sequence FROM cqrs_es.snapshots WHERE aggregate_type = 'events'$$, 'but no trigger fires');
SELECT is((cqrs_es.append_event('events', 'replica', 'e', '{"n": 3}', 2)).version, 3::bigint, 'as origin again');
SELECT results_eq($$SELECT last_sequence, payload FROM cqrs_es.snapshots WHERE aggregate_type = 'events'$$,
	$$VALUES (3::bigint, '{"n": 3}'::jsonb)$$, 'they fire');

-- without one of our own triggers

SAVEPOINT disabled;
ALTER TABLE cqrs_es.events DISABLE TRIGGER dispatch_event;
SELECT is((cqrs_es.append_event('events', 'disabled', 'e', '{"n": 1}', 0)).version, 1::bigint, 'without the dispatcher an append goes in');
SELECT is_empty($$SELECT last_sequence FROM cqrs_es.snapshots WHERE aggregate_id = 'disabled'$$, 'and nothing follows from it');
ROLLBACK TO disabled;
SELECT is((cqrs_es.append_event('events', 'disabled', 'e', '{"n": 1}', 0)).version, 1::bigint, 'with it');
SELECT isnt_empty($$SELECT last_sequence FROM cqrs_es.snapshots WHERE aggregate_id = 'disabled'$$, 'something follows');
SELECT finish();
ROLLBACK;
