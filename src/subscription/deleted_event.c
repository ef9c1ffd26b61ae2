/*-------------------------------------------------------------------------
 * deleted_event.c
 *	  Events that are deleted while subscriptions have them before them.
 *
 * What comes by a position does not come any more, and '$deleted' does, as any event.  A stream
 * that is parked goes on at '$deleted', at once, whatever it waited for; letters of its events,
 * about which nobody can decide anything any more, are discarded.
 *
 * A batch in hand need not be touched.  Its events that are gone are done when it is acknowledged, also
 * where they were nacked before (batch.c); a parked stream in it is in hand no longer, and due.
 * The tokens of both are kept, or let go of, as if nothing had been.
 *
 * Who acknowledges may be about to write a letter of an event that is there still.  He locks the
 * letters before he reads the log, and a deletion does in a mode that is against that: so
 * it finds his letter, or he finds the event gone.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"

#include "base/extension.h"
#include "base/registry.h"
#include "log/redaction.h"
#include "subscription/deleted_event.h"

static void lock(const Redaction *redaction);
static void follow(const Redaction *redaction);
static void discard_letters(const Redaction *redaction);
static void go_on(const Redaction *redaction);

void
DeletedEventInit(void)
{
	static const RedactionPart part = {.lock = lock,.follow = follow};

	RedactionRegister(&part);
}

static void
lock(const Redaction *redaction)
{
	if (redaction->removes)
		LockRelationOid(ExtensionRelid("dead_letters"), ShareRowExclusiveLock);
}

static void
follow(const Redaction *redaction)
{
	if (!redaction->removes)
		return;
	discard_letters(redaction);
	go_on(redaction);
}

static void
discard_letters(const Redaction *redaction)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.dead_letters SET state = 'discarded', decided_by = $4,"
		" decided_at = pg_catalog.clock_timestamp(), reason = pg_catalog.concat('the stream has been deleted: ', $5),"
		" retry_at = NULL, batch = NULL"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 AND aggregate_id OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3 AND state IN ('blocked', 'skipped', 'redriven')",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[5] = {PointerGetDatum(redaction->key.aggregate_type),
		PointerGetDatum(redaction->key.aggregate_id), PointerGetDatum(redaction->key.tenant_id),
		CStringGetTextDatum(GetUserNameFromId(GetUserId(), false)), PointerGetDatum(redaction->reason)};

	(void) RegistryWrite(&query, values, NULL);
}

/* Parked streams are handed out from '$deleted' on. */
static void
go_on(const Redaction *redaction)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.parked_streams SET sequence = $4, global_position = $5, attempts = 0,"
		" deliveries = 0, suspect_to = NULL, lost_by = NULL, batch = NULL, handed_to = NULL, error = NULL,"
		" retry_at = pg_catalog.clock_timestamp()"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 AND aggregate_id OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID}
	};
	Datum		values[5] = {PointerGetDatum(redaction->key.aggregate_type),
		PointerGetDatum(redaction->key.aggregate_id), PointerGetDatum(redaction->key.tenant_id),
		Int64GetDatum(redaction->sequence), Int64GetDatum(redaction->global_position)};

	(void) RegistryWrite(&query, values, NULL);
}
