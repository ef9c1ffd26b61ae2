# Messages from outside, each delivered several times and by several workers, some of whom die or are
# killed, while others forget what is old: each is acted on once. What a crash, a prepared transaction, a
# dump, a standby and its promotion make of it.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "restart_after_crash = on\nmax_prepared_transactions = 10");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	-- what the application keeps: one row for each time that it acts
	CREATE TABLE acted (message text);
	-- acts on two streams, or on none
	CREATE FUNCTION take(message text) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		IF NOT cqrs_es.receive_message('queue', message) THEN
			RETURN false;
		END IF;
		INSERT INTO acted VALUES (message);
		IF message = 'm100' THEN
			PERFORM pg_advisory_xact_lock_shared(1);	-- where it can be held up
		END IF;
		IF hashtext(message) % 2 = 0 THEN
			PERFORM cqrs_es.append_event('from', message, 'Sent', '{}'), cqrs_es.append_event('to', message, 'Got', '{}');
		END IF;
		RETURN true;
	END $$;
});

sub answer { my ($message, $on) = @_; return ($on // $node)->safe_psql('postgres', "SELECT take('$message')"); }

sub state_of
{
	my ($on, $statement) = @_;
	my ($status, $stdout, $stderr) = $on->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	return $stderr =~ /ERROR:  (\w{5}):/ ? $1 : 'done';
}

# psql with a script, under way.
my $scripts = 0;
sub start_psql
{
	my ($script) = @_;
	my %psql = (out => '', err => '');
	my $file = "$dir/script" . $scripts++;

	open my $handle, '>', $file or die "could not write $file: $!";
	print $handle $script;
	close $handle or die "could not write $file: $!";
	$psql{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', $file ], '>', \$psql{out}, '2>', \$psql{err});
	return \%psql;
}

# Workers under load. Each message is in the hands of four of them, in another order each; some work is rolled
# back, and one worker after the other is killed.
my $messages = 300;
my @statements;
foreach my $worker (0 .. 3)
{
	my $n = 0;
	my @lines = map { my $end = $n++ % 7 == $worker ? 'ROLLBACK' : 'COMMIT';
		"BEGIN; SELECT take('m$_'); $end;" } shuffle(1 .. $messages);
	push @statements, join("\n", @lines) . "\n";
}
my $gate = $node->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(1)');
my @workers = map { start_psql($_) } @statements;
my $forgets = start_psql("\\set ON_ERROR_STOP on\n" . "CALL cqrs_es.forget_messages('1 hour');\n" x 30);
my $held = q{FROM pg_locks WHERE locktype = 'advisory' AND NOT granted};
$node->poll_query_until('postgres', "SELECT EXISTS (SELECT $held)");
is($node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) $held"), 't', 'a worker is killed');
$gate->query_safe('SELECT pg_advisory_unlock(1)');
$gate->quit;
$_->{run}->finish foreach @workers;
ok($forgets->{run}->finish, 'who forgets beside them is in nobody\'s way') or diag($forgets->{err});
is(scalar(grep { $_->{err} =~ /terminating connection/ } @workers), 1, '... in the middle of it');
unlike($_->{err}, qr/ERROR/, 'nor are workers in one another\'s') foreach @workers;
# what was rolled back by all, or was in the hands of the one that was killed, comes once more
my %first = map { $_ => answer("m$_") } 1 .. $messages;
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT message) FROM acted'), "$messages|$messages", 'each message has been acted on once');
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT (aggregate_type, aggregate_id)) FROM cqrs_es.events}),
	$node->safe_psql('postgres', q{SELECT 2 * count(*), 2 * count(*) FROM acted WHERE hashtext(message) % 2 = 0}), 'and so have both streams');
cmp_ok(scalar(grep { $_ eq 'f' } values %first), '>', $messages / 2, 'most of them by the workers');

# A crash in the middle of it, and a transaction that is prepared before.
$node->safe_psql('postgres', "BEGIN; SELECT take('prepared'); PREPARE TRANSACTION 'p'; BEGIN; SELECT take('given up'); PREPARE TRANSACTION 'q'");
is(answer('committed'), 't', 'a message before the crash');
my $open = $node->background_psql('postgres');
$open->query_safe("BEGIN; SELECT take('open')");
$node->stop('immediate');
eval { $open->quit };
$node->start;
is(answer('committed'), 'f', 'after it: what was committed was received');
is(answer('open'), 't', 'what was open was not');
is(state_of($node, "SET lock_timeout = '100ms'; SELECT take('prepared')"), '55P03', 'who receives a prepared one, waits still');
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
$node->safe_psql('postgres', "ROLLBACK PREPARED 'q'");
is(answer('prepared'), 'f', 'it was received');
is(answer('given up'), 't', 'and one that was rolled back was not');

# Forgetting is killed after its first portions: those are committed, and the next one does the rest.
$node->safe_psql('postgres', q{INSERT INTO cqrs_es.received_messages SELECT '', 'old', repeat('x', 900) || n, now() - interval '8 days' FROM generate_series(1, 6000) AS n});
my $holder = $node->background_psql('postgres');
$holder->query_safe(q{BEGIN; SELECT FROM cqrs_es.received_messages WHERE source = 'old' AND message_id LIKE '%x5999' FOR UPDATE});
my $forget = start_psql('CALL cqrs_es.forget_messages()');
$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'CALL cqrs_es.forget%' AND wait_event_type = 'Lock')});
is($node->safe_psql('postgres', q{SELECT backend_xid IS NOT NULL AND pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL cqrs_es.forget%'}), 't', 'it waits for a row, and is killed');
$forget->{run}->finish;
$holder->query_safe('COMMIT');
$holder->quit;
my $left = $node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.received_messages WHERE source = 'old'});
cmp_ok($left, '<', 6000, 'the portions before are done');
cmp_ok($left, '>', 0, 'the last one is not');
my ($status, $stdout, $stderr) = $node->psql('postgres', 'CALL cqrs_es.forget_messages()');
like($stderr, qr/^(?:psql:.*?)?NOTICE:  $left messages have been forgotten/, 'the next one does the rest, and says so');
is(answer('committed'), 'f', 'what is young is remembered');

# A dump has the messages, with their times.
my $content = q{SELECT md5(string_agg(r::text, ' ' ORDER BY r::text)) FROM (SELECT tenant_id, source, message_id, extract(epoch FROM received_at) FROM cqrs_es.received_messages) AS r};
$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('postgres'), '-f', "$dir/dump" ], 'a dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), "$dir/dump" ], 'is restored');
is($node->safe_psql('restored', $content), $node->safe_psql('postgres', $content), 'with the messages, as they were');
is($node->safe_psql('restored', q{SELECT take('committed'), take('new')}), 'f|t', 'which are recognized');

# A standby refuses, and goes on where the primary was.
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
is(answer('before the end'), 't', 'a message');
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is(state_of($standby, q{SELECT cqrs_es.receive_message('queue', 'new')}), '25006', 'a standby receives nothing');
is(state_of($standby, q{SELECT cqrs_es.receive_message('queue', 'before the end')}), '25006', 'nor says what was received');
is(state_of($standby, 'CALL cqrs_es.forget_messages()'), '25006', 'and forgets nothing');
$node->stop;
$standby->promote;
is(answer('before the end', $standby), 'f', 'promoted, it knows what was received');
is(answer('after it', $standby), 't', 'and receives');
$standby->stop;
done_testing();
