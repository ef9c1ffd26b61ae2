
# Programs in other languages, test/clients/account.*, which people copy: each
# plays the same story as a role with the grants of a service, over a pool.

use strict;
use warnings FATAL => 'all';
use File::Copy qw(copy);
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $clients = "$ENV{TESTDIR}/test/clients";
my $work = PostgreSQL::Test::Utils::tempdir();

my $story = <<'END';
opened: version 1, owner Ada, balance 0
opened: version 1, owner Ada, balance 0
deposited 0.1: version 2, balance 0.1, next is version 3
deposited 0.2: version 3, balance 0.3, next is version 4
prepared statements: 1
rejected: funds not available, code NSF
rejected: account is open already, code OPEN
conflict QE001: account/a1 expected 2, actual 3
decided for Ada, then for Augusta: version 5
appended an array of JSON: version 7
appended arrays: version 9
event 10: metadata {"user": "ada"}
event 11: metadata {}
100 deposits at once: versions 12 to 111, 100 different ones
state: owner Augusta King, balance 26.30
no such account
mails of two workers: 104
END

# What README.md shows of the programs stands in them.
my $readme = slurp_file("$ENV{TESTDIR}/README.md");
foreach my $language ([ 'python', 'account.py' ], [ 'js', 'account.js' ])
{
	my ($tag, $file) = @$language;
	my $program = slurp_file("$clients/$file");
	my @blocks = $readme =~ /^```$tag\n(.*?)^```$/msg;
	cmp_ok(scalar @blocks, '>', 0, "README.md shows $file");
	ok(index($program, $_) >= 0, "and just as it is") || diag($_) foreach @blocks;
}

my $node = PostgreSQL::Test::Cluster->new('clients');
$node->init;
$node->start;

my ($python, $why) = python_with_psycopg();
plays('python', $python && [ $python, "$clients/account.py" ], $why);

(my $node_path, $why) = node_with_pg();
{
	local $ENV{NODE_PATH} = $node_path;
	plays('javascript', defined $node_path && [ 'node', "$clients/account.js" ], $why);
}

$node->stop;
done_testing();

# Play the story in a database of its own; without a command, skip it and say why.
sub plays
{
	my ($name, $command, $missing) = @_;

  SKIP:
	{
		skip "$name: $missing", 3 if !$command;

		$node->safe_psql('postgres', "CREATE DATABASE $name");
		$node->safe_psql($name, 'CREATE EXTENSION cqrs_es');
		$node->safe_psql($name, slurp_file("$clients/account.sql"));

		my ($stdout, $stderr);
		{
			local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => $name, PGUSER => 'shop');
			($stdout, $stderr) = run_command($command);
		}
		is("$stdout\n", $story, "$name: the story");
		is($stderr, '', "$name: no warning");
		is($node->safe_psql($name, q{SELECT count(*), max(sequence), count(*) FILTER (WHERE metadata ? 'command_id') FROM cqrs_es.events}),
			'111|111|103', "$name: every event is there once");
		$node->safe_psql('postgres', "DROP DATABASE $name");
		$node->safe_psql('postgres', 'DROP ROLE shop');
	}
}

# A Python that has psycopg and its pool: Debian's packages are those of its own.
sub python_with_psycopg
{
	foreach my $python ('python3', '/usr/bin/python3')
	{
		return $python if runs($python, '-c', 'import psycopg, psycopg_pool');
	}
	return (undef, 'psycopg 3 and psycopg_pool are not installed (Debian: python3-psycopg, python3-psycopg-pool)');
}

# Where node-postgres is: the one that node finds by itself, as Debian's
# (node-pg), else what npm brings into a directory that goes away.
sub node_with_pg
{
	return (undef, 'Node.js is not installed (Debian: nodejs, node-pg)') if !runs('node', '--version');
	return $ENV{NODE_PATH} // '' if runs('node', '-e', 'require("pg")');
	return (undef, 'neither node-postgres nor npm is installed (Debian: node-pg)') if !runs('npm', '--version');

	copy("$clients/package.json", $work) or die "could not copy package.json: $!";
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
