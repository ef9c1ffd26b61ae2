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

/* all events of this stream up to this one have been removed, which stays as the first */
#define DELETED_EVENT_TYPE	"$deleted"

/* the stream has ended, when this is its last event; it goes on */
#define CLOSED_EVENT_TYPE	"$closed"
#define REOPENED_EVENT_TYPE "$reopened"

/* Who appends may append events of ours: as long as the stream has not been deleted, or then, too. */
typedef enum ReservedTypeUse
{
	RESERVED_TYPE_REFUSED,
	RESERVED_TYPE_ALLOWED,
	RESERVED_TYPE_BEHIND_DELETED
} ReservedTypeUse;

/* limit of a reason that such an event says, in bytes */
#define REASON_MAX_BYTES	1024

static inline bool
ReservedTypeIs(const text *event_type)
{
	return VARSIZE_ANY_EXHDR(event_type) > 0 && *VARDATA_ANY(event_type) == '$';
}

static inline bool
ReservedTypeEquals(const text *event_type, const char *ours)
{
	return ReservedTypeIs(event_type) && VARSIZE_ANY_EXHDR(event_type) == strlen(ours) &&
		memcmp(VARDATA_ANY(event_type), ours, strlen(ours)) == 0;
}

extern void ReservedTypeRefuse(const text *event_type);
extern bool ReservedTypeErases(const Event *event);
extern ReservedTypeUse ReservedTypeAllow(ReservedTypeUse use);
extern bool ReservedTypeIsAllowed(bool behind_deleted);

#endif							/* CQRS_ES_RESERVED_TYPE_H */
