# A log that distribute() has spread over a Citus cluster, while its nodes are killed, shards move and split, and a node comes: what was
# acknowledged is there once, streams have no hole, and readers of each node's feed have all of it, once, in order. CITUS_DEATHS: so many
# more turns.

use strict;
use warnings FATAL => 'all';
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

use lib "$ENV{TESTDIR}/test/include";
use CitusCluster qw(citus_cluster citus_node citus_add);
use Session;

use constant STREAMS => 40;

my ($coordinator, @workers) = citus_cluster(2);
my $new = citus_node('worker_3');
foreach my $node ($coordinator, @workers, $new)
{
	# what a death leaves prepared is looked for at once
	$node->append_conf('postgresql.conf', "citus.recover_2pc_interval = '1s'\nrestart_after_crash = on\ncqrs_es.settle_timeout = 100ms");
	$node->reload;
}
sub sql { return $coordinator->safe_psql('postgres', $_[0]) }
# The answer, or undef.
sub tried
{
	my ($status, $out) = $coordinator->psql('postgres', $_[0]);
	return $status ? undef : $out;
}
sql('CREATE EXTENSION cqrs_es; SELECT cqrs_es.distribute(8)');

my $directory = PostgreSQL::Test::Utils::tempdir('deaths');
my $user = getpwuid($>);
my @processes;
sub is_set { return -e "$directory/$_[0]" }
sub set { append_to_file("$directory/$_[0]", "\n"); return }
sub lines { return -e "$directory/$_[0]" ? split /\n/, slurp_file("$directory/$_[0]") : () }

sub run
{
	my ($work) = @_;
	my $pid = fork // die "could not fork: $!";

	if ($pid) { push @processes, $pid; return }
	1 until $work->();
	POSIX::_exit(0);
}

my %session;
# A statement on a node: its rows, or undef and its SQLSTATE.
sub on
{
	my ($node, $sql) = @_;
	my $session = $session{ $node->port };

	$session = $session{ $node->port } = Session->new($node->host, $node->port, $user, 'postgres') if !$session || !$session->{socket};
	if (!$session) { usleep(20_000); $! = 0; return (undef, '08006') }
	my ($rows) = $session->try($sql);
	return ($rows, '') if !$session->{state};
	my $state = $session->{state};
	append_to_file("$directory/errors", "$state " . $session->{message} =~ s/\n/ /gr . "\n");
	$session->try('ROLLBACK') if $session->{socket} && $session->{transaction} ne 'I';
	return (undef, $state);
}

# Appends with an id until it is answered; at home, which another node may have become.
sub writer
{
	my ($name) = @_;
	my ($n, $key, $id, %home) = (0);

	return sub {
		return 1 if is_set('writers end') && !defined $key;
		if (!defined $key)
		{
			$key = "$name-" . ++$n;
			$id = 1 + int rand STREAMS;
		}
		if (!$home{$id})
		{
			my ($rows) = on($coordinator, "SELECT port FROM cqrs_es.home_of('$id')");
			return 0 if !$rows || !@$rows;
			($home{$id}) = grep { $_->port == $rows->[0][0] } @workers, $new;
		}
		my $append = "SELECT FROM cqrs_es.append_event('t', '$id', 'e', '{\"key\": \"$key\"}', event_id => cqrs_es.id_from_text('$key'))";
		my $kind = $n % 6;
		my @steps = $kind == 1 ? ('BEGIN', $append, 'SELECT pg_sleep(0.02)', 'COMMIT')
			: $kind == 2 ? ('BEGIN', "SELECT FROM cqrs_es.append_event('t', '$id', 'vain', '{}')", 'ROLLBACK', $append) : ($append);
		foreach my $step (@steps)
		{
			my (undef, $state) = on($home{$id}, $step);
			next if !$state;
			delete $home{$id};
			usleep(10_000);
			return 0;
		}
		append_to_file("$directory/acknowledged-$name", "$key\n");
		undef $key;
		return 0;
	};
}

# Reads the feed of a node, and notes what it gets.
sub reader
{
	my ($node) = @_;
	my $name = $node->name;
	my $after = 0;

	return sub {
		my ($rows) = on($node, "SELECT global_position, payload->>'key' FROM cqrs_es.read_all($after, 200)");
		return 0 if !$rows;
		append_to_file("$directory/read-$name", join '', map { "$_->[0] " . ($_->[1] // 'vain') . "\n" } @$rows) if @$rows;
		$after = $rows->[-1][0] if @$rows;
		usleep(5_000) if !@$rows;
		return is_set('readers end') && !@$rows;
	};
}

sub acknowledged { return map { lines("acknowledged-$_") } 1 .. 4 }

# So many more are answered: what is dead is alive again.
sub until_acknowledged
{
	my ($more) = @_;
	my $wanted = acknowledged() + $more;

	for (1 .. 6000)
	{
		return 1 if acknowledged() >= $wanted;
		usleep(20_000);
	}
	diag(join "\n", (lines('errors'))[-20 .. -1]);
	return 0;
}

sub kill_server
{
	my ($node) = @_;
	my $postmaster = $node->{_pid};
	my @all = map { /^\s*(\d+)/ } `ps -o pid= --ppid $postmaster`;

	kill 'KILL', $postmaster, @all;
	$node->kill9;
	for (1 .. 1000) { last if !kill 0, @all; usleep(10_000) }
	$! = 0;
	$node->start;
	return;
}

# A shard that is on a node.
sub shard_of
{
	return sql(sprintf q{SELECT s.shardid FROM pg_dist_shard AS s JOIN pg_dist_placement AS p USING (shardid) JOIN pg_dist_node AS n USING (groupid)
		WHERE s.logicalrelid = 'cqrs_es.events'::regclass AND n.nodeport = %d ORDER BY random() LIMIT 1}, $_[0]->port);
}

# Move one to a node, while somebody may be killed.
sub move
{
	my ($from, $to, $mode, $victim) = @_;
	my $shard = shard_of($from);
	my $pid;

	return 'none' if !$shard;
	my $sql = sprintf q{SELECT citus_move_shard_placement(%d, '%s', %d, '%s', %d, '%s')}, $shard, (map { ($_->host, $_->port) } $from, $to), $mode;
	if ($victim)
	{
		$pid = fork // die;
		if (!$pid) { my $result = tried($sql); POSIX::_exit(0) }
		usleep(100_000 + rand 400_000);
		kill_server($victim);
		waitpid $pid, 0;
		tried('CALL citus_cleanup_orphaned_resources()');
		return;
	}
	for (1 .. 200)
	{
		return 'moved' if defined tried($sql);
		tried('CALL citus_cleanup_orphaned_resources()');
		usleep(100_000);
	}
	return 'not moved';
}

run(writer($_)) foreach 1 .. 4;
run(reader($_)) foreach $coordinator, @workers;
ok(until_acknowledged(50), 'writers are at work');
kill_server($workers[0]);
ok(until_acknowledged(50), 'a worker is killed, and comes again');
move(@workers[ 1, 0 ], 'block_writes', $workers[1]);
ok(until_acknowledged(50), 'the node is killed from which a shard moves');
move(@workers, 'force_logical', $coordinator);
ok(until_acknowledged(50), 'the coordinator is, while one moves');
is(move(@workers[ 1, 0 ], 'block_writes'), 'moved', 'then one moves');

my $shard = shard_of($workers[0]);
my ($low, $high) = split /\|/, sql("SELECT shardminvalue::int, shardmaxvalue::int FROM pg_dist_shard WHERE shardid = $shard");
my $middle = $low + int(($high - $low) / 2);
my $split = 0;
for (1 .. 50)
{
	last if $split = defined tried(sprintf q{SELECT citus_split_shard_by_split_points(%d, ARRAY['%d'], ARRAY(SELECT nodeid FROM pg_dist_node, generate_series(1, 2) AS n WHERE nodeport = %d), 'block_writes')},
		$shard, $middle, $workers[0]->port);
	tried('CALL citus_cleanup_orphaned_resources()');
	usleep(100_000);
}
ok($split, 'one is split');
ok(until_acknowledged(50), 'and taken appends');

citus_add($coordinator, $new);
sql('SELECT cqrs_es.admit_nodes()');
run(reader($new));
is(move($_, $new, 'block_writes'), 'moved', 'a node comes, and gets a shard of ' . $_->name) foreach @workers;
ok(until_acknowledged(50), 'and appends');
move($workers[0], $new, 'force_logical', $new);
ok(until_acknowledged(50), 'it is killed as well');
for (1 .. $ENV{CITUS_DEATHS} // 0)
{
	my ($from, $to) = sort { rand() <=> 0.5 } @workers, $new;
	move($from, $to, $_ % 2 ? 'block_writes' : 'force_logical', ($coordinator, @workers, $new)[rand 4]);
	ok(until_acknowledged(50), "another death, $_");
}
set('writers end');
waitpid $_, 0 foreach splice @processes, 0, 4;
my $total = sql('SELECT count(*) FROM cqrs_es.events');
set('readers end');
waitpid $_, 0 foreach @processes;

my @acknowledged = acknowledged();
my %there = map { split /\|/ } split /\n/, sql(q{SELECT payload->>'key', count(*) FROM cqrs_es.events WHERE event_type = 'e' GROUP BY 1});
is((grep { !$there{$_} } @acknowledged), 0, scalar @acknowledged . ' were acknowledged, and are there');
is((grep { $_ != 1 } values %there), 0, 'once');
is(sql('SELECT count(*) - count(DISTINCT global_position) FROM cqrs_es.events'), 0, 'no position is there twice');
is(sql('SELECT count(*) FROM (SELECT FROM cqrs_es.events GROUP BY aggregate_type, aggregate_id HAVING count(*) <> max(sequence)) AS s'), 0, 'no stream has a hole');
foreach my $node ($coordinator, @workers, $new)
{
	my @positions = map { (split / /)[0] } lines('read-' . $node->name);
	my $number = $node->safe_psql('postgres', 'SELECT groupid FROM pg_dist_local_group');
	is((grep { $positions[$_] <= $positions[ $_ - 1 ] } 1 .. $#positions), 0, 'the reader of ' . $node->name . ' has read in order');
	is(join(' ', @positions), sql("SELECT string_agg(global_position::text, ' ' ORDER BY global_position) FROM cqrs_es.events WHERE global_position >> 44 = $number"), 'and all of it');
}
is(sql(q{SELECT count(*) FROM cqrs_es.read_shards(max_count => 100000) WHERE global_position IS NOT NULL}), $total, 'as has one of all nodes');
is(sql('SELECT count(*), string_agg(problem, $$; $$) FROM cqrs_es.distribution_status()'), '4|', 'nothing is where it should not be');
is(join("\n", grep { !/^(?:08006|08000|57P0[123]|QE607|QE609|40P01|55P03|55000|58000|XX000|57014|42P01|0A000|3D000|25P02|40001|08001) / } lines('errors')), '', 'nothing was said that should not be');

$_->stop foreach $coordinator, @workers, $new;
done_testing();
