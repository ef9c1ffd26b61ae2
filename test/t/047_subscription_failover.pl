# A standby is promoted in the middle of batches: what was in hand on the primary is in hand there, tokens are good,
# consumers go on, and nobody misses an event. Also when the standby has not got everything: log and positions have
# lost the same end, and what is appended then is handed out. Before that a standby shows how far subscriptions are.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION cqrs_es');
$primary->safe_psql('postgres', q{SELECT cqrs_es.create_subscription(name, lease => '1 hour', max_attempts => 1) FROM unnest(ARRAY['kept', 'paused']) AS name});
$primary->safe_psql('postgres', q{SELECT cqrs_es.append_event('s', 's' || n % 5, 'made', '{}') FROM generate_series(1, 50) n});
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

sub receive
{
	my ($server, $subscription, $consumer, $most, $ack) = @_;
	my $rows = $server->safe_psql('postgres', sprintf q{SELECT batch, global_position FROM cqrs_es.receive_events('%s', '%s', %s, ack => %s)},
		$subscription, $consumer, $most, defined $ack ? "'$ack'" : 'NULL');
	my @rows = map { [ split /\|/ ] } split /\n/, $rows;
	return (@rows ? $rows[0][0] : undef, map { $_->[1] } @rows);
}
sub state_of
{
	my ($server, $statement) = @_;
	my ($status, $stdout, $stderr) = $server->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	return $stderr =~ /ERROR:  (\w{5}):/ ? $1 : $stdout;
}

# some are done, one has failed for good, ten are in hand, one of these has failed
my ($batch, @events) = receive($primary, 'kept', 'one', 20);
is(scalar @events, 20, 'a batch');
$primary->safe_psql('postgres', "SELECT cqrs_es.nack_event('$batch', $events[0], 'bad')");
($batch, @events) = receive($primary, 'kept', 'one', 10, $batch);
is(scalar @events, 10, 'another, while a stream is blocked');
is($primary->safe_psql('postgres', "SELECT cqrs_es.nack_event('$batch', $events[3], 'bad')"), 'blocked', 'one of it has failed');
$primary->safe_psql('postgres', "SELECT cqrs_es.pause_subscription('paused')");
my $status = q{SELECT name, state, position, lag_events, lag IS NOT NULL, shares, in_hand, parked, blocked, dead_letters, last_error FROM cqrs_es.subscription_status ORDER BY name};
my $of_primary = $primary->safe_psql('postgres', $status);
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

# a standby
is($standby->safe_psql('postgres', $status), $of_primary, 'a standby has the same status');
is($standby->safe_psql('postgres', 'SELECT sum(consumers) FROM cqrs_es.subscription_status'), '0', 'but does not know who asks');
is($standby->safe_psql('postgres', 'SELECT consumer, in_hand FROM cqrs_es.subscription_consumers'), 'one|10', 'only who has something in hand');
is(state_of($standby, $_), '25006', "refused there: $_") foreach q{SELECT FROM cqrs_es.receive_events('kept', 'one')}, "SELECT cqrs_es.ack_events('$batch')", "SELECT cqrs_es.release_batch('$batch')",
	q{SELECT cqrs_es.create_subscription('new')}, q{SELECT cqrs_es.reset_subscription('kept', 0)}, q{SELECT cqrs_es.redrive('kept')}, q{SELECT cqrs_es.pause_subscription('kept')}, q{SELECT cqrs_es.drop_subscription('none', if_exists => true)};

# what is lost: an acknowledgement, and events
$standby->safe_psql('postgres', $_) foreach "ALTER SYSTEM SET primary_conninfo = ''", 'SELECT pg_reload_conf()';
$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver');
my ($lost, @lost) = receive($primary, 'kept', 'one', 5, $batch);
$primary->safe_psql('postgres', q{SELECT cqrs_es.append_event('s', 'lost', 'made', '{}') FROM generate_series(1, 5)});
my ($all, @all) = receive($primary, 'kept', 'one', 100, $lost);
cmp_ok($all[-1], '>', 50, 'consumers had what is lost');
$primary->stop('immediate');
$standby->promote;
$standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
$standby->safe_psql('postgres', 'SELECT cqrs_es.after_failover()');

is($standby->safe_psql('postgres', $status), $of_primary, 'promoted: all is as it was when the standby was cut off');
is(state_of($standby, "SELECT cqrs_es.ack_events('$all')"), 'QE401', 'a token of later is none');
is((receive($standby, 'kept', 'two', 10))[0], undef, 'what was in hand is in hand');
is($standby->safe_psql('postgres', "SELECT cqrs_es.nack_event('$batch', $events[3], 'bad')"), 'blocked', 'what was noted is noted once');
like($standby->safe_psql('postgres', "SELECT cqrs_es.ack_events('$batch')"), qr/^[1-9]$/, 'and the token of then is good');
is($standby->safe_psql('postgres', q{SELECT string_agg(aggregate_id || ' ' || state, ', ' ORDER BY id) FROM cqrs_es.dead_letters}), 's1 blocked, ' . $standby->safe_psql('postgres', "SELECT aggregate_id FROM cqrs_es.events WHERE global_position = $events[3]") . ' blocked', 'with what failed');
$standby->safe_psql('postgres', q{SELECT cqrs_es.append_event('s', 'new', 'made', '{}') FROM generate_series(1, 5)});
$standby->safe_psql('postgres', q{SELECT cqrs_es.redrive('kept')});
my (%got, $token);
for (1 .. 30)
{
	($token, my @more) = receive($standby, 'kept', 'one', 7, $token);
	last unless defined $token;
	$got{$_}++ foreach @more;
}
my $missing = $standby->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.events WHERE global_position > ' . $events[-1] . ' AND NOT global_position = ANY (ARRAY[' . join(', ', keys %got) . ']::bigint[])');
is($missing, '0', 'all behind it is handed out, what is new as well');
is(scalar(grep { $_ > 1 } values %got), 0, 'each once');
is($standby->safe_psql('postgres', q{SELECT lag_events, parked, in_hand FROM cqrs_es.subscription_status WHERE name = 'kept'}), '0|0|0', 'and nothing is left');
is((receive($standby, 'paused', 'one', 10))[0], undef, 'what was paused is paused');
$standby->safe_psql('postgres', q{SELECT cqrs_es.resume_subscription('paused')});
($batch, @events) = receive($standby, 'paused', 'one', 1000);
is(scalar @events, 55, 'until it is resumed');

# a crash
$standby->safe_psql('postgres', 'SELECT FROM cqrs_es.receive_events(\'kept\', \'three\')');
$standby->stop('immediate');
$standby->start;
is($standby->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.consumers'), '0', 'after a crash nobody has been seen');
is($standby->safe_psql('postgres', q{SELECT consumer, in_hand FROM cqrs_es.subscription_consumers}), 'one|55', 'what is in hand is');
is($standby->safe_psql('postgres', "SELECT cqrs_es.ack_events('$batch')"), '55', 'and can be acknowledged');

$standby->stop;
done_testing();
