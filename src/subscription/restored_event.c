/*-------------------------------------------------------------------------
 * restored_event.c
 *	  Events that are restored behind the positions of subscriptions.
 *
 * A row that is restored keeps its old position, which a subscription may have passed
 * long ago: its consumers will not get that event.  Nothing can be done about it here,
 * for it may have been handed out before it was lost.  So whoever restores is told which
 * subscriptions have passed it, at the end of the transaction, and which asynchronous
 * projections; what the batch in hand will move over counts as passed.
 *
 * Not told is who passes it at this very time: in a receive that has not committed, or
 * in a session that knows the position as settled since before, when nothing was to come
 * there, and asks no more.  So one pauses consumers while rows are restored.
 *
 * Not while a dump is restored: then positions come with the events that belong to
 * them, in whatever order.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "base/compat.h"
#include "base/extension.h"
#include "log/admission.h"
#include "subscription/feed_name.h"
#include "subscription/restored_event.h"
#include "subscription/subscription.h"

/* the lowest position that the current transaction has restored */
static LocalTransactionId restoring_lxid = InvalidLocalTransactionId;
static int64 lowest = 0;

static void note_position(int64 position);
static void at_transaction_end(XactEvent event, void *arg);
static void warn(void);

void
RestoredEventInit(void)
{
	AdmissionSetObserver(note_position);
	RegisterXactCallback(at_transaction_end, NULL);
}

static void
note_position(int64 position)
{
	/* as dumps do, before anything else */
	if (!check_function_bodies)
		return;
	if (restoring_lxid != compat_my_lxid() || position < lowest)
		lowest = position;
	restoring_lxid = compat_my_lxid();
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (restoring_lxid != compat_my_lxid() ||
		(event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_PRE_PREPARE))
		return;
	restoring_lxid = InvalidLocalTransactionId;
	/* the extension may have been dropped meanwhile */
	if (OidIsValid(ExtensionFindRelid("shares")))
		warn();
}

/*
 * One WARNING for all that the transaction has restored, and one of projections, for which
 * something else is to be done.
 */
static void
warn(void)
{
	static InternalQuery query = {
		.sql = "SELECT pg_catalog.string_agg(f.quoted, ', ' ORDER BY f.quoted) FILTER (WHERE f.projection IS NULL) AS names,"
		" pg_catalog.string_agg(f.quoted, ', ' ORDER BY f.quoted) FILTER (WHERE f.projection IS NOT NULL) AS projections"
		" FROM (SELECT DISTINCT p.projection,"
		" pg_catalog.concat('\"', coalesce(p.projection, s.subscription), '\"') COLLATE \"C\" AS quoted"
		" FROM cqrs_es.shares AS s, LATERAL (SELECT CASE WHEN pg_catalog.starts_with(s.subscription, $2)"
		" THEN pg_catalog.substr(s.subscription, pg_catalog.length($2) OPERATOR(pg_catalog.+) 1) END AS projection) AS p"
		" WHERE greatest(s.position, s.batch_end) OPERATOR(pg_catalog.>=) $1) AS f",
		.nargs = 2,.argtypes = {INT8OID, TEXTOID}
	};
	Datum		values[2] = {Int64GetDatum(lowest), PointerGetDatum(FeedNameOf(cstring_to_text("")))};
	QueryRow	row;
	char	   *names;

	SPI_connect();
	(void) SubscriptionQuery(&query, values, NULL);
	row = InternalQueryRow(0);
	names = InternalQueryText(&row, "names");
	if (names)
		ereport(WARNING,
				(errmsg("subscriptions have passed positions at which events were restored: %s", names),
				 errdetail("The first of them is %lld; consumers do not get what lies behind them.", (long long) lowest),
				 errhint("If they have not had these events before, go back with reset_subscription().")));
	names = InternalQueryText(&row, "projections");
	if (names)
		ereport(WARNING,
				(errmsg("asynchronous projections have passed positions at which events were restored: %s", names),
				 errdetail("The first of them is %lld; they do not handle what lies behind them.", (long long) lowest),
				 errhint("If their tables lack these events, fill them anew with rebuild_projection().")));
	SPI_finish();
}
