# Decisions across streams in a storm: sixteen sessions that read what concerns them
# and append under the condition that nothing else has come in between, beside others
# that append without asking. Nobody waits for anybody between the read and the append.
#
#	place	one place is left: sixteen want it, one gets it
#	course	three places in each of two courses, two courses for each student; students
#			leave, and capacities change, without asking
#	name	three names; taken, given up, exchanged
#	invoice	numbers 1, 2, 3, ... over all rounds
#	skew	half of them ask by type and append what the others ask for by tag: only some of one half get it
#	seat	the event that counts is appended by a handler
#	random	queries and events of a few types and tags, each combination of them
#
# In some rounds nobody calls twice in a transaction; then nobody may meet a deadlock.
#
# Each decision is noted with what it asked and was told, and at the end the log is
# replayed against all of them (test/include/TagOracle.pm), and against the rules of each
# world. Beside them all, readers follow a query from the last row they have got, and
# others look at the end of the log again and again.
#
# CQRS_ES_STORM_ROUNDS: how many (as many as 20 s allow, at most 1,000); CQRS_ES_STORM_SEED;
# CQRS_ES_STORM_KINDS: which, separated by spaces.

use strict;
use warnings FATAL => 'all';
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Storable ();
use Test::More;
use Time::HiRes qw(time usleep);

use lib "$ENV{TESTDIR}/test/include";
use Faults;
use Session;
use TagOracle;
use TagRacer;

use constant RACERS => 16;
use constant SKEWS => 8;		# types for a world that asks by type

my $rounds = $ENV{CQRS_ES_STORM_ROUNDS} || 1000;
my $seconds = $ENV{CQRS_ES_STORM_ROUNDS} ? 0 : 20;
my $seed = $ENV{CQRS_ES_STORM_SEED} || 20261126;
my @kinds = split / /, $ENV{CQRS_ES_STORM_KINDS} || 'place course course name invoice skew seat random random';
my $directory = $PostgreSQL::Test::Utils::tmp_check;
my $user = getpwuid $>;

my $node = PostgreSQL::Test::Cluster->new('storm');
$node->init;
$node->append_conf('postgresql.conf', Faults::settings() . "max_prepared_transactions = 20\nmax_connections = 60\ndeadlock_timeout = 20ms\nlog_min_error_statement = panic");
$node->start;
$node->safe_psql('postgres', sprintf q{
	CREATE EXTENSION cqrs_es;
	SELECT cqrs_es.define_tags('Enrolled', 'course:{/course}', 'student:{/student}');
	SELECT cqrs_es.define_tags('Left', 'course:{/course}', 'student:{/student}');
	SELECT cqrs_es.define_tags('CapacityChanged', 'course:{/course}');
	SELECT cqrs_es.define_tags('Registered', 'name:{/name}');
	SELECT cqrs_es.define_tags('Renamed', 'name:{/old}', 'name:{/name}');
	SELECT cqrs_es.define_tags('Suspended', 'name:{/name}');
	SELECT cqrs_es.define_tags('InvoiceIssued', 'invoices');
	SELECT cqrs_es.define_tags('SeatTaken', 'seat:{/course}');
	SELECT cqrs_es.define_tags('Skew' || i, 'skew:{/round?}') FROM generate_series(0, %d) AS i;
	SELECT cqrs_es.define_tags('R' || i, 't:{/t?}') FROM generate_series(0, 4) AS i;
	-- events that a command is told to give
	SELECT cqrs_es.create_aggregate('sender');
	SELECT cqrs_es.define_command('sender', 'Send', $$ command->'events' $$);
	-- a handler that appends
	CREATE FUNCTION seat_taken(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM cqrs_es.append_event('seats', e.event_id::text, 'SeatTaken', e.payload);
	END $$;
	SELECT cqrs_es.create_projection('seats');
	SELECT cqrs_es.define_handler('seats', 'SeatWanted', 'seat_taken(cqrs_es.event)');
	-- the same rule as may_enrol() below
	SELECT cqrs_es.create_boundary('enrol', '[{"types": ["CapacityChanged", "Enrolled", "Left"], "tags": ["course:{/course}"]},
		{"types": ["Enrolled", "Left"], "tags": ["student:{/student}"]}]', initial_state => '{"in": {}, "capacity": {}}');
	SELECT cqrs_es.define_reducer('enrol', 'CapacityChanged', '[{"op": "set", "path": "/capacity/{/course}", "from": "/capacity"}]');
	SELECT cqrs_es.define_reducer('enrol', 'Enrolled', '[{"op": "set", "path": "/in/{/course}/{/student}", "value": true}]');
	SELECT cqrs_es.define_reducer('enrol', 'Left', '[{"op": "set", "path": "/in/{/course}/{/student}", "value": false}]');
	SELECT cqrs_es.define_command('enrol', 'Enrol', $$
		CASE WHEN (SELECT count(*) FROM jsonb_each(state->'in'->(command->>'course')) WHERE value::boolean) >= coalesce((state->'capacity'->>(command->>'course'))::int, 3)
				OR (state->'in'->(command->>'course')->>(command->>'student'))::boolean
				OR (SELECT count(*) FROM jsonb_each(state->'in') WHERE (value->>(command->>'student'))::boolean) >= 2
			THEN cqrs_es.reject('no')
			ELSE jsonb_build_object('type', 'Enrolled', 'payload', command) END $$);
}, SKEWS);

# The tags that the types above give.
my $course = sub { "course:$_[0]{course}" };
my $student = sub { ("course:$_[0]{course}", "student:$_[0]{student}") };
my %templates = (
	Enrolled => $student,
	Left => $student,
	CapacityChanged => $course,
	(map { ($_ => sub { "name:$_[0]{name}" }) } qw(Registered Suspended)),
	Renamed => sub { map { "name:$_" } @{ $_[0] }{qw(old name)} },
	InvoiceIssued => sub { 'invoices' },
	SeatTaken => sub { "seat:$_[0]{course}" },
	(map { ("Skew$_" => sub { exists $_[0]{round} ? "skew:$_[0]{round}" : () }) } 0 .. SKEWS),
	(map { ("R$_" => sub { map { "t:$_" } @{ $_[0]{t} // [] } }) } 0 .. 4));

# --- worlds: what a racer does in a round

sub chance { return rand() < $_[0] }
sub one_of { return $_[ int rand @_ ] }
sub some { my ($most, @of) = @_; my %some = map { ($_ => 1) } map { one_of(@of) } 1 .. 1 + int rand $most; return sort keys %some }
sub event { my ($type, %payload) = @_; return { type => $type, payload => \%payload } }

my %world = (
	place => sub {
		my ($racer, $round) = @_;
		my $course = "p$round";
		my $query = [ { types => [qw(Enrolled CapacityChanged)], tags => ["course:$course"] } ];
		my $place = event('Enrolled', course => $course, student => "s$racer->{number}");
		$racer->decide(what => 'place', query => $query, tries => 1, way => one_of('apart', 'apart', 'apart', 'together', 'late', 'low'),
			rule => sub { @{ $_[0] } ? () : $place });
	},
	course => sub {
		my ($racer, $round) = @_;
		my @courses = map { "c$round-$_" } 1, 2;
		my $student = "s$round-" . int($racer->{number} / 2);
		my @hows = map {
			my $course = $_;
			{
				what => 'course',
				query => [ { types => [qw(CapacityChanged Enrolled Left)], tags => ["course:$course"] }, { types => [qw(Enrolled Left)], tags => ["student:$student"] } ],
				rule => sub { may_enrol($course, $student, @{ $_[0] }) ? event('Enrolled', course => $course, student => $student) : () },
				before => sub { event('Left', course => $course, student => $student) },
			}
		} @courses;
		my $lot = rand;
		if ($lot < 0.10) { $racer->write(event('CapacityChanged', course => one_of(@courses), capacity => 1 + int rand 5)) }
		elsif ($lot < 0.20) { $racer->write(event('Left', course => one_of(@courses), student => $student)) }
		elsif ($lot < 0.25) { $racer->write(map { event('Left', course => $_, student => $student) } @courses) }
		elsif ($lot < 0.35 && !$racer->{single}) { $racer->decide_both(@hows) }
		elsif ($lot < 0.55)
		{
			# two racers may send the same command at the same time; it counts once
			my $id = sprintf '00000000-0000-4000-8000-%06d%06d', $round, $racer->{number} / 2;
			$racer->execute('enrol', 'Enrol', { course => $courses[0], student => $student }, chance(0.7) ? $id : undef);
		}
		else { $racer->decide(%{ one_of(@hows) }) }
	},
	name => sub {
		my ($racer, $round) = @_;
		my @names = map { "n$round-$_" } 1 .. 3;
		my ($name, $old) = (one_of(@names), one_of(@names));
		my @query = [ { types => [qw(Registered Renamed Suspended)], tags => ["name:$name"] } ];
		@query = [ { tags => ["name:$name"] } ] if chance(0.3);
		my $free = sub { !is_taken($name, @{ $_[0] }) };
		if (chance(0.2)) { $racer->write(event('Suspended', name => $name)) }
		elsif (chance(0.3) && $old ne $name)
		{
			# both names matter: the old one must be taken
			my $both = [ map { { tags => ["name:$_"], types => [qw(Registered Renamed Suspended)] } } $old, $name ];
			$racer->decide(what => 'rename', query => $both, rule => sub { $free->($_[0]) && is_taken($old, @{ $_[0] }) ? event('Renamed', old => $old, name => $name) : () });
		}
		else { $racer->decide(what => 'name', query => @query, rule => sub { $free->($_[0]) ? event('Registered', name => $name) : () }, before => sub { event('Suspended', name => $name) }) }
	},
	invoice => sub {
		my ($racer, $round) = @_;
		my $query = one_of([ { tags => ['invoices'] } ], [ { types => ['InvoiceIssued'] } ], [ { types => ['InvoiceIssued'], tags => ['invoices'] } ]);
		$racer->decide(what => 'invoice', query => $query, backward => 1, max_count => 1, tries => 2,
			rule => sub { my ($last) = @{ $_[0] }; event('InvoiceIssued', number => ($last ? $last->{payload}{number} : 0) + 1) });
	},
	skew => sub {
		my ($racer, $round) = @_;
		my $type = 'Skew' . $round % SKEWS;
		my $other = 'Skew' . SKEWS;
		my $by_type = $racer->{number} % 2;
		# who asks by tag appends the type that is asked for, without that tag; who asks by type the tag, with another type
		my $answer = $by_type ? event($other, round => "k$round") : event($type, of => "k$round");
		my $query = $by_type ? [ { types => [$type] } ] : [ { tags => ["skew:k$round"] } ];
		$racer->decide(what => 'skew', query => $query, from => $racer->{before}, tries => 1, way => one_of('apart', 'apart', 'together', 'late'),
			rule => sub { (grep { ($_->{payload}{of} // $_->{payload}{round} // '') eq "k$round" } @{ $_[0] }) ? () : $answer }, before => sub { () });
	},
	seat => sub {
		my ($racer, $round) = @_;
		my $course = "h$round";
		# who asks for a slot and then has it, in the handler, may meet another one who does: deadlock
		$racer->decide(what => 'seat', query => [ { types => ['SeatTaken'], tags => ["seat:$course"] } ], may => ['40P01'], way => one_of('apart', 'together', 'late'),
			rule => sub { @{ $_[0] } < 3 ? event('SeatWanted', course => $course) : () });
	},
	random => sub {
		my ($racer, $round) = @_;
		my @tags = map { "r$round-$_" } 1 .. 4;
		my @types = map { "R$_" } 0 .. 4;
		# everything is seldom asked for, and in a few rounds often
		my $everything = $round % 5 ? 0.01 : 0.25;
		my $item = sub {
			my $lot = rand;
			return {} if chance($everything);
			return { types => [ some(4, @types) ], tags => [ map { "t:$_" } some(3, @tags) ] } if $lot < 0.5;
			return { tags => [ map { "t:$_" } some(3, @tags) ] } if $lot < 0.9;
			return { types => [ some(2, @types) ] };
		};
		my @query = map { $item->() } 1 .. 1 + int rand 3;
		my $event = sub {
			my @own = chance(0.8) ? some(3, @tags) : ();
			my @given = chance(0.3) && $_[0] ? map { "t:$_" } some(2, @tags) : ();
			return { type => one_of(@types), payload => @own ? { t => \@own } : {}, @given ? (tags => \@given) : () };
		};
		my @events = map { $event->(1) } 1 .. 1 + int rand 2;
		my %how = chance(0.5) ? (backward => 1, max_count => 1) : (from => $racer->{before});
		$how{from} //= 0;
		if (chance(0.2)) { $racer->write(map { $event->(chance(0.3)) } 1 .. 1 + int rand 3); return }
		$racer->decide(what => 'random', query => \@query, %how, rule => sub { @events }, tries => 2, before => sub { $event->(1) });
	});

sub may_enrol
{
	my ($course, $student, @events) = @_;
	my ($capacity, %in) = (3);

	foreach my $event (@events)
	{
		my $payload = $event->{payload};
		if ($event->{type} eq 'CapacityChanged') { $capacity = $payload->{capacity} }
		elsif ($event->{type} eq 'Enrolled') { $in{ $payload->{course} }{ $payload->{student} } = 1 }
		else { delete $in{ $payload->{course} }{ $payload->{student} } }
	}
	return keys %{ $in{$course} // {} } < $capacity && !$in{$course}{$student} && 2 > grep { $in{$_}{$student} } keys %in;
}

sub is_taken
{
	my ($name, @events) = @_;
	my $taken = 0;

	foreach my $event (@events)
	{
		my $payload = $event->{payload};
		$taken = 0 if $event->{type} eq 'Suspended' && $payload->{name} eq $name || $event->{type} eq 'Renamed' && $payload->{old} eq $name;
		$taken = 1 if $event->{type} =~ /^Re/ && $payload->{name} eq $name;
	}
	return $taken;
}

# --- processes

my $parent = $$;

sub connected { return Session->new($node->host, $node->port, $user, 'postgres') // die 'no connection' }

my %children;

# A process that does something for each line it is told, and says when it is done.
sub start
{
	my ($number, $play, $end) = @_;
	pipe my $lines, my $tell or die "no pipe: $!";
	pipe my $done, my $say or die "no pipe: $!";
	my $pid = fork // die "could not fork: $!";

	if (!$pid)
	{
		close $tell;
		close $done;
		$SIG{$_} = 'DEFAULT' foreach qw(TERM INT HUP);
		eval {
			srand $seed + 7919 * $number;
			my $me = $play->();
			while (my $line = readline $lines)
			{
				chomp $line;
				$me->($line);
				syswrite $say, 'x';
				last if $line eq 'end';
			}
			1;
		} or append_to_file("$directory/complaints", "process $number: " . (ref $@ ? "$@->{state} $@->{message}" : $@) . "\n");
		POSIX::_exit(0);
	}
	close $lines;
	close $say;
	$tell->autoflush;
	$children{$pid} = { tell => $tell, done => $done };
	return $children{$pid};
}

END { if ($$ == ($parent // 0)) { kill 'KILL', keys %children } }

my @racers = map { my $number = $_; start($number, sub {
			my $racer = TagRacer->new($number, \&connected, directory => $directory, generic => $number % 4 == 3);
			return sub {
				my ($line) = @_;
				my ($what, $round, $before, $single) = split / /, $line;
				if ($what eq 'end') { Storable::nstore({ map { ($_ => $racer->{$_}) } qw(notes errors done complaints) }, "$directory/racer-$number"); return }
				@$racer{qw(before single)} = ($before, $single);
				$world{$what}->($racer, $round);
			};
}) } 0 .. RACERS - 1;

# Follow a query from the last row on: nothing is passed over.
my @followers = map { my $query = $_; start(100 + @$query, sub {
			my ($session, @seen) = (connected());
			my $file = "$directory/follower-" . $$;
			return sub {
				my ($line) = @_;
				if ($line eq 'end') { Storable::nstore({ query => $query, seen => \@seen, whole => 1, what => 'a follower' }, $file); return }
				my $rows;
				do
				{
					($rows) = $session->ask(sprintf q{SELECT global_position FROM cqrs_es.read_matching('%s', after_position => %s, max_count => 50)}, TagRacer::json($query), $seen[-1] // 0);
					push @seen, map { $_->[0] } @$rows;
				} while (@$rows);
			};
}) } [ { tags => ['invoices'] } ], [ { types => [qw(Enrolled Left)] }, { types => [qw(R0 R1)] } ], [ {}, {}, {} ];

# Whoever looks at the end of the log sees what was seen before, and what came behind.
my $watcher = start(200, sub {
		my ($session, @notes) = (connected());
		return sub {
			my ($line) = @_;
			if ($line eq 'end') { Storable::nstore(\@notes, "$directory/watcher"); return }
			my ($rows) = $session->ask(q{SELECT global_position FROM cqrs_es.read_matching('[{}]', max_count => 6, backward => true)});
			my @seen = reverse map { $_->[0] } @$rows;
			push @notes, { query => [ {} ], from => $seen[0] - 1, seen => \@seen, whole => 1, what => 'a watcher' } if @seen;
		};
});

# --- rounds

srand $seed;
my $session = connected();
my $begin = time;
my $played = 0;
my %played;
my @others = (@followers, $watcher);
my $busy = 0;

while ($played < $rounds && (!$seconds || time - $begin < $seconds))
{
	my $kind = one_of(@kinds);
	my $before = $session->value('SELECT coalesce(max(global_position), 0) FROM cqrs_es.events');
	$played++;
	$played{$kind}++;
	my $single = chance(0.4) ? 1 : 0;
	print { $_->{tell} } "$kind $played $before $single\n" foreach @racers;
	if (!$busy) { print { $_->{tell} } "look\n" foreach @others }
	$busy = 1;
	foreach my $racer (@racers) { sysread $racer->{done}, my $x, 1 or BAIL_OUT('a racer is gone: ' . (-e "$directory/complaints" ? slurp_file("$directory/complaints") : '')) }
	if ($played % 4 == 0) { sysread $_->{done}, my $x, 1 foreach @others; $busy = 0 }
}
if ($busy) { sysread $_->{done}, my $x, 1 foreach @others }
my $took = time - $begin;
foreach my $child (@others) { print { $child->{tell} } "look\n"; sysread $child->{done}, my $x, 1 }
foreach my $child (@racers, @others) { print { $child->{tell} } "end\n"; sysread $child->{done}, my $x, 1 }
waitpid $_, 0 foreach keys %children;
%children = ();

# --- the judgement

my $oracle = TagOracle->new(\%templates);
$oracle->load($session);
my (%errors, %done, @complaints);
foreach my $number (0 .. RACERS - 1)
{
	my $racer = Storable::retrieve("$directory/racer-$number");
	$oracle->judge(@{ $racer->{notes} });
	$errors{$_} += $racer->{errors}{$_} foreach keys %{ $racer->{errors} };
	$done{$_} += $racer->{done}{$_} foreach keys %{ $racer->{done} };
	push @complaints, @{ $racer->{complaints} // [] };
}
$oracle->judge(@{ Storable::retrieve("$directory/watcher") });
my @follow = map { Storable::retrieve($_) } glob "$directory/follower-*";
$oracle->judge(@follow);
push @complaints, split /\n/, slurp_file("$directory/complaints") if -e "$directory/complaints";

sub shown { my @what = @_; return join "\n", @what[ 0 .. ($#what > 9 ? 9 : $#what) ], $#what > 9 ? '... of ' . @what : () }

my %by_kind;
foreach my $complaint ($oracle->complaints) { push @{ $by_kind{ $complaint =~ s/:.*//sr } }, $complaint }
foreach my $kind (
	[ unseen => 'no decision missed an event that concerned it' ],
	[ missed => 'no read left out what matches up to its last row' ],
	[ ghost => 'no read showed what does not match, or is not in the log' ],
	[ lost => 'what was acknowledged is in the log' ],
	[ honest => 'a condition that failed names the event that was in the way' ],
	[ tags => 'each event has the tags that its type and its writer gave it' ],
	[ order => 'positions are unique' ])
{
	is(shown(@{ $by_kind{ $kind->[0] } // [] }), '', $kind->[1]);
}
is(shown(@complaints), '', 'nobody met an error that was not to be expected');

my (%wrong, %state, %wins, %skewed, %commands, $last);
foreach my $event ($oracle->events)
{
	my ($type, $payload) = @$event{qw(type payload)};

	$commands{$_}++ foreach @{ $event->{command} };
	if ($type eq 'Enrolled')
	{
		my ($course, $student) = @$payload{qw(course student)};
		if ($course =~ /^p/) { $wins{$course}++; next }
		push @{ $wrong{course} }, "at $event->{position}"
		  if !may_enrol($course, $student, @{ $state{$course} // [] }, grep { $_->{payload}{course} ne $course } @{ $state{$student} // [] });
	}
	if ($type =~ /^(Registered|Renamed)$/ && is_taken($payload->{name}, @{ $state{"name $payload->{name}"} // [] }))
	{
		push @{ $wrong{name} }, "at $event->{position}: $payload->{name}";
	}
	if ($type eq 'InvoiceIssued')
	{
		push @{ $wrong{invoice} }, "$payload->{number} at $event->{position} follows " . ($last // 0) if $payload->{number} != ($last // 0) + 1;
		$last = $payload->{number};
	}
	if ($type eq 'SeatTaken') { push @{ $wrong{seat} }, "at $event->{position}" if ++$state{"seats $payload->{course}"} > 3 }
	if ($type =~ /^Skew/) { $skewed{ $payload->{of} // $payload->{round} }{$type}++ }
	push @{ $state{ $payload->{course} } }, $event if exists $payload->{course};
	push @{ $state{ $payload->{student} } }, $event if exists $payload->{student};
	push @{ $state{"name $_"} }, $event foreach grep { defined } @$payload{qw(name old)};
}
foreach my $rule (
	[ course => 'no course has more students than places, no student more than two courses' ],
	[ name => 'no name is taken twice' ],
	[ invoice => 'invoice numbers have no hole and none is there twice' ],
	[ seat => 'nor are more seats taken than there are, by a handler' ])
{
	next if !$played{ $rule->[0] };
	is(shown(@{ $wrong{ $rule->[0] } // [] }), '', $rule->[1]);
}
is(shown(map { "$wins{$_} of $_" } grep { /^p/ && $wins{$_} != 1 } sort keys %wins), '', 'of sixteen who want the last place one gets it') if $played{place};
is(scalar(grep { /^p/ } keys %wins), $played{place}, 'and there is always one') if $played{place};
is(shown(grep { keys %{ $skewed{$_} } > 1 } sort keys %skewed), '', 'of two who append what the other asks for, by type and by tag, one wins') if $played{skew};
is(scalar(keys %skewed), $played{skew}, 'and there is always one') if $played{skew};
is(shown(map { "$commands{$_} of $_" } grep { $commands{$_} != 1 } sort keys %commands), '', 'a command that is sent twice counts once') if $played{course};
foreach my $follower (@follow)
{
	my @all = $oracle->matching($follower->{query}, 0);
	is(scalar @{ $follower->{seen} }, scalar @all, 'who follows ' . TagOracle::as_json($follower->{query}) . ' from the last row on gets all');
}

$session->close;
$node->stop;
is(join("\n", Faults::in_log(slurp_file($node->logfile))), '', 'no fault in the server\'s log');
my $judged = $oracle->judged;
note(sprintf '%d rounds in %.1f s (%s): %d events', $played, $took, join(', ', map { "$played{$_} $_" } sort keys %played), scalar $oracle->events);
note("$_: $judged->{$_}") foreach sort keys %$judged;
note("$_ $errors{$_} times") foreach sort keys %errors;
note("$_: $done{$_}") foreach sort keys %done;
cmp_ok($judged->{'in the log'} // 0, '>', $played, 'there were decisions to judge: ' . ($judged->{'in the log'} // 0));
cmp_ok($judged->{QE005} // 0, '>', $played / 10, 'and conditions that failed: ' . ($judged->{QE005} // 0));

done_testing();
