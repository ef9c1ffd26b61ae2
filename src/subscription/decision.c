/*-------------------------------------------------------------------------
 * decision.c
 *	  What people decide about dead letters: once more, or never.
 *
 * A letter of a blocked event goes with the parked row of its stream, which waits
 * at it; one of a skipped event stands for itself.  Consumers do not touch either
 * before it is decided, so no share is locked here, and nobody waits for a
 * consumer that takes its time: the letter is locked, then the row of its
 * stream, and what they are is asked of the locked versions.  So of two who
 * decide at once one finds it decided.
 *
 * The row of a stream stays, whatever is decided.  A batch in hand was made without
 * that stream, and when it is acknowledged the position moves over what was left out;
 * the row says that it is still to come.  The next who receive find out whether
 * nothing is left, and the stream goes on with the others.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/errors.h"
#include "base/text.h"
#include "base/wakeup.h"
#include "log/read.h"
#include "subscription/feed.h"
#include "subscription/feed_name.h"
#include "subscription/subscription.h"

#define REASON_MAX_BYTES 10000

PG_FUNCTION_INFO_V1(cqrs_es_redrive);
PG_FUNCTION_INFO_V1(cqrs_es_discard_dead_letter);

static void wake(const text *name);
static text *subscription_of(int64 id);

/* SQL: the parked row p of the stream of a letter d, at its event */
#define STREAM_OF_LETTER \
	" p.subscription OPERATOR(pg_catalog.=) d.subscription" \
	" AND p.aggregate_type OPERATOR(pg_catalog.=) d.aggregate_type" \
	" AND p.aggregate_id OPERATOR(pg_catalog.=) d.aggregate_id" \
	" AND p.tenant_id OPERATOR(pg_catalog.=) d.tenant_id" \
	" AND p.sequence OPERATOR(pg_catalog.=) d.sequence AND p.retry_at IS NULL"

/*
 * SQL: redrive(subscription, dead_letter_id, aggregate_type, aggregate_id, max_count).
 * What failed for good is tried again, as if for the first time: streams go on at the
 * event that blocks them, skipped events are handed out by themselves.  In the order
 * of positions; returns how many.
 */
Datum
cqrs_es_redrive(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "WITH chosen AS MATERIALIZED (SELECT d.* FROM cqrs_es.dead_letters AS d"
		" WHERE d.subscription OPERATOR(pg_catalog.=) $1 AND d.state IN ('blocked', 'skipped')"
		" AND d.id OPERATOR(pg_catalog.=) coalesce($2, d.id)"
		" AND d.aggregate_type OPERATOR(pg_catalog.=) coalesce($3, d.aggregate_type)"
		" AND d.aggregate_id OPERATOR(pg_catalog.=) coalesce($4, d.aggregate_id)"
		" ORDER BY d.global_position, d.id LIMIT $5 FOR UPDATE),"
		" freed AS (UPDATE cqrs_es.parked_streams AS p SET attempts = 0, deliveries = 0,"
		" lost_by = NULL, batch = NULL, retry_at = pg_catalog.clock_timestamp()"
		" FROM chosen AS d WHERE d.state OPERATOR(pg_catalog.=) 'blocked' AND" STREAM_OF_LETTER ")"
		" UPDATE cqrs_es.dead_letters AS l SET state = 'redriven', decided_by = $6, reason = NULL,"
		" decided_at = pg_catalog.clock_timestamp(), deliveries = 0, is_suspect = false,"
		" lost_by = NULL, batch = NULL, attempts = CASE WHEN d.state OPERATOR(pg_catalog.=) 'skipped' THEN 0 ELSE l.attempts END,"
		" retry_at = CASE WHEN d.state OPERATOR(pg_catalog.=) 'skipped'"
		" THEN pg_catalog.clock_timestamp() END"
		" FROM chosen AS d WHERE l.id OPERATOR(pg_catalog.=) d.id",
		.nargs = 6,.argtypes = {TEXTOID, INT8OID, TEXTOID, TEXTOID, INT8OID, TEXTOID}
	};
	text	   *name = TextArgument(fcinfo->args[0], "subscription name", FEED_NAME_MAX_BYTES);
	Datum		values[6] = {PointerGetDatum(name), PG_GETARG_DATUM(1), PG_GETARG_DATUM(2),
		PG_GETARG_DATUM(3), Int64GetDatum(ReadMaxCount(fcinfo->args[4])), PointerGetDatum(SubscriptionDecider())};
	char		nulls[6] = {' ', PG_ARGISNULL(1) ? 'n' : ' ', PG_ARGISNULL(2) ? 'n' : ' ',
		PG_ARGISNULL(3) ? 'n' : ' ', ' ', ' '};
	uint64		n;

	SubscriptionBegin("redrive()");
	(void) SubscriptionLockOwn(name, RowExclusiveLock);
	SPI_connect();
	n = SubscriptionWrite(&query, values, nulls);
	SPI_finish();
	if (n > 0)
		wake(name);
	PG_RETURN_INT64((int64) n);
}

/*
 * SQL: discard_dead_letter(id, reason).  The event is given up for good; a stream that
 * it blocks goes on behind it.  42704 for a letter that is not there or none of the
 * caller's, 55000 for one about which something else was decided.
 */
Datum
cqrs_es_discard_dead_letter(PG_FUNCTION_ARGS)
{
	static InternalQuery discard = {
		.sql = "UPDATE cqrs_es.dead_letters AS d SET state = 'discarded', decided_by = $2,"
		" decided_at = pg_catalog.clock_timestamp(), reason = $3"
		" WHERE d.id OPERATOR(pg_catalog.=) $1 AND d.state IN ('blocked', 'skipped')",
		.nargs = 3,.argtypes = {INT8OID, TEXTOID, TEXTOID}
	};
	static InternalQuery go_on = {
		.sql = "UPDATE cqrs_es.parked_streams AS p SET sequence = p.sequence OPERATOR(pg_catalog.+) 1,"
		" attempts = 0, deliveries = 0, lost_by = NULL, batch = NULL,"
		" retry_at = pg_catalog.clock_timestamp()"
		" FROM cqrs_es.dead_letters AS d WHERE d.id OPERATOR(pg_catalog.=) $1 AND" STREAM_OF_LETTER,
		.nargs = 1,.argtypes = {INT8OID}
	};
	text	   *reason = TextArgument(fcinfo->args[1], "reason", REASON_MAX_BYTES);
	Datum		values[3] = {PG_GETARG_DATUM(0), PointerGetDatum(SubscriptionDecider()), PointerGetDatum(reason)};
	text	   *name;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", "id")));
	SubscriptionBegin("discard_dead_letter()");
	name = subscription_of(PG_GETARG_INT64(0));
	(void) SubscriptionLockOwn(name, RowExclusiveLock);
	SPI_connect();
	if (SubscriptionWrite(&discard, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("dead letter %lld is decided already", (long long) PG_GETARG_INT64(0)),
				 errdetail("Only one that is blocked or skipped can be discarded.")));
	if (SubscriptionWrite(&go_on, values, NULL) > 0)
		wake(name);
	SPI_finish();
	PG_RETURN_VOID();
}

/* Something is due again: for who waits, or who runs the projection that it belongs to. */
static void
wake(const text *name)
{
	if (FeedNameIs(name))
		FeedWanted();
	else
		WakeupAtEnd();
}

/* Whose letter is it?  Of a letter of others nothing is said, not even that it is there. */
static text *
subscription_of(int64 id)
{
	static InternalQuery query = {
		.sql = "SELECT subscription FROM cqrs_es.dead_letters WHERE id OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {INT8OID}
	};
	MemoryContext caller = CurrentMemoryContext;
	Datum		value = Int64GetDatum(id);
	text	   *name = NULL;
	Subscription *subscription;

	SPI_connect();
	if (SubscriptionQuery(&query, &value, NULL) > 0)
	{
		QueryRow	row = InternalQueryRow(0);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		name = DatumGetTextPCopy(InternalQueryDatum(&row, "subscription", NULL));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	subscription = name ? SubscriptionFind(name) : NULL;
	if (subscription == NULL || !SubscriptionIsOwn(subscription))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("dead letter %lld does not exist", (long long) id),
				 errhint("Only those of subscriptions that the current role owns can be discarded.")));
	return name;
}
