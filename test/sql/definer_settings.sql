\i test/include/setup.sql
-- What runs for everyone runs under the same settings in every session, and so
-- means and gives the same; and the session gets its own settings back.

BEGIN;
SELECT plan(38);
CREATE SCHEMA cqrs_es_settings;
SET LOCAL search_path = cqrs_es_settings, public;

-- a value for each setting that is not the one that is fixed
CREATE TABLE hostile (name text PRIMARY KEY, value text, fixed text);
INSERT INTO hostile VALUES
	('standard_conforming_strings', 'off', 'on'),
	('backslash_quote', 'on', 'safe_encoding'),
	('transform_null_equals', 'on', 'off'),
	('array_nulls', 'off', 'on'),
	('xmloption', 'document', 'content'),
	('timezone_abbreviations', 'Australia', 'Default'),
	('TimeZone', 'Asia/Tokyo', 'UTC'),
	('DateStyle', 'SQL, DMY', 'ISO, MDY'),
	('IntervalStyle', 'sql_standard', 'postgres'),
	('extra_float_digits', '-5', '1'),
	('bytea_output', 'escape', 'hex'),
	('xmlbinary', 'hex', 'base64'),
	('quote_all_identifiers', 'on', 'off'),
	('lc_monetary', 'C.UTF-8', 'C'),
	('lc_numeric', 'C.UTF-8', 'C'),
	('lc_time', 'C.UTF-8', 'C'),
	('default_text_search_config', 'pg_catalog.english', 'pg_catalog.simple'),
	('gin_fuzzy_search_limit', '1000', '0'),
	('row_security', 'off', 'on');
-- all settings at once, as a text
CREATE FUNCTION settings() RETURNS text LANGUAGE sql AS
	$$SELECT string_agg(name || '=' || current_setting(name), ' ' ORDER BY name) FROM cqrs_es_settings.hostile$$;
CREATE FUNCTION fixed() RETURNS text LANGUAGE sql AS
	$$SELECT string_agg(name || '=' || fixed, ' ' ORDER BY name) FROM cqrs_es_settings.hostile$$;
CREATE FUNCTION be_hostile(really boolean DEFAULT true) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config(name, CASE WHEN really THEN value ELSE fixed END, true) FROM cqrs_es_settings.hostile;
END $$;
SELECT be_hostile() \gset
SELECT settings() AS hostile \gset
SELECT isnt(:'hostile', fixed(), 'the session has settings of its own');
SELECT is((SELECT count(*) FROM cqrs_es_settings.hostile WHERE current_setting(name) = fixed), 0::bigint, 'each of them another one');

-- Every kind of code sees the fixed ones, defined in such a session and run in it.

CREATE FUNCTION reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS
	$$SELECT state || jsonb_build_object('reducer', cqrs_es_settings.settings(), 'event', (event).payload)$$;
CREATE FUNCTION up(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT payload || jsonb_build_object('upcaster', cqrs_es_settings.settings())$$;
CREATE TABLE seen (what text, settings text, at text);
CREATE FUNCTION handle(event cqrs_es.event) RETURNS void LANGUAGE sql AS
	$$INSERT INTO cqrs_es_settings.seen VALUES ('function', cqrs_es_settings.settings(), event.created_at::text)$$;
CREATE TABLE states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL, settings text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.settings := cqrs_es_settings.settings(); RETURN NEW; END$$;
CREATE TRIGGER note BEFORE INSERT OR UPDATE ON states FOR EACH ROW EXECUTE FUNCTION note();
SELECT cqrs_es.create_aggregate('settings', snapshot_every => 2) \gset
SELECT cqrs_es.define_reducer('settings', 'e', 'reduce(jsonb, cqrs_es.event)'::regprocedure),
	cqrs_es.define_upcaster('settings e', '1', '2', 'up(jsonb)'),
	cqrs_es.define_reducer('settings', 'settings e', 'reduce(jsonb, cqrs_es.event)'::regprocedure),
	cqrs_es.define_command('settings', 'C', $$jsonb_build_object('type', 'decided', 'payload', jsonb_build_object('decider', settings()))$$),
	cqrs_es.create_projection('settings', '{settings}', '{seen}'),
	cqrs_es.define_handler('settings', 'e', 'handle(cqrs_es.event)'),
	cqrs_es.define_handler('settings', 'settings e', $$INSERT INTO seen VALUES (event.payload->>'upcaster', settings(), event.created_at::text)$$),
	cqrs_es.create_projection('settings states', read_models => '{states}', state_of => 'settings') \gset
SELECT cqrs_es.append_event('settings', 'a', 'e', '{}'), cqrs_es.append_event('settings', 'a', 'settings e', '{}') \gset
SELECT is(settings(), :'hostile', 'after appends the settings are those of the session');
SELECT is((SELECT settings FROM seen WHERE what = 'function'), fixed(), 'a handler that is a function');
SELECT is((SELECT settings FROM seen WHERE what <> 'function'), fixed(), 'one that is a statement');
SELECT is((SELECT what FROM seen WHERE what <> 'function'), fixed(), 'an upcaster before it');
SELECT is((SELECT settings FROM states WHERE view_id = 'a'), fixed(), 'a trigger of a table of states');
SELECT is((SELECT payload->>'reducer' FROM states WHERE view_id = 'a'), fixed(), 'a reducer for it');
SELECT is((SELECT payload->>'reducer' FROM cqrs_es.snapshots WHERE aggregate_type = 'settings' AND aggregate_id = 'a'), fixed(), 'and for a snapshot');
SELECT is(cqrs_es.aggregate_state('settings', 'a', at_sequence => 1)->>'reducer', fixed(), 'and for a reader');
SELECT is(cqrs_es.aggregate_state('settings', 'a')->'event'->>'upcaster', fixed(), 'an upcaster, too');
SELECT is((SELECT payload->>'upcaster' FROM cqrs_es.read_stream('settings', 'a', 2)), fixed(), 'and for read_stream');
SELECT is((SELECT state->>'reducer' FROM cqrs_es.replay('settings', 'a', 2)), fixed(), 'and for replay');
SELECT is((SELECT state->>'decider' FROM cqrs_es.execute_command('settings', 'c', 'C')), fixed(), 'a decider');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('settings', 'b', 'e', '{}');
SELECT is(settings(), :'hostile', 'the session''s own after all that');

-- Errors give them back as well.

SELECT cqrs_es.define_handler('settings', 'bad', $$INSERT INTO seen VALUES ((event.payload->>'s')::int)$$) \gset
SELECT throws_ok($$SELECT cqrs_es.append_event('settings', 'a', 'bad', '{"s": "x"}')$$, 'QE201', NULL, 'a handler fails');
SELECT is(settings(), :'hostile', 'and the settings are the session''s');

-- What is live and what is rebuilt elsewhere is the same, and so is what texts mean.

SELECT be_hostile(false) \gset
CREATE TABLE rendered (id text, at text, day date, span text, number text, bytes text, nothing boolean, backslash text, elements text, words text, money text, zone text, doc text);
SELECT cqrs_es.create_projection('rendered', '{rendered}', '{rendered}') \gset
SELECT be_hostile() \gset
SELECT cqrs_es.define_handler('rendered', 'e', $handler$INSERT INTO rendered VALUES (event.aggregate_id, event.created_at::text, (event.payload->>'day')::date,
	((event.payload->>'span')::interval)::text, (event.payload->>'number')::float8::text, convert_to(event.payload->>'bytes', 'UTF8')::text,
	(event.payload->>'nothing') = NULL, 'a\nb', (event.payload->>'elements')::text[]::text, to_tsvector(event.payload->>'words')::text,
	to_char(1234.5, 'L9G999D9'), ((event.payload->>'zone')::timestamptz)::text, xmlparse(content 'a')::text)$handler$) \gset
CREATE FUNCTION append_rendered(id text) RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.append_event('rendered', id, 'e', '{"day": "02/01/2024", "span": "1 day 2 hours", "number": 0.1, "bytes": "ab",
		"elements": "{a,NULL}", "words": "the cats", "zone": "2024-01-01 00:00 EST"}')
$$;
SELECT append_rendered('hostile') \gset
SELECT be_hostile(false) \gset
SELECT append_rendered('fixed') \gset
CREATE TABLE live AS SELECT * FROM rendered;
SELECT is((SELECT ROW(day, span, number, bytes, nothing, backslash, elements, words, money, zone, doc)::text FROM live WHERE id = 'fixed'),
	'(2024-02-01,"1 day 02:00:00",0.1,"\\x6162",,"a\\nb","{a,NULL}","''cats'':2 ''the'':1","  1,234.5","2024-01-01 05:00:00+00",a)', 'what a handler writes');
SELECT is((SELECT ROW(day, span, number, bytes, nothing, backslash, elements, words, money, zone, doc)::text FROM live WHERE id = 'hostile'),
	(SELECT ROW(day, span, number, bytes, nothing, backslash, elements, words, money, zone, doc)::text FROM live WHERE id = 'fixed'), 'it writes in any session');
SELECT be_hostile() \gset
SELECT cqrs_es.rebuild_projection('rendered') \gset
SELECT be_hostile(false) \gset
SELECT bag_eq('SELECT * FROM rendered', 'SELECT * FROM live', 'and when it is rebuilt in another');

-- Foreign keys and triggers of read models work in a session that is a replica. (What is appended there, nobody is told of.)

CREATE TABLE parents (id text PRIMARY KEY);
CREATE TABLE children (id text REFERENCES parents);
SELECT cqrs_es.append_event('children', 'a', 'e', '{}'),
	cqrs_es.create_projection('children', '{children}', '{children}'),
	cqrs_es.define_handler('children', 'e', 'INSERT INTO children VALUES (event.aggregate_id)') \gset
SET LOCAL session_replication_role = replica;
SELECT throws_ok($$SELECT cqrs_es.rebuild_projection('children')$$, 'QE201', NULL, 'a foreign key is checked');
SELECT is(current_setting('session_replication_role'), 'replica', 'it is still one');
SET LOCAL session_replication_role = origin;

-- A fingerprint does not depend on who looks: sessions of two zones share snapshots.

CREATE FUNCTION since(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql IMMUTABLE
	RETURN state || jsonb_build_object('since', timestamptz '2024-01-01 00:00:00+00' < now(), 'b', '\x00'::bytea IS NULL, 'f', 0.1::float8, 'i', interval '1 day 1 hour' IS NULL);
SELECT cqrs_es.create_aggregate('fingerprint', snapshot_every => 0) \gset
SELECT cqrs_es.define_reducer('fingerprint', 'e', 'since(jsonb, cqrs_es.event)'::regprocedure),
	cqrs_es.define_upcaster('fingerprint e', '1', '2', 'up(jsonb)') \gset
SELECT cqrs_es.append_event('fingerprint', 'a', 'e', '{}'), cqrs_es.append_event('fingerprint', 'b', 'e', '{}') \gset
CREATE FUNCTION fingerprint(id text) RETURNS bytea LANGUAGE plpgsql AS $$
BEGIN
	PERFORM cqrs_es.take_snapshot('fingerprint', id);
	RETURN (SELECT fingerprint FROM cqrs_es.snapshots WHERE aggregate_type = 'fingerprint' AND aggregate_id = id);
END $$;
SELECT fingerprint('a') AS fingerprint \gset
SELECT is(fingerprint('b'), :'fingerprint', 'two streams, one fingerprint');
-- any change of a function makes a session look again
CREATE FUNCTION forget(text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config(name, value, true) FROM cqrs_es_settings.hostile WHERE name = $1;
	DELETE FROM cqrs_es.snapshots WHERE aggregate_type = 'fingerprint';
	CREATE OR REPLACE FUNCTION cqrs_es_settings.any_function() RETURNS int LANGUAGE sql AS 'SELECT 1';
END $$;
SELECT is(fingerprint('a'), :'fingerprint', 'the same with another ' || name)
FROM hostile, forget(name) WHERE name IN ('TimeZone', 'DateStyle', 'IntervalStyle', 'bytea_output', 'extra_float_digits', 'quote_all_identifiers', 'standard_conforming_strings')
ORDER BY name COLLATE "C";
SELECT be_hostile(false) \gset

-- A function in use is protected however names are written.

CREATE FUNCTION "Odd ""name"(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
CREATE FUNCTION "Odd ""name"(state jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
SELECT cqrs_es.define_reducer('fingerprint', 'odd', '"Odd ""name"(jsonb, cqrs_es.event)'::regprocedure) \gset
SET LOCAL quote_all_identifiers = on;
SELECT cqrs_es.define_reducer('fingerprint', 'quoted', 'reduce(jsonb, cqrs_es.event)'::regprocedure) \gset
SELECT is((SELECT function FROM cqrs_es.reducers WHERE aggregate_type = 'fingerprint' AND event_type = 'quoted'),
	'cqrs_es_settings.reduce(pg_catalog.jsonb,cqrs_es.event)', 'a signature is kept without needless quotes');
SELECT throws_ok(format('DROP FUNCTION %s', function), '2BP01', NULL, format('DROP FUNCTION %s, with quotes around all names', function))
FROM unnest('{"since(jsonb, cqrs_es.event)","up(jsonb)","handle(cqrs_es.event)","\"Odd \"\"name\"(jsonb, cqrs_es.event)","reduce(jsonb, cqrs_es.event)"}'::text[]) AS function;
SELECT lives_ok('DROP FUNCTION "Odd ""name"(jsonb)', 'another function of that name may go');
SET LOCAL quote_all_identifiers = off;
SELECT throws_ok('DROP FUNCTION reduce(jsonb, cqrs_es.event)', '2BP01', NULL, 'the same without');

SELECT * FROM finish();
ROLLBACK;
