# Random sequences of what writers, consumers and administrators do to a
# subscription, against an oracle of what it promises
# (test/include/SubscriptionModel.pm says what). Consumers die at every statement.
#
# CQRS_ES_MODEL_SEQUENCES: how many (600); CQRS_ES_MODEL_SEED: which (printed);
# CQRS_ES_MODEL_LENGTH: operations at most; CQRS_ES_MODEL_PROCESSES: how many play (2); CQRS_ES_MODEL_REPLAY: a file with one
# sequence, as it is printed when one fails, after it has been made as short as
# possible.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Session;
use SubscriptionModel;

use constant SHOWN => 3;		# failing sequences are shown of each process

my $sequences = $ENV{CQRS_ES_MODEL_SEQUENCES} || 600;
my $seed = $ENV{CQRS_ES_MODEL_SEED} || 20261126;
my $length = $ENV{CQRS_ES_MODEL_LENGTH} || 24;
my $replay = $ENV{CQRS_ES_MODEL_REPLAY};
my $processes = $ENV{CQRS_ES_MODEL_PROCESSES} || 2;

my $node = PostgreSQL::Test::Cluster->new('model');
$node->init;
$node->append_conf('postgresql.conf', "log_statement = none\nlog_min_messages = panic\nautovacuum_naptime = 5s");
$node->start;
foreach my $number (0 .. $processes - 1)
{
	$node->safe_psql('postgres', "CREATE DATABASE model$number");
	$node->safe_psql("model$number", SubscriptionModel::setup());
}

sub model
{
	my ($number) = @_;
	return SubscriptionModel->new(sub { Session->new($node->host, $node->port, scalar getpwuid($>), "model$number") });
}

# --- sequences

sub one_of { return $_[ int rand @_ ] }
sub consumer { return 'c' . int rand SubscriptionModel::CONSUMERS }
sub writer { return 'w' . (rand() < 0.7 ? 0 : 1) }
sub stream { return int rand SubscriptionModel::STREAMS }
sub any { return int rand 100 }
sub types { return join '', map { one_of(qw(e e e e f f g x)) } 1 .. 1 + int rand 3 }
sub chance { return rand() < $_[0] ? 1 : 0 }

# How often, and what: an operation, or some that belong together.
my @kinds = (
	[ 22 => sub { 'append ' . writer() . ' ' . stream() . ' ' . types() } ],
	[ 2 => sub { 'begin_writer ' . writer() } ],
	[ 4 => sub { 'end_writer ' . writer() . ' ' . one_of(qw(COMMIT COMMIT ROLLBACK)) } ],
	[ 2 => sub { 'gap ' . writer() . ' ' . stream() } ],
	[ 22 => sub { 'receive ' . consumer() . ' ' . one_of(1, 1, 2, 3, 5, 100) . ' ' . chance(0.1) } ],
	[ 1 => sub { 'receive ' . consumer() . ' 3 ' . chance(0.5) . ' ' . consumer() } ],
	[ 5 => sub { 'receive_ack ' . consumer() . ' ' . one_of(1, 2, 5) } ],
	[ 12 => sub { 'ack ' . consumer() . ' 0' } ],
	[ 2 => sub { 'ack ' . consumer() . ' ' . any() } ],
	[ 8 => sub { nack(consumer()) } ],
	[ 1 => sub { nack(consumer()) . ' ' . any() } ],
	[ 2 => sub { 'nack_wrong ' . consumer() . ' ' . any() } ],
	[ 1 => sub { 'extend ' . consumer() . ' ' . one_of(0, 0, any()) } ],
	[ 2 => sub { 'release ' . consumer() . ' ' . one_of(0, 0, 0, any()) } ],
	[ 2 => sub { 'begin ' . consumer() } ],
	[ 4 => sub { 'end ' . consumer() . ' ' . one_of(qw(COMMIT ROLLBACK)) } ],
	[ 1 => sub { 'savepoint ' . consumer() } ],
	[ 1 => sub { 'back ' . consumer() } ],
	[ 1 => sub { 'die ' . consumer() } ],
	[ 5 => sub { 'expire ' . consumer() } ],
	[ 6 => sub { 'age' } ],
	[ 2 => sub { 'unseen ' . consumer() } ],
	[ 1 => sub { 'pause' } ],
	[ 2 => sub { 'resume' } ],
	[ 1 => sub { 'alter ' . int rand @SubscriptionModel::FILTERS } ],
	[ 1 => sub { 'reset ' . any() } ],
	[ 1 => sub { 'sick' } ],
	[ 1 => sub { 'well' } ],
	[ 2 => sub { 'redrive ' . one_of(0, any()) } ],
	[ 2 => sub { 'discard ' . any() } ],
	[ 8 => \&once ],
	[ 6 => \&failing ],
	[ 2 => \&dying ],
	[ 2 => \&given_up ],
	[ 2 => \&sickness ],
	[ 5 => \&scattered ],
	[ 3 => \&meddled ]);
my $weight = 0;
$weight += $_->[0] foreach @kinds;

sub nack
{
	my ($who) = @_;
	return "nack $who " . any() . ' ' . chance(0.15) . ' ' . chance(0.3);
}

# Exactly once: the work in the transaction of the acknowledgement, an event that
# fails taken back alone. The consumer may die at each of the statements.
sub once
{
	my $who = consumer();
	my @all = ("receive $who " . one_of(1, 2, 3, 5, 10) . ' 0', "begin $who", "extend $who 0", "savepoint $who");
	push @all, "back $who", nack($who) if chance(0.4);
	push @all, nack($who) if chance(0.2);
	push @all, "ack $who 0", "end $who COMMIT";
	return @all if chance(0.6);
	splice @all, 1 + int rand($#all);
	return (@all, one_of("die $who", "end $who ROLLBACK"), chance(0.7) ? "expire $who" : ());
}

# What fails again and again.
sub failing
{
	my $who = consumer();
	return map { ("receive $who " . one_of(1, 2, 5) . ' 0', nack($who), chance(0.15) ? "expire $who" : "ack $who 0", 'age') } 1 .. 1 + int rand 3;
}

# What consumers die of.
sub dying
{
	my $who = consumer();
	return map { ("receive $who " . one_of(1, 4) . ' 0', "expire $who") } 1 .. 2 + int rand 6;
}

# What is given up, and handed out again.
sub given_up
{
	my $who = consumer();
	return ("receive $who " . one_of(1, 2, 5) . ' 0', "nack $who " . any() . ' 1 0', "ack $who 0", 'redrive ' . one_of(0, any()),
		"receive $who 3 0", chance(0.5) ? nack($who) : (), one_of("ack $who 0", "expire $who", "release $who 0"));
}

# Shares at different positions, and then fewer consumers.
sub scattered
{
	my ($one, $other) = map { "c$_" } (0, 1, 2, 0)[ map { $_, $_ + 1 } int rand 3 ];
	return ((map { 'append w0 ' . $_ . ' ' . one_of(qw(e ee)) } 0 .. SubscriptionModel::STREAMS - 1),
		(map { ("receive $one " . one_of(1, 2, 5) . ' 0', "receive $other " . one_of(1, 2, 5) . ' 0', chance(0.3) ? nack($one) : (), "ack $one 0", chance(0.7) ? "ack $other 0" : ()) }
			1 .. 1 + int rand 2),
		chance(0.8) ? "unseen $other" : (), map { ("receive $one 1 0", "ack $one 0") } 1 .. 3);
}

# Somebody decides in the middle of a transaction of a consumer, who may have to wait.
sub meddled
{
	my $who = consumer();
	return ("receive $who 3 0", "begin $who", one_of("extend $who 0", nack($who), "ack $who 0", "receive $who 2 0"),
		one_of('reset ' . any(), 'alter ' . int rand @SubscriptionModel::FILTERS, 'redrive 0', 'discard 0', 'pause'),
		chance(0.5) ? "ack $who 0" : (), "end $who " . one_of(qw(COMMIT COMMIT ROLLBACK)), 'resume');
}

# What cannot be lifted, for a while.
sub sickness
{
	return ('append w0 ' . stream() . ' ' . one_of(qw(x ex xe exe)), 'sick',
		(map { ('receive ' . consumer() . ' ' . one_of(1, 2, 5) . ' 0', 'age', chance(0.3) ? 'ack ' . consumer() . ' 0' : ()) } 1 .. 1 + int rand 5),
		chance(0.6) ? 'well' : ());
}

# Nothing works for long: what comes is skipped, until nothing is tried for a while.
sub outage
{
	my $who = consumer();
	my @fail = ((map { "nack $who $_ 0 1" } 0 .. SubscriptionModel::STREAMS - 1), "ack $who 0", 'age');
	return map { ((map { "append w0 $_ e" } 0 .. SubscriptionModel::STREAMS - 1), map { ("receive $who 100 0", @fail) } 1 .. 2) } 1 .. 7 + int rand 6;
}

# Sequence number $number of this seed.
sub sequence
{
	my ($number) = @_;

	srand $seed * 1_000_003 + $number;
	my $ordering = one_of(qw(stream stream stream stream log));
	my $outage = $ordering eq 'stream' && chance(0.02);
	my $on_failure = $outage ? 'skip' : $ordering eq 'log' ? 'stop' : one_of(qw(block block skip skip stop));
	my @all = ("options ordering=$ordering on_failure=$on_failure filter=" . (chance(0.5) ? 0 : int rand @SubscriptionModel::FILTERS)
		. ' max_attempts=' . ($outage ? 1 : one_of(1, 2, 2, 3, 4)) . ' slots=' . join(',', map { int rand 256 } 1 .. SubscriptionModel::STREAMS) . ' end=' . join(',', map { one_of(qw(redrive discard)) } 1 .. 4));
	my $operations = 6 + int rand($length - 5);
	push @all, 'append w0 ' . stream() . ' ' . types() for 1 .. 1 + int rand 3;
	push @all, outage() if $outage;
	while (@all < $operations)
	{
		my $at = rand $weight;
		my $kind;
		foreach (@kinds) { $kind = $_; last if ($at -= $_->[0]) < 0 }
		push @all, $kind->[1]->();
	}
	return @all;
}

# --- playing

# What was broken, or nothing.
sub fails
{
	my ($model, @operations) = @_;
	return eval { $model->play(\@operations); 1 } ? '' : $@;
}

# Leave out what is not needed for it to fail with the same kind of message.
sub shrink
{
	my ($model, $failure, @operations) = @_;
	my $kind = sub { my ($text) = @_; $text =~ s/ at: .*//s; $text =~ s/\d+|[0-9a-f]{8}-\S+//g; substr $text, 0, 40 };
	my $wanted = $kind->($failure);
	my $tries = 0;
	my $size = int(@operations / 2);

	while ($size > 0)
	{
		my $smaller = 0;
		for (my $at = @operations - $size; $at >= 1; $at -= $size)
		{
			next if $at + $size > @operations;
			my @less = (@operations[ 0 .. $at - 1 ], @operations[ $at + $size .. $#operations ]);
			return @operations if ++$tries > 400;
			next if $kind->(fails($model, @less)) ne $wanted;
			@operations = @less;
			$smaller = 1;
		}
		$size = $smaller && $size == 1 ? 1 : int($size / 2);
	}
	return @operations;
}

sub report
{
	my ($model, $number, $failure, @operations) = @_;

	my @short = shrink($model, $failure, @operations);
	my $again = fails($model, @short) || "(not the second time) $failure";
	return join "\n", "sequence $number of seed $seed: $again", @short, "", 'what was asked and answered:', @{ $model->{trace} }, '', '';
}

if ($replay)
{
	my @operations = grep { length } split /\n/, slurp_file($replay);
	my $model = model(0);
	is(fails($model, @operations), '', "the sequence of $replay");
	diag(join "\n", @{ $model->{trace} });
	$node->stop;
	done_testing();
	exit;
}

# Each process plays every so many-th, in a database of its own.
my @processes;
foreach my $number (0 .. $processes - 1)
{
	my $file = "$PostgreSQL::Test::Utils::tmp_check/model$number";
	my $pid = fork // die "could not fork: $!";
	if (!$pid)
	{
		my $text = '';
		my ($failed, $played) = (0, 0);
		my $model = eval { model($number) };
		$text = "could not begin: $@" if !$model;
		for (my $at = $number; $model && $at < $sequences && $failed < SHOWN; $at += $processes)
		{
			my @operations = sequence($at);
			my $failure = fails($model, @operations);
			$played++;
			next if !$failure;
			$failed++;
			$text .= report($model, $at, $failure, @operations);
		}
		append_to_file($file, join "\n", "played $played", (map { "$_=$model->{seen}{$_}" } sort keys %{ $model->{seen} }), "failures:", $text);
		require POSIX;
		POSIX::_exit(0);
	}
	push @processes, [ $pid, $file ];
}
my (%seen, $failures, $played);
foreach (@processes)
{
	my ($pid, $file) = @$_;
	waitpid $pid, 0;
	my ($head, $text) = split /^failures:\n?/m, slurp_file($file), 2;
	$played += $1 if $head =~ /^played (\d+)/;
	$seen{$1} += $2 while $head =~ /^(.+)=(\d+)$/mg;
	$failures .= $text // '';
}
is($failures, '', "seed $seed: what was promised held in each sequence");
is($played, $sequences, 'all sequences were played');
note(join ', ', map { "$_ $seen{$_}" } sort keys %seen);

# A check that meets nothing would prove nothing.
my @wanted = ('handed_out', 'acknowledged', 'lost', 'nothing', 'several_shares', 'merged', 'ready', 'not ready', 'redriven', 'given up', 'never lifted', 'stopped',
	'QE401', '22023', '55P03', (map { "nack: $_" } qw(retry blocked skipped stopped halted)),
	(map { "letter: $_" } qw(blocked skipped redriven delivered discarded)));
SKIP:
{
	skip 'too few for some to happen', 1 if $sequences < 500;
	is(join(', ', grep { !$seen{$_} } @wanted), '', 'each kind of thing happened');
}

$node->stop;
done_testing();
