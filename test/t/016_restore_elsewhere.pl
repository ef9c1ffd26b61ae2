# A dump is restored where something is missing that declarations name: a definer's
# or an owner's role, a read model, a function, a schema. That costs what names it
# and nothing else, and is told. And what a dump writes is names, whatever has been
# renamed or dropped.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('here');
$node->init;
$node->start;
my $elsewhere = PostgreSQL::Test::Cluster->new('elsewhere');
$elsewhere->init;
$elsewhere->start;
my $dir = PostgreSQL::Test::Utils::tempdir();

# Names as bad as can be, and renamed since: "Ada" was a role of another name.
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE ROLE was_ada;
	CREATE ROLE bob;
	CREATE SCHEMA old_app;
	CREATE SCHEMA reporting;
	GRANT ALL ON SCHEMA old_app, reporting, public TO was_ada, bob;
	GRANT USAGE ON SCHEMA cqrs_es TO was_ada, bob;
	GRANT SELECT, INSERT ON cqrs_es.events TO was_ada, bob;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cqrs_es TO was_ada, bob;
	SELECT cqrs_es.create_aggregate('account');
	SET SESSION AUTHORIZATION was_ada;
	CREATE TABLE old_app.was_balances (id text PRIMARY KEY, n int);
	SELECT cqrs_es.create_projection('ada balances', read_models => '{old_app.was_balances}');
	SELECT cqrs_es.define_handler('ada balances', 'e', 'INSERT INTO old_app.was_balances VALUES (event.aggregate_id, 1) ON CONFLICT (id) DO UPDATE SET n = was_balances.n + 1');
	CREATE TABLE old_app.ada_states (view_id text PRIMARY KEY, version bigint NOT NULL, payload jsonb NOT NULL);
	SELECT cqrs_es.create_projection('ada states', state_of => 'account', read_models => '{old_app.ada_states}');
	SELECT cqrs_es.define_command('account', 'Ada', $$'{"type": "e", "payload": {"by": "ada"}}'::jsonb$$);
	SET SESSION AUTHORIZATION bob;
	CREATE TABLE reporting.totals (n int);
	CREATE TABLE reporting."More, ""totals""" (n int);
	CREATE FUNCTION reporting.reduce(state jsonb, event cqrs_es.event) RETURNS jsonb LANGUAGE sql AS $$ SELECT state || event.payload $$;
	CREATE FUNCTION reporting.note(event cqrs_es.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO reporting.totals VALUES (2) $$;
	CREATE FUNCTION reporting.up(payload jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT payload $$;
	SELECT cqrs_es.create_projection('bob totals', '{account}', ARRAY['reporting.totals', 'reporting."More, ""totals"""']::regclass[]);
	SELECT cqrs_es.define_handler('bob totals', 'e', 'INSERT INTO reporting.totals VALUES (1)');
	SELECT cqrs_es.create_projection('bob notes', '{account}');
	SELECT cqrs_es.define_handler('bob notes', 'noted', 'reporting.note(cqrs_es.event)');
	SELECT cqrs_es.define_reducer('account', 'reduced', 'reporting.reduce(jsonb, cqrs_es.event)');
	SELECT cqrs_es.define_upcaster('lifted', '1', '2', 'reporting.up(jsonb)');
	SELECT cqrs_es.define_command('account', 'Bob', $$'{"type": "e", "payload": {"by": "bob"}}'::jsonb$$);
	CREATE TABLE public.plain (n int);
	SELECT cqrs_es.create_projection('bob plain', '{other}', '{plain}');
	SELECT cqrs_es.define_handler('bob plain', 'e', 'INSERT INTO public.plain VALUES (1)');
	RESET SESSION AUTHORIZATION;
	SELECT cqrs_es.append_event('account', '1', 'e', '{}');
	SELECT cqrs_es.append_event('other', '1', 'e', '{}');
	SELECT cqrs_es.pause_projection('bob plain');
	ALTER ROLE was_ada RENAME TO "Ada, the ""first""";
	ALTER SCHEMA old_app RENAME TO "app ""of"" mine";
	ALTER TABLE "app ""of"" mine".was_balances RENAME TO "ba,lances";
	SET SESSION AUTHORIZATION "Ada, the ""first""";
	SELECT cqrs_es.define_handler('ada balances', 'e', 'INSERT INTO "app ""of"" mine"."ba,lances" AS b VALUES (event.aggregate_id, 1) ON CONFLICT (id) DO UPDATE SET n = b.n + 1');
});
my $ada = q{"Ada, the ""first"""};
my $ada_name = q{Ada, the "first"};
my $balances = q{"app ""of"" mine"."ba,lances"};

# All declarations with names in place of oids.
my $declarations = q{
	SELECT 'handler', concat_ws('|', projection, event_type, coalesce(statement, function), definer::text) FROM cqrs_es.handlers
	UNION ALL SELECT 'projection', concat_ws('|', name, aggregate_types::text, read_models::text, owner::text, state_of, paused) FROM cqrs_es.projections
	UNION ALL SELECT 'command', concat_ws('|', command_type, decider, definer::text) FROM cqrs_es.commands
	UNION ALL SELECT 'reducer', concat_ws('|', event_type, function) FROM cqrs_es.reducers
	UNION ALL SELECT 'upcaster', concat_ws('|', event_type, function) FROM cqrs_es.upcasters ORDER BY 1, 2};
my $original = $node->safe_psql('postgres', $declarations);
my $rows = () = $original =~ /\n/g;

sub dump_to
{
	my ($name, @options) = @_;
	$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', "$dir/$name", '--no-sync', @options ], "pg_dump @options");
}

# Restore into a new database; returns it and what was said.
my $count = 0;
sub restore
{
	my ($server, @command) = @_;
	my $database = 'db' . ++$count;

	$server->safe_psql('postgres', "CREATE DATABASE $database");
	my ($stdout, $stderr) = run_command([ @command, '-d', $server->connstr($database) ]);
	return ($database, $stderr);
}

# The error of a statement.
sub error_of
{
	my ($server, $database, $sql) = @_;
	my ($status, $stdout, $stderr) = $server->psql($database, $sql);
	return $stderr;
}

my $append = q{SELECT version FROM cqrs_es.append_event('account', '1', 'e', '{}')};
my $append_other = q{SELECT version FROM cqrs_es.append_event('other', '1', 'e', '{}')};

dump_to('plain.sql');
dump_to('custom', '-Fc');
dump_to('directory', '-Fd');
dump_to('inserts.sql', '--inserts', '--quote-all-identifiers');
dump_to('columns.sql', '--column-inserts');
my @ways = (
	[ '--no-owner --no-privileges', 'pg_restore', '--no-owner', '--no-privileges', "$dir/custom" ],
	[ 'plain', 'psql', '-Xq', '-f', "$dir/plain.sql" ],
	[ '--inserts', 'psql', '-Xq', '-f', "$dir/inserts.sql" ],
	[ '--column-inserts', 'psql', '-Xq', '-f', "$dir/columns.sql" ],
	[ 'custom', 'pg_restore', "$dir/custom" ],
	[ 'parallel', 'pg_restore', '-j', '2', "$dir/directory" ]);

#
# Where everything is there
#
foreach my $way (@ways)
{
	my ($how, @command) = @$way;
	my ($database, $said) = restore($node, @command);

	is($node->safe_psql($database, $declarations), $original, "$how: all declarations, of what has been renamed");
	unlike($said, qr/WARNING/, "$how: no warning");
	is($node->safe_psql($database, $append), '2', "$how: appends go on") if $how !~ /no-owner/;
}

#
# Without a role
#
$elsewhere->safe_psql('postgres', 'CREATE ROLE bob');
my ($database, %databases);
my $missing = join("\n", map { "$_|role|$ada" } ('commands|account, Ada', 'handlers|ada balances, e', 'projections|ada balances', 'projections|ada states'));
foreach my $way (@ways)
{
	my ($how, @command) = @$way;
	my $said;

	($database, $said) = restore($elsewhere, @command);
	my $expected = $original =~ s/\|\Q$ada\E//gr;
	is($elsewhere->safe_psql($database, $declarations), $expected, "$how: without a role, all rows are there");
	# pg_restore keeps what the server says to itself, but for --verbose
	if ($command[0] eq 'psql')
	{
		my $warnings = () = $said =~ /WARNING:  role "\Q$ada_name\E" does not exist/g;
		is($warnings, 4, "$how: each row that names it is told");
		like($said, qr/DETAIL:  Row \(ada balances, e\) of table cqrs_es\.handlers names it, and will fail until it exists\./, "$how: with its key");
	}
	is($elsewhere->safe_psql($database, q{SELECT * FROM cqrs_es.missing_objects ORDER BY 1, 2}), $missing, "$how: and shown");
	$databases{$how} = $database;
}
# (where one role is missing, pg_restore does not grant to the others either)
$database = $databases{plain};
my $owner_missing = qq(role "$ada_name", which owns the projection, does not exist (SQLSTATE 42704));
my $definer_missing = qq(role "$ada_name", which defined the handler, does not exist (SQLSTATE 42704));
is($elsewhere->safe_psql($database, q{SELECT name, e FROM cqrs_es.projection_status, unnest(errors) WITH ORDINALITY AS u (e, n) ORDER BY name, n}),
	"ada balances|$owner_missing\nada balances|$definer_missing\nada states|$owner_missing\nada states|$definer_missing",
	'the status names the role that is missing');
like(error_of($elsewhere, $database, "\\set VERBOSITY verbose\n$append"),
	qr/ERROR:  QE201: .*"ada balances" failed.*\nDETAIL:  role "\Q$ada_name\E", which defined the handler, does not exist \(SQLSTATE 42704\)/, 'an append that concerns it fails, and says why');
is($elsewhere->safe_psql($database, q{SELECT version FROM cqrs_es.append_event('third', '1', 'f', '{}')}), '1', 'others do not');
like(error_of($elsewhere, $database, q{SELECT cqrs_es.execute_command('account', '2', 'Ada')}),
	qr/ERROR:  role "\Q$ada_name\E", which defined the command, does not exist/, 'a command of that role fails');
like(error_of($elsewhere, $database, q{SELECT cqrs_es.rebuild_projection('ada balances')}),
	qr/ERROR:  role "\Q$ada_name\E", which owns the projection, does not exist/, 'and a rebuild');
$elsewhere->command_ok([ 'pg_dump', '-d', $elsewhere->connstr($database), '-f', "$dir/second.sql" ], 'dumped again without the role');
like(slurp_file("$dir/second.sql"), qr/\Q$ada_name\E/, 'its name is still there');
is($elsewhere->safe_psql($database, q{SELECT cqrs_es.pause_projection('ada balances'), cqrs_es.drop_projection('ada states')}), '|', 'pause and drop are possible');
is($elsewhere->safe_psql($database, q{SELECT version FROM cqrs_es.execute_command('account', '1', 'Bob')}), '2', 'and then appends are, with the command of somebody else');
$elsewhere->safe_psql($database, "CREATE ROLE $ada; GRANT ALL ON SCHEMA \"app \"\"of\"\" mine\" TO $ada; GRANT ALL ON $balances TO $ada; GRANT USAGE ON SCHEMA cqrs_es TO $ada");
is($elsewhere->safe_psql($database, qq{SELECT cqrs_es.resume_projection('ada balances'); $append; SELECT n FROM $balances; SELECT owner FROM cqrs_es.projection_status WHERE name = 'ada balances'}),
	qq(1\n3\n4\n$ada), 'when the role is there, it goes on');
is($elsewhere->safe_psql($database, q{SELECT errors IS NULL FROM cqrs_es.projection_status WHERE name = 'ada balances'}), 't', 'and nothing is wrong');

#
# Without a read model, without a schema with tables and functions
#
dump_to('without.sql', '-T', $balances, '-T', 'plain');
my $said;
($database, $said) = restore($node, 'psql', '-Xq', '-f', "$dir/without.sql");
is($node->safe_psql($database, $declarations), $original =~ s/\{"\\"app.*?\}/{-}/r =~ s/\{plain\}/{-}/r, 'without read models, all rows are there');
like($said, qr/WARNING:  read model \Q$balances\E does not exist\nDETAIL:  Row \(ada balances\) of table cqrs_es.projections/, 'it is told');
like($said, qr/WARNING:  read model public.plain does not exist/, 'of both');
like(error_of($node, $database, $append), qr/ERROR:  projection "ada balances" failed .*\nDETAIL:  read model \Q$balances\E does not exist \(SQLSTATE 42P01\)\nHINT:  Create it and rebuild/, 'appends that concern it fail, and say why');
is($node->safe_psql($database, $append_other =~ s/other/third/r =~ s/'e'/'f'/r), '1', 'others do not');
is($node->safe_psql($database, qq{SELECT name, errors[1] FROM cqrs_es.projection_status WHERE errors IS NOT NULL ORDER BY name}),
	qq(ada balances|read model $balances does not exist (SQLSTATE 42P01)\nbob plain|read model public.plain does not exist (SQLSTATE 42P01)), 'the status says it');
like(error_of($node, $database, q{SELECT cqrs_es.rebuild_projection('ada balances')}), qr/ERROR:  read model \Q$balances\E of projection "ada balances" does not exist/, 'it cannot be rebuilt');
$node->command_ok([ 'pg_dump', '-d', $node->connstr($database), '-f', "$dir/second.sql" ], 'dumped again without read models');
like(slurp_file("$dir/second.sql"), qr/^ada balances\t.*ba,lances/m, 'its name is still there');
my $session = $node->background_psql($database, on_error_stop => 0);
$session->query($append);
$node->safe_psql($database, "CREATE TABLE $balances (id text PRIMARY KEY, n int); ALTER TABLE $balances OWNER TO $ada; CREATE TABLE plain (n int); ALTER TABLE plain OWNER TO bob");
is($session->query($append), '2', 'made anew, a session that had failed goes on') or diag($session->{stderr});
is($node->safe_psql($database, qq{SELECT cqrs_es.rebuild_projection('ada balances'); SELECT n FROM $balances; SELECT read_models FROM cqrs_es.projections WHERE name = 'ada balances'}),
	qq(3\n3\n{$balances}) =~ s/\{.*\}/$original =~ m{ada balances\|(\{.*?\})\|} ? $1 : die/er, 'and it is rebuilt');
# (a paused one, in a session that knows it as one whose table is missing)
$session->query($append_other);
is($session->query(q{BEGIN; SELECT version FROM cqrs_es.append_event('other', '1', 'e', '{}')}), '3', 'an append under way');
my $resume = $node->background_psql($database);
$resume->query_until(qr/begun/, "\\echo begun\nSELECT cqrs_es.resume_projection('bob plain');\n");
$node->poll_query_until($database, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%resume_projection%' AND pid <> pg_backend_pid() AND wait_event_type = 'Lock'})
  or die 'resume_projection does not wait';
$session->query('COMMIT');
$resume->quit;
is($node->safe_psql($database, q{SELECT count(*) FROM plain}), '2', 'is waited for by the resume');
$session->quit;

dump_to('without_schema.sql', '-N', 'reporting');
($database, $said) = restore($node, 'psql', '-Xq', '-f', "$dir/without_schema.sql");
is($node->safe_psql($database, $declarations), $original =~ s/\{reporting\..*?\}/{-,-}/r, 'without a schema, all rows are there');
like($said, qr/WARNING:  \Q$_\E does not exist/, "told: $_")
  foreach ('read model reporting.totals', 'read model reporting."More, ""totals"""', 'function reporting.reduce(pg_catalog.jsonb,cqrs_es.event)',
	'function reporting.note(cqrs_es.event)', 'function reporting.up(pg_catalog.jsonb)');
is($node->safe_psql($database, q{SELECT registry, declaration, object_type, object_name FROM cqrs_es.missing_objects ORDER BY 1, 2, 4}),
	join("\n", 'handlers|bob notes, noted|function|reporting.note(cqrs_es.event)', 'projections|bob totals|table|reporting."More, ""totals"""',
		'projections|bob totals|table|reporting.totals', 'reducers|account, reduced|function|reporting.reduce(pg_catalog.jsonb,cqrs_es.event)',
		'upcasters|lifted, 1|function|reporting.up(pg_catalog.jsonb)'), 'and shown');
like(error_of($node, $database, $append), qr/projection "bob totals" failed .*\nDETAIL:  read model reporting.totals does not exist/, 'each fails where it is needed');
like(error_of($node, $database, q{SELECT cqrs_es.append_event('account', '1', 'noted', '{}')}), qr/"reporting" does not exist|reporting.note.* does not exist/, 'a handler');
is($node->safe_psql($database, qq{SELECT cqrs_es.drop_projection('bob totals'); $append; SELECT n FROM $balances}), "\n2\n3", 'the rest goes on');

#
# Data alone, with and without triggers, of one schema and single tables
#
dump_to('data.sql', '-a');
dump_to('data_disabled.sql', '-a', '--disable-triggers');
dump_to('schema_only.sql', '-s');
dump_to('tables.sql', '-t', 'cqrs_es.*');
dump_to('registries.sql', '-t', 'cqrs_es.aggregates', '-t', 'cqrs_es.projections', '-t', 'cqrs_es.handlers', '-t', 'cqrs_es.commands', '-t', 'cqrs_es.reducers', '-t', 'cqrs_es.upcasters');
foreach my $file ('data.sql', 'data_disabled.sql', 'tables.sql', 'registries.sql')
{
	($database, $said) = restore($node, 'psql', '-Xq', '-f', "$dir/schema_only.sql");
	my ($stdout, $stderr) = run_command([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-f', "$dir/$file" ]);
	is($stderr, '', "$file: nothing said");
	is($node->safe_psql($database, $declarations =~ s/cqrs_es.projections/cqrs_es.projection_status/r =~ s/, paused/, state = 'paused'/r
			=~ s/definer::text/(SELECT quote_ident(definer_name))/gr), $original, "$file: all declarations");
	my $versions = $file eq 'registries.sql' ? '1' : '2';
	is($node->safe_psql($database, $append), $versions, "$file: appends go on");
	$node->safe_psql($database, q{SELECT cqrs_es.resume_projection('bob plain')});
	is($node->safe_psql($database, $declarations), $original =~ s/\|t$/|f/mr, "$file: and it is as it was") if $file ne 'data_disabled.sql';
}

#
# What is dropped while the database lives
#
($database, $said) = restore($node, 'psql', '-Xq', '-f', "$dir/plain.sql");
foreach my $drop ("DROP TABLE $balances", "DROP TABLE $balances CASCADE", 'DROP TABLE reporting."More, ""totals"""', 'DROP SCHEMA reporting CASCADE', 'DROP OWNED BY bob CASCADE', 'DROP TABLE plain')
{
	my ($status, $stdout, $stderr) = $node->psql($database, "\\set VERBOSITY verbose\n$drop", on_error_stop => 0);
	like($stderr, qr/ERROR:  2BP01: cannot drop (table .* because a projection keeps it|function)/, "refused: $drop");
}
is($node->safe_psql($database, qq{CREATE TABLE unused (n int); DROP TABLE unused; SELECT cqrs_es.drop_projection('bob plain'); DROP TABLE plain; SELECT 'gone'}), "\ngone", 'a table that none keeps is dropped');
# in force: what is dumped is a name all the same, and another table of that name takes its place
$node->safe_psql($database, qq{SET session_replication_role = replica; DROP TABLE $balances});
$node->command_ok([ 'pg_dump', '-d', $node->connstr($database), '-f', "$dir/gone.sql" ], 'dumped without its table');
like(slurp_file("$dir/gone.sql"), qr/^ada balances\t.*ba,lances/m, 'by its name');
is($node->safe_psql($database, qq{CREATE TABLE $balances (id text PRIMARY KEY, n int); GRANT ALL ON $balances TO $ada; SELECT cqrs_es.rebuild_projection('ada balances'); $append; SELECT n FROM $balances WHERE id = '1'}),
	"2\n2\n3", 'a new table takes its place');

# A role that is dropped: its definitions fail, and are dumped by its name; a new role of that name does not get them.
$node->safe_psql('postgres', 'CREATE ROLE leaver; CREATE DATABASE leaving');
$node->safe_psql('leaving', q{
	CREATE EXTENSION cqrs_es;
	SELECT cqrs_es.create_aggregate('a');
	GRANT USAGE ON SCHEMA cqrs_es TO leaver; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cqrs_es TO leaver;
	SET SESSION AUTHORIZATION leaver;
	SELECT cqrs_es.define_command('a', 'Go', $$'{"type": "e", "payload": {}}'::jsonb$$);
	RESET SESSION AUTHORIZATION;
	DROP OWNED BY leaver;
	ALTER ROLE leaver RENAME TO left_long_ago;
	UPDATE cqrs_es.commands SET decider = decider;
	DROP ROLE left_long_ago;
});
like(error_of($node, 'leaving', q{SELECT cqrs_es.execute_command('a', '1', 'Go')}), qr/ERROR:  role "left_long_ago", which defined the command, does not exist/, 'a role that is gone is named');
$node->command_ok([ 'pg_dump', '-d', $node->connstr('leaving'), '-f', "$dir/leaving.sql" ], 'dumped without the role');
like(slurp_file("$dir/leaving.sql"), qr/^a\tGo\t.*\t\\N\tleft_long_ago\t/m, 'by its name, not by a number');
$node->safe_psql('postgres', 'CREATE ROLE left_long_ago SUPERUSER');
like(error_of($node, 'leaving', q{SELECT cqrs_es.execute_command('a', '1', 'Go')}), qr/ERROR:  role "left_long_ago", which defined the command, does not exist/, 'a new role of that name does not inherit');

$node->stop;
$elsewhere->stop;
done_testing();
