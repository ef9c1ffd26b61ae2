/*-------------------------------------------------------------------------
 * tag_slot.h
 *	  The slots to which tags are hashed: locks of who appends them, and of who asks.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TAG_SLOT_H
#define CQRS_ES_TAG_SLOT_H

#include "base/compat.h"

/* Never another number: prepared transactions keep theirs over a restart. */
#define TAG_SLOTS 4096

#define TAG_SLOT_WORDS (TAG_SLOTS / 64)

/*
 * Slots, with what they are wanted for: an append has some tags or types, a condition asks
 * for some.  All zero is the empty set; on anybody's stack.
 */
typedef struct TagSlotSet
{
	uint64		has[TAG_SLOT_WORDS];
	uint64		asks[TAG_SLOT_WORDS];
} TagSlotSet;

/* The slot of a tag, or of an event type, of a tenant. */
extern int	TagSlotOfTag(const text *tenant_id, const text *tag);
extern int	TagSlotOfType(const text *tenant_id, const text *event_type);

static inline void
TagSlotSetAddHas(TagSlotSet *set, int slot)
{
	set->has[slot / 64] |= UINT64CONST(1) << slot % 64;
}

static inline void
TagSlotSetAddAsks(TagSlotSet *set, int slot)
{
	set->asks[slot / 64] |= UINT64CONST(1) << slot % 64;
}

/*
 * Lock all slots of the set, in ascending order, until the (sub)transaction ends: has in
 * RowExclusiveLock, asks in ShareLock, both in ShareRowExclusiveLock.  Behind
 * RowExclusiveLock on the log, before any stream is looked at and before a position is
 * drawn.  Where one is busy, waits for those who hold slots of the set now before it
 * queues, and has none of the set meanwhile.  Whoever asks takes its snapshot after this;
 * rows whose position was drawn before get another one.
 * Raises 40P01, 55P03, 57014, 53200.
 */
extern void TagSlotsAcquire(const TagSlotSet *set);

/*
 * The same without waiting for anybody.  False when one is busy; then the set is as it was.
 */
extern bool TagSlotsTryAcquire(const TagSlotSet *set);

/* Does this transaction hold all slots that the set has, whatever it asks for? */
extern bool TagSlotsAreHeld(const TagSlotSet *set);

/*
 * Wait for all transactions but this one that hold a slot which the set asks for in a mode
 * against ShareLock, at this moment; whoever comes later is not waited for.  Takes
 * no lock.  Raises 40P01, 55P03, 57014.
 */
extern void TagSlotsAwaitHolders(const TagSlotSet *set);

#endif							/* CQRS_ES_TAG_SLOT_H */
