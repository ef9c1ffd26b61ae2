# A server for the tests of background workers, whose databases have an asynchronous projection that writes down
# what it handles.
package WorkerServer;

use strict;
use warnings FATAL => 'all';
use parent -norequire, 'PostgreSQL::Test::Cluster';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

# new(name, line of postgresql.conf...): it runs.
sub new
{
	my ($class, $name, @lines) = @_;
	my $node = bless PostgreSQL::Test::Cluster->new($name), $class;
	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf', $_) foreach 'max_prepared_transactions = 5', 'restart_after_crash = on', @lines;
	$node->start;
	return $node;
}

# The extension and the projection in a database; handling an event takes 20 ms.
sub set_up
{
	my ($node, $database) = @_;
	$node->safe_psql($database, q{
		CREATE EXTENSION cqrs_es;
		CREATE TABLE handled (position bigint);
		SELECT cqrs_es.create_projection('handled', '{account}', '{handled}', mode => 'async');
		CREATE FUNCTION handle(event cqrs_es.event) RETURNS void BEGIN ATOMIC
			INSERT INTO handled SELECT (event).global_position FROM pg_sleep(0.02);
		END;
		SELECT cqrs_es.define_handler('handled', 'Seen', 'handle(cqrs_es.event)');
	});
	return;
}

sub append_sql
{
	my ($node, $n) = @_;
	$n //= 1;
	return "SELECT count(cqrs_es.append_event('account', md5(random()::text), 'Seen', '{}')) FROM generate_series(1, $n)";
}

# Append some events, in one transaction.
sub append
{
	my ($node, $database, $n) = @_;
	return $node->safe_psql($database, $node->append_sql($n));
}

# The pid of the worker of a database, '' for none.
sub worker
{
	my ($node, $database) = @_;
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection worker' AND datname = '$database'");
}

sub until_workers
{
	my ($node, $database, $n) = @_;
	return $node->poll_query_until('postgres', "SELECT count(*) = $n FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection worker' AND datname = '$database'");
}

# End the worker of a database, until there is the launcher that it leaves behind.
sub end_worker
{
	my ($node, $database) = @_;
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection worker' AND datname = '$database'");
	return $node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'cqrs_es projection launcher'});
}

# Until there are so many workers and launchers.
sub until_processes
{
	my ($node, $n) = @_;
	return $node->poll_query_until('postgres', "SELECT count(*) = $n FROM pg_stat_activity WHERE backend_type IN ('cqrs_es projection worker', 'cqrs_es projection launcher')");
}

# Until each event was handled, once.  Within some seconds, if so wished.
sub until_handled
{
	my ($node, $database, $seconds) = @_;
	local $PostgreSQL::Test::Utils::timeout_default = $seconds if $seconds;
	return $node->poll_query_until($database, q{
		SELECT array(SELECT position FROM handled ORDER BY 1) = array(SELECT global_position FROM cqrs_es.events WHERE aggregate_type = 'account' AND event_type = 'Seen' ORDER BY 1)});
}

1;
