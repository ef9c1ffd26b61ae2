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

/*
 * Called once for the new events of an append, all of one stream, as soon as they
 * are in the log and visible, before any observer is told of them.  It may refuse
 * them by an error.  (Of an INSERT of many rows it is called for each.)
 */
typedef void (*EventGuard) (const Event *events, int nevents);

extern void DispatchInit(void);
extern void DispatchRegisterGuard(EventGuard guard);
extern void DispatchRegister(EventObserver observer);
extern void DispatchEvents(const Event *events, int nevents);
extern bool DispatchHold(void);
extern void DispatchRelease(bool held_before);
extern bool DispatchHasQueued(void);
extern bool DispatchIsBusy(void);
extern bool DispatchIsQueued(int64 position);
extern void DispatchForbid(bool forbid);
extern uint64 DispatchRefusals(void);
extern bool DispatchMaySee(Oid role);
extern void DispatchSetHandler(const char *projection);

#endif							/* CQRS_ES_DISPATCH_H */
