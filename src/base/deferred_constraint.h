/*-------------------------------------------------------------------------
 * deferred_constraint.h
 *	  Constraints that are checked at commit, checked earlier.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DEFERRED_CONSTRAINT_H
#define CQRS_ES_DEFERRED_CONSTRAINT_H

#include "nodes/pg_list.h"

extern void DeferredConstraintInit(void);
extern List *DeferredConstraintWaiting(void);
extern void DeferredConstraintCheck(List *waiting);
extern List *DeferredConstraintHold(void);
extern void DeferredConstraintRelease(List *held);

#endif							/* CQRS_ES_DEFERRED_CONSTRAINT_H */
