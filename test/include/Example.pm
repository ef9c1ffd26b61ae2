
# One of the examples in a database of its own, and the programs beside it, as processes
# that can be killed.
#
#	my $bank = Example->new('bank_account');
#	my $mailer = $bank->starts([ 'python3', 'bank_account.py', 'mails' ], SMTP => '127.0.0.1:25');
#	$bank->until_done('mails');
#	ended($mailer, 'KILL');

package Example;

use strict;
use warnings FATAL => 'all';
use Exporter qw(import);
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(started ended until_true);

# All that was started, so that nothing is left of a test that dies.
my @processes;
END { local $?; $_->signal('KILL') foreach grep { $_->pumpable } @processes }

# Its server, where the example has been played.
sub new
{
	my ($class, $name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init;
	$node->start;
	$node->safe_psql('postgres', qq(CREATE DATABASE "$name"));
	$node->command_ok(
		[ 'psql', '-X', '-q', '-o', '/dev/null', '-d', $node->connstr($name), '-f', "$ENV{TESTDIR}/examples/$name.sql" ],
		"examples/$name.sql");
	return bless { node => $node, name => $name, started => 0 }, $class;
}

sub sql
{
	my ($self, @statements) = @_;
	return $self->{node}->safe_psql($self->{name}, join(";\n", @statements));
}

sub until_sql
{
	my ($self, $query, $title) = @_;
	my $is_true = $self->{node}->poll_query_until($self->{name}, $query);
	ok($is_true, $title) || die 'what comes behind it waits for that';
	return;
}

# Until nothing is behind the position of the subscription, parked, or in hand. (What is
# blocked is done, as nobody does anything about it.)
sub until_done
{
	my ($self, $subscription, $title) = @_;
	$self->until_sql(qq{SELECT lag_events = 0 AND in_hand = 0 AND parked = blocked
		AND NOT EXISTS (SELECT FROM cqrs_es.subscription_dead_letters WHERE subscription = name AND state = 'redriven')
		FROM cqrs_es.subscription_status WHERE name = '$subscription'}, $title // "$subscription: all is done");
	return;
}

# A program of the examples, its output in a file.
sub starts
{
	my ($self, $command, %environment) = @_;
	my $node = $self->{node};
	my $file = sprintf '%s/%s.%d', PostgreSQL::Test::Utils::tempdir(), $self->{name}, ++$self->{started};
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGUSER => scalar getpwuid $>, PGDATABASE => $self->{name}, %environment);
	my @command = map { -e "$ENV{TESTDIR}/examples/$_" ? "$ENV{TESTDIR}/examples/$_" : $_ } @$command;
	return { file => $file, process => started(\@command, '<', \undef, '>', $file, '2>', "$file.err") };
}

# What IPC::Run::start() does.
sub started
{
	push @processes, IPC::Run::start(@_);
	return $processes[-1];
}

# Send the signal; returns the exit code.
sub ended
{
	my ($program, $signal) = @_;
	my $process = $program->{process};
	$process->signal($signal);
	eval { $process->finish };
	return $process->full_result(0) >> 8 || $process->full_result(0);
}

sub until_true
{
	my ($condition, $title) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	do
	{
		return pass($title) if $condition->();
		sleep 0.05;
	} while (time < $deadline);
	fail($title);
	die 'what comes behind it waits for that';
}

1;
