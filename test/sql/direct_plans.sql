\i test/include/setup.sql
-- A handler that runs nothing but the server's own code runs without the settings and the
-- search_path that are there for code of users. Nobody can tell: whatever does look at them,
-- or changes, is found out.

BEGIN;
SELECT plan(67);
CREATE SCHEMA cqrs_es_direct;
CREATE ROLE cqrs_es_direct_group;
CREATE ROLE cqrs_es_direct_definer IN ROLE cqrs_es_direct_group;
GRANT USAGE, CREATE ON SCHEMA cqrs_es_direct TO cqrs_es_direct_definer;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_direct_definer;
GRANT SELECT ON cqrs_es.events TO cqrs_es_direct_definer;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler, cqrs_es.drop_handler TO cqrs_es_direct_definer;
CREATE ROLE cqrs_es_direct_writer;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_direct_writer;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_direct_writer;
SET LOCAL search_path = cqrs_es_direct, public;
SET LOCAL ROLE cqrs_es_direct_definer;

-- kept by id: what the handler makes of an event
CREATE TABLE kept (id text PRIMARY KEY, n integer, amount numeric, t text);
SELECT cqrs_es.create_projection('direct', '{direct}', '{kept}') IS NULL AS x \gset
CREATE FUNCTION define(event_type text, handler text) RETURNS void LANGUAGE sql AS $$ SELECT cqrs_es.define_handler('direct', event_type, handler) $$;
RESET ROLE;
CREATE FUNCTION pg_temp.append(id text, event_type text, payload jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS
	$$ SELECT cqrs_es.append_event('direct', id, event_type, payload) $$;
CREATE FUNCTION pg_temp.as_definer(statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', 'cqrs_es_direct_definer', true), set_config('search_path', 'cqrs_es_direct, public', true);
	EXECUTE statement;
	PERFORM set_config('role', 'none', true), set_config('search_path', 'public', true);
END $$;
-- what the row is after an event, and after one more, which finds the plan made; others than those who define append
CREATE FUNCTION pg_temp.twice(id text, event_type text, payload jsonb DEFAULT '{}') RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	result text[];
BEGIN
	FOR i IN 1 .. 2 LOOP
		PERFORM cqrs_es.append_event('direct', id, event_type, payload);
		result := result || (SELECT format('%s %s %s', k.n, k.amount, k.t) FROM cqrs_es_direct.kept k WHERE k.id = $1);
	END LOOP;
	RETURN result;
END $$;
-- the same with how it went as an ordinary plan, in an undone transaction
CREATE FUNCTION pg_temp.both(id text, event_type text, payload jsonb DEFAULT '{}') RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
	direct text[];
	ordinary text[];
BEGIN
	BEGIN
		SET LOCAL cqrs_es.force_generic_path = on;
		ordinary := pg_temp.twice(id, event_type, payload);
		RAISE 'done' USING ERRCODE = 'P0042';
	EXCEPTION WHEN SQLSTATE 'P0042' THEN
		NULL;
	END;
	direct := pg_temp.twice(id, event_type, payload);
	RETURN CASE WHEN direct = ordinary THEN direct ELSE ARRAY['differs'] || direct || ordinary END;
END $$;
-- the session's settings, and who can be told by them
SET LOCAL search_path = public;
SET LOCAL extra_float_digits = -5;
SET LOCAL quote_all_identifiers = on;
SET LOCAL bytea_output = escape;
SET LOCAL IntervalStyle = sql_standard;
SET LOCAL timezone_abbreviations = 'Australia';
SET LOCAL TimeZone = 'Asia/Tokyo';

-- sums

SELECT pg_temp.as_definer($$SELECT define('added', 'INSERT INTO kept AS k (id, n, amount) VALUES (event.aggregate_id, 1, (event.payload->>''amount'')::numeric)
	ON CONFLICT (id) DO UPDATE SET n = k.n + 1, amount = k.amount + excluded.amount')$$) IS NULL AS x \gset
SELECT is(pg_temp.both('sum', 'added', '{"amount": 1.25}'), '{"1 1.25 ","2 2.50 "}', 'a sum');
SELECT is(pg_temp.both('sum', 'added', '{"amount": "7"}'), '{"3 9.50 ","4 16.50 "}', 'of what is a text');
SELECT is(pg_temp.both('sum', 'added', '{"amount": null}'), '{"5  ","6  "}', 'null makes it null');
SELECT is(pg_temp.both('sum', 'added', '{"amount": 1}'), '{"7  ","8  "}', 'for good');
SELECT is(pg_temp.both('none', 'added'), '{"1  ","2  "}', 'and so does a field that is not there');
SELECT is(pg_temp.error_of($$SELECT pg_temp.append('sum', 'added', '{"amount": "x"}')$$, '{state,message,detail,where}'),
	ARRAY['QE201', format('projection "direct" failed on event %s (added) of stream "direct/sum"', 9), 'invalid input syntax for type numeric: "x" (SQLSTATE 22P02)',
		'projection "direct" handling event 9 of stream "direct/sum"'], 'what is no number is an error like any other');
SELECT is(pg_temp.both('sum', 'added', '{"amount": 2}'), '{"9  ","10  "}', 'after which it goes on');
SELECT is(current_user || ' ' || current_setting('search_path') || ' ' || current_setting('TimeZone'), session_user || ' public Asia/Tokyo', 'as who one was');
SET LOCAL ROLE cqrs_es_direct_writer;
SELECT cqrs_es.append_event('direct', 'writer', 'added', '{"amount": 1}'), cqrs_es.append_event('direct', 'writer', 'added', '{"amount": 2}') \gset
SELECT is((pg_temp.error_of('TABLE cqrs_es_direct.kept'))[1], '42501', 'who appends has no right to the table');
RESET ROLE;
DELETE FROM cqrs_es_direct.kept WHERE id = 'writer' RETURNING n, amount \gset
SELECT is(:'n' || ' ' || :'amount', '2 3', 'the definer has');
CREATE FUNCTION pg_temp.context_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	context text;
BEGIN
	EXECUTE statement;
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
	RETURN context;
END $$;
SELECT matches(pg_temp.context_of($$SELECT pg_temp.append('sum', 'added', '{"amount": "x"}')$$), '(?n)^SQL statement "INSERT INTO kept AS k', 'the context has the statement');
SELECT pg_temp.as_definer($$SELECT define('overflown', 'INSERT INTO kept AS k (id, n) VALUES (event.aggregate_id, 2000000000) ON CONFLICT (id) DO UPDATE SET n = k.n + excluded.n')$$) IS NULL AS x \gset
SELECT pg_temp.append('big', 'overflown') IS NULL AS x \gset
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('big', 'overflown')$$))[3], 'integer out of range (SQLSTATE 22003)', 'so does what is too large');
SELECT pg_temp.as_definer($$SELECT define('changed', 'UPDATE kept SET n = n + event.sequence::int, t = lower(event.event_type) WHERE id = event.aggregate_id AND n IS NOT NULL')$$) IS NULL AS x \gset
SELECT is(pg_temp.both('sum', 'changed'), '{"21  changed","33  changed"}', 'an UPDATE');
SELECT pg_temp.as_definer($$SELECT define('gone', 'DELETE FROM kept WHERE id = event.aggregate_id AND event.payload->>''why'' IN (''closed'', ''sold'')')$$) IS NULL AS x \gset
SELECT pg_temp.append('sum', 'gone', '{"why": "lost"}'), pg_temp.append('none', 'gone', '{"why": "sold"}'), pg_temp.append('big', 'gone', '{"why": "closed"}') \gset
SELECT results_eq('SELECT id FROM cqrs_es_direct.kept ORDER BY 1', ARRAY['sum'], 'a DELETE');
SELECT pg_temp.as_definer($$SELECT define('twice', 'UPDATE kept SET n = 2 * n WHERE id = event.aggregate_id')$$), pg_temp.as_definer($$SELECT define('*', 'UPDATE kept SET n = n + 1 WHERE id = event.aggregate_id')$$) IS NULL AS x \gset
SELECT pg_temp.both('sum', 'twice') AS x \gset
SELECT is(:'x'::text, '{"68  changed","138  changed"}', 'a handler sees what that before it wrote, and of the event before');
SELECT cqrs_es.append_events('direct', 'sum', '[{"type": "twice"}, {"type": "changed"}]') \gset
SELECT is(n::bigint, 2 * (138 + 1) + 1 + (SELECT max(sequence) FROM cqrs_es.events WHERE aggregate_type = 'direct' AND aggregate_id = 'sum'), 'so in a batch') FROM cqrs_es_direct.kept WHERE id = 'sum';
SELECT pg_temp.as_definer($$SELECT cqrs_es.drop_handler('direct', '*')$$) IS NULL AS x \gset

-- what looks at settings, or who one is

CREATE FUNCTION cqrs_es_direct.spy(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
	$$BEGIN RETURN format('%s%s %s %s', $1, current_user, current_setting('TimeZone'), replace(current_setting('search_path'), '"', '')); END$$;
CREATE FUNCTION pg_temp.of(expression text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text[];
BEGIN
	PERFORM pg_temp.as_definer(format('SELECT define(''made'', %L)', format('INSERT INTO kept AS k (id, t) VALUES (event.aggregate_id, %s) ON CONFLICT (id) DO UPDATE SET t = excluded.t', expression)));
	result := pg_temp.twice('made', 'made', '{"float": 0.30000000000000004, "name": "plain", "id": "4"}');
	RETURN CASE WHEN result[1] = result[2] THEN trim(result[1]) ELSE 'differs: ' || result::text END;
END $$;
SELECT is(pg_temp.of($$((event.payload->>'float')::float8)::text$$), '0.30000000000000004', 'a float as text');
SELECT is(pg_temp.of($$textin(float8out((event.payload->>'float')::float8))$$), '0.30000000000000004', 'and by its functions');
SELECT is(pg_temp.of($$quote_ident(event.payload->>'name')$$), 'plain', 'a name in quotes');
SELECT is(pg_temp.of($$('\x'::text || encode(sha256(convert_to(event.payload->>'name', 'UTF8')), 'hex'))::bytea::text$$), '\x' || encode(sha256('plain'), 'hex'), 'bytes as text');
SELECT is(pg_temp.of($$sha256(convert_to(event.payload->>'name', 'UTF8'))::text$$), '\x' || encode(sha256('plain'), 'hex'), 'which an immutable function made');
SELECT is(pg_temp.of($$(justify_hours(event.created_at - event.created_at + interval '36 hours'))::text$$), '1 day 12:00:00', 'an interval');
SELECT is(pg_temp.of($$(timezone('EST', event.created_at) - timezone(interval '0', event.created_at) = interval '-5 hours')::int::text$$), '1', 'a time zone''s abbreviation');
SELECT is(pg_temp.of($$right(event.created_at::text, 3)$$), '+00', 'a time');
SELECT is(pg_temp.of($$current_setting('TimeZone')$$), 'UTC', 'a setting');
SELECT is(pg_temp.of($$current_user::text$$), 'cqrs_es_direct_definer', 'who it is');
SELECT is(pg_temp.of($$spy('')$$), 'cqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp', 'a function of somebody, whatever it says of itself');
SELECT is(pg_temp.of($$spy(event.payload->>'name')$$), 'plaincqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp', 'with arguments');
CREATE OPERATOR cqrs_es_direct.!!! (RIGHTARG = text, FUNCTION = cqrs_es_direct.spy);
SELECT is(pg_temp.of($$!!! (event.payload->>'name')$$), 'plaincqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp', 'an operator');
CREATE DOMAIN cqrs_es_direct.guarded AS text CHECK (cqrs_es_direct.spy(VALUE) LIKE '%UTC%');
SELECT is(pg_temp.of($$(event.payload->>'name')::guarded$$), 'plain', 'a domain');
CREATE FUNCTION cqrs_es_direct.stable(text) RETURNS bigint LANGUAGE sql STABLE AS $$SELECT count(*) FROM cqrs_es_direct.kept WHERE id = $1$$;
SELECT pg_temp.append('made', 'gone', '{"why": "sold"}') IS NULL AS x \gset
SELECT is(pg_temp.of($$stable(event.aggregate_id)::text$$), 'differs: {"  0","  1"}', 'a stable function sees what the event before wrote');
SELECT is(pg_temp.of($$(SELECT max(t) FROM kept WHERE id = 'made' AND stable(id) = 1)$$), '1', 'a subquery');

-- a row that is written sets something off

SELECT pg_temp.as_definer($$SELECT define('written', 'INSERT INTO kept AS k (id, n) VALUES (event.aggregate_id, 1) ON CONFLICT (id) DO UPDATE SET n = k.n + 1')$$) IS NULL AS x \gset
SELECT is(pg_temp.both('w', 'written'), '{"1  ","2  "}', 'a row is written');
CREATE FUNCTION cqrs_es_direct.note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.t := cqrs_es_direct.spy(''); RETURN NEW; END$$;
CREATE TRIGGER note BEFORE INSERT OR UPDATE ON cqrs_es_direct.kept FOR EACH ROW EXECUTE FUNCTION cqrs_es_direct.note();
SELECT is(pg_temp.both('w', 'written'), '{"3  cqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp","4  cqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp"}', 'a trigger that has come fires, and finds what it is to find');
ALTER TABLE cqrs_es_direct.kept DISABLE TRIGGER note;
UPDATE cqrs_es_direct.kept SET t = NULL;
SELECT is(pg_temp.both('w', 'written'), '{"5  ","6  "}', 'one that is disabled does not');
ALTER TABLE cqrs_es_direct.kept ENABLE TRIGGER note;
SELECT is(pg_temp.twice('w', 'written'), '{"7  cqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp","8  cqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp"}', 'and then it does');
DROP TRIGGER note ON cqrs_es_direct.kept;
UPDATE cqrs_es_direct.kept SET t = NULL;
CREATE TABLE cqrs_es_direct.transitions (what text, n bigint);
CREATE FUNCTION cqrs_es_direct.count() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN INSERT INTO cqrs_es_direct.transitions SELECT cqrs_es_direct.spy(TG_OP || ' '), count(*) FROM changed; RETURN NULL; END$$;
GRANT INSERT ON cqrs_es_direct.transitions TO cqrs_es_direct_definer;
CREATE TRIGGER count AFTER UPDATE ON cqrs_es_direct.kept REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION cqrs_es_direct.count();
SELECT pg_temp.append('w', 'written'), pg_temp.append('w', 'written') \gset
SELECT results_eq('TABLE cqrs_es_direct.transitions', $$SELECT 'UPDATE cqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp', 1::bigint FROM generate_series(1, 2)$$, 'triggers of statements see the rows');
DROP TRIGGER count ON cqrs_es_direct.kept;
SELECT pg_temp.append('w', 'written') IS NULL AS x \gset
ALTER TABLE cqrs_es_direct.kept ADD CHECK (cqrs_es_direct.spy(id) LIKE '%UTC%') NOT VALID;
SELECT is(pg_temp.twice('w', 'written'), '{"12  ","13  "}', 'a constraint that has come calls its function as it is to be called');
ALTER TABLE cqrs_es_direct.kept DROP CONSTRAINT kept_id_check, ADD CONSTRAINT small CHECK (n < 16) NOT VALID;
SELECT is(pg_temp.twice('w', 'written'), '{"14  ","15  "}', 'another is kept to');
SELECT is(pg_temp.error_of($$SELECT pg_temp.append('w', 'written')$$, '{state,detail}'),
	ARRAY['QE201', E'new row for relation "kept" violates check constraint "small" (SQLSTATE 23514)\nFailing row contains (w, 16, null, null).'], 'and holds');
ALTER TABLE cqrs_es_direct.kept DROP CONSTRAINT small, ALTER COLUMN t SET DEFAULT cqrs_es_direct.spy('by default ');
SELECT is(pg_temp.twice('d', 'written'), '{"1  by default cqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp","2  by default cqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp"}', 'a default');
ALTER TABLE cqrs_es_direct.kept ALTER COLUMN t DROP DEFAULT;
SELECT pg_temp.append('w', 'written') IS NULL AS x \gset
ALTER TABLE cqrs_es_direct.kept ADD COLUMN spied text GENERATED ALWAYS AS (cqrs_es_direct.spy(id)) STORED;
SELECT pg_temp.append('w', 'written'), pg_temp.append('u', 'written') \gset
SELECT is(spied, 'ucqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp', 'a column that is computed') FROM cqrs_es_direct.kept WHERE id = 'u';
ALTER TABLE cqrs_es_direct.kept DROP COLUMN spied;
CREATE SEQUENCE cqrs_es_direct.looks;
GRANT USAGE ON SEQUENCE cqrs_es_direct.looks TO cqrs_es_direct_definer;
CREATE FUNCTION cqrs_es_direct.look(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
	$$BEGIN IF cqrs_es_direct.spy('') <> 'cqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp' THEN PERFORM nextval('cqrs_es_direct.looks'); END IF; RETURN $1; END$$;
SELECT pg_temp.append('w', 'written') IS NULL AS x \gset
CREATE INDEX looked ON cqrs_es_direct.kept (cqrs_es_direct.look(t));
SELECT setval('cqrs_es_direct.looks', 1, false) AS x \gset
SELECT pg_temp.append('w', 'changed'), pg_temp.append('w', 'changed'), pg_temp.append('w', 'written'), pg_temp.append('w2', 'written') \gset
SELECT is(is_called, false, 'an index of an expression') FROM cqrs_es_direct.looks;
DROP INDEX cqrs_es_direct.looked;
CREATE INDEX looked ON cqrs_es_direct.kept (n) WHERE cqrs_es_direct.look(t) IS NULL;
SELECT setval('cqrs_es_direct.looks', 1, false) AS x \gset
SELECT pg_temp.append('w', 'written'), pg_temp.append('w', 'written'), pg_temp.append('w3', 'written') \gset
SELECT is(is_called, false, 'and one with a condition') FROM cqrs_es_direct.looks;
DROP INDEX cqrs_es_direct.looked;
CREATE TABLE cqrs_es_direct.parent (id text PRIMARY KEY);
INSERT INTO cqrs_es_direct.parent SELECT id FROM cqrs_es_direct.kept;
SELECT pg_temp.append('w', 'written') IS NULL AS x \gset
ALTER TABLE cqrs_es_direct.kept ADD CONSTRAINT parent FOREIGN KEY (id) REFERENCES cqrs_es_direct.parent;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('orphan', 'written')$$))[1:2], ARRAY['QE201', 'projection "direct" failed on event 1 (written) of stream "direct/orphan"'], 'a foreign key is kept to');
ALTER TABLE cqrs_es_direct.kept DROP CONSTRAINT parent;
SELECT pg_temp.append('w', 'written'), pg_temp.append('w', 'written') \gset

-- what changes

CREATE TABLE cqrs_es_direct.counts AS SELECT n FROM cqrs_es_direct.kept WHERE id = 'w';
CREATE FUNCTION pg_temp.grown() RETURNS integer LANGUAGE sql AS
	$$WITH now AS (SELECT n FROM cqrs_es_direct.kept WHERE id = 'w'), changed AS (UPDATE cqrs_es_direct.counts c SET n = now.n FROM now RETURNING c.n) SELECT (SELECT n FROM now) - (SELECT n FROM cqrs_es_direct.counts)$$;
SELECT pg_temp.append('w', 'written') IS NULL AS x \gset
SELECT is(pg_temp.grown(), 1, 'by one');
SELECT pg_temp.as_definer($$SELECT define('written', 'UPDATE kept SET n = n + 10 WHERE id = event.aggregate_id')$$), pg_temp.append('w', 'written'), pg_temp.append('w', 'written') \gset
SELECT is(pg_temp.grown(), 20, 'redefined');
ALTER TABLE cqrs_es_direct.kept RENAME COLUMN n TO m;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('w', 'written')$$))[3], 'column "n" does not exist (SQLSTATE 42703)', 'a column has another name');
ALTER TABLE cqrs_es_direct.kept RENAME COLUMN m TO n;
ALTER TABLE cqrs_es_direct.kept ALTER COLUMN n TYPE bigint, ADD COLUMN late text DEFAULT 'late';
SELECT pg_temp.append('w', 'written'), pg_temp.append('w', 'written') \gset
SELECT is(n::int - (SELECT n FROM cqrs_es_direct.counts), 20, 'another type, and another column beside it') FROM cqrs_es_direct.kept WHERE id = 'w';
SELECT pg_temp.as_definer($$SELECT define('written', 'INSERT INTO kept AS k (id, n) VALUES (event.aggregate_id, 1) ON CONFLICT (id) DO UPDATE SET n = k.n + 1')$$), pg_temp.append('w', 'written'), pg_temp.append('w', 'written') \gset
ALTER TABLE cqrs_es_direct.kept DROP CONSTRAINT kept_pkey;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('w', 'written')$$))[3], 'there is no unique or exclusion constraint matching the ON CONFLICT specification (SQLSTATE 42P10)', 'without what made it unique');
ALTER TABLE cqrs_es_direct.kept ADD CONSTRAINT kept_pkey PRIMARY KEY (id);
SELECT lives_ok($$SELECT pg_temp.append('w', 'written')$$, 'and with it');
REVOKE UPDATE ON cqrs_es_direct.kept FROM cqrs_es_direct_definer;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('w', 'written')$$))[3], 'permission denied for table kept (SQLSTATE 42501)', 'without the right to it');
GRANT UPDATE (n) ON cqrs_es_direct.kept TO cqrs_es_direct_definer;
SELECT lives_ok($$SELECT pg_temp.append('w', 'written')$$, 'and with that to the column');
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('w', 'changed')$$))[3], 'permission denied for table kept (SQLSTATE 42501)', 'which is not that to another');
GRANT UPDATE ON cqrs_es_direct.kept TO cqrs_es_direct_definer;
SELECT pg_temp.append('w', 'written'), pg_temp.append('w', 'written') \gset
ALTER TABLE cqrs_es_direct.kept ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY short ON cqrs_es_direct.kept USING (cqrs_es_direct.spy('') = 'cqrs_es_direct_definer UTC cqrs_es_direct, public, pg_temp') WITH CHECK (length(id) < 4);
SELECT lives_ok($$SELECT pg_temp.append('w', 'written')$$, 'policies that have come see the definer');
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('long', 'written')$$))[3], 'new row violates row-level security policy for table "kept" (SQLSTATE 42501)', 'and are kept to');
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('long', 'written')$$))[3], 'new row violates row-level security policy for table "kept" (SQLSTATE 42501)', 'again');
ALTER TABLE cqrs_es_direct.kept DISABLE ROW LEVEL SECURITY;
SELECT pg_temp.append('w', 'written'), pg_temp.append('w', 'written') \gset
REVOKE USAGE ON SCHEMA cqrs_es_direct FROM cqrs_es_direct_definer;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('w', 'written')$$))[3], 'relation "kept" does not exist (SQLSTATE 42P01)', 'without the right to the schema');
GRANT USAGE ON SCHEMA cqrs_es_direct TO cqrs_es_direct_group;
SELECT pg_temp.append('w', 'written'), pg_temp.append('w', 'written') \gset
REVOKE cqrs_es_direct_group FROM cqrs_es_direct_definer;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('w', 'written')$$))[3], 'relation "kept" does not exist (SQLSTATE 42P01)', 'or to be of the group that has it');
GRANT USAGE ON SCHEMA cqrs_es_direct TO cqrs_es_direct_definer;
SELECT lives_ok($$SELECT pg_temp.append('w', 'written')$$, 'in the end all is as it was');
SELECT format('ALTER DATABASE %I OWNER TO cqrs_es_direct_definer', current_database()) AS owned, format('ALTER DATABASE %I OWNER TO %I', current_database(), rolname) AS owned_again FROM pg_database AS d, pg_roles AS r WHERE datname = current_database() AND datdba = r.oid \gset
:owned;
GRANT USAGE ON SCHEMA cqrs_es_direct TO pg_database_owner;
REVOKE USAGE ON SCHEMA cqrs_es_direct FROM cqrs_es_direct_definer;
SELECT pg_temp.append('w', 'written'), pg_temp.append('w', 'written') \gset
:owned_again;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('w', 'written')$$))[3], 'relation "kept" does not exist (SQLSTATE 42P01)', 'without the right that came of owning the database');
GRANT USAGE ON SCHEMA cqrs_es_direct TO cqrs_es_direct_definer;
SELECT lives_ok($$SELECT pg_temp.append('w', 'written')$$, 'which is given');

-- states are found by their key, however few there are when a session meets them first

CREATE TABLE cqrs_es_direct.states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
CREATE FUNCTION pg_temp.scans() RETURNS bigint LANGUAGE sql AS $$ SELECT pg_stat_get_xact_numscans('cqrs_es_direct.states'::regclass) $$;
SELECT cqrs_es.create_aggregate('direct states') IS NULL AS x, cqrs_es.create_projection('direct states', state_of => 'direct states', read_models => '{cqrs_es_direct.states}') IS NULL AS y \gset
INSERT INTO cqrs_es_direct.states VALUES ('other', 1, '{}');
ANALYZE cqrs_es_direct.states;
DELETE FROM cqrs_es_direct.states;
SELECT pg_temp.scans() AS before \gset
SELECT cqrs_es.append_event('direct states', n % 3 || 's', 'put', jsonb_build_object('n', n)) FROM generate_series(1, 9) AS n \g /dev/null
SELECT is(pg_temp.scans() - :before, 0::bigint, 'no state is looked for in all of them');
SELECT results_eq('SELECT view_id, version, payload FROM cqrs_es_direct.states ORDER BY 1', $$VALUES ('0s', 3::bigint, '{"n": 9}'::jsonb), ('1s', 3, '{"n": 7}'), ('2s', 3, '{"n": 8}')$$, 'each is found');
ALTER TABLE cqrs_es_direct.states ADD COLUMN t text;
CREATE TRIGGER note BEFORE UPDATE ON cqrs_es_direct.states FOR EACH ROW EXECUTE FUNCTION cqrs_es_direct.note();
SELECT cqrs_es.append_event('direct states', '0s', 'put', '{"n": 10}') \g /dev/null
SELECT is(format('%s %s %s', version, payload, t), format('4 {"n": 10} %s UTC pg_catalog, pg_temp', session_user), 'a trigger of theirs finds what it is to find') FROM cqrs_es_direct.states WHERE view_id = '0s';

-- nothing is kept again and again where some events come under fixed settings, and others do not

CREATE TABLE cqrs_es_direct.under_fixed (id text, at text);
SELECT cqrs_es.create_projection('a guarded one', '{direct states}', '{cqrs_es_direct.under_fixed}') IS NULL AS x,
	cqrs_es.define_handler('a guarded one', 'fixed', 'INSERT INTO cqrs_es_direct.under_fixed VALUES (event.aggregate_id, now()::text)') IS NULL AS y \gset
CREATE FUNCTION pg_temp.append_both(n int) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM FROM cqrs_es.append_event('direct states', '1s', 'fixed', '{}');
		PERFORM FROM cqrs_es.append_event('direct states', '1s', 'put', '{}');
	END LOOP;
	RETURN count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'CachedPlan%';
END $$;
SET LOCAL quote_all_identifiers = on;
SELECT pg_temp.append_both(5) AS plans \gset
SELECT is(pg_temp.append_both(20) - :plans, 0::bigint, 'plans are kept once');
SELECT is(count(*), 25::bigint, 'the guarded handler has run') FROM cqrs_es_direct.under_fixed;

SELECT finish();
ROLLBACK;
