/*-------------------------------------------------------------------------
 * dead_letter.h
 *	  Events that a subscription gave up.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DEAD_LETTER_H
#define CQRS_ES_DEAD_LETTER_H

#include "log/events.h"
#include "subscription/share.h"

/* A skipped event that is to be handed out once more. */
typedef struct DeadLetter
{
	int64		id;
	StreamKey	key;
	int64		sequence;
	int			attempts;		/* so often it has failed since it was redriven */
	int			deliveries;		/* so often a consumer was lost with it alone */
	bool		is_suspect;		/* it was in hand when a consumer was lost */
	TimestampTz retry_at;
} DeadLetter;

extern void DeadLetterWrite(const Subscription *subscription, const Event *event, const char *state,
							int attempts, const text *error);
extern DeadLetter *DeadLettersDue(const Subscription *subscription, const Share *share,
								  int max_count, int *n);
extern DeadLetter *DeadLetterInHand(const Subscription *subscription, const pg_uuid_t *token,
									const StreamKey *key);
extern void DeadLetterHandOut(const DeadLetter *letter, const pg_uuid_t *token);
extern void DeadLetterFailed(const DeadLetter *letter, int attempts, TimestampTz retry_at,
							 const text *error);
extern void DeadLetterLock(void);
extern void DeadLettersDone(const Subscription *subscription, const pg_uuid_t *token);
extern void DeadLettersPassed(const Subscription *subscription, const pg_uuid_t *token);
extern void DeadLettersPassedBefore(const Subscription *subscription, const StreamKey *key,
									int64 sequence);
extern void DeadLettersReturn(const Subscription *subscription, const pg_uuid_t *token,
							  const text *lost_by);

#endif							/* CQRS_ES_DEAD_LETTER_H */
