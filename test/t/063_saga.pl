# The process of examples/saga.sql under everything that happens to those who run it.
#
# Customers place each order twice, and cancel some. Consumers of "checkout", one kind
# of a client's calls and one of the example's procedure, die anywhere (kill -9), have
# their connections cut, and get all events once more in the middle. A bank, which is
# another database, is told by consumers that die as well, and delivers what it
# has to say several times, by several processes, late, or not at all. Two schedulers call
# due_payments() at once, all the time. The server is killed in the middle.
#
# At the end each order is in one of the states that are allowed, no step was doubled,
# no money and nothing of the stock was lost or made, here and at the bank, and
# what belongs to an order has one correlation id.
#
# CQRS_ES_SAGA_ORDERS: how many orders (120); CQRS_ES_SAGA_SEED.

use strict;
use warnings FATAL => 'all';
use List::Util qw(shuffle);
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use lib "$ENV{TESTDIR}/test/include";
use Session;

my $orders = $ENV{CQRS_ES_SAGA_ORDERS} || 120;
my $seed = $ENV{CQRS_ES_SAGA_SEED} || 20261126;
my $directory = PostgreSQL::Test::Utils::tempdir();
my $calm = "$directory/calm";			# nobody dies any more when it is there
my $user = getpwuid $>;
my $parent = $$;

my $node = PostgreSQL::Test::Cluster->new('saga');
$node->init;
$node->append_conf('postgresql.conf', "restart_after_crash = on\nlog_min_messages = fatal\nmax_connections = 60");
$node->start;
$node->command_ok([ 'psql', '-X', '-q', '-o', '/dev/null', '-d', $node->connstr('postgres'), '-f', "$ENV{TESTDIR}/examples/saga.sql" ],
	'the example runs');
$node->safe_psql('postgres', sprintf q{
	-- of one thing there is enough for some of the orders alone
	SELECT cqrs_es.append_event('stock', 'pen', 'GoodsArrived', '{"quantity": 100000}'),
		cqrs_es.append_event('stock', 'desk', 'GoodsArrived', '{"quantity": %d}');
	SELECT cqrs_es.alter_subscription(name, lease => '0.7 s', retry_delay => '20 ms', retry_delay_max => '200 ms', max_attempts => 50)
	FROM unnest('{checkout,payment provider}'::text[]) AS name;
}, $orders / 10);
$node->safe_psql('postgres', 'CREATE DATABASE bank');
$node->safe_psql('bank', q{
	-- what it was told, each thing once; what it has to say
	CREATE TABLE told (key uuid PRIMARY KEY, order_id text, what text, amount numeric);
	CREATE TABLE messages (id text PRIMARY KEY, order_id text, outcome text, amount numeric);
	CREATE TABLE delivered (message_id text);
	-- somebody who pays for what nobody knows
	INSERT INTO messages SELECT 'stray-' || n, 'nobody-' || n, 'paid', n FROM generate_series(1, 5) AS n;
	CREATE FUNCTION tell(told_key uuid, told_order text, told_what text, told_amount numeric) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		number int := substring(told_order FROM 's-(\d+)')::int;
	BEGIN
		INSERT INTO told VALUES (told_key, told_order, told_what, told_amount) ON CONFLICT DO NOTHING;
		IF NOT FOUND OR told_what <> 'PaymentRequested' THEN
			RETURN;
		END IF;
		INSERT INTO messages
		SELECT told_order || ' ' || says.n, told_order, says.outcome, says.amount
		FROM (VALUES (4, 1, 'refused', NULL), (4, 2, 'paid', told_amount),			-- refused, and then paid after all, or the other way round
			(7, 1, 'paid', told_amount), (7, 2, 'paid', told_amount),				-- paid twice
			(8, 1, 'paid', told_amount + 1)) AS says (behaviour, n, outcome, amount)	-- paid too much
		WHERE says.behaviour = number % 10
		UNION ALL SELECT told_order || ' 1', told_order, 'paid', told_amount WHERE number % 10 NOT IN (4, 5, 7, 8);	-- 5: never pays
	END $$;
});

# --- sessions

sub connected
{
	my ($database) = @_;
	while (1)
	{
		POSIX::_exit(0) if $$ != $parent && getppid() != $parent;
		my $session = Session->new($node->host, $node->port, $user, $database // 'postgres');
		if ($session)
		{
			$session->try("SET statement_timeout = '30s'; SET client_min_messages = error");
			return $session if !$session->{state};
		}
		usleep(50_000);
	}
}

sub chance { return rand() < $_[0] }

# Die here now and then.
sub may_die { kill 'KILL', $$ if chance($_[0]) && !-e $calm }

sub complain
{
	my ($what) = @_;
	append_to_file("$directory/complaints", "$what\n");
}

# Ask until there is an answer, as a client does that retries; the states that it may meet.
sub insist
{
	my ($session, $query, $allowed) = @_;

	for (1 .. 200)
	{
		$$session = connected() if !$$session->{socket};
		my @results = $$session->try($query);
		return @results if !$$session->{state} || $$session->{state} =~ $allowed;
		complain("$query: $$session->{state} $$session->{message}") if $$session->{state} !~ /^(08006|57P0[123]|QE001)$/;
	}
	complain("no end: $query");
	return;
}

# --- who takes part

sub minutes { return (grep { $_[0] % 10 == $_ } 5, 6, 8) ? 0 : 15 }

# Two of them place the same orders, and cancel some.
sub customer
{
	my $session = connected();

	foreach my $n (1 .. $orders)
	{
		my $order = sprintf q{SELECT FROM cqrs_es.execute_command('order', 's-%1$d', 'Place',
			'{"customer": "c", "sku": "%2$s", "quantity": %3$d, "amount": %1$d.50, "minutes": %4$d}',
			metadata => '{"correlation_id": "web s-%1$d"}', command_id => cqrs_es.id_from_text('place s-%1$d'))},
			$n, $n % 3 ? 'pen' : 'desk', 1 + $n % 2, minutes($n);
		insist(\$session, $order, qr/^$/);
		usleep(rand 100_000) if !-e $calm;
		next if $n % 10 != 9;
		insist(\$session, "SELECT FROM cqrs_es.execute_command('order', 's-$_', 'Cancel', '{\"reason\": \"changed my mind\"}')", qr/^QE301$/)
		  foreach grep { $_ > 0 && ($_ % 10 == 9 || $_ % 10 == 2) } $n - 10, $n - 7, $n;
	}
	append_to_file("$directory/placed", "$$\n");
	return;
}

# A client that receives, takes the steps each by itself, and acknowledges.
sub checkout
{
	my ($name) = @_;
	consume('checkout', $name, sub {
		my ($session, $event) = @_;
		my ($part, $order, $sequence) = @$event[2, 3, 4];
		$session->try("SELECT take_steps('$part', '$order', $sequence)");
		return !$session->{state};
	});
	return;
}

# The same as a procedure of the database.
sub checkout_procedure
{
	my ($name) = @_;
	my $session = connected();

	while (getppid() == $parent)
	{
		$session = connected() if !$session->{socket};
		$session->try("CALL run_checkout('$name')");
		complain("run_checkout: $session->{state} $session->{message}") if $session->{state} && $session->{state} !~ /^(QE401|55P03|08006|57P0[123])$/;
		$session->try("CALL cqrs_es.wait_for_events('checkout', timeout => '200 ms')") if $session->{socket};
	}
	return;
}

# Tells the bank, at least once.
sub tell_bank
{
	my ($name) = @_;
	my $bank = connected('bank');
	consume('payment provider', $name, sub {
		my ($session, $event) = @_;
		my ($event_id, $order, $type, $amount) = @$event[1, 3, 5, 6];
		$bank = connected('bank') if !$bank->{socket};
		$bank->try("SELECT tell('$event_id', '$order', '$type', " . ($amount // 'NULL') . ')');
		met($bank, 'tell');
		return !$bank->{state};
	});
	return;
}

sub consume
{
	my ($subscription, $name, $does) = @_;
	my $session = connected();

	while (getppid() == $parent)
	{
		$session = connected() if !$session->{socket};
		my ($rows) = $session->try(q{SELECT batch, event_id, aggregate_type, aggregate_id, sequence, event_type, payload->>'amount', global_position, attempt}
			  . " FROM cqrs_es.receive_events('$subscription', '$name', " . (1, 3, 10)[ rand 3 ] . ')');
		met($session, 'receive_events') and next;
		if (!@$rows)
		{
			$session->try("CALL cqrs_es.wait_for_events('$subscription', timeout => '200 ms')");
			met($session, 'wait_for_events');
			next;
		}
		may_die(0.02);
		my %failed;
		foreach my $event (@$rows)
		{
			my $stream = "$event->[2]/$event->[3]";
			append_to_file("$directory/again", "$subscription\n") if $event->[8] > 1;
			next if $failed{$stream};
			if (!$does->($session, $event))
			{
				met($session, "$subscription $stream");
				last if !$session->{socket};
				$failed{$stream} = 1;
				$session->try("SELECT cqrs_es.nack_event('$event->[0]', $event->[7], 'failed')");
				met($session, 'nack_event');
			}
			may_die(0.02);
		}
		next if !$session->{socket};
		if (!-e $calm && chance(0.02)) { $session->close; next }		# it forgets what it has done
		usleep(800_000) if !-e $calm && chance(0.01);					# or is late
		$session->try("SELECT cqrs_es.ack_events('$rows->[0][0]')");
		met($session, 'ack_events');
		may_die(0.01);
	}
	return;
}

# An error that is to be expected here, or a complaint; false: none.
sub met
{
	my ($session, $what) = @_;

	return 0 if !$session->{state};
	complain("$what: $session->{state} $session->{message}") if $session->{state} !~ /^(QE401|55P03|08006|57P0[123]|QE001)$/;
	return 1;
}

# Delivers what the bank has to say, in any order, again and again.
sub webhook
{
	my ($shop, $bank) = (connected(), connected('bank'));

	while (getppid() == $parent)
	{
		$bank = connected('bank') if !$bank->{socket};
		my ($rows) = $bank->try('SELECT id, order_id, outcome, amount FROM messages ORDER BY (SELECT count(*) FROM delivered WHERE message_id = id) * random() LIMIT 5');
		next if $bank->{state};
		usleep(20_000) if !@$rows;
		foreach my $message (@$rows)
		{
			my ($id, $order, $outcome, $amount) = @$message;
			my ($answer) = insist(\$shop, "SELECT provider_says('$id', '$order', '$outcome', " . ($amount // 'NULL') . ')', qr/^$/);
			may_die(0.02);		# before the bank knows that it was heard
			$bank->try("INSERT INTO delivered VALUES ('$id')") if $bank->{socket};
			usleep(20_000);
		}
	}
	return;
}

# Calls all the time.
sub scheduler
{
	my $session = connected();

	while (getppid() == $parent)
	{
		my ($rows) = insist(\$session, 'SELECT due_payments()', qr/^$/);
		append_to_file("$directory/due", "$$ $rows->[0][0]\n") if $rows && $rows->[0][0] > 0;
		may_die(0.002);
		usleep(20_000);
	}
	return;
}

# --- processes

my %processes;
my ($started, $killed) = (0, 0);

sub start
{
	my ($what, $forever) = @_;
	my $number = ++$started;
	my $pid = fork // die "could not fork: $!";

	if ($pid)
	{
		$processes{$pid} = [ $what, $forever ];
		return;
	}
	$SIG{$_} = 'DEFAULT' foreach qw(TERM INT HUP);
	srand $seed + 7919 * $number;
	eval { $what->("consumer $number"); 1 } or complain("a process: $@");
	POSIX::_exit(0);
}

# Who has died comes back, under another name.
sub look_after
{
	foreach my $pid (keys %processes)
	{
		next if waitpid($pid, WNOHANG) != $pid;
		$killed++ if $? & 127;
		my ($what, $forever) = @{ delete $processes{$pid} };
		start($what, $forever) if $forever;
	}
	return;
}

sub look_after_until
{
	my ($until, $seconds) = @_;
	my $end = time + $seconds;
	while (time < $end)
	{
		look_after();
		return 1 if $until->();
		usleep(50_000);
	}
	return 0;
}

END { if ($$ == ($parent // 0)) { kill 'KILL', keys %processes } }

sub placed { return -e "$directory/placed" ? scalar(split /\n/, slurp_file("$directory/placed")) : 0 }

srand $seed;
start(\&customer, 0) foreach 1 .. 2;
start($_, 1) foreach \&checkout, \&checkout, \&checkout_procedure, \&checkout_procedure, \&tell_bank, \&tell_bank, \&webhook, \&webhook, \&scheduler, \&scheduler;

# A third of the orders, and then: connections are cut, processes and the server are killed, all comes once more.
my $share = sub {
	my ($part) = @_;
	return sub { !(grep { !$_->[1] } values %processes) || placed() == 2 || $node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.events WHERE event_type = 'OrderPlaced'}) >= $orders * $part };
};
my $cut = 0;
foreach my $part (1 .. 8)
{
	ok(look_after_until($share->($part / 9), 120), "$part/9 of the orders are placed");
	$cut += $node->safe_psql('postgres', q{SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query ~ 'run_checkout|take_steps|due_payments|provider_says' ORDER BY random() LIMIT 3) AS a});
	# some die by themselves, but not so many where all goes fast
	my @forever = grep { $processes{$_}->[1] } sort keys %processes;
	kill 'KILL', $forever[ rand @forever ];
	$node->safe_psql('postgres', q{SELECT cqrs_es.reset_subscription('checkout', 0)}) if $part == 5;
	next if $part != 3;
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my @backends = ($postmaster, split /\n/, $node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity'));
	$node->kill9;
	for (1 .. 300) { last if !kill 0, @backends; usleep(100_000) }
	$node->start;
}
ok(look_after_until(sub { placed() == 2 }, 120), 'all orders are placed');

# --- and then all is well

append_to_file($calm, "\n");
my $at_rest = sub {
	return 0 if $node->safe_psql('bank', 'SELECT count(*) FROM messages WHERE (SELECT count(*) FROM delivered WHERE message_id = id) < 2') > 0;
	return $node->safe_psql('postgres', q{SELECT bool_and(lag_events = 0 AND parked = 0 AND in_hand = 0) AND NOT EXISTS (SELECT FROM open_payments WHERE until <= now())
		FROM cqrs_es.subscription_status}) eq 't';
};
# nothing happens for a while
my ($events, $since) = (0, time);
ok(look_after_until(sub {
	my $now = $node->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.events');
	($events, $since) = ($now, time) if $now != $events || !$at_rest->();
	return time - $since > 3;
}, 180), 'all that was to be done is done') or diag($node->safe_psql('postgres', 'SELECT * FROM cqrs_es.subscription_status'));

is(-e "$directory/complaints" ? slurp_file("$directory/complaints") : '', '', 'nobody met anything but dead connections, lost batches and lost races');
cmp_ok($killed, '>', 3, "$killed processes were killed");
cmp_ok($cut, '>', 5, "$cut connections were cut");
ok(-e "$directory/again", 'events were handed out again');
my %schedulers = map { ((split / /)[0] => 1) } split /\n/, slurp_file("$directory/due");
cmp_ok(scalar(keys %schedulers), '>', 1, 'several schedulers found what was due');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.dead_letters'), 0, 'nothing was given up');

# Every way that an order may end, and no other.
is($node->safe_psql('postgres', q{
	SELECT concat_ws(' ', order_id, "order", shipment, payment) FROM orders
	WHERE order_id LIKE 's-%' AND ("order", shipment, payment) NOT IN (
		('OrderConfirmed', 'ShipmentSent', 'PaymentReceived'),
		('OrderCancelled', 'ShipmentRefused', 'PaymentCancelled'),
		('OrderCancelled', 'ShipmentCancelled', 'PaymentRefused'),
		('OrderCancelled', 'ShipmentCancelled', 'PaymentTimedOut'),
		('OrderCancelled', 'ShipmentCancelled', 'PaymentCancelled'),
		('OrderCancelled', 'ShipmentCancelled', 'PaymentRefunded')) ORDER BY 1}), '', 'each order is in one of the states that are allowed');
is($node->safe_psql('postgres', q{SELECT count(*) FROM orders WHERE order_id LIKE 's-%'}), $orders, 'all of them are there');
my $ways = $node->safe_psql('postgres', q{SELECT string_agg(way, ', ') FROM (SELECT format('%s %s', payment, count(*)) AS way FROM orders WHERE order_id LIKE 's-%' GROUP BY payment ORDER BY payment) AS w});
note($ways);
like($ways, qr/PaymentCancelled.*PaymentReceived.*PaymentRefused.*PaymentTimedOut/, 'many ways were gone');

is($node->safe_psql('postgres', q{SELECT aggregate_type, aggregate_id, event_type, count(*) FROM cqrs_es.events
	WHERE event_type <> 'MoneyReturned' AND aggregate_type <> 'stock' GROUP BY 1, 2, 3 HAVING count(*) > 1}), '', 'no step is doubled');
is($node->safe_psql('postgres', q{SELECT aggregate_type, aggregate_id, metadata->>'command_id', count(*) FROM cqrs_es.events
	WHERE metadata ? 'command_id' GROUP BY 1, 2, 3 HAVING count(*) > 1}), '', 'no command was done twice');

# Money: what the bank took, less what it was told to give back, was paid for what was sent.
my $paid = $node->safe_psql('bank', q{SELECT sum(amount) FROM messages WHERE outcome = 'paid'});
my $back = $node->safe_psql('bank', q{SELECT coalesce(sum(amount), 0) FROM told WHERE what IN ('PaymentRefunded', 'MoneyReturned') AND order_id LIKE 's-%'});
my $unclaimed = $node->safe_psql('postgres', 'SELECT sum(amount) FROM unclaimed_money');
my $sold = $node->safe_psql('postgres', q{SELECT sum((cqrs_es.aggregate_state('order', order_id)->>'amount')::numeric) FROM orders WHERE order_id LIKE 's-%' AND shipment = 'ShipmentSent'});
is($unclaimed, 15, 'money for nobody waits for somebody to look');
cmp_ok($back, '>', 0, 'some money went back');
is($node->safe_psql('bank', "SELECT $paid - $back - $unclaimed - $sold = 0"), 't', 'money is conserved') or diag("$paid - $back - $unclaimed, sold $sold");
is($node->safe_psql('bank', q{SELECT count(*) FROM messages}), $node->safe_psql('postgres', q{SELECT count(*) - 4 FROM cqrs_es.received_messages}), 'each message was received');
is($node->safe_psql('bank', q{SELECT count(*) FROM told WHERE order_id LIKE 's-%'}),
	$node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.events WHERE event_type IN ('PaymentRequested', 'PaymentCancelled', 'PaymentRefunded', 'MoneyReturned') AND aggregate_id LIKE 's-%'}),
	'the bank was told of everything, once by its keys');

# Goods
is($node->safe_psql('postgres', q{
	SELECT s.sku, s.available, (SELECT sum((payload->>'quantity')::numeric) FROM cqrs_es.events WHERE event_type = 'GoodsArrived' AND aggregate_id = s.sku)
		- (SELECT coalesce(sum((x.state->>'quantity')::numeric), 0) FROM orders AS o, LATERAL (SELECT cqrs_es.aggregate_state('shipment', order_id)) AS x (state)
			WHERE o.shipment = 'ShipmentSent' AND x.state->>'sku' = s.sku) AS rest
	FROM stock AS s WHERE available <> (SELECT sum((payload->>'quantity')::numeric) FROM cqrs_es.events WHERE event_type = 'GoodsArrived' AND aggregate_id = s.sku)
		- (SELECT coalesce(sum((x.state->>'quantity')::numeric), 0) FROM orders AS o, LATERAL (SELECT cqrs_es.aggregate_state('shipment', order_id)) AS x (state)
			WHERE o.shipment = 'ShipmentSent' AND x.state->>'sku' = s.sku)}), '', 'what is not in stock was sent');
is($node->safe_psql('postgres', q{SELECT count(*) > 0 FROM orders WHERE order_id LIKE 's-%' AND shipment = 'ShipmentRefused'}), 't', 'of one thing there was not enough');

# Who did what because of what
is($node->safe_psql('postgres', q{SELECT aggregate_id, string_agg(DISTINCT coalesce(metadata->>'correlation_id', '(none)'), ', ') FROM cqrs_es.events
	WHERE aggregate_id LIKE 's-%' AND NOT (event_type = 'OrderCancelled' AND payload->>'reason' = 'changed my mind')
		AND NOT EXISTS (SELECT FROM cqrs_es.events AS o WHERE o.aggregate_id = events.aggregate_id AND o.event_type = 'OrderCancelled' AND o.payload->>'reason' = 'changed my mind')
	GROUP BY 1 HAVING array_agg(DISTINCT metadata->>'correlation_id') <> ARRAY['web ' || aggregate_id]}), '', 'each order has one correlation id');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT event_type, ', ' ORDER BY event_type) FROM cqrs_es.events AS e
	WHERE aggregate_id LIKE 's-%' AND NOT EXISTS (SELECT FROM cqrs_es.events AS cause WHERE cause.aggregate_id = e.aggregate_id AND cause.event_id::text = e.metadata->>'causation_id')}),
	'MoneyReturned, OrderCancelled, OrderPlaced, PaymentReceived, PaymentRefused', 'what no event of the order has caused came from outside');

kill 'KILL', keys %processes;
waitpid $_, 0 foreach keys %processes;
%processes = ();
$node->stop;
done_testing();
