/*-------------------------------------------------------------------------
 * parked_stream.h
 *	  Streams that wait behind an event that failed.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PARKED_STREAM_H
#define CQRS_ES_PARKED_STREAM_H

#include "base/stream_key.h"
#include "subscription/share.h"

/* One of them, as its row says. */
typedef struct ParkedStream
{
	StreamKey	key;
	int64		sequence;		/* of the first event that is not done */
	int			attempts;		/* so often it has failed */
	int			deliveries;		/* so often a consumer was lost with it alone */
	int64		suspect_to;		/* up to this sequence consumers may die of it; 0: of
								 * nothing */
	TimestampTz retry_at;		/* 0: when somebody decides */
	bool		in_hand;		/* in `batch`, if that still is in hand */
	pg_uuid_t	batch;
	int64		handed_to;
} ParkedStream;

extern ParkedStream *ParkedStreamsDue(const Subscription *subscription, const Share *share,
									  int max_count, int *n);
extern ParkedStream *ParkedStreamFind(const Subscription *subscription, const StreamKey *key);
extern void ParkedStreamPark(const Subscription *subscription, const StreamKey *key,
							 int64 sequence, int64 global_position, int attempts,
							 TimestampTz retry_at, const text *error);
extern void ParkedStreamHandOut(const Subscription *subscription, const ParkedStream *parked,
								const pg_uuid_t *token, int64 handed_to);
extern void ParkedStreamRejoin(const Subscription *subscription, const ParkedStream *parked);
extern void ParkedStreamsDone(const Subscription *subscription, const pg_uuid_t *token);
extern void ParkedStreamsReturn(const Subscription *subscription, const pg_uuid_t *token,
								const text *lost_by);

#endif							/* CQRS_ES_PARKED_STREAM_H */
