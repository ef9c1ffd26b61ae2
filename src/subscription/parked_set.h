/*-------------------------------------------------------------------------
 * parked_set.h
 *	  The parked streams of a share, to be asked about many streams.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PARKED_SET_H
#define CQRS_ES_PARKED_SET_H

#include "subscription/share.h"

typedef struct ParkedSet ParkedSet;

extern ParkedSet *ParkedSetMake(const Subscription *subscription);
extern bool ParkedSetHas(ParkedSet *set, const StreamKey *key, int64 sequence);

#endif							/* CQRS_ES_PARKED_SET_H */
