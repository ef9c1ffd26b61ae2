/*-------------------------------------------------------------------------
 * wakeup.h
 *	  Waiting for other transactions to end, and waking who waits.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_WAKEUP_H
#define CQRS_ES_WAKEUP_H

#include "datatype/timestamp.h"

/* What somebody waits for, which monitors see. */
typedef enum WakeupReason
{
	WAKEUP_EVENTS,				/* that there is something to do */
	WAKEUP_SETTLED,				/* for transactions that may still fill a gap */
	WAKEUP_PROJECTION			/* until a projection has handled a position */
} WakeupReason;

/* Someone waiting; all zero before the first sleep. */
typedef struct Waiter
{
	WakeupReason reason;
	bool		session;		/* stay registered over the ends of transactions */

	/* private */
	bool		registered;
	long		sleep_ms;		/* the time of the last sleep, at most */
	int			in_vain;		/* wakes in a row */
	bool		rested;			/* since the last of them */
} Waiter;

extern void WakeupInit(void);
extern void WakeupAtEnd(void);
extern void WakeupEnter(Waiter *waiter);
extern bool WakeupSleep(Waiter *waiter, TimestampTz deadline, long longest_ms);
extern void WakeupRest(Waiter *waiter, long ms);
extern int	WakeupOthers(void);
extern void WakeupLeave(Waiter *waiter);

#endif							/* CQRS_ES_WAKEUP_H */
