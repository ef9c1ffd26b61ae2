/*-------------------------------------------------------------------------
 * published.c
 *	  How far the log is settled at the publisher that it is replicated from.
 *
 * Native logical replication brings the rows of a log in the order of commits.
 * The subscriber cannot tell from them whether a gap is dead or an event that
 * will be committed yet: who may still fill it holds a lock at the publisher.
 * So the publisher says it, in a table that belongs into the same publication:
 * publish_settled() writes there up to where its log is settled (publisher.c).  All
 * events up to it were committed before, and are applied before, so whoever sees the
 * row at the subscriber can see them.
 *
 * That is so when both tables are replicated by the one apply worker.  While a new
 * subscription copies them, each is ahead of the other at times.
 *
 * The row says who wrote it.  While a subscription brings the log here, and the row
 * for our node is another database's, our sequence tells nothing: it may have come
 * with a dump, or somebody has tried to append.  Without such a row the log may be
 * one of several nodes, and what was drawn from our sequence counts as our own.
 * Once the subscription is dropped, the log is our own, and horizon.c judges as ever.
 *
 * Where follow_log() made the subscription, more is known (PublishedSetLink): nothing is drawn
 * here, so the publisher decides of all; and until all tables have been copied nothing is
 * read, since an event may be there whose tags and upcasters are not.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_subscription_rel.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "base/extension.h"
#include "base/internal_query.h"
#include "base/role_switch.h"
#include "log/position.h"
#include "log/published.h"

/* What subscriptions say of a table. */
typedef struct Replication
{
	bool		replicated;		/* is it the target of one? */
	bool		ready;			/* and copied, and up with the rest? */
} Replication;

static const PublishedLink *published_link = NULL;

static Replication replication_of(Oid relid);
static bool read_row(int64 *number, bool *is_ours);

/* Who knows whether the log is followed; at Init. */
void
PublishedSetLink(const PublishedLink *known)
{
	published_link = known;
}

/* Does this database follow the log of its node, so that it is woken by what is received? */
bool
PublishedIsFollowed(void)
{
	return published_link->follows();
}

/* And is it still being copied, so that some of it is there, and some is not? */
bool
PublishedIsCopying(void)
{
	return published_link->is_copying();
}

/* Does a subscription bring the rows of the log here? */
bool
PublishedIsSubscriber(void)
{
	List	   *parts = find_all_inheritors(ExtensionRelid("events"), NoLock, NULL);
	bool		found = false;
	ListCell   *lc;

	foreach(lc, parts)
		found |= replication_of(lfirst_oid(lc)).replicated;
	list_free(parts);
	return found;
}

/* Is it for a publisher to say whether the log is settled up to the number? */
bool
PublishedDecides(int64 number)
{
	int64		published;
	bool		is_ours;

	/* there the sequence moves with what is received */
	if (PublishedIsFollowed() && PublishedIsSubscriber())
		return true;
	return PublishedIsSubscriber() &&
		(number > PositionLastNumber() || (read_row(&published, &is_ours) && !is_ours));
}

/*
 * The number up to which the publisher has said that the log is settled, all of it
 * visible to a snapshot taken after this; 0 when it is not known.
 */
int64
PublishedNumber(void)
{
	List	   *parts = find_all_inheritors(ExtensionRelid("events"), NoLock, NULL);
	bool		ready = replication_of(ExtensionRelid("published_positions")).ready;
	int64		number;
	bool		is_ours;
	ListCell   *lc;

	foreach(lc, parts)
	{
		Replication part = replication_of(lfirst_oid(lc));

		ready &= part.ready || !part.replicated;
	}
	list_free(parts);
	return ready && read_row(&number, &is_ours) ? number : 0;
}

/* Tell whoever reads here why the events up to the number are not handed out, once a statement. */
void
PublishedWarn(int64 number)
{
	static TimestampTz warned_in = 0;

	if (warned_in == GetCurrentStatementStartTimestamp())
		return;
	warned_in = GetCurrentStatementStartTimestamp();
	ereport(WARNING,
			(errmsg("reading the log stops at a gap before position %lld, which only its publisher can judge",
					(long long) PositionOfNumber(number) + 1),
			 errdetail("The log is replicated by a subscription, and its publisher has not said up to where it is settled."),
			 errhint("Add table cqrs_es.published_positions to the publication, refresh the subscription, and let the publisher call cqrs_es.publish_settled() every second or so.")));
}

/*
 * What this database is called where it says up to where its log is settled, as a
 * text datum; a copy of it on another server, or beside it, has another name.
 */
Datum
PublishedName(void)
{
	return CStringGetTextDatum(psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId));
}

static Replication
replication_of(Oid relid)
{
	Relation	catalog = table_open(SubscriptionRelRelationId, AccessShareLock);
	Replication result = {.replicated = false,.ready = true};
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_subscription_rel_srrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		result.replicated = true;
		result.ready &= ((Form_pg_subscription_rel) GETSTRUCT(tuple))->srsubstate == SUBREL_STATE_READY;
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	result.ready &= result.replicated;
	return result;
}

/* What is published for our node, and whether this database said it; false: nothing. */
static bool
read_row(int64 *number, bool *is_ours)
{
	static InternalQuery query = {
		.sql = "SELECT \"position\", publisher OPERATOR(pg_catalog.=) $2 AS is_ours FROM cqrs_es.published_positions"
		" WHERE node_id OPERATOR(pg_catalog.=) $1",
		.nargs = 2,.argtypes = {INT4OID, TEXTOID}
	};
	Datum		values[2] = {Int32GetDatum(PositionNode()), PublishedName()};
	bool		found;
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("published_positions");
	found = InternalQueryRead(&query, values, NULL, GetLatestSnapshot()) > 0;
	if (found)
	{
		QueryRow	row = InternalQueryRow(0);

		*number = POSITION_NUMBER(DatumGetInt64(InternalQueryDatum(&row, "position", NULL)));
		*is_ours = DatumGetBool(InternalQueryDatum(&row, "is_ours", NULL));
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	return found;
}
