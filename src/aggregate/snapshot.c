/*-------------------------------------------------------------------------
 * snapshot.c
 *	  When a snapshot is taken: whenever one is due, and on request.
 *
 * Snapshots are taken in the appending transaction: every event whose sequence
 * is a multiple of the aggregate's snapshot_every folds the stream up to
 * itself (fold.c) and saves the result (snapshot_store.c).  They commit or roll
 * back with the event, so a snapshot never speaks of events that are not there.  A
 * reducer that fails leaves no snapshot, and a warning.
 *
 * A snapshot is of what is committed, also where the transaction's own snapshot is older, and
 * whoever is about to save one holds a lock of their table from before he reads the log
 * (SnapshotStoreBegin): for those who change events below the triggers, and delete what was there before.
 *
 * Where the reducers have changed since, or somebody has deleted it, the newest snapshot is of no
 * use, and whoever needs the state reads what may be a very long stream.  Who then appends
 * leaves it to others as a snapshot, due or not (SnapshotOfLongFold).
 *
 * Each snapshot of a stream that a transaction takes leaves the row of the one before, which nobody
 * can clean up before that transaction ends, and meets all of them.  So where it takes many it takes
 * fewer and fewer: after MANY of them every second one that is due, after twice as many every third, and
 * so on.  Of n events it takes some multiple of the root of n, so what they meet altogether grows as n does.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/definer.h"
#include "base/errors.h"
#include "base/extension.h"
#include "base/registry.h"
#include "base/stream_key.h"
#include "base/subtransaction.h"
#include "base/tenancy.h"
#include "log/dispatch.h"
#include "log/event_scan.h"
#include "log/events.h"
#include "log/redaction.h"
#include "aggregate/fold.h"
#include "aggregate/snapshot.h"
#include "aggregate/snapshot_store.h"

PG_FUNCTION_INFO_V1(cqrs_es_take_snapshot);

#define MANY 256

/*
 * How many snapshots of a stream this transaction has taken; of those with one hash together, so
 * there may be fewer snapshots than need be.
 */
#define TAKEN_SLOTS 1024
static uint16 taken[TAKEN_SLOTS];
static bool any_taken = false;

static void snapshot_if_due(const Event *event);
static bool is_due(const Aggregate *aggregate, const Event *event);
static uint16 *taken_of(const StreamKey *key);
static void count_taken(const StreamKey *key);
static void at_transaction_end(XactEvent event, void *arg);
static bool try_fold(Aggregate *aggregate, const StreamKey *key, int64 sequence,
					 FoldedState *folded);
static bool save(const StreamKey *key, const Aggregate *aggregate, const FoldedState *folded);

void
SnapshotInit(void)
{
	DispatchRegister(snapshot_if_due);
	RegisterXactCallback(at_transaction_end, NULL);
}

/*
 * SQL: take_snapshot(aggregate_type, aggregate_id).  Saves the state as of now
 * and returns the version it stands for, 0 when the stream has no events (then
 * nothing is saved).  Nor is it above READ COMMITTED, when something has been redacted that
 * the transaction does not see.
 */
Datum
cqrs_es_take_snapshot(PG_FUNCTION_ARGS)
{
	StreamKey	key;
	Aggregate  *aggregate;
	FoldedState folded;

	if (RecoveryInProgress())
		PreventCommandDuringRecovery("take_snapshot()");
	PreventCommandIfReadOnly("take_snapshot()");
	EventsCheckRights(ACL_INSERT);
	RedactionKeepOut();
	RegistryEnter();
	aggregate = FoldStreamArgs(fcinfo, &key);
	SnapshotStoreBegin();
	folded = FoldStream(aggregate, &key, PG_INT64_MAX);
	/* up to there, as it is now */
	if (folded.version > 0 && IsolationUsesXactSnapshot())
		folded = FoldStreamNewest(aggregate, &key, folded.version);
	if (folded.version > 0 && !RedactionMissed())
		(void) save(&key, aggregate, &folded);
	RegistryLeave();
	PG_RETURN_INT64(folded.version);
}

/*
 * The observer: save a snapshot when the event is one that is due, and not one
 * that later events of the same append would push out again.
 */
static void
snapshot_if_due(const Event *event)
{
	StreamKey	key;
	Aggregate  *aggregate;
	MemoryContext work;
	MemoryContext caller;
	FoldedState folded;

	RegistryEnter();
	EventKey(event, &key);
	aggregate = AggregateGet(key.aggregate_type);
	if (!is_due(aggregate, event) ||
		EventSequence(event) / aggregate->snapshot_every % (1 + *taken_of(&key) / MANY) != 0)
	{
		RegistryLeave();
		return;
	}

	work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es snapshot", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(work);
	SnapshotStoreBegin();
	if (try_fold(aggregate, &key, EventSequence(event), &folded))
		(void) save(&key, aggregate, &folded);
	count_taken(&key);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(work);
	RegistryLeave();
}

/*
 * Save the state that a transaction has come to with its own append, and that so many events
 * were read for, if there should have been a snapshot before those.  Nobody else has one of that
 * version, for whose end one would have to wait.  It was folded on from `origin`, and is saved if it
 * would be the same today; where events are not in the log `as_sent`, it is folded from there.
 */
void
SnapshotOfLongFold(const StreamKey *key, Aggregate *aggregate, const FoldedState *folded,
				   const StateOrigin *origin, bool as_sent, int64 nread)
{
	FoldedState logged = *folded;

	if (aggregate->snapshot_every == 0 ||
		nread / aggregate->snapshot_every < 1 + *taken_of(key) / MANY)
		return;
	SnapshotStoreBegin();
	if (StateCacheIsCurrent(origin) &&
		(as_sent || try_fold(aggregate, key, folded->version, &logged)) &&
		save(key, aggregate, &logged))
		count_taken(key);
}

static bool
is_due(const Aggregate *aggregate, const Event *event)
{
	int64		sequence = EventSequence(event);
	int64		later;

	if (aggregate == NULL || aggregate->snapshot_every == 0 ||
		sequence % aggregate->snapshot_every != 0)
		return false;
	later = event->append_version / aggregate->snapshot_every - sequence / aggregate->snapshot_every;
	return later < aggregate->keep_snapshots;
}

static uint16 *
taken_of(const StreamKey *key)
{
	const text *parts[] = {key->aggregate_type, key->aggregate_id, key->tenant_id};
	uint32		hash = 0;
	size_t		i;

	for (i = 0; i < lengthof(parts); i++)
		hash = hash_combine(hash, hash_bytes((const unsigned char *) VARDATA_ANY(parts[i]),
											 VARSIZE_ANY_EXHDR(parts[i])));
	return &taken[hash % TAKEN_SLOTS];
}

static void
count_taken(const StreamKey *key)
{
	uint16	   *n = taken_of(key);

	*n = Min(*n + 1, PG_UINT16_MAX);
	any_taken = true;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (!any_taken || event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE ||
		event == XACT_EVENT_PARALLEL_PRE_COMMIT)
		return;
	memset(taken, 0, sizeof(taken));
	any_taken = false;
}

/*
 * Fold for a snapshot.  A reducer that fails must not keep facts out of the log,
 * so its error becomes a warning and there is no snapshot; whoever asks for the
 * state will get the error.  What is not the reducer's fault is thrown on.
 */
static bool
try_fold(Aggregate *aggregate, const StreamKey *key, int64 sequence, FoldedState *folded)
{
	Subtransaction subtransaction;
	ErrorData  *volatile error = NULL;
	const char *detail;

	SubtransactionBegin(&subtransaction);
	PG_TRY();
	{
		*folded = FoldStreamNewest(aggregate, key, sequence);
		SubtransactionEnd(&subtransaction, true);
	}
	PG_CATCH();
	{
		error = SubtransactionCatch(&subtransaction);
	}
	PG_END_TRY();
	if (error == NULL)
		return true;
	if (ErrorIsNotUsers(error->sqlerrcode))
		ReThrowError(error);
	detail = DispatchMaySee(GetUserId()) ? error->detail : DefinerDetail(error);
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("no snapshot of stream \"%s\" was taken: %s", StreamKeyName(key), error->message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
	return false;
}

/*
 * Save a state; not (false) when declarations changed while it was folded: it may then be
 * a mixture, which no fingerprint stands for.  Nor of a stream that has been deleted, which has none.
 */
static bool
save(const StreamKey *key, const Aggregate *aggregate, const FoldedState *folded)
{
	StoredState stored = {folded->version, folded->last_event_at, folded->state};

	if (!AggregateIsCurrent(aggregate) || EventsRowSecurity() || folded->deleted)
		return false;
	SnapshotStoreSave(key, aggregate, &stored);
	return true;
}
