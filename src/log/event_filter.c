/*-------------------------------------------------------------------------
 * event_filter.c
 *	  Which events a reader of the log wants, and the index that finds them.
 *
 * A reader wants events of its tenant, and perhaps of some aggregate types or event
 * types only.  Where these are few among many, to look at all is slow.  So an index
 * that the owner of the log has created is used: a btree on some of these columns
 * and then the position, (event_type, global_position) for instance.  Under equal
 * values of the columns in front its entries stand in the order of positions.  For
 * several values there is a scan for each, and their events are put in order here.
 *
 * It may also want events that have certain tags, all of them.  What tags are, the log does
 * not know; the room of tags registers itself to be asked, of one event, or for those between
 * two positions, which its own index finds; that is preferred to one of the log.  Events get
 * their tags with their rows, so a reader misses nothing.  Only retag gives tags to
 * events that readers may have passed; so who is about to pass such events asks first, is
 * refused while that is going on, and asks once more when it has passed them, whether the same
 * tags have been defined all the time.
 *
 * Which events may be handed out at all is not seen from those that fit; that is
 * decided by the caller, who says up to where (horizon.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_opfamily_d.h"
#include "catalog/pg_type_d.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "base/compat.h"
#include "base/text.h"
#include "log/event_filter.h"
#include "log/event_scan.h"

/* columns of a filter, and how many scans there may be */
#define MAX_COLUMNS 3
#define MAX_SCANS 64

/* How an index finds what a filter wants: the values of its leading columns. */
typedef struct FilterIndex
{
	Oid			index;
	int			ncolumns;
	int			nscans;			/* of one value for each column */
	FilterTexts columns[MAX_COLUMNS];	/* without repetitions */
} FilterIndex;

struct FilterScan
{
	TagFilterScan *by_tags;		/* if not NULL, the rest is not there */
	Relation	heap;			/* locked, so that the index stays */
	int			nscans;
	EventScan **scans;
	Event	   *next;			/* the next event of each, if it has one */
	bool	   *has_next;
	int			handed_out;		/* the scan whose event was handed out; -1: none */
};

/* see EventFilterSetTagFilter */
static const TagFilter *tag_filter = NULL;

static inline bool texts_match(const FilterTexts *wanted, Datum value);
static FilterScan *scan_by_tags(const EventFilter *filter, int64 after_position,
								int64 up_to_position, Snapshot snapshot);
static bool choose_index(Relation heap, const EventColumns *columns, const EventFilter *filter,
						 FilterIndex *best);
static bool fits(Relation index, const EventColumns *columns, const EventFilter *filter,
				 FilterIndex *found);
static const FilterTexts *texts_of(AttrNumber attno, const EventColumns *columns,
								   const EventFilter *filter);
static bool distinct(const FilterTexts *texts, FilterTexts *result);

/* Who is asked about tags; called by an Init only. */
void
EventFilterSetTagFilter(const TagFilter *by)
{
	tag_filter = by;
}

/*
 * A filter that is an SQL argument, an array of texts; NULL: everything fits.  2202E,
 * 22004 for a null in it.
 */
FilterTexts
EventFilterTexts(NullableDatum arg, const char *what)
{
	FilterTexts filter = {.all = arg.isnull};
	ArrayType  *array;
	Datum	   *elements;
	int			i;

	if (filter.all)
		return filter;
	array = DatumGetArrayTypeP(arg.value);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be a one-dimensional array", what)));
	if (array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not contain nulls", what),
				 errhint("Leave it out for all.")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &filter.n);
	filter.texts = palloc(Max(filter.n, 1) * sizeof(text *));
	for (i = 0; i < filter.n; i++)
		filter.texts[i] = DatumGetTextPP(elements[i]);
	return filter;
}

/*
 * A filter that is declared, and stored: types of events or aggregates as append_event
 * takes them, in an array of one dimension.  The messages are about `what` or one
 * `element` of it.  2202E, 22023, and as TextArgument.
 */
void
EventFilterCheckTypes(ArrayType *types, const char *what, const char *element, int max_bytes,
					  bool may_be_empty)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	int			i;

	if (ARR_NDIM(types) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be a one-dimensional array", what)));
	deconstruct_array(types, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &n);
	if (n == 0 && !may_be_empty)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what),
				 errhint("Leave it out for all.")));
	for (i = 0; i < n; i++)
	{
		NullableDatum type = {.value = elements[i],.isnull = nulls[i]};

		(void) TextArgument(type, element, max_bytes);
	}
}

/*
 * The tags that an event must have, an SQL argument or what is stored, become part of the
 * filter; NULL: whatever tags it has.  2202E, 22023, and as TextArgument.
 */
void
EventFilterSetTags(EventFilter *filter, NullableDatum arg)
{
	FilterTexts tags;

	if (arg.isnull)
		return;
	EventFilterCheckTypes(DatumGetArrayTypeP(arg.value), "tags", "tag", EVENT_TAG_MAX_BYTES, false);
	tags = EventFilterTexts(arg, "tags");
	filter->ntags = tags.n;
	filter->tags = tags.texts;
}

/*
 * Who will pass events behind a position asks before, and confirms behind it with
 * what this returned, which is 0 for whoever wants no tags and for nobody else.  55000 when
 * such events may lack their tags yet.
 */
uint64
EventFilterAsk(const EventFilter *filter, int64 after_position)
{
	return filter->ntags > 0 ? tag_filter->ask(filter, after_position) : 0;
}

/*
 * Were the tags defined as they were asked for, all the time?  Else events may have been
 * passed between the definition and retag: 40001, 55000.
 */
void
EventFilterConfirm(const EventFilter *filter, int64 after_position, uint64 asked)
{
	if (EventFilterAsk(filter, after_position) != asked)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access: tags were defined while events were read by their tags"),
				 errhint("Retry the transaction.")));
}

/* Is it one of the events that are wanted? */
bool
EventFilterMatches(const EventFilter *filter, const Event *event)
{
	return texts_match(&filter->tenant_ids, event->values[EVENT_TENANT_ID]) &&
		texts_match(&filter->aggregate_types, event->values[EVENT_AGGREGATE_TYPE]) &&
		texts_match(&filter->event_types, event->values[EVENT_EVENT_TYPE]) &&
		(filter->ntags == 0 || tag_filter->has_all(filter, event));
}

static inline bool
texts_match(const FilterTexts *wanted, Datum value)
{
	int			i;

	if (wanted->all)
		return true;
	for (i = 0; i < wanted->n; i++)
		if (TextEqual(wanted->texts[i], DatumGetTextPP(value)))
			return true;
	return false;
}

/* Is there an index that finds them, on a log that can be read straight? */
bool
EventFilterHasIndex(const EventFilter *filter)
{
	EventsTable table;
	Relation	heap;
	FilterIndex index;
	bool		found;

	if (filter->ntags > 0)
		return true;
	heap = EventsOpenStraight(&table);
	if (heap == NULL)
		return false;
	found = choose_index(heap, &table.columns, filter, &index);
	table_close(heap, AccessShareLock);
	return found;
}

/*
 * Lock what the index is of, beside the log, before the snapshot is taken that EventFilterScan
 * gets, until behind EventFilterEnd.
 */
void
EventFilterLock(const EventFilter *filter)
{
	if (filter->ntags > 0)
		tag_filter->lock();
}

void
EventFilterUnlock(const EventFilter *filter)
{
	if (filter->ntags > 0)
		tag_filter->unlock();
}

/*
 * Read them with such an index, between two positions, the first exclusive; NULL when
 * there is none (any more).  All that the index finds fits in the columns that the
 * index has, and may not in others.  The caller has checked the right to read, and
 * keeps the snapshot registered until EventFilterEnd.
 */
FilterScan *
EventFilterScan(const EventFilter *filter, int64 after_position, int64 up_to_position,
				Snapshot snapshot)
{
	EventsTable table;
	Relation	heap;
	FilterIndex index;
	FilterScan *scan;
	int			i;

	if (filter->ntags > 0)
		return scan_by_tags(filter, after_position, up_to_position, snapshot);
	/* there was one when EventFilterHasIndex looked */
	heap = EventsOpenStraight(&table);
	if (heap == NULL)
		return NULL;
	if (!choose_index(heap, &table.columns, filter, &index))
	{
		table_close(heap, AccessShareLock);
		return NULL;
	}
	scan = palloc0(sizeof(FilterScan));
	scan->heap = heap;
	scan->nscans = index.nscans;
	scan->scans = palloc(Max(index.nscans, 1) * sizeof(EventScan *));
	scan->next = palloc(Max(index.nscans, 1) * sizeof(Event));
	scan->has_next = palloc(Max(index.nscans, 1) * sizeof(bool));
	scan->handed_out = -1;
	for (i = 0; i < index.nscans; i++)
	{
		text	   *values[MAX_COLUMNS];
		int			choice = i;
		int			column;

		for (column = 0; column < index.ncolumns; column++)
		{
			values[column] = index.columns[column].texts[choice % index.columns[column].n];
			choice /= index.columns[column].n;
		}
		scan->scans[i] = EventScanIndex(heap, index.index, values, index.ncolumns,
										after_position, up_to_position, snapshot);
		scan->has_next[i] = EventScanNext(scan->scans[i], &scan->next[i]);
	}
	return scan;
}

static FilterScan *
scan_by_tags(const EventFilter *filter, int64 after_position, int64 up_to_position,
			 Snapshot snapshot)
{
	TagFilterScan *by_tags = tag_filter->begin(filter, after_position, up_to_position, snapshot);
	FilterScan *scan;

	if (by_tags == NULL)
		return NULL;
	scan = palloc0(sizeof(FilterScan));
	scan->by_tags = by_tags;
	return scan;
}

/* The next event, by position; false at the end.  It is good until the next call. */
bool
EventFilterNext(FilterScan *scan, Event *event)
{
	if (scan->by_tags)
		return tag_filter->next(scan->by_tags, event);
	if (scan->handed_out >= 0)
		scan->has_next[scan->handed_out] = EventScanNext(scan->scans[scan->handed_out],
														 &scan->next[scan->handed_out]);
	scan->handed_out = EventFilterFirst(scan->next, scan->has_next, scan->nscans);
	if (scan->handed_out < 0)
		return false;
	*event = scan->next[scan->handed_out];
	return true;
}

/* Of the next events of n scans, those that have one: which is first by position; -1: none. */
int
EventFilterFirst(const Event *next, const bool *has_next, int n)
{
	int			first = -1;
	int			i;

	for (i = 0; i < n; i++)
		if (has_next[i] &&
			(first < 0 || EventGlobalPosition(&next[i]) < EventGlobalPosition(&next[first])))
			first = i;
	return first;
}

void
EventFilterEnd(FilterScan *scan)
{
	int			i;

	if (scan->by_tags)
	{
		tag_filter->end(scan->by_tags);
		pfree(scan);
		return;
	}
	for (i = scan->nscans - 1; i >= 0; i--)
		EventScanEnd(scan->scans[i]);
	table_close(scan->heap, AccessShareLock);
	pfree(scan->scans);
	pfree(scan->next);
	pfree(scan->has_next);
	pfree(scan);
}

/* The index on the most columns that are wanted; false when there is none. */
static bool
choose_index(Relation heap, const EventColumns *columns, const EventFilter *filter,
			 FilterIndex *best)
{
	List	   *indexes = RelationGetIndexList(heap);
	ListCell   *lc;

	best->ncolumns = 0;
	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		FilterIndex found;

		if (fits(index, columns, filter, &found) && found.ncolumns > best->ncolumns)
			*best = found;
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return best->ncolumns > 0;
}

/*
 * Does it have all rows, under columns that are wanted with few enough values, and
 * then in the order of positions?
 */
static bool
fits(Relation index, const EventColumns *columns, const EventFilter *filter, FilterIndex *found)
{
	Form_pg_index form = index->rd_index;
	AttrNumber	position = columns->attno[EVENT_GLOBAL_POSITION];
	int			i;

	if (index->rd_rel->relam != BTREE_AM_OID || !form->indisvalid || form->indcheckxmin ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	found->index = RelationGetRelid(index);
	found->nscans = 1;
	for (i = 0; i < form->indnkeyatts && form->indkey.values[i] != position; i++)
	{
		const FilterTexts *texts = texts_of(form->indkey.values[i], columns, filter);

		if (i >= MAX_COLUMNS || texts == NULL || texts->all ||
			index->rd_opfamily[i] != TEXT_BTREE_FAM_OID ||
			!get_collation_isdeterministic(index->rd_indcollation[i]) ||
			!distinct(texts, &found->columns[i]))
			return false;
		found->nscans *= found->columns[i].n;
		if (found->nscans > MAX_SCANS)
			return false;
	}
	found->ncolumns = i;
	return i > 0 && i < form->indnkeyatts &&
		index->rd_opfamily[i] == INTEGER_BTREE_FAM_OID &&
		(index->rd_indoption[i] & INDOPTION_DESC) == 0;
}

/* What is wanted of a column; NULL when it is none of those. */
static const FilterTexts *
texts_of(AttrNumber attno, const EventColumns *columns, const EventFilter *filter)
{
	return attno == columns->attno[EVENT_TENANT_ID] ? &filter->tenant_ids :
		attno == columns->attno[EVENT_AGGREGATE_TYPE] ? &filter->aggregate_types :
		attno == columns->attno[EVENT_EVENT_TYPE] ? &filter->event_types : NULL;
}

/* The texts without repetitions, palloc'd; false when they are too many. */
static bool
distinct(const FilterTexts *texts, FilterTexts *result)
{
	int			i;

	result->all = false;
	result->n = 0;
	result->texts = palloc(MAX_SCANS * sizeof(text *));
	for (i = 0; i < texts->n; i++)
	{
		if (texts_match(result, PointerGetDatum(texts->texts[i])))
			continue;
		if (result->n == MAX_SCANS)
			return false;
		result->texts[result->n++] = texts->texts[i];
	}
	return true;
}
