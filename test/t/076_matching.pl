# Many who append to the same few streams, several in one call: the order of the events of
# each call is that of their positions, whichever race for a stream was lost and run again.
#
# Reading for a decision on a hot standby: it has no locks of those who append, so there it
# ends at the settled position, below whatever is in flight.  Conditions are for the primary.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->start;
$primary->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	SELECT cqrs_es.define_tags('Typed');
	SELECT cqrs_es.append_to_streams('[{"type": "First", "tags": ["x"]}, {"type": "Other", "tags": ["y"]}, {"type": "Typed"}]');
});
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

# What is read on the standby.
sub types
{
	my ($query, $more) = @_;
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));
	return $standby->safe_psql('postgres', "SET cqrs_es.settle_timeout = 0;
		SELECT string_agg(event_type, ' ') FROM cqrs_es.read_matching('$query'" . ($more // '') . ')');
}

# The state of an error there.
sub state_of
{
	my ($statement) = @_;
	my (undef, undef, $stderr) = $standby->psql('postgres', "\\set VERBOSITY sqlstate\n$statement");
	return $stderr =~ /ERROR:\s+(\w{5})/ ? $1 : $stderr;
}

is(types('[{"tags": ["x"]}]'), 'First', 'a tag');
is(types('[{"types": ["Typed"]}, {"tags": ["y"]}]'), 'Other Typed', 'a type and a tag');
is(types('[{}]', ', backward => true, max_count => 2'), 'Typed Other', 'everything, backward');
is(types('[{"tags": ["x"]}]', ', after_position => 1000000'), '', 'a position that has not come here yet');

my $writer = $primary->background_psql('postgres');
$writer->query_safe(q{BEGIN; SELECT FROM cqrs_es.append_to_streams('[{"type": "Second", "tags": ["x"]}]')});
$primary->safe_psql('postgres', q{SELECT FROM cqrs_es.append_to_streams('[{"type": "Third", "tags": ["x"]}]')});
is(types('[{"tags": ["x"]}]'), 'First', 'what lies above an event in flight is not handed out');
$writer->query_safe('COMMIT');
is(types('[{"tags": ["x"]}]'), 'First Second Third', 'when that is there all is');

is(state_of(q{SELECT * FROM cqrs_es.append_to_streams('[{"type": "e"}]', '[{"tags": ["x"]}]')}), '25006', 'nothing is appended');
like(($standby->psql('postgres', 'CALL cqrs_es.retag()'))[2], qr/ERROR:  cannot execute retag\(\) during recovery$/, 'nor are older events tagged');
is(state_of(q{SELECT * FROM cqrs_es.read_matching('[{"types": ["Unknown"]}]')}), '22023', 'a type must be known here, too');
$writer->quit;
$standby->promote;
is($standby->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.append_to_streams('[{"type": "e", "tags": ["x"]}]', '[{"tags": ["x"]}]',
	(SELECT max(global_position) FROM cqrs_es.read_matching('[{"tags": ["x"]}]')))}), 1, 'after promotion conditions are as ever');

# many calls at once, to one, two or three streams of three, and a stream of its own
foreach my $path ('off', 'on')
{
	my ($sessions, $calls) = (8, 150);
	my $script = $standby->basedir . "/streams_$path.sql";
	append_to_file($script, qq{\\set a random(1, 3)
\\set b random(1, 3)
\\set c random(1, 3)
SELECT count(*) FROM cqrs_es.append_to_streams(format('[{"aggregate_type": "hot $path", "aggregate_id": "%s", "type": "1"},
	{"aggregate_type": "hot $path", "aggregate_id": "%s", "type": "2"}, {"type": "3"}, {"aggregate_type": "hot $path", "aggregate_id": "%s", "type": "4"}]',
	:a, :b, :c)::jsonb);
});
	local $ENV{PGOPTIONS} = "-c cqrs_es.force_generic_path=$path -c cqrs_es.context={\"path\":\"$path\"}";
	$standby->command_ok([ 'pgbench', '-n', '-c', $sessions, '-j', 2, '-t', $calls, '-f', $script, $standby->connstr('postgres') ],
		"$path: calls to the same streams do not fail");
	is($standby->safe_psql('postgres', qq{SELECT count(*) FROM cqrs_es.events WHERE aggregate_type = 'hot $path'}), 3 * $sessions * $calls, "$path: and nothing is lost");
	# what a call wrote has the positions that it drew one behind the other, but for those of others
	is($standby->safe_psql('postgres', qq{
		SELECT count(*) FROM (
			SELECT array_agg(event_type ORDER BY global_position) AS types
			FROM cqrs_es.events WHERE metadata ->> 'path' = '$path' GROUP BY xmin::text) AS call
		WHERE types <> '{1,2,3,4}'}), 0, "$path: each call's events are in its order");
}
is($standby->safe_psql('postgres', q{SELECT string_agg(problem, ' ') FROM cqrs_es.verify_log()}), '', 'and the log is whole');

done_testing();
