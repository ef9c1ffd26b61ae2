# pg_restore --clean --if-exists over a database that lives: what declarations name
# is dropped in the dump's order, the extension last. All comes back as it was
# dumped, without an error, in one transaction as well. Nobody else drops it.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('over');
$node->init;
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();

$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE ROLE bob;
	CREATE SCHEMA app;
	GRANT ALL ON SCHEMA app TO bob;
	GRANT USAGE ON SCHEMA cqrs_es TO bob;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cqrs_es TO bob;
	SELECT cqrs_es.create_aggregate('account', '{"sum": 0}', 2);
	CREATE FUNCTION app.reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
	BEGIN
		RETURN jsonb_build_object('sum', (state->>'sum')::int + (event.payload->>'n')::int);
	END $$;
	SELECT cqrs_es.define_reducer('account', 'added', 'app.reduce(jsonb, cqrs_es.event)');
	CREATE FUNCTION app.lift(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT payload || '{"lifted": true}' $$;
	SELECT cqrs_es.define_upcaster('added', '1', '2', 'app.lift(jsonb)');
	CREATE FUNCTION app.decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_object('type', 'added', 'payload', command) $$;
	SELECT cqrs_es.define_command('account', 'Add', 'app.decide(jsonb, jsonb)'::regprocedure);
	SET SESSION AUTHORIZATION bob;
	CREATE TABLE app.sums (account text PRIMARY KEY, sum int);
	CREATE TABLE app.notes (sequence bigint);
	CREATE FUNCTION app.note(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO app.notes VALUES (event.sequence) $$;
	SELECT cqrs_es.create_projection('sums', '{account}', '{app.sums}');
	SELECT cqrs_es.define_handler('sums', 'added', 'INSERT INTO app.sums VALUES (event.aggregate_id, 1) ON CONFLICT (account) DO UPDATE SET sum = sums.sum + 1');
	SELECT cqrs_es.create_projection('notes', '{account}', '{app.notes}');
	SELECT cqrs_es.define_handler('notes', 'added', 'app.note(cqrs_es.event)');
	RESET SESSION AUTHORIZATION;
	CREATE TABLE app.states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
	SELECT cqrs_es.create_projection('states', state_of => 'account', read_models => '{app.states}');
	CREATE VIEW app.log AS SELECT global_position, event_type FROM cqrs_es.events;
	SELECT cqrs_es.append_event('account', '1', 'added', '{"n": 1}') FROM generate_series(1, 5);
	SELECT cqrs_es.execute_command('account', '2', 'Add', '{"n": 7}');
});

sub content
{
	my $query = join ' UNION ALL ', map { "SELECT '$_', t::text FROM $_ AS t" } 'app.sums', 'app.notes', 'app.states', 'app.log',
	  map { "cqrs_es.$_" } qw(events snapshots aggregates reducers upcasters commands handlers), 'projection_status';
	return $node->safe_psql('postgres', "SET timezone = 'UTC'; $query ORDER BY 1, 2");
}
my $later = q{
	SELECT cqrs_es.append_event('account', '1', 'added', '{"n": 100}');
	SELECT cqrs_es.append_event('account', '3', 'added', '{"n": 100}');
};
my $original = content();

my @dump = ('pg_dump', '-d', $node->connstr('postgres'), '--no-sync', '-f');
$node->command_ok([ @dump, "$dir/custom", '-Fc' ], 'pg_dump -Fc');
$node->command_ok([ @dump, "$dir/directory", '-Fd' ], 'pg_dump -Fd');
$node->command_ok([ @dump, "$dir/clean.sql", '--clean', '--if-exists' ], 'pg_dump --clean');
my @clean = ('--clean', '--if-exists');
foreach my $way (
	[ 'pg_restore --clean', 'pg_restore', @clean, "$dir/custom" ],
	[ 'pg_restore --clean -1', 'pg_restore', @clean, '-1', "$dir/custom" ],
	[ 'pg_restore --clean -e', 'pg_restore', @clean, '-e', "$dir/custom" ],
	[ 'pg_restore --clean -j', 'pg_restore', @clean, '-j', '2', "$dir/directory" ],
	[ 'psql with pg_dump --clean', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', "$dir/clean.sql" ],
	[ 'psql -1 with pg_dump --clean', 'psql', '-Xq', '-1', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', "$dir/clean.sql" ])
{
	my ($how, @command) = @$way;

	$node->safe_psql('postgres', $later);
	isnt(content(), $original, "$how: something has happened since");
	my ($stdout, $stderr) = run_command([ @command, '-d', $node->connstr('postgres') ]);
	is($stderr, '', "$how: no error, no warning");
	is(content(), $original, "$how: all is as it was dumped");
}
is($node->safe_psql('postgres', q{SELECT version, state FROM cqrs_es.execute_command('account', '2', 'Add', '{"n": 1}')}), '2|{"sum": 8}', 'and goes on');

# Where the extension cannot be dropped, for something that the dump does not know, the
# log stays, and read models of the dump stand beside it. That is found, and mended.
$node->safe_psql('postgres', "$later CREATE FUNCTION public.newer(event cqrs_es.event) RETURNS int LANGUAGE sql RETURN 1");
my $log = $node->safe_psql('postgres', 'SELECT array_agg(e ORDER BY global_position) FROM cqrs_es.events e');
my ($output, $errors) = run_command([ 'pg_restore', @clean, '-d', $node->connstr('postgres'), "$dir/custom" ]);
like($errors, qr/cannot drop extension cqrs_es because other objects depend on it/, 'an extension that cannot be dropped is told');
is($node->safe_psql('postgres', 'SELECT array_agg(e ORDER BY global_position) FROM cqrs_es.events e'), $log, 'the log is as it was');
is($node->safe_psql('postgres', 'SELECT item, found FROM cqrs_es.verify_log() WHERE problem IS NOT NULL'), "last position drawn|6\nread models made anew|3", 'verify_log() finds that read models are not of it');
is($node->safe_psql('postgres', q{SELECT cqrs_es.rebuild_projection(name) FROM cqrs_es.projection_status; SELECT count(*) FROM cqrs_es.verify_log() WHERE problem IS NOT NULL AND item <> 'last position drawn';
	SELECT (SELECT count(*) FROM app.notes) = (SELECT count(*) FROM cqrs_es.events), bool_and(version = cqrs_es.stream_version('account', view_id)) FROM app.states}),
	"9\n9\n9\n0\nt|t", 'a rebuild mends them');
(undef, $errors) = run_command([ 'pg_restore', @clean, '-1', '-d', $node->connstr('postgres'), "$dir/custom" ]);
like($errors, qr/cannot drop extension/, 'in one transaction it is told, too');
is($node->safe_psql('postgres', 'SELECT array_agg(e ORDER BY global_position) FROM cqrs_es.events e'), $log, 'and all stays as it was');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.verify_log() WHERE problem IS NOT NULL AND item <> 'last position drawn'}), '0', 'read models as well');

#
# Whoever is no restore is refused as before: the setting of a dump is not enough.
#
sub error_of
{
	my ($sql) = @_;
	my ($status, $stdout, $stderr) = $node->psql('postgres', $sql, on_error_stop => 1);
	return $stderr;
}
my $refused = qr/ERROR:  cannot drop (table|function) .*because/;
like(error_of($_), $refused, "refused: $_") foreach ('DROP TABLE app.sums', 'DROP FUNCTION app.note', 'DROP FUNCTION app.lift',
	'DROP SCHEMA app CASCADE', 'DROP OWNED BY bob CASCADE');
like(error_of("SET check_function_bodies = off; DO \$\$ BEGIN $_; END \$\$"), $refused, "refused within a function, to whomever: $_")
  foreach ('DROP FUNCTION app.note', 'DROP TABLE app.sums', 'DROP SCHEMA app CASCADE');
like(error_of("SET check_function_bodies = off; $_"), $refused, "refused, since no dump does that: $_") foreach ('DROP OWNED BY bob CASCADE');
$node->safe_psql('postgres', 'ALTER ROLE bob LOGIN');
foreach my $drop ('DROP FUNCTION app.note', 'DROP TABLE app.sums')
{
	my ($status, $stdout, $stderr) = $node->psql('postgres', "SET check_function_bodies = off; $drop", extra_params => [ '-U', 'bob' ]);
	like($stderr, $refused, "refused to an ordinary role: $drop");
}
my ($status, $stdout, $stderr) = $node->psql('postgres', 'BEGIN; SET check_function_bodies = off; DROP TABLE app.sums; DROP FUNCTION app.note; ROLLBACK');
is($status, 0, 'the owner of the extension can, as a restore would');
like($stderr, qr/NOTICE:  a projection keeps table app.sums\n.*NOTICE:  function app.note\(cqrs_es.event\) is in use/s, 'and is told');

$node->stop;
done_testing();
