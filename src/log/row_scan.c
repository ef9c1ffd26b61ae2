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
	Relation	heap;
	Relation	index;
	IndexScanDesc entries;
	ScanDirection direction;
	ItemPointerData ahead;		/* where the next entry leads; invalid at the end */
	Buffer		page;			/* of the rows; pinned */
	int			max_rows;		/* grows from 1: many scans want no second row */
	int			nrows;
	int			next_row;
	HeapTupleData rows[MAX_ROWS];
};

static void look_ahead(RowScan *scan);
static void fetch_rows(RowScan *scan);
static bool fetch_row(const RowScan *scan, ItemPointer tid, bool all_visible, HeapTuple row);

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
	scan->heap = heap;
	scan->index = index;
	scan->direction = direction;
	scan->page = InvalidBuffer;
	scan->max_rows = 1;
	scan->nrows = 0;
	scan->next_row = 0;
	scan->entries = compat_index_beginscan(heap, index, snapshot, nkeys);
	index_rescan(scan->entries, keys, nkeys, NULL, 0);
	look_ahead(scan);
	return scan;
}

/* The next row, NULL at the end; good until the next call. */
HeapTuple
RowScanNext(RowScan *scan)
{
	while (scan->next_row >= scan->nrows)
	{
		if (!ItemPointerIsValid(&scan->ahead))
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

/* Move on in the index. */
static void
look_ahead(RowScan *scan)
{
	ItemPointer tid = index_getnext_tid(scan->entries, scan->direction);

	if (tid)
		scan->ahead = *tid;
	else
		ItemPointerSetInvalid(&scan->ahead);
}

/* Fetch the rows that the next entries lead to, as long as they are on one page. */
static void
fetch_rows(RowScan *scan)
{
	BlockNumber block = ItemPointerGetBlockNumber(&scan->ahead);
	ItemPointerData tids[MAX_ROWS];
	int			ntids = 0;
	bool		all_visible;
	int			i;

	/* before the page is locked: who inserts locks the index first */
	do
	{
		tids[ntids++] = scan->ahead;
		look_ahead(scan);
	} while (ntids < scan->max_rows && ItemPointerIsValid(&scan->ahead) &&
			 ItemPointerGetBlockNumber(&scan->ahead) == block);
	scan->max_rows = Min(2 * scan->max_rows, MAX_ROWS);

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
		if (fetch_row(scan, &tids[i], all_visible, &scan->rows[scan->nrows]))
			scan->nrows++;
	LockBuffer(scan->page, BUFFER_LOCK_UNLOCK);
}

/* The row on the locked page; false when there is none for the snapshot. */
static bool
fetch_row(const RowScan *scan, ItemPointer tid, bool all_visible, HeapTuple row)
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
									 row, NULL, true))
		return false;
	pgstat_count_heap_fetch(scan->index);
	return true;
}
