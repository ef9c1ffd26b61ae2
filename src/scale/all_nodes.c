/*-------------------------------------------------------------------------
 * all_nodes.c
 *	  Declarations of a distributed log are made on all nodes at once.
 *
 * What is declared stays in ordinary tables, of which each node has its own: they are read, locked and
 * cached as on one server.  Only to declare is a matter of all nodes.  One row of one
 * table, which Citus keeps a copy of on every node (a reference table), says what was declared last; to
 * declare is to change that row.  Citus changes it on all nodes in one transaction, one such change at a
 * time, and on each a trigger of the row runs the statement there.  So a statement is run on all
 * nodes, in the same order on each, or on none.
 *
 * The trigger is one for UPDATE.  When a node is added the row is copied, by an INSERT, and runs nothing.
 * Such a node does not know what was declared before: it takes no events, and nothing is declared, until
 * it has been admitted.  That is a change of the row as well, with all declarations of the coordinator,
 * read while it is locked; a node that has them already is left as it is.
 *
 * The statement runs with the rights of whoever is changing the row.  Deciders keep whose those
 * are, so on other nodes the session must be of the same role, which the row tells.  It tells the search_path,
 * too; other settings are the fixed ones (fixed_settings.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "base/distribution.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/fixed_settings.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "log/events.h"

static void run_here(const char *statement, const char *search_path);
static void run(const char *statement);
static char *column(const TriggerData *trigger, const char *name);

PG_FUNCTION_INFO_V1(cqrs_es_on_all_nodes);
PG_FUNCTION_INFO_V1(cqrs_es_run_here);

/*
 * SQL: on_all_nodes(statement).  Raises 22004, 25006, 55000 where the log is not distributed, 42501, QE609, and
 * what the statement raises on any of the nodes.
 */
Datum
cqrs_es_on_all_nodes(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.last_declaration SET number = number OPERATOR(pg_catalog.+) 1,"
		" admits = false, statement = $1, search_path = $2, role_name = $3",
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[3];
	uint64		n;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("statement must not be null")));
	ReadOnlyPrevent(fcinfo);
	/* in a session of a replica the trigger would be fired on the other nodes alone */
	if (EventsNode() < 0 || SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 EventsNode() < 0 ? errmsg("the log is not distributed") :
				 errmsg("session_replication_role is replica")));
	values[0] = PG_GETARG_DATUM(0);
	values[1] = CStringGetTextDatum(namespace_search_path);
	values[2] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	SPI_connect();
	n = InternalQueryWrite(&query, values, NULL);
	SPI_finish();
	if (n != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cqrs_es.last_declaration must have one row")));
	PG_RETURN_VOID();
}

/* SQL: the AFTER UPDATE ROW trigger of last_declaration, on the shard, on each node. */
Datum
cqrs_es_run_here(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	char	   *role_name;
	char	   *statement;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired AFTER UPDATE FOR EACH ROW", "run_here()")));
	SPI_connect();
	role_name = column(trigger, "role_name");
	statement = column(trigger, "statement");
	if (strcmp(role_name, GetUserNameFromId(GetUserId(), false)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("what \"%s\" declares cannot be declared by \"%s\" on node %d", role_name,
						GetUserNameFromId(GetUserId(), false), EventsNode())));
	if (strcmp(column(trigger, "admits"), "t") != 0)
		EventsRequireAdmitted();
	run_here(statement, column(trigger, "search_path"));
	/* all sessions look again whether the node has been admitted */
	CacheInvalidateRelcacheByRelid(ExtensionRelid("events"));
	SPI_finish();
	return PointerGetDatum(NULL);
}

static void
run_here(const char *statement, const char *search_path)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("search_path", search_path, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	FixedSettingsSet(&level);
	run(statement);
	AtEOXact_GUC(true, level);
}

static void
run(const char *statement)
{
	bool		before = DistributionSetDeclares(true);

	PG_TRY();
	{
		int			rc = SPI_execute(statement, false, 0);

		if (rc < 0)
			elog(ERROR, "could not run \"%s\": %s", statement, SPI_result_code_string(rc));
	}
	PG_FINALLY();
	{
		(void) DistributionSetDeclares(before);
	}
	PG_END_TRY();
}

/* A column of the new row; NULL for null. */
static char *
column(const TriggerData *trigger, const char *name)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);

	return SPI_getvalue(trigger->tg_newtuple, desc, SPI_fnumber(desc, name));
}
