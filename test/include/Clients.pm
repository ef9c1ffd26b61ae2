
# The programs that tests of clients need: which Python has psycopg, and where
# node-postgres is.

package Clients;

use strict;
use warnings FATAL => 'all';
use Exporter qw(import);
use File::Copy qw(copy);
use IPC::Run ();
use PostgreSQL::Test::Utils;

our @EXPORT_OK = qw(python_with_psycopg node_with_pg);

# A Python that has psycopg and its pool: Debian's packages are those of its own.
# Else nothing, and the reason.
sub python_with_psycopg
{
	foreach my $python ('python3', '/usr/bin/python3')
	{
		return $python if runs($python, '-c', 'import psycopg, psycopg_pool');
	}
	return (undef, 'psycopg 3 and psycopg_pool are not installed (Debian: python3-psycopg, python3-psycopg-pool)');
}

# Where node-postgres is: the one that node finds by itself, as Debian's
# (node-pg), else what npm brings into a directory that goes away. Else nothing,
# and the reason.
sub node_with_pg
{
	return (undef, 'Node.js is not installed (Debian: nodejs, node-pg)') if !runs('node', '--version');
	return $ENV{NODE_PATH} // '' if runs('node', '-e', 'require("pg")');
	return (undef, 'neither node-postgres nor npm is installed (Debian: node-pg)') if !runs('npm', '--version');

	my $work = PostgreSQL::Test::Utils::tempdir();
	copy("$ENV{TESTDIR}/test/clients/package.json", $work) or die "could not copy package.json: $!";
	my $output = '';
	my $installed = eval {
		IPC::Run::run([ 'npm', 'install', '--prefix', $work, '--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=error' ],
			'<', \undef, '>&', \$output, IPC::Run::timeout(120));
	};
	return "$work/node_modules" if $installed;
	return (undef, "npm could not install node-postgres: " . (split /\n/, $output || $@)[0]);
}

sub runs
{
	my @command = @_;
	return eval { IPC::Run::run(\@command, '<', \undef, '>&', \my $output) };
}

1;
