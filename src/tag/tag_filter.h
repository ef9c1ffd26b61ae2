/*-------------------------------------------------------------------------
 * tag_filter.h
 *	  Events that have tags, for readers of the log with a filter.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_TAG_FILTER_H
#define CQRS_ES_TAG_FILTER_H

extern void TagFilterInit(void);

#endif							/* CQRS_ES_TAG_FILTER_H */
