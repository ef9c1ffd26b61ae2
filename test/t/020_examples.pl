# The worked examples, each in a database of its own, and then what one session
# cannot show of them: races. (What they print is compared in
# test/regress/sql/example_*.sql; what must hold of it is in test/sql.)

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('examples');
$node->init;
$node->start;

foreach my $example ('todo', 'widget', 'circle', 'bank_account', 'order', 'saga', 'enrolment', 'decisions')
{
	$node->safe_psql('postgres', qq(CREATE DATABASE "$example"));
	$node->command_ok(
		[ 'psql', '-X', '-q', '-o', '/dev/null', '-d', $node->connstr($example), '-f', "$ENV{TESTDIR}/examples/$example.sql" ],
		"examples/$example.sql runs in an empty database");
	$node->safe_psql($example, q{
		CREATE TABLE outcomes (outcome text COLLATE "C");
		-- Send a command, and note what became of it.
		CREATE FUNCTION try(type text, id text, command text, payload jsonb, expected_version bigint DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM cqrs_es.execute_command(type, id, command, payload, expected_version);
			INSERT INTO outcomes VALUES ('done');
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO outcomes VALUES (SQLSTATE || ' ' || regexp_replace(SQLERRM, ' in stream.*', ''));
		END $$;
	});
}

# Todo: who loses the race decides again, and finds that there is nothing left to do.
is(race('todo', 'COMMIT', map { execute('todo', '0a8f8a52-0f6c-4d0e-9a44-000000000002', $_, '{"title": "x"}') } 'CompleteTodo', 'ChangeTitle'),
	'QE301 Cannot change title of completed todo', 'todo: a title is not changed behind a completion');

# Widget: who loses the race decides again; when no try is left, the conflict surfaces.
is(race('widget', 'COMMIT', map { execute('widget', '01H42K4ABWQ5V2XQEP3A48VE0Z', 'ChangeWidgetName', qq({"widget_name": "$_"})) } 'A', 'B'),
	'7', 'widget: the loser decides again, behind the winner');
is(race('widget', 'COMMIT', execute('widget', '01H42K4ABWQ5V2XQEP3A48VE0Z', 'ChangeWidgetName', '{"widget_name": "C"}'),
		'SET cqrs_es.command_retries = 0; ' . execute('widget', '01H42K4ABWQ5V2XQEP3A48VE0Z', 'ChangeWidgetName', '{"widget_name": "D"}')),
	'QE001 version conflict in stream "widget/01H42K4ABWQ5V2XQEP3A48VE0Z"', 'widget: without retries the conflict surfaces');
is($node->safe_psql('widget', "SELECT state->>'name', version FROM cqrs_es.load_aggregate('widget', '01H42K4ABWQ5V2XQEP3A48VE0Z')"),
	'C|8', 'widget: and nothing was written');

# Enrolment: the last place.
$node->safe_psql('enrolment', q{SELECT FROM cqrs_es.execute_boundary('enrolment', 'DefineCourse', '{"courseId": "race", "places": 1}')});
is(race('enrolment', 'COMMIT', map { qq{SELECT 1 FROM cqrs_es.execute_boundary('enrolment', 'Enrol', '{"courseId": "race", "studentId": "$_"}');} } 'a', 'b'),
	'QE301 All places are taken', 'enrolment: two want the last place, one is refused');

# Circle: two circles that want one name, two updates of one version.
is(race('circle', 'COMMIT', map { execute('circle', $_, 'CreateCircle', '{"circle_name": "Go", "capacity": 5}') } 'go-1', 'go-2'),
	'QE301 Circle name already exists', 'circle: two create a circle of the same name, one is refused');
is(race('circle', 'ROLLBACK', map { execute('circle', $_, 'CreateCircle', '{"circle_name": "Rowing", "capacity": 5}') } 'rowing-1', 'rowing-2'),
	'1', 'circle: the name is free if the first gives up');
is(race('circle', 'COMMIT', map { execute('circle', $_, 'UpdateCircle', '{"circle_name": "Sailing"}') } 'c-1', 'c-2'),
	'QE301 Circle name already exists', 'circle: two take the same name, one is refused');
is(race('circle', 'COMMIT', map { execute('circle', 'c-3', 'UpdateCircle', qq({"capacity": $_}), 1) } 11, 12),
	'QE001 version conflict in stream "circle/c-3"', 'circle: of two updates of one version one wins');
is($node->safe_psql('circle', "SELECT capacity, version FROM get_circle('c-3')"), '11|2', 'circle: the first');

# Order: two clients have read version 1.
my $tenant = "SET cqrs_es.tenant_id = 'TENANT003';";
$node->safe_psql('order', $tenant . execute('ORDER', '1', 'CreateOrder', '{"customerId": "C", "items": [{"quantity": 1, "price": 2}]}'));
is(race('order', 'COMMIT', $tenant . execute('ORDER', '1', 'AddOrderItem', '{"quantity": 1, "price": 3}', 1), $tenant . execute('ORDER', '1', 'PayOrder', '{}', 1)),
	'QE001 version conflict in stream "ORDER/1"', 'order: the second client gets the conflict');
is($node->safe_psql('order', $tenant . execute('ORDER', '1', 'PayOrder', '{}', 2)), '3', 'order: and writes version 3');
is($node->safe_psql('order', "SELECT status, total_amount, version FROM order_summary WHERE tenant_id = 'TENANT003'"),
	'paid|5|3', 'order: the summary shows both');
is($node->safe_psql('order', "$tenant SELECT what, version FROM order_audit ORDER BY version"),
	"OrderCreated|1\nOrderItemAdded|2\nOrderPaid|3", 'order: so does the audit');

# Many at once, with each way to insert.
foreach my $path ('off', 'on')
{
	local $ENV{PGOPTIONS} = "-c cqrs_es.force_generic_path=$path";

	storm('circle', q{
		\set circle random(1, 10)
		\set name random(1, 15)
		SELECT cqrs_es.stream_version('circle', 'storm-' || :circle) AS seen \gset
		SELECT try('circle', 'storm-' || :circle, CASE :seen WHEN 0 THEN 'CreateCircle' ELSE 'UpdateCircle' END,
			jsonb_build_object('circle_name', 'name ' || :name, 'capacity', 3 + :name), :seen);
	});
	is($node->safe_psql('circle', q{SELECT string_agg(DISTINCT outcome, ', ' ORDER BY outcome) FROM outcomes WHERE outcome <> 'QE001 version conflict'}),
		'QE301 Circle name already exists, done',
		"circle, path $path: done or refused, and never by the index");
	is($node->safe_psql('circle', differs(
				'SELECT id, name, capacity::int, version FROM circles',
				q{SELECT id, state->>'name', (state->>'capacity')::int, version FROM (SELECT DISTINCT aggregate_id FROM cqrs_es.events) AS e (id),
					cqrs_es.load_aggregate('circle', id)})),
		'0', "circle, path $path: the read table is what the events say");

	$node->safe_psql('bank_account', qq{
		TRUNCATE outcomes;
		SELECT cqrs_es.execute_command('account', 'storm-$path', 'OpenAccount', '{"account_id": "storm-$path"}');
	});
	storm('bank_account', qq{
		\\set cents random(1, 2000)
		SELECT try('account', 'storm-$path', (ARRAY['DepositMoney', 'WithdrawMoney', 'WithdrawMoney'])[1 + floor(random() * 3)],
			jsonb_build_object('amount', (:cents * 0.01)::numeric(10, 2), 'atm_id', 'ATM34f1ba3c'));
	});
	is($node->safe_psql('bank_account', q{SELECT string_agg(DISTINCT outcome, ', ' ORDER BY outcome) FROM outcomes}),
		'QE301 funds not available, done', "account, path $path: paid or refused, no race is seen");
	is($node->safe_psql('bank_account', qq{
			SELECT min(balance) >= 0, bool_and(balance = running), max(version) = count(*) FILTER (WHERE amount <> 0) + 1
			FROM (SELECT sequence AS version, amount, coalesce((payload->>'balance')::numeric, 0) AS balance, sum(amount) OVER (ORDER BY sequence) AS running
				FROM cqrs_es.events, LATERAL (SELECT CASE event_type WHEN 'AccountOpened' THEN 0 WHEN 'CustomerDepositedMoney' THEN 1 ELSE -1 END
					* coalesce((payload->>'amount')::numeric, 0)) AS a (amount)
				WHERE aggregate_id = 'storm-$path') AS e}),
		't|t|t', "account, path $path: never below zero, and to the cent the sum of what was moved");
	is($node->safe_psql('bank_account', qq{SELECT (SELECT count(*) FROM outcomes WHERE outcome = 'done') - count(*) + 1
			FROM cqrs_es.events WHERE aggregate_id = 'storm-$path'}),
		'0', "account, path $path: an event for each that was paid");
	is($node->safe_psql('bank_account', qq{SELECT a.version = l.version, (payload->>'balance')::numeric = (state->>'balance')::numeric,
				jsonb_array_length(payload->'ledger') = a.version - 1
			FROM account_query AS a, cqrs_es.load_aggregate('account', view_id) AS l WHERE view_id = 'storm-$path'}),
		't|t|t', "account, path $path: the view lost none");
}

# Decisions: sixteen want one name, and nobody books a room that is taken. Whoever executes a
# boundary loses no race; who reads and appends by himself tries again.
$node->safe_psql('decisions', q{
	CREATE PROCEDURE register(username text) LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM cqrs_es.execute_boundary('username', 'Register', jsonb_build_object('username', username));
		INSERT INTO outcomes VALUES ('registered');
	EXCEPTION WHEN OTHERS THEN
		INSERT INTO outcomes VALUES (SQLSTATE || ' ' || SQLERRM);
	END $$;
	CREATE PROCEDURE book(room text) LANGUAGE plpgsql AS $$
	DECLARE
		begins timestamp := '2031-01-01'::timestamp + random() * 100 * interval '1 hour';
	BEGIN
		PERFORM cqrs_es.execute_boundary('room', 'Book', jsonb_build_object('room', room, 'booking', gen_random_uuid(),
			'from', to_char(begins, 'YYYY-MM-DD HH24:MI'), 'to', to_char(begins + interval '1 hour', 'YYYY-MM-DD HH24:MI')));
		INSERT INTO outcomes VALUES ('done');
	EXCEPTION WHEN OTHERS THEN
		INSERT INTO outcomes VALUES (SQLSTATE || ' ' || SQLERRM);
	END $$;
	CREATE PROCEDURE issue() LANGUAGE plpgsql AS $$
	DECLARE
		last record;
	BEGIN
		LOOP
			SELECT coalesce(max(global_position), 0) AS after, coalesce(max((payload->>'number')::int), 0) + 1 AS number INTO last
			FROM cqrs_es.read_matching('[{"tags": ["invoices"]}]', backward => true, max_count => 1);
			BEGIN
				PERFORM FROM cqrs_es.append_to_streams(jsonb_build_array(jsonb_build_object('type', 'InvoiceIssued', 'payload', jsonb_build_object('number', last.number))),
					fail_if_events_match => '[{"tags": ["invoices"]}]', after_position => last.after);
				RETURN;
			EXCEPTION WHEN SQLSTATE 'QE005' THEN
				NULL;
			END;
		END LOOP;
	END $$;
});
storm('decisions', q{CALL register('one');}, 16, 1);
is($node->safe_psql('decisions', q{SELECT outcome, count(*) FROM outcomes GROUP BY 1 ORDER BY 1}), "QE301 user name is taken|15\nregistered|1",
	'decisions: of sixteen who want a name one gets it');
$node->safe_psql('decisions', 'TRUNCATE outcomes');
storm('decisions', q{
	\set room random(1, 3)
	CALL book('storm ' || :room);
});
is($node->safe_psql('decisions', q{SELECT string_agg(DISTINCT outcome, ', ' ORDER BY outcome) FROM outcomes}), 'QE301 the room is taken, done', 'decisions: a room is booked, or taken');
is($node->safe_psql('decisions', q{
	WITH b AS (SELECT payload->>'room' AS room, global_position, tsrange((payload->>'from')::timestamp, (payload->>'to')::timestamp) AS times FROM cqrs_es.events WHERE event_type = 'RoomBooked' AND payload->>'room' LIKE 'storm %')
	SELECT count(*) FROM b AS one JOIN b AS other ON one.room = other.room AND one.times && other.times AND one.global_position < other.global_position}),
	'0', 'decisions: no two bookings overlap');
storm('decisions', 'CALL issue();');
is($node->safe_psql('decisions', q{SELECT count(*) FROM (SELECT (payload->>'number')::int AS number, row_number() OVER (ORDER BY global_position) AS row
	FROM cqrs_es.events WHERE event_type = 'InvoiceIssued') AS i WHERE number <> row}), '0', 'decisions: invoice numbers are 1, 2, 3 in the order of the log');

$node->stop;
done_testing();

sub execute
{
	my ($type, $id, $command, $payload, $expected) = @_;
	$expected //= 'NULL';
	return "SELECT version FROM cqrs_es.execute_command('$type', '$id', '$command', '$payload', $expected);";
}

# One session sends the first command and waits with its end; a second one sends
# the second and must wait; then the first one ends. Returns what the second got.
sub race
{
	my ($database, $end, $first, $second) = @_;
	my @session = map { session($database) } 1 .. 2;

	ask($session[0], "BEGIN; $first");
	send_to($session[1], $second);
	$node->poll_query_until($database,
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
	  or die 'the second session does not wait';
	ask($session[0], "$end;");
	my $answer = answer($session[1]);
	foreach my $session (@session) { $session->{in} .= "\\q\n"; $session->{psql}->finish; }
	return $answer;
}

sub session
{
	my ($database) = @_;
	my $session = { in => '', out => '' };
	$session->{psql} = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr($database) ],
		'<', \$session->{in}, '>', \$session->{out}, '2>', '/dev/null', IPC::Run::timeout(60));
	return $session;
}

sub send_to
{
	my ($session, $sql) = @_;
	$session->{out} = '';
	$session->{in} .= "$sql\n\\if :ERROR\n\\echo :SQLSTATE :LAST_ERROR_MESSAGE\n\\endif\n\\echo END\n";
	$session->{psql}->pump while length $session->{in};
}

sub answer
{
	my ($session) = @_;
	$session->{psql}->pump until $session->{out} =~ /^END$/m;
	return $session->{out} =~ s/\n?END\n//r;
}

sub ask
{
	send_to(@_);
	return answer($_[0]);
}

# Many sessions run the pgbench script, and none of them fails.
sub storm
{
	my ($database, $script, $clients, $transactions) = (@_, 8, 100);
	my $file = $node->basedir . '/storm.sql';
	append_to_file($file, $script);
	$node->command_checks_all(
		[ 'pgbench', '-n', '-c', $clients, '-j', 2, '-t', $transactions, '-f', $file, $node->connstr($database) ],
		0,
		[ qr{actually processed: @{[ $clients * $transactions ]}/@{[ $clients * $transactions ]}} ],
		[ qr/^((?!ERROR).)*$/s ],
		"$database: $clients sessions at once");
	unlink $file;
}

# How many rows are in one of the two queries' results only.
sub differs
{
	my ($one, $other) = @_;
	return "SELECT count(*) FROM (($one EXCEPT ALL $other) UNION ALL ($other EXCEPT ALL $one)) AS d";
}
