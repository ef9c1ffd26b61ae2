/*-------------------------------------------------------------------------
 * error_trap.c
 *	  Work whose errors must not get out.
 *
 * After a transaction has committed an error would be a PANIC of the server: there is
 * no way to abort any more.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/error_trap.h"

/*
 * Do it; an error ends it, and is forgotten.  Called at the end of a transaction,
 * while interrupts are held back: so it is not a cancellation that is swallowed.
 * Nothing is cleaned up: the work must not hold anything where it can fail, which is
 * for want of memory.
 */
void
ErrorTrap(void (*work) (void))
{
	MemoryContext context = CurrentMemoryContext;
	ErrorContextCallback *callbacks = error_context_stack;
	uint32		interrupts_held = InterruptHoldoffCount;
	uint32		cancels_held = QueryCancelHoldoffCount;

	/* what these would say belongs to a transaction that is gone */
	error_context_stack = NULL;
	PG_TRY();
	{
		work();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();

		/* raising an error had set them to 0 */
		InterruptHoldoffCount = interrupts_held;
		QueryCancelHoldoffCount = cancels_held;
	}
	PG_END_TRY();
	error_context_stack = callbacks;
}
