# A log that distribute() has spread over a Citus cluster, read as a whole on its coordinator: one position for each node, also
# of nodes that have left the cluster.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use CitusCluster qw(citus_cluster);

my ($coordinator, @workers) = citus_cluster(2);
sub sql { return $coordinator->safe_psql('postgres', $_[0]) }

sub error_on
{
	my ($node, $sql) = @_;
	my (undef, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	return $stderr =~ /ERROR:  (.*(?:\nDETAIL:.*)?)/ ? $1 : 'none';
}

# Appends to stream n, at home.
sub append
{
	my ($id, $more) = @_;
	my $home = sql("SELECT node_id FROM cqrs_es.home_of('$id')");
	return $workers[$home - 1]->safe_psql('postgres', "SELECT global_position FROM cqrs_es.append_event('t', '$id', 'e', '{\"n\": \"\\u00e4 \\\\ 1e400\"}'" . ($more // '') . ')');
}

sql('CREATE EXTENSION cqrs_es');
is(sql('SELECT count(*), count(global_position) FROM cqrs_es.read_shards()'), '1|0', 'a log that is not distributed is read as one node');
sql('CREATE ROLE tenant_a LOGIN; GRANT USAGE ON SCHEMA cqrs_es TO tenant_a; GRANT SELECT, INSERT ON cqrs_es.events TO tenant_a');
sql('SELECT cqrs_es.distribute(8)');
like(error_on($workers[0], 'SELECT cqrs_es.read_shards()'), qr/^55000: .*coordinator/, 'it is called on the coordinator');
is(sql('SELECT count(*), count(global_position) FROM cqrs_es.read_shards()'), '3|0', 'of each node a row says how far it was read');

my %all = map { append($_) => 1 } 1 .. 40;
my $page = q{WITH page AS MATERIALIZED (SELECT * FROM cqrs_es.read_shards('%s', 7))
	SELECT (SELECT cqrs_es.merge_positions('%s', array_agg(read_to)) FROM page), (SELECT string_agg(global_position::text, ' ') FROM page)};
my ($vector, %seen) = ('{}');
sub read_on
{
	for (;;)
	{
		my ($go_on, $positions) = split /\|/, sql(sprintf $page, $vector, $vector);
		$vector = $go_on;
		return if !$positions;
		$seen{$_}++ foreach split / /, $positions;
	}
}
read_on();
is_deeply(\%seen, \%all, 'all nodes are read, by pages, each event once');
my $rows = q{SELECT md5(string_agg((global_position, sequence, created_at, event_id, tenant_id, aggregate_type, aggregate_id, event_type, event_version, payload, metadata)::text,
	'|' ORDER BY global_position)) FROM };
is(sql($rows . 'cqrs_es.read_shards() WHERE global_position IS NOT NULL'), sql($rows . 'cqrs_es.events'), 'as they are');

# what is in flight on one node stops that one, and is not passed
my $writer = $workers[0]->background_psql('postgres');
my @of_one = split /\n/, sql("SELECT n FROM generate_series(1, 100) AS n, cqrs_es.home_of(n::text) AS h WHERE h.node_id = 1 LIMIT 3");
$writer->query_safe("BEGIN; SELECT FROM cqrs_es.append_event('t', '$of_one[0]', 'e', '{}')");
$all{ append($_) } = 1 foreach $of_one[1], 41 .. 60;
read_on();
my @missing = grep { !$seen{$_} } keys %all;
cmp_ok(scalar @missing, '>', 0, 'behind what is in flight nothing of its node is handed out');
is((grep { $_ >> 44 != 1 } @missing), 0, 'other nodes are read on');
$writer->query_safe('COMMIT');
$writer->quit;
read_on();
is(scalar(keys %seen), sql('SELECT count(*) FROM cqrs_es.events'), 'then all of it is');
is((grep { $_ != 1 } values %seen), 0, 'once');

# tenants
sql('ALTER ROLE tenant_a SET cqrs_es.tenant_id = \'a\'');
is(sql('SELECT count(problem) FROM cqrs_es.distribution_status()'), 0, 'nothing is where it should not be');
sql('CREATE ROLE later; GRANT USAGE ON SCHEMA cqrs_es TO later');
is(sql('SELECT DISTINCT problem FROM cqrs_es.distribution_status() WHERE node_id > 0'), 'who has USAGE on the schema on the coordinator has not: later', 'a role that may use the schema on the coordinator alone is told of');
sql('SELECT run_command_on_workers($$GRANT USAGE ON SCHEMA cqrs_es TO later$$)');
is(sql('SELECT count(problem) FROM cqrs_es.distribution_status()'), 0, 'until it is given on all nodes');
my $shard = $workers[0]->safe_psql('postgres', q{SELECT min(shardid) FROM pg_dist_placement WHERE groupid = 1 AND shardid IN (SELECT shardid FROM pg_dist_shard WHERE logicalrelid = 'cqrs_es.events'::regclass)});
$workers[0]->safe_psql('postgres', "SET citus.enable_manual_changes_to_shards = on; ALTER TABLE cqrs_es.events_$shard DISABLE TRIGGER admit_event_$shard");
is(sql('SELECT problem FROM cqrs_es.distribution_status() WHERE node_id = 1'), "shard $shard has no trigger admit_event as the log has", 'as is a shard without a trigger');
$workers[0]->safe_psql('postgres', "SET citus.enable_manual_changes_to_shards = on; ALTER TABLE cqrs_es.events_$shard ENABLE TRIGGER admit_event_$shard");
my $home = $workers[sql("SELECT node_id FROM cqrs_es.home_of('1')") - 1];
$home->safe_psql('postgres', q{SET cqrs_es.tenant_id = 'a'; SELECT FROM cqrs_es.append_event('t', '1', 'e', '{}')});
is($coordinator->safe_psql('postgres', q{SET cqrs_es.tenant_id = 'a'; SELECT count(*), min(tenant_id) FROM cqrs_es.read_shards() WHERE global_position IS NOT NULL}), '1|a', 'the tenant of the session is that of the nodes');
is($coordinator->safe_psql('postgres', q{SELECT count(*), min(tenant_id) FROM cqrs_es.read_shards() WHERE global_position IS NOT NULL}, extra_params => [ '-U', 'tenant_a' ]), '1|a', 'also where a role is bound to it');
is(sql(q{SELECT count(*) FROM cqrs_es.read_shards(all_tenants => true) WHERE global_position IS NOT NULL}), 1 + keys %seen, 'or all of them');

# a node leaves
my $before = $vector;
sql(qq{SELECT citus_drain_node('@{[ $workers[0]->host ]}', @{[ $workers[0]->port ]}, 'block_writes')});
$all{ append($_) } = 1 foreach 1 .. 20;
sql(qq{SELECT citus_remove_node('@{[ $workers[0]->host ]}', @{[ $workers[0]->port ]})});
$workers[0]->stop('immediate');
%seen = ();
$vector = '{}';
read_on();
is(scalar(keys %seen), sql(q{SELECT count(*) FROM cqrs_es.events WHERE tenant_id = ''}), 'the events of a node that has left are read, by a reader from the beginning');
is((grep { $_ != 1 } values %seen), 0, 'once');
is((grep { $_ >> 44 == 1 } keys %seen) > 10, 1, 'with its positions');
is(sql('SELECT count(*) FROM cqrs_es.read_all(1::bigint << 44)'), sql(q{SELECT count(*) FROM cqrs_es.events WHERE global_position >> 44 = 1 AND tenant_id = ''}), 'alone as well');
is(sql('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM cqrs_es.read_all(1::bigint << 44)'), sql(q{SELECT count(*) FROM cqrs_es.events WHERE global_position >> 44 = 1 AND tenant_id = ''}), 'in any isolation level');
like(error_on($workers[1], 'SELECT cqrs_es.read_all(1::bigint << 44)'), qr/^22023/, 'on the coordinator, which knows who has left');
like(error_on($coordinator, 'SELECT cqrs_es.read_all(2::bigint << 44)'), qr/^22023/, 'one that is there is asked itself');
$workers[1]->stop('immediate');
like(error_on($coordinator, 'SELECT cqrs_es.read_shards()'), qr/./, 'where a node is away, there is an error, and no part of the feeds');

$coordinator->stop;
done_testing();
