
# A session with a server, or with a pooler, that stays open: the simple query
# protocol over a socket, some 50 microseconds a statement, which no psql that is
# started, or asked through a pipe, comes near.
#
#	my $session = Session->new($host, $port, $user, $database);
#	my @results = $session->ask('SELECT 1, NULL; SELECT 2');	# ([[1, undef]], [[2]])
#	$session->try(...)			# the same, but an error is $session->{state}, {message} and {detail};
#								# {fields} has all of its fields, by their letters in the protocol
#	$session->{transaction}		# I: none, T: in one, E: in one that failed
#	$session->close				# as the death of a client: without a farewell
#
# When the connection is lost, state is 08006, and the session is closed.

package Session;

use strict;
use warnings FATAL => 'all';
use IO::Socket::UNIX;

our $asked = 0;		# messages that all of them have sent

sub new
{
	my ($class, $host, $port, $user, $database) = @_;
	my $self = bless { buffer => '', notices => [] }, $class;

	$self->{socket} = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => "$host/.s.PGSQL.$port") or return;
	my $startup = pack('N', 196608) . join('', map { "$_\0" } 'user', $user, 'database', $database, '');
	$self->{socket}->syswrite(pack('N', 4 + length $startup) . $startup) or return;
	$self->read_results;
	return $self->{socket} && !$self->{state} ? $self : undef;
}

sub ask
{
	my ($self, $query) = @_;
	my @results = $self->try($query);

	die "$self->{state}: $self->{message}\n$query\n" if $self->{state};
	return @results;
}

# The only value of a query.
sub value
{
	my ($self, $query) = @_;
	return ($self->ask($query))[0][0][0];
}

sub try
{
	my ($self, $query) = @_;

	$self->send($query);
	return $self->read_results;
}

sub send
{
	my ($self, $query) = @_;

	$asked++;
	local $SIG{PIPE} = 'IGNORE';
	$self->{socket} && $self->{socket}->syswrite('Q' . pack('N', 5 + length $query) . "$query\0")
	  or return $self->lost;
	return 1;
}

sub close
{
	my ($self) = @_;

	close $self->{socket} if $self->{socket};
	undef $self->{socket};
	$self->{transaction} = 'I';
	return;
}

sub lost
{
	my ($self) = @_;

	$self->close;
	@$self{qw(state message detail)} = ('08006', 'connection lost', '');
	return;
}

# What comes until the server is ready for the next query.
sub read_results
{
	my ($self) = @_;
	my (@results, $rows);

	return $self->lost if !$self->{socket};
	@$self{qw(state message detail)} = ('', '', '');
	while (1)
	{
		while (length $self->{buffer} < 5 || length $self->{buffer} < 1 + unpack('x N', $self->{buffer}))
		{
			my $read = sysread $self->{socket}, $self->{buffer}, 65536, length $self->{buffer};
			next if !defined $read && $!{EINTR};
			return $self->lost if !$read;
		}
		my ($type, $length) = unpack 'a N', $self->{buffer};
		my $body = substr $self->{buffer}, 5, $length - 4;
		substr $self->{buffer}, 0, 1 + $length, '';

		if ($type eq 'D')
		{
			my ($columns, $at, @row) = (unpack('n', $body), 2);
			for (1 .. $columns)
			{
				my $size = unpack 'N', substr $body, $at, 4;
				$at += 4;
				if ($size == 0xFFFFFFFF) { push @row, undef }
				else { push @row, substr $body, $at, $size; $at += $size }
			}
			push @$rows, \@row;
		}
		elsif ($type eq 'T') { $rows = [] }
		elsif ($type eq 'C') { push @results, $rows if $rows; undef $rows }
		elsif ($type eq 'E' || $type eq 'N')
		{
			my %field = map { (substr($_, 0, 1), substr($_, 1)) } grep { length } split /\0/, $body;
			if ($type eq 'E') { @$self{qw(state message detail fields)} = (@field{qw(C M)}, $field{D} // '', \%field) }
			else { push @{ $self->{notices} }, $field{M} }
		}
		elsif ($type eq 'R' && unpack('N', $body) != 0) { die 'a server that asks for a password' }
		elsif ($type eq 'Z') { $self->{transaction} = $body; return @results }
	}
}

1;
