/*-------------------------------------------------------------------------
 * event_digest.h
 *	  The digest of an event, and that of its content.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EVENT_DIGEST_H
#define CQRS_ES_EVENT_DIGEST_H

#include "base/sha256.h"
#include "log/events.h"

typedef struct EventDigests
{
	Sha256Digest event;			/* of all of it, by way of the other one */
	Sha256Digest content;		/* of payload and metadata */
} EventDigests;

/* Whoever makes digests of many events. */
typedef struct EventDigester EventDigester;

extern EventDigester *EventDigesterBegin(void);
extern void EventDigestMake(EventDigester *digester, const Event *event, EventDigests *digests);
extern void EventDigestCombine(EventDigester *digester, const Event *event, EventDigests *digests);
extern void EventDigesterEnd(EventDigester *digester);

#endif							/* CQRS_ES_EVENT_DIGEST_H */
