# What is declared for a log that is spread over a Citus cluster is declared on all nodes or on none. Commands, states and
# snapshots are then those of the node that stores the stream, also when that was moved to another, or to one that came later.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use CitusCluster qw(citus_cluster citus_node citus_add);

my ($coordinator, @workers) = citus_cluster(2);
my @nodes = ($coordinator, @workers);
sub on { my ($node, $sql) = @_; return $node->safe_psql('postgres', $sql) }
sub everywhere { my ($sql) = @_; return join ' ', map { on($_, $sql) } @nodes }
sub declare { my ($node, $statement) = @_; return on($node, "SELECT cqrs_es.on_all_nodes(\$declare\$$statement\$declare\$)") }

sub error_on
{
	my ($node, $sql) = @_;
	my (undef, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	return $stderr =~ /ERROR:  (.*(?:\n(?:DETAIL|HINT):.*)*)/ ? $1 : 'none';
}

sub problems { return on($coordinator, q{SELECT string_agg(node_id || ': ' || problem, '; ' ORDER BY node_id) FROM cqrs_es.distribution_status()}) }

# Move the shard of a stream to a node.
sub move
{
	my ($id, $to) = @_;
	on($coordinator, "SELECT citus_move_shard_placement(get_shard_id_for_distribution_column('cqrs_es.events', '$id'), h.host, h.port, '@{[ $to->host ]}', @{[ $to->port ]}, 'block_writes')"
		. " FROM cqrs_es.home_of('$id') AS h");
	return;
}

on($coordinator, 'CREATE EXTENSION cqrs_es');
like(error_on($coordinator, q{SELECT cqrs_es.on_all_nodes('SELECT 1')}), qr/^55000: the log is not distributed/, 'before it is distributed');
on($coordinator, 'SELECT cqrs_es.distribute(8)');
is(problems(), '', 'it is distributed');
my @stream = map { on($coordinator, "SELECT min(n) FROM generate_series(1, 100) AS n, cqrs_es.home_of(n::text) AS h WHERE h.node_id = $_") } 1, 2;

# Functions are Citus's business, and its own.
on($coordinator, q{
	CREATE SCHEMA app;
	CREATE FUNCTION app.opened(state jsonb, event cqrs_es.event) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$SELECT state || '{"open": true}'$$;
	CREATE FUNCTION app.in_cents(payload jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$SELECT jsonb_build_object('amount', (payload ->> 'euros')::numeric * 100)$$;
	CREATE FUNCTION app.fail_on(node int) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			IF (SELECT groupid FROM pg_dist_local_group) = node THEN RAISE EXCEPTION 'not here'; END IF;
		END $$});

# Sessions that know that nothing is declared hear of it.
my @session = map { $_->background_psql('postgres') } @nodes;
$_->query_safe(qq{DO \$\$ BEGIN PERFORM cqrs_es.aggregate_state('account', '$stream[0]'); EXCEPTION WHEN SQLSTATE 'QE101' THEN NULL; END \$\$}) foreach @session;
like(error_on($coordinator, q{SELECT cqrs_es.create_aggregate('account', '{}')}), qr/^QE608: .*one node alone\nHINT:.*on_all_nodes/, 'nor can be on one node');
declare($coordinator, q{SELECT cqrs_es.create_aggregate('account', '{"balance": 0}', snapshot_every => 3); SELECT cqrs_es.create_aggregate('tight', '{}', strict => true);
	SELECT cqrs_es.define_reducer('tight', 'paid', '[{"op": "increment", "path": "/balance", "from": "/amount"}]');
	SELECT cqrs_es.define_reducer('account', 'paid', '[{"op": "increment", "path": "/balance", "from": "/amount"}]')});
on($workers[1], q{SET search_path = app; SELECT cqrs_es.on_all_nodes($$SELECT cqrs_es.define_reducer('account', 'opened', 'opened(jsonb, cqrs_es.event)'::regprocedure)$$)});
declare($workers[0], q{SELECT cqrs_es.define_upcaster('paid', '1', '2', 'app.in_cents'); SELECT cqrs_es.define_command('account', 'pay',
	$$CASE WHEN (state ->> 'balance')::numeric > 1000 THEN cqrs_es.reject('enough') ELSE jsonb_build_object('type', 'paid', 'version', '2', 'payload', command) END$$)});
is(everywhere(q{SELECT count(*) FROM cqrs_es.reducers WHERE function LIKE 'app.opened(%'}), '1 1 1', 'reducers are declared on all nodes, with the search_path of the session');
is(everywhere(q{SELECT command_type FROM cqrs_es.commands WHERE definer = current_user::regrole}), 'pay pay pay', 'a command as well');
is(problems(), '', 'all nodes have the same');

foreach my $i (0, 1)
{
	my ($id, $session, $other) = ($stream[$i], $session[ $i + 1 ], $session[ 2 - $i ]);
	is($session->query_safe(qq{SELECT version FROM cqrs_es.append_event('account', '$id', 'opened', '{}')}), '1', 'an event that reducers know');
	is($session->query_safe(qq{SELECT version FROM cqrs_es.append_event('account', '$id', 'paid', '{"euros": 1}')}), '2', 'and one of an old version');
	like(error_on($workers[$i], qq{SELECT cqrs_es.append_event('tight', '$id', 'paid', '{"amount": "x"}', event_version => '2')}), qr/^QE\d+: .*cannot be appended/, 'a strict type refuses what they cannot take');
	is($session->query_safe(qq{SELECT version FROM cqrs_es.execute_command('account', '$id', 'pay', '{"amount": 5}')}), '3', 'a command at home');
	is($session->query_safe(q{SELECT string_agg(last_sequence::text, ' ') FROM cqrs_es.snapshots}), '3', 'a snapshot at home');
	is($other->query_safe(qq{SELECT string_agg(last_sequence::text, ' ') FROM cqrs_es.snapshots WHERE aggregate_id = '$id'}), '', 'and there alone');
	is($_->query_safe(qq{SELECT version, state FROM cqrs_es.load_aggregate('account', '$id')}), '3|{"open": true, "balance": 105}', 'the state is known everywhere') foreach @session;
	like(error_on($workers[ 1 - $i ], qq{SELECT cqrs_es.execute_command('account', '$id', 'pay', '{"amount": 5}')}), qr/^QE607/, 'a command elsewhere');
	like(error_on($workers[$i], qq{SELECT cqrs_es.redact_stream('account', '$id', '{/x}', 'r')}), qr/^QE608/, 'nothing is redacted, for snapshots elsewhere would keep it');
}

# All or none.
like(error_on($coordinator, qq{SELECT cqrs_es.on_all_nodes(\$\$SELECT cqrs_es.create_aggregate('none', '{}'); SELECT app.fail_on($_)\$\$)}), qr/not here/, "node $_ fails") foreach 0 .. 2;
on($coordinator, q{BEGIN; SELECT cqrs_es.on_all_nodes($$SELECT cqrs_es.create_aggregate('none', '{}')$$); ROLLBACK});
is(everywhere(q{SELECT count(*) FROM cqrs_es.aggregates WHERE aggregate_type = 'none'}), '0 0 0', 'nothing of it is anywhere');
like(error_on($coordinator, q{SELECT cqrs_es.on_all_nodes($$SELECT cqrs_es.create_subscription('s')$$)}), qr/^QE608/, 'what is not for a distributed log');
like(error_on($coordinator, q{SELECT cqrs_es.create_aggregate('none', '{}')}), qr/^QE608/, 'and the next alone');
like(error_on($coordinator, q{SET session_replication_role = replica; SELECT cqrs_es.on_all_nodes('SELECT 1')}), qr/^55000/, 'a session that fires no triggers');
like(error_on($coordinator, q{SELECT cqrs_es.on_all_nodes($$SELECT cqrs_es.drop_aggregate('account')$$)}), qr/^QE608: .*\nHINT:.*force/, 'whether there are events no node knows');

# Two declare at once, from two nodes.
my $before = on($coordinator, 'SELECT number FROM cqrs_es.last_declaration');
my @declarers = map { $workers[$_]->background_psql('postgres') } 0, 1;
foreach my $i (0, 1)
{
	$declarers[$i]->query_until(qr/begun/, "\\echo begun\n" . join '', map { "SELECT cqrs_es.on_all_nodes(\$\$SELECT cqrs_es.create_aggregate('of_both', '{\"n\": $_, \"by\": $i}')\$\$);\n" } 1 .. 15);
}
$_->quit foreach @declarers;
is(everywhere("SELECT number - $before FROM cqrs_es.last_declaration"), '30 30 30', 'each node has run all of them');
is(problems(), '', 'in the same order');

# The rights are the caller's, on all nodes.
on($coordinator, q{CREATE ROLE declarer LOGIN; GRANT USAGE ON SCHEMA app TO declarer});
on($coordinator, 'GRANT SELECT, UPDATE ON cqrs_es.last_declaration TO declarer');
foreach my $node (@nodes)
{
	on($node, 'GRANT USAGE ON SCHEMA cqrs_es TO declarer; GRANT EXECUTE ON FUNCTION cqrs_es.define_command(text, text, text) TO declarer');
}
my $as_declarer = sub { my ($sql) = @_; return "SET SESSION AUTHORIZATION declarer; $sql" };
like(error_on($coordinator, $as_declarer->(q{SELECT cqrs_es.on_all_nodes('SELECT 1')})), qr/^42501/, 'who may not');
on($coordinator, 'GRANT EXECUTE ON FUNCTION cqrs_es.on_all_nodes(text) TO declarer');
like(error_on($coordinator, $as_declarer->(q{SELECT cqrs_es.on_all_nodes($$SELECT cqrs_es.create_aggregate('none', '{}')$$)})), qr/^42501/, 'may not do more by it');
on($coordinator, $as_declarer->(q{SELECT cqrs_es.on_all_nodes($$SELECT cqrs_es.define_command('account', 'nothing', '''[]''::jsonb')$$)}));
is(everywhere(q{SELECT definer FROM cqrs_es.commands WHERE command_type = 'nothing'}), 'declarer declarer declarer', 'deciders run as who declared them');

# A projection of each aggregate by itself: its rows are where its events are.
on($coordinator, q{CREATE TABLE public.of_no_node (id text COLLATE "C" PRIMARY KEY, total numeric)});
like(error_on($coordinator, q{SELECT cqrs_es.on_all_nodes($$SELECT cqrs_es.create_projection('p', '{account}', '{of_no_node}')$$)}), qr/(?:^QE608: read model "of_no_node" is not distributed|does not exist)/, 'a table of one node is no read model');
on($coordinator, q{CREATE TABLE public.wrong (id text COLLATE "en-x-icu" PRIMARY KEY)});
like(error_on($coordinator, q{SELECT cqrs_es.distribute_read_model('wrong', 'id')}), qr/colocate|collation/, 'nor one that collates otherwise');
on($coordinator, q{CREATE TABLE public.balances (id text COLLATE "C" PRIMARY KEY, total numeric, node bigint); SELECT cqrs_es.distribute_read_model('balances', 'id')});
like(error_on($coordinator, "SELECT cqrs_es.on_all_nodes(\$\$SELECT cqrs_es.create_projection('p', '{account}', $_)\$\$)"), qr/^QE608/, "not $_") foreach
	"'{balances}', mode => 'async'", "'{balances}', backfill => true", "'{balances}', state_of => 'account'", 'NULL';
declare($workers[0], q{SELECT cqrs_es.create_projection('p', '{account, astray}', '{balances}');
	SELECT cqrs_es.define_handler('p', 'paid', 'INSERT INTO balances VALUES (event.aggregate_id, (event.payload ->> ''amount'')::numeric, event.global_position >> 44)
		ON CONFLICT (id) DO UPDATE SET total = balances.total + excluded.total, node = excluded.node');
	SELECT cqrs_es.define_handler('p', 'sent', 'INSERT INTO balances VALUES (event.payload ->> ''to'', 1)')});
foreach my $i (0, 1)
{
	my ($id, $session) = ($stream[$i], $session[ $i + 1 ]);
	is($session->query_safe(qq{BEGIN; SELECT FROM cqrs_es.append_event('account', '$id', 'paid', '{"amount": 7}', event_version => '2'); SELECT total, node FROM balances WHERE id = '$id'; ROLLBACK}) =~ s/\s//gr, '7|' . ($i + 1), 'it is handled in the transaction');
	is($session->query_safe(qq{SELECT count(*) FROM balances WHERE id = '$id'}), 0, 'which is rolled back');
	$session->query_safe(qq{SELECT FROM cqrs_es.append_event('account', '$id', 'paid', '{"amount": 7}', event_version => '2')}) for 1 .. 2;
	is($_->query_safe(qq{SELECT total, node FROM balances WHERE id = '$id'}), '14|' . ($i + 1), 'and seen everywhere') foreach @session;
}
my $far = on($coordinator, 'SELECT max(n) FROM generate_series(1, 100) AS n, cqrs_es.home_of(n::text) AS h WHERE h.node_id = 2');
my $astray = qq{cqrs_es.append_event('astray', '$stream[0]', 'sent', '{"to": "$far"}')};
on($workers[0], "BEGIN; SELECT FROM $astray; ROLLBACK");
is(on($workers[0], "SELECT count(*) FROM balances WHERE id = '$far'"), 0, 'a row of another node is rolled back');
on($workers[0], "SELECT FROM $astray");
is(on($workers[1], "SELECT total FROM balances WHERE id = '$far'"), 1, 'or committed on both');
like(error_on($workers[0], qq{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('astray', '$stream[0]', 'sent', '{"to": "$far"}')}), qr/query on a shard/, 'but not from within a statement of Citus');
like(error_on($workers[0], "SELECT cqrs_es.$_"), qr/^QE608/, $_) foreach "rebuild_projection('p')", "pause_projection('p')", "alter_projection('p', mode => 'async')";
is(problems(), '', 'all nodes have the projection');

# A stream moves: its snapshots stay behind, and it leaves others.
move($stream[0], $workers[1]);
is($session[2]->query_safe(qq{SELECT version FROM cqrs_es.execute_command('account', '$stream[0]', 'pay', '{"amount": 1}')}), '6', 'a command at the new home');
is($session[2]->query_safe(qq{SELECT last_sequence FROM cqrs_es.snapshots WHERE aggregate_id = '$stream[0]'}), '6', 'which folded all, and leaves a snapshot');
move($stream[0], $workers[0]);
is($session[1]->query_safe(qq{SELECT version FROM cqrs_es.execute_command('account', '$stream[0]', 'pay', '{"amount": 1}')}), '7', 'and back');
is($session[1]->query_safe(qq{SELECT state -> 'balance' FROM cqrs_es.load_aggregate('account', '$stream[0]')}), '121', 'the old snapshot is a true one');
is($session[0]->query_safe(qq{SELECT total, node FROM balances WHERE id = '$stream[0]'}), '16|1', 'the row has moved along');

# A node that comes later.
my $late = citus_node('worker_3');
citus_add($coordinator, $late);
push @nodes, $late;
like(problems(), qr/^3: it has not been admitted: /, 'a node is new');
my $here = $late->background_psql('postgres');
is($here->query_safe(qq{SELECT cqrs_es.stream_version('account', '$stream[1]')}), '5', 'a session that knows that');
like(error_on($late, 'SELECT cqrs_es.admit_nodes()'), qr/^55000: .*coordinator/, 'the coordinator tells it');
on($coordinator, 'SELECT cqrs_es.admit_nodes()');
is(problems(), '', 'it knows what is declared');
move($stream[1], $late);
is($here->query_safe(qq{SELECT version FROM cqrs_es.execute_command('account', '$stream[1]', 'pay', '{"amount": 1}')}), '6', 'a command there');
is($here->query_safe(qq{SELECT total, node FROM balances WHERE id = '$stream[1]'}), '15|3', 'which is handled');
is($here->query_safe(q{SELECT definer FROM cqrs_es.commands WHERE command_type = 'nothing'}), 'declarer', 'roles are found by their names');
declare($late, q{SELECT cqrs_es.drop_aggregate('of_both', force => true)});
is(everywhere('SELECT count(*) FROM cqrs_es.aggregates'), '2 2 2 2', 'it declares as any');

# As of a node that has not been told.
on($late, 'DELETE FROM cqrs_es.admitted_nodes');
like(problems(), qr/^3: it has not been admitted: /, 'a node that does not know all');
like(error_on($late, qq{SELECT cqrs_es.execute_command('account', '$stream[1]', 'pay', '{"amount": 1}')}), qr/^QE609: node 3 .*\n.*\nHINT:.*admit_nodes/, 'no command there');
like(error_on($late, qq{SELECT cqrs_es.append_event('t', '$stream[1]', 'e', '{}')}), qr/^QE609/, 'nor event');
like(error_on($late, qq{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('t', '$stream[1]', 'e', '{}')}), qr/^QE609/, 'by no way');
like(error_on($coordinator, q{SELECT cqrs_es.on_all_nodes($$SELECT cqrs_es.create_aggregate('none', '{}')$$)}), qr/node 3 has not been admitted/, 'nor declaration anywhere');
on($coordinator, 'SELECT cqrs_es.admit_nodes()');
is(on($late, qq{SELECT version FROM cqrs_es.append_event('t', '$stream[1]', 'e', '{}')}), '1', 'now it does');

# What somebody did to a node below all this.
on($workers[0], q{ALTER TABLE cqrs_es.aggregates DISABLE TRIGGER registry_changed; UPDATE cqrs_es.aggregates SET strict = NOT strict; ALTER TABLE cqrs_es.aggregates ENABLE ALWAYS TRIGGER registry_changed});
like(problems(), qr/^1: what is declared there is not/, 'a node that differs');
on($coordinator, 'SELECT cqrs_es.admit_nodes()');
is(problems(), '', 'is told again');

$_->quit foreach @session, $here;
$_->stop foreach @nodes;
done_testing();
