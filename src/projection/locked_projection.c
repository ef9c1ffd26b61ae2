/*-------------------------------------------------------------------------
 * locked_projection.c
 *	  A projection whose row in the registry is locked: what it has handled, and how
 *	  that is changed.
 *
 * Whoever rebuilds, pauses or resumes a projection, or changes how it follows the log,
 * has its row locked, so there is one at a time, and looks and writes here.
 * The lock against writers is another one (projection.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/internal_query.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "log/dispatch.h"
#include "log/events.h"
#include "log/event_scan.h"
#include "log/horizon.h"
#include "projection/locked_projection.h"
#include "projection/read_model.h"

static bool lock_projection(LockedProjection *locked, const text *name);
static void require_whole_log(const char *function);

/*
 * The projection that an argument names, which must be the caller's own.  Its
 * row is locked, so that only one does such a thing to it at a time.  In the current
 * memory context.
 */
LockedProjection
LockedProjectionArg(const text *name, const char *function)
{
	static InternalQuery resolve = {
		.sql = "UPDATE cqrs_es.projections SET name = name WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	LockedProjection locked = {0};
	bool		resolved;

	PreventCommandIfReadOnly(function);
	EventsRefuseDistributed(function);
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
		" " COVERAGE_COLUMNS ", coalesce(p.rebuilt_to, 0) AS rebuilt_to,"
		" coalesce(p.rebuilt_tags, 0) AS rebuilt_tags, p.live_after"
		" FROM cqrs_es.projections AS p WHERE p.name OPERATOR(pg_catalog.=) $1 FOR UPDATE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext spi;
	QueryRow	row;
	bool		resolved;

	SPI_connect();
	(void) ProjectionLockRow(&query, name, false);
	row = InternalQueryRow(0);
	spi = MemoryContextSwitchTo(caller);
	locked->projection = ProjectionMake(&row, caller);
	CoverageOfRow(&locked->handled, &row);
	locked->rebuilt_to = DatumGetInt64(InternalQueryDatum(&row, "rebuilt_to", NULL));
	locked->rebuilt_tags = (uint64) DatumGetInt64(InternalQueryDatum(&row, "rebuilt_tags", NULL));
	locked->live_after = DatumGetBool(InternalQueryDatum(&row, "live_after", NULL));
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
void
LockedProjectionRequireReadCommitted(const char *function)
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
void
LockedProjectionAwaitAppends(const LockedProjection *locked)
{
	if (locked->written_here)
		(void) EventsLock(ShareLock);
	else
		HorizonAwaitWriters();
}

/*-------------------------------------------------------------------------
 * what has been handled
 *-------------------------------------------------------------------------
 */

/*
 * Of a live projection that handles events as they are appended: lock it against
 * writers, to the end of the transaction, and find out what it has handled, which is
 * all that is visible.  Waits for those who have appended what concerns it.
 */
void
LockedProjectionHoldStill(LockedProjection *locked)
{
	Projection *projection = locked->projection;

	/* what is settled before the lock is a gap less to remember, and delays nobody */
	(void) HorizonSettled(HorizonDeadline());
	if (locked->unresolved)
		LockedProjectionAwaitAppends(locked);
	ReadModelsLock(projection->locks, projection->nlocks, projection->owner.role);
	LockedProjectionHandlesVisible(locked);
}

/*
 * What is handled is all that is visible now.  Looks with the newest snapshot in every
 * isolation level, for that is what has been told of when the lock is held.
 */
void
LockedProjectionHandlesVisible(LockedProjection *locked)
{
	Coverage   *visible = &locked->handled;
	int64		settled = HorizonSettled(0);
	LogSnapshot snapshot = EventsSnapshotTake(true);
	EventScan  *scan = EventScanLog(settled, ForwardScanDirection, snapshot.snapshot);
	Event		event;

	*visible = (Coverage)
	{
		.position = settled
	};
	while (EventScanNext(scan, &event))
		CoverageAdd(visible, EventGlobalPosition(&event), settled);
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
}

/*
 * What EventFilterAsk returned when the rebuild began of which it lacks the rest; 0 when it
 * lacks nothing of that, or has no tags.
 */
uint64
LockedProjectionRebuiltTags(const LockedProjection *locked)
{
	return CoverageFirstMissing(&locked->handled) <= locked->rebuilt_to ? locked->rebuilt_tags : 0;
}

/*
 * Write how it is now: its mode, whether it is paused, what it has handled, and the rebuild
 * that is not at its end.  One that handles events as they are appended, and is not
 * paused, has handled all.
 */
void
LockedProjectionSave(const LockedProjection *locked)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.projections SET paused = $2, handled_position = $3,"
		" handled_gaps = $4::pg_catalog.int8multirange, rebuilt_to = $5, live_after = $6,"
		" mode = $7, per_stream = $8, rebuilt_tags = $9 WHERE name OPERATOR(pg_catalog.=) $1",
		.nargs = 9,.argtypes = {TEXTOID, BOOLOID, INT8OID, TEXTOID, INT8OID, BOOLOID, TEXTOID, BOOLOID, INT8OID}
	};
	const Projection *projection = locked->projection;
	bool		has_handled = ProjectionIsPassedBy(projection);
	bool		is_rebuilt = locked->rebuilt_to > 0;
	Datum		values[9] = {CStringGetTextDatum(projection->name), BoolGetDatum(projection->paused),
		Int64GetDatum(locked->handled.position), (Datum) 0, Int64GetDatum(locked->rebuilt_to),
		BoolGetDatum(locked->live_after), CStringGetTextDatum(projection->is_async ? "async" : "sync"),
		BoolGetDatum(projection->per_stream), Int64GetDatum((int64) locked->rebuilt_tags)};
	char		nulls[9] = {' ', ' ', has_handled ? ' ' : 'n',
		has_handled && locked->handled.ngaps > 0 ? ' ' : 'n',
		is_rebuilt ? ' ' : 'n', ' ', ' ', ' ', is_rebuilt && locked->rebuilt_tags != 0 ? ' ' : 'n'};

	if (nulls[3] == ' ')
		values[3] = CStringGetTextDatum(CoverageGaps(&locked->handled));
	(void) RegistryWrite(&query, values, nulls);
}
