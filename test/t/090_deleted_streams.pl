# A deleted stream on servers: a crash in the middle of it leaves all or nothing; a read node follows; a dump has the tombstone, and
# nothing of what stood there, nor has any file of the database when it has been vacuumed; a standby deletes nothing itself.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my ($publisher, $reader) = map { PostgreSQL::Test::Cluster->new($_) } qw(publisher reader);
$_->init(allows_streaming => 'logical', extra => ['--no-instructions']) foreach $publisher, $reader;		# systems of their own
$publisher->append_conf('postgresql.conf', 'autovacuum = off');
foreach my $node ($publisher, $reader)
{
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION cqrs_es');
}
my $dir = PostgreSQL::Test::Utils::tempdir();
my $secret = 'Zacharias-Quillfeather-1899';

sub log_of
{
	my ($node, $database) = @_;
	return $node->safe_psql($database || 'postgres', q{SELECT string_agg(concat_ws(':', aggregate_id, sequence, event_type), ' ' ORDER BY aggregate_id, sequence) FROM cqrs_es.events});
}

sub problems
{
	my ($node, $database) = @_;
	return $node->safe_psql($database || 'postgres', q{SELECT string_agg(item || ': ' || problem, ', ') FROM cqrs_es.verify_log() WHERE problem IS NOT NULL});
}

# Killed, and started again when all that it has left behind has ended.
sub crash
{
	my ($node) = @_;
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my @processes = ($postmaster, split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity'));
	$node->kill9;
	for (1 .. 300) { last if !kill 0, @processes; usleep(100_000) }
	$node->start;
}

$publisher->safe_psql('postgres', qq{
	CREATE TABLE states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
	SELECT cqrs_es.create_aggregate('customer', snapshot_every => 2);
	SELECT cqrs_es.define_tags('Registered', 'name:{/name}');
	SELECT cqrs_es.create_projection('states', state_of => 'customer', read_models => '{states}');
	SELECT FROM cqrs_es.append_event('customer', '1', 'Registered', '{"name": "$secret"}');
	SELECT FROM cqrs_es.append_event('customer', '1', 'Noted', jsonb_build_object('note', (SELECT string_agg('$secret' || md5(i::text), '') FROM generate_series(1, 300) AS i)));
	SELECT FROM cqrs_es.append_event('customer', '2', 'Registered', '{"name": "Eve"}');
	SELECT cqrs_es.publish_log();
});
$reader->safe_psql('postgres', q{
	CREATE TABLE names (id text PRIMARY KEY, name text);
	CREATE TABLE labels (LIKE names INCLUDING ALL);
	SELECT cqrs_es.create_projection(p, '{customer}', ARRAY[p::regclass], mode => 'async'),
		cqrs_es.define_handler(p, 'Registered', format('INSERT INTO %s VALUES (event.aggregate_id, event.payload->>''name'')', p))
	FROM unnest('{names,labels}'::text[]) AS p;
	SELECT cqrs_es.define_handler('names', '$deleted', 'DELETE FROM names WHERE id = event.aggregate_id');
});
$reader->safe_psql('postgres', sprintf q{SELECT cqrs_es.follow_log('%s')}, ($publisher->connstr . ' dbname=postgres') =~ s/'/''/gr);
$reader->poll_query_until('postgres', q{SELECT count(*) = 2 FROM names}) or BAIL_OUT('nothing comes');
$reader->poll_query_until('postgres', q{SELECT count(*) = 2 FROM labels}) or BAIL_OUT('nothing comes');
$reader->safe_psql('postgres', q{SELECT cqrs_es.take_snapshot('customer', '1')});

# killed in the middle
my $deleting = $publisher->background_psql('postgres');
$deleting->query_safe(q{BEGIN; SELECT cqrs_es.delete_stream('customer', '1', 'the end')});
$publisher->safe_psql('postgres', 'CHECKPOINT');
crash($publisher);
eval { $deleting->{run}->finish };
is(log_of($publisher), '1:1:Registered 1:2:Noted 2:1:Registered', 'a crash before the commit leaves all events');
is($publisher->safe_psql('postgres', q{SELECT string_agg(tag, ' ' ORDER BY tag) FROM cqrs_es.event_tags}), "name:Eve name:$secret", 'and tags');
is(problems($publisher), '', 'the log is whole');

is($publisher->safe_psql('postgres', q{SELECT cqrs_es.delete_stream('customer', '1', 'the end')}), 2, 'deleted');
crash($publisher);
is(log_of($publisher), '1:3:$deleted 2:1:Registered', 'a crash behind the commit leaves the tombstone alone');

# a read node
ok($reader->poll_query_until('postgres', q{SELECT count(*) = 1 FROM names}), 'a handler is told on a read node');
is(log_of($reader), '1:3:$deleted 2:1:Registered', 'where the events are gone');
is($reader->safe_psql('postgres', q{SELECT string_agg(tag, ' ') FROM cqrs_es.event_tags}), 'name:Eve', 'and the tags');
is($reader->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.snapshots}), 0, 'and snapshots');
is($reader->safe_psql('postgres', q{SELECT string_agg(name, ' ') FROM cqrs_es.projections WHERE redacted_position IS NOT NULL}), 'labels', 'a projection that was not told is marked');
is(problems($reader), '', 'the log is whole');
like(($reader->psql('postgres', "\\set VERBOSITY sqlstate\nSELECT cqrs_es.delete_stream('customer', '2', 'r')"))[2], qr/QE601/, 'nothing is deleted there');

# a dump
$publisher->command_ok([ 'pg_dump', '-f', "$dir/dump.sql", 'postgres' ], 'the database is dumped');
unlike(slurp_file("$dir/dump.sql"), qr/$secret/, 'without anything of it');
$publisher->safe_psql('postgres', 'CREATE DATABASE restored');
$publisher->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $publisher->connstr('restored'), '-f', "$dir/dump.sql" ], 'and restored');
is(log_of($publisher, 'restored'), '1:3:$deleted 2:1:Registered', 'with the tombstone');
is(problems($publisher, 'restored'), '', 'as a whole log');
like(($publisher->psql('restored', "\\set VERBOSITY sqlstate\nSELECT FROM cqrs_es.append_event('customer', '1', 'e', '{}')"))[2], qr/QE008/, 'which takes nothing');
is($publisher->safe_psql('restored', q{SELECT count(*) FROM cqrs_es.redactions WHERE pointers = '{""}'}), 1, 'and says what was done');

# the files; a slot that is behind would keep dead rows of the catalog alone
$publisher->safe_psql('postgres', $_) foreach 'ANALYZE', 'VACUUM FULL', 'CHECKPOINT';
my $base = $publisher->data_dir . '/base/' . $publisher->safe_psql('postgres', q{SELECT oid FROM pg_database WHERE datname = 'postgres'});
is(join(' ', map { s{.*/}{}r } split /\n/, `grep -l -a -r -F '$secret' '$base'`), '', 'nothing of it is in any file of the database, vacuumed');

# a standby
$publisher->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($publisher, 'backup', has_streaming => 1);
$standby->start;
is(log_of($standby), '1:3:$deleted 2:1:Registered', 'a standby has the tombstone');
is($standby->safe_psql('postgres', q{SELECT cqrs_es.aggregate_state('customer', '1') IS NULL}), 't', 'and no state');
like(($standby->psql('postgres', "\\set VERBOSITY sqlstate\nSELECT cqrs_es.delete_stream('customer', '2', 'r')"))[2], qr/25006/, 'and deletes nothing itself');

done_testing();
