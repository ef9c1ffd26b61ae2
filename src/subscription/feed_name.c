/*-------------------------------------------------------------------------
 * feed_name.c
 *	  Names of the subscriptions that belong to asynchronous projections (feed.c): that
 *	  of the projection with projection: before it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "base/compat.h"
#include "subscription/feed_name.h"

#define PREFIX "projection:"

/* The name of the feed of a projection, palloc'd. */
text *
FeedNameOf(const text *projection)
{
	return cstring_to_text(psprintf(PREFIX "%s", text_to_cstring(projection)));
}

/* Is it the name of a feed? */
bool
FeedNameIs(const text *name)
{
	return VARSIZE_ANY_EXHDR(name) >= strlen(PREFIX) &&
		memcmp(VARDATA_ANY(name), PREFIX, strlen(PREFIX)) == 0;
}

/* 55000 when a function is called for a feed, which there is another one for. */
void
FeedNameRefuse(const text *name, const char *function, const char *instead)
{
	if (FeedNameIs(name))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s cannot be used for \"%s\"", function, text_to_cstring(name)),
				 errdetail("It belongs to an asynchronous projection."),
				 errhint("Use %s.", instead)));
}
