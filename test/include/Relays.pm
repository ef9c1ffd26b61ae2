# What tests of examples/relay.* share: a database for one of the two programs, its
# subscriptions and events, and the relays that were started.

package Relays;

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;

my ($started, %running) = (0);

# None is left when a test dies.
END { $_->{process}->kill_kill foreach values %running }

# Of this name, with this interpreter and program. NODE_PATH is that of the time of
# the call.
sub new
{
	my ($class, $node, $name, @command) = @_;
	my $self = bless { node => $node, name => $name, command => \@command, node_path => $ENV{NODE_PATH} }, $class;
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$self->sql('CREATE EXTENSION cqrs_es', q{CREATE ROLE relay LOGIN}, q{GRANT USAGE ON SCHEMA cqrs_es TO relay},
		q{GRANT SELECT ON cqrs_es.events TO relay});
	return $self;
}

# SIGTERM ends all that still run, with nothing in hand.
sub finish
{
	my ($self) = @_;
	my @relays = values %running;
	$_->{process}->signal('TERM') foreach @relays;
	is($self->ended($_), 0, "$self->{name}: SIGTERM ends it") foreach @relays;
	is($self->sql('SELECT count(*) FROM cqrs_es.shares WHERE batch IS NOT NULL'), 0, "$self->{name}: nothing is in hand");
	$self->{node}->safe_psql('postgres', "DROP DATABASE $self->{name}");
	$self->{node}->safe_psql('postgres', 'DROP ROLE relay');
}

sub sql
{
	my ($self, @statements) = @_;
	return $self->{node}->safe_psql($self->{name}, join(";\n", @statements));
}

sub until_sql
{
	my ($self, $query, $title) = @_;
	ok($self->{node}->poll_query_until($self->{name}, $query), "$self->{name}: $title");
}

# A subscription that begins with what happens from now on.
sub subscription
{
	my ($self, $subscription, %options) = (shift, shift, lease => '7 s', max_attempts => 1000, retry_delay => '50 ms', retry_delay_max => '500 ms', @_);
	$self->sql(qq{SELECT cqrs_es.create_subscription('$subscription', start_at_end => true, consumer_role => 'relay', }
		  . join(', ', map { "$_ => '$options{$_}'" } sort keys %options) . ')');
}

# Their relays have nothing more to do.
sub pause
{
	my ($self, @subscriptions) = @_;
	$self->sql(map { "SELECT cqrs_es.pause_subscription('$_')" } @subscriptions);
}

# Append so many events to each of the streams, with a number that no double holds.
sub happens
{
	my ($self, $count, @streams) = @_;
	$self->sql(qq{SELECT cqrs_es.append_events('order', s, (SELECT jsonb_agg('{"type": "Happened", "payload": {"n": 12345678901234567890.123456789}}'::jsonb)
		FROM generate_series(1, $count))) FROM unnest(string_to_array('@streams', ' ')) AS s});
}

sub until_done
{
	my ($self, $subscription, $title) = @_;
	$self->until_sql(qq{SELECT NOT EXISTS (SELECT FROM cqrs_es.shares WHERE subscription = '$subscription' AND (batch IS NOT NULL OR position < cqrs_es.last_position()))
		AND NOT EXISTS (SELECT FROM cqrs_es.parked_streams WHERE subscription = '$subscription')}, $title);
}

# A relay with these arguments; the last may be settings of its environment.
sub start
{
	my ($self, $subscription, @arguments) = @_;
	my %environment = ref $arguments[-1] ? %{ pop @arguments } : ();
	my ($node, $file) = ($self->{node}, sprintf '%s/relay.%d', PostgreSQL::Test::Utils::tempdir(), ++$started);
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => $self->{name}, PGUSER => 'relay', NODE_PATH => $self->{node_path}, %environment);
	my $process = IPC::Run::start([ @{ $self->{command} }, '--subscription', $subscription, '--timeout', 3, @arguments ], '<', \undef, '>', $file, '2>&1');
	return $running{$started} = { number => $started, file => $file, process => $process, pid => $process->{KIDS}[0]{PID} };
}

# Send the signal, if any; returns the exit code.
sub ended
{
	my ($self, $relay, $signal) = @_;
	my $process = $relay->{process};
	delete $running{ $relay->{number} } or return;
	$process->signal($signal) if $signal;
	eval { $process->finish };
	diag("$self->{name}: " . slurp_file($relay->{file})) if ($signal // '') ne 'KILL' && -s $relay->{file};
	return $process->full_result(0) >> 8 || $process->full_result(0);
}

# Wait until one of these relays has something in hand, and return it; while more happens to
# the streams, for others may have taken what was there.  (Which one that is, is not known
# before: all the streams may lie in the shares of some.)
sub until_busy
{
	my ($self, $subscription, $relays, @streams) = @_;
	my $busy;
	$self->until_true('one has something in hand', sub {
		$self->happens(1, @streams) if @streams;
		my %in_hand = map { $_ => 1 } split /\n/,
			$self->sql(qq{SELECT split_part(consumer, ':', 2) FROM cqrs_es.shares WHERE subscription = '$subscription' AND batch IS NOT NULL});
		($busy) = grep { $in_hand{ $_->{pid} } } @$relays;
		return defined $busy;
	});
	return $busy;
}

# Wait until a function returns true.
sub until_true
{
	my ($self, $title, $condition) = @_;
	foreach my $try (1 .. 20 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return pass("$self->{name}: $title") if $condition->();
		select(undef, undef, undef, 0.05);
	}
	fail("$self->{name}: $title");
	diag(map { slurp_file($_->{file}) } values %running);
}

# What must hold of all that has arrived since that position, as [event_id, JSON]: all of
# it, each stream in order (at the first arrival of each), and doubles that are just the same.
sub all_arrived
{
	my ($self, $after, @arrivals) = @_;
	my $name = $self->{name};
	my (%bodies, %last, @other, @disorder);
	foreach my $arrival (@arrivals)
	{
		my ($key, $body) = @$arrival;
		push @other, $body if ($bodies{$key} //= $body) ne $body;
	}
	my %seen;
	foreach my $arrival (grep { !$seen{ $_->[0] }++ } @arrivals)
	{
		my $event = JSON::PP::decode_json($arrival->[1]);
		push @other, "$arrival->[0] $arrival->[1]" if $event->{event_id} ne $arrival->[0];
		my $due = ($last{ $event->{aggregate_id} } //= $event->{sequence} - 1) + 1;
		push @disorder, "$event->{aggregate_id}: $event->{sequence} for $due" if $event->{sequence} != $due;
		$last{ $event->{aggregate_id} } = $event->{sequence};
	}
	my %log = map { $_ => 1 } split /\n/, $self->sql("SELECT event_id FROM cqrs_es.events WHERE global_position > $after");
	is(join(' ', grep { !$bodies{$_} } sort keys %log), '', "$name: every event has arrived");
	is(join(' ', grep { !$log{$_} } sort keys %bodies), '', "$name: and no other");
	is(join(', ', @disorder), '', "$name: each stream in order");
	is(join(', ', @other), '', "$name: an id is always the same event");
	note(sprintf '%s: %d arrivals of %d events', $name, scalar(@arrivals), scalar(keys %bodies));
}

sub position
{
	my ($self) = @_;
	return $self->sql('SELECT coalesce(cqrs_es.last_position(), 0)');
}

1;
