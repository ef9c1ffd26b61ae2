# Dump and restore, in every format: the restored database is equal, no
# projection has run a second time, and all goes on from there.

use strict;
use warnings FATAL => 'all';
use Digest::MD5 qw(md5_hex);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('dump');
$node->init;
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();

my $declare = q{
	CREATE SCHEMA app;
	CREATE TABLE app.counts (event_type text PRIMARY KEY, n bigint NOT NULL);
	CREATE TABLE app.runs (sequence bigint, event_type text);
	CREATE FUNCTION app.add_amount(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		RETURN jsonb_build_object('sum', (state->>'sum')::int + (event.payload->>'n')::int);
	END $$;
	SELECT cqrs_es.create_aggregate('account', '{"sum": 0}', 2);
	SELECT cqrs_es.define_reducer('account', 'added', 'app.add_amount(jsonb, cqrs_es.event)');
	SELECT cqrs_es.create_aggregate('note');
	SET search_path = app, public;
	SELECT cqrs_es.create_projection('counts', ARRAY['account', 'note'], ARRAY['app.counts', 'app.runs']::regclass[]);
	SELECT cqrs_es.define_handler('counts', 'added',
		'INSERT INTO counts VALUES (event.event_type, 1) ON CONFLICT (event_type) DO UPDATE SET n = counts.n + 1');
	SELECT cqrs_es.define_handler('counts', 'written', 'INSERT INTO runs VALUES (event.sequence, event.event_type)');
	RESET search_path;
};
my $append = q{
	SELECT cqrs_es.append_event('account', 'a', 'added', '{"n": 1}');
	BEGIN;
	SELECT cqrs_es.append_event('account', 'b', 'added', '{"n": 1000}');
	ROLLBACK;
	SELECT cqrs_es.append_events('account', 'a', '[{"type": "added", "payload": {"n": 2}},
		{"type": "added", "payload": {"n": 3}, "metadata": {"by": "me"}},
		{"type": "added", "payload": {"n": 4}, "version": "2", "id": "00000000-0000-7000-8000-000000000001"}]');
	SET cqrs_es.tenant_id = 'other tenant';
	SELECT cqrs_es.append_event('account', 'a', 'added', '{"n": 5}', 0);
	RESET cqrs_es.tenant_id;
	INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
		SELECT 'account', 'b', 'added', jsonb_build_object('n', n) FROM generate_series(1, 5) AS n;
	SELECT cqrs_es.append_event('note', E'with \\ "quotes"\t''and'' more', 'written', to_jsonb(string_agg(md5(n::text), E'\n')))
		FROM generate_series(1, 1250) AS n;
	SELECT cqrs_es.take_snapshot('account', 'b');
	BEGIN;
	SELECT cqrs_es.append_event('account', 'c', 'added', '{"n": 1000}');
	ROLLBACK;
};
$node->safe_psql('postgres', 'CREATE DATABASE original');
$node->safe_psql('original', "CREATE EXTENSION cqrs_es; $declare");
$node->safe_psql('original', $append);

# All that must come back, as text; of the large values a digest.
sub content
{
	my ($database) = @_;
	my @tables = map { "cqrs_es.$_" } qw(events snapshots aggregates reducers projections handlers);
	my $query = join ' UNION ALL ',
	  (map { "SELECT '$_', CASE WHEN length(t::text) > 1000 THEN md5(t::text) ELSE t::text END FROM $_ AS t" } @tables, 'app.counts', 'app.runs'),
	  "SELECT 'sequence', (last_value, is_called)::text FROM cqrs_es.events_global_position_seq";
	return $node->safe_psql($database, "SET timezone = 'UTC'; $query ORDER BY 1, 2");
}

# A dump as text, without the random word that newer releases put into it.
sub dump_text
{
	my ($database) = @_;
	my ($text, $stderr) = run_command([ 'pg_dump', '-d', $node->connstr($database) ]);
	$text =~ s/^\\(un)?restrict .*\n//mg;
	$text =~ s/^(.{1000,})$/md5_hex($1)/meg;
	return $text;
}

my $original = content('original');
my $original_dump = dump_text('original');
cmp_ok($node->safe_psql('original', 'SELECT max(length(payload::text)) FROM cqrs_es.events'), '>', 40_000, 'there is a large payload');

sub check
{
	my ($database, $how) = @_;

	is(content($database), $original, "$how: everything is as it was");
	is(dump_text($database), $original_dump, "$how: its dump is the same as the first");

	my ($version, $rises) = split /\|/, $node->safe_psql($database, q{
		WITH before AS MATERIALIZED (SELECT max(global_position) AS position FROM cqrs_es.events)
		SELECT version, global_position > position
		FROM before, cqrs_es.append_event('account', 'a', 'added', '{"n": 10}', 4)});
	is("$version $rises", '5 t', "$how: appends go on, with rising positions");
	is($node->safe_psql($database, q{SELECT global_position FROM cqrs_es.append_events('account', 'a', '[{"type": "added", "payload": {"n": 4}, "version": "2",
			"id": "00000000-0000-7000-8000-000000000001"}]')}),
		$node->safe_psql($database, q{SELECT global_position FROM cqrs_es.events WHERE event_id = '00000000-0000-7000-8000-000000000001'}),
		"$how: a retry of what was appended before is recognized");
	is($node->safe_psql($database, q{SELECT cqrs_es.aggregate_state('account', 'a'), cqrs_es.aggregate_state('account', 'b')}),
		'{"sum": 20}|{"sum": 15}', "$how: states");
	is($node->safe_psql($database, q{SELECT n - (SELECT count(*) FROM cqrs_es.events WHERE event_type = 'added') FROM app.counts}),
		'0', "$how: projections go on");
	is($node->safe_psql($database, q{SELECT string_agg(global_position::text, ' ') FROM cqrs_es.read_all()}),
		$node->safe_psql($database, q{SELECT string_agg(global_position::text, ' ' ORDER BY global_position) FROM cqrs_es.events WHERE tenant_id = ''}),
		"$how: read_all hands out everything in order, once");
	is($node->safe_psql($database, q{
		SELECT version FROM cqrs_es.append_event('account', 'a', 'added', '{"n": 20}');
		SELECT last_sequence, payload, current_snapshot FROM cqrs_es.snapshots WHERE aggregate_id = 'a' AND tenant_id = ''}),
		qq(6\n6|{"sum": 40}|2), "$how: snapshots go on");
	is($node->safe_psql($database, q{
		BEGIN;
		UPDATE cqrs_es.snapshots SET payload = '{"sum": 1000}' WHERE aggregate_id = 'b';
		SELECT cqrs_es.aggregate_state('account', 'b');
		ROLLBACK}), '{"sum": 1000}', "$how: those that were restored are used");
}

sub restored
{
	my ($database, $how, @command) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->command_ok([ @command, '-d', $node->connstr($database) ], "$how: restored without an error");
	check($database, $how);
}

my @dump = ('pg_dump', '-d', $node->connstr('original'), '-f');

$node->command_ok([ @dump, "$dir/plain.sql" ], 'pg_dump, plain');
restored('plain', 'plain', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/plain.sql");

$node->command_ok([ @dump, "$dir/inserts.sql", '--inserts' ], 'pg_dump --inserts');
restored('inserts', 'inserts', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/inserts.sql");

$node->command_ok([ @dump, "$dir/columns.sql", '--column-inserts', '--rows-per-insert=3' ], 'pg_dump --column-inserts');
restored('columns', 'column inserts', 'psql', '-Xq', '-1', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/columns.sql");

$node->command_ok([ @dump, "$dir/custom", '-Fc' ], 'pg_dump, custom');
restored('custom', 'custom', 'pg_restore', '--exit-on-error', "$dir/custom");
restored('single', 'custom, one transaction', 'pg_restore', '--single-transaction', "$dir/custom");

# Two jobs load two tables at a time, in any order: pg_dump keeps no order
# between the data of an extension's tables.
is($node->safe_psql('original', q{
	SELECT conrelid::regclass, confrelid::regclass FROM pg_constraint
	WHERE contype = 'f' AND conrelid = ANY ((SELECT extconfig FROM pg_extension WHERE extname = 'cqrs_es')::oid[])}),
	'', 'no foreign key between tables of the extension');
$node->command_ok([ @dump, "$dir/directory", '-Fd' ], 'pg_dump, directory');
restored('parallel', 'directory, two jobs', 'pg_restore', '-j', '2', '--exit-on-error', "$dir/directory");

# A session that has used everything sees the extension go and come back.
my $session = $node->background_psql('original');
$session->query_safe($_) foreach (
	q{SELECT cqrs_es.aggregate_state('account', 'a'), cqrs_es.settled_position(), cqrs_es.stream_version('account', 'a')},
	q{SELECT cqrs_es.append_event('account', 'a', 'added', '{"n": 1}') FROM cqrs_es.read_all(0, 1)},
	q{SET client_min_messages = warning},
	q{DROP EXTENSION cqrs_es CASCADE},
	q{DROP SCHEMA app CASCADE},
	q{CREATE EXTENSION cqrs_es});
$session->query_safe($declare);
is($session->query_safe(q{SELECT * FROM cqrs_es.append_event('account', 'a', 'added', '{"n": 1}', 0)}),
	'1|1', 'dropped and created in one session: a new log');
is($session->query_safe(q{SELECT * FROM cqrs_es.append_event('account', 'a', 'added', '{"n": 2}', 1)}),
	'2|2', 'it goes on');
$session->query_safe(q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', 'a', 'added', '{"n": 3}')});
is($session->query_safe(q{SELECT string_agg(sequence::text, ' ') FROM cqrs_es.read_all()}), '1 2 3', 'read_all');
is($session->query_safe(q{SELECT cqrs_es.settled_position(), cqrs_es.wait_for_position(3, '1 s')}), '3|t', 'settled_position');
is($session->query_safe(q{SELECT cqrs_es.aggregate_state('account', 'a')}), '{"sum": 6}', 'aggregate_state');
is($session->query_safe(q{SELECT last_sequence, payload FROM cqrs_es.snapshots}), '2|{"sum": 3}', 'snapshots');
is($session->query_safe(q{SELECT * FROM app.counts}), 'added|3', 'projections');
is($session->query_safe(q{BEGIN; DROP EXTENSION cqrs_es CASCADE; ROLLBACK; SELECT version FROM cqrs_es.append_event('account', 'a', 'added', '{"n": 4}')}),
	'4', 'a DROP EXTENSION that is rolled back');
$session->quit;

$node->stop;
done_testing();
