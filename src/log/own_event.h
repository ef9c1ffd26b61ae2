/*-------------------------------------------------------------------------
 * own_event.h
 *	  Events that the extension itself appends.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_OWN_EVENT_H
#define CQRS_ES_OWN_EVENT_H

#include "log/append.h"

extern bool OwnEventAppend(const StreamKey *key, int64 expected_version, const char *event_type,
						   const char *payload, AppendResult *result);
extern char *OwnEventReason(const text *reason);

#endif							/* CQRS_ES_OWN_EVENT_H */
