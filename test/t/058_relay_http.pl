# Relays, examples/relay.*, before a receiver that has all the troubles of the world: it
# is down, slow, overloaded, broken, somewhere else, and refuses events; relays are killed
# and told to end. Every event arrives, each stream in order, and doubles have one key.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Clients qw(python_with node_with);
use Relays;

my $examples = "$ENV{TESTDIR}/examples";
my @streams = map { "s$_" } 1 .. 8;

# The programs are short, and send the same.
my %columns;
foreach my $file ('relay.py', 'relay.js')
{
	my $program = slurp_file("$examples/$file");
	cmp_ok(scalar(split /\n/, $program), '<', 150, "$file has less than 150 lines");
	($columns{$file}) = $program =~ /^\s*(json_build_object\(.*?AS body)/ms;
	$columns{$file} =~ s/\s+/ /g;
}
is($columns{'relay.js'}, $columns{'relay.py'}, 'both send the same');

my ($relays, $name, $directory, $port, $receiver);
END { $receiver->kill_kill if $receiver }

# Relays that end at once.
my %impatient = (python => <<"END", javascript => <<"END");
import sys, time
sys.path.insert(0, "$examples")
import relay

class Impatient(relay.Relay):
    def stop(self, *_):
        self.stop_at = time.monotonic()

Impatient(sys.argv[2], relay.to_http(sys.argv[-1], None), 3).run()
END
const { Relay, toHttp } = require('$examples/relay.js')

class Impatient extends Relay {
  stop() { this.stopAt = performance.now() }
}

new Impatient(process.argv[3], toHttp(process.argv.at(-1)), 3).run().then(() => process.exit())
END

my $node = PostgreSQL::Test::Cluster->new('relays');
$node->init;
$node->start;

my ($python, $why) = python_with('psycopg');
plays('python', $why, $python, "$examples/relay.py");

(my $node_path, $why) = node_with('pg');
{
	local $ENV{NODE_PATH} = $node_path // '';
	plays('javascript', $why, defined $node_path && 'node', "$examples/relay.js");
}

$node->stop;
done_testing();

sub plays
{
	($name, my $missing, my @command) = @_;
  SKIP:
	{
		skip "$name: $missing", 1 if $missing;

		($directory, $port) = (PostgreSQL::Test::Utils::tempdir(), PostgreSQL::Test::Cluster::get_free_port());
		$relays = Relays->new($node, $name, @command);
		listens();
		troubles();
		refusals();
		waits();
		slow();
		ends();
		gives_back();
		$relays->finish;
		deaf();
	}
}

# Three relays share a subscription, one more has another, while one trouble follows the other.
sub troubles
{
	$relays->subscription('hooks');
	$relays->subscription('audit');
	my $after = $relays->position;
	my @hooks = map { relay('hooks', '--timeout', 1) } 1 .. 3;
	relay('audit', '--timeout', 1, { RELAY_AUTHORIZATION => 'Bearer of news' });

	$relays->happens(2, @streams);
	$relays->until_done('hooks', 'in peace all arrives');

	answers('. 200 0.1');
	$relays->happens(3, @streams);
	$relays->ended($relays->until_busy('hooks', \@hooks, @streams), 'KILL');
	relay('hooks', '--timeout', 1);

	foreach my $answer ('. 500 0', '. 408 0', '. 425 0', '. 302 0 Location: /trap', '. 307 0 Location: /trap', '. 200 2')
	{
		my ($status, $seconds) = (split / /, $answer)[ 1, 2 ];
		my ($before, $doubles) = (scalar(requests(status => $status)), doubles());
		answers($answer);
		$relays->happens(1, @streams);
		$relays->until_true("$answer: is tried", sub { requests(status => $status) >= $before + 3 });
		$relays->until_true('and again', sub { doubles() > $doubles }) if $seconds;
	}

	deaf();
	$relays->happens(1, @streams);
	$relays->until_sql(q{SELECT EXISTS (SELECT FROM cqrs_es.subscription_parked_streams WHERE error ILIKE '%refused%')}, 'nobody listens');
	answers('[05]$ drip 0');
	listens();
	$relays->happens(8, @streams);
	$relays->until_true('byte by byte: is given up in time', sub { (grep { $_->{status} eq 'drip' && $_->{attempt} > 1 } requests()) > 0 });

	answers();
	$relays->until_done($_, "$_: all is done in the end") foreach 'hooks', 'audit';
	$relays->all_arrived($after, accepted(path => '/hooks'));
	$relays->all_arrived($after, accepted(path => '/audit'));
	is(requests(path => '/trap'), 0, "$name: no redirect was followed");
	is(join(' ', unique(map { $_->{authorization} } requests(path => '/audit'))), 'Bearer of news', "$name: with authorization");
	like((requests())[0]{body}, qr/"n": 12345678901234567890.123456789\D/, "$name: numbers are exact");
	is($relays->sql(q{SELECT count(*) FROM cqrs_es.dead_letters}), 0, "$name: nothing was given up");
	$relays->pause('hooks', 'audit');
}

# What the receiver refuses is a dead letter at once, holds up its stream alone, and goes
# out when the receiver is mended.
sub refusals
{
	$relays->subscription('refused');
	my $after = $relays->position;
	relay('refused');
	answers('^poison#2 400 0 Retry-After: 1');
	$relays->happens(3, 'poison', 'healthy');
	$relays->until_sql(q{SELECT count(*) = 1 FROM cqrs_es.subscription_dead_letters WHERE state = 'blocked' AND attempts = 1 AND error LIKE '%HTTP 400 %said%'}, '400: a dead letter at once');
	$relays->until_true('others go on', sub { requests(path => '/refused', event => 'healthy#3') == 1 });
	is(join(' ', map { $_->{event} } grep { $_->{event} =~ /^poison/ } requests(path => '/refused')), 'poison#1 poison#2', "$name: the stream does not");
	$relays->happens(1, 'poison');
	answers();
	$relays->sql(q{SELECT cqrs_es.redrive('refused')});
	$relays->until_done('refused', 'after a redrive all is done');
	$relays->all_arrived($after, accepted(path => '/refused'));
	is(scalar(requests(path => '/refused')), 8, "$name: nothing came twice");
	$relays->pause('refused');
}

# Retry-After, in seconds and as a date; what makes no sense is passed over.
sub waits
{
	$relays->subscription('later');
	my $after = $relays->position;
	answers('^seconds 429 0 Retry-After: 2', '^date 503 0 Retry-After: DATE+3', '^never 503 0 Retry-After: soon', '^past 503 0 Retry-After: DATE+0');
	relay('later');
	$relays->happens(2, 'seconds', 'date', 'never', 'past');
	$relays->until_true("$_ is tried twice", sub { requests(path => '/later', event => "$_#1") >= 2 }) foreach 'never', 'past', 'seconds', 'date';
	answers();
	$relays->until_done('later', 'all is done');
	my %pause;
	foreach my $stream ('never', 'past', 'seconds', 'date')
	{
		my @tries = requests(path => '/later', event => "$stream#1");
		$pause{$stream} = $tries[1]{at} - $tries[0]{at};
		is(join(' ', map { $_->{attempt} } @tries[ 0, 1 ]), '1 2', "$name: $stream: its attempts are counted");
	}
	cmp_ok($pause{seconds}, '>=', 1.9, "$name: Retry-After in seconds");
	cmp_ok($pause{date}, '>=', 1.9, "$name: Retry-After as a date");
	cmp_ok($pause{$_}, '<', $pause{seconds}, "$name: Retry-After that is $_") foreach 'never', 'past';
	$relays->all_arrived($after, accepted(path => '/later'));
	$relays->pause('later');
}

# A batch that takes longer than the lease is kept, with another relay that waits for it.
sub slow
{
	$relays->subscription('slow', lease => '2 s');
	my $after = $relays->position;
	my $relay = relay('slow');
	$relays->happens(12, 'fast');		# from now on it takes as many as there are
	$relays->until_done('slow', 'a quick beginning');
	answers('. 200 0.7');
	$relays->happens(5, 'slow');
	$relays->until_busy('slow', [$relay]);
	relay('slow');
	$relays->until_done('slow', 'a slow end');
	answers();
	$relays->all_arrived($after, accepted(path => '/slow'));
	is(scalar(requests(path => '/slow')), 17, "$name: a batch that takes longer than the lease comes once");
	$relays->pause('slow');
}

# SIGTERM in the middle of a batch: it is finished.
sub ends
{
	$relays->subscription('ended');
	my $after = $relays->position;
	my $relay = relay('ended');
	$relays->happens(12, 'fast');
	$relays->until_done('ended', 'a quick beginning');
	answers('. 200 0.3');
	$relays->happens(8, 'slow');
	$relays->until_true('in the middle', sub { requests(path => '/ended', event => 'slow#8') == 1 });
	is($relays->ended($relay, 'TERM'), 0, "$name: SIGTERM");
	is($relays->sql(q{SELECT count(*) FROM cqrs_es.shares WHERE subscription = 'ended' AND batch IS NOT NULL}), 0, "$name: nothing is in hand");
	answers();
	relay('ended');
	$relays->happens(1, 'slow');
	$relays->until_done('ended', 'another one goes on');
	$relays->all_arrived($after, accepted(path => '/ended'));
	is(scalar(requests(path => '/ended')), 21, "$name: nothing came twice");
}

# One that has no time for the rest of its batch: the batch is given back.
sub gives_back
{
	$relays->subscription('given');
	my $after = $relays->position;
	append_to_file("$directory/impatient", $impatient{$name});
	my $relay;
	{
		local $relays->{command} = [ $relays->{command}[0], "$directory/impatient" ];
		$relay = relay('given');
	}
	$relays->happens(12, 'fast');
	$relays->until_done('given', 'a quick beginning');
	answers('. 200 0.3');
	$relays->happens(8, 'given');
	$relays->until_true('in the middle', sub { requests(path => '/given', event => 'given#2') == 1 });
	is($relays->ended($relay, 'TERM'), 0, "$name: SIGTERM");
	is(scalar(requests(path => '/given', event => 'given#8')), 0, "$name: before its batch is done");
	is($relays->sql(q{SELECT bool_or(batch IS NOT NULL), max(deliveries), count(suspect_end) FROM cqrs_es.shares WHERE subscription = 'given'}), 'f|0|0', "$name: it is given back, and not taken for lost");
	answers();
	relay('given');
	$relays->until_done('given', 'another one goes on');
	$relays->all_arrived($after, accepted(path => '/given'));
}

# A relay to the path of that name.
sub relay
{
	my ($subscription, @more) = @_;
	return $relays->start($subscription, '--url', "http://127.0.0.1:$port/$subscription", @more);
}

# The receiver.
sub listens
{
	$receiver = IPC::Run::start([ $^X, "$ENV{TESTDIR}/test/include/receiver.pl", $port, $directory ], '<', \undef);
}

sub deaf
{
	$receiver->signal('KILL');
	eval { $receiver->finish };
}

# What it shall answer.
sub answers
{
	append_to_file("$directory/new", join '', map { "$_\n" } @_);
	rename "$directory/new", "$directory/answers" or die "answers: $!";
}

# The requests so far that have these values.
sub requests
{
	my (%with) = @_;
	my @fields = qw(at path status key attempt event authorization body);
	return if !-e "$directory/requests";
	my @requests;
	foreach my $line (split /\n/, slurp_file("$directory/requests"))
	{
		my %request;
		@request{@fields} = split /\t/, $line, -1;
		push @requests, \%request if !grep { $request{$_} ne $with{$_} } keys %with;
	}
	return @requests;
}

sub accepted
{
	return map { [ @$_{qw(key body)} ] } requests(@_, status => 200);
}

# How many came in vain.
sub doubles
{
	my @keys = map { "$_->{path} $_->{key}" } requests(status => 200);
	return @keys - unique(@keys);
}

sub unique
{
	my %seen;
	return grep { !$seen{$_}++ } @_;
}
