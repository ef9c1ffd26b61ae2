/*-------------------------------------------------------------------------
 * delivery.h
 *	  Handing events out.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DELIVERY_H
#define CQRS_ES_DELIVERY_H

#include "subscription/new_batch.h"

extern bool DeliveryReceive(Subscription *subscription, text *consumer, int max_count,
							BatchSink *sink, pg_uuid_t *token, BatchKind *kind);

#endif							/* CQRS_ES_DELIVERY_H */
