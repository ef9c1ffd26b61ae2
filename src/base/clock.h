/*-------------------------------------------------------------------------
 * clock.h
 *	  Times that are counted from now.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_CLOCK_H
#define CQRS_ES_CLOCK_H

#include "fmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

/* The time when an interval from now is over, by the server's clock; 22008. */
static inline TimestampTz
ClockAfter(const Interval *interval)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   IntervalPGetDatum(interval)));
}

#endif							/* CQRS_ES_CLOCK_H */
