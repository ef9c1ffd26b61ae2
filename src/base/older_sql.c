/*-------------------------------------------------------------------------
 * older_sql.c
 *	  The SQL of an older version, which this library serves until it is updated.
 *
 * The library of a new version is there before anybody can run ALTER EXTENSION cqrs_es
 * UPDATE, in all databases of the server, and some may wait for that for long. Until then
 * events are appended and read, commands decided, handlers run as before: by functions that
 * were created with fewer arguments, over tables that have fewer columns, or are not there.
 *
 *	- A function that has got arguments begins with OlderSqlCall, which gives it those
 *	  that it was not called with, as nulls.
 *	- A query of our own (internal_query.c) gets in place of a table what that will be after
 *	  the update: OlderSqlQuery. Which columns there are, and what rows of before have
 *	  in them, comes from the same place as the update itself (sql/upgrade/step).
 *	- What is declared would be written in new columns: that waits for the update, as all
 *	  does that is new (ExtensionRefuseOlder). Snapshots are not taken meanwhile.
 *
 * An update tells all sessions by a change of the table "projections", before it does
 * anything else.  A text that was made before stays right for whoever runs it still: it
 * names columns by their names, and what it has in place of others is what stands in them.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/extension.h"
#include "base/older_sql.h"

/* A column of this version: its type, and its value in the rows of the older one. */
typedef struct OlderColumn
{
	const char *table;
	const char *name;
	const char *type;
	const char *value;
} OlderColumn;

/* those of one table together */
static const OlderColumn columns[] = {
#include "base/older_columns.inc"
};

static const OlderColumn *columns_of(const char *table, int *n);
static bool is_changed(Oid relid, const OlderColumn *column, int n);
static void append_table(StringInfo sql, Oid relid, const OlderColumn *column, int n);
static bool is_read(const char *sql, const char *place);

/*
 * The call with as many arguments as the function has in this version; those that it was
 * not called with are null.  In the current memory context, where it is another.
 */
FunctionCallInfo
OlderSqlCall(FunctionCallInfo fcinfo, int nargs)
{
	FunctionCallInfo whole;
	int			i;

	if (PG_NARGS() >= nargs)
		return fcinfo;
	whole = palloc0(SizeForFunctionCallInfo(nargs));
	memcpy(whole, fcinfo, SizeForFunctionCallInfo(PG_NARGS()));
	whole->nargs = nargs;
	for (i = PG_NARGS(); i < nargs; i++)
		whole->args[i].isnull = true;
	return whole;
}

/*
 * A statement of our own as it has to be over the tables that there are: itself, or a text
 * in the current memory context.
 */
const char *
OlderSqlQuery(const char *sql)
{
	static const char prefix[] = CQRS_ES_SCHEMA ".";
	StringInfoData served;
	const char *copied = sql;
	const char *place = sql;

	if (!ExtensionIsOlder())
		return sql;
	initStringInfo(&served);
	while ((place = strstr(place, prefix)) != NULL)
	{
		const char *name = place + strlen(prefix);
		size_t		length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
		char	   *table = pnstrdup(name, length);
		int			n;
		const OlderColumn *column = columns_of(table, &n);
		Oid			relid = ExtensionFindRelid(table);

		/* what a query calls of ours, and that 0.1.0 has not got */
		if (strcmp(table, "function_body") == 0)
		{
			appendBinaryStringInfo(&served, copied, place - copied);
			appendStringInfoString(&served, "pg_catalog.pg_get_function_sqlbody");
			copied = name + length;
		}
		else if (column != NULL && is_read(sql, place) && is_changed(relid, column, n))
		{
			appendBinaryStringInfo(&served, copied, place - copied);
			append_table(&served, relid, column, n);
			copied = name + length;
			if (strncmp(copied, " AS ", 4) != 0)
				appendStringInfo(&served, " AS %s", table);
		}
		place = name + length;
	}
	appendStringInfoString(&served, copied);
	return served.data;
}

/* The first column of a table of this version, and how many it has; NULL when it is none. */
static const OlderColumn *
columns_of(const char *table, int *n)
{
	const OlderColumn *first = NULL;
	size_t		i;

	*n = 0;
	for (i = 0; i < lengthof(columns); i++)
		if (strcmp(columns[i].table, table) == 0)
		{
			if (first == NULL)
				first = &columns[i];
			(*n)++;
		}
	return first;
}

/* Does the table lack anything? */
static bool
is_changed(Oid relid, const OlderColumn *column, int n)
{
	int			i;

	if (!OidIsValid(relid))
		return true;
	for (i = 0; i < n; i++)
		if (get_attnum(relid, column[i].name) == InvalidAttrNumber)
			return true;
	return false;
}

/* What the table will be.  Those who look at a row's version find it, too. */
static void
append_table(StringInfo sql, Oid relid, const OlderColumn *column, int n)
{
	int			i;

	appendStringInfoString(sql, OidIsValid(relid) ? "(SELECT xmin, ctid" :
						   "(SELECT NULL::pg_catalog.xid AS xmin, NULL::pg_catalog.tid AS ctid");
	for (i = 0; i < n; i++)
	{
		const char *name = quote_identifier(column[i].name);

		if (OidIsValid(relid) && get_attnum(relid, column[i].name) != InvalidAttrNumber)
			appendStringInfo(sql, ", %s", name);
		else
			appendStringInfo(sql, ", (%s)::%s AS %s", OidIsValid(relid) ? column[i].value : "NULL",
							 column[i].type, name);
	}
	if (OidIsValid(relid))
		appendStringInfo(sql, " FROM " CQRS_ES_SCHEMA ".%s)", column->table);
	else
		appendStringInfoString(sql, " WHERE false)");
}

/* Is the table at this place of the text one that is read, not written? */
static bool
is_read(const char *sql, const char *place)
{
	size_t		before = place - sql;

#define STANDS_BEFORE(word) (before >= strlen(word) && strncmp(place - strlen(word), word, strlen(word)) == 0)
	return STANDS_BEFORE(" JOIN ") || (STANDS_BEFORE("FROM ") && !STANDS_BEFORE("DELETE FROM "));
}
