# Statements of definers that run straight through the executor: modules that look at what it does
# are shown them as ever; who waits for a lock in one is told no more of it than its definer wants; and a
# session goes on after any error in the middle of one, its locks and snapshots released.

use strict;
use warnings FATAL => 'all';
use lib "$ENV{TESTDIR}/test/include";
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('direct');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum = off\nlog_lock_waits = on\ndeadlock_timeout = 10ms\nlog_statement = none");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE kept (id text PRIMARY KEY, secret integer NOT NULL);
	SELECT cqrs_es.create_projection('kept', '{a}', '{kept}');
	SELECT cqrs_es.define_handler('kept', 'e', 'INSERT INTO kept AS k VALUES (event.payload->>''row'', 10)
		ON CONFLICT (id) DO UPDATE SET secret = k.secret / (event.payload->>''by'')::integer');
	CREATE TABLE states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
	SELECT cqrs_es.create_aggregate('a'), cqrs_es.create_projection('states', state_of => 'a', read_models => '{states}');
	CREATE ROLE writer LOGIN;
	GRANT USAGE ON SCHEMA cqrs_es TO writer;
	GRANT SELECT, INSERT ON cqrs_es.events TO writer;
});
my @sessions = map { Session->new($node->host, $node->port, 'writer', 'postgres') } 1 .. 2;
sub append
{
	my ($id, $by, $row) = (@_, 'r');
	return qq{SELECT version FROM cqrs_es.append_event('a', '$id', 'e', '{"row": "$row", "by": $by}')};
}
$_->[0]->ask(append($_->[1], 1)) foreach map { my $n = $_; map { [ $sessions[$n], $n ] } 1 .. 3 } 0, 1;

# lock waits
sub wait_with
{
	my ($messages) = @_;
	my $from = -s $node->logfile;

	$sessions[0]->ask("BEGIN; " . append(0, 1));
	my $stderr = '';
	my $client = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-v', 'VERBOSITY=verbose', '-d', $node->connstr('postgres') . ' user=writer',
		map { ('-c', $_) } "SET client_min_messages = $messages", append('w', 1, 'other'), append('w', 1) ], '<', \undef, '>', \my $stdout, '2>', \$stderr);
	$node->wait_for_log(qr/still waiting for ShareLock/, $from);
	$sessions[0]->ask('COMMIT');
	$client->finish;
	return ($stderr, slurp_file($node->logfile, $from));
}
foreach my $messages (qw(log debug1 notice))
{
	my ($stderr, $log) = wait_with($messages);
	unlike($stderr, qr/waiting|INSERT INTO kept/, "who waits with client_min_messages = $messages is not shown the statement");
	like($log, qr/still waiting.*SQL statement "INSERT INTO kept AS k VALUES/s, 'which is in the log');
}

# errors in the middle
cmp_ok($sessions[0]->value(append(0, 2)), '>', 0, 'a row is written');
foreach my $n (1 .. 3)
{
	$sessions[0]->try(append(0, 0));
	is("$sessions[0]{state} $sessions[0]{detail}", 'QE201 division by zero (SQLSTATE 22012)', 'an error in the middle');
	$sessions[0]->ask('BEGIN; ' . append(0, 1) . '; SAVEPOINT s');
	$sessions[0]->try(append(0, 0));
	$sessions[0]->ask('ROLLBACK TO s; ' . append(0, 1) . '; COMMIT');
}
is($sessions[0]->value('SELECT current_user'), 'writer', 'who one is');
is($node->safe_psql('postgres', q{SELECT secret FROM kept WHERE id = 'r'; SELECT version, count(*) FROM states JOIN cqrs_es.events ON aggregate_id = view_id WHERE view_id = '0' GROUP BY 1}),
	join("\n", 5, do { my $n = $node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.events WHERE aggregate_id = '0'}); "$n|$n" }), 'what was written is that of the appends that succeeded');
$sessions[0]->ask('SET plan_cache_mode = force_custom_plan; ' . append(0, 1));
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE relation = 'kept'::regclass}), 0, 'no lock is left');

# other modules
SKIP:
{
	skip 'auto_explain is not installed', 4 unless $node->psql('postgres', "LOAD 'auto_explain'") == 0;
	my $from = -s $node->logfile;
	$node->safe_psql('postgres', "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; "
		. join('; ', map { append('x', 1) } 1 .. 3));
	my $log = slurp_file($node->logfile, $from);
	is(scalar(() = $log =~ /Query Text: INSERT INTO kept/g), 3, 'statements of handlers are explained');
	is(scalar(() = $log =~ /Conflict Arbiter Indexes: kept_pkey/g), 3, 'with their plans');

	# states that have to be found without the help of any scan that is allowed
	$from = -s $node->logfile;
	$node->safe_psql('postgres', "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on; SET auto_explain.log_nested_statements = on; "
		. 'SET enable_indexscan = off; SET enable_bitmapscan = off; ' . join('; ', map { append("new $_", 1) } 1 .. 3));
	$log = slurp_file($node->logfile, $from);
	cmp_ok(scalar(() = $log =~ /Scan (?:using \w+ )?on (?:public\.)?states/g), '>=', 3, 'states that no index should find are found');
	unlike($log, qr/JIT:/, 'and their statements are not compiled each time');
}
$node->stop;
done_testing();
