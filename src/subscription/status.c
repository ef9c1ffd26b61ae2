/*-------------------------------------------------------------------------
 * status.c
 *	  What is told of subscriptions, and to whom.
 *
 * The views of subscriptions are for everybody, and show each what concerns them: who
 * may consume a subscription now sees all of it; its owner whatever may have become
 * of other rights, and pg_monitor, see how far it is, and nothing that comes from
 * events: no error, no stream, no tenant.
 *
 * How far it is behind is counted in the log itself, not guessed from positions, which
 * have gaps and belong to others.  That must stay cheap when a subscription is far
 * behind, so the count ends early, and says "at least" then.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_authid_d.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/role_switch.h"
#include "base/tenancy.h"
#include "log/event_scan.h"
#include "log/horizon.h"
#include "log/tenants.h"
#include "subscription/slot.h"
#include "subscription/subscription.h"

/* a monitor that asks every few seconds can afford as much: some 50 ms */
#define MAX_COUNTED		10000
#define MAX_LOOKED_AT	100000

/* What somebody may see of a subscription. */
typedef enum Sight
{
	SEES_NOTHING,
	SEES_PROGRESS,				/* how far it is */
	SEES_ALL
} Sight;

/* How far a subscription has come in its streams, by their slots. */
typedef struct Progress
{
	int64		position;		/* the lowest of all */
	int64		last_position;	/* the highest */
	int64		positions[SLOTS];
} Progress;

/* Events behind that, being counted. */
typedef struct Count
{
	const Subscription *subscription;
	Progress	progress;
	int64		most;
	int64		n;
	int			looked_at;
	TimestampTz *first;
} Count;

PG_FUNCTION_INFO_V1(cqrs_es_sees_subscription);
PG_FUNCTION_INFO_V1(cqrs_es_subscription_lag_events);
PG_FUNCTION_INFO_V1(cqrs_es_subscription_lag);
PG_FUNCTION_INFO_V1(cqrs_es_subscription_obstacle);
PG_FUNCTION_INFO_V1(cqrs_es_subscription_seen);

static Subscription *find_seen(const text *name, Sight least);
static Sight sight_of(const Subscription *subscription);
static bool may_read(const Subscription *subscription);
static int64 count_behind(const Subscription *subscription, int64 most, TimestampTz *first);
static bool goes_on(const Count *count);
static void look_at(Count *count, const Event *event);
static bool read_progress(const Subscription *subscription, Progress *progress);
static bool is_behind(const Progress *progress, const Event *event);

/*
 * SQL: sees_subscription(name, content).  May the caller see how far it is, or all of it?
 * False when it is not there.
 */
Datum
cqrs_es_sees_subscription(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(find_seen(PG_GETARG_TEXT_PP(0), PG_GETARG_BOOL(1) ? SEES_ALL : SEES_PROGRESS) != NULL);
}

/* SQL: subscription_lag_events(name), at most 10,000; null for who may not see it */
Datum
cqrs_es_subscription_lag_events(PG_FUNCTION_ARGS)
{
	Subscription *subscription = find_seen(PG_GETARG_TEXT_PP(0), SEES_PROGRESS);
	TimestampTz first;

	if (subscription == NULL)
		PG_RETURN_NULL();
	PG_RETURN_INT64(count_behind(subscription, MAX_COUNTED, &first));
}

/*
 * SQL: subscription_lag(name).  How old is the first event that has not been handed
 * out and acknowledged?  Null when there is none, and for who may not see it.
 */
Datum
cqrs_es_subscription_lag(PG_FUNCTION_ARGS)
{
	Subscription *subscription = find_seen(PG_GETARG_TEXT_PP(0), SEES_PROGRESS);
	TimestampTz first;

	if (subscription == NULL || count_behind(subscription, 1, &first) == 0)
		PG_RETURN_NULL();
	return DirectFunctionCall2(timestamp_mi,
							   TimestampTzGetDatum(Max(GetCurrentTimestamp(), first)),
							   TimestampTzGetDatum(first));
}

/*
 * SQL: subscription_obstacle(name).  Why nothing can be handed out behind the position
 * of a share; null: it can.
 */
Datum
cqrs_es_subscription_obstacle(PG_FUNCTION_ARGS)
{
	Subscription *subscription = find_seen(PG_GETARG_TEXT_PP(0), SEES_PROGRESS);
	Progress	progress;
	char	   *obstacle;

	if (subscription == NULL || !read_progress(subscription, &progress))
		PG_RETURN_NULL();
	obstacle = SubscriptionObstacle(progress.position);
	if (obstacle == NULL)
		obstacle = SubscriptionObstacle(progress.last_position);
	if (obstacle == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(obstacle));
}

/*
 * SQL: subscription_seen(name).  Who asked for its events, and when last.  A
 * standby does not know.
 */
Datum
cqrs_es_subscription_seen(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "SELECT consumer, seen_at FROM cqrs_es.consumers"
		" WHERE subscription OPERATOR(pg_catalog.=) $1 ORDER BY consumer",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		value = PG_GETARG_DATUM(0);
	uint64		n;
	uint64		i;

	InitMaterializedSRF(fcinfo, 0);
	/* the table is an unlogged one */
	if (RecoveryInProgress() || find_seen(PG_GETARG_TEXT_PP(0), SEES_PROGRESS) == NULL)
		return (Datum) 0;
	SPI_connect();
	n = SubscriptionQuery(&query, &value, NULL);
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		Datum		values[2] = {InternalQueryDatum(&row, "consumer", NULL),
			InternalQueryDatum(&row, "seen_at", NULL)};
		bool		nulls[2] = {false, false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	SPI_finish();
	return (Datum) 0;
}

/* One of which the caller may see that much, or NULL. */
static Subscription *
find_seen(const text *name, Sight least)
{
	Subscription *subscription = SubscriptionFind(name);

	return subscription && sight_of(subscription) >= least ? subscription : NULL;
}

static Sight
sight_of(const Subscription *subscription)
{
	Oid			caller = GetUserId();

	if (SubscriptionMayConsume(subscription) && may_read(subscription))
		return SEES_ALL;
	if (has_privs_of_role(caller, ROLE_PG_MONITOR))
		return SEES_PROGRESS;
	return SubscriptionIsOwn(subscription) ? SEES_PROGRESS : SEES_NOTHING;
}

/* As SubscriptionRequireTenant asks. */
static bool
may_read(const Subscription *subscription)
{
	if (!EventsMayRead())
		return false;
	if (subscription->tenant_id == NULL)
		return TenantsMayAll();
	return SubscriptionTenantIsOwn(subscription->tenant_id) && !EventsRowSecurity();
}

/*
 * How many events wait behind the positions, at most so many and in a part of the log;
 * and the time of the first.  Whoever the caller is, all of the subscription's count; those
 * too that nobody gets yet, since an open transaction holds readers back.
 */
static int64
count_behind(const Subscription *subscription, int64 most, TimestampTz *first)
{
	HorizonScan walk;
	Count		count = {.subscription = subscription,.most = most,.first = first};
	RoleSwitch	saved;
	EventScan  *scan;
	Event		event;

	if (!read_progress(subscription, &count.progress) ||
		SubscriptionObstacle(count.progress.position) != NULL)
		return 0;
	saved = RoleSwitchToOwner("events");
	HorizonScanBeginFiltered(&walk, count.progress.position, 0, &subscription->filter);
	while (goes_on(&count) && HorizonScanNext(&walk, &event))
		look_at(&count, &event);
	HorizonScanEnd(&walk);
	if (goes_on(&count))
	{
		LogSnapshot snapshot = EventsSnapshotTake(true);

		scan = EventScanLog(walk.position, ForwardScanDirection, snapshot.snapshot);
		while (goes_on(&count) && EventScanNext(scan, &event))
			look_at(&count, &event);
		EventScanEnd(scan);
		EventsSnapshotRelease(snapshot);
	}
	RoleSwitchBack(&saved);
	return count.n;
}

static bool
goes_on(const Count *count)
{
	return count->looked_at < MAX_LOOKED_AT && count->n < count->most;
}

static void
look_at(Count *count, const Event *event)
{
	count->looked_at++;
	if (!SubscriptionWants(count->subscription, event) ||
		!is_behind(&count->progress, event))
		return;
	if (count->n++ == 0)
		*count->first = DatumGetTimestampTz(event->values[EVENT_CREATED_AT]);
}

/* False when it has no shares, which no subscription should be without. */
static bool
read_progress(const Subscription *subscription, Progress *progress)
{
	static InternalQuery query = {
		.sql = "SELECT slots, position FROM cqrs_es.shares"
		" WHERE subscription OPERATOR(pg_catalog.=) $1 ORDER BY position",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(subscription->name);
	uint64		n;
	uint64		i;

	SPI_connect();
	n = SubscriptionQuery(&query, &value, NULL);
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		int64		position = DatumGetInt64(InternalQueryDatum(&row, "position", NULL));
		SlotSet		slots;
		int			slot;

		if (i == 0)
			progress->position = position;
		progress->last_position = position;
		SlotSetFromDatum(&slots, InternalQueryDatum(&row, "slots", NULL));
		for (slot = 0; slot < SLOTS; slot++)
			if (SlotSetHas(&slots, slot))
				progress->positions[slot] = position;
	}
	SPI_finish();
	return n > 0;
}

static bool
is_behind(const Progress *progress, const Event *event)
{
	StreamKey	key;

	EventKey(event, &key);
	return EventGlobalPosition(event) > progress->positions[SlotOf(&key)];
}
