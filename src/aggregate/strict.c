/*-------------------------------------------------------------------------
 * strict.c
 *	  Events that the reducers of an aggregate cannot take: refused, or found.
 *
 * The log takes any event, and one that the reducers cannot apply poisons its
 * stream: from then on there is no state, and no command.  A strict aggregate type
 * refuses it (QE103) on every path: an event type without a reducer, since merging
 * would make a mistyped one change the state; a version that upcasters lift, since an
 * append that names none gets version 1 whatever its shape, or that they do not know; and whatever makes the fold
 * up to it fail.
 *
 * A guard of the log (dispatch.c) folds the events when they are in the log and
 * nobody has been told of them.  So those of one append are folded in their order,
 * each on what the ones before it made.  What the last fold of the transaction came
 * to is kept: many rows of one stream, that come one by one, are folded once.  It is
 * forgotten when a subtransaction is undone, which may have appended some of it.
 *
 * The judgement is that of the declarations which the append sees.  Reducers may be
 * changed at any time, in a session beside it as well as later; and restored and
 * replicated events are not looked at, for they are in a log already.  What is
 * poisoned for such reasons poisoned_streams() finds.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/internal_query.h"
#include "base/registry.h"
#include "base/registry_function.h"
#include "base/stream_key.h"
#include "base/subtransaction.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/dispatch.h"
#include "log/event_error.h"
#include "log/events.h"
#include "log/reserved_type.h"
#include "log/upcast.h"
#include "aggregate/fold.h"
#include "aggregate/reducer.h"
#include "aggregate/strict.h"

/* streams looked at between two fetches */
#define STREAMS_AT_ONCE 1000

/* What the last fold of this transaction came to. */
typedef struct LastFold
{
	MemoryContext memory;		/* of all of it; NULL: nothing is known */
	StreamKey	key;
	bytea	   *fingerprint;
	FoldedState folded;
} LastFold;

/* What fails, and how: refused events in hand, the fold that was tried. */
typedef struct Attempt
{
	const StreamKey *key;
	const Event *events;
	int			nevents;
	FoldWatch	watch;
} Attempt;

static LastFold last;

PG_FUNCTION_INFO_V1(cqrs_es_poisoned_streams);

static void refuse_poison(const Event *events, int nevents);
static void check_event(Aggregate *aggregate, const StreamKey *key, const Event *event);
static void apply(Aggregate *aggregate, Attempt *attempt);
static bool last_leads_to(const Aggregate *aggregate, const Attempt *attempt);
static void keep_last(const Aggregate *aggregate, const StreamKey *key, const FoldedState *folded);
static void forget_last(void);
pg_noreturn static void report_unfit(const Attempt *attempt, const ErrorData *error);
static void at_transaction_end(XactEvent event, void *arg);
static void at_subtransaction_end(SubXactEvent event, SubTransactionId id,
								  SubTransactionId parent, void *arg);
static ErrorData *try_fold(Aggregate *aggregate, const StreamKey *key, FoldWatch *watch);
static void put_poisoned(ReturnSetInfo *result, const StreamKey *key, const FoldWatch *watch,
						 const ErrorData *error);

void
StrictInit(void)
{
	DispatchRegisterGuard(refuse_poison);
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/*-------------------------------------------------------------------------
 * refused
 *-------------------------------------------------------------------------
 */

/* QE103, with stream, sequence and event type in fields of their own for programs. */
#define refuse(key, sequence, event_type, ...) \
	ereport(ERROR, \
			(errcode(ERRCODE_STRICT_AGGREGATE), \
			 errmsg("event %lld (%s) cannot be appended to stream \"%s\"", \
					(long long) (sequence), (event_type), StreamKeyName(key)), \
			 EventErrorFields(key, psprintf("%lld", (long long) (sequence)), (event_type)), \
			 __VA_ARGS__))

/* The guard: what has just been appended, to one stream. */
static void
refuse_poison(const Event *events, int nevents)
{
	StreamKey	key;
	Aggregate  *aggregate;
	int			i;

	RegistryEnter();
	EventKey(&events[0], &key);
	aggregate = AggregateGet(key.aggregate_type);
	/* those of the extension come alone, and change nothing */
	if (aggregate != NULL && aggregate->strict &&
		!ReservedTypeIs(EventText(&events[0], EVENT_EVENT_TYPE)))
	{
		Attempt		attempt = {.key = &key,.events = events,.nevents = nevents};
		MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es strict",
												   ALLOCSET_DEFAULT_SIZES);
		MemoryContext caller = MemoryContextSwitchTo(work);

		for (i = 0; i < nevents; i++)
			check_event(aggregate, &key, &events[i]);
		apply(aggregate, &attempt);
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(work);
	}
	RegistryLeave();
}

/* Its type is declared, and its version the newest. */
static void
check_event(Aggregate *aggregate, const StreamKey *key, const Event *event)
{
	text	   *event_type = EventText(event, EVENT_EVENT_TYPE);
	text	   *version = EventText(event, EVENT_EVENT_VERSION);
	text	   *newest = UpcastNewest(event_type, version);
	text	   *known = UpcastUnknown(event_type, version);

	if (ReducerFind(&aggregate->rules, event_type) == NULL)
		refuse(key, EventSequence(event), text_to_cstring(event_type),
			   errdetail("Aggregate type \"%s\" is strict, and has no reducer for event type \"%s\".",
						 text_to_cstring(key->aggregate_type), text_to_cstring(event_type)),
			   errhint("Is it mistyped? An event type that changes nothing is declared with the operations '[]'."));
	if (known != NULL)
		refuse(key, EventSequence(event), text_to_cstring(event_type),
			   errdetail("Its version \"%s\" is none that upcasters of this event type know.",
						 text_to_cstring(version)),
			   errhint("Is it mistyped? The newest one is '%s'. Define the upcaster to a newer one first.",
					   text_to_cstring(known)));
	if (!TextEqual(newest, version))
		refuse(key, EventSequence(event), text_to_cstring(event_type),
			   errdetail("Its version \"%s\" is an old one, which upcasters lift.",
						 text_to_cstring(version)),
			   errhint("Append it in its newest shape, with that version: event_version => '%s', or the member \"version\".",
					   text_to_cstring(newest)));
}

/* Fold the stream up to the last of the events, or refuse them. */
static void
apply(Aggregate *aggregate, Attempt *attempt)
{
	MemoryContext caller = CurrentMemoryContext;
	uint64		denials = RegistryFunctionDenials();
	FoldedState folded;

	PG_TRY();
	{
		if (last_leads_to(aggregate, attempt))
		{
			folded = last.folded;
			FoldMore(&folded, aggregate, attempt->key, attempt->events, attempt->nevents,
					 &attempt->watch);
		}
		else
			folded = FoldWholeStream(aggregate, attempt->key,
									 EventSequence(&attempt->events[attempt->nevents - 1]),
									 &attempt->watch);
		keep_last(aggregate, attempt->key, &folded);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		/* that the role may not call the reducer is no fault of the event */
		if (ErrorIsNotUsers(error->sqlerrcode) || RegistryFunctionDenials() != denials ||
			attempt->watch.sequence == 0)
			PG_RE_THROW();
		FlushErrorState();
		report_unfit(attempt, error);
	}
	PG_END_TRY();
}

/* Is what is kept the state in front of the events? */
static bool
last_leads_to(const Aggregate *aggregate, const Attempt *attempt)
{
	return last.memory != NULL &&
		last.folded.version == EventSequence(&attempt->events[0]) - 1 &&
		StreamKeyEqual(&last.key, attempt->key) &&
		TextEqual((const text *) last.fingerprint, (const text *) aggregate->rules.fingerprint);
}

/* Keep a copy of what a fold came to. */
static void
keep_last(const Aggregate *aggregate, const StreamKey *key, const FoldedState *folded)
{
	MemoryContext memory = AllocSetContextCreate(TopTransactionContext, "cqrs_es last strict fold",
												 ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(memory);
	LastFold	fresh = {.memory = memory,.folded = *folded};

	fresh.key.aggregate_type = (text *) DatumGetTextPCopy(PointerGetDatum(key->aggregate_type));
	fresh.key.aggregate_id = (text *) DatumGetTextPCopy(PointerGetDatum(key->aggregate_id));
	fresh.key.tenant_id = (text *) DatumGetTextPCopy(PointerGetDatum(key->tenant_id));
	fresh.fingerprint = DatumGetByteaPCopy(PointerGetDatum(aggregate->rules.fingerprint));
	fresh.folded.state = (Jsonb *) memcpy(palloc(VARSIZE(folded->state)), folded->state,
										  VARSIZE(folded->state));
	MemoryContextSwitchTo(caller);
	forget_last();
	last = fresh;
}

static void
forget_last(void)
{
	if (last.memory != NULL)
		MemoryContextDelete(last.memory);
	last.memory = NULL;
}

/* The fold failed at one of the events, or at one that was in the stream before. */
static void
report_unfit(const Attempt *attempt, const ErrorData *error)
{
	int64		first = EventSequence(&attempt->events[0]);
	const char *why = psprintf(error->detail ? "%s (SQLSTATE %s)\n%s" : "%s (SQLSTATE %s)",
							   error->message, unpack_sql_state(error->sqlerrcode), error->detail);

	if (attempt->watch.sequence >= first)
		refuse(attempt->key, attempt->watch.sequence, attempt->watch.event_type,
			   errdetail("Its reducer cannot apply it: %s", why));
	if (EventsRowSecurity())
		refuse(attempt->key, first,
			   text_to_cstring(EventText(&attempt->events[0], EVENT_EVENT_TYPE)),
			   errdetail("An event of the stream that row security of the log may hide cannot be applied."));
	refuse(attempt->key, first,
		   text_to_cstring(EventText(&attempt->events[0], EVENT_EVENT_TYPE)),
		   errdetail("Event %lld (%s) of the stream cannot be applied: %s",
					 (long long) attempt->watch.sequence, attempt->watch.event_type, why),
		   errhint("Define a reducer or an upcaster that takes the old event. cqrs_es.poisoned_streams() finds all such streams."));
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	/* its memory goes with the transaction */
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		last.memory = NULL;
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId id,
					  SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		forget_last();
}

/*-------------------------------------------------------------------------
 * found
 *-------------------------------------------------------------------------
 */

/*
 * SQL: poisoned_streams(aggregate_type).  Of the current tenant's streams of this
 * declared type, or of all that are declared, those that have no state, each with the
 * first event that cannot be applied.  Folds each stream, from its newest snapshot.
 */
Datum
cqrs_es_poisoned_streams(PG_FUNCTION_ARGS)
{
	static InternalQuery query = {
		.sql = "SELECT DISTINCT aggregate_type, aggregate_id FROM cqrs_es.events"
		" WHERE tenant_id OPERATOR(pg_catalog.=) $1"
		" AND ($2 IS NULL OR aggregate_type OPERATOR(pg_catalog.=) $2)"
		" ORDER BY aggregate_type, aggregate_id",
		.nargs = 2,.argtypes = {TEXTOID, TEXTOID}
	};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	StreamKey	key = {.tenant_id = TenancyCurrent()};
	Datum		values[2] = {PointerGetDatum(key.tenant_id), (Datum) 0};
	MemoryContext work;
	Portal		portal;

	EventsRequireRights(ACL_SELECT);
	if (!PG_ARGISNULL(0))
	{
		values[1] = PointerGetDatum(TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES));
		(void) AggregateRequire(DatumGetTextPP(values[1]));
	}
	InitMaterializedSRF(fcinfo, 0);
	work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es poisoned streams",
								 ALLOCSET_DEFAULT_SIZES);
	SPI_connect();
	portal = SPI_cursor_open(NULL, InternalQueryPlan(&query), values,
							 PG_ARGISNULL(0) ? " n" : "  ", true);
	do
	{
		SPITupleTable *rows;
		uint64		i;

		SPI_cursor_fetch(portal, true, STREAMS_AT_ONCE);
		rows = SPI_tuptable;
		for (i = 0; i < rows->numvals; i++)
		{
			MemoryContext spi = MemoryContextSwitchTo(work);
			QueryRow	row = {rows->vals[i], rows->tupdesc};
			Aggregate  *aggregate;
			ErrorData  *error;
			FoldWatch	watch = {0};

			CHECK_FOR_INTERRUPTS();
			RegistryEnter();
			key.aggregate_type = DatumGetTextPP(InternalQueryDatum(&row, "aggregate_type", NULL));
			key.aggregate_id = DatumGetTextPP(InternalQueryDatum(&row, "aggregate_id", NULL));
			aggregate = AggregateGet(key.aggregate_type);
			error = aggregate == NULL ? NULL : try_fold(aggregate, &key, &watch);
			if (error != NULL)
				put_poisoned(result, &key, &watch, error);
			RegistryLeave();
			MemoryContextSwitchTo(spi);
			MemoryContextReset(work);
		}
		SPI_freetuptable(rows);
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
	SPI_finish();
	return (Datum) 0;
}

/*
 * The error with which a fold of what the caller may see of the stream fails, or NULL; also
 * where that is not all of it.  What is not of users is thrown, and so is that they may not
 * call a function (42501).
 */
static ErrorData *
try_fold(Aggregate *aggregate, const StreamKey *key, FoldWatch *watch)
{
	Subtransaction subtransaction;
	ErrorData  *volatile error = NULL;
	uint64		denials = RegistryFunctionDenials();

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		(void) FoldStreamWatched(aggregate, key, PG_INT64_MAX, watch);
		SubtransactionEnd(&subtransaction, true);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();
	if (error != NULL && (ErrorIsNotUsers(error->sqlerrcode) || RegistryFunctionDenials() != denials))
		ReThrowError(error);
	if (error != NULL && error->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE && EventsRowSecurity())
		return NULL;
	return error;
}

static void
put_poisoned(ReturnSetInfo *result, const StreamKey *key, const FoldWatch *watch,
			 const ErrorData *error)
{
	Datum		values[8];
	bool		nulls[8] = {false};

	values[0] = PointerGetDatum(key->aggregate_type);
	values[1] = PointerGetDatum(key->aggregate_id);
	values[2] = Int64GetDatum(watch->sequence);
	values[3] = Int64GetDatum(watch->global_position);
	values[4] = CStringGetTextDatum(watch->event_type);
	values[5] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	values[6] = CStringGetTextDatum(error->message);
	nulls[7] = error->detail == NULL;
	values[7] = nulls[7] ? (Datum) 0 : CStringGetTextDatum(error->detail);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}
