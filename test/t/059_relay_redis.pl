# Relays, examples/relay.*, with a Redis stream as the queue: Redis hangs, is full, is
# killed and started again, and loses all that it had; relays are killed. Every event is
# in the stream, each stream of events in order, and doubles have one event_id.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Clients qw(python_with node_with);
use Relays;

my $version = eval { my $output; IPC::Run::run([ 'redis-server', '--version' ], '<', \undef, '>&', \$output); $output };
plan(skip_all => 'Redis is not installed (Debian: redis-server)') if !$version;

my $examples = "$ENV{TESTDIR}/examples";
my @streams = map { "s$_" } 1 .. 8;

my $node = PostgreSQL::Test::Cluster->new('relays');
$node->init;
$node->start;
my ($relays, $name, $port, $directory, $redis);
END { $redis->kill_kill if $redis }

my ($python, $why) = python_with('psycopg', 'redis');
plays('python', $why, $python, "$examples/relay.py");

(my $node_path, $why) = node_with('pg', 'redis');
{
	local $ENV{NODE_PATH} = $node_path // '';
	plays('javascript', $why, defined $node_path && 'node', "$examples/relay.js");
}

$node->stop;
done_testing();

sub plays
{
	($name, my $missing, my @command) = @_;
  SKIP:
	{
		skip "$name: $missing", 1 if $missing;

		($port, $directory) = (PostgreSQL::Test::Cluster::get_free_port(), PostgreSQL::Test::Utils::tempdir());
		$relays = Relays->new($node, $name, @command);
		start_redis();
		troubles();
		loses_all();
		ends();
		$relays->finish;
		kill_redis();
	}
}

# Three relays share a subscription, one more has another, while one trouble follows the other.
sub troubles
{
	$relays->subscription('queue');
	$relays->subscription('audit');
	my $after = $relays->position;
	my @queue = map { relay('queue', '--timeout', 1) } 1 .. 3;
	relay('audit', '--timeout', 1);
	$relays->happens(3, @streams);
	$relays->until_done('queue', 'in peace all arrives');

	# it takes what it is sent, but does not answer in time
	$redis->signal('STOP');
	$relays->happens(2, @streams);
	$relays->until_sql(q{SELECT count(*) >= 3 FROM cqrs_es.subscription_parked_streams}, 'it hangs: that is noticed');
	$relays->ended(shift @queue, 'KILL');
	$redis->signal('CONT');
	push @queue, relay('queue', '--timeout', 1);

	cli('CONFIG', 'SET', 'maxmemory', '1');
	$relays->happens(2, @streams);
	$relays->until_sql(q{SELECT count(*) >= 3 FROM cqrs_es.subscription_parked_streams WHERE error ~ 'OOM|maxmemory'}, 'it is full: that is said');
	cli('CONFIG', 'SET', 'maxmemory', '0');

	kill_redis();
	$relays->happens(10, @streams);
	$relays->until_sql(q{SELECT count(*) >= 3 FROM cqrs_es.subscription_parked_streams WHERE error ~* 'refused'}, 'it is not there');
	start_redis();
	$relays->until_sql(q{SELECT position > 0 AND NOT EXISTS (SELECT FROM cqrs_es.parked_streams) FROM cqrs_es.shares LIMIT 1}, 'it is back');

	# in the middle of it all
	$relays->happens(20, @streams);
	$relays->ended($relays->until_busy('queue', \@queue, @streams), 'KILL');
	kill_redis();
	start_redis();
	relay('queue', '--timeout', 1);

	$relays->until_done($_, "$_: all is done in the end") foreach 'queue', 'audit';
	$relays->all_arrived($after, entries('queue'));
	$relays->all_arrived($after, entries('audit'));
	like((entries('queue'))[0][1], qr/"n": 12345678901234567890.123456789\D/, "$name: numbers are exact");
	is($relays->sql(q{SELECT count(*) FROM cqrs_es.dead_letters}), 0, "$name: nothing was given up");
}

# What Redis has lost is sent again, with the same ids.
sub loses_all
{
	my %before = map { $_->[0] => $_->[1] } entries('queue');
	cli('FLUSHALL');
	$relays->sql(q{SELECT cqrs_es.reset_subscription('queue', 0)});
	$relays->until_done('queue', 'after a reset all is done again');
	my @entries = entries('queue');
	$relays->all_arrived(0, @entries);
	is_deeply({ map { $_->[0] => $_->[1] } @entries }, \%before, "$name: all is as it was");
	$relays->pause('queue', 'audit');
}

# Told to end again and again, while events keep coming: nothing comes twice.
sub ends
{
	$relays->subscription('ended');
	my $after = $relays->position;
	for (1 .. 3)
	{
		my $relay = relay('ended');
		$relays->happens(5, @streams);
		my $before = entries('ended');
		$relays->until_true("$_ works", sub { entries('ended') > $before });
		$relays->happens(5, @streams);
		is($relays->ended($relay, 'TERM'), 0, "$name: SIGTERM");
	}
	relay('ended');
	$relays->until_done('ended', 'the last one does the rest');
	$relays->all_arrived($after, entries('ended'));
	is(scalar(entries('ended')), 3 * 10 * @streams, "$name: nothing came twice");
}

# A relay to the stream of that name.
sub relay
{
	my ($subscription, @more) = @_;
	return $relays->start($subscription, '--redis', "redis://127.0.0.1:$port/0", '--stream', $subscription, @more);
}

# What it was told is on disk when it answers.
sub start_redis
{
	$redis = IPC::Run::start([ 'redis-server', '--bind', '127.0.0.1', '--port', $port, '--dir', $directory, '--save', '', '--appendonly', 'yes', '--appendfsync', 'always' ],
		'<', \undef, '>>', "$directory/log", '2>&1');
	$relays->until_true('Redis runs', sub { cli('PING') eq "PONG\n" });
}

sub kill_redis
{
	$redis->signal('KILL');
	eval { $redis->finish };
}

sub cli
{
	IPC::Run::run([ 'redis-cli', '-p', $port, @_ ], '<', \undef, '>', \my $output, '2>', \my $error);
	return $output;
}

# Of a stream of Redis, in its order: event_id and event.
sub entries
{
	my @lines = split /\n/, cli('XRANGE', $_[0], '-', '+');
	my @entries;
	while (my ($id, $key, $event_id, $body, $event) = splice @lines, 0, 5)
	{
		die "unexpected entry: $id $key $body" if $key ne 'event_id' || $body ne 'event';
		push @entries, [ $event_id, $event ];
	}
	return @entries;
}
