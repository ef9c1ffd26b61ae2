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
 * An event trigger sees to both (sql/92_keep_shape.sql).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "tcop/deparse_utility.h"
#include "utils/builtins.h"

#include "base/compat.h"

PG_FUNCTION_INFO_V1(cqrs_es_lost_by_dump);

static bool changes_columns(const AlterTableCmd * command);
static bool changes_state_only(const AlterTableCmd * command);

/*
 * SQL: lost_by_dump(command), of what pg_event_trigger_ddl_commands() gives for a
 * table of the extension: "columns" when its columns are not what they were,
 * "definition" when anything else is defined anew, null when that is not the case:
 * triggers are turned off while data are restored.
 */
Datum
cqrs_es_lost_by_dump(PG_FUNCTION_ARGS)
{
	CollectedCommand *command = (CollectedCommand *) PG_GETARG_POINTER(0);
	bool		definition = false;
	ListCell   *cell;

	if (command->type == SCT_Simple && IsA(command->parsetree, RenameStmt) &&
		((RenameStmt *) command->parsetree)->renameType == OBJECT_COLUMN)
		PG_RETURN_TEXT_P(cstring_to_text("columns"));
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
	switch (command->subtype)
	{
		case AT_EnableTrig:
		case AT_EnableAlwaysTrig:
		case AT_EnableReplicaTrig:
		case AT_DisableTrig:
		case AT_EnableTrigAll:
		case AT_DisableTrigAll:
		case AT_EnableTrigUser:
		case AT_DisableTrigUser:
			return true;
		default:
			return false;
	}
}
