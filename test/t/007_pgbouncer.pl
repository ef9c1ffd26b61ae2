
# Through PgBouncer in transaction mode, where a session is no longer one client:
# many clients over few server connections lose and double nothing, what is SET
# LOCAL stays in its transaction, and what is SET for the session does not; and
# batches of subscriptions belong to no session.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Clients qw(python_with_psycopg node_with_pg);

use constant SERVERS => 3;		# server connections of a pool
use constant CLIENTS => 20;
use constant TRANSACTIONS => 50;	# of each client
use constant CONSUMERS => 3;	# in each language
use constant EVENTS => 600;

# It stands in sbin, which is not in everybody's path.
$ENV{PATH} .= ':/usr/sbin';
my $version = eval { my $output; IPC::Run::run([ 'pgbouncer', '--version' ], '>&', \$output); $output } // '';
skip_everything('PgBouncer is not installed (Debian: pgbouncer)') if $version !~ s/^PgBouncer ((\d+)\.(\d+)).*/$1/s;
my $knows_prepared = $2 > 1 || $3 >= 21;
skip_everything('PgBouncer does not run as root') if $> == 0;

my $node = PostgreSQL::Test::Cluster->new('pooled');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION cqrs_es');
$node->safe_psql('postgres', slurp_file("$ENV{TESTDIR}/test/clients/account.sql"));
$node->safe_psql('postgres', q{
	CREATE TABLE balances (account text PRIMARY KEY, balance numeric NOT NULL, events bigint NOT NULL);
	SELECT cqrs_es.create_projection('balances');
	SELECT cqrs_es.define_handler('balances', 'Deposited', $$
		INSERT INTO balances VALUES (event.aggregate_id, (event.payload->>'amount')::numeric, 1)
		ON CONFLICT (account) DO UPDATE SET balance = balances.balance + excluded.balance, events = balances.events + 1$$);
	-- a command races with appends that take any version, on one hot stream
	ALTER ROLE shop SET cqrs_es.command_retries = 100;
});

my $directory = PostgreSQL::Test::Utils::tempdir();
my @consumers;
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $pgbouncer;

# 1. Load, in each way to send a statement.

start_pgbouncer();
load('simple');
load('extended');
SKIP:
{
	skip "PgBouncer $version knows nothing of prepared statements in transaction mode (1.21 does, with max_prepared_statements)", 5
	  if !$knows_prepared;
	start_pgbouncer('max_prepared_statements = 100');
	load('prepared');
}

# Without that, a statement that one client prepared is met, or missed, by
# another.  Clients see an error, but nothing that they were told of is lost.
# (A client that fails in a transaction would keep its server connection.)
{
	start_pgbouncer($knows_prepared ? 'max_prepared_statements = 0' : ());
	my ($done, $stderr) = pgbench('broken', 'prepared', (ways('broken'))[0, 1]);
	like($stderr, qr/prepared statement "[^"]*" (already exists|does not exist)/,
		'prepared, when PgBouncer does not know: an error');
	is(stored('broken'), $done ? "$done|$done|0" : '0||0', "the $done that were acknowledged are there");
}

# PgBouncer of any version can prepare on each server connection what all
# clients then execute by its name.
start_pgbouncer(q{connect_query = 'PREPARE deposit(text, jsonb) AS SELECT version FROM cqrs_es.append_event(}
  . q{''account'', $1, ''Deposited'', $2)'});
load('simple', 'connect_query', q{EXECUTE deposit('connect_query', '{"amount": 0.25}');},
	qq{BEGIN;\nSET LOCAL cqrs_es.context = '{"mode": "simple"}';\nEXECUTE deposit('connect_query', '{"amount": 0.25, "mode": "simple"}');\nCOMMIT;});

# In session mode a client keeps its server connection.
start_pgbouncer('pool_mode = session', 'max_client_conn = 100', 'default_pool_size = ' . CLIENTS);
load('prepared', 'session mode, prepared');

# 2. Settings.  With one server connection everybody meets the traces of everybody.

start_pgbouncer('default_pool_size = 1');
my $append = q{SELECT version FROM cqrs_es.append_event('settings', '%s', 'e', '{}')};
pooled(sprintf "BEGIN; SET LOCAL cqrs_es.context = '{\"user\": \"ada\"}'; $append; COMMIT", 'local');
pooled(sprintf $append, 'local');
is(metadata('local'), '{"user": "ada"} {}', 'SET LOCAL: the context does not reach the next client');
pooled(sprintf "BEGIN; SET LOCAL cqrs_es.context = '{\"user\": \"ada\"}'; $append; ROLLBACK", 'local');
pooled(sprintf $append, 'local');
is(metadata('local'), '{"user": "ada"} {} {}', 'nor after a rollback');

pooled(sprintf "SET cqrs_es.context = '{\"user\": \"ada\"}'; $append", 'session');
pooled(sprintf $append, 'session');
is(metadata('session'), '{"user": "ada"} {"user": "ada"}', 'SET: the trap, the next client gets it');

start_pgbouncer('default_pool_size = 1', 'server_reset_query_always = 1');
pooled(sprintf "SET cqrs_es.context = '{\"user\": \"ada\"}'; $append", 'reset');
pooled(sprintf $append, 'reset');
is(metadata('reset'), '{"user": "ada"} {}', 'server_reset_query_always: it does not, if in the same message');
my ($stdout, $stderr) = pooled("SET cqrs_es.context = '{\"user\": \"ada\"}'", sprintf($append, 'reset'));
is(metadata('reset'), '{"user": "ada"} {} {}', 'but neither has the client who set it, in its next transaction');

# Settings at connection time.
{
	local $ENV{PGOPTIONS} = q{-c cqrs_es.tenant_id=acme};
	($stdout, $stderr) = pooled('SELECT cqrs_es.current_tenant()');
	like($stderr, qr/unsupported startup parameter/, 'options are refused');
	start_pgbouncer('default_pool_size = 1', 'ignore_startup_parameters = options');
	($stdout, $stderr) = pooled('SELECT cqrs_es.current_tenant()');
	is($stdout, '', 'or, with ignore_startup_parameters, ignored: the trap again');
}
$node->safe_psql('postgres', q{ALTER ROLE shop SET cqrs_es.tenant_id = 'acme'});
start_pgbouncer('default_pool_size = 1');
($stdout, $stderr) = pooled('SELECT cqrs_es.current_tenant()');
is($stdout, 'acme', 'a setting of the role holds on every server connection');

# 3. Subscriptions.  Consumers in both languages, twice as many as there are server
# connections: each statement of theirs may be another session's, and while one
# waits for events it has a connection for itself.
$node->safe_psql('postgres', 'ALTER ROLE shop RESET cqrs_es.tenant_id');
start_pgbouncer();
my ($python, $why_no_python) = python_with_psycopg();
my ($node_path, $why_no_node) = node_with_pg();
$ENV{NODE_PATH} = $node_path if defined $node_path;
consumers('python', $why_no_python, $python, <<"END");
import functools, sys
import psycopg
psycopg.connect = functools.partial(psycopg.connect, prepare_threshold=None)
sys.path.insert(0, "$ENV{TESTDIR}/test/clients")
from consumer import ExactlyOnce

def handle(event, connection):
    connection.execute("INSERT INTO bookings (position, stream, sequence) VALUES (%s, %s, %s)",
                       (event.global_position, event.aggregate_id, event.sequence))
    if event.payload["fails"] and event.attempt == 1:
        raise ValueError("it fails once")

ExactlyOnce("pooled", handle, 20).run()
END
consumers('javascript', $why_no_node, 'node', <<"END");
const { ExactlyOnce } = require('$ENV{TESTDIR}/test/clients/consumer.js')

async function handle(event, client) {
  await client.query('INSERT INTO bookings (position, stream, sequence) VALUES (\$1, \$2, \$3)', [event.global_position, event.aggregate_id, event.sequence])
  if (event.payload.fails && event.attempt === 1) throw new Error('it fails once')
}

new ExactlyOnce('pooled', handle, 20).run()
END
consume() if @consumers;

stop_pgbouncer();
$node->stop;
done_testing();

END { stop_pgbouncer() }

sub skip_everything
{
	my ($why) = @_;
  SKIP: { skip $why, 1 }
	done_testing();
	exit;
}

# Start it anew with settings that go before or instead of the usual ones.
sub start_pgbouncer
{
	my @settings = @_;
	my %ini = (
		pool_mode => 'transaction',
		default_pool_size => SERVERS,
		max_client_conn => 100,
		listen_port => $port,
		unix_socket_dir => $directory,
		auth_type => 'trust',
		auth_file => "$directory/users",
		(map { split / = /, $_, 2 } @settings));
	my $connect_query = delete $ini{connect_query};

	stop_pgbouncer();
	unlink "$directory/pgbouncer.ini", "$directory/users";
	append_to_file("$directory/users", qq("shop" ""\n));
	append_to_file("$directory/pgbouncer.ini", join("\n",
		'[databases]', 'postgres = host=' . $node->host . ' port=' . $node->port . ($connect_query ? " connect_query=$connect_query" : ''),
		'[pgbouncer]', (map { "$_ = $ini{$_}" } sort keys %ini), ''));
	$pgbouncer = IPC::Run::start([ 'pgbouncer', "$directory/pgbouncer.ini" ],
		'<', \undef, '>', '/dev/null', '2>', "$PostgreSQL::Test::Utils::log_path/pgbouncer.log");
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my ($answer) = pooled('SELECT 1');
		return if $answer eq '1';
		select(undef, undef, undef, 0.1);
	}
	die "PgBouncer does not answer\n" . slurp_file("$PostgreSQL::Test::Utils::log_path/pgbouncer.log");
}

sub stop_pgbouncer
{
	$pgbouncer->kill_kill if $pgbouncer;
	undef $pgbouncer;
}

# Run statements, each a message of its own, as one client of PgBouncer.
sub pooled
{
	my @statements = @_;
	my ($out, $err);
	IPC::Run::run([ 'psql', '-XAtq', '-d', "host=$directory port=$port dbname=postgres user=shop", map { ('-c', $_) } @statements ],
		'<', \undef, '>', \$out, '2>', \$err);
	chomp($out, $err);
	return ($out, $err);
}

# CLIENTS append to one account in these ways.  Returns how many transactions
# were acknowledged, and pgbench's complaints.  Each client has a thread of its
# own: pgbench waits for a PREPARE to be done, and must not wait for a server
# connection that another client of the same thread holds in a transaction.
sub pgbench
{
	my ($id, $mode, @ways) = @_;
	my ($out, $err);

	foreach my $i (0 .. $#ways)
	{
		unlink "$directory/$i.sql";
		append_to_file("$directory/$i.sql", "$ways[$i]\n");
	}
	IPC::Run::run([ 'pgbench', '-n', '-M', $mode, '-c', CLIENTS, '-j', CLIENTS, '-t', TRANSACTIONS,
			(map { ('-f', "$directory/$_.sql") } 0 .. $#ways), "host=$directory port=$port dbname=postgres user=shop" ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	my ($done) = $out =~ /actually processed: (\d+)/;
	return ($done // 0, $err);
}

# An event appended to an account, one by a command, and one with a context.
sub ways
{
	my ($id, $mode) = @_;
	$mode //= '';
	return (
		qq{SELECT version FROM cqrs_es.append_event('account', '$id', 'Deposited', '{"amount": 0.25}');},
		qq{SELECT version FROM cqrs_es.execute_command('account', '$id', 'Deposit', '{"amount": 0.25}');},
		qq{BEGIN;\nSET LOCAL cqrs_es.context = '{"mode": "$mode"}';\n}
		  . qq{SELECT version FROM cqrs_es.append_event('account', '$id', 'Deposited', '{"amount": 0.25, "mode": "$mode"}');\nCOMMIT;});
}

# Load in a mode, in these ways or the usual ones, on an account of its own.
sub load
{
	my ($mode, $title, @ways) = @_;
	my $id = $title // $mode;
	my $all = CLIENTS * TRANSACTIONS;
	my ($done, $stderr) = pgbench($id, $mode, @ways ? @ways : ways($id, $mode));

	is($done, $all, "$id: all was done");
	unlike($stderr, qr/ERROR|FATAL/, 'without an error');
	is(stored($id), "$all|$all|0", 'every event is there once, without holes, at rising positions');
	is($node->safe_psql('postgres', qq{SELECT (cqrs_es.aggregate_state('account', '$id')->>'balance')::numeric = $all * 0.25,
		(SELECT balance = $all * 0.25 AND events = $all FROM balances WHERE account = '$id')}), 't|t', 'state and read model agree');
	is($node->safe_psql('postgres', qq{
		SELECT count(*) > 0, count(*) FILTER (WHERE payload->'mode' IS DISTINCT FROM metadata->'mode')
		FROM cqrs_es.events WHERE aggregate_id = '$id'}), 't|0', 'each context reached the event of its transaction, and no other');
}

# Events, the last sequence, and how many of them come before their time.
sub stored
{
	my ($id) = @_;
	return $node->safe_psql('postgres', qq{
		SELECT count(*), max(sequence), count(*) FILTER (WHERE sequence <> nr OR global_position <= before)
		FROM (SELECT sequence, global_position, row_number() OVER w AS nr, lag(global_position) OVER w AS before
			FROM cqrs_es.events WHERE aggregate_type = 'account' AND aggregate_id = '$id' WINDOW w AS (ORDER BY sequence)) AS e});
}

sub metadata
{
	my ($id) = @_;
	return $node->safe_psql('postgres',
		"SELECT string_agg(metadata::text, ' ' ORDER BY sequence) FROM cqrs_es.events WHERE aggregate_type = 'settings' AND aggregate_id = '$id'");
}

# These will be consumers; without an interpreter, say why not.
sub consumers
{
	my ($name, $missing, $command, $program) = @_;
  SKIP:
	{
		skip "$name: $missing", 1 if $missing;
		append_to_file("$directory/$name", $program);
		push @consumers, ([ $command, "$directory/$name" ]) x CONSUMERS;
	}
}

# All of them at once, beside appends, until everything is done.
sub consume
{
	$node->safe_psql('postgres', q{
		CREATE TABLE bookings (nr bigint GENERATED ALWAYS AS IDENTITY, position bigint, stream text, sequence bigint);
		GRANT INSERT ON bookings TO shop;
		SELECT cqrs_es.create_subscription('pooled', aggregate_types => '{job}', retry_delay => '10 ms', lease => '10 s', consumer_role => 'shop')});
	my (@running, $output);
	{
		local %ENV = (%ENV, PGHOST => $directory, PGPORT => $port, PGDATABASE => 'postgres', PGUSER => 'shop');
		foreach (0 .. $#consumers)
		{
			push @running, IPC::Run::start($consumers[$_], '<', \undef, '>&', "$directory/consumer$_");
		}
	}
	unlink "$directory/jobs.sql";
	append_to_file("$directory/jobs.sql", q{\set stream random(1, 20)} . "\n" . q{\set fails random(1, 20)} . "\n"
		. q{SELECT cqrs_es.append_event('job', 'j' || :stream, 'e', jsonb_build_object('fails', :fails = 1));} . "\n");
	IPC::Run::run([ 'pgbench', '-n', '-c', 5, '-t', EVENTS / 5, '-f', "$directory/jobs.sql", $node->connstr('postgres') ], '>&', \$output)
	  or diag($output);
	ok($node->poll_query_until('postgres', q{SELECT count(DISTINCT position) = } . EVENTS . q{ FROM bookings}),
		scalar(@consumers) . ' consumers over ' . SERVERS . ' server connections: all is done');
	$_->signal('TERM') foreach @running;
	is(join(' ', map { eval { $_->finish }; $_->full_result(0) } @running), join(' ', (0) x @running), 'SIGTERM ends them');
	is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT position) FROM bookings'), EVENTS . '|' . EVENTS, 'each event was worked on once');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT sequence, lag(sequence, 1, 0::bigint) OVER (PARTITION BY stream ORDER BY nr) AS before FROM bookings) AS b
		WHERE sequence <> before + 1}), 0, 'each stream in order');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.dead_letters}), 0, 'none is a dead letter');
	is(join('', map { slurp_file("$directory/consumer$_") } 0 .. $#running), '', 'and no consumer met an error');
}
