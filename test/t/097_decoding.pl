# Logical decoding as a way out, with pgoutput, and with wal2json and decoderbufs where they are
# installed: what comes is complete, has nothing that was rolled back, and each stream in its order.
# And what a consumer must do for the one order of all, and after a crash, as docs/scale.md says it.

use strict;
use warnings FATAL => 'all';
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('decoding');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', 'max_prepared_transactions = 10');
$node->start;
# newer minor versions want to be told which plugins are safe
if ($node->safe_psql('postgres', q{SELECT count(*) FROM pg_settings WHERE name = 'output_plugin_libraries'}))
{
	$node->append_conf('postgresql.conf', q{output_plugin_libraries = 'pgoutput, wal2json, decoderbufs'});
	$node->reload;
	$node->poll_query_until('postgres', q{SELECT current_setting('output_plugin_libraries') LIKE '%wal2json%'});
}
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	SELECT cqrs_es.define_tags('Moved', 'to:{/to}');
	SELECT cqrs_es.publish_log();
});
sub sql { return $node->safe_psql('postgres', $_[0]) }

# Which of them are there?
chomp(my $libraries = `$ENV{PG_CONFIG} --pkglibdir`);
my %plugins = (pgoutput => \&from_pgoutput);
$plugins{wal2json} = \&from_wal2json if -e "$libraries/wal2json.so";
$plugins{decoderbufs} = \&from_decoderbufs if -e "$libraries/decoderbufs.so";
sql("SELECT FROM pg_create_logical_replication_slot('$_', '$_')") foreach sort keys %plugins;

# --- what happens: transactions that commit in another order than they began, or not at all

my $n = 0;
sub append
{
	my ($stream) = @_;
	$n++;
	return qq{SELECT FROM cqrs_es.append_event('account', '$stream', 'Moved', '{"n": $n, "to": @{[ $n % 3 ]}, "text": "it''s \\\\\\\\ \\u00fc \\"q\\""}')};
}
my @sessions = map { $node->background_psql('postgres') } 1 .. 4;
foreach my $round (1 .. 40)
{
	my $i = $round % 4;
	my $late = ($i + 1) % 4;

	# each writes a stream of its own, and all of them short ones
	$sessions[$i]->query_safe('BEGIN; ' . append("own-$i") . ';' . append("round-$round") . '; SAVEPOINT s; ' . append("own-$i") . '; ROLLBACK TO s; ' . append("own-$i"));
	next if $round <= 3;
	$sessions[$late]->query_safe($round % 5 == 0 ? 'ROLLBACK' : $round % 7 == 0 ? "PREPARE TRANSACTION 'p$round'" : 'COMMIT');
	sql(($round % 2 ? 'COMMIT' : 'ROLLBACK') . " PREPARED 'p$round'") if $round % 5 && $round % 7 == 0;
	sql('SET cqrs_es.settle_timeout = 0; SELECT cqrs_es.publish_settled()') if $round % 3 == 0;
	sql(append('short')) if $round % 4 == 0;
}
$_->query('COMMIT') foreach @sessions;
$_->quit foreach @sessions;
sql('SELECT cqrs_es.publish_settled()');

# an event as it should come
my @log = map { [ split /\|/ ] } split /\n/, sql(q{SELECT global_position, aggregate_id, sequence, event_id, payload->>'n' FROM cqrs_es.events ORDER BY global_position});
my $tags = sql('SELECT count(*) FROM cqrs_es.event_tags');
cmp_ok(scalar @log, '>', 50, 'there is something');

# --- what comes out of each

foreach my $plugin (qw(pgoutput wal2json decoderbufs))
{
	SKIP:
	{
		if (!$plugins{$plugin})
		{
			diag("$plugin is not installed: what it brings is not looked at");
			skip "$plugin is not installed", 1;
		}
		check($plugin, $plugins{$plugin});
	}
}

# A consumer that dies: changes come again, and are known by their sequence.
sql("SELECT FROM pg_create_logical_replication_slot('again', 'pgoutput')");
sql(join ';', map { append("again-$_") } 1, 2, 1, 2, 1);
my @once = from_pgoutput('again', 'peek');
sql(join ';', map { append("again-$_") } 2, 1);
my @again = from_pgoutput('again', 'get');
my (%seen, @taken);
foreach my $change (grep { $_->{table} eq 'events' } @once, @again)
{
	next if $change->{sequence} <= ($seen{ $change->{aggregate_id} } // 0);
	$seen{ $change->{aggregate_id} } = $change->{sequence};
	push @taken, "$change->{aggregate_id}/$change->{sequence}";
}
is("@taken", 'again-1/1 again-2/1 again-1/2 again-2/2 again-1/3 again-2/3 again-1/4', 'what comes again is known by its sequence');

$node->stop;
done_testing();

sub check
{
	my ($plugin, $from) = @_;
	my @changes = $from->($plugin, 'get');
	my @events = grep { $_->{table} eq 'events' } @changes;
	my %last;
	my ($falls, $wrong) = (0, '');

	is(join(' ', sort { $a <=> $b } map { $_->{global_position} } @events), join(' ', map { $_->[0] } @log), "$plugin: complete, nothing twice, nothing that was rolled back");
	foreach my $event (@events)
	{
		$wrong .= " $event->{aggregate_id}/$event->{sequence}" if $event->{sequence} != ($last{ $event->{aggregate_id} } // 0) + 1;
		$last{ $event->{aggregate_id} } = $event->{sequence};
	}
	is($wrong, '', "$plugin: each stream in the order of its sequences");
	my %by_position = map { $_->{global_position} => $_ } @events;
	is(join("\n", map { join '|', @{ $by_position{ $_->[0] } }{qw(global_position aggregate_id sequence event_id)}, JSON::PP->new->decode($by_position{ $_->[0] }{payload})->{n} } @log),
		join("\n", map { join '|', @$_ } @log), "$plugin: as they are in the log");
	is(scalar(grep { $_->{table} eq 'event_tags' } @changes), $tags, "$plugin: with their tags");

	my $before = 0;
	foreach my $event (@events)
	{
		$falls++ if $event->{global_position} < $before;
		$before = $event->{global_position};
	}
	cmp_ok($falls, '>', 0, "$plugin: positions are not in order");

	# who wants the one order waits at a gap for the word of the publisher
	my ($settled, $passed, %held, @ordered) = (0, 0);
	foreach my $change (@changes)
	{
		$held{ $change->{global_position} } = 1 if $change->{table} eq 'events';
		$settled = $change->{position} if $change->{table} eq 'published_positions';
		foreach my $position (sort { $a <=> $b } keys %held)
		{
			last if $position > $passed + 1 && $position > $settled;
			push @ordered, $passed = $position;
			delete $held{$position};
		}
	}
	is("@ordered", join(' ', map { $_->[0] } @log), "$plugin: but with published_positions there is one order of all");
	return;
}

# --- the forms; each change is its table with its columns

sub from_pgoutput
{
	my ($slot, $how) = @_;
	my (%relations, @changes);

	foreach my $hex (split /\n/, sql("SELECT encode(data, 'hex') FROM pg_logical_slot_${how}_binary_changes('$slot', NULL, NULL, 'proto_version', '1', 'publication_names', 'cqrs_es_log')"))
	{
		my $message = pack 'H*', $hex;
		my $kind = substr $message, 0, 1;
		if ($kind eq 'R')
		{
			my ($relation, $schema, $table, $identity, $count, $rest) = unpack 'x N Z* Z* a n a*', $message;
			my @columns;
			foreach (1 .. $count)
			{
				(my $flags, my $column, my $type, my $modifier, $rest) = unpack 'C Z* N N a*', $rest;
				push @columns, $column;
			}
			$relations{$relation} = { table => $table, columns => \@columns };
		}
		elsif ($kind eq 'I' || $kind eq 'U')
		{
			my ($relation, $what, $rest) = unpack 'x N a a*', $message;
			die "an old row of $relations{$relation}{table}" if $what ne 'N';
			my $count = unpack 'n', $rest;
			$rest = substr $rest, 2;
			my %change = (table => $relations{$relation}{table});
			foreach my $column (@{ $relations{$relation}{columns} })
			{
				my $is = substr $rest, 0, 1;
				(my $value, $rest) = $is eq 't' ? unpack('x N/a a*', $rest) : (undef, substr $rest, 1);
				$change{$column} = $value;
			}
			push @changes, \%change;
		}
	}
	return @changes;
}

sub from_wal2json
{
	my ($slot, $how) = @_;
	my @changes;

	foreach my $line (split /\n/, sql("SELECT data FROM pg_logical_slot_${how}_changes('$slot', NULL, NULL, 'format-version', '2', 'include-transaction', 'false', 'add-tables', 'cqrs_es.events,cqrs_es.event_tags,cqrs_es.published_positions')"))
	{
		my $change = decode_json($line);
		push @changes, { table => $change->{table}, map { $_->{name} => $_->{value} } @{ $change->{columns} } };
	}
	return @changes;
}

# The text form of its protocol buffers, which is made for looking at.
sub from_decoderbufs
{
	my ($slot, $how) = @_;
	my @changes;

	foreach my $data (split /\x1e/, sql("SELECT string_agg(data, chr(30) ORDER BY n) FROM pg_logical_slot_${how}_changes('$slot', NULL, NULL, 'debug-mode', '1') WITH ORDINALITY AS c (lsn, xid, data, n)"))
	{
		my ($table) = $data =~ /\btable\[(?:cqrs_es\.)?(\w+)\]/ or next;
		my %change = (table => $table);
		while ($data =~ /column_name\["?(\w+)"?\], column_type\[\d+\], datum\[(.*?)\]$/mg) { $change{$1} = $2 }
		push @changes, \%change;
	}
	return @changes;
}
