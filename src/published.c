/*-------------------------------------------------------------------------
 * published.c
 *	  How far the log is settled at the publisher that it is replicated from.
 *
 * Native logical replication brings the rows of a log in the order of commits.
 * The subscriber cannot tell from them whether a gap is dead or an event that
 * will be committed yet: who may still fill it holds his lock at the publisher.
 * So the publisher says it, in a table that belongs into the same publication:
 * publish_settled() writes there up to where its log is settled.  All events up to
 * it were committed before, and are applied before, so whoever sees the row at the
 * subscriber can see them.
 *
 * That is so when both tables are replicated by the one apply worker.  While a new
 * subscription copies them, each is ahead of the other at times.
 *
 * Once the subscription is dropped, or an event is appended here, the log is our
 * own, and horizon.c judges as ever.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_subscription_rel.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "cqrs_es.h"
#include "internal_query.h"
#include "position.h"
#include "published.h"

/* What subscriptions say of a table. */
typedef struct Replication
{
	bool		replicated;		/* is it the target of one? */
	bool		ready;			/* and copied, and up with the rest? */
}			Replication;

static Replication replication_of(Oid relid);

/* Does a subscription bring the rows of the log here? */
bool
PublishedIsSubscriber(void)
{
	List	   *parts = find_all_inheritors(CqrsEsRelid("events"), NoLock, NULL);
	bool		found = false;
	ListCell   *lc;

	foreach(lc, parts)
		found |= replication_of(lfirst_oid(lc)).replicated;
	list_free(parts);
	return found;
}

/*
 * The number up to which the publisher has said that the log is settled, all of it
 * visible to a snapshot taken after this; 0 when it is not known.
 */
int64
PublishedNumber(void)
{
	static InternalQuery query = {
		.sql = "SELECT \"position\" FROM cqrs_es.published_positions"
		" WHERE node_id OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {INT4OID}
	};
	Datum		node = Int32GetDatum(cqrs_es_node_id);
	List	   *parts = find_all_inheritors(CqrsEsRelid("events"), NoLock, NULL);
	bool		ready = replication_of(CqrsEsRelid("published_positions")).ready;
	int64		number = 0;
	bool		isnull;
	ListCell   *lc;
	RoleSwitch	saved;

	foreach(lc, parts)
	{
		Replication part = replication_of(lfirst_oid(lc));

		ready &= part.ready || !part.replicated;
	}
	list_free(parts);
	if (!ready)
		return 0;

	SPI_connect();
	saved = RoleSwitchToOwner("published_positions");
	if (InternalQueryRead(&query, &node, NULL, GetLatestSnapshot()) > 0)
		number = POSITION_NUMBER(DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
															 SPI_tuptable->tupdesc, 1, &isnull)));
	RoleSwitchBack(&saved);
	SPI_finish();
	return number;
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

/* Let subscribers know that our log is settled up to the position. */
void
PublishedWrite(int64 position)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.published_positions AS p (node_id, \"position\") VALUES ($1, $2)"
		" ON CONFLICT (node_id) DO UPDATE SET \"position\" = EXCLUDED.\"position\""
		" WHERE p.\"position\" OPERATOR(pg_catalog.<) EXCLUDED.\"position\"",
		.nargs = 2,.argtypes = {INT4OID, INT8OID}
	};
	Datum		values[2] = {Int32GetDatum(cqrs_es_node_id), Int64GetDatum(position)};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("published_positions");
	(void) InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
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
