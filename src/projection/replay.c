/*-------------------------------------------------------------------------
 * replay.c
 *	  Old events through the handlers of a projection, in the order of the log, and
 *	  what to do about those that fail.
 *
 * The caller holds the row of the projection, so that nobody changes it meanwhile,
 * and says what has been handled already (coverage.c).
 *
 * When it is to skip, each event has a subtransaction of its own: what fails leaves
 * nothing behind, is recorded (skipped_event.c), and counts as handled.  An error
 * that no event has made is not skipped: a deadlock, a lack of memory, a wish to
 * cancel; the want of a right to call a function; an append that is refused, for then the
 * projection cannot be rebuilt at all.
 * And what would fail for every event is found out before (ReplayRefuseProblems).
 * Deferred constraints are checked before the subtransaction ends, or else the commit would
 * fail, and nobody knew for which event.  Not so when something waits that does not hold
 * from the beginning, as rows that refer to those that a rebuild has deleted: only the
 * end can tell then.
 *
 * The row of a state is that of a whole stream.  Once an event of a stream was
 * skipped the others would fail as well, after as many events each; so one is
 * recorded, and the others are passed by.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/deferred_constraint.h"
#include "base/errors.h"
#include "base/fixed_settings.h"
#include "base/registry_function.h"
#include "base/stream_key.h"
#include "base/subtransaction.h"
#include "log/dispatch.h"
#include "log/event_scan.h"
#include "log/horizon.h"
#include "projection/handler.h"
#include "projection/projection_status.h"
#include "projection/replay.h"
#include "projection/skipped_event.h"

/* logs with fewer events than this are through before anybody asks */
#define EVENTS_WORTH_A_NOTICE	1000

/* Streams whose states were skipped, by a hash of their keys. */
typedef struct SkippedStreams
{
	uint64		hash;
	List	   *events;			/* one of each */
} SkippedStreams;

static List *begin(Replay *replay);
static bool constraints_hold(void);
static bool handle(Replay *replay, const Event *event);
static SkippedStreams *skipped_streams(Replay *replay, const Event *event, HASHACTION action);
static bool is_of_skipped_stream(Replay *replay, const Event *event);
static void note_skipped_stream(Replay *replay, const Event *event);
static void note_progress(Replay *replay, int64 last, int64 position);
static int64 last_position(Snapshot snapshot);

/*
 * Handle visible events that are not among the handled ones, nor queued, in the order
 * of positions; about max_events that concern the projection at most (0: all).  *handled
 * becomes what is handled then.  Counts in *replay.  Returns whether that was all.
 */
bool
ReplayRun(Replay *replay, Coverage *handled, int64 max_events)
{
	int64		settled = HorizonSettled(0);
	LogSnapshot snapshot = EventsSnapshotTake(true);
	int64		after = CoverageFirstMissing(handled) - 1;
	int64		last = last_position(snapshot.snapshot);
	EventScan  *scan = EventScanLog(after, ForwardScanDirection, snapshot.snapshot);
	Coverage	visible = {.position = after};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext work = AllocSetContextCreate(caller, "cqrs_es replay", ALLOCSET_DEFAULT_SIZES);
	int64		before = replay->concerned + replay->skipped;
	bool		at_end = true;
	bool		forbids = false;
	int			cursor = 0;
	int			guc_level = 0;
	uint64		asked = ReplayAsk(replay, after);
	List	   *held;
	Event		event;

	if (!replay->has_begun)
		replay->first = after;
	replay->has_begun = true;
	held = begin(replay);
	FixedSettingsSet(&guc_level);	/* once for all that runs in it */
	while (EventScanNext(scan, &event))
	{
		int64		position = EventGlobalPosition(&event);

		CHECK_FOR_INTERRUPTS();
		/* events that share a position are not parted */
		if (max_events > 0 && replay->concerned + replay->skipped - before >= max_events &&
			position > visible.position)
		{
			at_end = false;
			break;
		}
		if (forbids != (position <= replay->old_to))
			DispatchForbid(forbids = position <= replay->old_to);
		CoverageAdd(&visible, position, settled);
		MemoryContextSwitchTo(work);
		if (!CoverageHas(handled, position, &cursor) && !DispatchIsQueued(position))
		{
			replay->seen++;
			replay->concerned += handle(replay, &event);
		}
		ProjectionStatusProgress(replay->projection, last, replay->rebuild, replay->seen, position);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(work);
		note_progress(replay, last, position);
	}
	if (forbids)
		DispatchForbid(false);
	FixedSettingsRestore(guc_level);
	DeferredConstraintRelease(held);
	ProjectionStatusProgressEnd();
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	EventFilterConfirm(&replay->projection->filter, after, asked);
	MemoryContextDelete(work);
	MemoryContextSwitchTo(replay->memory);
	replay->tallies = HandlerTallies(replay->projection, replay->tallies);
	MemoryContextSwitchTo(caller);
	CoverageGoOn(&visible, handled);
	*handled = visible;
	return at_end;
}

/*
 * How deferred constraints are checked from now on; what this returns is for
 * DeferredConstraintRelease.
 */
static List *
begin(Replay *replay)
{
	replay->checks = replay->skip && constraints_hold();
	return HandlerHoldConstraints(replay->projection);
}

/* Does what waits for the commit hold now?  If so, it waits no more. */
static bool
constraints_hold(void)
{
	List	   *waiting = DeferredConstraintWaiting();
	ErrorData  *volatile error = NULL;
	Subtransaction subtransaction;

	if (waiting == NIL)
		return true;
	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		DeferredConstraintCheck(waiting);
		SubtransactionEnd(&subtransaction, true);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();
	if (error != NULL && ErrorIsNotUsers(error->sqlerrcode))
		ReThrowError(error);
	return error == NULL;
}

/*
 * Tell of what handlers have appended, and DispatchHold has held back; as the projection's
 * owner, since what follows from that, reducers for snapshots and the handlers of
 * others, is none of the business of whoever replays.  42704 when the owner is gone.
 */
void
ReplayRelease(Projection *projection, bool held_before)
{
	List	   *held;
	RoleSwitch	saved;

	if (held_before || !DispatchHasQueued())
	{
		DispatchRelease(held_before);
		return;
	}
	held = HandlerHoldConstraints(projection);
	saved = ProjectionSwitchToOwner(projection);
	DispatchRelease(held_before);
	RoleSwitchBack(&saved);
	DeferredConstraintRelease(held);
}

/* Handle an event, or skip it; true when it was handled. */
static bool
handle(Replay *replay, const Event *event)
{
	ErrorData  *volatile error = NULL;
	volatile bool concerned = false;
	uint64		refusals = DispatchRefusals();
	uint64		denials = RegistryFunctionDenials();
	Subtransaction subtransaction;

	if (!replay->skip)
		return HandlerReplay(replay->projection, event, 0);
	if (!HandlerConcerns(replay->projection, event) || is_of_skipped_stream(replay, event))
		return false;

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		concerned = HandlerReplay(replay->projection, event, HANDLER_OWN_WORDS);
		if (replay->checks)
			HandlerCheckConstraints(replay->projection);
		SubtransactionEnd(&subtransaction, true);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();
	if (error == NULL)
		return concerned;

	if (ErrorIsNotUsers(error->sqlerrcode) || DispatchRefusals() != refusals ||
		RegistryFunctionDenials() != denials)
		ReThrowError(error);
	SkippedEventSave(replay->projection->name, event, error,
					 EventGlobalPosition(event) <= replay->old_to);
	replay->skipped++;
	if (replay->projection->keeps_states)
		note_skipped_stream(replay, event);
	return false;
}

/*
 * Handle an event that was skipped before; false when it fails again, which is
 * recorded, too.  Counts it unless it is no longer one that the projection handles, or
 * is gone.  (That a state has it already is for another one's sake.)
 */
bool
ReplaySkipped(Projection *projection, const SkippedEvent *skipped, int64 *handled)
{
	StreamKey	key = {skipped->aggregate_type, skipped->aggregate_id, skipped->tenant_id};
	Replay		replay = {.projection = projection,.skip = true,.memory = CurrentMemoryContext,
		.old_to = skipped->in_rebuild ? PG_INT64_MAX : 0};
	LogSnapshot snapshot = EventsSnapshotTake(true);
	EventScan  *scan = EventScanStream(&key, skipped->sequence, ForwardScanDirection, snapshot.snapshot);
	List	   *held = begin(&replay);
	int			guc_level = 0;
	Event		event;

	FixedSettingsSet(&guc_level);
	DispatchForbid(skipped->in_rebuild);
	/* it may have been deleted */
	if (EventScanNext(scan, &event) && EventSequence(&event) == skipped->sequence &&
		(handle(&replay, &event) || (projection->keeps_states && replay.skipped == 0)))
		(*handled)++;
	DispatchForbid(false);
	FixedSettingsRestore(guc_level);
	DeferredConstraintRelease(held);
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	if (replay.skipped == 0)
		SkippedEventDelete(projection->name, skipped);
	return replay.skipped == 0;
}

/* Was an event of the same stream skipped, whose state can so not be told? */
static bool
is_of_skipped_stream(Replay *replay, const Event *event)
{
	SkippedStreams *streams = replay->skipped_streams ?
		skipped_streams(replay, event, HASH_FIND) : NULL;
	StreamKey	key;
	ListCell   *lc;

	if (streams == NULL)
		return false;
	EventKey(event, &key);
	foreach(lc, streams->events)
	{
		StreamKey	skipped;

		EventKey(lfirst(lc), &skipped);
		if (StreamKeyEqual(&skipped, &key))
			return true;
	}
	return false;
}

static void
note_skipped_stream(Replay *replay, const Event *event)
{
	MemoryContext work = MemoryContextSwitchTo(replay->memory);
	SkippedStreams *streams;

	if (replay->skipped_streams == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(uint64),.entrysize = sizeof(SkippedStreams),
			.hcxt = replay->memory};

		replay->skipped_streams = hash_create("cqrs_es skipped streams", 64, &control,
											  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	streams = skipped_streams(replay, event, HASH_ENTER);
	streams->events = lappend(streams->events, EventCopy(event));
	MemoryContextSwitchTo(work);
}

static SkippedStreams *
skipped_streams(Replay *replay, const Event *event, HASHACTION action)
{
	text	   *id = EventText(event, EVENT_AGGREGATE_ID);
	uint64		hash = DatumGetUInt64(hash_any_extended((unsigned char *) VARDATA_ANY(id),
														VARSIZE_ANY_EXHDR(id), 0));
	bool		found;
	SkippedStreams *streams = hash_search(replay->skipped_streams, &hash, action, &found);

	if (streams && !found)
		streams->events = NIL;
	return streams;
}

/* A notice for each quarter of a long log. */
static void
note_progress(Replay *replay, int64 last, int64 position)
{
	int			quarter;

	if (replay->seen < EVENTS_WORTH_A_NOTICE || position >= last)
		return;
	/* the first notice may come late */
	quarter = (int) (4.0 * (position - replay->first) / (last - replay->first));
	if (quarter <= replay->quarter)
		return;
	replay->quarter = quarter;
	ereport(NOTICE,
			(errmsg("projection \"%s\": %d %% of the log, %lld events so far",
					replay->projection->name, 25 * replay->quarter, (long long) replay->seen)));
}

/*
 * The position of the last event that is visible now; 0 when there is none.  Looks
 * with the newest snapshot.
 */
int64
ReplayLastPosition(void)
{
	LogSnapshot snapshot = EventsSnapshotTake(true);
	int64		position = last_position(snapshot.snapshot);

	EventsSnapshotRelease(snapshot);
	return position;
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

/*
 * EventFilterAsk for the projection, whose events behind the position are to be replayed.
 * 55000 also when this is the rest of a rebuild, and its tags were defined otherwise when it
 * began: retag may have given them to events that it has passed since.
 */
uint64
ReplayAsk(const Replay *replay, int64 after_position)
{
	const Projection *projection = replay->projection;
	uint64		asked = EventFilterAsk(&projection->filter, after_position);

	if (replay->tags != 0 && asked != replay->tags)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tags were defined since the rebuild of projection \"%s\" began", projection->name),
				 errdetail("Events that it has passed may have got tags that it is for."),
				 errhint("CALL cqrs_es.rebuild_in_portions(%s) begins it again.",
						 quote_literal_cstr(projection->name))));
	return asked;
}

/*
 * 55000 when handlers fail whatever the event is: a replay could not begin, and to skip
 * would be to skip them all.
 */
void
ReplayRefuseProblems(Projection *projection, bool skip)
{
	List	   *problems = HandlerProblems(projection);
	StringInfoData all;
	ListCell   *lc;

	if (problems == NIL)
		return;
	initStringInfo(&all);
	foreach(lc, problems)
		appendStringInfo(&all, "%s%s", all.len > 0 ? "\n" : "", (char *) lfirst(lc));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 skip ? errmsg("projection \"%s\" would skip every event", projection->name) :
			 errmsg("projection \"%s\" cannot handle events", projection->name),
			 errdetail_internal("%s", all.data),
			 errhint("Mend its handlers first.")));
}

/*
 * Tell the caller what came of a replay: NOTICE of its events and the rows that
 * handlers changed; in a rebuild a WARNING for each that was to change rows and found
 * none at all, since those that were put into a table by hand are not there any more.
 */
void
ReplayReport(const Replay *replay)
{
	const char *name = replay->projection->name;
	StringInfoData detail;
	int64		rows = 0;
	bool		uncounted = false;
	ListCell   *lc;

	foreach(lc, replay->tallies)
	{
		HandlerTally *tally = lfirst(lc);

		rows += tally->rows;
		uncounted |= tally->uncounted;
	}
	initStringInfo(&detail);
	appendStringInfo(&detail, rows == 1 ? "Its handlers changed %lld row%s." :
					 "Its handlers changed %lld rows%s.", (long long) rows,
					 uncounted ? "; those of functions are not counted" : "");
	if (replay->skipped > 0)
		appendStringInfo(&detail, replay->skipped == 1 ?
						 "\n%lld event was skipped: see cqrs_es.skipped_events." :
						 "\n%lld events were skipped: see cqrs_es.skipped_events.",
						 (long long) replay->skipped);
	ereport(NOTICE,
			(replay->rebuild ?
			 errmsg_plural("projection \"%s\" has been rebuilt from %lld event",
						   "projection \"%s\" has been rebuilt from %lld events",
						   (unsigned long) replay->concerned, name, (long long) replay->concerned) :
			 errmsg_plural("projection \"%s\" has caught up with %lld event",
						   "projection \"%s\" has caught up with %lld events",
						   (unsigned long) replay->concerned, name, (long long) replay->concerned),
			 errdetail_internal("%s", detail.data)));
	foreach(lc, replay->tallies)
	{
		HandlerTally *tally = lfirst(lc);

		if (replay->rebuild && tally->seeks_rows && tally->runs > 0 && tally->rows == 0)
			ereport(WARNING,
					(errmsg_plural("the handler of projection \"%s\" for event type \"%s\" found no row to change in %lld event",
								   "the handler of projection \"%s\" for event type \"%s\" found no row to change in %lld events",
								   (unsigned long) tally->runs, name, tally->event_type, (long long) tally->runs),
					 errhint("Rows that were put into a read model by hand are gone after a rebuild. Let a handler make them.")));
	}
}
