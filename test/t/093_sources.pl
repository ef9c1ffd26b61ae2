# Logs of several nodes in one database, of the same server at that: each is received, and what is appended there is of
# a node of its own. And what a dump of it is.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('sources');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', 'max_logical_replication_workers = 10');
$node->start;

sub on { my ($database, $sql) = @_; return $node->safe_psql($database, $sql) }
sub refused
{
	my ($database, $sql) = @_;
	my ($status, $out, $error) = $node->psql($database, "\\set VERBOSITY verbose\n$sql");
	return $error =~ /ERROR:  (\w{5}): (.*)/ ? "$1 $2" : "no error: $out $error";
}
sub follow
{
	my ($database, $more) = @_;
	return sprintf "SELECT cqrs_es.follow_log('%s'%s)", ($node->connstr . " dbname=$database") =~ s/'/''/gr, $more // '';
}

my %number = (one => 1, two => 2, all => 3);
foreach my $database (sort keys %number)
{
	on('postgres', "CREATE DATABASE \"$database\"");
	on('postgres', "ALTER DATABASE \"$database\" SET cqrs_es.node_id = $number{$database}");
	on($database, 'CREATE EXTENSION cqrs_es');
	on($database, qq{SELECT cqrs_es.create_aggregate('account', '{"at": "$database"}')}) if $database ne 'all';
	on($database, qq{SELECT cqrs_es.append_event('account', '$database-' || n % 3, 'Moved', '{"n": 1}') FROM generate_series(1, 20) AS n});
	on($database, 'SELECT cqrs_es.publish_log()') if $database ne 'all';
}

# until 15 what is received is written as a superuser, with what the owner of a table hangs on it
on('postgres', 'CREATE DATABASE owned');
on('owned', 'CREATE EXTENSION cqrs_es; CREATE ROLE owner; ALTER TABLE cqrs_es.aggregates OWNER TO owner');
SKIP:
{
	skip 'from 16 on it is written as the owner of the table', 1 if on('owned', q{SELECT current_setting('server_version_num')::int >= 160000}) eq 't';
	like(refused('owned', follow('one')), qr/^55000 this database cannot follow: it has tables that no superuser owns/, 'nobody else may own a table that is written as a superuser');
}
on('postgres', 'DROP DATABASE owned');

like(refused('one', follow('one')), qr/^QE604/, 'a database cannot follow itself');
on('all', follow('one'));
like(refused('all', follow('two')), qr/^55000 this database cannot follow: it has declarations/, 'declarations come from one of them');
is(on('postgres', q{SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'cqrs_es_%'}), 1, 'what was refused leaves no slot');
on('all', follow('two', ', declarations => false'));
$node->poll_query_until('all', 'SELECT count(*) = 2 AND bool_and(copied) FROM cqrs_es.followed_log_status');
on($_, qq{SELECT cqrs_es.append_event('account', '$_-1', 'Moved', '{"n": 2}')}) foreach sort keys %number;
$node->poll_query_until('all', 'SELECT count(*) = 63 FROM cqrs_es.events');
is(on('all', q{SELECT string_agg(n::text, ' ' ORDER BY node) FROM (SELECT global_position >> 44 AS node, count(*) AS n FROM cqrs_es.events GROUP BY 1) AS e}), '21 21 21', 'both logs are here, and the own one');
is(on('all', q{SELECT cqrs_es.aggregate_state('account', 'two-1')->>'at'}), 'one', 'with the declarations of one of them');
like(refused('all', q{SELECT cqrs_es.create_aggregate('other')}), qr/^QE601/, 'which are not changed here');
is(on('all', 'SELECT count(*), bool_and(global_position >> 44 = 3) FROM cqrs_es.read_all()'), '21|t', 'readers get the own log');
is(on('all', 'SET cqrs_es.node_id = 2; SET cqrs_es.settle_timeout = 0; SELECT count(*), bool_and(global_position >> 44 = 2) FROM cqrs_es.read_all()'), '21|t', 'or, if they say so, that of another node');
like(refused('all', q{SET cqrs_es.node_id = 2; SELECT cqrs_es.append_event('account', 'x', 'Moved', '{}')}), qr/^QE601/, 'of which nothing can be appended here');
is(on('all', 'SELECT count(*) FROM cqrs_es.verify_log() WHERE problem IS NOT NULL'), 0, 'all is whole');

# one of them ends
my $last = on('two', 'SELECT cqrs_es.hand_over_log()');
is(on('all', 'SELECT cqrs_es.take_over_log(node_id => 2)'), $last, 'one is not followed any more');
is(on('all', q{SELECT version, global_position >> 44 FROM cqrs_es.append_event('account', 'two-1', 'Moved', '{"n": 3}')}), on('two', q{SELECT cqrs_es.stream_version('account', 'two-1') + 1}) . '|3', 'its streams go on here, at the own node');
on('one', q{SELECT cqrs_es.append_event('account', 'one-1', 'Moved', '{"n": 3}')});
ok($node->poll_query_until('all', q{SELECT cqrs_es.stream_version('account', 'one-1') = 9}), 'the other goes on');
is(on('two', q{SELECT cqrs_es.take_back_log(); SELECT version FROM cqrs_es.append_event('account', 'new', 'Moved', '{}')}), "\n1", 'take_back_log() lets one append again');

# a read node's dump is no read node
on('postgres', 'CREATE DATABASE follower');
on('postgres', 'ALTER DATABASE follower SET cqrs_es.node_id = 1');
on('follower', 'CREATE EXTENSION cqrs_es');
on('follower', follow('one'));
$node->poll_query_until('follower', 'SELECT bool_and(copied) FROM cqrs_es.followed_log_status');
like(refused('follower', q{SELECT cqrs_es.append_event('account', 'x', 'Moved', '{}')}), qr/^QE601/, 'a read node');
my $dump = $node->basedir . '/follower.dump';
$node->command_ok([ 'pg_dump', '-Fc', '--no-subscriptions', '-f', $dump, 'follower' ], 'its dump');
on('postgres', 'CREATE DATABASE restored');
on('postgres', 'ALTER DATABASE restored SET cqrs_es.node_id = 1');
$node->command_ok([ 'pg_restore', '-1', '-d', 'restored', $dump ], 'is restored');
is(on('restored', q{SELECT version FROM cqrs_es.append_event('account', 'x', 'Moved', '{}')}), 1, 'and appends, above all that was received');
is(on('restored', 'SELECT max(global_position) FROM cqrs_es.events'), on('follower', 'SELECT max(global_position) + 1 FROM cqrs_es.events'), 'right behind it');

# what a restore with --disable-triggers leaves is not followed with
on('postgres', 'CREATE DATABASE careless');
on('careless', 'CREATE EXTENSION cqrs_es; ALTER TABLE cqrs_es.events DISABLE TRIGGER ALL; ALTER TABLE cqrs_es.events ENABLE TRIGGER ALL');
like(refused('careless', follow('one')), qr/^55000 this database cannot follow: it has triggers that do not fire/, 'triggers that do not fire for what is received');
like(refused('one', 'SELECT cqrs_es.unpublish_log()'), qr/^55006/, 'somebody follows still');

$node->stop;
done_testing();
