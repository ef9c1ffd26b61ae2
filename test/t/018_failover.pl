# A log that lost its end: an asynchronous standby is promoted that had not got
# everything, a database is recovered to a point in time, an older dump is restored.
# A reader that has seen what is lost must not miss what comes after it.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1, has_archiving => 1);
$primary->append_conf('postgresql.conf', 'max_prepared_transactions = 10');
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION cqrs_es');
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

sub append { return "SELECT FROM cqrs_es.append_event('t', '$_[0]', '$_[0]', '1');" }
sub append_many { return "SELECT count(*) FROM generate_series(1, $_[1]) n, cqrs_es.append_event('t', '$_[0] ' || n, '$_[0]', '1');" }

# A reader elsewhere: keeps the last position it got, and what it got.
my ($after, @seen) = (0);
sub poll
{
	my ($node, $database) = @_;
	my $n = 0;
	while (my $rows = $node->safe_psql($database // 'postgres',
			"SET cqrs_es.settle_timeout = '10s'; SELECT global_position, event_type FROM cqrs_es.read_all($after, 100)"))
	{
		my @rows = map { [ split /\|/ ] } split /\n/, $rows;
		push @seen, map { $_->[1] } @rows;
		$after = $rows[-1][0];
		$n += @rows;
	}
	return $n;
}
sub state_of
{
	my ($node, $statement) = @_;
	my ($status, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	return $stderr =~ /ERROR:  (\w{5}):/ ? $1 : 'done';
}

# what is replicated
$primary->safe_psql('postgres', append_many('kept', 50));
my $middle = $primary->lsn('insert');
$primary->safe_psql('postgres', 'BEGIN; ' . append('prepared') . "PREPARE TRANSACTION 'p';");
$primary->safe_psql('postgres', append('kept'));
my $id = $primary->safe_psql('postgres', 'SELECT cqrs_es.log_id()');
like($id, qr/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/, 'the log has an identity');
my $target = $primary->lsn('insert');
$primary->wait_for_catchup($standby, 'replay', $target);
$primary->command_ok([ 'pg_dump', '-d', $primary->connstr('postgres'), '-f', "$dir/older.sql" ], 'a dump');
is($standby->safe_psql('postgres', 'SELECT cqrs_es.log_id()'), $id, 'a standby has the same');
is(state_of($standby, 'SELECT cqrs_es.after_failover()'), '25006', 'after_failover() is refused on a standby');
is(state_of($primary, 'BEGIN READ ONLY; SELECT cqrs_es.after_failover()'), '25006', 'and in a read-only transaction');

# a reader of the standby that waits for the prepared transaction when it is promoted
my $reader = $standby->background_psql('postgres');
is($reader->query_safe('SET cqrs_es.settle_timeout = 0; SELECT count(*) FROM cqrs_es.read_all(50, 10)'), 0, 'a reader of the standby has to wait');

# what is not
$standby->safe_psql('postgres', $_) foreach "ALTER SYSTEM SET primary_conninfo = ''", 'SELECT pg_reload_conf()';
$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver');
$primary->safe_psql('postgres', "COMMIT PREPARED 'p'");
$primary->safe_psql('postgres', append_many('lost', 200));
is(poll($primary), 252, 'a reader sees all that the primary has');
my $cursor = $after;
$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
$primary->poll_query_until('postgres', "SELECT last_archived_wal >= pg_walfile_name('$target') FROM pg_stat_archiver");
$primary->stop;
$standby->promote;
cmp_ok($standby->safe_psql('postgres', 'SELECT max(global_position) FROM cqrs_es.events'), '<', $cursor, 'the standby has less');

# the prepared transaction is still there, and holds its position; nobody waits for it
my $jump = $standby->safe_psql('postgres', "SET statement_timeout = '60s'; SELECT cqrs_es.after_failover()");
cmp_ok($jump, '>=', 1 << 32, 'positions jump');
isnt($standby->safe_psql('postgres', 'SELECT cqrs_es.log_id()'), $id, 'the log has another identity');
isnt($reader->query_safe('SELECT cqrs_es.log_id()'), $id, 'a session from before sees it');
is($standby->safe_psql('postgres', "SELECT global_position FROM cqrs_es.append_event('t', 'n', 'new', '1')"), $jump + 1, 'append goes on behind the jump');
my $stranger = $standby->background_psql('postgres');
$stranger->query_safe('BEGIN; ' . append('stranger'));
@seen = ();
is($standby->safe_psql('postgres', "SET cqrs_es.settle_timeout = 0; SELECT event_type FROM cqrs_es.read_all($cursor)"), 'new',
	'the reader gets what is new at once, although others have positions');
$standby->safe_psql('postgres', append_many('new', 200));
$stranger->query_safe('COMMIT');
is(poll($standby), 202, 'it misses nothing');
is($reader->query_safe('SELECT count(*) FROM cqrs_es.read_all(50, 10)'), 0, 'the reader from before still waits for the prepared transaction');
$standby->safe_psql('postgres', "COMMIT PREPARED 'p'");
is($reader->query_safe("SELECT string_agg(event_type, ' ') FROM cqrs_es.read_all(50, 3)"), 'prepared kept new', 'until it is committed');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.read_all(0, 1000)'), 254, 'a new reader gets everything');
is($standby->safe_psql('postgres', 'SELECT cqrs_es.settled_position()'), $standby->safe_psql('postgres', 'SELECT max(global_position) FROM cqrs_es.events'), 'settled_position');
is($standby->safe_psql('postgres', "SELECT cqrs_es.wait_for_position($jump, '10 s')"), 't', 'wait_for_position');
is($standby->safe_psql('postgres', "SELECT setval('cqrs_es.events_global_position_seq', 100); SELECT global_position > $jump FROM cqrs_es.append_event('t', 'n', 'new', '1')"),
	"100\nt", 'a sequence that is set back does not go back behind the jump');

# again, in the middle of a transaction, rolled back, at the same time
my $before = $standby->safe_psql('postgres', 'SELECT cqrs_es.log_id()');
poll($standby);
$standby->safe_psql('postgres', 'BEGIN; SELECT cqrs_es.after_failover(); ROLLBACK;');
is($standby->safe_psql('postgres', 'SELECT cqrs_es.log_id()'), $before, 'rolled back: the identity stays');
$standby->safe_psql('postgres', 'BEGIN; ' . append('x1') . 'SAVEPOINT s; SELECT cqrs_es.after_failover(); ROLLBACK TO s;' . append('x2') .
	'SELECT cqrs_es.after_failover();' . append('x3') . 'COMMIT;');
$standby->safe_psql('postgres', "SELECT setval('cqrs_es.events_global_position_seq', 1);" . append('x4'));
@seen = ();
poll($standby);
is("@seen", 'x1 x2 x3 x4', 'in the middle of a transaction, once rolled back');
my @sessions = map { $standby->background_psql('postgres') } 1 .. 2;
my $first = $sessions[0]->query_safe('BEGIN; SELECT cqrs_es.after_failover()');
$sessions[1]->query_until(qr/started/, "\\echo started\nSELECT 'second: ' || cqrs_es.after_failover();\n\\echo done\n");
ok($standby->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND relation = 'cqrs_es.log_histories'::regclass"), 'a second call waits for the first');
$sessions[0]->query_safe('COMMIT');
my ($second) = $sessions[1]->query_until(qr/done/, "\n") =~ /second: (\d+)/;
cmp_ok($second, '>=', $first + (1 << 32), 'and jumps again');
@seen = ();
$standby->safe_psql('postgres', append('x5'));
poll($standby);
is("@seen", 'x5', 'the reader goes on');
is($standby->safe_psql('postgres', 'SELECT count(DISTINCT log_id), count(*) FROM cqrs_es.log_histories'), '4|4', 'each left its row');
$_->quit foreach @sessions, $stranger, $reader;

# dumps
$id = $standby->safe_psql('postgres', 'SELECT cqrs_es.log_id()');
$standby->safe_psql('postgres', 'CREATE DATABASE copy');
$standby->command_ok([ 'pg_dump', '-d', $standby->connstr('postgres'), '-f', "$dir/newer.sql" ], 'a dump');
$standby->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $standby->connstr('copy'), '-f', "$dir/newer.sql" ], 'restored');
is($standby->safe_psql('copy', 'SELECT cqrs_es.log_id()'), $id, 'it has the identity');
is($standby->safe_psql('copy', "SELECT setval('cqrs_es.events_global_position_seq', 1); SELECT global_position > $second FROM cqrs_es.append_event('t', 'n', 'new', '1')"), "1\nt", 'and knows the jumps');
is($standby->safe_psql('copy', 'SET cqrs_es.settle_timeout = 0; SELECT count(*) FROM cqrs_es.read_all(0, 1000)'), $standby->safe_psql('copy', 'SELECT count(*) FROM cqrs_es.events'), 'a reader gets all of it');
$standby->safe_psql('postgres', 'CREATE DATABASE older');
$standby->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $standby->connstr('older'), '-f', "$dir/older.sql" ], 'an older dump restored');
$standby->safe_psql('older', 'SELECT cqrs_es.after_failover()');
$standby->safe_psql('older', append_many('after', 20));
$after = $cursor;
is(poll($standby, 'older'), 20, 'its reader misses nothing');
$standby->safe_psql('postgres', 'CREATE DATABASE empty');
$standby->safe_psql('empty', 'CREATE EXTENSION cqrs_es');
my @ids = map { $standby->safe_psql($_, 'SELECT cqrs_es.log_id()') } 'empty', 'older', 'postgres';
is(scalar(keys %{ { map { $_ => 1 } @ids } }), 3, 'another log has another identity');
$standby->safe_psql('empty', "SELECT cqrs_es.after_failover(); SELECT cqrs_es.after_failover();" . append_many('e', 3));
is($standby->safe_psql('empty', 'SET cqrs_es.settle_timeout = 0; SELECT count(*) FROM cqrs_es.read_all()'), 3, 'an empty log may jump');
$standby->safe_psql('empty', "SELECT setval('cqrs_es.events_global_position_seq', 17592186044415 - 1000)");
is(state_of($standby, '\c empty' . "\nSELECT cqrs_es.after_failover()"), '2200H', 'without room for a jump it is refused');
$standby->safe_psql('postgres', 'CREATE DATABASE nodes');
is($standby->safe_psql('nodes', "CREATE EXTENSION cqrs_es; SET cqrs_es.node_id = 2; SELECT FROM cqrs_es.after_failover();
		SET cqrs_es.node_id = 1; SELECT cqrs_es.log_id() AS before \\gset\nSELECT FROM cqrs_es.after_failover(); SELECT cqrs_es.log_id() <> :'before'"),
	't', 'a jump of another node does not hide one of ours');
$standby->stop;

# point-in-time recovery
my $recovered = PostgreSQL::Test::Cluster->new('recovered');
$recovered->init_from_backup($primary, 'backup', has_restoring => 1, standby => 0);
$recovered->append_conf('postgresql.conf', "recovery_target_lsn = '$middle'\nrecovery_target_action = promote");
$recovered->start;
$recovered->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
$recovered->safe_psql('postgres', 'SELECT cqrs_es.after_failover()');
$recovered->safe_psql('postgres', append_many('recovered', 30));
$after = $cursor;
is(poll($recovered), 30, 'after a recovery to a point in time the reader misses nothing');
is($recovered->safe_psql('postgres', 'SET cqrs_es.settle_timeout = 0; SELECT count(*) FROM cqrs_es.read_all(0, 1000)'), 80, 'and a new one gets everything');
$recovered->stop;
done_testing();
