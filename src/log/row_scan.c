/*-------------------------------------------------------------------------
 * row_scan.c
 *	  The rows of a heap in the order of an index, fetched page by page.
 *
 * The events of a stream were often written one after the other and lie side
 * by side.  The server's own index scan does not know that: for each row it
 * looks up the page, locks it, finds out whether the row is visible, and
 * unlocks it, which is a third of what reading the row costs.  Here the entries
 * of the index are taken as long as they lead to one page, and their rows are
 * fetched together.  A pin keeps them where they are until they are handed out.
 *
 * What is seen is what an index scan sees under the same MVCC snapshot, and
 * SERIALIZABLE learns of the same reads: of index pages from the index, of rows
 * from heap_hot_search_buffer.
 *
 * And as an index scan does, it tells the index of entries whose rows nobody can see
 * any more, so that those who come after it need not look at them: otherwise a
 * batch that was rolled back would cost every reader until the next vacuum.  That
 * can be told only of the entry taken last.  So where dead rows turn up entries are
 * taken one by one, until there is a row to be seen again.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/relscan.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "log/row_scan.h"

/* rows fetched at once, at most; more gain little, and are wasted on short reads */
#define MAX_ROWS 16

struct RowScan
{
	MemoryContext memory;		/* of the scan; the index allocates in it */
	Relation	heap;
	Relation	index;
	IndexScanDesc entries;
	ScanDirection direction;
	bool		looked_ahead;	/* has the next entry been taken from the index? */
	ItemPointerData ahead;		/* where it leads; invalid at the end */
	Buffer		page;			/* of the rows; pinned */
	int			max_rows;		/* grows from 1: many scans want no second row */
	int			nrows;
	int			next_row;
	HeapTupleData rows[MAX_ROWS];
};

static bool look_ahead(RowScan *scan);
static void fetch_rows(RowScan *scan);
static bool fetch_row(const RowScan *scan, ItemPointer tid, bool all_visible, HeapTuple row,
					  bool *dead);

/*
 * Begin a scan.  Heap and index are the caller's, locked; the MVCC snapshot is
 * kept registered until RowScanEnd.  palloc'd in the current memory context.
 */
RowScan *
RowScanBegin(Relation heap, Relation index, ScanKey keys, int nkeys,
			 ScanDirection direction, Snapshot snapshot)
{
	RowScan    *scan = palloc(sizeof(RowScan));

	Assert(IsMVCCSnapshot(snapshot));
	scan->memory = CurrentMemoryContext;
	scan->heap = heap;
	scan->index = index;
	scan->direction = direction;
	scan->page = InvalidBuffer;
	scan->entries = compat_index_beginscan(heap, index, snapshot, nkeys);
	RowScanRestart(scan, keys, nkeys);
	return scan;
}

/* Begin anew, with other values in the same keys. */
void
RowScanRestart(RowScan *scan, ScanKey keys, int nkeys)
{
	scan->max_rows = 1;
	scan->nrows = 0;
	scan->next_row = 0;
	scan->looked_ahead = false;
	index_rescan(scan->entries, keys, nkeys, NULL, 0);
}

/* The next row, NULL at the end; good until the next call. */
HeapTuple
RowScanNext(RowScan *scan)
{
	while (scan->next_row >= scan->nrows)
	{
		if (!look_ahead(scan))
			return NULL;
		CHECK_FOR_INTERRUPTS();
		fetch_rows(scan);
	}
	return &scan->rows[scan->next_row++];
}

void
RowScanEnd(RowScan *scan)
{
	if (BufferIsValid(scan->page))
		ReleaseBuffer(scan->page);
	index_endscan(scan->entries);
	pfree(scan);
}

/* Where does the next entry lead?  False at the end. */
static bool
look_ahead(RowScan *scan)
{
	if (!scan->looked_ahead)
	{
		/* what it notes of dead entries outlives the caller's memory for one event */
		MemoryContext caller = MemoryContextSwitchTo(scan->memory);
		ItemPointer tid = index_getnext_tid(scan->entries, scan->direction);

		MemoryContextSwitchTo(caller);
		if (tid)
			scan->ahead = *tid;
		else
			ItemPointerSetInvalid(&scan->ahead);
		scan->looked_ahead = true;
	}
	return ItemPointerIsValid(&scan->ahead);
}

/* Fetch the rows that the next entries lead to, as long as they are on one page. */
static void
fetch_rows(RowScan *scan)
{
	BlockNumber block = ItemPointerGetBlockNumber(&scan->ahead);
	ItemPointerData tids[MAX_ROWS];
	int			ntids = 0;
	bool		all_visible;
	bool		any_dead = false;
	int			i;

	/* before the page is locked: who inserts locks the index first */
	do
	{
		tids[ntids++] = scan->ahead;
		scan->looked_ahead = false;
	} while (ntids < scan->max_rows && look_ahead(scan) &&
			 ItemPointerGetBlockNumber(&scan->ahead) == block);

	scan->page = ReleaseAndReadBuffer(scan->page, scan->heap, block);
	LockBuffer(scan->page, BUFFER_LOCK_SHARE);

	/*
	 * When vacuum found all rows of the page visible to everyone, there is no need to
	 * look at each.  As in other scans of the server, not so on a standby, where
	 * snapshots can be older than what the primary goes by, and not in SERIALIZABLE,
	 * which takes note of every row.
	 */
	all_visible = PageIsAllVisible(BufferGetPage(scan->page)) &&
		!scan->entries->xs_snapshot->takenDuringRecovery && !IsolationIsSerializable();
	scan->nrows = 0;
	scan->next_row = 0;
	for (i = 0; i < ntids; i++)
	{
		bool		dead = false;

		if (fetch_row(scan, &tids[i], all_visible, &scan->rows[scan->nrows], &dead))
			scan->nrows++;
		any_dead |= dead;
	}
	LockBuffer(scan->page, BUFFER_LOCK_UNLOCK);
	scan->max_rows = any_dead ? 1 : Min(2 * scan->max_rows, MAX_ROWS);

	/*
	 * As index_fetch_heap does: not on a standby, whose older snapshots may see them.
	 * And only when no other entry has been taken since.
	 */
	if (any_dead && ntids == 1 && !scan->looked_ahead && !scan->entries->xactStartedInRecovery)
		scan->entries->kill_prior_tuple = true;
}

/*
 * The row on the locked page; false when there is none for the snapshot.  *dead when
 * there is none for anybody.
 */
static bool
fetch_row(const RowScan *scan, ItemPointer tid, bool all_visible, HeapTuple row, bool *dead)
{
	Page		page = BufferGetPage(scan->page);
	OffsetNumber offset = ItemPointerGetOffsetNumber(tid);

	/* an entry may be of a row that is gone, or lead to a chain of versions */
	if (all_visible && offset <= PageGetMaxOffsetNumber(page) &&
		ItemIdIsNormal(PageGetItemId(page, offset)))
	{
		ItemId		item = PageGetItemId(page, offset);

		row->t_data = (HeapTupleHeader) PageGetItem(page, item);
		row->t_len = ItemIdGetLength(item);
		row->t_self = *tid;
		row->t_tableOid = RelationGetRelid(scan->heap);
	}
	else if (!heap_hot_search_buffer(tid, scan->heap, scan->page, scan->entries->xs_snapshot,
									 row, dead, true))
		return false;
	pgstat_count_heap_fetch(scan->index);
	return true;
}
