/*-------------------------------------------------------------------------
 * parked_stream.c
 *	  Streams that wait behind an event that failed.
 *
 * A parked stream is one row: the sequence of the first event that is not done.  The
 * log has the rest, by the stream's own index.  Nothing of it is handed out by the
 * position of its share, which passes it by; when it is due it is handed out from
 * its sequence on, as far as the position has come.  When there is nothing left to
 * hand out so, all of it that is behind the position comes by the position again:
 * the row goes.  That is decided by who has the share locked and free, and nobody
 * else deletes rows, for a batch in hand was made without the stream.
 *
 * Rows belong to slots, not to shares.  All of this is called between ShareEnter
 * and ShareLeave, with the share locked, unless it says otherwise.  Who decides about
 * letters (decision.c) or declares anew (declaration.c) does without.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/internal_query.h"
#include "subscription/parked_stream.h"

#define PARKED_COLUMNS \
	"aggregate_type, aggregate_id, tenant_id, sequence, attempts, deliveries, suspect_to," \
	" retry_at, batch, handed_to"

#define KEY_IS(a, b, c) \
	"aggregate_type OPERATOR(pg_catalog.=) " a " AND aggregate_id OPERATOR(pg_catalog.=) " b \
	" AND tenant_id OPERATOR(pg_catalog.=) " c

/* the due and those in hand have a time, and an index by it */
#define IN_HAND \
	"subscription OPERATOR(pg_catalog.=) $1 AND retry_at IS NOT NULL AND batch OPERATOR(pg_catalog.=) $2"

static void from_row(const QueryRow *row, ParkedStream *parked);

/*
 * Parked streams of the share, which is free, that are due, the longest first.  One
 * that was in hand when a consumer was lost comes alone.  A token that is left in a
 * row is an old one, then.
 */
ParkedStream *
ParkedStreamsDue(const Subscription *subscription, const Share *share, int max_count, int *n)
{
	static InternalQuery query = {
		.sql = "SELECT " PARKED_COLUMNS " FROM cqrs_es.parked_streams WHERE subscription OPERATOR(pg_catalog.=) $1"
		" AND retry_at OPERATOR(pg_catalog.<=) $4"
		" AND pg_catalog.get_bit($2, slot) OPERATOR(pg_catalog.=) 1"
		" ORDER BY retry_at, global_position LIMIT $3",
		.nargs = 4,.argtypes = {TEXTOID, BITOID, INT4OID, TIMESTAMPTZOID}
	};
	Datum		values[4] = {PointerGetDatum(subscription->name), SlotSetToDatum(&share->slots),
		Int32GetDatum(max_count), TimestampTzGetDatum(GetCurrentTimestamp())};
	int			nrows = (int) ShareQuery(&query, values, NULL);
	ParkedStream *list = palloc(Max(nrows, 1) * sizeof(ParkedStream));
	int			i;

	*n = 0;
	for (i = 0; i < nrows; i++)
	{
		QueryRow	row = InternalQueryRow(i);

		from_row(&row, &list[*n]);
		if (list[*n].suspect_to < list[*n].sequence)
			(*n)++;
		else if (i == 0)
		{
			*n = 1;
			break;
		}
	}
	return list;
}

/* The stream's row; NULL when it is not parked. */
ParkedStream *
ParkedStreamFind(const Subscription *subscription, const StreamKey *key)
{
	static InternalQuery query = {
		.sql = "SELECT " PARKED_COLUMNS " FROM cqrs_es.parked_streams WHERE subscription OPERATOR(pg_catalog.=) $1 AND "
		KEY_IS("$2", "$3", "$4"),
		.nargs = 4,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[4] = {PointerGetDatum(subscription->name), PointerGetDatum(key->aggregate_type),
		PointerGetDatum(key->aggregate_id), PointerGetDatum(key->tenant_id)};
	ParkedStream *parked;
	QueryRow	row;

	if (ShareQuery(&query, values, NULL) == 0)
		return NULL;
	row = InternalQueryRow(0);
	parked = palloc(sizeof(ParkedStream));
	from_row(&row, parked);
	return parked;
}

/*
 * The stream waits with this event: until `retry_at`, or until somebody decides
 * when that is 0.  It may have been parked before.
 */
void
ParkedStreamPark(const Subscription *subscription, const StreamKey *key, int64 sequence,
				 int64 global_position, int attempts, TimestampTz retry_at, const text *error)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.parked_streams AS p (subscription, aggregate_type, aggregate_id,"
		" tenant_id, slot, sequence, global_position, attempts, retry_at, error)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
		" ON CONFLICT (subscription, aggregate_type, aggregate_id, tenant_id) DO UPDATE SET"
		" sequence = excluded.sequence, global_position = excluded.global_position,"
		" attempts = excluded.attempts, retry_at = excluded.retry_at, error = excluded.error,"
		" first_failed_at = CASE WHEN p.sequence OPERATOR(pg_catalog.=) excluded.sequence"
		" THEN p.first_failed_at ELSE excluded.first_failed_at END,"
		" failed_at = excluded.failed_at, batch = NULL, handed_to = NULL,"
		" deliveries = 0, lost_by = NULL",
		.nargs = 10,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT2OID, INT8OID, INT8OID,
		INT4OID, TIMESTAMPTZOID, TEXTOID}
	};
	Datum		values[10] = {PointerGetDatum(subscription->name), PointerGetDatum(key->aggregate_type),
		PointerGetDatum(key->aggregate_id), PointerGetDatum(key->tenant_id),
		Int16GetDatum(SlotOf(key)), Int64GetDatum(sequence), Int64GetDatum(global_position),
		Int32GetDatum(attempts), TimestampTzGetDatum(retry_at), PointerGetDatum(error)};
	char		nulls[10] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ',
		retry_at != 0 ? ' ' : 'n', error ? ' ' : 'n'};

	(void) InternalQueryWriteNewest(&query, values, nulls);
}

/* The stream is in hand up to a sequence. */
void
ParkedStreamHandOut(const Subscription *subscription, const ParkedStream *parked,
					const pg_uuid_t *token, int64 handed_to)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.parked_streams SET batch = $5, handed_to = $6"
		" WHERE subscription OPERATOR(pg_catalog.=) $1 AND " KEY_IS("$2", "$3", "$4"),
		.nargs = 6,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, UUIDOID, INT8OID}
	};
	Datum		values[6] = {PointerGetDatum(subscription->name),
		PointerGetDatum(parked->key.aggregate_type), PointerGetDatum(parked->key.aggregate_id),
		PointerGetDatum(parked->key.tenant_id), UUIDPGetDatum(token), Int64GetDatum(handed_to)};

	(void) InternalQueryWriteNewest(&query, values, NULL);
}

/*
 * Of the stream, as it was found, there is nothing up to the position: it comes by
 * the position from now on.
 */
void
ParkedStreamRejoin(const Subscription *subscription, const ParkedStream *parked)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.parked_streams WHERE subscription OPERATOR(pg_catalog.=) $1 AND "
		KEY_IS("$2", "$3", "$4") " AND sequence OPERATOR(pg_catalog.=) $5 AND retry_at IS NOT NULL",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID}
	};
	Datum		values[5] = {PointerGetDatum(subscription->name),
		PointerGetDatum(parked->key.aggregate_type), PointerGetDatum(parked->key.aggregate_id),
		PointerGetDatum(parked->key.tenant_id), Int64GetDatum(parked->sequence)};

	(void) InternalQueryWriteNewest(&query, values, NULL);
}

/* What of them was in hand is done; what is behind that is due. */
void
ParkedStreamsDone(const Subscription *subscription, const pg_uuid_t *token)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.parked_streams SET sequence = handed_to OPERATOR(pg_catalog.+) 1,"
		" attempts = 0, retry_at = pg_catalog.clock_timestamp(), error = NULL,"
		" batch = NULL, handed_to = NULL, deliveries = 0, lost_by = NULL WHERE " IN_HAND,
		.nargs = 2,.argtypes = {TEXTOID, UUIDOID}
	};
	Datum		values[2] = {PointerGetDatum(subscription->name), UUIDPGetDatum(token)};

	(void) InternalQueryWriteNewest(&query, values, NULL);
}

/*
 * They are not in hand any more, and nothing of them is done.  With `lost_by` that
 * consumer was lost with them: what was in hand is suspect and comes again one event
 * at a time, and losses of such a one count.
 */
void
ParkedStreamsReturn(const Subscription *subscription, const pg_uuid_t *token, const text *lost_by)
{
	static InternalQuery give_back = {
		.sql = "UPDATE cqrs_es.parked_streams SET batch = NULL, handed_to = NULL WHERE " IN_HAND,
		.nargs = 2,.argtypes = {TEXTOID, UUIDOID}
	};
	static InternalQuery lose = {
		.sql = "UPDATE cqrs_es.parked_streams SET batch = NULL, handed_to = NULL, lost_by = $3,"
		" deliveries = CASE WHEN suspect_to OPERATOR(pg_catalog.>=) sequence"
		" THEN deliveries OPERATOR(pg_catalog.+) 1 ELSE deliveries END,"
		" suspect_to = greatest(suspect_to, handed_to) WHERE " IN_HAND,
		.nargs = 3,.argtypes = {TEXTOID, UUIDOID, TEXTOID}
	};
	Datum		values[3] = {PointerGetDatum(subscription->name), UUIDPGetDatum(token),
		PointerGetDatum(lost_by)};

	(void) InternalQueryWriteNewest(lost_by ? &lose : &give_back, values, NULL);
}

static void
from_row(const QueryRow *row, ParkedStream *parked)
{
	bool		no_suspect;
	bool		no_batch;
	Datum		suspect_to = InternalQueryDatum(row, "suspect_to", &no_suspect);
	Datum		batch = InternalQueryDatum(row, "batch", &no_batch);
	bool		no_retry;
	Datum		retry_at = InternalQueryDatum(row, "retry_at", &no_retry);

	parked->key = StreamKeyOfRow(row);
	parked->sequence = DatumGetInt64(InternalQueryDatum(row, "sequence", NULL));
	parked->attempts = DatumGetInt32(InternalQueryDatum(row, "attempts", NULL));
	parked->deliveries = DatumGetInt32(InternalQueryDatum(row, "deliveries", NULL));
	parked->suspect_to = no_suspect ? 0 : DatumGetInt64(suspect_to);
	parked->retry_at = no_retry ? 0 : DatumGetTimestampTz(retry_at);
	parked->in_hand = !no_batch;
	parked->handed_to = 0;
	if (parked->in_hand)
	{
		parked->batch = *DatumGetUUIDP(batch);
		parked->handed_to = DatumGetInt64(InternalQueryDatum(row, "handed_to", NULL));
	}
}
