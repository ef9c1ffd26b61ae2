# Dumps in the middle of the work of asynchronous projections: what is handled, in hand, parked, blocked, stopped and paused is
# as it was, and each goes on where it is restored, with no event lost and none handled twice: its tables are what the log says.
# Also a dump that is made while writers and the worker are busy, and somebody who runs them in the middle of a restore.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Restored;

my $node = PostgreSQL::Test::Cluster->new('async_dump');
$node->init;
$node->append_conf('postgresql.conf', 'cqrs_es.projection_worker = off');
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();
my @projections = qw(log_order per_stream switched stopped paused);

#-------------------------------------------------------------------------
# what there is
#-------------------------------------------------------------------------

# A projection writes down each event once, which it could not do twice, counts, and keeps the order.
sub create
{
	my ($database, $projection, $options) = @_;
	$node->safe_psql($database, qq{
		CREATE TABLE ${projection}_rows (id text, sequence bigint, PRIMARY KEY (id, sequence));
		CREATE TABLE ${projection}_sums (id text PRIMARY KEY, n bigint, sequences text);
		CREATE FUNCTION ${projection}_handle(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS \$\$ BEGIN
			IF e.payload->>'fails' = '$projection' AND NOT EXISTS (SELECT FROM mended) THEN
				RAISE EXCEPTION 'I do not like this';
			ELSIF e.payload->>'waits' = '$projection' THEN
				PERFORM pg_advisory_xact_lock_shared(1);
			END IF;
			INSERT INTO ${projection}_rows VALUES (e.aggregate_id, e.sequence);
			INSERT INTO ${projection}_sums AS s VALUES (e.aggregate_id, 1, e.sequence::text)
			ON CONFLICT (id) DO UPDATE SET n = s.n + 1, sequences = s.sequences || ',' || excluded.sequences;
		END \$\$;
		SELECT cqrs_es.create_projection('$projection', '{a}', '{${projection}_rows,${projection}_sums}'$options);
		SELECT cqrs_es.define_handler('$projection', '*', '${projection}_handle');
	});
	return;
}

sub append
{
	my ($database, $n, $payload) = @_;
	return $node->safe_psql($database, sprintf q{SELECT count(cqrs_es.append_event('a', i %% 7 || '', 'e', '%s')) FROM generate_series(1, %d) AS i}, $payload // '{}', $n);
}

sub run
{
	my ($database, $projection) = @_;
	my ($status, $stdout, $stderr) = $node->psql($database, "SET client_min_messages = error; CALL cqrs_es.run_projections(" . ($projection ? "'{$projection}'" : '') . ')');
	return $stderr;
}

# Is it just what the log says?
sub differences
{
	my ($database, $projection) = @_;
	my $log = "SELECT aggregate_id, count(*), string_agg(sequence::text, ',' ORDER BY sequence) FROM cqrs_es.events WHERE aggregate_type = 'a' GROUP BY 1";
	return $node->safe_psql($database, qq{
		SELECT (SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'a') - (SELECT count(*) FROM ${projection}_rows),
			(SELECT count(*) FROM ($log EXCEPT SELECT * FROM ${projection}_sums) AS x),
			(SELECT count(*) FROM (SELECT * FROM ${projection}_sums EXCEPT $log) AS x)});
}

my $state = q{
	SELECT 'projection', concat_ws('|', name, mode, per_stream, paused, handled_position, handled_gaps, rebuilt_to, live_after) FROM cqrs_es.projections
	UNION ALL SELECT 'feed', concat_ws('|', name, ordering, paused, stopped_error) FROM cqrs_es.subscriptions
	UNION ALL SELECT 'share', s::text FROM cqrs_es.shares s
	UNION ALL SELECT 'parked', s::text FROM cqrs_es.parked_streams s
	UNION ALL SELECT 'letter', s::text FROM cqrs_es.dead_letters s
	ORDER BY 1, 2};

# All goes on, and comes to its end.
sub check
{
	my ($database, $how) = @_;

	$node->safe_psql($database, q{
		INSERT INTO mended VALUES (true);
		UPDATE cqrs_es.parked_streams SET retry_at = now() WHERE retry_at IS NOT NULL;
		SELECT cqrs_es.resume_projection(name) FROM cqrs_es.projection_status WHERE state IN ('paused', 'stopped');
		SELECT cqrs_es.redrive('projection:per_stream')});
	append($database, 10);
	is(run($database), '', "$how: all are run");
	is($node->safe_psql($database, q{SELECT string_agg(concat_ws(' ', name, state, coalesce(parked, 0), coalesce(lag_events, 0)), ', ' ORDER BY name) FROM cqrs_es.projection_status}),
		join(', ', map { "$_ live 0 0" } sort @projections), "$how: ... to their end");
	is(differences($database, $_), '0|0|0', "$how: $_ is exactly the log") foreach @projections;
	$node->safe_psql($database, "SELECT cqrs_es.alter_projection('switched', mode => 'sync')");
	append($database, 5);
	is(differences($database, 'switched'), '0|0|0', "$how: ... also in the other mode");
	run($database);
	$node->safe_psql($database, "SELECT cqrs_es.rebuild_projection('$_')") foreach @projections;
	is(differences($database, $_), '0|0|0', "$how: ... and rebuilt") foreach @projections;
	return;
}

$node->safe_psql('postgres', 'CREATE DATABASE original');
$node->safe_psql('original', 'CREATE EXTENSION cqrs_es; CREATE TABLE mended (yes boolean)');
create('original', 'switched', '');
create('original', $_, q{, mode => 'async'}) foreach qw(log_order stopped paused);
create('original', 'per_stream', q{, mode => 'async', per_stream => true});
append('original', 40);
is(run('original'), '', 'each handles something');

# One that is switched beside an open writer, whose position is a gap in what was handled; some more behind it.
my $writer = $node->background_psql('original');
$writer->query_safe(q{BEGIN; SELECT FROM cqrs_es.append_event('b', '1', 'e', '{}')});
append('original', 10);
$node->safe_psql('original', q{SELECT cqrs_es.alter_projection('switched', mode => 'async')});
$writer->query_safe(q{SELECT FROM cqrs_es.append_event('a', '1', 'e', '{}'); COMMIT});
$writer->quit;
append('original', 30);
isnt($node->safe_psql('original', q{SELECT handled_gaps FROM cqrs_es.projections WHERE name = 'switched'}), '', 'one has a gap');

# One with a stream that is blocked, and one that is tried again in an hour.
$node->safe_psql('original', q{
	UPDATE cqrs_es.subscriptions SET retry_delay = '0', retry_delay_max = '0' WHERE name IN ('projection:per_stream', 'projection:stopped');
	SELECT FROM cqrs_es.append_event('a', '2', 'e', '{"fails": "per_stream"}');
	SELECT FROM cqrs_es.append_event('a', '3', 'e', '{"fails": "stopped"}')});
append('original', 14);
run('original', $_) foreach ('per_stream', 'stopped') x 6;
$node->safe_psql('original', q{UPDATE cqrs_es.subscriptions SET retry_delay = '1 hour', retry_delay_max = '1 hour' WHERE name = 'projection:per_stream';
	SELECT FROM cqrs_es.append_event('a', '4', 'e', '{"fails": "per_stream"}')});
run('original', 'per_stream');
append('original', 14);
$node->safe_psql('original', q{SELECT cqrs_es.pause_projection('paused')});

# One whose runner died with a batch in hand.
my $gate = $node->background_psql('original');
$gate->query_safe('SELECT pg_advisory_lock(1)');
$node->safe_psql('original', q{SELECT FROM cqrs_es.append_event('a', '5', 'e', '{"waits": "log_order"}')});
my $runner = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('original'), '-c', q{SET application_name = 'runner'}, '-c', q{CALL cqrs_es.run_projections('{log_order}')} ], '>', \my $out, '2>', \my $err);
$node->poll_query_until('original', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'runner' AND wait_event_type = 'Lock'});
$node->safe_psql('original', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'runner'});
$runner->finish;
$gate->quit;
append('original', 14);

is($node->safe_psql('original', q{SELECT string_agg(concat_ws(' ', p.name, p.state, p.parked, s.blocked, s.in_hand > 0), ', ' ORDER BY p.name)
		FROM cqrs_es.projection_status AS p JOIN cqrs_es.subscription_status AS s ON s.name = 'projection:' || p.name}),
	'log_order live 0 0 t, paused paused 0 0 f, per_stream live 2 1 f, stopped stopped 0 0 f, switched live 0 0 f', 'there is something of everything');
my $original = $node->safe_psql('original', $state);

#-------------------------------------------------------------------------
# restored
#-------------------------------------------------------------------------

restore_each_way($node, 'original', $dir, sub {
	my ($name, $how, $stderr) = @_;
	is($stderr, '', "$how: restored");
	is($node->safe_psql($name, $state), $original, "$how: all is as it was");
	check($name, $how);
});
check('original', 'where it was dumped');

# Over one that has gone on.
my ($stdout, $stderr) = run_command([ 'pg_restore', '--clean', '--if-exists', '--exit-on-error', '-d', $node->connstr('restored1'), "$dir/custom" ]);
is($stderr, '', 'over one that has gone on: restored');
is($node->safe_psql('restored1', $state), $original, '... all is as it was');
check('restored1', 'over one that has gone on');

# Somebody runs whatever there is, as pg_cron does, when declarations and log are there, and the tables still empty.
my $dump = slurp_file("$dir/plain.sql");
my $tables = index($dump, "\nCOPY public.") + 1;
my ($in, $output, $errors) = (substr($dump, 0, $tables) . "SELECT 'half';\n", '', '');
$node->safe_psql('postgres', 'CREATE DATABASE halves');
my $restore = IPC::Run::start([ 'psql', '-Xqt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('halves') ], '<', \$in, '>', \$output, '2>', \$errors);
$restore->pump while $output !~ /half/;
cmp_ok($node->safe_psql('halves', q{SELECT count(*) FROM cqrs_es.projections CROSS JOIN (SELECT FROM cqrs_es.events LIMIT 1) AS e WHERE NOT EXISTS (SELECT FROM log_order_rows)}), '>', 0, 'half of it is restored');
is($node->safe_psql('halves', q{SET client_min_messages = error; CALL cqrs_es.run_projections()}), '0', '... and nothing is run');
$in .= substr($dump, $tables);
$restore->finish;
is($errors, '', '... so that the tables find their place');
is($node->safe_psql('halves', $state), $original, '... and all is as it was');
check('halves', 'run in the middle');

#-------------------------------------------------------------------------
# a dump while all are at work
#-------------------------------------------------------------------------

$node->append_conf('postgresql.conf', 'cqrs_es.projection_worker = on');
$node->reload;
$node->safe_psql('postgres', 'CREATE DATABASE busy');
$node->safe_psql('busy', q{CREATE EXTENSION cqrs_es; CREATE TABLE mended (yes boolean);
	CREATE PROCEDURE write_on() LANGUAGE plpgsql AS $$ BEGIN
		LOOP
			PERFORM cqrs_es.append_event('a', (random() * 50)::int::text, 'e', '{}') FROM generate_series(1, 1 + (random() * 4)::int);
			COMMIT;
			PERFORM pg_sleep(0.005);
		END LOOP;
	END $$});
create('busy', 'switched', '');
create('busy', $_, q{, mode => 'async'}) foreach qw(log_order stopped paused);
create('busy', 'per_stream', q{, mode => 'async', per_stream => true});
my @writers = map { IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('busy'), '-c', 'CALL write_on()' ], '>', '/dev/null', '2>', '/dev/null') } 1 .. 2;
foreach my $i (1 .. 3)
{
	$node->poll_query_until('busy', "SELECT count(*) > $i * 100 FROM log_order_rows");
	$node->safe_psql('busy', q{SELECT cqrs_es.alter_projection('switched', mode => 'async')}) if $i == 2;
	$node->command_ok([ 'pg_dump', '-d', $node->connstr('busy'), '--no-sync', '-Fc', '-f', "$dir/busy$i" ], "pg_dump $i while all are at work");
}
$node->safe_psql('busy', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL write_on%'});
$_->finish foreach @writers;
foreach my $i (1 .. 3)
{
	$node->safe_psql('postgres', "CREATE DATABASE busy$i");
	my ($stdout, $stderr) = run_command([ 'pg_restore', '--exit-on-error', '-d', $node->connstr("busy$i"), "$dir/busy$i" ]);
	is($stderr, '', "dump $i: restored");
	cmp_ok($node->safe_psql("busy$i", 'SELECT count(*) FROM cqrs_es.events'), '>', 100, "dump $i: with events");
	check("busy$i", "dump $i");
}
$node->safe_psql('busy', q{SELECT cqrs_es.alter_projection('log_order', mode => 'sync')});
is(differences('busy', 'log_order'), '0|0|0', 'and where it was dumped it is exactly the log');

# Events that are restored behind it: what is told of is what one does with a projection.
$node->safe_psql('original', q{BEGIN; SELECT FROM cqrs_es.append_event('c', '0', 'e', '{}'); ROLLBACK});
append('original', 1);
run('original');
($stdout, $stderr) = run_command([ 'psql', '-Xqt', '-d', $node->connstr('original'), '-c', q{
	INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload, created_at)
	SELECT p, 1, 'c', '1', 'e', '{}', '2001-01-01' FROM generate_series(1, 100000) AS p WHERE NOT EXISTS (SELECT FROM cqrs_es.events WHERE global_position = p) LIMIT 1} ]);
like($stderr, qr/asynchronous projections have passed.*"log_order".*rebuild_projection\(\)/s, 'a warning of restored events names what to do');
unlike($stderr, qr/reset_subscription/, '... which is nothing of subscriptions');

$node->stop;
done_testing();
