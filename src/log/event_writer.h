/*-------------------------------------------------------------------------
 * event_writer.h
 *	  Puts the events of one append into the log.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EVENT_WRITER_H
#define CQRS_ES_EVENT_WRITER_H

#include "nodes/execnodes.h"

#include "base/compat.h"
#include "base/stream_key.h"
#include "log/event_scan.h"

/* The log, open to write; on the stack of who appends. */
typedef struct EventWriter
{
	Relation	rel;			/* in RowExclusiveLock, kept to the end of the
								 * transaction */
	EventsTable table;			/* what the catalog says of it under that lock */
	bool		reads_straight; /* the stream's end is looked for below the executor ... */
	bool		straight;		/* ... and the events are written there, too */
	uint64		drawn_in;		/* the epoch in which positions were drawn */

	/* straight only: the open indexes, and the executor's tools */
	EState	   *estate;
	ResultRelInfo *result_rel;
	TupleTableSlot *slot;
} EventWriter;

/* What became of the events. */
typedef enum EventWriterOutcome
{
	EVENTS_INSERTED,
	EVENTS_LOST,				/* nothing was written: their sequences are somebody
								 * else's */
	EVENTS_CONFLICT,			/* likewise, and the transaction must end with an error */
	EVENTS_SUPPRESSED			/* something on the table has swallowed one of them */
} EventWriterOutcome;

extern void EventWriterOpen(EventWriter *writer);
extern StreamTip EventWriterTip(const EventWriter *writer, const StreamKey *key,
								const StreamTip *seen);
extern void EventWriterDraw(EventWriter *writer, Event *event);
extern EventWriterOutcome EventWriterInsert(EventWriter *writer, Event *events,
											int nevents, bool plainly);
extern void EventWriterClose(EventWriter *writer);

#endif							/* CQRS_ES_EVENT_WRITER_H */
