/*-------------------------------------------------------------------------
 * log_range.h
 *	  A log that is partitioned by ranges of positions.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_LOG_RANGE_H
#define CQRS_ES_LOG_RANGE_H

#include "log/event_scan.h"

extern void LogRangeInit(void);
extern bool LogRangeIs(Relation rel);
extern StreamTip LogRangeTip(const StreamKey *key);
extern void LogRangeRequire(Relation rel, const StreamKey *key, int64 position, const StreamTip *tip);
extern void LogRangeRequireOurs(Relation rel, int64 position);
extern Oid	LogRangePositionIndex(int64 bound, int i);
extern void LogRangeCheck(Relation rel, const Event *event);

#endif							/* CQRS_ES_LOG_RANGE_H */
