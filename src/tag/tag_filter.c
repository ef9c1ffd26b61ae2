/*-------------------------------------------------------------------------
 * tag_filter.c
 *	  Events that have tags, for readers of the log with a filter.
 *
 * A reader that wants events with certain tags walks through the settled log as any other
 * (horizon.c); here it is said which events have them, and those between two positions are found by
 * the index of the tags.  That stands in the order of tenants, so for all tenants there is a
 * search for each that has one of the tags, and their events are put in order.
 *
 * A row and its tags become visible together.  So whoever has seen the row sees its tags in any
 * snapshot that is not older; the newest is never.  Tags are never taken away: what
 * is found beside is what retag has given since.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/snapmgr.h"

#include "base/text.h"
#include "log/event_filter.h"
#include "tag/event_tags.h"
#include "tag/tag_definition.h"
#include "tag/tag_filter.h"
#include "tag/tag_search.h"

/* so many tenants are put in order; where there are more, the log itself is */
#define MAX_TENANTS 64

struct TagFilterScan
{
	TagQuery	query;
	TagQueryItem item;
	int			nsearches;
	TagSearch **searches;		/* one for each tenant */
	Event	   *next;			/* the next event of each, if it has one */
	bool	   *has_next;
	int			handed_out;		/* the search whose event was handed out; -1: none */
};

static bool has_all(const EventFilter *filter, const Event *event);
static TagFilterScan *begin(const EventFilter *filter, int64 after_position,
							int64 up_to_position, Snapshot snapshot);
static bool next(TagFilterScan *scan, Event *event);
static void end(TagFilterScan *scan);
static bool find_tenants(const EventFilter *filter, Snapshot snapshot, List **tenants);
static bool find_tenants_of(const text *tag, Snapshot snapshot, List **tenants);
static void make_query(TagFilterScan *scan, const EventFilter *filter);
static int	sort_texts(text **texts, int n);
static int	compare_texts(const void *a, const void *b);

static const TagFilter tag_filter = {
	.has_all = has_all,.ask = TagDefinitionAsk,.lock = EventTagsLock,.unlock = EventTagsUnlock,
	.begin = begin,.next = next,.end = end
};

void
TagFilterInit(void)
{
	EventFilterSetTagFilter(&tag_filter);
}

/* Of TagFilter: has the event all tags? */
static bool
has_all(const EventFilter *filter, const Event *event)
{
	text	   *tenant_id = EventText(event, EVENT_TENANT_ID);
	int64		position = EventGlobalPosition(event);
	Snapshot	snapshot;
	bool		found = true;
	int			i;

	EventTagsLock();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (i = 0; i < filter->ntags && found; i++)
		found = EventTagsHas(tenant_id, filter->tags[i], position,
							 EventText(event, EVENT_EVENT_TYPE), snapshot);
	UnregisterSnapshot(snapshot);
	EventTagsUnlock();
	return found;
}

/* Of TagFilter: the events between two positions, each tenant by a search of its own. */
static TagFilterScan *
begin(const EventFilter *filter, int64 after_position, int64 up_to_position,
	  Snapshot snapshot)
{
	TagFilterScan *scan;
	List	   *tenants;
	ListCell   *lc;

	if (!find_tenants(filter, snapshot, &tenants))
		return NULL;
	scan = palloc0(sizeof(TagFilterScan));
	make_query(scan, filter);
	scan->searches = palloc(Max(list_length(tenants), 1) * sizeof(TagSearch *));
	scan->next = palloc(Max(list_length(tenants), 1) * sizeof(Event));
	scan->has_next = palloc(Max(list_length(tenants), 1) * sizeof(bool));
	scan->handed_out = -1;
	foreach(lc, tenants)
	{
		TagSearch  *search = TagSearchBegin(&scan->query, lfirst(lc), after_position, up_to_position,
											ForwardScanDirection, snapshot);

		scan->searches[scan->nsearches] = search;
		scan->has_next[scan->nsearches] = TagSearchNext(search, &scan->next[scan->nsearches]);
		scan->nsearches++;
	}
	return scan;
}

/* Of TagFilter: the next event, by position; it is good until the next call. */
static bool
next(TagFilterScan *scan, Event *event)
{
	if (scan->handed_out >= 0)
		scan->has_next[scan->handed_out] = TagSearchNext(scan->searches[scan->handed_out],
														 &scan->next[scan->handed_out]);
	scan->handed_out = EventFilterFirst(scan->next, scan->has_next, scan->nsearches);
	if (scan->handed_out < 0)
		return false;
	*event = scan->next[scan->handed_out];
	return true;
}

/* Of TagFilter */
static void
end(TagFilterScan *scan)
{
	int			i;

	for (i = scan->nsearches - 1; i >= 0; i--)
		TagSearchEnd(scan->searches[i]);
	pfree(scan->searches);
	pfree(scan->next);
	pfree(scan->has_next);
	pfree(scan);
}

/* The tenants whose events may have all tags, each once; false when they are too many. */
static bool
find_tenants(const EventFilter *filter, Snapshot snapshot, List **tenants)
{
	const FilterTexts *wanted = &filter->tenant_ids;
	int			i;

	*tenants = NIL;
	if (!wanted->all)
	{
		text	  **texts = palloc(Max(wanted->n, 1) * sizeof(text *));
		int			n;

		memcpy(texts, wanted->texts, wanted->n * sizeof(text *));
		n = sort_texts(texts, wanted->n);
		for (i = 0; i < n; i++)
			*tenants = lappend(*tenants, texts[i]);
		return n <= MAX_TENANTS;
	}
	/* what has all tags has each of them; another one may be of fewer tenants */
	for (i = 0; i < filter->ntags; i++)
		if (find_tenants_of(filter->tags[i], snapshot, tenants))
			return true;
	return false;
}

static bool
find_tenants_of(const text *tag, Snapshot snapshot, List **tenants)
{
	text	   *tenant_id = NULL;

	*tenants = NIL;
	while ((tenant_id = EventTagsNextTenant(tag, tenant_id, snapshot)) != NULL)
	{
		if (list_length(*tenants) == MAX_TENANTS)
			return false;
		*tenants = lappend(*tenants, tenant_id);
	}
	return true;
}

/* The query of one item that says the same as the filter, but for aggregate types and tenants. */
static void
make_query(TagFilterScan *scan, const EventFilter *filter)
{
	TagQueryItem *item = &scan->item;

	scan->query.nitems = 1;
	scan->query.items = item;
	item->tags = palloc(filter->ntags * sizeof(text *));
	memcpy(item->tags, filter->tags, filter->ntags * sizeof(text *));
	item->ntags = sort_texts(item->tags, filter->ntags);
	if (filter->event_types.all || filter->event_types.n == 0)
		return;
	item->types = palloc(filter->event_types.n * sizeof(text *));
	memcpy(item->types, filter->event_types.texts, filter->event_types.n * sizeof(text *));
	item->ntypes = sort_texts(item->types, filter->event_types.n);
}

/* Put them in the order of their bytes, each once; returns how many there are then. */
static int
sort_texts(text **texts, int n)
{
	int			kept = 0;
	int			i;

	qsort(texts, n, sizeof(text *), compare_texts);
	for (i = 0; i < n; i++)
		if (kept == 0 || !TextEqual(texts[kept - 1], texts[i]))
			texts[kept++] = texts[i];
	return kept;
}

static int
compare_texts(const void *a, const void *b)
{
	return TextCompare(*(text *const *) a, *(text *const *) b);
}
