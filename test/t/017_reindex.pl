# Indexes are built beside those who append: REINDEX CONCURRENTLY of the primary
# key makes a second unique index of the streams, which stays when it is cancelled.
# No append fails or waits for ever (timeouts would end it), and no stream gets
# a hole.

use strict;
use warnings FATAL => 'all';
use IPC::Run qw(start finish pump timeout);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('reindex');
$node->init;
$node->append_conf('postgresql.conf', "statement_timeout = 60s\ndeadlock_timeout = 100ms\nautovacuum = off");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION cqrs_es');
my $invalid = q{SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid};
my $events = 0;

# Start sessions that append to one stream, twice in each transaction.
sub start_load
{
	my ($sessions, $transactions) = @_;
	my $script = $node->basedir . '/twice.sql';
	unlink $script;
	append_to_file($script, "BEGIN;\n"
		. "SELECT FROM cqrs_es.append_event('t', 'hot', 'e', '1');\n"
		. "SELECT FROM cqrs_es.append_events('t', 'hot', '[{\"type\": \"e\", \"payload\": 2}, {\"type\": \"e\", \"payload\": 3}]');\n"
		. "COMMIT;\n"
		. "SELECT FROM cqrs_es.append_event('t', 'hot', 'e', '4');\n");
	$events += 4 * $sessions * $transactions;
	my $out = '';
	my $load = start([ 'pgbench', '-n', '-M', 'prepared', '-c', $sessions, '-j', 2, '-t', $transactions, '-f', $script,
			$node->connstr('postgres') ], '>', \$out, '2>&1', timeout(180));
	return [ $load, \$out ];
}

sub is_running
{
	my ($load) = @_;
	$load->[0]->pump_nb;
	return $load->[0]->pumpable;
}

sub check
{
	my ($load, $what) = @_;
	finish($load->[0]);
	unlike(${ $load->[1] }, qr/ERROR/, "$what: no append failed");
	is($node->safe_psql('postgres', q{SELECT count(*), max(sequence), count(DISTINCT global_position) FROM cqrs_es.events WHERE aggregate_id = 'hot'}),
		"$events|$events|$events", "$what: no event is lost or doubled");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT global_position < lag(global_position) OVER (ORDER BY sequence) AS back
		FROM cqrs_es.events WHERE aggregate_id = 'hot') AS e WHERE back}), '0', "$what: positions rise");
}

foreach my $path ('off', 'on')
{
	local $ENV{PGOPTIONS} = "-c cqrs_es.force_generic_path=$path";
	my $load = start_load(8, 250);
	my $reindexed = 0;
	do
	{
		$node->safe_psql('postgres', 'REINDEX INDEX CONCURRENTLY cqrs_es.events_pkey');
		$reindexed++;
	} while (is_running($load));
	note("$reindexed times");
	check($load, "force_generic_path $path, beside REINDEX CONCURRENTLY");
}
is($node->safe_psql('postgres', $invalid), '', 'all indexes are valid');

# Cancelled when the copy gets all rows already, but may not be used: it waits
# for a snapshot.
my $snapshot = $node->background_psql('postgres');
$snapshot->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
$snapshot->query_safe('SELECT count(*) FROM pg_class');
my $reindex = $node->background_psql('postgres', on_error_stop => 0);
$reindex->query_until(qr/reindexing/, "\\echo reindexing\nREINDEX INDEX CONCURRENTLY cqrs_es.events_pkey;\n");
$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_index WHERE indisready AND NOT indisvalid)
	AND EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'REINDEX%' AND wait_event = 'virtualxid')});
check(start_load(8, 100), 'while it waits');
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'REINDEX%' AND pid <> pg_backend_pid()});
$node->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'REINDEX%' AND pid <> pg_backend_pid())});
$reindex->quit;
$snapshot->query_safe('COMMIT');
is($node->safe_psql('postgres', $invalid), 'cqrs_es.events_pkey_ccnew', 'it is cancelled, and leaves its copy');
foreach my $path ('off', 'on')
{
	local $ENV{PGOPTIONS} = "-c cqrs_es.force_generic_path=$path";
	check(start_load(8, 250), "force_generic_path $path, with the copy of a cancelled REINDEX");
}
$node->safe_psql('postgres', 'DROP INDEX cqrs_es.events_pkey_ccnew');
check(start_load(8, 100), 'without it');

# A unique index of the owner's is built between two appends of a transaction.
my $writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN');
$writer->query_safe(q{SELECT FROM cqrs_es.append_event('t', 'built', 'e', '1', event_id => '00000000-0000-7000-8000-000000000001')});
my $builder = $node->background_psql('postgres');
$builder->query_until(qr/building/, "\\echo building\nCREATE UNIQUE INDEX CONCURRENTLY ids ON cqrs_es.events (event_id);\n");
$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE UNIQUE%' AND wait_event = 'virtualxid')});
$node->safe_psql('postgres', q{SELECT FROM cqrs_es.append_event('t', 'other', 'e', '1')});
$writer->query_safe(q{SELECT FROM cqrs_es.append_event('t', 'built', 'e', '2')});
$writer->query_safe(q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('t', 'built', 'e', '3')});
$writer->query_safe('COMMIT');
$builder->quit;
is($node->safe_psql('postgres', q{SELECT indisvalid FROM pg_index WHERE indexrelid = 'cqrs_es.ids'::regclass}), 't', 'it is built in the end');
is($node->safe_psql('postgres', q{SELECT string_agg(format('%s:%s', sequence, payload), ' ' ORDER BY sequence) FROM cqrs_es.read_stream('t', 'built')}),
	'1:1 2:2 3:3', 'the transaction has done what it would have done');
my ($status, $stdout, $stderr) = $node->psql('postgres', q{SELECT FROM cqrs_es.append_event('t', 'other', 'e', '1', event_id => '00000000-0000-7000-8000-000000000001')});
like($stderr, qr/duplicate key value violates unique constraint "ids"/, 'what it refuses names it');
check(start_load(8, 100), 'beside another unique index');
$writer->quit;
$snapshot->quit;

$node->stop;
done_testing();
