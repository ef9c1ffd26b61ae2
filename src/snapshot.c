/*-------------------------------------------------------------------------
 * snapshot.c
 *	  Stored states of aggregates: load the newest usable one, save one.
 *	  Storage only; fold.c decides when, and never trusts more than it asked.
 *
 * One row per stream, in a shape that the statements of the Rust crate
 * postgres-es work on.  Usable is a snapshot with the fingerprint of today's
 * reducers; one without (written by such a client) never is.  Races between
 * savers are decided by the row: an older state never replaces a newer one of
 * the same fingerprint.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "events.h"
#include "internal_query.h"
#include "snapshot.h"

/*
 * The stream's snapshot, if it is usable and not beyond up_to_sequence, as
 * `snapshot` sees it.  The state is palloc'd in the current memory context.
 */
bool
SnapshotLoad(const StreamKey *key, const Aggregate *aggregate, int64 up_to_sequence,
			 Snapshot snapshot, int64 *last_sequence, Jsonb **state)
{
	static InternalQuery query = {
		.sql = "SELECT last_sequence, payload FROM cqrs_es.snapshots"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND aggregate_id OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3"
		" AND fingerprint OPERATOR(pg_catalog.=) $4"
		" AND last_sequence OPERATOR(pg_catalog.<=) $5",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, BYTEAOID, INT8OID}
	};
	Datum		values[5] = {PointerGetDatum(key->aggregate_type),
		PointerGetDatum(key->aggregate_id),
		PointerGetDatum(key->tenant_id),
		PointerGetDatum(aggregate->fingerprint),
	Int64GetDatum(up_to_sequence)};
	MemoryContext caller = CurrentMemoryContext;
	RoleSwitch	saved;
	bool		found;

	SPI_connect();
	saved = RoleSwitchTo(EventsTableGet()->owner);
	found = InternalQueryRead(&query, values, NULL, snapshot) > 0;
	RoleSwitchBack(&saved);
	if (found)
	{
		bool		isnull;
		HeapTuple	row = SPI_tuptable->vals[0];
		MemoryContext spi;

		*last_sequence = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		spi = MemoryContextSwitchTo(caller);
		*state = DatumGetJsonbPCopy(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return found;
}

/* Save the state after last_sequence, unless a newer one is there. */
void
SnapshotSave(const StreamKey *key, const Aggregate *aggregate, int64 last_sequence,
			 Jsonb *state)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.snapshots AS s (aggregate_type, aggregate_id, tenant_id,"
		" fingerprint, last_sequence, payload, current_snapshot)"
		" VALUES ($1, $2, $3, $4, $5, $6, 1)"
		" ON CONFLICT (aggregate_type, aggregate_id, tenant_id) DO UPDATE SET"
		" fingerprint = excluded.fingerprint,"
		" last_sequence = excluded.last_sequence,"
		" payload = excluded.payload,"
		" current_snapshot = s.current_snapshot OPERATOR(pg_catalog.+) 1,"
		" created_at = pg_catalog.clock_timestamp()"
		" WHERE s.fingerprint IS DISTINCT FROM excluded.fingerprint"
		" OR s.last_sequence OPERATOR(pg_catalog.<) excluded.last_sequence",
		.nargs = 6,.argtypes = {TEXTOID, TEXTOID, TEXTOID, BYTEAOID, INT8OID, JSONBOID}
	};
	Datum		values[6] = {PointerGetDatum(key->aggregate_type),
		PointerGetDatum(key->aggregate_id),
		PointerGetDatum(key->tenant_id),
		PointerGetDatum(aggregate->fingerprint),
		Int64GetDatum(last_sequence),
	JsonbPGetDatum(state)};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchTo(EventsTableGet()->owner);
	(void) InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
}
