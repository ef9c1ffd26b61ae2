/*-------------------------------------------------------------------------
 * projection_status.h
 *	  What others see of a projection.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PROJECTION_STATUS_H
#define CQRS_ES_PROJECTION_STATUS_H

#include "projection/projection.h"

extern void ProjectionStatusProgress(const Projection *projection, int64 last, bool rebuild,
									 int64 events, int64 position);
extern void ProjectionStatusProgressEnd(void);

#endif							/* CQRS_ES_PROJECTION_STATUS_H */
