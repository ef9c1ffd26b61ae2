/*-------------------------------------------------------------------------
 * delivery_wait.c
 *	  Waiting until there is something for a consumer: wait_for_events with a
 *	  subscription.
 *
 * The wait is over when receive_events would hand something out: when there is a share
 * that can be taken (it is free, or its lease is over, and nobody has it locked), and
 * for that share something is due again or an event of its streams lies behind its
 * position.  The look must say just that.  Did it say more, a consumer would ask,
 * get nothing and wait, at full speed; did it say less, nobody would ask.
 *
 * Nothing is locked here, for then others would pass the share over.  That a row is
 * locked is seen from the transaction that its header names, as good as one can know
 * without waiting.  So the answer may be old when it is given, and whoever gets
 * nothing waits again.
 *
 * Whatever can change the answer wakes who waits: an append, and what the other files
 * here do (WakeupAtEnd).  Times that make something due bound the sleep.  What has been
 * walked over in vain is remembered for the length of the call, for as long as the
 * share's row is the same.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/extension.h"
#include "base/internal_query.h"
#include "base/text.h"
#include "log/event_wait.h"
#include "log/horizon.h"
#include "subscription/delivery_wait.h"
#include "subscription/feed_name.h"
#include "subscription/parked_set.h"
#include "subscription/share.h"

/* a walk is broken off after so many events, to be gone on with in the next look */
#define MAX_PASSED 1000000

/* A share that was looked at. */
typedef struct LookedAt
{
	int64		share;
	TransactionId xmin;			/* of its row */
	int64		position;		/* nothing for it up to here, ... */
	uint64		asked;			/* ... while this is what EventFilterAsk returns */
} LookedAt;

struct DeliveryWait
{
	text	   *subscription;
	bool		resume;			/* what is in hand can be taken */
	int			n;
	LookedAt	looked_at[SLOTS];
};

static bool wait_for_delivery(FunctionCallInfo fcinfo, text *name, TimestampTz deadline);
static bool look(void *arg, long *longest_ms);
static bool look_at_share(DeliveryWait *wait, const Subscription *subscription,
						  const QueryRow *row, long *longest_ms);
static bool is_locked(const QueryRow *row);
static bool has_come(const QueryRow *row, const char *column, long *longest_ms);
static bool has_event(DeliveryWait *wait, const Subscription *subscription,
					  const QueryRow *row, long *longest_ms);
static LookedAt *looked_at(DeliveryWait *wait, const QueryRow *row, int64 position);

void
DeliveryWaitInit(void)
{
	EventWaitSetSubscription(wait_for_delivery);
}

/* CALL wait_for_events(subscription, timeout) */
static bool
wait_for_delivery(FunctionCallInfo fcinfo, text *name, TimestampTz deadline)
{
	FeedNameRefuse(name, "wait_for_events()", "wait_for_projection()");
	return EventWaitFor(fcinfo, "wait_for_events()", deadline, look, DeliveryWaitMake(name, false));
}

/*
 * What is remembered between looks for a consumer; one who resumes may take what is in
 * hand.  In the current memory context.
 */
DeliveryWait *
DeliveryWaitMake(const text *subscription, bool resume)
{
	DeliveryWait *wait = palloc0(sizeof(DeliveryWait));

	wait->subscription = DatumGetTextPCopy(PointerGetDatum(subscription));
	wait->resume = resume;
	return wait;
}

/* Is there something to receive?  QE402, QE404, 42501, QE007. */
static bool
look(void *arg, long *longest_ms)
{
	DeliveryWait *wait = arg;
	Subscription *subscription = SubscriptionRead(wait->subscription);

	SubscriptionRequireConsumer(subscription);
	return DeliveryWaitLook(wait, subscription, longest_ms);
}

/*
 * The same of a subscription that was just read, for a caller who needs no rights.  Locks
 * nothing and writes nothing.  *longest_ms is lowered to when something may be due.
 */
bool
DeliveryWaitLook(DeliveryWait *wait, const Subscription *subscription, long *longest_ms)
{
	static InternalQuery query = {
		.sql = "SELECT s.share, s.slots, s.position, s.xmin, s.ctid, s.retry_at, s.leased_until,"
		" (SELECT pg_catalog.min(p.retry_at) FROM cqrs_es.parked_streams AS p"
		" WHERE p.subscription OPERATOR(pg_catalog.=) $1 AND p.retry_at IS NOT NULL"
		" AND pg_catalog.get_bit(s.slots, p.slot) OPERATOR(pg_catalog.=) 1) AS parked_at,"
		" (SELECT pg_catalog.min(l.retry_at) FROM cqrs_es.dead_letters AS l"
		" WHERE l.subscription OPERATOR(pg_catalog.=) $1 AND l.retry_at IS NOT NULL"
		" AND l.state OPERATOR(pg_catalog.=) 'redriven'"
		" AND pg_catalog.get_bit(s.slots, l.slot) OPERATOR(pg_catalog.=) 1) AS letter_at"
		" FROM cqrs_es.shares AS s WHERE s.subscription OPERATOR(pg_catalog.=) $1 ORDER BY s.position",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(wait->subscription);
	bool		found = false;
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("shares");
	if (!subscription->paused)
	{
		int			n = (int) ShareQuery(&query, &value, NULL);
		SPITupleTable *rows = SPI_tuptable;
		int			i;

		for (i = 0; i < n && !found; i++)
		{
			QueryRow	row = {rows->vals[i], rows->tupdesc};

			found = look_at_share(wait, subscription, &row, longest_ms);
		}
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	return found;
}

/* Can it be taken, and is there something for it?  As receive_events would, QE404. */
static bool
look_at_share(DeliveryWait *wait, const Subscription *subscription, const QueryRow *row,
			  long *longest_ms)
{
	if (is_locked(row))
		return false;
	if (wait->resume && InternalQueryText(row, "leased_until"))
		return true;
	if (!has_come(row, "leased_until", longest_ms) || !has_come(row, "retry_at", longest_ms))
		return false;
	SubscriptionRequireReadable(DatumGetInt64(InternalQueryDatum(row, "position", NULL)));
	return ((InternalQueryText(row, "parked_at") && has_come(row, "parked_at", longest_ms)) ||
			(InternalQueryText(row, "letter_at") && has_come(row, "letter_at", longest_ms)) ||
			has_event(wait, subscription, row, longest_ms));
}

/* Has another transaction that has not ended locked the row, or changed it? */
static bool
is_locked(const QueryRow *row)
{
	Relation	shares = table_open(ExtensionRelid("shares"), AccessShareLock);
	HeapTupleData tuple = {.t_self = *(ItemPointer) DatumGetPointer(InternalQueryDatum(row, "ctid", NULL))};
	Buffer		buffer;
	bool		locked = false;

	if (heap_fetch(shares, SnapshotAny, &tuple, &buffer, false))
	{
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		locked = HeapTupleSatisfiesUpdate(&tuple, GetCurrentCommandId(false), buffer) == TM_BeingModified;
		UnlockReleaseBuffer(buffer);
	}
	table_close(shares, AccessShareLock);
	return locked;
}

/* Has this time come, or is there none?  Else it is time to look then. */
static bool
has_come(const QueryRow *row, const char *column, long *longest_ms)
{
	bool		isnull;
	TimestampTz at = DatumGetTimestampTz(InternalQueryDatum(row, column, &isnull));
	TimestampTz now = GetCurrentTimestamp();

	if (isnull || at < now)
		return true;
	*longest_ms = Min(*longest_ms - 1, TimestampDifferenceMilliseconds(now, at)) + 1;
	return false;
}

/* Is there an event for the share behind its position, which is not of a parked stream? */
static bool
has_event(DeliveryWait *wait, const Subscription *subscription, const QueryRow *row,
		  long *longest_ms)
{
	Share		share = {0};
	LookedAt   *before;
	ParkedSet  *parked;
	HorizonScan walk;
	Event		event;
	int64		passed = 0;
	bool		found = false;
	uint64		asked;

	share.position = DatumGetInt64(InternalQueryDatum(row, "position", NULL));
	SlotSetFromDatum(&share.slots, InternalQueryDatum(row, "slots", NULL));
	before = looked_at(wait, row, share.position);
	/* tags that are defined now may be given to what was looked at */
	asked = EventFilterAsk(&subscription->filter, share.position);
	if (asked != before->asked)
		before->position = share.position;
	before->asked = asked;
	parked = ParkedSetMake(subscription);
	HorizonScanBeginFiltered(&walk, before->position, 0, &subscription->filter);
	while (!found && passed++ < MAX_PASSED && HorizonScanNext(&walk, &event))
	{
		StreamKey	key;

		EventKey(&event, &key);
		found = SubscriptionWants(subscription, &event) &&
			SlotSetHas(&share.slots, SlotOf(&key)) &&
			!ParkedSetHas(parked, &key, EventSequence(&event));
	}
	*longest_ms = Min(*longest_ms, HorizonLongestSleep(walk.number));
	HorizonScanEnd(&walk);
	EventFilterConfirm(&subscription->filter, share.position, asked);
	if (found)
		return true;
	before->position = Max(before->position, walk.position);
	if (passed > MAX_PASSED)
	{
		/* it may have ended between two events at one position */
		before->position--;
		*longest_ms = 1;
	}
	return false;
}

/* What is remembered of the share, whose row may have changed. */
static LookedAt *
looked_at(DeliveryWait *wait, const QueryRow *row, int64 position)
{
	int64		share = DatumGetInt64(InternalQueryDatum(row, "share", NULL));
	TransactionId xmin = DatumGetTransactionId(InternalQueryDatum(row, "xmin", NULL));
	int			i;

	for (i = 0; i < wait->n && wait->looked_at[i].share != share; i++)
		 /* look for it */ ;
	if (i == wait->n)
	{
		/* shares come and go, and no more than that are there at once */
		if (wait->n == SLOTS)
			i = wait->n = 0;
		wait->n++;
		wait->looked_at[i].xmin = InvalidTransactionId;
	}
	if (wait->looked_at[i].xmin != xmin || wait->looked_at[i].position < position)
		wait->looked_at[i] = (LookedAt)
	{
		share, xmin, position, 0
	};
	return &wait->looked_at[i];
}
