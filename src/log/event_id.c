/*-------------------------------------------------------------------------
 * event_id.c
 *	  Ids of events: new ones, and those made of a text that somebody else uses as
 *	  an id.
 *
 * New ones are version-7 UUIDs (RFC 9562, section 5.7):
 * 48 bits of Unix milliseconds, 12 bits of the fraction within that
 * millisecond (method 3 of section 6.2), 62 random bits.  PostgreSQL has its
 * own from 18 on; 15 to 17 need this one.
 *
 * Those of a text are version-5 UUIDs (section 5.5): the SHA-1 of a namespace and the
 * text in UTF-8, so that programs in any language come to the same, and a database in
 * another encoding, too.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "common/cryptohash.h"
#include "common/sha1.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

#include "log/event_id.h"

/* random bytes are asked for in portions: one system call for 32 ids */
#define RANDOM_PER_ID	8
static unsigned char random_pool[RANDOM_PER_ID * 32];
static size_t random_used = sizeof(random_pool);

PG_FUNCTION_INFO_V1(cqrs_es_new_event_id);
PG_FUNCTION_INFO_V1(cqrs_es_id_from_text);

/* SQL: new_event_id(), the default of events.event_id */
Datum
cqrs_es_new_event_id(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

	EventIdGenerate(id);
	PG_RETURN_UUID_P(id);
}

/*
 * SQL: id_from_text(value, namespace).  A null is an error, and not no id: whoever
 * forgot the key would go without idempotency and not notice.
 */
Datum
cqrs_es_id_from_text(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));
	uint8		digest[SHA1_DIGEST_LENGTH];
	pg_cryptohash_ctx *hash;
	char	   *value;
	char	   *utf8;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", PG_ARGISNULL(0) ? "value" : "namespace")));
	value = text_to_cstring(PG_GETARG_TEXT_PP(0));
	utf8 = pg_server_to_any(value, strlen(value), PG_UTF8);
	hash = pg_cryptohash_create(PG_SHA1);
	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, PG_GETARG_UUID_P(1)->data, UUID_LEN) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) utf8, strlen(utf8)) < 0 ||
		pg_cryptohash_final(hash, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute an id");
	pg_cryptohash_free(hash);

	memcpy(id->data, digest, UUID_LEN);
	id->data[6] = 0x50 | (id->data[6] & 0x0f);
	id->data[8] = 0x80 | (id->data[8] & 0x3f);
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

/* An id as text; palloc'd. */
char *
EventIdText(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}
