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

/* The state after the event with sequence last_sequence. */
typedef struct StoredState
{
	int64		last_sequence;
	TimestampTz last_event_at;	/* the greatest created_at of its events */
	Jsonb	   *state;
} StoredState;

extern void SnapshotStoreInit(void);
extern bool SnapshotStoreLoad(const StreamKey *key, const Aggregate *aggregate,
							  int64 up_to_sequence, TimestampTz up_to_time,
							  Snapshot snapshot, StoredState *stored);
extern void SnapshotStoreBegin(void);
extern bool SnapshotStoreIsCleaning(void);
extern void SnapshotStoreSave(const StreamKey *key, const Aggregate *aggregate,
							  const StoredState *stored);

#endif							/* CQRS_ES_SNAPSHOT_STORE_H */
