/*-------------------------------------------------------------------------
 * event_change.h
 *	  Changes of sealed events that are made by rule.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EVENT_CHANGE_H
#define CQRS_ES_EVENT_CHANGE_H

#include "utils/snapshot.h"

#include "seal/event_digest.h"

/* One change, as far as it is of interest to who compares. */
typedef struct EventChange
{
	int64		global_position;
	pg_uuid_t	event_id;
	EventDigests before;
	bool		removed;		/* the event is gone; nothing is after it */
	Sha256Digest content_after;
} EventChange;

extern void EventChangeInit(void);
extern void EventChangeLock(void);
extern bool EventChangeNote(const Event *before, const Event *after, const text *reason);
extern bool EventChangesExist(int64 seal, int64 after_position, int64 up_to_position,
							  Snapshot snapshot);
extern EventChange *EventChangesSince(int64 seal, int64 after_position, int64 up_to_position,
									  Snapshot snapshot, int *n);
extern int64 EventChangesDigest(int64 seal, Snapshot snapshot, Sha256Digest *digest);

#endif							/* CQRS_ES_EVENT_CHANGE_H */
