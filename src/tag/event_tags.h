/*-------------------------------------------------------------------------
 * event_tags.h
 *	  The tags of events: written with them, and found by them.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EVENT_TAGS_H
#define CQRS_ES_EVENT_TAGS_H

#include "access/sdir.h"
#include "utils/snapshot.h"

#include "base/compat.h"
#include "log/append_request.h"
#include "tag/tag_list.h"
#include "tag/tag_slot.h"

/* A place among the entries of one tag of one tenant; private. */
typedef struct EventTagScan EventTagScan;

/* The table, open to write; private. */
typedef struct EventTagWriter EventTagWriter;

extern void EventTagsInit(void);

/*
 * Add the slots that the events of a request have: of their tags, explicit ones and those
 * of define_tags, and of their types where define_tags knows them.  Behind
 * RowExclusiveLock on the log.  AppendEvents does this and takes them by itself; whoever
 * has to take others together with them does it before.  Raises QE502, 22001, 54000.
 */
extern void EventTagsAddSlots(const AppendRequest *append, TagSlotSet *set);

/*
 * Write tags of events that are in the log.  Takes RowExclusiveLock on event_tags
 * until the transaction ends.  The event and its tags must last until the writer is closed;
 * then the rows are visible to the transaction.
 */
extern EventTagWriter *EventTagsWriterOpen(void);
extern void EventTagsWriterAdd(EventTagWriter *writer, const Event *event, const TagList *tags);
extern void EventTagsWriterClose(EventTagWriter *writer);

/*
 * Take a tag away from an event, which is redacted or removed.  Takes RowExclusiveLock on event_tags
 * until the transaction ends; then the change is visible to the transaction.
 */
extern void EventTagsRemove(const Event *event, const text *tag);

/*
 * Begin to look for the events that have a tag, as a registered snapshot shows them, below
 * the executor: no rights are asked for.  Takes AccessShareLock on event_tags until the
 * end of the scan.  Palloc'd.
 */
extern EventTagScan *EventTagsScanBegin(const text *tenant_id, const text *tag,
										Snapshot snapshot);

/*
 * The first event that has the tag at or above `position` (backward: at or below it).  False
 * when there is none.  *event_type is good until the next call.  Quick when positions
 * go on in one direction, right when they do not.
 */
extern bool EventTagsScanSeek(EventTagScan *scan, int64 position, ScanDirection direction,
							  int64 *found, text **event_type);

/*
 * The next event with the tag at the position that was found, if there is one: restored events
 * may share one.
 */
extern bool EventTagsScanNextTied(EventTagScan *scan, text **event_type);

/* The type of the entry that was found last; good until the next call. */
extern text *EventTagsScanType(EventTagScan *scan);

extern void EventTagsScanEnd(EventTagScan *scan);

/* Has the event of a type at a position the tag?  Below the executor, as above. */
extern bool EventTagsHas(const text *tenant_id, const text *tag, int64 position,
						 const text *event_type, Snapshot snapshot);

/*
 * The first tenant behind another one, NULL for the first of all, that has events with
 * the tag, palloc'd; NULL when there is none.  Below the executor, as above.
 */
extern text *EventTagsNextTenant(const text *tag, const text *after, Snapshot snapshot);

/* AccessShareLock on the table, from before a snapshot is taken until it is needed no more. */
extern void EventTagsLock(void);
extern void EventTagsUnlock(void);

/*
 * The tags of an event of a tenant as a value of type text[], in their order as texts;
 * '{}' when it has none.  Of events at one position, those of its type.  Below the executor, as
 * above; palloc'd.
 */
extern Datum EventTagsOf(const text *tenant_id, int64 position, const text *event_type,
						 Snapshot snapshot);

#endif							/* CQRS_ES_EVENT_TAGS_H */
