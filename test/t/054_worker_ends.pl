# The background worker is ended, and so is its server: another one comes with the next append, and each event is
# handled once. And there is not always a place for one.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../include";
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();
use WorkerServer;

my $node = WorkerServer->new('worker');
$node->set_up('postgres');

# A backlog that a worker is busy with.
sub make_busy
{
	$node->append('postgres', 60);
	$node->until_workers('postgres', 1);
	return $node->worker('postgres');
}

# Kill a process, which the server answers by starting anew.
sub kill_hard
{
	my ($pid) = @_;
	my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time(), checkpoint_time FROM pg_control_checkpoint()');
	my $offset = -s $node->logfile;
	kill 'KILL', $pid;
	$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
	$node->poll_query_until('postgres', 'SELECT true');
	return;
}

foreach my $i (1 .. 2)
{
	my $pid = make_busy();
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	$node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)");
	$node->append('postgres');
	ok($node->until_handled('postgres'), 'pg_terminate_backend');

	$pid = make_busy();
	kill_hard($pid);
	is($node->worker('postgres'), '', 'no worker comes by itself after a crash');
	$node->append('postgres');
	ok($node->until_handled('postgres'), 'kill -9 of the worker');

	make_busy();
	$node->stop('immediate');
	$node->start;
	is($node->worker('postgres'), '', 'nor after a start');
	$node->append('postgres');
	ok($node->until_handled('postgres'), 'the server is ended at once');

	$pid = make_busy();
	$node->restart;
	$node->append('postgres');
	ok($node->until_handled('postgres'), 'restart');
}

# Cancelled, it says so once, pauses, and goes on.
my $pid = make_busy();
my $offset = -s $node->logfile;
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
ok($node->wait_for_log(qr/background worker of cqrs_es failed, and tries again: canceling statement/, $offset), 'pg_cancel_backend is logged');
ok($node->until_handled('postgres'), '... and the same worker goes on');
is($node->worker('postgres'), $pid, '... the same one');

# Beside clients that do the same.
my @clients;
foreach my $i (1 .. 3)
{
	push @clients, IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', q{CALL cqrs_es.run_projections(timeout => '3 s')} ], '>', \my $out, '2>', \my $err);
	$node->append('postgres', 20);
}
$_->finish foreach @clients;
ok($node->until_handled('postgres'), 'beside run_projections() by clients');

#-------------------------------------------------------------------------
# no place
#-------------------------------------------------------------------------

$node->append_conf('postgresql.conf', "max_worker_processes = 2\nmax_logical_replication_workers = 0");
$node->restart;
foreach my $database ('one', 'two', 'three')
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->set_up($database);
}
$node->append($_, 1), $node->until_workers($_, 1) foreach 'one', 'two';
my $session = $node->background_psql('three', on_error_stop => 1);
is($session->query_safe($node->append_sql), '1', 'without a place for a worker an append succeeds all the same');
is($session->query_safe('SELECT count(*) FROM handled'), '0', '... and the event waits');
is($session->query_safe(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection worker' AND datname = 'one'}), 't', 'a place is free');
$node->until_workers('one', 0);
Time::HiRes::sleep(5.2);
$session->query_safe('SELECT 1');
ok($node->until_handled('three'), 'the session that wanted a worker starts one with any other statement');
$session->quit;
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection worker' AND datname = 'two'});
$node->until_workers('two', 0);
$node->append('one', 1);
ok($node->until_handled('one'), 'another session does so at once');

$node->stop;
done_testing();
