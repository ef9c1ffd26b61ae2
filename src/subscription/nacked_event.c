/*-------------------------------------------------------------------------
 * nacked_event.c
 *	  Events that failed in a batch in hand; they count when it is acknowledged.
 *
 * Until then nothing has happened: whoever dies between a nack and the ack leaves
 * the subscription as it was before the batch was handed out.  Of each stream the
 * first that failed is kept; those behind it come again with it.  A row of a batch
 * that was lost or released has no effect any more, but says how often the event has
 * failed already.
 *
 * Called between ShareEnter and ShareLeave, with the share locked.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/internal_query.h"
#include "subscription/batch_token.h"
#include "subscription/nacked_event.h"

#define NACKED_COLUMNS \
	"aggregate_type, aggregate_id, tenant_id, sequence, global_position, batch, attempts," \
	" retry_after, give_up, error"

/*
 * Note it with the batch in hand, in place of those behind it in its stream; the share
 * is to be stored.
 */
void
NackedEventStore(Share *share, const NackedEvent *nacked)
{
	static InternalQuery query = {
		.sql = "WITH behind AS (DELETE FROM cqrs_es.nacked_events WHERE share OPERATOR(pg_catalog.=) $1"
		" AND aggregate_type OPERATOR(pg_catalog.=) $2 AND aggregate_id OPERATOR(pg_catalog.=) $3"
		" AND tenant_id OPERATOR(pg_catalog.=) $4 AND sequence OPERATOR(pg_catalog.>) $5"
		" AND batch OPERATOR(pg_catalog.=) $7)"
		" INSERT INTO cqrs_es.nacked_events (share, aggregate_type, aggregate_id, tenant_id, sequence,"
		" global_position, batch, attempts, retry_after, give_up, error)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
		" ON CONFLICT (share, aggregate_type, aggregate_id, tenant_id, sequence) DO UPDATE SET"
		" batch = excluded.batch, attempts = excluded.attempts, retry_after = excluded.retry_after,"
		" give_up = excluded.give_up, error = excluded.error",
		.nargs = 11,.argtypes = {INT8OID, TEXTOID, TEXTOID, TEXTOID, INT8OID,
		INT8OID, UUIDOID, INT4OID, INTERVALOID, BOOLOID, TEXTOID}
	};
	Datum		values[11] = {Int64GetDatum(share->number),
		PointerGetDatum(nacked->key.aggregate_type), PointerGetDatum(nacked->key.aggregate_id),
		PointerGetDatum(nacked->key.tenant_id), Int64GetDatum(nacked->sequence),
		Int64GetDatum(nacked->global_position), UUIDPGetDatum(&share->batch),
		Int32GetDatum(nacked->attempts), IntervalPGetDatum(nacked->retry_after),
		BoolGetDatum(nacked->give_up), PointerGetDatum(nacked->error)};
	char		nulls[11];

	memset(nulls, ' ', sizeof(nulls));
	nulls[8] = nacked->retry_after ? ' ' : 'n';
	nulls[10] = nacked->error ? ' ' : 'n';
	(void) InternalQueryWriteNewest(&query, values, nulls);
	share->has_notes = true;
}

/* All of the share, in the order of the log; with a key those of that stream. */
NackedEvent *
NackedEvents(const Share *share, const StreamKey *key, int *n)
{
	static InternalQuery query = {
		.sql = "SELECT " NACKED_COLUMNS " FROM cqrs_es.nacked_events"
		" WHERE share OPERATOR(pg_catalog.=) $1 ORDER BY global_position, sequence",
		.nargs = 1,.argtypes = {INT8OID}
	};
	static InternalQuery of_stream = {
		.sql = "SELECT " NACKED_COLUMNS " FROM cqrs_es.nacked_events"
		" WHERE share OPERATOR(pg_catalog.=) $1 AND aggregate_type OPERATOR(pg_catalog.=) $2"
		" AND aggregate_id OPERATOR(pg_catalog.=) $3 AND tenant_id OPERATOR(pg_catalog.=) $4"
		" ORDER BY global_position, sequence",
		.nargs = 4,.argtypes = {INT8OID, TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[4] = {Int64GetDatum(share->number)};
	NackedEvent *list;
	int			i;

	*n = 0;
	if (!share->has_notes)
		return NULL;
	if (key)
	{
		values[1] = PointerGetDatum(key->aggregate_type);
		values[2] = PointerGetDatum(key->aggregate_id);
		values[3] = PointerGetDatum(key->tenant_id);
	}
	*n = (int) ShareQuery(key ? &of_stream : &query, values, NULL);
	list = palloc0(Max(*n, 1) * sizeof(NackedEvent));
	for (i = 0; i < *n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		bool		isnull;
		Datum		retry_after = InternalQueryDatum(&row, "retry_after", &isnull);

		list[i].key = StreamKeyOfRow(&row);
		list[i].sequence = DatumGetInt64(InternalQueryDatum(&row, "sequence", NULL));
		list[i].global_position = DatumGetInt64(InternalQueryDatum(&row, "global_position", NULL));
		list[i].is_current = share->batch_kind != BATCH_NONE &&
			BatchTokenEqual(DatumGetUUIDP(InternalQueryDatum(&row, "batch", NULL)), &share->batch);
		list[i].attempts = DatumGetInt32(InternalQueryDatum(&row, "attempts", NULL));
		if (!isnull)
		{
			list[i].retry_after = palloc(sizeof(Interval));
			*list[i].retry_after = *DatumGetIntervalP(retry_after);
		}
		list[i].give_up = DatumGetBool(InternalQueryDatum(&row, "give_up", NULL));
		list[i].error = InternalQueryTextCopy(&row, "error");
	}
	return list;
}

/* All of the share have had their effect, or will have none; it is to be stored. */
void
NackedEventsForget(Share *share)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.nacked_events WHERE share OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {INT8OID}
	};
	Datum		value = Int64GetDatum(share->number);

	(void) InternalQueryWriteNewest(&query, &value, NULL);
	share->has_notes = false;
}
