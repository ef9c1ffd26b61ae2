/*-------------------------------------------------------------------------
 * worker_process.c
 *	  The background worker of a database: what it does, and when it leaves.
 *
 * It runs projections as a client would that calls run_projections() over and over.
 * In between, and while it waits, it looks around, for it is nobody's session and must
 * not be in anybody's way.  It leaves when
 *
 *	- the setting is off, or the server stops, or somebody ends it;
 *	- somebody wants to have the database alone (DROP, RENAME, TEMPLATE, another
 *	  tablespace), who waits for 5 seconds only: known by a lock on the database that
 *	  cannot be had.  A launcher stays behind, which waits for that lock to be free;
 *	- the extension is gone, or has got another version than this library is of;
 *	- there has been nothing to do for a while, and nothing can come from what is
 *	  open: transactions that have appended, events that will be tried again.
 *
 * Each time it gives up its place first, and then looks once more (see worker.c).
 *
 * Between two rounds it does a chore of somebody else's (WorkerSetChore), for which a round
 * ends when it is due.
 *
 * When it is ended (pg_terminate_backend(), of which the server's own FATAL errors are a
 * kind), a launcher stays behind as well, which starts another one: it may have been a
 * handler that ended it, in the middle of a batch, and nobody need append any more.  So
 * that batch comes to be lost often enough for the subscription to know of which event
 * workers die, and to stop there.
 *
 * An error is one of the machinery, for what handlers raise is the projection's.  It is
 * logged, and again when it is another one; then the worker waits, longer each time.
 * It never ends itself for the postmaster to start it again: that would be a loop that
 * nobody can stop who has no access to the server.
 *
 * It stays, too, where the library on disk is newer than what is installed in the
 * database, but does nothing: so there is one process and one line in the log in a
 * while, not one for each append.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_database_d.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/pmsignal.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/lock_probe.h"
#include "async/runner.h"
#include "async/worker.h"

/* while it waits or works it looks around so often */
#define LOOK_MS			500

/* a round ends after so long: with something done, so that others see it in statistics; without */
#define BUSY_ROUND_MS	1000
#define IDLE_ROUND_MS	60000

/* one that has lived so long did not die of what its predecessors died of */
#define LONG_LIFE_MS	60000

/* pauses after errors, each twice as long as the one before */
#define FIRST_PAUSE_MS	1000
#define LONGEST_PAUSE_MS 60000

/* waits so long for a lock at most: one projection must not keep the others waiting */
#define LOCK_TIMEOUT	"5s"

typedef struct Worker
{
	MemoryContext memory;		/* of a round */
	bool		has_place;
	bool		has_run;
	Oid			extension;		/* as it was when this round began */
	bool		has_chore;		/* something is to be done soon, though nobody appends */
	bool		is_foreign;		/* the extension is of another version, which was logged */
	TimestampTz born;
	TimestampTz last_work;
	TimestampTz last_look;

	/* this round */
	TimestampTz began;
	int64		handled;

	/* errors in a row */
	long		pause_ms;
	char		error[256];
} Worker;

static Worker worker;

PGDLLEXPORT void cqrs_es_projection_worker(Datum database);

static void at_exit(int code, Datum arg);
static void use_settings(void);
static bool turn(void);
static void claim(void);
static bool has_reason_to_leave(void);
static bool no_more_to_do(void);
static void report_other_version(void);
static bool is_idle(void);
static bool database_is_wanted(void);
static void run_round(void);
static void end_transaction(void);
static bool leave_round(int64 handled);
static void nap(long ms);
static void after_error(void);

/* The process, in the database with this OID. */
void
cqrs_es_projection_worker(Datum database)
{
	volatile bool stay = true;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid,
											  BGWORKER_BYPASS_ALLOWCONN);
	before_shmem_exit(at_exit, (Datum) 0);
	use_settings();
	worker.memory = AllocSetContextCreate(TopMemoryContext, "cqrs_es worker", ALLOCSET_DEFAULT_SIZES);
	worker.born = worker.last_work = GetCurrentTimestamp();
	while (stay)
	{
		PG_TRY();
		{
			stay = turn();
		}
		PG_CATCH();
		{
			after_error();
		}
		PG_END_TRY();
		MemoryContextReset(worker.memory);
	}
	if (database_is_wanted())
		WorkerLaunchLater(MyDatabaseId, 0);
}

/*
 * However the process ends, but for a crash.  Locks of the session are those of no
 * transaction, and nobody else would let them go: nobody could take its place any more.
 */
static void
at_exit(int code, Datum arg)
{
	bool		is_long = TimestampDifferenceExceeds(worker.born, GetCurrentTimestamp(), LONG_LIFE_MS);

	AbortOutOfAnyTransaction();
	LockReleaseSession(DEFAULT_LOCKMETHOD);
	/* a server that stops starts nothing any more, and one that is gone cannot be asked */
	if (code != 0 && worker.has_place && WorkerIsOn && PostmasterIsAlive())
		WorkerLaunchLater(MyDatabaseId, is_long ? 1 : WorkerDeaths() + 1);
}

/*
 * Settings that must be so, whatever the database has: it could not finish its work,
 * or not see it.
 */
static void
use_settings(void)
{
	static const char *const settings[][2] = {
		{"application_name", CQRS_ES_SCHEMA},
		{"role", "none"},
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{COMPAT_TRANSACTION_TIMEOUT, "0"},
		{"lock_timeout", LOCK_TIMEOUT},
	};
	int			i;

	for (i = 0; i < (int) lengthof(settings); i++)
		if (settings[i][0])
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* Look around, and do what there is to do for a while.  False: it is time to leave. */
static bool
turn(void)
{
	if (!worker.has_place || !WorkerHasPlace())
		claim();
	if (worker.has_place && worker.pause_ms > 0)
		nap(worker.pause_ms);
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (!worker.has_place)
		return false;
	if (has_reason_to_leave())
	{
		WorkerRelease();
		worker.has_place = false;
		return !has_reason_to_leave();
	}
	if (worker.is_foreign)
		nap(LOOK_MS);
	else
		run_round();
	worker.pause_ms = 0;
	worker.error[0] = '\0';
	return true;
}

/* Become the worker of the database, unless there is one. */
static void
claim(void)
{
	StartTransactionCommand();
	worker.has_place = WorkerClaim();
	CommitTransactionCommand();
}

static bool
has_reason_to_leave(void)
{
	bool		leave = false;

	if (!WorkerIsOn || database_is_wanted())
		return true;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	switch (ExtensionLook(&worker.extension))
	{
		case EXTENSION_ABSENT:
			leave = true;
			break;
		case EXTENSION_OTHER_VERSION:
			report_other_version();
			leave = worker.has_run || is_idle();
			break;
		case EXTENSION_PRESENT:
			worker.is_foreign = false;
			worker.has_chore = WorkerGetChore()->run();
			leave = no_more_to_do();
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	return leave;
}

static bool
no_more_to_do(void)
{
	RunnerState state;

	if (worker.has_chore)
	{
		worker.last_work = GetCurrentTimestamp();
		return false;
	}
	if (!is_idle() && (worker.has_run || !WorkerIsOnlyIfNeeded()))
		return false;
	state = RunnerLook();
	/* one that follows another is here for what that had not done */
	if (!is_idle())
		return state == RUNNER_NONE || (WorkerDeaths() > 0 && state == RUNNER_DONE);
	if (state == RUNNER_OPEN)
		worker.last_work = GetCurrentTimestamp();
	return state != RUNNER_OPEN;
}

/* Once, and not when it was another one before: then somebody is just upgrading. */
static void
report_other_version(void)
{
	if (worker.is_foreign || worker.has_run)
		return;
	worker.is_foreign = true;
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("asynchronous projections of database \"%s\" are not run", get_database_name(MyDatabaseId)),
			 errdetail("The library is of version %s of cqrs_es, the extension is of another one.", CQRS_ES_VERSION),
			 errhint("Run ALTER EXTENSION cqrs_es UPDATE. Where the library is in shared_preload_libraries, restart the server.")));
}

static bool
is_idle(void)
{
	return WorkerIdleTime > 0 &&
		TimestampDifferenceExceeds(worker.last_work, GetCurrentTimestamp(), WorkerIdleTime * 1000);
}

/* Does somebody wait for the database to have no sessions, or have a lock to that end? */
static bool
database_is_wanted(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	return LockProbeIsTaken(&tag, RowExclusiveLock);
}

/*-------------------------------------------------------------------------
 * working and waiting
 *-------------------------------------------------------------------------
 */

/* As a client does with CALL run_projections(). */
static void
run_round(void)
{
	static const RunnerTransactions transactions = {.end = end_transaction,.leave = leave_round};

	worker.has_run = true;
	worker.began = worker.last_look = GetCurrentTimestamp();
	worker.handled = 0;
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, "CALL " CQRS_ES_SCHEMA ".run_projections()");
	StartTransactionCommand();
	MemoryContextSwitchTo(worker.memory);
	(void) RunnerRun(NIL, DT_NOEND, &transactions);
	CommitTransactionCommand();
	MemoryContextSwitchTo(TopMemoryContext);
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

static void
end_transaction(void)
{
	CommitTransactionCommand();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
}

/* Asked at each look of the runner, in its transaction: is it time to end the round? */
static bool
leave_round(int64 handled)
{
	TimestampTz now = GetCurrentTimestamp();
	Oid			extension;

	if (handled != worker.handled)
		worker.last_work = now;
	worker.handled = handled;
	if (WorkerGetChore()->is_due())
		return true;
	if (!TimestampDifferenceExceeds(worker.last_look, now, LOOK_MS))
		return false;
	worker.last_look = now;
	return TimestampDifferenceExceeds(worker.began, now, handled > 0 ? BUSY_ROUND_MS : IDLE_ROUND_MS) ||
		is_idle() || ConfigReloadPending || !WorkerHasPlace() || database_is_wanted() ||
		ExtensionLook(&extension) != EXTENSION_PRESENT || extension != worker.extension;
}

/* Wait, but not when there is a reason to leave. */
static void
nap(long ms)
{
	static uint32 wait_event = 0;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	long		left_ms;

	while (!ConfigReloadPending && !database_is_wanted() &&
		   (left_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until)) > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, Min(left_ms, LOOK_MS),
						 compat_wait_event(&wait_event, "CqrsEsWorker"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Roll back, say what it was unless that was said last time, and pause before the next
 * turn.  An error that comes of the extension being dropped is none.
 */
static void
after_error(void)
{
	ErrorData  *error;
	ExtensionState state;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(worker.memory);
	error = CopyErrorData();
	FlushErrorState();
	AbortOutOfAnyTransaction();

	/* a rollback has taken the place, but not if there was no transaction */
	LockReleaseSession(DEFAULT_LOCKMETHOD);
	worker.has_place = false;
	pgstat_report_activity(STATE_IDLE, NULL);
	RESUME_INTERRUPTS();

	StartTransactionCommand();
	state = ExtensionLook(&worker.extension);
	CommitTransactionCommand();
	if (state != EXTENSION_PRESENT)
		return;
	worker.pause_ms = Min(Max(worker.pause_ms * 2, FIRST_PAUSE_MS), LONGEST_PAUSE_MS);
	/* said before; to be met again it must keep from all work, not from one projection's */
	if (strncmp(worker.error, error->message, sizeof(worker.error) - 1) == 0)
		return;
	strlcpy(worker.error, error->message, sizeof(worker.error));
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("background worker of cqrs_es failed, and tries again: %s", error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0,
			 error->context ? errcontext("%s", error->context) : 0));
}
