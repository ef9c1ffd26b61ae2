/*-------------------------------------------------------------------------
 * snapshot_store.c
 *	  Stored states of aggregates: load the newest usable one, save one.
 *	  When that is done, and of what, is up to others: snapshot.c saves, fold.c loads.
 *
 * The newest few per stream are kept, one by default, in a shape that the
 * statements of the Rust crate postgres-es work on.  Usable is a snapshot with
 * the fingerprint of today's reducers; others, among them those without one
 * that such a client wrote, go when the next is taken.  A client may also read
 * one of ours and write its own state over it, which would then stand under our
 * fingerprint: a trigger takes that away.  We ourselves never write a new
 * snapshot under the old fingerprint, which is how the two are told apart.
 *
 * Two who save at the same time do no harm: each row says what it is a state
 * of, and who saves next removes what is one too many.  Nobody waits for a row that somebody else is
 * about to remove, for that one may wait for the end of the stream.  Above READ COMMITTED the
 * second would fail, since it may not change what it cannot see; but a snapshot
 * is no fact, and whoever appends or reads must not fail for it: then it is left
 * to the other.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/role_switch.h"
#include "base/stream_key.h"
#include "log/events.h"
#include "log/redaction.h"
#include "aggregate/snapshot_store.h"

PG_FUNCTION_INFO_V1(cqrs_es_snapshot_updated);

/* where so many are kept, that of a time is found by bisection */
#define BISECT_FROM 1000

/* Is what a statement deletes about to be what SnapshotStoreSave lets go of? */
static bool cleaning = false;

static int64 last_until(const Datum *of_whose, int64 up_to_sequence, TimestampTz up_to_time,
						Snapshot snapshot);
static void drop_snapshots(const text *aggregate_type);
static void delete_of_stream(const Redaction *redaction);

void
SnapshotStoreInit(void)
{
	static const AggregatePart part = {.drop = drop_snapshots};
	static const RedactionPart redaction_part = {
		.follow = delete_of_stream,.received = delete_of_stream
	};

	AggregateRegister(&part);
	RedactionRegister(&redaction_part);
}

/*
 * The BEFORE ROW trigger for an UPDATE that gives a snapshot another number and
 * leaves its fingerprint (both are the trigger's conditions): returns the new
 * row without fingerprint.
 */
Datum
cqrs_es_snapshot_updated(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	int			column;
	Datum		value = (Datum) 0;
	bool		isnull = true;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired BEFORE UPDATE FOR EACH ROW", "snapshot_updated()")));

	desc = RelationGetDescr(trigdata->tg_relation);
	column = SPI_fnumber(desc, "fingerprint");
	if (column <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("relation \"%s\" has no column \"fingerprint\"",
						RelationGetRelationName(trigdata->tg_relation))));
	return PointerGetDatum(heap_modify_tuple_by_cols(trigdata->tg_newtuple, desc, 1,
													 &column, &value, &isnull));
}

/*
 * The stream's newest usable snapshot that is not beyond up_to_sequence, and none
 * of whose events was created after up_to_time, as `snapshot` sees it.  The state is
 * palloc'd in the current memory context.
 *
 * With a time all that are newer are passed on the way, unless many are kept: then the
 * place is found by bisection.  What a snapshot says of the time is the greatest of all its
 * events, so it rises from one to the next, also where times of events do not.
 */
bool
SnapshotStoreLoad(const StreamKey *key, const Aggregate *aggregate, int64 up_to_sequence,
				  TimestampTz up_to_time, Snapshot snapshot, StoredState *stored)
{
	static InternalQuery query = {
		.sql = "SELECT last_sequence, last_event_at, payload FROM cqrs_es.snapshots"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND aggregate_id OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3"
		" AND fingerprint OPERATOR(pg_catalog.=) $4"
		" AND last_sequence OPERATOR(pg_catalog.<=) $5"
		" AND last_event_at OPERATOR(pg_catalog.<=) $6"
		" ORDER BY last_sequence DESC LIMIT 1",
		.nargs = 6,.argtypes = {TEXTOID, TEXTOID, TEXTOID, BYTEAOID, INT8OID, TIMESTAMPTZOID}
	};
	Datum		values[6] = {PointerGetDatum(key->aggregate_type),
		PointerGetDatum(key->aggregate_id),
		PointerGetDatum(key->tenant_id),
		PointerGetDatum(aggregate->rules.fingerprint),
		Int64GetDatum(up_to_sequence),
		TimestampTzGetDatum(up_to_time)};
	MemoryContext caller = CurrentMemoryContext;
	RoleSwitch	saved;
	bool		found;

	SPI_connect();
	saved = RoleSwitchToOwner("snapshots");
	if (up_to_time != DT_NOEND && aggregate->keep_snapshots >= BISECT_FROM)
		values[4] = Int64GetDatum(last_until(values, up_to_sequence, up_to_time, snapshot));
	found = InternalQueryRead(&query, values, NULL, snapshot) > 0;
	RoleSwitchBack(&saved);
	if (found)
	{
		QueryRow	row = InternalQueryRow(0);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		stored->last_sequence = DatumGetInt64(InternalQueryDatum(&row, "last_sequence", NULL));
		stored->last_event_at =
			DatumGetTimestampTz(InternalQueryDatum(&row, "last_event_at", NULL));
		stored->state = DatumGetJsonbPCopy(InternalQueryDatum(&row, "payload", NULL));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return found;
}

/*
 * The sequence of the stream's newest usable snapshot as above, 0 when there is none; of whose
 * values are the stream and the fingerprint.  Between SPI_connect and SPI_finish.
 */
static int64
last_until(const Datum *of_whose, int64 up_to_sequence, TimestampTz up_to_time, Snapshot snapshot)
{
	static InternalQuery query = {
		.sql = "SELECT last_sequence, last_event_at FROM cqrs_es.snapshots"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND aggregate_id OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3"
		" AND fingerprint OPERATOR(pg_catalog.=) $4"
		" AND last_sequence OPERATOR(pg_catalog.>) $5"
		" AND last_sequence OPERATOR(pg_catalog.<=) $6"
		" ORDER BY last_sequence DESC LIMIT 1",
		.nargs = 6,.argtypes = {TEXTOID, TEXTOID, TEXTOID, BYTEAOID, INT8OID, INT8OID}
	};
	int64		found = 0;
	int64		after = 0;		/* up to there: found, or none that is newer than that */
	int64		up_to = up_to_sequence;
	int64		middle = up_to_sequence;

	/* the newest of all comes first; that tells how many there can be */
	while (after < up_to)
	{
		Datum		values[6] = {of_whose[0], of_whose[1], of_whose[2], of_whose[3],
			Int64GetDatum(after), Int64GetDatum(middle)};
		bool		any = InternalQueryRead(&query, values, NULL, snapshot) > 0;

		if (any)
		{
			QueryRow	row = InternalQueryRow(0);
			int64		sequence = DatumGetInt64(InternalQueryDatum(&row, "last_sequence", NULL));

			if (DatumGetTimestampTz(InternalQueryDatum(&row, "last_event_at", NULL)) > up_to_time)
				up_to = sequence - 1;
			else
			{
				found = sequence;
				after = middle;
			}
		}
		else
			after = middle;
		SPI_freetuptable(SPI_tuptable);
		middle = after + (up_to - after + 1) / 2;
	}
	return found;
}

/*
 * To be called before the log is read for a state that will be saved.  Takes the lock, to the end of the
 * transaction, that saving takes anyway.  So who changes events below the triggers, and has locked
 * the table against that, either waits for whoever may save what he is about to change, and then
 * sees it, or is waited for.
 */
void
SnapshotStoreBegin(void)
{
	LockRelationOid(ExtensionRelid("snapshots"), RowExclusiveLock);
}

/*
 * Save a state that was folded behind SnapshotStoreBegin, and let go of those that are not to be
 * kept.  Above READ COMMITTED nothing is saved, or let go of, where another
 * transaction did so since this one's snapshot.
 */
void
SnapshotStoreSave(const StreamKey *key, const Aggregate *aggregate, const StoredState *stored)
{
#define OF_STREAM \
	" aggregate_type OPERATOR(pg_catalog.=) $1 AND aggregate_id OPERATOR(pg_catalog.=) $2" \
	" AND tenant_id OPERATOR(pg_catalog.=) $3"
	static InternalQuery save = {
		.sql = "INSERT INTO cqrs_es.snapshots AS s (aggregate_type, aggregate_id, tenant_id,"
		" fingerprint, last_sequence, payload, last_event_at, current_snapshot)"
		" SELECT $1, $2, $3, $4, $5, $6, $7, (SELECT coalesce(pg_catalog.max(current_snapshot), 0)"
		" OPERATOR(pg_catalog.+) 1 FROM cqrs_es.snapshots WHERE" OF_STREAM ")"
		" ON CONFLICT (aggregate_type, aggregate_id, tenant_id, last_sequence) DO UPDATE SET"
		" fingerprint = excluded.fingerprint,"
		" payload = excluded.payload,"
		" last_event_at = excluded.last_event_at,"
		" current_snapshot = excluded.current_snapshot,"
		" created_at = excluded.created_at"
		" WHERE s.fingerprint IS NULL"
		" OR s.fingerprint OPERATOR(pg_catalog.<>) excluded.fingerprint",
		.nargs = 7,.argtypes = {TEXTOID, TEXTOID, TEXTOID, BYTEAOID, INT8OID, JSONBOID, TIMESTAMPTZOID}
	};
	static InternalQuery clean = {
		.sql = "DELETE FROM cqrs_es.snapshots WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
		"SELECT ctid FROM cqrs_es.snapshots WHERE" OF_STREAM
		" AND (fingerprint IS NULL OR fingerprint OPERATOR(pg_catalog.<>) $4"
		" OR last_sequence OPERATOR(pg_catalog.<=) (SELECT last_sequence FROM cqrs_es.snapshots"
		" WHERE" OF_STREAM " AND fingerprint OPERATOR(pg_catalog.=) $4"
		" ORDER BY last_sequence DESC OFFSET $5 LIMIT 1)) FOR UPDATE SKIP LOCKED))",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, BYTEAOID, INT8OID}
	};
	Datum		values[7] = {PointerGetDatum(key->aggregate_type),
		PointerGetDatum(key->aggregate_id),
		PointerGetDatum(key->tenant_id),
		PointerGetDatum(aggregate->rules.fingerprint),
		Int64GetDatum(stored->last_sequence),
		JsonbPGetDatum(stored->state),
		TimestampTzGetDatum(stored->last_event_at)};
	RoleSwitch	saved;

	/* its columns come with the update */
	if (ExtensionIsOlder())
		return;
	SPI_connect();
	saved = RoleSwitchToOwner("snapshots");
	InternalQueryWriteUnlessMoved(&save, values);
	values[4] = Int64GetDatum(aggregate->keep_snapshots);
	cleaning = true;
	PG_TRY();
	{
		InternalQueryWriteUnlessMoved(&clean, values);
	}
	PG_FINALLY();
	{
		cleaning = false;
	}
	PG_END_TRY();
	RoleSwitchBack(&saved);
	SPI_finish();
}

/*
 * For the trigger of a statement that deletes snapshots: is it our own, which lets go of those
 * that newer ones have taken the place of?  What follows from it, or is undone with it, is not.
 */
bool
SnapshotStoreIsCleaning(void)
{
	bool		result = cleaning;

	cleaning = false;
	return result;
}

/* Those that we made go with the aggregate type; a client's own are not ours. */
static void
drop_snapshots(const text *aggregate_type)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.snapshots"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 AND fingerprint IS NOT NULL",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(aggregate_type);

	(void) RegistryWrite(&query, &value, NULL);
}

/* All of a stream that was redacted or deleted, also a client's own: they have what was erased in them. */
static void
delete_of_stream(const Redaction *redaction)
{
	const StreamKey *key = &redaction->key;
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.snapshots WHERE" OF_STREAM,
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[3] = {PointerGetDatum(key->aggregate_type),
		PointerGetDatum(key->aggregate_id), PointerGetDatum(key->tenant_id)};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("snapshots");
	RoleSwitchRequireAllRows();
	(void) InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
}
