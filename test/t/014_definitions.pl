# Sessions that define reducers, upcasters, commands, handlers and projections,
# beside sessions that drop and create the schemas of their search_path, the
# functions, types and tables that they name, and the roles that they are. Nobody
# crashes, and each definition is either there, with all that it names, or
# refused with an error that says what is missing. CQRS_ES_STORM_SECONDS makes it
# longer.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{CQRS_ES_STORM_SECONDS} || 10;

my $node = PostgreSQL::Test::Cluster->new('definitions');
$node->init;
$node->append_conf('postgresql.conf', "restart_after_crash = on\nlog_statement = none\nlog_min_messages = error\nlog_min_error_statement = panic");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	SELECT cqrs_es.create_aggregate('t');
	SELECT cqrs_es.create_projection('p');
	CREATE TABLE outcomes (who text, state text, message text, times bigint);

	-- what definers name: all of schema s, and a part of schema public
	CREATE PROCEDURE make_s() LANGUAGE sql AS $$
		CREATE SCHEMA s;
		CREATE TYPE s.colour AS ENUM ('red');
		CREATE TABLE s.m (colour text);
		CREATE TABLE s.states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
		CREATE FUNCTION s.reduce(jsonb, cqrs_es.event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT $1';
		CREATE FUNCTION s.lift(jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT $1';
		CREATE FUNCTION s.handle(cqrs_es.event) RETURNS void LANGUAGE sql AS '';
	$$;
	CREATE PROCEDURE make_part() LANGUAGE sql AS $$
		CREATE TYPE public.shade AS ENUM ('dark');
		CREATE TABLE public.shades (shade public.shade);
		CREATE FUNCTION public.reduce_too(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql
			BEGIN ATOMIC SELECT state || pg_catalog.jsonb_build_object('shades', (SELECT count(*) FROM public.shades)); END;
		CREATE FUNCTION public.decide(jsonb, jsonb) RETURNS jsonb LANGUAGE sql AS $f$SELECT '[]'::jsonb$f$;
		CREATE FUNCTION public.misfit(public.shade) RETURNS jsonb LANGUAGE sql AS $f$SELECT '[]'::jsonb$f$;
	$$;
	SET check_function_bodies = off;
	CREATE PROCEDURE undefine() LANGUAGE sql AS $$
		SELECT cqrs_es.drop_reducer(aggregate_type, event_type) FROM cqrs_es.reducers;
		SELECT cqrs_es.drop_upcaster(event_type, from_version) FROM cqrs_es.upcasters;
		SELECT cqrs_es.drop_handler(projection, event_type) FROM cqrs_es.handlers;
	$$;
	CREATE PROCEDURE make_role() LANGUAGE sql AS $$
		CREATE ROLE r;
		GRANT USAGE ON SCHEMA cqrs_es TO r;
		GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cqrs_es TO r;
	$$;

	-- One of the statements at a time, each in a transaction of its own.
	CREATE PROCEDURE run(who text, setup text, statements text[], seconds numeric) LANGUAGE plpgsql AS $$
	DECLARE
		deadline timestamptz := clock_timestamp() + seconds * interval '1 second';
		seen jsonb := '{}';
		outcome text;
	BEGIN
		WHILE clock_timestamp() < deadline LOOP
			BEGIN
				EXECUTE setup;
				EXECUTE statements[1 + floor(random() * cardinality(statements))];
				outcome := '["00000", ""]';
			EXCEPTION WHEN OTHERS THEN
				outcome := jsonb_build_array(SQLSTATE, regexp_replace(SQLERRM, '[0-9]+', 'N', 'g'));
			END;
			seen := seen || jsonb_build_object(outcome, coalesce((seen->outcome)::bigint, 0) + 1);
			COMMIT;
		END LOOP;
		INSERT INTO public.outcomes SELECT who, key::jsonb->>0, key::jsonb->>1, value::bigint FROM jsonb_each(seen);
	END $$;
});

# A text that PL/pgSQL runs as one statement.
sub statements
{
	return 'ARRAY[' . join(', ', map { "\$q\$$_\$q\$" } @_) . ']';
}

my @define = (
	q{SELECT cqrs_es.define_reducer('t', 'e', 's.reduce(jsonb, cqrs_es.event)')},
	q{SELECT cqrs_es.define_reducer('t', 'f', 'reduce(jsonb, cqrs_es.event)'::regprocedure)},
	q{SELECT cqrs_es.define_reducer('t', 'g', 'reduce_too(jsonb, cqrs_es.event)')},
	q{SELECT cqrs_es.define_reducer('t', 'h', 'misfit(shade)'::regprocedure)},
	q{SELECT cqrs_es.define_upcaster('e', '1', '2', 'lift(jsonb)')},
	q{SELECT cqrs_es.define_command('t', 'c', 'decide(jsonb, jsonb)'::regprocedure)},
	q{SELECT cqrs_es.define_command('t', 'd', 'decide(state, command)')},
	q{SELECT cqrs_es.define_command('t', 'e', $$'[]'::jsonb$$)},
	q{SELECT cqrs_es.define_handler('p', 'e', 'handle(cqrs_es.event)')},
	q{SELECT cqrs_es.define_handler('p', 'f', 'INSERT INTO m VALUES ((event.payload->>0)::colour::text)')},
	q{SELECT cqrs_es.define_handler('p', 'g', $$INSERT INTO shades VALUES ('dark'::shade)$$)},
	q{SELECT cqrs_es.projection_errors('p')},
	q{SELECT cqrs_es.drop_handler('p', 'e')},
	q{DO $$BEGIN
		PERFORM cqrs_es.create_projection('q', read_models => '{m, states, shades}');
		PERFORM cqrs_es.drop_projection('q'); END$$},
	q{DO $$BEGIN
		PERFORM cqrs_es.create_projection('q', read_models => '{states}', state_of => 't');
		PERFORM cqrs_es.append_event('t', 'a', 'e', '{}');
		PERFORM cqrs_es.drop_projection('q'); END$$},
	q{SELECT cqrs_es.aggregate_state('t', 'a')});
my $path = q{SET LOCAL search_path = x1, x2, s, "$user", public};
my @sessions = (
	(map { ["definer $_", $path, @define] } 1 .. 3),
	['definer and role', "$path; SET LOCAL ROLE r", @define[0 .. 7]],
	(map { ["schema x$_", 'SELECT', "DROP SCHEMA IF EXISTS x$_; CREATE SCHEMA x$_", "DROP SCHEMA IF EXISTS x$_"] } 1 .. 2),
	['schema s', 'SELECT', 'CALL make_s()', 'DROP SCHEMA s CASCADE', 'CALL undefine(); DROP SCHEMA s CASCADE',
		'CALL undefine(); DROP SCHEMA s CASCADE; CALL make_s()'],
	['functions, types', 'SELECT', 'CALL make_part()', 'DROP FUNCTION decide', 'DROP TYPE shade CASCADE',
		'CALL undefine(); DROP TYPE IF EXISTS shade CASCADE; DROP TABLE IF EXISTS shades CASCADE; DROP FUNCTION IF EXISTS decide, reduce_too'],
	# whose role is gone gets to nothing, so it is made oftener than it is dropped
	['role', 'SELECT', ('CALL make_role()') x 4, 'DROP OWNED BY r; DROP ROLE r']);

my @running;
foreach my $session (@sessions)
{
	my ($who, $setup, @statements) = @$session;
	my $call = sprintf('CALL run($q$%s$q$, $q$%s$q$, %s, %s)', $who, $setup, statements(@statements), $seconds);
	my ($in, $out) = ('', '');
	push @running, IPC::Run::start(['psql', '-X', '-q', '-d', $node->connstr('postgres'), '-c', 'SET client_min_messages = error', '-c', $call],
		'<', \$in, '>&', \$out, IPC::Run::timeout(60 + 3 * $seconds));
}
my $finished = grep { $_->finish } @running;

is($finished, scalar @sessions, 'all sessions came to their end');
is(join('', slurp_file($node->logfile) =~ /^.*terminated by signal.*$/mg), '', 'nobody crashed');
$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';

# What is stated: an object, a type or a role (42704), a table, a function, a schema
# or the aggregate type that is not there, or is there already; no rights on what
# was made anew; what is in use; functions that do not fit; a deadlock. (The
# server's SET ROLE says 22023 for a role that is not there.
my $stated = q{'00000', '42704', '42P01', '42883', '3F000', '42710', '42P06', '42P07', '42723', '42501', '2BP01', '42P13', '40P01', '22023'};
# The server itself, too, says XX000: to a definer, of a function or type that a text
# names and that is dropped while it is parsed and planned, as it does of any
# statement; and to two others who change one row of its catalog.)
is($node->safe_psql('postgres', "SELECT DISTINCT who, state, message FROM outcomes WHERE state NOT IN ($stated)
	AND message !~ CASE WHEN who LIKE 'definer%' THEN '^cache lookup failed for (function|type) N\$'
		ELSE '^tuple concurrently (updated|deleted)\$' END"), '',
	'every refusal has a stated SQLSTATE');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT FROM outcomes GROUP BY who HAVING sum(times) FILTER (WHERE state = '00000') >= 10) AS w}),
	scalar @sessions, 'all got something done');
is($node->safe_psql('postgres', q{
	SELECT function FROM (SELECT function FROM cqrs_es.reducers UNION ALL SELECT function FROM cqrs_es.upcasters
		UNION ALL SELECT function FROM cqrs_es.handlers) AS f WHERE function IS NOT NULL AND to_regprocedure(function) IS NULL}), '',
	'every function that is named exists');
note($node->safe_psql('postgres', 'SELECT * FROM outcomes ORDER BY who, state'));

$node->stop;
done_testing();
