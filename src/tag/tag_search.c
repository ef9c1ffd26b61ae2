/*-------------------------------------------------------------------------
 * tag_search.c
 *	  The events that match a query, in the order of their positions.
 *
 * The events that have a tag stand one behind the other in an index (event_tags.c), so
 * those that have all tags of an item are found by leaps: each tag in turn is asked for
 * its first event at or behind the place where the last one was found, until all agree.
 * The type stands beside the tag, so the log is looked at only for what is handed out.
 * The items of a query are merged by position.
 *
 * Items without tags have no such index.  Their events are looked for in the log itself,
 * from where the search begins, by an index of the user's where there is one
 * (event_filter.c); all such items in one go.  Where one of them matches everything,
 * the others are not looked at.
 *
 * Only what is handed out is fetched, and as the caller may see it: where policies of
 * users hide an event, it matches nothing.  Descents in C, and never a plan that SQL might
 * turn into a scan of everything.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/text.h"
#include "log/event_filter.h"
#include "log/event_scan.h"
#include "log/position.h"
#include "tag/event_tags.h"
#include "tag/tag_search.h"

/* The events of an item with tags. */
typedef struct ItemSearch
{
	const TagQueryItem *item;
	EventTagScan **scans;		/* one for each of its tags */
	bool		ended;
	int64		at;				/* else where the next event is that has them, and ... */
	text	   *event_type;		/* ... its type; NULL: several events are there */
} ItemSearch;

struct TagSearch
{
	text	   *tenant_id;
	int64		after_position;
	int64		up_to_position;
	ScanDirection direction;
	Snapshot	snapshot;

	int			nitems;			/* with tags */
	ItemSearch *items;

	/* items without */
	bool		walks;			/* are there any? */
	EventFilter filter;
	FilterScan *filtered;		/* by an index, or ... */
	EventScan  *log;			/* ... through the log */
	bool		log_ended;
	Event		log_event;		/* else the next */
	bool		log_handed_out; /* it was that which was handed out last */

	/* what is fetched: the events at one position */
	bool		fetching;
	int64		position;
	EventScan  *straight;		/* NULL on the generic way: then they are copied */
	MemoryContext copies_memory;
	List	   *copies;
};

static void begin_items(TagSearch *search, const TagQuery *query);
static void seek_item(TagSearch *search, ItemSearch *items, int64 position);
static void begin_walk(TagSearch *search, const TagQuery *query);
static bool step(TagSearch *search, Event *event);
static void walk_on(TagSearch *search);
static bool is_beyond(const TagSearch *search, int64 position);
static bool comes_first(const TagSearch *search, int64 position, int64 other);
static int64 position_behind(const TagSearch *search, int64 position);
static bool next_position(const TagSearch *search, int64 *position, bool *has_tags);
static void begin_fetch(TagSearch *search, int64 position);
static bool fetch(TagSearch *search, Event *event);
static void end_fetch(TagSearch *search);
static bool matches(const TagSearch *search, const Event *event);
static text *type_of_all(ItemSearch *items);
static bool has_tags(const TagSearch *search, const ItemSearch *items, const Event *event);

/*
 * Begin to look for the events of a tenant that match, of this node, above after_position
 * and up to up_to_position; forward from the one or backward from the other.  Query,
 * tenant and snapshot, which is registered, stay the caller's until TagSearchEnd.  The caller
 * may read the log, and ends in reverse order what scans it has.
 */
TagSearch *
TagSearchBegin(const TagQuery *query, text *tenant_id, int64 after_position,
			   int64 up_to_position, ScanDirection direction, Snapshot snapshot)
{
	TagSearch  *search = palloc0(sizeof(TagSearch));

	search->tenant_id = tenant_id;
	search->after_position = Max(after_position, PositionOfNumber(0));
	search->up_to_position = Min(up_to_position, PositionOfNumber(POSITION_MAX_NUMBER));
	search->direction = direction;
	search->snapshot = snapshot;
	search->copies_memory = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es events found",
												  ALLOCSET_SMALL_SIZES);
	begin_walk(search, query);
	begin_items(search, query);
	return search;
}

/*
 * The next event that matches, as it is stored; false at the end.  Its values are good
 * until the next call.
 */
bool
TagSearchNext(TagSearch *search, Event *event)
{
	int64		position = 0;
	bool		has_tags;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (search->fetching)
		{
			if (fetch(search, event))
				return true;
			end_fetch(search);
		}
		if (search->log_handed_out)
			walk_on(search);
		if (!next_position(search, &position, &has_tags))
			return false;
		if (!has_tags)
		{
			search->log_handed_out = true;
			*event = search->log_event;
			return true;
		}
		begin_fetch(search, position);
	}
}

void
TagSearchEnd(TagSearch *search)
{
	int			i;
	int			j;

	if (search->straight)
		EventScanEnd(search->straight);
	for (i = search->nitems - 1; i >= 0; i--)
		for (j = search->items[i].item->ntags - 1; j >= 0; j--)
			EventTagsScanEnd(search->items[i].scans[j]);
	if (search->filtered)
		EventFilterEnd(search->filtered);
	if (search->log)
		EventScanEnd(search->log);
	MemoryContextDelete(search->copies_memory);
	pfree(search);
}

/*-------------------------------------------------------------------------
 * by tags
 *-------------------------------------------------------------------------
 */

static void
begin_items(TagSearch *search, const TagQuery *query)
{
	int			i;
	int			j;

	search->items = palloc(query->nitems * sizeof(ItemSearch));
	for (i = 0; i < query->nitems && !query->everything; i++)
	{
		const TagQueryItem *item = &query->items[i];
		ItemSearch *items = &search->items[search->nitems];

		if (item->ntags == 0)
			continue;
		items->item = item;
		items->scans = palloc(item->ntags * sizeof(EventTagScan *));
		for (j = 0; j < item->ntags; j++)
			items->scans[j] = EventTagsScanBegin(search->tenant_id, item->tags[j],
												 search->snapshot);
		search->nitems++;
		seek_item(search, items, ScanDirectionIsForward(search->direction) ?
				  search->after_position + 1 : search->up_to_position);
	}
	if (search->nitems > 0)
		search->straight = EventScanPositions(search->snapshot);
}

/* The item's next event at the position, or behind it. */
static void
seek_item(TagSearch *search, ItemSearch *items, int64 position)
{
	const TagQueryItem *item = items->item;
	text	   *event_type = NULL;
	int			nagree = 0;
	int			tag = 0;

	items->ended = true;
	for (;;)
	{
		int64		found;

		if (is_beyond(search, position) ||
			!EventTagsScanSeek(items->scans[tag], position, search->direction,
							   &found, &event_type) ||
			is_beyond(search, found))
			return;
		nagree = found == position ? nagree + 1 : 1;
		position = found;
		if (nagree >= item->ntags)
		{
			bool		has_type = TagQueryItemHasType(item, event_type);

			/* of several events at the position another may be it */
			while (!has_type && EventTagsScanNextTied(items->scans[tag], &event_type))
				has_type = TagQueryItemHasType(item, event_type);
			if (has_type)
				break;
			position = position_behind(search, position);
			nagree = 0;
		}
		tag = (tag + 1) % item->ntags;
		CHECK_FOR_INTERRUPTS();
	}
	items->ended = false;
	items->at = position;
	items->event_type = type_of_all(items);
}

/* The type of the entries at which all tags have met; NULL when it is not the same of all. */
static text *
type_of_all(ItemSearch *items)
{
	text	   *event_type = EventTagsScanType(items->scans[0]);
	int			i;

	for (i = 1; i < items->item->ntags; i++)
		if (!TextEqual(EventTagsScanType(items->scans[i]), event_type))
			return NULL;
	return event_type;
}

/*-------------------------------------------------------------------------
 * through the log
 *-------------------------------------------------------------------------
 */

/* What items without tags match, as one filter. */
static void
begin_walk(TagSearch *search, const TagQuery *query)
{
	EventFilter *filter = &search->filter;
	int			ntypes = 0;
	int			i;

	for (i = 0; i < query->nitems; i++)
		if (query->items[i].ntags == 0)
		{
			search->walks = true;
			ntypes += query->items[i].ntypes;
		}
	search->log_ended = true;
	if (!search->walks)
		return;

	filter->tenant_ids.n = 1;
	filter->tenant_ids.texts = &search->tenant_id;
	filter->aggregate_types.all = true;
	filter->event_types.all = query->everything;
	filter->event_types.texts = palloc(Max(ntypes, 1) * sizeof(text *));
	for (i = 0; i < query->nitems && !query->everything; i++)
	{
		const TagQueryItem *item = &query->items[i];

		if (item->ntags > 0)
			continue;
		memcpy(filter->event_types.texts + filter->event_types.n, item->types,
			   item->ntypes * sizeof(text *));
		filter->event_types.n += item->ntypes;
	}

	if (ScanDirectionIsForward(search->direction) && EventFilterHasIndex(filter))
		search->filtered = EventFilterScan(filter, search->after_position,
										   search->up_to_position, search->snapshot);
	if (search->filtered == NULL)
		search->log = EventScanLog(ScanDirectionIsForward(search->direction) ?
								   search->after_position : search->up_to_position,
								   search->direction, search->snapshot);
	search->log_ended = false;
	walk_on(search);
}

/* Go on to the next event of the log that matches. */
static void
walk_on(TagSearch *search)
{
	search->log_handed_out = false;
	while (!search->log_ended)
	{
		search->log_ended = !step(search, &search->log_event) ||
			is_beyond(search, EventGlobalPosition(&search->log_event));
		if (!search->log_ended && EventFilterMatches(&search->filter, &search->log_event))
			return;
	}
}

static bool
step(TagSearch *search, Event *event)
{
	return search->filtered ? EventFilterNext(search->filtered, event) :
		EventScanNext(search->log, event);
}

/*-------------------------------------------------------------------------
 * both
 *-------------------------------------------------------------------------
 */

/* Does the search end before this position? */
static bool
is_beyond(const TagSearch *search, int64 position)
{
	return ScanDirectionIsForward(search->direction) ?
		position > search->up_to_position : position <= search->after_position;
}

static bool
comes_first(const TagSearch *search, int64 position, int64 other)
{
	return ScanDirectionIsForward(search->direction) ? position < other : position > other;
}

static int64
position_behind(const TagSearch *search, int64 position)
{
	return position + (ScanDirectionIsForward(search->direction) ? 1 : -1);
}

/* The next position with an event that matches, and is it one by its tags?  False at the end. */
static bool
next_position(const TagSearch *search, int64 *position, bool *has_tags)
{
	bool		found = !search->log_ended;
	int			i;

	if (found)
		*position = EventGlobalPosition(&search->log_event);
	*has_tags = false;
	for (i = 0; i < search->nitems; i++)
		if (!search->items[i].ended &&
			(!found || !comes_first(search, *position, search->items[i].at)))
		{
			*position = search->items[i].at;
			*has_tags = found = true;
		}
	return found;
}

/* Fetch the events at a position; there may be several, of a log that was brought together. */
static void
begin_fetch(TagSearch *search, int64 position)
{
	search->fetching = true;
	search->position = position;
	if (search->straight)
		EventScanSeek(search->straight, position);
	else
	{
		EventScan  *scan = EventScanAt(position, search->snapshot);
		Event		event;

		search->copies = NIL;
		while (EventScanNext(scan, &event))
		{
			MemoryContext caller = MemoryContextSwitchTo(search->copies_memory);

			search->copies = lappend(search->copies, EventCopy(&event));
			MemoryContextSwitchTo(caller);
		}
		EventScanEnd(scan);
	}
}

static bool
fetch(TagSearch *search, Event *event)
{
	for (;;)
	{
		if (search->straight)
		{
			if (!EventScanNext(search->straight, event))
				return false;
		}
		else
		{
			if (search->copies == NIL)
				return false;
			*event = *(Event *) linitial(search->copies);
			search->copies = list_delete_first(search->copies);
		}
		if (matches(search, event))
			return true;
	}
}

/* Go on behind the position. */
static void
end_fetch(TagSearch *search)
{
	int			i;

	search->fetching = false;
	MemoryContextReset(search->copies_memory);
	search->copies = NIL;
	for (i = 0; i < search->nitems; i++)
		if (!search->items[i].ended && search->items[i].at == search->position)
			seek_item(search, &search->items[i], position_behind(search, search->position));
	while (!search->log_ended && EventGlobalPosition(&search->log_event) == search->position)
		walk_on(search);
}

/* Does an event at the position at which some items are match one of them, or without tags? */
static bool
matches(const TagSearch *search, const Event *event)
{
	int			i;

	if (!TextEqual(EventText(event, EVENT_TENANT_ID), search->tenant_id))
		return false;
	for (i = 0; i < search->nitems; i++)
		if (!search->items[i].ended && search->items[i].at == search->position &&
			TagQueryItemHasType(search->items[i].item, EventText(event, EVENT_EVENT_TYPE)) &&
			has_tags(search, &search->items[i], event))
			return true;
	return search->walks && EventFilterMatches(&search->filter, event);
}

/*
 * An event where all tags of an item have met has them, unless several events are there,
 * as of logs that were brought together.  These are told apart by their types.
 */
static bool
has_tags(const TagSearch *search, const ItemSearch *items, const Event *event)
{
	const text *event_type = EventText(event, EVENT_EVENT_TYPE);
	int			i;

	if (items->event_type && TextEqual(items->event_type, event_type))
		return true;
	for (i = 0; i < items->item->ntags; i++)
		if (!EventTagsHas(search->tenant_id, items->item->tags[i], search->position, event_type,
						  search->snapshot))
			return false;
	return true;
}
