/*-------------------------------------------------------------------------
 * position.c
 *	  Global positions: how they are drawn, and which this backend drew.
 *
 * A position is a number from one sequence, with the number of this node in
 * the bits from 44 up, so that the logs of several nodes can be brought
 * together later; 9 bits of node keep it below 2^53, exact in every JSON
 * client.  The sequence must have CACHE 1.
 *
 * No position is drawn at or below one that is in the log.  The sequence alone
 * does not see to that: rows may have been restored or replicated below our
 * triggers, and somebody may have set it back.  So a transaction that draws does
 * this, in this order:
 *
 * 1. It puts its xid into the WAL (an empty record of 32 bytes, only where a
 *	  standby could read it).
 * 2. It takes RowExclusiveLock on the sequence, and keeps it until it has ended
 *	  and its rows are visible.  (nextval takes the same lock, but too late.)
 * 3. It looks at the end of the log (the floor, log_history.c), for each position
 *	  anew.  Once in a transaction is not enough: a long one draws while others
 *	  append, and when somebody sets the sequence back then, to a number above our
 *	  last and below theirs, nothing else tells.  (setval waits for nobody who draws,
 *	  and no invalidation comes of it.)
 * 4. It draws.  A number at or below the floor cannot be right, since what was
 *	  in the log before it was drawn must have been drawn before: then the
 *	  sequence is set forward, and it draws again.
 *
 * horizon.c builds on it.  A reader that sees an event in the log and asks then
 * who holds the lock finds everyone who may still fill a gap below that event:
 * whoever took the lock before the event's entry was in the index holds it, or
 * has ended; whoever took it later finds that entry and draws above.  This holds
 * wherever the sequence stands.  On a standby xids take the place of the lock:
 * by the time the event is seen there, those of the first kind are known to be
 * running.
 *
 * The sequence is set forward under the lock of its page, with the WAL record
 * that nextval writes: atomic beside nextval and setval, never backwards, and
 * without a stronger lock than drawing takes, so that nobody waits for it.
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
#include "utils/guc.h"
#include "utils/resowner.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/relation_change.h"
#include "base/setting.h"
#include "base/wakeup.h"
#include "log/events.h"
#include "log/position.h"

static int	cqrs_es_node_id = 0;

/* so many numbers PositionAdvance logs ahead, as nextval does with 32 */
#define ADVANCE_LOGGED 1000

/* so often is a number drawn before the sequence is declared unfit */
#define MAX_TRIES 100

static Oid	sequence_relid = InvalidOid;	/* cache, see PositionSequence */
static uint64 sequence_invalidations = 0;

/* the positions drawn by the current transaction */
static LocalTransactionId own_lxid = InvalidLocalTransactionId;
static int64 own_first = 0;
static int64 own_last = 0;

/* who knows what must not be drawn any more */
static PositionFloor find_floor = NULL;

/* who says whether any may be drawn */
static PositionGuard ask_guard = NULL;

/*
 * Of these, the last that were drawn for rows which our triggers have not seen yet.
 * One is enough for a plain INSERT; more are open when its other triggers insert events
 * themselves.
 */
#define UNUSED_POSITIONS 16
static struct
{
	int64		position;
	uint64		epoch;			/* in which it was drawn */
}			unused[UNUSED_POSITIONS];
static int	oldest_unused = 0;

/* see PositionBeginEpoch */
static uint64 epoch = 0;

PG_FUNCTION_INFO_V1(cqrs_es_next_position);

static void invalidate_sequence(Oid relid);
static void begin_drawing(void);
static void lock_sequence(void);
static void announce_transaction(void);
static Form_pg_sequence_data sequence_row(Buffer buffer, HeapTuple row);
static int64 last_number(Form_pg_sequence_data data);

void
PositionInit(void)
{
	SettingDefineInt("cqrs_es.node_id",
					 "The number of this node in global positions.",
					 "Set it once, before the first event.",
					 &cqrs_es_node_id, 0, 0, POSITION_MAX_NODE,
					 PGC_SUSET, 0);
	RelationChangeObserve(invalidate_sequence);
}

/* The number of this node: that of the setting, but where the log is distributed, the engine's. */
int
PositionNode(void)
{
	int			node = EventsNode();

	return node >= 0 ? node : cqrs_es_node_id;
}

/* Can it be the number of a node, as SET takes it? */
bool
PositionNodeIsValid(const char *node_id)
{
	int			node;

	return parse_int(node_id, &node, 0, NULL) && node >= 0 && node <= POSITION_MAX_NODE;
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

	EventsCheckRights(ACL_INSERT);
	position = PositionDraw(0, NULL);
	PositionKeep(position, epoch);
	PG_RETURN_INT64(position);
}

/* The oid of the sequence, cached. */
Oid
PositionSequence(void)
{
	Oid			relid = sequence_relid;

	if (!OidIsValid(relid))
	{
		uint64		started = sequence_invalidations;

		relid = ExtensionRelid("events_global_position_seq");
		/* kept only if nothing was said against it meanwhile */
		if (started == sequence_invalidations)
			sequence_relid = relid;
	}
	return relid;
}

/* Who knows what has been used already, beside the sequence; at Init. */
void
PositionSetFloor(PositionFloor floor)
{
	find_floor = floor;
}

/*
 * Whom to ask in each transaction that draws, when it has the lock of the sequence; at Init.
 * So whoever takes that lock in a mode that keeps others off is seen by them, or has waited
 * for them.
 */
void
PositionSetGuard(PositionGuard guard)
{
	ask_guard = guard;
}

/*
 * Draw a new position, above all that are in the log and above `after`.  Whoever
 * has the log open to write on the straight path hands its index on positions on,
 * others NULL; then the look at the log's end need not open it (log_end.c).  Takes
 * RowExclusiveLock on the sequence until the transaction ends.  Raises 25006 in a
 * read-only transaction, 2200H when the numbers are used up, 55000 when the
 * sequence does not rise.
 */
int64
PositionDraw(int64 after, Relation open_index)
{
	int64		floor_position;
	int			tries;

	begin_drawing();
	floor_position = find_floor(false, open_index);
	for (tries = 0; tries < MAX_TRIES; tries++)
	{
		int64		number = nextval_internal(PositionSequence(), false);
		int64		position = PositionOfNumber(number);

		/* the sequence may have been altered */
		if (number > POSITION_MAX_NUMBER)
			ereport(ERROR,
					(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
					 errmsg("positions are used up"),
					 errdetail("Number %lld would be a position of another node.",
							   (long long) number)));

		/* what the floor is made of may have been a row that was rolled back */
		if (position <= floor_position)
			floor_position = find_floor(true, open_index);
		if (position > floor_position &&
			(position > after || POSITION_NODE(after) != PositionNode()))
		{
			if (own_first == 0)
				own_first = position;
			own_last = position;
			return position;
		}
		CHECK_FOR_INTERRUPTS();
		(void) PositionAdvance(POSITION_NUMBER(position <= floor_position ? floor_position : after));
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("sequence \"%s\" does not rise above the positions in the log",
					"events_global_position_seq"),
			 errhint("It must have INCREMENT 1 and CACHE 1, and nobody may keep setting it back.")));
}

/*
 * Was this position drawn by next_position() in the current transaction, and
 * not used yet?  True only once, so that no two events can have it.  *drawn_in is
 * the epoch in which it was.
 */
bool
PositionTake(int64 position, uint64 *drawn_in)
{
	int			i;

	if (own_lxid != compat_my_lxid() || position == 0)
		return false;
	for (i = 0; i < UNUSED_POSITIONS; i++)
		if (unused[i].position == position)
		{
			unused[i].position = 0;
			*drawn_in = unused[i].epoch;
			return true;
		}
	return false;
}

/*
 * This backend has got a lock that must be held before the position of certain rows is
 * drawn (tag_slot.c), or is about to look at the log to decide by it (matching.c): a row
 * that it inserts later must not be below what it has seen.  When a position of the present
 * epoch was drawn, all such locks that are held were there, and all that was seen had been.
 */
void
PositionBeginEpoch(void)
{
	epoch++;
}

uint64
PositionEpoch(void)
{
	return epoch;
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
	return (int64) PositionNode() << POSITION_NUMBER_BITS | number;
}

/*
 * The last number drawn by anyone, 0 when none was.  Reads the sequence's one
 * row, without the SELECT privilege that the SQL function would ask for.
 */
int64
PositionLastNumber(void)
{
	return PositionSequenceNumber(PositionSequence());
}

/* The same of one of our sequences; 42P01 when it is gone. */
int64
PositionSequenceNumber(Oid sequence)
{
	Relation	rel = try_relation_open(sequence, AccessShareLock);
	Buffer		buffer;
	HeapTupleData row;
	int64		number;

	/* who waits for events holds no lock on it */
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("extension \"%s\" was dropped meanwhile", CQRS_ES_SCHEMA)));
	buffer = ReadBuffer(rel, 0);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	number = last_number(sequence_row(buffer, &row));
	UnlockReleaseBuffer(buffer);
	relation_close(rel, AccessShareLock);
	return number;
}

/*
 * Never draw this number again, nor one below it.  Returns the last that had been
 * drawn before.  Takes RowExclusiveLock on the sequence until the transaction ends.
 */
int64
PositionAdvance(int64 number)
{
	Relation	rel;
	Buffer		buffer;
	HeapTupleData row;
	Form_pg_sequence_data data;
	int64		before;

	PreventCommandIfReadOnly("setval()");
	lock_sequence();
	rel = relation_open(PositionSequence(), NoLock);
	(void) GetTopTransactionId();	/* so that the commit flushes our record */
	buffer = ReadBuffer(rel, 0);
	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	data = sequence_row(buffer, &row);
	before = last_number(data);
	if (before < number)
	{
		Page		page = BufferGetPage(buffer);
		int64		ahead = data->log_cnt - (number - before);
		bool		log = !data->is_called || ahead < 0 || PageGetLSN(page) <= GetRedoRecPtr();

		if (log)
			ahead = Min(ADVANCE_LOGGED, POSITION_MAX_NUMBER - number);
		START_CRIT_SECTION();
		MarkBufferDirty(buffer);
		data->is_called = true;
		if (log && RelationNeedsWAL(rel))
		{
			xl_seq_rec	record;
			XLogRecPtr	written;

			/* logged is the row as it will be when that many more are drawn */
			data->last_value = number + ahead;
			data->log_cnt = 0;
			XLogBeginInsert();
			XLogRegisterBuffer(0, buffer, REGBUF_WILL_INIT);
			compat_seq_rec_set(&record, rel);
			XLogRegisterData((char *) &record, sizeof(record));
			XLogRegisterData((char *) row.t_data, row.t_len);
			written = XLogInsert(RM_SEQ_ID, XLOG_SEQ_LOG);
			PageSetLSN(page, written);
		}
		data->last_value = number;
		data->log_cnt = ahead;
		END_CRIT_SECTION();
	}
	UnlockReleaseBuffer(buffer);
	relation_close(rel, NoLock);
	return before;
}

/*
 * Take the lock that drawing takes: readers wait for this transaction when they
 * meet a gap.  RowExclusiveLock on the sequence, until the transaction ends.
 */
void
PositionHoldReaders(void)
{
	lock_sequence();
}

static void
invalidate_sequence(Oid relid)
{
	if (relid == InvalidOid || !OidIsValid(sequence_relid) || relid == sequence_relid)
	{
		sequence_relid = InvalidOid;
		sequence_invalidations++;
	}
}

/*
 * Remember a position that was drawn in this transaction, in that epoch, for the row that is
 * about to be inserted with it; when there is no room, forget the oldest.
 */
void
PositionKeep(int64 position, uint64 drawn_in)
{
	int			i;

	/* a row that was kept out comes again */
	for (i = 0; i < UNUSED_POSITIONS; i++)
		if (unused[i].position == position)
			return;
	for (i = 0; i < UNUSED_POSITIONS; i++)
		if (unused[i].position == 0)
			break;
	if (i == UNUSED_POSITIONS)
	{
		i = oldest_unused;
		oldest_unused = (oldest_unused + 1) % UNUSED_POSITIONS;
	}
	unused[i].position = position;
	unused[i].epoch = drawn_in;
}

/* Steps 1 and 2 above. */
static void
begin_drawing(void)
{
	if (own_lxid == compat_my_lxid())
		return;
	announce_transaction();
	lock_sequence();
	ask_guard();
	own_first = own_last = 0;
	memset(unused, 0, sizeof(unused));
	own_lxid = compat_my_lxid();
}

/*
 * RowExclusiveLock on the sequence, of the top transaction: nextval, too, keeps it
 * when a subtransaction is rolled back.  Readers wait for whoever has it, so they are
 * woken when the transaction ends.
 */
static void
lock_sequence(void)
{
	ResourceOwner owner = CurrentResourceOwner;
	Oid			relid;

	WakeupAtEnd();
	CurrentResourceOwner = TopTransactionResourceOwner;
	do
	{
		relid = PositionSequence();
		LockRelationOid(relid, RowExclusiveLock);
	} while (relid != PositionSequence());
	CurrentResourceOwner = owner;
}

/* Step 1 above.  The record carries our xid in its header. */
static void
announce_transaction(void)
{
	char		nothing = 0;

	/* who appends has been refused before */
	PreventCommandIfReadOnly("next_position()");
	(void) GetCurrentTransactionId();
	if (XLogStandbyInfoActive())
	{
		XLogBeginInsert();
		XLogRegisterData(&nothing, 1);
		(void) XLogInsert(RM_XLOG_ID, XLOG_NOOP);
	}
}

/* The sequence's one row, on its locked page; also as a tuple that can be logged. */
static Form_pg_sequence_data
sequence_row(Buffer buffer, HeapTuple row)
{
	ItemId		item = PageGetItemId(BufferGetPage(buffer), FirstOffsetNumber);

	row->t_data = (HeapTupleHeader) PageGetItem(BufferGetPage(buffer), item);
	row->t_len = ItemIdGetLength(item);
	return (Form_pg_sequence_data) GETSTRUCT(row);
}

static int64
last_number(Form_pg_sequence_data data)
{
	return data->is_called ? data->last_value : data->last_value - 1;
}
