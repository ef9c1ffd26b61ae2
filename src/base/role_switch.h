/*-------------------------------------------------------------------------
 * role_switch.h
 *	  Another role's rights and search_path for a while.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_ROLE_SWITCH_H
#define CQRS_ES_ROLE_SWITCH_H

#include "nodes/pg_list.h"

/* Another role's rights and search_path for a while; see role_switch.c. */
typedef struct RoleSwitch
{
	Oid			saved_user;
	int			saved_context;
	int			guc_level;
	int			saved_ndefiners;
} RoleSwitch;

extern void RoleSwitchInit(void);
extern RoleSwitch RoleSwitchTo(Oid role, const char *search_path);
extern RoleSwitch RoleSwitchStay(void);
extern RoleSwitch RoleSwitchToOwner(const char *relname);
extern void RoleSwitchRequireAllRows(void);
extern void RoleSwitchBack(const RoleSwitch *saved);
extern void RoleSwitchNoteDefiner(Oid role);
extern bool RoleSwitchIsDefiner(void);
extern const List *RoleSwitchPastDefiners(void);

#endif							/* CQRS_ES_ROLE_SWITCH_H */
