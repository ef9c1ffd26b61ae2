# A role is bound to its tenant by ALTER ROLE ... SET cqrs_es.tenant_id. Whatever
# it sets, and whenever, it never reads or writes as another tenant, nor as none.
# Each attack has a new session, since what counts is when the library is loaded:
# "cold" is before that, "warm" after.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('tenants');
$node->init;
$node->start;

# What administrators do works in sessions that have not loaded the library.
my @setup = (
	'CREATE EXTENSION cqrs_es',
	'CREATE ROLE tenant_a LOGIN; CREATE ROLE service LOGIN; CREATE ROLE free LOGIN; CREATE ROLE clerk CREATEROLE LOGIN',
	'CREATE ROLE other; GRANT other TO tenant_a; ALTER ROLE other SET cqrs_es.tenant_id = \'b\'',
	'GRANT USAGE ON SCHEMA cqrs_es TO tenant_a, service, free, other',
	'GRANT SELECT, INSERT ON cqrs_es.events TO tenant_a, service, free, other',
	'ALTER ROLE tenant_a SET cqrs_es.tenant_id = \'a\'',
	'GRANT SET ON PARAMETER cqrs_es.tenant_id TO service, clerk',
	'GRANT CREATE ON SCHEMA public TO tenant_a',
	'CREATE FUNCTION as_b() RETURNS text LANGUAGE sql SET cqrs_es.tenant_id = \'b\' AS \'SELECT cqrs_es.current_tenant()\'',
	(map {
		"SET cqrs_es.tenant_id = '$_'; SELECT cqrs_es.append_event('t', 'x', 'Of', '{}'), " .
		"cqrs_es.append_event('t', 'x', 'Of', '{}')" } ('', 'a', 'b')),
);
for my $sql (@setup)
{
	my ($status, $stdout, $stderr) = $node->psql('postgres', $sql);
	is($status, 0, $sql) or diag($stderr);
}

# Runs SQL in a new session; returns what it printed, or the error's SQLSTATE.
sub session
{
	my ($role, $options, $sql) = @_;
	local $ENV{PGOPTIONS} = $options;
	my ($status, $stdout, $stderr) = $node->psql(
		'postgres', "\\set VERBOSITY sqlstate\n$sql",
		extra_params => [ '-U', $role ]);
	return $1 if $stderr =~ /ERROR:  (\w{5})$/m;
	return 'FATAL' if $stderr =~ /FATAL/;
	return $stdout;
}

# Whose events it sees, by a function and in plain SQL.
my $look = q{
	SELECT (SELECT string_agg(DISTINCT tenant_id, ',') FROM cqrs_es.read_all()) || '|' ||
		(SELECT string_agg(DISTINCT tenant_id, ',') FROM cqrs_es.events);
};
my $warm = "DO 'BEGIN PERFORM cqrs_es.current_tenant(); END';";
my $b = '-c cqrs_es.tenant_id=b';

for (
	# role, options, SQL, expected output or SQLSTATE
	[ 'tenant_a', '', '', 'a|a' ],
	[ 'free', '', '', '|' ],
	[ 'postgres', '', '', '|,a,b' ],

	# the bound role, cold
	[ 'tenant_a', '', q{SET cqrs_es.tenant_id = 'b';}, '42501' ],
	[ 'tenant_a', '', q{SET cqrs_es.tenant_id = '';}, '42501' ],
	[ 'tenant_a', '', q{DO $$BEGIN PERFORM set_config('CQRS_ES.Tenant_ID', 'b', false); END$$;}, '42501' ],
	[ 'tenant_a', '', q{BEGIN; SET LOCAL cqrs_es.tenant_id = 'b';}, '42501' ],
	[ 'tenant_a', '', q{BEGIN; SET LOCAL cqrs_es.tenant_id = 'b'; ROLLBACK;}, 'a|a' ],
	[ 'tenant_a', '', q{SET cqrs_es.tenant_id = 'b'; RESET cqrs_es.tenant_id;}, 'a|a' ],
	[ 'tenant_a', '', q{SET cqrs_es.tenant_id = 'b'; DISCARD ALL;}, 'a|a' ],
	[ 'tenant_a', '', q{SET cqrs_es.tenant_id TO DEFAULT; RESET ALL;}, 'a|a' ],
	[ 'tenant_a', '', q{ALTER ROLE tenant_a SET cqrs_es.tenant_id = 'b';}, '42501' ],
	[ 'tenant_a', '', q{ALTER ROLE tenant_a IN DATABASE postgres SET cqrs_es.tenant_id = 'b';}, '42501' ],
	[ 'tenant_a', '', q{ALTER ROLE tenant_a RESET cqrs_es.tenant_id;}, '42501' ],
	[ 'tenant_a', '', q{ALTER ROLE tenant_a RESET ALL;}, 'a|a' ],
	[ 'tenant_a', '', '', 'a|a' ],
	[ 'tenant_a', '', q{CREATE FUNCTION f() RETURNS text LANGUAGE sql SET cqrs_es.tenant_id = 'b' AS 'SELECT 1';}, '42501' ],
	[ 'tenant_a', '', q{SELECT as_b();}, '42501' ],
	[ 'tenant_a', '', q{SET ROLE other;}, 'a|a' ],
	[ 'tenant_a', '', q{SET row_security = off;}, '42501' ],
	[ 'tenant_a', '', q{SET SESSION AUTHORIZATION other;}, '42501' ],

	# the bound role, with the connection's options, which outrank those of the role
	[ 'tenant_a', $b, '', '42501' ],
	[ 'tenant_a', '-c cqrs_es.tenant_id=', '', '42501' ],
	[ 'tenant_a', '-c CQRS_ES.TENANT_ID=b', '', '42501' ],
	[ 'tenant_a', '--cqrs-es.tenant-id=b', '', '42501' ],
	[ 'tenant_a', $b, 'RESET cqrs_es.tenant_id;', '42501' ],
	[ 'tenant_a', $b, 'RESET ALL;', '42501' ],
	[ 'tenant_a', $b, 'DISCARD ALL;', '42501' ],
	[ 'tenant_a', $b, q{SET cqrs_es.tenant_id = 'a';}, '42501' ],
	[ 'tenant_a', $b, q{DO $$BEGIN PERFORM cqrs_es.current_tenant(); EXCEPTION WHEN OTHERS THEN NULL; END$$;}, '42501' ],
	[ 'tenant_a', $b, q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('t', 'y', 'Of', '{}');}, '42501' ],

	# the bound role, warm
	[ 'tenant_a', '', qq{$warm SET cqrs_es.tenant_id = 'b';}, '42501' ],
	[ 'tenant_a', '', qq{$warm RESET cqrs_es.tenant_id;}, '42501' ],
	[ 'tenant_a', '', qq{$warm RESET ALL;}, 'a|a' ],
	[ 'tenant_a', '', qq{$warm DISCARD ALL;}, 'a|a' ],
	[ 'tenant_a', '', qq{$warm ALTER ROLE tenant_a SET cqrs_es.tenant_id = 'b';}, '42501' ],
	[ 'tenant_a', '', qq{$warm ALTER ROLE tenant_a RESET cqrs_es.tenant_id;}, '42501' ],
	[ 'tenant_a', '', qq{$warm ALTER ROLE tenant_a RESET ALL;}, 'a|a' ],
	[ 'tenant_a', '', '', 'a|a' ],
	[ 'tenant_a', '', qq{$warm CREATE FUNCTION f() RETURNS text LANGUAGE sql SET cqrs_es.tenant_id = 'b' AS 'SELECT 1';}, '42501' ],
	[ 'tenant_a', '', qq{$warm SELECT as_b();}, '42501' ],
	[ 'tenant_a', '', qq{$warm SET ROLE other;}, 'a|a' ],
	[ 'tenant_a', '', qq{$warm SET ROLE other; RESET ALL;}, 'a|a' ],

	# refused, the session goes on as soon as it has let go of the value
	[ 'tenant_a', '', q{SET cqrs_es.tenant_id = 'b';
		DO $$BEGIN PERFORM cqrs_es.current_tenant(); EXCEPTION WHEN insufficient_privilege THEN NULL; END$$;
		RESET cqrs_es.tenant_id;}, 'a|a' ],

	# an unbound role is none of those tenants either
	[ 'free', '', q{SET cqrs_es.tenant_id = 'b';}, '42501' ],
	[ 'free', $b, '', '42501' ],

	# who was granted SET on the parameter may choose, and bind others
	[ 'service', '', q{SET cqrs_es.tenant_id = 'b';}, 'b|b' ],
	[ 'service', '', qq{$warm BEGIN; SET LOCAL cqrs_es.tenant_id = 'b';}, 'b|b' ],
	[ 'service', '', q{BEGIN; SET LOCAL cqrs_es.tenant_id = 'b'; COMMIT;}, '|' ],
	[ 'service', $b, '', 'b|b' ],
	[ 'service', '', q{SELECT as_b();}, "b\n|" ],
	[ 'postgres', $b, '', 'b|,a,b' ],
	[ 'clerk', '', q{CREATE ROLE one; ALTER ROLE one SET cqrs_es.tenant_id = 'b'; DROP ROLE one; SELECT 1; \q}, '1' ],

	# the server has no COPY FROM where there is row security
	[ 'tenant_a', '', qq{COPY cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) FROM STDIN;\n\\.\n}, '0A000' ],
	[ 'tenant_a', '', q{COPY (SELECT DISTINCT tenant_id FROM cqrs_es.events) TO STDOUT;}, "a\na|a" ],
  )
{
	my ($role, $options, $sql, $expected) = @$_;
	my $title = join(' ', grep { $_ ne '' } $role, $options, $sql =~ s/\s+/ /gr);
	is(session($role, $options, $sql . $look), $expected, "$title -> $expected" =~ s/\n/ /r);
}

# The policy holds in the workers of a parallel query, too.
my $in_workers = ($node->pg_version < 16 ? 'SET force_parallel_mode = on;' : 'SET debug_parallel_query = on;') . q{
	SELECT string_agg(DISTINCT tenant_id, ',') FROM cqrs_es.events;
	EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT string_agg(DISTINCT tenant_id, ',') FROM cqrs_es.events;
};
for my $cold_or_warm ('', $warm)
{
	like(session('tenant_a', '', $cold_or_warm . $in_workers), qr/^a\n.*Workers Launched: 1/s, 'in a parallel worker');
	is(session('tenant_a', $b, $in_workers), '42501', 'not with a value of its own either') if !$cold_or_warm;
}

# A default for all sessions is not lost either to a connection's options.
$node->append_conf('postgresql.conf', q{cqrs_es.tenant_id = 'a'});
$node->reload;
is(session('free', '', $look), 'a|a', 'postgresql.conf says it for all');
is(session('free', '-c cqrs_es.tenant_id=', $look), '42501', 'whom it concerns cannot say otherwise');

# The same goes for every setting that is not everyone's own.
for my $name (split /\n/, $node->safe_psql('postgres',
	"$warm SELECT name FROM pg_settings WHERE name LIKE 'cqrs_es.%' AND context <> 'user'"))
{
	is(session('service', "-c $name=1", $look), $name eq 'cqrs_es.tenant_id' ? '' : '42501',
		"$name in the connection's options: only by right");
}

# With the library there from the beginning the server itself refuses.
for my $setting ('session_preload_libraries', 'shared_preload_libraries')
{
	$node->append_conf('postgresql.conf', "$setting = 'cqrs_es'");
	$node->restart;
	is(session('tenant_a', $b, $look), 'FATAL', "with $setting: no connection with a value of one's own");
	is(session('tenant_a', '', $look), 'a|a', 'a bound role is bound');
	is(session('service', $b, $look), 'b|b', 'who may choose, may');
}

# A dump must have all rows: the owner need not be a superuser. Others dump their own, if they say so.
my $dump = "$PostgreSQL::Test::Utils::tmp_check/events.sql";
$node->safe_psql('postgres', 'CREATE ROLE keeper LOGIN; GRANT USAGE ON SCHEMA cqrs_es TO keeper; ALTER TABLE cqrs_es.events OWNER TO keeper');
for (
	[ 'keeper', [], '|a|b' ],
	[ 'postgres', [], '|a|b' ],
	[ 'tenant_a', ['--enable-row-security'], 'a' ])
{
	my ($role, $options, $expected) = @$_;
	command_ok([ 'pg_dump', '-U', $role, @$options, '--data-only', '--column-inserts', '-t', 'cqrs_es.events', '-f', $dump, $node->connstr('postgres') ],
		"pg_dump as $role");
	my %tenants = map { $_ => 1 } slurp_file($dump) =~ /^INSERT INTO .*, '([ab]?)', 't', 'x', /mg;
	is(join('|', sort keys %tenants), $expected, 'with these tenants');
}
command_fails_like([ 'pg_dump', '-U', 'tenant_a', '--data-only', '-t', 'cqrs_es.events', '-f', $dump, $node->connstr('postgres') ],
	qr/row-level security/, 'pg_dump as an ordinary role does not leave out rows silently');

done_testing();
