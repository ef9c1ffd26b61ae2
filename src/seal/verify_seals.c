/*-------------------------------------------------------------------------
 * verify_seals.c
 *	  verify_seals(): is what was sealed still there, as it was?
 *
 * Seals, blocks, changes and events are all read under one snapshot.  A seal came after its
 * events, and a change together with what it changed, so each is seen with the other.
 * Nothing is written, so it works on a standby.
 *
 * The digest of each block is made of the events that are there now, and compared with the one
 * that was sealed.  Where events were changed by rule since the seal, a closer look takes
 * these changes back: an event's digest is made of its columns as they are now and the
 * digest that its content had before the first change; and what it is now must be what
 * the last change has left.  One that was removed by rule has its digest in the change.
 * If that does not give the sealed digest either, something was done otherwise; what, is told by
 * counting.
 *
 * What is outside of all seals is looked at as well: events at positions where no event of
 * this log can be would be seen by who reads a stream, and covered by no seal that is
 * ever made.
 *
 * It is one pass, with one block in memory, however many events somebody has put between.
 *
 * Who may change the database as he likes may make all of it anew, seals as well.  So
 * what this says is worth as much as the digest of the newest seal, compared with one that was
 * published.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "base/internal_query.h"
#include "base/role_switch.h"
#include "log/event_scan.h"
#include "log/position.h"
#include "seal/event_change.h"
#include "seal/seal.h"
#include "seal/seal_block.h"

/* What can be wrong. */
typedef enum Problem
{
	NOTHING_WRONG,
	EVENTS_ALTERED,
	EVENTS_REMOVED,
	EVENTS_INSERTED,
	EVENTS_OUTSIDE,
	SEAL_MISSING,
	SEAL_ALTERED,
	CHANGES_ALTERED
} Problem;

static const char *const problem_names[] = {
	[NOTHING_WRONG] = NULL,
	[EVENTS_ALTERED] = "altered",
	[EVENTS_REMOVED] = "removed",
	[EVENTS_INSERTED] = "inserted",
	[EVENTS_OUTSIDE] = "outside",
	[SEAL_MISSING] = "missing seal",
	[SEAL_ALTERED] = "altered seal",
	[CHANGES_ALTERED] = "altered changes",
};

/* A row of the result. */
typedef struct Finding
{
	int64		seal;			/* 0: of none */
	int64		after_position;
	int64		up_to_position;
	int64		events;			/* that were sealed; -1: none were */
	int64		found;
	int64		redacted;		/* of these, by rule */
	int64		removed;		/* others, by rule */
	Problem		problem;
	const char *detail;
} Finding;

/* An event of a block at which a closer look is taken. */
typedef struct SealedEvent
{
	int64		position;
	Sha256Digest digest;
} SealedEvent;

typedef struct Verification
{
	ReturnSetInfo *result;
	Snapshot	snapshot;
	EventDigester *digester;
	SealBlockSum *sum;
	MemoryContext work;			/* of a closer look */

	Seal		seal;			/* that is being verified */
	bool		any_changes;	/* of its events, by rule, since it was made */
	int64		nfindings;		/* about it */
	Finding		total;			/* all of its ranges together */
	Finding		range;			/* put off, for the next may join it; NOTHING_WRONG:
								 * there is none */

	EventScan  *scan;			/* the events of the seal */
	Event		event;			/* the next of them, ... */
	bool		has_event;		/* ... if there is one */
} Verification;

PG_FUNCTION_INFO_V1(cqrs_es_verify_seals);

static void require_named(Verification *v, NullableDatum seal);
static void verify_seal(Verification *v);
static void verify_place(Verification *v);
static void verify_events(Verification *v, Sha256Digest *blocks_digest);
static void verify_block(Verification *v, int64 after_position, const SealBlock *block);
static bool take_events(Verification *v, const SealBlock *block, int64 *found);
static bool look_closer(Verification *v, const SealBlock *block, const EventChange *changes,
						int nchanges, Finding *finding);
static void take_back(Verification *v, const Event *event, const EventChange *changes,
					  int nchanges, Sha256Digest *digest, Finding *finding);
static int	first_change(const EventChange *changes, int nchanges, int64 position,
						 const pg_uuid_t *id);
static bool is_of_event(const EventChange *change, int64 position, const pg_uuid_t *id);
static int	compare_positions(const void *a, const void *b);
static void find_outside(Verification *v);
static void find_between(Verification *v, int64 after_position, int64 up_to_position, bool is_tail);
static void put_range(Verification *v, const Finding *finding);
static void flush_range(Verification *v);
static void put_of_seal(Verification *v, Problem problem, const char *detail);
static void put_finding(Verification *v, const Finding *finding);

/*
 * SQL: verify_seals(from_seal, to_seal), both inclusive; NULL: from the first, to the last, and
 * what is outside of all.  Raises 42501 where policies would hide events from the owner of the log.
 */
Datum
cqrs_es_verify_seals(PG_FUNCTION_ARGS)
{
	int64		from = PG_ARGISNULL(0) ? PG_INT64_MIN : PG_GETARG_INT64(0);
	int64		to = PG_ARGISNULL(1) ? PG_INT64_MAX : PG_GETARG_INT64(1);
	Verification v = {.result = (ReturnSetInfo *) fcinfo->resultinfo};
	LogSnapshot snapshot;
	RoleSwitch	saved;

	InitMaterializedSRF(fcinfo, 0);
	saved = RoleSwitchToOwner("events");
	RoleSwitchRequireAllRows();
	snapshot = EventsSnapshotTake(false);
	v.snapshot = snapshot.snapshot;
	v.digester = EventDigesterBegin();
	v.sum = SealBlockSumBegin();
	v.work = AllocSetContextCreate(CurrentMemoryContext, "cqrs_es verify seals",
								   ALLOCSET_DEFAULT_SIZES);
	require_named(&v, fcinfo->args[0]);
	if (PG_ARGISNULL(0) || to != from)
		require_named(&v, fcinfo->args[1]);
	while (from <= to && SealFind(from, to, v.snapshot, &v.seal))
	{
		verify_seal(&v);
		pfree(v.seal.sealed_by);
		if (v.seal.number == PG_INT64_MAX)
			break;
		from = v.seal.number + 1;
	}
	if (PG_ARGISNULL(0) && PG_ARGISNULL(1))
		find_outside(&v);
	MemoryContextDelete(v.work);
	SealBlockSumEnd(v.sum);
	EventDigesterEnd(v.digester);
	EventsSnapshotRelease(snapshot);
	RoleSwitchBack(&saved);
	return (Datum) 0;
}

/* A seal that the caller names is there, or that is said. */
static void
require_named(Verification *v, NullableDatum seal)
{
	Finding		finding = {.seal = DatumGetInt64(seal.value),.events = -1,
		.problem = SEAL_MISSING,.detail = "there is no seal of that number"
	};
	Seal		found;

	if (!seal.isnull && !SealFind(finding.seal, finding.seal, v->snapshot, &found))
		put_finding(v, &finding);
}

static void
verify_seal(Verification *v)
{
	const Seal *seal = &v->seal;
	Sha256Digest blocks;
	Sha256Digest digest;

	v->nfindings = 0;
	memset(&v->range, 0, sizeof(v->range));
	memset(&v->total, 0, sizeof(v->total));
	v->total.seal = seal->number;
	v->total.after_position = seal->after_position;
	v->total.up_to_position = seal->up_to_position;
	v->total.events = seal->events;

	verify_place(v);
	if (EventChangesDigest(seal->number - 1, v->snapshot, &digest) != seal->changes ||
		!SealDigestsEqual(&digest, &seal->changes_digest))
		put_of_seal(v, CHANGES_ALTERED,
					"changes that it covers were added, altered or removed since");
	v->any_changes = EventChangesExist(seal->number, seal->after_position, seal->up_to_position,
									   v->snapshot);
	verify_events(v, &blocks);
	flush_range(v);
	SealDigest(seal, &blocks, &digest);
	if (!SealDigestsEqual(&digest, &seal->digest))
		put_of_seal(v, SEAL_ALTERED, "what is kept of it, or of its blocks, is not what it was made of");
	if (v->nfindings == 0)
		put_finding(v, &v->total);
}

/* Does it follow the seal before it? */
static void
verify_place(Verification *v)
{
	static const Sha256Digest none = {{0}};
	const Seal *seal = &v->seal;
	Seal		before;

	if (POSITION_NUMBER(seal->number) == 1)
	{
		if (seal->after_position != seal->number - 1 || !SealDigestsEqual(&seal->previous, &none))
			put_of_seal(v, SEAL_ALTERED, "it does not begin where the log begins");
	}
	else if (!SealFind(seal->number - 1, seal->number - 1, v->snapshot, &before))
		put_of_seal(v, SEAL_MISSING, "the seal before it is not there");
	else if (seal->after_position != before.up_to_position ||
			 !SealDigestsEqual(&seal->previous, &before.digest))
		put_of_seal(v, SEAL_ALTERED, "it does not follow the seal before it");
}

/* The ranges of the seal; the digest of all its blocks. */
static void
verify_events(Verification *v, Sha256Digest *blocks_digest)
{
	int64		last = v->seal.after_position;
	int64		read_to = PG_INT64_MIN;
	SealBlock	rest = {.up_to_position = v->seal.up_to_position};
	Sha256Stream *blocks = Sha256Open();
	int			n;

	Sha256Start(blocks);
	v->scan = EventScanLog(last, ForwardScanDirection, v->snapshot);
	v->has_event = EventScanNext(v->scan, &v->event);
	do
	{
		SealBlock  *read = SealBlocksRead(v->seal.number, read_to, v->snapshot, &n);
		int			i;

		for (i = 0; i < n; i++)
		{
			SealBlockDescribe(blocks, &read[i]);
			verify_block(v, last, &read[i]);
			last = Max(last, read[i].up_to_position);
			read_to = read[i].up_to_position;
		}
		pfree(read);
	} while (n > 0);
	/* somebody has taken the last blocks away */
	if (last < rest.up_to_position)
		verify_block(v, last, &rest);
	EventScanEnd(v->scan);
	Sha256Finish(blocks, blocks_digest);
	Sha256Close(blocks);
}

static void
verify_block(Verification *v, int64 after_position, const SealBlock *block)
{
	Finding		finding = {.seal = v->seal.number,.after_position = after_position,
		.up_to_position = block->up_to_position,.events = block->events
	};
	bool		fits = take_events(v, block, &finding.found);
	MemoryContext caller = MemoryContextSwitchTo(v->work);
	EventChange *changes = NULL;
	int			nchanges = 0;

	if (v->any_changes)
		changes = EventChangesSince(v->seal.number, after_position, block->up_to_position,
									v->snapshot, &nchanges);
	if (nchanges > 0)
		fits = look_closer(v, block, changes, nchanges, &finding);
	if (!fits && finding.problem == NOTHING_WRONG)
	{
		int64		missing = block->events - finding.found - finding.removed;

		finding.problem = missing > 0 ? EVENTS_REMOVED : missing < 0 ? EVENTS_INSERTED : EVENTS_ALTERED;
	}
	MemoryContextSwitchTo(caller);
	if (finding.detail)
		finding.detail = pstrdup(finding.detail);
	MemoryContextReset(v->work);
	v->total.found += finding.found;
	v->total.redacted += finding.redacted;
	v->total.removed += finding.removed;
	put_range(v, &finding);
}

/* Do the next events, up to the end of the block, give its digest?  How many they are. */
static bool
take_events(Verification *v, const SealBlock *block, int64 *found)
{
	SealBlock	now;

	SealBlockStart(v->sum);
	for (*found = 0; v->has_event; (*found)++)
	{
		int64		position = EventGlobalPosition(&v->event);
		EventDigests digests;

		if (position > block->up_to_position)
			break;
		/* of more than there were the number is enough */
		if (*found < block->events)
		{
			EventDigestMake(v->digester, &v->event, &digests);
			SealBlockAdd(v->sum, position, &digests.event);
		}
		v->has_event = EventScanNext(v->scan, &v->event);
	}
	SealBlockFinish(v->sum, &now);
	return *found == block->events && SealDigestsEqual(&now.digest, &block->digest);
}

/*
 * Do the events of a block, as they were before these changes, give its digest?  Completes
 * the finding, also with what is wrong in any case: an event is not what its changes say.
 */
static bool
look_closer(Verification *v, const SealBlock *block, const EventChange *changes, int nchanges,
			Finding *finding)
{
	SealedEvent *events;
	int64		nevents = 0;
	EventScan  *scan;
	SealBlock	then;
	Event		event;
	int64		i;

	/* more than there can have been: no need to look at all of them */
	if (finding->found > block->events)
		return false;
	events = palloc_extended((finding->found + nchanges) * sizeof(SealedEvent), MCXT_ALLOC_HUGE);
	scan = EventScanLog(finding->after_position, ForwardScanDirection, v->snapshot);
	while (nevents < finding->found && EventScanNext(scan, &event))
	{
		events[nevents].position = EventGlobalPosition(&event);
		take_back(v, &event, changes, nchanges, &events[nevents].digest, finding);
		nevents++;
	}
	EventScanEnd(scan);
	for (i = 0; i < nchanges; i++)
		if (changes[i].removed)
		{
			int			first = first_change(changes, nchanges, changes[i].global_position,
											 &changes[i].event_id);

			events[nevents].position = changes[first].global_position;
			events[nevents++].digest = changes[first].before.event;
			finding->removed++;
		}

	qsort(events, nevents, sizeof(SealedEvent), compare_positions);
	SealBlockStart(v->sum);
	for (i = 0; i < nevents; i++)
		SealBlockAdd(v->sum, events[i].position, &events[i].digest);
	SealBlockFinish(v->sum, &then);
	return then.events == block->events && SealDigestsEqual(&then.digest, &block->digest);
}

/* The digest of an event before its changes, if it has any; it must be what the last has left. */
static void
take_back(Verification *v, const Event *event, const EventChange *changes, int nchanges,
		  Sha256Digest *digest, Finding *finding)
{
	int64		position = EventGlobalPosition(event);
	const pg_uuid_t *id = DatumGetUUIDP(event->values[EVENT_EVENT_ID]);
	int			first = first_change(changes, nchanges, position, id);
	int			i = first;
	EventDigests digests;

	EventDigestMake(v->digester, event, &digests);
	if (first == nchanges)
	{
		*digest = digests.event;
		return;
	}
	for (; i + 1 < nchanges && is_of_event(&changes[i + 1], position, id); i++)
		if (!SealDigestsEqual(&changes[i].content_after, &changes[i + 1].before.content))
		{
			finding->problem = EVENTS_ALTERED;
			finding->detail = psprintf("the event at position %lld was altered between two changes by rule",
									   (long long) position);
		}
	if (changes[i].removed)
	{
		finding->problem = EVENTS_INSERTED;
		finding->detail = psprintf("the event at position %lld was removed by rule, and is there",
								   (long long) position);
	}
	else if (!SealDigestsEqual(&digests.content, &changes[i].content_after))
	{
		finding->problem = EVENTS_ALTERED;
		finding->detail = psprintf("the event at position %lld is not what its last change has left",
								   (long long) position);
	}
	digests.content = changes[first].before.content;
	EventDigestCombine(v->digester, event, &digests);
	*digest = digests.event;
	finding->redacted++;
}

/* The first change of an event; nchanges, when there is none.  They are in the order of positions. */
static int
first_change(const EventChange *changes, int nchanges, int64 position, const pg_uuid_t *id)
{
	int			low = 0;
	int			high = nchanges;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (changes[middle].global_position < position)
			low = middle + 1;
		else
			high = middle;
	}
	while (low < nchanges && changes[low].global_position == position)
	{
		if (is_of_event(&changes[low], position, id))
			return low;
		low++;
	}
	return nchanges;
}

static bool
is_of_event(const EventChange *change, int64 position, const pg_uuid_t *id)
{
	return change->global_position == position && id != NULL &&
		memcmp(&change->event_id, id, UUID_LEN) == 0;
}

static int
compare_positions(const void *a, const void *b)
{
	int64		of_a = ((const SealedEvent *) a)->position;
	int64		of_b = ((const SealedEvent *) b)->position;

	return (of_a > of_b) - (of_a < of_b);
}

/*
 * Events at positions that no seal tells of: behind the last one of a node, where that is not
 * wrong, and of nodes that have none, or below the first position.  (read_stream would show them.)
 */
static void
find_outside(Verification *v)
{
	int64		after_position = PG_INT64_MIN;
	int64		node = -1;
	Seal		seal;

	for (;;)
	{
		int64		next = PositionNode() > node ? PositionNode() : POSITION_MAX_NODE + 1;
		int64		sealed_to;

		if (SealFind(SealFirstNumber(node + 1), PG_INT64_MAX, v->snapshot, &seal))
			next = Min(next, POSITION_NODE(seal.number));
		if (next > POSITION_MAX_NODE)
			break;
		node = next;
		sealed_to = SealFindNewest(node, v->snapshot, &seal) ? seal.up_to_position :
			SealFirstNumber(node) - 1;
		find_between(v, after_position, SealFirstNumber(node) - 1, false);
		find_between(v, sealed_to, SealLastNumber(node), true);
		after_position = SealLastNumber(node);
	}
	find_between(v, after_position, PG_INT64_MAX, false);
}

static void
find_between(Verification *v, int64 after_position, int64 up_to_position, bool is_tail)
{
	static InternalQuery query = {
		.sql = "SELECT pg_catalog.count(*) AS n, pg_catalog.min(global_position) AS first,"
		" pg_catalog.max(global_position) AS last FROM cqrs_es.events"
		" WHERE global_position OPERATOR(pg_catalog.>) $1 AND global_position OPERATOR(pg_catalog.<=) $2",
		.nargs = 2,.argtypes = {INT8OID, INT8OID}
	};
	Datum		values[2] = {Int64GetDatum(after_position), Int64GetDatum(up_to_position)};
	Finding		finding = {.after_position = after_position,.events = -1};
	QueryRow	row;

	SPI_connect();
	(void) InternalQueryRead(&query, values, NULL, v->snapshot);
	row = InternalQueryRow(0);
	finding.found = DatumGetInt64(InternalQueryDatum(&row, "n", NULL));
	if (finding.found > 0)
	{
		finding.up_to_position = DatumGetInt64(InternalQueryDatum(&row, "last", NULL));
		if (is_tail)
			finding.detail = "not sealed yet";
		else
		{
			finding.after_position = DatumGetInt64(InternalQueryDatum(&row, "first", NULL)) - 1;
			finding.problem = EVENTS_OUTSIDE;
			finding.detail = "no seal tells of such positions";
		}
		put_finding(v, &finding);
	}
	SPI_finish();
}

/*-------------------------------------------------------------------------
 * rows
 *-------------------------------------------------------------------------
 */

/* What was found in a range, if it is wrong; joined with that before it, if it is the same. */
static void
put_range(Verification *v, const Finding *finding)
{
	Finding    *range = &v->range;

	if (range->problem != NOTHING_WRONG && range->problem == finding->problem &&
		range->detail == NULL && finding->detail == NULL &&
		range->up_to_position == finding->after_position)
	{
		range->up_to_position = finding->up_to_position;
		range->events += finding->events;
		range->found += finding->found;
		range->redacted += finding->redacted;
		range->removed += finding->removed;
		return;
	}
	flush_range(v);
	*range = *finding;
}

static void
flush_range(Verification *v)
{
	Finding		range = v->range;
	int64		more = range.found + range.removed - range.events;

	v->range.problem = NOTHING_WRONG;
	if (range.problem == NOTHING_WRONG)
		return;
	if (range.detail == NULL)
		range.detail = range.problem == EVENTS_ALTERED ? "events are not what was sealed" :
			psprintf(more < 0 ? "%lld events are missing" : "%lld events were not there",
					 (long long) Max(more, -more));
	v->nfindings++;
	put_finding(v, &range);
}

/* Something is wrong with the seal that is being verified. */
static void
put_of_seal(Verification *v, Problem problem, const char *detail)
{
	Finding		finding = v->total;

	finding.found = -1;
	finding.redacted = -1;
	finding.removed = -1;
	finding.problem = problem;
	finding.detail = detail;
	v->nfindings++;
	put_finding(v, &finding);
}

/* Counts below 0 are not known. */
static void
put_finding(Verification *v, const Finding *finding)
{
	const int64 numbers[] = {finding->seal, finding->after_position, finding->up_to_position,
		finding->events, finding->found, finding->redacted, finding->removed};
	Datum		values[lengthof(numbers) + 2];
	bool		nulls[lengthof(values)] = {false};
	size_t		i;

	for (i = 0; i < lengthof(numbers); i++)
		values[i] = Int64GetDatum(numbers[i]);
	nulls[0] = finding->seal == 0;
	for (i = 3; i < lengthof(numbers); i++)
		nulls[i] = numbers[i] < 0;
	nulls[7] = problem_names[finding->problem] == NULL;
	values[7] = nulls[7] ? (Datum) 0 : CStringGetTextDatum(problem_names[finding->problem]);
	nulls[8] = finding->detail == NULL;
	values[8] = nulls[8] ? (Datum) 0 : CStringGetTextDatum(finding->detail);
	tuplestore_putvalues(v->result->setResult, v->result->setDesc, values, nulls);
}
