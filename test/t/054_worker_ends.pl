# The background worker is ended, by somebody or by a handler, and another one comes by itself; so is its server, and
# another one comes with the next append. Each event is handled once, and one of which workers die is found. And there is
# not always a place for one.

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
	ok($node->until_handled('postgres'), 'pg_terminate_backend: what is left is handled, with nobody appending');

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

# Ended while it pauses after an error: its place is free.
$pid = make_busy();
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
$node->poll_query_until('postgres', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid");
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
ok($node->until_handled('postgres'), 'ended in the pause after an error');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks AS l WHERE NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.pid = l.pid) AND l.pid IS NOT NULL}), '0', '... which leaves no lock behind');

# With nothing to do it need not come back.
ok($node->end_worker('postgres'), 'one that had nothing to do leaves a launcher behind');
ok($node->until_processes(0), '... and comes back for a moment at most');

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
# a handler ends it
#-------------------------------------------------------------------------

# Beside a projection that kills nobody.
$node->safe_psql('postgres', 'CREATE DATABASE killed');
$node->set_up('killed');
$node->safe_psql('killed', q{
	CREATE TABLE log_order (id text, sequence bigint, PRIMARY KEY (id, sequence));
	CREATE TABLE per_stream (LIKE log_order INCLUDING ALL);
	CREATE TABLE killers (position bigint PRIMARY KEY);
	CREATE FUNCTION kill_by(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		IF EXISTS (SELECT FROM killers WHERE killers.position = event.global_position) THEN
			PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(60);
		END IF;
	END $$;
	CREATE FUNCTION in_order(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		PERFORM kill_by(event);
		INSERT INTO log_order VALUES (event.aggregate_id, event.sequence);
	END $$;
	CREATE FUNCTION by_stream(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		PERFORM kill_by(event);
		INSERT INTO per_stream VALUES (event.aggregate_id, event.sequence);
	END $$;
	SELECT cqrs_es.create_projection('log_order', '{account}', '{log_order}', mode => 'async');
	SELECT cqrs_es.define_handler('log_order', '*', 'in_order');
});
# 20 events in five streams, one of which is a killer; and nobody appends from then on.
sub append_killer
{
	my ($which) = @_;
	$node->safe_psql('killed', qq{BEGIN; SELECT cqrs_es.append_event('account', i % 5 || '', 'Seen', '{}') FROM generate_series(1, 20) AS i;
		INSERT INTO killers SELECT global_position FROM cqrs_es.events WHERE $which; COMMIT});
	return;
}
$offset = -s $node->logfile;
append_killer(q{aggregate_id = '4' AND sequence = 2});
ok($node->poll_query_until('killed', q{SELECT last_error LIKE 'the session that ran it was lost in the middle of a batch%' FROM cqrs_es.projection_status WHERE name = 'log_order'}),
	'a handler ends the worker: the status says so');
ok($node->poll_query_until('killed', q{SELECT state = 'stopped' FROM cqrs_es.projection_status WHERE name = 'log_order'}), '... until its projection has stopped, with nobody appending');
is($node->safe_psql('killed', q{SELECT last_error FROM cqrs_es.projection_status WHERE name = 'log_order'}),
	'handed out 5 times, and each time the session that handled it was lost', '... which says why');
is($node->safe_psql('killed', 'SELECT count(*) FROM log_order'), '8', 'what comes before it was handled');
ok($node->until_handled('killed'), 'and so was all by another projection');
my $deaths = () = substr(slurp_file($node->logfile), $offset) =~ /terminating background worker/g;
cmp_ok($deaths, '<=', 12, "$deaths workers died of it");
$node->safe_psql('killed', q{DELETE FROM killers; SELECT cqrs_es.resume_projection('log_order')});
ok($node->poll_query_until('killed', q{SELECT count(*) = 20 FROM log_order}), 'mended, it goes on');

$node->safe_psql('killed', q{SELECT cqrs_es.create_projection('per_stream', '{account}', '{per_stream}', mode => 'async', per_stream => true); SELECT cqrs_es.define_handler('per_stream', '*', 'by_stream'); SELECT cqrs_es.drop_projection('log_order')});
append_killer(q{aggregate_id = '2' AND sequence = 6});
ok($node->poll_query_until('killed', q{SELECT count(*) = 17 FROM per_stream}), 'per stream all others are handled');
ok($node->poll_query_until('killed', q{SELECT blocked = 1 FROM cqrs_es.subscription_status WHERE name = 'projection:per_stream'}), '... and the stream of the killer is blocked');
ok($node->until_handled('killed'), 'by another projection all');
$node->safe_psql('postgres', 'DROP DATABASE killed WITH (FORCE)');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection launcher'}), 'a database that is dropped by force is not looked for');
unlike(slurp_file($node->logfile), qr/database \d+ does not exist/, '... by anybody');

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
$node->append($_, 1), $node->until_workers($_, 1), $node->until_handled($_) foreach 'one', 'two';
my $session = $node->background_psql('three', on_error_stop => 1);
is($session->query_safe($node->append_sql), '1', 'without a place for a worker an append succeeds all the same');
is($session->query_safe('SELECT count(*) FROM handled'), '0', '... and the event waits');
is($session->query_safe(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection worker' AND datname = 'one'}), 't', 'a worker is ended, which finds no place for a launcher');
ok($node->until_processes(1), '... and so its own is free');
Time::HiRes::sleep(5.2);
$session->query_safe('SELECT 1');
ok($node->until_handled('three'), 'the session that wanted a worker starts one with any other statement');
$session->quit;
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection worker' AND datname = 'two'});
$node->until_processes(1);
$node->append('one', 1);
ok($node->until_handled('one'), 'another session does so at once');

$node->stop;
done_testing();
