/*-------------------------------------------------------------------------
 * last_row.h
 *	  The last row of a table under given leading columns of a btree index.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_LAST_ROW_H
#define CQRS_ES_LAST_ROW_H

#include "executor/tuptable.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

typedef enum LastRow
{
	LAST_ROW_NONE,
	LAST_ROW_FOUND,				/* it is in the slot */
	LAST_ROW_UNKNOWN			/* not to be told from one page: scan the index */
} LastRow;

extern LastRow LastRowFind(Relation heap, Relation index, text *const *values, int nvalues,
						   Snapshot snapshot, TupleTableSlot *slot);

#endif							/* CQRS_ES_LAST_ROW_H */
