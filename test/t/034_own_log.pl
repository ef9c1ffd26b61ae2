# Whatever people add to the log, a dump has it: a column, an index, a CHECK, a
# foreign key, triggers, policies, an owner, publications, statistics, partitions. And
# whatever of it a dump could not have is refused or told when it is done.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('own');
$node->init(allows_streaming => 'logical');
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();
my $count = 0;

sub sql { return $node->safe_psql(@_) }

# A database with a log in which something has happened.
sub new_database
{
	my $database = 'original' . ++$count;
	sql('postgres', "CREATE DATABASE $database");
	sql($database, q{
		CREATE EXTENSION cqrs_es;
		SELECT cqrs_es.create_aggregate('account', '{"sum": 0}', 2);
		SELECT cqrs_es.define_reducer('account', 'added', '[{"op": "increment", "path": "/sum", "from": "/n"}]');
		CREATE TABLE states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
		SELECT cqrs_es.create_projection('states', state_of => 'account', read_models => '{states}');
		SELECT cqrs_es.append_event('account', (n % 3)::text, 'added', '{"n": 1}') FROM generate_series(1, 10) n;
		BEGIN;
		SELECT cqrs_es.append_event('account', '1', 'added', '{"n": 1}');
		ROLLBACK;
	});
	return $database;
}

# The definition of the log as pg_dump would see it, by the catalog.
my $definition = q{
	SELECT 'table', concat_ws('|', relkind, relpersistence, relowner::regrole, relrowsecurity, relforcerowsecurity, relreplident, reloptions::text,
		(SELECT amname FROM pg_am WHERE oid = relam), pg_get_partkeydef(oid), pg_get_expr(relpartbound, oid), obj_description(oid, 'pg_class')) AS what, relname
	FROM pg_class c WHERE relnamespace = 'cqrs_es'::regnamespace AND relname ~ '^events'
	UNION ALL SELECT 'column', concat_ws('|', attname, format_type(atttypid, atttypmod), attnotnull, attstattarget, attstorage, attcollation::regcollation,
		attgenerated, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)), attrelid::regclass::text
	FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum) WHERE attrelid = 'cqrs_es.events'::regclass AND attnum > 0 AND NOT attisdropped
	UNION ALL SELECT 'index', pg_get_indexdef(indexrelid), indrelid::regclass::text FROM pg_index WHERE indrelid = 'cqrs_es.events'::regclass
	UNION ALL SELECT 'constraint', concat_ws(' ', conname, pg_get_constraintdef(oid), convalidated), conrelid::regclass::text FROM pg_constraint WHERE conrelid = 'cqrs_es.events'::regclass
	UNION ALL SELECT 'trigger', concat_ws(' ', pg_get_triggerdef(oid), tgenabled), tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal AND tgrelid::regclass::text ~ '^cqrs_es.events'
	UNION ALL SELECT 'policy', concat_ws(' ', polname, polcmd, polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)), polrelid::regclass::text FROM pg_policy WHERE polrelid = 'cqrs_es.events'::regclass
	UNION ALL SELECT 'rule', pg_get_ruledef(oid), ev_class::regclass::text FROM pg_rewrite WHERE ev_class = 'cqrs_es.events'::regclass
	UNION ALL SELECT 'publication', pubname, prrelid::regclass::text FROM pg_publication_rel JOIN pg_publication p ON p.oid = prpubid
	UNION ALL SELECT 'statistics', pg_get_statisticsobjdef(oid), stxrelid::regclass::text FROM pg_statistic_ext
	UNION ALL SELECT 'grant', concat_ws(' ', grantee::regrole, privilege_type), relname FROM pg_class, aclexplode(relacl) WHERE oid = 'cqrs_es.events'::regclass
	ORDER BY 1, 2, 3};
my $log = q{SELECT count(*), md5(string_agg(e::text, ',' ORDER BY global_position)) FROM cqrs_es.read_all(max_count => 10000) AS e};
my $append = q{SELECT version FROM cqrs_es.append_event('account', '1', 'added', '{"n": 1}')};

sub restored_as_it_was
{
	my ($database, $what) = @_;
	my ($was, $events) = (sql($database, $definition), sql($database, $log));
	my @ways = ([ 'psql', 'plain', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', "$dir/$database.plain" ],
		[ '-Fc', 'custom', 'pg_restore', '-e', '-1', "$dir/$database.custom" ], [ '-Fd', 'directory', 'pg_restore', '-j', '2', '-e', "$dir/$database.directory" ]);
	# all ways where the table is made differently, one for the rest
	@ways = ($ways[1]) if $what !~ /column|partitions|publication/;
	foreach my $way (@ways)
	{
		my ($how, $format, @command) = @$way;
		my $copy = "copy" . ++$count;
		$node->command_ok([ 'pg_dump', '-d', $node->connstr($database), '--no-sync', '-F', substr($format, 0, 1), '-f', "$dir/$database.$format" ], "$what: pg_dump, $format")
		  if !-e "$dir/$database.$format";
		sql('postgres', "CREATE DATABASE $copy");
		my ($stdout, $stderr) = run_command([ @command, '-d', $node->connstr($copy) ]);
		is($stderr, '', "$what: $how says nothing");
		is(sql($copy, $log), $events, "$what: $how: all events are there");
		is(sql($copy, $definition), $was, "$what: $how: all that was added, too");
		is(sql($copy, $append), '5', "$what: $how: appends go on");
		is(sql($copy, q{SELECT version, state->>'sum', (SELECT payload->>'sum' FROM states WHERE view_id = '1') FROM cqrs_es.load_aggregate('account', '1')}), '5|5|5', "$what: $how: state and read model");
		my ($status, $out, $err) = $node->psql($copy, 'DELETE FROM cqrs_es.events');
		like($err, qr/append-only/, "$what: $how: the log is guarded");
		sql('postgres', "DROP DATABASE $copy");
	}
	# over what is there
	sql($database, $append);
	my ($stdout, $stderr) = run_command([ 'pg_restore', '--clean', '--if-exists', '-d', $node->connstr($database), "$dir/$database.custom" ]);
	# (it tries to drop the keys of partitions by themselves, which PostgreSQL does not do)
	$stderr =~ s/pg_restore: error: .*cannot drop inherited constraint.*\nCommand was: .*;\n|^\n|pg_restore: warning: errors ignored on restore: 3\n?//mg if $what eq 'partitions';
	is($stderr, '', "$what: pg_restore --clean says nothing");
	is(sql($database, $definition), $was, "$what: --clean: all that was added");
	is(sql($database, $log), $events, "$what: --clean: all events");
}

sql('postgres', q{CREATE ROLE keeper; CREATE ROLE reader});
# (what stands in one line keeps out of each other's way)
foreach my $addition (
	[ 'columns', 'ALTER TABLE cqrs_es.events ADD COLUMN region text', q{CREATE TYPE public.mood AS ENUM ('well'); ALTER TABLE cqrs_es.events ADD COLUMN mood public.mood DEFAULT 'well'},
		q{ALTER TABLE cqrs_es.events ADD COLUMN amount numeric GENERATED ALWAYS AS ((payload->>'n')::numeric) STORED}, 'CREATE INDEX ON cqrs_es.events (amount)' ],
	[ 'an index, concurrently, a CHECK constraint and a foreign key', 'CREATE INDEX CONCURRENTLY events_of_type ON cqrs_es.events (event_type, global_position)',
		q{ALTER TABLE cqrs_es.events ADD CONSTRAINT no_secrets CHECK (NOT payload ? 'secret')},
		q{CREATE TABLE public.types (t text COLLATE "C" PRIMARY KEY); INSERT INTO types VALUES ('added'); ALTER TABLE cqrs_es.events ADD FOREIGN KEY (event_type) REFERENCES types} ],
	[ 'a trigger, a policy and a rule', q{CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'},
		'CREATE TRIGGER mine AFTER INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION f()', 'CREATE POLICY mine ON cqrs_es.events AS RESTRICTIVE USING (true)',
		'CREATE RULE mine AS ON DELETE TO cqrs_es.events DO ALSO NOTIFY deleted' ],
	[ 'no policy for tenants, a trigger that is off, no index on positions', 'DROP POLICY tenant_isolation ON cqrs_es.events',
		'ALTER TABLE cqrs_es.events DISABLE TRIGGER refuse_change', 'DROP INDEX cqrs_es.events_global_position_idx' ],
	[ 'an owner', 'GRANT USAGE ON SCHEMA cqrs_es TO keeper; ALTER TABLE cqrs_es.events OWNER TO keeper' ],
	[ 'a publication', 'CREATE PUBLICATION log FOR TABLE cqrs_es.events, public.states' ],
	[ 'statistics, storage settings, a comment and grants', 'CREATE STATISTICS public.types_and_aggregates ON event_type, aggregate_type FROM cqrs_es.events',
		'ALTER TABLE cqrs_es.events SET (fillfactor = 90)', 'ALTER TABLE cqrs_es.events ALTER payload SET STATISTICS 7', q{COMMENT ON COLUMN cqrs_es.events.payload IS 'mine'},
		'GRANT SELECT ON cqrs_es.events TO reader' ])
{
	my ($what, @statements) = @$addition;
	my $database = new_database();
	sql($database, $_) foreach @statements;
	restored_as_it_was($database, $what);
	sql('postgres', "DROP DATABASE $database");
}

# what a dump cannot have is told
my $database = new_database();
foreach my $told ([ 'CREATE PUBLICATION p FOR TABLES IN SCHEMA cqrs_es', 'schema of an extension in a publication' ],
	[ 'CREATE PUBLICATION q FOR TABLE cqrs_es.published_positions', 'of cqrs_es.published_positions' ],
	[ 'CREATE INDEX ON cqrs_es.snapshots (created_at)', 'of cqrs_es.snapshots' ], [ 'ALTER TABLE cqrs_es.handlers OWNER TO keeper', 'of cqrs_es.handlers' ],
	[ 'ALTER SEQUENCE cqrs_es.events_global_position_seq CACHE 2', 'of cqrs_es.events_global_position_seq' ],
	[ 'ALTER TABLE cqrs_es.handlers DISABLE TRIGGER registry_changed', 'of cqrs_es.handlers' ], [ 'DROP TRIGGER registry_changed ON cqrs_es.handlers', 'of cqrs_es.handlers' ],
	[ 'DROP POLICY tenant_isolation ON cqrs_es.snapshots', 'of cqrs_es.snapshots' ], [ 'DROP INDEX cqrs_es.event_tags_tag_idx', 'of cqrs_es.event_tags' ])
{
	my ($status, $stdout, $stderr) = $node->psql($database, $told->[0]);
	like($stderr, qr/WARNING:  a dump has no .*\Q$told->[1]\E/, "told: $told->[0]");
}
my ($status, $stdout, $stderr) = $node->psql($database, 'ALTER TABLE cqrs_es.aggregates ADD COLUMN note text');
like($stderr, qr/ERROR:  cannot change the columns of cqrs_es.aggregates/, 'refused');

sql($database, 'CREATE POLICY tenant_isolation ON cqrs_es.snapshots USING (tenant_id = cqrs_es.current_tenant())');

# into the extension again by hand, and out of it
sql($database, 'ALTER TABLE cqrs_es.events SET (fillfactor = 90)');
is(sql($database, q{SELECT to_regprocedure('cqrs_es.log_is_own()')}), 'cqrs_es.log_is_own()', 'out of the extension');
sql($database, 'ALTER TABLE cqrs_es.events RESET (fillfactor); ALTER EXTENSION cqrs_es ADD TABLE cqrs_es.events');
is(sql($database, q{SELECT to_regprocedure('cqrs_es.log_is_own()')}), '', 'in it again');
sql($database, 'ALTER EXTENSION cqrs_es DROP TABLE cqrs_es.events');
is(sql($database, q{SELECT to_regprocedure('cqrs_es.log_is_own()')}), 'cqrs_es.log_is_own()', 'and out');
($status, $stdout, $stderr) = $node->psql($database, 'DROP EXTENSION cqrs_es');
like($stderr, qr/cannot drop extension cqrs_es because other objects depend on it/, 'it is not dropped without CASCADE');
($status, $stdout, $stderr) = $node->psql($database, 'ALTER EXTENSION cqrs_es ADD TABLE cqrs_es.events; CREATE FUNCTION cqrs_es.log_is_own() RETURNS int LANGUAGE sql RETURN 1');
like($stderr, qr/a log cannot be restored where another one has events/, 'a log with events gives no way');
is(sql($database, 'SELECT count(*) FROM cqrs_es.events'), '10', 'they are there');
is(sql($database, 'SELECT count(*) FROM cqrs_es.verify_log() WHERE problem IS NOT NULL'), '0', 'and nothing is wrong with them');

# an owner who may not look into the schema
($status, $stdout, $stderr) = $node->psql($database, 'ALTER TABLE cqrs_es.events OWNER TO keeper');
like($stderr, qr/WARNING:  the owner of cqrs_es.events lacks rights.*HINT:  GRANT USAGE ON SCHEMA cqrs_es TO keeper/s, 'told: an owner without USAGE');
($status, $stdout, $stderr) = $node->psql($database, 'GRANT USAGE ON SCHEMA cqrs_es TO keeper; ALTER TABLE cqrs_es.events OWNER TO keeper; ALTER TABLE cqrs_es.events SET (fillfactor = 95)');
is($stderr, '', 'one with it');

# partitions
$database = new_database();
is($node->safe_psql($database, q{SELECT cqrs_es.partition_log('aggregate_id', partitions => 3) >= 0}), 't', 'partitioned');
restored_as_it_was($database, 'partitions');

$node->stop;
done_testing();
