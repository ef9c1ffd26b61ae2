/*-------------------------------------------------------------------------
 * skipped_event.c
 *	  Events that a projection could not handle, and that a rebuild or resume with
 *	  on_error => 'skip' has stepped over: a table of them, with the reason.
 *
 * A row is written in the transaction that counts the event as handled, so none is
 * lost.  It goes when the event is handled after all (retry_skipped), when the
 * projection is rebuilt, and with the projection.
 *
 * What an error says of values and rows is not for everybody (definer.c): of its
 * detail there is only what a stranger would be shown.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/builtins.h"

#include "base/definer.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "projection/skipped_event.h"

/*
 * Record an event that was skipped, and the error, taken off the stack, that it was
 * skipped for; in place of what was recorded of it before.
 */
void
SkippedEventSave(const char *projection, const Event *event, const ErrorData *error,
				 bool in_rebuild)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.skipped_events (projection, aggregate_type, aggregate_id, tenant_id,"
		" sequence, global_position, event_type, sqlstate, message, detail, activity)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
		" ON CONFLICT (projection, aggregate_type, aggregate_id, tenant_id, sequence) DO UPDATE SET"
		" sqlstate = excluded.sqlstate, message = excluded.message, detail = excluded.detail,"
		" activity = excluded.activity, skipped_at = excluded.skipped_at",
		.nargs = 11,
		.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID, TEXTOID, TEXTOID,
		TEXTOID, TEXTOID, TEXTOID}
	};
	const char *detail = DefinerDetail(error);
	Datum		values[11] = {CStringGetTextDatum(projection),
		event->values[EVENT_AGGREGATE_TYPE], event->values[EVENT_AGGREGATE_ID],
		event->values[EVENT_TENANT_ID], event->values[EVENT_SEQUENCE],
		event->values[EVENT_GLOBAL_POSITION], event->values[EVENT_EVENT_TYPE],
		CStringGetTextDatum(unpack_sql_state(error->sqlerrcode)),
		CStringGetTextDatum(error->message), detail ? CStringGetTextDatum(detail) : (Datum) 0,
		CStringGetTextDatum(in_rebuild ? "rebuild" : "resume")};
	char		nulls[11] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' ', detail ? ' ' : 'n', ' '};

	(void) RegistryWrite(&query, values, nulls);
}

/* It has been handled. */
void
SkippedEventDelete(const char *projection, const SkippedEvent *skipped)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.skipped_events WHERE projection OPERATOR(pg_catalog.=) $1"
		" AND aggregate_type OPERATOR(pg_catalog.=) $2 AND aggregate_id OPERATOR(pg_catalog.=) $3"
		" AND tenant_id OPERATOR(pg_catalog.=) $4 AND sequence OPERATOR(pg_catalog.=) $5",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID}
	};
	Datum		values[5] = {CStringGetTextDatum(projection),
		PointerGetDatum(skipped->aggregate_type), PointerGetDatum(skipped->aggregate_id),
		PointerGetDatum(skipped->tenant_id), Int64GetDatum(skipped->sequence)};

	(void) RegistryWrite(&query, values, NULL);
}

/* All of a projection, which is rebuilt or dropped. */
void
SkippedEventForget(const char *projection)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.skipped_events WHERE projection OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = CStringGetTextDatum(projection);

	(void) RegistryWrite(&query, &value, NULL);
}

/* Those of a projection in the order of the log, palloc'd. */
SkippedEvent *
SkippedEventList(const char *projection, int *n)
{
	static InternalQuery query = {
		.sql = "SELECT aggregate_type, aggregate_id, tenant_id, sequence,"
		" activity OPERATOR(pg_catalog.=) 'rebuild' AS in_rebuild FROM cqrs_es.skipped_events"
		" WHERE projection OPERATOR(pg_catalog.=) $1 ORDER BY global_position, sequence",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = CStringGetTextDatum(projection);
	MemoryContext caller = CurrentMemoryContext;
	SkippedEvent *list;
	int			i;

	SPI_connect();
	*n = (int) RegistryRead(&query, &value);
	list = MemoryContextAllocHuge(caller, Max(*n, 1) * sizeof(SkippedEvent));
	for (i = 0; i < *n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		list[i].aggregate_type = cstring_to_text(InternalQueryText(&row, "aggregate_type"));
		list[i].aggregate_id = cstring_to_text(InternalQueryText(&row, "aggregate_id"));
		list[i].tenant_id = cstring_to_text(InternalQueryText(&row, "tenant_id"));
		list[i].sequence = DatumGetInt64(InternalQueryDatum(&row, "sequence", NULL));
		list[i].in_rebuild = DatumGetBool(InternalQueryDatum(&row, "in_rebuild", NULL));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return list;
}
