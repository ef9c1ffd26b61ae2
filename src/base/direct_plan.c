/*-------------------------------------------------------------------------
 * direct_plan.c
 *	  Plans of definers that run nothing but the server's own code.
 *
 * What a definer wrote runs with settings and a search_path of its own, and in a session
 * that is guarded against it (definer.c).  All that is there for the code of users:
 * functions, triggers, policies, and what the server's own functions read as the settings
 * say.  For a statement of a line it costs more than half of what the statement
 * does.  Most handlers are an INSERT ... ON CONFLICT, an UPDATE or a DELETE of one row, with
 * a few fields of the event and operators of the server.  Such a plan is the same
 * in every session, so it runs as it is: by the server's executor, as the definer, and
 * without the rest.  Rights are asked by the executor each time, and hooks of
 * other modules see the statement as ever.
 *
 * Which plans these are is told by what is known to be harmless, node by node: anything
 * else makes a plan an ordinary one.  Of the server's functions those count whose
 * result hangs on their arguments alone, by what the catalog says of them; a few that
 * say so and look at settings are left out by name.
 *
 * Text is parsed and planned in the definer's surroundings alone.  The plan cache, asked
 * for a plan outside of them, would take it for one of another search_path and
 * analyze the text anew with that of the session.  So it is asked when the plan is made;
 * after that the plan is kept with a reference of our own, and the marks are read that the
 * cache sets when anything has changed that the plan hangs on: table, indexes,
 * constraints, triggers, policies, schemas, operators.  All of these changes but harmless ones
 * wait for whoever has the table's lock.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_index.h"
#include "catalog/pg_language_d.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "nodes/plannodes.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/direct_plan.h"

struct DirectPlan
{
	CachedPlanSource *source;	/* of the SPI plan */
	CachedPlan *plan;			/* with a reference of our own */
	Oid			table;			/* the only one in it, */
	LOCKMODE	lock;			/* and how it is locked */
	MemoryContextCallback callback;
};

/* Takes the first row that a plan gives. */
typedef struct FirstRow
{
	DestReceiver receiver;
	HeapTuple	tuple;			/* NULL before */
	MemoryContext memory;
} FirstRow;

static void release(void *arg);
static void begin_rows(DestReceiver * receiver, int operation, TupleDesc desc);
static bool take_row(TupleTableSlot *slot, DestReceiver * receiver);
static void end_rows(DestReceiver * receiver);
static Oid	direct_table(const PlannedStmt *stmt);
static bool is_direct_change(const ModifyTable *modify);
static bool names_only(const PlannedStmt *stmt, Oid table);
static bool table_is_direct(Oid table, bool written);
static bool constraints_are_direct(TupleDesc desc);
static bool index_is_direct(Oid index);
static bool is_direct_source(Plan *plan);
static bool is_foreign(Node *node, void *context);
static bool function_is_foreign(Oid function, void *context);
static bool arguments_are_foreign(List *arguments);
static bool type_is_foreign(Oid type);
static bool looks_at_settings(Form_pg_proc function);
static void describe_statement(void *arg);

/*
 * The direct plan of a statement that SPI keeps, or NULL when it is an ordinary one.  Allocated in
 * `memory`, and lasts as long, as the SPI plan must.  To be called in the definer's
 * surroundings; the text may be planned.
 */
DirectPlan *
DirectPlanMake(SPIPlanPtr plan, MemoryContext memory)
{
	List	   *sources = SPI_plan_get_plan_sources(plan);
	CachedPlanSource *source = list_length(sources) == 1 ? linitial(sources) : NULL;
	DirectPlan *direct = NULL;
	CachedPlan *cached;
	Oid			table;

	if (source == NULL || source->raw_parse_tree == NULL || source->dependsOnRLS)
		return NULL;
	cached = SPI_plan_get_cached_plan(plan);
	table = list_length(cached->stmt_list) == 1 && !cached->dependsOnRole &&
		!TransactionIdIsValid(cached->saved_xmin) ?
		direct_table(linitial_node(PlannedStmt, cached->stmt_list)) : InvalidOid;
	if (OidIsValid(table) && cached->is_valid && source->gplan == cached)
	{
		direct = MemoryContextAllocZero(memory, sizeof(DirectPlan));
		direct->source = source;
		direct->table = table;
		direct->lock = linitial_node(PlannedStmt, cached->stmt_list)->commandType == CMD_SELECT ?
			AccessShareLock : RowExclusiveLock;
		direct->plan = cached;
		direct->callback.func = release;
		direct->callback.arg = direct;
		MemoryContextRegisterResetCallback(memory, &direct->callback);
		cached->refcount++;
	}
	ReleaseCachedPlan(cached, CurrentResourceOwner);
	return direct;
}

static void
release(void *arg)
{
	ReleaseCachedPlan(((DirectPlan *) arg)->plan, NULL);
}

/*
 * May it be run as it is?  Else the statement has to be prepared anew.  Locks its table, to the
 * end of the transaction: from then on the answer stands until that writes a catalog.
 */
bool
DirectPlanIsCurrent(const DirectPlan *direct)
{
	LockRelationOid(direct->table, direct->lock);
	return direct->source->is_valid && direct->plan->is_valid &&
		direct->source->gplan == direct->plan;
}

/*
 * Run it, when it is current, as the current role, with the parameters of its
 * statement; returns how many rows it has written or given.  The first that it gives
 * becomes *first, unless that is NULL, in the current memory context, where nothing else is
 * left.  It sees what is committed now, as far as the isolation level allows, and all that
 * this transaction did.  Raises what the executor raises.
 */
uint64
DirectPlanRun(const DirectPlan *direct, ParamListInfo params, QueryRow *first)
{
	PlannedStmt *stmt = linitial_node(PlannedStmt, direct->plan->stmt_list);
	const char *sql = direct->source->query_string;
	ErrorContextCallback callback = {error_context_stack, describe_statement, unconstify(char *, sql)};
	FirstRow	row = {
		.receiver = {take_row, begin_rows, end_rows, end_rows, DestNone},.memory = CurrentMemoryContext
	};
	QueryDesc  *query;
	uint64		rows;

	error_context_stack = &callback;
	PushActiveSnapshot(GetTransactionSnapshot());
	CommandCounterIncrement();
	UpdateActiveSnapshotCommandId();
	query = CreateQueryDesc(stmt, sql, GetActiveSnapshot(), InvalidSnapshot,
							first ? &row.receiver : None_Receiver, params, NULL, 0);
	ExecutorStart(query, 0);
	compat_ExecutorRun(query);
	rows = query->estate->es_processed;
	if (row.tuple)
	{
		first->tuple = row.tuple;
		first->desc = CreateTupleDescCopy(query->tupDesc);
	}
	ExecutorFinish(query);
	ExecutorEnd(query);
	FreeQueryDesc(query);
	PopActiveSnapshot();
	CommandCounterIncrement();
	error_context_stack = callback.previous;
	return rows;
}

static void
begin_rows(DestReceiver * receiver, int operation, TupleDesc desc)
{
}

static bool
take_row(TupleTableSlot *slot, DestReceiver * receiver)
{
	FirstRow   *row = (FirstRow *) receiver;

	if (row->tuple == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(row->memory);

		row->tuple = ExecCopySlotHeapTuple(slot);
		MemoryContextSwitchTo(caller);
	}
	return true;
}

static void
end_rows(DestReceiver * receiver)
{
}

/* In the words of SPI. */
static void
describe_statement(void *arg)
{
	errcontext("SQL statement \"%s\"", (const char *) arg);
}

/*-------------------------------------------------------------------------
 * which plans are direct
 *-------------------------------------------------------------------------
 */

/*
 * The table that the plan reads or writes, when it does nothing else and runs no code of users;
 * InvalidOid otherwise.
 */
static Oid
direct_table(const PlannedStmt *stmt)
{
	Oid			table = stmt->relationOids ? linitial_oid(stmt->relationOids) : InvalidOid;
	Plan	   *plan = stmt->planTree;

	/* functions and domains of users are among invalItems, also those that were inlined */
	if (plan == NULL || stmt->invalItems != NIL || stmt->subplans != NIL || stmt->rowMarks != NIL ||
		stmt->transientPlan || stmt->dependsOnRole || stmt->parallelModeNeeded ||
		stmt->hasModifyingCTE || stmt->utilityStmt != NULL || !names_only(stmt, table))
		return InvalidOid;
	if (IsA(plan, ModifyTable) ? is_direct_change((ModifyTable *) plan) :
		stmt->commandType == CMD_SELECT && !IsA(plan, Result) && is_direct_source(plan))
		return table_is_direct(table, stmt->commandType != CMD_SELECT) ? table : InvalidOid;
	return InvalidOid;
}

/* Of one table, by values alone. */
static bool
is_direct_change(const ModifyTable *modify)
{
	return modify->operation != CMD_MERGE &&
		list_length(modify->resultRelations) == 1 && modify->rootRelation == 0 &&
		modify->withCheckOptionLists == NIL && modify->plan.initPlan == NIL &&
		is_direct_source(outerPlan(modify)) &&
		!is_foreign((Node *) modify->returningLists, NULL) &&
		!is_foreign((Node *) modify->onConflictSet, NULL) && !is_foreign(modify->onConflictWhere, NULL);
}

/* No other relation, be it a table or a sequence that is given by its name. */
static bool
names_only(const PlannedStmt *stmt, Oid table)
{
	ListCell   *lc;

	foreach(lc, stmt->relationOids)
	{
		if (lfirst_oid(lc) != table)
			return false;
	}
	return true;
}

/*
 * Does a row that is read from the table, or written to it, set off nothing of users, and none of what
 * the server does by trigger or for partitions?  The table is locked.
 */
static bool
table_is_direct(Oid table, bool written)
{
	Relation	rel = table_open(table, NoLock);
	bool		direct = rel->rd_rel->relkind == RELKIND_RELATION &&
		rel->rd_rel->relam == HEAP_TABLE_AM_OID && !rel->rd_rel->relispartition &&
		!IsCatalogRelation(rel) &&
		(!written || (rel->trigdesc == NULL && constraints_are_direct(RelationGetDescr(rel))));
	ListCell   *lc;

	if (direct)
		foreach(lc, RelationGetIndexList(rel))
			direct &= index_is_direct(lfirst_oid(lc));
	table_close(rel, NoLock);
	return direct;
}

static bool
constraints_are_direct(TupleDesc desc)
{
	int			i;

	for (i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attgenerated != '\0')
			return false;
	for (i = 0; desc->constr && i < desc->constr->num_check; i++)
		if (is_foreign(stringToNode(desc->constr->check[i].ccbin), NULL))
			return false;
	return true;
}

/* An index of columns, by operators of the server. */
static bool
index_is_direct(Oid index)
{
	Relation	rel = index_open(index, AccessShareLock);
	bool		direct = (rel->rd_rel->relam == BTREE_AM_OID || rel->rd_rel->relam == HASH_AM_OID) &&
		heap_attisnull(rel->rd_indextuple, Anum_pg_index_indexprs, NULL) &&
		heap_attisnull(rel->rd_indextuple, Anum_pg_index_indpred, NULL) &&
		!rel->rd_index->indisexclusion;
	int			i;

	for (i = 0; i < rel->rd_index->indnkeyatts; i++)
		direct &= rel->rd_opfamily[i] < FirstUnpinnedObjectId && !type_is_foreign(rel->rd_opcintype[i]);
	index_close(rel, AccessShareLock);
	return direct;
}

/* What gives the rows: the values of an INSERT, or a scan of the table. */
static bool
is_direct_source(Plan *plan)
{
	if (plan == NULL || plan->initPlan != NIL || plan->righttree != NULL || plan->parallel_aware ||
		is_foreign((Node *) plan->targetlist, NULL) || is_foreign((Node *) plan->qual, NULL))
		return false;
	switch (nodeTag(plan))
	{
		case T_Result:
			return plan->lefttree == NULL && !is_foreign(((Result *) plan)->resconstantqual, NULL);
		case T_SeqScan:
			return true;
		case T_IndexScan:
			return ((IndexScan *) plan)->indexorderby == NIL &&
				!is_foreign((Node *) ((IndexScan *) plan)->indexqualorig, NULL);
		case T_TidScan:
			return !is_foreign((Node *) ((TidScan *) plan)->tidquals, NULL);
		case T_BitmapHeapScan:
			return !is_foreign((Node *) ((BitmapHeapScan *) plan)->bitmapqualorig, NULL) &&
				is_direct_source(plan->lefttree);
		case T_BitmapIndexScan:
			return !is_foreign((Node *) ((BitmapIndexScan *) plan)->indexqualorig, NULL);
		default:
			return false;
	}
}

/* The walker: is there anything in the expression that is not known to be harmless? */
static bool
is_foreign(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_List:
		case T_TargetEntry:
		case T_Var:
		case T_Const:
		case T_BoolExpr:
		case T_RelabelType:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CaseTestExpr:
		case T_CoalesceExpr:
		case T_ArrayExpr:
		case T_NullTest:
		case T_BooleanTest:
			break;
		case T_Param:
			/* a field of the source; the whole of it would have to be made */
			if (((Param *) node)->paramkind != PARAM_EXTERN || type_is_foreign(exprType(node)))
				return true;
			break;
		case T_FuncExpr:
			if (arguments_are_foreign(((FuncExpr *) node)->args))
				return true;
			break;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			if (arguments_are_foreign(((OpExpr *) node)->args))
				return true;
			break;
		case T_ScalarArrayOpExpr:
			if (arguments_are_foreign(((ScalarArrayOpExpr *) node)->args))
				return true;
			break;
		case T_MinMaxExpr:
			if (arguments_are_foreign(((MinMaxExpr *) node)->args))
				return true;
			break;
		case T_CoerceViaIO:
			if (type_is_foreign(exprType((Node *) ((CoerceViaIO *) node)->arg)))
				return true;
			break;
		default:
			return true;
	}
	return check_functions_in_node(node, function_is_foreign, context) ||
		expression_tree_walker(node, is_foreign, context);
}

/* Is it anything but a function of the server whose result hangs on its arguments alone? */
static bool
function_is_foreign(Oid function, void *context)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc form;
	bool		foreign;

	if (!HeapTupleIsValid(tuple))
		return true;			/* not reached: the plan hangs on it */
	form = (Form_pg_proc) GETSTRUCT(tuple);
	foreign = function >= FirstUnpinnedObjectId || form->prolang != INTERNALlanguageId ||
		form->provolatile != PROVOLATILE_IMMUTABLE || form->proretset || looks_at_settings(form);
	ReleaseSysCache(tuple);
	return foreign;
}

/* Operators of rows and arrays call those of the types in them. */
static bool
arguments_are_foreign(List *arguments)
{
	ListCell   *lc;

	foreach(lc, arguments)
	{
		if (type_is_foreign(exprType(lfirst(lc))))
			return true;
	}
	return false;
}

/* A row may consist of anything, and so may what is called by a name of a pseudo-type. */
static bool
type_is_foreign(Oid type)
{
	char		kind = get_typtype(type);

	return type >= FirstUnpinnedObjectId || kind == TYPTYPE_PSEUDO || kind == TYPTYPE_COMPOSITE;
}

/*
 * The immutable functions of the server that look at settings all the same: they quote, know time zones by
 * abbreviations, or write a value as text.  Of the last only those of types are let through that
 * have one form alone.
 */
static bool
looks_at_settings(Form_pg_proc function)
{
	switch (function->oid)
	{
		case F_QUOTE_IDENT:
		case F_TIMEZONE_TEXT_TIMESTAMP:
		case F_TIMEZONE_TEXT_TIMESTAMPTZ:
			return true;
		case F_TEXTOUT:
		case F_VARCHAROUT:
		case F_BPCHAROUT:
		case F_NAMEOUT:
		case F_BOOLOUT:
		case F_INT2OUT:
		case F_INT4OUT:
		case F_INT8OUT:
		case F_NUMERIC_OUT:
		case F_UUID_OUT:
		case F_JSON_OUT:
		case F_JSONB_OUT:
			return false;
		default:
			return function->prorettype == CSTRINGOID;
	}
}
