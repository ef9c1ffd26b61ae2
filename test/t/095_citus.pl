# A log that somebody has distributed with Citus, by hand: it takes no event and no declaration by any way, from any
# node, where half of what is promised of an append would not hold. What is in it is read, moved with its shards, and
# comes out whole.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use CitusCluster qw(citus_cluster);

use constant EVENTS => 200;

my ($coordinator, @workers) = citus_cluster(2);
my @nodes = ($coordinator, @workers);
sub sql { return $coordinator->safe_psql('postgres', $_[0]) }

# SQLSTATE and message of the error; 'none'
sub error_on
{
	my ($node, $sql) = @_;
	my (undef, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET citus.enable_unsafe_triggers = on;\n$sql");
	return $stderr =~ /ERROR:  (.*)/ ? $1 : 'none';
}

sub refused
{
	my ($node, $sql, $what, $how) = @_;
	like(error_on($node, $sql), qr/^QE606: $what cannot be written to distributed table/, $how . ', ' . $node->name);
	return;
}

my $distribute = q{SELECT create_distributed_table('cqrs_es.events', 'aggregate_id', shard_count => 8)};
my $append = q{SELECT FROM cqrs_es.append_event('t', '1', 'e', '{}')};
my $insert = 'INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload';

# with events in it, Citus copies them to the shards
sql('CREATE EXTENSION cqrs_es');
is($workers[1]->safe_psql('postgres', q{SELECT count(*) FROM pg_extension WHERE extname = 'cqrs_es'}), '1', 'Citus creates the extension on all nodes');
sql($append);
like(error_on($coordinator, $distribute), qr/events cannot be written to distributed table/, 'a log with events cannot be distributed');
is(sql(q{SELECT count(*) FROM pg_dist_partition}), '0', 'nor is it in part');
is(sql(q{SELECT version FROM cqrs_es.append_event('t', '1', 'e', '{}')}), '2', 'and goes on as before');

# an empty one
sql('DROP EXTENSION cqrs_es; CREATE EXTENSION cqrs_es');
is(error_on($coordinator, $distribute), 'none', 'an empty log can be distributed by hand');
foreach my $node (@nodes)
{
	refused($node, $append, 'events', 'append_event');
	refused($node, q{SELECT FROM cqrs_es.append_events('t', '1', '[{"type": "e", "payload": {}}]')}, 'events', 'append_events');
	refused($node, "$insert) VALUES ('t', '1', 'e', '{}')", 'events', 'INSERT');
	refused($node, "$insert, sequence) VALUES ('t', '1', 'e', '{}', 1)", 'events', 'INSERT of the next sequence');
	refused($node, "$insert, sequence) VALUES ('t', '1', 'e', '{}', 99)", 'events', 'INSERT that would leave a hole');
	refused($node, "$insert, sequence, global_position) VALUES ('t', '1', 'e', '{}', 1, 1)", 'events', 'INSERT of a restored event');
	# of an error in COPY Citus passes on the message alone
	like(error_on($node, "COPY cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, sequence) FROM stdin;\nt\t1\te\t{}\t1\n\\.\n"),
		qr/events cannot be written to distributed table/, 'COPY, ' . $node->name);
}
is(error_on($coordinator, q{SELECT create_distributed_function('cqrs_es.append_event(text, text, text, jsonb, bigint, jsonb, uuid, text, text[])',
	'aggregate_id', colocate_with => 'cqrs_es.events')}), 'none', 'an append function can be distributed');
refused($coordinator, $append, 'events', 'append_event that runs on the worker');
is(sql('SELECT count(*) FROM cqrs_es.events'), '0', 'nothing is in it');

# registries and tags
is(error_on($coordinator, q{SELECT create_reference_table('cqrs_es.aggregates')}), 'none', 'a registry can become a reference table');
refused($coordinator, q{SELECT cqrs_es.create_aggregate('a', '{}')}, 'declarations', 'create_aggregate');

# events that came there before there was this refusal, or below it
foreach my $node (@workers)
{
	$node->safe_psql('postgres', <<'END');
SET citus.enable_manual_changes_to_shards = on;
SET session_replication_role = replica;
DO $$ DECLARE shard record; BEGIN
	FOR shard IN SELECT shardid, format('%s_%s', logicalrelid, shardid) AS name FROM pg_dist_shard JOIN pg_dist_placement USING (shardid)
		WHERE logicalrelid = 'cqrs_es.events'::regclass AND groupid = (SELECT groupid FROM pg_dist_local_group) LOOP
		EXECUTE format('INSERT INTO %s (global_position, sequence, created_at, aggregate_type, aggregate_id, event_type, payload)
			SELECT n, (n - 1) / 50 + 1, now(), ''t'', (n %% 50)::text, ''e'', ''{}'' FROM generate_series(1, 200) AS n
			WHERE get_shard_id_for_distribution_column(''cqrs_es.events'', (n %% 50)::text) = %s', shard.name, shard.shardid);
	END LOOP;
END $$;
END
}
sub log_of { return $_[0]->safe_psql('postgres', q{SELECT md5(string_agg(e::text, ',' ORDER BY global_position)) FROM cqrs_es.read_all(max_count => 1000) AS e}) }
my $log = log_of($coordinator);
foreach my $node (@nodes)
{
	is($node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.read_all(max_count => 1000)}), EVENTS, 'all is read, ' . $node->name);
	is($node->safe_psql('postgres', q{SELECT string_agg(sequence::text, ' ') FROM cqrs_es.read_stream('t', '7')}), '1 2 3 4', 'a stream, ' . $node->name);
	refused($node, $append, 'events', 'append_event behind them');
	like(error_on($node, $_), qr/^QE004/, "$_, " . $node->name) foreach q{DELETE FROM cqrs_es.events WHERE aggregate_id = '7'}, q{UPDATE cqrs_es.events SET payload = '1'}, 'TRUNCATE cqrs_es.events';
}

# who keeps it until the dump is restored can still look after the cluster
my $place = join ', ', map { "'" . $_->host . "', " . $_->port } @workers;
foreach my $mode (qw(block_writes force_logical))
{
	sql(qq{SELECT citus_move_shard_placement(min(shardid), $place, '$mode') FROM pg_dist_placement JOIN pg_dist_shard USING (shardid)
		WHERE groupid = 1 AND logicalrelid = 'cqrs_es.events'::regclass});
	is(log_of($coordinator), $log, "a shard moves, $mode");
	refused($coordinator, $append, 'events', 'and takes nothing there');
}

# a dump brings them where they can be
my $plain = PostgreSQL::Test::Cluster->new('plain');
$plain->init;
$plain->start;
my $dump = "$PostgreSQL::Test::Utils::tmp_check/distributed.sql";
$coordinator->command_ok([ 'pg_dump', '-f', $dump, '--schema=cqrs_es', '--extension=cqrs_es', '-d', $coordinator->connstr('postgres') ], 'a dump');
$plain->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', $dump, '-d', $plain->connstr('postgres') ], 'restored into a plain database');
is(log_of($plain), $log, 'has all events');
is($plain->safe_psql('postgres', q{SELECT version FROM cqrs_es.append_event('t', '7', 'e', '{}')}), '5', 'and goes on');

# a log that is no table of the extension comes back by itself
sql(q{DROP EXTENSION cqrs_es CASCADE; CREATE EXTENSION cqrs_es; SELECT cqrs_es.own_log()});
is(error_on($coordinator, $distribute), 'none', 'a log of its own is distributed');
refused($coordinator, $append, 'events', 'append_event to it');
sql(q{SELECT undistribute_table('cqrs_es.events')});
is(sql(q{SELECT version FROM cqrs_es.append_event('t', '1', 'e', '{}')}), '1', 'undistribute_table takes it back');
is(sql(q{SELECT count(*) FROM pg_trigger WHERE tgrelid = 'cqrs_es.events'::regclass AND NOT tgisinternal}), '6', 'with its triggers');
$_->stop foreach @nodes, $plain;
done_testing();
