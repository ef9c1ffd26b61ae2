/*-------------------------------------------------------------------------
 * batch_rows.h
 *	  The rows of a batch that is being made, and what cannot be handed out.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_BATCH_ROWS_H
#define CQRS_ES_BATCH_ROWS_H

#include "access/xlogdefs.h"
#include "nodes/execnodes.h"

#include "base/role_switch.h"
#include "log/events.h"
#include "subscription/share.h"

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
	/* of the call */
	ReturnSetInfo *result;
	const Subscription *subscription;
	RoleSwitch *saved;			/* the caller; we are the owner of our tables */
	MemoryContext work;

	/* of the batch */
	Datum		values[BATCH_NCOLUMNS];
	pg_uuid_t	token;
	int			n;				/* events */
	int			nrows;			/* of which are handed out */
	int64		first;			/* position of the first event */
	int64		last;			/* of the last one that is handed out */
	List	   *failed;			/* FailedEvents */
	int64		halted_at;		/* in the order of the log: nothing from there on; 0: all */
	XLogRecPtr	flush_to;		/* commits of its events up to here may not be on disk */
	TransactionId last_xid;		/* of the last event that was looked at for that */
} BatchRows;

extern void BatchRowsInit(BatchRows *rows, ReturnSetInfo *result,
						  const Subscription *subscription, RoleSwitch *saved);
extern void BatchRowsBegin(BatchRows *rows, int64 share);
extern void BatchRowsAdd(BatchRows *rows, const Event *event, int attempt, bool redriven);
extern void BatchRowsGiveUp(BatchRows *rows, const Event *event, text *error);
extern void BatchRowsClear(BatchRows *rows);
extern void BatchRowsNoteFailed(BatchRows *rows, Share *share);
extern void BatchRowsFlush(const BatchRows *rows);

#endif							/* CQRS_ES_BATCH_ROWS_H */
