# From each release to this version: the new library over the SQL of before, then ALTER EXTENSION cqrs_es UPDATE, beside
# who appends, with a standby, rolled back and done. Afterwards the catalog is that of a fresh installation, object by
# object, and what was there before goes on. A dump of before can be restored into this version.
#
# sql/upgrade has the install scripts of the releases, test/upgrade a database of each: events of three streams of
# account and one of note, another tenant's one, snapshots, reducers of both kinds, an upcaster, a command with five
# command ids, and the projections accounts, totals (*), states (of aggregates) and late, which is paused.

use strict;
use warnings FATAL => 'all';
use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib dirname(__FILE__) . '/../include';
use Session;

my @releases = map { /cqrs_es--([\d.]+)\.sql$/ } sort glob "$ENV{TESTDIR}/sql/upgrade/cqrs_es--*.sql";
my ($version) = slurp_file("$ENV{TESTDIR}/cqrs_es.control") =~ /^default_version = '(.*)'/m;
my $node = PostgreSQL::Test::Cluster->new('primary');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "cqrs_es.projection_worker = off\n");
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE upgrade_author; CREATE ROLE upgrade_writer; CREATE ROLE upgrade_reader');

sub session { return Session->new($_[0]->host, $_[0]->port, scalar getpwuid($<), $_[1]) }

# A new database, filled by a script; the extension is that of a version, or the default one.
sub restored
{
	my ($database, $script, $from) = @_;
	my $sql = slurp_file($script);
	$sql =~ s/(CREATE EXTENSION IF NOT EXISTS cqrs_es WITH SCHEMA pg_catalog)/$1 VERSION '$from'/ if $from;
	my $path = PostgreSQL::Test::Utils::tempdir() . "/$database.sql";
	append_to_file($path, $sql);
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	my ($stdout, $stderr);
	$node->psql($database, undef, extra_params => [ '-q', '-f', $path ], on_error_stop => 0, on_error_die => 0,
		stdout => \$stdout, stderr => \$stderr);
	return join "\n", grep { /ERROR|WARNING/ } split /\n/, $stderr;
}

#-------------------------------------------------------------------------
# what the update is made of
#-------------------------------------------------------------------------

# Functions of a script by their symbols: [arguments], what they return.
sub symbols
{
	my ($path) = @_;
	my $sql = slurp_file($path) =~ s/^--.*//mgr;
	my %symbols;
	while ($sql =~ /^CREATE (?:FUNCTION|PROCEDURE) cqrs_es\.\w+\((.*?)\)(?: RETURNS (.*?))?\s+LANGUAGE C\b[^;]*?'MODULE_PATHNAME', '(\w+)'/msg)
	{
		my ($arguments, $returns, $symbol) = ($1, $2 // '', $3);
		my @all = map { s/^\s+|\s+$//gr =~ s/\s+/ /gr } split /,/, $arguments =~ s/ DEFAULT (?:'[^']*'|\w+)//gr;
		# the first routine of a symbol stands for the others
		$symbols{$symbol} //= { in => [ map { /(\S+)$/ } grep { !/^OUT / } @all ], out => join ', ', $returns =~ s/\s+/ /gr, grep { /^OUT / } @all };
	}
	return \%symbols;
}

my $sources = join '', map { slurp_file($_) } glob "$ENV{TESTDIR}/src/*/*.c";
my $now = symbols("$ENV{TESTDIR}/sql/cqrs_es--$version.sql");

foreach my $release (@releases)
{
	my $before = symbols("$ENV{TESTDIR}/sql/upgrade/cqrs_es--$release.sql");
	my (@unserved, @changed);
	foreach my $symbol (sort keys %$before)
	{
		my ($was, $is) = ($before->{$symbol}, $now->{$symbol} // next);
		my ($body) = $sources =~ /^$symbol\(PG_FUNCTION_ARGS\)\n(\{.*?^\})/ms;
		my $count = @{ $is->{in} };
		my $refuses = $body =~ /ExtensionRefuseOlder\(\)/;

		push @unserved, "$symbol: OlderSqlCall(fcinfo, $count)"
		  if $count > @{ $was->{in} } && !$refuses && $body !~ /OlderSqlCall\(fcinfo, $count\)/;
		push @changed, $symbol
		  if !$refuses && ($was->{out} ne $is->{out} || join(' ', @{ $was->{in} }) ne join(' ', grep { defined } @{ $is->{in} }[ 0 .. $#{ $was->{in} } ]));
	}
	is("@unserved", '', "$release: each function of C that has got arguments since takes calls without them, or refuses");
	is("@changed", '', "$release: none has other arguments, or returns something else, unless it refuses");
}

#-------------------------------------------------------------------------
# the catalog
#-------------------------------------------------------------------------

# Every object of the extension, with all that makes it what it is; of columns not their order. `acl`: as it is, or none.
my $CATALOG = q{
	SET search_path = pg_catalog;
	WITH members AS (
		SELECT d.classid, d.objid FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
		WHERE e.extname = 'cqrs_es' AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'),
	tables AS (SELECT c.* FROM pg_class AS c WHERE c.relnamespace = 'cqrs_es'::regnamespace),
	described AS (
		SELECT 'member' AS what, pg_describe_object(classid, objid, 0) AS name, '' AS properties FROM members
		UNION ALL SELECT 'comment', pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description FROM pg_description AS d
			WHERE (d.classoid, d.objoid) IN (SELECT classid, objid FROM members) OR d.classoid = 'pg_class'::regclass AND d.objoid IN (SELECT oid FROM tables)
			OR d.classoid IN ('pg_policy'::regclass, 'pg_trigger'::regclass)
		UNION ALL SELECT 'function', p.oid::regprocedure::text, concat_ws(' ', pg_get_functiondef(p.oid), p.procost, p.prorows, p.prosupport, p.proowner::regrole)
			FROM pg_proc AS p WHERE p.pronamespace = 'cqrs_es'::regnamespace
		UNION ALL SELECT 'table', c.oid::regclass::text, concat_ws(' ', c.relkind, c.relpersistence, c.relreplident, c.relrowsecurity, c.relforcerowsecurity,
				c.relowner::regrole, (SELECT array_agg(o ORDER BY o) FROM unnest(c.reloptions) AS o), CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) END)
			FROM tables AS c
		UNION ALL SELECT 'column', format('%s.%s', a.attrelid::regclass, a.attname), concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull,
				a.attcollation::regcollation, a.attstorage, a.attcompression, a.attstattarget, a.attidentity, a.attgenerated,
				pg_get_expr(f.adbin, f.adrelid), CASE WHEN c.relkind IN ('c', 'v', 'i') THEN a.attnum END)
			FROM tables AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
			LEFT JOIN pg_attrdef AS f ON f.adrelid = c.oid AND f.adnum = a.attnum
		UNION ALL SELECT 'sequence', s.seqrelid::regclass::text, concat_ws(' ', s.seqtypid, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle) FROM pg_sequence AS s
		UNION ALL SELECT 'constraint', format('%s %s', k.conrelid::regclass, k.conname), concat_ws(' ', pg_get_constraintdef(k.oid), k.convalidated)
			FROM pg_constraint AS k JOIN tables AS c ON c.oid = k.conrelid
		UNION ALL SELECT 'index', i.indexrelid::regclass::text, concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisreplident, i.indisclustered)
			FROM pg_index AS i JOIN tables AS c ON c.oid = i.indrelid
		UNION ALL SELECT 'trigger', format('%s %s', t.tgrelid::regclass, t.tgname), concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
			FROM pg_trigger AS t JOIN tables AS c ON c.oid = t.tgrelid
		UNION ALL SELECT 'rule', format('%s %s', w.ev_class::regclass, w.rulename), pg_get_ruledef(w.oid) FROM pg_rewrite AS w JOIN tables AS c ON c.oid = w.ev_class
		UNION ALL SELECT 'policy', format('%s %s', o.polrelid::regclass, o.polname), concat_ws(' ', o.polcmd, o.polpermissive, o.polroles,
				pg_get_expr(o.polqual, o.polrelid), pg_get_expr(o.polwithcheck, o.polrelid)) FROM pg_policy AS o JOIN tables AS c ON c.oid = o.polrelid
		UNION ALL SELECT 'event trigger', evtname, concat_ws(' ', evtevent, evtfoid::regproc, evtenabled, (SELECT array_agg(t ORDER BY t) FROM unnest(evttags) AS t))
			FROM pg_event_trigger
		UNION ALL SELECT 'type', t.oid::regtype::text, concat_ws(' ', t.typtype, t.typowner::regrole) FROM pg_type AS t WHERE t.typnamespace = 'cqrs_es'::regnamespace
		UNION ALL SELECT 'dump', c.table::text, c.condition FROM pg_extension AS e
			CROSS JOIN LATERAL (SELECT o.oid::regclass, e.extcondition[o.i] FROM unnest(e.extconfig) WITH ORDINALITY AS o (oid, i)) AS c ("table", condition)
			WHERE e.extname = 'cqrs_es'
		UNION ALL SELECT 'privileges', pg_describe_object(o.class, o.oid, o.sub), (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(o.acl) AS a)
			FROM (SELECT 'pg_class'::regclass, c.oid, 0, c.relacl FROM tables AS c
				UNION ALL SELECT 'pg_class'::regclass, c.oid, a.attnum, a.attacl FROM tables AS c JOIN pg_attribute AS a ON a.attrelid = c.oid WHERE a.attacl IS NOT NULL
				UNION ALL SELECT 'pg_proc'::regclass, p.oid, 0, p.proacl FROM pg_proc AS p WHERE p.pronamespace = 'cqrs_es'::regnamespace
				UNION ALL SELECT 'pg_type'::regclass, t.oid, 0, t.typacl FROM pg_type AS t WHERE t.typnamespace = 'cqrs_es'::regnamespace
				UNION ALL SELECT 'pg_namespace'::regclass, n.oid, 0, n.nspacl FROM pg_namespace AS n WHERE n.nspname = 'cqrs_es') AS o (class, oid, sub, acl) WHERE $acl
		UNION ALL SELECT 'initial privileges', pg_describe_object(i.classoid, i.objoid, i.objsubid), (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(i.initprivs) AS a)
			FROM pg_init_privs AS i WHERE (i.classoid, i.objoid) IN (SELECT classid, objid FROM members) OR i.objoid IN (SELECT oid FROM tables)
		UNION ALL SELECT 'initial privileges of roles', concat_ws(' ', pg_describe_object(d.classid, d.objid, d.objsubid), pg_describe_object(d.refclassid, d.refobjid, 0)), ''
			FROM pg_shdepend AS d WHERE d.deptype = 'i' AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
		UNION ALL SELECT 'extension', extname, concat_ws(' ', extversion, extnamespace::regnamespace, extrelocatable) FROM pg_extension WHERE extname = 'cqrs_es'
	)
	SELECT replace(format('%s %s: %s', what, name, properties), E'\n', ' ') FROM described ORDER BY 1};

# The objects of one database that are not just so in another, the first few of them.
sub differences
{
	my ($database, $fresh, $acl) = @_;
	my $sql = $CATALOG =~ s/\$acl/$acl/r;
	my %is = map { ($_ => 1) } split /\n/, $node->safe_psql($database, $sql);
	my %should_be = map { ($_ => 1) } split /\n/, $node->safe_psql($fresh, $sql);
	my @differences = ((map { "is: $_" } grep { !$should_be{$_} } sort keys %is), (map { "should be: $_" } grep { !$is{$_} } sort keys %should_be));
	return join "\n", @differences > 20 ? (@differences[ 0 .. 19 ], '...') : @differences;
}

#-------------------------------------------------------------------------
# what was there, and how it goes on
#-------------------------------------------------------------------------

# All that was filled in, in columns that there were.
my $CONTENT = q{
	SELECT jsonb_agg(to_jsonb(e) ORDER BY global_position) FROM cqrs_es.events AS e;
	SELECT jsonb_agg(jsonb_build_array(aggregate_type, initial_state, snapshot_every, keep_snapshots, created_at) ORDER BY aggregate_type) FROM cqrs_es.aggregates;
	SELECT jsonb_agg(to_jsonb(r) ORDER BY event_type) FROM cqrs_es.reducers AS r;
	SELECT jsonb_agg(to_jsonb(u) ORDER BY event_type) FROM cqrs_es.upcasters AS u;
	SELECT jsonb_agg(jsonb_build_array(aggregate_type, command_type, decider, definer, search_path)) FROM cqrs_es.commands;
	SELECT jsonb_agg(jsonb_build_array(name, aggregate_types, read_models, owner, state_of, paused, handled_position, handled_gaps, created_at) ORDER BY name) FROM cqrs_es.projections;
	SELECT jsonb_agg(jsonb_build_array(projection, event_type, statement, function, definer, search_path) ORDER BY projection, event_type) FROM cqrs_es.handlers;
	SELECT jsonb_agg(jsonb_build_array(aggregate_type, aggregate_id, tenant_id, last_sequence, current_snapshot, payload, created_at) ORDER BY aggregate_type, aggregate_id, tenant_id, last_sequence) FROM cqrs_es.snapshots;
	SELECT jsonb_agg(to_jsonb(a) ORDER BY id) FROM accounts AS a;
	SELECT jsonb_agg(to_jsonb(s) ORDER BY view_id) FROM states AS s;
	SELECT jsonb_agg(to_jsonb(l) ORDER BY id) FROM late AS l;
	SELECT n FROM totals};

# Each way in and out, on a stream of its own, as it was in the oldest release. Returns a text that is the same each time.
sub use_it
{
	my ($session, $id) = @_;
	return join ' ', map { my $results = $_; map { map { $_ // 'NULL' } @$_ } @$results } $session->ask(qq{
		SELECT version FROM cqrs_es.append_event('account', '$id', 'Opened', '{"owner": "o"}', 0, event_id => cqrs_es.new_event_id());
		SELECT version FROM cqrs_es.append_events('account', '$id', '[{"type": "Deposited", "payload": {"amount": 5}}]', 1);
		SELECT version FROM cqrs_es.append_event_arrays('account', '$id', '{Deposited,Renamed}', ARRAY['{"amount": 5}', '{"owner": "p"}']::jsonb[], 2);
		INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('account', '$id', 'Deposited', '{"amount": 1}');
		SELECT version, state FROM cqrs_es.execute_command('account', '$id', 'Deposit', '{"amount": 2}');
		SELECT count(*), count(*) FILTER (WHERE payload ? 'lifted') FROM cqrs_es.read_stream('account', '$id');
		SELECT count(*) FROM cqrs_es.read_stream('account', '$id', backward => true, max_count => 2);
		SELECT * FROM cqrs_es.load_aggregate('account', '$id');
		SELECT cqrs_es.aggregate_state('account', '$id', at_sequence => 2);
		SELECT count(*), max(state->>'owner') FROM cqrs_es.replay('account', '$id');
		SELECT cqrs_es.stream_version('account', '$id'), cqrs_es.settled_position() > 0, cqrs_es.wait_for_position(1);
		SELECT owner, balance FROM accounts WHERE id = '$id';
		SELECT version, payload FROM states WHERE view_id = '$id'}),
	  $session->ask(qq{SELECT count(*) FILTER (WHERE aggregate_id = '$id') FROM cqrs_es.read_all(max_count => 100000, aggregate_types => '{account}')});
}

my $AS_EVER = join ' ', '1 2 4 6', '{"owner": "p", "balance": 13}', '6 3 2 6', '{"owner": "p", "balance": 13}', '{"owner": "o", "balance": 5}', '6 p 6 t t o 13 6',
  '{"owner": "p", "balance": 13}', 6;

my $fresh = 'fresh';
$node->safe_psql('postgres', "CREATE DATABASE $fresh");
$node->safe_psql($fresh, 'CREATE EXTENSION cqrs_es');

foreach my $release (@releases)
{
	my $name = $release =~ s/\W/_/gr;
	my $dump = "$ENV{TESTDIR}/test/upgrade/$release.sql";
	my ($old, $plain) = ("old_$name", "plain_$name");

	note "from $release";
	$node->safe_psql('postgres', "CREATE DATABASE $plain");
	$node->safe_psql($plain, "CREATE EXTENSION cqrs_es VERSION '$release'; ALTER EXTENSION cqrs_es UPDATE");
	is(differences($plain, $fresh, 'true'), '', "$release: after the update every object is that of a fresh installation, with comments and privileges");

	is(restored($old, $dump, $release), '', "$release: its dump is restored over its SQL by the new library");
	my $content = $node->safe_psql($old, $CONTENT);
	$node->safe_psql('postgres', "CREATE DATABASE copied_$name TEMPLATE $old");
	$node->safe_psql("copied_$name", 'ALTER EXTENSION cqrs_es UPDATE');
	is($node->safe_psql("copied_$name", $CONTENT), $content, "$release: the update changes nothing of what was there");
	$node->safe_psql('postgres', "DROP DATABASE copied_$name");

	# the library of now over the SQL of then; the sessions stay open over all that follows
	my $open = session($node, $old);
	my $served = use_it($open, 'open');
	is($served, $AS_EVER, "$release: until the update events are appended, commands decided, handlers run, states kept");
	my $generic = session($node, $old);
	$generic->ask('SET cqrs_es.force_generic_path = on');
	is(use_it($generic, 'generic'), $served, '... on the generic path, too');
	my ($same) = $open->ask(q{SELECT version FROM cqrs_es.execute_command('account', 'a-1', 'Deposit', '{"amount": 4}', command_id => '00000000-0000-7000-8000-000000000004')});
	is($same->[0][0], 5, '... a command that is sent again is known by its id');
	$open->ask(q{SET cqrs_es.tenant_id = 'acme'; SELECT FROM cqrs_es.read_stream('note', 'n-1'); RESET cqrs_es.tenant_id});
	is($node->safe_psql($old, q{SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM cqrs_es.projection_status}),
		'accounts live, late paused, states live, totals live', '... the views show what there is');
	foreach my $new (q{SELECT cqrs_es.create_aggregate('new')}, q{SELECT cqrs_es.define_handler('totals', 'x', 'DELETE FROM totals')},
		q{SELECT cqrs_es.define_upcaster('Noted', '1', '2', 'lift(jsonb)')}, q{SELECT cqrs_es.create_projection('new')}, q{SELECT cqrs_es.drop_reducer('account', 'Renamed')},
		q{SELECT cqrs_es.drop_handler('totals', '*')}, q{SELECT cqrs_es.resume_projection('late')}, q{SELECT cqrs_es.rebuild_projection('totals')}, q{SELECT cqrs_es.drop_aggregate('account')})
	{
		$open->try($new);
		is("$open->{state} " . ($open->{fields}{H} // ''), '55000 Run ALTER EXTENSION cqrs_es UPDATE.', "... and $new waits for the update");
	}
	$open->try('DROP FUNCTION lift(jsonb)');
	is($open->{state}, '2BP01', '... what declarations name is not dropped');
	$open->ask('CREATE FUNCTION unused() RETURNS int LANGUAGE sql AS $$SELECT 1$$; DROP FUNCTION unused()');

	# a standby, with a reader whose caches are warm
	$node->backup("backup_$name");
	my $standby = PostgreSQL::Test::Cluster->new("standby_$name");
	$standby->init_from_backup($node, "backup_$name", has_streaming => 1);
	$standby->append_conf('postgresql.conf', 'max_standby_streaming_delay = -1');
	$standby->start;
	my $reader = session($standby, $old);
	my $READ = q{SELECT count(*) FROM cqrs_es.read_stream('account', 'a-1'); SELECT cqrs_es.aggregate_state('account', 'a-1')};
	my @on_standby = map { $_->[0][0] } $reader->ask($READ);
	is("@on_standby", join(' ', map { $_->[0][0] } $open->ask($READ)), "$release: on a standby reads are served, too");

	# rolled back, in a session that goes on
	my $before = $node->safe_psql($old, $CATALOG =~ s/\$acl/true/r);
	$open->ask('BEGIN; ALTER EXTENSION cqrs_es UPDATE');
	$open->ask(q{SELECT cqrs_es.create_aggregate('new'); SELECT FROM cqrs_es.append_event('new', 'n', 'New', '{}', tags => '{a}')});
	$open->ask('ROLLBACK');
	is($node->safe_psql($old, $CATALOG =~ s/\$acl/true/r), $before, "$release: an update that is rolled back has changed nothing");
	is(use_it($open, 'rolled_back'), $served, '... and the session goes on as before');

	# beside who has appended, and who appends meanwhile
	my ($updater, $late) = (session($node, $old), session($node, $old));
	$open->ask(q{BEGIN; SELECT FROM cqrs_es.append_event('note', 'beside', 'Noted', '{}')});
	$updater->send('ALTER EXTENSION cqrs_es UPDATE');
	$node->poll_query_until($old, q{SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND relation = 'cqrs_es.events'::regclass}) or die;
	$late->send(q{SELECT version FROM cqrs_es.append_event('note', 'beside', 'Noted', '{}')});
	$node->poll_query_until('postgres', q{SELECT count(*) = 2 FROM pg_locks WHERE NOT granted}) or die;
	$open->ask(q{SELECT FROM cqrs_es.append_event('account', 'beside', 'Opened', '{}'); COMMIT});
	$updater->read_results;
	is($updater->{state} || '', '', "$release: the update waits for who has appended") or diag $updater->{message};
	my @appended = $late->read_results;
	is($late->{state} || $appended[0][0][0], 2, '... and who appends meanwhile waits for the update') or diag $late->{message} // '';

	is(differences($old, $fresh, 'false'), '', "$release: with data, too, every object is that of a fresh installation");
	is(use_it($open, 'after'), $served, '... an open session goes on');
	$open->ask(q{SELECT cqrs_es.create_aggregate('heard', strict => true);
		SELECT cqrs_es.define_reducer('heard', 'Heard', '[{"op": "increment", "path": "/n", "from": "/n"}]'::jsonb)});
	$open->try(q{SELECT FROM cqrs_es.append_event('heard', 'h', 'Heard', '{"n": "x"}')});
	is($open->{state}, 'QE103', '... and has heard of the update: it reads and writes what is new');
	is(use_it($generic, 'after_generic'), $served, '... and one on the generic path');
	is($node->safe_psql($old, q{SELECT count(*) FROM cqrs_es.verify_log() WHERE problem IS NOT NULL}), 0, '... verify_log finds no problem');

	is($node->safe_psql($old, q{SELECT cqrs_es.resume_projection('late') > 0}), 't', "$release: the paused projection is resumed");
	is($node->safe_psql($old, q{SELECT count(*) FROM (SELECT aggregate_id, count(*) FROM cqrs_es.events WHERE aggregate_type = 'account' AND tenant_id = '' GROUP BY 1
		EXCEPT SELECT id, n FROM late) AS missing}), 0, '... and has all events once');
	is($node->safe_psql($old, q{SELECT count(*) FROM cqrs_es.missing_objects}), 0, '... nothing that was declared is missing');
	is($node->safe_psql($old, q{SELECT string_agg(DISTINCT definer_name, ', ') FROM cqrs_es.handlers}), 'upgrade_author', '... those who declared have their names');
	$node->safe_psql($old, q{SELECT cqrs_es.define_tags('Tagged', 'n:{/n}'); SELECT FROM cqrs_es.append_event('note', 'new', 'Tagged', '{"n": 1}');
		SELECT cqrs_es.create_projection('new', mode => 'async'); CREATE TABLE before AS SELECT * FROM accounts; SELECT FROM cqrs_es.rebuild_projection('accounts')});
	is($node->safe_psql($old, q{SELECT count(*) FROM (SELECT * FROM accounts EXCEPT SELECT * FROM before) AS x}), 0, '... what is new can be used, and a projection rebuilt');

	my $RIGHTS = q{SELECT string_agg(DISTINCT concat_ws(' ', r, n, p), ', ') FROM (
		SELECT r, f::regproc::text AS n, has_function_privilege(r, f, 'EXECUTE') AS p
		FROM unnest('{upgrade_author,upgrade_writer,upgrade_reader}'::text[]) AS r,
			(SELECT oid FROM pg_proc WHERE pronamespace = 'cqrs_es'::regnamespace AND proname IN ('append_event', 'append_events', 'append_event_arrays', 'rebuild_projection', 'pause_projection', 'create_projection')) AS f (f)) AS x
		WHERE p};
	my $rights = 'upgrade_author cqrs_es.append_event_arrays t, upgrade_author cqrs_es.create_projection t, upgrade_author cqrs_es.pause_projection t, upgrade_author cqrs_es.rebuild_projection t,'
	  . ' upgrade_reader cqrs_es.append_event_arrays t, upgrade_writer cqrs_es.append_event t, upgrade_writer cqrs_es.append_event_arrays t, upgrade_writer cqrs_es.append_events t';
	is($node->safe_psql($old, $RIGHTS), $rights, "$release: what was granted and revoked is so of the functions of now");
	is($node->safe_psql($old, q{SELECT has_table_privilege('upgrade_reader', 'cqrs_es.projection_status', 'SELECT'), has_column_privilege('upgrade_reader', 'cqrs_es.projection_progress', 'events', 'SELECT'),
		has_column_privilege('upgrade_reader', 'cqrs_es.projections', 'paused', 'SELECT'), has_column_privilege('upgrade_reader', 'cqrs_es.projections', 'mode', 'SELECT'), has_table_privilege('upgrade_writer', 'cqrs_es.events', 'INSERT')}),
		't|t|t|f|t', '... of views that were made anew, and of columns');

	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	is(join(' ', map { $_->[0][0] } $reader->ask($READ)), "@on_standby", "$release: the standby's reader goes on over the update");
	is(differences($old, $fresh, 'false'), '', '... where the catalog came along');
	$standby->stop('immediate');

	# into this version, from a dump of after the update, and from one of before
	my $after = PostgreSQL::Test::Utils::tempdir() . "/after_$name.sql";
	$node->command_ok([ 'pg_dump', '-d', $node->connstr($old), '-f', $after ], "$release: the updated database is dumped");
	is(restored("restored_$name", $after), '', '... and restored');
	is($node->safe_psql("restored_$name", $RIGHTS), $rights, '... with the rights');
	is($node->safe_psql("restored_$name", $CONTENT), $node->safe_psql($old, $CONTENT), '... and everything else');

	like(restored("from_$name", $dump), qr/^((?!ERROR).*\n|.*ERROR:  function .* does not exist\n?)*$/, "$release: a dump of before is restored into this version, but for rights on functions that are others now");
	is($node->safe_psql("from_$name", $CONTENT), $content, '... with all that was there');
	is(use_it(session($node, "from_$name"), 'open'), $served, '... which goes on');
}

$node->stop;
done_testing();
