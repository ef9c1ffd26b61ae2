/*-------------------------------------------------------------------------
 * read.c
 *	  Reading the log: one stream in its own order, or all events in the order
 *	  of global positions, never past the horizon.
 *
 * How far a read of the log has looked is not told by its rows: a filter may
 * leave out the last thousand events.  Nor can one ask afterwards, when more has
 * settled.  So read_page says it itself, from the walk that found the rows.
 *
 * Events of the current tenant only, or of all where the caller asks for them and
 * may (tenants.c); their payloads upcast.  In READ COMMITTED each call
 * sees what is committed when it runs, not when its statement began; above it
 * the transaction's snapshot.  Nothing is written, so all of it works on a hot
 * standby.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/older_sql.h"
#include "base/registry.h"
#include "base/stream_key.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/event_filter.h"
#include "log/event_scan.h"
#include "log/horizon.h"
#include "log/personal_data.h"
#include "log/read.h"
#include "log/tenants.h"
#include "log/upcast.h"

/* The rows of read_page: the columns of an event, and read_to. */
#define PAGE_READ_TO	EVENT_NCOLUMNS
#define PAGE_NCOLUMNS	(EVENT_NCOLUMNS + 1)

/* A page being read.  Its last row is kept back: how far was looked is not known yet. */
typedef struct LogPage
{
	HeapTuple	last;			/* NULL: no row yet */
	int64		position;		/* of that */
	int64		before;			/* the position before, where it began at first */
} LogPage;

PG_FUNCTION_INFO_V1(cqrs_es_read_stream);
PG_FUNCTION_INFO_V1(cqrs_es_read_all);
PG_FUNCTION_INFO_V1(cqrs_es_read_page);
PG_FUNCTION_INFO_V1(cqrs_es_stream_version);

static int64 read_log(FunctionCallInfo fcinfo, LogPage *page);
static void begin_result(FunctionCallInfo fcinfo, int ncolumns);
static void put_event(ReturnSetInfo *result, Event *event, FunctionCalls *calls,
					  MemoryContext work);
static void put_page_event(ReturnSetInfo *result, Event *event, FunctionCalls *calls,
						   MemoryContext work, LogPage *page);
static void put_page_row(ReturnSetInfo *result, HeapTuple row, int64 read_to);
static MemoryContext work_context(void);

/*
 * SQL: read_stream(aggregate_type, aggregate_id, from_sequence, max_count,
 * backward, raw).  Forward from a sequence up, backward from it down; NULL is the
 * stream's beginning or its end.  Raw: payloads as they are stored.
 */
Datum
cqrs_es_read_stream(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	NullableDatum raw_arg = OlderSqlCall(fcinfo, 6)->args[5];
	StreamKey	key;
	bool		backward = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	int64		from_sequence = !PG_ARGISNULL(2) ? PG_GETARG_INT64(2) :
		backward ? PG_INT64_MAX : 1;
	int64		max_count = ReadMaxCount(fcinfo->args[3]);
	bool		raw = !raw_arg.isnull && DatumGetBool(raw_arg.value);
	MemoryContext work = work_context();
	FunctionCalls calls;
	EventScan  *scan;
	LogSnapshot snapshot;
	Event		event;

	key.aggregate_type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	key.aggregate_id = TextArgument(fcinfo->args[1], "aggregate_id", AGGREGATE_ID_MAX_BYTES);
	key.tenant_id = TenancyCurrent();
	if (from_sequence < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("from_sequence must not be negative")));
	EventsRequireRights(ACL_SELECT);
	begin_result(fcinfo, EVENT_NCOLUMNS);

	RegistryEnter();
	RegistryFunctionCallsInit(&calls);
	snapshot = EventsSnapshotTake(false);
	scan = EventScanStream(&key, from_sequence,
						   backward ? BackwardScanDirection : ForwardScanDirection,
						   snapshot.snapshot);
	while (max_count-- > 0 && EventScanNext(scan, &event))
		put_event(result, &event, raw ? NULL : &calls, work);
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	RegistryFunctionCallsEnd(&calls);
	RegistryLeave();
	return (Datum) 0;
}

/*
 * SQL: read_all(after_position, max_count, aggregate_types, event_types, raw,
 * all_tenants, tags).
 * Settled events only, in order; see horizon.c for what that takes.  Events that
 * share a position come together, beyond max_count if need be.
 */
Datum
cqrs_es_read_all(PG_FUNCTION_ARGS)
{
	begin_result(fcinfo, EVENT_NCOLUMNS);
	(void) read_log(OlderSqlCall(fcinfo, 7), NULL);
	return (Datum) 0;
}

/*
 * SQL: read_page(after_position, max_count, aggregate_types, event_types, raw,
 * all_tenants, tags).  The events of read_all, each with read_to: the position to go on behind when it
 * has been dealt with.  That is its own position, and in the last row as far
 * as was looked, so that whoever stops before the end goes on right, too.
 * Where no event matched, one row has nothing but that.
 */
Datum
cqrs_es_read_page(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	LogPage		page = {NULL};
	int64		read_to;

	begin_result(fcinfo, PAGE_NCOLUMNS);
	read_to = read_log(fcinfo, &page);
	put_page_row(result, page.last, read_to);
	return (Datum) 0;
}

/*
 * Walk through the log as the arguments say, and put what matches into the
 * result; with `page` as its rows, all but the last.  Returns how far it looked:
 * the position of the last event seen, matching or not, or that after which it
 * began.
 */
static int64
read_log(FunctionCallInfo fcinfo, LogPage *page)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		after_position = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	int64		max_count = ReadMaxCount(fcinfo->args[1]);
	bool		raw = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	bool		all_tenants = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
	text	   *tenant_id = all_tenants ? NULL : TenancyCurrent();
	EventFilter filter = {
		.tenant_ids = {.all = all_tenants,.n = 1,.texts = &tenant_id},
		.aggregate_types = EventFilterTexts(fcinfo->args[2], "aggregate_types"),
		.event_types = EventFilterTexts(fcinfo->args[3], "event_types")
	};
	MemoryContext work = work_context();
	FunctionCalls calls;
	HorizonScan walk;
	Event		event;
	uint64		asked;

	EventFilterSetTags(&filter, fcinfo->args[6]);
	HorizonCheckCursor(after_position);
	EventsRequireRights(ACL_SELECT);
	if (all_tenants)
		TenantsRequireAll();
	if (max_count == 0)
		return after_position;

	if (page)
		page->position = after_position;
	RegistryEnter();
	RegistryFunctionCallsInit(&calls);
	asked = EventFilterAsk(&filter, after_position);
	HorizonScanBeginFiltered(&walk, after_position, HorizonDeadline(), &filter);
	while (max_count > 0 ? HorizonScanNext(&walk, &event) : HorizonScanNextTied(&walk, &event))
	{
		if (!EventFilterMatches(&filter, &event))
			continue;
		if (page)
			put_page_event(result, &event, raw ? NULL : &calls, work, page);
		else
			put_event(result, &event, raw ? NULL : &calls, work);
		walk.handed_out = true;
		max_count = Max(max_count - 1, 0);
	}
	HorizonScanEnd(&walk);
	EventFilterConfirm(&filter, after_position, asked);
	RegistryFunctionCallsEnd(&calls);
	RegistryLeave();
	return walk.position;
}

/*
 * SQL: stream_version(aggregate_type, aggregate_id).  The sequence of the
 * stream's last event, 0 when it has none.
 */
Datum
cqrs_es_stream_version(PG_FUNCTION_ARGS)
{
	StreamKey	key;
	LogSnapshot snapshot;
	int64		version;

	key.aggregate_type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	key.aggregate_id = TextArgument(fcinfo->args[1], "aggregate_id", AGGREGATE_ID_MAX_BYTES);
	key.tenant_id = TenancyCurrent();
	EventsRequireRights(ACL_SELECT);
	snapshot = EventsSnapshotTake(false);
	version = EventScanLast(&key, snapshot.snapshot).version;
	EventsSnapshotRelease(snapshot);
	PG_RETURN_INT64(version);
}

/* A limit as in LIMIT: NULL is none, 0 is none at all, less is an error (2201W). */
int64
ReadMaxCount(NullableDatum arg)
{
	if (arg.isnull)
		return PG_INT64_MAX;
	if (DatumGetInt64(arg.value) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_ROW_COUNT_IN_LIMIT_CLAUSE),
				 errmsg("max_count must not be negative")));
	return DatumGetInt64(arg.value);
}

/* The type cqrs_es.event is ours to change, but its owner may have altered it. */
static void
begin_result(FunctionCallInfo fcinfo, int ncolumns)
{
	InitMaterializedSRF(fcinfo, 0);
	if (((ReturnSetInfo *) fcinfo->resultinfo)->setDesc->natts != ncolumns)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("type cqrs_es.event has been altered")));
}

/*
 * Hand an event out, lifted to its newest version unless calls is NULL; `work` is reset.
 * The row of one that nothing has lifted is copied as it lies in the log.
 */
static void
put_event(ReturnSetInfo *result, Event *event, FunctionCalls *calls, MemoryContext work)
{
	static const bool nulls[EVENT_NCOLUMNS] = {false};
	MemoryContext caller = MemoryContextSwitchTo(work);

	if (calls)
	{
		PersonalDataShow(event);
		UpcastEvent(event, calls);
	}
	if (event->row)
		tuplestore_puttuple(result->setResult, event->row);
	else
		tuplestore_putvalues(result->setResult, result->setDesc, event->values, (bool *) nulls);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(work);
}

/*
 * The same for a page: the event waits as its last row, and the one before it
 * goes out.  Of events that share a position whoever stops between them has to
 * go on before the first.
 */
static void
put_page_event(ReturnSetInfo *result, Event *event, FunctionCalls *calls, MemoryContext work,
			   LogPage *page)
{
	static const bool nulls[PAGE_NCOLUMNS] = {false};
	Datum		values[PAGE_NCOLUMNS];
	int64		position = EventGlobalPosition(event);
	MemoryContext caller = MemoryContextSwitchTo(work);

	if (calls)
	{
		PersonalDataShow(event);
		UpcastEvent(event, calls);
	}
	MemoryContextSwitchTo(caller);
	memcpy(values, event->values, sizeof(event->values));
	values[PAGE_READ_TO] = Int64GetDatum(position);
	if (page->last && page->position == position)
		put_page_row(result, page->last, page->before);
	else
	{
		if (page->last)
			tuplestore_puttuple(result->setResult, page->last);
		page->before = page->position;
	}
	if (page->last)
		heap_freetuple(page->last);
	page->last = heap_form_tuple(result->setDesc, values, (bool *) nulls);
	page->position = position;
	MemoryContextReset(work);
}

/* A row of a page with another read_to; no row: one with nothing else. */
static void
put_page_row(ReturnSetInfo *result, HeapTuple row, int64 read_to)
{
	Datum		values[PAGE_NCOLUMNS];
	bool		nulls[PAGE_NCOLUMNS];

	if (row)
		heap_deform_tuple(row, result->setDesc, values, nulls);
	else
		memset(nulls, true, sizeof(nulls));
	values[PAGE_READ_TO] = Int64GetDatum(read_to);
	nulls[PAGE_READ_TO] = false;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static MemoryContext
work_context(void)
{
	return AllocSetContextCreate(CurrentMemoryContext, "cqrs_es read", ALLOCSET_DEFAULT_SIZES);
}
