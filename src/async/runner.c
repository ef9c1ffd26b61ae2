/*-------------------------------------------------------------------------
 * runner.c
 *	  Asynchronous projections are run: run_projections, and what a background process
 *	  does.
 *
 * Whoever runs a projection has its run lock, which one session has at a time, over the
 * ends of transactions.  So a batch in hand that it finds is of a session that is
 * gone, and need not be waited for.
 *
 * A batch is handed out in one transaction, which is on disk before anything is done for
 * it; so what kills the session, or the server, is known by that afterwards.  In the next
 * one its handlers run, it is acknowledged, and the next batch is handed out: effects and
 * position are one commit.  A transaction takes the lock of the feed first, without
 * waiting, so nobody changes the projection meanwhile; and whoever rebuilds it
 * does not hold up the others.
 *
 * Handlers run in a subtransaction.  When one fails, the batch is done anew, each event in
 * a subtransaction of its own; what fails then is noted and the rest acknowledged, and
 * what follows is the business of the subscription (batch.c): it is tried again, its
 * stream parked, or the projection stopped.  When it is not the event's fault (a
 * deadlock, no memory, a cancellation) the batch is given back.  So there is no error here
 * after which a batch that was not handled stays in hand, but the end of the session.
 *
 * All that runs for an event has the rights of the projection's owner, or those of who
 * defined it, and never those of who runs it (handler.c); and what is deferred is checked
 * before the commit, where it would be no event's failure.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/deferred_constraint.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/registry.h"
#include "base/registry_function.h"
#include "base/restore.h"
#include "base/subtransaction.h"
#include "base/wakeup.h"
#include "log/dispatch.h"
#include "log/event_wait.h"
#include "log/horizon.h"
#include "log/position.h"
#include "projection/coverage.h"
#include "projection/handler.h"
#include "projection/replay.h"
#include "subscription/delivery_wait.h"
#include "subscription/feed.h"
#include "subscription/feed_name.h"
#include "subscription/subscription.h"
#include "async/async_projection.h"
#include "async/progress.h"
#include "async/runner.h"

/* a batch is to take so long: what a conversion waits for, and what a failure undoes */
#define TARGET_MS		50
#define FIRST_COUNT		16
#define MAX_COUNT		1000
#define MAX_BYTES		(8 * 1024 * 1024)

/* so long one projection is run before others are looked at */
#define SLICE_MS		1000

/* so long it is left alone after what was not its events' fault, doubling */
#define BACKOFF_MS		100
#define MAX_BACKOFF_MS	10000

/* what somebody else has locked is looked at again after so long */
#define BUSY_MS			20

/* How far an attempt at a batch came. */
typedef enum Stage
{
	STAGE_LOCK,
	STAGE_HANDLE,
	STAGE_ACK
} Stage;

/* What came of it. */
typedef enum Outcome
{
	OUTCOME_DONE,
	OUTCOME_BUSY,				/* somebody else is at it; the batch is still in hand */
	OUTCOME_GONE,				/* the batch is not in hand any more */
	OUTCOME_FAILED				/* an event has failed, or something else */
} Outcome;

/* A projection that is run. */
typedef struct Run
{
	text	   *name;
	uint64		hash;			/* of its name */
	text	   *feed;
	LOCKTAG		tag;			/* of the run lock, */
	bool		is_locked;		/* which this session has */
	bool		is_listed;		/* it is there, and an asynchronous one */
	FeedBatch  *batch;
	DeliveryWait *wait;
	int			max_count;		/* of a batch */
	bool		is_behind;		/* the last batch was as large as it could be */
	TimestampTz not_before;
	int			failures;		/* in a row, which were not the events' */

	/* as it is declared */
	MemoryContext memory;
	uint64		generation;
	AsyncProjection *declared;	/* NULL: not read, or not there */
} Run;

typedef struct Runner
{
	const RunnerTransactions *transactions;
	MemoryContext memory;		/* lasts over transactions */
	MemoryContext work;			/* does not */
	List	   *names;			/* text *; NIL: all */
	TimestampTz deadline;
	int64		target;			/* what was there when it began */
	TimestampTz settle_deadline;	/* how long writers of that are waited for */
	List	   *runs;
	uint64		generation;		/* of the registries, as of the list */
	bool		is_listed;
	int64		handled;
	long		longest_ms;
	Waiter		waiter;
} Runner;

/*
 * Where the last round of this session began, so that none is always the last; nor in
 * sessions that all die of another one.
 */
static unsigned int rounds = 0;

/* What was said last of a projection that is tried again, in hashes. */
typedef struct Warning
{
	uint64		name;
	uint64		error;			/* 0: it has worked since */
} Warning;

/* the background process runs them over and over, and need not say it each time; else of one call */
static List *warnings = NIL;

static void gather(Runner *runner);
static void begin(Runner *runner);
static void finish(Runner *runner);
static void commit(Runner *runner);
static bool is_over(Runner *runner);
static bool is_run_by_others(Run *run);
static bool asked_to_leave(Runner *runner);
static bool run_all(Runner *runner);
static void list_runs(Runner *runner);
static Run *find_run(Runner *runner, const text *name);
static Run *make_run(const text *name);
static bool run_one(Runner *runner, Run *run);
static bool has_work(Runner *runner, Run *run);
static bool lock_run(Run *run);
static void unlock_run(Run *run);
static bool declare(Run *run);
static bool receive_first(Runner *runner, Run *run);
static bool receive(Runner *runner, Run *run);
static void receive_locked(Run *run);
static bool handle(Runner *runner, Run *run, TimestampTz slice_end);
static bool goes_on(const Runner *runner, const Run *run, TimestampTz slice_end);
static Outcome attempt(Runner *runner, Run *run, bool one_by_one, ErrorData **error, Stage *stage);
static int64 handle_events(Runner *runner, Run *run, Subscription *feed, bool one_by_one);
static bool handle_alone(Run *run, Subscription *feed, const Event *event, int *cursor,
						 int64 *handled);
static bool handle_event(Run *run, const Event *event, int *cursor);
static bool is_behind_failed(List *failed, const Event *event);
static void adapt(Run *run, int n, double ms);
static bool is_nobodys_fault(int sqlerrcode);
static bool give_back(Runner *runner, Run *run, const ErrorData *error);
static void back_off(Run *run, const ErrorData *error);
static uint64 hash_of_error(const ErrorData *error);
static bool note_warning(const Run *run, uint64 error);
static void report_interrupt(const Run *run, ErrorData *error);

/*
 * Run asynchronous projections, those of the names (text *) or all of them for NIL:
 * handle what is there now, and until the deadline what comes.  What somebody else
 * runs is waited for.  Returns how many events were handled.
 *
 * Called with a transaction open, which is ended, and returns with one open; in a
 * memory context that lasts as long as the call.  No snapshot is active at either.
 * An error takes the locks of the session with it, as it ends the transaction.
 */
int64
RunnerRun(List *names, TimestampTz deadline, const RunnerTransactions *transactions)
{
	Runner		runner = {
		.transactions = transactions,
		.memory = CurrentMemoryContext,
		.work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es runner", ALLOCSET_DEFAULT_SIZES),
		.names = names,
		.deadline = deadline,
		.waiter = {.session = true}
	};
	ListCell   *lc;

	if (rounds == 0)
		rounds = (unsigned int) MyProcPid;
	if (!transactions->leave)
	{
		list_free_deep(warnings);
		warnings = NIL;
	}
	runner.target = PositionOfNumber(PositionLastNumber());
	runner.settle_deadline = HorizonDeadline();
	transactions->end();
	WakeupEnter(&runner.waiter);
	for (;;)
	{
		int64		number;
		bool		worked;
		TimestampTz now;

		gather(&runner);
		number = PositionLastNumber();
		worked = run_all(&runner);
		now = GetCurrentTimestamp();

		CHECK_FOR_INTERRUPTS();
		if (asked_to_leave(&runner) || (!worked && is_over(&runner)))
			break;
		if (worked)
			continue;
		if (PositionLastNumber() != number)
			SetLatch(MyLatch);
		/* what others do is waited for beyond the deadline */
		(void) WakeupSleep(&runner.waiter, Max(deadline, now + USECS_PER_SEC),
						   Min(runner.longest_ms,
							   deadline > now ? TimestampDifferenceMilliseconds(now, deadline) + 1 : BUSY_MS));
	}
	WakeupLeave(&runner.waiter);
	foreach(lc, runner.runs)
	{
		Run		   *run = lfirst(lc);

		/* who asked us to leave came between a batch and its handling */
		if (run->batch->n > 0)
		{
			begin(&runner);
			(void) give_back(&runner, run, NULL);
			finish(&runner);
		}
		unlock_run(run);
	}
	MemoryContextSwitchTo(runner.memory);
	MemoryContextDelete(runner.work);
	return runner.handled;
}

/*
 * Rest where many events come: a batch costs two commits, however small it is.  Once in a
 * round, so that what is handled late does not depend on how many projections there are;
 * and not while one of them is behind.
 */
static void
gather(Runner *runner)
{
	long		rest_ms = EventWaitRest(PositionLastNumber(), true);
	ListCell   *lc;

	foreach(lc, runner->runs)
	{
		Run		   *run = lfirst(lc);

		if (run->batch->n > 0 || run->is_behind)
			return;
	}
	if (rest_ms > 0 && GetCurrentTimestamp() < runner->deadline)
		WakeupRest(&runner->waiter, rest_ms);
}

/* A transaction has been begun; work in it. */
static void
begin(Runner *runner)
{
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(runner->work);
}

/* Commit it. */
static void
finish(Runner *runner)
{
	commit(runner);
	MemoryContextReset(runner->work);
}

/* The same, but what was allocated stays. */
static void
commit(Runner *runner)
{
	MemoryContextSwitchTo(runner->memory);
	PopActiveSnapshot();
	runner->transactions->end();
	MemoryContextSwitchTo(runner->memory);
}

static bool
asked_to_leave(Runner *runner)
{
	bool		leaves = false;

	if (runner->transactions->leave)
	{
		begin(runner);
		leaves = runner->transactions->leave(runner->handled);
		finish(runner);
	}
	return leaves;
}

/*
 * Is the time over, and all handled that was there, by whomever?  For writers that hold up
 * what is there readers wait as long as they do elsewhere.
 */
static bool
is_over(Runner *runner)
{
	bool		over = true;
	ListCell   *lc;

	if (GetCurrentTimestamp() < runner->deadline)
		return false;
	begin(runner);
	foreach(lc, RestoreIsUnderWay() ? NIL : runner->runs)
	{
		Run		   *run = lfirst(lc);
		TimestampTz now = GetCurrentTimestamp();
		Progress	progress = ProgressOf(run->name, runner->target);

		if (progress.is_there && !progress.paused && !progress.stopped && !progress.waits &&
			progress.open && now >= run->not_before &&
			(now < runner->settle_deadline || is_run_by_others(run)))
			over = false;
	}
	finish(runner);
	return over;
}

static bool
is_run_by_others(Run *run)
{
	bool		had_it = run->is_locked;
	bool		others = !lock_run(run);

	if (!had_it)
		unlock_run(run);
	return others || run->batch->n > 0;
}

/* Run each of them once; false when there was nothing to do. */
static bool
run_all(Runner *runner)
{
	bool		worked = false;
	int			n;
	int			i;

	runner->longest_ms = 1000;
	begin(runner);
	list_runs(runner);
	finish(runner);
	n = list_length(runner->runs);
	rounds++;
	for (i = 0; i < n; i++)
		worked |= run_one(runner, list_nth(runner->runs, (i + rounds) % n));
	return worked;
}

/*-------------------------------------------------------------------------
 * which
 *-------------------------------------------------------------------------
 */

/* Those that are there now.  42704 for a name that no projection has. */
static void
list_runs(Runner *runner)
{
	List	   *names;
	List	   *runs = NIL;
	ListCell   *lc;

	AcceptInvalidationMessages();
	if (runner->is_listed && runner->generation == RegistryGeneration())
		return;
	runner->generation = RegistryGeneration();
	names = runner->names ? runner->names : AsyncProjectionNames();
	foreach(lc, names)
	{
		if (runner->names && !runner->is_listed && ProjectionLoad(lfirst(lc)) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("projection \"%s\" does not exist", text_to_cstring(lfirst(lc))),
					 errhint(PROJECTION_MISSING_HINT)));
		MemoryContextSwitchTo(runner->memory);
		runs = lappend(runs, find_run(runner, lfirst(lc)));
		MemoryContextSwitchTo(runner->work);
	}
	/* one with a batch in hand stays until that is settled */
	foreach(lc, runner->runs)
	{
		Run		   *run = lfirst(lc);

		MemoryContextSwitchTo(runner->memory);
		if (!list_member_ptr(runs, run) && run->is_locked)
			runs = lappend(runs, run);
		MemoryContextSwitchTo(runner->work);
	}
	runner->runs = runs;
	runner->is_listed = true;
}

/* In the memory of the runner. */
static Run *
find_run(Runner *runner, const text *name)
{
	ListCell   *lc;

	foreach(lc, runner->runs)
	{
		Run		   *run = lfirst(lc);

		if (VARSIZE_ANY_EXHDR(run->name) == VARSIZE_ANY_EXHDR(name) &&
			memcmp(VARDATA_ANY(run->name), VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name)) == 0)
			return run;
	}
	return make_run(name);
}

static Run *
make_run(const text *name)
{
	Run		   *run = palloc0(sizeof(Run));
	uint64		hash = DatumGetUInt64(hash_any_extended((const unsigned char *) VARDATA_ANY(name),
														VARSIZE_ANY_EXHDR(name), 0));

	run->name = DatumGetTextPCopy(PointerGetDatum(name));
	run->hash = hash;
	run->feed = FeedNameOf(name);
	/* the highest bit makes it differ from other locks on that table */
	SET_LOCKTAG_OBJECT(run->tag, MyDatabaseId, ExtensionRelid("projections"), (uint32) hash,
					   (uint16) (hash >> 32) | 0x8000);
	run->batch = FeedBatchMake(MAX_BYTES);
	run->wait = DeliveryWaitMake(run->feed, true);
	run->max_count = FIRST_COUNT;
	return run;
}

/*
 * Read it, unless what is known is still true; false when it is not to be run: it is paused,
 * or of another mode, or gone.
 */
static bool
declare(Run *run)
{
	if (run->memory == NULL || run->generation != RegistryGeneration())
	{
		MemoryContext caller = CurrentMemoryContext;

		if (run->memory)
			MemoryContextDelete(run->memory);
		run->declared = NULL;
		run->memory = AllocSetContextCreate(GetMemoryChunkContext(run), "cqrs_es run", ALLOCSET_SMALL_SIZES);
		run->generation = RegistryGeneration();
		MemoryContextSwitchTo(run->memory);
		run->declared = AsyncProjectionRead(run->name);
		MemoryContextSwitchTo(caller);
	}
	return run->declared && !run->declared->projection->paused;
}

/*-------------------------------------------------------------------------
 * one projection
 *-------------------------------------------------------------------------
 */

/* Run it for a while; false when there was nothing to do, or somebody else does it. */
static bool
run_one(Runner *runner, Run *run)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz slice_end = now + SLICE_MS * INT64CONST(1000);
	bool		worked = false;

	if (now < run->not_before)
	{
		runner->longest_ms = Min(runner->longest_ms,
								 TimestampDifferenceMilliseconds(now, run->not_before) + 1);
		return false;
	}
	if (run->batch->n == 0)
	{
		if (!has_work(runner, run))
		{
			run->is_behind = false;
			return false;
		}
		if (!lock_run(run))
		{
			runner->longest_ms = Min(runner->longest_ms, BUSY_MS);
			return false;
		}
		if (!receive_first(runner, run))
		{
			unlock_run(run);
			return false;
		}
	}
	while (run->batch->n > 0 && handle(runner, run, slice_end))
		worked = true;
	if (run->batch->n == 0)
		unlock_run(run);
	return worked;
}

/* Is there something for it?  Looked at without a lock, for most looks find nothing. */
static bool
has_work(Runner *runner, Run *run)
{
	volatile bool found = false;
	Subscription *feed;

	begin(runner);
	if (declare(run) && (feed = SubscriptionFind(run->feed)) != NULL)
	{
		ErrorData  *volatile error = NULL;
		Subtransaction subtransaction;

		SubtransactionBegin(&subtransaction);
		PG_TRY();
		{
			found = DeliveryWaitLook(run->wait, feed, &runner->longest_ms);
			SubtransactionEnd(&subtransaction, true);
		}
		PG_CATCH();
		{
			error = SubtransactionCatch(&subtransaction);
		}
		PG_END_TRY();
		if (error && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		if (error)
			back_off(run, error);
		/* after the deadline, only what was there when it began */
		if (found && GetCurrentTimestamp() >= runner->deadline)
		{
			Progress	progress = ProgressOf(run->name, runner->target);

			found = progress.open || progress.retries;
		}
	}
	finish(runner);
	return found;
}

static bool
lock_run(Run *run)
{
	if (!run->is_locked)
		run->is_locked = compat_try_lock(&run->tag, ExclusiveLock, true) != LOCKACQUIRE_NOT_AVAIL;
	return run->is_locked;
}

static void
unlock_run(Run *run)
{
	if (run->is_locked)
		(void) LockRelease(&run->tag, ExclusiveLock, true);
	run->is_locked = false;
}

/* Hand out a batch, in a transaction of its own; false when there is none. */
static bool
receive_first(Runner *runner, Run *run)
{
	bool		found;

	begin(runner);
	found = receive(runner, run);
	finish(runner);
	return found;
}

/*
 * Hand out the next batch, as the last that is done in a transaction, which will be on disk
 * when it has been committed.
 */
static bool
receive(Runner *runner, Run *run)
{
	ErrorData  *volatile error = NULL;
	Subtransaction subtransaction;

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		receive_locked(run);
		SubtransactionEnd(&subtransaction, true);
	}
	/* what was all right a moment ago, when has_work looked */
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
		FeedBatchForget(run->batch);
	}
	PG_END_TRY();
	if (error && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
	{
		/* what was acknowledged before stays so */
		commit(runner);
		begin(runner);
		report_interrupt(run, error);
	}
	if (error)
		back_off(run, error);
	if (run->batch->n > 0)
		ForceSyncCommit();
	return run->batch->n > 0;
}

static void
receive_locked(Run *run)
{
	Subscription *feed;

	FeedBatchForget(run->batch);
	/* somebody may have come since has_work looked */
	if (!SubscriptionTryLock(run->feed) || !declare(run))
		return;

	/* its tables have not their rows yet, perhaps; who brought it has that lock by now */
	if (RestoreIsUnderWay())
		return;
	feed = SubscriptionFind(run->feed);
	if (feed == NULL || feed->paused)
		return;
	run->batch->sink.stop_at = run->declared->rebuilt_to;
	run->is_behind = FeedReceive(feed, run->batch, run->max_count) &&
		run->batch->n >= run->max_count;
}

/*
 * Handle the batch in hand, and hand out the next one; in one transaction.  False when it
 * could not be handled now.
 */
static bool
handle(Runner *runner, Run *run, TimestampTz slice_end)
{
	TimestampTz start = GetCurrentTimestamp();
	int			n = run->batch->n;
	ErrorData  *error = NULL;
	Stage		stage;
	Outcome		outcome;

	begin(runner);
	outcome = attempt(runner, run, false, &error, &stage);
	if (outcome == OUTCOME_FAILED && stage == STAGE_HANDLE && !is_nobodys_fault(error->sqlerrcode))
		outcome = attempt(runner, run, true, &error, &stage);
	if (outcome == OUTCOME_DONE)
	{
		bool		more = goes_on(runner, run, slice_end);

		run->failures = 0;
		(void) note_warning(run, 0);
		adapt(run, n, (GetCurrentTimestamp() - start) / 1000.0);
		FeedBatchForget(run->batch);
		/* what was appended here is not settled before the commit */
		if (more && PositionFirstOwn() == 0)
			(void) receive(runner, run);
	}
	else if (outcome == OUTCOME_GONE)
		FeedBatchForget(run->batch);
	else if (outcome == OUTCOME_BUSY)
		runner->longest_ms = Min(runner->longest_ms, BUSY_MS);
	else
	{
		(void) give_back(runner, run, error->sqlerrcode == ERRCODE_QUERY_CANCELED ? NULL : error);
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		{
			commit(runner);
			begin(runner);
			report_interrupt(run, error);
		}
		back_off(run, error);
	}
	finish(runner);
	return outcome == OUTCOME_DONE || outcome == OUTCOME_GONE;
}

/* Is the next batch to be handed out right behind this one? */
static bool
goes_on(const Runner *runner, const Run *run, TimestampTz slice_end)
{
	TimestampTz now = GetCurrentTimestamp();

	return run->is_behind && now < slice_end &&
		(now < runner->deadline ||
		 EventGlobalPosition(run->batch->events[run->batch->n - 1]) < runner->target);
}

/*
 * Handle a batch and acknowledge it, in a subtransaction.  One by one: each event in one of
 * its own, and what fails is noted.
 */
static Outcome
attempt(Runner *runner, Run *run, bool one_by_one, ErrorData **error, Stage *stage)
{
	volatile Stage at = STAGE_LOCK;
	volatile Outcome outcome = OUTCOME_FAILED;
	ErrorData  *volatile caught = NULL;
	Subtransaction subtransaction;

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		Subscription *feed;

		/* somebody may have come since the batch was handed out */
		if (!SubscriptionTryLock(run->feed))
			outcome = OUTCOME_BUSY;
		else if (!declare(run) || (feed = SubscriptionFind(run->feed)) == NULL || feed->paused)
			outcome = OUTCOME_GONE;
		else
		{
			int64		handled;

			FeedFence(feed, run->batch);
			at = STAGE_HANDLE;
			handled = handle_events(runner, run, feed, one_by_one);
			at = STAGE_ACK;
			FeedAck(feed, run->batch);
			runner->handled += handled;
			outcome = OUTCOME_DONE;
		}
		SubtransactionEnd(&subtransaction, true);
	}
	PG_CATCH();
	{
		caught = SubtransactionCatch(&subtransaction);
		outcome = OUTCOME_FAILED;
	}
	PG_END_TRY();
	if (caught && at == STAGE_LOCK)
		outcome = caught->sqlerrcode == ERRCODE_BATCH_NOT_YOURS ? OUTCOME_GONE :
			caught->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ? OUTCOME_BUSY : OUTCOME_FAILED;
	*error = caught;
	*stage = at;
	return outcome;
}

/*-------------------------------------------------------------------------
 * events
 *-------------------------------------------------------------------------
 */

/*
 * Handle the events of the batch in hand; with one_by_one, those that fail are noted.
 * Returns how many were handled.
 */
static int64
handle_events(Runner *runner, Run *run, Subscription *feed, bool one_by_one)
{
	Projection *projection = run->declared->projection;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext work = AllocSetContextCreate(caller, "cqrs_es handled event", ALLOCSET_DEFAULT_SIZES);
	List	   *failed = NIL;
	int64		handled = 0;
	int			cursor = 0;
	int			guc_level = NewGUCNestLevel();
	List	   *held;
	int			i;

	/* what handlers say is of events, which are none of the caller's business */
	(void) set_config_option("client_min_messages", "error", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	held = HandlerHoldConstraints(projection);
	for (i = 0; i < run->batch->n; i++)
	{
		const Event *event = run->batch->events[i];

		CHECK_FOR_INTERRUPTS();
		if (is_behind_failed(failed, event))
			continue;
		MemoryContextSwitchTo(work);
		if (!one_by_one)
			handled += handle_event(run, event, &cursor);
		else if (!handle_alone(run, feed, event, &cursor, &handled))
		{
			MemoryContextSwitchTo(caller);
			failed = lappend(failed, (void *) event);
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(work);
		/* in the order of the log nothing goes past it */
		if (failed != NIL && feed->in_log_order)
			break;
	}
	HandlerCheckConstraints(projection);
	DeferredConstraintRelease(held);
	AtEOXact_GUC(false, guc_level);
	MemoryContextDelete(work);
	return handled;
}

/* Handle an event, and count it; when it fails, note that, and false. */
static bool
handle_alone(Run *run, Subscription *feed, const Event *event, int *cursor, int64 *handled)
{
	volatile bool concerned = false;
	ErrorData  *volatile error = NULL;
	uint64		refusals = DispatchRefusals();
	uint64		denials = RegistryFunctionDenials();
	Subtransaction subtransaction;

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		concerned = handle_event(run, event, cursor);
		HandlerCheckConstraints(run->declared->projection);
		SubtransactionEnd(&subtransaction, true);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();
	if (error == NULL)
	{
		*handled += concerned;
		return true;
	}
	/* an owner who may not call an upcaster or reducer is none of the event's */
	if (is_nobodys_fault(error->sqlerrcode) || RegistryFunctionDenials() != denials)
		ReThrowError(error);
	FeedNote(feed, run->batch, event,
			 psprintf("%s (SQLSTATE %s)", error->message, unpack_sql_state(error->sqlerrcode)),
			 DispatchRefusals() != refusals);
	return false;
}

/* Handle an event, unless it was handled before the projection became as it is. */
static bool
handle_event(Run *run, const Event *event, int *cursor)
{
	AsyncProjection *async = run->declared;
	bool		is_old = EventGlobalPosition(event) <= async->rebuilt_to;
	bool		concerned;
	bool		held;

	/* the position has passed what is retried, which does not mean that it was handled */
	if (run->batch->kind == BATCH_CURSOR &&
		CoverageHas(&async->handled, EventGlobalPosition(event), cursor))
		return false;
	if (is_old)
		DispatchForbid(true);
	held = DispatchHold();
	concerned = HandlerReplay(async->projection, event, HANDLER_OWN_WORDS | HANDLER_GO_ON);
	ReplayRelease(async->projection, held);
	if (is_old)
		DispatchForbid(false);
	return concerned;
}

static bool
is_behind_failed(List *failed, const Event *event)
{
	StreamKey	key;
	ListCell   *lc;

	if (failed == NIL)
		return false;
	EventKey(event, &key);
	foreach(lc, failed)
	{
		StreamKey	other;

		EventKey(lfirst(lc), &other);
		if (StreamKeyEqual(&other, &key))
			return true;
	}
	return false;
}

/* Let the next batch take as long as one should. */
static void
adapt(Run *run, int n, double ms)
{
	double		factor = TARGET_MS / Max(ms, 1);

	/* a small one says little of large ones */
	if (n >= run->max_count || factor < 1)
		run->max_count = (int) Max(Min(Min(run->max_count * Min(factor, 2), MAX_COUNT),
									   run->max_count * 2), 1);
}

/*-------------------------------------------------------------------------
 * what fails
 *-------------------------------------------------------------------------
 */

/* Is it an error that says nothing of the event, which is tried again? */
static bool
is_nobodys_fault(int sqlerrcode)
{
	return ErrorIsNotUsers(sqlerrcode) || sqlerrcode == ERRCODE_WRONG_EXPECTED_VERSION;
}

/*
 * Give the batch back, of which nobody died; with an error that others are to see.  False
 * when somebody is in the way; then it stays in hand.
 */
static bool
give_back(Runner *runner, Run *run, const ErrorData *error)
{
	ErrorData  *volatile caught = NULL;
	volatile bool given = false;
	Subtransaction subtransaction;

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		Subscription *feed;

		if (SubscriptionTryLock(run->feed) && (feed = SubscriptionFind(run->feed)) != NULL)
		{
			FeedRelease(feed, run->batch, error == NULL ? NULL :
						psprintf("%s (SQLSTATE %s)", error->message, unpack_sql_state(error->sqlerrcode)),
						GetCurrentTimestamp() + BACKOFF_MS * INT64CONST(1000));
			given = true;
		}
		SubtransactionEnd(&subtransaction, true);
	}
	/* somebody else has it by now, or it is in their hands at this moment */
	PG_CATCH();
	{
		caught = SubtransactionCatch(&subtransaction);
		given = caught->sqlerrcode == ERRCODE_BATCH_NOT_YOURS;
	}
	PG_END_TRY();
	if (given)
		FeedBatchForget(run->batch);
	return given;
}

/* Leave it alone for a time that doubles; an error that was not the last one's is told. */
static void
back_off(Run *run, const ErrorData *error)
{
	long		ms = Min(BACKOFF_MS * (1L << Min(run->failures, 20)), MAX_BACKOFF_MS);

	run->failures++;
	run->not_before = GetCurrentTimestamp() + ms * INT64CONST(1000);
	if (note_warning(run, hash_of_error(error)))
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("projection \"%s\" cannot go on, and is tried again", text_to_cstring(run->name)),
				 errdetail_log("%s", error->message)));
}

/* Never 0. */
static uint64
hash_of_error(const ErrorData *error)
{
	return DatumGetUInt64(hash_any_extended((const unsigned char *) error->message,
											(int) strlen(error->message), error->sqlerrcode)) | 1;
}

/* Note what there is to say of a projection, 0: nothing; is it something else than before? */
static bool
note_warning(const Run *run, uint64 error)
{
	MemoryContext caller;
	Warning    *warning;
	ListCell   *lc;

	foreach(lc, warnings)
	{
		uint64		before;

		warning = lfirst(lc);
		if (warning->name != run->hash)
			continue;
		before = warning->error;
		warning->error = error;
		return error != before;
	}
	if (error == 0)
		return false;
	caller = MemoryContextSwitchTo(TopMemoryContext);
	warning = palloc(sizeof(Warning));
	warning->name = run->hash;
	warning->error = error;
	warnings = lappend(warnings, warning);
	MemoryContextSwitchTo(caller);
	return true;
}

/*
 * Let a cancellation go out of the call.  Where it was met says something of the event,
 * which is for the owner of the projection.
 */
static void
report_interrupt(const Run *run, ErrorData *error)
{
	if (run->declared && has_privs_of_role(GetUserId(), run->declared->projection->owner.role))
		ReThrowError(error);
	ereport(ERROR,
			(errcode(error->sqlerrcode),
			 errmsg("canceled while projection \"%s\" was run", text_to_cstring(run->name))));
}

/*-------------------------------------------------------------------------
 * is there anything to do
 *-------------------------------------------------------------------------
 */

/*
 * What there is to be done by whoever runs projections, with the newest snapshot; nothing is
 * locked.
 */
RunnerState
RunnerLook(void)
{
	/* before anything is looked at: what is drawn later makes somebody look again */
	int64		position = PositionOfNumber(PositionLastNumber());
	bool		settled = HorizonIsSettled(position);
	RunnerState state = RUNNER_NONE;
	ListCell   *lc;

	foreach(lc, AsyncProjectionNames())
	{
		Progress	progress = ProgressOf(lfirst(lc), position);
		Subscription *feed = SubscriptionFind(FeedNameOf(lfirst(lc)));

		if (!progress.is_there || progress.paused || feed == NULL || feed->paused)
			continue;
		if (!settled || progress.open || progress.unsettled || progress.retries)
			return RUNNER_OPEN;
		state = RUNNER_DONE;
	}
	return state;
}
