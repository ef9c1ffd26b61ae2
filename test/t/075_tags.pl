
# Tags that outlive a server: a dump, a crash, prepared transactions over a restart, a
# standby, a subscriber. And what many tags in one transaction cost.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('tags');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', "max_prepared_transactions = 5\nautovacuum = off\n");
$node->start;

# What an event has, and what is defined, as text.
my $all = q{SELECT string_agg(t::text, E'\n' ORDER BY t::text) FROM (SELECT global_position, tenant_id, tag, event_type FROM cqrs_es.event_tags) t};
my $definitions = q{SELECT string_agg(t::text, E'\n' ORDER BY t::text) FROM cqrs_es.tag_definitions t};
my $slots = q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 205 AND granted};

$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	SET client_min_messages = error;
	SELECT cqrs_es.append_event('tags', 'a', 'old', '{"a": 0}');
	SELECT cqrs_es.define_tags('old', 'a:{/a}');
	SELECT cqrs_es.define_tags('made', 'a:{/a}', 'c');
	SELECT cqrs_es.append_event('tags', 'a', 'made', jsonb_build_object('a', n), tags => '{own}') FROM generate_series(1, 20) n;
	INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'tags', 'b', 'made', jsonb_build_object('a', n) FROM generate_series(1, 5) n;});

# a dump: tags are restored with their events, and not made twice; later events get theirs
my $dump = $node->basedir . '/dump';
command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'a dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'pg_restore', '-d', $node->connstr('restored'), $dump ], 'restored');
is($node->safe_psql('restored', $all), $node->safe_psql('postgres', $all), 'all tags are there, each once');
is($node->safe_psql('restored', $definitions), $node->safe_psql('postgres', $definitions), 'and the definitions, one of which is not complete');
is($node->safe_psql('restored', 'SELECT item FROM cqrs_es.verify_log() WHERE problem IS NOT NULL'), '', 'nothing is wrong');
$node->safe_psql('restored', q{SELECT cqrs_es.append_event('tags', 'c', 'made', '{"a": "new"}')});
is($node->safe_psql('restored', q{SELECT string_agg(tag, ' ' ORDER BY tag) FROM cqrs_es.event_tags WHERE global_position = cqrs_es.last_position()}), 'a:new c', 'a new event has its tags');
$node->safe_psql('restored', 'CALL cqrs_es.retag()');
is($node->safe_psql('restored', q{SELECT count(*) FROM cqrs_es.event_tags WHERE event_type = 'old'}), '1', 'retag goes on where it was');

# a crash: what was committed is there, and nothing else; prepared transactions keep their slots
my $session = $node->background_psql('postgres');
$session->query_safe(q{BEGIN; SELECT cqrs_es.append_event('tags', 'lost', 'made', '{"a": "lost"}');});
$node->safe_psql('postgres', q{BEGIN; SELECT cqrs_es.append_event('tags', 'p', 'made', '{"a": "prepared"}', tags => '{x}'); PREPARE TRANSACTION 'p'});
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('tags', 'd', 'made', '{"a": "kept"}')});
my $before = $node->safe_psql('postgres', $all);
$node->stop('immediate');
$session->{run}->finish if $session->{run};
$node->start;
is($node->safe_psql('postgres', $all), $before, 'after a crash the tags are those of before');
is($node->safe_psql('postgres', $slots), '4', 'a prepared transaction has its slots: type, two by the type, one of its own');
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
is($node->safe_psql('postgres', $slots), '0', '... until it ends');
is($node->safe_psql('postgres', q{SELECT string_agg(tag, ' ' ORDER BY tag) FROM cqrs_es.event_tags t JOIN cqrs_es.events e USING (global_position) WHERE aggregate_id = 'p'}),
	'a:prepared c x', '... and its tags are there');

# retag that is killed: the portions before are there, and it goes on
$node->safe_psql('postgres', q{SET client_min_messages = error; SELECT cqrs_es.define_tags('made', 'again:{/a}')});
my ($ret, $out, $err) = $node->psql('postgres', q{
	CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
		IF NEW.retagged_to > 10 AND NOT NEW.is_complete THEN RAISE EXCEPTION 'enough'; END IF; RETURN NEW; END$$;
	SET client_min_messages = error;
	CREATE TRIGGER die BEFORE UPDATE ON cqrs_es.tag_definitions FOR EACH ROW EXECUTE FUNCTION die();
	CALL cqrs_es.retag('made', 3);});
like($err, qr/enough/, 'retag breaks off');
my $some = $node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.event_tags WHERE tag LIKE 'again:%'});
cmp_ok($some, '>', 0, 'some have their tag');
is($node->safe_psql('postgres', q{SELECT is_complete FROM cqrs_es.tag_definitions WHERE event_type = 'made'}), 'f', 'and it is not complete');
$node->safe_psql('postgres', 'SET client_min_messages = error; DROP TRIGGER die ON cqrs_es.tag_definitions');
$node->safe_psql('postgres', q{CALL cqrs_es.retag('made', 3)});
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT global_position) FROM cqrs_es.event_tags WHERE tag LIKE 'again:%'}),
	$node->safe_psql('postgres', q{SELECT count(*), count(*) FROM cqrs_es.events WHERE event_type = 'made'}), 'then all have it, each once');

# many tags in one transaction: no more locks than slots
is($node->safe_psql('postgres', q{BEGIN;
	SELECT count(cqrs_es.append_event('tags', 'many', 'plain', '{}', tags => ARRAY(SELECT 'many:' || n || ':' || i FROM generate_series(1, 1000) i))) FROM generate_series(1, 10) n;
	SELECT count(*) BETWEEN 3000 AND 4096 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 205 AND pid = pg_backend_pid();
	COMMIT}), "10\nt", '10,000 tags take at most 4,096 locks');

# a subscriber has the tags of the publisher
$node->safe_psql('postgres', 'SET client_min_messages = error; CREATE DATABASE subscriber; CREATE PUBLICATION log FOR TABLE cqrs_es.events, cqrs_es.event_tags, cqrs_es.published_positions');
$node->safe_psql('subscriber', 'CREATE EXTENSION cqrs_es');
$node->safe_psql('subscriber', q{SELECT cqrs_es.define_tags('made', 'of subscriber')});
my $connection = 'port=' . $node->port . ' host=' . $node->host . ' dbname=postgres';
$node->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('log', 'pgoutput')});
$node->safe_psql('subscriber', qq{CREATE SUBSCRIPTION log CONNECTION '$connection' PUBLICATION log WITH (create_slot = false, slot_name = 'log')});
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('tags', 'e', 'made', '{"a": "published"}')});
$node->poll_query_until('subscriber', q{SELECT count(*) > 0 FROM cqrs_es.event_tags WHERE tag = 'again:published'}) or die 'nothing was replicated';
$node->poll_query_until('subscriber', q{SELECT count(*) = } . $node->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.event_tags') . q{ FROM cqrs_es.event_tags}) or die 'not all was replicated';
is($node->safe_psql('subscriber', $all), $node->safe_psql('postgres', $all), 'a subscriber has the tags of the publisher, and makes none itself');
$node->safe_psql('subscriber', 'DROP SUBSCRIPTION log');

$node->stop;
done_testing();
