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
 * In portions: what one transaction makes of a row and replaces again stays, for
 * everybody, to its end, and each update has to get past all of it, so that many
 * events for few rows take the square of their number.  Nothing within one transaction
 * helps.  A rebuild in portions therefore pauses the projection and empties its tables, and
 * commits; it is then one that has handled nothing.  Each portion locks the row, handles
 * some of what is lacking, remembers that, and commits; the end is a resume.  Whoever
 * dies on the way, or two who do so at once, leave a paused projection that says
 * what it has handled.  Its row says also up to where events are old (rebuilt_to), so that
 * nothing is appended for them when somebody else resumes it; and whether it was live
 * before (live_after), so that it is live again after whatever rebuild comes to an end,
 * unless somebody pauses it meanwhile.  And where the projection is for events with tags, how
 * these were defined (rebuilt_tags): when they are defined otherwise between two portions, retag may give
 * them to events that are passed, so such a rebuild does not come to an end.
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

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/deferred_constraint.h"
#include "base/extension.h"
#include "base/fixed_settings.h"
#include "base/internal_query.h"
#include "base/portion.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "base/text.h"
#include "log/dispatch.h"
#include "log/event_scan.h"
#include "log/horizon.h"
#include "log/position.h"
#include "projection/coverage.h"
#include "projection/handler.h"
#include "projection/locked_projection.h"
#include "projection/missed_redaction.h"
#include "projection/projection.h"
#include "projection/projection_rebuild.h"
#include "projection/projection_status.h"
#include "projection/read_model.h"
#include "projection/replay.h"
#include "projection/skipped_event.h"

/* What an error of a replay in portions can tell of it. */
typedef struct Portions
{
	const char *name;
	int64		rebuilt_to;		/* of the rebuild that has begun; 0: it is a resume */
	bool		there;			/* the projection is locked, and in the state that we
								 * left it in */
} Portions;

PG_FUNCTION_INFO_V1(cqrs_es_rebuild_projection);
PG_FUNCTION_INFO_V1(cqrs_es_pause_projection);
PG_FUNCTION_INFO_V1(cqrs_es_resume_projection);
PG_FUNCTION_INFO_V1(cqrs_es_retry_skipped);
PG_FUNCTION_INFO_V1(cqrs_es_rebuild_in_portions);
PG_FUNCTION_INFO_V1(cqrs_es_resume_in_portions);

static text *name_arg(FunctionCallInfo fcinfo);
static void require_rebuildable(const Projection *projection);
static void empty(LockedProjection *locked);
static void follow_again(LockedProjection *locked, Replay *replay);
static void report_live(const Projection *projection);
static bool has_stopped(const Projection *projection);
static void refuse_other_tags(Replay *replay, const LockedProjection *locked);
static void begin_replay(Replay *replay, const LockedProjection *locked);
static bool skip_arg(NullableDatum arg);
static void replay_in_portions(FunctionCallInfo fcinfo, bool rebuild, const char *function);
static bool goes_live(const LockedProjection *locked);
static int64 begin_rebuild(const text *name, const Replay *replay, const char *function);
static bool handle_portion(const text *name, Replay *replay, int32 portion, const char *function,
						   Portions *portions, bool *goes_live);
static void note_portions(Portions *portions, const LockedProjection *locked);
static void describe_portions(void *arg);

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/* SQL: rebuild_projection(name, on_error); returns how many events it handled. */
Datum
cqrs_es_rebuild_projection(PG_FUNCTION_ARGS)
{
	LockedProjection locked;
	Projection *projection;
	Replay		replay = {.rebuild = true,.old_to = PG_INT64_MAX,.memory = CurrentMemoryContext};
	bool		is_live;

	ExtensionRefuseOlder();
	LockedProjectionRequireReadCommitted("rebuild_projection()");
	replay.skip = skip_arg(fcinfo->args[1]);
	locked = LockedProjectionArg(name_arg(fcinfo), "rebuild_projection()");
	projection = replay.projection = locked.projection;
	require_rebuildable(projection);
	if (replay.skip)
		ReplayRefuseProblems(projection, true);
	is_live = goes_live(&locked);
	if (projection->is_async)
		ProjectionAsyncPart->hold_still(&locked);
	else if (is_live)
	{
		LockedProjectionAwaitAppends(&locked);
		ReadModelsLock(projection->locks, projection->nlocks, projection->owner.role);
	}
	empty(&locked);
	(void) ReplayRun(&replay, &locked.handled, 0);
	if (ProjectionIsPassedBy(projection))
	{
		projection->paused = !is_live;
		locked.rebuilt_to = 0;
		locked.live_after = false;
		LockedProjectionSave(&locked);
		if (projection->is_async && is_live)
			ProjectionAsyncPart->go_on(&locked);
	}
	ReplayReport(&replay);
	PG_RETURN_INT64(replay.concerned);
}

/* A rebuild needs read models that are there, and an owner who may empty them: 42P01, 55000, 42704. */
static void
require_rebuildable(const Projection *projection)
{
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
}

/* Is it to follow appends when it has been rebuilt?  As before, also before a rebuild that broke off. */
static bool
goes_live(const LockedProjection *locked)
{
	return !locked->projection->paused || locked->live_after;
}

/*
 * Nothing is handled any more; triggers of the tables must not append either.  The
 * projection stands still.
 */
static void
empty(LockedProjection *locked)
{
	Projection *projection = locked->projection;
	List	   *held = HandlerHoldConstraints(projection);

	DispatchForbid(true);
	ReadModelsEmpty(projection->read_models, projection->nread_models, &projection->owner,
					projection->name);
	DispatchForbid(false);
	DeferredConstraintRelease(held);
	SkippedEventForget(projection->name);
	MissedRedactionForget(projection->name);
	if (projection->is_async)
		ProjectionAsyncPart->forget_failures(locked);
	locked->handled = (Coverage)
	{
		.position = 0
	};
}

/* SQL: pause_projection(name) */
Datum
cqrs_es_pause_projection(PG_FUNCTION_ARGS)
{
	LockedProjection locked = LockedProjectionArg(name_arg(fcinfo), "pause_projection()");
	Projection *projection = locked.projection;

	if (projection->paused && locked.live_after)
	{
		locked.live_after = false;
		LockedProjectionSave(&locked);
		ereport(NOTICE,
				(errmsg("projection \"%s\" will be paused when it has been rebuilt", projection->name)));
		PG_RETURN_VOID();
	}
	if (projection->paused)
	{
		ereport(NOTICE,
				(errmsg("projection \"%s\" is paused already", projection->name)));
		PG_RETURN_VOID();
	}
	if (projection->is_async)
		ProjectionAsyncPart->hold_still(&locked);
	else
		LockedProjectionHoldStill(&locked);
	projection->paused = true;
	LockedProjectionSave(&locked);
	PG_RETURN_VOID();
}

/* SQL: resume_projection(name, on_error); returns how many missed events it handled. */
Datum
cqrs_es_resume_projection(PG_FUNCTION_ARGS)
{
	LockedProjection locked;
	Replay		replay = {.memory = CurrentMemoryContext};

	ExtensionRefuseOlder();
	LockedProjectionRequireReadCommitted("resume_projection()");
	replay.skip = skip_arg(fcinfo->args[1]);
	locked = LockedProjectionArg(name_arg(fcinfo), "resume_projection()");
	if (!locked.projection->paused && !has_stopped(locked.projection))
	{
		report_live(locked.projection);
		PG_RETURN_INT64(0);
	}
	follow_again(&locked, &replay);
	if (!locked.projection->is_async || replay.skip)
		ReplayReport(&replay);
	PG_RETURN_INT64(replay.concerned);
}

static void
report_live(const Projection *projection)
{
	ereport(NOTICE,
			(errmsg("projection \"%s\" is not paused", projection->name)));
}

/* Has an asynchronous projection stopped by itself, for an event failed? */
static bool
has_stopped(const Projection *projection)
{
	return projection->is_async && ProjectionAsyncPart->has_stopped(projection);
}

/*
 * Let a projection follow the log again.  An asynchronous one handles by itself what it
 * has missed, unless events are to be skipped.
 */
static void
follow_again(LockedProjection *locked, Replay *replay)
{
	Projection *projection = locked->projection;

	if (!projection->is_async)
	{
		ProjectionRebuildGoLive(locked, replay);
		return;
	}
	ProjectionAsyncPart->hold_still(locked);
	refuse_other_tags(replay, locked);
	if (replay->skip)
	{
		bool		held = DispatchHold();

		begin_replay(replay, locked);
		(void) ReplayRun(replay, &locked->handled, 0);
		locked->rebuilt_to = 0;
		ReplayRelease(projection, held);
	}
	projection->paused = locked->live_after = false;
	LockedProjectionSave(locked);
	ProjectionAsyncPart->go_on(locked);
}

/*
 * Handle what a paused projection has missed, and let it follow appends again, in
 * the transactions that append.  `replay` is a new one, or that of the portions before.
 */
void
ProjectionRebuildGoLive(LockedProjection *locked, Replay *replay)
{
	Projection *projection = locked->projection;
	bool		held = DispatchHold();	/* what its handlers append is for later */

	begin_replay(replay, locked);
	(void) ReplayRun(replay, &locked->handled, 0);
	replay->old_to = 0;			/* all that a rebuild was to replay has been */
	LockedProjectionAwaitAppends(locked);
	/* what those had appended, so that the last replay looks at the end of the log alone */
	(void) ReplayRun(replay, &locked->handled, 0);
	ReadModelsLock(projection->locks, projection->nlocks, projection->owner.role);
	(void) ReplayRun(replay, &locked->handled, 0);
	projection->paused = locked->live_after = false;
	locked->rebuilt_to = 0;
	LockedProjectionSave(locked);
	ReplayRelease(projection, held);	/* ... when it is told of it itself */
}

/*
 * 55000 when a rebuild that has begun cannot be ended, since the tags of its projection were
 * defined meanwhile.
 */
static void
refuse_other_tags(Replay *replay, const LockedProjection *locked)
{
	replay->projection = locked->projection;
	replay->tags = LockedProjectionRebuiltTags(locked);
	if (replay->tags != 0)
		(void) ReplayAsk(replay, CoverageFirstMissing(&locked->handled) - 1);
}

/* A replay of what a paused projection lacks, as it is now. */
static void
begin_replay(Replay *replay, const LockedProjection *locked)
{
	replay->old_to = locked->rebuilt_to;
	refuse_other_tags(replay, locked);
	if (locked->projection->is_async)
		ProjectionAsyncPart->refuse_failures(locked);
	if (replay->skip)
		ReplayRefuseProblems(locked->projection, true);
}

/* on_error: skip events that fail?  22004, 22023. */
static bool
skip_arg(NullableDatum arg)
{
	char	   *on_error;

	if (arg.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("on_error must not be null")));
	on_error = TextDatumGetCString(arg.value);
	if (strcmp(on_error, "stop") != 0 && strcmp(on_error, "skip") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("on_error must be \"stop\" or \"skip\"")));
	return strcmp(on_error, "skip") == 0;
}

/*
 * SQL: retry_skipped(name, OUT handled, OUT failed).  The events that were skipped,
 * in the order of the log; each that is handled now is recorded no more.
 */
Datum
cqrs_es_retry_skipped(PG_FUNCTION_ARGS)
{
	LockedProjection locked;
	Projection *projection;
	SkippedEvent *skipped;
	Datum		values[2];
	bool		nulls[2] = {false, false};
	TupleDesc	desc;
	int64		handled = 0;
	int64		failed = 0;
	bool		held;
	int			n;
	int			i;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	LockedProjectionRequireReadCommitted("retry_skipped()");
	locked = LockedProjectionArg(name_arg(fcinfo), "retry_skipped()");
	projection = locked.projection;
	ReplayRefuseProblems(projection, true);
	/* the state of a stream must not go on while it is folded */
	if (projection->is_async)
		ProjectionAsyncPart->hold_still(&locked);
	else if (!projection->paused)
		ReadModelsLock(projection->locks, projection->nlocks, projection->owner.role);
	skipped = SkippedEventList(projection->name, &n);
	held = DispatchHold();
	for (i = 0; i < n; i++)
		failed += !ReplaySkipped(projection, &skipped[i], &handled);
	ReplayRelease(projection, held);
	values[0] = Int64GetDatum(handled);
	values[1] = Int64GetDatum(failed);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*-------------------------------------------------------------------------
 * in portions
 *-------------------------------------------------------------------------
 */

/* SQL: CALL rebuild_in_portions(name, portion, on_error) */
Datum
cqrs_es_rebuild_in_portions(PG_FUNCTION_ARGS)
{
	replay_in_portions(fcinfo, true, "rebuild_in_portions()");
	PG_RETURN_VOID();
}

/* SQL: CALL resume_in_portions(name, portion, on_error) */
Datum
cqrs_es_resume_in_portions(PG_FUNCTION_ARGS)
{
	replay_in_portions(fcinfo, false, "resume_in_portions()");
	PG_RETURN_VOID();
}

static void
replay_in_portions(FunctionCallInfo fcinfo, bool rebuild, const char *function)
{
	Replay		replay = {.rebuild = rebuild};
	Portions	portions = {0};
	ErrorContextCallback callback = {error_context_stack, describe_portions, &portions};
	int32		portion = PortionSize(fcinfo->args[1]);
	bool		live_at_end = false;
	text	   *name;
	MemoryContext one;

	PortionRequireOwnTransactions(fcinfo, function);
	replay.skip = skip_arg(fcinfo->args[2]);
	/* what is allocated here lasts over commits */
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	name = DatumGetTextPCopy(PointerGetDatum(name_arg(fcinfo)));
	replay.memory = CurrentMemoryContext;
	one = AllocSetContextCreate(replay.memory, "cqrs_es portion", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(one);
	portions.name = MemoryContextStrdup(replay.memory, text_to_cstring(name));
	if (rebuild)
	{
		portions.rebuilt_to = begin_rebuild(name, &replay, function);
		PortionCommit();
		error_context_stack = &callback;
	}
	while (!handle_portion(name, &replay, portion, function, &portions, &live_at_end))
	{
		PortionCommit();
		error_context_stack = &callback;
		MemoryContextReset(one);
	}
	if (live_at_end && replay.projection->paused)
	{
		LockedProjection locked;

		PortionCommit();
		portions.there = false;
		locked = LockedProjectionArg(name, function);
		note_portions(&portions, &locked);
		/* at the end of the log nothing is old any more */
		if (locked.projection->is_async)
			locked.rebuilt_to = 0;
		if (locked.projection->paused && (!rebuild || locked.live_after))
			follow_again(&locked, &replay);
	}
	error_context_stack = callback.previous;
	ReplayReport(&replay);
	MemoryContextSwitchTo(replay.memory);
	SPI_finish();
}

/*
 * Pause a projection, and empty its read models: then it is one of whose rebuild
 * nothing has been done.  Returns the last position of its events.
 */
static int64
begin_rebuild(const text *name, const Replay *replay, const char *function)
{
	LockedProjection locked;
	Projection *projection;

	LockedProjectionRequireReadCommitted(function);
	locked = LockedProjectionArg(name, function);
	projection = locked.projection;
	require_rebuildable(projection);
	/* before the empty tables are committed */
	ReplayRefuseProblems(projection, replay->skip);
	locked.live_after = goes_live(&locked);
	if (projection->is_async)
		ProjectionAsyncPart->hold_still(&locked);
	else if (!projection->paused)
	{
		/* it has just found tables that came behind it: others append without them */
		if (locked.unresolved)
			LockedProjectionAwaitAppends(&locked);
		ReadModelsLock(projection->locks, projection->nlocks, projection->owner.role);
	}
	empty(&locked);
	projection->paused = true;
	/* as they are defined before the first event is passed */
	locked.rebuilt_tags = EventFilterAsk(&projection->filter, 0);
	locked.rebuilt_to = ReplayLastPosition();
	LockedProjectionSave(&locked);
	return locked.rebuilt_to;
}

/*
 * Handle some of what a paused projection lacks, and remember that; true when it
 * lacks nothing that is visible, or is not paused any more.  *goes_live becomes whether
 * it is to follow appends then; what a rebuild has to remember lasts until it does.
 */
static bool
handle_portion(const text *name, Replay *replay, int32 portion, const char *function,
			   Portions *portions, bool *goes_live)
{
	LockedProjection locked;
	bool		held;
	bool		at_end;

	LockedProjectionRequireReadCommitted(function);
	portions->there = false;
	locked = LockedProjectionArg(name, function);
	replay->projection = locked.projection;
	if (!locked.projection->paused)
	{
		report_live(locked.projection);
		return true;
	}
	/* such a one is not gone on with */
	refuse_other_tags(replay, &locked);
	note_portions(portions, &locked);
	held = DispatchHold();
	begin_replay(replay, &locked);
	at_end = ReplayRun(replay, &locked.handled, portion);
	*goes_live = !replay->rebuild || locked.live_after;
	if (at_end && !*goes_live)
		locked.rebuilt_to = 0;
	LockedProjectionSave(&locked);
	/* still paused, it will find among the missed ones what its handlers appended */
	ReplayRelease(locked.projection, held);
	return at_end;
}

/* Is it what we left, and not one that somebody has made, or rebuilt, since? */
static void
note_portions(Portions *portions, const LockedProjection *locked)
{
	portions->there = locked->projection->paused &&
		(portions->rebuilt_to == 0 || locked->rebuilt_to == portions->rebuilt_to);
}

static void
describe_portions(void *arg)
{
	const Portions *portions = arg;

	if (portions->there)
		errcontext("the portions before are committed, projection \"%s\" is paused: resume_in_portions goes on behind them",
				   portions->name);
	else
		errcontext("the portions of projection \"%s\" before are committed: projection_status shows how it is now",
				   portions->name);
}

/*-------------------------------------------------------------------------
 * the projection
 *-------------------------------------------------------------------------
 */

static text *
name_arg(FunctionCallInfo fcinfo)
{
	return TextArgument(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
}
