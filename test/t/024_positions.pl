# Positions are never drawn at or below one that is in the log, however it came
# there: restored or replicated below the triggers, or drawn before somebody set the
# sequence back. And events that share a position are read together.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('positions');
$node->init;
$node->append_conf('postgresql.conf', 'max_prepared_transactions = 10');
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();
my $database = 'd0';

# A new database with an empty log.
sub fresh
{
	$database++;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION cqrs_es' . ($_[0] ? "; $_[0]" : ''));
	return;
}
sub sql { return $node->safe_psql($database, "SET client_min_messages = error; $_[0]") }
sub session
{
	my $session = $node->background_psql($database);
	$session->query_safe('SET client_min_messages = error');
	return $session;
}
sub append { return "SELECT global_position FROM cqrs_es.append_event('t', '$_[0]', 'e', '1');" }
sub insert { return "INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('t', '$_[0]', 'e', '1') RETURNING global_position;" }

# Rows at the positions, as first events of streams of their own, below the triggers or through them.
sub rows
{
	my ($positions, $prefix) = @_;
	return q{INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload, created_at)
		SELECT p, 1, 't', '} . ($prefix // 'restored') . q{ ' || row_number() OVER (), 'e', '1', now() FROM unnest('} . $positions . q{'::bigint[]) p;};
}
sub below_triggers { return "SET session_replication_role = replica; $_[0] RESET session_replication_role;" }

# What a reader gets in pages, which goes on after the last position it got.
sub read_pages
{
	my ($page, $after) = @_;
	my @positions;
	$after //= 0;
	while (my $got = sql("SET cqrs_es.settle_timeout = '5s'; SELECT string_agg(global_position::text, ' ') FROM cqrs_es.read_all($after, $page)"))
	{
		push @positions, split / /, $got;
		$after = $positions[-1];
	}
	return join ' ', @positions;
}

foreach my $path ('straight', 'generic')
{
	my $setting = 'SET cqrs_es.force_generic_path = ' . ($path eq 'generic' ? 'on' : 'off') . '; ';

	# restored below the triggers
	fresh();
	sql(below_triggers(rows('{1,2,5,6,40}')));
	is(read_pages(2), '1 2 5 6 40', "$path: the gaps of restored rows do not stop a reader");
	is(sql($setting . append('a')), 41, "$path: append goes on above restored rows");
	is(sql($setting . insert('a')), 42, "$path: so does INSERT");
	is(read_pages(2), '1 2 5 6 40 41 42', "$path: a reader gets all of it");

	# a session that has drawn already
	my $old = session();
	$old->query_safe($setting . append('old'));
	sql(below_triggers(rows('{100,101,110}', 'later')));
	is($old->query_safe(append('old')), 111, "$path: a session that has appended before notices them");
	sql(below_triggers(rows('{120}', 'and later')));
	is($old->query_safe(insert('old')), 121, "$path: also when it inserts");
	$old->query_safe('BEGIN; ' . append('old'));
	sql(below_triggers(rows('{130}', 'in between')));
	is($old->query_safe(append('old') . 'COMMIT;'), 131, "$path: also within a transaction");

	# not committed
	my $restore = session();
	$restore->query_safe('BEGIN; ' . below_triggers(rows('{200,210}', 'open')));
	is($old->query_safe(append('old')), 211, "$path: also when they are not committed yet");
	$restore->query_safe('ROLLBACK');
	is($old->query_safe(append('old')), 212, "$path: and rolled back then");
	$restore->query_safe('BEGIN; ' . below_triggers(rows('{17592186044415}', 'the last one')) . 'ROLLBACK;');
	is($old->query_safe(append('old')), 213, "$path: the last of all positions, rolled back, does not use up the rest");

	# the sequence set back
	sql("SELECT setval('cqrs_es.events_global_position_seq', 1)");
	is($old->query_safe(append('old')), 214, "$path: setval backwards");
	sql("SELECT setval('cqrs_es.events_global_position_seq', 1, false)");
	is(sql($setting . append('new')), 215, "$path: setval backwards, a new session");
	sql('ALTER SEQUENCE cqrs_es.events_global_position_seq RESTART');
	is($old->query_safe(insert('old')), 216, "$path: RESTART");
	sql('ALTER SEQUENCE cqrs_es.events_global_position_seq RESTART WITH 3');
	is($old->query_safe("SELECT global_position FROM cqrs_es.append_events('t', 'batch',
		'[{\"type\": \"e\", \"payload\": 1}, {\"type\": \"e\", \"payload\": 2}, {\"type\": \"e\", \"payload\": 3}]')"),
		219, "$path: RESTART before a batch");
	is($old->query_safe('BEGIN; ' . append('old') . "SELECT NULL FROM setval('cqrs_es.events_global_position_seq', 5);" . append('old') . 'COMMIT;'),
		"220\n\n221", "$path: setval in between");
	is(sql('SELECT count(*) FROM (SELECT global_position, lag(global_position) OVER (PARTITION BY aggregate_id ORDER BY sequence) AS before FROM cqrs_es.events) x
		WHERE before >= global_position'), 0, "$path: within every stream positions rise");
	is(sql('SELECT count(*) - count(DISTINCT global_position) FROM cqrs_es.events'), 0, "$path: no position is there twice");

	# of other nodes
	sql(below_triggers(rows('{17592186044416, 35184372088832}', 'of other nodes')));
	is($old->query_safe(append('old')), 222, "$path: positions of other nodes do not count");
	is($old->query_safe('SET cqrs_es.node_id = 1; ' . append('node')), (1 << 44) + 223, "$path: node 1 goes on with the sequence");
	$old->query_safe('RESET cqrs_es.node_id');

	# what the sequence must be
	sql('ALTER SEQUENCE cqrs_es.events_global_position_seq INCREMENT -1');
	my ($status, $stdout, $stderr) = $node->psql($database, "\\set VERBOSITY verbose\n" . $setting . append('a'));
	like($stderr, qr/ERROR:  55000: sequence "events_global_position_seq" does not rise/, "$path: a sequence that falls is refused");
	sql('ALTER SEQUENCE cqrs_es.events_global_position_seq INCREMENT 1');
	cmp_ok(sql(append('a')), '>', 222, "$path: after that it goes on");
	sql('ALTER SEQUENCE cqrs_es.events_global_position_seq NO MAXVALUE');
	foreach my $last ('17592186044415', '9223372036854775000')
	{
		sql("SELECT setval('cqrs_es.events_global_position_seq', $last)");
		($status, $stdout, $stderr) = $node->psql($database, "\\set VERBOSITY verbose\n" . $setting . append('a'));
		like($stderr, qr/ERROR:  2200H: /, "$path: a sequence beyond the numbers of a node is refused");
		($status, $stdout, $stderr) = $node->psql($database, "\\set VERBOSITY verbose\nSELECT cqrs_es.after_failover()");
		like($stderr, qr/ERROR:  2200H: /, "$path: and does not jump");
	}
	sql("SELECT setval('cqrs_es.events_global_position_seq', 1)");
	cmp_ok(sql(append('a')), '<', 1 << 20, "$path: set back, it goes on");
	$old->quit;
	$restore->quit;
}

# a stream that was restored in part beyond what was drawn
fresh(append('s'));
sql(below_triggers(q{INSERT INTO cqrs_es.events (global_position, sequence, aggregate_type, aggregate_id, event_type, payload, created_at) VALUES (50, 2, 't', 's', 'e', '1', now());}));
is(sql(append('s')), 51, 'a stream goes on above its restored event');

# a restore waits for nobody, and two of them do not deadlock
fresh();
my $writer = session();
$writer->query_safe('BEGIN; ' . append('w'));
sql('BEGIN; ' . append('p') . "PREPARE TRANSACTION '$database';");
my ($one, $two) = (session(), session());
$_->query_safe("SET lock_timeout = '20s'; BEGIN") foreach $one, $two;
$one->query_safe(rows('{10000}', 'one'));
$two->query_safe(rows('{10001}', 'two'));
$one->query_safe(rows('{20000}', 'one again'));
$two->query_safe(rows('{20001}', 'two again'));
$_->query_safe('COMMIT') foreach $one, $two;
is(sql('SELECT count(*) FROM cqrs_es.events'), 4, 'two sessions restore beside writers in flight');
is(sql("SET cqrs_es.settle_timeout = 0; SELECT count(*) FROM cqrs_es.read_all()"), 0, 'a reader waits for these');
$writer->query_safe('COMMIT');
sql("COMMIT PREPARED '$database'");
is(read_pages(1), '1 2 10000 10001 20000 20001', 'and gets all');
is(sql(append('w')), 20002, 'positions go on above them');
$_->quit foreach $writer, $one, $two;

# through the triggers, then a crash: what was logged ahead is enough
fresh(rows('{1,2,3}'));
sql('CHECKPOINT; ' . rows('{4,5,2000}', 'more'));
$node->stop('immediate');
$node->start;
cmp_ok(sql(append('a')), '>', 2000, 'after a crash positions go on above restored ones');

# ties
fresh();
sql(below_triggers(rows('{1,2,2,2,3,4,4}')));
foreach my $page (1, 2, 3, 4, 100)
{
	is(read_pages($page), '1 2 2 2 3 4 4', "events that share a position come on one page ($page)");
}
is(sql("SELECT string_agg(aggregate_id, ',') FROM cqrs_es.read_all(0, 2)"), 'restored 1,restored 2,restored 3,restored 4', 'a page that ends in a tie becomes longer');
is(sql("SET cqrs_es.force_generic_path = on; SELECT count(*) FROM cqrs_es.read_all(0, 2)"), 4, 'also on the generic path');
is(sql("SELECT count(*) FROM cqrs_es.read_all(0, 0)"), 0, 'an empty page stays empty');
is(sql("SELECT count(*) FROM cqrs_es.read_all(0, 2, '{none}')"), 0, 'a filter holds for them');

# a dump of the events alone
fresh(join ' ', map { append("a $_") } 1 .. 5);
my $original = $database;
$node->command_ok([ 'pg_dump', '-d', $node->connstr($original), '-a', '-t', 'cqrs_es.events', '--disable-triggers', '-f', "$dir/events.sql" ],
	'pg_dump of the events alone, with triggers disabled');
fresh();
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-f', "$dir/events.sql" ], 'restored');
is(sql(append('a 1')), 6, 'append goes on above them');
is(read_pages(3), '1 2 3 4 5 6', 'a reader gets all');

# a row that brings a position that is taken
my $tie = qr/ERROR:  23505: position 3 is in the log already.*DETAIL:  .*"t\/a 3"/s;
my ($status, $stdout, $stderr) = $node->psql($database, "\\set VERBOSITY verbose\n" . rows('{3}', 'twice'));
like($stderr, $tie, 'INSERT of a position that is taken is refused');
($status, $stdout, $stderr) = $node->psql($database, "\\set VERBOSITY verbose\n" . rows('{30,30}', 'twice'));
like($stderr, qr/ERROR:  23505: position 30 is in the log already/, 'also within one statement');
$node->command_ok([ 'psql', '-Xq', '-d', $node->connstr($original), '-c', "\\copy cqrs_es.events TO '$dir/events.copy'" ], '\copy of a log');
($status, $stdout, $stderr) = $node->psql($database, "\\set VERBOSITY verbose\nDELETE FROM cqrs_es.snapshots;\n\\copy cqrs_es.events FROM '$dir/events.copy'");
like($stderr, qr/ERROR:  23505/, 'into another is refused');
($status, $stdout, $stderr) = $node->psql($database, "\\set VERBOSITY verbose\n" . rows('{17592186044420,17592186044420}', 'node'));
like($stderr, qr/ERROR:  23505: position 17592186044420 is/, 'of another node, too');

# in a race: the second waits for the first
my $first = session();
my $second = session();
$first->query_safe('BEGIN; ' . rows('{500}', 'first'));
$second->query_until(qr/started/, "\\echo started\n" . rows('{500}', 'second') . "\n\\echo done\n");
ok($node->poll_query_until($database, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'transactionid'"), 'a row waits for another at its position');
$first->query_safe('ROLLBACK');
$second->query_until(qr/done/, "\n");
is(sql("SELECT string_agg(aggregate_id, ',') FROM cqrs_es.events WHERE global_position = 500"), 'second 1', 'which was rolled back');
$_->quit foreach $first, $second;

$node->stop;
done_testing();
