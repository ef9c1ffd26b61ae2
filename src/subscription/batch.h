/*-------------------------------------------------------------------------
 * batch.h
 *	  A batch in hand, until it is acknowledged, released or lost.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_BATCH_H
#define CQRS_ES_BATCH_H

#include "log/events.h"
#include "subscription/share.h"

extern int64 BatchFinish(Subscription *subscription, Share *share);
extern const char *BatchNote(const Subscription *subscription, Share *share,
							 const Event *event, text *error, Interval *retry_after, bool give_up);
extern void BatchRelease(const Subscription *subscription, Share *share);
extern void BatchLose(const Subscription *subscription, Share *share);
extern text *BatchGivenUp(const Subscription *subscription, int deliveries);

#endif							/* CQRS_ES_BATCH_H */
