# One of those who decide at the same time, and of those who append without asking.
#
#	my $racer = TagRacer->new($number, \&connect, directory => ..., generic => 0);
#	$racer->decide(query => [...], rule => sub { my ($rows) = @_; ...; return @events });
#	$racer->write(@events);
#	$racer->notes						# what TagOracle judges
#
# A rule gets the rows that were read, { position, type, payload }, and returns events,
# { type => ..., payload => { ... }, tags => [...] }, or nothing: it refuses. Nothing
# stands between the read and the append, nor is there anything that makes others wait.
#
# With {single} set no transaction calls twice, nor are there plain rows: several take their slots in
# the order in which they come, and each has drawn its position before, for which a condition on
# everything waits behind its slots.  So they may deadlock.
#
# How it is done is drawn by lot (@ways, @writings): in one transaction or in several,
# with savepoints before and between, rolled back, prepared, two decisions in one,
# repeated from within, at other levels of isolation, with an after_position that is
# lower than need be. So is how others write: by function, plain INSERT, COPY, a command,
# with a position that was drawn long before.

package TagRacer;

use strict;
use warnings FATAL => 'all';
use Time::HiRes qw(usleep);

sub new
{
	my ($class, $number, $connect, %how) = @_;
	my $self = bless { number => $number, connect => $connect, calls => 0, notes => [], errors => {}, done => {}, %how }, $class;
	$self->connect;
	return $self;
}

sub connect
{
	my ($self) = @_;

	$self->{session} = $self->{connect}->();
	$self->{session}->ask('SET cqrs_es.force_generic_path = on') if $self->{generic};
	return;
}

sub notes { return @{ $_[0]{notes} } }
sub chance { return rand() < $_[0] }
sub one_of { return $_[ int rand @_ ] }

# --- statements

sub call
{
	my ($self) = @_;
	return $self->{number} . '.' . ++$self->{calls};
}

sub json
{
	my ($value) = @_;

	return '[' . join(', ', map { json($_) } @$value) . ']' if ref $value eq 'ARRAY';
	return '{' . join(', ', map { "\"$_\": " . json($value->{$_}) } sort keys %$value) . '}' if ref $value eq 'HASH';
	return $value =~ /^-?\d+$/ ? $value : "\"$value\"";
}

# The metadata of an event: who reads the log later knows the call and the tags.
sub metadata
{
	my ($event, $call) = @_;
	return json({ call => "c$call", $event->{tags} ? (tags => $event->{tags}) : () });
}

sub elements
{
	my ($call, @events) = @_;
	return '[' . join(', ', map {
			sprintf '{"type": "%s", "payload": %s, "metadata": %s%s}', $_->{type}, json($_->{payload}), metadata($_, $call),
			  $_->{tags} ? ', "tags": ' . json($_->{tags}) : ''
	} @events) . ']';
}

sub append
{
	my ($call, $query, $after, @events) = @_;
	return sprintf q{SELECT FROM cqrs_es.append_to_streams('%s', fail_if_events_match => '%s', after_position => %s)}, elements($call, @events),
	  json($query), $after;
}

# --- what it does with its session

# The statement's rows; dies with the SQLSTATE when it fails.
sub run
{
	my ($self, $statement) = @_;
	my $session = $self->{session};
	my ($rows) = $session->try($statement);

	return $rows if !$session->{state};
	die { state => $session->{state}, message => "$session->{message} | $session->{detail} | $statement", position => $session->{fields}{d} };
}

sub pause
{
	my ($self) = @_;
	usleep(int rand 1500) if chance(0.3);
	return;
}

# Read, and make a note of it.
sub look
{
	my ($self, %how) = @_;
	my $from = $how{from} // 0;
	my $options = '';

	$options .= ", max_count => $how{max_count}" if $how{max_count};
	$options .= ', backward => true' if $how{backward};
	my $rows = $self->run(sprintf q{SELECT global_position, event_type, payload FROM cqrs_es.read_matching('%s', after_position => %s%s)}, json($how{query}), $from, $options);
	my @rows = map { { position => $_->[0], type => $_->[1], payload => TagOracle::payload($_->[2]) } } @$rows;
	@rows = reverse @rows if $how{backward};
	for my $i (1 .. $#rows)
	{
		die { state => 'order', message => "rows $rows[$i - 1]{position}, $rows[$i]{position}" } if $rows[$i]{position} <= $rows[ $i - 1 ]{position};
	}
	my $note = { query => $how{query}, from => $from, seen => [ map { $_->{position} } @rows ], whole => !$how{max_count}, what => $how{what} };
	return ($note, @rows);
}

# One try of a decision within whatever transaction is open: undef when the rule
# refuses, else its note.
sub try_once
{
	my ($self, $how, %also) = @_;
	my $after;

	$after = $self->run('SELECT cqrs_es.settled_position()')->[0][0] if $also{low};
	my ($note, @rows) = $self->look(%$how);
	push @{ $self->{pending} }, $note;
	my @events = $how->{rule}->(\@rows);
	return if !@events;
	$after = @rows ? $rows[-1]{position} : $note->{from} if !defined $after || @rows && $rows[-1]{position} < $after;
	$self->pause;
	$self->run('SAVEPOINT b') if $also{savepoint};
	if ($also{twice})
	{
		# what is written here, and taken back, has the tags that are asked for
		my $taken = { %$note, call => 'c' . $self->call, after => $after };
		$self->run(append($taken->{call} =~ s/^c//r, $how->{query}, $after, @events));
		$self->pause;
		$self->run('ROLLBACK TO b');
	}
	my $call = $self->call;
	@$note{qw(call after)} = ("c$call", $after);
	$self->run(append($call, $how->{query}, $after, @events));
	return $note;
}

my @ways = (
	[ 40, 'apart' ],		# read and append are transactions of their own
	[ 15, 'together' ],
	[ 6, 'low' ],			# an after_position from before the read
	[ 6, 'late' ],			# committed a while after the append
	[ 6, 'savepoint before' ],	# has had slots, and given them back
	[ 6, 'savepoint between' ],	# appends, takes it back, appends again
	[ 4, 'caught' ],		# within a block that handles errors
	[ 5, 'rolled back' ],
	[ 4, 'prepared' ],
	[ 4, 'repeatable' ],
	[ 4, 'serializable' ],
	[ 2, 'dies' ]);			# the connection is lost, at any statement

sub by_weight
{
	my ($sum, @kinds) = (0, @_);

	$sum += $_->[0] foreach @kinds;
	my $lot = rand $sum;
	foreach my $kind (@kinds) { return $kind->[1] if ($lot -= $kind->[0]) < 0 }
	return $kinds[-1][1];
}

# Which errors a way may meet.  A transaction that has appended cannot ask for everything. Who
# calls twice may deadlock, with anybody; where nobody does ({single}) there is no deadlock.
my %may = (
	'savepoint before' => [qw(55000)],
	'savepoint between' => [qw(55000)],
	double => [qw(55000)],
	repeatable => [qw(40001)],
	serializable => [qw(40001)],
);
my %rows = map { ($_ => 1) } 'insert', 'copy';
my %calls_twice = map { ($_ => 1) } 'savepoint before', 'savepoint between', 'drawn', 'drawn, held', 'drawn, given back';

# Decide until it is done or the rule refuses; the outcome: done, refused, or given up.
sub decide
{
	my ($self, %how) = @_;
	my $tries = $how{tries} // 4;
	my $outcome;

	while ($tries-- > 0)
	{
		my $way = $how{way} // by_weight(grep { !$self->{single} || !$calls_twice{ $_->[1] } } @ways);
		$outcome = $self->transact($way, \%how);
		return $outcome if $outcome eq 'done' || $outcome eq 'refused';
	}
	return $outcome;
}

sub transact
{
	my ($self, $way, @hows) = @_;
	my $how = $hows[0];
	my $block = $way ne 'apart' && $way ne 'low';
	my ($outcome, @notes) = ('done');

	$self->{pending} = [];
	$way = 'together' if $way eq 'dies' && !chance(0.3);
	eval {
		$self->run('BEGIN' . ($way eq 'repeatable' ? ' ISOLATION LEVEL REPEATABLE READ' : $way eq 'serializable' ? ' ISOLATION LEVEL SERIALIZABLE' : '')) if $block;
		if ($way eq 'savepoint before')
		{
			my $call = $self->call;
			my $rule = $how->{before} // sub { () };
			my @before = $rule->();
			$self->run('SAVEPOINT a');
			$self->run("SELECT FROM cqrs_es.append_to_streams('" . elements($call, @before) . "')") if @before;
			$self->pause;
			$self->run('ROLLBACK TO a');
		}
		if ($way eq 'caught') { push @notes, $self->caught($how) }
		else { push @notes, $self->try_once($_, low => $way eq 'low', map { ($_ => $way eq 'savepoint between') } qw(savepoint twice)) foreach @hows }
		@notes = grep { defined } @notes;
		$outcome = 'refused' if @notes < @hows;
		if ($way eq 'dies') { $self->{session}->close }
		elsif ($block)
		{
			if ($way eq 'late') { usleep(1000 + int rand 3000) }
			my $name = "p$self->{number}-$self->{calls}";
			if ($way eq 'rolled back') { $self->run('ROLLBACK') }
			elsif ($way eq 'prepared' && @notes)
			{
				$self->run("PREPARE TRANSACTION '$name'");
				usleep(int rand 1000);
				$self->run("COMMIT PREPARED '$name'");
			}
			else { $self->run('COMMIT') }
		}
		1;
	} or do
	{
		my $error = $@;
		die $error if !ref $error;
		$outcome = $error->{state};
		$self->{errors}{"$way $outcome"}++;
		if ($outcome eq 'QE005') { $self->failed($way, $error) }
		elsif (!grep { $_ eq $outcome } @{ $may{$way} // [] }, @{ $how->{may} // [] }, $self->{single} ? () : '40P01') { push @{ $self->{complaints} }, "$way: $outcome $error->{message}" }
		$self->run('ROLLBACK') if $self->{session}{socket} && $self->{session}{transaction} ne 'I';
	};
	$self->{done}{ $way . ($outcome eq 'done' ? '' : ", $outcome") }++;
	if ($way eq 'dies')
	{
		$self->connect if !$self->{session}{socket};
		# whether the transaction was over is for the log to say: it was not
		$outcome = 'died';
	}
	elsif ($way eq 'rolled back' && $outcome eq 'done') { $outcome = 'taken back' }
	if ($outcome eq 'done') { $_->{outcome} = 'done' foreach @notes }
	# Of a transaction that has not ended well one knows only what was read before it wrote.
	my @keep = @{ $self->{pending} };
	splice @keep, 1 if $outcome ne 'done' && $outcome ne 'refused';
	foreach my $note (@keep)
	{
		delete @$note{qw(call after)} if ($note->{outcome} // '') ne 'done' && !defined $note->{first};
		push @{ $self->{notes} }, $note;
	}
	return $outcome;
}

# A condition that failed says which event was in the way. What was the transaction's
# own is gone by now.
sub failed
{
	my ($self, $way, $error) = @_;
	my $note = $self->{pending}[-1];

	return if $way eq 'savepoint between' || $way eq 'double';
	my $first = $error->{position};
	if (($first // '') =~ /^\d+$/) { @$note{qw(first outcome)} = ($first, 'QE005'); $note->{call} = undef }
	else { push @{ $self->{complaints} }, "no position: $error->{message}" }
	return;
}

# Read and append with an exception handler around: a subtransaction that the
# program does not see.
sub caught
{
	my ($self, $how) = @_;
	my ($note, @rows) = $self->look(%$how);

	push @{ $self->{pending} }, $note;
	my @events = $how->{rule}->(\@rows);
	return if !@events;
	my $call = $self->call;
	@$note{qw(call after)} = ("c$call", @rows ? $rows[-1]{position} : $note->{from});
	$self->run(sprintf q{
		DO $do$
		BEGIN
			PERFORM cqrs_es.append_to_streams('%s', fail_if_events_match => '%s', after_position => %s);
		EXCEPTION WHEN SQLSTATE '22012' THEN
			RAISE;
		END $do$}, elements($call, @events), json($how->{query}), $note->{after});
	return $note;
}

# Two decisions in one transaction.
sub decide_both
{
	my ($self, @hows) = @_;
	return $self->transact('double', @hows);
}

# A command of a boundary, decided in the database: done, refused, or the SQLSTATE.
sub execute
{
	my ($self, $boundary, $command, $payload, $command_id) = @_;
	my $call = $self->call;
	my $outcome = 'done';

	eval {
		$self->run(sprintf q{SELECT FROM cqrs_es.execute_boundary('%s', '%s', '%s', metadata => '{"call": "c%s"}'%s)}, $boundary, $command, json($payload), $call,
			$command_id ? ", command_id => '$command_id'" : '');
		1;
	} or do
	{
		my $error = $@;
		die $error if !ref $error;
		$outcome = $error->{state} eq 'QE301' ? 'refused' : $error->{state};
		# it loses no race
		push @{ $self->{complaints} }, "execute_boundary: $error->{state} $error->{message}" if $outcome ne 'refused' && ($self->{single} || $outcome ne '40P01');
	};
	$self->{done}{"execute_boundary, $outcome"}++;
	return $outcome;
}

# --- who does not ask

my @writings = (
	[ 4, 'append_event' ],
	[ 3, 'append_events' ],
	[ 3, 'append_to_streams' ],
	[ 6, 'insert' ],
	[ 4, 'drawn' ],			# with a position drawn before the slots were taken
	[ 4, 'drawn, held' ],		# ... which were taken in between
	[ 4, 'drawn, given back' ],	# ... with slots that a savepoint has given back
	[ 4, 'copy' ],
	[ 3, 'command' ],
	[ 2, 'taken back' ]);

# Append events, of one or several streams, in one transaction.
sub write
{
	my ($self, @events) = @_;
	@events = $events[0] if $self->{single};
	my $way = by_weight(grep { !$self->{single} || !$calls_twice{ $_->[1] } && !$rows{ $_->[1] } } @writings);
	my $call = $self->call;
	my $n = 0;
	my $name = sub { return "$call-" . ++$n };
	# tags that the type does not give it need a function that takes them
	$way = one_of(qw(append_event append_events append_to_streams)) if grep { $_->{tags} } @events;
	my $insert = sub {
		my ($event, $position) = @_;
		my $values = sprintf q{('plain', '%s', '%s', '%s', '%s'%s)}, $name->(), $event->{type}, json($event->{payload}), metadata($event, $call), $position ? ", $position" : '';
		return 'INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, metadata' . ($position ? ', global_position' : '') . ") VALUES $values";
	};

	eval {
		if ($way eq 'append_event')
		{
			$self->run(join '; ', map {
					sprintf q{SELECT FROM cqrs_es.append_event('plain', '%s', '%s', '%s', metadata => '%s'%s)}, $name->(), $_->{type}, json($_->{payload}), metadata($_, $call),
					  $_->{tags} ? ", tags => '{" . join(',', @{ $_->{tags} }) . "}'" : ''
			} @events);
		}
		elsif ($way eq 'append_events') { $self->run("SELECT FROM cqrs_es.append_events('plain', '${\$name->()}', '" . elements($call, @events) . "')") }
		elsif ($way eq 'append_to_streams') { $self->run("SELECT FROM cqrs_es.append_to_streams('" . elements($call, @events) . "')") }
		elsif ($way eq 'insert')
		{
			my @rows = map { $insert->($_) =~ s/.* VALUES //r } @events;
			$self->run($insert->($events[0]) =~ s/ VALUES .*/ VALUES /r . join ', ', @rows);
		}
		elsif ($way =~ /^drawn/)
		{
			$self->run('BEGIN');
			my ($position) = $self->run('SELECT cqrs_es.next_position()')->[0][0];
			$self->pause;
			if ($way ne 'drawn')
			{
				$self->run('SAVEPOINT s');
				$self->run($insert->($events[0]));
				$self->pause;
				$self->run($way eq 'drawn, held' ? 'RELEASE s' : 'ROLLBACK TO s');
				$position = $self->run('SELECT cqrs_es.next_position()')->[0][0] if $way ne 'drawn, held' && chance(0.5);
				$self->pause;
			}
			$self->run($insert->($events[0], $position));
			$self->run($insert->($_)) foreach @events[ 1 .. $#events ];
			$self->pause;
			$self->run('COMMIT');
		}
		elsif ($way eq 'copy')
		{
			my $file = "$self->{directory}/copy-$self->{number}";
			open my $out, '>', $file or die "could not write $file: $!";
			print {$out} join("\t", 'plain', $name->(), $_->{type}, json($_->{payload}), metadata($_, $call)), "\n" foreach @events;
			close $out;
			$self->run("COPY cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, metadata) FROM '$file'");
		}
		elsif ($way eq 'command')
		{
			$self->run(sprintf q{SELECT FROM cqrs_es.execute_command('sender', '%s', 'Send', '{"events": %s}')}, $call, elements($call, @events));
		}
		else { $self->run('BEGIN; ' . $insert->($events[0])); $self->pause; $self->run('ROLLBACK') }
		1;
	} or do
	{
		my $error = $@;
		die $error if !ref $error;
		$self->{errors}{"$way $error->{state}"}++;
		push @{ $self->{complaints} }, "$way: $error->{state} $error->{message}"
		  if $error->{state} ne '40P01' || $self->{single};
		$self->run('ROLLBACK') if $self->{session}{transaction} ne 'I';
		return $error->{state};
	};
	$self->{done}{$way}++;
	return 'done';
}

1;
