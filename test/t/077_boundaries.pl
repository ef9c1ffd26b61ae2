# Many sessions decide on the same boundaries, beside who appends without a decision, while
# the server is killed: no course has more participants than places, no student more courses
# than allowed, and each command happened once, or not at all. What prepared transactions, a
# dump and a standby make of it.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "max_prepared_transactions = 10\nmax_connections = 40");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	SELECT cqrs_es.define_tags('Opened', 'course:{/course}');
	SELECT cqrs_es.define_tags('Enrolled', 'course:{/course}', 'student:{/student}');
	SELECT cqrs_es.create_boundary('enrol', '[{"types": ["Opened", "Enrolled"], "tags": ["course:{/course}"]}, {"types": ["Enrolled"], "tags": ["student:{/student}"]}]',
		'{"free": {}, "takes": {}}', snapshot_every => 5);
	SELECT cqrs_es.define_reducer('enrol', 'Opened', '[{"op": "set", "path": "/free/{/course}", "from": "/places"}]');
	SELECT cqrs_es.define_reducer('enrol', 'Enrolled', '[{"op": "decrement", "path": "/free/{/course}"}, {"op": "increment", "path": "/takes/{/student}"}]');
	SELECT cqrs_es.define_command('enrol', 'Enrol', $$
		CASE WHEN (state #>> ARRAY['free', command->>'course'])::int <= 0 THEN cqrs_es.reject('full')
		WHEN (state #>> ARRAY['takes', command->>'student'])::int >= 4 THEN cqrs_es.reject('four at most')
		ELSE jsonb_build_object('type', 'Enrolled', 'payload', command) END$$);
	-- each has what the other asks for, and does not say so in its query
	SELECT cqrs_es.define_tags('Numbered', 'left:{/left}', 'right:{/right}');
	SELECT cqrs_es.create_boundary(side, format('[{"tags": ["%s:{/%s}"]}]', side, side)::jsonb, '{"n": 0}', snapshot_every => 20),
		cqrs_es.define_reducer(side, 'Numbered', '[{"op": "increment", "path": "/n"}]'),
		cqrs_es.define_command(side, 'Number', format($$jsonb_build_object('type', 'Numbered', 'payload', command || jsonb_build_object('of', %L, 'n', state->'n'))$$, side))
	FROM unnest('{left,right}'::text[]) AS side;
	-- an id that says which command it is
	CREATE FUNCTION enrol(course int, student int) RETURNS text LANGUAGE sql RETURN (
		SELECT 'done' FROM cqrs_es.execute_boundary('enrol', 'Enrol', jsonb_build_object('course', course, 'student', student),
			command_id => cqrs_es.id_from_text(course || ' ' || student)));
	-- what must hold at each event of the log
	CREATE VIEW broken AS SELECT * FROM (
		SELECT global_position, payload, count(*) OVER (PARTITION BY payload->>'course' ORDER BY global_position) AS of_course,
			count(*) OVER (PARTITION BY payload->>'student' ORDER BY global_position) AS of_student,
			count(*) OVER (PARTITION BY payload) AS of_both,
			(SELECT (o.payload->>'places')::int FROM cqrs_es.events AS o WHERE o.event_type = 'Opened' AND o.payload->'course' = e.payload->'course') AS places
		FROM cqrs_es.events AS e WHERE event_type = 'Enrolled') AS e
	WHERE of_course > places OR of_student > 4 OR of_both > 1;
});

# psql with a script, under way.
my $scripts = 0;
sub start_psql
{
	my ($script) = @_;
	my %psql = (out => '', err => '');
	my $file = "$dir/script" . $scripts++;

	open my $handle, '>', $file or die "could not write $file: $!";
	print $handle $script;
	close $handle or die "could not write $file: $!";
	$psql{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', $file ], '>', \$psql{out}, '2>', \$psql{err});
	return \%psql;
}

sub state_of
{
	my ($on, $statement) = @_;
	my ($status, $stdout, $stderr) = $on->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	return $stderr =~ /ERROR:  (\w{5}):/ ? $1 : 'done';
}

# Courses with one place left, and sixteen who want it; half of them in each other order.
my $courses = 40;
$node->safe_psql('postgres', qq{SELECT cqrs_es.append_event('course', c::text, 'Opened', jsonb_build_object('course', c, 'places', 1)) FROM generate_series(1, $courses) AS c});
my @workers = map
{
	my $worker = $_;
	my @order = $worker % 2 ? 1 .. $courses : reverse 1 .. $courses;
	start_psql("\\set VERBOSITY terse\n" . join('', map { "SELECT enrol($_, $worker * 100 + $_);\n" } @order));
} 1 .. 16;
$_->{run}->finish foreach @workers;
is(join('', map { $_->{err} =~ s/^.*ERROR:  full\n//gmr } @workers), '', 'who does not get the place is told that it is taken, and nothing else');
is(scalar(map { $_->{out} =~ /done/g } @workers), $courses, 'each place is taken once');
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT payload->>'course') FROM cqrs_es.events WHERE event_type = 'Enrolled'}), "$courses|$courses", '... in the log, too');
is($node->safe_psql('postgres', 'SELECT count(*) FROM broken'), '0', '... at each position');

# More courses and few students, so that both rules bite; each command is in the hands of
# three; and the server is killed in the middle of it, twice.
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('course', c::text, 'Opened', jsonb_build_object('course', c, 'places', 3)) FROM generate_series(101, 120) AS c});
my @commands = map { my $course = $_; map { "SELECT enrol($course, $_);\n" } 1 .. 12 } 101 .. 120;
foreach my $kill (1, 2)
{
	my $before = $node->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.events');
	my @half = $kill == 1 ? @commands[ 0 .. 119 ] : @commands[ 120 .. 239 ];
	my @running = map { start_psql(join('', shuffle(@half))) } 1 .. 3;
	$node->poll_query_until('postgres', "SELECT count(*) >= $before + 5 FROM cqrs_es.events");
	$node->stop('immediate');
	$_->{run}->finish foreach @running;
	$node->start;
	is($node->safe_psql('postgres', 'SELECT count(*) FROM broken'), '0', "killed, no rule is broken ($kill)");
}
my @again = map { start_psql("\\set VERBOSITY terse\n" . join('', shuffle(@commands))) } 1 .. 4;
$_->{run}->finish foreach @again;
is(join('', map { $_->{err} =~ s/^.*ERROR:  (?:full|four at most)\n//gmr } @again), '', 'all is sent again, by four');
is($node->safe_psql('postgres', 'SELECT count(*) FROM broken'), '0', '... and no rule is broken');
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM generate_series(101, 120) AS c, generate_series(1, 12) AS s
	WHERE NOT EXISTS (SELECT FROM cqrs_es.events WHERE event_type = 'Enrolled' AND payload = jsonb_build_object('course', c, 'student', s))
	AND (SELECT count(*) FROM cqrs_es.events WHERE event_type = 'Enrolled' AND payload->>'course' = c::text) < 3
	AND (SELECT count(*) FROM cqrs_es.events WHERE event_type = 'Enrolled' AND payload->>'student' = s::text) < 4}), '0', 'nobody was refused for nothing');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM cqrs_es.boundary_snapshots'), '>', 0, 'some states have snapshots');
# the state, from its snapshot, is that without one
my $states = q{SELECT md5(string_agg(cqrs_es.boundary_state('enrol', jsonb_build_object('course', c, 'student', s))::text, ' ' ORDER BY c, s)) FROM generate_series(101, 120) AS c, generate_series(1, 12) AS s};
my $with = $node->safe_psql('postgres', $states);
is($node->safe_psql('postgres', "BEGIN; DELETE FROM cqrs_es.boundary_snapshots; $states; ROLLBACK"), $with, '... which say the same as their events');

# Two boundaries that have what the other asks for: nobody is told of a deadlock, and each
# number is given once, by both.
my @crossing = map { my $side = $_ % 2 ? 'left' : 'right';
	start_psql("\\set VERBOSITY terse\n" . "SELECT 'done' FROM cqrs_es.execute_boundary('$side', 'Number', '{\"left\": 1, \"right\": 1}');\n" x 40) } 1 .. 8;
$_->{run}->finish foreach @crossing;
is(join('', map { $_->{err} } @crossing), '', 'two that have what the other asks for do not stop each other');
is($node->safe_psql('postgres', q{SELECT count(*), count(*) FILTER (WHERE payload->>'n' = n::text)
	FROM (SELECT payload, row_number() OVER (ORDER BY global_position) - 1 AS n FROM cqrs_es.events WHERE event_type = 'Numbered') AS e}), '320|320', '... and each sees all before it');

# A transaction that is prepared holds what it has decided on.
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('course', '201', 'Opened', '{"course": 201, "places": 1}')});
$node->safe_psql('postgres', "BEGIN; SELECT enrol(201, 501); PREPARE TRANSACTION 'p'");
is(state_of($node, "SET lock_timeout = '100ms'; SELECT enrol(201, 502)"), '55P03', 'who wants the same waits for it');
$node->restart;
is(state_of($node, "SET lock_timeout = '100ms'; SELECT enrol(201, 502)"), '55P03', '... over a restart');
is(state_of($node, "SET lock_timeout = '100ms'; SELECT enrol(1, 502)"), 'QE301', '... and nobody else');
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
is(state_of($node, 'SELECT enrol(201, 502)'), 'QE301', 'then it is taken');
is($node->safe_psql('postgres', 'SELECT enrol(201, 501)'), 'done', 'and the same command sent again has its place');

# A dump has boundaries, tags and snapshots, and these are used.
$node->safe_psql('postgres', q{
	UPDATE cqrs_es.boundary_snapshots SET payload = payload || '{"snapshot": true}';
	CREATE FUNCTION used() RETURNS bigint LANGUAGE sql RETURN (SELECT count(*) FROM cqrs_es.boundary_snapshots
		WHERE boundary = 'enrol' AND cqrs_es.boundary_state('enrol', jsonb_build_object('course', substr(query #>> '{0,tags,0}', 8), 'student', substr(query #>> '{1,tags,0}', 9))) ? 'snapshot')});
my $used = $node->safe_psql('postgres', 'SELECT used()');
cmp_ok($used, '>', 0, 'snapshots are used');
my $content = q{SELECT (SELECT md5(string_agg(to_jsonb(b)::text, ' ' ORDER BY boundary)) FROM cqrs_es.boundaries AS b),
	(SELECT md5(string_agg(to_jsonb(s)::text, ' ' ORDER BY query_digest)) FROM cqrs_es.boundary_snapshots AS s)};
$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('postgres'), '-f', "$dir/dump" ], 'a dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), "$dir/dump" ], 'is restored');
is($node->safe_psql('restored', $content), $node->safe_psql('postgres', $content), 'with boundaries and snapshots, as they were');
is($node->safe_psql('restored', 'SELECT used()'), $used, '... which are used');
is($node->safe_psql('restored', 'SELECT enrol(201, 501)'), 'done', 'a command is recognized');
is($node->safe_psql('restored', q{SELECT count(*) FROM cqrs_es.events WHERE payload->>'student' = '501'}), '1', '... and does nothing');
my ($status, $stdout, $stderr) = $node->psql('restored', 'SELECT enrol(201, 503)');
like($stderr, qr/ERROR:  full/, 'and a rule holds');

# A standby shows states, and decides nothing until it is promoted.
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is(state_of($standby, 'SELECT enrol(201, 501)'), '25006', 'a standby decides nothing');
is($standby->safe_psql('postgres', q{SELECT cqrs_es.boundary_state('enrol', '{"course": 201, "student": 501}')}),
	$node->safe_psql('postgres', q{SELECT cqrs_es.boundary_state('enrol', '{"course": 201, "student": 501}')}), '... and shows the state');
$node->stop;
$standby->promote;
is(state_of($standby, 'SELECT enrol(201, 502)'), 'QE301', 'promoted, it does');
is($standby->safe_psql('postgres', 'SELECT enrol(201, 501)'), 'done', '... and knows the commands');
$standby->stop;
done_testing();
