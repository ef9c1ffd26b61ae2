/*-------------------------------------------------------------------------
 * consumer.h
 *	  Who asks for events.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_CONSUMER_H
#define CQRS_ES_CONSUMER_H

#include "subscription/subscription.h"

#define CONSUMER_NAME_MAX_BYTES 255

/* so often it is noted that a consumer is there */
#define CONSUMER_NOTED_EVERY "'1 s'"

/* one that waits for events asks again every 30 s */
#define CONSUMER_SEEN_LATELY "'60 s'"

extern void ConsumerSeen(const Subscription *subscription, const text *consumer);
extern void ConsumerNote(const Subscription *subscription, const text *consumer);

#endif							/* CQRS_ES_CONSUMER_H */
