/*-------------------------------------------------------------------------
 * matching.h
 *	  Reading the events that concern a decision, exact for its condition.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_MATCHING_H
#define CQRS_ES_MATCHING_H

#include "log/events.h"
#include "tag/tag_query.h"

/* A snapshot to look for tagged events with; the log and its tags are locked for it. */
typedef struct MatchingSnapshot
{
	LogSnapshot log;
	Oid			tags;
} MatchingSnapshot;

/* What matches up to a position is in the snapshot, or never will be anywhere. */
typedef struct MatchingPoint
{
	int64		position;
	MatchingSnapshot snapshot;
} MatchingPoint;

extern MatchingSnapshot MatchingSnapshotTake(bool newest);
extern void MatchingSnapshotRelease(MatchingSnapshot snapshot);
extern void MatchingCheckPosition(int64 after_position);
extern MatchingPoint MatchingAwait(const TagQuery *query, const text *tenant_id);
extern void MatchingRequireUnmoved(const TagQuery *query, text *tenant_id,
								   int64 after_position, int64 up_to_position,
								   ScanDirection direction, int64 max_count,
								   const MatchingSnapshot *snapshot);
pg_noreturn extern void MatchingReportMoved(void);

#endif							/* CQRS_ES_MATCHING_H */
