/*-------------------------------------------------------------------------
 * boundary_snapshot.c
 *	  Stored states of boundaries: load a usable one, save one.
 *
 * One is kept for a boundary and its keys, that is for the query with the keys filled in: a
 * state of the matching events up to its position.  Usable is one with the fingerprint of
 * today's reducers and definitions of tags.
 *
 * What proves that nothing is missing in it: it is saved by execute_boundary alone, which
 * has locked what the query asks for.  So no transaction was open that had appended an
 * event that matches, and whoever appends one later draws a position above all that had
 * been drawn.  It commits with the events of its own transaction that are in it.  Hence
 * whoever sees it sees all events up to its position that match or ever will.  (Only
 * positions of this node are searched; one of another node is of no use.)
 *
 * A redaction deletes those of its tenant that may have what was erased in them, and
 * execute_boundary shuts redactions out before it reads.
 *
 * Two who save at the same time have locked the same slots, so there are none; above READ
 * COMMITTED the row may be newer than the transaction's snapshot, and then it stays.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/internal_query.h"
#include "base/role_switch.h"
#include "base/sha256.h"
#include "base/tenancy.h"
#include "log/position.h"
#include "log/redaction.h"
#include "boundary/boundary_snapshot.h"

static void delete_redacted(const Redaction *redaction);
static void delete_all(const Redaction *redaction);
static void delete_from(const text *tenant_id, int64 position);

void
BoundarySnapshotInit(void)
{
	static const RedactionPart part = {.follow = delete_redacted,.received = delete_all};

	RedactionRegister(&part);
}

/* What the state is of: the query must be that of the boundary, filled in. */
BoundaryKey
BoundarySnapshotKey(const text *boundary, Jsonb *query)
{
	char	   *source = JsonbToCString(NULL, &query->root, VARSIZE(query));
	BoundaryKey key = {
		.boundary = boundary,.tenant_id = TenancyCurrent(),.query = query,
		.digest = Sha256Bytea(source, strlen(source))
	};

	return key;
}

/*
 * The usable snapshot that is not beyond up_to_position, as `snapshot` sees it.  The state
 * is palloc'd in the current memory context.
 */
bool
BoundarySnapshotLoad(const BoundaryKey *key, const StateRules *rules, int64 up_to_position,
					 Snapshot snapshot, int64 *position, Jsonb **state)
{
	static InternalQuery query = {
		.sql = "SELECT last_position, payload FROM cqrs_es.boundary_snapshots"
		" WHERE boundary OPERATOR(pg_catalog.=) $1"
		" AND query_digest OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3"
		" AND fingerprint OPERATOR(pg_catalog.=) $4"
		" AND last_position OPERATOR(pg_catalog.<=) $5",
		.nargs = 5,.argtypes = {TEXTOID, BYTEAOID, TEXTOID, BYTEAOID, INT8OID}
	};
	Datum		values[5] = {PointerGetDatum(key->boundary), PointerGetDatum(key->digest),
		PointerGetDatum(key->tenant_id), PointerGetDatum(rules->fingerprint),
		Int64GetDatum(up_to_position)};
	MemoryContext caller = CurrentMemoryContext;
	RoleSwitch	saved;
	bool		found;

	SPI_connect();
	saved = RoleSwitchToOwner("boundary_snapshots");
	found = InternalQueryRead(&query, values, NULL, snapshot) > 0;
	RoleSwitchBack(&saved);
	if (found)
	{
		QueryRow	row = InternalQueryRow(0);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		*position = DatumGetInt64(InternalQueryDatum(&row, "last_position", NULL));
		*state = DatumGetJsonbPCopy(InternalQueryDatum(&row, "payload", NULL));
		MemoryContextSwitchTo(spi);
		found = POSITION_NODE(*position) == PositionNode();
	}
	SPI_finish();
	return found;
}

/*
 * Save the state after the events up to a position, in place of an earlier one.  Only of
 * who has locked what the query asks for, and of a position of this node.  Above READ
 * COMMITTED nothing is saved where another transaction did so since this one's snapshot, or
 * where something has been redacted since.
 */
void
BoundarySnapshotSave(const BoundaryKey *key, const StateRules *rules, int64 position, Jsonb *state)
{
	static InternalQuery save = {
		.sql = "INSERT INTO cqrs_es.boundary_snapshots"
		" (boundary, query_digest, tenant_id, fingerprint, last_position, query, payload)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7)"
		" ON CONFLICT (boundary, query_digest, tenant_id) DO UPDATE SET"
		" fingerprint = excluded.fingerprint,"
		" last_position = excluded.last_position,"
		" payload = excluded.payload,"
		" created_at = excluded.created_at",
		.nargs = 7,.argtypes = {TEXTOID, BYTEAOID, TEXTOID, BYTEAOID, INT8OID, JSONBOID, JSONBOID}
	};
	Datum		values[7] = {PointerGetDatum(key->boundary), PointerGetDatum(key->digest),
		PointerGetDatum(key->tenant_id), PointerGetDatum(rules->fingerprint),
		Int64GetDatum(position), JsonbPGetDatum(key->query), JsonbPGetDatum(state)};
	RoleSwitch	saved;

	if (RedactionMissed())
		return;
	SPI_connect();
	saved = RoleSwitchToOwner("boundary_snapshots");
	InternalQueryWriteUnlessMoved(&save, values);
	RoleSwitchBack(&saved);
	SPI_finish();
}

/* Those that have come to the first of the events that were changed. */
static void
delete_redacted(const Redaction *redaction)
{
	delete_from(redaction->key.tenant_id, redaction->first_position);
}

/* Which events were changed is not said. */
static void
delete_all(const Redaction *redaction)
{
	delete_from(redaction->key.tenant_id, 0);
}

/* A tenant's that have come to the position. */
static void
delete_from(const text *tenant_id, int64 position)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.boundary_snapshots WHERE tenant_id OPERATOR(pg_catalog.=) $1"
		" AND last_position OPERATOR(pg_catalog.>=) $2",
		.nargs = 2,.argtypes = {TEXTOID, INT8OID}
	};
	Datum		values[2] = {PointerGetDatum(tenant_id), Int64GetDatum(position)};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("boundary_snapshots");
	RoleSwitchRequireAllRows();
	(void) InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
}
