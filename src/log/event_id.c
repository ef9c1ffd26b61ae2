/*-------------------------------------------------------------------------
 * event_id.c
 *	  Version-7 UUIDs for events (RFC 9562, section 5.7).
 *
 * 48 bits of Unix milliseconds, 12 bits of the fraction within that
 * millisecond (method 3 of section 6.2), 62 random bits.  PostgreSQL has its
 * own from 18 on; 15 to 17 need this one.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "fmgr.h"
#include "utils/uuid.h"

#include "log/event_id.h"

/* random bytes are asked for in portions: one system call for 32 ids */
#define RANDOM_PER_ID	8
static unsigned char random_pool[RANDOM_PER_ID * 32];
static size_t random_used = sizeof(random_pool);

PG_FUNCTION_INFO_V1(cqrs_es_new_event_id);

/* SQL: new_event_id(), the default of events.event_id */
Datum
cqrs_es_new_event_id(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	EventIdGenerate(id);
	PG_RETURN_UUID_P(id);
}

/* Fill *id with a new version-7 UUID. */
void
EventIdGenerate(pg_uuid_t *id)
{
	struct timespec now;
	uint64		ms;
	uint32		fraction;
	int			i;

	if (random_used + RANDOM_PER_ID > sizeof(random_pool))
	{
		if (!pg_strong_random(random_pool, sizeof(random_pool)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random bytes for an event id")));
		random_used = 0;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	ms = (uint64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
	/* 4096 steps per millisecond */
	fraction = (uint32) (((uint64) (now.tv_nsec % 1000000) * 4096) / 1000000);

	for (i = 0; i < 6; i++)
		id->data[i] = (unsigned char) (ms >> (40 - 8 * i));
	id->data[6] = 0x70 | (fraction >> 8);
	id->data[7] = fraction & 0xff;
	memcpy(id->data + 8, random_pool + random_used, RANDOM_PER_ID);
	id->data[8] = 0x80 | (id->data[8] & 0x3f);
	random_used += RANDOM_PER_ID;
}
