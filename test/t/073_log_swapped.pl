# Readers beside somebody who gives the log another file, as pg_repack does: rows that were committed before get
# there with the transaction of the swap, and a snapshot from before it does not show them in the new file. What is known
# to be settled must not be missed for that: a snapshot is taken when the log is locked. The swap is made by hand here;
# the event "late" is copied last.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Session;

my $node = PostgreSQL::Test::Cluster->new('swapped');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	SELECT cqrs_es.own_log();
	SELECT FROM cqrs_es.append_event('a', 'first', 'e', '"first"');
	CREATE TABLE log_copy (LIKE cqrs_es.events INCLUDING ALL);
	-- files change places, those of indexes of the same columns, too
	CREATE FUNCTION swap() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		LOCK TABLE cqrs_es.events, log_copy IN ACCESS EXCLUSIVE MODE;
		INSERT INTO log_copy SELECT * FROM cqrs_es.events AS e WHERE NOT EXISTS (SELECT FROM log_copy AS c WHERE c.event_id = e.event_id);
		WITH pairs AS (
			SELECT 'cqrs_es.events'::regclass::oid AS one, 'log_copy'::regclass::oid AS other
			UNION ALL
			SELECT i.indexrelid, c.indexrelid FROM pg_index AS i JOIN pg_index AS c ON c.indkey::text = i.indkey::text
			WHERE i.indrelid = 'cqrs_es.events'::regclass AND c.indrelid = 'log_copy'::regclass)
		UPDATE pg_class AS t SET relfilenode = s.relfilenode
		FROM (SELECT one AS target, other AS source FROM pairs UNION ALL SELECT other, one FROM pairs) AS p JOIN pg_class AS s ON s.oid = p.source
		WHERE t.oid = p.target;
	END $$;
});

my %session = map { $_ => Session->new($node->host, $node->port, scalar getpwuid($>), 'postgres') } qw(writer other admin reader);
my $pid = sub { return $session{ $_[0] }->value('SELECT pg_backend_pid()') };
my %pid = map { $_ => $pid->($_) } keys %session;
sub until_waits
{
	my ($who, $event_type) = @_;
	return ok($node->poll_query_until('postgres', "SELECT wait_event_type = '$event_type' FROM pg_stat_activity WHERE pid = $pid{$who}"), "$who waits: $event_type");
}
sub append { return "SELECT FROM cqrs_es.append_event('a', '$_[0]', 'e', '\"$_[0]\"')" }
sub texts { return join ' ', map { $_->[0] } @{ $_[0] } }

# on the straight way: on the other one a reader keeps its lock, and there is no swap meanwhile
$session{reader}->ask(q{SET cqrs_es.force_generic_path = off; SET cqrs_es.settle_timeout = '100s'});
$session{reader}->ask(q{SELECT FROM cqrs_es.read_stream('a', 'late')});
$session{writer}->ask('BEGIN; ' . append('late'));
$session{other}->ask(append('last'));
$session{admin}->ask('INSERT INTO log_copy SELECT * FROM cqrs_es.events');

# The reader waits for "late". When that is committed it looks again, and whoever swaps has its turn before.
$session{reader}->send(q{SELECT payload #>> '{}' FROM cqrs_es.read_all(1)});
until_waits('reader', 'Extension');
$session{admin}->ask('BEGIN');
$session{admin}->send('SELECT swap()');
until_waits('admin', 'Lock');
$session{writer}->ask('COMMIT');
until_waits('reader', 'Lock');
$session{admin}->read_results;
is($session{admin}->{state}, '', 'the swap is made');
$session{admin}->ask('COMMIT');
my ($rows) = $session{reader}->read_results;
is(texts($rows), 'late last', 'the reader misses nothing');

# a stream, by a reader who knows the log
$session{admin}->ask('TRUNCATE log_copy; INSERT INTO log_copy SELECT * FROM cqrs_es.events');
$session{writer}->ask(append('later'));
$session{reader}->ask(q{SELECT FROM cqrs_es.read_stream('a', 'later')});
$session{admin}->ask('BEGIN; SELECT swap()');
$session{reader}->send(q{SELECT payload #>> '{}' FROM cqrs_es.read_stream('a', 'later')});
until_waits('reader', 'Lock');
$session{admin}->ask('COMMIT');
($rows) = $session{reader}->read_results;
is(texts($rows), 'later', 'nor does one of a stream');
# what a subscription tries again: a stream that is parked would be taken for one of which nothing is left
$session{admin}->ask(q{SELECT cqrs_es.create_subscription('mails', start_at_end => true, retry_delay => '0')});
$session{admin}->ask('TRUNCATE log_copy; INSERT INTO log_copy SELECT * FROM cqrs_es.events');
$session{writer}->ask(append('parked'));
my $receive = q{FROM cqrs_es.receive_events('mails', 'me')};
$session{reader}->ask("SELECT cqrs_es.nack_event(batch, global_position, 'not now') $receive");
is(($session{reader}->ask('SELECT cqrs_es.ack_events(batch) FROM cqrs_es.shares'))[0][0][0], 0, 'an event that failed');
$session{admin}->ask('BEGIN; SELECT swap()');
$session{reader}->send("SELECT payload #>> '{}' $receive");
until_waits('reader', 'Lock');
$session{admin}->ask('COMMIT');
($rows) = $session{reader}->read_results;
is(texts($rows), 'parked', 'it comes again');
is($node->safe_psql('postgres', q{SELECT string_agg(payload #>> '{}', ' ') FROM cqrs_es.read_all()}), 'first late last later parked', 'they are all there');
$_->close foreach values %session;
$node->stop;
done_testing();
