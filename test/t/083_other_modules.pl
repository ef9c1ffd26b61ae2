# Modules that were loaded before ours go on to be told of what happens: of analyzed queries, as
# pg_stat_statements wants to be, of objects that are made, and of calls in PL/pgSQL, as debuggers
# and profilers do, whom PL/pgSQL has to serve. And of the ten places that a process has for callbacks of its
# relation cache, of which the server takes two, we take no more than one.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my $directory = PostgreSQL::Test::Utils::tempdir();
my ($headers) = run_command([ $pg_config, '--includedir-server' ]);
append_to_file("$directory/other.c", <<'C');
#include "postgres.h"
#include "catalog/objectaccess.h"
#include "fmgr.h"
#include "parser/analyze.h"
#include "plpgsql.h"
#include "utils/inval.h"

PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);
static PLpgSQL_plugin plugin;

static void
called(PLpgSQL_execstate *estate, PLpgSQL_function *function)
{
	ereport(LOG, (errmsg("told of a call of %s, %s", function->fn_signature,
						 plugin.error_callback && plugin.assign_expr && plugin.eval_datum ? "served" : "not served"), errhidestmt(true)));
}

static void
analyzed(ParseState *pstate, Query *query, JumbleState *jstate)
{
	ereport(LOG, (errmsg("told of a query: %s", pstate->p_sourcetext), errhidestmt(true)));
}

static void
touched(ObjectAccessType access, Oid class, Oid object, int subobject, void *arg)
{
	if (access == OAT_POST_CREATE && subobject == 0)
		ereport(LOG, (errmsg("told of a new object"), errhidestmt(true)));
}

static void
changed(Datum arg, Oid relation)
{
}

void
_PG_init(void)
{
	for (int i = 0; i < 7; i++)
		CacheRegisterRelcacheCallback(changed, (Datum) 0);
	plugin.func_setup = called;
	*(PLpgSQL_plugin **) find_rendezvous_variable("PLpgSQL_plugin") = &plugin;
	post_parse_analyze_hook = analyzed;
	object_access_hook = touched;
}
C
my $made = `cd '$directory' && gcc -shared -fPIC -I'$headers' -o other.so other.c 2>&1`;
is($?, 0, 'another module') or diag($made);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "session_preload_libraries = '$directory/other.so'\nlog_statement = none\n");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE notes (note text);
	CREATE FUNCTION note(event cqrs_es.event) RETURNS text LANGUAGE plpgsql AS $$ DECLARE note text; BEGIN note := event.payload->>'note'; RETURN note; END $$;
	SELECT cqrs_es.create_projection('noted', '{a}', '{notes}');
	SELECT cqrs_es.define_handler('noted', 'e', 'INSERT INTO notes VALUES (note(event))');
});
my $from = -s $node->logfile;
is($node->safe_psql('postgres', q{
	SELECT version FROM cqrs_es.append_event('a', '1', 'e', '{"note": "first"}');
	SELECT version FROM cqrs_es.append_event('a', '1', 'e', '{"note": "second"}');
	CREATE TABLE made (id int);
	SELECT string_agg(note, ' ' ORDER BY note) FROM notes
}), "1\n2\nfirst second", 'our module works beside it');
my $log = slurp_file($node->logfile, $from);
is(scalar(() = $log =~ /told of a call of note\(\S+\), served$/mg), 2, 'it is told of each call of a function, and served');
unlike($log, qr/not served/, 'in full');
like($log, qr/told of a query: SELECT string_agg/, 'of what the client sends');
like($log, qr/told of a query: INSERT INTO notes VALUES \(note\(event\)\)/, 'of what a definer wrote');
like($log, qr/told of a new object/, 'and of what is made');
done_testing();
