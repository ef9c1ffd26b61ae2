# The library is missing, of another version, or broken (a server that was moved
# without the package): who has nothing to do with the extension notices nothing
# but a warning, and the log can be read and dumped. It is played by the functions'
# entries in the catalog, which name another file then.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('library');
$node->init;
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();

# What strangers have, made anew for each fault.
my $strangers = q{
	SET client_min_messages = warning;
	DROP SCHEMA IF EXISTS strangers CASCADE;
	CREATE SCHEMA strangers AUTHORIZATION stranger;
	SET SESSION AUTHORIZATION stranger;
	SET search_path = strangers;
	CREATE TABLE t (a int PRIMARY KEY, b int, c text);
	CREATE TABLE parts (a int) PARTITION BY RANGE (a);
	CREATE TABLE part PARTITION OF parts FOR VALUES FROM (1) TO (2);
	CREATE TABLE gone (a serial, b int REFERENCES t);
	CREATE FUNCTION f(int) RETURNS int LANGUAGE sql RETURN 1;
	CREATE FUNCTION g(t) RETURNS int LANGUAGE sql RETURN 1;
	CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN END';
	CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int);
	CREATE VIEW v AS SELECT a FROM t;
	CREATE MATERIALIZED VIEW m AS SELECT a FROM t;
	CREATE TYPE e AS ENUM ('x');
	CREATE DOMAIN d AS int CHECK (strangers.f(VALUE) = 1);
	CREATE SEQUENCE s;
	CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION tf();
	CREATE POLICY pol ON t USING (true);
};
my @drops = (
	'CREATE TEMP TABLE tmp (a int); DROP TABLE tmp',
	'BEGIN; CREATE TEMP TABLE tmp (a int) ON COMMIT DROP; COMMIT',
	'ALTER TABLE t DROP COLUMN b CASCADE', 'ALTER TABLE gone ALTER b TYPE bigint', 'DROP TRIGGER tr ON t',
	'DROP POLICY pol ON t', 'ALTER TABLE parts DETACH PARTITION part', 'DROP TABLE part', 'DROP TABLE parts', 'DROP TABLE gone',
	'DROP DOMAIN d', 'DROP FUNCTION f(int)', 'DROP PROCEDURE p', 'DROP AGGREGATE total(int)',
	'DROP SEQUENCE s', 'DROP TYPE e', 'DROP FUNCTION tf CASCADE', 'DROP TABLE t CASCADE', 'DROP OWNED BY stranger');

$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE ROLE stranger;
	CREATE ROLE tenant_reader;
	GRANT USAGE ON SCHEMA cqrs_es TO tenant_reader;
	GRANT SELECT ON cqrs_es.events TO tenant_reader;
	CREATE TABLE counts (n int);
	CREATE FUNCTION counted(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$ SELECT state $$;
	SELECT cqrs_es.create_aggregate('a');
	SELECT cqrs_es.define_reducer('a', 'e', 'counted(jsonb, cqrs_es.event)');
	SELECT cqrs_es.create_projection('counts', read_models => '{counts}');
	SELECT cqrs_es.define_handler('counts', 'e', 'INSERT INTO counts VALUES (1)');
	SELECT cqrs_es.append_event('a', '1', 'e', '{"n": 1}');
	SELECT cqrs_es.append_event('a', '2', 'e', '{"n": 2}');
});

sub set_library
{
	my ($file) = @_;

	$node->safe_psql('postgres', qq{SET allow_system_table_mods = on;
		UPDATE pg_proc SET probin = '$file' WHERE pronamespace = 'cqrs_es'::regnamespace AND probin IS NOT NULL});
}

sub drops_work
{
	my ($how, $warning) = @_;

	$node->safe_psql('postgres', $strangers);
	foreach my $drop (@drops)
	{
		my ($status, $stdout, $stderr) = $node->psql('postgres',
			"SET SESSION AUTHORIZATION stranger; SET search_path = strangers; SET client_min_messages = warning; $drop");
		is($status, 0, "$how: $drop") or diag($stderr);
		like($stderr, $warning, "$how: told with $drop") if $drop =~ /^DROP (TABLE|FUNCTION)/;
		is($stderr, '', "$how: nothing said of $drop") if $drop =~ /^(CREATE TEMP|BEGIN|DROP TRIGGER|DROP AGGREGATE|DROP SEQUENCE)/;
	}
}

my $library = $node->safe_psql('postgres', "SELECT DISTINCT probin FROM pg_proc WHERE pronamespace = 'cqrs_es'::regnamespace AND probin IS NOT NULL");
append_to_file("$dir/broken.so", "this is no library\n");

drops_work('with the library', qr/^$/);
foreach my $fault (
	[ 'missing', '$libdir/cqrs_es_gone', qr/could not access file/ ],
	[ 'of another version', '$libdir/plpgsql', qr/could not find function/ ],
	[ 'broken', "$dir/broken.so", qr/could not load library/ ])
{
	my ($how, $file, $error) = @$fault;

	set_library($file);
	drops_work($how, qr/^psql:<stdin>:1: WARNING: .*could not check whether cqrs_es uses what is dropped or renamed: $error.*\nHINT: /);

	# what works
	is($node->safe_psql('postgres', q{SELECT aggregate_id, payload FROM cqrs_es.events ORDER BY global_position}),
		qq(1|{"n": 1}\n2|{"n": 2}), "$how: the owner reads the log");
	is($node->safe_psql('postgres', q{VACUUM ANALYZE cqrs_es.events; REINDEX TABLE cqrs_es.events; SELECT count(*) FROM cqrs_es.projections}),
		'1', "$how: maintenance, and the declarations are read");
	$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', "$dir/dump.sql", '--no-sync' ], "$how: pg_dump");
	like(slurp_file("$dir/dump.sql"), qr/\ta\t2\te\t1\t\{"n": 2\}/, "$how: has the events");
	# what concerns the extension fails
	my ($status, $stdout, $stderr) = $node->psql('postgres', q{SELECT cqrs_es.append_event('a', '1', 'e', '{}')});
	like($stderr, $error, "$how: an append says what is wrong");
	($status, $stdout, $stderr) = $node->psql('postgres', q{SET ROLE tenant_reader; SELECT count(*) FROM cqrs_es.events});
	like($stderr, $error, "$how: so does the policy that keeps tenants apart");
	set_library($library);
}

# The dump that was made then can be restored.
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', "$dir/dump.sql" ], 'that dump is restored');
is($node->safe_psql('restored', q{SELECT cqrs_es.append_event('a', '2', 'e', '{"n": 3}', 1); SELECT count(*) FROM counts}), qq|(2,3)\n3|, 'and all goes on');

# With the library there, refusals are refusals, and what else happens is not hidden.
foreach my $drop ('DROP TABLE counts', 'DROP FUNCTION counted', 'DROP OWNED BY postgres CASCADE', 'ALTER TABLE counts RENAME TO c; DROP TABLE c')
{
	my ($status, $stdout, $stderr) = $node->psql('postgres', $drop, on_error_stop => 1);
	next if $drop =~ /OWNED/ && $stderr =~ /required by the database system/;
	like($stderr, qr/ERROR:  cannot drop (table|function) /, "refused: $drop");
	$node->safe_psql('postgres', 'ALTER TABLE IF EXISTS c RENAME TO counts');
}
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN');
$holder->query_safe('LOCK TABLE cqrs_es.projections');
$node->safe_psql('postgres', $strangers);
my ($status, $stdout, $stderr) = $node->psql('postgres', q{SET lock_timeout = '10ms'; DROP TABLE strangers.gone});
like($stderr, qr/ERROR:  canceling statement due to lock timeout/, 'a lock timeout stays one');
$holder->query_safe('ROLLBACK');
$holder->quit;

# Without PL/pgSQL the extension cannot be.
($status, $stdout, $stderr) = $node->psql('postgres', 'DROP EXTENSION plpgsql');
like($stderr, qr/cannot drop extension plpgsql because other objects depend on it/, 'PL/pgSQL is needed');
is($node->safe_psql('postgres', q{SELECT 'DROP EXTENSION cqrs_es CASCADE'; DROP EXTENSION cqrs_es CASCADE; DROP TABLE counts; SELECT 'done'}),
	qq(DROP EXTENSION cqrs_es CASCADE\ndone), 'the extension itself can be dropped');

$node->stop;
done_testing();
