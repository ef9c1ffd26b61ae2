\i test/include/setup.sql
-- A table of states tells aggregates apart byte by byte, or is refused.
BEGIN;
SELECT plan(55);
SELECT cqrs_es.create_aggregate('keyed', '{"n": 0}') IS NULL AS x, cqrs_es.define_reducer('keyed', 'e', '[{"op": "increment", "path": "/n"}]') IS NULL AS y \gset
CREATE FUNCTION pg_temp.append(id text, tenant text DEFAULT '') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('cqrs_es.tenant_id', tenant, true), cqrs_es.append_event('keyed', id, 'e', '{}');
	PERFORM set_config('cqrs_es.tenant_id', '', true);
END $$;
CREATE EXTENSION IF NOT EXISTS citext SCHEMA public;
CREATE COLLATION no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE COLLATION icu_bytes (provider = icu, locale = 'und');
CREATE DOMAIN an_id AS text CHECK (value <> '');
CREATE DOMAIN loose_id AS citext;
CREATE DOMAIN loose_text AS text COLLATE no_case;

-- which tables

CREATE FUNCTION pg_temp.create_keyed(columns text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE keyed_states (%s, version bigint, payload jsonb)', columns);
	EXECUTE $q$SELECT cqrs_es.create_projection('keyed', read_models => '{keyed_states}', state_of => 'keyed')$q$;
	PERFORM pg_temp.append('Ab'), pg_temp.append('ab'), pg_temp.append('ab'), pg_temp.append(E'a\u0308'), pg_temp.append('ä'), pg_temp.append('ab ');
	PERFORM cqrs_es.drop_projection('keyed');
	EXECUTE 'DROP TABLE keyed_states';
END $$;
SELECT throws_ok(format('SELECT pg_temp.create_keyed(%L)', columns), '42804', message, columns) FROM (VALUES
	(1, 'view_id citext PRIMARY KEY', 'column "view_id" of table public.keyed_states is of type citext'),
	(2, 'view_id loose_id PRIMARY KEY', 'column "view_id" of table public.keyed_states is of type citext'),
	(3, 'view_id char(10) PRIMARY KEY', 'column "view_id" of table public.keyed_states is of type character'),
	(5, 'view_id uuid PRIMARY KEY', 'column "view_id" of table public.keyed_states is of type uuid'),
	(8, 'view_id text, tenant_id integer, PRIMARY KEY (view_id, tenant_id)', 'column "tenant_id" of table public.keyed_states is of type integer'),
	(4, 'view_id name PRIMARY KEY', 'column "view_id" of table public.keyed_states is of type name'),
	(6, 'view_id text, tenant_id citext, PRIMARY KEY (view_id, tenant_id)', 'column "tenant_id" of table public.keyed_states is of type citext'),
	(7, 'view_id text, tenant_id char(3), PRIMARY KEY (view_id, tenant_id)', 'column "tenant_id" of table public.keyed_states is of type character')) v (n, columns, message) ORDER BY n;
SELECT throws_ok(format('SELECT pg_temp.create_keyed(%L)', columns), '42P21', message, columns) FROM (VALUES
	(1, 'view_id text COLLATE no_case PRIMARY KEY', 'column "view_id" of table public.keyed_states has a collation that is not deterministic'),
	(2, 'view_id varchar(20) COLLATE no_case PRIMARY KEY', 'column "view_id" of table public.keyed_states has a collation that is not deterministic'),
	(3, 'view_id loose_text PRIMARY KEY', 'column "view_id" of table public.keyed_states has a collation that is not deterministic'),
	(4, 'view_id text, tenant_id text COLLATE no_case, UNIQUE (tenant_id, view_id)', 'column "tenant_id" of table public.keyed_states has a collation that is not deterministic')) v (n, columns, message) ORDER BY n;
SELECT lives_ok(format('SELECT pg_temp.create_keyed(%L)', columns), columns) FROM (VALUES
	(1, 'view_id text PRIMARY KEY'), (2, 'view_id text COLLATE icu_bytes PRIMARY KEY'), (3, 'view_id varchar UNIQUE'), (4, 'view_id varchar(1024) PRIMARY KEY'), (5, 'view_id an_id PRIMARY KEY'), (6, 'view_id text COLLATE "C", tenant_id varchar COLLATE "POSIX", PRIMARY KEY (view_id, tenant_id)')) v (n, columns) ORDER BY n;
SELECT throws_ok(format('SELECT pg_temp.create_keyed(%L)', columns), '55000', message, columns) FROM (VALUES
	(1, 'view_id text PRIMARY KEY DEFERRABLE', 'constraint "keyed_states_pkey" of table public.keyed_states is deferrable'),
	(2, 'view_id text PRIMARY KEY, UNIQUE (view_id) DEFERRABLE INITIALLY DEFERRED', 'constraint "keyed_states_view_id_key" of table public.keyed_states is deferrable'),
	(3, 'view_id text, tenant_id text, UNIQUE (tenant_id, view_id) DEFERRABLE', 'constraint "keyed_states_tenant_id_view_id_key" of table public.keyed_states is deferrable')) v (n, columns, message) ORDER BY n;
SELECT lives_ok($$SELECT pg_temp.create_keyed('view_id text PRIMARY KEY, UNIQUE (view_id, version) DEFERRABLE')$$, 'a deferrable one on more than that');
SELECT lives_ok($$SELECT pg_temp.create_keyed('view_id text PRIMARY KEY, other bigint UNIQUE DEFERRABLE')$$, 'and on another column');
CREATE TABLE keyed_states (view_id text PRIMARY KEY, version bigint, payload jsonb);
SELECT cqrs_es.create_projection('keyed', read_models => '{keyed_states}', state_of => 'keyed') IS NULL AS x \gset
ALTER TABLE keyed_states DROP CONSTRAINT keyed_states_pkey, ADD PRIMARY KEY (view_id) DEFERRABLE;
SELECT matches(errors[1], 'constraint "keyed_states_pkey" of table public.keyed_states is deferrable', 'one that became so is shown') FROM cqrs_es.projection_status WHERE name = 'keyed';
ALTER TABLE keyed_states DROP CONSTRAINT keyed_states_pkey, ADD PRIMARY KEY (view_id);
SELECT is(errors, NULL, 'and one that is not any more is right') FROM cqrs_es.projection_status WHERE name = 'keyed';
SELECT cqrs_es.drop_projection('keyed') IS NULL AS x \gset
DROP TABLE keyed_states;

-- which indexes

CREATE FUNCTION pg_temp.index_keyed(index text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	CREATE TABLE keyed_states (view_id text, version bigint, payload jsonb);
	EXECUTE format('CREATE UNIQUE INDEX ON keyed_states (%s)', index);
	EXECUTE $q$SELECT cqrs_es.create_projection('keyed', read_models => '{keyed_states}', state_of => 'keyed')$q$;
	PERFORM pg_temp.append('Ab'), pg_temp.append('ab');
	PERFORM cqrs_es.drop_projection('keyed');
	DROP TABLE keyed_states;
END $$;
SELECT lives_ok(format('SELECT pg_temp.index_keyed(%L)', index), index) FROM unnest(ARRAY['view_id', 'view_id text_pattern_ops', 'view_id COLLATE "C"', 'view_id DESC']) index;
SELECT throws_ok(format('SELECT pg_temp.index_keyed(%L)', 'view_id COLLATE no_case'), '42P21', 'index "keyed_states_view_id_idx" of table public.keyed_states has a collation that is not deterministic', 'view_id COLLATE no_case');
CREATE FUNCTION loose_cmp(a text, b text) RETURNS integer LANGUAGE sql IMMUTABLE STRICT AS $$SELECT bttextcmp(lower(a), lower(b))$$;
CREATE FUNCTION loose_eq(a text, b text) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS $$SELECT lower(a) = lower(b)$$;
CREATE OPERATOR public.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = loose_eq);
CREATE OPERATOR CLASS loose_ops FOR TYPE text USING btree AS OPERATOR 3 public.=== (text, text), FUNCTION 1 loose_cmp(text, text);
SELECT throws_ok($$SELECT pg_temp.index_keyed('view_id loose_ops')$$, '42804', 'index "keyed_states_view_id_idx" of table public.keyed_states has an operator class of its own', 'view_id loose_ops');

-- what looks right, or did: the row itself is asked, byte by byte

CREATE TABLE keyed_states (view_id text PRIMARY KEY, version bigint, payload jsonb);
SELECT cqrs_es.create_projection('keyed', read_models => '{keyed_states}', state_of => 'keyed') IS NULL AS x \gset
CREATE FUNCTION lower_id() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.view_id := lower(NEW.view_id); RETURN NEW; END$$;
CREATE TRIGGER lower_id BEFORE INSERT ON keyed_states FOR EACH ROW EXECUTE FUNCTION lower_id();
SELECT lives_ok($$SELECT pg_temp.append('trigger')$$, 'a trigger that changes nothing of an id');
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('Trigger')$$))[1:3], ARRAY['QE201', 'projection "keyed" failed on event 1 (e) of stream "keyed/Trigger"', E'table public.keyed_states does not tell aggregates apart (SQLSTATE 23000)\nThe row of aggregate "Trigger" is not its own, byte by byte.'], 'and one that it changes to that of another');
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('Alone')$$))[1], 'QE201', 'or to one that nobody has yet');
DROP TRIGGER lower_id ON keyed_states;
SELECT lives_ok($$SELECT pg_temp.append('Alone')$$, 'without it');
ALTER TABLE keyed_states ALTER view_id TYPE citext;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('aLONE')$$))[1:2], ARRAY['QE201', 'projection "keyed" failed on event 1 (e) of stream "keyed/aLONE"'], 'altered to citext');
SELECT is(errors, ARRAY['column "view_id" of table public.keyed_states is of type citext (SQLSTATE 42804)'], 'the status says so') FROM cqrs_es.projection_status WHERE name = 'keyed';
SELECT lives_ok($$SELECT pg_temp.append('Alone')$$, 'those that were there go on');
ALTER TABLE keyed_states ALTER view_id TYPE text COLLATE no_case;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('aLONE')$$))[1], 'QE201', 'altered to a collation without case');
ALTER TABLE keyed_states ALTER view_id TYPE varchar(7);
SELECT lives_ok($$SELECT pg_temp.append('seven..')$$, 'seven characters');
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('seven.. ')$$))[1], 'QE201', 'seven and a blank, which varchar cuts off');
ALTER TABLE keyed_states ALTER view_id TYPE text, ADD COLUMN tenant_id varchar(1) DEFAULT '', DROP CONSTRAINT keyed_states_pkey, ADD PRIMARY KEY (view_id, tenant_id);
SELECT lives_ok($$SELECT pg_temp.append('tenants', 't')$$, 'a tenant');
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('tenants', 't ')$$))[1], 'QE201', 'and one that is cut to it');
SELECT results_eq($$SELECT tenant_id::text, version, payload FROM keyed_states WHERE view_id = 'tenants'$$, $$VALUES ('t', 1::bigint, '{"n": 1}'::jsonb)$$, 'whose state is not in it');
ALTER TABLE keyed_states ALTER tenant_id TYPE text;
SELECT lives_ok($$SELECT pg_temp.append('tenants', 't ')$$, 'with room for both');

-- a row that somebody else wrote meanwhile is the one that counts

SELECT pg_temp.append('row') IS NULL AS x FROM generate_series(1, 3) \g /dev/null
UPDATE keyed_states SET payload = '{"n": 100}' WHERE view_id = 'row';
SELECT pg_temp.append('row') IS NULL AS x \gset
SELECT results_eq($$SELECT version, payload FROM keyed_states WHERE view_id = 'row'$$, $$VALUES (4::bigint, '{"n": 101}'::jsonb)$$, 'changed by hand');
DELETE FROM keyed_states WHERE view_id = 'row';
SELECT pg_temp.append('row') IS NULL AS x \gset
SELECT results_eq($$SELECT version, payload FROM keyed_states WHERE view_id = 'row'$$, $$VALUES (5::bigint, '{"n": 5}'::jsonb)$$, 'deleted by hand');
SAVEPOINT s;
SELECT pg_temp.append('row') IS NULL AS x FROM generate_series(1, 3) \g /dev/null
ROLLBACK TO s;
SELECT pg_temp.append('row') IS NULL AS x \gset
SELECT results_eq($$SELECT version, payload FROM keyed_states WHERE view_id = 'row'$$, $$VALUES (6::bigint, '{"n": 6}'::jsonb)$$, 'rolled back');
UPDATE keyed_states SET version = 2, payload = '{"n": 2}' WHERE view_id = 'row';
SELECT pg_temp.append('row') IS NULL AS x \gset
SELECT results_eq($$SELECT version, payload FROM keyed_states WHERE view_id = 'row'$$, $$VALUES (7::bigint, '{"n": 7}'::jsonb)$$, 'an old version: replayed');
TRUNCATE keyed_states;
SELECT pg_temp.append('row') IS NULL AS x FROM generate_series(1, 2) \g /dev/null
SELECT results_eq($$SELECT version, payload FROM keyed_states WHERE view_id = 'row'$$, $$VALUES (9::bigint, '{"n": 9}'::jsonb)$$, 'truncated');
ALTER TABLE keyed_states ALTER version TYPE numeric;
SELECT pg_temp.append('row') IS NULL AS x FROM generate_series(1, 2) \g /dev/null
SELECT pg_temp.append('other') IS NULL AS x FROM generate_series(1, 2) \g /dev/null
SELECT pg_temp.append('row') IS NULL AS x FROM generate_series(1, 2) \g /dev/null
SELECT results_eq($$SELECT version, payload FROM keyed_states WHERE view_id = 'row'$$, $$VALUES (13::numeric, '{"n": 13}'::jsonb)$$, 'rewritten, and another stream between');
SELECT cqrs_es.drop_projection('keyed') IS NULL AS x \gset
-- partitions have rows with equal places
DROP TABLE keyed_states;
CREATE TABLE keyed_states (view_id text PRIMARY KEY, version bigint, payload jsonb) PARTITION BY HASH (view_id);
CREATE TABLE keyed_states_0 PARTITION OF keyed_states FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE keyed_states_1 PARTITION OF keyed_states FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT cqrs_es.create_projection('keyed', read_models => '{keyed_states}', state_of => 'keyed') IS NULL AS x \gset
SELECT pg_temp.append('p' || i % 7) IS NULL AS x FROM generate_series(1, 70) i \g /dev/null
SELECT pg_temp.append('p' || i / 10) IS NULL AS x FROM generate_series(0, 69) i \g /dev/null
SELECT results_eq($$SELECT count(*), payload, version FROM keyed_states GROUP BY 2, 3$$, $$VALUES (7::bigint, '{"n": 20}'::jsonb, 20::bigint)$$, 'partitions');

-- how often the table is searched, and what stays on its rows

CREATE TABLE counted_states (view_id text PRIMARY KEY, version bigint, payload jsonb);
SELECT cqrs_es.create_projection('counted', read_models => '{counted_states}', state_of => 'keyed') IS NULL AS x \gset
SELECT pg_temp.append('counted') IS NULL AS x FROM generate_series(1, 500) \g /dev/null
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'keyed', 'counted', 'e', '{}' FROM generate_series(1, 500);
SELECT cqrs_es.append_events('keyed', 'counted', (SELECT jsonb_agg('{"type": "e", "payload": {}}'::jsonb) FROM generate_series(1, 500))) IS NULL AS x \gset
DO $$BEGIN FOR i IN 1 .. 500 LOOP BEGIN PERFORM cqrs_es.append_event('keyed', 'counted', 'e', '{}'); EXCEPTION WHEN division_by_zero THEN END; END LOOP; END$$;
SELECT is((SELECT version FROM counted_states), 2000::bigint, 'two thousand events of one stream in one transaction');
SELECT cmp_ok((SELECT idx_scan + seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'counted_states'), '<', 20::bigint, 'search for its row once');
SELECT is((SELECT xmax::text FROM counted_states), '0', 'and leave no lock on it');
SELECT finish();
ROLLBACK;
