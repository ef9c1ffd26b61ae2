/*-------------------------------------------------------------------------
 * direct_plan.h
 *	  Plans of definers that run nothing but the server's own code.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DIRECT_PLAN_H
#define CQRS_ES_DIRECT_PLAN_H

#include "executor/spi.h"
#include "nodes/params.h"

#include "base/internal_query.h"

typedef struct DirectPlan DirectPlan;

extern DirectPlan *DirectPlanMake(SPIPlanPtr plan, MemoryContext memory);
extern bool DirectPlanIsCurrent(const DirectPlan *direct);
extern uint64 DirectPlanRun(const DirectPlan *direct, ParamListInfo params, QueryRow *first);

#endif							/* CQRS_ES_DIRECT_PLAN_H */
