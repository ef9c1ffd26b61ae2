/*-------------------------------------------------------------------------
 * log_range.c
 *	  A log that is partitioned by ranges of positions: where a stream ends in it,
 *	  and that no two events get one sequence in different partitions.
 *
 * Each partition has a unique index on its streams, and within it all is as in a log of
 * one table.  No index covers two of them.  What holds beyond the edges is that positions
 * rise in a stream as its sequences do: so what a partition has of a stream comes behind all
 * that the partitions before it have, and to append to a stream means to look for its end from
 * the newest partition down.
 *
 * Two appends at an edge could both follow the same event, A with a position below the
 * edge and B with one above it.  Neither meets the other in an index.  So both look once more
 * when their row is in its index (LogRangeCheck), and whoever finds the stream to have a place
 * that contradicts his own gives up (40001):
 *
 *	B	is the first of its stream in its partition: that none before has gone on.  It need
 *		not look when an event of the stream is before it in its partition, for that has
 *		looked, and whoever comes to the partition before it later finds that one there.
 *	A	when the sequence has gone past its partition meanwhile: that none behind has begun.
 *		When it has not, B draws its position, and then looks for the stream's end, after
 *		A's row was there; so B sees it, and waits.
 *
 * One of two who write, and then look, sees the other.  Both may: then both give up.
 * It takes a race for one stream within the moment between drawing a position and writing the
 * row, while positions come to an edge.  Nobody who appends takes a lock for it, and nobody waits.
 *
 * B's partition may be one that its own transaction has attached, of which A hears nothing. So
 * A gives up as well when positions have been drawn behind his partition for which there is none.
 *
 * A restored row is looked at in both directions, whatever is in its own partition.
 *
 * An INSERT by somebody's own hand has drawn its position before it waits for the stream's
 * end.  If it has to draw another one behind that, it may have left its partition, to which the
 * server has brought the row already: 40001 as well (LogRangeRequire).
 *
 * Positions must have one order, so all events are of this node.  What is written below the
 * triggers (session_replication_role) is not looked at; verify_log() is for that.  There is no default
 * partition, whose place in the order nobody knows (stream_index.c).  A partition that has no
 * index of streams, a foreign table for instance, is only read, by SQL.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/errors.h"
#include "base/internal_query.h"
#include "base/relation_change.h"
#include "base/role_switch.h"
#include "base/stream_key.h"
#include "log/log_range.h"
#include "log/position.h"
#include "log/stream_index.h"

/* A partition, and what has to be known to look into it. */
typedef struct LogRange
{
	Oid			relid;
	Oid			guard;			/* of its streams; InvalidOid: look by SQL */
	Oid			positions;		/* the index on them; InvalidOid: likewise */
	int64		from;			/* its first position */
	int64		to;				/* the first behind it */
	EventColumns columns;
} LogRange;

/* All of them, in the order of their positions. */
typedef struct LogRanges
{
	int			n;
	uint64		as_of;			/* changes */
	LogRange	ranges[FLEXIBLE_ARRAY_MEMBER];
} LogRanges;

#define SIZE_OF_RANGES(n)	(offsetof(LogRanges, ranges) + (n) * sizeof(LogRange))

/* cache, in memory of its own; void after a change of the log or of a partition */
static LogRanges *known = NULL;
static Oid	known_log = InvalidOid;
static bool known_is_valid = false;
static uint64 changes = 0;

static void count_change(Oid relid);
static LogRanges *get_ranges(void);
static LogRanges *load_ranges(Oid relid);
static void read_bounds(PartitionDesc desc, LogRanges *ranges);
static int64 bound(PartitionBoundInfo bounds, int i);
static void find_guards(LogRanges *ranges);
static void keep_ranges(const LogRanges *ranges, Oid relid);
static int	range_of(const LogRanges *ranges, Oid relid);
static int	newest_range(const LogRanges *ranges);
static bool knows_all_behind(const LogRanges *ranges, int here);
static Relation open_range(const LogRanges *ranges, int i);
static bool look_for_end(const LogRanges *ranges, int i, const StreamKey *key, StreamTip *tip);
static bool find_row(Relation heap, const LogRange *range, const StreamKey *key,
					 ScanDirection direction, int64 below, int64 *sequence);
static bool check_before(const LogRanges *ranges, int here, const StreamKey *key, int64 sequence);
static bool check_behind(const LogRanges *ranges, int here, const StreamKey *key, int64 sequence);
static bool look_for_row(const LogRanges *ranges, int i, const StreamKey *key,
						 ScanDirection direction, int64 *sequence);
static bool check_by_query(const LogRanges *ranges, const Event *event);
pg_noreturn static void report_contradiction(const Event *event);

void
LogRangeInit(void)
{
	RelationChangeObserve(count_change);
}

/*
 * The index on positions of a partition that may have some below the bound: of the newest of these for
 * 0, then of the one before, and so on; InvalidOid behind the oldest, or when one cannot be looked into.
 */
Oid
LogRangePositionIndex(int64 bound, int i)
{
	LogRanges  *ranges = get_ranges();
	int			n = ranges->n;
	Oid			index = InvalidOid;

	while (n > 0 && ranges->ranges[n - 1].from >= bound)
		n--;
	if (i < n)
		index = ranges->ranges[n - 1 - i].positions;
	pfree(ranges);
	return index;
}

/* Is the table a partition of a log that is partitioned so?  It is locked. */
bool
LogRangeIs(Relation rel)
{
	return rel->rd_rel->relispartition && EventsTableGet().by_position;
}

/*
 * The end of a stream as EventScanTip has it, in all partitions from the newest down.  Of a
 * stream that is new, or old, all are looked into that come behind its last event.
 *
 * Partitions in which no position was drawn yet are left out.  If one is drawn there while we look, or
 * whoever held the end may have gone on in a newer partition, all is looked at once more.  Raises
 * 40P01, as EventScanTip does.
 */
StreamTip
LogRangeTip(const StreamKey *key)
{
	for (;;)
	{
		LogRanges  *ranges = get_ranges();
		int			newest = newest_range(ranges);
		bool		changed = false;
		StreamTip	tip = {0};
		int			i;

		CHECK_FOR_INTERRUPTS();
		for (i = newest; i >= 0 && tip.version == 0 && !changed; i--)
		{
			if (!OidIsValid(ranges->ranges[i].guard))
				return EventScanTipByQuery(key);
			changed = !look_for_end(ranges, i, key, &tip) || (tip.waited && i < newest);
		}
		if (!changed && newest_range(ranges) == newest)
		{
			pfree(ranges);
			return tip;
		}
		pfree(ranges);
	}
}

/*
 * The row of a stream with this end gets that position, in this partition.  40001 when it is of
 * another partition, 55000 when positions would fall in the stream.
 */
void
LogRangeRequire(Relation rel, const StreamKey *key, int64 position, const StreamTip *tip)
{
	LogRanges  *ranges = get_ranges();
	int			here = range_of(ranges, RelationGetRelid(rel));

	if (position < ranges->ranges[here].from || position >= ranges->ranges[here].to)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access: the log has come to its next partition meanwhile"),
				 errhint("Retry the transaction.")));
	if (position <= tip->global_position)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the next position is below the last event of stream \"%s\"", StreamKeyName(key)),
				 errdetail("That event is of another node, and the log is partitioned by position.")));
	pfree(ranges);
}

/* A row that is restored into a partition: 55000 when it is of another node. */
void
LogRangeRequireOurs(Relation rel, int64 position)
{
	if (POSITION_NODE(position) != PositionNode())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("position %lld is not one of this node", (long long) position),
				 errdetail("A log that is partitioned by position has the events of one node.")));
}

/*
 * An event is in the table, its row in the index of streams: is its place in the stream one that no
 * event in another partition contradicts?  See above.  Raises 40001, for a restored row 23505.
 */
void
LogRangeCheck(Relation rel, const Event *event)
{
	bool		is_own = PositionIsOwn(EventGlobalPosition(event));
	int64		sequence = EventSequence(event);
	StreamKey	key;
	bool		holds = false;

	if (!LogRangeIs(rel))
		return;
	EventKey(event, &key);
	while (!holds)
	{
		LogRanges  *ranges = get_ranges();
		int			here = range_of(ranges, RelationGetRelid(rel));
		const LogRange *range = &ranges->ranges[here];
		bool		before = !is_own ||
			!find_row(rel, range, &key, BackwardScanDirection, sequence, NULL);
		bool		behind = !is_own || newest_range(ranges) > here;

		CHECK_FOR_INTERRUPTS();
		holds = (!is_own || knows_all_behind(ranges, here)) &&
			(!before || check_before(ranges, here, &key, sequence)) &&
			(!behind || check_behind(ranges, here, &key, sequence)) &&
			((!before && !behind) || check_by_query(ranges, event));
		if (!holds && ranges->as_of == changes)
			report_contradiction(event);
		pfree(ranges);
	}
}

/*-------------------------------------------------------------------------
 * the partitions
 *-------------------------------------------------------------------------
 */

static void
count_change(Oid relid)
{
	bool		concerns = !OidIsValid(relid) || !known_is_valid || relid == known_log;
	int			i;

	for (i = 0; !concerns && i < known->n; i++)
		concerns = known->ranges[i].relid == relid;
	if (concerns)
	{
		known_is_valid = false;
		changes++;
	}
}

/*
 * A copy, palloc'd: what is known may be gone as soon as anything is looked at.  With the partitions that
 * have been attached by now, which waits for nobody: what is in one is looked for, or comes later.
 */
static LogRanges *
get_ranges(void)
{
	LogRanges  *copy;

	AcceptInvalidationMessages();
	if (!known_is_valid)
		return load_ranges(EventsTableGet().relid);
	copy = palloc(SIZE_OF_RANGES(known->n));
	memcpy(copy, known, SIZE_OF_RANGES(known->n));
	return copy;
}

static LogRanges *
load_ranges(Oid relid)
{
	Relation	log = table_open(relid, AccessShareLock);
	uint64		started = changes;
	PartitionDesc desc = RelationGetPartitionDesc(log, true);
	LogRanges  *ranges = palloc(SIZE_OF_RANGES(desc->nparts));

	ranges->n = 0;
	if (desc->nparts > 0)
		read_bounds(desc, ranges);
	find_guards(ranges);
	ranges->as_of = started;
	if (started == changes)
		keep_ranges(ranges, relid);
	table_close(log, AccessShareLock);
	return ranges;
}

/* Looks at a cache's memory: nothing in here may look into the catalog. */
static void
read_bounds(PartitionDesc desc, LogRanges *ranges)
{
	PartitionBoundInfo bounds = desc->boundinfo;
	int			i;

	for (i = 1; i < bounds->ndatums; i++)
	{
		/* none where there is a hole */
		if (bounds->indexes[i] < 0)
			continue;
		ranges->ranges[ranges->n].relid = desc->oids[bounds->indexes[i]];
		ranges->ranges[ranges->n].from = bound(bounds, i - 1);
		ranges->ranges[ranges->n].to = bound(bounds, i);
		ranges->n++;
	}
}

static int64
bound(PartitionBoundInfo bounds, int i)
{
	switch (bounds->kind[i][0])
	{
		case PARTITION_RANGE_DATUM_MINVALUE:
			return PG_INT64_MIN;
		case PARTITION_RANGE_DATUM_MAXVALUE:
			return PG_INT64_MAX;
		default:
			return DatumGetInt64(bounds->datums[i][0]);
	}
}

/* Partitions that nobody can append to have none. */
static void
find_guards(LogRanges *ranges)
{
	int			i;

	for (i = 0; i < ranges->n; i++)
	{
		LogRange   *range = &ranges->ranges[i];
		Relation	rel = table_open(range->relid, AccessShareLock);

		EventColumnsOf(rel, &range->columns);
		range->guard = range->positions = InvalidOid;
		if (rel->rd_rel->relkind == RELKIND_RELATION)
		{
			range->guard = StreamIndexesOf(rel, &range->columns).guard;
			range->positions = EventsPositionIndex(rel, range->columns.attno[EVENT_GLOBAL_POSITION]);
		}
		table_close(rel, AccessShareLock);
	}
}

static void
keep_ranges(const LogRanges *ranges, Oid relid)
{
	if (known)
		pfree(known);
	known = NULL;
	known = MemoryContextAlloc(TopMemoryContext, SIZE_OF_RANGES(ranges->n));
	memcpy(known, ranges, SIZE_OF_RANGES(ranges->n));
	known_log = relid;
	known_is_valid = true;
}

/* 55000 when the table is a partition of something else. */
static int
range_of(const LogRanges *ranges, Oid relid)
{
	int			i;

	for (i = ranges->n - 1; i >= 0; i--)
		if (ranges->ranges[i].relid == relid)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("events can be written to partitions of the log alone")));
}

/*
 * The newest partition in which a position can have been drawn; -1 when there is none.  One that is not
 * of this node alone counts: it may have events from when the node had a higher number.
 */
static int
newest_range(const LogRanges *ranges)
{
	int64		last = PositionOfNumber(PositionLastNumber());
	int			i = ranges->n - 1;

	while (i >= 0 && ranges->ranges[i].from > last &&
		   POSITION_NODE(ranges->ranges[i].to - 1) == PositionNode())
		i--;
	return i;
}

/* Do we know of a partition for each position from this partition on that has been drawn? */
static bool
knows_all_behind(const LogRanges *ranges, int here)
{
	int64		last = PositionOfNumber(PositionLastNumber());
	int			i = here;

	while (i + 1 < ranges->n && ranges->ranges[i + 1].from == ranges->ranges[i].to)
		i++;
	return last < ranges->ranges[i].to;
}

/* In AccessShareLock; NULL, and no lock, when the partitions are others by now. */
static Relation
open_range(const LogRanges *ranges, int i)
{
	Relation	heap = try_table_open(ranges->ranges[i].relid, AccessShareLock);

	if (heap && ranges->as_of != changes)
	{
		table_close(heap, AccessShareLock);
		heap = NULL;
	}
	return heap;
}

/*-------------------------------------------------------------------------
 * streams in a partition
 *-------------------------------------------------------------------------
 */

/* False when the partitions are others by now. */
static bool
look_for_end(const LogRanges *ranges, int i, const StreamKey *key, StreamTip *tip)
{
	const LogRange *range = &ranges->ranges[i];
	Relation	heap = open_range(ranges, i);
	Relation	index;
	TupleTableSlot *slot;

	if (heap == NULL)
		return false;
	index = index_open(range->guard, AccessShareLock);
	slot = table_slot_create(heap, NULL);
	*tip = EventScanTip(heap, index, &range->columns, key, NULL, slot);
	/* it is met there by who writes to one table */
	tip->place.index = InvalidOid;
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	table_close(heap, AccessShareLock);
	return true;
}

/*
 * The stream's first or last row in the partition, as the direction says, with a sequence below
 * that one: committed, our own, or in progress; waits for nobody.
 */
static bool
find_row(Relation heap, const LogRange *range, const StreamKey *key, ScanDirection direction,
		 int64 below, int64 *sequence)
{
	Relation	index = index_open(range->guard, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(heap, NULL);
	SnapshotData dirty;
	ScanKeyData keys[4];
	IndexScanDesc scan;
	bool		found;
	bool		isnull;

	InitDirtySnapshot(dirty);
	EventScanStreamKeys(keys, index, &range->columns, key);
	ScanKeyInit(&keys[3], 4, BTLessStrategyNumber, F_INT8LT, Int64GetDatum(below));
	scan = compat_index_beginscan(heap, index, &dirty, 4);
	index_rescan(scan, keys, 4, NULL, 0);
	found = index_getnext_slot(scan, direction, slot);
	if (found && sequence)
		*sequence = DatumGetInt64(slot_getattr(slot, range->columns.attno[EVENT_SEQUENCE], &isnull));
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return found;
}

/* Has no partition before this one the stream at that sequence, or beyond it? */
static bool
check_before(const LogRanges *ranges, int here, const StreamKey *key, int64 sequence)
{
	int64		last = 0;
	int			i;

	for (i = here - 1; i >= 0 && last == 0; i--)
		if (!look_for_row(ranges, i, key, BackwardScanDirection, &last))
			return false;
	return last < sequence;
}

/* Does it go on behind that sequence in the partitions behind this one, if at all? */
static bool
check_behind(const LogRanges *ranges, int here, const StreamKey *key, int64 sequence)
{
	int64		first = 0;
	int			i;

	for (i = here + 1; i < ranges->n && first == 0; i++)
		if (!look_for_row(ranges, i, key, ForwardScanDirection, &first))
			return false;
	return first == 0 || first > sequence;
}

/* Its first or last sequence in a partition, 0 for none; false when the partitions are others by now. */
static bool
look_for_row(const LogRanges *ranges, int i, const StreamKey *key, ScanDirection direction, int64 *sequence)
{
	Relation	heap;

	/* check_by_query sees to those that cannot be looked into */
	if (!OidIsValid(ranges->ranges[i].guard))
		return true;
	heap = open_range(ranges, i);
	if (heap == NULL)
		return false;
	(void) find_row(heap, &ranges->ranges[i], key, direction, PG_INT64_MAX, sequence);
	table_close(heap, AccessShareLock);
	return true;
}

/* The same of all that is committed, where a partition cannot be looked into. */
static bool
check_by_query(const LogRanges *ranges, const Event *event)
{
	static InternalQuery query = {
		.sql = "SELECT FROM cqrs_es.events WHERE aggregate_type OPERATOR(pg_catalog.=) $1"
		" AND aggregate_id OPERATOR(pg_catalog.=) $2 AND tenant_id OPERATOR(pg_catalog.=) $3"
		" AND (global_position OPERATOR(pg_catalog.<) $5 AND sequence OPERATOR(pg_catalog.>=) $4"
		" OR global_position OPERATOR(pg_catalog.>) $5 AND sequence OPERATOR(pg_catalog.<=) $4) LIMIT 1",
		.nargs = 5,.argtypes = {TEXTOID, TEXTOID, TEXTOID, INT8OID, INT8OID}
	};
	Datum		values[5] = {event->values[EVENT_AGGREGATE_TYPE], event->values[EVENT_AGGREGATE_ID],
		event->values[EVENT_TENANT_ID], event->values[EVENT_SEQUENCE],
		event->values[EVENT_GLOBAL_POSITION]};
	RoleSwitch	saved;
	bool		holds;
	int			i;

	for (i = 0; i < ranges->n; i++)
		if (!OidIsValid(ranges->ranges[i].guard))
			break;
	if (i == ranges->n)
		return true;
	SPI_connect();
	saved = RoleSwitchToOwner("events");
	holds = InternalQueryRead(&query, values, NULL, GetLatestSnapshot()) == 0;
	RoleSwitchBack(&saved);
	SPI_finish();
	return holds;
}

static void
report_contradiction(const Event *event)
{
	StreamKey	key;

	EventKey(event, &key);
	if (PositionIsOwn(EventGlobalPosition(event)))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access: stream \"%s\" went on in another partition of the log",
						StreamKeyName(&key)),
				 errhint("Retry the transaction.")));
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("position %lld and sequence %lld are not in the order of stream \"%s\"",
					(long long) EventGlobalPosition(event), (long long) EventSequence(event),
					StreamKeyName(&key)),
			 errdetail("Another partition of the log has that sequence, or one behind it before that position, or one before it behind that.")));
}
