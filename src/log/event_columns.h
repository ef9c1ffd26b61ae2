/*-------------------------------------------------------------------------
 * event_columns.h
 *	  The columns of an event.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EVENT_COLUMNS_H
#define CQRS_ES_EVENT_COLUMNS_H

#include "utils/rel.h"

/* The columns, in the order of the composite type cqrs_es.event. */
typedef enum EventColumn
{
	EVENT_GLOBAL_POSITION,
	EVENT_SEQUENCE,
	EVENT_CREATED_AT,
	EVENT_EVENT_ID,
	EVENT_TENANT_ID,
	EVENT_AGGREGATE_TYPE,
	EVENT_AGGREGATE_ID,
	EVENT_EVENT_TYPE,
	EVENT_EVENT_VERSION,
	EVENT_PAYLOAD,
	EVENT_METADATA
} EventColumn;

#define EVENT_NCOLUMNS	(EVENT_METADATA + 1)

/* Where our columns are in a table that has them: events, a partition, a shard. */
typedef struct EventColumns
{
	AttrNumber	attno[EVENT_NCOLUMNS];
} EventColumns;

extern void EventColumnsOf(Relation rel, EventColumns *columns);
extern int	EventColumnByName(const char *name);
extern Oid	EventColumnType(EventColumn column);

#endif							/* CQRS_ES_EVENT_COLUMNS_H */
