/*-------------------------------------------------------------------------
 * append.c
 *	  The one way in.
 *
 * An append looks at the end of the stream, compares it with the expected
 * version and writes what follows it.  There is no lock per stream and no row
 * per stream: whoever loses the race for a sequence (event_writer.c) looks
 * again, and then either fails its version check or, with "any", writes behind
 * the winner.
 *
 * What is to be appended is put together in append_request.c; whether it is there
 * already, since it was sent before, append_retry.c finds out.
 *
 * Above READ COMMITTED a stream that moved on since the transaction's snapshot
 * is a serialization failure (40001), whatever was expected.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "base/compat.h"
#include "base/counter.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/read_only.h"
#include "base/stream_key.h"
#include "log/append.h"
#include "log/append_retry.h"
#include "log/dispatch.h"
#include "log/event_error.h"
#include "log/event_writer.h"
#include "log/stream_index.h"
#include "log/tagging.h"

PG_FUNCTION_INFO_V1(cqrs_es_append_event);
PG_FUNCTION_INFO_V1(cqrs_es_append_events);
PG_FUNCTION_INFO_V1(cqrs_es_append_event_arrays);

static Datum append_or_raise(FunctionCallInfo fcinfo, AppendRequest *append);
static Datum result_datum(FunctionCallInfo fcinfo, const AppendResult *result);
static bool insert_and_tell(EventWriter *writer, AppendRequest *append, Tagging *tagging,
							bool plainly);
static void stamp_events(AppendRequest *append, const StreamTip *tip);
pg_noreturn static void report_suppressed(const StreamKey *key);
pg_noreturn static void report_overtaken(const StreamKey *key);

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/*
 * SQL: append_event(aggregate_type, aggregate_id, event_type, payload,
 * expected_version, metadata, event_id, event_version, tags)
 */
Datum
cqrs_es_append_event(PG_FUNCTION_ARGS)
{
	AppendRequest append;

	AppendRequestOfEvent(&append, fcinfo);
	return append_or_raise(fcinfo, &append);
}

/* SQL: append_events(aggregate_type, aggregate_id, events, expected_version) */
Datum
cqrs_es_append_events(PG_FUNCTION_ARGS)
{
	AppendRequest append;

	AppendRequestOfBatch(&append, fcinfo);
	return append_or_raise(fcinfo, &append);
}

/*
 * SQL: append_event_arrays(aggregate_type, aggregate_id, event_types,
 * payloads, expected_version, metadata, event_ids, event_versions, tags)
 */
Datum
cqrs_es_append_event_arrays(PG_FUNCTION_ARGS)
{
	AppendRequest append;

	AppendRequestOfArrays(&append, fcinfo);
	return append_or_raise(fcinfo, &append);
}

/* Append; QE001 when the stream is at another version than was expected. */
static Datum
append_or_raise(FunctionCallInfo fcinfo, AppendRequest *append)
{
	AppendResult result;

	ReadOnlyPrevent(fcinfo);
	if (!AppendEvents(append, &result))
		AppendReportConflict(&append->key, append->expected_version, result.version);
	return result_datum(fcinfo, &result);
}

/* The result as a value of the function's type, cqrs_es.append_result. */
static Datum
result_datum(FunctionCallInfo fcinfo, const AppendResult *result)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(get_func_rettype(fcinfo->flinfo->fn_oid), -1);
	Datum		values[2] = {Int64GetDatum(result->version),
		Int64GetDatum(result->global_position)};
	bool		nulls[2] = {false, false};
	Datum		row = HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));

	ReleaseTupleDesc(desc);
	return row;
}

/*-------------------------------------------------------------------------
 * the loop
 *-------------------------------------------------------------------------
 */

/*
 * Append all events of the request or none, and let projections and snapshots
 * follow.  Fills in the events.  False when the version check fails: the stream is
 * at result->version then, nothing was written, and the caller may look again and
 * append something else.  Takes RowExclusiveLock on the log, and behind it the locks of the
 * events' tags (kept to the end of the transaction, as by INSERT).
 *
 * Behind ReadOnlyPrevent.  Raises QE002 (event id used with other content), 40001 (above
 * READ COMMITTED), 42501 (no INSERT or no SELECT), 55000 (nothing guards the
 * streams, stream_index.c), 23505 (another unique index of the table), 09000 (a
 * trigger of users kept it out), QE502 (nothing to make a tag of), 40P01, and whatever a
 * projection raises.
 */
bool
AppendEvents(AppendRequest *append, AppendResult *result)
{
	EventWriter writer;
	AppendRetry retry;
	Tagging    *tagging;
	StreamTip	tip;
	bool		done;
	int64		lost_at = -1;
	CommandId	lost_in = InvalidCommandId;

	AppendRetryBegin(&retry, append);
	EventsRequireRights(ACL_INSERT | ACL_SELECT);
	EventWriterOpen(&writer);
	if (!writer.straight)
		(void) StreamIndexRequire(writer.rel, &writer.table.columns);
	tagging = TaggingBegin(append, 1, NULL);

	/*
	 * It ends: a lost race is lost to an event that is in the stream by now, or to one
	 * that is gone (event_writer.c says why that comes to an end); and what is kept out
	 * by SQL although the stream stays where it was ends with the second try, as does
	 * what is kept out by a trigger that appends to it.
	 */
	for (;;)
	{
		CommandId	command = GetCurrentCommandId(false);

		tip = EventWriterTip(&writer, &append->key);
		if (tip.after_snapshot)
			EventScanReportMoved(&append->key);
		if (lost_at >= 0 && tip.version > lost_at && !writer.straight &&
			EventScanVersionWithout(&append->key, lost_in) == lost_at)
			report_overtaken(&append->key);

		done = AppendRetryFind(&retry, &tip, result);
		if (done)
			break;
		result->version = tip.version;
		if (!AppendVersionFits(append->expected_version, tip.version))
			break;

		EventScanRequireRoom(&append->key, &tip, append->nevents);
		/* by SQL, a lost race is over: not to see the winner means there is none */
		stamp_events(append, &tip);
		done = insert_and_tell(&writer, append, tagging, lost_at == tip.version);
		if (done)
		{
			const Event *last = &append->events[append->nevents - 1];

			result->version = EventSequence(last);
			result->global_position = EventGlobalPosition(last);
			break;
		}

		/* somebody was quicker */
		lost_at = tip.version;
		lost_in = command;
		CHECK_FOR_INTERRUPTS();
	}
	EventWriterClose(&writer);
	return done;
}

/*
 * Insert the events, and tell the observers when all are in the log.  False when
 * the race for them was lost.  By SQL it is the triggers of the rows that tell.
 */
static bool
insert_and_tell(EventWriter *writer, AppendRequest *append, Tagging *tagging, bool plainly)
{
	EventWriterOutcome outcome;

	if (writer->straight)
	{
		outcome = EventWriterInsert(writer, append->events, append->nevents, plainly);
		if (outcome == EVENTS_INSERTED)
		{
			TaggingWrite(tagging, false);
			DispatchEvents(append->events, append->nevents);
		}
	}
	else
	{
		bool		held = DispatchHold();

		outcome = EventWriterInsert(writer, append->events, append->nevents, plainly);
		if (outcome == EVENTS_SUPPRESSED)
			report_suppressed(&append->key);
		if (outcome == EVENTS_INSERTED)
			TaggingWrite(tagging, SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA);
		DispatchRelease(held);
	}
	return outcome == EVENTS_INSERTED;
}

/* Something on the table swallowed a row. */
static void
report_suppressed(const StreamKey *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
			 errmsg("the event for stream \"%s\" was not inserted", StreamKeyName(key)),
			 errdetail("A trigger, rule or policy on the events table suppressed the row.")));
}

/* Nobody but we has appended to the stream, and yet it was in our way. */
static void
report_overtaken(const StreamKey *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
			 errmsg("the event for stream \"%s\" was not inserted", StreamKeyName(key)),
			 errdetail("A trigger on the events table appended to the stream before it."),
			 errhint("Append to the stream of the new event in an AFTER trigger.")));
}

/* Does a stream at this version meet the expectation? */
bool
AppendVersionFits(int64 expected, int64 version)
{
	return expected == EXPECT_ANY || expected == version ||
		(expected == EXPECT_EXISTS && version > 0);
}

/*
 * Fill in what is known only now: sequences behind the stream's end, and the time,
 * which is never before that of the event there.
 */
static void
stamp_events(AppendRequest *append, const StreamTip *tip)
{
	TimestampTz now = Max(GetCurrentTimestamp(), tip->created_at);
	int			i;

	for (i = 0; i < append->nevents; i++)
	{
		append->events[i].values[EVENT_SEQUENCE] = Int64GetDatum(tip->version + 1 + i);
		append->events[i].values[EVENT_CREATED_AT] = TimestampTzGetDatum(now);
		append->events[i].append_version = tip->version + append->nevents;
	}
}

/* QE001, with stream and numbers in fields of their own for programs.  It is counted. */
void
AppendReportConflict(const StreamKey *key, int64 expected_version, int64 version)
{
	char	   *expected = psprintf(INT64_FORMAT, expected_version);
	char	   *actual = psprintf(INT64_FORMAT, version);

	CounterAdd("conflict_counts", 0, true);
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_EXPECTED_VERSION),
			 errmsg("version conflict in stream \"%s\"", StreamKeyName(key)),
			 expected_version == EXPECT_EXISTS ?
			 errdetail("Expected that the stream exists (version -1), but it is at version %s.", actual) :
			 expected_version == 0 ?
			 errdetail("Expected that the stream does not exist (version 0), but it is at version %s.", actual) :
			 errdetail("Expected version %s, but the stream is at version %s.", expected, actual),
			 errhint("Read the stream again, decide again, and append with the version you read."),
			 EventErrorFields(key, expected, actual)));
}
