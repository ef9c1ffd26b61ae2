# Asynchronous projections under everything that happens to them.
#
# Writers append to a few streams, in transactions of several events, some of which
# are rolled back. Meanwhile the mode of two projections, one in the order of the log and
# one per stream, flips back and forth, they are paused, resumed and rebuilt, in one
# transaction and in portions, by two sessions at once; runners run them, are
# terminated, and killed together with the server.
#
# At the end each read model is exactly the log: a row for each event, which a double
# would be refused by, a counter, which it would show in, and the list of sequences,
# which shows their order.
#
# CQRS_ES_TORTURE_SECONDS: how long (12); CQRS_ES_TORTURE_SEED.

use strict;
use warnings FATAL => 'all';
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use lib "$ENV{TESTDIR}/test/include";
use Session;

my $seconds = $ENV{CQRS_ES_TORTURE_SECONDS} || 12;
my $seed = $ENV{CQRS_ES_TORTURE_SEED} || 20261126;
my $directory = $PostgreSQL::Test::Utils::tmp_check;
my $calm = "$directory/async_calm";
my $user = getpwuid $>;
my $parent = $$;
my @projections = qw(log_order per_stream);

my $node = PostgreSQL::Test::Cluster->new('async');
$node->init;
$node->append_conf('postgresql.conf', "restart_after_crash = on\nlog_statement = none\nlog_min_messages = fatal\n"
	. "log_min_error_statement = panic\nwal_writer_delay = 10s\nmax_connections = 40");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE done (what text PRIMARY KEY, n bigint NOT NULL);
	INSERT INTO done SELECT unnest('{flips,pauses,rebuilds,portions,runs}'::text[]), 0;
});
for my $projection (@projections)
{
	my $per_stream = $projection eq 'per_stream' ? 'true' : 'false';
	$node->safe_psql('postgres', qq{
		CREATE TABLE ${projection}_rows (id text, sequence bigint, PRIMARY KEY (id, sequence));
		CREATE TABLE ${projection}_sums (id text PRIMARY KEY, n bigint, sum bigint, sequences text);
		CREATE FUNCTION ${projection}_handle(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN
			INSERT INTO ${projection}_rows VALUES (e.aggregate_id, e.sequence);
			INSERT INTO ${projection}_sums AS s VALUES (e.aggregate_id, 1, (e.payload->>'i')::bigint, e.sequence::text)
			ON CONFLICT (id) DO UPDATE SET n = s.n + 1, sum = s.sum + excluded.sum, sequences = s.sequences || ',' || excluded.sequences;
		END \$\$;
		SELECT cqrs_es.create_projection('$projection', '{a}', '{${projection}_rows,${projection}_sums}', mode => 'async', per_stream => $per_stream);
		SELECT cqrs_es.define_handler('$projection', '*', '${projection}_handle');
	});
}

sub connected
{
	while (1)
	{
		POSIX::_exit(0) if $$ != $parent && getppid() != $parent;
		my $session = Session->new($node->host, $node->port, $user, 'postgres');
		if ($session)
		{
			$session->try("SET client_min_messages = error; SET statement_timeout = '30s'; SET application_name = '$_[0]'");
			return $session if !$session->{state};
		}
		usleep(50_000);
	}
}

# A process that does something again and again until all is calm.
sub process
{
	my ($name, $number, $work) = @_;
	my $pid = fork() // die;
	return $pid if $pid;
	srand($seed + $number);
	my $session = connected($name);
	while (!-e $calm)
	{
		POSIX::_exit(0) if getppid() != $parent;
		$work->($session);
		$session = connected($name) if !$session->{socket};
	}
	POSIX::_exit(0);
}

sub one_of { return $_[ int rand @_ ] }

sub write_events
{
	my ($session) = @_;
	my $end = rand() < 0.1 ? 'ROLLBACK' : 'COMMIT';
	$session->try('BEGIN');
	for (1 .. 1 + int rand 5)
	{
		my ($id, $i, $type) = (int rand 12, int rand 1000, rand() < 0.8 ? 'a' : 'b');
		# deadlocks of writers roll back
		$session->try("SELECT cqrs_es.append_event('$type', '$id', 'e', '{\"i\": $i}')");
		last if $session->{state};
		usleep(rand 3000) if rand() < 0.3;
	}
	$session->try($end);
	usleep(rand 4000);
}

my @changes = (
	[ flips => sub { "SELECT cqrs_es.alter_projection('$_[0]', mode => 'sync')" } ],
	[ flips => sub { "SELECT cqrs_es.alter_projection('$_[0]', mode => 'async', per_stream => " . ($_[0] eq 'per_stream' ? 'true' : 'false') . ')' } ],
	[ flips => sub { "SELECT cqrs_es.alter_projection('$_[0]', mode => 'async', per_stream => " . ($_[0] eq 'per_stream' ? 'true' : 'false') . ')' } ],
	[ pauses => sub { "SELECT cqrs_es.pause_projection('$_[0]')" } ],
	[ pauses => sub { "SELECT cqrs_es.resume_projection('$_[0]')" } ],
	[ pauses => sub { "SELECT cqrs_es.resume_projection('$_[0]')" } ],
	[ rebuilds => sub { "SELECT cqrs_es.rebuild_projection('$_[0]')" } ],
	[ portions => sub { "CALL cqrs_es.rebuild_in_portions('$_[0]', 50)" } ],
	[ portions => sub { "CALL cqrs_es.resume_in_portions('$_[0]', 50)" } ],
);

sub change
{
	my ($session) = @_;
	my ($what, $statement) = @{ one_of(@changes) };
	$session->try($statement->(one_of(@projections)));
	$session->try("UPDATE done SET n = n + 1 WHERE what = '$what'") if !$session->{state};
	usleep(rand 150_000);
}

sub run
{
	my ($session) = @_;
	$session->try("CALL cqrs_es.run_projections(timeout => '${\int rand 400} ms')");
	$session->try("UPDATE done SET n = n + 1 WHERE what = 'runs'") if !$session->{state};
}

unlink $calm;
my @pids = (
	(map { process("writer$_", $_, \&write_events) } 1 .. 3),
	(map { process("changer$_", 10 + $_, \&change) } 1 .. 2),
	(map { process("runner$_", 20 + $_, \&run) } 1 .. 2));

my ($terminated, $killed) = (0, 0);
my $until = time + $seconds;
srand($seed);
my $session = connected('hangman');
while (time < $until)
{
	usleep(300_000 + rand 600_000);
	my ($found) = $session->try("SELECT pid FROM pg_stat_activity WHERE application_name = 'runner" . one_of(1, 2) . "' AND state = 'active' LIMIT 1");
	my $pid = $found && @$found ? $found->[0][0] : undef;
	if (defined $pid && rand() < 0.3)
	{
		$killed += kill 'KILL', $pid;
	}
	elsif (defined $pid)
	{
		$session->try("SELECT pg_terminate_backend($pid)");
		$terminated++ if !$session->{state};
	}
	$session = connected('hangman') if !$session->{socket};
}
$node->stop('immediate');
$node->start;
open(my $fh, '>', $calm) or die;
close $fh;
waitpid $_, 0 for @pids;

note "terminated $terminated runners, killed $killed with the server";
note $node->safe_psql('postgres', "SELECT what, n FROM done ORDER BY 1");
is($node->safe_psql('postgres', "SELECT count(*) FROM done WHERE n = 0"), '0', 'there was some of everything');

sub differences
{
	my ($projection) = @_;
	return $node->safe_psql('postgres', qq{
		SELECT (SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'a') = (SELECT count(*) FROM ${projection}_rows),
			(SELECT count(*) FROM (SELECT aggregate_id, count(*), sum((payload->>'i')::bigint), string_agg(sequence::text, ',' ORDER BY sequence)
				FROM cqrs_es.events WHERE aggregate_type = 'a' GROUP BY 1 EXCEPT SELECT * FROM ${projection}_sums) AS x),
			(SELECT count(*) FROM (SELECT * FROM ${projection}_sums EXCEPT SELECT aggregate_id, count(*), sum((payload->>'i')::bigint),
				string_agg(sequence::text, ',' ORDER BY sequence) FROM cqrs_es.events WHERE aggregate_type = 'a' GROUP BY 1) AS x)});
}

cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'a'"), '>', 100, 'events were appended');
for my $projection (@projections)
{
	$node->psql('postgres', "SELECT cqrs_es.resume_projection('$projection')");
	note $node->safe_psql('postgres', "SELECT name, state, mode, last_error FROM cqrs_es.projection_status WHERE name = '$projection'");
	$node->safe_psql('postgres', "CALL cqrs_es.run_projections('{$projection}')");
	is(differences($projection), 't|0|0', "$projection is exactly the log");
	$node->safe_psql('postgres', "SELECT cqrs_es.alter_projection('$projection', mode => 'sync')");
	is(differences($projection), 't|0|0', '... and when it is synchronous again');
	$node->safe_psql('postgres', "SELECT cqrs_es.append_event('a', 'last', 'e', '{\"i\": 1}')");
	is(differences($projection), 't|0|0', '... and goes on');
	$node->safe_psql('postgres', "SELECT cqrs_es.rebuild_projection('$projection')");
	is(differences($projection), 't|0|0', '... as when it is rebuilt');
}
is($node->safe_psql('postgres', "SELECT count(*) FROM cqrs_es.subscriptions"), '0', 'no feed is left');
$node->stop;
done_testing();
