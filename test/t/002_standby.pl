# A streaming hot standby: reading works there, hands out only what is settled,
# and writing is refused; after promotion it goes on as a primary.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', 'max_prepared_transactions = 10');
$primary->start;
$primary->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE other (n int);
	SELECT cqrs_es.create_aggregate('account', snapshot_every => 2);
	SELECT cqrs_es.append_events('account', 'a', '[{"type": "a1", "payload": {"n": 1}},
		{"type": "a2", "payload": {"m": 2}}, {"type": "a3", "payload": {"n": 3}}]');
});
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'hot_standby_feedback = on');
$standby->start;

# The reader is one session, and remembers what it has proved.
my $reader = $standby->background_psql('postgres');
$reader->query_safe(q{SET cqrs_es.settle_timeout = 0});
my $after = 0;

sub catch_up { $primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert')) }
sub append { return "SELECT FROM cqrs_es.append_event('account', '$_[0]', '$_[0]', '1');" }

# What the reader gets after the last event it got, having waited for the standby.
sub poll
{
	catch_up();
	my @events = map { [ split /\|/ ] } split /\n/,
	  $reader->query_safe("SELECT global_position, event_type FROM cqrs_es.read_all($after)");
	$after = $events[-1][0] if @events;
	return join ' ', map { $_->[1] } @events;
}

# In a session of its own, on the standby.
sub on_standby
{
	catch_up();
	return $standby->safe_psql('postgres', "SET cqrs_es.settle_timeout = 0; $_[0]");
}

# reading
is(poll(), 'a1 a2 a3', 'read_all');
is(on_standby(q{SELECT string_agg(event_type, ' ') FROM cqrs_es.read_stream('account', 'a')}),
	'a1 a2 a3', 'read_stream');
is(on_standby(q{SELECT string_agg(event_type, ' ') FROM cqrs_es.read_stream('account', 'a', backward => true)}),
	'a3 a2 a1', 'read_stream backward');
is(on_standby(q{SELECT cqrs_es.stream_version('account', 'a')}), 3, 'stream_version');
is(on_standby(q{SELECT cqrs_es.aggregate_state('account', 'a')}), '{"m": 2, "n": 3}', 'aggregate_state');
is(on_standby(q{SELECT version FROM cqrs_es.load_aggregate('account', 'a')}), 3, 'load_aggregate');
is(on_standby(q{SELECT cqrs_es.settled_position()}), on_standby(q{SELECT max(global_position) FROM cqrs_es.events}),
	'settled_position');
is(on_standby(q{SELECT cqrs_es.wait_for_position(max(global_position), '10 s') FROM cqrs_es.events}),
	't', 'wait_for_position: it is there');
is(on_standby(q{SELECT cqrs_es.wait_for_position(max(global_position) + 1, '20 ms') FROM cqrs_es.events}),
	'f', 'wait_for_position: it is not');
is(on_standby(q{SET cqrs_es.force_generic_path = on; SELECT string_agg(event_type, ' ') FROM cqrs_es.read_all()}),
	'a1 a2 a3', 'read_all on the generic path');

# events in flight on the primary
my $writer = $primary->background_psql('postgres');
sub w { $writer->query_safe($_) foreach @_ }

w('BEGIN', append('x'));
$primary->safe_psql('postgres', append('y'));
is(poll(), '', 'a transaction with a lower position holds the reader back');
is(on_standby(q{SELECT event_type FROM cqrs_es.events WHERE global_position = cqrs_es.settled_position()}),
	'a3', 'settled_position stays before it');
is(on_standby(q{SELECT cqrs_es.wait_for_position(max(global_position), '20 ms') FROM cqrs_es.events}),
	'f', 'wait_for_position has to wait for it');
w('COMMIT');
is(poll(), 'x y', 'after its commit both come, in order');

w('BEGIN', append('x'));
$primary->safe_psql('postgres', append('y'));
is(poll(), '', 'held back again');
w('ROLLBACK');
is(poll(), 'y', 'after its rollback the gap is passed');

w('BEGIN', append('x'));
$primary->safe_psql('postgres', append('y'));
w('ROLLBACK');
is(poll(), 'y', 'a gap that was dead before anybody asked is passed');

w('BEGIN', 'SAVEPOINT s', append('x'), 'ROLLBACK TO s');
$primary->safe_psql('postgres', append('y'));
my $first = poll();
w(append('z'));
$primary->safe_psql('postgres', append('y'));
my $second = poll();
w('COMMIT');
is("$first / $second / " . poll(), ' /  / y z y', 'a transaction that rolled back to a savepoint is waited for');

# more of them than a standby keeps track of one by one
w('BEGIN', map { ("SAVEPOINT s$_", append('x')) } 1 .. 70);
$primary->safe_psql('postgres', append('y'));
is(poll(), '', 'so is one with many savepoints');
w('COMMIT');
is(poll(), 'x ' x 70 . 'y', 'until it ends');

w('BEGIN', append('x'), q{PREPARE TRANSACTION 'p'});
$primary->safe_psql('postgres', append('y'));
is(poll(), '', 'a prepared transaction holds the reader back');
w(q{COMMIT PREPARED 'p'});
is(poll(), 'x y', 'until it is committed');
w('BEGIN', append('x'), q{PREPARE TRANSACTION 'p'});
$primary->safe_psql('postgres', append('y'));
is(poll(), '', 'held back again');
w(q{ROLLBACK PREPARED 'p'});
is(poll(), 'y', 'or rolled back');

# without a gap no transaction matters
w('BEGIN', 'INSERT INTO other VALUES (1)');
$primary->safe_psql('postgres', append('y'));
is(poll(), 'y', 'where there is no gap, a writing transaction holds nobody back');
w('COMMIT');

# a reader that waits
w('BEGIN', append('x'));
$primary->safe_psql('postgres', append('y'));
catch_up();
my $waiting = $standby->background_psql('postgres');
$waiting->query_until(qr/started/, q{
	\echo started
	SET cqrs_es.settle_timeout = '60s';
	SELECT 'got: ' || string_agg(event_type, ' ') FROM cqrs_es.read_all(} . $after . q{);
});
$standby->poll_query_until('postgres', q{
	SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND query LIKE '%got: %' AND pid <> pg_backend_pid()});
w('COMMIT');
catch_up();
like($waiting->query_until(qr/got: .*\n/, "\n"), qr/got: x y/, 'read_all waits until the gap is settled');
$waiting->quit;
is(poll(), 'x y', 'so does nobody else');

# above READ COMMITTED
w('BEGIN', append('x'));
$primary->safe_psql('postgres', append('y'));
catch_up();
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM cqrs_es.events');
w('COMMIT');
is(poll(), '', 'REPEATABLE READ: what settled after the snapshot is not passed over');
$reader->query_safe('COMMIT');
is(poll(), 'x y', 'but comes in the next transaction');

# writing
foreach my $statement (append('a'), q{SELECT cqrs_es.append_events('account', 'a', '[{"type": "t", "payload": 1}]')},
	q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', 'a', 't', '1')},
	q{SELECT cqrs_es.take_snapshot('account', 'a')}, q{SELECT cqrs_es.next_position()},
	q{SELECT cqrs_es.create_aggregate('loan')})
{
	my ($stderr);
	$standby->psql('postgres', "\\set VERBOSITY verbose\n$statement", stderr => \$stderr);
	like($stderr, qr/ERROR:  25006: cannot execute/, "refused: $statement");
}

# promotion
my ($last, $drawn) = split /\|/, on_standby(q{
	SELECT max(global_position), (SELECT last_value FROM cqrs_es.events_global_position_seq) FROM cqrs_es.events});
$writer->quit;
$primary->stop;
$standby->promote;
is($reader->query_safe(q{SELECT version, global_position > } . $last . q{ FROM cqrs_es.append_event('account', 'a', 'a4', '{"n": 4}', 3)}),
	'4|t', 'a session that was there before appends, with a rising position');
is($standby->safe_psql('postgres', q{SELECT version FROM cqrs_es.append_event('account', 'a', 'a5', '{"k": 5}')}),
	5, 'another session, too');
is($reader->query_safe("SELECT string_agg(event_type, ' ') FROM cqrs_es.read_all($after)"),
	'a4 a5', 'the reader goes on where it was');
is($standby->safe_psql('postgres', q{SELECT cqrs_es.aggregate_state('account', 'a')}),
	'{"k": 5, "m": 2, "n": 4}', 'aggregate_state');
is($standby->safe_psql('postgres', q{SELECT last_sequence FROM cqrs_es.snapshots WHERE aggregate_id = 'a'}),
	4, 'snapshots go on');
is($standby->safe_psql('postgres', q{SELECT string_agg(global_position::text, ' ') FROM cqrs_es.read_all()}),
	$standby->safe_psql('postgres', q{SELECT string_agg(global_position::text, ' ' ORDER BY global_position) FROM cqrs_es.events}),
	'read_all hands out everything in order, once');

$reader->quit;
$standby->stop;
done_testing();
