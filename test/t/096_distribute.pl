# A log that distribute() has spread over a Citus cluster: a stream is written to on its node alone, by all the rules,
# and each node's feed is exact, while shards move and nodes are killed.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use CitusCluster qw(citus_cluster);

use constant STREAMS => 60;
use constant SECONDS => 12;

my ($coordinator, @workers) = citus_cluster(2);
my @nodes = ($coordinator, @workers);
sub sql { return $coordinator->safe_psql('postgres', $_[0]) }

sub error_on
{
	my ($node, $sql) = @_;
	my (undef, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	return $stderr =~ /ERROR:  (.*(?:\nDETAIL:.*)?)/ ? $1 : 'none';
}

# What does not go with it.
sql('CREATE EXTENSION cqrs_es');
$workers[1]->safe_psql('postgres', q{SELECT FROM cqrs_es.append_event('t', '1', 'e', '{}')});
like(error_on($coordinator, 'SELECT cqrs_es.distribute(8)'), qr/^55000: the log cannot be distributed.*\n.*Node 2, .*: cqrs_es\.events has rows there/, 'a worker has events of its own');
sql('DROP EXTENSION cqrs_es; CREATE EXTENSION cqrs_es');
sql(q{SELECT cqrs_es.create_aggregate('a', '{}')});
like(error_on($coordinator, 'SELECT cqrs_es.distribute(8)'), qr/^55000: .*\n.*Node 0, .*: cqrs_es\.aggregates has rows there/, 'something is declared');
sql(q{SELECT cqrs_es.drop_aggregate('a')});
like(error_on($workers[0], 'SELECT cqrs_es.distribute(8)'), qr/^55000: .*coordinator/, 'it is called on a worker');
$workers[0]->append_conf('postgresql.conf', 'cqrs_es.node_id = 7');
$workers[0]->reload;
like(error_on($coordinator, 'SELECT cqrs_es.distribute(8)'), qr/^55000: .*\n.*Node 1, .*: cqrs_es\.node_id is set there/, 'a worker has a number of its own');
$workers[0]->append_conf('postgresql.conf', 'cqrs_es.node_id = 0');
$workers[0]->reload;
is(sql(q{SELECT version FROM cqrs_es.append_event('t', '1', 'e', '{}')}), '1', 'it is an ordinary log still');
like(error_on($coordinator, 'SELECT cqrs_es.distribute(8)'), qr/^55000: .*\n.*Node 0, .*: cqrs_es\.events has rows there/, 'now with an event');
sql('DROP EXTENSION cqrs_es; CREATE EXTENSION cqrs_es');

my %reader = map { $_->name => $_->background_psql('postgres') } @workers;
my %session = map { $_->name => $_->background_psql('postgres') } @nodes;
is($session{worker_1}->query_safe('SELECT cqrs_es.settled_position()'), '0', 'a session that knows the log from before');
sql('SELECT cqrs_es.distribute(8)');
is(sql('SELECT count(*), count(problem) FROM cqrs_es.distribution_status()'), '3|0', 'it is distributed');
like(error_on($coordinator, 'SELECT cqrs_es.distribute(8)'), qr/^55000: .*already/, 'once');

# A stream of each worker.
my @stream = map { sql("SELECT min(n) FROM generate_series(1, 100) AS n, cqrs_es.home_of(n::text) AS h WHERE h.node_id = $_") } 1, 2;
my $insert = 'INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload';
foreach my $i (0, 1)
{
	my ($home, $id) = ($workers[$i], $stream[$i]);
	my $number = $i + 1;
	my $append = "SELECT version, global_position >> 44 FROM cqrs_es.append_event('t', '$id', 'e', '{}'";
	is($session{ $home->name }->query_safe("$append)"), "1|$number", "append_event at home, node $number");
	is($home->safe_psql('postgres', "$append, 1)"), "2|$number", 'behind the expected version');
	like(error_on($home, "$append, 1)"), qr/^QE001/, 'which is no other');
	is($home->safe_psql('postgres', "SELECT version FROM cqrs_es.append_events('t', '$id', '[{\"type\": \"e\", \"payload\": {}}, {\"type\": \"e\", \"payload\": {}}]')"), '4', 'append_events');
	is($home->safe_psql('postgres', "$insert) VALUES ('t', '$id', 'e', '{}') RETURNING sequence"), '5', 'INSERT');
	is($home->safe_psql('postgres', "$insert, sequence) VALUES ('t', '$id', 'e', '{}', 6) RETURNING sequence"), '6', 'with its sequence');
	like(error_on($home, "$insert, sequence) VALUES ('t', '$id', 'e', '{}', 99)"), qr/^QE003/, 'not with a hole');
	like(error_on($home, "$insert, sequence) VALUES ('t', '$id', 'e', '{}', 6)"), qr/^23505/, 'nor a second time');
	like(error_on($home, "$insert, sequence, global_position) VALUES ('t', '$id', 'e', '{}', 7, 7)"), qr/^QE607/, 'nor restored');
	like(error_on($home, "DELETE FROM cqrs_es.events WHERE aggregate_id = '$id'"), qr/^QE004/, 'and it stays');
	$home->safe_psql('postgres', "BEGIN; $append); ROLLBACK");
	like(error_on($home, "BEGIN; $append); PREPARE TRANSACTION 'p'"), qr/cannot use 2PC/, 'Citus lets nobody prepare it');
	# which has seen the dead gaps below it settle
	is($reader{ $home->name }->query_safe('SELECT count(*) FROM cqrs_es.read_all()'), '6', 'what was rolled back is not waited for');
	$session{ $home->name }->query_safe("BEGIN; $append)");
	is($reader{ $home->name }->query_safe("SET cqrs_es.settle_timeout = 0; SELECT count(*) FROM cqrs_es.read_all()"), '6', 'what is in flight is not settled');
	$session{ $home->name }->query_safe('COMMIT');
	foreach my $elsewhere (grep { $_ != $home } @nodes)
	{
		like(error_on($elsewhere, "$append)"), qr/^QE607: stream "t\/$id" is stored on another node/, 'append_event, ' . $elsewhere->name);
		like(error_on($elsewhere, "$insert) VALUES ('t', '$id', 'e', '{}')"), qr/^QE607/, 'INSERT, ' . $elsewhere->name);
		like(error_on($elsewhere, "$insert, sequence) VALUES ('t', '$id', 'e', '{}', 99)"), qr/^QE607/, 'with a hole, ' . $elsewhere->name);
		is($elsewhere->safe_psql('postgres', "SELECT string_agg(sequence::text, ' ') FROM cqrs_es.read_stream('t', '$id')"), '1 2 3 4 5 6 7', 'read_stream, ' . $elsewhere->name);
		is($elsewhere->safe_psql('postgres', "SELECT cqrs_es.stream_version('t', '$id')"), '7', 'stream_version, ' . $elsewhere->name);
		like(error_on($elsewhere, 'SELECT cqrs_es.read_all(' . (($i + 1) << 44) . ')'), qr/^22023: .*is not one of this node/, 'a cursor of another node, ' . $elsewhere->name);
	}
	is($home->safe_psql('postgres', q{SELECT count(*), min(global_position >> 44), max(global_position >> 44) FROM cqrs_es.read_all()}), "7|$number|$number", 'read_all is the feed of the node');
}
is(sql('SELECT count(*) FROM cqrs_es.read_all()'), '0', 'the coordinator has none');
like(error_on($workers[0], qq{SELECT cqrs_es.append_to_streams('[{"aggregate_type": "t", "aggregate_id": "$stream[0]", "type": "e", "payload": {}}, {"aggregate_type": "t", "aggregate_id": "$stream[1]", "type": "e", "payload": {}}]')}),
	qr/^QE607/, 'an append to streams of two nodes');
is($workers[0]->safe_psql('postgres', "SELECT cqrs_es.stream_version('t', '$stream[0]')"), '7', 'is an append to none');

# More than a portion of what a node reads at once, the last of which ends with the log.
is($workers[0]->safe_psql('postgres', qq{SELECT version FROM cqrs_es.append_events('t', '$stream[0]', (SELECT jsonb_agg('{"type": "e", "payload": {}}'::jsonb) FROM generate_series(1, 2993)))}),
	3000, 'a batch of 2993');
is($workers[0]->safe_psql('postgres', 'SELECT count(*), count(DISTINCT global_position) FROM cqrs_es.read_all(max_count => 5000)'), '3000|3000', 'all are read');

# What would have to be known on all nodes.
foreach my $node (@nodes)
{
	like(error_on($node, $_->[1]), qr/^QE608/, "$_->[0], " . $node->name) foreach
		[ 'create_aggregate', q{SELECT cqrs_es.create_aggregate('a', '{}')} ],
		[ 'create_subscription', q{SELECT cqrs_es.create_subscription('s')} ],
		[ 'create_projection', q{CREATE TEMP TABLE m (); SELECT cqrs_es.create_projection('p', '{t}')} ],
		[ 'receive_message', q{SELECT cqrs_es.receive_message('s', 'm')} ],
		[ 'after_failover', q{SELECT cqrs_es.after_failover()} ];
}
like(error_on($workers[0], "SELECT cqrs_es.append_event('t', '$stream[0]', 'e', '{}', tags => '{a}')"), qr/^QE608/, 'tags');
like(error_on($workers[0], qq{SELECT cqrs_es.append_to_streams('[{"aggregate_type": "t", "aggregate_id": "$stream[0]", "type": "e", "payload": {}}]', fail_if_events_match => '[{"types": ["x"]}]')}), qr/^QE608/, 'a condition');

# Writers on each worker, who roll back, wait and prepare; shards that move; readers of each feed.
sql(q{
	CREATE FUNCTION attempt(id text, fate int) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM FROM cqrs_es.append_event('torture', id, 'e', jsonb_build_object('n', fate));
		IF fate < 3 THEN PERFORM pg_sleep(0.01 * fate); END IF;
		IF fate = 4 THEN RAISE EXCEPTION 'rolled back' USING ERRCODE = 'TT000'; END IF;
	EXCEPTION WHEN SQLSTATE 'QE607' OR SQLSTATE 'TT000' THEN NULL;
	END $$});
my $script = "$PostgreSQL::Test::Utils::tmp_check/writer.sql";
append_to_file($script, '\set s random(1, ' . STREAMS . ")\n\\set fate random(1, 12)\n"
	. "SELECT attempt(:s::text, :fate) FROM cqrs_es.home_of(:s::text) WHERE node_id = (SELECT groupid FROM pg_dist_local_group);\n");
my @writers = map { IPC::Run::start([ 'pgbench', '-n', '-c', 4, '-T', SECONDS, '-f', $script, '-h', $_->host, '-p', $_->port, 'postgres' ], '>', \(my $out), '2>', \(my $err)) } @workers;

my %after = (worker_1 => 0, worker_2 => 0);
my %seen;
sub poll
{
	foreach my $node (@workers)
	{
		foreach (split /\n/, $node->safe_psql('postgres', "SET cqrs_es.settle_timeout = '50ms'; SELECT global_position, event_type, aggregate_type, aggregate_id, sequence FROM cqrs_es.read_all($after{ $node->name }, 500)"))
		{
			my ($position, $type, @key) = split /\|/;
			die "$position behind $after{ $node->name }" if $position <= $after{ $node->name };
			$after{ $node->name } = $position;
			$seen{"@key"}++;
		}
	}
	return;
}
my ($moves, $until) = (0, time + SECONDS);
while (time < $until)
{
	poll();
	my ($shard, @place) = split /\|/, sql(q{SELECT s.shardid, f.nodename, f.nodeport, t.nodename, t.nodeport FROM pg_dist_shard AS s JOIN pg_dist_placement AS p USING (shardid)
		JOIN pg_dist_node AS f ON f.groupid = p.groupid JOIN pg_dist_node AS t ON t.groupid = 3 - p.groupid
		WHERE s.logicalrelid = 'cqrs_es.events'::regclass ORDER BY random() LIMIT 1});
	my $mode = $moves % 2 ? 'force_logical' : 'block_writes';
	sql("SELECT citus_move_shard_placement($shard, '$place[0]', $place[1], '$place[2]', $place[3], '$mode')");
	$moves++;
}
$_->finish foreach @writers;
cmp_ok($moves, '>', 1, "$moves shards have moved meanwhile");
my $total = sql('SELECT count(*) FROM cqrs_es.events');
for (1 .. 1 + $total / 500) { poll() }
cmp_ok($total, '>', 100, "$total events");
is(scalar keys %seen, $total, 'readers of both feeds have seen all of them');
is((grep { $_ != 1 } values %seen), 0, 'each once');
is(sql('SELECT count(*) - count(DISTINCT global_position) FROM cqrs_es.events'), '0', 'no position is there twice');
is(sql('SELECT count(*) FROM (SELECT FROM cqrs_es.events GROUP BY aggregate_type, aggregate_id HAVING count(*) <> max(sequence)) AS s'), '0', 'no stream has a hole');
is(sql('SELECT count(*), count(problem) FROM cqrs_es.distribution_status()'), '3|0', 'nothing is where it should not be');
$_->quit foreach values %session, values %reader;
$_->stop foreach @nodes;
done_testing();
