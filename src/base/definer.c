/*-------------------------------------------------------------------------
 * definer.c
 *	  What users wrote (handlers, deciders) runs with the rights of whoever
 *	  defined it, in sessions of others.
 *
 * Neither side may gain the other's rights by that: names mean nothing of the
 * session (RefuseTemporaryObjects), nothing stays behind in it
 * (RoleSwitchToDefiner), nobody can define what he could not do himself
 * (RequirePlanRights), and errors do not show what only the definer may see
 * (DefinerThrow).
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

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid_d.h"
#include "catalog/pg_namespace_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "parser/analyze.h"
#include "parser/parsetree.h"
#include "storage/lmgr.h"
#include "storage/sinval.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/definer.h"
#include "base/settings.h"
#include "base/temporary_object.h"

#define MAX_PARSERS 2

/* how our own parser setups are told from others: by the hook that they set */
static PostParseColumnRefHook parsers[MAX_PARSERS];
static int	nparsers = 0;

static post_parse_analyze_hook_type previous_analyze_hook = NULL;

static void check_analyzed(ParseState *pstate, Query *query, JumbleState *jstate);
pg_noreturn static void report_temporary(void);
static List *lock_search_path(void);
static void forget_search_path(void);
static void lock_relations(const CachedPlanSource *source);
static void lock_result(Node *node);
static const char *whole_detail(const ErrorData *error);

void
DefinerInit(void)
{
	previous_analyze_hook = post_parse_analyze_hook;
	post_parse_analyze_hook = check_analyzed;
}

/* What is analyzed with this hook is a definer's; called by Inits only. */
void
DefinerRegisterParser(PostParseColumnRefHook hook)
{
	if (nparsers >= MAX_PARSERS)
		elog(ERROR, "too many parsers of definers");
	parsers[nparsers++] = hook;
}

/*
 * Act as who defined something that others set off, until RoleSwitchBack, with his
 * search_path and fixed settings (settings.c).  What he wrote must not gain
 * the rights of whoever set it off either, who may be a superuser: it may leave
 * nothing behind in his session that would be met later, like temporary
 * objects or deferred triggers; unless it comes from somebody who has those
 * rights anyway.  42501 is what comes of trying.
 */
RoleSwitch
RoleSwitchToDefiner(Oid role, const char *search_path)
{
	bool		may_act_as_caller = has_privs_of_role(role, GetUserId());
	RoleSwitch	saved = RoleSwitchTo(role, search_path);

	SettingsFix(&saved.guc_level);
	if (!may_act_as_caller)
		SetUserIdAndSecContext(role, saved.saved_context | SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_RESTRICTED_OPERATION);
	return saved;
}

/*
 * The search_path to keep with something that is defined now and will run in
 * other sessions: the schemas that this session's stands for now, so that
 * "$user" is not whoever it will run for; and pg_temp last in any case, so that
 * nobody's temporary objects stand in front of others.  The schemas are locked
 * (AccessShareLock) to the end of the transaction; one that is being dropped, and
 * perhaps made anew, is waited for.  Palloc'd.
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
			if (!isTempNamespace(lfirst_oid(lc)))
				LockDatabaseObject(NamespaceRelationId, lfirst_oid(lc), 0, AccessShareLock);
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

/*
 * A role, the current one, that is about to be stored as the owner or definer of
 * something must be there still: a session outlives the role that it acts as.
 * Locked to the end of the transaction (AccessShareLock), so that nobody drops it
 * meanwhile.  Raises 42704.
 */
void
RequireRole(Oid role)
{
	LockSharedObject(AuthIdRelationId, role, 0, AccessShareLock);
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the current role does not exist any more")));
}

/*
 * What a definer wrote must not come to mean something of the session that it
 * runs in.  pg_temp stands last in its search_path but cannot be left out: had a
 * table been dropped, a temporary one of that name would be found, and its
 * triggers would run with the definer's rights.  To be called between parsing
 * and planning, since planning may already run the checks of a domain; and for
 * a plan that is kept, PlanIsCurrent each time.  Raises 42P17.
 */
void
RefuseTemporaryObjects(SPIPlanPtr plan)
{
	ListCell   *lc;

	foreach(lc, SPI_plan_get_plan_sources(plan))
		if (TemporaryObjectIn((Node *) ((CachedPlanSource *) lfirst(lc))->query_list))
			report_temporary();
}

/*
 * The same for the names in a text, whenever it is analyzed: the server does that
 * again by itself when it finds a plan out of date just before it runs.
 */
static void
check_analyzed(ParseState *pstate, Query *query, JumbleState *jstate)
{
	int			i;

	if (previous_analyze_hook)
		previous_analyze_hook(pstate, query, jstate);
	if (pstate->p_post_columnref_hook == NULL)
		return;
	for (i = 0; i < nparsers; i++)
		if (pstate->p_post_columnref_hook == parsers[i] && TemporaryObjectIn((Node *) query))
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
bool
PlanIsCurrent(SPIPlanPtr plan)
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
	Query	   *query = (Query *) node;
	ListCell   *lc;

	if (!IsA(node, Query))
		return;
	foreach(lc, query->cteList)
		lock_result(lfirst_node(CommonTableExpr, lc)->ctequery);
	if (query->resultRelation > 0)
		LockRelationOid(rt_fetch(query->resultRelation, query->rtable)->relid, RowExclusiveLock);
}

/*
 * The caller must have the rights on tables that the plan needs when it runs.
 * Between SPI_connect and SPI_finish.  Raises 42501.
 */
void
RequirePlanRights(SPIPlanPtr plan)
{
	CachedPlan *cached = SPI_plan_get_cached_plan(plan);
	ListCell   *lc;

	foreach(lc, cached->stmt_list)
		compat_check_permissions(lfirst_node(PlannedStmt, lc));
	ReleaseCachedPlan(cached, NULL);
}

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
