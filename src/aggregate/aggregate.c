/*-------------------------------------------------------------------------
 * aggregate.c
 *	  Aggregate types: declared, changed, dropped, loaded.
 *
 * How the states of a type come of its events says state_rules.c.  What else belongs to
 * it (snapshots, projections of its states) is in files of their own, above this one.
 * They say at Init what they do when a type is dropped (AggregateRegister).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/older_sql.h"
#include "base/read_only.h"
#include "base/registry_function.h"
#include "base/text.h"
#include "log/event_scan.h"
#include "log/events.h"
#include "log/horizon.h"
#include "aggregate/aggregate.h"
#include "aggregate/state_rules.h"

#define MAX_PARTS 8

static void load(void *entry, const text *type, MemoryContext memory);

static RegistryCache aggregate_cache = {
	.name = "cqrs_es aggregates",.entry_size = sizeof(Aggregate),.load = load,
	.table = "aggregates"
};

StaticAssertDecl(AGGREGATE_TYPE_MAX_BYTES < REGISTRY_KEY_BYTES, "aggregate types are keys of registries");

static const AggregatePart *parts[MAX_PARTS];
static int	nparts = 0;

PG_FUNCTION_INFO_V1(cqrs_es_create_aggregate);
PG_FUNCTION_INFO_V1(cqrs_es_alter_aggregate);
PG_FUNCTION_INFO_V1(cqrs_es_drop_aggregate);

static InternalQuery alter_query = {
	.sql = "UPDATE cqrs_es.aggregates SET"
	" initial_state = coalesce($2, initial_state),"
	" snapshot_every = coalesce($3, snapshot_every),"
	" keep_snapshots = coalesce($4, keep_snapshots),"
	" strict = coalesce($5, strict)"
	" WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
	.nargs = 5,.argtypes = {TEXTOID, JSONBOID, INT4OID, INT4OID, BOOLOID}
};

/* Arguments of create_aggregate and alter_aggregate. */
typedef struct AggregateArgs
{
	Datum		values[5];
	char		nulls[5];
} AggregateArgs;

static AggregateArgs aggregate_args(FunctionCallInfo fcinfo);
static bool change_existing(AggregateArgs *args, bool tell);
static void refuse_while_there_are_events(const text *type);
static bool lock_if_declared(const text *type, bool change);

const StateOwner AggregateOwner = {
	.noun = "aggregate type",.of_streams = true,.lock = lock_if_declared
};

void
AggregateInit(void)
{
	RegistryRegisterOfAllNodes("aggregates");
	StateRulesRegisterOwner(&AggregateOwner);
}

/* A part of aggregate types; called by Inits only, the order of calls is the order of work. */
void
AggregateRegister(const AggregatePart *part)
{
	if (nparts >= MAX_PARTS)
		elog(ERROR, "too many parts of aggregates");
	parts[nparts++] = part;
}

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/*
 * SQL: create_aggregate(aggregate_type, initial_state, snapshot_every, keep_snapshots,
 * strict).  What is there already is left when it is the same, so that a migration can
 * be run again, and changed when it is not, as what define_reducer defines.
 */
Datum
cqrs_es_create_aggregate(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.aggregates"
		" (aggregate_type, initial_state, snapshot_every, keep_snapshots, strict)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
		.nargs = 5,.argtypes = {TEXTOID, JSONBOID, INT4OID, INT4OID, BOOLOID}
	};
	static const char *const names[] = {"", "initial_state", "snapshot_every", "keep_snapshots", "strict"};
	AggregateArgs args = aggregate_args(OlderSqlCall(fcinfo, 5));
	int			i;

	for (i = 1; i < 5; i++)
		if (args.nulls[i] != ' ')
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", names[i])));
	StateRulesLockName(DatumGetTextPP(args.values[0]));
	/* somebody else may write into the table by hand between the two */
	while (!change_existing(&args, true))
	{
		StateRulesRequireFreeName(DatumGetTextPP(args.values[0]), &AggregateOwner);
		if (RegistryWrite(&query, args.values, NULL) > 0)
			break;
		CHECK_FOR_INTERRUPTS();
	}
	PG_RETURN_VOID();
}

/*
 * Make a type that is declared what the arguments say (null: as it is), and tell what
 * that changed; nothing is written when it is so already.  False when it is not declared.
 */
static bool
change_existing(AggregateArgs *args, bool tell)
{
	/* states as texts, since to jsonb 1 and 1.0 are equal */
	static InternalQuery compare = {
		.sql = "SELECT pg_catalog.concat_ws(', ',"
		" CASE WHEN initial_state::pg_catalog.text IS DISTINCT FROM coalesce($2, initial_state)::pg_catalog.text THEN pg_catalog.format('initial_state was %s', initial_state) END,"
		" CASE WHEN snapshot_every IS DISTINCT FROM coalesce($3, snapshot_every) THEN pg_catalog.format('snapshot_every was %s', snapshot_every) END,"
		" CASE WHEN keep_snapshots IS DISTINCT FROM coalesce($4, keep_snapshots) THEN pg_catalog.format('keep_snapshots was %s', keep_snapshots) END,"
		" CASE WHEN strict IS DISTINCT FROM coalesce($5, strict) THEN pg_catalog.format('strict was %s', strict) END)"
		" AS differences FROM cqrs_es.aggregates WHERE aggregate_type OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE",
		.nargs = 5,.argtypes = {TEXTOID, JSONBOID, INT4OID, INT4OID, BOOLOID}
	};

	return StateRulesChange(&AggregateOwner, &compare, &alter_query, args->values, args->nulls, tell);
}

/* SQL: alter_aggregate, the same arguments; null leaves a property as it is. */
Datum
cqrs_es_alter_aggregate(PG_FUNCTION_ARGS)
{
	AggregateArgs args = aggregate_args(OlderSqlCall(fcinfo, 5));

	if (!change_existing(&args, false))
		StateRulesReportUndeclared(DatumGetTextPP(args.values[0]));
	PG_RETURN_VOID();
}

/*
 * SQL: drop_aggregate(aggregate_type, force, if_exists).  What belongs to it goes with it, or
 * refuses (2BP01); its events stay, and it takes `force` when there are some.
 */
Datum
cqrs_es_drop_aggregate(PG_FUNCTION_ARGS)
{
	static InternalQuery lock = {
		.sql = "SELECT FROM cqrs_es.aggregates"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 FOR UPDATE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.aggregates WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	text	   *type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	Datum		value = PointerGetDatum(type);
	int			i;

	ReadOnlyPrevent(fcinfo);
	ExtensionRefuseOlder();
	StateRulesLockName(type);
	/* who declares something of it meanwhile has done so, or will find it gone */
	if (RegistryWrite(&lock, &value, NULL) == 0)
	{
		StateRulesReportMissing(type, RegistryIfExists(fcinfo->args[2]));
		PG_RETURN_VOID();
	}
	for (i = 0; i < nparts; i++)
		if (parts[i]->refuse_drop)
			parts[i]->refuse_drop(type);
	if (PG_ARGISNULL(1) || !PG_GETARG_BOOL(1))
		refuse_while_there_are_events(type);
	(void) RegistryWrite(&query, &value, NULL);
	StateRulesDrop(type);
	for (i = 0; i < nparts; i++)
		if (parts[i]->drop)
			parts[i]->drop(type);
	PG_RETURN_VOID();
}

/*
 * Whoever drops a type by mistake finds out when commands are sent for what still
 * has events, so ask.  2BP01.  Those of open transactions count: they are waited for.
 * (What is appended from now on, beside a drop that is not committed, is not
 * looked for; no harm is done to it.)
 */
static void
refuse_while_there_are_events(const text *type)
{
	char	   *aggregate_id;

	if (EventsNode() >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_IN_DISTRIBUTED_LOG),
				 errmsg("whether there are events of aggregate type \"%s\" is not known on each node of a distributed log",
						text_to_cstring(type)),
				 errhint("force => true drops the declaration, its reducers, commands and snapshots; events stay.")));
	aggregate_id = EventScanAggregateId(type);
	if (aggregate_id == NULL)
	{
		HorizonAwaitWriters();
		aggregate_id = EventScanAggregateId(type);
	}
	if (aggregate_id)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop aggregate type \"%s\" because there are events of it",
						text_to_cstring(type)),
				 errdetail("There is stream \"%s/%s\", for instance.", text_to_cstring(type), aggregate_id),
				 errhint("SELECT cqrs_es.drop_aggregate(%s, force => true) drops the declaration, its reducers, commands and snapshots; the events stay.",
						 quote_literal_cstr(text_to_cstring(type)))));
}

/* The arguments that create and alter share, as parameters of their statements. */
static AggregateArgs
aggregate_args(FunctionCallInfo fcinfo)
{
	AggregateArgs args;
	text	   *type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	int			i;

	ReadOnlyPrevent(fcinfo);
	ExtensionRefuseOlder();
	args.values[0] = PointerGetDatum(type);
	for (i = 1; i < 5; i++)
		args.values[i] = fcinfo->args[i].value;
	for (i = 0; i < 5; i++)
		args.nulls[i] = fcinfo->args[i].isnull ? 'n' : ' ';
	if (!PG_ARGISNULL(2) && PG_GETARG_INT32(2) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("snapshot_every must not be negative"),
				 errhint("0 takes no snapshots.")));
	if (!PG_ARGISNULL(3) && PG_GETARG_INT32(3) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("keep_snapshots must be greater than zero")));
	return args;
}

/*-------------------------------------------------------------------------
 * for those who need a declaration
 *-------------------------------------------------------------------------
 */

/* The declaration of an aggregate type; NULL when there is none. */
Aggregate *
AggregateGet(const text *type)
{
	Aggregate  *aggregate = RegistryLookup(&aggregate_cache, type);

	return aggregate->declared ? aggregate : NULL;
}

/* The same, or QE101. */
Aggregate *
AggregateRequire(const text *type)
{
	Aggregate  *aggregate = AggregateGet(type);

	if (aggregate == NULL)
		StateRulesReportUndeclared(type);
	return aggregate;
}

/*
 * Is all that this declaration was read from still what it was, row by row, the
 * functions and upcasters included?  Most often nothing was heard of a change;
 * else it is read again and compared.
 */
bool
AggregateIsCurrent(const Aggregate *aggregate)
{
	const Aggregate *now;

	if (aggregate->entry.generation == RegistryGeneration())
		return true;
	now = AggregateGet(cstring_to_text(aggregate->entry.key));
	return now != NULL && strcmp(now->rules.row_versions, aggregate->rules.row_versions) == 0;
}

/*
 * For who declares something of it: it is declared (QE101), and stays so until
 * the end of the transaction.  Locks its row, and waits for who drops it.  40001 above
 * READ COMMITTED when it is dropped meanwhile.
 */
void
AggregateLock(const text *type)
{
	if (!lock_if_declared(type, false))
		StateRulesReportUndeclared(type);
}

/* The owner's lock, see state_rules.h. */
static bool
lock_if_declared(const text *type, bool change)
{
	static InternalQuery to_keep = {
		.sql = "SELECT FROM cqrs_es.aggregates"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 FOR KEY SHARE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery to_change = {
		.sql = "SELECT FROM cqrs_es.aggregates"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(type);

	return RegistryWrite(change ? &to_change : &to_keep, &value, NULL) > 0;
}

/*-------------------------------------------------------------------------
 * loading
 *-------------------------------------------------------------------------
 */

/* Fill the cache; also with that there is none. */
static void
load(void *entry, const text *type, MemoryContext memory)
{
	static InternalQuery query = {
		.sql = "SELECT a.initial_state, a.snapshot_every, a.keep_snapshots, a.strict, a.created_at, "
		ROW_VERSION("a") " AS row_version"
		" FROM cqrs_es.aggregates AS a WHERE a.aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Aggregate  *aggregate = entry;
	Datum		value = PointerGetDatum(type);
	StateRulesRow rules;
	QueryRow	row;

	aggregate->declared = RegistryRead(&query, &value) > 0;
	if (!aggregate->declared)
		return;
	row = InternalQueryRow(0);
	aggregate->snapshot_every = DatumGetInt32(InternalQueryDatum(&row, "snapshot_every", NULL));
	aggregate->keep_snapshots = DatumGetInt32(InternalQueryDatum(&row, "keep_snapshots", NULL));
	aggregate->strict = DatumGetBool(InternalQueryDatum(&row, "strict", NULL));

	rules.initial_state = DatumGetJsonbP(InternalQueryDatum(&row, "initial_state", NULL));
	rules.created_at = DatumGetTimestampTz(InternalQueryDatum(&row, "created_at", NULL));
	rules.row_version = InternalQueryText(&row, "row_version");
	rules.source = NULL;
	StateRulesLoad(&aggregate->rules, type, memory, &rules);
}
