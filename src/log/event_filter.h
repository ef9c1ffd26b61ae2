/*-------------------------------------------------------------------------
 * event_filter.h
 *	  Which events a reader of the log wants, and the index that finds them.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EVENT_FILTER_H
#define CQRS_ES_EVENT_FILTER_H

#include "utils/array.h"
#include "utils/snapshot.h"

#include "log/events.h"

/* The texts of which a column must have one; no texts: none fits. */
typedef struct FilterTexts
{
	bool		all;			/* whatever it has */
	int			n;
	text	  **texts;
} FilterTexts;

typedef struct EventFilter
{
	FilterTexts tenant_ids;
	FilterTexts aggregate_types;
	FilterTexts event_types;
} EventFilter;

typedef struct FilterScan FilterScan;

extern FilterTexts EventFilterTexts(NullableDatum arg, const char *what);
extern void EventFilterCheckTypes(ArrayType *types, const char *what, const char *element,
								  int max_bytes, bool may_be_empty);
extern bool EventFilterMatches(const EventFilter *filter, const Event *event);
extern bool EventFilterHasIndex(const EventFilter *filter);
extern FilterScan *EventFilterScan(const EventFilter *filter, int64 after_position,
								   int64 up_to_position, Snapshot snapshot);
extern bool EventFilterNext(FilterScan *scan, Event *event);
extern void EventFilterEnd(FilterScan *scan);

#endif							/* CQRS_ES_EVENT_FILTER_H */
