
# What no session may do to a server, whatever it asks for: crash it, get an internal
# error out of it, or leave something behind that the server then warns of. And which
# SQLSTATEs a client may see: those that docs/reference.md states.
#
#	Faults::settings()			for postgresql.conf, before the start
#	Faults::in_log($text, ...)	lines that must not be there, each with its statement; with concurrent => 1
#								but for what anybody can meet whose objects are dropped by others, with
#								server => 1 but for what is raised by the server itself
#	Faults::stated()			a hash of the SQLSTATEs

package Faults;

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Utils;

sub settings
{
	return join "\n", 'restart_after_crash = on', 'log_statement = none', 'log_min_messages = warning', 'log_min_error_statement = error',
	  'log_error_verbosity = verbose', 'track_functions = all', 'deadlock_timeout = 100ms', '';
}

# The server says XX000 itself, as it does to everybody, where a name was looked up and
# what it stands for is dropped before it is used, and where two change one row of the catalog.
my $of_the_server = qr/^(?:cache lookup failed for|could not open relation with OID|could not find tuple for|tuple concurrently (?:updated|deleted))/;

# What the functions for advisory locks say to whoever gives back one that he has not.
my $advisory = qr/^you don't own a lock of type (?:Share|Exclusive)Lock/;

# Files that warn of what a transaction has not given back, or of memory that is damaged.
my $guards = qr/^(?:resowner|snapmgr|relcache|catcache|bufmgr|localbuf|spi|xact|lock|lwlock|lmgr|predicate|portalmem|aset|generation|slab|mcxt|procarray|tupdesc|plancache|dsm|fd|trigger|inval)\.c/;

sub in_log
{
	my ($log, %may) = @_;
	my @faults = $log =~ /^.*(?:terminated by signal|TRAP: |\bPANIC: |exited with exit code (?!1\b)).*(?:\n.*Failed process was running.*)?/mg;
	my %ours = map { (s{.*/}{}r, 1) } glob "$ENV{TESTDIR}/src/*/*.c $ENV{TESTDIR}/src/*.c";

	# one message: its first line, with what the server adds
	foreach my $entry (split /^(?=.*? (?:ERROR|FATAL|WARNING|NOTICE|LOG|PANIC):  )/m, $log)
	{
		my ($severity, $state, $message) = $entry =~ /^.*? (ERROR|FATAL|WARNING):  (\w{5}): (.*)/ or next;
		my ($file) = $entry =~ /LOCATION:  \S+, (\S+\.c):\d+/;
		$file //= '';
		push @faults, $entry
		  if $severity ne 'WARNING' && $state =~ /^XX/ && !($may{concurrent} && $message =~ $of_the_server && !$ours{$file}) && !($may{server} && !$ours{$file})
		  || $severity eq 'WARNING' && $file =~ $guards && $state !~ /^25/ && !($may{server} && $message =~ $advisory);
	}
	return @faults;
}

sub stated
{
	my ($table) = slurp_file("$ENV{TESTDIR}/docs/reference.md") =~ /^## SQLSTATEs\n(.*)/ms;
	my %codes = map { ($_ => 1) } $table =~ /^\| `(\w{5})` \|/mg;

	# what every statement of the server can end with
	return (%codes{ grep { !/^XX/ && $_ ne '39P01' } keys %codes }, map { ($_ => 1) } qw(00000 57014 25P02 54001));
}

1;
