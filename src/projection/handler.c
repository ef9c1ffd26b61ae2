/*-------------------------------------------------------------------------
 * handler.c
 *	  What a projection does for an event: what it may say, and how it is run.
 *
 * A statement names the event's fields as event.payload, event.aggregate_id
 * and so on, and the whole as event.  They become parameters (number = column +
 * 1; the whole is one more) of a statement that runs as who defined it
 * (definer.c).  A function that takes the event is called by such a statement, too.
 *
 * When it fails, the append fails.  The error says which projection, event and
 * stream, and gets a SQLSTATE of its own, because a client must not take a
 * 23505 of a read model for a lost race; the original stands in the detail, as far
 * as whoever appends may see it (DefinerThrow).
 * What is retryable or not the statement's fault (40xxx, 53xxx, 57xxx, 58xxx,
 * XXxxx, and our own conditions) keeps its SQLSTATE.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "parser/parse_node.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"

#include "base/compat.h"
#include "base/cqrs_es.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/registry.h"
#include "base/registry_function.h"
#include "base/subtransaction.h"
#include "log/dispatch.h"
#include "log/events.h"
#include "projection/handler.h"
#include "projection/state_projection.h"

#define WHOLE_EVENT_PARAM	(EVENT_NCOLUMNS + 1)

/* Which handler runs for which event, for the error context. */
typedef struct HandlerContext
{
	const Handler *handler;
	const Event *event;
}			HandlerContext;

static void check_statement(SPIPlanPtr plan);
static Node *resolve_event(ParseState *pstate, ColumnRef *cref, Node *var);
static void bind_event(const DefinerStatement * statement, ParamListInfo params,
					   const void *source);
static void require_read_models(const Handler *handler);
static bool keeps_sqlstate(int sqlstate);
static void name_failure(const Handler *handler, const Event *event,
						 ErrorData *error, bool may_see_all);
static void describe_handler(void *arg);

static const DefinerKind statement_kind = {
	.defined = "defined the handler",
	.parse_mode = RAW_PARSE_DEFAULT,
	.nparams = WHOLE_EVENT_PARAM,
	.resolve = resolve_event,
	.check = check_statement,
	.bind = bind_event
};

static const DefinerKind function_kind = {
	.defined = "defined the handler",
	.parse_mode = RAW_PARSE_DEFAULT,
	.nparams = WHOLE_EVENT_PARAM,
	.resolve = resolve_event,
	.bind = bind_event
};

/*
 * What a handler runs: a statement, or a function, given by its qualified signature.
 * In the current memory context.  DefinerStatementDefine raises 42601 and 0A000
 * for what a handler cannot be.
 */
DefinerStatement *
HandlerStatement(const char *statement, const char *function, const Definer * definer)
{
	if (statement)
		return DefinerStatementMake(&statement_kind, statement, definer);
	return DefinerStatementMake(&function_kind,
								psprintf("SELECT %s(event)", RegistryFunctionName(function)),
								definer);
}

/*
 * Run the handler for an event, a new or a replayed one.  Whatever it raises
 * becomes QE201, but for the exceptions named above; without the definer's rights
 * one sees less of it.
 */
void
HandlerRun(const Handler *handler, const Event *event, bool replayed)
{
	HandlerContext context = {handler, event};
	ErrorContextCallback callback = {error_context_stack, describe_handler, &context};
	MemoryContext caller = CurrentMemoryContext;
	bool		may_see_all = has_privs_of_role(GetUserId(), handler->definer.role);

	check_stack_depth();
	error_context_stack = &callback;
	PG_TRY();
	{
		DispatchSetHandler(handler->projection);
		SPI_connect();
		require_read_models(handler);
		if (handler->state)
			StateProjectionRun(handler->state, event, replayed);
		else
			(void) DefinerStatementRun(handler->statement, event, 0);
		SPI_finish();
		DispatchSetHandler(NULL);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		DispatchSetHandler(NULL);
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (may_see_all && keeps_sqlstate(error->sqlerrcode))
			PG_RE_THROW();
		FlushErrorState();
		if (!keeps_sqlstate(error->sqlerrcode))
			name_failure(handler, event, error, may_see_all);
		if (may_see_all)
			ReThrowError(error);
		DefinerThrow(error);
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
}

/*
 * What would make the handler fail whatever the event is, in the current memory
 * context; NULL when nothing does.  Looks by compiling it anew, as its definer.
 * Keeps no lock, and does not wait for one: while a table is locked (the
 * projection is being rebuilt, for instance) nothing is known of it.
 */
char *
HandlerProblem(const Handler *handler)
{
	ErrorData  *volatile error = NULL;
	Subtransaction subtransaction;

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		(void) set_config_option("lock_timeout", "1ms", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		if (handler->state)
			StateProjectionCheck(handler->state);
		else
			DefinerStatementCheck(handler->statement);
		SubtransactionEnd(&subtransaction, false);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();

	if (error == NULL || error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		return NULL;
	if (ErrorIsNotUsers(error->sqlerrcode))
		ReThrowError(error);
	return psprintf("%s (SQLSTATE %s)", error->message, unpack_sql_state(error->sqlerrcode));
}

/*-------------------------------------------------------------------------
 * what a statement may say
 *-------------------------------------------------------------------------
 */

/* Just one statement, one that writes, and no rows to throw away. */
static void
check_statement(SPIPlanPtr plan)
{
	List	   *sources = SPI_plan_get_plan_sources(plan);
	CachedPlanSource *source;
	CommandTag	tag;

	if (list_length(sources) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a handler must be one SQL statement"),
				 errdetail("%d statements were given.", list_length(sources)),
				 errhint("Use a function, or a common table expression for the second one.")));
	source = linitial(sources);
	tag = source->raw_parse_tree ? CreateCommandTag(source->raw_parse_tree->stmt) : CMDTAG_UNKNOWN;
	if (tag != CMDTAG_INSERT && tag != CMDTAG_UPDATE && tag != CMDTAG_DELETE && tag != CMDTAG_MERGE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a handler cannot be %s", GetCommandTagName(tag)),
				 errhint("Use INSERT, UPDATE, DELETE or MERGE, or a function that takes the event.")));
	if (source->resultDesc != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a handler must not return rows"),
				 errhint("Leave RETURNING out.")));
}

/* event and event.column, unless the statement has a table of that name. */
static Node *
resolve_event(ParseState *pstate, ColumnRef *cref, Node *var)
{
	const char *field;
	int			column;

	if (strcmp(strVal(linitial(cref->fields)), "event") != 0 ||
		list_length(cref->fields) > 2 ||
		(list_length(cref->fields) == 2 && !IsA(lsecond(cref->fields), String)))
		return NULL;
	if (var != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_AMBIGUOUS_COLUMN),
				 errmsg("reference to \"event\" is ambiguous"),
				 errdetail("It could mean the event or a table or column of the statement."),
				 errhint("Give the table another alias."),
				 parser_errposition(pstate, cref->location)));
	if (list_length(cref->fields) == 1)
		return DefinerParam(pstate, WHOLE_EVENT_PARAM, EventsTypeOid(), cref->location);
	field = strVal(lsecond(cref->fields));
	column = EventColumnByName(field);
	if (column < 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("an event has no field \"%s\"", field),
				 errhint("Fields of the payload are reached as event.payload->>'%s'.", field),
				 parser_errposition(pstate, cref->location)));
	return DefinerParam(pstate, column + 1, EventColumnType(column), cref->location);
}

/* The parameters of an event; the whole is made only for a statement that names it. */
static void
bind_event(const DefinerStatement * statement, ParamListInfo params, const void *source)
{
	const Event *event = source;
	ParamExternData *whole = &params->params[WHOLE_EVENT_PARAM - 1];
	int			i;

	for (i = 0; i < EVENT_NCOLUMNS; i++)
	{
		ParamExternData *param = &params->params[i];

		param->value = event->values[i];
		param->isnull = false;
		param->pflags = 0;
		param->ptype = EventColumnType(i);
	}
	whole->isnull = !DefinerStatementUses(statement, WHOLE_EVENT_PARAM);
	whole->value = whole->isnull ? (Datum) 0 : EventToComposite(event);
	whole->pflags = 0;
	whole->ptype = EventsTypeOid();
}

/*-------------------------------------------------------------------------
 * running
 *-------------------------------------------------------------------------
 */

/* All of them, also where this handler would do without: no part of a projection stands still. */
static void
require_read_models(const Handler *handler)
{
	if (handler->missing_table == NULL)
		return;
	RegistryForget();
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("read model %s does not exist", handler->missing_table),
			 errhint("Create it and rebuild the projection, or pause or drop the projection.")));
}

static bool
keeps_sqlstate(int sqlstate)
{
	return ErrorIsNotUsers(sqlstate) ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_TO_CATEGORY(ERRCODE_PROJECTION_FAILED);
}

/* Make the error a QE201, its own words the detail. */
static void
name_failure(const Handler *handler, const Event *event, ErrorData *error, bool may_see_all)
{
	StreamKey	key;
	const char *detail = may_see_all ? error->detail : DefinerDetail(error);
	char	   *own_words = psprintf("%s (SQLSTATE %s)", error->message,
									 unpack_sql_state(error->sqlerrcode));

	EventKey(event, &key);
	if (error->detail && detail == NULL)
		error->detail_log = psprintf("%s\n%s", own_words, error->detail);
	error->detail = detail ? psprintf("%s\n%s", own_words, detail) : own_words;
	error->message = psprintf("projection \"%s\" failed on event %lld (%s) of stream \"%s\"",
							  handler->projection, (long long) EventSequence(event),
							  text_to_cstring(EventText(event, EVENT_EVENT_TYPE)),
							  StreamName(&key));
	error->sqlerrcode = ERRCODE_PROJECTION_FAILED;
}

static void
describe_handler(void *arg)
{
	HandlerContext *context = arg;
	StreamKey	key;

	EventKey(context->event, &key);
	errcontext("projection \"%s\" handling event %lld of stream \"%s\"",
			   context->handler->projection, (long long) EventSequence(context->event),
			   StreamName(&key));
}
