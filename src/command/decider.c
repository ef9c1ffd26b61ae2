/*-------------------------------------------------------------------------
 * decider.c
 *	  Deciders: state + command -> events.  SQL expressions, checked and run.
 *
 * An expression names state, command, aggregate_id, metadata and version; a
 * parser hook makes parameters of them, so it is parsed and planned once and
 * kept.  It may look into tables, and is parsed and runs with the rights and the
 * search_path of whoever defined it and with fixed settings, as handlers do; who
 * sends the command sees of its errors what he may (definer.c).  A function is the
 * expression that calls it.
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
#include "nodes/makefuncs.h"
#include "nodes/params.h"
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

/* The error context around the decider that is running; NULL when none is. */
static ErrorContextCallback *decision_context = NULL;

PG_FUNCTION_INFO_V1(cqrs_es_reject);

static SPIPlanPtr compile(const char *expression);
static void setup_parser(ParseState *pstate, void *arg);
static Node *resolve_name(ParseState *pstate, ColumnRef *cref, Node *var);
static Jsonb *evaluate(Decider *decider, const SPIExecuteOptions *options);
static Jsonb *as_array(Jsonb *events);

void
DeciderInit(void)
{
	DefinerRegisterParser(resolve_name);
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
	static const Oid argtypes[] = {JSONBOID, JSONBOID};
	Datum		signature = RegistryFunctionSignature(function, JSONBOID, argtypes, lengthof(argtypes),
													  "A decider is a function (state jsonb, command jsonb) that returns jsonb.");

	return psprintf("%s(state, command)", RegistryFunctionName(TextDatumGetCString(signature)));
}

/*
 * Parse and check an expression that the current role defines.  Raises the parser's
 * errors, 42804, 42P17, and 42501 when the role has not the rights that it would
 * run with.
 */
void
DeciderValidate(const char *expression, const char *search_path)
{
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToDefiner(GetUserId(), search_path);
	RequirePlanRights(compile(expression));
	RoleSwitchBack(&saved);
	SPI_finish();
}

/*-------------------------------------------------------------------------
 * deciding
 *-------------------------------------------------------------------------
 */

/*
 * The events that follow from a command, as a JSON array; palloc'd in the
 * current memory context.  Raises 42704 when the definer is gone, 22004 for a null
 * result, 21000 for several rows, and what the decider raises, QE301 among it, of
 * which somebody without the definer's rights sees less.
 */
Jsonb *
DeciderRun(Decider *decider, Jsonb *state, Jsonb *command, const text *aggregate_id,
		   Jsonb *metadata, int64 version)
{
	ErrorContextCallback *outer = decision_context;
	MemoryContext caller = CurrentMemoryContext;
	bool		may_see_all = has_privs_of_role(GetUserId(), decider->definer);
	ParamListInfo params = makeParamList(lengthof(decider_params));
	SPIExecuteOptions options = {.params = params,.tcount = 2};
	Datum		values[] = {JsonbPGetDatum(state), JsonbPGetDatum(command),
		PointerGetDatum(aggregate_id), JsonbPGetDatum(metadata), Int64GetDatum(version)};
	Jsonb	   *events;
	size_t		i;

	for (i = 0; i < lengthof(decider_params); i++)
	{
		params->params[i].value = values[i];
		params->params[i].isnull = false;
		params->params[i].pflags = 0;
		params->params[i].ptype = decider_params[i].type;
	}
	params->parserSetup = setup_parser;

	RegistryRequireRole(decider->definer, decider->definer_name, "defined the command");
	decision_context = error_context_stack;
	PG_TRY();
	{
		events = evaluate(decider, &options);
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
 * Run a decider's expression, as its definer.  It may be one that gives rows:
 * none is null, as in a subquery, and more than one an error (21000).
 */
static Jsonb *
evaluate(Decider *decider, const SPIExecuteOptions *options)
{
	MemoryContext caller = CurrentMemoryContext;
	RoleSwitch	saved = RoleSwitchToDefiner(decider->definer, decider->search_path);
	Jsonb	   *events;
	Datum		result = (Datum) 0;
	bool		isnull;

	SPI_connect();
	if (decider->plan == NULL || !PlanIsCurrent(decider->plan))
		RegistryKeepPlan(decider, &decider->plan, compile(decider->expression));
	if (SPI_execute_plan_extended(decider->plan, options) != SPI_OK_SELECT)
		elog(ERROR, "a decider is not a query");
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
	RoleSwitchBack(&saved);
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
 * compiling
 *-------------------------------------------------------------------------
 */

/* The plan of an expression; between SPI_connect and SPI_finish. */
static SPIPlanPtr
compile(const char *expression)
{
	SPIPrepareOptions options = {
		.parserSetup = setup_parser,
		.parseMode = RAW_PARSE_PLPGSQL_EXPR,
		.cursorOptions = CURSOR_OPT_GENERIC_PLAN
	};
	SPIPlanPtr	plan = SPI_prepare_extended(expression, &options);
	List	   *sources;
	CachedPlanSource *source;

	if (plan == NULL)
		elog(ERROR, "could not prepare a decider: %s", SPI_result_code_string(SPI_result));
	sources = SPI_plan_get_plan_sources(plan);
	source = linitial(sources);
	if (source->resultDesc == NULL || source->resultDesc->natts != 1 ||
		TupleDescAttr(source->resultDesc, 0)->atttypid != JSONBOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("a decider must be an expression of type jsonb"),
				 errhint("Cast a literal: '[]'::jsonb.")));
	RefuseTemporaryObjects(plan);
	return plan;
}

static void
setup_parser(ParseState *pstate, void *arg)
{
	pstate->p_post_columnref_hook = resolve_name;
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
		Param	   *param;

		if (strcmp(strVal(linitial(cref->fields)), decider_params[i].name) != 0)
			continue;
		if (var != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_AMBIGUOUS_COLUMN),
					 errmsg("reference to \"%s\" is ambiguous", decider_params[i].name),
					 errdetail("It could mean the decider's \"%s\" or a column.", decider_params[i].name),
					 errhint("Write the column with its table's name."),
					 parser_errposition(pstate, cref->location)));
		param = makeNode(Param);
		param->paramkind = PARAM_EXTERN;
		param->paramid = i + 1;
		param->paramtype = decider_params[i].type;
		param->paramtypmod = -1;
		param->paramcollid = get_typcollation(param->paramtype);
		param->location = cref->location;
		return (Node *) param;
	}
	return NULL;
}
