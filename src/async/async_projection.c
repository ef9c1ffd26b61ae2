/*-------------------------------------------------------------------------
 * async_projection.c
 *	  Projections that follow the log by themselves, after the commit: how one is
 *	  created, changes its mode, stands still and goes on.
 *
 * To whoever appends, an asynchronous projection is a paused one: its lock is taken
 * (projection.c), which is cqrs_es.projections, and nothing runs.  It gets its events from
 * the log, by a subscription of its own (feed.c), and whoever runs it (runner.c) handles a
 * batch and acknowledges it in one transaction.
 *
 * What it has handled.  While it is at work, its feed's position says that; and its row
 * says what it had handled before that lies behind the position (handled_position,
 * handled_gaps), which is passed over.  A paused one has all of it in its row, as any
 * paused projection has.  So every change of the mode is made of steps that are the same for
 * all projections:
 *
 *	sync, live		hold still: lock the read models against writers; what is visible is handled
 *	async, at work	hold still: lock the feed against whoever runs it; what lies before its
 *					position is handled, and what it would pass over
 *	go on, async	the feed begins in front of the first event that is not handled
 *	go on, sync		replay what is not handled, then once more with writers locked out, all
 *					those who append for any asynchronous one
 *
 * From sync to async no event is lost or doubled: with the read models locked, every
 * event that the projection has been told of is committed, so it is visible, and among the
 * handled ones.  Every other one that concerns it is one whose writer finds the
 * projection asynchronous, since the registry is looked at again when the lock was got.
 * Its position is in a gap or behind all that is visible; so the feed, which waits for gaps
 * to settle, comes to it.
 *
 * The order of locks: the row of the projection, its feed's, the share, then whatever
 * handlers take; against writers as late as can be.  Who runs it takes no lock of the row.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/internal_query.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "log/position.h"
#include "projection/coverage.h"
#include "projection/locked_projection.h"
#include "projection/projection.h"
#include "projection/projection_rebuild.h"
#include "projection/read_model.h"
#include "projection/replay.h"
#include "subscription/feed.h"
#include "subscription/feed_name.h"
#include "subscription/subscription.h"
#include "async/async_projection.h"

/* who wants to know of appends that concern one at work; or NULL */
static void (*observer) (void) = NULL;

static void tell_of_append(void);
static void create(const Projection *projection);
static void create_feed(const Projection *projection, int64 position);
static NullableDatum text_array(text *const *texts, int n, bool isnull);
static void lock(const text *name);
static text *locked_feed(const char *name);
static void drop(const text *name);
static void give(const text *name, Oid owner);
static void alter(const text *name, NullableDatum mode, NullableDatum per_stream);
static void become_async(LockedProjection *locked, bool per_stream);
static void become_sync(LockedProjection *locked);
static void lock_out_writers(const Projection *projection);
static void change_order(LockedProjection *locked, bool per_stream);
static void refuse_failures(const LockedProjection *locked);
static void hold_still(LockedProjection *locked);
static void go_on(const LockedProjection *locked);
static void forget_failures(const LockedProjection *locked);
static bool has_stopped(const Projection *projection);
static int64 start_behind(const Coverage *handled);

void
AsyncProjectionInit(void)
{
	static const ProjectionAsync part = {
		.appended = tell_of_append,
		.created = create,
		.lock = lock,
		.dropped = drop,
		.given = give,
		.alter = alter,
		.hold_still = hold_still,
		.go_on = go_on,
		.forget_failures = forget_failures,
		.has_stopped = has_stopped,
		.refuse_failures = refuse_failures
	};

	ProjectionSetAsync(&part);
}

/* Whom to tell that something was appended; called by Inits only. */
void
AsyncProjectionSetAppended(void (*appended) (void))
{
	observer = appended;
}

static void
tell_of_append(void)
{
	if (observer)
		observer();
}

/*
 * One as it is declared now, in the current memory context; NULL when there is none of
 * that name.  Nothing is locked: who has the lock of its feed knows that it stays so.
 */
AsyncProjection *
AsyncProjectionRead(const text *name)
{
	static InternalQuery query = {
		.sql = "SELECT " PROJECTION_COLUMNS ", " COVERAGE_COLUMNS ", coalesce(p.rebuilt_to, 0) AS rebuilt_to"
		" FROM cqrs_es.projections AS p WHERE p.name OPERATOR(pg_catalog.=) $1"
		" AND p.mode OPERATOR(pg_catalog.=) 'async'",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	MemoryContext caller = CurrentMemoryContext;
	Datum		value = PointerGetDatum(name);
	AsyncProjection *async = NULL;

	SPI_connect();
	if (RegistryRead(&query, &value) > 0)
	{
		QueryRow	row = InternalQueryRow(0);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		async = palloc(sizeof(AsyncProjection));
		async->projection = ProjectionMake(&row, caller);
		CoverageOfRow(&async->handled, &row);
		async->rebuilt_to = DatumGetInt64(InternalQueryDatum(&row, "rebuilt_to", NULL));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return async;
}

/* The names of all of them (text *), in the current memory context. */
List *
AsyncProjectionNames(void)
{
	static InternalQuery query = {
		.sql = "SELECT name FROM cqrs_es.projections"
		" WHERE mode OPERATOR(pg_catalog.=) 'async' ORDER BY name"
	};
	MemoryContext caller = CurrentMemoryContext;
	List	   *names = NIL;
	uint64		n;
	uint64		i;

	SPI_connect();
	n = RegistryRead(&query, NULL);
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		names = lappend(names, DatumGetTextPCopy(InternalQueryDatum(&row, "name", NULL)));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return names;
}

/*
 * What transactions have drawn that are still open lies before it, and is not handled; as
 * it would not be by one whose creation they do not know of.
 */
static void
create(const Projection *projection)
{
	create_feed(projection, projection->paused ? 0 : PositionOfNumber(PositionLastNumber()));
}

static void
create_feed(const Projection *projection, int64 position)
{
	text	   *feed = locked_feed(projection->name);
	const EventFilter *filter = &projection->filter;

	FeedCreate(feed, projection->owner.role,
			   text_array(projection->types, projection->ntypes, projection->all_types),
			   text_array(filter->tags, filter->ntags, filter->ntags == 0),
			   projection->per_stream, position);
	FeedWanted();
}

static NullableDatum
text_array(text *const *texts, int n, bool isnull)
{
	NullableDatum array = {.isnull = isnull};
	Datum	   *elements = palloc(Max(n, 1) * sizeof(Datum));
	int			i;

	for (i = 0; i < n; i++)
		elements[i] = PointerGetDatum(texts[i]);
	if (!isnull)
		array.value = PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
	return array;
}

static void
lock(const text *name)
{
	(void) locked_feed(text_to_cstring(name));
}

/* Lock the feed of a projection against whoever runs it, to the end of the transaction. */
static text *
locked_feed(const char *name)
{
	text	   *feed = FeedNameOf(cstring_to_text(name));

	SubscriptionBegin("an asynchronous projection");
	SubscriptionLock(feed, AccessExclusiveLock);
	return feed;
}

static void
drop(const text *name)
{
	FeedDrop(FeedNameOf(name));
}

static void
give(const text *name, Oid owner)
{
	FeedGive(FeedNameOf(name), owner);
}

/*-------------------------------------------------------------------------
 * other modes
 *-------------------------------------------------------------------------
 */

/* alter_projection(name, mode, per_stream) */
static void
alter(const text *name, NullableDatum mode, NullableDatum per_stream)
{
	LockedProjection locked;
	Projection *projection;
	bool		is_async;
	bool		by_stream;

	LockedProjectionRequireReadCommitted("alter_projection()");
	locked = LockedProjectionArg(name, "alter_projection()");
	projection = locked.projection;
	is_async = mode.isnull ? projection->is_async : ProjectionModeIsAsync(DatumGetTextPP(mode.value));
	by_stream = per_stream.isnull ? is_async && projection->per_stream : DatumGetBool(per_stream.value);
	ProjectionCheckOrder(is_async, by_stream);
	if (is_async && !projection->is_async)
		become_async(&locked, by_stream);
	else if (!is_async && projection->is_async)
		become_sync(&locked);
	else if (by_stream != projection->per_stream)
		change_order(&locked, by_stream);
}

static void
become_async(LockedProjection *locked, bool per_stream)
{
	Projection *projection = locked->projection;

	RegistryNameRequireRole(projection->owner.role, projection->owner.name, "owns the projection");
	if (projection->paused)
		lock_out_writers(projection);
	else
		LockedProjectionHoldStill(locked);
	projection->is_async = true;
	projection->per_stream = per_stream;
	create_feed(projection, start_behind(&locked->handled));
	LockedProjectionSave(locked);
}

/* One that is not paused handles here all that it has not yet. */
static void
become_sync(LockedProjection *locked)
{
	Projection *projection = locked->projection;
	Replay		replay = {.projection = projection,.memory = CurrentMemoryContext};
	text	   *feed = FeedNameOf(cstring_to_text(projection->name));

	hold_still(locked);
	refuse_failures(locked);
	FeedDrop(feed);
	projection->is_async = projection->per_stream = false;
	if (projection->paused)
	{
		lock_out_writers(projection);
		LockedProjectionSave(locked);
		return;
	}
	ProjectionRebuildGoLive(locked, &replay);
	ReplayReport(&replay);
}

/*
 * A paused one changes what writers lock: by its row as it was read, those who went by that
 * are waited for.
 */
static void
lock_out_writers(const Projection *projection)
{
	ReadModelsLock(projection->locks, projection->nlocks, projection->owner.role);
}

static void
change_order(LockedProjection *locked, bool per_stream)
{
	text	   *feed = FeedNameOf(cstring_to_text(locked->projection->name));

	hold_still(locked);
	refuse_failures(locked);
	FeedOrder(feed, per_stream);
	locked->projection->per_stream = per_stream;
	LockedProjectionSave(locked);
	if (!locked->projection->paused)
		go_on(locked);
}

/* What waits to be handled again would be lost: 55000. */
static void
refuse_failures(const LockedProjection *locked)
{
	text	   *feed = FeedNameOf(cstring_to_text(locked->projection->name));

	if (FeedHasFailures(feed))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" has events that failed and wait", locked->projection->name),
				 errdetail("Its streams behind them would never be handled."),
				 errhint("See subscription_parked_streams and subscription_dead_letters of \"%s\": redrive() or discard_dead_letter() them and let the projection run, or rebuild it.",
						 text_to_cstring(feed))));
}

/*-------------------------------------------------------------------------
 * standing still, and going on
 *-------------------------------------------------------------------------
 */

static void
hold_still(LockedProjection *locked)
{
	int64		position = FeedHoldStill(locked_feed(locked->projection->name));
	Coverage	handled = {.position = position};

	if (locked->projection->paused)
		return;
	CoverageGoOn(&handled, &locked->handled);
	locked->handled = handled;
}

static void
go_on(const LockedProjection *locked)
{
	FeedGoOn(FeedNameOf(cstring_to_text(locked->projection->name)), start_behind(&locked->handled));
}

static void
forget_failures(const LockedProjection *locked)
{
	FeedForgetFailures(FeedNameOf(cstring_to_text(locked->projection->name)));
}

static bool
has_stopped(const Projection *projection)
{
	Subscription *feed = SubscriptionFind(FeedNameOf(cstring_to_text(projection->name)));

	return feed && feed->paused;
}

/*
 * One that stands still, not paused, and whose handled events are in `locked`, goes on in a
 * mode: at work, with the events behind those; or live, where the caller has its lock
 * against writers, and all that is visible is handled.
 */
void
AsyncProjectionGoOn(LockedProjection *locked, bool is_async, bool per_stream)
{
	Projection *projection = locked->projection;
	bool		was_async = projection->is_async;
	text	   *feed = FeedNameOf(cstring_to_text(projection->name));

	if (was_async && !is_async)
		FeedDrop(feed);
	else if (was_async && projection->per_stream != per_stream)
		FeedOrder(feed, per_stream);
	projection->is_async = is_async;
	projection->per_stream = is_async && per_stream;
	if (is_async && was_async)
		go_on(locked);
	else if (is_async)
		create_feed(projection, start_behind(&locked->handled));
	LockedProjectionSave(locked);
}

/*
 * Where a feed begins: in front of the first event that may not be handled.  It is one
 * of this node's events, or the beginning of them.
 */
static int64
start_behind(const Coverage *handled)
{
	int64		position = CoverageFirstMissing(handled) - 1;

	return POSITION_NODE(position) == PositionNode() ? position : 0;
}
