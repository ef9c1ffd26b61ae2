# Projections under load: eight sessions append events that all write the same few
# rows of three read models, while these are paused, resumed and rebuilt and
# somebody watches. Then a rebuild that is cancelled, one that is killed, and a
# dump of a paused projection.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($sessions, $seconds) = (8, 4);
my @projections = qw(counts states totals);

my $node = PostgreSQL::Test::Cluster->new('projections');
$node->init;
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE totals (kind text PRIMARY KEY, events bigint NOT NULL, amount numeric NOT NULL);
	CREATE TABLE counts (stream text PRIMARY KEY, events bigint NOT NULL);
	CREATE TABLE states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
	SELECT cqrs_es.create_aggregate('account', '{"balance": 0}', snapshot_every => 50);
	SELECT cqrs_es.define_reducer('account', 'moved', '[{"op": "increment", "path": "/balance", "from": "/amount"}]');
	SELECT cqrs_es.create_projection('totals', '{account}', '{totals}');
	SELECT cqrs_es.define_handler('totals', '*', $$INSERT INTO totals VALUES (event.event_type, 1, coalesce((event.payload->>'amount')::numeric, 0))
		ON CONFLICT (kind) DO UPDATE SET events = totals.events + 1, amount = totals.amount + excluded.amount$$);
	-- a function with a gate that can be closed, and a subtransaction that is rolled back
	CREATE FUNCTION count_event(e cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF e.event_type = 'slow' THEN
			PERFORM pg_advisory_xact_lock_shared(1);
		END IF;
		BEGIN
			INSERT INTO counts VALUES (e.aggregate_id, NULL);
		EXCEPTION WHEN not_null_violation THEN
		END;
		INSERT INTO counts VALUES (e.aggregate_id, 1) ON CONFLICT (stream) DO UPDATE SET events = counts.events + 1;
	END $$;
	SELECT cqrs_es.create_projection('counts', '{account}', '{counts}');
	SELECT cqrs_es.define_handler('counts', '*', 'count_event(cqrs_es.event)');
	SELECT cqrs_es.create_projection('states', read_models => '{states}', state_of => 'account');
});

# Rows of the read models that are not what the log says.
my $differences = q{
	SELECT 'totals', to_jsonb(r), to_jsonb(m) FROM totals AS m FULL JOIN (SELECT event_type AS kind, count(*) AS events,
		sum(coalesce((payload->>'amount')::numeric, 0)) AS amount FROM cqrs_es.events WHERE aggregate_type = 'account' GROUP BY 1) AS r USING (kind, events, amount) WHERE m IS NULL OR r IS NULL
	UNION ALL
	SELECT 'counts', to_jsonb(r), to_jsonb(m) FROM counts AS m FULL JOIN (SELECT aggregate_id AS stream, count(*) AS events
		FROM cqrs_es.events WHERE aggregate_type = 'account' GROUP BY 1) AS r USING (stream, events) WHERE m IS NULL OR r IS NULL
	UNION ALL
	SELECT 'states', to_jsonb(l), to_jsonb(m) FROM (SELECT DISTINCT aggregate_id AS view_id FROM cqrs_es.events WHERE aggregate_type = 'account') AS s FULL JOIN states AS m USING (view_id),
		LATERAL cqrs_es.load_aggregate('account', view_id) AS l WHERE (m.version, m.payload) IS DISTINCT FROM (l.version, l.state)};

sub no_differences
{
	my ($what, $database) = @_;
	is($node->safe_psql($database // 'postgres', $differences), '', $what);
}

# the load

my $script = $node->basedir . '/append.sql';
append_to_file($script, join "\n", '\set stream random(1, 12)', '\set amount random(-100, 100)', '\set kind random(1, 10)',
	q{SELECT CASE WHEN :kind > 9 THEN (SELECT version FROM cqrs_es.append_events('account', 's' || :stream, '[{"type": "moved", "payload": {"amount": 1}}, {"type": "closed", "payload": {}}]'))}
	. q{ ELSE (SELECT version FROM cqrs_es.append_event('account', 's' || :stream, CASE WHEN :kind > 6 THEN 'noted' ELSE 'moved' END, jsonb_build_object('amount', :amount::int))) END;}, '');
my ($out, $err) = ('', '');
my $load = IPC::Run::start([ 'pgbench', '-n', '-M', 'prepared', '-c', $sessions, '-j', 2, '-T', $seconds, '-f', $script, $node->connstr('postgres') ],
	'<', \undef, '>', \$out, '2>', \$err);
my ($rounds, $errors) = (0, '');
my $deadline = time + $seconds - 1;
while (time < $deadline)
{
	foreach my $projection (@projections)
	{
		my (undef, $stdout, $stderr) = $node->psql('postgres', join '; ', map { "SELECT cqrs_es.${_}_projection('$projection')" }
			$rounds % 2 ? qw(pause rebuild resume) : qw(rebuild pause resume));
		$errors .= join '', grep { !/NOTICE|^DETAIL:  Its handlers changed/ } split /^/, $stderr;
	}
	$node->safe_psql('postgres', 'SELECT * FROM cqrs_es.projection_progress, cqrs_es.projection_status');
	$rounds++;
}
$load->finish;
is($load->result(0), 0, 'the load ran') or diag($err);
unlike($err, qr/ERROR/, 'no append failed');
is($errors, '', "nor did a pause, resume or rebuild, $rounds times each");
cmp_ok($rounds, '>', 1, 'there were some');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.events'), '>', 500, 'and events');
no_differences('each read model is what the log says');

# what a person sees

$node->safe_psql('postgres', q{SELECT cqrs_es.append_events('account', 'many', (SELECT jsonb_agg('{"type": "noted", "payload": {}}'::jsonb) FROM generate_series(1, 2000)))});
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('account', 'slow', 'slow', '{}')});
my (undef, undef, $notices) = $node->psql('postgres', q{SELECT cqrs_es.rebuild_projection('totals')});
like($notices, qr/NOTICE:  projection "totals": 25 %.*50 %.*75 %.*has been rebuilt from \d+ events/s, 'a rebuild says how far it is');

# A rebuild that stands still before its end, in a session of its own: all rows are gone there, and most are there again.
# Returns the session and its pid.
my $gate = $node->background_psql('postgres');

sub start_rebuild
{
	$gate->query_safe('SELECT pg_advisory_lock(1)');
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_until(qr/started/, "\\echo started\nSELECT cqrs_es.rebuild_projection('counts');\n");
	$node->poll_query_until('postgres', "SELECT wait_event = 'advisory' FROM pg_stat_activity WHERE pid = $pid") or die 'no rebuild';
	return ($session, $pid);
}
my $content = q{SELECT md5(string_agg(to_jsonb(c)::text, ' ' ORDER BY stream)) FROM counts AS c};
my $before = $node->safe_psql('postgres', $content);
my $events = $node->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.events');

my ($session, $pid) = start_rebuild();
is($node->safe_psql('postgres', qq{
	SELECT projection, activity, pid = $pid, events = $events - 1, position > 0, last_position = (SELECT max(global_position) FROM cqrs_es.events) FROM cqrs_es.projection_progress}),
	'counts|rebuild|t|t|t|t', 'another session sees how far it is, though subtransactions of handlers were rolled back');
is($node->safe_psql('postgres', q{SET statement_timeout = '5s'; SELECT name, state FROM cqrs_es.projection_status ORDER BY name}),
	"counts|rebuilding\nstates|live\ntotals|live", 'and the state of all');
is($node->safe_psql('postgres', $content), $before, 'readers have the old content');
is($node->safe_psql('postgres', q{SET statement_timeout = '5s'; SELECT version FROM cqrs_es.append_event('other', 'o', 'o', '{}')}), '1', 'others append');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
$node->poll_query_until('postgres', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid");
$session->quit;
is($node->safe_psql('postgres', $content), $before, 'a rebuild that is cancelled leaves all as it was');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.projection_progress}), '0', 'and no trace');
$gate->query_safe('SELECT pg_advisory_unlock(1)');
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('account', 's1', 'noted', '{}')});
no_differences('appends go on with it');

# kill -9

$before = $node->safe_psql('postgres', $content);
($session, $pid) = start_rebuild();
kill 'KILL', $pid;
$session->{run}->finish;
$gate->{run}->finish;
# (no statement: psql may be gone before it has read one)
$node->poll_query_until('postgres', undef, '') or die 'the server did not come back';
is($node->safe_psql('postgres', $content), $before, 'a rebuild that is killed, too');
is($node->safe_psql('postgres', q{SELECT string_agg(state, ' ') FROM cqrs_es.projection_status}), 'live live live', 'all are live');
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('account', 's1', 'noted', '{}')});
no_differences('and follow');

# a dump of a paused projection

my $writer = $node->background_psql('postgres');
$writer->query_safe(q{BEGIN; SELECT cqrs_es.append_event('other', 'open', 'o', '{}')});
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('account', 's1', 'noted', '{}')});
$node->safe_psql('postgres', "SELECT cqrs_es.pause_projection('$_')") foreach @projections;
$writer->query_safe(q{SELECT cqrs_es.append_event('account', 'late', 'moved', '{"amount": 5}'); COMMIT});
$writer->quit;
$node->safe_psql('postgres', q{SELECT cqrs_es.append_events('account', 's1', '[{"type": "moved", "payload": {"amount": 7}}, {"type": "closed", "payload": {}}]')});
isnt($node->safe_psql('postgres', $differences), '', 'paused projections are behind');
my $dump = $node->basedir . '/dump.sql';
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
$node->command_ok([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', $dump, $node->connstr('restored') ], 'psql');
foreach my $database ('postgres', 'restored')
{
	is($node->safe_psql($database, q{SELECT string_agg(state, ' ') FROM cqrs_es.projection_status}), 'paused paused paused', "$database: all are paused");
	is($node->safe_psql($database, "SELECT cqrs_es.resume_projection('$_')"), '3', "$database: $_ catches up with what it has missed") foreach @projections;
	$node->safe_psql($database, q{SELECT cqrs_es.append_event('account', 's2', 'moved', '{"amount": 3}')});
	no_differences("$database: and follows", $database);
}

$node->stop;
done_testing();
