
# What is outside of the database, for tests of programs that talk to it: an HTTP and an
# SMTP server on loopback. They write down what they got, and can be told to fail.
#
#	my $outside = Outside->new($directory);
#	$outside->rules('to: b@' => 451, 'hang up' => 'hang');
#	$outside->requests('mail')	# of each: key, status, correlation, text
#
# A rule is a pattern and what becomes of requests that match it: a status instead of 200
# or 250, or 'hang': what it asks for is done, but there is never an answer.

package Outside;

use strict;
use warnings FATAL => 'all';
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils;

# The two servers, started, on ports of their own.
sub new
{
	my ($class, $directory) = @_;
	my $self = bless { log => "$directory/requests", rules => "$directory/rules", port => {} }, $class;
	append_to_file($self->{log}, '');
	$self->rules();
	$self->start();
	return $self;
}

sub start
{
	my ($self) = @_;
	foreach my $kind ('http', 'smtp')
	{
		my $socket = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', LocalPort => $self->{port}{$kind} // 0, ReuseAddr => 1)
		  or die "cannot listen: $!";
		$self->{port}{$kind} = $socket->sockport;
		push @{ $self->{sockets} }, $socket;
	}
	my $parent = $$;
	$self->{pid} = fork() // die "fork: $!";
	if (!$self->{pid})
	{
		POSIX::setpgid(0, 0);
		eval { $self->serve($parent) };
		POSIX::_exit(0);
	}
	$self->{owner} = $$;
	close $_ foreach splice @{ $self->{sockets} };
	return;
}

# Nobody is there any more, until start().
sub stop
{
	my ($self) = @_;
	kill 'TERM', -$self->{pid};
	waitpid $self->{pid}, 0;
	delete $self->{pid};
	return;
}

sub rules
{
	my ($self, @rules) = @_;
	my $text = '';
	while (my ($pattern, $action) = splice @rules, 0, 2) { $text .= "$action $pattern\n" }
	unlink "$self->{rules}.new";
	append_to_file("$self->{rules}.new", $text);
	rename "$self->{rules}.new", $self->{rules} or die "rename: $!";
	return;
}

# What was asked for until now, in order; of one kind, that is of a path or 'mail'.
sub requests
{
	my ($self, $kind) = @_;
	my @requests;
	foreach my $line (split /\n/, slurp_file($self->{log}))
	{
		my %request;
		@request{ 'kind', 'key', 'status', 'correlation', 'text' } = split /\t/, $line, 5;
		push @requests, \%request if !defined $kind || $request{kind} eq $kind;
	}
	return @requests;
}

# What was done: also where there was no answer.
sub done
{
	my ($self, $kind) = @_;
	return grep { $_->{status} =~ /^2|hang/ } $self->requests($kind);
}

# In the child: a process for each connection, which ends with this one, and this one with the test.
sub serve
{
	my ($self, $parent) = @_;
	local $SIG{CHLD} = 'IGNORE';
	local $SIG{TERM} = sub { POSIX::_exit(0) };
	my $select = IO::Select->new(@{ $self->{sockets} });
	while (getppid() == $parent)
	{
		foreach my $socket ($select->can_read(0.5))
		{
			my $connection = $socket->accept or next;
			my $pid = fork() // die "fork: $!";
			if (!$pid)
			{
				close $_ foreach @{ $self->{sockets} };
				$SIG{ALRM} = sub { POSIX::_exit(0) };
				alarm 120;
				eval { $connection->sockport == $self->{port}{smtp} ? $self->smtp($connection) : $self->http($connection) };
				POSIX::_exit(0);
			}
			close $connection;
		}
	}
	return;
}

sub http
{
	my ($self, $connection) = @_;
	local $/ = "\r\n";
	my ($path) = (<$connection> // '') =~ m{^POST /?(\S*) } or return;
	my %header;
	while (defined(my $line = <$connection>))
	{
		last if $line !~ /^([\w-]+): *(.*?)\r\n/;
		$header{ lc $1 } = $2;
	}
	read $connection, my $body, $header{'content-length'} // 0;
	my $status = $self->note($path, $header{'idempotency-key'} // '', $header{'correlation-id'} // '', $body, 200);
	my $answer = sprintf '{"suspicious": %s}', $body =~ /"amount": ?"?(\d+)/ && $1 > 500 ? 'true' : 'false';
	print $connection "HTTP/1.1 $status x\r\nContent-Type: application/json\r\nConnection: close\r\n",
	  'Content-Length: ', length $answer, "\r\n\r\n$answer";
	return;
}

sub smtp
{
	my ($self, $connection) = @_;
	local $/ = "\r\n";
	$connection->autoflush(1);
	print $connection "220 outside\r\n";
	while (defined(my $line = <$connection>))
	{
		if ($line =~ /^DATA/i)
		{
			print $connection "354 go on\r\n";
			my $text = '';
			while (defined($line = <$connection>) && $line ne ".\r\n") { $text .= $line }
			return if !defined $line;
			my ($key) = $text =~ /^Message-ID: <(.*?)@/mi;
			my ($correlation) = $text =~ /^X-Correlation-ID: (.*?)\r/mi;
			print $connection $self->note('mail', $key // '', $correlation // '', $text, 250), " said\r\n";
		}
		elsif ($line =~ /^QUIT/i) { print $connection "221 bye\r\n"; return }
		else { print $connection "250 yes\r\n" }
	}
	return;
}

# Decide on a request, and write it down before it is answered.
sub note
{
	my ($self, $kind, $key, $correlation, $text, $status) = @_;
	$text =~ s/\s+/ /g;
	foreach my $rule (split /\n/, slurp_file($self->{rules}))
	{
		my ($action, $pattern) = split / /, $rule, 2;
		if ("$kind $text" =~ /$pattern/) { $status = $action; last }
	}
	append_to_file($self->{log}, join("\t", $kind, $key, $status, $correlation, $text) . "\n");
	if ($status eq 'hang') { sleep 1 while 1 }
	return $status;
}

sub DESTROY
{
	my ($self) = @_;
	kill 'TERM', -$self->{pid} if $self->{pid} && $self->{owner} == $$;
	return;
}

1;
