/*-------------------------------------------------------------------------
 * decider.c
 *	  Deciders: state + command -> events.  The registry of commands, and the
 *	  SQL expressions that decide them.
 *
 * An expression names state, command, aggregate_id, metadata and version, which
 * are its parameters.  It may look into tables, and runs as who defined it
 * (definer.c); who sends the command sees of its errors no more than is allowed.  A
 * function is the expression that calls it.
 *
 * The result is one event or an array of them, as append_events takes them;
 * '[]' when nothing happens.  Null is an error, since it is what a CASE without
 * ELSE gives for the case that was forgotten.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "parser/parse_node.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/cqrs_es.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/registry_function.h"
#include "base/registry_name.h"
#include "command/decider.h"

/* The names an expression may use, in the order of its parameters. */
static const struct
{
	const char *name;
	Oid			type;
}			decider_params[] = {
	{"state", JSONBOID},
	{"command", JSONBOID},
	{"aggregate_id", TEXTOID},
	{"metadata", JSONBOID},
	{"version", INT8OID},
};

/* A command's expression. */
typedef struct Decider
{
	text	   *command_type;
	DefinerStatement *expression;
}			Decider;

/* What an expression is about: the values of decider_params. */
typedef struct Question
{
	Datum		values[lengthof(decider_params)];
}			Question;

/* The commands of an aggregate type. */
typedef struct AggregateCommands
{
	char		aggregate_type[REGISTRY_KEY_BYTES];
	bool		loaded;
	int			n;
	Decider   **deciders;
}			AggregateCommands;

static RegistryCache command_cache = {
	.name = "cqrs_es commands",.entry_size = sizeof(AggregateCommands)
};

/* The error context around the decider that is running; NULL when none is. */
static ErrorContextCallback *decision_context = NULL;

PG_FUNCTION_INFO_V1(cqrs_es_define_command);
PG_FUNCTION_INFO_V1(cqrs_es_define_command_function);
PG_FUNCTION_INFO_V1(cqrs_es_drop_command);
PG_FUNCTION_INFO_V1(cqrs_es_reject);

static char *begin_definition(FunctionCallInfo fcinfo);
static void save_command(FunctionCallInfo fcinfo, const char *expression, const char *search_path);
static Decider *find_decider(Aggregate *aggregate, const text *command_type);
static void load_commands(AggregateCommands *entry, const text *aggregate_type);
static void check_expression(SPIPlanPtr plan);
static void require_jsonb(TupleDesc result);
static Node *resolve_name(ParseState *pstate, ColumnRef *cref, Node *var);
static void bind_question(const DefinerStatement * statement, ParamListInfo params,
						  const void *source);
static Jsonb *evaluate(Decider * decider, const Question * question);
static Jsonb *as_array(Jsonb *events);

static const DefinerKind decider_kind = {
	.defined = "defined the command",
	.parse_mode = RAW_PARSE_PLPGSQL_EXPR,
	.nparams = lengthof(decider_params),
	.resolve = resolve_name,
	.check = check_expression,
	.bind = bind_question
};

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/* SQL: define_command(aggregate_type, command_type, decider text) */
Datum
cqrs_es_define_command(PG_FUNCTION_ARGS)
{
	char	   *search_path = begin_definition(fcinfo);

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("decider must not be null")));
	save_command(fcinfo, text_to_cstring(PG_GETARG_TEXT_PP(2)), search_path);
	PG_RETURN_VOID();
}

/* SQL: define_command(aggregate_type, command_type, decider regprocedure) */
Datum
cqrs_es_define_command_function(PG_FUNCTION_ARGS)
{
	static const Oid argtypes[] = {JSONBOID, JSONBOID};
	char	   *search_path = begin_definition(fcinfo);
	Datum		signature;

	signature = RegistryFunctionSignature(fcinfo->args[2], JSONBOID, argtypes, lengthof(argtypes),
										  "A decider is a function (state jsonb, command jsonb) that returns jsonb.");
	save_command(fcinfo,
				 psprintf("%s(state, command)", RegistryFunctionName(TextDatumGetCString(signature))),
				 search_path);
	PG_RETURN_VOID();
}

/*
 * SQL: reject(message, code)
 *
 * A refusal is an answer: the client hears which command was refused, not the
 * lines of the decider, which SPI would put into the context of an error.
 */
Datum
cqrs_es_reject(PG_FUNCTION_ARGS)
{
	char	   *message = PG_ARGISNULL(0) ? "command rejected" :
		text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (decision_context != NULL)
		error_context_stack = decision_context;
	ereport(ERROR,
			(errcode(ERRCODE_COMMAND_REJECTED),
			 errmsg_internal("%s", message),
			 PG_ARGISNULL(1) ? 0 :
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, text_to_cstring(PG_GETARG_TEXT_PP(1)))));
	PG_RETURN_NULL();			/* not reached */
}

/* SQL: drop_command(aggregate_type, command_type) */
Datum
cqrs_es_drop_command(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND command_type OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	text	   *type = RequiredText(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *command_type = RequiredText(fcinfo->args[1], "command_type", COMMAND_TYPE_MAX_BYTES);
	Datum		values[2] = {PointerGetDatum(type), PointerGetDatum(command_type)};

	(void) RegistryLockAggregate(type, true);
	if (RegistryWrite(&query, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("command \"%s\" of aggregate type \"%s\" does not exist",
						text_to_cstring(command_type), text_to_cstring(type))));
	PG_RETURN_VOID();
}

/* Before anything is looked at: lock the aggregate type, and the search_path that is returned. */
static char *
begin_definition(FunctionCallInfo fcinfo)
{
	AggregateLock(RequiredText(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES), true);
	return DefinerSearchPath();
}

/* Check an expression and store it, in place of an earlier one. */
static void
save_command(FunctionCallInfo fcinfo, const char *expression, const char *search_path)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.commands"
		" (aggregate_type, command_type, decider, definer, search_path)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (aggregate_type, command_type) DO UPDATE SET"
		" decider = excluded.decider, definer = excluded.definer, definer_name = excluded.definer_name,"
		" search_path = excluded.search_path",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, REGROLEOID, TEXTOID}
	};
	text	   *type = RequiredText(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *command_type = RequiredText(fcinfo->args[1], "command_type", COMMAND_TYPE_MAX_BYTES);
	Definer		definer = {.role = GetUserId(),.search_path = search_path};
	Datum		values[5] = {PointerGetDatum(type), PointerGetDatum(command_type),
		CStringGetTextDatum(expression), ObjectIdGetDatum(definer.role),
	CStringGetTextDatum(search_path)};

	DefinerStatementDefine(DefinerStatementMake(&decider_kind, expression, &definer));
	(void) RegistryWrite(&query, values, NULL);
}

/*-------------------------------------------------------------------------
 * deciding
 *-------------------------------------------------------------------------
 */

/*
 * The events that follow from a command, as a JSON array; palloc'd in the
 * current memory context.  Raises QE302 for an unknown command, 22004 for a
 * null result, 21000 for several rows, and what the decider raises, QE301
 * among it, of which somebody without the definer's rights sees less.
 */
Jsonb *
Decide(Aggregate *aggregate, const text *command_type, Jsonb *state, Jsonb *command,
	   const text *aggregate_id, Jsonb *metadata, int64 version)
{
	Decider    *decider = find_decider(aggregate, command_type);
	ErrorContextCallback *outer = decision_context;
	MemoryContext caller = CurrentMemoryContext;
	bool		may_see_all = has_privs_of_role(GetUserId(), decider->expression->definer.role);
	Question	question = {{JsonbPGetDatum(state), JsonbPGetDatum(command),
		PointerGetDatum(aggregate_id), JsonbPGetDatum(metadata), Int64GetDatum(version)}};
	Jsonb	   *events;

	decision_context = error_context_stack;
	PG_TRY();
	{
		events = evaluate(decider, &question);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		decision_context = outer;
		if (may_see_all)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		DefinerThrow(error);
	}
	PG_END_TRY();
	decision_context = outer;
	return events;
}

/*
 * Run a decider's expression.  It may be one that gives rows: none is null, as in a
 * subquery, and more than one an error (21000).
 */
static Jsonb *
evaluate(Decider * decider, const Question * question)
{
	MemoryContext caller = CurrentMemoryContext;
	Jsonb	   *events;
	Datum		result = (Datum) 0;
	bool		isnull;

	SPI_connect();
	if (DefinerStatementRun(decider->expression, question, 2) != SPI_OK_SELECT)
		elog(ERROR, "a decider is not a query");
	/* what it names may have changed since it was defined */
	require_jsonb(SPI_tuptable->tupdesc);
	if (SPI_processed > 1)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("the decider returned more than one row"),
				 errhint("Put several events into an array.")));
	isnull = SPI_processed == 0;
	if (!isnull)
		result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the decider returned null"),
				 errhint("Return '[]' when nothing happens, or refuse the command with reject().")));
	MemoryContextSwitchTo(caller);
	events = as_array(DatumGetJsonbPCopy(result));
	SPI_finish();
	MemoryContextSwitchTo(caller);
	return events;
}

/* One event becomes an array of one. */
static Jsonb *
as_array(Jsonb *events)
{
	JsonbParseState *state = NULL;
	JsonbValue	value;

	if (JB_ROOT_IS_ARRAY(events) && !JB_ROOT_IS_SCALAR(events))
		return events;
	if (!JB_ROOT_IS_OBJECT(events))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a decider must return an event or an array of events"),
				 errhint("An event is an object: {\"type\": ..., \"payload\": ...}.")));
	value.type = jbvBinary;
	value.val.binary.data = &events->root;
	value.val.binary.len = VARSIZE(events) - VARHDRSZ;
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	pushJsonbValue(&state, WJB_ELEM, &value);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/*-------------------------------------------------------------------------
 * registry
 *-------------------------------------------------------------------------
 */

static Decider *
find_decider(Aggregate *aggregate, const text *command_type)
{
	text	   *aggregate_type = cstring_to_text(aggregate->aggregate_type);
	AggregateCommands *entry = RegistryCacheLookup(&command_cache, aggregate_type);
	int			i;

	if (!entry->loaded)
		load_commands(entry, aggregate_type);
	for (i = 0; i < entry->n; i++)
		if (TextEqual(entry->deciders[i]->command_type, command_type))
			return entry->deciders[i];
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COMMAND),
			 errmsg("command \"%s\" of aggregate type \"%s\" is not defined",
					text_to_cstring(command_type), aggregate->aggregate_type),
			 errhint("Define it with define_command().")));
}

static void
load_commands(AggregateCommands *entry, const text *aggregate_type)
{
	static InternalQuery query = {
		.sql = "SELECT command_type, decider, " REGISTRY_ROLE("definer", "definer_name")
		", search_path, definer_name FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(aggregate_type);
	MemoryContext spi;
	uint64		n;
	uint64		i;

	SPI_connect();
	n = RegistryRead(&query, &value);
	spi = MemoryContextSwitchTo(command_cache.memory);
	entry->deciders = palloc(Max(n, 1) * sizeof(Decider *));
	for (i = 0; i < n; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		Decider    *decider = palloc(sizeof(Decider));
		Definer		definer;
		bool		isnull;

		definer.role = DatumGetObjectId(SPI_getbinval(row, desc, 3, &isnull));
		definer.search_path = SPI_getvalue(row, desc, 4);
		definer.name = SPI_getvalue(row, desc, 5);
		decider->command_type = cstring_to_text(SPI_getvalue(row, desc, 1));
		decider->expression = DefinerStatementMake(&decider_kind, SPI_getvalue(row, desc, 2),
												   &definer);
		entry->deciders[i] = decider;
	}
	entry->n = (int) n;
	MemoryContextSwitchTo(spi);
	SPI_finish();
	entry->loaded = true;
}

/*-------------------------------------------------------------------------
 * what an expression may say
 *-------------------------------------------------------------------------
 */

static void
check_expression(SPIPlanPtr plan)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));

	require_jsonb(source->resultDesc);
}

/* The result must be one column of type jsonb: 42804. */
static void
require_jsonb(TupleDesc result)
{
	if (result == NULL || result->natts != 1 || TupleDescAttr(result, 0)->atttypid != JSONBOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("a decider must be an expression of type jsonb"),
				 errhint("Cast a literal: '[]'::jsonb.")));
}

/* The names of decider_params, unless a table of the expression has such a column. */
static Node *
resolve_name(ParseState *pstate, ColumnRef *cref, Node *var)
{
	size_t		i;

	if (list_length(cref->fields) != 1 || !IsA(linitial(cref->fields), String))
		return NULL;
	for (i = 0; i < lengthof(decider_params); i++)
	{
		if (strcmp(strVal(linitial(cref->fields)), decider_params[i].name) != 0)
			continue;
		if (var != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_AMBIGUOUS_COLUMN),
					 errmsg("reference to \"%s\" is ambiguous", decider_params[i].name),
					 errdetail("It could mean the decider's \"%s\" or a column.", decider_params[i].name),
					 errhint("Write the column with its table's name."),
					 parser_errposition(pstate, cref->location)));
		return DefinerParam(pstate, i + 1, decider_params[i].type, cref->location);
	}
	return NULL;
}

static void
bind_question(const DefinerStatement * statement, ParamListInfo params, const void *source)
{
	const Question *question = source;
	size_t		i;

	for (i = 0; i < lengthof(decider_params); i++)
	{
		params->params[i].value = question->values[i];
		params->params[i].isnull = false;
		params->params[i].pflags = 0;
		params->params[i].ptype = decider_params[i].type;
	}
}
