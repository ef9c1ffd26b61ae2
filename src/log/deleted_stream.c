/*-------------------------------------------------------------------------
 * deleted_stream.c
 *	  Streams that are removed from the log.
 *
 * To delete a stream is to redact all of each of its events, in the frame of a redaction
 * (redaction.c): '$deleted' is appended, and with it the end of the stream is ours; then
 * the rows in front of it go, and what held a copy follows.  '$deleted' stays, so the stream
 * keeps its version, and nothing can be appended (EventScanRequireOpen) until somebody opens it
 * again; sequences and positions go on then, so nothing can be taken for what was there.
 *
 * A stream begins with sequence 1, or with '$deleted', which stands in front of no other hole:
 * whoever meets one there may pass over it (fold.c, verify_log).  That holds since everything in
 * front of '$deleted' goes, an older '$deleted' as well, and since behind it nothing comes but
 * '$reopened'.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/internal_query.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/event_scan.h"
#include "log/own_event.h"
#include "log/redaction.h"
#include "log/reserved_type.h"

PG_FUNCTION_INFO_V1(cqrs_es_delete_stream);

static bool is_deleted(const StreamKey *key);
static void note_events(Redaction *redaction);

/* SQL: delete_stream(aggregate_type, aggregate_id, reason); returns how many events went. */
Datum
cqrs_es_delete_stream(PG_FUNCTION_ARGS)
{
	Datum		everything = CStringGetTextDatum("");
	Redaction	redaction = {.event_type = DELETED_EVENT_TYPE,.removes = true};

	RedactionRequirePossible(fcinfo, "delete_stream()");
	redaction.key.aggregate_type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	redaction.key.aggregate_id = TextArgument(fcinfo->args[1], "aggregate_id", AGGREGATE_ID_MAX_BYTES);
	redaction.key.tenant_id = TenancyCurrent();
	redaction.reason = TextArgument(fcinfo->args[2], "reason", REASON_MAX_BYTES);
	redaction.pointers = construct_array(&everything, 1, TEXTOID, -1, false, TYPALIGN_INT);
	if (is_deleted(&redaction.key))
		PG_RETURN_INT64(0);
	RedactionLock(&redaction);
	/* by whom we have waited for? */
	if (is_deleted(&redaction.key))
		PG_RETURN_INT64(0);
	RedactionBegin(&redaction, OwnEventReason(redaction.reason));
	note_events(&redaction);
	RedactionRemove(&redaction);
	PG_RETURN_INT64(RedactionEnd(&redaction));
}

/* 42704 for a stream that has never been. */
static bool
is_deleted(const StreamKey *key)
{
	StreamTip	tip = EventScanLast(key, InternalQueryFreshSnapshot());

	if (tip.version == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream \"%s\" has no events", StreamKeyName(key))));
	return tip.end == STREAM_DELETED;
}

/* Tell of each event in front of ours that it will go. */
static void
note_events(Redaction *redaction)
{
	LogSnapshot snapshot = EventsSnapshotTake(true);
	EventScan  *scan = EventScanWholeStream(&redaction->key, 1, ForwardScanDirection, snapshot.snapshot);
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es deletion", ALLOCSET_DEFAULT_SIZES);
	Event		event;

	while (EventScanNext(scan, &event) && EventSequence(&event) < redaction->sequence)
	{
		MemoryContext caller = MemoryContextSwitchTo(work);

		RedactionNote(redaction, &event, NULL);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(work);
	}
	MemoryContextDelete(work);
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
}
