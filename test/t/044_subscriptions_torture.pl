# Subscriptions under everything that happens to consumers, writers and servers.
#
# Writers append to many streams, with gaps, rollbacks, savepoints, transactions
# that last, and connections that are lost. Three subscriptions have three
# consumers each, processes of their own: they are killed, stall past their lease
# and come back as zombies, roll their work back, lose their connection, hand
# batches back. Some events fail once or twice, a few always, and a few kill
# whoever works on them. The server is killed, and stopped at once, in the middle.
#
#	once	the effect in the transaction of the acknowledgement; blocks
#	least	each call by itself; blocks
#	skips	a filter, the acknowledgement in the next receive_events(); skips
#
# At the end, when consumers behave and somebody has decided about dead letters:
# nothing is lost, the first deliveries of each stream were in order, the effects
# of "once" are there once, nothing was delivered that is not in the log, and
# only events that always fail, or kill, were given up.
#
# CQRS_ES_TORTURE_EVENTS: how many events (4,000); CQRS_ES_TORTURE_SEED.

use strict;
use warnings FATAL => 'all';
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep sleep);

use lib "$ENV{TESTDIR}/test/include";
use Session;

use constant LEASE => 0.7;
use constant CONSUMERS => 3;	# of each subscription
use constant WRITERS => 4;
use constant STREAMS => 60;
use constant MAX_ATTEMPTS => 4;

my $events = $ENV{CQRS_ES_TORTURE_EVENTS} || 4000;
my $seed = $ENV{CQRS_ES_TORTURE_SEED} || 20261126;
my $seconds = $events / 1500 > 12 ? $events / 1500 : 12;	# that the writers take, at least
my @subscriptions = qw(once least skips);
my $directory = $PostgreSQL::Test::Utils::tmp_check;
my $calm = "$directory/calm";			# consumers behave when it is there
my $user = getpwuid $>;
my $parent = $$;

my $node = PostgreSQL::Test::Cluster->new('torture');
$node->init;
# What is not flushed at commit would be flushed late.
$node->append_conf('postgresql.conf', "restart_after_crash = on\nlog_statement = none\nlog_min_error_statement = panic\n"
	. "log_min_messages = fatal\nwal_writer_delay = 10s\nmax_connections = 60");
$node->start;
$node->safe_psql('postgres', sprintf q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE deliveries (id bigserial PRIMARY KEY, subscription text, position bigint, redriven boolean, attempt int, consumer text);
	CREATE TABLE effects (subscription text, position bigint, redriven boolean);
	CREATE TABLE healed (subscription text, position bigint);
	SELECT cqrs_es.create_subscription('once', %1$s);
	SELECT cqrs_es.create_subscription('least', %1$s);
	SELECT cqrs_es.create_subscription('skips', %1$s, aggregate_types => '{a}', event_types => '{e,f}', on_failure => 'skip');
}, "max_attempts => ${\MAX_ATTEMPTS}, retry_delay => '20 ms', retry_delay_max => '200 ms', lease => '${\LEASE} s'");

# --- sessions

sub connected
{
	while (1)
	{
		POSIX::_exit(0) if $$ != $parent && getppid() != $parent;
		my $session = Session->new($node->host, $node->port, $user, 'postgres');
		if ($session)
		{
			$session->try("SET statement_timeout = '30s'; SET client_min_messages = error");
			return $session if !$session->{state};
		}
		usleep(50_000);
	}
}

sub chance { return rand() < $_[0] }

# --- writers

# Append a share of the events, each of which says how it behaves.
sub write_events
{
	my ($number, $count) = @_;
	my $session = connected();
	my $begin = time;

	for (my $done = 0; $done < $count;)
	{
		usleep(20_000) while (time - $begin) / $seconds < $done / $count;
		my $several = chance(0.15) ? 2 + int rand 6 : 1;
		my @appends = map { [ int rand STREAMS, append($number, $done + $_) ] } 1 .. $several;
		@appends = map { $_->[1]->($_->[0]) } sort { $a->[0] <=> $b->[0] } @appends;
		my $late = chance(0.3) ? "SET LOCAL synchronous_commit = off; " : '';
		my $kind = rand;
		if ($kind < 0.80) { $session->try("BEGIN; $late" . join('; ', @appends) . '; COMMIT') }
		elsif ($kind < 0.88) { $session->try('BEGIN; ' . join('; ', @appends) . '; ROLLBACK'); next if !$session->{state} }
		elsif ($kind < 0.94)
		{
			my $gap = append($number, -1)->(0);
			$session->try("BEGIN; $late SAVEPOINT s; $gap; ROLLBACK TO s; " . join('; ', @appends) . '; COMMIT');
		}
		elsif ($kind < 0.98)
		{
			$session->try('BEGIN; ' . join('; ', @appends));
			sleep(rand 0.3);
			$session->try('COMMIT');
		}
		else
		{
			$session->try('BEGIN; ' . join('; ', @appends));
			$session->close;
		}
		if (!$session->{socket}) { $session = connected(); next }
		if ($session->{state}) { $session->try('ROLLBACK') }
		else { $done += $several }
	}
}

sub append
{
	my ($number, $nth) = @_;
	my $kind = rand;
	my $fails = $kind < 0.003 ? 99 : $kind < 0.018 ? 2 : $kind < 0.033 ? 1 : $nth == 50 && $number < 2 ? 'kills' : 0;

	return sub {
		my ($stream) = @_;
		return sprintf q{SELECT FROM cqrs_es.append_event('%s', 's%d', '%s', '{"fails": "%s"}')}, $stream % 3 ? 'a' : 'b', $stream, (qw(e e f g))[ rand 4 ], $fails;
	};
}

# --- consumers

# Die here now and then.
sub may_die
{
	kill 'KILL', $$ if chance($_[0]) && !-e $calm;
}

my ($outside, $session);

sub consume
{
	my ($subscription, $name, $resume) = @_;
	my ($ack, $refused);

	open $outside, '>>', "$directory/delivered-$name" or die "could not open: $!";
	$session = connected();
	while (getppid() == $parent)
	{
		if (!$session->{socket}) { $session = connected(); undef $ack }
		my $count = (1, 5, 20, 50)[ rand 4 ];
		my ($rows) = $session->try("SELECT batch, attempt, redriven, global_position, event_id, aggregate_type, aggregate_id, payload->>'fails' FROM "
			. "cqrs_es.receive_events('$subscription', '$name', $count, " . ($ack ? "'$ack'" : 'NULL') . ', ' . ($resume ? 'true' : 'false') . ')');
		undef $ack;
		$resume = 0;
		met('receive_events');
		next if $session->{state};
		if (!@$rows)
		{
			$session->try("CALL cqrs_es.wait_for_events('$subscription', timeout => '200 ms')");
			met('wait_for_events');
			next;
		}
		print {$outside} "$_->[3] $_->[4]\n" foreach @$rows;
		$outside->flush;
		may_die(0.01);
		$session->try('INSERT INTO deliveries (subscription, position, redriven, attempt, consumer) VALUES '
			. join ', ', map { "('$subscription', $_->[3], '$_->[2]', $_->[1], '$name')" } @$rows);
		next if $session->{state};
		may_die(0.01);
		next if !-e $calm && chance(0.01);		# it forgets what it has got
		if (!-e $calm && chance(0.02))
		{
			$session->try("SELECT cqrs_es.release_batch('$rows->[0][0]')");
			next;
		}
		stall();
		$ack = $subscription eq 'once' ? work_once($subscription, $rows) : work_least($subscription, $rows);
		undef $ack if $subscription ne 'skips';
	}
	POSIX::_exit(0);
}

# An error that a consumer met: one that is to be expected here, or a complaint.
sub met
{
	my ($what) = @_;

	return if !$session->{state};
	if ($session->{state} =~ /^(QE401|55P03|08006|57P0[123])$/) { append_to_file("$directory/met", "$session->{state}\n") }
	else { complain("$what: $session->{state} $session->{message}") }
}

sub complain
{
	my ($what) = @_;
	append_to_file("$directory/complaints", "$what\n");
}

# Does the event fail this time? It may kill instead.
sub it_fails
{
	my ($subscription, $row) = @_;
	my ($attempt, $position, $fails) = @$row[1, 3, 7];

	return 0 if $fails eq '0';
	return $attempt <= $fails if $fails ne 'kills' && $fails < 99;
	my ($healed) = $session->try("SELECT FROM healed WHERE subscription = '$subscription' AND position = $position");
	return 0 if $healed && @$healed;
	kill 'KILL', $$ if $fails eq 'kills';
	return 1;
}

sub stall
{
	sleep(LEASE * (1.1 + rand)) if chance(0.01) && !-e $calm;
}

# All in one transaction: what fails is taken back alone, the rest is done when
# the batch is still this consumer's.
sub work_once
{
	my ($subscription, $rows) = @_;
	my $batch = $rows->[0][0];
	my %failed;

	$session->try("BEGIN; SELECT cqrs_es.extend_lease('$batch')");
	foreach my $row (@$rows)
	{
		my $key = "$row->[5] $row->[6]";
		next if $failed{$key} || $session->{state};
		$session->try("SAVEPOINT s; INSERT INTO effects VALUES ('$subscription', $row->[3], '$row->[2]')");
		if (!$session->{state} && it_fails($subscription, $row))
		{
			$session->try("ROLLBACK TO SAVEPOINT s; SELECT cqrs_es.nack_event('$batch', $row->[3], 'it failed')");
			$failed{$key} = 1;
		}
		may_die(0.0005);
	}
	stall();
	if (!$session->{state} && !-e $calm && chance(0.02)) { $session->try('ROLLBACK'); return }
	$session->try("SELECT cqrs_es.ack_events('$batch')") if !$session->{state};
	may_die(0.005);
	if (!-e $calm && chance(0.005)) { $session->close; return }
	met('once');
	$session->try($session->{state} ? 'ROLLBACK' : 'COMMIT');
	return;
}

# Each by itself. Returns the batch for the next receive_events() to acknowledge.
sub work_least
{
	my ($subscription, $rows) = @_;
	my $batch = $rows->[0][0];
	my (%failed, @done);

	foreach my $row (@$rows)
	{
		my $key = "$row->[5] $row->[6]";
		next if $failed{$key};
		if (it_fails($subscription, $row))
		{
			$session->try("SELECT cqrs_es.nack_event('$batch', $row->[3], 'it failed')");
			return if $session->{state};
			$failed{$key} = 1;
			may_die(0.02);
		}
		else { push @done, "('$subscription', $row->[3], '$row->[2]')" }
	}
	stall();
	$session->try('INSERT INTO effects VALUES ' . join ', ', @done) if @done;
	return if $session->{state};
	may_die(0.005);
	return $batch if $subscription eq 'skips';
	$session->try("SELECT cqrs_es.ack_events('$batch')");
	met('least');
	return;
}

# --- processes

my (%consumers, %writers, %died);
my $started = 0;

sub start
{
	my ($what) = @_;
	my $number = ++$started;
	my $pid = fork // die "could not fork: $!";

	return $pid if $pid;
	$SIG{$_} = 'DEFAULT' foreach qw(TERM INT HUP);
	srand $seed + 7919 * $number;
	eval { $what->(); 1 } or complain("a process: $@");
	POSIX::_exit(0);
}

sub start_consumer
{
	my ($subscription, $name, $resume) = @_;
	my $pid = start(sub { consume($subscription, $name, $resume) });
	$consumers{$pid} = [ $subscription, $name ];
	return;
}

# Consumers that have died come back, some under their old name.
sub look_after
{
	foreach my $pid (keys %consumers)
	{
		next if waitpid($pid, WNOHANG) != $pid;
		my ($subscription, $name) = @{ delete $consumers{$pid} };
		$died{ $? & 127 ? 'killed' : 'ended' }++;
		my $same = chance(0.3);
		start_consumer($subscription, $same ? $name : "$subscription-" . ($started + 1), $same);
	}
	foreach my $pid (keys %writers)
	{
		delete $writers{$pid} if waitpid($pid, WNOHANG) == $pid;
	}
	return;
}

sub look_after_until
{
	my ($until) = @_;
	while (!$until->()) { look_after(); usleep(50_000) }
	return;
}

# Kill the server, and start it when nothing of it is left.
sub crash
{
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my @processes = ($postmaster, split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity'));

	$node->kill9;
	for (1 .. 300) { last if !kill 0, @processes; usleep(100_000) }
	$node->start;
	return;
}

END { if ($$ == ($parent // 0)) { kill 'KILL', keys %consumers, keys %writers } }

# What is handed out is on disk, though neither who appends nor who receives waits
# for that at commit. (That it was handed out may be lost: then it is once more.)

{
	my ($writer, $reader) = (connected(), connected());
	$_->ask('SET synchronous_commit = off') foreach $writer, $reader;
	$writer->ask(q{SELECT cqrs_es.create_subscription('early')});
	$writer->ask(q{SELECT FROM cqrs_es.append_event('a', 'early', 'e', '{"fails": "0"}')});
	my ($rows) = $reader->ask(q{SELECT global_position, event_id FROM cqrs_es.receive_events('early', 'c')});
	crash();
	my ($position, $id) = @{ $rows->[0] };
	is($node->safe_psql('postgres', "SELECT event_id FROM cqrs_es.events WHERE global_position = $position"), $id, 'an event that was handed out survives a crash');
	$node->safe_psql('postgres', q{SELECT cqrs_es.drop_subscription('early')});
}

srand $seed;
foreach my $subscription (@subscriptions)
{
	start_consumer($subscription, "$subscription-$_", 0) foreach map { "begin$_" } 1 .. CONSUMERS;
}
foreach my $number (0 .. WRITERS - 1)
{
	$writers{ start(sub { write_events($number, int($events / WRITERS)) }) } = 1;
}

# --- the server goes, three times

my $begin = time;
my $quarter = sub { my ($nth) = @_; return sub { time - $begin > $seconds * $nth / 4 || !%writers } };
look_after_until($quarter->(1));
crash();
look_after_until($quarter->(2));
$node->stop('immediate');
$node->start;
look_after_until($quarter->(3));
my $session_of_parent = connected();
my $one = $session_of_parent->value(q{SELECT pid FROM pg_stat_activity WHERE query LIKE '%ack_events%' AND pid <> pg_backend_pid() LIMIT 1}) //
	$session_of_parent->value(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1});
kill 'KILL', $one;
look_after_until(sub { !%writers || time - $begin > 20 * $seconds + 300 });
ok(!%writers, 'the writers came to their end');

# --- and then all is well

append_to_file($calm, "\n");
# what is asked from now on would else be planned for tables nobody has counted
connected()->try('ANALYZE');
my $undone = q{
	SELECT s.name, e.global_position FROM cqrs_es.subscriptions AS s, cqrs_es.events AS e
	WHERE (s.aggregate_types IS NULL OR e.aggregate_type = ANY (s.aggregate_types)) AND (s.event_types IS NULL OR e.event_type = ANY (s.event_types))
		AND NOT EXISTS (SELECT FROM effects WHERE subscription = s.name AND position = e.global_position)
		AND NOT EXISTS (SELECT FROM cqrs_es.dead_letters AS l WHERE l.subscription = s.name AND l.global_position = e.global_position
			AND l.state IN ('skipped', 'discarded'))};
# Half of the dead letters are cured and handed out again, the others are let go.
my $decide = q{
	DO $$
	DECLARE
		letter record;
	BEGIN
		FOR letter IN SELECT * FROM cqrs_es.dead_letters WHERE state = 'blocked' OR state = 'skipped' AND id % 2 = 0 ORDER BY id LOOP
			IF letter.id % 2 = 0 THEN
				INSERT INTO healed VALUES (letter.subscription, letter.global_position);
				PERFORM cqrs_es.redrive(letter.subscription, letter.id);
			ELSE
				PERFORM cqrs_es.discard_dead_letter(letter.id, 'let go');
			END IF;
		END LOOP;
	END $$};
my $last = time;
my ($left, $before) = (-1, 0);
while ($left != 0 && time - $last < 60)
{
	look_after();
	$session_of_parent = connected() if !$session_of_parent->{socket};
	$session_of_parent->try($decide);
	diag("deciding: $session_of_parent->{message}") if $session_of_parent->{state} && $session_of_parent->{state} ne '08006';
	my ($rows) = $session_of_parent->try("SELECT (SELECT count(*) FROM ($undone) AS u) + (SELECT count(*) FROM cqrs_es.dead_letters WHERE state = 'redriven' AND retry_at IS NOT NULL)"
		. ", (SELECT count(*) FROM deliveries)");
	if ($rows && @$rows)
	{
		my $now = join ' ', @{ $rows->[0] };
		($last, $before) = (time, $now) if $now ne $before;
		$left = $rows->[0][0];
	}
	usleep(200_000);
}
kill 'KILL', keys %consumers;
waitpid $_, 0 foreach keys %consumers;
%consumers = ();

# --- the checks

$node->safe_psql('postgres', 'ANALYZE');
my $all = $node->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.events');
cmp_ok($all, '>=', int($events / WRITERS) * WRITERS * 0.9, "$all events are in the log");
is($node->safe_psql('postgres', "$undone ORDER BY 1, 2 LIMIT 20"), '', 'none is lost');
is($node->safe_psql('postgres', q{
	SELECT subscription, aggregate_type, aggregate_id, sequence, before FROM (
		SELECT d.subscription, aggregate_type, aggregate_id, sequence, d.first,
			lag(d.first) OVER w AS previous, lag(sequence) OVER w AS before
		FROM (SELECT subscription, position, min(id) AS first FROM deliveries WHERE NOT redriven GROUP BY 1, 2) AS d
		JOIN cqrs_es.events AS e ON e.global_position = d.position
		WINDOW w AS (PARTITION BY d.subscription, aggregate_type, aggregate_id ORDER BY sequence)) AS o
	WHERE first < previous ORDER BY 1, 2, 3, 4 LIMIT 20}), '', 'first deliveries of a stream are in order');
is($node->safe_psql('postgres', q{
	SELECT position, count(*) FROM effects WHERE subscription = 'once' GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 20}), '',
	'exactly once: no effect is there twice');
is($node->safe_psql('postgres', q{
	SELECT l.global_position FROM cqrs_es.dead_letters AS l JOIN effects AS e ON e.subscription = l.subscription AND e.position = l.global_position
	WHERE l.subscription = 'once' AND l.state IN ('skipped', 'discarded')}), '', 'nor any of a dead letter');
is($node->safe_psql('postgres', q{
	SELECT l.subscription, l.global_position, l.state, l.error FROM cqrs_es.dead_letters AS l JOIN cqrs_es.events USING (global_position)
	WHERE payload->>'fails' NOT IN ('99', 'kills')}), '', 'no event is given up that does not always fail');
is($node->safe_psql('postgres', q{
	SELECT global_position, payload FROM cqrs_es.events AS e WHERE payload->>'fails' IN ('99', 'kills')
		AND NOT EXISTS (SELECT FROM cqrs_es.dead_letters AS l WHERE l.subscription = 'least' AND l.global_position = e.global_position)}), '',
	'and each of them was');

my %in_log = map { split / / } split /\n/, $node->safe_psql('postgres', q{SELECT global_position || ' ' || event_id FROM cqrs_es.events});
my (%unknown, $delivered);
foreach my $file (glob "$directory/delivered-*")
{
	foreach (split /\n/, slurp_file($file))
	{
		my ($position, $id) = split / /;
		next if length($id // '') != 36;		# cut off by a death
		$delivered++;
		$unknown{"$position $id"} = 1 if ($in_log{$position} // '') ne $id;
	}
}
is(join(', ', (sort keys %unknown)[ 0 .. (keys %unknown > 9 ? 9 : keys(%unknown) - 1) ]), '', 'all that was delivered is in the log');
my %complaints;
if (-e "$directory/complaints") { $complaints{$_}++ foreach split /\n/, slurp_file("$directory/complaints") }
is(join("\n", map { "$complaints{$_} times: $_" } sort keys %complaints), '', 'no consumer met an error that was not to be expected');
cmp_ok($died{killed} // 0, '>', 10, 'consumers died');
my %met;
$met{$_}++ foreach split /\n/, slurp_file("$directory/met");
cmp_ok($met{QE401} // 0, '>', 0, 'some came back too late');
note(join "\n", "$delivered deliveries, $died{killed} consumers killed", 'met: ' . join(', ', map { "$_ $met{$_} times" } sort keys %met),
	$node->safe_psql('postgres', q{SELECT subscription, state, error, count(*) FROM cqrs_es.dead_letters GROUP BY 1, 2, 3 ORDER BY 1, 2, 3}));

$node->stop;
done_testing();
