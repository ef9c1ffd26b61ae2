# With the library in shared_preload_libraries: workers come at the start of the server, after a crash and after a
# promotion, where there is something to run, and nowhere else.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../include";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();
use WorkerServer;

my $node = WorkerServer->new('worker');
$node->set_up('postgres');
foreach my $database ('shop', 'closed', 'plain', 'empty')
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->set_up($database) if $database eq 'shop' || $database eq 'closed';
}
$node->safe_psql('plain', 'CREATE EXTENSION cqrs_es');

# With nobody to handle them.
sub append_unhandled
{
	my (@databases) = @_;
	$node->safe_psql($_, 'LOAD \'cqrs_es\'; SET cqrs_es.projection_worker = off; ' . $node->append_sql(5)) foreach @databases;
	return;
}

sub workers
{
	return $node->safe_psql('postgres', q{SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection worker'});
}

append_unhandled('postgres', 'shop', 'closed');
$node->append_conf('postgresql.conf', q{shared_preload_libraries = 'cqrs_es'});
$node->safe_psql('postgres', 'ALTER DATABASE closed ALLOW_CONNECTIONS false');
$node->restart;
ok($node->until_handled($_), "after a start nobody has to append in $_") foreach 'postgres', 'shop';
ok($node->until_workers($_, 1), "... there is a worker in $_") foreach 'postgres', 'shop';
ok($node->until_workers($_, 0), "... and none in $_") foreach 'closed', 'plain', 'empty', 'template1';
is(workers(), 'postgres shop', '... and nowhere else');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection launcher' AND datname IS NULL}), 'the launcher is in no database');

# after a crash
append_unhandled('postgres', 'shop');
my $offset = -s $node->logfile;
kill 'KILL', $node->worker('shop');
$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
$node->poll_query_until('postgres', 'SELECT true');
ok($node->until_handled($_), "after a crash nobody has to append in $_") foreach 'postgres', 'shop';

# ended, they come back
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'cqrs_es projection worker'});
$node->until_workers($_, 0) foreach 'postgres', 'shop';
$node->append('shop', 1);
ok($node->until_handled('shop'), 'a worker that was ended comes back with an append');

# fewer places than databases
$node->append_conf('postgresql.conf', "max_worker_processes = 2\nmax_logical_replication_workers = 0\ncqrs_es.projection_worker_idle_time = 1");
append_unhandled('postgres', 'shop');
$node->restart;
ok($node->until_handled($_), "with a place for one worker: $_") foreach 'postgres', 'shop';
$node->append_conf('postgresql.conf', "max_worker_processes = 8\ncqrs_es.projection_worker_idle_time = 60");
$node->restart;

# the setting
$node->append_conf('postgresql.conf', 'cqrs_es.projection_worker = off');
$node->restart;
append_unhandled('postgres');
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection launcher'});
Time::HiRes::sleep(0.5);
is(workers(), '', 'none while the setting is off');
$node->append_conf('postgresql.conf', 'cqrs_es.projection_worker = on');
$node->restart;
ok($node->until_handled('postgres'), 'and then there is one');

#-------------------------------------------------------------------------
# standby
#-------------------------------------------------------------------------

$node->backup('backup');
my %standbys;
foreach my $preload ("'cqrs_es'", "''")
{
	my $standby = bless PostgreSQL::Test::Cluster->new($preload eq "''" ? 'without' : 'with'), 'WorkerServer';
	$standby->init_from_backup($node, 'backup', has_streaming => 1);
	$standby->append_conf('postgresql.conf', "shared_preload_libraries = $preload");
	$standby->start;
	$standbys{$preload} = $standby;
}
$node->append_conf('postgresql.conf', 'cqrs_es.projection_worker = off');
$node->reload;
$node->until_workers($_, 0) foreach 'postgres', 'shop';
append_unhandled('postgres', 'shop');
my $lsn = $node->lsn('insert');
$node->wait_for_catchup($_, 'replay', $lsn) foreach values %standbys;
is($_->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'cqrs_es %'}), '0', 'no process on a standby') foreach values %standbys;
$node->stop;
$_->promote foreach values %standbys;
ok($standbys{"'cqrs_es'"}->until_handled($_), "after a promotion nobody has to append in $_") foreach 'postgres', 'shop';
$standbys{"''"}->append('shop', 1);
ok($standbys{"''"}->until_handled('shop'), 'without preload the first append starts a worker');
$_->stop foreach values %standbys;
done_testing();
