# The log is partitioned in place, by hash of the aggregate id (partition_log), with sessions
# that go on: everything works as before, nothing is changed or removed by the name
# of a partition either, and dump and restore bring it back.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('partitioned');
$node->init;
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]) }

sql(q{
	CREATE EXTENSION cqrs_es;
	CREATE ROLE writer;
	GRANT USAGE ON SCHEMA cqrs_es TO writer;
	GRANT SELECT, INSERT ON cqrs_es.events TO writer;
	SELECT cqrs_es.create_aggregate('account', '{"sum": 0}', snapshot_every => 3);
	SELECT cqrs_es.define_reducer('account', 'Added', '[{"op": "increment", "path": "/sum", "from": "/n"}]');
	SELECT cqrs_es.define_command('account', 'Add', $$jsonb_build_object('type', 'Added', 'payload', command)$$);
	CREATE TABLE sums (account text PRIMARY KEY, sum numeric);
	SELECT cqrs_es.create_projection('sums', read_models => '{sums}');
	SELECT cqrs_es.define_handler('sums', 'Added', $$INSERT INTO sums VALUES (event.aggregate_id, (event.payload->>'n')::numeric)
		ON CONFLICT (account) DO UPDATE SET sum = sums.sum + excluded.sum$$);
	SELECT FROM generate_series(1, 200) n, LATERAL cqrs_es.append_event('account', (n % 20)::text, 'Added', '{"n": 1}');
});
my $log = q{SELECT md5(string_agg(e::text, ',' ORDER BY global_position)) FROM cqrs_es.read_all(max_count => 200) AS e};
my $before = sql($log);
my $session = $node->background_psql('postgres');
my $try = q{SELECT a.version FROM cqrs_es.append_event('account', '7', 'Added', '{"n": 1}') AS a};
is($session->query_safe($try), '11', 'before');

is($node->safe_psql('postgres', q{SELECT cqrs_es.partition_log('aggregate_id', partitions => 4) >= 0}), 't', 'partition_log');
is(sql(q{SELECT count(*), count(DISTINCT tableoid) FROM cqrs_es.events}), '201|4', 'all events are in the partitions');
is(sql($log), $before, 'and read as before');

is($session->query_safe($try), '12', 'a session goes on: append_event');
is($session->query_safe(q{SELECT a.version FROM cqrs_es.append_events('account', '7', '[{"type": "Added", "payload": {"n": 1}}, {"type": "Added", "payload": {"n": 1}}]', 12) AS a}),
	'14', 'append_events');
is($session->query_safe(q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', '7', 'Added', '{"n": 1}'), ('account', '8', 'Added', '{"n": 1}') RETURNING sequence}),
	"15\n11", 'INSERT');
is($session->query_safe(q{SELECT a.version, a.state FROM cqrs_es.execute_command('account', '7', 'Add', '{"n": 5}') AS a}),
	'16|{"sum": 20}', 'execute_command');
sql(qq{COPY cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) FROM stdin;\naccount\t7\tAdded\t{"n": 1}\n\\.\n});
$session->query_safe(q{SET ROLE writer});
is($session->query_safe($try), '18', 'an ordinary role that had the rights has them');
$session->query_safe(q{RESET ROLE});
my $partition = sql(q{SELECT tableoid::regclass FROM cqrs_es.events WHERE aggregate_id = '7' LIMIT 1});
is($session->query_safe(qq{INSERT INTO $partition (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', '7', 'Added', '{"n": 1}') RETURNING sequence}),
	'19', 'INSERT into a partition');
is(sql(q{SELECT state, (SELECT sum FROM sums WHERE account = '7') FROM cqrs_es.load_aggregate('account', '7')}), '{"sum": 23}|23', 'state and read model');
is(sql(q{SELECT state, last_position = (SELECT max(global_position) FROM cqrs_es.events), last_position = cqrs_es.settled_position() FROM cqrs_es.projection_status}),
	'live|t|t', 'projection_status knows the new log');
is(sql(q{SELECT cqrs_es.rebuild_projection('sums')}), sql('SELECT count(*) FROM cqrs_es.events'), 'a rebuild');
is(sql(q{SELECT count(*) FROM (SELECT global_position < lag(global_position) OVER w AS back, sequence - row_number() OVER w AS hole
	FROM cqrs_es.events WINDOW w AS (PARTITION BY aggregate_id ORDER BY sequence)) AS e WHERE back OR hole <> 0}), '0', 'sequences have no holes, positions rise');

foreach my $change (map { ("UPDATE $_ SET payload = '{}'", "DELETE FROM $_", "TRUNCATE $_") } 'cqrs_es.events', $partition)
{
	my ($status, $out, $err) = $node->psql('postgres', $change, on_error_stop => 0);
	like($err, qr/events are append-only/, "$change is refused");
}
my ($status, $out, $err) = $node->psql('postgres', q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload) VALUES ('account', '7', 1, 'Added', '{}')});
like($err, qr/duplicate key value violates unique constraint "events_\d_pkey"/, 'a sequence that is taken');
($status, $out, $err) = $node->psql('postgres', q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload) VALUES ('account', '7', 99, 'Added', '{}')});
like($err, qr/would leave a hole/, 'a hole');

# races
my $script = $node->basedir . '/append.sql';
append_to_file($script, "SELECT FROM cqrs_es.append_event('account', 'hot', 'Added', '{\"n\": 1}');\n");
$node->command_checks_all([ 'pgbench', '-n', '-c', 4, '-t', 100, '-f', $script, $node->connstr('postgres') ],
	0, [qr{actually processed: 400/400}], [qr/^((?!ERROR).)*$/s], 'four sessions append to one stream');
is(sql(q{SELECT version, state FROM cqrs_es.load_aggregate('account', 'hot')}), '400|{"sum": 400}', 'no event is lost');

# The dump has the log with its partitions; that of the extension gives way.
$log = q{SELECT count(*), md5(string_agg(e::text, ',' ORDER BY global_position)) FROM cqrs_es.read_all(max_count => 10000) AS e};
$before = sql($log);
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'is restored');
is($node->safe_psql('restored', $log), $before, 'with all events');
is($node->safe_psql('restored', $try), '20', 'appends go on');
is($node->safe_psql('restored', q{SELECT state, (SELECT sum FROM sums WHERE account = '7') FROM cqrs_es.load_aggregate('account', '7')}), '{"sum": 24}|24', 'and projections');
cmp_ok($node->safe_psql('restored', 'SELECT max(global_position) FROM cqrs_es.events'), '>', sql('SELECT max(global_position) FROM cqrs_es.events'), 'positions, too');
($status, $out, $err) = $node->psql('restored', "DELETE FROM $partition");
like($err, qr/events are append-only/, 'its partitions are guarded');
is($node->safe_psql('restored', q{SET SESSION AUTHORIZATION writer; } . $try), '21', 'grants and policy are there');

$session->quit;
$node->stop;
done_testing();
