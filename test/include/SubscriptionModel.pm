
# What a subscription promises, as an oracle: plays a sequence of operations of
# writers, consumers and administrators on a subscription of its own, and dies
# with what was broken as soon as something is.
#
#	my $model = SubscriptionModel->new(sub { Session->new(...) });
#	$model->play(\@operations);	# the first one its options
#	$model->{trace}				# what was asked and answered
#	$model->{seen}				# how often what happened
#
# The oracle knows each event: whether it is committed, passes the filter, and is
# done. It says:
#
# - of what is handed out: that it is committed, passes the filter, is in no other
#   valid batch and not done; that nothing undone of its stream (of the log, where
#   that is the order) is before it; that it is neither blocked nor to be retried
#   later; that the number of the attempt can be right.
# - of each call: that a token works once, only while it is valid, and always then;
#   what nack_event answers, and how many events ack_events has done.
# - of the tables, whenever no transaction is open: that each slot is in one share,
#   and that up to the position of a share all is done, parked at its first undone
#   event, or a dead letter for a reason; that no position is past an event in
#   flight; that what can be handed out is.
# - at the end, when healthy consumers have had everything: that every event is
#   done or a dead letter, and that what was written in the transaction of the
#   acknowledgement is there once for each event that is done.
#
# Events of type x are lifted by an upcaster, which fails while the table sick has a
# row: then they must not be handed out, nor what is behind them, and what becomes of
# them is not known beforehand.
#
# Consumers write to the table effects in the transaction in which they
# acknowledge; time passes by making rows of the tables old. Each operation can
# be played whatever was before it, so that what is left of a failing sequence
# when some are taken out is a sequence, too.

package SubscriptionModel;

use strict;
use warnings FATAL => 'all';

use constant CONSUMERS => 3;
use constant WRITERS => 2;
use constant STREAMS => 3;
use constant UNKNOWN => 1000;	# failures of an event that the server could not lift
use constant NEVER => '1 day';	# until a retry: it is due when the rows are made old

our @FILTERS = (
	[ undef, undef ],
	[ undef, [qw(e f)] ],
	[ undef, [qw(e)] ],
	[ [qw(a)], undef ],
	[ [qw(a b)], [qw(e g)] ]);

sub new
{
	my ($class, $connect) = @_;
	my $self = bless { connect => $connect, seen => {}, played => 0 }, $class;

	$self->open_session($_) for 'admin', map({ "w$_" } 0 .. WRITERS - 1), map({ "c$_" } 0 .. CONSUMERS - 1);
	$self->{tenant} = $self->{session}{admin}->value('SELECT cqrs_es.current_tenant()');
	$self->{run} = $self->{session}{admin}->value(q{SELECT to_char(clock_timestamp(), 'HH24MISSMS')});
	return $self;
}

# Tables that a database of the model needs beside the extension.
sub setup
{
	return q{
		SET client_min_messages = warning;
		CREATE EXTENSION IF NOT EXISTS cqrs_es;
		CREATE TABLE effects (subscription text, position bigint);
		CREATE INDEX ON effects (subscription);
		ALTER TABLE effects SET (autovacuum_enabled = off);
		-- vacuum would shorten them, where so many subscriptions come and go, and lock them for that
		ALTER TABLE cqrs_es.subscriptions SET (vacuum_truncate = off);
		ALTER TABLE cqrs_es.dead_letters SET (vacuum_truncate = off);
		CREATE TABLE sick ();
		CREATE FUNCTION lift(payload jsonb) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS $$
		BEGIN
			IF EXISTS (SELECT FROM sick) THEN
				RAISE EXCEPTION 'it cannot be lifted';
			END IF;
			RETURN payload;
		END $$;
		SELECT cqrs_es.define_upcaster('x', '1', '2', 'lift(jsonb)')};
}

sub open_session
{
	my ($self, $who) = @_;
	my $session = $self->{connect}->() or die 'could not connect';

	$session->ask("SET lock_timeout = '30ms'; SET statement_timeout = '20s'; SET client_min_messages = warning");
	$session->ask($_) foreach looks();
	$session->{pid} = $session->value('SELECT pg_backend_pid()');
	$session->{who} = $who;
	$self->{session}{$who} = $session;
	return;
}

# What is asked again and again, and would take longer to plan than to do.
sub looks
{
	return (
		'PREPARE letters(text) AS SELECT id, state, global_position, error, attempts FROM cqrs_es.dead_letters WHERE subscription = $1 ORDER BY id',
		'PREPARE state(text) AS SELECT paused, stopped_error, (SELECT coalesce(max(circuit), 0) FROM cqrs_es.shares WHERE subscription = $1)'
		  . ' FROM cqrs_es.subscriptions WHERE name = $1',
		'PREPARE shares(text) AS SELECT share, slots, position, batch, coalesce(leased_until < clock_timestamp(), false), coalesce(retry_at > clock_timestamp(), false)'
		  . ' FROM cqrs_es.shares WHERE subscription = $1 ORDER BY share',
		'PREPARE parked(text) AS SELECT aggregate_id, slot, sequence, retry_at <= clock_timestamp(), batch, global_position'
		  . ' FROM cqrs_es.parked_streams WHERE subscription = $1');
}

sub violated
{
	my ($self, $what) = @_;
	die "violated: $what\n";
}

# --- what is known, and how it is taken back when a transaction is

# Set a value in what is known; undone when the transaction of $session is.
sub set
{
	my ($self, $session, $of, $key, $value) = @_;

	push @{ $session->{undo} }, [ $of, $key, $of->{$key} ] if $session->{transaction} eq 'T';
	$of->{$key} = $value;
	return;
}

sub undo_to
{
	my ($self, $session, $mark) = @_;

	while (@{ $session->{undo} // [] } > $mark)
	{
		my ($of, $key, $value) = @{ pop @{ $session->{undo} } };
		$of->{$key} = $value;
	}
	return;
}

sub begun
{
	my ($self, $session) = @_;
	@$session{qw(undo savepoints touched)} = ([], [], 0);
	$session->{number}++;
	return;
}

sub batches
{
	my ($self) = @_;
	return grep { $_ } values %{ $self->{batches} };	# none where the transaction was taken back
}

sub others_in_transaction
{
	my ($self, $but) = @_;
	return grep { $_->{transaction} ne 'I' && (!$but || $_ != $but) } $self->consumers;
}

sub consumers
{
	my ($self) = @_;
	return map { $self->{session}{"c$_"} } 0 .. CONSUMERS - 1;
}

# --- talking

sub note
{
	my ($self, $text) = @_;
	push @{ $self->{trace} }, $text;
	return;
}

# Ask; a refusal is in {state}. After it a transaction goes on from its savepoint,
# or is over.
sub call
{
	my ($self, $session, $query) = @_;

	# as it is before a refusal takes the transaction back
	$self->{valid_when_asked} = { map { ($_->{token} => $_->{valid}) } $self->batches };
	$session->{was_in_transaction} = $session->{transaction} ne 'I';
	my @results = $session->try($query);
	$self->note(sprintf "   %s: %s -- %s", $session->{who}, $query =~ s/; EXECUTE letters.*//sr,
		$session->{state} ? "$session->{state} $session->{message}" : join ' ; ', map { rows_text($_) } @results);
	if ($session->{state})
	{
		my ($state, $message) = @$session{qw(state message)};
		if ($session->{transaction} eq 'E')
		{
			if (@{ $session->{savepoints} }) { $self->back_to_savepoint($session) }
			else { $self->end_transaction($session, 'ROLLBACK') }
		}
		@$session{qw(state message)} = ($state, $message);
		$self->violated("$state $message, which nothing explains") if $state !~ /^(QE401|QE402|22023|55P03|55000)$/;
		$self->{seen}{$state}++;
	}
	return @results;
}

sub rows_text
{
	my ($rows) = @_;
	return join ' ', map { '(' . join(',', map { defined $_ ? /^[01]{256}$/ ? slots_text($_) : $_ : '' } @$_) . ')' } @$rows;
}

sub slots_text
{
	my ($slots) = @_;
	return ($slots =~ tr/1//) . ' slots';
}

sub end_transaction
{
	my ($self, $session, $how) = @_;

	my @results = $session->try($how);
	$self->note("   $session->{who}: $how" . ($session->{state} ? " -- $session->{state} $session->{message}" : ''));
	$self->violated("$session->{state} $session->{message} at $how") if $session->{state};
	$self->undo_to($session, 0) if $how eq 'ROLLBACK';
	$self->begun($session);
	return;
}

sub back_to_savepoint
{
	my ($self, $session) = @_;
	my $mark = $session->{savepoints}[-1];

	$session->try('ROLLBACK TO SAVEPOINT s');
	$self->note("   $session->{who}: ROLLBACK TO SAVEPOINT s");
	$self->undo_to($session, $mark);
	return;
}

# The letters, and the state, as the session sees them: asked in one message with
# what has changed them.
sub look_query
{
	my ($self) = @_;
	return "; EXECUTE letters('$self->{name}'); EXECUTE state('$self->{name}')";
}

# --- events

sub passes
{
	my ($self, $event) = @_;
	my ($types, $event_types) = @{ $FILTERS[ $self->{filter} ] };
	return (!$types || grep { $_ eq $event->{stream}{type} } @$types)
	  && (!$event_types || grep { $_ eq $event->{type} } @$event_types) ? 1 : 0;
}

# It has still to be done.
sub required
{
	my ($self, $event) = @_;
	return $event->{committed} && $event->{state} eq 'undone' && !$event->{optional} && $self->passes($event) ? 1 : 0;
}

my @crc32c = map { my $c = $_; $c = $c & 1 ? 0x82F63B78 ^ $c >> 1 : $c >> 1 for 1 .. 8; $c } 0 .. 255;

# CRC-32C over some more bytes.
sub crc_over
{
	my ($crc, $text) = @_;

	$crc = $crc32c[ ($crc ^ $_) & 255 ] ^ $crc >> 8 foreach unpack 'C*', $text;
	return $crc;
}

# An id that begins so, of a stream that has this slot. What four more digits do to
# a checksum is the same whatever it was: crc(c, digits) = crc(c, zeros) ^ crc(0, digits).
my %digits;
sub id_with_slot
{
	my ($tenant, $type, $begin, $slot) = @_;
	my $crc = crc_over(0xFFFFFFFF, "$tenant\0$type\0$begin");

	if (!%digits) { $digits{ crc_over(0, $_) & 255 } //= $_ foreach '0000' .. '9999' }
	return $begin . $digits{ (crc_over($crc, "\0\0\0\0") ^ 0xFFFFFFFF ^ $slot) & 255 };
}

# --- playing

sub play
{
	my ($self, $operations) = @_;
	my %options = map { split /=/ } grep { /=/ } split / /, $operations->[0];

	$self->{trace} = [];
	$self->{name} = "s$self->{run}-" . ++$self->{played};
	$self->{filter} = $options{filter};
	@{ $self->{options} }{qw(on_failure ordering max_attempts)} = @options{qw(on_failure ordering max_attempts)};
	@$self{qw(events at batches letters current streams paused stopped waiting noted_tokens effects_from)} = ([], {}, {}, {}, {}, [], 0, 0, 0, [], 0);
	foreach my $number (0 .. STREAMS - 1)
	{
		my $type = $number == STREAMS - 1 ? 'b' : 'a';
		my $slot = (split /,/, $options{slots})[$number];
		my $id = id_with_slot($self->{tenant}, $type, "$self->{name}-$number-", $slot);
		push @{ $self->{streams} }, { number => $number, type => $type, id => $id, slot => $slot };
	}
	my $admin = $self->{session}{admin};
	@$self{qw(checked stopped_in)} = (-1, []);
	$self->begun($_) foreach values %{ $self->{session} };
	my $start = $admin->value('SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM cqrs_es.events_global_position_seq');
	$self->{floor} = $start;
	$self->{for_nothing} = 0;
	my ($types, $event_types) = map { array_text($_) } @{ $FILTERS[ $self->{filter} ] };
	my $create = "SELECT cqrs_es.create_subscription('$self->{name}', aggregate_types => $types, event_types => $event_types, start_after => $start, "
		. "ordering => '$options{ordering}', on_failure => '$options{on_failure}', max_attempts => $options{max_attempts}, "
		. "retry_delay => '" . NEVER . "', retry_delay_max => '" . NEVER . "', lease => '1 hour')";
	$self->note("   $create");
	$admin->ask($create);
	my $failure;
	my $at;
	eval {
		foreach my $operation (@$operations[ 1 .. $#$operations ])
		{
			$at = $operation;
			$self->operate($operation);
		}
		$at = 'the end';
		$self->drain(split /,/, $options{end} // '');
		1;
	} or $failure = $@;
	$self->clean_up;
	die "$failure at: $at\n" if $failure;
	return;
}

sub array_text
{
	my ($list) = @_;
	return $list ? "'{" . join(',', @$list) . "}'" : 'NULL';
}

sub operate
{
	my ($self, $operation) = @_;
	my ($what, @arguments) = split / /, $operation;

	$self->note($operation);
	$self->{seen}{$what}++;
	my $method = "op_$what";
	$self->$method(@arguments);
	# an operation that there was nothing to do for has left them as they were checked
	return if $self->others_in_transaction || $Session::asked == $self->{checked};
	$self->check_tables;
	$self->{checked} = $Session::asked;
	return;
}

sub clean_up
{
	my ($self) = @_;

	foreach my $session (values %{ $self->{session} })
	{
		$session->try('ROLLBACK') if $session->{transaction} ne 'I';
		$self->open_session($session->{who}) if !$session->{socket};
		@$session{qw(undo savepoints held draws)} = ([], [], [], 0);
	}
	my $admin = $self->{session}{admin};
	$admin->ask("SELECT cqrs_es.drop_subscription('$self->{name}', true); DELETE FROM effects WHERE subscription = '$self->{name}'"
		. ($self->{sick} ? '; DELETE FROM sick' : ''));
	$self->{sick} = 0;
	return;
}

# --- writers

sub op_append
{
	my ($self, $writer, $number, $types) = @_;
	my $session = $self->{session}{$writer};
	my $stream = $self->{streams}[$number];

	return if $self->stream_is_held($session, $stream);
	foreach my $type (split //, $types)
	{
		my @results = $self->call($session,
			"SELECT version, global_position FROM cqrs_es.append_event('$stream->{type}', '$stream->{id}', '$type', '{}', event_version => '1')");
		if ($session->{state})
		{
			$self->held_end($session, 'ROLLBACK') if $session->{transaction} eq 'I';
			return;
		}
		$session->{draws} = $session->{transaction} ne 'I';
		my ($sequence, $position) = @{ $results[0][0] };
		my $event = { stream => $stream, sequence => $sequence, position => $position, type => $type, state => 'undone',
			committed => $session->{transaction} eq 'I', fails => 0, noted => $self->{sick} && $type eq 'x' ? UNKNOWN : 0, losses => 0, alone => 0 };
		push @{ $self->{events} }, $event;
		$self->{at}{$position} = $event;
		push @{ $session->{held} }, $event if !$event->{committed};
	}
	return;
}

# Another transaction has appended to the stream: this one would wait.
sub stream_is_held
{
	my ($self, $session, $stream) = @_;
	return grep { $_->{stream} == $stream } map { @{ $_->{held} // [] } } grep { $_ != $session } values %{ $self->{session} };
}

# A position that was drawn and is never used.
sub op_gap
{
	my ($self, $writer, $number) = @_;
	my $session = $self->{session}{$writer};
	my $stream = $self->{streams}[$number];

	return if $self->stream_is_held($session, $stream);
	my $append = "SELECT FROM cqrs_es.append_event('$stream->{type}', '$stream->{id}', 'e', '{}')";
	$session->{draws} = $session->{transaction} ne 'I';
	$session->ask($session->{draws} ? "SAVEPOINT g; $append; ROLLBACK TO g; RELEASE g" : "BEGIN; $append; ROLLBACK");
	return;
}

sub op_begin_writer
{
	my ($self, $writer) = @_;
	$self->{session}{$writer}->try('BEGIN') if $self->{session}{$writer}{transaction} eq 'I';
	return;
}

sub op_end_writer
{
	my ($self, $writer, $how) = @_;
	my $session = $self->{session}{$writer};

	return if $session->{transaction} eq 'I';
	$session->ask($how);
	$self->held_end($session, $how);
	return;
}

# What the transaction of a writer has appended is there now, or never will be.
sub held_end
{
	my ($self, $session, $how) = @_;

	my %held = map { ($_->{position} => 1) } @{ $session->{held} };
	if ($how eq 'COMMIT') { $_->{committed} = 1 foreach @{ $session->{held} } }
	else
	{
		@{ $self->{events} } = grep { !$held{ $_->{position} } } @{ $self->{events} };
		delete @{ $self->{at} }{ keys %held };
	}
	$session->{held} = [];
	$session->{draws} = 0;
	return;
}

# --- consumers

sub op_begin
{
	my ($self, $consumer) = @_;
	my $session = $self->{session}{$consumer};

	return if $session->{transaction} ne 'I';
	$self->begun($session);
	$session->ask('BEGIN');
	return;
}

sub op_end
{
	my ($self, $consumer, $how) = @_;
	my $session = $self->{session}{$consumer};

	$self->end_transaction($session, $how) if $session->{transaction} ne 'I';
	return;
}

sub op_savepoint
{
	my ($self, $consumer) = @_;
	my $session = $self->{session}{$consumer};

	return if $session->{transaction} eq 'I';
	$session->ask('SAVEPOINT s');
	push @{ $session->{savepoints} }, scalar @{ $session->{undo} };
	return;
}

sub op_back
{
	my ($self, $consumer) = @_;
	my $session = $self->{session}{$consumer};

	$self->back_to_savepoint($session) if $session->{transaction} ne 'I' && @{ $session->{savepoints} };
	return;
}

# The connection is gone, and with it what the transaction did.
sub op_die
{
	my ($self, $consumer) = @_;
	my $session = $self->{session}{$consumer};

	$self->undo_to($session, 0);
	$session->close;
	my $admin = $self->{session}{admin};
	my $until = time + 20;
	while ($admin->value("SELECT count(*) FROM pg_stat_get_activity($session->{pid})"))
	{
		die 'a backend does not end' if time > $until;
		select undef, undef, undef, 0.001;
	}
	$self->open_session($consumer);
	return;
}

# Which batch is meant: the last one that the consumer got, or one before.
sub batch_of
{
	my ($self, $consumer, $back) = @_;

	return $self->{current}{$consumer} if !$back;
	my @all = @{ $self->{noted_tokens} };
	return @all ? $all[ -1 - $back % @all ] : undef;
}

# Does what is said of the token fit to what is known of it? True when the call
# has succeeded.
sub token_accepted
{
	my ($self, $session, $token) = @_;
	my $batch = $self->{batches}{$token};
	my $valid = $self->{valid_when_asked}{$token} // 0;
	my $state = $session->{state};

	if ($state eq '')
	{
		$self->violated("a token works that is no longer valid: $token") if !$valid;
		$self->set($session, $session, 'touched', 1);
		return 1;
	}
	return 0 if $state eq '55P03' && $self->others_in_transaction($session);
	$self->violated("$state $session->{message}, though nobody else is there") if $state eq '55P03';
	if ($state eq 'QE401')
	{
		$self->violated("QE401 for a batch whose lease goes on: $token") if $valid eq '1' && !$self->others_in_transaction($session);
		# Somebody took it over; who, was not to be seen. If it was this transaction, that is taken back.
		$self->lose($session, $batch)
		  if $batch && $valid eq 'maybe' && $batch->{valid} && !$session->{was_in_transaction} && !$self->others_in_transaction($session);
		return 0;
	}
	$self->violated("$state $session->{message}");
}

# The batch is somebody else's now, since its lease was over.
sub lose
{
	my ($self, $session, $batch) = @_;

	$self->{seen}{lost}++;
	$self->set($session, $batch, 'valid', 0);
	$self->set($session, $_, 'losses', $_->{losses} + 1) foreach map { $_->{event} } @{ $batch->{rows} };
	$self->set($session, $batch->{rows}[0]{event}, 'alone', $batch->{rows}[0]{event}{alone} + 1) if @{ $batch->{rows} } == 1;
	return;
}

# How often a batch of nothing but this event was lost, with those that may be by now.
sub losses_alone
{
	my ($self, $event) = @_;
	return $event->{alone} + grep { $_->{valid} eq 'maybe' && @{ $_->{rows} } == 1 && $_->{rows}[0]{event} == $event } $self->batches;
}

sub op_receive
{
	my ($self, $consumer, $max, $resume, $name) = @_;
	$self->receive($consumer, $max, $resume, $name // $consumer);
	return;
}

sub op_receive_ack
{
	my ($self, $consumer, $max) = @_;
	my $token = $self->batch_of($consumer, 0);
	$self->receive($consumer, $max, 0, $consumer, $token);
	return;
}

sub receive
{
	my ($self, $consumer, $max, $resume, $name, $ack) = @_;
	my $session = $self->{session}{$consumer};

	my $was = $session->{transaction};
	my $ready = $was eq 'I' && !$ack && !$resume && $max % 2 == 1 && !$self->others_in_transaction($session)
	  ? ($self->call($session, "CALL cqrs_es.wait_for_events('$self->{name}', timeout => '0 s')"))[0][0][0] : undef;
	my $batch = $ack && $self->{batches}{$ack};
	my $receive = "SELECT batch, attempt, redriven, global_position, sequence, aggregate_id FROM cqrs_es.receive_events('$self->{name}', '$name', $max, "
		. ($ack ? "'$ack'" : 'NULL') . ', ' . ($resume ? 'true' : 'false') . ')';
	my @results;
	if ($was eq 'I' && !$ack && $max % 2 == 0)
	{
		# a statement by itself
		@results = $self->call($session, $receive);
		push @results, $session->ask($self->look_query) if !$session->{state};
	}
	else { @results = $self->call($session, ($batch ? $self->effects_query($batch) : '') . $receive . $self->look_query) }
	if ($session->{state})
	{
		if ($ack) { $self->token_accepted($session, $ack) }
		else
		{
			$self->violated("receive_events: $session->{state} $session->{message}")
			  if $session->{state} ne '55P03' || !$self->others_in_transaction($session);
		}
		return;
	}
	$self->set($session, $session, 'touched', 1);
	my %final;
	if ($ack)
	{
		$self->token_accepted($session, $ack);
		%final = $self->acknowledge($session, $batch);
	}
	my ($rows, $letters, $state) = @results;
	$self->check_ready($consumer, $name, $ready, scalar @$rows) if defined $ready;
	if ($resume)
	{
		foreach ($self->batches)
		{
			$self->set($session, $_, 'valid', 'maybe') if $_->{valid} eq '1' && $_->{consumer} eq $name;
		}
	}
	$self->sync_letters($session, $letters, $state, %final);
	if (@$rows) { $self->handed_out($session, $consumer, $name, $max, $rows) }
	else
	{
		$self->{seen}{nothing}++;
		$self->check_nothing_there($consumer, $name)
		  if !$self->{paused} && $session->{transaction} eq 'I' && !$self->others_in_transaction($session);
	}
	return;
}

# wait_for_events() and receive_events() agree: else one sleeps over what there is, or
# comes back for nothing, again and again.
sub check_ready
{
	my ($self, $consumer, $name, $ready, $rows) = @_;

	$self->{seen}{ $ready eq 't' ? 'ready' : 'not ready' }++;
	$self->violated("wait_for_events would have slept, and there are $rows events") if $ready ne 't' && $rows;
	return if $ready ne 't' || $rows || $self->{sick};
	# Something was tried that is not handed out, such as what consumers die of.
	$self->{seen}{'ready for nothing'}++;
	return if ++$self->{for_nothing} < 10;
	$self->violated('wait_for_events is ready, and there is nothing, ten times');
}

sub handed_out
{
	my ($self, $session, $consumer, $name, $max, $rows) = @_;
	my $token = $rows->[0][0];

	$self->violated('handed out while paused') if $self->{paused};
	$self->violated(scalar(@$rows) . " events, where $max were asked for") if @$rows > $max;
	$self->violated("a token for the second time: $token") if grep { $_ eq $token } @{ $self->{noted_tokens} };
	my $batch = { token => $token, consumer => $name, rows => [], valid => '1', nacks => {} };
	foreach my $row (@$rows)
	{
		my ($its, $attempt, $redriven, $position, $sequence, $id) = @$row;
		my $event = $self->{at}{$position} or $self->violated("an event that there is not: $position");
		$self->violated('two tokens in one batch') if $its ne $token;
		$self->violated("event $position is $id $sequence") if $event->{stream}{id} ne $id || $event->{sequence} != $sequence;
		push @{ $batch->{rows} }, { event => $event, redriven => $redriven eq 't', attempt => $attempt };
	}

	# What was in hand in a lapsed batch is no longer.
	foreach my $other (grep { $_->{valid} eq 'maybe' } $self->batches)
	{
		$self->lose($session, $other) if $self->overlap($batch, $other);
	}
	$self->check_row($batch, $_) foreach @{ $batch->{rows} };
	$self->check_order($batch);

	$self->{seen}{handed_out} += @$rows;
	$self->{for_nothing} = 0;
	push @{ $self->{noted_tokens} }, $token;
	$self->set($session, $self->{batches}, $token, $batch);
	$self->set($session, $self->{current}, $consumer, $token);
	return;
}

# Do two batches have an event in common, or events of a stream that is delivered in order?
sub overlap
{
	my ($self, $one, $other) = @_;

	foreach my $row (@{ $one->{rows} })
	{
		foreach (@{ $other->{rows} })
		{
			return 1 if $_->{event} == $row->{event};
			return 1 if !$_->{redriven} && !$row->{redriven} && ($self->in_log_order || $_->{event}{stream} == $row->{event}{stream});
		}
	}
	return 0;
}

sub in_log_order
{
	my ($self) = @_;
	return $self->{options}{ordering} eq 'log';
}

sub check_row
{
	my ($self, $batch, $row) = @_;
	my $event = $row->{event};
	my $stream = $event->{stream};
	my $text = "$event->{position} (stream $stream->{number}, sequence $event->{sequence})";

	$self->violated("$text is not committed") if !$event->{committed};
	$self->violated("$text does not pass the filter") if !$self->passes($event);
	$self->violated("$text cannot be lifted, or what is before it") if $self->{sick} && ($event->{type} eq 'x' || !$row->{redriven} && $self->is_behind_sick($event));
	foreach my $other (grep { $_->{valid} } $self->batches)
	{
		$self->violated("$text is in hand of $other->{consumer}, or its stream is") if $self->overlap({ rows => [$row] }, $other);
	}
	if ($row->{redriven})
	{
		$self->{seen}{redriven}++;
		$self->violated("$text comes as redriven, and is $event->{state}") if $event->{state} ne 'redriven';
		$self->violated("$text is retried too early") if $event->{waiting};
	}
	else
	{
		$self->violated("$text is $event->{state}, and comes again") if $event->{state} ne 'undone';
		$self->violated("$text is behind a blocked event") if defined $stream->{blocked} && $event->{sequence} >= $stream->{blocked};
		$self->violated("$text is retried too early") if $stream->{waiting} || $self->{waiting};
	}
	$self->violated("$text: attempt $row->{attempt}, after $event->{fails} failures that count, $event->{noted} in all and $event->{losses} losses")
	  if $row->{attempt} < 1 + $event->{fails} && !$self->{uncounted} || $row->{attempt} > 2 + $event->{noted} + $event->{losses};
	return;
}

# In each stream the batch has what comes next, without a hole.
sub check_order
{
	my ($self, $batch) = @_;
	my %in_hand = map { ($_->{event}{position} => 1) } @{ $batch->{rows} };
	my (%last, %open);

	foreach my $row (grep { !$_->{redriven} } @{ $batch->{rows} })
	{
		my ($event, $key) = ($row->{event}, $self->in_log_order ? '' : $row->{event}{stream}{number});
		$self->violated("$event->{position} comes behind $last{$key}") if defined $last{$key} && $last{$key} >= $event->{position};
		$last{$key} = $event->{position};
	}
	foreach my $event (grep { $self->required($_) && !$in_hand{ $_->{position} } } @{ $self->{events} })
	{
		my $key = $self->in_log_order ? '' : $event->{stream}{number};
		$self->violated("$last{$key} is handed out before $event->{position} (stream $event->{stream}{number}), which is not done")
		  if defined $last{$key} && $event->{position} < $last{$key};
	}
	return;
}

# Rows of the batch that are done when it is acknowledged now.
sub done_rows
{
	my ($self, $batch) = @_;
	return grep {
		my $row = $_;
		my $nack = $row->{redriven} ? $batch->{nacks}{"redriven $row->{event}{position}"} : $batch->{nacks}{ $self->nack_key($row) };
		!$nack || !$row->{redriven} && $row->{event}{position} < $nack->{event}{position};
	} @{ $batch->{rows} };
}

sub nack_key
{
	my ($self, $row) = @_;
	return $row->{redriven} ? "redriven $row->{event}{position}" : $self->in_log_order ? 'log' : $row->{event}{stream}{number};
}

sub effects_query
{
	my ($self, $batch) = @_;
	my @done = map { "('$self->{name}', $_->{event}{position})" } $self->done_rows($batch);
	return @done ? 'INSERT INTO effects VALUES ' . join(', ', @done) . '; ' : '';
}

sub op_ack
{
	my ($self, $consumer, $back) = @_;
	my $session = $self->{session}{$consumer};
	my $token = $self->batch_of($consumer, $back) // return;
	my $batch = $self->{batches}{$token};

	my @results = $self->call($session, ($batch ? $self->effects_query($batch) : '') . "SELECT cqrs_es.ack_events('$token')" . $self->look_query);
	return if !$self->token_accepted($session, $token);
	my $expected = $self->done_rows($batch);
	my ($done, $letters, $state) = @results;
	$self->violated("ack_events has done $done->[0][0], and not $expected") if $done->[0][0] ne $expected;
	$self->sync_letters($session, $letters, $state, $self->acknowledge($session, $batch));
	return;
}

# What follows from the acknowledgement. Returns the positions that failed for good.
sub acknowledge
{
	my ($self, $session, $batch) = @_;
	my %final;

	$self->{seen}{acknowledged}++;
	$self->set($session, $batch, 'valid', 0);
	$self->set($session, $_, 'state', 'done') foreach map { $_->{event} } $self->done_rows($batch);
	foreach my $key (sort keys %{ $batch->{nacks} })
	{
		my $nack = $batch->{nacks}{$key} // next;
		my $event = $nack->{event};
		if ($nack->{answer} eq 'halted')
		{
			$final{ $event->{position} } = 'halted';
			$self->{halted} = $nack;
		}
		elsif ($nack->{answer} eq 'retry')
		{
			$self->set($session, $event, 'fails', $event->{fails} + 1);
			my $waits = $key =~ /^redriven/ ? $event : $self->in_log_order ? $self : $event->{stream};
			$self->set($session, $waits, 'waiting', 1) if !$nack->{at_once};
		}
		else { $final{ $event->{position} } = $nack->{answer} }
	}
	return %final;
}

sub op_nack
{
	my ($self, $consumer, $number, $give_up, $at_once, $back) = @_;
	my $session = $self->{session}{$consumer};
	my $token = $self->batch_of($consumer, $back) // return;
	my $batch = $self->{batches}{$token};

	# an old token: with some position
	my $row = $batch ? $batch->{rows}[ $number % @{ $batch->{rows} } ] : undef;
	my $key = $row && $self->nack_key($row);
	my $before = $row && $batch->{nacks}{$key};
	($give_up, $at_once) = @$before{qw(give_up at_once)} if $before && $before->{event} == $row->{event};
	my $position = $row ? $row->{event}{position} : @{ $self->{events} } ? $self->{events}[0]{position} : 1;
	my @results = $self->call($session, sprintf "SELECT cqrs_es.nack_event('%s', %s, 'it failed', %s, %s)", $token, $position,
		$at_once ? "'0 s'" : 'NULL', $give_up ? 'true' : 'false');
	return if !$self->token_accepted($session, $token);
	my ($answer, $event) = ($results[0][0][0], $row->{event});
	$self->{seen}{"nack: $answer"}++;

	if ($before && $before->{event}{position} < $event->{position})
	{
		$self->violated("nack of $event->{position} behind one that failed: $answer") if $answer ne ($self->in_log_order ? 'halted' : 'retry');
		return;
	}
	if ($before && $before->{event} == $event)
	{
		$self->violated("nack of $event->{position} for the second time: $answer, and not $before->{answer}") if $answer ne $before->{answer};
		return;
	}
	$self->set($session, $event, 'noted', $event->{noted} + 1);
	my $max = $self->{options}{max_attempts};
	my $final = $row->{redriven} ? 'skipped' : { block => 'blocked', skip => 'skipped', stop => 'stopped' }->{ $self->{options}{on_failure} };
	my $must = $give_up || $event->{fails} + 1 >= $max && !$self->{uncounted};
	my $may = $must || $event->{noted} >= $max;
	$self->violated("nack of $event->{position} answers $answer, after $event->{fails} failures that count, $event->{noted} in all; $max are allowed")
	  if $self->in_log_order ? $answer ne 'halted' : $answer ne 'retry' && $answer ne $final || $answer eq 'retry' && $must || $answer ne 'retry' && !$may;
	$self->set($session, $batch->{nacks}, $key, { event => $event, answer => $answer, give_up => $give_up, at_once => $at_once, must => $must, may => $may });
	return;
}

# Of an event that is not in hand.
sub op_nack_wrong
{
	my ($self, $consumer, $number) = @_;
	my $session = $self->{session}{$consumer};
	my $token = $self->batch_of($consumer, 0) // return;
	my $batch = $self->{batches}{$token} // return;
	my %in_hand = map { ($_->{event}{position} => 1) } @{ $batch->{rows} };

	# what could not be lifted is in the batch, though nobody got it
	my @not = grep { !$in_hand{$_} } (map { $_->{position} } grep { !$self->is_behind_sick($_) } @{ $self->{events} }), $self->{floor}, $self->{floor} + 1_000_000;
	my $position = $not[ $number % @not ];
	$self->call($session, "SELECT cqrs_es.nack_event('$token', $position, 'it failed')");
	return if $session->{state} eq '22023' && $batch->{valid};
	$self->violated("nack of $position, which is not in hand, is accepted") if !$session->{state};
	$self->token_accepted($session, $token);
	return;
}

sub op_extend
{
	my ($self, $consumer, $back) = @_;
	my $session = $self->{session}{$consumer};
	my $token = $self->batch_of($consumer, $back) // return;

	$self->call($session, "SELECT cqrs_es.extend_lease('$token')");
	$self->set($session, $self->{batches}{$token}, 'valid', '1') if $self->token_accepted($session, $token);
	return;
}

sub op_release
{
	my ($self, $consumer, $back) = @_;
	my $session = $self->{session}{$consumer};
	my $token = $self->batch_of($consumer, $back) // return;

	$self->call($session, "SELECT cqrs_es.release_batch('$token')");
	$self->set($session, $self->{batches}{$token}, 'valid', 0) if $self->token_accepted($session, $token);
	return;
}

# --- time passes

sub op_expire
{
	my ($self, $consumer) = @_;
	my $token = $self->batch_of($consumer, 0) // return;
	my $batch = $self->{batches}{$token} // return;
	my $admin = $self->{session}{admin};

	my @results = $self->call($admin, "UPDATE cqrs_es.shares SET leased_until = clock_timestamp() - interval '1 s', handed_out_at = handed_out_at - interval '1 hour' "
		. "WHERE batch = '$token' RETURNING share");
	$batch->{valid} = 'maybe' if !$admin->{state} && @{ $results[0] } && $batch->{valid};
	return;
}

sub op_age
{
	my ($self) = @_;
	my $admin = $self->{session}{admin};

	# positions that were walked to are written after a second
	$self->call($admin, join '; ', (map {
		"UPDATE cqrs_es.$_ SET retry_at = clock_timestamp() - interval '1 s' WHERE subscription = '$self->{name}' AND retry_at > clock_timestamp()"
	} qw(parked_streams dead_letters shares)), "UPDATE cqrs_es.shares SET position_at = position_at - interval '1 hour' WHERE subscription = '$self->{name}'");
	$_->{waiting} = 0 foreach @{ $self->{streams} }, @{ $self->{events} }, $self;
	return;
}

# The consumer has not been seen for some time; what it has in hand it keeps.
sub op_unseen
{
	my ($self, $consumer) = @_;
	$self->call($self->{session}{admin}, "UPDATE cqrs_es.consumers SET seen_at = seen_at - interval '1 hour' "
		. "WHERE subscription = '$self->{name}' AND consumer = '$consumer'");
	return;
}

# Events of type x cannot be lifted from now on.
sub op_sick
{
	my ($self) = @_;

	$self->{session}{admin}->ask('INSERT INTO sick DEFAULT VALUES');
	$self->{sick} = 1;
	$_->{noted} += UNKNOWN foreach grep { $_->{type} eq 'x' } @{ $self->{events} };
	return;
}

sub op_well
{
	my ($self) = @_;
	$self->{session}{admin}->ask('DELETE FROM sick');
	$self->{sick} = 0;
	return;
}

# Is there one of its stream, or of the log, that cannot be lifted, up to the event?
sub is_behind_sick
{
	my ($self, $event) = @_;
	return grep { $_->{type} eq 'x' && $_->{position} <= $event->{position} && $self->required($_) && ($self->in_log_order || $_->{stream} == $event->{stream}) }
	  @{ $self->{events} };
}

# --- administrators

# An operation that waits for consumers that are at it.
sub exclusive
{
	my ($self, $query) = @_;
	my $admin = $self->{session}{admin};
	my $at_it = grep { $_->{touched} } $self->others_in_transaction;

	my @results = $self->call($admin, $query);
	if ($admin->{state})
	{
		$self->violated("$admin->{state} $admin->{message}") if $admin->{state} ne '55P03' || !$at_it;
		return;
	}
	$self->violated('it did not wait for a transaction that has received or acknowledged') if $at_it;
	return @results ? \@results : [];
}

sub op_pause
{
	my ($self) = @_;
	my $admin = $self->{session}{admin};

	$self->call($admin, "SELECT cqrs_es.pause_subscription('$self->{name}')");
	$self->{paused} = 1 if !$self->refused_for_others;
	return;
}

sub op_resume
{
	my ($self) = @_;
	my $admin = $self->{session}{admin};

	$self->call($admin, "SELECT cqrs_es.resume_subscription('$self->{name}')");
	return if $self->refused_for_others;
	# it stops after that, with a transaction that goes on
	my ($session, $number) = @{ $self->{stopped_in} };
	return if $session && $session->{transaction} ne 'I' && $session->{number} == $number;
	@$self{qw(paused stopped)} = (0, 0);
	return;
}

# True where the administrator would have had to wait; any other refusal is wrong.
sub refused_for_others
{
	my ($self) = @_;
	my $admin = $self->{session}{admin};

	return 0 if !$admin->{state};
	return 1 if $admin->{state} eq '55P03' && $self->others_in_transaction;
	$self->violated("$admin->{state} $admin->{message}");
}

sub op_alter
{
	my ($self, $filter) = @_;
	my $admin = $self->{session}{admin};

	my ($types, $event_types) = map { $_ ? array_text($_) : "'{}'" } @{ $FILTERS[$filter] };
	$self->exclusive("SELECT cqrs_es.alter_subscription('$self->{name}', aggregate_types => $types, event_types => $event_types)") or return;
	my %before = map { ($_->{position} => $self->passes($_)) } @{ $self->{events} };
	my $changed = $filter != $self->{filter};
	$self->{filter} = $filter;
	if ($changed)
	{
		$_->{valid} = 0 foreach $self->batches;
		# where a stream is parked another event may be the first, so nothing is counted on
		$_->{fails} = 0 foreach @{ $self->{events} };
		# and in the order of the log none that has failed is waited for, which may be left out now
		$self->{waiting} = 0;
	}
	my ($shares) = $admin->ask("SELECT slots, position FROM cqrs_es.shares WHERE subscription = '$self->{name}'");
	foreach my $event (@{ $self->{events} })
	{
		next if $before{ $event->{position} } || !$self->passes($event);
		# What is let in holds from the position on; parked streams may have it earlier.
		my ($share) = grep { substr($_->[0], $event->{stream}{slot}, 1) } @$shares;
		$event->{optional} = $event->{position} <= $share->[1];
		# its letter went with it, but its stream may still stand there
		$event->{state} = 'undone' if delete $event->{filtered_out};
	}
	my @discarded = $self->letters_changed(sub {
		my ($letter, $from, $to) = @_;
		return $from =~ /^(blocked|redriven)$/ && $to eq 'discarded' && !$self->passes($letter->{event});
	});
	$_->{event}{filtered_out} = 1 foreach @discarded;
	return;
}

# The letters after an operation that may change some: accepted($letter, $from, $to).
sub letters_changed
{
	my ($self, $accepted) = @_;
	my $admin = $self->{session}{admin};
	my @changed;

	my ($letters) = $admin->ask("SELECT id, state, global_position FROM cqrs_es.dead_letters WHERE subscription = '$self->{name}' ORDER BY id");
	my %there;
	foreach (@$letters)
	{
		my ($id, $state, $position) = @$_;
		my $letter = $self->{letters}{$id} or $self->violated("a new dead letter $id of $position");
		$there{$id} = 1;
		next if $letter->{state} eq $state || $self->is_changed_elsewhere($admin, $letter);
		$self->violated("dead letter $id of $position went from $letter->{state} to $state") if !$accepted->($letter, $letter->{state}, $state);
		$self->letter_now($admin, $letter, $state);
		push @changed, $letter;
	}
	$self->check_none_gone($admin, \%there);
	return @changed;
}

# Another session has changed the letter, and has not committed that.
sub is_changed_elsewhere
{
	my ($self, $session, $letter) = @_;
	my $other = $letter->{changed_by} or return 0;
	return $other != $session && $other->{transaction} ne 'I' && $other->{number} == $letter->{changed_in};
}

sub check_none_gone
{
	my ($self, $session, $there) = @_;

	foreach my $id (keys %{ $self->{letters} })
	{
		my $letter = $self->{letters}{$id};
		next if !$letter || $there->{$id} || $self->is_changed_elsewhere($session, $letter);
		$self->violated("dead letter $id is gone");
	}
	return;
}

# Nothing that was counted of the event counts any more.
sub begin_anew
{
	my ($self, $session, $event) = @_;

	$self->set($session, $event, $_, 0) foreach qw(fails losses alone);
	$self->set($session, $event, 'noted', $self->{sick} && $event->{type} eq 'x' ? UNKNOWN : 0);
	return;
}

# A letter has this state now, and its event the one that follows.
sub letter_now
{
	my ($self, $session, $letter, $state) = @_;
	my ($event, $from) = ($letter->{event}, $letter->{state} // '');
	my $stream = $event->{stream};

	$self->{seen}{"letter: $state"}++;
	$self->set($session, $letter, 'state', $state);
	$self->set($session, $letter, 'changed_by', $session);
	$self->set($session, $letter, 'changed_in', $session->{number} // 0);
	if ($state eq 'blocked') { $self->set($session, $stream, 'blocked', $event->{sequence}) }
	if ($from eq 'blocked')
	{
		$self->set($session, $stream, 'blocked', undef);
		$self->set($session, $stream, 'waiting', 0);
		$self->begin_anew($session, $event);
		$self->set($session, $event, 'state', 'discarded') if $state eq 'discarded';
		return;
	}
	if ($state eq 'redriven')
	{
		$self->set($session, $event, 'waiting', 0);
		$self->begin_anew($session, $event);
	}
	$self->set($session, $event, 'state', $state) if $state !~ /^(blocked|delivered)$/;
	return;
}

# Letters and state after a call of a consumer: new letters need a reason, which
# is a failure for good in this acknowledgement, or as many losses.
sub sync_letters
{
	my ($self, $session, $letters, $state, %final) = @_;
	my ($paused, $stopped, $circuit) = @{ $state->[0] };
	my %there;

	$self->{seen}{circuit}++ if $circuit;
	$self->{uncounted} = $circuit;	# failures may not have been counted
	foreach (@$letters)
	{
		my ($id, $now, $position, $error, $attempts) = @$_;
		my $letter = $self->{letters}{$id};
		$there{$id} = 1;
		next if $letter && ($letter->{state} eq $now || $self->is_changed_elsewhere($session, $letter));

		my $event = $letter ? $letter->{event} : $self->{at}{$position} // $self->violated("a dead letter of $position, which there is not");
		my $from = $letter ? $letter->{state} : '';
		if ($now eq 'delivered')
		{
			$self->violated("dead letter of $position, which is $event->{state}: from $from to $now") if $from ne 'redriven' || $event->{state} ne 'done';
			$self->letter_now($session, $letter, $now);
			next;
		}
		my $why = delete $final{$position} // '';
		if (!$why)
		{
			my $losses = $self->losses_alone($event);
			$self->violated("$position is a dead letter ($now: $error), after $losses losses of it alone")
			  if $losses < $self->{options}{max_attempts} && $event->{noted} < UNKNOWN;
			$self->{seen}{ $event->{noted} < UNKNOWN ? 'given up' : 'never lifted' }++;
		}
		# by itself, or with its stream, which it had blocked
		my $alone = $from eq 'redriven' && $event->{state} eq 'redriven';
		my $to = $alone ? 'skipped' : { block => 'blocked', skip => 'skipped' }->{ $self->{options}{on_failure} } // 'none';
		$self->violated("dead letter of $position: from " . ($from || 'none') . " to $now") if $now ne $to || $why && $why ne $now || $from && $from ne 'redriven';
		$self->violated("dead letter of $position, which is $event->{state}") if $event->{state} ne ($alone ? 'redriven' : 'undone');
		if (!$letter)
		{
			$letter = { event => $event };
			$self->set($session, $self->{letters}, $id, $letter);
		}
		$self->letter_now($session, $letter, $now);
	}
	$self->check_none_gone($session, \%there);

	# In the order of the log the answer does not say whether it is for good.
	foreach my $position (grep { $final{$_} eq 'halted' } keys %final)
	{
		my ($nack, $event) = ($self->{halted}, $self->{at}{$position});
		if (defined $stopped && !$self->{stopped})
		{
			$self->violated("it stopped at $position, after $event->{noted} failures") if !$nack->{may};
			$final{$position} = 'stopped';
			next;
		}
		$self->violated("it did not stop at $position, after $event->{fails} failures that count") if $nack->{must} && !$self->{stopped};
		delete $final{$position};
		$self->set($session, $event, 'fails', $event->{fails} + 1);
		$self->set($session, $self, 'waiting', 1) if !$nack->{at_once};
	}

	$self->violated('it is paused, and nobody paused it') if $paused eq 't' && !$self->{paused} && !defined $stopped;
	if (defined $stopped && !$self->{stopped})
	{
		my @why = grep { $final{$_} eq 'stopped' } keys %final;
		$self->violated('it stopped, which it was not told to') if $self->{options}{on_failure} ne 'stop';
		my $max = $self->{options}{max_attempts};
		$self->violated("it stopped without a reason: $stopped")
		  if !@why && !grep { $self->losses_alone($_) >= $max || $_->{noted} >= UNKNOWN } @{ $self->{events} };
		$self->{seen}{stopped}++;
		# Its attempts begin anew; which one was lost so often is not said.
		foreach my $event (@why ? map { $self->{at}{$_} } @why : grep { $self->losses_alone($_) >= $max || $_->{noted} >= UNKNOWN } @{ $self->{events} })
		{
			$self->set($session, $event, 'fails', 0);
		}
		delete @final{@why};
		$self->set($session, $self, $_, 1) foreach qw(paused stopped);
		$self->{stopped_in} = [ $session, $session->{number} // 0 ];
	}
	delete @final{ grep { $final{$_} eq 'stopped' && $self->{stopped} } keys %final };
	if (%final)
	{
		my ($position) = sort keys %final;
		$self->violated("$position was to be $final{$position}, and is not") if !$circuit;
		# It was a failure as others, and its stream waits.
		$self->set($session, $self->in_log_order ? $self : $self->{at}{$_}{stream}, 'waiting', 0) foreach keys %final;
	}
	return;
}

sub op_reset
{
	my ($self, $number) = @_;
	my @positions = ($self->{floor}, map { $_->{position} } grep { $_->{committed} } @{ $self->{events} });
	my $position = $positions[ $number % @positions ];

	# nothing below what is in flight: that would be no position of a reader
	my ($flight) = sort { $a <=> $b } map { $_->{position} } grep { !$_->{committed} } @{ $self->{events} };
	return if defined $flight && $position > $flight;
	$self->exclusive("SELECT cqrs_es.reset_subscription('$self->{name}', $position); DELETE FROM effects WHERE subscription = '$self->{name}' AND position > $position") or return;
	$_->{valid} = 0 foreach $self->batches;
	$self->letters_changed(sub {
		my ($letter, $from, $to) = @_;
		return $to eq 'discarded' && ($from =~ /^(blocked|redriven)$/ || $from eq 'skipped' && $letter->{event}{position} > $position);
	});
	foreach my $event (@{ $self->{events} })
	{
		$event->{state} = 'undone' if $event->{position} > $position;
		$event->{optional} = $event->{position} <= $position && $event->{state} ne 'done';
		$event->{waiting} = 0;
		$self->begin_anew($self->{session}{admin}, $event);
	}
	@$_{qw(blocked waiting)} = (undef, 0) foreach @{ $self->{streams} };
	$self->{waiting} = 0;
	$self->{effects_from} = $position;
	return;
}

# Letters about which can be decided, as the administrator sees them.
sub open_letters
{
	my ($self) = @_;
	my %letters = map { ($_ => $self->{letters}{$_}) } grep { $self->{letters}{$_} } keys %{ $self->{letters} };

	return sort { $a <=> $b } grep {
		$letters{$_}{state} =~ /^(blocked|skipped)$/ && !$self->is_changed_elsewhere($self->{session}{admin}, $letters{$_})
	} keys %letters;
}

sub op_redrive
{
	my ($self, $number) = @_;
	my $admin = $self->{session}{admin};
	my @letters = $self->open_letters;
	my $one = $number && @letters ? $letters[ $number % @letters ] : undef;

	my @results = $self->call($admin, "SELECT cqrs_es.redrive('$self->{name}'" . (defined $one ? ", dead_letter_id => $one" : '') . ')');
	return if $self->refused_for_others;
	my @changed = $self->letters_changed(sub {
		my ($letter, $from, $to) = @_;
		return $to eq 'redriven' && $from =~ /^(blocked|skipped)$/;
	});
	$self->violated("redrive says $results[0][0][0], and changed " . scalar @changed)
	  if $results[0][0][0] != @changed && !$self->others_in_transaction;
	return;
}

sub op_discard
{
	my ($self, $number) = @_;
	my $admin = $self->{session}{admin};
	my @letters = $self->open_letters;

	return if !@letters;
	my $id = $letters[ $number % @letters ];
	$self->call($admin, "SELECT cqrs_es.discard_dead_letter($id, 'because')");
	return if $self->refused_for_others;
	my @changed = $self->letters_changed(sub {
		my ($letter, $from, $to) = @_;
		return $to eq 'discarded' && $from =~ /^(blocked|skipped)$/;
	});
	$self->violated('discard_dead_letter changed ' . scalar @changed) if @changed != 1 && !$self->others_in_transaction;
	return;
}

# --- the tables

sub tables
{
	my ($self) = @_;
	my ($shares, $parked) = $self->{session}{admin}->ask("EXECUTE shares('$self->{name}'); EXECUTE parked('$self->{name}')");
	my %parked = map { ($_->[0] => { slot => $_->[1], sequence => $_->[2], due => ($_->[3] // '') eq 't', blocked => !defined $_->[3], batch => $_->[4] }) } @$parked;
	my @shares = map { { share => $_->[0], slots => $_->[1], position => $_->[2], batch => $_->[3], lapsed => $_->[4] eq 't', waits => $_->[5] eq 't' } } @$shares;
	$self->{seen}{several_shares}++ if @shares > 1;
	$self->{seen}{merged}++ if @shares < ($self->{shares_before} // 0);
	$self->{shares_before} = @shares;
	return (\@shares, \%parked);
}

sub tables_text
{
	my ($shares, $parked) = @_;
	return join ', ', (map { "share $_->{share} (" . slots_text($_->{slots}) . ") at $_->{position}" . ($_->{batch} ? " in hand $_->{batch}" : '') } @$shares),
	  (map { "$_ parked at $parked->{$_}{sequence}" } sort keys %$parked);
}

# No transaction of a consumer is open: what is known is what stands there.
sub check_tables
{
	my ($self) = @_;
	my ($shares, $parked) = $self->tables;
	my @batches = $self->batches;
	my $admin = $self->{session}{admin};
	my (@share_of, %there);

	foreach my $share (@$shares)
	{
		foreach my $slot (map { $_->{slot} } @{ $self->{streams} })
		{
			next if !substr $share->{slots}, $slot, 1;
			$self->violated("slot $slot is in two shares") if $share_of[$slot] && $share_of[$slot] != $share;
			$share_of[$slot] = $share;
		}
		next if !$share->{batch};
		my $batch = $self->{batches}{ $share->{batch} };
		$self->violated("a batch $share->{batch} is in hand that nobody got") if !$batch;
		$self->violated("a batch $share->{batch} is in hand that is void") if !$batch->{valid};
		$there{ $share->{batch} } = 1;
	}
	my $slots = 0;
	$slots += $_->{slots} =~ tr/1// foreach @$shares;
	$self->violated("$slots slots in all") if $slots != 256;
	$self->violated('several shares, in the order of the log') if @$shares > 1 && $self->in_log_order;
	foreach my $batch (grep { $_->{valid} && !$there{ $_->{token} } } @batches)
	{
		$self->violated("batch $batch->{token} is gone before its lease is over: " . tables_text($shares, $parked)) if $batch->{valid} eq '1';
		$self->lose($admin, $batch);
	}

	foreach my $event (@{ $self->{events} })
	{
		my $stream = $event->{stream};
		my $share = $share_of[ $stream->{slot} ];
		my $row = $parked->{ $stream->{id} };
		my $passed = $event->{position} <= $share->{position};
		my $text = "$event->{position} (stream $stream->{number}, sequence $event->{sequence})";

		$self->violated("position $share->{position} is past $text, which is not committed yet") if $passed && !$event->{committed} && $self->passes($event) && !$event->{optional};
		$self->violated("$text is passed over: " . tables_text($shares, $parked))
		  if $passed && $self->required($event) && !($row && $row->{sequence} <= $event->{sequence});
		next if !$row;
		$self->violated("slot of stream $stream->{number} is $row->{slot}, and not $stream->{slot}") if $row->{slot} != $stream->{slot};
		$self->violated("stream $stream->{number} is parked at $row->{sequence}, and $text is not done")
		  if $self->required($event) && $event->{sequence} < $row->{sequence};
		$self->violated("stream $stream->{number} is parked at $row->{sequence}, and $text is done")
		  if $event->{state} eq 'done' && $event->{sequence} >= $row->{sequence} && $event->{position} > $self->{effects_from};
	}
	foreach my $stream (@{ $self->{streams} })
	{
		my $row = $parked->{ $stream->{id} };
		$self->violated("stream $stream->{number} is blocked at $stream->{blocked}, and not parked there") if defined $stream->{blocked} && (!$row || $row->{sequence} != $stream->{blocked} || !$row->{blocked});
		$self->violated("stream $stream->{number} is blocked at $row->{sequence} without a dead letter") if $row && $row->{blocked} && !defined $stream->{blocked};
	}
	return;
}

# What could be handed out now, as the tables say.
sub available
{
	my ($self) = @_;
	my ($shares, $parked) = $self->tables;
	my ($flight) = sort { $a <=> $b } map { $_->{position} } grep { !$_->{committed} } @{ $self->{events} };
	my $drawing = grep { $_->{draws} } values %{ $self->{session} };
	my @available;

	foreach my $share (grep { !$_->{waits} && (!$_->{batch} || $_->{lapsed}) } @$shares)
	{
		foreach my $event (grep { $self->required($_) && substr $share->{slots}, $_->{stream}{slot}, 1 } @{ $self->{events} })
		{
			next if $self->{sick} && $self->is_behind_sick($event);
			my $row = $parked->{ $event->{stream}{id} };
			if ($row) { push @available, $event if $row->{due} && $event->{position} <= $share->{position} && (!$row->{batch} || $share->{batch}) }
			elsif ($event->{position} > $share->{position} && (!defined $flight || $event->{position} < $flight))
			{
				# a gap may be of any transaction that has drawn a position and goes on
				push @available, $event if !$drawing || !grep { !$self->{at}{$_} } $share->{position} + 1 .. $event->{position};
			}
		}
	}
	return @available;
}

sub check_nothing_there
{
	my ($self, $consumer, $name) = @_;

	return if $self->{again};
	my @available = $self->available or return;
	# Shares that are to be merged wait for each other: at the second time it comes.
	local $self->{again} = 1;
	my $before = $self->{seen}{nothing};
	$self->receive($consumer, 100, 0, $name);
	return if $self->{seen}{nothing} == $before;
	my ($shares, $parked) = $self->tables;
	$self->violated('nothing is handed out, though there is ' . join(', ', map { "$_->{position} (stream $_->{stream}{number})" } @available) . ': ' . tables_text($shares, $parked));
}

# --- the end: all consumers are healthy, and administrators decide

sub drain
{
	my ($self, @decisions) = @_;
	my $admin = $self->{session}{admin};

	$self->note('the end');
	$self->operate("end_writer w$_ COMMIT") foreach 0 .. WRITERS - 1;
	$self->operate("end c$_ COMMIT") foreach 0 .. CONSUMERS - 1;
	$self->operate("expire c$_") foreach 0 .. CONSUMERS - 1;
	$self->operate('well') if $self->{sick};
	$admin->ask("UPDATE cqrs_es.shares SET leased_until = clock_timestamp() - interval '1 s' WHERE subscription = '$self->{name}' AND batch IS NOT NULL");
	foreach ($self->batches) { $_->{valid} = 'maybe' if $_ && $_->{valid} }

	foreach my $round (1 .. 40)
	{
		$self->operate('resume') if $self->{paused};
		my @open = grep { $_ && $_->{state} eq 'blocked' } values %{ $self->{letters} };
		if (@open && $round % 3 == 0)
		{
			$self->operate(($decisions[ $round / 3 % (@decisions || 1) ] // 'redrive') eq 'discard' ? 'discard 0' : 'redrive 0');
		}
		$self->operate('age');
		my $got = 0;
		foreach my $consumer (map { "c$_" } 0 .. CONSUMERS - 1)
		{
			my $before = $self->{seen}{handed_out} // 0;
			$self->operate("receive $consumer 10 0");
			next if ($self->{seen}{handed_out} // 0) == $before;
			$got = 1;
			$self->operate("ack $consumer 0");
		}
		last if !$got && !$self->{paused} && !grep { $self->required($_) || $_->{state} eq 'redriven' } @{ $self->{events} };
	}
	foreach my $event (@{ $self->{events} })
	{
		$self->violated("$event->{position} (stream $event->{stream}{number}, sequence $event->{sequence}) is never done, though all consumers are healthy")
		  if $self->required($event) || $event->{state} eq 'redriven';
	}
	foreach my $letter (grep { $_ && $_->{state} eq 'redriven' } values %{ $self->{letters} })
	{
		$self->violated("the letter of $letter->{event}{position}, which is $letter->{event}{state}, still waits") if !$letter->{event}{optional};
	}
	my ($effects) = $admin->ask("SELECT position, count(*) FROM effects WHERE subscription = '$self->{name}' GROUP BY 1");
	my %effects = map { ($_->[0] => $_->[1]) } @$effects;
	foreach my $event (@{ $self->{events} })
	{
		my $count = $effects{ $event->{position} } // 0;
		$self->violated("$event->{position} is $event->{state}, and took effect $count times") if $count != ($event->{state} eq 'done');
	}
	return;
}

1;
