# A log that is partitioned by position, beside sessions that append to it: streams go on over its
# edges with sequences that have no holes, whoever makes the partitions: keep_partitions, pg_partman,
# a hand. When there is no room, monitors have said so before. Dumps bring it back; seals, redaction,
# imports, and a subscriber of a publication take it as they take any.
# (By hash: 023_partitioned.)

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('ranges');
$node->init(allows_streaming => 'logical', extra => ['--no-instructions']);
$node->append_conf('postgresql.conf', "max_prepared_transactions = 10\nlog_min_messages = warning");
$node->start;
sub sql { return $node->safe_psql($_[1] // 'postgres', $_[0]) }
sub error { my ($status, $out, $err) = $node->psql($_[1] // 'postgres', $_[0]); return $err }

my $wrong = q{SELECT coalesce(string_agg(item || ': ' || problem, ', '), 'nothing') FROM cqrs_es.verify_log() WHERE problem IS NOT NULL};
my $log = q{SELECT count(*), md5(string_agg(e::text, ',' ORDER BY global_position)) FROM cqrs_es.read_all(max_count => 100000) AS e};

sql(q{
	CREATE EXTENSION cqrs_es;
	CREATE ROLE writer;
	GRANT USAGE ON SCHEMA cqrs_es TO writer;
	GRANT SELECT, INSERT ON cqrs_es.events TO writer;
	SELECT cqrs_es.create_aggregate('account', '{"sum": 0}', snapshot_every => 3);
	SELECT cqrs_es.define_reducer('account', 'Added', '[{"op": "increment", "path": "/sum", "from": "/n"}]');
	SELECT cqrs_es.define_command('account', 'Add', $$jsonb_build_object('type', 'Added', 'payload', command)$$);
	SELECT cqrs_es.define_tags('Added', 'n:{/n}');
	CREATE TABLE sums (account text PRIMARY KEY, sum numeric);
	SELECT cqrs_es.create_projection('sums', read_models => '{sums}');
	SELECT cqrs_es.define_handler('sums', 'Added', $$INSERT INTO sums VALUES (event.aggregate_id, (event.payload->>'n')::numeric)
		ON CONFLICT (account) DO UPDATE SET sum = sums.sum + excluded.sum$$);
	SELECT FROM generate_series(1, 200) n, LATERAL cqrs_es.append_event('account', (n % 20)::text, 'Added', '{"n": 1}');
	SELECT cqrs_es.seal();
});
my $before = sql($log);
my $session = $node->background_psql('postgres');
my $try = q{SELECT a.version FROM cqrs_es.append_event('account', '7', 'Added', '{"n": 1}') AS a};
is($session->query_safe($try), '11', 'before');
$before = sql($log);
is(sql(q{SELECT cqrs_es.partition_log('position', every => 50)}), '201', 'the log is partitioned in place');
is(sql($log), $before, 'and read as before');
is($session->query_safe($try), '12', 'a session goes on: append_event');
is($session->query_safe(q{SELECT a.version, a.state FROM cqrs_es.execute_command('account', '7', 'Add', '{"n": 5}') AS a}), '13|{"sum": 17}', 'execute_command');
is(sql($wrong), 'nothing', 'all is well');
is(sql(q{SELECT coalesce(problem, 'none') FROM cqrs_es.verify_seals() WHERE seal IS NOT NULL}), 'none', 'seals hold');

# races over the edges: few streams, some that are new, positions that run through partitions
sql(q{SELECT cqrs_es.keep_partitions(40)});
my $script = $node->basedir . '/append.sql';
append_to_file($script, <<'SQL');
\set stream random(1, 3)
\set new random(1, 60)
SELECT FROM cqrs_es.append_event('account', 'hot' || :stream, 'Added', '{"n": 1}');
SELECT FROM cqrs_es.append_event('account', 'new' || :client_id % 2 || '/' || :new, 'Other', '{}');
INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', 'hot' || :stream, 'Other', '{}') ON CONFLICT DO NOTHING;
SQL
# an INSERT has nobody to try again for it: what loses is a 23505 there, 40001 over an edge
my ($out, $err) = ('', '');
IPC::Run::run([ 'pgbench', '-n', '-c', 4, '-t', 100, '--max-tries', 20, '-f', $script, $node->connstr('postgres') ], '>', \$out, '2>', \$err);
unlike($err, qr/deadlock|unique constraint "events_global|no partition/, 'nothing else goes wrong');
is(sql(q{SELECT count(*) FROM (SELECT global_position <= lag(global_position) OVER w AS back, sequence - row_number() OVER w AS hole
	FROM cqrs_es.events WINDOW w AS (PARTITION BY aggregate_id ORDER BY sequence, global_position)) AS e WHERE back OR hole <> 0}), '0', 'sequences have no holes, positions rise');
is(sql($wrong), 'nothing', 'verify_log says so, too');
cmp_ok(sql(q{SELECT count(*) FROM cqrs_es.log_partitions WHERE events_estimated IS NOT NULL OR state = 'past'}), '>', 10, 'over many partitions');
is(sql(q{SELECT sum FROM sums WHERE account = 'hot1'}), sql(q{SELECT state->>'sum' FROM cqrs_es.load_aggregate('account', 'hot1')}), 'projections and states are of all of it');
is(sql(q{SELECT cqrs_es.rebuild_projection('sums')}), sql(q{SELECT count(*) FROM cqrs_es.events WHERE event_type = 'Added'}), 'a rebuild reads all of it');

# redaction, and what it leaves in seals
sql(q{SELECT cqrs_es.seal()});
is(sql(q{SELECT cqrs_es.redact_stream('account', '7', '{/payload/n}', 'asked for', '0')}), '13', 'a stream is redacted in all partitions');
is(sql(q{SELECT sum(redacted) FROM cqrs_es.verify_seals() WHERE problem IS NULL}), '13', 'by rule, say the seals');
foreach my $change (map { ("UPDATE $_ SET payload = '{}'", "DELETE FROM $_", "TRUNCATE $_") } 'cqrs_es.events', 'cqrs_es.events_p50')
{
	like(error($change), qr/events are append-only/, "$change is refused");
}

# imports
sql(q{CREATE VIEW history AS SELECT 'ticket' AS aggregate_type, (n % 9)::text AS aggregate_id, n AS position, 'Opened' AS event_type, '{}'::jsonb AS payload, '2020-01-01'::timestamptz AS created_at
	FROM generate_series(1, 130) AS n});
is(sql(q{SELECT imported FROM cqrs_es.import_events('history')}), '130', 'history of other systems comes in over edges');
is(sql(q{SELECT imported, already_there FROM cqrs_es.import_events('history')}), '0|130', 'and is known again');

# dump and restore
$before = sql($log);
foreach my $format ('plain', 'custom')
{
	my $dump = $node->basedir . "/dump.$format";
	$node->command_ok([ 'pg_dump', '-F', $format, '-f', $dump, $node->connstr('postgres') ], "pg_dump, $format");
	sql("CREATE DATABASE restored_$format");
	my @restore = $format eq 'plain' ? ('psql', '-X', '-q', '-1', '-o', '/dev/null', '-v', 'ON_ERROR_STOP=1', '-f', $dump) : ('pg_restore', '-1', $dump);
	$node->command_ok([ @restore, '-d', $node->connstr("restored_$format") ], 'is restored');
	is(sql($log, "restored_$format"), $before, 'with all events');
	is(sql($wrong, "restored_$format"), 'nothing', 'all is well there');
	is(sql($try, "restored_$format"), '15', 'appends go on');
	like(error('TRUNCATE cqrs_es.events_p50', "restored_$format"), qr/append-only/, 'partitions are guarded');
	is(sql(q{SELECT cqrs_es.keep_partitions(50) > 0}, "restored_$format"), 't', 'new ones are made');
}
$node->command_ok([ 'pg_restore', '-1', '--clean', '--if-exists', '-d', $node->connstr('restored_custom'), $node->basedir . '/dump.custom' ], 'restored over it');
is(sql($log, 'restored_custom'), $before, 'it is as it was');

# to another disk: what is full and settled, the oldest first
sql(q{SET allow_in_place_tablespaces = on; CREATE TABLESPACE slow LOCATION ''}); # in two statements, for it cannot be in a transaction
my $older = $node->background_psql('postgres');
is(sql(q{SELECT cqrs_es.archive_events(100, 'slow')}), '1', 'a partition goes to another tablespace');
is(sql(q{SELECT cqrs_es.archive_events(100, 'slow', 10)}), '1', 'then the next');
is(sql(q{SELECT cqrs_es.archive_events(100, 'slow', 10)}), '0', 'and no others that are below the position');
is(sql(q{SELECT string_agg(format('%s %s %s %s', partition, to_position, events = (SELECT count(*) FROM cqrs_es.events AS e
	WHERE e.global_position >= a.from_position AND e.global_position < a.to_position), tablespace), ', ' ORDER BY from_position) FROM cqrs_es.archives AS a}),
	'cqrs_es.events_p0 50 t slow, cqrs_es.events_p50 100 t slow', 'which is known');
is(sql(q{SELECT count(*) FROM pg_class AS c JOIN pg_tablespace AS t ON t.oid = c.reltablespace WHERE t.spcname = 'slow' AND c.relname LIKE 'events_p%'}), '6', 'with their indexes');
is(sql($log), $before, 'everything is read as before');
is($older->query_safe($try), '15', 'and appended: to a stream that has events there');
is(sql(q{SELECT a.version FROM cqrs_es.append_event('account', 'brand new', 'Added', '{"n": 1}') AS a}), '1', 'to one that is new');
is(sql(q{SELECT cqrs_es.archive_events(9223372036854775807, 'slow', 1000) > 10}), 't', 'all that is full');
is(sql(q{SELECT count(*) FROM cqrs_es.log_partitions WHERE tablespace = 'slow' AND state <> 'past'}), '0', 'and nothing else');
is(sql(q{SELECT coalesce(string_agg(problem, ','), 'none') FROM cqrs_es.verify_seals() WHERE seal IS NOT NULL}), 'none', 'seals hold');
is(sql($wrong), 'nothing', 'all is well');
like(error(q{SELECT cqrs_es.archive_events(100, 'nowhere')}), qr/tablespace "nowhere" does not exist/, 'no such tablespace');
like(error(q{DELETE FROM cqrs_es.archives}), qr/archives are append-only/, 'what was done stays known');
$older->quit;

# no room
sql(q{CREATE DATABASE small});
sql(q{CREATE EXTENSION cqrs_es; SELECT cqrs_es.partition_log('position', every => 10);
	SELECT FROM generate_series(1, 15) AS n, LATERAL cqrs_es.append_event('a', n::text, 'x', '{}')}, 'small');
is(sql(q{SELECT state, count(*) FROM cqrs_es.log_partitions GROUP BY 1 ORDER BY 1}, 'small'), "ahead|1\ncurrent|1\npast|1", 'there is room in one more');
is(sql($wrong, 'small'), 'nothing', 'so nobody is alarmed');
sql(q{SELECT FROM generate_series(1, 5) AS n, LATERAL cqrs_es.append_event('a', n::text, 'x', '{}')}, 'small');
like(sql($wrong, 'small'), qr/^partitions: there is no room for positions from 30 on/, 'before the last one is full verify_log says so');
sql(q{SELECT FROM generate_series(1, 9) AS n, LATERAL cqrs_es.append_event('a', n::text, 'x', '{}')}, 'small');
like(error(q{SELECT cqrs_es.append_event('a', '1', 'x', '{}')}, 'small'), qr/no partition of relation "events" found for row/, 'when it is full nothing is appended');
is(sql(q{SELECT cqrs_es.keep_partitions()}, 'small'), '3', 'until there are others');
is(sql(q{SELECT a.version FROM cqrs_es.append_event('a', '1', 'x', '{}') AS a}, 'small'), '4', 'then it goes on');
sql(q{SELECT cqrs_es.after_failover()}, 'small');
is(sql(q{SELECT cqrs_es.keep_partitions(1)}, 'small'), '2', 'after a failover positions jump: keep_partitions jumps, too');
is(sql(q{SELECT a.version FROM cqrs_es.append_event('a', '1', 'x', '{}') AS a}, 'small'), '5', 'and appends');
is(sql($wrong, 'small'), 'nothing', 'all is well');

# pg_partman makes and keeps the partitions; ours is what it does not know of
SKIP:
{
	skip 'pg_partman is not installed', 6 if sql(q{SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_partman'}) eq '0';
	sql(q{CREATE DATABASE managed});
	sql(q{CREATE EXTENSION cqrs_es; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman;
		SELECT FROM generate_series(1, 25) AS n, LATERAL cqrs_es.append_event('a', (n % 3)::text, 'x', '{}');
		SELECT cqrs_es.partition_log('position', every => 10)}, 'managed');
	my $is_5 = sql(q{SELECT extversion >= '5' FROM pg_extension WHERE extname = 'pg_partman'}, 'managed') eq 't';
	sql(sprintf(q{SET client_min_messages = error; SELECT partman.create_parent('cqrs_es.events', 'global_position', %s, p_premake := 3)},
		$is_5 ? q{p_interval := '10'} : q{'native', '10'}), 'managed');
	my $default = sql(q{SELECT coalesce(min(inhrelid::regclass::text), 'none') FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
		WHERE inhparent = 'cqrs_es.events'::regclass AND pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT'}, 'managed');
	if ($default ne 'none')
	{
		like(error(q{SELECT cqrs_es.append_event('a', '1', 'x', '{}')}, 'managed'), qr/default partition/, 'its default partition is refused');
		sql("ALTER TABLE cqrs_es.events DETACH PARTITION $default; DROP TABLE $default", 'managed');
	}
	else { pass('it has made no default partition') }
	is(sql($wrong, 'managed'), 'nothing', 'its partitions are whole');
	my $ahead = sql(q{SELECT count(*) FROM cqrs_es.log_partitions WHERE state = 'ahead'}, 'managed');
	cmp_ok($ahead, '>=', 3, 'there are some ahead');
	sql(q{SELECT FROM generate_series(1, 25) AS n, LATERAL cqrs_es.append_event('a', (n % 3)::text, 'x', '{}'); SELECT partman.run_maintenance()}, 'managed');
	cmp_ok(sql(q{SELECT count(*) FROM cqrs_es.log_partitions WHERE state = 'ahead'}, 'managed'), '>=', 3, 'its maintenance makes new ones');
	is(sql($wrong, 'managed'), 'nothing', 'which are whole');
	is(sql(q{SELECT count(*) FROM (SELECT sequence - row_number() OVER (PARTITION BY aggregate_id ORDER BY global_position) AS hole FROM cqrs_es.events) AS e WHERE hole <> 0}, 'managed'), '0', 'streams go on in them');
}

# a read node of it: partitions are the publisher's business
my $reader = PostgreSQL::Test::Cluster->new('reader');
$reader->init(allows_streaming => 'logical', extra => ['--no-instructions']);		# a system of its own
$reader->append_conf('postgresql.conf', 'wal_retrieve_retry_interval = 100ms');
$reader->start;
$reader->safe_psql('postgres', 'CREATE EXTENSION cqrs_es');
sql(q{SELECT cqrs_es.publish_log()}, 'small');
$reader->safe_psql('postgres', sprintf "SELECT cqrs_es.follow_log('%s')", ($node->connstr . ' dbname=small') =~ s/'/''/gr);
sql(q{SELECT cqrs_es.keep_partitions(4)}, 'small');
sql(q{SELECT FROM generate_series(1, 12) AS n, LATERAL cqrs_es.append_event('a', (n % 3)::text, 'x', '{"n": 1}')}, 'small');
sql(q{SELECT cqrs_es.redact_stream('a', '1', '{/payload/n}', 'asked for')}, 'small');
my $last = sql('SELECT max(global_position) FROM cqrs_es.events', 'small');
ok($reader->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM cqrs_es.read_all(after_position => $last - 1))"), 'a read node follows over the edges');
is($reader->safe_psql('postgres', $log), sql($log, 'small'), 'and has what was redacted redacted');
$reader->stop;

$session->quit;
$node->stop;
done_testing();
