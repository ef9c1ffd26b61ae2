# A rebuild in portions that is killed in the middle, beside writers: what was committed is there, what was not is
# handled when it goes on, and each event is handled once. And it does not get slower as it goes on.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $events = 3000;
my $node = PostgreSQL::Test::Cluster->new('portions');
$node->init;
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
$node->start;
$node->safe_psql('postgres', qq{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE totals (kind text PRIMARY KEY, events bigint NOT NULL, trail text NOT NULL);
	SELECT cqrs_es.create_projection('totals', '{account}', '{totals}');
	SELECT cqrs_es.define_handler('totals', 'moved', \$\$INSERT INTO totals VALUES (event.aggregate_id, 1, md5(event.global_position::text))
		ON CONFLICT (kind) DO UPDATE SET events = totals.events + 1, trail = md5(totals.trail || event.global_position)\$\$);
	-- where it can be held up
	CREATE FUNCTION pass(e cqrs_es.event) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(1)';
	SELECT cqrs_es.define_handler('totals', 'gate', 'pass(cqrs_es.event)');
	SELECT count(cqrs_es.append_event('account', (i % 3)::text, CASE i WHEN 1500 THEN 'gate' ELSE 'moved' END, '{}')) FROM generate_series(1, $events) AS i;
});
my $rows = q{SELECT string_agg(t::text, ' ' ORDER BY kind) FROM totals AS t};

sub state { return $node->safe_psql('postgres', q{SELECT state FROM cqrs_es.projection_status WHERE name = 'totals'}); }

# Begin a rebuild, wait until it is held up, and end it with a signal; a writer appends meanwhile.
sub interrupt
{
	my ($signal) = @_;
	my $gate = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SELECT pg_advisory_lock(1), pg_sleep(120)' ], '>', \my $o, '2>', \my $e);
	$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted)});
	my $psql = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', q{CALL cqrs_es.rebuild_in_portions('totals', 50)} ],
		'>', \my $out, '2>', \my $err);
	$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)});
	$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('account', '1', 'moved', '{}')});
	my $pid = $node->safe_psql('postgres', q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted});
	if ($signal eq 'KILL') { kill 'KILL', $pid; }
	else { $node->safe_psql('postgres', "SELECT $signal($pid)"); }
	$psql->finish;
	$node->poll_query_until('postgres', 'SELECT true');
	$gate->kill_kill;
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'});
	$node->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')});
	return;
}

foreach my $signal ('pg_cancel_backend', 'pg_terminate_backend', 'KILL')
{
	interrupt($signal);
	is(state(), 'partly rebuilt', "$signal: it is partly rebuilt");
	my $handled = $node->safe_psql('postgres', 'SELECT sum(events) FROM totals');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.events, cqrs_es.projections WHERE event_type = 'moved' AND global_position <= handled_position}), $handled,
		'its rows are those of the events that it says are handled');
	cmp_ok($handled, '>=', 100, 'and some are');
	$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('account', '2', 'moved', '{}')});
	$node->safe_psql('postgres', $signal eq 'KILL' ? q{SELECT cqrs_es.resume_projection('totals')} : q{CALL cqrs_es.resume_in_portions('totals', 70)});
	is(state(), 'live', 'it goes on to the end');
	my $was = $node->safe_psql('postgres', $rows);
	$node->safe_psql('postgres', q{SELECT cqrs_es.rebuild_projection('totals')});
	is($node->safe_psql('postgres', $rows), $was, 'and has what a rebuild in one transaction has');
}

# versions of a row are pruned between portions: the table stays small, where one transaction leaves them all
$node->safe_psql('postgres', q{VACUUM FULL totals; CALL cqrs_es.rebuild_in_portions('totals', 50)});
cmp_ok($node->safe_psql('postgres', q{SELECT pg_relation_size('totals')}), '<=', 5 * 8192, 'the table has not grown');

$node->stop;
done_testing();
