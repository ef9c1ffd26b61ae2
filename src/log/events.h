/*-------------------------------------------------------------------------
 * events.h
 *	  The log table: its place in the catalog; and one event.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EVENTS_H
#define CQRS_ES_EVENTS_H

#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/stream_key.h"
#include "log/event_columns.h"

/* the same for SQL */
#define EVENT_COLUMN_LIST \
	"global_position, sequence, created_at, event_id, tenant_id, aggregate_type, " \
	"aggregate_id, event_type, event_version, payload, metadata"

/* limits of the texts, in bytes; the keys share one index entry */
#define AGGREGATE_TYPE_MAX_BYTES	255
#define AGGREGATE_ID_MAX_BYTES		1024
#define EVENT_TYPE_MAX_BYTES		255
#define EVENT_VERSION_MAX_BYTES		255
#define EVENT_TAG_MAX_BYTES			255

/* An event.  No column is ever null. */
typedef struct Event
{
	Datum		values[EVENT_NCOLUMNS];
	HeapTuple	row;			/* a row with just these values in this order, or NULL */
	int64		append_version; /* last sequence of the append that wrote it; 0: unknown */
} Event;

#define EventGlobalPosition(e)	DatumGetInt64((e)->values[EVENT_GLOBAL_POSITION])
#define EventSequence(e)		DatumGetInt64((e)->values[EVENT_SEQUENCE])
#define EventText(e, column)	DatumGetTextPP((e)->values[column])

/* What the catalog said of cqrs_es.events when it was asked. */
typedef struct EventsTable
{
	Oid			relid;
	Oid			stream_index;	/* guards the streams; InvalidOid: none does */
	Oid			position_index;
	Oid			id_index;		/* finds an event of a stream by its id; InvalidOid: none */
	int			node;			/* where it is distributed: this node's number; else -1 */
	bool		admitted;		/* then: has the node all declarations? */
	bool		local;			/* all rows in one heap, positions in one index? */
	bool		by_position;	/* partitioned by ranges of positions? */
	bool		deferrable;		/* a unique or exclusion constraint checked later? */
	bool		foreign_policies;	/* row security beyond our own policy? */
	bool		plain;			/* reads: an ordinary local heap? */
	bool		straight;		/* writes: and exactly as we installed it? */
	EventColumns columns;
} EventsTable;

/* A snapshot, and the log that is locked for it. */
typedef struct LogSnapshot
{
	Snapshot	snapshot;
	Oid			relid;
} LogSnapshot;

extern void EventsInit(void);
extern void EventsIgnoreTrigger(const char *function);
extern EventsTable EventsTableGet(void);
extern Oid	EventsPositionIndex(Relation rel, AttrNumber position);
extern uint64 EventsTableChanges(void);
extern int	EventsNode(void);
extern bool EventsNodeHasLeft(int node);
extern void EventsRefuseDistributed(const char *what);
extern void EventsRequireAdmitted(void);
extern void EventsRequireRights(AclMode mode);
extern void EventsCheckRights(AclMode mode);
extern bool EventsMayRead(void);
extern Oid	EventsLock(LOCKMODE mode);
extern void EventsLockOutWriters(void);
extern LogSnapshot EventsSnapshotTake(bool newest);
extern void EventsSnapshotRelease(LogSnapshot snapshot);
extern bool EventsWriteStraight(const EventsTable *table);
extern bool EventsRowSecurity(void);
extern bool EventsReadStraight(const EventsTable *table);
extern bool EventsForceGenericPath(void);
extern Relation EventsOpenStraight(EventsTable *table);
extern Oid	EventsTypeOid(void);

extern bool EventFromTuple(Relation rel, HeapTuple tuple, Event *event);
extern bool EventIsSame(const Event *a, const Event *b);
extern Event *EventCopy(const Event *event);
extern void EventKey(const Event *event, StreamKey *key);
extern Datum EventToComposite(const Event *event);

#endif							/* CQRS_ES_EVENTS_H */
