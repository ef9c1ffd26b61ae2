/*-------------------------------------------------------------------------
 * reserved_type.h
 *	  Event types of our own, which begin with a dollar sign.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_RESERVED_TYPE_H
#define CQRS_ES_RESERVED_TYPE_H

#include "log/events.h"

/* something in events of this stream has been replaced */
#define REDACTED_EVENT_TYPE	"$redacted"

static inline bool
ReservedTypeIs(const text *event_type)
{
	return VARSIZE_ANY_EXHDR(event_type) > 0 && *VARDATA_ANY(event_type) == '$';
}

extern void ReservedTypeRefuse(const text *event_type);
extern bool ReservedTypeIsRedaction(const Event *event);
extern bool ReservedTypeAllow(bool allow);

#endif							/* CQRS_ES_RESERVED_TYPE_H */
