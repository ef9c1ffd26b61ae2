# Sessions that come and go, each looking the log up in the catalog, beside all
# that makes the server tell them that what they have seen there is old.  What
# they see may be old, but it must not be gone: no backend dies.  And what a
# session had half looked up when it was interrupted is looked up again.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant LOAD_SECONDS => 8;

my $node = PostgreSQL::Test::Cluster->new('invalidation');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum = off\nrestart_after_crash = on\nlog_statement = none");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	SELECT cqrs_es.create_aggregate('t', snapshot_every => 2);
	SELECT cqrs_es.define_reducer('t', 'e', '[{"op": "increment", "path": "/n"}]');
	SELECT cqrs_es.define_command('t', 'c', $$ '{"type": "e", "payload": {}}'::jsonb $$);
	CREATE TABLE seen (n bigint);
	SELECT cqrs_es.create_projection('seen', read_models => '{seen}');
	SELECT cqrs_es.define_handler('seen', 'e', 'INSERT INTO seen VALUES (event.global_position)');
	CREATE FUNCTION same(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT $1';
	SELECT cqrs_es.define_upcaster('e', '1', '2', 'same(jsonb)');
});

# start_pgbench NAME CLIENTS SCRIPT OPTION...: for the time of the load.
sub start_pgbench
{
	my ($name, $clients, $script, @options) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/$name.sql";
	my %bench = (name => $name, out => '');

	append_to_file($file, $script);
	$bench{run} = IPC::Run::start(
		[ 'pgbench', '-n', '-c', $clients, '-T', LOAD_SECONDS, @options, '-f', $file, $node->connstr('postgres') ],
		'<', \undef, '>', \$bench{out}, '2>&1');
	return \%bench;
}

my @benches = (
	start_pgbench('visitors', 5, q{
		SELECT cqrs_es.stream_version('t', 'none');
		SELECT cqrs_es.append_event('t', gen_random_uuid()::text, 'e', '{}');
		SELECT cqrs_es.execute_command('t', gen_random_uuid()::text, 'c');
		SELECT count(*) FROM cqrs_es.read_all(max_count => 10);
		}, '-C'),

	# one after the other: they would wait for each other
	start_pgbench('maintenance', 1, q{
		ALTER TABLE cqrs_es.events SET (fillfactor = 90);
		ALTER TABLE cqrs_es.events SET (fillfactor = 91);
		ALTER TABLE cqrs_es.events SET (fillfactor = 92);
		ALTER TABLE cqrs_es.events SET (fillfactor = 93);
		ALTER TABLE cqrs_es.events SET (fillfactor = 94);
		ALTER TABLE cqrs_es.events SET (fillfactor = 95);
		VACUUM cqrs_es.events;
		REINDEX INDEX CONCURRENTLY cqrs_es.events_global_position_idx;
		}),
	# each time another one: what is there already is left
	start_pgbench('declarations', 1, q{
		\set n random(1, 1000000)
		SELECT cqrs_es.define_reducer('t', 'f', format('[{"op": "increment", "path": "/m%s"}]', :n)::jsonb);
		CREATE OR REPLACE FUNCTION same(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT $1';
		SELECT cqrs_es.define_handler('seen', 'f', format('DELETE FROM seen WHERE n > %s', :n));
		}));

foreach my $bench (@benches)
{
	ok($bench->{run}->finish, "$bench->{name} met no error") or diag($bench->{out});
	my ($done) = $bench->{out} =~ /number of transactions actually processed: (\d+)/;
	cmp_ok($done // 0, '>', 0, "$bench->{name} was at work: " . ($done // 0));
}
is(join("\n", slurp_file($node->logfile) =~ /.*terminated by signal.*/g), '', 'no backend died')
  or die 'the server is down';

is($node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.events LEFT JOIN seen ON n = global_position WHERE n IS NULL}),
	'0', 'every event was handled');

# A session begins while a registry is not there.  When it is, the session hears
# of what changes.
$node->safe_psql('postgres', q{
	SELECT FROM cqrs_es.append_event('t', 'half', 'e', '{}');
	ALTER EVENT TRIGGER cqrs_es_keep_place DISABLE;
	ALTER TABLE cqrs_es.reducers RENAME TO elsewhere;
});
my ($status, $stdout, $stderr) = $node->psql('postgres', q{
	SELECT event_version FROM cqrs_es.read_stream('t', 'half');
	ALTER TABLE cqrs_es.elsewhere RENAME TO reducers;
	SELECT event_version FROM cqrs_es.read_stream('t', 'half');
	SELECT FROM cqrs_es.define_upcaster('e', '2', '3', 'same(jsonb)');
	SELECT event_version FROM cqrs_es.read_stream('t', 'half');
}, on_error_stop => 0);
like($stderr, qr/relation "cqrs_es.reducers" does not exist/, 'a registry is missing');
like($stdout, qr/^2\s+3$/, 'a change is heard of, after a first look that failed');

# Sessions that are interrupted at some point of their first look, and go on.
my $unlike = 0;
foreach my $ms (map { ($_) x 3 } 1 .. 12)
{
	($status, $stdout, $stderr) = $node->psql('postgres', qq{
		SET statement_timeout = $ms;
		SELECT FROM cqrs_es.append_event('t', 'half', 'e', '{}');
		SELECT FROM cqrs_es.aggregate_state('t', 'half');
		SELECT FROM cqrs_es.execute_command('t', 'half', 'c');
		RESET statement_timeout;
		SELECT (cqrs_es.aggregate_state('t', 'half')->>'n')::bigint = cqrs_es.stream_version('t', 'half'),
			(SELECT version FROM cqrs_es.execute_command('t', 'half', 'c')) = cqrs_es.stream_version('t', 'half');
	}, on_error_stop => 0);
	next if $stdout =~ /^\s*t\|t$/;
	$unlike++;
	diag("$ms ms: $stdout $stderr");
}
is($unlike, 0, 'interrupted sessions go on with what is right');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.events LEFT JOIN seen ON n = global_position WHERE n IS NULL}),
	'0', 'and every event was handled');

# A session that has appended where nothing was declared knows that without reading it, and hears
# of the first declaration of each kind.
$node->safe_psql('postgres', 'CREATE DATABASE blank');
$node->safe_psql('blank', 'CREATE EXTENSION cqrs_es; CREATE TABLE seen (n bigint)');
for (
	[ 'projection', q{SELECT cqrs_es.create_projection('seen', read_models => '{seen}'), cqrs_es.define_handler('seen', 'e', 'INSERT INTO seen VALUES (1)')}, 'SELECT count(*) FROM seen' ],
	[ 'aggregate type', q{SELECT cqrs_es.create_aggregate('t', snapshot_every => 1), cqrs_es.define_reducer('t', 'e', '[{"op": "increment", "path": "/n"}]')}, 'SELECT count(*) FROM cqrs_es.snapshots' ],
	[ 'tags', q{SELECT cqrs_es.define_tags('e', 'k:{/k}'); CALL cqrs_es.retag('e')}, q{SELECT count(*) - 1 FROM cqrs_es.read_all(tags => '{k:1}')} ],
	[ 'jump', q{SELECT cqrs_es.after_failover()}, 'SELECT count(*) FROM cqrs_es.events WHERE global_position > 1::bigint << 32' ],
  )
{
	my ($kind, $declare, $count) = @$_;
	my ($database) = $kind =~ /^(\w+)/;
	my $append = q{SELECT FROM cqrs_es.append_event('t', 'a', 'e', '{"k": 1}');};
	my $file = "$PostgreSQL::Test::Utils::tmp_check/declare.sql";

	unlink $file;
	append_to_file($file, $declare);
	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE blank");
	is($node->safe_psql($database, "$append\n\\! psql -X -q -d '" . $node->connstr($database) . "' -f '$file' > /dev/null\n$append\n$count;"),
		'1', "the first of its kind: $kind");
}

$node->stop;
done_testing();
