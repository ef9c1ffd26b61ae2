# An HTTP receiver for tests of relays: perl receiver.pl PORT DIRECTORY
#
# Writes each request as a line into DIRECTORY/requests, in the order of arrival: when,
# path, status that it will get, Idempotency-Key, X-Attempt, stream#sequence, Authorization, body.
#
# DIRECTORY/answers says what is answered: lines "PATTERN STATUS SECONDS HEADER: VALUE",
# of which the first whose pattern matches stream#sequence counts; 200 without one. It
# waits for so many seconds before; the header may be left out, and "DATE+n" in it is the
# date in n seconds. Status "drip" is one of which a byte comes now and then.

use strict;
use warnings FATAL => 'all';
use Fcntl qw(:flock);
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use POSIX qw(strftime setlocale LC_ALL);
use Time::HiRes qw(time sleep);

my ($port, $directory) = @ARGV;
setlocale(LC_ALL, 'C');
$SIG{CHLD} = $SIG{PIPE} = 'IGNORE';

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 100, ReuseAddr => 1)
  or die "cannot listen at $port: $!";
while (1)
{
	my $client = $listener->accept or next;
	next if fork;
	close $listener;
	answer($client);
	exit;
}

sub answer
{
	my ($client) = @_;
	my ($request, %headers) = (scalar <$client> // return);
	while ((my $line = <$client>) =~ /^([^:]+): *(.*?)\r?$/)
	{
		$headers{ lc $1 } = $2;
	}
	my $length = $headers{'content-length'} // 0;
	read($client, my $body, $length) == $length or return;

	my $event = eval { decode_json($body) };
	$event = $event ? "$event->{aggregate_id}#$event->{sequence}" : '';
	my ($status, $seconds, $header) = rule($event);
	open my $requests, '>>', "$directory/requests" or die "requests: $!";
	flock $requests, LOCK_EX or die "flock: $!";
	syswrite $requests, join("\t", sprintf('%.3f', time), (split / /, $request)[1], $status, $headers{'idempotency-key'} // '',
		$headers{'x-attempt'} // '', $event, $headers{authorization} // '', $body) . "\n";
	close $requests;

	$client->autoflush;
	if ($status eq 'drip')
	{
		(print {$client} $_) && sleep 0.3 foreach split //, "HTTP/1.1 200 OK\r\nX: " . 'x' x 1000;
		return;
	}
	sleep $seconds;
	print {$client} "HTTP/1.1 $status Said\r\n", $header, "Content-Length: 5\r\nConnection: close\r\n\r\nsaid\0";
}

# Status, seconds, and a line of the header.
sub rule
{
	my ($event) = @_;
	open my $answers, '<', "$directory/answers" or return (200, 0, '');
	while (<$answers>)
	{
		chomp;
		my ($pattern, $status, $seconds, $header) = split / /, $_, 4;
		next if $event !~ /$pattern/;
		$header = $header ? "$header\r\n" : '';
		$header =~ s/DATE\+(\d+)/strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time + $1))/e;
		return ($status, $seconds, $header);
	}
	return (200, 0, '');
}
