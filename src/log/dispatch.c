/*-------------------------------------------------------------------------
 * dispatch.c
 *	  What happens in the appending transaction after an event is in the log:
 *	  projections, snapshots, in the order in which they registered.
 *
 * Of what append.c has inserted straight, it tells by DispatchEvents; every other
 * path arrives through the AFTER ROW trigger.  Who is told stands in a list: the
 * concepts above put themselves there.
 *
 * Before anybody is told, guards are asked, who may refuse the events; at once, so that
 * a handler that appends meets the refusal where it does.
 *
 * An observer may append: a projection's handler that reacts to an event.
 * Such events wait in a queue until all observers know of those before them,
 * so that everybody is told in the order of positions within a transaction,
 * the order in which a rebuild replays them.  The queue is emptied before the
 * append returns that began it all; after a plain INSERT of many rows, by the
 * trigger at the end of the statement, since only then all its rows are through.
 * (On a partitioned log it is emptied after each row, for rows that are inserted
 * into a partition by its own name have no such end.)  It may become long; so only the first
 * events in it are copies, and of the others it notes where they are in the log, to be read
 * again when it is their turn.
 *
 * A queued event knows who appended it.  Where that role has not the rights of whoever
 * appended the first event, observers are told of it as that role: upcasters and reducers of
 * what a handler appends are for the account of the handler's definer, and not of somebody
 * who knows nothing of it.  They do not gain the rights of a definer who has more either.
 *
 * It also knows what caused it.  That chain is how handlers that feed
 * each other are found out: it must not grow longer than
 * cqrs_es.max_handler_depth.
 *
 * What an aborted subtransaction appended is taken out of the queue; it stands at
 * its end.
 *
 * A row with a position that this transaction did not draw is a restored one:
 * what followed from it then is restored as well, so nobody is asked or told.
 *
 * While old events are replayed nothing may be appended: what followed from them
 * is in the log.  That does not end with the replay when it has set off deferred
 * triggers of users: they, and what they set off, run at commit or when
 * constraints are set to immediate.  Which of the waiting triggers are the
 * replay's cannot be told, so the transaction appends nothing until none waits.
 * (The server's own, of foreign keys and unique constraints, append nothing.)
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/fixed_settings.h"
#include "base/internal_query.h"
#include "base/lent_session.h"
#include "base/role_switch.h"
#include "base/setting.h"
#include "base/tenancy.h"
#include "log/dispatch.h"
#include "log/event_scan.h"
#include "log/log_range.h"
#include "log/position.h"
#include "log/tagging.h"

#define MAX_OBSERVERS 8
#define MAX_GUARDS 2

/* A handler (or a reducer) that appended, and what it was told of when it did. */
typedef struct Cause
{
	const struct Cause *parent; /* what had caused that; NULL: a client */
	int			depth;
	char	   *projection;		/* of a reducer that runs for a snapshot: "snapshot" */
	char	   *event_type;
} Cause;

/* An event that observers will be told of later. */
typedef struct QueuedEvent
{
	dlist_node	node;
	int64		position;
	int64		sequence;
	int64		append_version;
	Event	   *event;			/* a copy; NULL: it is to be read again */
	MemoryContext memory;		/* of the copy */
	const Cause *cause;
	Oid			appended_by;
	int			security_context;	/* in which it was appended */
	int			nest_level;		/* of the transaction that appended it */
} QueuedEvent;

/* so many of those that wait are copies */
#define MAX_COPIES	64

/* A state that the end of the (sub)transaction which brought it about ends. */
typedef struct Until
{
	bool		on;
	int			nest_level;		/* of that transaction */
} Until;

/* What goes on in this transaction. */
typedef struct Dispatch
{
	/* events that wait; the memory goes when none is left */
	dlist_head	queue;
	MemoryContext queue_memory; /* of causes, and above that of items */
	MemoryContext item_memory;
	int			ncopies;		/* in the queue */
	const Cause *last_cause;	/* that was made */
	dlist_node *queue_looked_at;	/* see DispatchIsQueued */
	QueuedEvent *queued_last;	/* see place_in_queue */

	/* observers are being told, or an append is under way: new events queue up */
	Until		busy;

	/* nothing may be appended; and not while deferred triggers wait, or run */
	Until		forbidden;
	Until		forbidden_deferred;

	/* what the observers are being told of, and whose handler that is now */
	const Event *event;
	const Cause *cause;
	const char *projection;

	/* who gets the errors of what follows from a queued event; see DispatchMaySee */
	Oid			audience;
} Dispatch;

static Dispatch current = {.queue = DLIST_STATIC_INIT(current.queue)};

/* who is told, in this order */
static EventObserver observers[MAX_OBSERVERS];
static int	nobservers = 0;

/* who is asked before */
static EventGuard guards[MAX_GUARDS];
static int	nguards = 0;

/* see DispatchRefusals */
static uint64 refusals = 0;

static int	cqrs_es_max_handler_depth = 16;

PG_FUNCTION_INFO_V1(cqrs_es_dispatch_event);

static void dispatch_row(TriggerData *trigdata);
static bool statement_ends(const TriggerData *trigdata);
static void check_allowed(void);
static void ask_guards(const Event *events, int nevents);
static bool deferred_triggers_wait(void);
static void tell(const Event *event, const Cause *cause);
static void empty_queue(void);
static void take_out(QueuedEvent *item);
static Event *read_again(const QueuedEvent *item);
static void tell_queued(const QueuedEvent *item);
static void enqueue(const Event *event);
static void put_in_queue(QueuedEvent *item);
static dlist_node *place_in_queue(const QueuedEvent *item);
static bool stays_in_front(dlist_node *node, const QueuedEvent *item);
static const Cause *cause_of_append(void);
pg_noreturn static void report_depth(const Cause *cause);
static void begin(Until *state);
static void leave_level(Until *state, int level, bool aborted);
static void keep_queued(int level);
static void drop_queued(int level);
static void forget(void);
static void at_transaction_end(XactEvent event, void *arg);
static void at_subtransaction_end(SubXactEvent event, SubTransactionId id,
								  SubTransactionId parent, void *arg);

void
DispatchInit(void)
{
	SettingDefineInt("cqrs_es.max_handler_depth",
					 "How long a chain of handlers that append events may become.",
					 "A handler that appends what it handles itself would never end.",
					 &cqrs_es_max_handler_depth, 16, 0, 1000,
					 PGC_USERSET, 0);
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* Add an observer; called by Inits only, the order of calls is the order of work. */
void
DispatchRegister(EventObserver observer)
{
	if (nobservers >= MAX_OBSERVERS)
		elog(ERROR, "too many event observers");
	observers[nobservers++] = observer;
}

/* Add a guard; called by Inits only. */
void
DispatchRegisterGuard(EventGuard guard)
{
	if (nguards >= MAX_GUARDS)
		elog(ERROR, "too many event guards");
	guards[nguards++] = guard;
}

/*
 * Ask all guards, and then tell all observers of the new events of one append, and of
 * what they append themselves; later, when they are being told of others, or when the
 * append is to several streams (DispatchHold).  Raises what
 * they raise, QE202 for a chain that has become too long.
 */
void
DispatchEvents(const Event *events, int nevents)
{
	bool		queued;
	MemoryContext work = NULL;
	MemoryContext caller = CurrentMemoryContext;
	int			i;

	check_allowed();
	ask_guards(events, nevents);
	queued = DispatchHold();
	if (nevents > 1)
		work = AllocSetContextCreate(caller, "cqrs_es observers", ALLOCSET_DEFAULT_SIZES);
	for (i = 0; i < nevents; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (queued)
			enqueue(&events[i]);
		else if (nevents == 1)
			tell(&events[i], NULL);
		else
		{
			MemoryContextSwitchTo(work);
			tell(&events[i], NULL);
			MemoryContextSwitchTo(caller);
			MemoryContextReset(work);
		}
	}
	if (work)
		MemoryContextDelete(work);
	DispatchRelease(queued);
}

/* Queue what is appended from now on, until DispatchRelease gets what this returned. */
bool
DispatchHold(void)
{
	bool		before = current.busy.on;

	if (!current.busy.on)
		begin(&current.busy);
	return before;
}

void
DispatchRelease(bool held_before)
{
	if (held_before)
		return;
	empty_queue();
	current.busy.on = false;
}

static void
check_allowed(void)
{
	if (!current.forbidden.on && !(current.forbidden_deferred.on && deferred_triggers_wait()))
		return;
	refusals++;
	if (current.forbidden.on)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("events cannot be appended while old events are replayed"),
				 errdetail("What followed from them may be in the log already."),
				 errhint("A projection whose handlers append cannot be rebuilt.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("events cannot be appended while deferred triggers of a rebuild wait or run"),
			 errdetail("What they append for old events may be in the log already."),
			 errhint("A projection whose triggers append cannot be rebuilt. Append anything else in a transaction of its own.")));
}

static void
ask_guards(const Event *events, int nevents)
{
	int			guc_level = 0;
	int			i;

	TenancyActFor(EventText(&events[0], EVENT_TENANT_ID), &guc_level);
	for (i = 0; i < nguards; i++)
		guards[i] (events, nevents);
	FixedSettingsRestore(guc_level);
}

/* Has this transaction deferred triggers of users that have not run to their end yet? */
static bool
deferred_triggers_wait(void)
{
	Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(triggers, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	bool		found = false;

	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

		found = trigger->tgdeferrable && !trigger->tgisinternal &&
			AfterTriggerPendingOnRel(trigger->tgrelid);
	}
	systable_endscan(scan);
	table_close(triggers, AccessShareLock);
	return found;
}

/* Are there events that observers will be told of later? */
bool
DispatchHasQueued(void)
{
	return !dlist_is_empty(&current.queue);
}

/* Is this call part of what follows from an event, a new one or one that is replayed? */
bool
DispatchIsBusy(void)
{
	return current.busy.on || current.forbidden.on;
}

/*
 * Is the event at this position one that observers will be told of later?  Asked
 * with rising positions, since the queue is looked through from where the last
 * answer was found.
 */
bool
DispatchIsQueued(int64 position)
{
	dlist_node *node = current.queue_looked_at;

	if (dlist_is_empty(&current.queue))
		return false;
	if (node == NULL || dlist_container(QueuedEvent, node, node)->position > position)
		node = dlist_head_node(&current.queue);
	while (dlist_container(QueuedEvent, node, node)->position < position &&
		   dlist_has_next(&current.queue, node))
		node = dlist_next_node(&current.queue, node);
	current.queue_looked_at = node;
	return dlist_container(QueuedEvent, node, node)->position == position;
}

/*
 * Refuse appends (55000), or allow them again: nothing may follow from old events.
 * What deferred triggers append that wait when they are allowed again is refused when
 * they run.
 */
void
DispatchForbid(bool forbid)
{
	if (forbid)
		begin(&current.forbidden);
	else if (current.forbidden.on)
	{
		current.forbidden.on = false;
		if (!current.forbidden_deferred.on && deferred_triggers_wait())
			begin(&current.forbidden_deferred);
	}
}

/*
 * Counts the appends that were refused because of DispatchForbid: who catches errors
 * of handlers finds out that this was one.
 */
uint64
DispatchRefusals(void)
{
	return refusals;
}

/*
 * Has whoever gets the errors of what runs for an event the rights of this role?  For a
 * queued event that is who appended the first one, and not the current role.
 */
bool
DispatchMaySee(Oid role)
{
	return has_privs_of_role(OidIsValid(current.audience) ? current.audience : GetUserId(), role);
}

/* Whose handler runs now (a string that stays while it does); NULL: none. */
void
DispatchSetHandler(const char *projection)
{
	current.projection = projection;
}

/* SQL: the AFTER INSERT trigger of the log, for each row and for the statement */
Datum
cqrs_es_dispatch_event(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired AFTER INSERT", "dispatch_event()")));

	if (TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		dispatch_row(trigdata);
	else
	{
		TaggingStatementEnded();
		if (!dlist_is_empty(&current.queue))
			DispatchRelease(DispatchHold());
	}
	return PointerGetDatum(NULL);
}

static void
dispatch_row(TriggerData *trigdata)
{
	EventColumns columns;
	Event		event = {.row = NULL,.append_version = 0};
	int			column;

	EventColumnsOf(trigdata->tg_relation, &columns);
	for (column = 0; column < EVENT_NCOLUMNS; column++)
	{
		bool		isnull;

		event.values[column] = slot_getattr(trigdata->tg_trigslot, columns.attno[column], &isnull);
	}
	LogRangeCheck(trigdata->tg_relation, &event);
	if (!PositionIsOwn(EventGlobalPosition(&event)))
		return;

	check_allowed();
	TaggingRowWritten(trigdata->tg_relation, &event, statement_ends(trigdata));
	/* let observers see the rows of the INSERT that fired us */
	CommandCounterIncrement();
	if (trigdata->tg_relation->rd_rel->relispartition)
	{
		DispatchEvents(&event, 1);
		return;
	}
	ask_guards(&event, 1);
	if (current.busy.on)
		enqueue(&event);
	else
	{
		begin(&current.busy);
		tell(&event, NULL);
		current.busy.on = false;
	}
}

/*
 * Will this function be called at the end of the statement that brought the row?  Not for a
 * partition that it names, nor where somebody has disabled that trigger.
 */
static bool
statement_ends(const TriggerData *trigdata)
{
	const TriggerDesc *triggers = trigdata->tg_relation->trigdesc;
	char		enabled = SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA ?
		TRIGGER_FIRES_ON_REPLICA : TRIGGER_FIRES_ON_ORIGIN;
	int			i;

	for (i = triggers ? triggers->numtriggers - 1 : -1; i >= 0; i--)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (trigger->tgfoid == trigdata->tg_trigger->tgfoid && TRIGGER_FOR_INSERT(trigger->tgtype) &&
			!TRIGGER_FOR_ROW(trigger->tgtype) && TRIGGER_FOR_AFTER(trigger->tgtype) &&
			(trigger->tgenabled == enabled || trigger->tgenabled == TRIGGER_FIRES_ALWAYS))
			return trigger->tgqual == NULL;
	}
	return false;
}

/*-------------------------------------------------------------------------
 * telling, now or later
 *-------------------------------------------------------------------------
 */

static void
tell(const Event *event, const Cause *cause)
{
	int			guc_level = 0;
	int			i;

	current.event = event;
	current.cause = cause;
	TenancyActFor(EventText(event, EVENT_TENANT_ID), &guc_level);
	for (i = 0; i < nobservers; i++)
		observers[i] (event);
	FixedSettingsRestore(guc_level);
	current.event = NULL;
	current.cause = NULL;
}

/* Tell of queued events until none is left; each may bring others. */
static void
empty_queue(void)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext work = NULL;

	while (!dlist_is_empty(&current.queue))
	{
		QueuedEvent item = *dlist_head_element(QueuedEvent, node, &current.queue);

		CHECK_FOR_INTERRUPTS();
		if (work == NULL)
			work = AllocSetContextCreate(caller, "cqrs_es queued event", ALLOCSET_SMALL_SIZES);
		MemoryContextSwitchTo(work);
		item.event = item.event ? EventCopy(item.event) : read_again(&item);
		item.event->append_version = item.append_version;
		take_out(dlist_head_element(QueuedEvent, node, &current.queue));
		tell_queued(&item);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(work);
	}
	if (work)
		MemoryContextDelete(work);
	if (current.queue_memory)
		MemoryContextDelete(current.queue_memory);
	current.queue_memory = NULL;
	current.item_memory = NULL;
	current.last_cause = NULL;
}

/* Out of the queue; the item and its copy are gone. */
static void
take_out(QueuedEvent *item)
{
	current.queue_looked_at = NULL;
	if (current.queued_last == item)
		current.queued_last = NULL;
	dlist_delete(&item->node);
	if (item->memory)
	{
		MemoryContextDelete(item->memory);
		current.ncopies--;
	}
	pfree(item);
}

/* The event from the log, palloc'd; XX001 when it is not there any more. */
static Event *
read_again(const QueuedEvent *item)
{
	Snapshot	snapshot = RegisterSnapshot(InternalQueryFreshSnapshot());
	EventScan  *scan = EventScanWholeAt(item->position, snapshot);
	Event	   *copy = NULL;
	Event		event;

	while (copy == NULL && EventScanNext(scan, &event))
		if (EventSequence(&event) == item->sequence)
			copy = EventCopy(&event);
	EventScanEnd(scan);
	UnregisterSnapshot(snapshot);
	if (copy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the event at position %lld is gone", (long long) item->position),
				 errdetail("It was appended by a handler of this transaction.")));
	return copy;
}

/*
 * As who appended it, unless that role could act as the current one anyway.  Settings that are
 * changed meanwhile are those of before.
 */
static void
tell_queued(const QueuedEvent *item)
{
	RoleSwitch	saved;
	LentSession lent;

	if (has_privs_of_role(item->appended_by, GetUserId()))
	{
		tell(item->event, item->cause);
		return;
	}
	saved = DefinerSwitchAgain(item->appended_by, item->security_context);
	current.audience = saved.saved_user;
	LentSessionBegin(&lent);
	PG_TRY();
	{
		tell(item->event, item->cause);
	}
	PG_FINALLY();
	{
		LentSessionEnd(&lent);
	}
	PG_END_TRY();
	RoleSwitchBack(&saved);
	current.audience = InvalidOid;
}

/* Put the event into the queue. */
static void
enqueue(const Event *event)
{
	QueuedEvent *item;

	if (current.queue_memory == NULL)
	{
		MemoryContext memory = AllocSetContextCreate(TopTransactionContext, "cqrs_es event queue",
													 ALLOCSET_SMALL_SIZES);

		current.item_memory = SlabContextCreate(memory, "cqrs_es event queue items",
												SLAB_DEFAULT_BLOCK_SIZE, sizeof(QueuedEvent));
		current.queue_memory = memory;
		current.ncopies = 0;
	}
	item = MemoryContextAllocZero(current.item_memory, sizeof(QueuedEvent));
	item->position = EventGlobalPosition(event);
	item->sequence = EventSequence(event);
	item->append_version = event->append_version;
	item->cause = cause_of_append();
	GetUserIdAndSecContext(&item->appended_by, &item->security_context);
	item->nest_level = GetCurrentTransactionNestLevel();
	if (current.ncopies < MAX_COPIES)
	{
		MemoryContext caller;

		item->memory = AllocSetContextCreate(current.queue_memory, "cqrs_es copy of an event",
											 ALLOCSET_SMALL_SIZES);
		caller = MemoryContextSwitchTo(item->memory);
		item->event = EventCopy(event);
		MemoryContextSwitchTo(caller);
		current.ncopies++;
	}
	put_in_queue(item);
}

/*
 * At the end, but in the order of positions: an append to several streams writes one
 * after the other, at positions that go from one to the next.  What an outer transaction
 * has queued stays in front.
 */
static void
put_in_queue(QueuedEvent *item)
{
	dlist_insert_after(place_in_queue(item), &item->node);
	current.queued_last = item;
}

/*
 * Behind what does it belong?  Mostly behind the last one; else, of an append to several
 * streams, near the one that came before it.
 */
static dlist_node *
place_in_queue(const QueuedEvent *item)
{
	QueuedEvent *last = current.queued_last;
	dlist_node *place = current.queue.head.prev;

	if (place == &current.queue.head || stays_in_front(place, item))
		return place;
	if (last && stays_in_front(&last->node, item) && last->nest_level >= item->nest_level)
	{
		place = &last->node;
		while (place->next != &current.queue.head && stays_in_front(place->next, item))
			place = place->next;
		return place;
	}
	while (place != &current.queue.head && !stays_in_front(place, item))
		place = place->prev;
	return place;
}

static bool
stays_in_front(dlist_node *node, const QueuedEvent *item)
{
	QueuedEvent *other = dlist_container(QueuedEvent, node, node);

	return other->nest_level < item->nest_level || other->position <= item->position;
}

/*
 * What makes an event be appended now; in the queue's memory, since events that
 * follow from this one will refer to it.  Many that come one after the other share one.
 */
static const Cause *
cause_of_append(void)
{
	const char *projection = current.projection ? current.projection : "snapshot";
	const Cause *last = current.last_cause;
	Cause	   *cause;
	text	   *event_type;
	int			type_len;

	if (current.event == NULL)
		return NULL;
	event_type = EventText(current.event, EVENT_EVENT_TYPE);
	type_len = VARSIZE_ANY_EXHDR(event_type);
	if (last && last->parent == current.cause && strcmp(last->projection, projection) == 0 &&
		(int) strlen(last->event_type) == type_len &&
		memcmp(last->event_type, VARDATA_ANY(event_type), type_len) == 0)
		return last;
	cause = MemoryContextAlloc(current.queue_memory, sizeof(Cause));
	cause->parent = current.cause;
	cause->depth = current.cause ? current.cause->depth + 1 : 1;
	cause->projection = MemoryContextStrdup(current.queue_memory, projection);
	cause->event_type = MemoryContextAlloc(current.queue_memory, type_len + 1);
	text_to_cstring_buffer(event_type, cause->event_type, type_len + 1);
	current.last_cause = cause;
	if (cause->depth > cqrs_es_max_handler_depth)
		report_depth(cause);
	return cause;
}

/* The chain from its beginning, or from where it began to go round. */
static void
report_depth(const Cause *last)
{
	const Cause *first = last;
	bool		cycle = false;
	char	   *path = psprintf("%s (%s)", last->projection, last->event_type);
	const Cause *cause;

	for (cause = last->parent; cause != NULL && !cycle; cause = cause->parent)
	{
		first = cause;
		path = psprintf("%s (%s) -> %s", first->projection, first->event_type, path);
		cycle = strcmp(first->projection, last->projection) == 0 &&
			strcmp(first->event_type, last->event_type) == 0;
	}
	ereport(ERROR,
			(errcode(ERRCODE_HANDLER_DEPTH),
			 errmsg("handlers that append events go deeper than %d", cqrs_es_max_handler_depth),
			 cycle ? errdetail("They feed each other: %s.", path) :
			 errdetail("Projections, and the events they handle: %s.", path),
			 cycle ? errhint("Let one of them stop, or raise cqrs_es.max_handler_depth if one does.") :
			 errhint("The limit is cqrs_es.max_handler_depth.")));
}

/*-------------------------------------------------------------------------
 * the end of transactions
 *-------------------------------------------------------------------------
 */

static void
begin(Until *state)
{
	state->on = true;
	state->nest_level = GetCurrentTransactionNestLevel();
}

/* A (sub)transaction of this level ends: what it began is over, or is its parent's. */
static void
leave_level(Until *state, int level, bool aborted)
{
	if (aborted && state->nest_level >= level)
		state->on = false;
	state->nest_level = Min(state->nest_level, level - 1);
}

static void
forget(void)
{
	current.busy.on = false;
	current.event = NULL;
	current.cause = NULL;
	current.projection = NULL;
	current.audience = InvalidOid;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE ||
		event == XACT_EVENT_PARALLEL_PRE_COMMIT)
		return;
	forget();
	current.forbidden.on = false;
	current.forbidden_deferred.on = false;
	dlist_init(&current.queue);
	current.queue_looked_at = NULL;
	current.queued_last = NULL;
	current.queue_memory = NULL;	/* goes with the transaction */
	current.item_memory = NULL;
	current.last_cause = NULL;
}

/*
 * What a subtransaction appended is its parent's when it commits, and never was
 * when it aborts.  Telling that was interrupted by the abort is over; telling
 * that goes on around it is not.
 */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId id,
					  SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	bool		aborted = event == SUBXACT_EVENT_ABORT_SUB;

	if (event != SUBXACT_EVENT_COMMIT_SUB && !aborted)
		return;
	if (aborted)
		drop_queued(level);
	else
		keep_queued(level);
	if (aborted && current.busy.nest_level >= level)
		forget();
	leave_level(&current.busy, level, aborted);
	leave_level(&current.forbidden, level, aborted);
	leave_level(&current.forbidden_deferred, level, aborted);
}

/* What was queued at this level, which is at the end, is now the parent's. */
static void
keep_queued(int level)
{
	dlist_iter	iter;

	dlist_reverse_foreach(iter, &current.queue)
	{
		QueuedEvent *item = dlist_container(QueuedEvent, node, iter.cur);

		if (item->nest_level < level)
			break;
		item->nest_level = level - 1;
	}
}

static void
drop_queued(int level)
{
	while (!dlist_is_empty(&current.queue))
	{
		QueuedEvent *item = dlist_tail_element(QueuedEvent, node, &current.queue);

		if (item->nest_level < level)
			break;
		take_out(item);
	}
}
