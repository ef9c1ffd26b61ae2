/*-------------------------------------------------------------------------
 * log_history.c
 *	  Which log is this, and where has it jumped?
 *
 * A log can lose its end: an asynchronous standby is promoted that had not got
 * everything, a backup is recovered to a point in time, an older dump is restored.
 * Readers elsewhere have seen what is lost.  If positions were drawn again from
 * there, such a reader would pass over new events, since it believes to have seen
 * them.  So after_failover() is called then.  It does two things:
 *
 * - Positions jump, above everything that anybody can have seen.  How much is
 *	 lost cannot be known here, so the jump is a number that no log loses: at
 *	 50,000 events a second it is the work of a day.  4,096 such jumps are possible.
 * - The log gets another identity, by which a reader can notice.
 *
 * A jump leaves a gap, and a reader must not have to wait at it, not even for
 * transactions that have begun to append behind it.  So it is written down
 * which positions have never been drawn, and readers pass them without asking.
 * These must then never be drawn: they count for the floor of those who draw, so
 * that neither setval nor a dump without the sequence brings them back.
 *
 * The identity before the first jump is a number that was put into a sequence by
 * chance when the extension was created.  A sequence, since pg_dump carries its
 * value over the one that a restored database was created with; a row would be
 * restored beside the new one.  So whoever restores a dump has the log with its
 * old identity, and calls after_failover() when the dump may be older than what
 * readers have seen.
 *
 * The jumps are cached; a change is told like that of a registry.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/relation_change.h"
#include "base/role_switch.h"
#include "log/event_id.h"
#include "log/events.h"
#include "log/log_end.h"
#include "log/log_history.h"
#include "log/position.h"
#include "log/published.h"

/* how far positions jump */
#define JUMP (INT64CONST(1) << 32)

/* One jump: positions between the two were never drawn. */
typedef struct Jump
{
	pg_uuid_t	log_id;			/* of the log from here on */
	int64		last_position;
	int64		first_position;
} Jump;

/* all jumps, in the order of positions */
static Jump *jumps = NULL;
static int	njumps = 0;
static bool jumps_valid = false;
static uint64 invalidations = 0;
static Oid	histories_relid = InvalidOid;

PG_FUNCTION_INFO_V1(cqrs_es_log_id);
PG_FUNCTION_INFO_V1(cqrs_es_after_failover);

static int64 log_floor(bool exact, Relation open_index);
static const Jump *last_jump(void);
static bool holds_nobody(void);
static void load_jumps(void);
static int	read_jumps(Jump **array);
static void invalidate_jumps(Oid relid);
static void first_log_id(pg_uuid_t *id);
static uint64 mix(uint64 number);

void
LogHistoryInit(void)
{
	PositionSetFloor(log_floor);
	RelationChangeObserve(invalidate_jumps);
}

/* SQL: log_id().  Takes SELECT on the log. */
Datum
cqrs_es_log_id(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));
	const Jump *jump;

	EventsCheckRights(ACL_SELECT);
	jump = last_jump();
	if (jump)
		*id = jump->log_id;
	else
		first_log_id(id);
	PG_RETURN_UUID_P(id);
}

/*
 * SQL: after_failover().  Positions go on behind a jump, and the log has another
 * identity when the transaction commits.  Returns the position above which they go
 * on.  Raises 25006 on a standby and in a read-only transaction, 2200H when there is
 * no room for a jump.
 *
 * Calls wait for each other, and each jumps.  The jump stays when the transaction
 * rolls back, as a gap like others.  QE601 where the log is followed.
 */
Datum
cqrs_es_after_failover(PG_FUNCTION_ARGS)
{
	PreventCommandDuringRecovery("after_failover()");
	PreventCommandIfReadOnly("after_failover()");
	PreventCommandIfParallelMode("after_failover()");
	PG_RETURN_INT64(LogHistoryJump());
}

/* The same, where something can be written. */
int64
LogHistoryJump(void)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.log_histories (log_id, last_position, first_position) VALUES ($1, $2, $3)",
		.nargs = 3,.argtypes = {UUIDOID, INT8OID, INT8OID}
	};
	pg_uuid_t	id;
	Datum		values[3] = {UUIDPGetDatum(&id)};
	int64		target;
	int64		last;
	RoleSwitch	saved;

	/* positions have jumped, whatever becomes of this transaction */
	if (PublishedIsFollowed())
		ereport(ERROR,
				(errcode(ERRCODE_LOG_FOLLOWS),
				 errmsg("positions of a log that is followed cannot jump"),
				 errhint("Call after_failover() at the publisher.")));
	LockRelationOid(ExtensionRelid("log_histories"), ShareRowExclusiveLock);

	/* what was drawn at this moment is below it, what will be is above */
	target = Max(PositionLastNumber(), POSITION_NUMBER(log_floor(true, NULL)));
	if (target >= POSITION_MAX_NUMBER - JUMP)
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				 errmsg("positions cannot jump: there are not enough left")));
	target += JUMP;
	last = PositionAdvance(target);

	/*
	 * when nobody holds a position, we neither, those behind the last event are dead as
	 * well
	 */
	if (PositionFirstOwn() == 0 && holds_nobody())
		last = Min(last, POSITION_NUMBER(LogEnd(PositionOfNumber(POSITION_MAX_NUMBER) + 1, true, NULL)));

	EventIdGenerate(&id);
	values[1] = Int64GetDatum(PositionOfNumber(last));
	values[2] = Int64GetDatum(PositionOfNumber(target) + 1);
	SPI_connect();
	saved = RoleSwitchToOwner("log_histories");
	(void) InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
	return PositionOfNumber(target);
}

/*
 * How far may a reader go that has seen all up to `position`, when the next event
 * it sees is `next`?  Over jumps that begin where it is.
 */
int64
LogHistoryPassJumps(int64 position, int64 next)
{
	int			i;

	if (next - position <= JUMP / 2)
		return position;		/* no need to look */
	load_jumps();
	for (i = 0; i < njumps; i++)
		if (POSITION_NODE(jumps[i].first_position) == POSITION_NODE(next) &&
			jumps[i].first_position <= next &&
			jumps[i].last_position <= position && position < jumps[i].first_position)
			position = jumps[i].first_position - 1;
	return position;
}

/* What PositionDraw must stay above: the end of the log, and what was jumped over. */
static int64
log_floor(bool exact, Relation open_index)
{
	int64		end = LogEnd(PositionOfNumber(POSITION_MAX_NUMBER) + 1, exact, open_index);
	const Jump *jump = last_jump();

	return jump ? Max(end, jump->first_position - 1) : end;
}

/* The last jump of this node, NULL when there was none; good until the cache is looked at again. */
static const Jump *
last_jump(void)
{
	int			i;

	load_jumps();
	for (i = njumps - 1; i >= 0; i--)
		if (POSITION_NODE(jumps[i].first_position) == PositionNode())
			return &jumps[i];
	return NULL;
}

/* Does no other transaction hold a position now? */
static bool
holds_nobody(void)
{
	LOCKTAG		tag;
	VirtualTransactionId *holders;
	int			n;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, PositionSequence());
	holders = GetLockConflicts(&tag, ShareLock, &n);
	pfree(holders);
	return n == 0;
}

/* Know the jumps, or that there are none. */
static void
load_jumps(void)
{
	uint64		started = invalidations;
	Jump	   *fresh = NULL;
	int			nfresh;

	if (jumps_valid)
		return;
	histories_relid = ExtensionRelidIfUpdated("log_histories");
	nfresh = ExtensionIsBlank("log_histories") ? 0 : read_jumps(&fresh);

	if (jumps)
		pfree(jumps);
	jumps = fresh;
	njumps = nfresh;
	jumps_valid = started == invalidations;
}

/* The jumps that are in the table, in an array that lasts; returns how many. */
static int
read_jumps(Jump **array)
{
	static InternalQuery query = {
		.sql = "SELECT log_id, last_position, first_position FROM cqrs_es.log_histories ORDER BY first_position"
	};
	Jump	   *fresh = NULL;
	RoleSwitch	saved;
	uint64		n;
	uint64		i;

	SPI_connect();
	saved = RoleSwitchToOwner("log_histories");
	n = InternalQueryRead(&query, NULL, NULL, GetLatestSnapshot());
	if (n > 0)
		fresh = MemoryContextAlloc(TopMemoryContext, n * sizeof(Jump));
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);

		fresh[i].log_id = *DatumGetUUIDP(InternalQueryDatum(&row, "log_id", NULL));
		fresh[i].last_position = DatumGetInt64(InternalQueryDatum(&row, "last_position", NULL));
		fresh[i].first_position = DatumGetInt64(InternalQueryDatum(&row, "first_position", NULL));
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	*array = fresh;
	return n;
}

static void
invalidate_jumps(Oid relid)
{
	if (relid == InvalidOid || !OidIsValid(histories_relid) || relid == histories_relid)
	{
		jumps_valid = false;
		invalidations++;
	}
}

/* The identity that the log was created with: 128 bits made of its number. */
static void
first_log_id(pg_uuid_t *id)
{
	uint64		number = PositionSequenceNumber(ExtensionRelid("log_number_seq"));
	uint64		halves[2];

	halves[0] = pg_hton64(mix(number));
	halves[1] = pg_hton64(mix(~number));
	memcpy(id->data, halves, sizeof(halves));
	id->data[6] = (id->data[6] & 0x0f) | 0x80;	/* version 8: of our own making */
	id->data[8] = (id->data[8] & 0x3f) | 0x80;	/* the variant of the RFC */
}

/* Spread the bits of a number over all 64. */
static uint64
mix(uint64 number)
{
	number = (number ^ (number >> 32)) * UINT64CONST(0xd6e8feb86659fd93);
	number = (number ^ (number >> 32)) * UINT64CONST(0xd6e8feb86659fd93);
	return number ^ (number >> 32);
}
