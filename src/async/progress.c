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
 *
 * Streams that wait behind an event that failed are left out, for nobody who waits for
 * something else is to wait for them, but for the one of the very event that is
 * asked for: that has not been handled.
 *
 * Who waits looks often.  So what is declared is kept until declarations change; then a
 * look reads one row, and the events that were not handled by then, up to the first that
 * is still open.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/internal_query.h"
#include "base/registry.h"
#include "base/role_switch.h"
#include "log/event_scan.h"
#include "log/horizon.h"
#include "projection/coverage.h"
#include "subscription/feed_name.h"
#include "subscription/parked_set.h"
#include "subscription/subscription.h"
#include "async/progress.h"

/* What the tables say of a feed. */
typedef struct FeedRow
{
	int64		done_to;		/* its position */
	bool		stopped;
	bool		parked;			/* streams wait, with events up to the position asked for */
} FeedRow;

static bool read_row(Progress *progress, const text *feed, int64 position, FeedRow *row);
static bool look_behind(Progress *progress, const ProgressWatch *watch, int64 done_to, int64 position);
static void look_at_event(Progress *progress, const ProgressWatch *watch, int64 position);
static void look_at_stream(Progress *progress, const text *feed, const Event *event,
						   MemoryContext memory);

/* What is kept between looks, in the current memory context. */
ProgressWatch *
ProgressWatchMake(const text *projection)
{
	ProgressWatch *watch = palloc0(sizeof(ProgressWatch));

	watch->name = DatumGetTextPCopy(PointerGetDatum(projection));
	watch->feed = FeedNameOf(projection);
	return watch;
}

/*
 * Read what is declared, unless what is known is still true.  All that is kept of the
 * feed changes with its projection alone.
 */
void
ProgressWatchDeclared(ProgressWatch *watch)
{
	MemoryContext caller;

	AcceptInvalidationMessages();
	if (watch->memory && watch->generation == RegistryGeneration())
		return;
	if (watch->memory)
		MemoryContextDelete(watch->memory);
	watch->projection = NULL;
	watch->async = NULL;
	watch->subscription = NULL;
	watch->memory = AllocSetContextCreate(GetMemoryChunkContext(watch), "cqrs_es progress", ALLOCSET_SMALL_SIZES);
	watch->generation = RegistryGeneration();
	caller = MemoryContextSwitchTo(watch->memory);
	watch->projection = ProjectionLoad(watch->name);
	watch->async = AsyncProjectionRead(watch->name);
	watch->subscription = SubscriptionFind(watch->feed);
	MemoryContextSwitchTo(caller);
}

/*
 * How far a projection is with the events up to a position.  Looks with the newest
 * snapshot, and locks nothing.
 */
Progress
ProgressLook(ProgressWatch *watch, int64 position)
{
	Progress	progress = {0};
	FeedRow		row;

	ProgressWatchDeclared(watch);
	if (watch->async == NULL || watch->subscription == NULL ||
		!read_row(&progress, watch->feed, position, &row))
		return progress;
	progress.is_there = true;
	progress.paused = watch->async->projection->paused;
	if (row.done_to < position)
		row.parked |= look_behind(&progress, watch, row.done_to, position);
	/* last, for it may have been parked meanwhile */
	if (row.parked && !progress.open)
		look_at_event(&progress, watch, position);
	progress.stopped = row.stopped && (progress.open || progress.unsettled);
	return progress;
}

/* The same, once. */
Progress
ProgressOf(const text *projection, int64 position)
{
	return ProgressLook(ProgressWatchMake(projection), position);
}

/* What the tables say; false when it is not there any more. */
static bool
read_row(Progress *progress, const text *feed, int64 position, FeedRow *row)
{
	static InternalQuery query = {
		.sql = "SELECT h.position, coalesce(h.retry_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp(), false) AS waits,"
		" s.paused, p.parked, p.retries OR EXISTS (SELECT FROM cqrs_es.dead_letters AS l"
		" WHERE l.subscription OPERATOR(pg_catalog.=) $1 AND l.retry_at IS NOT NULL) AS retries,"
		" coalesce(s.stopped_error, h.error) AS error"
		" FROM cqrs_es.subscriptions AS s"
		" JOIN cqrs_es.shares AS h ON h.subscription OPERATOR(pg_catalog.=) s.name"
		" CROSS JOIN LATERAL (SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS parked,"
		" coalesce(pg_catalog.bool_or(x.retry_at IS NOT NULL), false) AS retries"
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
		QueryRow	found_row = InternalQueryRow(0);
		char	   *error = InternalQueryText(&found_row, "error");

		row->done_to = DatumGetInt64(InternalQueryDatum(&found_row, "position", NULL));
		row->stopped = DatumGetBool(InternalQueryDatum(&found_row, "paused", NULL));
		row->parked = DatumGetBool(InternalQueryDatum(&found_row, "parked", NULL));
		progress->waits = DatumGetBool(InternalQueryDatum(&found_row, "waits", NULL));
		progress->retries = DatumGetBool(InternalQueryDatum(&found_row, "retries", NULL));
		progress->error = error ? MemoryContextStrdup(caller, error) : NULL;
	}
	SPI_finish();
	return found;
}

/*
 * Is there something between the position of the feed and the one that is asked for?
 * Returns whether there are events of streams that wait.
 */
static bool
look_behind(Progress *progress, const ProgressWatch *watch, int64 done_to, int64 position)
{
	const Subscription *subscription = watch->subscription;
	RoleSwitch	saved;
	LogSnapshot snapshot;
	EventScan  *scan;
	ParkedSet  *parked;
	bool		is_visible = false;
	bool		some_wait = false;
	int			cursor = 0;
	Event		event;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	snapshot = EventsSnapshotTake(true);
	scan = EventScanLog(done_to, ForwardScanDirection, snapshot.snapshot);
	parked = ParkedSetMake(subscription);
	while (!progress->open && EventScanNext(scan, &event) && EventGlobalPosition(&event) <= position)
	{
		StreamKey	key;
		bool		waits;

		is_visible = EventGlobalPosition(&event) == position;
		if (!SubscriptionWants(subscription, &event) ||
			CoverageHas(&watch->async->handled, EventGlobalPosition(&event), &cursor))
			continue;
		EventKey(&event, &key);
		waits = ParkedSetHas(parked, &key, EventSequence(&event));
		some_wait |= waits;
		progress->open = !waits;
	}
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	RoleSwitchBack(&saved);
	SPI_finish();
	if (!progress->open && !is_visible)
		progress->unsettled = !HorizonIsSettled(position);
	return some_wait;
}

/* Does the event at the position wait in its stream?  Restored ones may share one. */
static void
look_at_event(Progress *progress, const ProgressWatch *watch, int64 position)
{
	MemoryContext caller = CurrentMemoryContext;
	RoleSwitch	saved;
	LogSnapshot snapshot;
	EventScan  *scan;
	Event		event;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	snapshot = EventsSnapshotTake(true);
	scan = EventScanLog(position - 1, ForwardScanDirection, snapshot.snapshot);
	while (EventScanNext(scan, &event) && EventGlobalPosition(&event) == position)
		if (SubscriptionWants(watch->subscription, &event))
			look_at_stream(progress, watch->feed, &event, caller);
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	RoleSwitchBack(&saved);
	SPI_finish();
}

/* Does the event wait in its stream?  What the error is copied to is `memory`. */
static void
look_at_stream(Progress *progress, const text *feed, const Event *event, MemoryContext memory)
{
	static InternalQuery query = {
		.sql = "SELECT p.retry_at IS NULL AS blocked, p.error FROM cqrs_es.parked_streams AS p"
		" WHERE p.subscription OPERATOR(pg_catalog.=) $1 AND p.aggregate_type OPERATOR(pg_catalog.=) $2"
		" AND p.aggregate_id OPERATOR(pg_catalog.=) $3 AND p.tenant_id OPERATOR(pg_catalog.=) $4"
		" AND p.sequence OPERATOR(pg_catalog.<=) $5",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID}
	};
	StreamKey	key;
	Datum		values[5];

	EventKey(event, &key);
	values[0] = PointerGetDatum(feed);
	values[1] = PointerGetDatum(key.aggregate_type);
	values[2] = PointerGetDatum(key.aggregate_id);
	values[3] = PointerGetDatum(key.tenant_id);
	values[4] = Int64GetDatum(EventSequence(event));
	SPI_connect();
	if (SubscriptionQuery(&query, values, NULL) > 0)
	{
		QueryRow	row = InternalQueryRow(0);
		char	   *error = InternalQueryText(&row, "error");

		if (DatumGetBool(InternalQueryDatum(&row, "blocked", NULL)))
		{
			progress->blocked = true;
			progress->error = error ? MemoryContextStrdup(memory, error) : NULL;
		}
		else
			progress->retried = true;
	}
	SPI_finish();
}
