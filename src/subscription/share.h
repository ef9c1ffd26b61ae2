/*-------------------------------------------------------------------------
 * share.h
 *	  A part of a subscription: some slots, a position, at most one batch in hand.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_SHARE_H
#define CQRS_ES_SHARE_H

#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "base/compat.h"
#include "base/role_switch.h"
#include "subscription/slot.h"
#include "subscription/subscription.h"

typedef enum BatchKind
{
	BATCH_NONE,
	BATCH_CURSOR,				/* events behind the position */
	BATCH_RETRY					/* parked streams that are due, or redriven letters */
} BatchKind;

/* A share as its row says, which is locked; palloc'd. */
typedef struct Share
{
	int64		number;
	SlotSet		slots;
	int64		position;
	TimestampTz position_at;

	/* what is in hand; without a batch the kind is BATCH_NONE and the rest says nothing */
	BatchKind	batch_kind;
	pg_uuid_t	batch;
	int64		batch_end;		/* BATCH_CURSOR: position when it is acknowledged */
	int			batch_count;
	TimestampTz handed_out_at;
	TimestampTz leased_until;
	text	   *consumer;		/* also of the batch before; NULL: none yet */
	bool		has_notes;		/* of events that were nacked, in this batch or one
								 * before */
	BatchKind	last_kind;

	/* crash loops */
	int64		alone_position; /* of the first event of the last batch of one; 0: none */
	int			deliveries;		/* so often a consumer was lost with just that */
	text	   *lost_by;		/* who lost the last batch; NULL: nobody since the
								 * position moved */
	int64		suspect_end;	/* up to here consumers may die; 0: nothing is suspect */
	int			batch_limit;	/* there so many events at most; 0: as many as wanted */

	/* when all fail */
	int			failures_in_row;
	int			circuit;		/* so often in a row it was left alone */
	TimestampTz retry_at;		/* nothing is handed out before; 0: at once */

	/* in the order of the log */
	int64		failed_position;	/* 0: none */
	int			attempts;
	text	   *error;
} Share;

extern RoleSwitch ShareEnter(void);
extern void ShareLeave(const RoleSwitch *saved);
extern uint64 ShareQuery(InternalQuery *query, Datum *values, const char *nulls);
extern text *ShareSubscription(const pg_uuid_t *token);
extern Share *ShareLockNext(const Subscription *subscription, const text *consumer, bool resume,
							int64 before_position, const int64 *tried, int ntried);
extern Share *ShareLockOnly(const text *subscription);
extern Share *ShareLockBatch(const Subscription *subscription, const pg_uuid_t *token);
pg_noreturn extern void ShareReportGone(void);
extern void ShareStore(const Share *share);
extern void ShareFree(Share *share);
extern void ShareSplit(const Subscription *subscription, Share *share);
extern int	ShareMerge(const Subscription *subscription, Share *share, int max_count);
extern int64 ShareNextPosition(const Subscription *subscription, const Share *share);

#endif							/* CQRS_ES_SHARE_H */
