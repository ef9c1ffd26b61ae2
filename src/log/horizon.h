/*-------------------------------------------------------------------------
 * horizon.h
 *	  Up to which global position is the log settled?
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_HORIZON_H
#define CQRS_ES_HORIZON_H

#include "base/wakeup.h"
#include "log/event_filter.h"
#include "log/event_scan.h"

/* A walk through this node's log that never passes an unsettled position. */
typedef struct HorizonScan
{
	int64		position;		/* everything up to here is settled and seen */
	bool		handed_out;		/* set by the caller when it took an event */

	/* private */
	bool		is_closed;		/* hands out nothing */
	int64		before_node;	/* where the node's positions begin */
	bool		is_final;		/* nothing will ever come to the log of that node */
	int64		number;			/* of the last event passed; 0 before the first */
	int64		settled_number; /* known to be settled before the snapshot was taken */
	TimestampTz deadline;		/* wait for a gap until then */
	Waiter		waiter;			/* for that */
	LogSnapshot snapshot;
	EventScan  *scan;
	FilterScan *filtered;		/* in its place at first, or NULL */
	const EventFilter *filter;	/* of that; the caller's */
	int64		filtered_to;	/* number of the last event that this passes */
} HorizonScan;

extern void HorizonInit(void);
extern TimestampTz HorizonDeadline(void);
extern int64 HorizonSettled(TimestampTz deadline);
extern int64 HorizonLastDrawn(void);
extern void HorizonAwaitWriters(void);
extern long HorizonLongestSleep(int64 number);
extern bool HorizonIsSettled(int64 position);
extern void HorizonCheckPosition(int64 position);
extern void HorizonCheckCursor(int64 after_position);
extern void HorizonScanBegin(HorizonScan *walk, int64 after_position,
							 TimestampTz deadline);
extern void HorizonScanBeginFiltered(HorizonScan *walk, int64 after_position,
									 TimestampTz deadline, const EventFilter *filter);
extern bool HorizonScanNext(HorizonScan *walk, Event *event);
extern bool HorizonScanNextTied(HorizonScan *walk, Event *event);
extern void HorizonScanEnd(HorizonScan *walk);

#endif							/* CQRS_ES_HORIZON_H */
