/*-------------------------------------------------------------------------
 * seal_block.h
 *	  The events of a seal, some hundred at a time.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SEAL_BLOCK_H
#define CQRS_ES_SEAL_BLOCK_H

#include "utils/snapshot.h"

#include "base/sha256.h"

/* so many events are in a block, unless more share its last position */
#define SEAL_BLOCK_EVENTS	256

/* A row of cqrs_es.seal_blocks. */
typedef struct SealBlock
{
	int64		up_to_position;
	int64		events;
	Sha256Digest digest;
} SealBlock;

/* A block whose digest is being made. */
typedef struct SealBlockSum SealBlockSum;

extern SealBlockSum *SealBlockSumBegin(void);
extern void SealBlockStart(SealBlockSum *sum);
extern void SealBlockAdd(SealBlockSum *sum, int64 position, const Sha256Digest *event);
extern void SealBlockFinish(SealBlockSum *sum, SealBlock *block);
extern void SealBlockSumEnd(SealBlockSum *sum);
extern void SealBlockDescribe(Sha256Stream *blocks, const SealBlock *block);
extern void SealBlockInsert(int64 seal, const SealBlock *block);
extern SealBlock *SealBlocksRead(int64 seal, int64 after_position, Snapshot snapshot, int *n);

#endif							/* CQRS_ES_SEAL_BLOCK_H */
