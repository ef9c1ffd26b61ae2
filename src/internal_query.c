/*-------------------------------------------------------------------------
 * internal_query.c
 *	  Constant SQL of our own, prepared once per backend and kept, as the
 *	  foreign-key triggers of the server do it.
 *
 * The texts name every object with its schema, so a caller's search_path has
 * no say.  Registries and snapshots are read and written with the rights of
 * the role that owns the log (RoleSwitchTo): users need no grants on them.
 * An error leaves the switched role to the transaction machinery, which
 * restores it at (sub)transaction abort.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "internal_query.h"

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

/* Act as `role` until RoleSwitchBack, the way a SECURITY DEFINER function does. */
RoleSwitch
RoleSwitchTo(Oid role)
{
	RoleSwitch	saved;

	GetUserIdAndSecContext(&saved.saved_user, &saved.saved_context);
	SetUserIdAndSecContext(role, saved.saved_context | SECURITY_LOCAL_USERID_CHANGE);
	return saved;
}

void
RoleSwitchBack(const RoleSwitch *saved)
{
	SetUserIdAndSecContext(saved->saved_user, saved->saved_context);
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
