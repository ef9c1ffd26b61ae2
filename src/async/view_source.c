/*-------------------------------------------------------------------------
 * view_source.c
 *	  A view that is to read other tables than it does, and stay the same view: its
 *	  columns, options, owner, grants, comments, triggers and what depends on it.
 *
 * What a view is in the catalog numbers the columns of its tables, and knows the types of
 * everything in between, so to put another table in there is to do the parser's work
 * again.  Therefore it is left to the parser: the server writes the view out as a text
 * (pg_get_viewdef), as for a dump; that is parsed, the names of the tables are changed in
 * what comes of it (raw_expression_tree_walker), and this is run as the CREATE OR REPLACE
 * VIEW that it is, by whoever calls, who must own it.  Columns are so found by their names,
 * at every level of the query.
 *
 * The text is written and read under a search_path without any schema of users, so that
 * every table stands in it with its schema, and nothing of the session can be meant; and
 * with fixed settings, so that constants come back as they were.
 *
 * What goes by position in a text: the column aliases of a table, which are put in the
 * order of the new one; and those of an aliased join, and what USING merges, for which a
 * table of other columns is wrapped into a query of the old ones.
 *
 * More than that the text can be parsed is asked for: a column that is read must have the
 * same type in both tables, for another one could choose another function, or another
 * operator, and give other values of the same type in the end; and whoever could read the
 * view must be able to do so, and see no more rows than before.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "base/fixed_settings.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/role_switch.h"
#include "async/view_source.h"

/* A table by its names, for the text. */
typedef struct NamedTable
{
	char	   *schema;
	char	   *name;
	List	   *columns;		/* names, in their order (char *) */
} NamedTable;

/* One of them to be put in the place of another. */
typedef struct Exchange
{
	NamedTable	table;
	NamedTable	instead;
	bool		same_columns;
} Exchange;

/* All of them, while a text is walked through. */
typedef struct Exchanges
{
	Exchange   *exchanges;
	int			n;
	bool		by_position;	/* in a join whose columns are known by their positions */
} Exchanges;

/* A view, and what is to become of it. */
typedef struct Rewriting
{
	Oid			view;
	char	   *name;			/* as it is written in a text */
	char	   *sql;
	ViewStmt   *statement;
	RoleSwitch	saved;
	ErrorContextCallback callback;
} Rewriting;

static void begin(Rewriting *rewriting, Oid view, const ViewSource *sources, int n);
static void end(Rewriting *rewriting);
static void require_view(Oid view);
static const ViewSource *sources_read(Oid view, const ViewSource *sources, int *n);
static void refuse_rules(Oid view, const ViewSource *sources, int n);
static void require_columns(Oid view, const ViewSource *sources, int n);
static void require_row_security(const ViewSource *sources, int n);
static void require_readers(Oid view, const ViewSource *sources, int n);
static void require_reader(Oid view, Oid reader, const ViewSource *sources, int n);
static char *definition(Oid view, Relation rel);
static List *options(Oid view);
static bool security_invoker(Oid view);
static NamedTable named_table(Oid table);
static Exchanges make_exchanges(const ViewSource *sources, int n);
static bool exchange_names(Node *node, Exchanges *exchanges);
static Exchange *find_exchange(const Exchanges *exchanges, const char *schema, const char *name);
static Node *joined(Node *item, Exchanges *exchanges);
static void exchange_table(RangeVar *table, const Exchange *exchange);
static List *aliases_of(const List *aliases, const Exchange *exchange);
static List *columns_kept(const Exchange *exchange, List **aliases);
static bool has_name(const List *names, const char *name);
static Datum table_array(const ViewSource *sources, int n, bool instead);
static void describe(void *arg);

/*
 * Could the view read other tables?  Parses what would be made of it; takes locks of
 * readers on the view and all it names.  Raises what ViewSourceReplace does, as far as
 * that is known before.
 */
void
ViewSourceCheck(Oid view, const ViewSource *sources, int n)
{
	Rewriting	rewriting;
	RawStmt    *raw;

	LockRelationOid(view, AccessShareLock);
	begin(&rewriting, view, sources, n);
	raw = makeNode(RawStmt);
	raw->stmt = rewriting.statement->query;
	(void) parse_analyze_fixedparams(raw, rewriting.sql, NULL, 0, NULL);
	end(&rewriting);
}

/*
 * Let a view read other tables, each in the place of one that it reads; the caller has
 * locked it (AccessExclusiveLock) and them.  Raises 42P01 and 42809 where it is no view,
 * 42501 where the caller does not own it, or who reads it may not read the other tables;
 * 22023 where it reads none of the tables, 42703 and 42804 where a column that it reads
 * is missing or of another type, 55000 where a rule of it or row security is in the way,
 * and whatever CREATE OR REPLACE VIEW says.
 */
void
ViewSourceReplace(Oid view, const ViewSource *sources, int n)
{
	Rewriting	rewriting;
	PlannedStmt *utility;

	begin(&rewriting, view, sources, n);
	utility = makeNode(PlannedStmt);
	utility->commandType = CMD_UTILITY;
	utility->utilityStmt = (Node *) rewriting.statement;
	utility->stmt_location = 0;
	utility->stmt_len = 0;
	ProcessUtility(utility, rewriting.sql, false, PROCESS_UTILITY_QUERY, NULL, NULL,
				   None_Receiver, NULL);
	CommandCounterIncrement();
	end(&rewriting);
}

/* Names of the views that read one of the tables themselves (char *), in order. */
List *
ViewSourceReaders(const ViewSource *sources, int n)
{
	static InternalQuery query = {
		.sql = "SELECT DISTINCT r.ev_class AS view, r.ev_class::pg_catalog.regclass::pg_catalog.text AS name"
		" FROM pg_catalog.pg_depend AS d"
		" JOIN pg_catalog.pg_rewrite AS r ON r.oid OPERATOR(pg_catalog.=) d.objid"
		" WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
		" AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass"
		" AND d.refobjid OPERATOR(pg_catalog.=) ANY ($1)"
		" AND r.ev_type OPERATOR(pg_catalog.=) '1' ORDER BY 2",
		.nargs = 1,.argtypes = {OIDARRAYOID}
	};
	MemoryContext caller = CurrentMemoryContext;
	Datum		value = table_array(sources, n, false);
	List	   *names = NIL;
	uint64		found;
	uint64		i;

	SPI_connect();
	found = RegistryRead(&query, &value);
	for (i = 0; i < found; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		names = lappend(names, InternalQueryText(&row, "name"));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return names;
}

/*-------------------------------------------------------------------------
 * a view
 *-------------------------------------------------------------------------
 */

/*
 * What is to become of a view, as a statement that has not been run; until end() names
 * are looked up as in its text, and errors say what was going on.
 */
static void
begin(Rewriting *rewriting, Oid view, const ViewSource *sources, int n)
{
	Exchanges	exchanges;
	Relation	rel;
	List	   *parsed;

	require_view(view);
	sources = sources_read(view, sources, &n);
	refuse_rules(view, sources, n);
	require_columns(view, sources, n);
	require_row_security(sources, n);
	require_readers(view, sources, n);

	rewriting->view = view;
	rewriting->name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(view)),
												 get_rel_name(view));
	rewriting->sql = NULL;
	rewriting->saved = RoleSwitchTo(GetUserId(), "pg_catalog, pg_temp");
	FixedSettingsSet(&rewriting->saved.guc_level);
	rewriting->callback.callback = describe;
	rewriting->callback.arg = rewriting;
	rewriting->callback.previous = error_context_stack;
	error_context_stack = &rewriting->callback;

	rel = relation_open(view, NoLock);
	rewriting->sql = definition(view, rel);
	relation_close(rel, NoLock);
	parsed = raw_parser(rewriting->sql, RAW_PARSE_DEFAULT);
	rewriting->statement = castNode(ViewStmt, linitial_node(RawStmt, parsed)->stmt);
	rewriting->statement->options = options(view);

	exchanges = make_exchanges(sources, n);
	(void) exchange_names(rewriting->statement->query, &exchanges);
}

static void
end(Rewriting *rewriting)
{
	error_context_stack = rewriting->callback.previous;
	RoleSwitchBack(&rewriting->saved);
}

/* It must be a view, of the caller's own. */
static void
require_view(Oid view)
{
	char		kind = get_rel_relkind(view);

	if (kind == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("view does not exist"),
				 errdetail("There is no view with OID %u.", view)));
	if (kind == RELKIND_MATVIEW)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a materialized view", get_rel_name(view)),
				 errdetail("It has rows of its own, which stay those of the old table until it is refreshed."),
				 errhint("Let it read a view, name that here, and REFRESH MATERIALIZED VIEW afterwards.")));
	if (kind != RELKIND_VIEW)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a view", get_rel_name(view))));
	if (!compat_class_ownercheck(view, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, get_rel_name(view));
}

/*
 * Those of the tables that the view reads itself.  22023 when there is none, or one that
 * nothing takes the place of.
 */
static const ViewSource *
sources_read(Oid view, const ViewSource *sources, int *n)
{
	static InternalQuery query = {
		.sql = "SELECT t.number::pg_catalog.int4 AS number FROM pg_catalog.unnest($2) WITH ORDINALITY AS t (relid, number)"
		" WHERE EXISTS (SELECT FROM pg_catalog.pg_depend AS d"
		" JOIN pg_catalog.pg_rewrite AS r ON r.oid OPERATOR(pg_catalog.=) d.objid"
		" WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
		" AND r.ev_class OPERATOR(pg_catalog.=) $1 AND r.ev_type OPERATOR(pg_catalog.=) '1'"
		" AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass"
		" AND d.refobjid OPERATOR(pg_catalog.=) t.relid) ORDER BY 1",
		.nargs = 2,.argtypes = {OIDOID, OIDARRAYOID}
	};
	Datum		values[2] = {ObjectIdGetDatum(view), table_array(sources, *n, false)};
	ViewSource *result = palloc(Max(*n, 1) * sizeof(ViewSource));
	int			i;

	SPI_connect();
	*n = (int) RegistryRead(&query, values);
	for (i = 0; i < *n; i++)
	{
		QueryRow	row = InternalQueryRow(i);

		result[i] = sources[DatumGetInt32(InternalQueryDatum(&row, "number", NULL)) - 1];
		if (!OidIsValid(result[i].instead))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("view \"%s\" reads table \"%s\", in whose place there is no other",
							get_rel_name(view), get_rel_name(result[i].table)),
					 errdetail("The read models of the two projections stand for each other in the order in which they were given.")));
	}
	SPI_finish();
	if (*n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("view \"%s\" reads no table that could be replaced", get_rel_name(view)),
				 errhint("Name the views that read the tables themselves: a view over such a view follows it.")));
	return result;
}

/* A rule of a view is no part of its query, and would go on with the old tables: 55000. */
static void
refuse_rules(Oid view, const ViewSource *sources, int n)
{
	static InternalQuery query = {
		.sql = "SELECT r.rulename::pg_catalog.text AS rule FROM pg_catalog.pg_rewrite AS r"
		" WHERE r.ev_class OPERATOR(pg_catalog.=) $1 AND r.ev_type OPERATOR(pg_catalog.<>) '1'"
		" AND EXISTS (SELECT FROM pg_catalog.pg_depend AS d"
		" WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
		" AND d.objid OPERATOR(pg_catalog.=) r.oid"
		" AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass"
		" AND d.refobjid OPERATOR(pg_catalog.=) ANY ($2)) ORDER BY 1 LIMIT 1",
		.nargs = 2,.argtypes = {OIDOID, OIDARRAYOID}
	};
	Datum		values[2] = {ObjectIdGetDatum(view), table_array(sources, n, false)};

	SPI_connect();
	if (RegistryRead(&query, values) > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rule \"%s\" of view \"%s\" names the old table",
						InternalQueryText(&row, "rule"), get_rel_name(view)),
				 errhint("Drop the rule, and create it anew for the new table afterwards; an INSTEAD OF trigger can stay.")));
	}
	SPI_finish();
}

/* Each column that the view reads of a table must be in the other one, and the same. */
static void
require_columns(Oid view, const ViewSource *sources, int n)
{
	static InternalQuery query = {
		.sql = "SELECT o.attname::pg_catalog.text AS name, o.attrelid::pg_catalog.regclass::pg_catalog.text AS old_table,"
		" t.instead::pg_catalog.regclass::pg_catalog.text AS new_table,"
		" pg_catalog.format_type(o.atttypid, o.atttypmod) AS old_type,"
		" pg_catalog.format_type(c.atttypid, c.atttypmod) AS new_type"
		" FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS t (relid, instead)"
		" JOIN pg_catalog.pg_attribute AS o ON o.attrelid OPERATOR(pg_catalog.=) t.relid"
		" AND o.attnum OPERATOR(pg_catalog.>) 0"
		" LEFT JOIN pg_catalog.pg_attribute AS c ON c.attrelid OPERATOR(pg_catalog.=) t.instead"
		" AND c.attname OPERATOR(pg_catalog.=) o.attname AND c.attnum OPERATOR(pg_catalog.>) 0"
		" WHERE EXISTS (SELECT FROM pg_catalog.pg_depend AS d"
		" JOIN pg_catalog.pg_rewrite AS r ON r.oid OPERATOR(pg_catalog.=) d.objid"
		" WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
		" AND r.ev_class OPERATOR(pg_catalog.=) $1 AND r.ev_type OPERATOR(pg_catalog.=) '1'"
		" AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass"
		" AND d.refobjid OPERATOR(pg_catalog.=) o.attrelid AND d.refobjsubid OPERATOR(pg_catalog.=) o.attnum)"
		" AND (c.attnum IS NULL OR c.atttypid OPERATOR(pg_catalog.<>) o.atttypid"
		" OR c.atttypmod OPERATOR(pg_catalog.<>) o.atttypmod OR c.attcollation OPERATOR(pg_catalog.<>) o.attcollation)"
		" ORDER BY o.attrelid, o.attnum LIMIT 1",
		.nargs = 3,.argtypes = {OIDOID, OIDARRAYOID, OIDARRAYOID}
	};
	Datum		values[3] = {ObjectIdGetDatum(view), table_array(sources, n, false),
		table_array(sources, n, true)};

	SPI_connect();
	if (RegistryRead(&query, values) > 0)
	{
		QueryRow	row = InternalQueryRow(0);
		char	   *name = InternalQueryText(&row, "name");
		char	   *new_table = InternalQueryText(&row, "new_table");
		char	   *old_type = InternalQueryText(&row, "old_type");
		char	   *new_type = InternalQueryText(&row, "new_type");

		if (new_type == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("table %s has no column \"%s\", which view \"%s\" reads", new_table, name,
							get_rel_name(view)),
					 errdetail("The view reads it of table %s.", InternalQueryText(&row, "old_table"))));
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of table %s is another one than view \"%s\" reads", name, new_table,
						get_rel_name(view)),
				 strcmp(old_type, new_type) == 0 ?
				 errdetail("It has another collation in table %s.", InternalQueryText(&row, "old_table")) :
				 errdetail("It is of type %s, and of type %s in table %s.", new_type, old_type,
						   InternalQueryText(&row, "old_table")),
				 errhint("Replace the view by hand, in the transaction of the promotion.")));
	}
	SPI_finish();
}

/* Whom row security of a table hides rows from, the other must not show them: 55000. */
static void
require_row_security(const ViewSource *sources, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		Relation	table = table_open(sources[i].table, AccessShareLock);
		Relation	instead = table_open(sources[i].instead, AccessShareLock);

		if ((table->rd_rel->relrowsecurity && !instead->rd_rel->relrowsecurity) ||
			(table->rd_rel->relforcerowsecurity && !instead->rd_rel->relforcerowsecurity))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table \"%s\" has no row security as table \"%s\" has",
							RelationGetRelationName(instead), RelationGetRelationName(table)),
					 errhint("ALTER TABLE ... ENABLE (or FORCE) ROW LEVEL SECURITY, and CREATE POLICY.")));
		table_close(instead, NoLock);
		table_close(table, NoLock);
	}
}

/*
 * Who could read the tables through the view must be able to read the others: its owner,
 * or, where it asks for the rights of who reads it, all who have been granted something.
 */
static void
require_readers(Oid view, const ViewSource *sources, int n)
{
	static InternalQuery query = {
		.sql = "SELECT DISTINCT a.grantee AS reader FROM pg_catalog.pg_class AS c,"
		" LATERAL pg_catalog.aclexplode(c.relacl) AS a"
		" WHERE c.oid OPERATOR(pg_catalog.=) $1 AND a.privilege_type OPERATOR(pg_catalog.=) 'SELECT' ORDER BY 1",
		.nargs = 1,.argtypes = {OIDOID}
	};
	Datum		value = ObjectIdGetDatum(view);
	HeapTuple	tuple;
	Oid			owner;
	uint64		found;
	uint64		i;

	if (!security_invoker(view))
	{
		tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(view));
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for relation %u", view);
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
		require_reader(view, owner, sources, n);
		return;
	}
	SPI_connect();
	found = RegistryRead(&query, &value);
	for (i = 0; i < found; i++)
	{
		QueryRow	row = InternalQueryRow(i);

		require_reader(view, DatumGetObjectId(InternalQueryDatum(&row, "reader", NULL)), sources, n);
	}
	SPI_finish();
}

/* 42501 where a role may read a table, or any of its columns, but not so the other; 0 is PUBLIC. */
static void
require_reader(Oid view, Oid reader, const ViewSource *sources, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		Oid			table = sources[i].table;
		Oid			instead = sources[i].instead;
		bool		all = pg_class_aclcheck(table, reader, ACL_SELECT) == ACLCHECK_OK;

		if (pg_class_aclcheck(instead, reader, ACL_SELECT) == ACLCHECK_OK ||
			(!all && (pg_attribute_aclcheck_all(table, reader, ACL_SELECT, ACLMASK_ANY) != ACLCHECK_OK ||
					  pg_attribute_aclcheck_all(instead, reader, ACL_SELECT, ACLMASK_ANY) == ACLCHECK_OK)))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may read table \"%s\", but not table \"%s\"",
						OidIsValid(reader) ? GetUserNameFromId(reader, false) : "public",
						get_rel_name(table), get_rel_name(instead)),
				 errdetail("View \"%s\" reads it with the rights of that role.", get_rel_name(view)),
				 errhint("GRANT SELECT ON %s TO ...", quote_identifier(get_rel_name(instead)))));
	}
}

/*
 * The statement that would make the view what it is, but for its options; palloc'd.  By
 * the newest rule: whoever replaced the view while we waited for its lock must not be
 * undone.
 */
static char *
definition(Oid view, Relation rel)
{
	StringInfoData sql;
	TupleDesc	desc = RelationGetDescr(rel);
	int			i;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE OR REPLACE VIEW %s",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												RelationGetRelationName(rel)));
	for (i = 0; i < desc->natts; i++)
		appendStringInfo(&sql, "%s%s%s", i == 0 ? " (" : ", ",
						 quote_identifier(NameStr(TupleDescAttr(desc, i)->attname)),
						 i == desc->natts - 1 ? ")" : "");
	PushActiveSnapshot(GetLatestSnapshot());
	appendStringInfo(&sql, " AS %s",
					 TextDatumGetCString(DirectFunctionCall1(pg_get_viewdef, ObjectIdGetDatum(view))));
	PopActiveSnapshot();
	return sql.data;
}

/* The options of the view, as a statement has them. */
static List *
options(Oid view)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(view));
	bool		isnull;
	Datum		reloptions;
	List	   *result = NIL;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", view);
	reloptions = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);
	if (!isnull)
		result = untransformRelOptions(reloptions);
	ReleaseSysCache(tuple);
	return result;
}

/* Does it ask for the rights of who reads it? */
static bool
security_invoker(Oid view)
{
	Relation	rel = relation_open(view, NoLock);
	bool		result = RelationHasSecurityInvoker(rel);

	relation_close(rel, NoLock);
	return result;
}

/* Where in the text an error is, and what was going on. */
static void
describe(void *arg)
{
	const Rewriting *rewriting = arg;
	int			position = geterrposition();

	if (position > 0 && rewriting->sql != NULL)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(rewriting->sql);
	}
	errcontext("letting view %s read other tables", rewriting->name);
}

/*-------------------------------------------------------------------------
 * the tables in its text
 *-------------------------------------------------------------------------
 */

static Exchanges
make_exchanges(const ViewSource *sources, int n)
{
	Exchanges	exchanges = {.exchanges = palloc(Max(n, 1) * sizeof(Exchange)),.n = n};
	int			i;

	for (i = 0; i < n; i++)
	{
		Exchange   *exchange = &exchanges.exchanges[i];

		exchange->table = named_table(sources[i].table);
		exchange->instead = named_table(sources[i].instead);
		exchange->same_columns = equal(exchange->table.columns, exchange->instead.columns);
	}
	return exchanges;
}

/* The names of a table and of its columns (String); it must be there: 42P01. */
static NamedTable
named_table(Oid table)
{
	Relation	rel = table_open(table, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	NamedTable	named = {0};
	int			i;

	named.schema = get_namespace_name(RelationGetNamespace(rel));
	named.name = pstrdup(RelationGetRelationName(rel));
	for (i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			named.columns = lappend(named.columns,
									makeString(pstrdup(NameStr(TupleDescAttr(desc, i)->attname))));
	table_close(rel, NoLock);
	return named;
}

/*
 * Walk through the text, and change each name of one of the tables: as what is read,
 * and as the type of its rows.
 */
static bool
exchange_names(Node *node, Exchanges *exchanges)
{
	bool		by_position = exchanges->by_position;
	bool		result;

	if (node == NULL)
		return false;
	if (IsA(node, RangeVar))
	{
		RangeVar   *table = (RangeVar *) node;
		Exchange   *exchange = find_exchange(exchanges, table->schemaname, table->relname);

		if (exchange)
			exchange_table(table, exchange);
		return false;
	}
	if (IsA(node, TypeName))
	{
		TypeName   *type = (TypeName *) node;
		Exchange   *exchange = list_length(type->names) != 2 ? NULL :
			find_exchange(exchanges, strVal(linitial(type->names)), strVal(lsecond(type->names)));

		if (exchange)
			type->names = list_make2(makeString(exchange->instead.schema),
									 makeString(exchange->instead.name));
	}
	else if (IsA(node, SelectStmt))
		exchanges->by_position = false;
	else if (IsA(node, JoinExpr))
	{
		JoinExpr   *join = (JoinExpr *) node;

		if (join->usingClause != NIL || (join->alias && join->alias->colnames != NIL))
			exchanges->by_position = true;
		join->larg = joined(join->larg, exchanges);
		join->rarg = joined(join->rarg, exchanges);
	}
	result = raw_expression_tree_walker(node, exchange_names, (void *) exchanges);
	exchanges->by_position = by_position;
	return result;
}

static Exchange *
find_exchange(const Exchanges *exchanges, const char *schema, const char *name)
{
	int			i;

	for (i = 0; schema != NULL && i < exchanges->n; i++)
		if (strcmp(exchanges->exchanges[i].table.schema, schema) == 0 &&
			strcmp(exchanges->exchanges[i].table.name, name) == 0)
			return &exchanges->exchanges[i];
	return NULL;
}

/* Another table in a FROM, under the name by which columns of it are called. */
static void
exchange_table(RangeVar *table, const Exchange *exchange)
{
	if (table->alias == NULL)
		table->alias = makeAlias(table->relname, NIL);
	else if (table->alias->colnames != NIL && !exchange->same_columns)
		table->alias->colnames = aliases_of(table->alias->colnames, exchange);
	table->schemaname = exchange->instead.schema;
	table->relname = exchange->instead.name;
}

/*
 * What is joined: a table of other columns becomes a query of those that both have,
 * where the columns of the join are known by their positions.
 */
static Node *
joined(Node *item, Exchanges *exchanges)
{
	RangeVar   *table = (RangeVar *) item;
	Exchange   *exchange;
	SelectStmt *select;
	RangeSubselect *query;
	List	   *aliases;
	ListCell   *lc;

	if (!exchanges->by_position || !IsA(item, RangeVar))
		return item;
	exchange = find_exchange(exchanges, table->schemaname, table->relname);
	if (exchange == NULL || exchange->same_columns)
		return item;
	query = makeNode(RangeSubselect);
	query->alias = table->alias ? table->alias : makeAlias(table->relname, NIL);
	aliases = query->alias->colnames;
	table->alias = NULL;
	select = makeNode(SelectStmt);
	foreach(lc, columns_kept(exchange, &aliases))
	{
		ColumnRef  *column = makeNode(ColumnRef);
		ResTarget  *target = makeNode(ResTarget);

		column->fields = list_make2(makeString(table->relname), lfirst(lc));
		column->location = target->location = -1;
		target->val = (Node *) column;
		select->targetList = lappend(select->targetList, target);
	}
	query->alias->colnames = aliases;
	/* its name is changed when it is walked to */
	select->fromClause = list_make1(table);
	query->subquery = (Node *) select;
	return (Node *) query;
}

/* The columns of the old table that the new one has, too, and the aliases of just those. */
static List *
columns_kept(const Exchange *exchange, List **aliases)
{
	List	   *kept = NIL;
	List	   *kept_aliases = NIL;
	ListCell   *lc;
	int			i = 0;

	foreach(lc, exchange->table.columns)
	{
		if (has_name(exchange->instead.columns, strVal(lfirst(lc))))
		{
			kept = lappend(kept, lfirst(lc));
			if (i < list_length(*aliases))
				kept_aliases = lappend(kept_aliases, list_nth(*aliases, i));
		}
		i++;
	}
	*aliases = kept_aliases;
	return kept;
}

/*
 * The column aliases of the old table in the order of the new one.  What that has
 * alone gets a name that nobody calls.
 */
static List *
aliases_of(const List *aliases, const Exchange *exchange)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, exchange->instead.columns)
	{
		char	   *alias = strVal(lfirst(lc));
		int			i = 0;
		ListCell   *old;

		foreach(old, exchange->table.columns)
		{
			if (strcmp(strVal(lfirst(old)), strVal(lfirst(lc))) == 0)
				break;
			i++;
		}
		if (old != NULL && i < list_length(aliases))
			alias = strVal(list_nth(aliases, i));
		else
			while (has_name(aliases, alias))
				alias = psprintf("%s_", alias);
		result = lappend(result, makeString(alias));
	}
	return result;
}

static bool
has_name(const List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
		if (strcmp(strVal(lfirst(lc)), name) == 0)
		return true;
	return false;
}

static Datum
table_array(const ViewSource *sources, int n, bool instead)
{
	Datum	   *tables = palloc(Max(n, 1) * sizeof(Datum));
	int			i;

	for (i = 0; i < n; i++)
		tables[i] = ObjectIdGetDatum(instead ? sources[i].instead : sources[i].table);
	return PointerGetDatum(construct_array(tables, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}
