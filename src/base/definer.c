/*-------------------------------------------------------------------------
 * definer.c
 *	  What users wrote (handlers, deciders) runs with the rights of whoever
 *	  defined it, in sessions of others.
 *
 * Neither side may gain the other's rights by that: names mean nothing of the
 * session (refuse_temporary), nothing stays behind in it (DefinerSwitchRole),
 * nobody can define what that role could not do itself (require_rights), and errors
 * do not show what only the definer may see (DefinerThrow).
 *
 * What was written is a statement with parameters (DefinerStatement).  A parser
 * hook makes parameters of the names that its kind has for them, so it is parsed
 * and planned once and kept.  It is parsed, planned and run by the code below
 * alone, as who defined it, with the search_path of then and with fixed
 * settings, the way a SECURITY DEFINER function with SET clauses does, and stricter.
 *
 * Names are looked up whenever a text is analyzed: when it is defined, when a
 * session prepares it, and when the server itself does so again, because what a
 * kept plan depends on has changed.  The last may happen at any moment before
 * the plan runs, so the check hangs on the analysis (check_analyzed).  What a
 * view, a rule or a default brings in has been resolved before, once, by
 * the owner of the table; it is checked when a plan is made.  What a
 * function does inside is its owner's.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_authid_d.h"
#include "catalog/pg_namespace_d.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/analyze.h"
#include "parser/parsetree.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/definer.h"
#include "base/fixed_settings.h"
#include "base/lent_session.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "base/role_switch.h"
#include "base/temporary_object.h"

static post_parse_analyze_hook_type previous_analyze_hook = NULL;

static void check_as_definer(DefinerStatement *statement);
static void prepare(DefinerStatement *statement);
static SPIPlanPtr compile(DefinerStatement *statement);
static void setup_parser(ParseState *pstate, void *arg);
static Node *resolve_name(ParseState *pstate, ColumnRef *cref, Node *var);
static Node *resolve_number(ParseState *pstate, ParamRef *pref);
static void refuse_temporary(SPIPlanPtr plan);
static void check_analyzed(ParseState *pstate, Query *query, JumbleState *jstate);
pg_noreturn static void report_temporary(void);
static bool is_current(SPIPlanPtr plan);
static void lock_relations(const CachedPlanSource *source);
static void lock_result(Node *node);
static void require_rights(SPIPlanPtr plan);
static void keep_from_client(Oid caller, Oid definer);
static List *lock_search_path(void);
static void forget_search_path(void);
static const char *whole_detail(const ErrorData *error);

void
DefinerInit(void)
{
	previous_analyze_hook = post_parse_analyze_hook;
	post_parse_analyze_hook = check_analyzed;
}

/*-------------------------------------------------------------------------
 * statements
 *-------------------------------------------------------------------------
 */

/*
 * A statement of a kind, in the current memory context, where its plan will be
 * kept, too.  What it points to must last as long.
 */
DefinerStatement *
DefinerStatementMake(const DefinerKind *kind, const char *sql, const Definer *definer)
{
	DefinerStatement *statement = palloc0(sizeof(DefinerStatement));

	statement->kind = kind;
	statement->sql = sql;
	statement->definer = *definer;
	return statement;
}

/*
 * Check what the current role is about to define, which is its definer.  All that it
 * names, and then the role, is locked to the end of the transaction.  Raises the
 * parser's errors, 42P17, what the kind does, 42501 when the role has not the rights
 * that it would run with, 42704 when the role is gone.
 */
void
DefinerStatementDefine(DefinerStatement *statement)
{
	check_as_definer(statement);
	DefinerRequireRole(statement->definer.role);
}

/*
 * The same for one that has been defined: would it run now, whatever the values
 * are?  Parses and plans it anew.
 */
void
DefinerStatementCheck(DefinerStatement *statement)
{
	RegistryNameRequireRole(statement->definer.role, statement->definer.name, statement->kind->defined);
	check_as_definer(statement);
}

static void
check_as_definer(DefinerStatement *statement)
{
	RoleSwitch	saved = DefinerSwitchRole(statement->definer.role,
										  statement->definer.search_path);
	LentSession lent;

	LentSessionBegin(&lent);
	PG_TRY();
	{
		SPIPlanPtr	plan;

		SPI_connect();
		plan = compile(statement);
		if (statement->kind->check)
			statement->kind->check(plan);
		require_rights(plan);
		SPI_finish();
	}
	PG_FINALLY();
	{
		LentSessionEnd(&lent);
	}
	PG_END_TRY();
	RoleSwitchBack(&saved);
}

/*
 * Run a statement with the parameters that its kind takes from `source`; at most
 * max_rows rows, or all for 0.  Returns what SPI says; rows are in SPI_tuptable.
 * Tables are locked to the end of the transaction.  Between SPI_connect and SPI_finish.
 * Raises 42704 when the definer is gone, 42P17, and whatever the statement does: who
 * sets it off may see all of that only with the definer's rights (DefinerThrow).
 */
int
DefinerStatementRun(DefinerStatement *statement, const void *source, uint64 max_rows)
{
	ParamListInfo params = makeParamList(statement->kind->nparams);
	SPIExecuteOptions options = {.params = params,.tcount = max_rows};
	RoleSwitch	saved;
	LentSession lent;
	volatile int rc;

	RegistryNameRequireRole(statement->definer.role, statement->definer.name, statement->kind->defined);
	saved = DefinerSwitchRole(statement->definer.role, statement->definer.search_path);
	LentSessionBegin(&lent);
	PG_TRY();
	{
		if (statement->plan == NULL || !is_current(statement->plan))
			prepare(statement);
		statement->kind->bind(statement, params, source);
		params->parserSetup = setup_parser;
		params->parserSetupArg = statement;
		rc = SPI_execute_plan_extended(statement->plan, &options);
	}
	PG_FINALLY();
	{
		LentSessionEnd(&lent);
	}
	PG_END_TRY();
	if (rc < 0)
		elog(ERROR, "could not run a definer's statement: %s", SPI_result_code_string(rc));
	RoleSwitchBack(&saved);
	return rc;
}

/* Make the plan to be kept; its definer is the current role. */
static void
prepare(DefinerStatement *statement)
{
	int			guc_level = NewGUCNestLevel();

	statement->direct = NULL;
	RegistryKeepPlan(statement, &statement->plan, compile(statement));
	if (statement->kind->by_key)
	{
		(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);

		/*
		 * where no index serves, what is disabled looks dear enough to be compiled each
		 * time
		 */
		(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
	statement->direct = DirectPlanMake(statement->plan, GetMemoryChunkContext(statement));
	AtEOXact_GUC(true, guc_level);
}

/*
 * Run a statement, as DefinerStatementRun does, if it runs no code of users (direct_plan.c) and its
 * plan is still what it was; else do nothing and return false.  *rows becomes how many it
 * has found or written, and *first, unless that is NULL, the first of them that it gives, in
 * the current memory context.  Needs no SPI.
 */
bool
DefinerStatementRunDirectly(const DefinerStatement *statement, const void *source, uint64 *rows,
							QueryRow *first)
{
	ParamListInfo params;
	Oid			user;
	int			security_context;

	/* who wants messages of the server's log is not shown those about others' statements */
	if (statement->direct == NULL || client_min_messages < NOTICE ||
		!DirectPlanIsCurrent(statement->direct))
		return false;
	RegistryNameRequireRole(statement->definer.role, statement->definer.name, statement->kind->defined);
	GetUserIdAndSecContext(&user, &security_context);
	SetUserIdAndSecContext(statement->definer.role, security_context | SECURITY_LOCAL_USERID_CHANGE);
	params = makeParamList(statement->kind->nparams);
	statement->kind->bind(statement, params, source);
	*rows = DirectPlanRun(statement->direct, params, first);
	pfree(params);
	SetUserIdAndSecContext(user, security_context);
	return true;
}

/*
 * What the parser made of a statement that has been run; NULL before that, and of one
 * that is empty.  Good while the plan is kept: to look at, at once.
 */
Node *
DefinerStatementTree(const DefinerStatement *statement)
{
	const CachedPlanSource *source;

	if (statement->plan == NULL)
		return NULL;
	source = linitial(SPI_plan_get_plan_sources(statement->plan));
	return source->raw_parse_tree ? source->raw_parse_tree->stmt : NULL;
}

/* The plan of a statement, in the hands of SPI; its definer is the current role. */
static SPIPlanPtr
compile(DefinerStatement *statement)
{
	SPIPrepareOptions options = {
		.parserSetup = setup_parser,
		.parserSetupArg = statement,
		.parseMode = statement->kind->parse_mode,
		.cursorOptions = CURSOR_OPT_GENERIC_PLAN
	};
	SPIPlanPtr	plan = SPI_prepare_extended(statement->sql, &options);

	if (plan == NULL)
		elog(ERROR, "could not prepare a definer's statement: %s",
			 SPI_result_code_string(SPI_result));
	refuse_temporary(plan);
	return plan;
}

/* The hooks are ours for all kinds: that is how check_analyzed knows a definer's text. */
static void
setup_parser(ParseState *pstate, void *arg)
{
	DefinerStatement *statement = arg;

	pstate->p_post_columnref_hook = resolve_name;
	if (statement->kind->numbered)
		pstate->p_paramref_hook = resolve_number;
	pstate->p_ref_hook_state = statement;
}

static Node *
resolve_name(ParseState *pstate, ColumnRef *cref, Node *var)
{
	DefinerStatement *statement = pstate->p_ref_hook_state;

	return statement->kind->resolve ? statement->kind->resolve(pstate, cref, var) : NULL;
}

static Node *
resolve_number(ParseState *pstate, ParamRef *pref)
{
	const DefinerKind *kind = ((DefinerStatement *) pstate->p_ref_hook_state)->kind;

	/* statements with numbers are ours */
	Assert(pref->number >= 1 && pref->number <= kind->nparams);
	return DefinerParam(pstate, pref->number, kind->numbered[pref->number - 1], pref->location);
}

/* A parameter in place of what is written at a location, for the hooks of a kind. */
Node *
DefinerParam(ParseState *pstate, int number, Oid type, int location)
{
	DefinerStatement *statement = pstate->p_ref_hook_state;
	Param	   *param = makeNode(Param);

	Assert(number <= statement->kind->nparams && number < 64);
	statement->used |= UINT64CONST(1) << number;
	param->paramkind = PARAM_EXTERN;
	param->paramid = number;
	param->paramtype = type;
	param->paramtypmod = -1;
	param->paramcollid = get_typcollation(type);
	param->location = location;
	return (Node *) param;
}

/*-------------------------------------------------------------------------
 * what the names in a statement mean
 *-------------------------------------------------------------------------
 */

/*
 * What a definer wrote must not come to mean something of the session that it
 * runs in.  pg_temp stands last in its search_path but cannot be left out: had a
 * table been dropped, a temporary one of that name would be found, and its
 * triggers would run with the definer's rights.  Done between parsing and planning,
 * since planning may already run the checks of a domain; and for a plan that
 * is kept, is_current each time.  Raises 42P17.
 */
static void
refuse_temporary(SPIPlanPtr plan)
{
	ListCell   *lc;

	foreach(lc, SPI_plan_get_plan_sources(plan))
	{
		if (TemporaryObjectIn((Node *) ((CachedPlanSource *) lfirst(lc))->query_list))
			report_temporary();
	}
}

/*
 * The same for the names in a text, whenever it is analyzed: the server does that
 * again by itself when it finds a plan out of date just before it runs.
 */
static void
check_analyzed(ParseState *pstate, Query *query, JumbleState *jstate)
{
	if (previous_analyze_hook)
		previous_analyze_hook(pstate, query, jstate);
	/* our own parser setup is told from others by the hook that it sets */
	if (pstate->p_post_columnref_hook == resolve_name && TemporaryObjectIn((Node *) query))
		report_temporary();
}

static void
report_temporary(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("what runs with the rights of its definer cannot use temporary objects"),
			 errdetail("A name in it now stands for a temporary object of this session."),
			 errhint("Has what it named been dropped?")));
}

/*
 * May a kept plan be run as it is?  Else it must be prepared anew, before the
 * server does that itself and asks nobody what names mean by then.  It would find
 * one dropped when it got the lock of it, so the locks are taken here, up to the
 * end of the transaction.  To be called as the definer.
 */
static bool
is_current(SPIPlanPtr plan)
{
	List	   *sources = SPI_plan_get_plan_sources(plan);
	ListCell   *lc;

	foreach(lc, sources)
		lock_relations(lfirst(lc));
	if (!SPI_plan_is_valid(plan))
		return false;
	foreach(lc, sources)
	{
		CachedPlanSource *source = lfirst(lc);

		/* a session has no temporary schema until it needs one */
		if (!compat_search_path_is_current(source->search_path) ||
			(source->dependsOnRLS && source->rewriteRowSecurity != row_security))
			return false;
	}
	return true;
}

/* What is written is locked as for that at once: a lock that grows can close a circle. */
static void
lock_relations(const CachedPlanSource *source)
{
	ListCell   *lc;

	foreach(lc, source->query_list)
		lock_result(lfirst(lc));
	foreach(lc, source->relationOids)
		LockRelationOid(lfirst_oid(lc), AccessShareLock);
}

/* What a query, or one in its WITH, writes. */
static void
lock_result(Node *node)
{
	Query	   *query = castNode(Query, node);
	ListCell   *lc;

	foreach(lc, query->cteList)
		lock_result(lfirst_node(CommonTableExpr, lc)->ctequery);
	if (query->resultRelation > 0)
		LockRelationOid(rt_fetch(query->resultRelation, query->rtable)->relid, RowExclusiveLock);
}

/*-------------------------------------------------------------------------
 * the role
 *-------------------------------------------------------------------------
 */

/* The current role must have the rights on tables that the plan needs when it runs: 42501. */
static void
require_rights(SPIPlanPtr plan)
{
	CachedPlan *cached = SPI_plan_get_cached_plan(plan);
	ListCell   *lc;

	foreach(lc, cached->stmt_list)
		compat_check_permissions(lfirst_node(PlannedStmt, lc));
	ReleaseCachedPlan(cached, NULL);
}

/*
 * Act as who defined something that others set off, until RoleSwitchBack, with a
 * search_path and fixed settings (fixed_settings.c).  What was written must not gain
 * the rights of whoever set it off either, who may be a superuser: it may leave
 * nothing behind in that session that would be met later, like temporary
 * objects or deferred triggers (see also lent_session.c); unless it comes from somebody
 * who has those rights anyway.  42501 is what comes of trying.
 *
 * Nor is what it says to the server's log for whoever has not the definer's rights,
 * and has asked for such messages: it may be shown as a notice, but not for less.
 */
RoleSwitch
DefinerSwitchRole(Oid role, const char *search_path)
{
	bool		may_act_as_caller = has_privs_of_role(role, GetUserId());
	RoleSwitch	saved = RoleSwitchTo(role, search_path);

	RoleSwitchNoteDefiner(role);
	FixedSettingsSet(&saved.guc_level);
	keep_from_client(saved.saved_user, role);
	if (!may_act_as_caller)
		SetUserIdAndSecContext(role, saved.saved_context | SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_RESTRICTED_OPERATION);
	return saved;
}

/*
 * Act again, until RoleSwitchBack, as a role that acted before, in the security context of
 * then: for what follows from what it did.
 */
RoleSwitch
DefinerSwitchAgain(Oid role, int security_context)
{
	RoleSwitch	saved = RoleSwitchStay();

	RoleSwitchNoteDefiner(role);
	keep_from_client(saved.saved_user, role);
	SetUserIdAndSecContext(role, security_context);
	return saved;
}

/* Messages of a definer for the server's log are not for a caller without the definer's rights. */
static void
keep_from_client(Oid caller, Oid definer)
{
	if (client_min_messages < NOTICE && !has_privs_of_role(caller, definer))
		(void) set_config_option("client_min_messages", "notice", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * A role, the current one, that is about to be stored as the owner or definer of
 * something must be there still: a session outlives the role that it acts as.
 * Locked to the end of the transaction (AccessShareLock), so that nobody drops it
 * meanwhile.  Raises 42704.
 */
void
DefinerRequireRole(Oid role)
{
	LockSharedObject(AuthIdRelationId, role, 0, AccessShareLock);
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the current role does not exist any more")));
}

/*-------------------------------------------------------------------------
 * the search_path
 *-------------------------------------------------------------------------
 */

/*
 * The search_path to keep with something that is defined now and will run in
 * other sessions: the schemas that this session's stands for now, so that
 * "$user" is not whoever it will run for; and pg_temp last in any case, so that
 * nobody's temporary objects stand in front of others.  The schemas are locked
 * (AccessShareLock) to the end of the transaction; one that is being dropped, and
 * perhaps made anew, is waited for.  Palloc'd.  WARNING of one in which everybody may
 * put an object in the way, which fits a call or an operator better.
 */
char *
DefinerSearchPath(void)
{
	StringInfoData path;
	List	   *schemas = lock_search_path();
	ListCell   *lc;

	initStringInfo(&path);
	foreach(lc, schemas)
	{
		char	   *name;

		if (isTempNamespace(lfirst_oid(lc)))
			continue;
		name = get_namespace_name(lfirst_oid(lc));
		if (name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_SCHEMA),
					 errmsg("a schema of the search_path was dropped meanwhile")));
		if (compat_namespace_aclcheck(lfirst_oid(lc), ACL_ID_PUBLIC, ACL_CREATE) == ACLCHECK_OK)
			ereport(WARNING,
					(errmsg("everybody may create objects in schema \"%s\" of the search_path", name),
					 errdetail("What they create there may be found for a name, and run with the rights that this runs with."),
					 errhint("REVOKE CREATE ON SCHEMA %s FROM PUBLIC, or define it with a search_path without that schema.",
							 quote_identifier(name))));
		appendStringInfo(&path, "%s, ", quote_identifier(name));
	}
	appendStringInfoString(&path, "pg_temp");
	return path.data;
}

/*
 * The schemas of the search_path, locked.  While we waited for a lock a schema
 * may have gone, or another come in its place: looked up again, until all that
 * is found has been locked before.  What was locked in vain stays so, it does no harm.
 */
static List *
lock_search_path(void)
{
	List	   *locked = NIL;

	for (;;)
	{
		uint64		changes = SharedInvalidMessageCounter;
		List	   *schemas = fetch_search_path(false);
		ListCell   *lc;

		CHECK_FOR_INTERRUPTS();
		if (locked != NIL && list_difference_oid(schemas, locked) == NIL)
			return schemas;
		foreach(lc, schemas)
		{
			if (!isTempNamespace(lfirst_oid(lc)))
				LockDatabaseObject(NamespaceRelationId, lfirst_oid(lc), 0, AccessShareLock);
		}
		if (changes == SharedInvalidMessageCounter)
			return schemas;
		locked = schemas;
		forget_search_path();
	}
}

/*
 * Let the server look the schemas of the search_path up again.  It does so when
 * it hears of a change, but not of one that it hears of while it looks.
 */
static void
forget_search_path(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("search_path", "", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	AtEOXact_GUC(false, level);
}

/*-------------------------------------------------------------------------
 * errors
 *-------------------------------------------------------------------------
 */

/*
 * Throw an error of what a definer wrote on to somebody without the definer's
 * rights.  What the server says of values and rows, and the statements and lines
 * that it shows as context, are for the server's log; message, SQLSTATE and names
 * are not secret, and neither is what the definer's own words say (RAISE ...
 * DETAIL).  The context is that of the caller from here on.  The error has been
 * taken off the stack (FlushErrorState).
 */
void
DefinerThrow(const ErrorData *error)
{
	const char *detail = DefinerDetail(error);

	ereport(ERROR,
			(errcode(error->sqlerrcode),
			 errmsg_internal("%s", error->message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 errdetail_log("%s", whole_detail(error)),
			 error->hint ? errhint("%s", error->hint) : 0,
			 error->schema_name ? err_generic_string(PG_DIAG_SCHEMA_NAME, error->schema_name) : 0,
			 error->table_name ? err_generic_string(PG_DIAG_TABLE_NAME, error->table_name) : 0,
			 error->column_name ? err_generic_string(PG_DIAG_COLUMN_NAME, error->column_name) : 0,
			 error->datatype_name ? err_generic_string(PG_DIAG_DATATYPE_NAME, error->datatype_name) : 0,
			 error->constraint_name ? err_generic_string(PG_DIAG_CONSTRAINT_NAME, error->constraint_name) : 0));
}

/* The detail of such an error for somebody without the definer's rights, or NULL. */
const char *
DefinerDetail(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
			/* "Key (...)=(...) already exists", "Failing row contains (...)" */
		case ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION):
		case ERRCODE_TO_CATEGORY(ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION):
		case ERRCODE_TO_CATEGORY(ERRCODE_WITH_CHECK_OPTION_VIOLATION):
			return NULL;
		default:
			break;
	}
	switch (error->sqlerrcode)
	{
			/* the parameters of a query, from a function that was compiled to show them */
		case ERRCODE_NO_DATA_FOUND:
		case ERRCODE_TOO_MANY_ROWS:
			return NULL;
		default:
			return error->detail;
	}
}

/* All that there is to know of it, palloc'd. */
static const char *
whole_detail(const ErrorData *error)
{
	StringInfoData all;
	const char *parts[] = {error->detail_log ? error->detail_log : error->detail,
		error->internalquery, error->context};
	size_t		i;

	initStringInfo(&all);
	for (i = 0; i < lengthof(parts); i++)
		if (parts[i])
			appendStringInfo(&all, "%s%s", all.len > 0 ? "\n" : "", parts[i]);
	return all.data;
}
