/*-------------------------------------------------------------------------
 * last_row.c
 *	  The last row of a table under given leading columns of a btree index:
 *	  the end of a stream, which every append has to know.
 *
 * An index scan gives the same, but it is made for many rows: before it hands
 * out the first it checks all entries of the stream on the page (for a stream
 * of 100 events that is a third of the whole append), and it compares texts
 * through the collation.  Here the index's own descent is used, as amcheck does
 * it, with a comparison of bytes, and from the page where it ends one entry is
 * looked at.  When that page alone does not tell (nothing to be seen is left on
 * it, or duplicates of aborted appends have been packed into one entry), the
 * caller scans after all.
 *
 * Rows are visited under the page's lock, as the index itself does it when it
 * looks for duplicates: in no other order, and the entry stays while we look.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/tableam.h"
#include "catalog/pg_collation_d.h"
#include "fmgr.h"

#include "base/compat.h"
#include "log/last_row.h"

static BTScanInsert search_key(Relation index, text *const *values, int nvalues);
static Datum compare_bytes(PG_FUNCTION_ARGS);
static LastRow last_row_on_page(Relation heap, Relation index, BTScanInsert key, Page page,
								Snapshot snapshot, TupleTableSlot *slot);

/*
 * The last row that the snapshot lets see, in the order of the index, among
 * those whose first nvalues columns, of type text, have these values.  With a
 * dirty snapshot that may be one in progress.  Both relations are locked; the
 * slot is one of the heap's.
 */
LastRow
LastRowFind(Relation heap, Relation index, text *const *values, int nvalues,
			Snapshot snapshot, TupleTableSlot *slot)
{
	BTScanInsert key;
	Buffer		leaf;
	LastRow		result;
	int			i;

	for (i = 0; i < nvalues; i++)
		if (index->rd_indcollation[i] != C_COLLATION_OID)
			return LAST_ROW_UNKNOWN;

	key = search_key(index, values, nvalues);
	_bt_freestack(compat_bt_search(index, heap, key, &leaf));
	if (BufferIsValid(leaf))
	{
		result = last_row_on_page(heap, index, key, BufferGetPage(leaf), snapshot, slot);
		_bt_relbuf(index, leaf);
	}
	else
		result = LAST_ROW_NONE;
	pfree(key);
	return result;
}

/* A key that leads behind all entries that begin with these values. */
static BTScanInsert
search_key(Relation index, text *const *values, int nvalues)
{
	BTScanInsert key = _bt_mkscankey(index, NULL);
	int			i;

	/* without a tuple to search for, the key does not know the index's version */
	_bt_metaversion(index, &key->heapkeyspace, &key->allequalimage);
	key->nextkey = true;
	key->keysz = nvalues;
	for (i = 0; i < nvalues; i++)
	{
		key->scankeys[i].sk_flags &= ~SK_ISNULL;
		key->scankeys[i].sk_argument = PointerGetDatum(values[i]);
		key->scankeys[i].sk_func.fn_addr = compare_bytes;
	}
	return key;
}

/* What bttextcmp says under the collation "C", of an entry's text and ours. */
static Datum
compare_bytes(PG_FUNCTION_ARGS)
{
	text	   *entry = PG_GETARG_TEXT_PP(0);
	text	   *ours = (text *) PG_GETARG_POINTER(1);
	int			entry_len = VARSIZE_ANY_EXHDR(entry);
	int			our_len = VARSIZE_ANY_EXHDR(ours);
	int			result = memcmp(VARDATA_ANY(entry), VARDATA_ANY(ours), Min(entry_len, our_len));

	PG_RETURN_INT32(result != 0 ? result : entry_len - our_len);
}

/* From the locked leaf page to which the key leads. */
static LastRow
last_row_on_page(Relation heap, Relation index, BTScanInsert key, Page page,
				 Snapshot snapshot, TupleTableSlot *slot)
{
	OffsetNumber first = P_FIRSTDATAKEY(BTPageGetOpaque(page));
	OffsetNumber low = first;
	OffsetNumber high = OffsetNumberNext(PageGetMaxOffsetNumber(page));

	/* to the first entry behind */
	while (low < high)
	{
		OffsetNumber middle = low + (high - low) / 2;

		if (_bt_compare(index, key, page, middle) >= 0)
			low = OffsetNumberNext(middle);
		else
			high = middle;
	}

	/* and back, over rows that are not to be seen */
	while (low > first)
	{
		ItemId		item;
		IndexTuple	entry;

		low = OffsetNumberPrev(low);
		if (_bt_compare(index, key, page, low) != 0)
			return LAST_ROW_NONE;
		item = PageGetItemId(page, low);
		entry = (IndexTuple) PageGetItem(page, item);
		if (ItemIdIsDead(item))
			continue;
		/* rows of one key, merged when the page was full: seldom, where none is updated */
		if (BTreeTupleIsPosting(entry))
			return LAST_ROW_UNKNOWN;
		else
		{
			ItemPointerData tid = entry->t_tid;
			IndexFetchTableData *fetch = table_index_fetch_begin(heap);
			bool		call_again = false;
			bool		found = table_index_fetch_tuple(fetch, &tid, snapshot, slot,
														&call_again, NULL);

			table_index_fetch_end(fetch);
			if (found)
				return LAST_ROW_FOUND;
		}
	}
	return LAST_ROW_UNKNOWN;
}
