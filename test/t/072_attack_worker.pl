# Whom does the background worker lend its rights to?  It is a process of the server's
# own, without a role that anybody gave it.  Whatever runs for an event there runs as
# the owner of the projection or as who defined it, in a restricted operation: a
# definer who grasps at more gets nothing, and leaves nothing behind for the others
# whose projections the same process runs.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('attack_worker');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE ROLE mallory LOGIN;
	CREATE ROLE other LOGIN;
	GRANT USAGE ON SCHEMA cqrs_es TO mallory, other;
	GRANT SELECT, INSERT ON cqrs_es.events TO mallory, other;
	GRANT EXECUTE ON FUNCTION cqrs_es.create_projection, cqrs_es.define_handler TO mallory, other;
	CREATE SCHEMA mallory AUTHORIZATION mallory;
	CREATE SCHEMA other AUTHORIZATION other;
	SET ROLE mallory;
	CREATE TABLE mallory.ran (what text, who text, outcome text);
	CREATE TABLE mallory.kept (id text);
	CREATE TABLE mallory.states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
	-- tries each, and writes down as whom, and what came of it
	CREATE FUNCTION mallory.grasp(place text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		statement text;
		outcome text;
	BEGIN
		FOREACH statement IN ARRAY ARRAY['ALTER ROLE mallory SUPERUSER', 'SET ROLE none', 'SET SESSION AUTHORIZATION DEFAULT',
			'CREATE TEMP TABLE projections (name text)', 'CREATE DOMAIN pg_temp.text AS pg_catalog.text', 'SET cqrs_es.tenant_id = $x$x$x$',
			'SET session_replication_role = replica', 'PREPARE p AS SELECT 1', 'COPY mallory.kept TO PROGRAM $x$cat$x$', 'UPDATE cqrs_es.projections SET paused = true']
		LOOP
			BEGIN
				EXECUTE statement;
				outcome := 'done';
			EXCEPTION WHEN OTHERS THEN
				outcome := SQLSTATE;
			END;
			INSERT INTO mallory.ran VALUES (place || ': ' || statement, current_user, outcome);
		END LOOP;
		PERFORM set_config('search_path', 'mallory', false), set_config('statement_timeout', '1', false);
		RETURN place;
	END $$;
	CREATE FUNCTION mallory.lift(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT payload || jsonb_build_object('lifted', mallory.grasp('upcaster'))$$;
	CREATE FUNCTION mallory.reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb_build_object('folded', mallory.grasp('reducer'))$$;
	CREATE FUNCTION mallory.handle(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$SELECT mallory.grasp('handler'); INSERT INTO mallory.kept VALUES (event.aggregate_id)$$;
	CREATE FUNCTION mallory.follow(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$SELECT cqrs_es.append_event('evil', event.aggregate_id, 'done', '{}', event_version => '1.0')$$;
	CREATE FUNCTION mallory.fire() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM mallory.grasp(TG_NAME); RETURN NEW; END$$;
	CREATE TRIGGER "trigger" BEFORE INSERT ON mallory.kept FOR EACH ROW EXECUTE FUNCTION mallory.fire();
	CREATE CONSTRAINT TRIGGER "deferred trigger" AFTER INSERT ON mallory.kept DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mallory.fire();
	RESET ROLE;
	SELECT cqrs_es.create_aggregate('evil', snapshot_every => 1);
	SELECT cqrs_es.define_upcaster('done', '1.0', '2.0', 'mallory.lift(jsonb)');
	SELECT cqrs_es.define_reducer('evil', 'done', 'mallory.reduce(jsonb, cqrs_es.event)');
	SET ROLE mallory;
	SELECT cqrs_es.create_projection('mallory', '{first,evil}', '{mallory.kept}', mode => 'async');
	SELECT cqrs_es.define_handler('mallory', 'begun', 'mallory.follow(cqrs_es.event)');
	SELECT cqrs_es.define_handler('mallory', 'done', 'mallory.handle(cqrs_es.event)');
	SELECT cqrs_es.create_projection('states', read_models => '{mallory.states}', state_of => 'evil', mode => 'async');
	SET ROLE other;
	CREATE TABLE other.kept (id text, who text);
	SELECT cqrs_es.create_projection('other', '{first}', '{other.kept}', mode => 'async');
	SELECT cqrs_es.define_handler('other', 'begun', 'INSERT INTO other.kept VALUES (event.aggregate_id, current_user)');
	RESET ROLE;
	ALTER ROLE other SET cqrs_es.tenant_id = '';
});
$node->safe_psql('postgres', q{SET SESSION AUTHORIZATION other; SELECT cqrs_es.append_event('first', '1', 'begun', '{}')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM other.kept}), 'the worker runs the projections of both');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM mallory.states}), 'and that of states');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM mallory.kept}), 'and the handlers');

is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT split_part(what, ':', 1), ', ' ORDER BY split_part(what, ':', 1)) FROM mallory.ran}),
	'deferred trigger, handler, reducer, trigger, upcaster', 'all kinds of code have run');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT who, ', ') FROM mallory.ran}), 'mallory', 'as mallory');
is($node->safe_psql('postgres', q{SELECT what FROM mallory.ran WHERE outcome = 'done'}), '', 'and nothing it grasped at was given');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT outcome, ', ') FROM mallory.ran}), '42501', 'for want of the right');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT who, ', ') FROM other.kept}), 'other', 'a handler of somebody else runs as its definer');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_roles WHERE rolname = 'mallory' AND rolsuper}), '0', 'nobody has become a superuser');

# It goes on, whatever the handlers set; and others do not see what it does.
$node->safe_psql('postgres', q{SET SESSION AUTHORIZATION other; SELECT cqrs_es.append_event('first', '2', 'begun', '{}')});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM other.kept}), 'the next event');
my $worker = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection worker'});
is($node->safe_psql('postgres', "SET SESSION AUTHORIZATION other; SELECT query FROM pg_stat_activity WHERE pid = $worker"),
	'<insufficient privilege>', 'an ordinary role does not see what the worker does');
my ($status, $stdout, $stderr) = $node->psql('postgres', qq{SET SESSION AUTHORIZATION mallory; SELECT pg_terminate_backend($worker)});
like($stderr, qr/ERROR: /, 'nor ends it');

$node->stop;
done_testing();
