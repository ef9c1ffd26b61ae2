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
static bool allowed = false;

/* 42939 for an event type of ours that somebody else appends. */
void
ReservedTypeRefuse(const text *event_type)
{
	if (!ReservedTypeIs(event_type) || allowed)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_RESERVED_NAME),
			 errmsg("event type \"%s\" is reserved", text_to_cstring(event_type)),
			 errdetail("Event types that begin with \"$\" are those of the extension.")));
}

/* Is it we who append, from now on?  Returns whether it was before, for a PG_FINALLY. */
bool
ReservedTypeAllow(bool allow)
{
	bool		before = allowed;

	allowed = allow;
	return before;
}

/* Is it we who append? */
bool
ReservedTypeIsAllowed(void)
{
	return allowed;
}

bool
ReservedTypeIsRedaction(const Event *event)
{
	return ReservedTypeEquals(EventText(event, EVENT_EVENT_TYPE), REDACTED_EVENT_TYPE);
}
