# Decisions that concern nothing in common do not disturb each other: twenty clients append at
# once, each event with a tag of its own under the condition that nobody else has used it. None of
# them is refused, none meets a deadlock, whatever slots their tags share, and each event is there
# once. Who uses the tags again is refused, each time. (As the suite of dcb.events asks of any
# store; the worlds of 078_tag_storms have something in common.)

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant CLIENTS => 20;
use constant EACH => 40;

my $node = PostgreSQL::Test::Cluster->new('unrelated');
$node->init;
$node->append_conf('postgresql.conf', "max_connections = 50\ndeadlock_timeout = 50ms\nlog_lock_waits = off");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	SELECT cqrs_es.define_tags('Derived', 'own:{/own}');
	SELECT cqrs_es.create_boundary('own', '[{"types": ["Derived"], "tags": ["own:{/own}"]}]', '{"n": 0}');
	SELECT cqrs_es.define_reducer('own', 'Derived', '[{"op": "increment", "path": "/n"}]');
	SELECT cqrs_es.define_command('own', 'Use', $$CASE WHEN state->>'n' = '0' THEN jsonb_build_object('type', 'Derived', 'payload', command) ELSE cqrs_es.reject('used', 'used') END$$);
	-- what one decision is, of each kind
	CREATE FUNCTION given(own text) RETURNS void LANGUAGE sql AS $$
		SELECT FROM cqrs_es.append_to_streams(jsonb_build_array(jsonb_build_object('type', 'Given', 'tags', jsonb_build_array(own))),
			jsonb_build_array(jsonb_build_object('types', jsonb_build_array('Given'), 'tags', jsonb_build_array(own))))
	$$;
	CREATE FUNCTION derived(own text) RETURNS void LANGUAGE sql AS $$
		SELECT FROM cqrs_es.append_to_streams(jsonb_build_array(jsonb_build_object('type', 'Derived', 'payload', jsonb_build_object('own', own), 'aggregate_type', 'own', 'aggregate_id', own)),
			jsonb_build_array(jsonb_build_object('tags', jsonb_build_array('own:' || own))))
	$$;
	CREATE FUNCTION boundary(own text) RETURNS void LANGUAGE sql AS $$ SELECT FROM cqrs_es.execute_boundary('own', 'Use', jsonb_build_object('own', own)) $$;
});

# All at once; one that fails ends its client, which pgbench says.
sub all_at_once
{
	my ($what, @settings) = @_;
	my $script = $node->basedir . '/script';
	open my $file, '>', $script or die "$script: $!";
	print $file "\\set i :i + 1\n", map({ "$_;\n" } @settings), qq{SELECT $what(format('$what %s/%s', :client_id, :i));\n};
	close $file;
	my ($out, $err) = ('', '');
	my $done = IPC::Run::run [ 'pgbench', '-n', '-c', CLIENTS, '-j', 2, '-t', EACH, '-D', 'i=0', '-f', $script,
		'-h', $node->host, '-p', $node->port, 'postgres' ], '>', \$out, '2>', \$err;
	ok($done, "$what: none of them is refused, and there is no deadlock") or diag($err);
	like($out, qr{processed: ${\(CLIENTS * EACH)}/}, "$what: all of them are done");
	return;
}

my $all = CLIENTS * EACH;
foreach my $what (qw(given derived boundary))
{
	all_at_once($what);
	is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT tag) FROM cqrs_es.event_tags WHERE tag LIKE '%$what %'"), "$all|$all", "$what: each event is there, with its tag");
	# the next use of each
	is($node->safe_psql('postgres', qq{
		CREATE OR REPLACE FUNCTION again(own text) RETURNS text LANGUAGE plpgsql AS \$\$ BEGIN PERFORM $what(own); RETURN 'done'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END \$\$;
		SELECT state, count(*) FROM generate_series(0, ${\(CLIENTS - 1)}) AS c, generate_series(1, ${\(EACH)}) AS i, again(format('$what %s/%s', c, i)) AS state GROUP BY 1}),
		($what eq 'boundary' ? 'QE301' : 'QE005') . "|$all", "$what: a tag that was used is refused");
}
$node->safe_psql('postgres', q{
	CREATE FUNCTION generic(own text) RETURNS void LANGUAGE sql AS 'SELECT given(own)';
});
all_at_once('generic', 'SET cqrs_es.force_generic_path = on');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.events}), 4 * $all, 'nothing else is in the log');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.verify_log() WHERE problem IS NOT NULL}), '0', 'which is whole');
my $log = slurp_file($node->logfile);
unlike($log, qr/deadlock detected|WARNING/, 'the server has seen no deadlock');
$node->stop;
done_testing();
