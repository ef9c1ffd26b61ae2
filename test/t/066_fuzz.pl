# Every function and procedure of the extension, with values from the edges of
# their types, called in every way that SQL knows; every setting; every table and
# view. Then sqlsmith, which makes queries of all that a database has, and
# libFuzzer over the JSON tree and the programs of reducers (test/fuzz).
#
# A round has a seed and a new copy of one database, and plays in one session, so
# that it can be played again: CQRS_ES_FUZZ_SEED=... CQRS_ES_FUZZ_ROUNDS=1. After it
# the log is whole, states are those of a replay without snapshots, read tables are
# what a rebuild makes of them, and the server's log has no internal error, no
# crash, and nothing that was left over.
#
# What functions take and what settings there are is the catalog's; a type without
# values fails.
#
# CQRS_ES_FUZZ_SECONDS: how long, altogether (45); CQRS_ES_FUZZ_SEED, CQRS_ES_FUZZ_ROUNDS;
# CQRS_ES_FUZZ_PARTS (calls sqlsmith json); CQRS_ES_FUZZ_INPUT: one that json has left.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use lib "$ENV{TESTDIR}/test/include";
use Faults;
use Session;

no warnings 'qw';		# JSON has commas

my $seconds = $ENV{CQRS_ES_FUZZ_SECONDS} || 45;
my $seed = $ENV{CQRS_ES_FUZZ_SEED} || 20261126;
my $rounds = $ENV{CQRS_ES_FUZZ_ROUNDS} || 1_000_000;
my %parts = map { $_ => 1 } split / /, $ENV{CQRS_ES_FUZZ_PARTS} || 'calls sqlsmith json';
my $calls = 800;		# of a round
my $user = getpwuid $>;

my $node = PostgreSQL::Test::Cluster->new('fuzz');
$node->init;
$node->append_conf('postgresql.conf', Faults::settings() . "cqrs_es.projection_worker = off\nmax_prepared_transactions = 10\njit = off");
$node->start;

# what is looked for would be found
my %planted = (
	'LOG:  00000: server process (PID 1) was terminated by signal 11: Segmentation fault' => 1,
	'TRAP: FailedAssertion("x", File: "y.c", Line: 1, PID: 1)' => 1,
	"ERROR:  XX000: could not open relation with OID 0\n2026 [1] LOCATION:  relation_open, relation.c:62" => 1,
	"WARNING:  01000: relcache reference leak: relation \"a\" not closed\n2026 [1] LOCATION:  ResourceOwnerReleaseInternal, resowner.c:1" => 1,
	"WARNING:  01000: Snapshot reference leak: Snapshot 0x1 still referenced\n2026 [1] LOCATION:  ResourceOwnerReleaseInternal, resowner.c:1" => 1,
	"WARNING:  25P01: there is no transaction in progress\n2026 [1] LOCATION:  UserAbortTransactionBlock, xact.c:1" => 0,
	"ERROR:  22023: mode must be\n2026 [1] LOCATION:  ProjectionModeIsAsync, projection.c:1" => 0);
is(join("\n", grep { Faults::in_log("2026 [1] LOG:  00000: x\n2026 [1] $_\n") != $planted{$_} } sort keys %planted), '', 'what is looked for in the log would be found');

# --- a database with something of everything

$node->safe_psql('postgres', 'CREATE DATABASE world; CREATE ROLE plain; CREATE ROLE owner; GRANT pg_monitor TO plain');
$node->safe_psql('world', q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE rows (id text, n bigint);
	CREATE TABLE rows2 (id text, n bigint);
	CREATE TABLE states (view_id text, tenant_id text, version bigint NOT NULL, payload jsonb NOT NULL, PRIMARY KEY (view_id, tenant_id));
	CREATE TABLE kept_rows (aggregate_type text, aggregate_id text, tenant_id text, events bigint, PRIMARY KEY (aggregate_type, aggregate_id, tenant_id));
	CREATE TABLE parted (id int) PARTITION BY RANGE (id);
	CREATE TABLE odd (LIKE cqrs_es.events INCLUDING DEFAULTS);
	ALTER TABLE odd ALTER sequence DROP NOT NULL, ALTER created_at SET DEFAULT now(), ALTER aggregate_type SET DEFAULT 'a', ALTER aggregate_id SET DEFAULT '1', ALTER event_type SET DEFAULT 'e', ALTER payload SET DEFAULT '{}';
	CREATE TABLE odder (gone int, sequence text, aggregate_type int, payload json);
	ALTER TABLE odder DROP COLUMN gone;
	CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE VIEW looks AS SELECT * FROM rows;
	CREATE MATERIALIZED VIEW stands AS SELECT * FROM rows;
	CREATE FUNCTION f(jsonb, cqrs_es.event) RETURNS jsonb LANGUAGE sql AS 'SELECT $1 || jsonb_build_object(''f'', $2.sequence)';
	CREATE FUNCTION lift(jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
	CREATE FUNCTION handle(cqrs_es.event) RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO rows VALUES ($1.aggregate_id, $1.sequence); END';
	CREATE FUNCTION decide(jsonb, jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT $2';
	CREATE FUNCTION fails(jsonb, cqrs_es.event) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RAISE division_by_zero; END';

	SELECT cqrs_es.create_aggregate('a', '{"n": 0}', 3, 2);
	SELECT cqrs_es.create_aggregate('b', strict => true);
	SELECT cqrs_es.define_reducer('a', 'e', '[{"op": "increment", "path": "/n", "from": "/n", "optional": true}, {"op": "set", "path": "/last", "from": ""}]');
	SELECT cqrs_es.define_reducer('a', 'f', 'f(jsonb, cqrs_es.event)');
	SELECT cqrs_es.define_reducer('b', 'e', '[{"op": "append", "path": "/all", "from": "/x"}]');
	SELECT cqrs_es.define_reducer('b', 'g', 'fails(jsonb, cqrs_es.event)');
	SELECT cqrs_es.define_upcaster('f', '1', '2', 'lift(jsonb)');
	SELECT cqrs_es.define_command('a', 'c', 'command'), cqrs_es.define_command('b', 'c', 'decide(jsonb, jsonb)'::regprocedure),
		cqrs_es.define_command('a', 'no', $$cqrs_es.reject('no', 'code')$$);
	SELECT cqrs_es.create_projection('p', '{a}', '{rows}'), cqrs_es.create_projection('async', '{a}', '{rows2}', mode => 'async', per_stream => true),
		cqrs_es.create_projection('st', read_models => '{states}', state_of => 'a'), cqrs_es.create_projection('kept', read_models => '{kept_rows}');
	SELECT cqrs_es.define_handler('p', 'e', 'handle(cqrs_es.event)'), cqrs_es.define_handler('async', 'e', 'INSERT INTO rows2 VALUES (event.aggregate_id, event.sequence)'),
		cqrs_es.define_handler('kept', '$deleted', $$UPDATE kept_rows SET events = 1 WHERE (aggregate_type, aggregate_id, tenant_id) = (event.aggregate_type, event.aggregate_id, event.tenant_id)$$),
		cqrs_es.define_handler('kept', '*', $$INSERT INTO kept_rows AS k VALUES (event.aggregate_type, event.aggregate_id, event.tenant_id, 1)
			ON CONFLICT (aggregate_type, aggregate_id, tenant_id) DO UPDATE SET events = k.events + 1$$);
	SELECT cqrs_es.create_subscription('s', lease => '1 ms', max_attempts => 2, retry_delay => '1 ms'), cqrs_es.create_subscription('log', ordering => 'log'),
		cqrs_es.create_subscription('skip', '{a}', '{e}', on_failure => 'skip', consumer_role => 'plain', all_tenants => true);
	SELECT cqrs_es.append_event('a', (i % 7)::text, CASE i % 3 WHEN 0 THEN 'f' ELSE 'e' END, jsonb_build_object('n', i), event_id => md5(i::text)::uuid) FROM generate_series(1, 60) AS i;
	SELECT cqrs_es.append_event('b', 'b', 'e', '{"x": 1}'), cqrs_es.receive_message('s', 'a');
	SET cqrs_es.tenant_id = 'x';
	SELECT cqrs_es.append_event('a', '1', 'e', '{"n": 1}');
	GRANT USAGE ON SCHEMA cqrs_es TO plain, owner;
	GRANT SELECT, INSERT ON cqrs_es.events TO plain;
	GRANT EXECUTE ON ALL ROUTINES IN SCHEMA cqrs_es TO owner;
	CREATE INDEX ON cqrs_es.events (event_type, global_position);
});

# --- values

my %pools = (
	text => [ qw(NULL '' 'a' 'a' 'a' 'b' 'b' 'p' 'p' 'async' 'async' 'st' 'st' 's' 's' 's' 'log' 'skip' 'e' 'e' 'f' 'g' 'c' 'no' '*' '/' '0' '1' '2' 'me'
			'stream' 'block' 'stop' 'skip' 'sync' '9' 'projection:async' 'decide(state,command)' 'kept_not'),
		q{E'\u0001'}, q{'ä'}, q{repeat('x', 255)}, q{repeat('x', 256)}, q{repeat('ä', 5000)}, q{' '}, q{'"'}, q{'; DROP TABLE rows'}, q{'%s%n%d'}, q{'[]'}, q{'['},
		q{'[{"op": "set", "path": "/x", "from": "/n"}]'}, q{'f(jsonb, cqrs_es.event)'}, q{'lift(jsonb)'}, q{'handle(cqrs_es.event)'}, q{'public.nowhere(int)'},
		q{'INSERT INTO rows VALUES (event.aggregate_id, event.sequence)'}, q{'UPDATE rows SET n = n + 1'}, q{'INSERT INTO rows SELECT event.aggregate_id, 1/0'},
		q{'INSERT INTO kept_not VALUES (event.payload)'}, q{'SELECT 1'}, q{'command'}, q{'jsonb_build_object(''type'', ''e'', ''payload'', state)'}, q{'pg_sleep(1)'}, q{'(SELECT count(*) FROM rows)'} ],
	jsonb => [ 'NULL', map { "'$_'" } qw({} {} [] 1 null true "x" {"n":1} {"n":1e400} {"n":-1e-400} [null] {"":{"":null}} {"type":"e","payload":{"n":1}} [{"type":"e","payload":{"n":2}}]
			[{"type":"e","payload":{}},{"type":"f","payload":{"a":1}}] [{"type":""}] [{"type":"e","payload":null,"metadata":[]}] [{"type":"e","payload":{},"id":"x"}]
			[{"type":"e","payload":{},"id":"00000000-0000-0000-0000-000000000001"},{"type":"e","payload":{},"id":"00000000-0000-0000-0000-000000000001"}]
			[{"op":"set","path":"","value":1}] [{"op":"increment","path":"/n","value":1e300}] [{"op":"remove","path":"/n"}] [{"op":"append","path":"/l","from":"/n"}] [{"op":"merge","path":"","from":""}]
			[{"op":"x"}] [{"op":"set","path":"/{/n}","from":"metadata/x"}] {"x":[1,2]}),
		q{repeat('[', 3000)::text::jsonb}, q{(repeat('[', 500) || repeat(']', 500))::jsonb}, q{(repeat('{"a":', 500) || '1' || repeat('}', 500))::jsonb},
		q{to_jsonb(repeat('x', 100000))}, q{jsonb_build_object(repeat('k', 10000), 1)}, q{(SELECT jsonb_agg(jsonb_build_object('type', 'e', 'payload', jsonb_build_object('n', i))) FROM generate_series(1, 200) AS i)} ],
	bigint => [ qw(NULL 0 0 1 1 2 3 5 10 100 -1 -2 9223372036854775807 (-9223372036854775808) 17592186044415 17592186044416 9007199254740992),
		'(SELECT max(global_position) FROM cqrs_es.events)', '(SELECT min(id) FROM cqrs_es.dead_letters)' ],
	integer => [ qw(NULL 0 1 1 2 3 10 100 -1 2147483647 (-2147483648)) ],
	boolean => [ qw(NULL true true false false) ],
	uuid => [ qw(NULL '00000000-0000-0000-0000-000000000000' 'ffffffff-ffff-ffff-ffff-ffffffffffff' gen_random_uuid()), q{md5('7')::uuid}, q{md5('60')::uuid},
		('(SELECT batch FROM cqrs_es.shares WHERE batch IS NOT NULL LIMIT 1)') x 4, '(SELECT batch FROM cqrs_es.parked_streams WHERE batch IS NOT NULL LIMIT 1)' ],
	interval => [ 'NULL', map { "'$_'" } '0', '0', '1 ms', '1 ms', '1 s', '-1 s', '1 us', '1 mon', '178000000 years', '-178000000 years', '2147483647 days', '596 h' ],
	'timestamp with time zone' => [ 'NULL', 'now()', map { "'$_'" } qw(infinity -infinity epoch 294276-12-31), '4714-11-24 BC' ],
	regclass => [ qw(NULL 0::oid 1::oid 4294967295::oid), map { "'$_'" } qw(rows rows states looks stands parted kept_rows pg_class cqrs_es.events cqrs_es.share_numbers states_pkey cqrs_es.event) ],
	regprocedure => [ qw(NULL 0::oid 1::oid 4294967295::oid), map { "'$_'" } 'f(jsonb,cqrs_es.event)', 'lift(jsonb)', 'handle(cqrs_es.event)', 'decide(jsonb,jsonb)', 'fails(jsonb,cqrs_es.event)', 'sum(int)',
		'row_number()', 'int4in(cstring)', 'generate_series(int,int)', 'cqrs_es.forget_messages(interval)', 'cqrs_es.registry_changed()', 'jsonb_build_object()', 'jsonb_concat(jsonb,jsonb)' ],
	regrole => [ qw(NULL 0::oid 4294967295::oid 'plain' 'owner' 'pg_monitor'), "'$user'" ],
	name => [ qw(NULL 'pg_default' 'pg_global' 'no' '') ],
	oid => [ qw(NULL 0 1 4294967295), q{'f(jsonb,cqrs_es.event)'::regprocedure}, q{'reject'::regproc} ],
	pg_ddl_command => ['NULL'],
	'cqrs_es.event' => [ qw(NULL), q{(NULL, 1, now(), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)}, q{(-1, 0, 'infinity', gen_random_uuid(), '', 'a', '1', 'e', '1', '[]', '1')},
		map { "(SELECT (e.global_position, e.sequence, e.created_at, e.event_id, e.tenant_id, e.aggregate_type, e.aggregate_id, e.event_type, e.event_version, $_)::cqrs_es.event
			FROM cqrs_es.events AS e ORDER BY e.global_position LIMIT 1)" } 'e.payload, e.metadata', 'e.payload, e.metadata', q{'{"n": 2}', '{}'} ],
	'text[]' => [ map { $_ eq 'NULL' ? $_ : "'$_'" } qw(NULL {} {NULL} {a} {a,b} {e} {e,e} {{a},{b}} [5:6]={a,b} {""} {async} {p,st} {x,y,z}), "'{e,f}'::text[] || array_fill('x'::text, ARRAY[1000])" ],
	'integer[]' => [ map { $_ eq 'NULL' ? $_ : "'$_'" } qw({} {0} {0,1,3} {NULL} {-1} {{0},{1}} [5:6]={0,1} {65535} {2147483647} NULL) ],
	'bigint[]' => [ map { $_ eq 'NULL' ? $_ : "'$_'" } qw({} {0} {NULL} {7,17592186044417} {-1} {{1},{2}} {9223372036854775807} NULL) ],
	# of any type: what each stands as says
	anyelement => [ qw(0::bigint 'a'::text '{}'::jsonb NULL::uuid ARRAY[1,2] ROW(1,'a')) ],
	'jsonb[]' => [ 'NULL', map { "$_\::jsonb[]" } q{'{}'}, q{'{NULL}'}, q{ARRAY['{}', '{"n": 1}']}, q{ARRAY['[]']}, q{ARRAY['{"n": 1}']}, q{ARRAY[ARRAY['{}'], ARRAY['{}']]} ],
	'uuid[]' => [ 'NULL', q{'{}'::uuid[]}, q{'{NULL}'::uuid[]}, q{ARRAY[gen_random_uuid()]}, q{ARRAY[md5('7')::uuid, md5('7')::uuid]}, q{ARRAY[gen_random_uuid(), gen_random_uuid()]} ],
	'regclass[]' => [ 'NULL', map { "'$_'::regclass[]" } qw({} {NULL} {rows} {rows,rows} {rows,rows2} {{rows},{states}} [0:0]={rows} {looks} {parted} {states} {pg_class} {cqrs_es.events} {-}) ]);

sub one_of { return $_[ int rand @_ ] }

# What has a chance to be found, and takes no time.
my %likely = (
	aggregate_type => [ qw('a' 'a' 'b') ], aggregate_id => [ map { "'$_'" } 0 .. 6, 'b', 'new' ], event_type => [ qw('e' 'e' 'f' 'g') ], subscription => [ qw('s' 's' 'log' 'skip') ], consumer => [ qw('me' 'you') ],
	name => [ qw('p' 'async' 'st' 's' 'log' 'skip' 'new') ], projection => [ qw('p' 'async' 'new') ], replaces => [ qw('p' 'async' 'new') ], mode => [ qw('sync' 'async') ], on_error => [ qw('stop' 'skip') ],
	on_failure => [ qw('block' 'skip' 'stop') ], ordering => [ qw('stream' 'log') ], command_type => [ qw('c' 'no') ], from_version => [ qw('1' '2') ], to_version => [ qw('2' '3') ], event_version => [ qw('1' '2') ], state_of => [ qw('a' 'b') ],
	decider => [ q{'command'}, q{'decide(state, command)'} ], handler => [ q{'INSERT INTO rows VALUES (event.aggregate_id, event.sequence)'}, q{'handle(cqrs_es.event)'} ], reducer => [ q{'f(jsonb, cqrs_es.event)'} ],
	payload => [ q{'{"n": 1}'}, q{'{"type": "e", "payload": {"n": 1}}'} ], metadata => [ q{'{}'}, q{'{"user": "u"}'} ], expected_version => [ 'NULL', 0 .. 3 ], max_count => [ 1, 5, 100 ], timeout => [ q{'1 ms'} ], after_position => [ 0, 5 ], global_position => [ 1, 5, 20 ],
	aggregate_types => [ q{'{a}'}, 'NULL' ], event_types => [ q{'{e}'}, 'NULL' ], portion => [ 1, 10 ], source => [ q{'odd'} ], older_than => [ q{'0'} ], batch => [ ('(SELECT batch FROM cqrs_es.shares WHERE batch IS NOT NULL LIMIT 1)') x 4 ]);

sub value_of
{
	my ($type, $name) = @_;
	my $likely = $likely{ $name // '' };
	return one_of(@$likely) . "::$type" if $likely && $type ne 'anyelement' && rand() < 0.8 && $type !~ ($name =~ /_types$/ ? qr/^[^[]*$/ : qr/\[\]$/);
	return one_of(@{ $pools{$type} }) . ($type eq 'anyelement' ? '' : "::$type");
}

# --- statements, out of the catalog

my $catalog = Session->new($node->host, $node->port, $user, 'world');
my @routines = @{ ($catalog->ask(q{SELECT p.oid::regproc, p.prokind, p.proretset, p.pronargdefaults,
	array_to_string(ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS u (t, n) ORDER BY n), ';'),
	array_to_string(ARRAY(SELECT quote_ident(n) FROM unnest(p.proargnames) WITH ORDINALITY AS u (n, i) WHERE coalesce(p.proargmodes[i], 'i') IN ('i', 'b') ORDER BY i), ';')
	FROM pg_proc AS p WHERE p.pronamespace = 'cqrs_es'::regnamespace AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype) ORDER BY p.oid::regprocedure::text}))[0] };
my @relations = map { $_->[0] } @{ ($catalog->ask(q{SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'cqrs_es'::regnamespace AND relkind IN ('r', 'v', 'S') ORDER BY 1}))[0] };
my @triggers = map { $_->[0] } @{ ($catalog->ask(q{SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'cqrs_es'::regnamespace AND prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) ORDER BY 1}))[0] };
$catalog->ask('SELECT cqrs_es.current_tenant()');
my @settings = @{ ($catalog->ask(q{SELECT name, vartype FROM pg_settings WHERE name ~ '^cqrs_es\.' AND name <> 'cqrs_es.projection_worker' ORDER BY 1}))[0] };
$catalog->close;

is(join(', ', sort { $a cmp $b } grep { !$pools{$_} } keys %{ { map { ($_ => 1) } map { split /;/, $_->[4] } @routines } }), '', 'there are values of every type that a function takes');

sub arguments
{
	my ($types, $names, $defaults) = @_;
	my @types = split /;/, $types;
	my @names = split /;/, $names;
	my @given = grep { $_ < @types - $defaults || rand() < 0.4 } 0 .. $#types;
	return join ', ', map { "$names[$_] => " . value_of($types[$_], $names[$_]) } @given if @names >= @types;
	return join ', ', map { value_of($_) } @types;
}

sub call
{
	my ($name, $kind, $is_set, $defaults, $types, $names) = @{ one_of(@routines) };
	my $call = "$name(" . arguments($types, $names, $defaults) . ')';
	return "CALL $call" if $kind eq 'p';
	return one_of(("SELECT $call") x 4, ("SELECT * FROM $call") x 4, "SELECT * FROM $call LIMIT 1", "SELECT $call LIMIT 1", "SELECT ($call) IS NULL FROM generate_series(1, 3)",
		"SELECT * FROM generate_series(1, 3) AS g, LATERAL $call AS r", "SELECT count(*) FROM $call AS a, $call AS b", "EXPLAIN (ANALYZE, COSTS off) SELECT * FROM $call",
		"DO \$do\$ BEGIN PERFORM $call; EXCEPTION WHEN OTHERS THEN NULL; END \$do\$", "DO \$do\$ BEGIN PERFORM * FROM $call LIMIT 1; PERFORM 1/0; EXCEPTION WHEN OTHERS THEN NULL; END \$do\$",
		"CREATE TEMP TABLE made AS SELECT * FROM $call; DROP TABLE made", "BEGIN; DECLARE c CURSOR FOR SELECT * FROM $call; FETCH 1 FROM c; " . one_of('CLOSE c; COMMIT', 'COMMIT', 'ROLLBACK', 'SAVEPOINT x; FETCH 1 FROM c; ROLLBACK TO x; FETCH 1 FROM c; COMMIT'),
		"DECLARE h CURSOR WITH HOLD FOR SELECT * FROM $call; FETCH 1 FROM h; CLOSE h", "PREPARE q AS SELECT * FROM $call; EXECUTE q; EXECUTE q; DEALLOCATE q", "COPY (SELECT * FROM $call) TO STDOUT");
}

# A function of our triggers, called by itself, on a table that is none of ours, and for commands that are not those it is for.
sub on_strange_table
{
	my $function = one_of(@triggers);
	my $table = one_of(qw(rows states odd odder));
	return one_of("SELECT $function",
		("CREATE TRIGGER z " . one_of('BEFORE', 'AFTER') . ' ' . one_of('INSERT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'INSERT OR UPDATE OR DELETE') . " ON $table FOR EACH " . one_of('ROW', 'STATEMENT') . " EXECUTE FUNCTION $function; "
		. one_of("INSERT INTO $table DEFAULT VALUES", "INSERT INTO $table DEFAULT VALUES; UPDATE $table SET sequence = 1", "INSERT INTO $table (aggregate_type, aggregate_id, event_type, payload, sequence) VALUES ('a', '1', 'e', '{}', 1)", "DELETE FROM $table", "TRUNCATE $table")
		. "; DROP TRIGGER z ON $table") x 4,
		"CREATE EVENT TRIGGER z ON " . one_of(qw(ddl_command_start ddl_command_end sql_drop table_rewrite)) . " EXECUTE FUNCTION $function; CREATE TABLE made (i int); ALTER TABLE made ALTER i TYPE text; DROP TABLE made; DROP EVENT TRIGGER z");
}

# What people do to the log.
my @shapes = ('ALTER TABLE cqrs_es.events ADD COLUMN extra int DEFAULT 1', 'ALTER TABLE cqrs_es.events DROP COLUMN extra', 'CREATE INDEX z ON cqrs_es.events (aggregate_type, event_type, global_position)',
	'DROP INDEX cqrs_es.z', 'VACUUM FULL cqrs_es.events', 'CLUSTER cqrs_es.events USING events_pkey', 'REINDEX TABLE cqrs_es.events', 'CREATE UNIQUE INDEX z ON cqrs_es.events (event_id)', 'CREATE INDEX z ON cqrs_es.events USING hash (event_id)',
	'CREATE INDEX z ON cqrs_es.events ((payload->>0), global_position)', 'CREATE INDEX z ON cqrs_es.events (global_position) WHERE event_type = \'e\'', 'DROP INDEX cqrs_es.events_global_position_idx; CREATE INDEX events_global_position_idx ON cqrs_es.events (global_position)',
	'CREATE STATISTICS z ON aggregate_type, event_type FROM cqrs_es.events', 'CREATE POLICY z ON cqrs_es.events USING (true)', 'DROP POLICY z ON cqrs_es.events', 'CREATE RULE z AS ON INSERT TO cqrs_es.events DO ALSO NOTHING',
	'CREATE TRIGGER z AFTER INSERT ON cqrs_es.events REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION noted()', 'CREATE TRIGGER z BEFORE INSERT ON cqrs_es.events FOR EACH ROW EXECUTE FUNCTION noted()', 'DROP TRIGGER z ON cqrs_es.events',
	'ALTER TABLE cqrs_es.events ALTER payload SET STORAGE EXTERNAL', 'ALTER TABLE cqrs_es.events RENAME TO z; ALTER TABLE cqrs_es.z RENAME TO events', 'ALTER SCHEMA cqrs_es RENAME TO z', 'ALTER TABLE cqrs_es.events ALTER payload TYPE text; ALTER TABLE cqrs_es.events ALTER payload TYPE jsonb USING payload::jsonb', 'CREATE TABLE child () INHERITS (cqrs_es.events)', 'ALTER EXTENSION cqrs_es DROP TABLE cqrs_es.reducers; ALTER EXTENSION cqrs_es ADD TABLE cqrs_es.reducers');

sub statement
{
	my $chance = rand;
	return call() if $chance < 0.86;
	if ($chance < 0.90)
	{
		my ($name, $type) = @{ one_of(@settings) };
		return one_of("SET $name = " . ($type eq 'bool' ? one_of('on', 'off') : $type eq 'integer' ? one_of(0, 1, 5, 100) : one_of(q{''}, q{'x'}, q{'{"user": "u"}'}, q('{'), q{'null'}, q{'[]'})),
			"RESET $name", "RESET $name", "RESET $name");
	}
	return one_of('RESET ALL', 'DISCARD ALL', 'DISCARD PLANS', 'SET work_mem = \'64kB\'', 'SET enable_indexscan = off', 'SET enable_seqscan = off', 'SET plan_cache_mode = force_generic_plan', 'SET search_path = cqrs_es',
		'SET enable_bitmapscan = off; SET enable_indexscan = off', 'SET default_tablespace = \'nowhere\'', 'SET row_security = off', 'SET TimeZone = \'Asia/Kathmandu\'', 'SET datestyle = \'SQL, DMY\'') if $chance < 0.92;
	return 'SELECT * FROM ' . one_of(@relations) . ' LIMIT ' . one_of(1, 100) if $chance < 0.95;
	return on_strange_table() if $chance < 0.96;
	return one_of(@shapes) if $chance < 0.97;
	return one_of("UPDATE cqrs_es.events SET payload = '{}'", 'DELETE FROM cqrs_es.events', 'TRUNCATE cqrs_es.events',
		'INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES (' . join(', ', map { value_of($_) } qw(text text text jsonb)) . ')',
		'INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload, sequence, created_at, metadata) VALUES (' . join(', ', (map { value_of($_) } qw(text text text jsonb bigint)), value_of('timestamp with time zone'), value_of('jsonb')) . ')',
		q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) SELECT 'a', i::text, 'e', '{"n": 1}' FROM generate_series(1, 50) AS i},
		'DELETE FROM cqrs_es.snapshots', 'DELETE FROM cqrs_es.received_messages', q{INSERT INTO rows VALUES ('x', 1)}, 'TRUNCATE rows, states', 'VACUUM cqrs_es.shares', 'ANALYZE');
}

# --- a round

sub play
{
	my ($round) = @_;
	my $session;

	srand($round);
	foreach my $number (1 .. $calls)
	{
		if (!$session || !$session->{socket})
		{
			$session = Session->new($node->host, $node->port, $user, 'fuzz') or return;
			$session->try('SET client_min_messages = error');
		}
		my $mode = rand;
		my $role = rand() < 0.2 ? one_of('plain', 'owner') : undef;
		$session->try("SET ROLE $role") if $role;
		if ($mode < 0.5) { $session->try(statement()) }
		else
		{
			$session->try('BEGIN ' . one_of('', '', '', 'READ ONLY', 'ISOLATION LEVEL REPEATABLE READ', 'ISOLATION LEVEL SERIALIZABLE', 'ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE'));
			foreach my $inner (1 .. 1 + int rand 4)
			{
				my $savepoint = rand() < 0.6;
				$session->try('SAVEPOINT a') if $savepoint;
				$session->try(statement());
				last if !$session->{socket};
				last if $session->{transaction} eq 'E' && !$savepoint;
				$session->try(one_of('ROLLBACK TO a', $session->{transaction} eq 'E' ? 'ROLLBACK TO a' : 'RELEASE a')) if $savepoint && $session->{transaction} ne 'I';
			}
			my $end = one_of('COMMIT', 'COMMIT', 'COMMIT AND CHAIN', 'ROLLBACK', "PREPARE TRANSACTION 'x'");
			$session->try($end) if $session->{socket};
			$session->try(one_of('COMMIT', 'ROLLBACK') . " PREPARED 'x'") if $session->{socket} && $end =~ /PREPARE/;
		}
		$session->try('ROLLBACK') if $session->{socket} && $session->{transaction} ne 'I';
		$session->try('RESET ROLE') if $role && $session->{socket};
		$session->close if $session->{socket} && rand() < 0.005;
	}
	$session->close if $session;
	return;
}

# What must hold then.
my @invariants = (
	[ 'the log is whole', q{SELECT item, found, problem FROM cqrs_es.verify_log() WHERE problem IS NOT NULL AND item NOT IN ('missing objects', 'read models made anew')} ],
	[ 'states are those of a replay without snapshots', q{SELECT a, i, t, pg_temp.state(a, i, t, false), pg_temp.state(a, i, t, true) FROM (SELECT DISTINCT e.aggregate_type, e.aggregate_id, e.tenant_id FROM cqrs_es.events AS e) AS s (a, i, t)
		WHERE EXISTS (SELECT FROM cqrs_es.aggregates WHERE aggregate_type = a) AND pg_temp.state(a, i, t, false) IS DISTINCT FROM pg_temp.state(a, i, t, true)} ],
	[ 'a read table is what the log says', q{SELECT * FROM kept_rows AS k FULL JOIN (SELECT aggregate_type, aggregate_id, tenant_id, count(*) AS n FROM cqrs_es.events GROUP BY 1, 2, 3) AS e
		USING (aggregate_type, aggregate_id, tenant_id) WHERE k.events IS DISTINCT FROM n} ],
	[ 'and what a rebuild makes of it', 'SELECT * FROM pg_temp.rebuilt()' ]);

sub holds
{
	my $session = Session->new($node->host, $node->port, $user, 'fuzz');
	$session->ask(q{SET client_min_messages = error;
		SET statement_timeout = 0;
		CREATE FUNCTION pg_temp.state(a text, i text, t text, anew boolean) RETURNS text LANGUAGE plpgsql AS $$
		DECLARE result text;
		BEGIN
			PERFORM set_config('cqrs_es.tenant_id', t, true);
			IF anew THEN DELETE FROM cqrs_es.snapshots; END IF;
			result := cqrs_es.aggregate_state(a, i);
			RAISE EXCEPTION USING ERRCODE = 'P0042';
		EXCEPTION WHEN SQLSTATE 'P0042' THEN RETURN result; WHEN OTHERS THEN RETURN SQLSTATE || SQLERRM;
		END $$;
		CREATE FUNCTION pg_temp.rebuilt() RETURNS SETOF text LANGUAGE plpgsql AS $$
		DECLARE before text := (SELECT array_agg(k ORDER BY k) FROM kept_rows AS k);
		BEGIN
			PERFORM cqrs_es.rebuild_projection('kept');
			RETURN QUERY SELECT 'before: ' || before || ' after: ' || after FROM (SELECT array_agg(k ORDER BY k)::text FROM kept_rows AS k) AS r (after)
				WHERE after IS DISTINCT FROM before;
		END $$});
	my @wrong;
	foreach (@invariants)
	{
		my ($what, $query) = @$_;
		my ($rows) = $session->try($query);
		push @wrong, "$what: $session->{state} $session->{message} " . join '; ', map { join ' | ', map { $_ // 'null' } @$_ } @{ $rows // [] } if $session->{state} || @{ $rows // [] };
	}
	$session->close;
	return @wrong;
}

sub faults_since
{
	my ($from, %may) = @_;
	$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
	return Faults::in_log(substr(slurp_file($node->logfile), $from), %may);
}

my $share = $seconds / (scalar keys %parts);
if ($parts{calls})
{
	my ($played, @failed) = (0);
	my $deadline = time + $share;
	while ($played < $rounds && time < $deadline && @failed < 3)
	{
		my $round = $seed + $played++;
		my $from = -s $node->logfile;
		$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS fuzz WITH (FORCE)');
		$node->safe_psql('postgres', 'CREATE DATABASE fuzz TEMPLATE world STRATEGY file_copy');
		$node->safe_psql('postgres', 'ALTER DATABASE fuzz SET statement_timeout = 150');	# RESET does not take it away
		play($round);
		$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
		my @wrong = (holds(), faults_since($from));
		push @failed, "CQRS_ES_FUZZ_SEED=$round CQRS_ES_FUZZ_ROUNDS=1:\n" . join("\n", @wrong) if @wrong;
	}
	is(join("\n", @failed), '', "calls: $played rounds from CQRS_ES_FUZZ_SEED=$seed");
	my %states;
	$states{$_}++ foreach slurp_file($node->logfile) =~ / ERROR:  (\w{5}):/g;
	note("errors: " . join ' ', map { "$_ $states{$_}" } sort keys %states);
	$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS fuzz WITH (FORCE)');
}

# --- sqlsmith, as a role that owns nothing of the server
SKIP:
{
	skip 'sqlsmith: not asked for', 1 if !$parts{sqlsmith};
	skip 'sqlsmith is not installed (Debian: sqlsmith)', 1 if !eval { IPC::Run::run([ 'sqlsmith', '--version' ], '<', \undef, '>&', \my $output) };
	$node->safe_psql('world', 'GRANT ALL ON ALL TABLES IN SCHEMA cqrs_es, public TO owner; GRANT CREATE ON SCHEMA public TO owner; ALTER ROLE owner LOGIN; ALTER ROLE owner SET cqrs_es.settle_timeout = 10');
	my $from = -s $node->logfile;
	my $output = '';
	IPC::Run::run([ 'timeout', int $share + 1, 'sqlsmith', '--target=host=' . $node->host . ' port=' . $node->port . ' dbname=world user=owner', "--seed=$seed", '--exclude-catalog', '--verbose' ],
		'<', \undef, '>&', \$output);
	my $queries = () = ($output =~ s/.*indexes\.\.\.done\.//sr) =~ /^[.a-zA-Z]+$/mg;
	cmp_ok($queries, '>', 0, "sqlsmith --seed=$seed has made lines of queries: $queries") or diag($output);
	# what the server says to queries of the server's own functions is not ours
	is(join("\n", faults_since($from, server => 1)), '', 'sqlsmith: no internal error of ours, no crash, nothing left over');
}

# --- libFuzzer
SKIP:
{
	skip 'json: not asked for', 1 if !$parts{json};
	my $directory = PostgreSQL::Test::Utils::tempdir();
	my ($clang) = grep { eval { IPC::Run::run([ $_, '--version' ], '<', \undef, '>&', \my $output) } } 'clang', map { "clang-$_" } reverse 14 .. 21;
	skip 'clang is not installed', 1 if !$clang;
	chomp(my $machine = `uname -m`);
	my ($fuzzer) = grep { m{^/} } map { chomp(my $found = `$clang -print-file-name=$_`); $found } "libclang_rt.fuzzer_no_main-$machine.a", 'libclang_rt.fuzzer_no_main.a';
	skip 'clang has no libFuzzer (Debian: libclang-rt-dev)', 1 if !$fuzzer;
	chomp(my $include = `$ENV{PG_CONFIG} --includedir-server`);
	my @sources = map { "$ENV{TESTDIR}/$_" } 'test/fuzz/json_fuzz.c', 'src/aggregate/json_tree.c', 'src/aggregate/reducer_program.c', 'src/log/event_columns.c';
	my $built = IPC::Run::run([ $clang, qw(-std=gnu99 -O1 -g -fPIC -shared -Wl,-Bsymbolic -fno-strict-aliasing -fwrapv -fsanitize=fuzzer-no-link -D_GNU_SOURCE), "-I$include", "-I$ENV{TESTDIR}/src",
			'-DCQRS_ES_VERSION="fuzz"', '-o', "$directory/json_fuzz.so", @sources, $fuzzer, qw(-lstdc++ -lm -lpthread) ], '<', \undef, '>&', \my $output);
	ok($built, 'json: built') or diag($output), last SKIP;

	my $from = -s $node->logfile;
	mkdir "$directory/corpus";
	my $options = join ', ', map { "'$_'" } $ENV{CQRS_ES_FUZZ_INPUT} // ("$directory/corpus/", '-max_total_time=' . int($share), "-seed=$seed", '-max_len=512'),
	  qw(-handle_int=0 -handle_term=0 -timeout=1000 -rss_limit_mb=0 -detect_leaks=0 -print_final_stats=1), "-artifact_prefix=" . ($ENV{CQRS_ES_FUZZ_ARTIFACTS} // $node->basedir) . '/';
	$node->psql('postgres', "CREATE FUNCTION json_fuzz(text[]) RETURNS void LANGUAGE c STRICT AS '$directory/json_fuzz.so'; SELECT json_fuzz(ARRAY[$options])");
	$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
	my $said = substr slurp_file($node->logfile), $from;
	my ($units) = $said =~ /stat::number_of_executed_units: (\d+)/;
	my ($covered) = $said =~ /.*cov: (\d+)/s;
	cmp_ok($units // 0, '>', $ENV{CQRS_ES_FUZZ_INPUT} ? 0 : 1000, 'json: -seed=' . $seed . ' has played ' . ($units // 'no') . ' documents, ' . ($covered // 'no') . ' edges covered');
	is(join("\n", $said =~ /^(?:json_fuzz: |.*libFuzzer: |artifact_prefix).*$/mg, Faults::in_log($said)), '', 'json: trees and programs do what they promise');
}

$node->stop;
done_testing();
