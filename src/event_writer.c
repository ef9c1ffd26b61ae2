/*-------------------------------------------------------------------------
 * event_writer.c
 *	  Puts the events of one append into the log, on one of two paths
 *	  (events.c decides): straight into heap and indexes, or by SQL.
 *
 * Two appends that race for one sequence are arbitrated by the primary key, on
 * both paths without an error and without a subtransaction: the first row goes
 * in the way INSERT ... ON CONFLICT DO NOTHING does it (on the straight path
 * that is a speculative insertion).  Who wins it owns the sequences that
 * follow: nobody else can reach them before this transaction has ended, so the
 * other rows go in plainly, in bulk.
 *
 * A speculative insertion is needed even though a racing row could simply be
 * deleted again: logical decoding would report an event that never was.  What it
 * does without is the heavyweight lock that ON CONFLICT holds on its token.
 * Whoever meets a speculative row waits for that lock before he looks again; here
 * he gets it at once and looks again and again, for the microseconds until both
 * indexes have the row.  The lock costs every append more than that.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "compat.h"
#include "dispatch.h"
#include "event_writer.h"
#include "internal_query.h"
#include "position.h"

/* rows that go to the heap at once */
#define BULK_ROWS 64

static bool insert_straight(Relation rel, Event *events, int nevents);
static bool insert_first(ResultRelInfo *result_rel, TupleTableSlot *slot,
						 EState *estate, Oid primary_key);
static void insert_bulk(ResultRelInfo *result_rel, EState *estate,
						const EventColumns *columns, Event *events, int nevents);
static void store_event(TupleTableSlot *slot, const EventColumns *columns,
						const Event *event);
static bool insert_generic(Event *events, int nevents);

/*
 * The end of the stream on the path that will be taken.  `rel` is the log,
 * locked in RowExclusiveLock.
 */
StreamTip
EventWriterTip(Relation rel, const StreamKey *key)
{
	const EventsTable *table = EventsTableGet();

	return EventsReadStraight(table) ?
		EventsTip(rel, table->primary_key, &table->columns, key) :
		EventsTipByQuery(key);
}

/*
 * Insert events with consecutive sequences that follow the stream's
 * end, and tell the observers.  Fills in their global positions.  Returns
 * false when somebody else took the first sequence (or holds it, in a
 * transaction that is still running): then nothing was written, and the caller
 * looks at the stream again.
 *
 * `rel` is the log, locked in RowExclusiveLock.  Rights have been checked.
 * The command counter is advanced: what was written is visible.
 */
bool
EventWriterInsert(Relation rel, Event *events, int nevents)
{
	if (EventsWriteStraight(EventsTableGet()))
		return insert_straight(rel, events, nevents);
	return insert_generic(events, nevents);
}

/*-------------------------------------------------------------------------
 * straight
 *-------------------------------------------------------------------------
 */

static bool
insert_straight(Relation rel, Event *events, int nevents)
{
	EventColumns columns = EventsTableGet()->columns;
	Oid			primary_key = EventsTableGet()->primary_key;
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *result_rel = makeNode(ResultRelInfo);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		inserted;
	int			i;

	/* no range table: relation and indexes are opened and closed by us */
	InitResultRelInfo(result_rel, rel, 0, NULL, 0);
	ExecOpenIndices(result_rel, false);

	/* drawn after the stream's end is known, so positions rise in it */
	for (i = 0; i < nevents; i++)
		events[i].values[EVENT_GLOBAL_POSITION] = Int64GetDatum(PositionDraw(0));

	store_event(slot, &columns, &events[0]);
	inserted = insert_first(result_rel, slot, estate, primary_key);
	ExecDropSingleTupleTableSlot(slot);
	if (inserted && nevents > 1)
		insert_bulk(result_rel, estate, &columns, events + 1, nevents - 1);

	ExecCloseIndices(result_rel);
	FreeExecutorState(estate);
	CommandCounterIncrement();

	if (inserted)
		DispatchEvents(events, nevents);
	return inserted;
}

/* Insert speculatively; false when the primary key has a row in the way. */
static bool
insert_first(ResultRelInfo *result_rel, TupleTableSlot *slot, EState *estate,
			 Oid primary_key)
{
	Relation	rel = result_rel->ri_RelationDesc;
	static uint32 token = 0;
	bool		conflict = false;

	if (rel->rd_att->constr)
		ExecConstraints(result_rel, slot, estate);
	token = token % PG_UINT32_MAX + 1;
	table_tuple_insert_speculative(rel, slot, GetCurrentCommandId(true), 0, NULL, token);
	(void) compat_ExecInsertIndexTuples(result_rel, slot, estate, true, &conflict,
										list_make1_oid(primary_key));
	table_tuple_complete_speculative(rel, slot, token, !conflict);
	return !conflict;
}

/* Insert plainly, BULK_ROWS at a time; a duplicate raises 23505. */
static void
insert_bulk(ResultRelInfo *result_rel, EState *estate, const EventColumns *columns,
			Event *events, int nevents)
{
	Relation	rel = result_rel->ri_RelationDesc;
	CommandId	cid = GetCurrentCommandId(true);
	BulkInsertState bulk = GetBulkInsertState();
	MemoryContext chunk_memory = AllocSetContextCreate(CurrentMemoryContext,
													   "cqrs_es bulk insert",
													   ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = CurrentMemoryContext;
	TupleTableSlot *slots[BULK_ROWS];
	int			nslots = Min(nevents, BULK_ROWS);
	int			done;
	int			i;

	for (i = 0; i < nslots; i++)
		slots[i] = table_slot_create(rel, NULL);
	for (done = 0; done < nevents; done += nslots)
	{
		int			n = Min(nslots, nevents - done);

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(chunk_memory);
		for (i = 0; i < n; i++)
		{
			store_event(slots[i], columns, &events[done + i]);
			if (rel->rd_att->constr)
				ExecConstraints(result_rel, slots[i], estate);
		}
		table_multi_insert(rel, slots, n, cid, 0, bulk);
		for (i = 0; i < n; i++)
		{
			(void) compat_ExecInsertIndexTuples(result_rel, slots[i], estate,
												false, NULL, NIL);
			ExecClearTuple(slots[i]);
			ResetPerTupleExprContext(estate);
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(chunk_memory);
	}
	for (i = 0; i < nslots; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	FreeBulkInsertState(bulk);
	MemoryContextDelete(chunk_memory);
}

/* The event as a row of the table; columns we do not know are null. */
static void
store_event(TupleTableSlot *slot, const EventColumns *columns, const Event *event)
{
	int			column;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	for (column = 0; column < EVENT_NCOLUMNS; column++)
	{
		slot->tts_values[columns->attno[column] - 1] = event->values[column];
		slot->tts_isnull[columns->attno[column] - 1] = false;
	}
	ExecStoreVirtualTuple(slot);
}

/*-------------------------------------------------------------------------
 * generic
 *-------------------------------------------------------------------------
 */

/*
 * By SQL, with the caller's own rights: policies, partitions, triggers and
 * foreign engines have their say.  Positions come from the column default, so
 * that the admitting trigger knows them for ours.
 */
static bool
insert_generic(Event *events, int nevents)
{
#define INSERT_EVENT \
	"INSERT INTO cqrs_es.events (sequence, created_at, event_id, tenant_id," \
	" aggregate_type, aggregate_id, event_type, event_version, payload, metadata)" \
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
#define INSERT_TYPES \
	.nargs = 10,.argtypes = {INT8OID, TIMESTAMPTZOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID, \
		TEXTOID, TEXTOID, JSONBOID, JSONBOID}
	static InternalQuery first = {
		.sql = INSERT_EVENT
		" ON CONFLICT (aggregate_type, aggregate_id, tenant_id, sequence) DO NOTHING"
		" RETURNING global_position",
		INSERT_TYPES
	};
	static InternalQuery next = {
		.sql = INSERT_EVENT " RETURNING global_position",
		INSERT_TYPES
	};
	bool		held = DispatchHold();	/* until all of them are in the log */
	int			i;

	SPI_connect();
	for (i = 0; i < nevents; i++)
	{
		bool		isnull;

		/* the parameters are the columns after the position */
		if (InternalQueryWrite(i == 0 ? &first : &next,
							   &events[i].values[EVENT_SEQUENCE], NULL) == 0)
		{
			if (i > 0)
				EventWriterSuppressed(&events[i]);
			SPI_finish();
			DispatchRelease(held);
			return false;
		}
		events[i].values[EVENT_GLOBAL_POSITION] =
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_finish();
	DispatchRelease(held);
	return true;
}

/* Something on the table swallowed a row, which append must not pass over. */
void
EventWriterSuppressed(const Event *event)
{
	StreamKey	key;

	EventKey(event, &key);
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
			 errmsg("the event for stream \"%s\" was not inserted", StreamName(&key)),
			 errdetail("A trigger, rule or policy on the events table suppressed the row.")));
}
