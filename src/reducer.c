/*-------------------------------------------------------------------------
 * reducer.c
 *	  Declared aggregates with their reducers: state + event -> state.
 *
 * A reducer is a function (state jsonb, event cqrs_es.event) returning jsonb in
 * any language; an event type without one is merged into the state (RFC 7396).
 * It runs with the rights of whoever reads the state, like any function he
 * could call himself.
 *
 * The registry keeps a function by its full signature, not by its oid, so that
 * it survives dump and restore.  DROP FUNCTION is refused while a reducer uses
 * it (an event trigger, since rows have no entries in pg_depend).
 *
 * The fingerprint covers the initial state, the event types, and every
 * function's signature and source.  A snapshot made under another fingerprint
 * is never used.  It does not see into functions that a reducer calls.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "commands/event_trigger.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "compat.h"
#include "cqrs_es.h"
#include "errors.h"
#include "json_merge.h"
#include "reducer.h"

/* changes when the fold itself changes what it makes of the same declarations */
#define FOLD_RULES "cqrs_es fold 1"

static RegistryCache aggregate_cache = {
	.name = "cqrs_es aggregates",.entry_size = sizeof(Aggregate)
};

PG_FUNCTION_INFO_V1(cqrs_es_define_reducer);
PG_FUNCTION_INFO_V1(cqrs_es_protect_reducer_functions);

static void load_aggregate(Aggregate *aggregate, const text *aggregate_type);
static void load_reducers(Aggregate *aggregate, const text *aggregate_type,
						  pg_cryptohash_ctx *hash);
static void hash_text(pg_cryptohash_ctx *hash, const char *value);
static void check_signature(Oid function);
static void check_execute(Oid function);
static Reducer * find_reducer(Aggregate *aggregate, const text *event_type);

/* SQL: define_reducer(aggregate_type, event_type, function); replaces an earlier one. */
Datum
cqrs_es_define_reducer(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.reducers AS r (aggregate_type, event_type, function)"
		" VALUES ($1, $2, $3)"
		" ON CONFLICT (aggregate_type, event_type) DO UPDATE SET function = excluded.function",
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTOID}
	};
	text	   *type = RequiredText(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *event_type = RequiredText(fcinfo->args[1], "event_type", EVENT_TYPE_MAX_BYTES);
	Datum		values[3];

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("function must not be null")));
	(void) AggregateRequire(type);
	check_signature(PG_GETARG_OID(2));
	check_execute(PG_GETARG_OID(2));
	values[0] = PointerGetDatum(type);
	values[1] = PointerGetDatum(event_type);
	values[2] = CStringGetTextDatum(format_procedure_qualified(PG_GETARG_OID(2)));
	(void) RegistryWrite(&query, values, NULL);
	PG_RETURN_VOID();
}

/*
 * SQL: the event trigger on sql_drop.  Refuses to drop a function that a
 * reducer uses, since rows cannot depend on functions by themselves.
 */
Datum
cqrs_es_protect_reducer_functions(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "SELECT r.aggregate_type, r.event_type, r.function"
		" FROM pg_catalog.pg_event_trigger_dropped_objects() AS d"
		" JOIN cqrs_es.reducers AS r ON r.function OPERATOR(pg_catalog.=) d.object_identity"
		" WHERE d.object_type OPERATOR(pg_catalog.=) 'function' ORDER BY 1, 2 LIMIT 1",
		.nargs = 0,.argtypes = {InvalidOid}
	};

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired as an event trigger", "protect_reducer_functions()")));
	/* the extension itself may be what is dropped */
	if (!OidIsValid(get_namespace_oid(CQRS_ES_SCHEMA, true)) ||
		!OidIsValid(get_relname_relid("reducers", get_namespace_oid(CQRS_ES_SCHEMA, true))))
		PG_RETURN_VOID();

	SPI_connect();
	if (RegistryRead(&query, NULL) > 0)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;

		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop function %s because a reducer uses it",
						SPI_getvalue(row, desc, 3)),
				 errdetail("It is the reducer of aggregate type \"%s\" for event type \"%s\".",
						   SPI_getvalue(row, desc, 1), SPI_getvalue(row, desc, 2)),
				 errhint("Define another reducer first.")));
	}
	SPI_finish();
	PG_RETURN_VOID();
}

/* The declaration of an aggregate type; NULL when there is none. */
Aggregate *
AggregateGet(const text *aggregate_type)
{
	bool		found;
	Aggregate  *aggregate = RegistryCacheLookup(&aggregate_cache, aggregate_type, &found);

	if (!found)
		aggregate->loaded = false;
	if (!aggregate->loaded)
		load_aggregate(aggregate, aggregate_type);
	return aggregate->declared ? aggregate : NULL;
}

/* The same, or QE101. */
Aggregate *
AggregateRequire(const text *aggregate_type)
{
	Aggregate  *aggregate = AggregateGet(aggregate_type);

	if (aggregate == NULL)
	{
		char	   *name = text_to_cstring(aggregate_type);

		ereport(ERROR,
				(errcode(ERRCODE_UNDECLARED_AGGREGATE),
				 errmsg("aggregate type \"%s\" is not declared", name),
				 errdetail("Events of any type can be appended and read; state, snapshots and reducers need a declaration."),
				 errhint("Declare it with SELECT cqrs_es.create_aggregate(%s).",
						 quote_literal_cstr(name))));
	}
	return aggregate;
}

/*
 * The state after an event.  Allocates in the current memory context; the
 * result may also be `state` itself or a part of the event.
 * Raises 42883 for a function that is gone, 42501, and what it raises itself.
 */
Jsonb *
ReducerApply(Aggregate *aggregate, Jsonb *state, const Event *event)
{
	Reducer    *reducer = find_reducer(aggregate, EventText(event, EVENT_EVENT_TYPE));
	LOCAL_FCINFO(fcinfo, 2);
	Datum		result;

	if (reducer == NULL)
		return JsonMergePatch(state, DatumGetJsonbP(event->values[EVENT_PAYLOAD]));

	if (!reducer->ready)
	{
		if (!OidIsValid(reducer->function))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("function %s does not exist", reducer->signature),
					 errdetail("It is the reducer of aggregate type \"%s\" for event type \"%s\".",
							   aggregate->aggregate_type, text_to_cstring(reducer->event_type)),
					 errhint("Create it again, or define another reducer.")));
		fmgr_info_cxt(reducer->function, &reducer->finfo, GetMemoryChunkContext(aggregate->reducers));
		reducer->ready = true;
	}
	if (reducer->checked_role != GetUserId())
	{
		check_execute(reducer->function);
		reducer->checked_role = GetUserId();
	}
	InitFunctionCallInfoData(*fcinfo, &reducer->finfo, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = JsonbPGetDatum(state);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = EventToComposite(event);
	fcinfo->args[1].isnull = false;
	result = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("reducer %s returned null", reducer->signature),
				 errhint("Return the state unchanged when an event does not concern it.")));
	return DatumGetJsonbP(result);
}

/*-------------------------------------------------------------------------
 * loading
 *-------------------------------------------------------------------------
 */

static void
load_aggregate(Aggregate *aggregate, const text *aggregate_type)
{
	static InternalQuery query = {
		.sql = "SELECT initial_state, snapshot_every FROM cqrs_es.aggregates"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(aggregate_type);
	MemoryContext memory = aggregate_cache.memory;

	SPI_connect();
	aggregate->declared = RegistryRead(&query, &value) > 0;
	if (aggregate->declared)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
		bool		isnull;
		Jsonb	   *initial = DatumGetJsonbP(SPI_getbinval(row, desc, 1, &isnull));

		aggregate->initial_state = MemoryContextAlloc(memory, VARSIZE(initial));
		memcpy(aggregate->initial_state, initial, VARSIZE(initial));
		aggregate->snapshot_every = DatumGetInt32(SPI_getbinval(row, desc, 2, &isnull));

		if (hash == NULL || pg_cryptohash_init(hash) < 0)
			elog(ERROR, "could not compute a fingerprint");
		hash_text(hash, FOLD_RULES);
		hash_text(hash, JsonbToCString(NULL, &initial->root, VARSIZE(initial)));
		load_reducers(aggregate, aggregate_type, hash);
		aggregate->fingerprint = MemoryContextAlloc(memory, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
		SET_VARSIZE(aggregate->fingerprint, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
		if (pg_cryptohash_final(hash, (uint8 *) VARDATA(aggregate->fingerprint),
								PG_SHA256_DIGEST_LENGTH) < 0)
			elog(ERROR, "could not compute a fingerprint");
		pg_cryptohash_free(hash);
	}
	SPI_finish();
	aggregate->loaded = true;
}

static void
load_reducers(Aggregate *aggregate, const text *aggregate_type, pg_cryptohash_ctx *hash)
{
	static InternalQuery query = {
		.sql = "SELECT r.event_type, r.function, p.oid, p.prosrc, p.probin"
		" FROM cqrs_es.reducers AS r LEFT JOIN pg_catalog.pg_proc AS p"
		" ON p.oid OPERATOR(pg_catalog.=) pg_catalog.to_regprocedure(r.function)::pg_catalog.oid"
		" WHERE r.aggregate_type OPERATOR(pg_catalog.=) $1 ORDER BY r.event_type",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(aggregate_type);
	uint64		n = RegistryRead(&query, &value);
	TupleDesc	desc = SPI_tuptable->tupdesc;
	uint64		i;

	aggregate->nreducers = (int) n;
	aggregate->reducers = MemoryContextAllocZero(aggregate_cache.memory,
												 Max(n, 1) * sizeof(Reducer));
	for (i = 0; i < n; i++)
	{
		Reducer    *reducer = &aggregate->reducers[i];
		HeapTuple	row = SPI_tuptable->vals[i];
		char	   *event_type = SPI_getvalue(row, desc, 1);
		MemoryContext caller = MemoryContextSwitchTo(aggregate_cache.memory);
		bool		isnull;
		Datum		oid;

		reducer->event_type = cstring_to_text(event_type);
		reducer->signature = pstrdup(SPI_getvalue(row, desc, 2));
		MemoryContextSwitchTo(caller);
		oid = SPI_getbinval(row, desc, 3, &isnull);
		reducer->function = isnull ? InvalidOid : DatumGetObjectId(oid);
		hash_text(hash, event_type);
		hash_text(hash, reducer->signature);
		hash_text(hash, SPI_getvalue(row, desc, 4));
		hash_text(hash, SPI_getvalue(row, desc, 5));
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

/*-------------------------------------------------------------------------
 * helpers
 *-------------------------------------------------------------------------
 */

static Reducer *
find_reducer(Aggregate *aggregate, const text *event_type)
{
	int			i;

	for (i = 0; i < aggregate->nreducers; i++)
		if (TextEqual(aggregate->reducers[i].event_type, event_type))
			return &aggregate->reducers[i];
	return NULL;
}

/* A plain function (jsonb, cqrs_es.event) returning jsonb; else 42P13. */
static void
check_signature(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	bool		fits;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", function)));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	fits = proc->prokind == PROKIND_FUNCTION && !proc->proretset &&
		proc->prorettype == JSONBOID && proc->pronargs == 2 &&
		proc->proargtypes.values[0] == JSONBOID &&
		proc->proargtypes.values[1] == EventsTypeOid();
	ReleaseSysCache(tuple);
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("function %s cannot be a reducer", format_procedure(function)),
				 errdetail("A reducer is a function (state jsonb, event cqrs_es.event) that returns jsonb.")));
}

static void
check_execute(Oid function)
{
	AclResult	result = compat_proc_aclcheck(function, GetUserId(), ACL_EXECUTE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FUNCTION, get_func_name(function));
}
