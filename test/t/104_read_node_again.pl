# What is left of a read node, and of its publisher, where the extension is dropped and created again: nobody receives
# another log behind the one that was followed. And publishers that follow others themselves.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = PostgreSQL::Test::Cluster->new('again');
$server->init(allows_streaming => 'logical');
$server->append_conf('postgresql.conf', $_) foreach 'max_logical_replication_workers = 12', 'max_worker_processes = 24', 'wal_retrieve_retry_interval = 100ms';
$server->start;

sub on { my ($database, $sql) = @_; return $server->safe_psql($database, $sql) }
sub refused
{
	my ($database, $sql) = @_;
	my ($status, $out, $error) = $server->psql($database, "\\set VERBOSITY verbose\n$sql");
	return $error =~ /ERROR:  (.*)/s ? $1 : "no error: $out $error";
}
sub follow
{
	my ($database, $more) = @_;
	return sprintf "SELECT cqrs_es.follow_log('%s'%s)", ($server->connstr . " dbname=$database") =~ s/'/''/gr, $more // '';
}
sub create
{
	my ($database, $node_id) = @_;
	on('postgres', "CREATE DATABASE \"$database\"");
	on('postgres', "ALTER DATABASE \"$database\" SET cqrs_es.node_id = $node_id");
	on($database, 'CREATE EXTENSION cqrs_es');
	return;
}
sub append { return sprintf q{SELECT global_position & 17592186044415 FROM cqrs_es.append_event('t', '%s', 'e', '{}')}, $_[0] }
sub is_copied { return $server->poll_query_until($_[0], 'SELECT bool_and(copied) FROM cqrs_es.followed_log_status') }

create('publisher', 0);
create('reader', 0);
on('publisher', append($_) . '; ' . 'SELECT cqrs_es.publish_log()') foreach 1, 2;
on('reader', follow('publisher'));
is_copied('reader');
is(on('reader', 'SELECT count(*) FROM cqrs_es.read_all()'), 2, 'a log is followed');

# the follower's extension is dropped: the subscription is none of its members
on('reader', 'DROP EXTENSION cqrs_es; CREATE EXTENSION cqrs_es');
is(on('reader', 'SELECT count(*) FROM pg_subscription_rel'), 0, 'a subscription without tables is left');
my $error = refused('reader', follow('publisher'));
like($error, qr/^42710: subscription "cqrs_es_log_0" already exists/, 'which is in the way');
like($error, qr/^HINT:  DROP SUBSCRIPTION cqrs_es_log_0/m, 'and the error says what to do');
on('publisher', append(3));
$server->wait_for_catchup('cqrs_es_log_0');
is(on('reader', 'SELECT count(*) FROM cqrs_es.events'), 0, 'it brings nothing into the new log');
on('reader', 'DROP SUBSCRIPTION cqrs_es_log_0');
on('reader', follow('publisher'));
is_copied('reader');
is(on('reader', 'SELECT count(*) FROM cqrs_es.read_all()'), 3, 'then it is followed from its beginning');

# the publisher's is dropped: publications are found again by name
my $id = on('reader', 'SELECT cqrs_es.log_id()');
on('publisher', 'DROP EXTENSION cqrs_es; CREATE EXTENSION cqrs_es');
is(on('publisher', append('other')), 1, 'a new log begins, with the same positions');
$error = refused('publisher', 'SELECT cqrs_es.publish_log()');
like($error, qr/^55000: there are replication slots of those who followed another log/, 'it is not published to those who followed the old one');
like(refused('publisher', 'SELECT cqrs_es.unpublish_log()'), qr/^55006/, 'who do so still');
on('publisher', append('other'));
$server->wait_for_catchup('cqrs_es_log_0');
is(on('reader', q{SELECT string_agg(aggregate_id, ' ' ORDER BY global_position) FROM cqrs_es.read_all()}), '1 2 3', 'and keep what they have');
is(on('reader', q{SELECT apply_errors FROM cqrs_es.followed_log_status}), 0, 'without an error');
on('reader', 'DROP SUBSCRIPTION cqrs_es_log_0');
on('publisher', 'SELECT cqrs_es.unpublish_log(); SELECT cqrs_es.publish_log()');
like(refused('reader', follow('publisher')), qr/^55000: this database cannot follow: it has events of that node/, 'a database that has the old log cannot follow the new one');
on('reader', 'DROP EXTENSION cqrs_es; CREATE EXTENSION cqrs_es');
on('reader', follow('publisher'));
is_copied('reader');
is(on('reader', q{SELECT string_agg(aggregate_id, ' ' ORDER BY global_position) FROM cqrs_es.read_all()}), 'other other', 'one that is new can');
isnt(on('reader', 'SELECT cqrs_es.log_id()'), $id, 'it is another log');

# a publisher that follows another hands on what it receives
create('middle', 2);
on('middle', follow('publisher') . ';' . append('own') . '; SELECT cqrs_es.publish_log()');
is_copied('middle');
create('last', 3);
on('last', follow('publisher'));
like(refused('last', follow('middle', ', declarations => false')), qr/^55000: the publisher hands on the log of node 0, which is here already/, 'events come in one way');
create('namesake', 0);
like(refused('namesake', follow('middle')), qr/^55000: the publisher hands on the log of node 0, which is here already, or is this node's/, 'and none of the node that appends here');
is(on('postgres', q{SELECT count(*) FROM pg_replication_slots WHERE database = 'middle'}), 0, 'what was refused leaves no slot');
create('end', 4);
on('end', follow('middle'));
is_copied('end');
on('publisher', append('other'));
ok($server->poll_query_until('end', 'SELECT count(*) = 4 FROM cqrs_es.events'), 'who follows the one in the middle gets both');

$server->stop;
done_testing();
