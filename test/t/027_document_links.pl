
# What README.md and docs/*.md promise as documents: each link and anchor between
# them leads somewhere, each page is found from README, and README is a front page:
# short, with the whole circle right behind its two commands.

use strict;
use warnings FATAL => 'all';
use File::Basename qw(dirname);
use File::Spec;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{TESTDIR};
my @pages = map { File::Spec->abs2rel($_, $root) } sort glob("$root/*.md"), glob("$root/docs/*.md"), glob("$root/test/*.md");

# Links

my %linked;
foreach my $page (@pages)
{
	foreach my $link (links_of(slurp_file("$root/$page")))
	{
		next if $link =~ /^[a-z]+:/;
		my ($path, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/;
		my $target = $path eq '' ? $page : resolve(dirname($page), $path);

		ok(-e "$root/$target", "$page: $link is there") or next;
		$linked{$target} = 1;
		next if !defined $anchor;
		ok((grep { $_ eq $anchor } anchors_of(slurp_file("$root/$target"))), "$page: $link has its anchor");
	}
}
ok($linked{$_}, "$_ is linked") foreach grep { m{^docs/} } @pages;

# The front page

my @lines = split /\n/, slurp_file("$root/README.md");
cmp_ok(scalar @lines, '<=', 250, 'README.md has at most 250 lines');

my ($commands) = grep { $lines[$_] =~ /^make test\b/ } 0 .. $#lines;
is($lines[ $commands + 1 ], '```', 'two commands');
is($lines[ $commands - 2 ], '```sh', 'and no more');
my $circle = join("\n", @lines[ $commands + 2 .. $commands + 41 ]);
my $at = 0;
foreach my $part ('CREATE EXTENSION', 'create_aggregate', 'define_reducer', 'define_command', 'CREATE TABLE', 'create_projection',
	'define_handler', 'execute_command', 'SELECT * FROM balances', 'read_stream', '```text', 'balance', 'Booked')
{
	my $found = index($circle, $part, $at);
	cmp_ok($found, '>=', 0, "$part stands in the 40 lines behind them, in its place") or last;
	$at = $found;
}

done_testing();

# Targets of links and pictures, of all that is not code.
sub links_of
{
	my ($markdown) = @_;
	$markdown =~ s/^```.*?^```$//msg;
	$markdown =~ s/`[^`\n]*`//g;
	return $markdown =~ /\]\(([^)\s]+)\)/g;
}

# The anchors that GitHub gives headings.
sub anchors_of
{
	my ($markdown) = @_;
	$markdown =~ s/^```.*?^```$//msg;
	my (@anchors, %seen);
	foreach my $heading ($markdown =~ /^#+ +(.*?) *$/mg)
	{
		my $anchor = lc($heading =~ s/\[([^\]]*)\]\([^)]*\)/$1/gr) =~ s/[^\w -]//gr =~ s/ /-/gr;
		my $again = $seen{$anchor}++;
		push @anchors, $again ? "$anchor-$again" : $anchor;
	}
	return @anchors;
}

# A path beside the page, without its "..".
sub resolve
{
	my ($directory, $path) = @_;
	my @parts;
	foreach (split m{/}, $directory eq '.' ? $path : "$directory/$path")
	{
		if ($_ eq '..') { pop @parts } else { push @parts, $_ }
	}
	return join('/', @parts);
}
