# A whole system under load, and the check of all of it against what was acknowledged.
#
# Writers append events, one, three, to two streams, late, in vain, with plain INSERT; others send commands. Two
# synchronous projections, one of states, and two asynchronous ones keep read tables. Two consumers share a subscription,
# a reader keeps its cursor outside of the database, and one inside. All of them are processes with a session each; when it is
# lost they look for the server again, and who has sent an id sends it until there is an answer. What each process was
# told it writes into a file.
#
#	my $load = Workload->new($node, seed => 1);
#	$load->set_up;				# the extension, and what is declared
#	$load->start;
#	$load->until_acknowledged(500);		# so many more than now
#	$load->serve($other);			# the server is another one from now on
#	$load->run('name', sub { ... });	# a process of one's own, which may call attempt()
#	$load->calm;				# writers come to an end, and readers to the end of the log
#	$load->check('title');			# everything

package Workload;

use strict;
use warnings FATAL => 'all';
use Digest::MD5 qw(md5_hex);
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use lib "$ENV{TESTDIR}/test/include";
use Session;

# How many events are of one key.
my %events_of = (single => 1, late => 1, batch => 3, pair => 2, insert => 1, command => 1, vain => 0);

# What may happen to whoever works beside deaths, cancels and locks on whole tables.
my $expected = '08006|57P0[123]|57014|40P01|55P03';

my %of_this_process;

sub new
{
	my ($class, $node, %options) = @_;
	my $self = bless {
		database => 'postgres', seed => 20261126, expected => '',
		user => scalar getpwuid($>), parent => $$, directory => PostgreSQL::Test::Utils::tempdir('load'),
		pids => {}, started => 0, offset => {}, count => 0, %options
	}, $class;

	$of_this_process{$self} = $self;
	$self->serve($node);
	return $self;
}

sub file { return "$_[0]{directory}/$_[1]" }
sub is_set { return -e $_[0]->file($_[1]) }
sub set { append_to_file($_[0]->file($_[1]), "\n"); return }

# Which server is asked.
sub serve
{
	my ($self, $node) = @_;
	my $file = $self->file('server');

	append_to_file("$file.new", $node->host . ' ' . $node->port);
	rename "$file.new", $file or die "could not rename: $!";
	$self->{node} = $node;
	return;
}

# Kill the postmaster with -9, and with it all processes, or let them find out; until none of them is left.
sub kill_server
{
	my ($self, $all) = @_;
	my ($postmaster) = split /\n/, slurp_file($self->{node}->data_dir . '/postmaster.pid');
	my ($session, @processes);

	# this session may be cancelled, or ended, as any other
	$self->wait_until(sub {
		$session = Session->new($self->{node}->host, $self->{node}->port, $self->{user}, 'postgres') or return;
		kill 'STOP', $postmaster;		# nobody comes any more
		my ($rows) = $session->try('SELECT pid FROM pg_stat_activity');
		return @processes = ($postmaster, map { $_->[0] } @$rows) if !$session->{state};
		kill 'CONT', $postmaster;
		$session->close;
		return;
	}) or BAIL_OUT('no session can ask who is there');
	kill 'KILL', @processes if $all;
	$self->{node}->kill9;
	$session->close;
	$self->wait_until(sub { !kill 0, @processes }) or BAIL_OUT('processes of a server that was killed do not end');
	return;
}

sub sql { my ($self, $query) = @_; return $self->{node}->safe_psql($self->{database}, $query) }

# --- what is declared

sub set_up
{
	my ($self) = @_;
	my $change = '[{"op": "increment", "path": "/events", "value": 1}, {"op": "increment", "path": "/sum", "from": "/amount"}]';
	my $sums = '(id text PRIMARY KEY, events bigint NOT NULL, sum bigint NOT NULL, last bigint NOT NULL, in_order boolean NOT NULL)';
	my $add = sub {
		my ($table) = @_;
		return qq{INSERT INTO $table VALUES (event.aggregate_id, 1, (event.payload->>'amount')::bigint, event.sequence, event.sequence = 1)
			ON CONFLICT (id) DO UPDATE SET events = $table.events + 1, sum = $table.sum + excluded.sum, last = excluded.last,
				in_order = $table.in_order AND excluded.last = $table.last + 1};
	};

	$self->sql(qq{
		CREATE EXTENSION cqrs_es;
		SELECT cqrs_es.create_aggregate('account', '{"events": 0, "sum": 0}', snapshot_every => 5);
		SELECT cqrs_es.define_reducer('account', type, '$change'::jsonb) FROM unnest('{Put,Taken}'::text[]) AS type;
		SELECT cqrs_es.define_command('account', 'Put', \$\$jsonb_build_object('type', 'Put', 'payload', command)\$\$);
		SELECT cqrs_es.define_command('account', 'Take', \$\$CASE WHEN (state->>'sum')::bigint + (command->>'amount')::bigint < 0
			THEN cqrs_es.reject('not enough') ELSE jsonb_build_object('type', 'Taken', 'payload', command) END\$\$);

		CREATE TABLE totals $sums;
		CREATE TABLE entries (position bigint PRIMARY KEY, key text NOT NULL);
		CREATE TABLE accounts (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
		CREATE TABLE later $sums;
		CREATE TABLE each_stream $sums;
		SELECT cqrs_es.create_projection('totals', '{account}', '{totals}');
		SELECT cqrs_es.define_handler('totals', '*', \$\$${\$add->('totals')}\$\$);
		SELECT cqrs_es.create_projection('entries', '{account}', '{entries}');
		SELECT cqrs_es.define_handler('entries', '*', 'INSERT INTO entries VALUES (event.global_position, event.payload->>''key'')');
		SELECT cqrs_es.create_projection('accounts', read_models => '{accounts}', state_of => 'account');
		SELECT cqrs_es.create_projection('later', '{account}', '{later}', mode => 'async');
		SELECT cqrs_es.define_handler('later', '*', \$\$${\$add->('later')}\$\$);
		SELECT cqrs_es.create_projection('each stream', '{account}', '{each_stream}', mode => 'async', per_stream => true);
		SELECT cqrs_es.define_handler('each stream', '*', \$\$${\$add->('each_stream')}\$\$);

		SELECT cqrs_es.create_subscription('work', lease => '2 s', max_attempts => 1000);
		CREATE TABLE deliveries (id bigserial PRIMARY KEY, position bigint NOT NULL, consumer text NOT NULL);
		CREATE TABLE effects (position bigint PRIMARY KEY);
		CREATE TABLE cursors (reader text PRIMARY KEY, position bigint NOT NULL);
		INSERT INTO cursors VALUES ('inside', 0);
		CREATE TABLE copied (position bigint PRIMARY KEY, event_id uuid NOT NULL);
	});
	return;
}

# --- processes

sub run
{
	my ($self, $name, $work) = @_;
	my $number = ++$self->{started};
	my $pid = fork // die "could not fork: $!";

	if ($pid) { $self->{pids}{$pid} = $name; return $pid }
	$SIG{$_} = 'DEFAULT' foreach qw(TERM INT HUP);
	srand $self->{seed} + 7919 * $number;
	$self->{name} = $name;
	eval { $work->(); 1 } or append_to_file($self->file('complaints'), "$name: $@\n");
	POSIX::_exit(0);
}

sub start
{
	my ($self) = @_;

	$self->run("writer$_", sub { $self->write_events }) foreach 1 .. 3;
	$self->run("commander$_", sub { $self->send_commands }) foreach 1 .. 2;
	$self->run("consumer$_", sub { $self->consume }) foreach 1 .. 2;
	$self->run('outside', sub { $self->read_outside });
	$self->run('inside', sub { $self->read_inside });
	return;
}

# Wait for the processes with such names.
sub end_of
{
	my ($self, $names) = @_;

	foreach my $pid (grep { $self->{pids}{$_} =~ $names } keys %{ $self->{pids} })
	{
		waitpid $pid, 0;
		delete $self->{pids}{$pid};
	}
	return;
}

sub kill_processes
{
	my ($self) = @_;
	return if $$ != $self->{parent};
	kill 'KILL', keys %{ $self->{pids} };
	waitpid $_, 0 foreach keys %{ $self->{pids} };
	$self->{pids} = {};
	return;
}

END { my $status = $?; $_->kill_processes foreach values %of_this_process; $? = $status }

# A session with the server that there is now, which may take a while.
sub connected
{
	my ($self) = @_;

	while (1)
	{
		POSIX::_exit(0) if $$ != $self->{parent} && getppid() != $self->{parent};
		my ($host, $port) = split / /, slurp_file($self->file('server'));
		my $session = Session->new($host, $port, $self->{user}, $self->{database});
		if ($session)
		{
			$session->try("SET client_min_messages = error; SET statement_timeout = '60s'; SET application_name = '$self->{name}'");
			return $session if $session->{socket} && !$session->{state};
		}
		usleep(20_000);
	}
}

# The results of some statements; undef after an error, which is put down, and the transaction is rolled back.
sub attempt
{
	my ($self, $sql, $more) = @_;
	my $session = $self->{session} //= $self->connected;
	my @results = $session->try($sql);
	my ($state, $message) = @$session{qw(state message)};
	my $all_expected = join '|', $expected, grep { $_ } $self->{expected}, $more;

	$self->{state} = $state;
	return \@results if !$state;
	$self->{is_expected} = $state =~ /^(?:$all_expected)$/;
	append_to_file($self->file("met-$self->{name}"), join("\t", $self->{is_expected} ? 1 : 0, $state, $message =~ s/\s+/ /gr, substr($sql, 0, 120) =~ s/\s+/ /gr) . "\n");
	$session->try('ROLLBACK') if $session->{socket} && $session->{transaction} ne 'I';
	undef $self->{session} if !$session->{socket};
	return;
}

sub acknowledge
{
	my ($self, $key, $stream, $row) = @_;
	append_to_file($self->file("acknowledged-$self->{name}"), join("\t", $key, $stream, @$row[0, 1]) . "\n");
	return;
}

# Until there is an answer: statements with ids. It is the last of their results.
sub insist
{
	my ($self, $key, $stream, $sql) = @_;

	while (1)
	{
		my $results = $self->attempt($sql);
		if ($results) { $self->acknowledge($key, $stream, $results->[-1][0]); return }
		return if !$self->{is_expected};
		usleep(rand 20_000);
	}
}

# --- writers

sub id { my $hex = md5_hex(join '/', @_); return join '-', unpack 'a8 a4 a4 a4 a12', $hex }

sub payload
{
	my ($key, $amount) = @_;
	return qq({"key": "$key", "amount": $amount});
}

sub append
{
	my ($stream, $key, $nth, $amount) = @_;
	return sprintf q{SELECT version, global_position FROM cqrs_es.append_event('account', '%s', 'Put', '%s', event_id => '%s')},
		$stream, payload($key, $amount), id($key, $nth);
}

# Streams change now and then: many of them, of which some have many writers.
sub a_stream { my ($self, $n, $first) = @_; return sprintf '%s%03d', $first, int(rand 12) + 6 * int($n / 200) }

sub write_events
{
	my ($self) = @_;

	for (my $n = 1; !$self->is_set('stop_writing'); $n++)
	{
		my $kind = (qw(single single single batch batch pair late vain insert insert))[ rand 10 ];
		my $key = "$kind-$self->{name}-$n";
		my ($stream, $other) = sort map { $self->a_stream($n, 's') } 1 .. 2;
		my $amount = int rand 100;

		if ($kind eq 'single')
		{
			# at times behind an append that is taken back
			my $begin = rand() < 0.2 ? 'SAVEPOINT s; ' . append($stream, "vain-$key", 1, 1) . '; ROLLBACK TO SAVEPOINT s; ' : '';
			$self->insist($key, $stream, "BEGIN; $begin" . append($stream, $key, 1, $amount) . '; COMMIT');
		}
		elsif ($kind eq 'batch')
		{
			my $events = join ', ', map { sprintf '{"type": "Put", "payload": %s, "id": "%s"}', payload($key, $amount + $_), id($key, $_) } 1 .. 3;
			$self->insist($key, $stream, "SELECT version, global_position FROM cqrs_es.append_events('account', '$stream', '[$events]')");
		}
		elsif ($kind eq 'pair')
		{
			$self->insist($key, $other, 'BEGIN; ' . append($stream, $key, 1, $amount) . '; ' . append($other, $key, 2, -$amount) . '; COMMIT');
		}
		elsif ($kind eq 'late')
		{
			$self->insist($key, $stream, 'BEGIN; ' . append($stream, $key, 1, $amount) . "; SELECT pg_sleep(${\rand 0.03}); "
				. append($stream, $key, 1, $amount) . '; COMMIT');
		}
		elsif ($kind eq 'vain') { $self->attempt('BEGIN; ' . append($stream, $key, 1, 1) . '; ROLLBACK') }
		else
		{
			# without an id: nobody knows what became of it when there is no answer
			my $results = $self->attempt('INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES '
				. "('account', '$stream', 'Put', '${\payload($key, $amount)}') RETURNING sequence, global_position", '23505');
			$self->acknowledge($key, $stream, $results->[0][0]) if $results;
		}
		usleep(rand 4000);
	}
	return;
}

# Nothing but commands is sent to these streams, and none of them is ever overdrawn.
sub send_commands
{
	my ($self) = @_;

	for (my $n = 1; !$self->is_set('stop_writing'); $n++)
	{
		my $key = "command-$self->{name}-$n";
		my $stream = sprintf 'c%03d', int(rand 4) + 2 * int($n / 200);
		my ($type, $amount) = rand() < 0.5 ? ('Put', int rand 50) : ('Take', -int rand 100);
		my $sql = sprintf q{SELECT version, global_position FROM cqrs_es.execute_command('account', '%s', '%s', '%s', command_id => '%s')},
			$stream, $type, payload($key, $amount), id($key);
		while (1)
		{
			my $results = $self->attempt($sql, 'QE001|QE301');
			if ($results) { $self->acknowledge($key, $stream, $results->[0][0]); last }
			if ($self->{state} eq 'QE301') { append_to_file($self->file("refused-$self->{name}"), "$key\n"); last }
			last if !$self->{is_expected};
			usleep(rand 20_000);
		}
		usleep(rand 6000);
	}
	return;
}

# --- readers

# Effects in the transaction of the acknowledgement; what was handed out is written down before.
sub consume
{
	my ($self) = @_;

	until ($self->is_set('stop_reading'))
	{
		# what it had in hand when something went wrong comes at once
		my $resume = $self->{state} ? 'true' : 'false';
		my $results = $self->attempt("SELECT batch, global_position FROM cqrs_es.receive_events('work', '$self->{name}', ${\(1 + int rand 50)}, resume => $resume)");
		if (!$results) { usleep(10_000); next }
		my @rows = @{ $results->[0] };
		if (!@rows) { $self->attempt(q{CALL cqrs_es.wait_for_events('work', timeout => '200 ms')}); next }
		my $values = sub { my ($format) = @_; return join ', ', map { sprintf $format, $_->[1] } @rows };
		$self->attempt('INSERT INTO deliveries (position, consumer) VALUES ' . $values->("(%s, '$self->{name}')")) or next;
		$self->attempt('BEGIN; INSERT INTO effects VALUES ' . $values->('(%s)') . "; SELECT cqrs_es.ack_events('$rows[0][0]'); COMMIT", 'QE401');
	}
	return;
}

# What it has read is in a file, as is its cursor.
sub read_outside
{
	my ($self) = @_;
	my $after = 0;

	until ($self->is_set('stop_reading'))
	{
		my $results = $self->attempt("SELECT global_position, event_id, read_to FROM cqrs_es.read_page($after, 100)");
		if (!$results) { usleep(10_000); next }
		my @rows = grep { defined $_->[1] } @{ $results->[0] };
		append_to_file($self->file('read'), join '', map { "$_->[0]\t$_->[1]\n" } @rows) if @rows;
		$after = $results->[0][-1][2];
		$self->attempt("CALL cqrs_es.wait_for_events(after_position => $after, timeout => '200 ms')") if !@rows;
	}
	return;
}

sub read_inside
{
	my ($self) = @_;

	until ($self->is_set('stop_reading'))
	{
		my $results = $self->attempt(q{BEGIN; SELECT position FROM cursors WHERE reader = 'inside' FOR UPDATE});
		if (!$results) { usleep(10_000); next }
		my $after = $results->[0][0][0];
		$results = $self->attempt(qq{
			WITH page AS MATERIALIZED (SELECT * FROM cqrs_es.read_page($after, 100)),
				copy AS (INSERT INTO copied SELECT global_position, event_id FROM page WHERE event_id IS NOT NULL RETURNING position)
			UPDATE cursors SET position = (SELECT max(read_to) FROM page) WHERE reader = 'inside' RETURNING (SELECT count(*) FROM copy); COMMIT}) or next;
		usleep(20_000) if !$results->[0][0][0];
	}
	return;
}

# --- what there is

sub lines_of
{
	my ($self, $pattern) = @_;
	return map { -e $_ ? split /\n/, slurp_file($_) : () } glob $self->file($pattern);
}

# How much was acknowledged.
sub acknowledged
{
	my ($self) = @_;

	foreach my $file (glob $self->file('acknowledged-*'))
	{
		open my $handle, '<', $file or die "could not open $file: $!";
		seek $handle, $self->{offset}{$file} // 0, 0;
		local $/;
		my $new = <$handle> // '';
		$self->{offset}{$file} += length $new;
		$self->{count} += $new =~ tr/\n//;
	}
	return $self->{count};
}

# Until something is so; false when it takes too long.
sub wait_until
{
	my ($self, $condition) = @_;
	my $begin = time;

	until ($condition->())
	{
		return 0 if time - $begin > $PostgreSQL::Test::Utils::timeout_default;
		usleep(20_000);
	}
	return 1;
}

sub until_acknowledged
{
	my ($self, $more) = @_;
	my $goal = $self->acknowledged + $more;
	return $self->wait_until(sub { $self->acknowledged >= $goal });
}

# Writers come to an end, then readers to the end of the log, and asynchronous projections, too.
sub calm
{
	my ($self) = @_;

	$self->set('stop_writing');
	$self->end_of(qr/^(writer|commander)/);
	my $undone = q{SELECT count(*) FROM cqrs_es.events AS e
		WHERE NOT EXISTS (SELECT FROM effects WHERE position = global_position) OR NOT EXISTS (SELECT FROM copied WHERE position = global_position)};
	ok($self->wait_until(sub { $self->sql($undone) eq '0' }), 'consumers, and the reader inside, come to the end of the log');
	my $last = $self->sql('SELECT max(global_position) FROM cqrs_es.events');
	ok($self->wait_until(sub { (($self->lines_of('read'))[-1] // '') =~ /^$last\t/ }), 'so does the reader outside');
	$self->set('stop_reading');
	$self->end_of(qr/./);
	$self->sql('CALL cqrs_es.run_projections()');
	return;
}

# --- the check

sub rows
{
	my ($self, $what, $query) = @_;
	my @rows = split /\n/, $self->sql($query);
	is(join("\n", grep { defined } @rows[ 0 .. 9 ]), '', $what . (@rows > 10 ? ' (' . @rows . ' rows)' : ''));
	return;
}

# A table of what stands in files, in its order.
sub table_from
{
	my ($self, $table, $columns, @lines) = @_;
	my $file = $self->file("$table.copy");
	my $names = join ', ', $columns =~ /(\w+) \w+/g;

	unlink $file;
	append_to_file($file, join '', map { "$_\n" } @lines);
	$self->sql(qq{
		DROP TABLE IF EXISTS $table;
		CREATE TABLE $table ($columns, nr bigint GENERATED ALWAYS AS IDENTITY);
		COPY $table ($names) FROM '$file';
		ANALYZE $table;
	});
	return;
}

# Everything. What may be missing, "lost => 1" (a failover to a standby that had not got everything), are events of which
# the caller says more; then all else is held against the log that is left.
sub check
{
	my ($self, $title, %options) = @_;
	my $t = sub { "$title: $_[0]" };

	$self->sql('ANALYZE');
	$self->table_from('acknowledged', 'key text, stream text, version bigint, position bigint', $self->lines_of('acknowledged-*'));
	$self->table_from('refused', 'key text', $self->lines_of('refused-*'));
	$self->table_from('read', 'position bigint, event_id uuid', $self->lines_of('read'));
	$self->table_from('kinds', 'kind text, events bigint', map { "$_\t$events_of{$_}" } keys %events_of);
	my $missing = q{SELECT key FROM acknowledged AS a WHERE NOT EXISTS (SELECT FROM cqrs_es.events
		WHERE aggregate_id = stream AND sequence = version AND global_position = position AND payload->>'key' = key)};

	$self->rows($t->('nothing that was acknowledged is lost: it is where the answer said'), $missing) if !$options{lost};
	$self->rows($t->('nothing is there by half, twice, or in vain'), q{
		SELECT key, count(*) FROM (SELECT payload->>'key' AS key FROM cqrs_es.events) AS e LEFT JOIN kinds ON kind = split_part(key, '-', 1)
		GROUP BY key, events HAVING count(*) IS DISTINCT FROM events});
	$self->rows($t->('no event is of a command that was refused'), q{SELECT key FROM refused JOIN cqrs_es.events ON payload->>'key' = key});
	$self->rows($t->('no id is there twice'), 'SELECT event_id FROM cqrs_es.events GROUP BY 1 HAVING count(*) > 1');
	$self->rows($t->('streams have no hole, and positions rise in them'), q{
		SELECT * FROM (SELECT aggregate_id, sequence, row_number() OVER w AS expected, global_position, lag(global_position) OVER w AS before
			FROM cqrs_es.events WINDOW w AS (PARTITION BY aggregate_id ORDER BY sequence)) AS s
		WHERE sequence <> expected OR global_position <= before});
	$self->rows($t->('commands never saw anything but the state'), q{
		SELECT * FROM (SELECT aggregate_id, sequence, sum((payload->>'amount')::bigint) OVER (PARTITION BY aggregate_id ORDER BY sequence) AS sum
			FROM cqrs_es.events WHERE aggregate_id LIKE 'c%') AS s WHERE sum < 0});

	my $recomputed = q{(SELECT aggregate_id AS id, count(*) AS events, sum((payload->>'amount')::bigint)::bigint AS sum, max(sequence) AS last, true AS in_order
		FROM cqrs_es.events GROUP BY 1)};
	foreach my $table ('totals', 'later', 'each_stream')
	{
		$self->rows($t->("read table $table equals its recompute, and every event came in order"),
			"SELECT * FROM $recomputed AS r FULL JOIN $table USING (id, events, sum, last, in_order) WHERE r IS NULL OR $table IS NULL");
	}
	$self->rows($t->('so does one with a row for each event'), q{
		SELECT * FROM cqrs_es.events AS e FULL JOIN entries ON position = global_position AND key = payload->>'key' WHERE e IS NULL OR entries IS NULL});
	$self->rows($t->('and one of states'), qq{
		SELECT * FROM (SELECT id AS view_id, last AS version, jsonb_build_object('events', events, 'sum', sum) AS payload FROM $recomputed AS r) AS r
		FULL JOIN accounts USING (view_id, version, payload) WHERE r IS NULL OR accounts IS NULL});
	$self->rows($t->('snapshots equal the replay, and the newest that is due is there'), q{
		SELECT id, last, s.last_sequence, s.payload FROM } . $recomputed . q{ AS r LEFT JOIN cqrs_es.snapshots AS s ON s.aggregate_id = id
		WHERE last >= 5 AND (s.last_sequence IS DISTINCT FROM last / 5 * 5 OR s.payload IS DISTINCT FROM
			(SELECT jsonb_build_object('events', count(*), 'sum', sum((payload->>'amount')::bigint)) FROM cqrs_es.events WHERE aggregate_id = id AND sequence <= s.last_sequence))});
	$self->rows($t->('so does the state'), q{
		SELECT id, version, state FROM } . $recomputed . q{ AS r, cqrs_es.load_aggregate('account', id)
		WHERE version <> last OR state <> jsonb_build_object('events', events, 'sum', sum)});

	$self->rows($t->('read_all gives every event, once, in order'), q{
		SELECT * FROM (SELECT row_number() OVER () AS nr, global_position FROM cqrs_es.read_all(0, NULL)) AS r
		FULL JOIN (SELECT row_number() OVER (ORDER BY global_position) AS nr, global_position FROM cqrs_es.events) AS e USING (nr, global_position)
		WHERE r IS NULL OR e IS NULL});
	$self->rows($t->('the reader outside missed nothing'), q{
		SELECT global_position, xmin, created_at, payload->>'key' FROM cqrs_es.events AS e WHERE NOT EXISTS (SELECT FROM read WHERE position = global_position AND read.event_id = e.event_id)});
	$self->rows($t->('it has read all in order, once'), 'SELECT * FROM (SELECT nr, position, lag(position) OVER (ORDER BY nr) AS before FROM read) AS r WHERE position <= before');
	$self->rows($t->('and nothing that is not in the log'), 'SELECT position FROM read WHERE NOT EXISTS (SELECT FROM cqrs_es.events WHERE global_position = position)') if !$options{lost};
	$self->rows($t->('the reader inside has each event'), q{
		SELECT * FROM cqrs_es.events AS e FULL JOIN copied AS c ON position = global_position AND c.event_id = e.event_id WHERE e IS NULL OR c IS NULL});
	$self->rows($t->('effects of consumers are there, once for each event'), q{
		SELECT * FROM cqrs_es.events AS e FULL JOIN effects ON position = global_position WHERE e IS NULL OR effects IS NULL});
	$self->rows($t->('first deliveries of a stream are in order'), q{
		SELECT * FROM (SELECT aggregate_id, sequence, first, lag(first) OVER (PARTITION BY aggregate_id ORDER BY sequence) AS before
			FROM (SELECT position, min(id) AS first FROM deliveries GROUP BY 1) AS d JOIN cqrs_es.events ON global_position = position) AS o
		WHERE first < before});
	$self->rows($t->('nothing is left to do for anybody'), q{
		SELECT name, state, lag_events, in_hand, parked, blocked, last_error FROM cqrs_es.subscription_status WHERE state <> 'active' OR lag_events > 0 OR in_hand > 0 OR parked > 0
		UNION ALL SELECT name, state, lag_events, NULL, parked, NULL, coalesce(last_error, errors::text) FROM cqrs_es.projection_status
			WHERE state <> 'live' OR lag_events > 0 OR parked > 0 OR errors IS NOT NULL});

	$self->rows($t->('verify_log finds no problem'), 'SELECT * FROM cqrs_es.verify_log() WHERE problem IS NOT NULL');
	$self->rows($t->('nothing is missing'), 'SELECT * FROM cqrs_es.missing_objects');
	$self->rows($t->('indexes are sound'), q{
		CREATE EXTENSION IF NOT EXISTS amcheck;
		WITH own AS MATERIALIZED (SELECT c.oid FROM pg_class AS c JOIN pg_index ON indexrelid = c.oid JOIN pg_am AS a ON a.oid = relam
			WHERE amname = 'btree' AND relkind = 'i' AND indisvalid AND relnamespace IN ('cqrs_es'::regnamespace, 'public'::regnamespace) AND relpersistence = 'p')
		SELECT oid::regclass FROM own WHERE bt_index_parent_check(oid, true)::text <> ''}) if $self->has_amcheck;
	$self->check_met($title);
	return;
}

sub has_amcheck { return $_[0]->sql(q{SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'}) }

# Which errors the processes have met.
sub check_met
{
	my ($self, $title) = @_;
	my (%met, @unexpected);

	foreach ($self->lines_of('met-*'))
	{
		my ($is_expected, $state, $message, $sql) = split /\t/;
		$met{$state}++;
		push @unexpected, "$state $message: $sql" if !$is_expected;
	}
	is(join("\n", (@unexpected)[ 0 .. ($#unexpected > 9 ? 9 : $#unexpected) ], $self->lines_of('complaints')), '', "$title: no error but those that deaths, cancels and locks make");
	note(scalar($self->acknowledged) . ' acknowledged, ' . $self->sql('SELECT count(*) FROM cqrs_es.events') . ' events; met: '
		. join(', ', map { "$_ $met{$_} times" } sort keys %met));
	$self->{met} = \%met;
	return;
}

1;
