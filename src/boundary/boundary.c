/*-------------------------------------------------------------------------
 * boundary.c
 *	  Boundaries: declared, changed, dropped, loaded.
 *
 * A boundary is declared like an aggregate type.  Where that has streams, this has a query
 * with pointers into the command (boundary_query.c): it says which events, of whatever
 * streams, a decision is made on.  The rest is the same: an initial state, reducers and
 * commands, which are defined for its name by the same functions and stand in the same
 * tables (state_rules.c).  So a boundary and an aggregate type cannot have one name.
 *
 * Which events match a query depends on the definitions of tags as well: with those that
 * are defined later retag gives tags to events that were there before.  So they are part of
 * the fingerprint of its states.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/registry_function.h"
#include "base/text.h"
#include "log/events.h"
#include "tag/tag_definition.h"
#include "aggregate/state_rules.h"
#include "boundary/boundary.h"
#include "boundary/boundary_query.h"

static void load(void *entry, const text *name, MemoryContext memory);

static RegistryCache boundary_cache = {
	.name = "cqrs_es boundaries",.entry_size = sizeof(Boundary),.load = load
};

PG_FUNCTION_INFO_V1(cqrs_es_create_boundary);
PG_FUNCTION_INFO_V1(cqrs_es_alter_boundary);
PG_FUNCTION_INFO_V1(cqrs_es_drop_boundary);
PG_FUNCTION_INFO_V1(cqrs_es_boundary_query);

#define NARGS 4

/* Arguments of create_boundary and alter_boundary. */
typedef struct BoundaryArgs
{
	Datum		values[NARGS];
	char		nulls[NARGS];
} BoundaryArgs;

static BoundaryArgs boundary_args(FunctionCallInfo fcinfo);
static bool change_existing(BoundaryArgs *args, bool tell);
static bool lock_if_declared(const text *name, bool change);
static void report_missing(const text *name, bool if_exists);

const StateOwner BoundaryOwner = {
	.noun = "boundary",.of_streams = false,.lock = lock_if_declared
};

void
BoundaryInit(void)
{
	RegistryRegister("boundaries");
	StateRulesRegisterOwner(&BoundaryOwner);
}

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/*
 * SQL: create_boundary(boundary, query, initial_state, snapshot_every).  What is there
 * already is left when it is the same, so that a migration can be run again, and changed
 * when it is not.
 */
Datum
cqrs_es_create_boundary(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.boundaries (boundary, query, initial_state, snapshot_every)"
		" VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		.nargs = NARGS,.argtypes = {TEXTOID, JSONBOID, JSONBOID, INT4OID}
	};
	static const char *const names[] = {"", "query", "initial_state", "snapshot_every"};
	BoundaryArgs args = boundary_args(fcinfo);
	text	   *name = DatumGetTextPP(args.values[0]);
	int			i;

	ReadOnlyPrevent(fcinfo);
	for (i = 1; i < NARGS; i++)
		if (args.nulls[i] != ' ')
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", names[i])));
	StateRulesLockName(name);
	/* somebody else may write into the table by hand between the two */
	while (!change_existing(&args, true))
	{
		StateRulesRequireFreeName(name, &BoundaryOwner);
		if (RegistryWrite(&query, args.values, NULL) > 0)
			break;
		CHECK_FOR_INTERRUPTS();
	}
	PG_RETURN_VOID();
}

/* SQL: alter_boundary, the same arguments; null leaves a property as it is. */
Datum
cqrs_es_alter_boundary(PG_FUNCTION_ARGS)
{
	BoundaryArgs args = boundary_args(fcinfo);

	ReadOnlyPrevent(fcinfo);
	if (!change_existing(&args, false))
		report_missing(DatumGetTextPP(args.values[0]), false);
	PG_RETURN_VOID();
}

/*
 * Make a boundary that is declared what the arguments say (null: as it is), and tell what
 * that changed; nothing is written when it is so already.  False when it is not declared.
 */
static bool
change_existing(BoundaryArgs *args, bool tell)
{
	/* documents as texts, since to jsonb 1 and 1.0 are equal */
	static InternalQuery compare = {
		.sql = "SELECT pg_catalog.concat_ws(', ',"
		" CASE WHEN query::pg_catalog.text IS DISTINCT FROM coalesce($2, query)::pg_catalog.text THEN pg_catalog.format('query was %s', query) END,"
		" CASE WHEN initial_state::pg_catalog.text IS DISTINCT FROM coalesce($3, initial_state)::pg_catalog.text THEN pg_catalog.format('initial_state was %s', initial_state) END,"
		" CASE WHEN snapshot_every IS DISTINCT FROM coalesce($4, snapshot_every) THEN pg_catalog.format('snapshot_every was %s', snapshot_every) END)"
		" AS differences FROM cqrs_es.boundaries WHERE boundary OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE",
		.nargs = NARGS,.argtypes = {TEXTOID, JSONBOID, JSONBOID, INT4OID}
	};
	static InternalQuery alter = {
		.sql = "UPDATE cqrs_es.boundaries SET"
		" query = coalesce($2, query),"
		" initial_state = coalesce($3, initial_state),"
		" snapshot_every = coalesce($4, snapshot_every)"
		" WHERE boundary OPERATOR(pg_catalog.=) $1",
		.nargs = NARGS,.argtypes = {TEXTOID, JSONBOID, JSONBOID, INT4OID}
	};

	return StateRulesChange(&BoundaryOwner, &compare, &alter, args->values, args->nulls, tell);
}

/*
 * SQL: drop_boundary(boundary, if_exists).  Its reducers, commands and snapshots go with it;
 * no event is its own.
 */
Datum
cqrs_es_drop_boundary(PG_FUNCTION_ARGS)
{
	static InternalQuery row = {
		.sql = "SELECT FROM cqrs_es.boundaries WHERE boundary OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery drop = {
		.sql = "DELETE FROM cqrs_es.boundaries WHERE boundary OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery snapshots = {
		.sql = "DELETE FROM cqrs_es.boundary_snapshots WHERE boundary OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	text	   *name = TextArgument(fcinfo->args[0], "boundary", BOUNDARY_MAX_BYTES);
	Datum		value = PointerGetDatum(name);

	ReadOnlyPrevent(fcinfo);
	StateRulesLockName(name);
	if (!RegistryDrop(&row, &drop, &value))
	{
		report_missing(name, RegistryIfExists(fcinfo->args[1]));
		PG_RETURN_VOID();
	}
	StateRulesDrop(name);
	(void) RegistryWrite(&snapshots, &value, NULL);
	PG_RETURN_VOID();
}

/* SQL: boundary_query(boundary, keys).  Takes SELECT on the log, as read_matching does. */
Datum
cqrs_es_boundary_query(PG_FUNCTION_ARGS)
{
	text	   *name = TextArgument(fcinfo->args[0], "boundary", BOUNDARY_MAX_BYTES);
	Jsonb	   *keys = BoundaryKeys(fcinfo->args[1], "keys");
	Jsonb	   *query;

	EventsCheckRights(ACL_SELECT);
	RegistryEnter();
	query = BoundaryQueryFill(BoundaryRequire(name)->query, keys, text_to_cstring(name));
	RegistryLeave();
	PG_RETURN_JSONB_P(query);
}

/* The arguments that create and alter share, as parameters of their statements. */
static BoundaryArgs
boundary_args(FunctionCallInfo fcinfo)
{
	BoundaryArgs args;
	int			i;

	args.values[0] = PointerGetDatum(TextArgument(fcinfo->args[0], "boundary", BOUNDARY_MAX_BYTES));
	for (i = 1; i < NARGS; i++)
		args.values[i] = fcinfo->args[i].value;
	for (i = 0; i < NARGS; i++)
		args.nulls[i] = fcinfo->args[i].isnull ? 'n' : ' ';
	if (!PG_ARGISNULL(1))
		(void) BoundaryQueryParse(PG_GETARG_JSONB_P(1));
	if (!PG_ARGISNULL(3) && PG_GETARG_INT32(3) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("snapshot_every must not be negative"),
				 errhint("0 takes no snapshots.")));
	return args;
}

/* QE501 to who wants to drop it or to use it. */
static void
report_missing(const text *name, bool if_exists)
{
	RegistryReportMissing(if_exists, ERRCODE_UNDECLARED_BOUNDARY,
						  "Those that are stand in the table cqrs_es.boundaries.",
						  psprintf("boundary \"%s\" is not declared", text_to_cstring(name)));
}

/* The owner's lock, see state_rules.h. */
static bool
lock_if_declared(const text *name, bool change)
{
	static InternalQuery to_keep = {
		.sql = "SELECT FROM cqrs_es.boundaries"
		" WHERE boundary OPERATOR(pg_catalog.=) $1 FOR KEY SHARE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery to_change = {
		.sql = "SELECT FROM cqrs_es.boundaries"
		" WHERE boundary OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(name);

	return RegistryWrite(change ? &to_change : &to_keep, &value, NULL) > 0;
}

/*-------------------------------------------------------------------------
 * for those who need a declaration
 *-------------------------------------------------------------------------
 */

/* The declaration of a boundary, or QE501. */
Boundary *
BoundaryRequire(const text *name)
{
	Boundary   *boundary = RegistryLookup(&boundary_cache, name);

	if (!boundary->declared)
		report_missing(name, false);
	return boundary;
}

/*
 * Is all that this declaration was read from still what it was, row by row?  As
 * AggregateIsCurrent; but for the definitions of tags, which the caller's lock on the log
 * keeps as they are.
 */
bool
BoundaryIsCurrent(const Boundary *boundary)
{
	const Boundary *now;

	if (boundary->entry.generation == RegistryGeneration())
		return true;
	now = RegistryLookup(&boundary_cache, cstring_to_text(boundary->entry.key));
	return now->declared && strcmp(now->rules.row_versions, boundary->rules.row_versions) == 0;
}

/* The document that the query's pointers point into; 22004 for none. */
Jsonb *
BoundaryKeys(NullableDatum arg, const char *what)
{
	if (arg.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what),
				 errhint("Where there are none use '{}'.")));
	return DatumGetJsonbP(arg.value);
}

/*-------------------------------------------------------------------------
 * loading
 *-------------------------------------------------------------------------
 */

/* Fill the cache; also with that there is none. */
static void
load(void *entry, const text *name, MemoryContext memory)
{
	static InternalQuery query = {
		.sql = "SELECT b.query, b.initial_state, b.snapshot_every, b.created_at, "
		ROW_VERSION("b") " AS row_version"
		" FROM cqrs_es.boundaries AS b WHERE b.boundary OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Boundary   *boundary = entry;
	Datum		value = PointerGetDatum(name);
	StateRulesRow rules;
	QueryRow	row;
	Jsonb	   *declared_query;
	MemoryContext spi;

	boundary->declared = RegistryRead(&query, &value) > 0;
	if (!boundary->declared)
		return;
	row = InternalQueryRow(0);
	boundary->snapshot_every = DatumGetInt32(InternalQueryDatum(&row, "snapshot_every", NULL));
	declared_query = DatumGetJsonbP(InternalQueryDatum(&row, "query", NULL));
	rules.initial_state = DatumGetJsonbP(InternalQueryDatum(&row, "initial_state", NULL));
	rules.created_at = DatumGetTimestampTz(InternalQueryDatum(&row, "created_at", NULL));
	rules.row_version = InternalQueryText(&row, "row_version");
	rules.source = TagDefinitionFingerprint();
	spi = MemoryContextSwitchTo(memory);
	boundary->query = BoundaryQueryParse(declared_query);
	MemoryContextSwitchTo(spi);
	StateRulesLoad(&boundary->rules, name, memory, &rules);
}
