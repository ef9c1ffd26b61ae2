/*-------------------------------------------------------------------------
 * tag_slot.c
 *	  The slots to which tags are hashed: locks of who appends them, and of who asks.
 *
 * Who decides by the events that have a tag must not miss one whose transaction is still
 * running.  So an append that has a tag holds the tag's slot, in RowExclusiveLock, from
 * before it draws its position until it has ended and is visible; and that of its event
 * type, where define_tags knows it.  Such appends do not wait for each other.  A
 * condition that asks for a tag takes the slot in ShareLock, and its snapshot after that:
 * whoever had the tag and a lower position has ended by then, and can be seen.
 * Who does both takes ShareRowExclusiveLock at once, for two who hold one of the two
 * and want the other would wait for each other.
 *
 * Slots are locks of the server, to the end of the transaction; a savepoint that is
 * rolled back gives back what was taken in it, as it does with its events.  So what is
 * held is asked of the lock manager, and never remembered; but each lock that is
 * new to this backend begins another epoch of positions (position.c), which tells a
 * position that was drawn before from one that was drawn under it.  So does asking, also for
 * what is held already: an event of our own whose position was drawn before it belongs behind
 * what is decided now.  And each taker
 * takes anew what the transaction has already: then the lock lasts as long as the
 * (sub)transaction that needs it, whoever had it first.  (Where that is ShareRowExclusiveLock
 * it takes this again, whatever it wants: no other would be one more.)
 *
 * All slots of a call are taken in ascending order, behind the lock on the log and before
 * anything of a stream is waited for.  So calls that are alone in their transactions
 * cannot wait for each other in a circle.
 *
 * A slot can be busy for as long as somebody's transaction is open.  Who queued for it
 * would stand in the way of those whom that one lets pass.  So the first try waits for
 * nothing; when it fails, all slots are given back, those who hold some of them now are
 * waited for, and only then is there a queue (lock_holders.c).  Unless the transaction has
 * the busy slot already, in another mode: then others may be in the same place, and that
 * this is a deadlock is found at once where they queue.
 *
 * The hash is part of what prepared transactions hold over a restart, and of nothing
 * that is stored.  Two tags that share a slot wait for each other needlessly.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/lock.h"

#include "base/compat.h"
#include "base/lock_holders.h"
#include "log/position.h"
#include "tag/tag_slot.h"

/* advisory locks of users have 1 or 2 in the fourth field of their tag */
#define TAG_LOCK_CLASS	0xCD

/* what a slot is of; part of the hash, so that a type and a tag of its name are two */
typedef enum SlotKind
{
	SLOT_OF_TAG,
	SLOT_OF_TYPE
} SlotKind;

static int	slot_of(SlotKind kind, const text *tenant_id, const text *name);
static uint64 hash_text(const text *value, uint64 seed);
static bool asks_anything(const TagSlotSet *set);
static int	acquire(const TagSlotSet *set, bool wait);
static void give_back(const TagSlotSet *set, int end);
static bool has_already(int slot);
static void await_holders(const TagSlotSet *set, bool to_acquire);
static int	next_slot(const TagSlotSet *set, int from);
static LOCKMODE mode_of(const TagSlotSet *set, int slot);
static LOCKMODE mode_to_take(const TagSlotSet *set, int slot, const LOCKTAG *tag);
static bool is_in(const uint64 *bits, int slot);
static LOCKTAG lock_tag(int slot);

/* The slot of a tag of a tenant. */
int
TagSlotOfTag(const text *tenant_id, const text *tag)
{
	return slot_of(SLOT_OF_TAG, tenant_id, tag);
}

/* The slot of an event type of a tenant. */
int
TagSlotOfType(const text *tenant_id, const text *event_type)
{
	return slot_of(SLOT_OF_TYPE, tenant_id, event_type);
}

static int
slot_of(SlotKind kind, const text *tenant_id, const text *name)
{
	return (int) (hash_text(name, hash_text(tenant_id, (uint64) kind)) % TAG_SLOTS);
}

static uint64
hash_text(const text *value, uint64 seed)
{
	return hash_bytes_extended((const unsigned char *) VARDATA_ANY(value),
							   (int) VARSIZE_ANY_EXHDR(value), seed);
}

/*
 * Lock all slots of the set until the (sub)transaction ends; see tag_slot.h.  Raises
 * 40P01, 55P03, 57014, 53200.
 */
void
TagSlotsAcquire(const TagSlotSet *set)
{
	int			busy;

	if (asks_anything(set))
		PositionBeginEpoch();
	busy = acquire(set, false);
	if (busy == TAG_SLOTS)
		return;
	give_back(set, busy);
	if (!has_already(busy))
		await_holders(set, true);
	(void) acquire(set, true);
}

/* The same without waiting; false, and nothing new is held, when one is busy. */
bool
TagSlotsTryAcquire(const TagSlotSet *set)
{
	int			busy = acquire(set, false);

	if (busy == TAG_SLOTS)
		return true;
	give_back(set, busy);
	return false;
}

/* Does this transaction hold all slots that the set has? */
bool
TagSlotsAreHeld(const TagSlotSet *set)
{
	int			slot;

	for (slot = next_slot(set, 0); slot < TAG_SLOTS; slot = next_slot(set, slot + 1))
	{
		LOCKTAG		tag = lock_tag(slot);

		if (is_in(set->has, slot) && !compat_lock_held(&tag, RowExclusiveLock) &&
			!compat_lock_held(&tag, ShareRowExclusiveLock))
			return false;
	}
	return true;
}

/*
 * Wait for all who hold a slot that the set asks for at this moment, and may append what
 * is asked for.  Raises 40P01, 55P03, 57014.
 */
void
TagSlotsAwaitHolders(const TagSlotSet *set)
{
	await_holders(set, false);
}

static bool
asks_anything(const TagSlotSet *set)
{
	int			word;

	for (word = 0; word < TAG_SLOT_WORDS; word++)
		if (set->asks[word] != 0)
			return true;
	return false;
}

/* Lock one slot after the other; the first that is busy unless to `wait`, or TAG_SLOTS. */
static int
acquire(const TagSlotSet *set, bool wait)
{
	int			slot;

	for (slot = next_slot(set, 0); slot < TAG_SLOTS; slot = next_slot(set, slot + 1))
	{
		LOCKTAG		tag = lock_tag(slot);
		LockAcquireResult result = LockAcquire(&tag, mode_to_take(set, slot, &tag), false, !wait);

		if (result == LOCKACQUIRE_NOT_AVAIL)
			break;
		if (result == LOCKACQUIRE_OK)
			PositionBeginEpoch();
	}
	return slot;
}

/* Undo what acquire has done before it came to the slot `end`. */
static void
give_back(const TagSlotSet *set, int end)
{
	int			slot;

	for (slot = next_slot(set, 0); slot < end; slot = next_slot(set, slot + 1))
	{
		LOCKTAG		tag = lock_tag(slot);

		(void) LockRelease(&tag, mode_to_take(set, slot, &tag), false);
	}
}

/* Does this transaction hold the slot in some mode? */
static bool
has_already(int slot)
{
	LOCKTAG		tag = lock_tag(slot);

	return compat_lock_held(&tag, RowExclusiveLock) || compat_lock_held(&tag, ShareLock);
}

/* First all are asked who holds them, so that only those of now are waited for. */
static void
await_holders(const TagSlotSet *set, bool to_acquire)
{
	LockHolders holders = {0};
	int			slot;

	for (slot = next_slot(set, 0); slot < TAG_SLOTS; slot = next_slot(set, slot + 1))
	{
		LOCKTAG		tag = lock_tag(slot);

		if (to_acquire || is_in(set->asks, slot))
			LockHoldersAdd(&holders, &tag, to_acquire ? mode_of(set, slot) : ShareLock);
	}
	LockHoldersAwait(&holders);
}

/* The first slot of the set that is not below `from`; TAG_SLOTS when there is none. */
static int
next_slot(const TagSlotSet *set, int from)
{
	int			word;

	for (word = from / 64; word < TAG_SLOT_WORDS; word++)
	{
		uint64		bits = set->has[word] | set->asks[word];

		if (word == from / 64)
			bits &= ~UINT64CONST(0) << from % 64;
		if (bits != 0)
			return word * 64 + pg_rightmost_one_pos64(bits);
	}
	return TAG_SLOTS;
}

static LOCKMODE
mode_of(const TagSlotSet *set, int slot)
{
	if (!is_in(set->asks, slot))
		return RowExclusiveLock;
	return is_in(set->has, slot) ? ShareRowExclusiveLock : ShareLock;
}

/* The same, unless a stronger one is there: then this. */
static LOCKMODE
mode_to_take(const TagSlotSet *set, int slot, const LOCKTAG *tag)
{
	return compat_lock_held(tag, ShareRowExclusiveLock) ? ShareRowExclusiveLock : mode_of(set, slot);
}

static bool
is_in(const uint64 *bits, int slot)
{
	return (bits[slot / 64] & UINT64CONST(1) << slot % 64) != 0;
}

static LOCKTAG
lock_tag(int slot)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, (uint32) slot, TAG_LOCK_CLASS);
	return tag;
}
