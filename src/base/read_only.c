/*-------------------------------------------------------------------------
 * read_only.c
 *	  Where nothing can be written: on a standby, in a read-only transaction and in a
 *	  parallel worker.
 *
 * PostgreSQL would refuse the statement that a function runs inside, and name that.
 * The caller knows the function.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "base/read_only.h"

/*
 * What an SQL function begins with that writes, before anything is touched: 25006 that
 * names it where nothing can be written.  `fcinfo` is its call.
 */
void
ReadOnlyPrevent(FunctionCallInfo fcinfo)
{
	char	   *function;

	if (!RecoveryInProgress() && !XactReadOnly && !IsInParallelMode())
		return;
	function = psprintf("%s()", get_func_name(fcinfo->flinfo->fn_oid));
	if (RecoveryInProgress())
		PreventCommandDuringRecovery(function);
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
}
