/*-------------------------------------------------------------------------
 * definer.c
 *	  What users wrote (handlers, deciders) runs with the rights of whoever
 *	  defined it, in sessions of others.
 *
 * Neither side may gain the other's rights by that: names mean nothing of the
 * session (RefuseTemporaryObjects), nothing stays behind in it
 * (RoleSwitchToDefiner), and nobody can define what he could not do himself
 * (RequirePlanRights).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid_d.h"
#include "catalog/pg_namespace_d.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
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

#include "compat.h"
#include "definer.h"

static List *lock_search_path(void);
static void forget_search_path(void);
static void lock_relations(const CachedPlanSource *source);
static void lock_result(Node *node);
static bool uses_temporary(Node *node, void *context);
static bool types_are_temporary(List *types);
static bool type_is_temporary(Oid type);

/*
 * Act as who defined something that others set off.  What he wrote must not gain
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

	if (!may_act_as_caller)
		SetUserIdAndSecContext(role, saved.saved_context | SECURITY_LOCAL_USERID_CHANGE |
							   SECURITY_RESTRICTED_OPERATION);
	return saved;
}

/*
 * The search_path to keep with something that is defined now and will run in
 * other sessions: the schemas that this session's stands for now, so that
 * "$user" is not whoever it will run for; and pg_temp last unless it stands
 * there by name, so that nobody's temporary objects stand in front of others.
 * The schemas are locked (AccessShareLock) to the end of the transaction; one
 * that is being dropped, and perhaps made anew, is waited for.  Palloc'd.
 */
char *
DefinerSearchPath(void)
{
	StringInfoData path;
	List	   *schemas = lock_search_path();
	bool		has_temp = false;
	ListCell   *lc;

	initStringInfo(&path);
	foreach(lc, schemas)
	{
		bool		is_temp = isTempNamespace(lfirst_oid(lc));
		char	   *name = is_temp ? "pg_temp" : get_namespace_name(lfirst_oid(lc));

		if (name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_SCHEMA),
					 errmsg("a schema of the search_path was dropped meanwhile")));
		has_temp |= is_temp;
		appendStringInfo(&path, "%s, ", is_temp ? name : quote_identifier(name));
	}
	if (has_temp)
		path.data[path.len - strlen(", ")] = '\0';
	else
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
	{
		CachedPlanSource *source = lfirst(lc);

		if (uses_temporary((Node *) source->query_list, NULL))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
					 errmsg("what runs with the rights of its definer cannot use temporary objects"),
					 errdetail("A name in it now stands for a temporary object of this session."),
					 errhint("Has what it named been dropped?")));
	}
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

/* Does a query, or a part of one, name a table or type of a temporary schema? */
static bool
uses_temporary(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Query:
			return query_tree_walker((Query *) node, uses_temporary, context,
									 QTW_EXAMINE_RTES_BEFORE);
		case T_RangeTblEntry:
			{
				RangeTblEntry *entry = (RangeTblEntry *) node;
				ListCell   *lc;

				/* a view that has become a subquery has its oid still, from 16 on */
				if (OidIsValid(entry->relid) &&
					isAnyTempNamespace(get_rel_namespace(entry->relid)))
					return true;
				foreach(lc, entry->functions)
					if (types_are_temporary(lfirst_node(RangeTblFunction, lc)->funccoltypes))
						return true;
				/* what else it consists of is walked through by itself */
				return false;
			}
		case T_TableFunc:
			if (types_are_temporary(((TableFunc *) node)->coltypes))
				return true;
			break;

			/* what the name of a type becomes in an expression */
		case T_Const:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_CoerceToDomain:
		case T_FuncExpr:
		case T_RowExpr:
		COMPAT_CASE_JSON_EXPR
			if (type_is_temporary(exprType(node)))
				return true;
			break;
		default:
			break;
	}
	return expression_tree_walker(node, uses_temporary, context);
}

static bool
types_are_temporary(List *types)
{
	ListCell   *lc;

	foreach(lc, types)
		if (type_is_temporary(lfirst_oid(lc)))
			return true;
	return false;
}

/* An array is as temporary as its elements. */
static bool
type_is_temporary(Oid type)
{
	Oid			element = get_element_type(type);
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(OidIsValid(element) ? element : type));
	Oid			schema;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("a type that is used was dropped meanwhile")));
	schema = ((Form_pg_type) GETSTRUCT(tuple))->typnamespace;
	ReleaseSysCache(tuple);
	return isAnyTempNamespace(schema);
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
