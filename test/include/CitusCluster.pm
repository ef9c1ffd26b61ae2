# A coordinator and workers with Citus, where that is installed.
package CitusCluster;

use strict;
use warnings FATAL => 'all';
use Exporter qw(import);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT_OK = qw(citus_cluster citus_node citus_add);

# A coordinator with this many workers, with Citus and without cqrs_es: all of them, the coordinator first. Where the
# server has no Citus, the whole test is skipped. They find each other by the directory of their sockets.
sub citus_cluster
{
	my ($workers) = @_;
	my $control = `"$ENV{PG_CONFIG}" --sharedir` =~ s{\s*$}{/extension/citus.control}r;
	plan skip_all => 'Citus is not installed, so nothing is known of a distributed log (it is no package of Debian; 13.2 can be built from its sources)'
	  unless -e $control;

	my ($coordinator, @others) = map { citus_node($_) } 'coordinator', map { "worker_$_" } 1 .. $workers;
	$coordinator->safe_psql('postgres', "SELECT citus_set_coordinator_host('@{[ $coordinator->host ]}', @{[ $coordinator->port ]})");
	citus_add($coordinator, $_) foreach @others;
	return ($coordinator, @others);
}

# A server with Citus, which belongs to no cluster yet.
sub citus_node
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(allows_streaming => 'logical', extra => ['--no-instructions']);		# systems of their own
	$node->append_conf('postgresql.conf', <<"END");
shared_preload_libraries = 'citus'
citus.local_hostname = '@{[ $node->host ]}'
citus.enable_statistics_collection = off
max_prepared_transactions = 50
max_worker_processes = 20
max_connections = 100
END
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION citus');
	return $node;
}

sub citus_add
{
	my ($coordinator, $node) = @_;
	$coordinator->safe_psql('postgres', "SELECT citus_add_node('@{[ $node->host ]}', @{[ $node->port ]})");
	return;
}

1;
