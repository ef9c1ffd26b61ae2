/*-------------------------------------------------------------------------
 * snapshot_store.h
 *	  Stored states of aggregates: load the newest usable one, save one.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SNAPSHOT_STORE_H
#define CQRS_ES_SNAPSHOT_STORE_H

#include "base/extension.h"
#include "base/stream_key.h"
#include "aggregate/aggregate.h"

extern void SnapshotStoreInit(void);
extern bool SnapshotStoreLoad(const StreamKey *key, const Aggregate *aggregate,
							  int64 up_to_sequence, Snapshot snapshot,
							  int64 *last_sequence, Jsonb **state);
extern void SnapshotStoreSave(const StreamKey *key, const Aggregate *aggregate,
							  int64 last_sequence, Jsonb *state);

#endif							/* CQRS_ES_SNAPSHOT_STORE_H */
