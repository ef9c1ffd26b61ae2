/*-------------------------------------------------------------------------
 * batch.c
 *	  A batch in hand, until it is acknowledged, released or lost: ack_events,
 *	  nack_event, extend_lease, release_batch.
 *
 * A batch is atomic.  Its acknowledgement applies all that came of it, in the
 * transaction of the consumer; whatever else happens (the consumer dies, its lease
 * is over, it releases the batch) leaves the subscription as it was before the batch
 * was handed out.  So a nack only notes what failed (nacked_event.c), and there is one
 * place where failures take effect, BatchFinish.
 *
 * Who has the token has the batch.  A lease that is over does not end it, somebody
 * who takes the share does; from then on the token is good for nothing, and the
 * effects of whoever still works at the batch roll back with the ack that fails.
 *
 * What becomes of an event that failed, when the batch is acknowledged: its stream is
 * parked with it (parked_stream.c), for a time that doubles, the rest goes on.  When
 * it has failed as often as the subscription allows, or its consumer gives it up, it
 * is a dead letter: the stream stays blocked behind it, or goes on behind it, or the
 * whole subscription stops.  In the order of the log nothing may pass it, so the
 * share's position stays before it.
 *
 * A batch that is lost says that its consumer may have died of an event in it.  Up to
 * where it went, all is suspect: batches become smaller by half with each loss and do
 * not grow until that has been passed.  When it has come to one event alone, losses
 * count as failures do.  So a crash loop ends without any code of the consumers.
 *
 * When all fail that are tried, it is not the events: something that consumers need
 * is down.  After so many streams in a row without an event done between, attempts do
 * not count, and the share is left alone for a time that doubles, and then tried with
 * one event.  After CIRCUIT_UNCOUNTED such times attempts count again, for it may
 * have been the events after all.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/clock.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/text.h"
#include "base/wakeup.h"
#include "log/event_scan.h"
#include "subscription/batch.h"
#include "subscription/batch_token.h"
#include "subscription/consumer.h"
#include "subscription/dead_letter.h"
#include "subscription/feed_name.h"
#include "subscription/nacked_event.h"
#include "subscription/parked_stream.h"

/* so many streams that fail in a row are not a matter of the events */
#define CIRCUIT_FAILURES 20

/* so often attempts do not count for that */
#define CIRCUIT_UNCOUNTED 10

/* so much is kept of what is said of a failure: a trace of a program, but not its data */
#define ERROR_MAX_BYTES 8192

/* what doubles is doubled so often at most, and for the circuit is not less than this */
#define MAX_DOUBLINGS 30
#define MIN_CIRCUIT_USECS USECS_PER_SEC

/* A call about a batch in hand. */
typedef struct BatchCall
{
	Subscription *subscription;
	Share	   *share;
	RoleSwitch	saved;
} BatchCall;

/* What is known of an event that failed before its failure takes effect. */
typedef struct Failure
{
	const NackedEvent *nacked;
	ParkedStream *parked;		/* the unit it was handed out in, or */
	DeadLetter *letter;			/* this, or from the cursor */
	Event	   *event;			/* NULL: it has been deleted meanwhile */
} Failure;

PG_FUNCTION_INFO_V1(cqrs_es_ack_events);
PG_FUNCTION_INFO_V1(cqrs_es_nack_event);
PG_FUNCTION_INFO_V1(cqrs_es_extend_lease);
PG_FUNCTION_INFO_V1(cqrs_es_release_batch);

static void open_batch(BatchCall *call, const char *function, NullableDatum token);
static void close_batch(BatchCall *call);
static Event *event_in_hand(const BatchCall *call, int64 position, const pg_uuid_t *event_id);
static int64 finish_in_log_order(Subscription *subscription, Share *share,
								 const NackedEvent *first);
static int64 finish_by_stream(Subscription *subscription, Share *share, Failure *failures, int n);
static bool open_circuit(const Subscription *subscription, Share *share, const Failure *failures,
						 int n, int64 done);
static int64 look_at_failure(const Subscription *subscription, const Share *share,
							 Failure *failure);
static void apply_failure(Subscription *subscription, const Failure *failure, bool counts);
static TimestampTz retry_time(const Subscription *subscription, const NackedEvent *nacked,
							  int attempts);
static double doubled_usecs(const Subscription *subscription, int times);
static void stop(Subscription *subscription, const text *error);
static int64 count_wanted_from(const Subscription *subscription, int64 position,
							   int64 up_to_position);
static bool is_in_hand(const Subscription *subscription, const Share *share, const Event *event);
static bool note_overtaken(const Share *share, const Event *event, NackedEvent *note);
static int	attempts_before(const Subscription *subscription, const Share *share, const Event *event);

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/* SQL: ack_events(batch uuid).  The number of events that are done. */
Datum
cqrs_es_ack_events(PG_FUNCTION_ARGS)
{
	BatchCall	call;
	int64		done;

	open_batch(&call, "ack_events()", fcinfo->args[0]);
	done = BatchFinish(call.subscription, call.share);
	ShareStore(call.share);
	close_batch(&call);
	PG_RETURN_INT64(done);
}

/*
 * SQL: nack_event(batch, global_position, error, retry_after, give_up, event_id).  What the
 * ack will do: 'retry', 'blocked', 'skipped', 'stopped'; 'halted' in the order of the
 * log, where all that is behind the event comes again whatever was done about it.
 */
Datum
cqrs_es_nack_event(PG_FUNCTION_ARGS)
{
	BatchCall	call;
	int64		position;
	text	   *error = PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2);
	Interval   *retry_after = PG_ARGISNULL(3) ? NULL : PG_GETARG_INTERVAL_P(3);
	bool		give_up = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	pg_uuid_t  *event_id = PG_ARGISNULL(5) ? NULL : PG_GETARG_UUID_P(5);
	MemoryContext caller = CurrentMemoryContext;
	const char *answer;
	text	   *result;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("global_position must not be null")));
	position = PG_GETARG_INT64(1);
	if (retry_after)
		SubscriptionCheckInterval("retry_after", retry_after, 0);
	open_batch(&call, "nack_event()", fcinfo->args[0]);
	answer = BatchNote(call.subscription, call.share,
					   event_in_hand(&call, position, event_id), error, retry_after, give_up);
	ShareStore(call.share);
	MemoryContextSwitchTo(caller);
	result = cstring_to_text(answer);
	close_batch(&call);
	PG_RETURN_TEXT_P(result);
}

/*
 * The event of the batch at a position: palloc'd; 22023 when it is none of the batch.
 * Restored ones may share a position; then it takes the id to tell them apart.
 */
static Event *
event_in_hand(const BatchCall *call, int64 position, const pg_uuid_t *event_id)
{
	LogSnapshot snapshot = EventsSnapshotTake(true);
	EventScan  *scan = EventScanLog(position - 1, ForwardScanDirection, snapshot.snapshot);
	List	   *events = NIL;
	Event	   *found = NULL;
	Event		event;
	ListCell   *lc;

	while (EventScanNext(scan, &event) && EventGlobalPosition(&event) == position)
		if (event_id == NULL ||
			memcmp(DatumGetUUIDP(event.values[EVENT_EVENT_ID]), event_id, UUID_LEN) == 0)
			events = lappend(events, EventCopy(&event));
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	foreach(lc, events)
	{
		if (!is_in_hand(call->subscription, call->share, lfirst(lc)))
			continue;
		if (found)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("there are several events at position %lld in the batch", (long long) position),
					 errhint("Say which is meant by its event_id.")));
		found = lfirst(lc);
	}
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the event at position %lld is not in the batch", (long long) position)));
	return found;
}

/*
 * SQL: extend_lease(batch, by interval).  Until when the batch is leased now.  The
 * share is locked from here on, so nobody takes it before the transaction ends.
 */
Datum
cqrs_es_extend_lease(PG_FUNCTION_ARGS)
{
	BatchCall	call;
	Interval   *by = PG_ARGISNULL(1) ? NULL : PG_GETARG_INTERVAL_P(1);
	TimestampTz leased_until;

	if (by)
		SubscriptionCheckInterval("lease", by, 1);
	open_batch(&call, "extend_lease()", fcinfo->args[0]);
	leased_until = ClockAfter(by ? by : call.subscription->lease);
	call.share->leased_until = leased_until;
	ShareStore(call.share);
	close_batch(&call);
	PG_RETURN_TIMESTAMPTZ(leased_until);
}

/*
 * SQL: release_batch(batch).  Nothing of it is done, and nobody died: a consumer
 * that stops gives it back.
 */
Datum
cqrs_es_release_batch(PG_FUNCTION_ARGS)
{
	BatchCall	call;

	open_batch(&call, "release_batch()", fcinfo->args[0]);
	BatchRelease(call.subscription, call.share);
	ShareStore(call.share);
	WakeupAtEnd();
	close_batch(&call);
	PG_RETURN_VOID();
}

/*
 * The batch in hand of a share, which is locked, is given back: nothing of it is done, and
 * nobody died of it.  The share is free then, and to be stored.  Between ShareEnter and
 * ShareLeave.
 */
void
BatchRelease(const Subscription *subscription, Share *share)
{
	if (share->batch_kind == BATCH_RETRY)
	{
		ParkedStreamsReturn(subscription, &share->batch, NULL);
		DeadLettersReturn(subscription, &share->batch, NULL);
	}
	ShareFree(share);
}

/*
 * Find what the token says, check the caller's rights, and lock it.  Raises 22004,
 * 25001, 42501, QE401, 55P03.
 */
static void
open_batch(BatchCall *call, const char *function, NullableDatum token)
{
	text	   *name;

	if (token.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("batch must not be null")));
	SubscriptionBegin(function);
	call->saved = ShareEnter();
	name = ShareSubscription(DatumGetUUIDP(token.value));
	RoleSwitchBack(&call->saved);
	if (name == NULL)
		ShareReportGone();
	FeedNameRefuse(name, function, "run_projections()");
	SubscriptionLock(name, RowExclusiveLock);
	/* who waited for a drop has no batch any more */
	call->subscription = SubscriptionFind(name);
	if (call->subscription == NULL)
		ShareReportGone();
	SubscriptionRequireConsumer(call->subscription);
	call->saved = RoleSwitchToOwner("shares");
	call->share = ShareLockBatch(call->subscription, DatumGetUUIDP(token.value));
}

static void
close_batch(BatchCall *call)
{
	ShareLeave(&call->saved);
}

/*-------------------------------------------------------------------------
 * the end of a batch
 *-------------------------------------------------------------------------
 */

/*
 * Acknowledge the batch in hand of a share, which is locked, with the notes of what
 * failed; the share is free then, and to be stored.  Returns how many events are done.
 * When the subscription stops it is paused.  Between ShareEnter and ShareLeave.
 */
int64
BatchFinish(Subscription *subscription, Share *share)
{
	int			nnotes;
	NackedEvent *notes = NackedEvents(share, NULL, &nnotes);
	Failure    *failures = palloc0(Max(nnotes, 1) * sizeof(Failure));
	int			n = 0;
	int64		done;
	int			i;

	for (i = 0; i < nnotes; i++)
		if (notes[i].is_current)
			failures[n++].nacked = &notes[i];
	if (share->has_notes)
		NackedEventsForget(share);
	done = subscription->in_log_order && share->batch_kind == BATCH_CURSOR ?
		finish_in_log_order(subscription, share, n > 0 ? failures[0].nacked : NULL) :
		finish_by_stream(subscription, share, failures, n);
	if (share->batch_kind == BATCH_CURSOR)
	{
		share->position_at = GetCurrentTimestamp();
		share->deliveries = 0;
		share->lost_by = NULL;
		if (share->position >= share->suspect_end)
			share->suspect_end = share->batch_limit = 0;
	}
	ShareFree(share);
	WakeupAtEnd();
	return done;
}

/*
 * Of a log in its own order: up to before the first event that failed all is done,
 * and the rest comes again.
 */
static int64
finish_in_log_order(Subscription *subscription, Share *share, const NackedEvent *first)
{
	int64		before = share->position;
	int64		done = share->batch_count;
	bool		is_final;

	if (first == NULL)
	{
		share->position = share->batch_end;
		share->failed_position = share->attempts = 0;
		share->error = NULL;
		return done;
	}
	is_final = first->give_up || first->attempts >= subscription->max_attempts;
	share->position = Max(before, first->global_position - 1);
	share->failed_position = first->global_position;
	share->attempts = is_final ? 0 : first->attempts;
	share->error = first->error;
	if (is_final)
		stop(subscription, first->error);
	else
		share->retry_at = retry_time(subscription, first, first->attempts);
	return Max(done - count_wanted_from(subscription, first->global_position, share->batch_end), 0);
}

/*
 * Of streams that stand for themselves: what failed has its effect, the rest is
 * done.
 */
static int64
finish_by_stream(Subscription *subscription, Share *share, Failure *failures, int n)
{
	int64		done = share->batch_count;
	bool		counts;
	int			i;

	if (n > 0)
		DeadLetterLock();
	for (i = 0; i < n; i++)
		done -= look_at_failure(subscription, share, &failures[i]);
	done = Max(done, 0);
	counts = open_circuit(subscription, share, failures, n, done);
	for (i = 0; i < n; i++)
	{
		/* what it takes is freed */
		SPI_connect();
		apply_failure(subscription, &failures[i], counts);
		SPI_finish();
	}
	if (share->batch_kind == BATCH_CURSOR)
		share->position = share->batch_end;
	else
	{
		/* what failed is not in hand any more */
		DeadLettersPassed(subscription, &share->batch);
		ParkedStreamsDone(subscription, &share->batch);
		DeadLettersDone(subscription, &share->batch);
	}
	return done;
}

/*
 * Leave the share alone for a while, when nothing but failures has come of it for
 * long.  Do attempts count?
 */
static bool
open_circuit(const Subscription *subscription, Share *share, const Failure *failures, int n,
			 int64 done)
{
	bool		counts = true;
	double		usecs;
	int			i;

	if (done > 0)
	{
		share->failures_in_row = share->circuit = 0;
		share->error = NULL;
		return true;
	}
	/* a stream that fails again is not another one */
	for (i = 0; i < n; i++)
		if (share->batch_kind == BATCH_CURSOR && !failures[i].nacked->give_up)
			share->failures_in_row++;
	if (share->failures_in_row < CIRCUIT_FAILURES)
		return true;
	counts = share->circuit >= CIRCUIT_UNCOUNTED;
	usecs = Max(doubled_usecs(subscription, share->circuit), MIN_CIRCUIT_USECS);
	share->retry_at = GetCurrentTimestamp() + (int64) usecs;
	share->circuit++;
	return counts;
}

/*
 * Find out what an event that failed was handed out as.  Returns how many events of
 * the batch are not done for it: itself, and those of its stream behind it.
 */
static int64
look_at_failure(const Subscription *subscription, const Share *share, Failure *failure)
{
	const NackedEvent *nacked = failure->nacked;
	int64		undone = 0;
	LogSnapshot snapshot;
	EventScan  *scan;
	Event		event;

	if (share->batch_kind == BATCH_RETRY)
	{
		failure->letter = DeadLetterInHand(subscription, &share->batch, &nacked->key);
		if (failure->letter == NULL)
			failure->parked = ParkedStreamFind(subscription, &nacked->key);
	}
	snapshot = EventsSnapshotTake(true);
	scan = EventScanWholeStream(&nacked->key, nacked->sequence, ForwardScanDirection, snapshot.snapshot);
	while (EventScanNext(scan, &event))
	{
		if (failure->letter ? EventSequence(&event) > nacked->sequence :
			failure->parked ? EventSequence(&event) > failure->parked->handed_to :
			EventGlobalPosition(&event) > share->batch_end)
			break;
		if (EventSequence(&event) == nacked->sequence)
			failure->event = EventCopy(&event);
		else if (failure->event == NULL)
			break;
		if (failure->letter || SubscriptionWants(subscription, &event))
			undone++;
	}
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	return undone;
}

/* Let a failure take effect; `counts`: the attempt does. */
static void
apply_failure(Subscription *subscription, const Failure *failure, bool counts)
{
	const NackedEvent *nacked = failure->nacked;
	int			attempts = Max(counts ? nacked->attempts : nacked->attempts - 1, 0);
	bool		is_final = nacked->give_up || (counts && attempts >= subscription->max_attempts);
	TimestampTz now = GetCurrentTimestamp();

	/* with all that was in hand behind it: the stream's next event comes by itself */
	if (failure->event == NULL)
		return;
	if (failure->letter)
	{
		DeadLetterFailed(failure->letter, attempts,
						 is_final ? 0 : retry_time(subscription, nacked, attempts), nacked->error);
		return;
	}
	if (failure->parked && nacked->sequence > failure->parked->sequence)
		DeadLettersPassedBefore(subscription, &nacked->key, nacked->sequence);
	if (!is_final)
	{
		ParkedStreamPark(subscription, &nacked->key, nacked->sequence, nacked->global_position,
						 attempts, retry_time(subscription, nacked, attempts), nacked->error);
		return;
	}
	switch (subscription->on_failure)
	{
		case ON_FAILURE_BLOCK:
			DeadLetterWrite(subscription, failure->event, "blocked", attempts, nacked->error);
			ParkedStreamPark(subscription, &nacked->key, nacked->sequence, nacked->global_position,
							 attempts, 0, nacked->error);
			break;
		case ON_FAILURE_SKIP:
			DeadLetterWrite(subscription, failure->event, "skipped", attempts, nacked->error);
			ParkedStreamPark(subscription, &nacked->key, nacked->sequence + 1,
							 nacked->global_position, 0, now, NULL);
			break;
		case ON_FAILURE_STOP:
			ParkedStreamPark(subscription, &nacked->key, nacked->sequence, nacked->global_position,
							 0, now, nacked->error);
			stop(subscription, nacked->error);
			break;
	}
}

/* When an event that has failed so often is tried again. */
static TimestampTz
retry_time(const Subscription *subscription, const NackedEvent *nacked, int attempts)
{
	if (nacked->retry_after)
		return ClockAfter(nacked->retry_after);
	return GetCurrentTimestamp() + (int64) doubled_usecs(subscription, attempts - 1);
}

/* The delay of the subscription, doubled so often, within its bound. */
static double
doubled_usecs(const Subscription *subscription, int times)
{
	double		usecs = SubscriptionUsecs(subscription->retry_delay);
	double		most = SubscriptionUsecs(subscription->retry_delay_max);

	times = Min(Max(times, 0), MAX_DOUBLINGS);
	return Min(usecs * (double) (INT64CONST(1) << times), most);
}

static void
stop(Subscription *subscription, const text *error)
{
	SubscriptionStop(subscription, error ? text_to_cstring(error) : NULL);
	subscription->paused = true;
}

/* Events of this node that pass the filter, from a position to another one. */
static int64
count_wanted_from(const Subscription *subscription, int64 position, int64 up_to_position)
{
	LogSnapshot snapshot = EventsSnapshotTake(true);
	EventScan  *scan = EventScanLog(position - 1, ForwardScanDirection, snapshot.snapshot);
	int64		n = 0;
	Event		event;

	while (EventScanNext(scan, &event) && EventGlobalPosition(&event) <= up_to_position)
		if (SubscriptionWants(subscription, &event))
			n++;
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	return n;
}

/*-------------------------------------------------------------------------
 * what failed
 *-------------------------------------------------------------------------
 */

/*
 * Note that an event of the batch in hand failed.  Returns what its acknowledgement
 * will do about it, as nack_event.  Of each stream the first counts: one behind it
 * changes nothing.  The same once more is not counted twice.  The share is to be
 * stored.  Between ShareEnter and ShareLeave.
 */
const char *
BatchNote(const Subscription *subscription, Share *share, const Event *event, text *error,
		  Interval *retry_after, bool give_up)
{
	NackedEvent note = {0};
	int			n;
	NackedEvent *notes;
	int			before = attempts_before(subscription, share, event);
	bool		is_noted = false;
	bool		is_final;
	int			i;

	EventKey(event, &note.key);
	notes = NackedEvents(share, &note.key, &n);
	note.sequence = EventSequence(event);
	note.global_position = EventGlobalPosition(event);
	if (share->batch_kind == BATCH_CURSOR && note_overtaken(share, event, &note))
	{
		before = -1;
		give_up = false;
	}
	for (i = 0; i < n; i++)
	{
		if (notes[i].is_current && notes[i].sequence < note.sequence)
			return subscription->in_log_order ? "halted" : "retry";
		if (notes[i].sequence != note.sequence)
			continue;
		is_noted = notes[i].is_current;
		before = is_noted ? notes[i].attempts - 1 : before < 0 ? before : Max(before, notes[i].attempts);
	}
	note.attempts = before + 1;
	note.retry_after = retry_after;
	note.give_up = give_up;
	note.error = error ? TextBegin(error, ERROR_MAX_BYTES) : NULL;
	NackedEventStore(share, &note);
	is_final = give_up || note.attempts >= subscription->max_attempts;
	return subscription->in_log_order ? "halted" : !is_final ? "retry" :
		share->batch_kind == BATCH_RETRY &&
		DeadLetterInHand(subscription, &share->batch, &note.key) ? "skipped" :
		subscription->on_failure == ON_FAILURE_BLOCK ? "blocked" :
		subscription->on_failure == ON_FAILURE_SKIP ? "skipped" : "stopped";
}

/*
 * Of restored events positions may fall where sequences rise.  Then events of the
 * stream that come before this one by their sequence are in hand behind it, and the
 * consumer passes over them: the first of those is what is noted, which has not failed.
 * False where there is none.
 */
static bool
note_overtaken(const Share *share, const Event *event, NackedEvent *note)
{
	LogSnapshot snapshot;
	EventScan  *scan;
	Event		before;
	bool		found = false;

	if (EventSequence(event) == 1)
		return false;
	snapshot = EventsSnapshotTake(true);
	scan = EventScanWholeStream(&note->key, EventSequence(event) - 1, BackwardScanDirection, snapshot.snapshot);
	/* those that came in front of this one may stand between them */
	while (EventScanNext(scan, &before) && EventGlobalPosition(&before) > share->position)
	{
		if (EventGlobalPosition(&before) <= EventGlobalPosition(event) ||
			EventGlobalPosition(&before) > share->batch_end)
			continue;
		note->sequence = EventSequence(&before);
		note->global_position = EventGlobalPosition(&before);
		found = true;
	}
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	return found;
}

/* How often the event has failed already, as far as that has taken effect. */
static int
attempts_before(const Subscription *subscription, const Share *share, const Event *event)
{
	StreamKey	key;
	DeadLetter *letter;
	ParkedStream *parked;

	if (subscription->in_log_order)
		return share->failed_position == EventGlobalPosition(event) ? share->attempts : 0;
	if (share->batch_kind != BATCH_RETRY)
		return 0;
	EventKey(event, &key);
	letter = DeadLetterInHand(subscription, &share->batch, &key);
	if (letter)
		return letter->attempts;
	parked = ParkedStreamFind(subscription, &key);
	return parked && parked->sequence == EventSequence(event) ? parked->attempts : 0;
}

/* Is the event one of the batch in hand? */
static bool
is_in_hand(const Subscription *subscription, const Share *share, const Event *event)
{
	StreamKey	key;
	DeadLetter *letter;
	ParkedStream *parked;

	EventKey(event, &key);
	if (!SlotSetHas(&share->slots, SlotOf(&key)))
		return false;
	parked = ParkedStreamFind(subscription, &key);
	if (share->batch_kind == BATCH_CURSOR)
		return SubscriptionWants(subscription, event) &&
			EventGlobalPosition(event) > share->position &&
			EventGlobalPosition(event) <= share->batch_end &&
			(parked == NULL || EventSequence(event) < parked->sequence);
	letter = DeadLetterInHand(subscription, &share->batch, &key);
	if (letter && letter->sequence == EventSequence(event))
		return true;
	return parked && parked->in_hand && BatchTokenEqual(&parked->batch, &share->batch) &&
		SubscriptionWants(subscription, event) && EventGlobalPosition(event) <= share->position &&
		EventSequence(event) >= parked->sequence && EventSequence(event) <= parked->handed_to;
}

/*-------------------------------------------------------------------------
 * batches that are lost
 *-------------------------------------------------------------------------
 */

/*
 * The batch in hand of a share, which is locked, is lost: nothing of it is done, and
 * what was in it is suspect.  The share is free then, and to be stored.  Between
 * ShareEnter and ShareLeave.
 */
void
BatchLose(const Subscription *subscription, Share *share)
{
	share->lost_by = share->consumer;
	if (share->batch_kind == BATCH_RETRY)
	{
		ParkedStreamsReturn(subscription, &share->batch, share->consumer);
		DeadLettersReturn(subscription, &share->batch, share->consumer);
	}
	else
	{
		/* a batch of one may have two events at one position */
		bool		alone = share->batch_limit == 1 || share->batch_count == 1;
		int			limit = share->batch_limit == 0 ? share->batch_count :
			Min(share->batch_limit, share->batch_count);

		if (alone)
			share->deliveries++;
		share->suspect_end = Max(share->suspect_end, share->batch_end);
		share->batch_limit = Max(limit / 2, 1);
	}
	ShareFree(share);
}

/*
 * Has an event been handed out alone, and its batch been lost, as often as events may
 * fail?  Then what is to be said of it, palloc'd; else NULL.
 */
text *
BatchGivenUp(const Subscription *subscription, int deliveries)
{
	if (deliveries < subscription->max_attempts)
		return NULL;
	if (FeedNameIs(subscription->name))
		return cstring_to_text(psprintf("handed out %d times, and each time the session that handled it was lost",
										deliveries));
	return cstring_to_text(psprintf("handed out %d times and never acknowledged: its consumer was lost, or takes longer than the lease of %g s",
									deliveries, (double) SubscriptionUsecs(subscription->lease) / USECS_PER_SEC));
}
