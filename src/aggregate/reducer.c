/*-------------------------------------------------------------------------
 * reducer.c
 *	  Declared aggregates with their reducers: state + event -> state.
 *
 * A reducer is a list of operations (reducer_program.c), or a function (state
 * jsonb, event cqrs_es.event) returning jsonb in any language
 * (registry_function.c); the payload of an event type without one is merged
 * into the state (RFC 7396).
 *
 * The fingerprint covers the initial state, the event types, their operations,
 * every function's signature and source, and all upcasters.  A snapshot made under another fingerprint
 * is never used.  It does not see into functions that a reducer calls.  It covers
 * when the type was declared, too: an append that saves a snapshot beside
 * drop_aggregate may leave that behind, for a type that is declared anew.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/cqrs_es.h"
#include "base/definer.h"
#include "base/errors.h"
#include "log/upcast.h"
#include "aggregate/reducer.h"
#include "aggregate/reducer_program.h"

/* changes when the fold itself changes what it makes of the same declarations */
#define FOLD_RULES "cqrs_es fold 2"

static void load_aggregate(void *entry, const text *aggregate_type, MemoryContext memory);

static RegistryCache aggregate_cache = {
	.name = "cqrs_es aggregates",.entry_size = sizeof(Aggregate),.load = load_aggregate
};

PG_FUNCTION_INFO_V1(cqrs_es_define_reducer);
PG_FUNCTION_INFO_V1(cqrs_es_define_reducer_function);
PG_FUNCTION_INFO_V1(cqrs_es_define_reducer_operations);
PG_FUNCTION_INFO_V1(cqrs_es_drop_reducer);

static char *begin_definition(FunctionCallInfo fcinfo);
static Datum check_function(NullableDatum function);
static void save_reducer(FunctionCallInfo fcinfo, Datum function, Jsonb *operations,
						 const char *search_path);
pg_noreturn static void report_undeclared(const text *aggregate_type);
static void load_reducers(Aggregate *aggregate, const text *aggregate_type, MemoryContext memory,
						  pg_cryptohash_ctx *hash, StringInfo row_versions);
static void hash_text(pg_cryptohash_ctx *hash, const char *value);

void
ReducerInit(void)
{
	RegistryRegister("aggregates");
	RegistryRegister("reducers");
}

/* SQL: define_reducer(aggregate_type, event_type, function regprocedure) */
Datum
cqrs_es_define_reducer_function(PG_FUNCTION_ARGS)
{
	char	   *search_path = begin_definition(fcinfo);

	save_reducer(fcinfo, check_function(fcinfo->args[2]), NULL, search_path);
	PG_RETURN_VOID();
}

/* SQL: define_reducer(aggregate_type, event_type, operations jsonb) */
Datum
cqrs_es_define_reducer_operations(PG_FUNCTION_ARGS)
{
	char	   *search_path = begin_definition(fcinfo);

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("operations must not be null")));
	save_reducer(fcinfo, (Datum) 0, PG_GETARG_JSONB_P(2), search_path);
	PG_RETURN_VOID();
}

/*
 * SQL: define_reducer(aggregate_type, event_type, reducer text).  What a
 * literal without a cast arrives at: operations begin with a bracket, a
 * function's signature does not.
 */
Datum
cqrs_es_define_reducer(PG_FUNCTION_ARGS)
{
	char	   *search_path = begin_definition(fcinfo);
	char	   *reducer;

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("reducer must not be null")));
	reducer = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (strchr("[{", reducer[strspn(reducer, " \t\r\n")]) != NULL)
		save_reducer(fcinfo, (Datum) 0,
					 DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(reducer))),
					 search_path);
	else
		save_reducer(fcinfo, check_function(RegistryFunctionByName(reducer)), NULL, search_path);
	PG_RETURN_VOID();
}

/* Before anything is looked at: lock the aggregate type, and the search_path that is returned. */
static char *
begin_definition(FunctionCallInfo fcinfo)
{
	AggregateLock(RequiredText(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES), true);
	return DefinerSearchPath();
}

/* The signature of a function that is to be a reducer. */
static Datum
check_function(NullableDatum function)
{
	Oid			argtypes[2] = {JSONBOID, EventsTypeOid()};

	return RegistryFunctionSignature(function, JSONBOID, argtypes, 2,
									 "A reducer is a function (state jsonb, event cqrs_es.event) that returns jsonb.");
}

/* Store a function or operations, in place of an earlier reducer. */
static void
save_reducer(FunctionCallInfo fcinfo, Datum function, Jsonb *operations, const char *search_path)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.reducers"
		" (aggregate_type, event_type, function, search_path, operations)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (aggregate_type, event_type) DO UPDATE SET"
		" function = excluded.function, search_path = excluded.search_path,"
		" operations = excluded.operations",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID}
	};
	text	   *type = RequiredText(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *event_type = RequiredText(fcinfo->args[1], "event_type", EVENT_TYPE_MAX_BYTES);
	Datum		values[5] = {PointerGetDatum(type), PointerGetDatum(event_type), function,
	CStringGetTextDatum(search_path), JsonbPGetDatum(operations)};
	char		nulls[5] = {' ', ' ', function ? ' ' : 'n', ' ', operations ? ' ' : 'n'};

	if (operations)
		(void) ReducerProgramCompile(operations);
	(void) RegistryWrite(&query, values, nulls);
}

/* SQL: drop_reducer(aggregate_type, event_type) */
Datum
cqrs_es_drop_reducer(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.reducers WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND event_type OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	text	   *type = RequiredText(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *event_type = RequiredText(fcinfo->args[1], "event_type", EVENT_TYPE_MAX_BYTES);
	Datum		values[2] = {PointerGetDatum(type), PointerGetDatum(event_type)};

	AggregateLock(type, true);
	if (RegistryWrite(&query, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("reducer of aggregate type \"%s\" for event type \"%s\" does not exist",
						text_to_cstring(type), text_to_cstring(event_type))));
	PG_RETURN_VOID();
}

/* The declaration of an aggregate type; NULL when there is none. */
Aggregate *
AggregateGet(const text *aggregate_type)
{
	Aggregate  *aggregate = RegistryLookup(&aggregate_cache, aggregate_type);

	return aggregate->declared ? aggregate : NULL;
}

/* The same, or QE101. */
Aggregate *
AggregateRequire(const text *aggregate_type)
{
	Aggregate  *aggregate = AggregateGet(aggregate_type);

	if (aggregate == NULL)
		report_undeclared(aggregate_type);
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
	return now != NULL && strcmp(now->row_versions, aggregate->row_versions) == 0;
}

/*
 * For who declares something of it: it is declared (QE101), and stays so until
 * the end of the transaction.  Locks its row, and waits for who drops it; to
 * change its reducers or commands, also for who does that.
 */
void
AggregateLock(const text *aggregate_type, bool change)
{
	if (!RegistryLockAggregate(aggregate_type, change))
		report_undeclared(aggregate_type);
}

static void
report_undeclared(const text *aggregate_type)
{
	char	   *name = text_to_cstring(aggregate_type);

	ereport(ERROR,
			(errcode(ERRCODE_UNDECLARED_AGGREGATE),
			 errmsg("aggregate type \"%s\" is not declared", name),
			 errdetail("Events of any type can be appended and read; state, snapshots and reducers need a declaration."),
			 errhint("Declare it with SELECT cqrs_es.create_aggregate(%s).",
					 quote_literal_cstr(name))));
}

/* The reducer for an event type; NULL: merge the payload. */
Reducer *
ReducerFind(Aggregate *aggregate, const text *event_type)
{
	int			i;

	for (i = 0; i < aggregate->nreducers; i++)
		if (TextEqual(aggregate->reducers[i].event_type, event_type))
			return &aggregate->reducers[i];
	return NULL;
}

/*
 * Call a reducer that is a function.  Allocates in the current memory context;
 * the result may also be `state` itself or a part of the event.
 */
Jsonb *
ReducerCall(Reducer *reducer, FunctionCalls *calls, Jsonb *state, const Event *event)
{
	NullableDatum args[2] = {
		{.value = JsonbPGetDatum(state),.isnull = false},
		{.value = EventToComposite(event),.isnull = false}
	};

	return DatumGetJsonbP(RegistryFunctionCall(&reducer->function, calls, args, 2));
}

/*-------------------------------------------------------------------------
 * loading
 *-------------------------------------------------------------------------
 */

static void
load_aggregate(void *entry, const text *aggregate_type, MemoryContext memory)
{
	static InternalQuery query = {
		.sql = "SELECT a.initial_state, a.snapshot_every, a.keep_snapshots, a.created_at, "
		ROW_VERSION("a") " AS row_version"
		" FROM cqrs_es.aggregates AS a WHERE a.aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Aggregate  *aggregate = entry;
	Datum		value = PointerGetDatum(aggregate_type);
	QueryRow	row;
	Jsonb	   *initial;
	pg_cryptohash_ctx *hash;
	StringInfoData row_versions;
	const char *upcaster_rows;

	aggregate->declared = RegistryRead(&query, &value) > 0;
	if (!aggregate->declared)
		return;
	row = InternalQueryRow(0);
	initial = DatumGetJsonbP(InternalQueryDatum(&row, "initial_state", NULL));
	aggregate->initial_state = MemoryContextAlloc(memory, VARSIZE(initial));
	memcpy(aggregate->initial_state, initial, VARSIZE(initial));
	aggregate->snapshot_every = DatumGetInt32(InternalQueryDatum(&row, "snapshot_every", NULL));
	aggregate->keep_snapshots = DatumGetInt32(InternalQueryDatum(&row, "keep_snapshots", NULL));

	hash = pg_cryptohash_create(PG_SHA256);
	if (hash == NULL || pg_cryptohash_init(hash) < 0)
		elog(ERROR, "could not compute a fingerprint");
	hash_text(hash, FOLD_RULES);
	hash_text(hash, JsonbToCString(NULL, &initial->root, VARSIZE(initial)));
	hash_text(hash, psprintf(INT64_FORMAT,
							 DatumGetTimestampTz(InternalQueryDatum(&row, "created_at", NULL))));
	initStringInfo(&row_versions);
	appendStringInfoString(&row_versions, InternalQueryText(&row, "row_version"));
	load_reducers(aggregate, aggregate_type, memory, hash, &row_versions);
	hash_text(hash, UpcastFingerprint(&upcaster_rows));
	appendStringInfoString(&row_versions, upcaster_rows);
	aggregate->row_versions = MemoryContextStrdup(memory, row_versions.data);
	aggregate->fingerprint = MemoryContextAlloc(memory, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	SET_VARSIZE(aggregate->fingerprint, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	if (pg_cryptohash_final(hash, (uint8 *) VARDATA(aggregate->fingerprint),
							PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not compute a fingerprint");
	pg_cryptohash_free(hash);
}

static void
load_reducers(Aggregate *aggregate, const text *aggregate_type, MemoryContext memory,
			  pg_cryptohash_ctx *hash, StringInfo row_versions)
{
	static InternalQuery query = {
		.sql = "SELECT r.event_type, r.function, p.oid AS function_oid, r.search_path, r.operations,"
		" ROW(r.event_type, r.function, r.operations, r.search_path, " FUNCTION_SOURCE ")::pg_catalog.text AS source,"
		" " ROW_VERSIONS("r") " AS row_versions"
		" FROM cqrs_es.reducers AS r LEFT JOIN pg_catalog.pg_proc AS p"
		" ON p.oid OPERATOR(pg_catalog.=) pg_catalog.to_regprocedure(r.function)::pg_catalog.oid"
		" WHERE r.aggregate_type OPERATOR(pg_catalog.=) $1 ORDER BY r.event_type",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(aggregate_type);
	uint64		n = RegistryRead(&query, &value);
	uint64		i;

	aggregate->nreducers = (int) n;
	aggregate->reducers = MemoryContextAllocZero(memory, Max(n, 1) * sizeof(Reducer));
	for (i = 0; i < n; i++)
	{
		Reducer    *reducer = &aggregate->reducers[i];
		QueryRow	row = InternalQueryRow(i);
		MemoryContext caller = MemoryContextSwitchTo(memory);
		bool		isnull;
		Datum		operations = InternalQueryDatum(&row, "operations", &isnull);

		reducer->event_type = cstring_to_text(InternalQueryText(&row, "event_type"));
		if (!isnull)
			reducer->program = ReducerProgramCompile(DatumGetJsonbPCopy(operations));
		else
			RegistryFunctionInit(&reducer->function, &row, "reducer");
		MemoryContextSwitchTo(caller);
		hash_text(hash, InternalQueryText(&row, "source"));
		appendStringInfoString(row_versions, InternalQueryText(&row, "row_versions"));
	}
}

/* With the end of the string, so that no two lists of texts hash the same. */
static void
hash_text(pg_cryptohash_ctx *hash, const char *value)
{
	if (value == NULL)
		value = "";
	if (pg_cryptohash_update(hash, (const uint8 *) value, strlen(value) + 1) < 0)
		elog(ERROR, "could not compute a fingerprint");
}
