
# A front with PL/Proxy and two servers behind it, each of which keeps half of the shards: a call
# goes where its stream is, tenant and context go with it and stay with nobody, a conflict
# costs no connection. Readers of both logs at once miss, double and overtake nothing beside
# writers that commit, roll back, prepare and sleep. A server that is killed in the middle, and a shard that
# moves in the middle, lose and double nothing of what is sent again with its id.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use constant SHARDS => 8;
use constant WRITERS => 3;			# through the front, and so many at each server
use constant LOAD_SECONDS => 4;
use constant SENDERS => 4;
use constant EVENTS => 300;			# of each of these

chomp(my $sharedir = `'$ENV{PG_CONFIG}' --sharedir`);
skip_everything('PL/Proxy is not installed (Debian: postgresql-15-plproxy, or that of another version)') if !-f "$sharedir/extension/plproxy.control";

my $scripts = PostgreSQL::Test::Utils::tempdir;
my $seed = srand();
note("seed $seed");

# The servers: each has the whole extension, and a number of its own.
my @backs = map { server("back$_", "cqrs_es.node_id = " . ($_ + 1) . "\nmax_prepared_transactions = 20\nlog_statement = none") } 0, 1;
foreach my $back (@backs)
{
	$back->safe_psql('postgres', q{
		CREATE EXTENSION cqrs_es;
		CREATE ROLE front LOGIN;
		CREATE ROLE acme LOGIN;
		ALTER ROLE acme SET cqrs_es.tenant_id = 'acme';
		GRANT USAGE ON SCHEMA cqrs_es TO front, acme;
		GRANT SELECT, INSERT ON cqrs_es.events TO front, acme;
		GRANT EXECUTE ON FUNCTION cqrs_es.tenants, cqrs_es.close_stream, cqrs_es.reopen_stream TO front;
		GRANT SET ON PARAMETER cqrs_es.tenant_id TO front;
		SELECT cqrs_es.create_aggregate('account', initial_state => '{"balance": 0}');
		SELECT cqrs_es.define_reducer('account', 'Deposited', '[{"op": "increment", "path": "/balance", "from": "/amount"}]');
		SELECT cqrs_es.define_command('account', 'Deposit', $$
			CASE WHEN (command->>'amount')::int < 0 THEN cqrs_es.reject('less than nothing', code => 'NEGATIVE')
				ELSE jsonb_build_object('type', 'Deposited', 'payload', command) END $$);
		SELECT cqrs_es.create_subscription('all', consumer_role => 'front');
		CREATE TABLE balances (account text PRIMARY KEY, balance bigint);
		SELECT cqrs_es.create_projection('balances', aggregate_types => '{account}', read_models => '{balances}');
		SELECT cqrs_es.define_handler('balances', 'Deposited', 'INSERT INTO balances VALUES (event.aggregate_id, (event.payload->>''amount'')::int)
			ON CONFLICT (account) DO UPDATE SET balance = balances.balance + excluded.balance');
	});
}

# The front has no events, and need not have the extension.
my $front = server('front', '');
$front->safe_psql('postgres', q{
	CREATE EXTENSION plproxy;
	CREATE ROLE front;
	CREATE ROLE acme;
	CREATE TABLE got (reader text, nr bigserial, global_position bigint, event_id uuid);
	CREATE TABLE writing ();
	GRANT ALL ON got, got_nr_seq TO front;
	CREATE SERVER shop FOREIGN DATA WRAPPER plproxy OPTIONS (} . join(', ', map { sprintf q(p%d '%s'), $_, connection($_ % 2) } 0 .. SHARDS - 1) . q{);
	CREATE USER MAPPING FOR front SERVER shop OPTIONS (user 'front');
	CREATE USER MAPPING FOR acme SERVER shop OPTIONS (user 'acme');
	GRANT USAGE ON FOREIGN SERVER shop TO front, acme;
});
$front->psql('postgres', $backs[0]->safe_psql('postgres', q{SELECT cqrs_es.proxy_functions('shop')}), on_error_die => 1);
$front->safe_psql('postgres', 'GRANT USAGE ON SCHEMA cqrs_es TO front, acme');
keep(0, grep { $_ % 2 == 0 } 0 .. SHARDS - 1);
keep(1, grep { $_ % 2 == 1 } 0 .. SHARDS - 1);

# 1. Each function, by one stream here and one there.

my @streams = map { my $back = $_; (grep { shard($_) % 2 == $back } 1 .. 20)[0] } 0, 1;
foreach my $back (0, 1)
{
	my $id = $streams[$back];
	is(front("SELECT version, global_position >> 44 FROM cqrs_es.append_event('account', '$id', 'Deposited', '{\"amount\": 1}')"), '1|' . ($back + 1), "stream $id is appended to at server $back");
	is(front("SELECT version FROM cqrs_es.append_events('account', '$id', '[{\"type\": \"Deposited\", \"payload\": {\"amount\": 2}}]', 1)"), '2', 'a batch');
	is(front("SELECT version FROM cqrs_es.append_event_arrays('account', '$id', '{Deposited,Deposited}', ARRAY['{\"amount\": 3}', '{\"amount\": 4}']::jsonb[], tags => ARRAY['[\"red\"]', NULL]::jsonb[])"), '4', 'arrays');
	is(front("SELECT outcome, version FROM cqrs_es.try_append_event('account', '$id', 'Deposited', '{\"amount\": 5}', 4, tags => '{blue}')"), 'appended|5', 'one that tells');
	is(front("SELECT outcome, version FROM cqrs_es.try_append_events('account', '$id', '[{\"type\": \"Deposited\", \"payload\": {\"amount\": 9}}]', 4)"), 'conflict|5', 'of a conflict');
	is(front("SELECT outcome, version FROM cqrs_es.try_append_event_arrays('account', '$id', '{Deposited}', ARRAY['{\"amount\": 9}']::jsonb[], 4)"), 'conflict|5', 'too');
	is(front("SELECT version, state FROM cqrs_es.execute_command('account', '$id', 'Deposit', '{\"amount\": 6}')"), '6|{"balance": 21}', 'a command');
	is(front("SELECT outcome, version, state, message, code FROM cqrs_es.try_execute_command('account', '$id', 'Deposit', '{\"amount\": -1}')"), 'rejected|6|{"balance": 21}|less than nothing|NEGATIVE', 'one that is rejected');
	is(front("SELECT cqrs_es.stream_version('account', '$id'), cqrs_es.aggregate_state('account', '$id'), cqrs_es.aggregate_state('account', '$id', 2)"), '6|{"balance": 21}|{"balance": 3}', 'version and state');
	is(front("SELECT * FROM cqrs_es.load_aggregate('account', '$id')"), '6|{"balance": 21}', 'both');
	is(front("SELECT string_agg(sequence || ':' || payload, ' ') FROM cqrs_es.read_stream('account', '$id', 2, 2)"), '2:{"amount": 2} 3:{"amount": 3}', 'events');
	is(front("SELECT string_agg(state->>'balance', ' ') FROM cqrs_es.replay('account', '$id')"), '1 3 6 10 15 21', 'states');
	is(front("SELECT cqrs_es.take_snapshot('account', '$id')"), '6', 'a snapshot');
	is($backs[$back]->safe_psql('postgres', "SELECT count(*) FROM cqrs_es.events WHERE aggregate_id = '$id'") . $backs[1 - $back]->safe_psql('postgres', "SELECT count(*) FROM cqrs_es.events WHERE aggregate_id = '$id'"), '60', 'all of it is at one server');
	is($backs[$back]->safe_psql('postgres', "SELECT balance FROM balances WHERE account = '$id'"), '21', 'which has its read model');

	my $shard = shard($id);
	is(front("SELECT count(*), min(global_position >> 44), max(global_position >> 44) FROM cqrs_es.read_all($shard)"), '6|' . ($back + 1) . '|' . ($back + 1), 'the log of the server of a shard');
	is(front("SELECT string_agg(sequence::text, ' ') FROM cqrs_es.read_matching($shard, '[{\"tags\": [\"red\"]}, {\"tags\": [\"blue\"]}]')"), '3 5', 'by tags');
	is(front("SELECT count(*), max(read_to) = cqrs_es.settled_position($shard) FROM cqrs_es.read_page($shard)"), '6|t', 'with the position to go on after');
	is(front("SELECT cqrs_es.wait_for_position($shard, cqrs_es.settled_position($shard), '1 s'), cqrs_es.log_id($shard) = '" . $backs[$back]->safe_psql('postgres', 'SELECT cqrs_es.log_id()') . "'"), 't|t', 'which log it is');
	my ($batch, $position) = split /\|/, front("SELECT batch, max(global_position) FROM cqrs_es.receive_events($shard, 'all', 'c', 4) GROUP BY 1");
	is(front("SELECT cqrs_es.extend_lease($shard, '$batch') > now(), cqrs_es.nack_event($shard, '$batch', $position, 'no', '0 s')"), 't|retry', 'a consumer fails');
	is(front("SELECT cqrs_es.ack_events($shard, '$batch')"), '3', 'and has done the rest');
	is(front("SELECT count(*) FROM cqrs_es.receive_events($shard, 'all', 'c', 4)"), '1', 'what failed comes again');
	front("SELECT cqrs_es.release_batch($shard, batch) FROM cqrs_es.receive_events($shard, 'all', 'c', resume => true) LIMIT 1");
}
is(front('SELECT count(*), count(DISTINCT global_position), count(DISTINCT global_position >> 44) FROM cqrs_es.read_shards()'), '12|12|2', 'all logs at once, each once');
is(front(q{SELECT cqrs_es.merge_positions('{1,17592186044417}', ARRAY[(1::bigint << 44) + 7, NULL, (5::bigint << 44) + 1])}), '{1,17592186044423,87960930222081}', 'vectors of positions are merged');
is(front(q{SELECT count(*) FROM cqrs_es.read_shards((SELECT array_agg(DISTINCT cqrs_es.settled_position(s)) FROM generate_series(0, 1) AS s)) WHERE event_id IS NOT NULL}), '0', 'from a vector on');
is(front(q{SELECT string_agg(outcome, ' ') FROM (SELECT (cqrs_es.try_append_event('account', 'Ünï ''"\\ ' || i, 'e', '{"\u00e9": "ü"}', 0)).outcome FROM generate_series(1, 3) AS i) AS s}), 'appended appended appended', 'ids are any text');
is(front(q{SELECT count(*) FROM generate_series(1, 3) AS i, cqrs_es.read_stream('account', 'Ünï ''"\\ ' || i) WHERE payload = '{"é": "ü"}'}), '3', 'as payloads');
is(front(q{SELECT cqrs_es.close_stream('account', 'Ünï ''"\\ 1', 'done') > 0}), 't', 'a stream is closed');
$front->psql('postgres', q{\set VERBOSITY sqlstate
	SET ROLE front; SELECT FROM cqrs_es.append_event('account', 'Ünï ''"\\ 1', 'e', '{}');
	SELECT cqrs_es.redact_stream('account', 'Ünï ''"\\ 1', '{/payload}', 'asked for it')}, stderr => \my $refusals, on_error_stop => 0);
like($refusals, qr/ERROR:  QE006.*ERROR:  42501/s, 'and takes nothing; redacting is for whom it was granted to at the servers');
is(front(q{SELECT cqrs_es.reopen_stream('account', 'Ünï ''"\\ 1', 'on') > 0, outcome FROM cqrs_es.try_append_event('account', 'Ünï ''"\\ 2', 'e', '{}')}), 't|appended', 'it is opened again');

# 2. What an error costs, and what a conflict does not.

{
	my $sql = "SELECT outcome, version FROM cqrs_es.try_append_event('account', '$streams[0]', 'Deposited', '{\"amount\": 9}', 0)";
	my $conflict = "SELECT cqrs_es.append_event('account', '$streams[0]', 'Deposited', '{\"amount\": 9}', 0)";
	my $reject = "SELECT outcome FROM cqrs_es.try_execute_command('account', '$streams[0]', 'Deposit', '{\"amount\": -1}')";
	my ($stdout, $stderr);
	$front->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE front;\n$sql;\n$reject;\n$sql;", stdout => \$stdout, stderr => \$stderr);
	is("$stdout$stderr", "conflict|6\nrejected\nconflict|6", 'conflicts and refusals are rows, and keep the connection');
	$front->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE front;\n$conflict;\n$sql;", stdout => \$stdout, stderr => \$stderr, on_error_stop => 0);
	like($stderr, qr/ERROR:  QE001: .*version conflict in stream "account\/$streams[0]".*Expected that the stream does not exist \(version 0\), but it is at version 6.*dropping stale conn/s,
		'an error has its SQLSTATE and detail, and costs the connection');
	is($stdout, 'conflict|6', 'the next call gets another');
}

# 3. Tenant and context.

is(front(qq{BEGIN; SET LOCAL cqrs_es.tenant_id = 'acme'; SET LOCAL cqrs_es.context = '{"user": "ada"}';
	SELECT version FROM cqrs_es.append_event('account', '$streams[0]', 'e', '{}');
	SELECT tenant_id, metadata FROM cqrs_es.read_stream('account', '$streams[0]'); COMMIT;
	SELECT DISTINCT tenant_id, metadata FROM cqrs_es.read_stream('account', '$streams[0]') WHERE event_type = 'Deposited' AND NOT metadata ? 'command_id';
	SELECT version FROM cqrs_es.append_event('account', '$streams[0]', 'e', '{}');
	SELECT tenant_id, metadata FROM cqrs_es.read_stream('account', '$streams[0]', 7)}),
	"1\nacme|{\"user\": \"ada\"}\n|{}\n7\n|{}", 'what is SET LOCAL at the front goes with the call, and is over with it');
is(front(qq{SELECT version FROM cqrs_es.append_event('account', '$streams[0]', 'e', '{}', tenant_id => 'acme', context => '{"user": "bob"}');
	SELECT metadata FROM cqrs_es.read_stream('account', '$streams[0]', 2, tenant_id => 'acme');
	SELECT cqrs_es.stream_version('account', '$streams[0]', tenant_id => 'globex'), cqrs_es.stream_version('account', '$streams[0]')}), "2\n{\"user\": \"bob\"}\n0|7", 'or as arguments');
is(front("SELECT count(*) FROM cqrs_es.read_shards(tenant_id => 'acme') WHERE event_id IS NOT NULL; SELECT count(*) FROM cqrs_es.read_all(0, tenant_id => 'acme'); SELECT count(*) FROM cqrs_es.read_all(0, all_tenants => true) WHERE tenant_id = 'acme'"), "2\n2\n2", 'the log of a tenant');
is(front(qq{SELECT cqrs_es.stream_version('account', '$streams[0]'), cqrs_es.stream_version('account', '$streams[1]')}, 'acme'), '2|0', 'a role that is bound to its tenant sees that');
is(front(qq{SELECT version FROM cqrs_es.append_event('account', '$streams[1]', 'e', '{}', tenant_id => 'acme')}, 'acme'), '1', 'and may name it');
foreach my $other ('globex', '')
{
	my ($rc, $stdout, $stderr) = $front->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE acme;\nSELECT cqrs_es.stream_version('account', '$streams[0]', tenant_id => '$other')");
	like($stderr, qr/ERROR:  42501: .*permission denied to set parameter "cqrs_es.tenant_id"/, "but no other: '$other'");
}
{
	my ($rc, $stdout, $stderr) = $front->psql('postgres', "CREATE ROLE stranger; SET ROLE stranger; SELECT cqrs_es.stream_version('account', '1')");
	like($stderr, qr/permission denied for schema cqrs_es/, 'the front\'s schema is closed');
	($rc, $stdout, $stderr) = $front->psql('postgres', "GRANT USAGE ON SCHEMA cqrs_es TO stranger; SET ROLE stranger; SELECT cqrs_es.stream_version('account', '1')");
	like($stderr, qr/permission denied for foreign server shop/, 'and so are the servers');
}

# 4. Servers in the wrong order begin no stream a second time.

$front->safe_psql('postgres', sprintf q{ALTER SERVER shop OPTIONS (SET p%d '%s', SET p%d '%s')}, shard($streams[0]), connection(1), shard($streams[1]), connection(0));
foreach my $id (@streams)
{
	my ($rc, $stdout, $stderr) = $front->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE front;\nSELECT cqrs_es.append_event('account', '$id', 'e', '{}')");
	like($stderr, qr/ERROR:  QE605: .*stream "account\/$id" belongs to another server/, 'a stream is refused where it does not belong');
}
$front->safe_psql('postgres', sprintf q{ALTER SERVER shop OPTIONS (SET p%d '%s', SET p%d '%s')}, shard($streams[0]), connection(0), shard($streams[1]), connection(1));
is(front("SELECT cqrs_es.stream_version('account', '$_')"), $_ == $streams[0] ? '7' : '6', 'nothing has come of it') foreach @streams;

# 5. Who is quicker: as many sessions as there are want each version.

$front->safe_psql('postgres', q{
	CREATE TABLE won (version bigint, conflicts bigint);
	GRANT ALL ON won TO front;
	CREATE PROCEDURE race(n int) LANGUAGE plpgsql AS $$
	DECLARE
		at bigint := 0;
		answer record;
		conflicts bigint := 0;
	BEGIN
		WHILE at < n LOOP
			SELECT * INTO answer FROM cqrs_es.try_append_event('race', 'r', 'e', '{}', at);
			IF answer.outcome = 'appended' THEN
				INSERT INTO won VALUES (answer.version, conflicts);
				COMMIT;
			ELSE
				conflicts := conflicts + 1;
			END IF;
			at := answer.version;
		END LOOP;
	END $$;
});
finish('a racer', map { start("race$_", 'CALL race(1500)') } 1 .. 4);
is($front->safe_psql('postgres', 'SELECT count(*), count(DISTINCT version), min(version) FROM won'), front("SELECT cqrs_es.stream_version('race', 'r')") =~ s/(.*)/$1|$1|1/r, 'each version has been won once');
cmp_ok($front->safe_psql('postgres', 'SELECT sum(conflicts) FROM won'), '>', 0, 'and lost now and then');

# 6. Readers of all logs beside writers at the front and at the servers.

$front->safe_psql('postgres', q{
	CREATE PROCEDURE tail(name text) LANGUAGE plpgsql AS $$
	DECLARE
		at bigint[] := '{}';
		reached bigint[];
		read int;
		over boolean;
	BEGIN
		LOOP
			over := to_regclass('writing') IS NULL;
			WITH page AS MATERIALIZED (SELECT * FROM cqrs_es.read_shards(at, (ARRAY[1, 10, 1000])[1 + floor(random() * 3)], all_tenants => true)),
			kept AS (INSERT INTO got (reader, global_position, event_id) SELECT name, global_position, event_id FROM page WHERE event_id IS NOT NULL RETURNING 1)
			SELECT array_agg(read_to), (SELECT count(*) FROM kept) INTO reached, read FROM page;
			at := cqrs_es.merge_positions(at, reached);
			EXIT WHEN over AND read = 0;
			COMMIT;
		END LOOP;
	END $$;
	CREATE PROCEDURE write(w int, seconds float8) LANGUAGE plpgsql AS $$
	DECLARE
		until timestamptz := clock_timestamp() + seconds * interval '1 s';
		id text;
	BEGIN
		WHILE clock_timestamp() < until LOOP
			id := 't' || floor(random() * 20);
			CASE floor(random() * 5)
				WHEN 0 THEN PERFORM cqrs_es.append_events('torture', id, '[{"type": "e"}, {"type": "e"}, {"type": "e"}]');
				WHEN 1 THEN PERFORM cqrs_es.try_append_event('torture', id, 'e', '{}', floor(random() * 100)::int);
				WHEN 2 THEN PERFORM cqrs_es.execute_command('account', id, 'Deposit', '{"amount": 1}');
				-- it is there, whatever becomes of the front's transaction
				WHEN 3 THEN PERFORM cqrs_es.append_event('torture', id, 'e', '{}'); ROLLBACK;
				ELSE PERFORM cqrs_es.append_event('torture', id, 'e', '{}');
			END CASE;
		END LOOP;
	END $$;
});
my $load = LOAD_SECONDS;
my @readers = map { start("reader$_", "CALL tail('reader $_')") } 1, 2;
my @writers = map { start("writer$_", "CALL write($_, $load)") } 1 .. WRITERS;
foreach my $back (0, 1)
{
	push @writers, map { start("own$back$_", own_writes($back, $_), $backs[$back]) } 1 .. WRITERS;
}
finish('a writer', @writers);
$front->safe_psql('postgres', 'DROP TABLE writing');
finish('a reader', @readers);
judge_readers();

# 7. A server is killed under senders that send again what was not answered.

$front->safe_psql('postgres', q{
	CREATE TABLE sent (sender int, n int, event_id uuid, tries int, outcome text);
	GRANT ALL ON sent TO front;
	CREATE PROCEDURE send(sender int, events int) LANGUAGE plpgsql AS $$
	DECLARE
		id uuid;
		answer record;
		tries int;
	BEGIN
		FOR n IN 1 .. events LOOP
			id := gen_random_uuid();
			tries := 0;
			LOOP
				tries := tries + 1;
				BEGIN
					SELECT * INTO answer FROM cqrs_es.try_append_event('sent', 's' || sender || '-' || n % 8, 'e', jsonb_build_object('n', n), event_id => id);
					EXIT;
				EXCEPTION WHEN OTHERS THEN
					IF SQLSTATE = '22023' OR tries > 12000 THEN RAISE; END IF;
					PERFORM pg_sleep(0.01);
				END;
			END LOOP;
			INSERT INTO sent VALUES (sender, n, id, tries, answer.outcome);
			COMMIT;
		END LOOP;
	END $$;
});
foreach my $round (1, 2)
{
	my @senders = map { start("sender$round$_", "SET client_min_messages = error; CALL send($round$_, " . EVENTS . ')') } 1 .. SENDERS;
	$front->poll_query_until('postgres', "SELECT count(*) > 50 FROM sent WHERE sender / 10 = $round") or die;
	my $back = $backs[1];
	if ($round == 1)
	{
		# the front's other calls go on
		my ($postmaster) = split /\n/, slurp_file($back->data_dir . '/postmaster.pid');
		my @processes = ($postmaster, split /\n/, $back->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity'));
		$back->kill9;
		is(front("SELECT outcome FROM cqrs_es.try_append_event('account', '$streams[0]', 'e', '{}')"), 'appended', 'beside a server that is down the other one goes on');
		my ($rc, $stdout, $stderr) = $front->psql('postgres', "SET ROLE front; SELECT cqrs_es.append_event('account', '$streams[1]', 'e', '{}')");
		like($stderr, qr/ERROR/, 'what belongs to it is an error');
		start_again($back, @processes);
	}
	else
	{
		foreach my $kill (1 .. 5)
		{
			$back->safe_psql('postgres', q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'front'});
			usleep(50_000);
		}
	}
	finish('a sender', @senders);
}
judge_sent('killed');
cmp_ok($front->safe_psql('postgres', 'SELECT count(*) FROM sent WHERE tries > 1'), '>', 0, 'some were sent more than once');

# An answer that the front does not wait for: sent again it is there once.
{
	my $call = "SELECT outcome, version FROM cqrs_es.try_append_event('account', '$streams[0]', 'slow', '{}', event_id => '00000000-0000-7000-8000-000000000001')";
	my $version = front("SELECT cqrs_es.stream_version('account', '$streams[0]')") + 2;
	$backs[0]->safe_psql('postgres', "BEGIN; SELECT cqrs_es.append_event('account', '$streams[0]', 'e', '{}'); PREPARE TRANSACTION 'slow'");
	my ($rc, $stdout, $stderr) = $front->psql('postgres', "SET ROLE front; SET statement_timeout = '500ms'; $call");
	like($stderr, qr/ERROR: .*canceling statement due to statement timeout/, 'the front gives up');
	$backs[0]->safe_psql('postgres', q{COMMIT PREPARED 'slow'});
	like(front($call), qr/^(appended|repeated)\|$version$/, 'it is sent again');
	is(front($call), "repeated|$version", 'and there once');
}

# 8. A shard moves to the other server, under senders.

my $moved = shard('s31-1', 'sent');
my ($from, $to) = ($moved % 2, 1 - $moved % 2);
$backs[$to]->safe_psql('postgres', sprintf(q{
	CREATE EXTENSION postgres_fdw;
	CREATE SERVER old FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres');
	CREATE USER MAPPING FOR CURRENT_USER SERVER old;
	CREATE SCHEMA old;
	IMPORT FOREIGN SCHEMA cqrs_es LIMIT TO (events) FROM SERVER old INTO old;
	CREATE VIEW moving AS
		SELECT tenant_id, aggregate_type, aggregate_id, global_position AS position, event_type, event_version, event_id, payload, metadata, created_at
		FROM old.events WHERE cqrs_es.stream_hash(aggregate_type, aggregate_id) & %d = %d}, $backs[$from]->host, $backs[$from]->port, SHARDS - 1, $moved));
my @senders = map { start("sender3$_", "SET client_min_messages = error; CALL send(3$_, " . EVENTS . ')') } 1 .. SENDERS;
$front->poll_query_until('postgres', "SELECT count(*) > 50 FROM sent WHERE sender / 10 = 3") or die;
$backs[$to]->safe_psql('postgres', q{SELECT cqrs_es.import_events('moving')});
keep($from, grep { $_ % 2 == $from && $_ != $moved } 0 .. SHARDS - 1);
$backs[$to]->safe_psql('postgres', q{SELECT cqrs_es.import_events('moving')});
keep($to, $moved, grep { $_ % 2 == $to } 0 .. SHARDS - 1);
$front->safe_psql('postgres', sprintf q{ALTER SERVER shop OPTIONS (SET p%d '%s')}, $moved, connection($to));
finish('a sender', @senders);
judge_sent('moved');
is($backs[$_]->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.verify_log() WHERE problem IS NOT NULL}), '0', 'the log is whole') foreach 0, 1;
cmp_ok(front("SELECT count(DISTINCT global_position >> 44) FROM cqrs_es.read_stream('sent', 's31-1')"), '==', 1, 'a stream that has moved is all at one server');

# 9. What a server keeps is in its dump.

{
	my $back = $backs[$to];
	$back->safe_psql('postgres', 'CREATE DATABASE copy');
	$back->safe_psql('postgres', 'DROP VIEW moving; DROP SCHEMA old CASCADE; DROP EXTENSION postgres_fdw CASCADE');
	my $file = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
	$back->command_ok([ 'pg_dump', '-f', $file, $back->connstr('postgres') ], 'a server is dumped');
	$back->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $back->connstr('copy'), '-f', $file ], 'and restored');
	is($back->safe_psql('copy', 'SELECT cardinality(shards), shard_count FROM cqrs_es.kept_shards'), (SHARDS / 2 + 1) . '|' . SHARDS, 'it keeps the same shards');
	my ($other) = grep { my $shard = shard($_); $shard % 2 == $from && $shard != $moved } 1 .. 40;
	my ($rc, $stdout, $stderr) = $back->psql('copy', "\\set VERBOSITY verbose\nSELECT cqrs_es.routed_stream('account', '$other', NULL, NULL)");
	like($stderr, qr/QE605/, 'and refuses the others');
}

$_->stop foreach $front, @backs;
done_testing();

# An own server, with these settings.
sub server
{
	my ($name, $settings) = @_;
	my $server = PostgreSQL::Test::Cluster->new($name);
	$server->init;
	$server->append_conf('postgresql.conf', $settings);
	$server->start;
	return $server;
}

sub connection
{
	my ($back) = @_;
	return sprintf 'host=%s port=%s dbname=postgres', $backs[$back]->host, $backs[$back]->port;
}

sub keep
{
	my ($back, @shards) = @_;
	$backs[$back]->safe_psql('postgres', sprintf q{SELECT cqrs_es.keep_shards('{%s}', %d)}, join(',', @shards), SHARDS);
}

sub shard
{
	my ($id, $type) = @_;
	return $backs[0]->safe_psql('postgres', sprintf q{SELECT cqrs_es.stream_hash('%s', '%s') & %d}, $type // 'account', $id, SHARDS - 1);
}

# What the front answers.
sub front
{
	my ($sql, $role) = @_;
	return $front->safe_psql('postgres', 'SET ROLE ' . ($role // 'front') . ";\n$sql");
}

# A session beside us, at the front as the role of that name, or at a server.
sub start
{
	my ($name, $sql, $server) = @_;
	my $file = "$scripts/$name.sql";
	my %client = (name => $name, err => '');
	append_to_file($file, $server ? $sql : "SET ROLE front;\n$sql;\n");
	$client{run} = IPC::Run::start([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', ($server // $front)->connstr('postgres'), '-f', $file ],
		'<', \undef, '>', '/dev/null', '2>', \$client{err});
	return \%client;
}

# All of them come to their end without an error.
sub finish
{
	my ($what, @clients) = @_;
	$_->{run}->finish foreach @clients;
	is(join('', map { $_->{err} } @clients), '', "$what has no error");
}

# What a session at a server itself does meanwhile, with streams of its own kind.
sub own_writes
{
	my ($back, $w) = @_;
	my $sql = sprintf "SELECT clock_timestamp() + '%d s' AS deadline \\gset\n", LOAD_SECONDS;
	foreach my $i (1 .. 4000)
	{
		my @streams = sort { $a <=> $b } map { int(rand(10)) } 1, 2;
		my ($one, $two) = map { "SELECT FROM cqrs_es.append_event('own', 's$_', 'e', '{}');" } @streams;
		my $pause = sprintf 'SELECT FROM pg_sleep(%.4f);', rand(0.02);
		$sql .= ($one, "BEGIN; $one $pause $two COMMIT;", "BEGIN; $one $pause ROLLBACK;", "BEGIN; $one SAVEPOINT s; $two ROLLBACK TO s; $pause COMMIT;",
			"BEGIN; $one PREPARE TRANSACTION 'w$w-$i'; $pause COMMIT PREPARED 'w$w-$i';", "BEGIN; $one PREPARE TRANSACTION 'w$w-$i'; $pause ROLLBACK PREPARED 'w$w-$i';")[ rand(6) ];
		$sql .= "\nSELECT clock_timestamp() > :'deadline' AS done \\gset\n\\if :done\n\\q\n\\endif\n";
	}
	return $sql;
}

# Each reader has every event of both logs once, those of a server in their order.
sub judge_readers
{
	my $there = join ' ', sort map { split /\n/, $_->safe_psql('postgres', 'SELECT global_position FROM cqrs_es.events') } @backs;
	foreach my $reader (1, 2)
	{
		is(join(' ', sort split /\n/, $front->safe_psql('postgres', "SELECT global_position FROM got WHERE reader = 'reader $reader'")), $there, "reader $reader has every event once");
		is($front->safe_psql('postgres', "SELECT count(*) FROM (SELECT global_position < lag(global_position) OVER (PARTITION BY global_position >> 44 ORDER BY nr) AS back FROM got WHERE reader = 'reader $reader') AS g WHERE back"),
			'0', 'none behind a later one of its server');
	}
	cmp_ok(length($there), '>', 20_000, 'there was something to read');
}

# What was sent is in its stream once, in the order in which it was sent.
sub judge_sent
{
	my ($what) = @_;
	my $lost = $front->safe_psql('postgres', q{
		SET ROLE front;
		SELECT count(*) FROM (SELECT DISTINCT sender, n % 8 AS k FROM sent) AS streams,
			LATERAL (SELECT array_agg(event_id ORDER BY n) AS ids FROM sent WHERE sent.sender = streams.sender AND n % 8 = k) AS sent,
			LATERAL (SELECT array_agg(event_id ORDER BY sequence) AS ids FROM cqrs_es.read_stream('sent', 's' || sender || '-' || k)) AS stored
		WHERE sent.ids IS DISTINCT FROM stored.ids});
	is($lost, '0', "$what: every stream holds what was sent, once and in order");
}

# After a SIGKILL, when nothing of it is left.
sub start_again
{
	my ($server, @processes) = @_;
	for (1 .. 300) { last if !kill 0, @processes; usleep(100_000) }
	$server->start;
}

sub skip_everything
{
	my ($why) = @_;
  SKIP: { skip $why, 1 }
	done_testing();
	exit;
}
