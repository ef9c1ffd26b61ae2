/*-------------------------------------------------------------------------
 * forget_subject.c
 *	  A subject is forgotten: what was encrypted about it can be read by nobody any more.
 *
 * It is a redaction (redaction.c) in each stream in which there is something about it, with the
 * same event, locks and followers, whose change is that keys are gone: the rows stay as they are,
 * and so do seals.  What stands there in clear, since it is older than the definition, is replaced as
 * by redact_stream.
 *
 * Whoever appends about the subject has its slot, and is waited for; whoever comes later finds it on the
 * list of those that are forgotten.  That list is for backups: what an older one brings back is
 * forgotten again by calling this for each subject of a newer list, which does nothing where
 * nothing came back.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/closed_stream.h"
#include "log/dispatch.h"
#include "log/event_scan.h"
#include "log/personal_data.h"
#include "log/redaction.h"
#include "log/reserved_type.h"
#include "log/subject_key.h"

PG_FUNCTION_INFO_V1(cqrs_es_forget_subject);

static List *living(List *streams);
static Redaction *begin(const SubjectStream *stream, text *reason);
static void forget_in(const SubjectStream *stream, const text *subject, Redaction *redaction);
static char *marker_payload(const text *subject, const text *reason, ArrayType *pointers);

/* SQL: forget_subject(subject, reason).  Returns of how many events something is gone. */
Datum
cqrs_es_forget_subject(PG_FUNCTION_ARGS)
{
	text	   *tenant_id = TenancyCurrent();
	text	   *subject;
	text	   *reason;
	List	   *streams;
	List	   *redactions = NIL;
	ListCell   *stream;
	ListCell   *lc;
	int64		n = 0;
	bool		held;

	RedactionRequirePossible(fcinfo, "forget_subject()");
	subject = TextArgument(fcinfo->args[0], "subject", SUBJECT_MAX_BYTES);
	reason = TextArgument(fcinfo->args[1], "reason", REASON_MAX_BYTES);

	/* who keeps copies for others comes before who appends, as with those */
	RedactionLockAll();
	SubjectKeyLock(tenant_id, subject, true);
	RegistryEnter();
	streams = living(SubjectKeyStreams(tenant_id, subject));
	foreach(stream, streams)
	{
		redactions = lappend(redactions, begin(lfirst(stream), reason));
		RedactionLock(llast(redactions));
	}
	(void) SubjectKeyDrop(tenant_id, subject, reason);
	held = DispatchHold();
	forboth(stream, streams, lc, redactions)
	{
		Redaction  *redaction = lfirst(lc);

		RedactionBegin(redaction, marker_payload(subject, reason, redaction->pointers));
		ClosedStreamKeep(&redaction->key, redaction->sequence - 1);
		forget_in(lfirst(stream), subject, redaction);
		n += RedactionEnd(redaction);
	}
	DispatchRelease(held);
	RegistryLeave();
	PG_RETURN_INT64(n);
}

/* Those that have events, of which there are none where the append that made a key failed, or the stream was deleted. */
static List *
living(List *streams)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, streams)
	{
		SubjectStream *stream = lfirst(lc);
		StreamTip	tip = EventScanLast(&stream->key, InternalQueryFreshSnapshot());

		if (tip.version > 0 && tip.end != STREAM_DELETED)
			result = lappend(result, stream);
	}
	return result;
}

static Redaction *
begin(const SubjectStream *stream, text *reason)
{
	Redaction  *redaction = palloc0(sizeof(Redaction));

	redaction->key = stream->key;
	redaction->event_type = REDACTED_EVENT_TYPE;
	redaction->pointers = PersonalDataPointers();
	redaction->reason = reason;
	return redaction;
}

/* Note the events of a stream that have lost something, and remove what is there in clear. */
static void
forget_in(const SubjectStream *stream, const text *subject, Redaction *redaction)
{
	LogSnapshot snapshot = EventsSnapshotTake(true);
	EventScan  *scan = EventScanWholeStream(&stream->key, 1, ForwardScanDirection, snapshot.snapshot);
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es forgetting", ALLOCSET_DEFAULT_SIZES);
	Event		event;
	Event		after;

	while (EventScanNext(scan, &event))
	{
		MemoryContext caller = MemoryContextSwitchTo(work);

		CHECK_FOR_INTERRUPTS();
		if (PersonalDataLose(&event, subject, stream->keys, stream->nkeys, &after))
		{
			if (after.values[EVENT_PAYLOAD] == event.values[EVENT_PAYLOAD])
				RedactionNoteLost(redaction, &event);
			else
			{
				RedactionNote(redaction, &event, &after);
				RedactionWrite(&after);
			}
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(work);
	}
	MemoryContextDelete(work);
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
}

/* What '$redacted' says: whom it was about, and nothing of what it was. */
static char *
marker_payload(const text *subject, const text *reason, ArrayType *pointers)
{
	StringInfoData payload;
	Datum	   *datums;
	int			n;
	int			i;

	initStringInfo(&payload);
	appendStringInfoString(&payload, "{\"reason\": ");
	escape_json(&payload, text_to_cstring(reason));
	appendStringInfoString(&payload, ", \"subject\": ");
	escape_json(&payload, text_to_cstring(subject));
	appendStringInfoString(&payload, ", \"pointers\": [");
	deconstruct_array(pointers, TEXTOID, -1, false, TYPALIGN_INT, &datums, NULL, &n);
	for (i = 0; i < n; i++)
	{
		if (i > 0)
			appendStringInfoString(&payload, ", ");
		escape_json(&payload, TextDatumGetCString(datums[i]));
	}
	appendStringInfoString(&payload, "]}");
	return payload.data;
}
