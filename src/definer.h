/*-------------------------------------------------------------------------
 * definer.h
 *	  What users wrote runs with the rights of whoever defined it.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DEFINER_H
#define CQRS_ES_DEFINER_H

#include "internal_query.h"

extern RoleSwitch RoleSwitchToDefiner(Oid role, const char *search_path);
extern char *DefinerSearchPath(void);
extern void RequireRole(Oid role);
extern void RefuseTemporaryObjects(SPIPlanPtr plan);
extern bool PlanIsCurrent(SPIPlanPtr plan);
extern void RequirePlanRights(SPIPlanPtr plan);

#endif							/* CQRS_ES_DEFINER_H */
