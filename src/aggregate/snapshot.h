/*-------------------------------------------------------------------------
 * snapshot.h
 *	  When a snapshot is taken.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SNAPSHOT_H
#define CQRS_ES_SNAPSHOT_H

#include "base/stream_key.h"
#include "aggregate/aggregate.h"
#include "aggregate/fold.h"
#include "aggregate/state_cache.h"

extern void SnapshotInit(void);
extern void SnapshotOfLongFold(const StreamKey *key, Aggregate *aggregate,
							   const FoldedState *folded, const StateOrigin *origin,
							   bool as_sent, int64 nread);

#endif							/* CQRS_ES_SNAPSHOT_H */
