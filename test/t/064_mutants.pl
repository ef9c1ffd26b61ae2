# The list of mutants does not rot: each of them changes the sources in just one place,
# and names tests that are there. ("make mutants" runs them, which takes minutes.)

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{TESTDIR};

# How many places an edit changes; -1 when it is none.
sub places
{
	my ($text, $edit) = @_;
	my $n = eval "\$text =~ ${edit}gm";
	return $@ ? -1 : $n || 0;
}

sub is_test
{
	my ($name) = @_;
	return scalar grep { -e "$root/test/$_" } "sql/$name.sql", "regress/sql/$name.sql", "specs/$name.spec", "t/$name.pl";
}

my $list = slurp_file("$root/test/mutants.txt") =~ s/^#.*\n//gmr;
my @mutants = grep { /\S/ } split /\n\n+/, $list;
cmp_ok(scalar(@mutants), '>=', 10, 'there are mutants');
foreach my $mutant (@mutants)
{
	my ($what, $where, $edit, @rest) = grep { $_ ne '' } split /\n/, $mutant;
	my ($file, @tests) = split / +/, $where;

	is_deeply(\@rest, [], "$what: three lines");
	is(places(slurp_file("$root/$file"), $edit), 1, "$what: one place");
	is(join(' ', grep { !is_test($_) } @tests), '', "$what: tests that are there");
	cmp_ok(scalar(@tests), '>=', 1, "$what: and at least one");
}
is(places("a\na\n", 's/^a$/b/'), 2, 'another number of places would be found');
is(places("a\n", 's/(/b/'), -1, 'so would an edit that is none');
is(is_test('no_such_test'), 0, 'so would a test that is not there');

done_testing();
