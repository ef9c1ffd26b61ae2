/*-------------------------------------------------------------------------
 * decider.c
 *	  Deciders: state + command -> events.  SQL expressions, checked and run.
 *
 * An expression names state, command and metadata, and where the state is that of a
 * stream, aggregate_id and version, which are its parameters.  It may look into tables, and runs as who defined it
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
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/plancache.h"

#include "base/compat.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/registry_function.h"
#include "command/decider.h"

/* The names an expression may use, in the order of its parameters; first those that all may. */
static const struct
{
	const char *name;
	Oid			type;
}			decider_params[] = {
	{"state", JSONBOID},
	{"command", JSONBOID},
	{"metadata", JSONBOID},
	{"aggregate_id", TEXTOID},
	{"version", INT8OID},
};

/* so many are there without a stream */
#define PARAMS_WITHOUT_STREAM	3

/* the arguments of a decider that is a function */
static const Oid function_argtypes[] = {JSONBOID, JSONBOID};

/* The error context around the decider that is running; NULL when none is. */
static ErrorContextCallback *decision_context = NULL;

PG_FUNCTION_INFO_V1(cqrs_es_reject);

static void check_expression(SPIPlanPtr plan);
static void require_jsonb(TupleDesc result);
static void help_to_field(ParseState *pstate, const ColumnRef *cref);
static Node *resolve_name(ParseState *pstate, ColumnRef *cref, Node *var);
static Node *resolve_without_stream(ParseState *pstate, ColumnRef *cref, Node *var);
static Node *resolve_among(size_t nparams, ParseState *pstate, ColumnRef *cref, Node *var);
static void bind_question(const DefinerStatement *statement, ParamListInfo params,
						  const void *source);
static Jsonb *evaluate(DefinerStatement *decider, const Question *question);
static Jsonb *as_array(Jsonb *events);

static const DefinerKind stream_decider = {
	.defined = "defined the command",
	.parse_mode = RAW_PARSE_PLPGSQL_EXPR,
	.nparams = lengthof(decider_params),
	.resolve = resolve_name,
	.check = check_expression,
	.bind = bind_question
};
static const DefinerKind other_decider = {
	.defined = "defined the command",
	.parse_mode = RAW_PARSE_PLPGSQL_EXPR,
	.nparams = PARAMS_WITHOUT_STREAM,
	.resolve = resolve_without_stream,
	.check = check_expression,
	.bind = bind_question
};

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

/*-------------------------------------------------------------------------
 * defining
 *-------------------------------------------------------------------------
 */

/*
 * The expression that calls a function (state jsonb, command jsonb), palloc'd.  The
 * function is locked to the end of the transaction.  Raises what
 * RegistryFunctionSignature does.
 */
char *
DeciderCall(NullableDatum function)
{
	Datum		signature = RegistryFunctionSignature(function, JSONBOID, function_argtypes,
													  lengthof(function_argtypes),
													  "A decider is a function (state jsonb, command jsonb) that returns jsonb.");

	return psprintf("%s(state, command)", RegistryFunctionName(TextDatumGetCString(signature)));
}

/*
 * Is it the name or the signature of a function, and no expression?  A name alone may
 * be that of a parameter, which is an expression.
 */
bool
DeciderIsFunction(const char *given)
{
	size_t		i;

	for (i = 0; i < lengthof(decider_params); i++)
		if (pg_strcasecmp(given, decider_params[i].name) == 0)
			return false;
	return RegistryFunctionIsNamed(given, function_argtypes, lengthof(function_argtypes));
}

/* The function that such a text means, as RegistryFunctionByName. */
NullableDatum
DeciderFunction(const char *given)
{
	return RegistryFunctionByName(given, function_argtypes, lengthof(function_argtypes));
}

/*
 * An expression of a definer, as DefinerStatementMake; 42804 when it cannot be a decider.
 * Of a stream's state, or another.
 */
DefinerStatement *
DeciderMake(const char *expression, const Definer *definer, bool of_stream)
{
	return DefinerStatementMake(of_stream ? &stream_decider : &other_decider, expression, definer);
}

/*-------------------------------------------------------------------------
 * deciding
 *-------------------------------------------------------------------------
 */

/*
 * The events that follow from a command, as a JSON array; palloc'd in the
 * current memory context.  Raises 42704 when the definer is gone, 22004 for a null
 * result, 21000 for several rows, 42804 for another type, and what the decider
 * raises, QE301 among it, of which somebody without the definer's rights sees less.
 */
Jsonb *
DeciderRun(DefinerStatement *decider, const Question *question)
{
	ErrorContextCallback *outer = decision_context;
	MemoryContext caller = CurrentMemoryContext;
	bool		may_see_all = has_privs_of_role(GetUserId(), decider->definer.role);
	Jsonb	   *events;

	decision_context = error_context_stack;
	PG_TRY();
	{
		events = evaluate(decider, question);
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
evaluate(DefinerStatement *decider, const Question *question)
{
	MemoryContext caller = CurrentMemoryContext;
	Jsonb	   *events;
	Datum		result = (Datum) 0;
	bool		isnull;

	SPI_connect();
	if (DefinerStatementRun(decider, question, 2) != SPI_OK_SELECT)
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

/* 42703 with the way that works for state.balance. */
static void
help_to_field(ParseState *pstate, const ColumnRef *cref)
{
	const char *name = strVal(linitial(cref->fields));
	const char *field = strVal(lsecond(cref->fields));
	size_t		i;

	for (i = 0; i < lengthof(decider_params); i++)
		if (decider_params[i].type == JSONBOID && strcmp(name, decider_params[i].name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("\"%s\" is JSON, and has no column \"%s\"", name, field),
					 errhint("Its fields are reached as %s->>'%s'.", name, field),
					 parser_errposition(pstate, cref->location)));
}

/* The names of decider_params, unless a table of the expression has such a column. */
static Node *
resolve_name(ParseState *pstate, ColumnRef *cref, Node *var)
{
	return resolve_among(lengthof(decider_params), pstate, cref, var);
}

static Node *
resolve_without_stream(ParseState *pstate, ColumnRef *cref, Node *var)
{
	return resolve_among(PARAMS_WITHOUT_STREAM, pstate, cref, var);
}

static Node *
resolve_among(size_t nparams, ParseState *pstate, ColumnRef *cref, Node *var)
{
	size_t		i;

	if (!IsA(linitial(cref->fields), String))
		return NULL;
	if (list_length(cref->fields) == 2 && IsA(lsecond(cref->fields), String) && var == NULL)
		help_to_field(pstate, cref);
	if (list_length(cref->fields) != 1)
		return NULL;
	for (i = 0; i < nparams; i++)
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
bind_question(const DefinerStatement *statement, ParamListInfo params, const void *source)
{
	const Question *question = source;
	Datum		values[] = {JsonbPGetDatum(question->state), JsonbPGetDatum(question->command),
		JsonbPGetDatum(question->metadata), PointerGetDatum(question->aggregate_id),
		Int64GetDatum(question->version)};
	int			i;

	for (i = 0; i < statement->kind->nparams; i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = false;
		params->params[i].pflags = 0;
		params->params[i].ptype = decider_params[i].type;
	}
}
