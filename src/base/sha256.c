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

/* `digest` has room for PG_SHA256_DIGEST_LENGTH bytes. */
void
Sha256(const char *data, size_t length, uint8 *digest)
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);

	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) data, length) < 0 ||
		pg_cryptohash_final(hash, digest, PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not compute a digest");
	pg_cryptohash_free(hash);
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
