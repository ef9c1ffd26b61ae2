# Examples are copied, so each decider in README, docs, examples and clients holds
# against commands that nobody meant: fields that are missing, null, negative, of
# another type, or too many. It refuses with QE301 or decides; no other error, and
# then the state can be told, is sane, and has nothing that was smuggled in.

use strict;
use warnings FATAL => 'all';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{TESTDIR};
my $node = PostgreSQL::Test::Cluster->new('examples_refuse');
$node->init;
$node->start;

# Fields of commands anywhere in the examples, and what a client may send instead.
my @fields = ('amount', 'owner', 'title', 'price', 'quantity', 'show', 'seat', 'account_id', 'atm_id', 'check_number',
	'widget_name', 'widget_description', 'circle_name', 'capacity', 'customerId', 'items', 'sku', 'reason', 'minutes', 'places', 'customer', 'courseId', 'studentId');
my @values = ('null', '-5', '0', '0.001', '1e300', '1e30', '1.5', '77.5', '5.0', '"12.50"', '"NaN"', '"x"', '""', '[]', '[5]', '{}', 'true', '[null]',
	'[{"sku": "a", "quantity": -1, "price": 1}]', '[{"sku": "a", "quantity": "2", "price": "NaN"}]', '[{"quantity": 1.5, "price": 2}]');
my @whole = ('null', '5', '"x"', '[]', '{}', '[{}]', '{"balance": 1000000, "total": -1, "status": "paid", "version": "7", "closed": 5}');

my %sources = map { s{^\Q$root\E/}{}r => [ $_ ] } "$root/README.md", glob("$root/docs/*.md"), glob("$root/examples/*.sql");
$sources{'test/clients/account.sql'} = ["$root/test/clients/account.sql"];
my $commands = 0;

foreach my $source (sort keys %sources)
{
	my $text = slurp_file("$root/$source");
	$text = join '', $text =~ /^```sql\n(.*?)^```$/msg if $source =~ /\.md$/;
	next if $text !~ /define_command\('/;

	my $database = lc($source =~ s/\W/_/gr);
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION cqrs_es') if $text !~ /^CREATE EXTENSION cqrs_es/m;
	my ($stdout, $stderr);
	IPC::Run::run([ 'psql', '-X', '-q', '-d', $node->connstr($database) ],
		'<', \$text, '>', \$stdout, '2>', \$stderr, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	$node->safe_psql($database, q{
		CREATE TABLE public.outcomes (what text, outcome text);
		-- Send a command in vain; note what is wrong with what became of it.
		CREATE FUNCTION public.send(type text, id text, command text, payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
		DECLARE
			outcome text;
			state jsonb;
			is_boundary boolean := EXISTS (SELECT FROM cqrs_es.boundaries AS b WHERE b.boundary = type);
			before jsonb := CASE WHEN NOT is_boundary THEN cqrs_es.aggregate_state(type, id) END;
		BEGIN
			BEGIN
				IF is_boundary THEN
					state := (SELECT e.state FROM cqrs_es.execute_boundary(type, command, payload) AS e);
				ELSE
					PERFORM cqrs_es.execute_command(type, id, command, payload);
					state := cqrs_es.aggregate_state(type, id);
				END IF;
				outcome := CASE
					WHEN (SELECT bool_or(v @? '$ ? (@ == "NaN" || @ == "12.50")') FROM jsonb_path_query(state,
						'$.** ? (@.type() == "object").keyvalue() ? (@.key == "amount" || @.key == "price" || @.key == "quantity" || @.key == "capacity").value') v)
						THEN 'took it for a number'
					WHEN state @? '$.balance ? (@ < 0 || @ == 1000000 || @.type() != "number")' THEN 'balance'
					WHEN state @? '$.capacity ? (@ == 78)' THEN 'rounded'
					WHEN state @? '$.total ? (@ < 0 || @.type() != "number")' THEN 'total'
					WHEN state @? '$.closed ? (@ != true)' THEN 'closed'
					WHEN state @? '$.version ? (@.type() != "number")' THEN 'version'
					WHEN command ~ '^(Create|Open|Add)' AND state @? '$.status ? (@ != "open" && @ != "cancelled")' THEN 'status'
					WHEN command = 'Withdraw' AND (state->>'balance')::numeric >= (before->>'balance')::numeric THEN 'rose'
					ELSE 'fine' END;
				RAISE 'undo' USING ERRCODE = 'ZZ000', DETAIL = outcome;
			EXCEPTION
				WHEN SQLSTATE 'QE301' THEN outcome := 'fine';
				WHEN SQLSTATE 'ZZ000' THEN GET STACKED DIAGNOSTICS outcome = PG_EXCEPTION_DETAIL;
				-- keys that make no tags: no decider is asked
				WHEN SQLSTATE 'QE502' OR string_data_right_truncation OR invalid_parameter_value THEN
					outcome := CASE WHEN is_boundary THEN 'fine' ELSE SQLSTATE || ' ' || SQLERRM END;
				WHEN OTHERS THEN outcome := SQLSTATE || ' ' || SQLERRM;
			END;
			INSERT INTO public.outcomes VALUES (format('%s %s', command, payload), outcome);
		END $$});

	my $list = join ', ', map { "'$_'" } @values;
	my $names = join ', ', map { "'$_'" } grep { $text =~ /\Q$_\E/ } @fields;
	my $wholes = join ', ', map { "'$_'" } @whole;
	$node->safe_psql($database, qq{
		SET check_function_bodies = off;
		-- each on a stream that is there, where there is one, and on a new one; whole, and one field wrong among fields that are right
		SELECT public.send(c.aggregate_type, i.id, c.command_type, p.payload)
		FROM cqrs_es.commands c
		CROSS JOIN LATERAL (SELECT '00000000-0000-4000-8000-00000000dead' UNION ALL
			(SELECT DISTINCT aggregate_id FROM cqrs_es.events e WHERE e.aggregate_type = c.aggregate_type AND tenant_id = '' LIMIT 3)) i (id)
		CROSS JOIN LATERAL (SELECT w::jsonb FROM unnest(ARRAY[$wholes]) w
			UNION ALL SELECT g || jsonb_build_object(f, v::jsonb) FROM unnest(ARRAY[$names]) f, unnest(ARRAY[$list]) v,
				(VALUES ('{"amount": 1, "owner": "Ada", "title": "t", "price": 1, "quantity": 1, "show": "hamlet", "seat": "Z9", "atm_id": "ATM34f1ba3c",
					"widget_name": "n", "widget_description": "d", "circle_name": "c", "capacity": 5, "customerId": "C", "reason": "r", "sku": "s", "customer": "c", "minutes": 15,
					"items": [{"sku": "a", "quantity": 1, "price": 2}], "check_number": "1170", "courseId": "chess", "studentId": "s"}'::jsonb)) g (g)
			UNION ALL SELECT jsonb_build_object(f, v::jsonb) FROM unnest(ARRAY[$names]) f, unnest(ARRAY[$list]) v) p (payload)});
	my $sent = $node->safe_psql($database, 'SELECT count(*) FROM public.outcomes');
	cmp_ok($sent, '>', 10, "$source: $sent commands");
	$commands += $sent;
	is($node->safe_psql($database, q{SELECT what, outcome FROM public.outcomes WHERE outcome <> 'fine' ORDER BY 2, 1 LIMIT 5}), '',
		"$source: each is refused or right");
}
cmp_ok($commands, '>', 1000, 'there were commands');

$node->stop;
done_testing();
