/*-------------------------------------------------------------------------
 * event_scan.h
 *	  Reading the rows of the log.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EVENT_SCAN_H
#define CQRS_ES_EVENT_SCAN_H

#include "access/sdir.h"
#include "access/skey.h"
#include "utils/snapshot.h"

#include "base/stream_key.h"
#include "log/events.h"
#include "log/last_row.h"

/* What may come behind the last event of a stream. */
typedef enum StreamEnd
{
	STREAM_OPEN,
	STREAM_CLOSED,
	STREAM_DELETED
} StreamEnd;

/* The end of a stream. */
typedef struct StreamTip
{
	int64		version;		/* 0: no such stream */
	int64		global_position;	/* of the last event, 0 when there is none */
	TimestampTz created_at;		/* likewise; far enough back when there is none */
	pg_uuid_t	event_id;		/* likewise */
	StreamEnd	end;
	bool		after_snapshot; /* committed after this transaction's snapshot */
	bool		waited;			/* for who held the end */
	LastRowPlace place;			/* where that event was met */
} StreamTip;

typedef struct EventScan EventScan;

extern StreamTip EventScanTip(Relation rel, Relation index,
							  const EventColumns *columns, const StreamKey *key,
							  const StreamTip *seen, TupleTableSlot *slot);
extern void EventScanAwait(Relation rel, ItemPointer tid, const SnapshotData *dirty);
pg_noreturn extern void EventScanReportMoved(const StreamKey *key);
extern void EventScanRequireRoom(const StreamKey *key, const StreamTip *tip, int nevents);
extern void EventScanRequireOpen(const StreamKey *key, const StreamTip *tip);
pg_noreturn extern void EventScanReportDeleted(const StreamKey *key, int64 version);
extern StreamTip EventScanTipByQuery(const StreamKey *key);
extern void EventScanStreamKeys(ScanKey keys, Relation index, const EventColumns *columns,
								const StreamKey *key);

extern EventScan *EventScanWholeStream(const StreamKey *key, int64 from_sequence,
									   ScanDirection direction, Snapshot snapshot);
extern EventScan *EventScanStream(const StreamKey *key, int64 from_sequence,
								  ScanDirection direction, Snapshot snapshot);
extern EventScan *EventScanId(const StreamKey *key, const pg_uuid_t *id, Snapshot snapshot);
extern StreamTip EventScanLast(const StreamKey *key, Snapshot snapshot);
extern StreamTip EventScanTipOf(const Event *event);
extern bool EventScanSameTip(const StreamTip *a, const StreamTip *b);
extern char *EventScanAggregateId(const text *aggregate_type);
extern int64 EventScanVersionWithout(const StreamKey *key, CommandId since);
extern EventScan *EventScanLog(int64 position, ScanDirection direction,
							   Snapshot snapshot);
extern EventScan *EventScanAt(int64 position, Snapshot snapshot);
extern EventScan *EventScanWholeAt(int64 position, Snapshot snapshot);
extern EventScan *EventScanPositions(Snapshot snapshot);
extern void EventScanSeek(EventScan *scan, int64 position);
extern EventScan *EventScanIndex(Relation heap, Oid index, text *const *values, int nvalues,
								 int64 after_position, int64 up_to_position,
								 Snapshot snapshot);
extern bool EventScanNext(EventScan *scan, Event *event);
extern void EventScanEnd(EventScan *scan);

#endif							/* CQRS_ES_EVENT_SCAN_H */
