/*-------------------------------------------------------------------------
 * publisher.c
 *	  Saying to subscribers how far the log is settled here; what they make of it
 *	  is in published.c.
 *
 * It is one row for our node, in the table that published.c reads.  The position in
 * it only rises, so two who say it at once do no harm; only where another database
 * said it before, of which this one is a copy or a subscriber, ours replaces it
 * whatever it was.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"

#include "base/internal_query.h"
#include "base/role_switch.h"
#include "log/horizon.h"
#include "log/position.h"
#include "log/published.h"
#include "log/publisher.h"

PG_FUNCTION_INFO_V1(cqrs_es_publish_settled);

static void write_row(int64 position);

/* SQL: publish_settled(); returns the position up to which the log is settled. */
Datum
cqrs_es_publish_settled(PG_FUNCTION_ARGS)
{
	PreventCommandDuringRecovery("publish_settled()");
	PreventCommandIfReadOnly("publish_settled()");
	EventsRequireRights(ACL_SELECT);
	PG_RETURN_INT64(PublisherTell(HorizonDeadline()));
}

/*
 * The same, waiting for writers until the deadline; where something can be written, by whoever
 * may know of it.
 */
int64
PublisherTell(TimestampTz deadline)
{
	int64		position = HorizonSettled(deadline);

	write_row(position);
	return position;
}

/* Let subscribers know that our log is settled up to the position. */
static void
write_row(int64 position)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.published_positions AS p (node_id, \"position\", publisher) VALUES ($1, $2, $3)"
		" ON CONFLICT (node_id) DO UPDATE SET \"position\" = EXCLUDED.\"position\", publisher = EXCLUDED.publisher"
		" WHERE p.\"position\" OPERATOR(pg_catalog.<) EXCLUDED.\"position\""
		" OR p.publisher OPERATOR(pg_catalog.<>) EXCLUDED.publisher",
		.nargs = 3,.argtypes = {INT4OID, INT8OID, TEXTOID}
	};
	Datum		values[3] = {Int32GetDatum(PositionNode()), Int64GetDatum(position), PublishedName()};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("published_positions");
	(void) InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
}
