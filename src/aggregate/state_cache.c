/*-------------------------------------------------------------------------
 * state_cache.c
 *	  States that a session keeps for its next commands: of each stream the one that it
 *	  has decided on last, or what came of that.
 *
 * Such a state is a snapshot in memory.  It is used where it is what a replay would
 * give, as far as a snapshot is: for the rules that made it, by their fingerprint, and for
 * the last event in it, known by sequence, position, time and id, which must be in the
 * log as the snapshot of the look shows it.  While that one is there, so are all before
 * it, for nobody writes behind what is neither committed nor his own, positions are not drawn
 * twice, and in between there is no room.  So what was kept of events that were rolled back,
 * wherever and by whomever, does not fit any more, and what a snapshot of REPEATABLE READ does
 * not show yet does not fit either.
 *
 * When the stream has become longer, the state is folded on; a scan begins at the last event in
 * it, which has to be that very event.  When it has become so much longer that there
 * is a newer snapshot in the table, that is the quicker way.
 *
 * A state is that of all events, so nothing is kept from, or for, whom row security
 * of the log may hide some.  Where a type takes no snapshots, nothing of it is kept: its
 * owner wants replays.
 *
 * Snapshots may be deleted at any time, as they are when events have been changed
 * below the triggers; then sessions forget what they keep as well.  A
 * trigger on that table has the server tell them, in the way registries do
 * (registry.c), when the transaction has committed.  A state on its way, that was
 * folded before the message came, is not kept.  Neither is one that was folded above READ
 * COMMITTED, whose snapshot may be older than a change that we have heard of already.
 *
 * The same is done when the log as a table changes: somebody may have switched its triggers off
 * to change events, or have emptied and restored it.
 *
 * A fingerprint is of a reducer's own text.  What it calls may change as well, so all is
 * forgotten when any function does.
 *
 * And a transaction that writes may see what nobody else ever will: rows of the log that
 * were changed or restored below the triggers, other functions, whatever a reducer looks at.  Snapshots
 * go with it when it is undone; so what was kept in a transaction, or in a
 * subtransaction, that had an xid is forgotten when it is undone, or is prepared and may still be.
 *
 * Memory.  There are two generations.  What is kept belongs to the young one; when that
 * has half of cqrs_es.state_cache_size, the old one is thrown away, and the young one grows
 * old.  So what is used stays, and what is not used goes, with a bound that no mixture
 * of sizes can break.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/registry.h"
#include "base/relation_change.h"
#include "base/text.h"
#include "log/event_scan.h"
#include "log/events.h"
#include "aggregate/snapshot_store.h"
#include "aggregate/state_cache.h"

/* The state of a stream, in one piece of memory with all that it points to. */
typedef struct KeptState
{
	StreamKey	key;
	bytea	   *fingerprint;	/* of the rules that made it */
	StreamTip	last;			/* the last event that is in it */
	FoldedState folded;
} KeptState;

/* One for each hash of a stream's key: the last that had it. */
typedef struct KeptEntry
{
	uint64		hash;
	KeptState  *kept;			/* or NULL */
} KeptEntry;

typedef struct Generation
{
	MemoryContext memory;		/* of all of it; NULL: it is empty */
	HTAB	   *entries;
} Generation;

static int	cqrs_es_state_cache_size = 1024;

static Generation young;
static Generation old;

/* changes of what states hang on, but for those that others count; what is kept is as of ... */
static uint64 changes = 0;
static uint64 kept_as_of = 0;

/* the last subtransaction of this transaction, as they began, in which anything was kept */
static SubTransactionId kept_in = InvalidSubTransactionId;

/* the size that what is kept was made for */
static int	made_for_size = 0;

/* that table; while it is not known, any may be the one */
static Oid	snapshots_relid = InvalidOid;

PG_FUNCTION_INFO_V1(cqrs_es_snapshots_deleted);

static void note_change(Oid relid);
static uint64 current_changes(void);
static void at_transaction_end(XactEvent event, void *arg);
static void at_subtransaction_end(SubXactEvent event, SubTransactionId id,
								  SubTransactionId parent, void *arg);
static bool keeps(const Aggregate *aggregate);
static bool use_kept(Aggregate *aggregate, const StreamKey *key, const StateOrigin *origin,
					 FoldedState *folded);
static void keep(const Aggregate *aggregate, const StreamKey *key, const FoldedState *folded,
				 const StateOrigin *origin);
static KeptEntry *find(const Generation *generation, const StreamKey *key);
static Size kept_size(const Aggregate *aggregate, const StreamKey *key, const FoldedState *folded);
static KeptState *make_kept(char *place, const Aggregate *aggregate, const StreamKey *key,
							const FoldedState *folded, const StreamTip *last);
static void *put(char **place, const void *value);
static void make_room(Size size);
static void begin_generation(Generation *generation);
static void forget(Generation *generation);
static void forget_if_changed(void);
static Size memory_limit(void);
static uint64 key_hash(const StreamKey *key);

void
StateCacheInit(void)
{
	DefineCustomIntVariable("cqrs_es.state_cache_size",
							"How much memory a session uses to keep states of aggregates for its next commands.",
							"0 keeps none.",
							&cqrs_es_state_cache_size, 1024, 0, MAX_KILOBYTES,
							PGC_USERSET, GUC_UNIT_KB, NULL, NULL, NULL);
	RelationChangeObserve(note_change);
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/*
 * SQL: the trigger before each statement that deletes snapshots, in every session, whatever
 * session_replication_role is.
 */
Datum
cqrs_es_snapshots_deleted(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s must be fired as a trigger", "snapshots_deleted()")));
	if (!SnapshotStoreIsCleaning())
		CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	return PointerGetDatum(NULL);
}

/* Also what has nothing to do with snapshots (VACUUM) has the server tell of the table. */
static void
note_change(Oid relid)
{
	if (OidIsValid(relid) && OidIsValid(snapshots_relid) && relid != snapshots_relid)
		return;
	changes++;
	snapshots_relid = InvalidOid;
}

static uint64
current_changes(void)
{
	if (!OidIsValid(snapshots_relid))
	{
		uint64		started = changes;
		Oid			relid = ExtensionRelid("snapshots");

		if (started == changes)
			snapshots_relid = relid;
	}
	/* of numbers that only grow, as the sum does */
	return changes + RegistryFunctionChanges() + EventsTableChanges();
}

/* Nothing is freed in these two: whoever uses or keeps a state looks at the count before. */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE ||
		event == XACT_EVENT_PARALLEL_PRE_COMMIT)
		return;
	if ((event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE) &&
		kept_in != InvalidSubTransactionId && TransactionIdIsValid(GetTopTransactionIdIfAny()))
		changes++;
	kept_in = InvalidSubTransactionId;
}

/* Those that began later than the one that is undone were within it. */
static void
at_subtransaction_end(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && kept_in >= id &&
		TransactionIdIsValid(GetCurrentTransactionIdIfAny()))
		changes++;
}

/*-------------------------------------------------------------------------
 * folding
 *-------------------------------------------------------------------------
 */

/*
 * The state of a stream now, as FoldStream; from what is kept, if that holds, and it is kept
 * afterwards.  The end of the stream, in *origin, has then been read, for SERIALIZABLE as well.
 */
FoldedState
StateCacheFold(Aggregate *aggregate, const StreamKey *key, StateOrigin *origin)
{
	LogSnapshot snapshot;
	FoldedState folded;

	if (cqrs_es_state_cache_size < made_for_size)
	{
		forget(&old);
		forget(&young);
	}
	made_for_size = cqrs_es_state_cache_size;
	/* who has waited, and has all his locks already, would not hear what came meanwhile */
	AcceptInvalidationMessages();
	origin->changes = current_changes();
	snapshot = EventsSnapshotTake(false);
	origin->end = EventScanLast(key, snapshot.snapshot);
	EventsSnapshotRelease(snapshot);
	if (keeps(aggregate) && use_kept(aggregate, key, origin, &folded))
		return folded;
	folded = FoldStream(aggregate, key, origin->end.version);
	keep(aggregate, key, &folded, origin);
	return folded;
}

/*
 * Keep what came of a state that StateCacheFold gave: `last`, which is in the log, is now the
 * last event in it.
 */
void
StateCacheKeep(const Aggregate *aggregate, const StreamKey *key, const FoldedState *folded,
			   const Event *last, const StateOrigin *origin)
{
	StateOrigin now = {.end = EventScanTipOf(last),.changes = origin->changes};

	keep(aggregate, key, folded, &now);
}

/*
 * Would a state that was folded from this origin, or on from there, be folded again by whoever
 * comes now?  So it is, as far as one can hear; what is on its way to us shows when it is here.
 */
bool
StateCacheIsCurrent(const StateOrigin *origin)
{
	/* a transaction that holds all its locks already would not hear */
	AcceptInvalidationMessages();
	return !IsolationUsesXactSnapshot() && origin->changes == current_changes();
}

/* Are states of this type kept, for this caller? */
static bool
keeps(const Aggregate *aggregate)
{
	return cqrs_es_state_cache_size > 0 && aggregate->snapshot_every > 0 && !EventsRowSecurity();
}

/*
 * The state of a stream that ends where `origin` says, from what is kept of it; palloc'd.  False
 * when that does not hold, or is not the quickest way.
 */
static bool
use_kept(Aggregate *aggregate, const StreamKey *key, const StateOrigin *origin,
		 FoldedState *folded)
{
	KeptEntry  *entry;
	KeptState  *kept;
	StreamTip	last;
	bool		is_young;
	bool		is_last;

	forget_if_changed();
	entry = find(&young, key);
	is_young = entry != NULL;
	if (!is_young)
		entry = find(&old, key);
	if (entry == NULL)
		return false;
	kept = entry->kept;
	if (!TextEqual((text *) kept->fingerprint, (text *) aggregate->rules.fingerprint) ||
		origin->end.version < kept->last.version ||
		origin->end.version - kept->last.version >= aggregate->snapshot_every)
		return false;

	/* a copy, since what is kept may be thrown away by whatever is done from now on */
	last = kept->last;
	*folded = kept->folded;
	folded->state = memcpy(palloc(VARSIZE(folded->state)), folded->state, VARSIZE(folded->state));
	folded->nread = 0;
	is_last = EventScanSameTip(&last, &origin->end);
	if (!is_last && !FoldOnBehind(folded, &last, aggregate, key, origin->end.version))
		return false;
	if (!is_last || !is_young)
		keep(aggregate, key, folded, origin);
	return true;
}

/*-------------------------------------------------------------------------
 * keeping
 *-------------------------------------------------------------------------
 */

/* Keep a state that was folded up to the end of the stream. */
static void
keep(const Aggregate *aggregate, const StreamKey *key, const FoldedState *folded,
	 const StateOrigin *origin)
{
	Size		size = kept_size(aggregate, key, folded);
	KeptEntry  *entry;
	KeptState  *kept;
	bool		found;
	uint64		hash = key_hash(key);

	/* else it may be a mixture, which no fingerprint stands for */
	if (!keeps(aggregate) || !AggregateIsCurrent(aggregate))
		return;
	if (!StateCacheIsCurrent(origin) || size > memory_limit() / 4)
		return;
	forget_if_changed();
	entry = find(&young, key);
	if (entry != NULL)
	{
		pfree(entry->kept);
		entry->kept = NULL;
	}
	make_room(size);
	kept = make_kept(MemoryContextAlloc(young.memory, size), aggregate, key, folded, &origin->end);
	entry = hash_search(young.entries, &hash, HASH_ENTER, &found);
	if (found && entry->kept != NULL)
		pfree(entry->kept);
	entry->kept = kept;
	kept_in = Max(kept_in, GetCurrentSubTransactionId());
}

/* What a generation has of a stream, or NULL. */
static KeptEntry *
find(const Generation *generation, const StreamKey *key)
{
	uint64		hash = key_hash(key);
	KeptEntry  *entry = generation->memory == NULL ? NULL :
		hash_search(generation->entries, &hash, HASH_FIND, NULL);

	return entry != NULL && entry->kept != NULL && StreamKeyEqual(&entry->kept->key, key) ? entry : NULL;
}

/* So much memory it takes, with all that it points to. */
static Size
kept_size(const Aggregate *aggregate, const StreamKey *key, const FoldedState *folded)
{
	return MAXALIGN(sizeof(KeptState)) +
		MAXALIGN(VARSIZE_ANY(key->aggregate_type)) +
		MAXALIGN(VARSIZE_ANY(key->aggregate_id)) +
		MAXALIGN(VARSIZE_ANY(key->tenant_id)) +
		MAXALIGN(VARSIZE_ANY(aggregate->rules.fingerprint)) +
		MAXALIGN(VARSIZE(folded->state));
}

static KeptState *
make_kept(char *place, const Aggregate *aggregate, const StreamKey *key,
		  const FoldedState *folded, const StreamTip *last)
{
	KeptState  *kept = (KeptState *) place;

	place += MAXALIGN(sizeof(KeptState));
	kept->key.aggregate_type = put(&place, key->aggregate_type);
	kept->key.aggregate_id = put(&place, key->aggregate_id);
	kept->key.tenant_id = put(&place, key->tenant_id);
	kept->fingerprint = put(&place, aggregate->rules.fingerprint);
	kept->last = *last;
	kept->folded = *folded;
	kept->folded.state = put(&place, folded->state);
	return kept;
}

/* Copy a value to a place, and go on behind it. */
static void *
put(char **place, const void *value)
{
	void	   *copy = memcpy(*place, value, VARSIZE_ANY(value));

	*place += MAXALIGN(VARSIZE_ANY(value));
	return copy;
}

/*-------------------------------------------------------------------------
 * memory
 *-------------------------------------------------------------------------
 */

/* So much is to be kept. */
static void
make_room(Size size)
{
	if (young.memory != NULL &&
		MemoryContextMemAllocated(young.memory, true) + size > memory_limit() / 2)
	{
		forget(&old);
		old = young;
		young.memory = NULL;
	}
	if (young.memory == NULL)
		begin_generation(&young);
}

static void
begin_generation(Generation *generation)
{
	HASHCTL		control = {.keysize = sizeof(uint64),.entrysize = sizeof(KeptEntry)};
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es kept states",
												 ALLOCSET_SMALL_SIZES);

	control.hcxt = memory;
	generation->entries = hash_create("cqrs_es kept states", 64, &control,
									  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	MemoryContextSetParent(memory, CacheMemoryContext);
	generation->memory = memory;
}

static void
forget(Generation *generation)
{
	if (generation->memory != NULL)
		MemoryContextDelete(generation->memory);
	generation->memory = NULL;
}

/* What snapshots may have said that were deleted is not kept, and neither is anything else. */
static void
forget_if_changed(void)
{
	uint64		now = current_changes();

	if (kept_as_of == now)
		return;
	forget(&old);
	forget(&young);
	kept_as_of = now;
}

static Size
memory_limit(void)
{
	return cqrs_es_state_cache_size * (Size) 1024;
}

static uint64
key_hash(const StreamKey *key)
{
	const text *parts[] = {key->aggregate_type, key->aggregate_id, key->tenant_id};
	uint64		hash = 0;
	size_t		i;

	for (i = 0; i < lengthof(parts); i++)
		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(parts[i]),
								   VARSIZE_ANY_EXHDR(parts[i]), hash);
	return hash;
}
