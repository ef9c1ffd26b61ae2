/*-------------------------------------------------------------------------
 * promotion.c
 *	  A projection takes the place of another: readers, who read views, have the new
 *	  tables instead of the old ones, from one moment on.
 *
 * A table of a new shape, or of better handlers, is filled beside the one in use, for as long
 * as that takes, in whatever way; nobody reads it.  Then, in one transaction:
 *
 *	1	Both projections are locked, so that nobody changes, drops or rebuilds them, and
 *		the views are looked at: could they read the new tables?
 *	2	The new one catches up with the log (as resume_projection does), while everybody works.
 *	3	The views are locked against readers, and what writers lock of both, against these.
 *	4	The new one handles the last bit, and goes on in the mode of the old one.  That is
 *		paused, with what it has handled, so that it can take over again.
 *	5	The views are replaced (view_source.c).
 *
 * An error, a cancel, a crash: nothing has happened, for it is one transaction.  Who reads
 * a view either locks it before step 3, and sees the old tables, or waits for the end and sees
 * the new ones.
 *
 * The locks of step 3.  Whoever appends and then reads the view in one transaction has them
 * in one order, whoever reads and then appends in the other; so there is no order without
 * deadlocks.  Therefore no wait for one of them may be long: they are taken in a
 * subtransaction with a lock_timeout that is below that of the deadlock detector; when
 * one is not to be had, all of them are given back, those who queue behind us go through,
 * and we try again in the other order, for ten seconds (or lock_timeout).  So it is always
 * the promotion that gives way.  Short attempts come before long ones: where transactions of
 * both kinds are at work all the time, it takes a moment when none is between the two, and
 * the more often we ask, the sooner it comes; where one is long, it takes a long attempt.
 * All tables are locked in the order of their oids, as an event locks them that concerns
 * both.  An asynchronous projection that stays one needs no such lock, and must not have it,
 * for all of these have the same: what it has handled is known, whoever appends meanwhile.
 *
 * Old snapshots.  A transaction in REPEATABLE READ finds the new view with its old
 * snapshot: the new table as it was then.  Of a projection that was live by then that is
 * right; so we wait for all snapshots that are older than that.  One that catches up here had
 * not handled everything by then, and is seen so; docs/projections.md says it.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "base/subtransaction.h"
#include "base/text.h"
#include "log/dispatch.h"
#include "log/horizon.h"
#include "projection/locked_projection.h"
#include "projection/projection.h"
#include "projection/read_model.h"
#include "projection/replay.h"
#include "async/async_projection.h"
#include "async/view_source.h"

/* how long we try, unless lock_timeout is set */
#define PATIENCE_MS			10000
/* how long one lock may be waited for, in a round of attempts */
static const int attempts_ms[] = {10, 10, 20, 20, 50, 50, 100, 100, 200, 200, 400, 400};

/* and how long others have the way between two attempts, at most */
#define PAUSE_MS			40

typedef struct Promotion
{
	LockedProjection promoted;
	LockedProjection replaced;
	int			nsources;
	ViewSource *sources;		/* of the tables of the one, those of the other */
	int			nviews;
	Oid		   *views;			/* in the order of their oids */
	bool		to_async;		/* the mode that it goes on in */
	TimestampTz deadline;
} Promotion;

PG_FUNCTION_INFO_V1(cqrs_es_promote_projection);

static void lock_projections(Promotion *promotion, const text *name, const text *replaces);
static Oid *declared_tables(const char *projection, int *n);
static void pair_tables(Promotion *promotion);
static void set_views(Promotion *promotion, NullableDatum arg);
static void check_views(const Promotion *promotion);
static void catch_up(Promotion *promotion, Replay *replay);
static void run(const Promotion *promotion, Replay *replay, LockedProjection *locked);
static void wait_for_old_snapshots(const Promotion *promotion);
static VirtualTransactionId *old_snapshots(TransactionId version, int *n);
static int	still_there(TransactionId version, VirtualTransactionId *waited_for, int n);
static TransactionId row_version(const char *projection);
static void lock_all(const Promotion *promotion);
static ErrorData *try_locks(const Promotion *promotion, int attempt);
static void lock_views(const Promotion *promotion);
static void lock_tables(const Promotion *promotion);
static void give_way(const Promotion *promotion);
static void take_over(Promotion *promotion, Replay *replay);
static void pause_replaced(LockedProjection *replaced);
static void warn_of_skipped(const char *projection);
static void warn_of_other_readers(const Promotion *promotion);

/*
 * SQL: promote_projection(name, replaces, views).  Raises 42704, 42501, 22023, 25001, 55000,
 * 55P03 when the locks are not to be had in time, QE201 when an event fails, and what
 * ViewSourceReplace does.
 */
Datum
cqrs_es_promote_projection(PG_FUNCTION_ARGS)
{
	text	   *name = TextArgument(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	text	   *replaces = TextArgument(fcinfo->args[1], "replaces", PROJECTION_NAME_MAX_BYTES);
	Promotion	promotion = {0};
	Replay		replay = {.memory = CurrentMemoryContext};
	bool		held;
	int			i;

	ReadOnlyPrevent(fcinfo);
	LockedProjectionRequireReadCommitted("promote_projection()");
	lock_projections(&promotion, name, replaces);
	pair_tables(&promotion);
	set_views(&promotion, fcinfo->args[2]);
	check_views(&promotion);

	promotion.to_async = promotion.replaced.projection->is_async;
	/* what its handlers append is for later, but for who will find it in the log */
	held = promotion.to_async ? false : DispatchHold();
	catch_up(&promotion, &replay);
	/* it has just found tables that came behind it: others append without them */
	if (promotion.replaced.unresolved)
		LockedProjectionAwaitAppends(&promotion.replaced);
	/* what is settled before the locks is a gap less to remember, and delays nobody */
	(void) HorizonSettled(HorizonDeadline());
	promotion.deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 LockTimeout > 0 ? LockTimeout : PATIENCE_MS);
	wait_for_old_snapshots(&promotion);
	if (promotion.replaced.projection->is_async)
		ProjectionAsyncPart->hold_still(&promotion.replaced);
	lock_all(&promotion);
	take_over(&promotion, &replay);
	if (!promotion.to_async)
		DispatchRelease(held);
	pause_replaced(&promotion.replaced);
	for (i = 0; i < promotion.nviews; i++)
		ViewSourceReplace(promotion.views[i], promotion.sources, promotion.nsources);
	warn_of_skipped(promotion.promoted.projection->name);
	warn_of_other_readers(&promotion);
	PG_RETURN_VOID();
}

/*-------------------------------------------------------------------------
 * what is to be promoted
 *-------------------------------------------------------------------------
 */

/* Both rows, in the order of their names. */
static void
lock_projections(Promotion *promotion, const text *name, const text *replaces)
{
	char	   *promoted = text_to_cstring(name);
	char	   *replaced = text_to_cstring(replaces);
	int			order = strcmp(promoted, replaced);

	if (order == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("projection \"%s\" cannot replace itself", promoted)));
	if (order > 0)
		promotion->replaced = LockedProjectionArg(replaces, "promote_projection()");
	promotion->promoted = LockedProjectionArg(name, "promote_projection()");
	if (order < 0)
		promotion->replaced = LockedProjectionArg(replaces, "promote_projection()");
}

/*
 * Which table is read instead of which: they stand for each other as they were
 * declared, not in the order of their oids.
 */
static void
pair_tables(Promotion *promotion)
{
	int			nnew;
	Oid		   *new_tables = declared_tables(promotion->promoted.projection->name, &nnew);
	int			nold;
	Oid		   *old_tables = declared_tables(promotion->replaced.projection->name, &nold);
	int			i;

	promotion->sources = palloc(Max(nold, 1) * sizeof(ViewSource));
	for (i = 0; i < nold; i++)
	{
		Oid			instead = i < nnew ? new_tables[i] : InvalidOid;

		/* one that is gone although it was protected, or that both keep */
		if (!OidIsValid(old_tables[i]) || old_tables[i] == instead)
			continue;
		promotion->sources[promotion->nsources].table = old_tables[i];
		promotion->sources[promotion->nsources++].instead = instead;
	}
}

/* The read models of a projection as they were declared, 0 for what is missing; palloc'd. */
static Oid *
declared_tables(const char *projection, int *n)
{
	static InternalQuery query = {
		.sql = "SELECT " REGISTRY_READ_MODELS " AS read_models FROM cqrs_es.projections AS p"
		" WHERE p.name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	MemoryContext caller = CurrentMemoryContext;
	Datum		value = CStringGetTextDatum(projection);
	Oid		   *tables = NULL;

	*n = 0;
	SPI_connect();
	if (RegistryRead(&query, &value) > 0)
	{
		QueryRow	row = InternalQueryRow(0);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		tables = ReadModelOids(DatumGetArrayTypeP(InternalQueryDatum(&row, "read_models", NULL)), n);
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return tables;
}

/* Each view once, in the order of their oids: 2202E, 22004. */
static void
set_views(Promotion *promotion, NullableDatum arg)
{
	ArrayType  *array;
	int			n;
	int			i;

	if (arg.isnull)
		return;
	array = DatumGetArrayTypeP(arg.value);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("views must be a one-dimensional array")));
	if (array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("views must not contain nulls")));
	promotion->views = ReadModelOids(array, &n);
	qsort(promotion->views, n, sizeof(Oid), oid_cmp);
	for (i = 0; i < n; i++)
		if (i == 0 || promotion->views[i] != promotion->views[i - 1])
			promotion->views[promotion->nviews++] = promotion->views[i];
}

/*
 * Before anything takes long: can the views be replaced?  In a subtransaction that is
 * undone, so that no lock is held that would be a stronger one later.
 */
static void
check_views(const Promotion *promotion)
{
	ErrorData  *volatile error = NULL;
	Subtransaction subtransaction;
	int			i;

	if (promotion->nviews == 0)
		return;
	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		for (i = 0; i < promotion->nviews; i++)
			ViewSourceCheck(promotion->views[i], promotion->sources, promotion->nsources);
		SubtransactionEnd(&subtransaction, false);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();
	if (error)
		ReThrowError(error);
}

/*-------------------------------------------------------------------------
 * catching up
 *-------------------------------------------------------------------------
 */

/* Handle what it lacks, while everybody works; afterwards there is little left to do. */
static void
catch_up(Promotion *promotion, Replay *replay)
{
	LockedProjection *promoted = &promotion->promoted;

	if (promoted->projection->is_async)
	{
		ProjectionAsyncPart->hold_still(promoted);
		ProjectionAsyncPart->refuse_failures(promoted);
	}
	if (!ProjectionIsPassedBy(promoted->projection))
		return;
	replay->projection = promoted->projection;
	replay->old_to = promoted->rebuilt_to;
	replay->tags = LockedProjectionRebuiltTags(promoted);
	run(promotion, replay, promoted);
	replay->old_to = 0;			/* all that a rebuild was to replay has been */
	LockedProjectionAwaitAppends(promoted);
	run(promotion, replay, promoted);
}

static void
run(const Promotion *promotion, Replay *replay, LockedProjection *locked)
{
	bool		held = promotion->to_async ? DispatchHold() : false;

	(void) ReplayRun(replay, &locked->handled, 0);
	if (promotion->to_async)
		DispatchRelease(held);
}

/*
 * Wait until no snapshot in this database is older than the row of a projection that is
 * live: 55P03.  One that was made live in this transaction has no others to wait for.
 *
 * What is to be seen of a snapshot is the oldest transaction that was open when it was
 * taken, so newer ones may look as old.  Therefore only those are waited for that are there
 * now: who comes later is newer in any case.
 */
static void
wait_for_old_snapshots(const Promotion *promotion)
{
	const Projection *projection = promotion->promoted.projection;
	TransactionId version = row_version(projection->name);
	VirtualTransactionId *waited_for;
	int			n;

	if (ProjectionIsPassedBy(projection) || promotion->nviews == 0 ||
		!TransactionIdIsNormal(version) || TransactionIdIsCurrentTransactionId(version))
		return;
	waited_for = old_snapshots(version, &n);
	while ((n = still_there(version, waited_for, n)) > 0)
	{
		if (GetCurrentTimestamp() >= promotion->deadline)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("transactions may be older than projection \"%s\" as it is now", projection->name),
					 errdetail("There are %d; they would find its tables as they were before it was live.", n),
					 errhint("Try again when they have ended (backend_xmin in pg_stat_activity), or SET lock_timeout to wait longer.")));
		give_way(promotion);
	}
}

/* Whose snapshots may not see what a transaction has written; palloc'd. */
static VirtualTransactionId *
old_snapshots(TransactionId version, int *n)
{
	return GetCurrentVirtualXIDs(version, true, false,
								 PROC_IS_AUTOVACUUM | PROC_IN_VACUUM | PROC_IN_SAFE_IC, n);
}

/* Those of n that are so still, moved to the front; returns how many. */
static int
still_there(TransactionId version, VirtualTransactionId *waited_for, int n)
{
	int			nnow;
	VirtualTransactionId *now = old_snapshots(version, &nnow);
	int			kept = 0;
	int			i;
	int			j;

	for (i = 0; i < n; i++)
		for (j = 0; j < nnow; j++)
			if (VirtualTransactionIdEquals(waited_for[i], now[j]))
			{
				waited_for[kept++] = waited_for[i];
				break;
			}
	pfree(now);
	return kept;
}

/* The transaction that has written the row of a projection. */
static TransactionId
row_version(const char *projection)
{
	static InternalQuery query = {
		.sql = "SELECT p.xmin::pg_catalog.text::pg_catalog.int8 AS version FROM cqrs_es.projections AS p"
		" WHERE p.name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = CStringGetTextDatum(projection);
	TransactionId version = InvalidTransactionId;

	SPI_connect();
	if (RegistryRead(&query, &value) > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		version = (TransactionId) DatumGetInt64(InternalQueryDatum(&row, "version", NULL));
	}
	SPI_finish();
	return version;
}

/*-------------------------------------------------------------------------
 * the locks
 *-------------------------------------------------------------------------
 */

/* The views against readers, and what writers lock of both projections, against them: 55P03. */
static void
lock_all(const Promotion *promotion)
{
	ErrorData  *error;
	int			attempt = 0;

	while ((error = try_locks(promotion, attempt++)) != NULL)
	{
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
			error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
			ReThrowError(error);
		if (GetCurrentTimestamp() >= promotion->deadline)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("the views and tables of projections \"%s\" and \"%s\" could not be locked in time",
							promotion->promoted.projection->name, promotion->replaced.projection->name),
					 errdetail("Somebody who reads or writes them is in a long transaction."),
					 errhint("Try again later, or SET lock_timeout to try longer; pg_blocking_pids() tells who it is.")));
		FreeErrorData(error);
		give_way(promotion);
	}
}

/* One attempt: all of them, or none and the error. */
static ErrorData *
try_locks(const Promotion *promotion, int attempt)
{
	ErrorData  *volatile error = NULL;
	Subtransaction subtransaction;
	char		timeout[32];
	int			guc_level;

	snprintf(timeout, sizeof(timeout), "%d",
			 Max(1, Min(attempts_ms[attempt % lengthof(attempts_ms)], DeadlockTimeout / 2)));
	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		guc_level = NewGUCNestLevel();
		(void) set_config_option("lock_timeout", timeout, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		if (attempt % 2 == 0)
			lock_views(promotion);
		lock_tables(promotion);
		if (attempt % 2 != 0)
			lock_views(promotion);
		AtEOXact_GUC(true, guc_level);
		SubtransactionEnd(&subtransaction, true);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();
	return error;
}

static void
lock_views(const Promotion *promotion)
{
	int			i;

	for (i = 0; i < promotion->nviews; i++)
		LockRelationOid(promotion->views[i], AccessExclusiveLock);
}

/*
 * Those of both projections, in the order of their oids, each with the rights of its owner;
 * but not of one that appends pass by, now and then.
 */
static void
lock_tables(const Promotion *promotion)
{
	const Projection *one = promotion->promoted.projection;
	const Projection *other = promotion->replaced.projection;
	int			n = one->is_async && promotion->to_async ? 0 : one->nlocks;
	int			nother = other->is_async ? 0 : other->nlocks;
	int			i = 0;
	int			j = 0;

	while (i < n || j < nother)
	{
		if (j == nother || (i < n && one->locks[i] <= other->locks[j]))
			ReadModelsLock(&one->locks[i++], 1, one->owner.role);
		else
			ReadModelsLock(&other->locks[j++], 1, other->owner.role);
	}
}

/* Let those go through who wait for us; not in step with anybody. */
static void
give_way(const Promotion *promotion)
{
	static uint32 wait_event = 0;

	CHECK_FOR_INTERRUPTS();
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 1 + random() % PAUSE_MS,
					 compat_wait_event(&wait_event, "CqrsEsPromotion"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*-------------------------------------------------------------------------
 * the change
 *-------------------------------------------------------------------------
 */

/* The new one handles the last bit, and goes on in the mode of the old one. */
static void
take_over(Promotion *promotion, Replay *replay)
{
	LockedProjection *promoted = &promotion->promoted;

	if (ProjectionIsPassedBy(promoted->projection))
		run(promotion, replay, promoted);
	else if (promotion->to_async)
		LockedProjectionHandlesVisible(promoted);
	else
		return;
	promoted->projection->paused = promoted->live_after = false;
	promoted->rebuilt_to = 0;
	AsyncProjectionGoOn(promoted, promotion->to_async, promotion->replaced.projection->per_stream);
}

/* With what it has handled, so that it can be resumed, or promoted in its turn. */
static void
pause_replaced(LockedProjection *replaced)
{
	Projection *projection = replaced->projection;

	if (projection->paused)
		return;
	if (!projection->is_async)
		LockedProjectionHandlesVisible(replaced);
	projection->paused = true;
	LockedProjectionSave(replaced);
	ereport(NOTICE,
			(errmsg("projection \"%s\" is paused", projection->name),
			 errhint("When nothing reads its tables any more, drop it with SELECT cqrs_es.drop_projection(%s), and then them.",
					 quote_literal_cstr(projection->name))));
}

/* WARNING when readers lack something from now on. */
static void
warn_of_skipped(const char *projection)
{
	static InternalQuery query = {
		.sql = "SELECT pg_catalog.count(*) AS skipped FROM cqrs_es.skipped_events"
		" WHERE projection OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = CStringGetTextDatum(projection);
	int64		skipped = 0;

	SPI_connect();
	if (RegistryRead(&query, &value) > 0)
	{
		QueryRow	row = InternalQueryRow(0);

		skipped = DatumGetInt64(InternalQueryDatum(&row, "skipped", NULL));
	}
	SPI_finish();
	if (skipped > 0)
		ereport(WARNING,
				(errmsg_plural("projection \"%s\" has skipped %lld event",
							   "projection \"%s\" has skipped %lld events",
							   (unsigned long) skipped, projection, (long long) skipped),
				 errhint("See cqrs_es.skipped_events; retry_skipped() handles them later.")));
}

/* WARNING of views that read the old tables still, which nothing changes from now on. */
static void
warn_of_other_readers(const Promotion *promotion)
{
	List	   *readers = ViewSourceReaders(promotion->sources, promotion->nsources);
	StringInfoData names;
	ListCell   *lc;

	if (readers == NIL)
		return;
	initStringInfo(&names);
	foreach(lc, readers)
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", (char *) lfirst(lc));
	ereport(WARNING,
			(errmsg("tables of projection \"%s\" are still read by other views",
					promotion->replaced.projection->name),
			 errdetail_internal("%s", names.data),
			 errhint("They show what was there at the promotion. Give them in views, too.")));
}
