/*-------------------------------------------------------------------------
 * control.c
 *	  Subscriptions are paused, resumed, and set to another position.
 *
 * A paused subscription hands out nothing; what is in hand can be acknowledged.  One
 * that stopped by itself, since an event failed for good, is paused as well, and
 * says why until it is resumed.
 *
 * To reset one is to begin anew from a position: what is in hand is taken back, what
 * waited to be retried comes again if it lies behind the position, or not at all.
 * No dead letter stays open whose event comes again or whose stream waits no more;
 * only skipped events up to the position stay what they are.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/text.h"
#include "base/wakeup.h"
#include "log/horizon.h"
#include "subscription/control.h"
#include "subscription/feed_name.h"
#include "subscription/subscription.h"

PG_FUNCTION_INFO_V1(cqrs_es_pause_subscription);
PG_FUNCTION_INFO_V1(cqrs_es_resume_subscription);
PG_FUNCTION_INFO_V1(cqrs_es_reset_subscription);

static text *name_argument(FunctionCallInfo fcinfo);
static void discard_letters(const text *name, int64 position);

/* SQL: pause_subscription(name); one that is paused already stays as it is */
Datum
cqrs_es_pause_subscription(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.subscriptions SET paused = true"
		" WHERE name OPERATOR(pg_catalog.=) $1 AND NOT paused",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	text	   *name = name_argument(fcinfo);
	Datum		value = PointerGetDatum(name);

	FeedNameRefuse(name, "pause_subscription()", "pause_projection()");
	SubscriptionBegin("pause_subscription()");
	(void) SubscriptionLockOwn(name, RowExclusiveLock);
	SPI_connect();
	(void) SubscriptionWrite(&query, &value, NULL);
	SPI_finish();
	PG_RETURN_VOID();
}

/* SQL: resume_subscription(name); one that is not paused stays as it is */
Datum
cqrs_es_resume_subscription(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.subscriptions SET paused = false, stopped_error = NULL"
		" WHERE name OPERATOR(pg_catalog.=) $1 AND paused",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	text	   *name = name_argument(fcinfo);
	Datum		value = PointerGetDatum(name);

	FeedNameRefuse(name, "resume_subscription()", "resume_projection()");
	SubscriptionBegin("resume_subscription()");
	(void) SubscriptionLockOwn(name, RowExclusiveLock);
	SPI_connect();
	(void) SubscriptionWrite(&query, &value, NULL);
	SPI_finish();
	WakeupAtEnd();
	PG_RETURN_VOID();
}

/*
 * SQL: reset_subscription(name, position).  What comes next is what lies behind the
 * position.  One share with all slots takes the place of all, so no token of before
 * is good any more.  22023 and QE404 for a position that is none of this log.
 */
Datum
cqrs_es_reset_subscription(PG_FUNCTION_ARGS)
{
	text	   *name = name_argument(fcinfo);
	int64		position;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", "start_after")));
	position = PG_GETARG_INT64(1);
	FeedNameRefuse(name, "reset_subscription()", "rebuild_projection()");
	SubscriptionBegin("reset_subscription()");
	(void) SubscriptionLockOwn(name, AccessExclusiveLock);
	SubscriptionRequirePosition("start_after", position);
	ControlReset(name, position);
	WakeupAtEnd();
	PG_RETURN_VOID();
}

/* The same for one that is locked, and a position that is good. */
void
ControlReset(const text *name, int64 position)
{
	static InternalQuery shares = {
		.sql = "DELETE FROM cqrs_es.shares WHERE subscription OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	static InternalQuery streams = {
		.sql = "DELETE FROM cqrs_es.parked_streams WHERE subscription OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(name);

	SPI_connect();
	SubscriptionForgetNotes(name);
	(void) SubscriptionWrite(&shares, &value, NULL);
	(void) SubscriptionWrite(&streams, &value, NULL);
	discard_letters(name, position);
	SubscriptionInsertShare(name, position);
	SPI_finish();
}

/* Those whose event comes again, whose stream waited, or that were to be handed out. */
static void
discard_letters(const text *name, int64 position)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.dead_letters SET state = 'discarded', reason = 'reset',"
		" decided_by = $3, decided_at = pg_catalog.clock_timestamp(), retry_at = NULL, batch = NULL"
		" WHERE subscription OPERATOR(pg_catalog.=) $1"
		" AND (state IN ('blocked', 'redriven')"
		" OR (state OPERATOR(pg_catalog.=) 'skipped' AND global_position OPERATOR(pg_catalog.>) $2))",
		.nargs = 3,.argtypes = {TEXTOID, INT8OID, TEXTOID}
	};
	Datum		values[3] = {PointerGetDatum(name), Int64GetDatum(position),
		PointerGetDatum(SubscriptionDecider())};

	(void) SubscriptionWrite(&query, values, NULL);
}

static text *
name_argument(FunctionCallInfo fcinfo)
{
	return TextArgument(fcinfo->args[0], "subscription name", SUBSCRIPTION_NAME_MAX_BYTES);
}
