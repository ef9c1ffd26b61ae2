\i test/include/setup.sql
-- Nothing temporary is part of what runs for others: not when it is defined, and
-- not when a name in it has come to mean something of the session it runs in.
-- Other kinds of the latter are in rights.sql and t/011_definers.pl.

BEGIN;
SELECT plan(121);
CREATE ROLE cqrs_es_thief;
CREATE ROLE cqrs_es_other;
GRANT USAGE ON SCHEMA cqrs_es TO cqrs_es_thief, cqrs_es_other;
GRANT SELECT, INSERT ON cqrs_es.events TO cqrs_es_thief;
CREATE SCHEMA cqrs_es_temporary;
GRANT USAGE ON SCHEMA cqrs_es_temporary TO PUBLIC;
SET LOCAL search_path = cqrs_es_temporary, public;
SELECT cqrs_es.create_aggregate('temporary') \gset

-- Functions that a registry names.

CREATE FUNCTION pg_temp.reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state || jsonb_build_object(''who'', current_user)';
CREATE FUNCTION pg_temp.up(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT payload || ''{"up": true}''';
CREATE FUNCTION pg_temp.handle(event cqrs_es.event) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION pg_temp.decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT ''[]''::jsonb';
CREATE TABLE kept (id text PRIMARY KEY, t text, n int);
CREATE TEMP TABLE states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
SELECT cqrs_es.create_projection('temporary', '{temporary}', '{kept}') \gset
SELECT throws_ok(call, state, NULL, call) FROM (VALUES
	(1, '42P17', $$SELECT cqrs_es.define_reducer('temporary', 'e', 'pg_temp.reduce(jsonb, cqrs_es.event)'::regprocedure)$$),
	(2, '42P17', $$SELECT cqrs_es.define_reducer('temporary', 'e', 'pg_temp.reduce(jsonb, cqrs_es.event)')$$),
	(3, '42P17', $$SELECT cqrs_es.define_upcaster('e', '1', '2', 'pg_temp.up(jsonb)')$$),
	(4, '42P17', $$SELECT cqrs_es.define_handler('temporary', 'e', 'pg_temp.handle(cqrs_es.event)')$$),
	(5, '42P17', $$SELECT cqrs_es.define_command('temporary', 'C', 'pg_temp.decide(jsonb, jsonb)'::regprocedure)$$),
	(6, '42809', $$SELECT cqrs_es.create_projection('of temporary', '{temporary}', '{pg_temp.states}')$$),
	(7, '42809', $$SELECT cqrs_es.create_projection('of temporary', state_of => 'temporary', read_models => '{pg_temp.states}')$$)) c (n, state, call)
ORDER BY n;

-- All that a text can name, in a handler and in a decider.

CREATE FUNCTION pg_temp.evil(t text) RETURNS text LANGUAGE sql AS 'SELECT current_user';
CREATE FUNCTION pg_temp.evil_rows(t text) RETURNS SETOF text LANGUAGE sql AS 'SELECT current_user';
CREATE FUNCTION pg_temp.evil_cast(jsonb) RETURNS point LANGUAGE sql AS 'SELECT ''(0,0)''::point';
CREATE FUNCTION pg_temp.evil_equal(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR pg_temp.=== (FUNCTION = texteq, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR cqrs_es_temporary.=== (FUNCTION = pg_temp.evil_equal, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR pg_temp.<<< (FUNCTION = text_lt, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR CLASS pg_temp.evil_class FOR TYPE text USING btree AS
	OPERATOR 1 pg_temp.<<<, OPERATOR 3 pg_temp.===, FUNCTION 1 bttextcmp(text, text);
CREATE FUNCTION pg_temp.evil_method(internal) RETURNS tsm_handler LANGUAGE internal AS 'tsm_bernoulli_handler';
CREATE AGGREGATE pg_temp.evil_sum(text) (SFUNC = textcat, STYPE = text);
CREATE CAST (jsonb AS point) WITH FUNCTION pg_temp.evil_cast(jsonb);
CREATE DOMAIN pg_temp.evil_domain AS text;
CREATE TYPE pg_temp.evil_enum AS ENUM ('a');
CREATE TYPE pg_temp.evil_row AS (a text);
CREATE COLLATION pg_temp.evil_collation (LOCALE = 'C');
CREATE SEQUENCE pg_temp.evil_sequence;
CREATE TEMP TABLE evil_table (t text);
CREATE TEMP VIEW evil_view AS SELECT 'a'::text AS t;
CREATE VIEW cqrs_es_temporary.innocent AS SELECT pg_temp.evil('a') AS t;
CREATE TABLE cqrs_es_temporary.defaults (id text, t text DEFAULT pg_temp.evil('a'));
CREATE TEXT SEARCH CONFIGURATION pg_temp.evil_config (COPY = pg_catalog.simple);
CREATE TEXT SEARCH DICTIONARY pg_temp.evil_dictionary (TEMPLATE = pg_catalog.simple);
CREATE TEMP TABLE expressions AS SELECT * FROM (VALUES
	(1, $$pg_temp.evil('a')$$),
	(2, $$upper(lower(pg_temp.evil('a')))$$),
	(3, $$(SELECT pg_temp.evil(x) FROM generate_series(1, 1) AS g (n), LATERAL (VALUES ('a')) AS v (x) LIMIT 1)$$),
	(4, $$(SELECT * FROM pg_temp.evil_rows('a'))$$),
	(5, $$('a' OPERATOR(pg_temp.===) 'b')::text$$),
	(6, $$('a' OPERATOR(cqrs_es_temporary.===) 'b')::text$$),
	(7, $$('a'::text OPERATOR(pg_temp.===) ANY (ARRAY['b']))::text$$),
	(8, $$('a'::text IN (SELECT 'b'))::text || ('a'::text OPERATOR(pg_temp.===) ALL (SELECT 'b'))::text$$),
	(9, $$(SELECT pg_temp.evil_sum(x) FROM (VALUES ('a')) AS v (x))$$),
	(10, $$(SELECT pg_temp.evil_sum(x) OVER () FROM (VALUES ('a')) AS v (x))$$),
	(11, $$('{}'::jsonb::point)::text$$),
	(12, $$'a'::pg_temp.evil_domain$$),
	(13, $$lower('a')::pg_temp.evil_domain::text$$),
	(14, $$lower('a')::pg_temp.evil_enum::text$$),
	(15, $$(ARRAY[]::pg_temp.evil_domain[])::text$$),
	(16, $$(NULL::pg_temp.evil_enum)::text$$),
	(17, $$(ROW('a')::pg_temp.evil_row)::text$$),
	(18, $$(SELECT r.x FROM jsonb_to_record('{}') AS r (x pg_temp.evil_domain))$$),
	(19, $$(SELECT x FROM (VALUES ('a')) AS v (x) ORDER BY x COLLATE pg_temp.evil_collation LIMIT 1)$$),
	(20, $$nextval('pg_temp.evil_sequence')::text$$),
	(21, $$'pg_temp.evil_table'::regclass::text$$),
	(22, $$'pg_temp.evil(text)'::regprocedure::text$$),
	(23, $$'pg_temp.evil'::regproc::text$$),
	(24, $$'pg_temp.evil_domain'::regtype::text$$),
	(25, $$'pg_temp.===(text,text)'::regoperator::text$$),
	(26, $$'pg_temp.evil_collation'::regcollation::text$$),
	(27, $$to_tsvector('pg_temp.evil_config', 'a')::text$$),
	(28, $$ts_lexize('pg_temp.evil_dictionary', 'a')::text$$),
	(29, $$(SELECT t FROM pg_temp.evil_table)$$),
	(30, $$(SELECT t FROM pg_temp.evil_view)$$),
	(31, $$(SELECT t FROM evil_view)$$),
	(32, $$(SELECT t FROM innocent)$$),
	(33, $$(WITH w AS (SELECT pg_temp.evil('a') AS t) SELECT t FROM w)$$),
	(34, $$(SELECT x FROM (VALUES ('a')) AS v (x) GROUP BY x HAVING pg_temp.evil(x) = 'a')$$),
	(35, $$(SELECT x FROM (VALUES ('a')) AS v (x) LIMIT length(pg_temp.evil('a')))$$),
	(36, $$(SELECT x FROM XMLTABLE('/a' PASSING '<a/>' COLUMNS x pg_temp.evil_domain PATH '.'))$$),
	(37, $$(ROW('a'::text, 'b'::text) OPERATOR(pg_temp.<<<) ROW('a'::text, 'c'::text))::text$$),
	(38, $$(SELECT x FROM (VALUES ('a')) AS v (x) ORDER BY x USING OPERATOR(pg_temp.<<<) LIMIT 1)$$),
	(39, $$(SELECT t FROM kept TABLESAMPLE pg_temp.evil_method (100))$$),
	(40, format($$%L::regnamespace::text$$, pg_my_temp_schema()::regnamespace))) e (n, expression);
SELECT throws_ok(format('SELECT cqrs_es.define_handler(''temporary'', ''e'', %L)',
	format('INSERT INTO kept (id, t) VALUES (event.aggregate_id, %s)', expression)), '42P17', NULL, 'handler: ' || expression)
FROM expressions ORDER BY n;
SELECT throws_ok(format('SELECT cqrs_es.define_command(''temporary'', ''C'', %L)', format('to_jsonb((%s)::text)', expression)),
	'42P17', NULL, 'decider: ' || expression)
FROM expressions ORDER BY n;
SELECT throws_ok(format('SELECT cqrs_es.define_handler(''temporary'', ''e'', %L)', statement), '42P17', NULL, statement) FROM (VALUES
	(1, $$INSERT INTO evil_table VALUES (event.aggregate_id)$$),
	(2, $$DELETE FROM kept USING evil_table AS e WHERE e.t = kept.t$$),
	(3, $$INSERT INTO defaults (id) VALUES (event.aggregate_id)$$),
	(4, $$INSERT INTO kept (id) VALUES (event.aggregate_id) ON CONFLICT (id COLLATE pg_temp.evil_collation) DO NOTHING$$),
	(5, $$INSERT INTO kept (id) VALUES (event.aggregate_id) ON CONFLICT (id) DO UPDATE SET t = pg_temp.evil('a')$$),
	(6, $$UPDATE kept SET t = 'a' WHERE id OPERATOR(pg_temp.===) event.aggregate_id$$),
	(7, $$MERGE INTO kept USING (VALUES ('a')) AS v (x) ON id = x WHEN MATCHED THEN UPDATE SET t = pg_temp.evil('a')$$)) s (n, statement)
ORDER BY n;
SELECT is_empty('SELECT FROM cqrs_es.handlers WHERE projection = ''temporary''', 'nothing of all that is there');
SELECT lives_ok($$SELECT cqrs_es.define_handler('temporary', 'e', 'INSERT INTO kept (id, t)
	SELECT k.id, max(k.t) OVER () FROM kept AS k TABLESAMPLE bernoulli (50)
	WHERE ROW(k.id, k.t) < ROW(event.aggregate_id, ''a'') AND k.t = ANY (ARRAY[''a'', ''b'']) AND ''public''::regnamespace IS NOT NULL
	ORDER BY k.t COLLATE "C" ON CONFLICT (id) DO NOTHING')$$, 'the same of what stays is no matter');
SELECT cqrs_es.drop_handler('temporary', 'e') \gset

-- What stands in a registry all the same, from a dump for instance, is refused when it is to be run.

CREATE FUNCTION pg_temp.as_thief(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM pg_temp.as_role('cqrs_es_thief', call);
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN CASE SQLSTATE WHEN 'QE201' THEN substring(detail FROM 'SQLSTATE .....') ELSE SQLSTATE END;
END $$;
CREATE FUNCTION reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
CREATE FUNCTION up(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT payload';
CREATE FUNCTION handle(event cqrs_es.event) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT ''[]''::jsonb';
SELECT cqrs_es.define_reducer('temporary', 'e', 'reduce(jsonb, cqrs_es.event)'),
	cqrs_es.define_upcaster('old', '1', '2', 'up(jsonb)'),
	cqrs_es.define_handler('temporary', 'handled', 'handle(cqrs_es.event)'),
	cqrs_es.define_handler('temporary', 'stated', 'INSERT INTO kept (id) VALUES (event.aggregate_id)'),
	cqrs_es.define_command('temporary', 'C', 'decide(jsonb, jsonb)'::regprocedure) \gset
SELECT cqrs_es.append_event('temporary', 'a', 'e', '{}'), cqrs_es.append_event('temporary', 'a', 'old', '{}') \gset
SELECT pg_my_temp_schema()::regnamespace AS temp \gset
UPDATE cqrs_es.reducers SET function = replace(function, 'cqrs_es_temporary', :'temp') WHERE aggregate_type = 'temporary';
UPDATE cqrs_es.handlers SET function = replace(function, 'cqrs_es_temporary', :'temp'), statement = replace(statement, '(event', '(pg_temp.evil(event')  WHERE projection = 'temporary';
UPDATE cqrs_es.handlers SET statement = statement || ')' WHERE projection = 'temporary' AND statement IS NOT NULL;
UPDATE cqrs_es.commands SET decider = replace(decider, 'cqrs_es_temporary', 'pg_temp') WHERE aggregate_type = 'temporary';
SELECT is(pg_temp.as_thief(call), outcome, call) FROM (VALUES
	(1, '42P17', $$SELECT cqrs_es.aggregate_state('temporary', 'a')$$),
	(2, 'SQLSTATE 42P17', $$SELECT cqrs_es.append_event('temporary', 'b', 'handled', '{}')$$),
	(3, 'SQLSTATE 42P17', $$SELECT cqrs_es.append_event('temporary', 'b', 'stated', '{}')$$),
	(4, '42P17', $$SELECT cqrs_es.execute_command('temporary', 'c', 'C')$$)) c (n, outcome, call)
ORDER BY n;
UPDATE cqrs_es.upcasters SET function = replace(function, 'cqrs_es_temporary', :'temp') WHERE event_type = 'old';
SELECT is(pg_temp.as_thief($$SELECT cqrs_es.read_stream('temporary', 'a')$$), '42P17', 'and an upcaster');

-- What a name stands for after its object has been dropped.

UPDATE cqrs_es.upcasters SET function = replace(function, :'temp', 'cqrs_es_temporary') WHERE event_type = 'old';
CREATE FUNCTION helper(t text) RETURNS text LANGUAGE sql AS 'SELECT t';
CREATE FUNCTION pg_temp.helper(t text) RETURNS text LANGUAGE sql AS 'SELECT current_user';
CREATE OPERATOR !!! (FUNCTION = helper, RIGHTARG = text);
CREATE OPERATOR pg_temp.!!! (FUNCTION = pg_temp.helper, RIGHTARG = text);
CREATE TABLE looked_at (t text);
CREATE DOMAIN checked AS text;
SELECT cqrs_es.define_handler('temporary', 'function', 'INSERT INTO kept (id, t) VALUES (event.aggregate_id, helper(event.payload->>0))'),
	cqrs_es.define_handler('temporary', 'operator', 'INSERT INTO kept (id, t) VALUES (event.aggregate_id, !!! (event.payload->>0))'),
	cqrs_es.define_handler('temporary', 'table', 'INSERT INTO kept (id, t) SELECT event.aggregate_id, t FROM looked_at'),
	cqrs_es.define_handler('temporary', 'type', 'INSERT INTO kept (id, t) VALUES (event.aggregate_id, (event.payload->>0)::checked)') \gset
SELECT is(pg_temp.as_thief(format('SELECT cqrs_es.append_event(''temporary'', %L, %L, ''["x"]'')', type, type)), 'done', type || ': there')
FROM unnest('{function,operator,table,type}'::text[]) AS type;
CREATE TEMP TABLE looked_at (t text);
CREATE DOMAIN pg_temp.checked AS text;
SELECT is(pg_temp.as_thief(format('SELECT cqrs_es.append_event(''temporary'', %L, %L, ''["x"]'')', type || ' 2', type)), 'done', type || ': a temporary one beside it does not matter')
FROM unnest('{function,operator,table,type}'::text[]) AS type;
DROP OPERATOR cqrs_es_temporary.!!! (NONE, text);
DROP FUNCTION cqrs_es_temporary.helper(text);
DROP TABLE cqrs_es_temporary.looked_at;
DROP DOMAIN cqrs_es_temporary.checked;
SELECT is(pg_temp.as_thief(format('SELECT cqrs_es.append_event(''temporary'', %L, %L, ''["x"]'')', type || ' 3', type)), outcome, type || ': dropped')
FROM (VALUES ('function', 'SQLSTATE 42883'), ('operator', 'SQLSTATE 42883'), ('table', 'SQLSTATE 42P17'), ('type', 'SQLSTATE 42P17')) t (type, outcome);

-- What is hung on a real table or domain is by oid, and its owner's: it is nobody else's in another session.

CREATE DOMAIN bounded AS text CHECK (pg_temp.evil(VALUE) IS NOT NULL);
SELECT lives_ok($$SELECT cqrs_es.define_handler('temporary', 'type', 'INSERT INTO kept (id, t) VALUES (event.aggregate_id, (event.payload->>0)::bounded)')$$,
	'a domain whose check calls a temporary function is not temporary');

-- The search_path that is kept has pg_temp at its end, wherever it stood.

SET LOCAL search_path = pg_temp, cqrs_es_temporary, public;
SELECT cqrs_es.define_handler('temporary', 'path', 'INSERT INTO cqrs_es_temporary.kept (id) VALUES (event.aggregate_id)') \gset
SELECT is((SELECT search_path FROM cqrs_es.handlers WHERE projection = 'temporary' AND event_type = 'path'), 'cqrs_es_temporary, public, pg_temp', 'pg_temp comes last');
SET LOCAL search_path = cqrs_es_temporary, public;

-- A function is kept by its name. Whose that is:

CREATE FUNCTION named(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state || ''{"by": "owner"}''';
SELECT cqrs_es.define_reducer('temporary', 'named', 'named(jsonb, cqrs_es.event)'), cqrs_es.append_event('temporary', 'named', 'named', '{}') \gset
GRANT CREATE ON SCHEMA cqrs_es_temporary TO cqrs_es_other;
CREATE FUNCTION pg_temp.create_named(by text) RETURNS text LANGUAGE sql AS
	$$SELECT format('CREATE OR REPLACE FUNCTION cqrs_es_temporary.named(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS %L', 'SELECT state || ' || quote_literal(format('{"by": "%s"}', by)))$$;
SELECT throws_ok(format($$SELECT pg_temp.as_role('cqrs_es_other', %L)$$, call), state, NULL, state || ': ' || left(call, 40)) FROM (VALUES
	(1, '42501', pg_temp.create_named('other')),
	(2, '42501', 'DROP FUNCTION cqrs_es_temporary.named(jsonb, cqrs_es.event)'),
	(3, '42501', 'ALTER FUNCTION cqrs_es_temporary.named(jsonb, cqrs_es.event) RENAME TO old')) c (n, state, call)
ORDER BY n;
ALTER SCHEMA cqrs_es_temporary OWNER TO cqrs_es_other;
SELECT throws_ok($$SELECT pg_temp.as_role('cqrs_es_other', 'DROP SCHEMA cqrs_es_temporary CASCADE')$$, '2BP01', NULL, 'nor does it go with a schema of another role');
SELECT pg_temp.create_named('owner again') AS call \gset
:call;
SELECT is(cqrs_es.aggregate_state('temporary', 'named')->>'by', 'owner again', 'its owner may replace it');
SELECT throws_ok($$ALTER FUNCTION named(jsonb, cqrs_es.event) RENAME TO old$$, '2BP01', NULL, 'and the place is not given away');

SELECT * FROM finish();
ROLLBACK;
