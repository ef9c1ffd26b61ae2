/*-------------------------------------------------------------------------
 * nacked_event.h
 *	  Events that failed in a batch in hand; they count when it is acknowledged.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_NACKED_EVENT_H
#define CQRS_ES_NACKED_EVENT_H

#include "base/stream_key.h"
#include "subscription/share.h"

typedef struct NackedEvent
{
	StreamKey	key;
	int64		sequence;
	int64		global_position;
	bool		is_current;		/* in the batch in hand; else in one before */
	int			attempts;		/* so often it has failed, with this one */
	Interval   *retry_after;	/* NULL: as the subscription says */
	bool		give_up;
	text	   *error;			/* NULL: not said */
} NackedEvent;

extern void NackedEventStore(Share *share, const NackedEvent *nacked);
extern NackedEvent *NackedEvents(const Share *share, const StreamKey *key, int *n);
extern void NackedEventsForget(Share *share);

#endif							/* CQRS_ES_NACKED_EVENT_H */
