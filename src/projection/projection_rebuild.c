/*-------------------------------------------------------------------------
 * projection_rebuild.c
 *	  Rebuild, pause and resume projections: replay of old events, exact with
 *	  writers at work.
 *
 * All three rest on the lock of a projection (projection.c): who holds it
 * against writers knows that each visible event has been told of, and that
 * each other one will be dealt with by the registry as it is left.
 *
 * rebuild	of a live projection: wait for those who may not know of the projection
 *	  or a handler yet; lock, empty the read models, replay all that is visible.
 *	  Writers whose events concern the projection wait for the end; others do
 *	  not, and readers see the old content until it is committed.
 * pause	: lock, remember which events have been handled, say so in the
 *	  registry.  From then on writers pass the projection by.
 * resume	: replay what was missed while writers still pass by; wait for those
 *	  who may not know of the projection or a handler yet, and replay what they
 *	  had; lock; replay the little that has come meanwhile; say in the registry
 *	  that it is live.  So writers are held up by the last step alone.
 *
 * Those who may not know yet are the open transactions that have appended
 * something.  When this transaction has itself written what nobody else can
 * know (it has created the projection or defined a handler), it locks the log
 * against all writers instead; so it is better done in two transactions.
 *
 * A rebuild of a paused projection needs no lock: it replays what is visible
 * and remembers that.  So pause, rebuild, resume is the way to rebuild while
 * writers go on; and a projection that is created to be filled from the log is
 * a paused one that has handled nothing.
 *
 * How it is remembered which events have been handled is in coverage.c.
 *
 * Handlers that append cannot be rebuilt, for what followed from old events is in
 * the log already; nor can tables whose triggers append, deferred ones among them
 * (dispatch.c).  A resume handles events for the first time, so there they
 * may; what they append is queued (dispatch.c), and told of when the projection
 * is live again.  It stays uncommitted until then, so writers of the same
 * streams wait for the resume, and a deadlock with one of them is possible.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/fixed_settings.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "base/text.h"
#include "log/dispatch.h"
#include "log/event_scan.h"
#include "log/horizon.h"
#include "log/position.h"
#include "projection/coverage.h"
#include "projection/handler.h"
#include "projection/projection.h"
#include "projection/projection_status.h"
#include "projection/read_model.h"

/* logs with fewer events than this are through before anybody asks */
#define EVENTS_WORTH_A_NOTICE	1000

/* A projection whose row in the registry is locked. */
typedef struct LockedProjection
{
	Projection *projection;
	Coverage	handled;		/* when it is paused */
	bool		written_here;	/* by this transaction: others see an older row */
	bool		unresolved;		/* others may have found less of what it names */
} LockedProjection;

PG_FUNCTION_INFO_V1(cqrs_es_rebuild_projection);
PG_FUNCTION_INFO_V1(cqrs_es_pause_projection);
PG_FUNCTION_INFO_V1(cqrs_es_resume_projection);

static LockedProjection projection_arg(FunctionCallInfo fcinfo, const char *function);
static bool lock_projection(LockedProjection *locked, const text *name);
static void require_read_committed(const char *function);
static void require_whole_log(const char *function);
static void wait_for_open_appends(const LockedProjection *locked);
static int64 replay(Projection *projection, Coverage *handled, bool rebuild);
static Coverage visible_events(void);
static void save_state(const Projection *projection, const Coverage *handled);
static int64 last_position(Snapshot snapshot);

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/* SQL: rebuild_projection(name); returns how many events it handled. */
Datum
cqrs_es_rebuild_projection(PG_FUNCTION_ARGS)
{
	LockedProjection locked;
	Projection *projection;
	Coverage	handled = {.position = 0};
	int64		events;

	require_read_committed("rebuild_projection()");
	locked = projection_arg(fcinfo, "rebuild_projection()");
	projection = locked.projection;
	if (projection->missing != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("read model %s of projection \"%s\" does not exist",
						(char *) linitial(projection->missing), projection->name),
				 errhint("Create it, or drop the projection.")));
	if (projection->nread_models == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("projection \"%s\" has no read models that could be rebuilt", projection->name),
				 errhint("Create it with read_models => '{...}', the tables it keeps.")));
	RegistryNameRequireRole(projection->owner.role, projection->owner.name, "owns the projection");
	ReadModelsRefuseShared(projection->name);
	if (!projection->paused)
	{
		wait_for_open_appends(&locked);
		ReadModelsLock(projection->locks, projection->nlocks, projection->owner.role);
	}
	DispatchForbid(true);		/* triggers of the tables must not append either */
	ReadModelsEmpty(projection->read_models, projection->nread_models, &projection->owner,
					projection->name);
	events = replay(projection, &handled, true);
	DispatchForbid(false);
	if (projection->paused)
		save_state(projection, &handled);
	ereport(NOTICE,
			(errmsg("projection \"%s\" has been rebuilt from %lld events",
					projection->name, (long long) events)));
	PG_RETURN_INT64(events);
}

/* SQL: pause_projection(name) */
Datum
cqrs_es_pause_projection(PG_FUNCTION_ARGS)
{
	LockedProjection locked = projection_arg(fcinfo, "pause_projection()");
	Projection *projection = locked.projection;
	Coverage	handled;

	if (projection->paused)
	{
		ereport(NOTICE,
				(errmsg("projection \"%s\" is paused already", projection->name)));
		PG_RETURN_VOID();
	}
	/* what is settled before the lock is a gap less to remember, and delays nobody */
	(void) HorizonSettled(HorizonDeadline());
	if (locked.unresolved)
		wait_for_open_appends(&locked);
	ReadModelsLock(projection->locks, projection->nlocks, projection->owner.role);
	handled = visible_events();
	save_state(projection, &handled);
	PG_RETURN_VOID();
}

/* SQL: resume_projection(name); returns how many missed events it handled. */
Datum
cqrs_es_resume_projection(PG_FUNCTION_ARGS)
{
	LockedProjection locked;
	Projection *projection;
	int64		events;
	bool		held;

	require_read_committed("resume_projection()");
	locked = projection_arg(fcinfo, "resume_projection()");
	projection = locked.projection;
	if (!projection->paused)
	{
		ereport(NOTICE,
				(errmsg("projection \"%s\" is not paused", projection->name)));
		PG_RETURN_INT64(0);
	}
	held = DispatchHold();		/* what its handlers append is for later */
	events = replay(projection, &locked.handled, false);
	wait_for_open_appends(&locked);
	/* what those had appended, so that the last replay looks at the end of the log alone */
	events += replay(projection, &locked.handled, false);
	ReadModelsLock(projection->locks, projection->nlocks, projection->owner.role);
	events += replay(projection, &locked.handled, false);
	save_state(projection, NULL);
	DispatchRelease(held);		/* ... when it is told of it itself */
	ereport(NOTICE,
			(errmsg("projection \"%s\" has caught up with %lld events",
					projection->name, (long long) events)));
	PG_RETURN_INT64(events);
}

/*-------------------------------------------------------------------------
 * the projection
 *-------------------------------------------------------------------------
 */

/*
 * The projection that the argument names, which must be the caller's own.  Its
 * row is locked, so that only one does such a thing to it at a time.  In the current
 * memory context.
 */
static LockedProjection
projection_arg(FunctionCallInfo fcinfo, const char *function)
{
	static InternalQuery resolve = {
		.sql = "UPDATE cqrs_es.projections SET name = name WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	text	   *name = TextArgument(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	LockedProjection locked = {0};
	bool		resolved;

	PreventCommandIfReadOnly(function);
	if (DispatchIsBusy())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot be called by a handler", function)));

	resolved = lock_projection(&locked, name);
	require_whole_log(function);
	if (!resolved)
	{
		Datum		value = PointerGetDatum(name);

		/* what was missing is there now: the row trigger finds it */
		(void) RegistryWrite(&resolve, &value, NULL);
		(void) lock_projection(&locked, name);
		locked.unresolved = true;
	}
	return locked;
}

/*
 * Lock and read the row of a projection, all of it at once; false when it names a
 * read model that it does not know by oid yet.  Raises 42704, 42501.
 */
static bool
lock_projection(LockedProjection *locked, const text *name)
{
	static InternalQuery query = {
		.sql = "SELECT " PROJECTION_COLUMNS ", p.xmin::pg_catalog.text::pg_catalog.int8 AS written_by,"
		" coalesce(p.read_model_names IS NULL OR " REGISTRY_READ_MODELS
		" OPERATOR(pg_catalog.=) p.read_models::pg_catalog.regclass[], false) AS resolved,"
		" " COVERAGE_COLUMNS
		" FROM cqrs_es.projections AS p WHERE p.name OPERATOR(pg_catalog.=) $1 FOR UPDATE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext spi;
	QueryRow	row;
	bool		resolved;

	SPI_connect();
	ProjectionLockRow(&query, name);
	row = InternalQueryRow(0);
	spi = MemoryContextSwitchTo(caller);
	locked->projection = ProjectionMake(&row, caller);
	CoverageOfRow(&locked->handled, &row);
	locked->written_here = TransactionIdIsCurrentTransactionId((TransactionId)
															   DatumGetInt64(InternalQueryDatum(&row, "written_by", NULL)));
	resolved = DatumGetBool(InternalQueryDatum(&row, "resolved", NULL));
	MemoryContextSwitchTo(spi);
	SPI_finish();
	return resolved;
}

/*
 * What was handled is told from what is seen, so the whole log must be: 42501 for
 * one who may not read it, or whom row security would show a part.
 */
static void
require_whole_log(const char *function)
{
	EventsRequireRights(ACL_SELECT);
	if (EventsRowSecurity())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s needs to see all events", function),
				 errdetail("Row security of table \"%s\" may hide some of them.", "events")));
}

/* A replay must see what is committed now, not when its transaction began. */
static void
require_read_committed(const char *function)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s needs READ COMMITTED", function)));
}

/*
 * Wait for writers who may not know of the projection as it is in the registry.
 * Those who come later do, or are locked out until we commit.
 */
static void
wait_for_open_appends(const LockedProjection *locked)
{
	if (locked->written_here)
		LockRelationOid(EventsTableGet().relid, ShareLock);
	else
		HorizonAwaitWriters();
}

/*-------------------------------------------------------------------------
 * replay
 *-------------------------------------------------------------------------
 */

/*
 * Handle every visible event that is not among the handled ones, nor queued, in
 * the order of positions, and make *handled what is visible.  Returns how many
 * concerned the projection.
 */
static int64
replay(Projection *projection, Coverage *handled, bool rebuild)
{
	int64		settled = HorizonSettled(0);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		after = CoverageFirstMissing(handled) - 1;
	int64		last = last_position(snapshot);
	EventScan  *scan = EventScanLog(after, ForwardScanDirection, snapshot);
	Coverage	visible = {.position = after};
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es replay",
											   ALLOCSET_DEFAULT_SIZES);
	int			cursor = 0;
	int			quarter = 1;
	int64		seen = 0;
	int64		concerned = 0;
	int			guc_level = 0;
	Event		event;

	FixedSettingsSet(&guc_level);	/* once for all that runs in it */
	while (EventScanNext(scan, &event))
	{
		int64		position = EventGlobalPosition(&event);
		MemoryContext caller;

		CHECK_FOR_INTERRUPTS();
		CoverageAdd(&visible, position, settled);
		caller = MemoryContextSwitchTo(work);
		if (!CoverageHas(handled, position, &cursor) && !DispatchIsQueued(position))
		{
			seen++;
			concerned += HandlerReplay(projection, &event);
		}
		ProjectionStatusProgress(projection, last, rebuild, seen, position);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(work);
		if (seen >= EVENTS_WORTH_A_NOTICE && quarter < 4 &&
			position - after >= (last - after) / 4 * quarter)
			ereport(NOTICE,
					(errmsg("projection \"%s\": %d %% of the log, %lld events so far",
							projection->name, 25 * quarter++, (long long) seen)));
	}
	FixedSettingsRestore(guc_level);
	ProjectionStatusProgressEnd();
	EventScanEnd(scan);
	UnregisterSnapshot(snapshot);
	MemoryContextDelete(work);
	visible.position = Max(visible.position, handled->position);
	*handled = visible;
	return concerned;
}

/*
 * All events that are visible now.  Looks with the newest snapshot in every
 * isolation level, for that is what has been told of when the lock is held.
 */
static Coverage
visible_events(void)
{
	int64		settled = HorizonSettled(0);
	Coverage	visible = {.position = settled};
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	EventScan  *scan = EventScanLog(settled, ForwardScanDirection, snapshot);
	Event		event;

	while (EventScanNext(scan, &event))
		CoverageAdd(&visible, EventGlobalPosition(&event), settled);
	EventScanEnd(scan);
	UnregisterSnapshot(snapshot);
	return visible;
}

/* Paused, with what has been handled; or live again, when that is NULL. */
static void
save_state(const Projection *projection, const Coverage *handled)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.projections SET paused = $2 IS NOT NULL,"
		" handled_position = $2, handled_gaps = $3::pg_catalog.int8multirange"
		" WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 3,.argtypes = {TEXTOID, INT8OID, TEXTOID}
	};
	Datum		values[3] = {CStringGetTextDatum(projection->name)};
	char		nulls[3] = {' ', handled ? ' ' : 'n', handled && handled->ngaps > 0 ? ' ' : 'n'};

	if (handled)
	{
		values[1] = Int64GetDatum(handled->position);
		values[2] = CStringGetTextDatum(CoverageGaps(handled));
	}
	(void) RegistryWrite(&query, values, nulls);
}

static int64
last_position(Snapshot snapshot)
{
	EventScan  *scan = EventScanLog(PG_INT64_MAX, BackwardScanDirection, snapshot);
	Event		event;
	int64		position = 0;

	if (EventScanNext(scan, &event))
		position = EventGlobalPosition(&event);
	EventScanEnd(scan);
	return position;
}
