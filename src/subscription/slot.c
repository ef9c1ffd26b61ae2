/*-------------------------------------------------------------------------
 * slot.c
 *	  The slots to which streams are hashed, and sets of them.
 *
 * A stream belongs to a slot for ever, and slots to shares for a while.  Slots of
 * streams are stored, and dumped; so the hash is CRC-32C, which is the same on
 * every machine and in every version of the server.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_bitutils.h"
#include "port/pg_crc32c.h"
#include "utils/varbit.h"

#include "base/compat.h"
#include "subscription/slot.h"

static pg_crc32c add_text(pg_crc32c crc, const text *value, bool is_last);

/* The slot of a stream. */
int
SlotOf(const StreamKey *key)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	crc = add_text(crc, key->tenant_id, false);
	crc = add_text(crc, key->aggregate_type, false);
	crc = add_text(crc, key->aggregate_id, true);
	FIN_CRC32C(crc);
	return (int) (crc % SLOTS);
}

/* The text, and a zero that ends it. */
static pg_crc32c
add_text(pg_crc32c crc, const text *value, bool is_last)
{
	COMP_CRC32C(crc, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	if (!is_last)
		COMP_CRC32C(crc, "", 1);
	return crc;
}

void
SlotSetFromDatum(SlotSet *set, Datum value)
{
	VarBit	   *bits = DatumGetVarBitP(value);

	if (VARBITLEN(bits) != SLOTS)
		elog(ERROR, "a set of slots has %d of them", VARBITLEN(bits));
	memcpy(set->bits, VARBITS(bits), sizeof(set->bits));
}

/* As a value of type bit(256), palloc'd. */
Datum
SlotSetToDatum(const SlotSet *set)
{
	VarBit	   *bits = palloc0(VARBITTOTALLEN(SLOTS));

	SET_VARSIZE(bits, VARBITTOTALLEN(SLOTS));
	VARBITLEN(bits) = SLOTS;
	memcpy(VARBITS(bits), set->bits, sizeof(set->bits));
	return VarBitPGetDatum(bits);
}

int
SlotSetCount(const SlotSet *set)
{
	return (int) pg_popcount((const char *) set->bits, sizeof(set->bits));
}

/* Every other slot of the set becomes one of the other set, which is filled in. */
void
SlotSetHalve(SlotSet *set, SlotSet *other)
{
	bool		gives = false;
	int			slot;

	memset(other, 0, sizeof(SlotSet));
	for (slot = 0; slot < SLOTS; slot++)
	{
		uint8		bit = 0x80 >> slot % BITS_PER_BYTE;

		if (!SlotSetHas(set, slot))
			continue;
		if (gives)
		{
			other->bits[slot / BITS_PER_BYTE] |= bit;
			set->bits[slot / BITS_PER_BYTE] &= ~bit;
		}
		gives = !gives;
	}
}

void
SlotSetAdd(SlotSet *set, const SlotSet *other)
{
	int			i;

	for (i = 0; i < (int) sizeof(set->bits); i++)
		set->bits[i] |= other->bits[i];
}
