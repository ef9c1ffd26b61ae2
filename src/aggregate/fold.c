/*-------------------------------------------------------------------------
 * fold.c
 *	  Replay: snapshot + the events after it -> state.
 *
 * A fold walks tuples of the log and keeps two things in memory, the state
 * (reducer_state.c) and one event: what an event needs lives in a context that
 * is reset before the next one, so memory is flat however long the stream is.
 * It starts at the newest usable snapshot at or before the point asked for; when
 * one is taken says snapshot.c.
 *
 * The state at a time is that of the longest beginning of the stream whose events
 * all were created by then.  Times rise within a stream (append.c, admission.c), but
 * for those that were brought along, by an import: an event that is dated before the
 * one in front of it counts from when that one does.  So what once was the state at a
 * time has all earlier ones in its past, and nothing in it is from later.
 *
 * Sequences of a stream have no holes, but for the one at the beginning of a stream that was
 * deleted, in front of '$deleted'.  A fold that meets another one stops with XX001 rather than return
 * a state that never was.
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

#include "base/compat.h"
#include "base/counter.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/stream_key.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/event_scan.h"
#include "log/personal_data.h"
#include "log/read.h"
#include "log/reserved_type.h"
#include "aggregate/fold.h"
#include "aggregate/reducer_state.h"
#include "aggregate/snapshot_store.h"

PG_FUNCTION_INFO_V1(cqrs_es_aggregate_state);
PG_FUNCTION_INFO_V1(cqrs_es_load_aggregate);
PG_FUNCTION_INFO_V1(cqrs_es_replay);

/* Room for a payload with a short header, aligned. */
typedef union PayloadBuffer
{
	int64		align;
	char		data[VARHDRSZ + VARATT_SHORT_MAX];
} PayloadBuffer;

/* A fold under way. */
typedef struct Fold
{
	Aggregate  *aggregate;
	const StreamKey *key;
	int64		began_after;	/* the last event in the state that it began at, 0
								 * without one */
	bool		is_replay;		/* that was a snapshot, and no state that the caller had */
	int64		version;		/* sequence of the last event that is in the state */
	TimestampTz last_event_at;	/* the greatest created_at of those events */
	int64		up_to_sequence; /* ends there at the latest, or in front of '$deleted' */
	TimestampTz up_to_time;		/* ends before the first event created after that */
	int64		passed_over;	/* so many sequences were missing in front of '$deleted' */
	int64		deleted_at;		/* its sequence; 0: none was met */
	bool		as_caller;		/* of what row security shows the caller */
	bool		redacted;		/* events that are in the state it began at have been
								 * changed since */
	ReducerState state;
	FoldWatch  *watch;			/* or NULL */

	EventScan  *scan;
	LogSnapshot snapshot;
	PayloadBuffer buffer;
	MemoryContext memory;		/* of all this */
	MemoryContext event_memory; /* of one event */
	MemoryContext caller;
} Fold;

/* Up to where to fold. */
typedef struct FoldPoint
{
	int64		sequence;
	TimestampTz time;
	bool		newest;			/* as of now, whatever the isolation level */
	bool		hides;			/* without personal data, which the caller may not see */
} FoldPoint;

static FoldPoint point_args(FunctionCallInfo fcinfo);
static FoldedState fold_to(Aggregate *aggregate, const StreamKey *key, FoldPoint point,
						   bool as_caller, FoldWatch *watch);
static FoldedState nothing_yet(const Aggregate *aggregate);
static void note_event(const Fold *fold, const Event *event);
static void fold_begin(Fold *fold, Aggregate *aggregate, const StreamKey *key, FoldPoint point,
					   bool as_caller, const FoldedState *from, bool last_again);
static bool fold_next(Fold *fold, Event *event);
static bool pass_over_deleted(Fold *fold, const Event *event);
static FoldedState fold_end(Fold *fold);
static Datum unpack_payload(Datum payload, PayloadBuffer *buffer);
static void describe_fold(void *arg);

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/*
 * SQL: aggregate_state(aggregate_type, aggregate_id, at_sequence, at_time).
 * Null when the stream had no events then, or had been deleted.
 */
Datum
cqrs_es_aggregate_state(PG_FUNCTION_ARGS)
{
	StreamKey	key;
	Aggregate  *aggregate;
	FoldedState folded;

	RegistryEnter();
	aggregate = FoldStreamArgs(fcinfo, &key);
	folded = fold_to(aggregate, &key, point_args(fcinfo), EventsRowSecurity(), NULL);
	RegistryLeave();
	if (folded.version == 0 || folded.deleted)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(folded.state);
}

/*
 * SQL: load_aggregate(aggregate_type, aggregate_id, at_sequence, at_time,
 * OUT version, OUT state).  Version 0 and the initial state when the stream had
 * no events then.
 */
Datum
cqrs_es_load_aggregate(PG_FUNCTION_ARGS)
{
	StreamKey	key;
	Aggregate  *aggregate;
	FoldedState folded;
	Datum		values[2];
	bool		nulls[2] = {false, false};
	TupleDesc	desc;

	RegistryEnter();
	aggregate = FoldStreamArgs(fcinfo, &key);
	folded = fold_to(aggregate, &key, point_args(fcinfo), EventsRowSecurity(), NULL);
	RegistryLeave();
	values[0] = Int64GetDatum(folded.version);
	values[1] = JsonbPGetDatum(folded.state);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * SQL: replay(aggregate_type, aggregate_id, from_sequence, max_count).  One row
 * per event with the state after it.
 */
Datum
cqrs_es_replay(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	StreamKey	key;
	Aggregate  *aggregate;
	int64		from_sequence = PG_ARGISNULL(2) ? 1 : PG_GETARG_INT64(2);
	int64		max_count = ReadMaxCount(fcinfo->args[3]);
	int64		left = max_count;
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es replay",
											   ALLOCSET_DEFAULT_SIZES);
	FoldPoint	before = {.sequence = from_sequence - 1,.time = DT_NOEND,.hides = PersonalDataHides(GetUserId())};
	FoldedState nothing;
	Fold		fold;
	Event		event;

	if (from_sequence < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("from_sequence must be greater than zero")));
	InitMaterializedSRF(fcinfo, 0);

	RegistryEnter();
	aggregate = FoldStreamArgs(fcinfo, &key);
	fold_begin(&fold, aggregate, &key, before, EventsRowSecurity(), NULL, false);
	while (left > 0 && (fold_next(&fold, &event) || fold.redacted))
	{
		Datum		values[7];
		bool		nulls[7] = {false};
		MemoryContext caller;

		if (fold.redacted)
		{
			/* somebody has put back a snapshot of before */
			(void) fold_end(&fold);
			tuplestore_clear(result->setResult);
			left = max_count;
			nothing = nothing_yet(aggregate);
			fold_begin(&fold, aggregate, &key, before, EventsRowSecurity(), &nothing, false);
			continue;
		}
		if (fold.version < from_sequence)
			continue;
		caller = MemoryContextSwitchTo(work);
		values[0] = event.values[EVENT_SEQUENCE];
		values[1] = event.values[EVENT_CREATED_AT];
		values[2] = event.values[EVENT_EVENT_TYPE];
		values[3] = event.values[EVENT_EVENT_VERSION];
		values[4] = event.values[EVENT_PAYLOAD];
		values[5] = event.values[EVENT_METADATA];
		values[6] = JsonbPGetDatum(ReducerStateJsonb(&fold.state));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(work);
		left--;
	}
	(void) fold_end(&fold);
	RegistryLeave();
	return (Datum) 0;
}

/* What at_sequence or at_time means; neither: the end. */
static FoldPoint
point_args(FunctionCallInfo fcinfo)
{
	FoldPoint	point = {.sequence = PG_INT64_MAX,.time = DT_NOEND,.hides = PersonalDataHides(GetUserId())};

	if (!PG_ARGISNULL(2) && !PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("at_sequence and at_time cannot be given both")));
	if (!PG_ARGISNULL(2))
		point.sequence = PG_GETARG_INT64(2);
	if (!PG_ARGISNULL(3))
		point.time = PG_GETARG_TIMESTAMPTZ(3);
	if (point.sequence < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("at_sequence must not be negative")));
	return point;
}

/*-------------------------------------------------------------------------
 * the fold
 *-------------------------------------------------------------------------
 */

/*
 * The stream that the first two arguments of an SQL function name, and its aggregate
 * type (QE101).  The caller must be allowed to read events (42501).  *key points
 * into the arguments.
 */
Aggregate *
FoldStreamArgs(FunctionCallInfo fcinfo, StreamKey *key)
{
	key->aggregate_type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	key->aggregate_id = TextArgument(fcinfo->args[1], "aggregate_id", AGGREGATE_ID_MAX_BYTES);
	key->tenant_id = TenancyCurrent();
	EventsRequireRights(ACL_SELECT);
	return AggregateRequire(key->aggregate_type);
}

/*
 * Fold a stream up to a sequence.  In READ COMMITTED it sees what is committed
 * now.  The state is palloc'd in the current memory context.  The caller has
 * checked the right to read.  Raises what reducers raise, XX001 for a hole, 42501 where
 * row security hides an event.
 */
FoldedState
FoldStream(Aggregate *aggregate, const StreamKey *key, int64 up_to_sequence)
{
	return FoldStreamWatched(aggregate, key, up_to_sequence, NULL);
}

/* The same of what is committed now, in every isolation level: for who keeps it for others. */
FoldedState
FoldStreamNewest(Aggregate *aggregate, const StreamKey *key, int64 up_to_sequence)
{
	FoldPoint	point = {.sequence = up_to_sequence,.time = DT_NOEND,.newest = true};

	return fold_to(aggregate, key, point, EventsRowSecurity(), NULL);
}

/* The same for a caller who may not see personal data: without them, from the beginning. */
FoldedState
FoldStreamShown(Aggregate *aggregate, const StreamKey *key, int64 up_to_sequence)
{
	FoldPoint	point = {.sequence = up_to_sequence,.time = DT_NOEND,.hides = true};

	return fold_to(aggregate, key, point, EventsRowSecurity(), NULL);
}

/* FoldStream; says in *watch, unless that is NULL, which event it is at; starts with none. */
FoldedState
FoldStreamWatched(Aggregate *aggregate, const StreamKey *key, int64 up_to_sequence,
				  FoldWatch *watch)
{
	FoldPoint	point = {.sequence = up_to_sequence,.time = DT_NOEND};

	return fold_to(aggregate, key, point, EventsRowSecurity(), watch);
}

/*
 * The same of all events of the stream, whatever row security would show the caller.
 * Says in *watch, unless that is NULL, which event it is at; starts with none.
 */
FoldedState
FoldWholeStream(Aggregate *aggregate, const StreamKey *key, int64 up_to_sequence,
				FoldWatch *watch)
{
	FoldPoint	point = {.sequence = up_to_sequence,.time = DT_NOEND};

	return fold_to(aggregate, key, point, false, watch);
}

static FoldedState
fold_to(Aggregate *aggregate, const StreamKey *key, FoldPoint point, bool as_caller,
		FoldWatch *watch)
{
	const FoldedState nothing = nothing_yet(aggregate);
	Fold		fold;
	Event		event;

	fold_begin(&fold, aggregate, key, point, as_caller, NULL, false);
	fold.up_to_sequence = point.sequence;
	fold.watch = watch;
	while (fold.version < point.sequence && !fold.redacted && fold_next(&fold, &event))
		 /* on */ ;
	if (fold.redacted)
	{
		/* somebody has put back a snapshot of before */
		(void) fold_end(&fold);
		fold_begin(&fold, aggregate, key, point, as_caller, &nothing, false);
		fold.up_to_sequence = point.sequence;
		fold.watch = watch;
		while (fold.version < point.sequence && fold_next(&fold, &event))
			 /* on */ ;
	}
	return fold_end(&fold);
}

/* The state of a stream before its first event. */
static FoldedState
nothing_yet(const Aggregate *aggregate)
{
	FoldedState nothing = {.last_event_at = DT_NOBEGIN,.state = aggregate->rules.initial_state};

	return nothing;
}

/*
 * Fold all events of the stream that follow a state, whatever row security would show the
 * caller; anew when events that are in the state have been redacted since.  Changes *folded; its
 * state is palloc'd in the current memory context.  Says in *watch, unless that is NULL, which
 * event it is at.  Raises what FoldStream does.
 */
void
FoldOn(FoldedState *folded, Aggregate *aggregate, const StreamKey *key, FoldWatch *watch)
{
	FoldPoint	end = {.sequence = PG_INT64_MAX,.time = DT_NOEND};
	Fold		fold;
	Event		event;

	fold_begin(&fold, aggregate, key, end, false, folded, false);
	fold.watch = watch;
	while (!fold.redacted && fold_next(&fold, &event))
		 /* on */ ;
	*folded = fold_end(&fold);
	if (fold.redacted)
		*folded = fold_to(aggregate, key, end, false, watch);
}

/*
 * Fold the events that follow a state which one has had for a while, up to a sequence, as
 * FoldOn; if the last event in it is still `last`, and nothing was redacted since.  Else false, and
 * *folded is as it was.
 */
bool
FoldOnBehind(FoldedState *folded, const StreamTip *last, Aggregate *aggregate,
			 const StreamKey *key, int64 up_to_sequence)
{
	FoldPoint	point = {.sequence = up_to_sequence,.time = DT_NOEND};
	Fold		fold;
	FoldedState result;
	Event		event;
	bool		holds;

	fold_begin(&fold, aggregate, key, point, false, folded, true);
	holds = EventScanNext(fold.scan, &event);
	if (holds)
	{
		StreamTip	first = EventScanTipOf(&event);

		holds = EventScanSameTip(&first, last);
	}
	while (holds && !fold.redacted && fold.version < point.sequence && fold_next(&fold, &event))
		 /* on */ ;
	holds = holds && !fold.redacted;
	result = fold_end(&fold);
	if (holds)
		*folded = result;
	return holds;
}

/*
 * Fold events that follow a state, and are not to be read from the log because
 * one has them already.  Changes *folded; its state is palloc'd in the current
 * memory context.  Says in *watch, unless that is NULL, which event it is at.
 */
void
FoldMore(FoldedState *folded, Aggregate *aggregate, const StreamKey *key,
		 const Event *events, int nevents, FoldWatch *watch)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext memory = AllocSetContextCreate(caller, "cqrs_es fold", ALLOCSET_DEFAULT_SIZES);
	Fold		fold = {.aggregate = aggregate,.key = key,.version = folded->version,
		.last_event_at = folded->last_event_at,.watch = watch};
	ErrorContextCallback callback = {error_context_stack, describe_fold, &fold};
	int			i;

	MemoryContextSwitchTo(memory);
	ReducerStateInit(&fold.state, folded->state);
	error_context_stack = &callback;
	for (i = 0; i < nevents; i++)
	{
		Event		event = events[i];

		fold.version++;
		fold.last_event_at = Max(fold.last_event_at,
								 DatumGetTimestampTz(event.values[EVENT_CREATED_AT]));
		note_event(&fold, &event);
		ReducerStateApply(&fold.state, &aggregate->rules, &event);
	}
	error_context_stack = callback.previous;
	ReducerStateEnd(&fold.state);
	MemoryContextSwitchTo(caller);
	folded->version = fold.version;
	folded->last_event_at = fold.last_event_at;
	folded->deleted = folded->deleted && nevents == 0;
	folded->state = ReducerStateJsonb(&fold.state);
	MemoryContextDelete(memory);
}

/*
 * Begin at a state that one has, or for NULL at the newest snapshot that is not beyond the
 * point; without one when row security of the log decides what the caller may see of the
 * stream, or personal data in it are hidden from him.  The scan shows the events behind it; `last_again`: the last one that is in it, too.
 */
static void
fold_begin(Fold *fold, Aggregate *aggregate, const StreamKey *key, FoldPoint point,
		   bool as_caller, const FoldedState *from, bool last_again)
{
	StoredState stored;
	int64		begin;

	check_stack_depth();
	fold->aggregate = aggregate;
	fold->key = key;
	fold->as_caller = as_caller;
	fold->caller = CurrentMemoryContext;
	fold->memory = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es fold",
										 ALLOCSET_DEFAULT_SIZES);
	fold->event_memory = AllocSetContextCreate(fold->memory, "cqrs_es fold event",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(fold->memory);
	fold->snapshot = EventsSnapshotTake(point.newest);
	if (from)
	{
		stored.last_sequence = from->version;
		stored.last_event_at = from->last_event_at;
		stored.state = from->state;
	}
	else if (point.sequence == 0 || as_caller || point.hides ||
			 !SnapshotStoreLoad(key, aggregate, point.sequence, point.time, fold->snapshot.snapshot, &stored))
	{
		stored.last_sequence = 0;
		stored.last_event_at = DT_NOBEGIN;
		stored.state = aggregate->rules.initial_state;
	}
	fold->is_replay = from == NULL;
	fold->began_after = stored.last_sequence;
	fold->version = stored.last_sequence;
	fold->last_event_at = stored.last_event_at;
	fold->up_to_sequence = PG_INT64_MAX;
	fold->up_to_time = point.time;
	fold->passed_over = 0;
	fold->deleted_at = 0;
	fold->watch = NULL;
	fold->redacted = false;
	ReducerStateInit(&fold->state, stored.state);
	fold->state.hides = point.hides;
	begin = fold->version + (last_again ? 0 : 1);
	fold->scan = as_caller ?
		EventScanStream(key, begin, ForwardScanDirection, fold->snapshot.snapshot) :
		EventScanWholeStream(key, begin, ForwardScanDirection, fold->snapshot.snapshot);
	MemoryContextSwitchTo(fold->caller);
}

/*
 * Fold the next event into the state; false at the end, or before an event that is too
 * late.  The event's values are good until the next call.
 */
static bool
fold_next(Fold *fold, Event *event)
{
	ErrorContextCallback callback;
	TimestampTz created_at;

	MemoryContextReset(fold->event_memory);
	if (!EventScanNext(fold->scan, event))
		return false;
	if (EventSequence(event) != fold->version + 1 && !pass_over_deleted(fold, event))
		return false;
	created_at = DatumGetTimestampTz(event->values[EVENT_CREATED_AT]);
	if (created_at > fold->up_to_time)
		return false;
	fold->version++;
	fold->last_event_at = Max(fold->last_event_at, created_at);

	fold->redacted = fold->began_after != 0 && ReservedTypeErases(event);
	note_event(fold, event);
	callback.callback = describe_fold;
	callback.arg = fold;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	MemoryContextSwitchTo(fold->event_memory);
	event->values[EVENT_PAYLOAD] = unpack_payload(event->values[EVENT_PAYLOAD], &fold->buffer);
	ReducerStateApply(&fold->state, &fold->aggregate->rules, event);
	MemoryContextSwitchTo(fold->caller);
	error_context_stack = callback.previous;
	return true;
}

/*
 * In front of '$deleted' the events of a stream are missing.  False when the fold ends before
 * it; a state that it began at is of what is gone then.  XX001 for any other hole, 42501 where row
 * security may have made it.
 */
static bool
pass_over_deleted(Fold *fold, const Event *event)
{
	int64		missing = EventSequence(event) - fold->version - 1;

	if (fold->version != fold->began_after || missing < 0 ||
		!ReservedTypeEquals(EventText(event, EVENT_EVENT_TYPE), DELETED_EVENT_TYPE))
		ereport(ERROR,
				(errcode(fold->as_caller ? ERRCODE_INSUFFICIENT_PRIVILEGE : ERRCODE_DATA_CORRUPTED),
				 fold->as_caller ?
				 errmsg("row security of table \"%s\" hides event %lld of stream \"%s\"", "events",
						(long long) fold->version + 1, StreamKeyName(fold->key)) :
				 errmsg("stream \"%s\" has a hole: sequence %lld is missing",
						StreamKeyName(fold->key), (long long) fold->version + 1),
				 fold->as_caller ? errdetail("A state is that of all events.") : 0));
	fold->redacted = fold->began_after != 0;
	if (fold->redacted || EventSequence(event) > fold->up_to_sequence ||
		DatumGetTimestampTz(event->values[EVENT_CREATED_AT]) > fold->up_to_time)
		return false;
	fold->passed_over = missing;
	fold->deleted_at = EventSequence(event);
	fold->version += missing;
	return true;
}

/*
 * End the fold, and count it as a replay unless the caller had a state already; the
 * state it came to is palloc'd in the caller's memory context.
 */
static FoldedState
fold_end(Fold *fold)
{
	FoldedState folded;

	EventScanEnd(fold->scan);
	EventsSnapshotRelease(fold->snapshot);
	ReducerStateEnd(&fold->state);
	folded.version = fold->version;
	folded.last_event_at = fold->last_event_at;
	folded.nread = fold->version - fold->began_after - fold->passed_over;
	folded.deleted = fold->deleted_at != 0 && fold->version == fold->deleted_at;
	folded.state = ReducerStateJsonb(&fold->state);
	if (fold->is_replay)
		CounterAdd("replay_counts", folded.nread, fold->began_after > 0);
	MemoryContextDelete(fold->memory);
	return folded;
}

/*
 * The payload detoasted, once per event.  Most are short and only need to be
 * moved to an aligned place.
 */
static Datum
unpack_payload(Datum payload, PayloadBuffer *buffer)
{
	struct varlena *value = (struct varlena *) DatumGetPointer(payload);

	/* an out-of-line value counts as short, too, by its header */
	if (VARATT_IS_EXTERNAL(value) || !VARATT_IS_SHORT(value))
		return PointerGetDatum(PG_DETOAST_DATUM(payload));
	SET_VARSIZE(buffer->data, VARHDRSZ + VARSIZE_SHORT(value) - VARHDRSZ_SHORT);
	/* not memcpy, of which gcc, knowing that it is short, makes a slow "rep movs" */
	memmove(VARDATA(buffer->data), VARDATA_SHORT(value), VARSIZE_SHORT(value) - VARHDRSZ_SHORT);
	return PointerGetDatum(buffer->data);
}

static void
note_event(const Fold *fold, const Event *event)
{
	if (fold->watch == NULL)
		return;
	fold->watch->sequence = fold->version;
	fold->watch->global_position = EventGlobalPosition(event);
	text_to_cstring_buffer(EventText(event, EVENT_EVENT_TYPE), fold->watch->event_type,
						   sizeof(fold->watch->event_type));
}

static void
describe_fold(void *arg)
{
	Fold	   *fold = arg;

	errcontext("folding event %lld of stream \"%s\"", (long long) fold->version,
			   StreamKeyName(fold->key));
}
