/*-------------------------------------------------------------------------
 * delivery_wait.h
 *	  Waiting until there is something for a consumer.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DELIVERY_WAIT_H
#define CQRS_ES_DELIVERY_WAIT_H

#include "subscription/subscription.h"

typedef struct DeliveryWait DeliveryWait;

extern void DeliveryWaitInit(void);
extern DeliveryWait *DeliveryWaitMake(const text *subscription, bool resume);
extern bool DeliveryWaitLook(DeliveryWait *wait, const Subscription *subscription, long *longest_ms);

#endif							/* CQRS_ES_DELIVERY_WAIT_H */
