
# Programs in other languages, test/clients/account.*, which people copy: each
# plays the same story as a role with the grants of a service, over a pool.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Clients qw(python_with_psycopg node_with_pg);

my $clients = "$ENV{TESTDIR}/test/clients";

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

# What docs/clients.md shows of them stands in them, just as it is.
my $page = slurp_file("$ENV{TESTDIR}/docs/clients.md");
foreach my $language ([ 'python', 'account.py' ], [ 'js', 'account.js' ])
{
	my ($tag, $file) = @$language;
	my $program = slurp_file("$clients/$file");
	foreach my $function ('retry', 'update', 'work')
	{
		my ($block) = $page =~ /^```$tag\n((?:def|(?:async )?function) $function\(.*?)^```$/ms;
		ok($block && index($program, $block) >= 0, "$function() of docs/clients.md is that of $file") || diag($block);
	}
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
