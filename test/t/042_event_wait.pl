# Waiting for events beside what a server has to do: what a waiter holds, vacuum, DDL,
# cancellation, prepared transactions, a standby. With as many connections as a large
# server allows, which is what the list of those who wait is made for.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

use constant WAITERS => 8;

my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "max_connections = 2000\nmax_prepared_transactions = 10");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE gate ();
	CREATE ROLE reader LOGIN;
	GRANT USAGE ON SCHEMA cqrs_es TO reader;
	GRANT SELECT ON cqrs_es.events TO reader;
	GRANT SELECT ON gate TO reader;
});

my $tag = q{locktype = 'object' AND classid = 'pg_extension'::regclass AND objid = 0};

# Sessions that wait; the SQL is the first that each of them does.
sub start
{
	my ($sql, $on, @options) = @_;
	my $waiter = { out => '', err => '', node => $on // $node };
	$waiter->{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=0', '-d', $waiter->{node}->connstr('postgres'), @options, '-c', $sql ],
		'<', \undef, '>', \$waiter->{out}, '2>', \$waiter->{err}, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $waiter;
}

sub finish
{
	my ($waiter) = @_;
	$waiter->{run}->finish;
	chomp(@$waiter{qw(out err)});
	return $waiter->{out} . ($waiter->{err} =~ /^(?:ERROR|FATAL): +(.*)/m ? "error: $1" : '');
}

sub until_waiting
{
	my ($n, $on) = @_;
	return ($on // $node)->poll_query_until('postgres', "SELECT count(*) = $n FROM pg_locks WHERE $tag");
}

sub end { return $node->safe_psql('postgres', 'SELECT coalesce(max(global_position), 0) FROM cqrs_es.events') }
sub append { return $node->safe_psql('postgres', "SET lock_timeout = '10 s'; SELECT global_position FROM cqrs_es.append_event('account', '$_[0]', '$_[0]', '1')") }
sub wait_after { return "CALL cqrs_es.wait_for_events(after_position => $_[0], timeout => '" . ($_[1] // '100 s') . "')" }

# Until the sleeps are as long as they get.
sub until_asleep
{
	return $node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity
		WHERE query LIKE 'CALL cqrs_es.wait_for_events%' AND clock_timestamp() - query_start > '2 s'});
}

#-------------------------------------------------------------------------
# what a waiter holds
#-------------------------------------------------------------------------

my @waiters = map { start(wait_after(end())) } 1 .. WAITERS;
push @waiters, start("CALL cqrs_es.wait_until_settled(@{[ end() + 1 ]}, '100 s')");
ok(until_waiting(scalar @waiters), 'all of them wait');
ok($node->poll_query_until('postgres', qq{
	SELECT bool_and(backend_xmin IS NULL AND backend_xid IS NULL) FROM pg_stat_activity WHERE query LIKE 'CALL cqrs_es.wait_%'}),
	'a waiter has no snapshot and no xid');
is($node->safe_psql('postgres', q{
	SELECT DISTINCT locktype, classid::regclass, objid, mode, granted FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE query LIKE 'CALL cqrs_es.wait_%' ORDER BY 1}),
	"object|pg_extension|0|RowExclusiveLock|t\nvirtualxid||" . '|ExclusiveLock|t', 'it holds its virtual xid and the lock of who waits')
	or diag($node->safe_psql('postgres', 'SELECT * FROM pg_locks'));

# So vacuum takes away what is updated meanwhile. Beside the function it may not: its caller's
# statement has a snapshot.
sub dead_rows
{
	# each in a session of its own, whose end tells the statistics
	$node->safe_psql('postgres', $_) foreach 'UPDATE hot SET n = n + 1', 'VACUUM hot';
	return $node->safe_psql('postgres', q{SELECT pg_stat_get_dead_tuples('hot'::regclass)});
}
$node->safe_psql('postgres', 'CREATE TABLE hot AS SELECT 1 AS n');
is(dead_rows(), '0', 'beside waiters vacuum removes dead rows');
my $holding = start("SELECT cqrs_es.wait_for_position(@{[ end() + 1 ]}, '100 s')");
until_waiting(scalar @waiters + 1);
is(dead_rows(), '1', '... and beside the function it does not');
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT cqrs_es.wait_for_position(%'});
like(finish($holding), qr/^error: canceling/, 'the function ends');

SKIP:
{
	skip 'no /proc here', 1 unless -r "/proc/$$/stat";
	my @pids = split /\n/, $node->safe_psql('postgres', "SELECT pid FROM pg_locks WHERE $tag");
	my $ticks = sub { my $sum = 0; foreach my $pid (@pids) { my @stat = split / /, slurp_file("/proc/$pid/stat"); $sum += $stat[13] + $stat[14] } return $sum };
	until_asleep();
	my $before = $ticks->();
	Time::HiRes::sleep(2);
	cmp_ok($ticks->() - $before, '<=', 4, 'nine waiters use next to no processor in two seconds');
}

# What needs a lock on the log gets it, and appends do not queue behind it.
foreach my $ddl ('LOCK TABLE cqrs_es.events', 'ALTER TABLE cqrs_es.events ALTER payload SET STATISTICS 200',
	'LOCK TABLE ONLY cqrs_es.aggregates', 'ALTER SEQUENCE cqrs_es.events_global_position_seq OWNED BY NONE', 'DROP EXTENSION cqrs_es CASCADE')
{
	is($node->psql('postgres', "SET lock_timeout = '10 s'; BEGIN; $ddl; ROLLBACK"), 0, "beside waiters: $ddl");
}
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE $tag"), WAITERS + 1, 'they still wait');

my $position = append('first');
is(join(' ', map { finish($_) } @waiters), join(' ', ('t') x @waiters), 'one append wakes them all');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE $tag"), '0', 'and nobody is registered any more');

#-------------------------------------------------------------------------
# woken, not looking by chance
#-------------------------------------------------------------------------

# Asleep, a waiter looks once a second by itself.  Three times, and the median counts, from
# when the act says that somebody could be woken.
sub median_of_three
{
	my ($go) = @_;
	my @times;
	foreach my $i (1 .. 3)
	{
		my ($waiter, $act) = $go->();
		until_asleep();
		my $started = $act->();
		is(finish($waiter), 't', 'it comes');
		push @times, Time::HiRes::time() - $started;
	}
	return (sort { $a <=> $b } @times)[1];
}

cmp_ok(median_of_three(sub { (start(wait_after(end())), sub { my $now = Time::HiRes::time(); append('woken'); $now }) }), '<', 0.4, 'a commit wakes');

# A rollback wakes as well; here a waiter looks oftener by itself, for someone is at it.
my $writer = $node->background_psql('postgres');
$writer->query_safe("BEGIN; SELECT FROM cqrs_es.append_event('account', 'late', 'late', '1')");
my $waiter = start(wait_after(append('above a gap') - 2));
until_asleep();
$writer->query_safe('ROLLBACK');
is(finish($waiter), 't', 'a rollback wakes');
$writer->quit;

#-------------------------------------------------------------------------
# ends of a wait
#-------------------------------------------------------------------------

is(finish(start(wait_after(end(), '50 ms'))), 'f', 'time runs out');
is(finish(start(wait_after(end()), undef, '-c', "SET statement_timeout = '100 ms'")), 'error: canceling statement due to statement timeout', 'statement_timeout');
$waiter = start(wait_after(end()));
until_waiting(1);
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE $tag");
is(finish($waiter), 'error: canceling statement due to user request', 'pg_cancel_backend');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE $tag"), '0', 'who was cancelled is not registered');

# ... nor is its session, which goes on
my ($out, $err) = ('', '');
is($node->psql('postgres', "SET statement_timeout = '100 ms';\n" . wait_after(end()) . ";\nRESET statement_timeout;\nSELECT count(*) FROM pg_locks WHERE $tag;\n" .
	wait_after(0) . ";\nBEGIN;\n" . wait_after(0) . ";\nROLLBACK;\n" . wait_after(0), stdout => \$out, stderr => \$err, on_error_stop => 0), 0, 'a session goes on after errors');
is($out, "0\nt\nt", '... and waits again');

$waiter = start(wait_after(end()));
until_waiting(1);
$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE $tag");
like(finish($waiter), qr/terminating connection/, 'pg_terminate_backend');
ok(until_waiting(0), 'and nothing is left');

#-------------------------------------------------------------------------
# what wakes nobody
#-------------------------------------------------------------------------

foreach my $decision ('COMMIT', 'ROLLBACK')
{
	my $end = end();
	$node->safe_psql('postgres', "BEGIN; SELECT FROM cqrs_es.append_event('account', 'prepared $decision', 'prepared', '1'); PREPARE TRANSACTION 'p'");
	append('above it');
	my @waiters = (start(wait_after($end)), start("CALL cqrs_es.wait_until_settled($end + 1, '100 s')"), start("SELECT cqrs_es.wait_for_position($end + 1, '100 s')"));
	ok(until_waiting(3), "three wait for a prepared transaction, until $decision");
	until_asleep();
	$node->safe_psql('postgres', "$decision PREPARED 'p'");
	is(join(' ', map { finish($_) } @waiters), 't t t', "$decision PREPARED ends it");
}

# Through SQL, and a plain INSERT.
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET cqrs_es.force_generic_path = on');
$waiter = start(wait_after(end()));
until_waiting(1);
$node->safe_psql('postgres', q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', 'inserted', 'inserted', '1')});
is(finish($waiter), 't', 'on the other path');
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET cqrs_es.force_generic_path');

# A look that waits for a lock swallows the wake.
$node->safe_psql('postgres', q{
	CREATE POLICY at_the_gate ON cqrs_es.events AS RESTRICTIVE TO reader USING (NOT EXISTS (SELECT FROM public.gate) AND event_type <> 'hidden');
});
cmp_ok(median_of_three(sub {
	my $waiter = start(wait_after(end()), undef, '-U', 'reader');
	my $lock = $node->background_psql('postgres');
	($waiter, sub {
		$lock->query_safe('BEGIN; LOCK TABLE gate');
		append('hidden');
		$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_locks WHERE relation = 'gate'::regclass AND NOT granted});
		append('shown');
		my $now = Time::HiRes::time();
		$lock->query_safe('COMMIT');
		$now }) }), '<', 0.4, 'a wake that a lock swallowed');

#-------------------------------------------------------------------------
# who waits for open transactions to create a subscription behind them
#-------------------------------------------------------------------------

$node->safe_psql('postgres', q{BEGIN; SELECT FROM cqrs_es.append_event('account', 'forgotten', 'prepared', '1'); PREPARE TRANSACTION 'p'});
my (undef, undef, $refusal) = $node->psql('postgres', q{\set VERBOSITY verbose
	SET lock_timeout = '100 ms';
	SELECT cqrs_es.create_subscription('late', start_at_end => true)});
like($refusal, qr/ERROR:  55P03: .*CONTEXT:  waiting for transactions that have appended and are open or prepared/s, 'a wait for a forgotten transaction ends');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'p'});

#-------------------------------------------------------------------------
# the log goes away, and is there again
#-------------------------------------------------------------------------

@waiters = map { start(wait_after(end())) } 1 .. 2;
until_waiting(2);
$node->safe_psql('postgres', "SET lock_timeout = '10 s'; DROP EXTENSION cqrs_es CASCADE");
like(join(' ', map { finish($_) } @waiters), qr/^error: .*(dropped meanwhile|does not exist).* error: .*(dropped meanwhile|does not exist)/, 'who waits for a log that is dropped gets an error');
$node->safe_psql('postgres', 'CREATE EXTENSION cqrs_es');

#-------------------------------------------------------------------------
# a standby
#-------------------------------------------------------------------------

$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
append('one');
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
@waiters = (start(wait_after(1), $standby), start("CALL cqrs_es.wait_until_settled(2, '100 s')", $standby), start("SELECT cqrs_es.wait_for_position(2, '100 s')", $standby));
ok(until_waiting(3, $standby), 'three wait on a standby');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL cqrs_es.wait_%' AND backend_xmin IS NOT NULL}), '0', '... without a snapshot, but for the function');
append('two');
is(join(' ', map { finish($_) } @waiters), 't t t', 'and see what comes');
is(finish(start(wait_after(2, '100 ms'), $standby)), 'f', 'or do not');

$standby->stop;
$node->stop;
done_testing();
