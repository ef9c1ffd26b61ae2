# Seals over the life of a database: on a standby, over restarts, dumps, another shape of the
# log. Forgeries are made below the triggers by a superuser, in the files of a server
# that is stopped, and in all tables at once; who knows the digest that was published finds each.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->start;
$primary->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	SELECT FROM generate_series(1, 1000) AS n, LATERAL cqrs_es.append_event('account', (n % 7)::text, 'Opened',
		jsonb_build_object('n', n, 'price', n / 100.0, 'name', 'Zoë ' || n, 'long', repeat(md5(n::text), 1 + n % 100)), metadata => jsonb_build_object('at', n));
	SELECT FROM cqrs_es.append_event('account', 'forged', 'Opened', '{"mark": "forge-me-AAAA"}');
});
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

sub sql { return $primary->safe_psql($_[1] // 'postgres', $_[0]) }
sub below { return sql("SET session_replication_role = replica; $_[0]", $_[1]) }
sub state_of
{
	my ($node, $statement) = @_;
	my ($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	return $stderr =~ /ERROR:  (\w{5}):/ ? $1 : 'done';
}

# What is wrong, and how many events there are beside.
my $problems = q{SELECT coalesce(string_agg(concat_ws(' ', seal, problem), ', '), 'nothing') FROM cqrs_es.verify_seals() WHERE problem IS NOT NULL};
my $totals = q{SELECT seal, events, found, redacted, removed FROM cqrs_es.verify_seals() WHERE seal IS NOT NULL};
my $digests = q{SELECT string_agg(encode(digest, 'hex'), ' ' ORDER BY seal) FROM cqrs_es.seals};
my $event = q{(e.global_position, e.sequence, e.created_at, e.event_id, e.tenant_id, e.aggregate_type, e.aggregate_id, e.event_type, e.event_version, e.payload, e.metadata)::cqrs_es.event};

# Change an event's payload, or remove it, by rule.
sub redact { return below("BEGIN; SELECT cqrs_es.note_change($event, jsonb_populate_record($event, '{\"payload\": 0}'), 'law') FROM cqrs_es.events AS e WHERE global_position = $_[0];
	UPDATE cqrs_es.events SET payload = '0' WHERE global_position = $_[0]; COMMIT", $_[1]) }
sub remove { return below("BEGIN; SELECT cqrs_es.note_change($event, NULL, 'law') FROM cqrs_es.events AS e WHERE global_position = $_[0];
	DELETE FROM cqrs_es.events WHERE global_position = $_[0]; COMMIT", $_[1]) }

# --- sealed, changed by rule, sealed again; on a standby

is(sql('SELECT events FROM cqrs_es.seal(400)'), '400', 'a seal of a part');
is(sql('SELECT events FROM cqrs_es.seal()'), '601', 'a seal of the rest');
redact(10);
remove(20);
remove(21);
redact(900);
sql(q{SELECT FROM cqrs_es.append_event('account', 'later', 'Opened', '{}')});
is(sql('SELECT events, changes FROM cqrs_es.seal()'), '1|4', 'and one behind changes by rule');
redact(11);
my $published = sql($digests);
my $expected = "1|400|398|2|2\n2|601|601|1|0\n3|1|1|0|0";
is(sql($problems), 'nothing', 'nothing is wrong');
is(sql($totals), $expected, 'what was changed by rule is told');
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', $problems), 'nothing', 'nor on a standby');
is($standby->safe_psql('postgres', $totals), $expected, 'which tells the same');
is(state_of($standby, 'SELECT * FROM cqrs_es.seal()'), '25006', 'but makes no seals');
$standby->stop;

# --- dump and restore, as they are and of another shape

$primary->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dump", $primary->connstr('postgres') ], 'pg_dump');
sub restored
{
	my ($database) = @_;
	sql("CREATE DATABASE $database");
	$primary->command_ok([ 'pg_restore', '-d', $primary->connstr($database), "$dir/dump" ], "$database: restored");
}
restored('copy');
is(sql($problems, 'copy'), 'nothing', 'a restored log is as it was sealed');
is(sql($totals, 'copy'), $expected, 'changes as well');
is(sql($digests, 'copy'), $published, 'by the same seals');
sql(q{SELECT FROM cqrs_es.append_event('account', 'copy', 'Opened', '{}')}, 'copy');
is(sql('SELECT seal, events, changes FROM cqrs_es.seal()', 'copy'), '4|1|1', 'and sealed on');
is(sql($problems, 'copy'), 'nothing', 'well');

is($primary->safe_psql('copy', q{SELECT cqrs_es.partition_log('aggregate_id', partitions => 4) >= 0}), 't', 'it is partitioned');
is(sql($problems, 'copy'), 'nothing', 'the same events in partitions');
sql(q{SELECT FROM generate_series(1, 300) AS n, LATERAL cqrs_es.append_event('account', n::text, 'Opened', '{}')}, 'copy');
is(sql('SELECT seal, events FROM cqrs_es.seal()', 'copy'), '5|300', 'are sealed on');
is(sql($problems, 'copy'), 'nothing', 'well, too');
sql('ALTER TABLE cqrs_es.events DETACH PARTITION cqrs_es.events_2', 'copy');
like(sql($problems, 'copy'), qr/^1 removed.*2 removed.*5 removed$/, 'a partition that is taken away is missing');

# --- forgeries that are committed, and seen after a restart

sub forged
{
	my ($database, $statement, $found, $what) = @_;
	restored($database);
	below($statement, $database);
	return [ $database, $found, $what ];
}
my $insert = q{INSERT INTO cqrs_es.events (global_position, sequence, created_at, aggregate_type, aggregate_id, event_type, payload)};
my @forged = (
	forged('altered', q{UPDATE cqrs_es.events SET payload = '{}' WHERE global_position = 500}, '2 altered', 'altered'),
	forged('removed', q{DELETE FROM cqrs_es.events WHERE global_position = 30}, '1 removed', 'removed'),
	forged('inserted', qq{$insert VALUES (20, 1, now(), 'account', 'new', 'Opened', '{}')}, '1 inserted', 'inserted where another was removed by rule'),
	forged('swapped', q{UPDATE cqrs_es.events SET global_position = 1000 - global_position WHERE global_position IN (399, 601)}, '1 altered, 2 altered', 'swapped'),
	forged('hidden', q{DELETE FROM cqrs_es.event_changes WHERE global_position = 900}, '2 altered, 3 altered changes', 'a change by rule is not there'),
	forged('covered', qq{SELECT cqrs_es.note_change($event, jsonb_populate_record($event, '{"payload": 7}'), 'law') FROM cqrs_es.events AS e WHERE global_position = 50;
		UPDATE cqrs_es.events SET payload = '7', created_at = created_at - interval '1 day' WHERE global_position = 50}, '1 altered', 'a time is changed, and a payload by rule'),
	forged('dated', qq{SELECT cqrs_es.note_change($event, jsonb_populate_record($event, '{"payload": 7}'), 'law') FROM cqrs_es.events AS e WHERE global_position = 50;
		UPDATE cqrs_es.events SET payload = '7' WHERE global_position = 50; UPDATE cqrs_es.event_changes SET after_seal = 2 WHERE global_position = 50}, '3 altered changes',
		'a change is dated back below a seal'),
	forged('digests', q{UPDATE cqrs_es.events SET payload = '{}' WHERE global_position = 500;
		CREATE TABLE other AS SELECT * FROM cqrs_es.seals; CREATE TABLE blocks AS SELECT * FROM cqrs_es.seal_blocks; DELETE FROM cqrs_es.seals WHERE seal > 1; DELETE FROM cqrs_es.seal_blocks WHERE seal > 1;
		SELECT cqrs_es.seal(); UPDATE cqrs_es.seals SET sealed_at = (SELECT sealed_at FROM other WHERE seal = 2) WHERE seal = 2;
		INSERT INTO cqrs_es.seals SELECT * FROM other WHERE seal = 3; INSERT INTO cqrs_es.seal_blocks SELECT * FROM blocks WHERE seal = 3}, '2 altered, 2 altered seal, 3 altered seal',
		'a seal in the middle is made anew'));
restored('anew');
below(q{UPDATE cqrs_es.events SET payload = '{}' WHERE global_position = 500; DELETE FROM cqrs_es.seals; DELETE FROM cqrs_es.seal_blocks; DELETE FROM cqrs_es.event_changes;
	SELECT cqrs_es.seal(400); SELECT cqrs_es.seal(1001); SELECT cqrs_es.seal()}, 'anew');
restored('intact');
$primary->restart;
is(sql($problems, $_->[0]), $_->[1], $_->[2]) foreach @forged;
is(sql($problems, 'intact'), 'nothing', 'where nothing was done nothing is found');
is(sql($digests, 'intact'), $published, 'and the digests are those that were published');
is(sql($problems, 'anew'), 'nothing', 'where all was made anew nothing is found either');
isnt(sql($digests, 'anew'), $published, 'but the digests are others');
is(sql('SELECT count(*) FROM cqrs_es.seals', 'anew'), '3', 'of as many seals');

# --- in the files of a server that is stopped

SKIP:
{
	skip 'pages have checksums, which find it sooner', 1 if sql('SHOW data_checksums') eq 'on';
	my $file = $primary->data_dir . '/' . sql(q{CHECKPOINT; SELECT pg_relation_filepath('cqrs_es.events')});
	$primary->stop;
	my $bytes = slurp_file($file);
	is($bytes =~ s/forge-me-AAAA/forge-me-BBBB/g, 1, 'the event is found in the file');
	open(my $out, '>:raw', $file) or die $!;
	print $out $bytes;
	close $out;
	$primary->start;
	is(sql(q{SELECT payload FROM cqrs_es.read_stream('account', 'forged')}), '{"mark": "forge-me-BBBB"}', 'it is another one');
	is(sql($problems), '2 altered', 'which is found');
}

# --- it can be interrupted, and nothing is left

sql(q{CREATE DATABASE long});
sql(q{CREATE EXTENSION cqrs_es; INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'long', 'a', 'e', to_jsonb(n) FROM generate_series(1, 100000) AS n}, 'long');
foreach my $function ('seal', 'verify_seals')
{
	sql('SELECT FROM cqrs_es.seal()', 'long') if $function eq 'verify_seals';
	my ($status, $stdout, $stderr) = $primary->psql('long', "SET statement_timeout = '20ms'; SELECT * FROM cqrs_es.$function()");
	like($stderr, qr/canceling statement due to statement timeout/, "$function() can be interrupted");
	is(sql('SELECT count(*) FROM cqrs_es.seals', 'long'), $function eq 'seal' ? '0' : '1', 'and leaves nothing');
}
is(sql($totals, 'long'), '1|100000|100000|0|0', 'done in one go, it is whole');

done_testing();
