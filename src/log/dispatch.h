/*-------------------------------------------------------------------------
 * dispatch.h
 *	  What happens in the appending transaction after an event is in the log.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DISPATCH_H
#define CQRS_ES_DISPATCH_H

#include "log/events.h"

/*
 * Called for every new event, in the appending transaction, when the event
 * and all others of the same append (or INSERT) are in the log and visible.
 * An error fails the append.
 */
typedef void (*EventObserver) (const Event *event);

extern void DispatchInit(void);
extern void DispatchRegister(EventObserver observer);
extern void DispatchEvents(const Event *events, int nevents);
extern bool DispatchHold(void);
extern void DispatchRelease(bool held_before);
extern bool DispatchIsBusy(void);
extern bool DispatchIsQueued(int64 position);
extern void DispatchForbid(bool forbid);
extern uint64 DispatchRefusals(void);
extern void DispatchSetHandler(const char *projection);

#endif							/* CQRS_ES_DISPATCH_H */
