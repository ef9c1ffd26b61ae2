/*-------------------------------------------------------------------------
 * published.h
 *	  How far the log is settled at the publisher that it is replicated from.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PUBLISHED_H
#define CQRS_ES_PUBLISHED_H

/* What is known where the log is followed by means of ours (follow_log). */
typedef struct PublishedLink
{
	bool		(*follows) (void);	/* the log of this node? */
	bool		(*is_copying) (void);	/* and is it not all there yet? */
} PublishedLink;

extern void PublishedSetLink(const PublishedLink *link);
extern bool PublishedIsFollowed(void);
extern bool PublishedIsCopying(void);
extern bool PublishedIsSubscriber(void);
extern bool PublishedDecides(int64 number);
extern int64 PublishedNumber(void);
extern void PublishedWarn(int64 number);
extern Datum PublishedName(void);

#endif							/* CQRS_ES_PUBLISHED_H */
