/*-------------------------------------------------------------------------
 * batch_rows.c
 *	  The rows of a batch that is being made, and what cannot be handed out.
 *
 * Events become rows of the result as they are found.  One that no upcaster can lift
 * is not handed out, nor are those behind it in its stream; in the order of the log,
 * nothing at its position or behind it.  It is kept aside until the batch is in hand,
 * and noted as failed then, as if a consumer had nacked it.
 *
 * A row of the log as it lies there is the end of the row that is handed out, so
 * it is copied as a whole: to take it apart and to form another of its values takes
 * longer than to find it.
 *
 * The lease that rows tell of begins when the batch does, and that of the share a
 * little later, when it has been made: a consumer that goes by the rows is on the safe
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
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/registry.h"
#include "base/subtransaction.h"
#include "log/upcast.h"
#include "subscription/batch.h"
#include "subscription/batch_rows.h"
#include "subscription/batch_token.h"

/* How the columns before those of the event lie in a row. */
typedef struct RowFront
{
	pg_uuid_t	batch;
	int32		attempt;
	bool		redriven;
	TimestampTz leased_until;
} RowFront;

/* what follows is aligned as it was without them */
StaticAssertDecl(offsetof(RowFront, leased_until) == 24 && sizeof(RowFront) % MAXIMUM_ALIGNOF == 0,
				 "the columns before an event are not laid out as in a row");

/* An event of the batch that is not handed out for its own sake. */
typedef struct FailedEvent
{
	Event	   *event;
	text	   *error;
	bool		give_up;		/* it is not tried again */
} FailedEvent;

static void put_row(BatchRows *rows, const Event *event, int attempt, bool redriven);
static void put_whole_row(BatchRows *rows, HeapTuple event, int attempt, bool redriven);
static void put_values(BatchRows *rows, const Event *event, int attempt, bool redriven);
static void fail(BatchRows *rows, const Event *event, text *error, bool give_up);
static bool is_behind_failed(const BatchRows *rows, const Event *event);
static text *lift(BatchRows *rows, Event *event);
static text *upcast(Event *event);
static bool is_no_upcaster(int sqlerrcode);
static XLogRecPtr commit_end(BatchRows *rows, const Event *event);

/*
 * Begin a call whose rows go into `result`.  `saved` is how the caller acts as the
 * owner of our tables, to be itself where its upcasters run.
 */
void
BatchRowsInit(BatchRows *rows, ReturnSetInfo *result, const Subscription *subscription,
			  RoleSwitch *saved)
{
	if (result->setDesc->natts != BATCH_NCOLUMNS)
		elog(ERROR, "receive_events() has %d columns", result->setDesc->natts);
	memset(rows, 0, sizeof(BatchRows));
	rows->result = result;
	rows->subscription = subscription;
	rows->saved = saved;
	rows->work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es batch", ALLOCSET_DEFAULT_SIZES);
}

/* Begin a batch of a share, with a new token; the one before has no rows. */
void
BatchRowsBegin(BatchRows *rows, int64 share)
{
	Assert(rows->nrows == 0);
	BatchTokenMake(&rows->token, share);
	rows->values[BATCH_COLUMN_BATCH] = UUIDPGetDatum(&rows->token);
	rows->values[BATCH_COLUMN_LEASED_UNTIL] = TimestampTzGetDatum(ClockAfter(rows->subscription->lease));
	rows->n = 0;
	rows->first = rows->last = rows->halted_at = 0;
	rows->failed = NIL;
	rows->flush_to = InvalidXLogRecPtr;
	rows->last_xid = InvalidTransactionId;
}

/* The event is one of the batch. */
void
BatchRowsAdd(BatchRows *rows, const Event *event, int attempt, bool redriven)
{
	XLogRecPtr	end = commit_end(rows, event);

	if (rows->n++ == 0)
		rows->first = EventGlobalPosition(event);
	rows->flush_to = Max(rows->flush_to, end);
	if (rows->failed != NIL && is_behind_failed(rows, event))
		return;
	if (UpcastLifts(event))
	{
		MemoryContext caller = MemoryContextSwitchTo(rows->work);
		Event		lifted = *event;
		text	   *error = lift(rows, &lifted);

		MemoryContextSwitchTo(caller);
		if (error)
			fail(rows, event, DatumGetTextPCopy(PointerGetDatum(error)), false);
		else
			put_row(rows, &lifted, attempt, redriven);
		MemoryContextReset(rows->work);
	}
	else
		put_row(rows, event, attempt, redriven);
}

/* The event is one of the batch, and not to be tried any more. */
void
BatchRowsGiveUp(BatchRows *rows, const Event *event, text *error)
{
	if (rows->n++ == 0)
		rows->first = EventGlobalPosition(event);
	fail(rows, event, error, true);
}

static void
put_row(BatchRows *rows, const Event *event, int attempt, bool redriven)
{
	int64		position = EventGlobalPosition(event);

	if (event->row)
		put_whole_row(rows, event->row, attempt, redriven);
	else
		put_values(rows, event, attempt, redriven);
	rows->nrows++;
	rows->last = position;
}

/* What is formed here is what the server forms of the values, of which none is null. */
static void
put_whole_row(BatchRows *rows, HeapTuple event, int attempt, bool redriven)
{
	const Size	header_size = MAXALIGN(SizeofHeapTupleHeader);
	Size		event_size = event->t_len - event->t_data->t_hoff;
	union
	{
		HeapTupleHeaderData header;
		double		alignment;
		char		bytes[sizeof(RowFront) + MaxHeapTupleSize];
	}			buffer;
	HeapTupleData row = {.t_len = header_size + sizeof(RowFront) + event_size,.t_data = &buffer.header};
	RowFront   *front = (RowFront *) (buffer.bytes + header_size);

	Assert(row.t_len <= sizeof(buffer));
	memset(&buffer, 0, header_size + sizeof(RowFront));
	buffer.header.t_hoff = header_size;
	buffer.header.t_infomask = event->t_data->t_infomask & (HEAP_HASVARWIDTH | HEAP_HASEXTERNAL);
	HeapTupleHeaderSetNatts(&buffer.header, BATCH_NCOLUMNS);
	front->batch = rows->token;
	front->attempt = attempt;
	front->redriven = redriven;
	front->leased_until = DatumGetTimestampTz(rows->values[BATCH_COLUMN_LEASED_UNTIL]);
	memcpy(front + 1, (const char *) event->t_data + event->t_data->t_hoff, event_size);
	tuplestore_puttuple(rows->result->setResult, &row);
}

static void
put_values(BatchRows *rows, const Event *event, int attempt, bool redriven)
{
	static const bool nulls[BATCH_NCOLUMNS] = {false};

	rows->values[BATCH_COLUMN_ATTEMPT] = Int32GetDatum(attempt);
	rows->values[BATCH_COLUMN_REDRIVEN] = BoolGetDatum(redriven);
	memcpy(&rows->values[BATCH_COLUMN_LEASED_UNTIL + 1], event->values, sizeof(event->values));
	tuplestore_putvalues(rows->result->setResult, rows->result->setDesc, rows->values, (bool *) nulls);
}

static void
fail(BatchRows *rows, const Event *event, text *error, bool give_up)
{
	FailedEvent *failed = palloc(sizeof(FailedEvent));

	failed->event = EventCopy(event);
	failed->error = error;
	failed->give_up = give_up;
	rows->failed = lappend(rows->failed, failed);
	if (rows->subscription->in_log_order)
		rows->halted_at = EventGlobalPosition(event);
}

static bool
is_behind_failed(const BatchRows *rows, const Event *event)
{
	StreamKey	key;
	ListCell   *lc;

	EventKey(event, &key);
	foreach(lc, rows->failed)
	{
		StreamKey	failed;

		EventKey(((FailedEvent *) lfirst(lc))->event, &failed);
		if (StreamKeyEqual(&failed, &key))
			return true;
	}
	return rows->halted_at != 0;
}

/* Begin the batch anew, with the same token. */
void
BatchRowsClear(BatchRows *rows)
{
	tuplestore_clear(rows->result->setResult);
	rows->n = rows->nrows = 0;
	rows->last = rows->halted_at = 0;
	rows->failed = NIL;
}

/* Note in the batch, which is in hand now, what failed; the share is to be stored. */
void
BatchRowsNoteFailed(BatchRows *rows, Share *share)
{
	ListCell   *lc;

	foreach(lc, rows->failed)
	{
		FailedEvent *failed = lfirst(lc);

		/* what it takes is freed: there may be thousands */
		SPI_connect();
		(void) BatchNote(rows->subscription, share, failed->event, failed->error, NULL,
						 failed->give_up);
		SPI_finish();
	}
}

/*
 * Lift an event, as the caller, in the current memory context.  Returns what the
 * upcaster complained of, NULL when all is well; other errors are raised.
 */
static text *
lift(BatchRows *rows, Event *event)
{
	text	   *error;

	RoleSwitchBack(rows->saved);
	error = upcast(event);
	*rows->saved = RoleSwitchToOwner("shares");
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
BatchRowsFlush(const BatchRows *rows)
{
	if (!XLogRecPtrIsInvalid(rows->flush_to))
		XLogFlush(rows->flush_to);
}

/*
 * Up to where the log of the server has to be on disk, so that the event cannot
 * vanish; nothing when it was committed synchronously.
 */
static XLogRecPtr
commit_end(BatchRows *rows, const Event *event)
{
	TransactionId xid;

	if (event->row == NULL)
		return GetXLogInsertRecPtr();
	if (HeapTupleHeaderXminFrozen(event->row->t_data))
		return InvalidXLogRecPtr;
	xid = HeapTupleHeaderGetRawXmin(event->row->t_data);
	if (xid == rows->last_xid)
		return InvalidXLogRecPtr;
	rows->last_xid = xid;
	return TransactionIdGetCommitLSN(xid);
}
