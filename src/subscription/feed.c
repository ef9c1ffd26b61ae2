/*-------------------------------------------------------------------------
 * feed.c
 *	  The subscription by which an asynchronous projection gets its events.
 *
 * It is called as the projection is, with projection: before it, and is one like any
 * other: a position, a batch in hand, streams that wait behind an event that failed, dead
 * letters.  But it is created, paused and dropped with the projection alone, and its
 * only consumer is whoever runs that; so those functions are refused for it, and nobody
 * else can have such a name.  What failed is looked at and decided about as everywhere.
 *
 * It gets the events of all tenants, and asks no rights of its owner for that: who
 * runs it sees nothing of them, handlers do, with the rights of their definers and in the
 * tenant of the event, as they would in the transaction that appends it.
 *
 * Its lease is as long as can be, and nobody waits for its end.  Whoever runs a
 * projection has a lock that ends with the session, and so knows that a batch in hand is of
 * somebody who is gone.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/errors.h"
#include "base/internal_query.h"
#include "base/wakeup.h"
#include "subscription/batch.h"
#include "subscription/control.h"
#include "subscription/declaration.h"
#include "subscription/delivery.h"
#include "subscription/feed.h"
#include "subscription/subscription.h"

/* in the order of the log nothing may go past what failed: then it stops */
#define ORDERING(per_stream)	((per_stream) ? "stream" : "log")
#define ON_FAILURE(per_stream)	((per_stream) ? "block" : "stop")

/* see FeedSetWanted */
static void (*tell_wanted) (void) = NULL;

static void add(BatchSink *sink, const NewBatch *batch, const Event *event, int attempt, bool redriven);
static void clear(BatchSink *sink);
static Share *lock_share(const text *name);
static void write_share(const text *name, int64 position);

/*
 * Create one, whose events lie behind a position; null aggregate_types: all, null tags:
 * whatever they have.  The
 * lock of the name (SubscriptionLock) is the caller's.
 */
void
FeedCreate(const text *name, Oid owner, NullableDatum aggregate_types, NullableDatum tags,
		   bool per_stream, int64 position)
{
	static InternalQuery insert = {
		.sql = "INSERT INTO cqrs_es.subscriptions (name, owner, aggregate_types, ordering, on_failure, tags,"
		" max_attempts, retry_delay, retry_delay_max, lease)"
		" VALUES ($1, $2, $3, $4, $5, $6, 5, '1 s', '1 min', '1 year')",
		.nargs = 6,.argtypes = {TEXTOID, REGROLEOID, TEXTARRAYOID, TEXTOID, TEXTOID, TEXTARRAYOID}
	};
	Datum		values[6] = {PointerGetDatum(name), ObjectIdGetDatum(owner), aggregate_types.value,
		CStringGetTextDatum(ORDERING(per_stream)), CStringGetTextDatum(ON_FAILURE(per_stream)), tags.value};
	char		nulls[6] = {' ', ' ', aggregate_types.isnull ? 'n' : ' ', ' ', ' ', tags.isnull ? 'n' : ' '};

	SPI_connect();
	(void) SubscriptionWrite(&insert, values, nulls);
	SubscriptionInsertShare(name, position);
	SPI_finish();
}

/* Drop one, which is locked; its dead letters go with it. */
void
FeedDrop(const text *name)
{
	DeclarationDrop(name);
}

/* One that is locked gets another owner. */
void
FeedGive(const text *name, Oid owner)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.subscriptions SET owner = $2 WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 2,.argtypes = {TEXTOID, REGROLEOID}
	};
	Datum		values[2] = {PointerGetDatum(name), ObjectIdGetDatum(owner)};

	SPI_connect();
	(void) SubscriptionWrite(&query, values, NULL);
	SPI_finish();
}

/* One that stands still, and in which nothing has failed, goes by stream or by the log from now on. */
void
FeedOrder(const text *name, bool per_stream)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.subscriptions SET ordering = $2, on_failure = $3"
		" WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[3] = {PointerGetDatum(name), CStringGetTextDatum(ORDERING(per_stream)),
		CStringGetTextDatum(ON_FAILURE(per_stream))};

	SPI_connect();
	(void) SubscriptionWrite(&query, values, NULL);
	SPI_finish();
}

/*
 * One that is locked against everybody stands still: what is in hand is given back, for
 * nothing of it is done.  Returns its position.
 */
int64
FeedHoldStill(const text *name)
{
	RoleSwitch	saved = ShareEnter();
	Share	   *share = lock_share(name);
	int64		position = share->position;

	if (share->batch_kind != BATCH_NONE)
	{
		BatchRelease(SubscriptionRead(name), share);
		ShareStore(share);
	}
	ShareLeave(&saved);
	return position;
}

/*
 * One that stands still goes on behind a position, also when it had stopped since an
 * event failed; how often events have failed, or were lost, is forgotten.  Streams that
 * wait behind an event go on waiting.
 */
void
FeedGoOn(const text *name, int64 position)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.subscriptions SET paused = false, stopped_error = NULL"
		" WHERE name OPERATOR(pg_catalog.=) $1 AND paused",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(name);
	RoleSwitch	saved = ShareEnter();

	write_share(name, position);
	ShareLeave(&saved);
	SPI_connect();
	(void) SubscriptionWrite(&query, &value, NULL);
	SPI_finish();
	FeedWanted();
}

/* Whom to tell that somebody should look at a feed; called by Inits only. */
void
FeedSetWanted(void (*tell) (void))
{
	tell_wanted = tell;
}

/*
 * There is something for a feed now which is no new event, and may be nobody waits for
 * it.
 */
void
FeedWanted(void)
{
	WakeupAtEnd();
	if (tell_wanted)
		tell_wanted();
}

/* Begin anew with the share, at a position.  Between ShareEnter and ShareLeave. */
static void
write_share(const text *name, int64 position)
{
	Share	   *share = lock_share(name);
	Share		anew = {
		.number = share->number,
		.slots = share->slots,
		.position = position,
		.position_at = GetCurrentTimestamp(),
		.consumer = share->consumer,
		.has_notes = share->has_notes,
		.last_kind = share->last_kind
	};

	ShareStore(&anew);
}

/* Streams that wait, and dead letters, of one that is locked: all is to be handled anew. */
void
FeedForgetFailures(const text *name)
{
	ControlReset(name, 0);
}

/* Does a stream wait, or a dead letter for a decision? */
bool
FeedHasFailures(const text *name)
{
	static InternalQuery query = {
		.sql = "SELECT WHERE EXISTS (SELECT FROM cqrs_es.parked_streams AS p"
		" WHERE p.subscription OPERATOR(pg_catalog.=) $1)"
		" OR EXISTS (SELECT FROM cqrs_es.dead_letters AS d WHERE d.subscription OPERATOR(pg_catalog.=) $1"
		" AND (d.state IN ('blocked', 'skipped') OR d.retry_at IS NOT NULL))",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(name);
	bool		found;

	SPI_connect();
	found = SubscriptionQuery(&query, &value, NULL) > 0;
	SPI_finish();
	return found;
}

/* Its share, of which there is one; palloc'd.  Between ShareEnter and ShareLeave. */
static Share *
lock_share(const text *name)
{
	Share	   *share = ShareLockOnly(name);

	if (share == NULL)
		elog(ERROR, "subscription \"%s\" has no share", text_to_cstring(name));
	return share;
}

/*-------------------------------------------------------------------------
 * batches
 *-------------------------------------------------------------------------
 */

/*
 * Room for batches, of at most so many bytes but for the last event, in the current memory
 * context; they last over the ends of transactions.
 */
FeedBatch *
FeedBatchMake(Size max_bytes)
{
	FeedBatch  *batch = palloc0(sizeof(FeedBatch));

	batch->sink.add = add;
	batch->sink.clear = clear;
	/* who upcasts them may die of it, so that is not done before they are in hand */
	batch->sink.as_stored = true;
	batch->sink.max_bytes = max_bytes;
	batch->memory = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es feed", ALLOCSET_DEFAULT_SIZES);
	return batch;
}

static void
add(BatchSink *sink, const NewBatch *batch, const Event *event, int attempt, bool redriven)
{
	FeedBatch  *feed = (FeedBatch *) sink;
	MemoryContext caller = MemoryContextSwitchTo(feed->memory);

	if (feed->n == feed->allocated)
	{
		feed->allocated = Max(16, 2 * feed->allocated);
		feed->events = feed->events ?
			repalloc_huge(feed->events, feed->allocated * sizeof(Event *)) :
			palloc(feed->allocated * sizeof(Event *));
	}
	feed->events[feed->n++] = EventCopy(event);
	MemoryContextSwitchTo(caller);
}

/* A batch that nothing could be handed out of: events come unlifted here, so each was given up. */
static void
clear(BatchSink *sink)
{
	FeedBatchForget((FeedBatch *) sink);
}

/* Nothing is in hand any more, as far as this session knows. */
void
FeedBatchForget(FeedBatch *batch)
{
	MemoryContextReset(batch->memory);
	batch->n = batch->allocated = 0;
	batch->events = NULL;
}

/*
 * Get the next batch; false when there is none.  One that is in hand is lost.  Here and
 * below the caller has the lock of the subscription, and has read it since.
 */
bool
FeedReceive(Subscription *subscription, FeedBatch *batch, int max_count)
{
	FeedBatchForget(batch);
	return DeliveryReceive(subscription, cstring_to_text(FEED_CONSUMER), max_count, &batch->sink,
						   &batch->token, &batch->kind);
}

/*
 * Make sure that the batch is in hand, and stays so to the end of the transaction:
 * QE401, 55P03.
 */
void
FeedFence(const Subscription *subscription, const FeedBatch *batch)
{
	RoleSwitch	saved = ShareEnter();

	(void) ShareLockBatch(subscription, &batch->token);
	ShareLeave(&saved);
}

/* Note that an event of the batch has failed; the acknowledgement lets that take effect. */
void
FeedNote(const Subscription *subscription, const FeedBatch *batch, const Event *event,
		 const char *error, bool give_up)
{
	RoleSwitch	saved = ShareEnter();
	Share	   *share = ShareLockBatch(subscription, &batch->token);

	(void) BatchNote(subscription, share, event, cstring_to_text(error), NULL, give_up);
	ShareStore(share);
	ShareLeave(&saved);
}

/* Acknowledge the batch, with what was noted. */
void
FeedAck(Subscription *subscription, const FeedBatch *batch)
{
	RoleSwitch	saved = ShareEnter();
	Share	   *share = ShareLockBatch(subscription, &batch->token);

	(void) BatchFinish(subscription, share);
	ShareStore(share);
	ShareLeave(&saved);
}

/*
 * Give the batch back; nobody died of it.  With an error, that is shown until the next
 * batch is done, and nothing is handed out before a time.
 */
void
FeedRelease(const Subscription *subscription, const FeedBatch *batch, const char *error,
			TimestampTz retry_at)
{
	RoleSwitch	saved = ShareEnter();
	Share	   *share = ShareLockBatch(subscription, &batch->token);

	BatchRelease(subscription, share);
	if (error)
	{
		share->error = cstring_to_text(error);
		share->retry_at = retry_at;
	}
	ShareStore(share);
	ShareLeave(&saved);
	WakeupAtEnd();
}
