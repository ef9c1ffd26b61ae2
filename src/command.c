/*-------------------------------------------------------------------------
 * command.c
 *	  Commands: load the aggregate, decide, append.
 *
 * A command is decided by an SQL expression over state, command, aggregate_id,
 * metadata and version (decider.c).  Its events are appended behind just the
 * version that was decided on.  When somebody else was quicker, the aggregate is
 * loaded and the command decided again, without an error and without a
 * subtransaction in between, cqrs_es.command_retries times.
 *
 * Where many fight over one stream, commands queue up (command_queue.c).
 *
 * The events carry the command's id ("command_id", "causation_id") and a
 * correlation id, that of the context or else the command's.  A command that is
 * sent again with its id is recognized by the events it left in the stream, for
 * as long as the stream is there; it returns its first result and does nothing.
 * A command that was rejected, or that nothing followed from, left no trace and
 * is decided anew.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "append.h"
#include "command.h"
#include "command_queue.h"
#include "compat.h"
#include "context.h"
#include "cqrs_es.h"
#include "decider.h"
#include "errors.h"
#include "event_id.h"
#include "event_scan.h"
#include "fold.h"
#include "internal_query.h"
#include "tenancy.h"

static int	cqrs_es_command_retries = 3;

PG_FUNCTION_INFO_V1(cqrs_es_execute_command);

/* A command under way. */
typedef struct Command
{
	StreamKey	key;
	text	   *type;
	Jsonb	   *payload;
	Jsonb	   *metadata;		/* what each of its events gets */
	Jsonb	   *stamp;			/* what each of them gets in any case: its id */
	int64		expected_version;
	pg_uuid_t	id;
	bool		has_id;			/* given by the caller, so it may be a repetition */
}			Command;

/* What became of it. */
typedef struct CommandResult
{
	FoldedState folded;
	int64		global_position;	/* 0: nothing happened */
}			CommandResult;

static void command_args(FunctionCallInfo fcinfo, Command *command);
static Jsonb *command_metadata(const Command *command, Jsonb *metadata);
static Jsonb *command_stamp(const Command *command);
static void put_string(JsonbParseState **state, const char *key, const char *value);
static CommandResult run(const Command *command);
static bool was_executed(const Command *command, Aggregate *aggregate, int64 *searched,
						 CommandResult *result);
static void describe_command(void *arg);

void
CommandInit(void)
{
	DefineCustomIntVariable("cqrs_es.command_retries",
							"How often a command that lost a race is decided again.",
							NULL,
							&cqrs_es_command_retries, 3, 0, 1000,
							PGC_USERSET, 0, NULL, NULL, NULL);
}

/*
 * SQL: execute_command(aggregate_type, aggregate_id, command_type, payload,
 * expected_version, metadata, command_id)
 */
Datum
cqrs_es_execute_command(PG_FUNCTION_ARGS)
{
	Command		command;
	CommandResult result;
	ErrorContextCallback callback = {error_context_stack, describe_command, &command};
	Datum		values[3];
	bool		nulls[3] = {false, false, false};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	command_args(fcinfo, &command);
	AppendPrevent();
	/* also when nothing will be appended: the state is shown */
	TenancyRequireEvents(EventsTableGet()->relid, ACL_INSERT | ACL_SELECT);

	error_context_stack = &callback;
	result = run(&command);
	error_context_stack = callback.previous;

	values[0] = Int64GetDatum(result.folded.version);
	values[1] = Int64GetDatum(result.global_position);
	nulls[1] = result.global_position == 0;
	values[2] = JsonbPGetDatum(result.folded.state);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * Load, decide, append, until the append wins or tries are used up (QE001).
 * With an expected version there is one try.
 *
 * A repetition may be sent while the first is still running.  So all events up
 * to the version that is decided on are searched for the command's id, those
 * that came during the search, too: the append is behind just that version.  The
 * long search is done before loading, since what comes between loading and
 * appending is a lost race.
 */
static CommandResult
run(const Command *command)
{
	Aggregate  *aggregate = AggregateRequire(command->key.aggregate_type);
	int			tries_left = command->expected_version == EXPECT_ANY ? cqrs_es_command_retries : 0;
	CommandResult result = {.global_position = 0};
	int64		searched = 0;
	CommandQueue queue = {.holds_slot = false};

	if (tries_left > 0)
		CommandQueueArrive(&queue, &command->key);
	if (command->has_id && was_executed(command, aggregate, &searched, &result))
	{
		CommandQueueLeave(&queue);
		return result;
	}
	for (;;)					/* ends with the tries */
	{
		AppendRequest append;
		AppendResult appended;
		Jsonb	   *events;

		CHECK_FOR_INTERRUPTS();
		result.folded = FoldStream(aggregate, &command->key, PG_INT64_MAX);
		if (command->has_id && result.folded.version > searched &&
			was_executed(command, aggregate, &searched, &result))
			break;
		if (!AppendVersionFits(command->expected_version, result.folded.version))
			AppendReportConflict(&command->key, command->expected_version, result.folded.version);

		events = Decide(aggregate, command->type,
						result.folded.state, command->payload, command->key.aggregate_id,
						command->metadata, result.folded.version);
		if (JB_ROOT_COUNT(events) == 0)
			break;
		CommandQueueDecided(&queue);
		AppendRequestInit(&append, &command->key, result.folded.version, JB_ROOT_COUNT(events));
		append.metadata = command->metadata;
		append.stamp = command->stamp;
		AppendRequestParse(&append, events);
		if (AppendTry(&append, &appended))
		{
			FoldMore(&result.folded, aggregate, &command->key, append.events, append.nevents);
			result.global_position = appended.global_position;
			return result;
		}
		if (tries_left-- == 0)
		{
			if (command->has_id && was_executed(command, aggregate, &searched, &result))
				break;
			AppendReportConflict(&command->key, result.folded.version, appended.version);
		}
		CommandQueueLost(&queue);
	}
	CommandQueueLeave(&queue);
	return result;
}

/*
 * Did the stream already get this command's events?  Then their result, with
 * the state as it was after them.  Looks from the end of the stream, since a
 * repetition usually comes soon, down to `searched`, which then becomes the
 * stream's version.
 */
static bool
was_executed(const Command *command, Aggregate *aggregate, int64 *searched,
			 CommandResult *result)
{
	Snapshot	snapshot = RegisterSnapshot(FreshSnapshot());
	EventScan  *scan = EventsScanStream(&command->key, PG_INT64_MAX, BackwardScanDirection, snapshot);
	char	   *id = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&command->id)));
	int			len = strlen(id);
	int64		last = *searched;
	int64		version = 0;
	Event		event;

	while (version == 0 && EventsScanNext(scan, &event) && EventSequence(&event) > *searched)
	{
		Jsonb	   *metadata = DatumGetJsonbP(event.values[EVENT_METADATA]);
		JsonbValue	value;

		last = Max(last, EventSequence(&event));
		if (getKeyJsonValueFromContainer(&metadata->root, "command_id", strlen("command_id"),
										 &value) != NULL &&
			value.type == jbvString && value.val.string.len == len &&
			memcmp(value.val.string.val, id, len) == 0)
		{
			version = EventSequence(&event);
			result->global_position = EventGlobalPosition(&event);
		}
		if ((Pointer) metadata != DatumGetPointer(event.values[EVENT_METADATA]))
			pfree(metadata);
	}
	EventsScanEnd(scan);
	UnregisterSnapshot(snapshot);
	*searched = last;
	if (version == 0)
		return false;
	result->folded = FoldStream(aggregate, &command->key, version);
	return true;
}

static void
command_args(FunctionCallInfo fcinfo, Command *command)
{
	command->key.aggregate_type = RequiredText(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	command->key.aggregate_id = RequiredText(fcinfo->args[1], "aggregate_id", AGGREGATE_ID_MAX_BYTES);
	command->key.tenant_id = TenancyCurrent();
	command->type = RequiredText(fcinfo->args[2], "command_type", COMMAND_TYPE_MAX_BYTES);
	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("payload must not be null"),
				 errhint("For a command without fields use '{}'.")));
	command->payload = PG_GETARG_JSONB_P(3);
	command->expected_version = ExpectedVersionArg(fcinfo->args[4]);
	command->has_id = !PG_ARGISNULL(6);
	if (command->has_id)
		command->id = *PG_GETARG_UUID_P(6);
	else
		EventIdGenerate(&command->id);
	command->metadata = command_metadata(command, PG_ARGISNULL(5) ? NULL : PG_GETARG_JSONB_P(5));
	command->stamp = command_stamp(command);
}

/*
 * The ids of the command below the metadata it was sent with.  A correlation id
 * that the caller or the context gives stays.
 */
static Jsonb *
command_metadata(const Command *command, Jsonb *metadata)
{
	JsonbParseState *state = NULL;
	char	   *id = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&command->id)));
	Jsonb	   *ids;
	Jsonb	   *outer;
	JsonbValue	found;

	if (metadata == NULL)
		metadata = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	outer = ContextMetadata(metadata);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	put_string(&state, "command_id", id);
	put_string(&state, "causation_id", id);
	if (getKeyJsonValueFromContainer(&outer->root, "correlation_id", strlen("correlation_id"),
									 &found) == NULL)
		put_string(&state, "correlation_id", id);
	ids = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(metadata),
											  JsonbPGetDatum(ids)));
}

/* The id by which a repetition is recognized: no decider can give another. */
static Jsonb *
command_stamp(const Command *command)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	put_string(&state, "command_id",
			   DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&command->id))));
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static void
put_string(JsonbParseState **state, const char *key, const char *value)
{
	JsonbValue	string = {.type = jbvString};

	string.val.string.val = unconstify(char *, key);
	string.val.string.len = strlen(key);
	pushJsonbValue(state, WJB_KEY, &string);
	string.val.string.val = unconstify(char *, value);
	string.val.string.len = strlen(value);
	pushJsonbValue(state, WJB_VALUE, &string);
}

static void
describe_command(void *arg)
{
	Command    *command = arg;

	errcontext("command \"%s\" for stream \"%s\"", text_to_cstring(command->type),
			   StreamName(&command->key));
}
