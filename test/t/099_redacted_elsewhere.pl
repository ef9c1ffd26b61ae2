# What is redacted at a publisher is redacted on a read node: the events, and the tags that were
# made of them; a snapshot of before does not bring it back.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($publisher, $reader) = map { PostgreSQL::Test::Cluster->new($_) } qw(publisher reader);
foreach my $node ($publisher, $reader)
{
	$node->init(allows_streaming => 'logical', extra => ['--no-instructions']);		# systems of their own
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION cqrs_es');
}

$publisher->safe_psql('postgres', q{
	SELECT cqrs_es.create_aggregate('customer');
	SELECT cqrs_es.define_tags('Registered', 'email:{/email?}');
	SELECT cqrs_es.define_reducer('customer', 'Registered', '[{"op": "set", "path": "/email", "from": "/email"}]');
	SELECT FROM cqrs_es.append_event('customer', '1', 'Registered', '{"email": "ada@example.com"}');
	SELECT FROM cqrs_es.append_event('customer', '2', 'Registered', '{"email": "bob@example.com"}');
	SELECT cqrs_es.create_boundary('address', '[{"tags": ["email:{/email}"]}]', snapshot_every => 1);
	SELECT cqrs_es.define_reducer('address', 'Registered', '[{"op": "set", "path": "/email", "from": "/email"}]');
	SELECT cqrs_es.publish_log();
});
$reader->safe_psql('postgres', q{
	CREATE TABLE emails (customer text PRIMARY KEY, email text);
	SELECT cqrs_es.create_projection('emails', '{customer}', '{emails}', mode => 'async');
	SELECT cqrs_es.define_handler('emails', 'Registered', 'INSERT INTO emails VALUES (event.aggregate_id, event.payload->>''email'')');
	SELECT cqrs_es.define_handler('emails', '$redacted', 'UPDATE emails SET email = NULL WHERE customer = event.aggregate_id');
});
$reader->safe_psql('postgres', sprintf q{SELECT cqrs_es.follow_log('%s')}, ($publisher->connstr . ' dbname=postgres') =~ s/'/''/gr);
$reader->poll_query_until('postgres', q{SELECT count(*) = 2 FROM emails}) or BAIL_OUT('nothing comes');
$reader->safe_psql('postgres', q{SELECT cqrs_es.take_snapshot('customer', '1')});
$reader->safe_psql('postgres', q{SELECT cqrs_es.define_command('address', 'Look', $$'[]'::jsonb$$); SELECT * FROM cqrs_es.execute_boundary('address', 'Look', '{"email": "ada@example.com"}')});
is($reader->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.boundary_snapshots'), 0, 'no state of a boundary is kept where events are received, of which another may come below');
like(($reader->psql('postgres', "\\set VERBOSITY sqlstate\nSELECT cqrs_es.seal()"))[2], qr/QE601/, 'nor is a seal made there, which would call each redaction a forgery');
is($reader->safe_psql('postgres', q{SELECT string_agg(tag, ' ' ORDER BY tag) FROM cqrs_es.event_tags}), 'email:ada@example.com email:bob@example.com', 'tags are received');

is($publisher->safe_psql('postgres', q{SELECT cqrs_es.redact_stream('customer', '1', '{/payload/email}', 'asked for it')}), 1, 'an event is redacted, with its tag, while the log is published');
$reader->poll_query_until('postgres', q{SELECT email IS NULL FROM emails WHERE customer = '1'});
is($reader->safe_psql('postgres', q{SELECT string_agg(payload->>'email', ' ') FROM cqrs_es.events WHERE event_type = 'Registered'}), 'bob@example.com', 'so it is on the read node');
is($reader->safe_psql('postgres', q{SELECT string_agg(tag, ' ') FROM cqrs_es.event_tags}), 'email:bob@example.com', 'and the tag is gone');
is($reader->safe_psql('postgres', q{SELECT cqrs_es.aggregate_state('customer', '1')->>'email' IS NULL}), 't', 'a snapshot of before is not gone on from');
is($reader->safe_psql('postgres', q{SELECT cqrs_es.aggregate_state('customer', '1', at_sequence => 1)->>'email' IS NULL}), 't', 'nor shown as the state of before');
is($reader->safe_psql('postgres', q{SELECT state->>'email' IS NULL FROM cqrs_es.replay('customer', '1', 2)}), 't', 'nor replayed from');
is($reader->safe_psql('postgres', q{SELECT cqrs_es.boundary_state('address', '{"email": "ada@example.com"}')}), '{}', 'nor by a boundary');
is($reader->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.snapshots'), 0, 'it is gone');
like(($reader->psql('postgres', "\\set VERBOSITY sqlstate\n$_"))[2], qr/QE601/, $_) foreach q{SELECT cqrs_es.redact_stream('customer', '2', '{/payload}', 'x')}, q{SELECT cqrs_es.close_stream('customer', '2', 'x')};
is($reader->safe_psql('postgres', q{SELECT string_agg(email, ' ') FROM emails}), 'bob@example.com', 'its projection has a handler for it');

# who is taking a snapshot there
my $taking = $reader->background_psql('postgres');
$taking->query_safe(q{BEGIN; SELECT cqrs_es.take_snapshot('customer', '2')});
$publisher->safe_psql('postgres', q{SELECT cqrs_es.redact_stream('customer', '2', '{/payload/email}', 'asked for it')});
ok($reader->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'cqrs_es.redactions'::regclass)}), 'is waited for');
$taking->query_safe('COMMIT');
$taking->quit;
$reader->poll_query_until('postgres', q{SELECT email IS NULL FROM emails WHERE customer = '2'});
is($reader->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.snapshots'), 0, 'and leaves none');
done_testing();
