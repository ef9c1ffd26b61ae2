# Kill a backend, then the postmaster, with SIGKILL, and stop the server in
# immediate mode, each time under concurrent appends of all kinds.  After the
# restart: all that was acknowledged is there, nothing is there by half, and
# whatever is derived from the log equals its recompute.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use constant LOAD_SECONDS => 1.5;
use constant SNAPSHOT_EVERY => 3;

my $node = PostgreSQL::Test::Cluster->new('crash');
$node->init;
$node->append_conf('postgresql.conf', "restart_after_crash = on\nlog_statement = none");
$node->start;

my $every = SNAPSHOT_EVERY;
$node->safe_psql('postgres', qq{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE totals (aggregate_id text PRIMARY KEY, events bigint NOT NULL, amount bigint NOT NULL);
	CREATE FUNCTION add_amount(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql IMMUTABLE
		RETURN jsonb_build_object('events', (state->>'events')::int + 1,
			'amount', (state->>'amount')::int + ((event).payload->>'amount')::int);
	SELECT cqrs_es.create_aggregate('account', '{"events": 0, "amount": 0}', $every);
	SELECT cqrs_es.define_reducer('account', 'added', 'add_amount(jsonb, cqrs_es.event)');
	SELECT cqrs_es.create_projection('totals');
	SELECT cqrs_es.define_handler('totals', 'added',
		'INSERT INTO totals VALUES (event.aggregate_id, 1, (event.payload->>''amount'')::int)
		 ON CONFLICT (aggregate_id) DO UPDATE SET events = totals.events + 1,
			amount = totals.amount + excluded.amount');
});

# What one client sends as its n-th statement.  The payload's key says which
# statement an event is of; the statement returns the key when it is done.
# Clients share streams.
sub payload
{
	my ($key, $n) = @_;
	return sprintf '{"key": "%s", "amount": %d}', $key, $n % 7;
}

my %statement = (
	event => sub {
		my ($key, $n) = @_;
		return sprintf "SELECT '%s' FROM cqrs_es.append_event('account', 's%d', 'added', '%s');",
		  $key, $n % 3, payload($key, $n);
	},
	batch => sub {
		my ($key, $n) = @_;
		my $events = join ',', map { '{"type": "added", "payload": ' . payload($key, $n) . '}' } 1 .. 7;
		return sprintf "SELECT '%s' FROM cqrs_es.append_events('account', 's%d', '[%s]');",
		  $key, $n % 4, $events;
	},
	insert => sub {
		my ($key, $n) = @_;
		return sprintf "INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) "
		  . "VALUES ('account', 's%d', 'added', '%s') RETURNING payload->>'key';",
		  $n % 5, payload($key, $n);
	},
	# two streams, always in the same order
	pair => sub {
		my ($key, $n) = @_;
		return sprintf "BEGIN; SELECT FROM cqrs_es.append_event('account', 'p', 'added', '%1\$s');\n"
		  . "SELECT FROM cqrs_es.append_event('account', 'q', 'added', '%1\$s');\n"
		  . "COMMIT; SELECT '%2\$s';", payload($key, $n), $key;
	});
my %events_of = (event => 1, batch => 7, insert => 1, pair => 2);

# Start the clients; returns what stop_load needs.
sub start_load
{
	my ($round) = @_;
	my @clients;

	foreach my $kind (qw(event event batch batch insert insert pair pair))
	{
		my $name = "$kind-$round-" . scalar(@clients);
		my $script = "$PostgreSQL::Test::Utils::tmp_check/$name.sql";
		my $out = "$PostgreSQL::Test::Utils::tmp_check/$name.out";

		# every other client takes the generic path
		append_to_file($script, join "\n",
			'SET cqrs_es.force_generic_path = ' . (@clients % 2 ? 'on;' : 'off;'), map { $statement{$kind}->("$name-$_", $_) } 1 .. 10_000);
		push @clients, {
			out => $out,
			run => IPC::Run::start(
				[ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-f', $script ],
				'<', \undef, '>', $out, '2>', '/dev/null')
		};
	}
	return \@clients;
}

# The keys that were acknowledged.  The last line may be cut off: no key is
# another's beginning, once the newline is asked for.
sub stop_load
{
	my ($clients) = @_;

	$_->{run}->finish foreach @$clients;
	return map { slurp_file($_->{out}) =~ /^(\w+-\d+-\d+-\d+)\n/mg } @$clients;
}

sub rows
{
	my ($what, $query) = @_;
	is($node->safe_psql('postgres', $query), '', $what);
}

my (%acknowledged, $position);

sub check
{
	my ($round) = @_;
	my %count;

	$count{ (split /\|/)[0] } = (split /\|/)[1]
	  foreach split /\n/, $node->safe_psql('postgres',
		q{SELECT payload->>'key', count(*) FROM cqrs_es.events GROUP BY 1});
	my @lost = grep { !$count{$_} } keys %acknowledged;
	my @half = grep { $count{$_} != $events_of{ (split /-/)[0] } } keys %count;
	is("@lost", '', "$round: all " . scalar(keys %acknowledged) . " acknowledged appends are there");
	is("@half", '', "$round: none of all " . scalar(keys %count) . " is there by half or twice");

	rows("$round: a batch stands together", q{
		SELECT payload->>'key', min(sequence), max(sequence) FROM cqrs_es.events
		WHERE payload->>'key' LIKE 'batch%' GROUP BY 1 HAVING max(sequence) - min(sequence) <> 6});
	rows("$round: sequences have no hole and positions rise with them", q{
		SELECT * FROM (
			SELECT aggregate_id, sequence, row_number() OVER w AS expected, global_position,
				lag(global_position) OVER w AS before
			FROM cqrs_es.events WINDOW w AS (PARTITION BY aggregate_id ORDER BY sequence)) AS s
		WHERE sequence <> expected OR global_position <= before});
	rows("$round: the read model equals its recompute", q{
		SELECT * FROM (SELECT aggregate_id, count(*) AS events, sum((payload->>'amount')::int) AS amount
			FROM cqrs_es.events GROUP BY 1) AS recomputed
		FULL JOIN totals USING (aggregate_id, events, amount)
		WHERE recomputed IS NULL OR totals IS NULL});
	rows("$round: a snapshot equals the replay from 1, and the newest due one is there", qq{
		SELECT v.aggregate_id, s.last_sequence, s.payload, folded
		FROM (SELECT aggregate_id, max(sequence) AS version FROM cqrs_es.events GROUP BY 1) AS v
		LEFT JOIN cqrs_es.snapshots AS s USING (aggregate_id)
		CROSS JOIN LATERAL (
			SELECT jsonb_build_object('events', count(*), 'amount', sum((payload->>'amount')::int))
			FROM cqrs_es.events AS e
			WHERE e.aggregate_id = v.aggregate_id AND sequence <= s.last_sequence) AS f (folded)
		WHERE version >= $every
			AND (s.last_sequence IS DISTINCT FROM version / $every * $every OR s.payload IS DISTINCT FROM folded)});
	rows("$round: the state equals the replay from 1", q{
		SELECT * FROM (
			SELECT aggregate_id, max(sequence) AS version,
				jsonb_build_object('events', count(*), 'amount', sum((payload->>'amount')::int)) AS folded
			FROM cqrs_es.events GROUP BY 1) AS r
		CROSS JOIN LATERAL cqrs_es.load_aggregate('account', aggregate_id) AS l
		WHERE l.version <> r.version OR state <> folded});
	is($node->safe_psql('postgres', q{SELECT string_agg(global_position::text, ' ') FROM cqrs_es.read_all(0, NULL)}),
		$node->safe_psql('postgres', q{SELECT string_agg(global_position::text, ' ' ORDER BY global_position) FROM cqrs_es.events}),
		"$round: read_all hands out everything in order, once");

	my $next = $node->safe_psql('postgres', qq{
		SELECT global_position FROM cqrs_es.append_event('account', 's0', 'added', '{"key": "event-after-$round", "amount": 1}')});
	cmp_ok($next, '>', $node->safe_psql('postgres', q{
		SELECT max(global_position) FROM cqrs_es.events WHERE payload->>'key' NOT LIKE 'event-after-%'}),
		"$round: appends go on");
}

# Start after the postmaster is gone; what it has left behind must end first.
my @processes;

sub kill_postmaster
{
	@processes = split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity');
	unshift @processes, (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	$node->kill9;
}

sub start_again
{
	my $tries = 0;

	usleep(100_000) while (kill 0, @processes) && ++$tries < 300;
	$node->start;
}

my @rounds = (
	[
		'backend killed',
		sub {
			my $pid = $node->safe_psql('postgres',
				q{SELECT pid FROM pg_stat_activity WHERE query LIKE '%append_events(%' AND pid <> pg_backend_pid() LIMIT 1});
			kill 'KILL', $pid or BAIL_OUT("could not kill backend $pid");
		},
		sub {
			# (no statement: psql may be gone before it has read one)
			$node->poll_query_until('postgres', undef, '')
			  or BAIL_OUT('the server did not come back');
		}
	],
	[ 'postmaster killed', \&kill_postmaster, \&start_again ],
	[ 'immediate stop', sub { $node->stop('immediate') }, sub { $node->start } ]);

foreach my $i (0 .. $#rounds)
{
	my ($name, $crash, $recover) = @{ $rounds[$i] };
	my $clients = start_load($i);

	usleep(1_000_000 * LOAD_SECONDS);
	$crash->();
	my @keys = stop_load($clients);
	cmp_ok(scalar(@keys), '>', 50, "$name: there was load");
	$acknowledged{$_} = 1 foreach @keys;
	$recover->();
	check($name);
}

$node->stop;
done_testing();
