
# Each message that docs/troubleshooting.md explains is one of our sources, or one of
# PostgreSQL itself that is listed here. Who mends a message finds its explanation so.
# A message that nobody raises is planted, to see that it would be found.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{TESTDIR};

# What the server, its drivers or poolers say by themselves.
my @servers = map { qr/^$_$/ } (
	'schema "cqrs_es" (does not|already) exists?',
	'extension "cqrs_es" (must be installed in schema "pg_catalog"|is not available)',
	'unrecognized configuration parameter "cqrs_es\.node_id"',
	'could not access file "\$libdir/cqrs_es"',
	'permission denied for (schema cqrs_es|table events|function last_position)',
	'permission denied to set parameter "cqrs_es\.tenant_id"',
	'function cqrs_es\.append_event\(unknown, integer, unknown, unknown\) does not exist',
	'duplicate key value violates unique constraint "events_pkey"',
	'null value in column "\.\.\." of relation "events" violates not-null constraint',
	'unsupported Unicode escape sequence',
	'cannot execute append_event\(\) in a read-only transaction',
	'no partition of relation "events" found for row',
	'deadlock detected',
	'canceling statement due to (lock|statement) timeout',
	'prepared statement "\.\.\." (already exists|does not exist)');

my @ours = formats();
cmp_ok(scalar @ours, '>', 300, 'the sources have messages');

my ($rows, %seen) = (0);
foreach my $line (grep { /^\| `/ } split /\n/, explained(slurp_file("$root/docs/troubleshooting.md")))
{
	my ($cell) = $line =~ /^\| (.*?) \| /;
	$rows++;
	foreach my $message ($cell =~ /`([^`]+)`/g)
	{
		next if $message eq 'QE301';
		ok(is_raised($message), $message);
		is($seen{$message}++, 0, 'and it stands there once');
	}
}
cmp_ok($rows, '>', 60, 'the page explains messages');
ok(!is_raised('the moon is not declared in stream "..."'), 'a message that nobody raises is found');

done_testing();

# The tables of messages end where what is no error begins.
sub explained
{
	my ($text) = @_;
	return $text =~ s/^## What is no error\n.*//msr;
}

# Does a message, "..." for what varies, look like one that is raised?
sub is_raised
{
	my ($message) = @_;
	return 1 if grep { $message =~ $_ } @servers;
	return scalar grep { $message =~ $_ } @ours;
}

# The strings of the sources as patterns: what is put in may be anything, but words
# must be left.
sub formats
{
	my %patterns;
	foreach my $file (glob("$root/src/*/*.c"), glob("$root/src/*.c"), glob("$root/sql/*/*.sql"), glob("$root/sql/[0-9]*.sql"))
	{
		my $source = slurp_file($file);
		my @strings = $file =~ /\.c$/
			? map { my $string = $_; join '', $string =~ /"((?:[^"\\\n]|\\.)*)"/g } $source =~ /((?:"(?:[^"\\\n]|\\.)*"\s*)+)/g
			: $source =~ /\bRAISE\s+[A-Z]+\s+'((?:[^']|'')*)'/g;
		foreach my $string (@strings)
		{
			next if ($string =~ s/%[a-z]+//gr) !~ /[A-Za-z]+ [A-Za-z]+/;
			$string =~ s/\\"/"/g;
			my $pattern = join '.+', map { quotemeta } split /%(?:ll)?[a-z]\b|%/, $string, -1;
			$patterns{$pattern} = qr/^$pattern$/;
		}
	}
	return values %patterns;
}
