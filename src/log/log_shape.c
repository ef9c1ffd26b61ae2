/*-------------------------------------------------------------------------
 * log_shape.c
 *	  What people add to the tables of the extension, and what a dump has of it.
 *
 * pg_dump writes CREATE EXTENSION and the rows of its tables, and of their
 * definition nothing: that is the extension's business.  So an index, a
 * constraint or a trigger that somebody adds is lost without a word, and after
 * ADD COLUMN the rows themselves, since they do not fit the table of the restored
 * database.
 *
 * For the log that cannot be left so.  A log that somebody gives a shape of its own
 * leaves the extension (own_log): pg_dump takes it along as any table, with all
 * that was added.  In the restored database CREATE EXTENSION has made a log by
 * then.  Therefore own_log also makes a function that is no part of the extension,
 * log_is_own(): it stands in the dump before all tables, and where it is created
 * the empty log of the extension gives way.
 *
 * The other tables are for our functions alone.  Their columns cannot be changed;
 * anything else is told to be lost.
 *
 * All of them are found by their names, and nothing inherits from them.  Another table
 * can take the place of a log that has left the extension, so that one may be renamed.
 *
 * Event triggers see to it (sql/982_keep_place.sql, sql/984_keep_shape.sql).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "tcop/deparse_utility.h"
#include "utils/builtins.h"

#include "base/compat.h"

PG_FUNCTION_INFO_V1(cqrs_es_lost_by_dump);

static const char *lost_of_simple(const Node *statement);
static bool only_restarts(const AlterSeqStmt * statement);
static bool changes_columns(const AlterTableCmd * command);
static bool changes_state_only(const AlterTableCmd * command);

/*
 * SQL: lost_by_dump(command), of what pg_event_trigger_ddl_commands() gives for a
 * table or sequence of the extension: "columns" when its columns are not what they were,
 * "name" when it has another name or schema (or what hangs on it has), "definition" when
 * anything else is defined anew, null when that is not the case: while data are restored,
 * all triggers are turned off, and sequences begin anew.
 */
Datum
cqrs_es_lost_by_dump(PG_FUNCTION_ARGS)
{
	CollectedCommand *command = (CollectedCommand *) PG_GETARG_POINTER(0);
	bool		definition = false;
	ListCell   *cell;

	if (command->type == SCT_Simple)
	{
		const char *lost = lost_of_simple(command->parsetree);

		if (lost == NULL)
			PG_RETURN_NULL();
		PG_RETURN_TEXT_P(cstring_to_text(lost));
	}
	/* GRANT and the like do not tell whose they are: now none of them comes here */
	if (command->type != SCT_AlterTable)
		PG_RETURN_TEXT_P(cstring_to_text("definition"));
	foreach(cell, command->d.alterTable.subcmds)
	{
		CollectedATSubcmd *sub = lfirst(cell);
		AlterTableCmd *alter = castNode(AlterTableCmd, sub->parsetree);

		if (changes_columns(alter))
			PG_RETURN_TEXT_P(cstring_to_text("columns"));
		definition |= !changes_state_only(alter);
	}
	if (!definition)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text("definition"));
}

static const char *
lost_of_simple(const Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_RenameStmt:
			switch (((const RenameStmt *) statement)->renameType)
			{
				case OBJECT_COLUMN:
					return "columns";
				case OBJECT_TABLE:
				case OBJECT_SEQUENCE:
				case OBJECT_VIEW:
					return "name";
				default:
					return "definition";
			}
		case T_AlterObjectSchemaStmt:
			return "name";
		case T_AlterSeqStmt:
			return only_restarts((const AlterSeqStmt *) statement) ? NULL : "definition";
		default:
			return "definition";
	}
}

static bool
only_restarts(const AlterSeqStmt * statement)
{
	ListCell   *cell;

	foreach(cell, statement->options)
		if (strcmp(lfirst_node(DefElem, cell)->defname, "restart") != 0)
		return false;
	return true;
}

static bool
changes_columns(const AlterTableCmd * command)
{
	switch (command->subtype)
	{
		case AT_AddColumn:
		case AT_DropColumn:
		case AT_AlterColumnType:
			return true;
		default:
			return compat_adds_or_drops_column(command->subtype);
	}
}

/* what pg_dump --disable-triggers does, and undoes */
static bool
changes_state_only(const AlterTableCmd * command)
{
	return command->subtype == AT_EnableTrigAll || command->subtype == AT_DisableTrigAll;
}
