/*-------------------------------------------------------------------------
 * handler.c
 *	  What a projection does for an event: how it is defined, and run.
 *
 * For a new event the projections that concern it run one after the other, in the
 * order of their names, as triggers do; within one the handler of '*' comes first.
 * The observer is called when all events of an append are in the log; before
 * anything runs it takes the locks of all these projections (projection.c).
 *
 * A statement names the event's fields as event.payload, event.aggregate_id
 * and so on, and the whole as event.  They become parameters (number = column +
 * 1; the whole is one more) of a statement that runs as who defined it
 * (definer.c).  A function that takes the event is called by such a statement, too.
 *
 * When it fails, the append fails.  The error says which projection, event and
 * stream, in fields as well (event_error.c), and gets a SQLSTATE of its own, because a
 * client must not take a 23505 of a read model for a lost race; the original stands in
 * the detail, as far as whoever appends may see it (DefinerThrow).
 * What is retryable or not the statement's fault (40xxx, 53xxx, 55P03, 57xxx, 58xxx,
 * XXxxx, and our own conditions) keeps its SQLSTATE.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "parser/parse_node.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/deferred_constraint.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/fixed_settings.h"
#include "base/internal_query.h"
#include "base/lent_session.h"
#include "base/older_sql.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/registry_function.h"
#include "base/registry_name.h"
#include "base/stream_key.h"
#include "base/subtransaction.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/dispatch.h"
#include "log/event_error.h"
#include "log/events.h"
#include "log/personal_data.h"
#include "log/upcast.h"
#include "projection/handler.h"
#include "projection/projection.h"
#include "projection/read_model.h"
#include "projection/state_projection.h"

#define WHOLE_EVENT_PARAM	(EVENT_NCOLUMNS + 1)

/*
 * A handler: one SQL statement, a function that takes the event, or the
 * ready-made one that keeps the states of aggregates.
 */
typedef struct Handler
{
	const Projection *projection;
	text	   *event_type;		/* NULL: all */
	Definer		definer;
	DefinerStatement *statement;	/* that calls the function, or NULL */
	bool		is_function;
	StateProjection *states;	/* or NULL */

	/*
	 * since HandlerTally: how often it was replayed, how many rows it changed, and
	 * whether there may have been others
	 */
	int64		runs;
	int64		rows;
	bool		uncounted;
} Handler;

/* Those of a projection, in the order in which they run. */
typedef struct HandlerList
{
	uint64		generation;		/* of the registries, before they were read */
	int			n;
	Handler		handlers[FLEXIBLE_ARRAY_MEMBER];
} HandlerList;

/* with HANDLER_OWN_WORDS and so on: how handlers run, for a new event (0), or */
#define RUN_REPLAYED	0x04	/* for an old one, also where appends pass by */

/* Which handler runs for which event, for the error context. */
typedef struct HandlerContext
{
	const Handler *handler;
	const Event *event;
} HandlerContext;

PG_FUNCTION_INFO_V1(cqrs_es_define_handler);
PG_FUNCTION_INFO_V1(cqrs_es_drop_handler);

static bool is_signature(const char *given);
static void save_handler(FunctionCallInfo fcinfo, const char *statement, const char *function,
						 const Definer *definer);
static bool begin_change(const text *name, bool if_exists, bool *found);
static void note_change(const text *name);
static void project(const Event *event);
static bool acts_for_others(Projection *projection);
static bool run_all(Projection **projections, int n, const Event *event, int how);
static void lift(const Projection *projection, Event *event, int how, int *guc_level);
static void lift_as_owner(const Projection *projection, Event *event);
static void lift_as_caller(Event *event);
static void run(Handler *handler, const Event *event, int how, int *guc_level);
static bool run_directly(Handler *handler, const Event *event);
static void run_guarded(Handler *handler, const Event *event, int how);
static void run_counted(Handler *handler, const Event *event);
static bool concerns(const Handler *handler, const text *event_type);
static List *take_tallies(HandlerList *list, List *tallies);
static List *add_tally(List *tallies, const HandlerTally *more);
static bool seeks_rows(const Handler *handler);
static bool changes_rows(const MergeStmt * merge);
static bool writes_beside(const WithClause * with);
static void require_read_models(const Projection *projection);
static bool keeps_sqlstate(int sqlstate);
static void name_failure(const Handler *handler, const Event *event,
						 ErrorData *error, bool may_see_all);
static void name_event(const Handler *handler, const Event *event, ErrorData *error);
static void describe_handler(void *arg);
static bool list_member_text(List *texts, const char *text);
static void check_handler(const Handler *handler);
static void check_rights(const Handler *handler);
static char *problem_of(const Handler *handler, void (*check) (const Handler *handler));
static HandlerList *handlers_of(Projection *projection);
static void forget_old_handlers(Projection *projection);
static HandlerList *load_handlers(const Projection *projection, Snapshot snapshot);
static HandlerList *list_with_states(const Projection *projection);
static HandlerList *list_with_statements(const Projection *projection, Snapshot snapshot);
static DefinerStatement *make_statement(const char *statement, const char *function,
										const Definer *definer);
static void check_statement(SPIPlanPtr plan);
static void help_to_event(ParseState *pstate, const ColumnRef *cref);
static Node *resolve_event(ParseState *pstate, ColumnRef *cref, Node *var);
static void bind_event(const DefinerStatement *statement, ParamListInfo params,
					   const void *source);

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

void
HandlerInit(void)
{
	RegistryRegisterOfAllNodes("handlers");
	RegistryFunctionRegister("handlers",
							 "SELECT function, pg_catalog.format('the handler of projection \"%s\" for event type \"%s\"',"
							 " projection, event_type) AS used_as FROM cqrs_es.handlers WHERE function IS NOT NULL");
	ProjectionSetHandlers(load_handlers);
	DispatchRegister(project);
}

/*-------------------------------------------------------------------------
 * defining
 *-------------------------------------------------------------------------
 */

/* SQL: define_handler(projection, event_type, handler); replaces an earlier one. */
Datum
cqrs_es_define_handler(PG_FUNCTION_ARGS)
{
	text	   *name = TextArgument(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	Definer		definer = {.role = GetUserId()};
	Oid			argtypes[1];
	char	   *given;
	bool		found;

	ReadOnlyPrevent(fcinfo);
	if (begin_change(name, false, &found))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" cannot have handlers", text_to_cstring(name)),
				 errdetail("It keeps the states of aggregates.")));
	definer.search_path = DefinerSearchPath();
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("handler must not be null")));
	given = text_to_cstring(PG_GETARG_TEXT_PP(2));
	argtypes[0] = EventsTypeOid();
	if (is_signature(given) || RegistryFunctionIsName(given) ||
		RegistryFunctionIsNamed(given, argtypes, lengthof(argtypes)))
	{
		NullableDatum function = RegistryFunctionByName(given, argtypes, lengthof(argtypes));
		Datum		signature;

		signature = RegistryFunctionSignature(function, InvalidOid,
											  argtypes, lengthof(argtypes),
											  "A handler is a function (event cqrs_es.event).");
		save_handler(fcinfo, NULL, TextDatumGetCString(signature), &definer);
	}
	else
		save_handler(fcinfo, given, NULL, &definer);
	PG_RETURN_VOID();
}

/*
 * A statement, or the signature of a function?  No statement has its first
 * parenthesis before any space, but for those in quoted names.
 */
static bool
is_signature(const char *given)
{
	const char *c = given;
	bool		quoted = false;

	while (*c && (quoted || strchr("( \t\r\n;", *c) == NULL))
		if (*c++ == '"')
			quoted = !quoted;
	return c > given && *c == '(';
}

/* Check a handler, a statement or a function, and store it; the same one is left as it is. */
static void
save_handler(FunctionCallInfo fcinfo, const char *statement, const char *function,
			 const Definer *definer)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.handlers AS h"
		" (projection, event_type, statement, function, definer, search_path)"
		" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (projection, event_type) DO UPDATE SET"
		" statement = excluded.statement, function = excluded.function,"
		" definer = excluded.definer, definer_name = excluded.definer_name,"
		" search_path = excluded.search_path",
		.nargs = 6,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, REGROLEOID, TEXTOID}
	};
	static InternalQuery same = {
		.sql = "SELECT FROM cqrs_es.handlers WHERE projection OPERATOR(pg_catalog.=) $1"
		" AND event_type OPERATOR(pg_catalog.=) $2 AND statement IS NOT DISTINCT FROM $3"
		" AND function IS NOT DISTINCT FROM $4 AND definer OPERATOR(pg_catalog.=) $5"
		" AND search_path OPERATOR(pg_catalog.=) $6",
		.nargs = 6,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, REGROLEOID, TEXTOID}
	};
	text	   *event_type = TextArgument(fcinfo->args[1], "event_type", EVENT_TYPE_MAX_BYTES);
	Datum		values[6] = {PG_GETARG_DATUM(0), PointerGetDatum(event_type)};
	char		nulls[6] = {' ', ' ', statement ? ' ' : 'n', function ? ' ' : 'n', ' ', ' '};

	DefinerStatementDefine(make_statement(statement, function, definer));
	if (statement)
		values[2] = CStringGetTextDatum(statement);
	if (function)
		values[3] = CStringGetTextDatum(function);
	values[4] = ObjectIdGetDatum(definer->role);
	values[5] = CStringGetTextDatum(definer->search_path);
	if (RegistryHas(&same, values, nulls))
		return;
	note_change(DatumGetTextPP(values[0]));
	(void) RegistryWrite(&query, values, nulls);
}

/*
 * Before anything else is looked at when its handlers change: lock the projection's
 * row, so that nobody drops or rebuilds it meanwhile.  The projection must be the
 * caller's own.  With if_exists *found may become false instead.  Returns whether it
 * keeps the states of aggregates.
 */
static bool
begin_change(const text *name, bool if_exists, bool *found)
{
	static InternalQuery query = {
		.sql = "SELECT " REGISTRY_ROLE("owner", "owner_name") " AS owner,"
		" state_of IS NOT NULL AS keeps_states FROM cqrs_es.projections"
		" WHERE name OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	bool		keeps_states = false;

	SPI_connect();
	*found = ProjectionLockRow(&query, name, if_exists);
	if (*found)
	{
		QueryRow	row = InternalQueryRow(0);

		keeps_states = DatumGetBool(InternalQueryDatum(&row, "keeps_states", NULL));
	}
	SPI_finish();
	return keeps_states;
}

/*
 * Make the projection's row one that this transaction has written, before its handlers
 * are: a rebuild in this transaction knows by that that others do not see the change yet.
 */
static void
note_change(const text *name)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.projections SET name = name WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(name);

	(void) RegistryWrite(&query, &value, NULL);
}

/* SQL: drop_handler(projection, event_type, if_exists) */
Datum
cqrs_es_drop_handler(PG_FUNCTION_ARGS)
{
	static InternalQuery drop = {
		.sql = "DELETE FROM cqrs_es.handlers WHERE projection OPERATOR(pg_catalog.=) $1"
		" AND event_type OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	static InternalQuery row = {
		.sql = "SELECT FROM cqrs_es.handlers WHERE projection OPERATOR(pg_catalog.=) $1"
		" AND event_type OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	text	   *name = TextArgument(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	text	   *event_type = TextArgument(fcinfo->args[1], "event_type", EVENT_TYPE_MAX_BYTES);
	Datum		values[2] = {PointerGetDatum(name), PointerGetDatum(event_type)};

	bool		if_exists = RegistryIfExists(OlderSqlCall(fcinfo, 3)->args[2]);
	bool		found;

	ReadOnlyPrevent(fcinfo);
	(void) begin_change(name, if_exists, &found);
	if (!found)
		PG_RETURN_VOID();
	if (!RegistryDrop(&row, &drop, values))
		RegistryReportMissing(if_exists, ERRCODE_UNDEFINED_OBJECT, NULL,
							  psprintf("projection \"%s\" has no handler for event type \"%s\"",
									   text_to_cstring(name), text_to_cstring(event_type)));
	else
		note_change(name);
	PG_RETURN_VOID();
}

/*-------------------------------------------------------------------------
 * running
 *-------------------------------------------------------------------------
 */

/* Run what the projections do that a new event concerns, and that appends do not pass by. */
static void
project(const Event *event)
{
	Projection **projections;
	int			n;

	RegistryEnter();
	projections = ProjectionFind(event, &n);
	(void) run_all(projections, n, event, 0);
	if (projections)
		pfree(projections);
	RegistryLeave();
}

/*
 * Run what a projection, a copy of the caller's own, does for an old event, paused or
 * not; false when the event does not concern it.  The caller sees to it that nobody
 * changes the projection meanwhile.  With HANDLER_OWN_WORDS an error is what the handler or
 * upcaster raised, for a caller who records it; it shows all there is to see.
 * HANDLER_GO_ON is for who has to tell which event failed, or how far it has come: a state
 * that is of the event before takes this event alone, as at an append.  Otherwise it is brought
 * up to its stream's end, and later events have nothing to do.
 *
 * Handlers run as their definers, upcasters and reducers as the projection's owner, whoever
 * calls.
 */
bool
HandlerReplay(Projection *projection, const Event *event, int how)
{
	bool		concerned;

	RegistryEnter();
	forget_old_handlers(projection);
	concerned = run_all(&projection, 1, event, RUN_REPLAYED | how);
	RegistryLeave();
	return concerned;
}

/*
 * Before a row of replays in a (sub)transaction: deferred constraints and triggers of the
 * read models.  They would run at commit with the rights of whoever replays.  So what a
 * definer wrote who has not those rights could leave none waiting, and would fail with
 * 42501 (DefinerSwitchRole); instead they are not deferred, and run at the end of each statement
 * as the definer, until DeferredConstraintRelease gets what this returned, in the current memory
 * context.  NIL: the definers have the caller's rights, and everything is as it is declared.
 * An error puts them back with the (sub)transaction.
 */
List *
HandlerHoldConstraints(Projection *projection)
{
	return acts_for_others(projection) ? DeferredConstraintHold() : NIL;
}

/* Has anybody whose handlers or read models these are less rights than who calls? */
static bool
acts_for_others(Projection *projection)
{
	HandlerList *list = handlers_of(projection);
	int			i;

	if (!has_privs_of_role(projection->owner.role, GetUserId()))
		return true;
	for (i = 0; i < list->n; i++)
		if (!has_privs_of_role(list->handlers[i].definer.role, GetUserId()))
			return true;
	return false;
}

/*
 * Check now, as the projection's owner, what replays have left waiting for the commit: so
 * that an event is found out which violates a deferred constraint.  What is replayed
 * then may leave something waiting again.  Raises what the checks raise, 42704.
 */
void
HandlerCheckConstraints(const Projection *projection)
{
	List	   *waiting = DeferredConstraintWaiting();

	if (waiting != NIL)
	{
		RoleSwitch	saved = ProjectionSwitchToOwner(projection);
		LentSession lent;

		LentSessionBegin(&lent);
		PG_TRY();
		{
			DeferredConstraintCheck(waiting);
		}
		PG_FINALLY();
		{
			LentSessionEnd(&lent);
		}
		PG_END_TRY();
		RoleSwitchBack(&saved);
	}
}

/* Has the projection something to do for the event? */
bool
HandlerConcerns(Projection *projection, const Event *event)
{
	HandlerList *list;
	int			i;

	list = handlers_of(projection);
	for (i = 0; i < list->n; i++)
		if (concerns(&list->handlers[i], EventText(event, EVENT_EVENT_TYPE)))
			return ProjectionWants(projection, event);
	return false;
}

/*
 * Add what the handlers of a copy did in replays, since this was asked last, to a list of
 * HandlerTally by their event types; both in the current memory context.
 */
List *
HandlerTallies(Projection *projection, List *tallies)
{
	ListCell   *lc;

	foreach(lc, projection->tallies)
	{
		tallies = add_tally(tallies, lfirst(lc));
	}
	projection->tallies = NIL;
	return take_tallies(handlers_of(projection), tallies);
}

/* The same of a list of handlers. */
static List *
take_tallies(HandlerList *list, List *tallies)
{
	int			i;

	for (i = 0; i < list->n; i++)
	{
		Handler    *handler = &list->handlers[i];

		HandlerTally tally = {
			.event_type = handler->event_type ? text_to_cstring(handler->event_type) :
			PROJECTION_ALL_EVENT_TYPES,
			.uncounted = handler->uncounted,
			.seeks_rows = seeks_rows(handler),
			.runs = handler->runs,
			.rows = handler->rows
		};

		tallies = add_tally(tallies, &tally);
		handler->runs = handler->rows = 0;
		handler->uncounted = false;
	}
	return tallies;
}

static List *
add_tally(List *tallies, const HandlerTally *more)
{
	HandlerTally *tally = NULL;
	ListCell   *lc;

	foreach(lc, tallies)
	{
		if (strcmp(((HandlerTally *) lfirst(lc))->event_type, more->event_type) == 0)
			tally = lfirst(lc);
	}
	if (tally == NULL)
	{
		tally = palloc0(sizeof(HandlerTally));
		tally->event_type = pstrdup(more->event_type);
		tallies = lappend(tallies, tally);
	}
	tally->uncounted |= more->uncounted;
	/* one that has not run in this session yet has no plan to tell by */
	if (more->runs > 0)
		tally->seeks_rows = more->seeks_rows && (tally->runs == 0 || tally->seeks_rows);
	tally->runs += more->runs;
	tally->rows += more->rows;
	return tallies;
}

/*
 * Is it a handler's business to find rows that are there, and change them?  What
 * inserts or deletes may rightly find nothing to do, and so may what writes in a common
 * table expression as well, whose rows are not counted.
 */
static bool
seeks_rows(const Handler *handler)
{
	Node	   *tree = handler->statement && !handler->is_function ?
		DefinerStatementTree(handler->statement) : NULL;

	if (tree == NULL)
		return false;
	if (IsA(tree, UpdateStmt))
		return !writes_beside(((UpdateStmt *) tree)->withClause);
	return IsA(tree, MergeStmt) && changes_rows((MergeStmt *) tree) &&
		!writes_beside(((MergeStmt *) tree)->withClause);
}

static bool
changes_rows(const MergeStmt * merge)
{
	ListCell   *lc;

	foreach(lc, merge->mergeWhenClauses)
	{
		if (((MergeWhenClause *) lfirst(lc))->commandType == CMD_UPDATE)
			return true;
	}
	return false;
}

static bool
writes_beside(const WithClause * with)
{
	ListCell   *lc;

	foreach(lc, with ? with->ctes : NIL)
	{
		if (!IsA(lfirst_node(CommonTableExpr, lc)->ctequery, SelectStmt))
			return true;
	}
	return false;
}

/*
 * Run the handlers of projections for an event, which are passed by when they are
 * paused or asynchronous, unless it is replayed; false when it does not concern any.  (One
 * that is not replayed is of types that are theirs.)  Between
 * RegistryEnter and RegistryLeave: the projections outlive what handlers do to
 * registries.
 */
static bool
run_all(Projection **projections, int n, const Event *event, int how)
{
	text	   *event_type = EventText(event, EVENT_EVENT_TYPE);
	Event		upcast = *event;
	bool		concerned = false;
	int			guc_level = 0;
	int			i;
	int			j;

	for (i = 0; i < n; i++)
	{
		HandlerList *list;
		int			is_wanted = -1;

		if (ProjectionIsPassedBy(projections[i]) && !(how & RUN_REPLAYED))
		{
			if (!projections[i]->paused)
				ProjectionAsyncPart->appended();
			continue;
		}
		list = handlers_of(projections[i]);
		for (j = 0; j < list->n; j++)
		{
			Handler    *handler = &list->handlers[j];

			if (!concerns(handler, event_type))
				continue;
			/* looked up once, if at all */
			if (is_wanted < 0)
				is_wanted = ProjectionWants(projections[i], event);
			if (!is_wanted)
				break;
			if (!concerned)
			{
				TenancyActFor(EventText(event, EVENT_TENANT_ID), &guc_level);
				lift(projections[i], &upcast, how, &guc_level);
			}
			concerned = true;
			run(handler, &upcast, how, &guc_level);
		}
	}
	FixedSettingsRestore(guc_level);
	return concerned;
}

/*
 * Open what is encrypted, and lift an event to its newest version: a new one with the rights of whoever appends, as
 * whatever reads it; one that is replayed with those of the projection's owner, since
 * whoever replays it, perhaps a superuser, has nothing to do with what was appended.
 */
static void
lift(const Projection *projection, Event *event, int how, int *guc_level)
{
	PersonalDataOpen(event);
	if (!UpcastLifts(event))
		return;
	FixedSettingsSet(guc_level);
	if (how & RUN_REPLAYED)
		lift_as_owner(projection, event);
	else
		lift_as_caller(event);
}

static void
lift_as_owner(const Projection *projection, Event *event)
{
	RoleSwitch	saved = ProjectionSwitchToOwner(projection);
	FunctionCalls calls;
	LentSession lent;

	RegistryFunctionCallsInit(&calls);
	LentSessionBegin(&lent);
	PG_TRY();
	{
		UpcastEvent(event, &calls);
	}
	PG_FINALLY();
	{
		LentSessionEnd(&lent);
	}
	PG_END_TRY();
	RegistryFunctionCallsEnd(&calls);
	RoleSwitchBack(&saved);
}

/* One that a handler has appended is lifted with the rights of its definer. */
static void
lift_as_caller(Event *event)
{
	MemoryContext caller = CurrentMemoryContext;
	FunctionCalls calls;

	RegistryFunctionCallsInit(&calls);
	PG_TRY();
	{
		UpcastEvent(event, &calls);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		if (DispatchMaySee(GetUserId()))
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		DefinerThrow(error);
	}
	PG_END_TRY();
	RegistryFunctionCallsEnd(&calls);
}

/*
 * Run a function, and see how many rows it has changed, which it cannot say: those of the
 * read models are counted by the server.
 */
static void
run_counted(Handler *handler, const Event *event)
{
	const Projection *projection = handler->projection;
	int64		before = ReadModelsRowsChanged(projection->read_models, projection->nread_models);
	int64		after;

	(void) DefinerStatementRun(handler->statement, event, 0);
	after = ReadModelsRowsChanged(projection->read_models, projection->nread_models);
	if (before >= 0 && after >= before)
		handler->rows += after - before;
	else
		handler->uncounted = true;
}

/*
 * Run a handler for an event, a new or a replayed one.  Whatever it raises
 * becomes QE201, but for the exceptions named above; without the definer's rights
 * one sees less of it.
 */
static void
run(Handler *handler, const Event *event, int how, int *guc_level)
{
	HandlerContext context = {handler, event};
	ErrorContextCallback callback = {error_context_stack, describe_handler, &context};
	MemoryContext caller = CurrentMemoryContext;
	bool		may_see_all = DispatchMaySee(handler->definer.role) && DispatchMaySee(GetUserId());

	check_stack_depth();
	if (handler->states)
		StateProjectionBegin(handler->states);
	error_context_stack = &callback;
	PG_TRY();
	{
		DispatchSetHandler(handler->projection->name);
		require_read_models(handler->projection);
		if (!run_directly(handler, event))
		{
			/* once for all of them; what reducers need they see to */
			if (handler->states == NULL || !StateProjectionIsDirect(handler->states))
				FixedSettingsSet(guc_level);
			run_guarded(handler, event, how);
		}
		handler->runs++;
		DispatchSetHandler(NULL);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		DispatchSetHandler(NULL);
		if (how & HANDLER_OWN_WORDS)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		if (!keeps_sqlstate(error->sqlerrcode))
			name_failure(handler, event, error, may_see_all);
		else if (!ErrorIsNotUsers(error->sqlerrcode) && error->schema_name == NULL)
			name_event(handler, event, error);
		if ((how & RUN_REPLAYED) && !ErrorIsNotUsers(error->sqlerrcode) && error->hint == NULL)
			error->hint = pstrdup("Mend the handler or the upcaster. Or pass on_error => 'skip': such events are then recorded in cqrs_es.skipped_events.");
		if (may_see_all)
			ReThrowError(error);
		DefinerThrow(error);
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
}

/* One whose statement runs no code of users, if it is such a one; else nothing is done. */
static bool
run_directly(Handler *handler, const Event *event)
{
	uint64		rows;

	if (handler->statement == NULL || EventsForceGenericPath() ||
		!DefinerStatementRunDirectly(handler->statement, event, &rows, NULL))
		return false;
	handler->rows += rows;
	return true;
}

/* Any other. */
static void
run_guarded(Handler *handler, const Event *event, int how)
{
	SPI_connect();
	if (handler->states)
		handler->rows += StateProjectionRun(handler->states, event, (how & RUN_REPLAYED) != 0,
											(how & HANDLER_GO_ON) != 0);
	else if (handler->is_function && (how & RUN_REPLAYED))
		run_counted(handler, event);
	else
	{
		(void) DefinerStatementRun(handler->statement, event, 0);
		handler->rows += SPI_processed;
	}
	SPI_finish();
}

/* Is the handler for events of this type? */
static bool
concerns(const Handler *handler, const text *event_type)
{
	return handler->event_type == NULL || TextEqual(handler->event_type, event_type);
}

/* All of them, also where this handler would do without: no part of a projection stands still. */
static void
require_read_models(const Projection *projection)
{
	if (projection->missing == NIL)
		return;
	RegistryForget();
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("read model %s does not exist", (char *) linitial(projection->missing)),
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
	const FoldWatch *at = handler->states ? StateProjectionFailedAt(handler->states) : NULL;
	const char *detail = may_see_all ? error->detail : DefinerDetail(error);
	char	   *own_words = psprintf("%s (SQLSTATE %s)", error->message,
									 unpack_sql_state(error->sqlerrcode));

	EventKey(event, &key);
	if (error->detail && detail == NULL)
		error->detail_log = psprintf("%s\n%s", own_words, error->detail);
	error->detail = detail ? psprintf("%s\n%s", own_words, detail) : own_words;
	error->message = psprintf("projection \"%s\" failed on event %lld (%s) of stream \"%s\"",
							  handler->projection->name,
							  (long long) (at ? at->sequence : EventSequence(event)),
							  at ? at->event_type : text_to_cstring(EventText(event, EVENT_EVENT_TYPE)),
							  StreamKeyName(&key));
	error->sqlerrcode = ERRCODE_PROJECTION_FAILED;
	name_event(handler, event, error);
}

/*
 * The fields of an error name the event that is to blame: of a state that which could not be
 * folded, which may be another one of the stream.
 */
static void
name_event(const Handler *handler, const Event *event, ErrorData *error)
{
	const FoldWatch *at = handler->states ? StateProjectionFailedAt(handler->states) : NULL;

	EventErrorName(error, event);
	if (at)
	{
		error->column_name = psprintf("%lld", (long long) at->sequence);
		error->datatype_name = psprintf("%lld", (long long) at->global_position);
	}
}

static void
describe_handler(void *arg)
{
	HandlerContext *context = arg;
	StreamKey	key;

	EventKey(context->event, &key);
	errcontext("projection \"%s\" handling event %lld of stream \"%s\"",
			   context->handler->projection->name, (long long) EventSequence(context->event),
			   StreamKeyName(&key));
}

/*-------------------------------------------------------------------------
 * what is wrong with handlers
 *-------------------------------------------------------------------------
 */

/*
 * What would make handlers of a projection fail whatever the event is, as texts
 * (char *) in the current memory context; NIL when nothing does.
 */
List *
HandlerProblems(Projection *projection)
{
	HandlerList *list = handlers_of(projection);
	List	   *problems = NIL;
	int			i;

	for (i = 0; i < list->n; i++)
	{
		char	   *problem = problem_of(&list->handlers[i], check_handler);

		if (problem == NULL)
			problem = problem_of(&list->handlers[i], check_rights);
		/* they may lack the right to the same upcaster */
		if (problem && !list_member_text(problems, problem))
			problems = lappend(problems, problem);
	}
	return problems;
}

static bool
list_member_text(List *texts, const char *text)
{
	ListCell   *lc;

	foreach(lc, texts)
	{
		if (strcmp(lfirst(lc), text) == 0)
			return true;
	}
	return false;
}

/* Looks by compiling it anew, as its definer. */
static void
check_handler(const Handler *handler)
{
	if (handler->states == NULL)
		DefinerStatementCheck(handler->statement);
	else if (handler->projection->missing == NIL)	/* else there is nothing to look at */
		StateProjectionCheck(handler->states);
}

/* Could a replay lift and fold what it handles, which it does as the projection's owner? */
static void
check_rights(const Handler *handler)
{
	RoleSwitch	saved;

	/* one that is gone is a problem of its own */
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(handler->projection->owner.role)))
		return;
	saved = ProjectionSwitchToOwner(handler->projection);
	if (handler->states)
		StateProjectionRequireRights(handler->states);
	else if (handler->event_type)
		UpcastRequireRights(handler->event_type);
	RoleSwitchBack(&saved);
}

/*
 * What a check of one handler raises; NULL when that is nothing.
 * Keeps no lock, and does not wait for one: while a table is locked (the
 * projection is being rebuilt, for instance) nothing is known of it.
 */
static char *
problem_of(const Handler *handler, void (*check) (const Handler *handler))
{
	ErrorData  *volatile error = NULL;
	Subtransaction subtransaction;

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		(void) set_config_option("lock_timeout", "1ms", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		check(handler);
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
 * loading
 *-------------------------------------------------------------------------
 */

/*
 * The handlers of a projection; of a copy, read when they are first needed, into memory
 * of their own.
 */
static HandlerList *
handlers_of(Projection *projection)
{
	if (projection->handlers == NULL)
	{
		MemoryContext memory = AllocSetContextCreate(projection->memory, "cqrs_es handlers",
													 ALLOCSET_SMALL_SIZES);
		MemoryContext caller = MemoryContextSwitchTo(memory);

		projection->handlers = load_handlers(projection, NULL);
		MemoryContextSwitchTo(caller);
	}
	return projection->handlers;
}

/*
 * Let a copy begin anew with its handlers when declarations have changed, or a plan of
 * theirs was replaced: plans that are kept no more go with them, as they go with a
 * cache.  Not while one of them runs.
 */
static void
forget_old_handlers(Projection *projection)
{
	HandlerList *list = projection->handlers;
	MemoryContext caller;

	if (list == NULL || list->generation == RegistryGeneration())
		return;
	caller = MemoryContextSwitchTo(projection->memory);
	projection->tallies = take_tallies(list, projection->tallies);
	MemoryContextSwitchTo(caller);
	projection->handlers = NULL;
	MemoryContextDelete(GetMemoryChunkContext(list));
}

/* In the current memory context, where their plans will be kept, too. */
static HandlerList *
load_handlers(const Projection *projection, Snapshot snapshot)
{
	uint64		generation = RegistryGeneration();
	HandlerList *list = projection->keeps_states ?
		list_with_states(projection) : list_with_statements(projection, snapshot);

	list->generation = generation;
	return list;
}

/* Of a projection that keeps states, in the current memory context. */
static HandlerList *
list_with_states(const Projection *projection)
{
	HandlerList *list = palloc0(offsetof(HandlerList, handlers) + sizeof(Handler));
	Oid			table = projection->missing == NIL ? projection->read_models[0] : InvalidOid;

	list->n = 1;
	list->handlers[0].projection = projection;
	list->handlers[0].definer = projection->owner;
	list->handlers[0].states = StateProjectionMake(projection->name, table, projection->types[0],
												   &projection->owner);
	return list;
}

/* Of any other, in the current memory context. */
static HandlerList *
list_with_statements(const Projection *projection, Snapshot snapshot)
{
	static InternalQuery query = {
		.sql = "SELECT h.event_type, h.event_type OPERATOR(pg_catalog.=) '" PROJECTION_ALL_EVENT_TYPES "' AS all_types,"
		" h.statement, h.function, " REGISTRY_ROLE("h.definer", "h.definer_name") " AS definer,"
		" h.definer_name, h.search_path FROM cqrs_es.handlers AS h"
		" WHERE h.projection OPERATOR(pg_catalog.=) $1 ORDER BY 2 DESC, 1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = CStringGetTextDatum(projection->name);
	MemoryContext memory = CurrentMemoryContext;
	MemoryContext spi;
	HandlerList *list;
	uint64		n;
	uint64		i;

	SPI_connect();
	n = RegistryReadAsOf(&query, &value, snapshot);
	spi = MemoryContextSwitchTo(memory);
	list = palloc0(offsetof(HandlerList, handlers) + n * sizeof(Handler));
	list->n = (int) n;
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		Handler    *handler = &list->handlers[i];

		handler->projection = projection;
		if (!DatumGetBool(InternalQueryDatum(&row, "all_types", NULL)))
			handler->event_type = cstring_to_text(InternalQueryText(&row, "event_type"));
		handler->definer.role = DatumGetObjectId(InternalQueryDatum(&row, "definer", NULL));
		handler->definer.name = InternalQueryText(&row, "definer_name");
		handler->definer.search_path = InternalQueryText(&row, "search_path");
		handler->is_function = InternalQueryText(&row, "function") != NULL;
		handler->statement = make_statement(InternalQueryText(&row, "statement"),
											InternalQueryText(&row, "function"),
											&handler->definer);
	}
	MemoryContextSwitchTo(spi);
	SPI_finish();
	return list;
}

/* What a handler runs: a statement, or a function, given by its qualified signature. */
static DefinerStatement *
make_statement(const char *statement, const char *function, const Definer *definer)
{
	if (statement)
		return DefinerStatementMake(&statement_kind, statement, definer);
	return DefinerStatementMake(&function_kind,
								psprintf("SELECT %s(event)", RegistryFunctionName(function)),
								definer);
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

/* 42703 with the way that works for what is meant to be of the event, and is written otherwise. */
static void
help_to_event(ParseState *pstate, const ColumnRef *cref)
{
	const char *names[3];
	int			column;
	int			i;

	for (i = 0; i < 3 && i < list_length(cref->fields); i++)
	{
		if (!IsA(list_nth(cref->fields, i), String))
			return;
		names[i] = strVal(list_nth(cref->fields, i));
	}
	column = i == 1 ? EventColumnByName(names[0]) : i == 3 && strcmp(names[0], "event") == 0 ?
		EventColumnByName(names[1]) : -1;
	if (column < 0)
		return;
	if (i == 1)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" does not exist", names[0]),
				 errhint("The field of the event is event.%s.", names[0]),
				 parser_errposition(pstate, cref->location)));
	if (EventColumnType(column) == JSONBOID)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("an event has no field \"%s.%s\"", names[1], names[2]),
				 errhint("Fields of JSON are reached as event.%s->>'%s'.", names[1], names[2]),
				 parser_errposition(pstate, cref->location)));
}

/* event and event.column, unless the statement has a table of that name. */
static Node *
resolve_event(ParseState *pstate, ColumnRef *cref, Node *var)
{
	const char *field;
	int			column;

	if (var == NULL)
		help_to_event(pstate, cref);
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
bind_event(const DefinerStatement *statement, ParamListInfo params, const void *source)
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
