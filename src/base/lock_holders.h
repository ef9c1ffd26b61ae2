/*-------------------------------------------------------------------------
 * lock_holders.h
 *	  Who holds locks at this moment, to wait for just these.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_LOCK_HOLDERS_H
#define CQRS_ES_LOCK_HOLDERS_H

#include "storage/lock.h"

#include "base/compat.h"

/* All zero is nobody. */
typedef struct LockHolders
{
	int			n;
	int			size;
	VirtualTransactionId *vxids;	/* palloc'd as the first of them was added, until
									 * they are awaited */
} LockHolders;

extern void LockHoldersAdd(LockHolders *holders, const LOCKTAG *tag, LOCKMODE mode);
extern void LockHoldersAwait(LockHolders *holders);

#endif							/* CQRS_ES_LOCK_HOLDERS_H */
