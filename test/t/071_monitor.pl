# What a monitor sees of other sessions: who holds readers back, for what sessions wait, what the server has
# counted, on a standby, too. And examples/monitoring: each query runs as a member of pg_monitor who has no
# other right and gives just the metrics that are described, both exporters have the same, and what the
# dashboard, the alarms and docs/monitoring.md name exists. Each of these checks is tried on a breach.

use strict;
use warnings FATAL => 'all';
use CPAN::Meta::YAML;
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{TESTDIR};
my $examples = "$root/examples/monitoring";
my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "max_prepared_transactions = 10\ncqrs_es.projection_worker = off");
$node->start;
my $has_names = $node->safe_psql('postgres', 'SELECT current_setting($$server_version_num$$)::int >= 170000') eq 't';
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
	CREATE ROLE writer LOGIN;
	GRANT USAGE ON SCHEMA cqrs_es TO writer;
	GRANT SELECT, INSERT ON cqrs_es.events TO writer;
	SELECT cqrs_es.create_aggregate('account', '{}', 10);
	SELECT cqrs_es.append_event('account', '1', 'Opened', '{}');
});

#-------------------------------------------------------------------------
# who holds readers back
#-------------------------------------------------------------------------

sub seen { return monitors("SELECT $_[0] FROM cqrs_es.unsettled_transactions ORDER BY since") }

# As a member of pg_monitor.
sub monitors
{
	my ($statement, $server) = @_;
	return ($server // $node)->safe_psql('postgres', $statement, connstr => ($server // $node)->connstr('postgres') . ' user=monitor');
}

my $watch = $node->background_psql('postgres', extra_params => [ '-U', 'monitor' ]);
my $how = 'SELECT last_position, settled_position, unsettled, unsettled_since IS NOT NULL FROM cqrs_es.log_status';
is($watch->query_safe($how), '1|1|0|f', 'a quiet log');
my $writer = $node->background_psql('postgres', extra_params => [ '-U', 'writer' ]);
$writer->query_safe(q{SET application_name = 'the till'});
my $pid = $writer->query_safe('SELECT pg_backend_pid()');
$writer->query_safe('BEGIN');
$writer->query_safe(q{SELECT cqrs_es.append_event('account', '2', 'Opened', '{"secret": 1}')});
is(seen('pid, usename, application_name, state, since IS NOT NULL, query LIKE $$%append_event%$$'), "$pid|writer|the till|idle in transaction|t|t",
	'a monitor sees who holds readers back, since when, and with what');
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('account', '3', 'Opened', '{}')});
is($watch->query_safe($how), '3|1|1|t', 'and that an event behind it is not settled');
is(monitors($how), '3||1|t', 'a session that comes now does not know how far readers get, and says so');

# A copy of the database has relations of the same oids.
$writer->query_safe('COMMIT');
is(seen('pid'), '', 'it has ended');
is($watch->query_safe($how), '3|3|0|f', '... and all is settled');
$_->quit foreach $writer, $watch;
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE postgres');
is($node->safe_psql('copy', q{SELECT 'cqrs_es.events_global_position_seq'::regclass::oid}),
	$node->safe_psql('postgres', q{SELECT 'cqrs_es.events_global_position_seq'::regclass::oid}), 'a copy of the database');
my $other = $node->background_psql('copy');
$other->query_safe(q{BEGIN; SELECT cqrs_es.append_event('account', '4', 'Opened', '{}')});
is(seen('pid'), '', 'whoever writes there holds nobody back here');
is($node->safe_psql('copy', 'SELECT count(*) FROM cqrs_es.unsettled_transactions'), '1', '... but there');
is(monitors('SELECT unsettled, last_position = settled_position FROM cqrs_es.log_status'), '0|t', '... and log_status knows');
$other->quit;

# A partitioned log: that of the copy.
is($node->safe_psql('copy', q{SELECT cqrs_es.partition_log('aggregate_id', partitions => 4) >= 0}), 't', 'a partitioned log');
is($node->safe_psql('copy', q{SELECT events, events_estimated, streams, streams_estimated, unsettled, bytes = (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('cqrs_es.events')) FROM cqrs_es.log_status}),
	'3|f|3|f|0|t', '... is counted as a whole');
is($node->safe_psql('copy', q{SELECT inserted >= 3 FROM cqrs_es.counters}), 't', '... by the server, too');

# Prepared, also after a restart.
$node->safe_psql('postgres', q{BEGIN; SELECT cqrs_es.append_event('account', '5', 'Opened', '{}'); PREPARE TRANSACTION 'the order'});
is(seen('pid, prepared, usename, since IS NOT NULL'), '|the order|' . $node->safe_psql('postgres', 'SELECT current_user') . '|t', 'a prepared transaction has a name and no pid');
$node->restart;
is(seen('pid, prepared'), '|the order', 'after a restart, too');
my $second = $node->background_psql('postgres');
$second->query_safe(q{BEGIN; SELECT cqrs_es.append_event('account', '6', 'Opened', '{}')});
is(seen('prepared IS NOT NULL, pid IS NOT NULL'), "t|f\nf|t", 'and another one beside it');
$second->query_safe('ROLLBACK');
$second->quit;
$node->safe_psql('postgres', q{COMMIT PREPARED 'the order'});
is(seen('pid'), '', 'none is left');

# A long log, in which a gap is old: what a session has learnt it goes on to know.
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event_arrays('account', 'long' || n, array_fill('Seen'::text, ARRAY[1000]), array_fill('{}'::jsonb, ARRAY[1000])) FROM generate_series(1, 101) n});
my $knows = $node->background_psql('postgres');
my $is_settled = 'SELECT last_position - settled_position FROM cqrs_es.log_status';
is($knows->query_safe($is_settled), '0', 'a session that could look while nobody wrote');
my $holder = $node->background_psql('postgres');
$holder->query_safe(q{BEGIN; SELECT cqrs_es.next_position()});
is($knows->query_safe($is_settled), '0', '... goes on to know');
is(monitors($is_settled), '', 'one that comes now does not');
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('account', '1', 'Seen', '{}')}) foreach 1 .. 2;
is($knows->query_safe($is_settled), '3', '... how many positions are behind the gap');
$node->safe_psql('postgres', q{SELECT cqrs_es.append_event_arrays('account', 'more' || n, array_fill('Seen'::text, ARRAY[1000]), array_fill('{}'::jsonb, ARRAY[1000])) FROM generate_series(1, 101) n});
$knows->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
is($knows->query_safe($is_settled), '', 'nor does one that would have to read it all');
$_->quit foreach $holder, $knows;

#-------------------------------------------------------------------------
# who waits, and for what
#-------------------------------------------------------------------------

# Waits until a session that runs the statement, while another has appended, waits under that name.
sub waits_as
{
	my ($statement, $name, $type) = @_;
	my $open = $node->background_psql('postgres');
	my $waiter = $node->background_psql('postgres');
	my $waiter_pid = $waiter->query_safe('SELECT pg_backend_pid()');
	$name = 'Extension' if !$has_names && !$type;
	$type //= 'Extension';
	$open->query_safe(q{BEGIN; SELECT cqrs_es.append_event('account', 'hot', 'Seen', '{}')});
	$node->safe_psql('postgres', q{SELECT cqrs_es.append_event('account', 'behind', 'Seen', '{}')});
	$waiter->query_until(qr/begins/, "\\echo begins\n$statement;\n");
	my $sql = "SELECT wait_event_type = '$type' AND wait_event = '$name' FROM pg_stat_activity WHERE pid = $waiter_pid";
	ok($node->poll_query_until('postgres', $sql), "$statement waits as $name")
	  or diag($node->safe_psql('postgres', "SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE pid = $waiter_pid"));
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($waiter_pid)");
	eval { $waiter->quit };
	$open->quit;
	return;
}

$node->safe_psql('postgres', q{
	CREATE TABLE seen (id text);
	SELECT cqrs_es.create_projection('seen', '{account}', '{seen}', mode => 'async');
	SELECT cqrs_es.define_handler('seen', 'Seen', 'INSERT INTO seen VALUES (event.aggregate_id)');
	SELECT cqrs_es.create_subscription('mails', '{nothing}');
	CREATE TABLE others (id text);
	SELECT cqrs_es.create_projection('others', '{nothing}', '{others}');
});
waits_as("CALL cqrs_es.wait_for_events(after_position => (1::bigint << 44) - 1)", 'CqrsEsEvents');
waits_as("CALL cqrs_es.wait_for_events('mails', event_types => NULL)", 'CqrsEsEvents');
waits_as("CALL cqrs_es.wait_until_settled(cqrs_es.last_position())", 'CqrsEsSettled');
waits_as("SELECT cqrs_es.wait_for_position(cqrs_es.last_position())", 'CqrsEsSettled');
waits_as("SET cqrs_es.settle_timeout = '1 min'; SELECT cqrs_es.settled_position()", 'CqrsEsSettled');
waits_as("CALL cqrs_es.wait_for_projection('seen', cqrs_es.last_position())", 'CqrsEsProjection');
waits_as("SELECT cqrs_es.append_event('account', 'hot', 'Seen', '{}')", 'transactionid', 'Lock');
waits_as("SELECT cqrs_es.rebuild_projection('others')", 'virtualxid', 'Lock');
is(monitors('SELECT waiting FROM cqrs_es.log_status'), '0', 'nobody is left waiting');

#-------------------------------------------------------------------------
# what the server has counted
#-------------------------------------------------------------------------

my $all_ended = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'client backend'};
$node->poll_query_until('postgres', $all_ended);
my $before = [ split /\|/, monitors('SELECT replays, snapshot_hits, replayed_events, snapshots_taken, cache_invalidations, inserted FROM cqrs_es.counters') ];
my $counting = $node->background_psql('postgres');
$counting->query_safe(q{SELECT cqrs_es.append_event_arrays('account', 'counted', array_fill('Seen'::text, ARRAY[25]), array_fill('{}'::jsonb, ARRAY[25]))});
$counting->query_safe(q{SELECT cqrs_es.aggregate_state('account', 'counted'), cqrs_es.aggregate_state('account', 'counted', at_sequence => 3)});
$node->safe_psql('postgres', q{SELECT cqrs_es.define_reducer('account', 'Opened', '[{"op": "set", "path": "/a", "value": 1}]')});
$counting->query_safe(q{SELECT cqrs_es.aggregate_state('account', 'none')});
$counting->quit;
# a snapshot at 20, which reads 20 events; two replays, one of which begins there; one without events
my $expected = join ' AND ', 'replays = 4 + ' . $before->[0], 'snapshot_hits = 1 + ' . $before->[1], 'replayed_events = 28 + ' . $before->[2],
  'snapshots_taken = 1 + ' . $before->[3], 'cache_invalidations > ' . $before->[4], 'inserted = 25 + ' . $before->[5];
ok($node->poll_query_until('postgres', "SELECT $expected FROM cqrs_es.counters"), 'what a session has counted all see')
  or diag(join(' ', @$before), "\n", monitors('SELECT * FROM cqrs_es.counters'));

# A command that loses a race is decided again, and nobody is told.
$node->safe_psql('postgres', q{SELECT cqrs_es.define_command('account', 'See', $$'{"type": "Seen", "payload": {}}'::jsonb$$)});
my ($races, $told) = split /\|/, monitors('SELECT lost_races, version_conflicts FROM cqrs_es.counters');
my $first = $node->background_psql('postgres');
$first->query_safe(q{BEGIN; SELECT cqrs_es.append_event('account', 'race', 'Seen', '{}')});
my $loser = $node->background_psql('postgres');
$loser->query_until(qr/begins/, "\\echo begins\nSELECT version FROM cqrs_es.execute_command('account', 'race', 'See', '{}');\n");
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%execute_command%' AND pid <> pg_backend_pid()});
$first->query_safe('COMMIT');
$_->quit foreach $first, $loser;
ok($node->poll_query_until('postgres', "SELECT lost_races = $races + 1 AND version_conflicts = $told FROM cqrs_es.counters"), 'a lost race of a command')
  or diag("$races $told ", monitors('SELECT lost_races, version_conflicts FROM cqrs_es.counters'));

# A standby counts its own replays, and there is nobody who could hold readers back.
$node->safe_psql('postgres', 'ANALYZE cqrs_es.events');
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', q{SELECT cqrs_es.aggregate_state('account', 'counted') IS NOT NULL}), 't', 'a standby replays');
ok($standby->poll_query_until('postgres', 'SELECT replays > 0 FROM cqrs_es.counters'), '... and counts that');
is(monitors('SELECT settled_position = last_position, events > 100000, unsettled FROM cqrs_es.log_status', $standby), 't|t|0', '... and shows the log');

#-------------------------------------------------------------------------
# examples/monitoring
#-------------------------------------------------------------------------

# Something to show in each of the views: a batch in hand, dead letters, a paused projection.
$node->safe_psql('postgres', q{
	SELECT cqrs_es.create_subscription('letters', '{account}', '{Opened}', max_attempts => 1);
	SELECT cqrs_es.nack_event(batch, global_position, 'bad') FROM cqrs_es.receive_events('letters', 'me', 1);
});
$node->safe_psql('postgres', q{SELECT cqrs_es.ack_events(batch) FROM cqrs_es.shares WHERE subscription = 'letters'});
$node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.receive_events('letters', 'me', 1)});
$node->safe_psql('postgres', q{SELECT cqrs_es.pause_projection('others')});

my $queries_file = slurp_file("$examples/postgres_exporter.yaml");
my $collector_file = slurp_file("$examples/sql_exporter.collector.yml");
my $alerts_file = slurp_file("$examples/alerts.yaml");
my $dashboard_file = slurp_file("$examples/grafana.json");
my $page = slurp_file("$root/docs/monitoring.md");
my $queries = yaml($queries_file);
my %metrics = metrics($queries);
cmp_ok(scalar keys %metrics, '>', 30, 'there are metrics');

# Each query, as the monitor: columns and rows.
foreach my $name (sort keys %$queries)
{
	is(join("\n", wrong_of_query($name, $queries->{$name})), '', "$name: what it says of its query is so");
}
is(monitors($queries->{cqrs_es_subscription}{query} =~ s/^SELECT.*?^FROM/SELECT name, dead_letters, in_hand FROM/msr . " ORDER BY name"), "letters|1|1\nmails|0|0", 'a subscription is shown, a feed of a projection is not');
is(join(' ', grep { monitors($queries->{$_}{query}) eq '' } sort keys %$queries), 'cqrs_es_sessions', 'all have rows, but for that of sessions that wait');

my $planted = { query => 'SELECT 1 AS one, $$a$$::text AS two FROM cqrs_es.events', metrics => [ { one => { usage => 'GAUGE' } } ] };
like(join("\n", wrong_of_query('planted', $planted)), qr/permission denied for table events/, 'a query that takes more rights would be found');
$planted->{query} =~ s/ FROM.*//;
is(join("\n", wrong_of_query('planted', $planted)), 'planted: two is not described', '... and a column that is not described');
push @{ $planted->{metrics} }, { two => { usage => 'GAUGE' } }, { three => { usage => 'COUNTER' } };
is(join("\n", wrong_of_query('planted', $planted)), "planted: two is text\nplanted: three is no column\nplanted: three counts, and its name does not say so", '... one that is no number, and one that is not there');

# Both exporters have the same.
is(differences($collector_file), '', 'both exporters have the same metrics, by the same queries');
is(differences($collector_file =~ s/metric_name: cqrs_es_log_waiting/metric_name: cqrs_es_log_waits/r), 'cqrs_es_log_waiting cqrs_es_log_waits', 'a metric of another name would be found');
is(differences($collector_file =~ s/FROM cqrs_es\.missing_objects/FROM cqrs_es.log_status/r), 'cqrs_es_objects_missing', '... another query');
is(differences($collector_file =~ s/(metric_name: cqrs_es_subscription_lost\n    type: gauge\n    help: ".*?")\n    key_labels:\n      - subscription/$1/r), 'cqrs_es_subscription_lost', '... and a label that is missing');

# What is named exists.
my $dashboard = decode_json($dashboard_file);
my @panels = @{ $dashboard->{panels} };
cmp_ok(scalar @panels, '>=', 10, 'the dashboard has panels');
is(join("\n", map { wrong_of_expression($_->{expr}, $_->{legendFormat}) } map { @{ $_->{targets} } } @panels), '', 'metrics and labels that they name exist');
is(join(' ', grep { !$_->{title} || !@{ $_->{targets} } } @panels), '', 'each has a title, and shows something');
my %ids = map { $_->{id} => 1 } @panels;
is(scalar keys %ids, scalar @panels, '... and an id of its own');
my ($variable) = grep { $_->{name} eq 'instance' } @{ $dashboard->{templating}{list} };
is(join("\n", wrong_of_expression($variable->{query} =~ s/label_values\((\w+), instance\)/$1/r, '')), '', 'as does what the choice of an instance asks');

my @alarms = map { @{ $_->{rules} } } @{ yaml($alerts_file)->{groups} };
is(join("\n", map { wrong_of_expression($_->{expr}, $_->{annotations}{summary}) } @alarms), '', 'the alarms name metrics and labels that exist');
is(join(' ', map { $_->{alert} } @alarms), join(' ', section($page, 'What to alarm on') =~ /^\| `(CqrsEs\w+)` \|/mg), 'and each stands in docs/monitoring.md, in its order');
is(join(' ', wrong_of_expression('rate(cqrs_es_nothing_total[1m]) > 1', '')), 'cqrs_es_nothing_total', 'another metric would be found');
is(join(' ', wrong_of_expression('cqrs_es_log_events', '{{ $labels.projection }}')), 'cqrs_es_log_events: projection', '... and another label');
is(join(' ', wrong_of_expression('rate(cqrs_es_log_events[1m])', '')), 'cqrs_es_log_events does not count', '... and a rate of what does not count');

# What the page says of waits is what the sources say.
my %names = map { $_ => 1 } map { slurp_file($_) =~ /"(CqrsEs\w+)"/g } glob("$root/src/*/*.c");
my %of_page = map { $_ => 1 } section($page, 'What sessions wait for') =~ /`(CqrsEs\w+)`/g;
is(join(' ', sort keys %of_page), join(' ', sort keys %names), 'the page has the names of all waits');

# Debian's tools, where they are installed.
SKIP:
{
	my ($exporter) = grep { -x } map { "$_/prometheus-postgres-exporter" } split /:/, $ENV{PATH};
	skip 'no prometheus-postgres-exporter', 1 if !$exporter;
	is(join("\n", exported($exporter)), join("\n", sort grep { !/^cqrs_es_sessions/ } keys %metrics), 'postgres_exporter shows all of them');
}
SKIP:
{
	skip 'no promtool', 1 if !grep { -x "$_/promtool" } split /:/, $ENV{PATH};
	command_ok([ 'promtool', 'check', 'rules', "$examples/alerts.yaml" ], 'promtool takes the rules');
}

$standby->stop;
$node->stop;
done_testing();

sub yaml { return CPAN::Meta::YAML->read_string($_[0])->[0] }

sub section
{
	my ($text, $title) = @_;
	return $text =~ /^## \Q$title\E\n(.*?)(?=^## |\z)/ms ? $1 : '';
}

# By their names: type, description, labels, query.
sub metrics
{
	my ($all) = @_;
	my %found;
	foreach my $name (keys %$all)
	{
		my %columns = map { %$_ } @{ $all->{$name}{metrics} };
		my @labels = sort grep { $columns{$_}{usage} eq 'LABEL' } keys %columns;
		foreach my $column (grep { $columns{$_}{usage} ne 'LABEL' } keys %columns)
		{
			$found{"${name}_$column"} = [ lc $columns{$column}{usage}, $columns{$column}{description}, "@labels", $all->{$name}{query} ];
		}
	}
	return %found;
}

# The metrics that a collector of sql_exporter has otherwise.
sub differences
{
	my ($text) = @_;
	my %all = collected(yaml($text));
	my %names = map { $_ => 1 } keys %all, keys %metrics;
	return join ' ', grep { join("\0", @{ $all{$_} // [] }) ne join("\0", @{ $metrics{$_} // [] }) } sort keys %names;
}

# As metrics(), of a collector of sql_exporter.
sub collected
{
	my ($collector) = @_;
	my %text = map { $_->{query_name} => $_->{query} } @{ $collector->{queries} };
	return map { $_->{metric_name} => [ $_->{type}, $_->{help}, join(' ', sort @{ $_->{key_labels} // [] }),
			$_->{metric_name} eq "$_->{query_ref}_@{ $_->{values} }" ? $text{ $_->{query_ref} } : '' ] } @{ $collector->{metrics} };
}

# What is wrong with a query and its description, as lines.
sub wrong_of_query
{
	my ($name, $query) = @_;
	my ($status, $stdout, $stderr) = $node->psql('postgres', "BEGIN; CREATE TEMP VIEW q AS $query->{query};\n"
		  . "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'q'::regclass ORDER BY attnum; SELECT FROM q;\n",
		connstr => $node->connstr('postgres') . ' user=monitor', on_error_stop => 1);
	return $stderr if $status != 0;
	my %types = map { split /\|/, $_, 2 } grep { /\|/ } split /\n/, $stdout;
	my (@wrong, %described);
	foreach my $metric (@{ $query->{metrics} })
	{
		my ($column) = keys %$metric;
		my $usage = $metric->{$column}{usage};
		$described{$column} = 1;
		push @wrong, "$name: $column is $types{$column}" if $usage ne 'LABEL' && defined $types{$column} && $types{$column} !~ /^(?:integer|bigint|double precision)$/;
		push @wrong, "$name: $column is no column" if !defined $types{$column};
		push @wrong, "$name: $column counts, and its name does not say so" if ($usage eq 'COUNTER') != ($column =~ /_total$/);
	}
	push @wrong, map { "$name: $_ is not described" } grep { !$described{$_} } sort keys %types;
	return @wrong;
}

# Metrics of an expression that do not exist, or do not rise under rate(); and labels in a text that they have not.
sub wrong_of_expression
{
	my ($expression, $text) = @_;
	my @named = $expression =~ /\b(cqrs_es\w+)/g;
	my @wrong = grep { !$metrics{$_} } @named;
	push @wrong, map { "$_ does not count" } grep { $metrics{$_} && $metrics{$_}[0] ne 'counter' } $expression =~ /rate\((\w+)/g;
	foreach my $label ($text =~ /\{\{ *(?:\$labels\.)?(\w+) *\}\}/g)
	{
		push @wrong, map { "$_: $label" } grep { $metrics{$_} && $label ne 'instance' && " $metrics{$_}[2] " !~ / $label / } @named;
	}
	return (@wrong, @named ? () : "nothing of ours: $expression");
}

# The names of our metrics that an exporter shows, as the monitor.
sub exported
{
	my ($exporter) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	local $ENV{DATA_SOURCE_NAME} = 'user=monitor dbname=postgres sslmode=disable host=' . $node->host . ' port=' . $node->port;
	my $log = PostgreSQL::Test::Utils::tempdir() . '/exporter.log';
	my $handle = IPC::Run::start([ $exporter, "--extend.query-path=$examples/postgres_exporter.yaml", "--web.listen-address=127.0.0.1:$port" ], '>', $log, '2>&1');
	my ($page_text, $tries) = ('', 0);
	while ($page_text !~ /cqrs_es_log/ && $tries++ < 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
		if (!$socket) { select undef, undef, undef, 0.1; next }
		print {$socket} "GET /metrics HTTP/1.0\r\n\r\n";
		local $/;
		$page_text = <$socket>;
	}
	$handle->kill_kill;
	my %names = map { $_ => 1 } $page_text =~ /^(cqrs_es\w+)[{ ]/mg;
	diag(slurp_file($log), $page_text) if !%names;
	return sort keys %names;
}
