/*-------------------------------------------------------------------------
 * lock_holders.c
 *	  Who holds locks at this moment, to wait for just these.
 *
 * Who queues for a lock stands in the way of all who come after, and of those as well
 * whom the present holder lets pass.  So whoever can wait for a long transaction waits for
 * that itself, the way CREATE INDEX CONCURRENTLY does, and queues for the short ones
 * that have come meanwhile.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/lmgr.h"

#include "base/lock_holders.h"

/* Add the other transactions, prepared ones among them, that hold the lock in a mode against this one. */
void
LockHoldersAdd(LockHolders *holders, const LOCKTAG *tag, LOCKMODE mode)
{
	int			n;
	VirtualTransactionId *found = GetLockConflicts(tag, mode, &n);

	if (n > 0 && holders->n + n > holders->size)
	{
		holders->size = Max(2 * holders->size, holders->n + n);
		holders->vxids = holders->vxids == NULL ?
			palloc(holders->size * sizeof(VirtualTransactionId)) :
			repalloc(holders->vxids, holders->size * sizeof(VirtualTransactionId));
	}
	if (n > 0)
		memcpy(holders->vxids + holders->n, found, n * sizeof(VirtualTransactionId));
	holders->n += n;
	pfree(found);
}

/*
 * Wait until all of them have ended, however long that takes; the server's deadlock
 * detector watches.  They are nobody then, and what they took is freed.  Raises 40P01, 55P03, 57014.
 */
void
LockHoldersAwait(LockHolders *holders)
{
	int			i;

	for (i = 0; i < holders->n; i++)
		(void) VirtualXactLock(holders->vxids[i], true);
	if (holders->vxids)
		pfree(holders->vxids);
	memset(holders, 0, sizeof(LockHolders));
}
