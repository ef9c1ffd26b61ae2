
# Readers by tags on other servers, and after a dump: a standby, a subscriber, a restored
# database; and those who wait while tags are defined.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('tag_filters');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', "autovacuum = off\n");
$node->start;

my $read = q{SELECT string_agg(aggregate_id, ' ' ORDER BY global_position) FROM cqrs_es.read_all(tags => '{red}', all_tenants => true)};
my $take = q{SELECT string_agg(aggregate_id, ' ' ORDER BY global_position) FROM cqrs_es.receive_events('red', 'c', ack => (SELECT batch FROM cqrs_es.shares WHERE subscription = 'red'))};
my $rows = q{SELECT string_agg(id, ' ' ORDER BY at) FROM model};

$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE model (id text, at bigint);
	CREATE TABLE later (id text, at bigint);
	CREATE TABLE half (id text, at bigint);
	SET client_min_messages = error;
	SELECT cqrs_es.define_tags('Numbered', 'n:{/n}', 'red');
	SELECT cqrs_es.create_subscription('red', tags => '{red}');
	SELECT cqrs_es.create_projection('model', read_models => '{model}', tags => '{red}');
	SELECT cqrs_es.define_handler('model', '*', 'INSERT INTO public.model VALUES (event.aggregate_id, event.global_position)');
	SELECT cqrs_es.create_projection('later', read_models => '{later}', tags => '{red}', mode => 'async');
	SELECT cqrs_es.define_handler('later', '*', 'INSERT INTO public.later VALUES (event.aggregate_id, event.global_position)');
	SELECT cqrs_es.create_projection('half', read_models => '{half}', tags => '{red}', backfill => true);
	SELECT cqrs_es.define_handler('half', '*', 'INSERT INTO public.half VALUES (event.aggregate_id, event.global_position)');
	SELECT cqrs_es.define_handler('half', 'Numbered', 'INSERT INTO public.half VALUES (event.aggregate_id, 1 / (event.sequence - event.sequence))');
	SELECT cqrs_es.append_event('f', 'a', 'Plain', '{}', tags => '{red}');
	SELECT cqrs_es.append_event('f', 'b', 'Plain', '{}', tags => '{blue}');
	SELECT cqrs_es.append_event('f', 'c', 'Numbered', '{"n": 1}');});
is($node->safe_psql('postgres', $take), 'a c', 'a subscription has its events in hand');
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('f', 'd', 'Numbered', '{"n": 2}')});
# half a rebuild, for an event that fails
my ($half, $half_out, $half_err) = $node->psql('postgres', q{CALL cqrs_es.rebuild_in_portions('half', 1)});
like($half_err, qr/division by zero/, 'a rebuild in portions is interrupted');

# a dump has tags before the events, which are there before positions of readers
my $dump = $node->basedir . '/dump';
command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'a dump');
my ($listed) = run_command([ 'pg_restore', '-l', $dump ]);
my @order = $listed =~ /TABLE DATA cqrs_es (event_tags|events|projections|shares|subscriptions) /g;
is("@order", 'event_tags events projections shares subscriptions', 'tags come before their events, and both before who reads them');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'pg_restore', '-d', $node->connstr('restored'), $dump ], 'restored');
is($node->safe_psql('restored', $read), 'a c d', 'the restored log is read by tags');
is($node->safe_psql('restored', $take), 'd', 'the subscription goes on, with its tags');
is($node->safe_psql('restored', q{SELECT string_agg(name || tags::text, ' ' ORDER BY name) FROM cqrs_es.projection_status}), 'half{red} later{red} model{red}', 'projections have theirs');
is($node->safe_psql('restored', $rows), 'a c d', 'a read model is as it was');
$node->safe_psql('restored', q{SELECT cqrs_es.drop_handler('half', 'Numbered'); CALL cqrs_es.resume_in_portions('half', 1)});
is($node->safe_psql('restored', q{SELECT string_agg(id, ' ' ORDER BY at) FROM half}), 'a c d', 'half a rebuild goes on: the tags are defined as they were');
$node->safe_psql('restored', q{SELECT cqrs_es.append_event('f', 'e', 'Plain', '{}'), cqrs_es.append_event('f', 'g', 'Numbered', '{"n": 3}')});
is($node->safe_psql('restored', $rows), 'a c d g', '... and goes on');
$node->safe_psql('restored', 'CALL cqrs_es.run_projections()');
is($node->safe_psql('restored', q{SELECT string_agg(id, ' ' ORDER BY at) FROM later}), 'a c d g', 'so does an asynchronous one');

# a standby
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('tag_filters_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('f', 'h', 'Plain', '{}', tags => '{red,h}'), cqrs_es.append_event('f', 'i', 'Plain', '{}')});
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', $read), 'a c d h', 'a standby is read by tags');
is($standby->safe_psql('postgres', q{SELECT aggregate_id FROM cqrs_es.read_page(tags => '{h,red}')}), 'h', '... by several');
$node->safe_psql('postgres', q{SET client_min_messages = error; SELECT cqrs_es.define_tags('Plain', 'late')});
$node->wait_for_catchup($standby);
my ($ret, $out, $err) = $standby->psql('postgres', q{SELECT cqrs_es.read_all(tags => '{late}')});
like($err, qr/may lack tag "late"/, 'it refuses what the primary refuses');
$node->safe_psql('postgres', 'CALL cqrs_es.retag()');
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', q{SELECT string_agg(aggregate_id, ' ' ORDER BY global_position) FROM cqrs_es.read_all(tags => '{late}')}), 'a b h i', 'and has it then');
$standby->stop;

# a subscriber: tags come in the transaction of their events
$node->safe_psql('postgres', 'SET client_min_messages = error; CREATE DATABASE subscriber; CREATE PUBLICATION log FOR TABLE cqrs_es.events, cqrs_es.event_tags, cqrs_es.published_positions');
$node->safe_psql('subscriber', 'CREATE EXTENSION cqrs_es');
my $connection = 'port=' . $node->port . ' host=' . $node->host . ' dbname=postgres';
$node->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('log', 'pgoutput')});
$node->safe_psql('subscriber', qq{CREATE SUBSCRIPTION log CONNECTION '$connection' PUBLICATION log WITH (create_slot = false, slot_name = 'log')});
$node->poll_query_until('subscriber', q{SELECT count(*) = 3 FROM pg_subscription_rel WHERE srsubstate = 'r'}) or die 'no tables came';
my $last = $node->safe_psql('postgres', q{SELECT cqrs_es.append_event('f', 'k', 'Numbered', '{"n": 4}'); SELECT cqrs_es.publish_settled(); SELECT cqrs_es.last_position()});
($last) = $last =~ /(\d+)\s*\z/;
$node->poll_query_until('subscriber', qq{SELECT cqrs_es.settled_position() >= $last}) or die 'nothing was settled';
is($node->safe_psql('subscriber', $read), 'a c d h k', 'a subscriber is read by tags');
$node->safe_psql('subscriber', 'DROP SUBSCRIPTION log');

# who waits looks again at what lay before, when tags are defined and given to it
$node->safe_psql('postgres', q{
	SELECT cqrs_es.append_event('f', 'w', 'Waits', '{}');
	SELECT cqrs_es.create_subscription('waits', start_after => cqrs_es.last_position() - 1, tags => '{waits}')});
my $waiter = $node->background_psql('postgres', on_error_stop => 0);
$waiter->query_until(qr/begun/, qq{\\echo begun\nCALL cqrs_es.wait_for_events('waits', timeout => '30 s');\n\\echo ended\n});
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query ~ '^CALL cqrs_es.wait' AND wait_event_type = 'Extension'}) or die 'nobody waits';
# it must not look before retag has ended, for then it would be refused: shares are locked as soon as
# define_tags, which looks at them, is committed
my $definer = $node->background_psql('postgres');
$definer->query_safe(q{SET client_min_messages = error; BEGIN; SELECT cqrs_es.define_tags('Waits', 'waits')});
my $lock = $node->background_psql('postgres');
$lock->query_until(qr/locking/, qq{\\echo locking\nBEGIN; LOCK TABLE cqrs_es.shares IN ACCESS EXCLUSIVE MODE;\n\\echo locked\n});
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_locks WHERE relation = 'cqrs_es.shares'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted}) or die 'nobody locks';
$definer->query_safe('COMMIT');
$definer->quit;
$lock->query_until(qr/locked/, "\n");
$node->safe_psql('postgres', q{CALL cqrs_es.retag('Waits')});
$lock->query_safe('COMMIT');
$lock->quit;
like($waiter->query_until(qr/ended/, "\n"), qr/^t$/m, 'it is found');
is($node->safe_psql('postgres', q{SELECT aggregate_id FROM cqrs_es.receive_events('waits', 'c')}), 'w', 'and there is something');
$waiter->quit;

$node->stop;
done_testing();
