# docs/reference.md says what the catalog says, and nothing else: functions with
# their arguments, results and whether PUBLIC may call them, tables and views with
# their columns, settings, fixed settings, SQLSTATEs. Breaches are planted on both
# sides, to see that they would be found.

use strict;
use warnings FATAL => 'all';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{TESTDIR};
my $node = PostgreSQL::Test::Cluster->new('reference');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION cqrs_es');

my $page = slurp_file("$root/docs/reference.md");
is(join("\n", differences($page)), '', 'the reference says what the catalog says');

my %counts;
$counts{(split / /)[0]}++ foreach keys %{ facts_of_page($page) };
cmp_ok($counts{$_} // 0, '>=', 3, "it says something about each $_") foreach qw(function internal relation setting fixed sqlstate);

# Breaches of the page: each is one change of its text.
my @breaches = (
	[ 'a default that is another', sub { s/snapshot_every integer DEFAULT 100/snapshot_every integer DEFAULT 50/ } ],
	[ 'an argument that is not there', sub { s/backward boolean DEFAULT false, raw boolean DEFAULT false\)/backward boolean DEFAULT false, raw boolean DEFAULT false, sorted boolean DEFAULT true)/ } ],
	[ 'an argument of another name', sub { s/drop_handler\(projection text/drop_handler(name text/ } ],
	[ 'another result', sub { s/stream_version\((.*?)\) RETURNS bigint/stream_version($1) RETURNS integer/ } ],
	[ 'one of several signatures is missing', sub { s/^define_reducer\(.*regprocedure\) RETURNS void\n//m } ],
	[ 'a function is missing', sub { s/^#### pause_projection\n.*?(?=^####)//ms } ],
	[ 'a function that is not there', sub { s/^(#### pause_projection\n)/#### stop_projection\n\n```text\nstop_projection(name text) RETURNS void\n```\n\n- **Rights**: `EXECUTE`.\n\n$1/m } ],
	[ 'a signature under another heading', sub { s/^#### pause_projection$/#### halt_projection/m } ],
	[ 'a closed function is called open', sub { s/(^#### last_position\n.*?\*\*Rights\*\*: )`EXECUTE`/$1none/ms } ],
	[ 'an open function is called closed', sub { s/(^#### log_id\n.*?\*\*Rights\*\*: )reader/$1`EXECUTE`/ms } ],
	[ 'nothing is said of rights', sub { s/(^#### log_id\n.*?)- \*\*Rights\*\*.*?\n/$1/ms } ],
	[ 'an internal function is missing', sub { s/`resolve_names`, // } ],
	[ 'an internal function that is not there', sub { s/`resolve_names`/`resolve_names`, `resolve_more`/ } ],
	[ 'a view is missing', sub { s/^\| `missing_objects`.*\n//m } ],
	[ 'a column is missing', sub { s/`activity`, `pid`/`activity`/ } ],
	[ 'a table that is not there', sub { s/^(\| `snapshots`)/| `topics` | `name` | |\n$1/m } ],
	[ 'a setting is missing', sub { s/^\| `cqrs_es\.retry_window`.*\n//m } ],
	[ 'another default of a setting', sub { s/`cqrs_es\.command_retries` \| `3`/`cqrs_es.command_retries` | `5`/ } ],
	[ 'another range of a setting', sub { s/0 to 511/0 to 1023/ } ],
	[ 'a setting without its unit', sub { s/2147483647 \| ms/2147483647 | / } ],
	[ 'a setting for others', sub { s/(`cqrs_es\.tenant_id`.*)superuser/$1everyone/ } ],
	[ 'a fixed setting is missing', sub { s/^\| `IntervalStyle`.*\n//m } ],
	[ 'another value of a fixed setting', sub { s/\| `TimeZone` \| `UTC`/| `TimeZone` | `Europe\/Berlin`/ } ],
	[ 'a SQLSTATE of ours is missing', sub { s/^\| `QE302`.*\n//m } ],
	[ 'a SQLSTATE of ours that is not there', sub { s/^(\| `QE301`)/| `QE999` | never | |\n$1/m } ],
	[ 'one of the server that we raise is missing', sub { s/^\| `2202E`.*\n//m } ],
	[ 'a function raises what is not explained', sub { s/\*\*Raises\*\*: `QE302`|\*\*Raises\*\*: `42704`/**Raises**: `42P99`/ } ],
);
foreach my $breach (@breaches)
{
	my ($name, $change) = @$breach;
	local $_ = $page;
	$change->();
	isnt($_, $page, "planted: $name") or next;
	cmp_ok(scalar differences($_), '>=', 1, 'and found');
}

# Breaches of the catalog.
foreach my $statement ('CREATE FUNCTION cqrs_es.planted() RETURNS int LANGUAGE sql RETURN 1',
	'ALTER VIEW cqrs_es.missing_objects RENAME TO planted', 'SET session_replication_role = replica; ALTER TABLE cqrs_es.snapshots ADD COLUMN planted int',
	'REVOKE EXECUTE ON FUNCTION cqrs_es.read_all FROM PUBLIC', 'CREATE VIEW cqrs_es.planted AS SELECT 1 AS n')
{
	cmp_ok(scalar differences($page, $statement), '>=', 1, "found: $statement");
}

$node->stop;
done_testing();

# What one side says and the other does not, as lines; with a statement, when that has been executed.
sub differences
{
	my ($text, $statement) = @_;
	my $page_facts = facts_of_page($text);
	my @internal = map { /^internal (.*)/ ? $1 : () } keys %$page_facts;
	my $catalog = facts_of_catalog($statement, @internal);
	my @lines = unexplained($text, $page_facts);

	foreach my $fact (sort keys %$catalog)
	{
		push @lines, "not in the reference: $fact" unless exists $page_facts->{$fact};
	}
	foreach my $fact (sort keys %$page_facts)
	{
		push @lines, "only in the reference: $fact" unless exists $catalog->{$fact};
		push @lines, "of $fact the reference says '$page_facts->{$fact}', the catalog '$catalog->{$fact}'"
		  if exists $catalog->{$fact} && $catalog->{$fact} ne $page_facts->{$fact};
	}
	return @lines;
}

# Facts are names with what is said of them.
sub facts_of_catalog
{
	my ($statement, @internal) = @_;
	my $internal = join ', ', map { "'$_'" } 'none', @internal;
	my $sql = qq{
		SELECT CASE WHEN proname IN ($internal) THEN 'internal ' || proname
			ELSE format('function %s(%s) %s', proname, CASE prokind WHEN 'p' THEN replace(pg_get_function_arguments(p.oid), 'IN ', '') ELSE pg_get_function_arguments(p.oid) END,
				coalesce('RETURNS ' || pg_get_function_result(p.oid), 'PROCEDURE')) END,
			CASE WHEN proname IN ($internal) THEN ''
			WHEN EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) a WHERE a.grantee = 0) THEN 'open' ELSE 'closed' END
		FROM pg_proc p WHERE pronamespace = 'cqrs_es'::regnamespace
		UNION ALL SELECT 'relation ' || relname, string_agg(attname, ', ' ORDER BY attnum)
		FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
		WHERE relnamespace = 'cqrs_es'::regnamespace AND relkind IN ('r', 'v') GROUP BY relname
		UNION ALL SELECT 'setting ' || name, concat_ws('; ', nullif(boot_val, ''), min_val || ' to ' || max_val, unit, CASE context WHEN 'user' THEN 'everyone' ELSE context END)
		FROM pg_settings WHERE name LIKE 'cqrs\\_es.%'};
	my $rows = $node->safe_psql('postgres', join ';', "LOAD 'cqrs_es'", 'BEGIN', $statement // (), $sql, 'ROLLBACK');
	my %facts;

	foreach (split /\n/, $rows)
	{
		my ($fact, $said) = split /\|/, $_, 2;
		$facts{ plain($fact) } = $said;
	}
	$facts{"fixed $_->[0]"} = $_->[1] foreach fixed_settings();
	$facts{"sqlstate $_"} = '' foreach raised_here();
	return \%facts;
}

# The fixed settings of the source, each with its value.
sub fixed_settings
{
	my $source = slurp_file("$root/src/base/fixed_settings.c");
	my @pairs;
	push @pairs, [ $1, $2 ] while $source =~ /^\t\{"(\S+)", "(.*?)"\},$/mg;
	return @pairs;
}

# The SQLSTATEs of our own, and those of the server that our source raises.
sub raised_here
{
	my $server = $ENV{PG_CONFIG} ? `$ENV{PG_CONFIG} --includedir-server` : `pg_config --includedir-server`;
	chomp $server;
	my %codes;
	foreach my $header ("$root/src/base/errors.h", "$server/utils/errcodes.h")
	{
		my $text = slurp_file($header);
		my %quoted = $text =~ /^#define (ERRCODE_\w+)\s+MAKE_SQLSTATE\(([^)]*)\)/mg;
		$codes{$_} = $quoted{$_} =~ tr/0-9A-Z//cdr foreach keys %quoted;
	}
	my %raised = map { $_ => 1 } grep { /^QE/ } values %codes;
	foreach my $file (glob "$root/src/*/*.c")
	{
		$raised{ $codes{$_} // $_ } = 1 foreach slurp_file($file) =~ /\berrcode\((ERRCODE_\w+)\)/g;
	}
	return keys %raised;
}

sub facts_of_page
{
	my ($text) = @_;
	my %facts;
	my ($functions, $relations, $settings, $fixed, $states) =
	  map { section($text, $_) } 'Functions', 'Tables and views', 'Settings', 'Fixed settings', 'SQLSTATEs';
	my ($internal) = $functions =~ /^### Internal functions\n(.*)/ms;

	my %rights;
	foreach my $entry (split /^(?=####? )/m, $functions)
	{
		my ($name, $signatures) = $entry =~ /^#### (\w+)\n\n```text\n(.*?)^```$/ms or next;
		my ($says) = $entry =~ /^- \*\*Rights\*\*.*?: (.*)$/m;
		$rights{$name} = !defined $says ? 'unsaid' : $says =~ /^as `(\w+)`/ ? $rights{$1} :
		  $says =~ /`EXECUTE`/ ? 'closed' : 'open';
		foreach my $signature (split /\n(?=\S)/, $signatures)
		{
			my $fact = plain("function $signature");
			$fact = "function under heading $name: $signature" unless $fact =~ /^function \Q$name\E\(/;
			$facts{$fact} = $rights{$name};
		}
	}
	$facts{"internal $_"} = '' foreach ($internal =~ /^`next_position`.*\z/ms ? $& : '') =~ /`(\w+)`/g;
	$facts{"relation $_->[0]"} = join ', ', $_->[1] =~ /`(\w+)`/g foreach rows($relations);
	foreach (rows($settings))
	{
		my ($name, @said) = @$_;
		$facts{"setting $name"} = join '; ', grep { length } map { tr/`//dr } @said[ 0 .. 3 ];
	}
	$facts{"fixed $_->[0]"} = $_->[1] =~ tr/`//dr foreach rows($fixed);
	$facts{"sqlstate $_->[0]"} = '' foreach grep { is_raised($_->[0]) } rows($states);
	return \%facts;
}

# What the server raises by itself may be explained, too.
my %raised;
sub is_raised
{
	%raised = map { $_ => 1 } raised_here() unless %raised;
	return $_[0] =~ /^QE/ || $raised{ $_[0] };
}

# SQLSTATEs that functions name and the tables of the page do not explain.
sub unexplained
{
	my ($text) = @_;
	my %explained = map { $_->[0] => 1 } rows(section($text, 'SQLSTATEs'));
	my @named = grep { /\d/ } section($text, 'Functions') =~ /`([0-9A-Z]{5})`/g;
	return map { "not explained: $_" } grep { !$explained{$_} } @named;
}

# A part of the page, between its heading and the next of that level.
sub section
{
	my ($text, $title) = @_;
	return $text =~ /^## \Q$title\E\n(.*?)(?=^## |\z)/ms ? $1 : '';
}

# Rows of the tables in it whose first cell is a name, as cells without padding.
sub rows
{
	my ($text) = @_;
	my @rows;
	foreach (split /\n/, $text)
	{
		next unless /^\| `/;
		my @cells = map { s/^\s+|\s+$//gr } split /\|/;
		shift @cells;
		$cells[0] =~ tr/`//d;
		push @rows, \@cells;
	}
	return @rows;
}

# Signatures without line ends, with short names of types and without casts of defaults.
sub plain
{
	my ($signature) = @_;
	for ($signature)
	{
		s/\s+/ /g;
		s/::[a-z][a-z ]*(\[\])?//g;
		s/timestamp with time zone/timestamptz/g;
		s/ $//;
	}
	return $signature;
}
