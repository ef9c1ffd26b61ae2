/*-------------------------------------------------------------------------
 * event_wait.c
 *	  Procedures that wait for events, and hold nothing meanwhile.
 *
 * A statement that waits holds its snapshot, and for as long vacuum removes nothing
 * that was updated since: a hot row gets slow within seconds.  The relations it
 * looked at stay locked, too, and behind a waiting DROP or ALTER every append waits.
 * A procedure need not: it may end its transaction.  So the loop is: look; commit;
 * sleep in a new transaction, which has taken nothing but its virtual xid and the
 * registry's lock (wakeup.c).  Where a transaction cannot be ended, or what the caller
 * did in it would be committed unasked, it is refused.
 *
 * Before a sleep the last number drawn is compared with that from before the look.
 * If it has changed one looks again, for the latch may have been reset in the look: a
 * wait for a lock does that.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/extension.h"
#include "base/tenancy.h"
#include "base/wakeup.h"
#include "log/event_filter.h"
#include "log/event_wait.h"
#include "log/horizon.h"
#include "log/position.h"
#include "log/tenants.h"

/*
 * When so many numbers were drawn in each millisecond of the last RATE_MS, on
 * average, there are SHARED_MS between two looks for each of the others who wait, but
 * no more than BUSY_INTERVAL_MS.  Who gathers lets as many events come as make GATHER_MS
 * times that average, but not longer either.
 */
#define RATE_MS			20
#define BUSY_RATE		2.5
#define SHARED_MS		2
#define BUSY_INTERVAL_MS 10
#define GATHER_MS		4

/* A reader with a cursor of its own, waiting. */
typedef struct LogWait
{
	int64		after_position;
	int64		looked_to;		/* nothing for it up to here, ... */
	uint64		asked;			/* ... while this is what EventFilterAsk returns */
	bool		all_tenants;
	EventFilter filter;
} LogWait;

PG_FUNCTION_INFO_V1(cqrs_es_wait_for_events);
PG_FUNCTION_INFO_V1(cqrs_es_wait_until_settled);

static EventWaitSubscription wait_for_subscription = NULL;

static int64 last_number(void);
static bool look_into_log(void *arg, long *longest_ms);
static bool is_settled(void *arg, long *longest_ms);
static TimestampTz deadline_arg(FunctionCallInfo fcinfo, int n);
static void require_outside(FunctionCallInfo fcinfo, const char *procedure);
static void require_read_committed(const char *procedure);
static Datum answer(FunctionCallInfo fcinfo, bool value);

/*-------------------------------------------------------------------------
 * SQL
 *-------------------------------------------------------------------------
 */

/*
 * SQL: CALL wait_for_events(subscription, after_position, timeout, aggregate_types,
 * event_types, all_tenants, tags, ready).  Until the subscription has something to hand
 * out, or read_all, called with the same arguments, has: true; or time runs out:
 * false.
 */
Datum
cqrs_es_wait_for_events(PG_FUNCTION_ARGS)
{
	TimestampTz deadline = deadline_arg(fcinfo, 2);
	LogWait		wait = {.after_position = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1)};

	if (PG_ARGISNULL(0) == PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("wait_for_events() takes either subscription or after_position")));
	wait.all_tenants = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
	wait.filter.aggregate_types = EventFilterTexts(fcinfo->args[3], "aggregate_types");
	wait.filter.event_types = EventFilterTexts(fcinfo->args[4], "event_types");
	EventFilterSetTags(&wait.filter, fcinfo->args[6]);
	if (!PG_ARGISNULL(0))
	{
		if (!wait.filter.aggregate_types.all || !wait.filter.event_types.all ||
			wait.filter.ntags > 0 || wait.all_tenants)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a subscription has filters of its own"),
					 errhint("Filters are for waiting with after_position.")));
		return answer(fcinfo, wait_for_subscription(fcinfo, PG_GETARG_TEXT_PP(0), deadline));
	}
	HorizonCheckCursor(wait.after_position);
	return answer(fcinfo, EventWaitFor(fcinfo, "wait_for_events()", deadline,
									   look_into_log, &wait));
}

/*
 * SQL: CALL wait_until_settled(position, timeout, settled).  What wait_for_position()
 * does, holding nothing.
 */
Datum
cqrs_es_wait_until_settled(PG_FUNCTION_ARGS)
{
	TimestampTz deadline = deadline_arg(fcinfo, 1);
	int64		position = PG_GETARG_INT64(0);

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("global_position must not be null")));
	HorizonCheckPosition(position);
	return answer(fcinfo, EventWaitUntil(fcinfo, "wait_until_settled()", WAKEUP_SETTLED, deadline,
										 is_settled, &position));
}

/*-------------------------------------------------------------------------
 * the loop
 *-------------------------------------------------------------------------
 */

/* What wait_for_events does for a subscription; at Init. */
void
EventWaitSetSubscription(EventWaitSubscription wait)
{
	wait_for_subscription = wait;
}

/*
 * Look until that says true, or the deadline has passed: false.  In between nothing
 * is held but a virtual xid and the lock of who waits.
 *
 * `fcinfo` is the call of the procedure, `procedure` its name for messages, `reason` what
 * monitors are told that it waits for.  Ends the
 * transaction, several times: `arg` and what it points to must outlive that, as does
 * what the procedure was called with or has allocated.  Called outside of
 * SPI_connect.  What a look allocates is freed after it.  Raises 25001 where the
 * transaction cannot be ended or must not be, and above READ COMMITTED.
 */
bool
EventWaitUntil(FunctionCallInfo fcinfo, const char *procedure, WakeupReason reason,
			   TimestampTz deadline, EventWaitLook look, void *arg)
{
	Waiter		waiter = {.reason = reason,.session = true};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext work = AllocSetContextCreate(caller, "cqrs_es wait", ALLOCSET_DEFAULT_SIZES);
	bool		over;

	EventWaitBegin(fcinfo, procedure);
	WakeupEnter(&waiter);
	for (;;)
	{
		int64		number = last_number();
		long		longest_ms = HorizonLongestSleep(number);
		long		rest_ms = EventWaitRest(number, false);

		if (rest_ms > 0 && GetCurrentTimestamp() < deadline)
			WakeupRest(&waiter, rest_ms);
		PushActiveSnapshot(GetTransactionSnapshot());
		MemoryContextSwitchTo(work);
		over = look(arg, &longest_ms);
		MemoryContextSwitchTo(caller);
		PopActiveSnapshot();
		EventWaitEndTransaction();
		MemoryContextReset(work);
		if (over)
			break;
		if (last_number() != number)
			SetLatch(MyLatch);
		if (!WakeupSleep(&waiter, deadline, longest_ms))
			break;
	}
	WakeupLeave(&waiter);
	MemoryContextDelete(work);
	return over;
}

/* The same, waiting for events. */
bool
EventWaitFor(FunctionCallInfo fcinfo, const char *procedure, TimestampTz deadline,
			 EventWaitLook look, void *arg)
{
	return EventWaitUntil(fcinfo, procedure, WAKEUP_EVENTS, deadline, look, arg);
}

/*
 * What a procedure begins with that ends transactions while it runs: 25001 where the
 * transaction cannot be ended or must not be, and above READ COMMITTED.  Ends it.
 */
void
EventWaitBegin(FunctionCallInfo fcinfo, const char *procedure)
{
	require_read_committed(procedure);
	require_outside(fcinfo, procedure);
	EventWaitEndTransaction();
	require_read_committed(procedure);
}

/* Of the positions that were drawn; 42P01 when the extension was dropped meanwhile. */
static int64
last_number(void)
{
	(void) ExtensionRelid("events");
	return PositionLastNumber();
}

/*
 * Where thousands of events come in a second, every look would find some, and a few
 * who wait would leave no processor to those who append.  So how long to rest before
 * this one?  0 when little is going on, or nobody else waits.  Who pays for each time that it finds something,
 * however much that is, gathers, and rests from some hundreds in a second on.
 */
long
EventWaitRest(int64 number, bool gathers)
{
	static TimestampTz last_look = 0;
	static int64 last_number = 0;
	static double rate = 0;		/* numbers in a millisecond, as of late */
	TimestampTz now = GetCurrentTimestamp();
	double		ms = (now - last_look) / 1000.0;
	double		interval_ms;

	if (ms >= 0 && ms < RATE_MS && number >= last_number)
		rate = rate * (1 - ms / RATE_MS) + (double) (number - last_number) / RATE_MS;
	else
		rate = 0;
	last_look = now;
	last_number = number;
	if (gathers)
		interval_ms = Min(rate * GATHER_MS, BUSY_INTERVAL_MS);
	else
		interval_ms = rate > BUSY_RATE ? Min(WakeupOthers() * SHARED_MS, BUSY_INTERVAL_MS) : 0;
	return ms < interval_ms ? (long) (interval_ms - ms) : 0;
}

/* Would read_all hand out an event? */
static bool
look_into_log(void *arg, long *longest_ms)
{
	LogWait    *wait = arg;
	text	   *tenant_id = wait->all_tenants ? NULL : TenancyCurrent();
	HorizonScan walk;
	Event		event;
	uint64		asked;
	bool		found = false;

	EventsRequireRights(ACL_SELECT);
	if (wait->all_tenants)
		TenantsRequireAll();
	wait->filter.tenant_ids = (FilterTexts)
	{
		.all = wait->all_tenants,.n = 1,.texts = &tenant_id
	};
	/* tags that are defined now may be given to what was looked at */
	asked = EventFilterAsk(&wait->filter, wait->after_position);
	if (asked != wait->asked)
		wait->looked_to = 0;
	wait->asked = asked;
	HorizonScanBeginFiltered(&walk, Max(wait->after_position, wait->looked_to), 0, &wait->filter);
	while (!found && HorizonScanNext(&walk, &event))
		found = EventFilterMatches(&wait->filter, &event);
	*longest_ms = Min(*longest_ms, HorizonLongestSleep(walk.number));
	HorizonScanEnd(&walk);
	EventFilterConfirm(&wait->filter, wait->after_position, asked);
	wait->looked_to = walk.position;
	return found;
}

static bool
is_settled(void *arg, long *longest_ms)
{
	int64		position = *(int64 *) arg;

	EventsRequireRights(ACL_SELECT);
	*longest_ms = Min(*longest_ms, HorizonLongestSleep(POSITION_NUMBER(position) - 1));
	return HorizonIsSettled(position);
}

/* How long to wait; NULL: without limit. */
static TimestampTz
deadline_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? DT_NOEND : ClockAfter(PG_GETARG_INTERVAL_P(n));
}

/* 25001 where the transaction cannot be ended, or what it has done would be committed. */
static void
require_outside(FunctionCallInfo fcinfo, const char *procedure)
{
	CallContext *call = (CallContext *) fcinfo->context;

	if (call == NULL || !IsA(call, CallContext) || call->atomic || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot be called in a transaction block", procedure),
				 errdetail("While it waits, it must hold no snapshot and no locks, so it ends the transaction."),
				 errhint("Call it by itself: with autocommit, as the only statement of its message, in no function and no block with EXCEPTION.")));
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot be called after changes in the same transaction", procedure),
				 errdetail("It ends the transaction, which would commit them."),
				 errhint("COMMIT first.")));
}

static void
require_read_committed(const char *procedure)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s needs READ COMMITTED", procedure),
				 errhint("default_transaction_isolation says what a transaction without a block has.")));
}

/* In a procedure: commit, which lets go of snapshots and locks, and begin anew. */
void
EventWaitEndTransaction(void)
{
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	SPI_commit();
	SPI_finish();
}

/* The row of a procedure with one output parameter. */
static Datum
answer(FunctionCallInfo fcinfo, bool value)
{
	TupleDesc	desc;
	Datum		datum = BoolGetDatum(value);
	bool		isnull = false;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "procedure without output parameters");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &datum, &isnull));
}
