# What append conditions promise, replayed over the log when everything is over.
#
# Whoever decided has noted what it asked and what it was told:
#
#	{ call, query, from, after, seen => [positions], whole, outcome, first }
#
# call		stands in the metadata of each event that the append wrote
# query		[{ types => [...], tags => [...] }, ...], as it was sent
# from		read_matching() read above this position
# after		what was sent as after_position
# seen		the rows of read_matching(), whole unless it was told to end before
# outcome	done, or the SQLSTATE that refused it; a transaction that was rolled back
#			for another reason leaves nothing to judge
# first		of QE005, the position that it names
#
# In the log's own order every decision saw just what matches below its first event,
# whoever wrote that. So:
#
#	unseen	nothing that matches stands between `after` and the first event of the call
#	missed	nothing that matches stands between `from` and the last row that was read
#			(or the first event), and was not read
#	ghost	nothing was read that is not in the log
#	tags	event_tags has just the tags that the events of their types, and the callers, gave
#	honest	a condition that failed names an event that matches, above `after`
#
#	my $oracle = TagOracle->new(\%templates);	# type => sub { payload => tags }
#	$oracle->load($session);
#	$oracle->judge(@notes);
#	$oracle->complaints						# strings, none if all is well
#
# The events: $oracle->events, hashes with position, type, payload (flat, of strings),
# tags, call; in order of position. $oracle->matching(query, above, up to) are positions.

package TagOracle;

use strict;
use warnings FATAL => 'all';

sub new
{
	my ($class, $templates) = @_;
	return bless { templates => $templates, complaints => [], judged => {} }, $class;
}

sub load
{
	my ($self, $session) = @_;
	my ($rows) = $session->ask(q{
		SELECT e.global_position, e.event_type, e.payload, e.metadata->>'call', ARRAY(SELECT jsonb_array_elements_text(e.metadata->'tags')),
			ARRAY(SELECT t.tag::text FROM cqrs_es.event_tags AS t WHERE t.global_position = e.global_position AND t.event_type = e.event_type AND t.tenant_id = e.tenant_id)
		FROM cqrs_es.events AS e ORDER BY 1});
	my ($stray) = $session->ask(q{
		SELECT tag, global_position FROM cqrs_es.event_tags AS t WHERE NOT EXISTS (SELECT FROM cqrs_es.events AS e WHERE e.global_position = t.global_position)});
	my ($before, @events) = (0);

	$self->complain("tags: $_->[0] of $_->[1], which is no event") foreach @$stray;
	foreach my $row (@$rows)
	{
		my ($position, $type, $payload, $call, $explicit, $stored) = @$row;
		my %event = (position => $position, type => $type, payload => payload($payload), call => $call // '');
		my %tags = map { ($_ => 1) } elements($explicit), $self->{templates}{$type} ? $self->{templates}{$type}->($event{payload}) : ();
		my $wanted = join ' ', sort keys %tags;
		# (a command's id is a tag that nobody gives)
		my $is = join ' ', sort grep { !/^command:/ } elements($stored);

		$self->complain("tags: $type at $position has \"$is\", should have \"$wanted\"") if $is ne $wanted;
		$self->complain("order: $position is there twice") if $position <= $before;
		$before = $position;
		$event{command} = [ grep { /^command:/ } elements($stored) ];
		$event{tags} = \%tags;
		push @events, \%event;
		push @{ $self->{tag}{$_} }, $position foreach keys %tags;
		push @{ $self->{type}{$type} }, $position;
		push @{ $self->{all} }, $position;
		$self->{at}{$position} = \%event;
		$self->{first}{ $event{call} } //= $position if $event{call} ne '';
	}
	$self->{events} = \@events;
	return;
}

sub events { return @{ $_[0]{events} } }
sub complaints { return @{ $_[0]{complaints} } }
sub judged { return $_[0]{judged} }
sub is_there { my ($self, $call) = @_; return exists $self->{first}{$call} }
sub at { my ($self, $position) = @_; return $self->{at}{$position} }

sub complain
{
	my ($self, $what) = @_;
	push @{ $self->{complaints} }, $what;
	return;
}

# The fields of a payload; an array of strings becomes an array.
sub payload
{
	my ($json) = @_;
	my %fields;

	while ($json =~ /"(\w+)": (?:"([^"]*)"|(-?[\d.]+)|\[([^\]]*)\])/g)
	{
		$fields{$1} = defined $4 ? [ map { s/"//gr } split /, */, $4 ] : $2 // $3;
	}
	return \%fields;
}

# Those of an array as PostgreSQL prints it; none of ours needs quotes within.
sub elements
{
	my ($array) = @_;
	return map { s/^"(.*)"$/$1/r } split /,/, substr $array // '{}', 1, -1;
}

sub fits
{
	my ($item, $event) = @_;

	return 0 if $item->{types} && !grep { $_ eq $event->{type} } @{ $item->{types} };
	return 0 if $item->{tags} && grep { !$event->{tags}{$_} } @{ $item->{tags} };
	return 1;
}

# Positions of the events that match, above one and below another, which may be undef.
sub matching
{
	my ($self, $query, $above, $below) = @_;
	my %found;

	foreach my $item (@$query)
	{
		my @lists = $item->{tags} ? map { $self->{tag}{$_} // [] } @{ $item->{tags} }[0]
		  : $item->{types} ? map { $self->{type}{$_} // [] } @{ $item->{types} }
		  : $self->{all} // [];

		foreach my $list (@lists)
		{
			for (my $i = behind($list, $above); $i < @$list && (!defined $below || $list->[$i] < $below); $i++)
			{
				$found{ $list->[$i] } = 1 if fits($item, $self->{at}{ $list->[$i] });
			}
		}
	}
	return sort { $a <=> $b } keys %found;
}

# Where in a rising list what is above a position begins.
sub behind
{
	my ($list, $above) = @_;
	my ($low, $high) = (0, scalar @$list);

	while ($low < $high)
	{
		my $middle = int(($low + $high) / 2);
		if ($list->[$middle] > $above) { $high = $middle }
		else { $low = $middle + 1 }
	}
	return $low;
}

sub judge
{
	my ($self, @notes) = @_;

	foreach my $note (@notes)
	{
		my $first = defined $note->{call} ? $self->{first}{ $note->{call} } : undef;
		my @seen = @{ $note->{seen} // [] };
		my $what = sprintf '%s %s %s after %s', $note->{what} // 'a decision', $note->{call} // '', as_json($note->{query}), $note->{after} // '-';

		$self->{judged}{ $note->{outcome} // 'read' }++;
		if (defined $first && defined $note->{after})
		{
			$self->{judged}{'in the log'}++;
			my @unseen = $self->matching($note->{query}, $note->{after}, $first);
			$self->complain("unseen: $what, first event $first: @unseen") if @unseen;
		}
		if (($note->{outcome} // '') eq 'done' && !defined $first) { $self->complain("lost: $what") }
		if ($note->{whole})
		{
			my $end = defined $first ? $first : @seen ? $seen[-1] + 1 : 0;
			my %seen = map { ($_ => 1) } @seen;
			my @missed = grep { !$seen{$_} } $self->matching($note->{query}, $note->{from} // 0, $end);
			$self->complain("missed: $what, read @seen: @missed") if @missed;
		}
		foreach my $position (@seen)
		{
			my $event = $self->{at}{$position};
			$self->complain("ghost: $what, read $position") if !$event || !grep { fits($_, $event) } @{ $note->{query} };
		}
		if (defined $note->{first})
		{
			my $event = $self->{at}{ $note->{first} };
			$self->complain("honest: $what, failed because of $note->{first}")
			  if !$event || $note->{first} <= $note->{after} || !grep { fits($_, $event) } @{ $note->{query} };
		}
	}
	return;
}

sub as_json
{
	my ($query) = @_;
	my $strings = sub { '[' . join(', ', map { "\"$_\"" } @{ $_[0] }) . ']' };

	return '[' . join(', ', map { my $item = $_; '{' . join(', ', map { "\"$_\": " . $strings->($item->{$_}) } grep { $item->{$_} } qw(types tags)) . '}' } @$query) . ']';
}

1;
