
# Readers that keep their cursor in a table, beside writers that commit late, roll
# back, or are still at it: nothing is handled twice, nothing left out.  Each page
# is read in a session of its own, as behind a pooler; two workers share a
# cursor; pages are read on a standby.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', 'max_connections = 50');
$primary->start;
$primary->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE cursors (reader text PRIMARY KEY, position bigint NOT NULL DEFAULT 0);
	CREATE TABLE sent (nr bigserial PRIMARY KEY, reader text, position bigint, worker int DEFAULT pg_backend_pid());
	-- it learns more than the walk that it is called in may know
	CREATE FUNCTION learns(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$
		SELECT payload FROM cqrs_es.settled_position()
	$$;
	SELECT cqrs_es.define_upcaster('other', '1', '2', 'learns(jsonb)');
});
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'hot_standby_feedback = on');
$standby->start;

# 1. Workers under load.  One event in four is to be sent.

my $directory = PostgreSQL::Test::Utils::tempdir();
sub append { return "SELECT FROM cqrs_es.append_event('load', :client_id::text, '$_[0]', '1');" }
sub write_script
{
	my ($name, $script) = @_;
	append_to_file("$directory/$name.sql", $script);
	return ('-f', "$directory/$name.sql");
}
sub writes { return write_script('writes', '\set kind random(1, 16)' . "\n\\if :kind <= 2\n" . append('mail')
	. "\n\\elif :kind = 3\nBEGIN;\n" . append('mail') . "\n\\sleep 3 ms\n" . append('other') . "\nCOMMIT;\n"
	. "\\elif :kind <= 5\nBEGIN;\n" . append('mail') . "\nROLLBACK;\n"
	. "\\elif :kind = 6\nBEGIN;\n" . append('mail') . "\n\\sleep 10 ms\nROLLBACK;\n"
	. "\\else\n" . append('other') . "\n\\endif\n\\sleep 5 ms\n") }
# What docs/append-and-read.md says: the cursor moves to read_to of the last row.
sub works
{
	my ($reader, $count, $filter) = @_;
	return write_script($reader, qq{
BEGIN;
SELECT position FROM cursors WHERE reader = '$reader' FOR UPDATE \\gset
WITH page AS MATERIALIZED (SELECT * FROM cqrs_es.read_page(:position, $count, event_types => $filter)),
	mails AS (INSERT INTO sent (reader, position) SELECT '$reader', global_position FROM page WHERE event_id IS NOT NULL ORDER BY global_position)
SELECT max(read_to) AS read_to FROM page \\gset
UPDATE cursors SET position = :read_to WHERE reader = '$reader';
COMMIT;
});
}
sub pgbench
{
	my ($out, @options) = @_;
	return IPC::Run::start([ 'pgbench', '-n', @options, $primary->connstr('postgres') ], '<', \undef, '>&', $out,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
}

my @readers = ([ mails => 100, q{'{mail}'} ], [ singly => 1, q{'{mail}'} ], [ everything => 100, 'NULL' ], [ nothing => 100, q{'{none}'} ]);
$primary->safe_psql('postgres', "INSERT INTO cursors VALUES ('$_->[0]')") foreach @readers;
my @output = ('') x 5;
my @jobs = (pgbench(\$output[4], '-c', 6, '-j', 2, '-t', 150, writes()));
push @jobs, pgbench(\$output[$_], '-C', '-c', 2, '-t', 60, works(@{ $readers[$_] })) foreach 0 .. 3;
ok($jobs[$_]->finish, (map({ $_->[0] } @readers), 'writes')[$_ - 1] . ': all went well') || diag($output[$_ - 1]) foreach 0 .. 4;
like($output[$_], qr/actually processed: (\d+)\/\1\b/, 'and to the end') || diag($output[$_]) foreach 0 .. 4;

# the rest, which no writer disturbs
foreach my $reader (@readers)
{
	my ($name, $count, $filter) = @$reader;
	$primary->safe_psql('postgres', qq{
		DO \$\$
		DECLARE after bigint; e record; n int;
		BEGIN
			LOOP
				SELECT position INTO after FROM cursors WHERE reader = '$name' FOR UPDATE;
				n := 0;
				FOR e IN SELECT * FROM cqrs_es.read_page(after, $count, event_types => $filter) LOOP
					IF e.event_id IS NOT NULL THEN
						INSERT INTO sent (reader, position) VALUES ('$name', e.global_position);
						n := n + 1;
					END IF;
					UPDATE cursors SET position = e.read_to WHERE reader = '$name';
				END LOOP;
				EXIT WHEN n = 0;
			END LOOP;
		END \$\$});
	is($primary->safe_psql('postgres', qq{SELECT string_agg(position::text, ' ' ORDER BY nr) FROM sent WHERE reader = '$name'}),
		$primary->safe_psql('postgres', qq{SELECT string_agg(global_position::text, ' ' ORDER BY global_position)
			FROM cqrs_es.events WHERE event_type = ANY (coalesce($filter, '{mail,other}'::text[]))}),
		"$name: every event once and in order");
	is($primary->safe_psql('postgres', qq{SELECT position FROM cursors WHERE reader = '$name'}),
		$primary->safe_psql('postgres', 'SELECT max(global_position) FROM cqrs_es.events'), "$name: the cursor is at the end of the log");
}
cmp_ok($primary->safe_psql('postgres', q{SELECT min(n) FROM (SELECT count(DISTINCT worker) AS n FROM sent WHERE reader <> 'nothing' GROUP BY reader) AS x}),
	'>', 1, 'there was more than one worker');

# 2. An old gap and an open writer: what a new session takes for settled lies
# below what others have read.  No cursor goes back for that.

my $start = position_of(append_one('before'));
$primary->safe_psql('postgres', q{BEGIN; SELECT cqrs_es.append_event('account', 'x', 'gap', '1'); ROLLBACK});
my $next = position_of(append_one('next'));
my $reader = $primary->background_psql('postgres');
query($reader, 'SET cqrs_es.settle_timeout = 0');
is(query($reader, 'SELECT cqrs_es.settled_position()'), $next, 'a session that looked in time knows that the gap is dead');
my $writer = $primary->background_psql('postgres');
query($writer, 'BEGIN', q{SELECT FROM cqrs_es.append_event('account', 'w', 'open', '1')});
my $last = position_of(append_one('last'));
is(query($reader, 'SELECT cqrs_es.settled_position()'), $next, 'while the writer is open, too');
cmp_ok(fresh($primary, 'SELECT cqrs_es.settled_position()'), '<=', $start, 'a new session cannot know');
is(fresh($primary, "SELECT count(event_id), max(read_to) FROM cqrs_es.read_page($start)"), "0|$start", 'and gets no further');
is(fresh($primary, "SELECT count(event_id), max(read_to) FROM cqrs_es.read_page($next)"), "0|$next", 'but it does not go back');
is(fresh($primary, "SELECT count(event_id), max(read_to) FROM cqrs_es.read_page($next, event_types => '{none}')"), "0|$next", 'nor with a filter');

# 3. A snapshot older than its transaction: what the session knew before says
# nothing about it.

my $exporter = $primary->background_psql('postgres');
query($exporter, 'BEGIN ISOLATION LEVEL REPEATABLE READ');
my $snapshot = query($exporter, 'SELECT pg_export_snapshot()');
query($writer, 'COMMIT');
is(query($reader, 'SELECT cqrs_es.settled_position()'), $last, 'now it is settled');
query($reader, 'BEGIN ISOLATION LEVEL REPEATABLE READ', "SET TRANSACTION SNAPSHOT '$snapshot'");
is(query($reader, "SELECT string_agg(event_type, ' '), max(read_to) FROM cqrs_es.read_page($start)"), "next|$next",
	'a walk with an old snapshot ends before what it does not show');
is(query($reader, 'SELECT cqrs_es.settled_position()'), $next, 'and so does the settled position');
query($reader, 'COMMIT');
query($exporter, 'COMMIT');
is(query($reader, "SELECT string_agg(event_type, ' '), max(read_to) FROM cqrs_es.read_page($start)"), "next open last|$last", 'nothing is missed');

# 4. A worker that dies in the middle has moved nothing.

query($reader, "INSERT INTO cursors VALUES ('dies', $start)", 'BEGIN', q{SELECT FROM cursors WHERE reader = 'dies' FOR UPDATE},
	qq{UPDATE cursors SET position = (SELECT max(read_to) FROM cqrs_es.read_page($start)) WHERE reader = 'dies'});
my $pid = query($reader, 'SELECT pg_backend_pid()');
$primary->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 100000)");
is($primary->safe_psql('postgres', q{SELECT position FROM cursors WHERE reader = 'dies' FOR UPDATE}), $start, 'the next one begins where it began');

# 5. Pages that are read on a standby, for a cursor on the primary.

$primary->safe_psql('postgres', "UPDATE cursors SET position = $next WHERE reader = 'dies'");
query($writer, 'BEGIN', q{SELECT FROM cqrs_es.append_event('account', 'w', 'late', '1')});
position_of(append_one('above'));
is(on_standby_page(), 'open last', 'standby: a page ends before a gap');
is(on_standby_page(), '', 'and there it stays');
query($writer, 'COMMIT');
is(on_standby_page(), 'late above', 'until it is filled');
is(on_standby_page(), '', 'then there is nothing');

# 6. Events of other nodes, on both and in each isolation level.

my $end = $primary->safe_psql('postgres', 'SELECT max(global_position) FROM cqrs_es.events');
$primary->safe_psql('postgres', q{
	INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, sequence, event_type, payload, global_position)
	SELECT 'foreign', node, 1, 'foreign', '1', node::bigint << 44 | 9 FROM unnest(ARRAY[1, 2, 511]) AS node});
catch_up();
foreach my $node ($primary, $standby)
{
	foreach my $level ('READ COMMITTED', 'REPEATABLE READ', $node == $primary ? 'SERIALIZABLE' : ())
	{
		is(fresh($node, "BEGIN ISOLATION LEVEL $level; SELECT cqrs_es.settled_position(), (SELECT read_to FROM cqrs_es.read_page(event_types => '{none}')),
			(SELECT count(*) FROM cqrs_es.read_all($end))"), "$end|$end|0", $node->name . ", $level: the log of this node");
		is(fresh($node, "BEGIN ISOLATION LEVEL $level; SET LOCAL cqrs_es.node_id = 2; SELECT cqrs_es.settled_position() - (2::bigint << 44),
			(SELECT read_to - (2::bigint << 44) FROM cqrs_es.read_page(event_types => '{none}'))"), '9|9', 'as another node');
		is(fresh($node, "BEGIN ISOLATION LEVEL $level; SET LOCAL cqrs_es.node_id = 3; SELECT cqrs_es.settled_position(),
			(SELECT read_to FROM cqrs_es.read_page(event_types => '{none}'))"), '0|0', 'and as one that has no events');
	}
}
$primary->safe_psql('postgres', "UPDATE cursors SET position = $end WHERE reader = 'dies'");
is(on_standby_page(), '', 'a reader does not see them');
position_of(append_one('after'));
is(on_standby_page(), 'after', 'and misses nothing of its own behind them');

$_->quit foreach $writer, $exporter;
$standby->stop;
$primary->stop;
done_testing();

sub append_one { return "SELECT global_position FROM cqrs_es.append_event('account', '$_[0]', '$_[0]', '1')" }
sub position_of { return $primary->safe_psql('postgres', $_[0]) }
sub catch_up { $primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert')) }

# In a session that knows nothing and does not wait.
sub fresh
{
	my ($node, $statement) = @_;
	return $node->safe_psql('postgres', "SET cqrs_es.settle_timeout = 0; $statement");
}

# Statements in a session that stays; the answer of the last.
sub query
{
	my ($session, @statements) = @_;
	my $answer;
	$answer = $session->query_safe($_) foreach @statements;
	return $answer;
}

# One page on the standby; moves the cursor, and returns what there was.
sub on_standby_page
{
	catch_up();
	my $after = $primary->safe_psql('postgres', q{SELECT position FROM cursors WHERE reader = 'dies'});
	my ($types, $read_to) = split /\|/, fresh($standby, "SELECT string_agg(event_type, ' '), max(read_to) FROM cqrs_es.read_page($after)");
	$primary->safe_psql('postgres', "UPDATE cursors SET position = $read_to WHERE reader = 'dies'");
	return $types;
}
