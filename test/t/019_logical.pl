# Native logical replication of the log. The subscriber reads it in order and misses
# nothing, also what the publisher commits late, and can take over as the writer.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = PostgreSQL::Test::Cluster->new('publisher');
$publisher->init(allows_streaming => 'logical', extra => ['--no-instructions']);		# a system of its own
$publisher->append_conf('postgresql.conf', 'max_prepared_transactions = 10');
$publisher->start;
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->start;
$_->safe_psql('postgres', 'CREATE EXTENSION cqrs_es') foreach $publisher, $subscriber;

sub append { return "SELECT FROM cqrs_es.append_event('t', '$_[0]', '$_[0]', '1');" }
sub rolled_back { return 'BEGIN;' . append($_[0]) . 'ROLLBACK;' }
sub publish { return $publisher->safe_psql('postgres', $_[0]) }
sub caught_up { $publisher->wait_for_catchup('log'); return }

# A reader of the subscriber goes on after the last position it got.
my ($after, $warning) = (0);
sub poll
{
	my @seen;
	caught_up() unless $_[0];
	for (;;)
	{
		my ($status, $rows, $stderr) = $subscriber->psql('postgres', "\\set VERBOSITY verbose\nSET cqrs_es.settle_timeout = '20ms'; SELECT global_position, event_type FROM cqrs_es.read_all($after, 2)");
		$warning = $stderr;
		last if $rows eq '';
		foreach (split /\n/, $rows)
		{
			my ($position, $type) = split /\|/;
			push @seen, $type;
			$after = $position;
		}
	}
	return join ' ', @seen;
}

# The statements of docs/operations.md, for the publisher and for the subscriber.
my $page = slurp_file("$ENV{TESTDIR}/docs/operations.md");
my ($on_publisher) = $page =~ /^```sql\n(CREATE PUBLICATION .*?)^```$/ms;
my ($on_subscriber) = $page =~ /^```text\n(CREATE SUBSCRIPTION .*?)^```$/ms;

# what is there when the subscription begins, with a dead gap in it
publish(append('a1') . rolled_back('dead') . append('a2'));

# the events alone do not tell which gaps are dead
publish('CREATE PUBLICATION events_alone FOR TABLE cqrs_es.events');
my $connection = $publisher->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION log CONNECTION '$connection' PUBLICATION events_alone");
$subscriber->poll_query_until('postgres', q{SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel});
is(poll(), 'a1', 'without a word of the publisher a reader gets what lies before the first gap');
like($warning, qr/WARNING:  01000: reading the log stops at a gap before position 3, .*HINT:  .*published_positions.*publish_settled/s, 'and is told why');
my @warnings = $warning =~ /WARNING/g;
is(scalar(@warnings), 1, 'once');

$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION log');
publish('DROP PUBLICATION events_alone');
$subscriber->safe_psql('postgres', 'DROP EXTENSION cqrs_es; CREATE EXTENSION cqrs_es');
is(publish($on_publisher), 3, 'as docs/operations.md says it');
$on_subscriber =~ s/CONNECTION '.*?'/CONNECTION '$connection'/;
$subscriber->safe_psql('postgres', $on_subscriber);
$subscriber->poll_query_until('postgres', q{SELECT count(*) > 1 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel});
is(publish('SELECT cqrs_es.publish_settled()'), 3, 'publish_settled() says where the log is settled');
is(poll(), 'a2', 'when the publisher has said it, the reader goes on');
is($warning, '', 'without a warning');

# no gap: nobody has to say anything
publish(append('b1') . append('b2'));
is(poll(), 'b1 b2', 'events without a gap come at once');

# committed late
my $writer = $publisher->background_psql('postgres');
$writer->query_safe('BEGIN; ' . append('late'));
publish(append('early'));
publish('SELECT cqrs_es.publish_settled()');
is(poll(), '', 'an event above one that is in flight at the publisher is not handed out');
is($subscriber->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.events WHERE event_type = 'early'}), 1, 'although it is here');
is($warning, '', 'and nobody is to blame for it');
$writer->query_safe('COMMIT');
is(poll(), 'late early', 'both come in order');
publish('BEGIN;' . append('prepared') . "PREPARE TRANSACTION 'p'");
publish(append('early'));
publish('SET cqrs_es.settle_timeout = 0; SELECT cqrs_es.publish_settled()');
is(poll(), '', 'so with a prepared transaction');
publish("COMMIT PREPARED 'p'");
publish('SELECT cqrs_es.publish_settled()');
is(poll(), 'prepared early', 'both come in order');
publish(rolled_back('dead') . append('after a gap'));
is(poll(), '', 'a dead gap');
my $waiting = $subscriber->background_psql('postgres');
$waiting->query_until(qr/started/, "\\echo started\nSET cqrs_es.settle_timeout = '60s'; SELECT 'got: ' || string_agg(event_type, ' ') FROM cqrs_es.read_all($after);\n");
publish('SELECT cqrs_es.publish_settled()');
like($waiting->query_until(qr/got: .*\n/, "\n"), qr/got: after a gap/, 'read_all waits for the word');
$waiting->quit;
is(poll(), 'after a gap', 'then it is passed');
is($subscriber->safe_psql('postgres', "SELECT cqrs_es.wait_for_position($after, '10 s')"), 't', 'wait_for_position');
is($subscriber->safe_psql('postgres', 'SELECT cqrs_es.settled_position()'), $after, 'settled_position');

# many writers, some of them roll back, while the subscriber is read
my @writers = map { $publisher->background_psql('postgres') } 1 .. 4;
my $n = 0;
my @got;
foreach my $round (1 .. 40)
{
	my $i = $round % 4;
	$writers[$i]->query_safe('BEGIN; ' . append('x' . $n++) . append('x' . $n++));
	$writers[ ($i + 1) % 4 ]->query_safe($round % 3 ? 'COMMIT' : 'ROLLBACK') if $round > 3;
	publish('SET cqrs_es.settle_timeout = 0; SELECT cqrs_es.publish_settled()') if $round % 5 == 0;
	push @got, split / /, poll('as it comes');
}
$_->query('COMMIT') foreach @writers;
$_->quit foreach @writers, $writer;
publish('SELECT cqrs_es.publish_settled()');
push @got, split / /, poll();
is("@got", publish(q{SELECT string_agg(event_type, ' ' ORDER BY global_position) FROM cqrs_es.events WHERE event_type LIKE 'x%'}),
	'a reader beside many writers gets all, in order');

# a subscriber whose sequence stands ahead: somebody has tried to append, or it came with a dump
publish('SELECT cqrs_es.publish_settled()');
my $open = $publisher->background_psql('postgres');
$open->query_safe('BEGIN; ' . append('in flight'));
publish(append('overtook'));
caught_up();
$subscriber->safe_psql('postgres', rolled_back('tried'));
is(poll('ahead'), '', 'a sequence that stands ahead says nothing about gaps');
$open->query_safe('COMMIT');
$open->quit;
publish('SELECT cqrs_es.publish_settled()');
is(poll(), 'in flight overtook', 'the publisher does');

# the subscriber becomes the writer
publish(rolled_back('dead') . append('the last'));
my $last = publish('SELECT max(global_position) FROM cqrs_es.events');
is(poll(), '', 'before the cut-over');
$subscriber->safe_psql('postgres', 'ALTER SUBSCRIPTION log DISABLE');
is(poll('disabled'), '', 'a subscription that is disabled may go on');
$subscriber->safe_psql('postgres', $_) foreach 'ALTER SUBSCRIPTION log SET (slot_name = NONE)', 'DROP SUBSCRIPTION log';
is(poll('dropped'), 'the last', 'one that is dropped does not');
is($subscriber->safe_psql('postgres', "SELECT version, global_position > $last FROM cqrs_es.append_event('t', 'a1', 'own', '1')"), '2|t', 'append goes on above what was replicated');
$subscriber->safe_psql('postgres', rolled_back('dead') . append('own'));
is(poll('local'), 'own own', 'the reader goes on, too');
is($subscriber->safe_psql('postgres', q{SELECT string_agg(global_position::text, ' ') FROM cqrs_es.read_all()}),
	$subscriber->safe_psql('postgres', q{SELECT string_agg(global_position::text, ' ' ORDER BY global_position) FROM cqrs_es.events}),
	'read_all hands out everything in order, once');

$subscriber->stop;
$publisher->stop;
done_testing();
