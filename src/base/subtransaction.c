/*-------------------------------------------------------------------------
 * subtransaction.c
 *	  Run something whose error can be caught: in a subtransaction.
 *
 * After an error the transaction can go on only where all that the failed code
 * did is undone, its locks and snapshots included.  So:
 *
 *		ErrorData  *volatile error = NULL;
 *		Subtransaction subtransaction;
 *
 *		SubtransactionBegin(&subtransaction);
 *		PG_TRY();
 *		{
 *			...
 *			SubtransactionEnd(&subtransaction, true);
 *		}
 *		PG_CATCH();
 *		{
 *			error = SubtransactionCatch(&subtransaction);
 *		}
 *		PG_END_TRY();
 *
 * Memory context and resource owner are those of the caller all the time, so what
 * is palloc'd inside stays.  One that writes nothing costs little and gets no xid.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/subtransaction.h"

/* Begin one, in the current memory context. */
void
SubtransactionBegin(Subtransaction *subtransaction)
{
	subtransaction->caller = CurrentMemoryContext;
	subtransaction->owner = CurrentResourceOwner;
	BeginInternalSubTransaction(NULL);
	subtransaction->is_open = true;
	MemoryContextSwitchTo(subtransaction->caller);
}

/* End it: what was done inside is kept, or undone. */
void
SubtransactionEnd(Subtransaction *subtransaction, bool commit)
{
	if (commit)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	subtransaction->is_open = false;
	MemoryContextSwitchTo(subtransaction->caller);
	CurrentResourceOwner = subtransaction->owner;
}

/*
 * In PG_CATCH: take the error off the stack and undo what was done inside, if it
 * has not ended before.  Returns the error, palloc'd in the caller's memory
 * context, for ReThrowError.
 */
ErrorData *
SubtransactionCatch(Subtransaction *subtransaction)
{
	ErrorData  *error;

	MemoryContextSwitchTo(subtransaction->caller);
	error = CopyErrorData();
	FlushErrorState();
	if (subtransaction->is_open)
		SubtransactionEnd(subtransaction, false);
	return error;
}
