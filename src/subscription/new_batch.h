/*-------------------------------------------------------------------------
 * new_batch.h
 *	  A batch that is being made, and what cannot be handed out.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_NEW_BATCH_H
#define CQRS_ES_NEW_BATCH_H

#include "access/xlogdefs.h"

#include "base/role_switch.h"
#include "log/events.h"
#include "subscription/share.h"

struct NewBatch;

/* Who gets the events of a batch as they are found, and what of it there may be. */
typedef struct BatchSink
{
	/* An event of the batch, to be copied; and: it begins anew. */
	void		(*add) (struct BatchSink *sink, const struct NewBatch *batch, const Event *event,
						int attempt, bool redriven);
	void		(*clear) (struct BatchSink *sink);

	bool		as_stored;		/* the events; else in their newest versions */
	Size		max_bytes;		/* of the rows, but for the last; 0: any number */
	int64		stop_at;		/* events behind the share's position, up to this one,
								 * are not mixed with others; 0: none */
} BatchSink;

typedef struct NewBatch
{
	/* of the call */
	BatchSink  *sink;
	const Subscription *subscription;
	RoleSwitch *saved;			/* the caller; we are the owner of our tables */
	MemoryContext work;

	/* of the batch */
	pg_uuid_t	token;
	TimestampTz leased_until;
	int			n;				/* events */
	int			nhanded;		/* of which are handed out */
	Size		nbytes;			/* of their rows */
	int64		first;			/* position of the first event */
	int64		last;			/* of the last one that is handed out */
	List	   *failed;			/* FailedEvents */
	int64		halted_at;		/* in the order of the log: nothing from there on; 0: all */
	XLogRecPtr	flush_to;		/* commits of its events up to here may not be on disk */
	TransactionId last_xid;		/* of the last event that was looked at for that */
} NewBatch;

extern void NewBatchInit(NewBatch *batch, BatchSink *sink, const Subscription *subscription,
						 RoleSwitch *saved);
extern void NewBatchBegin(NewBatch *batch, int64 share);
extern void NewBatchAdd(NewBatch *batch, const Event *event, int attempt, bool redriven);
extern void NewBatchGiveUp(NewBatch *batch, const Event *event, text *error);
extern bool NewBatchIsFull(const NewBatch *batch, int max_count);
extern void NewBatchClear(NewBatch *batch);
extern void NewBatchNoteFailed(NewBatch *batch, Share *share);
extern void NewBatchFlush(const NewBatch *batch);

#endif							/* CQRS_ES_NEW_BATCH_H */
