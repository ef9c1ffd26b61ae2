\i test/include/setup.sql
-- The ready-made projection that keeps the states of aggregates in a table.
BEGIN;
SELECT plan(54);
CREATE FUNCTION pg_temp.append(id text, event_type text, payload jsonb DEFAULT '{}', type text DEFAULT 'state') RETURNS void LANGUAGE sql AS $$
	SELECT cqrs_es.append_event(type, id, event_type, payload) $$;
-- rows of a table of states that are not what a replay says, and streams that have no row
CREATE FUNCTION pg_temp.differences(states regclass, type text, tenant text DEFAULT NULL) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	IF tenant IS NOT NULL THEN
		PERFORM set_config('cqrs_es.tenant_id', tenant, true);
	END IF;
	RETURN QUERY EXECUTE format($q$
		SELECT format('%%s: %%s %%s instead of %%s %%s', e.aggregate_id, s.version, s.payload, l.version, l.state)
		FROM (SELECT DISTINCT aggregate_id FROM cqrs_es.events WHERE aggregate_type = $1 AND tenant_id = cqrs_es.current_tenant()) AS e
		FULL JOIN (SELECT view_id::text, version::bigint, payload::jsonb FROM %s AS s %s) AS s ON view_id = aggregate_id
		LEFT JOIN LATERAL cqrs_es.load_aggregate($1, aggregate_id) AS l ON true
		WHERE (s.version, s.payload) IS DISTINCT FROM (l.version, l.state)$q$,
		states, CASE WHEN tenant IS NULL THEN '' ELSE 'WHERE tenant_id = cqrs_es.current_tenant()' END) USING type;
END $$;
CREATE FUNCTION longest(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
	SELECT state || jsonb_build_object('longest', greatest(length(state->>'longest'), length((event).payload->>'word'))) $$;
SELECT cqrs_es.create_aggregate(type, '{"n": 0, "log": []}', snapshot_every => 5) IS NULL AS x FROM unnest('{state,tenants,old,narrow}'::text[]) type
\g /dev/null
SELECT cqrs_es.define_reducer(type, 'added', '[{"op": "increment", "path": "/n", "from": "/n"}, {"op": "append", "path": "/log", "from": "sequence"}]') IS NULL AS x,
	cqrs_es.define_reducer(type, 'said', 'longest(jsonb, cqrs_es.event)') IS NULL AS y FROM unnest('{state,tenants,old,narrow}'::text[]) type
\g /dev/null

-- which tables

CREATE TABLE states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
CREATE TABLE no_version (view_id text PRIMARY KEY, payload jsonb);
CREATE TABLE no_index (view_id text, version bigint, payload jsonb);
CREATE TABLE wrong_index (view_id text, tenant_id text, version bigint, payload jsonb, PRIMARY KEY (view_id));
CREATE TABLE wrong_type (view_id text PRIMARY KEY, version bigint, payload integer);
CREATE TABLE by_uuid (view_id uuid PRIMARY KEY, version bigint, payload jsonb);
CREATE VIEW state_view AS SELECT * FROM states;
SELECT is((pg_temp.error_of(format('SELECT cqrs_es.create_projection(%L, read_models => %L, state_of => %L)', 'p', read_models, state_of)))[1], state, format('%s of %s: %s', read_models, state_of, state))
FROM (VALUES (1, '{no_version}', 'state', '42703'), (2, '{no_index}', 'state', '42P10'), (3, '{wrong_index}', 'state', '42P10'), (4, '{wrong_type}', 'state', '42846'), (5, '{by_uuid}', 'state', '42804'),
	(6, '{state_view}', 'state', '42809'), (7, '{states}', 'undeclared', 'QE101'), (8, '{states}', '', '22023'), (9, '{}', 'state', '22023'), (10, NULL, 'state', '22023'),
	(11, '{states,states}', 'state', '22023'), (12, '{NULL}', 'state', '22004')) t (n, read_models, state_of, state) ORDER BY n;
SELECT is((pg_temp.error_of(format('SELECT cqrs_es.create_projection(%L, read_models => %L, state_of => %L)', 'p', read_models, 'state')))[2:4], said, format('of %s it is said what to do', read_models))
FROM (VALUES ('{no_index}', '{table public.no_index has no unique index on just view_id,Without one an aggregate could have several rows.,ALTER TABLE public.no_index ADD PRIMARY KEY (view_id)}'::text[]),
	('{wrong_index}', '{"table public.wrong_index has no unique index on just tenant_id, view_id",Without one an aggregate could have several rows.,"ALTER TABLE public.wrong_index ADD PRIMARY KEY (tenant_id, view_id)"}')) t (read_models, said);
SELECT throws_ok($$SELECT cqrs_es.create_projection('p', '{state}', '{states}', 'state')$$, '22023', NULL, 'with aggregate types of its own');
SELECT lives_ok($$SELECT cqrs_es.create_projection('states', read_models => '{states}', state_of => 'state')$$, 'a good one');
SELECT throws_ok($$SELECT cqrs_es.define_handler('states', 'added', 'DELETE FROM states')$$, '55000', NULL, 'it gets no handlers');

-- every row is what a replay says, whatever is appended, in whatever way

SELECT setseed(0.5) IS NULL AS x \gset
CREATE FUNCTION pg_temp.at_random(type text, streams integer, n integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE id text; events jsonb;
BEGIN
	FOR i IN 1 .. n LOOP
		id := 'stream ' || floor(random() * streams);
		SELECT jsonb_agg(CASE floor(random() * 3)
			WHEN 0 THEN jsonb_build_object('type', 'added', 'payload', jsonb_build_object('n', floor(random() * 100)))
			WHEN 1 THEN jsonb_build_object('type', 'said', 'payload', jsonb_build_object('word', repeat('x', (random() * 20)::int)))
			ELSE jsonb_build_object('type', 'merged', 'payload', jsonb_build_object('key' || floor(random() * 4), CASE WHEN random() < 0.3 THEN NULL ELSE floor(random() * 9) END)) END)
		INTO events FROM generate_series(0, (random() * 6)::int);
		BEGIN
			IF random() < 0.5 THEN
				PERFORM cqrs_es.append_events(type, id, events);
			ELSE
				INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
				SELECT type, CASE WHEN random() < 0.8 THEN id ELSE 'stream x' END, e->>'type', e->'payload' FROM jsonb_array_elements(events) e;
			END IF;
			IF random() < 0.2 THEN
				RAISE sqlstate 'P0ABC';
			END IF;
		EXCEPTION WHEN sqlstate 'P0ABC' THEN
		END;
	END LOOP;
END $$;
SELECT pg_temp.at_random('state', 5, 150) IS NULL AS x \gset
SELECT cmp_ok(count(*), '>', 300::bigint, 'hundreds of events') FROM cqrs_es.events WHERE aggregate_type = 'state';
SELECT is_empty($$SELECT pg_temp.differences('states', 'state')$$, 'each row is what a replay of its stream says');

-- a row that is not there, or not as it was left

DELETE FROM states WHERE view_id = 'stream 1';
SELECT pg_temp.append('stream 1', 'added', '{"n": 1}') IS NULL AS x \gset
SELECT is_empty($$SELECT pg_temp.differences('states', 'state')$$, 'a row that was deleted is made anew by the next event');
UPDATE states SET version = version - 3, payload = '{}' WHERE view_id = 'stream 2';
SELECT pg_temp.append('stream 2', 'added', '{"n": 1}') IS NULL AS x \gset
SELECT is_empty($$SELECT pg_temp.differences('states', 'state')$$, 'one that was set back, too');
ALTER TABLE states ALTER payload DROP NOT NULL, ALTER version DROP NOT NULL;
UPDATE states SET payload = CASE view_id WHEN 'stream 0' THEN payload END, version = CASE view_id WHEN 'stream 2' THEN version END WHERE view_id IN ('stream 0', 'stream 2');
SELECT pg_temp.append('stream 0', 'added', '{"n": 1}') IS NULL AS x, pg_temp.append('stream 2', 'added', '{"n": 1}') IS NULL AS y \gset
SELECT is_empty($$SELECT pg_temp.differences('states', 'state')$$, 'and one without a state or a version');
UPDATE states SET version = version + 2 WHERE view_id = 'stream 3' RETURNING payload AS before \gset
SELECT pg_temp.append('stream 3', 'added', '{"n": 1}') IS NULL AS x \gset
SELECT is(payload::text, :'before', 'one that was set forward is left alone until the stream is there') FROM states WHERE view_id = 'stream 3';
SELECT pg_temp.append('stream 3', 'added', '{"n": 1}') IS NULL AS x, pg_temp.append('stream 3', 'added', '{"n": 1}') IS NULL AS y \gset
UPDATE states SET payload = '{"n": -1, "log": [], "by": "hand"}' WHERE view_id = 'stream 4';
SELECT pg_temp.append('stream 4', 'added', '{"n": 2}') IS NULL AS x \gset
SELECT is(payload->'n', '1', 'a payload that was changed by hand is gone on with') FROM states WHERE view_id = 'stream 4';
SELECT isnt_empty($$SELECT pg_temp.differences('states', 'state')$$, 'so it differs');
SELECT cqrs_es.rebuild_projection('states') IS NULL AS x \gset
SELECT is_empty($$SELECT pg_temp.differences('states', 'state')$$, 'until it is rebuilt');
CREATE TABLE writes (n serial);
CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.writes DEFAULT VALUES; RETURN NULL; END$$;
CREATE TRIGGER writes AFTER INSERT OR UPDATE ON states FOR EACH ROW EXECUTE FUNCTION note_write();
SELECT cqrs_es.rebuild_projection('states') IS NULL AS x \gset
SELECT is((SELECT count(*) FROM writes), (SELECT count(*) FROM states), 'a rebuild writes each row once');
DROP TRIGGER writes ON states;

-- younger than the streams

CREATE TABLE old_states (LIKE states INCLUDING ALL);
SELECT pg_temp.at_random('old', 3, 20) IS NULL AS x \gset
SELECT cqrs_es.create_projection('old', read_models => '{old_states}', state_of => 'old') IS NULL AS x \gset
SELECT pg_temp.append('stream ' || i, 'added', '{"n": 1}', 'old') IS NULL AS x FROM generate_series(0, 2) i
\g /dev/null
SELECT pg_temp.append('stream x', 'added', '{"n": 1}', 'old') IS NULL AS x \gset
SELECT is_empty($$SELECT pg_temp.differences('old_states', 'old')$$, 'a projection younger than its streams has their states after the next event');

-- tenants

CREATE TABLE tenant_states (view_id text, tenant_id text, version bigint, payload jsonb, PRIMARY KEY (tenant_id, view_id));
SELECT cqrs_es.create_projection('tenants', read_models => '{tenant_states}', state_of => 'tenants') IS NULL AS x \gset
SET LOCAL cqrs_es.tenant_id = 'a';
SELECT pg_temp.at_random('tenants', 2, 20) IS NULL AS x \gset
SET LOCAL cqrs_es.tenant_id = 'b';
SELECT pg_temp.at_random('tenants', 2, 20) IS NULL AS x \gset
SET LOCAL cqrs_es.tenant_id = '';
SELECT pg_temp.at_random('tenants', 2, 20) IS NULL AS x \gset
SELECT is_empty(format('SELECT pg_temp.differences(%L, %L, %L)', 'tenant_states', 'tenants', tenant), format('tenant "%s"', tenant)) FROM (VALUES (1, 'a'), (2, 'b'), (3, '')) t (n, tenant) ORDER BY n;
SET LOCAL cqrs_es.tenant_id = 'b';
SELECT cqrs_es.rebuild_projection('tenants') IS NULL AS x \gset
SELECT is_empty(format('SELECT pg_temp.differences(%L, %L, %L)', 'tenant_states', 'tenants', tenant), format('tenant "%s", rebuilt by another', tenant)) FROM (VALUES (1, 'a'), (2, 'b'), (3, '')) t (n, tenant) ORDER BY n;
SELECT is((pg_temp.error_of($$SELECT set_config('cqrs_es.tenant_id', 'a', true), pg_temp.append('tenant', 'added', '{"n": 1}')$$))[1:3],
	ARRAY['QE201', 'projection "states" failed on event 1 (added) of stream "state/tenant"', 'table public.states does not tell tenants apart (SQLSTATE 55000)'], 'a table without tenants refuses theirs');
RESET cqrs_es.tenant_id;
ALTER TABLE states ADD COLUMN tenant_id text NOT NULL DEFAULT '', DROP CONSTRAINT states_pkey, ADD PRIMARY KEY (tenant_id, view_id);
SET LOCAL cqrs_es.tenant_id = 'a';
SELECT pg_temp.append('tenant', 'added', '{"n": 1}') IS NULL AS x \gset
RESET cqrs_es.tenant_id;
SELECT pg_temp.append('tenant', 'added', '{"n": 2}') IS NULL AS x \gset
SELECT results_eq($$SELECT tenant_id, payload->'n' FROM states WHERE view_id = 'tenant' ORDER BY 1$$, $$VALUES ('', '2'::jsonb), ('a', '1')$$, 'with a column for them it does');

-- other types, other names, other tables

CREATE TABLE narrow_states (payload json, note text DEFAULT 'mine', version integer, view_id varchar(100) UNIQUE);
SELECT cqrs_es.create_projection('narrow', read_models => '{narrow_states}', state_of => 'narrow') IS NULL AS x \gset
SELECT pg_temp.at_random('narrow', 2, 10) IS NULL AS x \gset
SELECT is_empty($$SELECT pg_temp.differences('narrow_states', 'narrow')$$, 'json and integer');
ALTER TABLE narrow_states ALTER payload TYPE text, ADD COLUMN more integer DEFAULT 3;
SELECT pg_temp.at_random('narrow', 2, 10) IS NULL AS x \gset
SELECT is_empty($$SELECT pg_temp.differences('narrow_states', 'narrow')$$, 'altered to text, with a column more');
CREATE SCHEMA elsewhere;
ALTER TABLE narrow_states RENAME TO renamed_states;
ALTER TABLE renamed_states SET SCHEMA elsewhere;
CREATE TABLE narrow_states (LIKE states);
SELECT pg_temp.at_random('narrow', 2, 10) IS NULL AS x \gset
SELECT is_empty($$SELECT pg_temp.differences('elsewhere.renamed_states', 'narrow')$$, 'a table that is renamed is followed');
SELECT is_empty('SELECT view_id FROM narrow_states', 'one that takes its name is not');
SAVEPOINT s;
ALTER TABLE elsewhere.renamed_states RENAME payload TO load;
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('stream 1', 'added', '{"n": 1}', 'narrow')$$))[1], 'QE201', 'without a column the append fails: ' || i) FROM generate_series(1, 3) i;
SELECT is(errors, ARRAY['table elsewhere.renamed_states has no column "payload" (SQLSTATE 42703)'], 'and the status says so') FROM cqrs_es.projection_status WHERE name = 'narrow';
ROLLBACK TO s;
ALTER EVENT TRIGGER cqrs_es_protect_declared DISABLE;
DROP TABLE elsewhere.renamed_states;
ALTER EVENT TRIGGER cqrs_es_protect_declared ENABLE;
SELECT cmp_ok((pg_temp.error_of($$SELECT pg_temp.append('stream 1', 'added', '{"n": 1}', 'narrow')$$))[1:3], '@>', ARRAY['QE201', 'the table of the projection does not exist any more (SQLSTATE 42P01)'], 'without the table, too');
SELECT cqrs_es.drop_projection('narrow') IS NULL AS x \gset

-- the aggregate type is dropped

SELECT throws_ok($$SELECT cqrs_es.drop_aggregate('old')$$, '2BP01', 'cannot drop aggregate type "old" because a projection keeps its states', 'not while a projection needs it');
DELETE FROM cqrs_es.aggregates WHERE aggregate_type = 'old';
SELECT is((pg_temp.error_of($$SELECT pg_temp.append('stream 1', 'added', '{"n": 1}', 'old')$$))[1:2], ARRAY['QE101', 'aggregate type "old" is not declared'], 'an append fails when the aggregate type is not declared any more');
SELECT is(errors, ARRAY['aggregate type "old" is not declared (SQLSTATE QE101)'], 'the status says so') FROM cqrs_es.projection_status WHERE name = 'old';

-- plans that could be made by half only are not kept, nor taken for good ones

SELECT cqrs_es.create_aggregate('half') IS NULL AS x \gset
CREATE TABLE half (view_id text PRIMARY KEY, version bigint, payload jsonb);
SELECT cqrs_es.create_projection('half', read_models => '{half}', state_of => 'half') IS NULL AS x \gset
ALTER TABLE half ALTER payload TYPE text, ALTER payload SET NOT NULL;
ALTER TABLE half ALTER version TYPE date USING NULL;
CREATE FUNCTION pg_temp.three_appends() RETURNS text LANGUAGE plpgsql AS $$
DECLARE results text[];
BEGIN
	FOR i IN 1 .. 3 LOOP
		BEGIN
			PERFORM cqrs_es.append_event('half', 'a', 'e', '{}');
			results := results || 'done'::text;
		EXCEPTION WHEN OTHERS THEN
			results := results || SQLSTATE;
		END;
	END LOOP;
	RETURN array_to_string(results, ' ');
END $$;
SELECT is(pg_temp.three_appends(), 'QE201 QE201 QE201', 'a version that is a date');
ALTER TABLE half ALTER version TYPE bigint USING NULL;
ALTER TABLE half DROP CONSTRAINT half_pkey, ALTER view_id TYPE varchar;
SELECT is(pg_temp.three_appends(), 'QE201 QE201 QE201', 'no unique index');
ALTER TABLE half ADD PRIMARY KEY (view_id);
ALTER TABLE half ALTER version TYPE bit(64) USING version::bit(64);
SELECT is(pg_temp.three_appends(), 'QE201 QE201 QE201', 'a version that is a string of bits');
ALTER TABLE half ALTER version TYPE bigint USING NULL;
SELECT is(pg_temp.three_appends(), 'done done done', 'a table that is as it should be again');
SELECT throws_ok($$INSERT INTO cqrs_es.projections (name, owner_name, state_of) VALUES ('by hand', current_user, 'half')$$, '23514', NULL,
	'a row that somebody writes, without a table');
SELECT throws_ok($$UPDATE cqrs_es.projections SET aggregate_types = NULL WHERE state_of IS NOT NULL$$, '23514', NULL, 'or without an aggregate type');
SELECT finish();
ROLLBACK;
