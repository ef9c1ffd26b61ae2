/*-------------------------------------------------------------------------
 * command_queue.c
 *	  Commands queue up for a stream that many fight over.
 *
 * Retries alone would not help many sessions that send commands to one
 * aggregate: all wake up when one has won, and all but one lose again.  So from
 * the first lost race on a transaction holds one of a fixed number of lock
 * slots, chosen by a hash of the stream, until it ends, and a command that finds
 * the slot taken waits for it before it loads: under contention commands queue
 * up, without contention nobody holds a slot.  Two streams that share a slot
 * wait for each other then, no more.
 *
 * A slot must not make a deadlock where there was none.  Its holder waits for
 * others: for the end of the stream, for rows that the decider or a handler
 * touches.  So nobody waits for a slot who may hold what its holder waits
 * for: a transaction that has written something, or locked a row, before the
 * command began or when its decider ran (it has an xid then); and one that holds
 * another slot already.  These take the slot if it is free, and else go on and
 * race, as appends do.  What a lost race itself leaves behind is a dead row, for
 * which nobody waits.
 *
 * (Locks that take no xid are not seen: LOCK TABLE and advisory locks that
 * somebody takes by hand, or in a decider.  The server's deadlock detector sees
 * them.)
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"

#include "base/compat.h"
#include "base/stream_key.h"
#include "command/command_queue.h"

/* advisory locks of users have 1 or 2 in the fourth field of their tag */
#define COMMAND_LOCK_CLASS	0xCE
#define COMMAND_LOCK_SLOTS	1024

/* the last transaction of this backend that has held a slot */
static LocalTransactionId holder_lxid = InvalidLocalTransactionId;

static void take_slot(CommandQueue *queue, bool wait);

/*
 * A command for the stream comes.  Waits for those who lost a race for it
 * before, if it may; then it has the slot as well.  What is locked stays so to
 * the end of the (sub)transaction, if not CommandQueueLeave gives it back.
 */
void
CommandQueueArrive(CommandQueue *queue, const StreamKey *key)
{
	uint32		hash = 0;
	const text *parts[] = {key->aggregate_type, key->aggregate_id, key->tenant_id};
	size_t		i;

	for (i = 0; i < lengthof(parts); i++)
		hash = hash_combine(hash, hash_bytes((const unsigned char *) VARDATA_ANY(parts[i]),
											 VARSIZE_ANY_EXHDR(parts[i])));
	SET_LOCKTAG_ADVISORY(queue->slot, MyDatabaseId, 0, hash % COMMAND_LOCK_SLOTS,
						 COMMAND_LOCK_CLASS);
	queue->may_wait = !TransactionIdIsValid(GetTopTransactionIdIfAny()) &&
		holder_lxid != compat_my_lxid();
	queue->holds_slot = false;
	if (!queue->may_wait)
		return;
	if (LockAcquire(&queue->slot, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
		(void) LockRelease(&queue->slot, ExclusiveLock, false);
	else
		take_slot(queue, true);
}

/* The decider has run; nothing has been appended yet. */
void
CommandQueueDecided(CommandQueue *queue)
{
	/* whoever has lost a race has asked before */
	if (!queue->holds_slot && TransactionIdIsValid(GetTopTransactionIdIfAny()))
		queue->may_wait = false;
}

/* The command has lost a race: others wait for it from now on. */
void
CommandQueueLost(CommandQueue *queue)
{
	if (!queue->holds_slot)
		take_slot(queue, queue->may_wait);
}

/* The command is done and has appended nothing: nobody need wait for it. */
void
CommandQueueLeave(CommandQueue *queue)
{
	if (queue->holds_slot)
		(void) LockRelease(&queue->slot, ExclusiveLock, false);
	queue->holds_slot = false;
}

/* Get the slot, if need be after a wait. */
static void
take_slot(CommandQueue *queue, bool wait)
{
	queue->holds_slot = LockAcquire(&queue->slot, ExclusiveLock, false, !wait) !=
		LOCKACQUIRE_NOT_AVAIL;
	if (queue->holds_slot)
		holder_lxid = compat_my_lxid();
}
