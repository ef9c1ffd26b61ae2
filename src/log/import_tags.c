/*-------------------------------------------------------------------------
 * import_tags.c
 *	  The tags that the rows of an import bring with them.
 *
 * The log has no column for them, and its triggers, which lock the tags of a row before it is
 * there and write them behind it (tagging.c), see its columns only.  So an import puts the
 * tags aside before its INSERT, in the order in which this will bring the events, and the
 * triggers find them here: the next one, when it is that of the row's place in its stream, which
 * no other row can have.  Triggers before the rows come in the one order, those behind them
 * in the same, later; so there are two places in what was put aside.  It goes to disk when it
 * is long.
 *
 * Whoever appends meanwhile, a trigger or a handler, writes other places.  Where a trigger
 * changes that of a row, or keeps it out, its tags and those behind it find no event; that
 * they are not in the log is seen at the end (import.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pg_type_d.h"
#include "executor/tstoreReceiver.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "base/text.h"
#include "log/append_request.h"
#include "log/import_tags.h"

#define NPURPOSES	(IMPORT_TAGS_WRITE + 1)
#define NCOLUMNS	5

/* Where one of the two looks has come to. */
typedef struct TagsPlace
{
	int			pointer;		/* of the store */
	TupleTableSlot *slot;
	bool		has_next;		/* is what comes next in the slot? */
} TagsPlace;

struct ImportTags
{
	struct ImportTags *outer;	/* of the import in whose handler this one is */
	Tuplestorestate *store;
	MemoryContext memory;		/* of what is in the slots */
	TagsPlace	places[NPURPOSES];
};

/* of the import that inserts now */
static ImportTags *current = NULL;

static void fetch_next(TagsPlace *place);
static bool is_of(TupleTableSlot *slot, const Event *event);
static void describe_event(void *arg);

/*
 * Begin to look tags up for rows that are inserted, until ImportTagsEnd, which must be called
 * in case of an error as well.  Palloc'd.
 */
ImportTags *
ImportTagsBegin(void)
{
	ImportTags *tags = palloc0(sizeof(ImportTags));
	TupleDesc	desc = CreateTemplateTupleDesc(NCOLUMNS);
	int			i;

	TupleDescInitEntry(desc, 1, "tenant_id", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, 2, "aggregate_type", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, 3, "aggregate_id", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, 4, "number", INT8OID, -1, 0);
	TupleDescInitEntry(desc, 5, "tags", TEXTARRAYOID, -1, 0);
	tags->store = tuplestore_begin_heap(false, false, work_mem);
	tags->memory = CurrentMemoryContext;
	for (i = 0; i < NPURPOSES; i++)
	{
		/* the first there is already */
		tags->places[i].pointer = i == 0 ? 0 : tuplestore_alloc_read_pointer(tags->store, 0);
		tags->places[i].slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	}
	tags->outer = current;
	current = tags;
	return tags;
}

/* For rows of IMPORT_TAGS_COLUMNS, before anything is looked up. */
DestReceiver *
ImportTagsReceiver(ImportTags *tags)
{
	DestReceiver *receiver = CreateDestReceiver(DestTuplestore);

	SetTuplestoreDestReceiverParams(receiver, tags->store, CurrentMemoryContext, false, NULL, NULL);
	return receiver;
}

void
ImportTagsEnd(ImportTags *tags)
{
	int			i;

	current = tags->outer;
	for (i = 0; i < NPURPOSES; i++)
		ExecDropSingleTupleTableSlot(tags->places[i].slot);
	tuplestore_end(tags->store);
	pfree(tags);
}

/*
 * The tags that were put aside for a row of the log, palloc'd; NULL when it is none of an
 * import, or brings none.  Once for each purpose.  Raises 22004, 22023, 22001, 2202E.
 */
ArrayType *
ImportTagsOf(const Event *event, ImportTagsFor purpose)
{
	TagsPlace  *place;
	ArrayType  *tags;
	bool		isnull;

	if (current == NULL)
		return NULL;
	place = &current->places[purpose];
	if (!place->has_next)
		fetch_next(place);
	if (!place->has_next || !is_of(place->slot, event))
		return NULL;
	place->has_next = false;
	tags = DatumGetArrayTypePCopy(slot_getattr(place->slot, 5, &isnull));
	if (purpose == IMPORT_TAGS_ADMIT)
	{
		ErrorContextCallback context = {
			.previous = error_context_stack,.callback = describe_event,.arg = unconstify(Event *, event)
		};

		error_context_stack = &context;
		(void) AppendRequestCheckTags(tags);
		error_context_stack = context.previous;
	}
	return tags;
}

static void
fetch_next(TagsPlace *place)
{
	MemoryContext caller = MemoryContextSwitchTo(current->memory);

	tuplestore_select_read_pointer(current->store, place->pointer);
	place->has_next = tuplestore_gettupleslot(current->store, true, false, place->slot);
	MemoryContextSwitchTo(caller);
}

static bool
is_of(TupleTableSlot *slot, const Event *event)
{
	bool		isnull;

	return EventSequence(event) == DatumGetInt64(slot_getattr(slot, 4, &isnull)) &&
		TextEqual(EventText(event, EVENT_AGGREGATE_ID), DatumGetTextPP(slot_getattr(slot, 3, &isnull))) &&
		TextEqual(EventText(event, EVENT_AGGREGATE_TYPE), DatumGetTextPP(slot_getattr(slot, 2, &isnull))) &&
		TextEqual(EventText(event, EVENT_TENANT_ID), DatumGetTextPP(slot_getattr(slot, 1, &isnull)));
}

static void
describe_event(void *arg)
{
	const Event *event = arg;
	StreamKey	key;

	EventKey(event, &key);
	errcontext("event %lld of stream \"%s\"", (long long) EventSequence(event), StreamKeyName(&key));
}
