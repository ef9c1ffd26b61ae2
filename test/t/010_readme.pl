
# The SQL of README.md, block by block, in one session and in one database, as a
# newcomer would type it. A block that begins with "-- refused: CODE" must fail
# with that SQLSTATE, every other one must not fail. Where a block is followed by
# a text block with a table, its last result must be that table.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $readme = slurp_file("$ENV{TESTDIR}/README.md");
my @blocks;
while ($readme =~ /^```(sql|text)\n(.*?)^```$/msg)
{
	my ($kind, $text) = ($1, $2);
	if ($kind eq 'sql')
	{
		my ($refused) = $text =~ /^-- refused: (\w{5})$/m;
		push @blocks, { sql => $text, refused => $refused };
	}
	else
	{
		$blocks[-1]{output} = $text;
	}
}
cmp_ok(scalar @blocks, '>', 10, 'README.md has SQL blocks');

my $node = PostgreSQL::Test::Cluster->new('readme');
$node->init;
$node->start;

# One psql for all blocks, since a later one builds on the earlier.
my $script = "\\set VERBOSITY default\n";
for my $i (0 .. $#blocks)
{
	my $expected = $blocks[$i]{refused} // '00000';
	$script .= "\\echo BLOCK $i\n$blocks[$i]{sql}\\echo STATE $i :SQLSTATE\n";
}
my ($stdout, $stderr);
IPC::Run::run([ 'psql', '-X', '-P', 'pager=off', '-d', $node->connstr('postgres') ],
	'<', \$script, '>', \$stdout, '2>', \$stderr);

my %state = $stdout =~ /^STATE (\d+) (\w{5})$/mg;
for my $i (0 .. $#blocks)
{
	my $block = $blocks[$i];
	my ($title) = $block->{sql} =~ /^(?!--)(.*)$/m;
	my ($out) = $stdout =~ /^BLOCK $i\n(.*?)^STATE $i /ms;

	is($state{$i}, $block->{refused} // '00000', "block $i: $title");
	next if !defined $block->{output} || $block->{refused};
	is(last_table($out), last_table($block->{output}), "block $i: its result");
}

# Errors of statements that are not the last of their block show here.
my @errors = $stderr =~ /^ERROR: /mg;
is(scalar @errors, scalar(grep { $_->{refused} } @blocks), 'no other error')
  or diag($stderr);

$node->stop;
done_testing();

# The rows of the last result, each as its cells without padding.
sub last_table
{
	my ($text) = @_;
	my @rows;
	for (split /\n/, $text)
	{
		if (/^-[-+]*$/) { @rows = () }
		elsif (/^ \S|^ +\|/) { push @rows, join('|', map { s/^\s+|\s+$//gr } split /\|/) }
	}
	return join("\n", @rows);
}
