/*-------------------------------------------------------------------------
 * event_columns.c
 *	  The columns of an event: their names and types, and where they are in a
 *	  table.
 *
 * Columns are found by name, never by number: the owner may add, drop and
 * reorder.  In a partition or a shard they may stand elsewhere than in the log.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "utils/builtins.h"

#include "log/event_columns.h"

static const char *const column_names[EVENT_NCOLUMNS] = {
	[EVENT_GLOBAL_POSITION] = "global_position",
	[EVENT_SEQUENCE] = "sequence",
	[EVENT_CREATED_AT] = "created_at",
	[EVENT_EVENT_ID] = "event_id",
	[EVENT_TENANT_ID] = "tenant_id",
	[EVENT_AGGREGATE_TYPE] = "aggregate_type",
	[EVENT_AGGREGATE_ID] = "aggregate_id",
	[EVENT_EVENT_TYPE] = "event_type",
	[EVENT_EVENT_VERSION] = "event_version",
	[EVENT_PAYLOAD] = "payload",
	[EVENT_METADATA] = "metadata",
};

/*
 * Find our columns in a table that has them all, with the types and NOT NULL
 * that everything here relies on; else 42703 or 42P16.
 */
void
EventColumnsOf(Relation rel, EventColumns *columns)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			column;
	int			att;

	for (column = 0; column < EVENT_NCOLUMNS; column++)
	{
		/* the column is nearly always where it was installed */
		att = column;
		if (att >= desc->natts || TupleDescAttr(desc, att)->attisdropped ||
			strcmp(NameStr(TupleDescAttr(desc, att)->attname), column_names[column]) != 0)
		{
			for (att = 0; att < desc->natts; att++)
				if (!TupleDescAttr(desc, att)->attisdropped &&
					strcmp(NameStr(TupleDescAttr(desc, att)->attname), column_names[column]) == 0)
					break;
		}
		if (att >= desc->natts)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist",
							column_names[column], RelationGetRelationName(rel))));
		if (TupleDescAttr(desc, att)->atttypid != EventColumnType(column) ||
			!TupleDescAttr(desc, att)->attnotnull)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("column \"%s\" of relation \"%s\" is not of type %s NOT NULL",
							column_names[column], RelationGetRelationName(rel),
							format_type_be(EventColumnType(column)))));
		columns->attno[column] = att + 1;
	}
}

/* The column of that name, or -1. */
int
EventColumnByName(const char *name)
{
	int			column;

	for (column = 0; column < EVENT_NCOLUMNS; column++)
		if (strcmp(name, column_names[column]) == 0)
			return column;
	return -1;
}

/* The type of a column. */
Oid
EventColumnType(EventColumn column)
{
	switch (column)
	{
		case EVENT_GLOBAL_POSITION:
		case EVENT_SEQUENCE:
			return INT8OID;
		case EVENT_CREATED_AT:
			return TIMESTAMPTZOID;
		case EVENT_EVENT_ID:
			return UUIDOID;
		case EVENT_PAYLOAD:
		case EVENT_METADATA:
			return JSONBOID;
		default:
			return TEXTOID;
	}
}
