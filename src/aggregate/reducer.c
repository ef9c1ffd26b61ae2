/*-------------------------------------------------------------------------
 * reducer.c
 *	  Reducers: state + event -> state.
 *
 * A reducer is a list of operations (reducer_program.c), or a function (state
 * jsonb, event cqrs_es.event) returning jsonb in any language
 * (registry_function.c); the payload of an event type without one is merged
 * into the state (RFC 7396), if it is an object (reducer_state.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/definer.h"
#include "base/extension.h"
#include "base/older_sql.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/text.h"
#include "log/upcast.h"
#include "aggregate/reducer.h"
#include "aggregate/reducer_program.h"
#include "aggregate/state_rules.h"

PG_FUNCTION_INFO_V1(cqrs_es_define_reducer);
PG_FUNCTION_INFO_V1(cqrs_es_define_reducer_function);
PG_FUNCTION_INFO_V1(cqrs_es_define_reducer_operations);
PG_FUNCTION_INFO_V1(cqrs_es_drop_reducer);

static char *begin_definition(FunctionCallInfo fcinfo);
static NullableDatum function_by_name(const char *text);
static Datum check_function(NullableDatum function);
static void save_reducer(FunctionCallInfo fcinfo, Datum function, Jsonb *operations,
						 const char *search_path);
static void load_reducers(StateRules *rules, const text *owner, MemoryContext memory,
						  StringInfo source, StringInfo row_versions);
static void drop_reducers(const text *owner);

void
ReducerInit(void)
{
	static const StateRulesPart part = {.load = load_reducers,.drop = drop_reducers};

	RegistryRegisterOfAllNodes("reducers");
	RegistryFunctionRegister("reducers",
							 "SELECT function, pg_catalog.format('the reducer of \"%s\" for event type \"%s\"',"
							 " aggregate_type, event_type) AS used_as FROM cqrs_es.reducers WHERE function IS NOT NULL");
	StateRulesRegister(&part);
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
 * literal without a cast arrives at: operations begin with a bracket, the name or
 * signature of a function does not.
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
	if (reducer[strspn(reducer, " \t\r\n")] == '[' || reducer[strspn(reducer, " \t\r\n")] == '{')
		save_reducer(fcinfo, (Datum) 0,
					 DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(reducer))),
					 search_path);
	else
		save_reducer(fcinfo, check_function(function_by_name(reducer)), NULL, search_path);
	PG_RETURN_VOID();
}

/* Before anything is looked at: lock whose it is, and the search_path that is returned. */
static char *
begin_definition(FunctionCallInfo fcinfo)
{
	ReadOnlyPrevent(fcinfo);
	(void) StateRulesLockOwner(TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES));
	return DefinerSearchPath();
}

/* The function that a text means; 22023 for an empty one. */
static NullableDatum
function_by_name(const char *text)
{
	Oid			argtypes[2] = {JSONBOID, EventsTypeOid()};

	if (text[strspn(text, " \t\r\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reducer must not be empty"),
				 errhint("It is an array of operations, or a function (state jsonb, event cqrs_es.event) that returns jsonb.")));
	return RegistryFunctionByName(text, argtypes, lengthof(argtypes));
}

/* The signature of a function that is to be a reducer. */
static Datum
check_function(NullableDatum function)
{
	Oid			argtypes[2] = {JSONBOID, EventsTypeOid()};

	return RegistryFunctionSignature(function, JSONBOID, argtypes, 2,
									 "A reducer is a function (state jsonb, event cqrs_es.event) that returns jsonb.");
}

/* Store a function or operations, in place of an earlier reducer; the same one is left as it is. */
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

	/* as texts, since to jsonb 1 and 1.0 are equal */
	static InternalQuery same = {
		.sql = "SELECT FROM cqrs_es.reducers WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND event_type OPERATOR(pg_catalog.=) $2 AND function IS NOT DISTINCT FROM $3"
		" AND search_path OPERATOR(pg_catalog.=) $4"
		" AND operations::pg_catalog.text IS NOT DISTINCT FROM $5::pg_catalog.text",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID}
	};
	text	   *type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *event_type = TextArgument(fcinfo->args[1], "event_type", EVENT_TYPE_MAX_BYTES);
	Datum		values[5] = {PointerGetDatum(type), PointerGetDatum(event_type), function,
		CStringGetTextDatum(search_path), JsonbPGetDatum(operations)};
	char		nulls[5] = {' ', ' ', function ? ' ' : 'n', ' ', operations ? ' ' : 'n'};

	if (operations)
		(void) ReducerProgramCompile(operations);
	if (!RegistryHas(&same, values, nulls))
		(void) RegistryWrite(&query, values, nulls);
}

/* SQL: drop_reducer(aggregate_type, event_type, if_exists) */
Datum
cqrs_es_drop_reducer(PG_FUNCTION_ARGS)
{
	static InternalQuery drop = {
		.sql = "DELETE FROM cqrs_es.reducers WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND event_type OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	static InternalQuery row = {
		.sql = "SELECT FROM cqrs_es.reducers WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND event_type OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	text	   *type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *event_type = TextArgument(fcinfo->args[1], "event_type", EVENT_TYPE_MAX_BYTES);
	Datum		values[2] = {PointerGetDatum(type), PointerGetDatum(event_type)};
	bool		if_exists = RegistryIfExists(OlderSqlCall(fcinfo, 3)->args[2]);
	const StateOwner *owner;

	ReadOnlyPrevent(fcinfo);
	owner = StateRulesLockForDrop(type, if_exists);
	if (owner == NULL)
		PG_RETURN_VOID();
	if (!RegistryDrop(&row, &drop, values))
		RegistryReportMissing(if_exists, ERRCODE_UNDEFINED_OBJECT, NULL,
							  psprintf("reducer of %s \"%s\" for event type \"%s\" does not exist",
									   owner->noun, text_to_cstring(type), text_to_cstring(event_type)));
	PG_RETURN_VOID();
}

/* The reducer for an event type; NULL: merge the payload. */
Reducer *
ReducerFind(const StateRules *rules, const text *event_type)
{
	int			i;

	for (i = 0; i < rules->nreducers; i++)
		if (TextEqual(rules->reducers[i].event_type, event_type))
			return &rules->reducers[i];
	return NULL;
}

/*
 * Could the current role fold by these rules, of event types that have reducers?  42501,
 * 42883, 42P17 when not, as the first function would raise it.
 */
void
ReducersRequireRights(const StateRules *rules)
{
	int			i;

	for (i = 0; i < rules->nreducers; i++)
	{
		const Reducer *reducer = &rules->reducers[i];

		UpcastRequireRights(reducer->event_type);
		if (reducer->program == NULL)
			RegistryFunctionRequire(&reducer->function);
	}
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
 * as a part of the rules of states
 *-------------------------------------------------------------------------
 */

static void
load_reducers(StateRules *rules, const text *owner, MemoryContext memory,
			  StringInfo source, StringInfo row_versions)
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
	Datum		value = PointerGetDatum(owner);
	uint64		n = RegistryRead(&query, &value);
	uint64		i;

	rules->nreducers = (int) n;
	rules->reducers = MemoryContextAllocZero(memory, Max(n, 1) * sizeof(Reducer));
	for (i = 0; i < n; i++)
	{
		Reducer    *reducer = &rules->reducers[i];
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
		StateRulesAddSource(source, InternalQueryText(&row, "source"));
		appendStringInfoString(row_versions, InternalQueryText(&row, "row_versions"));
	}
}

/* They go with whose they are. */
static void
drop_reducers(const text *owner)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.reducers WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(owner);

	(void) RegistryWrite(&query, &value, NULL);
}
