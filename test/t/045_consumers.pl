
# Consumers of subscriptions in other languages, test/clients/consumer.*, which people
# copy, as a role that may receive and append: what fails comes again and then becomes a
# dead letter, SIGTERM loses and doubles nothing, a killed one is replaced, a restart of
# the server is survived, and what ExactlyOnce writes is there once whoever is killed.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Clients qw(python_with_psycopg node_with_pg);

my $clients = "$ENV{TESTDIR}/test/clients";
my $directory = PostgreSQL::Test::Utils::tempdir();

# What docs/clients.md shows of them stands in them, just as it is.
my $page = slurp_file("$ENV{TESTDIR}/docs/clients.md");
foreach my $language ([ 'python', 'consumer.py' ], [ 'js', 'consumer.js' ])
{
	my ($tag, $file) = @$language;
	my $program = slurp_file("$clients/$file");
	foreach my $class ('Consumer', 'ExactlyOnce')
	{
		my ($block) = $page =~ /^```$tag\n(class $class\b.*?)^```$/ms;
		ok($block && index($program, $block) >= 0, "$class of docs/clients.md is that of $file") || diag($block);
		cmp_ok(scalar(grep { /\S/ } split /\n/, $block // ''), '<', 60, 'and has less than 60 lines');
	}
}

# What a test lets them do: an event's payload says what happens to it.
my %programs;
$programs{python} = <<"END";
import os, sys, time
sys.path.insert(0, "$clients")
from consumer import Consumer, ExactlyOnce

def handle(event, connection=None):
    do = event.payload.get("do")
    if connection:
        connection.execute("INSERT INTO bookings (stream, sequence) VALUES (%s, %s)", (event.aggregate_id, event.sequence))
    print(event.aggregate_id, event.sequence, do, flush=True)
    if do == "fail" or do == "fail once" and event.attempt == 1:
        raise ValueError("no such address")
    if do == "hang" and "HANG" in os.environ:
        time.sleep(600)
    if do == "slow":
        time.sleep(0.3)

class Impatient(Consumer):
    def stop(self, *_):
        self.stop_at = time.monotonic()

{"Consumer": Consumer, "ExactlyOnce": ExactlyOnce, "Impatient": Impatient}[sys.argv[1]](sys.argv[2], handle, 10).run()
END
$programs{javascript} = <<"END";
const { Consumer, ExactlyOnce } = require('$clients/consumer.js')
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

async function handle(event, client) {
  const { do: what } = event.payload
  if (client) await client.query('INSERT INTO bookings (stream, sequence) VALUES (\$1, \$2)', [event.aggregate_id, event.sequence])
  console.log(event.aggregate_id, event.sequence, what)
  if (what === 'fail' || (what === 'fail once' && event.attempt === 1)) throw new Error('no such address')
  if (what === 'hang' && 'HANG' in process.env) await sleep(600000)
  if (what === 'slow') await sleep(300)
}

class Impatient extends Consumer {
  stop() { this.stopAt = performance.now() }
}

new ({ Consumer, ExactlyOnce, Impatient }[process.argv[2]])(process.argv[3], handle, 10).run()
END

my $node = PostgreSQL::Test::Cluster->new('consumers');
$node->init;
$node->start;

my ($python, $why) = python_with_psycopg();
plays('python', $python, $why);

(my $node_path, $why) = node_with_pg();
{
	local $ENV{NODE_PATH} = $node_path;
	plays('javascript', defined $node_path && 'node', $why);
}

$node->stop;
done_testing();

my ($name, $command, $started);

# All of it in a database of its own; without an interpreter, skip it and say why.
sub plays
{
	my $missing;
	($name, $command, $missing) = @_;
  SKIP:
	{
		skip "$name: $missing", 1 if !$command;

		append_to_file("$directory/$name", $programs{$name});
		$node->safe_psql('postgres', "CREATE DATABASE $name");
		sql('CREATE EXTENSION cqrs_es', slurp_file("$clients/account.sql"));
		sql(q{CREATE TABLE bookings (nr bigint GENERATED ALWAYS AS IDENTITY, stream text, sequence bigint);
			GRANT SELECT, INSERT ON bookings TO shop;
			CREATE FUNCTION happens(stream text, VARIADIC what text[]) RETURNS void LANGUAGE sql AS $$
				SELECT cqrs_es.append_events('account', stream,
					(SELECT jsonb_agg(jsonb_build_object('type', 'Deposited', 'payload', jsonb_build_object('do', w))) FROM unnest(what) AS w)) $$});
		failures();
		stops();
		kills();
		exactly_once();
		$node->safe_psql('postgres', "DROP DATABASE $name");
		$node->safe_psql('postgres', 'DROP ROLE shop');
	}
}

# One event fails once and is done at the second try, with what comes behind it; one
# fails always; nobody else is held up, and a restart of the server is survived.
sub failures
{
	subscription('mails');
	sql(q{SELECT happens('a', 'x', 'fail once', 'x')}, q{SELECT happens('b', 'x', 'fail', 'x')}, q{SELECT happens('c', 'x', 'x')});
	my $consumer = start('Consumer', 'mails');
	until_sql(q{SELECT count(*) = 1 FROM cqrs_es.dead_letters WHERE subscription = 'mails' AND state = 'blocked'}, 'what always fails is blocked');
	is(join(', ', of('a', $consumer)), '1 x, 2 fail once, 2 fail once, 3 x', 'what failed once comes again, with what is behind it');
	is(join(', ', of('b', $consumer)), '1 x, 2 fail, 2 fail, 2 fail', 'and nothing comes behind what still fails');
	is(join(', ', of('c', $consumer)), '1 x, 2 x', 'other streams do not care');
	like(sql(q{SELECT error FROM cqrs_es.dead_letters WHERE subscription = 'mails'}), qr/no such address/, 'the dead letter says why');

	$node->restart;
	sql(q{SELECT happens('c', 'after')});
	until_output($consumer, qr/^c 3 after$/m, 'a restart of the server is survived');
	is(ended($consumer, 'TERM'), 0, 'and SIGTERM ends it');
	is(sql(q{SELECT count(*) FROM cqrs_es.shares WHERE subscription = 'mails' AND batch IS NOT NULL}), 0, 'with nothing in hand');
}

# SIGTERM in the middle of a batch: it is finished, or given back at once.
sub stops
{
	subscription('stopped');
	sql(q{SELECT happens('s', 'slow', 'slow', 'slow', 'slow', 'slow')});
	my $consumer = start('Consumer', 'stopped');
	until_output($consumer, qr/^s 2 slow$/m, 'in the middle of a batch');
	is(ended($consumer, 'TERM'), 0, 'SIGTERM ends a consumer');
	is(join(' ', map { /^(\d)/ } of('s', $consumer)), '1 2 3 4 5', 'when the batch is done');
	is(state('stopped'), 't|f', 'and acknowledged');

	subscription('given back');
	sql(q{SELECT happens('t', 'slow', 'slow', 'slow', 'slow', 'slow')});
	$consumer = start('Impatient', 'given back');
	until_output($consumer, qr/^t 2 slow$/m, 'again');
	is(ended($consumer, 'INT'), 0, 'one that has no time ends, too');
	unlike(output($consumer), qr/^t 5 /m, 'before the batch is done');
	is(state('given back'), 'f|f', 'which is given back');
	is(sql(q{SELECT max(deliveries), count(suspect_end) FROM cqrs_es.shares WHERE subscription = 'given back'}), '0|0', 'and is not taken for lost');
}

# Killed in the middle: the next one gets it when the lease is over.
sub kills
{
	subscription('killed');
	sql(q{SELECT happens('k', 'x', 'hang', 'x')}, q{SELECT happens('l', 'x')});
	my $consumer;
	{
		local $ENV{HANG} = 1;
		$consumer = start('Consumer', 'killed');
		until_output($consumer, qr/^k 2 hang$/m, 'it hangs');
		ended($consumer, 'KILL');
	}
	my $next = start('Consumer', 'killed');
	until_output($next, qr/^k 3 x$/m, 'another one goes on');
	until_output($next, qr/^l 1 x$/m, 'with all of it');
	is(join(' ', map { /^(\d)/ } of('k', $next)), '1 2 3', 'in order');
	is(ended($next, 'TERM'), 0, 'SIGTERM');
	is(state('killed'), 't|f', 'all is done');
}

# Two at a time, one killed again and again.
sub exactly_once
{
	subscription('billing', lease => '500 ms', max_attempts => 100);
	sql(q{SELECT happens('e' || s, VARIADIC array_fill('x'::text, ARRAY[5]) || '{fail once}'::text[] || array_fill('x'::text, ARRAY[14])) FROM generate_series(1, 20) AS s});
	my $steady = start('ExactlyOnce', 'billing');
	for (1 .. 5)
	{
		my $killed = start('ExactlyOnce', 'billing');
		until_sql(qq{SELECT EXISTS (SELECT FROM cqrs_es.consumers WHERE subscription = 'billing' AND consumer LIKE '%:' || }
			  . $killed->{process}{KIDS}[0]{PID} . q{ || ':%')}, "$_ works");
		ended($killed, 'KILL');
	}
	until_sql('SELECT NOT (' . undone('billing') . ')', 'all is done in the end');
	is(ended($steady, 'TERM'), 0, 'SIGTERM');
	is(sql(q{SELECT count(*), count(DISTINCT (stream, sequence)) FROM bookings WHERE stream LIKE 'e%'}), '400|400', 'each once');
	is(sql(q{SELECT count(*) FROM (SELECT sequence, row_number() OVER (PARTITION BY stream ORDER BY nr) AS nr FROM bookings WHERE stream LIKE 'e%') AS b
		WHERE sequence <> nr}), 0, 'each stream in order');
}

# A subscription that begins with what happens from now on.
sub subscription
{
	my ($subscription, %options) = (shift, lease => '2 s', max_attempts => 3, @_);
	sql(qq{SELECT cqrs_es.create_subscription('$subscription', start_at_end => true, retry_delay => '10 ms', consumer_role => 'shop', }
		  . join(', ', map { "$_ => '$options{$_}'" } sort keys %options) . ')');
}

# Is something behind the position, parked, or in hand?
sub undone
{
	my ($subscription) = @_;
	return qq{SELECT EXISTS (SELECT FROM cqrs_es.shares WHERE subscription = '$subscription' AND (batch IS NOT NULL OR position < cqrs_es.last_position()))
		OR EXISTS (SELECT FROM cqrs_es.parked_streams WHERE subscription = '$subscription')};
}

# Is everything done, and is something in hand?
sub state
{
	my ($subscription) = @_;
	return sql(qq{SELECT bool_and(position >= (SELECT max(global_position) FROM cqrs_es.events)), bool_or(batch IS NOT NULL)
		FROM cqrs_es.shares WHERE subscription = '$subscription'});
}

sub sql
{
	return $node->safe_psql($name, join(";\n", @_));
}

sub until_sql
{
	my ($query, $title) = @_;
	ok($node->poll_query_until($name, $query), "$name: $title");
}

# A consumer of this class, its output in a file.
sub start
{
	my ($class, $subscription) = @_;
	my $file = sprintf '%s/%s.%d', $directory, $name, ++$started;
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => $name, PGUSER => 'shop');
	return { file => $file, process => IPC::Run::start([ $command, "$directory/$name", $class, $subscription ], '<', \undef, '>', $file, '2>', "$file.err") };
}

sub output
{
	my ($consumer) = @_;
	return -e $consumer->{file} ? slurp_file($consumer->{file}) : '';
}

# What it was given of a stream.
sub of
{
	my ($stream, $consumer) = @_;
	return output($consumer) =~ /^$stream (.*)$/mg;
}

sub until_output
{
	my ($consumer, $pattern, $title) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return pass("$name: $title") if output($consumer) =~ $pattern;
		select(undef, undef, undef, 0.1);
	}
	fail("$name: $title");
	diag(output($consumer), slurp_file("$consumer->{file}.err"));
}

# Send the signal; returns the exit code.
sub ended
{
	my ($consumer, $signal) = @_;
	my $process = $consumer->{process};
	$process->signal($signal);
	eval { $process->finish };
	return $process->full_result(0) >> 8 || $process->full_result(0);
}
