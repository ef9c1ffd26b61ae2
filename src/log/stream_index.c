/*-------------------------------------------------------------------------
 * stream_index.c
 *	  The unique index that guards the streams of a table: nothing but it keeps
 *	  two events from getting one sequence.
 *
 * It has to say so of just the stream's key and the sequence, at once, and for
 * all rows: a btree that is valid, unique, immediate, not partial, on the three
 * columns of the key, in any order, and then the sequence, and no others.
 * Usually it is the primary key.  In the default order, with deterministic
 * collations: then equal are only equal bytes, for the index as for all who
 * look for a stream.
 *
 * A partition has to have it, and the whole partitioned table as well, which in
 * addition has to be partitioned, on all levels, by columns of the stream's
 * key alone: then a stream lies in one partition, which is where the admitting
 * trigger looks for its end.  Or it is partitioned by ranges of positions, in tables that are not
 * partitioned again; then each partition has the index, and log_range.c sees to what none of them can
 * guard.  Children by INHERITS have no index in common
 * with their parent.  And what an index guards in each shard of a distributed table is no stream
 * of events that one node has drawn, waited for and told of (distribution.c).
 *
 * What has no such index cannot be a log: appends and the admitting trigger
 * refuse to write to it (StreamIndexRequire).  An append on the straight path need
 * not ask: that path is only there for an ordinary heap without children that is no
 * partition, with such an index and such columns (events.c).  All of that is said by
 * the table's own rows in pg_class, pg_attribute and pg_index, whose changes
 * invalidate the answer of events.c as they would that of StreamIndexRequire, which
 * looks no more often; and a collation does not change.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_opfamily_d.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "base/compat.h"
#include "base/distribution.h"
#include "base/relation_change.h"
#include "log/stream_index.h"

#define STREAM_COLUMNS "aggregate_type, aggregate_id, tenant_id"

/* Tables that were found to be guarded, by oid; void after an invalidation. */
typedef struct GuardedTable
{
	Oid			relid;
	Oid			guard;
} GuardedTable;

static HTAB *guarded_tables = NULL;
static uint64 invalidations = 0;	/* of any relation */
static uint64 guarded_as_of = 0;

static void count_invalidation(Oid relid);
static void remember(Oid relid, Oid guard, uint64 as_of);
static bool is_guard(Relation index, const EventColumns *columns);
static bool is_stream_column(AttrNumber attno, const EventColumns *columns);
static bool is_deterministic(Oid collation);
static const char *nondeterministic_column(Relation rel, const EventColumns *columns);
static void check_collations(Relation rel, const EventColumns *columns);
static void check_partitioning(Relation rel, const EventColumns *columns);
pg_noreturn static void report_nested(Relation rel);
static void check_children(Relation rel);
pg_noreturn static void report_unguarded(Relation rel);

void
StreamIndexInit(void)
{
	RelationChangeObserve(count_invalidation);
}

/*
 * The indexes of a table, partitioned or not, that is locked.  Whoever has
 * locked it to write, before asking, may rely on the answer for as long as that lock
 * is held: no other unique index becomes ready for new rows before all have ended
 * who could not know of it.
 */
StreamIndexes
StreamIndexesOf(Relation rel, const EventColumns *columns)
{
	StreamIndexes result = {.guard = InvalidOid,.only_unique = true,
		.deterministic = nondeterministic_column(rel, columns) == NULL};
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (!OidIsValid(result.guard) && is_guard(index, columns))
			result.guard = RelationGetRelid(index);
		else if (index->rd_index->indisunique || index->rd_index->indisexclusion)
		{
			result.only_unique = false;
			result.deferrable |= !index->rd_index->indimmediate;
		}
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return result;
}

/* Is the table, which is open, partitioned by ranges of just the position? */
bool
StreamIndexByPosition(Relation rel, const EventColumns *columns)
{
	PartitionKey key = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ?
		RelationGetPartitionKey(rel) : NULL;

	return key != NULL && get_partition_strategy(key) == PARTITION_STRATEGY_RANGE &&
		get_partition_natts(key) == 1 &&
		get_partition_col_attnum(key, 0) == columns->attno[EVENT_GLOBAL_POSITION] &&
		key->partopfamily[0] == INTEGER_BTREE_FAM_OID;
}

/*
 * The index that guards the streams of a table that is locked; for a partition,
 * that of the partition; InvalidOid for a table that is partitioned by position.  Cached, since triggers ask for every row.  Locks
 * what the table is a partition of in AccessShareLock, as the server does for
 * a partition's constraint.
 *
 * Raises 55000 when nothing guards them, QE606 when the table is distributed.
 */
Oid
StreamIndexRequire(Relation rel, const EventColumns *columns)
{
	Oid			relid = RelationGetRelid(rel);
	uint64		as_of = invalidations;
	GuardedTable *known = NULL;
	Oid			guard;

	if (guarded_tables && guarded_as_of == invalidations)
		known = hash_search(guarded_tables, &relid, HASH_FIND, NULL);
	if (known)
		return known->guard;

	if (!DistributionIsOurs(rel))
		DistributionRefuse(rel, "events");
	check_collations(rel, columns);
	check_partitioning(rel, columns);
	check_children(rel);
	guard = StreamIndexesOf(rel, columns).guard;
	if (!OidIsValid(guard) && !StreamIndexByPosition(rel, columns))
		report_unguarded(rel);
	remember(relid, guard, as_of);
	return guard;
}

/* Any relation may be one that the answer for another hangs on. */
static void
count_invalidation(Oid relid)
{
	invalidations++;
}

/* Keep the answer, if it is still what it was when the question was asked. */
static void
remember(Oid relid, Oid guard, uint64 as_of)
{
	GuardedTable *entry;

	if (guarded_tables && guarded_as_of != as_of)
	{
		hash_destroy(guarded_tables);
		guarded_tables = NULL;
	}
	if (guarded_tables == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(Oid),.entrysize = sizeof(GuardedTable),
			.hcxt = TopMemoryContext};

		guarded_tables = hash_create("cqrs_es guarded tables", 16, &control,
									 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		guarded_as_of = as_of;
	}
	entry = hash_search(guarded_tables, &relid, HASH_ENTER, NULL);
	entry->guard = guard;
}

static bool
is_guard(Relation index, const EventColumns *columns)
{
	Form_pg_index form = index->rd_index;
	const int16 *key = form->indkey.values;
	int			i;

	if (index->rd_rel->relam != BTREE_AM_OID || !form->indisvalid || !form->indisready ||
		!form->indisunique || form->indisexclusion || !form->indimmediate ||
		form->indnkeyatts != 4 || key[3] != columns->attno[EVENT_SEQUENCE] ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	for (i = 0; i < 4; i++)
	{
		if (index->rd_indoption[i] != 0 ||
			index->rd_opfamily[i] != (i < 3 ? TEXT_BTREE_FAM_OID : INTEGER_BTREE_FAM_OID) ||
			(i < 3 && (!is_stream_column(key[i], columns) ||
					   !is_deterministic(index->rd_indcollation[i]))))
			return false;
	}
	return key[0] != key[1] && key[0] != key[2] && key[1] != key[2];
}

/* Is it a column of the stream's key? */
static bool
is_stream_column(AttrNumber attno, const EventColumns *columns)
{
	return attno == columns->attno[EVENT_AGGREGATE_TYPE] ||
		attno == columns->attno[EVENT_AGGREGATE_ID] ||
		attno == columns->attno[EVENT_TENANT_ID];
}

/* Mostly it is "C", and need not be looked up. */
static bool
is_deterministic(Oid collation)
{
	return collation == C_COLLATION_OID || get_collation_isdeterministic(collation);
}

/*
 * A column of the stream's key, by which SQL looks for a stream, that has a
 * nondeterministic collation: its name, palloc'd; NULL when there is none.
 */
static const char *
nondeterministic_column(Relation rel, const EventColumns *columns)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			i;

	for (i = 0; i < desc->natts; i++)
		if (is_stream_column(i + 1, columns) &&
			!is_deterministic(TupleDescAttr(desc, i)->attcollation))
			return pstrdup(NameStr(TupleDescAttr(desc, i)->attname));
	return NULL;
}

static void
check_collations(Relation rel, const EventColumns *columns)
{
	const char *column = nondeterministic_column(rel, columns);

	if (column)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("events cannot be written to table \"%s\"", RelationGetRelationName(rel)),
				 errdetail("Column \"%s\" has a nondeterministic collation, in which different streams are equal.",
						   column),
				 errhint("Give it the collation \"C\".")));
}

/*
 * Of a partition, all that it is a part of.  The columns are found anew on each
 * level: their numbers may differ.
 */
static void
check_partitioning(Relation rel, const EventColumns *columns)
{
	PartitionKey key = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ?
		RelationGetPartitionKey(rel) : NULL;
	bool		by_position = StreamIndexByPosition(rel, columns);
	int			i;

	if (by_position && rel->rd_rel->relispartition)
		report_nested(rel);
	if (by_position && OidIsValid(get_default_partition_oid(RelationGetRelid(rel))))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("events cannot be written to table \"%s\"", RelationGetRelationName(rel)),
				 errdetail("It is partitioned by position, and has a default partition, which has no place in the order of the others."),
				 errhint("Detach the default partition, and make partitions ahead with keep_partitions().")));
	for (i = 0; key != NULL && i < get_partition_natts(key); i++)
	{
		if (!by_position && !is_stream_column(get_partition_col_attnum(key, i), columns))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("events cannot be written to table \"%s\"", RelationGetRelationName(rel)),
					 errdetail("Its partitions do not keep the events of a stream together."),
					 errhint("Partition it by columns among " STREAM_COLUMNS ", or by ranges of global_position alone.")));
	}
	if (rel->rd_rel->relispartition)
	{
		Relation	parent = relation_open(get_partition_parent(RelationGetRelid(rel), true),
										   AccessShareLock);
		EventColumns parent_columns;

		EventColumnsOf(parent, &parent_columns);
		(void) StreamIndexRequire(parent, &parent_columns);
		if (StreamIndexByPosition(parent, &parent_columns) && rel->rd_rel->relkind != RELKIND_RELATION)
			report_nested(rel);
		relation_close(parent, AccessShareLock);
	}
}

static void
report_nested(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("events cannot be written to table \"%s\"", RelationGetRelationName(rel)),
			 errdetail("A log that is partitioned by position has partitions on one level, which are ordinary tables.")));
}

static void
check_children(Relation rel)
{
	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE && rel->rd_rel->relhassubclass &&
		find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("events cannot be written to table \"%s\"", RelationGetRelationName(rel)),
				 errdetail("It has child tables, which no unique index covers together with it."),
				 errhint("Partition it by columns among " STREAM_COLUMNS " instead.")));
}

static void
report_unguarded(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("events cannot be written to table \"%s\"", RelationGetRelationName(rel)),
			 errdetail("No unique index keeps two events of a stream from having one sequence."),
			 errhint("It takes a primary key or unique index, valid and not deferrable, on just "
					 STREAM_COLUMNS ", in any order, and then sequence.")));
}
