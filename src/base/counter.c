/*-------------------------------------------------------------------------
 * counter.c
 *	  Counting for whoever monitors, in the server's own statistics.
 *
 * Nothing of ours is preloaded, so there is no shared memory for counters, and a row
 * that counts would be a write for everybody who reads.  But the server counts what
 * happens to each relation: in the session first, in shared memory soon after the
 * transaction has ended, however it ended.  It keeps that over a restart, has it on
 * standbys, and forgets it at pg_stat_reset() and after a crash.  So a thing that is counted
 * has a table without rows, which nobody reads; its statistics are ours:
 *
 *	sequential scans			how often it happened
 *	rows that these returned	an amount that belongs to it
 *	rows that were fetched		how often it was a hit, or of a kind
 *
 * The view "counters" has them by their names (sql/aggregate/680_counters.sql).  A count
 * costs a lock that nobody contends for and a look into the relcache: nothing beside a
 * query, too much for each event.
 *
 * Counting must neither wait nor fail: what cannot be had at once is not counted.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/rel.h"

#include "base/counter.h"
#include "base/extension.h"

/*
 * It happened once more, with this amount.  `table` is one without rows, or it is not
 * there.  Looks into the catalog; takes AccessShareLock on the table, and gives it back.
 */
void
CounterAdd(const char *table, int64 amount, bool is_hit)
{
	Oid			relid = ExtensionFindRelid(table);
	Relation	rel;

	if (!pgstat_track_counts || !OidIsValid(relid) ||
		!ConditionalLockRelationOid(relid, AccessShareLock))
		return;
	rel = try_relation_open(relid, NoLock);
	if (rel != NULL)
	{
		pgstat_count_heap_scan(rel);
		pgstat_count_index_tuples(rel, amount);
		if (is_hit)
			pgstat_count_heap_fetch(rel);
		relation_close(rel, NoLock);
	}
	UnlockRelationOid(relid, AccessShareLock);
}
