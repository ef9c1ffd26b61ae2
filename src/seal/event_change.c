/*-------------------------------------------------------------------------
 * event_change.c
 *	  Changes of sealed events that are made by rule: table event_changes.
 *
 * Events are not changed.  Where a law demands it all the same, whoever has the means notes
 * here what he does: the digests of the event as it was sealed, and those of what it
 * becomes.  So verify_seals() can do two things: make the digest that was sealed, without
 * the data, and see that the event is today what the change has left.  Of the event all
 * stays but payload and metadata, or nothing: a change cannot give an event another place,
 * time, type or stream, whoever forges its row, since the digest that was sealed is made of what
 * stands there today.
 *
 * What is not sealed yet needs no note: it will be sealed as it is then.  So nothing is kept
 * of it, and nothing where no seals are made.
 *
 * Which seals are older than a change is told by the number of the newest in its row.  For
 * that to be true, who notes a change keeps out who seals, and the other way around: a change
 * locks the table as any INSERT does, to the end of its transaction; seal() takes a lock that
 * conflicts with that before it takes its snapshot.  Either it sees the change done, or
 * the change sees its seal.
 *
 * The rows are covered by the next seal, and are never changed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "base/role_switch.h"
#include "base/text.h"
#include "log/event_scan.h"
#include "log/position.h"
#include "log/redaction.h"
#include "seal/event_change.h"
#include "seal/seal.h"

/* rows that are read at once */
#define PORTION_ROWS	1000

PG_FUNCTION_INFO_V1(cqrs_es_note_change);

static void lock(const Redaction *redaction);
static void note(const Event *before, const Event *after, const text *reason);
static void event_argument(NullableDatum arg, const char *what, Event *event);
static void require_in_log(const Event *event, const EventDigests *digests,
						   EventDigester *digester);
static void insert_change(const Event *event, const EventDigests *before,
						  const EventDigests *after, const text *reason, int64 seal,
						  const char *changed_by);
static void add_row(Sha256Stream *stream, const QueryRow *row);

void
EventChangeInit(void)
{
	static const RedactionPart part = {.lock = lock,.event = note};

	RedactionRegister(&part);
}

static void
lock(const Redaction *redaction)
{
	EventChangeLock();
}

static void
note(const Event *before, const Event *after, const text *reason)
{
	(void) EventChangeNote(before, after, reason);
}

/* SQL: note_change(before, after, reason).  For whoever changes the log in SQL. */
Datum
cqrs_es_note_change(PG_FUNCTION_ARGS)
{
	Event		before;
	Event		after;

	ReadOnlyPrevent(fcinfo);
	event_argument(fcinfo->args[0], "before", &before);
	if (!PG_ARGISNULL(1))
		event_argument(fcinfo->args[1], "after", &after);
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("reason must not be null")));
	PG_RETURN_BOOL(EventChangeNote(&before, PG_ARGISNULL(1) ? NULL : &after, PG_GETARG_TEXT_PP(2)));
}

/* To be called before the transaction changes or locks any row of the log. */
void
EventChangeLock(void)
{
	LockRelationOid(ExtensionRelid("event_changes"), RowExclusiveLock);
}

/*
 * Note that this transaction, which has locked the event's row, is about to turn an event into
 * another one, or to remove it (`after` is NULL).  False, and nothing is noted, when it is not
 * sealed.  Who may do so is for the caller to know.
 *
 * Raises 22023 when more would change than payload and metadata, and when `before` is not what
 * is in the log (payloads that were lifted on the way out, say): the seal could not be
 * proved any more.
 */
bool
EventChangeNote(const Event *before, const Event *after, const text *reason)
{
	char	   *changed_by = GetUserNameFromId(GetUserId(), false);
	int64		position = EventGlobalPosition(before);
	EventDigester *digester;
	EventDigests was;
	EventDigests is;
	Seal		newest;

	if (after && !EventIsSame(before, after))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an event cannot become another one"),
				 errdetail("Nothing of it may change but payload and metadata.")));
	EventChangeLock();
	if (!SealFindNewest(POSITION_NODE(position), GetLatestSnapshot(), &newest) ||
		position > newest.up_to_position)
		return false;
	digester = EventDigesterBegin();
	EventDigestMake(digester, before, &was);
	require_in_log(before, &was, digester);
	if (after)
		EventDigestMake(digester, after, &is);
	EventDigesterEnd(digester);
	insert_change(before, &was, after ? &is : NULL, reason, newest.number, changed_by);
	return true;
}

/* The event that is an argument, of type cqrs_es.event; its values belong to that.  22004. */
static void
event_argument(NullableDatum arg, const char *what, Event *event)
{
	bool		nulls[EVENT_NCOLUMNS] = {true};
	HeapTupleHeader header;
	HeapTupleData row;
	TupleDesc	desc;
	int			column;

	if (!arg.isnull)
	{
		header = DatumGetHeapTupleHeader(arg.value);
		desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
									  HeapTupleHeaderGetTypMod(header));
		if (desc->natts != EVENT_NCOLUMNS)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("type cqrs_es.event has been altered")));
		row.t_len = HeapTupleHeaderGetDatumLength(header);
		ItemPointerSetInvalid(&row.t_self);
		row.t_tableOid = InvalidOid;
		row.t_data = header;
		heap_deform_tuple(&row, desc, event->values, nulls);
		ReleaseTupleDesc(desc);
	}
	for (column = 0; column < EVENT_NCOLUMNS; column++)
		if (nulls[column])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must be an event without nulls", what)));
	event->row = NULL;
	event->append_version = 0;
}

static void
require_in_log(const Event *event, const EventDigests *digests, EventDigester *digester)
{
	LogSnapshot snapshot = EventsSnapshotTake(true);
	EventScan  *scan = EventScanWholeAt(EventGlobalPosition(event), snapshot.snapshot);
	bool		found = false;
	Event		stored;

	while (!found && EventScanNext(scan, &stored))
	{
		EventDigests of_stored;

		EventDigestMake(digester, &stored, &of_stored);
		found = SealDigestsEqual(&of_stored.event, &digests->event);
	}
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the event before the change is not what is in the log at position %lld",
						(long long) EventGlobalPosition(event)),
				 errhint("Note a change before it is made, and of the event as it is stored: read it with raw => true.")));
}

static void
insert_change(const Event *event, const EventDigests *before, const EventDigests *after,
			  const text *reason, int64 seal, const char *changed_by)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.event_changes (global_position, event_id, number, after_seal,"
		" event_before, content_before, content_after, changed_at, changed_by, reason)"
		" SELECT $1, $2, 1 OPERATOR(pg_catalog.+) coalesce((SELECT max(c.number) FROM cqrs_es.event_changes AS c"
		" WHERE c.global_position OPERATOR(pg_catalog.=) $1 AND c.event_id OPERATOR(pg_catalog.=) $2), 0),"
		" $3, $4, $5, $6, pg_catalog.clock_timestamp(), $7, $8",
		.nargs = 8,.argtypes = {INT8OID, UUIDOID, INT8OID, BYTEAOID, BYTEAOID, BYTEAOID, TEXTOID, TEXTOID}
	};
	Datum		values[8];
	char		nulls[8];
	RoleSwitch	saved;

	memset(nulls, ' ', sizeof(nulls));
	values[0] = event->values[EVENT_GLOBAL_POSITION];
	values[1] = event->values[EVENT_EVENT_ID];
	values[2] = Int64GetDatum(seal);
	values[3] = SealDigestDatum(&before->event);
	values[4] = SealDigestDatum(&before->content);
	values[5] = after ? SealDigestDatum(&after->content) : (Datum) 0;
	nulls[5] = after ? ' ' : 'n';
	values[6] = CStringGetTextDatum(changed_by);
	values[7] = PointerGetDatum(reason);

	SPI_connect();
	saved = RoleSwitchToOwner("event_changes");
	(void) InternalQueryWriteNewest(&query, values, nulls);
	RoleSwitchBack(&saved);
	SPI_finish();
}

/* Are there changes as EventChangesSince gives them? */
bool
EventChangesExist(int64 seal, int64 after_position, int64 up_to_position, Snapshot snapshot)
{
	static InternalQuery query = {
		.sql = "SELECT FROM cqrs_es.event_changes"
		" WHERE global_position OPERATOR(pg_catalog.>) $2 AND global_position OPERATOR(pg_catalog.<=) $3"
		" AND after_seal OPERATOR(pg_catalog.>=) $1 LIMIT 1",
		.nargs = 3,.argtypes = {INT8OID, INT8OID, INT8OID}
	};
	Datum		values[3] = {Int64GetDatum(seal), Int64GetDatum(after_position),
		Int64GetDatum(up_to_position)};
	RoleSwitch	saved;
	bool		exist;

	SPI_connect();
	saved = RoleSwitchToOwner("event_changes");
	exist = InternalQueryRead(&query, values, NULL, snapshot) > 0;
	RoleSwitchBack(&saved);
	SPI_finish();
	return exist;
}

/*
 * The changes of the events between two positions, the first exclusive, that were made
 * since that seal, in the order of positions, and of one event in that in which they were made.
 * palloc'd.
 */
EventChange *
EventChangesSince(int64 seal, int64 after_position, int64 up_to_position, Snapshot snapshot, int *n)
{
	static InternalQuery query = {
		.sql = "SELECT global_position, event_id, event_before, content_before, content_after"
		" FROM cqrs_es.event_changes"
		" WHERE global_position OPERATOR(pg_catalog.>) $2 AND global_position OPERATOR(pg_catalog.<=) $3"
		" AND after_seal OPERATOR(pg_catalog.>=) $1 ORDER BY global_position, event_id, number",
		.nargs = 3,.argtypes = {INT8OID, INT8OID, INT8OID}
	};
	Datum		values[3] = {Int64GetDatum(seal), Int64GetDatum(after_position),
		Int64GetDatum(up_to_position)};
	MemoryContext caller = CurrentMemoryContext;
	EventChange *changes;
	RoleSwitch	saved;
	int			i;

	SPI_connect();
	saved = RoleSwitchToOwner("event_changes");
	*n = (int) InternalQueryRead(&query, values, NULL, snapshot);
	MemoryContextSwitchTo(caller);
	changes = palloc(Max(*n, 1) * sizeof(EventChange));
	for (i = 0; i < *n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		EventChange *change = &changes[i];

		memset(change, 0, sizeof(*change));
		change->global_position = DatumGetInt64(InternalQueryDatum(&row, "global_position", NULL));
		change->event_id = *DatumGetUUIDP(InternalQueryDatum(&row, "event_id", NULL));
		(void) SealDigestColumn(&row, "event_before", &change->before.event);
		(void) SealDigestColumn(&row, "content_before", &change->before.content);
		change->removed = !SealDigestColumn(&row, "content_after", &change->content_after);
	}
	RoleSwitchBack(&saved);
	SPI_finish();
	return changes;
}

/*
 * The digest of all changes that were made when this was the newest seal, and how many these
 * are.
 */
int64
EventChangesDigest(int64 seal, Snapshot snapshot, Sha256Digest *digest)
{
	static InternalQuery query = {
		.sql = "SELECT global_position, event_id, number, after_seal, event_before, content_before,"
		" content_after, changed_at, changed_by, reason"
		" FROM cqrs_es.event_changes"
		" WHERE after_seal OPERATOR(pg_catalog.=) $1"
		" AND (global_position, event_id, number) OPERATOR(pg_catalog.>) ($2, $3, $4)"
		" ORDER BY global_position, event_id, number LIMIT $5",
		.nargs = 5,.argtypes = {INT8OID, INT8OID, UUIDOID, INT4OID, INT4OID}
	};
	Sha256Stream *stream = Sha256Open();
	pg_uuid_t	id = {{0}};
	Datum		values[5] = {Int64GetDatum(seal), Int64GetDatum(PG_INT64_MIN), UUIDPGetDatum(&id),
		Int32GetDatum(0), Int32GetDatum(PORTION_ROWS)};
	int64		total = 0;
	RoleSwitch	saved;
	uint64		n;

	SPI_connect();
	saved = RoleSwitchToOwner("event_changes");
	Sha256Start(stream);
	do
	{
		uint64		i;

		n = InternalQueryRead(&query, values, NULL, snapshot);
		for (i = 0; i < n; i++)
		{
			QueryRow	row = InternalQueryRow(i);

			add_row(stream, &row);
			values[1] = InternalQueryDatum(&row, "global_position", NULL);
			id = *DatumGetUUIDP(InternalQueryDatum(&row, "event_id", NULL));
			values[3] = InternalQueryDatum(&row, "number", NULL);
		}
		SPI_freetuptable(SPI_tuptable);
		total += n;
		CHECK_FOR_INTERRUPTS();
	} while (n == PORTION_ROWS);
	RoleSwitchBack(&saved);
	SPI_finish();
	Sha256Finish(stream, digest);
	Sha256Close(stream);
	return total;
}

/* All columns, each with its length before it. */
static void
add_row(Sha256Stream *stream, const QueryRow *row)
{
	int			column;

	for (column = 0; column < row->desc->natts; column++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(row->tuple, row->desc, column + 1, &isnull);

		switch (TupleDescAttr(row->desc, column)->atttypid)
		{
			case INT4OID:
				Sha256AddNumber(stream, DatumGetInt32(value));
				break;
			case INT8OID:
			case TIMESTAMPTZOID:
				Sha256AddNumber(stream, DatumGetInt64(value));
				break;
			case UUIDOID:
				Sha256AddSized(stream, DatumGetUUIDP(value)->data, UUID_LEN);
				break;
			default:			/* text and bytea */
				if (isnull)
					Sha256AddNumber(stream, -1);
				else
				{
					const struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);

					Sha256AddSized(stream, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
				}
		}
	}
}
