# Memory and locks of a session that goes on and on. Each kind of work is done, after a while of getting used to it, N times and
# then N times more: the second time nothing may grow, neither what the server has allocated in its memory contexts nor
# what the process takes from the system. The bound is far below what a single chunk of memory a time would make: 2000
# of the smallest take 32 kB. (A snapshot is saved at one append in twenty, so those are more.) In a transaction the number of locks stays what it is.
#
# CQRS_ES_MEMORY=long: a million appends, a hundred thousand commands, and so on; CQRS_ES_MEMORY_PARTS: only work whose
# name matches this regular expression ("one batch" is one).

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Session;

use constant CONTEXTS_BOUND => 24 * 1024;	# bytes
use constant PROCESS_BOUND => 1024;			# kB: malloc keeps what it likes
use constant NUMBERS => 24;					# bytes: what the server notes of subtransactions, 4 for each, in an array that doubles
use constant PAIRS => 16;					# bytes: what it notes of a row that a transaction changes again, 8 for each, in an array that doubles

my $is_long = ($ENV{CQRS_ES_MEMORY} // '') eq 'long';
my $parts = $ENV{CQRS_ES_MEMORY_PARTS} // '';
my $node = PostgreSQL::Test::Cluster->new('memory');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum = off\nlog_statement = none\nlog_min_error_statement = panic\nlog_min_messages = fatal\n"
	. "shared_buffers = 128MB\nmax_wal_size = 4GB\njit = off");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	-- all that hangs on an append
	SELECT cqrs_es.create_aggregate('account', '{"events": 0, "sum": 0}', snapshot_every => 20);
	SELECT cqrs_es.define_reducer('account', 'Put', '[{"op": "increment", "path": "/events", "value": 1}, {"op": "increment", "path": "/sum", "from": "/amount"}]');
	SELECT cqrs_es.define_command('account', 'Put', $$jsonb_build_object('type', 'Put', 'payload', command)$$);
	SELECT cqrs_es.define_command('account', 'Refuse', $$cqrs_es.reject('never', 'never')$$);
	CREATE TABLE totals (id text PRIMARY KEY, events bigint NOT NULL);
	CREATE TABLE entries (position bigint);
	SELECT cqrs_es.create_projection('totals', '{account}', '{totals}');
	SELECT cqrs_es.define_handler('totals', 'Put', 'INSERT INTO totals VALUES (event.aggregate_id, 1) ON CONFLICT (id) DO UPDATE SET events = totals.events + 1');
	SELECT cqrs_es.create_projection('entries', '{account}', '{entries}');
	CREATE FUNCTION note(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO entries VALUES (event.global_position); END $$;
	SELECT cqrs_es.define_handler('entries', '*', 'note(cqrs_es.event)');
	SELECT cqrs_es.create_subscription('work');
	-- nothing at all, but an aggregate that refuses
	SELECT cqrs_es.create_aggregate('strict', strict => true, snapshot_every => 20);
	SELECT cqrs_es.define_reducer('strict', 'Known', '[{"op": "set", "path": "/amount", "from": "/amount"}]');
	-- what a handler refuses
	CREATE TABLE once (id text PRIMARY KEY);
	SELECT cqrs_es.create_projection('once', '{unique}', '{once}');
	SELECT cqrs_es.define_handler('once', '*', 'INSERT INTO once VALUES (event.aggregate_id)');
	-- a small one to rebuild
	CREATE TABLE small (id text PRIMARY KEY, events bigint NOT NULL);
	SELECT cqrs_es.create_projection('small', '{little}', '{small}');
	SELECT cqrs_es.define_handler('small', '*', 'INSERT INTO small VALUES (event.aggregate_id, 1) ON CONFLICT (id) DO UPDATE SET events = small.events + 1');
	-- an event that follows from each
	CREATE TABLE echoes (id text);
	SELECT cqrs_es.create_projection('echo', '{cry}', '{echoes}');
	CREATE FUNCTION echo(event cqrs_es.event) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM cqrs_es.append_event('echo', event.aggregate_id, 'e', '{}'); END $$;
	SELECT cqrs_es.define_handler('echo', '*', 'echo(cqrs_es.event)');
	SELECT count(cqrs_es.append_event('little', 's' || n % 5, 'e', '{}')) FROM generate_series(1, 50) AS n;
	SELECT FROM cqrs_es.append_event('unique', 'there', 'e', '{}');
});

my ($session, $pid);
my $watcher = new_session();
my $has_proc = -e "/proc/$$/status";

sub new_session { return Session->new($node->host, $node->port, scalar getpwuid($>), 'postgres') // die 'no session' }

# A value of /proc, in kB.
sub status
{
	my ($name) = @_;
	return slurp_file("/proc/$pid/status") =~ /^$name:\s+(\d+) kB/m ? $1 : die "no $name";
}

# What the session has allocated, by context. Pairs of command ids of rows that a transaction changes again are the server's own.
sub contexts
{
	my ($rows) = $session->ask(q{SELECT name || coalesce(' ' || ident, ''), sum(total_bytes) FROM pg_backend_memory_contexts WHERE name <> 'Combo CIDs' GROUP BY 1});
	return { map { $_->[0] => $_->[1] } @$rows };
}

sub sum { my ($contexts) = @_; my $sum = 0; $sum += $_ foreach values %$contexts; return $sum }
sub locks { return $watcher->value("SELECT count(*) FROM pg_locks WHERE pid = $pid") }

# Work that takes a number of times. "in_transaction": measured before its end; then the server keeps some
# bytes for rows it changes again, in the process as well.
sub stays
{
	my ($name, $times, $work, %options) = @_;
	my $n = int($times / 2);

	return if $name !~ /$parts/;
	$session = new_session();
	$pid = $session->value('SELECT pg_backend_pid()');
	$session->ask($_) foreach @{ $options{before} // [] };
	$session->ask('BEGIN') if $options{in_transaction};
	$work->($options{warm} // 300);
	contexts();
	$work->($n);
	my ($before, $process, $locks) = (contexts(), $has_proc ? status('RssAnon') : 0, locks());
	$work->($n);
	my ($after, $process_after, $locks_after) = (contexts(), $has_proc ? status('RssAnon') : 0, locks());

	my $growth = sum($after) - sum($before);
	cmp_ok($growth, '<=', CONTEXTS_BOUND + $n * ($options{each} // 0), "$name, $n times more: memory contexts")
	  or diag(map { ($after->{$_} // 0) > ($before->{$_} // 0) ? "$_: " . ($before->{$_} // 0) . " -> $after->{$_}\n" : () } sort keys %$after);
	cmp_ok($process_after - $process, '<=', $options{process_bound} // PROCESS_BOUND, "$name, $n times more: the process, in kB") if $has_proc;
	is($locks_after, $locks, "$name, $n times more: locks") if $options{in_transaction};
	note("$name: contexts " . sum($before) . " + $growth bytes, process $process + " . ($process_after - $process) . " kB, locks $locks_after");
	$session->ask('COMMIT') if $options{in_transaction};
	is(locks(), '0', "$name: no lock is left");
	$session->close;
	return;
}

# --- a transaction each

my $nth = 0;
sub each_by_itself
{
	my ($statement, $error) = @_;
	return sub {
		my ($times) = @_;
		for (1 .. $times)
		{
			$nth++;
			$session->try($statement =~ s/:n/$nth/gr =~ s/:stream/$nth % 50/ger);
			die "$session->{state} $session->{message}" if $session->{state} ne ($error // '');
		}
	};
}

my $append = q{SELECT FROM cqrs_es.append_event('account', 's:stream', 'Put', '{"amount": 1}', event_id => cqrs_es.new_event_id())};
my $generic = ['SET cqrs_es.force_generic_path = on'];
# what a session remembers of long streams, while they become long, takes up to work_mem
my $nothing = 'SET cqrs_es.idempotency_window = 0';
stays('appends', $is_long ? 1_000_000 : 8_000, each_by_itself($append), before => [$nothing]);
stays('appends through SQL', $is_long ? 200_000 : 4_000, each_by_itself($append), before => [$nothing, @$generic]);
stays('appends to long streams', $is_long ? 20_000 : 2_000, each_by_itself(q{SELECT FROM cqrs_es.append_event('long', 's:stream', 'e', '{}', event_id => cqrs_es.new_event_id())}),
	before => [q{SET work_mem = '64kB'}, q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload)
		SELECT 'long', 's' || n % 50, 'e', '{}' FROM generate_series(1, 110000) AS n}]);
stays('plain INSERT', $is_long ? 200_000 : 3_000, each_by_itself(q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', 's:stream', 'Put', '{"amount": 1}')}));
stays('commands', $is_long ? 100_000 : 4_000, each_by_itself(q{SELECT FROM cqrs_es.execute_command('account', 'c:stream', 'Put', '{"amount": 1}', command_id => cqrs_es.new_event_id())}), before => [$nothing]);
# what a session keeps of streams takes as much as it may
stays('commands to other streams', $is_long ? 100_000 : 4_000, each_by_itself(q{SELECT FROM cqrs_es.execute_command('account', 'f:n', 'Put', '{"amount": 1}')}), before => [$nothing, q{SET cqrs_es.state_cache_size = '40kB'}]);
stays('commands that are refused', $is_long ? 50_000 : 2_000, each_by_itself(q{SELECT FROM cqrs_es.execute_command('account', 'c:stream', 'Refuse')}, 'QE301'));
stays('appends that are refused', $is_long ? 50_000 : 2_000, each_by_itself(q{SELECT FROM cqrs_es.append_event('account', 's:stream', 'Put', '{"amount": 1}', expected_version => 1)}, 'QE001'));
stays('rebuilds', $is_long ? 1_000 : 60, each_by_itself(q{SET client_min_messages = error; SELECT cqrs_es.rebuild_projection('small')}), warm => 20);
stays('rebuilds in portions', $is_long ? 1_000 : 40, sub { each_by_itself(q{CALL cqrs_es.rebuild_in_portions('small', 20)})->($_[0]) },
	warm => 20, before => ['SET client_min_messages = error']);
stays('reads', $is_long ? 100_000 : 3_000, each_by_itself(q{SELECT count(*) FROM cqrs_es.read_page(0, 5); SELECT cqrs_es.aggregate_state('account', 's:stream'); SELECT FROM cqrs_es.read_stream('account', 's:stream', max_count => 3)}));
stays('batches of a subscription', $is_long ? 20_000 : 1_000, each_by_itself(q{SELECT cqrs_es.ack_events(batch) FROM cqrs_es.receive_events('work', 'me', 3) LIMIT 1}), warm => 100);

# --- many times in one transaction

sub in_a_block
{
	my ($body, $error) = @_;
	return sub {
		my ($times) = @_;
		my $first = $nth + 1;
		$nth += $times;
		my $inner = $error ? "BEGIN $body EXCEPTION WHEN SQLSTATE '$error' THEN caught := caught + 1; END;" : $body;
		my $check = $error ? "ASSERT caught = $times;" : '';
		$session->ask("DO \$\$ DECLARE caught int := 0; BEGIN FOR n IN $first .. $nth LOOP $inner END LOOP; $check END \$\$");
	};
}

my @in_transaction = (in_transaction => 1, warm => 1000);
stays('appends in one transaction', $is_long ? 1_000_000 : 6_000, in_a_block(q{PERFORM cqrs_es.append_event('bare', 's' || n % 50, 'e', '{"amount": 1}');}), @in_transaction);
stays('with all that hangs on them', $is_long ? 100_000 : 6_000, in_a_block(q{PERFORM cqrs_es.append_event('account', 't' || n % 50, 'Put', '{"amount": 1}');}),
	@in_transaction, each => NUMBERS, process_bound => $is_long ? 32_768 : 4096);
stays('appends to as many streams', $is_long ? 100_000 : 4_000, in_a_block(q{PERFORM cqrs_es.append_event('bare', 'new' || n, 'e', '{"amount": 1}');}), @in_transaction);
stays('and through SQL', $is_long ? 100_000 : 4_000, in_a_block(q{PERFORM cqrs_es.append_event('bare', 'new' || n, 'e', '{"amount": 1}');}), @in_transaction, before => $generic);
stays('in blocks with EXCEPTION', $is_long ? 100_000 : 4_000, in_a_block(q{BEGIN PERFORM cqrs_es.append_event('bare', 's' || n % 50, 'e', '{"amount": 1}'); EXCEPTION WHEN division_by_zero THEN NULL; END;}),
	@in_transaction, each => NUMBERS);
stays('events that follow from others', $is_long ? 100_000 : 4_000, in_a_block(q{PERFORM cqrs_es.append_event('cry', 's' || n % 50, 'e', '{"amount": 1}');}), @in_transaction);
stays('events of a strict aggregate', $is_long ? 100_000 : 4_000, in_a_block(q{PERFORM cqrs_es.append_event('strict', 's' || n % 50, 'Known', '{"amount": 1}');}),
	@in_transaction, each => PAIRS / 20, process_bound => $is_long ? 32_768 : 4096);	# one snapshot in twenty events
stays('commands in one transaction', $is_long ? 100_000 : 4_000, in_a_block(q{PERFORM cqrs_es.execute_command('account', 'd' || n % 50, 'Put', '{"amount": 1}', command_id => cqrs_es.new_event_id());}),
	@in_transaction, each => NUMBERS, process_bound => $is_long ? 32_768 : 4096, before => [$nothing]);

# refusals that are caught
my $refusals = $is_long ? 100_000 : 4_000;
stays('refused commands, caught', $refusals, in_a_block(q{PERFORM cqrs_es.execute_command('account', 'd' || n % 50, 'Refuse');}, 'QE301'), @in_transaction);
stays('stale versions, caught', $refusals, in_a_block(q{PERFORM cqrs_es.append_event('little', 's1', 'e', '{}', expected_version => 1);}, 'QE001'), @in_transaction);
stays('a handler that fails, caught', $refusals, in_a_block(q{PERFORM cqrs_es.append_event('unique', 'there', 'e', '{}');}, 'QE201'), @in_transaction);
stays('events of a strict aggregate, caught', $refusals, in_a_block(q{PERFORM cqrs_es.append_event('strict', 's1', 'e', '{}');}, 'QE103'), @in_transaction);
stays('holes of plain INSERTs, caught', $refusals,
	in_a_block(q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload) VALUES ('bare', 'hole', 7, 'e', '{}');}, 'QE003'), @in_transaction);
stays('the same through SQL, caught', $refusals, in_a_block(q{PERFORM cqrs_es.append_event('little', 's1', 'e', '{}', expected_version => 1);}, 'QE001'), @in_transaction, before => $generic);

# --- one batch

# The most that the process has ever taken, in kB, above what it takes now.
sub peak
{
	my ($query) = @_;

	$session = new_session();
	$pid = $session->value('SELECT pg_backend_pid()');
	$session->ask(q{SELECT FROM cqrs_es.append_events('bare', 'first', '[{"type": "e"}]')});
	append_to_file("/proc/$pid/clear_refs", '5');
	my $before = status('VmRSS') - status('RssShmem');
	my $shared = status('RssShmem');
	$session->ask($query);
	my $peak = status('VmHWM') - $before - (status('RssShmem'));
	my $left = status('VmRSS') - status('RssShmem') - $before;
	my $locks = locks();
	$session->close;
	return ($peak, $left, $locks);
}

SKIP:
{
	skip 'no /proc', 7 if !$has_proc;
	skip 'one batch: not asked for', 7 if 'one batch' !~ /$parts/;
	my $events = $is_long ? 1_000_000 : 20_000;
	my $array = sub { qq{(SELECT ('[' || string_agg('{"type": "e", "payload": {"n": ' || n || '}}', ',') || ']')::jsonb FROM generate_series(1, $_[0]) AS n)} };
	my ($array_alone) = peak("SELECT jsonb_array_length(${\$array->($events)})");
	my ($half) = peak("SELECT version FROM cqrs_es.append_events('bare', 'half', ${\$array->($events / 2)})");
	my ($peak, $left, $locks) = peak("SELECT version FROM cqrs_es.append_events('bare', 'batch', ${\$array->($events)})");
	note("a batch of $events: $peak kB at its peak, $array_alone of which the array alone takes; half of it: $half kB; $left kB are left");
	cmp_ok(($peak - $array_alone) * 1024 / $events, '<', 1024, 'a batch takes less than 1 kB for an event above its array');
	cmp_ok($peak, '<', 2.2 * $half + 4096, 'twice as many take twice as much');
	cmp_ok($left, '<', 4096, 'and it is given back');
	is($locks, '0', 'no lock is left');
	is($node->safe_psql('postgres', q{SELECT cqrs_es.stream_version('bare', 'batch')}), $events, 'they are all there');

	# as many rows of one statement
	my $insert = sub { qq{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'bare', 'rows$_[0]', 'e', '{"n": 1}' FROM generate_series(1, $_[0])} };
	($peak, $left, $locks) = peak($insert->($events));
	note("an INSERT of $events rows: $peak kB at its peak, $left kB are left");
	cmp_ok($peak * 1024 / $events, '<', 128 + 8_000_000 / $events, 'rows of one INSERT take no more than what the server notes for each');
	cmp_ok($left, '<', 4096, 'and it is given back');
}

# --- tags, conditions and boundaries; what stands above has no types with tags

$node->safe_psql('postgres', q{
	SELECT cqrs_es.define_tags('Tagged', 'half:{/half}', 'of:{/of}');
	SELECT cqrs_es.create_boundary('halves', '[{"types": ["Tagged"], "tags": ["half:{/half}"]}]', '{"n": 0}', snapshot_every => 20);
	SELECT cqrs_es.define_reducer('halves', 'Tagged', '[{"op": "increment", "path": "/n"}]');
	SELECT cqrs_es.define_command('halves', 'Take', $$jsonb_build_object('type', 'Tagged', 'payload', command)$$);
	SELECT cqrs_es.define_command('halves', 'Refuse', $$cqrs_es.reject('never', 'never')$$);
});
my $tagged = q{SELECT FROM cqrs_es.append_event('tagged', 's:stream', 'Tagged', '{"half": ":stream", "of": [":n", "all"]}', tags => '{given,given:n}')};
my $condition = q{SELECT FROM cqrs_es.append_to_streams('[{"type": "Tagged", "payload": {"half": ":stream", "of": ":n"}, "aggregate_type": "tagged", "aggregate_id": "c:stream"}, {"type": "Own", "tags": ["own:n"]}]',
	'[{"types": ["Tagged"], "tags": ["half::stream", "of::n"]}, {"tags": ["own:n"]}]')};
stays('appends with tags', $is_long ? 200_000 : 3_000, each_by_itself($tagged));
stays('appends with tags through SQL', $is_long ? 100_000 : 2_000, each_by_itself($tagged), before => $generic);
stays('rows with tags', $is_long ? 50_000 : 1_000, each_by_itself(q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'tagged', 'r:stream', 'Tagged', jsonb_build_object('half', ':stream', 'of', n) FROM generate_series(1, 3) AS n}));
stays('conditional appends', $is_long ? 100_000 : 2_000, each_by_itself($condition));
stays('conditional appends through SQL', $is_long ? 50_000 : 1_500, each_by_itself($condition), before => $generic);
stays('conditions that fail', $is_long ? 50_000 : 2_000, each_by_itself(q{SELECT FROM cqrs_es.append_to_streams('[{"type": "Own", "tags": ["own:n"]}]', '[{"tags": ["given"]}]')}, 'QE005'));
stays('conditions on everything', $is_long ? 20_000 : 1_000, each_by_itself(q{SELECT FROM cqrs_es.append_to_streams('[{"type": "Own"}]', '[{}]')}, 'QE005'));
stays('commands of boundaries', $is_long ? 50_000 : 1_500, each_by_itself(q{SELECT FROM cqrs_es.execute_boundary('halves', 'Take', '{"half": "b:stream", "of": ":n"}', command_id => cqrs_es.new_event_id())}));
stays('commands of boundaries that are refused', $is_long ? 50_000 : 1_500, each_by_itself(q{SELECT FROM cqrs_es.execute_boundary('halves', 'Refuse', '{"half": "b:stream"}')}, 'QE301'));
stays('reads by tags', $is_long ? 50_000 : 1_500, each_by_itself(q{SELECT count(*) FROM cqrs_es.read_matching('[{"tags": ["half:b:stream"]}]', max_count => 3); SELECT cqrs_es.boundary_state('halves', '{"half": "b:stream"}')}));
stays('tags that are defined anew', $is_long ? 2_000 : 150, each_by_itself(q{SELECT cqrs_es.define_tags('Anew', 'x:n:{/x?}'); SELECT cqrs_es.drop_tags('Anew')}), warm => 50);

stays('batches to many streams under a condition', $is_long ? 400 : 40, each_by_itself(q{SELECT count(*) FROM cqrs_es.append_to_streams((SELECT jsonb_agg(jsonb_build_object('type', 'Tagged', 'payload', jsonb_build_object('half', i % 50, 'of', i % 30),
	'aggregate_type', 'tagged', 'aggregate_id', 'b' || i % 100)) FROM generate_series(1, 500) AS i), '[{"tags": ["own:n"]}]')}), warm => 20);
stays('tagged appends in one transaction', $is_long ? 100_000 : 4_000,
	in_a_block(q{PERFORM cqrs_es.append_event('tagged', 't' || n % 50, 'Tagged', jsonb_build_object('half', n % 20, 'of', n % 30), tags => ARRAY['given' || n % 10]);}), @in_transaction);
stays('tagged rows in one transaction', $is_long ? 50_000 : 3_000,
	in_a_block(q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'tagged', 'u' || n % 50, 'Tagged', jsonb_build_object('half', n % 20, 'of', i) FROM generate_series(1, 2) AS i;}), @in_transaction);
stays('conditional appends in one transaction', $is_long ? 50_000 : 3_000,
	in_a_block(q{PERFORM FROM cqrs_es.append_to_streams(jsonb_build_array(jsonb_build_object('type', 'Tagged', 'payload', jsonb_build_object('half', n % 20, 'of', n % 30))),
		jsonb_build_array(jsonb_build_object('types', jsonb_build_array('Never'), 'tags', jsonb_build_array('half:' || n % 20))));}), @in_transaction);
stays('commands of boundaries in one transaction', $is_long ? 50_000 : 3_000,
	in_a_block(q{PERFORM cqrs_es.execute_boundary('halves', 'Take', jsonb_build_object('half', 'm' || n % 20, 'of', n % 30));}), @in_transaction, each => NUMBERS, process_bound => $is_long ? 32_768 : 4096);
stays('conditions that fail, caught', $refusals, in_a_block(q{PERFORM FROM cqrs_es.append_to_streams('[{"type": "Own"}]', '[{"tags": ["given"]}]');}, 'QE005'), @in_transaction);
stays('tags without a value, caught', $refusals, in_a_block(q{PERFORM cqrs_es.append_event('tagged', 's1', 'Tagged', '{"half": 1}');}, 'QE502'), @in_transaction);
stays('rows without a value, caught', $refusals,
	in_a_block(q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('tagged', 's1', 'Tagged', '{"half": 1, "of": 1}'), ('tagged', 's1', 'Tagged', '{"half": 1}');}, 'QE502'), @in_transaction);

SKIP:
{
	skip 'no /proc', 5 if !$has_proc;
	skip 'one batch: not asked for', 5 if 'one batch' !~ /$parts/;
	my $events = $is_long ? 500_000 : 20_000;
	my $array = sub {
		my ($times, $stream) = @_;
		return qq{(SELECT ('[' || string_agg('{"type": "Tagged", "payload": {"half": ' || n % 500 || ', "of": [1, 2]}$stream}', ',') || ']')::jsonb FROM generate_series(1, $times) AS n)};
	};
	my ($array_alone) = peak("SELECT jsonb_array_length(${\$array->($events, '')})");
	my ($half) = peak("SELECT version FROM cqrs_es.append_events('bare', 'tagged half', ${\$array->($events / 2, '')})");
	my ($peak, $left) = peak("SELECT version FROM cqrs_es.append_events('bare', 'tagged batch', ${\$array->($events, '')})");
	note("a batch of $events with three tags each: $peak kB at its peak, $array_alone of which the array alone takes; half of it: $half kB; $left kB are left");
	cmp_ok(($peak - $array_alone) * 1024 / $events, '<', 2048, 'a batch takes less than 2 kB for an event with three tags above its array');
	cmp_ok($peak, '<', 2.2 * $half + 4096, 'twice as many take twice as much');
	cmp_ok($left, '<', 4096, 'and it is given back');
	my $streams = q(, "aggregate_type": "bare", "aggregate_id": "several' || n % 100 || '");
	($peak, $left) = peak("SELECT count(*) FROM cqrs_es.append_to_streams(${\$array->($events, $streams)}, '[{\"tags\": [\"nobody\"]}]')");
	note("the same to a hundred streams, under a condition: $peak kB at its peak, $left kB are left");
	# what is left is malloc's: see "batches to many streams"
	cmp_ok(($peak - $array_alone) * 1024 / $events, '<', 4096, 'to many streams under a condition, less than 4 kB');
	($peak, $left) = peak(qq{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'bare', 'tagged rows', 'Tagged', '{"half": 1, "of": [1, 2]}' FROM generate_series(1, $events)});
	note("an INSERT of $events rows with three tags: $peak kB at its peak, $left kB are left");
	cmp_ok($peak * 1024 / $events, '<', 128 + 8_000_000 / $events, 'rows of one INSERT with tags take no more than those without');
}

is($node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.verify_log() WHERE problem IS NOT NULL}), '0', 'the log is sound');
$node->stop;
done_testing();
