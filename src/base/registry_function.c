/*-------------------------------------------------------------------------
 * registry_function.c
 *	  A user's function that a registry names: a reducer, an upcaster, a handler.
 *
 * Registries keep a function by its full signature, not by its oid, so that it
 * survives dump and restore.  DROP FUNCTION is refused while a registry names
 * it, by an event trigger, since rows have no entries in pg_depend, to all but a
 * restore (restore.c).  Who names
 * one therefore holds a lock of it until the registry's row is committed, and
 * looks at nothing of it before that (registry.c has the order of locks).  Nor may
 * it get another name or schema: whoever can create functions there would put one
 * of their own in its place, which then runs with the rights of whoever reads.  What
 * has gone all the same (a restore without it) is a clear error when it is called,
 * and a warning when the row is restored (by the row trigger, registry_name.c).
 * Which registries do so they say at Init (RegistryFunctionRegister).
 * (The event triggers' own function is in sql/980_protect.sql.)
 *
 * Functions run with the rights of whoever appends or reads, like any function
 * that they could call; EXECUTE is checked when they are named and when they
 * are called.  They run with the search_path of whoever named them and with fixed
 * settings (fixed_settings.c), since what they return may go into a snapshot that
 * everybody reads.
 *
 * A function of a temporary schema is none: the schema's name means a place that
 * the next session gets, and with it the right to say what the function does.
 *
 * What the server keeps for a function between calls belongs to one row of
 * calls (a fold, a read), not to the backend: it neither survives an error nor
 * allows a function to call itself through us.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "common/keywords.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/fixed_settings.h"
#include "base/registry.h"
#include "base/registry_function.h"
#include "base/restore.h"
#include "base/setting.h"

PG_FUNCTION_INFO_V1(cqrs_es_function_body);
/* what else is looked at when something is dropped */
#define MAX_DROP_CHECKS 4
static void (*drop_checks[MAX_DROP_CHECKS]) (void);
static int	ndrop_checks = 0;

/* see RegistryFunctionDenials */
static uint64 denials = 0;

PG_FUNCTION_INFO_V1(cqrs_es_check_declared);
PG_FUNCTION_INFO_V1(cqrs_es_protect_functions);

static void note_functions(void);
static void refuse_renames(void);
static void check_drops(void);
static void refuse_drops(void);
#define MAX_REGISTRIES 8

#define SPACES " \t\r\n\f\v"

/* the registries that name functions, each with a SELECT of what it names and as what */
static struct
{
	const char *table;
	const char *named;
}			registries[MAX_REGISTRIES];
static int	nregistries = 0;

/* the named functions that were there when the command began that is running; 0: none */
static Datum functions_there = (Datum) 0;
static bool functions_there_known = false;

/* A function that was called. */
typedef struct FunctionCall
{
	RegistryFunction *function;
	FmgrInfo	finfo;
	struct FunctionCall *next;
} FunctionCall;

static bool is_name(const char *given);
static bool skip(const char **c, const char *word);
static void require_whole_signature(const char *given);
static Oid	find_by_name(const char *name, const Oid *argtypes, int nargs, bool missing_ok);
static const char *query_of_named(const char *before, const char *after);
static bool registries_are_there(void);
static void report_change(int elevel, const char *change);
static void watch(Oid function);
static FmgrInfo *prepare_call(RegistryFunction *function, FunctionCalls *calls);
static void refuse_temporary(Oid function, const char *role);
pg_noreturn static void report_missing(const RegistryFunction *function);
static void check_execute(Oid function, const char *name);

/*
 * A table of ours whose rows name functions, and a SELECT of their signatures, as
 * function, and of what they are used as, as used_as, for all rows that name one.
 * Called by Inits only.
 */
void
RegistryFunctionRegister(const char *table, const char *named)
{
	if (nregistries >= MAX_REGISTRIES)
		elog(ERROR, "too many registries that name functions");
	registries[nregistries].table = table;
	registries[nregistries++].named = named;
}

/*
 * Is a text the name or the signature of a function, and not an expression or a
 * statement?  A name alone, with its schema perhaps, of a function that there is, or one
 * with just these argument types behind it as they are usually written:
 * "decide(jsonb, jsonb)".
 */
bool
RegistryFunctionIsNamed(const char *given, const Oid *argtypes, int nargs)
{
	char	   *name = pstrdup(given);
	char	   *open = strchr(name, '(');
	const char *rest;
	int			i;

	if (open == NULL)
		return is_name(name) && OidIsValid(find_by_name(name, argtypes, nargs, true));
	*open = '\0';
	if (!is_name(name))
		return false;
	rest = open + 1;
	for (i = 0; i < nargs; i++)
		if (!skip(&rest, format_type_be(argtypes[i])) || !skip(&rest, i < nargs - 1 ? "," : ")"))
			return false;
	return rest[strspn(rest, SPACES)] == '\0';
}

/* Is a text a name alone, of a function or of nothing, and no word of SQL? */
bool
RegistryFunctionIsName(const char *given)
{
	const char *begin = given + strspn(given, SPACES);

	return is_name(begin) && ScanKeywordLookup(pnstrdup(begin, strcspn(begin, SPACES)), &ScanKeywords) < 0;
}

/* The function of that name with these argument types. */
static Oid
find_by_name(const char *name, const Oid *argtypes, int nargs, bool missing_ok)
{
	return LookupFuncName(textToQualifiedNameList(cstring_to_text(name)), nargs, argtypes, missing_ok);
}

/* One identifier, or some with dots between, and nothing else? */
static bool
is_name(const char *given)
{
	const char *c = given + strspn(given, SPACES);

	for (;;)
	{
		const char *begin = c;

		if (*c == '"')
			do
			{
				c = strchr(c + 1, '"');
				if (c == NULL)
					return false;
				c++;
			} while (*c == '"');
		else
			while (isalpha((unsigned char) *c) || *c == '_' || IS_HIGHBIT_SET(*c) ||
				   (c > begin && (isdigit((unsigned char) *c) || *c == '$')))
				c++;
		if (c == begin)
			return false;
		if (*c != '.')
			return c[strspn(c, SPACES)] == '\0';
		c++;
	}
}

/* Move on behind a word and the spaces before it; false when another one stands there. */
static bool
skip(const char **c, const char *word)
{
	*c += strspn(*c, SPACES);
	if (pg_strncasecmp(*c, word, strlen(word)) != 0)
		return false;
	*c += strlen(word);
	return true;
}

/*
 * The function that a text means: a signature as regprocedure takes it, or a name
 * alone, that of a function with these argument types.  It is locked
 * to the end of the transaction (AccessShareLock).  While we waited for the lock the
 * text may have come to mean another one, so it is looked up until nothing changes.
 * Raises 42883, 3F000, 42704 for what is not there, 42602 for what is no name.
 */
NullableDatum
RegistryFunctionByName(const char *given, const Oid *argtypes, int nargs)
{
	NullableDatum function = {.isnull = false};
	Oid			locked = InvalidOid;
	bool		has_arguments = strchr(given, '(') != NULL;

	if (has_arguments)
		require_whole_signature(given);
	for (;;)
	{
		uint64		changes = SharedInvalidMessageCounter;
		Oid			found;

		CHECK_FOR_INTERRUPTS();
		found = !has_arguments ? find_by_name(given, argtypes, nargs, false) :
			DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(given)));
		function.value = ObjectIdGetDatum(found);
		/* what changed was something else */
		if (found == locked)
			return function;
		if (OidIsValid(locked))
			UnlockDatabaseObject(ProcedureRelationId, locked, 0, AccessShareLock);
		LockDatabaseObject(ProcedureRelationId, found, 0, AccessShareLock);
		if (changes == SharedInvalidMessageCounter)
			return function;
		locked = found;
	}
}

/* 42602 for what would be a signature, but for its name or the end of it. */
static void
require_whole_signature(const char *given)
{
	char	   *name = RegistryFunctionName(given);
	size_t		length = strlen(given);

	while (length > 0 && strchr(SPACES, given[length - 1]))
		length--;
	if (name[strspn(name, SPACES)] == '\0' || given[length - 1] != ')')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("\"%s\" is no name of a function", given),
				 errhint("Give its name alone, or with the types of its arguments behind it, as in 'my_schema.my_function(jsonb, jsonb)'.")));
}

/*
 * The signature, as a text datum, of a function that is about to be named: a
 * plain one with just these argument types that returns `result`, or whatever
 * it likes when that is InvalidOid.  `expected` is the detail of the error
 * otherwise.  The function is locked to the end of the transaction
 * (AccessShareLock).  Raises 22004, 42883, 42P13, 42P17 for a temporary one, 42501.
 */
Datum
RegistryFunctionSignature(NullableDatum function, Oid result, const Oid *argtypes,
						  int nargs, const char *expected)
{
	Oid			oid = DatumGetObjectId(function.value);
	HeapTuple	tuple;
	Form_pg_proc proc;
	bool		fits;
	int			guc_level = 0;
	Datum		signature;

	if (function.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("function must not be null")));
	/* with it, its schema and types are there until we commit */
	LockDatabaseObject(ProcedureRelationId, oid, 0, AccessShareLock);
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(oid));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function does not exist"),
				 errdetail("There is none with OID %u.", oid)));
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
	refuse_temporary(oid, "function");
	check_execute(oid, format_procedure(oid));
	FixedSettingsSet(&guc_level);
	signature = CStringGetTextDatum(format_procedure_qualified(oid));
	FixedSettingsRestore(guc_level);
	return signature;
}

/*
 * Is there a function of such a signature (a text datum)?  No error, whatever is
 * missing: its schema, a type.
 */
bool
RegistryFunctionExists(Datum signature)
{
	LOCAL_FCINFO(fcinfo, 1);

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = signature;
	fcinfo->args[0].isnull = false;
	(void) to_regprocedure(fcinfo);
	return !fcinfo->isnull;
}

/*
 * The qualified name in such a signature, for a statement that calls the
 * function; palloc'd.  Names in it may be quoted.
 */
char *
RegistryFunctionName(const char *signature)
{
	const char *end = signature;
	bool		quoted = false;

	while (*end && (quoted || *end != '('))
		if (*end++ == '"')
			quoted = !quoted;
	return pnstrdup(signature, end - signature);
}

/*
 * Fill in a function from a row of a registry, in the current memory context: from
 * its columns function (the signature), function_oid (perhaps null), search_path.
 * Called by loaders, whose entry will hang on it.
 */
void
RegistryFunctionInit(RegistryFunction *function, const QueryRow *row, const char *role)
{
	bool		isnull;
	Datum		oid = InternalQueryDatum(row, "function_oid", &isnull);

	function->role = role;
	function->signature = InternalQueryText(row, "function");
	function->oid = isnull ? InvalidOid : DatumGetObjectId(oid);
	function->search_path = InternalQueryText(row, "search_path");
	watch(function->oid);
}

/*
 * A body in standard SQL, of which fingerprints are made, names other functions, which
 * may be renamed: then the changes of all count.
 */
static void
watch(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		no_body = false;

	if (HeapTupleIsValid(tuple))
	{
		(void) SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosqlbody, &no_body);
		ReleaseSysCache(tuple);
	}
	RegistryWatchFunction(no_body ? function : InvalidOid);
}

/*
 * Counts the errors for want of the right to call a function: who catches errors of what
 * calls one finds out that this was one.
 */
uint64
RegistryFunctionDenials(void)
{
	return denials;
}

/*
 * Could the current role call it?  42883, 42P17, 42501 when not, as a call raises it.
 */
void
RegistryFunctionRequire(const RegistryFunction *function)
{
	if (OidIsValid(function->oid))
	{
		refuse_temporary(function->oid, function->role);
		check_execute(function->oid, function->signature);
	}
	/* what is found now is still there for fmgr_info, which does not wait */
	if (!SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(function->oid)))
		report_missing(function);
}

/*
 * Begin a row of calls, whose memory is the current memory context.  What others
 * changed until now counts, also in a transaction that holds all its locks.
 */
void
RegistryFunctionCallsInit(FunctionCalls *calls)
{
	AcceptInvalidationMessages();
	calls->memory = CurrentMemoryContext;
	calls->first = NULL;
	calls->guc_level = 0;
}

/*
 * Call it, in the current memory context.  Raises 42883 for a function that is
 * gone, 42P17 for a temporary one, 42501, 22004 for a null result, and what it
 * raises itself.
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

/* End a row of calls: search_path and settings are the caller's again. */
void
RegistryFunctionCallsEnd(FunctionCalls *calls)
{
	FixedSettingsRestore(calls->guc_level);
}

/* Check and look up a function at its first call; set its search_path and the settings. */
static FmgrInfo *
prepare_call(RegistryFunction *function, FunctionCalls *calls)
{
	static struct config_generic *search_path = NULL;
	static int	place = 0;
	FunctionCall *call;

	for (call = calls->first; call; call = call->next)
		if (call->function == function)
			break;
	if (call == NULL)
	{
		RegistryFunctionRequire(function);
		call = MemoryContextAlloc(calls->memory, sizeof(FunctionCall));
		fmgr_info_cxt(function->oid, &call->finfo, calls->memory);
		call->function = function;
		call->next = calls->first;
		calls->first = call;
	}
	FixedSettingsSet(&calls->guc_level);
	if (strcmp(namespace_search_path, function->search_path) != 0)
	{
		if (search_path == NULL)
			search_path = SettingFind("search_path", &place);
		FixedSettingsBeginLevel(search_path, &calls->guc_level);
		(void) set_config_option("search_path", function->search_path, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}
	return &call->finfo;
}

/*
 * SQL: function_body(function oid).  A body in standard SQL as text; null for any
 * other function, and for one that is gone.  To write it the server looks up all
 * that the body names, which is there for as long as the function is: so that is
 * locked (AccessShareLock) meanwhile.
 */
Datum
cqrs_es_function_body(PG_FUNCTION_ARGS)
{
	LOCAL_FCINFO(body_call, 1);
	Datum		function = PG_GETARG_DATUM(0);
	HeapTuple	tuple = SearchSysCache1(PROCOID, function);
	bool		isnull;
	Datum		body;

	if (!HeapTupleIsValid(tuple))
		PG_RETURN_NULL();
	(void) SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosqlbody, &isnull);
	ReleaseSysCache(tuple);
	if (isnull)
		PG_RETURN_NULL();

	LockDatabaseObject(ProcedureRelationId, DatumGetObjectId(function), 0, AccessShareLock);
	InitFunctionCallInfoData(*body_call, NULL, 1, InvalidOid, NULL, NULL);
	body_call->args[0].value = function;
	body_call->args[0].isnull = false;
	body = pg_get_function_sqlbody(body_call);
	UnlockDatabaseObject(ProcedureRelationId, DatumGetObjectId(function), 0, AccessShareLock);
	/* dropped while we waited for the lock */
	if (body_call->isnull)
		PG_RETURN_NULL();
	return body;
}

/*
 * SQL: check_declared(event text), for the event triggers on the event of that name.
 */
Datum
cqrs_es_check_declared(PG_FUNCTION_ARGS)
{
	char	   *event = text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (strcmp(event, "ddl_command_start") == 0)
		note_functions();
	else if (strcmp(event, "ddl_command_end") == 0)
		refuse_renames();
	else
		check_drops();
	PG_RETURN_VOID();
}

/* SQL: protect_functions(), the event trigger of 0.1.0 on all that is dropped. */
Datum
cqrs_es_protect_functions(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired as an event trigger", "protect_functions()")));
	check_drops();
	PG_RETURN_NULL();
}

static void
check_drops(void)
{
	int			i;

	/* an update of ours drops what is ours */
	if (creating_extension && CurrentExtensionObject == get_extension_oid(CQRS_ES_SCHEMA, true))
		return;
	refuse_drops();
	for (i = 0; i < ndrop_checks; i++)
		drop_checks[i] ();
}

/* What else is looked at when something is dropped; called by Inits only. */
void
RegistryFunctionAlsoCheckDrops(void (*check) (void))
{
	if (ndrop_checks >= MAX_DROP_CHECKS)
		elog(ERROR, "too many checks of what is dropped");
	drop_checks[ndrop_checks++] = check;
}

/*
 * On sql_drop: 2BP01 when a function that is dropped is in use.  What was dropped is described to us as the
 * session that drops it writes names, which may be with quotes around all.  So
 * names are compared as what they mean, and those of the arguments, of which ours
 * need no quotes, without them.
 */
static void
refuse_drops(void)
{
	static InternalQuery query = {0};

	if (!registries_are_there())
		return;
	if (query.sql == NULL)
		query.sql = query_of_named("SELECT n.function, n.used_as"
								   " FROM pg_catalog.pg_event_trigger_dropped_objects() AS d JOIN",
								   "ON pg_catalog.parse_ident(n.function, false) OPERATOR(pg_catalog.=) d.address_names"
								   " AND pg_catalog.replace(pg_catalog.split_part(n.function, '(', -1), '\"', '') OPERATOR(pg_catalog.=)"
								   " pg_catalog.replace(pg_catalog.array_to_string(d.address_args, ',') OPERATOR(pg_catalog.||) ')', '\"', '')"
								   " WHERE d.object_type OPERATOR(pg_catalog.=) 'function' ORDER BY 1, 2 LIMIT 1");
	SPI_connect();
	if (RegistryRead(&query, NULL) > 0)
		report_change(RestoreDrops() ? NOTICE : ERROR, "drop");
	SPI_finish();
}

/*
 * On ddl_command_start, for refuse_renames: which of the functions in use are there.  A
 * command within the command notes anew, and checks for itself what it changed.
 */
static void
note_functions(void)
{
	static InternalQuery query = {0};
	QueryRow	row;
	Datum		there;
	bool		isnull;
	MemoryContext caller;

	if (functions_there)
		pfree(DatumGetPointer(functions_there));
	functions_there = (Datum) 0;
	functions_there_known = !registries_are_there();
	if (functions_there_known)
		return;
	if (query.sql == NULL)
		query.sql = query_of_named("SELECT pg_catalog.array_agg(n.function) AS there FROM",
								   "WHERE pg_catalog.to_regprocedure(n.function) IS NOT NULL");
	SPI_connect();
	(void) RegistryRead(&query, NULL);
	row = InternalQueryRow(0);
	there = InternalQueryDatum(&row, "there", &isnull);
	if (!isnull)
	{
		caller = MemoryContextSwitchTo(TopMemoryContext);
		functions_there = PointerGetDatum(DatumGetArrayTypePCopy(there));
		MemoryContextSwitchTo(caller);
	}
	functions_there_known = true;
	SPI_finish();
}

/*
 * On ddl_command_end, before anybody can have put another function in the place; 2BP01 when one that is in
 * use was there at the start, and now there is none of its name.  55000 when it
 * is not known what was there.
 */
static void
refuse_renames(void)
{
	static InternalQuery query = {.nargs = 1,.argtypes = {TEXTARRAYOID}};

	if (!functions_there_known)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not note what was there before")));
	if (functions_there == (Datum) 0 || !registries_are_there())
		return;
	if (query.sql == NULL)
		query.sql = query_of_named("SELECT n.function, n.used_as FROM",
								   "WHERE n.function OPERATOR(pg_catalog.=) ANY ($1)"
								   " AND pg_catalog.to_regprocedure(n.function) IS NULL ORDER BY 1, 2 LIMIT 1");
	SPI_connect();
	if (RegistryRead(&query, &functions_there) > 0)
		report_change(ERROR, "rename or move");
	SPI_finish();
}

/*
 * A query over all that the registries name, n: function and used_as.  It is kept
 * for good, as its plan is.
 */
static const char *
query_of_named(const char *before, const char *after)
{
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	appendStringInfo(&sql, "%s (", before);
	for (i = 0; i < nregistries; i++)
		appendStringInfo(&sql, "%s%s", i == 0 ? "" : " UNION ALL ", registries[i].named);
	appendStringInfo(&sql, ") AS n %s", after);
	return MemoryContextStrdup(TopMemoryContext, sql.data);
}

/* False when the extension itself is what is being dropped. */
static bool
registries_are_there(void)
{
	int			i;

	for (i = 0; i < nregistries; i++)
		if (!OidIsValid(ExtensionFindRelid(registries[i].table)))
			return false;
	return true;
}

/* 2BP01 for the function in use that has just been read; a restore is told of it only. */
static void
report_change(int elevel, const char *change)
{
	QueryRow	row = InternalQueryRow(0);

	ereport(elevel,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 elevel == ERROR ?
			 errmsg("cannot %s function %s because it is in use",
					change, InternalQueryText(&row, "function")) :
			 errmsg("function %s is in use", InternalQueryText(&row, "function")),
			 errdetail("It is %s.", InternalQueryText(&row, "used_as")),
			 errhint("Define another one, or drop that first.")));
}

/* 42P17 when the function, which is to be or was defined as `role`, is temporary. */
static void
refuse_temporary(Oid function, const char *role)
{
	if (isAnyTempNamespace(get_func_namespace(function)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("%s %s is temporary", role, format_procedure(function)),
				 errdetail("Other sessions find another function under that name, or none."),
				 errhint("Create the function in a schema that stays.")));
}

static void
report_missing(const RegistryFunction *function)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 errmsg("function %s does not exist", function->signature),
			 errdetail("It was defined as %s.", function->role),
			 errhint("Create it again, or define another %s.", function->role)));
}

/*
 * `name` is for the message.  A function that is gone is not an error here: where
 * it is not locked the caller looks again.
 */
static void
check_execute(Oid function, const char *name)
{
	bool		is_missing = false;

	if (superuser() || !SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(function)))
		return;
	if (compat_proc_aclcheck(function, GetUserId(), ACL_EXECUTE, &is_missing) != ACLCHECK_OK &&
		!is_missing)
	{
		denials++;
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for function %s", name),
				 errhint("GRANT EXECUTE ON FUNCTION %s TO %s.", name,
						 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
	}
}
