/*-------------------------------------------------------------------------
 * new_batch.c
 *	  A batch that is being made, and what cannot be handed out.
 *
 * Events go to a sink as they are found: rows of a result (batch_rows.c), or the memory of
 * whoever runs a projection (feed.c).  One that no upcaster can lift
 * is not handed out, nor are those behind it in its stream; in the order of the log,
 * nothing at its position or behind it.  It is kept aside until the batch is in hand,
 * and noted as failed then, as if a consumer had nacked it.
 *
 * The lease that a batch tells of begins when the batch does, and that of the share a
 * little later, when it has been made: a consumer that goes by the batch is on the safe
 * side.
 *
 * Events whose commit is not on disk yet, for they may have been appended with
 * synchronous_commit = off, are flushed before they go out: what has been worked at
 * must not vanish in a crash.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/registry.h"
#include "base/subtransaction.h"
#include "log/personal_data.h"
#include "log/upcast.h"
#include "subscription/batch.h"
#include "subscription/batch_token.h"
#include "subscription/new_batch.h"

/* An event of the batch that is not handed out for its own sake. */
typedef struct FailedEvent
{
	Event	   *event;
	text	   *error;
	bool		give_up;		/* it is not tried again */
} FailedEvent;

static void hand_out(NewBatch *batch, const Event *event, int attempt, bool redriven);
static void fail(NewBatch *batch, const Event *event, text *error, bool give_up);
static bool is_behind_failed(const NewBatch *batch, const Event *event);
static text *lift(NewBatch *batch, Event *event);
static text *upcast(Event *event);
static bool is_no_upcaster(int sqlerrcode);
static XLogRecPtr commit_end(NewBatch *batch, const Event *event);

/*
 * Begin a call whose events go to a sink.  `saved` is how the caller acts as the
 * owner of our tables, to be itself where its upcasters run.
 */
void
NewBatchInit(NewBatch *batch, BatchSink *sink, const Subscription *subscription,
			 RoleSwitch *saved)
{
	memset(batch, 0, sizeof(NewBatch));
	batch->sink = sink;
	batch->subscription = subscription;
	batch->saved = saved;
	batch->work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es batch", ALLOCSET_DEFAULT_SIZES);
}

/* Begin a batch of a share, with a new token; nothing of the one before was handed out. */
void
NewBatchBegin(NewBatch *batch, int64 share)
{
	Assert(batch->nhanded == 0);
	BatchTokenMake(&batch->token, share);
	batch->leased_until = ClockAfter(batch->subscription->lease);
	batch->n = 0;
	batch->nbytes = 0;
	batch->first = batch->last = batch->halted_at = 0;
	batch->failed = NIL;
	batch->flush_to = InvalidXLogRecPtr;
	batch->last_xid = InvalidTransactionId;
}

/* The event is one of the batch. */
void
NewBatchAdd(NewBatch *batch, const Event *event, int attempt, bool redriven)
{
	XLogRecPtr	end = commit_end(batch, event);

	if (batch->n++ == 0)
		batch->first = EventGlobalPosition(event);
	if (event->row)
		batch->nbytes += event->row->t_len;
	batch->flush_to = Max(batch->flush_to, end);
	if (batch->failed != NIL && is_behind_failed(batch, event))
		return;
	if (!batch->sink->as_stored && (UpcastLifts(event) || PersonalDataConcerns(event)))
	{
		MemoryContext caller = MemoryContextSwitchTo(batch->work);
		Event		lifted = *event;
		text	   *error = lift(batch, &lifted);

		MemoryContextSwitchTo(caller);
		if (error)
			fail(batch, event, DatumGetTextPCopy(PointerGetDatum(error)), false);
		else
			hand_out(batch, &lifted, attempt, redriven);
		MemoryContextReset(batch->work);
	}
	else
		hand_out(batch, event, attempt, redriven);
}

/* The event is one of the batch, and not to be tried any more. */
void
NewBatchGiveUp(NewBatch *batch, const Event *event, text *error)
{
	if (batch->n++ == 0)
		batch->first = EventGlobalPosition(event);
	fail(batch, event, error, true);
}

/* Is there no room for one event more? */
bool
NewBatchIsFull(const NewBatch *batch, int max_count)
{
	return batch->n >= max_count ||
		(batch->sink->max_bytes > 0 && batch->nbytes >= batch->sink->max_bytes);
}

static void
hand_out(NewBatch *batch, const Event *event, int attempt, bool redriven)
{
	int64		position = EventGlobalPosition(event);

	batch->sink->add(batch->sink, batch, event, attempt, redriven);
	batch->nhanded++;
	batch->last = position;
}

static void
fail(NewBatch *batch, const Event *event, text *error, bool give_up)
{
	FailedEvent *failed = palloc(sizeof(FailedEvent));

	failed->event = EventCopy(event);
	failed->error = error;
	failed->give_up = give_up;
	batch->failed = lappend(batch->failed, failed);
	if (batch->subscription->in_log_order)
		batch->halted_at = EventGlobalPosition(event);
}

static bool
is_behind_failed(const NewBatch *batch, const Event *event)
{
	StreamKey	key;
	ListCell   *lc;

	EventKey(event, &key);
	foreach(lc, batch->failed)
	{
		StreamKey	failed;

		EventKey(((FailedEvent *) lfirst(lc))->event, &failed);
		if (StreamKeyEqual(&failed, &key))
			return true;
	}
	return batch->halted_at != 0;
}

/* Begin the batch anew, with the same token. */
void
NewBatchClear(NewBatch *batch)
{
	batch->sink->clear(batch->sink);
	batch->n = batch->nhanded = 0;
	batch->nbytes = 0;
	batch->last = batch->halted_at = 0;
	batch->failed = NIL;
}

/* Note in the batch, which is in hand now, what failed; the share is to be stored. */
void
NewBatchNoteFailed(NewBatch *batch, Share *share)
{
	ListCell   *lc;

	foreach(lc, batch->failed)
	{
		FailedEvent *failed = lfirst(lc);

		/* what it takes is freed: there may be thousands */
		SPI_connect();
		(void) BatchNote(batch->subscription, share, failed->event, failed->error, NULL,
						 failed->give_up);
		SPI_finish();
	}
}

/*
 * Lift an event, as the caller, in the current memory context.  Returns what the
 * upcaster complained of, NULL when all is well; other errors are raised.
 */
static text *
lift(NewBatch *batch, Event *event)
{
	text	   *error;

	RoleSwitchBack(batch->saved);
	error = upcast(event);
	*batch->saved = RoleSwitchToOwner("shares");
	return error;
}

static text *
upcast(Event *event)
{
	ErrorData  *volatile error = NULL;
	Subtransaction subtransaction;

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		FunctionCalls calls;

		RegistryFunctionCallsInit(&calls);
		PersonalDataShow(event);
		UpcastEvent(event, &calls);
		RegistryFunctionCallsEnd(&calls);
		SubtransactionEnd(&subtransaction, true);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();
	if (error == NULL)
		return NULL;
	if (ErrorIsNotUsers(error->sqlerrcode) || is_no_upcaster(error->sqlerrcode))
		ReThrowError(error);
	return cstring_to_text(error->message);
}

/*
 * The caller cannot upcast at all, for want of a right or since a part of the function
 * is missing.  That says nothing of the event, which another one may get.
 */
static bool
is_no_upcaster(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE ||
		sqlerrcode == ERRCODE_UNDEFINED_FUNCTION ||
		sqlerrcode == ERRCODE_UNDEFINED_TABLE ||
		sqlerrcode == ERRCODE_UNDEFINED_SCHEMA;
}

/* What is about to be handed out must be on disk. */
void
NewBatchFlush(const NewBatch *batch)
{
	if (!XLogRecPtrIsInvalid(batch->flush_to))
		XLogFlush(batch->flush_to);
}

/*
 * Up to where the log of the server has to be on disk, so that the event cannot
 * vanish; nothing when it was committed synchronously.
 */
static XLogRecPtr
commit_end(NewBatch *batch, const Event *event)
{
	TransactionId xid;

	if (event->row == NULL)
		return GetXLogInsertRecPtr();
	if (HeapTupleHeaderXminFrozen(event->row->t_data))
		return InvalidXLogRecPtr;
	xid = HeapTupleHeaderGetRawXmin(event->row->t_data);
	if (xid == batch->last_xid)
		return InvalidXLogRecPtr;
	batch->last_xid = xid;
	return TransactionIdGetCommitLSN(xid);
}
