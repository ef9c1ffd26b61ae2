/*-------------------------------------------------------------------------
 * feed_name.h
 *	  Names of the subscriptions that belong to asynchronous projections.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_FEED_NAME_H
#define CQRS_ES_FEED_NAME_H

/* the name of a projection, with what comes before it */
#define FEED_NAME_MAX_BYTES	(255 + 11)

extern text *FeedNameOf(const text *projection);
extern bool FeedNameIs(const text *name);
extern void FeedNameRefuse(const text *name, const char *function, const char *instead);

#endif							/* CQRS_ES_FEED_NAME_H */
