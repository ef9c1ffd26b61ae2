/*-------------------------------------------------------------------------
 * portion.c
 *	  Procedures that commit after each portion of their work.
 *
 * One long transaction would hold its locks, and for vacuum everybody's dead rows, to
 * its end, and would have done nothing when it is cancelled.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "nodes/parsenodes.h"
#include "tcop/pquery.h"

#include "base/portion.h"

/*
 * 25001 where nothing can be committed: in a transaction block, a function, or a
 * block with EXCEPTION.  `fcinfo` is the call of the procedure, `function` its name for
 * messages.
 */
void
PortionRequireOwnTransactions(FunctionCallInfo fcinfo, const char *function)
{
	CallContext *call = (CallContext *) fcinfo->context;

	if (call == NULL || !IsA(call, CallContext) || call->atomic || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run in a transaction block", function),
				 errdetail("It commits after each portion."),
				 errhint("CALL it by itself.")));
}

/* How many events a portion has, by the argument: at least 1.  Raises 22004, 22023. */
int32
PortionSize(NullableDatum arg)
{
	if (arg.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("portion must not be null")));
	if (DatumGetInt32(arg.value) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("portion must be positive")));
	return DatumGetInt32(arg.value);
}

/*
 * Commit, and begin another transaction, which has a snapshot.  Call after
 * SPI_connect_ext(SPI_OPT_NONATOMIC); only memory of that, or older, survives.
 */
void
PortionCommit(void)
{
	SPI_commit();
	/* as for whatever else runs in a procedure */
	EnsurePortalSnapshotExists();
}
