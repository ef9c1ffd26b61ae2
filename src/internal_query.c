/*-------------------------------------------------------------------------
 * internal_query.c
 *	  Constant SQL of our own, prepared once per backend and kept, as the
 *	  foreign-key triggers of the server do it.
 *
 * Registries and snapshots are read and written with the rights of the role that
 * owns the table, so that users need no grants on them (RoleSwitchToOwner).
 * Nothing a caller can arrange may then reach into the statement: the texts name
 * every object and operator with its schema, and the search_path is fixed as
 * well, for what has no place for a schema (IS DISTINCT FROM).  An error leaves
 * role and search_path to the transaction machinery, which restores them at
 * (sub)transaction abort.
 *
 * What users wrote runs with the rights of whoever defined it in sessions of
 * others (RoleSwitchToDefiner).  Neither side may gain the other's rights by that:
 * names mean nothing of the session (RefuseTemporaryObjects), and nothing stays
 * behind in it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "cqrs_es.h"
#include "internal_query.h"

static bool uses_temporary(Node *node, void *context);
static bool types_are_temporary(List *types);
static bool type_is_temporary(Oid type);
static void free_plan(void *arg);

/*
 * The statement's plan, prepared on first use.  Must be called between
 * SPI_connect and SPI_finish.  The plan lives as long as the backend.
 */
SPIPlanPtr
InternalQueryPlan(InternalQuery *query)
{
	if (query->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(query->sql, query->nargs, query->argtypes);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\": %s", query->sql,
				 SPI_result_code_string(SPI_result));
		query->plan = plan;
	}
	return query->plan;
}

/*
 * Run a SELECT under the given snapshot.  Returns the number of rows;
 * SPI_tuptable holds them.  Call between SPI_connect and SPI_finish.
 */
uint64
InternalQueryRead(InternalQuery *query, Datum *values, const char *nulls,
				  Snapshot snapshot)
{
	int			rc;

	PushActiveSnapshot(snapshot);
	rc = SPI_execute_plan(InternalQueryPlan(query), values, nulls, true, 0);
	PopActiveSnapshot();
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "unexpected result of \"%s\": %s", query->sql,
			 SPI_result_code_string(rc));
	return SPI_processed;
}

/*
 * Run a writing statement; it sees what is committed now and all that this
 * transaction did.  Returns the number of rows.  Call between SPI_connect
 * and SPI_finish.
 */
uint64
InternalQueryWrite(InternalQuery *query, Datum *values, const char *nulls)
{
	int			rc = SPI_execute_plan(InternalQueryPlan(query), values, nulls, false, 0);

	if (rc < 0)
		elog(ERROR, "unexpected result of \"%s\": %s", query->sql,
			 SPI_result_code_string(rc));
	return SPI_processed;
}

/*
 * Act as `role`, with a search_path, until RoleSwitchBack, the way a SECURITY
 * DEFINER function with a SET clause does.
 */
RoleSwitch
RoleSwitchTo(Oid role, const char *search_path)
{
	RoleSwitch	saved;

	GetUserIdAndSecContext(&saved.saved_user, &saved.saved_context);
	SetUserIdAndSecContext(role, saved.saved_context | SECURITY_LOCAL_USERID_CHANGE);
	saved.guc_level = NewGUCNestLevel();
	if (strcmp(namespace_search_path, search_path) != 0)
		(void) set_config_option("search_path", search_path, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return saved;
}

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

/* Act as the owner of one of our own tables, for statements of our own. */
RoleSwitch
RoleSwitchToOwner(const char *relname)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(CqrsEsRelid(relname)));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation \"%s\"", relname);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return RoleSwitchTo(owner, "pg_catalog, pg_temp");
}

/* Settings that were changed meanwhile, by whatever means, are the caller's again. */
void
RoleSwitchBack(const RoleSwitch *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->saved_user, saved->saved_context);
}

/*
 * The search_path to keep with something that is defined now and will run in
 * other sessions: the schemas that this session's stands for now, so that
 * "$user" is not whoever it will run for; and pg_temp last unless it stands
 * there by name, so that nobody's temporary objects stand in front of others.
 */
char *
DefinerSearchPath(void)
{
	StringInfoData path;
	List	   *schemas = fetch_search_path(false);
	bool		has_temp = false;
	ListCell   *lc;

	initStringInfo(&path);
	foreach(lc, schemas)
	{
		if (isTempNamespace(lfirst_oid(lc)))
			has_temp = true;
		appendStringInfo(&path, "%s, ", isTempNamespace(lfirst_oid(lc)) ? "pg_temp" :
						 quote_identifier(get_namespace_name(lfirst_oid(lc))));
	}
	if (has_temp)
		path.data[path.len - strlen(", ")] = '\0';
	else
		appendStringInfoString(&path, "pg_temp");
	return path.data;
}

/*
 * What a definer wrote must not come to mean something of the session that it
 * runs in.  pg_temp stands last in its search_path but cannot be left out: had a
 * table been dropped, a temporary one of that name would be found, and its
 * triggers would run with the definer's rights.  To be called between parsing
 * and planning, since planning may already run the checks of a domain; a plan
 * that has become invalid must be prepared anew by us, not by the server.
 * Raises 42P17.
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

				if (entry->rtekind == RTE_RELATION &&
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
		elog(ERROR, "cache lookup failed for type %u", type);
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

/*
 * Keep a plan for as long as the chunk of memory that it belongs to: it is
 * freed when the chunk's memory context is reset or deleted.
 */
void
KeepPlanWith(SPIPlanPtr plan, void *owner)
{
	MemoryContext memory = GetMemoryChunkContext(owner);
	MemoryContextCallback *callback = MemoryContextAlloc(memory, sizeof(MemoryContextCallback));

	SPI_keepplan(plan);
	callback->func = free_plan;
	callback->arg = plan;
	MemoryContextRegisterResetCallback(memory, callback);
}

static void
free_plan(void *arg)
{
	SPI_freeplan((SPIPlanPtr) arg);
}

/*
 * The newest snapshot the isolation level allows: what is committed now in
 * READ COMMITTED, the transaction's own above it.  It sees all that this
 * transaction did before.  Push or register it before use.
 */
Snapshot
FreshSnapshot(void)
{
	return IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : GetLatestSnapshot();
}
