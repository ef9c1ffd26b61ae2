
# What reads and writes the log below the executor is seen by modules that ask for
# what the executor is about to do, as all SQL is: pgaudit, here.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($library) = run_command([ $ENV{PG_CONFIG} // 'pg_config', '--pkglibdir' ]);
plan skip_all => 'pgaudit is not installed (Debian: postgresql-...-pgaudit)' unless -e "$library/pgaudit.so";

my $node = PostgreSQL::Test::Cluster->new('audited');
$node->init;
$node->append_conf('postgresql.conf', q{
	shared_preload_libraries = 'pgaudit'
	pgaudit.log = 'none'
	pgaudit.log_statement_once = off
	log_statement = none
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE ROLE clerk;
	GRANT USAGE ON SCHEMA cqrs_es TO clerk;
	GRANT SELECT, INSERT ON cqrs_es.events TO clerk;
	SELECT cqrs_es.create_aggregate('a');
	SELECT cqrs_es.define_command('a', 'nothing', $$ '[]'::jsonb $$);
	SELECT cqrs_es.append_event('a', '1', 'e', '{}');
	CREATE TABLE accounts (id text);
	INSERT INTO accounts VALUES ('1'), ('2');
	GRANT SELECT ON accounts TO clerk;
	CREATE FUNCTION in_expression() RETURNS void LANGUAGE plpgsql AS $$
		DECLARE r record; BEGIN r := cqrs_es.append_event('a', '1', 'e', '{}'); END $$;
	CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
		DECLARE r record; BEGIN r := cqrs_es.append_event('a', '1', 'e', '{}'); RETURN NULL; END $$;
	CREATE TABLE deferred (id int);
	GRANT INSERT ON deferred TO clerk;
	CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit();
});

# What the audit says while a statement runs, as clerk: class, command and relation of each line, but
# for our own tables.
sub audited
{
	my ($statement, @settings) = @_;
	my $from = -s $node->logfile;

	$node->safe_psql('postgres', join(";\n", "SET pgaudit.log = 'read, write'", "SET pgaudit.log_relation = on", @settings, 'SET ROLE clerk', $statement));
	my $log = slurp_file($node->logfile, $from);
	return join(' ', grep { !/cqrs_es\.(?!events)|pg_catalog/ } map { join(':', (split /,/)[ 3, 4, 6 ]) } $log =~ /AUDIT: (SESSION,.*)/g);
}

for my $way ('off', 'on')
{
	my $setting = "SET cqrs_es.force_generic_path = $way";

	like(audited(q{SELECT cqrs_es.append_event('a', '1', 'e', '{}')}, $setting), qr/WRITE:INSERT:cqrs_es\.events/, "an append (generic: $way)");
	like(audited(q{SELECT count(*) FROM cqrs_es.read_all()}, $setting), qr/READ:SELECT:cqrs_es\.events/, 'read_all');
	like(audited(q{SELECT count(*) FROM cqrs_es.read_stream('a', '1')}, $setting), qr/READ:SELECT:cqrs_es\.events/, 'read_stream');
	like(audited(q{SELECT cqrs_es.stream_version('a', '1')}, $setting), qr/READ:SELECT:cqrs_es\.events/, 'stream_version');
	like(audited(q{SELECT cqrs_es.aggregate_state('a', '1')}, $setting), qr/READ:SELECT:cqrs_es\.events/, 'a replay');
	like(audited(q{SELECT count(*) FROM cqrs_es.execute_command('a', '1', 'nothing', '{}')}, $setting), qr/READ:SELECT:cqrs_es\.events/, 'a command that appends nothing');
	like(audited(q{SELECT in_expression()}, $setting), qr/WRITE:INSERT:cqrs_es\.events/, 'an append in an expression of PL/pgSQL');
	like(audited(q{INSERT INTO deferred VALUES (1)}, $setting), qr/WRITE:INSERT:cqrs_es\.events/, 'and one at commit');
	like(audited(q{SELECT (cqrs_es.append_event('a', id, 'e', '{}')).version FROM accounts}, $setting, 'SET pgaudit.log_rows = on'),
		qr/READ:SELECT:public\.accounts/, 'what the surrounding statement reads is seen as well');
}
unlike(audited('SELECT 1'), qr/events/, 'nothing is said of what does not touch it');
is(audited(q{INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('a', '1', 'e', '{}')}), 'WRITE:INSERT:cqrs_es.events', 'a plain INSERT is seen once');

# without an event that was not written
is($node->safe_psql('postgres', 'SELECT count(*), max(sequence) FROM cqrs_es.events WHERE aggregate_id = $$1$$'), '10|10', 'and each event was written once');

done_testing();
