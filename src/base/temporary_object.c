/*-------------------------------------------------------------------------
 * temporary_object.c
 *	  Does a query name anything of a temporary schema?
 *
 * Such a name means nothing, or something else, in the next session, so what is
 * to run in others must have none (definer.c).  All that a query can name is looked
 * at as it stands in the query tree, by its oid.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_ts_config.h"
#include "catalog/pg_ts_dict.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/temporary_object.h"

static bool uses_temporary(Node *node, void *context);
static bool entry_is_temporary(const RangeTblEntry *entry);
static bool operator_is_temporary(Oid operator);
static bool operators_are_temporary(List *operators);
static bool function_is_temporary(Oid function);
static bool constant_is_temporary(const Const *constant);
static bool types_are_temporary(List *types);
static bool type_is_temporary(Oid type);
static bool is_in_temporary(int cache, Oid object, AttrNumber namespace_column);

/*
 * Does a query, a list of them or a part of one name a table, function, operator,
 * type or collation of a temporary schema, of this session or another, or one that
 * an object identifier stands for?  Looks into the catalog, and locks nothing.
 */
bool
TemporaryObjectIn(Node *query)
{
	return uses_temporary(query, NULL);
}

/* The walker: is there any such thing in or below the node? */
static bool
uses_temporary(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Query:
			return query_tree_walker((Query *) node, uses_temporary, context,
									 QTW_EXAMINE_RTES_BEFORE | QTW_EXAMINE_SORTGROUP);
		case T_RangeTblEntry:
			/* what else it consists of is walked through by itself */
			return entry_is_temporary((RangeTblEntry *) node);
		case T_TableFunc:
			if (types_are_temporary(((TableFunc *) node)->coltypes))
				return true;
			break;
		case T_TableSampleClause:
			if (function_is_temporary(((TableSampleClause *) node)->tsmhandler))
				return true;
			break;
		case T_FuncExpr:
			if (function_is_temporary(((FuncExpr *) node)->funcid) ||
				type_is_temporary(exprType(node)))
				return true;
			break;
		case T_Aggref:
			if (function_is_temporary(((Aggref *) node)->aggfnoid))
				return true;
			break;
		case T_WindowFunc:
			if (function_is_temporary(((WindowFunc *) node)->winfnoid))
				return true;
			break;

			/* the two others are an OpExpr by another name */
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			if (operator_is_temporary(((OpExpr *) node)->opno))
				return true;
			break;
		case T_ScalarArrayOpExpr:
			if (operator_is_temporary(((ScalarArrayOpExpr *) node)->opno))
				return true;
			break;
		case T_RowCompareExpr:
			if (operators_are_temporary(((RowCompareExpr *) node)->opnos))
				return true;
			break;
		case T_SortGroupClause:
			return operator_is_temporary(((SortGroupClause *) node)->eqop) ||
				operator_is_temporary(((SortGroupClause *) node)->sortop);
		case T_CollateExpr:
			if (is_in_temporary(COLLOID, ((CollateExpr *) node)->collOid,
								Anum_pg_collation_collnamespace))
				return true;
			break;
		case T_InferenceElem:
			if (is_in_temporary(COLLOID, ((InferenceElem *) node)->infercollid,
								Anum_pg_collation_collnamespace) ||
				is_in_temporary(CLAOID, ((InferenceElem *) node)->inferopclass,
								Anum_pg_opclass_opcnamespace))
				return true;
			break;
		case T_Const:
			if (constant_is_temporary((Const *) node))
				return true;
			break;

			/* what the name of a type becomes in an expression */
		case T_ArrayExpr:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_ConvertRowtypeExpr:
		case T_CoerceToDomain:
		case T_RowExpr:
			if (type_is_temporary(exprType(node)))
				return true;
			break;
		default:
			if (compat_is_json_expr(node) && type_is_temporary(exprType(node)))
				return true;
			break;
	}
	return expression_tree_walker(node, uses_temporary, context);
}

static bool
entry_is_temporary(const RangeTblEntry *entry)
{
	ListCell   *lc;

	/* a view that has become a subquery has its oid still, from 16 on */
	if (OidIsValid(entry->relid) && isAnyTempNamespace(get_rel_namespace(entry->relid)))
		return true;
	foreach(lc, entry->functions)
	{
		if (types_are_temporary(lfirst_node(RangeTblFunction, lc)->funccoltypes))
			return true;
	}
	return false;
}

/* An operator, or the function behind it; InvalidOid is none. */
static bool
operator_is_temporary(Oid operator)
{
	return OidIsValid(operator) &&
		(is_in_temporary(OPEROID, operator, Anum_pg_operator_oprnamespace) ||
		 function_is_temporary(get_opcode(operator)));
}

static bool
operators_are_temporary(List *operators)
{
	ListCell   *lc;

	foreach(lc, operators)
	{
		if (operator_is_temporary(lfirst_oid(lc)))
			return true;
	}
	return false;
}

static bool
function_is_temporary(Oid function)
{
	return isAnyTempNamespace(get_func_namespace(function));
}

/* Of a temporary type, or an object identifier that was written as a name. */
static bool
constant_is_temporary(const Const *constant)
{
	Oid			object;

	if (type_is_temporary(constant->consttype))
		return true;
	if (constant->constisnull)
		return false;
	object = DatumGetObjectId(constant->constvalue);
	switch (constant->consttype)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
			return function_is_temporary(object);
		case REGOPEROID:
		case REGOPERATOROID:
			return operator_is_temporary(object);
		case REGCLASSOID:
			return isAnyTempNamespace(get_rel_namespace(object));
		case REGTYPEOID:
			return is_in_temporary(TYPEOID, object, Anum_pg_type_typnamespace);
		case REGCOLLATIONOID:
			return is_in_temporary(COLLOID, object, Anum_pg_collation_collnamespace);
		case REGCONFIGOID:
			return is_in_temporary(TSCONFIGOID, object, Anum_pg_ts_config_cfgnamespace);
		case REGDICTIONARYOID:
			return is_in_temporary(TSDICTOID, object, Anum_pg_ts_dict_dictnamespace);
		case REGNAMESPACEOID:
			return isAnyTempNamespace(object);
		default:
			return false;
	}
}

static bool
types_are_temporary(List *types)
{
	ListCell   *lc;

	foreach(lc, types)
	{
		if (type_is_temporary(lfirst_oid(lc)))
			return true;
	}
	return false;
}

/* An array is as temporary as its elements. */
static bool
type_is_temporary(Oid type)
{
	Oid			element = get_element_type(type);

	return is_in_temporary(TYPEOID, OidIsValid(element) ? element : type,
						   Anum_pg_type_typnamespace);
}

/* An object of a syscache whose key is the oid; one that is not there is in no schema. */
static bool
is_in_temporary(int cache, Oid object, AttrNumber namespace_column)
{
	HeapTuple	tuple = OidIsValid(object) ?
		SearchSysCache1(cache, ObjectIdGetDatum(object)) : NULL;
	Oid			schema;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		return false;
	schema = DatumGetObjectId(SysCacheGetAttr(cache, tuple, namespace_column, &isnull));
	ReleaseSysCache(tuple);
	return isAnyTempNamespace(schema);
}
