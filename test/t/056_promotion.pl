# Promotions beside writers and readers. Whatever a reader sees through the view is what the log says at the same moment: a
# table that is filled only partly, or half of a change, would not be. Then a promotion that is interrupted wherever it can
# be held up: nothing has happened.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{CQRS_ES_PROMOTION_ROUNDS} // 3;
my $node = PostgreSQL::Test::Cluster->new('promotion');
$node->init;
$node->append_conf('postgresql.conf', "restart_after_crash = on\nmax_connections = 60");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE b0 (account text PRIMARY KEY, balance numeric NOT NULL, moves bigint NOT NULL);
	SELECT cqrs_es.create_projection('b0', '{account}', '{b0}');
	SELECT cqrs_es.define_handler('b0', 'moved', $$INSERT INTO b0 VALUES (event.aggregate_id, (event.payload->>'amount')::numeric, 1)
		ON CONFLICT (account) DO UPDATE SET balance = b0.balance + excluded.balance, moves = b0.moves + 1$$);
	CREATE VIEW balances AS SELECT account, balance, moves FROM b0;
	CREATE VIEW total AS SELECT coalesce(sum(balance), 0) AS balance, coalesce(sum(moves), 0) AS moves FROM balances;
	-- an error where the view is not what the log says, in one snapshot
	CREATE FUNCTION check_total() RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		seen record;
	BEGIN
		SELECT t.balance, t.moves, l.balance AS log_balance, l.moves AS log_moves INTO seen FROM total AS t,
			(SELECT coalesce(sum((payload->>'amount')::numeric), 0) AS balance, count(*) AS moves FROM cqrs_es.events WHERE event_type = 'moved') AS l;
		IF (seen.balance, seen.moves) IS DISTINCT FROM (seen.log_balance, seen.log_moves) THEN
			RAISE EXCEPTION 'a reader saw %', seen;
		END IF;
	END $$;
	-- of an asynchronous one: each account is as it was after so many of its events, and nothing is taken back that was seen before
	CREATE FUNCTION check_accounts() RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		seen record;
	BEGIN
		SELECT sum(b.moves) AS moves, count(*) FILTER (WHERE b.balance IS DISTINCT FROM (SELECT sum((e.payload->>'amount')::numeric) FROM cqrs_es.events AS e
			WHERE e.aggregate_type = 'account' AND e.aggregate_id = b.account AND e.tenant_id = '' AND e.sequence <= b.moves)) AS wrong INTO seen FROM balances AS b;
		IF seen.wrong > 0 OR seen.moves < coalesce(nullif(current_setting('test.seen', true), ''), '0')::bigint THEN
			RAISE EXCEPTION 'a reader saw %, after %', seen, current_setting('test.seen', true);
		END IF;
		PERFORM set_config('test.seen', seen.moves::text, false);
	END $$;
	CREATE FUNCTION move() RETURNS void LANGUAGE sql AS
		$$SELECT cqrs_es.append_event('account', (random() * 20)::int::text, 'moved', jsonb_build_object('amount', (random() * 100)::int))$$;
	CREATE TABLE seen (reads bigint NOT NULL);
	SELECT move() FROM generate_series(1, 200);
});

# What clients do, over and over, until the end.
my %scripts = (
	write => q{SELECT move();},
	many => qq{BEGIN;\nSELECT move();\nSELECT move();\n\\sleep 2 ms\nSELECT move();\nCOMMIT;},
	undo => qq{BEGIN;\nSELECT move();\nSELECT move();\nROLLBACK;},
	write_and_read => qq{BEGIN;\nSELECT move();\nSELECT check_total();\nCOMMIT;},
	read_and_write => qq{BEGIN;\nSELECT check_total();\n\\sleep 1 ms\nSELECT move();\nCOMMIT;},
	read => q{SELECT check_total();},
	read_often => qq{BEGIN;\nSELECT check_total();\n\\sleep 5 ms\nSELECT check_total();\nCOMMIT;},
	accounts => q{SELECT check_accounts();},
	write_and_accounts => qq{BEGIN;\nSELECT move();\nSELECT check_accounts();\nCOMMIT;},
	run => q{CALL cqrs_es.run_projections(timeout => '300 ms');},
	# an old snapshot, and the view for the first time
	old_snapshot => qq{BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM seen;\n\\sleep 20 ms\nSELECT check_total();\nCOMMIT;});
my $dir = PostgreSQL::Test::Utils::tempdir;
append_to_file("$dir/$_.sql", "$scripts{$_}\n\\sleep 3 ms\n") foreach keys %scripts;

my %clients;
sub start_clients
{
	my (@names) = @_;
	foreach my $name (@names)
	{
		my $client = $clients{$name} = { out => '', err => '' };
		my $sessions = $name eq 'run' ? 2 : 1;
		$client->{run} = IPC::Run::start([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', $sessions, '-j', 1, '-T', 600, '--max-tries=100', '-f', "$dir/$name.sql", 'postgres' ],
			'>', \$client->{out}, '2>', \$client->{err});
	}
	return;
}

# All of them have been there all the time, and none has seen anything that is not right.
sub stop_clients
{
	my ($what) = @_;
	foreach my $name (sort keys %clients)
	{
		my $client = $clients{$name};
		$client->{run}->pump_nb;
		ok($client->{run}->pumpable, "$what: $name") or diag($client->{err});
		$client->{run}->signal('TERM');
		eval { $client->{run}->finish };
		unlike($client->{err}, qr/a reader saw|deadlock|does not exist|denied|ERROR/, "$what: $name has seen nothing else");
	}
	%clients = ();
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'});
	return;
}

# A table of another shape and its projection, not filled yet.
my $last = 0;
sub create_next
{
	my ($handler, $mode) = @_;
	$mode //= 'sync';
	my $name = 'b' . ++$last;
	my @columns = ("moves bigint NOT NULL", "balance numeric NOT NULL", "account text PRIMARY KEY", "note$last text");
	push @columns, shift @columns foreach 1 .. $last % 4;
	my $columns = join ', ', @columns;
	$handler //= qq{INSERT INTO $name (account, balance, moves) VALUES (event.aggregate_id, (event.payload->>'amount')::numeric, 1)
		ON CONFLICT (account) DO UPDATE SET balance = $name.balance + excluded.balance, moves = $name.moves + 1};
	$handler =~ s/TABLE/$name/g;
	$node->safe_psql('postgres', qq{CREATE TABLE $name ($columns);
		SELECT cqrs_es.create_projection('$name', '{account}', '{$name}', backfill => true, mode => '$mode');
		SELECT cqrs_es.define_handler('$name', 'moved', \$\$$handler\$\$);});
	return $name;
}
# Among clients who do nothing but read and append, or append and read, in one transaction, the moment may be long in coming.
sub promote { my ($new, $old) = @_; return $node->psql('postgres', "SET lock_timeout = '300s'; SELECT cqrs_es.promote_projection('$new', '$old', '{balances}')"); }
sub state_of { my ($name) = @_; return $node->safe_psql('postgres', "SELECT state FROM cqrs_es.projection_status WHERE name = '$name'"); }
sub reads { return $node->safe_psql('postgres', q{SELECT string_agg(DISTINCT d.refobjid::regclass::text, ' ') FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
	WHERE r.ev_class = 'balances'::regclass AND d.deptype = 'n' AND d.classid = 'pg_rewrite'::regclass AND d.refobjid <> r.ev_class}); }

# from one that is filled in one of several ways, and not live yet
start_clients(qw(write many undo write_and_read read_and_write read read_often));
my $now = 'b0';
foreach my $round (1 .. $rounds)
{
	my $next = create_next();
	$node->safe_psql('postgres', $round % 3 == 1 ? "SELECT cqrs_es.resume_projection('$next'); SELECT cqrs_es.pause_projection('$next')"
		: $round % 3 == 2 ? "CALL cqrs_es.resume_in_portions('$next', 100)" : 'SELECT') ;
	my ($rc, $out, $err) = promote($next, $now);
	is($rc, 0, "round $round: $next takes the place of $now") or diag($err);
	is(reads(), $next, 'the view reads it');
	is(join(' ', state_of($now), state_of($next)), 'paused live', 'one of them is live');
	$node->safe_psql('postgres', "SELECT cqrs_es.drop_projection('$now'); DROP TABLE $now");
	$now = $next;
	# a handler that fails for the newest events only: nothing happens
	my $broken = create_next(q{INSERT INTO TABLE (account, balance, moves) VALUES (event.aggregate_id, 1 / (event.global_position < } .
		$node->safe_psql('postgres', 'SELECT last_value FROM cqrs_es.events_global_position_seq') . q{)::int, 1) ON CONFLICT (account) DO NOTHING});
	($rc, $out, $err) = promote($broken, $now);
	like($err, qr/projection "$broken" failed/, 'one whose handler fails does not');
	is(reads(), $now, 'the view is as it was');
	is(join(' ', state_of($now), state_of($broken)), 'live paused', 'so are the projections');
	$node->safe_psql('postgres', "SELECT cqrs_es.drop_projection('$broken'); DROP TABLE $broken");
}
stop_clients('not live before');

# from one that is live: snapshots that are older than the promotion see what they should, too
start_clients(qw(write many write_and_read read_and_write read old_snapshot));
foreach my $round (1 .. $rounds)
{
	my $next = create_next();
	$node->safe_psql('postgres', "SELECT cqrs_es.resume_projection('$next')");
	my ($rc, $out, $err) = promote($next, $now);
	is($rc, 0, "round $round: $next, which is live, takes the place of $now") or diag($err);
	is(reads(), $next, 'the view reads it');
	# and back and forth
	$node->safe_psql('postgres', "SELECT cqrs_es.resume_projection('$now')");
	($rc, $out, $err) = promote($now, $next);
	is($rc, 0, 'and back') or diag($err);
	$node->safe_psql('postgres', "SELECT cqrs_es.drop_projection('$next'); DROP TABLE $next");
}
stop_clients('live before');
is($node->safe_psql('postgres', 'SELECT check_total()'), '', 'at the end the view is what the log says');

# from and to asynchronous ones, which two runners run all the time
$node->safe_psql('postgres', "SELECT cqrs_es.alter_projection('$now', mode => 'async')");
start_clients(qw(write many undo accounts write_and_accounts run));
foreach my $round (1 .. $rounds)
{
	my $mode = $round % 2 ? 'async' : 'sync';
	my $next = create_next(undef, $mode);
	$node->safe_psql('postgres', "SELECT cqrs_es.resume_projection('$next')");
	my ($rc, $out, $err) = promote($next, $now);
	is($rc, 0, "round $round: $next, which is $mode, takes the place of $now, which is async") or diag($err);
	is(reads(), $next, 'the view reads it');
	is($node->safe_psql('postgres', "SELECT string_agg(mode || ' ' || state, ' ' ORDER BY name = '$next') FROM cqrs_es.projection_status WHERE name IN ('$now', '$next')"),
		'async paused async live', 'it is asynchronous');
	$node->safe_psql('postgres', "SELECT cqrs_es.drop_projection('$now'); DROP TABLE $now");
	$now = $next;
}
{
	my $next = create_next(undef, 'async');
	$node->safe_psql('postgres', "SELECT cqrs_es.resume_projection('$next'); SELECT cqrs_es.alter_projection('$now', mode => 'sync')");
	my ($rc, $out, $err) = promote($next, $now);
	is($rc, 0, "$next, which is async, takes the place of one that is sync") or diag($err);
	is($node->safe_psql('postgres', "SELECT mode || ' ' || state FROM cqrs_es.projection_status WHERE name = '$next'"), 'sync live', 'and is sync');
	$node->safe_psql('postgres', "SELECT cqrs_es.drop_projection('$now'); DROP TABLE $now");
	$now = $next;
}
stop_clients('asynchronous');
is($node->safe_psql('postgres', 'SELECT check_total(), check_accounts()'), '|', 'at the end the view is what the log says');

# Interrupted. Who holds it up: a statement of another session, which is in the way at one step of it.
$node->safe_psql('postgres', q{
	CREATE FUNCTION gate() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); END';
	CREATE EVENT TRIGGER gate ON ddl_command_end WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION gate();
	CREATE EVENT TRIGGER gate_before ON ddl_command_start WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION gate();
	ALTER EVENT TRIGGER gate_before DISABLE;
});
my $gated = create_next(q{INSERT INTO TABLE (account, balance, moves) SELECT event.aggregate_id, (event.payload->>'amount')::numeric, 1
	FROM (SELECT CASE WHEN event.global_position % 100 = 0 THEN pg_advisory_xact_lock_shared(2) END) AS gate
	ON CONFLICT (account) DO UPDATE SET balance = TABLE.balance + excluded.balance, moves = TABLE.moves + 1});
my %steps = (
	'1 the row' => "BEGIN; SELECT FROM cqrs_es.projections WHERE name = '$now' FOR UPDATE",
	'2 an event' => 'SELECT pg_advisory_lock(2)',
	'3 open appends' => 'BEGIN; SELECT move()',
	'4 a reader' => 'BEGIN; SELECT FROM balances',
	'5 a writer' => "BEGIN; LOCK TABLE $gated IN ROW EXCLUSIVE MODE",
	'6 the old table' => "BEGIN; LOCK TABLE $now IN ROW EXCLUSIVE MODE",
	'7 the view, replaced' => 'SELECT pg_advisory_lock(1)');
my $states = join ' ', state_of($now), state_of($gated);
my $definition = $node->safe_psql('postgres', q{SELECT pg_get_viewdef('balances'::regclass)});
foreach my $signal ('pg_cancel_backend', 'pg_terminate_backend', 'KILL')
{
	foreach my $step (sort keys %steps)
	{
		my $in = "$steps{$step};\n\\echo held\n";
		my ($held, $held_err) = ('', '');
		my $holder = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$held, '2>', \$held_err);
		$holder->pump until $held =~ /held/ || !$holder->pumpable;
		my $psql = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') . ' application_name=promoter', '-c',
			"SET lock_timeout = '100s'; SELECT cqrs_es.promote_projection('$gated', '$now', '{balances}')" ], '>', \my $out, '2>', \my $err);
		$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'promoter' AND state = 'active'
			AND (cardinality(pg_blocking_pids(pid)) > 0 OR wait_event IN ('Extension', 'CqrsEsPromotion', 'virtualxid')))});
		my $pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'promoter'});
		if ($signal eq 'KILL') { kill 'KILL', $pid; }
		else { $node->safe_psql('postgres', "SELECT $signal($pid)"); }
		$psql->finish;
		$holder->kill_kill;
		$node->poll_query_until('postgres', 'SELECT true');
		$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()});
		is(join(' ', state_of($now), state_of($gated)), $states, "$signal, held up by $step: the projections are as they were");
		is($node->safe_psql('postgres', q{SELECT pg_get_viewdef('balances'::regclass)}), $definition, 'so is the view');
		is($node->safe_psql('postgres', "SELECT (SELECT count(*) FROM $gated), check_total()"), '0|', 'and the tables');
		is($node->safe_psql('postgres', 'SELECT move(), check_total()'), '|', 'appends and readers go on');
	}
}

# a reader who stays: it gives up in time, and lets others through meanwhile
my $in = "BEGIN; SELECT FROM balances;\n\\echo held\n";
my $held = '';
my $holder = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$held);
$holder->pump until $held =~ /held/;
my ($rc, $out, $err) = $node->psql('postgres', "SET lock_timeout = '2s'; SELECT cqrs_es.promote_projection('$gated', '$now', '{balances}')");
like($err, qr/could not be locked in time/, 'a reader who stays: it gives up');
is(join(' ', state_of($now), state_of($gated)), $states, 'nothing has happened');
$holder->kill_kill;
($rc, $out, $err) = promote($gated, $now);
is($rc, 0, 'and at last it takes the place') or diag($err);
is(reads(), $gated, 'the view reads it');
is($node->safe_psql('postgres', 'SELECT move(), check_total()'), '|', 'and it is what the log says');

$node->stop;
done_testing();
