# What a handler names is dropped, and who appends has an object of that name in
# the temporary schema that this session got only after the handler's plan had been
# made. The schema itself is left from an earlier session, so that nothing else
# tells the server to look at the plan again.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('definers');
$node->init;
$node->append_conf('postgresql.conf', 'autovacuum = off');
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE TYPE colour AS ENUM ('red');
	CREATE TABLE colours (name text);
	SELECT cqrs_es.create_projection('colours');
	SELECT cqrs_es.define_handler('colours', 'e', 'INSERT INTO colours VALUES ((event.payload->>0)::colour::text)');
	CREATE ROLE thief;
	GRANT USAGE ON SCHEMA cqrs_es TO thief;
	GRANT SELECT, INSERT ON cqrs_es.events TO thief;
	CREATE SCHEMA thief AUTHORIZATION thief;
	GRANT USAGE ON SCHEMA thief TO PUBLIC;
	SET SESSION AUTHORIZATION thief;
	CREATE FUNCTION thief.steal() RETURNS boolean LANGUAGE plpgsql AS
		$$BEGIN RAISE 'rights of somebody else: %', current_user <> session_user; END$$;
});
$node->safe_psql('postgres', 'CREATE TEMP TABLE t (n integer)') foreach 1 .. 3;

my ($status, $stdout, $stderr) = $node->psql('postgres', q{
	SET SESSION AUTHORIZATION thief;
	SELECT cqrs_es.append_event('t', 'a', 'e', '["red"]');
	RESET SESSION AUTHORIZATION;
	DROP TYPE colour;
	SET SESSION AUTHORIZATION thief;
	CREATE DOMAIN pg_temp.colour AS text CHECK (thief.steal());
	GRANT USAGE ON TYPE pg_temp.colour TO PUBLIC;
	SELECT cqrs_es.append_event('t', 'a', 'e', '["red"]');
});
isnt($status, 0, 'the append fails');
like($stderr, qr/what runs with the rights of its definer cannot use temporary objects/, 'a temporary domain does not take the place of a type');

# What an appender does not see of a handler's error stands in the server's log.
$node->safe_psql('postgres', q{
	CREATE TABLE vault (id text PRIMARY KEY);
	INSERT INTO vault VALUES ('the secret');
	SELECT cqrs_es.create_projection('vault', read_models => '{vault}');
	SELECT cqrs_es.define_handler('vault', 'kept', 'INSERT INTO vault SELECT id FROM vault AS v');
});
my $offset = -s $node->logfile;
($status, $stdout, $stderr) = $node->psql('postgres', q{
	\set VERBOSITY verbose
	SET SESSION AUTHORIZATION thief;
	SET client_min_messages = log;
	SELECT cqrs_es.append_event('t', 'a', 'kept', '{}');
});
like($stderr, qr/duplicate key value violates unique constraint "vault_pkey" \(SQLSTATE 23505\)/, 'an appender sees what failed');
unlike($stderr, qr/the secret|INSERT INTO/, 'but no row and no statement');
my $log = substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $offset);
like($log, qr/DETAIL: .*\n?.*Key \(id\)=\(the secret\) already exists.\n\s*SQL statement "INSERT INTO vault SELECT id FROM vault AS v"/, 'which the log has');

# A temporary function is not to be had by a registry, so nobody gets its place.
($status, $stdout, $stderr) = $node->psql('postgres', q{
	SELECT cqrs_es.create_aggregate('t');
	CREATE FUNCTION pg_temp.f(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT state';
	SELECT cqrs_es.define_reducer('t', 'e', 'pg_temp.f(jsonb, cqrs_es.event)');
});
like($stderr, qr/is temporary/, 'a temporary function does not become a reducer');

# Declared by somebody before that was checked: the next owner of the place is asked for nothing.
$node->safe_psql('postgres', 'ALTER ROLE thief LOGIN');
my $thief = $node->background_psql('postgres', extra_params => [ '-U', 'thief' ]);
my $temp = $thief->query_safe(q{
	CREATE FUNCTION pg_temp.f(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS
		$$BEGIN RAISE 'rights of somebody else'; END$$;
	SELECT pg_my_temp_schema()::regnamespace;
});
$node->safe_psql('postgres', qq{
	INSERT INTO cqrs_es.reducers (aggregate_type, event_type, function, search_path)
	VALUES ('t', 'other', '$temp.f(pg_catalog.jsonb,cqrs_es.event)', 'public, pg_temp');
	SELECT cqrs_es.append_event('t', 'fresh', 'other', '{}');
});
($status, $stdout, $stderr) = $node->psql('postgres', q{SELECT cqrs_es.aggregate_state('t', 'fresh')});
like($stderr, qr/ERROR:  reducer \S+ is temporary/, 'and is refused where it stands already');
$thief->quit;

$node->stop;
done_testing();
