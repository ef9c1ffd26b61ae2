/*-------------------------------------------------------------------------
 * last_row.h
 *	  The last row of a table under given leading columns of a btree index.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_LAST_ROW_H
#define CQRS_ES_LAST_ROW_H

#include "access/xlogdefs.h"
#include "executor/tuptable.h"
#include "storage/block.h"
#include "storage/itemptr.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

typedef enum LastRow
{
	LAST_ROW_NONE,
	LAST_ROW_FOUND,				/* it is in the slot */
	LAST_ROW_UNKNOWN			/* not to be told from one page: scan the index */
} LastRow;

/* Where a row was met that was the last: an entry of a page of the index, as it was then. */
typedef struct LastRowPlace
{
	Oid			index;			/* InvalidOid: nowhere of which one could tell */
	Oid			file;			/* in which the index was */
	BlockNumber block;
	XLogRecPtr	changed;		/* the last change of the page */
	ItemPointerData row;
} LastRowPlace;

extern LastRow LastRowFind(Relation heap, Relation index, text *const *values, int nvalues,
						   Snapshot snapshot, TupleTableSlot *slot, LastRowPlace *place);
extern bool LastRowIsStill(Relation heap, Relation index, const LastRowPlace *place,
						   Snapshot snapshot, TupleTableSlot *slot);

#endif							/* CQRS_ES_LAST_ROW_H */
