# pg_upgrade takes everything along: events, declarations, snapshots, read tables, subscriptions with a batch in hand, the
# identity of the log; all of it goes on as if nothing had been. In one database the log is the extension's, in another
# one it is of a shape of its own.
#
# Without more it goes from this version to itself, which moves the catalog and the files as any upgrade does.
# CQRS_ES_UPGRADE_FROM="/usr/lib/postgresql/15 /usr/lib/postgresql/17": first through these, in which the extension is
# installed (test/major-upgrade does that in a throw-away root).

use strict;
use warnings FATAL => 'all';
use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# This version: where the extension lies elsewhere, a copy of it that has it in its own place. From 18 on pg_upgrade looks
# nowhere else.
sub whole_version
{
	my $installed = dirname($ENV{TEMP_CONFIG}) . '/install';
	my %at = map { chomp(my $path = qx{$ENV{PG_CONFIG} --$_}); ($_ => $path) } qw(bindir pkglibdir sharedir);
	return dirname($at{bindir}) if !-d $installed;

	my $copy = PostgreSQL::Test::Utils::tempdir_short();
	foreach my $path (values %at)
	{
		system("mkdir -p '$copy$path' && cp -R '$path/.' '$copy$path'") == 0 or die "could not copy $path";
	}
	system("cp -R '$installed/.' '$copy'") == 0 or die "could not copy $installed";
	return $copy . dirname($at{bindir});
}

my $whole = whole_version();
my @paths = split ' ', $ENV{CQRS_ES_UPGRADE_FROM} // $whole;
my $number = 0;

# All settings but where the extension lies.
my $settings = PostgreSQL::Test::Utils::tempdir() . '/settings.conf';
append_to_file($settings, join "\n", grep { !/^(extension_destdir|extension_control_path|dynamic_library_path)/ } split(/\n/, slurp_file($ENV{TEMP_CONFIG})), '');

# A server that was never started, which has the extension in its own place.
sub server
{
	my ($path) = @_;
	local $ENV{TEMP_CONFIG} = $settings;
	my $node = PostgreSQL::Test::Cluster->new('server' . $number++, install_path => $path);

	# of 18 on it is the default, and both sides must have it
	$node->init(extra => ['--data-checksums']);
	return $node;
}

sub set_up
{
	my ($node, $database) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	# before there is anything to run: a worker that is there already would not see it
	$node->safe_psql('postgres', "ALTER DATABASE $database SET cqrs_es.projection_worker = off");
	$node->safe_psql($database, q{
		CREATE EXTENSION cqrs_es;
		CREATE FUNCTION add_one(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql IMMUTABLE
			RETURN jsonb_build_object('events', coalesce((state->>'events')::int, 0) + 1);
		CREATE FUNCTION lift(payload jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN payload || '{"lifted": true}';
		CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
		BEGIN
			IF (state->>'events')::int > 1000 THEN RETURN cqrs_es.reject('full', 'full'); END IF;
			RETURN jsonb_build_object('type', 'Put', 'payload', command, 'version', '2');
		END $$;
		CREATE TABLE totals (id text PRIMARY KEY, events bigint NOT NULL);
		CREATE TABLE later (id text PRIMARY KEY, events bigint NOT NULL);
		CREATE TABLE states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
		CREATE FUNCTION count_later(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$
			INSERT INTO later VALUES ((event).aggregate_id, 1) ON CONFLICT (id) DO UPDATE SET events = later.events + 1 $$;
		SELECT cqrs_es.create_aggregate('account', '{"events": 0}', snapshot_every => 5);
		SELECT cqrs_es.define_reducer('account', 'Put', 'add_one(jsonb, cqrs_es.event)');
		SELECT cqrs_es.define_reducer('account', 'Named', '[{"op": "set", "path": "/name", "from": "/name"}]');
		SELECT cqrs_es.define_upcaster('Put', '1', '2', 'lift(jsonb)');
		SELECT cqrs_es.define_command('account', 'Put', 'decide(jsonb, jsonb)'::regprocedure);
		SELECT cqrs_es.define_command('account', 'Name', $$jsonb_build_object('type', 'Named', 'payload', command)$$);
		SELECT cqrs_es.create_projection('totals', '{account}', '{totals}');
		SELECT cqrs_es.define_handler('totals', '*', 'INSERT INTO totals VALUES (event.aggregate_id, 1) ON CONFLICT (id) DO UPDATE SET events = totals.events + 1');
		SELECT cqrs_es.create_projection('states', read_models => '{states}', state_of => 'account');
		SELECT cqrs_es.create_projection('later', '{account}', '{later}', mode => 'async', per_stream => true);
		SELECT cqrs_es.define_handler('later', 'Put', 'count_later(cqrs_es.event)');
		SELECT cqrs_es.create_subscription('work', max_attempts => 1, lease => '1 day');
	});
	$node->safe_psql($database, q{
		ALTER TABLE cqrs_es.events ADD COLUMN region text NOT NULL DEFAULT 'here';
		CREATE UNIQUE INDEX ids ON cqrs_es.events (event_id);
	}) if $database eq 'own';
	$node->safe_psql($database, q{
		SELECT count(cqrs_es.append_event('account', 's' || n % 7, 'Put', jsonb_build_object('n', n), event_version => '2')) FROM generate_series(1, 60) AS n;
		INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, event_version) VALUES ('account', 's1', 'Put', '{}', '1');
		BEGIN;
		SELECT FROM cqrs_es.append_event('account', 'gap', 'Put', '{}', event_version => '2');
		ROLLBACK;
		SELECT FROM cqrs_es.execute_command('account', 's2', 'Put', '{"n": 0}', command_id => '00000000-0000-7000-8000-000000000001');
		SELECT FROM cqrs_es.append_event('account', 's3', 'Put', '{"n": 1}', event_id => '00000000-0000-7000-8000-000000000002', event_version => '2');
		SELECT FROM cqrs_es.execute_command('account', 's4', 'Name', '{"name": "Ada"}');
		SET cqrs_es.tenant_id = 'acme';
		SELECT FROM cqrs_es.append_event('note', 'n', 'Put', '{}', event_version => '2');
		RESET cqrs_es.tenant_id;
		SELECT FROM cqrs_es.receive_message('queue', 'm1');
		CALL cqrs_es.run_projections();
		SELECT FROM cqrs_es.append_event('account', 's5', 'Put', '{"n": 1}', event_version => '2');
	});
	# one has failed for good, and some are in hand
	my ($batch, $position) = split /\|/, $node->safe_psql($database, q{SELECT batch, global_position FROM cqrs_es.receive_events('work', 'me', 5) LIMIT 1});
	$node->safe_psql($database, "SELECT cqrs_es.nack_event('$batch', $position, 'bad'); SELECT cqrs_es.ack_events('$batch')");
	return $node->safe_psql($database, q{SELECT batch FROM cqrs_es.receive_events('work', 'me', 10) LIMIT 1});
}

# All that there is, row by row.
sub picture
{
	my ($node, $database) = @_;
	my @tables = split /\n/, $node->safe_psql($database, q{SELECT oid::regclass FROM pg_class
		WHERE relnamespace IN ('cqrs_es'::regnamespace, 'public'::regnamespace) AND relkind = 'r' ORDER BY oid::regclass::text});

	return join "\n", (map { $node->safe_psql($database, "SELECT '$_', count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM $_ AS t") } @tables),
	  map { $node->safe_psql($database, $_) } (
		'SELECT cqrs_es.log_id()', 'SELECT global_position, event_id, payload FROM cqrs_es.read_all(0, NULL)', 'SELECT * FROM cqrs_es.verify_log()',
		q{SELECT 's' || n, cqrs_es.load_aggregate('account', 's' || n) FROM generate_series(0, 6) AS n}, 'SELECT * FROM cqrs_es.missing_objects',
		'SELECT name, state, position, lag_events, shares, in_hand, parked, blocked FROM cqrs_es.subscription_status',
		'SELECT name, state, mode, lag_events, errors, handlers FROM cqrs_es.projection_status ORDER BY name', 'SELECT last_value FROM cqrs_es.events_global_position_seq',
		q{SELECT extname, extversion FROM pg_extension WHERE extname = 'cqrs_es'},
		q{SELECT d.objid::regclass FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
			AND objid = 'cqrs_es.events'::regclass});
}

# It goes on as if nothing had been.
sub goes_on
{
	my ($node, $database, $batch, $title) = @_;
	my $is = sub { my ($query, $expected, $what) = @_; return is($node->safe_psql($database, $query), $expected, "$title, $database: $what") };
	my ($last) = $node->safe_psql($database, 'SELECT max(global_position) FROM cqrs_es.events');

	$is->(q{SELECT sequence FROM cqrs_es.events WHERE event_id = '00000000-0000-7000-8000-000000000002'
		AND (sequence, global_position) = (SELECT version, global_position FROM cqrs_es.append_event('account', 's3', 'Put', '{"n": 1}', event_id => '00000000-0000-7000-8000-000000000002', event_version => '2'))},
		'10', 'an append that is sent again is known');
	$is->(q{SELECT version FROM cqrs_es.execute_command('account', 's2', 'Put', '{"n": 0}', command_id => '00000000-0000-7000-8000-000000000001')}, '10', 'so is a command');
	$is->(q{SELECT cqrs_es.receive_message('queue', 'm1')}, 'f', 'so is a message');
	$is->("SELECT global_position > $last FROM cqrs_es.append_event('account', 'new', 'Put', '{}', event_version => '2')", 't', 'positions go on');
	$is->(q{SELECT state FROM cqrs_es.execute_command('account', 'new', 'Put', '{}')}, '{"events": 2}', 'a command is decided');
	$is->(q{SELECT * FROM totals WHERE id = 'new'}, 'new|2', 'the projection follows');
	$is->(q{SELECT * FROM states WHERE view_id = 'new'}, 'new|2|{"events": 2}', 'so does that of states');
	$is->('CALL cqrs_es.run_projections()', '3', 'the asynchronous one handles what was left before, and what came since');
	$is->(q{SELECT * FROM later FULL JOIN (SELECT aggregate_id AS id, count(*) AS events FROM cqrs_es.events WHERE aggregate_type = 'account' AND event_type = 'Put' GROUP BY 1) AS r
		USING (id, events) WHERE later IS NULL OR r IS NULL}, '', 'and has handled each once');
	$is->("SELECT cqrs_es.ack_events('$batch') > 0", 't', 'the batch that was in hand is acknowledged');
	$is->(q{SELECT max(global_position) = cqrs_es.last_position() FROM cqrs_es.receive_events('work', 'me', 1000)}, 't', 'the next one comes');
	my $before = $node->safe_psql($database, 'SELECT * FROM totals ORDER BY 1');
	$node->safe_psql($database, q{SET client_min_messages = error; SELECT cqrs_es.rebuild_projection('totals')});
	$is->('SELECT * FROM totals ORDER BY 1', $before, 'a rebuild gives the same');
	my ($status, $out, $err) = $node->psql($database, 'DROP FUNCTION add_one');
	like($err, qr/reducer/, "$title, $database: functions in use are kept");
	is($node->safe_psql($database, q{SELECT problem FROM cqrs_es.verify_log() WHERE problem IS NOT NULL}), '', "$title, $database: the log is sound");
	return;
}

my $old = server($paths[0]);
my %batch;
$old->start;
$batch{$_} = set_up($old, $_) foreach 'member', 'own';

for my $step (1 .. @paths)
{
	my ($from, $to) = (@paths, $whole)[ $step - 1, $step ];
	my %before = map { $_ => picture($old, $_) } keys %batch;
	my $new = server($to);
	my $title = $old->safe_psql('postgres', 'SHOW server_version_num') . ' to ' . qx{$to/bin/postgres --version} =~ s/\n//r;
	$old->stop;
	my $directory = PostgreSQL::Test::Utils::tempdir();
	# the newer one of two versions does it
	my $is_done = system("cd $directory && $to/bin/pg_upgrade --no-sync -b $from/bin -B $to/bin -d " . $old->data_dir . ' -D ' . $new->data_dir . ' -s ' . $new->host . ' -p ' . $old->port . ' -P ' . $new->port . ' > upgrade.log 2>&1') == 0;
	ok($is_done, "$title: pg_upgrade") or diag(map { "$_:\n" . slurp_file($_) } "$directory/upgrade.log", glob $new->data_dir . '/pg_upgrade_output.d/*/*.txt')
		or BAIL_OUT('without it there is nothing to test');
	$new->start;
	foreach my $database (sort keys %batch)
	{
		is(picture($new, $database), $before{$database}, "$title, $database: all is as it was");
	}
	$old = $new;
	next if $step < @paths;
	goes_on($new, $_, $batch{$_}, $title) foreach sort keys %batch;
}
$old->stop;
done_testing();
