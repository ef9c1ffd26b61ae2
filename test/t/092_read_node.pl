# A read node: another server that follows the log, and keeps projections and subscriptions of
# its own from it. Beside writers that commit, roll back, prepare and sleep, while either server is killed and
# another takes the log over, nothing is missed, doubled or overtaken.

use strict;
use warnings FATAL => 'all';
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use lib "$ENV{TESTDIR}/test/include";
use Session;

my $publisher = PostgreSQL::Test::Cluster->new('publisher');
$publisher->init(allows_streaming => 'logical', extra => ['--no-instructions']);		# systems of their own
my $reader = PostgreSQL::Test::Cluster->new('reader');
$reader->init(allows_streaming => 'logical', extra => ['--no-instructions']);		# systems of their own
foreach my $node ($publisher, $reader)
{
	$node->append_conf('postgresql.conf', $_) foreach 'max_prepared_transactions = 20', 'restart_after_crash = on',
		'max_connections = 60', 'wal_retrieve_retry_interval = 100ms', 'max_logical_replication_workers = 8';
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION cqrs_es');
}

sub on_publisher { return $publisher->safe_psql('postgres', $_[0]) }
sub on_reader { return $reader->safe_psql('postgres', $_[0]) }

# What an error says: its SQLSTATE, and the message.
sub refused
{
	my ($node, $sql) = @_;
	my ($status, $out, $error) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	return $error =~ /ERROR:  (\w{5}): (.*)/ ? "$1 $2" : "no error: $out $error";
}

sub connection { return $publisher->connstr . ' dbname=postgres' . ($_[0] // '') }
sub follow { return sprintf "SELECT cqrs_es.follow_log('%s')", connection(@_) =~ s/'/''/gr }

# what is there before anybody follows, with dead gaps, tags, an upcaster and a reducer
on_publisher(q{
	CREATE FUNCTION lift(payload jsonb) RETURNS jsonb IMMUTABLE RETURN payload || '{"lifted": true}';
	SELECT cqrs_es.create_aggregate('account');
	SELECT cqrs_es.define_reducer('account', 'Moved', '[{"op": "increment", "path": "/moves", "value": 1}]');
	SELECT cqrs_es.define_upcaster('Moved', '1', '2', 'lift(jsonb)');
	SELECT cqrs_es.define_tags('Moved', 'to:{/to}');
	SELECT count(cqrs_es.append_event('account', (n % 7)::text, 'Moved', jsonb_build_object('n', n, 'to', n % 3))) FROM generate_series(1, 500) AS n;
	BEGIN;
	SELECT FROM cqrs_es.append_event('account', 'dead', 'Moved', '{"n": 0, "to": 0}');
	ROLLBACK;
	SELECT FROM cqrs_es.append_event('account', '1', 'Moved', '{"n": 501, "to": 0}');
});

# who may be followed, and by whom
like(refused($reader, follow()), qr/^QE604 the publisher cannot be followed/, 'a log that is not published cannot be followed');
is(on_publisher(q{SELECT cqrs_es.publish_log(); SELECT cqrs_es.publish_log(); SELECT count(*), bool_and(pubupdate AND pubviaroot) FROM pg_publication}),
	"\n\n2|t", 'publish_log() makes two publications, and leaves them');
is(on_publisher(q{SELECT count(*) FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE d.objid = 'cqrs_es.events'::regclass AND d.deptype = 'e'}),
	1, 'the log stays a part of the extension');
on_publisher(q{CREATE ROLE plain LOGIN REPLICATION; CREATE ROLE bypassing LOGIN REPLICATION BYPASSRLS; CREATE ROLE right_one LOGIN REPLICATION BYPASSRLS; GRANT pg_read_all_data TO right_one});
like(refused($reader, follow(' user=bypassing')), qr/permission denied|QE604/, 'nor by a role that may not read it');
on_publisher('GRANT pg_read_all_data TO plain');
like(refused($reader, follow(' user=plain')), qr/^QE604/, 'nor by one for which row security is active, which would copy one tenant');
my ($status, $out, $error) = $reader->psql('postgres', q{SELECT cqrs_es.follow_log('host=nowhere password secret')});
like($error, qr/the connection string cannot be read/, 'a string that cannot be read');
unlike($error, qr/secret/, 'is not shown');
on_reader('CREATE ROLE ordinary; GRANT EXECUTE ON FUNCTION cqrs_es.follow_log TO ordinary; GRANT USAGE ON SCHEMA cqrs_es TO ordinary');
like(refused($reader, 'SET ROLE ordinary; ' . follow()), qr/^42501/, 'it takes a superuser');
like(refused($reader, 'BEGIN; CREATE TABLE t (); ' . follow()), qr/^25001/, 'behind changes there could be a deadlock');
on_reader(q{SELECT cqrs_es.create_aggregate('account')});
like(refused($reader, follow()), qr/^55000 this database cannot follow: it has declarations/, 'declarations would collide');
is(on_publisher('SELECT count(*) FROM pg_replication_slots'), 0, 'what was refused leaves no slot');
on_reader(q{SELECT cqrs_es.drop_aggregate('account')});

# a projection and a subscription of its own, from before the first event on; the function of an upcaster is a migration's
my $declared = q{
	CREATE FUNCTION lift(payload jsonb) RETURNS jsonb IMMUTABLE RETURN payload || '{"lifted": true}';
	CREATE TABLE seen (position bigint PRIMARY KEY, stream text, sequence bigint, n bigint, lifted boolean, at bigint GENERATED ALWAYS AS IDENTITY);
	SELECT cqrs_es.create_projection('seen', '{account}', '{seen}', mode => 'async');
	SELECT cqrs_es.define_handler('seen', 'Moved', $$INSERT INTO seen VALUES (event.global_position, event.aggregate_id, event.sequence,
		(event.payload->>'n')::bigint, event.payload ? 'lifted')$$);
	CREATE TABLE to_one (position bigint PRIMARY KEY, n bigint);
	SELECT cqrs_es.create_projection('to_one', tags => '{to:1}', read_models => '{to_one}', mode => 'async');
	SELECT cqrs_es.define_handler('to_one', 'Moved', $$INSERT INTO to_one VALUES (event.global_position, (event.payload->>'n')::bigint)$$);
	SELECT cqrs_es.create_subscription('mails', lease => '3 s');
};
on_reader($declared);

# while it is copied, events are there whose upcasters are not
my $copying = $reader->background_psql('postgres');
$copying->query_safe('BEGIN; LOCK TABLE cqrs_es.upcasters IN SHARE MODE');
on_reader(follow(' user=right_one'));
$reader->poll_query_until('postgres', q{SELECT count(*) = 501 FROM cqrs_es.events});
$reader->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'cqrs_es.upcasters'::regclass)});
is(on_reader(q{SELECT copied FROM cqrs_es.followed_log_status}), 'f', 'as long as something is being copied');
is(on_reader(q{SET cqrs_es.settle_timeout = 0; SELECT count(*) FROM cqrs_es.read_all()}), 0, 'readers get nothing');
on_reader(q{CALL cqrs_es.run_projections(timeout => '100 ms')});
is(on_reader('SELECT count(*) FROM seen'), 0, 'nor do projections');
like(refused($reader, q{SELECT cqrs_es.rebuild_projection('seen')}), qr/^55000 the log is still being copied/, 'nor can one be rebuilt');
like(refused($reader, q{SELECT cqrs_es.append_event('account', '1', 'Moved', '{"to": 1}')}), qr/^QE601/, 'and nothing is appended');
$copying->query_safe('COMMIT');
$copying->quit;
like(refused($reader, follow()), qr/^42710/, 'it is followed once');
$reader->poll_query_until('postgres', 'SELECT copied FROM cqrs_es.followed_log_status');
$reader->poll_query_until('postgres', 'SELECT count(*) = 501 FROM seen') or diag(on_reader('SELECT count(*) FROM seen'));
is(on_reader(q{SELECT count(*), bool_and(lifted), sum(n) FROM seen}), '501|t|' . 501 * 502 / 2, 'the copy goes into the projection, once, and upcast');
is(on_reader(q{SELECT string_agg(n::text, ' ' ORDER BY position) FROM to_one}),
	on_publisher(q{SELECT string_agg(e.payload->>'n', ' ' ORDER BY e.global_position) FROM cqrs_es.events e WHERE e.payload->>'to' = '1'}), 'one that goes by tags gets all of them');
is(on_reader(q{SELECT cqrs_es.aggregate_state('account', '1')}), on_publisher(q{SELECT cqrs_es.aggregate_state('account', '1')}), 'states are made with the reducers that were received');
is(on_reader('SELECT cqrs_es.log_id()'), on_publisher('SELECT cqrs_es.log_id()'), 'it is the same log');

# what is refused there
like(refused($reader, q{SELECT cqrs_es.append_event('account', '1', 'Moved', '{"to": 1}')}), qr/^QE601 this database follows/, 'an append');
like(refused($reader, q{SET cqrs_es.force_generic_path = on; SELECT cqrs_es.append_event('account', '1', 'Moved', '{"to": 1}')}), qr/^QE601/, 'the other way');
like(refused($reader, q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('a', '1', 'Moved', '{"to": 1}')}), qr/^QE601/, 'an INSERT');
like(refused($reader, $_), qr/^QE601 cqrs_es\.\w+ is received/, $_) foreach q{SELECT cqrs_es.create_aggregate('other')}, q{SELECT cqrs_es.drop_reducer('account', 'Moved')},
	q{SELECT cqrs_es.drop_upcaster('Moved', '1')}, q{SELECT cqrs_es.define_tags('Other', 'x:{/x}')};
like(refused($reader, 'SELECT cqrs_es.after_failover()'), qr/^QE601/, 'a jump of positions');
is(on_reader('SELECT last_value FROM cqrs_es.events_global_position_seq'), on_reader('SELECT max(global_position) FROM cqrs_es.events'), 'nothing of that has moved positions');
like(refused($reader, q{SELECT cqrs_es.create_projection('sync')}), qr/^QE601 a projection of a log that is followed must be asynchronous/, 'a projection that could not run');
like(refused($reader, 'SELECT cqrs_es.publish_log()'), qr/^QE601/, 'to publish it');
like(refused($reader, q{SELECT cqrs_es.take_over_log('10 ms')}), qr/^QE603/, 'to take it over before it was handed over');

# declarations are received, and sessions that are there hear of it
my $session = $reader->background_psql('postgres');
is($session->query_safe(q{SELECT cqrs_es.aggregate_state('account', '2')->>'moves'}), on_publisher(q{SELECT cqrs_es.aggregate_state('account', '2')->>'moves'}), 'a session that has read');
on_publisher(q{SELECT cqrs_es.define_reducer('account', 'Moved', '[{"op": "increment", "path": "/moves", "value": 10}]')});
$publisher->wait_for_catchup('cqrs_es_log_0');
is($session->query_safe(q{SELECT cqrs_es.aggregate_state('account', '2')->>'moves'}), on_publisher(q{SELECT cqrs_es.aggregate_state('account', '2')->>'moves'}), 'hears of another reducer');
$session->quit;

# a handler that fails stops its stream, and nothing else
on_reader(q{
	CREATE TABLE fragile (n bigint PRIMARY KEY);
	SELECT cqrs_es.create_projection('fragile', '{account}', '{fragile}', mode => 'async', per_stream => true);
	SELECT cqrs_es.define_handler('fragile', 'Moved', $$INSERT INTO fragile SELECT n / (n - 1003) * 0 + n FROM (SELECT (event.payload->>'n')::bigint AS n) AS e$$);
});
on_publisher(q{SELECT count(cqrs_es.append_event('account', 'f' || n % 2, 'Moved', jsonb_build_object('n', n, 'to', 2))) FROM generate_series(1001, 1010) AS n});
$reader->poll_query_until('postgres', q{SELECT count(*) = 6 FROM fragile}) or diag(on_reader(q{SELECT p, s FROM cqrs_es.projection_status AS p, cqrs_es.shares AS s}));
is(on_reader(q{SELECT string_agg(n::text, ' ' ORDER BY n) FROM fragile}), '1001 1002 1004 1006 1008 1010', 'a handler that fails holds up its stream');
is(on_reader(q{SELECT enabled, active, apply_errors, copy_errors FROM cqrs_es.followed_log_status}), 't|t|0|0', 'and not what is received');
on_reader(q{SELECT cqrs_es.drop_projection('fragile')});

# a dead gap is passed without anybody calling for it
on_publisher(q{BEGIN; SELECT FROM cqrs_es.append_event('account', 'dead', 'Moved', '{"n": 0, "to": 0}'); ROLLBACK;
	SELECT FROM cqrs_es.append_event('account', 'behind', 'Moved', '{"n": 2000, "to": 0}')});
ok($reader->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM seen WHERE stream = 'behind')}), 'the worker of the publisher says that a gap is dead');
is(on_publisher('SELECT count(*), bool_and(active), bool_and(lag_bytes IS NOT NULL) FROM cqrs_es.log_followers'), '1|t|t', 'the publisher shows who follows');

# --- all of it at once

my $directory = PostgreSQL::Test::Utils::tempdir('load');
my $user = getpwuid($>);
my @processes;

sub is_set { return -e "$directory/$_[0]" }
sub set { append_to_file("$directory/$_[0]", "\n"); return }

# A process with a session, that is found again when it is lost: $work->($session) until it says that it is done.
sub run
{
	my ($name, $node, $work) = @_;
	my $pid = fork // die "could not fork: $!";

	if ($pid)
	{
		push @processes, $pid;
		return;
	}
	my $session;
	for (;;)
	{
		usleep(20_000), next if !($session && $session->{socket}) && !($session = Session->new(ref $node eq 'CODE' ? $node->()->host : $node->host, ref $node eq 'CODE' ? $node->()->port : $node->port, $user, 'postgres'));
		last if $work->($session);
	}
	POSIX::_exit(0);
}

# where is appended
my $writes_to = sub { return is_set('cut over') ? $reader : $publisher };

# Appends with an id until it is answered; so it is known what is there.
sub writer
{
	my ($name) = @_;
	my ($n, $key, $to, $again) = (0, undef, '', 0);
	my $log = "$directory/acknowledged-$name";

	return sub {
		my ($session) = @_;
		my $node = $writes_to->();

		return 1 if is_set('writers end') && !defined $key;
		if ($to ne $node->name)
		{
			my $first = $to eq '';
			$to = $node->name;
			if (!$first) { $session->close; return 0 }
		}
		$key //= "$name-" . ++$n;
		my $kind = (split /-/, $key)[1] % 8;
		my $append = sprintf q{SELECT global_position FROM cqrs_es.append_event('account', '%s', 'Moved', '{"key": "%s", "n": %d, "to": %d}', event_id => cqrs_es.id_from_text('%s'))},
			$kind == 7 ? "own-$name" : "one-$name", $key, $n, $n % 3, $key;
		my $vain = q{SELECT global_position FROM cqrs_es.append_event('account', 'vain', 'Moved', '{"n": 0, "to": 1}')};
		my @steps =
			$kind == 1 ? ('BEGIN', $vain, 'ROLLBACK', $append)
			: $kind == 2 ? ('BEGIN', $append, 'SELECT pg_sleep(0.02)', 'COMMIT')
			: $kind == 3 ? ('BEGIN', 'SAVEPOINT s', $vain, 'ROLLBACK TO s', $append, 'COMMIT')
			: $kind == 4 ? ('BEGIN', $append, "PREPARE TRANSACTION '$key'", 'SELECT pg_sleep(0.01)', "COMMIT PREPARED '$key'")
			: $kind == 5 ? ('BEGIN', $vain, "PREPARE TRANSACTION 'vain-$key'", "ROLLBACK PREPARED 'vain-$key'", $append)
			: ($append);
		# what an earlier attempt has left
		if ($again)
		{
			$session->try("COMMIT PREPARED '$key'");
			$session->try("ROLLBACK PREPARED 'vain-$key'");
		}
		$again = 1;
		foreach my $step (@steps)
		{
			$session->try($step);
			next if !$session->{state};
			my $state = $session->{state};
			# a log that was handed over, or that is not taken over yet
			usleep(20_000) if $state eq 'QE602' || $state eq 'QE601';
			append_to_file("$directory/errors", "$name $key $step: $state $session->{message}\n")
				if $state !~ /^(QE60[12]|08006|57P0[123]|42704|42710|40P01)$/;
			$session->try('ROLLBACK') if $session->{socket} && $session->{transaction} ne 'I';
			return 0;
		}
		append_to_file($log, "$key\n");
		undef $key;
		$again = 0;
		return 0;
	};
}

# A reader of the log with a cursor of its own.
sub tail
{
	my $after = on_reader('SELECT max(global_position) FROM cqrs_es.events');
	append_to_file("$directory/first", $after);
	return sub {
		my ($session) = @_;
		$session->try(q{SET cqrs_es.settle_timeout = '100ms'});
		my ($rows) = $session->try("SELECT global_position, payload->>'key' FROM cqrs_es.read_all($after, 50)");
		return 0 if $session->{state};
		append_to_file("$directory/read", join '', map { "$_->[0]\t" . ($_->[1] // '') . "\n" } @$rows) if @$rows;
		$after = $rows->[-1][0] if @$rows;
		return is_set('readers end') && !@$rows;
	};
}

# A consumer that notes what it gets, in the transaction that acknowledges it.
sub consumer
{
	my ($name) = @_;
	return sub {
		my ($session) = @_;
		my ($rows) = $session->try("SELECT batch, global_position, aggregate_id, sequence FROM cqrs_es.receive_events('mails', '$name', 20)");
		return 0 if $session->{state};
		return is_set('readers end') if !@$rows && (usleep(20_000) || 1);
		$session->try(join ';', 'BEGIN', (map { "INSERT INTO mailed VALUES ($_->[1], '$_->[2]', $_->[3])" } @$rows),
			"SELECT cqrs_es.ack_events('$rows->[0][0]')", 'COMMIT');
		append_to_file("$directory/errors", "$name: $session->{state} $session->{message}\n") if $session->{state} && $session->{state} !~ /^(08006|57P0[123]|QE401|55P03)$/;
		$session->try('ROLLBACK') if $session->{socket} && $session->{transaction} ne 'I';
		return 0;
	};
}

sub acknowledged { return map { split /\n/, slurp_file($_) } glob("$directory/acknowledged-*") }
sub until_acknowledged
{
	my ($more) = @_;
	my $before = () = acknowledged();
	for (1 .. 6000)
	{
		return 1 if (() = acknowledged()) >= $before + $more;
		usleep(20_000);
	}
	return 0;
}

# Kill the postmaster and all its processes.
sub kill_server
{
	my ($node) = @_;
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my @all = split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity');
	kill 'KILL', $postmaster, @all;
	$node->kill9;
	for (1 .. 1000) { last if !kill 0, @all; usleep(10_000) }
	$node->start;
	return;
}

on_reader('CREATE TABLE mailed (position bigint, stream text, sequence bigint, at bigint GENERATED ALWAYS AS IDENTITY)');
run('tail', $reader, tail());
run("writer-$_", $writes_to, writer($_)) foreach 1 .. 3;
run("consumer-$_", $reader, consumer($_)) foreach 1 .. 2;
ok(until_acknowledged(150), 'there is load');
kill_server($reader);
ok(until_acknowledged(100), 'the read node is killed, and comes again');
kill_server($publisher);
ok(until_acknowledged(100), 'the publisher is killed, and comes again');
on_publisher(q{SELECT pg_terminate_backend(pid) FROM pg_stat_replication});
on_reader(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type IN ('logical replication worker', 'cqrs_es projection worker')});
ok(until_acknowledged(100), 'connections and workers are ended');

# somebody else's transaction is waited for; nothing is appended after it
my $open = $publisher->background_psql('postgres');
$open->query_safe(q{BEGIN; SELECT FROM cqrs_es.append_event('account', 'late', 'Moved', '{"key": "late", "n": 1, "to": 1}')});
my $handing = $publisher->background_psql('postgres');
$handing->query_until(qr/begun/, "\\echo begun\nSELECT 'at ' || cqrs_es.hand_over_log();\n");
$publisher->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock')});
$open->query_safe('COMMIT');
$open->quit;
my ($last) = $handing->query_until(qr/at \d+\n/, "\n") =~ /at (\d+)/;
$handing->quit;
ok($last, 'the log is handed over');
like(refused($publisher, q{SELECT cqrs_es.append_event('account', '1', 'Moved', '{"n": 1, "to": 1}')}), qr/^QE602 this log has been handed over at position $last/, 'nothing is appended any more');
is(on_publisher('SELECT cqrs_es.hand_over_log()'), $last, 'handed over once');
my $on_publisher = on_publisher(q{SELECT md5(string_agg(e::text, ' ' ORDER BY global_position, sequence)), count(*) FROM cqrs_es.events AS e});
cmp_ok(on_reader(q{SELECT cqrs_es.take_over_log('60 s')}), '>=', $last, 'it is taken over, under load');
is(on_reader(qq{SELECT md5(string_agg(e::text, ' ' ORDER BY global_position, sequence)), count(*) FROM cqrs_es.events AS e WHERE global_position <= $last}), $on_publisher, 'all of it is here, as it was');
set('cut over');
ok(until_acknowledged(150), 'writers go on, on the other server');
kill_server($reader);
ok(until_acknowledged(50), 'which is killed, too');
set('writers end');
waitpid $_, 0 foreach @processes[1 .. 3];
# what a consumer had in hand when it was killed comes again after the lease
$reader->poll_query_until('postgres', 'SELECT (SELECT count(*) FROM mailed) >= (SELECT count(*) FROM cqrs_es.events)') or diag('consumers are behind');
set('readers end');
waitpid $_, 0 foreach @processes[0, 4, 5];
$reader->poll_query_until('postgres', 'SELECT (SELECT count(*) FROM seen) = (SELECT count(*) FROM cqrs_es.events)') or diag('the projection is behind');

is(-e "$directory/errors" ? slurp_file("$directory/errors") : '', '', 'no other errors');
is(on_reader('SELECT cqrs_es.log_id()'), on_publisher('SELECT cqrs_es.log_id()'), 'nothing is lost, so it is the same log still');
is(on_reader(q{SELECT string_agg(item || ': ' || problem, '; ') FROM cqrs_es.verify_log() WHERE problem IS NOT NULL}), '', 'it is whole');
my %times;
$times{$_}++ foreach split /\n/, on_reader(q{SELECT payload->>'key' FROM cqrs_es.events WHERE payload ? 'key'});
is(join(' ', grep { !$times{$_} } acknowledged()), '', 'nothing that was acknowledged is lost');
is(join(' ', grep { $times{$_} > 1 } keys %times), '', 'nothing is there twice');
my $first = slurp_file("$directory/first");
is(slurp_file("$directory/read") =~ s/\n\z//r, on_reader(qq{SELECT string_agg(global_position || E'\\t' || coalesce(payload->>'key', ''), E'\\n' ORDER BY global_position) FROM cqrs_es.events WHERE global_position > $first}),
	'a reader of the read node has got all, once, in order, over deaths and the cut-over');
is(on_reader('SELECT count(*) FROM (SELECT position, lag(position) OVER (ORDER BY at) AS before FROM seen) AS s WHERE position <= before'), 0, 'so has its projection');
is(on_reader(q{SELECT count(*) FROM seen AS s FULL JOIN cqrs_es.events AS e ON e.global_position = s.position WHERE s IS NULL OR e IS NULL OR s.sequence <> e.sequence OR NOT s.lifted}), 0, 'of each event');
is(on_reader(q{SELECT count(*) FROM to_one AS s FULL JOIN (SELECT global_position FROM cqrs_es.events WHERE payload->>'to' = '1') AS e ON e.global_position = s.position WHERE s IS NULL OR e IS NULL}), 0, 'and that which goes by tags');
is(on_reader(q{SELECT count(*), count(DISTINCT position) FROM mailed}), on_reader('SELECT count(*), count(*) FROM cqrs_es.events'), 'consumers have got each event once');
is(on_reader('SELECT count(*) FROM (SELECT sequence, lag(sequence, 1, 0::bigint) OVER (PARTITION BY stream ORDER BY at) AS before FROM mailed) AS m WHERE sequence <> before + 1'), 0, 'each stream in its order');

# the old publisher
like(refused($publisher, 'SELECT cqrs_es.unpublish_log()'), qr/no error/, 'its publications and slots can go');
is(on_publisher('SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_replication_slots)'), '0|0', 'and are gone');
like(refused($publisher, q{SELECT cqrs_es.append_event('account', '1', 'Moved', '{"n": 1, "to": 1}')}), qr/^QE602/, 'it stays handed over');

# the new one is followed, and is gone for good
is(on_reader('SELECT cqrs_es.publish_log()'), '', 'the new one publishes');
my $next = PostgreSQL::Test::Cluster->new('next');
$next->init(allows_streaming => 'logical', extra => ['--no-instructions']);		# systems of their own
$next->start;
$next->safe_psql('postgres', 'CREATE EXTENSION cqrs_es; CREATE FUNCTION lift(payload jsonb) RETURNS jsonb IMMUTABLE RETURN payload');
my $to_reader = sprintf "SELECT cqrs_es.follow_log('%s')", ($reader->connstr . ' dbname=postgres') =~ s/'/''/gr;
$next->safe_psql('postgres', $to_reader);
$next->poll_query_until('postgres', 'SELECT copied FROM cqrs_es.followed_log_status');
my $id = on_reader('SELECT cqrs_es.log_id()');
my $top = on_reader('SELECT max(global_position) FROM cqrs_es.events');
$reader->stop('immediate');
like(refused($next, q{SELECT cqrs_es.take_over_log('100 ms')}), qr/^QE603/, 'nobody has handed it over');
cmp_ok($next->safe_psql('postgres', 'SELECT cqrs_es.take_over_log(force => true)'), '>', $top + 2 ** 31, 'by force positions jump');
isnt($next->safe_psql('postgres', 'SELECT cqrs_es.log_id()'), $id, 'and the log has another identity');
is($next->safe_psql('postgres', q{SELECT version FROM cqrs_es.append_event('account', 'new', 'Moved', '{"n": 1, "to": 1}')}), 1, 'it appends');

$_->stop foreach $next, $publisher;
done_testing();
