
# README.md and docs/*.md are executed: what a reader copies must work, and print
# what the page says.
#
# Each page gets a database of its own. Its SQL runs block by block in one psql, as
# a newcomer would type it; README installs the extension itself. A block that
# begins with "-- refused: CODE" must fail with that SQLSTATE, every other one must
# not fail. Where a block is followed by a text block, its last results must be
# the tables in there, its messages those lines of it that are messages.
#
# Then the page's Python and JavaScript, as one program each: all blocks of a
# language, from the top to the bottom. JavaScript runs inside of an async
# function. A text block behind one is what it prints. Where a client is missing,
# its programs are skipped.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Clients qw(python_with_psycopg node_with_pg);

my $timeout = $PostgreSQL::Test::Utils::timeout_default;

my $node = PostgreSQL::Test::Cluster->new('readme');
$node->init;
$node->start;

my $sql_blocks = 0;
foreach my $page ('README.md', sort map { s{.*/}{docs/}r } glob("$ENV{TESTDIR}/docs/*.md"))
{
	my $database = lc($page =~ s{^docs/|\.md$}{}gr =~ s/\W/_/gr);
	my @blocks = blocks_of("$ENV{TESTDIR}/$page");
	$sql_blocks += grep { $_->{language} eq 'sql' } @blocks;
	next if !grep { $_->{language} =~ /^(sql|python|js)$/ } @blocks;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION cqrs_es') if $page ne 'README.md';

	plays_sql($page, $database, grep { $_->{language} eq 'sql' } @blocks);
	plays_program($page, $database, 'python', grep { $_->{language} eq 'python' } @blocks);
	plays_program($page, $database, 'js', grep { $_->{language} eq 'js' } @blocks);
}

cmp_ok($sql_blocks, '>', 50, 'the pages have SQL blocks');

$node->stop;
done_testing();

# The blocks of a page: language, text, first line, the text block behind it as output.
sub blocks_of
{
	my ($file) = @_;
	my $markdown = slurp_file($file);
	my @blocks;
	while ($markdown =~ /^```(\w*)\n(.*?)^```$/msg)
	{
		my ($language, $text) = ($1, $2);
		my $line = 2 + (substr($markdown, 0, $-[0]) =~ tr/\n//);
		if ($language eq 'text' && @blocks && !defined $blocks[-1]{output})
		{
			$blocks[-1]{output} = $text;
		}
		else
		{
			push @blocks, { language => $language, text => $text, line => $line };
		}
	}
	return @blocks;
}

# One psql for all blocks, since a later one builds on the earlier.
sub plays_sql
{
	my ($page, $database, @blocks) = @_;
	return if !@blocks;

	my $script = "\\set VERBOSITY default\n";
	foreach my $block (@blocks)
	{
		my $line = $block->{line};
		$script .= "\\echo BLOCK $line\n\\warn BLOCK $line\n$block->{text}\\echo STATE $line :SQLSTATE\n";
	}
	$script .= "\\warn BLOCK 0\n";
	my ($stdout, $stderr);
	IPC::Run::run([ 'psql', '-X', '-P', 'pager=off', '-d', $node->connstr($database) ],
		'<', \$script, '>', \$stdout, '2>', \$stderr, IPC::Run::timeout($timeout));

	foreach my $block (@blocks)
	{
		my $line = $block->{line};
		my ($refused) = $block->{text} =~ /^-- refused: (\w{5})$/m;
		my ($title) = $block->{text} =~ /^(?!--)(.*)$/m;
		my ($out, $state) = $stdout =~ /^BLOCK $line\n(.*?)^STATE $line (\w{5})$/ms;
		my ($messages) = $stderr =~ /^BLOCK $line\n(.*?)^BLOCK /ms;

		is($state // 'not reached', $refused // '00000', "$page:$line: $title");
		my @errors = ($messages // '') =~ /^ERROR: /mg;
		is(scalar @errors, $refused ? 1 : 0, 'and no other error') || diag($messages);
		next if !defined $block->{output};

		my @expected = tables($block->{output});
		my @tables = tables($out // '');
		splice(@tables, 0, @tables - @expected) if @tables > @expected;
		is(join("\n\n", @tables), join("\n\n", @expected), 'and its result') if @expected;
		foreach ($block->{output} =~ /^(?:ERROR|DETAIL|HINT|CONTEXT|WARNING|NOTICE): .*$/mg)
		{
			ok(index($messages // '', "$_\n") >= 0, "and says $_") || diag($messages);
		}
	}
}

# The tables that psql printed, each its rows, head included, as cells without padding.
sub tables
{
	my ($text) = @_;
	my (@tables, $head, $inside);
	foreach (split /\n/, $text)
	{
		my $row = join('|', map { s/^\s+|\s+$//gr } split(/\|/, $_, -1));
		if (/^-[-+]*$/) { push @tables, $head; $inside = 1 }
		elsif (/^ .*\S/) { $tables[-1] .= "\n$row" if $inside }
		else { $inside = 0 }
		$head = $row;
	}
	return @tables;
}

# All blocks as one program, which says before each where it is.
sub plays_program
{
	my ($page, $database, $language, @blocks) = @_;
	return if !@blocks;

	my $python = $language eq 'python';
	my $quote = $python ? 'print("%s", flush=True)' : 'console.log("%s")';
	my $program = join("\n", (map { sprintf($quote, "BLOCK $_->{line}") . "\n$_->{text}" } @blocks), sprintf($quote, 'BLOCK 0'));
	$program = "(async () => {\n$program\n})().then(() => process.exit(0))\n" if !$python;
	my $file = PostgreSQL::Test::Utils::tempdir() . ($python ? '/program.py' : '/program.js');
	append_to_file($file, $program);

	my ($found, $why) = $python ? python_with_psycopg() : node_with_pg();
  SKIP:
	{
		skip "$page, $language: $why", 1 if !defined $found;

		my ($stdout, $stderr) = ('', '');
		{
			local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => $database,
				PGUSER => $node->safe_psql($database, 'SELECT current_user'));
			local $ENV{NODE_PATH} = $python ? '' : $found;
			eval { IPC::Run::run([ $python ? $found : 'node', $file ], '<', \undef, '>', \$stdout, '2>', \$stderr, IPC::Run::timeout($timeout)) };
		}
		my ($last) = reverse $stdout =~ /^BLOCK (\d+)$/mg;
		is($last, 0, "$page: its $language runs to the end") || diag($stderr);
		is($stderr, '', 'without a warning');
		foreach my $block (grep { defined $_->{output} } @blocks)
		{
			my ($out) = $stdout =~ /^BLOCK $block->{line}\n(.*?)^BLOCK /ms;
			is($out, $block->{output}, "$page:$block->{line}: what it prints");
		}
	}
}
