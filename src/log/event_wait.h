/*-------------------------------------------------------------------------
 * event_wait.h
 *	  Procedures that wait for events, and hold nothing meanwhile.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_EVENT_WAIT_H
#define CQRS_ES_EVENT_WAIT_H

#include "datatype/timestamp.h"
#include "fmgr.h"

#include "base/wakeup.h"

/*
 * Is the wait over?  Called in a transaction of its own with a fresh active snapshot;
 * it may take locks and write, which is committed right after; what it allocates is freed
 * then.  *longest_ms is the time
 * until it is called again without having been woken, to be lowered.
 */
typedef bool (*EventWaitLook) (void *arg, long *longest_ms);

/* wait_for_events for a subscription; it calls EventWaitFor. */
typedef bool (*EventWaitSubscription) (FunctionCallInfo fcinfo, text *subscription,
									   TimestampTz deadline);

extern void EventWaitBegin(FunctionCallInfo fcinfo, const char *procedure);
extern void EventWaitEndTransaction(void);
extern long EventWaitRest(int64 number, bool gathers);
extern bool EventWaitFor(FunctionCallInfo fcinfo, const char *procedure,
						 TimestampTz deadline, EventWaitLook look, void *arg);
extern bool EventWaitUntil(FunctionCallInfo fcinfo, const char *procedure,
						   WakeupReason reason, TimestampTz deadline,
						   EventWaitLook look, void *arg);
extern void EventWaitSetSubscription(EventWaitSubscription wait);

#endif							/* CQRS_ES_EVENT_WAIT_H */
