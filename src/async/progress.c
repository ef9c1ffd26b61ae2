/*-------------------------------------------------------------------------
 * progress.c
 *	  Has an asynchronous projection handled all up to a position?
 *
 * Its position alone does not tell.  The position is that of an event, and moves over
 * what does not concern the projection only now and then; the last numbers that were drawn
 * may be of nobody; and it moves past streams that wait behind an event that failed.  So
 * what is asked is whether there is an event up to there that is still to be
 * handled.  What is not committed is not promised to anybody, so a gap counts only where
 * it is the very position that is asked for.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/internal_query.h"
#include "base/role_switch.h"
#include "log/event_scan.h"
#include "log/horizon.h"
#include "projection/coverage.h"
#include "subscription/feed_name.h"
#include "subscription/parked_set.h"
#include "subscription/subscription.h"
#include "async/async_projection.h"
#include "async/progress.h"

static bool read_row(Progress *progress, const text *feed, int64 position, int64 *done_to);
static void look_behind(Progress *progress, const AsyncProjection *async,
						const Subscription *subscription, int64 done_to, int64 position);

/*
 * How far a projection is with the events up to a position.  Looks with the newest
 * snapshot, and locks nothing.
 */
Progress
ProgressOf(const text *projection, int64 position)
{
	Progress	progress = {0};
	text	   *feed = FeedNameOf(projection);
	AsyncProjection *async = AsyncProjectionRead(projection);
	Subscription *subscription = SubscriptionFind(feed);
	int64		done_to;

	if (async == NULL || subscription == NULL || !read_row(&progress, feed, position, &done_to))
		return progress;
	progress.is_there = true;
	progress.paused = async->projection->paused;
	progress.owner = async->projection->owner.role;
	if (done_to < position)
		look_behind(&progress, async, subscription, done_to, position);
	progress.stopped = subscription->paused && (progress.open || progress.unsettled);
	return progress;
}

/* What the tables say; false when it is not there any more. */
static bool
read_row(Progress *progress, const text *feed, int64 position, int64 *done_to)
{
	static InternalQuery query = {
		.sql = "SELECT h.position, coalesce(h.retry_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp(), false) AS waits,"
		" p.blocked, p.retries OR EXISTS (SELECT FROM cqrs_es.dead_letters AS l"
		" WHERE l.subscription OPERATOR(pg_catalog.=) $1 AND l.retry_at IS NOT NULL) AS retries,"
		" coalesce(s.stopped_error, p.error, h.error) AS error"
		" FROM cqrs_es.subscriptions AS s"
		" JOIN cqrs_es.shares AS h ON h.subscription OPERATOR(pg_catalog.=) s.name"
		" CROSS JOIN LATERAL (SELECT coalesce(pg_catalog.bool_or(x.retry_at IS NULL), false) AS blocked,"
		" coalesce(pg_catalog.bool_or(x.retry_at IS NOT NULL), false) AS retries,"
		" (pg_catalog.array_agg(x.error ORDER BY x.retry_at IS NOT NULL, x.global_position))[1] AS error"
		" FROM cqrs_es.parked_streams AS x WHERE x.subscription OPERATOR(pg_catalog.=) $1"
		" AND x.global_position OPERATOR(pg_catalog.<=) $2) AS p"
		" WHERE s.name OPERATOR(pg_catalog.=) $1",
		.nargs = 2,.argtypes = {TEXTOID, INT8OID}
	};
	MemoryContext caller = CurrentMemoryContext;
	Datum		values[2] = {PointerGetDatum(feed), Int64GetDatum(position)};
	bool		found;

	SPI_connect();
	found = SubscriptionQuery(&query, values, NULL) > 0;
	if (found)
	{
		QueryRow	row = InternalQueryRow(0);
		char	   *error = InternalQueryText(&row, "error");

		*done_to = DatumGetInt64(InternalQueryDatum(&row, "position", NULL));
		progress->waits = DatumGetBool(InternalQueryDatum(&row, "waits", NULL));
		progress->blocked = DatumGetBool(InternalQueryDatum(&row, "blocked", NULL));
		progress->retries = DatumGetBool(InternalQueryDatum(&row, "retries", NULL));
		progress->error = error ? MemoryContextStrdup(caller, error) : NULL;
	}
	SPI_finish();
	return found;
}

/* Is there something between the position of the feed and the one that is asked for? */
static void
look_behind(Progress *progress, const AsyncProjection *async, const Subscription *subscription,
			int64 done_to, int64 position)
{
	RoleSwitch	saved;
	Snapshot	snapshot;
	EventScan  *scan;
	ParkedSet  *parked;
	bool		is_visible = false;
	int			cursor = 0;
	Event		event;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = EventScanLog(done_to, ForwardScanDirection, snapshot);
	parked = ParkedSetMake(subscription);
	while (!progress->open && EventScanNext(scan, &event) && EventGlobalPosition(&event) <= position)
	{
		StreamKey	key;

		is_visible = EventGlobalPosition(&event) == position;
		EventKey(&event, &key);
		progress->open = SubscriptionWants(subscription, &event) &&
			!CoverageHas(&async->handled, EventGlobalPosition(&event), &cursor) &&
			!ParkedSetHas(parked, &key, EventSequence(&event));
	}
	EventScanEnd(scan);
	UnregisterSnapshot(snapshot);
	RoleSwitchBack(&saved);
	SPI_finish();
	if (!progress->open && !is_visible)
		progress->unsettled = !HorizonIsSettled(position);
}
