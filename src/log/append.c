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
 * An append may be to several streams, all or nothing.  First it looks at the ends of all
 * of them, which is where it waits for others, and has nothing of theirs meanwhile.
 * Then it draws the positions, in the order of the events that it was given.  Then it
 * writes, stream by stream in the order of their keys, whatever the order of the
 * events, so that two such appends cannot wait for each other.  When it loses the race for a
 * stream that is not the first, and that one need not be at a given version, what was
 * written is undone, and all of it begins again: a later position for that stream alone would
 * tear the order of the events apart.  Observers are told when all is in the log.
 *
 * An append may have a condition beside its streams' versions, of which a room above knows
 * more (AppendCondition).  What it needs is locked together with the tags of the events, and
 * asked before anything of a stream is looked at; but an append that is sent again is found out
 * first, and gets the first answer.
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
#include "nodes/makefuncs.h"
#include "nodes/supportnodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "base/compat.h"
#include "base/counter.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/older_sql.h"
#include "base/read_only.h"
#include "base/stream_key.h"
#include "base/subtransaction.h"
#include "log/append.h"
#include "log/append_retry.h"
#include "log/dispatch.h"
#include "log/event_error.h"
#include "log/event_writer.h"
#include "log/personal_data.h"
#include "log/stream_index.h"
#include "log/tagging.h"

/* One of the streams of an append, while it is under way. */
typedef struct StreamAppend
{
	AppendRequest *request;
	AppendRetry retry;
	StreamTip	tip;			/* the stream's end, and ... */
	CommandId	looked_in;		/* ... the command in which it was looked at */
	bool		fails;			/* see AppendCall */
	int64		lost_at;		/* the race behind this version was lost; -1: none was */
	CommandId	lost_in;
} StreamAppend;

PG_FUNCTION_INFO_V1(cqrs_es_append_support);
PG_FUNCTION_INFO_V1(cqrs_es_append_event);
PG_FUNCTION_INFO_V1(cqrs_es_append_events);
PG_FUNCTION_INFO_V1(cqrs_es_append_event_arrays);

static Datum append_or_raise(FunctionCallInfo fcinfo, AppendRequest *append);
static Datum result_datum(FunctionCallInfo fcinfo, const AppendResult *result);
static void begin_streams(AppendCall *call, StreamAppend *streams);
static bool has_ids(const AppendCall *call, const StreamAppend *streams);
static bool needs_undo(const AppendCall *call);
static void look_at_end(const EventWriter *writer, StreamAppend *stream);
static bool is_retry(const AppendCall *call, StreamAppend *streams, int from);
static int	prepare_streams(const AppendCall *call, StreamAppend *streams, int from);
static void draw_positions(EventWriter *writer, const AppendCall *call);
static int	insert_undoable(EventWriter *writer, StreamAppend *streams, int nstreams);
static int	insert_streams(EventWriter *writer, StreamAppend *streams, int from, int nstreams);
static void swap_payloads(AppendRequest *append);
static bool inserts_plainly(const EventWriter *writer, const StreamAppend *stream);
pg_noreturn static void report_taken(const EventWriter *writer, StreamAppend *stream);
static void finish(const AppendCall *call, const EventWriter *writer, Tagging *tagging);
static void stamp_events(AppendRequest *append, const StreamTip *tip);
pg_noreturn static void report_suppressed(const StreamKey *key);
pg_noreturn static void report_overtaken(const StreamKey *key);

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/*
 * SQL: append_support(internal), what the planner asks about calls of the following.  Of a
 * function in FROM the executor prepares each argument for itself, which for nine of them costs
 * as much as the look at the stream's end; any other expression it prepares as a whole.  So a call becomes
 * an expression that has the same value and the same type, which EXPLAIN shows below a field alone.
 */
Datum
cqrs_es_append_support(PG_FUNCTION_ARGS)
{
	SupportRequestSimplify *request = (SupportRequestSimplify *) PG_GETARG_POINTER(0);
	FuncExpr   *call;

	if (!IsA(request, SupportRequestSimplify))
		PG_RETURN_POINTER(NULL);
	call = makeNode(FuncExpr);
	*call = *request->fcall;
	PG_RETURN_POINTER(makeRelabelType((Expr *) call, call->funcresulttype, -1, InvalidOid,
									  COERCE_IMPLICIT_CAST));
}

/*
 * SQL: append_event(aggregate_type, aggregate_id, event_type, payload,
 * expected_version, metadata, event_id, event_version, tags)
 */
Datum
cqrs_es_append_event(PG_FUNCTION_ARGS)
{
	AppendRequest append;

	AppendRequestOfEvent(&append, OlderSqlCall(fcinfo, 9));
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

	AppendRequestOfArrays(&append, OlderSqlCall(fcinfo, 9));
	return append_or_raise(fcinfo, &append);
}

/* Append; QE001 when the stream is at another version than was expected. */
static Datum
append_or_raise(FunctionCallInfo fcinfo, AppendRequest *append)
{
	AppendResult result;
	AppendCall	call = {.requests = append,.nrequests = 1,.results = &result,.fails = true};

	ReadOnlyPrevent(fcinfo);
	if (AppendToStreams(&call) == 0)
		AppendReportConflict(&append->key, append->expected_version, result.version);
	return result_datum(fcinfo, &result);
}

/* The result as a value of the function's type, cqrs_es.append_result. */
static Datum
result_datum(FunctionCallInfo fcinfo, const AppendResult *result)
{
	Oid			type = get_fn_expr_rettype(fcinfo->flinfo);
	TupleDesc	desc;
	Datum		values[2] = {Int64GetDatum(result->version),
		Int64GetDatum(result->global_position)};
	bool		nulls[2] = {false, false};
	Datum		row;

	/* who calls it without an expression does not say */
	if (!OidIsValid(type))
		type = get_func_rettype(fcinfo->flinfo->fn_oid);
	desc = lookup_rowtype_tupdesc(type, -1);
	row = HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
	ReleaseTupleDesc(desc);
	return row;
}

/*-------------------------------------------------------------------------
 * the loop
 *-------------------------------------------------------------------------
 */

/*
 * Append all events of a request to one stream or none.  False when the version check
 * fails: the stream is at result->version then, nothing was written, and the caller may
 * look again and append something else.  Else as AppendToStreams.
 */
bool
AppendEvents(AppendRequest *append, AppendResult *result)
{
	AppendCall	call = {.requests = append,.nrequests = 1,.results = result};

	return AppendToStreams(&call) == 1;
}

/*
 * Append all events of the call or none, and let projections and snapshots follow.
 * Fills in the events and the results.  Returns the number of requests, or which of
 * them failed its version check: that stream is at the version of its result then, and
 * nothing was written.  (When another stream was, before, the conflict is raised here: QE001.)  Takes RowExclusiveLock on the log, and behind it
 * the locks of the events' tags and of the condition (kept to the end of the
 * transaction, as by INSERT).
 *
 * Behind ReadOnlyPrevent.  Raises QE001 (see above), QE002 (event id used with other content), 40001 (above
 * READ COMMITTED), 42501 (no INSERT or no SELECT), 55000 (nothing guards the
 * streams, stream_index.c), 23505 (another unique index of the table), 09000 (a
 * trigger of users kept it out), QE502 (nothing to make a tag of), QE701 to QE703 (personal data), 40P01, and whatever the
 * condition or a projection raises.
 */
int
AppendToStreams(AppendCall *call)
{
	int			n = call->nrequests;
	StreamAppend *streams = palloc(n * sizeof(StreamAppend));
	bool		undoes = needs_undo(call);
	bool		fails = false;
	bool		holds;
	bool		held;
	Tagging    *tagging;
	EventWriter writer;
	int			conflict = n;
	int			done = 0;
	int			i;

	if (call->condition)
		EventsRefuseDistributed("conditions");
	begin_streams(call, streams);
	EventsRequireRights(ACL_INSERT | ACL_SELECT);
	EventWriterOpen(&writer);
	if (!writer.straight)
		(void) StreamIndexRequire(writer.rel, &writer.table.columns);
	for (i = 0; i < n; i++)
		PersonalDataProtect(&call->requests[i]);
	tagging = TaggingBegin(call->requests, n, call->condition ? call->condition->asks : NULL);
	if (call->condition)
		fails = !call->condition->holds(call->condition);
	if (fails && !has_ids(call, streams))
		call->condition->report(call->condition);

	/*
	 * It ends: a lost race is lost to an event that is in the stream by now, or to one
	 * that is gone (event_writer.c says why that comes to an end); and what is kept out
	 * by SQL although the stream stays where it was ends with the second try, as does
	 * what is kept out by a trigger that appends to it.
	 */
	holds = n > 1 || !writer.straight;
	held = holds && DispatchHold();
	do
	{
		CHECK_FOR_INTERRUPTS();
		for (i = done; i < n; i++)
			look_at_end(&writer, &streams[i]);
		if (is_retry(call, streams, done))
			break;
		if (fails)
			call->condition->report(call->condition);
		conflict = prepare_streams(call, streams, done);
		/* nobody is to be told of what was written before */
		if (conflict < n && done > 0)
			AppendReportConflict(&call->requests[conflict].key,
								 call->requests[conflict].expected_version,
								 call->results[conflict].version);
		if (conflict < n)
			break;
		if (done == 0)
			draw_positions(&writer, call);
		done = undoes ? insert_undoable(&writer, streams, n) :
			insert_streams(&writer, streams, done, n);
	} while (done < n);
	EventWriterClose(&writer);
	if (done == n)
		finish(call, &writer, tagging);
	if (holds)
		DispatchRelease(held);
	return conflict;
}

static void
begin_streams(AppendCall *call, StreamAppend *streams)
{
	int			i;

	for (i = 0; i < call->nrequests; i++)
	{
		streams[i].request = &call->requests[i];
		streams[i].fails = call->fails;
		streams[i].lost_at = -1;
		streams[i].lost_in = InvalidCommandId;
		AppendRetryBegin(&streams[i].retry, streams[i].request);
	}
}

/* Can it be an append that came before? */
static bool
has_ids(const AppendCall *call, const StreamAppend *streams)
{
	int			i;

	for (i = 0; i < call->nrequests; i++)
		if (streams[i].retry.nids < streams[i].request->nevents)
			return false;
	return true;
}

/*
 * Can a race be lost, and run again, when other streams have been written?  Not where a
 * version was given: then it is a conflict, or was lost to nobody.
 */
static bool
needs_undo(const AppendCall *call)
{
	int			i;

	for (i = 1; i < call->nrequests; i++)
		if (call->requests[i].expected_version < 0)
			return true;
	return false;
}

/* Where does the stream end?  Waits for who holds its end. */
static void
look_at_end(const EventWriter *writer, StreamAppend *stream)
{
	const StreamKey *key = &stream->request->key;

	stream->looked_in = GetCurrentCommandId(false);
	stream->tip = EventWriterTip(writer, key, stream->request->seen);
	if (stream->tip.after_snapshot)
		EventScanReportMoved(key);
	if (stream->lost_at >= 0 && stream->tip.version > stream->lost_at && !writer->straight &&
		EventScanVersionWithout(key, stream->lost_in) == stream->lost_at)
		report_overtaken(key);
}

/* Do the streams hold all of this already?  Then the results of the append that wrote it. */
static bool
is_retry(const AppendCall *call, StreamAppend *streams, int from)
{
	int			nfound = 0;
	int			found = 0;
	int			i;

	for (i = from; i < call->nrequests; i++)
		if (AppendRetryFind(&streams[i].retry, &streams[i].tip, &call->results[i]))
		{
			nfound++;
			found = i;
		}
	if (nfound > 0 && nfound < call->nrequests)
		AppendRetryReportPart(&streams[found].retry, &call->results[found]);
	return nfound > 0;
}

/* Number the events; or which stream is not at the version that was expected? */
static int
prepare_streams(const AppendCall *call, StreamAppend *streams, int from)
{
	int			i;

	for (i = from; i < call->nrequests; i++)
	{
		AppendRequest *append = streams[i].request;
		const StreamTip *tip = &streams[i].tip;

		call->results[i].version = tip->version;
		call->results[i].was_there = false;
		EventScanRequireOpen(&append->key, tip);
		if (!AppendVersionFits(append->expected_version, tip->version))
			return i;
		EventScanRequireRoom(&append->key, tip, append->nevents);
		stamp_events(append, tip);
	}
	return call->nrequests;
}

/* Behind the ends of all streams, so positions rise in each, and from event to event. */
static void
draw_positions(EventWriter *writer, const AppendCall *call)
{
	int			i;
	int			j;

	if (call->in_order == NULL)
		for (i = 0; i < call->nrequests; i++)
			for (j = 0; j < call->requests[i].nevents; j++)
				EventWriterDraw(writer, &call->requests[i].events[j]);
	else
		for (i = 0; i < call->nevents; i++)
			EventWriterDraw(writer, call->in_order[i]);
}

/*
 * All streams, in a subtransaction: when not all could be written, none was.  Returns how
 * many were.
 */
static int
insert_undoable(EventWriter *writer, StreamAppend *streams, int nstreams)
{
	volatile int done = 0;
	ErrorData  *volatile error = NULL;
	Subtransaction subtransaction;

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		done = insert_streams(writer, streams, 0, nstreams);
		SubtransactionEnd(&subtransaction, done == nstreams);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();
	if (error)
		ReThrowError(error);
	return done == nstreams ? nstreams : 0;
}

/*
 * Insert the events of these streams, as long as none is lost; returns how many streams are
 * written then, those before `from` included.  By SQL it is the triggers of the rows
 * that queue them for the observers; and there a race that was lost is over by now: not to
 * see the winner means that there is none, and the row goes in plainly.
 */
static int
insert_streams(EventWriter *writer, StreamAppend *streams, int from, int nstreams)
{
	int			i;

	for (i = from; i < nstreams; i++)
	{
		StreamAppend *stream = &streams[i];
		AppendRequest *append = stream->request;

		/* else the trigger of the rows sees to it */
		bool		swaps = append->stored != NULL &&
			(writer->straight || SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA);
		EventWriterOutcome outcome;

		if (swaps)
			swap_payloads(append);
		outcome = EventWriterInsert(writer, append->events, append->nevents,
									inserts_plainly(writer, stream));
		if (swaps)
			swap_payloads(append);
		if (outcome == EVENTS_CONFLICT)
			report_taken(writer, stream);
		if (outcome == EVENTS_SUPPRESSED)
			report_suppressed(&append->key);
		if (outcome == EVENTS_LOST)
		{
			/* somebody was quicker */
			stream->lost_at = stream->tip.version;
			stream->lost_in = stream->looked_in;
			break;
		}
	}
	return i;
}

/* Between what was sent and what is stored: all but the table knows the events as they were sent. */
static void
swap_payloads(AppendRequest *append)
{
	int			i;

	for (i = 0; i < append->nevents; i++)
	{
		Datum		payload = append->events[i].values[EVENT_PAYLOAD];

		append->events[i].values[EVENT_PAYLOAD] = append->stored[i];
		append->stored[i] = payload;
	}
}

/*
 * By SQL, when a race was lost to nobody.  Straight, when there is no next try: the version was
 * given, who loses is to get an error, and nobody can have sent this append before, for it
 * has no ids.
 */
static bool
inserts_plainly(const EventWriter *writer, const StreamAppend *stream)
{
	if (writer->straight)
		return stream->fails && stream->request->expected_version >= 0 && stream->retry.nids == 0;
	return stream->lost_at == stream->tip.version;
}

/* QE001 where somebody was quicker, or 40001; the row that we have written goes with it. */
static void
report_taken(const EventWriter *writer, StreamAppend *stream)
{
	look_at_end(writer, stream);
	AppendReportConflict(&stream->request->key, stream->request->expected_version,
						 stream->tip.version);
}

/*
 * Fill in the results, write the tags, and let observers know what went in straight; the
 * caller has seen to it that of several streams they are told in the order of positions.
 */
static void
finish(const AppendCall *call, const EventWriter *writer, Tagging *tagging)
{
	bool		triggers_fired = !writer->straight &&
		SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA;
	int			i;

	for (i = 0; i < call->nrequests; i++)
	{
		const AppendRequest *append = &call->requests[i];
		const Event *last = &append->events[append->nevents - 1];

		call->results[i].version = EventSequence(last);
		call->results[i].global_position = EventGlobalPosition(last);
		call->results[i].as_sent = writer->straight;
	}
	TaggingWrite(tagging, triggers_fired);
	if (writer->straight)
		for (i = 0; i < call->nrequests; i++)
			DispatchEvents(call->requests[i].events, call->requests[i].nevents);
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
