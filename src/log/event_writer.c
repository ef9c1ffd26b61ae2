/*-------------------------------------------------------------------------
 * event_writer.c
 *	  Puts the events of one append into the log, on one of two paths
 *	  (events.c decides): straight into heap and indexes, or by SQL.
 *
 * Two appends that race for one sequence are arbitrated by the unique index of
 * the streams, on both paths without an error and without a subtransaction: the
 * first row goes in the way INSERT ... ON CONFLICT DO NOTHING does it (on the
 * straight path that is a speculative insertion).  Who wins it owns the
 * sequences that follow: nobody else can reach them before this transaction has
 * ended, so the other rows go in plainly, in bulk.
 *
 * A speculative insertion is needed even though a racing row could simply be
 * deleted again: logical decoding would report an event that never was.  As in
 * the server, it holds the lock of its token from before the row is there until
 * it stays or is gone.  Whoever meets the row waits for that lock; without it
 * he would look again and again, and the deadlock detector would not see whom he
 * waits for.
 *
 * Nobody may wait for a transaction while his own row is speculative, for
 * others wait for that row.  So the straight path is for tables with no other
 * unique index, whether valid, being built, or left by a REINDEX CONCURRENTLY that
 * was cancelled: those are checked at once, which can wait.  By SQL, ON CONFLICT DO
 * NOTHING without naming an index checks all of them before the row is there,
 * and only takes note while it is speculative.  (Where a constraint is
 * deferrable the server wants the index named.  Then other unique indexes are
 * waited for in a way that can end in 40P01, and an append that races during a
 * REINDEX CONCURRENTLY can fail with 23505.)
 *
 * Why lost races end.  An index takes the entries of a key one after the other,
 * and the row that finds none wins.  A row that found one is doomed, and dooms
 * others until it is gone.  But everybody looks for the end of the stream, and
 * waits for every row he meets there, before each try; so in an unbroken chain
 * of rows each session has only one, and behind its last the next row wins.
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
#include "storage/lmgr.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/internal_query.h"
#include "log/dispatch.h"
#include "log/event_writer.h"
#include "log/position.h"

/* rows that go to the heap at once */
#define BULK_ROWS 64

static bool insert_straight(Relation rel, const EventsTable *table, Event *events, int nevents);
static bool insert_first(ResultRelInfo *result_rel, TupleTableSlot *slot,
						 EState *estate, Oid stream_index);
static void insert_bulk(ResultRelInfo *result_rel, EState *estate,
						const EventColumns *columns, Event *events, int nevents);
static void store_event(TupleTableSlot *slot, const EventColumns *columns,
						const Event *event);
static bool insert_generic(const EventsTable *table, Event *events, int nevents, bool plainly);
pg_noreturn static void report_suppressed(const Event *event);

/*
 * The end of the stream on the path that will be taken.  `rel` is the log,
 * locked in RowExclusiveLock.
 */
StreamTip
EventWriterTip(Relation rel, const StreamKey *key)
{
	EventsTable table = EventsTableGet();

	return EventsReadStraight(&table) ?
		EventsTip(rel, table.stream_index, &table.columns, key) :
		EventsTipByQuery(key);
}

/*
 * Insert events with consecutive sequences that follow the stream's
 * end, and tell the observers.  Fills in their global positions.  Returns
 * false when somebody else took the first sequence (or holds it, in a
 * transaction that is still running): then nothing was written, and the caller
 * looks at the stream again.
 *
 * By SQL, other unique indexes and triggers can keep the row out, too.  Who finds
 * the stream where it was asks for it `plainly`: then it goes in, or the answer
 * is an error that says why.
 *
 * `rel` is the log, locked in RowExclusiveLock.  Rights have been checked.
 * The command counter is advanced: what was written is visible.
 */
bool
EventWriterInsert(Relation rel, Event *events, int nevents, bool plainly)
{
	EventsTable table = EventsTableGet();

	if (EventsWriteStraight(&table))
		return insert_straight(rel, &table, events, nevents);
	return insert_generic(&table, events, nevents, plainly);
}

/*-------------------------------------------------------------------------
 * straight
 *-------------------------------------------------------------------------
 */

static bool
insert_straight(Relation rel, const EventsTable *table, Event *events, int nevents)
{
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

	store_event(slot, &table->columns, &events[0]);
	inserted = insert_first(result_rel, slot, estate, table->stream_index);
	ExecDropSingleTupleTableSlot(slot);
	if (inserted && nevents > 1)
		insert_bulk(result_rel, estate, &table->columns, events + 1, nevents - 1);

	ExecCloseIndices(result_rel);
	FreeExecutorState(estate);
	CommandCounterIncrement();

	if (inserted)
		DispatchEvents(events, nevents);
	return inserted;
}

/* Insert speculatively; false when the stream index has a row in the way. */
static bool
insert_first(ResultRelInfo *result_rel, TupleTableSlot *slot, EState *estate,
			 Oid stream_index)
{
	Relation	rel = result_rel->ri_RelationDesc;
	TransactionId xid = GetCurrentTransactionId();
	uint32		token;
	bool		conflict = false;

	if (rel->rd_att->constr)
		ExecConstraints(result_rel, slot, estate);
	token = SpeculativeInsertionLockAcquire(xid);
	table_tuple_insert_speculative(rel, slot, GetCurrentCommandId(true), 0, NULL, token);
	(void) compat_ExecInsertIndexTuples(result_rel, slot, estate, true, &conflict,
										list_make1_oid(stream_index));
	table_tuple_complete_speculative(rel, slot, token, !conflict);
	SpeculativeInsertionLockRelease(xid);
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
 *
 * `plainly`: not false but an error when the first row is kept out.
 */
static bool
insert_generic(const EventsTable *table, Event *events, int nevents, bool plainly)
{
#define INSERT_EVENT \
	"INSERT INTO cqrs_es.events (sequence, created_at, event_id, tenant_id," \
	" aggregate_type, aggregate_id, event_type, event_version, payload, metadata)" \
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
#define INSERT_TYPES \
	.nargs = 10,.argtypes = {INT8OID, TIMESTAMPTZOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID, \
		TEXTOID, TEXTOID, JSONBOID, JSONBOID}
	static InternalQuery first = {
		.sql = INSERT_EVENT " ON CONFLICT DO NOTHING RETURNING global_position",
		INSERT_TYPES
	};
	static InternalQuery first_beside_deferrable = {
		.sql = INSERT_EVENT
		" ON CONFLICT (aggregate_type, aggregate_id, tenant_id, sequence) DO NOTHING"
		" RETURNING global_position",
		INSERT_TYPES
	};
	static InternalQuery next = {
		.sql = INSERT_EVENT " RETURNING global_position",
		INSERT_TYPES
	};
	InternalQuery *query = plainly ? &next :
		table->deferrable ? &first_beside_deferrable : &first;
	bool		held = DispatchHold();	/* until all of them are in the log */
	int			i;

	SPI_connect();
	for (i = 0; i < nevents; i++)
	{
		bool		isnull;

		/* the parameters are the columns after the position */
		if (InternalQueryWrite(i == 0 ? query : &next,
							   &events[i].values[EVENT_SEQUENCE], NULL) == 0)
		{
			if (i > 0 || plainly)
				report_suppressed(&events[i]);
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
static void
report_suppressed(const Event *event)
{
	StreamKey	key;

	EventKey(event, &key);
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
			 errmsg("the event for stream \"%s\" was not inserted", StreamName(&key)),
			 errdetail("A trigger, rule or policy on the events table suppressed the row.")));
}
