/*-------------------------------------------------------------------------
 * redaction.c
 *	  Members of events are replaced, by rule: the only change of an event there is, but that all
 *	  of a stream are removed (deleted_stream.c), which is done in the same frame.
 *
 * Payload and metadata of the row are written anew with null, or a given value, where JSON
 * pointers lead; everything else of the event stays.  What held a copy follows in the same
 * transaction, each in its own room (RedactionPart).
 *
 * A redaction begins with an event '$redacted' behind all others of the stream.  So who
 * redacts owns the end of the stream until he commits, and nobody can carry on what he has
 * read before:
 *
 *	- whoever appends to the stream, and what is kept in that transaction (snapshots, rows of
 *	  states), has ended before, or waits, and reads anew;
 *	- a command that was decided before has lost its race, and is decided anew;
 *	- above READ COMMITTED whoever has an older snapshot cannot append any more;
 *	- handlers, subscribers, and every later replay are told in the order of the log;
 *	- a state that is older than that event, but goes on behind it, can be told (fold.c).
 *
 * Who keeps a copy for others without owning the end (take_snapshot, execute_boundary) shuts
 * redactions out from before his snapshot until he commits (RedactionKeepOut): a lock on the
 * table redactions, which a redaction takes in a mode that is against itself, too.  So there is
 * one at a time, and positions of '$redacted' rise as they commit.
 *
 * The append, and all that follows from it, runs with the rights of who calls: reducers and
 * handlers must not come to run as the owner of the log.  The change of the rows runs as that
 * owner, and the guard of the log lets just that row pass, with nothing else different.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/json_pointer.h"
#include "base/read_only.h"
#include "base/role_switch.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/closed_stream.h"
#include "log/dispatch.h"
#include "log/event_scan.h"
#include "log/own_event.h"
#include "log/redaction.h"
#include "log/reserved_type.h"

#define MAX_PARTS	16

/* A member of payload or metadata, or all of it. */
typedef struct Target
{
	EventColumn column;
	JsonPointer path;
} Target;

/* What is to be done, to one stream. */
typedef struct Order
{
	StreamKey	key;
	int64		sequence;		/* of the one event; 0: all of the stream */
	ArrayType  *pointers;
	int			ntargets;
	Target	   *targets;
	text	   *reason;
	Jsonb	   *replacement;
} Order;

/* The row that may be changed now; position 0: none.  And the rows that may be removed. */
typedef struct Permit
{
	int64		position;
	int64		sequence;
	const Redaction *removal;	/* NULL: none */
} Permit;

static const RedactionPart *parts[MAX_PARTS];
static int	nparts = 0;

static Permit permit = {0};

PG_FUNCTION_INFO_V1(cqrs_es_redact_stream);
PG_FUNCTION_INFO_V1(cqrs_es_redact_event);

static void order_args(FunctionCallInfo fcinfo, int first, Order *order);
static void parse_targets(Order *order);
static void parse_target(Target *target, const char *pointer);
static bool is_target(const Order *order, const Event *event);
static int64 redact(const Order *order);
static char *marker_payload(const Order *order);
static bool change_events(const Order *order, Redaction *redaction, bool *exists);
static bool change(const Order *order, const Event *event, Event *after);
static void note(Redaction *redaction, const Event *event);
static void require_written(const Event *after);
static bool same_json(Datum a, Datum b);
static void write_redaction(const Redaction *redaction);
static bool permits_removal(const TriggerData *trigdata);
static bool permits_change(const TriggerData *trigdata);
static void lock_redactions(LOCKMODE mode);
static ArrayType *types_of(const StreamKey *key);
static int64 last_redaction(Snapshot snapshot);

/* Have another room follow; called by Inits only. */
void
RedactionRegister(const RedactionPart *part)
{
	if (nparts >= MAX_PARTS)
		elog(ERROR, "too many parts of redactions");
	parts[nparts++] = part;
}

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/* SQL: redact_stream(aggregate_type, aggregate_id, pointers, reason, replacement) */
Datum
cqrs_es_redact_stream(PG_FUNCTION_ARGS)
{
	Order		order = {.sequence = 0};
	bool		exists = false;

	RedactionRequirePossible(fcinfo, "redact_stream()");
	order.key.aggregate_type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	order.key.aggregate_id = TextArgument(fcinfo->args[1], "aggregate_id", AGGREGATE_ID_MAX_BYTES);
	order.key.tenant_id = TenancyCurrent();
	order_args(fcinfo, 2, &order);
	if (change_events(&order, NULL, &exists))
		PG_RETURN_INT64(redact(&order));
	if (!exists)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream \"%s\" has no events", StreamKeyName(&order.key))));
	PG_RETURN_INT64(0);
}

/*
 * SQL: redact_event(global_position, pointers, reason, replacement).  Of a log that was
 * brought together there may be several at the position.
 */
Datum
cqrs_es_redact_event(PG_FUNCTION_ARGS)
{
	text	   *tenant_id = TenancyCurrent();
	List	   *events = NIL;
	int64		n = 0;
	LogSnapshot snapshot;
	EventScan  *scan;
	Event		event;
	Order		order;
	ListCell   *lc;

	RedactionRequirePossible(fcinfo, "redact_event()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("global_position must not be null")));
	order_args(fcinfo, 1, &order);
	snapshot = EventsSnapshotTake(false);
	scan = EventScanAt(PG_GETARG_INT64(0), snapshot.snapshot);
	while (EventScanNext(scan, &event))
		if (TextEqual(EventText(&event, EVENT_TENANT_ID), tenant_id))
			events = lappend(events, EventCopy(&event));
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	if (events == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no event at position %lld", (long long) PG_GETARG_INT64(0))));
	foreach(lc, events)
	{
		bool		exists = false;

		EventKey(lfirst(lc), &order.key);
		/* it has to stay the last one for the stream to be deleted */
		if (ReservedTypeEquals(EventText((Event *) lfirst(lc), EVENT_EVENT_TYPE), DELETED_EVENT_TYPE))
			EventScanReportDeleted(&order.key, EventSequence((Event *) lfirst(lc)));
		order.sequence = EventSequence((Event *) lfirst(lc));
		if (change_events(&order, NULL, &exists))
			n += redact(&order);
	}
	PG_RETURN_INT64(n);
}

/*
 * Raises 25006, 42501, QE608, for snapshots on other nodes would keep what is erased, and 25001 above READ COMMITTED, where what is newer than the transaction's
 * snapshot would be left as it is, or in a handler, which has an event in hand.
 */
void
RedactionRequirePossible(FunctionCallInfo fcinfo, const char *function)
{
	ReadOnlyPrevent(fcinfo);
	EventsRefuseDistributed(function);
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s needs READ COMMITTED", function)));
	if (DispatchIsBusy())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot be called by a handler", function)));
	EventsRequireRights(ACL_INSERT | ACL_SELECT);
	if (EventsRowSecurity())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s needs to see all events", function),
				 errdetail("Row security of table \"%s\" may hide some of them.", "events")));
}

/* The arguments that both have, from the `first` on. */
static void
order_args(FunctionCallInfo fcinfo, int first, Order *order)
{
	if (PG_ARGISNULL(first))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("pointers must not be null")));
	if (PG_ARGISNULL(first + 2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("replacement must not be null"),
				 errhint("The JSON null is 'null'.")));
	order->pointers = PG_GETARG_ARRAYTYPE_P(first);
	order->reason = TextArgument(fcinfo->args[first + 1], "reason", REASON_MAX_BYTES);
	order->replacement = PG_GETARG_JSONB_P(first + 2);
	parse_targets(order);
}

static void
parse_targets(Order *order)
{
	Datum	   *datums;
	bool	   *nulls;
	int			i;

	if (ARR_NDIM(order->pointers) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("pointers must be a one-dimensional array")));
	deconstruct_array(order->pointers, TEXTOID, -1, false, TYPALIGN_INT, &datums, &nulls, &order->ntargets);
	if (order->ntargets == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("pointers must not be empty")));
	order->targets = palloc(order->ntargets * sizeof(Target));
	for (i = 0; i < order->ntargets; i++)
	{
		Target	   *target = &order->targets[i];

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a pointer must not be null")));
		parse_target(target, TextDatumGetCString(datums[i]));
		if (target->column == EVENT_METADATA && target->path.nkeys == 0 &&
			!JB_ROOT_IS_OBJECT(order->replacement))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("metadata can only be replaced by a JSON object"),
					 errhint("Pass replacement => '{}', or name its members.")));
	}
}

/* A pointer into an event, of whose members there are two: 22023 for any other. */
static void
parse_target(Target *target, const char *pointer)
{
	JsonPointer whole;

	if (!JsonPointerParse(&whole, pointer) || whole.nkeys == 0 ||
		(strcmp(whole.keys[0], "payload") != 0 && strcmp(whole.keys[0], "metadata") != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is no JSON pointer to something in a payload or in metadata", pointer),
				 errhint("Write '/payload/name' or '/metadata/user'; in a key ~ is written as ~0, and / as ~1.")));
	target->column = strcmp(whole.keys[0], "payload") == 0 ? EVENT_PAYLOAD : EVENT_METADATA;
	target->path.nkeys = whole.nkeys - 1;
	target->path.keys = whole.keys + 1;
}

/*-------------------------------------------------------------------------
 * redacting
 *-------------------------------------------------------------------------
 */

/* Is the event among those that are to be changed?  Of our own only one that is named. */
static bool
is_target(const Order *order, const Event *event)
{
	if (order->sequence != 0)
		return EventSequence(event) == order->sequence;
	return !ReservedTypeIs(EventText(event, EVENT_EVENT_TYPE));
}

/* Returns how many events were changed. */
static int64
redact(const Order *order)
{
	Redaction	redaction = {.key = order->key,.event_type = REDACTED_EVENT_TYPE,
		.pointers = order->pointers,.reason = order->reason};

	RedactionLock(&redaction);
	RedactionBegin(&redaction, marker_payload(order));
	ClosedStreamKeep(&order->key, redaction.sequence - 1);
	(void) change_events(order, &redaction, NULL);
	return RedactionEnd(&redaction);
}

/* What '$redacted' says: nothing of what stood there. */
static char *
marker_payload(const Order *order)
{
	StringInfoData payload;
	Datum	   *pointers;
	int			n;
	int			i;

	initStringInfo(&payload);
	appendStringInfoString(&payload, "{\"reason\": ");
	escape_json(&payload, text_to_cstring(order->reason));
	if (order->sequence != 0)
		appendStringInfo(&payload, ", \"sequence\": " INT64_FORMAT, order->sequence);
	appendStringInfoString(&payload, ", \"pointers\": [");
	deconstruct_array(order->pointers, TEXTOID, -1, false, TYPALIGN_INT, &pointers, NULL, &n);
	for (i = 0; i < n; i++)
	{
		if (i > 0)
			appendStringInfoString(&payload, ", ");
		escape_json(&payload, TextDatumGetCString(pointers[i]));
	}
	appendStringInfoString(&payload, "]}");
	return payload.data;
}

/*
 * Change the events of the stream, of which there are no others to come: all before the end, which is
 * ours, are committed, or ours as well.  Without a redaction: is there any to change?  So that
 * nothing is written where nothing is; *exists becomes whether there are events.
 */
static bool
change_events(const Order *order, Redaction *redaction, bool *exists)
{
	LogSnapshot snapshot = EventsSnapshotTake(redaction != NULL);
	EventScan  *scan = EventScanWholeStream(&order->key, Max(order->sequence, 1), ForwardScanDirection,
											snapshot.snapshot);
	MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es redaction", ALLOCSET_DEFAULT_SIZES);
	bool		found = false;
	Event		event;
	Event		after;

	while ((redaction || !found) && EventScanNext(scan, &event))
	{
		MemoryContext caller;

		CHECK_FOR_INTERRUPTS();
		if (exists)
			*exists = true;
		if (order->sequence != 0 && EventSequence(&event) > order->sequence)
			break;
		caller = MemoryContextSwitchTo(work);
		if (is_target(order, &event) && change(order, &event, &after))
		{
			found = true;
			if (redaction)
			{
				RedactionNote(redaction, &event, &after);
				RedactionWrite(&after);
			}
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(work);
	}
	MemoryContextDelete(work);
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	return found;
}

/* The event as it is to be; false when it is so already. */
static bool
change(const Order *order, const Event *event, Event *after)
{
	bool		changed = false;
	int			i;

	*after = *event;
	after->row = NULL;
	for (i = 0; i < order->ntargets; i++)
	{
		const Target *target = &order->targets[i];
		Jsonb	   *before = DatumGetJsonbP(after->values[target->column]);
		Jsonb	   *json = JsonPointerReplace(&target->path, before, order->replacement);

		if (same_json(JsonbPGetDatum(json), JsonbPGetDatum(before)))
			continue;
		after->values[target->column] = JsonbPGetDatum(json);
		changed = true;
	}
	return changed;
}

/* Write payload and metadata of an event that has been noted.  42501 where row security is forced on the owner. */
void
RedactionWrite(const Event *after)
{
	static InternalQuery query = {
		.sql = "UPDATE cqrs_es.events SET payload = $6, metadata = $7"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 AND aggregate_id OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3 AND sequence OPERATOR(pg_catalog.=) $4"
		" AND global_position OPERATOR(pg_catalog.=) $5 RETURNING payload, metadata",
		.nargs = 7,.argtypes = {TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID, JSONBOID, JSONBOID}
	};
	Datum		values[7] = {after->values[EVENT_AGGREGATE_TYPE], after->values[EVENT_AGGREGATE_ID],
		after->values[EVENT_TENANT_ID], after->values[EVENT_SEQUENCE],
		after->values[EVENT_GLOBAL_POSITION], after->values[EVENT_PAYLOAD],
		after->values[EVENT_METADATA]};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	RoleSwitchRequireAllRows();
	permit.position = EventGlobalPosition(after);
	permit.sequence = EventSequence(after);
	PG_TRY();
	{
		(void) InternalQueryWrite(&query, values, NULL);
	}
	PG_FINALLY();
	{
		permit.position = 0;
	}
	PG_END_TRY();
	RoleSwitchBack(&saved);
	require_written(after);
	SPI_finish();
}

/* 09000 when triggers or rules of users have made something else of it. */
static void
require_written(const Event *after)
{
	bool		written = SPI_processed == 1;

	if (written)
	{
		QueryRow	row = InternalQueryRow(0);

		written = same_json(InternalQueryDatum(&row, "payload", NULL), after->values[EVENT_PAYLOAD]) &&
			same_json(InternalQueryDatum(&row, "metadata", NULL), after->values[EVENT_METADATA]);
	}
	if (!written)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("the event at position %lld was not redacted", (long long) EventGlobalPosition(after)),
				 errdetail("A trigger or rule on the events table kept it from that.")));
}

static bool
same_json(Datum a, Datum b)
{
	return compareJsonbContainers(&DatumGetJsonbP(a)->root, &DatumGetJsonbP(b)->root) == 0;
}

/*-------------------------------------------------------------------------
 * the frame of what changes events
 *-------------------------------------------------------------------------
 */

/* No other redaction from now on until the transaction ends, and nobody who keeps a copy. */
void
RedactionLockAll(void)
{
	lock_redactions(ShareRowExclusiveLock);
}

/*
 * Take the locks that come before everything of the log: for who begins several, of all of them
 * first.
 */
void
RedactionLock(const Redaction *redaction)
{
	int			i;

	RedactionLockAll();
	for (i = 0; i < nparts; i++)
		if (parts[i]->lock)
			parts[i]->lock(redaction);
}

/*
 * Append the event that tells of it, with this payload; all of the stream's events are committed
 * then, or ours, and the stream's end is ours.  Nobody is told before RedactionEnd.  Raises what an
 * append raises, QE008 for a stream that somebody has deleted meanwhile.
 */
void
RedactionBegin(Redaction *redaction, const char *payload)
{
	AppendResult result;

	redaction->memory = CurrentMemoryContext;
	redaction->changed = initArrayResult(INT8OID, CurrentMemoryContext, false);
	redaction->changed_types = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	redaction->was_held = DispatchHold();
	(void) OwnEventAppend(&redaction->key, EXPECT_ANY, redaction->event_type, payload, &result);
	redaction->global_position = result.global_position;
	redaction->sequence = result.version;
}

/* An event is about to become another one; `after` is NULL: to go. */
void
RedactionNote(Redaction *redaction, const Event *before, const Event *after)
{
	int			i;

	for (i = 0; i < nparts; i++)
		if (parts[i]->event)
			parts[i]->event(before, after, redaction->reason);
	note(redaction, before);
}

/* The row of an event stays as it is, but what is in it can be read by nobody any more. */
void
RedactionNoteLost(Redaction *redaction, const Event *event)
{
	note(redaction, event);
}

static void
note(Redaction *redaction, const Event *event)
{
	if (redaction->n++ == 0)
		redaction->first_position = EventGlobalPosition(event);
	(void) accumArrayResult(redaction->changed, event->values[EVENT_GLOBAL_POSITION], false, INT8OID, redaction->memory);
	(void) accumArrayResult(redaction->changed_types, event->values[EVENT_EVENT_TYPE], false, TEXTOID, redaction->memory);
}

/*
 * Remove all events of the stream in front of ours, which have been noted.  42501 where row security
 * is forced on the owner, 09000 when triggers or rules of users kept some of them.
 */
void
RedactionRemove(const Redaction *redaction)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.events"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 AND aggregate_id OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3 AND sequence OPERATOR(pg_catalog.<) $4",
		.nargs = 4,.argtypes = {TEXTOID, TEXTOID, TEXTOID, INT8OID}
	};
	Datum		values[4] = {PointerGetDatum(redaction->key.aggregate_type),
		PointerGetDatum(redaction->key.aggregate_id), PointerGetDatum(redaction->key.tenant_id),
		Int64GetDatum(redaction->sequence)};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	RoleSwitchRequireAllRows();
	permit.removal = redaction;
	PG_TRY();
	{
		(void) InternalQueryWrite(&query, values, NULL);
	}
	PG_FINALLY();
	{
		permit.removal = NULL;
	}
	PG_END_TRY();
	RoleSwitchBack(&saved);
	if (SPI_processed != (uint64) redaction->n)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("stream \"%s\" was not deleted", StreamKeyName(&redaction->key)),
				 errdetail("A trigger or rule on the events table kept it from that.")));
	SPI_finish();
}

/* All have been changed: everybody follows, and is told.  Returns how many there were. */
int64
RedactionEnd(Redaction *redaction)
{
	int			i;

	redaction->positions = DatumGetArrayTypeP(makeArrayResult(redaction->changed, CurrentMemoryContext));
	redaction->event_types = DatumGetArrayTypeP(makeArrayResult(redaction->changed_types, CurrentMemoryContext));
	write_redaction(redaction);
	for (i = 0; i < nparts; i++)
		if (parts[i]->follow)
			parts[i]->follow(redaction);
	DispatchRelease(redaction->was_held);
	return redaction->n;
}

static void
write_redaction(const Redaction *redaction)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.redactions (global_position, tenant_id, aggregate_type, aggregate_id,"
		" positions, pointers, reason, redacted_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		.nargs = 8,.argtypes = {INT8OID, TEXTOID, TEXTOID, TEXTOID, INT8ARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID}
	};
	Datum		values[8] = {Int64GetDatum(redaction->global_position), PointerGetDatum(redaction->key.tenant_id),
		PointerGetDatum(redaction->key.aggregate_type), PointerGetDatum(redaction->key.aggregate_id),
		PointerGetDatum(redaction->positions), PointerGetDatum(redaction->pointers),
		PointerGetDatum(redaction->reason), CStringGetTextDatum(GetUserNameFromId(GetUserId(), false))};
	RoleSwitch	saved;

	SPI_connect();
	saved = RoleSwitchToOwner("redactions");
	(void) InternalQueryWrite(&query, values, NULL);
	RoleSwitchBack(&saved);
	SPI_finish();
}

/*
 * Of refuse_change: is it a row that is being redacted or removed, or the statement that does it?  Only
 * payload and metadata may differ; the row that is to be comes from us, or require_written would
 * not let it pass.
 */
bool
RedactionPermits(const TriggerData *trigdata)
{
	if (trigdata->tg_trigger->tgnargs > 0)
		return false;
	if (TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		return permit.removal != NULL && (!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) || permits_removal(trigdata));
	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		return permit.position != 0 && (!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) || permits_change(trigdata));
	return false;
}

static bool
permits_removal(const TriggerData *trigdata)
{
	Event		event;
	StreamKey	key;

	if (!EventFromTuple(trigdata->tg_relation, trigdata->tg_trigtuple, &event))
		return false;
	EventKey(&event, &key);
	return StreamKeyEqual(&key, &permit.removal->key) && EventSequence(&event) < permit.removal->sequence;
}

static bool
permits_change(const TriggerData *trigdata)
{
	Event		before;
	Event		after;

	return EventFromTuple(trigdata->tg_relation, trigdata->tg_trigtuple, &before) &&
		EventFromTuple(trigdata->tg_relation, trigdata->tg_newtuple, &after) &&
		EventIsSame(&before, &after) &&
		EventGlobalPosition(&before) == permit.position && EventSequence(&before) == permit.sequence;
}

/*-------------------------------------------------------------------------
 * who keeps copies
 *-------------------------------------------------------------------------
 */

/*
 * Nothing is redacted from now on until the transaction ends.  For who keeps, for others, what
 * is made of streams whose ends are not its own: before its snapshot is taken.  Waits for the
 * end of a redaction.
 */
void
RedactionKeepOut(void)
{
	lock_redactions(RowExclusiveLock);
}

/*
 * Behind RedactionKeepOut, above READ COMMITTED: has something been redacted that the
 * transaction's snapshot does not show?  Then it keeps nothing.
 */
bool
RedactionMissed(void)
{
	return IsolationUsesXactSnapshot() &&
		last_redaction(GetLatestSnapshot()) != last_redaction(GetTransactionSnapshot());
}

/*
 * An event '$redacted' or '$deleted' comes from the database where that was done, and so do behind
 * it, in the same transaction, the changes of the others; copies that were made here do not
 * know.  Whoever is making one is waited for, as there.
 */
void
RedactionReceived(const Event *event)
{
	Redaction	redaction = {
		.event_type = text_to_cstring(EventText(event, EVENT_EVENT_TYPE)),
		.removes = ReservedTypeEquals(EventText(event, EVENT_EVENT_TYPE), DELETED_EVENT_TYPE),
		.global_position = EventGlobalPosition(event),
		.sequence = EventSequence(event)
	};
	int			i;

	EventKey(event, &redaction.key);
	lock_redactions(ShareRowExclusiveLock);
	redaction.event_types = types_of(&redaction.key);
	for (i = 0; i < nparts; i++)
		if (parts[i]->received)
			parts[i]->received(&redaction);
}

/* The types of the stream's events, palloc'd; there is our own at least. */
static ArrayType *
types_of(const StreamKey *key)
{
	static InternalQuery query = {
		.sql = "SELECT pg_catalog.array_agg(DISTINCT event_type::pg_catalog.text) AS types FROM cqrs_es.events"
		" WHERE aggregate_type OPERATOR(pg_catalog.=) $1 AND aggregate_id OPERATOR(pg_catalog.=) $2"
		" AND tenant_id OPERATOR(pg_catalog.=) $3",
		.nargs = 3,.argtypes = {TEXTOID, TEXTOID, TEXTOID}
	};
	Datum		values[3] = {PointerGetDatum(key->aggregate_type),
		PointerGetDatum(key->aggregate_id), PointerGetDatum(key->tenant_id)};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext spi;
	RoleSwitch	saved;
	QueryRow	row;
	bool		isnull;
	Datum		types;
	ArrayType  *copy;

	SPI_connect();
	saved = RoleSwitchToOwner("events");
	(void) InternalQueryRead(&query, values, NULL, GetLatestSnapshot());
	RoleSwitchBack(&saved);
	row = InternalQueryRow(0);
	types = InternalQueryDatum(&row, "types", &isnull);
	spi = MemoryContextSwitchTo(caller);
	copy = isnull ? construct_empty_array(TEXTOID) : DatumGetArrayTypePCopy(types);
	MemoryContextSwitchTo(spi);
	SPI_finish();
	return copy;
}

/* To the end of the transaction. */
static void
lock_redactions(LOCKMODE mode)
{
	LockRelationOid(ExtensionRelid("redactions"), mode);
}

static int64
last_redaction(Snapshot snapshot)
{
	static InternalQuery query = {
		.sql = "SELECT coalesce(pg_catalog.max(global_position), 0) AS last FROM cqrs_es.redactions"
	};
	RoleSwitch	saved;
	QueryRow	row;
	int64		last;

	SPI_connect();
	saved = RoleSwitchToOwner("redactions");
	(void) InternalQueryRead(&query, NULL, NULL, snapshot);
	RoleSwitchBack(&saved);
	row = InternalQueryRow(0);
	last = DatumGetInt64(InternalQueryDatum(&row, "last", NULL));
	SPI_finish();
	return last;
}
