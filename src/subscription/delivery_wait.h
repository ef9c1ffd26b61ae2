/*-------------------------------------------------------------------------
 * delivery_wait.h
 *	  Waiting until there is something for a consumer.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DELIVERY_WAIT_H
#define CQRS_ES_DELIVERY_WAIT_H

extern void DeliveryWaitInit(void);

#endif							/* CQRS_ES_DELIVERY_WAIT_H */
