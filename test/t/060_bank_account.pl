
# The bank account with all that is outside of it: examples/bank_account.py as mailers and
# fraud checks beside an SMTP and an HTTP server. Some are killed in the middle, the
# servers are not there for a while, and one mail fails always. No mail is lost, one that
# is sent twice has the same Message-ID, and each suspicion freezes an account once.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Clients qw(python_with_psycopg);
use Example qw(ended until_true);
use Outside;

my ($python, $why) = python_with_psycopg();
plan skip_all => $why if !$python;

my $outside = Outside->new(PostgreSQL::Test::Utils::tempdir());
my $bank = Example->new('bank_account');

# What a customer does, refused or not.
$bank->sql(q{CREATE FUNCTION does(account text, command text, amount numeric DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM set_config('cqrs_es.context', jsonb_build_object('correlation_id', format('%s %s %s', account, command, amount))::text, true);
			PERFORM cqrs_es.execute_command('account', account, command,
				jsonb_build_object('account_id', account, 'amount', amount, 'atm_id', 'ATM34f1ba3c'), command_id => gen_random_uuid());
		EXCEPTION WHEN SQLSTATE 'QE301' THEN
		END $$},
	map { "SELECT cqrs_es.alter_subscription('$_', lease => '1 s', retry_delay => '10 ms', retry_delay_max => '1 s')" } 'mails', 'fraud_check');

killed_after_the_answer();
killed_after_the_mail();
much_at_once();
one_that_always_fails();
outcome();

$bank->{node}->stop;
done_testing();

sub starts
{
	my ($what) = @_;
	return $bank->starts([ $python, 'bank_account.py', $what ],
		SMTP => "127.0.0.1:$outside->{port}{smtp}", FRAUD_CHECK => "http://127.0.0.1:$outside->{port}{http}/check");
}

sub frozen
{
	my ($account) = @_;
	return $bank->sql("SELECT count(*) FROM cqrs_es.events WHERE aggregate_id = '$account' AND event_type = 'AccountFrozen'");
}

# The first withdrawal is suspicious, at the second it dies: before the first was
# acknowledged. Somebody releases the account, and it stays released.
sub killed_after_the_answer
{
	$outside->rules('"account": "ada".*"amount": "7"' => 'hang');
	$bank->sql(map { "SELECT does('ada', $_)" } "'OpenAccount'", "'DepositMoney', 1000", "'WithdrawMoney', 600", "'WithdrawMoney', 7");
	my $check = starts('fraud_check');
	until_true(sub { grep { $_->{status} eq 'hang' } $outside->requests('check') }, 'it hangs');
	ended($check, 'KILL');
	is(frozen('ada'), 1, 'the account is frozen');
	$bank->sql("SELECT does('ada', 'ReleaseAccount')");

	$outside->rules();
	$check = starts('fraud_check');
	$bank->until_done('fraud_check');
	cmp_ok(scalar(grep { $_->{text} =~ /"amount": "600"/ } $outside->requests('check')), '>', 1, 'it was asked again');
	is(frozen('ada'), 1, 'but not frozen again');
	is($bank->sql("SELECT state->>'frozen' FROM cqrs_es.load_aggregate('account', 'ada')"), 'false', 'what somebody released stays released');
	is(ended($check, 'TERM'), 0, 'SIGTERM');
}

sub killed_after_the_mail
{
	$outside->rules('To: ada@.*You took 600' => 'hang');
	my $mailer = starts('mails');
	until_true(sub { grep { $_->{status} eq 'hang' } $outside->requests('mail') }, 'it hangs');
	ended($mailer, 'KILL');
	$outside->rules();
	$mailer = starts('mails');
	$bank->until_done('mails');
	my %sent;
	$sent{ $_->{key} }++ foreach grep { $_->{text} =~ /You took 600/ } $outside->done('mail');
	is(join(', ', values %sent), 2, 'the mail came twice, with one Message-ID');
	is(ended($mailer, 'TERM'), 0, 'SIGTERM');
}

# Two of each, of which one after the other is killed; in the middle nobody answers.
sub much_at_once
{
	my @programs = map { starts($_) } ('mails', 'fraud_check') x 2;
	foreach my $round (1 .. 6)
	{
		$outside->stop if $round == 3;
		$outside->start if $round == 4;
		my $before = $outside->requests();
		$bank->sql(map { my $account = "'storm-$round-$_'";
				("SELECT does($account, 'OpenAccount'), does($account, 'DepositMoney', 5000)",
					map({ "SELECT does($account, 'WithdrawMoney', $_)" } 20, 501 + $round, 30),
					"SELECT does($account, 'ReleaseAccount'), does($account, 'WithdrawMoney', 900)") } 1 .. 8);
		until_true(sub { $outside->requests() > $before + 5 }, "round $round: they work") if $round != 3;
		ended(shift @programs, 'KILL');
		push @programs, starts($round % 2 ? 'mails' : 'fraud_check');
	}
	# What was tried five times in vain, while nobody answered, is tried again when somebody says so.
	foreach my $what ('fraud_check', 'mails')
	{
		$bank->until_done($what);
		$bank->sql("SELECT cqrs_es.redrive('$what')");
		$bank->until_done($what, "$what: all is done, with what was redriven");
	}
	is(join(' ', map { ended($_, 'TERM') } @programs), '0 0 0 0', 'SIGTERM');
}

# Five attempts, then it is a dead letter, and what is behind it waits; others do not.
sub one_that_always_fails
{
	$bank->sql("SELECT cqrs_es.alter_subscription('mails', lease => '30 s')");	# each attempt counts once
	$outside->rules('To: bob@' => 550);
	my $before = $outside->requests('mail');
	my $mailer = starts('mails');
	$bank->sql("SELECT does('bob', 'OpenAccount')", "SELECT does('bob', 'DepositMoney', 5)", "SELECT does('eve', 'OpenAccount')");
	$bank->until_sql("SELECT blocked = 1 AND lag_events = 0 FROM cqrs_es.subscription_status WHERE name = 'mails'", 'one is blocked');
	is($bank->sql(q{SELECT aggregate_id, sequence, state, attempts, error ~ '550' FROM cqrs_es.subscription_dead_letters WHERE state <> 'delivered'}),
		'bob|1|blocked|5|t', 'after five attempts it is a dead letter, which says why');
	my @mails = ($outside->requests('mail'))[ $before .. $outside->requests('mail') - 1 ];
	is(scalar(grep { $_->{text} =~ /bob@/ && $_->{status} == 550 } @mails), 5, 'five attempts');
	is(scalar(grep { $_->{text} =~ /bob@.*got 5/ } @mails), 0, 'what is behind it was not tried');
	is(scalar(grep { $_->{text} =~ /To: eve@/ && $_->{status} == 250 } @mails), 1, 'others have their mail');

	$outside->rules();
	is($bank->sql("SELECT cqrs_es.redrive('mails')"), 1, 'redrive');
	$bank->until_done('mails');
	is($bank->sql(q{SELECT state FROM cqrs_es.subscription_dead_letters WHERE aggregate_id = 'bob'}), 'delivered', 'the dead letter was delivered');
	is(join(' ', map { $_->{text} =~ /bob@/ && $_->{status} == 250 ? $_->{text} =~ /(is open|got 5)/ : () } $outside->requests('mail')),
		'is open got 5', 'both mails, in order');
	is(ended($mailer, 'TERM'), 0, 'SIGTERM');
}

sub outcome
{
	# All but the five that were taken by hand.
	my @events = map { [ split /\|/ ] } split /\n/, $bank->sql(q{
		SELECT event_id, aggregate_id, event_type FROM cqrs_es.events
		WHERE NOT (aggregate_id = 'ACCT-1' AND sequence <= 5) ORDER BY aggregate_id, sequence});
	my (%first, %times, $nr);
	foreach my $mail ($outside->done('mail'))
	{
		$times{ $mail->{key} }++;
		$first{ $mail->{key} } //= ++$nr;
	}
	cmp_ok(scalar(@events), '>', 48 * 7, 'there was much to say');
	is(scalar(grep { !$times{ $_->[0] } } @events), 0, 'no mail is lost');
	is(scalar(keys %times), scalar(@events), 'and none was sent that there is no event for');
	is(scalar(grep { $events[$_][1] eq $events[ $_ - 1 ][1] && $first{ $events[$_][0] } < $first{ $events[ $_ - 1 ][0] } } 1 .. $#events), 0,
		'each customer got them in order');
	note('mails sent twice: ' . grep { $_ > 1 } values %times);

	my %asked = map { $_->{key} => 1 } $outside->done('check');
	is(scalar(grep { $_->[2] =~ /Withdrew|Wrote/ && $_->[1] !~ /^ACCT/ && !$asked{ $_->[0] } } @events), 0, 'about each withdrawal was asked');
	is($bank->sql(q{
		SELECT count(*) > 48, count(*) FILTER (WHERE answers <> 1) AS not_once, count(*) FILTER (WHERE NOT follows) AS not_following
		FROM (SELECT count(f.*) AS answers, bool_and(f.metadata @> jsonb_build_object('causation_id', e.event_id)
				AND f.metadata->'correlation_id' = e.metadata->'correlation_id' AND f.payload = jsonb_build_object('because', e.sequence)) AS follows
			FROM cqrs_es.events e LEFT JOIN cqrs_es.events f ON f.aggregate_id = e.aggregate_id AND f.event_type = 'AccountFrozen'
				AND f.metadata @> jsonb_build_object('command_id', e.event_id)
			WHERE e.event_type = 'CustomerWithdrewCash' AND (e.payload->>'amount')::numeric > 500 GROUP BY e.event_id) a}),
		't|0|0', 'each suspicion was answered once, and says of what');
	is($bank->sql(q{SELECT count(*) FROM cqrs_es.events WHERE event_type = 'AccountFrozen'}),
		$bank->sql(q{SELECT count(*) FROM cqrs_es.events WHERE event_type IN ('CustomerWithdrewCash', 'CustomerWroteCheck') AND (payload->>'amount')::numeric > 500}),
		'and nothing else was frozen');
}
