/*-------------------------------------------------------------------------
 * published.h
 *	  How far the log is settled at the publisher that it is replicated from.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PUBLISHED_H
#define CQRS_ES_PUBLISHED_H

extern bool PublishedIsSubscriber(void);
extern bool PublishedDecides(int64 number);
extern int64 PublishedNumber(void);
extern void PublishedWarn(int64 number);
extern Datum PublishedName(void);

#endif							/* CQRS_ES_PUBLISHED_H */
