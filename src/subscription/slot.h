/*-------------------------------------------------------------------------
 * slot.h
 *	  The slots to which streams are hashed, and sets of them.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SLOT_H
#define CQRS_ES_SLOT_H

#include "base/stream_key.h"

#define SLOTS 256

/* As in a value of type bit(256): the first slot is the highest bit of the first byte. */
typedef struct SlotSet
{
	uint8		bits[SLOTS / BITS_PER_BYTE];
} SlotSet;

extern int	SlotOf(const StreamKey *key);
extern void SlotSetFromDatum(SlotSet *set, Datum value);
extern Datum SlotSetToDatum(const SlotSet *set);
extern int	SlotSetCount(const SlotSet *set);
extern void SlotSetHalve(SlotSet *set, SlotSet *other);
extern void SlotSetAdd(SlotSet *set, const SlotSet *other);

static inline bool
SlotSetHas(const SlotSet *set, int slot)
{
	return (set->bits[slot / BITS_PER_BYTE] & (0x80 >> slot % BITS_PER_BYTE)) != 0;
}

#endif							/* CQRS_ES_SLOT_H */
