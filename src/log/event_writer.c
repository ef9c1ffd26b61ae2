/*-------------------------------------------------------------------------
 * event_writer.c
 *	  Puts the events of one append into the log, on one of two paths
 *	  (events.c decides): straight into heap and indexes, or by SQL.
 *
 * Two appends that race for one sequence are arbitrated by the unique index of
 * the streams, on both paths without an error and without a subtransaction: the
 * first row goes in the way INSERT ... ON CONFLICT DO NOTHING does it (on the
 * straight path that is a speculative insertion).  The winner owns the sequences
 * that follow: nobody else can reach them before its transaction has ended, so the
 * other rows go in plainly, in bulk.
 *
 * Where a lost race is an error anyway, the first row goes in plainly as well, which spares a
 * lock and a record of the WAL.  Who loses finds that out after having waited, and has no entry
 * in that index then; the row goes with the error.
 *
 * A speculative insertion is needed even though a racing row could simply be
 * deleted again: logical decoding would report an event that never was.  As in
 * the server, the lock of its token is held from before the row is there until it
 * stays or is gone.  A session that meets the row waits for that lock; without it,
 * the session would look again and again, and the deadlock detector would not see
 * what it waits for.
 *
 * Nobody may wait for a transaction while a row of its own is speculative, for
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
 * others until it is gone.  But every session looks for the end of the stream, and
 * waits for each row that it meets there, before each try; so in an unbroken chain
 * of rows each session has only one, and behind its last the next row wins.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
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
#include "base/stream_key.h"
#include "log/event_writer.h"
#include "log/log_range.h"
#include "log/position.h"

/* rows that go to the heap at once */
#define BULK_ROWS 64

static void open_indexes(EventWriter *writer);
static void close_indexes(EventWriter *writer);
static Relation open_index(const EventWriter *writer, Oid index);
static EventWriterOutcome insert_straight(EventWriter *writer, Event *events, int nevents,
										  bool plainly);
static EventWriterOutcome insert_first(EventWriter *writer);
static EventWriterOutcome insert_first_plainly(EventWriter *writer);
static bool is_taken(const EventWriter *writer, const ErrorData *error);
static void insert_bulk(EventWriter *writer, Event *events, int nevents);
static void store_event(TupleTableSlot *slot, const EventColumns *columns,
						const Event *event);
static EventWriterOutcome insert_generic(const EventWriter *writer, Event *events, int nevents,
										 bool plainly);

/*
 * Open the log for one append.  Which way leads to it is asked here, once, under
 * the lock: what would make another answer right (another unique index, a trigger,
 * a rule, a policy, partitions) does not come into being for our rows while we have
 * that lock.  The catalog is not asked again, and nothing of a cache is kept but
 * what is open.
 *
 * Takes RowExclusiveLock on the log and its indexes, to the end of the transaction.
 * Raises as EventsTableGet does.
 */
void
EventWriterOpen(EventWriter *writer)
{
	writer->rel = table_open(EventsLock(RowExclusiveLock), NoLock);
	writer->table = EventsTableGet();
	writer->reads_straight = EventsReadStraight(&writer->table);
	writer->straight = EventsWriteStraight(&writer->table);
	writer->result_rel = NULL;
	if (writer->straight)
		open_indexes(writer);
}

/*
 * Draw the position of an event that will be inserted, behind all that is in its
 * stream: the caller has seen the stream's end.  On both paths before anything is
 * inserted, so that positions rise in the order in which they are drawn, whichever
 * stream is written first.
 */
void
EventWriterDraw(EventWriter *writer, Event *event)
{
	Relation	positions = writer->straight ?
		open_index(writer, writer->table.position_index) : NULL;

	CHECK_FOR_INTERRUPTS();
	event->values[EVENT_GLOBAL_POSITION] = Int64GetDatum(PositionDraw(0, positions));
	writer->drawn_in = PositionEpoch();
}

/* The end of the stream on the path that will be taken; see EventScanTip. */
StreamTip
EventWriterTip(const EventWriter *writer, const StreamKey *key, const StreamTip *seen)
{
	Relation	index;
	TupleTableSlot *slot;
	StreamTip	tip;

	if (writer->table.by_position)
		return LogRangeTip(key);
	if (!writer->reads_straight)
		return EventScanTipByQuery(key);
	if (writer->straight)
		return EventScanTip(writer->rel, open_index(writer, writer->table.stream_index),
							&writer->table.columns, key, seen, writer->slot);
	index = index_open(writer->table.stream_index, AccessShareLock);
	slot = table_slot_create(writer->rel, NULL);
	tip = EventScanTip(writer->rel, index, &writer->table.columns, key, seen, slot);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return tip;
}

/*
 * Insert events with consecutive sequences that follow the stream's end, at the
 * positions that were drawn for them.  They are LOST when somebody else took the first
 * sequence (or holds it, in a transaction that is still running): then the caller looks
 * at the stream again, and draws anew, unless events of other streams are written already.
 * (Then these here must be at the version they were drawn behind, or are not written at all.)
 *
 * By SQL, other unique indexes and triggers can keep the row out, too.  A caller that
 * finds the stream where it was asks for it `plainly`: then it goes in, or an error
 * says why not, or it is SUPPRESSED, which must not be passed over.  On the straight path that
 * is for a caller who will not try again: then they are a CONFLICT instead of LOST, and the
 * caller has to raise an error that says so.
 *
 * Rights have been checked.  The command counter is advanced: what was written is
 * visible.  Nobody has been told of what went in straight; of what went in by SQL
 * its triggers have told, or queued it (dispatch.c).  Close the writer before anybody is
 * told: whoever is may do with the indexes what the trigger of an INSERT may.
 */
EventWriterOutcome
EventWriterInsert(EventWriter *writer, Event *events, int nevents, bool plainly)
{
	return writer->straight ? insert_straight(writer, events, nevents, plainly) :
		insert_generic(writer, events, nevents, plainly);
}

/* The log and its indexes stay locked to the end of the transaction. */
void
EventWriterClose(EventWriter *writer)
{
	if (writer->result_rel)
		close_indexes(writer);
	table_close(writer->rel, NoLock);
}

/*-------------------------------------------------------------------------
 * straight
 *-------------------------------------------------------------------------
 */

/* No range table, and no triggers, whose description InitResultRelInfo would copy. */
static void
open_indexes(EventWriter *writer)
{
	writer->estate = CreateExecutorState();
	writer->result_rel = makeNode(ResultRelInfo);
	writer->slot = table_slot_create(writer->rel, NULL);
	writer->result_rel->ri_RelationDesc = writer->rel;
	ExecOpenIndices(writer->result_rel, false);
}

/* They stay locked like the log: to give a lock back costs more than the end of the transaction. */
static void
close_indexes(EventWriter *writer)
{
	ResultRelInfo *result_rel = writer->result_rel;
	int			i;

	ExecDropSingleTupleTableSlot(writer->slot);
	for (i = 0; i < result_rel->ri_NumIndices; i++)
	{
		compat_index_insert_cleanup(result_rel->ri_IndexRelationDescs[i],
									result_rel->ri_IndexRelationInfo[i]);
		index_close(result_rel->ri_IndexRelationDescs[i], NoLock);
	}
	FreeExecutorState(writer->estate);
	writer->result_rel = NULL;
}

/* One of the open indexes. */
static Relation
open_index(const EventWriter *writer, Oid index)
{
	int			i;

	for (i = 0; i < writer->result_rel->ri_NumIndices; i++)
		if (RelationGetRelid(writer->result_rel->ri_IndexRelationDescs[i]) == index)
			return writer->result_rel->ri_IndexRelationDescs[i];
	elog(ERROR, "index %u of the log is not open", index);
}

static EventWriterOutcome
insert_straight(EventWriter *writer, Event *events, int nevents, bool plainly)
{
	EventWriterOutcome outcome;

	store_event(writer->slot, &writer->table.columns, &events[0]);
	if (writer->rel->rd_att->constr)
		ExecConstraints(writer->result_rel, writer->slot, writer->estate);
	outcome = plainly ? insert_first_plainly(writer) : insert_first(writer);
	if (outcome == EVENTS_INSERTED && nevents > 1)
		insert_bulk(writer, events + 1, nevents - 1);
	if (outcome != EVENTS_CONFLICT)
		CommandCounterIncrement();
	return outcome;
}

/* Insert what is in the slot speculatively; LOST when the stream index has a row in the way. */
static EventWriterOutcome
insert_first(EventWriter *writer)
{
	Relation	rel = writer->rel;
	TupleTableSlot *slot = writer->slot;
	TransactionId xid = GetCurrentTransactionId();
	uint32		token;
	bool		conflict = false;

	token = SpeculativeInsertionLockAcquire(xid);
	table_tuple_insert_speculative(rel, slot, GetCurrentCommandId(true), 0, NULL, token);
	(void) compat_ExecInsertIndexTuples(writer->result_rel, slot, writer->estate, true, &conflict,
										list_make1_oid(writer->table.stream_index));
	table_tuple_complete_speculative(rel, slot, token, !conflict);
	SpeculativeInsertionLockRelease(xid);
	return conflict ? EVENTS_LOST : EVENTS_INSERTED;
}

/*
 * Insert it plainly; CONFLICT when the stream index has a row in the way, whose transaction has
 * committed by now.  That is an error of the index, which holds no page when it raises it; we
 * take it for the one that the caller raises in its place.
 */
static EventWriterOutcome
insert_first_plainly(EventWriter *writer)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile EventWriterOutcome outcome = EVENTS_INSERTED;

	table_tuple_insert(writer->rel, writer->slot, GetCurrentCommandId(true), 0, NULL);
	PG_TRY();
	{
		(void) compat_ExecInsertIndexTuples(writer->result_rel, writer->slot, writer->estate,
											false, NULL, NIL);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		if (!is_taken(writer, error))
			PG_RE_THROW();
		FlushErrorState();
		outcome = EVENTS_CONFLICT;
	}
	PG_END_TRY();
	return outcome;
}

/* Does the error say that the stream index has another row with this sequence? */
static bool
is_taken(const EventWriter *writer, const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_UNIQUE_VIOLATION && error->constraint_name != NULL &&
		strcmp(error->constraint_name,
			   RelationGetRelationName(open_index(writer, writer->table.stream_index))) == 0;
}

/* Insert plainly, BULK_ROWS at a time; a duplicate raises 23505. */
static void
insert_bulk(EventWriter *writer, Event *events, int nevents)
{
	Relation	rel = writer->rel;
	ResultRelInfo *result_rel = writer->result_rel;
	EState	   *estate = writer->estate;
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
			store_event(slots[i], &writer->table.columns, &events[done + i]);
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
 * foreign engines have their say.  The positions are kept as if the column default had
 * just drawn them, so that the admitting trigger knows them for ours; and the time comes from
 * that trigger, for one that is given is kept.  (Where it does not fire, on a replica, ours is
 * given.)
 *
 * Unless `plainly`, the first row is LOST when it is kept out.
 */
static EventWriterOutcome
insert_generic(const EventWriter *writer, Event *events, int nevents, bool plainly)
{
#define INSERT_EVENT \
	"INSERT INTO cqrs_es.events (" EVENT_COLUMN_LIST ")" \
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
#define RETURNING_EVENT "RETURNING global_position, created_at"
#define INSERT_TYPES \
	.nargs = EVENT_NCOLUMNS,.argtypes = {INT8OID, INT8OID, TIMESTAMPTZOID, UUIDOID, TEXTOID, \
		TEXTOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID}
	static InternalQuery first = {
		.sql = INSERT_EVENT " ON CONFLICT DO NOTHING " RETURNING_EVENT,
		INSERT_TYPES
	};
	static InternalQuery first_beside_deferrable = {
		.sql = INSERT_EVENT
		" ON CONFLICT (aggregate_type, aggregate_id, tenant_id, sequence) DO NOTHING"
		" " RETURNING_EVENT,
		INSERT_TYPES
	};
	static InternalQuery next = {
		.sql = INSERT_EVENT " " RETURNING_EVENT,
		INSERT_TYPES
	};
	InternalQuery *query = plainly ? &next :
		writer->table.deferrable ? &first_beside_deferrable : &first;
	char		nulls[EVENT_NCOLUMNS];
	int			i;

	memset(nulls, ' ', sizeof(nulls));
	if (SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA)
		nulls[EVENT_CREATED_AT] = 'n';
	SPI_connect();
	for (i = 0; i < nevents; i++)
	{
		bool		isnull;

		PositionKeep(EventGlobalPosition(&events[i]), writer->drawn_in);
		if (InternalQueryWrite(i == 0 ? query : &next, events[i].values, nulls) == 0)
			break;
		events[i].values[EVENT_GLOBAL_POSITION] =
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		events[i].values[EVENT_CREATED_AT] =
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_finish();
	if (i == nevents)
		return EVENTS_INSERTED;
	return i == 0 && !plainly ? EVENTS_LOST : EVENTS_SUPPRESSED;
}
