/*-------------------------------------------------------------------------
 * command.c
 *	  Commands for a stream: load the aggregate, decide, append.
 *
 * A command is decided by what it was declared with (command_declaration.c).  Its events are appended behind just the
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
 *
 * A conflict and a refusal that stand are errors, or, for those who ask with
 * try_execute_command, a row.  Both are known when nothing has been written, or all of that
 * is undone, so that takes no subtransaction more.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/counter.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/setting.h"
#include "base/stream_key.h"
#include "base/subtransaction.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/append.h"
#include "log/event_scan.h"
#include "log/personal_data.h"
#include "aggregate/aggregate.h"
#include "aggregate/fold.h"
#include "aggregate/snapshot.h"
#include "aggregate/state_cache.h"
#include "command/command.h"
#include "command/command_declaration.h"
#include "command/command_id.h"
#include "command/command_queue.h"
#include "command/decider.h"

static int	cqrs_es_command_retries = 3;

PG_FUNCTION_INFO_V1(cqrs_es_execute_command);
PG_FUNCTION_INFO_V1(cqrs_es_try_execute_command);

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
	StateOrigin origin;			/* what it was folded from */
	int64		nread;			/* so many events were read for it, if not for one before */
	int64		moved_to;		/* where the stream is instead, after a lost race */
	int64		global_position;	/* 0: nothing happened */
	bool		appended;		/* by this call */
	bool		conflict;		/* the stream is at moved_to, where this was expected: */
	int64		expected;
	ErrorData  *refusal;		/* QE301, which stands; NULL: none */
} CommandRun;

/* What came of one try. */
typedef enum Attempt
{
	ATTEMPT_DONE,				/* decided, and what follows is in the log; refused; or a
								 * conflict */
	ATTEMPT_UNSEARCHED,			/* loaded, but not all of that searched for the id */
	ATTEMPT_LOST,				/* somebody else was quicker, and is at moved_to */
	ATTEMPT_UNSURE				/* nothing came of it, perhaps since it runs elsewhere,
								 * too */
} Attempt;

static Datum execute(FunctionCallInfo fcinfo, bool raises);
static void raise_failure(const Command *command, const CommandRun *run);
static Datum result_datum(FunctionCallInfo fcinfo, const CommandRun *run);
static Datum outcome_datum(FunctionCallInfo fcinfo, const CommandRun *run);
static Datum row_datum(FunctionCallInfo fcinfo, Datum *values, bool *nulls);
static void command_args(FunctionCallInfo fcinfo, Command *command);
static TupleDesc result_desc(void);
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
	SettingDefineInt("cqrs_es.command_retries",
					 "How often a command that lost a race is decided again.",
					 NULL,
					 &cqrs_es_command_retries, 3, 0, 1000,
					 PGC_USERSET, 0);
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
	return execute(fcinfo, true);
}

/*
 * SQL: try_execute_command, with the same arguments.  A conflict and a refusal are rows;
 * everything else that is an error there is one here.
 */
Datum
cqrs_es_try_execute_command(PG_FUNCTION_ARGS)
{
	return execute(fcinfo, false);
}

static Datum
execute(FunctionCallInfo fcinfo, bool raises)
{
	Command		command;
	CommandRun	run;
	ErrorContextCallback callback = {error_context_stack, describe_command, &command};

	command_args(fcinfo, &command);
	ReadOnlyPrevent(fcinfo);
	/* also when nothing will be appended: the state is shown */
	EventsCheckRights(ACL_INSERT);
	EventsRequireRights(ACL_SELECT);

	error_context_stack = &callback;
	RegistryEnter();
	run = run_command(&command);
	if (!run.conflict && PersonalDataHides(GetUserId()))
		run.folded = FoldStreamShown(AggregateRequire(command.key.aggregate_type), &command.key, run.folded.version);
	RegistryLeave();
	if (raises)
		raise_failure(&command, &run);
	error_context_stack = callback.previous;
	return raises ? result_datum(fcinfo, &run) : outcome_datum(fcinfo, &run);
}

/* QE001 and the refusal, if the command ended so. */
static void
raise_failure(const Command *command, const CommandRun *run)
{
	if (run->refusal)
		ReThrowError(run->refusal);
	if (run->conflict)
		AppendReportConflict(&command->key, run->expected, run->moved_to);
}

/* What execute_command returns. */
static Datum
result_datum(FunctionCallInfo fcinfo, const CommandRun *run)
{
	Datum		values[] = {Int64GetDatum(run->folded.version),
		Int64GetDatum(run->global_position), JsonbPGetDatum(run->folded.state)};
	bool		nulls[] = {false, run->global_position == 0, false};

	return HeapTupleGetDatum(heap_form_tuple(result_desc(), values, nulls));
}

/*
 * The columns that the function is declared with; made once in a session, since to ask the
 * catalog takes as long as to decide some commands.
 */
static TupleDesc
result_desc(void)
{
	static TupleDesc desc = NULL;

	if (desc == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
		TupleDesc	made = CreateTemplateTupleDesc(3);

		TupleDescInitEntry(made, 1, "version", INT8OID, -1, 0);
		TupleDescInitEntry(made, 2, "global_position", INT8OID, -1, 0);
		TupleDescInitEntry(made, 3, "state", JSONBOID, -1, 0);
		desc = BlessTupleDesc(made);
		MemoryContextSwitchTo(caller);
	}
	return desc;
}

/*
 * What try_execute_command returns.  A refusal has the state that it was decided on, a
 * conflict none: nobody has looked at the stream as it is now.
 */
static Datum
outcome_datum(FunctionCallInfo fcinfo, const CommandRun *run)
{
	const char *outcome = run->refusal ? "rejected" :
		run->conflict ? "conflict" :
		run->appended ? "appended" :
		run->global_position != 0 ? "repeated" : "unchanged";
	const char *code = run->refusal ? run->refusal->constraint_name : NULL;
	Datum		values[6] = {CStringGetTextDatum(outcome)};
	bool		nulls[6] = {false};

	if (run->conflict)
		CounterAdd("conflict_counts", 0, true);
	values[1] = Int64GetDatum(run->conflict ? run->moved_to : run->folded.version);
	values[2] = Int64GetDatum(run->global_position);
	nulls[2] = run->global_position == 0;
	values[3] = JsonbPGetDatum(run->folded.state);
	nulls[3] = run->conflict;
	nulls[4] = run->refusal == NULL;
	if (run->refusal)
		values[4] = CStringGetTextDatum(run->refusal->message);
	nulls[5] = code == NULL;
	if (code)
		values[5] = CStringGetTextDatum(code);
	return row_datum(fcinfo, values, nulls);
}

static Datum
row_datum(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/*
 * Load, decide, append, until the decision holds or tries are used up, which is a conflict.
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
		{
			run.conflict = true;
			run.expected = run.folded.version;
			break;
		}
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

/* One try.  Throws the decider's error when that stands and is no refusal. */
static Attempt
attempt(const Command *command, Aggregate *aggregate, CommandQueue *queue, CommandRun *run)
{
	CHECK_FOR_INTERRUPTS();
	if (!run->loaded)
	{
		run->loaded_at = GetCurrentCommandId(false);
		run->folded = StateCacheFold(aggregate, &command->key, &run->origin);
		run->nread = Max(run->nread, run->folded.nread);
		run->loaded = true;
	}
	/* somebody appended between the search for the command and the fold */
	if (command->identity.is_given && run->folded.version > run->searched)
		return ATTEMPT_UNSEARCHED;
	if (!AppendVersionFits(command->expected_version, run->folded.version))
	{
		(void) has_moved(command, run);
		run->conflict = true;
		run->expected = command->expected_version;
		run->moved_to = run->folded.version;
		return ATTEMPT_DONE;
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
		Question	question = {
			.state = run->folded.state,.command = command->payload,.metadata = command->metadata,
			.aggregate_id = command->key.aggregate_id,.version = run->folded.version
		};
		DefinerStatement *decider = CommandDeclarationDecider(&AggregateOwner,
															  command->key.aggregate_type,
															  command->type);
		Jsonb	   *events = DeciderRun(decider, &question);

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
	if (outcome == ATTEMPT_DONE && error->sqlerrcode != ERRCODE_COMMAND_REJECTED)
		ReThrowError(error);
	run->refusal = outcome == ATTEMPT_DONE ? error : NULL;
	return outcome;
}

/* Append what was decided; false when that was no decision on the stream's end. */
static bool
append_events(const Command *command, Aggregate *aggregate, Jsonb *events, CommandRun *run)
{
	AppendRequest append;
	AppendResult appended;

	AppendRequestInit(&append, &command->key, run->folded.version, JB_ROOT_COUNT(events));
	append.seen = &run->origin.end;
	append.metadata = command->metadata;
	append.stamp = command->stamp;
	AppendRequestParse(&append, events, "the decider");
	if (!AppendEvents(&append, &appended))
	{
		run->moved_to = appended.version;
		return false;
	}
	run->appended = !appended.was_there;
	if (run->appended)
	{
		FoldMore(&run->folded, aggregate, &command->key, append.events, append.nevents, NULL);
		SnapshotOfLongFold(&command->key, aggregate, &run->folded, &run->origin,
						   appended.as_sent, run->nread);
		if (appended.as_sent)
			StateCacheKeep(aggregate, &command->key, &run->folded,
						   &append.events[append.nevents - 1], &run->origin);
	}
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
