/*-------------------------------------------------------------------------
 * batch_rows.h
 *	  The events of a batch as rows of a result.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_BATCH_ROWS_H
#define CQRS_ES_BATCH_ROWS_H

#include "nodes/execnodes.h"

#include "subscription/new_batch.h"

/* the columns of an event come after these */
typedef enum BatchColumn
{
	BATCH_COLUMN_BATCH,
	BATCH_COLUMN_ATTEMPT,
	BATCH_COLUMN_REDRIVEN,
	BATCH_COLUMN_LEASED_UNTIL
} BatchColumn;

#define BATCH_NCOLUMNS	(BATCH_COLUMN_LEASED_UNTIL + 1 + EVENT_NCOLUMNS)

typedef struct BatchRows
{
	BatchSink	sink;
	ReturnSetInfo *result;
	Datum		values[BATCH_NCOLUMNS];
} BatchRows;

extern void BatchRowsInit(BatchRows *rows, ReturnSetInfo *result);

#endif							/* CQRS_ES_BATCH_ROWS_H */
