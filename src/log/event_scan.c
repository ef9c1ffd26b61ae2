/*-------------------------------------------------------------------------
 * event_scan.c
 *	  Reading the rows of the log: the end of a stream, the events of a stream,
 *	  the whole log.
 *
 * On the straight way rows come from the heap in the order of an index
 * (row_scan.c), and the end of a stream from the last entry of its index
 * (last_row.c); on the generic way from a cursor.  events.c decides which.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/tupmacs.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/role_switch.h"
#include "base/stream_key.h"
#include "base/text.h"
#include "log/event_error.h"
#include "log/event_scan.h"
#include "log/last_row.h"
#include "log/reserved_type.h"
#include "log/row_scan.h"

/* rows fetched at once on the generic way */
#define GENERIC_FETCH_ROWS 128

/*
 * What a cursor over a distributed log gives: its nodes send all that a query asks for before the first
 * row is there.  No two events have one position there.
 */
#define PORTION_ROWS 1000

/* How the columns of fixed size lie in a row; those of texts and jsonb follow. */
typedef struct FixedColumns
{
	int64		global_position;
	int64		sequence;
	TimestampTz created_at;
	pg_uuid_t	event_id;
} FixedColumns;

/* A scan over events, one of the two ways. */
struct EventScan
{
	EventColumns columns;
	bool		row_is_event;	/* are these all columns, in their order? */

	/* straight: an ordered index scan */
	Relation	heap;			/* NULL on the generic way */
	Relation	index;
	RowScan    *scan;
	bool		until_tenant;	/* ends before the first event of a tenant */
	Datum	   *row_values;
	bool	   *row_nulls;

	/* generic: a cursor */
	Portal		portal;
	SPITupleTable *rows;
	uint64		nrows;
	uint64		next_row;
	uint64		nfetched;		/* by this cursor */
	InternalQuery *portions;	/* of a distributed log: a cursor for so many rows, then
								 * the next */
	Snapshot	snapshot;
	int64		position;		/* of the last row */
	bool		as_caller;		/* because row security concerns them */
};

static inline bool is_complete(HeapTuple row);
static void event_from_row(HeapTuple row, Event *event);
static bool find_last_row(Relation rel, Relation index, const EventColumns *columns,
						  const StreamKey *key, Snapshot snapshot, TupleTableSlot *slot,
						  LastRowPlace *place);
static StreamTip tip_from_slot(TupleTableSlot *slot, const EventColumns *columns);
static StreamEnd end_by(Datum event_type, bool isnull);
static void note_tip_read(Relation rel, Relation index, const EventColumns *columns,
						  const StreamKey *key, TupleTableSlot *slot);
static StreamTip query_tip(const StreamKey *key, bool latest);
static Datum key_is(PG_FUNCTION_ARGS);
static void text_scan_key(ScanKey key, Relation index, int i, text *value);
static text *stream_key_value(Relation index, int i, const EventColumns *columns,
							  const StreamKey *key);
static EventScan *scan_begin(Relation heap, Relation index, const EventColumns *columns,
							 ScanKey keys, int nkeys,
							 ScanDirection direction, Snapshot snapshot);
static EventScan *scan_stream(const StreamKey *key, int64 from_sequence,
							  ScanDirection direction, Snapshot snapshot, bool as_caller);
static EventScan *scan_at(int64 position, Snapshot snapshot, bool as_caller);
static EventScan *scan_begin_generic(InternalQuery *query, Datum *values,
									 Snapshot snapshot, bool as_caller);
static void open_cursor(EventScan *scan, InternalQuery *query, Datum *values, Snapshot snapshot);
static void close_cursor(EventScan *scan);
static RoleSwitch switch_for_scan(const EventScan *scan);
static bool scan_next_generic(EventScan *scan, Event *event);

/*-------------------------------------------------------------------------
 * the end of a stream
 *-------------------------------------------------------------------------
 */

/*
 * The end of a stream, as of now, whatever snapshot the caller runs under: the
 * last row that is committed or our own, the rows of the running command
 * included (an INSERT of many rows, a COPY).  When someone else's transaction
 * holds the end, waits for it to end and looks again.
 *
 * Where it has been `seen` before (else NULL), and nothing has come to its page since, that is told at once.
 * `rel` is locked, and `index`, open, the one that guards its streams; `slot` is one of `rel`, and
 * empty afterwards.  Above READ
 * COMMITTED, after_snapshot tells that the end is not in the transaction's snapshot;
 * in SERIALIZABLE the look counts as a read, where it has to (note_tip_read).  Can
 * raise 40P01 when the wait closes a circle.
 *
 * It ends: who inserts speculatively holds the lock of the token from before
 * the row is there until it stays or is gone, so each round waits in the lock
 * manager until the row that it met has become something else.  A round without
 * a wait has met a row that did so meanwhile.
 */
StreamTip
EventScanTip(Relation rel, Relation index, const EventColumns *columns,
			 const StreamKey *key, const StreamTip *seen, TupleTableSlot *slot)
{
	SnapshotData dirty;
	StreamTip	tip;
	LastRowPlace place;
	TransactionId in_progress;
	bool		waited = false;

	InitDirtySnapshot(dirty);
	do
	{
		ItemPointerData tid;

		CHECK_FOR_INTERRUPTS();
		memset(&tip, 0, sizeof(tip));
		in_progress = InvalidTransactionId;
		if ((seen != NULL && LastRowIsStill(rel, index, &seen->place, &dirty, slot)) ||
			find_last_row(rel, index, columns, key, &dirty, slot, &place))
		{
			in_progress = dirty.xmin;
			tid = slot->tts_tid;
			if (!TransactionIdIsValid(in_progress))
				tip = tip_from_slot(slot, columns);
		}
		ExecClearTuple(slot);
		if (TransactionIdIsValid(in_progress))
		{
			EventScanAwait(rel, &tid, &dirty);
			waited = true;
		}
	} while (TransactionIdIsValid(in_progress));
	tip.waited = waited;
	if (IsolationIsSerializable() && IsSubTransaction())
		note_tip_read(rel, index, columns, key, slot);
	ExecClearTuple(slot);
	return tip;
}

/* The stream's last row into the slot, and where it was met; false when there is none. */
static bool
find_last_row(Relation rel, Relation index, const EventColumns *columns,
			  const StreamKey *key, Snapshot snapshot, TupleTableSlot *slot, LastRowPlace *place)
{
	text	   *values[3];
	LastRow		last;
	ScanKeyData keys[3];
	IndexScanDesc scan;
	bool		found;
	int			i;

	for (i = 0; i < 3; i++)
		values[i] = stream_key_value(index, i, columns, key);
	last = LastRowFind(rel, index, values, 3, snapshot, slot, place);
	if (last != LAST_ROW_UNKNOWN)
		return last == LAST_ROW_FOUND;

	EventScanStreamKeys(keys, index, columns, key);
	scan = compat_index_beginscan(rel, index, snapshot, 3);
	index_rescan(scan, keys, 3, NULL, 0);
	found = index_getnext_slot(scan, BackwardScanDirection, slot);
	index_endscan(scan);
	return found;
}

/* The row in the slot as the end of its stream. */
static StreamTip
tip_from_slot(TupleTableSlot *slot, const EventColumns *columns)
{
	StreamTip	tip;
	bool		isnull;

	tip.version = DatumGetInt64(slot_getattr(slot, columns->attno[EVENT_SEQUENCE], &isnull));
	tip.global_position =
		DatumGetInt64(slot_getattr(slot, columns->attno[EVENT_GLOBAL_POSITION], &isnull));
	tip.created_at =
		DatumGetTimestampTz(slot_getattr(slot, columns->attno[EVENT_CREATED_AT], &isnull));
	tip.event_id = *DatumGetUUIDP(slot_getattr(slot, columns->attno[EVENT_EVENT_ID], &isnull));
	tip.end = end_by(slot_getattr(slot, columns->attno[EVENT_EVENT_TYPE], &isnull), isnull);
	tip.after_snapshot = false;
	tip.place.index = InvalidOid;
	if (IsolationUsesXactSnapshot())
	{
		HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, NULL);
		TransactionId xmin = HeapTupleHeaderGetXmin(tuple->t_data);

		/* a frozen row's xid is that of FrozenTransactionId, whatever it was */
		tip.after_snapshot = TransactionIdIsNormal(xmin) &&
			!TransactionIdIsCurrentTransactionId(xmin) &&
			XidInMVCCSnapshot(xmin, GetTransactionSnapshot());
	}
	return tip;
}

/*
 * Wait until the row that a dirty snapshot has met, which its transaction has not ended
 * with, has become something else.  Without a pin on any page.  Can raise 40P01.
 */
void
EventScanAwait(Relation rel, ItemPointer tid, const SnapshotData *dirty)
{
	if (dirty->speculativeToken != 0)
		SpeculativeInsertionWait(dirty->xmin, dirty->speculativeToken);
	else
		XactLockTableWait(dirty->xmin, rel, tid, XLTW_InsertIndex);
}

/*
 * SERIALIZABLE goes by what a transaction has read, and a look with a dirty
 * snapshot leaves no trace.  It needs none where the caller then writes behind
 * the end: nobody who is concurrent can do that as well.  But an append that
 * failed its version check, or was undone, in a subtransaction has told its
 * transaction where the stream ends.  So look once more, as any index scan under
 * the transaction's snapshot does: it locks the page, for those who come, and
 * meets the rows of those who were there already.
 */
static void
note_tip_read(Relation rel, Relation index, const EventColumns *columns,
			  const StreamKey *key, TupleTableSlot *slot)
{
	Snapshot	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	IndexScanDesc scan = compat_index_beginscan(rel, index, snapshot, 3);
	ScanKeyData keys[3];

	EventScanStreamKeys(keys, index, columns, key);
	index_rescan(scan, keys, 3, NULL, 0);
	(void) index_getnext_slot(scan, BackwardScanDirection, slot);
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
}

/* 40001: what after_snapshot means to whoever wants to write. */
void
EventScanReportMoved(const StreamKey *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access: stream \"%s\" moved on since the transaction's snapshot",
					StreamKeyName(key)),
			 errhint("Retry the transaction.")));
}

/* QE006 for a closed stream, QE008 for a deleted one, unless the extension may append all the same. */
void
EventScanRequireOpen(const StreamKey *key, const StreamTip *tip)
{
	char	   *version;

	if (tip->end == STREAM_OPEN || ReservedTypeIsAllowed(tip->end == STREAM_DELETED))
		return;
	if (tip->end == STREAM_DELETED)
		EventScanReportDeleted(key, tip->version);
	version = psprintf(INT64_FORMAT, tip->version);
	ereport(ERROR,
			(errcode(ERRCODE_STREAM_CLOSED),
			 errmsg("stream \"%s\" is closed", StreamKeyName(key)),
			 errdetail("Its last event, at version %s, says so.", version),
			 errhint("Begin another stream, or let this one go on with reopen_stream()."),
			 EventErrorFields(key, version, CLOSED_EVENT_TYPE)));
}

/* QE008. */
void
EventScanReportDeleted(const StreamKey *key, int64 at_version)
{
	char	   *version = psprintf(INT64_FORMAT, at_version);

	ereport(ERROR,
			(errcode(ERRCODE_STREAM_DELETED),
			 errmsg("stream \"%s\" has been deleted", StreamKeyName(key)),
			 errdetail("Its last event, at version %s, says so.", version),
			 errhint("Begin another stream, or let this one begin anew with reopen_stream()."),
			 EventErrorFields(key, version, DELETED_EVENT_TYPE)));
}

/* What may come behind a last event of this type? */
static StreamEnd
end_by(Datum event_type, bool isnull)
{
	const text *type = DatumGetTextPP(event_type);

	if (isnull || !ReservedTypeIs(type))
		return STREAM_OPEN;
	return ReservedTypeEquals(type, CLOSED_EVENT_TYPE) ? STREAM_CLOSED :
		ReservedTypeEquals(type, DELETED_EVENT_TYPE) ? STREAM_DELETED : STREAM_OPEN;
}

/* A stream that was restored may have any sequences; can so many follow?  2200H. */
void
EventScanRequireRoom(const StreamKey *key, const StreamTip *tip, int nevents)
{
	if (tip->version > PG_INT64_MAX - nevents)
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				 errmsg("stream \"%s\" is full", StreamKeyName(key)),
				 errdetail("It is at version %lld.", (long long) tip->version)));
}

/*
 * The end of a stream on the generic way, by SQL.  It does not see rows in progress: a
 * race for the next sequence shows when it is inserted.
 */
StreamTip
EventScanTipByQuery(const StreamKey *key)
{
	StreamTip	tip = query_tip(key, false);

	if (IsolationUsesXactSnapshot() && query_tip(key, true).version != tip.version)
		tip.after_snapshot = true;
	return tip;
}

/* With the newest snapshot, or with that of the isolation level. */
static StreamTip
query_tip(const StreamKey *key, bool latest)
{
	static InternalQuery query = {
		.sql = "SELECT sequence, global_position, created_at, event_id, event_type FROM cqrs_es.events"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND aggregate_id OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3"
		" ORDER BY sequence DESC LIMIT 1",
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[3] = {PointerGetDatum(key->aggregate_type),
		PointerGetDatum(key->aggregate_id),
		PointerGetDatum(key->tenant_id)};
	StreamTip	tip = {0};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	if (InternalQueryRead(&query, values, NULL, latest ? GetLatestSnapshot() : InternalQueryFreshSnapshot()) > 0)
	{
		bool		isnull;
		HeapTuple	row = SPI_tuptable->vals[0];

		tip.version = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		tip.global_position = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
		tip.created_at = DatumGetTimestampTz(SPI_getbinval(row, SPI_tuptable->tupdesc, 3, &isnull));
		tip.event_id = *DatumGetUUIDP(SPI_getbinval(row, SPI_tuptable->tupdesc, 4, &isnull));
		tip.end = end_by(SPI_getbinval(row, SPI_tuptable->tupdesc, 5, &isnull), isnull);
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	return tip;
}

/*-------------------------------------------------------------------------
 * scans
 *-------------------------------------------------------------------------
 */

/*
 * The events of one stream in the order of their sequence: from from_sequence
 * up (forward), or from it down (backward; PG_INT64_MAX: from the end).  The caller has
 * checked the right to read, and keeps the snapshot registered until
 * EventScanEnd.  Scans nest; end them in reverse order.
 */
EventScan *
EventScanStream(const StreamKey *key, int64 from_sequence,
				ScanDirection direction, Snapshot snapshot)
{
	return scan_stream(key, from_sequence, direction, snapshot, EventsRowSecurity());
}

/*
 * The same of all events, whatever row security would show the caller: for what is
 * kept of them for everybody, and for no rows that are handed out.
 */
EventScan *
EventScanWholeStream(const StreamKey *key, int64 from_sequence,
					 ScanDirection direction, Snapshot snapshot)
{
	return scan_stream(key, from_sequence, direction, snapshot, false);
}

static EventScan *
scan_stream(const StreamKey *key, int64 from_sequence,
			ScanDirection direction, Snapshot snapshot, bool as_caller)
{
	static InternalQuery forward = {
		.sql = "SELECT " EVENT_COLUMN_LIST " FROM cqrs_es.events"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND aggregate_id OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3"
		" AND sequence OPERATOR(pg_catalog.>=) $4 ORDER BY sequence",
		.nargs = 4,.argtypes = {TEXTOID, TEXTOID, TEXTOID, INT8OID}
	};
	static InternalQuery backward = {
		.sql = "SELECT " EVENT_COLUMN_LIST " FROM cqrs_es.events"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND aggregate_id OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3"
		" AND sequence OPERATOR(pg_catalog.<=) $4 ORDER BY sequence DESC",
		.nargs = 4,.argtypes = {TEXTOID, TEXTOID, TEXTOID, INT8OID}
	};
	bool		is_forward = ScanDirectionIsForward(direction);
	EventsTable table;
	Relation	heap = EventsOpenStraight(&table);

	if (heap)
	{
		Relation	index = index_open(table.stream_index, AccessShareLock);
		ScanKeyData keys[4];

		EventScanStreamKeys(keys, index, &table.columns, key);

		/* every key is compared with every event, so none that they all fulfil */
		if (is_forward ? from_sequence <= 1 : from_sequence == PG_INT64_MAX)
		{
			bool		tenants_follow = is_forward && VARSIZE_ANY_EXHDR(key->tenant_id) == 0 &&
				index->rd_index->indkey.values[2] == table.columns.attno[EVENT_TENANT_ID];
			EventScan  *scan = scan_begin(heap, index, &table.columns, keys,
										  tenants_follow ? 2 : 3, direction, snapshot);

			/* the empty tenant comes first, so its events end where others begin */
			scan->until_tenant = tenants_follow;
			return scan;
		}
		ScanKeyInit(&keys[3], 4,
					is_forward ? BTGreaterEqualStrategyNumber : BTLessEqualStrategyNumber,
					is_forward ? F_INT8GE : F_INT8LE, Int64GetDatum(from_sequence));
		return scan_begin(heap, index, &table.columns, keys, 4, direction, snapshot);
	}
	else
	{
		Datum		values[4] = {PointerGetDatum(key->aggregate_type),
			PointerGetDatum(key->aggregate_id),
			PointerGetDatum(key->tenant_id),
			Int64GetDatum(from_sequence)};

		return scan_begin_generic(is_forward ? &forward : &backward, values, snapshot, as_caller);
	}
}

/*
 * The stream's events with this id, by the index that has ids; events of other streams may be
 * among them.  As EventScanStream else.
 */
EventScan *
EventScanId(const StreamKey *key, const pg_uuid_t *id, Snapshot snapshot)
{
	static InternalQuery query = {
		.sql = "SELECT " EVENT_COLUMN_LIST " FROM cqrs_es.events"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND aggregate_id OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3"
		" AND event_id OPERATOR(pg_catalog.=) $4",
		.nargs = 4,.argtypes = {TEXTOID, TEXTOID, TEXTOID, UUIDOID}
	};
	EventsTable table;
	Relation	heap = EventsOpenStraight(&table);
	Datum		values[4] = {PointerGetDatum(key->aggregate_type),
		PointerGetDatum(key->aggregate_id),
		PointerGetDatum(key->tenant_id),
		UUIDPGetDatum(id)};
	ScanKeyData keys[4];
	Relation	index;
	int			i;

	/* it may have been dropped since the caller asked */
	if (heap && !OidIsValid(table.id_index))
	{
		table_close(heap, AccessShareLock);
		heap = NULL;
	}
	if (heap == NULL)
		return scan_begin_generic(&query, values, snapshot, EventsRowSecurity());
	index = index_open(table.id_index, AccessShareLock);
	for (i = 0; index->rd_index->indkey.values[i] != table.columns.attno[EVENT_EVENT_ID]; i++)
		text_scan_key(&keys[i], index, i, stream_key_value(index, i, &table.columns, key));
	ScanKeyInit(&keys[i], i + 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	return scan_begin(heap, index, &table.columns, keys, i + 1, ForwardScanDirection, snapshot);
}

/*
 * The stream's last event as the snapshot sees it, in so far as a StreamTip
 * tells of it; waits for nobody.  The caller has checked the right to read.  In
 * SERIALIZABLE the end of the stream has then been read.
 */
StreamTip
EventScanLast(const StreamKey *key, Snapshot snapshot)
{
	StreamTip	tip = {0};
	EventsTable table;

	/* a scan leaves the traces that SERIALIZABLE goes by */
	Relation	heap = IsolationIsSerializable() ? NULL : EventsOpenStraight(&table);

	snapshot = RegisterSnapshot(snapshot);
	if (heap)
	{
		Relation	index = index_open(table.stream_index, AccessShareLock);
		TupleTableSlot *slot = table_slot_create(heap, NULL);
		LastRowPlace place;

		if (find_last_row(heap, index, &table.columns, key, snapshot, slot, &place))
		{
			tip = tip_from_slot(slot, &table.columns);
			tip.place = place;
		}
		ExecDropSingleTupleTableSlot(slot);
		index_close(index, AccessShareLock);
		table_close(heap, AccessShareLock);
	}
	else
	{
		EventScan  *scan = EventScanStream(key, PG_INT64_MAX, BackwardScanDirection, snapshot);
		Event		event;

		if (EventScanNext(scan, &event))
			tip = EventScanTipOf(&event);
		EventScanEnd(scan);
	}
	UnregisterSnapshot(snapshot);
	return tip;
}

/* What a StreamTip tells of an event. */
StreamTip
EventScanTipOf(const Event *event)
{
	StreamTip	tip = {
		.version = EventSequence(event),
		.global_position = EventGlobalPosition(event),
		.created_at = DatumGetTimestampTz(event->values[EVENT_CREATED_AT]),
		.event_id = *DatumGetUUIDP(event->values[EVENT_EVENT_ID]),
		.end = end_by(event->values[EVENT_EVENT_TYPE], false)
	};

	return tip;
}

/*
 * Do both tell of the same event, or both of none?  A sequence alone may be that of another
 * one, where the first was rolled back.
 */
bool
EventScanSameTip(const StreamTip *a, const StreamTip *b)
{
	return a->version == b->version && a->global_position == b->global_position &&
		a->created_at == b->created_at &&
		memcmp(&a->event_id, &b->event_id, UUID_LEN) == 0;
}

/*
 * An aggregate of this type that has events, of whatever tenant: its id, palloc'd;
 * NULL when there is none that is visible now.
 */
char *
EventScanAggregateId(const text *aggregate_type)
{
	/* ordered, lest the planner looks for the first in the heap */
	static InternalQuery query = {
		.sql = "SELECT aggregate_id FROM cqrs_es.events"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 ORDER BY aggregate_id LIMIT 1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(aggregate_type);
	MemoryContext caller = CurrentMemoryContext;
	char	   *aggregate_id = NULL;
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	if (InternalQueryRead(&query, &value, NULL, GetLatestSnapshot()) > 0)
		aggregate_id = MemoryContextStrdup(caller, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	RoleSwitchBack(&saved);
	SPI_finish();
	return aggregate_id;
}

/*
 * The stream's version now, without what this transaction itself has appended
 * since it was at that command; waits for nobody.
 */
int64
EventScanVersionWithout(const StreamKey *key, CommandId since)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		version;

	snapshot->curcid = since;
	version = EventScanLast(key, snapshot).version;
	UnregisterSnapshot(snapshot);
	return version;
}

/*
 * The whole log, all tenants, in the order of global positions: above the
 * position (forward), or from it down (backward).  As EventScanStream else.
 */
EventScan *
EventScanLog(int64 position, ScanDirection direction, Snapshot snapshot)
{
	static InternalQuery forward = {
		.sql = "SELECT " EVENT_COLUMN_LIST " FROM cqrs_es.events"
		" WHERE global_position OPERATOR(pg_catalog.>) $1 ORDER BY global_position",
		.nargs = 1,.argtypes = {INT8OID}
	};
	static InternalQuery backward = {
		.sql = "SELECT " EVENT_COLUMN_LIST " FROM cqrs_es.events"
		" WHERE global_position OPERATOR(pg_catalog.<=) $1 ORDER BY global_position DESC",
		.nargs = 1,.argtypes = {INT8OID}
	};
	static InternalQuery forward_portion = {
		.sql = "SELECT " EVENT_COLUMN_LIST " FROM cqrs_es.events"
		" WHERE global_position OPERATOR(pg_catalog.>) $1 ORDER BY global_position"
		" LIMIT " CppAsString2(PORTION_ROWS),
		.nargs = 1,.argtypes = {INT8OID}
	};
	static InternalQuery backward_portion = {
		.sql = "SELECT " EVENT_COLUMN_LIST " FROM cqrs_es.events"
		" WHERE global_position OPERATOR(pg_catalog.<) $1 ORDER BY global_position DESC"
		" LIMIT " CppAsString2(PORTION_ROWS),
		.nargs = 1,.argtypes = {INT8OID}
	};
	bool		is_forward = ScanDirectionIsForward(direction);
	EventsTable table;
	Relation	heap = EventsOpenStraight(&table);

	if (heap)
	{
		Relation	index = index_open(table.position_index, AccessShareLock);
		ScanKeyData key;

		ScanKeyInit(&key, 1,
					is_forward ? BTGreaterStrategyNumber : BTLessEqualStrategyNumber,
					is_forward ? F_INT8GT : F_INT8LE, Int64GetDatum(position));
		return scan_begin(heap, index, &table.columns, &key, 1, direction, snapshot);
	}
	else if (table.node >= 0)
	{
		/* a portion begins behind the row that ended the last one */
		Datum		value = Int64GetDatum(is_forward ? position : Min(position, PG_INT64_MAX - 1) + 1);
		InternalQuery *portions = is_forward ? &forward_portion : &backward_portion;
		EventScan  *scan = scan_begin_generic(portions, &value, snapshot, EventsRowSecurity());

		scan->portions = portions;
		scan->snapshot = snapshot;
		return scan;
	}
	else
	{
		Datum		value = Int64GetDatum(position);

		return scan_begin_generic(is_forward ? &forward : &backward, &value, snapshot,
								  EventsRowSecurity());
	}
}

/* The events at a position: one, or several of a log that was brought together. */
EventScan *
EventScanAt(int64 position, Snapshot snapshot)
{
	return scan_at(position, snapshot, EventsRowSecurity());
}

/* The same whatever row security would show the caller; see EventScanWholeStream. */
EventScan *
EventScanWholeAt(int64 position, Snapshot snapshot)
{
	return scan_at(position, snapshot, false);
}

static EventScan *
scan_at(int64 position, Snapshot snapshot, bool as_caller)
{
	static InternalQuery query = {
		.sql = "SELECT " EVENT_COLUMN_LIST " FROM cqrs_es.events"
		" WHERE global_position OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {INT8OID}
	};
	EventScan  *scan = EventScanPositions(snapshot);
	Datum		value = Int64GetDatum(position);

	if (scan == NULL)
		return scan_begin_generic(&query, &value, snapshot, as_caller);
	EventScanSeek(scan, position);
	return scan;
}

/*
 * A scan for whoever looks at one position after the other (EventScanSeek); there are no
 * events before the first is named.  NULL where the log cannot be read straight.
 */
EventScan *
EventScanPositions(Snapshot snapshot)
{
	EventsTable table;
	Relation	heap = EventsOpenStraight(&table);
	ScanKeyData key;

	if (heap == NULL)
		return NULL;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(0));
	return scan_begin(heap, index_open(table.position_index, AccessShareLock), &table.columns,
					  &key, 1, ForwardScanDirection, snapshot);
}

/* Go on with the events at this position. */
void
EventScanSeek(EventScan *scan, int64 position)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(position));
	RowScanRestart(scan->scan, &key, 1);
}

/*
 * The events between two positions, the first exclusive, by an index of the log whose
 * leading columns have these values, and the next is the position.  `heap` is the log,
 * which can be read straight, locked until EventScanEnd.
 */
EventScan *
EventScanIndex(Relation heap, Oid index, text *const *values, int nvalues,
			   int64 after_position, int64 up_to_position, Snapshot snapshot)
{
	Relation	open_index = index_open(index, AccessShareLock);
	EventColumns columns;
	ScanKeyData keys[INDEX_MAX_KEYS];
	int			i;

	EventColumnsOf(heap, &columns);
	for (i = 0; i < nvalues; i++)
		text_scan_key(&keys[i], open_index, i, values[i]);
	ScanKeyInit(&keys[i], nvalues + 1, BTGreaterStrategyNumber, F_INT8GT,
				Int64GetDatum(after_position));
	ScanKeyInit(&keys[i + 1], nvalues + 1, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(up_to_position));
	return scan_begin(table_open(RelationGetRelid(heap), AccessShareLock), open_index, &columns,
					  keys, nvalues + 2, ForwardScanDirection, snapshot);
}

/*
 * The next event; false at the end.  Its values belong to the scan and are
 * good until the next call.
 */
bool
EventScanNext(EventScan *scan, Event *event)
{
	HeapTuple	row;
	int			column;

	CHECK_FOR_INTERRUPTS();
	if (scan->heap == NULL)
		return scan_next_generic(scan, event);
	row = RowScanNext(scan->scan);
	if (row == NULL)
		return false;
	event->append_version = 0;
	event->row = NULL;
	if (scan->row_is_event && is_complete(row))
		event_from_row(row, event);
	else
	{
		heap_deform_tuple(row, RelationGetDescr(scan->heap), scan->row_values, scan->row_nulls);
		for (column = 0; column < EVENT_NCOLUMNS; column++)
			event->values[column] = scan->row_values[scan->columns.attno[column] - 1];
	}
	return !scan->until_tenant ||
		VARSIZE_ANY_EXHDR(DatumGetPointer(event->values[EVENT_TENANT_ID])) == 0;
}

/* End the scan and give back its locks and memory. */
void
EventScanEnd(EventScan *scan)
{
	if (scan->heap == NULL)
	{
		MemoryContext caller = CurrentMemoryContext;

		SPI_freetuptable(scan->rows);
		close_cursor(scan);
		SPI_finish();
		MemoryContextSwitchTo(caller);
	}
	else
	{
		RowScanEnd(scan->scan);
		index_close(scan->index, AccessShareLock);
		table_close(scan->heap, AccessShareLock);
		pfree(scan->row_values);
		pfree(scan->row_nulls);
	}
	pfree(scan);
}

/*
 * Is the stored key the one looked for?  A btree asks that of every entry, to
 * see where the stream ends (where it begins, it finds by its operator class).
 * texteq gives the same answer, for equal are only equal bytes, but looks at
 * collation and storage first, which costs more than the comparison.
 */
static Datum
key_is(PG_FUNCTION_ARGS)
{
	const text *stored = (const text *) PG_GETARG_POINTER(0);
	const text *wanted = (const text *) PG_GETARG_POINTER(1);

	/* a long one may be compressed */
	if (!VARATT_IS_SHORT(stored))
		return texteq(fcinfo);
	return BoolGetDatum(TextEqual(stored, wanted));
}

/*
 * Scan keys for the first three columns of the stream index, in the order the
 * index has them.
 */
void
EventScanStreamKeys(ScanKey keys, Relation index, const EventColumns *columns,
					const StreamKey *key)
{
	int			i;

	for (i = 0; i < 3; i++)
		text_scan_key(&keys[i], index, i, stream_key_value(index, i, columns, key));
}

/* A scan key for the index's column i, a text, counted from 0. */
static void
text_scan_key(ScanKey key, Relation index, int i, text *value)
{
	static FmgrInfo equality = {
		.fn_addr = key_is,.fn_oid = F_TEXTEQ,.fn_nargs = 2,.fn_strict = true
	};

	ScanKeyEntryInitializeWithInfo(key, 0, i + 1, BTEqualStrategyNumber, InvalidOid,
								   index->rd_indcollation[i], &equality, PointerGetDatum(value));
}

/* The stream's part that is the index's column i, counted from 0. */
static text *
stream_key_value(Relation index, int i, const EventColumns *columns, const StreamKey *key)
{
	AttrNumber	attno = index->rd_index->indkey.values[i];

	return attno == columns->attno[EVENT_AGGREGATE_TYPE] ? key->aggregate_type :
		attno == columns->attno[EVENT_AGGREGATE_ID] ? key->aggregate_id :
		key->tenant_id;
}

/* Takes the open heap and index over. */
static EventScan *
scan_begin(Relation heap, Relation index, const EventColumns *columns,
		   ScanKey keys, int nkeys, ScanDirection direction, Snapshot snapshot)
{
	EventScan  *scan = palloc0(sizeof(EventScan));
	int			natts = RelationGetDescr(heap)->natts;
	int			column;

	scan->columns = *columns;
	scan->row_is_event = natts == EVENT_NCOLUMNS;
	for (column = 0; column < EVENT_NCOLUMNS; column++)
		scan->row_is_event &= scan->columns.attno[column] == column + 1;
	scan->heap = heap;
	scan->index = index;
	scan->row_values = palloc(natts * sizeof(Datum));
	scan->row_nulls = palloc(natts * sizeof(bool));
	scan->scan = RowScanBegin(heap, index, keys, nkeys, direction, snapshot);
	return scan;
}

/*
 * Open a cursor, as the log's owner (the caller's rights have been checked), or as
 * the caller when row security of the table is to decide what is seen.  The scan
 * holds an SPI connection until its end; the memory context stays the caller's.
 */
static EventScan *
scan_begin_generic(InternalQuery *query, Datum *values, Snapshot snapshot, bool as_caller)
{
	MemoryContext caller = CurrentMemoryContext;
	EventScan  *scan = palloc0(sizeof(EventScan));

	scan->as_caller = as_caller;
	SPI_connect();
	open_cursor(scan, query, values, snapshot);
	MemoryContextSwitchTo(caller);
	return scan;
}

static void
open_cursor(EventScan *scan, InternalQuery *query, Datum *values, Snapshot snapshot)
{
	RoleSwitch	saved = switch_for_scan(scan);

	PushActiveSnapshot(snapshot);
	scan->portal = SPI_cursor_open(NULL, InternalQueryPlan(query), values, NULL, true);
	PinPortal(scan->portal);	/* against CLOSE ALL in a function of the user */
	PopActiveSnapshot();
	RoleSwitchBack(&saved);
	scan->nfetched = 0;
}

static void
close_cursor(EventScan *scan)
{
	UnpinPortal(scan->portal);
	SPI_cursor_close(scan->portal);
}

static RoleSwitch
switch_for_scan(const EventScan *scan)
{
	return scan->as_caller ? RoleSwitchStay() : RoleSwitchToOwner("events");
}

static bool
scan_next_generic(EventScan *scan, Event *event)
{
	int			column;

	if (scan->next_row >= scan->nrows)
	{
		MemoryContext caller = CurrentMemoryContext;
		RoleSwitch	saved;

		if (scan->rows)
			SPI_freetuptable(scan->rows);
		if (scan->portions && scan->nfetched == PORTION_ROWS)
		{
			Datum		value = Int64GetDatum(scan->position);

			close_cursor(scan);
			open_cursor(scan, scan->portions, &value, scan->snapshot);
		}
		saved = switch_for_scan(scan);
		SPI_cursor_fetch(scan->portal, true, GENERIC_FETCH_ROWS);
		RoleSwitchBack(&saved);
		MemoryContextSwitchTo(caller);
		scan->rows = SPI_tuptable;
		scan->nrows = SPI_processed;
		scan->nfetched += scan->nrows;
		scan->next_row = 0;
		if (scan->nrows == 0)
			return false;
	}
	for (column = 0; column < EVENT_NCOLUMNS; column++)
	{
		bool		isnull;

		event->values[column] = SPI_getbinval(scan->rows->vals[scan->next_row],
											  scan->rows->tupdesc, column + 1, &isnull);
	}
	event->row = NULL;
	event->append_version = 0;
	scan->position = EventGlobalPosition(event);
	scan->next_row++;
	return true;
}

/* Has the row all columns of an event and nothing else? */
static inline bool
is_complete(HeapTuple row)
{
	return HeapTupleHeaderGetNatts(row->t_data) == EVENT_NCOLUMNS && !HeapTupleHasNulls(row);
}

/*
 * The event in a complete row of a table with just its columns.  Does what
 * heap_deform_tuple does, which takes four times as long to ask for the types.
 */
static void
event_from_row(HeapTuple row, Event *event)
{
	const char *data = (const char *) row->t_data + row->t_data->t_hoff;
	const FixedColumns *fixed = (const FixedColumns *) data;
	Size		offset = sizeof(FixedColumns);
	int			column;

	event->row = row;
	event->values[EVENT_GLOBAL_POSITION] =
		fetch_att(&fixed->global_position, FLOAT8PASSBYVAL, sizeof(int64));
	event->values[EVENT_SEQUENCE] = fetch_att(&fixed->sequence, FLOAT8PASSBYVAL, sizeof(int64));
	event->values[EVENT_CREATED_AT] = fetch_att(&fixed->created_at, FLOAT8PASSBYVAL, sizeof(int64));
	event->values[EVENT_EVENT_ID] = PointerGetDatum(&fixed->event_id);
	for (column = EVENT_TENANT_ID; column < EVENT_NCOLUMNS; column++)
	{
		offset = att_align_pointer(offset, TYPALIGN_INT, -1, data + offset);
		event->values[column] = PointerGetDatum(data + offset);
		offset += VARSIZE_ANY(data + offset);
	}
}
