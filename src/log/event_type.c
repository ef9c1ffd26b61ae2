/*-------------------------------------------------------------------------
 * event_type.c
 *	  Which event types are in the log.
 *
 * Nobody declares them; so that a mistyped one is found, here is what there is.
 * (Which of them reducers and handlers know says the view unknown_event_types.)  It is
 * a function, since a view would hold on to a log that may be replaced by another
 * table.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"

#include "base/compat.h"
#include "base/internal_query.h"
#include "base/tenancy.h"
#include "log/events.h"

PG_FUNCTION_INFO_V1(cqrs_es_event_types);

/*
 * SQL: event_types().  Those of the current tenant, with how many events there are
 * of each and where the first and the last stand.  With the caller's own rights.
 */
Datum
cqrs_es_event_types(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "SELECT aggregate_type, event_type, pg_catalog.count(*),"
		" pg_catalog.min(global_position), pg_catalog.max(global_position)"
		" FROM cqrs_es.events WHERE tenant_id OPERATOR(pg_catalog.=) $1"
		" GROUP BY aggregate_type, event_type",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		value = PointerGetDatum(TenancyCurrent());
	uint64		n;
	uint64		i;

	EventsRequireRights(ACL_SELECT);
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	n = InternalQueryRead(&query, &value, NULL, InternalQueryFreshSnapshot());
	for (i = 0; i < n; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	SPI_finish();
	return (Datum) 0;
}
