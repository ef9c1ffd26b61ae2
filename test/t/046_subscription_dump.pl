# Subscriptions in a dump that is made in the middle of batches: positions, what is in hand, what is parked, and dead
# letters are as they were, consumers go on where they are restored, and nobody misses an event. Also where the roles
# that a subscription names are missing, or called otherwise by then.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Restored;

my $node = PostgreSQL::Test::Cluster->new('here');
$node->init;
$node->start;
my $elsewhere = PostgreSQL::Test::Cluster->new('elsewhere');
$elsewhere->init;
$elsewhere->start;
my $dir = PostgreSQL::Test::Utils::tempdir();

# What is handed out: streams and sequences, and the token.
sub receive
{
	my ($server, $database, $subscription, $consumer, $most, $ack) = @_;
	my $rows = $server->safe_psql($database, sprintf
		q{SELECT batch, aggregate_id || sequence FROM cqrs_es.receive_events('%s', '%s', %s, ack => %s)},
		$subscription, $consumer, $most // 100, defined $ack ? "'$ack'" : 'NULL');
	my @rows = map { [ split /\|/ ] } split /\n/, $rows;
	return (join(' ', map { $_->[1] } @rows), @rows ? $rows[0][0] : undef);
}
sub state_of
{
	my ($server, $database, $statement) = @_;
	my ($status, $stdout, $stderr) = $server->psql($database, "\\set VERBOSITY verbose\n$statement");
	return $stderr =~ /ERROR:  (\w{5}):/ ? $1 : $stdout;
}
sub position_of { return "(SELECT global_position FROM cqrs_es.events WHERE aggregate_id || sequence = '$_[0]')" }

$node->safe_psql('postgres', q{
	CREATE DATABASE original;
	CREATE ROLE was_owner;
	CREATE ROLE consumers;
});
my $database = 'original';
$node->safe_psql($database, q{
	CREATE EXTENSION cqrs_es;
	GRANT USAGE ON SCHEMA cqrs_es TO was_owner, consumers;
	GRANT SELECT ON cqrs_es.events TO was_owner, consumers;
	GRANT EXECUTE ON FUNCTION cqrs_es.create_subscription TO was_owner;
	SET SESSION AUTHORIZATION was_owner;
	SELECT cqrs_es.create_subscription('mails', event_types => '{made}', max_attempts => 1, lease => '1 hour', consumer_role => 'consumers');
	RESET SESSION AUTHORIZATION;
	SELECT cqrs_es.create_subscription('shared', lease => '1 hour', retry_delay => '1 hour', retry_delay_max => '1 hour');
	ALTER ROLE was_owner RENAME TO "owner, now";
});
$node->safe_psql($database, "SELECT cqrs_es.append_event('s', chr(96 + n), 'made', '{}') FROM generate_series(1, 8) n") foreach 1 .. 4;

# mails: one stream blocked, one letter skipped, a batch in hand with a note
my ($got, $token) = receive($node, $database, 'mails', 'one', 16);
is($got, 'a1 b1 c1 d1 e1 f1 g1 h1 a2 b2 c2 d2 e2 f2 g2 h2', 'half of it is in hand');
is($node->safe_psql($database, "SELECT cqrs_es.nack_event('$token', @{[ position_of('b1') ]}, 'bad')"), 'blocked', 'a stream fails for good');
is($node->safe_psql($database, "SELECT cqrs_es.ack_events('$token')"), '14', 'the rest is done');
$node->safe_psql($database, "SELECT cqrs_es.alter_subscription('mails', on_failure => 'skip')");
($got, $token) = receive($node, $database, 'mails', 'one', 7);
is($got, 'a3 c3 d3 e3 f3 g3 h3', 'without the blocked stream');
is($node->safe_psql($database, "SELECT cqrs_es.nack_event('$token', @{[ position_of('c3') ]}, 'bad')"), 'skipped', 'an event is skipped');
$node->safe_psql($database, "SELECT cqrs_es.ack_events('$token')");
$node->safe_psql($database, "SELECT cqrs_es.redrive('mails', aggregate_id => 'c')");
($got, my $mails) = receive($node, $database, 'mails', 'one', 3);
like($got, qr/\w/, "in hand when the dump is made: $got");

# shared: two consumers with a share each, and a parked stream
(undef, $token) = receive($node, $database, 'shared', 'one', 8);
is($node->safe_psql($database, "SELECT cqrs_es.nack_event('$token', @{[ position_of('a1') ]}, 'later')"), 'retry', 'a stream of the other is parked');
(undef, my $one) = receive($node, $database, 'shared', 'one', 5, $token);
(undef, $token) = receive($node, $database, 'shared', 'two', 5);
$node->safe_psql($database, "SELECT cqrs_es.ack_events('$one')");
(my $got_one, $one) = receive($node, $database, 'shared', 'one', 2);
($got, my $two) = receive($node, $database, 'shared', 'two', 2);
is($node->safe_psql($database, "SELECT shares, in_hand FROM cqrs_es.subscription_status WHERE name = 'shared'"), '2|4', 'two consumers have four events in hand');
is($node->safe_psql($database, "SELECT cqrs_es.nack_event('$one', @{[ position_of((split / /, $got_one)[0]) ]}, 'noted')"), 'retry', 'one of them has failed');

my $content = q{
	SELECT 'subscription', concat_ws('|', name, aggregate_types, event_types, tenant_id, ordering, on_failure, max_attempts, retry_delay, retry_delay_max, lease, paused, stopped_error, created_at) FROM cqrs_es.subscriptions
	UNION ALL SELECT 'share', s::text FROM cqrs_es.shares s
	UNION ALL SELECT 'parked', s::text FROM cqrs_es.parked_streams s
	UNION ALL SELECT 'nacked', s::text FROM cqrs_es.nacked_events s
	UNION ALL SELECT 'letter', s::text FROM cqrs_es.dead_letters s
	UNION ALL SELECT 'sequences', concat_ws('|', (SELECT last_value FROM cqrs_es.share_numbers), (SELECT last_value FROM cqrs_es.dead_letter_ids), (SELECT last_value FROM cqrs_es.events_global_position_seq))
	ORDER BY 1, 2};
my $original = $node->safe_psql($database, $content);
cmp_ok($original =~ tr/\n//, '>=', 8, 'there is something of everything');

# All that is left, whoever takes it: nothing is missing, first deliveries are in order, and at the end nothing is left.
sub drain
{
	my ($server, $name, $subscription, $batch, %done) = @_;
	for my $round (1 .. 60)
	{
		my ($events, $next) = receive($server, $name, $subscription, 'one', 7, $batch);
		$batch = $next;
		foreach my $event (split / /, $events)
		{
			$done{$event}++;
		}
		last unless defined $next;
	}
	return %done;
}

sub check
{
	my ($server, $name, $how) = @_;

	is($server->safe_psql($name, $content), $original, "$how: all is as it was");
	is($server->safe_psql($name, q{SELECT string_agg(concat_ws(' ', name, state, shares, in_hand, parked, blocked, dead_letters, consumers), ', ' ORDER BY name) FROM cqrs_es.subscription_status}),
		$node->safe_psql('original', q{SELECT string_agg(concat_ws(' ', name, state, shares, in_hand, parked, blocked, dead_letters, 0), ', ' ORDER BY name) FROM cqrs_es.subscription_status}),
		"$how: so says the status, but that nobody has been seen");
	is(state_of($server, $name, "SELECT count(*) FROM cqrs_es.receive_events('mails', 'another')"), '0', "$how: what is in hand stays in hand");
	my ($again) = receive($server, $name, 'mails', 'one', 1);
	is($again, '', "$how: for everybody");
	like(state_of($server, $name, "SELECT cqrs_es.ack_events('$mails')"), qr/^\d+$/, "$how: a token of before is good, once");
	is(state_of($server, $name, "SELECT cqrs_es.ack_events('$mails')"), 'QE401', "$how: and no longer");
	my %mails = drain($server, $name, 'mails');
	$server->safe_psql($name, "SELECT cqrs_es.redrive('mails')");
	%mails = drain($server, $name, 'mails', undef, %mails);
	is(join(' ', sort grep { /^b/ } keys %mails), 'b1 b2 b3 b4', "$how: the blocked stream is redriven whole");
	is($server->safe_psql($name, q{SELECT lag_events, parked, in_hand FROM cqrs_es.subscription_status WHERE name = 'mails'}), '0|0|0', "$how: all is done in the end");
	is(state_of($server, $name, "SELECT cqrs_es.ack_events('$one') > 0"), 't', "$how: nor are others' tokens lost");
	$server->safe_psql($name, 'UPDATE cqrs_es.parked_streams SET retry_at = now()');
	$server->safe_psql($name, "UPDATE cqrs_es.shares SET leased_until = now() - interval '1 s' WHERE batch IS NOT NULL");
	my %shared = drain($server, $name, 'shared');
	is(join(' ', sort grep { /^a/ } keys %shared), 'a1 a2 a3 a4', "$how: the parked stream comes whole");
	is($server->safe_psql($name, q{SELECT lag_events, parked, in_hand FROM cqrs_es.subscription_status WHERE name = 'shared'}), '0|0|0', "$how: all of the other is done, too");
	$server->safe_psql($name, q{SELECT cqrs_es.create_subscription('new', max_attempts => 1)});
	my (undef, $batch) = receive($server, $name, 'new', 'one', 1);
	is($server->safe_psql($name, "SELECT cqrs_es.nack_event('$batch', @{[ position_of('a1') ]}, 'bad'); SELECT cqrs_es.ack_events('$batch')"), "blocked\n0", "$how: new shares and letters find numbers");
}

restore_each_way($node, 'original', $dir, sub {
	my ($name, $how, $stderr) = @_;
	is($stderr, '', "$how: restored, and nothing is said of events behind positions");
	is($node->safe_psql($name, q{SELECT owner, owner_name, consumer_role FROM cqrs_es.subscriptions WHERE name = 'mails'}), '"owner, now"|owner, now|consumers', "$how: the roles are those of now");
	check($node, $name, $how);
});
unlike(slurp_file("$dir/plain.sql"), qr/^COPY cqrs_es\.consumers /m, 'who asked for events is not dumped');

# elsewhere, where these roles are missing
$elsewhere->safe_psql('postgres', 'CREATE DATABASE missing');
my ($stdout, $stderr) = run_command([ 'psql', '-Xq', '-f', "$dir/plain.sql", '-d', $elsewhere->connstr('missing') ]);
like($stderr, qr/WARNING:  role "owner, now" does not exist\nDETAIL:  Row \(mails.*\) of table cqrs_es\.subscriptions names it/, 'elsewhere: it is told that the owner is missing');
like($stderr, qr/WARNING:  role "consumers" does not exist/, 'and the consumers');
is($elsewhere->safe_psql('missing', q{SELECT string_agg(concat_ws(' ', registry, declaration, object_type, object_name), ', ' ORDER BY object_name) FROM cqrs_es.missing_objects}),
	'subscriptions mails role "owner, now", subscriptions mails role consumers', 'they are missing objects');
is($elsewhere->safe_psql('missing', q{SELECT count(*) FROM cqrs_es.verify_log() WHERE item = 'missing objects' AND problem IS NOT NULL}), '1', 'a problem of the log');
my $superuser = $elsewhere->safe_psql('missing', 'SELECT quote_ident(current_user)');
is(state_of($elsewhere, 'missing', q{SELECT cqrs_es.alter_subscription('mails', lease => '2 hours')}), '42704', 'nobody alters it without an owner');
$elsewhere->safe_psql('missing', "SELECT cqrs_es.alter_subscription('mails', owner => '$superuser')");
is($elsewhere->safe_psql('missing', q{SELECT consumer_role_name FROM cqrs_es.subscriptions WHERE name = 'mails'}), 'consumers', 'the name of its consumers stays');
$elsewhere->safe_psql('missing', 'CREATE ROLE consumers; GRANT USAGE ON SCHEMA cqrs_es TO consumers; GRANT SELECT ON cqrs_es.events TO consumers');
is($elsewhere->safe_psql('missing', 'SELECT count(*) FROM cqrs_es.missing_objects'), '0', 'a role of that name is what is meant');
is($elsewhere->safe_psql('missing', "SET ROLE consumers; SELECT cqrs_es.ack_events('$mails') >= 0"), 't', 'and its members go on');

# restored over itself
($stdout, $stderr) = run_command([ 'pg_restore', '--clean', '--if-exists', '--exit-on-error', "$dir/custom", '-d', $node->connstr('restored1') ]);
is($stderr, '', 'restored over a database that has gone on');
check($node, 'restored1', 'over itself');

$node->stop;
$elsewhere->stop;
done_testing();
