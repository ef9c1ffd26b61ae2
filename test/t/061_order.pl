
# The orders with their three listeners: examples/order.js as read model, e-mail service
# and caller of a partner's API, two of each, which are killed in the middle, beside an
# HTTP server that fails, is not there for a while, and refuses one order for good. The
# read model counts each event once, no mail and no call is lost, what is sent twice has
# the same key, each call has the correlation id of its event, and what failed five times
# is a dead letter until somebody redrives it.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Clients qw(node_with_pg);
use Example qw(ended until_true);
use Outside;

my ($node_path, $why) = node_with_pg();
plan skip_all => $why if !defined $node_path;

my $outside = Outside->new(PostgreSQL::Test::Utils::tempdir());
my $shop = Example->new('order');
my @listeners = ('order_read_model', 'order_mails', 'order_api');

# An order from the beginning to the end: five events, in a transaction each.
$shop->sql(q{CREATE PROCEDURE orders(tenant text, id text) LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM set_config('cqrs_es.tenant_id', tenant, false), set_config('cqrs_es.context', jsonb_build_object('correlation_id', tenant || '-' || id)::text, false);
			PERFORM cqrs_es.execute_command('ORDER', id, 'CreateOrder', '{"customerId": "C", "items": [{"sku": "pen", "quantity": 2, "price": 1.50}, {"sku": "ink", "quantity": 1, "price": 3}]}');
			COMMIT;
			PERFORM cqrs_es.execute_command('ORDER', id, 'AddOrderItem', '{"sku": "pen", "quantity": 1, "price": 0.1}');
			COMMIT;
			PERFORM cqrs_es.execute_command('ORDER', id, 'AddOrderItem', '{"sku": "rubber", "quantity": 3, "price": 0.2}');
			COMMIT;
			PERFORM cqrs_es.execute_command('ORDER', id, 'PayOrder');
		END $$},
	map { "SELECT cqrs_es.alter_subscription('$_', lease => '1 s', retry_delay => '10 ms', retry_delay_max => '1 s')" } @listeners);
my $begin = $shop->sql('SELECT cqrs_es.last_position()');

killed_after_the_mail();
much_at_once();
five_attempts();
outcome();

$shop->{node}->stop;
done_testing();

sub starts
{
	my ($what) = @_;
	my $url = "http://127.0.0.1:$outside->{port}{http}";
	return $shop->starts([ 'node', 'order.js', $what ], NODE_PATH => $node_path, MAIL_URL => "$url/mails", API_URL => "$url/orders");
}

# It dies at the third mail of a batch: the two before it are not sent again.
sub killed_after_the_mail
{
	$outside->rules('mails .*first: OrderItemAdded.*rubber' => 'hang');
	$shop->sql("CALL orders('A', 'first')");
	my $mailer = starts('order_mails');
	until_true(sub { grep { $_->{status} eq 'hang' } $outside->requests('mails') }, 'it hangs');
	ended($mailer, 'KILL');
	$outside->rules();
	$mailer = starts('order_mails');
	$shop->until_done('order_mails');
	my %sent;
	$sent{ $_->{key} }++ foreach $outside->done('mails');
	is(join(' ', sort values %sent), '1 1 1 2', 'what was noted was not sent again, what hung came again with its key');
	is(ended($mailer, 'TERM'), 0, 'SIGTERM');
}

# Two of each; one after the other is killed, and in the middle nobody answers.
sub much_at_once
{
	my @programs = map { starts($_) } @listeners, @listeners;
	foreach my $round (1 .. 6)
	{
		$outside->rules('.' => 503) if $round == 2;
		$outside->rules() if $round == 3;
		$outside->stop if $round == 4;
		$outside->start if $round == 5;
		my $before = $outside->requests();
		$shop->sql(map { my $id = "$round-$_"; map { "CALL orders('$_', '$id')" } 'A', 'B' } 1 .. 5);
		until_true(sub { $outside->requests() > $before + 5 }, "round $round: they work") if $round != 4;
		ended(shift @programs, 'KILL');
		push @programs, starts($listeners[ ($round - 1) % 3 ]);
	}
	foreach my $what (@listeners)
	{
		$shop->until_done($what);
		$shop->sql("SELECT cqrs_es.redrive('$what')");
		$shop->until_done($what, "$what: all is done, with what was redriven");
	}
	is(join(' ', map { ended($_, 'TERM') } @programs), '0 0 0 0 0 0', 'SIGTERM');
}

# One order that nobody takes. For the partner the rest of it waits, mails go past it, and
# other orders do not care.
sub five_attempts
{
	$outside->rules('"order": "bad".*OrderCreated' => 422, 'mails .*bad: OrderCreated' => 550);
	$shop->sql(map { "SELECT cqrs_es.alter_subscription('$_', lease => '30 s')" } @listeners);	# each attempt counts once
	my @programs = map { starts($_) } @listeners;
	$shop->sql("CALL orders('B', 'bad')", "CALL orders('A', 'bad but of the other tenant')");
	$shop->until_done($_) foreach @listeners;
	is($shop->sql(q{SELECT subscription, tenant_id, aggregate_id, sequence, state, attempts, error FROM cqrs_es.subscription_dead_letters
			WHERE aggregate_id = 'bad' ORDER BY 1}),
		"order_api|B|bad|1|blocked|5|Error: HTTP 422\norder_mails|B|bad|1|skipped|5|Error: HTTP 550", 'five attempts, then a dead letter that says why');
	is(join(', ', bad('orders')), join(', ', ('1:422') x 5), 'the partner was asked five times, and not for what is behind it');
	is(join(', ', sort { $a cmp $b } bad('mails')), join(', ', '200', '200', '200', ('550') x 5), 'mails went past it');
	is(scalar(grep { $_->{text} =~ /of the other tenant/ } $outside->done('orders')), 4, 'others were told');

	$outside->rules();
	is($shop->sql("SELECT cqrs_es.redrive('$_')"), 1, "$_: redrive") foreach 'order_api', 'order_mails';
	$shop->until_done($_) foreach 'order_api', 'order_mails';
	is($shop->sql(q{SELECT string_agg(state, ' ') FROM cqrs_es.subscription_dead_letters WHERE aggregate_id = 'bad'}), 'delivered delivered', 'both were delivered');
	is(join(', ', grep { /200/ } bad('orders')), '1:200, 2:200, 3:200, 4:200', 'the partner has all of the order, in order');
	is(scalar(grep { /200/ } bad('mails')), 4, 'and each mail was sent');
	is(join(' ', map { ended($_, 'TERM') } @programs), '0 0 0', 'SIGTERM');
}

# What became of the requests for the bad order: to the partner with the version.
sub bad
{
	my ($kind) = @_;
	return map { $_->{text} =~ /"bad"/ ? join(':', $_->{text} =~ /"version": (\d)/, $_->{status}) : $_->{text} =~ /bad: / ? $_->{status} : () }
	  $outside->requests($kind);
}

sub outcome
{
	my @events = map { [ split /\|/ ] } split /\n/, $shop->sql(qq{
		SELECT event_id, tenant_id || aggregate_id, metadata->>'correlation_id', sequence FROM cqrs_es.events
		WHERE global_position > $begin ORDER BY 2, sequence});
	is(scalar(@events), 4 * 63, 'there was much to say');
	my %correlation = map { $_->[0] => $_->[2] } @events;
	foreach my $kind ('mails', 'orders')
	{
		my (%first, %times, $nr);
		foreach my $request ($outside->done($kind))
		{
			$times{ $request->{key} }++;
			$first{ $request->{key} } //= ++$nr;
		}
		is(scalar(grep { !$times{ $_->[0] } } @events), 0, "$kind: none is lost");
		is(scalar(keys %times), scalar(@events), "$kind: and none was sent that there is no event for");
		is(scalar(grep { $_->{correlation} ne $correlation{ $_->{key} } } $outside->requests($kind)), 0, "$kind: each has the correlation id of its event");
		is(scalar(grep { $events[$_][1] eq $events[ $_ - 1 ][1] && $first{ $events[$_][0] } < $first{ $events[ $_ - 1 ][0] } } 1 .. $#events), 0,
			"$kind: those of each order came in order") if $kind eq 'orders';
		note("$kind sent twice: " . grep { $_ > 1 } values %times);
	}
	like($_->{text}, qr/"payload": \{.*"price": 1\.50/, 'amounts are exact') foreach grep { $_->{text} =~ /"order": "bad", "version": 1/ } ($outside->done('orders'))[-4 .. -1];
	is($shop->sql('SELECT tenant_id, sku, quantity FROM demand ORDER BY 1, 2'),
		join("\n", map { ("$_->[0]|ink|$_->[1]", "$_->[0]|pen|" . 3 * $_->[1], "$_->[0]|rubber|" . 3 * $_->[1]) } [ 'A', 32 ], [ 'B', 31 ])
		  . "\nTENANT001|ink|1\nTENANT001|pen|2\nTENANT002|desk|1", 'the read model counted each event once');
	is($shop->sql(qq{SELECT count(*), count(*) FILTER (WHERE m.correlation_id = e.metadata->>'correlation_id')
			FROM sent_mails m JOIN cqrs_es.events e USING (event_id) WHERE e.global_position > $begin}),
		join('|', (4 * 63) x 2), 'what was sent is on record');
}
