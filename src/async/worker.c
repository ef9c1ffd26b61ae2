/*-------------------------------------------------------------------------
 * worker.c
 *	  One background worker in a database, and who starts it.
 *
 * Asynchronous projections are run by whoever calls run_projections(), and by a
 * background worker, so that nobody has to.  Nothing is preloaded for that: a
 * transaction that leaves something to do (WorkerWanted) looks, when it has ended,
 * whether the database has a worker, and if not, has the postmaster start one.
 * (What it does is in worker_process.c.)
 *
 * After the end, not before: a worker that is quicker than the commit would find
 * nothing.  By then what was written is visible.  A worker that leaves first
 * gives up its place and then looks once more: either it sees what was written, or
 * its place was seen to be free.
 *
 * A start may fail, for want of a place among the server's background processes.  And
 * a worker that was started may be ended by somebody before it has done anything.  So
 * a session that wanted one looks again at the end of each of its transactions until
 * it has seen one; it starts one every few seconds at most.  None of this is an error
 * for anybody.
 *
 * A worker that does not end by itself, since somebody has ended it, or a handler has,
 * leaves a launcher behind, which starts another one after a while: it may have had
 * work in hand, for which nobody would come otherwise.  When one after the other dies,
 * that becomes longer, so a launcher and a worker know how many it were in a row.
 *
 * A prepared transaction ends in a session that knows nothing of it.  So PREPARE looks
 * as well, and a worker stays as long as any transaction that has appended is open.
 *
 * The worker's place is a tag in the server's lock table, on which it holds two locks:
 *
 *	ShareUpdateExclusiveLock	who has this is the worker; it never waits for it
 *	ShareLock					conflicts with RowExclusiveLock, by which sessions look
 *
 * A session that looks holds its lock for a moment only, and so makes no other worker
 * wrongly believe that there is one.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_database_d.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/error_trap.h"
#include "base/extension.h"
#include "base/lock_probe.h"
#include "base/setting.h"
#include "subscription/feed.h"
#include "async/async_projection.h"
#include "async/worker.h"

/* a session starts one so often at most */
#define START_INTERVAL_MS	5000

/* a launcher that has failed is started again after so many seconds */
#define LAUNCH_AGAIN_S		5

bool		WorkerIsOn = true;
int			WorkerIdleTime = 60;

/* this process is the worker */
static bool is_worker = false;

/* the current transaction leaves something for a worker */
static bool wanted = false;

/* an earlier one has, and none was seen since */
static bool missed = false;
static TimestampTz last_start = 0;

static const WorkerChore *chore = NULL;

static void at_transaction_end(XactEvent event, void *arg);
static void start_if_absent(void);
static bool is_there(void);
static LOCKTAG place_tag(void);
static void describe(BackgroundWorker * process, const char *kind, Oid database, int deaths);

/* Settings, what happens at the end of transactions, and the launcher where we are preloaded. */
void
WorkerInit(void)
{
	SettingDefineBool("cqrs_es.projection_worker",
					  "Starts a background worker when there is something to do for asynchronous projections.",
					  "Where it is off, somebody must call run_projections().",
					  &WorkerIsOn, true, PGC_SUSET, 0);
	SettingDefineInt("cqrs_es.projection_worker_idle_time",
					 "How long a background worker stays when there is nothing to do.",
					 "0: until the server stops.",
					 &WorkerIdleTime, 60, 0, INT_MAX / 1000, PGC_SUSET, GUC_UNIT_S);
	AsyncProjectionSetAppended(WorkerWanted);
	FeedSetWanted(WorkerWanted);
	RegisterXactCallback(at_transaction_end, NULL);
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		BackgroundWorker launcher;

		describe(&launcher, "launcher", InvalidOid, 0);
		launcher.bgw_restart_time = LAUNCH_AGAIN_S;
		RegisterBackgroundWorker(&launcher);
	}
}

/*
 * There is something for a worker when the current transaction has committed, or has
 * been prepared.  Cheap; raises nothing.
 */
void
WorkerWanted(void)
{
	wanted = !is_worker;
}

/* At Init. */
void
WorkerSetChore(const WorkerChore *set)
{
	chore = set;
}

const WorkerChore *
WorkerGetChore(void)
{
	return chore;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			missed |= wanted;
			wanted = false;
			if (missed)
				ErrorTrap(start_if_absent);
			break;
		case XACT_EVENT_ABORT:
			wanted = false;
			break;
		default:
			break;
	}
}

static void
start_if_absent(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!WorkerIsOn || RecoveryInProgress() || IsBinaryUpgrade || is_there())
		missed = false;
	else if (TimestampDifferenceExceeds(last_start, now, START_INTERVAL_MS))
	{
		last_start = now;
		if (!WorkerStart(MyDatabaseId, false, 0, NULL))
			ereport(DEBUG1,
					(errmsg_internal("no place for a background worker of cqrs_es")));
	}
}

/*-------------------------------------------------------------------------
 * its place
 *-------------------------------------------------------------------------
 */

/*
 * Become the worker of this database: false when there is one.  In a transaction; the
 * place is kept over its end, but not over that of one that is rolled back.  Waits for
 * those who are just looking.
 */
bool
WorkerClaim(void)
{
	LOCKTAG		tag = place_tag();

	is_worker = true;
	if (compat_try_lock(&tag, ShareUpdateExclusiveLock, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	(void) LockAcquire(&tag, ShareLock, true, false);
	return true;
}

/* Has this process still what WorkerClaim took?  A rollback would have given it up. */
bool
WorkerHasPlace(void)
{
	LOCKTAG		tag = place_tag();
	LockAcquireResult result = compat_try_lock(&tag, ShareUpdateExclusiveLock, true);

	if (result != LOCKACQUIRE_NOT_AVAIL)
		(void) LockRelease(&tag, ShareUpdateExclusiveLock, true);
	return result == LOCKACQUIRE_ALREADY_HELD || result == LOCKACQUIRE_ALREADY_CLEAR;
}

/* Give up what WorkerClaim took. */
void
WorkerRelease(void)
{
	LOCKTAG		tag = place_tag();

	(void) LockRelease(&tag, ShareLock, true);
	(void) LockRelease(&tag, ShareUpdateExclusiveLock, true);
}

/* Has the database a worker?  (Or is the lock table full: then this is not the time to start one.) */
static bool
is_there(void)
{
	LOCKTAG		tag = place_tag();

	return LockProbeIsTaken(&tag, RowExclusiveLock);
}

/* Not that of the database itself, which is an object of no database. */
static LOCKTAG
place_tag(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, DatabaseRelationId, MyDatabaseId, 0);
	return tag;
}

/*-------------------------------------------------------------------------
 * processes
 *-------------------------------------------------------------------------
 */

/*
 * Have a worker started in a database, one that ends at once when there is no
 * projection to run, if so wished; so many died in front of it.  False when the server has
 * no place for it.  With a handle, in the current memory context, this process is told of
 * the start.  It may be called after a commit: without a handle it allocates nothing.
 */
bool
WorkerStart(Oid database, bool only_if_needed, int deaths, BackgroundWorkerHandle * *handle)
{
	BackgroundWorker worker;

	describe(&worker, "worker", database, deaths);
	worker.bgw_extra[0] = only_if_needed;
	worker.bgw_notify_pid = handle ? MyProcPid : 0;
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

/* Was this worker started with only_if_needed? */
bool
WorkerIsOnlyIfNeeded(void)
{
	return MyBgworkerEntry->bgw_extra[0];
}

/* How many workers died in a row, before this process? */
int
WorkerDeaths(void)
{
	return (unsigned char) MyBgworkerEntry->bgw_extra[1];
}

/*
 * Have a worker started in a database, if it is still there, as soon as nobody has it alone;
 * after a while, when so many died in a row.  Without a lock or a transaction.
 */
void
WorkerLaunchLater(Oid database, int deaths)
{
	BackgroundWorker launcher;

	describe(&launcher, "launcher", database, deaths);
	(void) RegisterDynamicBackgroundWorker(&launcher, NULL);
}

/* A process of a kind, for a database or for all. */
static void
describe(BackgroundWorker * process, const char *kind, Oid database, int deaths)
{
	memset(process, 0, sizeof(*process));
	process->bgw_extra[1] = (char) Min(deaths, UCHAR_MAX);
	snprintf(process->bgw_type, BGW_MAXLEN, CQRS_ES_SCHEMA " projection %s", kind);
	if (OidIsValid(database))
		snprintf(process->bgw_name, BGW_MAXLEN, CQRS_ES_SCHEMA " projection %s for database %u", kind, database);
	else
		strcpy(process->bgw_name, process->bgw_type);
	process->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	process->bgw_start_time = BgWorkerStart_RecoveryFinished;
	process->bgw_restart_time = BGW_NEVER_RESTART;
	strcpy(process->bgw_library_name, CQRS_ES_SCHEMA);
	snprintf(process->bgw_function_name, BGW_MAXLEN, CQRS_ES_SCHEMA "_projection_%s", kind);
	process->bgw_main_arg = ObjectIdGetDatum(database);
}
