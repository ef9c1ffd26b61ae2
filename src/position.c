/*-------------------------------------------------------------------------
 * position.c
 *	  Global positions: how they are drawn, and which this backend drew.
 *
 * A position is a number from one sequence, with the number of this node in
 * the bits from 44 up, so that the logs of several nodes can be brought
 * together later; 9 bits of node keep it below 2^53, exact in every JSON
 * client.  The sequence must have CACHE 1.
 *
 * Two promises that horizon.c builds on:
 *
 * 1. nextval takes RowExclusiveLock on the sequence before it hands out a
 *	  number and keeps it until the top-level transaction has ended and its
 *	  rows are visible.  So on a primary, whoever may still fill a gap holds
 *	  that lock.
 * 2. Before its first number a transaction puts its xid into the WAL (an empty
 *	  record of 32 bytes, only where a standby could read it).  So on a
 *	  standby, whoever may still fill a gap below a visible event is known to
 *	  be running by the time that event is seen.
 *
 * Which positions are our own matters to three: rows that arrive with a
 * position this backend did not draw are restored ones (admission.c,
 * dispatch.c), and a reader does not hand out its own unsettled events
 * (horizon.c).  A range is enough: within a transaction no stranger's number
 * that lies between our first and our last can reach our triggers, except by
 * the hand of the table's owner.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/pg_control.h"
#include "commands/sequence.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/lmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inval.h"

#include "compat.h"
#include "cqrs_es.h"
#include "internal_query.h"
#include "position.h"
#include "tenancy.h"

int			cqrs_es_node_id = 0;

/* see PositionAdvance */
#define ADVANCE_AT_ONCE 1000

static Oid	sequence_relid = InvalidOid;	/* cache, see PositionSequence */

/* the positions drawn by the current transaction */
static LocalTransactionId own_lxid = InvalidLocalTransactionId;
static int64 own_first = 0;
static int64 own_last = 0;

/*
 * Of these, the last that next_position() handed out for rows that have not
 * arrived yet.  One is enough for a plain INSERT; more are open when its other
 * triggers insert events themselves.
 */
#define UNUSED_POSITIONS 16
static int64 unused[UNUSED_POSITIONS];
static int	oldest_unused = 0;

PG_FUNCTION_INFO_V1(cqrs_es_next_position);

static void invalidate_sequence(Datum arg, Oid relid);
static void keep_unused(int64 position);
static void announce_transaction(void);

void
PositionInit(void)
{
	DefineCustomIntVariable("cqrs_es.node_id",
							"The number of this node in global positions.",
							"Set it once, before the first event.",
							&cqrs_es_node_id, 0, 0, POSITION_MAX_NODE,
							PGC_SUSET, 0, NULL, NULL, NULL);
	CacheRegisterRelcacheCallback(invalidate_sequence, (Datum) 0);
}

/*
 * SQL: next_position(), the default of events.global_position.  A number
 * drawn in vain is a dead gap that every reader must prove, so it takes
 * INSERT on the log.
 */
Datum
cqrs_es_next_position(PG_FUNCTION_ARGS)
{
	int64		position;

	TenancyRequireEvents(CqrsEsRelid("events"), ACL_INSERT);
	position = PositionDraw();
	keep_unused(position);
	PG_RETURN_INT64(position);
}

/* The oid of the sequence, cached. */
Oid
PositionSequence(void)
{
	if (!OidIsValid(sequence_relid))
		sequence_relid = CqrsEsRelid("events_global_position_seq");
	return sequence_relid;
}

/*
 * Draw a new position.  Takes RowExclusiveLock on the sequence until the
 * transaction ends.  Raises 25006 in a read-only transaction, 2200H when the
 * numbers are used up.
 */
int64
PositionDraw(void)
{
	int64		position;

	if (own_lxid != compat_my_lxid())
	{
		announce_transaction();
		own_lxid = compat_my_lxid();
		own_first = own_last = 0;
		memset(unused, 0, sizeof(unused));
	}
	position = PositionOfNumber(nextval_internal(PositionSequence(), false));
	if (own_first == 0)
		own_first = position;
	own_last = position;
	return position;
}

/*
 * Was this position drawn by next_position() in the current transaction, and
 * not used yet?  True only once, so that no two events can have it.
 */
bool
PositionTake(int64 position)
{
	int			i;

	if (own_lxid != compat_my_lxid() || position == 0)
		return false;
	for (i = 0; i < UNUSED_POSITIONS; i++)
		if (unused[i] == position)
		{
			unused[i] = 0;
			return true;
		}
	return false;
}

/* Does the position lie in the range the current transaction drew? */
bool
PositionIsOwn(int64 position)
{
	return own_lxid == compat_my_lxid() && own_first != 0 &&
		position >= own_first && position <= own_last;
}

/* The first position drawn by the current transaction; 0 when it drew none. */
int64
PositionFirstOwn(void)
{
	return own_lxid == compat_my_lxid() ? own_first : 0;
}

/* The position on this node that has the number. */
int64
PositionOfNumber(int64 number)
{
	return (int64) cqrs_es_node_id << POSITION_NUMBER_BITS | number;
}

/*
 * The last number drawn by anyone, 0 when none was.  Reads the sequence's one
 * row, without the SELECT privilege that the SQL function would ask for.
 */
int64
PositionLastNumber(void)
{
	Relation	rel = relation_open(PositionSequence(), AccessShareLock);
	Buffer		buffer = ReadBuffer(rel, 0);
	HeapTupleData tuple;
	Form_pg_sequence_data data;
	ItemId		item;
	int64		number;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	item = PageGetItemId(BufferGetPage(buffer), FirstOffsetNumber);
	tuple.t_data = (HeapTupleHeader) PageGetItem(BufferGetPage(buffer), item);
	tuple.t_len = ItemIdGetLength(item);
	data = (Form_pg_sequence_data) GETSTRUCT(&tuple);
	number = data->is_called ? data->last_value : 0;
	UnlockReleaseBuffer(buffer);
	relation_close(rel, AccessShareLock);
	return number;
}

/*
 * A row has come with this number: never draw it again.  The sequence is set
 * forward by some more at a time, as a restore brings many.  Takes a lock that
 * waits for all who have drawn, so that it cannot be set back.
 */
void
PositionAdvance(int64 number)
{
	RoleSwitch	saved;

	if (number <= PositionLastNumber())
		return;
	LockRelationOid(PositionSequence(), ShareRowExclusiveLock);
	if (number <= PositionLastNumber())
		return;
	saved = RoleSwitchToOwner("events_global_position_seq");
	(void) DirectFunctionCall2(setval_oid, ObjectIdGetDatum(PositionSequence()),
							   Int64GetDatum(Min(number + ADVANCE_AT_ONCE, POSITION_MAX_NUMBER)));
	RoleSwitchBack(&saved);
}

static void
invalidate_sequence(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == sequence_relid)
		sequence_relid = InvalidOid;
}

/* Remember a position for its row; when there is no room, forget the oldest. */
static void
keep_unused(int64 position)
{
	int			i;

	for (i = 0; i < UNUSED_POSITIONS; i++)
		if (unused[i] == 0)
		{
			unused[i] = position;
			return;
		}
	unused[oldest_unused] = position;
	oldest_unused = (oldest_unused + 1) % UNUSED_POSITIONS;
}

/* Promise 2 above.  The record carries our xid in its header. */
static void
announce_transaction(void)
{
	char		nothing = 0;

	PreventCommandIfReadOnly("append_event()");
	(void) GetCurrentTransactionId();
	if (XLogStandbyInfoActive())
	{
		XLogBeginInsert();
		XLogRegisterData(&nothing, 1);
		(void) XLogInsert(RM_XLOG_ID, XLOG_NOOP);
	}
}
