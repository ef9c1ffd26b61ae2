
# The rooms of src/ and sql/ stand one above the other, in the order of the
# Makefile's ROOMS: nothing in a room includes, calls or names anything of one above
# it, and no file of a room uses itself by way of others. What a file exports begins
# with the file's name, or with one of what it is about (events.c: EventCopy). And the
# build knows the rooms: elsewhere than in the checkout, too, and "make clean" leaves
# nothing.
#
# Each kind of breach is planted in a copy once, to show that it would be found.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Copy qw(copy);
use File::Find;
use File::Path qw(make_path);
use PostgreSQL::Test::Utils;
use Test::More;

my $root = abs_path($ENV{TESTDIR});

# All files below some folders of a checkout, as paths from there.
sub files_of
{
	my ($checkout, @folders) = @_;
	my @files;
	find({ no_chdir => 1, wanted => sub { push @files, substr($_, length($checkout) + 1) if -f } },
		map { "$checkout/$_" } @folders);
	return sort @files;
}

# What a C file consists of: the headers it includes, and its string literals, those
# that stand side by side as one. Comments do not count.
my %parsed;
sub parse_c
{
	my ($text) = @_;
	return @{ $parsed{$text} //= [ parse_c_text($text) ] };
}

sub parse_c_text
{
	my ($text) = @_;
	my (@includes, @strings);
	my $in_string = 0;

	$text =~ s/\bCQRS_ES_SCHEMA\b/"cqrs_es"/g;
	pos($text) = 0;
	while (pos($text) < length $text)
	{
		next if $text =~ m{\G(?:\s|\\\n|/\*.*?\*/|//[^\n]*)+}gcs;
		if ($text =~ /\G#\s*include\s*([<"])([^>"]*)[>"]/gc)
		{
			push @includes, $2 if $1 eq '"';
			$in_string = 0;
		}
		elsif ($text =~ /\G"((?:\\.|[^"\\])*)"/gcs)
		{
			if ($in_string) { $strings[-1] .= $1 }
			else { push @strings, $1 }
			$in_string = 1;
		}
		else
		{
			$text =~ /\G(?:'(?:\\.|[^'\\])*'|\w+|.)/gcs;
			$in_string = 0;
		}
	}
	return (\@includes, \@strings);
}

# What a header exports under another name than its own. (compat.h's are the server's.)
sub names_without_file
{
	my ($file, $text) = @_;
	my ($name) = $file =~ m{(\w+)\.h$};
	my $prefix = join '', map { ucfirst } split /_/, $name;
	my $of_one = $prefix =~ s/s$//r;

	return if $name eq 'compat';
	return grep { !/^(?:$prefix|$of_one)/ }
	  $text =~ /^(?:pg_noreturn\s+)?(?:extern|static\s+inline)\s[^;({]*?\b(\w+)(?:\(|\[\]|;)/mg;
}

# What is wrong with the rooms of a checkout, each as one line.
sub breaches
{
	my ($checkout) = @_;
	my @found;
	my ($rooms) = slurp_file("$checkout/Makefile") =~ /^ROOMS = (.*)$/m;
	my @rooms = split ' ', $rooms;
	my %floor = map { $rooms[$_] => $_ } 0 .. $#rooms;
	my @files = files_of($checkout, 'src', 'sql');
	my %is_there = map { $_ => 1 } @files;
	my %text = map { $_ => slurp_file("$checkout/$_") } grep { /\.(c|h|sql)$/ } @files;
	s/--.*$//mg for map { $text{$_} } grep { /\.sql$/ } keys %text;

	# which room a file is in; the roof sees all of them
	my %room;
	for my $file (sort keys %text)
	{
		if ($file =~ m{^src/(\w+)/\w+\.[ch]$} || $file =~ m{^sql/(\w+)/\d\d\d_\w+\.sql$})
		{
			$room{$file} = $1;
			push @found, "$file: no room of that name" if !exists $floor{$1};
		}
		elsif ($file !~ m{^src/module\.c$|^sql/\d\d\d_\w+\.sql$|^sql/(upgrade/)?cqrs_es--.*\.sql$})
		{
			push @found, "$file: outside of the rooms";
		}
	}
	delete $room{$_} for grep { !exists $floor{ $room{$_} } } keys %room;

	# the numbers of SQL parts are the order in which they are loaded: that of the rooms
	my ($last, $last_number) = ('', '');
	for my $file (sort { ($floor{ $room{$a} // '' } // 99) <=> ($floor{ $room{$b} // '' } // 99) || $a cmp $b }
		grep { m{/\d\d\d_\w+\.sql$} } keys %text)
	{
		my ($number) = $file =~ m{/(\d\d\d)_};
		push @found, "$file: its number does not come after $last" if $last_number ge $number;
		($last, $last_number) = ($file, $number);
	}

	# what the SQL parts create, and which of that are relations
	my (%created_in, %is_relation, %sql_room_of);
	for my $file (sort grep { /\.sql$/ } keys %room)
	{
		while ($text{$file} =~ /CREATE (TABLE|VIEW|SEQUENCE|FUNCTION|TYPE) cqrs_es\.(\w+)/g)
		{
			my ($kind, $name) = ($1, $2);
			$created_in{$name} //= $room{$file};
			$is_relation{$name} = 1 if $kind =~ /TABLE|VIEW|SEQUENCE/;
		}
		$sql_room_of{$1} = $room{$file} while $text{$file} =~ /'MODULE_PATHNAME', '(\w+)'/g;
	}

	# a function that a release had, and the SQL of now has not, serves that of then
	my %is_released;
	for my $file (grep { m{^sql/upgrade/} } keys %text)
	{
		$is_released{$1} = 1 while $text{$file} =~ /'MODULE_PATHNAME', '(\w+)'/g;
	}

	my %uses;
	my $is_above = sub { my ($name, $file) = @_; return $floor{ $created_in{$name} } > $floor{ $room{$file} } };
	for my $file (sort keys %room)
	{
		my ($includes, $strings) = $file =~ /\.sql$/ ? ([], [ $text{$file} ]) : parse_c($text{$file});
		my %named;

		# what is neither below src/ nor beside the file is the server's
		for my $include (@$includes)
		{
			my ($of) = $include =~ m{^(\w+)/};
			my ($beside) = $file =~ m{^(.*/)};

			if ($is_there{"src/$include"} ? !exists $floor{ $of // '' } : $is_there{"$beside$include"})
			{
				push @found, "$file: includes $include, of no room";
			}
			elsif ($is_there{"src/$include"} && $floor{$of} > $floor{ $room{$file} })
			{
				push @found, "$file: includes $include";
			}
			elsif ($is_there{"src/$include"})
			{
				my ($user) = $file =~ m{^src/(.*)\.};
				my $used = $include =~ s/\.h$//r;
				$uses{$user}{$used} = 1 if $user ne $used;
			}
		}
		for my $string (@$strings)
		{
			$named{$_}++ for grep { exists $created_in{$_} } $string =~ /\bcqrs_es\.(\w+)/g;
			$named{$string}++ if $is_relation{$string};
		}
		push @found, "$file: names $_ of $created_in{$_}" for grep { $is_above->($_, $file) } sort keys %named;
		push @found, "$file: declares a function of another file" if $file =~ /\.c$/ && $text{$file} =~ /^extern\b/m;

		# an SQL function is declared in the room that has its code
		while ($file =~ /\.c$/ && $text{$file} =~ /^PG_FUNCTION_INFO_V1\((\w+)\);/mg)
		{
			push @found, "$file: $1 is declared in the SQL of " . ($sql_room_of{$1} // 'no room')
			  if ($sql_room_of{$1} // ($is_released{$1} ? $room{$file} : '')) ne $room{$file};
		}
	}

	for my $file (grep { m{^src/[^/]+/\w+\.h$} } sort keys %text)
	{
		push @found, "$file: $_ does not begin with the file's name" for names_without_file($file, $text{$file});
	}

	# files of a room stand one above the other, too
	for my $user (sort keys %uses)
	{
		my @reached = sort keys %{ $uses{$user} };
		my %is_reached = map { $_ => 1 } @reached;
		while (defined(my $next = shift @reached))
		{
			push @reached, grep { !$is_reached{$_}++ } sort keys %{ $uses{$next} };
		}
		push @found, "src/$user.c: uses itself in a circle" if $is_reached{$user};
	}
	return @found;
}

# A copy of what takes part in a build, without what a build makes.
sub copy_of_checkout
{
	my $copy = PostgreSQL::Test::Utils::tempdir() . '/copy';
	for my $file (grep { !m{\.(o|bc|inc)$|^sql/[^/]*--[^/]*\.sql$} } files_of($root, 'src', 'sql'),
		'Makefile', 'cqrs_es.control')
	{
		my ($folder) = "$copy/$file" =~ m{^(.*)/};
		make_path($folder);
		write_file("$copy/$file", slurp_file("$root/$file"));
	}
	return $copy;
}

sub write_file
{
	my ($path, $text) = @_;
	open my $handle, '>', $path or die "could not write $path: $!";
	print $handle $text;
	close $handle or die "could not write $path: $!";
	return;
}

my $copy = copy_of_checkout();
is(join("\n", breaches($root)), '', 'nothing uses a room above its own');
is(join("\n", breaches($copy)), '', 'nor does the copy');

# Planted: a file, what is added to it (or a new file), and what is found.
for my $plant (
	[ 'src/base/fixed_settings.c', '#include "log/events.h"', 'includes log/events.h', 'an include upwards' ],
	[ 'src/base/fixed_settings.h', '#include "projection/handler.h"', 'includes projection/handler.h', '... of a header' ],
	[ 'src/log/read.c', '#include "upcast.h"', 'includes upcast.h, of no room', 'an include without a room' ],
	[ 'src/aggregate/state_rules.h', '#include "aggregate/aggregate.h"', 'uses itself in a circle', 'two files that use each other', 'src/aggregate/aggregate.c' ],
	[ 'src/log/read.c', 'static const char *q = "SELECT FROM cqrs_es.snapshots";', 'names snapshots of aggregate', 'a table in a statement' ],
	[ 'src/log/read.c', qq(static const char *q = "SELECT FROM cqrs_es."\n /* not it */ "snapshots";), 'names snapshots of aggregate', '... in two pieces' ],
	[ 'src/log/read.c', 'static const char *q = "SELECT FROM " CQRS_ES_SCHEMA ".commands";', 'names commands of command', '... with the schema by its macro' ],
	[ 'src/log/read.c', 'static const char *q = "SELECT FROM cqrs_es.projection_status";', 'names projection_status of async', 'a view' ],
	[ 'src/base/fixed_settings.c', 'static const char *q = "SELECT cqrs_es.read_all(1)";', 'names read_all of log', 'a function' ],
	[ 'src/base/fixed_settings.c', 'static const char *q = "events_global_position_seq";', 'names events_global_position_seq of log', 'a sequence, by its name alone' ],
	[ 'src/base/fixed_settings.c', 'static const char *q = "reducers";', 'names reducers of aggregate', 'a table, by its name alone' ],
	[ 'src/log/read.h', 'extern int64 MaxCount(NullableDatum arg);', 'MaxCount does not begin', "a name that is another file's" ],
	[ 'src/log/read.h', 'extern int other_setting;', 'other_setting does not begin', '... of a variable' ],
	[ 'src/log/read.c', 'extern void HandlerInit(void);', 'declares a function of another file', 'a declaration instead of an include' ],
	[ 'src/log/read.c', 'PG_FUNCTION_INFO_V1(cqrs_es_replay);', 'cqrs_es_replay is declared in the SQL of aggregate', 'a function that another room declares' ],
	[ 'sql/log/500_read.sql', 'SELECT FROM cqrs_es.reducers;', 'names reducers of aggregate', 'a table in an SQL part' ],
	[ 'sql/aggregate/760_late.sql', '', 'its number does not come after', 'an SQL part out of order', 'sql/command/700_command.sql' ],
	[ 'sql/040_early.sql', '', 'its number does not come after', '... at the top' ],
	[ 'sql/other/990_other.sql', '', 'no room of that name', 'an SQL part in no room' ],
	[ 'src/stray.c', '', 'outside of the rooms', 'a source at the top' ],
	[ 'src/log/deep/stray.h', '', 'outside of the rooms', 'a header too deep' ],
	[ 'src/other/stray.c', '', 'no room of that name', 'a folder that is no room' ])
{
	my ($file, $text, $breach, $name, $found_in) = @$plant;
	my $before = -e "$copy/$file" ? slurp_file("$copy/$file") : undef;
	my ($folder) = "$copy/$file" =~ m{^(.*)/};

	make_path($folder);
	write_file("$copy/$file", ($before // '') . "\n$text\n");
	my @found = breaches($copy);
	my @others = grep { index($_, ": $breach") < 0 } @found;
	ok(!@others && grep({ index($_, ($found_in // $file) . ": $breach") == 0 } @found), "found: $name")
	  or diag(join("\n", @found));
	if (defined $before) { write_file("$copy/$file", $before) }
	else { unlink "$copy/$file" }
}
for my $comment ('/* SELECT FROM cqrs_es.handlers, "handlers" */', '// #include "projection/handler.h"')
{
	my $before = slurp_file("$copy/src/base/fixed_settings.c");
	write_file("$copy/src/base/fixed_settings.c", "$before\n$comment\n");
	is(join("\n", breaches($copy)), '', 'a comment may name what it likes');
	write_file("$copy/src/base/fixed_settings.c", $before);
}

# Builds: in the checkout, and in a folder beside the sources.
my @before = files_of($copy, '.');
my @objects = map { s/\.c$/.o/r } grep { /\.c$/ } files_of($copy, 'src');
my ($version) = slurp_file("$copy/cqrs_es.control") =~ /^default_version = '(.*)'/m;
my @released = map { m{sql/upgrade/cqrs_es--([\d.]+)\.sql$} } @before;
my @built = ('cqrs_es.so', "sql/cqrs_es--$version.sql", "sql/cqrs_es--$released[-1]--$version.sql", 'src/base/older_columns.inc', @objects);

# (the checkout is built already: what stands there is taken along.)
for my $build ([ 'in the checkout', $copy, 'Makefile' ], [ 'elsewhere', "$copy/build", '../Makefile' ])
{
	my ($where, $folder, $makefile) = @$build;
	my @make = ('make', '-s', '-C', $folder, '-f', $makefile, 'with_llvm=no', 'COPT=-O0');

	make_path($folder);
	if ($folder eq $copy)
	{
		is_deeply([ grep { !-s "$root/$_" } @built ], [], "built $where: all objects, the library and the SQL script");
		copy("$root/$_", "$copy/$_") or die "could not copy $_: $!" foreach @built;
	}
	else
	{
		command_ok([ @make, '-j2', 'all' ], "builds $where");
		is_deeply([ grep { !-s "$folder/$_" } @built ], [], '... all objects, the library and the SQL script');
	}
	like(slurp_file("$folder/sql/cqrs_es--$version.sql"), qr/-- 000_core:.*-- 980_protect:/s, '... which has all parts');
	is(scalar(() = slurp_file("$folder/sql/cqrs_es--$version.sql") =~ /^-- \d\d\d_\w+:/mg),
		scalar(grep { m{/\d\d\d_\w+\.sql$} } @before), '... each once');
	command_ok([ @make, 'clean' ], "cleans up $where");
	is_deeply([ files_of($copy, '.') ], \@before, '... and leaves no file');
}

done_testing();
