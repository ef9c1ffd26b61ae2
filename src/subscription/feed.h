/*-------------------------------------------------------------------------
 * feed.h
 *	  The subscription by which an asynchronous projection gets its events.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_FEED_H
#define CQRS_ES_FEED_H

#include "subscription/new_batch.h"
#include "subscription/share.h"

/* the one consumer of a feed: of all who could run the projection there is one at a time */
#define FEED_CONSUMER	"projection"

/* A batch that whoever runs a projection has in hand. */
typedef struct FeedBatch
{
	BatchSink	sink;			/* first */
	MemoryContext memory;		/* holds the events; reset with each batch */
	pg_uuid_t	token;
	BatchKind	kind;
	int			n;				/* 0: none is in hand */
	int			allocated;
	Event	  **events;
} FeedBatch;

extern FeedBatch *FeedBatchMake(Size max_bytes);
extern void FeedBatchForget(FeedBatch *batch);
extern bool FeedReceive(Subscription *subscription, FeedBatch *batch, int max_count);
extern void FeedFence(const Subscription *subscription, const FeedBatch *batch);
extern void FeedNote(const Subscription *subscription, const FeedBatch *batch, const Event *event,
					 const char *error, bool give_up);
extern void FeedAck(Subscription *subscription, const FeedBatch *batch);
extern void FeedRelease(const Subscription *subscription, const FeedBatch *batch,
						const char *error, TimestampTz retry_at);

extern void FeedSetWanted(void (*tell) (void));
extern void FeedWanted(void);
extern void FeedCreate(const text *name, Oid owner, NullableDatum aggregate_types, NullableDatum tags,
					   bool per_stream, int64 position);
extern void FeedDrop(const text *name);
extern void FeedGive(const text *name, Oid owner);
extern void FeedOrder(const text *name, bool per_stream);
extern int64 FeedHoldStill(const text *name);
extern void FeedGoOn(const text *name, int64 position);
extern void FeedForgetFailures(const text *name);
extern bool FeedHasFailures(const text *name);

#endif							/* CQRS_ES_FEED_H */
