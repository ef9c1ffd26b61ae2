/*-------------------------------------------------------------------------
 * delivery.c
 *	  Handing events out: receive_events.
 *
 * A call takes the share that is furthest behind, of those that are free or whose
 * batch is lost, and hands out a batch of one kind: parked streams that are due and
 * skipped events that are redriven, or events behind the share's position.  The kinds
 * alternate while there is something of both.  It writes the share's row, and the rows
 * of what is retried; nothing per event.
 *
 * Events by position come from a settled walk (horizon.c), with the tenant and the
 * filter of the subscription and no row security: the position passes over what the
 * subscription does not want, and over nothing else; so not over events that may get tags that
 * it wants (event_filter.c).  When the walk finds nothing, the
 * position is moved all the same, now and then, so that what does not fit is not
 * walked over again and again.
 *
 * As many shares as consumers: whoever has a free share locked splits it when there
 * are fewer, and when there are more takes others in that are at the same position,
 * or lets them come there.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/text.h"
#include "base/wakeup.h"
#include "log/event_scan.h"
#include "log/horizon.h"
#include "subscription/batch.h"
#include "subscription/batch_rows.h"
#include "subscription/consumer.h"
#include "subscription/delivery.h"
#include "subscription/dead_letter.h"
#include "subscription/feed_name.h"
#include "subscription/nacked_event.h"
#include "subscription/parked_set.h"
#include "subscription/parked_stream.h"

/* a walk that finds nothing is broken off after so many events */
#define MAX_PASSED 1000000

/* so many batches that nothing of can be handed out are dealt with in a call */
#define MAX_OWN_ACKS 100

/* the position is written when it moved so far, or was not written for so long */
#define WRITE_AFTER_POSITIONS 10000
#define WRITE_AFTER_USECS USECS_PER_SEC

/* What there is beside a share, in a look after it was locked. */
typedef struct Outlook
{
	int			seen;			/* consumers, with this one */
	int			shares;
	bool		is_noted;		/* this one, that it is there */
	bool		has_parked;
	bool		has_due;		/* parked streams, in any share */
	bool		has_letters;	/* redriven ones, likewise */
} Outlook;

typedef struct Delivery
{
	Subscription *subscription;
	text	   *consumer;
	int			max_count;
	bool		resume;
	RoleSwitch	saved;			/* the caller; we are the owner of our tables */
	bool		is_noted;		/* the consumer, that it is there */
	Share	   *acked;			/* of the batch before, free and not stored; or NULL */
	Share	   *share;
	bool		is_changed;		/* the share has to be stored */
	Outlook		outlook;
	bool		meets;			/* it comes to the position of another one */

	/* the batch */
	BatchKind	kind;
	NewBatch	batch;
	int64		end;			/* BATCH_CURSOR */
	bool		rejoined;		/* a stream that was parked comes by the position again */
	int			own_acks;		/* batches of which nothing could be handed out */
	bool		moved;			/* the cursor found nothing and came to `end` */
} Delivery;

PG_FUNCTION_INFO_V1(cqrs_es_receive_events);

static void acknowledge(Delivery *delivery, const pg_uuid_t *token);
static bool receive(Delivery *delivery);
static Share *next_share(Delivery *delivery, const int64 *tried, int ntried);
static void look_around(Delivery *delivery);
static void balance(Delivery *delivery);
static bool deliver(Delivery *delivery);
static bool make_next_batch(Delivery *delivery);
static bool make_batch(Delivery *delivery, BatchKind kind);
static int	batch_limit(const Delivery *delivery);
static bool retry_batch(Delivery *delivery);
static bool add_parked(Delivery *delivery, const ParkedStream *parked, int limit, LogSnapshot snapshot);
static bool add_letter(Delivery *delivery, const DeadLetter *letter, LogSnapshot snapshot);
static bool cursor_batch(Delivery *delivery);
static void walk_up_to_failed(Delivery *delivery, ParkedSet *parked, const NackedEvent *notes,
							  int nnotes);
static void walk_log(Delivery *delivery, ParkedSet *parked, const NackedEvent *notes, int nnotes,
					 int64 stop_at);
static int	cursor_attempt(const Delivery *delivery, const Event *event,
						   const NackedEvent *notes, int nnotes);
static bool is_in_share(const Share *share, ParkedSet *parked, const Event *event);
static bool hand_out(Delivery *delivery);

/*
 * SQL: receive_events(subscription, consumer, max_count, ack, resume).  The next
 * batch, after the one before has been acknowledged; no rows when there is nothing,
 * or when it is paused.
 */
Datum
cqrs_es_receive_events(PG_FUNCTION_ARGS)
{
	text	   *name = TextArgument(fcinfo->args[0], "subscription", SUBSCRIPTION_NAME_MAX_BYTES);
	text	   *consumer = TextArgument(fcinfo->args[1], "consumer", CONSUMER_NAME_MAX_BYTES);
	int			max_count = PG_ARGISNULL(2) ? PG_INT32_MAX : PG_GETARG_INT32(2);
	Delivery	delivery = {0};
	BatchRows	rows;

	if (max_count < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_count must be at least 1")));
	FeedNameRefuse(name, "receive_events()", "run_projections()");
	SubscriptionBegin("receive_events()");
	InitMaterializedSRF(fcinfo, 0);
	SubscriptionLock(name, RowExclusiveLock);
	SPI_connect();
	delivery.subscription = SubscriptionRead(name);
	delivery.consumer = consumer;
	delivery.max_count = max_count;
	delivery.resume = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	SubscriptionRequireConsumer(delivery.subscription);
	RegistryEnter();
	BatchRowsInit(&rows, (ReturnSetInfo *) fcinfo->resultinfo);
	NewBatchInit(&delivery.batch, &rows.sink, delivery.subscription, &delivery.saved);
	delivery.saved = RoleSwitchToOwner("shares");
	if (!PG_ARGISNULL(3))
		acknowledge(&delivery, PG_GETARG_UUID_P(3));
	if (receive(&delivery))
		NewBatchFlush(&delivery.batch);
	RoleSwitchBack(&delivery.saved);
	RegistryLeave();
	SPI_finish();
	return (Datum) 0;
}

/*
 * The same for code of our own: events go to a sink, and a batch that the consumer has
 * in hand is lost.  The caller has the lock of the subscription, and need have no
 * rights.  What the batch is goes into *token and *kind; false when there is nothing.
 */
bool
DeliveryReceive(Subscription *subscription, text *consumer, int max_count, BatchSink *sink,
				pg_uuid_t *token, BatchKind *kind)
{
	Delivery	delivery = {
		.subscription = subscription,
		.consumer = consumer,
		.max_count = max_count,
		.resume = true
	};
	bool		found;

	SPI_connect();
	RegistryEnter();
	NewBatchInit(&delivery.batch, sink, subscription, &delivery.saved);
	delivery.saved = RoleSwitchToOwner("shares");
	found = receive(&delivery);
	if (found)
	{
		*token = delivery.share->batch;
		*kind = delivery.share->batch_kind;
	}
	RoleSwitchBack(&delivery.saved);
	RegistryLeave();
	SPI_finish();
	return found;
}

/* The batch before, which must be one of this subscription: QE401. */
static void
acknowledge(Delivery *delivery, const pg_uuid_t *token)
{
	delivery->acked = ShareLockBatch(delivery->subscription, token);
	(void) BatchFinish(delivery->subscription, delivery->acked);
}

/* Go from share to share until there is something to hand out. */
static bool
receive(Delivery *delivery)
{
	int64		tried[SLOTS + 1];
	int			ntried = 0;
	bool		found = false;

	/* its row is as it was before the ack */
	if (delivery->acked)
		tried[ntried++] = delivery->acked->number;
	/* it may stop on the way */
	while (!found && !delivery->subscription->paused && ntried < SLOTS)
	{
		Share	   *share = next_share(delivery, tried, ntried);

		if (share == NULL)
			break;
		tried[ntried++] = share->number;
		SubscriptionRequireReadable(share->position);
		delivery->share = share;
		if (share->batch_kind != BATCH_NONE)
		{
			BatchLose(delivery->subscription, share);
			delivery->is_changed = true;
		}
		balance(delivery);
		found = deliver(delivery);
		if (found || delivery->is_changed)
			ShareStore(share);
	}
	if (delivery->acked)
		ShareStore(delivery->acked);
	if (!delivery->is_noted && !delivery->subscription->paused)
		ConsumerSeen(delivery->subscription, delivery->consumer);
	return found;
}

/*
 * Lock the next share, and look around: that of the batch before, which is not stored
 * yet, if no other one is further behind.
 */
static Share *
next_share(Delivery *delivery, const int64 *tried, int ntried)
{
	Share	   *acked = delivery->acked;
	bool		takes_acked = acked != NULL && acked->retry_at <= GetCurrentTimestamp();
	Share	   *share;

	delivery->is_changed = false;
	if (acked && !takes_acked)
	{
		ShareStore(acked);
		delivery->acked = NULL;
	}
	if (takes_acked)
		look_around(delivery);
	/* with one share there is no other */
	share = takes_acked && delivery->outlook.shares == 1 ? NULL :
		ShareLockNext(delivery->subscription, delivery->consumer, delivery->resume,
					  takes_acked ? acked->position : PG_INT64_MAX, tried, ntried);
	if (share == NULL && takes_acked)
	{
		share = acked;
		delivery->is_changed = true;
		delivery->acked = NULL;
	}
	else if (share != NULL)
		look_around(delivery);
	return share;
}

/* Look at what there is beside the share, and note that the consumer is there. */
static void
look_around(Delivery *delivery)
{
	static InternalQuery query = {
		.sql = "SELECT c.others, c.is_noted,"
		" (SELECT pg_catalog.count(*) FROM cqrs_es.shares AS s"
		" WHERE s.subscription OPERATOR(pg_catalog.=) $1) AS shares,"
		" EXISTS (SELECT FROM cqrs_es.parked_streams AS p"
		" WHERE p.subscription OPERATOR(pg_catalog.=) $1) AS has_parked,"
		" EXISTS (SELECT FROM cqrs_es.parked_streams AS p WHERE p.subscription OPERATOR(pg_catalog.=) $1"
		" AND p.retry_at OPERATOR(pg_catalog.<=) $3) AS has_due,"
		" EXISTS (SELECT FROM cqrs_es.dead_letters AS l WHERE l.subscription OPERATOR(pg_catalog.=) $1"
		" AND l.retry_at OPERATOR(pg_catalog.<=) $3) AS has_letters"
		" FROM (SELECT pg_catalog.count(*) FILTER (WHERE c.consumer OPERATOR(pg_catalog.<>) $2"
		" AND (c.seen_at OPERATOR(pg_catalog.>)"
		" ($3 OPERATOR(pg_catalog.-) " CONSUMER_SEEN_LATELY "::interval)"
		" OR EXISTS (SELECT FROM cqrs_es.shares AS s WHERE s.subscription OPERATOR(pg_catalog.=) $1"
		" AND s.consumer OPERATOR(pg_catalog.=) c.consumer"
		" AND s.leased_until OPERATOR(pg_catalog.>) $3))) AS others,"
		" coalesce(pg_catalog.bool_or(c.consumer OPERATOR(pg_catalog.=) $2 AND c.seen_at OPERATOR(pg_catalog.>)"
		" ($3 OPERATOR(pg_catalog.-) " CONSUMER_NOTED_EVERY "::interval)), false) AS is_noted"
		" FROM cqrs_es.consumers AS c WHERE c.subscription OPERATOR(pg_catalog.=) $1) AS c",
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TIMESTAMPTZOID}
	};

	/* an index is looked up by a time that is given, not by clock_timestamp() */
	Datum		values[3] = {PointerGetDatum(delivery->subscription->name), PointerGetDatum(delivery->consumer),
		TimestampTzGetDatum(GetCurrentTimestamp())};
	Outlook    *outlook = &delivery->outlook;
	QueryRow	row;

	(void) ShareQuery(&query, values, NULL);
	row = InternalQueryRow(0);
	outlook->seen = (int) DatumGetInt64(InternalQueryDatum(&row, "others", NULL)) + 1;
	outlook->shares = (int) DatumGetInt64(InternalQueryDatum(&row, "shares", NULL));
	outlook->has_parked = DatumGetBool(InternalQueryDatum(&row, "has_parked", NULL));
	outlook->has_due = DatumGetBool(InternalQueryDatum(&row, "has_due", NULL));
	outlook->has_letters = DatumGetBool(InternalQueryDatum(&row, "has_letters", NULL));
	if (!delivery->is_noted && !DatumGetBool(InternalQueryDatum(&row, "is_noted", NULL)))
		ConsumerNote(delivery->subscription, delivery->consumer);
	delivery->is_noted = true;
}

/*
 * As many shares as consumers.  While something is suspect, slots stay where they
 * are, so that it is found.
 */
static void
balance(Delivery *delivery)
{
	Subscription *subscription = delivery->subscription;
	Share	   *share = delivery->share;
	int			shares = delivery->outlook.shares;
	int			seen = delivery->outlook.seen;

	delivery->meets = false;
	if (subscription->in_log_order || share->suspect_end != 0)
		return;
	if (shares < seen && SlotSetCount(&share->slots) > 1)
	{
		ShareSplit(subscription, share);
		WakeupAtEnd();
		delivery->is_changed = true;
	}
	else if (shares > seen)
	{
		if (ShareMerge(subscription, share, shares - seen) > 0)
		{
			/* others may have parked streams of those after the look around */
			delivery->outlook.has_parked = delivery->outlook.has_due = true;
			delivery->is_changed = true;
		}
		else
			delivery->meets = true;
	}
}

/*
 * Make a batch of the share that is locked, if there is something; it is in hand
 * then.  One that nothing of can be handed out is acknowledged, and the next made.
 */
static bool
deliver(Delivery *delivery)
{
	Share	   *share = delivery->share;

	delivery->moved = false;
	while (!delivery->subscription->paused && share->retry_at <= GetCurrentTimestamp() &&
		   delivery->own_acks < MAX_OWN_ACKS && make_next_batch(delivery))
	{
		if (hand_out(delivery))
			return true;
		/* a stream may be parked now that was not, or the other way round */
		delivery->moved = false;
		delivery->outlook.has_parked = delivery->outlook.has_due = true;
		delivery->own_acks++;
	}
	if (delivery->moved)
	{
		share->position = delivery->end;
		share->position_at = GetCurrentTimestamp();
		delivery->is_changed = true;
	}
	return false;
}

/* A batch of either kind; the kinds alternate. */
static bool
make_next_batch(Delivery *delivery)
{
	BatchKind	first = delivery->share->last_kind == BATCH_RETRY ? BATCH_CURSOR : BATCH_RETRY;

	NewBatchBegin(&delivery->batch, delivery->share->number);
	delivery->rejoined = false;
	return make_batch(delivery, first) ||
		make_batch(delivery, first == BATCH_RETRY ? BATCH_CURSOR : BATCH_RETRY) ||
		(delivery->rejoined && make_batch(delivery, BATCH_CURSOR));
}

static bool
make_batch(Delivery *delivery, BatchKind kind)
{
	delivery->kind = kind;
	return delivery->kind == BATCH_RETRY ? retry_batch(delivery) : cursor_batch(delivery);
}

/* So many events at most: while the circuit is open, one to try. */
static int
batch_limit(const Delivery *delivery)
{
	return delivery->share->circuit > 0 ? 1 : delivery->max_count;
}

/*-------------------------------------------------------------------------
 * what is retried
 *-------------------------------------------------------------------------
 */

/* Parked streams or redriven letters, whichever have waited longer. */
static bool
retry_batch(Delivery *delivery)
{
	const Subscription *subscription = delivery->subscription;
	int			limit = batch_limit(delivery);
	int			nparked;
	int			nletters;
	ParkedStream *parked;
	DeadLetter *letters;
	LogSnapshot snapshot;
	int			i;

	if (!delivery->outlook.has_due && !delivery->outlook.has_letters)
		return false;
	parked = ParkedStreamsDue(subscription, delivery->share, limit, &nparked);
	letters = DeadLettersDue(subscription, delivery->share, limit, &nletters);
	snapshot = EventsSnapshotTake(true);
	if (nletters == 0 || (nparked > 0 && parked[0].retry_at <= letters[0].retry_at))
		for (i = 0; i < nparked && !NewBatchIsFull(&delivery->batch, limit); i++)
			if (!add_parked(delivery, &parked[i], limit, snapshot))
			{
				ParkedStreamRejoin(subscription, &parked[i]);
				delivery->rejoined = true;
			}
	if (delivery->batch.n == 0)
		for (i = 0; i < nletters && !NewBatchIsFull(&delivery->batch, limit); i++)
			if (!add_letter(delivery, &letters[i], snapshot))
				DeadLetterFailed(&letters[i], letters[i].attempts, 0, NULL);
	EventsSnapshotRelease(snapshot);
	return delivery->batch.n > 0;
}

/*
 * Add what there is of a parked stream up to the share's position: one event alone
 * where consumers may die of it.  False when there is nothing.
 */
static bool
add_parked(Delivery *delivery, const ParkedStream *parked, int limit, LogSnapshot snapshot)
{
	bool		is_suspect = parked->suspect_to >= parked->sequence;
	text	   *given_up = BatchGivenUp(delivery->subscription, parked->deliveries);
	EventScan  *scan = EventScanWholeStream(&parked->key, parked->sequence, ForwardScanDirection, snapshot.snapshot);
	int64		handed_to = 0;
	Event		event;

	if (is_suspect)
		limit = 1;
	while (!NewBatchIsFull(&delivery->batch, limit) && EventScanNext(scan, &event) &&
		   EventGlobalPosition(&event) <= delivery->share->position)
	{
		int			attempt = 1;

		if (!SubscriptionWants(delivery->subscription, &event))
			continue;
		if (handed_to == 0)
			attempt += parked->attempts + Max(parked->deliveries, is_suspect ? 1 : 0);
		handed_to = EventSequence(&event);
		if (given_up)
			NewBatchGiveUp(&delivery->batch, &event, given_up);
		else
			NewBatchAdd(&delivery->batch, &event, attempt, false);
	}
	EventScanEnd(scan);
	if (handed_to == 0)
		return false;
	ParkedStreamHandOut(delivery->subscription, parked, &delivery->batch.token, handed_to);
	return true;
}

/* Add a letter's event; false when it is not in the log. */
static bool
add_letter(Delivery *delivery, const DeadLetter *letter, LogSnapshot snapshot)
{
	text	   *given_up = BatchGivenUp(delivery->subscription, letter->deliveries);
	int			attempt = 1 + letter->attempts + Max(letter->deliveries, letter->is_suspect ? 1 : 0);
	EventScan  *scan = EventScanWholeStream(&letter->key, letter->sequence, ForwardScanDirection, snapshot.snapshot);
	Event		event;
	bool		found = EventScanNext(scan, &event) && EventSequence(&event) == letter->sequence;

	if (found && given_up)
		NewBatchGiveUp(&delivery->batch, &event, given_up);
	else if (found)
		NewBatchAdd(&delivery->batch, &event, attempt, true);
	EventScanEnd(scan);
	if (found)
		DeadLetterHandOut(letter, &delivery->batch.token);
	return found;
}

/*-------------------------------------------------------------------------
 * what comes by the position
 *-------------------------------------------------------------------------
 */

/*
 * Events behind the position.  When there are none, `moved` says whether the position
 * should be moved to `end`.
 */
static bool
cursor_batch(Delivery *delivery)
{
	const Subscription *subscription = delivery->subscription;
	Share	   *share = delivery->share;
	NewBatch   *batch = &delivery->batch;
	int64		stop_at = delivery->meets ? ShareNextPosition(subscription, share) :
		batch->sink->stop_at > share->position ? batch->sink->stop_at : 0;
	ParkedSet  *parked = delivery->outlook.has_parked ? ParkedSetMake(subscription) : NULL;
	int			nnotes;
	NackedEvent *notes = NackedEvents(share, NULL, &nnotes);

	walk_log(delivery, parked, notes, nnotes, stop_at);
	if (batch->halted_at != 0)
	{
		/* what has the same position comes again with it */
		while (batch->last == batch->halted_at)
			walk_up_to_failed(delivery, parked, notes, nnotes);
		delivery->end = batch->halted_at - 1;
		return true;
	}
	delivery->moved = batch->n == 0 && delivery->end > share->position &&
		(delivery->end > share->position + WRITE_AFTER_POSITIONS || stop_at != 0 ||
		 share->position_at < GetCurrentTimestamp() - WRITE_AFTER_USECS);
	return batch->n > 0;
}

/*
 * Walk once more, to before the position of what has failed.  That stays noted, unless
 * something before it fails this time.
 */
static void
walk_up_to_failed(Delivery *delivery, ParkedSet *parked, const NackedEvent *notes, int nnotes)
{
	NewBatch   *batch = &delivery->batch;
	int64		halted_at = batch->halted_at;
	List	   *failed = batch->failed;

	NewBatchClear(batch);
	walk_log(delivery, parked, notes, nnotes, halted_at - 1);
	if (batch->halted_at == 0)
	{
		batch->halted_at = halted_at;
		batch->failed = failed;
	}
}

/* Walk through the log to the end of the batch; up to stop_at, if that is not 0. */
static void
walk_log(Delivery *delivery, ParkedSet *parked, const NackedEvent *notes, int nnotes, int64 stop_at)
{
	const Share *share = delivery->share;
	NewBatch   *batch = &delivery->batch;
	bool		all_slots = SlotSetCount(&share->slots) == SLOTS;
	int			limit = batch_limit(delivery);
	int64		passed = 0;
	HorizonScan walk;
	Event		event;
	uint64		asked = EventFilterAsk(&delivery->subscription->filter, share->position);

	if (share->batch_limit != 0)
		limit = Min(limit, share->batch_limit);
	HorizonScanBeginFiltered(&walk, share->position, 0, &delivery->subscription->filter);
	delivery->end = share->position;
	while (!NewBatchIsFull(batch, limit) && passed < MAX_PASSED ?
		   HorizonScanNext(&walk, &event) : HorizonScanNextTied(&walk, &event))
	{
		int64		position = EventGlobalPosition(&event);
		text	   *given_up = NULL;

		if (stop_at != 0 && position > stop_at)
			break;
		delivery->end = position;
		passed++;
		if (!SubscriptionWants(delivery->subscription, &event) ||
			((!all_slots || parked) && !is_in_share(share, parked, &event)))
			continue;
		if (position == share->alone_position)
			given_up = BatchGivenUp(delivery->subscription, share->deliveries);
		if (given_up)
			NewBatchGiveUp(batch, &event, given_up);
		else
			NewBatchAdd(batch, &event, cursor_attempt(delivery, &event, notes, nnotes), false);
		if (batch->halted_at != 0)
			break;
		walk.handed_out = true;
	}
	HorizonScanEnd(&walk);
	EventFilterConfirm(&delivery->subscription->filter, share->position, asked);
	/* the walk may have come further than the last event it showed */
	if (walk.position > delivery->end)
		delivery->end = stop_at != 0 ? Min(stop_at, walk.position) : walk.position;
}

/* The how-manieth time it is that the event is handed out, as far as is known. */
static int
cursor_attempt(const Delivery *delivery, const Event *event, const NackedEvent *notes, int nnotes)
{
	const Share *share = delivery->share;
	int64		position = EventGlobalPosition(event);
	int			failed = share->failed_position == position ? share->attempts : 0;
	int			noted = 0;
	int			lost = 0;
	int			i;

	/* as with nearly all */
	if (nnotes == 0 && failed == 0 && position > share->suspect_end)
		return 1;
	/* a note counts what was before it, too, and is of a batch that was lost or released */
	for (i = 0; i < nnotes; i++)
		if (notes[i].global_position == position && notes[i].sequence == EventSequence(event))
			noted = Max(noted, notes[i].attempts);
	if (position <= share->suspect_end)
		lost = Max(share->alone_position == position ? share->deliveries : 0, 1);
	return 1 + Max(failed + lost, noted);
}

/* Does it belong to one of the share's streams that are not parked? */
static bool
is_in_share(const Share *share, ParkedSet *parked, const Event *event)
{
	StreamKey	key;

	EventKey(event, &key);
	return SlotSetHas(&share->slots, SlotOf(&key)) &&
		!(parked && ParkedSetHas(parked, &key, EventSequence(event)));
}

/*-------------------------------------------------------------------------
 * the batch
 *-------------------------------------------------------------------------
 */

/*
 * The batch that has been made is in hand now; false when nothing of it can be handed
 * out, and it has been acknowledged.
 */
static bool
hand_out(Delivery *delivery)
{
	Subscription *subscription = delivery->subscription;
	Share	   *share = delivery->share;
	NewBatch   *batch = &delivery->batch;

	share->batch_kind = delivery->kind;
	share->batch = batch->token;
	share->batch_end = delivery->end;
	share->batch_count = subscription->in_log_order ? batch->nhanded : batch->n;
	share->consumer = delivery->consumer;
	share->retry_at = 0;
	if (delivery->kind == BATCH_CURSOR && (batch->n == 1 || share->batch_limit == 1) &&
		share->alone_position != batch->first)
	{
		share->alone_position = batch->first;
		share->deliveries = 0;
	}
	NewBatchNoteFailed(batch, share);
	if (batch->nhanded == 0)
	{
		(void) BatchFinish(subscription, share);
		delivery->is_changed = true;
		return false;
	}
	share->handed_out_at = GetCurrentTimestamp();
	share->leased_until = ClockAfter(subscription->lease);
	return true;
}
