# Tail readers beside writers that commit, pause, roll back, use savepoints, two
# phases and batches: each reader gets every event once, in order of position.
# A naive reader, which takes whatever it sees, shows what would be lost.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant LOAD_SECONDS => 8;
use constant WRITERS => 6;
use constant TRANSACTIONS => 20_000;		# more than a writer can do in that time

my $node = PostgreSQL::Test::Cluster->new('tail');
$node->init;
$node->append_conf('postgresql.conf', "max_prepared_transactions = 20\nlog_statement = none");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	CREATE TABLE got (reader text, nr bigserial, global_position bigint);
	CREATE TABLE slowest (reader text, with_events numeric, without_events numeric, reads bigint);
	CREATE TABLE writing ();

	-- Read on and on, until there are no writers and no events any more.
	CREATE PROCEDURE tail(name text) LANGUAGE plpgsql AS $$
	DECLARE
		after bigint := 0;
		reached bigint;
		started timestamptz;
		elapsed numeric;
		full_ms numeric := 0;
		empty_ms numeric := 0;
		reads bigint := 0;
		over boolean;
	BEGIN
		LOOP
			over := to_regclass('writing') IS NULL;
			PERFORM set_config('cqrs_es.settle_timeout', (ARRAY['0', '2', '50', '1000'])[1 + floor(random() * 4)], false);
			started := clock_timestamp();
			WITH read AS MATERIALIZED (
				SELECT global_position FROM cqrs_es.read_all(after, (ARRAY[1, 10, 1000, NULL])[1 + floor(random() * 4)])),
			kept AS (
				INSERT INTO got (reader, global_position) SELECT name, global_position FROM read)
			SELECT max(global_position) INTO reached FROM read;
			elapsed := 1000 * extract(epoch FROM clock_timestamp() - started);
			reads := reads + 1;
			IF reached IS NULL THEN
				empty_ms := greatest(empty_ms, elapsed);
			ELSE
				full_ms := greatest(full_ms, elapsed);
				after := reached;
			END IF;
			EXIT WHEN over AND reached IS NULL;
			COMMIT;
		END LOOP;
		INSERT INTO slowest VALUES (name, full_ms, empty_ms, reads);
	END $$;

	-- The same for one type, with an index that shows none of the others, nor gaps.
	CREATE INDEX ON cqrs_es.events (event_type, global_position);
	CREATE PROCEDURE tail_rare(name text) LANGUAGE plpgsql AS $$
	DECLARE
		after bigint := 0;
		reached bigint;
		over boolean;
	BEGIN
		LOOP
			over := to_regclass('writing') IS NULL;
			PERFORM set_config('cqrs_es.settle_timeout', (ARRAY['0', '2', '50', '1000'])[1 + floor(random() * 4)], false);
			WITH read AS MATERIALIZED (
				SELECT global_position, read_to FROM cqrs_es.read_page(after, (ARRAY[1, 10, 1000, NULL])[1 + floor(random() * 4)], event_types => '{rare}')),
			kept AS (
				INSERT INTO got (reader, global_position) SELECT name, global_position FROM read WHERE global_position IS NOT NULL)
			SELECT max(read_to) INTO reached FROM read;
			EXIT WHEN over AND reached = after;
			after := reached;
			COMMIT;
		END LOOP;
	END $$;

	CREATE PROCEDURE naive(name text) LANGUAGE plpgsql AS $$
	DECLARE
		after bigint := 0;
		reached bigint;
		over boolean;
	BEGIN
		LOOP
			over := to_regclass('writing') IS NULL;
			WITH kept AS (
				INSERT INTO got (reader, global_position)
				SELECT name, global_position FROM cqrs_es.events WHERE global_position > after ORDER BY 2
				RETURNING global_position)
			SELECT max(global_position) INTO reached FROM kept;
			EXIT WHEN over AND reached IS NULL;
			after := coalesce(reached, after);
			COMMIT;
			PERFORM pg_sleep(0.001);
		END LOOP;
	END $$;
});

# What a writer does, one transaction after the other.  Streams are shared; one
# transaction appends to streams in rising order only, so there are no deadlocks.
sub event
{
	my ($stream) = @_;
	my $s = sprintf "'s%02d'", $stream;
	my $kind = int(rand(4));
	my $type = rand() < 0.1 ? 'rare' : 'e';

	return "SELECT FROM cqrs_es.append_events('t', $s, '[" . join(',', ('{"type": "e", "payload": {}}') x (1 + int(rand(7)))) . "]');"
	  if $kind == 0;
	return "INSERT INTO cqrs_es.events (aggregate_type, aggregate_id, event_type, payload) VALUES ('t', $s, '$type', '{}');"
	  if $kind == 1;
	return "SELECT FROM cqrs_es.append_event('t', $s, '$type', '{}');";
}

sub transaction
{
	my ($writer, $i) = @_;
	my @streams = sort { $a <=> $b } map { int(rand(20)) } 1 .. 3;
	my @e = map { event($_) } @streams;
	my $pause = sprintf "SELECT FROM pg_sleep(%.4f);", rand(0.02);
	my $name = "'w$writer-$i'";

	return (
		$e[0],
		$e[0],
		"BEGIN; $e[0] $e[1] COMMIT;",
		"BEGIN; $e[0] $pause $e[1] COMMIT;",
		"BEGIN; $e[0] ROLLBACK;",
		"BEGIN; $e[0] $pause ROLLBACK;",
		"BEGIN; $e[0] SAVEPOINT s; $e[1] ROLLBACK TO s; $pause $e[2] COMMIT;",
		"BEGIN; SAVEPOINT s; $e[0] ROLLBACK TO s; $pause COMMIT;",
		"BEGIN; SAVEPOINT s; $e[0] RELEASE s; $pause ROLLBACK;",
		"BEGIN; $e[0] PREPARE TRANSACTION $name; $pause COMMIT PREPARED $name;",
		"BEGIN; $e[0] PREPARE TRANSACTION $name; $pause ROLLBACK PREPARED $name;")[ rand(11) ];
}

my $seed = srand();
note("seed $seed");

my (@writers, @readers);

sub start_psql
{
	my ($name, $sql, $generic) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/$name.sql";

	append_to_file($file, "SET cqrs_es.force_generic_path = $generic;\n$sql");
	my %client = (name => $name, err => '');
	$client{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-f', $file ],
		'<', \undef, '>', '/dev/null', '2>', \$client{err});
	return \%client;
}

push @readers, start_psql('reader', "CALL tail('reader');", 'off');
push @readers, start_psql('generic_reader', "CALL tail('generic reader');", 'on');
push @readers, start_psql('rare_reader', "CALL tail_rare('rare reader');", 'off');
push @readers, start_psql('naive_reader', "CALL naive('naive reader');", 'off');
foreach my $w (1 .. WRITERS)
{
	my $sql = sprintf "SELECT clock_timestamp() + '%d s' AS deadline \\gset\n", LOAD_SECONDS;
	foreach my $i (1 .. TRANSACTIONS / 20)
	{
		$sql .= transaction($w, "$i-$_") . "\n" foreach 1 .. 20;
		$sql .= "SELECT clock_timestamp() > :'deadline' AS done \\gset\n\\if :done\n\\q\n\\endif\n";
	}
	push @writers, start_psql("writer$w", $sql, $w % 3 == 0 ? 'on' : 'off');
}

# A plain INSERT that leaves its sequence out takes the next one, but when many
# wait for the same stream it may lose the race for that.  Nothing else may fail.
my $lost = 0;
foreach my $client (@writers)
{
	$client->{run}->finish;
	my @errors = $client->{err} =~ /ERROR: .*/g;
	$lost += grep { /duplicate key value violates unique constraint "events_pkey"/ } @errors;
	is(join("\n", grep { !/duplicate key|current transaction is aborted|(prepared transaction|savepoint) .* does not exist/ } @errors),
		'', "$client->{name} met no error but a lost race");
}
$node->safe_psql('postgres', 'DROP TABLE writing');
foreach my $client (@readers)
{
	$client->{run}->finish;
	is($client->{err}, '', "$client->{name} met no error");
}

my ($events, $gaps) = split /\|/, $node->safe_psql('postgres',
	'SELECT count(*), max(global_position) - count(*) FROM cqrs_es.events');
cmp_ok($events, '>', 500, "there was load: $events events");
cmp_ok($gaps, '>', 50, "and there were gaps: $gaps");

my $rare = $node->safe_psql('postgres', q{SELECT count(*) FROM cqrs_es.events WHERE event_type = 'rare'});
cmp_ok($rare, '>', 20, "some were of the rare type: $rare");
cmp_ok($node->safe_psql('postgres', q{SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'events_event_type_global_position_idx'}),
	'>', 20, 'which were found by their index');
foreach my $reader ('reader', 'generic reader', 'rare reader')
{
	my ($types, $wanted) = $reader eq 'rare reader' ? ("WHERE event_type = 'rare'", $rare) : ('', $events);

	is($node->safe_psql('postgres', qq{
		SELECT count(*), count(*) FILTER (WHERE got IS NULL), count(*) FILTER (WHERE e IS NULL)
		FROM (SELECT * FROM cqrs_es.events $types) AS e FULL JOIN (SELECT * FROM got WHERE reader = '$reader') AS got USING (global_position)}),
		"$wanted|0|0", "$reader: every event once");
	is($node->safe_psql('postgres', qq{
		SELECT count(*) FROM (
			SELECT global_position, lag(global_position) OVER (ORDER BY nr) AS before FROM got WHERE reader = '$reader') AS g
		WHERE global_position <= before}),
		'0', "$reader: in order of position");
}
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM (SELECT aggregate_id, sequence, row_number() OVER w AS expected, global_position, lag(global_position) OVER w AS before
		FROM cqrs_es.events WINDOW w AS (PARTITION BY aggregate_id ORDER BY sequence)) AS s
	WHERE sequence <> expected OR global_position <= before}),
	'0', 'sequences have no hole and positions rise with them');

diag("$events events, $gaps dead positions, $lost races lost by plain INSERT");
diag($node->safe_psql('postgres', q{
	SELECT format('%s: %s reads, slowest %s ms with events, %s ms without', reader, reads, round(with_events, 1), round(without_events, 1))
	FROM slowest ORDER BY reader}));
diag('a naive reader would have missed ' . $node->safe_psql('postgres',
	q{SELECT count(*) FROM cqrs_es.events WHERE global_position NOT IN (SELECT global_position FROM got WHERE reader = 'naive reader')}));

$node->stop;
done_testing();
