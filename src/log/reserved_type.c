/*-------------------------------------------------------------------------
 * reserved_type.c
 *	  Event types of our own, which begin with a dollar sign.
 *
 * What is done to a stream is an event of it, too, so that whoever follows the log hears of
 * it in order, and what is made of the log has it again.  Nobody else may append such
 * events, or who follows would be told what is not so; restored rows have them.  Reducers
 * change nothing for them unless somebody declares one, and strict types take them.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "base/compat.h"
#include "log/reserved_type.h"

/* is it we who append? */
static ReservedTypeUse allowed = RESERVED_TYPE_REFUSED;

/* 42939 for an event type of ours that somebody else appends. */
void
ReservedTypeRefuse(const text *event_type)
{
	if (!ReservedTypeIs(event_type) || allowed != RESERVED_TYPE_REFUSED)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_RESERVED_NAME),
			 errmsg("event type \"%s\" is reserved", text_to_cstring(event_type)),
			 errdetail("Event types that begin with \"$\" are those of the extension.")));
}

/* Is it we who append, from now on?  Returns what it was before, for a PG_FINALLY. */
ReservedTypeUse
ReservedTypeAllow(ReservedTypeUse use)
{
	ReservedTypeUse before = allowed;

	allowed = use;
	return before;
}

/* Is it we who append, also to a stream that has been deleted? */
bool
ReservedTypeIsAllowed(bool behind_deleted)
{
	return allowed == RESERVED_TYPE_BEHIND_DELETED || (allowed == RESERVED_TYPE_ALLOWED && !behind_deleted);
}

/* Does it tell that events in front of it have been changed, or removed? */
bool
ReservedTypeErases(const Event *event)
{
	const text *event_type = EventText(event, EVENT_EVENT_TYPE);

	return ReservedTypeIs(event_type) && (ReservedTypeEquals(event_type, REDACTED_EVENT_TYPE) ||
										  ReservedTypeEquals(event_type, DELETED_EVENT_TYPE));
}
