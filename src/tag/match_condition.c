/*-------------------------------------------------------------------------
 * match_condition.c
 *	  Append unless something that matches has come in between.
 *
 * The append has taken the slots that the condition asks for (tag_slot.c), together with
 * those of its own events, before this looks, and keeps them until it has ended.  Who
 * appends what matches holds one of them from before its position is drawn until its rows
 * can be seen.  So whoever had it before us has ended, and a snapshot that is taken now shows
 * it; whoever gets it after us draws a position above all of ours.  What the condition finds
 * is therefore all there will ever be above after_position and below our events.
 *
 * A query of everything has no slots.  It takes the lock against all who draw positions,
 * of every tenant, behind the slots, since that is the order of those who draw: slots, and
 * then a position.  The transaction must not have drawn one itself, for two such would wait
 * for each other.
 *
 * Above READ COMMITTED both is looked at, the transaction's snapshot, by which it has
 * decided, and the newest one: what only that shows is a serialization failure.
 *
 * Where policies of users may hide events from the caller there is no condition: one that
 * asked only about what they show would let two decide who do not see each other, and
 * one that asked about all could not be read again when it has failed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "base/counter.h"
#include "base/errors.h"
#include "log/event_error.h"
#include "log/horizon.h"
#include "log/position.h"
#include "tag/match_condition.h"
#include "tag/matching.h"
#include "tag/tag_search.h"

static bool holds(AppendCondition *condition);
static void require_sight(void);
static bool find_match(MatchCondition *condition, bool newest);
static void report_failed(AppendCondition *condition);

/*
 * Fill in a condition for AppendCall; query and tenant stay the caller's, who checks the
 * position as well before it appends (MatchingCheckPosition).
 */
void
MatchConditionInit(MatchCondition *condition, const TagQuery *query, text *tenant_id,
				   int64 after_position)
{
	memset(condition, 0, sizeof(MatchCondition));
	condition->base.holds = holds;
	condition->base.report = report_failed;
	condition->base.asks = &condition->asks;
	condition->query = query;
	condition->tenant_id = tenant_id;
	condition->after_position = after_position;
	TagQueryAddAsks(query, tenant_id, &condition->asks);
}

/*
 * Lock the log against all who append: ShareRowExclusiveLock on the position sequence, until
 * the (sub)transaction ends.  Behind RowExclusiveLock on the log and behind all slots.  Waits
 * for those who have drawn before it queues.  Raises 55000 when this transaction has.
 */
void
MatchConditionLockLog(void)
{
	Oid			sequence;
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, PositionSequence());
	if (compat_lock_held(&tag, RowExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a condition on every event must come before anything is appended"),
				 errdetail("This transaction has appended, or has tried to: two such would wait for each other."),
				 errhint("Append all in one call, or name types and tags in the query.")));
	PositionBeginEpoch();
	HorizonAwaitWriters();
	do
	{
		sequence = PositionSequence();
		LockRelationOid(sequence, ShareRowExclusiveLock);
	} while (sequence != PositionSequence());
}

static bool
holds(AppendCondition *condition)
{
	MatchCondition *match = (MatchCondition *) condition;

	require_sight();
	if (match->query->everything)
		MatchConditionLockLog();
	TagQueryRequireDefined(match->query);
	if (find_match(match, false))
		return false;
	if (IsolationUsesXactSnapshot() && find_match(match, true))
		MatchingReportMoved();
	return true;
}

/* 42501 where policies of users may hide events that match; behind the log's lock they stay. */
static void
require_sight(void)
{
	if (EventsRowSecurity())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row security of table \"%s\" may hide events that match the condition", "events"),
				 errdetail("A condition is on all events that match."),
				 errhint("Append without a condition, or as a role that is above the policies.")));
}

/* The first event that matches, in the newest snapshot, or in that of the isolation level. */
static bool
find_match(MatchCondition *condition, bool newest)
{
	MatchingSnapshot snapshot = MatchingSnapshotTake(newest);
	TagSearch  *search = TagSearchBegin(condition->query, condition->tenant_id,
										condition->after_position,
										PositionOfNumber(POSITION_MAX_NUMBER),
										ForwardScanDirection, snapshot.log.snapshot);
	Event		event;

	condition->match = TagSearchNext(search, &event) ? EventCopy(&event) : NULL;
	TagSearchEnd(search);
	MatchingSnapshotRelease(snapshot);
	return condition->match != NULL;
}

/*
 * QE005, with the event in fields of their own for programs: its stream, its type as
 * column and its position as data type.  It is counted.
 */
static void
report_failed(AppendCondition *condition)
{
	const MatchCondition *failed = (const MatchCondition *) condition;
	const Event *match = failed->match;
	char	   *type = text_to_cstring(EventText(match, EVENT_EVENT_TYPE));
	char	   *position = psprintf(INT64_FORMAT, EventGlobalPosition(match));
	StreamKey	key;

	EventKey(match, &key);
	CounterAdd("conflict_counts", 0, true);
	ereport(ERROR,
			(errcode(ERRCODE_APPEND_CONDITION_FAILED),
			 errmsg("append condition failed: an event that matches is in the log"),
			 errdetail("Event \"%s\" of stream \"%s\" is at position %s, after position %lld.",
					   type, StreamKeyName(&key), position, (long long) failed->after_position),
			 errhint("Read again, decide again, and append with the position of the last event read."),
			 EventErrorFields(&key, type, position)));
}
