# The disk is full under load: that of the data, and that of the WAL. Nothing that was acknowledged is lost, and when there
# is space again all goes on by itself, or, where the WAL found none, with a start of the server.
#
# The disks are small ones in memory. They are mounted by whoever runs this test, in a namespace of its own, without any
# rights; where that may not be done, the test is skipped.

use strict;
use warnings FATAL => 'all';

# Again, in a namespace with two small disks, as the same user.
BEGIN
{
	if (!defined $ENV{CQRS_ES_DISKS})
	{
		my $directory = ($ENV{TMPDIR} // '/tmp') . "/disks.$$";
		my ($group) = $) =~ /^(\d+)/;
		mkdir $directory or die "could not create $directory: $!";
		my $script = 'mount -t tmpfs -o size=48m,mode=700 none "$1" && mkdir "$1/data" "$1/wal" && mount -t tmpfs -o size=40m,mode=700 none "$1/wal" && shift || exit 99
			user=$1 group=$2; shift 2
			exec unshare --user --map-user="$user" --map-group="$group" "$@"';
		my $tried = system qw(unshare --map-root-user --mount sh -c), 'mount -t tmpfs -o size=1m none "$1" && unshare --user --map-user="$2" true', 'sh', $directory, $>;
		if ($tried)
		{
			$ENV{CQRS_ES_DISKS} = '';
			rmdir $directory;
		}
		else
		{
			$ENV{CQRS_ES_DISKS} = $directory;
			exec qw(unshare --map-root-user --mount sh -c), $script, 'sh', $directory, $>, $group, $^X, (map { "-I$_" } @INC), $0, @ARGV;
		}
	}
}

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use lib "$ENV{TESTDIR}/test/include";
use Workload;

my $disks = $ENV{CQRS_ES_DISKS} or plan skip_all => 'nobody but root may mount a disk here (unshare --map-root-user --mount)';

# Fill a disk but for so many kB; it is emptied by unlink.
sub fill
{
	my ($directory, $left) = @_;
	my ($available) = qx{df -k --output=avail $directory} =~ /(\d+)/;
	my $count = $available - $left;
	system("dd if=/dev/zero of=$directory/filler bs=1k count=$count status=none") == 0 or die 'could not fill the disk';
	return;
}

sub server
{
	my ($name, @initdb) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => \@initdb);
	$node->append_conf('postgresql.conf', "restart_after_crash = on\nlog_statement = none\nlog_min_error_statement = panic\nmax_connections = 40");
	return $node;
}

# --- data

{
	my $node = server('data');
	$node->start;
	$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$disks/data'");
	$node->safe_psql('postgres', 'CREATE DATABASE shop TABLESPACE small');
	my $load = Workload->new($node, database => 'shop', expected => '53100');
	$load->set_up;
	fill($disks, 3000);
	$load->start;
	my $full = sub { return scalar grep { /^1\t53100\t/ } $load->lines_of('met-*') };
	ok($load->wait_until(sub { $full->() > 50 }), 'data: the disk is full');
	is($node->safe_psql('postgres', 'SELECT 1'), '1', 'data: the server is there');
	is($node->safe_psql('shop', q{SELECT count(*) = (SELECT count(*) FROM cqrs_es.events) FROM cqrs_es.read_all(0, NULL)}), 't', 'data: events can be read');
	my $count = $full->();
	ok($load->wait_until(sub { $full->() > $count + 50 }), 'data: appends are refused, and say why');
	unlink "$disks/filler" or die "could not unlink: $!";
	ok($load->until_acknowledged(200), 'data: with space again appends go on');
	$load->calm;
	$load->check('data');
	unlike(slurp_file($node->logfile), qr/PANIC:|terminated by signal/, 'data: no process fell');
	$node->stop;
}

# --- WAL

{
	my $node = server('wal', '--waldir', "$disks/wal/pg_wal", '--wal-segsize', 1);
	$node->append_conf('postgresql.conf', "min_wal_size = 4MB\nmax_wal_size = 16MB\ncheckpoint_timeout = 1h");
	$node->start;
	my $load = Workload->new($node, expected => '53100');
	$load->set_up;
	$load->start;
	ok($load->until_acknowledged(100), 'WAL: there is load');
	my $offset = -s $node->logfile;
	fill("$disks/wal", 500);
	ok($load->wait_until(sub { substr(slurp_file($node->logfile), $offset) =~ /PANIC: .*No space left on device/ }), 'WAL: without space the server ends');
	my $told = $load->acknowledged;
	unlink "$disks/wal/filler" or die "could not unlink: $!";
	# It comes back by itself, if it has not given up before there was space.
	my $is_up = sub { return $node->psql('postgres', 'SELECT 1') == 0 };
	my $is_gone = sub { return !-e $node->data_dir . '/postmaster.pid' };
	$load->wait_until(sub { $is_up->() || $is_gone->() });
	if (!$is_up->())
	{
		note('WAL: it has to be started');
		$node->stop('immediate', fail_ok => 1);
		$node->start;
	}
	ok($load->until_acknowledged(200), 'WAL: then the load goes on');
	$load->calm;
	$load->check('WAL');
	$node->stop;
}

done_testing();
