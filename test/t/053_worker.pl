# The background worker of a database: who starts it, what is seen of it, when it leaves, and that it is in
# nobody's way who wants to have the database alone.

use strict;
use warnings FATAL => 'all';
use FindBin;
use lib "$FindBin::RealBin/../include";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();
use WorkerServer;

my $node = WorkerServer->new('worker', 'cqrs_es.projection_worker_idle_time = 2');
$node->set_up('postgres');
my $tablespace = PostgreSQL::Test::Utils::tempdir();
$node->safe_psql('postgres', $_) foreach "CREATE TABLESPACE other LOCATION '$tablespace'", 'CREATE ROLE nobody';

#-------------------------------------------------------------------------
# it is started, and seen
#-------------------------------------------------------------------------

$node->append('postgres');
ok($node->until_workers('postgres', 1), 'an append starts a worker');
ok($node->until_handled('postgres'), 'which handles the event');
is($node->safe_psql('postgres', q{SELECT DISTINCT application_name, usename, query, backend_xmin FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection worker'}),
	'cqrs_es|postgres|CALL cqrs_es.run_projections()|', 'it is seen in pg_stat_activity, and holds no snapshot');
my $pid = $node->worker('postgres');
$node->append('postgres') foreach 1 .. 20;
ok($node->until_handled('postgres'), 'it goes on with what comes');
is($node->worker('postgres'), $pid, '... the same one');

# Many sessions at once, none of which has seen it.
ok($node->until_workers('postgres', 0), 'it leaves when there is nothing to do');
my @writers = map { $node->background_psql('postgres') } 1 .. 8;
$_->query_safe("SET application_name = 'writer'") foreach @writers;
$_->{stdin} .= $node->append_sql . ";\n" foreach @writers;
$_->{run}->pump_nb foreach @writers;
$node->poll_query_until('postgres', q{SELECT count(*) = 8 FROM pg_stat_activity WHERE application_name = 'writer' AND state = 'idle' AND query LIKE '%append_event%'});
ok($node->until_handled('postgres'), 'eight sessions append at once');
is($node->safe_psql('postgres', q{SELECT count(DISTINCT pid) FROM pg_locks WHERE classid = 'pg_database'::regclass AND mode = 'ShareUpdateExclusiveLock'}), '1', '... and there is one worker');
$_->quit foreach @writers;

# What starts none: what is rolled back, what is not for an asynchronous projection.
$node->until_workers('postgres', 0);
$node->safe_psql('postgres', 'BEGIN; ' . $node->append_sql . '; ROLLBACK; SELECT 1');
$node->safe_psql('postgres', q{SELECT FROM cqrs_es.append_event('other', '1', 'Seen', '{}')});
$node->safe_psql('postgres', 'SET cqrs_es.projection_worker = off; ' . $node->append_sql);
Time::HiRes::sleep(1);
is($node->worker('postgres'), '', 'what starts no worker');

# What else starts one: with appends of others, which have started none.
sub unseen { return "LOAD 'cqrs_es'; SET cqrs_es.projection_worker = off; " . $node->append_sql . "; SET cqrs_es.projection_worker = on; "; }
$node->safe_psql('postgres', q{SELECT cqrs_es.pause_projection('handled'); } . $node->append_sql);
is($node->worker('postgres'), '', 'nor does an append for one that is paused');
$node->safe_psql('postgres', q{SELECT cqrs_es.resume_projection('handled')});
ok($node->until_handled('postgres'), 'resume_projection starts one');
$node->until_workers('postgres', 0);
is($node->safe_psql('postgres', unseen() . q{SELECT max(global_position) AS last FROM cqrs_es.events \gset
	CALL cqrs_es.wait_for_projection('handled', :last)}), "1\nt", 'wait_for_projection starts one');
$node->until_workers('postgres', 0);
$node->safe_psql('postgres', unseen() . q{SELECT cqrs_es.alter_projection('handled', mode => 'sync')});
$node->safe_psql('postgres', q{SELECT cqrs_es.alter_projection('handled', mode => 'async')});
ok($node->until_workers('postgres', 1), 'alter_projection starts one');
$node->until_workers('postgres', 0);

#-------------------------------------------------------------------------
# a transaction that is open for longer than a worker stays, or prepared
#-------------------------------------------------------------------------

my $writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; ' . $node->append_sql);
$node->append('postgres');
$node->until_workers('postgres', 1);
Time::HiRes::sleep(3.5);
isnt($node->worker('postgres'), '', 'a worker stays while a transaction that has appended is open');
$pid = $node->worker('postgres');
$node->end_worker('postgres');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection launcher'});
$node->until_processes(0);
$writer->query_safe('COMMIT');
ok($node->until_workers('postgres', 1), 'a commit that finds no worker starts one');
ok($node->until_handled('postgres'), '... and its events are handled');

$node->safe_psql('postgres', 'BEGIN; ' . $node->append_sql . q{; PREPARE TRANSACTION 'p'});
Time::HiRes::sleep(3.5);
isnt($node->worker('postgres'), '', 'a worker stays while a transaction is prepared');
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
ok($node->until_handled('postgres'), '... and handles what it brings');
ok($node->until_workers('postgres', 0), 'then it leaves');
$node->safe_psql('postgres', 'BEGIN; ' . $node->append_sql . q{; PREPARE TRANSACTION 'p'});
ok($node->until_workers('postgres', 1), 'PREPARE starts one');
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'p'});

# One that leaves, and appends in that moment: none is left behind.
$node->append_conf('postgresql.conf', 'cqrs_es.projection_worker_idle_time = 1');
$node->reload;
$node->until_workers('postgres', 0);
my $left_behind = 0;
foreach my $i (1 .. 12)
{
	my $session = $node->background_psql('postgres');
	$session->query_safe($node->append_sql);
	Time::HiRes::sleep(0.9 + $i * 0.02);
	$session->query_safe($node->append_sql);
	$left_behind++ unless $node->until_handled('postgres', 30);
	$session->quit;
}
is($left_behind, 0, 'appends in the moment when a worker leaves');

#-------------------------------------------------------------------------
# the setting
#-------------------------------------------------------------------------

$node->append_conf('postgresql.conf', 'cqrs_es.projection_worker_idle_time = 60');
$node->reload;
$node->append('postgres');
$node->until_workers('postgres', 1);
$node->append_conf('postgresql.conf', 'cqrs_es.projection_worker = off');
$node->reload;
ok($node->until_workers('postgres', 0), 'a worker leaves when the setting is off');
$node->append('postgres');
Time::HiRes::sleep(0.5);
is($node->worker('postgres'), '', '... and none is started');
$node->append_conf('postgresql.conf', 'cqrs_es.projection_worker = on');
$node->reload;
$node->append('postgres');
ok($node->until_handled('postgres'), '... until it is on again');
like(error_of(q{LOAD 'cqrs_es'; SET ROLE nobody; SET cqrs_es.projection_worker = off}), qr/permission denied to set parameter/, 'not everyone may set it');

#-------------------------------------------------------------------------
# what wants to have the database alone
#-------------------------------------------------------------------------

foreach my $state ('idle', 'busy')
{
	$node->safe_psql('postgres', 'CREATE DATABASE shop');
	$node->set_up('shop');
	my $start = sub {
		$node->append('shop', $state eq 'busy' ? 100 : 1);
		$node->until_workers('shop', 1);
		$node->until_handled('shop') if $state eq 'idle';
	};
	my $alone = sub {
		my ($statement) = @_;
		my $began = Time::HiRes::time();
		is(error_of($statement), '', "$state worker: $statement");
		cmp_ok(Time::HiRes::time() - $began, '<', 5, '... at once');
	};
	$start->();
	$alone->('ALTER DATABASE shop RENAME TO store');
	$alone->('ALTER DATABASE store RENAME TO shop');
	ok($node->until_handled('shop'), 'what was left is handled afterwards, with nobody appending');
	$start->();
	$alone->('CREATE DATABASE copy TEMPLATE shop');
	ok($node->until_handled('shop'), '... after a copy');
	$start->();
	$alone->('ALTER DATABASE shop SET TABLESPACE other');
	ok($node->until_handled('shop'), '... after a move to another tablespace');
	$start->();
	$alone->('DROP DATABASE shop');
	$node->append('copy', $state eq 'busy' ? 100 : 1);
	$node->until_workers('copy', 1);
	$alone->('DROP DATABASE copy WITH (FORCE)');
}
my $log = slurp_file($node->logfile);
unlike($log, qr/database \d+ does not exist/, 'nobody tries to get into a database that was dropped');

#-------------------------------------------------------------------------
# the extension
#-------------------------------------------------------------------------

$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->set_up('shop');
$node->append('shop', 1);
$node->until_workers('shop', 1);
$node->until_handled('shop');
is($node->psql('shop', "SET lock_timeout = '5s'; DROP EXTENSION cqrs_es CASCADE"), 0, 'DROP EXTENSION beside a worker');
ok($node->until_workers('shop', 0), 'it leaves when the extension is gone');
$node->safe_psql('shop', 'DROP TABLE handled');
$node->set_up('shop');
$node->append('shop', 1);
ok($node->until_handled('shop'), 'and another one comes with it');

# another version
my $version = $node->safe_psql('shop', q{SELECT extversion FROM pg_extension WHERE extname = 'cqrs_es'});
$node->safe_psql('shop', q{UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'cqrs_es'});
ok($node->until_workers('shop', 0), 'it leaves when the extension was updated');
my $offset = -s $node->logfile;
$node->append('shop', 1) foreach 1 .. 5;
ok($node->wait_for_log(qr/asynchronous projections of database "shop" are not run/, $offset), 'one of another version says so');
$node->append('shop', 1) foreach 1 .. 5;
$log = substr(slurp_file($node->logfile), $offset);
is(scalar(() = $log =~ /are not run/g), 1, '... once');
$node->safe_psql('shop', qq{UPDATE pg_extension SET extversion = '$version' WHERE extname = 'cqrs_es'});
ok($node->until_handled('shop'), '... and goes on when it is updated');

#-------------------------------------------------------------------------
# several databases, and settings of theirs
#-------------------------------------------------------------------------

foreach my $database ('one', 'two', 'three')
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->set_up($database);
	$node->append($database, 1);
}
ok($node->until_handled($_), "database $_") foreach 'one', 'two', 'three';
$node->safe_psql('postgres', "ALTER DATABASE one SET $_") foreach q{default_transaction_isolation = 'serializable'}, 'default_transaction_read_only = on',
	q{statement_timeout = '1ms'}, q{lock_timeout = '1ms'}, q{search_path = 'nowhere'}, q{cqrs_es.projection_worker_idle_time = 1};
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = \'cqrs_es projection worker\' AND datname = \'one\'');
$node->until_workers('one', 0);
$node->safe_psql('one', 'SET statement_timeout = 0; SET default_transaction_read_only = off; BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; ' . $node->append_sql . '; COMMIT');
$node->until_workers('one', 1);
$node->safe_psql('postgres', 'ALTER DATABASE one RESET ALL');
ok($node->until_handled('one'), 'settings of the database do not keep it from its work');

# one that lets nobody in who is not there
$writer = $node->background_psql('two');
$node->until_workers('two', 1);
$node->safe_psql('postgres', q{ALTER DATABASE two ALLOW_CONNECTIONS false});
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection worker' AND datname = 'two'});
$node->until_workers('two', 0);
$writer->query_safe($node->append_sql);
ok($node->until_workers('two', 1), 'who is in a database that lets nobody in has a worker there');
$writer->quit;

$node->stop;
done_testing();

sub error_of
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql);
	return $status ? $err : '';
}
