# The primary dies under load, and a standby takes its place, synchronous and not.
#
# Synchronous: nothing that was acknowledged is lost, and no reader has seen anything that is gone, so every cursor, inside
# and outside, and every subscription goes on where it was. Asynchronous: the log has lost its end. Cursors inside, subscriptions and read
# tables went back together with it; a reader outside is ahead, has seen what is gone, and misses nothing of what comes.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Workload;

# A primary and its standby, a load, and what all of them wait for.
sub servers
{
	my ($name, $is_synchronous) = @_;
	my $primary = PostgreSQL::Test::Cluster->new("${name}_primary");

	$primary->init(allows_streaming => 1);
	$primary->append_conf('postgresql.conf', "max_connections = 40\nshared_buffers = 32MB\nlog_statement = none\nlog_min_error_statement = panic");
	$primary->start;
	my $load = Workload->new($primary);
	$load->set_up;
	$primary->backup('backup');
	my $standby = PostgreSQL::Test::Cluster->new("${name}_standby");
	$standby->init_from_backup($primary, 'backup', has_streaming => 1);
	$standby->start;
	if ($is_synchronous)
	{
		$primary->append_conf('postgresql.conf', q{synchronous_standby_names = '*'});
		$primary->reload;
		$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'});
	}
	$load->start;
	ok($load->until_acknowledged(400), "$name: there is load");
	return ($primary, $standby, $load);
}

# What a hook of those who promote does: nobody appends before after_failover().
sub fail_over
{
	my ($primary, $standby, $load) = @_;

	$load->kill_server('all');
	$standby->promote;
	$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	my $last = $standby->safe_psql('postgres', 'SELECT max(global_position) FROM cqrs_es.events');
	my $jump = $standby->safe_psql('postgres', 'SELECT cqrs_es.after_failover()');
	$load->serve($standby);
	return ($last, $jump);
}

# --- synchronous

{
	my ($primary, $standby, $load) = servers('synchronous', 1);
	my $id = $primary->safe_psql('postgres', 'SELECT cqrs_es.log_id()');
	my ($last, $jump) = fail_over($primary, $standby, $load);
	ok($load->until_acknowledged(400), 'synchronous: the load goes on, on the standby');
	$load->calm;
	$load->check('synchronous');
	isnt($standby->safe_psql('postgres', 'SELECT cqrs_es.log_id()'), $id, 'synchronous: the log has another identity');
	is($standby->safe_psql('postgres', "SELECT count(*) FROM read WHERE position > $last AND position <= $jump"), '0',
		'synchronous: nobody had read further than the standby came');
	$standby->stop;
}

# --- asynchronous

{
	my ($primary, $standby, $load) = servers('asynchronous', 0);

	# what it has for certain, and then nothing more
	$load->until_acknowledged(200);
	my %kept = map { $_ => 1 } $load->lines_of('acknowledged-*');
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	$standby->safe_psql('postgres', $_) foreach "ALTER SYSTEM SET primary_conninfo = ''", 'SELECT pg_reload_conf()';
	$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver');
	$load->until_acknowledged(300);
	my ($last, $jump) = fail_over($primary, $standby, $load);
	ok($load->until_acknowledged(400), 'asynchronous: the load goes on, on the standby');
	$load->calm;
	$load->check('asynchronous', lost => 1);

	# what was acknowledged
	my $found = q{EXISTS (SELECT FROM cqrs_es.events WHERE aggregate_id = stream AND sequence = version AND global_position = a.position AND payload->>'key' = key)};
	my $lines = sub {
		my ($condition) = @_;
		return split /\n/, $standby->safe_psql('postgres', "SELECT concat_ws(E'\\t', key, stream, version, position) FROM acknowledged AS a WHERE $condition");
	};
	my @lost = $lines->("NOT $found");
	cmp_ok(scalar @lost, '>', 0, 'asynchronous: ' . @lost . ' appends are lost');
	is(join(' ', grep { $kept{$_} } @lost), '', '... none of which the standby had');
	is(join(' ', grep { (split /\t/)[3] > $jump } @lost), '', '... and none that was acknowledged after the failover');

	# the reader outside
	cmp_ok($standby->safe_psql('postgres', "SELECT count(*) FROM read AS r WHERE position <= $jump AND NOT EXISTS (SELECT FROM cqrs_es.events WHERE global_position = position)"), '>', 0,
		'asynchronous: the reader outside has seen what is lost');
	is($standby->safe_psql('postgres', "SELECT count(*) FROM read AS r WHERE position > $jump AND NOT EXISTS (SELECT FROM cqrs_es.events WHERE global_position = position)"), '0',
		'... and after the failover only what is there');
	is($standby->safe_psql('postgres', "SELECT count(*) FROM cqrs_es.events WHERE global_position > $last AND global_position <= $jump"), '0', '... at positions that nobody had before');
	$standby->stop;
}

done_testing();
