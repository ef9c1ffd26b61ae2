/*-------------------------------------------------------------------------
 * log_end.c
 *	  The greatest position in the log, whoever put it there.
 *
 * A sequence knows what was drawn from it, but not what came by other ways: rows
 * that were restored or replicated below our triggers.  The index on positions
 * knows all of them, also those of transactions that are still running.  Every
 * transaction that appends looks there before each draw (position.c says why once in
 * a transaction is not enough), so the look must be quick: the index is descended
 * once, and one entry is read, whatever became of its row.  Only when that entry is a
 * reason to doubt the sequence are rows looked at.
 *
 * Opening the index costs more than that look.  Whoever writes straight has it open
 * already, and hands it on (event_writer.c).  It was the log's when it was opened,
 * under a lock on the log as INSERT takes it, and it stays so for as long as that
 * lock is held: nobody drops, rewrites or partitions the table without waiting for
 * the lock.  The index itself may be replaced meanwhile by REINDEX CONCURRENTLY, or
 * dropped so; then everybody goes on to put entries into it until all have ended
 * who held the lock when it ceased to be valid.
 *
 * Where the log is distributed the sequence is trusted: its shards take nothing that their node
 * has not drawn, so nothing comes by other ways, and to ask all nodes before each draw would be
 * most of an append.
 *
 * Where the log is partitioned by position, the newest partition that has any tells, in the same
 * way.  On any other log that is not one heap of ours SQL has to, which does not see
 * rows in progress, and is asked once a command.
 *
 * last_position() answers another question: which is the last that a snapshot sees?
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/nbtree.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/internal_query.h"
#include "base/role_switch.h"
#include "base/stream_key.h"
#include "log/event_scan.h"
#include "log/events.h"
#include "log/log_end.h"
#include "log/log_range.h"

PG_FUNCTION_INFO_V1(cqrs_es_last_position);

static bool find_at(Relation heap, Relation index, int64 position, SnapshotData *dirty,
					TupleTableSlot *slot);
static char *stream_in_slot(TupleTableSlot *slot);
static bool last_position(Relation index, int64 bound, int64 *position);
static bool last_entry_cached(Relation index, int64 bound, int64 *position);
static bool last_entry(Relation index, int64 bound, int64 *position);
static bool last_entry_on_page(Relation index, Page page, int64 bound, int64 *position);
static bool last_of_ranges(int64 bound, int64 *position);
static int64 last_row(Relation heap, Relation index, AttrNumber attno, int64 bound);
static int64 query_end(int64 bound);
static int64 query_end_once(int64 bound);

/*
 * SQL: last_position(); null when the log is empty.  With the rights of the log's
 * owner, as a view on it has them: who may see projection_status need not see
 * events.
 */
Datum
cqrs_es_last_position(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "SELECT global_position FROM cqrs_es.events ORDER BY global_position DESC LIMIT 1"
	};
	Datum		position = 0;
	bool		isnull = true;
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	if (InternalQueryRead(&query, NULL, NULL, GetActiveSnapshot()) > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		position = InternalQueryDatum(&row, "global_position", &isnull);
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_INT64(DatumGetInt64(position));
}

/*
 * The greatest position in the log below `bound`, 0 when there is none.  Rows of
 * transactions in progress count.  Unless `exact`, rows of aborted ones may, too:
 * then the answer is quick, and not too low.  `open_index` is the index on positions
 * of a log of one heap that is locked to write, or NULL.  Takes AccessShareLock on the
 * log or its index and gives it back.
 */
int64
LogEnd(int64 bound, bool exact, Relation open_index)
{
	EventsTable table;
	Relation	index = NULL;
	Relation	heap;
	int64		position = 0;

	if (!exact && open_index && last_position(open_index, bound, &position))
		return position;

	/* the index alone, if after the lock it is still the one */
	table = EventsTableGet();
	if (table.node >= 0)
		return 0;
	if (!exact && table.local)
		index = try_relation_open(table.position_index, AccessShareLock);
	if (index)
	{
		EventsTable locked = EventsTableGet();
		bool		known = locked.local && locked.position_index == table.position_index &&
			last_position(index, bound, &position);

		relation_close(index, AccessShareLock);
		if (known)
			return position;
	}

	heap = table_open(EventsLock(AccessShareLock), NoLock);
	table = EventsTableGet();
	if (table.by_position && !exact && last_of_ranges(bound, &position))
		;
	else if (table.local)
	{
		index = index_open(table.position_index, AccessShareLock);
		position = last_row(heap, index, table.columns.attno[EVENT_GLOBAL_POSITION], bound);
		index_close(index, AccessShareLock);
	}
	else
		position = exact ? query_end(bound) : query_end_once(bound);
	table_close(heap, AccessShareLock);
	return position;
}

/*
 * The name of the stream that has an event at the position, NULL when none has.
 * Waits for whoever is about to put one there.  `rel` is the table that a row is
 * to be inserted into, locked; when that is not all of the log, NULL is the answer.
 * Can raise 40P01.
 */
char *
LogEndStreamAt(Relation rel, int64 position)
{
	EventsTable table = EventsTableGet();
	Relation	index;
	TupleTableSlot *slot;
	SnapshotData dirty;
	char	   *stream = NULL;

	if (!table.local || table.relid != RelationGetRelid(rel) ||
		(position < PG_INT64_MAX && LogEnd(position + 1, false, NULL) < position))
		return NULL;
	index = index_open(table.position_index, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	InitDirtySnapshot(dirty);
	while (find_at(rel, index, position, &dirty, slot))
	{
		ItemPointerData tid = slot->tts_tid;

		CHECK_FOR_INTERRUPTS();
		if (!TransactionIdIsValid(dirty.xmin))
		{
			stream = stream_in_slot(slot);
			break;
		}
		ExecClearTuple(slot);
		EventScanAwait(rel, &tid, &dirty);
	}
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return stream;
}

/* A row at the position into the slot, which may be one in progress; false when there is none. */
static bool
find_at(Relation heap, Relation index, int64 position, SnapshotData *dirty, TupleTableSlot *slot)
{
	ScanKeyData key;
	IndexScanDesc scan;
	bool		found;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(position));
	scan = compat_index_beginscan(heap, index, dirty, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, slot);
	index_endscan(scan);
	return found;
}

static char *
stream_in_slot(TupleTableSlot *slot)
{
	EventColumns columns = EventsTableGet().columns;
	StreamKey	key = {NULL};
	bool		isnull;

	key.aggregate_type =
		DatumGetTextPP(slot_getattr(slot, columns.attno[EVENT_AGGREGATE_TYPE], &isnull));
	key.aggregate_id =
		DatumGetTextPP(slot_getattr(slot, columns.attno[EVENT_AGGREGATE_ID], &isnull));
	return StreamKeyName(&key);
}

/* The position of the last entry below the bound; false when it is not to be had quickly. */
static bool
last_position(Relation index, int64 bound, int64 *position)
{
	return last_entry_cached(index, bound, position) || last_entry(index, bound, position);
}

/*
 * The last entry of the index below the bound, from the page where this backend
 * inserted last, if it is the last page of the index; the server remembers it to
 * insert there again.
 */
static bool
last_entry_cached(Relation index, int64 bound, int64 *position)
{
	BlockNumber block = RelationGetTargetBlock(index);
	Buffer		leaf;
	Page		page;
	bool		found;

	if (block == InvalidBlockNumber)
		return false;
	leaf = ReadBuffer(index, block);
	LockBuffer(leaf, BT_READ);
	page = BufferGetPage(leaf);
	found = !PageIsNew(page) && P_ISLEAF(BTPageGetOpaque(page)) &&
		P_RIGHTMOST(BTPageGetOpaque(page)) && !P_IGNORE(BTPageGetOpaque(page)) &&
		last_entry_on_page(index, page, bound, position);
	UnlockReleaseBuffer(leaf);
	return found;
}

/* The same from the page to which the bound leads; false when that page does not tell. */
static bool
last_entry(Relation index, int64 bound, int64 *position)
{
	BTScanInsert key = _bt_mkscankey(index, NULL);
	Buffer		leaf;
	bool		found = false;

	_bt_metaversion(index, &key->heapkeyspace, &key->allequalimage);
	key->keysz = 1;
	key->scankeys[0].sk_flags &= ~SK_ISNULL;
	key->scankeys[0].sk_argument = Int64GetDatum(bound);
	_bt_freestack(compat_bt_search(index, NULL, key, &leaf));
	if (BufferIsValid(leaf))
	{
		found = last_entry_on_page(index, BufferGetPage(leaf), bound, position);
		_bt_relbuf(index, leaf);
	}
	pfree(key);
	return found;
}

/* From the locked leaf page to which the bound leads. */
static bool
last_entry_on_page(Relation index, Page page, int64 bound, int64 *position)
{
	OffsetNumber first = P_FIRSTDATAKEY(BTPageGetOpaque(page));
	OffsetNumber offset;

	/* from behind: nearly always the last one is it */
	for (offset = PageGetMaxOffsetNumber(page); offset >= first; offset = OffsetNumberPrev(offset))
	{
		ItemId		item = PageGetItemId(page, offset);
		bool		isnull;

		*position = DatumGetInt64(index_getattr((IndexTuple) PageGetItem(page, item), 1,
												RelationGetDescr(index), &isnull));
		if (!isnull && *position < bound && !ItemIdIsDead(item))
			return true;
	}
	return false;
}

/*
 * The same of a log that is partitioned by position, from the newest partition down; those that were made
 * ahead have empty indexes, of one page.  Partitions that come or go meanwhile are of no interest: what is
 * in the log now is above, or was there when we began.
 */
static bool
last_of_ranges(int64 bound, int64 *position)
{
	int			i;

	for (i = 0;; i++)
	{
		Oid			oid = LogRangePositionIndex(bound, i);
		Relation	index = OidIsValid(oid) ? try_relation_open(oid, AccessShareLock) : NULL;
		bool		found;
		bool		is_empty;

		if (index == NULL)
			return false;
		/* if after the lock it is still the one */
		found = LogRangePositionIndex(bound, i) == oid && last_position(index, bound, position);
		is_empty = !found && RelationGetNumberOfBlocks(index) <= 1;
		relation_close(index, AccessShareLock);
		if (!is_empty)
			return found;
	}
}

/* The position of the last row below the bound that is not that of an aborted transaction. */
static int64
last_row(Relation heap, Relation index, AttrNumber attno, int64 bound)
{
	TupleTableSlot *slot = table_slot_create(heap, NULL);
	SnapshotData dirty;
	ScanKeyData key;
	IndexScanDesc scan;
	int64		position = 0;
	bool		isnull;

	InitDirtySnapshot(dirty);
	ScanKeyInit(&key, 1, BTLessStrategyNumber, F_INT8LT, Int64GetDatum(bound));
	scan = compat_index_beginscan(heap, index, &dirty, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	if (index_getnext_slot(scan, BackwardScanDirection, slot))
		position = DatumGetInt64(slot_getattr(slot, attno, &isnull));
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return position;
}

static int64
query_end(int64 bound)
{
	static InternalQuery query = {
		.sql = "SELECT pg_catalog.max(global_position) FROM cqrs_es.events"
		" WHERE global_position OPERATOR(pg_catalog.<) $1",
		.nargs = 1,.argtypes = {INT8OID}
	};
	Datum		value = Int64GetDatum(bound);
	int64		position = 0;
	bool		isnull;
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	if (InternalQueryRead(&query, &value, NULL, GetLatestSnapshot()) > 0)
		position = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
											   1, &isnull));
	RoleSwitchBack(&saved);
	SPI_finish();
	return isnull ? 0 : position;
}

/* The same, as of the first time that this command asked. */
static int64
query_end_once(int64 bound)
{
	static LocalTransactionId lxid = InvalidLocalTransactionId;
	static CommandId command;
	static int64 known_bound;
	static int64 position;

	if (lxid != compat_my_lxid() || command != GetCurrentCommandId(false) || known_bound != bound)
	{
		lxid = InvalidLocalTransactionId;
		position = query_end(bound);
		known_bound = bound;
		command = GetCurrentCommandId(false);
		lxid = compat_my_lxid();
	}
	return position;
}
