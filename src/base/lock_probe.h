/*-------------------------------------------------------------------------
 * lock_probe.h
 *	  Does somebody else have a lock?
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_LOCK_PROBE_H
#define CQRS_ES_LOCK_PROBE_H

#include "storage/lock.h"

#include "base/compat.h"

/*
 * Could a lock of this mode not be had now, for somebody else has one that conflicts?  Also when
 * the lock table is full.  Waits for nobody, and keeps nothing; within a transaction or not.
 */
static inline bool
LockProbeIsTaken(const LOCKTAG *tag, LOCKMODE mode)
{
	if (compat_try_lock(tag, mode, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	(void) LockRelease(tag, mode, true);
	return false;
}

#endif							/* CQRS_ES_LOCK_PROBE_H */
