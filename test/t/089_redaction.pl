# Nothing of what has been redacted is left in any table of the database: not in a dump, nor, after VACUUM, in
# any row of any page, nor, when the tables have been written anew, in any byte of the files. And how long a stream of
# 1,000 events takes; a dump has what was done; a standby shows the same, and redacts nothing itself.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

my $node = PostgreSQL::Test::Cluster->new('redaction');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "autovacuum = off\ncqrs_es.projection_worker = off");
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();

# what is to go, in letters that no compression hides where it stands first
my $secret = 'Zacharias-Quillfeather-1899';

sub sql { return $node->safe_psql('shop', "SET client_min_messages = error; $_[0]") }
sub dump_has
{
	my $file = "$dir/dump.sql";
	$node->command_ok([ 'pg_dump', '-f', $file, 'shop' ], 'the database is dumped');
	return scalar(() = slurp_file($file) =~ /\Q$secret\E/g);
}

# Files of the database in which the secret stands.
sub files_with_secret
{
	$node->safe_psql('shop', 'CHECKPOINT');
	my $files = $node->safe_psql('shop', q{SELECT string_agg(DISTINCT 'base/' || d.oid, ' ') FROM pg_database d WHERE datname = 'shop'});
	my $found = `grep -l -a -r -F '$secret' '@{[ $node->data_dir ]}/$files' '@{[ $node->data_dir ]}/global'`;
	return join ' ', sort map { s{.*/}{}r } split /\n/, $found;
}

$node->safe_psql('postgres', 'CREATE DATABASE shop');
sql(q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE customers (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
	CREATE TABLE customers_later (LIKE customers INCLUDING ALL);
	CREATE TABLE names (id text PRIMARY KEY, name text);
	CREATE TABLE names_later (LIKE names INCLUDING ALL);
	CREATE TABLE labels (id text PRIMARY KEY, name text);
	SELECT cqrs_es.create_aggregate('customer', snapshot_every => 10);
	SELECT cqrs_es.define_tags('Renamed', 'name:{/name}', 'city:{/city?}');
	SELECT cqrs_es.create_projection('customers', state_of => 'customer', read_models => '{customers}');
	SELECT cqrs_es.create_projection('customers later', state_of => 'customer', read_models => '{customers_later}', mode => 'async');
	SELECT cqrs_es.create_projection(p, '{customer}', ARRAY[p::regclass], mode => CASE p WHEN 'names_later' THEN 'async' END),
		cqrs_es.define_handler(p, 'Renamed', format('INSERT INTO %s VALUES (event.aggregate_id, event.payload->>''name'') ON CONFLICT (id) DO UPDATE SET name = excluded.name', p))
	FROM unnest('{names,names_later,labels}'::text[]) AS p;
	SELECT cqrs_es.define_handler(p, '$redacted', format('UPDATE %s SET name = NULL WHERE id = event.aggregate_id', p)) FROM unnest('{names,names_later}'::text[]) AS p;
	SELECT cqrs_es.create_boundary('names', '[{"types": ["Renamed"], "tags": ["name:{/name}"]}]', snapshot_every => 1);
	SELECT cqrs_es.define_command('names', 'Look', $$'[]'::jsonb$$);
	SELECT cqrs_es.define_reducer('names', 'Renamed', '[{"op": "set", "path": "/name", "from": "/name"}]'::jsonb);
	SELECT cqrs_es.create_subscription('mails', on_failure => 'skip', max_attempts => 1);
	SELECT cqrs_es.append_event('customer', 'other', 'Renamed', '{"name": "Eve"}')});

# 1,000 events, in some of them a payload that is kept out of line
sql(qq{SELECT cqrs_es.append_events('customer', 'c', jsonb_agg(jsonb_build_object('type', 'Renamed', 'payload', jsonb_build_object('name', '$secret', 'n', n, 'city', '$secret') ||
	CASE WHEN n % 100 = 0 THEN jsonb_build_object('note', '$secret' || (SELECT string_agg(md5(n::text || i), '') FROM generate_series(1, 300) AS i)) ELSE '{}' END,
	'metadata', jsonb_build_object('user', '$secret')))) FROM generate_series(1, 1000) AS n});
$node->psql('shop', 'CALL cqrs_es.run_projections()');
sql(qq{SELECT cqrs_es.execute_boundary('names', 'Look', '{"name": "$secret"}')});
# it may be in the key of a snapshot of a boundary, too, and in what a consumer says of an event
sql(q{SELECT FROM cqrs_es.receive_events('mails', 'consumer', max_count => 2)});
sql(qq{SELECT cqrs_es.nack_event(s.batch, e.global_position, '$secret is not to be reached') FROM cqrs_es.shares s, cqrs_es.events e
	WHERE s.subscription = 'mails' AND e.aggregate_id = 'c' AND e.sequence = 1});
sql(q{SELECT cqrs_es.ack_events(batch) FROM cqrs_es.shares WHERE subscription = 'mails'});
sql('ANALYZE');
is(sql(qq{SELECT count(*) FROM cqrs_es.dead_letters WHERE error LIKE '%$secret%'}), '1', 'a dead letter has it');
is(sql(qq{SELECT count(*) FROM cqrs_es.boundary_snapshots WHERE payload::text LIKE '%$secret%'}), '1', 'a snapshot of a boundary has it');
is(sql(qq{SELECT count(*) > 0 FROM cqrs_es.snapshots WHERE payload::text LIKE '%$secret%'}), 't', 'one of the stream has it');
is(sql(qq{SELECT concat_ws(' ', (SELECT count(*) FROM customers WHERE payload::text LIKE '%$secret%'), (SELECT count(*) FROM customers_later WHERE payload::text LIKE '%$secret%'),
	(SELECT count(*) FROM names WHERE name = '$secret'), (SELECT count(*) FROM names_later WHERE name = '$secret'), (SELECT count(*) FROM labels WHERE name = '$secret'))}), '1 1 1 1 1', 'and the read models');
cmp_ok(dump_has(), '>', 3000, 'a dump has it many times');
isnt(files_with_secret(), '', 'so have the files');

my $standby = PostgreSQL::Test::Cluster->new('redaction_standby');
$node->backup('before');
$standby->init_from_backup($node, 'before', has_streaming => 1);
$standby->start;

# it is found in whatever the event had
my $began = [ Time::HiRes::gettimeofday() ];
is(sql(q{SELECT cqrs_es.redact_stream('customer', 'c', '{/payload/name,/payload/note,/payload/city,/metadata/user}', 'asked for it, 2026-11', '"gone"')}), '1000', 'the stream is redacted');
diag(sprintf('1,000 events were redacted in %.2f s', Time::HiRes::tv_interval($began)));
is(sql(q{SELECT string_agg(name, ', ' ORDER BY name) FROM cqrs_es.projection_status WHERE redaction_missed IS NOT NULL}), 'customers later, labels, names_later', 'who has not followed is shown');
$node->psql('shop', 'CALL cqrs_es.run_projections()');
sql(q{SELECT cqrs_es.rebuild_projection('labels')});
is(sql(q{SELECT count(*) FROM cqrs_es.projection_status WHERE redaction_missed IS NOT NULL}), '0', 'asynchronous ones go on, another one is rebuilt');
is(dump_has(), 0, 'a dump has nothing of it');
is(sql(q{SELECT count(*) FROM cqrs_es.events WHERE aggregate_id = 'c'}), '1001', 'the events are there');
is(sql(q{SELECT string_agg(item, ', ') FROM cqrs_es.verify_log() WHERE problem IS NOT NULL}), '', 'the log is whole');

$node->wait_for_catchup($standby);
is($standby->safe_psql('shop', qq{SELECT count(*) FROM cqrs_es.events WHERE payload::text LIKE '%$secret%' OR metadata::text LIKE '%$secret%'}), '0', 'a standby shows the same');
my ($code, undef, $error) = $standby->psql('shop', q{\set VERBOSITY sqlstate
	SELECT cqrs_es.redact_stream('customer', 'other', '{/payload/name}', 'r')});
like($error, qr/25006/, 'and redacts nothing itself');

# dead rows, statistics
isnt(files_with_secret(), '', 'dead rows are still in the files');
$node->safe_psql('shop', $_) foreach 'ANALYZE', 'VACUUM';
SKIP:
{
	my ($there) = $node->psql('shop', 'CREATE EXTENSION pageinspect');
	skip 'this needs pageinspect', 1 if $there != 0;
	is(sql(qq{SELECT count(*) FROM pg_class c, generate_series(0, pg_relation_size(c.oid) / current_setting('block_size')::int - 1) AS page,
		heap_page_items(get_raw_page(c.oid::regclass::text, page::int)) AS item
		WHERE c.relkind IN ('r', 't', 'm') AND c.relpersistence = 'p' AND position('$secret'::bytea IN t_data) > 0}), '0', 'after VACUUM no row of any page has it');
	sql('DROP EXTENSION pageinspect');
}
$node->safe_psql('shop', 'VACUUM FULL');
is(files_with_secret(), '', 'when the tables have been written anew, no byte of the files');

# dump and restore
$node->safe_psql('postgres', 'CREATE DATABASE again');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/shop.dump", 'shop' ], 'dumped');
$node->command_ok([ 'pg_restore', '-d', 'again', '--exit-on-error', "$dir/shop.dump" ], 'and restored elsewhere');
my $done = q{SELECT aggregate_id, cardinality(positions), pointers, reason, redacted_by FROM cqrs_es.redactions};
is($node->safe_psql('again', $done), $node->safe_psql('shop', $done), 'what was redacted is in the dump');
is($node->safe_psql('again', q{SELECT string_agg(item, ', ') FROM cqrs_es.verify_log() WHERE problem IS NOT NULL}), '', 'that log is whole as well');
is($node->safe_psql('again', q{SET client_min_messages = error; SELECT cqrs_es.redact_stream('customer', 'other', '{/payload/name}', 'r', '"x"')}), '1', 'and can be redacted');
$standby->stop;
$node->stop;
done_testing();
