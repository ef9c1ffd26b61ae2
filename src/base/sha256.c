/*-------------------------------------------------------------------------
 * sha256.c
 *	  The SHA-256 of some bytes.
 *
 * By which we tell documents and declarations apart, in this database and after a restore.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/cryptohash.h"

#include "base/compat.h"
#include "base/sha256.h"

pg_noreturn static void report_failure(void);

/* `digest` has room for PG_SHA256_DIGEST_LENGTH bytes. */
void
Sha256(const char *data, size_t length, uint8 *digest)
{
	Sha256Stream *stream = Sha256Open();

	Sha256Start(stream);
	Sha256Add(stream, data, length);
	Sha256Finish(stream, (Sha256Digest *) digest);
	Sha256Close(stream);
}

/* The same as a value, palloc'd. */
bytea *
Sha256Bytea(const char *data, size_t length)
{
	bytea	   *result = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);

	SET_VARSIZE(result, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	Sha256(data, length, (uint8 *) VARDATA(result));
	return result;
}

/*
 * A stream, to be started before each digest.  It belongs to the current resource owner: what an
 * error leaves open goes with the transaction.
 */
Sha256Stream *
Sha256Open(void)
{
	Sha256Stream *stream = pg_cryptohash_create(PG_SHA256);

	if (stream == NULL)
		report_failure();
	return stream;
}

void
Sha256Start(Sha256Stream *stream)
{
	if (pg_cryptohash_init(stream) < 0)
		report_failure();
}

void
Sha256Add(Sha256Stream *stream, const void *data, size_t length)
{
	if (pg_cryptohash_update(stream, data, length) < 0)
		report_failure();
}

/* A number, on every machine as the same bytes. */
void
Sha256AddNumber(Sha256Stream *stream, int64 value)
{
	uint8		bytes[sizeof(value)];
	size_t		i;

	for (i = 0; i < sizeof(value); i++)
		bytes[i] = (uint8) ((uint64) value >> (8 * i));
	Sha256Add(stream, bytes, sizeof(bytes));
}

/* Some bytes, with their number before them. */
void
Sha256AddSized(Sha256Stream *stream, const void *data, size_t length)
{
	Sha256AddNumber(stream, length);
	Sha256Add(stream, data, length);
}

/* The digest of what was added since Sha256Start. */
void
Sha256Finish(Sha256Stream *stream, Sha256Digest *digest)
{
	if (pg_cryptohash_final(stream, digest->bytes, sizeof(digest->bytes)) < 0)
		report_failure();
}

void
Sha256Close(Sha256Stream *stream)
{
	pg_cryptohash_free(stream);
}

/* Where memory is short. */
static void
report_failure(void)
{
	elog(ERROR, "could not compute a digest");
}
