
# The circles with their read side in Redis: examples/relay.py and relay.js bring the
# events there, two examples/circle.py keep hashes of them. All of these are killed in the
# middle, one after the other, and so is Redis. In the end it has what the read table has;
# an event that comes again changes nothing; and what Redis loses it gets again.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib "$ENV{TESTDIR}/test/include";
use Clients qw(python_with node_with);
use Example qw(started ended until_true);

my ($python, $why) = python_with('psycopg', 'redis');
plan skip_all => $why if !$python;
plan skip_all => 'redis-server is not installed' if !eval { run_log([ 'redis-server', '--version' ]) };
my ($node_path) = node_with('pg', 'redis');

my $port = PostgreSQL::Test::Cluster::get_free_port();
my $directory = PostgreSQL::Test::Utils::tempdir();
my $redis = start_redis();
my $university = Example->new('circle');
$university->sql("SELECT cqrs_es.alter_subscription('circles', lease => '1 s', retry_delay => '10 ms', retry_delay_max => '1 s')",
	"SELECT cqrs_es.reset_subscription('circles', 0)",
	q{CREATE FUNCTION tries(circle text, command text, payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM cqrs_es.execute_command('circle', circle, command, payload);
		EXCEPTION WHEN SQLSTATE 'QE301' THEN
		END $$});

my @relays = ([ $python, 'relay.py' ], defined $node_path ? [ 'node', 'relay.js' ] : [ $python, 'relay.py' ]);
my @programs = map { starts($_) } 0 .. 3;

until_equal('the story is there');

foreach my $round (1 .. 8)
{
	end_redis('KILL') if $round == 3;
	$redis = start_redis() if $round == 4;
	$university->sql(map { my $circle = "r-$round-$_";
			(qq(SELECT tries('$circle', 'CreateCircle', '{"circle_name": "$circle", "capacity": 3}')),
				map({ qq(SELECT tries('$circle', 'UpdateCircle', '{"capacity": $_}')) } 10 .. 15),
				qq(SELECT tries('$circle', 'UpdateCircle', '{"circle_name": "$circle, renamed"}'), tries('r-1-1', 'UpdateCircle', '{"capacity": $round$_}'))) } 1 .. 9);
	ended($programs[ $round % 4 ], 'KILL');
	$programs[ $round % 4 ] = starts($round % 4);
}
$university->until_done('circles');
$university->sql("SELECT cqrs_es.redrive('circles')");
$university->until_done('circles');
until_equal('whoever was killed, Redis has what the read table has');
cmp_ok($university->sql('SELECT count(*) FROM circles'), '>', 72, 'of many circles');
is(redis('HGETALL', 'circle:c-1') =~ s/\n/ /gr, 'name Chess and Go capacity 16 version 5', 'a circle');

# A relay that was late, or has died, hands on what is old.
redis('XADD', 'circles', '*', 'event_id', 'x', 'event', '{"aggregate_id": "c-1", "sequence": 2, "payload": {"name": "late"}}');
my $last = redis('XINFO', 'STREAM', 'circles') =~ /last-generated-id\n(\S+)/ && $1;
until_true(sub { redis('GET', 'circles:read_to') eq $last }, 'an event that comes again is read');
until_equal('and changes nothing');
until_true(sub { redis('XLEN', 'circles') eq '1' }, 'the stream has nothing before it any more');

# All is lost, and nobody notices at once: what happens meanwhile does not make half a circle.
redis('FLUSHALL');
$university->sql(qq(SELECT tries('c-1', 'UpdateCircle', '{"capacity": 20}')));
$university->until_done('circles');
$last = redis('XINFO', 'STREAM', 'circles') =~ /last-generated-id\n(\S+)/ && $1;
until_true(sub { redis('GET', 'circles:read_to') eq $last }, 'an event whose beginning is missing is read');
is(redis('EXISTS', 'circle:c-1'), 0, 'and makes no circle');
$university->sql("SELECT cqrs_es.reset_subscription('circles', 0)");
until_equal('all that was lost is there again');

is(join(' ', map { ended($_, 'TERM') } @programs), '0 0 0 0', 'SIGTERM');
end_redis('TERM');
$university->{node}->stop;
done_testing();

# Two relays and two readers.
sub starts
{
	my ($nr) = @_;
	my $url = "redis://127.0.0.1:$port/0";
	return $university->starts([ @{ $relays[$nr] }, '--subscription', 'circles', '--redis', $url, '--stream', 'circles' ],
		NODE_PATH => $node_path // '') if $nr < 2;
	return $university->starts([ $python, 'circle.py' ], REDIS => $url);
}

# It has on disk what it has acknowledged.
sub start_redis
{
	my $server = started([ 'redis-server', '--port', $port, '--bind', '127.0.0.1', '--dir', $directory, '--save', '',
			'--appendonly', 'yes', '--appendfsync', 'always' ], '<', \undef, '>&', "$directory/redis.log");
	until_true(sub { redis('PING') eq 'PONG' }, 'Redis is there');
	return $server;
}

sub end_redis
{
	my ($signal) = @_;
	$redis->signal($signal);
	eval { $redis->finish };
	return;
}

sub redis
{
	my @arguments = @_;
	my $output = '';
	IPC::Run::run([ 'redis-cli', '-p', $port, @arguments ], '>&', \$output);
	return $output =~ s/\n$//r;
}

# The answer of list_circles(), and of Redis.
sub until_equal
{
	my ($title) = @_;
	my ($expected, $is) = $university->sql(q{SELECT string_agg(format(E'%s\n%s\n%s\n%s', id, name, capacity, version), E'\n' ORDER BY name COLLATE "C") FROM list_circles()});
	until_true(sub { ($is = redis('SORT', 'circle_ids', 'BY', 'circle:*->name', 'ALPHA', 'GET', '#', map { ('GET', "circle:*->$_") } 'name', 'capacity', 'version'))
			eq $expected }, $title);
	return;
}
