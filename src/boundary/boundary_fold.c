/*-------------------------------------------------------------------------
 * boundary_fold.c
 *	  The state of a boundary: its snapshot + the matching events after it.
 *
 * As for aggregates (fold.c), an event at a time is in memory and the state; only that the
 * events are found by the query (tag_search.c), in the order of their positions, and
 * nothing is to be said of holes.  Which of them there are yet to come is up to the
 * caller: it has locked what the query asks for (execute_boundary.c), or knows up to where
 * all is there (boundary_state, by the protocol of matching.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/counter.h"
#include "base/text.h"
#include "log/events.h"
#include "log/personal_data.h"
#include "log/position.h"
#include "tag/matching.h"
#include "tag/tag_search.h"
#include "aggregate/reducer_state.h"
#include "boundary/boundary_fold.h"

PG_FUNCTION_INFO_V1(cqrs_es_boundary_state);

pg_noreturn static void report_hidden(const BoundaryKey *key);
static void describe_fold(void *arg);

/*
 * SQL: boundary_state(boundary, keys, at_position).  Takes what read_matching takes, and
 * waits as it does.
 */
Datum
cqrs_es_boundary_state(PG_FUNCTION_ARGS)
{
	text	   *name = TextArgument(fcinfo->args[0], "boundary", BOUNDARY_MAX_BYTES);
	Jsonb	   *keys = BoundaryKeys(fcinfo->args[1], "keys");
	int64		up_to = PG_ARGISNULL(2) ? PG_INT64_MAX : PG_GETARG_INT64(2);
	MatchingPoint point;
	BoundaryFold fold;

	EventsRequireRights(ACL_SELECT);
	RegistryEnter();
	BoundaryFoldInit(&fold, name,
					 BoundaryQueryFill(BoundaryRequire(name)->query, keys, text_to_cstring(name)));
	fold.hides = PersonalDataHides(GetUserId());
	if (!PG_ARGISNULL(2))
		MatchingCheckPosition(up_to);
	point = MatchingAwait(fold.query, fold.key.tenant_id);
	up_to = Min(up_to, point.position);

	/*
	 * behind the snapshot, or a state could be found that definitions of tags have
	 * overtaken
	 */
	BoundaryFoldBegin(&fold, BoundaryRequire(name), up_to, point.snapshot.log.snapshot);
	MatchingRequireUnmoved(fold.query, fold.key.tenant_id, fold.began_at, up_to,
						   ForwardScanDirection, PG_INT64_MAX, &point.snapshot);
	MatchingSnapshotRelease(point.snapshot);
	RegistryLeave();
	PG_RETURN_JSONB_P(fold.state);
}

/* For a boundary's query that has been filled in. */
void
BoundaryFoldInit(BoundaryFold *fold, const text *name, Jsonb *query)
{
	memset(fold, 0, sizeof(*fold));
	fold->key = BoundarySnapshotKey(name, query);
	fold->query = TagQueryParse(query);
}

/*
 * Fold up to a position what `snapshot` shows, from the usable snapshot on, if there is one.
 * It counts as a replay.  The state is palloc'd in the current context.  Raises what reducers
 * raise, 42501 where row security may hide events.
 */
void
BoundaryFoldBegin(BoundaryFold *fold, const Boundary *boundary, int64 up_to_position,
				  Snapshot snapshot)
{
	fold->boundary = boundary;
	fold->nevents = 0;
	if (EventsRowSecurity())
		report_hidden(&fold->key);
	if (boundary->snapshot_every == 0 || fold->hides ||
		!BoundarySnapshotLoad(&fold->key, &boundary->rules, up_to_position, snapshot,
							  &fold->position, &fold->state))
	{
		fold->position = 0;
		fold->state = boundary->rules.initial_state;
	}
	fold->began_at = fold->position;
	BoundaryFoldOn(fold, up_to_position, snapshot);
	CounterAdd("replay_counts", fold->nevents, fold->began_at > 0);
}

static void
report_hidden(const BoundaryKey *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("row security of table \"%s\" may hide events of boundary \"%s\"", "events",
					text_to_cstring(key->boundary)),
			 errdetail("A state is that of all events.")));
}

/* Fold what follows what is in the state, up to a position. */
void
BoundaryFoldOn(BoundaryFold *fold, int64 up_to_position, Snapshot snapshot)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext memory = AllocSetContextCreate(caller, "cqrs_es boundary fold",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext event_memory = AllocSetContextCreate(memory, "cqrs_es boundary fold event",
													   ALLOCSET_DEFAULT_SIZES);
	ErrorContextCallback callback = {NULL, describe_fold, fold};
	ReducerState state;
	TagSearch  *search;
	Event		event;

	check_stack_depth();
	MemoryContextSwitchTo(memory);
	ReducerStateInit(&state, fold->state);
	state.hides = fold->hides;
	search = TagSearchBegin(fold->query, fold->key.tenant_id, fold->position, up_to_position,
							ForwardScanDirection, snapshot);
	while (TagSearchNext(search, &event))
	{
		CHECK_FOR_INTERRUPTS();
		fold->position = EventGlobalPosition(&event);
		fold->nevents++;
		callback.previous = error_context_stack;
		error_context_stack = &callback;
		MemoryContextSwitchTo(event_memory);
		ReducerStateApply(&state, &fold->boundary->rules, &event);
		MemoryContextSwitchTo(memory);
		error_context_stack = callback.previous;
		MemoryContextReset(event_memory);
	}
	TagSearchEnd(search);
	ReducerStateEnd(&state);
	MemoryContextSwitchTo(caller);
	fold->state = ReducerStateJsonb(&state);
	MemoryContextDelete(memory);
}

static void
describe_fold(void *arg)
{
	BoundaryFold *fold = arg;

	errcontext("folding the event at position %lld for boundary \"%s\"",
			   (long long) fold->position, text_to_cstring(fold->key.boundary));
}
