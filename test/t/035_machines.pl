# What the scripts that "make demo" and "make test" begin with do on a machine
# that is not as they would like it: which directory they work in, and which
# PostgreSQL they build for. (On whole machines of their own: test/bare-machines.)

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();

sub said
{
	my (%environment) = @_;
	my $command = delete $environment{command};
	local @ENV{keys %environment} = values %environment;
	my ($stdout, $stderr);
	my $ok = IPC::Run::run($command, '<', \undef, '>', \$stdout, '2>', \$stderr);
	chomp $stdout;
	return ($ok, $stdout, $stderr);
}

#
# The directory to work in
#
my $script = "$ENV{TESTDIR}/test/work-directory";
sub made_in
{
	my ($tmpdir) = @_;
	my ($ok, $made, $stderr) = said(command => [$script], TMPDIR => $tmpdir);
	ok($ok && -d $made && -w $made, "TMPDIR=$tmpdir: there is a directory");
	rmdir $made or fail("$made is empty");
	return ($made, $stderr);
}

my $short = "/tmp/cqrs_es_$$";
mkdir $short;
my ($made, $stderr) = made_in($short);
like($made, qr{^\Q$short\E/cqrs_es\.}, 'in TMPDIR');
is($stderr, '', 'without a word');
($made, $stderr) = made_in("$short/");
like($made, qr{^\Q$short\E/cqrs_es\.}, 'a slash at the end is none too many');
my @bad = (
	[ "$short/it's", 'characters' ], [ "$short/a b", 'characters' ], [ "$short/a,b", 'characters' ], [ "$short/a:b", 'characters' ],
	[ "$short/a\$b", 'characters' ], [ "$short/a\\b", 'characters' ], [ $short . '/x' x 50, 'too long' ], [ "$short/closed", 'can be made' ], [ "$short/none", 'can be made' ]);
foreach my $bad (@bad)
{
	my ($tmpdir, $why) = @$bad;
	system('mkdir', '-p', $tmpdir) if $tmpdir !~ /none/;
	chmod 0500, $tmpdir if $tmpdir =~ /closed/;
  SKIP:
	{
		skip 'root makes something everywhere', 3 if $tmpdir =~ /closed/ && $> == 0;
		($made, $stderr) = made_in($tmpdir);
		like($made, qr{^/tmp/cqrs_es\.}, 'elsewhere');
		like($stderr, qr{^test/work-directory: not in \Q$tmpdir\E: .*$why}, 'and why is said');
	}
}
system('rm', '-rf', $short);

#
# PostgreSQL's version
#
my $pg_config = "$dir/pg_config";
append_to_file($pg_config, qq{#!/bin/sh\ncase \$1 in --version) echo "\$FAKE_VERSION" ;; *) exec "$ENV{PG_CONFIG}" "\$@" ;; esac\n});
chmod 0755, $pg_config;
foreach my $version ('PostgreSQL 14.9', 'PostgreSQL 19beta1', 'PostgreSQL 19devel', 'PostgreSQL 20.1 (Debian 20.1-1)', 'PostgreSQL 9.6.24')
{
	my ($ok, $stdout, $stderr) = said(command => ["$ENV{TESTDIR}/test/bootstrap"], PG_CONFIG => $pg_config, FAKE_VERSION => $version);
	ok(!$ok, "$version is refused");
	is($stderr, "test/bootstrap: cqrs_es needs PostgreSQL 15 to 18, this is $version: choose another with PG_CONFIG=...\n", 'and why is said');
}

# (for the version that is here, since no other is installed)
my $name = `"$ENV{PG_CONFIG}" --version`;
chomp $name;
my ($ok, $stdout) = said(command => ["$ENV{TESTDIR}/test/bootstrap"], PG_CONFIG => $pg_config, FAKE_VERSION => $name);
is($stdout, $pg_config, "$name is taken");
($ok, $stdout) = said(command => ["$ENV{TESTDIR}/test/bootstrap"], PG_CONFIG => $pg_config, FAKE_VERSION => $name =~ s/PostgreSQL (\d+)\S*/PostgreSQL $1beta2/r);
is($stdout, $pg_config, 'so is its beta version');
foreach my $version ('14', '19')
{
	($ok, $stdout, $stderr) = said(command => [ 'make', '-n', '-C', $ENV{TESTDIR}, "PG_CONFIG=$ENV{PG_CONFIG}", "MAJORVERSION=$version", "VERSION=${version}beta1", 'all' ]);
	like($stderr, qr/cqrs_es needs PostgreSQL 15 to 18; .* is of ${version}beta1/, "make refuses ${version}beta1");
}

done_testing();
