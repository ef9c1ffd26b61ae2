/*-------------------------------------------------------------------------
 * dead_letter.c
 *	  Events that a subscription gave up: what is written of them when a batch is
 *	  acknowledged, and those that are handed out once more.
 *
 * Behind a blocked one its stream is parked, so redriving it is a matter of the
 * parked stream.  A skipped one that is redriven comes alone, out of order and marked
 * so: it has a time from which it is due, and its own token while it is in hand.
 * A letter is open, and the only one of its event, until what is to be delivered of it
 * was acknowledged, or it is discarded: when it fails for good once more, it is what it
 * was.
 *
 * All of this is called between ShareEnter and ShareLeave, with the share locked.  Who
 * decides about letters (decision.c) or declares anew (declaration.c) does without.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"

#include "base/extension.h"
#include "base/internal_query.h"
#include "subscription/dead_letter.h"

#define LETTER_COLUMNS \
	"id, aggregate_type, aggregate_id, tenant_id, sequence, attempts, deliveries," \
	" is_suspect, retry_at"

#define IN_HAND \
	"subscription OPERATOR(pg_catalog.=) $1 AND retry_at IS NOT NULL AND batch OPERATOR(pg_catalog.=) $2"

static int64 next_id(void);
static void from_row(const QueryRow *row, DeadLetter *letter);

/*
 * To be called before the log is read for an event of which a letter may be written: nobody deletes
 * it then until the transaction ends (deleted_event.c).
 */
void
DeadLetterLock(void)
{
	LockRelationOid(ExtensionRelid("dead_letters"), RowExclusiveLock);
}

/* The event is blocked, or skipped, now; it may have been before, and redriven. */
void
DeadLetterWrite(const Subscription *subscription, const Event *event, const char *state,
				int attempts, const text *error)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.dead_letters (subscription, tenant_id, aggregate_type, aggregate_id,"
		" slot, sequence, global_position, event_id, event_type, error, attempts, state, id)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
		" ON CONFLICT (subscription, aggregate_type, aggregate_id, tenant_id, sequence)"
		" WHERE state IN ('blocked', 'skipped', 'redriven') DO UPDATE SET"
		" retry_at = NULL, batch = NULL, error = excluded.error, attempts = excluded.attempts, failed_at = excluded.failed_at,"
		" state = excluded.state",
		.nargs = 13,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT2OID, INT8OID, INT8OID,
		UUIDOID, TEXTOID, TEXTOID, INT4OID, TEXTOID, INT8OID}
	};
	StreamKey	key;
	Datum		values[13];
	char		nulls[13];

	EventKey(event, &key);
	values[0] = PointerGetDatum(subscription->name);
	values[1] = event->values[EVENT_TENANT_ID];
	values[2] = event->values[EVENT_AGGREGATE_TYPE];
	values[3] = event->values[EVENT_AGGREGATE_ID];
	values[4] = Int16GetDatum(SlotOf(&key));
	values[5] = event->values[EVENT_SEQUENCE];
	values[6] = event->values[EVENT_GLOBAL_POSITION];
	values[7] = event->values[EVENT_EVENT_ID];
	values[8] = event->values[EVENT_EVENT_TYPE];
	values[9] = PointerGetDatum(error);
	values[10] = Int32GetDatum(attempts);
	values[11] = CStringGetTextDatum(state);
	values[12] = Int64GetDatum(next_id());
	memset(nulls, ' ', sizeof(nulls));
	nulls[9] = error ? ' ' : 'n';
	(void) InternalQueryWriteNewest(&query, values, nulls);
}

/*
 * An id for a new letter.  A copy of the table need not have its sequence, which goes on
 * behind it then.
 */
static int64
next_id(void)
{
	static InternalQuery next = {
		.sql = "SELECT n.id, EXISTS (SELECT FROM cqrs_es.dead_letters AS d WHERE d.id OPERATOR(pg_catalog.=) n.id) AS is_taken"
		" FROM (SELECT pg_catalog.nextval('cqrs_es.dead_letter_ids'::pg_catalog.regclass) AS id OFFSET 0) AS n"
	};
	static InternalQuery go_on = {
		.sql = "SELECT pg_catalog.setval('cqrs_es.dead_letter_ids'::pg_catalog.regclass, max(d.id))"
		" FROM cqrs_es.dead_letters AS d"
	};

	for (;;)
	{
		QueryRow	row;

		CHECK_FOR_INTERRUPTS();
		(void) InternalQueryWriteNewest(&next, NULL, NULL);
		row = InternalQueryRow(0);
		if (!DatumGetBool(InternalQueryDatum(&row, "is_taken", NULL)))
			return DatumGetInt64(InternalQueryDatum(&row, "id", NULL));
		(void) InternalQueryWriteNewest(&go_on, NULL, NULL);
	}
}

/*
 * Letters of the share, which is free, that are due, of each stream the first; one
 * that was in hand when a consumer was lost comes alone.  A token that is left in a
 * row is an old one, then.
 */
DeadLetter *
DeadLettersDue(const Subscription *subscription, const Share *share, int max_count, int *n)
{
	static InternalQuery query = {
		.sql = "SELECT " LETTER_COLUMNS " FROM cqrs_es.dead_letters AS l"
		" WHERE subscription OPERATOR(pg_catalog.=) $1"
		" AND retry_at OPERATOR(pg_catalog.<=) $4"
		" AND state OPERATOR(pg_catalog.=) 'redriven'"
		" AND pg_catalog.get_bit($2, slot) OPERATOR(pg_catalog.=) 1"
		" AND NOT EXISTS (SELECT FROM cqrs_es.dead_letters AS e"
		" WHERE e.subscription OPERATOR(pg_catalog.=) $1"
		" AND e.aggregate_type OPERATOR(pg_catalog.=) l.aggregate_type"
		" AND e.aggregate_id OPERATOR(pg_catalog.=) l.aggregate_id"
		" AND e.tenant_id OPERATOR(pg_catalog.=) l.tenant_id"
		" AND e.sequence OPERATOR(pg_catalog.<) l.sequence"
		" AND e.state OPERATOR(pg_catalog.=) 'redriven' AND e.retry_at OPERATOR(pg_catalog.<=) $4)"
		" ORDER BY retry_at, global_position LIMIT $3",
		.nargs = 4,.argtypes = {TEXTOID, BITOID, INT4OID, TIMESTAMPTZOID}
	};
	Datum		values[4] = {PointerGetDatum(subscription->name), SlotSetToDatum(&share->slots),
		Int32GetDatum(max_count), TimestampTzGetDatum(GetCurrentTimestamp())};
	int			nrows = (int) ShareQuery(&query, values, NULL);
	DeadLetter *list = palloc(Max(nrows, 1) * sizeof(DeadLetter));
	int			i;

	*n = 0;
	for (i = 0; i < nrows; i++)
	{
		QueryRow	row = InternalQueryRow(i);

		from_row(&row, &list[*n]);
		if (!list[*n].is_suspect)
			(*n)++;
		else if (i == 0)
		{
			*n = 1;
			break;
		}
	}
	return list;
}

/* The letter of this stream that is in hand in this batch; NULL when there is none. */
DeadLetter *
DeadLetterInHand(const Subscription *subscription, const pg_uuid_t *token, const StreamKey *key)
{
	static InternalQuery query = {
		.sql = "SELECT " LETTER_COLUMNS " FROM cqrs_es.dead_letters WHERE " IN_HAND
		" AND aggregate_type OPERATOR(pg_catalog.=) $3 AND aggregate_id OPERATOR(pg_catalog.=) $4"
		" AND tenant_id OPERATOR(pg_catalog.=) $5",
		.nargs = 5,.argtypes = {TEXTOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[5] = {PointerGetDatum(subscription->name), UUIDPGetDatum(token),
		PointerGetDatum(key->aggregate_type), PointerGetDatum(key->aggregate_id),
		PointerGetDatum(key->tenant_id)};
	DeadLetter *letter;
	QueryRow	row;

	if (ShareQuery(&query, values, NULL) == 0)
		return NULL;
	row = InternalQueryRow(0);
	letter = palloc(sizeof(DeadLetter));
	from_row(&row, letter);
	return letter;
}

void
DeadLetterHandOut(const DeadLetter *letter, const pg_uuid_t *token)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.dead_letters SET batch = $2 WHERE id OPERATOR(pg_catalog.=) $1",
		.nargs = 2,.argtypes = {INT8OID, UUIDOID}
	};
	Datum		values[2] = {Int64GetDatum(letter->id), UUIDPGetDatum(token)};

	(void) InternalQueryWriteNewest(&query, values, NULL);
}

/* It has failed again: it is due once more at a time, or skipped when that is 0. */
void
DeadLetterFailed(const DeadLetter *letter, int attempts, TimestampTz retry_at, const text *error)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.dead_letters SET attempts = $2, retry_at = $3, error = $4,"
		" state = CASE WHEN $3 IS NULL THEN 'skipped' ELSE state END,"
		" failed_at = pg_catalog.clock_timestamp(), batch = NULL, is_suspect = false,"
		" deliveries = 0, lost_by = NULL WHERE id OPERATOR(pg_catalog.=) $1",
		.nargs = 4,.argtypes = {INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID}
	};
	Datum		values[4] = {Int64GetDatum(letter->id), Int32GetDatum(attempts),
		TimestampTzGetDatum(retry_at), PointerGetDatum(error)};
	char		nulls[4] = {' ', ' ', retry_at != 0 ? ' ' : 'n', error ? ' ' : 'n'};

	(void) InternalQueryWriteNewest(&query, values, nulls);
}

/* Those in hand are done. */
void
DeadLettersDone(const Subscription *subscription, const pg_uuid_t *token)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.dead_letters SET state = 'delivered', retry_at = NULL, batch = NULL,"
		" is_suspect = false, deliveries = 0, lost_by = NULL WHERE " IN_HAND,
		.nargs = 2,.argtypes = {TEXTOID, UUIDOID}
	};
	Datum		values[2] = {PointerGetDatum(subscription->name), UUIDPGetDatum(token)};

	(void) InternalQueryWriteNewest(&query, values, NULL);
}

/*
 * Streams that were blocked have gone on: of those in hand all that is in hand is
 * done.
 */
void
DeadLettersPassed(const Subscription *subscription, const pg_uuid_t *token)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.dead_letters AS l SET state = 'delivered' FROM cqrs_es.parked_streams AS p"
		" WHERE p.subscription OPERATOR(pg_catalog.=) $1 AND p.retry_at IS NOT NULL"
		" AND p.batch OPERATOR(pg_catalog.=) $2 AND l.subscription OPERATOR(pg_catalog.=) $1"
		" AND l.aggregate_type OPERATOR(pg_catalog.=) p.aggregate_type"
		" AND l.aggregate_id OPERATOR(pg_catalog.=) p.aggregate_id"
		" AND l.tenant_id OPERATOR(pg_catalog.=) p.tenant_id"
		" AND l.sequence OPERATOR(pg_catalog.>=) p.sequence AND l.sequence OPERATOR(pg_catalog.<=) p.handed_to"
		" AND l.state OPERATOR(pg_catalog.=) 'redriven' AND l.retry_at IS NULL",
		.nargs = 2,.argtypes = {TEXTOID, UUIDOID}
	};
	Datum		values[2] = {PointerGetDatum(subscription->name), UUIDPGetDatum(token)};

	(void) InternalQueryWriteNewest(&query, values, NULL);
}

/* The same of one stream, where all before a sequence is done. */
void
DeadLettersPassedBefore(const Subscription *subscription, const StreamKey *key, int64 sequence)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.dead_letters SET state = 'delivered'"
		" WHERE subscription OPERATOR(pg_catalog.=) $1"
		" AND aggregate_type OPERATOR(pg_catalog.=) $2 AND aggregate_id OPERATOR(pg_catalog.=) $3"
		" AND tenant_id OPERATOR(pg_catalog.=) $4 AND sequence OPERATOR(pg_catalog.<) $5"
		" AND state OPERATOR(pg_catalog.=) 'redriven' AND retry_at IS NULL",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID}
	};
	Datum		values[5] = {PointerGetDatum(subscription->name), PointerGetDatum(key->aggregate_type),
		PointerGetDatum(key->aggregate_id), PointerGetDatum(key->tenant_id), Int64GetDatum(sequence)};

	(void) InternalQueryWriteNewest(&query, values, NULL);
}

/* They are not in hand any more, and not done; as ParkedStreamsReturn. */
void
DeadLettersReturn(const Subscription *subscription, const pg_uuid_t *token, const text *lost_by)
{
	static InternalQuery give_back = {
		.sql = "UPDATE cqrs_es.dead_letters SET batch = NULL WHERE " IN_HAND,
		.nargs = 2,.argtypes = {TEXTOID, UUIDOID}
	};
	static InternalQuery lose = {
		.sql = "UPDATE cqrs_es.dead_letters SET batch = NULL, lost_by = $3, is_suspect = true,"
		" deliveries = CASE WHEN is_suspect THEN deliveries OPERATOR(pg_catalog.+) 1"
		" ELSE deliveries END WHERE " IN_HAND,
		.nargs = 3,.argtypes = {TEXTOID, UUIDOID, TEXTOID}
	};
	Datum		values[3] = {PointerGetDatum(subscription->name), UUIDPGetDatum(token),
		PointerGetDatum(lost_by)};

	(void) InternalQueryWriteNewest(lost_by ? &lose : &give_back, values, NULL);
}

static void
from_row(const QueryRow *row, DeadLetter *letter)
{
	letter->id = DatumGetInt64(InternalQueryDatum(row, "id", NULL));
	letter->key = StreamKeyOfRow(row);
	letter->sequence = DatumGetInt64(InternalQueryDatum(row, "sequence", NULL));
	letter->attempts = DatumGetInt32(InternalQueryDatum(row, "attempts", NULL));
	letter->deliveries = DatumGetInt32(InternalQueryDatum(row, "deliveries", NULL));
	letter->is_suspect = DatumGetBool(InternalQueryDatum(row, "is_suspect", NULL));
	letter->retry_at = DatumGetTimestampTz(InternalQueryDatum(row, "retry_at", NULL));
}
