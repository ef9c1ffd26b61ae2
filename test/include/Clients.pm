# The programs that tests of clients need: which Python and which node has the
# libraries.

package Clients;

use strict;
use warnings FATAL => 'all';
use Exporter qw(import);
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Utils;

our @EXPORT_OK = qw(python_with_psycopg node_with_pg python_with node_with);

sub python_with_psycopg { return python_with('psycopg', 'psycopg_pool') }
sub node_with_pg { return node_with('pg') }

# A Python that has these modules: Debian's packages are those of its own. Else
# nothing, and the reason.
sub python_with
{
	my @modules = @_;
	foreach my $python ('python3', '/usr/bin/python3')
	{
		return $python if runs($python, '-c', 'import ' . join ', ', @modules);
	}
	return (undef, "no Python has @modules (Debian: " . join(', ', map { 'python3-' . s/_/-/gr } @modules) . ')');
}

# A NODE_PATH with which node finds these modules: those that it finds by itself,
# as Debian's, and what npm brings into a directory that goes away. Else nothing,
# and the reason.
sub node_with
{
	my @modules = @_;
	my $debian = 'Debian: ' . join ', ', map { "node-$_" } @modules;
	return (undef, "Node.js is not installed ($debian, nodejs)") if !runs('node', '--version');
	my @missing = grep { !runs('node', '-e', "require('$_')") } @modules;
	return $ENV{NODE_PATH} // '' if !@missing;
	return (undef, "neither @missing of Node.js nor npm is installed ($debian)") if !runs('npm', '--version');

	my $work = PostgreSQL::Test::Utils::tempdir();
	my $versions = JSON::PP::decode_json(slurp_file("$ENV{TESTDIR}/test/clients/package.json"))->{dependencies};
	my $output = '';
	my $installed = eval {
		IPC::Run::run([ 'npm', 'install', '--prefix', $work, '--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=error',
				map { "$_\@$versions->{$_}" } @missing ], '<', \undef, '>&', \$output, IPC::Run::timeout(120));
	};
	return join ':', "$work/node_modules", $ENV{NODE_PATH} // () if $installed;
	return (undef, "npm could not install @missing: " . (split /\n/, $output || $@)[0]);
}

sub runs
{
	my @command = @_;
	return eval { IPC::Run::run(\@command, '<', \undef, '>&', \my $output) };
}

1;
