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
	int			ntags;			/* 0: whatever tags it has; */
	text	  **tags;			/* else it must have all of these */
} EventFilter;

typedef struct FilterScan FilterScan;

/* Events found by their tags; the room of tags knows more of it. */
typedef struct TagFilterScan TagFilterScan;

/* What the room of tags does for filters that ask for some. */
typedef struct TagFilter
{
	/*
	 * Has an event that was seen in the log all tags of the filter?  With the newest
	 * snapshot: tags come with their event, and go with nothing.
	 */
	bool		(*has_all) (const EventFilter *filter, const Event *event);

	/*
	 * 55000 when events behind the position may lack their tags yet.  Returns a number,
	 * never 0, that stays the same as long as these tags are defined as they are.
	 */
	uint64		(*ask) (const EventFilter *filter, int64 after_position);

	/* Keep the table of tags as it is, from before a snapshot is taken. */
	void		(*lock) (void);
	void		(*unlock) (void);

	/*
	 * The events between two positions, the first exclusive, in their order, that have
	 * the tags, and a tenant and a type of the filter.  NULL when there are too many
	 * tenants.
	 */
	TagFilterScan *(*begin) (const EventFilter *filter, int64 after_position,
							 int64 up_to_position, Snapshot snapshot);
	bool		(*next) (TagFilterScan *scan, Event *event);
	void		(*end) (TagFilterScan *scan);
} TagFilter;

extern void EventFilterSetTagFilter(const TagFilter *by);

extern FilterTexts EventFilterTexts(NullableDatum arg, const char *what);
extern void EventFilterCheckTypes(ArrayType *types, const char *what, const char *element,
								  int max_bytes, bool may_be_empty);
extern void EventFilterSetTags(EventFilter *filter, NullableDatum arg);
extern uint64 EventFilterAsk(const EventFilter *filter, int64 after_position);
extern void EventFilterConfirm(const EventFilter *filter, int64 after_position, uint64 asked);
extern bool EventFilterMatches(const EventFilter *filter, const Event *event);
extern bool EventFilterHasIndex(const EventFilter *filter);
extern void EventFilterLock(const EventFilter *filter);
extern void EventFilterUnlock(const EventFilter *filter);
extern FilterScan *EventFilterScan(const EventFilter *filter, int64 after_position,
								   int64 up_to_position, Snapshot snapshot);
extern bool EventFilterNext(FilterScan *scan, Event *event);
extern int	EventFilterFirst(const Event *next, const bool *has_next, int n);
extern void EventFilterEnd(FilterScan *scan);

#endif							/* CQRS_ES_EVENT_FILTER_H */
