/*-------------------------------------------------------------------------
 * fold.c
 *	  Replay: snapshot + the events after it -> state.
 *
 * A fold walks tuples of the log and keeps two things in memory, the state and
 * one event: what an event needs lives in a context that is reset before the
 * next one, so memory is flat however long the stream is.
 *
 * Snapshots are taken in the appending transaction: every event whose sequence
 * is a multiple of the aggregate's snapshot_every folds the stream up to
 * itself and saves the result.  They commit or roll back with the event, so a
 * snapshot never speaks of events that are not there.
 *
 * Sequences of a stream have no holes.  A fold that meets one stops with XX001
 * rather than return a state that never was.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "cqrs_es.h"
#include "dispatch.h"
#include "errors.h"
#include "events.h"
#include "fold.h"
#include "internal_query.h"
#include "reducer.h"
#include "snapshot.h"
#include "tenancy.h"

PG_FUNCTION_INFO_V1(cqrs_es_aggregate_state);
PG_FUNCTION_INFO_V1(cqrs_es_load_aggregate);
PG_FUNCTION_INFO_V1(cqrs_es_take_snapshot);

/* Which event is being folded, for the error context. */
typedef struct FoldContext
{
	const StreamKey *key;
	int64		sequence;
}			FoldContext;

static FoldedState fold_args(FunctionCallInfo fcinfo, StreamKey *key,
							 Aggregate **aggregate);
static void fold_events(FoldedState *folded, Aggregate *aggregate, const StreamKey *key,
						int64 up_to_sequence, Snapshot snapshot);
static void snapshot_if_due(const Event *event);
static void describe_fold(void *arg);

void
FoldInit(void)
{
	DispatchRegister(snapshot_if_due);
}

/*
 * SQL: aggregate_state(aggregate_type, aggregate_id).  Null when the stream
 * has no events.
 */
Datum
cqrs_es_aggregate_state(PG_FUNCTION_ARGS)
{
	StreamKey	key;
	Aggregate  *aggregate;
	FoldedState folded = fold_args(fcinfo, &key, &aggregate);

	if (folded.version == 0)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(folded.state);
}

/*
 * SQL: load_aggregate(aggregate_type, aggregate_id, OUT version, OUT state).
 * Version 0 and the initial state when the stream has no events.
 */
Datum
cqrs_es_load_aggregate(PG_FUNCTION_ARGS)
{
	StreamKey	key;
	Aggregate  *aggregate;
	FoldedState folded = fold_args(fcinfo, &key, &aggregate);
	Datum		values[2] = {Int64GetDatum(folded.version), JsonbPGetDatum(folded.state)};
	bool		nulls[2] = {false, false};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * SQL: take_snapshot(aggregate_type, aggregate_id).  Saves the state as of now
 * and returns the version it stands for, 0 when the stream has no events (then
 * nothing is saved).
 */
Datum
cqrs_es_take_snapshot(PG_FUNCTION_ARGS)
{
	StreamKey	key;
	Aggregate  *aggregate;
	FoldedState folded;

	if (RecoveryInProgress())
		PreventCommandDuringRecovery("take_snapshot()");
	PreventCommandIfReadOnly("take_snapshot()");
	TenancyRequireEvents(EventsTableGet()->relid, ACL_INSERT);
	folded = fold_args(fcinfo, &key, &aggregate);
	if (folded.version > 0)
		SnapshotSave(&key, aggregate, folded.version, folded.state);
	PG_RETURN_INT64(folded.version);
}

/* The fold that the SQL functions ask for by their first two arguments. */
static FoldedState
fold_args(FunctionCallInfo fcinfo, StreamKey *key, Aggregate **aggregate)
{
	key->aggregate_type = RequiredText(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	key->aggregate_id = RequiredText(fcinfo->args[1], "aggregate_id", AGGREGATE_ID_MAX_BYTES);
	key->tenant_id = TenancyCurrent();
	TenancyRequireEvents(EventsTableGet()->relid, ACL_SELECT);
	*aggregate = AggregateRequire(key->aggregate_type);
	return FoldStream(*aggregate, key, PG_INT64_MAX);
}

/*
 * Fold a stream up to a sequence, starting from its newest usable snapshot.
 * In READ COMMITTED it sees what is committed now.  The state is palloc'd in
 * the current memory context.  The caller has checked the right to read.
 * Raises what reducers raise, XX001 for a hole.
 */
FoldedState
FoldStream(Aggregate *aggregate, const StreamKey *key, int64 up_to_sequence)
{
	FoldedState folded;
	Snapshot	snapshot;

	check_stack_depth();
	snapshot = RegisterSnapshot(FreshSnapshot());

	if (!SnapshotLoad(key, aggregate, up_to_sequence, snapshot, &folded.version, &folded.state))
	{
		folded.version = 0;
		folded.state = aggregate->initial_state;
	}
	if (folded.version < up_to_sequence)
		fold_events(&folded, aggregate, key, up_to_sequence, snapshot);
	UnregisterSnapshot(snapshot);
	return folded;
}

/*
 * Fold the events after folded->version.  The state alternates between two
 * contexts: the new one is copied into the one that the old one does not use.
 */
static void
fold_events(FoldedState *folded, Aggregate *aggregate, const StreamKey *key,
			int64 up_to_sequence, Snapshot snapshot)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext fold_memory = AllocSetContextCreate(caller, "cqrs_es fold",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext event_memory = AllocSetContextCreate(fold_memory, "cqrs_es fold event",
													   ALLOCSET_DEFAULT_SIZES);
	MemoryContext state_memory[2];
	int			current = 0;
	FoldContext context = {.key = key};
	ErrorContextCallback callback;
	EventScan  *scan;
	Event		event;

	state_memory[0] = AllocSetContextCreate(fold_memory, "cqrs_es fold state", ALLOCSET_DEFAULT_SIZES);
	state_memory[1] = AllocSetContextCreate(fold_memory, "cqrs_es fold state", ALLOCSET_DEFAULT_SIZES);

	MemoryContextSwitchTo(fold_memory);
	scan = EventsScanStream(key, folded->version + 1, ForwardScanDirection, snapshot);
	while (folded->version < up_to_sequence && EventsScanNext(scan, &event))
	{
		Jsonb	   *state;

		if (EventSequence(&event) != folded->version + 1)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("stream \"%s\" has a hole: sequence %lld is missing",
							StreamName(key), (long long) folded->version + 1)));
		context.sequence = EventSequence(&event);
		callback.callback = describe_fold;
		callback.arg = &context;
		callback.previous = error_context_stack;
		error_context_stack = &callback;
		MemoryContextSwitchTo(event_memory);
		state = ReducerApply(aggregate, folded->state, &event);
		error_context_stack = callback.previous;

		if (state != folded->state)
		{
			current = 1 - current;
			MemoryContextSwitchTo(state_memory[current]);
			folded->state = memcpy(palloc(VARSIZE(state)), state, VARSIZE(state));
			MemoryContextReset(state_memory[1 - current]);
		}
		folded->version = EventSequence(&event);
		MemoryContextReset(event_memory);
		MemoryContextSwitchTo(fold_memory);
	}
	EventsScanEnd(scan);
	MemoryContextSwitchTo(caller);
	folded->state = memcpy(palloc(VARSIZE(folded->state)), folded->state, VARSIZE(folded->state));
	MemoryContextDelete(fold_memory);
}

/* The observer: save a snapshot when the event is one that is due. */
static void
snapshot_if_due(const Event *event)
{
	StreamKey	key;
	Aggregate  *aggregate;
	MemoryContext work;
	MemoryContext caller;

	EventKey(event, &key);
	aggregate = AggregateGet(key.aggregate_type);
	if (aggregate == NULL || aggregate->snapshot_every == 0 ||
		EventSequence(event) % aggregate->snapshot_every != 0)
		return;

	work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es snapshot", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(work);
	{
		FoldedState folded = FoldStream(aggregate, &key, EventSequence(event));

		SnapshotSave(&key, aggregate, folded.version, folded.state);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(work);
}

static void
describe_fold(void *arg)
{
	FoldContext *context = arg;

	errcontext("folding event %lld of stream \"%s\"", (long long) context->sequence,
			   StreamName(context->key));
}
