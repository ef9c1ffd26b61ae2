/*-------------------------------------------------------------------------
 * launcher.c
 *	  Starts the workers of databases where nobody appends.
 *
 * A worker is started by who appends.  Where the library is in
 * shared_preload_libraries the server starts this process, too, when it has come up or
 * was promoted; it starts a worker in each database that may be connected to, one
 * after the other.  Those that find nothing to run end at once.
 *
 * Then it sleeps until the server stops: after a crash only a process is started again
 * that was there.
 *
 * Another one is for a database that a worker has left because somebody wanted to have
 * it alone.  In no database, and so in nobody's way, it waits for that lock in the
 * worker's stead; if the database is still there, it has a worker again, and this
 * process ends.  One that follows a worker that died does the same, after a pause, which
 * is short as long as it may be one event of which workers die, for that is found by
 * their deaths (batch.c); then it doubles.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "async/worker.h"

/* waits for a place for another worker: so long, looking so often */
#define PATIENCE_MS		60000
#define INTERVAL_MS		500

/* the pause after a death; from so many in a row on, twice as long as the one before */
#define PAUSE_MS		1000
#define SHORT_PAUSES	16
#define LONGEST_PAUSE_MS 60000

PGDLLEXPORT void cqrs_es_projection_launcher(Datum database);

static void pause_after_deaths(int deaths);
static List *databases(Oid database);
static void start(Oid database);
static void nap(long ms);

/* The process: for all databases, or for one. */
void
cqrs_es_projection_launcher(Datum arg)
{
	Oid			database = DatumGetObjectId(arg);
	ListCell   *lc;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(InvalidOid, InvalidOid, 0);
	if (OidIsValid(database))
	{
		pause_after_deaths(WorkerDeaths());
		StartTransactionCommand();
		LockSharedObject(DatabaseRelationId, database, 0, RowExclusiveLock);
		CommitTransactionCommand();
	}
	foreach(lc, databases(database))
		start(lfirst_oid(lc));
	while (!OidIsValid(database))
		nap(-1);
}

/* Workers that die one after the other are not to be a load for the server. */
static void
pause_after_deaths(int deaths)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until = now;

	if (deaths > 0)
		until = TimestampTzPlusMilliseconds(now, Min(PAUSE_MS * (INT64CONST(1) << Min(Max(deaths - SHORT_PAUSES, 0), 20)),
													 LONGEST_PAUSE_MS));
	while ((now = GetCurrentTimestamp()) < until)
		nap(TimestampDifferenceMilliseconds(now, until));
}

/* Sleep, until a time has passed (-1: for ever), or less. */
static void
nap(long ms)
{
	static uint32 wait_event = 0;

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (ms >= 0 ? WL_TIMEOUT : 0), ms,
					 compat_wait_event(&wait_event, "CqrsEsLauncher"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * The databases, or of one alone, that may be connected to.  (The list is for the
 * life of this process.)
 */
static List *
databases(Oid database)
{
	List	   *found = NIL;
	MemoryContext memory = CurrentMemoryContext;
	Relation	relation;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database row = (Form_pg_database) GETSTRUCT(tuple);

		if (row->datallowconn && row->datconnlimit != DATCONNLIMIT_INVALID_DB &&
			(!OidIsValid(database) || row->oid == database))
		{
			MemoryContext transaction = MemoryContextSwitchTo(memory);

			found = lappend_oid(found, row->oid);
			MemoryContextSwitchTo(transaction);
		}
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(memory);
	return found;
}

/* A worker for this database, as soon as there is a place; not when that takes long. */
static void
start(Oid database)
{
	TimestampTz give_up = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PATIENCE_MS);
	BackgroundWorkerHandle *handle;
	pid_t		pid;

	while (!WorkerStart(database, true, WorkerDeaths(), &handle))
	{
		/* it is the one place that the database had, so that takes others who are quick */
		if (GetCurrentTimestamp() >= give_up)
		{
			ereport(LOG,
					(errmsg("no place for a background worker of cqrs_es in database with OID %u", database),
					 errhint("Consider increasing the configuration parameter \"max_worker_processes\".")));
			return;
		}
		nap(INTERVAL_MS);
	}
	(void) WaitForBackgroundWorkerStartup(handle, &pid);
	pfree(handle);
}
