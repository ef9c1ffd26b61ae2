/*-------------------------------------------------------------------------
 * event_id.h
 *	  Version-7 UUIDs for events.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EVENT_ID_H
#define CQRS_ES_EVENT_ID_H

#include "utils/uuid.h"

extern void EventIdGenerate(pg_uuid_t *id);
extern char *EventIdText(const pg_uuid_t *id);

#endif							/* CQRS_ES_EVENT_ID_H */
