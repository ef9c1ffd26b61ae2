\i test/include/setup.sql
-- alter_projection: another owner, other read models; by whom, and what is checked.

BEGIN;
SELECT plan(35);
CREATE ROLE cqrs_es_old;
CREATE ROLE cqrs_es_new;
CREATE ROLE cqrs_es_both IN ROLE cqrs_es_old, cqrs_es_new;
CREATE ROLE cqrs_es_other;
CREATE SCHEMA ap;
GRANT USAGE ON SCHEMA ap TO PUBLIC;
GRANT USAGE ON SCHEMA cqrs_es TO PUBLIC;
GRANT SELECT, INSERT ON cqrs_es.events TO PUBLIC;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.alter_projection, cqrs_es.define_handler, cqrs_es.rebuild_projection(text, text), cqrs_es.pause_projection TO PUBLIC;
SET LOCAL search_path = ap, public;
CREATE TABLE ap.one (id text PRIMARY KEY);
CREATE TABLE ap.two (id text PRIMARY KEY);
GRANT SELECT, INSERT, UPDATE, DELETE ON ap.one TO cqrs_es_old;
GRANT SELECT, INSERT, UPDATE, DELETE ON ap.one, ap.two TO cqrs_es_new;
SELECT pg_temp.as_role('cqrs_es_old', $$SELECT cqrs_es.create_projection('p', '{ap}', '{one}'), cqrs_es.define_handler('p', 'made', 'INSERT INTO one VALUES (event.aggregate_id)')$$) \gset
CREATE FUNCTION pg_temp.error_as(role text, call text) RETURNS text LANGUAGE sql AS
	$$SELECT array_to_string((pg_temp.error_of(format('SELECT pg_temp.as_role(%L, %L)', role, call)))[1:2], ': ')$$;
CREATE FUNCTION pg_temp.p() RETURNS text LANGUAGE sql AS
	$$SELECT format('%s %s %s', owner, owner_name, read_models) FROM cqrs_es.projections WHERE name = 'p'$$;

-- the owner
SELECT is(pg_temp.error_as('cqrs_es_other', $$SELECT cqrs_es.alter_projection('p', owner => 'cqrs_es_other')$$), '42501: must be owner of projection "p"', 'a stranger takes nothing');
SELECT is(pg_temp.error_as('cqrs_es_new', $$SELECT cqrs_es.alter_projection('p', owner => 'cqrs_es_new')$$), '42501: must be owner of projection "p"', 'nor who is to own it');
SELECT matches(pg_temp.error_as('cqrs_es_old', $$SELECT cqrs_es.alter_projection('p', owner => 'cqrs_es_new')$$), '^42501: must be ', 'its owner gives it to nobody that it cannot become');
SELECT is(pg_temp.error_as('cqrs_es_both', $$SELECT cqrs_es.alter_projection('p', owner => 'cqrs_es_new')$$), NULL, 'who is both may');
SELECT is(pg_temp.p(), 'cqrs_es_new cqrs_es_new {one}', 'the owner is another, and its name');
SELECT is(pg_temp.error_as('cqrs_es_old', $$SELECT cqrs_es.pause_projection('p')$$), '42501: must be owner of projection "p"', 'the old one owns it no more');
SELECT version FROM cqrs_es.append_event('ap', '1', 'made', '{}') \gset
REVOKE ALL ON ap.one FROM cqrs_es_old;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.append_event('ap', '2', 'made', '{}')$$))[1], 'QE201', 'a handler is still of who defined it');
SELECT pg_temp.as_role('cqrs_es_new', $$SELECT cqrs_es.define_handler('p', 'made', 'INSERT INTO one VALUES (event.aggregate_id)')$$) \gset
SELECT lives_ok($$SELECT cqrs_es.append_event('ap', '2', 'made', '{}')$$, 'until the new owner defines it');
SELECT is(pg_temp.error_as('cqrs_es_new', $$SELECT cqrs_es.rebuild_projection('p')$$), NULL, 'and the new owner can rebuild');
SELECT is(pg_temp.error_as('none', $$SELECT cqrs_es.alter_projection('p', owner => 'cqrs_es_old')$$), '42501: permission denied for table one', 'an owner needs the rights on the read models');
SELECT is((pg_temp.error_of($$SELECT cqrs_es.alter_projection('p', owner => 'cqrs_es_old')$$))[3], 'Role "cqrs_es_old" owns the projection, and so needs INSERT, UPDATE and DELETE on its read models.', 'and it is said who lacks which');
SELECT is(pg_temp.error_as('none', $$SELECT cqrs_es.alter_projection('p', owner => 'cqrs_es_nobody')$$), '42704: role "cqrs_es_nobody" does not exist', 'a role that is not there');
SELECT is(pg_temp.error_as('none', $$SELECT cqrs_es.alter_projection('p', owner => 4294967290)$$), '42704: role with OID 4294967290 does not exist', 'by its number');
SELECT is(pg_temp.error_as('none', $$SELECT cqrs_es.alter_projection('none')$$), '42704: projection "none" does not exist', 'a projection that is not there');
SELECT is(pg_temp.error_as('none', $$SELECT cqrs_es.alter_projection('p')$$), NULL, 'nothing to change');
SELECT is(pg_temp.p(), 'cqrs_es_new cqrs_es_new {one}', 'nothing has changed');

-- the read models
SELECT is(pg_temp.error_as('cqrs_es_new', $$SELECT cqrs_es.alter_projection('p', read_models => '{two}')$$), NULL, 'its owner gives it other tables');
SELECT is(pg_temp.p(), 'cqrs_es_new cqrs_es_new {two}', 'it has them');
SELECT lives_ok('DROP TABLE ap.one CASCADE', 'the one of before may go');
SELECT throws_ok('DROP TABLE ap.two', '2BP01', NULL, 'the one that it has may not');
CREATE TABLE ap.theirs (id text);
SELECT is(pg_temp.error_as('cqrs_es_new', $$SELECT cqrs_es.alter_projection('p', read_models => '{theirs}')$$), '42501: permission denied for table theirs', 'one without rights');
SELECT is(pg_temp.error_as('none', $$SELECT cqrs_es.alter_projection('p', read_models => '{two,theirs}')$$), '42501: permission denied for table theirs', 'the rights are those of the owner, whoever alters it');
SELECT is((pg_temp.error_of($$SELECT cqrs_es.alter_projection('p', read_models => '{NULL}')$$))[1], '22004', 'null');
CREATE VIEW ap.view AS SELECT 1 AS id;
SELECT is((pg_temp.error_of($$SELECT cqrs_es.alter_projection('p', read_models => '{view}')$$))[1], '42809', 'a view');
SELECT lives_ok($$SELECT cqrs_es.alter_projection('p', read_models => '{}')$$, 'none at all');
SELECT is(pg_temp.p(), 'cqrs_es_new cqrs_es_new {}', 'it has none');
SELECT is(pg_temp.error_as('none', $$SELECT cqrs_es.alter_projection('p', 'cqrs_es_old', '{}')$$), NULL, 'both at once');
SELECT is(pg_temp.p(), 'cqrs_es_old cqrs_es_old {}', 'both have changed');

-- an owner that is gone
CREATE ROLE cqrs_es_leaver;
SELECT cqrs_es.alter_projection('p', 'cqrs_es_leaver') IS NULL AS x \gset
DROP ROLE cqrs_es_leaver;
SELECT is(pg_temp.error_as('none', $$SELECT cqrs_es.alter_projection('p', read_models => '{two}')$$), '42704: role "cqrs_es_leaver", which owns the projection, does not exist', 'an owner that is gone');
SELECT is(pg_temp.error_as('cqrs_es_new', $$SELECT cqrs_es.alter_projection('p', 'cqrs_es_new')$$), '42501: must be owner of projection "p"', 'is not followed by whoever comes');
SELECT is(pg_temp.error_as('none', $$SELECT cqrs_es.alter_projection('p', 'cqrs_es_new', '{two}')$$), NULL, 'but a superuser can give it to somebody');
SELECT is(pg_temp.p(), 'cqrs_es_new cqrs_es_new {two}', 'who owns it then');

-- one that keeps states
SELECT cqrs_es.create_aggregate('ap') IS NULL AS x \gset
CREATE TABLE ap.states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
CREATE TABLE ap.more_states (LIKE ap.states INCLUDING ALL);
SELECT cqrs_es.create_projection('s', state_of => 'ap', read_models => '{states}') IS NULL AS x \gset
SELECT is((pg_temp.error_of($$SELECT cqrs_es.alter_projection('s', read_models => '{}')$$))[1], '22023', 'it keeps one table');
SELECT is((pg_temp.error_of($$SELECT cqrs_es.alter_projection('s', read_models => '{two}')$$))[1], '42703', 'one for states');
SELECT cqrs_es.alter_projection('s', read_models => '{more_states}') IS NULL AS x \gset
SELECT version FROM cqrs_es.append_event('ap', 'z', 'any', '{"a": 1}') \gset
SELECT is((SELECT payload FROM ap.more_states WHERE view_id = 'z'), '{"a": 1}', 'and goes on in another one');

SELECT * FROM finish();
ROLLBACK;
