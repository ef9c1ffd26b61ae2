/*-------------------------------------------------------------------------
 * horizon.c
 *	  Up to which global position is the log settled?  The only file that
 *	  reasons about transactions in flight.
 *
 * A position is taken when an event is written and becomes visible at commit,
 * so "everything after the last one I saw" silently loses events: position 8
 * can be visible while 7 is still on its way.  A position is *settled* when it
 * is visible or can never become so (its transaction rolled back: a dead gap).
 * Readers get settled positions only, and no writer pays for that.
 *
 * A reader that meets a gap below an event it sees asks a question, once:
 *
 *	on a primary: who holds the lock on the position sequence at this moment?
 *	  Whoever took or may still take the missing position is among them, or has
 *	  ended before (position.c).  When just those have ended, a snapshot taken
 *	  after that shows their events, or proves every gap below the highest
 *	  position seen before the question dead.  Not "when nobody holds the
 *	  lock": under steady load that moment never comes.
 *
 *	on a hot standby, which has no such locks: which xid comes next?  Whoever
 *	  took the missing position had put its xid into the WAL before the event
 *	  above the gap was committed (position.c), so it lies below
 *	  that.  When a snapshot's xmin has reached the answer, all of those have
 *	  ended.  Here any writing transaction of the primary can hold a reader back.
 *
 * It need not be answered for the walk to go on: an event that fills the gap is seen
 * as soon as its transaction has ended, whoever else holds the lock.
 *
 * The answer of the last question is remembered by the backend, so old dead
 * gaps cost nothing; but only up to the last event that was visible then, for
 * numbers above it are drawn again when somebody sets the sequence back.  And a
 * question that ran into its time limit stays open and is taken up by the next
 * call, so that even impatient readers get on under steady load.
 *
 * That a number is settled stays true, but only a snapshot taken after it was
 * learnt is sure to show the events below it.  So a walk is told at its
 * beginning what was known before its snapshot was taken, and goes by that
 * alone.  What the backend learns while the walk is under way (an upcaster
 * reads the log, too) says nothing about the walk's snapshot.
 *
 * Nor is it sure to show them if the table got other files since then: pg_repack puts
 * old rows there in a transaction of its own.  So the log is locked first, then the
 * snapshot is taken (EventsSnapshotTake).
 *
 * What the isolation levels mean.  In READ COMMITTED a walk that has learnt
 * more begins anew, with a new snapshot.  Above it the snapshot is that of the
 * transaction and older than the question, so an event that settled since then
 * is not in it: a gap is passed only if a second, newest snapshot shows it
 * empty; else the walk ends there.
 *
 * A transaction's own events are not settled: it may still roll back, and its
 * positions are not yet anybody's.  The walk ends before the first of them.
 * Subtransactions do not matter: the lock belongs to the top-level
 * transaction.  A prepared transaction keeps the lock until it is decided.
 *
 * The log is that of this node.  Positions of another one (brought here by
 * replication) are not drawn from our sequence, so their gaps cannot be judged
 * here; and who had gone on behind an event of a higher node would never again
 * see one of ours.  Walks pass them by, and cursors of theirs are refused.  But when the log is
 * distributed, and the node has left the cluster, all who drew there have ended: its shards could leave only
 * then.  So a walk behind a position of that node is one without questions.  The
 * coordinator alone knows who has left: others may not have heard yet of one that has come.
 *
 * A reader that wants few of the events may find them by an index (event_filter.c),
 * which shows no gaps.  So its walk begins with that only as far as the log is known
 * to be settled: a question is asked about all that is visible, not waited for,
 * and what is known then is a bound up to which a snapshot that is taken after it
 * shows all that will ever be there.  From the bound on the walk goes on like that of
 * a reader who has consumed everything up to it.  Above READ COMMITTED nothing is
 * known of the snapshot, so the walk is an ordinary one from its beginning.
 *
 * A log that is replicated from elsewhere is judged by its publisher: publisher.c
 * says it there, published.c reads it here.  While it is being copied a walk hands out nothing.  A jump after a failover is judged by
 * what is written of it (log_history.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/compat.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/lock_holders.h"
#include "base/role_switch.h"
#include "base/setting.h"
#include "base/wakeup.h"
#include "log/event_scan.h"
#include "log/horizon.h"
#include "log/log_history.h"
#include "log/position.h"
#include "log/published.h"

/*
 * Whoever holds a gap open wakes us when it has ended; unless no code of ours runs
 * there, so look again after so long at most.
 */
#define LONGEST_SLEEP_MS	20

/* the same while nobody is there who could fill a gap */
#define LONGEST_IDLE_SLEEP_MS	1000

/* a monitor asks often, and waits for no more than those who are just writing */
#define MONITOR_WAIT_MS	100
#define MONITOR_EVENTS	100000

/* An open question: what has to end before `number` is settled. */
typedef struct Question
{
	bool		open;
	int64		number;			/* the highest number asked for */
	int64		visible;		/* the highest that was visible */
	bool		on_standby;
	VirtualTransactionId *holders;	/* primary: who held the lock, and ... */
	int			nholders;		/* ... has not been found ended yet */
	TransactionId next_xid;		/* standby */
} Question;

/* May a walk go over a gap? */
typedef enum Passage
{
	GAP_PASSED,
	GAP_HOLDS,
	GAP_NEEDS_SNAPSHOT			/* look again with a newer one */
} Passage;

static int	cqrs_es_settle_timeout = 1000;

/* what this backend knows, of the sequence with this oid, and this node */
static Oid	known_sequence = InvalidOid;
static int	known_node = 0;
static int64 settled_number = 0;
static Question question;

PG_FUNCTION_INFO_V1(cqrs_es_settled_position);
PG_FUNCTION_INFO_V1(cqrs_es_wait_for_position);
PG_FUNCTION_INFO_V1(cqrs_es_known_settled_position);

static bool look_for_settled(TimestampTz deadline, int64 most, int64 *position);
static bool settle(int64 number, TimestampTz deadline);
static bool settle_replicated(int64 number, TimestampTz deadline);
static void ask(int64 number);
static bool answered(void);
static void forget_other_sequence(void);
static int64 highest_visible_number(int64 up_to);
static void open_scan(HorizonScan *walk);
static void close_scan(HorizonScan *walk);
static bool open_filtered(HorizonScan *walk, const EventFilter *filter);
static void close_filtered(HorizonScan *walk);
static void init_walk(HorizonScan *walk, int64 after_position, TimestampTz deadline);
static int64 first_own_number(void);
static Passage pass_gap(HorizonScan *walk, int64 number);
static bool is_empty_now(int64 after_position, int64 before_position);

void
HorizonInit(void)
{
	SettingDefineInt("cqrs_es.settle_timeout",
					 "How long a reader of the log waits for events in flight when there is nothing else to hand out.",
					 "After that it returns no rows; 0 never waits.",
					 &cqrs_es_settle_timeout, 1000, 0, INT_MAX,
					 PGC_USERSET, GUC_UNIT_MS);
}

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/*
 * SQL: settled_position().  The position of the last event of this node that
 * read_all would hand out, 0 when there is none.  Good for statements that come
 * after it; above READ COMMITTED for the whole transaction.
 */
Datum
cqrs_es_settled_position(PG_FUNCTION_ARGS)
{
	EventsRequireRights(ACL_SELECT);
	PG_RETURN_INT64(HorizonSettled(HorizonDeadline()));
}

/*
 * SQL: wait_for_position(position, timeout interval).  Waits until everything
 * up to the position is settled; true when it is, false when time ran out.  A
 * position that has not been drawn yet, or has not reached this standby, is
 * waited for as well.  Above READ COMMITTED what one waited for would not
 * become visible: 25001.  Our own unsettled position: 55000.
 */
Datum
cqrs_es_wait_for_position(PG_FUNCTION_ARGS)
{
	int64		position = PG_GETARG_INT64(0);
	int64		number = POSITION_NUMBER(position);
	TimestampTz deadline;
	Waiter		waiter = {.reason = WAKEUP_SETTLED};

	EventsRequireRights(ACL_SELECT);
	forget_other_sequence();
	HorizonCheckPosition(position);
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("wait_for_position() needs READ COMMITTED"),
				 errdetail("What settles while this transaction waits cannot become visible in its snapshot.")));
	if (first_own_number() != 0 && number >= first_own_number())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("position %lld cannot settle before this transaction ends",
						(long long) position),
				 errdetail("The transaction appended events itself, from position %lld on.",
						   (long long) PositionFirstOwn())));

	deadline = ClockAfter(PG_GETARG_INTERVAL_P(1));
	while (HorizonLastDrawn() < number)
		if (!WakeupSleep(&waiter, deadline, HorizonLongestSleep(number)))
			PG_RETURN_BOOL(false);
	WakeupLeave(&waiter);
	PG_RETURN_BOOL(settle(number, deadline));
}

/*
 * SQL: known_settled_position().  The same for monitors: whoever the caller is, without
 * waiting for long, and without reading much.  NULL when that does not tell: this
 * session has never seen the log settled, so that any old gap stops it, or too much has
 * come since.
 */
Datum
cqrs_es_known_settled_position(PG_FUNCTION_ARGS)
{
	TimestampTz soon = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), MONITOR_WAIT_MS);
	RoleSwitch	saved = RoleSwitchToOwner("events");
	int64		position;
	bool		is_whole = look_for_settled(Min(soon, HorizonDeadline()), MONITOR_EVENTS, &position);

	is_whole = is_whole && (settled_number > 0 ||
							POSITION_NUMBER(position) == highest_visible_number(POSITION_MAX_NUMBER));
	RoleSwitchBack(&saved);
	if (!is_whole)
		PG_RETURN_NULL();
	PG_RETURN_INT64(position);
}

/*-------------------------------------------------------------------------
 * the settled walk
 *-------------------------------------------------------------------------
 */

/*
 * The position of this node's last settled event, 0 when there is none; a
 * snapshot taken after that shows all up to it.  Looks at the end first: when
 * all below the last visible event is settled, or becomes so until the
 * deadline, that is the answer; only else (a long transaction in flight, or an
 * isolation level above READ COMMITTED) it walks.
 */
int64
HorizonSettled(TimestampTz deadline)
{
	int64		position;

	(void) look_for_settled(deadline, PG_INT64_MAX, &position);
	return position;
}

/* The same in *position, and true; false when it would have to walk over more events than these. */
static bool
look_for_settled(TimestampTz deadline, int64 most, int64 *position)
{
	HorizonScan walk;
	Event		event;
	bool		goes_on;

	forget_other_sequence();
	if (IsolationUsesXactSnapshot())
		HorizonScanBegin(&walk, 0, deadline);
	else
	{
		int64		number = highest_visible_number(POSITION_MAX_NUMBER);

		*position = number == 0 ? 0 : PositionOfNumber(number);
		if (number == 0 || settle(number, deadline))
			return true;
		number = highest_visible_number(settled_number);
		HorizonScanBegin(&walk, number == 0 ? 0 : PositionOfNumber(number), 0);
	}
	while ((goes_on = HorizonScanNext(&walk, &event)) && most-- > 0)
		 /* to the end */ ;
	HorizonScanEnd(&walk);
	*position = walk.position;
	return !goes_on;
}

/*
 * Wait until all other transactions have ended that hold positions now, however
 * long that takes; the server's deadlock detector watches.  Writers who come
 * later are not waited for.
 */
void
HorizonAwaitWriters(void)
{
	LOCKTAG		tag;
	LockHolders holders = {0};

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, PositionSequence());
	LockHoldersAdd(&holders, &tag, ShareLock);
	LockHoldersAwait(&holders);
}

/*
 * Is everything up to the position settled, as far as is known without waiting?  Not
 * if it has not been drawn, or has not reached this standby.
 */
bool
HorizonIsSettled(int64 position)
{
	int64		number = POSITION_NUMBER(position);

	forget_other_sequence();
	return HorizonLastDrawn() >= number && settle(number, 0);
}

/*
 * How long, in milliseconds, may one sleep who waits for an event after `number`,
 * up to which all is seen, before looking again without having been woken?  Long,
 * where whoever appends does wake; not while someone is at it, who may be prepared,
 * and not where the log comes from elsewhere.
 */
long
HorizonLongestSleep(int64 number)
{
	LOCKTAG		tag;
	int			n = 0;

	if (RecoveryInProgress() || (PublishedIsSubscriber() && !PublishedIsFollowed()))
		return LONGEST_SLEEP_MS;
	if (PositionLastNumber() > number)
	{
		SET_LOCKTAG_RELATION(tag, MyDatabaseId, PositionSequence());
		pfree(GetLockConflicts(&tag, ShareLock, &n));
	}
	return n > 0 ? LONGEST_SLEEP_MS : LONGEST_IDLE_SLEEP_MS;
}

/* 22023 unless it is a position of this node, or 0. */
void
HorizonCheckPosition(int64 position)
{
	if (position < 0 || (position > 0 && POSITION_NODE(position) != PositionNode()))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position %lld is not one of this node", (long long) position)));
}

/*
 * 22023 unless a reader of this node's log can have come to the position.  One
 * that no node draws is just behind everything.
 */
void
HorizonCheckCursor(int64 after_position)
{
	if (after_position < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("after_position must not be negative")));
	if (after_position > 0 && POSITION_NODE(after_position) != PositionNode() &&
		POSITION_NODE(after_position) <= POSITION_MAX_NODE &&
		!EventsNodeHasLeft(POSITION_NODE(after_position)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("position %lld is not one of this node", (long long) after_position),
				 errdetail("It is of node %d, and this is node %d.",
						   (int) POSITION_NODE(after_position), PositionNode()),
				 errhint("Go on after the last event of this node that was read. Events of other nodes are not read in this way.")));
}

/*
 * Begin a walk behind after_position, which the caller has consumed, so that
 * everything up to it counts as settled; 0 is where this node's log begins.  The
 * walk waits for a gap until `deadline`, and only while it has nothing to hand
 * out.
 */
void
HorizonScanBegin(HorizonScan *walk, int64 after_position, TimestampTz deadline)
{
	init_walk(walk, after_position, deadline);
	open_scan(walk);
}

/*
 * The same for a caller that wants some events only, and looks at each whether it is one
 * (EventFilterMatches): others may be left out.  The filter stays the caller's.
 */
void
HorizonScanBeginFiltered(HorizonScan *walk, int64 after_position, TimestampTz deadline,
						 const EventFilter *filter)
{
	init_walk(walk, after_position, deadline);
	if (!open_filtered(walk, filter))
		open_scan(walk);
}

static void
init_walk(HorizonScan *walk, int64 after_position, TimestampTz deadline)
{
	int64		node = POSITION_NODE(after_position);

	forget_other_sequence();
	walk->position = after_position;
	walk->is_final = after_position > 0 && node != PositionNode() && node <= POSITION_MAX_NODE &&
		EventsNodeHasLeft(node);
	walk->before_node = walk->is_final ? node << POSITION_NUMBER_BITS : PositionOfNumber(0);
	walk->number = Min(Max(after_position - walk->before_node, 0), POSITION_MAX_NUMBER);
	walk->deadline = deadline;
	memset(&walk->waiter, 0, sizeof(walk->waiter));
	walk->waiter.reason = WAKEUP_SETTLED;
	walk->handed_out = false;
	walk->filtered = NULL;
	/* what is seen to be copied was so before the snapshot is taken */
	walk->is_closed = PublishedIsCopying();
}

/*
 * The next settled event; false at the end or at a gap that cannot be passed.
 * The event is good until the next call.
 */
bool
HorizonScanNext(HorizonScan *walk, Event *event)
{
	if (walk->is_closed)
		return false;
	if (walk->filtered)
	{
		if (EventFilterNext(walk->filtered, event))
		{
			walk->position = EventGlobalPosition(event);
			return true;
		}
		close_filtered(walk);
		walk->number = walk->filtered_to;
		walk->position = walk->before_node + walk->number;
		open_scan(walk);
	}
	while (EventScanNext(walk->scan, event))
	{
		int64		position = EventGlobalPosition(event);
		int64		number = position - walk->before_node;
		int64		own = walk->is_final ? 0 : first_own_number();
		Passage		passage;

		if (number > POSITION_MAX_NUMBER || (own != 0 && number >= own))
			return false;
		walk->number = LogHistoryPassJumps(walk->before_node + walk->number, position) -
			walk->before_node;
		passage = pass_gap(walk, number);
		if (passage == GAP_HOLDS)
			return false;
		if (passage == GAP_PASSED)
		{
			walk->number = number;
			walk->position = position;
			return true;
		}
		close_scan(walk);
		open_scan(walk);
	}
	return false;
}

/*
 * The next event, if it is at the same position as the one before: rows that were
 * replicated or restored may share one.  Whoever stops in the middle of the walk
 * takes these along, for reading goes on behind the position.
 */
bool
HorizonScanNextTied(HorizonScan *walk, Event *event)
{
	return (walk->filtered ? EventFilterNext(walk->filtered, event) :
			EventScanNext(walk->scan, event)) &&
		EventGlobalPosition(event) == walk->position;
}

void
HorizonScanEnd(HorizonScan *walk)
{
	WakeupLeave(&walk->waiter);
	if (walk->filtered)
		close_filtered(walk);
	else
		close_scan(walk);
}

/*
 * May the walk go on to event `number`, over the gap below it, if there is one?
 * By what was known before the walk's snapshot; else a question is asked, and
 * its answer is good for newer snapshots only.  While it is open, too, one is looked at
 * now and then, for whoever has the missing number may have ended before the others.
 */
static Passage
pass_gap(HorizonScan *walk, int64 number)
{
	/* with something to hand out, ask but do not wait */
	TimestampTz deadline = walk->handed_out ? 0 : walk->deadline;

	if (number <= walk->number + 1 || number <= walk->settled_number + 1)
		return GAP_PASSED;

	if (!IsolationUsesXactSnapshot())
		return settle(number - 1, 0) || WakeupSleep(&walk->waiter, deadline, LONGEST_SLEEP_MS) ?
			GAP_NEEDS_SNAPSHOT : GAP_HOLDS;
	if (!walk->is_final && !settle(number - 1, deadline))
		return GAP_HOLDS;
	return is_empty_now(walk->before_node + walk->number, walk->before_node + number) ?
		GAP_PASSED : GAP_HOLDS;
}

/* Is nothing committed between the two positions, as of now? */
static bool
is_empty_now(int64 after_position, int64 before_position)
{
	LogSnapshot snapshot = EventsSnapshotTake(true);
	EventScan  *scan = EventScanLog(after_position, ForwardScanDirection, snapshot.snapshot);
	Event		event;
	bool		empty;

	empty = !EventScanNext(scan, &event) || EventGlobalPosition(&event) >= before_position;
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	return empty;
}

/*
 * First what is known, then the snapshot.  Above READ COMMITTED nothing is: the
 * snapshot may be older than the transaction (SET TRANSACTION SNAPSHOT).
 */
static void
open_scan(HorizonScan *walk)
{
	walk->settled_number = IsolationUsesXactSnapshot() ? 0 :
		walk->is_final ? POSITION_MAX_NUMBER : settled_number;
	walk->snapshot = EventsSnapshotTake(false);
	walk->scan = EventScanLog(walk->before_node + walk->number, ForwardScanDirection,
							  walk->snapshot.snapshot);
}

static void
close_scan(HorizonScan *walk)
{
	EventScanEnd(walk->scan);
	EventsSnapshotRelease(walk->snapshot);
}

/*
 * The part of the walk that an index finds: up to what is known to be settled before
 * the snapshot is taken.  False when there is no such part, or no such index.
 */
static bool
open_filtered(HorizonScan *walk, const EventFilter *filter)
{
	int64		own = first_own_number();
	int64		visible;

	if (walk->is_closed || walk->is_final || IsolationUsesXactSnapshot() || !EventFilterHasIndex(filter))
		return false;
	visible = highest_visible_number(POSITION_MAX_NUMBER);
	/* where a publisher decides, it is asked only when a gap is met */
	if (visible > walk->number && !PublishedDecides(visible))
		(void) settle(visible, 0);
	walk->filtered_to = Min(settled_number, visible);
	if (own != 0)
		walk->filtered_to = Min(walk->filtered_to, own - 1);
	if (walk->filtered_to <= walk->number)
		return false;
	walk->filter = filter;
	EventFilterLock(filter);
	walk->snapshot = EventsSnapshotTake(false);
	walk->filtered = EventFilterScan(filter, walk->before_node + walk->number,
									 walk->before_node + walk->filtered_to,
									 walk->snapshot.snapshot);
	if (walk->filtered == NULL)
	{
		EventsSnapshotRelease(walk->snapshot);
		EventFilterUnlock(filter);
	}
	return walk->filtered != NULL;
}

static void
close_filtered(HorizonScan *walk)
{
	EventFilterEnd(walk->filtered);
	EventsSnapshotRelease(walk->snapshot);
	EventFilterUnlock(walk->filter);
	walk->filtered = NULL;
}

/*-------------------------------------------------------------------------
 * question and answer
 *-------------------------------------------------------------------------
 */

/*
 * Is everything up to `number` settled?  The caller knows that `number` has
 * been drawn, having seen it, or one above it.  Waits until `deadline`, then
 * answers false and leaves the question open for the next call.  A snapshot
 * taken after a true answer shows all of it.
 */
static bool
settle(int64 number, TimestampTz deadline)
{
	Waiter		waiter = {.reason = WAKEUP_SETTLED};

	/* of what is drawn elsewhere nobody's lock tells here */
	if (settled_number < number && PublishedDecides(number))
		return settle_replicated(number, deadline);
	while (settled_number < number)
	{
		if (!question.open)
			ask(number);
		if (answered())
		{
			question.open = false;
			settled_number = Max(settled_number, Min(question.number, question.visible));
			if (question.number >= number)
				break;
			continue;
		}
		if (!WakeupSleep(&waiter, deadline, LONGEST_SLEEP_MS))
			return false;
	}
	WakeupLeave(&waiter);
	return true;
}

/* The same of a log that is replicated from elsewhere: its publisher has to say so. */
static bool
settle_replicated(int64 number, TimestampTz deadline)
{
	Waiter		waiter = {.reason = WAKEUP_SETTLED};

	for (;;)
	{
		int64		published = PublishedNumber();

		settled_number = Max(settled_number, published);
		if (settled_number >= number)
			break;
		if (published == 0)
			PublishedWarn(number);
		if (!WakeupSleep(&waiter, deadline, LONGEST_SLEEP_MS))
			return false;
	}
	WakeupLeave(&waiter);
	return true;
}

/*
 * Open a question about everything that is visible now, at least `number`.  Where
 * the log is replicated, not about what was drawn elsewhere.
 */
static void
ask(int64 number)
{
	int64		drawn = PositionLastNumber();
	int64		visible = highest_visible_number(POSITION_MAX_NUMBER);

	if (visible > drawn && PublishedIsSubscriber())
		visible = drawn;
	question.number = Max(number, visible);
	question.visible = visible;
	question.on_standby = RecoveryInProgress();
	if (question.on_standby)
		question.next_xid = ReadNextTransactionId();
	else
	{
		LOCKTAG		tag;
		VirtualTransactionId *holders;
		int			n;

		SET_LOCKTAG_RELATION(tag, MyDatabaseId, PositionSequence());
		holders = GetLockConflicts(&tag, ShareLock, &n);
		if (question.holders)
			pfree(question.holders);
		question.holders = NULL;
		question.nholders = 0;
		question.holders = MemoryContextAlloc(TopMemoryContext,
											  Max(n, 1) * sizeof(VirtualTransactionId));
		memcpy(question.holders, holders, n * sizeof(VirtualTransactionId));
		question.nholders = n;
	}
	question.open = true;
}

/* Have all ended whom the question found? */
static bool
answered(void)
{
	int			left = 0;
	int			i;

	if (question.on_standby)
		return TransactionIdFollowsOrEquals(GetLatestSnapshot()->xmin, question.next_xid);
	for (i = 0; i < question.nholders; i++)
		if (!VirtualXactLock(question.holders[i], false))
			question.holders[left++] = question.holders[i];
	question.nholders = left;
	return left == 0;
}

/*
 * What is known is known of one sequence: the extension may have been created
 * anew, or the sequence set back; and of one node, of several whose logs are received.
 */
static void
forget_other_sequence(void)
{
	if (known_sequence != PositionSequence() || known_node != PositionNode() ||
		settled_number > PositionLastNumber())
	{
		known_sequence = PositionSequence();
		known_node = PositionNode();
		settled_number = 0;
		question.open = false;
	}
}

/*
 * The number of the last visible event of this node up to a number, leaving
 * out what this transaction has written itself; 0 when there is none.
 */
static int64
highest_visible_number(int64 up_to)
{
	int64		own = first_own_number();
	int64		bound = PositionOfNumber(own != 0 ? Min(up_to, own - 1) : up_to);
	LogSnapshot snapshot = EventsSnapshotTake(true);
	EventScan  *scan;
	Event		event;
	int64		number = 0;

	scan = EventScanLog(bound, BackwardScanDirection, snapshot.snapshot);
	if (EventScanNext(scan, &event) &&
		POSITION_NODE(EventGlobalPosition(&event)) == PositionNode())
		number = POSITION_NUMBER(EventGlobalPosition(&event));
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	return number;
}

/*
 * The first number drawn by the current transaction, 0 when it drew none;
 * whatever node it drew for.
 */
static int64
first_own_number(void)
{
	return POSITION_NUMBER(PositionFirstOwn());
}

/*
 * The last number drawn, here or where the log is replicated or restored from.  A
 * standby sees the sequence some numbers ahead of what was drawn (the server logs
 * them in portions), so there it is the last one with a visible event.
 */
int64
HorizonLastDrawn(void)
{
	int64		visible = highest_visible_number(POSITION_MAX_NUMBER);

	return RecoveryInProgress() ? visible : Max(visible, PositionLastNumber());
}

/* When a walk that starts now stops waiting: after cqrs_es.settle_timeout. */
TimestampTz
HorizonDeadline(void)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), cqrs_es_settle_timeout);
}
