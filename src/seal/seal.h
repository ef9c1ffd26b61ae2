/*-------------------------------------------------------------------------
 * seal.h
 *	  A seal: its row, and its digest.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SEAL_H
#define CQRS_ES_SEAL_H

#include "utils/snapshot.h"
#include "utils/timestamp.h"

#include "base/internal_query.h"
#include "base/sha256.h"

/* A row of cqrs_es.seals. */
typedef struct Seal
{
	int64		number;			/* its node in the upper bits, as of a position */
	int64		after_position;
	int64		up_to_position;
	int64		events;
	int64		changes;
	Sha256Digest changes_digest;
	TimestampTz sealed_at;
	text	   *sealed_by;
	Sha256Digest previous;
	Sha256Digest digest;
} Seal;

extern bool SealFindNewest(int64 node, Snapshot snapshot, Seal *seal);
extern bool SealFind(int64 from, int64 to, Snapshot snapshot, Seal *seal);
extern void SealInsert(const Seal *seal);
extern void SealDigest(const Seal *seal, const Sha256Digest *blocks, Sha256Digest *digest);
extern Datum SealDigestDatum(const Sha256Digest *digest);
extern bool SealDigestColumn(const QueryRow *row, const char *column, Sha256Digest *digest);
extern bool SealDigestsEqual(const Sha256Digest *a, const Sha256Digest *b);
extern int64 SealFirstNumber(int64 node);
extern int64 SealLastNumber(int64 node);

#endif							/* CQRS_ES_SEAL_H */
