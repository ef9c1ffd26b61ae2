/*-------------------------------------------------------------------------
 * registry_function.c
 *	  A user's function that a registry names: reducer, upcaster, handler.
 *
 * Registries keep a function by its full signature, not by its oid, so that it
 * survives dump and restore.  DROP FUNCTION is refused while a registry names
 * it, by an event trigger, since rows have no entries in pg_depend.  What goes
 * wrong all the same (a function renamed) is a clear error when it is called.
 * (The event trigger's own function is in sql/78_protect.sql.)
 *
 * Functions run with the rights of whoever appends or reads, like any function
 * he could call himself; EXECUTE is checked when they are named and when they
 * are called.  They run with the search_path of whoever named them, since what
 * they return may go into a snapshot that everybody reads.
 *
 * What the server keeps for a function between calls belongs to one row of
 * calls (a fold, a read), not to the backend: it neither survives an error nor
 * allows a function to call itself through us.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "compat.h"
#include "cqrs_es.h"
#include "errors.h"
#include "registry.h"
#include "registry_function.h"

PG_FUNCTION_INFO_V1(cqrs_es_protect_functions);

/* A function that was called. */
typedef struct FunctionCall
{
	RegistryFunction *function;
	FmgrInfo	finfo;
	struct FunctionCall *next;
}			FunctionCall;

static FmgrInfo *prepare_call(RegistryFunction * function, FunctionCalls * calls);
static void check_execute(Oid function);

/*
 * The signature, as a text datum, of a function that is about to be named: a
 * plain one with just these argument types that returns `result`, or whatever
 * it likes when that is InvalidOid.  `expected` is the detail of the error
 * otherwise.  Raises 22004, 42883, 42P13, 42501.
 */
Datum
RegistryFunctionSignature(NullableDatum function, Oid result, const Oid *argtypes,
						  int nargs, const char *expected)
{
	Oid			oid = DatumGetObjectId(function.value);
	HeapTuple	tuple;
	Form_pg_proc proc;
	bool		fits;

	if (function.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("function must not be null")));
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(oid));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", oid)));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	fits = proc->prokind == PROKIND_FUNCTION && !proc->proretset &&
		(!OidIsValid(result) || proc->prorettype == result) && proc->pronargs == nargs &&
		memcmp(proc->proargtypes.values, argtypes, nargs * sizeof(Oid)) == 0;
	ReleaseSysCache(tuple);
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("function %s does not fit", format_procedure(oid)),
				 errdetail_internal("%s", expected)));
	check_execute(oid);
	return CStringGetTextDatum(format_procedure_qualified(oid));
}

/*
 * Fill in a function from a row of a registry, in the current memory context:
 * from first_column on stand the signature, the oid or null, the search_path.
 */
void
RegistryFunctionInit(RegistryFunction *function, HeapTuple row, TupleDesc desc,
					 int first_column, const char *role)
{
	bool		isnull;
	Datum		oid = SPI_getbinval(row, desc, first_column + 1, &isnull);

	function->role = role;
	function->signature = SPI_getvalue(row, desc, first_column);
	function->oid = isnull ? InvalidOid : DatumGetObjectId(oid);
	function->search_path = SPI_getvalue(row, desc, first_column + 2);
}

/*
 * Begin a row of calls, whose memory is the current memory context.  What others
 * changed until now counts, also in a transaction that holds all its locks.
 */
void
FunctionCallsInit(FunctionCalls *calls)
{
	AcceptInvalidationMessages();
	calls->memory = CurrentMemoryContext;
	calls->first = NULL;
	calls->guc_level = 0;
}

/*
 * Call it, in the current memory context.  Raises 42883 for a function that is
 * gone, 42501, 22004 for a null result, and what it raises itself.
 */
Datum
RegistryFunctionCall(RegistryFunction *function, FunctionCalls *calls,
					 const NullableDatum *args, int nargs)
{
	LOCAL_FCINFO(fcinfo, 4);
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, prepare_call(function, calls), nargs, InvalidOid, NULL, NULL);
	memcpy(fcinfo->args, args, nargs * sizeof(NullableDatum));
	result = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s %s returned null", function->role, function->signature)));
	return result;
}

/* End a row of calls: the search_path is the caller's again. */
void
FunctionCallsEnd(FunctionCalls *calls)
{
	if (calls->guc_level > 0)
		AtEOXact_GUC(true, calls->guc_level);
}

/* Check and look up a function at its first call, and set its search_path. */
static FmgrInfo *
prepare_call(RegistryFunction *function, FunctionCalls *calls)
{
	FunctionCall *call;

	for (call = calls->first; call; call = call->next)
		if (call->function == function)
			break;
	if (call == NULL)
	{
		if (!OidIsValid(function->oid))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("function %s does not exist", function->signature),
					 errdetail("It was defined as %s.", function->role),
					 errhint("Create it again, or define another %s.", function->role)));
		check_execute(function->oid);
		call = MemoryContextAlloc(calls->memory, sizeof(FunctionCall));
		fmgr_info_cxt(function->oid, &call->finfo, calls->memory);
		call->function = function;
		call->next = calls->first;
		calls->first = call;
	}
	if (strcmp(namespace_search_path, function->search_path) != 0)
	{
		if (calls->guc_level == 0)
			calls->guc_level = NewGUCNestLevel();
		(void) set_config_option("search_path", function->search_path, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}
	return &call->finfo;
}

/* SQL: protect_functions(), called by the event trigger on sql_drop.  2BP01 when one is in use. */
Datum
cqrs_es_protect_functions(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "SELECT n.function, n.used_as"
		" FROM pg_catalog.pg_event_trigger_dropped_objects() AS d JOIN ("
		"  SELECT function, pg_catalog.format('the reducer of aggregate type \"%s\" for event type \"%s\"',"
		"   aggregate_type, event_type) AS used_as FROM cqrs_es.reducers"
		"  UNION ALL SELECT function, pg_catalog.format('the upcaster of event type \"%s\" from version \"%s\"',"
		"   event_type, from_version) FROM cqrs_es.upcasters"
		"  UNION ALL SELECT function, pg_catalog.format('the handler of projection \"%s\" for event type \"%s\"',"
		"   projection, event_type) FROM cqrs_es.handlers"
		" ) AS n ON n.function OPERATOR(pg_catalog.=) d.object_identity"
		" WHERE d.object_type OPERATOR(pg_catalog.=) 'function' ORDER BY 1, 2 LIMIT 1",
		.nargs = 0
	};
	Oid			schema = get_namespace_oid(CQRS_ES_SCHEMA, true);

	/* the extension itself may be what is dropped */
	if (!OidIsValid(schema) || !OidIsValid(get_relname_relid("reducers", schema)) ||
		!OidIsValid(get_relname_relid("upcasters", schema)) ||
		!OidIsValid(get_relname_relid("handlers", schema)))
		PG_RETURN_VOID();

	SPI_connect();
	if (RegistryRead(&query, NULL) > 0)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;

		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop function %s because it is in use",
						SPI_getvalue(row, desc, 1)),
				 errdetail("It is %s.", SPI_getvalue(row, desc, 2)),
				 errhint("Define another one, or drop that first.")));
	}
	SPI_finish();
	PG_RETURN_VOID();
}

static void
check_execute(Oid function)
{
	AclResult	result = compat_proc_aclcheck(function, GetUserId(), ACL_EXECUTE);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_FUNCTION, get_func_name(function));
}
