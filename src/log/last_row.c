/*-------------------------------------------------------------------------
 * last_row.c
 *	  The last row of a table under given leading columns of a btree index:
 *	  the end of a stream, which every append has to know.
 *
 * An index scan gives the same, but it is made for many rows and for any type:
 * before it hands out the first it checks all entries of the stream on the page (for a
 * stream of 100 events that is a third of the whole append), and it takes each column of
 * each entry out anew, and compares texts through the collation.  Here the tree is
 * descended as the index itself does it, with one walk over the bytes of an entry, and of
 * the page where that ends one entry is looked at.  When that page alone does not tell
 * (nothing to be seen is left on it, or duplicates of aborted appends have been packed
 * into one entry), or the bytes do not (nulls, which somebody has allowed, or a text so
 * long that it was compressed), the caller scans after all.  So he does when there are more than
 * a few rows that are not to be seen: a scan tells the index of the dead ones, which are passed
 * without a look from then on.
 *
 * Who looks again soon need not descend again: what comes behind the row would go to its page,
 * and whatever happens to a page's entries is written to the WAL, and leaves its place there on
 * the page.  (But for hints that an entry is dead, which hide none that anybody could see.)
 *
 * Rows are visited under the page's lock, as the index itself does it when it
 * looks for duplicates: in no other order, and the entry stays while we look.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/tableam.h"
#include "access/tupmacs.h"
#include "catalog/pg_collation_d.h"

#include "base/compat.h"
#include "log/last_row.h"

/* So many rows are passed that are not to be seen. */
#define MAX_UNSEEN 4

/* What is looked for. */
typedef struct RowSearch
{
	Relation	heap;
	Relation	index;
	int			nvalues;
	const char *values[INDEX_MAX_KEYS];
	int			lengths[INDEX_MAX_KEYS];
	bool		unclear;		/* an entry was met whose bytes do not tell */
} RowSearch;

static Buffer find_leaf(RowSearch *search);
static OffsetNumber first_behind(RowSearch *search, Page page);
static int	compare(RowSearch *search, Page page, OffsetNumber offset);
static LastRow last_row_on_page(RowSearch *search, Buffer leaf, Snapshot snapshot,
								TupleTableSlot *slot, LastRowPlace *place);
static bool fetch_row(Relation heap, const ItemPointerData *row, Snapshot snapshot,
					  TupleTableSlot *slot);

/*
 * The last row that the snapshot lets see, in the order of the index, among
 * those whose first nvalues columns, of type text, have these values.  With a
 * dirty snapshot that may be one in progress.  Both relations are locked; the
 * slot is one of the heap's.  *place says where it is, if no row has been passed, and
 * LastRowIsStill could tell.
 */
LastRow
LastRowFind(Relation heap, Relation index, text *const *values, int nvalues,
			Snapshot snapshot, TupleTableSlot *slot, LastRowPlace *place)
{
	RowSearch	search;
	Buffer		leaf;
	LastRow		result;
	int			i;

	search.heap = heap;
	search.index = index;
	search.nvalues = nvalues;
	search.unclear = false;
	place->index = InvalidOid;
	for (i = 0; i < nvalues; i++)
	{
		if (index->rd_indcollation[i] != C_COLLATION_OID)
			return LAST_ROW_UNKNOWN;
		search.values[i] = VARDATA_ANY(values[i]);
		search.lengths[i] = VARSIZE_ANY_EXHDR(values[i]);
	}
	leaf = find_leaf(&search);
	if (search.unclear)
		return LAST_ROW_UNKNOWN;
	if (!BufferIsValid(leaf))
		return LAST_ROW_NONE;
	result = last_row_on_page(&search, leaf, snapshot, slot, place);
	_bt_relbuf(index, leaf);
	return search.unclear ? LAST_ROW_UNKNOWN : result;
}

/*
 * Is the row at a place still the last, and does the snapshot let it be seen?  Into the slot,
 * then.  False also where that does not show at once.  As LastRowFind else.
 */
bool
LastRowIsStill(Relation heap, Relation index, const LastRowPlace *place, Snapshot snapshot,
			   TupleTableSlot *slot)
{
	Buffer		leaf;
	bool		found;

	if (place->index != RelationGetRelid(index) || place->file != index->rd_rel->relfilenode)
		return false;
	leaf = _bt_relandgetbuf(index, InvalidBuffer, place->block, BT_READ);
	found = BufferGetLSNAtomic(leaf) == place->changed &&
		fetch_row(heap, &place->row, snapshot, slot);
	_bt_relbuf(index, leaf);
	return found;
}

/*
 * The leaf page, locked, where entries end that begin with the values; no buffer when the
 * index is empty, or bytes on the way do not tell (search->unclear).
 */
static Buffer
find_leaf(RowSearch *search)
{
	Buffer		buffer = compat_bt_getroot(search->index, search->heap);

	while (BufferIsValid(buffer))
	{
		Page		page = BufferGetPage(buffer);
		BTPageOpaque opaque = BTPageGetOpaque(page);
		BlockNumber next;

		if (P_IGNORE(opaque) && P_RIGHTMOST(opaque))
			elog(ERROR, "fell off the end of index \"%s\"",
				 RelationGetRelationName(search->index));
		/* it may have been split, or emptied, since we read where it is */
		if (!P_RIGHTMOST(opaque) && (P_IGNORE(opaque) || compare(search, page, P_HIKEY) >= 0))
			next = opaque->btpo_next;
		else if (P_ISLEAF(opaque))
			break;
		else
		{
			ItemId		item = PageGetItemId(page, OffsetNumberPrev(first_behind(search, page)));

			next = BTreeTupleGetDownLink((IndexTuple) PageGetItem(page, item));
		}
		/* bytes that do not tell might lead through the whole level */
		if (search->unclear)
		{
			_bt_relbuf(search->index, buffer);
			return InvalidBuffer;
		}
		buffer = _bt_relandgetbuf(search->index, buffer, next, BT_READ);
	}
	return buffer;
}

/* The first entry of a page that is behind the values; one behind the last when none is. */
static OffsetNumber
first_behind(RowSearch *search, Page page)
{
	BTPageOpaque opaque = BTPageGetOpaque(page);
	OffsetNumber low = P_FIRSTDATAKEY(opaque);
	OffsetNumber high = OffsetNumberNext(PageGetMaxOffsetNumber(page));

	/* the first key of an inner page is before everything, whatever is written there */
	if (!P_ISLEAF(opaque))
		low = OffsetNumberNext(low);
	while (low < high && !search->unclear)
	{
		OffsetNumber middle = low + (high - low) / 2;

		if (compare(search, page, middle) >= 0)
			low = OffsetNumberNext(middle);
		else
			high = middle;
	}
	return low;
}

/*
 * The values against an entry's: negative, 0 or positive.  As in the server, what was cut off
 * an inner entry, or a high key, is before everything.
 */
static int
compare(RowSearch *search, Page page, OffsetNumber offset)
{
	IndexTuple	entry = (IndexTuple) PageGetItem(page, PageGetItemId(page, offset));
	const char *column = (const char *) entry + IndexInfoFindDataOffset(entry->t_info);
	bits8	   *nulls = (bits8 *) (entry + 1);
	int			natts = Min(BTreeTupleGetNAtts(entry, search->index), search->nvalues);
	int			i;

	for (i = 0; i < natts && !search->unclear; i++)
	{
		int			length;
		int			result;

		if (IndexTupleHasNulls(entry) && att_isnull(i, nulls))
		{
			search->unclear = true;
			break;
		}
		if (VARATT_IS_SHORT(column))
		{
			length = VARSIZE_SHORT(column) - VARHDRSZ_SHORT;
			column = VARDATA_SHORT(column);
		}
		else
		{
			column = (const char *) att_align_pointer(column, TYPALIGN_INT, -1, column);
			if (VARATT_IS_EXTENDED(column))
			{
				search->unclear = true;
				break;
			}
			length = VARSIZE(column) - VARHDRSZ;
			column = VARDATA(column);
		}
		result = memcmp(search->values[i], column, Min(search->lengths[i], length));
		if (result == 0)
			result = search->lengths[i] - length;
		if (result != 0)
			return result;
		column += length;
	}
	return natts < search->nvalues ? 1 : 0;
}

/* From the locked leaf page to which the values lead. */
static LastRow
last_row_on_page(RowSearch *search, Buffer leaf, Snapshot snapshot, TupleTableSlot *slot,
				 LastRowPlace *place)
{
	Page		page = BufferGetPage(leaf);
	OffsetNumber first = P_FIRSTDATAKEY(BTPageGetOpaque(page));
	OffsetNumber offset = first_behind(search, page);
	int			unseen = 0;

	/* back over rows that are not to be seen */
	while (offset > first && unseen < MAX_UNSEEN && !search->unclear)
	{
		ItemId		item;
		IndexTuple	entry;

		offset = OffsetNumberPrev(offset);
		if (compare(search, page, offset) != 0)
			return LAST_ROW_NONE;
		item = PageGetItemId(page, offset);
		entry = (IndexTuple) PageGetItem(page, item);
		if (ItemIdIsDead(item))
			continue;
		/* rows of one key, merged when the page was full: seldom, where none is updated */
		if (BTreeTupleIsPosting(entry))
			return LAST_ROW_UNKNOWN;
		if (fetch_row(search->heap, &entry->t_tid, snapshot, slot))
		{
			/* without WAL a page does not show that it has changed */
			if (unseen == 0 && RelationNeedsWAL(search->index))
			{
				place->index = RelationGetRelid(search->index);
				place->file = search->index->rd_rel->relfilenode;
				place->block = BufferGetBlockNumber(leaf);
				place->changed = BufferGetLSNAtomic(leaf);
				place->row = entry->t_tid;
			}
			return LAST_ROW_FOUND;
		}
		unseen++;
	}
	return LAST_ROW_UNKNOWN;
}

/* The row of an entry, if the snapshot lets it be seen. */
static bool
fetch_row(Relation heap, const ItemPointerData *row, Snapshot snapshot, TupleTableSlot *slot)
{
	ItemPointerData tid = *row;
	IndexFetchTableData *fetch = table_index_fetch_begin(heap);
	bool		call_again = false;
	bool		found = table_index_fetch_tuple(fetch, &tid, snapshot, slot, &call_again, NULL);

	table_index_fetch_end(fetch);
	return found;
}
