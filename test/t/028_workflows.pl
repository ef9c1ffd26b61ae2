# What runs elsewhere does not rot unseen: the workflows and .ci/run call targets of the
# Makefile and files that are there, for just the versions that README names, of which
# the bare machines leave out none but between two; each test has its place in
# test/README.md, each expected output its test, and pgTAP files are strict. Every check
# is tried on a breach.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{TESTDIR};

# The targets of the Makefile, with those that PGXS brings.
sub targets
{
	my ($makefile) = @_;
	my @targets = $makefile =~ /^([a-z][\w-]*):(?!=)/mg;
	return map { $_ => 1 } @targets, 'all', 'clean', 'install', 'installcheck';
}

# Our own commands of a workflow: those outside of the folders of others.
sub commands
{
	my ($workflow) = @_;
	return map { split /\s*&&\s*/ } grep { !/^cd "?\$RUNNER_TEMP/ } $workflow =~ /^\s*- run: (.*)$/mg;
}

# What a workflow calls that is not there.
sub missing
{
	my ($workflow, $makefile) = @_;
	my %targets = targets($makefile);
	my @missing;
	foreach my $command (commands($workflow))
	{
		push @missing, grep { m{^(test|\.ci)/} && !-x "$root/$_" } split / /, $command;
		next unless $command =~ /\bmake( .*)?$/ && $command !~ /apt-get/;
		push @missing, grep { !/=/ && !/^-/ && !$targets{$_} } split / /, $1 // ' all';
	}
	return join ' ', grep { $_ ne '' } @missing;
}

# The versions of each matrix.
sub versions
{
	my ($workflow) = @_;
	return map { join ' ', sort { $a <=> $b } /\d+/g } $workflow =~ /^\s*postgresql: \[(.*)\]$/mg;
}

# Versions among these that neither one of the bare machines has nor those on both sides
# of it.
sub uncovered
{
	my ($machines, @wanted) = @_;
	my ($list) = $machines =~ /^releases=\((.*)\)$/m or die 'test/bare-machines does not say which releases';
	my %has = map { $_ => 1 } $list =~ /:(\d+)/g;
	return join ' ', grep { !$has{$_} && !($has{ $_ - 1 } && $has{ $_ + 1 }) } @wanted;
}

# Tests that test/README.md does not name.
sub unplaced
{
	my ($readme) = @_;
	my @names = names(glob "$root/test/{sql,regress/sql}/*.sql $root/test/specs/*.spec $root/test/t/*.pl");
	return join ' ', grep { !/^example_/ && $readme !~ /`\Q$_\E`/ } @names;
}

# Expected output that belongs to no test.
sub orphans
{
	return join ' ', grep { !-e "$root/test/regress/sql/$_.sql" && !-e "$root/test/specs/$_.spec" } @_;
}

# The names of files without folders and endings.
sub names
{
	return map { s{.*/}{}r =~ s/\.\w+$//r } @_;
}

my $makefile = slurp_file("$root/Makefile");
my @workflows = glob "$root/.github/workflows/*.yml";
cmp_ok(scalar(@workflows), '>=', 1, 'there are workflows');
foreach my $file (@workflows)
{
	my $name = $file =~ s{.*/}{}r;
	my $workflow = slurp_file($file);
	is(missing($workflow, $makefile), '', "$name calls what is there");
	is(missing("$workflow\n      - run: make tset\n", $makefile), 'tset', "$name: another target would be found");
	is(missing("$workflow\n      - run: test/rungs append\n", $makefile), 'test/rungs', "$name: another file would be found");
	unlike($workflow, qr/^\t/m, "$name has no tabs");
}

# a line of .ci/run is a command, with "exec" before the last
my $ci = slurp_file("$root/.ci/run") =~ s/^(?:exec )?(make|test\/)/      - run: $1/mgr;
isnt(scalar(commands($ci)), 0, '.ci/run calls something');
is(missing($ci, $makefile), '', '.ci/run calls what is there');
is(missing("$ci      - run: make tset\n", $makefile), 'tset', '.ci/run: another target would be found');

my ($first, $last) = slurp_file("$root/README.md") =~ /PostgreSQL (\d+) to (\d+)/;
die 'README.md does not say "PostgreSQL ... to ..."' unless defined $first;
my $claimed = join ' ', $first .. $last;
my @matrices = map { versions(slurp_file($_)) } @workflows;
ok((grep { $_ eq $claimed } @matrices), "all of PostgreSQL $first to $last are tested") or diag("matrices: @matrices");
foreach my $matrix (@matrices)
{
	is(join(' ', grep { $_ < $first || $_ > $last } split / /, $matrix), '', "only these: $matrix");
}
is(join(' ', versions("        postgresql: [17, 14]\n")), '14 17', 'another version would be found');

my $machines = slurp_file("$root/test/bare-machines");
is(uncovered($machines, $first .. $last), '', 'the bare machines have these versions, or both neighbours');
is(uncovered($machines, $first - 1 .. $last + 1), join(' ', $first - 1, $last + 1), 'others would be found');
is(uncovered($machines =~ s/\w+:17 ?//r, $first .. $last), '16 17', 'and so would two in a row');

my $readme = slurp_file("$root/test/README.md");
is(unplaced($readme), '', 'each test has its place in test/README.md');
is(unplaced($readme =~ s/`append_race`//gr), 'append_race', 'one that has none would be found');

my @expected = names(glob "$root/expected/*.out");
is(orphans(@expected), '', 'each expected output has its test');
is(orphans(@expected, 'nothing'), 'nothing', 'one that has none would be found');

my $first_line = qr{\A\\i test/include/setup\.sql\n};
is(join(' ', grep { slurp_file($_) !~ $first_line } glob "$root/test/sql/*.sql"), '', 'pgTAP files begin with test/include/setup.sql');
unlike("SELECT plan(1);\n", $first_line, 'one that does not would be found');

done_testing();
