/*-------------------------------------------------------------------------
 * command.c
 *	  Commands: declared; and executed: load the aggregate, decide, append.
 *
 * A command is decided by an SQL expression over state, command, aggregate_id,
 * metadata and version (decider.c).  Its events are appended behind just the
 * version that was decided on.  When somebody else was quicker, the aggregate is
 * loaded and the command decided again, cqrs_es.command_retries times.
 *
 * Where many fight over one stream, commands queue up (command_queue.c).
 *
 * A refusal is a decision on a version, too, and so is that nothing happens.
 * When the stream has moved on since it was loaded, that is a lost race like any
 * other.  For that the decider runs in a subtransaction, so that one can go on
 * after its error.  It costs little and gets no xid, unless the decider writes or
 * locks rows; then the append belongs to the same subtransaction, and what the
 * decider of a lost race wrote is undone, or it would be in its own way the next
 * time.
 *
 * A command that is sent again with its id is recognized, and is not decided beside
 * the first while that is still running: command_id.c says how, and who waits for
 * whom.
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
#include "utils/guc.h"
#include "utils/jsonb.h"

#include "base/compat.h"
#include "base/counter.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "base/stream_key.h"
#include "base/subtransaction.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/append.h"
#include "log/event_scan.h"
#include "aggregate/aggregate.h"
#include "aggregate/fold.h"
#include "command/command.h"
#include "command/command_id.h"
#include "command/command_queue.h"
#include "command/decider.h"

#define COMMAND_TYPE_MAX_BYTES	255

static int	cqrs_es_command_retries = 3;

PG_FUNCTION_INFO_V1(cqrs_es_define_command);
PG_FUNCTION_INFO_V1(cqrs_es_define_command_function);
PG_FUNCTION_INFO_V1(cqrs_es_drop_command);
PG_FUNCTION_INFO_V1(cqrs_es_execute_command);

/* What is declared: a command, ... */
typedef struct DeclaredCommand
{
	text	   *type;
	DefinerStatement *decider;
} DeclaredCommand;

/* ... and those of an aggregate type. */
typedef struct AggregateCommands
{
	RegistryEntry entry;		/* its key is the aggregate type */
	int			n;
	DeclaredCommand *commands;
} AggregateCommands;

static void load_commands(void *entry, const text *aggregate_type, MemoryContext memory);

static RegistryCache command_cache = {
	.name = "cqrs_es commands",.entry_size = sizeof(AggregateCommands),.load = load_commands
};

/* A command under way. */
typedef struct Command
{
	StreamKey	key;
	text	   *type;
	Jsonb	   *payload;
	Jsonb	   *metadata;		/* what each of its events gets */
	Jsonb	   *stamp;			/* what each of them gets in any case: its id */
	int64		expected_version;
	CommandIdentity identity;
} Command;

/* How far it has come, and at last what became of it. */
typedef struct CommandRun
{
	int64		searched;		/* up to here the stream has no events of it */
	bool		loaded;			/* is `folded` what is to be decided on ... */
	CommandId	loaded_at;		/* ... as of this command of the transaction? */
	FoldedState folded;
	int64		moved_to;		/* where the stream is instead, after a lost race */
	int64		global_position;	/* 0: nothing happened */
	bool		appended;		/* by this call */
} CommandRun;

/* What came of one try. */
typedef enum Attempt
{
	ATTEMPT_DONE,				/* decided, and what follows is in the log */
	ATTEMPT_UNSEARCHED,			/* loaded, but not all of that searched for the id */
	ATTEMPT_LOST,				/* somebody else was quicker, and is at moved_to */
	ATTEMPT_UNSURE				/* nothing came of it, perhaps since it runs elsewhere,
								 * too */
} Attempt;

static char *begin_definition(FunctionCallInfo fcinfo);
static void save_command(FunctionCallInfo fcinfo, const char *expression, const char *search_path);
static void drop_commands(const text *aggregate_type);
static DefinerStatement *find_decider(Aggregate *aggregate, const text *command_type);
static void command_args(FunctionCallInfo fcinfo, Command *command);
static CommandRun run_command(Command *command);
static Attempt attempt(const Command *command, Aggregate *aggregate, CommandQueue *queue,
					   CommandRun *run);
static Attempt decide_and_append(const Command *command, Aggregate *aggregate,
								 CommandQueue *queue, CommandRun *run);
static bool append_events(const Command *command, Aggregate *aggregate, Jsonb *events,
						  CommandRun *run);
static Attempt nothing_follows(const Command *command, CommandRun *run);
static bool has_moved(const Command *command, CommandRun *run);
static bool was_executed(const Command *command, Aggregate *aggregate, CommandRun *run);
static void describe_command(void *arg);

void
CommandInit(void)
{
	static const AggregatePart part = {.drop = drop_commands};

	RegistryRegister("commands");
	AggregateRegister(&part);
	DefineCustomIntVariable("cqrs_es.command_retries",
							"How often a command that lost a race is decided again.",
							NULL,
							&cqrs_es_command_retries, 3, 0, 1000,
							PGC_USERSET, 0, NULL, NULL, NULL);
}

/*-------------------------------------------------------------------------
 * declaring
 *-------------------------------------------------------------------------
 */

/* SQL: define_command(aggregate_type, command_type, decider text), an expression or a function */
Datum
cqrs_es_define_command(PG_FUNCTION_ARGS)
{
	char	   *search_path = begin_definition(fcinfo);
	char	   *decider;

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("decider must not be null")));
	decider = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (DeciderIsFunction(decider))
		decider = DeciderCall(DeciderFunction(decider));
	save_command(fcinfo, decider, search_path);
	PG_RETURN_VOID();
}

/* SQL: define_command(aggregate_type, command_type, decider regprocedure) */
Datum
cqrs_es_define_command_function(PG_FUNCTION_ARGS)
{
	char	   *search_path = begin_definition(fcinfo);

	save_command(fcinfo, DeciderCall(fcinfo->args[2]), search_path);
	PG_RETURN_VOID();
}

/* SQL: drop_command(aggregate_type, command_type, if_exists) */
Datum
cqrs_es_drop_command(PG_FUNCTION_ARGS)
{
	static InternalQuery drop = {
		.sql = "DELETE FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND command_type OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	static InternalQuery row = {
		.sql = "SELECT FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND command_type OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	text	   *type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *command_type = TextArgument(fcinfo->args[1], "command_type", COMMAND_TYPE_MAX_BYTES);
	Datum		values[2] = {PointerGetDatum(type), PointerGetDatum(command_type)};

	ReadOnlyPrevent(fcinfo);
	(void) AggregateLockIfDeclared(type, true);
	if (!RegistryDrop(&row, &drop, values))
		RegistryReportMissing(RegistryIfExists(fcinfo->args[2]), ERRCODE_UNDEFINED_OBJECT, NULL,
							  psprintf("command \"%s\" of aggregate type \"%s\" does not exist",
									   text_to_cstring(command_type), text_to_cstring(type)));
	PG_RETURN_VOID();
}

/* Before anything is looked at: lock the aggregate type, and the search_path that is returned. */
static char *
begin_definition(FunctionCallInfo fcinfo)
{
	ReadOnlyPrevent(fcinfo);
	AggregateLock(TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES), true);
	return DefinerSearchPath();
}

/* Check an expression and store it, in place of an earlier one; the same one is left as it is. */
static void
save_command(FunctionCallInfo fcinfo, const char *expression, const char *search_path)
{
	static InternalQuery query = {
		.sql = "INSERT INTO cqrs_es.commands"
		" (aggregate_type, command_type, decider, definer, search_path)"
		" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (aggregate_type, command_type) DO UPDATE SET"
		" decider = excluded.decider, definer = excluded.definer, definer_name = excluded.definer_name,"
		" search_path = excluded.search_path",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, REGROLEOID, TEXTOID}
	};
	static InternalQuery same = {
		.sql = "SELECT FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND command_type OPERATOR(pg_catalog.=) $2 AND decider OPERATOR(pg_catalog.=) $3"
		" AND definer OPERATOR(pg_catalog.=) $4 AND search_path OPERATOR(pg_catalog.=) $5",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, REGROLEOID, TEXTOID}
	};
	text	   *type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *command_type = TextArgument(fcinfo->args[1], "command_type", COMMAND_TYPE_MAX_BYTES);
	Datum		values[5] = {PointerGetDatum(type), PointerGetDatum(command_type),
		CStringGetTextDatum(expression), ObjectIdGetDatum(GetUserId()),
		CStringGetTextDatum(search_path)};
	Definer		definer = {.role = GetUserId(),.search_path = search_path};

	DefinerStatementDefine(DeciderMake(expression, &definer));
	if (!RegistryHas(&same, values, NULL))
		(void) RegistryWrite(&query, values, NULL);
}

/* They go with the aggregate type. */
static void
drop_commands(const text *aggregate_type)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	Datum		value = PointerGetDatum(aggregate_type);

	(void) RegistryWrite(&query, &value, NULL);
}

/* How a command of an aggregate type is decided; QE302. */
static DefinerStatement *
find_decider(Aggregate *aggregate, const text *command_type)
{
	AggregateCommands *commands = RegistryLookup(&command_cache, cstring_to_text(aggregate->entry.key));
	int			i;

	for (i = 0; i < commands->n; i++)
		if (TextEqual(commands->commands[i].type, command_type))
			return commands->commands[i].decider;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COMMAND),
			 errmsg("command \"%s\" of aggregate type \"%s\" is not defined",
					text_to_cstring(command_type), aggregate->entry.key),
			 errhint("Define it with define_command().")));
}

/* Fill the cache. */
static void
load_commands(void *entry, const text *aggregate_type, MemoryContext memory)
{
	static InternalQuery query = {
		.sql = "SELECT command_type, decider, " REGISTRY_ROLE("definer", "definer_name") " AS definer,"
		" definer_name, search_path FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1",
		.nargs = 1,.argtypes = {TEXTOID}
	};
	AggregateCommands *commands = entry;
	Datum		value = PointerGetDatum(aggregate_type);
	uint64		n = RegistryRead(&query, &value);
	MemoryContext spi = MemoryContextSwitchTo(memory);
	uint64		i;

	commands->commands = palloc(Max(n, 1) * sizeof(DeclaredCommand));
	for (i = 0; i < n; i++)
	{
		QueryRow	row = InternalQueryRow(i);
		Definer		definer = {
			.role = DatumGetObjectId(InternalQueryDatum(&row, "definer", NULL)),
			.name = InternalQueryText(&row, "definer_name"),
			.search_path = InternalQueryText(&row, "search_path")
		};

		commands->commands[i].type = cstring_to_text(InternalQueryText(&row, "command_type"));
		commands->commands[i].decider = DeciderMake(InternalQueryText(&row, "decider"), &definer);
	}
	commands->n = (int) n;
	MemoryContextSwitchTo(spi);
}

/*-------------------------------------------------------------------------
 * executing
 *-------------------------------------------------------------------------
 */

/*
 * SQL: execute_command(aggregate_type, aggregate_id, command_type, payload,
 * expected_version, metadata, command_id)
 */
Datum
cqrs_es_execute_command(PG_FUNCTION_ARGS)
{
	Command		command;
	CommandRun	result;
	ErrorContextCallback callback = {error_context_stack, describe_command, &command};
	Datum		values[3];
	bool		nulls[3] = {false, false, false};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	command_args(fcinfo, &command);
	ReadOnlyPrevent(fcinfo);
	/* also when nothing will be appended: the state is shown */
	EventsCheckRights(ACL_INSERT);
	EventsRequireRights(ACL_SELECT);

	error_context_stack = &callback;
	RegistryEnter();
	result = run_command(&command);
	RegistryLeave();
	error_context_stack = callback.previous;

	values[0] = Int64GetDatum(result.folded.version);
	values[1] = Int64GetDatum(result.global_position);
	nulls[1] = result.global_position == 0;
	values[2] = JsonbPGetDatum(result.folded.state);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * Load, decide, append, until the decision holds or tries are used up (QE001).
 * With an expected version there is one try.
 *
 * All events up to the version that is decided on are searched for the command's
 * id.  The long search is done before loading, since what comes between loading
 * and appending is a lost race.
 */
static CommandRun
run_command(Command *command)
{
	Aggregate  *aggregate = AggregateRequire(command->key.aggregate_type);
	int			tries_left = command->expected_version == EXPECT_ANY ? cqrs_es_command_retries : 0;
	CommandRun	run = {.searched = 0};
	CommandQueue queue = {.holds_slot = false};
	bool		given_up = false;

	if (command->identity.is_given)
		CommandIdHold(&command->identity, !TransactionIdIsValid(GetTopTransactionIdIfAny()));
	if (tries_left > 0)
		CommandQueueArrive(&queue, &command->key);
	if (command->identity.is_given)
		CommandIdAwaitStream(&command->identity);
	while (!was_executed(command, aggregate, &run))
	{
		Attempt		outcome;

		if (given_up)
			AppendReportConflict(&command->key, run.folded.version, run.moved_to);
		outcome = attempt(command, aggregate, &queue, &run);
		if (outcome == ATTEMPT_DONE)
			break;
		if (outcome == ATTEMPT_UNSEARCHED)
			continue;
		run.loaded = false;
		if (outcome == ATTEMPT_UNSURE)
		{
			/* nobody waits for us while we wait for the same command elsewhere */
			CommandQueueLeave(&queue);
			CommandIdHold(&command->identity, true);
			CommandIdAwaitStream(&command->identity);
		}
		else if (tries_left-- > 0)
		{
			CounterAdd("conflict_counts", 0, false);
			CommandQueueLost(&queue);
		}
		else
			given_up = true;
	}
	CommandIdRelease(&command->identity, run.global_position != 0);
	if (!run.appended)
		CommandQueueLeave(&queue);
	return run;
}

/* One try.  Throws the decider's refusal when that stands. */
static Attempt
attempt(const Command *command, Aggregate *aggregate, CommandQueue *queue, CommandRun *run)
{
	CHECK_FOR_INTERRUPTS();
	if (!run->loaded)
	{
		run->loaded_at = GetCurrentCommandId(false);
		run->folded = FoldStream(aggregate, &command->key, PG_INT64_MAX);
		run->loaded = true;
	}
	/* somebody appended between the search for the command and the fold */
	if (command->identity.is_given && run->folded.version > run->searched)
		return ATTEMPT_UNSEARCHED;
	if (!AppendVersionFits(command->expected_version, run->folded.version))
	{
		(void) has_moved(command, run);
		AppendReportConflict(&command->key, command->expected_version, run->folded.version);
	}
	return decide_and_append(command, aggregate, queue, run);
}

/*
 * The decision on what was loaded, as in attempt().  Errors that are not the
 * decider's (40, 53, 55P03, 57, 58, XX), or come after it, are thrown on at once.
 */
static Attempt
decide_and_append(const Command *command, Aggregate *aggregate, CommandQueue *queue,
				  CommandRun *run)
{
	Subtransaction subtransaction;
	ErrorData  *volatile error = NULL;
	volatile bool decided = false;
	volatile Attempt outcome = ATTEMPT_LOST;

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		Jsonb	   *events = DeciderRun(find_decider(aggregate, command->type),
										run->folded.state, command->payload,
										command->key.aggregate_id, command->metadata,
										run->folded.version);

		decided = true;
		CommandQueueDecided(queue);
		if (!TransactionIdIsValid(GetCurrentTransactionIdIfAny()))
			SubtransactionEnd(&subtransaction, true);
		if (JB_ROOT_COUNT(events) == 0)
			outcome = nothing_follows(command, run);
		else if (append_events(command, aggregate, events, run))
			outcome = ATTEMPT_DONE;
		if (subtransaction.is_open)
			SubtransactionEnd(&subtransaction, outcome == ATTEMPT_DONE);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();

	if (error == NULL)
		return outcome;
	if (decided || ErrorIsNotUsers(error->sqlerrcode))
		ReThrowError(error);
	outcome = nothing_follows(command, run);
	if (outcome == ATTEMPT_DONE)
		ReThrowError(error);
	return outcome;
}

/* Append what was decided; false when that was no decision on the stream's end. */
static bool
append_events(const Command *command, Aggregate *aggregate, Jsonb *events, CommandRun *run)
{
	AppendRequest append;
	AppendResult appended;

	AppendRequestInit(&append, &command->key, run->folded.version, JB_ROOT_COUNT(events));
	append.metadata = command->metadata;
	append.stamp = command->stamp;
	AppendRequestParse(&append, events, "the decider");
	if (!AppendEvents(&append, &appended))
	{
		run->moved_to = appended.version;
		return false;
	}
	run->appended = appended.version == run->folded.version + append.nevents;
	if (run->appended)
		FoldMore(&run->folded, aggregate, &command->key, append.events, append.nevents, NULL);
	else
		/* the decider named ids, of events that were there already */
		run->folded = FoldStream(aggregate, &command->key, appended.version);
	run->global_position = appended.global_position;
	return true;
}

/*
 * The decider has refused the command, or nothing follows from it.  That stands
 * (done) if it was decided on the stream as it is now, and by nobody else.
 */
static Attempt
nothing_follows(const Command *command, CommandRun *run)
{
	if (has_moved(command, run))
		return ATTEMPT_LOST;
	return CommandIdIsAlone(&command->identity) ? ATTEMPT_DONE : ATTEMPT_UNSURE;
}

/*
 * Has somebody else appended since the stream was loaded?  Then to moved_to; and
 * above READ COMMITTED, as if we had lost the race for an append, 40001.  What the
 * decider appended itself does not count.
 */
static bool
has_moved(const Command *command, CommandRun *run)
{
	run->moved_to = EventScanVersionWithout(&command->key, run->loaded_at);
	if (run->moved_to == run->folded.version)
		return false;
	if (IsolationUsesXactSnapshot())
		EventScanReportMoved(&command->key);
	return true;
}

/*
 * Did the stream already get this command's events?  Then their result, with the
 * state as it was after them.  After that the stream is searched up to its end, and
 * whatever has been loaded.
 */
static bool
was_executed(const Command *command, Aggregate *aggregate, CommandRun *run)
{
	int64		loaded = run->loaded ? run->folded.version : 0;
	int64		version = CommandIdFind(&command->identity, loaded, &run->searched,
										&run->global_position);

	if (version == 0)
		return false;
	run->folded = FoldStream(aggregate, &command->key, version);
	return true;
}

static void
command_args(FunctionCallInfo fcinfo, Command *command)
{
	command->key.aggregate_type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	command->key.aggregate_id = TextArgument(fcinfo->args[1], "aggregate_id", AGGREGATE_ID_MAX_BYTES);
	command->key.tenant_id = TenancyCurrent();
	command->type = TextArgument(fcinfo->args[2], "command_type", COMMAND_TYPE_MAX_BYTES);
	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("payload must not be null"),
				 errhint("For a command without fields use '{}'.")));
	command->payload = PG_GETARG_JSONB_P(3);
	command->expected_version = AppendRequestExpected(fcinfo->args[4]);
	CommandIdSet(&command->identity, fcinfo->args[6], &command->key, command->type, command->payload);
	command->metadata = CommandIdMetadata(&command->identity,
										  PG_ARGISNULL(5) ? NULL : PG_GETARG_JSONB_P(5));
	command->stamp = CommandIdStamp(&command->identity);
}

static void
describe_command(void *arg)
{
	Command    *command = arg;

	errcontext("command \"%s\" for stream \"%s\"", text_to_cstring(command->type),
			   StreamKeyName(&command->key));
}
