/*-------------------------------------------------------------------------
 * definer.h
 *	  What users wrote runs with the rights of whoever defined it.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DEFINER_H
#define CQRS_ES_DEFINER_H

#include "parser/parse_node.h"

#include "base/internal_query.h"

extern void DefinerInit(void);
extern void DefinerRegisterParser(PostParseColumnRefHook hook);
extern RoleSwitch RoleSwitchToDefiner(Oid role, const char *search_path);
extern char *DefinerSearchPath(void);
extern void RequireRole(Oid role);
extern void RefuseTemporaryObjects(SPIPlanPtr plan);
extern bool PlanIsCurrent(SPIPlanPtr plan);
extern void RequirePlanRights(SPIPlanPtr plan);
pg_noreturn extern void DefinerThrow(const ErrorData *error);
extern const char *DefinerDetail(const ErrorData *error);

#endif							/* CQRS_ES_DEFINER_H */
