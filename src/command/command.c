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
 * The events carry the command's id ("command_id", "causation_id") and a
 * correlation id, that of the context or else the command's.  A command that is
 * sent again with its id is recognized by the events it left in the stream, for
 * as long as the stream is there; it returns its first result and does nothing.
 * That it is the same command shows a digest of type and payload, which they
 * carry as well.  A command that was rejected, or that nothing followed from, left
 * no trace and is decided anew.
 *
 * It may be sent again while the first is still running.  Then it must not be
 * decided beside the first, or it would be refused for what that one holds:
 * rows, advisory locks, seats that are taken.  So, in this order,
 *
 *	- who decides a command with an id holds a lock on stream and id until its
 *	  events are in the log (on the generic way, which does not see rows in
 *	  progress, until the transaction ends), taken before it queues up, so that
 *	  nobody in the queue waits for this lock;
 *	- who has that lock waits until nobody else's rows are at the stream's end;
 *	- and then looks for the id.
 *
 * Nobody waits for this lock who may hold what its owner waits for, as with the
 * slots: a transaction that has written something, or locked a row, takes it if
 * it is free, and else decides without.  When the command is refused then, or
 * nothing follows from it, that may be due to the owner, which only its end tells:
 * so it waits for the lock after all, and decides again.  (Should the owner wait
 * for it meanwhile, the server's deadlock detector ends one of them.)
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "common/cryptohash.h"
#include "common/hashfn.h"
#include "common/sha2.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/registry_name.h"
#include "base/stream_key.h"
#include "base/subtransaction.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/append.h"
#include "log/context.h"
#include "log/event_id.h"
#include "log/event_scan.h"
#include "log/event_writer.h"
#include "aggregate/aggregate.h"
#include "aggregate/fold.h"
#include "command/command.h"
#include "command/command_queue.h"
#include "command/decider.h"

#define COMMAND_TYPE_MAX_BYTES	255

/* advisory locks of users have 1 or 2 in the fourth field of their tag */
#define COMMAND_ID_LOCK_CLASS	0xCF

/* of the digest, so many hexadecimal digits are kept */
#define DIGEST_CHARS	32

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
	pg_uuid_t	id;
	bool		has_id;			/* given by the caller, so it may be a repetition */
	LOCKTAG		id_lock;
	bool		holds_id;		/* that lock, see above */
	bool		appends_show;	/* to those who wait for the stream, before we commit */
	char		digest[DIGEST_CHARS + 1];	/* of type and payload; with has_id only */
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
static Jsonb *command_metadata(const Command *command, Jsonb *metadata);
static Jsonb *command_stamp(const Command *command);
static void put_string(JsonbParseState **state, const char *key, const char *value);
static void put_digest(JsonbParseState **state, const Command *command);
static void make_digest(Command *command);
static void append_canonical(StringInfo text, JsonbContainer *json);
static bool is_string(JsonbContainer *object, const char *key, const char *value);
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
pg_noreturn static void report_other_command(const Command *command, int64 sequence);
static void hold_id(Command *command, bool wait);
static bool is_alone(const Command *command);
static void release_id(Command *command, bool appended);
static void await_stream(Command *command);
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

/* SQL: define_command(aggregate_type, command_type, decider text) */
Datum
cqrs_es_define_command(PG_FUNCTION_ARGS)
{
	char	   *search_path = begin_definition(fcinfo);

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("decider must not be null")));
	save_command(fcinfo, text_to_cstring(PG_GETARG_TEXT_PP(2)), search_path);
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

/* SQL: drop_command(aggregate_type, command_type) */
Datum
cqrs_es_drop_command(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "DELETE FROM cqrs_es.commands WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND command_type OPERATOR(pg_catalog.=) $2",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	text	   *type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *command_type = TextArgument(fcinfo->args[1], "command_type", COMMAND_TYPE_MAX_BYTES);
	Datum		values[2] = {PointerGetDatum(type), PointerGetDatum(command_type)};

	(void) AggregateLockIfDeclared(type, true);
	if (RegistryWrite(&query, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("command \"%s\" of aggregate type \"%s\" does not exist",
						text_to_cstring(command_type), text_to_cstring(type))));
	PG_RETURN_VOID();
}

/* Before anything is looked at: lock the aggregate type, and the search_path that is returned. */
static char *
begin_definition(FunctionCallInfo fcinfo)
{
	AggregateLock(TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES), true);
	return DefinerSearchPath();
}

/* Check an expression and store it, in place of an earlier one. */
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
	text	   *type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	text	   *command_type = TextArgument(fcinfo->args[1], "command_type", COMMAND_TYPE_MAX_BYTES);
	Datum		values[5] = {PointerGetDatum(type), PointerGetDatum(command_type),
		CStringGetTextDatum(expression), ObjectIdGetDatum(GetUserId()),
		CStringGetTextDatum(search_path)};
	Definer		definer = {.role = GetUserId(),.search_path = search_path};

	DefinerStatementDefine(DeciderMake(expression, &definer));
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
	AppendPrevent();
	/* also when nothing will be appended: the state is shown */
	EventsRequireRights(ACL_INSERT | ACL_SELECT);

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

	if (command->has_id)
		hold_id(command, !TransactionIdIsValid(GetTopTransactionIdIfAny()));
	if (tries_left > 0)
		CommandQueueArrive(&queue, &command->key);
	if (command->has_id)
		await_stream(command);
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
			hold_id(command, true);
			await_stream(command);
		}
		else if (tries_left-- > 0)
			CommandQueueLost(&queue);
		else
			given_up = true;
	}
	release_id(command, run.global_position != 0);
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
	if (command->has_id && run->folded.version > run->searched)
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
 * decider's (40, 53, 57, 58, XX), or come after it, are thrown on at once.
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
	AppendRequestParse(&append, events);
	if (!AppendEvents(&append, &appended))
	{
		run->moved_to = appended.version;
		return false;
	}
	run->appended = appended.version == run->folded.version + append.nevents;
	if (run->appended)
		FoldMore(&run->folded, aggregate, &command->key, append.events, append.nevents);
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
	return is_alone(command) ? ATTEMPT_DONE : ATTEMPT_UNSURE;
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
 * Did the stream already get this command's events?  Then their result, with
 * the state as it was after them.  Looks from the end of the stream, since a
 * repetition usually comes soon, down to where it has been searched.  After that
 * the stream is searched up to its end, and whatever has been loaded.  A command
 * without an id of its own is no repetition.  QE002 when they are another command's
 * that had the same id.
 */
static bool
was_executed(const Command *command, Aggregate *aggregate, CommandRun *run)
{
	Snapshot	snapshot;
	EventScan  *scan;
	char	   *id;
	int64		last = Max(run->searched, run->loaded ? run->folded.version : 0);
	int64		version = 0;
	Event		event;

	if (!command->has_id)
		return false;
	snapshot = RegisterSnapshot(InternalQueryFreshSnapshot());
	scan = EventScanStream(&command->key, PG_INT64_MAX, BackwardScanDirection, snapshot);
	id = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&command->id)));
	while (version == 0 && EventScanNext(scan, &event) && EventSequence(&event) > run->searched)
	{
		Jsonb	   *metadata = DatumGetJsonbP(event.values[EVENT_METADATA]);

		last = Max(last, EventSequence(&event));
		if (is_string(&metadata->root, "command_id", id))
		{
			version = EventSequence(&event);
			run->global_position = EventGlobalPosition(&event);

			/* events that were written without a digest are taken at their word */
			if (getKeyJsonValueFromContainer(&metadata->root, "command_digest",
											 strlen("command_digest"), NULL) != NULL &&
				!is_string(&metadata->root, "command_digest", command->digest))
				report_other_command(command, version);
		}
		if ((Pointer) metadata != DatumGetPointer(event.values[EVENT_METADATA]))
			pfree(metadata);
	}
	EventScanEnd(scan);
	UnregisterSnapshot(snapshot);
	run->searched = last;
	if (version == 0)
		return false;
	run->folded = FoldStream(aggregate, &command->key, version);
	return true;
}

static void
report_other_command(const Command *command, int64 sequence)
{
	ereport(ERROR,
			(errcode(ERRCODE_EVENT_ID_CONFLICT),
			 errmsg("command id %s is already used in stream \"%s\"",
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&command->id))),
					StreamKeyName(&command->key)),
			 errdetail("Sequence %lld of the stream followed from a command with this id, and with another type or payload.",
					   (long long) sequence),
			 errhint("A retry must repeat the same command; a new command needs a new id.")));
}

/*-------------------------------------------------------------------------
 * who waits for whom
 *-------------------------------------------------------------------------
 */

/* Be the only one to decide this command, if need be after a wait, see above. */
static void
hold_id(Command *command, bool wait)
{
	uint64		hash = 0;
	const text *parts[] = {command->key.aggregate_type, command->key.aggregate_id,
		command->key.tenant_id};
	size_t		i;

	for (i = 0; i < lengthof(parts); i++)
		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(parts[i]),
								   VARSIZE_ANY_EXHDR(parts[i]), hash);
	hash = hash_bytes_extended(command->id.data, UUID_LEN, hash);
	SET_LOCKTAG_ADVISORY(command->id_lock, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 COMMAND_ID_LOCK_CLASS);
	command->holds_id = LockAcquire(&command->id_lock, ExclusiveLock, false, !wait) !=
		LOCKACQUIRE_NOT_AVAIL;
}

/* Can nobody else be deciding the same command? */
static bool
is_alone(const Command *command)
{
	return !command->has_id || command->holds_id;
}

/* The same command may go on, if it can see what was appended, or nothing was. */
static void
release_id(Command *command, bool appended)
{
	if (command->holds_id && (!appended || command->appends_show))
		(void) LockRelease(&command->id_lock, ExclusiveLock, false);
	command->holds_id = false;
}

/* Wait for who is appending to the stream, where that can be seen. */
static void
await_stream(Command *command)
{
	EventWriter writer;

	EventWriterOpen(&writer);
	command->appends_show = writer.reads_straight;
	(void) EventWriterTip(&writer, &command->key);
	EventWriterClose(&writer);
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
	command->has_id = !PG_ARGISNULL(6);
	command->holds_id = false;
	command->appends_show = false;
	if (command->has_id)
		command->id = *PG_GETARG_UUID_P(6);
	else
		EventIdGenerate(&command->id);
	if (command->has_id)
		make_digest(command);
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
	put_digest(&state, command);
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
	put_digest(&state, command);
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

/* A command without an id of its own is never sent again, and needs none. */
static void
put_digest(JsonbParseState **state, const Command *command)
{
	if (command->has_id)
		put_string(state, "command_digest", command->digest);
}

/*
 * Of type and payload, the beginning of their SHA-256.  It is kept with the events, so
 * on every server and for good it must be the same for payloads that are equal.
 */
static void
make_digest(Command *command)
{
	pg_cryptohash_ctx *hash = pg_cryptohash_create(PG_SHA256);
	uint8		bytes[PG_SHA256_DIGEST_LENGTH];
	StringInfoData text;

	initStringInfo(&text);
	appendBinaryStringInfo(&text, VARDATA_ANY(command->type), VARSIZE_ANY_EXHDR(command->type));
	appendStringInfoChar(&text, '\0');
	append_canonical(&text, &command->payload->root);
	if (hash == NULL || pg_cryptohash_init(hash) < 0 ||
		pg_cryptohash_update(hash, (const uint8 *) text.data, text.len) < 0 ||
		pg_cryptohash_final(hash, bytes, sizeof(bytes)) < 0)
		elog(ERROR, "could not compute a digest");
	pg_cryptohash_free(hash);
	pfree(text.data);
	(void) hex_encode((const char *) bytes, DIGEST_CHARS / 2, command->digest);
	command->digest[DIGEST_CHARS] = '\0';
}

/* A text that two values share when they are equal as jsonb: 1.0 is 1. */
static void
append_canonical(StringInfo text, JsonbContainer *json)
{
	JsonbIterator *iterator = JsonbIteratorInit(json);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		char	   *number;

		appendStringInfo(text, "%d", (int) token);
		if (token == WJB_BEGIN_ARRAY && value.val.array.rawScalar)
			appendStringInfoChar(text, 's');
		if (token != WJB_KEY && token != WJB_VALUE && token != WJB_ELEM)
			continue;
		switch (value.type)
		{
			case jbvNull:
				appendStringInfoChar(text, 'n');
				break;
			case jbvBool:
				appendStringInfoChar(text, value.val.boolean ? 't' : 'f');
				break;
			case jbvNumeric:
				number = DatumGetCString(DirectFunctionCall1(numeric_out,
															 DirectFunctionCall1(numeric_trim_scale,
																				 NumericGetDatum(value.val.numeric))));
				appendStringInfo(text, "%s,", number);
				break;
			case jbvString:
				appendStringInfo(text, "\"%d:", value.val.string.len);
				appendBinaryStringInfo(text, value.val.string.val, value.val.string.len);
				break;
			default:
				elog(ERROR, "unexpected jsonb value of type %d", (int) value.type);
		}
	}
}

/* Is the object's member just this string? */
static bool
is_string(JsonbContainer *object, const char *key, const char *value)
{
	JsonbValue	member;

	return getKeyJsonValueFromContainer(object, key, strlen(key), &member) != NULL &&
		member.type == jbvString && member.val.string.len == (int) strlen(value) &&
		memcmp(member.val.string.val, value, member.val.string.len) == 0;
}

static void
describe_command(void *arg)
{
	Command    *command = arg;

	errcontext("command \"%s\" for stream \"%s\"", text_to_cstring(command->type),
			   StreamKeyName(&command->key));
}
