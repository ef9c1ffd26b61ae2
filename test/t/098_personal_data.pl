# Personal data that are encrypted: nothing of them is in a dump, in any file or in the log of the server, unless
# something keeps it in clear. Forgotten subjects stay forgotten over dump and restore, and an older backup forgets them
# again by a newer list; keys can be left out of a dump, and restored from another one. A standby reads,
# and hears of what is forgotten, and so does a read node. The file of the master key, which others must not be able to read.

use strict;
use warnings FATAL => 'all';
use POSIX qw(mkfifo);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('personal');
$node->init(allows_streaming => 'logical');
my $dir = PostgreSQL::Test::Utils::tempdir();
my $file = "$dir/master key";
my $key = '0123456789abcdef' x 4;
my $secret = 'Zacharias-Quillfeather-1899';

sub write_key
{
	my ($mode, @lines) = @_;
	unlink $file;
	open my $fh, '>', $file or die;
	print $fh map { "$_\n" } @lines;
	close $fh;
	chmod $mode, $file;
}

write_key(0600, $key);
$node->append_conf('postgresql.conf', "autovacuum = off\ncqrs_es.projection_worker = off\ncqrs_es.master_key_file = '$file'");
$node->start;

sub sql { return $node->safe_psql('shop', $_[0]) }
sub state_of
{
	my ($database, $sql) = @_;
	my ($rc, $stdout, $stderr) = $node->psql($database, "\\set VERBOSITY sqlstate\n$sql");
	return $rc == 0 ? $stdout : $stderr =~ /ERROR:\s+(\w{5})/ ? $1 : $stderr;
}
sub names { return "SELECT string_agg(payload->>'name', ' ' ORDER BY global_position) FROM cqrs_es.read_all(event_types => '{Registered}')" }
sub files_with
{
	my ($text) = @_;
	$node->safe_psql('shop', 'CHECKPOINT');
	return `grep -l -a -r -F '$text' '@{[ $node->data_dir ]}' '@{[ $node->logfile ]}'`;
}
sub dump_to
{
	my ($name, @options) = @_;
	$node->command_ok([ 'pg_dump', '-f', "$dir/$name", @options, 'shop' ], "dump: $name");
	return slurp_file("$dir/$name");
}
sub restore
{
	my ($database, @files) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/$_", $database ], "restored: $_") foreach @files;
}

$node->safe_psql('postgres', 'CREATE DATABASE shop');
sql(q{
	CREATE EXTENSION cqrs_es;
	SELECT cqrs_es.create_aggregate('customer', snapshot_every => 0);
	SELECT cqrs_es.define_personal_data('Registered', '/id', '{/name,/note}')});

# The name is handed over in pieces, so that the statement does not show it in a log.
my ($first, $rest) = split /-/, $secret, 2;
sql(qq{SELECT cqrs_es.append_event('customer', id, 'Registered', jsonb_build_object('id', id, 'name', name, 'note', repeat(name, 500)))
	FROM (VALUES ('ada', '$first' || '-' || '$rest'), ('eve', 'Eve')) AS c (id, name)});
is(sql(names()), "$secret Eve", 'who may see them sees them');

# nothing of it is anywhere, when nothing of ours or theirs keeps it in clear

is(files_with($secret), '', 'no file of the server has it, WAL and log included');
is(files_with($key), '', 'nor the master key');
unlike(dump_to('all.sql'), qr/$secret|$key/, 'nor has a dump');
unlike($node->safe_psql('shop', 'CREATE ROLE monitor LOGIN; SET ROLE monitor; SELECT name, setting FROM pg_settings'), qr/master/, 'pg_settings does not show where the key is');

# a standby

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('personal_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
my $reader = $standby->background_psql('shop');
is($reader->query(names()), "$secret Eve", 'a standby reads, and keeps the key');

# dump, forget, restore, and forget again

dump_to('without_keys.sql', '--exclude-table-data=cqrs_es.personal_data_keys');
is(sql(q{SELECT cqrs_es.forget_subject('ada', 'asked for it')}), '1', 'forgotten');
is(sql(names()), 'Eve', 'and gone');
$node->wait_for_catchup($standby);
is($reader->query(names()), 'Eve', 'on the standby, too');
$reader->quit;
$standby->stop;
dump_to('newer.sql');
dump_to('keys.sql', '--data-only', '--table=cqrs_es.personal_data_keys');
like(slurp_file("$dir/keys.sql"), qr/^COPY cqrs_es.personal_data_keys .*\n.*\n.*\n\\\.$/m, 'the table of keys can be dumped by itself');
sql("COPY cqrs_es.forgotten_subjects TO '$dir/forgotten'");

restore('newer', 'newer.sql');
is($node->safe_psql('newer', names()), 'Eve', 'a dump of after it has nothing');
is(state_of('newer', q{SELECT cqrs_es.append_event('customer', 'ada', 'Registered', '{"id": "ada", "name": "x"}')}), 'QE702', 'but who is forgotten');
is($node->safe_psql('newer', 'SELECT count(*) FROM cqrs_es.verify_log() WHERE problem IS NOT NULL'), '0', 'and is whole');

restore('older', 'all.sql');
is($node->safe_psql('older', names()), "$secret Eve", 'an older one brings it back');
my $forget_again = qq{
	CREATE TEMP TABLE again (tenant_id text, subject text, reason text, forgotten_by text, forgotten_at timestamptz);
	COPY again FROM '$dir/forgotten';
	SELECT set_config('cqrs_es.tenant_id', tenant_id, false) || cqrs_es.forget_subject(subject, reason) FROM again};
is($node->safe_psql('older', $forget_again), '1', 'the newer list');
is($node->safe_psql('older', names()), 'Eve', 'takes it away again');
is($node->safe_psql('older', $forget_again), '0', 'once');

restore('keyless', 'without_keys.sql');
is(state_of('keyless', names()), 'QE701', 'without keys nothing is taken for gone');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/keys.sql", 'keyless' ], 'the newest keys');
is($node->safe_psql('keyless', names()), 'Eve', 'know who is forgotten, however old the log is');

# nothing of the dropped key is left in the table, when it has been written anew

sql('VACUUM FULL cqrs_es.personal_data_keys');
is(sql(q{SELECT count(*) FILTER (WHERE wrapped_key IS NULL), count(*) FROM cqrs_es.personal_data_keys}), '1|2', 'a key is gone, and one is not');

# the file

foreach my $mode (0640, 0604, 0660)
{
	write_key($mode, $key);
	is(state_of('shop', names()), 'QE701', sprintf 'a file of mode %04o', $mode);
}
unlink $file;
mkfifo($file, 0600) or die;
$node->psql('shop', '\set VERBOSITY sqlstate' . "\n" . names(), stderr => \my $said, timeout => 60, timed_out => \my $waited);
like($waited ? 'waits' : $said, qr/QE701/, 'nobody waits for who writes into a pipe');
write_key(0640, $key);
unlike(slurp_file($node->logfile), qr/$key/, 'nothing says what is in it');
my $log = -s $node->logfile;
my (undef, undef, $stderr) = $node->psql('shop', names());
unlike($stderr, qr/\Q$file/, 'nor to a client where it is');
like(slurp_file($node->logfile, $log), qr/File: "\Q$file\E"/, 'but to the log of the server');
my $other = 'fedcba9876543210' x 4;
write_key(0600, $other);
is(state_of('shop', names()), 'QE701', 'another key');
write_key(0600, $other, $key);
is(sql('SELECT cqrs_es.rotate_master_key()'), '1', 'with both of them all is wrapped anew');
write_key(0600, $other);
is(sql(names()), 'Eve', 'and one is enough');
is(sql(q{SELECT cqrs_es.append_event('customer', 'kim', 'Registered', '{"id": "kim", "name": "Kim"}') IS NOT NULL}), 't', 'for new ones, too');
write_key(0600, $key);
is(state_of('shop', names()), 'QE701', 'the old one is of no use any more');
is(state_of('older', names()), 'Eve', 'but for older backups');

# a read node has the definitions, the keys, and the list: it opens what the file lets it, and goes on when it takes over

write_key(0600, $other);
$node->safe_psql('postgres', 'CREATE DATABASE reader');
$node->safe_psql('reader', 'CREATE EXTENSION cqrs_es');
sql('SELECT cqrs_es.publish_log()');
$node->safe_psql('reader', sprintf q{SELECT cqrs_es.follow_log('%s')}, $node->connstr('shop') =~ s/'/''/gr);
$node->poll_query_until('reader', 'SELECT bool_and(copied) FROM cqrs_es.followed_log_status');
my $session = $node->background_psql('reader', on_error_stop => 0);
is($session->query(names()), 'Eve Kim', 'a read node opens what is received');
is(state_of('reader', q{SELECT cqrs_es.define_personal_data('Registered', '/id', '{/note}')}), 'QE601', 'what is personal is said at the publisher');
is(state_of('reader', q{SELECT cqrs_es.forget_subject('kim', 'r')}), 'QE601', 'and who is forgotten');
sql(q{SELECT cqrs_es.append_event('customer', 'lee', 'Registered', '{"id": "lee", "name": "Lee"}'), cqrs_es.forget_subject('kim', 'r')});
$node->wait_for_catchup('cqrs_es_log_0');
is($session->query(names()), 'Eve Lee', 'it forgets, too, in sessions that had the key');
sql('SELECT cqrs_es.hand_over_log()');
$node->safe_psql('reader', 'SELECT cqrs_es.take_over_log()');
is($node->safe_psql('reader', q{SELECT cqrs_es.append_event('customer', 'mia', 'Registered', '{"id": "mia", "name": "Mia"}') IS NOT NULL;
	SELECT payload->>'name' LIKE '$personal:%' FROM cqrs_es.events WHERE aggregate_id = 'mia'}), "t\nt", 'and encrypts when it has taken over');
is(state_of('reader', q{SELECT cqrs_es.append_event('customer', 'kim2', 'Registered', '{"id": "kim", "name": "Kim"}')}), 'QE702', 'nothing about who was forgotten');
$session->quit;

$node->stop;
done_testing();
