/*-------------------------------------------------------------------------
 * append.c
 *	  The one way in: expected version, idempotent retry, batch.
 *
 * An append looks at the end of the stream, compares it with the expected
 * version and writes what follows it.  There is no lock per stream and no row
 * per stream: whoever loses the race for a sequence (event_writer.c) looks
 * again, and then either fails its version check or, with "any", writes behind
 * the winner.
 *
 * Idempotent retry.  A client that got no answer sends the append again.  When
 * the events carry explicit ids and the stream holds just these ids in this
 * order, it is the same append again: the first result is returned and nothing
 * is written.  With a version that is not the stream's any more the place to look
 * at is known.  With "any" (and "it exists") the stream is searched from its end,
 * all of it: exact, but a cost that grows with the stream.  With the version that
 * the stream is at (a client that loads again before it sends again) it is
 * searched, too, but no further than cqrs_es.retry_window events: most appends
 * are no retries, and all pay for the look.  Appends without ids look at nothing.
 * What makes two events the same beside the id is type, version and payload;
 * metadata may differ (a retry has its own transaction context).
 *
 * Above READ COMMITTED a stream that moved on since the transaction's snapshot
 * is a serialization failure (40001), whatever was expected.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "base/cqrs_es.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/tenancy.h"
#include "log/append.h"
#include "log/context.h"
#include "log/event_id.h"
#include "log/event_writer.h"
#include "log/stream_index.h"

static int	cqrs_es_retry_window = 100;

PG_FUNCTION_INFO_V1(cqrs_es_append_event);
PG_FUNCTION_INFO_V1(cqrs_es_append_events);
PG_FUNCTION_INFO_V1(cqrs_es_append_event_arrays);

/* An argument as a NullableDatum; with FmgrInfo's own array, just that. */
#define ARG(n)	(fcinfo->args[n])

static void append_init(AppendRequest *append, FunctionCallInfo fcinfo, int nevents,
						int expected_arg);
static bool append_or_conflict(AppendRequest *append, AppendResult *result);
pg_noreturn static void report_overtaken(const StreamKey *key);
static void set_event(AppendRequest *append, int i, NullableDatum event_type,
					  NullableDatum event_version, NullableDatum payload,
					  NullableDatum metadata, NullableDatum event_id);
static void parse_event(AppendRequest *append, int i, JsonbContainer *object);
static NullableDatum member_text(JsonbValue *value, int i, const char *member);
static int	array_elements(NullableDatum array, Oid type, const char *what,
						   int expected, NullableDatum **elements);
static pg_uuid_t **sorted_ids(const AppendRequest *append);
static int	compare_ids(const void *a, const void *b);
static bool find_same_append(const AppendRequest *append, pg_uuid_t **ids, int nids,
							 const StreamTip *tip, int64 searched_to,
							 AppendResult *result);
static bool same_append_at(const AppendRequest *append, int64 sequence, AppendResult *result);
pg_noreturn static void report_id_conflict(const AppendRequest *append, const pg_uuid_t *id,
							   int64 sequence);
static void stamp_events(AppendRequest *append, int64 version);
static Datum result_datum(FunctionCallInfo fcinfo, const AppendResult *result);

void
AppendInit(void)
{
	DefineCustomIntVariable("cqrs_es.retry_window",
							"How many events of the stream are searched for an append's event ids when its expected version fits.",
							"0 searches none.",
							&cqrs_es_retry_window, 100, 0, INT_MAX,
							PGC_USERSET, 0, NULL, NULL, NULL);
}

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/*
 * SQL: append_event(aggregate_type, aggregate_id, event_type, payload,
 * expected_version, metadata, event_id, event_version)
 */
Datum
cqrs_es_append_event(PG_FUNCTION_ARGS)
{
	AppendRequest append;
	AppendResult result;

	append_init(&append, fcinfo, 1, 4);
	set_event(&append, 0, ARG(2), ARG(7), ARG(3), ARG(5), ARG(6));
	result = AppendEvents(&append);
	return result_datum(fcinfo, &result);
}

/* SQL: append_events(aggregate_type, aggregate_id, events, expected_version) */
Datum
cqrs_es_append_events(PG_FUNCTION_ARGS)
{
	AppendRequest append;
	AppendResult result;
	Jsonb	   *events;

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("events must not be null")));
	events = PG_GETARG_JSONB_P(2);
	if (!JB_ROOT_IS_ARRAY(events) || JB_ROOT_IS_SCALAR(events))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("events must be a JSON array"),
				 errhint("Each element is an object: {\"type\": ..., \"payload\": ..., \"metadata\": ..., \"id\": ..., \"version\": ...}.")));

	append_init(&append, fcinfo, JB_ROOT_COUNT(events), 3);
	AppendRequestParse(&append, events);
	result = AppendEvents(&append);
	return result_datum(fcinfo, &result);
}

/*
 * SQL: append_event_arrays(aggregate_type, aggregate_id, event_types,
 * payloads, expected_version, metadata, event_ids, event_versions)
 */
Datum
cqrs_es_append_event_arrays(PG_FUNCTION_ARGS)
{
	static const NullableDatum null = {.isnull = true};
	AppendRequest append;
	AppendResult result;
	NullableDatum *types;
	NullableDatum *payloads;
	NullableDatum *metadata = NULL;
	NullableDatum *ids = NULL;
	NullableDatum *versions = NULL;
	int			n;
	int			i;

	n = array_elements(ARG(2), TEXTOID, "event_types", -1, &types);
	(void) array_elements(ARG(3), JSONBOID, "payloads", n, &payloads);
	if (!PG_ARGISNULL(5))
		(void) array_elements(ARG(5), JSONBOID, "metadata", n, &metadata);
	if (!PG_ARGISNULL(6))
		(void) array_elements(ARG(6), UUIDOID, "event_ids", n, &ids);
	if (!PG_ARGISNULL(7))
		(void) array_elements(ARG(7), TEXTOID, "event_versions", n, &versions);

	append_init(&append, fcinfo, n, 4);
	for (i = 0; i < n; i++)
		set_event(&append, i, types[i], versions ? versions[i] : null, payloads[i],
				  metadata ? metadata[i] : null, ids ? ids[i] : null);
	result = AppendEvents(&append);
	return result_datum(fcinfo, &result);
}

/*-------------------------------------------------------------------------
 * the append itself
 *-------------------------------------------------------------------------
 */

/*
 * Append all events of `append` or none, and let projections and snapshots
 * follow.  Fills in the events.  Takes RowExclusiveLock on the log (kept to
 * the end of the transaction, as by INSERT).
 *
 * Raises QE001 (version conflict), QE002 (event id used with other content),
 * 40001 (above READ COMMITTED), 25006 (read-only), 42501 (no INSERT or no SELECT), 22xxx
 * (bad arguments), 55000 (nothing guards the streams, stream_index.c), 23505 (another
 * unique index of the table), 09000 (a trigger of users kept it out), and whatever a
 * projection raises.
 */
AppendResult
AppendEvents(AppendRequest *append)
{
	AppendResult result;

	if (!append_or_conflict(append, &result))
		AppendReportConflict(&append->key, append->expected_version, result.version);
	return result;
}

/*
 * The same, but false when the version check fails: nothing was written then,
 * and the caller may look again and append something else.
 */
bool
AppendTry(AppendRequest *append, AppendResult *result)
{
	return append_or_conflict(append, result);
}

/* Where nothing can be written: 25006; before anything is touched. */
void
AppendPrevent(void)
{
	if (RecoveryInProgress())
		PreventCommandDuringRecovery("append_event()");
	PreventCommandIfReadOnly("append_event()");
	PreventCommandIfParallelMode("append_event()");
}

/* Append, or say by false that the stream is at result->version instead. */
static bool
append_or_conflict(AppendRequest *append, AppendResult *result)
{
	EventsTable table;
	Relation	rel;
	StreamTip	tip;
	bool		done = true;
	pg_uuid_t **ids;
	int			nids = 0;
	int64		searched_to = 0;
	int64		lost_at = -1;
	CommandId	lost_in = InvalidCommandId;
	int			i;

	AppendPrevent();
	ids = sorted_ids(append);
	for (i = 0; i < append->nevents; i++)
		nids += append->has_id[i];

	table = EventsTableGet();
	TenancyRequireEvents(table.relid, ACL_INSERT | ACL_SELECT);
	rel = table_open(table.relid, RowExclusiveLock);
	table = EventsTableGet();
	(void) StreamIndexRequire(rel, &table.columns);

	/*
	 * It ends: a lost race is lost to an event that is in the stream by now, or
	 * to one that is gone (event_writer.c says why that comes to an end); and
	 * what is kept out by SQL although the stream stays where it was ends with
	 * the second try, as does what is kept out by a trigger that appends to it.
	 */
	for (;;)
	{
		CommandId	command = GetCurrentCommandId(false);
		bool		plainly;

		tip = EventWriterTip(rel, &append->key);
		if (tip.after_snapshot)
			EventsReportMoved(&append->key);
		if (lost_at >= 0 && tip.version > lost_at && !EventsWriteStraight(&table) &&
			EventsVersionWithout(&append->key, lost_in) == lost_at)
			report_overtaken(&append->key);

		if (nids > 0 && find_same_append(append, ids, nids, &tip, searched_to, result))
			break;
		if (!AppendVersionFits(append->expected_version, tip.version))
		{
			result->version = tip.version;
			done = false;
			break;
		}

		/* by SQL, a lost race is over: not to see the winner means there is none */
		plainly = lost_at == tip.version;
		stamp_events(append, tip.version);
		if (EventWriterInsert(rel, append->events, append->nevents, plainly))
		{
			result->version = tip.version + append->nevents;
			result->global_position =
				EventGlobalPosition(&append->events[append->nevents - 1]);
			break;
		}

		/* somebody was quicker: what was searched need not be searched again */
		searched_to = tip.version;
		lost_at = tip.version;
		lost_in = command;
		CHECK_FOR_INTERRUPTS();
	}
	table_close(rel, NoLock);
	return done;
}

/* Nobody but we has appended to the stream, and yet it was in our way. */
static void
report_overtaken(const StreamKey *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
			 errmsg("the event for stream \"%s\" was not inserted", StreamName(key)),
			 errdetail("A trigger on the events table appended to the stream before it."),
			 errhint("Append to the stream of the new event in an AFTER trigger.")));
}

/* Does a stream at this version meet the expectation? */
bool
AppendVersionFits(int64 expected, int64 version)
{
	return expected == EXPECT_ANY || expected == version ||
		(expected == EXPECT_EXISTS && version > 0);
}

/* Fill in what is known only now: sequences behind `version`, and the time. */
static void
stamp_events(AppendRequest *append, int64 version)
{
	TimestampTz now = GetCurrentTimestamp();
	int			i;

	for (i = 0; i < append->nevents; i++)
	{
		append->events[i].values[EVENT_SEQUENCE] = Int64GetDatum(version + 1 + i);
		append->events[i].values[EVENT_CREATED_AT] = TimestampTzGetDatum(now);
		append->events[i].append_version = version + append->nevents;
	}
}

/* QE001, with stream and numbers in fields of their own for programs. */
void
AppendReportConflict(const StreamKey *key, int64 expected_version, int64 version)
{
	char	   *expected = psprintf(INT64_FORMAT, expected_version);
	char	   *actual = psprintf(INT64_FORMAT, version);

	ereport(ERROR,
			(errcode(ERRCODE_WRONG_EXPECTED_VERSION),
			 errmsg("version conflict in stream \"%s\"", StreamName(key)),
			 expected_version == EXPECT_EXISTS ?
			 errdetail("Expected that the stream exists (version -1), but it is at version %s.", actual) :
			 expected_version == 0 ?
			 errdetail("Expected that the stream does not exist (version 0), but it is at version %s.", actual) :
			 errdetail("Expected version %s, but the stream is at version %s.", expected, actual),
			 errhint("Read the stream again, decide again, and append with the version you read."),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, text_to_cstring(key->aggregate_type)),
			 err_generic_string(PG_DIAG_TABLE_NAME, text_to_cstring(key->aggregate_id)),
			 err_generic_string(PG_DIAG_COLUMN_NAME, expected),
			 err_generic_string(PG_DIAG_DATATYPE_NAME, actual)));
}

/*-------------------------------------------------------------------------
 * idempotent retry
 *-------------------------------------------------------------------------
 */

/* The explicit ids of the batch in order; none may stand there twice. */
static pg_uuid_t **
sorted_ids(const AppendRequest *append)
{
	pg_uuid_t **ids = palloc(sizeof(pg_uuid_t *) * append->nevents);
	int			n = 0;
	int			i;

	for (i = 0; i < append->nevents; i++)
		if (append->has_id[i])
			ids[n++] = DatumGetUUIDP(append->events[i].values[EVENT_EVENT_ID]);
	if (n > 1)
		qsort(ids, n, sizeof(pg_uuid_t *), compare_ids);
	for (i = 1; i < n; i++)
		if (compare_ids(&ids[i - 1], &ids[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("event id %s stands twice in the batch",
							DatumGetCString(DirectFunctionCall1(uuid_out,
																UUIDPGetDatum(ids[i]))))));
	return ids;
}

static int
compare_ids(const void *a, const void *b)
{
	return memcmp(*(pg_uuid_t *const *) a, *(pg_uuid_t *const *) b, sizeof(pg_uuid_t));
}

/*
 * Does the stream already hold just these events?  (An append that does not give
 * all of them ids cannot be recognized, but must not use an id again.)  Looks where they would be:
 * behind the expected version when that check fails; else from the stream's end
 * down to searched_to, and no further than cqrs_es.retry_window events when the
 * expected version is the stream's.
 * Raises QE002 when an id stands there with other content.
 */
static bool
find_same_append(const AppendRequest *append, pg_uuid_t **ids, int nids,
				 const StreamTip *tip, int64 searched_to, AppendResult *result)
{
	ScanDirection direction;
	EventScan  *scan;
	Event		event;
	Snapshot	snapshot;
	int64		found = 0;
	pg_uuid_t	found_id;

	if (append->expected_version >= 0 && tip->version != append->expected_version)
		return nids == append->nevents && tip->version > append->expected_version &&
			same_append_at(append, append->expected_version + 1, result);
	if (append->expected_version >= 0)
		searched_to = Max(searched_to, tip->version - cqrs_es_retry_window);
	if (tip->version <= searched_to)
		return false;

	/*
	 * Including the end, wherever that is by now: SERIALIZABLE has then seen it
	 * read.  The last match counts.  A part of a stream is read forward, since
	 * from its end the index would look at much more than that.
	 */
	direction = searched_to > 0 ? ForwardScanDirection : BackwardScanDirection;
	snapshot = RegisterSnapshot(FreshSnapshot());
	scan = EventsScanStream(&append->key, searched_to > 0 ? searched_to + 1 : PG_INT64_MAX,
							direction, snapshot);
	while ((found == 0 || ScanDirectionIsForward(direction)) && EventsScanNext(scan, &event))
	{
		pg_uuid_t  *id = DatumGetUUIDP(event.values[EVENT_EVENT_ID]);

		if (bsearch(&id, ids, nids, sizeof(pg_uuid_t *), compare_ids) != NULL)
		{
			found = EventSequence(&event);
			found_id = *id;
		}
	}
	EventsScanEnd(scan);
	UnregisterSnapshot(snapshot);
	if (found == 0)
		return false;

	/* that must be the last event of the batch */
	found -= append->nevents - 1;
	if (nids < append->nevents || found < 1 || !same_append_at(append, found, result))
		report_id_conflict(append, &found_id, found + append->nevents - 1);
	return true;
}

/*
 * Do the events from `sequence` on have just our ids?  False when not even
 * the first has; QE002 when only some have, or with other content.
 */
static bool
same_append_at(const AppendRequest *append, int64 sequence, AppendResult *result)
{
	Snapshot	snapshot = RegisterSnapshot(FreshSnapshot());
	EventScan  *scan = EventsScanStream(&append->key, sequence, ForwardScanDirection, snapshot);
	Event		event;
	int			i = 0;

	while (i < append->nevents && EventsScanNext(scan, &event))
	{
		const Event *ours = &append->events[i];
		pg_uuid_t  *id = DatumGetUUIDP(ours->values[EVENT_EVENT_ID]);
		Jsonb	   *payload;

		if (memcmp(DatumGetUUIDP(event.values[EVENT_EVENT_ID]), id, sizeof(pg_uuid_t)) != 0)
			break;
		payload = DatumGetJsonbP(event.values[EVENT_PAYLOAD]);
		if (!TextEqual(EventText(&event, EVENT_EVENT_TYPE), EventText(ours, EVENT_EVENT_TYPE)) ||
			!TextEqual(EventText(&event, EVENT_EVENT_VERSION), EventText(ours, EVENT_EVENT_VERSION)) ||
			compareJsonbContainers(&payload->root,
								   &DatumGetJsonbP(ours->values[EVENT_PAYLOAD])->root) != 0)
			report_id_conflict(append, id, EventSequence(&event));
		result->version = EventSequence(&event);
		result->global_position = EventGlobalPosition(&event);
		i++;
	}
	EventsScanEnd(scan);
	UnregisterSnapshot(snapshot);
	if (i > 0 && i < append->nevents)
		report_id_conflict(append,
						   DatumGetUUIDP(append->events[i - 1].values[EVENT_EVENT_ID]),
						   sequence + i - 1);
	return i == append->nevents;
}

static void
report_id_conflict(const AppendRequest *append, const pg_uuid_t *id, int64 sequence)
{
	ereport(ERROR,
			(errcode(ERRCODE_EVENT_ID_CONFLICT),
			 errmsg("event id %s is already used in stream \"%s\"",
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id))),
					StreamName(&append->key)),
			 errdetail("Sequence %lld of the stream has this id, and the append is not a repetition of the one that wrote it.",
					   (long long) sequence),
			 errhint("A retry must repeat the same events in the same order; a new event needs a new id.")));
}

/*-------------------------------------------------------------------------
 * arguments and results
 *-------------------------------------------------------------------------
 */

/*
 * Start an append from the arguments that all three functions share: the
 * stream first, the expected version at expected_arg.
 */
static void
append_init(AppendRequest *append, FunctionCallInfo fcinfo, int nevents, int expected_arg)
{
	StreamKey	key;

	key.aggregate_type = RequiredText(ARG(0), "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	key.aggregate_id = RequiredText(ARG(1), "aggregate_id", AGGREGATE_ID_MAX_BYTES);
	key.tenant_id = TenancyCurrent();
	AppendRequestInit(append, &key, ExpectedVersionArg(ARG(expected_arg)), nevents);
}

/* An expected version argument; 22023 when it is none. */
int64
ExpectedVersionArg(NullableDatum arg)
{
	int64		expected_version;

	if (arg.isnull)
		return EXPECT_ANY;
	expected_version = DatumGetInt64(arg.value);
	if (expected_version < EXPECT_EXISTS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("expected_version %lld is out of range", (long long) expected_version),
				 errhint("Use NULL for any version, -1 for a stream that exists, 0 for one that does not, or the version you read.")));
	return expected_version;
}

/* Start an append of so many events, which the caller fills in; 22023 for none. */
void
AppendRequestInit(AppendRequest *append, const StreamKey *key, int64 expected_version,
				  int nevents)
{
	if (nevents < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there must be at least one event to append")));
	append->key = *key;
	append->expected_version = expected_version;
	append->metadata = NULL;
	append->stamp = NULL;
	append->nevents = nevents;
	append->events = MemoryContextAllocHuge(CurrentMemoryContext,
											(Size) nevents * sizeof(Event));
	append->has_id = palloc(nevents * sizeof(bool));
}

/* Fill in the events from a JSON array with as many elements; 22023. */
void
AppendRequestParse(AppendRequest *append, Jsonb *events)
{
	JsonbIterator *iterator = JsonbIteratorInit(&events->root);
	JsonbIteratorToken token;
	JsonbValue	element;
	int			i = 0;

	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (element.type != jbvBinary || !JsonContainerIsObject(element.val.binary.data))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("event %d of the batch is not a JSON object", i + 1)));
		parse_event(append, i, element.val.binary.data);
		i++;
	}
}

/*
 * Fill in one event.  The payload may be any JSON value: the log does not look
 * into it, and serializers write events without fields as strings or nulls.
 * A null version is '1', null metadata is empty, a null id is made here.
 */
static void
set_event(AppendRequest *append, int i, NullableDatum event_type, NullableDatum event_version,
		  NullableDatum payload, NullableDatum metadata, NullableDatum event_id)
{
	static Jsonb *no_metadata = NULL;
	Event	   *event = &append->events[i];
	Jsonb	   *own;

	if (no_metadata == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

		no_metadata = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
		MemoryContextSwitchTo(caller);
	}
	if (payload.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("payload must not be null"),
				 errhint("For an event without fields use '{}'.")));

	event->values[EVENT_TENANT_ID] = PointerGetDatum(append->key.tenant_id);
	event->values[EVENT_AGGREGATE_TYPE] = PointerGetDatum(append->key.aggregate_type);
	event->values[EVENT_AGGREGATE_ID] = PointerGetDatum(append->key.aggregate_id);
	event->values[EVENT_EVENT_TYPE] =
		PointerGetDatum(RequiredText(event_type, "event_type", EVENT_TYPE_MAX_BYTES));
	event->values[EVENT_EVENT_VERSION] = PointerGetDatum(event_version.isnull ?
														 cstring_to_text("1") :
														 RequiredText(event_version, "event_version",
																	  EVENT_VERSION_MAX_BYTES));
	event->values[EVENT_PAYLOAD] = JsonbPGetDatum(DatumGetJsonbP(payload.value));
	own = metadata.isnull ? no_metadata : DatumGetJsonbP(metadata.value);
	if (append->metadata && JB_ROOT_IS_OBJECT(own))
		own = DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
												 JsonbPGetDatum(append->metadata),
												 JsonbPGetDatum(own)));
	if (append->stamp && !metadata.isnull && JB_ROOT_IS_OBJECT(own))
		own = DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
												 JsonbPGetDatum(own),
												 JsonbPGetDatum(append->stamp)));
	event->values[EVENT_METADATA] = JsonbPGetDatum(ContextMetadata(own));

	event->row = NULL;
	append->has_id[i] = !event_id.isnull;
	if (event_id.isnull)
	{
		pg_uuid_t  *id = palloc(sizeof(pg_uuid_t));

		EventIdGenerate(id);
		event->values[EVENT_EVENT_ID] = UUIDPGetDatum(id);
	}
	else
		event->values[EVENT_EVENT_ID] = event_id.value;
}

/* Fill in one event from {"type", "payload", "metadata", "id", "version"}. */
static void
parse_event(AppendRequest *append, int i, JsonbContainer *object)
{
	NullableDatum type = {.isnull = true};
	NullableDatum version = {.isnull = true};
	NullableDatum payload = {.isnull = true};
	NullableDatum metadata = {.isnull = true};
	NullableDatum id = {.isnull = true};
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *member = NULL;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			member = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE)
			continue;
		if (strcmp(member, "payload") == 0)
		{
			payload.value = JsonbPGetDatum(JsonbValueToJsonb(&value));
			payload.isnull = false;
		}
		else if (strcmp(member, "type") != 0 && strcmp(member, "version") != 0 &&
				 strcmp(member, "metadata") != 0 && strcmp(member, "id") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("event %d of the batch has an unknown member \"%s\"", i + 1, member),
					 errhint("The members are type, payload, metadata, id and version.")));
		else if (value.type == jbvNull)
			 /* as if it were not there */ ;
		else if (strcmp(member, "type") == 0)
			type = member_text(&value, i, member);
		else if (strcmp(member, "version") == 0)
			version = member_text(&value, i, member);
		else if (strcmp(member, "metadata") == 0)
		{
			metadata.value = JsonbPGetDatum(JsonbValueToJsonb(&value));
			metadata.isnull = false;
		}
		else
		{
			id = member_text(&value, i, member);
			id.value = DirectFunctionCall1(uuid_in,
										   CStringGetDatum(TextDatumGetCString(id.value)));
		}
	}
	if (type.isnull || payload.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event %d of the batch has no member \"%s\"", i + 1,
						type.isnull ? "type" : "payload")));
	set_event(append, i, type, version, payload, metadata, id);
}

static NullableDatum
member_text(JsonbValue *value, int i, const char *member)
{
	NullableDatum result = {.isnull = false};

	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("member \"%s\" of event %d of the batch must be a string", member, i + 1)));
	result.value = PointerGetDatum(cstring_to_text_with_len(value->val.string.val,
															value->val.string.len));
	return result;
}

/*
 * The elements of a one-dimensional array argument, palloc'd.  Returns their
 * number, which must be `expected` unless that is -1.
 */
static int
array_elements(NullableDatum array, Oid type, const char *what, int expected,
			   NullableDatum **elements)
{
	ArrayType  *value;
	int16		typlen;
	bool		typbyval;
	char		typalign;
	Datum	   *datums;
	bool	   *nulls;
	int			n;
	int			i;

	if (array.isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
	value = DatumGetArrayTypeP(array.value);
	if (ARR_NDIM(value) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be a one-dimensional array", what)));
	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	deconstruct_array(value, type, typlen, typbyval, typalign, &datums, &nulls, &n);
	if (expected >= 0 && n != expected)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must have as many elements as event_types", what),
				 errdetail("It has %d, event_types has %d.", n, expected)));
	*elements = palloc(Max(n, 1) * sizeof(NullableDatum));
	for (i = 0; i < n; i++)
	{
		(*elements)[i].value = datums[i];
		(*elements)[i].isnull = nulls[i];
	}
	return n;
}

/* The result as a value of the function's type, cqrs_es.append_result. */
static Datum
result_datum(FunctionCallInfo fcinfo, const AppendResult *result)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(get_func_rettype(fcinfo->flinfo->fn_oid), -1);
	Datum		values[2] = {Int64GetDatum(result->version),
	Int64GetDatum(result->global_position)};
	bool		nulls[2] = {false, false};
	Datum		row = HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));

	ReleaseTupleDesc(desc);
	return row;
}
