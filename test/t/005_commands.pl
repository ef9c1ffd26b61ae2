
# Commands under contention: sixteen sessions send commands to one aggregate. No
# command fails through a race, no update is lost, and what is rejected is
# rejected for a reason.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($sessions, $commands) = (16, 1000);

my $node = PostgreSQL::Test::Cluster->new('commands');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	SELECT cqrs_es.create_aggregate('account', '{"balance": 0, "count": 0}');
	SELECT cqrs_es.define_reducer('account', 'Moved',
		'[{"op": "increment", "path": "/balance", "from": "/amount"}, {"op": "increment", "path": "/count"}]');
	SELECT cqrs_es.define_command('account', 'Move', $$
		CASE WHEN (state->>'balance')::numeric + (command->>'amount')::numeric < 0 THEN cqrs_es.reject('funds not available')
		ELSE jsonb_build_object('type', 'Moved', 'payload', command) END$$);
	CREATE TABLE balances (account text PRIMARY KEY, balance numeric NOT NULL, events bigint NOT NULL);
	SELECT cqrs_es.create_projection('balances');
	SELECT cqrs_es.define_handler('balances', 'Moved', $$
		INSERT INTO balances VALUES (event.aggregate_id, (event.payload->>'amount')::numeric, 1)
		ON CONFLICT (account) DO UPDATE SET balance = balances.balance + excluded.balance, events = balances.events + 1$$);
});

foreach my $path ('off', 'on')
{
	my $id = "path $path";
	my $script = $node->basedir . '/move.sql';
	append_to_file($script, "SELECT * FROM cqrs_es.execute_command('account', '$id', 'Move', '{\"amount\": 0.25}');\n");
	local $ENV{PGOPTIONS} = "-c cqrs_es.force_generic_path=$path";
	$node->command_checks_all(
		[ 'pgbench', '-n', '-M', 'prepared', '-c', $sessions, '-j', 2, '-t', $commands, '-f', $script,
			$node->connstr('postgres') ],
		0,
		[ qr{actually processed: @{[ $sessions * $commands ]}/@{[ $sessions * $commands ]}} ],
		[ qr/^((?!ERROR).)*$/s ],
		"force_generic_path $path: no command failed");
	unlink $script;
	is($node->safe_psql('postgres', "SELECT version, state->>'count', (state->>'balance')::numeric FROM cqrs_es.load_aggregate('account', '$id')"),
		join('|', $sessions * $commands, $sessions * $commands, '4000.00'), 'no update was lost');
	is($node->safe_psql('postgres', "SELECT balance, events FROM balances WHERE account = '$id'"),
		join('|', '4000.00', $sessions * $commands), 'nor in the read model');
	is($node->safe_psql('postgres', "SELECT count(*) FROM (SELECT global_position < lag(global_position) OVER (ORDER BY sequence) AS back,
		sequence - row_number() OVER (ORDER BY sequence) AS hole FROM cqrs_es.events WHERE aggregate_id = '$id') AS e WHERE back OR hole <> 0"),
		'0', 'sequences have no holes, positions rise');
}
# The same commands from all sessions at about the same time: each is executed once.
my $script = $node->basedir . '/again.sql';
append_to_file($script, "\\set n :n + 1\n"
	. "SELECT * FROM cqrs_es.execute_command('account', 'again', 'Move', '{\"amount\": 1}', command_id => lpad(:n::text, 32, '0')::uuid);\n");
$node->command_checks_all(
	[ 'pgbench', '-n', '-M', 'prepared', '-c', 8, '-j', 2, '-t', $commands, '-D', 'n=0', '-f', $script, $node->connstr('postgres') ],
	0,
	[ qr{actually processed: @{[ 8 * $commands ]}/@{[ 8 * $commands ]}} ],
	[ qr/^((?!ERROR).)*$/s ],
	'commands are sent again while they are running');
is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT metadata->>'command_id') FROM cqrs_es.events WHERE aggregate_id = 'again'"),
	"$commands|$commands", 'none was executed twice');

is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), '0', 'no lock is left');

$node->stop;
done_testing();
