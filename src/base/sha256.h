/*-------------------------------------------------------------------------
 * sha256.h
 *	  The SHA-256 of some bytes.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SHA256_H
#define CQRS_ES_SHA256_H

#include "common/sha2.h"

/* A digest, as a value. */
typedef struct Sha256Digest
{
	uint8		bytes[PG_SHA256_DIGEST_LENGTH];
} Sha256Digest;

/* For digests of bytes that come one after the other; one stream makes any number of them. */
typedef struct pg_cryptohash_ctx Sha256Stream;

extern void Sha256(const char *data, size_t length, uint8 *digest);
extern bytea *Sha256Bytea(const char *data, size_t length);
extern Sha256Stream *Sha256Open(void);
extern void Sha256Start(Sha256Stream *stream);
extern void Sha256Add(Sha256Stream *stream, const void *data, size_t length);
extern void Sha256AddNumber(Sha256Stream *stream, int64 value);
extern void Sha256AddSized(Sha256Stream *stream, const void *data, size_t length);
extern void Sha256Finish(Sha256Stream *stream, Sha256Digest *digest);
extern void Sha256Close(Sha256Stream *stream);

#endif							/* CQRS_ES_SHA256_H */
