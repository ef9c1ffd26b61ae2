# A dump of a database in each format, restored into new databases, each in another way.

package Restored;

use strict;
use warnings FATAL => 'all';
use Exporter 'import';
use PostgreSQL::Test::Utils;

our @EXPORT = qw(restore_each_way);

# Dumps the database into the directory, as plain.sql, custom and directory, and for each
# calls $test->(database, how, what the restore complained of).
sub restore_each_way
{
	my ($node, $database, $directory, $test) = @_;
	my @dump = ('pg_dump', '-d', $node->connstr($database), '--no-sync', '-f');

	$node->command_ok([ @dump, "$directory/plain.sql" ], 'pg_dump, plain');
	$node->command_ok([ @dump, "$directory/custom", '-Fc' ], 'pg_dump, custom');
	$node->command_ok([ @dump, "$directory/directory", '-Fd' ], 'pg_dump, directory');
	my $count = 0;
	foreach my $way ([ 'plain', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$directory/plain.sql" ],
		[ 'custom, one transaction', 'pg_restore', '--single-transaction', "$directory/custom" ],
		[ 'directory, two jobs', 'pg_restore', '-j', '2', '--exit-on-error', "$directory/directory" ])
	{
		my ($how, @command) = @$way;
		my $name = 'restored' . ++$count;

		$node->safe_psql('postgres', "CREATE DATABASE $name");
		my (undef, $stderr) = run_command([ @command, '-d', $node->connstr($name) ]);
		$test->($name, $how, $stderr);
	}
	return;
}

1;
