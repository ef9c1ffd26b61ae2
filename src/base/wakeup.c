/*-------------------------------------------------------------------------
 * wakeup.c
 *	  Waiting for other transactions to end, and waking who waits.
 *
 * Who waits is registered in the server's lock table: it holds RowExclusiveLock on
 * a tag of our own.  A transaction that has changed something worth waking for
 * says so (WakeupAtEnd).  When it has ended, its changes are visible and its locks
 * released, it looks who holds that lock, and sets their latches.  So no library
 * has to be preloaded, nothing is written, and nobody waits for a lock; with nobody
 * there the look costs one probe of the lock table.
 *
 * Nothing is lost between looking and sleeping:
 *
 *	the waiter		registers; looks; sleeps unless its latch has been set
 *	who changes		changes; ends; sets the latches of those registered
 *
 * Either the change was visible to the look, or its transaction ended after the
 * waiter had registered.  This holds as long as nobody else resets the latch
 * between the two, which waiting for a lock does.  So whoever sleeps looks again
 * after some time anyhow, soon at first.  That is also for what ends with no code
 * of ours: COMMIT PREPARED (PREPARE itself does wake), anything on a standby; and for a
 * waiter that is just between two transactions, where no virtual xid leads to it.
 *
 * The tag is an object of pg_extension with oid 0, which none has.  Should someone
 * take the same: a shared lock only gets its holder's latch set now and then, and
 * while an exclusive one is there no waiter registers (it never waits for this
 * lock), but sleeps for a short time only.  The same when the lock table is full.
 *
 * Waking must not fail: it runs after the commit.  The one thing that can is the
 * memory for the list; then nobody is woken, and they look by themselves.
 *
 * Where thousands commit in a second, each would wake all who wait.  So whoever
 * was woken a few times in a row without finding what it wants rests, unregistered,
 * before it looks again.  It holds AccessShareLock on the tag then, so that whoever asks
 * how many there are who wait (WakeupOthers) counts it, and whoever wakes does not find it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_extension_d.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/error_trap.h"
#include "base/wakeup.h"

/* of who is to be woken, and of who rests: the first is found by its conflict with WAKES */
#define AWAITS			RowExclusiveLock
#define RESTS			AccessShareLock
#define WAKES			ShareLock

/* so often in a row a waiter may be woken in vain; then it rests before each sleep */
#define WAKES_IN_VAIN	3
#define REST_MS			1

/* looks again after so long when it cannot be registered */
#define UNREGISTERED_MS	5

/* makes our tag differ from the lock on an extension */
#define WAITERS_SUBID	1

/* by WakeupReason */
static const char *const wait_names[] = {"CqrsEsEvents", "CqrsEsSettled", "CqrsEsProjection"};
static uint32 wait_events[lengthof(wait_names)];

static bool wake_at_end = false;

static void at_release(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg);
static void set_latches(void);
static LOCKTAG waiters_tag(void);
static bool sleep_for(const Waiter *waiter, long timeout_ms);

void
WakeupInit(void)
{
	RegisterResourceReleaseCallback(at_release, NULL);
}

/*
 * Wake all who wait when the current top-level transaction has ended, however it
 * ends; a rollback of the subtransaction does not take it back.
 */
void
WakeupAtEnd(void)
{
	wake_at_end = true;
}

/*
 * Register the waiter: from now on it is woken.  What is looked at after this is
 * not missed.  When that cannot be had at once, sleeps a little.
 */
void
WakeupEnter(Waiter *waiter)
{
	LOCKTAG		tag = waiters_tag();

	ResetLatch(MyLatch);
	waiter->registered = compat_try_lock(&tag, AWAITS, waiter->session) !=
		LOCKACQUIRE_NOT_AVAIL;
	if (!waiter->registered)
		(void) sleep_for(waiter, UNREGISTERED_MS);
}

/*
 * Sleep until a transaction that said WakeupAtEnd has ended, or for the time
 * given, or shorter.  Who is not registered yet is registered and does not sleep, for
 * what it has seen may have changed before.  So the caller looks, and sleeps, and looks again,
 * until it has what it wants (then it calls WakeupLeave) or the deadline has passed:
 * false, and the waiter has left.  An error ends the registration, too.
 *
 * Holds RowExclusiveLock on our tag meanwhile, and no catalog snapshot.  Can be
 * cancelled.
 */
bool
WakeupSleep(Waiter *waiter, TimestampTz deadline, long longest_ms)
{
	long		left_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

	if (left_ms <= 0)
	{
		WakeupLeave(waiter);
		return false;
	}
	waiter->sleep_ms = Min(Max(waiter->sleep_ms * 2, 1), longest_ms);
	if (!waiter->registered)
		WakeupEnter(waiter);
	else if (waiter->in_vain < WAKES_IN_VAIN || waiter->rested)
	{
		waiter->in_vain = sleep_for(waiter, Min(waiter->sleep_ms, left_ms)) ? waiter->in_vain + 1 : 0;
		waiter->rested = false;
	}
	else
	{
		WakeupRest(waiter, REST_MS);
		waiter->rested = true;
	}
	return true;
}

/* Sleep for a time, without being woken. */
void
WakeupRest(Waiter *waiter, long ms)
{
	LOCKTAG		tag = waiters_tag();
	bool		rests = compat_try_lock(&tag, RESTS, waiter->session) != LOCKACQUIRE_NOT_AVAIL;

	WakeupLeave(waiter);
	(void) sleep_for(waiter, ms);
	WakeupEnter(waiter);
	if (rests)
		(void) LockRelease(&tag, RESTS, waiter->session);
}

/* How many others wait at this moment, to be woken or not? */
int
WakeupOthers(void)
{
	LOCKTAG		tag = waiters_tag();
	int			n;

	pfree(GetLockConflicts(&tag, AccessExclusiveLock, &n));
	return n;
}

/* No more to be woken. */
void
WakeupLeave(Waiter *waiter)
{
	LOCKTAG		tag = waiters_tag();

	if (waiter->registered)
		(void) LockRelease(&tag, AWAITS, waiter->session);
	waiter->registered = false;
}

/* At the end of a transaction this is called for each of its resource owners. */
static void
at_release(ResourceReleasePhase phase, bool is_commit, bool is_top_level, void *arg)
{
	if (wake_at_end && is_top_level && phase == RESOURCE_RELEASE_AFTER_LOCKS)
	{
		wake_at_end = false;
		ErrorTrap(set_latches);
	}
}

/* Set the latches of all who wait. */
static void
set_latches(void)
{
	LOCKTAG		tag = waiters_tag();
	VirtualTransactionId *waiters;
	int			n;
	int			i;

	waiters = GetLockConflicts(&tag, WAKES, &n);
	for (i = 0; i < n; i++)
	{
		PGPROC	   *proc = compat_vxid_proc(waiters[i]);

		/* whoever has taken that place since is woken for nothing */
		if (proc)
			SetLatch(&proc->procLatch);
	}
	pfree(waiters);
}

static LOCKTAG
waiters_tag(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, InvalidOid, WAITERS_SUBID);
	return tag;
}

/* Was it ended by the latch? */
static bool
sleep_for(const Waiter *waiter, long timeout_ms)
{
	int			events;

	InvalidateCatalogSnapshotConditionally();
	events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout_ms,
					   compat_wait_event(&wait_events[waiter->reason], wait_names[waiter->reason]));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return (events & WL_LATCH_SET) != 0;
}
