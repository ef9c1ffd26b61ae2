/*-------------------------------------------------------------------------
 * events.c
 *	  The log table: its columns, its place in the catalog, its scans.  The
 *	  only file that knows where a column is.
 *
 * Two ways lead to the table.  The straight way works on the heap and its
 * indexes and skips the SQL executor; it is several times quicker.  It is
 * right only while the table is what we installed: a local heap without
 * partitions, foreign triggers, rules, policies beside our own (tenancy.c), or a
 * distributed engine that keeps the rows elsewhere.  For everything else there is
 * the generic way, ordinary SQL through kept plans.  EventsTableGet looks at the
 * catalog and decides, once per relcache invalidation of the table;
 * EventsWriteStraight and EventsReadStraight are the only two who ask.
 *
 * Columns are found by name, never by number: the owner may add, drop and
 * reorder.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/tupmacs.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_namespace_d.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "compat.h"
#include "cqrs_es.h"
#include "events.h"
#include "internal_query.h"
#include "last_row.h"
#include "row_scan.h"
#include "tenancy.h"

/* rows fetched at once on the generic way */
#define GENERIC_FETCH_ROWS 128

#define EVENT_COLUMN_LIST \
	"global_position, sequence, created_at, event_id, tenant_id, aggregate_type, " \
	"aggregate_id, event_type, event_version, payload, metadata"

static const char *const column_names[EVENT_NCOLUMNS] = {
	[EVENT_GLOBAL_POSITION] = "global_position",
	[EVENT_SEQUENCE] = "sequence",
	[EVENT_CREATED_AT] = "created_at",
	[EVENT_EVENT_ID] = "event_id",
	[EVENT_TENANT_ID] = "tenant_id",
	[EVENT_AGGREGATE_TYPE] = "aggregate_type",
	[EVENT_AGGREGATE_ID] = "aggregate_id",
	[EVENT_EVENT_TYPE] = "event_type",
	[EVENT_EVENT_VERSION] = "event_version",
	[EVENT_PAYLOAD] = "payload",
	[EVENT_METADATA] = "metadata",
};

/* How the columns of fixed size lie in a row; those of texts and jsonb follow. */
typedef struct FixedColumns
{
	int64		global_position;
	int64		sequence;
	TimestampTz created_at;
	pg_uuid_t	event_id;
}			FixedColumns;

/* A scan over events, one of the two ways. */
struct EventScan
{
	EventColumns columns;
	bool		row_is_event;	/* are these all columns, in their order? */

	/* straight: an ordered index scan */
	Relation	heap;			/* NULL on the generic way */
	Relation	index;
	RowScan    *scan;
	Datum	   *row_values;
	bool	   *row_nulls;

	/* generic: a cursor */
	Portal		portal;
	SPITupleTable *rows;
	uint64		nrows;
	uint64		next_row;
	bool		as_caller;		/* because row security concerns him */
};

static bool cqrs_es_force_generic_path = false;

static EventsTable events_table;
static bool events_table_valid = false;
static uint64 events_table_invalidations = 0;
static Oid	event_type_oid = InvalidOid;

static void invalidate_events_table(Datum arg, Oid relid);
static Oid	find_position_index(Relation rel, AttrNumber position);
static bool is_plain_heap(Relation rel);
static bool is_as_installed(Relation rel, const EventColumns *columns);
static bool is_distributed(Oid relid);
static void event_from_row(HeapTuple row, Event *event);
static bool find_last_row(Relation rel, Relation index, const EventColumns *columns,
						  const StreamKey *key, Snapshot snapshot, TupleTableSlot *slot);
static StreamTip tip_from_slot(TupleTableSlot *slot, const EventColumns *columns);
static StreamTip query_tip(const StreamKey *key, Snapshot snapshot);
static Relation open_plain_heap(void);
static Datum key_is(PG_FUNCTION_ARGS);
static void stream_scan_keys(ScanKey keys, Relation index, const EventColumns *columns,
							 const StreamKey *key);
static text *stream_key_value(Relation index, int i, const EventColumns *columns,
							  const StreamKey *key);
static EventScan *scan_begin(Relation heap, Relation index, ScanKey keys, int nkeys,
							 ScanDirection direction, Snapshot snapshot);
static EventScan *scan_begin_generic(InternalQuery *query, Datum *values,
									 Snapshot snapshot);
static RoleSwitch switch_for_scan(const EventScan *scan);
static bool scan_next_generic(EventScan *scan, Event *event);

void
EventsInit(void)
{
	DefineCustomBoolVariable("cqrs_es.force_generic_path",
							 "Reads and writes the log through SQL instead of the executor's insert interface.",
							 "A developer setting: the same tests run over both ways.",
							 &cqrs_es_force_generic_path, false,
							 PGC_USERSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	CacheRegisterRelcacheCallback(invalidate_events_table, (Datum) 0);
}

/*-------------------------------------------------------------------------
 * the table in the catalog
 *-------------------------------------------------------------------------
 */

/*
 * What the catalog says of the log.  The result is a static that is filled anew
 * after an invalidation; do not keep it across commands.  Lock the table first
 * when its indexes are to be opened: that is when invalidations arrive.
 */
const EventsTable *
EventsTableGet(void)
{
	EventsTable fresh;
	uint64		started;
	Relation	rel;

	if (events_table_valid)
		return &events_table;

	started = events_table_invalidations;
	rel = table_open(CqrsEsRelid("events"), AccessShareLock);
	fresh.relid = RelationGetRelid(rel);
	EventsColumnsOf(rel, &fresh.columns);
	fresh.primary_key = compat_primary_key(rel);
	fresh.position_index = find_position_index(rel, fresh.columns.attno[EVENT_GLOBAL_POSITION]);
	fresh.foreign_policies = rel->rd_rel->relrowsecurity &&
		!TenancyIsAllRowSecurity(rel, fresh.columns.attno[EVENT_TENANT_ID]);
	fresh.plain = is_plain_heap(rel) &&
		!fresh.foreign_policies &&
		OidIsValid(fresh.primary_key) &&
		OidIsValid(fresh.position_index) &&
		!is_distributed(fresh.relid);
	fresh.straight = fresh.plain && is_as_installed(rel, &fresh.columns);
	table_close(rel, AccessShareLock);

	/* published whole, and only as what it still is */
	events_table = fresh;
	events_table_valid = started == events_table_invalidations;
	return &events_table;
}

/*
 * May rows be written below the executor?  Our triggers fire on origin only,
 * so a session that applies someone else's changes goes the generic way,
 * where the server decides about triggers.
 */
bool
EventsWriteStraight(const EventsTable *table)
{
	return table->straight && !cqrs_es_force_generic_path &&
		SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA;
}

bool
EventsReadStraight(const EventsTable *table)
{
	return table->plain && !cqrs_es_force_generic_path;
}

/* Is the caller subject to row security of the log beyond our own policy? */
bool
EventsRowSecurity(void)
{
	const EventsTable *table = EventsTableGet();

	return table->foreign_policies &&
		check_enable_rls(table->relid, InvalidOid, true) == RLS_ENABLED;
}

/*
 * Find our columns in a table that has them all, with the types and NOT NULL
 * that everything here relies on; else 42703 or 42P16.
 */
void
EventsColumnsOf(Relation rel, EventColumns *columns)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			column;
	int			att;

	for (column = 0; column < EVENT_NCOLUMNS; column++)
	{
		/* the column is nearly always where it was installed */
		att = column;
		if (att >= desc->natts || TupleDescAttr(desc, att)->attisdropped ||
			strcmp(NameStr(TupleDescAttr(desc, att)->attname), column_names[column]) != 0)
		{
			for (att = 0; att < desc->natts; att++)
				if (!TupleDescAttr(desc, att)->attisdropped &&
					strcmp(NameStr(TupleDescAttr(desc, att)->attname), column_names[column]) == 0)
					break;
		}
		if (att >= desc->natts)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist",
							column_names[column], RelationGetRelationName(rel))));
		if (TupleDescAttr(desc, att)->atttypid != EventColumnType(column) ||
			!TupleDescAttr(desc, att)->attnotnull)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("column \"%s\" of relation \"%s\" is not of type %s NOT NULL",
							column_names[column], RelationGetRelationName(rel),
							format_type_be(EventColumnType(column)))));
		columns->attno[column] = att + 1;
	}
}

/* The column of that name, or -1. */
int
EventColumnByName(const char *name)
{
	int			column;

	for (column = 0; column < EVENT_NCOLUMNS; column++)
		if (strcmp(name, column_names[column]) == 0)
			return column;
	return -1;
}

/* The type of a column. */
Oid
EventColumnType(EventColumn column)
{
	switch (column)
	{
		case EVENT_GLOBAL_POSITION:
		case EVENT_SEQUENCE:
			return INT8OID;
		case EVENT_CREATED_AT:
			return TIMESTAMPTZOID;
		case EVENT_EVENT_ID:
			return UUIDOID;
		case EVENT_PAYLOAD:
		case EVENT_METADATA:
			return JSONBOID;
		default:
			return TEXTOID;
	}
}

/* The oid of the composite type cqrs_es.event. */
Oid
EventsTypeOid(void)
{
	if (!OidIsValid(event_type_oid))
	{
		RangeVar   *name = makeRangeVar(CQRS_ES_SCHEMA, "event", -1);

		event_type_oid = get_rel_type_id(RangeVarGetRelid(name, NoLock, false));
	}
	return event_type_oid;
}

static void
invalidate_events_table(Datum arg, Oid relid)
{
	/* indexes and triggers of a table invalidate the table itself, too */
	if (relid == InvalidOid || !events_table_valid || relid == events_table.relid)
	{
		events_table_valid = false;
		events_table_invalidations++;
		event_type_oid = InvalidOid;
	}
}

/* The index whose only key is the position; it may be a user's replacement. */
static Oid
find_position_index(Relation rel, AttrNumber position)
{
	List	   *indexes = RelationGetIndexList(rel);
	Oid			found = InvalidOid;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_rel->relam == BTREE_AM_OID && index->rd_index->indisvalid &&
			index->rd_index->indnatts >= 1 &&
			index->rd_index->indkey.values[0] == position &&
			(index->rd_indoption[0] & INDOPTION_DESC) == 0 &&
			RelationGetIndexPredicate(index) == NIL)
			found = RelationGetRelid(index);
		index_close(index, AccessShareLock);
		if (OidIsValid(found))
			break;
	}
	list_free(indexes);
	return found;
}

/* All rows in this one heap? */
static bool
is_plain_heap(Relation rel)
{
	return rel->rd_rel->relkind == RELKIND_RELATION &&
		rel->rd_rel->relam == HEAP_TABLE_AM_OID &&
		!rel->rd_rel->relispartition &&
		!rel->rd_rel->relhassubclass;
}

/*
 * Would the executor do with an inserted row just what we do?  Not when there
 * are rules, columns that it would compute, or INSERT triggers beside our own
 * three enabled ones.
 */
static bool
is_as_installed(Relation rel, const EventColumns *columns)
{
	TupleDesc	desc = RelationGetDescr(rel);
	TriggerDesc *triggers = rel->trigdesc;
	Oid			none[1] = {InvalidOid};
	Oid			admit = LookupFuncName(list_make2(makeString(CQRS_ES_SCHEMA),
												  makeString("admit_event")),
									   0, none, true);
	Oid			dispatch = LookupFuncName(list_make2(makeString(CQRS_ES_SCHEMA),
													 makeString("dispatch_event")),
										  0, none, true);
	int			ours = 0;
	int			i;

	if (rel->rd_rules != NULL || triggers == NULL)
		return false;
	for (i = 0; i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (!TRIGGER_FOR_INSERT(trigger->tgtype))
			continue;
		if ((trigger->tgfoid != admit && trigger->tgfoid != dispatch) ||
			trigger->tgenabled == TRIGGER_DISABLED ||
			trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA)
			return false;
		ours++;
	}
	if (ours != 3)
		return false;

	for (i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		bool		known = false;
		int			column;

		for (column = 0; column < EVENT_NCOLUMNS; column++)
			known |= columns->attno[column] == i + 1;
		if (!known && !att->attisdropped &&
			(att->atthasdef || att->attidentity || att->attgenerated ||
			 get_typtype(att->atttypid) == TYPTYPE_DOMAIN))
			return false;
	}
	return true;
}

/*
 * Has a distributed engine taken the table over?  Citus says so by a row in
 * pg_dist_partition; its shell of the table would swallow a direct insert.
 */
static bool
is_distributed(Oid relid)
{
	Oid			argtype = REGCLASSOID;
	Datum		value = ObjectIdGetDatum(relid);
	bool		found;

	if (!OidIsValid(get_relname_relid("pg_dist_partition", PG_CATALOG_NAMESPACE)))
		return false;
	SPI_connect();
	if (SPI_execute_with_args("SELECT 1 FROM pg_catalog.pg_dist_partition "
							  "WHERE logicalrelid OPERATOR(pg_catalog.=) $1",
							  1, &argtype, &value, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read pg_dist_partition");
	found = SPI_processed > 0;
	SPI_finish();
	return found;
}

/*-------------------------------------------------------------------------
 * one event
 *-------------------------------------------------------------------------
 */

/* A copy with values of its own, palloc'd in the current memory context. */
Event *
EventCopy(const Event *event)
{
	Event	   *copy = palloc(sizeof(Event));
	int			column;

	for (column = 0; column < EVENT_NCOLUMNS; column++)
	{
		int16		length;
		bool		by_value;

		get_typlenbyval(EventColumnType(column), &length, &by_value);
		copy->values[column] = datumCopy(event->values[column], by_value, length);
	}
	copy->row = NULL;
	copy->append_version = event->append_version;
	return copy;
}

/* The event's stream; the texts point into the event. */
void
EventKey(const Event *event, StreamKey *key)
{
	key->aggregate_type = EventText(event, EVENT_AGGREGATE_TYPE);
	key->aggregate_id = EventText(event, EVENT_AGGREGATE_ID);
	key->tenant_id = EventText(event, EVENT_TENANT_ID);
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

/* The event as a value of type cqrs_es.event; palloc'd. */
Datum
EventToComposite(const Event *event)
{
	static const bool nulls[EVENT_NCOLUMNS] = {false};
	TupleDesc	desc = lookup_rowtype_tupdesc(EventsTypeOid(), -1);
	Datum		result;

	if (desc->natts != EVENT_NCOLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("type cqrs_es.event has %d attributes, expected %d",
						desc->natts, EVENT_NCOLUMNS)));
	if (event->row)
		result = heap_copy_tuple_as_datum(event->row, desc);
	else
		result = HeapTupleGetDatum(heap_form_tuple(desc, (Datum *) event->values,
												   (bool *) nulls));
	ReleaseTupleDesc(desc);
	return result;
}

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
 * `rel` must be locked; nothing stays locked by this.  Above READ COMMITTED,
 * after_snapshot tells that the end is not in the transaction's snapshot.
 * Can raise 40P01 when the wait closes a circle.
 */
StreamTip
EventsTip(Relation rel, Oid primary_key, const EventColumns *columns,
		  const StreamKey *key)
{
	Relation	index;
	TupleTableSlot *slot;
	SnapshotData dirty;
	StreamTip	tip;
	TransactionId in_progress;

	if (!OidIsValid(primary_key))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no primary key", RelationGetRelationName(rel))));
	index = index_open(primary_key, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	InitDirtySnapshot(dirty);
	do
	{
		ItemPointerData tid;

		CHECK_FOR_INTERRUPTS();
		memset(&tip, 0, sizeof(tip));
		in_progress = InvalidTransactionId;
		if (find_last_row(rel, index, columns, key, &dirty, slot))
		{
			in_progress = dirty.xmin;
			tid = slot->tts_tid;
			if (!TransactionIdIsValid(in_progress))
				tip = tip_from_slot(slot, columns);
		}
		ExecClearTuple(slot);

		/* wait without a pin on any page */
		if (TransactionIdIsValid(in_progress))
		{
			if (dirty.speculativeToken != 0)
				SpeculativeInsertionWait(in_progress, dirty.speculativeToken);
			else
				XactLockTableWait(in_progress, rel, &tid, XLTW_InsertIndex);
		}
	} while (TransactionIdIsValid(in_progress));
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return tip;
}

/* The stream's last row into the slot; false when there is none. */
static bool
find_last_row(Relation rel, Relation index, const EventColumns *columns,
			  const StreamKey *key, Snapshot snapshot, TupleTableSlot *slot)
{
	text	   *values[3];
	LastRow		last;
	ScanKeyData keys[3];
	IndexScanDesc scan;
	bool		found;
	int			i;

	for (i = 0; i < 3; i++)
		values[i] = stream_key_value(index, i, columns, key);
	last = LastRowFind(rel, index, values, 3, snapshot, slot);
	if (last != LAST_ROW_UNKNOWN)
		return last == LAST_ROW_FOUND;

	stream_scan_keys(keys, index, columns, key);
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
	tip.after_snapshot = false;
	if (IsolationUsesXactSnapshot())
	{
		bool		should_free;
		HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, &should_free);
		TransactionId xmin = HeapTupleHeaderGetXmin(tuple->t_data);

		/* a frozen row's xid is that of FrozenTransactionId, whatever it was */
		tip.after_snapshot = TransactionIdIsNormal(xmin) &&
			!TransactionIdIsCurrentTransactionId(xmin) &&
			XidInMVCCSnapshot(xmin, GetTransactionSnapshot());
		if (should_free)
			heap_freetuple(tuple);
	}
	return tip;
}

/* 40001: what after_snapshot means to whoever wants to write. */
void
EventsReportMoved(const StreamKey *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access: stream \"%s\" moved on since the transaction's snapshot",
					StreamName(key)),
			 errhint("Retry the transaction.")));
}

/*
 * The same on the generic way, by SQL.  It does not see rows in progress: a
 * race for the next sequence shows when it is inserted.
 */
StreamTip
EventsTipByQuery(const StreamKey *key)
{
	StreamTip	tip = query_tip(key, FreshSnapshot());

	if (IsolationUsesXactSnapshot() &&
		query_tip(key, GetLatestSnapshot()).version != tip.version)
		tip.after_snapshot = true;
	return tip;
}

static StreamTip
query_tip(const StreamKey *key, Snapshot snapshot)
{
	static InternalQuery query = {
		.sql = "SELECT sequence, global_position FROM cqrs_es.events"
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
	if (InternalQueryRead(&query, values, NULL, snapshot) > 0)
	{
		bool		isnull;
		HeapTuple	row = SPI_tuptable->vals[0];

		tip.version = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		tip.global_position = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
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
 * EventsScanEnd.  Scans nest; end them in reverse order.
 */
EventScan *
EventsScanStream(const StreamKey *key, int64 from_sequence,
				 ScanDirection direction, Snapshot snapshot)
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
	Relation	heap = open_plain_heap();

	if (heap)
	{
		const EventsTable *table = EventsTableGet();
		Relation	index = index_open(table->primary_key, AccessShareLock);
		ScanKeyData keys[4];

		stream_scan_keys(keys, index, &table->columns, key);

		/* every key is compared with every event, so none that they all fulfil */
		if (is_forward ? from_sequence <= 1 : from_sequence == PG_INT64_MAX)
			return scan_begin(heap, index, keys, 3, direction, snapshot);
		ScanKeyInit(&keys[3], 4,
					is_forward ? BTGreaterEqualStrategyNumber : BTLessEqualStrategyNumber,
					is_forward ? F_INT8GE : F_INT8LE, Int64GetDatum(from_sequence));
		return scan_begin(heap, index, keys, 4, direction, snapshot);
	}
	else
	{
		Datum		values[4] = {PointerGetDatum(key->aggregate_type),
			PointerGetDatum(key->aggregate_id),
			PointerGetDatum(key->tenant_id),
		Int64GetDatum(from_sequence)};

		return scan_begin_generic(is_forward ? &forward : &backward, values, snapshot);
	}
}

/*
 * The whole log, all tenants, in the order of global positions: above the
 * position (forward), or from it down (backward).  As EventsScanStream else.
 */
EventScan *
EventsScanLog(int64 position, ScanDirection direction, Snapshot snapshot)
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
	bool		is_forward = ScanDirectionIsForward(direction);
	Relation	heap = open_plain_heap();

	if (heap)
	{
		Relation	index = index_open(EventsTableGet()->position_index, AccessShareLock);
		ScanKeyData key;

		ScanKeyInit(&key, 1,
					is_forward ? BTGreaterStrategyNumber : BTLessEqualStrategyNumber,
					is_forward ? F_INT8GT : F_INT8LE, Int64GetDatum(position));
		return scan_begin(heap, index, &key, 1, direction, snapshot);
	}
	else
	{
		Datum		value = Int64GetDatum(position);

		return scan_begin_generic(is_forward ? &forward : &backward, &value, snapshot);
	}
}

/*
 * The next event; false at the end.  Its values belong to the scan and are
 * good until the next call.
 */
bool
EventsScanNext(EventScan *scan, Event *event)
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
	return true;
}

/* End the scan and give back its locks and memory. */
void
EventsScanEnd(EventScan *scan)
{
	if (scan->heap == NULL)
	{
		MemoryContext caller = CurrentMemoryContext;

		SPI_freetuptable(scan->rows);
		SPI_cursor_close(scan->portal);
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
 * texteq gives the same answer, for keys are compared bytewise, but looks at
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
 * Scan keys for the first three columns of the primary key, in the order the
 * index has them.
 */
static void
stream_scan_keys(ScanKey keys, Relation index, const EventColumns *columns,
				 const StreamKey *key)
{
	static FmgrInfo equality = {
		.fn_addr = key_is,.fn_oid = F_TEXTEQ,.fn_nargs = 2,.fn_strict = true
	};
	int			i;

	for (i = 0; i < 3; i++)
		ScanKeyEntryInitializeWithInfo(&keys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
									   C_COLLATION_OID, &equality,
									   PointerGetDatum(stream_key_value(index, i, columns, key)));
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

/*
 * The log, locked, if it can be read straight; NULL otherwise.  Decided after
 * the lock is there, for only then is the catalog's word up to date.
 */
static Relation
open_plain_heap(void)
{
	Relation	heap = table_open(EventsTableGet()->relid, AccessShareLock);

	if (EventsReadStraight(EventsTableGet()))
		return heap;
	table_close(heap, AccessShareLock);
	return NULL;
}

/* Takes the open heap and index over. */
static EventScan *
scan_begin(Relation heap, Relation index, ScanKey keys, int nkeys,
		   ScanDirection direction, Snapshot snapshot)
{
	EventScan  *scan = palloc0(sizeof(EventScan));
	int			natts = RelationGetDescr(heap)->natts;
	int			column;

	scan->columns = EventsTableGet()->columns;
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
 * Open a cursor, as the log's owner (the caller has been checked), or as the
 * caller when row security of the table is to decide what he sees.  The scan
 * holds an SPI connection until its end, but leaves the caller in his own
 * memory context.
 */
static EventScan *
scan_begin_generic(InternalQuery *query, Datum *values, Snapshot snapshot)
{
	MemoryContext caller = CurrentMemoryContext;
	EventScan  *scan = palloc0(sizeof(EventScan));
	RoleSwitch	saved;

	scan->as_caller = EventsRowSecurity();
	SPI_connect();
	saved = switch_for_scan(scan);
	PushActiveSnapshot(snapshot);
	scan->portal = SPI_cursor_open(NULL, InternalQueryPlan(query), values, NULL, true);
	PopActiveSnapshot();
	RoleSwitchBack(&saved);
	MemoryContextSwitchTo(caller);
	return scan;
}

static RoleSwitch
switch_for_scan(const EventScan *scan)
{
	return scan->as_caller ? RoleSwitchTo(GetUserId(), namespace_search_path) :
		RoleSwitchToOwner("events");
}

static bool
scan_next_generic(EventScan *scan, Event *event)
{
	int			column;

	if (scan->next_row >= scan->nrows)
	{
		MemoryContext caller = CurrentMemoryContext;
		RoleSwitch	saved = switch_for_scan(scan);

		if (scan->rows)
			SPI_freetuptable(scan->rows);
		SPI_cursor_fetch(scan->portal, true, GENERIC_FETCH_ROWS);
		RoleSwitchBack(&saved);
		MemoryContextSwitchTo(caller);
		scan->rows = SPI_tuptable;
		scan->nrows = SPI_processed;
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
	scan->next_row++;
	return true;
}
