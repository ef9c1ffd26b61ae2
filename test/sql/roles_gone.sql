\i test/include/setup.sql
-- A session outlives the role that it acts as: nothing is declared in the name of who is gone.
SELECT plan(5);
CREATE ROLE cqrs_es_leaver;
CREATE TABLE roles_gone (id text);
GRANT USAGE ON SCHEMA cqrs_es TO PUBLIC;
GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.create_subscription, cqrs_es.define_command(text, text, text) TO PUBLIC;
GRANT SELECT, INSERT ON cqrs_es.events TO PUBLIC;
SELECT cqrs_es.create_aggregate('roles_gone') IS NULL AS x \gset
SET ROLE cqrs_es_leaver;
\setenv DATABASE :DBNAME
\! psql -X -q -d "$DATABASE" -c 'DROP ROLE cqrs_es_leaver'
SELECT is(pg_temp.error_of(call, '{state,message}'), ARRAY['42704', 'the current role does not exist any more'], call) FROM (VALUES
	(1, $$SELECT cqrs_es.create_projection('roles_gone', '{roles_gone}')$$),
	(2, $$SELECT cqrs_es.define_command('roles_gone', 'C', $q$ '[]'::jsonb $q$)$$)) c (n, call) ORDER BY n;
SELECT isnt(pg_temp.state_of($$SELECT cqrs_es.create_subscription('roles_gone')$$), 'none', 'nor a subscription');
RESET ROLE;
SELECT is((SELECT count(*) FROM cqrs_es.projections WHERE name = 'roles_gone') + (SELECT count(*) FROM cqrs_es.commands WHERE aggregate_type = 'roles_gone'), 0::bigint, 'nothing is there');
SELECT is((SELECT count(*) FROM cqrs_es.subscriptions WHERE name = 'roles_gone'), 0::bigint, 'nor that');
REVOKE SELECT, INSERT ON cqrs_es.events FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.create_subscription, cqrs_es.define_command(text, text, text) FROM PUBLIC;
REVOKE USAGE ON SCHEMA cqrs_es FROM PUBLIC;
SELECT cqrs_es.drop_aggregate('roles_gone') IS NULL AS x \gset
DROP TABLE roles_gone;
SELECT * FROM finish();
