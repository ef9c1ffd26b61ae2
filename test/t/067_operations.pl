# What administrators do, and what happens to servers, beside a whole system at work.
#
# Tables are written anew (VACUUM FULL, CLUSTER, pg_repack), indexes are built, rebuilt and left half-built, columns are
# added and dropped; sessions are cancelled and terminated at random, the server is killed in rounds, by one of its processes or the postmaster.
# Nobody is told to stop for any of it. At the end everything is held against what was acknowledged.
#
# CQRS_ES_KILLS: how often the server is killed (4); CQRS_ES_OPERATIONS_SEED.

use strict;
use warnings FATAL => 'all';
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use lib "$ENV{TESTDIR}/test/include";
use Workload;

my $kills = $ENV{CQRS_ES_KILLS} || 4;
my $seed = $ENV{CQRS_ES_OPERATIONS_SEED} || 20261126;
my $node = PostgreSQL::Test::Cluster->new('operations');
$node->init;
$node->append_conf('postgresql.conf', "restart_after_crash = on\nlog_statement = none\nlog_min_error_statement = panic\nmax_connections = 40\n"
	. "deadlock_timeout = 100ms\nautovacuum_naptime = 1s");
$node->start;
my $load = Workload->new($node, seed => $seed);
$load->set_up;
$load->start;
srand $seed;

my $repack = qx{pg_config --bindir} =~ s/\n//r . '/pg_repack';
if (-x $repack) { $node->safe_psql('postgres', 'CREATE EXTENSION pg_repack') }
else { undef $repack }

# --- administrators: each operation is tried until it was done

my $own = q{relnamespace IN ('cqrs_es'::regnamespace, 'public'::regnamespace)};
my @events_tables = ('cqrs_es.events', 'cqrs_es.snapshots', 'cqrs_es.shares', 'cqrs_es.subscriptions', 'totals', 'later', 'accounts', 'effects');
my %operations = (
	'VACUUM FULL' => [ map { "VACUUM FULL $_" } @events_tables ],
	'VACUUM FULL of the whole database' => ['VACUUM FULL'],
	'CLUSTER' => [ 'CLUSTER cqrs_es.events USING events_pkey', 'CLUSTER totals USING totals_pkey', 'CLUSTER each_stream USING each_stream_pkey' ],
	'REINDEX' => [ 'REINDEX TABLE cqrs_es.events', 'REINDEX TABLE totals', 'REINDEX TABLE cqrs_es.snapshots' ],
	'REINDEX CONCURRENTLY' => [ map { "REINDEX TABLE CONCURRENTLY $_" } 'cqrs_es.events', 'cqrs_es.snapshots', 'totals', 'later', 'effects' ],
	'VACUUM FREEZE' => ['VACUUM (FREEZE, ANALYZE)'],
	'ADD COLUMN' => [
		'ALTER TABLE cqrs_es.events ADD COLUMN IF NOT EXISTS note text', 'ALTER TABLE totals ADD COLUMN IF NOT EXISTS note text DEFAULT 1',
		'ALTER TABLE entries ADD COLUMN IF NOT EXISTS made_at timestamptz DEFAULT clock_timestamp()',
		'ALTER TABLE cqrs_es.events DROP COLUMN IF EXISTS note', 'ALTER TABLE totals DROP COLUMN IF EXISTS note',
		'ALTER TABLE entries DROP COLUMN IF EXISTS made_at' ],
	'ADD COLUMN with a default' => [
		'ALTER TABLE cqrs_es.events ADD COLUMN IF NOT EXISTS region text NOT NULL DEFAULT current_setting(\'cluster_name\')',
		'ALTER TABLE cqrs_es.events DROP COLUMN IF EXISTS region' ],
	'CREATE INDEX CONCURRENTLY' => [
		q{CREATE INDEX CONCURRENTLY IF NOT EXISTS keys ON cqrs_es.events ((payload->>'key'))}, 'CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ids ON cqrs_es.events (event_id)',
		'CREATE INDEX CONCURRENTLY IF NOT EXISTS sums ON totals (sum)',
		map { "DROP INDEX CONCURRENTLY IF EXISTS $_" } 'cqrs_es.keys', 'cqrs_es.ids', 'sums' ],
	'a cancelled CREATE INDEX CONCURRENTLY' => \&cancel_index,
	'pg_repack' => $repack ? \&repack : undef);

# What was begun and not finished is in nobody's way, and is cleared away.
sub clear
{
	my $results = $load->attempt("SELECT indexrelid::regclass FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid WHERE NOT indisvalid AND $own") or return;
	foreach my $row (@{ $results->[0] })
	{
		$load->attempt("DROP INDEX IF EXISTS $row->[0]") or return;
	}
	return 1 if !$repack;

	# pg_repack's own tables have the row types of those it worked on, which then get no column
	$results = $load->attempt(q{SELECT FROM pg_class WHERE relnamespace = 'repack'::regnamespace AND relkind = 'r'}) or return;
	return !@{ $results->[0] } || $load->attempt('DROP EXTENSION pg_repack CASCADE; CREATE EXTENSION pg_repack');
}

# Cancelled while it waits for a snapshot: the index is there, gets all rows, and may not be used.
sub cancel_index
{
	my $other = $load->connected;
	my $done;

	foreach my $unique ('', 'UNIQUE')
	{
		# one that was built all the same, because who held the snapshot has died
		$load->attempt('DROP INDEX IF EXISTS cqrs_es.half') or last;
		$other->try('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
		$load->attempt("SET statement_timeout = '300ms'; SELECT 1") or last;
		$load->attempt("CREATE $unique INDEX CONCURRENTLY half ON cqrs_es.events (event_id)");
		$load->attempt("SET statement_timeout = '60s'; SELECT 1") or last;
		$other->try('COMMIT');
		my $results = $load->attempt(q{SELECT indisready FROM pg_index WHERE indexrelid = to_regclass('cqrs_es.half') AND NOT indisvalid}) or last;
		$load->{seen}{"half-built $unique"}++ if @{ $results->[0] };
		usleep(200_000);		# appends go on beside it
		$done = @{ $results->[0] } && $load->attempt('DROP INDEX cqrs_es.half') or last;
	}
	$other->close;
	return $done;
}

# From outside, by several tables. Where it was ended in the middle its trigger stays, which appends must not mind.
sub repack
{
	foreach my $table ('cqrs_es.events', 'totals', 'accounts')
	{
		local $ENV{PGAPPNAME} = 'pg_repack';
		my $status = system "$repack -h ${\$node->host} -p ${\$node->port} -d postgres --wait-timeout=20 -t $table >> ${\$load->file('repack')} 2>&1";
		next if !$status;
		usleep(100_000);			# with its trigger
		return;
	}
	return 1;
}

sub administrate
{
	foreach my $name (shuffle grep { $operations{$_} } sort keys %operations)
	{
		my $operation = $operations{$name};
		for (my $tries = 1;; $tries++)
		{
			my $done = clear() && (ref $operation eq 'CODE' ? $operation->() : !grep { !$load->attempt($_) } @$operation);
			append_to_file($load->file('administrated'), "$name\t$tries\n") if $done;
			last if $done || $tries == 100;
			usleep(rand 200_000);
		}
	}
	usleep(100_000) until clear();
	$load->set('administrated_all');
	return;
}

# --- sessions are cancelled and terminated

sub meddle
{
	until ($load->is_set('stop_meddling'))
	{
		my $how = rand() < 0.6 ? 'pg_cancel_backend' : 'pg_terminate_backend';
		# not those of this test itself
		$load->attempt("SELECT $how(pid) FROM (SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name <> '$ENV{PGAPPNAME}'
			AND (backend_type = 'client backend' OR backend_type LIKE 'cqrs_es%') ORDER BY random() LIMIT 1) AS one");
		append_to_file($load->file('meddled'), "$how\n");
		usleep(50_000 + rand 300_000);
	}
	return;
}

# --- the server is killed

sub kill_process
{
	my $offset = -s $node->logfile;
	my ($pid, $type) = split /\|/, $node->safe_psql('postgres', 'SELECT pid, backend_type FROM pg_stat_activity WHERE pid <> pg_backend_pid() ORDER BY random() LIMIT 1');

	return '' if !kill 'KILL', $pid;		# it was gone before
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
	$node->poll_query_until('postgres', 'SELECT true');
	return $type;
}

sub kill_postmaster
{
	$load->kill_server;
	$node->start;
	return 'postmaster';
}

ok($load->until_acknowledged(200), 'there is load');
$load->run('administrator', \&administrate);
$load->run('meddler', \&meddle);
my %killed;
for my $round (1 .. $kills)
{
	$load->until_acknowledged(100 + rand 200) or last;
	usleep(rand 500_000);
	my $killed = '';
	for (1 .. 10)
	{
		$killed = $round % 3 == 0 ? kill_postmaster() : kill_process();
		last if $killed;
	}
	$killed{$killed}++;
}
ok($load->until_acknowledged(200), 'the load goes on');
ok($load->wait_until(sub { $load->is_set('administrated_all') }), 'administrators have come to an end');
$load->set('stop_meddling');
$load->end_of(qr/^(administrator|meddler)/);
$load->calm;

my $killed = 0;
$killed += $_ foreach values %killed;
is($killed, $kills, 'the server was killed ' . join ', ', map { "$_ $killed{$_}" } sort keys %killed);
my %tries = map { split /\t/ } $load->lines_of('administrated');
foreach my $name (sort keys %operations)
{
	SKIP:
	{
		skip 'pg_repack is not there (Debian: postgresql-NN-repack)', 1 if !$operations{$name};
		ok($tries{$name}, "done: $name") || $name eq 'pg_repack' && diag(slurp_file($load->file('repack')));
	}
}
my %meddled;
$meddled{$_}++ foreach $load->lines_of('meddled');
cmp_ok($meddled{$_} // 0, '>', 3, "sessions met $_") foreach 'pg_cancel_backend', 'pg_terminate_backend';
note(join "\n", map { "$_: $tries{$_} tries" } sort keys %tries);
$load->check('after all of it');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid WHERE NOT indisvalid AND $own"), '0', 'no index is left half-built');
# (the worker of asynchronous projections holds one while it waits)
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype IN ('advisory', 'object')
	AND backend_type = 'client backend' AND pid <> pg_backend_pid()}), '0', 'no lock is left');
unlike(slurp_file($node->logfile), qr/PANIC:|WARNING:  .*leak|terminated by signal (?!9:|9\b)/, 'no process fell by itself, and nothing leaked');

$node->stop;
done_testing();
