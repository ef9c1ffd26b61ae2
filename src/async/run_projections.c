/*-------------------------------------------------------------------------
 * run_projections.c
 *	  The procedures of asynchronous projections: run_projections, and
 *	  wait_for_projection for who wants to read what was just appended.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/clock.h"
#include "base/text.h"
#include "log/event_scan.h"
#include "log/event_wait.h"
#include "log/events.h"
#include "log/horizon.h"
#include "projection/projection.h"
#include "async/progress.h"
#include "async/runner.h"
#include "async/worker.h"

/* Who waits for what. */
typedef struct ProjectionWait
{
	ProgressWatch *watch;
	int64		position;
} ProjectionWait;

PG_FUNCTION_INFO_V1(cqrs_es_run_projections);
PG_FUNCTION_INFO_V1(cqrs_es_wait_for_projection);

static List *names_arg(FunctionCallInfo fcinfo);
static TimestampTz deadline_arg(FunctionCallInfo fcinfo, int n);
static Datum answer(FunctionCallInfo fcinfo, Datum value);
static bool look(void *arg, long *longest_ms);
static bool look_at_sync(const ProjectionWait *wait);
static void refuse(const ProjectionWait *wait, const char *what, const Progress *progress);

/* SQL: CALL run_projections(projections, timeout, handled) */
Datum
cqrs_es_run_projections(PG_FUNCTION_ARGS)
{
	static const RunnerTransactions transactions = {.end = EventWaitEndTransaction};
	List	   *names = names_arg(fcinfo);
	TimestampTz deadline = deadline_arg(fcinfo, 1);

	PreventCommandDuringRecovery("run_projections()");
	PreventCommandIfReadOnly("run_projections()");
	EventWaitBegin(fcinfo, "run_projections()");
	return answer(fcinfo, Int64GetDatum(RunnerRun(names, deadline, &transactions)));
}

/* Their names (text *); NIL: all.  2202E, 22004, 22023. */
static List *
names_arg(FunctionCallInfo fcinfo)
{
	List	   *names = NIL;
	ArrayType  *array;
	Datum	   *elements;
	int			n;
	int			i;

	if (PG_ARGISNULL(0))
		return NIL;
	array = PG_GETARG_ARRAYTYPE_P(0);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("projections must be a one-dimensional array")));
	if (array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("projections must not contain nulls")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &n);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("projections must not be empty"),
				 errhint("NULL stands for all of them.")));
	for (i = 0; i < n; i++)
	{
		NullableDatum element = {.value = elements[i]};

		names = lappend(names, TextArgument(element, "projection name", PROJECTION_NAME_MAX_BYTES));
	}
	return names;
}

/* How long to go on; NULL: without end. */
static TimestampTz
deadline_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? DT_NOEND : ClockAfter(PG_GETARG_INTERVAL_P(n));
}

/* The row of a procedure with one output parameter. */
static Datum
answer(FunctionCallInfo fcinfo, Datum value)
{
	TupleDesc	desc;
	bool		isnull = false;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "procedure without output parameters");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value, &isnull));
}

/*-------------------------------------------------------------------------
 * waiting
 *-------------------------------------------------------------------------
 */

/*
 * SQL: CALL wait_for_projection(name, global_position, timeout, reached).  Until the
 * projection has handled what is committed up to the position, but for other streams that
 * wait behind an event that failed.  42704; 22023 for a position of another node; 55000 when
 * it is paused, or has stopped, or the stream of the event there is blocked.
 */
Datum
cqrs_es_wait_for_projection(PG_FUNCTION_ARGS)
{
	text	   *name = TextArgument(fcinfo->args[0], "projection name", PROJECTION_NAME_MAX_BYTES);
	ProjectionWait wait = {.watch = ProgressWatchMake(name)};

	/* who may not read learns nothing, not even whether it is there */
	EventsRequireRights(ACL_SELECT);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("global_position must not be null")));
	wait.position = PG_GETARG_INT64(1);
	HorizonCheckPosition(wait.position);
	return answer(fcinfo, BoolGetDatum(EventWaitUntil(fcinfo, "wait_for_projection()", WAKEUP_PROJECTION,
													  deadline_arg(fcinfo, 2), look, &wait)));
}

static bool
look(void *arg, long *longest_ms)
{
	ProjectionWait *wait = arg;
	Progress	progress;

	EventsRequireRights(ACL_SELECT);
	ProgressWatchDeclared(wait->watch);
	if (wait->watch->projection == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("projection \"%s\" does not exist", text_to_cstring(wait->watch->name)),
				 errhint(PROJECTION_MISSING_HINT)));
	if (!wait->watch->projection->is_async)
		return look_at_sync(wait);
	progress = ProgressLook(wait->watch, wait->position);
	/* it may have another mode by now */
	if (!progress.is_there)
		return false;
	if (progress.paused)
		refuse(wait, "is paused", &progress);
	if (progress.stopped)
		refuse(wait, "has stopped", &progress);
	if (progress.blocked)
		refuse(wait, "cannot handle the event, whose stream is blocked", &progress);
	if (!progress.open && !progress.retried && !progress.unsettled)
		return true;
	WorkerWanted();
	return false;
}

/* One that handles events as they are appended has handled what is committed. */
static bool
look_at_sync(const ProjectionWait *wait)
{
	RoleSwitch	saved;
	LogSnapshot snapshot;
	EventScan  *scan;
	Event		event;
	bool		is_visible;

	if (wait->watch->projection->paused)
		refuse(wait, "is paused", NULL);
	saved = RoleSwitchToOwner("events");
	snapshot = EventsSnapshotTake(true);
	scan = EventScanLog(wait->position - 1, ForwardScanDirection, snapshot.snapshot);
	is_visible = EventScanNext(scan, &event) && EventGlobalPosition(&event) == wait->position;
	EventScanEnd(scan);
	EventsSnapshotRelease(snapshot);
	RoleSwitchBack(&saved);
	return is_visible || HorizonIsSettled(wait->position);
}

/* 55000; what the event's error says is for the owner of the projection. */
static void
refuse(const ProjectionWait *wait, const char *what, const Progress *progress)
{
	bool		tells = progress && progress->error &&
		has_privs_of_role(GetUserId(), wait->watch->projection->owner.role);

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("projection \"%s\" %s", text_to_cstring(wait->watch->name), what),
			 tells ? errdetail_internal("%s", progress->error) : 0,
			 errhint("See projection_status.")));
}
