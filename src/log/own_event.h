/*-------------------------------------------------------------------------
 * own_event.h
 *	  Events that the extension itself appends.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_OWN_EVENT_H
#define CQRS_ES_OWN_EVENT_H

#include "log/append.h"

extern AppendResult OwnEventAppend(const StreamKey *key, const char *event_type,
								   const char *payload);

#endif							/* CQRS_ES_OWN_EVENT_H */
