
# The same command, with its id, from twenty sessions at a time: all of them get
# the first result, and none is refused for what the first holds, however the
# decider locks the seats that it takes, on both insert paths and at every
# isolation level (where a 40001 is sent again, as pgbench does it).

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $sessions = 20;

# How a decider takes the seat of a show, or does not.
my %decider = (
	'update' => q{UPDATE seat SET taken = true WHERE show = id AND NOT taken},
	'for update' => q{PERFORM FROM seat WHERE show = id AND NOT taken FOR UPDATE;
		IF FOUND THEN UPDATE seat SET taken = true WHERE show = id; END IF},
	'skip locked' => q{PERFORM FROM seat WHERE show = id AND NOT taken FOR UPDATE SKIP LOCKED;
		IF FOUND THEN UPDATE seat SET taken = true WHERE show = id; END IF},
	'nowait' => q{PERFORM FROM seat WHERE show = id AND NOT taken FOR UPDATE NOWAIT;
		IF FOUND THEN UPDATE seat SET taken = true WHERE show = id; END IF},
	'advisory' => q{PERFORM pg_advisory_xact_lock(hashtext(id));
		UPDATE seat SET taken = true WHERE show = id AND NOT taken},
	'try' => q{IF NOT pg_try_advisory_xact_lock(hashtext(id)) THEN PERFORM cqrs_es.reject('somebody else is at it'); END IF;
		UPDATE seat SET taken = true WHERE show = id AND NOT taken},
	'unique' => q{INSERT INTO booking VALUES (id); PERFORM},
	'state' => q{PERFORM WHERE NOT state ? 'who'},
);

my $node = PostgreSQL::Test::Cluster->new('same_command');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION cqrs_es;
	SELECT cqrs_es.create_aggregate('show', snapshot_every => 0);
	CREATE TABLE seat (show text PRIMARY KEY, taken boolean NOT NULL DEFAULT false);
	CREATE TABLE booking (show text PRIMARY KEY);
	CREATE TABLE answer (show text, answer text);
	CREATE FUNCTION send(show text, command_type text) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		result text;
	BEGIN
		BEGIN
			SELECT format('version %s, %s', version, state->>'who') INTO result
			FROM cqrs_es.execute_command('show', show, command_type, '{"who": "ada"}', command_id => '00000000-0000-0000-0000-000000000001');
		EXCEPTION WHEN SQLSTATE 'QE301' OR lock_not_available OR unique_violation THEN
			result := SQLERRM;
		END;
		INSERT INTO answer VALUES (show, result);
	END $$;
});

foreach my $type (sort keys %decider)
{
	$node->safe_psql('postgres', qq{
		CREATE FUNCTION "$type"(id text, state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS \$\$
		BEGIN
			$decider{$type};
			IF NOT FOUND THEN RETURN cqrs_es.reject('seat taken'); END IF;
			RETURN jsonb_build_object('type', 'Booked', 'payload', command);
		END \$\$;
		SELECT cqrs_es.define_command('show', '$type', '"$type"(aggregate_id, state, command)');
	});
	send_all($type, 'read committed', $_) foreach ('off', 'on');
	send_all($type, 'repeatable read', 'off');
	send_all($type, 'serializable', 'on');
}
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), '0', 'no lock is left');

# Ten thousand commands with ids in one transaction do not fill the lock table.
like($node->safe_psql('postgres', q{
	SELECT cqrs_es.define_command('show', 'Book', $$jsonb_build_object('type', 'Booked', 'payload', command)$$);
	SELECT count(*) FROM generate_series(1, 10000) AS n, cqrs_es.execute_command('show', 'many ' || n % 100, 'Book', to_jsonb(n), command_id => cqrs_es.new_event_id())
}), qr/^10000$/m, 'ten thousand commands in one transaction');

$node->stop;
done_testing();

# Several shows, one after the other, from all sessions; above READ COMMITTED one,
# since pgbench does not take back "\set" when it tries again.
sub send_all
{
	my ($type, $level, $path) = @_;
	my $retries = $level ne 'read committed';
	my $shows = $retries ? 1 : 5;
	my $title = "$type, $level, generic path $path";
	my $script = $node->basedir . '/send.sql';

	$node->safe_psql('postgres', "TRUNCATE answer; INSERT INTO seat SELECT '$title ' || n FROM generate_series(1, $shows) AS n");
	append_to_file($script, ($retries ? '' : "\\set n :n + 1\n") . "SELECT send('$title ' || :n, '$type');\n");
	{
		local $ENV{PGOPTIONS} = "-c cqrs_es.force_generic_path=$path -c default_transaction_isolation=" . ($level =~ s/ /\\ /r);
		$node->command_ok(
			[ 'pgbench', '-n', '-M', 'prepared', '-c', $sessions, '-j', 2, '-t', $shows, '-D', 'n=' . ($retries ? 1 : 0),
				'--max-tries', 1000, '-f', $script, $node->connstr('postgres') ],
			$title);
	}
	unlink $script;
	is($node->safe_psql('postgres', 'SELECT answer, count(*) FROM answer GROUP BY 1 ORDER BY 1'),
		'version 1, ada|' . $sessions * $shows, 'all got the first result');
	is($node->safe_psql('postgres', "SELECT count(*), max(sequence) FROM cqrs_es.events WHERE aggregate_id LIKE '$title %'"),
		"$shows|1", 'of one execution');
	return;
}
