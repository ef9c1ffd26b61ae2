# What a handler names is dropped, and who appends has an object of that name in
# the temporary schema that his session got only after the handler's plan had been
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

$node->stop;
done_testing();
