# An append does not come to cost more unnoticed: what it needs of instructions, counted by callgrind, in ratio to a bare
# INSERT of the same run (test/bench/instructions), is at most 0.5 % above what test/bench/instructions.txt
# has for this version of PostgreSQL. That depends neither on the load of the machine nor much on its compiler; from run to
# run it differs by 0.05 %.
#
# Where an append has become cheaper, or dearer for a reason, the table is written anew, and committed with the change:
#
#	make bench BENCH=instructions RECORD=yes

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Utils;
use Test::More;

use constant GROWTH => 1.005;

my $bench = "$ENV{TESTDIR}/test/bench";
my ($major) = `$ENV{PG_CONFIG} --version` =~ /^PostgreSQL (\d+)/;

# Ratios of a table, by contestant.
sub recorded
{
	my ($major, $text) = @_;
	return map { /^$major (\w+) ([\d.]+)$/ ? ($1 => $2) : () } split /\n/, $text;
}

# Contestants which have grown beyond the bound.
sub grown
{
	my ($now, $before) = @_;
	return join ' ', grep { $now->{$_} > $before->{$_} * GROWTH } sort keys %$before;
}

my %before = recorded($major, slurp_file("$bench/instructions.txt"));

# What is counted must be what users get; and it takes a minute, not a day.
plan skip_all => 'this needs valgrind' unless `valgrind --version 2>&1` =~ /^valgrind-/;
plan skip_all => 'the extension is not compiled as for users' if ($ENV{COPT} // '') =~ /-O0|-fsanitize|--coverage/;
plan skip_all => 'the server has assertions' if `$ENV{PG_CONFIG} --configure` =~ /--enable-cassert/;
plan skip_all => 'caches are discarded' if slurp_file($ENV{TEMP_CONFIG}) =~ /^debug_discard_caches\b/m;
plan skip_all => "nothing is recorded for PostgreSQL $major (make bench BENCH=instructions RECORD=yes)" unless %before;

is(join(' ', sort keys %before), 'from select version', 'the table has an append as a row, in the select list, and with the expected version');

# What the server does once in a while, by the clock, counts as well, and only ever adds: so the least of a few counts.
local $ENV{GUARD} = 'yes';
my (%now, $output);
foreach my $try (1 .. 3)
{
	$output = `'$bench/instructions' 2>&1`;
	is($?, 0, 'they are counted') or diag($output);
	my %counted = $output =~ /^(\w+) +\d+  ([\d.]+)$/mg;
	is(delete $counted{bare}, '1.0000', 'in ratio to a bare INSERT');
	is(join(' ', sort keys %counted), join(' ', sort keys %before), 'all of them');
	foreach (keys %counted)
	{
		$now{$_} = $counted{$_} if !defined $now{$_} || $counted{$_} < $now{$_};
	}
	last unless grown(\%now, \%before);
}

note(join ', ', map { "$_ $now{$_}, recorded $before{$_}" } sort keys %now);
is(grown(\%now, \%before), '', 'none has grown') or diag($output, 'recorded: ', explain(\%before));
is(grown({ map { $_ => 1.01 * $before{$_} } keys %before }, \%before), 'from select version', 'one that has by a hundredth would be found');
diag("cheaper than recorded, so it may grow as much again: $_ $now{$_}, recorded $before{$_}")
	foreach grep { $now{$_} < $before{$_} / GROWTH } sort keys %now;
done_testing();
