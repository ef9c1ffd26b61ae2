/*-------------------------------------------------------------------------
 * execute_boundary.c
 *	  Commands on a boundary: lock, read, fold, decide, append.
 *
 * A command is decided on all events that its boundary's query asks for, of whatever
 * streams, and what follows from it is appended where no other event can come in between:
 *
 *	1. RowExclusiveLock on the log, so that no definition of tags changes.
 *	2. The slots (tag_slot.c), all in one go and one order: of what the query asks for,
 *	   both to ask and to have; of the other tags and types that it names, to have them,
 *	   since events that follow from a decision mostly have the tags it was made on; and
 *	   of the command's id, both.
 *	3. A snapshot.  What matches and is not in it will come behind us: who has such a
 *	   tag needs a slot that we hold, before it draws its position.
 *	4. Fold, decide, append, save a snapshot when one is due.  All commits together.
 *
 * Events may also have tags that the query does not name.  Waiting for their slots with
 * the others in hand could be for ever, of two commands that have what the other asks for.
 * So they are taken only if they are free.  Else all that was done is given back, in a
 * subtransaction, and what is then known to be needed is taken in order, and decided anew
 * on.  That ends, since each time there is one slot more.  (Of calls in one transaction
 * the second may still deadlock, as with rows.)  As for aggregates, a subtransaction in
 * which the decider wrote nothing is over before the append and gets no xid.
 *
 * A command that is sent again with its id is found by a tag of the first and of the last
 * of its events, in whatever stream they are.  Beside the first it waits for the slot of
 * that tag.  The last of the two says where its events end: so the answer is the same.
 * Other events may have such a tag, by a template or as it was given to them.  What they lack is
 * what a command writes into the metadata of its events.  They do not hide that it was executed; and
 * where there are only such, it is refused, since what they mean by it is not known.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/read_only.h"
#include "base/registry.h"
#include "base/subtransaction.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/append.h"
#include "log/event_id.h"
#include "log/events.h"
#include "log/personal_data.h"
#include "log/position.h"
#include "log/published.h"
#include "log/redaction.h"
#include "tag/match_condition.h"
#include "tag/matching.h"
#include "tag/streams_append.h"
#include "tag/tag_query.h"
#include "tag/tag_search.h"
#include "tag/tag_slot.h"
#include "command/command_declaration.h"
#include "command/command_id.h"
#include "command/decider.h"
#include "boundary/boundary.h"
#include "boundary/boundary_fold.h"

PG_FUNCTION_INFO_V1(cqrs_es_execute_boundary);

/* A command under way. */
typedef struct Command
{
	text	   *boundary;
	text	   *type;
	Jsonb	   *payload;
	Jsonb	   *metadata;		/* what each of its events gets */
	Jsonb	   *stamp;			/* what each of them gets in any case: its id */
	CommandIdentity identity;
	text	   *id_tag;			/* NULL: no id was given */
	TagQuery   *id_query;		/* likewise */
} Command;

/* How far it has come, and at last what became of it. */
typedef struct CommandRun
{
	const Boundary *boundary;
	TagSlotSet	slots;			/* what is known to be needed */
	BoundaryFold fold;
	StreamsAppend *append;		/* what was decided; NULL: nothing */
	bool		is_repetition;
	int64		global_position;	/* 0: nothing happened */
} CommandRun;

static void command_args(FunctionCallInfo fcinfo, Command *command);
static text *digested_type(const Command *command);
static TagQuery *query_of_tag(const text *tag);
static void run_command(const Command *command, CommandRun *run);
static void lock_log_to_write(void);
static void want_slots(const Command *command, CommandRun *run);
static bool attempt(const Command *command, CommandRun *run);
static bool decide(const Command *command, CommandRun *run);
static void require_unmoved(const CommandRun *run, const TagQuery *query, int64 after_position,
							const MatchingSnapshot *snapshot);
static bool find_repetition(const Command *command, CommandRun *run, Snapshot snapshot);
static void append_events(CommandRun *run);
static void save_snapshot_if_due(const CommandRun *run);
static void hide_personal_data(CommandRun *run);
static void describe_command(void *arg);

/* SQL: execute_boundary(boundary, command_type, payload, metadata, command_id) */
Datum
cqrs_es_execute_boundary(PG_FUNCTION_ARGS)
{
	Command		command;
	CommandRun	run = {.global_position = 0};
	ErrorContextCallback callback = {error_context_stack, describe_command, &command};
	Datum		values[2];
	bool		nulls[2] = {false, false};
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
	run_command(&command, &run);
	hide_personal_data(&run);
	RegistryLeave();
	error_context_stack = callback.previous;

	values[0] = Int64GetDatum(run.global_position);
	nulls[0] = run.global_position == 0;
	values[1] = JsonbPGetDatum(run.fold.state);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* The state without what the caller may not see: folded from the beginning. */
static void
hide_personal_data(CommandRun *run)
{
	MatchingSnapshot snapshot;

	if (!PersonalDataHides(GetUserId()))
		return;
	snapshot = MatchingSnapshotTake(false);
	run->fold.hides = true;
	BoundaryFoldBegin(&run->fold, run->boundary, run->fold.position, snapshot.log.snapshot);
	MatchingSnapshotRelease(snapshot);
}

static void
command_args(FunctionCallInfo fcinfo, Command *command)
{
	command->boundary = TextArgument(fcinfo->args[0], "boundary", BOUNDARY_MAX_BYTES);
	command->type = TextArgument(fcinfo->args[1], "command_type", COMMAND_TYPE_MAX_BYTES);
	command->payload = BoundaryKeys(fcinfo->args[2], "payload");
	CommandIdSet(&command->identity, fcinfo->args[4], NULL, digested_type(command), command->payload);
	command->metadata = CommandIdMetadata(&command->identity,
										  PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3));
	command->stamp = CommandIdStamp(&command->identity);
	command->id_tag = NULL;
	command->id_query = NULL;
	if (command->identity.is_given)
	{
		command->id_tag = cstring_to_text(psprintf("command:%s", EventIdText(&command->identity.id)));
		command->id_query = query_of_tag(command->id_tag);
	}
}

/* What the command is called where the boundary is not known: by both names. */
static text *
digested_type(const Command *command)
{
	return cstring_to_text(psprintf("%d:%s:%s", (int) VARSIZE_ANY_EXHDR(command->boundary),
									text_to_cstring(command->boundary), text_to_cstring(command->type)));
}

/* The query for all events with a tag. */
static TagQuery *
query_of_tag(const text *tag)
{
	JsonbParseState *state = NULL;
	JsonbValue	string = {.type = jbvString};

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	string.val.string.val = "tags";
	string.val.string.len = strlen("tags");
	pushJsonbValue(&state, WJB_KEY, &string);
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	string.val.string.val = VARDATA_ANY(tag);
	string.val.string.len = VARSIZE_ANY_EXHDR(tag);
	pushJsonbValue(&state, WJB_ELEM, &string);
	pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return TagQueryParse(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL)));
}

/*-------------------------------------------------------------------------
 * running it
 *-------------------------------------------------------------------------
 */

static void
run_command(const Command *command, CommandRun *run)
{
	/* its state may be kept for others */
	RedactionKeepOut();
	lock_log_to_write();
	run->boundary = BoundaryRequire(command->boundary);
	(void) CommandDeclarationDecider(&BoundaryOwner, command->boundary, command->type);
	BoundaryFoldInit(&run->fold, command->boundary,
					 BoundaryQueryFill(run->boundary->query, command->payload,
									   text_to_cstring(command->boundary)));
	want_slots(command, run);
	while (!attempt(command, run))
		CHECK_FOR_INTERRUPTS();
	if (!run->is_repetition)
		save_snapshot_if_due(run);
}

/* As who appends does, to the end of the transaction. */
static void
lock_log_to_write(void)
{
	(void) EventsLock(RowExclusiveLock);
}

/* The slots that can be known before the decision. */
static void
want_slots(const Command *command, CommandRun *run)
{
	text	   *tenant_id = run->fold.key.tenant_id;
	int			i;

	TagQueryAddAsks(run->fold.query, tenant_id, &run->slots);
	if (command->id_query)
		TagQueryAddAsks(command->id_query, tenant_id, &run->slots);
	for (i = 0; i < TAG_SLOT_WORDS; i++)
		run->slots.has[i] |= run->slots.asks[i];
	TagQueryAddHas(run->fold.query, tenant_id, &run->slots);
}

/*
 * One try.  False when it takes slots that were busy: they are among those that are
 * needed now, and nothing is left of the try.
 */
static bool
attempt(const Command *command, CommandRun *run)
{
	Subtransaction subtransaction;
	ErrorData  *volatile error = NULL;
	volatile bool done = false;

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		done = decide(command, run);
		if (!done || !TransactionIdIsValid(GetCurrentTransactionIdIfAny()))
			SubtransactionEnd(&subtransaction, done);
		if (done && run->append)
			append_events(run);
		if (subtransaction.is_open)
			SubtransactionEnd(&subtransaction, true);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();
	if (error)
		ReThrowError(error);
	return done;
}

/* Lock, read and decide; false when the events need slots that are busy. */
static bool
decide(const Command *command, CommandRun *run)
{
	TagSlotSet	needed = {0};
	MatchingSnapshot snapshot;
	Question	question;
	Jsonb	   *events;
	int			i;

	TagSlotsAcquire(&run->slots);
	if (run->fold.query->everything)
		MatchConditionLockLog();
	TagQueryRequireDefined(run->fold.query);
	snapshot = MatchingSnapshotTake(false);
	run->append = NULL;
	run->is_repetition = find_repetition(command, run, snapshot.log.snapshot);
	if (!run->is_repetition)
	{
		BoundaryFoldBegin(&run->fold, run->boundary, PG_INT64_MAX, snapshot.log.snapshot);
		require_unmoved(run, run->fold.query, run->fold.began_at, &snapshot);
		if (command->id_query)
			require_unmoved(run, command->id_query, 0, &snapshot);
	}
	MatchingSnapshotRelease(snapshot);
	if (run->is_repetition)
		return true;

	question = (Question)
	{
		.state = run->fold.state,.command = command->payload,.metadata = command->metadata
	};
	events = DeciderRun(CommandDeclarationDecider(&BoundaryOwner, command->boundary, command->type),
						&question);
	if (JB_ROOT_COUNT(events) == 0)
		return true;
	run->append = StreamsAppendParse(events, "the decider", command->metadata, command->stamp);
	if (command->id_tag)
	{
		StreamsAppendAddTag(run->append, 0, command->id_tag);
		StreamsAppendAddTag(run->append, JB_ROOT_COUNT(events) - 1, command->id_tag);
	}
	StreamsAppendAddSlots(run->append, &needed);
	if (TagSlotsTryAcquire(&needed))
		return true;
	for (i = 0; i < TAG_SLOT_WORDS; i++)
		run->slots.has[i] |= needed.has[i];
	return false;
}

/* 40001 when events that match are not in the snapshot, above READ COMMITTED. */
static void
require_unmoved(const CommandRun *run, const TagQuery *query, int64 after_position,
				const MatchingSnapshot *snapshot)
{
	MatchingRequireUnmoved(query, run->fold.key.tenant_id, after_position, PG_INT64_MAX,
						   ForwardScanDirection, PG_INT64_MAX, snapshot);
}

/*
 * Did the log get this command's events already?  Then their result, with the state as it was
 * after them.  QE002 when there are only events of another command that had the same id, or of
 * none.
 */
static bool
find_repetition(const Command *command, CommandRun *run, Snapshot snapshot)
{
	TagSearch  *search;
	Event		event;
	int64		position = 0;	/* of the last that has the tag */

	if (command->id_query == NULL)
		return false;
	search = TagSearchBegin(command->id_query, run->fold.key.tenant_id, 0, PG_INT64_MAX,
							BackwardScanDirection, snapshot);
	run->global_position = 0;
	while (run->global_position == 0 && TagSearchNext(search, &event))
	{
		if (position == 0)
			position = EventGlobalPosition(&event);
		if (CommandIdIsOf(&command->identity, DatumGetJsonbP(event.values[EVENT_METADATA])))
			run->global_position = EventGlobalPosition(&event);
	}
	TagSearchEnd(search);
	if (position > 0 && run->global_position == 0)
		ereport(ERROR,
				(errcode(ERRCODE_EVENT_ID_CONFLICT),
				 errmsg("command id %s is already used", EventIdText(&command->identity.id)),
				 errdetail("The event at position %lld has tag \"%s\", and did not follow from this command with the same boundary, type and payload.",
						   (long long) position, text_to_cstring(command->id_tag)),
				 errhint("A retry must repeat the same command; a new command needs a new id. Tags that begin with \"command:\" are for these ids.")));
	if (run->global_position == 0)
		return false;
	BoundaryFoldBegin(&run->fold, run->boundary, run->global_position, snapshot);
	return true;
}

/* Append what was decided, and fold what of it matches. */
static void
append_events(CommandRun *run)
{
	MatchingSnapshot snapshot;

	run->global_position = StreamsAppendRun(run->append, NULL);
	snapshot = MatchingSnapshotTake(false);
	if (run->global_position > run->fold.position)
		BoundaryFoldOn(&run->fold, run->global_position, snapshot.log.snapshot);
	else
	{
		/* the decider named ids, of events that were there already */
		run->is_repetition = true;
		BoundaryFoldBegin(&run->fold, run->boundary, run->global_position, snapshot.log.snapshot);
	}
	MatchingSnapshotRelease(snapshot);
}

/*
 * Save the state, unless declarations changed while it was folded: it may then be a
 * mixture, which no fingerprint stands for.  Nor where events are received: who writes them has
 * none of our slots, and they come in the order of commits, so one of a lower position may follow.
 */
static void
save_snapshot_if_due(const CommandRun *run)
{
	const BoundaryFold *fold = &run->fold;

	if (run->boundary->snapshot_every > 0 && fold->nevents >= run->boundary->snapshot_every &&
		POSITION_NODE(fold->position) == PositionNode() && !PublishedIsFollowed() &&
		BoundaryIsCurrent(run->boundary))
		BoundarySnapshotSave(&fold->key, &run->boundary->rules, fold->position, fold->state);
}

static void
describe_command(void *arg)
{
	Command    *command = arg;

	errcontext("command \"%s\" for boundary \"%s\"", text_to_cstring(command->type),
			   text_to_cstring(command->boundary));
}
