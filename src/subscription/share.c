/*-------------------------------------------------------------------------
 * share.c
 *	  A part of a subscription: some slots, a position, at most one batch in hand.
 *
 * Invariant: of the streams in its slots every event that the subscription wants, up
 * to the share's position, is done; or it belongs to a parked stream, at the
 * sequence of that or behind it; or it is a dead letter.
 *
 * All that is done about a share, and about parked streams and letters of its slots,
 * is done under the lock of its row.  Whoever hands out takes a row that nobody has
 * locked, and passes over the others (SKIP LOCKED), so that consumers never wait
 * for each other.  A share without a batch in hand is free: it belongs to nobody.
 *
 * What a lock has waited for, or passed by, is not in snapshots taken before.  So
 * every look at anything else is one with the newest snapshot, taken after the lock.
 *
 * Slots move between shares only while both are locked and free and at the same
 * position; then the invariant holds for whichever has them.  Nor do they move
 * while something is suspect (batch.c): then what a batch that was lost had in hand
 * must stay together, or it is not found out which event it was.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/errors.h"
#include "base/internal_query.h"
#include "subscription/batch_token.h"
#include "subscription/share.h"

#define SHARE_COLUMNS \
	"s.share, s.slots, s.position, s.position_at, s.batch, s.batch_kind, s.batch_end, s.batch_count," \
	" s.handed_out_at, s.leased_until, s.consumer, s.has_notes, s.last_kind, s.alone_position, s.deliveries, s.lost_by, s.suspect_end," \
	" s.batch_limit, s.failures_in_row, s.circuit, s.retry_at, s.failed_position, s.attempts, s.error"

static Share *from_row(const QueryRow *row);
static BatchKind kind_of(const QueryRow *row, const char *column);
static int64 int64_of(const QueryRow *row, const char *column);
static int	int_of(const QueryRow *row, const char *column);
static Datum kind_name(BatchKind kind);
static Datum numbers_array(const int64 *numbers, int n);

/*
 * Begin to work at tables of subscriptions, as their owner, for users need no grants:
 * connects to SPI, so all that is palloc'd from here on is good until ShareLeave.
 */
RoleSwitch
ShareEnter(void)
{
	SPI_connect();
	return RoleSwitchToOwner("shares");
}

void
ShareLeave(const RoleSwitch *saved)
{
	RoleSwitchBack(saved);
	SPI_finish();
}

/* Read with the newest snapshot, which shows what this transaction did, too. */
uint64
ShareQuery(InternalQuery *query, Datum *values, const char *nulls)
{
	CommandCounterIncrement();
	return InternalQueryRead(query, values, nulls, GetLatestSnapshot());
}

/*
 * The name of the subscription whose share has this batch in hand, NULL when there is
 * none: whoever does not know the whole token learns nothing.  Nothing is locked; but of
 * which subscription a share is never changes.
 */
text *
ShareSubscription(const pg_uuid_t *token)
{
	static InternalQuery query = {
		.sql = "SELECT subscription FROM cqrs_es.shares WHERE share OPERATOR(pg_catalog.=) $1"
		" AND batch OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {INT8OID, UUIDOID}
	};
	Datum		values[2] = {Int64GetDatum(BatchTokenShare(token)), UUIDPGetDatum(token)};
	QueryRow	row;

	if (ShareQuery(&query, values, NULL) == 0)
		return NULL;
	row = InternalQueryRow(0);
	return DatumGetTextPCopy(InternalQueryDatum(&row, "subscription", NULL));
}

/*
 * Lock the share that is furthest behind, of those that are free or whose batch is
 * lost, since its lease is over; with `resume` first one whose batch the consumer
 * itself has in hand, lost or not.  One without a batch must be before a position.  NULL
 * when there is none that nobody has locked and that has not been tried before.
 */
Share *
ShareLockNext(const Subscription *subscription, const text *consumer, bool resume,
			  int64 before_position, const int64 *tried, int ntried)
{
	static InternalQuery query = {
		.sql = "SELECT " SHARE_COLUMNS " FROM cqrs_es.shares AS s"
		" WHERE s.subscription OPERATOR(pg_catalog.=) $1"
		" AND s.share OPERATOR(pg_catalog.<>) ALL ($4)"
		" AND (s.position OPERATOR(pg_catalog.<) $5 OR s.batch IS NOT NULL)"
		" AND CASE WHEN s.batch IS NULL"
		" THEN s.retry_at IS NULL OR s.retry_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()"
		" ELSE s.leased_until OPERATOR(pg_catalog.<) pg_catalog.clock_timestamp()"
		" OR ($3 AND s.consumer OPERATOR(pg_catalog.=) $2) END"
		" ORDER BY ($3 AND s.batch IS NOT NULL AND s.consumer OPERATOR(pg_catalog.=) $2) DESC, s.position, s.share"
		" LIMIT 1 FOR UPDATE SKIP LOCKED",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, BOOLOID, INT8ARRAYOID, INT8OID}
	};
	Datum		values[5] = {PointerGetDatum(subscription->name), PointerGetDatum(consumer),
		BoolGetDatum(resume), numbers_array(tried, ntried), Int64GetDatum(before_position)};
	QueryRow	row;

	if (InternalQueryWriteNewest(&query, values, NULL) == 0)
		return NULL;
	row = InternalQueryRow(0);
	return from_row(&row);
}

/* Lock the share of a subscription that has just one; NULL when there is none. */
Share *
ShareLockOnly(const text *subscription)
{
	static InternalQuery query = {
		.sql = "SELECT " SHARE_COLUMNS " FROM cqrs_es.shares AS s"
		" WHERE s.subscription OPERATOR(pg_catalog.=) $1 FOR UPDATE",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(subscription);
	QueryRow	row;

	/* somebody has emptied the table */
	if (InternalQueryWriteNewest(&query, &value, NULL) == 0)
		return NULL;
	row = InternalQueryRow(0);
	return from_row(&row);
}

/*
 * Lock the share of the subscription that has the batch in hand.  The lease may be over:
 * as long as nobody has taken the share, the batch is good.  QE401 when it is not in
 * hand any more; 55P03 when it is, but somebody else has the share locked, perhaps to
 * take it.
 */
Share *
ShareLockBatch(const Subscription *subscription, const pg_uuid_t *token)
{
	static InternalQuery lock = {
		.sql = "SELECT " SHARE_COLUMNS " FROM cqrs_es.shares AS s"
		" WHERE s.share OPERATOR(pg_catalog.=) $1 AND s.batch OPERATOR(pg_catalog.=) $2"
		" AND s.subscription OPERATOR(pg_catalog.=) $3 FOR UPDATE SKIP LOCKED",
		.nargs = 3,.argtypes = {INT8OID, UUIDOID, TEXTOID}
	};
	static InternalQuery look = {
		.sql = "SELECT FROM cqrs_es.shares AS s"
		" WHERE s.share OPERATOR(pg_catalog.=) $1 AND s.batch OPERATOR(pg_catalog.=) $2"
		" AND s.subscription OPERATOR(pg_catalog.=) $3",
		.nargs = 3,.argtypes = {INT8OID, UUIDOID, TEXTOID}
	};
	Datum		values[3] = {Int64GetDatum(BatchTokenShare(token)), UUIDPGetDatum(token),
		PointerGetDatum(subscription->name)};
	QueryRow	row;

	if (InternalQueryWriteNewest(&lock, values, NULL) == 0)
	{
		if (ShareQuery(&look, values, NULL) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("another transaction is about to take the batch, or to acknowledge it"),
					 errhint("Try again.")));
		ShareReportGone();
	}
	row = InternalQueryRow(0);
	return from_row(&row);
}

/* QE401: nobody has the batch of this token in hand. */
void
ShareReportGone(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_BATCH_NOT_YOURS),
			 errmsg("the batch is not in hand any more"),
			 errdetail("It was acknowledged or released, or its lease was over and its events are handed out again.")));
}

/*
 * Write the share as it is now; its row is locked.  The table has no CHECKs, which
 * the server would read and plan anew with each statement, as often as there are
 * batches; nobody else writes there.
 */
void
ShareStore(const Share *share)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.shares SET slots = $2, position = $3, position_at = $4,"
		" batch = $5, batch_kind = $6, batch_end = $7, batch_count = $8, handed_out_at = $9,"
		" leased_until = $10, consumer = $11, last_kind = $12, deliveries = $13, lost_by = $14,"
		" suspect_end = $15, batch_limit = $16, failures_in_row = $17, circuit = $18,"
		" retry_at = $19, failed_position = $20, attempts = $21, error = $22, alone_position = $23, has_notes = $24"
		" WHERE share OPERATOR(pg_catalog.=) $1",
		.nargs = 24,.argtypes = {INT8OID, BITOID, INT8OID, TIMESTAMPTZOID,
			UUIDOID, TEXTOID, INT8OID, INT4OID, TIMESTAMPTZOID,
			TIMESTAMPTZOID, TEXTOID, TEXTOID, INT4OID, TEXTOID,
			INT8OID, INT4OID, INT4OID, INT4OID,
		TIMESTAMPTZOID, INT8OID, INT4OID, TEXTOID, INT8OID, BOOLOID}
	};
	bool		in_hand = share->batch_kind != BATCH_NONE;
	Datum		values[24] = {Int64GetDatum(share->number), SlotSetToDatum(&share->slots),
		Int64GetDatum(share->position), TimestampTzGetDatum(share->position_at),
		UUIDPGetDatum(&share->batch), kind_name(share->batch_kind),
		Int64GetDatum(share->batch_end), Int32GetDatum(share->batch_count),
		TimestampTzGetDatum(share->handed_out_at), TimestampTzGetDatum(share->leased_until),
		PointerGetDatum(share->consumer), kind_name(share->last_kind),
		Int32GetDatum(share->deliveries), PointerGetDatum(share->lost_by),
		Int64GetDatum(share->suspect_end), Int32GetDatum(share->batch_limit),
		Int32GetDatum(share->failures_in_row), Int32GetDatum(share->circuit),
		TimestampTzGetDatum(share->retry_at), Int64GetDatum(share->failed_position),
		Int32GetDatum(share->attempts), PointerGetDatum(share->error),
		Int64GetDatum(share->alone_position), BoolGetDatum(share->has_notes)};
	char		nulls[24];

	Assert(!in_hand || (share->consumer && share->leased_until != 0));
	memset(nulls, ' ', sizeof(nulls));
	if (!in_hand)
		nulls[4] = nulls[5] = nulls[7] = nulls[8] = nulls[9] = 'n';
	if (share->batch_kind != BATCH_CURSOR)
		nulls[6] = 'n';
	nulls[10] = share->consumer ? ' ' : 'n';
	nulls[11] = share->last_kind != BATCH_NONE ? ' ' : 'n';
	nulls[13] = share->lost_by ? ' ' : 'n';
	nulls[14] = share->suspect_end != 0 ? ' ' : 'n';
	nulls[15] = share->batch_limit != 0 ? ' ' : 'n';
	nulls[18] = share->retry_at != 0 ? ' ' : 'n';
	nulls[19] = share->failed_position != 0 ? ' ' : 'n';
	nulls[21] = share->error ? ' ' : 'n';
	nulls[22] = share->alone_position != 0 ? ' ' : 'n';
	if (InternalQueryWriteNewest(&query, values, nulls) != 1)
		elog(ERROR, "share %lld has no row", (long long) share->number);
}

/* Nothing is in hand any more; to be stored. */
void
ShareFree(Share *share)
{
	share->last_kind = share->batch_kind;
	share->batch_kind = BATCH_NONE;
}

/* Half of the slots of the share, which is free, become a share of their own; to be stored. */
void
ShareSplit(const Subscription *subscription, Share *share)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.shares (subscription, slots, position, position_at, failures_in_row, circuit)"
		" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
		.nargs = 6,.argtypes = {TEXTOID, BITOID, INT8OID, TIMESTAMPTZOID, INT4OID, INT4OID}
	};
	SlotSet		half;
	Datum		values[6] = {PointerGetDatum(subscription->name), 0, Int64GetDatum(share->position),
		TimestampTzGetDatum(share->position_at), Int32GetDatum(share->failures_in_row),
		Int32GetDatum(share->circuit)};

	SlotSetHalve(&share->slots, &half);
	values[1] = SlotSetToDatum(&half);
	/* a copy of the tables need not have their sequences */
	while (InternalQueryWriteNewest(&query, values, NULL) == 0)
		CHECK_FOR_INTERRUPTS();
}

/*
 * Take the slots of at most so many others, which are free and at the same position;
 * to be stored.  Returns how many those were.
 */
int
ShareMerge(const Subscription *subscription, Share *share, int max_count)
{
	static InternalQuery lock = {
		.sql = "SELECT s.share, s.slots FROM cqrs_es.shares AS s"
		" WHERE s.subscription OPERATOR(pg_catalog.=) $1 AND s.share OPERATOR(pg_catalog.<>) $2"
		" AND s.position OPERATOR(pg_catalog.=) $3 AND s.batch IS NULL"
		" AND s.suspect_end IS NULL AND s.retry_at IS NULL LIMIT $4 FOR UPDATE SKIP LOCKED",
		.nargs = 4,.argtypes = {TEXTOID, INT8OID, INT8OID, INT4OID}
	};
	static InternalQuery drop = {
		.sql = "WITH forgotten AS (DELETE FROM cqrs_es.nacked_events"
		" WHERE share OPERATOR(pg_catalog.=) ANY ($1))"
		" DELETE FROM cqrs_es.shares WHERE share OPERATOR(pg_catalog.=) ANY ($1)",
		.nargs = 1,.argtypes = {INT8ARRAYOID}
	};
	Datum		values[4] = {PointerGetDatum(subscription->name), Int64GetDatum(share->number),
		Int64GetDatum(share->position), Int32GetDatum(max_count)};
	int			n = (int) InternalQueryWriteNewest(&lock, values, NULL);
	int64	   *numbers = palloc(Max(n, 1) * sizeof(int64));
	Datum		array;
	int			i;

	if (n == 0)
		return 0;
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		SlotSet		slots;

		numbers[i] = DatumGetInt64(InternalQueryDatum(&row, "share", NULL));
		SlotSetFromDatum(&slots, InternalQueryDatum(&row, "slots", NULL));
		SlotSetAdd(&share->slots, &slots);
	}
	array = numbers_array(numbers, n);
	(void) InternalQueryWriteNewest(&drop, &array, NULL);
	return n;
}

/* The lowest position of another free share that is further than this; 0 when there is none. */
int64
ShareNextPosition(const Subscription *subscription, const Share *share)
{
	static InternalQuery query = {
		.sql = "SELECT coalesce(pg_catalog.min(s.position), 0) AS position FROM cqrs_es.shares AS s"
		" WHERE s.subscription OPERATOR(pg_catalog.=) $1 AND s.batch IS NULL"
		" AND s.position OPERATOR(pg_catalog.>) $2",
		.nargs = 2,.argtypes = {TEXTOID, INT8OID}
	};
	Datum		values[2] = {PointerGetDatum(subscription->name), Int64GetDatum(share->position)};
	QueryRow	row;

	(void) ShareQuery(&query, values, NULL);
	row = InternalQueryRow(0);
	return DatumGetInt64(InternalQueryDatum(&row, "position", NULL));
}

/* In the current memory context. */
static Share *
from_row(const QueryRow *row)
{
	Share	   *share = palloc0(sizeof(Share));
	bool		isnull;
	Datum		batch = InternalQueryDatum(row, "batch", &isnull);

	share->number = int64_of(row, "share");
	SlotSetFromDatum(&share->slots, InternalQueryDatum(row, "slots", NULL));
	share->position = int64_of(row, "position");
	share->position_at = int64_of(row, "position_at");
	share->batch_kind = kind_of(row, "batch_kind");
	if (!isnull)
		share->batch = *DatumGetUUIDP(batch);
	share->batch_end = int64_of(row, "batch_end");
	share->batch_count = int_of(row, "batch_count");
	share->handed_out_at = int64_of(row, "handed_out_at");
	share->leased_until = int64_of(row, "leased_until");
	share->consumer = InternalQueryTextCopy(row, "consumer");
	share->has_notes = DatumGetBool(InternalQueryDatum(row, "has_notes", NULL));
	share->last_kind = kind_of(row, "last_kind");
	share->alone_position = int64_of(row, "alone_position");
	share->deliveries = int_of(row, "deliveries");
	share->lost_by = InternalQueryTextCopy(row, "lost_by");
	share->suspect_end = int64_of(row, "suspect_end");
	share->batch_limit = int_of(row, "batch_limit");
	share->failures_in_row = int_of(row, "failures_in_row");
	share->circuit = int_of(row, "circuit");
	share->retry_at = int64_of(row, "retry_at");
	share->failed_position = int64_of(row, "failed_position");
	share->attempts = int_of(row, "attempts");
	share->error = InternalQueryTextCopy(row, "error");
	return share;
}

static BatchKind
kind_of(const QueryRow *row, const char *column)
{
	bool		isnull;
	Datum		kind = InternalQueryDatum(row, column, &isnull);

	return isnull ? BATCH_NONE :
		*VARDATA_ANY(DatumGetTextPP(kind)) == 'c' ? BATCH_CURSOR : BATCH_RETRY;
}

/* A number, or a time; null is 0. */
static int64
int64_of(const QueryRow *row, const char *column)
{
	bool		isnull;
	Datum		value = InternalQueryDatum(row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

static int
int_of(const QueryRow *row, const char *column)
{
	bool		isnull;
	Datum		value = InternalQueryDatum(row, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

/* As a text, of none the empty one. */
static Datum
kind_name(BatchKind kind)
{
	return CStringGetTextDatum(kind == BATCH_CURSOR ? "cursor" : kind == BATCH_RETRY ? "retry" : "");
}

static Datum
numbers_array(const int64 *numbers, int n)
{
	Datum	   *elements = palloc(Max(n, 1) * sizeof(Datum));
	int			i;

	for (i = 0; i < n; i++)
		elements[i] = Int64GetDatum(numbers[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
