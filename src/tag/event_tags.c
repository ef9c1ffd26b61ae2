/*-------------------------------------------------------------------------
 * event_tags.c
 *	  The tags of events: written with them, and found by them.
 *
 * An event has the tags that it was appended with, and those that define_tags makes of its
 * payload.  Each is a row of event_tags, written below the executor by whoever writes the
 * event: of what append.c inserts straight, behind the rows; of every other row, by the
 * triggers of the log: the one before it locks the slots of the tags (tag_slot.c), the one
 * behind it writes them.  The tags that an append function was given do not reach those
 * triggers: append.c has them locked before it inserts by SQL, and written behind.
 *
 * Neither stays without the other.  What triggers write is of the (sub)transaction of the
 * row.  What append.c writes may be of the one around it: it inserts into several streams in a
 * subtransaction of its own, which has ended well before the tags are written, and so goes only
 * with that one.
 *
 * A trigger of users that comes between the two may change the row.  So where the table has
 * one, it is remembered which slots a row was admitted with, by its position, and whether these
 * are still its own is looked at when it is there.  (And of every row, whether its slots are
 * held: the statement may have defined tags itself.)
 *
 * Restored rows get no tags: theirs are restored, too.
 *
 * The triggers of rows keep the table open until the end of their statement, so that rows of one
 * INSERT or COPY cost no more each than those of an append.  (Not where rows are inserted into a
 * partition by its own name: of that nobody tells the end.)
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/distribution.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/relation_change.h"
#include "base/text.h"
#include "log/tagging.h"
#include "tag/event_tags.h"
#include "tag/tag_definition.h"
#include "tag/tag_list.h"

/* rows that go to the heap at once */
#define BULK_ROWS 64

/* so many entries are passed before the index is descended anew */
#define NEAR_ENTRIES 8

/* the columns of event_tags */
#define TAG_POSITION	1
#define TAG_TENANT		2
#define TAG_TAG			3
#define TAG_EVENT_TYPE	4

/* The tags of an event: by its type, and what it was given beside. */
typedef struct TaggedEvent
{
	const Event *event;
	TagList		defined;
	TagList		given;
} TaggedEvent;

/* Those events of an append that have any. */
struct Tagging
{
	uint64		n;
	TaggedEvent *events;
};

/* Of which event an error is, for its context. */
typedef struct EventPlace
{
	const Event *event;
	const AppendRequest *append;	/* NULL: it came as a row */
} EventPlace;

/* The table, open to write; see EventTagsWriterOpen. */
struct EventTagWriter
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *result_rel;
	MemoryContext memory;		/* of all this */
	int			n;
	int			nslots;
	TupleTableSlot *slots[BULK_ROWS];
};

/* The table, open for the rows of a statement; see statement_writer. */
typedef struct StatementWriter
{
	struct StatementWriter *outer;
	EventTagWriter *writer;
	int			trigger_depth;	/* of the triggers of its rows */
	int			nest_level;		/* of its transaction */
	MemoryContext memory;
} StatementWriter;

struct EventTagScan
{
	Relation	heap;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	ScanKeyData keys[3];
	ScanDirection direction;	/* NoMovementScanDirection: it has not begun */
	int64		sought;			/* the last position asked for ... */
	int64		found;			/* ... and the entry found for it */
	bool		at_end;			/* there was none */
};

/* A row that was admitted to a table whose triggers may change it. */
typedef struct AdmittedRow
{
	int64		position;
	uint64		slots;			/* hash of what was locked for it */
} AdmittedRow;

static Oid	event_tags_relid = InvalidOid;	/* cache, see table_relid */
static uint64 relid_invalidations = 0;
static bool event_tags_is_local = false;	/* as far as nothing was said since */

/* of the statements whose rows are being tagged, the innermost */
static StatementWriter *open_statements = NULL;

/* rows that were admitted and have not arrived; the slots of the one that is about to be, if any */
static HTAB *admitted_rows = NULL;
static uint64 admitted_slots = 0;
static bool admitted_any = false;

static Tagging *begin(const AppendRequest *requests, int nrequests, const TagSlotSet *asks);
static Tagging *tag_requests(const AppendRequest *requests, int nrequests,
							 const TagSlotSet *asks);
static void collect_request(const AppendRequest *append, Tagging *tagging, TagSlotSet *set);
static void write_tags(const Tagging *tagging, bool by_triggers);
static void lock_row(const Event *event, ArrayType *given);
static void tag_row(Relation rel, const Event *event, ArrayType *given, bool ends);
static EventTagWriter *statement_writer(void);
static int	trigger_depth(void);
static void admit(Relation rel, const Event *event, ArrayType *given);
static void admitted(Relation rel, int64 position);
static void row_written(Relation rel, const Event *event, ArrayType *given, bool ends);
static void statement_ended(void);
static bool has(const text *tenant_id, int64 position, const text *event_type, ArrayType *tags);
static void add_array(TagList *list, ArrayType *tags);

static const Tagger tagger = {
	.begin = begin,.write = write_tags,.admit = admit,.admitted = admitted,
	.row_written = row_written,.statement_ended = statement_ended,.has = has
};

static void at_transaction_end(XactEvent event, void *arg);
static void at_subtransaction_end(SubXactEvent event, SubTransactionId id,
								  SubTransactionId parent, void *arg);
static void invalidate_relid(Oid relid);
static Oid	table_relid(void);
static bool collect_of_request(TaggedEvent *tagged, const AppendRequest *append, int i,
							   TagSlotSet *set);
static bool collect(TaggedEvent *tagged, const EventPlace *place, ArrayType *given,
					TagSlotSet *set);
static bool add_tags(TaggedEvent *tagged, ArrayType *given, TagSlotSet *set);
static void describe_event(void *arg);
static bool may_be_changed(Relation rel);
static bool is_as_admitted(int64 position, const TagSlotSet *set);
static uint64 hash_slots(const TagSlotSet *set);
static void require_local(Relation rel);
static void write_row(EventTagWriter *writer, const Event *event, text *tag);
static void flush(EventTagWriter *writer);
static bool begin_at(EventTagScan *scan, int64 position);
static bool next_entry(EventTagScan *scan);
static void text_scan_key(ScanKey key, AttrNumber attno, const text *value);
static int	compare_tags(const ListCell *a, const ListCell *b);

void
EventTagsInit(void)
{
	TaggingSetTagger(&tagger);
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	RelationChangeObserve(invalidate_relid);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE ||
		event == XACT_EVENT_PARALLEL_PRE_COMMIT)
		return;
	/* they go with the transaction */
	admitted_rows = NULL;
	open_statements = NULL;
}

/* Statements that ended with an error; what they had open goes with their transaction. */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (open_statements && open_statements->nest_level >= GetCurrentTransactionNestLevel())
		open_statements = open_statements->outer;
}

/* While the oid is not known, every relation may be the one. */
static void
invalidate_relid(Oid relid)
{
	if (relid == InvalidOid || !OidIsValid(event_tags_relid) || relid == event_tags_relid)
	{
		event_tags_relid = InvalidOid;
		event_tags_is_local = false;
		relid_invalidations++;
	}
}

/* The oid of event_tags, cached. */
static Oid
table_relid(void)
{
	Oid			relid = event_tags_relid;

	if (!OidIsValid(relid))
	{
		uint64		started = relid_invalidations;

		relid = ExtensionRelid("event_tags");
		/* kept only if nothing was said against it meanwhile */
		if (started == relid_invalidations)
			event_tags_relid = relid;
	}
	return relid;
}

/*-------------------------------------------------------------------------
 * appending
 *-------------------------------------------------------------------------
 */

/* Add the slots that the events of a request have; see event_tags.h. */
void
EventTagsAddSlots(const AppendRequest *append, TagSlotSet *set)
{
	int			i;

	if (append->tags == NULL && !TagDefinitionIsAny())
		return;
	for (i = 0; i < append->nevents; i++)
	{
		TaggedEvent tagged;

		CHECK_FOR_INTERRUPTS();
		(void) collect_of_request(&tagged, append, i, set);
	}
}

/* Of Tagger: the tags of an append, whose slots are locked; NULL when there are none to write. */
static Tagging *
begin(const AppendRequest *requests, int nrequests, const TagSlotSet *asks)
{
	bool		any = TagDefinitionIsAny();
	int			i;

	for (i = 0; i < nrequests; i++)
		any |= requests[i].tags != NULL;
	if (any)
		return tag_requests(requests, nrequests, asks);
	if (asks)
		TagSlotsAcquire(asks);
	return NULL;
}

static Tagging *
tag_requests(const AppendRequest *requests, int nrequests, const TagSlotSet *asks)
{
	Tagging    *tagging = palloc(sizeof(Tagging));
	TagSlotSet	set = {{0}, {0}};
	uint64		nevents = 0;
	int			i;

	if (asks)
		set = *asks;
	for (i = 0; i < nrequests; i++)
		nevents += requests[i].nevents;
	tagging->n = 0;
	tagging->events = MemoryContextAllocHuge(CurrentMemoryContext, nevents * sizeof(TaggedEvent));
	for (i = 0; i < nrequests; i++)
		collect_request(&requests[i], tagging, &set);
	TagSlotsAcquire(&set);
	return tagging->n > 0 ? tagging : NULL;
}

static void
collect_request(const AppendRequest *append, Tagging *tagging, TagSlotSet *set)
{
	int			i;

	for (i = 0; i < append->nevents; i++)
	{
		TaggedEvent *tagged = &tagging->events[tagging->n];

		CHECK_FOR_INTERRUPTS();
		(void) collect_of_request(tagged, append, i, set);
		if (tagged->defined.n + tagged->given.n > 0)
			tagging->n++;
	}
}

static bool
collect_of_request(TaggedEvent *tagged, const AppendRequest *append, int i, TagSlotSet *set)
{
	EventPlace	place = {.event = &append->events[i],.append = append};

	return collect(tagged, &place, append->tags ? append->tags[i] : NULL, set);
}

/*
 * Find out the tags of an event, those that are defined for its type, and those it was
 * given beside, or NULL; and add to the set the slots that it has.  False when it has none.
 * Of an error the context says with which event.
 */
static bool
collect(TaggedEvent *tagged, const EventPlace *place, ArrayType *given, TagSlotSet *set)
{
	ErrorContextCallback context = {
		.previous = error_context_stack,.callback = describe_event,
		.arg = unconstify(EventPlace *, place)
	};
	bool		any;

	memset(tagged, 0, sizeof(TaggedEvent));
	tagged->event = place->event;
	error_context_stack = &context;
	any = add_tags(tagged, given, set);
	error_context_stack = context.previous;
	return any;
}

static void
describe_event(void *arg)
{
	const EventPlace *place = arg;
	const AppendRequest *append = place->append;
	int			i;
	StreamKey	key;

	EventKey(place->event, &key);
	if (append == NULL || append->origin == NULL)
	{
		errcontext("event for stream \"%s\"", StreamKeyName(&key));
		return;
	}
	i = (int) (place->event - append->events);
	errcontext("event %d of %s, for stream \"%s\"", append->numbers ? append->numbers[i] : i + 1,
			   append->origin, StreamKeyName(&key));
}

static bool
add_tags(TaggedEvent *tagged, ArrayType *given, TagSlotSet *set)
{
	const Event *event = tagged->event;
	text	   *event_type = EventText(event, EVENT_EVENT_TYPE);
	text	   *tenant_id = EventText(event, EVENT_TENANT_ID);
	const TagDefinition *definition = TagDefinitionOf(event_type);
	int			i;

	if (definition && definition->ntemplates > 0)
	{
		Jsonb	   *payload = DatumGetJsonbP(event->values[EVENT_PAYLOAD]);
		char	   *name = text_to_cstring(event_type);
		char	   *of = psprintf("an event of type \"%s\"", name);

		for (i = 0; i < definition->ntemplates; i++)
			(void) TagTemplateApply(&definition->templates[i], payload, &tagged->defined, of);
		pfree(of);
		pfree(name);
	}
	if (given)
	{
		Datum	   *datums;
		int			n;

		deconstruct_array(given, TEXTOID, -1, false, TYPALIGN_INT, &datums, NULL, &n);
		for (i = 0; i < n; i++)
			if (!TagListHas(&tagged->defined, DatumGetTextPP(datums[i])))
				TagListAdd(&tagged->given, DatumGetTextPP(datums[i]));
		pfree(datums);
	}
	if (tagged->defined.n + tagged->given.n > TAG_LIST_MAX)
		TagListReportTooMany();
	if (definition)
		TagSlotSetAddHas(set, TagSlotOfType(tenant_id, event_type));
	for (i = 0; i < tagged->defined.n; i++)
		TagSlotSetAddHas(set, TagSlotOfTag(tenant_id, tagged->defined.tags[i]));
	for (i = 0; i < tagged->given.n; i++)
		TagSlotSetAddHas(set, TagSlotOfTag(tenant_id, tagged->given.tags[i]));
	return definition != NULL || tagged->given.n > 0;
}

/* Of Tagger: the events are in the log, and have their positions. */
static void
write_tags(const Tagging *tagging, bool by_triggers)
{
	EventTagWriter *writer = NULL;
	uint64		i;

	for (i = 0; i < tagging->n; i++)
	{
		const TaggedEvent *tagged = &tagging->events[i];

		if (by_triggers && tagged->given.n == 0)
			continue;
		if (writer == NULL)
			writer = EventTagsWriterOpen();
		if (!by_triggers)
			EventTagsWriterAdd(writer, tagged->event, &tagged->defined);
		EventTagsWriterAdd(writer, tagged->event, &tagged->given);
	}
	if (writer)
		EventTagsWriterClose(writer);
}

/*-------------------------------------------------------------------------
 * rows that come by SQL
 *-------------------------------------------------------------------------
 */

/* Of Tagger: lock the slots of a row that is about to be inserted. */
static void
admit(Relation rel, const Event *event, ArrayType *given)
{
	admitted_any = given || TagDefinitionIsAny();
	if (admitted_any)
		lock_row(event, given);
}

static void
lock_row(const Event *event, ArrayType *given)
{
	EventPlace	place = {.event = event};
	TaggedEvent tagged;
	TagSlotSet	set = {{0}, {0}};

	(void) collect(&tagged, &place, given, &set);
	admitted_slots = hash_slots(&set);
	TagSlotsAcquire(&set);
}

/* Of Tagger: remember the slots of the row that was admitted, if it may be changed yet. */
static void
admitted(Relation rel, int64 position)
{
	HASHCTL		control = {
		.keysize = sizeof(int64),.entrysize = sizeof(AdmittedRow),.hcxt = TopTransactionContext
	};
	AdmittedRow *row;

	if (!admitted_any || !may_be_changed(rel))
		return;
	if (admitted_rows == NULL)
		admitted_rows = hash_create("cqrs_es admitted rows", 64, &control,
									HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	row = hash_search(admitted_rows, &position, HASH_ENTER, NULL);
	row->slots = admitted_slots;
}

/* Of Tagger: write the tags of a row; 09000 when they are not those it was admitted with. */
static void
row_written(Relation rel, const Event *event, ArrayType *given, bool ends)
{
	if (given || TagDefinitionIsAny())
		tag_row(rel, event, given, ends);
}

static void
tag_row(Relation rel, const Event *event, ArrayType *given, bool ends)
{
	EventPlace	place = {.event = event};
	TaggedEvent tagged;
	TagSlotSet	set = {{0}, {0}};
	EventTagWriter *writer;

	(void) collect(&tagged, &place, given, &set);
	if (!TagSlotsAreHeld(&set) ||
		(may_be_changed(rel) && !is_as_admitted(EventGlobalPosition(event), &set)))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("the tags of an event have changed after it was admitted"),
				 errdetail("Readers of its tags would not have waited for it."),
				 errhint("Give a trigger that changes events a name that comes before \"admit_event\", and define tags in a statement of its own.")));
	if (tagged.defined.n + tagged.given.n == 0)
		return;
	writer = ends ? statement_writer() : EventTagsWriterOpen();
	EventTagsWriterAdd(writer, event, &tagged.defined);
	EventTagsWriterAdd(writer, event, &tagged.given);
	/* whoever is told of the event must see them */
	if (ends)
		flush(writer);
	else
		EventTagsWriterClose(writer);
}

/*
 * The table, open to write until the end of the statement whose rows are being tagged, which is
 * told by its trigger: opening it costs more than what is written for a row.  Triggers of its
 * rows run at one depth, one behind the other, and whatever statements they set off themselves
 * run deeper and have ended when they return.
 */
static EventTagWriter *
statement_writer(void)
{
	int			depth = trigger_depth();
	MemoryContext memory;
	MemoryContext caller;
	StatementWriter *statement = open_statements;

	if (statement && statement->trigger_depth >= depth)
	{
		if (statement->trigger_depth > depth ||
			statement->nest_level != GetCurrentTransactionNestLevel())
			elog(ERROR, "a statement has not ended whose rows were tagged");
		return statement->writer;
	}
	memory = AllocSetContextCreate(CurTransactionContext, "cqrs_es tags of a statement",
								   ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(memory);
	statement = palloc(sizeof(StatementWriter));
	statement->outer = open_statements;
	statement->writer = EventTagsWriterOpen();
	statement->trigger_depth = depth;
	statement->nest_level = GetCurrentTransactionNestLevel();
	statement->memory = memory;
	open_statements = statement;
	MemoryContextSwitchTo(caller);
	return statement->writer;
}

/* Of Tagger: all rows of a statement have been written. */
static void
statement_ended(void)
{
	StatementWriter *statement = open_statements;

	if (statement == NULL || statement->trigger_depth != trigger_depth())
		return;
	open_statements = statement->outer;
	EventTagsWriterClose(statement->writer);
	MemoryContextDelete(statement->memory);
}

/* How many triggers are running, one within the other. */
static int
trigger_depth(void)
{
	return DatumGetInt32(DirectFunctionCall1(pg_trigger_depth, (Datum) 0));
}

/* Of Tagger: are all these tags written? */
static bool
has(const text *tenant_id, int64 position, const text *event_type, ArrayType *tags)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TagList		written = {0};
	Datum	   *datums;
	int			n;
	int			i;

	add_array(&written, DatumGetArrayTypeP(EventTagsOf(tenant_id, position, event_type, snapshot)));
	UnregisterSnapshot(snapshot);
	deconstruct_array(tags, TEXTOID, -1, false, TYPALIGN_INT, &datums, NULL, &n);
	for (i = 0; i < n; i++)
		if (!TagListHas(&written, DatumGetTextPP(datums[i])))
			return false;
	return true;
}

static void
add_array(TagList *list, ArrayType *tags)
{
	Datum	   *datums;
	int			n;
	int			i;

	deconstruct_array(tags, TEXTOID, -1, false, TYPALIGN_INT, &datums, NULL, &n);
	for (i = 0; i < n; i++)
		TagListAdd(list, DatumGetTextPP(datums[i]));
	pfree(datums);
}

/*
 * Is there a trigger that sees the row when it has been admitted, and may change it?  They
 * are called in the order of their names.  Looks at a cache's memory: nothing in here may look
 * into the catalog.
 */
static bool
may_be_changed(Relation rel)
{
	const TriggerDesc *triggers = rel->trigdesc;
	int			i;

	for (i = triggers ? triggers->numtriggers - 1 : -1; i >= 0; i--)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (TRIGGER_FOR_INSERT(trigger->tgtype) && TRIGGER_FOR_ROW(trigger->tgtype) &&
			TRIGGER_FOR_BEFORE(trigger->tgtype))
			return strcmp(trigger->tgname, "admit_event") != 0;
	}
	return false;
}

/* Has the row that was admitted at the position just these slots?  It is forgotten then. */
static bool
is_as_admitted(int64 position, const TagSlotSet *set)
{
	AdmittedRow *row = admitted_rows == NULL ? NULL :
		hash_search(admitted_rows, &position, HASH_REMOVE, NULL);

	return row != NULL && row->slots == hash_slots(set);
}

static uint64
hash_slots(const TagSlotSet *set)
{
	return hash_bytes_extended((const unsigned char *) set->has, sizeof(set->has), 0);
}

/*-------------------------------------------------------------------------
 * writing
 *-------------------------------------------------------------------------
 */

/*
 * Open event_tags to write.  Takes RowExclusiveLock on it until the transaction ends.
 * Palloc'd.  QE606 when it is distributed: what is written below the executor would be lost; QE608
 * when the log is.
 */
EventTagWriter *
EventTagsWriterOpen(void)
{
	EventTagWriter *writer = palloc0(sizeof(EventTagWriter));

	EventsRefuseDistributed("tags");
	writer->memory = CurrentMemoryContext;
	writer->rel = table_open(table_relid(), RowExclusiveLock);
	if (!event_tags_is_local)
		require_local(writer->rel);
	writer->estate = CreateExecutorState();
	writer->result_rel = makeNode(ResultRelInfo);
	InitResultRelInfo(writer->result_rel, writer->rel, 0, NULL, 0);
	ExecOpenIndices(writer->result_rel, false);
	return writer;
}

static void
require_local(Relation rel)
{
	uint64		started = relid_invalidations;

	DistributionRefuse(rel, "tags");
	event_tags_is_local = started == relid_invalidations;
}

/* Write tags of an event, which stays as it is until the writer is closed. */
void
EventTagsWriterAdd(EventTagWriter *writer, const Event *event, const TagList *tags)
{
	int			i;

	for (i = 0; i < tags->n; i++)
		write_row(writer, event, tags->tags[i]);
}

/* What was written is visible to the transaction then. */
void
EventTagsWriterClose(EventTagWriter *writer)
{
	int			i;

	flush(writer);
	for (i = 0; i < writer->nslots; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	ExecCloseIndices(writer->result_rel);
	FreeExecutorState(writer->estate);
	table_close(writer->rel, NoLock);
	pfree(writer);
	CommandCounterIncrement();
}

static void
write_row(EventTagWriter *writer, const Event *event, text *tag)
{
	TupleTableSlot *slot;

	if (writer->n == BULK_ROWS)
		flush(writer);
	if (writer->n == writer->nslots)
	{
		MemoryContext caller = MemoryContextSwitchTo(writer->memory);

		writer->slots[writer->nslots++] = table_slot_create(writer->rel, NULL);
		MemoryContextSwitchTo(caller);
	}
	slot = writer->slots[writer->n++];
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	slot->tts_values[TAG_POSITION - 1] = event->values[EVENT_GLOBAL_POSITION];
	slot->tts_values[TAG_TENANT - 1] = event->values[EVENT_TENANT_ID];
	slot->tts_values[TAG_TAG - 1] = PointerGetDatum(tag);
	slot->tts_values[TAG_EVENT_TYPE - 1] = event->values[EVENT_EVENT_TYPE];
	memset(slot->tts_isnull, false, TAG_EVENT_TYPE * sizeof(bool));
	ExecStoreVirtualTuple(slot);
}

/* Put the rows into the table. */
static void
flush(EventTagWriter *writer)
{
	int			i;

	if (writer->n == 0)
		return;
	CHECK_FOR_INTERRUPTS();
	if (writer->rel->rd_att->constr)
		for (i = 0; i < writer->n; i++)
			ExecConstraints(writer->result_rel, writer->slots[i], writer->estate);
	table_multi_insert(writer->rel, writer->slots, writer->n, GetCurrentCommandId(true), 0, NULL);
	for (i = 0; i < writer->n; i++)
	{
		(void) compat_ExecInsertIndexTuples(writer->result_rel, writer->slots[i], writer->estate,
											false, NULL, NIL);
		ExecClearTuple(writer->slots[i]);
		ResetPerTupleExprContext(writer->estate);
	}
	writer->n = 0;
}

/*-------------------------------------------------------------------------
 * finding
 *-------------------------------------------------------------------------
 */

/* Begin to look for the events that have a tag; see event_tags.h. */
EventTagScan *
EventTagsScanBegin(const text *tenant_id, const text *tag, Snapshot snapshot)
{
	EventTagScan *scan = palloc0(sizeof(EventTagScan));

	scan->heap = table_open(table_relid(), AccessShareLock);
	scan->index = index_open(ExtensionRelid("event_tags_tag_idx"), AccessShareLock);
	scan->slot = table_slot_create(scan->heap, NULL);
	scan->scan = compat_index_beginscan(scan->heap, scan->index, snapshot, 3);
	scan->direction = NoMovementScanDirection;
	text_scan_key(&scan->keys[0], 1, tag);
	text_scan_key(&scan->keys[1], 2, tenant_id);
	return scan;
}

/* The first event with the tag at or above the position, or below; see event_tags.h. */
bool
EventTagsScanSeek(EventTagScan *scan, int64 position, ScanDirection direction,
				  int64 *found, text **event_type)
{
	bool		forward = ScanDirectionIsForward(direction);
	bool		goes_on = scan->direction == direction &&
		(forward ? position >= scan->sought : position <= scan->sought);
	int			passed = 0;

	if (goes_on)
	{
		/* between what was sought and what was found there is nothing */
		while (!scan->at_end && passed < NEAR_ENTRIES &&
			   (forward ? scan->found < position : scan->found > position))
		{
			scan->at_end = !next_entry(scan);
			passed++;
		}
	}
	if (!goes_on ||
		(!scan->at_end && (forward ? scan->found < position : scan->found > position)))
	{
		scan->direction = direction;
		scan->at_end = !begin_at(scan, position);
	}
	scan->sought = position;
	if (!scan->at_end)
	{
		*found = scan->found;
		*event_type = EventTagsScanType(scan);
	}
	return !scan->at_end;
}

/* Go on to the next entry, if it is at the same position; see event_tags.h. */
bool
EventTagsScanNextTied(EventTagScan *scan, text **event_type)
{
	int64		position = scan->found;

	scan->at_end = !next_entry(scan);
	if (!scan->at_end && scan->found == position)
	{
		*event_type = EventTagsScanType(scan);
		return true;
	}
	scan->sought = position + (ScanDirectionIsForward(scan->direction) ? 1 : -1);
	return false;
}

text *
EventTagsScanType(EventTagScan *scan)
{
	bool		isnull;

	return DatumGetTextPP(slot_getattr(scan->slot, TAG_EVENT_TYPE, &isnull));
}

/* Is there an entry for just this?  See event_tags.h. */
bool
EventTagsHas(const text *tenant_id, const text *tag, int64 position, const text *event_type,
			 Snapshot snapshot)
{
	EventTagScan *scan = EventTagsScanBegin(tenant_id, tag, snapshot);
	text	   *found_type;
	int64		found;
	bool		has = EventTagsScanSeek(scan, position, ForwardScanDirection, &found, &found_type) &&
		found == position;

	while (has && !TextEqual(found_type, event_type))
		has = EventTagsScanNextTied(scan, &found_type);
	EventTagsScanEnd(scan);
	return has;
}

void
EventTagsScanEnd(EventTagScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->index, AccessShareLock);
	table_close(scan->heap, AccessShareLock);
	pfree(scan);
}

/* The next tenant that has events with the tag; see event_tags.h. */
text *
EventTagsNextTenant(const text *tag, const text *after, Snapshot snapshot)
{
	Relation	heap = table_open(table_relid(), AccessShareLock);
	Relation	index = index_open(ExtensionRelid("event_tags_tag_idx"), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(heap, NULL);
	IndexScanDesc scan = compat_index_beginscan(heap, index, snapshot, after ? 2 : 1);
	ScanKeyData keys[2];
	text	   *tenant_id = NULL;
	bool		isnull;

	text_scan_key(&keys[0], 1, tag);
	if (after)
		ScanKeyEntryInitialize(&keys[1], 0, 2, BTGreaterStrategyNumber, InvalidOid, C_COLLATION_OID,
							   F_TEXT_GT, PointerGetDatum(after));
	index_rescan(scan, keys, after ? 2 : 1, NULL, 0);
	if (index_getnext_slot(scan, ForwardScanDirection, slot))
		tenant_id = DatumGetTextPCopy(slot_getattr(slot, TAG_TENANT, &isnull));
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(heap, AccessShareLock);
	return tenant_id;
}

/* Descend to the position. */
static bool
begin_at(EventTagScan *scan, int64 position)
{
	bool		forward = ScanDirectionIsForward(scan->direction);

	ScanKeyInit(&scan->keys[2], 3,
				forward ? BTGreaterEqualStrategyNumber : BTLessEqualStrategyNumber,
				forward ? F_INT8GE : F_INT8LE, Int64GetDatum(position));
	index_rescan(scan->scan, scan->keys, 3, NULL, 0);
	return next_entry(scan);
}

static bool
next_entry(EventTagScan *scan)
{
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	if (!index_getnext_slot(scan->scan, scan->direction, scan->slot))
		return false;
	scan->found = DatumGetInt64(slot_getattr(scan->slot, TAG_POSITION, &isnull));
	return true;
}

static void
text_scan_key(ScanKey key, AttrNumber attno, const text *value)
{
	ScanKeyEntryInitialize(key, 0, attno, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID,
						   F_TEXTEQ, PointerGetDatum(value));
}

/* Lock the table for a snapshot; see event_tags.h. */
void
EventTagsLock(void)
{
	LockRelationOid(table_relid(), AccessShareLock);
}

void
EventTagsUnlock(void)
{
	UnlockRelationOid(ExtensionRelid("event_tags"), AccessShareLock);
}

/* Take a tag away from an event; see event_tags.h. */
void
EventTagsRemove(const Event *event, const text *tag)
{
	Relation	heap = table_open(table_relid(), RowExclusiveLock);
	Relation	index = index_open(ExtensionRelid("event_tags_global_position_idx"), AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(heap, NULL);
	IndexScanDesc scan = compat_index_beginscan(heap, index, snapshot, 1);
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, event->values[EVENT_GLOBAL_POSITION]);
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		if (TextEqual(DatumGetTextPP(slot_getattr(slot, TAG_TENANT, &isnull)), EventText(event, EVENT_TENANT_ID)) &&
			TextEqual(DatumGetTextPP(slot_getattr(slot, TAG_EVENT_TYPE, &isnull)), EventText(event, EVENT_EVENT_TYPE)) &&
			TextEqual(DatumGetTextPP(slot_getattr(slot, TAG_TAG, &isnull)), tag))
			simple_table_tuple_delete(heap, &slot->tts_tid, snapshot);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(heap, NoLock);
	CommandCounterIncrement();
}

/* The tags of an event of a tenant as text[]; see event_tags.h. */
Datum
EventTagsOf(const text *tenant_id, int64 position, const text *event_type, Snapshot snapshot)
{
	Relation	heap = table_open(table_relid(), AccessShareLock);
	Relation	index = index_open(ExtensionRelid("event_tags_global_position_idx"), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(heap, NULL);
	IndexScanDesc scan = compat_index_beginscan(heap, index, snapshot, 1);
	ScanKeyData key;
	List	   *tags = NIL;
	ListCell   *lc;
	Datum	   *datums;
	int			n = 0;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(position));
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		if (TextEqual(DatumGetTextPP(slot_getattr(slot, TAG_TENANT, &isnull)), tenant_id) &&
			TextEqual(DatumGetTextPP(slot_getattr(slot, TAG_EVENT_TYPE, &isnull)), event_type))
			tags = lappend(tags, DatumGetTextPCopy(slot_getattr(slot, TAG_TAG, &isnull)));
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(heap, AccessShareLock);

	list_sort(tags, compare_tags);
	datums = palloc(Max(list_length(tags), 1) * sizeof(Datum));
	foreach(lc, tags)
		if (n == 0 || !TextEqual(lfirst(lc), DatumGetTextPP(datums[n - 1])))
		datums[n++] = PointerGetDatum(lfirst(lc));
	return PointerGetDatum(construct_array(datums, n, TEXTOID, -1, false, TYPALIGN_INT));
}

static int
compare_tags(const ListCell *a, const ListCell *b)
{
	return TextCompare(lfirst(a), lfirst(b));
}
