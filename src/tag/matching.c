/*-------------------------------------------------------------------------
 * matching.c
 *	  Reading the events that concern a decision, exact for its condition.
 *
 * Who decides appends with the condition that nothing that matches has come behind the last
 * event read (match_condition.c).  So there must never be one, before that, which was not
 * read: one that was in flight then, at a position that was drawn before.  Whoever
 * appends what matches holds a slot that the query asks for, from before the position is drawn
 * until its rows can be seen (tag_slot.c).  So a reader does this, in this order:
 *
 * 1. It reads the last number that was drawn.
 * 2. It asks who holds the slots of its query at this moment, and waits for just those; for a
 *	  query of everything, for all who have drawn a position.
 * 3. It takes its snapshot.
 * 4. It hands out what matches up to the position of 1, and nothing above it.
 *
 * Whoever took a position up to that had the slot before 1, so was waited for in 2, or had
 * ended.  Whoever comes later is above it.  Were the number read after the snapshot, an
 * event committed between them would be missed; were events above it handed out, a reader
 * that goes on behind the last of them would miss one below, whose writer is still running.
 * A lock is not taken: a reader that waits for a long writer would have the short ones
 * queue up behind it.
 *
 * Whether a type is known to define_tags, and whether history has its tags, is asked
 * behind 1: those who appended under another answer were waited for by who changed it.
 *
 * Not only the sequence says what has been drawn: a log that was restored or replicated may
 * be ahead of it until the first position is drawn, which is then above all events
 * (position.c).
 *
 * Above READ COMMITTED the snapshot is older than all this.  What has come since then is not
 * in it, so there must be nothing of the kind: 40001.  A standby has no such locks, nor has
 * a log that is replicated from elsewhere; there the settled position takes the place of
 * the last one drawn, and nobody is waited for.
 *
 * A transaction's own events count: it decides by them, too.  One whose position is drawn and
 * which is not in the log yet (its INSERT's other trigger is who reads) would be missed: so
 * before 1 another epoch of positions begins, and that row gets a position above what was read
 * (position.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "base/extension.h"
#include "base/registry.h"
#include "base/registry_function.h"
#include "base/tenancy.h"
#include "log/horizon.h"
#include "log/personal_data.h"
#include "log/position.h"
#include "log/published.h"
#include "log/read.h"
#include "log/upcast.h"
#include "tag/event_tags.h"
#include "tag/matching.h"
#include "tag/tag_search.h"

/* The rows: the columns of an event, and its tags. */
#define MATCHING_TAGS		EVENT_NCOLUMNS
#define MATCHING_NCOLUMNS	(EVENT_NCOLUMNS + 1)

PG_FUNCTION_INFO_V1(cqrs_es_read_matching);

static bool is_judged_elsewhere(int64 number);
static void put_event(ReturnSetInfo *result, Event *event, FunctionCalls *calls,
					  Snapshot snapshot, MemoryContext work);
static int64 find_positions(const TagQuery *query, text *tenant_id, int64 after_position,
							int64 up_to_position, ScanDirection direction, int64 max_count,
							Snapshot snapshot, int64 **positions);

/* SQL: read_matching(query, after_position, max_count, backward) */
Datum
cqrs_es_read_matching(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int64		after_position = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	int64		max_count = ReadMaxCount(fcinfo->args[2]);
	ScanDirection direction = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3) ?
		BackwardScanDirection : ForwardScanDirection;
	text	   *tenant_id = TenancyCurrent();
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es read matching",
											   ALLOCSET_DEFAULT_SIZES);
	FunctionCalls calls;
	TagQuery   *query;
	TagSearch  *search;
	MatchingPoint point;
	Event		event;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("query must not be null")));
	query = TagQueryParse(PG_GETARG_JSONB_P(0));
	EventsRequireRights(ACL_SELECT);
	InitMaterializedSRF(fcinfo, 0);
	MatchingCheckPosition(after_position);

	RegistryEnter();
	RegistryFunctionCallsInit(&calls);
	point = MatchingAwait(query, tenant_id);
	MatchingRequireUnmoved(query, tenant_id, after_position, point.position, direction,
						   max_count, &point.snapshot);
	search = TagSearchBegin(query, tenant_id, after_position, point.position, direction,
							point.snapshot.log.snapshot);
	while (max_count-- > 0 && TagSearchNext(search, &event))
		put_event(result, &event, &calls, point.snapshot.log.snapshot, work);
	TagSearchEnd(search);
	MatchingSnapshotRelease(point.snapshot);
	RegistryFunctionCallsEnd(&calls);
	RegistryLeave();
	return (Datum) 0;
}

/* Hand an event out, lifted to its newest version, with its tags; `work` is reset. */
static void
put_event(ReturnSetInfo *result, Event *event, FunctionCalls *calls, Snapshot snapshot,
		  MemoryContext work)
{
	static const bool nulls[MATCHING_NCOLUMNS] = {false};
	MemoryContext caller = MemoryContextSwitchTo(work);
	Datum		values[MATCHING_NCOLUMNS];

	values[MATCHING_TAGS] = EventTagsOf(EventText(event, EVENT_TENANT_ID),
										EventGlobalPosition(event),
										EventText(event, EVENT_EVENT_TYPE), snapshot);
	PersonalDataShow(event);
	UpcastEvent(event, calls);
	memcpy(values, event->values, sizeof(event->values));
	tuplestore_putvalues(result->setResult, result->setDesc, values, (bool *) nulls);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(work);
}

/*-------------------------------------------------------------------------
 * where to read, and with what
 *-------------------------------------------------------------------------
 */

/*
 * As EventsSnapshotTake, with the table of tags locked for it as well, until
 * MatchingSnapshotRelease.
 */
MatchingSnapshot
MatchingSnapshotTake(bool newest)
{
	MatchingSnapshot snapshot = {.tags = ExtensionRelid("event_tags")};

	LockRelationOid(snapshot.tags, AccessShareLock);
	snapshot.log = EventsSnapshotTake(newest);
	return snapshot;
}

void
MatchingSnapshotRelease(MatchingSnapshot snapshot)
{
	EventsSnapshotRelease(snapshot.log);
	UnlockRelationOid(snapshot.tags, AccessShareLock);
}

/* 22023 unless a reader of this log can have come to the position. */
void
MatchingCheckPosition(int64 after_position)
{
	int64		number = POSITION_NUMBER(after_position);
	int64		last;

	HorizonCheckPosition(after_position);
	/* a standby may be behind the primary that the position is of */
	if (RecoveryInProgress() || number <= PositionLastNumber())
		return;
	last = HorizonLastDrawn();
	if (number > last)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position %lld is ahead of the log", (long long) after_position),
				 errdetail("The last position that was drawn is %lld.",
						   (long long) PositionOfNumber(last)),
				 errhint("Take the position of the last event that read_matching() returned, or that an append under the same condition returned.")));
}

/* Are there no locks here of those who have drawn positions up to this number? */
static bool
is_judged_elsewhere(int64 number)
{
	return RecoveryInProgress() || PublishedDecides(number);
}

/*
 * Wait for those who may append what matches at a position that is drawn already.  Returns the
 * last of these, and a snapshot, to be released, which shows what matches up to there, or,
 * above READ COMMITTED, may be too old for it (MatchingRequireUnmoved).  Takes no lock of those who append.  Raises 22023, 55000
 * (TagQueryRequireDefined), 40P01, 55P03, 57014.
 */
MatchingPoint
MatchingAwait(const TagQuery *query, const text *tenant_id)
{
	int64		last;
	MatchingPoint point;

	PositionBeginEpoch();
	last = HorizonLastDrawn();
	if (is_judged_elsewhere(last))
	{
		point.position = HorizonSettled(HorizonDeadline());
		TagQueryRequireDefined(query);
	}
	else
	{
		TagSlotSet	slots = {0};

		point.position = PositionOfNumber(last);
		TagQueryRequireDefined(query);
		if (query->everything)
			HorizonAwaitWriters();
		else
		{
			TagQueryAddAsks(query, tenant_id, &slots);
			TagSlotsAwaitHolders(&slots);
		}
	}
	point.snapshot = MatchingSnapshotTake(false);
	return point;
}

/*-------------------------------------------------------------------------
 * above READ COMMITTED
 *-------------------------------------------------------------------------
 */

/*
 * Does the transaction's snapshot show all that matches between the positions, or the first
 * max_count of it?  40001 when not.  In READ COMMITTED it does.
 */
void
MatchingRequireUnmoved(const TagQuery *query, text *tenant_id, int64 after_position,
					   int64 up_to_position, ScanDirection direction, int64 max_count,
					   const MatchingSnapshot *snapshot)
{
	MatchingSnapshot newest;
	int64	   *seen;
	int64	   *all;
	int64		nseen;
	int64		nall;

	if (!IsolationUsesXactSnapshot())
		return;
	nseen = find_positions(query, tenant_id, after_position, up_to_position, direction,
						   max_count, snapshot->log.snapshot, &seen);
	newest = MatchingSnapshotTake(true);
	nall = find_positions(query, tenant_id, after_position, up_to_position, direction,
						  max_count, newest.log.snapshot, &all);
	MatchingSnapshotRelease(newest);
	if (nall != nseen || memcmp(all, seen, nall * sizeof(int64)) != 0)
		MatchingReportMoved();
	pfree(seen);
	pfree(all);
}

/* 40001 */
void
MatchingReportMoved(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access: events that match were appended since the transaction's snapshot"),
			 errhint("Retry the transaction.")));
}

/* Where the first max_count events are that match; palloc'd. */
static int64
find_positions(const TagQuery *query, text *tenant_id, int64 after_position,
			   int64 up_to_position, ScanDirection direction, int64 max_count,
			   Snapshot snapshot, int64 **positions)
{
	TagSearch  *search = TagSearchBegin(query, tenant_id, after_position, up_to_position,
										direction, snapshot);
	int64		size = 64;
	int64		n = 0;
	Event		event;

	*positions = palloc(size * sizeof(int64));
	while (n < max_count && TagSearchNext(search, &event))
	{
		if (n == size)
		{
			size *= 2;
			*positions = repalloc_huge(*positions, size * sizeof(int64));
		}
		(*positions)[n++] = EventGlobalPosition(&event);
	}
	TagSearchEnd(search);
	return n;
}
