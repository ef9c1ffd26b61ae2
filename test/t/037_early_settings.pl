# What is set before the library is loaded: SET and SHOW must not lie. A setting
# that is none of ours, or a value that is none, is an error as soon as something of
# the extension is used, and not a warning, after which events go elsewhere. (Values
# from who may not set them: 009_tenants.)

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('early');
$node->init;
$node->append_conf('postgresql.conf', "cqrs_es.in_the_file = 'x'\n");
$node->start;
$node->safe_psql('postgres', q{CREATE EXTENSION cqrs_es; CREATE ROLE writer LOGIN;
	GRANT USAGE ON SCHEMA cqrs_es TO writer; GRANT SELECT, INSERT ON cqrs_es.events TO writer});

# A new session; what it printed, or the error's SQLSTATE.
sub session
{
	my ($role, $options, $sql) = @_;
	local $ENV{PGOPTIONS} = $options;
	my ($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY sqlstate\n$sql", extra_params => [ '-U', $role ]);
	return $1 if $stderr =~ /ERROR:  (\w{5})$/m;
	return $stdout;
}

my $append = q{; SELECT 'version ' || (cqrs_es.append_event('t', gen_random_uuid()::text, 'X', '{}')).version;};
my $long = 'x' x 256;

for (
	# role, options, SQL, expected output or SQLSTATE of the append behind it
	[ 'writer', '', '', 'version 1' ],
	[ 'postgres', '', "SET cqrs_es.tennant_id = 'acme'", '42704' ],
	[ 'postgres', '', "SET cqrs_es.TENNANT_ID = 'acme'", '42704' ],
	[ 'postgres', '-c cqrs_es.tennant_id=acme', '', '42704' ],
	[ 'postgres', '', "SET cqrs_es.tennant_id = 'acme'; RESET cqrs_es.tennant_id", 'version 1' ],
	[ 'postgres', '', "BEGIN; SET LOCAL cqrs_es.tennant_id = 'acme'; ROLLBACK", 'version 1' ],
	[ 'postgres', '', "SET cqrs_es.tennant_id = 'acme'; RESET ALL", 'version 1' ],
	[ 'postgres', '', "SET other.tennant_id = 'acme'", 'version 1' ],
	[ 'postgres', '', "SET cqrs_es.tenant_id = '$long'", '22023' ],
	[ 'postgres', '', "SET cqrs_es.tenant_id = '$long'; RESET cqrs_es.tenant_id", 'version 1' ],
	[ 'postgres', '', "SET cqrs_es.node_id = 'one'", '22023' ],
	[ 'postgres', '', 'SET cqrs_es.node_id = 512', '22023' ],
	[ 'postgres', '', 'SET cqrs_es.node_id = 7', 'version 1' ],
	[ 'postgres', '', "SET cqrs_es.require_tenant = 'perhaps'", '22023' ],
	[ 'postgres', '', 'SET cqrs_es.require_tenant = yes', 'QE007' ],
	[ 'writer', '', 'SET cqrs_es.require_tenant = off', '42501' ],
	[ 'writer', '', "SET cqrs_es.context = 'no json'", '22023' ],
	[ 'writer', '', "SET cqrs_es.context = '[]'", '22023' ],
	[ 'writer', '-c cqrs_es.context=5', '', '22023' ],
	[ 'writer', '', q{SET cqrs_es.context = '{"a": 1}'}, 'version 1' ],
	[ 'writer', '', q{SET cqrs_es.context = 'no json'; SET cqrs_es.context = '{"a": 1}'}, 'version 1' ],
	[ 'writer', '', q{SET cqrs_es.context = 'no json'; BEGIN; SET LOCAL cqrs_es.context = '{"a": 1}'}, '22023' ],
	[ 'writer', '', q{BEGIN; SET cqrs_es.context = 'no json'; SET LOCAL cqrs_es.context = '{"a": 1}'}, '22023' ],
	[ 'writer', '-c cqrs_es.context=5', q{SET cqrs_es.context = '{"a": 1}'}, '22023' ],
	[ 'writer', '', q{BEGIN; SET LOCAL cqrs_es.context = 'no json'; ROLLBACK}, 'version 1' ],
	[ 'writer', '', q{BEGIN; SAVEPOINT s; SET LOCAL cqrs_es.context = 'no json'; ROLLBACK TO s}, 'version 1' ],
  )
{
	my ($role, $options, $sql, $expected) = @$_;
	is(session($role, $options, $sql . $append), $expected, join(' ', grep { $_ ne '' } $role, $options, $sql =~ s/x{256}/xxx/r) . " -> $expected");
}

# Once it is loaded, the server refuses at once.
is(session('writer', '', "LOAD 'cqrs_es'; SET cqrs_es.context = 'no json'; SELECT 1"), '42501', 'an ordinary role cannot LOAD');
is(session('writer', '', "SELECT cqrs_es.current_tenant(); SET cqrs_es.context = 'no json';"), '22023', 'loaded: a context that is none');
is(session('writer', '', 'SELECT cqrs_es.current_tenant(); SET cqrs_es.require_tenant = off;'), '42501', 'loaded: not for everyone');
is(session('postgres', '', 'SELECT cqrs_es.current_tenant(); SET cqrs_es.tennant_id = 1;'), '42602', 'loaded: none of ours');

# For roles and databases.
$node->safe_psql('postgres', q{ALTER ROLE writer SET cqrs_es.tennant_id = 'acme'});
is(session('writer', '', $append), '42704', 'a mistyped setting of a role');
$node->safe_psql('postgres', q{ALTER ROLE writer RESET ALL; ALTER DATABASE postgres SET cqrs_es.require_tenant = on});
is(session('writer', '', $append), 'QE007', 'a database that requires a tenant');
is(session('writer', '-c cqrs_es.require_tenant=off', $append), '42501', 'is not talked out of it');
is(session('postgres', '-c cqrs_es.require_tenant=off', $append), 'version 1', 'except by a superuser');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET cqrs_es.require_tenant');

# The list of what is known has all that is defined: each can be set early.
my @settings = split /\n/, $node->safe_psql('postgres', q{LOAD 'cqrs_es'; SELECT name || ' = ' || quote_literal(boot_val) FROM pg_settings WHERE name LIKE 'cqrs\\_es.%'});
cmp_ok(scalar @settings, '>=', 9, 'there are settings');
is(session('postgres', '', "SET $_$append"), 'version 1', "early: SET $_") foreach @settings;

# The server finds every setting, its own, others' and ours, wherever ours came in between.
for my $options ('', '-c cqrs_es.node_id=3', '-c aa.x=1 -c CQRS_E.x=1 -c cqrs_es.settle_timeout=1 -c cqrs_es1.x=1 -c zz.x=1')
{
	is(session('postgres', $options, q{CREATE TEMP TABLE earlier AS SELECT name FROM pg_settings WHERE NOT starts_with(name, 'cqrs_es.');
		LOAD 'cqrs_es';
		SELECT count(current_setting(name)) = count(*), array_agg(name) = array_agg(name ORDER BY lower(name) COLLATE "C"),
			count(*) FILTER (WHERE starts_with(name, 'cqrs_es.')) >= 9, count(*) FILTER (WHERE NOT starts_with(name, 'cqrs_es.')) = (SELECT count(*) FROM earlier)
		FROM pg_settings;
		SELECT count(*) FROM earlier WHERE current_setting(name) IS NULL;
		SELECT count(current_setting(x, true)) FROM unnest('{aa.x, cqrs_e.x, cqrs_es1.x, zz.x}'::text[]) AS x;}),
		"t|t|t|t\n0\n" . ($options =~ /aa/ ? 4 : 0), "in order, with $options");
}

# Also beside those that have the same name and another letter, which may have any byte: the file may
# say such, and what is not written as ours the server leaves there.
my @longer = map { s/ .*//r =~ s/^cqrs_es\.(.*)/CQRS_ES.$1\xc3\xa9/r } @settings;
$node->append_conf('postgresql.conf', join('', map { "$_ = 'x'\n" } @longer));
$node->reload;
ok($node->poll_query_until('postgres', "SELECT current_setting('$longer[-1]', true) = 'x'"), 'longer names are set');
is(session('postgres', '', qq{LOAD 'cqrs_es'; SELECT count(current_setting(name)) = count(*) FROM pg_settings;
	SELECT count(current_setting(x, true)) FROM unnest('{@{[join(',', @longer)]}}'::text[]) AS x;}),
	"t\n" . @longer, 'in order, beside longer names');

# Settings of PL/pgSQL, which loads it within a handler, or before, or not yet: handlers run under its defaults.
$node->safe_psql('postgres', q{
	CREATE TABLE seen (id text);
	CREATE FUNCTION asserting(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$BEGIN ASSERT false; END$$;
	CREATE FUNCTION plain(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$INSERT INTO public.seen VALUES (event.aggregate_id)$$;
	SELECT cqrs_es.create_projection('asserting', read_models => '{seen}');
	SELECT cqrs_es.define_handler('asserting', 'Asserted', 'asserting');
	SELECT cqrs_es.define_handler('asserting', 'Plain', 'plain');
});
my $plain = q{SELECT 'plain ' || (cqrs_es.append_event('t', gen_random_uuid()::text, 'Plain', '{}')).version;};
my $asserted = q{SELECT 'asserted ' || (cqrs_es.append_event('t', gen_random_uuid()::text, 'Asserted', '{}')).version;};
my $off = 'SET plpgsql.check_asserts = off;';
my $others = join '', map { "SET plpgsql.$_ = 'x';" } 'a' .. 'h';
is(session('postgres', '', $_->[1]), $_->[2], "PL/pgSQL: $_->[0]")
  foreach (
	[ 'as it is', $asserted, 'QE201' ],
	[ 'set before it is loaded', "$off $asserted", 'QE201' ],
	[ 'and after a handler without it', "$off $plain $asserted", 'QE201' ],
	[ 'set between two handlers', "$plain $off $asserted", 'QE201' ],
	[ 'loaded and set between them', "$plain LOAD 'plpgsql'; $off $plain $asserted", 'QE201' ],
	[ 'the same where others of its names are dropped', "$others $plain LOAD 'plpgsql'; $off $plain $asserted", 'QE201' ],
	[ 'set, then loaded, then set again', "SET plpgsql.check_asserts = on; $plain LOAD 'plpgsql'; $plain $off $asserted", 'QE201' ],
	[ 'the session keeps its own', "$off $plain SHOW plpgsql.check_asserts; LOAD 'plpgsql'; $plain SHOW plpgsql.check_asserts;", "plain 1\noff\nplain 1\noff" ]);

# With the library in session_preload_libraries they are there from the start.
$node->append_conf('postgresql.conf', "session_preload_libraries = 'cqrs_es'\n");
$node->reload;
is(session('postgres', '', 'SHOW cqrs_es.tenant_id;'), '', 'preloaded: SHOW');
is(session('postgres', '', "SET cqrs_es.tennant_id = 'acme';"), '42602', 'preloaded: none of ours');
is(session('writer', '', "SET cqrs_es.tenant_id = 'acme';"), '42501', 'preloaded: not for everyone');
is(session('writer', '', "SET cqrs_es.context = 'x';"), '22023', 'preloaded: a context that is none');

$node->stop;
done_testing();
