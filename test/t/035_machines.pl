# What the scripts that "make demo" and "make test" begin with do on a machine
# that is not as they would like it: which directory they work in, and which
# PostgreSQL they build for. On whole machines of their own test/bare-machines tries
# that: what it makes of them, whatever they do.

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

#
# A machine on which something is missing: apt-get gets it, also where one of its sources
# cannot be had, for which "apt-get update" fails
#
my $bin = "$dir/bin";
mkdir $bin;
sub program
{
	my ($program, $text) = @_;
	unlink "$bin/$program";
	append_to_file("$bin/$program", "#!/bin/sh\n$text\n");
	chmod 0755, "$bin/$program";
	return;
}
# (Debian's pg_config in the path is a script; that of the server needs nothing else)
chomp(my $bindir = `"$ENV{PG_CONFIG}" --bindir`);
symlink("$bindir/pg_config", "$bin/pg_config");
foreach my $program ('bash', 'env', 'sed', 'true', 'chmod')
{
	symlink((grep { -x } map { "$_/$program" } split /:/, $ENV{PATH})[0], "$bin/$program");
}
program('gcc', '');
program('sudo', 'shift; exec "$@"');
foreach my $case (
	[ 'all is well', 'exit 0', 'make' ],
	[ 'one source is broken', 'echo "E: The repository has no Release file." >&2; exit 100', 'make' ],
	[ 'no package can be had', 'exit 100', '' ])
{
	my ($what, $update, $gets) = @$case;
	unlink "$bin/make";
	my $install = $gets ? qq{printf '#!/bin/sh\\n' > "$bin/$gets"; chmod 755 "$bin/$gets"} : 'echo "E: Unable to locate package make" >&2; exit 100';
	program('apt-get', qq{case "\$*" in *update*) $update ;; *install*) $install ;; esac});
	($ok, $stdout, $stderr) = said(command => ["$ENV{TESTDIR}/test/bootstrap"], PATH => $bin, PG_CONFIG => 'pg_config');
	is($ok ? $stdout : '', $gets ? "$bin/pg_config" : '', "apt-get, $what: " . ($gets ? 'what is missing is installed' : 'it ends'));
	like($stderr, qr{^test/bootstrap: installing with apt-get: make \(make\)$}m, 'what is said before');
	like($stderr, $gets && $update !~ /100/ ? qr/\A[^\n]*\n\z/ : $gets ? qr/no Release file.*going on with what is known of packages\n\z/s : qr/Unable to locate.*could not install them, for the reason above\n\z/s, 'and of what goes wrong');
}

#
# Machines: these say what they are asked, and do as they are told
#
my $checkout = "$dir/checkout";
system('mkdir', '-p', "$checkout/test") == 0 or die;
system('cp', "$ENV{TESTDIR}/test/bare-machines", "$checkout/test/") == 0 or die;
append_to_file("$checkout/Makefile", qq{test-assertions:\n\t\@echo '7 passed, 0 failed, 0 skipped'\n});
append_to_file("$checkout/test/bare-root", <<'END');
#!/bin/sh
printf '%s ' "$SUITE" "$@"
echo
[ "$SUITE $1" != "$FAULTY sh" ] || eval "$FAULT"
case "$*" in
	-n) ;;
	*missing:*) echo 'test/bootstrap: missing: postgresql-99 (the server)' ;;
	*'! PG_CONFIG'*) echo 'install the server.s development package' ;;
	*'make test'*) echo '5 passed, 0 failed, 0 skipped' ;;
	*test/packages*) echo 'built, installed, used and removed' ;;
	*) echo 'That was it. The same in your own database' ;;
esac
END
chmod 0755, "$checkout/test/bare-root";

# How it ends, and what it says, when the suite does so on one of the releases.
sub machines
{
	my ($what, $faulty, $fault) = @_;
	return said(command => [ "$checkout/test/bare-machines", split / /, $what ], LOGS => "$dir/logs", SUITE => 'own', FAULTY => $faulty, FAULT => $fault);
}

foreach my $what ('', 'all')
{
	my $count = $what eq 'all' ? 18 : 10;
	($ok, $stdout) = machines($what, '', '');
	ok($ok, "all is well on the machines: \"$what\"") or diag($stdout);
	is((split /\n/, $stdout)[-1], "$count passed, 0 failed", 'and all are counted');
	my %faults = (
		'a test has failed' => 'echo "not ok 7 - seven"; echo "4 passed, 1 failed, 0 skipped"; exit 1',
		'it has failed and says otherwise' => 'echo "5 passed, 0 failed, 0 skipped"; exit 1',
		'it ends early, and well' => 'echo "That was it."; exit 0',
		'it has died' => 'echo "5 passed, 0 failed, 0 skipped"; kill -9 $$');
	foreach my $fault (sort keys %faults)
	{
		($ok, $stdout) = machines($what, 'trixie', $faults{$fault});
		ok(!$ok, $fault);
		is((split /\n/, $stdout)[-1], ($count - 1) . ' passed, 1 failed', 'one machine has failed');
		like($stdout, qr/^not ok - trixie, git and make: /m, 'which one is said');
		like($stdout, qr/^not ok 7 - seven$/m, 'and which test') if $fault =~ /test/;
	}
}
my $whole = slurp_file("$dir/logs/forky__git_and_make__make_demo__make_test.log");
like($whole, qr/make test .* 'RINGS='/, 'all of the suite');
machines('', '', '');
my $part = slurp_file("$dir/logs/forky__git_and_make__make_demo__make_test.log");
like($part, qr/make test .* 'RINGS=pgtap regress isolation'/, 'or what is not in Perl');
{
	local $ENV{MACHINES} = '^(bookworm|trixie), git';
	($ok, $stdout) = machines('', 'forky', 'exit 1');
	ok($ok, 'the other machines are left out');
	is((split /\n/, $stdout)[-1], '2 passed, 0 failed', 'so are they of the count');
	local $ENV{MACHINES} = 'none of them';
	($ok, $stdout) = machines('', '', '');
	ok(!$ok, 'that none was asked is no success');
}
($ok, $stdout, $stderr) = machines('everything', '', '');
ok(!$ok, 'other words are refused');
is($stderr, qq{test/bare-machines: what is "everything"?\n}, 'and it says so');

done_testing();
