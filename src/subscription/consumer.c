/*-------------------------------------------------------------------------
 * consumer.c
 *	  Who asks for events.
 *
 * A subscription has as many shares as consumers that have been seen lately, so that
 * each finds one.  A consumer is a name that receive_events was called with; nothing
 * is registered, and nobody is told when one goes.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"

#include "base/extension.h"
#include "base/internal_query.h"
#include "subscription/consumer.h"
#include "subscription/share.h"

/* names may be new with each start */
#define FORGOTTEN_AFTER "'1 h'"

static bool is_alone(const text *subscription, const text *consumer);
static uint32 hash_text(const text *value);

/* The consumer is there, which is noted once a second at most.  Waits for nobody. */
void
ConsumerSeen(const Subscription *subscription, const text *consumer)
{
	static InternalQuery query = {
		.sql = "SELECT FROM cqrs_es.consumers WHERE subscription OPERATOR(pg_catalog.=) $1"
		" AND consumer OPERATOR(pg_catalog.=) $2 AND seen_at OPERATOR(pg_catalog.>)"
		" (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) " CONSUMER_NOTED_EVERY "::interval)",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	Datum		values[2] = {PointerGetDatum(subscription->name), PointerGetDatum(consumer)};

	if (ShareQuery(&query, values, NULL) == 0)
		ConsumerNote(subscription, consumer);
}

/* Note that the consumer is there.  Waits for nobody. */
void
ConsumerNote(const Subscription *subscription, const text *consumer)
{
	static InternalQuery look = {
		.sql = "SELECT FROM cqrs_es.consumers WHERE subscription OPERATOR(pg_catalog.=) $1"
		" AND consumer OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	static InternalQuery note = {
		.sql = "UPDATE cqrs_es.consumers SET seen_at = pg_catalog.clock_timestamp()"
		" WHERE (subscription, consumer) IN (SELECT c.subscription, c.consumer FROM cqrs_es.consumers AS c"
		" WHERE c.subscription OPERATOR(pg_catalog.=) $1 AND c.consumer OPERATOR(pg_catalog.=) $2"
		" FOR UPDATE SKIP LOCKED)",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	static InternalQuery begin = {
		.sql = "WITH gone AS (DELETE FROM cqrs_es.consumers WHERE (subscription, consumer) IN"
		" (SELECT c.subscription, c.consumer FROM cqrs_es.consumers AS c"
		" WHERE c.subscription OPERATOR(pg_catalog.=) $1 AND c.seen_at OPERATOR(pg_catalog.<)"
		" (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) " FORGOTTEN_AFTER "::interval)"
		" FOR UPDATE SKIP LOCKED))"
		" INSERT INTO cqrs_es.consumers (subscription, consumer) VALUES ($1, $2) ON CONFLICT DO NOTHING",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	Datum		values[2] = {PointerGetDatum(subscription->name), PointerGetDatum(consumer)};

	if (ShareQuery(&look, values, NULL) > 0)
		(void) InternalQueryWriteNewest(&note, values, NULL);
	else if (is_alone(subscription->name, consumer))
		(void) InternalQueryWriteNewest(&begin, values, NULL);
}

/*
 * Does nobody else begin with this name now?  Its row would be waited for to the end of
 * their transaction.
 */
static bool
is_alone(const text *subscription, const text *consumer)
{
	LOCKTAG		tag;
	uint32		hash = hash_combine(hash_text(subscription), hash_text(consumer));

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelid("consumers"), hash, 0);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

static uint32
hash_text(const text *value)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(value), (int) VARSIZE_ANY_EXHDR(value));
}
