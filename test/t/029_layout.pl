
# The C sources are laid out as test/indent does it, and it knows their types.

use strict;
use warnings FATAL => 'all';

use Cwd qw(abs_path);
use PostgreSQL::Test::Utils;
use Test::More;

my $root = abs_path($ENV{TESTDIR});
my %is_listed = map { $_ => 1 } split /\n/, slurp_file("$root/src/typedefs.list");

# Types that a file defines and the list does not have.
sub unlisted
{
	my ($text) = @_;
	return grep { !$is_listed{$_} } $text =~ /^\}\s*(\w+);$/mg, $text =~ /^typedef struct \w+ (\w+);$/mg;
}

is(join(' ', map { unlisted(slurp_file($_)) } glob("$root/src/*.c $root/src/*/*.[ch]")), '', 'src/typedefs.list has every type of the sources');
is(join(' ', unlisted("typedef struct Planted\n{\n\tint\t\t\ta;\n} Planted;\n")), 'Planted', 'one that it has not would be found');

# Others lay out otherwise.
my $version = `pg_bsd_indent --version 2>&1` // '';
SKIP:
{
	skip 'this needs pg_bsd_indent 2.1.1', 4 unless $version =~ /\b2\.1\.1\b/;

	is(`cd '$root' && test/indent --check 2>&1`, '', 'the sources are laid out');
	is($?, 0, 'all of them');

	my $copy = PostgreSQL::Test::Utils::tempdir();
	system("cp -r '$root/src' '$copy' && mkdir '$copy/test' && cp '$root/test/indent' '$copy/test'") == 0 or die;
	append_to_file("$copy/src/module.c", "int planted( int  a );\n");
	like(`'$copy/test/indent' --check 2>&1`, qr/^-int planted\( int  a \);$/m, 'what is not would be found');
	append_to_file("$copy/src/base/text.c", "int planted = f((A) {.a = 1});\n");
	like(`'$copy/test/indent' --check 2>&1`, qr{does not understand src/base/text\.c}, 'nor is anything passed over');
}
done_testing();
